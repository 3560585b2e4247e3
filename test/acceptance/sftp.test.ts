/** The daemon sends to OpenSSH: killed in the middle, and the server killed in the middle, at most 4 MiB are moved again, counted outside of both. */
import assert from "node:assert/strict";
import { chownSync, mkdirSync, readdirSync, statSync } from "node:fs";
import { createServer, connect, type AddressInfo, type Socket } from "node:net";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { until } from "../conformance/clause.js";
import { ownPlain } from "../conformance/ftp-servers.js";
import { chrooted, openssh, type SftpServerUnderTest } from "../conformance/sftp-servers.js";
import { Program, runProgram } from "../faults/process.js";
import { Random } from "../faults/random.js";
import { assertReceiptsTrue, assertSameTree, treeOf } from "../faults/trees.js";
import { World } from "../faults/world.js";

const size = 24_000_000;
const again = 4 * 2 ** 20;
/** Of SSH, SFTP and a few logins. */
const overhead = 0.02 * size + 200_000;

/** Counts what goes through it, both ways. */
async function relay(t: TestContext, to: number): Promise<{ port: number; bytes: () => number }> {
  let count = 0;
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const far = connect(to, "127.0.0.1");
    for (const [from, into] of [
      [client, far],
      [far, client],
    ] as const) {
      sockets.add(from);
      from.on("data", (chunk: Buffer) => (count += chunk.length));
      from.on("error", () => into.destroy());
      from.on("close", () => into.destroy());
      from.pipe(into);
    }
  });
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { port: (server.address() as AddressInfo).port, bytes: () => count };
}

async function setUp(t: TestContext, server: SftpServerUnderTest) {
  const world = new World(t);
  world.file("in/large.bin", new Random(11).bytes(size));
  const counted = await relay(t, server.port);
  const { uid, gid } = statSync(server.dir);
  mkdirSync(join(server.dir, "to"));
  // The server may run as another user.
  chownSync(join(server.dir, "to"), uid, gid);
  const config = world.config({
    devices: {
      in: { type: "local", dir: "in" },
      nas: { type: "sftp", host: "127.0.0.1", port: counted.port, root: server.seen, maxRate: "8MiB/s", ...server.options },
    },
    routes: [{ from: "in", to: ["nas"], into: "to" }],
  });
  const held = () => {
    const name = readdirSync(join(server.dir, "to")).find((it) => it.endsWith(".part"));
    return name === undefined ? 0 : statSync(join(server.dir, "to", name)).size;
  };
  const reach = (bytes: number) => until(`${bytes} bytes to be there`, () => held() >= bytes, 60_000);
  const expectAll = () => {
    assertSameTree(treeOf(join(server.dir, "to")), treeOf(world.path("in")), "the target");
    const [receipt] = [...assertReceiptsTrue(world.path("state"), { nas: server.dir }).values()];
    assert.ok(receipt !== undefined);
    t.diagnostic(`${counted.bytes() - size} bytes more than the file went over the line`);
    assert.ok(counted.bytes() <= size + again + overhead, `${counted.bytes()} bytes went over the line`);
  };
  return { config, reach, expectAll };
}

for (const kind of [openssh, chrooted]) {
  test(`${kind.name}: the daemon is killed in the middle`, { skip: kind.skip ?? false }, async (t) => {
    const server = await kind.start();
    t.after(() => server.stop());
    const { config, reach, expectAll } = await setUp(t, server);
    const program = new Program(["run", "--json", "--config", config]);
    await reach(size / 2);
    await program.kill();
    const rest = await runProgram(["run", "--once", "--json", "--config", config]);
    assert.match(rest.out, /goes on at byte [1-9]\d*/);
    expectAll();
  });

  test(`${kind.name}: the server is killed in the middle`, { skip: kind.skip ?? false }, async (t) => {
    const server = await kind.start();
    t.after(() => server.stop());
    const { config, reach, expectAll } = await setUp(t, server);
    const program = new Program(["run", "--json", "--config", config]);
    t.after(() => program.kill());
    await reach(size / 2);
    await server.unplug();
    await server.replug();
    await program.until(({ what }) => what === "delivered", "the delivery");
    expectAll();
  });
}

test(
  "a root that is not there: a target's is made by the first upload, of a source it is a mistake that check --probe and status tell",
  { skip: openssh.skip ?? ownPlain.skip ?? false },
  async (t) => {
    const [ssh, ftp] = [await openssh.start(), await ownPlain.start()];
    t.after(() => Promise.all([ssh.stop(), ftp.stop()]));
    const world = new World(t);
    const config = (from: string[], to: string) =>
      world.config({
        devices: {
          nas: { type: "sftp", host: "127.0.0.1", port: ssh.port, root: join(ssh.seen, "photos"), ...ssh.options, interval: "1s" },
          camera: {
            type: "ftp",
            host: "127.0.0.1",
            port: ftp.port,
            user: ftp.user,
            password: ftp.password,
            root: "/photos",
            ...ftp.options,
          },
          here: { type: "local", dir: world.mkdir("here") },
        },
        routes: from.map((name) => ({ from: name, to: [to] })),
      });
    const probe = (file: string) => runProgram(["check", "--probe", "--config", file]);
    assert.equal((await probe(config(["here"], "nas"))).code, 0);
    assert.equal((await probe(config(["here"], "camera"))).code, 0);
    const pull = config(["nas", "camera"], "here");
    const { code, out, err } = await probe(pull);
    assert.equal(code, 2, out + err);
    assert.match(out + err, /nas: .*the root is not there/);
    assert.match(out + err, /camera: .*the root cannot be entered/);
    const program = new Program(["run", "--json", "--config", pull]);
    t.after(() => program.kill());
    await program.until(({ what, message }) => what === "detached" && message.startsWith("nas"), "that it is told");
    assert.match((await runProgram(["status", "--config", pull])).out, /nas +detached.*the root is not there/);
    program.signal("SIGTERM");
    await program.exited;
    for (const dir of [ssh.dir, ftp.dir]) mkdirSync(join(dir, "photos"));
    const again = await probe(pull);
    assert.equal(again.code, 0, again.out + again.err);
  },
);
