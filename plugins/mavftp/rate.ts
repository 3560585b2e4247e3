/**
 * The most bytes per second that are asked for, on a link that is shared. Core slows the stream, which holds a quarter of a megabyte: on a radio
 * that is a minute in which the link is full. Here the requests themselves wait, and nobody's turn is held meanwhile.
 */
import { abortedFault } from "../../core/errors.js";
import type { Clock } from "../../core/plugin.js";

/** What may be asked for at once, as a part of a second's bytes. */
const BUCKET_S = 0.1;
/** Less is not worth a turn of the link: four requests. */
const BUCKET_LEAST = 4 * 239;

export class RateCap {
  readonly #rate: number;
  readonly #clock: Clock;
  readonly #bucket: number;
  #left: number;
  #atMs: number;

  /** Bytes per second; undefined: as many as the link bears. */
  constructor(rate: number | undefined, clock: Clock) {
    this.#rate = rate ?? Infinity;
    this.#clock = clock;
    this.#bucket = this.#left = Math.max(this.#rate * BUCKET_S, BUCKET_LEAST);
    this.#atMs = clock.monotonicMs();
  }

  /** These have come. More than was allowed is waited for later. */
  came(bytes: number): void {
    if (this.#rate !== Infinity) this.#left -= bytes;
  }

  /** Whether more may be asked for now. */
  get open(): boolean {
    return this.#left > 0;
  }

  /** Resolves when a turn's worth may be asked for; rejects with the signal's Fault. */
  async ready(signal: AbortSignal): Promise<void> {
    if (this.#rate === Infinity) return;
    this.#fill();
    if (this.#left < this.#bucket)
      try {
        await this.#clock.sleep(((this.#bucket - this.#left) / this.#rate) * 1000, signal);
      } catch (error) {
        throw signal.aborted ? abortedFault(signal) : error;
      }
    this.#fill();
  }

  #fill(): void {
    const now = this.#clock.monotonicMs();
    this.#left = Math.min(this.#bucket, this.#left + ((now - this.#atMs) / 1000) * this.#rate);
    this.#atMs = now;
  }
}
