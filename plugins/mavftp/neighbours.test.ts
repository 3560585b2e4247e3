/** A ground station that appears finds the autopilot's file session free: we step back for 20 s, and then go on where we were. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { closeSync, ftruncateSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { isFault } from "../../core/errors.js";
import { HEARTBEAT, encodeHeartbeat, FILE_TRANSFER_PROTOCOL, TYPE_GCS } from "../../mavlink/messages.js";
import { FTP_PAYLOAD } from "../../mavlink/ftp.js";
import type { Frame } from "../../mavlink/frame.js";
import { clock, eventually, listAll, makeDir, makeLogs, makeRig, never, readAll } from "./harness.test.js";
import { Neighbours } from "./neighbours.js";

const LARGE = 100_000_000;
const MARK = 65_536;

/** 100 MB that take no room: a few marks between holes. Returns what is there at any stretch. */
function makeLarge(t: TestContext): { readonly dir: string; readonly same: (bytes: Buffer, at: number) => boolean } {
  const dir = makeDir(t);
  const marks = [0, 1_000_000, 3_000_001, 40_000_000, LARGE - MARK].map((at) => ({ at, bytes: randomBytes(MARK) }));
  const file = openSync(join(dir, "a.ulg"), "w");
  for (const { at, bytes } of marks) writeSync(file, bytes, 0, MARK, at);
  ftruncateSync(file, LARGE);
  closeSync(file);
  return {
    dir,
    same(bytes, at) {
      const whole = Buffer.alloc(bytes.length);
      for (const mark of marks) {
        const from = Math.max(at, mark.at);
        const to = Math.min(at + bytes.length, mark.at + MARK);
        if (from < to) mark.bytes.copy(whole, from - at, from - mark.at, to - mark.at);
      }
      return whole.equals(bytes);
    },
  };
}

for (const autopilot of ["px4", "px4-1.18", "ardupilot-4.6", "ardupilot-4.7", "ardupilot-4.8"])
  for (const own of autopilot === "ardupilot-4.6" ? [false, true] : [false])
    test(`${autopilot}: a ground station${own ? " on another link" : ""} loads its parameters at its first try while 100 MB are read`, async (t) => {
      const { dir, same } = makeLarge(t);
      const rig = await makeRig(t, { dir, autopilot });
      // A ground station that is there when we come has loaded its parameters long ago.
      rig.skip(4000);
      const [entry] = await listAll(rig.source);
      assert.ok(entry);
      let have = 0;
      const read = async (until: number): Promise<void> => {
        for await (const part of await rig.source.open(entry, have, never)) {
          assert.ok(same(part as Buffer, have), `from byte ${have}`);
          have += (part as Buffer).length;
          if (have >= until) break;
        }
      };
      const station = { loaded: undefined as Awaited<ReturnType<typeof rig.sim.load>> | undefined };
      const from = rig.states.length;
      const reading = read(LARGE);
      const loading = rig.sim.load({ own }).then((loaded) => (station.loaded = loaded));
      await assert.rejects(reading, (e) => isFault(e, "offline") && e.message === "a ground station appeared: it is left alone for 20 s");
      const state = await rig.until((p) => p.state === "detached", 1000, from);
      assert.equal(state.reason, "a ground station appeared: it is left alone for 20 s");
      assert.equal(station.loaded, undefined, "we stopped before it had what it wanted");
      const lists = rig.sim.stats.requests.ListDirectory;
      await assert.rejects(listAll(rig.source), (e) => isFault(e, "offline"));
      const loaded = await loading;
      assert.deepEqual([loaded.whole, loaded.refusals, loaded.lost], [true, 0, 0]);
      assert.equal(rig.sim.stats.requests.ListDirectory, lists, "a listing waits too");
      assert.equal(rig.said.filter((text) => text.includes("a ground station appeared")).length, 1);
      assert.equal(rig.sim.openSessions(), 0);
      // Whatever the station said has been heard once the vehicle has said more.
      const frames = rig.sim.stats.framesOut;
      await eventually(() => rig.sim.stats.framesOut > frames + 2, "the vehicle goes on talking");
      const before = have;
      const served = rig.sim.stats.payloadBytes;
      rig.skip(20_000);
      await rig.until((p) => p.state === "attached", 4000, from);
      await read(Math.min(LARGE, before + 8_000_000));
      assert.ok(have > before && rig.sim.stats.payloadBytes - served < have - before + 600_000, "nothing is read again");
    });

for (const [what, faults] of [
  ["refused", { exhaust: "60s" }],
  ["lost in the middle", { nak: "4@read:50" }],
] as const)
  test(`a session that is ${what} is left to the ground station that is there, though it was there before us`, async (t) => {
    const { dir } = makeLogs(t, { "a.ulg": 3_000_000 });
    const rig = await makeRig(t, { dir, autopilot: "ardupilot-4.6", link: "usb", faults });
    // It says that it is there, and asks for nothing.
    void rig.sim.load({ announcedMs: 3_600_000 });
    await eventually(() => rig.sim.openSessions() === ("exhaust" in faults ? 1 : 0), "whoever has the session has it");
    await assert.rejects(
      readAll(rig.source, { path: "a.ulg", kind: "file", size: 3_000_000 }),
      (e) => isFault(e, "offline") && e.message === "another program uses the autopilot's file session: it is left alone for 20 s",
    );
    assert.equal(rig.states.at(-1)?.state, "detached");
    if ("exhaust" in faults) assert.equal(rig.sim.stats.requests.OpenFileRO, 2, "theirs and ours, which was not tried again");
  });

function frameOf(messageId: number, systemId: number, componentId: number, payload: Buffer): Frame {
  return { version: 2, seq: 0, systemId, componentId, messageId, payload, wireBytes: 0 };
}
const station = (systemId = 255): Frame => {
  const beat = { customMode: 0, type: TYPE_GCS, autopilot: 8, baseMode: 0, systemStatus: 4 };
  return frameOf(HEARTBEAT, systemId, 190, encodeHeartbeat(beat));
};
function ftp(from: readonly [number, number], to: readonly [number, number]): Frame {
  const payload = Buffer.alloc(FTP_PAYLOAD);
  payload.set([0, ...to]);
  return frameOf(FILE_TRANSFER_PROTOCOL, ...from, payload);
}

/** Neighbours in a time that is moved by hand, seen from 1/191 with an autopilot 1/1. */
function watch(alone = false) {
  let now = 0;
  const said: string[] = [];
  const neighbours = new Neighbours({ ...clock, monotonicMs: () => now }, alone, (text) => said.push(text));
  neighbours.opened();
  return {
    neighbours,
    said,
    after: (ms: number) => void (now += ms),
    hear: (frame: Frame) =>
      neighbours.frame(frame, { systemId: 1, componentId: 191, isAutopilot: (f) => f.systemId === 1 && f.componentId === 1 }),
  };
}

test("who was there when we came, or goes on, has not appeared; who was away for 10 s has", () => {
  const { neighbours, said, after, hear } = watch();
  after(1000);
  for (let i = 0; i < 60; i++) {
    hear(station());
    after(1000);
  }
  assert.equal(neighbours.reason, undefined);
  hear(station(254));
  assert.match(neighbours.reason ?? "", /^a ground station appeared/);
  after(19_900);
  assert.ok(neighbours.reason !== undefined);
  after(100);
  assert.equal(neighbours.reason, undefined);
  after(1000);
  hear(station());
  assert.ok(neighbours.reason !== undefined, "the first one was away for 21 s");
  assert.equal(said.length, 2);
});

test("files that somebody else moves with our autopilot are a neighbour; ours, and those of another vehicle or a camera, are not", () => {
  for (const [from, to, yields] of [
    [[1, 1], [1, 191], false],
    [[2, 1], [255, 190], false],
    [[255, 190], [2, 1], false],
    [[1, 191], [1, 1], false],
    [[255, 190], [1, 100], false],
    [[1, 100], [1, 192], false],
    [[1, 154], [1, 191], false],
    [[2, 1], [1, 191], false],
    [[1, 1], [255, 190], true],
    [[255, 190], [1, 1], true],
    [[1, 192], [1, 0], true],
  ] as const) {
    const { neighbours, hear } = watch();
    hear(ftp(from, to));
    assert.equal(neighbours.reason !== undefined, yields, `${from.join("/")} to ${to.join("/")}`);
  }
});

test("while files are still moved we wait on, but for a minute at most; then it is a neighbour like any other", () => {
  const { neighbours, said, after, hear } = watch();
  for (let ms = 0; ms < 59_000; ms += 1000) {
    hear(ftp([1, 1], [255, 190]));
    assert.ok(neighbours.reason !== undefined);
    after(1000);
  }
  after(1000);
  hear(ftp([1, 1], [255, 190]));
  assert.equal(neighbours.reason, undefined);
  assert.equal(said.length, 1);
});

test("a refusal is somebody's only where somebody is; right after we came back it is longer", () => {
  const { neighbours, after, hear } = watch();
  neighbours.refused();
  assert.equal(neighbours.reason, undefined);
  hear(station());
  assert.equal(neighbours.reason, undefined, "it was there before us");
  neighbours.refused();
  assert.match(neighbours.reason ?? "", /session: it is left alone for 20 s/);
  after(20_000);
  assert.equal(neighbours.reason, undefined);
  neighbours.held();
  assert.match(neighbours.reason ?? "", /for 35 s/);
});

test("on a link of our own nobody is looked for", () => {
  const { neighbours, after, hear } = watch(true);
  after(5000);
  hear(station());
  hear(ftp([1, 1], [255, 190]));
  neighbours.held();
  assert.equal(neighbours.reason, undefined);
});
