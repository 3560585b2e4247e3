/**
 * Whether somebody else takes bytes out of our wire: then frames are torn, about as many as come whole, on a wire that was good before. A program
 * of another user, or in a container, can do that without being seen (`owners.ts`).
 */
const WINDOW_MS = 4000;
/** Fewer say nothing. */
const LEAST = 10;
/** A good wire: so many frames, of which so many may be torn. */
const GOOD_FRAMES = 15;
const GOOD_SHARE = 0.05;

interface Count {
  readonly atMs: number;
  readonly whole: number;
  readonly torn: number;
}

export class TornWatch {
  #good = false;
  #counts: Count[] = [];

  /** A wire was opened; whether it was good is remembered. */
  opened(): void {
    this.#counts = [];
  }

  /** Takes both counts since the opening, about once a second. True: half of the frames are torn, and were not before. */
  look(nowMs: number, whole: number, torn: number): boolean {
    const now = { atMs: nowMs, whole, torn };
    while ((this.#counts[1]?.atMs ?? Infinity) <= nowMs - WINDOW_MS) this.#counts.shift();
    const before = this.#counts[0] ?? { atMs: nowMs, whole: 0, torn: 0 };
    this.#counts.push(now);
    const [came, broke] = [whole - before.whole, torn - before.torn];
    if (came >= GOOD_FRAMES && broke <= came * GOOD_SHARE) this.#good = true;
    return this.#good && broke >= LEAST && broke >= came;
  }
}
