/** Bursts: whole through every fault, filled where the autopilot allows, never asked for again while they run, ended however the autopilot ends them. */
import assert from "node:assert/strict";
import { appendFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Op } from "../../mavlink/ftp.js";
import { BurstMemory, eventually, listAll, makeLogs, makeRig, never, readAll, type Rig } from "./harness.test.js";

async function readsAll(rig: Rig, content: Map<string, Buffer>): Promise<void> {
  for (const entry of await listAll(rig.source))
    assert.ok((await readAll(rig.source, entry)).equals(content.get(entry.path) as Buffer), entry.path);
  await eventually(() => rig.sim.openSessions() === 0, "sessions are ended", 3000);
  assert.ok((rig.sim.stats.requests.BurstReadFile ?? 0) > 0, "by bursts");
}

const sizes = { "a.bin": 0, "b.bin": 1, "c.bin": 239 * 4, "d.bin": 10_000, "e.bin": 300_000, "f.bin": 239 * 500 };
const autopilots = ["px4", "ardupilot-4.6", "ardupilot-4.7", "ardupilot-4.8"];

for (const autopilot of autopilots) {
  for (const link of ["none", "usb"])
    test(`${autopilot} over ${link}: without losses each byte is sent once`, async (t) => {
      const { dir, content } = makeLogs(t, sizes);
      const rig = await makeRig(t, { dir, link, autopilot }, {}, new BurstMemory());
      await readsAll(rig, content);
      const bytes = [...content.values()].reduce((sum, file) => sum + file.length, 0);
      // A burst that is asked for while it comes is sent twice. A machine that was busy for a moment makes a packet or two late.
      assert.ok(rig.stood() || rig.sim.stats.payloadBytes < bytes * 1.2, `${rig.sim.stats.payloadBytes} bytes for ${bytes}`);
    });
  for (const [seed, faults] of [
    [1, { loss: "10%", dup: "5%", reorder: "5%", corrupt: "2%" }],
    [2, { loss: "1%", late: "5%" }],
    [3, { "bad-complete": "20%", "lost-eof": "50%" }],
    [4, { "wrong-session": "3%", "stale-errno": "100%" }],
    [5, { short: "48", loss: "2%" }],
  ] as const)
    test(`${autopilot} by bursts with ${Object.keys(faults).join(", ")} (seed ${seed})`, async (t) => {
      const { dir, content } = makeLogs(t, { "a.bin": 60_007, "b.bin": 150_000, "c.bin": 239 * 4 });
      await readsAll(await makeRig(t, { dir, link: "usb", autopilot, faults, seed }, {}, new BurstMemory()), content);
    });
}

for (const autopilot of ["px4", "ardupilot-4.6", "ardupilot-4.7"])
  test(`${autopilot}: a card that does not answer for a while is not asked for burst after burst`, async (t) => {
    const { dir, content } = makeLogs(t, { "a.bin": 60_000 });
    const rig = await makeRig(t, { dir, link: "usb", autopilot, faults: { busy: "4s@burst:1" } }, {}, new BurstMemory());
    await readsAll(rig, content);
    assert.ok((rig.sim.stats.requests.BurstReadFile ?? 0) <= 8, `${rig.sim.stats.requests.BurstReadFile ?? 0} bursts`);
  });

test("a PX4's burst is stopped at once for a listing, and goes on behind it in the same session", async (t) => {
  const { dir, content } = makeLogs(t, { "a.bin": 600_000 });
  const rig = await makeRig(t, { dir, link: "usb" }, {}, new BurstMemory());
  const [entry] = await listAll(rig.source);
  assert.ok(entry);
  let read = false;
  const reading = readAll(rig.source, entry).finally(() => (read = true));
  await eventually(() => rig.sim.stats.payloadBytes > 50_000, "it runs");
  await listAll(rig.source);
  assert.equal(read, false);
  assert.ok((await reading).equals(content.get("a.bin") as Buffer));
  assert.equal(rig.sim.stats.sessionsOpened, 1);
  assert.ok(rig.sim.stats.payloadBytes < 700_000, `${rig.sim.stats.payloadBytes} bytes for 600,000`);
});

for (const autopilot of ["px4", "ardupilot-4.7"])
  test(`${autopilot}: a burst that nobody wants any more ends with its session`, async (t) => {
    const { dir, content } = makeLogs(t, { "a.bin": 2_000_000 });
    const rig = await makeRig(t, { dir, link: "usb", autopilot }, {}, new BurstMemory());
    const [entry] = await listAll(rig.source);
    assert.ok(entry);
    const stop = new AbortController();
    const stream = await rig.source.open(entry, 0, stop.signal);
    stream.on("error", () => undefined);
    await new Promise((resolve) => stream.once("data", resolve));
    stop.abort();
    await eventually(() => rig.sim.openSessions() === 0, "the session is ended", 2500);
    assert.ok(rig.sim.stats.payloadBytes < 700_000, `${rig.sim.stats.payloadBytes} bytes were sent`);
    assert.ok((await readAll(rig.source, entry, 1_900_000, never)).equals((content.get("a.bin") as Buffer).subarray(1_900_000)));
  });

test("a PX4's session is kept alive through a burst that takes longer than it lives", async (t) => {
  const { dir, content } = makeLogs(t, { "a.bin": 30_000 });
  // 35,000 bytes come without a request in between, at 2,149 B/s for 14 s.
  const rig = await makeRig(t, { dir, link: "uart:24000", transmitRing: 3000 }, {}, new BurstMemory());
  await readsAll(rig, content);
  assert.equal(rig.sim.stats.sessionsTimedOut, 0);
  assert.ok((rig.sim.stats.requests.BurstReadFile ?? 0) <= 2, "no requests but to keep it alive");
});

test("what came behind a gap is kept where a burst is interrupted to look into LASTLOG.TXT", async (t) => {
  const { dir, content } = makeLogs(t, { "00000001.BIN": 240_000, "00000002.BIN": 10, "00000500.BIN": 10 });
  writeFileSync(join(dir, "LASTLOG.TXT"), "2\r\n");
  let packets = 0;
  const trace = (line: string): void => {
    const [, way, opcode] = line.startsWith("[") ? (JSON.parse(line) as unknown[]) : [];
    if (way === "<" && opcode === Op.Ack) packets += 1;
  };
  const rig = await makeRig(t, { dir, autopilot: "ardupilot-4.6", link: "usb", faults: { loss: "3%" }, trace }, {}, new BurstMemory());
  const [entry] = await listAll(rig.source);
  assert.ok(entry);
  const reading = readAll(rig.source, entry);
  for (let n = 0; n < 4; n += 1) {
    appendFileSync(join(dir, "00000500.BIN"), "x");
    await listAll(rig.source);
  }
  assert.ok((await reading).equals(content.get("00000001.BIN") as Buffer));
  assert.ok(packets < (1.5 * 240_000) / 239, `${packets} packets came`);
});
