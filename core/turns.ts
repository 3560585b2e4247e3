/** Turns that go in the order of asking: one at a time, or so many. Whoever holds a long turn can see that others wait, and let them. */
import { setMaxListeners } from "node:events";
import { abortedFault } from "./errors.js";

/** Beyond those, of works that tell their size. */
export interface More {
  /** Turns in all. */
  readonly uploads: number;
  /** Bytes of all of them together. */
  readonly bytes: number;
}

/** What has begun. */
export interface Begun {
  readonly count: number;
  readonly bytes: number;
}

/** Whether one of `size` bytes may begin beside those: as many as usual, and of small ones more. */
export function mayBegin(begun: Begun, size: number, atOnce: number, more: More | undefined): boolean {
  return begun.count < atOnce || (more !== undefined && begun.count < more.uploads && begun.bytes + size <= more.bytes);
}

interface Waiting {
  readonly size: number;
  readonly go: () => void;
}

export class Turns {
  readonly #waiting: Waiting[] = [];
  readonly #atOnce: number;
  readonly #more: () => More | undefined;
  #running = 0;
  #bytes = 0;

  /** `more` is asked each time. */
  constructor(atOnce = 1, more: () => More | undefined = () => undefined) {
    this.#atOnce = atOnce;
    this.#more = more;
  }

  /** True while somebody waits for the turn. */
  get wanted(): boolean {
    return this.#waiting.length > 0;
  }

  /** Runs `work` when it is its turn. Rejects with the signal's Fault when that comes before the turn. `size`: bytes that it moves; without it `more` is nothing for it. */
  async run<T>(signal: AbortSignal | undefined, work: () => Promise<T>, size = Infinity): Promise<T> {
    await this.#take(signal, size);
    try {
      return await work();
    } finally {
      this.#running -= 1;
      this.#bytes -= counted(size);
      for (let next = this.#waiting[0]; next !== undefined && this.#mayBegin(next.size); next = this.#waiting[0]) {
        this.#waiting.shift();
        this.#begin(next.size);
        next.go();
      }
    }
  }

  #mayBegin(size: number): boolean {
    return mayBegin({ count: this.#running, bytes: this.#bytes }, size, this.#atOnce, this.#more());
  }

  #begin(size: number): void {
    this.#running += 1;
    this.#bytes += counted(size);
  }

  async #take(signal: AbortSignal | undefined, size: number): Promise<void> {
    if (signal?.aborted === true) throw abortedFault(signal);
    if (this.#waiting.length === 0 && this.#mayBegin(size)) {
      this.#begin(size);
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const stop = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(waiting), 1);
        if (signal !== undefined) reject(abortedFault(signal));
      };
      const go = (): void => {
        signal?.removeEventListener("abort", stop);
        resolve();
      };
      const waiting = { size, go };
      this.#waiting.push(waiting);
      if (signal === undefined) return;
      // As many may wait as like: that is no leak.
      setMaxListeners(0, signal);
      signal.addEventListener("abort", stop, { once: true });
    });
  }
}

const counted = (size: number) => (size === Infinity ? 0 : size);

/** What all of them end with; the first failure once none is under way any more. */
export async function all<T extends readonly unknown[] | []>(works: T): Promise<{ -readonly [K in keyof T]: Awaited<T[K]> }> {
  await Promise.allSettled(works);
  return Promise.all(works);
}
