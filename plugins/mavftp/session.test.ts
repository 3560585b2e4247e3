/** The autopilot's one file session: never left open, given back when the vehicle arms, waited for when another has it, and found again after a loss. */
import assert from "node:assert/strict";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { test } from "node:test";
import type { TestContext } from "node:test";
import { isFault } from "../../core/errors.js";
import type { FileEntry, Source } from "../../core/plugin.js";
import { emptyPacket, decodeFtp, encodeFtp, FTP_PAYLOAD, Op } from "../../mavlink/ftp.js";
import { FrameParser, FrameWriter } from "../../mavlink/frame.js";
import { FILE_TRANSFER_PROTOCOL } from "../../mavlink/messages.js";
import { readTrace } from "../../mavlink/trace.js";
import { clock, eventually, listAll, makeDevice, makeLogs, makeRig, makeSim, never, readAll, type Rig } from "./harness.test.js";

async function only(rig: Rig): Promise<FileEntry> {
  const [entry] = await listAll(rig.source);
  assert.ok(entry);
  return entry;
}

/** Begins to read and resolves with the stream once bytes have come. */
async function begin(rig: Rig, entry: FileEntry, signal = never) {
  const stream = await rig.source.open(entry, 0, signal);
  const failed = new Promise<unknown>((resolve) => stream.once("error", resolve));
  await new Promise<void>((resolve) => stream.once("data", () => resolve()));
  return { stream, failed };
}

test("a session is ended after the last byte, after an error, for an empty file, and when the stream is dropped", async (t) => {
  const { dir } = makeLogs(t, { "a.ulg": 500_000, "empty.ulg": 0 });
  const rig = await makeRig(t, { dir, link: "usb" });
  const [a, empty] = await listAll(rig.source);
  assert.ok(a && empty);
  assert.equal((await readAll(rig.source, empty)).length, 0);
  assert.equal(rig.sim.openSessions(), 0);
  await readAll(rig.source, { ...a, size: 1000 });
  assert.equal(rig.sim.openSessions(), 0);
  const { stream } = await begin(rig, a);
  assert.equal(rig.sim.openSessions(), 1);
  stream.destroy();
  await eventually(() => rig.sim.openSessions() === 0, "the session is ended", 1000);
  assert.deepEqual([rig.sim.stats.sessionsOpened, rig.sim.stats.sessionsTimedOut], [3, 0]);
  assert.equal(rig.sim.stats.requests.ResetSessions, undefined);
});

test("our own signal ends the stream and the session within a second", async (t) => {
  const { dir } = makeLogs(t, { "a.ulg": 2_000_000 });
  const rig = await makeRig(t, { dir, link: "usb" });
  const entry = await only(rig);
  const stop = new AbortController();
  const { failed } = await begin(rig, entry, stop.signal);
  stop.abort();
  assert.ok(isFault(await failed, "aborted"));
  await eventually(() => rig.sim.openSessions() === 0, "the session is ended", 1000);
  const reads = rig.sim.stats.requests.ReadFile;
  await rig.source.stat("a.ulg", never);
  assert.equal(rig.sim.stats.requests.ReadFile, reads, "no read follows");
});

test("a session whose opening was interrupted is ended all the same", async (t) => {
  const { dir } = makeLogs(t, { "a.ulg": 1000 });
  let stop = new AbortController();
  // The file is open at the autopilot, and its answer on the way.
  const opened = () => {
    stop.abort();
    return () => undefined;
  };
  const rig = await makeRig(t, { dir, opened });
  const entry = await only(rig);
  for (let i = 1; i <= 5; i++) {
    stop = new AbortController();
    await assert.rejects(rig.source.open(entry, 0, stop.signal), (e) => isFault(e, "aborted"));
    await eventually(() => rig.sim.openSessions() === 0 && rig.sim.stats.sessionsOpened === i, "it is ended", 2500);
  }
  assert.equal(rig.sim.stats.sessionsTimedOut, 0);
});

test("closing the device ends the session first", async (t) => {
  const { dir } = makeLogs(t, { "a.ulg": 2_000_000 });
  const rig = await makeRig(t, { dir, link: "usb" });
  const { failed } = await begin(rig, await only(rig));
  await rig.device.close();
  assert.equal(rig.sim.openSessions(), 0);
  assert.ok(isFault(await failed, "aborted"));
});

test("arming pauses within a second and gives the session back; after a disarm reading goes on", async (t) => {
  const { dir, content } = makeLogs(t, { "a.ulg": 1_500_000 });
  const rig = await makeRig(t, { dir, link: "usb" });
  const entry = await only(rig);
  const { failed } = await begin(rig, entry);
  const from = rig.states.length;
  rig.sim.setArmed(true);
  assert.equal((await rig.until((p) => p.state === "detached", 1000, from)).reason, "the vehicle is armed");
  const fault = await failed;
  assert.ok(isFault(fault, "offline") && fault.message === "the vehicle is armed");
  await eventually(() => rig.sim.openSessions() === 0, "the session is ended", 1000);
  await assert.rejects(listAll(rig.source), (e) => isFault(e, "offline"));
  rig.sim.setArmed(false);
  const settling = await rig.until((p) => p.reason?.includes("just been disarmed") === true, 1000, from);
  assert.equal(settling.state, "detached");
  await rig.until((p) => p.state === "attached", 5000, from);
  assert.ok((await readAll(rig.source, entry, 4321)).equals((content.get("a.ulg") as Buffer).subarray(4321)));
});

test("a vehicle that is armed from the start is left alone, unless told to go on", async (t) => {
  const { dir, content } = makeLogs(t, { "a.ulg": 1000, "b.ulg": 2000 });
  const sim = await makeSim(t, { dir, armed: true });
  const paused = makeDevice(t, { url: sim.clientUrl, root: "/" });
  await paused.until((p) => p.reason === "the vehicle is armed");
  assert.equal(sim.stats.requests.ListDirectory, undefined);
  const going = makeDevice(t, { url: sim.clientUrl, root: "/", whenArmed: "continue" });
  await going.attached();
  const entries = await listAll(going.source);
  assert.deepEqual(
    entries.map((e) => e.settled),
    [undefined, false],
  );
  assert.ok((await readAll(going.source, entries[1] as FileEntry)).equals(content.get("b.ulg") as Buffer));
  assert.equal(await going.source.digest?.(entries[0] as FileEntry, "crc32-mavlink", never), undefined);
});

test("a disarm is a hint to list where arming does not pause", async (t) => {
  const { dir } = makeLogs(t, { "a.ulg": 10 });
  const rig = await makeRig(t, { dir }, { whenArmed: "continue" });
  let hints = 0;
  const hinted = new Promise<void>((resolve) =>
    rig.source.changes$?.subscribe(() => {
      hints += 1;
      resolve();
    }),
  );
  rig.sim.setArmed(true);
  rig.sim.setArmed(false);
  await hinted;
  assert.equal(hints, 1);
  assert.equal(rig.states.filter((p) => p.state === "attached").length, 1);
});

test("a reboot while reading is offline; then a new epoch, and the rest of the file", async (t) => {
  const { dir, content } = makeLogs(t, { "a.ulg": 1_000_000 });
  const rig = await makeRig(t, { dir, link: "usb" });
  const epoch = rig.states.at(-1)?.epoch;
  const entry = await only(rig);
  const parts: Buffer[] = [];
  const stream = await rig.source.open(entry, 0, never);
  const failed = new Promise<unknown>((resolve) => stream.once("error", resolve));
  await new Promise<void>((resolve) =>
    stream.on("data", (part: Buffer) => {
      parts.push(part);
      resolve();
    }),
  );
  const from = rig.states.length;
  rig.sim.reboot(4500);
  const fault = await Promise.race([failed, new Promise((resolve) => setTimeout(resolve, 5000, "late"))]);
  assert.ok(isFault(fault, "offline"), String(fault));
  await rig.until((p) => p.state === "detached", 5000, from);
  const again = await rig.until((p) => p.state === "attached", 6000, from);
  assert.notEqual(again.epoch, epoch);
  const had = Buffer.concat(parts);
  assert.ok(had.length > 0 && had.equals((content.get("a.ulg") as Buffer).subarray(0, had.length)));
  assert.ok((await readAll(rig.source, entry, had.length)).equals((content.get("a.ulg") as Buffer).subarray(had.length)));
});

test("a reboot too short to miss a heartbeat is a new epoch all the same", async (t) => {
  const { dir } = makeLogs(t, { "a.ulg": 10 });
  const rig = await makeRig(t, { dir });
  const epoch = rig.states.at(-1)?.epoch;
  // Time must have gone on far enough to be seen going back.
  await new Promise((resolve) => setTimeout(resolve, 4200));
  const from = rig.states.length;
  rig.sim.reboot(100);
  const again = await rig.until((p) => p.state === "attached", 4000, from);
  assert.notEqual(again.epoch, epoch);
});

test("a vehicle that reboots after so many bytes, and again loses frames, is read whole", async (t) => {
  const { dir, content } = makeLogs(t, { "a.ulg": 400_000 });
  const rig = await makeRig(t, { dir, faults: { reboot: "100kB", loss: "2%" }, seed: 11 });
  const entry = await only(rig);
  const parts: Buffer[] = [];
  let have = 0;
  for (let tries = 0; have < entry.size && tries < 20; tries++) {
    await rig.until((p, i) => p.state === "attached" && i === rig.states.length - 1);
    try {
      for await (const part of await rig.source.open(entry, have, never)) {
        parts.push(part as Buffer);
        have += (part as Buffer).length;
      }
    } catch (error) {
      assert.ok(isFault(error, "offline", "transient"), String(error));
    }
  }
  assert.ok(Buffer.concat(parts).equals(content.get("a.ulg") as Buffer));
});

// Put back after more than the second for which our session's end is tried, too.
for (const forMs of [300, 2500])
  test(`a cable that is pulled for ${forMs} ms is noticed at once, and reading goes on when it is back`, async (t) => {
    const { dir, content } = makeLogs(t, { "a.ulg": 1_000_000 });
    const rig = await makeRig(t, { dir, link: "usb" });
    const entry = await only(rig);
    const { failed } = await begin(rig, entry);
    const from = rig.states.length;
    const back = rig.sim.dropLink(forMs);
    const fault = await failed;
    assert.ok(isFault(fault, "offline"));
    // By the wire itself, not by silence, which takes seconds to tell.
    assert.match(fault.message, /^the connection to .* ended/);
    await back;
    await rig.until((p) => p.state === "attached", 6000, from);
    // The autopilot still has our session open, for ten seconds: we end it before we open another.
    assert.ok((await readAll(rig.source, entry, 77)).equals((content.get("a.ulg") as Buffer).subarray(77)));
    assert.equal(rig.sim.stats.sessionsTimedOut, 0);
  });

test("a session that was left more than half a minute ago is not ended: what is open by then is somebody else's", async (t) => {
  const { dir } = makeLogs(t, { "a.ulg": 1_000_000 });
  const rig = await makeRig(t, { dir, link: "usb" });
  const entry = await only(rig);
  const { failed } = await begin(rig, entry);
  const from = rig.states.length;
  const back = rig.sim.dropLink(2500);
  assert.ok(isFault(await failed, "offline"));
  await back;
  rig.sim.reboot(100);
  rig.skip(31_000);
  await rig.until((p, i) => p.state === "attached" && i >= from, 6000, from);
  await readAll(rig.source, entry, 999_000);
  assert.equal(rig.sim.stats.requests.TerminateSession, 1, "that of the second opening");
});

test("a MAVSDK server gives its session to who opens last: we stop at once, and take none of its bytes", async (t) => {
  const { dir, content } = makeLogs(t, { "a.ulg": 3_000_000, "b.ulg": 3_000_000 });
  const rig = await makeRig(t, { dir, autopilot: "mavsdk", link: "usb" });
  const parts: Buffer[] = [];
  const stream = await rig.source.open(await only(rig), 0, never);
  const failed = new Promise<unknown>((resolve) => stream.once("error", resolve));
  stream.on("data", (part: Buffer) => parts.push(part));
  await eventually(() => parts.length > 3, "bytes come");
  const other = await intruder(t, Number(rig.sim.url.split(":").at(-1)));
  // Without a heartbeat before it: the opening itself is what tells.
  assert.equal(await other.ask(Op.OpenFileRO, "/b.ulg"), Op.Ack);
  const fault = await failed;
  assert.ok(isFault(fault), String(fault));
  await rig.device.close();
  assert.equal(rig.sim.openSessions(), 1, "theirs is left alone");
  assert.equal(rig.sim.stats.requests.TerminateSession, undefined);
  const had = Buffer.concat(parts);
  assert.ok(had.equals((content.get("a.ulg") as Buffer).subarray(0, had.length)));
});

test("a file that ends early because its session reads another's is opened anew, and is whole; one that does so again has changed", async (t) => {
  const { dir, content } = makeLogs(t, { "a.ulg": 50_000 });
  // With reads one after another: three refusals of one byte.
  const early = (from: number) => [0, 1, 2].map((n) => `6@read:${from + n}`).join(",");
  const rig = await makeRig(t, { dir, autopilot: "mavsdk", link: "usb", faults: { nak: early(50) } });
  const entry = await only(rig);
  const read = async (source: Source, file: FileEntry) => {
    const parts: Buffer[] = [];
    for await (const part of await source.open(file, 0, never, { safest: true })) parts.push(part as Buffer);
    return Buffer.concat(parts);
  };
  assert.ok((await read(rig.source, entry)).equals(content.get("a.ulg") as Buffer));
  assert.equal(rig.sim.stats.requests.OpenFileRO, 2);
  const always = Array.from({ length: 16 }, (_, n) => `6@read:${50 + n}`).join(",");
  const again = await makeRig(t, { dir, autopilot: "mavsdk", link: "usb", faults: { nak: always } });
  await assert.rejects(read(again.source, await only(again)), (e) => isFault(e, "changed"));
});

test("a refusal that names the errno of a missing file is one", async (t) => {
  const { dir } = makeLogs(t, { "a.ulg": 1000 });
  const rig = await makeRig(t, { dir, faults: { nak: "2.2@open:1,2.5@open:2" } });
  const entry = await only(rig);
  await assert.rejects(rig.source.open(entry, 0, never), (e) => isFault(e, "missing"));
  await assert.rejects(rig.source.open(entry, 0, never), (e) => isFault(e, "transient") && e.message.includes("FailErrno 5"));
});

/** Another program on the same link: it opens a file and keeps it. */
async function intruder(
  t: TestContext,
  port: number,
): Promise<{
  ask(opcode: number, data?: string, session?: number): Promise<number>;
  tell(...requests: [opcode: number, data: string][]): void;
}> {
  const socket: Socket = connect(port, "127.0.0.1");
  t.after(() => socket.destroy());
  const writer = new FrameWriter(255, 190);
  const out = Buffer.alloc(FTP_PAYLOAD);
  const packet = emptyPacket();
  let seq = 20_000;
  let answer: (code: number) => void = () => undefined;
  const parser = new FrameParser((frame) => {
    if (frame.messageId !== FILE_TRANSFER_PROTOCOL) return;
    decodeFtp(frame.payload, packet);
    if (packet.targetSystem === 255 && packet.seq === seq + 1) answer(packet.opcode);
  });
  socket.on("data", (chunk) => parser.push(chunk));
  await new Promise<void>((resolve) => socket.once("connect", () => resolve()));
  function request(opcode: number, data: string, session = 0): Buffer {
    seq += 10;
    const length = encodeFtp({ targetSystem: 1, targetComponent: 1, seq, session, opcode, data: Buffer.from(data) }, out);
    return writer.encode(FILE_TRANSFER_PROTOCOL, out, length);
  }
  return {
    ask: (opcode, data = "", session = 0) =>
      new Promise((resolve) => {
        const frame = request(opcode, data, session);
        // An ArduPilot drops what its queue has no room for, so it is sent until it is answered.
        const again = setInterval(() => socket.write(frame), 300);
        answer = (code) => {
          clearInterval(again);
          resolve(code);
        };
        socket.write(frame);
      }),
    tell: (...requests) => void socket.write(Buffer.concat(requests.map(([opcode, data]) => request(opcode, data)))),
  };
}

/** The other program was seen: it is left alone, and some time goes by. */
async function comeBack(rig: Rig): Promise<void> {
  const from = rig.states.length - 1;
  await rig.until((p) => p.reason === "another program moves files of the autopilot: it is left alone for 20 s", 4000, from);
  rig.skip(20_000);
  await rig.until((p, i) => p.state === "attached" && i > from, 4000, from);
}

test("a session that another program left open is waited for in silence, not reset", async (t) => {
  const { dir, content } = makeLogs(t, { "a.ulg": 5000 });
  const rig = await makeRig(t, { dir });
  const entry = await only(rig);
  const other = await intruder(t, Number(rig.sim.url.split(":").at(-1)));
  assert.equal(await other.ask(Op.OpenFileRO, "/a.ulg"), Op.Ack);
  await comeBack(rig);
  assert.ok((await readAll(rig.source, entry)).equals(content.get("a.ulg") as Buffer));
  assert.equal(rig.sim.stats.sessionsTimedOut, 1);
  assert.equal(rig.sim.stats.requests.ResetSessions, undefined);
  assert.equal(rig.sim.stats.requests.TerminateSession, 1, "only our own was ended");
});

test("an ArduPilot 4.6 whose session somebody left refuses listings too, and keeps it while it is asked: it is left in silence until it closes it", async (t) => {
  const { dir } = makeLogs(t, { "a.bin": 5000 });
  const rig = await makeRig(t, { dir, autopilot: "ardupilot-4.6" });
  await only(rig);
  const other = await intruder(t, Number(rig.sim.url.split(":").at(-1)));
  assert.equal(await other.ask(Op.OpenFileRO, "/a.bin", 255), Op.Ack);
  await comeBack(rig);
  const before = rig.sim.stats.requests.ListDirectory ?? 0;
  const [listed, entry] = await Promise.all([listAll(rig.source), rig.source.stat("a.bin", never)]);
  assert.deepEqual([listed.length, entry?.size], [1, 5000]);
  assert.ok((rig.sim.stats.requests.ListDirectory ?? 0) - before <= 6, "it is not asked again and again");
});

test("a session that was lost is followed by one of another id: what still comes in the old one is not taken", async (t) => {
  const { dir, content } = makeLogs(t, { "a.bin": 60_000 });
  const lines: string[] = [];
  const faults = { nak: "4@read:50", late: "5%" };
  const rig = await makeRig(t, { dir, autopilot: "ardupilot-4.6", faults, trace: (line) => lines.push(line) });
  assert.ok((await readAll(rig.source, await only(rig))).equals(content.get("a.bin") as Buffer));
  const opened = readTrace(lines.join("\n")).rows.flatMap((row) =>
    row.kind === "reply" && row.reqOpcode === Op.OpenFileRO && row.opcode === Op.Ack ? [row.session] : [],
  );
  assert.equal(opened.length, 2);
  assert.notEqual(opened[0], opened[1]);
});

for (const [autopilot, waits, faults] of [
  ["px4", [10_500], {}],
  // Its refusal has the name of an error of before.
  ["px4", [10_500], { "stale-errno": "100%" }],
  ["px4-1.18", [30_500], {}],
  ["ardupilot-4.6", [3300, 3300], {}],
] as const)
  test(`${[autopilot, ...Object.keys(faults)].join(" with ")}: a session of another program is waited for as long as this autopilot keeps it`, async (t) => {
    const { dir } = makeLogs(t, { "a.ulg": 5000 });
    const sim = await makeSim(t, { dir, autopilot, faults });
    const slept: number[] = [];
    let aheadMs = 0;
    const time = { ...clock, monotonicMs: () => performance.now() + aheadMs, sleep: (ms: number) => Promise.resolve(void slept.push(ms)) };
    const rig = makeDevice(t, { url: sim.clientUrl, root: "/" }, undefined, { clock: time });
    await rig.attached();
    // How long it is kept depends on the version.
    await eventually(() => rig.said.some((text) => text.includes("firmware")), "its version is known");
    const other = await intruder(t, Number(sim.url.split(":").at(-1)));
    assert.equal(await other.ask(Op.OpenFileRO, "/a.ulg"), Op.Ack);
    const from = rig.states.length - 1;
    await rig.until((p) => p.reason?.startsWith("another program moves files") === true, 4000, from);
    aheadMs = 20_000;
    await rig.until((p, i) => p.state === "attached" && i > from, 4000, from);
    await assert.rejects(rig.source.open({ path: "a.ulg", kind: "file", size: 5000 }, 0, never));
    assert.deepEqual(slept, waits);
    assert.equal(sim.stats.requests.OpenFileRO, 2 + waits.length, "theirs, and ours before each wait and after the last");
  });

test("waiting for another program's session ends at our signal", async (t) => {
  const { dir } = makeLogs(t, { "a.ulg": 5000 });
  const rig = await makeRig(t, { dir });
  const entry = await only(rig);
  const other = await intruder(t, Number(rig.sim.url.split(":").at(-1)));
  await other.ask(Op.OpenFileRO, "/a.ulg");
  await comeBack(rig);
  const stop = new AbortController();
  const asked = rig.sim.stats.requests.OpenFileRO ?? 0;
  const opening = rig.source.open(entry, 0, stop.signal);
  await eventually(() => (rig.sim.stats.requests.OpenFileRO ?? 0) > asked, "it is asked for");
  const listing = listAll(rig.source);
  stop.abort();
  await assert.rejects(opening, (e) => isFault(e, "aborted"));
  assert.equal((await listing).length, 1, "a listing that waited behind it goes on");
  assert.equal(rig.sim.openSessions(), 1, "theirs is left alone");
});

test("on a link of our own it is reset at once", async (t) => {
  const { dir, content } = makeLogs(t, { "a.ulg": 5000 });
  const rig = await makeRig(t, { dir }, { exclusive: true });
  const entry = await only(rig);
  const other = await intruder(t, Number(rig.sim.url.split(":").at(-1)));
  await other.ask(Op.OpenFileRO, "/a.ulg");
  assert.ok((await readAll(rig.source, entry)).equals(content.get("a.ulg") as Buffer));
  assert.equal(rig.sim.stats.requests.ResetSessions, 1);
});

/** A router: what is addressed to others than us does not come through. Where it is called. */
async function router(t: TestContext, port: number): Promise<string> {
  const server = createServer((client) => {
    const vehicle = connect(port, "127.0.0.1");
    const ends = [client, vehicle];
    for (const end of ends) end.on("error", () => undefined).on("close", () => ends.forEach((each) => each.destroy()));
    client.pipe(vehicle);
    const writer = new FrameWriter(1, 1);
    const parser = new FrameParser(({ messageId, payload }) => {
      if (messageId !== FILE_TRANSFER_PROTOCOL || payload[1] === 1) client.write(writer.encode(messageId, payload));
    });
    vehicle.on("data", (chunk) => parser.push(chunk));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  return `tcpout://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

test("a PX4 behind a router: bytes of a program that had our session unseen for a while are noticed once it is lost", async (t) => {
  const { dir, content } = makeLogs(t, { "a.ulg": 300_000, "b.ulg": 300_000 });
  const sim = await makeSim(t, { dir, link: "usb" });
  const port = Number(sim.url.split(":").at(-1));
  const url = await router(t, port);
  // As of a log that is too long for a checksum.
  const rig = makeDevice(t, { url, root: "/", crcMaxSize: "1kB" }, undefined, { maxRate: 60_000 });
  await rig.attached();
  const [entry] = await listAll(rig.source);
  assert.ok(entry);
  const other = await intruder(t, port);
  const parts: Buffer[] = [];
  // The samples are of its first blocks.
  t.mock.method(Math, "random", () => 0.999_999);
  const stream = await rig.source.open(entry, 0, never);
  const over = new Promise<unknown>((resolve) => stream.once("error", resolve).once("end", () => resolve("whole")));
  stream.on("data", (part: Buffer) => parts.push(part));
  await eventually(() => Buffer.concat(parts).length > 200_000, "bytes come");
  other.tell([Op.ResetSessions, ""], [Op.OpenFileRO, "/b.ulg"]);
  await new Promise((resolve) => setTimeout(resolve, 300));
  other.tell([Op.TerminateSession, ""]);
  const fault = await over;
  const had = Buffer.concat(parts);
  // Where one of our reads came in between, the session was lost at once.
  if (fault === "whole") assert.ok(had.equals(content.get("a.ulg") as Buffer), "of another file");
  else assert.ok(isFault(fault, "mismatch"), String(fault));
});

test("a program that takes our session gets it; we never take its bytes for ours", async (t) => {
  const { dir, content } = makeLogs(t, { "a.ulg": 3_000_000, "b.ulg": 3_000_000 });
  const rig = await makeRig(t, { dir, link: "usb" });
  const entry = await only(rig);
  const other = await intruder(t, Number(rig.sim.url.split(":").at(-1)));
  const parts: Buffer[] = [];
  const stream = await rig.source.open(entry, 0, never);
  const failed = new Promise<unknown>((resolve) => stream.once("error", resolve));
  stream.on("data", (part: Buffer) => parts.push(part));
  await eventually(() => parts.length > 3, "bytes come");
  other.tell([Op.ResetSessions, ""], [Op.OpenFileRO, "/b.ulg"]);
  const fault = await failed;
  assert.ok(isFault(fault, "offline"), String(fault));
  await rig.source.stat("a.ulg", never).catch(() => undefined);
  await rig.device.close();
  assert.equal(rig.sim.openSessions(), 1, "theirs is left alone");
  assert.equal(rig.sim.stats.requests.TerminateSession, undefined);
  const had = Buffer.concat(parts);
  assert.ok(had.equals((content.get("a.ulg") as Buffer).subarray(0, had.length)));
});

for (const [autopilot, ends] of [
  ["px4", undefined],
  ["ardupilot-4.7", 1],
] as const)
  test(`${autopilot}: when another program resets all sessions, ours is ${ends === undefined ? "gone, and not ended: it may be theirs by then" : "still ours to end"}`, async (t) => {
    const { dir } = makeLogs(t, { "a.ulg": 3_000_000 });
    const rig = await makeRig(t, { dir, autopilot, link: "usb" });
    const { failed } = await begin(rig, await only(rig));
    const other = await intruder(t, Number(rig.sim.url.split(":").at(-1)));
    assert.equal(await other.ask(Op.ResetSessions, "", 255), Op.Ack);
    assert.ok(isFault(await failed, "offline"));
    await rig.device.close();
    assert.equal(rig.sim.stats.requests.TerminateSession, ends);
    assert.equal(rig.sim.openSessions(), 0);
  });
