/** What the file system says of a file, as core says it. */
import { constants, lstatSync, promises as fs, statfsSync, type BigIntStats, type StatsFs } from "node:fs";
import { dirname } from "node:path";
import { codeOf, faultOfErrno } from "./errors.js";
import { bytesFromName, nameFromBytes } from "./names.js";
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

/** The directory in which something is: its device, and whether a file on that keeps its inode's number for as long as it is. */
export interface Within {
  readonly device: bigint;
  readonly numbered: boolean;
}

/**
 * A link or special file is `unreadable`, with what it is. `within`: what is on the device of its directory has an identity, where numbers stay and its
 * time of birth is told; a directory on another one has that one's name (`volumeOf` where numbers do not stay there).
 */
export function entryOf(path: string, stat: BigIntStats, within?: Within): FileEntry {
  if (!stat.isFile() && !stat.isDirectory()) return { path, kind: "unreadable", size: 0, reason: kindOf(stat), special: true };
  const kind = stat.isDirectory() ? "directory" : "file";
  const size = Number(stat.size);
  const time = timeOf(Number(stat.mtimeNs / 1000n) / 1000);
  const inode = String(stat.ino);
  if (kind === "directory" && within !== undefined && stat.dev !== within.device)
    return { path, kind, size, ...time, inode, volume: `${inode}:${stat.birthtimeNs}` };
  if (within?.numbered !== true || stat.dev !== within.device || stat.birthtimeNs === 0n) return { path, kind, size, ...time, inode };
  // Made at once: there may be a hundred thousand of them.
  return { path, kind, size, ...time, inode, identity: `${stat.dev}:${inode}:${stat.birthtimeNs}:${kind === "file" ? "f" : "d"}` };
}

/** File systems that make up an inode's number when they read it, and another one the next time (Linux, `iunique`): FAT, exFAT, CIFS, SMB. */
const madeUp: ReadonlySet<number> = new Set([0x4d44, 0x2011bab0, 0xff534d42, 0xfe534d42]);
let birthTold: boolean | undefined;

/** Who cannot look at the directory gets undefined: whoever looks at what is in it says why. */
export async function withinAt(dir: string | Buffer): Promise<Within | undefined> {
  const [at, system] = await Promise.allSettled([fs.lstat(dir, { bigint: true }), fs.statfs(dir)]);
  return at.status === "fulfilled" && system.status === "fulfilled" ? within(at.value, system.value) : undefined;
}

/** The same in a thread that may wait. */
export function withinAtSync(dir: Buffer): Within | undefined {
  try {
    return within(lstatSync(dir, { bigint: true }), statfsSync(dir));
  } catch {
    return undefined;
  }
}

const within = ({ dev }: BigIntStats, { type }: StatsFs): Within => ({ device: dev, numbered: isBirthTold() && !madeUp.has(type) });

/** The name of a file system that begins at a directory; `told`: as `entryOf` found it there, which is another one each time where numbers and times of birth are made up. */
export async function volumeOf(dir: Buffer, told: string): Promise<string> {
  const { type, blocks, bsize } = await fs.statfs(dir);
  return isBirthTold() && !madeUp.has(type) ? told : `${type.toString(16)}:${blocks * bsize}`;
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

export function pathIn(dir: string, name: Buffer): string {
  return `${dir === "" ? "" : `${dir}/`}${nameFromBytes(name)}`;
}

/** Of names by which nothing was found: those that are listed once more (`now`). Who removed one, and made it anew, has it there by now: it is looked for once more. */
export function listedStill(missing: readonly Buffer[], now: readonly Buffer[]): Buffer[] {
  const listed = new Set(now.map((name) => name.toString("latin1")));
  return missing.filter((name) => listed.has(name.toString("latin1")));
}

/** A file system may list names by which it finds nothing, as FAT one that ends with a dot. */
export function nameless(dir: string, name: Buffer): FileEntry {
  return { path: pathIn(dir, name), kind: "unreadable", size: 0, reason: "it is listed, and not found by that name: give it another" };
}

/** Names of a directory that is listed a second time: it may have gone meanwhile. */
export function noneIfGone(error: unknown): Buffer[] {
  const fault = faultOfErrno(error, "cannot list it once more");
  if (fault.kind === "missing") return [];
  throw fault;
}

/** Why a file is not the one of this stamp any more; undefined when it is, or (unless `exact`) only grew. */
export function otherThan(was: Stamp, now: Stamp, exact = false): string | undefined {
  if (now.size < was.size || (exact && now.size > was.size)) return `it has ${now.size} bytes now, not ${was.size}`;
  if (now.size === was.size && was.modifiedMs !== undefined && now.modifiedMs !== undefined && now.modifiedMs !== was.modifiedMs)
    return "it was written since it was found";
  return undefined;
}

/** Why nothing is at a path where a link on the way leads nowhere, for a person: what it leads to may only not be mounted. undefined: it is there, or there is no such link. */
export async function deadLink(path: string): Promise<string | undefined> {
  try {
    for (let at = path; ; at = dirname(at)) {
      const there = await ifThere(fs.lstat(at));
      if (there?.isSymbolicLink() === true && (await ifThere(fs.stat(at))) === undefined)
        return `${at} is a link to ${await fs.readlink(at)}, which is not there: mount or make that, or remove the link`;
      if (there !== undefined || dirname(at) === at) return undefined;
    }
  } catch {
    return undefined;
  }
}

/** undefined where nothing is at the path, or above it. */
export async function ifThere<T>(looked: Promise<T>): Promise<T | undefined> {
  try {
    return await looked;
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes(codeOf(error) ?? "")) return undefined;
    throw error;
  }
}
