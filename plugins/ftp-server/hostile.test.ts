/** What clients do that mean harm or are broken: ways out of the root, floods, guesses, bounces, silence. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { promises as fs } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { after, before, test } from "node:test";
import { isFault } from "../../core/errors.js";
import { until } from "../../test/conformance/clause.js";
import { startOwn } from "../../test/conformance/ftp-servers.js";
import { RawFtp } from "../../test/conformance/raw-ftp.js";
import { bytes, context, realClock, type TestContext } from "../../test/conformance/upload.js";
import { hashPassword } from "../../core/password.js";
import type { FtpServer } from "./server.js";

let base = "";
let server: FtpServer;
let heard: TestContext;
const limits = { maxConnections: 20, maxPerAddress: 20, maxPerUser: 4 };

before(async () => {
  base = await fs.mkdtemp(join(tmpdir(), "filesync-hostile-"));
  heard = context();
  await fs.mkdir(join(base, "srv", "u"), { recursive: true });
  await fs.writeFile(join(base, "secret.txt"), "secret");
  server = await startOwn(
    { root: join(base, "srv"), limits, users: { u: { password: "p" }, hashed: { passwordHash: await hashPassword("pä ss") } } },
    heard,
  );
});
after(async () => {
  await server.close();
  await fs.rm(base, { recursive: true });
});

const port = (): number => server.port ?? 0;
const login = (): Promise<RawFtp> => RawFtp.login(port(), "u", "p");
const real = (path: string): string => join(base, "srv", "u", path);

test("no path leads out of the root", async () => {
  const ftp = await login();
  const outs = [
    "../secret.txt",
    "../../secret.txt",
    "/../../secret.txt",
    "a/../../../secret.txt",
    "./.././../secret.txt",
    "%2e%2e/secret.txt",
  ];
  outs.push(
    "..\\..\\secret.txt",
    "\u201b2E\u201b2E/\u201b2E\u201b2E/secret.txt",
    "..\u201b2F..\u201b2Fsecret.txt",
    "..;/secret.txt",
    "~/secret.txt",
  );
  for (const path of outs) {
    assert.match(await ftp.ask(`SIZE ${path}`), /^55[03]/, path);
    assert.match(await ftp.ask(`RNFR ${path}`), /^55[03]/, path);
    await assert.rejects(ftp.receive(`RETR ${path}`), /55[03]/, path);
  }
  assert.match(await ftp.ask(Buffer.from("SIZE a\0b")), /^55/);
  assert.match(await ftp.ask(Buffer.concat([Buffer.from("CWD "), Buffer.from([0xc0, 0xae, 0xc0, 0xae]), Buffer.from("/")])), /^550/);
  assert.match(await ftp.store("STOR ../../../outside.bin", bytes(3)), /^226/);
  assert.equal((await fs.stat(real("outside.bin"))).size, 3, "the root of a client is its own");
  assert.deepEqual((await fs.readdir(base)).sort(), ["secret.txt", "srv"]);
  ftp.close();
});

test("no link leads out of the root: not at the end, not in the middle, not when it appears in between", async () => {
  const ftp = await login();
  await fs.symlink(base, real("out"));
  await fs.symlink(join(base, "secret.txt"), real("link.txt"));
  await fs.symlink(join(base, "new.txt"), real("dangling"));
  for (const path of ["out/secret.txt", "link.txt"]) {
    assert.match(await ftp.ask(`SIZE ${path}`), /^550/, path);
    await assert.rejects(ftp.receive(`RETR ${path}`), /550/);
    assert.match(await ftp.store(`APPE ${path}`, bytes(3)), /^550/);
    assert.match(await ftp.ask(`HASH ${path}`), /^550/);
    assert.match(await ftp.ask(`MFMT 20200101000000 ${path}`), /^550/);
  }
  assert.match(await ftp.store("STOR dangling", bytes(3)), /^550/);
  assert.match(await ftp.store("STOR out/new.txt", bytes(3)), /^550/);
  assert.match(await ftp.ask("MKD out/dir"), /^550/);
  assert.match(await ftp.ask("CWD out"), /^550/);
  await assert.rejects(ftp.receive("MLSD out"), /50/);
  assert.equal(await fs.readFile(join(base, "secret.txt"), "utf8"), "secret");

  // A directory that becomes a link while commands go into it: each goes to the one or is refused, none goes through the link.
  await fs.mkdir(real("flip"));
  const stop = new AbortController();
  const flipping = (async () => {
    while (!stop.signal.aborted) {
      await fs.rename(real("flip"), real("flop"));
      await fs.symlink(base, real("flip"));
      await fs.unlink(real("flip"));
      await fs.rename(real("flop"), real("flip"));
    }
  })();
  const answers = new Set<string>();
  for (let i = 0; i < 300; i++) {
    answers.add((await ftp.ask("MKD flip/made")).slice(0, 3));
    await ftp.ask("RMD flip/made");
    assert.match(await ftp.ask("SIZE flip/secret.txt"), /^550/);
  }
  stop.abort();
  await flipping;
  assert.deepEqual((await fs.readdir(base)).sort(), ["secret.txt", "srv"], [...answers].join(" "));
  ftp.close();
});

test("a FIFO is no file, and opening it waits for nobody", async () => {
  execFileSync("mkfifo", [real("pipe")]);
  const ftp = await login();
  await assert.rejects(ftp.receive("RETR pipe"), /55/);
  assert.match(await ftp.store("STOR pipe", bytes(3)), /^[45]5/);
  ftp.close();
});

test("a line of a megabyte is answered 500, and the connection ends", async () => {
  const ftp = new RawFtp(port());
  await ftp.answer();
  ftp.send(Buffer.alloc(1 << 20, "A"));
  assert.match(await ftp.answer(), /^500/);
  assert.equal(await ftp.answer(), "");
});

test("over the limit a connection is told 421, and those that are in go on", async (t) => {
  // Stands still: a crowd that takes long to come would make room for itself.
  const told = context({ clock: { ...realClock(), monotonicMs: () => 0 } });
  const small = await startOwn(
    {
      root: join(base, "srv"),
      limits: { maxConnections: 20, maxPerAddress: 2000 },
      users: { u: { password: "p" } },
    },
    told,
  );
  t.after(() => small.close());
  const ftp = await RawFtp.login(small.port ?? 0, "u", "p");
  const crowd = Array.from({ length: 1000 }, () => new RawFtp(small.port ?? 0));
  const first = await Promise.all(crowd.map((it) => it.answer()));
  assert.equal(first.filter((said) => said.startsWith("220")).length, 19);
  assert.equal(first.filter((said) => said.startsWith("421")).length, 981);
  assert.equal(told.said.filter(({ message }) => /refused: too many/.test(message)).length, 1, "it is said, and not a thousand times");
  assert.match(await ftp.ask("NOOP"), /^200/);
  for (const it of crowd) it.close();
  await until("room again", async () => {
    const it = new RawFtp(small.port ?? 0);
    const said = await it.answer();
    it.close();
    return said.startsWith("220");
  });
  assert.match(told.said.map(({ message }) => message).join("\n"), /981 connections were refused/);
  ftp.close();
});

test("whoever only connects keeps nobody out: where it is full, who has not logged in for longest makes room, once a login had its time", async () => {
  let ms = 0;
  const clock = { ...realClock(), monotonicMs: () => ms };
  const small = await startOwn(
    { root: join(base, "srv"), limits: { maxConnections: 6, maxPerAddress: 4 }, users: { u: { password: "p" } } },
    context({ clock }),
  );
  const connected = async (localAddress: string) => {
    const it = new RawFtp(small.port ?? 0, { localAddress });
    return { it, said: await it.answer() };
  };
  const user = await RawFtp.login(small.port ?? 0, "u", "p", { localAddress: "127.0.0.2" });
  const silent = [];
  for (let n = 0; n < 3; n++, ms++) silent.push((await connected("127.0.0.2")).it);
  assert.match((await connected("127.0.0.2")).said, /^421/, "they may be logging in");
  ms = 5000;
  const next = await RawFtp.login(small.port ?? 0, "u", "p", { localAddress: "127.0.0.2" });
  assert.equal(await silent[0]?.answer(), "421 Others wait for this connection: log in sooner.");
  assert.equal(await silent[0]?.answer(), "");
  assert.match((await connected("127.0.0.2")).said, /^421/, "the others came later");
  // With all of it full, whatever the address.
  silent.push((await connected("127.0.0.3")).it, (await connected("127.0.0.4")).it);
  ms = 5001;
  const far = await RawFtp.login(small.port ?? 0, "u", "p", { localAddress: "127.0.0.5" });
  assert.match((await silent[1]?.answer()) ?? "", /^421/);
  for (const it of [user, next, far]) assert.match(await it.ask("NOOP"), /^200/);
  for (const it of [user, next, far, ...silent]) it.close();
  await small.close();
});

test("a scan of the port, in every protocol, moves nobody who is in, and lets nobody in", async (t) => {
  const told = context();
  const open = await startOwn(
    { root: join(base, "srv"), limits: { login: "2s", maxConnections: 500, maxPerAddress: 500 }, users: { u: { password: "p" } } },
    told,
  );
  const ftp = await RawFtp.login(open.port ?? 0, "u", "p");
  t.after(async () => {
    ftp.close();
    await open.close();
  });
  const words = [
    "",
    "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    Buffer.from("16030100c8010000c403", "hex"),
    "SSH-2.0-scan\r\n",
    Buffer.alloc(5000, 0xff),
    Buffer.alloc(300, 0),
    "USER ../../etc\r\nPASS x\r\n",
    "\r\n\r\n\r\n",
    "SITE EXEC /bin/sh\r\nPORT 127,0,0,1,0,22\r\nRETR /etc/passwd\r\n",
  ];
  await Promise.all(
    Array.from({ length: 270 }, async (_, n) => {
      const socket = connect(open.port ?? 0, "127.0.0.1");
      socket.on("error", () => socket.destroy());
      await once(socket, "connect");
      const word = words[n % words.length] ?? "";
      if (word !== "") socket.write(word);
      let said = "";
      socket.on("data", (chunk) => (said += chunk.toString("latin1")));
      // A third hang up at once, a third reset, a third stay until they are sent away.
      const over = once(socket, "close");
      if (n % 3 === 0) socket.end();
      if (n % 3 === 1) socket.resetAndDestroy();
      await over;
      assert.doesNotMatch(said, /^230|^150/m, word.toString());
    }),
  );
  assert.match(await ftp.ask("NOOP"), /^200/);
  assert.match(await ftp.store("STOR after-the-scan.bin", bytes(5)), /^226/);
  await fs.rm(real("after-the-scan.bin"));
  assert.ok(
    told.said.some(({ level }) => level === "warn"),
    "nothing was said of it",
  );
  assert.ok(!told.said.some(({ level }) => level === "error"));
});

test("one user cannot take all connections", async () => {
  const mine = await Promise.all(Array.from({ length: 4 }, login));
  await assert.rejects(login(), /421 This user/);
  mine.pop()?.close();
  await until("room for the user again", () =>
    login().then(
      (ftp) => {
        ftp.close();
        return true;
      },
      () => false,
    ),
  );
  for (const it of mine) it.close();
});

/** A clock whose sleeps are over when the test says so, and of which no other time passes. */
function heldClock() {
  const waits: { ms: number; over(): void }[] = [];
  let begun: () => void = () => undefined;
  let nowMs = 0;
  const sleep = (ms: number, signal?: AbortSignal) =>
    new Promise<void>((resolve, reject) => {
      signal?.addEventListener("abort", () => reject(new Error("given up")), { once: true });
      waits.push({
        ms,
        over: () => {
          nowMs += ms;
          resolve();
        },
      });
      begun();
    });
  return {
    waits,
    clock: { ...realClock(), sleep, monotonicMs: () => nowMs },
    sleeping: () => new Promise<void>((resolve) => (begun = resolve)),
  };
}

test("wrong passwords are answered ever later, and end the connection; other users of the address, and other addresses, wait for nothing", async () => {
  const { waits, clock, sleeping } = heldClock();
  const slow = await startOwn(
    { root: join(base, "srv"), users: { u: { password: "p" }, h: { passwordHash: await hashPassword("pä ss") } } },
    context({ clock }),
  );
  const guess = new RawFtp(slow.port ?? 0, { localAddress: "127.0.0.2" });
  await guess.answer();
  for (let i = 0; i < 3; i++) {
    assert.match(await guess.ask("USER u"), /^331/);
    const asleep = sleeping();
    const answer = guess.ask("PASS guess");
    await asleep;
    // While that one waits, others are let in.
    (await RawFtp.login(slow.port ?? 0, "u", "p")).close();
    (await RawFtp.login(slow.port ?? 0, "h", "pä ss", { localAddress: "127.0.0.2" })).close();
    waits.at(-1)?.over();
    assert.match(await answer, i === 2 ? /^421/ : /^530/);
  }
  assert.deepEqual(
    waits.map(({ ms }) => ms),
    [500, 1000, 2000],
  );
  assert.equal(await guess.answer(), "");
  await slow.close();
});

test("who hangs up on the answer to a wrong password is not sooner with the next", async () => {
  const { waits, clock, sleeping } = heldClock();
  const slow = await startOwn({ root: join(base, "srv"), users: { u: { password: "p" } } }, context({ clock }));
  const ask = async (password: string) => {
    const guess = new RawFtp(slow.port ?? 0);
    await guess.answer();
    await guess.ask("USER u");
    return { guess, answer: guess.ask(`PASS ${password}`) };
  };
  let asleep = sleeping();
  const { guess, answer } = await ask("guess");
  await asleep;
  guess.close();
  await answer;
  asleep = sleeping();
  const next = await ask("p");
  await Promise.race([asleep, next.answer.then((said) => assert.fail(`answered at once: ${said}`))]);
  assert.deepEqual(
    waits.map(({ ms }) => ms),
    [500, 500],
  );
  waits.at(-1)?.over();
  assert.match(await next.answer, /^230/);
  next.guess.close();
  await slow.close();
});

test("thousands of wrong passwords, from one address or from many, are some lines in the log; an hour later it is told anew", async () => {
  const told = context();
  let hours = 0;
  const clock = { ...realClock(), monotonicMs: () => performance.now() + hours * 3_600_000, sleep: () => Promise.resolve() };
  const open = await startOwn({ root: join(base, "srv"), users: { u: { password: "p" } } }, { ...told, clock });
  const guess = async (localAddress: string, times: number) => {
    const it = new RawFtp(open.port ?? 0, { localAddress });
    await it.answer();
    for (let n = 0; n < times; n++) {
      await it.ask("USER u");
      await it.ask("PASS wrong");
    }
    it.close();
  };
  const refused = () => told.said.filter(({ message }) => message.startsWith("login refused")).map(({ message }) => message);
  for (let n = 0; n < 4; n++) await guess("127.0.0.2", 3);
  assert.deepEqual(refused(), [
    "login refused: wrong password or user, from 127.0.0.2",
    "login refused: wrong password or user, from 127.0.0.2 (10 times within an hour)",
  ]);
  for (let n = 1; n <= 150; n++) await guess(`127.0.1.${n}`, 1);
  assert.equal(refused().length, 2 + 100);
  assert.match(
    refused().at(-1) ?? "",
    /, from 127\.0\.1\.100; others like it, of other addresses too, are not told for the rest of an hour$/,
  );
  (await RawFtp.login(open.port ?? 0, "u", "p")).close();
  hours = 1;
  await guess("127.0.1.150", 1);
  assert.equal(refused().at(-1), "login refused: wrong password or user, from 127.0.1.150");
  await open.close();
});

test("a user who logs in again and again is told of once, then by the tenth time and the hundredth", async () => {
  const told = context();
  const open = await startOwn({ root: join(base, "srv"), users: { u: { password: "p" } } }, told);
  for (let n = 0; n < 11; n++) (await RawFtp.login(open.port ?? 0, "u", "p")).close();
  const other = new RawFtp(open.port ?? 0, { localAddress: "127.0.0.2" });
  await other.answer();
  await other.ask("USER u");
  assert.match(await other.ask("PASS p"), /^230/);
  other.close();
  await open.close();
  assert.deepEqual(
    told.said.filter(({ level, message }) => level === "info" && message.includes("logged in")).map(({ message }) => message),
    ["u logged in from 127.0.0.1", "u has logged in from 127.0.0.1 10 times", "u logged in from 127.0.0.2"],
  );
  assert.equal(told.said.filter(({ level }) => level === "debug").length, 9);
});

test("PORT and EPRT are refused, and so is a data connection from another address", async () => {
  const ftp = await login();
  assert.match(await ftp.ask("PORT 127,0,0,1,0,25"), /^502/);
  assert.match(await ftp.ask("EPRT |1|127.0.0.1|25|"), /^502/);
  const said = await ftp.ask("EPSV");
  const dataPort = Number(/\|\|\|(\d+)\|/.exec(said)?.[1]);
  const stranger = connect({ host: "127.0.0.1", port: dataPort, localAddress: "127.0.0.3" });
  await once(stranger, "close");
  const mine = connect({ host: "127.0.0.1", port: dataPort });
  await once(mine, "connect");
  assert.match(await ftp.ask("STOR mine.bin"), /^150/);
  mine.end("mine");
  assert.match(await ftp.answer(), /^226/);
  await heard.heard(/data connection from 127.0.0.3 was refused/);
  ftp.close();
});

test("whoever is silent is let go: before the login, after it, and in a transfer", async (t) => {
  // Each with the one limit that is tried: a machine that stands still for so long meets no other.
  const portWith = async (tried: Readonly<Record<string, string>>): Promise<number> => {
    const hasty = await startOwn({ root: join(base, "srv"), limits: tried, users: { u: { password: "p" } } });
    t.after(() => hasty.close());
    return hasty.port ?? 0;
  };
  const shy = await portWith({ login: "300ms" });
  const quiet = new RawFtp(shy);
  await quiet.answer();
  assert.match(await quiet.answer(), /^421/);
  assert.equal(await quiet.answer(), "");

  const idle = await RawFtp.login(await portWith({ idle: "300ms" }), "u", "p");
  assert.match(await idle.answer(), /^421 Idle/);

  // A login that is given up for another counts as none.
  const again = await RawFtp.login(shy, "u", "p");
  assert.match(await again.ask("USER somebody"), /^331/);
  assert.match(await again.answer(), /^421 Log in sooner/);

  const slow = await portWith({ stall: "300ms" });
  const half = await RawFtp.login(slow, "u", "p");
  const data = await half.data();
  assert.match(await half.ask("STOR half.bin"), /^150/);
  data.write(bytes(2000));
  assert.match(await half.answer(), /^426 No byte/);
  assert.equal(await half.ask("SIZE half.bin"), "213 2000");
  half.close();

  // The machine slept, and the bytes came meanwhile: the client is not to blame.
  const slept = await RawFtp.login(slow, "u", "p");
  const awake = await slept.data();
  assert.match(await slept.ask("STOR slept.bin"), /^150/);
  awake.write(bytes(2000));
  await until("the first bytes to be there", async () => (await fs.stat(real("slept.bin"))).size === 2000);
  awake.write(bytes(2000));
  for (const fromMs = performance.now(); performance.now() < fromMs + 600;);
  awake.end();
  assert.match(await slept.answer(), /^226/);
  slept.close();

  const nodata = await RawFtp.login(slow, "u", "p");
  await nodata.ask("EPSV");
  assert.match(await nodata.ask("STOR nodata.bin"), /^150/);
  assert.match(await nodata.answer(), /^425/);
  nodata.close();
});

test("commands before the login, and nonsense, are answered and change nothing", async () => {
  const ftp = new RawFtp(port());
  await ftp.answer();
  for (const line of ["STOR x", "RETR x", "LIST", "PASV", "SIZE x", "DELE x", "CWD /"]) assert.match(await ftp.ask(line), /^530/, line);
  for (const line of ["", "XYZZY", "__proto__ x", "constructor", "toString", "\u00ff\u00fe"])
    assert.match(await ftp.ask(line), /^500/, line);
  assert.match(await ftp.ask("PASS p"), /^503/);
  assert.match(await ftp.ask("AUTH TLS"), /^502/);
  assert.match(await ftp.ask("USER __proto__"), /^331/);
  ftp.close();
});

test("what cannot be started says what to do", async () => {
  const users = { u: { password: "p" } };
  const given = { root: join(base, "srv"), users };
  const fault = async (options: Readonly<Record<string, unknown>>): Promise<string> => {
    const error: unknown = await startOwn({ ...given, ...options }).catch((e: unknown) => e);
    assert.ok(isFault(error), String(error));
    return `${error.kind}: ${error.message}`;
  };
  assert.match(await fault({ listen: `127.0.0.1:${port()}` }), /^transient: port \d+ .*held by another program/);
  assert.match(await fault({ listen: "192.0.2.1:2121" }), /^config: 192.0.2.1 is no address of this machine/);
  assert.match(
    await fault({ tls: { cert: join(base, "none.pem"), key: join(base, "none.pem") } }),
    /^config: there is no \S*none\.pem: put the certificate there; "filesync init --ground --yes" makes/,
  );
  assert.match(
    await fault({ tls: { cert: join(base, "secret.txt"), key: join(base, "none.pem") } }),
    /^config: there is no \S*none\.pem: put the key there; .* take \S*secret\.txt away too: "filesync init --ground --yes"/,
  );
  assert.match(await fault({ tls: { cert: join(base, "secret.txt"), key: join(base, "secret.txt") } }), /^config: the certificate/);
  assert.match(await fault({ root: join(base, "secret.txt") }), /^\w+: cannot use the FTP server's root/);
});

test("an ordinary user is told what to do about a port below 1024 and a root that is not its own", async (t) => {
  const lowest = Number(await fs.readFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", "utf8").catch(() => "0"));
  if (lowest <= 21) {
    t.skip("ordinary users may take port 21 here");
    return;
  }
  const closed = join(base, "closed");
  await fs.mkdir(closed, { mode: 0o700 });
  const open = await fs.mkdtemp(join(tmpdir(), "filesync-nobody-"));
  await fs.chmod(open, 0o777);
  const servers = new URL("../../test/conformance/ftp-servers.js", import.meta.url).href;
  const script = `
    const { startOwn } = await import(${JSON.stringify(servers)}).catch(() => (console.log("unreadable"), process.exit(0)));
    for (const given of ${JSON.stringify([
      { root: open, listen: "127.0.0.1:21" },
      { root: join(closed, "srv"), listen: "127.0.0.1:0" },
    ])})
      await startOwn({ ...given, users: { u: { password: "p" } } }).then(
        (server) => (console.log("started"), server.close()),
        (error) => console.log(error.kind + ": " + error.message),
      );`;
  const asNobody = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {};
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
    ...asNobody,
    cwd: "/",
    stdio: ["ignore", "pipe", "ignore"],
  });
  const said = (await text(child.stdout)).trim().split("\n");
  await fs.rm(open, { recursive: true });
  if (said[0] === "unreadable" || said[0] === "") {
    t.skip("an ordinary user cannot read the program here");
    return;
  }
  assert.match(said[0] ?? "", /^denied: no right to listen on port 21: take a port from 1024 up/);
  if (process.getuid?.() === 0) assert.match(said[1] ?? "", /^denied: cannot use the FTP server's root .*permission denied/);
});
