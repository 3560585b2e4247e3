/** Files come whole, byte for byte: over each transport, from any offset, through faults drawn from seeds, and through what changes underneath. */
import assert from "node:assert/strict";
import { appendFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Digester } from "../../core/digest.js";
import { isFault } from "../../core/errors.js";
import { Op } from "../../mavlink/ftp.js";
import { freePort } from "../../test/conformance/ftp-servers.js";
import { Program } from "../../test/faults/process.js";
import {
  BurstMemory,
  eventually,
  freeUdpPort,
  listAll,
  makeDevice,
  makeDir,
  makeLogs,
  makeRig,
  makeSim,
  never,
  readAll,
  type Recorded,
} from "./harness.test.js";

const sizes = {
  "2024-05-17/12_00_00.ulg": 300_003,
  "2024-05-17/13_05_59.ulg": 0,
  "sess001/log001.ulg": 239,
  "sess001/log002.ulg": 65_536 * 2 + 1,
  "readme.txt": 1,
};

async function readsEverything(rig: Recorded, content: Map<string, Buffer>): Promise<void> {
  const entries = await listAll(rig.source);
  assert.deepEqual(
    entries.map((entry) => [entry.path, entry.size]),
    [...content].map(([path, bytes]) => [path, bytes.length]).sort((a, b) => (String(a[0]) < String(b[0]) ? -1 : 1)),
  );
  for (const entry of entries) assert.ok((await readAll(rig.source, entry)).equals(content.get(entry.path) as Buffer), entry.path);
}

for (const link of ["none", "usb", "udp"])
  test(`everything is read over TCP with link ${link}`, async (t) => {
    const { dir, content } = makeLogs(t, sizes);
    const rig = await makeRig(t, { dir, link });
    await readsEverything(rig, content);
    assert.equal(rig.sim.openSessions(), 0);
  });

test("everything is read over UDP, called by us", async (t) => {
  const { dir, content } = makeLogs(t, sizes);
  await readsEverything(await makeRig(t, { dir, listen: "udpin://127.0.0.1:0", link: "udp" }), content);
});

test("everything is read over UDP, called by the vehicle", async (t) => {
  const { dir, content } = makeLogs(t, sizes);
  const port = await freeUdpPort();
  await readsEverything(await makeRig(t, { dir, listen: `udpout://127.0.0.1:${port}`, link: "udp" }), content);
});

test("everything is read over a serial port", async (t) => {
  const { dir, content } = makeLogs(t, sizes);
  await readsEverything(await makeRig(t, { dir, listen: `pty:${join(makeDir(t), "ttyDRONE")}`, link: "usb" }), content);
});

test("a vehicle that connects to us is read", async (t) => {
  const { dir, content } = makeLogs(t, sizes);
  const { connect } = await import("node:net");
  const sim = await makeSim(t, { dir });
  // The simulator listens; a relay that connects both ways makes it a caller.
  const port = await freePort();
  const device = makeDevice(t, { url: `tcpin://127.0.0.1:${port}`, root: "/" });
  await device.until((p) => p.reason?.startsWith("waiting") === true);
  const ours = connect(port, "127.0.0.1");
  const theirs = connect(Number(sim.url.split(":").at(-1)), "127.0.0.1");
  t.after(() => {
    ours.destroy();
    theirs.destroy();
  });
  ours.pipe(theirs).pipe(ours);
  await device.attached();
  await readsEverything(device, content);
});

test("reading goes on at any byte, and an offset past the end is no version of this file", async (t) => {
  const { dir, content } = makeLogs(t, { "a.ulg": 100_001 });
  const bytes = content.get("a.ulg") as Buffer;
  const rig = await makeRig(t, { dir });
  const [entry] = await listAll(rig.source);
  assert.ok(entry);
  for (const offset of [0, 1, 238, 239, 240, 65_535, 65_536, 65_537, bytes.length - 1, bytes.length])
    assert.ok((await readAll(rig.source, entry, offset)).equals(bytes.subarray(offset)), `from ${offset}`);
  await assert.rejects(rig.source.open(entry, bytes.length + 1, never), (e) => isFault(e, "changed"));
  assert.equal(rig.sim.openSessions(), 0);
});

test("a file longer than 65,536 reads comes whole though the request numbers begin again", async (t) => {
  const { dir, content } = makeLogs(t, { "a.ulg": 16_500_000 });
  const rig = await makeRig(t, { dir });
  const [entry] = await listAll(rig.source);
  assert.ok(entry);
  assert.ok((await readAll(rig.source, entry)).equals(content.get("a.ulg") as Buffer));
});

for (const seed of [1, 2, 3, 4])
  test(`loss, repeats, reordering, damage and junk cost time, never a byte (seed ${seed})`, async (t) => {
    const { dir, content } = makeLogs(t, { "2024-05-17/12_00_00.ulg": 60_007, "b.ulg": 20_000, "c.ulg": 0 });
    const faults = { loss: "10%", dup: "5%", reorder: "5%", corrupt: "2%", junk: "2%", ...(seed === 2 ? { delay: "20ms" } : {}) };
    const rig = await makeRig(t, { dir, faults, seed, link: seed === 3 ? "usb" : "none" });
    await readsEverything(rig, content);
    await eventually(() => rig.sim.openSessions() === 0, "sessions are ended");
  });

test("damage on a serial line and telemetry beside the files cost nothing but time", async (t) => {
  const { dir, content } = makeLogs(t, { "a.ulg": 50_000 });
  const faults = { corrupt: "1%", junk: "5%", noise: "20kB" };
  await readsEverything(await makeRig(t, { dir, faults, link: "uart:921600", listen: `pty:${join(makeDir(t), "tty")}` }), content);
});

test("a board with a small transmit buffer loses next to nothing", async (t) => {
  const { dir, content } = makeLogs(t, { "a.ulg": 200_000 });
  const rig = await makeRig(t, { dir, link: "usb", transmitRing: 2000 });
  await readsEverything(rig, content);
  assert.ok((rig.sim.stats.requests.ReadFile ?? 0) < (200_000 / 239) * 1.3, `${rig.sim.stats.requests.ReadFile ?? 0} reads`);
});

test("no more than the window is on its way", async (t) => {
  const { dir, content } = makeLogs(t, { "a.ulg": 150_000 });
  const rig = await makeRig(t, { dir, link: "usb" });
  await readsEverything(rig, content);
  assert.ok(rig.sim.stats.peakReads >= 4 && rig.sim.stats.peakReads <= 8, `at most 8, it was ${rig.sim.stats.peakReads}`);
  assert.equal(rig.sim.stats.requests.ReadFile, Math.ceil(150_000 / 239));
});

test("what came while this machine was busy is not asked for again", async (t) => {
  const { dir, content } = makeLogs(t, { "a.ulg": 6_000_000 });
  // In a process of its own: it answers meanwhile.
  const sim = new Program(["sim", "--listen", "tcpin://127.0.0.1:0", "--dir", dir, "--link", "none"]);
  t.after(() => sim.kill());
  const { message } = await sim.until(({ message }) => message.startsWith("listening on"), "listening");
  const rig = makeDevice(t, { url: message.replace("listening on tcpin", "tcpout"), root: "/" });
  await rig.attached();
  const [entry] = await listAll(rig.source);
  assert.ok(entry);
  const before = rig.device.requestsSent;
  const parts: Buffer[] = [];
  let stalls = 0;
  for await (const part of await rig.source.open(entry, 0, never)) {
    parts.push(part as Buffer);
    // Now and then: else it would learn that answers take so long.
    if (parts.length % 12 !== 0) continue;
    for (const untilMs = performance.now() + 300; performance.now() < untilMs;);
    stalls += 1;
  }
  assert.ok(Buffer.concat(parts).equals(content.get("a.ulg") as Buffer));
  const again = rig.device.requestsSent - before - Math.ceil(6_000_000 / 239);
  assert.ok(stalls >= 5 && again < stalls * 3, `${again} requests more than needed, in ${stalls} stalls`);
});

test("a reader that stops stops the requests, and goes on where it was", async (t) => {
  const { dir, content } = makeLogs(t, { "a.ulg": 3_000_000 });
  const rig = await makeRig(t, { dir });
  const [entry] = await listAll(rig.source);
  assert.ok(entry);
  const stream = await rig.source.open(entry, 0, never);
  const parts: Buffer[] = [];
  await new Promise<void>((resolve) =>
    stream.once("data", (part: Buffer) => {
      parts.push(part);
      stream.pause();
      resolve();
    }),
  );
  let before = -1;
  await eventually(() => {
    const same = before === rig.sim.stats.payloadBytes;
    before = rig.sim.stats.payloadBytes;
    return same;
  }, "reading stops");
  assert.ok(before < 600_000, `${before} bytes were read for a reader that took 65,536`);
  // The autopilot's one session is given back meanwhile.
  await eventually(() => rig.sim.openSessions() === 0, "the session is given back", 6000);
  for await (const part of stream) parts.push(part as Buffer);
  assert.ok(Buffer.concat(parts).equals(content.get("a.ulg") as Buffer));
});

test("a list and a stat come in between while a file is read", async (t) => {
  const { dir, content } = makeLogs(t, { "a.ulg": 400_000, "d/b.ulg": 10 });
  const rig = await makeRig(t, { dir, link: "usb" });
  const [entry] = await listAll(rig.source);
  assert.ok(entry);
  let read = false;
  const reading = readAll(rig.source, entry).finally(() => (read = true));
  const listed = await listAll(rig.source);
  assert.equal(listed.length, 2);
  assert.equal((await rig.source.stat("d/b.ulg", never))?.size, 10);
  assert.equal(read, false);
  assert.ok((await reading).equals(content.get("a.ulg") as Buffer));
});

test("a file that grew is read to the size that was asked; one that shrank has changed; one that went is missing", async (t) => {
  const { dir, content } = makeLogs(t, { "a.ulg": 10_000, "b.ulg": 10_000, "c.ulg": 10_000 });
  const rig = await makeRig(t, { dir });
  const [a, b, c] = await listAll(rig.source);
  assert.ok(a && b && c);
  appendFileSync(join(dir, "a.ulg"), "more");
  truncateSync(join(dir, "b.ulg"), 9000);
  rmSync(join(dir, "c.ulg"));
  assert.ok((await readAll(rig.source, a)).equals(content.get("a.ulg") as Buffer));
  const reads = rig.sim.stats.requests.ReadFile;
  await assert.rejects(rig.source.open(b, 0, never), (e) => isFault(e, "changed"));
  assert.equal(rig.sim.stats.requests.ReadFile, reads, "the size at opening tells");
  await assert.rejects(readAll(rig.source, c), (e) => isFault(e, "missing"));
  assert.equal(await rig.source.stat("c.ulg", never), undefined);
  assert.equal(await rig.source.stat("no/such.ulg", never), undefined);
  assert.equal(rig.sim.openSessions(), 0);
});

test("the autopilot's own checksum is that of the bytes, and is left out where it would cost too much or say nothing", async (t) => {
  const { dir, content } = makeLogs(t, { "a.ulg": 100_000, "b.ulg": 2000 });
  const rig = await makeRig(t, { dir }, { crcMaxSize: "50kB" });
  const [a, b] = await listAll(rig.source);
  assert.ok(a && b);
  const own = new Digester("crc32-mavlink");
  own.update(content.get("b.ulg") as Buffer);
  assert.equal(await rig.source.digest?.(b, "crc32-mavlink", never), own.value());
  assert.equal(await rig.source.digest?.(a, "crc32-mavlink", never), undefined, "too large");
  assert.equal(await rig.source.digest?.(b, "sha256", never), undefined);
  appendFileSync(join(dir, "b.ulg"), "x");
  assert.equal(await rig.source.digest?.(b, "crc32-mavlink", never), undefined, "it has grown");
});

for (const autopilot of ["px4", "ardupilot-4.6"])
  test(`${autopilot}: a checksum over a file that grew meanwhile says nothing of its beginning`, async (t) => {
    const { dir } = makeLogs(t, { "a.bin": 50_000 });
    const trace = (line: string): void => {
      const [, way, opcode] = line.startsWith("[") ? (JSON.parse(line) as unknown[]) : [];
      // Both read on to the end that it has by then.
      if (way === ">" && opcode === Op.CalcFileCRC32) appendFileSync(join(dir, "a.bin"), "more");
    };
    const { source } = await makeRig(t, { dir, autopilot, trace });
    const [entry] = await listAll(source);
    assert.ok(entry);
    assert.equal(await source.digest?.(entry, "crc32-mavlink", never), undefined);
    assert.equal(statSync(join(dir, "a.bin")).size, 50_004);
  });

test("an autopilot that knows no checksums is not asked for them again, and what is read is proved otherwise", async (t) => {
  const { dir, content } = makeLogs(t, { "a.ulg": 2000 });
  const rig = await makeRig(t, { dir, faults: { nak: "7@crc" } });
  const [a] = await listAll(rig.source);
  assert.ok(a);
  assert.equal(await rig.source.digest?.(a, "crc32-mavlink", never), undefined);
  assert.deepEqual(rig.source.features.digests, []);
  assert.ok((await readAll(rig.source, a)).equals(content.get("a.ulg") as Buffer));
  assert.equal(rig.sim.stats.requests.CalcFileCRC32, 1);
});

test("the slow and sure way reads the same", async (t) => {
  const { dir, content } = makeLogs(t, { "a.ulg": 20_000 });
  const rig = await makeRig(t, { dir, link: "usb" });
  const [entry] = await listAll(rig.source);
  assert.ok(entry);
  const parts: Buffer[] = [];
  for await (const part of await rig.source.open(entry, 0, never, { safest: true })) parts.push(part as Buffer);
  assert.ok(Buffer.concat(parts).equals(content.get("a.ulg") as Buffer));
  assert.equal(rig.sim.stats.peakReads, 1);
});

for (const autopilot of ["px4", "ardupilot-4.6", "ardupilot-4.8", "mavsdk"])
  test(`${autopilot}: a checksum that takes its time is waited for, not asked for again`, async (t) => {
    const { dir, content } = makeLogs(t, { "a.ulg": 100_000 });
    const rig = await makeRig(t, { dir, autopilot, faults: { crc: "150kB" } });
    const [entry] = await listAll(rig.source);
    assert.ok(entry);
    const own = new Digester("crc32-mavlink");
    own.update(content.get("a.ulg") as Buffer);
    assert.equal(await rig.source.digest?.(entry, "crc32-mavlink", never), own.value());
    assert.equal(rig.sim.stats.requests.CalcFileCRC32, 1);
  });

test("where the checksum would cost too much, pieces of the file are read once more: other bytes are a mismatch", async (t) => {
  const { dir, content } = makeLogs(t, { "a.ulg": 600_000 });
  const rig = await makeRig(t, { dir, link: "usb" }, { crcMaxSize: "50kB" });
  const [entry] = await listAll(rig.source);
  assert.ok(entry);
  assert.ok((await readAll(rig.source, entry)).equals(content.get("a.ulg") as Buffer));
  // Where this machine stands still for a moment something is asked again; that pieces are read shows in what comes next.
  assert.ok((rig.sim.stats.requests.ReadFile ?? 0) >= Math.ceil(600_000 / 239) + 8);
  let had = 0;
  await assert.rejects(
    async () => {
      for await (const part of await rig.source.open(entry, 0, never)) {
        had += (part as Buffer).length;
        if (had > 200_000) writeFileSync(join(dir, "a.ulg"), Buffer.alloc(600_000, 7));
      }
    },
    (e) => isFault(e, "mismatch"),
  );
  await eventually(() => rig.sim.openSessions() === 0, "the session is ended");
});

test("an ArduPilot whose queue is full of our reads gets the end of the session behind them", async (t) => {
  const { dir } = makeLogs(t, { "a.bin": 2_000_000 });
  const rig = await makeRig(t, { dir, autopilot: "ardupilot-4.6", link: "usb", faults: { busy: "80ms@read:60" } });
  const [entry] = await listAll(rig.source);
  assert.ok(entry);
  const stream = await rig.source.open(entry, 0, never);
  stream.resume();
  // Where this machine stands still answers are late, which takes one from the window.
  await eventually(() => (rig.sim.stats.peakReads === 5 || rig.stood()) && (rig.sim.stats.requests.ReadFile ?? 0) >= 59, "they wait");
  stream.destroy();
  await eventually(() => rig.sim.openSessions() === 0, "the session is ended");
  if (!rig.stood()) assert.deepEqual([rig.sim.stats.droppedByQueue, rig.sim.stats.requests.TerminateSession], [0, 1]);
});

test("a sample of a file by bursts begins no burst", async (t) => {
  const { dir } = makeLogs(t, { "a.bin": 500_000 });
  const rig = await makeRig(t, { dir, autopilot: "ardupilot-4.6", link: "usb" }, {}, new BurstMemory());
  const [entry] = await listAll(rig.source);
  assert.ok(entry);
  for await (const part of await rig.source.open(entry, 100_000, never)) if ((part as Buffer).length >= 4096) break;
  await eventually(() => rig.sim.openSessions() === 0, "the session is ended");
  assert.equal(rig.sim.stats.requests.BurstReadFile, undefined);
});
