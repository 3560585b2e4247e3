/** What moves right now, for `status` and the progress line. Counting a byte costs an addition; rates are worked out when somebody looks. */
import type { Clock } from "./plugin.js";

export interface TransferFacts {
  readonly id: string;
  readonly kind: "pull" | "push";
  readonly route: string;
  readonly from: string;
  readonly to: string;
  readonly path: string;
  readonly size: number;
}

export class Transfer {
  /** Where the transfer is in the file. */
  offset: number;
  readonly #startMs: number;
  readonly #startOffset: number;

  constructor(
    readonly facts: TransferFacts,
    offset: number,
    readonly clock: Clock,
  ) {
    this.offset = offset;
    this.#startOffset = offset;
    this.#startMs = clock.monotonicMs();
  }

  /** At that moment of the monotonic clock; `secondsLeft` is undefined while the rate is unknown. */
  pace(nowMs = this.clock.monotonicMs()): { readonly bytesPerSecond: number; readonly secondsLeft: number | undefined } {
    const ms = nowMs - this.#startMs;
    const rate = ms < 1 ? 0 : ((this.offset - this.#startOffset) / ms) * 1000;
    return { bytesPerSecond: rate, secondsLeft: rate > 0 ? (this.facts.size - this.offset) / rate : undefined };
  }
}

export class Transfers {
  readonly #running = new Set<Transfer>();
  /** Bytes moved since the start, on each hop. */
  pulledBytes = 0;
  pushedBytes = 0;
  /** Source → which of its files waits for space in the spool, and how the space stands. */
  readonly waitForSpace = new Map<string, string>();
  /** For how many files others are given up in the spool now: the room of those is theirs. */
  makingRoom = 0;

  constructor(readonly clock: Clock) {}

  begin(facts: TransferFacts, offset: number): Transfer {
    const transfer = new Transfer(facts, offset, this.clock);
    this.#running.add(transfer);
    return transfer;
  }

  end(transfer: Transfer): void {
    this.#running.delete(transfer);
  }

  get running(): Transfer[] {
    return [...this.#running];
  }
}
