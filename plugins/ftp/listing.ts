/**
 * Listings as servers send them: MLSD and MLST facts (RFC 3659), `ls -l` lines, and those of DOS.
 *
 * Pure functions over text of one character per byte. A line that cannot be read gives an entry that says so: it costs only itself. LIST
 * lines have no time that can be trusted (no zone, often no year), so none is given.
 */
import { holdsControls, nameFromWire } from "./wire.js";

export interface Listed {
  readonly name: string;
  readonly kind: "file" | "directory" | "unreadable";
  readonly special?: true;
  readonly reason?: string;
  readonly size: number;
  readonly modifiedMs?: number;
}

/** Milliseconds of YYYYMMDDHHMMSS[.sss] in UTC; undefined for anything else, also for a 31st of February. */
export function parseTime(text: string): number | undefined {
  const match = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(?:\.(\d{1,6}))?$/.exec(text.trim());
  if (match === null) return undefined;
  const [year, month, day, hour, minute, second] = match.slice(1, 7).map(Number) as [number, number, number, number, number, number];
  const ms = Date.UTC(year, month - 1, day, hour, minute, second);
  if (timeText(ms) !== match.slice(1, 7).join("")) return undefined;
  return ms + Math.trunc(Number(`0.${match[7] ?? "0"}`) * 1000);
}

/** YYYYMMDDHHMMSS in UTC. */
export function timeText(ms: number): string {
  return new Date(ms).toISOString().slice(0, 19).replace(/[-T:]/g, "");
}

/** A line of MLSD, or of MLST without its leading space; undefined for the directory itself and its parent. */
export function parseFacts(line: string): Listed | undefined {
  return usable(factsOf(line));
}

function factsOf(line: string): Listed | undefined {
  const space = line.indexOf(" ");
  const name = line.slice(space + 1);
  const facts = new Map<string, string>();
  for (const fact of line.slice(0, Math.max(0, space)).split(";")) {
    const at = fact.indexOf("=");
    if (at > 0) facts.set(fact.slice(0, at).toLowerCase(), fact.slice(at + 1));
  }
  const type = facts.get("type")?.toLowerCase();
  if (type === "cdir" || type === "pdir" || name === "." || name === "..") return undefined;
  if (space < 0 || name === "" || type === undefined) return unknown(line);
  const modifiedMs = parseTime(facts.get("modify") ?? "");
  // Not "unique": it holds the device's number at the server, which is another one after a replug or a restart.
  const stamp = modifiedMs === undefined ? {} : { modifiedMs };
  if (type === "dir") return { name, kind: "directory", size: 0, ...stamp };
  if (type !== "file") {
    const reason = type.includes("link") ? "a symbolic link" : `no plain file (${nameFromWire(type)})`;
    return { name, kind: "unreadable", reason, special: true, size: 0 };
  }
  const size = facts.get("size") ?? "";
  return { name, kind: "file", size: /^\d+$/.test(size) ? Number(size) : NaN, ...stamp };
}

/** One space before the name: those that follow belong to it. The group is missing on some small servers. */
const unix =
  /^([-bcdlps])[-rwxsStTlL]{9}[.+@]?\s+\d+\s+\S+\s+(?:\S+\s+)?(\d+)\s+(?:[A-Za-z]{3}\s+\d{1,2}|\d{1,2}\s+[A-Za-z]{3}|\d{4}-\d\d-\d\d)\s+(?:\d{1,2}:\d\d(?::\d\d)?|\d{4}) (.+)$/s;
const dos = /^\d\d-\d\d-\d{2,4}\s+\d\d:\d\d\s*(?:[AP]M)?\s+(<DIR>|<JUNCTION>|<SYMLINKD?>|\d+)\s+(.+)$/is;

/** A line of LIST; undefined for one that tells of no entry. */
export function parseListLine(line: string): Listed | undefined {
  return usable(entryOfList(line));
}

function entryOfList(line: string): Listed | undefined {
  if (line.trim() === "" || /^total \d+/.test(line)) return undefined;
  const found = unix.exec(line);
  if (found !== null) {
    const [, kind = "", size = "", name = ""] = found;
    if (name === "." || name === "..") return undefined;
    if (kind === "d") return { name, kind: "directory", size: 0 };
    if (kind === "-") return { name, kind: "file", size: Number(size) };
    if (kind !== "l") return { name, kind: "unreadable", reason: "no plain file", special: true, size: 0 };
    return { name: name.replace(/ -> .*$/, ""), kind: "unreadable", reason: "a symbolic link", special: true, size: 0 };
  }
  const [, what, name = ""] = dos.exec(line) ?? [];
  if (what === undefined) return unknown(line);
  if (name === "." || name === "..") return undefined;
  if (/^\d+$/.test(what)) return { name, kind: "file", size: Number(what) };
  if (what.toUpperCase() === "<DIR>") return { name, kind: "directory", size: 0 };
  return { name, kind: "unreadable", reason: "a link", size: 0 };
}

function unknown(line: string): Listed {
  return { name: line.trim(), kind: "unreadable", reason: "the server listed this in a form that is not known", size: 0 };
}

/** No file system has a longer name; there are servers that list one. */
const longestName = 1024;

/**
 * With the name as core writes it, where it came as it was listed. What cannot be a file of this directory is told as such: it would be lost without a
 * word, or be asked for in vain each time.
 */
function usable(listed: Listed | undefined): Listed | undefined {
  if (listed === undefined) return undefined;
  const { kind, size, reason } = listed;
  const name = nameFromWire(listed.name);
  if (kind === "unreadable") return unreadable(name, reason);
  if (name.includes("/")) return unreadable(name, "the server lists it with a path in place of a name");
  if (name.length > longestName) return unreadable(name, `its name has ${name.length} characters`);
  if (kind === "file" && !Number.isSafeInteger(size)) return unreadable(name, "listed without a size");
  if (holdsControls(listed.name)) return unreadable(name, "its name holds control characters, which are never sent to an FTP server");
  return { ...listed, name };
}

function unreadable(name: string, reason = ""): Listed {
  return { name: name.replaceAll("/", "|").slice(0, 200), kind: "unreadable", reason, size: 0 };
}
