/**
 * The daemon, or the server, killed in the middle of an upload over WebDAV; what is sent again is counted by a relay in front of the server. Where the server
 * continues, that is at most 4 MiB, or a chunk at Nextcloud (a double); where it takes only whole files, the whole, and never a wrong one.
 */
import assert from "node:assert/strict";
import { mkdirSync, promises as fs } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { test, type TestContext } from "node:test";
import { until } from "../conformance/clause.js";
import { apache, nginx, password, user, type DavServerUnderTest } from "../conformance/dav-servers.js";
import { NextcloudDouble } from "../doubles/nextcloud.js";
import { CountingRelay } from "./counting-relay.js";
import { Program, runProgram } from "./process.js";
import { Random } from "./random.js";
import { assertReceiptsTrue, assertSameTree, treeOf } from "./trees.js";
import { World } from "./world.js";

const size = 24_000_000;
const mostAgain = 4 * 2 ** 20;

async function nextcloud(t: TestContext): Promise<DavServerUnderTest> {
  const world = new World(t);
  const double = await new NextcloudDouble(world.dir, { user, password }).start();
  return {
    url: double.url,
    dir: double.files,
    unplug: () => double.stop(),
    replug: async () => {
      await double.start();
    },
    stop: () => double.stop(),
  };
}

const servers = [
  { name: apache.name, skip: apache.skip, start: () => apache.start(), again: mostAgain },
  { name: nginx.name, skip: nginx.skip, start: () => nginx.start(), again: size },
  { name: "a double of Nextcloud", skip: undefined, start: nextcloud, again: mostAgain },
];

for (const { name, skip, start, again } of servers)
  for (const killed of ["the daemon", "the server", "the link"] as const)
    test(`${name}: ${killed} is killed in the middle, twice`, { skip: skip ?? false }, async (t) => {
      const server = await start(t);
      t.after(() => server.stop());
      const relay = await CountingRelay.start(Number(new URL(server.url).port));
      t.after(() => relay.close());
      const world = new World(t);
      mkdirSync(join(server.dir, "root"));
      await fs.chmod(join(server.dir, "root"), 0o777);
      const random = new Random(7);
      // The first teaches the daemon what server it is.
      world.file("in/first.bin", random.bytes(200_000));
      const config = world.config({
        devices: {
          in: { type: "local", dir: "in" },
          cloud: {
            type: "webdav",
            url: `http://127.0.0.1:${relay.port}`,
            user,
            password,
            root: "root",
            chunkSize: "4MiB",
            timeout: "5s",
            maxRate: "12MiB/s",
          },
        },
        routes: [{ from: "in", to: ["cloud"], into: "" }],
      });
      const run = () => {
        const program = new Program(["run", "--json", "--config", config]);
        t.after(() => program.kill());
        return program;
      };
      assert.equal((await runProgram(["run", "--once", "--json", "--config", config])).code, 0);
      world.file("in/log.ulg", random.bytes(size), 10);
      relay.sentBytes = 0;
      let program = run();
      for (const part of [0.3, 0.6]) {
        const from = relay.sentBytes;
        await until("a part of it to be sent", () => relay.sentBytes - from > part * size * 0.7 || relay.sentBytes > part * size, 60_000);
        if (killed === "the daemon") {
          await program.kill();
          program = run();
        } else if (killed === "the server") {
          await server.unplug();
          await sleep(500);
          await server.replug();
        } else relay.cut();
      }
      await program.until(({ what, message }) => what === "delivered" && message.includes("log.ulg"), "the delivery", 120_000);
      await program.kill();
      assertSameTree(treeOf(join(server.dir, "root")), treeOf(world.path("in")), "the target");
      assertReceiptsTrue(world.path("state"), { cloud: join(server.dir, "root") });
      const moved = relay.sentBytes - size;
      t.diagnostic(`${moved} bytes were sent again, questions included`);
      assert.ok(moved <= 2 * again + 100_000, `${moved} bytes were sent again`);
      if (again === mostAgain)
        assert.ok(
          program.events.some(({ what }) => what === "resumed"),
          "it went on nowhere",
        );
    });
