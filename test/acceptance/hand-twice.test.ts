/** The same `put` twice at once (two people, a cron job that overlaps): one partial, so one after the other; what is told as done is there. */
import assert from "node:assert/strict";
import { chownSync, mkdirSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { until } from "../conformance/clause.js";
import { ownPlain, pureFtpd } from "../conformance/ftp-servers.js";
import { Program } from "../faults/process.js";
import { Random } from "../faults/random.js";
import { World } from "../faults/world.js";

const kinds = [
  { name: "a directory", start: undefined, skip: false, proves: true },
  { name: ownPlain.name, start: ownPlain, skip: ownPlain.skip ?? false, proves: true },
  { name: pureFtpd.name, start: pureFtpd, skip: pureFtpd.skip ?? false, proves: false },
];

for (const { name, start, skip, proves } of kinds)
  for (const how of ["through the daemon", "without a daemon", "without a daemon, the first killed"])
    test(`${name}, ${how}: the same put twice at once`, { skip }, async (t) => {
      const world = new World(t);
      world.mkdir("to");
      let dir = world.path("to");
      let device: Record<string, unknown> = { type: "local", dir };
      if (start !== undefined) {
        const server = await start.start();
        t.after(() => server.stop());
        dir = join(server.dir, "to");
        mkdirSync(dir);
        const { uid, gid } = statSync(server.dir);
        chownSync(dir, uid, gid);
        device = {
          type: "ftp",
          host: "127.0.0.1",
          port: server.port,
          user: server.user,
          password: server.password,
          ...server.options,
          root: "/to",
        };
      }
      const bytes = new Random(5).bytes(8_000_000);
      world.file("a.bin", bytes, -100);
      const config = world.config({ devices: { to: { ...device, maxRate: "2MiB/s" } } });
      if (how === "through the daemon") {
        const daemon = new Program(["run", "--json", "--config", config]);
        t.after(() => daemon.kill());
        await daemon.until(({ what }) => what === "ready", "ready");
      }
      const put = () => {
        const program = new Program(["put", world.path("a.bin"), "to:", "--config", config]);
        t.after(() => program.kill());
        return program;
      };
      const first = put();
      const moved = () => readdirSync(dir).some((it) => it.endsWith(".part") && statSync(join(dir, it)).size >= 1_000_000);
      await until("it to be under way", moved);
      // However long the second takes to begin.
      first.signal("SIGSTOP");
      const second = put();
      await until("the second to wait", () => second.stderr.includes("another put of the same file to to:a.bin ends first"));
      const killed = how.endsWith("killed");
      first.signal(killed ? "SIGKILL" : "SIGCONT");
      if (!killed) assert.equal(await first.exited, 0, first.stderr);
      const code = await second.exited;
      if (proves || killed) assert.equal(code, 0, second.stderr);
      else assert.match(second.stderr, /a\.bin is there already, with the same size/);
      assert.ok(readFileSync(join(dir, "a.bin")).equals(bytes));
      assert.deepEqual(readdirSync(dir), ["a.bin"]);
    });
