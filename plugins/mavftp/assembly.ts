/**
 * Puts pieces of a file that come in any order, in any sizes, and more than once, into one row of bytes without gaps. Only what has no gap
 * before it is handed on, in blocks of 64 KiB; a piece is copied once, to its place in a block. Memory: two blocks, because pieces
 * are asked for only close to one another.
 */
const BLOCK_BYTES = 65_536;

export class Assembly {
  /** Up to here the file is whole. */
  whole: number;
  /** Up to here it was handed on. */
  handed: number;

  readonly #hand: (bytes: Buffer) => void;
  readonly #blocks = new Map<number, Buffer>();
  /** Pieces beyond `whole`, ordered, never touching. */
  readonly #ahead: { from: number; to: number }[] = [];

  constructor(offset: number, hand: (bytes: Buffer) => void) {
    this.whole = this.handed = offset;
    this.#hand = hand;
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
      this.#keep(from, to);
      return;
    }
    this.whole = to;
    for (let next = this.#ahead[0]; next !== undefined && next.from <= this.whole; next = this.#ahead[0]) {
      this.whole = Math.max(this.whole, next.to);
      this.#ahead.shift();
    }
    while (Math.floor(this.whole / BLOCK_BYTES) > Math.floor(this.handed / BLOCK_BYTES))
      this.#give((Math.floor(this.handed / BLOCK_BYTES) + 1) * BLOCK_BYTES);
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

  #keep(from: number, to: number): void {
    const at = this.#ahead.findIndex((piece) => piece.to >= from);
    if (at === -1) {
      this.#ahead.push({ from, to });
      return;
    }
    let end = at;
    let low = from;
    let high = to;
    for (let piece = this.#ahead[end]; piece !== undefined && piece.from <= to; piece = this.#ahead[end]) {
      low = Math.min(low, piece.from);
      high = Math.max(high, piece.to);
      end += 1;
    }
    this.#ahead.splice(at, end - at, { from: low, to: high });
  }
}
