/** What reading costs this machine, counted and not timed: a wake-up is a timer of ours that fired. A loop that spins, or a timer for each packet, is red. */
import assert from "node:assert/strict";
import { createHook } from "node:async_hooks";
import { test, type TestContext } from "node:test";
import { FTP_DATA_MAX } from "../../mavlink/ftp.js";
import { BurstMemory, eventually, lastly, listAll, makeLogs, makeRig, readAll } from "./harness.test.js";

/** Counts what files of this directory, those of tests left out, arm and are woken by from now on; the simulator runs in this process too. */
function countWakes(t: TestContext): { armed: number; woken: number } {
  const counts = { armed: 0, woken: 0 };
  const ours = new Set<number>();
  const hook = createHook({
    init(id, type) {
      if (type !== "Timeout" && type !== "Immediate") return;
      // Whoever armed it stands behind this function and the lines of Node itself.
      const caller = new Error().stack
        ?.split("\n")
        .find((line) => /\/(plugins|sim|mavlink|core)\//.test(line) && !line.includes("work.test"));
      // Source maps name the other file.
      if (!/\/plugins\/mavftp\/[^./]+\.[jt]s/.test(caller ?? "")) return;
      counts.armed += 1;
      ours.add(id);
    },
    before(id) {
      if (ours.has(id)) counts.woken += 1;
    },
    destroy(id) {
      ours.delete(id);
    },
  });
  hook.enable();
  lastly(t, () => hook.disable());
  return counts;
}

const BYTES = 2_000_000;

for (const [autopilot, by] of [
  ["px4", "reads"],
  ["px4", "bursts"],
  ["ardupilot-4.7", "bursts"],
] as const)
  test(`${autopilot} by ${by}: a file wakes us for its bytes, not for each packet a timer as well`, async (t) => {
    const { dir, content } = makeLogs(t, { "a.bin": BYTES });
    const rig = await makeRig(t, { dir, autopilot }, {}, by === "bursts" ? new BurstMemory() : undefined);
    const [entry] = await listAll(rig.source);
    assert.ok(entry);
    const counts = countWakes(t);
    assert.ok((await readAll(rig.source, entry)).equals(content.get("a.bin") as Buffer));
    const packets = BYTES / FTP_DATA_MAX;
    assert.ok(counts.armed > 0, "nothing was counted");
    assert.ok(counts.armed + counts.woken < packets / 2, `${JSON.stringify(counts)} for ${Math.ceil(packets)} packets`);
    const asked = Object.values(rig.sim.stats.requests).reduce((sum, count) => sum + count, 0);
    assert.ok(asked < packets * (by === "reads" ? 1.1 : 0.2), `${asked} requests for ${Math.ceil(packets)} packets`);
  });

test("an autopilot that is attached and idle wakes us a few times for each heartbeat of ours", async (t) => {
  const { dir } = makeLogs(t, { "a.bin": 1 });
  const counts = countWakes(t);
  const rig = await makeRig(t, { dir });
  counts.armed = counts.woken = 0;
  const { framesIn } = rig.sim.stats;
  const beats = (): number => rig.sim.stats.framesIn - framesIn;
  await eventually(() => beats() >= 3 && counts.woken > 0, "three heartbeats of ours, and a timer that fired", 20_000);
  assert.ok(counts.armed + counts.woken < 20 * beats(), `${JSON.stringify(counts)} in ${beats()} heartbeats`);
});
