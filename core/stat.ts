/** What the file system says of a file, as core says it. */
import { constants, lstatSync, promises as fs, statfsSync, type BigIntStats } from "node:fs";
import { faultOfErrno } from "./errors.js";
import { bytesFromName } from "./names.js";
import { parentOf } from "./paths.js";
import type { FileEntry, Stamp } from "./plugin.js";

/** For reading a plain file; never through a link at its end, and never held up by a pipe. */
export const openFlags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** The years 0000 to 9999. */
const firstMs = Date.parse("0000-01-01T00:00:00Z");
const lastMs = Date.parse("9999-12-31T23:59:59.999Z");

/** Another one once the file was replaced or written. */
export function fileStamp({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): string {
  return [dev, ino, size, mtimeNs, ctimeNs].join(" ");
}

/** A file's time; none where no calendar and no protocol can tell it (a damaged inode, a clock gone wild). */
export function timeOf(ms: number): { readonly modifiedMs?: number } {
  return ms >= firstMs && ms <= lastMs ? { modifiedMs: ms } : {};
}

/**
 * A link or special file is `unreadable`, with what it is. `numbered`: the device on which inode numbers stay (`numberedAt`); what is there has an
 * identity, where its time of birth is told.
 */
export function entryOf(path: string, stat: BigIntStats, numbered?: bigint): FileEntry {
  if (!stat.isFile() && !stat.isDirectory()) return { path, kind: "unreadable", size: 0, reason: kindOf(stat) };
  const kind = stat.isDirectory() ? "directory" : "file";
  const size = Number(stat.size);
  const time = timeOf(Number(stat.mtimeNs / 1000n) / 1000);
  const inode = String(stat.ino);
  if (stat.dev !== numbered || stat.birthtimeNs === 0n) return { path, kind, size, ...time, inode };
  // Made at once: there may be a hundred thousand of them.
  return { path, kind, size, ...time, inode, identity: `${numbered}:${inode}:${stat.birthtimeNs}:${kind === "file" ? "f" : "d"}` };
}

/** File systems that make up an inode's number when they read it, and another one the next time (Linux, `iunique`): FAT, exFAT, CIFS, SMB. */
const madeUp: ReadonlySet<number> = new Set([0x4d44, 0x2011bab0, 0xff534d42, 0xfe534d42]);
let birthTold: boolean | undefined;

/** The device of a directory, where a file there keeps its inode's number for as long as it is. Who cannot look at it gets undefined: whoever looks at what is in it says why. */
export async function numberedAt(dir: string | Buffer): Promise<bigint | undefined> {
  if (!isBirthTold()) return undefined;
  const [at, system] = await Promise.allSettled([fs.lstat(dir, { bigint: true }), fs.statfs(dir)]);
  return at.status === "fulfilled" && system.status === "fulfilled" && !madeUp.has(system.value.type) ? at.value.dev : undefined;
}

/** The same in a thread that may wait. */
export function numberedAtSync(dir: Buffer): bigint | undefined {
  if (!isBirthTold()) return undefined;
  try {
    return madeUp.has(statfsSync(dir).type) ? undefined : lstatSync(dir, { bigint: true }).dev;
  } catch {
    return undefined;
  }
}

/** Where the system has no statx (a container's filter), libuv gives a file's last change as its birth, also in procfs, which tells none. */
function isBirthTold(): boolean {
  birthTold ??= lstatSync("/proc/self", { bigint: true, throwIfNoEntry: false })?.birthtimeNs === 0n;
  return birthTold;
}

/** For `Source.volume`, below a directory of this machine. */
export async function volumeAt(root: string, dir: string): Promise<string> {
  for (let at = dir; ; at = parentOf(at))
    try {
      return String((await fs.stat(at === "" ? root : Buffer.concat([Buffer.from(`${root}/`), bytesFromName(at)]))).dev);
    } catch (error) {
      const fault = faultOfErrno(error, `cannot look at ${at}`);
      if (fault.kind !== "missing" || at === "") throw fault;
    }
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
