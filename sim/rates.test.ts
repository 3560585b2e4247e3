/**
 * What each flavour gives over each link at most, by reads and by bursts, in time that is moved by hand: the ceilings that clients are measured
 * against, in kB of file a second. 239 of each 266 bytes on the wire are the file's.
 */
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { decodeFtp, emptyPacket, encodeFtp, FTP_DATA_MAX, FTP_PAYLOAD, Op } from "../mavlink/ftp.js";
import { autopilotNamed } from "./autopilots.js";
import { HandClock } from "./clock.js";
import { Disk } from "./disk.js";
import { makeDir } from "./harness.test.js";
import { seeded } from "./random.js";
import { emptyStats } from "./stats.js";
import { linkModel, waysOf } from "./wire.js";

interface Frame {
  readonly length: number;
  readonly payload: Buffer;
}

const SECONDS = 20;
const client = { system: 1, component: 191, channel: 0 };

/** kB a second of a window of reads, or of bursts that follow each other. */
function rate(t: TestContext, flavour: string, link: string, how: number | "burst", ring?: number): number {
  const autopilot = autopilotNamed(flavour);
  const model = linkModel(link);
  const clock = new HandClock();
  clock.advance(60_000);
  const disk = new Disk(makeDir(t));
  const size = 200_000_000;
  disk.grow("/a.ulg", size, 0);
  const packet = emptyPacket();
  let [session, seq, asked, got] = [0, 100, 0, 0];
  const ways = waysOf<Frame, Frame>(model, clock, ring ?? autopilot.transmitRing, come, (frame) =>
    server.request(decodeFtp(frame.payload, emptyPacket()), { ...client, wireBytes: frame.length }),
  );
  const server = autopilot.ftp({
    ...{ disk, link: model, clock, random: seeded(1), stats: emptyStats(), crcBytesPerSecond: Infinity, readMost: FTP_DATA_MAX },
    freeRing: () => ways.out.free(),
    radioFree: () => 100,
    send(payload, length) {
      const copy = Buffer.alloc(FTP_PAYLOAD);
      payload.copy(copy, 0, 0, length);
      ways.out.put({ length: 12 + length, payload: copy });
    },
  });
  t.after(() => server.stop());

  function ask(opcode: number, offset: number, data = Buffer.alloc(0)): void {
    const payload = Buffer.alloc(FTP_PAYLOAD);
    seq += 1;
    encodeFtp({ targetSystem: 1, targetComponent: 1, seq, opcode, session, offset, size: data.length || FTP_DATA_MAX, data }, payload);
    ways.in.put({ length: 27, payload });
  }

  let lastMs = 0;
  function come(frame: Frame): void {
    decodeFtp(frame.payload, packet);
    if (packet.reqOpcode === Op.OpenFileRO) {
      session = packet.session;
      if (how === "burst") ask(Op.BurstReadFile, 0);
      else for (; asked < how; asked++) ask(Op.ReadFile, asked * FTP_DATA_MAX);
      return;
    }
    if (packet.opcode !== Op.Ack) return;
    got += packet.size;
    lastMs = clock.now();
    // PX4 sets the byte to anything in the middle: 1 counts only once enough has come.
    if (how === "burst" && packet.burstComplete === 1 && got - asked > 30_000) {
      asked = got;
      ask(Op.BurstReadFile, packet.offset + packet.size);
    } else if (how !== "burst") ask(Op.ReadFile, asked++ * FTP_DATA_MAX);
  }

  session = 9;
  ask(Op.OpenFileRO, 0, Buffer.from("/a.ulg"));
  const begunMs = clock.now();
  clock.advance(SECONDS * 1000);
  return got / Math.max(1, lastMs - begunMs);
}

const cells: readonly (readonly [flavour: string, link: string, how: number | "burst", ceiling: number, ring?: number])[] = [
  ["px4", "usb", 8, 629],
  ["px4", "usb", "burst", 629],
  ["px4", "usb", 4, 629, 2000],
  ["px4", "usb", "burst", 167, 2000],
  ["px4", "uart:921600", 8, 82.8],
  ["px4", "uart:921600", "burst", 82.8],
  ["px4", "uart:57600", 4, 5.18],
  ["px4", "radio:57600", "burst", 5.1],
  ["px4", "udp", "burst", 119],
  ["ardupilot-4.6", "usb", "burst", 79.7],
  ["ardupilot-4.6", "uart:921600", "burst", 29.9],
  ["ardupilot-4.6", "uart:921600", 5, 82.8],
  ["ardupilot-4.6", "uart:57600", "burst", 1.73],
  ["ardupilot-4.6", "uart:57600", 5, 5.18],
  ["ardupilot-4.6", "radio:57600", "burst", 1.73],
  ["ardupilot-4.6", "radio:57600", 5, 4.7],
  ["ardupilot-4.6", "usb", 5, 408],
  ["ardupilot-4.7", "usb", "burst", 629],
  ["ardupilot-4.7", "uart:921600", "burst", 29.9],
  ["ardupilot-4.8", "usb", "burst", 629],
  ["ardupilot-4.8", "usb", 5, 408],
  ["ardupilot-4.8", "udp", "burst", 3246],
  ["mavsdk", "usb", "burst", 629],
  ["mavsdk", "usb", 4, 629],
];

for (const [flavour, link, how, ceiling, ring] of cells)
  test(`${flavour} over ${link}${ring === undefined ? "" : ` with a ring of ${ring}`}: ${how === "burst" ? "bursts" : `${how} reads`} give ${ceiling} kB/s`, (t) => {
    const measured = rate(t, flavour, link, how, ring);
    t.diagnostic(`${measured.toFixed(2)} kB/s`);
    assert.ok(Math.abs(measured / ceiling - 1) < 0.07, `${measured.toFixed(2)} kB/s`);
  });
