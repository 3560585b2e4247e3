/** Turns that go in the order of asking: one at a time, or so many. Whoever holds a long turn can see that others wait, and let them. */
import { abortedFault } from "./errors.js";

export class Turns {
  readonly #waiting: (() => void)[] = [];
  #free: number;

  constructor(atOnce = 1) {
    this.#free = atOnce;
  }

  /** True while somebody waits for the turn. */
  get wanted(): boolean {
    return this.#waiting.length > 0;
  }

  /** Runs `work` when it is its turn. Rejects with the signal's Fault when that comes before the turn. */
  async run<T>(signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
    await this.#take(signal);
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free += 1;
      else next();
    }
  }

  async #take(signal: AbortSignal | undefined): Promise<void> {
    if (signal?.aborted === true) throw abortedFault(signal);
    if (this.#free > 0) {
      this.#free -= 1;
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const stop = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(go), 1);
        if (signal !== undefined) reject(abortedFault(signal));
      };
      const go = (): void => {
        signal?.removeEventListener("abort", stop);
        resolve();
      };
      this.#waiting.push(go);
      signal?.addEventListener("abort", stop, { once: true });
    });
  }
}

/** What all of them end with; the first failure once none is under way any more. */
export async function all<T>(works: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(works);
  return Promise.all(works);
}
