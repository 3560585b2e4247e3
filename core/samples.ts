/** Whether a source's file still is the one of which some was read: its first bytes and its last are compared, where to read all of it again is too much. */
import type { FileEntry, Source } from "./plugin.js";
import { throwIfAborted } from "./errors.js";

const sampleBytes = 4096;

/** Of the bytes from `from` to `to`: where each sample begins, and its length. */
export function samplesOf(from: number, to: number): readonly (readonly [number, number])[] {
  const length = Math.min(sampleBytes, to - from);
  return [
    [from, length],
    [to - length, length],
  ];
}

export async function sampleAt(source: Source, entry: FileEntry, from: number, length: number, signal: AbortSignal): Promise<Buffer> {
  const stream = await source.open(entry, from, signal);
  const parts: Buffer[] = [];
  let have = 0;
  for await (const chunk of stream) {
    parts.push(chunk as Buffer);
    have += (chunk as Buffer).length;
    if (have >= length) break;
  }
  throwIfAborted(signal);
  return Buffer.concat(parts).subarray(0, length);
}

/** Of what passes and is not kept. */
export class Samples {
  #first = Buffer.alloc(0);
  #last = Buffer.alloc(0);
  #at: number;

  constructor(readonly offset: number) {
    this.#at = offset;
  }

  update(bytes: Buffer): void {
    if (this.#first.length < sampleBytes) this.#first = Buffer.concat([this.#first, bytes.subarray(0, sampleBytes - this.#first.length)]);
    this.#last = Buffer.concat([this.#last, bytes.subarray(-sampleBytes)]).subarray(-sampleBytes);
    this.#at += bytes.length;
  }

  async areIn(source: Source, entry: FileEntry, signal: AbortSignal): Promise<boolean> {
    if (this.#at === this.offset) return true;
    for (const [n, [from, length]] of samplesOf(this.offset, this.#at).entries()) {
      const theirs = await sampleAt(source, entry, from, length, signal);
      if (!theirs.equals(n === 0 ? this.#first : this.#last)) return false;
    }
    return true;
  }
}
