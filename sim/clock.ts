/**
 * Time as the simulator sees it, so that a test can turn it by hand. Milliseconds, monotonic.
 */
export interface SimClock {
  now(): number;
  /** Runs once, so much later (0 or less: after what is being done now); the returned function forgets it. */
  after(ms: number, run: () => void): () => void;
}

/** The time of this machine. */
export const realClock: SimClock = {
  now: () => performance.now(),
  after(ms, run) {
    if (ms > 0) {
      const timer = setTimeout(run, ms);
      return () => clearTimeout(timer);
    }
    const soon = setImmediate(run);
    return () => clearImmediate(soon);
  },
};

/** The most that is given back for one late timer. */
const LATE_MAX_MS = 5;

/**
 * A clock that gives back what late timers took, so that a closed loop of request and reply runs at the pace of what is simulated and not at
 * that of this machine's timers. It is at most 5 ms behind the clock below it, so over more than that no rate is ever exceeded.
 */
export class SteadyClock implements SimClock {
  readonly #below: SimClock;
  #lateMs = 0;

  constructor(below: SimClock) {
    this.#below = below;
  }

  now(): number {
    return this.#below.now() - this.#lateMs;
  }

  after(ms: number, run: () => void): () => void {
    const dueMs = this.now() + Math.max(0, ms);
    return this.#below.after(dueMs - this.#below.now(), () => {
      this.isLateSince(dueMs);
      run();
    });
  }

  /** How far it is behind. */
  get lateMs(): number {
    return this.#lateMs;
  }

  /** What is done now was due then, by this clock. */
  isLateSince(dueMs: number): void {
    this.#lateMs = Math.min(LATE_MAX_MS, Math.max(0, this.#below.now() - dueMs));
  }
}

/** A clock that stands still until it is moved. */
export class HandClock implements SimClock {
  #nowMs = 0;
  #order = 0;
  readonly #due = new Set<{ readonly atMs: number; readonly order: number; readonly run: () => void }>();

  now(): number {
    return this.#nowMs;
  }

  after(ms: number, run: () => void): () => void {
    const entry = { atMs: this.#nowMs + Math.max(0, ms), order: this.#order++, run };
    this.#due.add(entry);
    return () => void this.#due.delete(entry);
  }

  /** Runs what is due within so much time, in its order. */
  advance(ms: number): void {
    const untilMs = this.#nowMs + ms;
    for (;;) {
      let next: { readonly atMs: number; readonly order: number; readonly run: () => void } | undefined;
      for (const entry of this.#due)
        if (next === undefined || entry.atMs < next.atMs || (entry.atMs === next.atMs && entry.order < next.order)) next = entry;
      if (next === undefined || next.atMs > untilMs) break;
      this.#due.delete(next);
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      next.run();
    }
    this.#nowMs = untilMs;
  }

  /** Work that is still due: none after everything has stopped. */
  get waiting(): number {
    return this.#due.size;
  }
}
