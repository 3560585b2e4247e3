/**
 * A half-duplex radio: one frame is in the air at a time, and the ways take turns while both have something to send.
 */
import { SteadyClock, type SimClock } from "./clock.js";
import type { LinkModel, Way } from "./wire.js";

/** What one way of a half-duplex radio has to send. */
interface Side {
  length: number;
  next(): number;
  sent(): () => void;
}

/** Both ways of it. */
export class Air {
  readonly #bytesPerMs: number;
  readonly #latencyMs: number;
  readonly #clock: SimClock;
  readonly #sides: Side[] = [];
  #last = 0;
  #forget: (() => void) | undefined;
  readonly #arriving = new Set<() => void>();

  constructor(link: Pick<LinkModel, "bytesPerSecond" | "latencyMs">, clock: SimClock) {
    this.#bytesPerMs = link.bytesPerSecond / 1000;
    this.#latencyMs = link.latencyMs ?? 0;
    this.#clock = new SteadyClock(clock);
  }

  /** One of its ways. */
  way<T extends { readonly length: number }>(ring: number, deliver: (frame: T) => void): Way<T> {
    let queue: T[] = [];
    let bytes = 0;
    this.#sides.push({
      get length() {
        return queue.length;
      },
      next: () => queue[0]?.length ?? 0,
      sent() {
        const frame = queue.shift() as T;
        bytes -= frame.length;
        return () => deliver(frame);
      },
    });
    return {
      free: () => Math.max(0, ring - bytes),
      put: (frame) => {
        if (frame.length > ring - bytes) return false;
        queue.push(frame);
        bytes += frame.length;
        this.#send();
        return true;
      },
      clear: () => {
        queue = [];
        bytes = 0;
        this.#forget?.();
        this.#forget = undefined;
        for (const forget of this.#arriving) forget();
        this.#arriving.clear();
        this.#send();
      },
    };
  }

  #send(): void {
    if (this.#forget !== undefined) return;
    const count = this.#sides.length;
    const turn = Array.from({ length: count }, (_, i) => (this.#last + 1 + i) % count).find((i) => (this.#sides[i]?.length ?? 0) > 0);
    const side = turn === undefined ? undefined : this.#sides[turn];
    if (side === undefined || turn === undefined) return;
    this.#forget = this.#clock.after(side.next() / this.#bytesPerMs, () => {
      this.#forget = undefined;
      this.#last = turn;
      const arrive = side.sent();
      const forget = this.#clock.after(this.#latencyMs, () => {
        this.#arriving.delete(forget);
        arrive();
      });
      this.#arriving.add(forget);
      this.#send();
    });
  }
}
