/**
 * Contents that a side would not take after bytes of them had been sent (more than FAT's 4 GiB, a proxy's limit): sent anew at every round they would wear a card out and keep a link busy. In memory, so
 * that the next start tries them again; so does whoever writes the file anew, as that is another upload, and another medium at the side, which has an `epoch` of its own.
 */
import { Fault } from "../errors.js";
import type { Clock } from "../plugin.js";

/** After the first time; twice as long after each further one, as not all that is called refused stays so. */
const againMs = 600_000;
const mostMs = 24 * 3_600_000;

interface Refusal {
  readonly fault: Fault;
  readonly waitMs: number;
  readonly untilMs: number;
  readonly epoch: string | undefined;
}

export class Refusals {
  readonly #refused = new Map<string, Refusal>();

  constructor(
    readonly clock: Pick<Clock, "monotonicMs">,
    readonly epoch: () => string | undefined,
  ) {}

  /** Throws what the upload was refused with, until it may be tried again. */
  expectNone(id: string): void {
    const refused = this.#known(id);
    if (refused !== undefined && this.clock.monotonicMs() < refused.untilMs) throw refused.fault;
  }

  /** Also for a person: when it is tried again. */
  note(id: string, fault: Fault): Fault {
    const waitMs = Math.min(mostMs, 2 * (this.#known(id)?.waitMs ?? againMs / 2));
    const told = new Fault(
      fault.kind,
      `${fault.message}; it is tried again now and then, at the next start, by "filesync retry", and once it is written anew`,
      {
        cause: fault,
        notTaken: fault.notTaken,
      },
    );
    this.#refused.set(id, { fault: told, waitMs, untilMs: this.clock.monotonicMs() + waitMs, epoch: this.epoch() });
    return told;
  }

  forget(id: string): void {
    this.#refused.delete(id);
  }

  /** A person says that it may be otherwise by now. */
  forgetAll(): void {
    this.#refused.clear();
  }

  #known(id: string): Refusal | undefined {
    const refused = this.#refused.get(id);
    return refused?.epoch === this.epoch() ? refused : undefined;
  }
}
