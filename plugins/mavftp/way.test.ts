/** Which way of reading is chosen on which autopilot and link, why it is not tried elsewhere, what is remembered, and when it is found out anew. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { AUTOPILOT_ARDUPILOT, AUTOPILOT_GENERIC, AUTOPILOT_PX4 } from "../../mavlink/messages.js";
import { Assembly } from "./assembly.js";
import { eventually, listAll, makeLogs, makeRig, readAll } from "./harness.test.js";
import type { Reading, Stretch } from "./reading.js";
import { trialOf, WayReading, type Choice, type WayTools } from "./way.js";

test("why bursts are not tried is told as what was measured, or as what is taken for it", () => {
  const why = (autopilot: number, reads: number, version: readonly [number, number, number] = [4, 7, 0]) => {
    const trial = trialOf({ autopilot, version }, reads);
    return trial.bursts === "never" ? trial.why : trial.bursts;
  };
  assert.equal(why(AUTOPILOT_PX4, 620_000), "bursts not tried: where plain reads give more than 30 kB/s a PX4's are never faster");
  assert.equal(
    why(AUTOPILOT_ARDUPILOT, 80_000),
    "bursts not tried: plain reads gave less than 100 kB/s: taken for a radio or a port without flow control, where ArduPilot slows them down",
  );
  assert.equal(why(AUTOPILOT_ARDUPILOT, 400_000, [4, 6, 3]), "bursts not tried: up to ArduPilot 4.6 they are slowed down");
  assert.equal(why(AUTOPILOT_GENERIC, 400_000), "bursts not tried: this autopilot's are not known");
});

test("a burst is tried only where it can pay", () => {
  const tried = (autopilot: number, version: readonly [number, number, number] | undefined, reads: number) =>
    trialOf({ autopilot, version }, reads).bursts;
  assert.equal(tried(AUTOPILOT_PX4, [1, 15, 4], 620_000), "never");
  assert.equal(tried(AUTOPILOT_PX4, undefined, 4600), "now");
  assert.equal(tried(AUTOPILOT_ARDUPILOT, [4, 6, 3], 400_000), "never");
  assert.equal(tried(AUTOPILOT_ARDUPILOT, [4, 7, 0], 400_000), "now");
  assert.equal(tried(AUTOPILOT_ARDUPILOT, [5, 0, 0], 400_000), "now");
  assert.equal(tried(AUTOPILOT_ARDUPILOT, [4, 7, 0], 80_000), "never");
  assert.equal(tried(AUTOPILOT_ARDUPILOT, undefined, 400_000), "end");
  assert.equal(tried(AUTOPILOT_GENERIC, undefined, 400_000), "never");
});

/** Two ways of known speed, by a clock of their own. */
function bench(speeds: { reads: number; bursts: number | Error }, given: Partial<WayTools> = {}) {
  let nowMs = 0;
  const said: string[] = [];
  const used: [string, number][] = [];
  const memory = new Map<string, unknown>();
  const data = Buffer.alloc(239);
  const made = (name: "reads" | "bursts"): Reading => ({
    read({ assembly, end, more }: Stretch) {
      const from = assembly.whole;
      const speed = speeds[name];
      if (speed instanceof Error) return Promise.reject(speed);
      while (assembly.whole < end && more()) {
        nowMs += (239 / speed) * 1000;
        assembly.place(assembly.whole, data, 0, Math.min(239, end - assembly.whole));
      }
      used.push([name, assembly.whole - from]);
      return Promise.resolve();
    },
  });
  const tools: WayTools = {
    reads: made("reads"),
    bursts: made("bursts"),
    memory: { get: (key) => memory.get(key), set: (key, value) => Promise.resolve(void memory.set(key, value)) },
    peer: () => ({ autopilot: AUTOPILOT_ARDUPILOT, version: [4, 7, 0] }),
    link: "here",
    now: () => nowMs,
    say: (_level, message) => said.push(message),
    ...given,
  };
  const reading = { now: new WayReading(tools) };
  return {
    speeds,
    said,
    used,
    memory,
    reading,
    restart: () => (reading.now = new WayReading(tools)),
    pass: (ms: number) => (nowMs += ms),
    async file(bytes: number): Promise<Choice | undefined> {
      used.length = 0;
      const assembly = new Assembly(0, () => undefined);
      const signal = new AbortController().signal;
      const stretch = { file: { session: 1, systemId: 1 }, requests: undefined as never, assembly, end: bytes, more: () => true, signal };
      await reading.now.read(stretch);
      assert.equal(assembly.whole, bytes);
      return reading.now.choice;
    },
  };
}

/** A file of 1,000,000 bytes by bursts: its first 69 packets are plain reads. */
const glanced = [
  ["reads", 69 * 239],
  ["bursts", 1_000_000 - 69 * 239],
];

test("the faster is kept, said once, and remembered over a restart", async () => {
  const rig = bench({ reads: 400_000, bursts: 620_000 });
  assert.equal((await rig.file(1_000_000))?.way, "bursts");
  assert.deepEqual(
    rig.used.map(([way]) => way),
    ["reads", "bursts", "bursts"],
  );
  assert.ok((rig.used[0]?.[1] ?? 0) < 70_000);
  await rig.file(1_000_000);
  assert.deepEqual(rig.used, glanced);
  assert.equal(rig.said.length, 1);
  assert.match(rig.said[0] ?? "", /^reads by bursts \(plain reads 400 kB\/s, bursts 620 kB\/s\): both were tried$/);
  rig.restart();
  await rig.file(1_000_000);
  assert.deepEqual(rig.used, glanced);
  assert.match(rig.said[1] ?? "", /when it was tried/);
});

test("plain reads are kept where bursts are no faster, or do not work", async () => {
  assert.equal((await bench({ reads: 400_000, bursts: 405_000 }).file(1_000_000))?.way, "reads");
  const broken = bench({ reads: 400_000, bursts: new Error("silence") });
  assert.equal((await broken.file(1_000_000))?.way, "reads");
  assert.equal((await broken.file(1_000_000))?.bursts, 0);
  assert.deepEqual(broken.used, [["reads", 1_000_000]]);
});

test("a link that is much slower than remembered is tried again, and what was chosen is left only for what is clearly faster", async () => {
  const rig = bench({ reads: 400_000, bursts: 620_000 });
  await rig.file(1_000_000);
  rig.speeds.bursts = 200_000;
  rig.speeds.reads = 220_000;
  await rig.file(1_000_000);
  assert.deepEqual(rig.used, glanced, "not within a minute");
  rig.pass(60_000);
  assert.equal((await rig.file(2_000_000))?.way, "bursts", "10 % faster is not enough");
  assert.ok(rig.used.some(([way]) => way === "reads"));
  rig.pass(60_000);
  rig.speeds.bursts = 50_000;
  assert.equal((await rig.file(2_000_000))?.way, "reads");
  assert.equal(rig.said.length, 2);
});

test("a wire that is seen to be fast after all has its trial, whenever that is", async () => {
  const rig = bench({ reads: 90_000, bursts: 620_000 });
  assert.deepEqual([(await rig.file(1_000_000))?.way, rig.reading.now.choice?.bursts], ["reads", undefined]);
  rig.speeds.reads = 380_000;
  assert.equal((await rig.file(1_000_000))?.way, "bursts");
  const old = bench({ reads: 90_000, bursts: 620_000 }, { peer: () => ({ autopilot: AUTOPILOT_ARDUPILOT, version: [4, 6, 3] }) });
  await old.file(1_000_000);
  old.speeds.reads = 380_000;
  assert.equal((await old.file(1_000_000))?.way, "reads", "never on 4.6");
  assert.equal(old.said.length, 1);
});

test("an ArduPilot of unknown version is tried where the file ends soon", async () => {
  const rig = bench({ reads: 400_000, bursts: 620_000 }, { peer: () => ({ autopilot: AUTOPILOT_ARDUPILOT, version: undefined }) });
  assert.equal((await rig.file(1_000_000))?.way, "bursts");
  const bursts = rig.used.filter(([way]) => way === "bursts").reduce((sum, [, bytes]) => sum + bytes, 0);
  assert.ok(bursts > 0 && bursts <= 98_304, `${bursts} bytes`);
});

test("what was chosen before the version was known is found out again once it is, and only that is remembered", async () => {
  let version: readonly [number, number, number] | undefined;
  const rig = bench({ reads: 400_000, bursts: 405_000 }, { peer: () => ({ autopilot: AUTOPILOT_ARDUPILOT, version }) });
  assert.equal((await rig.file(1_000_000))?.way, "reads");
  assert.equal(rig.memory.size, 0);
  version = [4, 7, 0];
  rig.speeds.bursts = 620_000;
  assert.equal((await rig.file(1_000_000))?.way, "reads", "the trial of before counts");
  assert.deepEqual([...rig.memory.keys()], ["way:3:4.7.0:here"]);
  version = [4, 8, 0];
  assert.equal((await rig.file(1_000_000))?.way, "bursts");
});

test("what is chosen again for the same reason, now that the version is known, is not said twice", async () => {
  const px4 = { autopilot: AUTOPILOT_PX4, version: undefined as readonly [number, number, number] | undefined };
  const rig = bench({ reads: 600_000, bursts: 100_000 }, { peer: () => px4 });
  await rig.file(1_000_000);
  px4.version = [1, 15, 4];
  await rig.file(1_000_000);
  assert.deepEqual([rig.said.length, rig.memory.size], [1, 1]);
});

test("files too short for a trial, one after the other, are one trial", async () => {
  const rig = bench({ reads: 400_000, bursts: 620_000 });
  for (let n = 0; n < 8; n++) await rig.file(20_000);
  assert.equal(rig.reading.now.choice?.way, "bursts");
});

for (const [autopilot, link, way, bytes] of [
  ["px4", "usb", "reads", 300_000],
  ["ardupilot-4.6", "usb", "reads", 300_000],
  ["ardupilot-4.7", "usb", "faster", 600_000],
  ["ardupilot-4.8", "usb", "faster", 1_200_000],
  ["ardupilot-4.7", "uart:921600", "reads", 100_000],
  ["mavsdk", "usb", "reads", 300_000],
] as const)
  test(`${autopilot} over ${link} is read by ${way === "faster" ? "what was faster of both" : way}`, async (t) => {
    const { dir, content } = makeLogs(t, { "a.bin": bytes });
    const rig = await makeRig(t, { dir, autopilot, link });
    await eventually(() => rig.said.some((text) => text.includes("firmware")), "its version is known");
    const [entry] = await listAll(rig.source);
    assert.ok(entry);
    // A machine that is busy takes the wire for a slow one, until it is seen to be fast after all.
    for (let n = 0; n === 0 || (n < 20 && rig.stood() && way === "faster" && (rig.device.way?.bursts ?? 0) === 0); n++)
      assert.ok((await readAll(rig.source, entry)).equals(content.get("a.bin") as Buffer));
    const choice = rig.device.way ?? assert.fail("nothing was chosen");
    // How fast each is here and now is not for a test to say: bench/mavftp.ts does.
    const { reads = 0, bursts = 0 } = choice;
    if (way === "faster") assert.ok(bursts > 0, "bursts were tried");
    assert.equal(choice.way, way === "faster" ? (bursts > reads * 1.03 ? "bursts" : "reads") : way);
    assert.ok(rig.said.some((text) => text.startsWith(`reads by ${choice.way === "reads" ? "plain reads" : "bursts"}`)));
    assert.deepEqual(
      [...rig.memory.keys()].filter((key) => key.startsWith("way:")).map((key) => key.split(":").at(1)),
      [String({ px4: 12, mavsdk: 0 }[autopilot as string] ?? 3)],
    );
  });
