/** The daemon sends to OpenSSH: killed in the middle, and the server killed in the middle, at most 4 MiB are moved again, counted outside of both. */
import assert from "node:assert/strict";
import { chownSync, mkdirSync, readdirSync, statSync } from "node:fs";
import { createServer, connect, type AddressInfo, type Socket } from "node:net";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { until } from "../conformance/clause.js";
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
