/**
 * How many plain reads may be on their way at once, and how long one may take: what a link bears, found by trying and kept from file to
 * file. One more per loss-free round, a quarter less after a loss.
 */
export interface WindowLimits {
  readonly first: number;
  readonly least: number;
  readonly most: number;
}

/** Four never overrun a PX4's smallest buffers, so it never goes below; eight fill every link. */
export const PX4_WINDOW: WindowLimits = { first: 4, least: 4, most: 8 };
/** ArduPilot queues five requests and drops what comes beyond, from whomever (GCS_FTP.cpp). */
export const ARDUPILOT_WINDOW: WindowLimits = { first: 4, least: 4, most: 5 };
/** One at a time: slow and sure. */
export const SAFEST_WINDOW: WindowLimits = { first: 1, least: 1, most: 1 };

export const RESEND_LEAST_MS = 30;
export const RESEND_MOST_MS = 1000;
/** Networks and routers let few packets pass one another. */
const OVERTAKEN_MOST = 3;

export class Pace {
  readonly #limits: WindowLimits;
  #window: number;
  #roundMs = 0;
  #varianceMs = 0;
  #overtaken = 1;

  constructor(limits: WindowLimits) {
    this.#limits = limits;
    this.#window = limits.first;
  }

  /** Requests that may be on their way now. */
  get window(): number {
    return Math.floor(this.#window);
  }

  /** The usual time from a request to its answer; 0 until one is known. */
  get roundMs(): number {
    return this.#roundMs;
  }

  /** How long a request may take before it counts as lost. */
  resendMs(): number {
    if (this.#roundMs === 0) return RESEND_MOST_MS;
    // On a steady link the variance goes to nothing, and every answer that is a little late would be asked for twice.
    const spareMs = Math.max(4 * this.#varianceMs, this.#roundMs / 2);
    return Math.min(Math.max(this.#roundMs + spareMs, RESEND_LEAST_MS), RESEND_MOST_MS);
  }

  roundTook(ms: number): void {
    if (this.#roundMs === 0) {
      this.#roundMs = ms;
      this.#varianceMs = ms / 2;
    } else {
      this.#varianceMs += (Math.abs(ms - this.#roundMs) - this.#varianceMs) / 4;
      this.#roundMs += (ms - this.#roundMs) / 8;
    }
    this.#window = Math.min(this.#limits.most, this.#window + 1 / this.#window);
  }

  /**
   * So many later requests answered first, and one counts as lost. A wire keeps the order, and so do the autopilots, so one is enough until answers were
   * seen to come all the same.
   */
  get overtaken(): number {
    return this.#overtaken;
  }

  /** What counted as lost because later requests were answered first has come. */
  cameLate(): void {
    this.#overtaken = Math.min(this.#overtaken + 1, OVERTAKEN_MOST);
  }

  lost(): void {
    this.#window = Math.max(this.#limits.least, this.#window * 0.75);
  }
}
