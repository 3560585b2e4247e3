/** The framing held against node-mavlink both ways, and against junk, cuts and damage drawn from a printed seed. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Readable } from "node:stream";
import * as oracle from "node-mavlink";
import { FrameParser, FrameWriter, type Frame } from "./frame.js";
import * as m from "./messages.js";

const REGISTRY: oracle.MavLinkPacketRegistry = { ...oracle.minimal.REGISTRY, ...oracle.common.REGISTRY, ...oracle.standard.REGISTRY };
const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));

interface Kept {
  version: number;
  seq: number;
  systemId: number;
  componentId: number;
  messageId: number;
  payload: Buffer;
}

function parseAll(...chunks: Buffer[]): Kept[] {
  const kept: Kept[] = [];
  const parser = new FrameParser((frame: Frame) => {
    const { version, seq, systemId, componentId, messageId } = frame;
    const full = m.layoutOf(messageId)?.full ?? 0;
    kept.push({ version, seq, systemId, componentId, messageId, payload: Buffer.from(frame.payload.subarray(0, full)) });
  });
  for (const chunk of chunks) parser.push(chunk);
  return kept;
}

function random(start: number): () => number {
  let state = start >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

async function oracleParses(bytes: Buffer): Promise<oracle.MavLinkData[]> {
  const packets = Readable.from([bytes]).pipe(new oracle.MavLinkPacketSplitter()).pipe(new oracle.MavLinkPacketParser());
  const found: oracle.MavLinkData[] = [];
  for await (const packet of packets as AsyncIterable<oracle.MavLinkPacket>) {
    const type = REGISTRY[packet.header.msgid];
    assert.ok(type);
    found.push(packet.protocol.data(packet.payload, type));
  }
  return found;
}

function fields(message: oracle.MavLinkData): Record<string, unknown> {
  return message as unknown as Record<string, unknown>;
}

test("frames that we make are read by node-mavlink with equal fields", async () => {
  const writer = new FrameWriter(7, 191);
  const bytes = Buffer.concat([
    writer.encode(m.HEARTBEAT, m.encodeHeartbeat({ customMode: 0x01020304, type: 18, autopilot: 8, baseMode: 0x81, systemStatus: 4 })),
    writer.encode(m.SYS_STATUS, m.encodeSysStatus({ present: m.SENSOR_LOGGING, enabled: 5, health: 6, load: 300, voltageMv: 16000 })),
    writer.encode(m.SYSTEM_TIME, m.encodeSystemTime({ unixUsec: 1_700_000_000_000_000n, bootMs: 123456 })),
    writer.encode(m.PING, m.encodePing({ timeUsec: 77n, seq: 9, targetSystem: 1, targetComponent: 0 })),
    writer.encode(m.ATTITUDE, m.encodeAttitude({ bootMs: 5, roll: 0.5, pitch: -0.25, yaw: 3 })),
    writer.encode(
      m.COMMAND_LONG,
      m.encodeCommandLong({ command: 512, targetSystem: 1, targetComponent: 1, confirmation: 2, params: [148, 0, 0, 0, 0, 0, 1.5] }),
    ),
    writer.encode(m.COMMAND_ACK, m.encodeCommandAck({ command: 512, result: 3, targetSystem: 7, targetComponent: 191 })),
    writer.encode(m.RADIO_STATUS, m.encodeRadioStatus({ rssi: 200, remoteRssi: 190, txbuf: 55, rxErrors: 3, fixed: 2 })),
    writer.encode(
      m.AUTOPILOT_VERSION,
      m.encodeAutopilotVersion({
        capabilities: 0x1_0000_0020n,
        uid: 5n,
        flightSwVersion: 0x010f04ff,
        boardVersion: 1,
        vendorId: 2,
        productId: 3,
        uid2: "0102030405060708090a0b0c0d0e0f101112",
      }),
    ),
    writer.encode(m.STATUSTEXT, m.encodeStatusText({ severity: 6, text: "not a real vehicle" })),
    ...m.textMessages(4, "x".repeat(100), 65_535).map((message) => writer.encode(m.STATUSTEXT, m.encodeStatusText(message))),
  ]);
  const [heartbeat, status, time, ping, attitude, command, ack, radio, version, text, ...chunks] = (await oracleParses(bytes)).map(fields);
  assert.deepEqual(
    [heartbeat?.customMode, heartbeat?.type, heartbeat?.autopilot, heartbeat?.baseMode, heartbeat?.systemStatus, heartbeat?.mavlinkVersion],
    [0x01020304, 18, 8, 0x81, 4, 3],
  );
  assert.deepEqual([status?.onboardControlSensorsPresent, status?.load, status?.voltageBattery], [m.SENSOR_LOGGING, 300, 16000]);
  assert.deepEqual([time?.timeUnixUsec, time?.timeBootMs], [1_700_000_000_000_000n, 123456]);
  assert.deepEqual([ping?.timeUsec, ping?.seq, ping?.targetSystem], [77n, 9, 1]);
  assert.deepEqual([attitude?.timeBootMs, attitude?.roll, attitude?.pitch, attitude?.yaw], [5, 0.5, -0.25, 3]);
  assert.deepEqual([command?._param1, command?._param7, command?.command, command?.confirmation], [148, 1.5, 512, 2]);
  assert.deepEqual([ack?.command, ack?.result, ack?.targetSystem, ack?.targetComponent], [512, 3, 7, 191]);
  assert.deepEqual([radio?.rssi, radio?.remrssi, radio?.txbuf, radio?.rxerrors], [200, 190, 55, 3]);
  assert.deepEqual(
    [version?.capabilities, version?.flightSwVersion, version?.vendorId, version?.productId, version?.uid2],
    [0x1_0000_0020n, 0x010f04ff, 2, 3, Array.from({ length: 18 }, (_, i) => i + 1)],
  );
  assert.deepEqual([text?.severity, text?.text, text?.id], [6, "not a real vehicle", 0]);
  assert.deepEqual(
    chunks.map((chunk) => [chunk?.severity, chunk?.text, chunk?.id, chunk?.chunkSeq]),
    [
      [4, "x".repeat(50), 65_535, 0],
      [4, "x".repeat(50), 65_535, 1],
      [4, "", 65_535, 2],
    ],
  );
  assert.deepEqual(m.textMessages(6, "x".repeat(50), 7), [{ severity: 6, text: "x".repeat(50) }]);
  for (const message of m.textMessages(4, "y".repeat(120), 9)) assert.deepEqual(m.decodeStatusText(m.encodeStatusText(message)), message);
});

function oracleHeartbeat(): oracle.minimal.Heartbeat {
  const beat = new oracle.minimal.Heartbeat();
  Object.assign(beat, { customMode: 99, type: 2, autopilot: 12, baseMode: 0x80, systemStatus: 4, mavlinkVersion: 3 });
  return beat;
}

function oracleFtp(fill: (payload: number[]) => void): oracle.common.FileTransferProtocol {
  const message = new oracle.common.FileTransferProtocol();
  message.targetNetwork = 0;
  message.targetSystem = 1;
  message.targetComponent = 191;
  message.payload = new Array<number>(251).fill(0);
  fill(message.payload);
  return message;
}

test("frames of node-mavlink are read by us: versions 1 and 2, signed, cut zeros, and full ones", () => {
  const v1 = new oracle.MavLinkProtocolV1(3, 1);
  const v2 = new oracle.MavLinkProtocolV2(4, 1);
  const signing = new oracle.MavLinkProtocolV2(5, 1, oracle.MavLinkProtocolV2.IFLAG_SIGNED);
  const key = oracle.MavLinkPacketSignature.key("secret");
  const short = oracleFtp((payload) => (payload[5] = 10));
  const full = oracleFtp((payload) => payload.fill(0xa5));
  const frames = parseAll(
    Buffer.concat([
      v1.serialize(oracleHeartbeat(), 1),
      v2.serialize(oracleHeartbeat(), 2),
      signing.sign(signing.serialize(oracleHeartbeat(), 3), 1, key),
      v2.serialize(short, 4),
      v2.serialize(full, 5),
      v1.serialize(full, 6),
    ]),
  );
  assert.deepEqual(
    frames.map((f) => [f.version, f.systemId, f.seq, f.messageId]),
    [
      [1, 3, 1, 0],
      [2, 4, 2, 0],
      [2, 5, 3, 0],
      [2, 4, 4, 110],
      [2, 4, 5, 110],
      [1, 3, 6, 110],
    ],
  );
  for (const frame of frames.slice(0, 3))
    assert.deepEqual(m.decodeHeartbeat(frame.payload), { customMode: 99, type: 2, autopilot: 12, baseMode: 0x80, systemStatus: 4 });
  assert.deepEqual([...frames[3]!.payload.subarray(0, 12)], [0, 1, 191, 0, 0, 0, 0, 0, 10, 0, 0, 0]);
  assert.ok(
    frames[3]!.payload.subarray(12).every((byte) => byte === 0),
    "cut zeros are filled up, whatever the frame before held",
  );
  assert.ok(frames[4]!.payload.subarray(3).every((byte) => byte === 0xa5));
});

test("settings: an ArduPilot writes whole numbers as floats, others put their bytes there; each way as node-mavlink has it", async () => {
  const writer = new FrameWriter(1, 1);
  const ask = { targetSystem: 3, targetComponent: 1, name: "LOG_FILE_DSRMROT" };
  const px4 = { name: "SDLOG_MODE", value: -1, type: m.PARAM_INT32, count: 900, index: 712 };
  const ardupilot = { name: "LOG_FILE_DSRMROT", value: -1, type: m.PARAM_INT8, count: 1200, index: 65_535 };
  const real = { name: "MPC_XY_P", value: 0.5, type: m.PARAM_REAL32, count: 1, index: 0 };
  const storage = { bootMs: 7, totalMib: 30_000, usedMib: 10_000.5, availableMib: 19_999.5, id: 1, count: 1, status: m.STORAGE_READY };
  const bytes = Buffer.concat([
    writer.encode(m.PARAM_REQUEST_READ, m.encodeParamRequestRead(ask)),
    writer.encode(m.PARAM_VALUE, m.encodeParamValue(px4, m.AUTOPILOT_PX4)),
    writer.encode(m.PARAM_VALUE, m.encodeParamValue(ardupilot, m.AUTOPILOT_ARDUPILOT)),
    writer.encode(m.PARAM_VALUE, m.encodeParamValue(real, m.AUTOPILOT_PX4)),
    writer.encode(m.STORAGE_INFORMATION, m.encodeStorageInformation(storage)),
  ]);
  const [asked, bytewise, cast, float, card] = (await oracleParses(bytes)).map(fields);
  assert.deepEqual([asked?.targetSystem, asked?.targetComponent, asked?.paramId, asked?.paramIndex], [3, 1, "LOG_FILE_DSRMROT", -1]);
  assert.deepEqual([bytewise?.paramId, bytewise?.paramType, bytewise?.paramCount, bytewise?.paramIndex], ["SDLOG_MODE", 6, 900, 712]);
  assert.ok(Number.isNaN(bytewise?.paramValue), "the four bytes of -1 are no number as a float");
  assert.deepEqual([cast?.paramId, cast?.paramValue, cast?.paramType], ["LOG_FILE_DSRMROT", -1, 2]);
  assert.equal(float?.paramValue, 0.5);
  assert.deepEqual(
    [card?.timeBootMs, card?.totalCapacity, card?.usedCapacity, card?.availableCapacity, card?.storageId, card?.storageCount, card?.status],
    [7, 30_000, 10_000.5, 19_999.5, 1, 1, 2],
  );

  const v2 = new oracle.MavLinkProtocolV2(1, 1);
  const value = Object.assign(new oracle.common.ParamValue(), {
    paramId: "LOG_MAX_FILES",
    paramValue: 500,
    paramType: 4,
    paramCount: 9,
    paramIndex: 2,
  });
  const request = Object.assign(new oracle.common.ParamRequestRead(), {
    ...{ targetSystem: 1, targetComponent: 1, paramId: "SDLOG_MODE", paramIndex: -1 },
  });
  const numbered = Object.assign(new oracle.common.ParamRequestRead(), {
    ...{ targetSystem: 1, targetComponent: 1, paramId: "", paramIndex: 3 },
  });
  const told = Object.assign(new oracle.common.StorageInformation(), {
    ...{ timeBootMs: 1, totalCapacity: 2, usedCapacity: 3, availableCapacity: 4, readSpeed: 5, writeSpeed: 6 },
    ...{ storageId: 1, storageCount: 1, status: 0, type: 2, name: "card", storageUsage: 1 },
  });
  const [theirs, question, byNumber, storageTold] = parseAll(
    Buffer.concat([value, request, numbered, told].map((message, seq) => v2.serialize(message, seq))),
  ).map(({ payload }) => payload);
  assert.deepEqual(m.decodeParamValue(theirs!, m.AUTOPILOT_ARDUPILOT), { name: "LOG_MAX_FILES", value: 500, type: 4, count: 9, index: 2 });
  assert.deepEqual(m.decodeParamRequestRead(question!), { targetSystem: 1, targetComponent: 1, name: "SDLOG_MODE" });
  assert.equal(m.decodeParamRequestRead(byNumber!), undefined);
  assert.deepEqual(m.decodeStorageInformation(storageTold!), {
    ...{ bootMs: 1, totalMib: 2, usedMib: 3, availableMib: 4, id: 1, count: 1, status: m.STORAGE_EMPTY },
  });
  for (const [type, least, most] of [
    [m.PARAM_UINT8, 0, 255],
    [m.PARAM_INT8, -128, 127],
    [m.PARAM_UINT16, 0, 65_535],
    [m.PARAM_INT16, -32_768, 32_767],
    [m.PARAM_UINT32, 0, 0xffff_ffff],
    [m.PARAM_INT32, -0x8000_0000, 0x7fff_ffff],
  ] as const)
    for (const whole of [least, most]) {
      const [frame] = parseAll(writer.encode(m.PARAM_VALUE, m.encodeParamValue({ ...px4, type, value: whole }, m.AUTOPILOT_PX4)));
      assert.equal(m.decodeParamValue(frame!.payload, m.AUTOPILOT_PX4).value, whole, `type ${type}`);
    }
});

test("a short frame does not show bytes of the one before", () => {
  const writer = new FrameWriter(1, 1);
  const frames = parseAll(
    writer.encode(m.SYSTEM_TIME, m.encodeSystemTime({ unixUsec: 0xffff_ffff_ffff_ffffn, bootMs: 0xffffffff })),
    writer.encode(m.SYSTEM_TIME, m.encodeSystemTime({ unixUsec: 0n, bootMs: 0 })),
  );
  assert.deepEqual(m.decodeSystemTime(frames[1]!.payload), { unixUsec: 0n, bootMs: 0 });
});

test("a frame is found behind junk, false start bytes, damaged frames and unknown messages, wherever the pieces are cut", (t) => {
  t.diagnostic(`seed ${seed}`);
  const next = random(seed);
  const writer = new FrameWriter(1, 1);
  for (let round = 0; round < 60; round++) {
    const parts: Buffer[] = [];
    const sent: number[] = [];
    for (let i = 0; i < 20; i++) {
      const kind = next();
      if (kind < 0.2) parts.push(Buffer.from(Uint8Array.from({ length: 1 + Math.floor(next() * 300) }, () => Math.floor(next() * 256))));
      else if (kind < 0.3) parts.push(Buffer.from([0xfd]), Buffer.from([0xfe, 0x09]));
      else if (kind < 0.4) parts.push(Buffer.from([0xfd, 254, 0, 0, 1, 1, 1, 110, 0, 0]));
      else if (kind < 0.5) parts.push(Buffer.from([0xfd, 3, 0, 0, 1, 1, 1, 0x31, 0x30, 0, 0xfd, 0xfd, 0xfe, 9, 9]));
      else if (kind < 0.6) {
        const damaged = writer.encode(m.ATTITUDE, m.encodeAttitude({ bootMs: i, roll: 1, pitch: 2, yaw: 3 }));
        damaged[12] = (damaged[12] ?? 0) ^ 0x40;
        parts.push(damaged);
      } else {
        sent.push(round * 100 + i);
        parts.push(writer.encode(m.SYSTEM_TIME, m.encodeSystemTime({ unixUsec: 0xfdfe_fdfe_fdfe_fdfen, bootMs: round * 100 + i })));
      }
    }
    // What a false start swallows comes out once more bytes are there.
    parts.push(Buffer.alloc(600, 0x55));
    const all = Buffer.concat(parts);
    const chunks: Buffer[] = [];
    for (let at = 0; at < all.length;) {
      const size = 1 + Math.floor(next() * (next() < 0.5 ? 4 : 400));
      chunks.push(all.subarray(at, at + size));
      at += size;
    }
    const got = parseAll(...chunks).filter((f) => f.messageId === m.SYSTEM_TIME);
    assert.deepEqual(
      got.map((f) => m.decodeSystemTime(f.payload).bootMs),
      sent,
    );
  }
});

test("text and noise cost time in proportion and next to no memory", () => {
  const text = Buffer.from("PX4 shell: nsh> top is not MAVLink, and never was\r\n".repeat(82_000)).subarray(0, 4 << 20);
  const worst = Buffer.alloc(4 << 20, 0xfd);
  const header = Buffer.from([0xfd, 254, 0, 0, 1, 1, 1, 110, 0, 0]);
  const headers = Buffer.alloc(1 << 20, header);
  const parser = new FrameParser(() => assert.fail("there is no frame in it"));
  for (const bytes of [text, worst, headers]) for (let at = 0; at < bytes.length; at += 1000) parser.push(bytes.subarray(at, at + 1000));
  assert.equal(parser.bytes, text.length + worst.length + headers.length);
  assert.equal(parser.frames, 0);
});

test("a message that is not in use cannot be made", () => {
  assert.throws(() => new FrameWriter(1, 1).encode(33, Buffer.alloc(28)), /33/);
});

test("what is copied grows with what comes, however it is cut: no junk is kept and copied again with each piece", (t) => {
  let copied = 0;
  const [concat, from] = [Buffer.concat.bind(Buffer), Buffer.from.bind(Buffer)];
  t.mock.method(Buffer, "concat", (list: readonly Uint8Array[]) => {
    const joined = concat(list);
    copied += joined.length;
    return joined;
  });
  t.mock.method(Buffer, "from", (bytes: Buffer) => {
    copied += bytes.length;
    return from(bytes);
  });
  const junk = {
    text: Buffer.alloc(1 << 22, "nsh> "),
    starts: Buffer.alloc(1 << 22, 0xfd),
    zeros: Buffer.alloc(1 << 22, "\xfd\0\0", "latin1"),
  };
  // What may still become a frame is 280 bytes at most, and is copied twice with each piece.
  for (const [name, bytes] of Object.entries(junk))
    for (const piece of [1 << 16, 512]) {
      copied = 0;
      const parser = new FrameParser(() => assert.fail("a frame of junk"));
      for (let at = 0; at < bytes.length; at += piece) parser.push(bytes.subarray(at, at + piece));
      assert.ok(copied < bytes.length + 3 * 280 * (bytes.length / piece), `${name} in pieces of ${piece}: ${copied} bytes were copied`);
    }
});
