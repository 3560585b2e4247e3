/** What a person is asked of a route that stopped, and what they said yes to: once, and where the route does not run for a day. */
import type { Clock, Memo } from "../plugin.js";
import type { Stopped } from "./stop.js";

/** In what the route remembers: what was approved while it did not run, with the time. */
const approvedKey = "approved";
const keptMs = 86_400_000;

export class Asked {
  /** As it was shown last. */
  #shown: Stopped | undefined;
  /** Until all of it is done: something else asks anew. */
  approved: Stopped | undefined;

  /** `memo`: of the route. */
  constructor(
    readonly memo: Memo,
    readonly clock: Clock,
  ) {}

  /** What the next "yes" is for; undefined: nothing. */
  show(stop: Stopped | undefined): void {
    this.#shown = stop;
  }

  /** Whether all of that was shown to a person last; from now on it was. */
  wasShown(stop: Stopped): boolean {
    const was = this.#shown?.covers(stop) === true;
    this.#shown = stop;
    return was;
  }

  /** For the next run, durable. */
  approveNext({ id }: Stopped): Promise<void> {
    return this.memo.set(approvedKey, { id, atMs: this.clock.wallMs() });
  }

  /** While the route did not run. */
  isApproved({ id }: Stopped): boolean {
    const noted = this.#noted;
    return noted?.id === id && Math.abs(this.clock.wallMs() - noted.atMs) < keptMs;
  }

  /** The same, used up, whatever it was for: what stops the route next is another question. */
  async takeApproval(stop?: Stopped): Promise<boolean> {
    const is = stop !== undefined && this.isApproved(stop);
    if (this.#noted !== undefined) await this.memo.set(approvedKey, undefined);
    return is;
  }

  get #noted(): { readonly id: string; readonly atMs: number } | undefined {
    return this.memo.get(approvedKey) as { readonly id: string; readonly atMs: number } | undefined;
  }
}
