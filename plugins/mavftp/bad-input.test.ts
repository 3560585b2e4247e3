/** What an autopilot, its card or its files may confront us with: each has one clear message, and costs only itself. */
import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout } from "node:timers/promises";
import { isFault } from "../../core/errors.js";
import { FrameWriter } from "../../mavlink/frame.js";
import {
  AUTOPILOT_ARDUPILOT,
  AUTOPILOT_PX4,
  COMPONENT_AUTOPILOT,
  encodeHeartbeat,
  encodeSystemTime,
  FILE_TRANSFER_PROTOCOL,
  HEARTBEAT,
  SYSTEM_TIME,
} from "../../mavlink/messages.js";
import {
  BurstMemory,
  eventually,
  freeUdpPort,
  lastly,
  listAll,
  makeDevice,
  makeDir,
  makeLogs,
  makeRig,
  never,
  readAll,
} from "./harness.test.js";

for (const autopilot of ["px4", "ardupilot-4.6", "ardupilot-4.8"])
  test(`${autopilot}: a directory of 2,000 logs`, async (t) => {
    const dir = makeDir(t);
    for (let n = 1; n <= 2000; n++) writeFileSync(join(dir, `${String(n).padStart(8, "0")}.BIN`), "x".repeat(n % 7));
    const { source } = await makeRig(t, { dir, autopilot });
    const listed = await listAll(source);
    assert.equal(listed.length, 2000);
    assert.deepEqual(
      listed.map(({ path, size }) => `${path} ${size}`),
      Array.from({ length: 2000 }, (_, n) => `${String(n + 1).padStart(8, "0")}.BIN ${(n + 1) % 7}`),
    );
  });

for (const [autopilot, by] of [
  ["px4", "reads"],
  ["px4", "bursts"],
  ["ardupilot-4.6", "reads"],
  ["ardupilot-4.7", "bursts"],
] as const)
  test(`${autopilot} by ${by}: all before a byte that the card cannot read comes, wherever reading begins, and the fault names that byte`, async (t) => {
    const { dir, content } = makeLogs(t, { "a.ulg": 300_000, "b.ulg": 1000 });
    const rig = await makeRig(t, { dir, autopilot, faults: { eio: "200kB" } }, {}, by === "bursts" ? new BurstMemory() : undefined);
    const [a, b] = await listAll(rig.source);
    assert.ok(a !== undefined && b !== undefined);
    for (const offset of [0, 1, 100, 199_000, 200_000]) {
      const before = { ...rig.sim.stats.requests };
      const parts: Buffer[] = [];
      const reading = async () => {
        for await (const part of await rig.source.open(a, offset, never)) {
          parts.push(part as Buffer);
          // A reader that is slower than the link loses nothing of it.
          await new Promise((resolve) => setImmediate(resolve));
        }
      };
      await assert.rejects(
        reading(),
        (error: unknown) =>
          isFault(error, "transient") &&
          error.message === "the autopilot cannot read byte 200000: its card fails there: FailErrno (errno 5)",
      );
      assert.ok(
        Buffer.concat(parts).equals(content.get("a.ulg")?.subarray(offset, 200_000) as Buffer),
        `${Buffer.concat(parts).length} bytes`,
      );
      const asked = (rig.sim.stats.requests.ReadFile ?? 0) - (before.ReadFile ?? 0);
      assert.ok(asked < (200_000 - offset) / 239 + 200, `${asked} reads were asked for`);
    }
    await eventually(() => rig.sim.openSessions() === 0, "the session is ended");
    assert.ok((await readAll(rig.source, b)).equals(content.get("b.ulg") ?? Buffer.alloc(0)));
  });

test("an offset has 32 bits: of a PX4's longer file nothing is begun", async (t) => {
  const { dir } = makeLogs(t, { "a.ulg": 10 });
  const rig = await makeRig(t, { dir, autopilot: "px4" });
  const refused = rig.source.open({ path: "a.ulg", kind: "file", size: 2 ** 32 + 1 }, 0, new AbortController().signal);
  await assert.rejects(refused, (error: unknown) => isFault(error, "rejected") && /4 GiB/.test(error.message));
  assert.equal(rig.sim.stats.requests.OpenFileRO, undefined);
});

test("ArduPilot reads nothing behind 2 GiB: a longer file is refused before it is begun, one that just fits is not", async (t) => {
  const { dir } = makeLogs(t, { "fits.bin": 0, "long.bin": 0 });
  truncateSync(join(dir, "fits.bin"), 2 ** 31);
  truncateSync(join(dir, "long.bin"), 2 ** 31 + 1);
  const rig = await makeRig(t, { dir, autopilot: "ardupilot-4.6" });
  const [fits, long] = await listAll(rig.source);
  assert.ok(fits !== undefined && long !== undefined);
  await assert.rejects(
    rig.source.open(long, 0, never),
    (error: unknown) => isFault(error, "rejected") && /2 GiB/.test(error.message) && /card/.test(error.message),
  );
  assert.equal(rig.sim.stats.requests.OpenFileRO ?? 0, 0);
  const tail = await readAll(rig.source, fits, 2 ** 31 - 1000);
  assert.equal(tail.length, 1000);
  const px4 = await makeRig(t, { dir, autopilot: "px4" });
  assert.equal((await readAll(px4.source, long, 2 ** 31 - 500)).length, 501);
});

for (const [autopilot, faults, kind, words] of [
  ["ardupilot-4.6", { exhaust: "60s" }, "offline", /another program uses the autopilot's file session/],
  ["ardupilot-4.7", { exhaust: "60s" }, "offline", /another program uses the autopilot's file session/],
  ["px4", { nak: "2.5@list:2" }, "transient", /cannot list .*FailErrno 5/],
  ["ardupilot-4.7", {}, "denied", /there is no \/APM\/LOGS on the autopilot: no SD card/],
] as const)
  test(`${autopilot} with ${JSON.stringify(faults)}: only what is not there is called "not there" while the logs are looked for`, async (t) => {
    const log = autopilot === "px4" ? "fs/microsd/log/a.ulg" : "exhaust" in faults ? "APM/LOGS/00000001.BIN" : "a.txt";
    const { dir } = makeLogs(t, { [log]: 10 });
    const rig = await makeRig(t, { dir, autopilot, faults }, { root: undefined });
    const held = autopilot === "ardupilot-4.6" ? 1 : 5;
    if ("exhaust" in faults) await eventually(() => rig.sim.openSessions() === held, "others have all sessions");
    await assert.rejects(listAll(rig.source), (error: unknown) => isFault(error, kind) && words.test(error.message));
  });

test("a path that no packet holds is refused with its length, also where it was never listed", async (t) => {
  const { dir } = makeLogs(t, { "a.ulg": 10 });
  const { source } = await makeRig(t, { dir });
  const path = `${"d".repeat(120)}/${"e".repeat(120)}/f.ulg`;
  await assert.rejects(
    source.stat(path, never),
    (error: unknown) =>
      isFault(error, "rejected") && /its path has 24\d bytes on the autopilot, and MAVLink FTP takes 239/.test(error.message),
  );
});

/** Heartbeats of autopilots (system id, MAV_AUTOPILOT) at one UDP port of ours, four a second each, until what is given is called. */
function beats(
  t: TestContext,
  port: number,
  autopilots: readonly (readonly [system: number, autopilot: number])[],
  everyMs = 250,
): () => void {
  const socket = createSocket("udp4");
  const payload = { customMode: 0, type: 2, baseMode: 0, systemStatus: 3 };
  const writers = autopilots.map(([system, autopilot]) => {
    const writer = new FrameWriter(system, COMPONENT_AUTOPILOT);
    return () => writer.encode(HEARTBEAT, encodeHeartbeat({ ...payload, autopilot }));
  });
  const timer = setInterval(() => writers.forEach((frame) => socket.send(frame(), port, "127.0.0.1")), everyMs);
  const stop = () => clearInterval(timer);
  lastly(t, () => {
    stop();
    socket.close();
  });
  return stop;
}

test("two of one kind and one system id are told by their clocks: neither is read while both are heard", async (t) => {
  const port = await freeUdpPort();
  const socket = createSocket("udp4");
  const sinceMs = performance.now();
  const speaker = (bootedMs: number) => {
    const writer = new FrameWriter(1, COMPONENT_AUTOPILOT);
    return () => {
      const bootMs = Math.floor(performance.now() - sinceMs + bootedMs);
      socket.send(
        writer.encode(HEARTBEAT, encodeHeartbeat({ customMode: 0, type: 2, autopilot: AUTOPILOT_PX4, baseMode: 0, systemStatus: 3 })),
        port,
      );
      socket.send(writer.encode(SYSTEM_TIME, encodeSystemTime({ unixUsec: 0n, bootMs })), port);
    };
  };
  const speakers = [speaker(100_000), speaker(60_000)];
  const timer = setInterval(() => speakers.forEach((speak) => speak()), 100);
  lastly(t, () => {
    clearInterval(timer);
    socket.close();
  });
  const rig = makeDevice(t, { url: `udpin://127.0.0.1:${port}` });
  const { reason = "" } = await rig.until(({ reason }) => reason?.startsWith("two autopilots") === true);
  assert.match(reason, /^two autopilots with the system id 1 are on .*: give each an id of its own/);
  // The one that is heard alone is read: whichever has gone.
  const before = rig.states.length;
  speakers.splice(1, 1);
  await rig.until(({ state }) => state === "attached", 40_000, before);
});

test("two autopilots on one link: of one system id neither is read; of two the first, and that is said", async (t) => {
  for (const [second, options] of [
    [1, {}],
    [2, {}],
    [2, { systemId: 1 }],
  ] as const) {
    const port = await freeUdpPort();
    beats(t, port, [
      [1, AUTOPILOT_PX4],
      [second, AUTOPILOT_ARDUPILOT],
    ]);
    const rig = makeDevice(t, { url: `udpin://127.0.0.1:${port}`, ...options });
    const told = () => rig.said.filter((text) => text.startsWith("two autopilots are on"));
    if (second === 1) {
      const { reason = "" } = await rig.until(({ reason }) => reason?.startsWith("two autopilots") === true);
      assert.match(reason, /with the system id 1 are on .*: give each an id of its own \(PX4 MAV_SYS_ID, ArduPilot SYSID_THISMAV\)/);
    } else {
      await rig.until(({ state }) => state === "attached");
      if ("systemId" in options) assert.deepEqual(told(), []);
      else {
        await eventually(() => told().length > 0, "it is said");
        assert.match(told()[0] ?? "", /systems \d and \d: system \d is read; "systemId" says which$/);
      }
    }
  }
});

test("where the autopilot that was read is heard no more, and another is: that is another stay, and whoever works in the one before is told", async (t) => {
  const port = await freeUdpPort();
  const stop = beats(t, port, [[1, AUTOPILOT_PX4]]);
  const rig = makeDevice(t, { url: `udpin://127.0.0.1:${port}`, root: "/" });
  const { epoch } = await rig.attached();
  // So often that it is heard in the moment in which the first counts as silent.
  beats(t, port, [[2, AUTOPILOT_PX4]], 5);
  await eventually(() => rig.said.some((text) => text.startsWith("two autopilots are on")), "both are heard");
  const work = rig.source.stat("a.ulg", never).catch((error: unknown) => error);
  stop();
  const before = rig.states.length;
  await rig.until((presence) => presence.state === "attached" && presence.epoch !== epoch, 8000, before);
  assert.ok(isFault(await work, "offline"));
});

test("heartbeats that get lost while answers come: ours is not left for another that is heard", async (t) => {
  const port = await freeUdpPort();
  const stop = beats(t, port, [[1, AUTOPILOT_PX4]]);
  const componentId = 191;
  const rig = makeDevice(t, { url: `udpin://127.0.0.1:${port}`, root: "/", componentId });
  const { epoch } = await rig.attached();
  beats(t, port, [[2, AUTOPILOT_PX4]], 50);
  await eventually(() => rig.said.some((text) => text.startsWith("two autopilots are on")), "both are heard");
  const before = rig.states.length;
  const socket = createSocket("udp4");
  const writer = new FrameWriter(1, COMPONENT_AUTOPILOT);
  const answer = Buffer.concat([Buffer.from([0, 1, componentId]), Buffer.alloc(251)]);
  const answering = setInterval(() => socket.send(writer.encode(FILE_TRANSFER_PROTOCOL, answer), port, "127.0.0.1"), 200);
  lastly(t, () => {
    clearInterval(answering);
    socket.close();
  });
  stop();
  await setTimeout(4800);
  beats(t, port, [[1, AUTOPILOT_PX4]]);
  await setTimeout(2000);
  assert.deepEqual(rig.states.slice(before), []);
  assert.equal((await rig.attached()).epoch, epoch);
});
