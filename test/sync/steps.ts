/** Work whose calls wait, one by one, until whoever holds the model lets them go on, or kills them. */
import { Fault, isFault } from "../../core/errors.js";
import type { Random } from "../faults/random.js";

export class Steps {
  readonly #waiting: { readonly go: () => void; readonly kill: (error: Error) => void }[] = [];

  constructor(
    readonly random: Random,
    readonly counts: { steps: number },
  ) {}

  readonly gate = (): Promise<void> =>
    new Promise<void>((go, kill) => {
      this.counts.steps += 1;
      this.#waiting.push({ go, kill });
    });

  /** One of the calls that are under way goes on; false: there is none. */
  go(): boolean {
    const [one] = this.#waiting.splice(this.random.below(this.#waiting.length), 1);
    one?.go();
    return one !== undefined;
  }

  /** All of them end with this error. */
  kill(error: Error): void {
    for (const { kill } of this.#waiting.splice(0)) kill(error);
  }
}

/** Power has gone. */
export class Killed extends Error {}

/** What may end what is under way: power, the link, or that an answer is none, which says nothing of the rest. */
export function endOf(random: Random): Error {
  const which = random.below(3);
  return which === 0 ? new Killed() : new Fault(which === 1 ? "offline" : "transient", "it went wrong");
}

/** With which a round may end as a whole. */
export const isEnd = (error: unknown): boolean => error instanceof Killed || isFault(error, "offline", "transient");

export const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve));
