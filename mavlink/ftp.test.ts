/** The content of FILE_TRANSFER_PROTOCOL held against node-mavlink, and the shapes of refusals. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Readable } from "node:stream";
import * as oracle from "node-mavlink";
import { dataOf, decodeFtp, emptyPacket, encodeFtp, FTP_PAYLOAD, Nak, nakName, nakOf, Op, opName } from "./ftp.js";
import { FrameParser, FrameWriter } from "./frame.js";
import { FILE_TRANSFER_PROTOCOL } from "./messages.js";

test("a request that we make has its fields where node-mavlink reads them", async () => {
  const out = Buffer.alloc(FTP_PAYLOAD, 0xee);
  const data = Buffer.from("/fs/microsd/log/2024-05-17/13_05_59.ulg");
  const length = encodeFtp(
    { targetSystem: 1, targetComponent: 2, seq: 0xabcd, session: 7, opcode: Op.OpenFileRO, offset: 0x89abcdef, data },
    out,
  );
  const frame = new FrameWriter(1, 191).encode(FILE_TRANSFER_PROTOCOL, out, length);
  const packets = Readable.from([frame]).pipe(new oracle.MavLinkPacketSplitter()).pipe(new oracle.MavLinkPacketParser());
  for await (const packet of packets as AsyncIterable<oracle.MavLinkPacket>) {
    const message = packet.protocol.data(packet.payload, oracle.common.FileTransferProtocol);
    const payload = Buffer.from(message.payload);
    assert.deepEqual([message.targetSystem, message.targetComponent], [1, 2]);
    assert.equal(payload.readUInt16LE(0), 0xabcd);
    assert.deepEqual([...payload.subarray(2, 8)], [7, 4, data.length, 0, 0, 0]);
    assert.equal(payload.readUInt32LE(8), 0x89abcdef);
    assert.deepEqual(payload.subarray(12, 12 + data.length), data);
    assert.ok(payload.subarray(12 + data.length).every((byte) => byte === 0));
    return;
  }
  assert.fail("node-mavlink found no frame");
});

test("what is encoded is decoded, at every length, with zeros at its end", () => {
  const out = Buffer.alloc(FTP_PAYLOAD);
  const writer = new FrameWriter(1, 1);
  const packet = emptyPacket();
  for (let length = 0; length <= 239; length++) {
    const data = Buffer.alloc(length, length % 3 === 0 ? 0 : length);
    const fields = { targetSystem: 1, targetComponent: 191, seq: length * 257, session: 3, opcode: Op.Ack, reqOpcode: Op.ReadFile };
    const used = encodeFtp({ ...fields, offset: 0xfffffff0 + (length % 16), data }, out);
    let frames = 0;
    new FrameParser((frame) => {
      frames += 1;
      decodeFtp(frame.payload, packet);
      assert.deepEqual([packet.seq, packet.session, packet.opcode, packet.reqOpcode, packet.size], [length * 257, 3, 128, 5, length]);
      assert.equal(packet.offset, 0xfffffff0 + (length % 16));
      assert.deepEqual(dataOf(packet), data);
    }).push(writer.encode(FILE_TRANSFER_PROTOCOL, out, used));
    assert.equal(frames, 1);
  }
  assert.throws(() => encodeFtp({ targetSystem: 1, targetComponent: 1, seq: 0, opcode: 5, data: Buffer.alloc(240) }, out), /240/);
});

test("refusals: a code, an errno, none at all; and a size that cannot be", () => {
  const packet = emptyPacket();
  const refusal = (...data: number[]) => {
    encodeFtp({ targetSystem: 1, targetComponent: 1, seq: 1, opcode: Op.Nak, data: Uint8Array.from(data) }, packet.payload);
    return nakOf(decodeFtp(packet.payload, packet));
  };
  assert.deepEqual(refusal(Nak.Eof), { code: 6, errno: 0 });
  assert.deepEqual(refusal(Nak.FailErrno, 5), { code: 2, errno: 5 });
  assert.deepEqual(refusal(), { code: Nak.Fail, errno: 0 });
  packet.size = 255;
  assert.equal(dataOf(packet).length, 239);
});

test("opcodes and refusals have names for people", () => {
  assert.equal(opName(Op.ReadFile), "ReadFile");
  assert.equal(opName(77), "opcode 77");
  assert.equal(nakName(Nak.InvalidSession), "InvalidSession");
  assert.equal(nakName(99), "error 99");
});
