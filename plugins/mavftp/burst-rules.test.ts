/** What a burst believes: a flag only where the autopilot ends its bursts, an end only where the file ends; and that the session of a PX4 is kept alive. */
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { decodeFtp, emptyPacket, encodeFtp, FTP_DATA_MAX, FTP_PAYLOAD, Nak, Op, type FtpPacket } from "../../mavlink/ftp.js";
import { Assembly } from "./assembly.js";
import { ARDUPILOT_BURST, BurstReading, PX4_BURST, type BurstRules } from "./burst.js";
import { ARDUPILOT_WINDOW, Pace } from "./pace.js";
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
  const stretch = { file, requests: requests as unknown as Requests, assembly, end: size, more: () => true, signal: stop.signal };
  const ended = new BurstReading(new Pace(ARDUPILOT_WINDOW), rules).read(stretch).catch(() => undefined);
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
  return { sent, bursts, packet, give, first };
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

test("an end that is told before the file's own is none", (t) => {
  const { bursts, packet, give, first } = begin(t, ARDUPILOT_BURST);
  packet(0);
  packet(1);
  give({ seq: first.seq + 3, offset: 2 * FTP_DATA_MAX, opcode: Op.Nak }, Buffer.from([Nak.Eof]));
  packet(2);
  assert.equal(bursts().length, 1, "its packets still come");
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
