/**
 * An autopilot that does what a trace says: each request gets the replies that the same request got then, as late as then, or none where none came.
 *
 * The same request is one with the same opcode at the same place of the same file or directory; the second of them gets the second's
 * replies. One that is not in the trace, or comes once more than in it, is answered plainly: data inside of files and their checksums, refusals elsewhere. Files hold
 * made-up bytes (`madeBytes` of their offsets), because a trace holds none.
 */
import { crc32 } from "node:zlib";
import { encodeFtp, FTP_DATA_MAX, FTP_PAYLOAD, Nak, Op, opName, type FtpPacket } from "../mavlink/ftp.js";
import type { Trace, TracedReply, TracedRequest } from "../mavlink/trace.js";
import type { Autopilot, FtpServer, FtpSurroundings, Sender } from "./autopilot.js";
import { madeBytes } from "./disk-file.js";
import { nothing, pathOf, u32 } from "./refusal.js";

interface Exchange {
  readonly request: TracedRequest;
  readonly replies: TracedReply[];
}

/** The autopilot of a trace. */
export function replayOf(trace: Trace): Autopilot {
  const [major = 0, minor = 0, patch = 0] = trace.head.firmware.split(".").map(Number);
  const exchanges = exchangesOf(trace);
  return {
    name: "replay",
    autopilot: trace.head.autopilot,
    version: [major, minor, patch],
    transmitRing: Infinity,
    serverPerLink: false,
    logDir: "/",
    firstLog: "",
    sessions: 1,
    parameterFile: "/parameters",
    settings: {},
    tellsStorage: false,
    ftp: (surroundings) => new ReplayFtp(surroundings, exchanges),
  };
}

/** Replies by what was asked for, in order. */
export function exchangesOf(trace: Trace): Map<string, Exchange[]> {
  const all = new Map<string, Exchange[]>();
  const bySeq = new Map<number, Exchange>();
  const files = new OpenFile();
  let burst: Exchange | undefined;
  for (const row of trace.rows) {
    if (row.kind === "request") {
      const exchange = { request: row, replies: [] };
      bySeq.set(row.seq, exchange);
      if (row.opcode === Op.BurstReadFile) burst = exchange;
      const key = files.key(row.opcode, row.offset, row.path);
      all.set(key, [...(all.get(key) ?? []), exchange]);
    } else if (row.kind === "reply") {
      // The packets of a burst have numbers of their own.
      const exchange = row.reqOpcode === Op.BurstReadFile ? burst : bySeq.get((row.seq - 1) & 0xffff);
      exchange?.replies.push(row);
    }
  }
  return all;
}

/** Which file reads are about: the one that was asked for last. */
class OpenFile {
  #path = "";

  key(opcode: number, offset: number, path: string | undefined): string {
    if (opcode === Op.OpenFileRO) this.#path = path ?? "";
    if (opcode === Op.ReadFile || opcode === Op.BurstReadFile) return `${opcode} ${offset} ${this.#path}`;
    return path === undefined ? String(opcode) : `${opcode} ${offset} ${path}`;
  }

  get path(): string {
    return this.#path;
  }
}

class ReplayFtp implements FtpServer {
  readonly #env: FtpSurroundings;
  readonly #exchanges: ReadonlyMap<string, readonly Exchange[]>;
  readonly #played = new Map<string, number>();
  readonly #sizes = new Map<string, number>();
  readonly #files = new OpenFile();
  readonly #out = Buffer.alloc(FTP_PAYLOAD);
  readonly #pending = new Set<() => void>();

  constructor(env: FtpSurroundings, exchanges: ReadonlyMap<string, readonly Exchange[]>) {
    this.#env = env;
    this.#exchanges = exchanges;
    for (const [, list] of exchanges)
      for (const { request, replies } of list)
        for (const { fileSize } of replies) if (fileSize !== undefined) this.#sizes.set(request.path ?? "", fileSize);
  }

  request(packet: FtpPacket, from: Sender): void {
    const { stats } = this.#env;
    const name = opName(packet.opcode);
    stats.requests[name] = (stats.requests[name] ?? 0) + 1;
    const path = hasPath(packet.opcode) ? pathOf(packet).toString("latin1") : undefined;
    const key = this.#files.key(packet.opcode, packet.offset, path);
    const list = this.#exchanges.get(key) ?? [];
    const at = this.#played.get(key) ?? 0;
    this.#played.set(key, at + 1);
    const exchange = list[at] ?? list.findLast(({ replies }) => replies.length > 0);
    const asked = { ...packet, payload: nothing };
    if (exchange === undefined) {
      stats.notInTrace += 1;
      this.#plainly(asked, path, from);
      return;
    }
    if (exchange.replies.length === 0) stats.lostInTrace += 1;
    for (const reply of exchange.replies)
      this.#later(reply.ms - exchange.request.ms, () => this.#play(asked, from, exchange.request, reply));
  }

  pause(): void {
    // A trace has its own delays.
  }

  stop(): void {
    for (const forget of this.#pending) forget();
    this.#pending.clear();
    this.#played.clear();
  }

  openSessions(): number {
    return 0;
  }

  #later(ms: number, run: () => void): void {
    const forget = this.#env.clock.after(ms, () => {
      this.#pending.delete(forget);
      run();
    });
    this.#pending.add(forget);
  }

  #play(asked: FtpPacket, to: Sender, then: TracedRequest, reply: TracedReply): void {
    const fields = {
      seq: (asked.seq + reply.seq - then.seq) & 0xffff,
      // Where the session was repeated, this client's is.
      session: reply.session === then.session ? asked.session : reply.session,
      opcode: reply.opcode,
      reqOpcode: reply.reqOpcode,
      burstComplete: reply.burstComplete,
      offset: reply.offset,
    };
    this.#send(to, { ...fields, data: this.#dataOf(reply, then) });
  }

  #dataOf(reply: TracedReply, then: TracedRequest): Uint8Array {
    if (reply.refusal !== undefined) return Uint8Array.from(reply.refusal.slice(0, reply.size));
    if (reply.fileSize !== undefined) return u32(reply.fileSize);
    if (reply.listing !== undefined) return listingData(reply.listing);
    if (reply.reqOpcode === Op.CalcFileCRC32) return u32(this.#crc(then.path ?? ""));
    if (reply.reqOpcode !== Op.ReadFile && reply.reqOpcode !== Op.BurstReadFile) return Buffer.alloc(Math.min(reply.size, FTP_DATA_MAX));
    const n = Math.min(reply.size, FTP_DATA_MAX);
    this.#env.stats.payloadBytes += n;
    return madeBytes(reply.offset, n);
  }

  #crc(path: string): number {
    const bytes = madeBytes(0, this.#sizes.get(path) ?? 0);
    return (crc32(bytes, 0xffffffff) ^ 0xffffffff) >>> 0;
  }

  /** What is not in the trace. */
  #plainly(asked: FtpPacket, path: string | undefined, to: Sender): void {
    const base = { seq: (asked.seq + 1) & 0xffff, session: asked.session, reqOpcode: asked.opcode, offset: asked.offset };
    const left = (this.#sizes.get(this.#files.path) ?? 0) - asked.offset;
    if (asked.opcode === Op.ReadFile && left > 0) {
      const data = madeBytes(asked.offset, Math.min(asked.size, left, FTP_DATA_MAX));
      this.#env.stats.payloadBytes += data.length;
      this.#send(to, { ...base, opcode: Op.Ack, data });
      return;
    }
    if (asked.opcode === Op.CalcFileCRC32 && path !== undefined && this.#sizes.has(path)) {
      this.#send(to, { ...base, opcode: Op.Ack, data: u32(this.#crc(path)) });
      return;
    }
    const ends: readonly number[] = [Op.None, Op.TerminateSession, Op.ResetSessions];
    if (ends.includes(asked.opcode)) {
      this.#send(to, { ...base, opcode: Op.Ack });
      return;
    }
    const code = asked.opcode === Op.ReadFile ? Nak.Eof : hasPath(asked.opcode) ? Nak.FileNotFound : Nak.UnknownCommand;
    this.#send(to, { ...base, opcode: Op.Nak, data: Uint8Array.of(code) });
  }

  #send(to: Sender, fields: Omit<Parameters<typeof encodeFtp>[0], "targetSystem" | "targetComponent">): void {
    const length = encodeFtp({ ...fields, targetSystem: to.system, targetComponent: to.component }, this.#out);
    this.#env.send(this.#out, length, to.channel);
  }
}

function hasPath(opcode: number): boolean {
  const those: readonly number[] = [Op.ListDirectory, Op.ListDirectoryWithTime, Op.OpenFileRO, Op.CalcFileCRC32];
  return those.includes(opcode);
}

function listingData({ zeros, entries }: NonNullable<TracedReply["listing"]>): Buffer {
  const end = "\0".repeat(zeros);
  const text = entries.map(([kind, name, ...numbers]) => `${[kind + name, ...numbers].join("\t")}${end}`).join("");
  return Buffer.from(text, "latin1").subarray(0, FTP_DATA_MAX);
}
