/**
 * The daemon, the server or the link killed in the middle of an upload by rsync, twice; what is sent again is counted by a relay in front of the server: at most
 * 4 MiB. A killed daemon leaves no rsync and no ssh behind.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chownSync, mkdirSync, promises as fs, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "node:test";
import { until } from "../conformance/clause.js";
import { rsyncOnly, rsyncShell } from "../conformance/rsync-servers.js";
import { CountingRelay } from "./counting-relay.js";
import { Program } from "./process.js";
import { Random } from "./random.js";
import { assertReceiptsTrue, assertSameTree, treeOf } from "./trees.js";
import { World } from "./world.js";

const size = 24_000_000;
const again = 4 * 2 ** 20;
/** Of SSH, and of a few logins and questions. */
const overhead = 0.02 * size + 300_000;

/** Programs of this machine whose arguments hold `text`. */
function running(text: string): string[] {
  const lines = execFileSync("ps", ["-eww", "-o", "pid=,args="], { encoding: "utf8", maxBuffer: 2 ** 24 }).split("\n");
  return lines.filter((line) => line.includes(text) && !line.includes("ps -eww"));
}

for (const kind of [rsyncShell, rsyncOnly])
  for (const killed of ["the daemon", "the server", "the link", "a link that goes silent"] as const)
    test(`${kind.name}: ${killed} is killed in the middle, twice`, { skip: kind.skip ?? false }, async (t) => {
      const server = await kind.start();
      t.after(() => server.stop());
      const relay = await CountingRelay.start(server.port);
      t.after(() => relay.close());
      const world = new World(t);
      const to = join(server.dir, "to");
      mkdirSync(to);
      const { uid, gid } = statSync(server.dir);
      chownSync(to, uid, gid);
      world.file("in/log.ulg", new Random(7).bytes(size));
      const config = world.config({
        devices: {
          in: { type: "local", dir: "in" },
          nas: {
            type: "rsync",
            host: "127.0.0.1",
            port: relay.port,
            root: `${server.seen}/to`,
            timeout: "3s",
            maxRate: "4MiB/s",
            ...server.options,
          },
        },
        routes: [{ from: "in", to: ["nas"], into: "" }],
      });
      const held = () => {
        const part = readdirSync(to).find((it) => it.endsWith(".part"));
        return part === undefined ? 0 : statSync(join(to, part)).size;
      };
      const run = () => {
        const program = new Program(["run", "--json", "--config", config]);
        t.after(() => program.kill());
        return program;
      };
      let program = run();
      for (const part of [0.3, 0.6]) {
        await until("a part of it to be there", () => held() > part * size, 60_000);
        if (killed === "the daemon") {
          await program.kill();
          await until("its programs to be gone", () => running(world.dir).length === 0, 5000).catch((error: unknown) => {
            assert.fail(`left running: ${running(world.dir).join("\n")} (${String(error)})`);
          });
          program = run();
        } else if (killed === "the server") {
          await server.unplug();
          await sleep(500);
          await server.replug();
        } else if (killed === "the link") relay.cut();
        else relay.swallow();
      }
      await program.until(({ what, message }) => what === "delivered" && message.includes("log.ulg"), "the delivery", 120_000);
      await program.kill();
      assertSameTree(treeOf(to), treeOf(world.path("in")), "the target");
      assertReceiptsTrue(world.path("state"), { nas: to });
      const moved = relay.sentBytes - size;
      t.diagnostic(`${moved} bytes were sent beside those of the file`);
      assert.ok(moved <= 2 * again + overhead, `${moved} bytes were sent again`);
      assert.ok(
        program.events.some(({ what }) => what === "resumed"),
        "it went on nowhere",
      );
      await until("its programs to be gone", () => running(world.dir).length === 0, 5000);
      await fs.rm(to, { recursive: true });
    });
