/** An autopilot that writes no log is an alarm, and only one that should write one. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { SENSOR_LOGGING } from "../../mavlink/messages.js";
import { clock, eventually, listAll, makeLogs, makeRig, readAll } from "./harness.test.js";
import { LoggingWatch } from "./logging.js";

/** A watch in a time that is moved by hand; `hear` is one second of SYS_STATUS. */
function watch() {
  let now = 0;
  const said: string[] = [];
  const logging = new LoggingWatch({ ...clock, monotonicMs: () => now }, (level, message) => said.push(`${level}: ${message}`));
  return {
    logging,
    said,
    hear: (enabled: boolean, health: boolean, seconds = 1): void => {
      for (let i = 0; i < seconds; i++) {
        now += 1000;
        const bits = (on: boolean): number => (on ? SENSOR_LOGGING : 0);
        logging.status({ present: SENSOR_LOGGING, enabled: bits(enabled), health: bits(health), load: 0, voltageMv: 0 });
      }
    },
  };
}

test("armed without a log: said once for each arming, and when it logs again", () => {
  const { logging, said, hear } = watch();
  logging.armed(true);
  hear(true, true, 5);
  hear(false, false, 3);
  assert.deepEqual(said, [], "it may be the next log that begins");
  hear(false, false, 20);
  assert.equal(said.length, 1);
  assert.match(said[0] ?? "", /^error: the vehicle is armed, and the autopilot writes no log/);
  logging.armed(false);
  hear(false, false, 20);
  logging.armed(true);
  hear(false, false, 20);
  assert.equal(said.length, 2);
  hear(true, true, 2);
  assert.deepEqual(said.slice(2), ["info: the autopilot writes its log again"]);
  hear(false, false, 5);
  assert.equal(said.length, 4);
});

test("what is enabled and not healthy is an alarm though it never logged; what is not even enabled is none", () => {
  const failing = watch();
  failing.logging.armed(true);
  failing.hear(true, false, 10);
  assert.equal(failing.said.length, 1);
  const off = watch();
  off.logging.armed(true);
  off.hear(false, false, 60);
  off.hear(false, true, 60);
  assert.deepEqual(off.said, []);
});

test("disarmed it is an alarm only after a reading before which it logged", () => {
  const { logging, said, hear } = watch();
  hear(true, true, 2);
  hear(false, false, 30);
  assert.deepEqual(said, [], "somebody switched it off");
  logging.reads();
  logging.hasRead();
  hear(false, false, 30);
  assert.deepEqual(said, [], "it did not log before");
  hear(true, true, 2);
  logging.reads();
  hear(false, false, 4);
  logging.hasRead();
  hear(false, false, 4);
  assert.equal(said.length, 1);
  assert.match(said[0] ?? "", /before its files were read/);
  logging.reset();
  hear(true, true, 2);
  logging.reads();
  logging.hasRead();
  hear(true, true, 20);
  hear(false, false, 20);
  assert.equal(said.length, 1, "long after a reading it is not its doing");
});

test("a disarm ends a log as it should", () => {
  const { logging, said, hear } = watch();
  logging.armed(true);
  hear(true, true, 10);
  logging.armed(false);
  hear(false, false, 3);
  logging.reads();
  logging.hasRead();
  hear(false, false, 30);
  assert.deepEqual(said, []);
});

for (const autopilot of ["px4", "ardupilot-4.6"])
  test(`${autopilot}: the next flight has no log`, async (t) => {
    const { dir } = makeLogs(t, { "a.ulg": 1000 });
    const rig = await makeRig(t, { dir, autopilot, faults: { "no-log": "3600s@arm:2" } });
    const [entry] = await listAll(rig.source);
    assert.ok(entry);
    const from = rig.states.length;
    rig.sim.setArmed(true);
    await rig.until((p) => p.reason === "the vehicle is armed", 1000, from);
    rig.sim.setArmed(false);
    await rig.until((p) => p.state === "attached", 5000, from);
    await readAll(rig.source, entry);
    rig.sim.setArmed(true);
    await rig.until((p) => p.reason === "the vehicle is armed", 1000, rig.states.length);
    assert.ok(!rig.said.some((text) => text.includes("no log")));
    await eventually(() => rig.said.some((text) => text.includes("the autopilot writes no log")), "the alarm", 8000);
  });

test("an autopilot that logs while disarmed, and stops when it was read", async (t) => {
  const { dir } = makeLogs(t, { "00000001.BIN": 1000, "00000002.BIN": 1000 });
  const rig = await makeRig(t, { dir, autopilot: "ardupilot-4.6", faults: { grow: "1kB", "no-log": "3600s@end" } });
  await readAll(rig.source, { path: "00000001.BIN", kind: "file", size: 1000 });
  await eventually(() => rig.said.some((text) => text.includes("before its files were read")), "the alarm", 8000);
});
