/**
 * How long a target is usually up, and how fast it takes bytes: what cannot be taken in parts is begun only when it can be finished. What is learned is
 * kept over restarts; until there is enough of it, anything may be begun.
 */
import type { Clock } from "./plugin.js";
import { durationText, sizeText } from "./text.js";
import type { Held } from "./when.js";

export interface Learned {
  /** The last stays, newest last, in ms. */
  readonly upMs: readonly number[];
  /** Bytes per second, smoothed. */
  readonly rate?: number | undefined;
}

export interface LearnedStore {
  load(): Learned | undefined;
  save(learned: Learned): Promise<void>;
}

const stays = 9;
const enough = 3;
/** Less says little of a rate. */
const leastBytes = 65_536;

export class Uptime {
  #learned: Learned;
  #sinceMs: number | undefined;

  constructor(
    readonly store: LearnedStore,
    readonly clock: Clock,
  ) {
    this.#learned = store.load() ?? { upMs: [] };
  }

  /** It attached, or detached. */
  is(attached: boolean): Promise<void> {
    const now = this.clock.monotonicMs();
    const before = this.#sinceMs;
    if (attached === (before !== undefined)) return Promise.resolve();
    this.#sinceMs = attached ? now : undefined;
    return before === undefined
      ? Promise.resolve()
      : this.#keep({ ...this.#learned, upMs: [...this.#learned.upMs, now - before].slice(-stays) });
  }

  /** A transfer ended, whole or not. */
  moved(bytes: number, ms: number): Promise<void> {
    if (bytes < leastBytes || ms <= 0) return Promise.resolve();
    const now = (bytes * 1000) / ms;
    const { rate } = this.#learned;
    return this.#keep({ ...this.#learned, rate: rate === undefined ? now : 0.7 * rate + 0.3 * now });
  }

  /** Why `bytes` in one piece would probably not be finished; undefined when they may be begun. */
  held(bytes: number): Held | undefined {
    const { upMs, rate } = this.#learned;
    if (rate === undefined || upMs.length < enough || this.#sinceMs === undefined) return undefined;
    const needMs = (bytes * 1000) / rate;
    const usualMs = [...upMs].sort((a, b) => a - b)[Math.floor(upMs.length / 2)] ?? 0;
    const nowMs = this.clock.monotonicMs() - this.#sinceMs;
    // One that is up for so long already may well stay.
    if (needMs <= usualMs || needMs <= nowMs) return undefined;
    const texts = [sizeText(bytes), `${sizeText(rate)}/s`, durationText(needMs / 1000), durationText(usualMs / 1000)] as const;
    return {
      reason: `its ${texts[0]} take ${texts[2]} at the usual ${texts[1]}, in one piece, and the target is usually up for ${texts[3]}`,
      inMs: needMs - nowMs,
    };
  }

  #keep(learned: Learned): Promise<void> {
    this.#learned = learned;
    return this.store.save(learned);
  }
}
