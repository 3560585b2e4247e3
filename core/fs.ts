/**
 * The few durable file operations, in one place: here a test injects faults, and here the order "data, then name, then directory" is kept.
 *
 * After `writeDurable`, `renameDurable` and `linkDurable` resolved, a power cut leaves the new state; before, it leaves the old or the new,
 * never a mixture. Errors are node's own (`code`); callers turn them into Faults.
 */
import { type BigIntStats, constants, promises as fs, realpathSync } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { randomBytes, randomUUID } from "node:crypto";
import { basename, dirname, join } from "node:path";
import { codeOf, Fault, throwIfAborted } from "./errors.js";

/**
 * Makes a directory and its parents; the topmost that is new. node's own recursive one says ENOENT where there is no room (it looks for what it could not make), which would be taken for a
 * directory that somebody removed. Throws EEXIST where a file has the name.
 */
export async function makeDirs(dir: string, mode = 0o777): Promise<string | undefined> {
  for (let first: string | undefined, again = false; ; again = true)
    try {
      await fs.mkdir(dir, { mode });
      return first ?? dir;
    } catch (error) {
      // Of two that make it at once one is second.
      if (codeOf(error) === "EEXIST" && (await isDirectory(dir))) return first;
      if (codeOf(error) !== "ENOENT" || again || dirname(dir) === dir) throw error;
      first = await makeDirs(dirname(dir), mode);
    }
}

async function isDirectory(path: string): Promise<boolean> {
  return (await fs.stat(path).catch(() => undefined))?.isDirectory() === true;
}

/** The same; the names of new ones are durable. */
export async function makeDirDurable(dir: string, mode = 0o777): Promise<void> {
  const first = await makeDirs(dir, mode);
  if (first === undefined) return;
  for (let at = dir; ; at = dirname(at)) {
    await syncDir(dirname(at));
    if (at === first || dirname(at) === at) return;
  }
}

/** With a directory; where that is missing, with the nearest above it that is there: it would be made in that. Throws node's error. */
export async function atNearest<T>(dir: string, use: (dir: string) => Promise<T>): Promise<T> {
  try {
    return await use(dir);
  } catch (error) {
    const missing = codeOf(error) === "ENOENT";
    if (!missing || dirname(dir) === dir) throw error;
    return atNearest(dirname(dir), use);
  }
}

/** Whether names can be made in a directory, or it could be made itself; changes nothing. Throws node's error. */
export function mayWriteIn(dir: string): Promise<void> {
  return atNearest(dir, (at) => fs.access(join(at, "."), constants.W_OK | constants.X_OK));
}

/** Whether a new file in a directory can be written and synced now. One that a kill leaves is named as a partial: no route takes it for a file. */
async function takesNewFile(dir: string | Buffer): Promise<boolean> {
  const [installation, upload] = [randomBytes(4).toString("hex"), randomBytes(8).toString("hex")];
  const path = Buffer.concat([Buffer.from(dir), Buffer.from(`/.${installation}-${upload}.try.part`)]);
  try {
    const handle = await fs.open(path, "wx");
    try {
      await handle.write(Buffer.alloc(4096));
      await syncData(handle);
    } finally {
      await handle.close();
      await fs.rm(path, { force: true });
    }
    return true;
  } catch {
    // Whatever the reason, it was asked only whether.
    return false;
  }
}

/** So often in a row a medium fails at one file before it is asked whether it takes others. */
const failedTimes = 3;

/** Files at which a medium fails again and again, while it takes others (a bad block, a file system that a pull damaged): each would be tried for ever. */
export class BadPlaces {
  readonly #failed = new Map<string, number>();

  /** After such an error at a file in that directory, with nothing written since the one before: whether it is to be begun anew, where it may get another place. */
  async isBad(file: string, dir: string | Buffer, error: unknown): Promise<boolean> {
    if (codeOf(error) !== "EIO") return false;
    const times = (this.#failed.get(file) ?? 0) + 1;
    this.#failed.set(file, times);
    return times >= failedTimes && (await takesNewFile(dir));
  }

  forget(file: string): void {
    this.#failed.delete(file);
  }
}

/** What this user may still write below a directory, in bytes; of one that is missing, where it would be made. Throws node's error. */
export function freeBytesAt(dir: string): Promise<number> {
  return atNearest(dir, async (at) => {
    const { bavail, bsize } = await fs.statfs(at);
    return bavail * bsize;
  });
}

/** By its bytes: a directory that is being synced, and whoever came since. Its sync may have read the directory before their names were in it, so that they share the next. */
const syncing = new Map<string, { readonly now: Promise<void>; next?: Promise<void> }>();

/** Makes the names in a directory durable. File systems that cannot (FUSE, some network mounts) are left as they are. */
export function syncDir(dir: string | Buffer): Promise<void> {
  const key = Buffer.from(dir).toString("latin1");
  const running = syncing.get(key);
  if (running !== undefined) return (running.next ??= running.now.then(noop, noop).then(() => syncDir(dir)));
  const now = syncDirNow(dir).finally(() => syncing.delete(key));
  syncing.set(key, { now });
  return now;
}

function noop(): void {}

async function syncDirNow(dir: string | Buffer): Promise<void> {
  const handle = await fs.open(dir, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync();
  } catch (error) {
    if (!["EINVAL", "ENOTSUP"].includes(codeOf(error))) throw error;
  } finally {
    await handle.close();
  }
}

/**
 * Makes a name that a file was just given durable. The file is synced too, where its file system may need that: FAT (Linux, `vfat_rename`) writes a new name as that of an empty file, and
 * what it names only with the file.
 */
export async function syncName(path: string | Buffer): Promise<void> {
  const dir = dirOf(path);
  if (!namesAlone.has((await fs.statfs(dir)).type)) await syncAgain(path);
  await syncDir(dir);
}

/** Makes a file that was found under its name durable, with that: whoever wrote it may not have, or was killed before. */
export async function syncFound(path: string | Buffer): Promise<void> {
  await syncAgain(path);
  await syncDirIfThere(dirOf(path));
}

/** The same of whatever is there, or that nothing is. */
export async function syncThere(path: string | Buffer): Promise<void> {
  try {
    await syncFound(path);
  } catch (error) {
    if (!noFile.has(codeOf(error))) throw error;
    await syncGone(path);
  }
}

/** As which opening says that no file and no directory has the name: nothing, a link, a socket. */
const noFile: ReadonlySet<string> = new Set(["ENOENT", "ENOTDIR", "ELOOP", "ENXIO"]);

/** ext2 to 4, XFS, F2FS, tmpfs (linux/magic.h): there a name is durable with its directory. */
const namesAlone: ReadonlySet<number> = new Set([0xef53, 0x58465342, 0xf2f52010, 0x01021994]);

async function syncAgain(path: string | Buffer): Promise<void> {
  try {
    const handle = await fs.open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch (error) {
    // FAT knows no files that some may not read; directories of others (FUSE) may refuse.
    const code = codeOf(error);
    if (code !== "EACCES" && code !== "EINVAL" && code !== "ENOTSUP") throw error;
  }
}

const dirOf = (path: string | Buffer) => (typeof path === "string" ? dirname(path) : path.subarray(0, path.lastIndexOf(0x2f)));

/** A name of its own, which `removeTemporaries` knows. */
export function temporaryName(): string {
  return `.${randomUUID()}.tmp`;
}

/** Replaces the content of a small file at once: a temporary name, sync, rename, sync of the directory. */
export function writeDurable(path: string, content: string | Uint8Array, mode = 0o666): Promise<void> {
  return replaceDurable(path, () => [content], mode);
}

/** The same, of a file of any length, part by part. */
export async function replaceDurable(
  path: string,
  parts: () => Iterable<string | Uint8Array> | AsyncIterable<string | Uint8Array>,
  mode = 0o666,
): Promise<void> {
  const temporary = join(dirname(path), temporaryName());
  const handle = await fs.open(temporary, "wx", mode);
  try {
    await fs.writeFile(handle, parts());
    await handle.sync();
  } catch (error) {
    await handle.close();
    await fs.rm(temporary, { force: true });
    throw error;
  }
  await handle.close();
  await renameDurable(temporary, path);
}

/** Takes away what `writeDurable` left behind when the process was killed in the middle of it. Only where nobody else writes. */
export async function removeTemporaries(dir: string): Promise<void> {
  for (const name of await fs.readdir(dir)) if (/^\.[0-9a-f-]{36}\.tmp$/.test(name)) await fs.rm(join(dir, name), { force: true });
}

/** Renames (over what is there) and makes both directories durable. */
export async function renameDurable(from: string, to: string): Promise<void> {
  await fs.rename(from, to);
  await syncName(to);
  if (dirname(from) !== dirname(to)) await syncDir(dirname(from));
}

/**
 * Renames a file without replacing: EEXIST when something is there. By hard link where the file system has them; else by looking first,
 * which leaves the moment between the two to others that write there. Durable after `syncName`.
 */
export async function renameNew(from: string | Buffer, to: string | Buffer): Promise<void> {
  try {
    if (await renameByLink(from, to)) return;
  } catch (error) {
    if (codeOf(error) !== "EEXIST" || !(await hasBoth(from, to))) throw error;
    // Killed in the middle of this: it has the new name, and only the old one is left to go.
    await fs.unlink(from);
    return;
  }
  const there = await fs.lstat(to).catch((e: unknown) => {
    if (codeOf(e) === "ENOENT") return undefined;
    throw e;
  });
  if (there !== undefined) throw Object.assign(new Error("EEXIST: file already exists"), { code: "EEXIST" });
  await fs.rename(from, to);
}

/** Whether one file has both names. Where spellings are one, and by another way to its directory, it has one, however that is asked for. */
async function hasBoth(...paths: readonly [string | Buffer, string | Buffer]): Promise<boolean> {
  const [one, two] = await Promise.all(paths.map((path) => fs.lstat(path, { bigint: true })));
  if (one?.isFile() !== true || two === undefined || !isSame(one, two)) return false;
  const [here, there] = await Promise.all(paths.map(listedAs));
  return here !== undefined && there !== undefined && !(isSame(here.dir, there.dir) && here.name.equals(there.name));
}

/** Its directory, and its name as it stands there; undefined where that is another. */
async function listedAs(path: string | Buffer): Promise<{ dir: BigIntStats; name: Buffer } | undefined> {
  const bytes = Buffer.from(path);
  const name = bytes.subarray(bytes.lastIndexOf(0x2f) + 1);
  const names = await fs.readdir(dirOf(path), { encoding: "buffer" });
  return names.some((it) => it.equals(name)) ? { dir: await fs.stat(dirOf(path), { bigint: true }), name } : undefined;
}

const isSame = (one: BigIntStats, two: BigIntStats) => one.ino === two.ino && one.dev === two.dev;

/** The same in one step; false where there are no hard links, and nothing was done. */
export async function renameByLink(from: string | Buffer, to: string | Buffer): Promise<boolean> {
  try {
    await fs.link(from, to);
  } catch (error) {
    if (noLinks.has(codeOf(error))) return false;
    throw error;
  }
  await fs.unlink(from);
  return true;
}

const noLinks: ReadonlySet<string> = new Set(["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK", "EXDEV"]);

/**
 * Renames a directory without replacing: EEXIST when something is there. The new name is first made, which only one can, and then renamed over: that
 * is refused once something else is in it, so nothing is lost whoever comes between. A cut in the middle leaves an empty directory under the new name.
 */
export async function renameDirNew(from: string | Buffer, to: string | Buffer): Promise<void> {
  await fs.mkdir(to);
  try {
    await fs.rename(from, to);
  } catch (error) {
    // Not ours alone any more where something is in it: then it stays.
    const empty = await fs.rmdir(to).then(
      () => true,
      () => false,
    );
    const code = codeOf(error);
    if (!empty && (code === "ENOTEMPTY" || code === "EEXIST"))
      throw Object.assign(new Error("EEXIST: file already exists"), { code: "EEXIST" });
    if (!empty || (code !== "ENOTEMPTY" && code !== "EEXIST" && code !== "EACCES" && code !== "EPERM")) throw error;
    // A file system that goes over no directory, not even an empty one (network drives): there a plain rename replaces nothing.
    await fs.rename(from, to);
  }
}

/**
 * Copies an open file to a new name, as a clone where the file system has those: that takes no time and no room. How many bytes it has; nothing is synced. Throws EEXIST, and what reading
 * and writing end with: then a beginning may be there.
 */
export async function copyNew(from: FileHandle, to: Buffer, signal: AbortSignal): Promise<number> {
  if (await cloned(from, to)) return (await fs.lstat(to)).size;
  const place = await fs.open(to, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o666);
  try {
    let at = 0;
    for await (const bytes of piecesOf(from, (await from.stat()).size, signal)) {
      for (let done = 0; done < bytes.length;) done += (await place.write(bytes, done, bytes.length - done, at + done)).bytesWritten;
      at += bytes.length;
    }
    return at;
  } finally {
    await place.close();
  }
}

/** The bytes of an open file from its first to its end, wherever that is by now, in pieces; each is overwritten by the next. `size`: as it was seen. Throws what reading throws, and "aborted". */
export async function* piecesOf(handle: FileHandle, size: number, signal?: AbortSignal): AsyncGenerator<Buffer> {
  const buffer = bufferFor(size);
  for (let at = 0; ;) {
    if (signal !== undefined) throwIfAborted(signal);
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, at);
    if (bytesRead === 0) return;
    yield buffer.subarray(0, bytesRead);
    at += bytesRead;
  }
}

/** To read so many bytes with, up to 1 MiB at a time (hashing by 64 KiB takes twice as long). One of 1 MiB for each small file has V8 collect all that lives for every few dozen of them. */
export function bufferFor(bytes: number): Buffer {
  return Buffer.allocUnsafe(Math.max(1, Math.min(2 ** 20, bytes)));
}

/** False where there are no clones (or no /proc), and nothing was done. */
async function cloned(from: FileHandle, to: Buffer): Promise<boolean> {
  try {
    await fs.copyFile(`/proc/self/fd/${from.fd}`, to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE_FORCE);
    return true;
  } catch (error) {
    if (!noClones.has(codeOf(error))) throw error;
    if (codeOf(error) !== "ENOENT") await removeFile(to);
    return false;
  }
}

const noClones: ReadonlySet<string> = new Set(["ENOTSUP", "EOPNOTSUPP", "ENOTTY", "EINVAL", "EXDEV", "ENOSYS", "EPERM", "ENOENT"]);

/** Removes a file; an absent one is success. */
export async function removeFile(path: string | Buffer): Promise<void> {
  try {
    await fs.unlink(path);
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
  }
}

/** So that no power cut brings it back: what was noted as removed is not looked for again. */
export async function removeDurable(path: string | Buffer): Promise<void> {
  await removeFile(path);
  await syncGone(path);
}

/** The same of what has gone already, perhaps by a try that was killed before this. */
export function syncGone(path: string | Buffer): Promise<void> {
  return syncDirIfThere(dirOf(path));
}

/** One that has gone has no names; one that may be written to, and not be read, is left as it is. */
async function syncDirIfThere(dir: string | Buffer): Promise<void> {
  try {
    await syncDir(dir);
  } catch (error) {
    if (!["ENOENT", "ENOTDIR", "EACCES", "EPERM"].includes(codeOf(error))) throw error;
  }
}

/** Data and what is needed to read it back are on the medium when this resolves. */
export async function syncData(handle: FileHandle): Promise<void> {
  await handle.datasync();
}

/** Without links; of what is not there yet, or may not be looked at, as far as it may. What is wrong with it is told when it is used. */
export function realOf(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return dirname(path) === path ? path : join(realOf(dirname(path)), basename(path));
  }
}

/** Whether a path is below a directory, or the directory itself, whatever links lead to either. */
export function isBelow(path: string, dir: string): boolean {
  const [real, above] = [realOf(path), realOf(dir)];
  return real === above || real.startsWith(above === "/" ? "/" : `${above}/`);
}

/** Of a file that says who may come in: whoever could read or replace it would let in whom they like. Throws "config". */
export function expectOutside(what: string, file: string, root: string): void {
  if (isBelow(file, root))
    throw new Fault("config", `${what} ${file} is below ${root}, where users could read and replace it: put it elsewhere`);
}
