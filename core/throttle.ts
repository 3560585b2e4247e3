/** A rate: a bucket that holds a quarter of a second. Without a rate it costs nothing. */
import type { Clock } from "./plugin.js";

export class Throttle {
  #available = 0;
  #atMs: number;

  /** `rate`: bytes per second; undefined: no limit. */
  constructor(
    readonly rate: number | undefined,
    readonly clock: Clock,
  ) {
    this.#atMs = clock.monotonicMs();
  }

  /** Resolves when `bytes` may pass. What passes at once may go into debt, which the next one waits for. */
  async take(bytes: number, signal: AbortSignal): Promise<void> {
    if (this.rate === undefined) return;
    const now = this.clock.monotonicMs();
    this.#available = Math.min(this.rate / 4, this.#available + ((now - this.#atMs) / 1000) * this.rate) - bytes;
    this.#atMs = now;
    if (this.#available < 0) await this.clock.sleep((-this.#available / this.rate) * 1000, signal);
  }
}
