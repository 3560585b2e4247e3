/** What a burst believes: a flag only where the autopilot ends its bursts, an end only where the file ends; and that the session of a PX4 is kept alive. */
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { decodeFtp, emptyPacket, encodeFtp, FTP_DATA_MAX, FTP_PAYLOAD, Nak, Op, type FtpPacket } from "../../mavlink/ftp.js";
import { Assembly } from "./assembly.js";
import { ARDUPILOT_BURST, BurstReading, PX4_BURST, type BurstRules } from "./burst.js";
import { ARDUPILOT_WINDOW, Pace } from "./pace.js";
import { EndedEarly, SessionLost } from "./reading.js";
import type { Request, Requests } from "./requests.js";

const SESSION = 5;

/** A burst over a file of `size` bytes, of an autopilot whose packets the test makes up; time stands still. */
function begin(t: TestContext, rules: BurstRules, size = 1_000_000) {
  t.mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  const sent: (Request & { readonly seq: number })[] = [];
  let seq = 100;
  const requests = {
    reader: undefined as ((packet: FtpPacket) => void) | undefined,
    nextSeq: () => ++seq,
    skip: () => (seq += 2100),
    send: (request: Request, number: number) => void sent.push({ ...request, seq: number }),
    sendRead: (session: number, offset: number, bytes: number, number: number) =>
      void sent.push({ opcode: Op.ReadFile, session, offset, size: bytes, seq: number }),
  };
  const assembly = new Assembly(0, () => undefined);
  const stop = new AbortController();
  const file = { session: SESSION, systemId: 1 };
  const wanted = { more: true };
  const stretch = { file, requests: requests as unknown as Requests, assembly, end: size, more: () => wanted.more, signal: stop.signal };
  let over: unknown = "running";
  const ended = new BurstReading(new Pace(ARDUPILOT_WINDOW), rules).read(stretch).then(
    () => (over = "done"),
    (error: unknown) => (over = error),
  );
  t.after(() => {
    stop.abort();
    return ended;
  });
  const give = (fields: { seq: number; offset: number; opcode?: number; burstComplete?: number }, data: Buffer): void => {
    const payload = Buffer.alloc(FTP_PAYLOAD);
    encodeFtp(
      { targetSystem: 1, targetComponent: 191, session: SESSION, opcode: Op.Ack, reqOpcode: Op.BurstReadFile, ...fields, data },
      payload,
    );
    payload[9] = fields.burstComplete ?? 0;
    requests.reader?.(decodeFtp(payload, emptyPacket()));
  };
  const bursts = () => sent.filter(({ opcode }) => opcode === Op.BurstReadFile);
  const first = bursts()[0] ?? assert.fail("no burst was asked for");
  /** The `n`th packet of the first burst. */
  const packet = (n: number, flagged = false): void =>
    give({ seq: first.seq + 1 + n, offset: n * FTP_DATA_MAX, burstComplete: flagged ? 1 : 0 }, Buffer.alloc(FTP_DATA_MAX));
  /** Refuses `times` times, as the burst of that request would where its `n`th packet was due. */
  const refuse = (of: { readonly seq: number }, n: number, times = 1, code: number = Nak.Eof): void => {
    // Neither the flag nor the offset of a refusal means anything: a PX4's flag is unset memory, an ArduPilot's offset at times that of the last packet.
    for (let i = 0; i < times; i++) give({ seq: of.seq + 1 + n, offset: 717, burstComplete: 164, opcode: Op.Nak }, Buffer.from([code]));
  };
  /** How it ended, if it did. */
  const outcome = async (): Promise<unknown> => {
    await new Promise((resolve) => setImmediate(resolve));
    return over;
  };
  return { sent, bursts, packet, give, first, refuse, wanted, outcome, assembly, nextSeq: requests.nextSeq };
}

for (const [name, rules, early, late] of [
  ["PX4, whose flag is unset memory up to 35,000 bytes", PX4_BURST, 100, 150],
  ["ArduPilot, whose bursts have 500 packets", ARDUPILOT_BURST, 200, 499],
  ["ArduPilot from 4.8 on, whose bursts have 2,000", ARDUPILOT_BURST, 499 + 1, 1999],
] as const)
  test(`${name}: a flag before that is no end`, (t) => {
    const { bursts, packet } = begin(t, rules);
    for (let n = 0; n <= late; n++) {
      packet(n, n === early || n === late);
      if (n < late) assert.equal(bursts().length, 1, `packet ${n}`);
    }
    assert.deepEqual(
      bursts().map(({ offset }) => offset),
      [0, (late + 1) * FTP_DATA_MAX],
    );
  });

for (const [name, rules] of [
  ["PX4", PX4_BURST],
  ["ArduPilot", ARDUPILOT_BURST],
] as const)
  test(`${name}: an end that is told before the file's own is none, whatever flag and offset it has`, async (t) => {
    const { bursts, packet, refuse, first, outcome } = begin(t, rules);
    packet(0);
    packet(1);
    // The last packets before it may have been lost: so it takes more of them than of a plain read's.
    refuse(first, 2, 11);
    packet(2);
    assert.equal(bursts().length, 1, "its packets still come");
    assert.equal(await outcome(), "running");
    refuse(first, 3, 12);
    assert.ok((await outcome()) instanceof EndedEarly, "it says so again and again, and no packet comes");
  });

test("packets of an earlier burst are good data, however many bursts came after it", (t) => {
  const { bursts, packet, give, assembly } = begin(t, PX4_BURST);
  for (let n = 0; n < 150; n++) packet(n, n === 149);
  for (let later = 1; later <= 3; later++) {
    const { seq, offset = -1 } = bursts()[later] ?? assert.fail("the next burst was asked for");
    for (let n = 0; n < 150; n++)
      give({ seq: seq + 1 + n, offset: offset + n * FTP_DATA_MAX, burstComplete: n === 149 ? 1 : 0 }, Buffer.alloc(FTP_DATA_MAX));
  }
  assert.equal(assembly.whole, 600 * FTP_DATA_MAX);
  for (let n = 600; n < 610; n++) packet(n);
  assert.equal(assembly.whole, 610 * FTP_DATA_MAX);
});

test("the refusal that ended a burst of before says nothing about the present one, however often it comes", async (t) => {
  const { bursts, packet, refuse, first, outcome } = begin(t, PX4_BURST);
  for (let n = 0; n < 150; n++) packet(n, n === 149);
  assert.equal(bursts().length, 2);
  refuse(first, 150, 20);
  refuse(first, 150, 20, Nak.Fail);
  assert.equal(await outcome(), "running");
  refuse(bursts()[1] as { seq: number }, 0, 3, Nak.Fail);
  assert.ok((await outcome()) instanceof SessionLost, "its own counts");
});

test("a burst that nobody wants any more is turned to where there is nothing on a PX4, and runs out on an ArduPilot", async (t) => {
  for (const [rules, stops] of [
    [PX4_BURST, [0xffff_ffff]],
    [ARDUPILOT_BURST, []],
  ] as const) {
    const { bursts, packet, refuse, wanted, outcome, nextSeq } = begin(t, rules);
    packet(0);
    wanted.more = false;
    for (let n = 1; n < 20; n++) packet(n);
    assert.deepEqual(
      bursts()
        .slice(1)
        .map(({ offset }) => offset),
      stops,
    );
    assert.equal(await outcome(), "running");
    const [stop] = bursts().slice(1);
    if (stop === undefined) for (let n = 20; n < 500; n++) packet(n, n === 499);
    else refuse(stop, 0);
    assert.equal(await outcome(), "done");
    // What has the number before that of its last packet would be answered with that packet.
    assert.ok(nextSeq() > (bursts().at(-1)?.seq ?? 0) + 2000);
    t.mock.timers.reset();
  }
});

test("silence is no answer to a stop: it is sent again until one of them is answered, or five were not", async (t) => {
  for (const answered of [true, false]) {
    const { bursts, packet, refuse, wanted, outcome } = begin(t, PX4_BURST);
    t.mock.timers.reset();
    wanted.more = false;
    packet(0);
    packet(1);
    const stops = () => bursts().slice(1);
    while (stops().length < 3) await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal(await outcome(), "running");
    const [, second] = stops();
    if (answered) refuse(second as { seq: number }, 0);
    else while ((await outcome()) === "running") await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal(await outcome(), "done");
    assert.equal(stops().length, answered ? 3 : 5);
  }
});

test("the last byte of the file is the end of a burst: no flag and no refusal has to come", async (t) => {
  for (const rules of [PX4_BURST, ARDUPILOT_BURST]) {
    const { packet, outcome } = begin(t, rules, 10 * FTP_DATA_MAX);
    for (let n = 0; n < 9; n++) packet(n);
    assert.equal(await outcome(), "running");
    packet(9);
    assert.equal(await outcome(), "done");
    t.mock.timers.reset();
  }
});

test("a PX4's session is used now and then while it sends: its own packets do not count", (t) => {
  const { sent, packet } = begin(t, PX4_BURST);
  for (let n = 0; n < 80; n++) {
    packet(n);
    t.mock.timers.tick(100);
  }
  assert.equal(sent.filter(({ opcode, session }) => opcode === Op.None && session === SESSION).length, 2);
});

test("what a PX4's burst has lost is read while it runs; of an ArduPilot after it", (t) => {
  for (const [rules, reads] of [
    [PX4_BURST, 1],
    [ARDUPILOT_BURST, 0],
  ] as const) {
    const { sent, packet } = begin(t, rules);
    for (let n = 0; n < 20; n++) if (n !== 3) packet(n);
    assert.equal(sent.filter(({ opcode, offset }) => opcode === Op.ReadFile && offset === 3 * FTP_DATA_MAX).length, reads);
    t.mock.timers.reset();
  }
});
