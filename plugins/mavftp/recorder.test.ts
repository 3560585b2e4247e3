import assert from "node:assert/strict";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { encodeFtp, FTP_PAYLOAD, Op } from "../../mavlink/ftp.js";
import { FILE_TRANSFER_PROTOCOL } from "../../mavlink/messages.js";
import { readTrace } from "../../mavlink/trace.js";
import { madeBytes } from "../../sim/disk-file.js";
import { eventually, listAll, makeDir, makeLogs, makeRig, readAll } from "./harness.test.js";
import { Recorder } from "./recorder.js";

const files = { "2026-05-02/09_10_57.ulg": 60_000, "Jane's house.txt": 7 };

for (const autopilot of ["px4", "ardupilot-4.6", "ardupilot-4.8"])
  test(`${autopilot}: what our side recorded is played again: the same listing, the same sizes, no contents and no names`, async (t) => {
    const { dir, content } = makeLogs(t, files);
    const trace = join(makeDir(t), "trace.jsonl");
    const first = await makeRig(t, { dir, autopilot }, { trace });
    await eventually(() => first.said.some((line) => line.includes("firmware")), "its version");
    const listed = await listAll(first.source);
    for (const entry of listed) assert.ok((await readAll(first.source, entry)).equals(content.get(entry.path) ?? Buffer.alloc(0)));
    await first.device.close();
    const text = readFileSync(trace, "utf8");
    assert.ok(!text.includes("Jane"));
    assert.equal(statSync(trace).mode & 0o777, 0o600);
    const { head, rows } = readTrace(text);
    assert.match(`${head.autopilot} ${head.firmware} ${head.link}`, /^(3|12) \d+\.\d+\.\d+ 127\.0\.0\.1:\d+$/);
    assert.equal(rows.filter((row) => row.kind === "request" && row.opcode === 4).length, listed.length);
    const again = await makeRig(t, { dir: makeDir(t), replay: text });
    const played = await listAll(again.source);
    assert.deepEqual(played.map(({ size }) => size).sort(), listed.map(({ size }) => size).sort());
    for (const entry of played) assert.ok((await readAll(again.source, entry)).equals(madeBytes(0, entry.size)));
  });

test("an arming is in the recording", async (t) => {
  const { dir } = makeLogs(t, { "a.ulg": 100 });
  const trace = join(makeDir(t), "trace.jsonl");
  const rig = await makeRig(t, { dir }, { trace });
  await listAll(rig.source);
  const from = rig.states.length;
  rig.sim.setArmed(true);
  await rig.until(({ state }) => state === "detached", 8000, from);
  rig.sim.setArmed(false);
  await rig.until(({ state }) => state === "attached", 12_000, from);
  await rig.device.close();
  const events = readTrace(readFileSync(trace, "utf8")).rows.flatMap((row) => (row.kind === "event" ? [row.event] : []));
  assert.deepEqual(events, ["armed", "disarmed"]);
});

test("a recording that cannot be written is said once, and nothing else changes", async (t) => {
  const { dir, content } = makeLogs(t, { "a.ulg": 1000 });
  const rig = await makeRig(t, { dir }, { trace: join(makeDir(t), "no such directory", "trace.jsonl") });
  const [entry] = await listAll(rig.source);
  assert.ok(entry !== undefined && (await readAll(rig.source, entry)).equals(content.get("a.ulg") ?? Buffer.alloc(0)));
  await rig.device.close();
  assert.equal(rig.said.filter((line) => line.includes("cannot record to")).length, 1);
});

test("the head has the firmware also where thousands of packets go before it is known", async (t) => {
  const path = join(makeDir(t), "trace.jsonl");
  let firmware = "";
  const head = () => ({ autopilot: 3, firmware, link: "usb" });
  const recorder = new Recorder(path, head, () => assert.fail("nothing is said"));
  const link = recorder.over({ systemId: 1, componentId: 191, send: () => undefined });
  const read = Buffer.alloc(FTP_PAYLOAD);
  encodeFtp({ targetSystem: 1, targetComponent: 1, seq: 1, session: 1, opcode: Op.ReadFile, offset: 0, size: 239 }, read);
  for (let n = 0; n < 3000; n++) link.send(FILE_TRANSFER_PROTOCOL, read);
  firmware = "4.7.0";
  link.send(FILE_TRANSFER_PROTOCOL, read);
  await recorder.close();
  const { head: written, rows } = readTrace(readFileSync(path, "utf8"));
  assert.equal(written.firmware, "4.7.0");
  assert.equal(rows.length, 3001);
});
