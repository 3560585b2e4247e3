/** A rate: a bucket that holds a quarter of a second. Without a rate it costs nothing. */
import type { Chunk, Clock, Reading } from "./plugin.js";
import { Rest } from "./reading.js";

/** From here on a chunk, of 512 KiB at most, takes a second or less, and passes as it is. */
const fastRate = 500_000;

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

  /** The most that passes at once: what the bucket holds. A whole chunk would be seconds of silence, then a burst, and a stop would lose those seconds. */
  get pieceBytes(): number {
    return this.rate === undefined || this.rate >= fastRate ? Infinity : Math.max(1, Math.floor(this.rate / 4));
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

/** By all of these rates, in pieces. */
export function paced(reading: Reading, throttles: readonly (Throttle | undefined)[], signal: AbortSignal): Reading {
  const limits = throttles.flatMap((it) => (it?.rate === undefined ? [] : [it]));
  if (limits.length === 0) return reading;
  const most = Math.min(...limits.map((it) => it.pieceBytes));
  let rest: Rest | undefined;
  return {
    next: async (): Promise<Chunk | undefined> => {
      while (rest === undefined || rest.empty) {
        const chunk = await reading.next();
        if (chunk === undefined) return undefined;
        rest = new Rest(chunk);
        if (rest.empty) chunk.release();
      }
      const piece = rest.take(most);
      await Promise.all(limits.map((it) => it.take(piece.bytes.length, signal)));
      return piece;
    },
    close: () => reading.close(),
  };
}

/** The same of the bytes of a stream. */
export async function* pacedBytes(bytes: AsyncIterable<Buffer>, throttle: Throttle, signal: AbortSignal): AsyncGenerator<Buffer> {
  const most = throttle.pieceBytes;
  for await (const chunk of bytes)
    for (let at = 0; at < chunk.length; at += most) {
      const piece = chunk.subarray(at, at + most);
      await throttle.take(piece.length, signal);
      yield piece;
    }
}
