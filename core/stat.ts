/** What the file system says of a file, as core says it. */
import { constants, type BigIntStats } from "node:fs";
import { faultOfErrno } from "./errors.js";
import type { FileEntry, Stamp } from "./plugin.js";

/** For reading a plain file; never through a link at its end, and never held up by a pipe. */
export const openFlags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** A link or special file is `unreadable`, with what it is. */
export function entryOf(path: string, stat: BigIntStats): FileEntry {
  if (!stat.isFile() && !stat.isDirectory()) return { path, kind: "unreadable", size: 0, reason: kindOf(stat) };
  return {
    path,
    kind: stat.isDirectory() ? "directory" : "file",
    size: Number(stat.size),
    modifiedMs: Number(stat.mtimeNs / 1000n) / 1000,
    inode: String(stat.ino),
  };
}

export function kindOf(stat: { isSymbolicLink(): boolean; isFIFO(): boolean; isSocket(): boolean }): string {
  return stat.isSymbolicLink() ? "a symbolic link" : stat.isFIFO() ? "a pipe" : stat.isSocket() ? "a socket" : "not a plain file";
}

/**
 * What a listing says of something that could not be looked at: that it is `unreadable`, or, where it vanished meanwhile, nothing. Throws "offline":
 * that is the whole device's.
 */
export function entryInstead(path: string, error: unknown): FileEntry | undefined {
  const fault = faultOfErrno(error, `cannot look at ${path}`);
  if (fault.kind === "offline") throw fault;
  return fault.kind === "missing" ? undefined : { path, kind: "unreadable", size: 0, reason: fault.message };
}

/** Why a file is not the one of this stamp any more; undefined when it is, or (unless `exact`) only grew. */
export function otherThan(was: Stamp, now: Stamp, exact = false): string | undefined {
  if (now.size < was.size || (exact && now.size > was.size)) return `it has ${now.size} bytes now, not ${was.size}`;
  if (now.size === was.size && was.modifiedMs !== undefined && now.modifiedMs !== undefined && now.modifiedMs !== was.modifiedMs)
    return "it was written since it was found";
  return undefined;
}
