/** Which answers a window of reads takes: those to what it asked, of its own session, as far as they go. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { isFault } from "../../core/errors.js";
import { emptyPacket, decodeFtp, encodeFtp, FTP_PAYLOAD, Nak, Op, type FtpPacket } from "../../mavlink/ftp.js";
import { Assembly } from "./assembly.js";
import { Pace, PX4_WINDOW, SAFEST_WINDOW } from "./pace.js";
import { EndedEarly, SessionLost } from "./reading.js";
import type { Requests } from "./requests.js";
import { WindowReading } from "./window.js";

const SESSION = 5;

/** A file of `size` bytes that is read of an autopilot whose answers the test makes up. */
function begin(size: number, limits = SAFEST_WINDOW) {
  const asked: { seq: number; offset: number; size: number }[] = [];
  const parts: Buffer[] = [];
  let seq = 100;
  const requests = {
    reader: undefined as ((packet: FtpPacket) => void) | undefined,
    nextSeq: () => ++seq,
    sendRead: (_session: number, offset: number, bytes: number, number: number) => void asked.push({ seq: number, offset, size: bytes }),
  };
  const assembly = new Assembly(0, (bytes) => parts.push(Buffer.from(bytes)));
  const file = { session: SESSION, systemId: 1 };
  const signal = new AbortController().signal;
  const stretch = { file, requests: requests as unknown as Requests, assembly, end: size, more: () => true, signal };
  const ended = new WindowReading(new Pace(limits)).read(stretch).then(
    () => undefined,
    (error: unknown) => error,
  );
  const answer = (
    to: { seq: number; offset: number },
    data: Buffer,
    change: Partial<{ session: number; offset: number; opcode: number }> = {},
  ) => {
    const payload = Buffer.alloc(FTP_PAYLOAD);
    const fields = { session: SESSION, offset: to.offset, opcode: Op.Ack, ...change };
    encodeFtp({ targetSystem: 1, targetComponent: 191, seq: to.seq + 1, reqOpcode: Op.ReadFile, data, ...fields }, payload);
    requests.reader?.(decodeFtp(payload, emptyPacket()));
  };
  const last = () => asked.at(-1) ?? assert.fail("nothing was asked");
  const whole = () => {
    assembly.flush();
    return Buffer.concat(parts);
  };
  return { asked, answer, last, ended, whole };
}

test("an answer of another session, at another offset, or to what was never asked is not taken", async () => {
  const { asked, answer, last, ended, whole } = begin(200);
  const [wrong, right] = [Buffer.alloc(200, 1), Buffer.alloc(200, 2)];
  answer(last(), wrong, { session: SESSION + 1 });
  answer(last(), wrong, { offset: 239 });
  answer({ seq: last().seq + 7, offset: 0 }, wrong);
  answer(last(), right);
  assert.equal(await ended, undefined);
  assert.ok(whole().equals(right));
  assert.equal(asked.length, 1);
});

test("of a short answer the rest is asked for; of a long one only what was asked is taken", async () => {
  const { asked, answer, last, ended, whole } = begin(300);
  assert.equal(last().size, 239);
  answer(last(), Buffer.alloc(48, 1));
  assert.deepEqual([last().offset, last().size], [48, 191]);
  answer(last(), Buffer.alloc(239, 2));
  assert.deepEqual([last().offset, last().size], [239, 61]);
  answer(last(), Buffer.alloc(61, 3));
  assert.equal(await ended, undefined);
  assert.ok(whole().equals(Buffer.concat([Buffer.alloc(48, 1), Buffer.alloc(191, 2), Buffer.alloc(61, 3)])));
  assert.equal(asked.length, 3);
});

test("an end of the file before its size, or an answer without a byte, is asked for twice more; then the file is opened anew", async () => {
  for (const [data, opcode] of [
    [Buffer.alloc(0), Op.Ack],
    [Buffer.from([Nak.Eof]), Op.Nak],
  ] as const) {
    const { asked, answer, last, ended } = begin(200);
    for (let n = 1; n <= 3; n++) {
      assert.equal(asked.length, n);
      answer(last(), data, { opcode });
    }
    assert.ok((await ended) instanceof EndedEarly);
    assert.equal(asked.length, 3);
  }
});

test("a refusal that says that the session is gone is believed at once; one without a reason, or with a stale one, the third time", async () => {
  for (const [code, times] of [
    [Nak.InvalidSession, 1],
    [Nak.FileNotFound, 1],
    [Nak.NoSessionsAvailable, 1],
    [Nak.Fail, 3],
    [Nak.FileExists, 3],
  ] as const) {
    const { asked, answer, last, ended } = begin(200);
    for (let n = 1; n <= times; n++) answer(last(), Buffer.from([code]), { opcode: Op.Nak });
    assert.ok((await ended) instanceof SessionLost, `code ${code}`);
    assert.equal(asked.length, times);
  }
  const { answer, last, ended } = begin(200);
  for (let n = 1; n <= 3; n++) answer(last(), Buffer.from([Nak.FailErrno, 5]), { opcode: Op.Nak });
  assert.ok(isFault(await ended, "transient"));
});

test("the window is what the limits say, and grows by one in a round without losses", async () => {
  const { asked, answer, ended } = begin(239 * 100, PX4_WINDOW);
  assert.equal(asked.length, 4);
  let answered = 0;
  let most = 0;
  for (let next = asked[0]; next !== undefined; next = asked[answered]) {
    most = Math.max(most, asked.length - answered);
    answered += 1;
    answer(next, Buffer.alloc(239));
    if (answered === 5) assert.equal(asked.length - answered, 5);
  }
  assert.equal(await ended, undefined);
  assert.equal(most, 8);
});

test("what was lost many times while others were answered is asked for as soon as they are, once all goes silent", async () => {
  const { asked, answer, ended, whole } = begin(239 * 60, PX4_WINDOW);
  const taken = new Set<number>();
  const lost = () => asked.filter(({ offset }) => offset === 0);
  const next = () => asked.find(({ offset }) => offset > 0 && !taken.has(offset)) ?? assert.fail("nothing is on its way");
  while (lost().length < 8) {
    const it = next();
    taken.add(it.offset);
    answer(it, Buffer.alloc(239));
  }
  const before = asked.length;
  const times = lost().length;
  while (lost().length === times) await new Promise((resolve) => setTimeout(resolve, 5));
  const others = asked.slice(before).filter(({ offset }) => offset > 0);
  assert.ok(others.length <= PX4_WINDOW.most, `${others.length} others were asked for again before it`);
  for (let n = 0; n < asked.length; n++) {
    const it = asked[n];
    if (it !== undefined && !taken.has(it.offset) && !asked.slice(n + 1).some(({ offset }) => offset === it.offset)) {
      taken.add(it.offset);
      answer(it, Buffer.alloc(239));
    }
  }
  assert.equal(await ended, undefined);
  assert.equal(whole().length, 239 * 60);
});

test("an answer to a later request is enough to ask again, until one that was overtaken comes all the same", async () => {
  const { asked, answer, ended } = begin(239 * 40, PX4_WINDOW);
  const data = Buffer.alloc(239);
  const at = (n: number) => asked.filter(({ offset }) => offset === n * 239);
  const times = (n: number) => at(n).length;
  answer(asked[1] as (typeof asked)[0], data);
  assert.equal(times(0), 2, "asked again after one");
  // It was only late: from now on two are needed.
  answer(asked[0] as (typeof asked)[0], data);
  answer(asked[3] as (typeof asked)[0], data);
  assert.equal(times(2), 1);
  const [next] = at(4);
  answer(next as (typeof asked)[0], data);
  assert.equal(times(2), 2);
  const taken = new Set([0, 1, 3, 4]);
  for (let n = 0; n < asked.length; n++) {
    const it = asked[n] as (typeof asked)[0];
    if (taken.has(it.offset / 239)) continue;
    taken.add(it.offset / 239);
    answer(it, data);
  }
  assert.equal(await ended, undefined);
});
