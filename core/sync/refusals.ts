/**
 * Contents that a side would not take after bytes of them had been sent (more than FAT's 4 GiB, a proxy's limit): sent anew at every round they would wear a card out and keep a link busy. In memory, so
 * that the next start tries them again; so does whoever writes the file anew, as that is another upload.
 */
import { Fault } from "../errors.js";
import type { Clock } from "../plugin.js";

const againMs = 24 * 3_600_000;

export class Refusals {
  readonly #refused = new Map<string, { readonly fault: Fault; readonly untilMs: number }>();

  constructor(readonly clock: Pick<Clock, "monotonicMs">) {}

  /** Throws what the upload was refused with, for a day. */
  expectNone(id: string): void {
    const refused = this.#refused.get(id);
    if (refused === undefined) return;
    if (this.clock.monotonicMs() < refused.untilMs) throw refused.fault;
    this.#refused.delete(id);
  }

  /** Also for a person: when it is tried again. */
  note(id: string, fault: Fault): Fault {
    const told = new Fault(fault.kind, `${fault.message}; it is tried again in a day, at the next start, or once it is written anew`, {
      cause: fault,
      notTaken: fault.notTaken,
    });
    this.#refused.set(id, { fault: told, untilMs: this.clock.monotonicMs() + againMs });
    return told;
  }

  forget(id: string): void {
    this.#refused.delete(id);
  }
}
