/** Looking, one time after the other, at what may have changed; woken by hints that may be lost or doubled. */
import type { Observable } from "rxjs";

export class Looks {
  #due = false;
  #looking = false;
  #later: NodeJS.Timeout | undefined;
  #wake: () => void = () => undefined;

  /** `look` is given the signal of `run`. No look begins while `may` says false, and what is hinted at then is not kept. */
  constructor(
    readonly look: (stop: AbortSignal) => Promise<void>,
    readonly may: () => boolean = () => true,
  ) {}

  /** A look runs, or one is due. */
  get busy(): boolean {
    return this.#looking || this.#due;
  }

  /** A look begins after this: now, or once the one that runs has ended; for all hints until then it is one. */
  hint(): void {
    if (!this.may()) return;
    this.#due = true;
    this.#wake();
  }

  /** A hint in so many ms, in place of the one that was asked for before. */
  hintIn(ms: number): void {
    clearTimeout(this.#later);
    this.#later = setTimeout(() => this.hint(), ms);
  }

  /** Looks at each hint until `stop`; completes when the last look has ended. Rejects with what a look throws, and looks no more. */
  async run(hints$: Observable<unknown>, stop: AbortSignal): Promise<void> {
    const hints = hints$.subscribe(() => this.hint());
    const end = () => {
      hints.unsubscribe();
      clearTimeout(this.#later);
      this.#wake();
    };
    stop.addEventListener("abort", end, { once: true });
    try {
      while (!stop.aborted) await (this.#due && this.may() ? this.#once(stop) : this.#woken());
    } finally {
      stop.removeEventListener("abort", end);
      // Also what the last look asked for.
      end();
    }
  }

  async #once(stop: AbortSignal): Promise<void> {
    this.#due = false;
    this.#looking = true;
    try {
      await this.look(stop);
    } finally {
      this.#looking = false;
    }
  }

  #woken(): Promise<void> {
    return new Promise((wake) => {
      this.#wake = wake;
    });
  }
}
