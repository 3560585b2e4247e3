/** The numbers of requests: none that an autopilot takes for another's. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeFtp, FTP_PAYLOAD, Op } from "../../mavlink/ftp.js";
import { FILE_TRANSFER_PROTOCOL } from "../../mavlink/messages.js";
import { eventually } from "./harness.test.js";
import { Requests } from "./requests.js";

const link = { systemId: 1, componentId: 191, send: () => undefined };

/** An answer of four bytes, which autopilots keep to send again. */
function small(requests: Requests, seq: number): void {
  const payload = Buffer.alloc(FTP_PAYLOAD);
  encodeFtp(
    { targetSystem: 1, targetComponent: 191, seq, opcode: Op.Ack, reqOpcode: Op.TerminateSession, session: 0, data: Buffer.alloc(4) },
    payload,
  );
  requests.frame({ version: 2, seq: 0, systemId: 1, componentId: 1, messageId: FILE_TRANSFER_PROTOCOL, payload, wireBytes: 0 });
}

test("numbers go up by one, begin again, and leave out 65,535, of which PX4 does not know a repetition", () => {
  const requests = new Requests(link);
  let before = requests.nextSeq();
  for (let n = 0; n < 140_000; n++) {
    const seq = requests.nextSeq();
    assert.equal(seq, before === 65_534 ? 0 : before + 1);
    before = seq;
  }
});

test("the number before that of the last small answer is left out: it would be answered with that", () => {
  const requests = new Requests(link);
  let before = requests.nextSeq();
  while (before > 60_000) before = requests.nextSeq();
  small(requests, (before + 3) & 0xffff);
  const next = [requests.nextSeq(), requests.nextSeq(), requests.nextSeq()];
  assert.deepEqual(
    next.map((seq) => (seq - before) & 0xffff),
    [1, 3, 4],
  );
});

test("each start begins elsewhere, so that no program is answered with what the one before it was told", () => {
  const firsts = new Set(Array.from({ length: 20 }, () => new Requests(link).nextSeq()));
  assert.ok(firsts.size > 10);
});

test("an answer of something else, kept from before, is not taken: it is asked again under another number", async () => {
  const sent: { seq: number; opcode: number }[] = [];
  const requests = new Requests({
    ...link,
    send: (_id, payload) => void sent.push({ seq: payload.readUInt16LE(3), opcode: payload[6] ?? 0 }),
  });
  const reply = requests.ask({ opcode: Op.OpenFileRO, session: 7 }, 1, new AbortController().signal);
  const [first] = sent;
  assert.ok(first);
  small(requests, (first.seq + 1) & 0xffff);
  const again = sent[1];
  assert.ok(again !== undefined && again.opcode === Op.OpenFileRO && again.seq !== first.seq);
  const payload = Buffer.alloc(FTP_PAYLOAD);
  const answer = {
    targetSystem: 1,
    targetComponent: 191,
    seq: (again.seq + 1) & 0xffff,
    opcode: Op.Ack,
    reqOpcode: Op.OpenFileRO,
    session: 7,
  };
  encodeFtp({ ...answer, data: Buffer.from([1, 2, 3, 4]) }, payload);
  requests.frame({ version: 2, seq: 0, systemId: 1, componentId: 1, messageId: FILE_TRANSFER_PROTOCOL, payload, wireBytes: 0 });
  assert.deepEqual([...(await reply).data], [1, 2, 3, 4]);
});

test("what is sent again has its number again, so that it is answered twice and done once", async () => {
  const sent: number[] = [];
  const requests = new Requests({ ...link, send: (_id, payload) => void sent.push(payload.readUInt16LE(3)) });
  const over = new AbortController();
  const reply = requests.ask({ opcode: Op.CalcFileCRC32, session: 7 }, 1, over.signal, { firstMs: 1 });
  await eventually(() => sent.length >= 3, "it is sent again");
  over.abort();
  await assert.rejects(reply);
  assert.equal(new Set(sent).size, 1);
});

test("after a burst numbers begin behind those of its packets, of which there may be 2,000", () => {
  const requests = new Requests(link);
  const before = requests.nextSeq();
  requests.skip();
  const ahead = (requests.nextSeq() - before) & 0xffff;
  assert.ok(ahead > 2000 && ahead < 0x8000, `${ahead}`);
});
