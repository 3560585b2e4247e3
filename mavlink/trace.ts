/**
 * A trace of a MAVLink FTP session: who asked what when, and what came back, without the content of any file. It is what a bug report brings, and
 * what the simulator plays again.
 *
 * Text, one JSON value a line. The first line is an object: `{"trace":"filesync-mavftp","version":1,"autopilot":3,"firmware":"4.6.3","link":"…"}`.
 * Each further line is an array; times are milliseconds since the trace began, to a tenth:
 *
 *     [ms, ">", opcode, seq, session, offset, size, path?]                                a request
 *     [ms, "<", opcode, seq, session, offset, size, reqOpcode, burstComplete, more?]      a reply; opcode 128 or 129
 *     [ms, "!", event]                                                                    armed, disarmed, lost, back or boot
 *
 * `more` is [code, errno] of a refusal; the file's size where one was opened; and of a listing {zeros, entries}, where zeros are those behind an
 * entry, and an entry is [kind, name, size?, time?]. Checksums and data are left out: only their size is told. A part of a path that is no usual
 * name of a log or its directory is replaced by one of the same length, the same one everywhere. What a later version adds is ignored.
 */
import { FTP_DATA_AT, FTP_DATA_MAX, nakOf, Op, type FtpPacket } from "./ftp.js";

export interface TraceHead {
  /** MAV_AUTOPILOT. */
  readonly autopilot: number;
  /** "4.6.3"; "" where it is not known. */
  readonly firmware: string;
  /** For people: "serial:///dev/ttyACM0:57600". */
  readonly link: string;
}

const traceEvents = ["armed", "disarmed", "lost", "back", "boot"] as const;
/** lost, back: the heartbeat. */
export type TraceEvent = (typeof traceEvents)[number];

export interface TracedRequest {
  readonly kind: "request";
  readonly ms: number;
  readonly opcode: number;
  readonly seq: number;
  readonly session: number;
  readonly offset: number;
  readonly size: number;
  /** Where the request has one. */
  readonly path: string | undefined;
}

/** One entry of a listing: "F", "D" or "S"; anything else is a first byte that is not known. */
export type TracedEntry = readonly [kind: string, name: string, size?: number, time?: number];

export interface TracedReply {
  readonly kind: "reply";
  readonly ms: number;
  readonly opcode: number;
  readonly seq: number;
  readonly session: number;
  readonly offset: number;
  readonly size: number;
  readonly reqOpcode: number;
  readonly burstComplete: number;
  readonly refusal?: readonly [code: number, errno: number];
  readonly fileSize?: number;
  readonly listing?: { readonly zeros: number; readonly entries: readonly TracedEntry[] };
}

export interface TracedMoment {
  readonly kind: "event";
  readonly ms: number;
  readonly event: TraceEvent;
}

export interface Trace {
  readonly head: TraceHead;
  readonly rows: readonly (TracedRequest | TracedReply | TracedMoment)[];
}

const FORMAT = "filesync-mavftp";
const withPath: readonly number[] = [
  ...[Op.ListDirectory, Op.OpenFileRO, Op.CreateFile, Op.RemoveFile, Op.CreateDirectory, Op.RemoveDirectory, Op.OpenFileWO],
  ...[Op.TruncateFile, Op.CalcFileCRC32, Op.ListDirectoryWithTime],
];

/** The first line of a trace. */
export function headLine(head: TraceHead): string {
  return JSON.stringify({ trace: FORMAT, version: 1, ...head });
}

/** Writes a trace, line by line. Packets are read during the call only. */
export class TraceWriter {
  readonly #write: (line: string) => void;
  readonly #names = new Names();

  /** `write` gets lines without their end. Without a head the caller writes the first line (`headLine`). */
  constructor(write: (line: string) => void, head?: TraceHead) {
    this.#write = write;
    if (head !== undefined) write(headLine(head));
  }

  request(ms: number, packet: FtpPacket): void {
    const { opcode, seq, session, offset, size } = packet;
    const row: unknown[] = [tenth(ms), ">", opcode, seq, session, offset, size];
    if (withPath.includes(opcode)) row.push(this.#names.path(textOf(packet)));
    this.#write(JSON.stringify(row));
  }

  reply(ms: number, packet: FtpPacket): void {
    const { opcode, seq, session, offset, size, reqOpcode, burstComplete } = packet;
    const row: unknown[] = [tenth(ms), "<", opcode, seq, session, offset, size, reqOpcode, burstComplete];
    if (opcode === Op.Nak) {
      const { code, errno } = nakOf(packet);
      row.push([code, errno]);
    } else if (reqOpcode === Op.OpenFileRO && size >= 4) row.push(packet.payload.readUInt32LE(FTP_DATA_AT));
    else if (reqOpcode === Op.ListDirectory || reqOpcode === Op.ListDirectoryWithTime) row.push(this.#listing(textOf(packet)));
    this.#write(JSON.stringify(row));
  }

  event(ms: number, event: TraceEvent): void {
    this.#write(JSON.stringify([tenth(ms), "!", event]));
  }

  #listing(text: string): { zeros: number; entries: TracedEntry[] } {
    const entries = text.split("\0").filter((entry) => entry !== "");
    const zeros = entries.length === 0 ? 1 : Math.max(1, Math.round((text.split("\0").length - 1) / entries.length));
    return {
      zeros,
      entries: entries.map((entry): TracedEntry => {
        const [name = "", ...numbers] = entry.slice(1).split("\t");
        return [entry.slice(0, 1), this.#names.part(name), ...(numbers.map(Number) as [number?, number?])];
      }),
    };
  }
}

/** Reads a trace. A last line that was cut off is left out; anything else that is wrong throws an error that names its line. */
export function readTrace(text: string): Trace {
  const lines = text.split("\n");
  const rows: (TracedRequest | TracedReply | TracedMoment)[] = [];
  let head: TraceHead | undefined;
  for (const [n, line] of lines.entries()) {
    if (line.trim() === "") continue;
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      // What was being written when the power went.
      if (n === lines.length - 1 && head !== undefined) break;
      throw new Error(`line ${n + 1} of the trace is no JSON`);
    }
    if (head === undefined) head = headOf(value);
    else {
      const row = rowOf(value);
      if (row === undefined) throw new Error(`line ${n + 1} of the trace is none of its rows`);
      rows.push(row);
    }
  }
  if (head === undefined) throw new Error("the trace is empty");
  return { head, rows };
}

function headOf(value: unknown): TraceHead {
  if (typeof value !== "object" || value === null || !("trace" in value) || value.trace !== FORMAT)
    throw new Error(`line 1 is not the head of a trace ("trace":"${FORMAT}")`);
  const { version, autopilot, firmware, link } = value as Record<string, unknown>;
  if (version !== 1) throw new Error(`the trace has version ${String(version)}; known: 1`);
  const text = (part: unknown): string => (typeof part === "string" ? part : "");
  return { autopilot: Number(autopilot ?? 0), firmware: text(firmware), link: text(link) };
}

function rowOf(value: unknown): TracedRequest | TracedReply | TracedMoment | undefined {
  if (!Array.isArray(value)) return undefined;
  const [ms, way, ...rest] = value as unknown[];
  if (typeof ms !== "number") return undefined;
  if (way === "!") {
    const event = traceEvents.find((known) => known === rest[0]);
    return event === undefined ? undefined : { kind: "event", ms, event };
  }
  const numbers = rest.slice(0, way === ">" ? 5 : 7);
  if ((way !== ">" && way !== "<") || numbers.length < (way === ">" ? 5 : 7)) return undefined;
  if (!numbers.every((number) => typeof number === "number")) return undefined;
  const [opcode = 0, seq = 0, session = 0, offset = 0, size = 0, reqOpcode = 0, burstComplete = 0] = numbers;
  const base = { ms, opcode, seq, session, offset, size };
  if (way === ">") return { kind: "request", ...base, path: typeof rest[5] === "string" ? rest[5] : undefined };
  return { kind: "reply", ...base, reqOpcode, burstComplete, ...moreOf(opcode, rest[7]) };
}

function moreOf(opcode: number, more: unknown): Pick<TracedReply, "refusal" | "fileSize" | "listing"> {
  if (opcode === Op.Nak && Array.isArray(more)) return { refusal: [Number(more[0]), Number(more[1])] };
  if (typeof more === "number") return { fileSize: more };
  if (typeof more !== "object" || more === null || !("entries" in more) || !Array.isArray(more.entries)) return {};
  const zeros = "zeros" in more ? Number(more.zeros) : 1;
  return { listing: { zeros, entries: more.entries as TracedEntry[] } };
}

function textOf(packet: FtpPacket): string {
  return packet.payload.toString("latin1", FTP_DATA_AT, FTP_DATA_AT + Math.min(packet.size, FTP_DATA_MAX));
}

function tenth(ms: number): number {
  return Math.round(ms * 10) / 10;
}

/** Names that say nothing of anybody: of logs, and of the directories where autopilots keep them. */
const usual = /^(?:|\.|\.\.|[\d_-]+(?:\.(?:ulg|bin|ulge|ulgc))?|(?:sess|log)\d+(?:\.ulg)?|@[A-Z_]+|fs|microsd|log|logs|APM|LASTLOG\.TXT)$/i;

/** Other names for names: as long, and the same one for the same. */
class Names {
  readonly #known = new Map<string, string>();

  path(text: string): string {
    return text
      .split("/")
      .map((part) => this.part(part))
      .join("/");
  }

  part(name: string): string {
    if (usual.test(name)) return name;
    let other = this.#known.get(name);
    if (other === undefined) {
      const end = /\.[A-Za-z0-9]{1,4}$/.exec(name)?.[0] ?? "";
      const number = this.#known.size.toString(36);
      other = number.padStart(name.length - end.length, "x").slice(-Math.max(0, name.length - end.length)) + end;
      this.#known.set(name, other);
    }
    return other;
  }
}
