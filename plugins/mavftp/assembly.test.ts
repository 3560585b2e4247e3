/** Pieces in any order, size and repetition make the same row of bytes, without gaps; and a request never takes another's answer. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { isFault } from "../../core/errors.js";
import { decodeFtp, emptyPacket, encodeFtp, FTP_PAYLOAD, Nak, Op } from "../../mavlink/ftp.js";
import { FrameParser, FrameWriter, type Frame } from "../../mavlink/frame.js";
import { FILE_TRANSFER_PROTOCOL } from "../../mavlink/messages.js";
import { Assembly } from "./assembly.js";
import { EndedEarly, SessionLost } from "./reading.js";
import { Requests } from "./requests.js";
import { Pace, PX4_WINDOW } from "./pace.js";
import { WindowReading } from "./window.js";

const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));

function random(start: number): () => number {
  let state = start >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

test("pieces in any order make the same bytes", (t) => {
  t.diagnostic(`seed ${seed}`);
  const next = random(seed);
  for (let round = 0; round < 30; round++) {
    const offset = Math.floor(next() * 70_000);
    const bytes = randomBytes(100_000 + Math.floor(next() * 100_000));
    const parts: Buffer[] = [];
    const assembly = new Assembly(offset, (part) => parts.push(Buffer.from(part)));
    const pieces: [number, number][] = [];
    for (let at = offset; at < bytes.length;) {
      const length = 1 + Math.floor(next() * 239);
      pieces.push([at, Math.min(length, bytes.length - at)]);
      if (next() < 0.2) pieces.push([Math.max(0, at - 100), Math.min(300, bytes.length - Math.max(0, at - 100))]);
      at += length;
    }
    for (let i = 0; i < pieces.length; i++) {
      const j = Math.min(pieces.length - 1, i + Math.floor(next() * 9));
      [pieces[i], pieces[j]] = [pieces[j] as [number, number], pieces[i] as [number, number]];
    }
    for (const [at, length] of pieces) {
      assembly.place(at, bytes, at, length);
      if (next() < 0.01) assembly.flush();
    }
    assembly.flush();
    assert.equal(assembly.handed, bytes.length);
    assert.ok(Buffer.concat(parts).equals(bytes.subarray(offset)));
  }
});

/** A link whose other end is a function: request in, frames out. */
function madeUp(answer: (packet: ReturnType<typeof emptyPacket>, reply: (fields: object) => void) => void) {
  const packet = emptyPacket();
  const out = Buffer.alloc(FTP_PAYLOAD);
  const writer = new FrameWriter(1, 1);
  const toClient = new FrameParser((frame: Frame) => requests.frame(frame));
  const toServer = new FrameParser((frame: Frame) => {
    const asked = { ...decodeFtp(frame.payload, packet), payload: Buffer.from(frame.payload) };
    setImmediate(() =>
      answer(asked, (fields) => {
        const full = {
          targetSystem: 1,
          targetComponent: 191,
          seq: asked.seq + 1,
          session: 0,
          opcode: Op.Ack,
          reqOpcode: asked.opcode,
          ...fields,
        };
        toClient.push(writer.encode(FILE_TRANSFER_PROTOCOL, out, encodeFtp(full, out)));
      }),
    );
  });
  const link = {
    systemId: 1,
    componentId: 191,
    send: (id: number, payload: Buffer, length: number) => toServer.push(writer.encode(id, payload, length)),
  };
  const requests: Requests = new Requests(link);
  return requests;
}

const never = new AbortController().signal;

test("an answer to an older request with the same number is not taken: the request goes out again under another", async () => {
  const seen: number[] = [];
  const requests = madeUp((packet, reply) => {
    seen.push(packet.seq);
    if (seen.length === 1) reply({ reqOpcode: Op.OpenFileRO, data: Buffer.alloc(4) });
    else reply({ data: Buffer.from("S") });
  });
  const answer = await requests.ask({ opcode: Op.ListDirectory, session: 9 }, 1, never);
  assert.equal(answer.data.toString(), "S");
  assert.equal(seen.length, 2);
  assert.notEqual(seen[0], seen[1]);
});

test("a lost answer is asked for under the same number, and silence is given up", async () => {
  const seen: number[] = [];
  const requests = madeUp((packet, reply) => {
    seen.push(packet.seq);
    if (seen.length === 3) reply({});
  });
  await requests.ask({ opcode: Op.TerminateSession, session: 0 }, 1, never, { firstMs: 20 });
  assert.deepEqual(seen, [seen[0], seen[0], seen[0]]);
  await assert.rejects(requests.ask({ opcode: Op.None, session: 0 }, 1, never, { firstMs: 10, totalMs: 60 }), (e) =>
    isFault(e, "transient"),
  );
});

function reads(requests: Requests, size: number, whole: Buffer[]) {
  const assembly = new Assembly(0, (part) => whole.push(Buffer.from(part)));
  const stretch = { file: { session: 0, systemId: 1 }, requests, assembly, end: size, more: () => true, signal: never };
  return new WindowReading(new Pace(PX4_WINDOW)).read(stretch).then(() => assembly.flush());
}

test("answers shorter than asked, longer than asked, early ends and other files' bytes", async () => {
  const file = randomBytes(20_000);
  let count = 0;
  const requests = madeUp((packet, reply) => {
    count += 1;
    // A late answer of the file before: same session, same offset, another number.
    if (count % 7 === 0) reply({ seq: packet.seq - 400, offset: packet.offset, data: Buffer.alloc(239, 0xee) });
    if (count % 11 === 0) {
      reply({ opcode: Op.Nak, data: Buffer.from([Nak.Eof]) });
      return;
    }
    const length = count % 3 === 0 ? 48 : count % 5 === 0 ? 239 : packet.size;
    reply({ offset: packet.offset, data: file.subarray(packet.offset, packet.offset + length) });
    if (count % 4 === 0) reply({ offset: packet.offset, data: Buffer.alloc(20, 0xdd) });
  });
  const whole: Buffer[] = [];
  await reads(requests, 19_003, whole);
  assert.ok(Buffer.concat(whole).equals(file.subarray(0, 19_003)));
});

test("a link that becomes slow is not asked twice for everything", async () => {
  const file = randomBytes(239 * 130);
  let count = 0;
  const requests = madeUp((packet, reply) => {
    count += 1;
    const answer = () => reply({ offset: packet.offset, data: file.subarray(packet.offset, packet.offset + packet.size) });
    if (count <= 50) answer();
    else setTimeout(answer, 150);
  });
  const whole: Buffer[] = [];
  await reads(requests, file.length, whole);
  assert.ok(Buffer.concat(whole).equals(file));
  assert.ok(count < 130 * 1.4, `${count} requests for 130`);
});

test("an end before the size is told once it is said again and again; a lost session is one", async () => {
  const ends = madeUp((packet, reply) =>
    packet.offset < 500
      ? reply({ offset: packet.offset, data: Buffer.alloc(packet.size) })
      : reply({ opcode: Op.Nak, data: Buffer.from([Nak.Eof]) }),
  );
  await assert.rejects(reads(ends, 1000, []), EndedEarly);
  const lost = madeUp((_packet, reply) => reply({ opcode: Op.Nak, data: Buffer.from([Nak.InvalidSession]) }));
  await assert.rejects(reads(lost, 1000, []), SessionLost);
  const broken = madeUp((_packet, reply) => reply({ opcode: Op.Nak, data: Buffer.from([Nak.FailErrno, 5]) }));
  await assert.rejects(reads(broken, 1000, []), (e) => isFault(e, "transient") && /errno 5/.test(e.message));
});
