/**
 * Slows down who guesses passwords.
 *
 * Guesses from one address are answered one after the other, each later than the one before; other addresses wait for nothing.
 * Nothing is kept on disk: a restart forgets who guessed.
 */
import type { Clock } from "../../core/plugin.js";

const firstWaitMs = 500;
const longestWaitMs = 15_000;
const forgetAfterMs = 10 * 60_000;
/** Above this many addresses the ones that failed longest ago are forgotten: a flood from many addresses costs no memory. */
const mostAddresses = 10_000;

interface Guesses {
  failures: number;
  lastMs: number;
  /** Ends when the last attempt from this address was answered. */
  tail: Promise<unknown>;
  waiting: number;
}

/** Counts wrong passwords per address, and makes each further answer to that address later. */
export class Doorkeeper {
  readonly #clock: Clock;
  readonly #byAddress = new Map<string, Guesses>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Runs `check` when the earlier attempts from this address were answered; a wrong one resolves late. Rejects when `signal` is given. */
  async attempt(address: string, signal: AbortSignal, check: () => Promise<boolean>): Promise<boolean> {
    this.#forget();
    const guesses = this.#byAddress.get(address) ?? { failures: 0, lastMs: 0, tail: Promise.resolve(), waiting: 0 };
    this.#byAddress.set(address, guesses);
    guesses.waiting += 1;
    const mine = guesses.tail.then(async () => {
      signal.throwIfAborted();
      if (await check()) {
        guesses.failures = 0;
        return true;
      }
      guesses.failures += 1;
      guesses.lastMs = this.#clock.monotonicMs();
      await this.#clock.sleep(Math.min(longestWaitMs, firstWaitMs * 2 ** (guesses.failures - 1)), signal);
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
      if (guesses.waiting === 0 && guesses.failures === 0) this.#byAddress.delete(address);
    }
  }

  #forget(): void {
    const now = this.#clock.monotonicMs();
    for (const [address, guesses] of this.#byAddress) {
      const old = now - guesses.lastMs > forgetAfterMs || this.#byAddress.size > mostAddresses;
      if (guesses.waiting === 0 && old) this.#byAddress.delete(address);
      else if (this.#byAddress.size <= mostAddresses) break;
    }
  }
}
