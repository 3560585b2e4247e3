/** What the tests of the file servers share: one server without a wire around it, and a clock that is moved by hand. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { TestContext } from "node:test";
import { dataOf, decodeFtp, emptyPacket, encodeFtp, FTP_DATA_MAX, FTP_PAYLOAD, Nak, Op } from "../mavlink/ftp.js";
import type { FtpSurroundings, Sender } from "./autopilot.js";
import { autopilotNamed } from "./autopilots.js";
import { HandClock } from "./clock.js";
import { Disk } from "./disk.js";
import { seeded } from "./random.js";
import { emptyStats, type SimStats } from "./stats.js";
import { linkModel } from "./wire.js";

export interface Answer {
  readonly opcode: number;
  readonly reqOpcode: number;
  readonly seq: number;
  readonly session: number;
  readonly offset: number;
  readonly burstComplete: number;
  readonly data: Buffer;
  readonly toSystem: number;
  readonly toComponent: number;
}

export interface Timed extends Answer {
  /** When it was sent. */
  readonly atMs: number;
}

export interface Fields {
  readonly seq?: number;
  readonly session?: number;
  readonly offset?: number;
  readonly size?: number;
  readonly data?: string | Buffer;
  /** 191 of system 1, on link 0, unless told. */
  readonly from?: Partial<Sender>;
}

export interface Server {
  readonly clock: HandClock;
  readonly stats: SimStats;
  readonly disk: Disk;
  readonly dir: string;
  readonly answers: Timed[];
  send(opcode: number, fields?: Fields): void;
  /** One request and its answer; time goes on until that comes, for a second at most. */
  ask(opcode: number, fields?: Fields): Timed;
  /** The answers that come within so much time. */
  within(ms: number): Timed[];
  openSessions(): number;
  slowsStreams(channel: number): boolean;
  stop(): void;
}

/** A directory that is gone after the test. */
export function makeDir(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "sim-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** Bytes in which no two of 251 are the same. */
export function pattern(length: number): Buffer {
  return Buffer.from(Uint8Array.from({ length }, (_, i) => i % 251));
}

export type ServerOptions = Partial<Pick<FtpSurroundings, "crcBytesPerSecond" | "readMost" | "freeRing" | "radioFree">> & {
  /** Default "none". */
  readonly link?: string;
  readonly files?: Readonly<Record<string, Buffer | number>>;
};

export function makeServer(t: TestContext, autopilot: string, options: ServerOptions = {}): Server {
  const dir = makeDir(t);
  for (const [path, content] of Object.entries(options.files ?? {})) {
    mkdirSync(dirname(join(dir, path)), { recursive: true });
    writeFileSync(join(dir, path), typeof content === "number" ? pattern(content) : content);
  }
  const clock = new HandClock();
  // Boards are asked after they have started.
  clock.advance(60_000);
  const stats = emptyStats();
  const disk = new Disk(dir);
  const packet = emptyPacket();
  const out = Buffer.alloc(FTP_PAYLOAD);
  const answers: Timed[] = [];
  const server = autopilotNamed(autopilot).ftp({
    disk,
    link: linkModel(options.link ?? "none"),
    clock,
    random: seeded(1),
    stats,
    crcBytesPerSecond: options.crcBytesPerSecond ?? Infinity,
    readMost: options.readMost ?? FTP_DATA_MAX,
    freeRing: options.freeRing ?? (() => 16_384),
    radioFree: options.radioFree ?? (() => 100),
    send(payload, length) {
      const whole = Buffer.alloc(FTP_PAYLOAD);
      payload.copy(whole, 0, 0, length);
      const { targetSystem, targetComponent, ...rest } = decodeFtp(whole, packet);
      answers.push({ ...rest, data: dataOf(packet), toSystem: targetSystem, toComponent: targetComponent, atMs: clock.now() });
    },
  });
  t.after(() => server.stop());
  let seq = 100;
  const send: Server["send"] = (opcode, fields = {}) => {
    seq = fields.seq ?? seq + 7;
    const data = Buffer.from(fields.data ?? "");
    const { session = 0, offset = 0, size = data.length } = fields;
    out.fill(0);
    encodeFtp({ targetSystem: 1, targetComponent: 1, seq, opcode, session, offset, size, data }, out);
    server.request(decodeFtp(out, emptyPacket()), { system: 1, component: 191, channel: 0, wireBytes: 27, ...fields.from });
  };
  return {
    clock,
    stats,
    disk,
    dir,
    answers,
    send,
    ask(opcode, fields) {
      const before = answers.length;
      send(opcode, fields);
      for (let ms = 0; ms < 1000 && answers.length === before; ms++) clock.advance(1);
      const answer = answers[before];
      if (answer === undefined) throw new Error(`no answer to ${opcode}`);
      return answer;
    },
    within(ms) {
      const before = answers.length;
      clock.advance(ms);
      return answers.slice(before);
    },
    openSessions: () => server.openSessions(),
    slowsStreams: (channel) => server.slowsStreams?.(channel) === true,
    stop: () => server.stop(),
  };
}

/** "ACK", or the NAK with what it carries. */
export function says(answer: Answer): string {
  return answer.opcode === Op.Ack ? "ACK" : `NAK ${[...answer.data].join(" ")}`;
}

/** Opens a file, and fails where that is refused; its session. */
export function open(server: Server, path: string, session = 9): number {
  const answer = server.ask(Op.OpenFileRO, { session, data: path });
  if (answer.opcode !== Op.Ack) throw new Error(`${path} was not opened: ${says(answer)}, not ${Nak.None}`);
  return answer.session;
}
