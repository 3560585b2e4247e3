/**
 * An autopilot that answers with nonsense in whole frames: fields of its packets are changed and the frame is signed anew, packets are repeated, kept
 * and told later, made up. Whatever comes, each operation ends, the memory stays, and bytes that come are the file's. What is never made up is a
 * read's own data: no client can tell that without the checksum of the whole.
 *
 * FILESYNC_FUZZ_MINUTES: how long; a few seconds without. FILESYNC_FUZZ_SEED: one seed again.
 */
import assert from "node:assert/strict";
import { randomBytes, randomInt } from "node:crypto";
import { once } from "node:events";
import { createServer, connect, type AddressInfo, type Socket } from "node:net";
import { test, type TestContext } from "node:test";
import { isFault } from "../../core/errors.js";
import { FrameParser, FrameWriter, type Frame } from "../../mavlink/frame.js";
import { FTP_DATA_AT, FTP_DATA_MAX, Op } from "../../mavlink/ftp.js";
import { FILE_TRANSFER_PROTOCOL } from "../../mavlink/messages.js";
import { seeded, type Random } from "../../sim/random.js";
import { listAll, makeDevice, makeLogs, makeSim, readAll } from "./harness.test.js";

const forMs = Number(process.env.FILESYNC_FUZZ_MINUTES ?? 0) * 60_000 || 8000;
const firstSeed = Number(process.env.FILESYNC_FUZZ_SEED ?? randomInt(1e9));
const flavours = ["px4", "ardupilot-4.6", "ardupilot-4.7", "ardupilot-4.8", "mavsdk"];
/** Of frames with file transfer in them. */
const share = 0.08;
/** What an operation may take: silence is given up after 10 s, a session of another's is waited for as long as autopilots keep one. */
const patienceMs = 90_000;

/** Between client and vehicle: what the vehicle says of files is told otherwise, as `lie` says. Its URL. */
async function liar(t: TestContext, to: string, lie: (payload: Buffer) => readonly Buffer[]): Promise<string> {
  const port = Number(to.slice(to.lastIndexOf(":") + 1));
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const vehicle = connect(port, "127.0.0.1");
    for (const socket of [client, vehicle]) {
      sockets.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => {
        sockets.delete(socket);
        client.destroy();
        vehicle.destroy();
      });
    }
    client.pipe(vehicle, { end: false });
    const tell = (frame: Frame, payload: Buffer): void => {
      const writer = new FrameWriter(frame.systemId, frame.componentId);
      if (client.writable) client.write(writer.encode(frame.messageId, payload, payload.length));
    };
    const parser = new FrameParser((frame) => {
      const payload = Buffer.from(frame.payload.subarray(0, 254));
      if (frame.messageId !== FILE_TRANSFER_PROTOCOL) {
        tell(frame, Buffer.from(frame.payload.subarray(0, 255)));
        return;
      }
      for (const other of lie(payload)) tell(frame, other);
    });
    vehicle.on("data", (bytes: Buffer) => parser.push(bytes));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return `tcpout://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Most is told as it is. */
function liesBy(random: Random): (payload: Buffer) => readonly Buffer[] {
  const kept: Buffer[] = [];
  return (payload) => {
    if (random() < share) return nonsense(payload, kept, random);
    if (random() < 0.02) kept.push(payload);
    return [payload];
  };
}

/** What is told in place of a packet. */
function nonsense(payload: Buffer, kept: readonly Buffer[], random: Random): Buffer[] {
  const draw = Math.floor(random() * 8);
  const byte = (): number => Math.floor(random() * 256);
  const isData = payload[6] === Op.Ack && (payload[8] === Op.ReadFile || payload[8] === Op.BurstReadFile);
  const made = Buffer.from(payload);
  switch (draw) {
    case 0:
      return [];
    case 1:
      return [payload, payload, payload];
    case 2:
      return [...kept.slice(-3), payload];
    case 3:
      // A number, session, flag, or whom it is for.
      made[[1, 2, 3, 4, 5, 9, 10][Math.floor(random() * 7)] ?? 3] = byte();
      return [made];
    case 4:
      // A refusal, of any code, for whatever was asked.
      made[6] = Op.Nak;
      made[7] = 1 + Math.floor(random() * 2);
      made[FTP_DATA_AT] = byte() % 14;
      made[FTP_DATA_AT + 1] = byte();
      return [made];
    case 5:
      // Less than was there: a read goes on behind it.
      made[7] = Math.floor(random() * Math.min(payload[7] ?? 0, FTP_DATA_MAX));
      return [made];
    case 6:
      if (isData) return [payload];
      // A listing, a size or a checksum of rubbish, longer than it can be.
      made[7] = byte();
      for (let n = 0; n < 20; n++) made[FTP_DATA_AT + Math.floor(random() * FTP_DATA_MAX)] = byte();
      return [made];
    default:
      if (isData) return [payload];
      for (let at = 3; at < 15; at++) if (random() < 0.5) made[at] = byte();
      // Not data of a file that is open.
      if (made[6] === Op.Ack && (made[8] === Op.ReadFile || made[8] === Op.BurstReadFile)) made[6] = Op.Nak;
      return [made, payload];
  }
}

/** Its value, or its Fault; anything else that is thrown, and no end at all, is a defect. */
async function ended<T>(what: string, work: (signal: AbortSignal) => Promise<T>): Promise<T | undefined> {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(new Error("no end")), patienceMs);
  try {
    return await work(stop.signal);
  } catch (error) {
    assert.ok(!stop.signal.aborted, `${what} has no end`);
    assert.ok(isFault(error), `${what} threw ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
    return undefined;
  } finally {
    clearTimeout(timer);
  }
}

async function life(t: TestContext, seed: number): Promise<number> {
  const random = seeded(seed);
  const autopilot = flavours[seed % flavours.length] ?? "px4";
  const { dir, content } = makeLogs(t, { "a.ulg": 30_000 + Math.floor(random() * 200_000), "sub/b.bin": 956, "c.ulg": 0 });
  const sim = await makeSim(t, { dir, autopilot, seed });
  const rig = makeDevice(t, { url: await liar(t, sim.clientUrl, liesBy(random)), root: "/" });
  const { device } = rig;
  await rig.attached();
  let operations = 0;
  for (const [path, bytes] of content) {
    const what = `seed ${seed}, ${autopilot}: `;
    await ended(`${what}listing`, () => listAll(device));
    await ended(`${what}stat ${path}`, (signal) => device.stat(path, signal));
    const entry = { path, kind: "file" as const, size: bytes.length };
    const offset = Math.floor(random() * bytes.length);
    const got = await ended(`${what}reading ${path}`, (signal) => readAll(device, entry, offset, signal));
    if (got !== undefined) assert.ok(got.equals(bytes.subarray(offset)), `${what}other bytes of ${path} from ${offset}`);
    await ended(`${what}digest of ${path}`, (signal) => device.digest(entry, "crc32-mavlink", signal));
    operations += 4;
  }
  await device.close();
  await sim.close();
  return operations;
}

test("nonsense in whole frames: every operation ends, with the file's bytes or a Fault", async (t) => {
  const until = performance.now() + forMs;
  let operations = 0;
  let seed = firstSeed;
  global.gc?.();
  const before = process.memoryUsage().rss;
  for (; operations === 0 || performance.now() < until; seed++) operations += await life(t, seed);
  t.diagnostic(`${operations} operations, seeds ${firstSeed} to ${seed - 1}`);
  assert.ok(process.memoryUsage().rss - before < 200e6, "the memory has grown");
});

test("a checksum that is acknowledged and not told is a Fault", async (t) => {
  const { dir } = makeLogs(t, { "a.ulg": 1000 });
  const sim = await makeSim(t, { dir });
  const mute = (payload: Buffer): Buffer[] => {
    if (payload[8] === Op.CalcFileCRC32) payload[7] = 0;
    return [payload];
  };
  const rig = makeDevice(t, { url: await liar(t, sim.clientUrl, mute), root: "/" });
  await rig.attached();
  const digest = rig.device.digest({ path: "a.ulg", kind: "file", size: 1000 }, "crc32-mavlink", new AbortController().signal);
  await assert.rejects(digest, (error: unknown) => isFault(error, "transient"));
});

test("4 MB of shell output, and of noise: nothing is taken for a frame of files, and none is kept", (t) => {
  const text = Buffer.from("root@skynode:~# dmesg | tail\r\n[ 1234.5678] usb 1-1: new full-speed USB device\r\n".repeat(50_000)).subarray(
    0,
    4e6,
  );
  let frames = 0;
  const parser = new FrameParser(() => (frames += 1));
  for (const bytes of [text, randomBytes(4e6)]) for (let at = 0; at < bytes.length; at += 1009) parser.push(bytes.subarray(at, at + 1009));
  t.diagnostic(`${frames} frames by chance, ${parser.badCrc} candidates`);
  assert.ok(frames <= 2);
});
