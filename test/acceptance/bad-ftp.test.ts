/** Bad FTP servers as the daemon meets them: what a person reads, that the other target gets its files, and that nothing is lost once the server is well. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { calm } from "../conformance/clause.js";
import { ftpDevice } from "../conformance/ftp-harness.js";
import { hasOpenssl, ownPlain, proftpd, pureFtpd, selfSigned, startOwn, vsftpd } from "../conformance/ftp-servers.js";
import { Program, runProgram } from "../faults/process.js";
import { treeOf } from "../faults/trees.js";
import { World } from "../faults/world.js";

/** A server that does this with each connection; its port. */
async function bad(t: TestContext, serve: (socket: Socket) => void): Promise<number> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => socket.destroy());
    serve(socket);
  });
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

/** Answers each command by `say`; "" is silence. */
function talks(greeting: string, say: (line: string) => string): (socket: Socket) => void {
  return (socket) => {
    socket.write(`${greeting}\r\n`);
    socket.on("data", (chunk) => {
      for (const line of chunk.toString().split("\r\n").filter(Boolean)) {
        const said = say(line);
        if (said !== "") socket.write(`${said}\r\n`);
      }
    });
  };
}

const usual = (line: string): string =>
  ({ USER: "331 password", PASS: "230 in", FEAT: "211 none", TYPE: "200 ok", CWD: "250 ok", QUIT: "221 bye" })[line.split(" ")[0] ?? ""] ??
  "502 unknown";

function drips(socket: Socket, first: string, then: string): void {
  socket.write(first);
  const timer = setInterval(() => socket.write(then), 300);
  socket.on("close", () => clearInterval(timer));
}

const servers: readonly (readonly [string, (socket: Socket) => void, RegExp])[] = [
  ["closes during the greeting", (socket) => void socket.end("220-Wel"), /ground: .*(closed|FIN|ended|reset)/],
  ["resets during the greeting", (socket) => void setTimeout(() => socket.resetAndDestroy(), 20), /ground: .*(reset|closed)/],
  ["says nothing", () => undefined, /ground: .*does not answer/],
  [
    "says its greeting a letter at a time",
    (socket) => {
      drips(socket, "220-x", "x");
    },
    /ground: .*does not answer/,
  ],
  [
    "says its greeting a line at a time",
    (socket) => {
      drips(socket, "220-x", "\r\nx");
    },
    /ground: .*does not answer/,
  ],
  ["speaks another protocol", (socket) => void socket.write("SSH-2.0-OpenSSH_9.2\r\n"), /ground: /],
  ["answers before it is asked", talks("220 hello\r\n230 in\r\n331 password\r\n226 done\r\n550 no", usual), /ground: /],
  [
    "answers in another order",
    talks("220 hello", (line) => (line.startsWith("USER") ? "" : line.startsWith("PASS") ? "230 in\r\n331 password" : usual(line))),
    /ground: /,
  ],
  ["sends a line of a megabyte as its greeting", (socket) => void socket.write(`220 ${"x".repeat(2 ** 20)}`), /ground: /],
  [
    "sends lines of a megabyte without end",
    (socket) => {
      const line = `220-${"x".repeat(2 ** 20)}\r\n`;
      const more = () => {
        while (!socket.destroyed && socket.write(line)) continue;
      };
      socket.on("drain", more);
      more();
    },
    /ground: /,
  ],
  ["answers each command with a megabyte", talks("220 hello", (line) => `${usual(line).slice(0, 3)} ${"x".repeat(2 ** 20)}`), /ground: /],
];

for (const [what, serve, reads] of servers)
  test(`a server that ${what}: it is said, and the other target has its files`, async (t) => {
    const world = new World(t);
    world.mkdir("good");
    for (let n = 0; n < 5; n++) world.file(`in/f${n}`, `content ${n}`, n);
    const port = await bad(t, serve);
    // Only who says nothing is waited for: what another says or does may take its time.
    const timeout = reads.source.includes("does not answer") ? "1s" : "15s";
    const config = world.config({
      devices: {
        in: { type: "local", dir: "in" },
        ground: { type: "ftp", host: "127.0.0.1", port, user: "u", password: "sesame", timeout },
        good: { type: "local", dir: "good" },
      },
      routes: [{ from: "in", to: ["ground", "good"], into: "" }],
    });
    const program = new Program(["run", "--json", "--config", config]);
    t.after(() => program.kill());
    // A person reads it where it can be acted on: a warning that names the device, or what waits for it.
    const said = await program.until(
      ({ level, message }) => ["warn", "error"].includes(level) && /ground/.test(message),
      "a word about the server",
    );
    t.diagnostic(said.message.slice(0, 300));
    assert.match(said.message, new RegExp(reads.source.replace("ground: ", "ground")));
    assert.ok(said.message.length < 2000, `${said.message.length} characters were said`);
    await program.until(() => program.events.filter((event) => event.what === "delivered").length === 5, "the other target's files");
    assert.deepEqual(treeOf(world.path("good")), treeOf(world.path("in")));
    const rss = /VmHWM:\s+(\d+)/.exec(spawnSync("cat", [`/proc/${program.pid}/status`], { encoding: "utf8" }).stdout)?.[1];
    assert.ok(Number(rss ?? 0) < 300_000, `${rss} kB were used`);
    program.signal("SIGTERM");
    assert.equal(await program.exited, 0);
    assert.ok(!JSON.stringify(program.events).includes("sesame"));
  });

for (const kind of [ownPlain, vsftpd, proftpd, pureFtpd])
  test(`ten thousand files in one directory, and one that may not be listed, on ${kind.name}`, { skip: kind.skip ?? false }, async () => {
    const server = await kind.start();
    const device = ftpDevice(server, { root: "/DCIM" });
    try {
      const dir = join(server.dir, "DCIM", "100MEDIA");
      mkdirSync(dir, { recursive: true });
      for (let n = 0; n < 10_050; n++) writeFileSync(join(dir, `DSC${String(n).padStart(5, "0")}.JPG`), "");
      mkdirSync(join(server.dir, "DCIM", "secret"));
      writeFileSync(join(server.dir, "DCIM", "secret", "hidden.jpg"), "hidden");
      chmodSync(join(server.dir, "DCIM", "secret"), 0);
      const denies = kind !== ownPlain;
      const seen = new Set<string>();
      const unreadable: string[] = [];
      for await (const entry of device.source?.list(calm()) ?? []) {
        if (entry.kind === "unreadable") unreadable.push(entry.path);
        else seen.add(entry.path);
      }
      const found = [...seen].filter((path) => path.startsWith("100MEDIA/")).length;
      // It ends after ten thousand, with "." and "..": that has to be told.
      if (kind === pureFtpd) assert.ok(found < 10_050 && unreadable.includes("100MEDIA"), `${found} of 10050, ${unreadable.join()}`);
      else assert.equal(found, 10_050);
      if (denies) assert.ok(unreadable.includes("secret"), unreadable.join());
      else assert.deepEqual(unreadable, []);
    } finally {
      await device.close();
      chmodSync(join(server.dir, "DCIM", "secret"), 0o755);
      await server.stop();
    }
  });

const fakeClock = ["x86_64", "aarch64"]
  .map((arch) => `/usr/lib/${arch}-linux-gnu/faketime/libfaketime.so.1`)
  .find((path) => existsSync(path));

test(
  "a certificate that has expired, and one that is another than before: said with what to do, no password is sent",
  { skip: hasOpenssl ? false : "openssl is not installed" },
  async (t) => {
    const world = new World(t);
    world.file("in/a.bin", "a");
    const first = selfSigned(world.mkdir("first"));
    const second = selfSigned(world.mkdir("second"));
    const root = world.mkdir("srv");
    const users = { plane: { password: "sesame" } };
    const server = await startOwn({ root, users, tls: { cert: second.cert, key: second.key, required: true } });
    t.after(() => server.close());
    const config = (tls: object) =>
      world.config({
        devices: {
          in: { type: "local", dir: "in" },
          ground: {
            type: "ftp",
            host: "127.0.0.1",
            port: server.port ?? 0,
            user: "plane",
            password: "sesame",
            secure: true,
            tls,
            timeout: "3s",
          },
        },
        routes: [{ from: "in", to: ["ground"], into: "" }],
      });
    const changed = await runProgram(["run", "--once", "--json", "--config", config({ fingerprint: first.fingerprint })]);
    assert.equal(changed.code, 3);
    assert.match(changed.out, /certificate/);
    assert.ok(!changed.out.includes("sesame"));
    assert.deepEqual(
      readdirSync(root),
      ["plane"].filter((name) => existsSync(join(root, name))),
    );
    assert.ok(!existsSync(join(root, "plane", "a.bin")));
    // The right one: it arrives.
    assert.equal((await runProgram(["run", "--once", "--json", "--config", config({ fingerprint: second.fingerprint })])).code, 0);
    if (fakeClock === undefined) {
      t.diagnostic("libfaketime is missing: no certificate that has expired can be made");
      return;
    }
    const [cert, key] = [world.path("old-cert.pem"), world.path("old-key.pem")];
    const made = spawnSync(
      "openssl",
      [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-keyout",
        key,
        "-out",
        cert,
        "-subj",
        "/CN=x",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
      ],
      { env: { ...process.env, LD_PRELOAD: fakeClock, FAKETIME: "@2020-01-01 00:00:00" } },
    );
    assert.equal(made.status, 0, String(made.stderr));
    const old = await startOwn({ root: world.mkdir("old"), users, tls: { cert, key, required: true } });
    t.after(() => old.close());
    world.file("in/b.bin", "b", 5);
    const path = config({ ca: cert });
    writeFileSync(
      path,
      JSON.stringify({ ...(JSON.parse(spawnSync("cat", [path], { encoding: "utf8" }).stdout) as object) }).replace(
        `"port":${server.port}`,
        `"port":${old.port}`,
      ),
    );
    const expired = await runProgram(["run", "--once", "--json", "--config", path]);
    assert.equal(expired.code, 3);
    assert.match(expired.out, /expired|clock is not set/);
    assert.ok(!existsSync(world.path("old/plane/b.bin")));
  },
);
