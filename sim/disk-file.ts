/**
 * One open file of the simulated card, with a read-ahead of 64 KiB, because reads come 239 bytes at a time.
 *
 * Its size is that of the moment at which it was opened, and `now()` what it is at this moment: PX4 serves the first, ArduPilot the second.
 */
import { closeSync, fstatSync, readSync } from "node:fs";
import { DiskError, EIO, guard } from "./disk-error.js";

/** Bytes of a file, wherever they are. */
export interface Content {
  /** At this moment. */
  size(): number;
  /** Up to `length` bytes from `position` on; 0 at the end. Throws DiskError. */
  read(into: Buffer, length: number, position: number): number;
  close(): void;
}

/** A plain file of this machine. */
export class FileContent implements Content {
  readonly #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  size(): number {
    return fstatSync(this.#fd).size;
  }

  read(into: Buffer, length: number, position: number): number {
    return guard(() => readSync(this.#fd, into, 0, length, position));
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** A place of the card that cannot be read: a byte of every file that reaches it, so many times. */
export interface BadPlace {
  readonly offset: number;
  times: number;
}

/** A file of this machine (or none) with bytes behind it that were made up, and places that cannot be read. */
export class OverlaidContent implements Content {
  readonly #below: Content | undefined;
  readonly #extra: () => number;
  readonly #bad: readonly BadPlace[];

  constructor(below: Content | undefined, extra: () => number, bad: readonly BadPlace[]) {
    this.#below = below;
    this.#extra = extra;
    this.#bad = bad;
  }

  size(): number {
    return (this.#below?.size() ?? 0) + this.#extra();
  }

  read(into: Buffer, length: number, position: number): number {
    let most = length;
    for (const place of this.#bad) {
      if (place.times === 0 || place.offset < position || place.offset >= position + length) continue;
      most = Math.min(most, place.offset - position);
      if (most > 0) continue;
      place.times -= 1;
      throw new DiskError(EIO, `byte ${place.offset} cannot be read`);
    }
    const base = this.#below?.size() ?? 0;
    if (position < base) return this.#below?.read(into, Math.min(most, base - position), position) ?? 0;
    const n = Math.max(0, Math.min(most, this.size() - position));
    for (let i = 0; i < n; i++) into[i] = madeByte(position + i);
    return n;
  }

  close(): void {
    this.#below?.close();
  }
}

/** The byte at this place of a file whose content is made up. */
function madeByte(position: number): number {
  return Math.imul(position, 0x9e3779b1) >>> 24;
}

/** Bytes of a file whose content is made up. */
export function madeBytes(position: number, length: number): Buffer {
  return Buffer.from(Uint8Array.from({ length }, (_, i) => madeByte(position + i)));
}

const BLOCK_BYTES = 65_536;

export class DiskFile {
  /** When it was opened. */
  readonly size: number;
  readonly #content: Content;
  readonly #block = Buffer.allocUnsafe(BLOCK_BYTES);
  #from = 0;
  #length = 0;
  #closed = false;
  readonly #read: ((offset: number, bytes: number) => void) | undefined;

  /** `read` is told of each piece that is read. */
  constructor(content: Content, read?: (offset: number, bytes: number) => void) {
    this.#content = content;
    this.#read = read;
    this.size = content.size();
  }

  /** Its size at this moment. */
  now(): number {
    return this.#content.size();
  }

  /** Up to `length` bytes from `offset`, copied to `into` at `at`; fewer only at `end` (by default the size when it was opened). Throws DiskError. */
  read(offset: number, into: Buffer, at: number, length: number, end = this.size): number {
    let done = 0;
    const stop = Math.min(offset + length, end);
    while (offset + done < stop) {
      const position = offset + done;
      if (position < this.#from || position >= this.#from + this.#length) {
        this.#from = position;
        this.#length = 0;
        this.#length = this.#content.read(this.#block, Math.min(BLOCK_BYTES, end - position), position);
        if (this.#length === 0) break;
      }
      const begin = position - this.#from;
      const n = Math.min(stop - position, this.#length - begin);
      this.#block.copy(into, at + done, begin, begin + n);
      done += n;
    }
    if (done > 0) this.#read?.(offset, done);
    return done;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#content.close();
  }
}
