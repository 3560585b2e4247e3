/**
 * What ListDirectory answers, in the dialects of the autopilots, made into entries; and the tree below a directory.
 *
 * PX4 counts "S" entries for what it leaves out; ArduPilot up to 4.6 puts a second zero after each entry, which counts for nothing. The end is
 * a NAK Eof, or an answer without entries. Names are bytes. An entry that cannot be understood costs only itself.
 */
import { Fault, isFault } from "../../core/errors.js";
import { bytesFromName, isSafePath, nameFromBytes } from "../../core/names.js";
import { parentOf } from "../../core/paths.js";
import type { FileEntry } from "../../core/plugin.js";
import { FTP_DATA_MAX, Nak, Op } from "../../mavlink/ftp.js";
import { Refused, refusal } from "./refusals.js";
import type { Patience, Reply, Request } from "./requests.js";

/** One request in its turn. */
export type Ask = (request: Omit<Request, "session">, patience?: Patience) => Promise<Reply>;

/** What an autopilot understands, found out once per boot. */
export interface Dialect {
  /** It knows ListDirectoryWithTime (PX4 from 1.18 on, ArduPilot from 4.8 on); undefined: not asked yet. */
  timed: boolean | undefined;
  /** By directory and name: the offset of the request whose answer had it when that was listed last. */
  readonly places?: Map<string, ReadonlyMap<string, number>>;
}

/** One directory's entry; `size` with files; `wrong`: why it cannot be used. */
export interface Listed {
  readonly name: string;
  readonly kind: "file" | "directory" | "unreadable";
  readonly size: number;
  /** Of the last change; absent where the autopilot did not say. */
  readonly modifiedMs?: number;
  readonly wrong?: string;
}

/** More entries than any card holds: the autopilot goes in circles. */
const ENTRIES_MAX = 100_000;
/** How long a listing with times is asked for before its silence is taken for a no. */
const TIMED_MS = 4000;
/** A card without a clock writes 1980. */
const PLAUSIBLE_S = Date.UTC(2010, 0, 1) / 1000;

/** The entries in one answer, and how many of them the next request has to skip. `timed`: of ListDirectoryWithTime. */
export function parseEntries(data: Buffer, timed = false): { readonly entries: Listed[]; readonly count: number } {
  const entries: Listed[] = [];
  let count = 0;
  for (let from = 0; from < data.length;) {
    const zero = data.indexOf(0, from);
    const end = zero === -1 ? data.length : zero;
    if (end > from) {
      count += 1;
      const entry = parseEntry(data.subarray(from, end), timed);
      if (entry !== undefined) entries.push(entry);
    }
    from = end + 1;
  }
  return { entries, count };
}

/** Undefined for what the autopilot leaves out, and for "." and "..". */
function parseEntry(whole: Buffer, timed: boolean): Listed | undefined {
  const type = String.fromCharCode(whole[0] ?? 0);
  if (type === "S") return undefined;
  // Behind the last tab: with times the time, before it the size, with directories too.
  const timeAt = timed ? whole.lastIndexOf(0x09) : -1;
  const text = timeAt > 0 ? whole.subarray(0, timeAt) : whole;
  const tab = text.lastIndexOf(0x09);
  const name = nameFromBytes(text.subarray(1, (type === "F" || timeAt > 0) && tab > 0 ? tab : undefined));
  if (name === "." || name === "..") return undefined;
  if (type !== "F" && type !== "D")
    return { name: nameFromBytes(text), kind: "unreadable", size: 0, wrong: "the autopilot lists it in a way that is not known" };
  if (name === "") return { name: "?", kind: "unreadable", size: 0, wrong: "the autopilot lists it without a name" };
  if (!isSafePath(name) || name.includes("/"))
    return { name: name.replaceAll("/", "_"), kind: "unreadable", size: 0, wrong: "its name cannot be used as a name" };
  if (type === "D") return { name, kind: "directory", size: 0 };
  const size = tab > 0 ? text.toString("latin1", tab + 1) : "";
  if (!/^\d{1,10}$/.test(size)) return { name, kind: "unreadable", size: 0, wrong: "the autopilot lists it without a size" };
  const seconds = timeAt > 0 ? Number(whole.toString("latin1", timeAt + 1)) : 0;
  return { name, kind: "file", size: Number(size), ...(seconds >= PLAUSIBLE_S ? { modifiedMs: seconds * 1000 } : {}) };
}

/**
 * All entries of one directory, with times where the autopilot knows how to say them: what that is, is kept in `dialect`. Throws "missing", or
 * "transient" where the card cannot be read.
 */
export async function listDirectory(ask: Ask, path: Buffer, dialect: Dialect = { timed: false }): Promise<Listed[]> {
  const found = new Map<string, Listed>();
  const places = new Map<string, number>();
  for (let offset = 0; offset < ENTRIES_MAX;) {
    const reply = await listOnce(ask, path, offset, dialect);
    if (reply.nak === Nak.Eof) break;
    // PX4 names an end after an errno that an earlier call has left behind (errno EEXIST, mavlink_ftp.cpp); a listing has no such error of its own.
    if (reply.nak === Nak.FileExists && offset > 0) break;
    if (reply.nak !== undefined) throw refusal("list a directory", reply);
    const { entries, count } = parseEntries(reply.data, dialect.timed);
    if (count === 0) break;
    const before = found.size;
    for (const entry of entries) {
      found.set(entry.name, entry);
      places.set(entry.name, offset);
    }
    // Nothing but what was there already: it does not heed the offset.
    if (entries.length > 0 && found.size === before) break;
    offset += count;
  }
  dialect.places?.set(path.toString("latin1"), places);
  return [...found.values()];
}

/**
 * One entry of a directory, by the one request that had it when all of that was listed last: that of each file of a large directory would cost
 * hundreds. Undefined where it is not in the answer: it may have gone, or be at another place.
 */
export async function listedAgain(ask: Ask, path: Buffer, name: string, dialect: Dialect): Promise<Listed | undefined> {
  const offset = dialect.places?.get(path.toString("latin1"))?.get(name);
  if (offset === undefined) return undefined;
  const reply = await listOnce(ask, path, offset, dialect);
  return reply.nak === undefined ? parseEntries(reply.data, dialect.timed).entries.findLast((entry) => entry.name === name) : undefined;
}

async function listOnce(ask: Ask, path: Buffer, offset: number, dialect: Dialect): Promise<Reply> {
  if (dialect.timed !== false) {
    const first = dialect.timed === undefined;
    try {
      const reply = await ask({ opcode: Op.ListDirectoryWithTime, offset, data: path }, first ? { totalMs: TIMED_MS } : {});
      // UnknownCommand, from ArduPilot up to 4.7 Fail, from PX4 whatever an errno of before says: the old way tells what is wrong.
      const unknown = first && reply.nak !== undefined && reply.nak !== Nak.Eof && reply.nak !== Nak.FileNotFound;
      if (!unknown) {
        dialect.timed = true;
        return reply;
      }
    } catch (error) {
      // A server may answer nothing to what it does not know (mavlink_ftp_server.cpp of MAVSDK).
      if (!first || !isFault(error, "transient")) throw error;
    }
  }
  const reply = await ask({ opcode: Op.ListDirectory, offset, data: path });
  if (reply.nak === undefined || reply.nak === Nak.Eof || reply.nak === Nak.FileNotFound) dialect.timed = false;
  return reply;
}

export interface TreeOptions {
  /** Without a "/" at its end; "" for the whole file system. */
  readonly root: string;
  readonly enter?: ((dir: string) => boolean) | undefined;
  readonly directories?: true | undefined;
  readonly dialect?: Dialect;
}

/** The path on the autopilot; "/" for the empty one. Throws "rejected" where it does not fit into a packet. */
export function pathBytes(root: string, path: string): Buffer {
  const whole = wholePath(root, path);
  if (whole.length > FTP_DATA_MAX) throw new Fault("rejected", tooLong(whole.length));
  return whole;
}

function wholePath(root: string, path: string): Buffer {
  const whole = path === "" ? Buffer.from(root) : Buffer.concat([Buffer.from(`${root}/`), bytesFromName(path)]);
  return whole.length === 0 ? Buffer.from("/") : whole;
}

function tooLong(bytes: number): string {
  return `its path has ${bytes} bytes on the autopilot, and MAVLink FTP takes ${FTP_DATA_MAX}`;
}

/** Files and unreadable things below the root, and directories where they are wanted (`ListOptions`). Throws "denied" where there is no root, "transient" where the card cannot be read. */
export async function listTree(ask: Ask, options: TreeOptions): Promise<FileEntry[]> {
  const files: FileEntry[] = [];
  const dirs = [""];
  for (let dir = dirs.pop(); dir !== undefined; dir = dirs.pop()) {
    let listed: Listed[];
    try {
      listed = await listDirectory(ask, pathBytes(options.root, dir), options.dialect);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (dir === "") throw error.kind === "missing" ? noRoot(options.root) : error;
      // A directory that went meanwhile is no longer there; one that cannot be read costs only itself.
      if (error.kind === "transient") files.push({ path: dir, kind: "unreadable", size: 0, reason: error.message });
      continue;
    }
    if (options.directories === true && dir !== "") files.push({ path: dir, kind: "directory", size: 0 });
    for (const entry of listed) {
      const path = dir === "" ? entry.name : `${dir}/${entry.name}`;
      const { length } = wholePath(options.root, path);
      if (length > FTP_DATA_MAX) files.push({ path, kind: "unreadable", size: 0, reason: tooLong(length) });
      else if (entry.kind === "directory") {
        if (options.enter?.(path) !== false) dirs.push(path);
      } else files.push(entryOf(path, entry));
    }
  }
  return files;
}

export function noRoot(root: string): Fault {
  return new Fault("denied", `there is no ${root || "/"} on the autopilot: no SD card in it, nothing logged yet, or "root" is wrong`);
}

/** The contract's entry of a listed one. */
export function entryOf(path: string, listed: Listed): FileEntry {
  if (listed.kind === "unreadable")
    return { path, kind: "unreadable", size: 0, ...(listed.wrong === undefined ? {} : { reason: listed.wrong }) };
  // The time in a name stays the same through a change of firmware, so it goes first.
  const modifiedMs = timeInPath(path) ?? listed.modifiedMs;
  return { path, kind: listed.kind, size: listed.size, ...(modifiedMs === undefined || listed.kind === "directory" ? {} : { modifiedMs }) };
}

/** PX4 names a log by the moment, UTC, at which it began: 2024-05-17/13_05_59.ulg. Undefined where no plausible one stands there. */
export function timeInPath(path: string): number | undefined {
  const match = /(?:^|\/)(\d{4})-(\d\d)-(\d\d)\/(\d\d)_(\d\d)_(\d\d)(?![\d_])[^/]*$/.exec(path);
  if (match === null) return undefined;
  const [year, month, day, hour, minute, second] = match.slice(1).map(Number) as [number, number, number, number, number, number];
  const ms = Date.UTC(year, month - 1, day, hour, minute, second);
  const read = new Date(ms);
  const real = read.getUTCMonth() === month - 1 && read.getUTCDate() === day && hour < 24 && minute < 60 && second < 60;
  return real && year >= 2010 && year < 2100 ? ms : undefined;
}

/** By directory, what its LASTLOG.TXT says is the last log; "unread" where that could not be found out. */
export type LastNumbers = ReadonlyMap<string, number | "unread">;

/**
 * The entries with what is known of their being complete. Of each row of logs (dated directories, sessNNN, ArduPilot's numbers, others) the newest
 * may still be written: surely while armed; core finds out otherwise. The others are complete, once disarmed. The newest is the last by the order of
 * paths; of numbers that of `lastNumbers`, by directory, which ArduPilot keeps in LASTLOG.TXT because they begin again at 1, else the one of the latest
 * time, else the highest. "unread": any of them may be the newest, but those that are as they were when they were `complete`, by path and size.
 */
export function withSettled(
  entries: readonly FileEntry[],
  armed: boolean,
  lastNumbers: LastNumbers = new Map(),
  complete: ReadonlyMap<string, number> = new Map(),
): FileEntry[] {
  const newest = new Map<string, FileEntry>();
  for (const entry of entries) {
    const row = rowOf(entry.path);
    const before = newest.get(row);
    if (entry.kind === "file" && (before === undefined || isNewer(entry, before, lastNumbers))) newest.set(row, entry);
  }
  return entries.map((entry) => {
    if (entry.kind !== "file") return entry;
    const last = stemOf(newest.get(rowOf(entry.path))?.path ?? "") === stemOf(entry.path);
    if (armed) return last ? { ...entry, settled: false } : entry;
    const unread = logNumber(entry.path) !== undefined && lastNumbers.get(parentOf(entry.path)) === "unread";
    const unsure = unread ? complete.get(entry.path) !== entry.size : last;
    return unsure ? entry : { ...entry, settled: true };
  });
}

/** What belongs to one flight: a PX4 that encrypts has its log as `.ulgc` and the key to that as `.ulgk`. */
function stemOf(path: string): string {
  return path.replace(/\.[^./]*$/, "");
}

/** Of two in one row. */
function isNewer(a: FileEntry, b: FileEntry, lastNumbers: LastNumbers): boolean {
  const [numberA, numberB] = [logNumber(a.path), logNumber(b.path)];
  if (numberA === undefined || numberB === undefined) return a.path > b.path;
  const lastNumber = lastNumbers.get(parentOf(a.path));
  if (lastNumber !== undefined && (numberA === lastNumber) !== (numberB === lastNumber)) return numberA === lastNumber;
  if (a.modifiedMs !== undefined && b.modifiedMs !== undefined && a.modifiedMs !== b.modifiedMs) return a.modifiedMs > b.modifiedMs;
  return numberA > numberB;
}

/** Of an ArduPilot's log, 00000042.BIN; undefined for anything else. */
function logNumber(path: string): number | undefined {
  const match = /(?:^|\/)(\d{1,9})\.bin$/i.exec(path);
  return match === null ? undefined : Number(match[1]);
}

/** The file in which an ArduPilot keeps the number of its last log. */
export function isLastLog(path: string): boolean {
  return /(?:^|\/)LASTLOG\.TXT$/i.test(path);
}

/** The numbered logs of a directory but that one, with what a listing tells of them. */
export function besides(number: number, dir: string, entries: readonly FileEntry[]): string {
  const others = entries.filter(({ path }) => parentOf(path) === dir && ![undefined, number].includes(logNumber(path)));
  return others.map(({ path, size, modifiedMs }) => `${path} ${size} ${modifiedMs ?? ""}`).join("\n");
}

/** Those of one row are in one place, wherever below the root that is; without LASTLOG.TXT, which an ArduPilot keeps and writes anew, its numbers begin at 1. */
function rowOf(path: string): string {
  if (isLastLog(path)) return path;
  if (logNumber(path) !== undefined) return `numbered ${parentOf(path)}`;
  const match = /(?:^|\/)(?:(\d{4}-\d\d-\d\d)|sess\d+)\//.exec(path);
  if (match === null) return "other";
  return `${match[1] === undefined ? "sess" : "dated"} ${path.slice(0, match.index)}`;
}
