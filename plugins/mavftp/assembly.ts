/**
 * Puts pieces of a file that come in any order, in any sizes, and more than once, into one row of bytes without gaps. Only what has no gap
 * before it is handed on, in blocks of 64 KiB; a piece is copied once, to its place in a block. Memory: the blocks between the first gap and
 * the furthest byte; whoever asks for pieces keeps these close to one another.
 */
const BLOCK_BYTES = 65_536;

/** A stretch of a file that is to be asked for. */
export interface Piece {
  readonly offset: number;
  readonly length: number;
}

export class Assembly {
  /** Up to here the file is whole. */
  whole: number;
  /** Up to here it was handed on. */
  handed: number;
  /** Bytes that were new when they came. */
  gained = 0;

  readonly #hand: (bytes: Buffer) => void;
  readonly #blocks = new Map<number, Buffer>();
  /** Pieces beyond `whole`, ordered, never touching. */
  readonly #ahead: { from: number; to: number }[] = [];

  constructor(offset: number, hand: (bytes: Buffer) => void) {
    this.whole = this.handed = offset;
    this.#hand = hand;
  }

  /** Behind the furthest byte that has come. */
  get head(): number {
    return this.#ahead.at(-1)?.to ?? this.whole;
  }

  /** The first piece at or behind `from` that has not come, at most `most` bytes and none at or behind `end`; undefined: nothing is missing there. */
  missing(from: number, end: number, most: number): Piece | undefined {
    let offset = Math.max(from, this.whole);
    for (const piece of this.#ahead) {
      if (piece.to <= offset) continue;
      if (piece.from > offset) return clipped(offset, Math.min(piece.from, end), most);
      offset = piece.to;
    }
    return clipped(offset, end, most);
  }

  /** Takes `source[at..at+length)` as the file's bytes from `offset`. What is there already stays as it is. */
  place(offset: number, source: Buffer, at: number, length: number): void {
    const from = Math.max(offset, this.whole);
    const to = offset + length;
    if (from >= to) return;
    for (let position = from; position < to;) {
      const number = Math.floor(position / BLOCK_BYTES);
      let block = this.#blocks.get(number);
      if (block === undefined) this.#blocks.set(number, (block = Buffer.allocUnsafe(BLOCK_BYTES)));
      const end = Math.min(to, (number + 1) * BLOCK_BYTES);
      source.copy(block, position - number * BLOCK_BYTES, at + position - offset, at + end - offset);
      position = end;
    }
    if (from > this.whole) {
      this.gained += this.#keep(from, to);
      return;
    }
    this.gained += to - from;
    this.whole = to;
    for (let next = this.#ahead[0]; next !== undefined && next.from <= this.whole; next = this.#ahead[0]) {
      this.gained -= Math.min(next.to, this.whole) - next.from;
      this.whole = Math.max(this.whole, next.to);
      this.#ahead.shift();
    }
    while (Math.floor(this.whole / BLOCK_BYTES) > Math.floor(this.handed / BLOCK_BYTES))
      this.#give((Math.floor(this.handed / BLOCK_BYTES) + 1) * BLOCK_BYTES);
  }

  /** The last bytes behind a gap, so many at most; undefined: there is no gap. */
  furthest(most: number): { readonly offset: number; readonly bytes: Buffer } | undefined {
    const piece = this.#ahead.at(-1);
    if (piece === undefined) return undefined;
    const number = Math.floor((piece.to - 1) / BLOCK_BYTES);
    const start = number * BLOCK_BYTES;
    const offset = Math.max(piece.from, piece.to - most, start);
    return { offset, bytes: (this.#blocks.get(number) as Buffer).subarray(offset - start, piece.to - start) };
  }

  /** Hands on all that is whole, though its block is not full. */
  flush(): void {
    if (this.handed < this.whole) this.#give(this.whole);
  }

  #give(to: number): void {
    const number = Math.floor(this.handed / BLOCK_BYTES);
    const start = number * BLOCK_BYTES;
    const block = this.#blocks.get(number) as Buffer;
    const bytes = block.subarray(this.handed - start, to - start);
    if (to === start + BLOCK_BYTES) this.#blocks.delete(number);
    this.handed = to;
    this.#hand(bytes);
  }

  /** How many bytes of it are new. */
  #keep(from: number, to: number): number {
    const last = this.#ahead.at(-1);
    // The common case: it follows the furthest.
    if (last?.to === from) {
      last.to = to;
      return to - from;
    }
    const at = this.#ahead.findIndex((piece) => piece.to >= from);
    if (at === -1) {
      this.#ahead.push({ from, to });
      return to - from;
    }
    let end = at;
    let low = from;
    let high = to;
    let known = 0;
    for (let piece = this.#ahead[end]; piece !== undefined && piece.from <= to; piece = this.#ahead[end]) {
      known += piece.to - piece.from;
      low = Math.min(low, piece.from);
      high = Math.max(high, piece.to);
      end += 1;
    }
    this.#ahead.splice(at, end - at, { from: low, to: high });
    return high - low - known;
  }
}

function clipped(offset: number, end: number, most: number): Piece | undefined {
  return offset < end ? { offset, length: Math.min(end - offset, most) } : undefined;
}
