/** WebDAV servers that lie, refuse, hold back or are none: what core is told, and that nothing wrong is ever published. */
import assert from "node:assert/strict";
import { promises as fs } from "node:fs";
import type { OutgoingHttpHeaders } from "node:http";
import { join } from "node:path";
import { test } from "node:test";
import { isFault, type FaultKind } from "../../core/errors.js";
import type { Device } from "../../core/plugin.js";
import { DavDouble, responseOf, type Exchange } from "../doubles/dav.js";
import { YandexDouble } from "../doubles/yandex.js";
import { calm, expectFault, until } from "./clause.js";
import { davDevice } from "./dav-harness.js";
import { listed, plain, scene, source, target } from "./dav-scene.js";
import { short, stuck } from "./readers.js";
import { isReceipt, send } from "./target-under-test.js";
import { bytes, memo, upload } from "./upload.js";

const puts = (double: DavDouble) => double.asked.filter((it) => it.startsWith("PUT") && !it.endsWith(".try.part"));

/** Everything that a device does at a server. */
const works: Readonly<Record<string, (device: Device) => Promise<unknown>>> = {
  probe: (device) => device.probe(calm()),
  list: (device) => listed(device),
  stat: (device) => source(device).stat("a.bin", calm()),
  open: (device) => source(device).open({ path: "a.bin", kind: "file", size: 20 }, 0, calm()),
  offset: (device) => target(device).offset(upload("a.bin", bytes(10)), calm()),
  write: (device) => target(device).write(upload("a.bin", bytes(200_000)), 0, calm(), () => undefined),
  commit: (device) => target(device).commit(upload("a.bin", bytes(10)), calm()),
  look: (device) => target(device).look?.(upload("a.bin", bytes(10)), calm()) ?? assert.fail(),
  remove: (device) => device.tree?.remove("a.bin", { size: 10 }, calm()) ?? assert.fail(),
};

const refusals: readonly (readonly [what: string, answer: (exchange: Exchange) => void, kind: FaultKind])[] = [
  [
    "a portal that says 200 with a page to all",
    ({ response }) => response.writeHead(200, { "content-type": "text/html" }).end("<html>Log in</html>"),
    "offline",
  ],
  ["a portal on another host", ({ response }) => response.writeHead(302, { location: "http://portal.example/login" }).end(), "offline"],
  ["a login page on the same host", ({ response }) => response.writeHead(302, { location: "/login" }).end(), "denied"],
  ["a network that wants a login", ({ response }) => response.writeHead(511).end(), "offline"],
  ["a wrong password", ({ response }) => response.writeHead(401, { "www-authenticate": "Basic" }).end(), "denied"],
  ["maintenance", ({ response }) => response.writeHead(503, { "retry-after": "120" }).end(), "throttled"],
  ["too many requests", ({ response }) => response.writeHead(429).end(), "throttled"],
  ["a server that is broken", ({ response }) => response.writeHead(500).end("x".repeat(100_000)), "transient"],
  ["a list that is none", ({ method, response }) => response.writeHead(method === "PROPFIND" ? 207 : 500).end("<html/>"), "transient"],
];

for (const [what, answer, kind] of refusals)
  test(`${what}: ${kind}, whatever is asked`, async (t) => {
    const { double, device } = await scene(t, plain);
    double.instead = (exchange) => {
      exchange.request.resume();
      answer(exchange);
      return true;
    };
    for (const [name, work] of Object.entries(works)) {
      const message = await expectFault(work(device), kind).catch((error: unknown) => assert.fail(`${name}: ${String(error)}`));
      assert.match(message, /127\.0\.0\.1/, "it says which server");
      assert.ok(message.length < 400, message);
    }
    assert.deepEqual(await fs.readdir(double.dir), []);
  });

test("Retry-After is told to core; a server that is busy and does not say for how long is left alone for a minute", async (t) => {
  const { double, device } = await scene(t, plain);
  for (const [headers, ms] of [
    [{ "retry-after": "120" }, 120_000],
    [{}, 60_000],
  ] as const) {
    double.instead = ({ response }) => (response.writeHead(503, headers).end(), true);
    await assert.rejects(device.probe(calm()), (error: unknown) => isFault(error, "throttled") && error.retryAfterMs === ms);
  }
});

test("413 with Retry-After: too large only now, and only this file is asked to wait; without it for good", async (t) => {
  const { double, device } = await scene(t, plain);
  const put = () => target(device).write(upload("a.bin", bytes(100_000)), 0, calm(), () => undefined);
  double.instead = (exchange) => exchange.method === "PUT" && (exchange.response.writeHead(413, { "retry-after": "120" }).end(), true);
  await assert.rejects(put(), (error: unknown) => isFault(error, "transient") && error.retryAfterMs === 120_000);
  double.instead = (exchange) => exchange.method === "PUT" && (double.say(exchange, 413), true);
  await expectFault(put(), "rejected");
});

test("a proxy whose server is away (502, 504): the server is not there, whatever is asked of it; what it takes so long for may have been cut off by it", async (t) => {
  for (const status of [502, 504]) {
    const { double, device } = await scene(t, plain, { timeout: "5s" });
    const it = upload("first.bin", bytes(100_000));
    await target(device).write(it, 0, calm(), () => undefined);
    double.instead = (exchange) => (double.say(exchange, status), true);
    for (const [name, work] of Object.entries(works)) {
      if (["list", "open", "write", "remove"].includes(name)) continue;
      const message = await expectFault(work(device), "offline").catch((error: unknown) => assert.fail(`${name}: ${String(error)}`));
      assert.match(message, /the server behind it gave no answer/);
    }
    double.instead = (exchange) => ["PUT", "MOVE"].includes(exchange.method) && (double.say(exchange, status), true);
    await expectFault(
      target(device).write(upload("a.bin", bytes(3_000_000)), 0, calm(), () => undefined),
      "transient",
    );
    await expectFault(target(device).commit(it, calm()), "transient");
  }
});

test("a portal comes up in the middle: what it says of a PUT or a MOVE is not believed", async (t) => {
  const { double, device } = await scene(t, plain);
  const it = upload("dir/a.bin", bytes(200_000));
  const page = ({ request, response }: Exchange) => (request.resume(), response.writeHead(200).end("<html>Log in</html>"), true);
  await target(device).write(it, 0, calm(), () => undefined);
  double.instead = (exchange) => exchange.method === "MOVE" && page(exchange);
  await expectFault(target(device).commit(it, calm()), "offline");
  // Then one that says what a server would.
  double.instead = (exchange) => exchange.method === "MOVE" && (exchange.response.writeHead(201).end(), true);
  await expectFault(target(device).commit(it, calm()), "transient");
  const other = upload("dir/b.bin", bytes(200_000));
  double.instead = (exchange) => exchange.method === "PUT" && page(exchange);
  await target(device)
    .write(other, 0, calm(), () => undefined)
    .catch(() => undefined);
  await expectFault(target(device).commit(other, calm()), "conflict");
  double.instead = () => false;
  assert.equal((await send(target(device), it)).size, 200_000);
  assert.deepEqual(await fs.readdir(join(double.dir, "dir")), ["a.bin"]);
});

test("refusals of a file: each as core needs it, and nothing is left under the name", async (t) => {
  const { double, device } = await scene(t, plain);
  await device.probe(calm());
  await send(target(device), upload("first.bin", bytes(100_000)));
  const wanted: readonly (readonly [number, FaultKind])[] = [
    [400, "rejected"],
    [401, "denied"],
    [403, "denied"],
    [413, "rejected"],
    [423, "transient"],
    [429, "throttled"],
    [500, "transient"],
    [501, "rejected"],
    [507, "full"],
  ];
  for (const [status, kind] of wanted) {
    double.instead = (exchange) => exchange.method === "PUT" && (double.say(exchange, status), true);
    await expectFault(
      target(device).write(upload("a.bin", bytes(3_000_000)), 0, calm(), () => undefined),
      kind,
    );
  }
  assert.deepEqual(await fs.readdir(double.dir), ["first.bin"]);
});

test("what a write that broke off still locks is asked for again after a moment: a PUT, and a DELETE", async (t) => {
  const { double, device } = await scene(t, plain);
  await device.probe(calm());
  const it = upload("a.bin", bytes(10_000));
  for (const method of ["PUT", "DELETE"]) {
    let locked = 2;
    double.instead = (exchange) => {
      if (exchange.method !== method || locked === 0) return false;
      locked -= 1;
      exchange.request.resume();
      double.say(exchange, 423);
      return true;
    };
    if (method === "PUT") await target(device).write(it, 0, calm(), () => undefined);
    else await target(device).discard(it, calm());
    assert.equal(locked, 0, method);
    assert.equal((await fs.readdir(double.dir)).length, method === "PUT" ? 1 : 0);
  }
});

test("a server that lies about sizes publishes nothing", async (t) => {
  const { double, device } = await scene(t, plain);
  const it = upload("a.bin", bytes(100_000));
  await target(device).write(it, 0, calm(), () => undefined);
  const partial = join(double.dir, it.partialPath);
  // It said 201 and kept half.
  await fs.truncate(partial, 50_000);
  await expectFault(target(device).commit(it, calm()), "transient");
  assert.equal(await target(device).offset(it, calm()), 0, "half a file is nothing where none is continued");
  await fs.truncate(partial, 150_000);
  await expectFault(target(device).commit(it, calm()), "conflict");
  // Its lists tell another size than it has: reading back finds it out.
  await fs.truncate(partial, 50_000);
  const careful = davDevice(double.url, { verify: "readback" });
  t.after(() => careful.close());
  double.instead = async (exchange) => {
    if (exchange.method !== "PROPFIND" || !exchange.path.endsWith(".part")) return false;
    double.multistatus(exchange, [responseOf(exchange.path, Object.assign(await fs.stat(partial), { size: 100_000 }))]);
    return true;
  };
  await expectFault(target(careful).commit(it, calm()), "mismatch");
  assert.deepEqual(await fs.readdir(double.dir), [it.partialPath]);
});

/** Takes PUT with Content-Range as Apache does, until it does not. */
class Continuing extends DavDouble {
  continues = true;
  override software = "continues";

  protected override async put(exchange: Exchange, at: string): Promise<void> {
    const range = /^bytes (\d+)-/.exec(exchange.request.headers["content-range"] ?? "");
    if (range === null || !this.continues) return super.put(exchange, at);
    const file = await fs.open(at, "r+");
    try {
      let position = Number(range[1]);
      if (exchange.request.headers.expect === "100-continue") exchange.response.writeContinue();
      for await (const chunk of exchange.request) position += (await file.write(chunk as Buffer, 0, undefined, position)).bytesWritten;
    } catch {
      return;
    } finally {
      await file.close();
    }
    this.say(exchange, 204);
  }
}

/** In the middle of a body it says no and closes: `cut` in the middle of its words, `all` once it had everything. */
function midway(
  double: DavDouble,
  status: number,
  how: { readonly cut?: boolean; readonly all?: boolean; readonly headers?: OutgoingHttpHeaders } = {},
): void {
  double.instead = ({ method, request, response }) => {
    if (method !== "PUT") return false;
    if (request.headers.expect === "100-continue") response.writeContinue();
    const answer = () => {
      response.writeHead(status, { connection: "close", ...(how.cut === true ? { "content-length": 100 } : {}), ...how.headers });
      response.write("no more of it", () => request.socket.destroy());
    };
    if (how.all === true) request.resume().once("end", answer);
    else request.once("readable", answer);
    return true;
  };
}

test("a refusal in the middle of a body, after which the connection is reset, is what it says, with its words cut off too; the partial before stays", async (t) => {
  const { double, device } = await scene(t, (dir) => new Continuing(dir));
  await send(target(device), upload("first.bin", bytes(100_000)));
  const content = bytes(6_000_000);
  const it = upload("a.bin", content);
  await expectFault(
    target(device).write(upload("a.bin", content, { id: it.id, read: short(content, 2_000_000) }), 0, calm(), () => undefined),
    "transient",
  );
  const held = await target(device).offset(it, calm());
  const wanted: readonly (readonly [number, FaultKind, RegExp])[] = [
    [403, "denied", /answers 403/],
    [413, "rejected", /larger than this server takes in one request; nginx takes 1 MB but with "client_max_body_size 0"/],
    [423, "transient", /somebody has locked it/],
    [503, "throttled", /answers 503/],
    [507, "full", /no space is left there, or the quota is used up/],
  ];
  for (const [status, kind, words] of wanted)
    for (const cut of [false, true]) {
      midway(double, status, { cut, headers: status === 503 ? { "retry-after": "7" } : {} });
      const begun = upload(it.path, content, { id: it.id, read: stuck(content, held + 65_536, () => undefined) });
      const write = target(device).write(begun, held, calm(), () => undefined);
      await assert.rejects(
        write,
        (error: unknown) => isFault(error, kind) && words.test(error.message) && (kind !== "throttled" || error.retryAfterMs === 7000),
      );
    }
  double.instead = () => false;
  assert.equal(await target(device).offset(it, calm()), held, "what it had is kept");
  await send(target(device), it);
  assert.deepEqual((await fs.readdir(double.dir)).sort(), ["a.bin", "first.bin"]);
  assert.ok((await fs.readFile(join(double.dir, "a.bin"))).equals(content));
});

test("what a write that broke off had brought, and the server puts there only after it was told to remove it, is removed too", async (t) => {
  const { double, device } = await scene(t, plain);
  const it = upload("late.bin", bytes(200_000));
  const partial = join(double.dir, it.partialPath);
  let removals = 0;
  double.instead = async (exchange) => {
    const { method, path, request } = exchange;
    if (path !== `/${it.partialPath}`) return false;
    if (method === "PUT") return (request.resume(), true);
    if (method === "DELETE" && ++removals === 1) {
      double.say(exchange, 404);
      await fs.writeFile(partial, bytes(100_000));
      return true;
    }
    return false;
  };
  const cut = upload("late.bin", bytes(200_000), { id: it.id, read: short(bytes(200_000), 100_000) });
  await expectFault(
    target(device).write(cut, 0, calm(), () => undefined),
    "transient",
  );
  await target(device).discard(it, calm());
  assert.equal(removals, 2);
  assert.deepEqual(await fs.readdir(double.dir), []);
});

test("a server that says that what broke off is removed, and has it still, is asked a few times, and holds nothing up", async (t) => {
  const { double, device } = await scene(t, plain);
  const it = upload("stays.bin", bytes(200_000));
  let removals = 0;
  double.instead = async (exchange) => {
    const { method, path, request } = exchange;
    if (path !== `/${it.partialPath}`) return false;
    if (method === "PUT") {
      request.resume();
      await fs.writeFile(join(double.dir, it.partialPath), bytes(100_000));
      return true;
    }
    if (method !== "DELETE") return false;
    removals += 1;
    double.say(exchange, 204);
    return true;
  };
  const cut = upload("stays.bin", bytes(200_000), { id: it.id, read: short(bytes(200_000), 100_000) });
  await expectFault(
    target(device).write(cut, 0, calm(), () => undefined),
    "transient",
  );
  const discard = () => target(device).discard(it, calm());
  assert.match(await expectFault(discard(), "transient"), /has it still/);
  assert.equal(removals, 5);
  await discard();
  assert.equal(removals, 6);
});

test("a server that says that it is locked (423) only after it has had a large file is not sent it again at once", async (t) => {
  const { double, device } = await scene(t, plain);
  await send(target(device), upload("first.bin", bytes(100_000)));
  const before = puts(double).length;
  midway(double, 423, { all: true });
  await expectFault(
    target(device).write(upload("a.bin", bytes(3_000_000)), 0, calm(), () => undefined),
    "transient",
  );
  assert.equal(puts(double).length - before, 1);
});

/** The answer to a MOVE is lost, or says 202, and the server does it only later: while `later` says so of the next question. */
function lateMove(double: DavDouble, later: (exchange: Exchange) => boolean, answer?: 202): void {
  let move: (() => Promise<void>) | undefined;
  double.instead = async (exchange) => {
    const { method, path, request } = exchange;
    if (method === "MOVE" && move === undefined) {
      const to = double.destination(exchange);
      move = () => fs.rename(join(double.dir, path), to);
      if (answer === undefined) request.socket.destroy();
      else double.say(exchange, answer);
      return true;
    }
    if (move !== undefined && later(exchange)) {
      double.instead = () => false;
      await move();
    }
    return false;
  };
}

test("the connection is reset in the middle of a MOVE, or it is answered 202: what the server does of it, at once or later, gets one receipt and one name, and nothing is sent again", async (t) => {
  const laters: Readonly<Record<string, (exchange: Exchange) => boolean>> = {
    "at once": () => true,
    "before the next try looks at the name": ({ method, path }) => method === "PROPFIND" && path === "/a.bin",
    "before the next MOVE": ({ method }) => method === "MOVE",
  };
  for (const [when, later, answer] of Object.entries(laters).flatMap(([it, does]) => [
    [it, does, undefined] as const,
    [it, does, 202] as const,
  ])) {
    const { double, device } = await scene(t, plain);
    await send(target(device), upload("first.bin", bytes(100_000)));
    const it = upload("a.bin", bytes(200_000));
    await target(device).write(it, 0, calm(), () => undefined);
    double.asked.length = 0;
    lateMove(double, later, answer);
    let done: unknown;
    for (let tries = 0; done === undefined && tries < 4; tries++)
      done = await target(device)
        .commit(it, calm())
        .catch((error: unknown) => (isFault(error, "transient") ? undefined : assert.fail(`${when}: ${String(error)}`)));
    assert.deepEqual(done, { path: "a.bin", size: 200_000, proof: "size" }, when);
    assert.deepEqual((await fs.readdir(double.dir)).sort(), ["a.bin", "first.bin"]);
    assert.deepEqual(puts(double), []);
  }
});

test("a server that copies for a MOVE, whose answer was lost, is waited for: what it has of the file so far is no other's", async (t) => {
  const { double, device } = await scene(t, plain);
  await send(target(device), upload("first.bin", bytes(100_000)));
  const content = bytes(200_000);
  const it = upload("a.bin", content);
  await target(device).write(it, 0, calm(), () => undefined);
  double.asked.length = 0;
  let looks = 0;
  double.instead = async ({ method, path, request }) => {
    if (method === "MOVE") {
      await fs.writeFile(join(double.dir, "a.bin"), content.subarray(0, 70_000));
      request.socket.destroy();
      return true;
    }
    if (method === "PROPFIND" && path === "/a.bin" && ++looks === 3)
      await fs.rename(join(double.dir, it.partialPath), join(double.dir, "a.bin"));
    return false;
  };
  assert.deepEqual(await target(device).commit(it, calm()), { path: "a.bin", size: 200_000, proof: "size" });
  assert.equal(double.asked.filter((one) => one.startsWith("MOVE")).length, 1);
  assert.deepEqual((await fs.readdir(double.dir)).sort(), ["a.bin", "first.bin"]);
});

test("a lock on a file that is to get its name (423 to the MOVE): it is tried again, and not sent again", async (t) => {
  const { double, device } = await scene(t, plain);
  await send(target(device), upload("first.bin", bytes(100_000)));
  const it = upload("a.bin", bytes(200_000));
  await target(device).write(it, 0, calm(), () => undefined);
  double.asked.length = 0;
  double.instead = (exchange) => exchange.method === "MOVE" && (double.say(exchange, 423), true);
  assert.match(await expectFault(target(device).commit(it, calm()), "transient"), /somebody has locked it/);
  double.instead = () => false;
  assert.equal(((await target(device).commit(it, calm())) as { size: number }).size, 200_000);
  assert.deepEqual(puts(double), []);
});

test("another server behind the same address keeps only the range: it is noticed, and sent whole", async (t) => {
  const memory = memo();
  const { double, device } = await scene(t, (dir) => new Continuing(dir), {}, memory);
  const content = bytes(800_000);
  const first = upload("a.bin", content, { id: "00000000000000ab" });
  await target(device).write(first, 0, calm(), () => undefined);
  assert.equal(target(device).features.resume, true, "the trial was passed");
  for (const held of [300_000, 600_000]) {
    await fs.truncate(join(double.dir, first.partialPath), held);
    double.continues = false;
    await expectFault(
      target(device).write(upload("a.bin", content, { id: first.id }), held, calm(), () => undefined),
      "transient",
    );
    assert.equal(target(device).features.resume, false);
    assert.equal(memory.get("server"), undefined, "it is not believed after a restart either");
    assert.equal(await target(device).offset(first, calm()), 0, "what it holds is no beginning");
    double.continues = true;
    await target(device).write(upload("a.bin", content, { id: first.id }), 0, calm(), () => undefined);
  }
  await target(device).commit(first, calm());
  assert.ok((await fs.readFile(join(double.dir, "a.bin"))).equals(content));
});

test("a trial that a kill cut off is taken away by the next upload, whichever that is", async (t) => {
  const memory = memo();
  const { double, device } = await scene(t, (dir) => new Continuing(dir), {}, memory);
  const kill = new AbortController();
  const went = new Promise<void>((resolve) => {
    double.instead = ({ method, request }) => {
      if (method !== "DELETE") return false;
      request.resume();
      resolve();
      return true;
    };
  });
  const trials = async () => (await fs.readdir(double.dir)).filter((name) => name.endsWith(".try.part"));
  const writing = target(device).write(upload("a.bin", bytes(800_000), { id: "00000000000000aa" }), 0, kill.signal, () => undefined);
  await Promise.race([went, writing.catch(() => undefined)]);
  kill.abort();
  await writing.catch(() => undefined);
  assert.equal((await trials()).length, 1);
  await device.close();
  double.instead = () => false;
  const next = davDevice(double.url, {}, { memory });
  t.after(() => next.close());
  await target(next).write(upload("b.bin", bytes(10), { id: "00000000000000bb" }), 0, calm(), () => undefined);
  assert.deepEqual(await trials(), []);
});

test("a server that fills up with zeros, to the right size, does not pass the trial", async (t) => {
  const { double, device } = await scene(t, (dir) => new Continuing(dir));
  double.instead = async (exchange) => {
    if (exchange.method !== "PUT" || exchange.request.headers["content-range"] !== "bytes 1-1/2") return false;
    exchange.request.resume();
    await fs.writeFile(join(double.dir, exchange.path), "\0S");
    double.say(exchange, 204);
    return true;
  };
  await send(target(device), upload("a.bin", bytes(100_000)));
  assert.equal(target(device).features.resume, false);
});

test("what was learned is kept over restarts, until the server calls itself something else", async (t) => {
  const memory = memo();
  const { double, device } = await scene(t, (dir) => new Continuing(dir), {}, memory);
  await send(target(device), upload("a.bin", bytes(100_000)));
  const trials = () => double.asked.filter((it) => it.startsWith("PUT") && it.endsWith(".try.part")).length;
  assert.equal(trials(), 3);
  for (const [software, wanted] of [
    ["continues", 3],
    ["continues/2", 6],
  ] as const) {
    double.software = software;
    const again = davDevice(double.url, {}, { memory });
    assert.equal(target(again).features.resume, true);
    await send(target(again), upload(`${wanted}.bin`, bytes(100_000)));
    await again.close();
    assert.equal(trials(), wanted);
  }
  assert.deepEqual((await fs.readdir(double.dir)).sort(), ["3.bin", "6.bin", "a.bin"]);
});

test("a directory that another removed meanwhile is made again at the next try", async (t) => {
  const { double, device } = await scene(t, plain);
  await send(target(device), upload("dir/sub/a.bin", bytes(100)));
  await fs.rm(join(double.dir, "dir"), { recursive: true });
  const it = upload("dir/sub/b.bin", bytes(100));
  await expectFault(
    target(device).write(it, 0, calm(), () => undefined),
    "transient",
  );
  await send(target(device), it);
  assert.deepEqual(await listed(device), ["file dir/sub/b.bin 100"]);
});

test("our own earlier version has the size of the one that replaces it: where the partial has gone it is not taken for that", async (t) => {
  const { double, device } = await scene(t, plain);
  const before = bytes(100_000, 1);
  const { size } = await send(target(device), upload("a.bin", before));
  const content = bytes(100_000, 2);
  const it = upload("a.bin", content, { expect: { kind: "replaces", size } });
  await target(device).write(it, 0, calm(), () => undefined);
  await fs.rm(join(double.dir, it.partialPath));
  await expectFault(target(device).commit(it, calm()), "conflict");
  await send(target(device), it);
  assert.ok((await fs.readFile(join(double.dir, "a.bin"))).equals(content));
  const receipt = await target(device).commit(it, calm());
  assert.ok(isReceipt(receipt) && receipt.digest === it.digest, "it was published before");
});

test("a server that keeps only whole files lost its power, and of one the end, but not its size: it is sent again", async (t) => {
  for (const size of [50_000, 2_000_000]) {
    const memory = memo();
    const { double, device } = await scene(t, plain, {}, memory);
    const content = bytes(size);
    const it = upload("a.bin", content);
    await target(device).write(it, 0, calm(), () => undefined);
    const opened = await fs.open(join(double.dir, it.partialPath), "r+");
    await opened.write(Buffer.alloc(4096), 0, 4096, size - 4096);
    await opened.close();
    const again = davDevice(double.url, {}, { memory });
    t.after(() => again.close());
    await expectFault(target(again).commit(it, calm()), "conflict");
    const held = await target(again).offset(it, calm());
    if (held < it.size) await target(again).write(it, held, calm(), () => undefined);
    assert.ok(isReceipt(await target(again).commit(it, calm())));
    assert.ok((await fs.readFile(join(double.dir, "a.bin"))).equals(content), `a receipt for another content: it went on at ${held}`);
  }
});

function breakAtRanges(double: Awaited<ReturnType<typeof scene>>["double"], how: 500 | 502 | "reset"): void {
  double.instead = (exchange) => {
    if (exchange.method !== "PUT" || exchange.request.headers["content-range"] === undefined) return false;
    if (how === "reset") exchange.request.socket.destroy();
    else double.say(exchange, how);
    return true;
  };
}

test("a server, or what is before it, that breaks at each PUT with Content-Range is sent whole files", async (t) => {
  for (const how of [500, 502, "reset"] as const) {
    const { double, device } = await scene(t, plain);
    breakAtRanges(double, how);
    const it = upload("a.bin", bytes(200_000));
    let tries = 0;
    while (tries++ < 5)
      if (
        await target(device)
          .write(it, 0, calm(), () => undefined)
          .then(
            () => true,
            () => false,
          )
      )
        break;
    assert.ok(tries <= 5, `never sent (${how})`);
    assert.ok(isReceipt(await target(device).commit(it, calm())));
    assert.deepEqual(await fs.readdir(double.dir), ["a.bin"]);
  }
});

test("a server known to continue files, behind a proxy by now that breaks at each PUT with Content-Range, is sent whole files", async (t) => {
  for (const how of [500, 502, "reset"] as const) {
    const memory = memo();
    const { double, device } = await scene(t, plain, {}, memory);
    await memory.set("server", { url: `${double.url}/`, files: "", software: double.software, way: "ranges" });
    const known = davDevice(double.url, {}, { memory });
    t.after(() => known.close());
    breakAtRanges(double, how);
    const it = upload("a.bin", bytes(200_000));
    for (let n = 0; n < 3; n++)
      await expectFault(
        target(known).write(it, 0, calm(), () => undefined),
        "transient",
      );
    await target(known).write(it, 0, calm(), () => undefined);
    assert.ok(isReceipt(await target(known).commit(it, calm())));
    await device.close();
  }
});

test("a link that broke while it was tried out whether files are continued: once a whole file breaks off that is tried out again", async (t) => {
  const { double, device } = await scene(t, plain, { timeout: "1s" });
  let cuts = 1;
  double.instead = (exchange) => {
    const { method, path, request } = exchange;
    const isRange = request.headers["content-range"] !== undefined;
    if (method !== "PUT" || !(isRange || (!path.endsWith(".try.part") && cuts-- > 0))) return false;
    request.once("data", () => request.socket.destroy()).resume();
    return true;
  };
  const tried = () => double.asked.filter((it) => it.startsWith("PUT") && it.endsWith(".try.part")).length;
  const write = () => target(device).write(upload("a.bin", bytes(200_000)), 0, calm(), () => undefined);
  await write().catch(() => undefined);
  const before = tried();
  await write();
  assert.ok(before > 0 && tried() > before, `${before} and ${tried()}`);
});

test("what was read back is not read once more for a server that answers that it cannot name it now: its end is", async (t) => {
  const { double, device } = await scene(t, plain, { verify: "readback" });
  const it = upload("a.bin", bytes(1_000_000));
  await target(device).write(it, 0, calm(), () => undefined);
  await target(device).prove?.(it, calm());
  const whole: boolean[] = [];
  let locked = 3;
  double.instead = (exchange) => {
    const { method, request } = exchange;
    if (method === "GET") whole.push(request.headers.range === undefined);
    return method === "MOVE" && locked-- > 0 && (double.say(exchange, 423), true);
  };
  for (let n = 0; n < 3; n++) await expectFault(target(device).commit(it, calm()), "transient");
  const receipt = await target(device).commit(it, calm());
  assert.ok(isReceipt(receipt) && receipt.proof === "readback");
  assert.deepEqual(whole, [false, false, false]);
});

test("Yandex holds its answer: what was sent whole is looked for, and not sent again", async (t) => {
  for (const end of ["cut", "silence", "504"] as const) {
    const { double, device } = await scene(t, (dir) => new YandexDouble(dir), { timeout: "5s", answerTimeout: "300ms" });
    await send(target(device), upload("first.bin", bytes(100_000)));
    const content = bytes(2_000_000);
    double.digesting.push({ end, looks: 3 });
    await send(target(device), upload("log.ulg", content));
    assert.equal(puts(double).filter((it) => it.includes("log.ulg")).length, 1, end);
    assert.ok((await fs.readFile(join(double.dir, "log.ulg"))).equals(content));
    assert.deepEqual(double.slowPuts, [], "nothing is sent to a name that is slowed down");
  }
});

test("a server that says 500, or whose bytes end early, is not waited for as one that digests", async (t) => {
  const { double, device } = await scene(t, plain, { timeout: "10min" });
  await send(target(device), upload("first.bin", bytes(100_000)));
  const content = bytes(200_000);
  await expectFault(
    target(device).write(upload("a.bin", content, { read: short(content, 1) }), 0, calm(), () => undefined),
    "transient",
    20_000,
  );
  double.instead = (exchange) =>
    exchange.method === "PUT" && (exchange.request.resume().once("end", () => double.say(exchange, 500)), true);
  await expectFault(
    target(device).write(upload("b.bin", content), 0, calm(), () => undefined),
    "transient",
    20_000,
  );
});

test("Yandex digests longer than anybody waits: after a restart the whole is found, and not sent again", async (t) => {
  const memory = memo();
  const { double, device } = await scene(t, (dir) => new YandexDouble(dir), { timeout: "200ms", answerTimeout: "200ms" }, memory);
  const content = bytes(2_000_000);
  // What server it is; with so little patience that may take more than one try on a machine that is busy.
  const learns = () =>
    send(target(device), upload("first.bin", bytes(100_000))).then(
      () => true,
      (error: unknown) => {
        if (!isFault(error, "transient", "offline")) throw error;
        return false;
      },
    );
  await until("it to know the server", learns);
  double.digesting.push({ end: "silence", looks: 50 });
  const it = upload("log.ulg", content, { id: "00000000000000ac" });
  await expectFault(
    target(device).write(it, 0, calm(), () => undefined),
    "transient",
  );
  const again = davDevice(double.url, {}, { memory });
  t.after(() => again.close());
  let offset = 0;
  while (offset === 0) offset = await target(again).offset(it, calm());
  assert.equal(offset, content.length);
  await target(again).commit(upload("log.ulg", content, { id: it.id }), calm());
  assert.equal(puts(double).filter((one) => one.includes("log.ulg")).length, 1);
});

for (const how of ["the connection breaks", "the program starts anew", "the connection breaks behind the last byte"] as const)
  test(`a server that lost its power may have lost of what it had, and keep its size: the end of what is there is looked at before it is continued (${how})`, async (t) => {
    const memory = memo();
    const { double, device } = await scene(t, (dir) => new Continuing(dir), { timeout: "2s" }, memory);
    const content = bytes(6_000_000);
    const broken = upload("a.bin", content, how === "the program starts anew" ? { read: short(content, 2_000_000) } : {});
    const breaks = { on: how !== "the program starts anew" };
    const partial = join(double.dir, broken.partialPath);
    const whole = how === "the connection breaks behind the last byte";
    double.instead = ({ method, request, response }) => {
      if (!breaks.on || method !== "PUT" || request.headers["content-range"] === undefined || (request.url ?? "").includes(".try."))
        return false;
      breaks.on = false;
      void (async () => {
        let came = 0;
        if (request.headers.expect === "100-continue") response.writeContinue();
        const file = await fs.open(partial, "r+");
        try {
          for await (const chunk of request as AsyncIterable<Buffer>) {
            came += (await file.write(chunk)).bytesWritten;
            if (!whole && came >= 4_000_000) request.socket.destroy();
          }
        } finally {
          await file.close();
          request.socket.destroy();
        }
      })().catch(() => undefined);
      return true;
    };
    await expectFault(
      target(device).write(broken, 0, calm(), () => undefined),
      ["transient", "offline"],
    );
    const again = how === "the program starts anew" ? davDevice(double.url, {}, { memory }) : device;
    t.after(() => again.close());
    const it = upload("a.bin", content, { id: broken.id });
    let size = -1;
    await until("all that was on its way to come", async () => {
      const before = size;
      size = (await fs.stat(partial)).size;
      return size > 2_000_000 && size === before;
    });
    const lost = size - 1_000_000;
    const opened = await fs.open(partial, "r+");
    await opened.write(Buffer.alloc(size - lost), 0, size - lost, lost);
    await opened.close();
    const held = await target(again).offset(it, calm());
    if (held < it.size) await target(again).write(it, held, calm(), () => undefined);
    assert.ok(isReceipt(await target(again).commit(it, calm())));
    assert.ok((await fs.readFile(join(double.dir, "a.bin"))).equals(content), `a receipt for another content: it went on at ${held}`);
  });
