/**
 * A directory tree that nobody leaves: every file operation of the server goes through here.
 *
 * A place is a list of names (bytes, as on the disk) below the root, never "." or "..". The directory that holds a place is opened first
 * and asked for its real path; only when that is the path that was meant does the operation go on, through the open directory. So a
 * symbolic link in the middle is refused, also one that appears in between, and the last part is never followed. Where there is no
 * /proc, the real path is compared instead, which leaves that moment open.
 */
import { constants, promises as fs, type Stats } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { codeOf } from "../../core/errors.js";
import {
  atNearest,
  copyNew,
  makeDirDurable,
  renameByLink,
  renameDirNew,
  renameNew,
  syncDir,
  syncFound,
  syncName,
  syncThere,
} from "../../core/fs.js";
import { bytesFromName, nameFromBytes } from "../../core/names.js";

/** Names below a root; none is the root itself. */
export type Place = readonly Buffer[];

/** An error like those of node:fs, so that one table turns both into an answer. */
export function fileError(code: string, message: string): Error & { code: string } {
  return Object.assign(new Error(`${code}: ${message}`), { code });
}

const slash = 0x2f;

/** A name as it stands in a line of the protocol, as bytes of the disk: the inverse of `wireName`. Throws EINVAL for what is no name. */
function diskName(part: Buffer): Buffer {
  const text = part.toString();
  // What is no UTF-8 comes from a client with another encoding: its bytes are the name.
  const name = text.includes("\u201b") && Buffer.from(text).equals(part) ? bytesFromName(text) : part;
  if (name.includes(slash) || name.includes(0) || isDots(name)) throw fileError("EINVAL", "no file name");
  if (name.length > 255) throw fileError("ENAMETOOLONG", "name longer than 255 bytes");
  return name;
}

function isDots(name: Buffer): boolean {
  return name.length <= 2 && name.every((byte) => byte === 0x2e);
}

/** A name of the disk as it stands in a line of the protocol: UTF-8 without control characters. */
export function wireName(name: Buffer): string {
  return nameFromBytes(name);
}

/** The place that a client means by `path` while it is in `cwd`. ".." at the root stays there, as in a file system. Throws EINVAL, ENAMETOOLONG. */
export function placeOf(cwd: Place, path: Buffer): Place {
  if (path.includes(0)) throw fileError("EINVAL", "a name with a NUL byte");
  const place: Buffer[] = path[0] === slash ? [] : [...cwd];
  for (let start = 0; start <= path.length;) {
    const at = path.indexOf(slash, start);
    const end = at < 0 ? path.length : at;
    const part = path.subarray(start, end);
    start = end + 1;
    if (part.length === 0 || (part.length === 1 && isDots(part))) continue;
    if (part.length === 2 && isDots(part)) place.pop();
    else place.push(diskName(part));
  }
  return place;
}

/** A place as clients see it: "/" and the names. */
export function wirePath(place: Place): string {
  return `/${place.map(wireName).join("/")}`;
}

/** The place of a path of core, which is relative to the root. Throws EINVAL for a path that is not safe. */
export function placeOfCorePath(path: string): Place {
  if (path === "") return [];
  return path.split("/").map((part) => {
    if (part === "") throw fileError("EINVAL", "an empty name");
    return diskName(Buffer.from(part));
  });
}

export function corePathOf(place: Place): string {
  return place.map(wireName).join("/");
}

/** An open directory, known to be where it was meant to be. */
interface OpenDir {
  at(name: Buffer): Buffer;
  readonly path: string;
}

/** Hears of a directory that was removed and made anew. */
export type OnAnew = (dir: string) => void;

/** Throws ENODEV where the root's file system is not mounted, or hangs. */
export type ExpectHere = () => Promise<void>;

/** So many names are looked at at once: as many as libuv has threads by itself. What is asked beyond that stands in its queue, ahead of each step of everybody else's upload. */
const lookedAtAtOnce = 4;

export class Root {
  /** The real path of the root. */
  readonly #dir: string;
  /** The file system that holds it. */
  readonly #dev: number;
  readonly #expectHere: ExpectHere;
  readonly #onAnew: OnAnew | undefined;
  readonly #above: Place;

  /** `above` are the names from the outer root to this one, for `outer()`. */
  private constructor(dir: string, dev: number, expectHere: ExpectHere, onAnew: OnAnew | undefined, above: Place) {
    this.#dir = dir;
    this.#dev = dev;
    this.#expectHere = expectHere;
    this.#onAnew = onAnew;
    this.#above = above;
  }

  /**
   * Makes the directory where it is missing, and follows links that lead to it: those are the administrator's. With `onAnew` also where somebody removes
   * it later.
   */
  static async open(dir: string, expectHere: ExpectHere = () => Promise.resolve(), onAnew?: OnAnew): Promise<Root> {
    return Root.#of(dir, expectHere, onAnew, []);
  }

  static async #of(dir: string, expectHere: ExpectHere, onAnew: OnAnew | undefined, above: Place): Promise<Root> {
    await expectHere();
    await makeDirDurable(dir);
    const real = await fs.realpath(dir);
    return new Root(real, (await fs.stat(real)).dev, expectHere, onAnew, above);
  }

  /** The tree below one of its directories. Links of the administrator may lead there. */
  async below(path: string, onAnew?: OnAnew): Promise<Root> {
    if (path === "") return this;
    return Root.#of(`${this.#dir}/${path}`, this.#expectHere, onAnew, placeOfCorePath(path));
  }

  /** The same place as the outer root counts it. */
  outer(place: Place): Place {
    return [...this.#above, ...place];
  }

  async #within<T>(dir: Place, use: (open: OpenDir) => Promise<T>): Promise<T> {
    const base = this.#dir === "/" && dir.length > 0 ? "" : this.#dir;
    const meant = Buffer.concat([Buffer.from(base), ...dir.flatMap((name) => [Buffer.from("/"), name])]);
    const handle = await this.#there(() => fs.open(meant, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW));
    try {
      const proc = `/proc/self/fd/${handle.fd}`;
      const real = await fs.readlink(proc, { encoding: "buffer" }).catch((error: unknown) => {
        if (codeOf(error) !== "ENOENT") throw error;
        return undefined;
      });
      const found = real ?? (await fs.realpath(meant, { encoding: "buffer" }));
      if (!found.equals(meant)) throw fileError("ELOOP", "a symbolic link is in the way");
      const path = real === undefined ? meant : Buffer.from(proc);
      return await use({ at: (name) => Buffer.concat([path, Buffer.from("/"), name]), path: path.toString() });
    } finally {
      await handle.close();
    }
  }

  /** Once more where the root itself was removed, and could be made anew. */
  async #there<T>(use: () => Promise<T>): Promise<T> {
    await this.#expectHere();
    try {
      return await use();
    } catch (error) {
      if (codeOf(error) !== "ENOENT" || !(await this.#isMadeAnew())) throw error;
      return use();
    }
  }

  /** As at the start. Not on another file system: its own is not mounted then, and what is sent would be hidden once it is. */
  async #isMadeAnew(): Promise<boolean> {
    if (this.#onAnew === undefined) return false;
    const found = await atNearest(this.#dir, async (dir) => ({ dir, dev: (await fs.lstat(dir)).dev }));
    if (found.dir === this.#dir || found.dev !== this.#dev) return false;
    await makeDirDurable(this.#dir);
    this.#onAnew(this.#dir);
    return true;
  }

  #parent<T>(place: Place, use: (path: Buffer, dir: OpenDir) => Promise<T>): Promise<T> {
    const name = place.at(-1);
    if (name === undefined) throw fileError("EISDIR", "this is the root");
    return this.#within(place.slice(0, -1), (dir) => use(dir.at(name), dir));
  }

  /** What is at a place; a symbolic link is itself. Throws ENOENT. */
  async lstat(place: Place): Promise<Stats> {
    if (place.length === 0) return this.#there(() => fs.lstat(this.#dir));
    return this.#parent(place, (path) => fs.lstat(path));
  }

  /** Opens a plain file. Throws EISDIR, or EINVAL for what is no plain file; a link gives ELOOP. `made` says whether it is new. */
  async open(place: Place, access: "read" | "write" | "create"): Promise<{ handle: FileHandle; stats: Stats; made: boolean }> {
    // Not blocking: opening a FIFO that lies there would wait for its other end.
    const common = constants.O_NOFOLLOW | constants.O_NONBLOCK;
    const opened = await this.#parent(place, async (path) => {
      if (access !== "create") {
        const flags = access === "read" ? constants.O_RDONLY : constants.O_WRONLY;
        return { handle: await fs.open(path, common | flags), made: false };
      }
      try {
        return { handle: await fs.open(path, common | constants.O_WRONLY), made: false };
      } catch (error) {
        if (codeOf(error) !== "ENOENT") throw error;
        return { handle: await fs.open(path, common | constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o666), made: true };
      }
    });
    try {
      const stats = await opened.handle.stat();
      if (stats.isDirectory()) throw fileError("EISDIR", "a directory");
      if (!stats.isFile()) throw fileError("EINVAL", "no plain file");
      return { ...opened, stats };
    } catch (error) {
      await opened.handle.close();
      throw error;
    }
  }

  /** Makes the names of a directory durable. */
  async syncNames(dir: Place): Promise<void> {
    await this.#within(dir, (open) => syncDir(open.path));
  }

  /** Of a file that others may have written, or removed. */
  async syncThere(place: Place): Promise<void> {
    await this.#parent(place, (path) => syncThere(path)).catch((error: unknown) => {
      // Its directory has gone, or is none.
      if (codeOf(error) !== "ENOENT" && codeOf(error) !== "ENOTDIR") throw error;
    });
  }

  /** What a directory holds, in batches, so that ten thousand names do not wait for the last one. What vanishes meanwhile is left out. */
  async *read(dir: Place): AsyncGenerator<{ name: Buffer; stats: Stats }[]> {
    const names = await this.#within(dir, (open) => fs.readdir(open.at(Buffer.from(".")), { encoding: "buffer" }));
    for (let i = 0; i < names.length; i += 256) yield await this.#within(dir, (open) => lookedAt(open, names.slice(i, i + 256)));
  }

  /** Durable. Throws EEXIST. */
  async makeDir(place: Place): Promise<void> {
    await this.#parent(place, async (path, dir) => {
      await fs.mkdir(path);
      await syncDir(dir.path);
    });
  }

  /** Durable. Throws ENOTEMPTY. */
  async removeDir(place: Place): Promise<void> {
    await this.#parent(place, async (path, dir) => {
      await fs.rmdir(path);
      await syncDir(dir.path);
    });
  }

  /** Durable. A symbolic link is removed itself. Throws EISDIR, ENOENT. */
  async unlink(place: Place): Promise<void> {
    await this.#parent(place, async (path, dir) => {
      if ((await fs.lstat(path)).isDirectory()) throw fileError("EISDIR", "a directory");
      await fs.unlink(path);
      await syncDir(dir.path);
    });
  }

  /** Durable. `replace`: over a file that is there; else EEXIST. A directory never goes over anything. */
  async rename(from: Place, to: Place, replace: boolean): Promise<void> {
    await this.#parent(from, (source, sourceDir) =>
      this.#parent(to, async (target) => {
        const moved = await fs.lstat(source);
        if (moved.isDirectory()) await renameDirNew(source, target);
        else if (replace) await fs.rename(source, target);
        else await renameNew(source, target);
        await syncName(target);
        if (!samePlace(from.slice(0, -1), to.slice(0, -1))) await syncDir(sourceDir.path);
      }),
    );
  }

  /** Copies a plain file to a new name. Durable; how many bytes it has. Throws EEXIST, and Fault "aborted"; what fails leaves nothing. */
  async copy(from: Place, to: Place, signal: AbortSignal): Promise<number> {
    const { handle } = await this.open(from, "read");
    try {
      return await this.#parent(to, async (path) => {
        try {
          const size = await copyNew(handle, path, signal);
          await syncFound(path);
          return size;
        } catch (error) {
          if (codeOf(error) !== "EEXIST") await fs.rm(path, { force: true });
          throw error;
        }
      });
    } finally {
      await handle.close();
    }
  }

  /** A file, without replacing, in one step; false where the file system has no hard links, and nothing was done. Throws EEXIST. */
  async renameByLink(from: Place, to: Place): Promise<boolean> {
    return this.#parent(from, (source) => this.#parent(to, (target) => renameByLink(source, target)));
  }

  /** Sets the time of a file or directory; never of what a link points to. */
  async setTime(place: Place, modifiedMs: number): Promise<void> {
    await this.#parent(place, async (path) => {
      const stats = await fs.lstat(path);
      if (stats.isSymbolicLink()) throw fileError("ELOOP", "a symbolic link");
      // Of a number before 1970 node makes "now".
      await fs.lutimes(path, stats.atime, new Date(modifiedMs));
    });
  }

  /** Names the file system of a directory, or of the nearest above it that is there. */
  async volume(place: Place): Promise<string> {
    try {
      return String((await this.#within(place, (dir) => fs.stat(dir.path))).dev);
    } catch (error) {
      if (place.length === 0 || !["ENOENT", "ENOTDIR"].includes(codeOf(error))) throw error;
      return this.volume(place.slice(0, -1));
    }
  }

  /** Bytes free for an ordinary program on the file system of a directory. Throws ENOENT, ENOTDIR. */
  async freeBytes(place: Place): Promise<number> {
    const stats = await this.#within(place, (dir) => fs.statfs(dir.path));
    return stats.bavail * stats.bsize;
  }
}

function samePlace(a: Place, b: Place): boolean {
  return a.length === b.length && a.every((name, i) => name.equals(b[i] ?? Buffer.alloc(0)));
}

/** Without those that are gone. */
async function lookedAt(dir: OpenDir, names: readonly Buffer[]): Promise<{ name: Buffer; stats: Stats }[]> {
  const look = async (name: Buffer): Promise<{ name: Buffer; stats: Stats } | undefined> => {
    try {
      return { name, stats: await fs.lstat(dir.at(name)) };
    } catch (error) {
      if (codeOf(error) === "ENOENT") return undefined;
      throw error;
    }
  };
  const found: { name: Buffer; stats: Stats }[] = [];
  for (let i = 0; i < names.length; i += lookedAtAtOnce)
    found.push(...(await Promise.all(names.slice(i, i + lookedAtAtOnce).map(look))).filter((it) => it !== undefined));
  return found;
}
