/**
 * The directory of a slot. What comes by rsync comes into `.incoming`, the only place that the door lets a vehicle write; a commit proves it and gives it its name beside that. So what was
 * committed is out of the vehicle's reach, and nothing but plain files that were proved has a name.
 */
import { createHash, randomBytes } from "node:crypto";
import { constants, promises as fs, type BigIntStats } from "node:fs";
import { join } from "node:path";
import { codeOf, isUnsynced } from "../../core/errors.js";
import { makeDirDurable, makeDirs, piecesOf, renameNew, syncDir, syncFound, syncName } from "../../core/fs.js";
import { isSafePath, nameFromBytes } from "../../core/names.js";
import { openFlags } from "../../core/stat.js";
import { parentOf, wirePath } from "../../core/wire-path.js";
import { Refused } from "./refused.js";

export const incomingName = ".incoming";
/** In `.incoming` of a legacy vehicle: what its rsync has under way, and what was cut of that. So what stands beside them is whole. */
export const underWayName = ".filesync-under-way";
export const cutName = ".filesync-cut";

export interface There {
  readonly kind: "file" | "other";
  readonly size: number;
}

export interface Digested {
  readonly digest: string;
  readonly stat: BigIntStats;
}

export interface Load {
  readonly bytes: number;
  /** Infinity: some of it is so deep that it cannot be looked at. */
  readonly entries: number;
}

/** A directory whose path is longer is looked into no more: what is in it may have a path that the system does not take. */
const deepBytes = 2048;

export type Published = "published" | "occupied" | "changed";

export class SlotDir {
  readonly incoming: string;
  /** Sizes that are on the medium, by name in `incoming`. */
  readonly #synced = new Map<string, number>();

  constructor(readonly dir: string) {
    this.incoming = join(dir, incomingName);
  }

  async make(): Promise<void> {
    await makeDirDurable(this.incoming, 0o750);
  }

  isThere(): Promise<boolean> {
    return isDirectory(this.dir);
  }

  /** With what a vehicle writes in. */
  isReady(): Promise<boolean> {
    return isDirectory(this.incoming);
  }

  /** Where only `.incoming` is missing it is made. False: the directory itself has gone. */
  async isWhole(): Promise<boolean> {
    try {
      await fs.mkdir(this.incoming, 0o750);
    } catch (error) {
      if (codeOf(error) === "ENOENT") return false;
      if (codeOf(error) !== "EEXIST") throw error;
    }
    return true;
  }

  /** Of these paths, those at which a file is; and at which others something is that has a name, as far as a list tells. Undefined where the directory itself is not there. */
  async thereOf(
    paths: readonly string[],
  ): Promise<{ readonly there: ReadonlySet<string>; readonly others: readonly string[] } | undefined> {
    const listed = new Set(await fs.readdir(this.dir, { recursive: true }).catch(() => []));
    if (listed.size === 0 && !(await this.isThere())) return undefined;
    const there = new Set<string>();
    // What it does not say, or where it cannot, each is looked at.
    for (const path of paths) if (listed.delete(path) || (await this.look(this.at(path)))?.kind === "file") there.add(path);
    return { there, others: [...listed].filter((path) => path.split("/")[0] !== incomingName) };
  }

  /** Without all that holds nothing: true where the directory itself has gone. */
  async tidy(): Promise<boolean> {
    await emptyDirs(Buffer.from(this.incoming));
    return removeIfEmpty(this.dir);
  }

  /** Throws Refused for what is no path below the slot. */
  at(path: string): Buffer {
    const [first = ""] = path.split("/");
    if (!isSafePath(path) || first === incomingName)
      throw new Refused("bad-request", `the path ${JSON.stringify(path)} cannot be used in a slot`);
    try {
      return wirePath(Buffer.from(this.dir), path);
    } catch (error) {
      throw new Refused("bad-request", error instanceof Error ? error.message : String(error));
    }
  }

  partialAt(partial: string): Buffer {
    return wirePath(Buffer.from(this.incoming), partial);
  }

  async look(at: Buffer): Promise<There | undefined> {
    await madeOurs(this.incoming);
    const found = await statOf(at);
    return found === undefined ? undefined : { kind: isPlain(found) ? "file" : "other", size: Number(found.size) };
  }

  /** Bytes that came and were not committed, wherever a vehicle put them. */
  async waiting(): Promise<number> {
    return (await this.load()).bytes;
  }

  /** The same, and as how many files and directories. */
  load(): Promise<Load> {
    return loadOf(Buffer.from(this.incoming));
  }

  /** Afterwards a power cut takes none of what had come. */
  async sync(): Promise<void> {
    for (const dir of [".", underWayName])
      for (const { at, name } of await filesIn(join(this.incoming, dir))) {
        const handle = await openPlain(at);
        if (handle === undefined) continue;
        try {
          const { size } = await handle.stat();
          if (this.#synced.get(join(dir, name)) === size) continue;
          await handle.datasync().catch((error: unknown) => this.#unsynced(at, error));
          this.#synced.set(join(dir, name), size);
        } finally {
          await handle.close();
        }
      }
  }

  /** What came under other names than these goes away. */
  async keepOnly(partials: ReadonlySet<string>): Promise<void> {
    for (const { at, name } of await entriesIn(Buffer.from(this.incoming))) if (!partials.has(name)) await this.remove(at);
  }

  /** Of a legacy vehicle: names of files that are whole, for `partialAt`; and what its rsync has under way, or had when it was killed. */
  async arrived(): Promise<{ readonly whole: readonly string[]; readonly underWay: readonly Buffer[] }> {
    const [whole, underWay] = [await filesIn(this.incoming), await filesIn(join(this.incoming, underWayName))];
    return { whole: whole.map(({ name }) => name), underWay: underWay.map(({ at }) => at) };
  }

  /** What rsync had no time to keep is kept for its next try as it would have: `NAME.XXXXXX` as `NAME`, the longest of them. */
  async keepCut(underWay: readonly Buffer[]): Promise<void> {
    for (const at of underWay) {
      const name = at.subarray(at.lastIndexOf(0x2f) + 1, -".XXXXXX".length);
      const to = Buffer.concat([Buffer.from(join(this.incoming, cutName, "/")), name]);
      const [now, kept] = [await statOf(at), await statOf(to)];
      if (now === undefined || now.size === 0n || name.length === 0 || (kept !== undefined && kept.size >= now.size)) await this.remove(at);
      else {
        await this.#ownDir(cutName);
        await fs.rename(at, to);
      }
    }
  }

  /** What waits to go on in another slot of the same legacy vehicle goes on here. Whether there was anything. */
  async takeOver(from: SlotDir): Promise<boolean> {
    let any = false;
    for (const dir of [".", cutName])
      for (const { at, name } of await filesIn(join(from.incoming, dir))) {
        const to = wirePath(Buffer.from(join(this.incoming, dir)), name);
        if ((await statOf(to)) !== undefined) continue;
        await this.#ownDir(dir);
        await fs.rename(at, to);
        await syncName(to);
        any = true;
      }
    return any;
  }

  /** Of a legacy vehicle: what can never get a name, and no next try goes on from, goes away. */
  async keepFiles(): Promise<void> {
    const kept = new Set<string>();
    for (const dir of [".", cutName]) for (const { name } of await filesIn(join(this.incoming, dir))) kept.add(join(dir, name));
    for (const dir of [cutName, "."])
      for (const { at, name, isDirectory } of await entriesIn(Buffer.from(join(this.incoming, dir))))
        if (!kept.has(join(dir, name)) && !(dir === "." && name === cutName && isDirectory)) await this.remove(at);
  }

  /** Of our own name, whatever a vehicle made there. */
  async #ownDir(name: string): Promise<void> {
    const dir = join(this.incoming, name);
    if ((await statOf(dir))?.isDirectory() === false) await this.remove(Buffer.from(dir));
    await makeDirDurable(dir, 0o750);
  }

  /** "sha256:…" of a plain file, and what it was then; undefined where it is none. */
  async digest(at: Buffer, signal?: AbortSignal): Promise<Digested | undefined> {
    const handle = await openPlain(at);
    if (handle === undefined) return undefined;
    try {
      const stat = await handle.stat({ bigint: true });
      if (!isPlain(stat)) return undefined;
      const hash = createHash("sha256");
      for await (const bytes of piecesOf(handle, Number(stat.size), signal)) hash.update(bytes);
      return { digest: `sha256:${hash.digest("hex")}`, stat };
    } finally {
      await handle.close();
    }
  }

  /** The partial gets its name, unless it is not what was read any more, or something has that name and `over` is false. Durable. */
  async publish(partial: Buffer, name: Buffer, read: BigIntStats, modifiedMs: number | undefined, over: boolean): Promise<Published> {
    const handle = await fs.open(partial, constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      const now = await handle.stat({ bigint: true });
      if (!isPlain(now) || now.ino !== read.ino || now.size !== read.size || now.mtimeNs !== read.mtimeNs) return "changed";
      if (modifiedMs !== undefined) await handle.utimes(new Date(), new Date(modifiedMs));
      await handle.chmod(0o640);
      await handle.sync().catch((error: unknown) => this.#unsynced(partial, error));
    } finally {
      await handle.close();
    }
    const dir = parentOf(name);
    await makeDirs(dir.toString(), 0o750).catch((error: unknown) => {
      if (codeOf(error) === "EEXIST" || codeOf(error) === "ENOTDIR")
        throw new Refused("bad-request", "a file stands where the path has a directory");
      throw error;
    });
    const [real, expected] = [
      await fs.realpath(dir),
      Buffer.concat([Buffer.from(await fs.realpath(this.dir)), dir.subarray(this.dir.length)]),
    ];
    if (real !== expected.toString()) throw new Refused("bad-request", "a link stands where the path has a directory");
    try {
      if (over) await fs.rename(partial, name);
      else await renameNew(partial, name);
    } catch (error) {
      if (codeOf(error) === "EEXIST") return "occupied";
      throw error;
    }
    await syncName(name);
    await this.#syncDirs(dir);
    return "published";
  }

  /** What the medium did not take is sent anew. */
  async #unsynced(partial: Buffer, error: unknown): Promise<never> {
    if (isUnsynced(error)) await this.remove(partial);
    throw error;
  }

  /** What has its name by a commit that was killed before it took the partial away has it alone. */
  async finish(partial: Buffer, name: Buffer): Promise<void> {
    const [left, given] = [await statOf(partial), await statOf(name)];
    if (left?.isFile() === true && left.nlink > 1n && left.ino === given?.ino && left.dev === given.dev) await fs.unlink(partial);
  }

  /** What was found under its name, perhaps by a commit that was killed before its sync, is durable. */
  async keep(name: Buffer): Promise<void> {
    await syncFound(name);
    await this.#syncDirs(parentOf(name));
  }

  /** Down to that one; new ones have their names then. */
  async #syncDirs(dir: Buffer): Promise<void> {
    for (let at = dir; at.length >= this.dir.length; at = parentOf(at)) await syncDir(at);
    await syncDir(this.incoming);
  }

  async remove(partial: Buffer): Promise<void> {
    try {
      await fs.unlink(partial);
    } catch (error) {
      if (codeOf(error) === "ENOENT") return;
      if (codeOf(error) !== "EISDIR" && codeOf(error) !== "EPERM") throw error;
      // Many empty ones go quickly.
      if (!(await removeIfEmpty(partial))) await removeTree(partial);
    }
  }
}

/** A hard link to something else is none. */
const isPlain = (stat: BigIntStats): boolean => stat.isFile() && stat.nlink === 1n;

async function statOf(at: Buffer | string): Promise<BigIntStats | undefined> {
  try {
    return await fs.lstat(at, { bigint: true });
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes(codeOf(error))) return undefined;
    throw error;
  }
}

async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await fs.stat(path)).isDirectory();
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes(codeOf(error))) return false;
    throw error;
  }
}

/** With all that is in it, whatever modes that has, and however deep. */
export async function removeTree(dir: string | Buffer): Promise<void> {
  await lift(Buffer.from(dir), Buffer.from(dir));
  await fs.rm(dir, { recursive: true, force: true });
}

/** What is too deep for a path is brought up: below `top` itself. */
async function lift(top: Buffer, dir: Buffer): Promise<void> {
  for (const { at, isDirectory } of await entriesIn(dir)) {
    if (!isDirectory) continue;
    let here = at;
    if (at.length > deepBytes) {
      await madeOurs(at);
      here = Buffer.concat([top, Buffer.from(`/.${randomBytes(8).toString("hex")}`)]);
      await fs.rename(at, here);
    }
    await lift(top, here);
  }
}

/** For reading; undefined where that is no file. */
async function openPlain(at: Buffer): Promise<fs.FileHandle | undefined> {
  await madeOurs(at);
  return fs.open(at, openFlags).catch((error: unknown) => {
    if (["ENOENT", "ELOOP", "ENXIO", "ENOTDIR"].includes(codeOf(error))) return undefined;
    throw error;
  });
}

/** Modes come with what a vehicle sends, and shall keep nobody out here. */
async function madeOurs(at: Buffer | string): Promise<void> {
  const stat = await statOf(at);
  const mode = stat?.isDirectory() === true ? 0o750 : 0o640;
  if (stat !== undefined && (stat.isDirectory() || isPlain(stat)) && (Number(stat.mode) & mode) !== mode) await fs.chmod(at, mode);
}

interface Entry {
  /** Names are bytes, which a vehicle chooses: `name` is the text for them. */
  readonly at: Buffer;
  readonly name: string;
  readonly isDirectory: boolean;
}

/** Of a directory itself: a link to one holds nothing. */
async function entriesIn(dir: Buffer): Promise<Entry[]> {
  if ((await statOf(dir))?.isDirectory() !== true) return [];
  await madeOurs(dir);
  try {
    const entries = await fs.readdir(dir, { withFileTypes: true, encoding: "latin1" });
    return entries.map((entry) => {
      const bytes = Buffer.from(entry.name, "latin1");
      const at = Buffer.concat([dir, Buffer.from("/"), bytes]);
      return { at, name: nameFromBytes(bytes), isDirectory: entry.isDirectory() };
    });
  } catch (error) {
    if (codeOf(error) === "ENOENT") return [];
    throw error;
  }
}

/** Plain ones. */
async function filesIn(dir: string): Promise<Entry[]> {
  const files = [];
  for (const entry of await entriesIn(Buffer.from(dir))) {
    const stat = await statOf(entry.at);
    if (stat !== undefined && isPlain(stat)) files.push(entry);
  }
  return files;
}

async function loadOf(dir: Buffer): Promise<Load> {
  if (dir.length > deepBytes) return { bytes: 0, entries: Infinity };
  let [bytes, entries] = [0, 0];
  for (const { at, isDirectory } of await entriesIn(dir)) {
    const below = isDirectory ? await loadOf(at) : { bytes: Number((await statOf(at))?.size ?? 0n), entries: 0 };
    bytes += below.bytes;
    entries += 1 + below.entries;
  }
  return { bytes, entries };
}

/** Directories that a vehicle made and that hold nothing; the directory itself too. */
async function emptyDirs(dir: Buffer): Promise<void> {
  for (const { at, isDirectory } of await entriesIn(dir)) if (isDirectory && at.length <= deepBytes) await emptyDirs(at);
  await removeIfEmpty(dir);
}

async function removeIfEmpty(dir: string | Buffer): Promise<boolean> {
  try {
    await fs.rmdir(dir);
    return true;
  } catch (error) {
    if (["ENOTEMPTY", "EEXIST"].includes(codeOf(error))) return false;
    if (codeOf(error) === "ENOENT") return true;
    throw error;
  }
}
