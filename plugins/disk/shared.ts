/**
 * What this process has mounted, by stay. Devices that name one disk share its mount, as the system has one file system there in any case: who comes
 * first mounts it, who is done last unmounts it.
 */
import type { Mounted } from "./mounting.js";

interface Shared {
  /** undefined: nobody has it mounted now. */
  mounted: Mounted | undefined;
  readonly holders: Set<string>;
  /** Mounting or unmounting, in turn. */
  turn: Promise<unknown>;
}

export class SharedMounts {
  readonly #by = new Map<string, Shared>();

  /** The mount that there is, for `holder` too; else what `make` mounts, or finds mounted by somebody else. Throws what `make` throws. */
  hold(stay: string, holder: string, make: () => Promise<Mounted>): Promise<Mounted> {
    return this.#inTurn(stay, async (shared) => {
      const mounted = shared.mounted ?? (await make());
      // What somebody else mounted is not ours to end.
      if (mounted.way === "found") return mounted;
      shared.mounted = mounted;
      shared.holders.add(holder);
      return mounted;
    });
  }

  /**
   * `holder` needs it no more: where nobody else does, or `surely` (its medium has gone), `end` unmounts it. → what `end` says is in the way; undefined
   * where nothing is, or others go on using it.
   */
  release(stay: string, holder: string, surely: boolean, end: () => Promise<string | undefined>): Promise<string | undefined> {
    return this.#inTurn(stay, async (shared) => {
      if (shared.mounted === undefined || (this.others(stay, holder).length > 0 && !surely)) {
        shared.holders.delete(holder);
        return undefined;
      }
      const why = await end();
      if (why !== undefined && !surely) return why;
      shared.holders.clear();
      shared.mounted = undefined;
      return why;
    });
  }

  /** Who else has it mounted. */
  others(stay: string, holder: string): string[] {
    return [...(this.#by.get(stay)?.holders ?? [])].filter((one) => one !== holder);
  }

  #inTurn<T>(stay: string, work: (shared: Shared) => Promise<T>): Promise<T> {
    const shared: Shared = this.#by.get(stay) ?? { mounted: undefined, holders: new Set(), turn: Promise.resolve() };
    this.#by.set(stay, shared);
    const turn = shared.turn.then(
      () => work(shared),
      () => work(shared),
    );
    shared.turn = turn
      .catch(() => undefined)
      .then(() => {
        // The next stay has another name.
        if (shared.turn === last && shared.holders.size === 0) this.#by.delete(stay);
      });
    const last = shared.turn;
    return turn;
  }
}

/** Of this process, whose mount table is one. */
export const sharedMounts = new SharedMounts();
