/** HTTP against servers that behave well, and against those that do not. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import http, { type RequestListener } from "node:http";
import https from "node:https";
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { test, type TestContext } from "node:test";
import { Worker } from "node:worker_threads";
import { RealClock } from "./clock.js";
import { Fault, type FaultKind, isFault } from "./errors.js";
import { HttpClient, retryAfterMs, type HttpOptions } from "./http.js";
import type { Reading } from "./plugin.js";
import { readingOf } from "./reading.js";
import { until } from "../test/conformance/clause.js";
import { bytes, readingOfStream, sha256 } from "../test/conformance/upload.js";

const calm = () => new AbortController().signal;

async function listening(t: TestContext, server: Server | http.Server | https.Server, host = "127.0.0.1"): Promise<number> {
  server.listen(0, host);
  await once(server, "listening");
  t.after(() => {
    server.close();
    if ("closeAllConnections" in server) server.closeAllConnections();
  });
  return (server.address() as AddressInfo).port;
}

async function over(t: TestContext, answer: RequestListener, more: Partial<HttpOptions> = {}): Promise<HttpClient> {
  return clientTo(t, `http://127.0.0.1:${await listening(t, http.createServer(answer))}`, more);
}

function clientTo(t: TestContext, origin: string, more: Partial<HttpOptions> = {}): HttpClient {
  const client = new HttpClient({ origin: new URL(origin), tls: {}, timeoutMs: 5000, clock: new RealClock(false), ...more });
  t.after(() => client.close());
  return client;
}

const hasOpenssl = (() => {
  try {
    execFileSync("openssl", ["version"]);
    return true;
  } catch {
    return false;
  }
})();

const get = { method: "GET", path: "/", what: "cannot look" };

async function fault(work: Promise<unknown>, kind: FaultKind, words: RegExp): Promise<void> {
  await assert.rejects(work, (error: unknown) => {
    assert.ok(isFault(error, kind), `${String(error)} is no "${kind}"`);
    assert.match(error.message, words);
    return true;
  });
}

test("a body goes out as it comes, the answer comes back; a connection is used again", async (t) => {
  const sockets = new Set<unknown>();
  const client = await over(t, (request, response) => {
    sockets.add(request.socket);
    const parts: Buffer[] = [];
    request.on("data", (part: Buffer) => parts.push(part));
    request.on("end", () => response.writeHead(201, { "x-was": String(Buffer.concat(parts).length) }).end("done"));
  });
  for (let n = 1; n <= 3; n++) {
    const body = readingOfStream(Readable.from([Buffer.alloc(100_000), Buffer.alloc(n)]));
    const answer = await client.request({ method: "PUT", path: "/a", body, what: "cannot write" }, calm());
    assert.deepEqual([answer.status, answer.headers["x-was"], await answer.text()], [201, String(100_000 + n), "done"]);
  }
  assert.equal(sockets.size, 1);
});

/** One server for itself: its key and certificate, by openssl. */
function selfSigned(t: TestContext): { key: Buffer; cert: Buffer; path: string } {
  const dir = mkdtempSync(join(tmpdir(), "filesync-http-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=it -addext subjectAltName=IP:127.0.0.1";
  execFileSync("openssl", [...made.split(" "), "-keyout", "it.key", "-out", "it.pem"], { cwd: dir, stdio: "ignore" });
  const path = join(dir, "it.pem");
  return { key: readFileSync(join(dir, "it.key")), cert: readFileSync(path), path };
}

for (const secure of [false, true]) {
  const skip = secure && !hasOpenssl ? "openssl is not installed" : false;
  test(`chunks are given back after their last use, and soon: ${secure ? "https" : "http"}`, { skip }, async (t) => {
    const content = bytes(48 * 2 ** 20);
    const take: RequestListener = (request, response) => {
      const hash = createHash("sha256");
      // Slower than it is sent: what waits is here, not in the kernel.
      request.on("data", (part: Buffer) => {
        hash.update(part);
        request.pause();
        setImmediate(() => request.resume());
      });
      request.on("end", () => response.end(`sha256:${hash.digest("hex")}`));
    };
    const it = secure ? selfSigned(t) : undefined;
    const port = await listening(t, it === undefined ? http.createServer(take) : https.createServer(it, take));
    const client = clientTo(t, `${it === undefined ? "http" : "https"}://127.0.0.1:${port}`, {
      tls: it === undefined ? {} : { ca: it.path },
    });
    const lent = new Set<number>();
    let most = 0;
    // What is given back is scribbled over.
    const inner = readingOfStream(Readable.from(pieces(content, 2 ** 19), { highWaterMark: 1 }));
    const body: Reading = {
      next: async () => {
        const chunk = await inner.next();
        if (chunk === undefined) return undefined;
        const id = lent.size === 0 ? 0 : Math.max(...lent) + 1;
        most = Math.max(most, lent.add(id).size);
        const release = () => {
          assert.ok(lent.delete(id), "given back twice");
          chunk.release();
        };
        return { bytes: chunk.bytes, release };
      },
      close: () => inner.close(),
    };
    const headers = { "Content-Length": content.length };
    const answer = await client.request({ method: "PUT", path: "/", headers, body, what: "cannot write" }, calm());
    assert.equal(await answer.text(), sha256(content));
    assert.deepEqual([...lent], []);
    assert.ok(most <= 4, `${most} chunks of 512 KiB were lent at once`);
  });
}

function* pieces(content: Buffer, size: number): Generator<Buffer> {
  for (let at = 0; at < content.length; at += size) yield content.subarray(at, at + size);
}

test("a redirect is an answer, not followed", async (t) => {
  let asked = 0;
  const client = await over(t, (_, response) => {
    asked += 1;
    response.writeHead(302, { location: "/portal" }).end();
  });
  assert.equal((await client.request(get, calm())).status, 302);
  assert.equal(asked, 1);
});

test("refused, reset, silent, cut off: each is told as core needs it", async (t) => {
  await fault(clientTo(t, "http://127.0.0.1:1").request(get, calm()), "offline", /^cannot look at 127\.0\.0\.1:1: the server is not there/);
  const resets = createServer((socket) => socket.once("data", () => socket.resetAndDestroy()));
  await fault(
    clientTo(t, `http://127.0.0.1:${await listening(t, resets)}`).request(get, calm()),
    "transient",
    /the connection was reset|socket hang up/,
  );
  const silent = createServer(() => undefined);
  await fault(
    clientTo(t, `http://127.0.0.1:${await listening(t, silent)}`, { timeoutMs: 200 }).request(get, calm()),
    "transient",
    /no answer came/,
  );
  const noHttp = createServer((socket) => socket.end("220 FTP ready\r\n"));
  await fault(
    clientTo(t, `http://127.0.0.1:${await listening(t, noHttp)}`).request(get, calm()),
    "denied",
    /no web server: "220 FTP ready"; look at "url"/,
  );
});

test("what the body's stream ends with is what the request ends with; a signal ends it", async (t) => {
  const client = await over(t, () => undefined);
  const broken = new Readable({ read: () => undefined });
  const asked = client.request({ method: "PUT", path: "/", body: readingOfStream(broken), what: "cannot write" }, calm());
  broken.push(Buffer.alloc(10));
  setImmediate(() => broken.destroy(new Fault("changed", "it was written meanwhile")));
  await fault(asked, "changed", /written meanwhile/);
  const stop = new AbortController();
  const body = new Readable({ read: () => undefined });
  const waits = client.request({ method: "PUT", path: "/", body: readingOfStream(body), what: "cannot write" }, stop.signal);
  body.push(Buffer.alloc(10));
  setImmediate(() => stop.abort(new Fault("aborted", "enough")));
  await fault(waits, "aborted", /enough/);
  assert.ok(body.destroyed);
});

test("what our own bytes are waited for is no silence of the server; one that takes them no more is", async (t) => {
  let parts = 0;
  const client = await over(t, (request, response) => {
    request.on("data", () => (parts += 1)).on("end", () => response.end("done"));
    request.on("error", () => undefined);
  });
  const sockets: Socket[] = [];
  const begun = (message: unknown) => void sockets.push((message as { socket: Socket }).socket);
  subscribe("net.client.socket", begun);
  t.after(() => unsubscribe("net.client.socket", begun));
  const late = async function* () {
    yield Buffer.from("a");
    await until("it to be there", () => parts === 1);
    // As if nothing had moved for as long as it may: no time is so short that a busy machine stands still for less.
    for (const socket of sockets) socket.emit("timeout");
    yield Buffer.from("b");
  };
  const put = { method: "PUT", path: "/", what: "cannot write" };
  const answer = await client.request({ ...put, body: readingOf(late()) }, calm());
  assert.deepEqual([await answer.text(), parts], ["done", 2]);
  const deaf = createServer((socket) => void socket.pause().on("error", () => undefined));
  const other = clientTo(t, `http://127.0.0.1:${await listening(t, deaf)}`, { timeoutMs: 100 });
  const endless: Reading = {
    next: () => Promise.resolve({ bytes: Buffer.alloc(65_536), release: () => undefined }),
    close: () => undefined,
  };
  await fault(other.request({ ...put, body: endless }, calm()), "transient", /cannot write at 127\.0\.0\.1:\d+: no answer came/);
});

test("a body that is refused by its length alone is not sent; a server that knows no Expect gets it all the same", async (t) => {
  const strict = http.createServer();
  strict.on("checkContinue", (_: http.IncomingMessage, response: http.ServerResponse) => response.writeHead(413).end("too large"));
  const client = clientTo(t, `http://127.0.0.1:${await listening(t, strict)}`);
  let read = 0;
  const body = () =>
    new Readable({
      read() {
        read += 1;
        this.push(read > 100 ? null : Buffer.alloc(65_536));
      },
    });
  const refused = await client.request(
    { method: "POST", path: "/", body: readingOfStream(body()), mayBeRefused: true, what: "cannot post" },
    calm(),
  );
  assert.deepEqual([refused.status, await refused.text()], [413, "too large"]);
  assert.ok(read < 3, `${read} chunks were read`);
  const old = createServer((socket) => {
    let got = "";
    socket.on("data", (data: Buffer) => {
      got += data.toString("latin1");
      if (got.endsWith("the end")) socket.end("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    });
  });
  const other = clientTo(t, `http://127.0.0.1:${await listening(t, old)}`);
  const headers = { "Content-Length": 7 };
  const taken = await other.request(
    {
      method: "POST",
      path: "/",
      headers,
      body: readingOfStream(Readable.from([Buffer.from("the end")])),
      mayBeRefused: true,
      what: "cannot post",
    },
    calm(),
  );
  assert.equal(taken.status, 200);
});

/** Says no in the middle of a body and resets the connection, while the client's thread stands still. */
const refuser = `
const { parentPort, workerData } = require("node:worker_threads");
const flags = new Int32Array(workerData);
const server = require("node:net").createServer((socket) => {
  socket.on("error", () => undefined);
  socket.once("data", () => {
    // What is not read makes a close a reset.
    socket.pause();
    parentPort.postMessage("here");
    Atomics.wait(flags, 0, 0);
    socket.write("HTTP/1.1 413 No\\r\\nContent-Length: 9\\r\\n\\r\\ntoo large", () => socket.destroy());
    socket.once("close", () => Atomics.notify(flags, 1, Atomics.store(flags, 1, 1)));
  });
});
server.listen(0, "127.0.0.1", () => parentPort.postMessage(server.address().port));
`;

test("a refusal in the middle of a body is heard, though the connection is reset before the next bytes go out", async (t) => {
  const shared = new SharedArrayBuffer(8);
  const flags = new Int32Array(shared);
  const worker = new Worker(refuser, { eval: true, workerData: shared });
  t.after(() => worker.terminate());
  const [port] = (await once(worker, "message")) as [number];
  const client = clientTo(t, `http://127.0.0.1:${port}`);
  const here = once(worker, "message");
  let given = 0;
  const body: Reading = {
    next: async () => {
      given += 1;
      if (given === 2) {
        await here;
        Atomics.store(flags, 0, 1);
        Atomics.notify(flags, 0);
        assert.notEqual(Atomics.wait(flags, 1, 0, 20_000), "timed-out");
      }
      return { bytes: Buffer.alloc(2 ** 20), release: () => undefined };
    },
    close: () => undefined,
  };
  const answer = await client.request(
    { method: "PUT", path: "/", headers: { "Content-Length": 2 ** 30 }, body, what: "cannot write" },
    calm(),
  );
  assert.deepEqual([answer.status, await answer.text()], [413, "too large"]);
});

test("after a refusal before the end of a body no more of it is read, and the connection is closed", async (t) => {
  for (const mayBeRefused of [true, false]) {
    const open = new Set<Socket>();
    // It would wait for the rest for ever. From Node 24 on what is not read hides that the other side has gone.
    const refusing = http.createServer({ keepAliveTimeout: 0, requestTimeout: 0 }, (request, response) =>
      request.once("readable", () => {
        response.writeHead(413).end("too large");
        request.resume();
      }),
    );
    refusing.on("checkContinue", (_: unknown, response: http.ServerResponse) => response.writeHead(413).end("too large"));
    refusing.on("connection", (socket) => open.add(socket.once("close", () => open.delete(socket))));
    const client = clientTo(t, `http://127.0.0.1:${await listening(t, refusing)}`);
    let given = 0;
    let closed = 0;
    const body: Reading = {
      next: () => Promise.resolve({ bytes: Buffer.alloc(65_536, ++given), release: () => undefined }),
      close: () => (closed += 1),
    };
    const asked = { method: "PUT", path: "/", headers: { "Content-Length": 2 ** 30 }, body, mayBeRefused, what: "cannot write" };
    const answer = await client.request(asked, calm());
    assert.deepEqual([answer.status, await answer.text()], [413, "too large"]);
    const read = given;
    await until("the connection to be closed", () => open.size === 0);
    assert.deepEqual([given - read, closed], [0, 1]);
  }
});

test("a server that refuses an Expect (417) is asked for none from then on", async (t) => {
  const refusing = http.createServer((request, response) => {
    request.resume().on("end", () => response.end("ok"));
  });
  refusing.on("checkContinue", (_: http.IncomingMessage, response: http.ServerResponse) => response.writeHead(417).end());
  const client = clientTo(t, `http://127.0.0.1:${await listening(t, refusing)}`);
  const post = () =>
    client.request(
      { method: "POST", path: "/", body: readingOfStream(Readable.from([Buffer.from("it")])), mayBeRefused: true, what: "cannot post" },
      calm(),
    );
  await assert.rejects(post(), (error: unknown) => isFault(error, "transient") && error.notTaken);
  assert.equal((await post()).status, 200);
});

test("an answer is waited for no longer because something moves: one 102 after the other", async (t) => {
  const busy = createServer((socket) => {
    const more = setInterval(() => socket.write("HTTP/1.1 102 Processing\r\n\r\n"), 50);
    socket.on("error", () => undefined).on("close", () => clearInterval(more));
  });
  const client = clientTo(t, `http://127.0.0.1:${await listening(t, busy)}`);
  await fault(client.request({ ...get, answerMs: 300 }, calm()), "transient", /no answer came/);
});

test("a server that changes to another protocol (101) has not answered", async (t) => {
  const server = createServer((socket) => {
    socket.once("data", () => socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"));
  });
  const client = clientTo(t, `http://127.0.0.1:${await listening(t, server)}`);
  await fault(client.request(get, calm()), "transient", /another protocol/);
});

test("a server is told that only what is not compressed can be read", async (t) => {
  const client = await over(t, (request, response) => response.end(request.headers["accept-encoding"]));
  assert.equal(await (await client.request(get, calm())).text(), "identity");
});

test("a kept connection that the server closed is no failure", async (t) => {
  const server = http.createServer((_, response) => response.end("ok"));
  server.keepAliveTimeout = 100_000;
  const client = clientTo(t, `http://127.0.0.1:${await listening(t, server)}`);
  await (await client.request(get, calm())).text();
  // As if it had been closed while our next request was on its way.
  server.closeAllConnections();
  assert.equal(await (await client.request(get, calm())).text(), "ok");
});

test(
  "TLS: who is believed; nothing is said to a server that is another",
  { skip: hasOpenssl ? false : "openssl is not installed" },
  async (t) => {
    const dir = mkdtempSync(join(tmpdir(), "filesync-http-"));
    t.after(() => rmSync(dir, { recursive: true }));
    const openssl = (...args: string[]) =>
      execFileSync("openssl", args, { cwd: dir, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
    writeFileSync(
      join(dir, "ca.cnf"),
      "[ca]\ndefault_ca = d\n[d]\ndatabase = index.txt\nrand_serial = yes\nnew_certs_dir = .\ndefault_md = sha256\npolicy = p\nx509_extensions = e\n[p]\ncommonName = supplied\n[e]\nsubjectAltName = DNS:localhost, IP:::1\n",
    );
    writeFileSync(join(dir, "index.txt"), "");
    const make = (name: string, from: string, to: string) => {
      openssl(
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-keyout",
        `${name}.key`,
        "-out",
        `${name}.csr`,
        "-subj",
        `/CN=${name}`,
      );
      const dates = ["-startdate", from, "-enddate", to];
      openssl(
        "ca",
        "-batch",
        "-notext",
        "-selfsign",
        "-config",
        "ca.cnf",
        "-in",
        `${name}.csr`,
        "-keyfile",
        `${name}.key`,
        "-out",
        `${name}.pem`,
        ...dates,
      );
      const shown = openssl("x509", "-in", `${name}.pem`, "-noout", "-fingerprint", "-sha256");
      const file = (kind: string) => readFileSync(join(dir, `${name}.${kind}`));
      const fingerprint = (shown.split("=")[1] ?? "").trim().replaceAll(":", "").toLowerCase();
      return { key: file("key"), cert: file("pem"), path: join(dir, `${name}.pem`), fingerprint };
    };
    const good = make("good", "20200101000000Z", "20991231000000Z");
    const old = make("old", "20200101000000Z", "20210101000000Z");
    let heard = 0;
    const listen = (it: { key: Buffer; cert: Buffer }, host?: string) =>
      listening(
        t,
        https.createServer(it, (_, response) => {
          heard += 1;
          response.end("ok");
        }),
        host,
      );
    const serve = async (it: { key: Buffer; cert: Buffer }) => `https://localhost:${await listen(it)}`;
    const at = await serve(good);
    const ask = async (origin: string, more: Partial<HttpOptions>) => (await clientTo(t, origin, more).request(get, calm())).text();
    assert.equal(await ask(at, { tls: { fingerprint: good.fingerprint } }), "ok");
    assert.equal(await ask(at, { tls: { ca: good.path } }), "ok");
    assert.equal(await ask(`https://[::1]:${await listen(good, "::1")}`, { tls: { ca: good.path } }), "ok");
    heard = 0;
    await fault(ask(at, {}), "denied", /certificate or TLS is not accepted .*"tls"/);
    await fault(
      ask(at, { tls: { fingerprint: "0".repeat(64) } }),
      "denied",
      /the server's certificate is SHA256:.*another server, or a new certificate/,
    );
    await fault(ask(at, { tls: { ca: join(dir, "missing") } }), "config", /cannot read .*missing/);
    await fault(ask(at.replace("https:", "http:"), {}), "transient", /./);
    const expired = await serve(old);
    await fault(ask(expired, { tls: { ca: old.path } }), "denied", /has expired or is not valid yet/);
    const doubted = new (class extends RealClock {
      override trusted = () => false;
    })(false);
    await fault(ask(expired, { tls: { ca: old.path }, clock: doubted }), "offline", /the clock is not set/);
    assert.equal(heard, 0);
    const plain = await listening(
      t,
      http.createServer((_, response) => void response.end("ok")),
    );
    await fault(
      ask(`https://localhost:${plain}`, {}),
      "denied",
      /what answers there speaks no TLS \(wrong version number\); look at "url"/,
    );
  },
);

test("Retry-After: seconds, or a date where the clock is trusted", () => {
  const clock = new RealClock(false);
  assert.equal(retryAfterMs({ "retry-after": "120" }, clock), 120_000);
  const inMs = retryAfterMs({ "retry-after": new Date(Date.now() + 60_000).toUTCString() }, clock) ?? 0;
  assert.ok(inMs > 55_000 && inMs <= 60_000);
  assert.equal(retryAfterMs({ "retry-after": "soon" }, clock), undefined);
  assert.equal(retryAfterMs({}, clock), undefined);
});

test("Retry-After: a date is one of the server's clock, whatever ours says", () => {
  class Wrong extends RealClock {
    constructor(readonly isTrusted: boolean) {
      super(false);
    }
    override wallMs(): number {
      return Date.UTC(2000, 0, 1);
    }
    override trusted(): boolean {
      return this.isTrusted;
    }
  }
  const [date, later] = ["Wed, 25 Nov 2026 10:00:00 GMT", "Wed, 25 Nov 2026 10:05:00 GMT"];
  for (const isTrusted of [true, false]) assert.equal(retryAfterMs({ "retry-after": later, date }, new Wrong(isTrusted)), 300_000);
  assert.equal(retryAfterMs({ "retry-after": date, date }, new Wrong(true)), undefined);
  // Nothing says what time it is.
  assert.equal(retryAfterMs({ "retry-after": later }, new Wrong(false)), undefined);
  assert.equal(retryAfterMs({ "retry-after": later, date: "soon" }, new Wrong(false)), undefined);
});

test("a Retry-After that asks for no wait is none, and none is longer than a day", () => {
  const clock = new RealClock(false);
  // A date that has passed is what a server says whose clock is behind.
  for (const none of ["0", "-1", "in 5", "Wed, 21 Oct 2015 07:28:00 GMT"])
    assert.equal(retryAfterMs({ "retry-after": none }, clock), undefined, none);
  for (const long of ["31536000", "9".repeat(400), "Fri, 31 Dec 9999 23:59:59 GMT"])
    assert.equal(retryAfterMs({ "retry-after": long }, clock), 86_400_000, long);
});

test("an answer that goes on and on, a little at a time, is none", async (t) => {
  let written = 0;
  const client = await over(t, (_, response) => {
    response.writeHead(200);
    const timer = setInterval(() => response.write(".", () => (written += 1)), 20);
    response.once("close", () => clearInterval(timer));
  });
  const answer = await client.request(get, calm());
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const ended = assert.rejects(answer.text(), { code: "ETIMEDOUT" });
  while (written < 5) await new Promise((resolve) => setImmediate(resolve));
  t.mock.timers.tick(5000);
  await ended;
});

test("a request is stopped also while its connection begins", { timeout: 30_000 }, async (t) => {
  const silent = createServer((socket) => t.after(() => socket.on("error", () => undefined).destroy()));
  const client = clientTo(t, `https://127.0.0.1:${await listening(t, silent)}`, { timeoutMs: 60_000 });
  const stop = new AbortController();
  const asking = fault(client.request(get, stop.signal), "offline", /not within 15 s/);
  await once(silent, "connection");
  stop.abort(new Fault("offline", "not within 15 s"));
  await asking;
});

test("what was asked once more, and reached nobody then, may have been done the first time", async (t) => {
  let deletes = 0;
  const server = http.createServer((request, response) => {
    if (request.method !== "DELETE") {
      response.end("here");
      return;
    }
    deletes += 1;
    // Done, and the server is started anew before it answers.
    server.close();
    request.socket.destroy();
  });
  const client = clientTo(t, `http://127.0.0.1:${await listening(t, server)}`);
  await (await client.request(get, calm())).text();
  const asked = client.request({ method: "DELETE", path: "/a", what: "cannot remove" }, calm());
  await assert.rejects(asked, (error: unknown) => isFault(error, "offline") && !error.notTaken);
  assert.equal(deletes, 1);
});
