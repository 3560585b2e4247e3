/**
 * A few random pieces of what has come, kept to be compared with the same pieces read once more: what can be proved of a file whose checksum would keep the
 * autopilot busy for too long.
 */
import { FTP_DATA_MAX } from "../../mavlink/ftp.js";

export interface Sample {
  readonly offset: number;
  readonly bytes: Buffer;
}

const SAMPLES = 8;

export class Samples {
  readonly kept: Sample[] = [];
  readonly #random: () => number;
  #blocks = 0;

  constructor(random: () => number) {
    this.#random = random;
  }

  /** The next block that is handed on; each has the same chance, however many come. */
  take(offset: number, block: Buffer): void {
    this.#blocks += 1;
    const at = this.kept.length < SAMPLES ? this.kept.length : Math.floor(this.#random() * this.#blocks);
    if (at >= SAMPLES) return;
    const from = Math.floor(this.#random() * Math.max(1, block.length - FTP_DATA_MAX));
    // A copy: the block is the reader's.
    this.kept[at] = { offset: offset + from, bytes: Buffer.from(block.subarray(from, from + FTP_DATA_MAX)) };
  }
}
