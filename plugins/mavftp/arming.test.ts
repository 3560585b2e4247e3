/** While the vehicle is armed nothing is asked of any autopilot, and none is left with a session of ours. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { isFault } from "../../core/errors.js";
import type { SimStats } from "../../sim/stats.js";
import { eventually, listAll, makeLogs, makeRig, never, readAll } from "./harness.test.js";

const flavours = ["px4", "px4-1.18", "ardupilot-4.6", "ardupilot-4.7", "ardupilot-4.8", "mavsdk"];

/** Requests but for those that end something. */
function asked({ requests }: SimStats): number {
  return Object.entries(requests).reduce((sum, [name, count]) => sum + (name === "TerminateSession" ? 0 : count), 0);
}

for (const autopilot of flavours)
  test(`${autopilot}: arming stops a reading and ends its session within a second; a while after the disarm it goes on`, async (t) => {
    const { dir, content } = makeLogs(t, { "a.ulg": 600_000 });
    const bytes = content.get("a.ulg") as Buffer;
    const rig = await makeRig(t, { dir, autopilot, link: "usb" });
    const [entry] = await listAll(rig.source);
    assert.ok(entry);
    const parts: Buffer[] = [];
    const stream = await rig.source.open(entry, 0, never);
    const failed = new Promise<unknown>((resolve) => stream.once("error", resolve));
    stream.on("data", (part: Buffer) => parts.push(part));
    await eventually(() => parts.length > 0, "bytes come");
    const from = rig.states.length;
    rig.sim.setArmed(true);
    await eventually(() => rig.states.length > from && rig.sim.openSessions() === 0, "it stops and ends the session", 1000);
    assert.equal(rig.states.at(-1)?.reason, "the vehicle is armed");
    const fault = await failed;
    assert.ok(isFault(fault, "offline") && fault.message === "the vehicle is armed");
    const before = asked(rig.sim.stats);
    await assert.rejects(rig.source.open(entry, 0, never), (e) => isFault(e, "offline"));
    await assert.rejects(listAll(rig.source), (e) => isFault(e, "offline"));
    rig.sim.setArmed(false);
    await rig.until((p) => p.reason?.includes("just been disarmed") === true, 1000, from);
    await rig.until((p) => p.state === "attached", 5000, from);
    assert.equal(asked(rig.sim.stats), before, "nothing was asked until the log had been closed");
    const had = Buffer.concat(parts);
    assert.ok(Buffer.concat([had, await readAll(rig.source, entry, had.length)]).equals(bytes));
  });

for (const autopilot of flavours)
  test(`${autopilot}: arming stops a listing, and ends a session that is just being opened`, async (t) => {
    const many = Object.fromEntries(Array.from({ length: 400 }, (_, i) => [`log${i}.ulg`, 1]));
    const { dir } = makeLogs(t, many);
    // Armed at the fifth part of the first listing, and while the second thing asked for is opened.
    const rig = await makeRig(t, { dir, autopilot, faults: { delay: "20ms", arm: "list:5,open" } });
    await assert.rejects(listAll(rig.source), (e) => isFault(e, "offline") && e.message === "the vehicle is armed");
    assert.ok((rig.sim.stats.requests.ListDirectory ?? 0) <= 6);
    const from = rig.states.length;
    rig.sim.setArmed(false);
    await rig.until((p) => p.state === "attached", 5000, from);
    await assert.rejects(
      readAll(rig.source, { path: "log1.ulg", kind: "file", size: 1 }),
      (e) => isFault(e, "offline") && e.message === "the vehicle is armed",
    );
    await eventually(() => rig.sim.openSessions() === 0, "what was opened is ended", 1000);
  });

test("arming while LASTLOG.TXT is being opened ends that session", async (t) => {
  const { dir } = makeLogs(t, { "00000001.BIN": 1 });
  writeFileSync(join(dir, "LASTLOG.TXT"), "1\r\n");
  const rig = await makeRig(t, { dir, autopilot: "ardupilot-4.6", faults: { delay: "20ms", arm: "open" } });
  await assert.rejects(listAll(rig.source), (e) => isFault(e, "offline") && e.message === "the vehicle is armed");
  await eventually(() => rig.sim.openSessions() === 0, "what was opened is ended", 1000);
});
