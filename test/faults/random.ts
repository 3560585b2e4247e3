/** Seeded chance: a run that failed is replayed by its printed seed. */
export class Random {
  #state: number;
  constructor(readonly seed: number) {
    this.#state = seed >>> 0;
  }

  /** 0 ≤ x < 1 (mulberry32). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number, `from` ≤ n < `to`. */
  between(from: number, to: number): number {
    return from + Math.floor(this.next() * (to - from));
  }

  /** A whole number, 0 ≤ n < `to`. */
  below(to: number): number {
    return this.between(0, to);
  }

  pick<T>(items: readonly T[]): T {
    const item = items[this.between(0, items.length)];
    if (item === undefined) throw new Error("nothing to pick from");
    return item;
  }

  bytes(length: number): Buffer {
    const buffer = Buffer.allocUnsafe(length);
    let at = 0;
    for (; at + 4 <= length; at += 4) buffer.writeUInt32LE(Math.floor(this.next() * 2 ** 32), at);
    for (; at < length; at++) buffer[at] = this.between(0, 256);
    return buffer;
  }
}
