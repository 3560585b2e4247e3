/**
 * The file system of the simulated flight controller: what lies below one directory, whose path is "/" to clients. Read only.
 *
 * No path leads out of it: ".." stops at "/", and a symbolic link that points outside is not there. Names are bytes. Calls are
 * synchronous, as they are in an autopilot, where the one thread that answers also reads the card.
 */
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readSync,
  realpathSync,
  statSync,
  type BigIntStats,
  type Stats,
} from "node:fs";
import { crc32 } from "node:zlib";

export interface DiskEntry {
  readonly name: Buffer;
  readonly kind: "file" | "directory" | "other";
  readonly size: number;
}

/** An errno as POSIX numbers it. */
export const ENOENT = 2;
export const EIO = 5;
export const EISDIR = 21;
const SLASH = 0x2f;

export class DiskError extends Error {
  readonly errno: number;
  constructor(errno: number, message: string) {
    super(message);
    this.errno = errno;
  }
}

export class Disk {
  readonly #root: Buffer;

  /** Throws where `dir` is no directory. */
  constructor(dir: string) {
    this.#root = realpathSync.native(Buffer.from(dir), { encoding: "buffer" });
    if (!statSync(this.#root).isDirectory()) throw new Error(`${dir} is not a directory`);
  }

  /** The entries of a directory, ordered by the bytes of their names. */
  list(path: Buffer): DiskEntry[] {
    const dir = this.#resolve(path);
    const names = guard(() => readdirSync(dir, { encoding: "buffer" }));
    names.sort((a, b) => a.compare(b));
    return names.map((name) => this.#entry(dir, name));
  }

  /** Opens a plain file; its size is fixed at this moment. */
  open(path: Buffer): DiskFile {
    const real = this.#resolve(path);
    const fd = guard(() => openSync(real, constants.O_RDONLY | constants.O_NONBLOCK));
    const stat = fstatSync(fd);
    if (!stat.isFile()) {
      closeSync(fd);
      throw new DiskError(EISDIR, "not a plain file");
    }
    return new DiskFile(fd, stat.size);
  }

  /** The checksum of MAVLink FTP: reflected 0xEDB88320, start 0, no final xor. */
  crc(path: Buffer): number {
    const file = this.open(path);
    try {
      const block = Buffer.allocUnsafe(65536);
      let crc = 0;
      for (let at = 0; at < file.size;) {
        const n = file.read(at, block, 0, block.length);
        if (n === 0) break;
        // zlib inverts its start value and its result.
        crc = (crc32(block.subarray(0, n), (crc ^ 0xffffffff) >>> 0) ^ 0xffffffff) >>> 0;
        at += n;
      }
      return crc;
    } finally {
      file.close();
    }
  }

  #entry(dir: Buffer, name: Buffer): DiskEntry {
    const path = Buffer.concat([dir, Buffer.from("/"), name]);
    let stat: Stats | BigIntStats | undefined;
    try {
      stat = this.#inside(realpathSync.native(path, { encoding: "buffer" })) ? statSync(path) : lstatSync(path);
    } catch (error) {
      // Gone since the directory was read, or a link to nowhere: it is listed as something that is no file.
      if (!(error instanceof Error && "code" in error)) throw error;
    }
    const kind = stat?.isFile() === true ? "file" : stat?.isDirectory() === true ? "directory" : "other";
    return { name, kind, size: kind === "file" ? Number(stat?.size) : 0 };
  }

  #resolve(path: Buffer): Buffer {
    const parts: Buffer[] = [];
    for (let from = 0; from <= path.length;) {
      const slash = path.indexOf(SLASH, from);
      const end = slash === -1 ? path.length : slash;
      const part = path.subarray(from, end);
      if (part.equals(dotDot)) parts.pop();
      else if (part.length > 0 && !part.equals(dot)) parts.push(part);
      from = end + 1;
    }
    if (parts.some((part) => part.includes(0))) throw new DiskError(ENOENT, "a name holds a zero byte");
    const joined = Buffer.concat([this.#root, ...parts.flatMap((part) => [Buffer.from("/"), part])]);
    const real = guard(() => realpathSync.native(joined, { encoding: "buffer" }));
    if (!this.#inside(real)) throw new DiskError(ENOENT, "outside");
    return real;
  }

  #inside(real: Buffer): boolean {
    const root = this.#root;
    if (real.equals(root) || root.length === 1) return true;
    return real.length > root.length && real[root.length] === SLASH && real.subarray(0, root.length).equals(root);
  }
}

const dot = Buffer.from(".");
const dotDot = Buffer.from("..");

function guard<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : "";
    throw new DiskError(code === "ENOENT" || code === "ENOTDIR" ? ENOENT : EIO, String(error));
  }
}

/** An open file with a read-ahead of 64 KiB, because reads come 239 bytes at a time. */
export class DiskFile {
  readonly size: number;
  readonly #fd: number;
  readonly #block = Buffer.allocUnsafe(65536);
  #from = 0;
  #length = 0;
  #closed = false;

  constructor(fd: number, size: number) {
    this.#fd = fd;
    this.size = size;
  }

  /** Up to `length` bytes from `offset`, copied to `into` at `at`; fewer only at the size that the file had when it was opened. */
  read(offset: number, into: Buffer, at: number, length: number): number {
    let done = 0;
    const end = Math.min(offset + length, this.size);
    while (offset + done < end) {
      const position = offset + done;
      if (position < this.#from || position >= this.#from + this.#length) {
        this.#from = position;
        this.#length = guard(() => readSync(this.#fd, this.#block, 0, this.#block.length, position));
        if (this.#length === 0) break;
      }
      const begin = position - this.#from;
      const n = Math.min(end - position, this.#length - begin);
      this.#block.copy(into, at + done, begin, begin + n);
      done += n;
    }
    return done;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#fd);
  }
}
