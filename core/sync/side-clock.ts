/** The clock of a side, within bounds: what was written there a moment ago is known by its time. */
import type { Clock, Source } from "../plugin.js";

/** Servers tell whole seconds. */
const coarseMs = 1000;
/** Clocks drift by seconds in a day, and one that is set back shows by no time of a file. */
const oldMs = 3_600_000;
const momentMs = 10_000;

export interface Span {
  readonly leastMs: number;
  readonly mostMs: number;
}

export class SideClock {
  /** How far it is before the monotonic one, where it was read. */
  #ahead: Span | undefined;
  #readMs = 0;
  /** It was read since the last listing began. */
  #isFresh = false;
  /** And so a moment before the one that runs. */
  #isSure = false;
  #isDoubted = false;
  /** By path: times that were to come though the clock had just been read. */
  #toCome: ReadonlyMap<string, number> = new Map();
  #seen = new Map<string, number>();

  constructor(
    readonly source: Pick<Source, "now">,
    readonly clock: Clock,
  ) {}

  /** `shown`: what it shows at a moment of that asking; undefined where that cannot be seen. Not asked where the side tells its clock itself. */
  async read(shown: () => Promise<number | undefined>): Promise<void> {
    if (this.source.now !== undefined) return;
    const { clock } = this;
    const fromMs = clock.monotonicMs();
    // Also where it cannot be read now: it is not asked at each look.
    this.#readMs = fromMs;
    this.#isFresh = true;
    this.#isDoubted = false;
    const shownMs = await shown();
    this.#ahead = shownMs === undefined ? undefined : { leastMs: shownMs - clock.monotonicMs(), mostMs: shownMs + coarseMs - fromMs };
  }

  /** It was read, and is to be read once more: it may have been set since. */
  get isOld(): boolean {
    return this.#ahead !== undefined && (this.#isDoubted || this.clock.monotonicMs() - this.#readMs >= oldMs);
  }

  /** By this machine's wall clock where nobody knows its own. */
  now(): Span {
    const { clock } = this;
    const ms = this.#ahead === undefined ? (this.source.now?.() ?? clock.wallMs()) : clock.monotonicMs();
    const { leastMs, mostMs } = this.#ahead ?? { leastMs: 0, mostMs: 0 };
    return { leastMs: ms + leastMs, mostMs: ms + mostMs };
  }

  /** Of a file in a listing that is new: whether its time is to come by a clock that was not read since that is shown. Then it waits until the clock is read. */
  doubts(path: string, modifiedMs: number): boolean {
    if (this.#ahead === undefined || modifiedMs <= this.now().mostMs) return false;
    const isKnown = this.#isSure || this.#toCome.get(path) === modifiedMs;
    if (isKnown) this.#seen.set(path, modifiedMs);
    else this.#isDoubted = true;
    return !isKnown;
  }

  /** A listing begins. */
  begins(): void {
    this.#toCome = this.#seen;
    this.#seen = new Map();
    this.#isSure = this.#isFresh && this.clock.monotonicMs() - this.#readMs < momentMs;
    this.#isFresh = false;
  }
}
