/**
 * One open file of the simulated card, with a read-ahead of 64 KiB, because reads come 239 bytes at a time.
 *
 * Its size is that of the moment at which it was opened, and `now()` what it is at this moment: PX4 serves the first, ArduPilot the second.
 */
import { closeSync, fstatSync, readSync } from "node:fs";
import { guard } from "./disk-error.js";

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

const BLOCK_BYTES = 65_536;

export class DiskFile {
  /** When it was opened. */
  readonly size: number;
  readonly #content: Content;
  readonly #block = Buffer.allocUnsafe(BLOCK_BYTES);
  #from = 0;
  #length = 0;
  #closed = false;

  constructor(content: Content) {
    this.#content = content;
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
    return done;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#content.close();
  }
}
