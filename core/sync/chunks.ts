/**
 * Content-defined chunks: a file is cut where its own bytes say so, so that what is inserted or removed moves the cuts near it and no others. Two versions of a file are then compared
 * by the digests of their chunks, which is enough to say which bytes of the new one are in the old one. Cuts as FastCDC makes them (Xia et al., USENIX ATC 2016):
 * a gear hash, none before `least`, rarer before `mean` and more often after it, always at `most`.
 */
import { createHash, type Hash } from "node:crypto";

/** In bytes. `mean`: a power of two. */
export interface Sizes {
  readonly least: number;
  readonly mean: number;
  readonly most: number;
}

/** Smaller chunks send less of what changed, and cost more to keep: 20 bytes each. */
export const sizes: Sizes = { least: 16 * 1024, mean: 64 * 1024, most: 256 * 1024 };

export interface Chunk {
  readonly length: number;
  /** The first 128 bits of its SHA-256, as 32 hexadecimal digits. */
  readonly hash: string;
}

export const hashOf = (bytes: Uint8Array): string => shortOf(createHash("sha256").update(bytes));
const shortOf = (hash: Hash): string => hash.digest("hex").slice(0, 32);

/** The same on each machine, and for ever: chunks are kept. From xorshift32, whose start is the golden ratio. */
const gear = Int32Array.from(
  (function* () {
    for (let n = 0, state = 0x9e3779b9; n < 256; n++) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      yield state;
    }
  })(),
);

/** The bits that the oldest bytes are still in: a cut depends on the 32 bytes before it. */
const highest = (bits: number): number => ((2 ** bits - 1) << (32 - bits)) | 0;

/** Takes the bytes of a file in order, and cuts them. */
export class Chunker {
  readonly chunks: Chunk[] = [];
  readonly #sizes: Sizes;
  readonly #rarely: number;
  readonly #often: number;
  #hash = createHash("sha256");
  #length = 0;
  #gear = 0;

  constructor(given: Sizes = sizes) {
    this.#sizes = given;
    const bits = Math.round(Math.log2(given.mean));
    this.#rarely = highest(bits + 2);
    this.#often = highest(bits - 2);
  }

  update(bytes: Uint8Array): void {
    const { least, mean, most } = this.#sizes;
    let from = 0;
    for (let at = 0; at < bytes.length;) {
      const skipped = Math.min(least - this.#length, bytes.length - at);
      if (skipped > 0) {
        this.#length += skipped;
        at += skipped;
        continue;
      }
      const end = Math.min(bytes.length, at + most - this.#length);
      const until = Math.min(end, Math.max(at, at + mean - this.#length));
      let place = this.#cut(bytes, at, until, this.#rarely);
      if (place < 0) place = this.#cut(bytes, until, end, this.#often);
      this.#length += (place < 0 ? end : place) - at;
      at = place < 0 ? end : place;
      if (place < 0 && this.#length < most) continue;
      this.#hash.update(bytes.subarray(from, at));
      from = at;
      this.#next();
    }
    this.#hash.update(bytes.subarray(from));
  }

  /** No more bytes come. */
  end(): readonly Chunk[] {
    if (this.#length > 0) this.#next();
    return this.chunks;
  }

  /** Where the next cut is, right behind its last byte; -1 where there is none. */
  #cut(bytes: Uint8Array, from: number, end: number, mask: number): number {
    // Looked up once: this is where the time goes.
    const table = gear;
    let hash = this.#gear;
    for (let at = from; at < end; at++) {
      hash = ((hash << 1) + (table[bytes[at] ?? 0] ?? 0)) | 0;
      if ((hash & mask) === 0) {
        this.#gear = hash;
        return at + 1;
      }
    }
    this.#gear = hash;
    return -1;
  }

  #next(): void {
    this.chunks.push({ length: this.#length, hash: shortOf(this.#hash) });
    this.#hash = createHash("sha256");
    this.#length = 0;
    this.#gear = 0;
  }
}

/** Bytes of the new version, in order. `from`: where they are in the old one; undefined: they are new. */
export interface Step {
  readonly length: number;
  readonly from?: number;
}

/** How the new version comes of the old one. What is in the old one for fewer than `least` bytes counts as new: asking for it takes its time. Each step ends where a chunk of the new version does. */
export function stepsOf(old: readonly Chunk[], now: readonly Chunk[], least: number): Step[] {
  const offsets: number[] = [];
  const known = new Map<string, number>();
  let end = 0;
  old.forEach(({ hash }, n) => {
    offsets.push(end);
    end += old[n]?.length ?? 0;
    if (!known.has(hash)) known.set(hash, n);
  });
  const found: Step[] = [];
  /** What follows what was found last: of equal chunks that is the one. */
  let next = -1;
  for (const { length, hash } of now) {
    const n = old[next]?.hash === hash ? next : (known.get(hash) ?? -1);
    const from = old[n]?.length === length ? offsets[n] : undefined;
    next = from === undefined ? -1 : n + 1;
    join(found, from === undefined ? { length } : { length, from });
  }
  const steps: Step[] = [];
  for (const { length, from } of found) join(steps, from === undefined || length < least ? { length } : { length, from });
  return steps;
}

function join(steps: Step[], { length, from }: Step): void {
  const last = steps.at(-1);
  if (last !== undefined && (from === undefined ? last.from === undefined : last.from !== undefined && last.from + last.length === from))
    steps[steps.length - 1] = { ...last, length: last.length + length };
  else steps.push(from === undefined ? { length } : { length, from });
}

const magic = "filesync chunks 1\n";
const entryBytes = 20;
const sumBytes = 32;

/** 20 bytes for each chunk, and a digest of all that. */
export function encoded(chunks: readonly Chunk[]): Buffer {
  const body = Buffer.alloc(magic.length + entryBytes * chunks.length);
  let at = body.write(magic, "latin1");
  for (const { length, hash } of chunks) {
    at = body.writeUInt32BE(length, at);
    at += body.write(hash, at, "hex");
  }
  return Buffer.concat([body, createHash("sha256").update(body).digest()]);
}

/** undefined: it is damaged, or of a file of another size. */
export function decoded(bytes: Buffer, size: number): readonly Chunk[] | undefined {
  const body = bytes.subarray(0, Math.max(0, bytes.length - sumBytes));
  const count = (body.length - magic.length) / entryBytes;
  if (!Number.isInteger(count) || count < 0 || body.toString("latin1", 0, magic.length) !== magic) return undefined;
  if (!createHash("sha256").update(body).digest().equals(bytes.subarray(body.length))) return undefined;
  const chunks = Array.from({ length: count }, (_, n) => {
    const at = magic.length + n * entryBytes;
    return { length: body.readUInt32BE(at), hash: body.toString("hex", at + 4, at + entryBytes) };
  });
  return chunks.reduce((sum, { length }) => sum + length, 0) === size ? chunks : undefined;
}
