/**
 * Slows down who guesses passwords.
 *
 * Guesses at one user's password from one address are looked at one after the other, each later than the one before, whether or not their
 * answers are waited for; other users of that address, and other addresses, wait for nothing. Nothing is kept on disk: a restart forgets who guessed.
 */
import type { Clock } from "../../core/plugin.js";

const firstWaitMs = 500;
const longestWaitMs = 15_000;
const forgetAfterMs = 10 * 60_000;
/** Above this many those that failed longest ago are forgotten: a flood from many addresses, or of many names, costs no memory. */
const mostRemembered = 10_000;

interface Guesses {
  failures: number;
  lastMs: number;
  /** Before this none is looked at. */
  nextMs: number;
  /** Ends when the last attempt was answered, or given up. */
  tail: Promise<unknown>;
  waiting: number;
}

/** Counts wrong passwords per address and user, and looks at each further one later. */
export class Doorkeeper {
  readonly #clock: Clock;
  readonly #guesses = new Map<string, Guesses>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Runs `check` when the earlier attempts at this user from this address are over; a wrong one resolves late. Rejects when `signal` is given. */
  async attempt(address: string, user: string, signal: AbortSignal, check: () => Promise<boolean>): Promise<boolean> {
    this.#forget();
    // A stranger may send a name of any length.
    const key = `${address}\0${user.slice(0, 64)}`;
    const guesses = this.#guesses.get(key) ?? { failures: 0, lastMs: 0, nextMs: 0, tail: Promise.resolve(), waiting: 0 };
    this.#guesses.set(key, guesses);
    guesses.waiting += 1;
    const mine = guesses.tail.then(async () => {
      signal.throwIfAborted();
      // Whoever was before may have hung up, and waited for no answer.
      const leftMs = guesses.nextMs - this.#clock.monotonicMs();
      if (leftMs > 0) await this.#clock.sleep(leftMs, signal);
      if (await check()) {
        guesses.failures = 0;
        return true;
      }
      guesses.failures += 1;
      guesses.lastMs = this.#clock.monotonicMs();
      const waitMs = Math.min(longestWaitMs, firstWaitMs * 2 ** (guesses.failures - 1));
      guesses.nextMs = guesses.lastMs + waitMs;
      await this.#clock.sleep(waitMs, signal);
      guesses.nextMs = 0;
      return false;
    });
    // The next in line only needs to know that this one ended; how it ended is told to the caller.
    guesses.tail = mine.then(
      () => undefined,
      () => undefined,
    );
    try {
      return await mine;
    } finally {
      guesses.waiting -= 1;
      if (guesses.waiting === 0 && guesses.failures === 0) this.#guesses.delete(key);
    }
  }

  #forget(): void {
    const now = this.#clock.monotonicMs();
    for (const [key, guesses] of this.#guesses) {
      const old = now - guesses.lastMs > forgetAfterMs || this.#guesses.size > mostRemembered;
      if (guesses.waiting === 0 && old) this.#guesses.delete(key);
      else if (this.#guesses.size <= mostRemembered) break;
    }
  }
}
