/** A link so slow that one piece of a file takes longer than a server or client may be silent: bytes move all the time, and nothing breaks off. */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { userInfo } from "node:os";
import { test, type TestContext } from "node:test";
import { hasOpenssl, selfSigned } from "../conformance/ftp-servers.js";
import { rsyncShell } from "../conformance/rsync-servers.js";
import { fingerprintOf, makeKey, openssh, sshd } from "../conformance/sftp-servers.js";
import { startGround } from "../faults/ground.js";
import { Program } from "../faults/process.js";
import { Random } from "../faults/random.js";
import { World } from "../faults/world.js";

/** A network of its own, of 125 kB/s, in which the system takes so many bytes in advance to send, and few to receive. */
const slowly = (ahead: number, rate = "1mbit") => [
  ...["unshare", "--net", "sh", "-c"],
  `ip link set lo mtu 1500 up && cd /proc/sys/net/ipv4 && echo 4096 16384 16384 >tcp_rmem && echo 4096 ${ahead} ${ahead} >tcp_wmem && cd - >/dev/null && tc qdisc add dev lo root tbf rate ${rate} burst 4000 limit 60000 && exec "$@"`,
  "sh",
];
/** As over a long way. */
const little = 16_384;
const [unshare = "", ...setUp] = slowly(little);
const able = spawnSync(unshare, [...setUp, "true"]).status === 0;
/** So many files arrive in the network of that process, and nothing is tried again. */
async function inOneGo(t: TestContext, config: string, pid: number | undefined, files: number): Promise<void> {
  const wrap = ["nsenter", `--net=/proc/${pid ?? ""}/ns/net`];
  const program = new Program(["run", "--once", "--json", "--verbose", "--config", config], { wrap });
  t.after(() => program.kill());
  const code = await program.exited;
  const said = (...names: string[]) => program.events.filter(({ what }) => names.includes(what ?? "")).map(({ message }) => message);
  assert.deepEqual(said("again", "resumed"), []);
  assert.equal(code, 0, program.stderr);
  assert.equal(said("delivered").length, files);
}

const skip = able ? false : "no slow network can be made here";

/** Takes a form, and tells its port first. Its certificate and key are its words. */
const taker = `
const { readFileSync } = require("node:fs");
const [cert, key] = process.argv.slice(1).map((path) => readFileSync(path));
const server = require("node:https").createServer({ cert, key }, (asked, answer) => asked.resume().on("end", () => answer.end("taken")));
server.listen(0, "127.0.0.1", () => console.log(server.address().port));`;

test("over a slow link each file goes in one go", { skip, concurrency: true }, async (all) => {
  const form = () =>
    all.test("a form over HTTPS", { skip: hasOpenssl ? false : "openssl is not installed" }, async (t) => {
      const world = new World(t);
      const { fingerprint, cert, key } = selfSigned(world.dir);
      const child = spawn(unshare, [...setUp, process.execPath, "-e", taker, cert, key], { stdio: ["ignore", "pipe", "inherit"] });
      t.after(() => child.kill());
      const [port] = (await once(child.stdout, "data")) as [Buffer];
      world.file("in/up", new Random(1).bytes(400_000));
      const url = `https://127.0.0.1:${port.toString().trim()}/`;
      const config = world.config({
        devices: { in: { type: "local", dir: "in", settle: "0s" }, to: { type: "post", url, timeout: "2s", tls: { fingerprint } } },
        routes: [{ from: "in", to: ["to"], since: "2001-01-01" }],
      });
      await inOneGo(t, config, child.pid, 1);
    });
  const most = () =>
    all.test("ftp, of a file that the system takes as a whole", async (t) => {
      const world = new World(t);
      const { port, program: ground } = await startGround(world.path("ground"), 0, { wrap: slowly(2 ** 20) });
      t.after(() => ground.kill());
      world.file("in/up", new Random(1).bytes(400_000));
      const to = { type: "ftp", host: "127.0.0.1", port, user: "plane", password: "secret", timeout: "2s" };
      const config = world.config({
        devices: { in: { type: "local", dir: "in", settle: "0s" }, to },
        routes: [{ from: "in", to: ["to"] }],
      });
      await inOneGo(t, config, ground.pid, 1);
    });
  /** What ssh asks the server, to see whether it is there, and what is asked in SFTP or of a shell, waits behind a file that the system takes as a whole. */
  const ssh = (type: "sftp" | "rsync", skip: string | false, zeros = 0, more: Readonly<Record<string, unknown>> = {}) =>
    all.test(`${type}, of a file that the system takes as a whole`, { skip }, async (t) => {
      const world = new World(t);
      const [host, user] = [world.path("host"), world.path("user")];
      for (const key of [host, user]) makeKey(key);
      const given = [
        `HostKey=${host}`,
        `AuthorizedKeysFile=${user}.pub`,
        "Port=22",
        "ListenAddress=127.0.0.1",
        "Subsystem=sftp internal-sftp",
      ];
      const lines = [...given, "StrictModes=no", "UsePAM=no", "PidFile=none"].flatMap((line) => ["-o", line]);
      if (process.getuid?.() === 0) mkdirSync("/run/sshd", { recursive: true });
      const [run = "", ...args] = slowly(2 ** 20, "128kbit");
      const child = spawn(run, [...args, sshd, "-D", "-e", "-f", "/dev/null", ...lines], { stdio: ["ignore", "ignore", "pipe"] });
      t.after(() => child.kill());
      await once(child.stderr, "data");
      child.stderr.resume();
      world.file("in/up", Buffer.concat([new Random(1).bytes(110_000), Buffer.alloc(zeros)]));
      const to = {
        type,
        host: "127.0.0.1",
        user: userInfo().username,
        privateKey: user,
        hostKey: fingerprintOf(`${host}.pub`),
        timeout: "3s",
        ...more,
      };
      const config = world.config({
        devices: { in: { type: "local", dir: "in", settle: "0s" }, to: { ...to, root: world.path("out") } },
        routes: [{ from: "in", to: ["to"], into: "" }],
      });
      await inOneGo(t, config, child.pid, 1);
    });
  const files = (secure: boolean) =>
    all.test(
      secure ? "ftp and ftp-server with TLS" : "ftp and ftp-server in clear",
      { skip: secure && !hasOpenssl ? "openssl is not installed" : false },
      async (t) => {
        const world = new World(t);
        const { fingerprint, ...tls } = secure ? selfSigned(world.dir) : { fingerprint: "" };
        const given = { wrap: slowly(little), limits: { stall: "2s" }, ...(secure ? { tls } : {}) };
        const ground = await startGround(world.path("ground"), 0, given);
        t.after(() => ground.program.kill());
        const bytes = (seed: number) => new Random(seed).bytes(400_000);
        world.file("in/up", bytes(1));
        world.file("ground/files/plane/logs/down", bytes(2));
        world.mkdir("out");
        const server = {
          ...{ type: "ftp", host: "127.0.0.1", port: ground.port, user: "plane", password: "secret", timeout: "2s", settle: "0s" },
          ...(secure ? { secure, tls: { fingerprint } } : {}),
        };
        const config = world.config({
          devices: {
            in: { type: "local", dir: "in", settle: "0s" },
            to: server,
            from: { ...server, root: "logs" },
            out: { type: "local", dir: "out" },
          },
          routes: [
            { from: "in", to: ["to"], into: "up" },
            { from: "from", to: ["out"], into: "" },
          ],
        });
        await inOneGo(t, config, ground.program.pid, 2);
      },
    );
  // Not all at once: those that may be silent for a second need the processor.
  await Promise.all([files(false), files(true)]);
  await Promise.all([form(), most(), ssh("sftp", openssh.skip ?? false)]);
  // The larger it is, the rarer rsync gives a sign of life of its own.
  await ssh("rsync", rsyncShell.skip ?? false, 12_000_000, { compress: true });
});
