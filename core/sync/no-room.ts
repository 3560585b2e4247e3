/**
 * Copies for which a side had no room. Of parts that all wait for room none may ever become whole: the smallest that was refused keeps its part, and nothing that is no smaller is begun before
 * that one is through; the parts of the others make room. So little is sent in vain, however often it is tried. Pure.
 */
import type { Side } from "../reconcile.js";

export interface Copy {
  readonly on: Side;
  /** `Staging.id` */
  readonly id: string;
  readonly size: number;
}

export class NoRoom {
  /** By side: the one that waits with its part. */
  readonly #first = new Map<Side, Copy>();
  /** Refused since `begin`, and their parts may still be there. */
  readonly #refused = new Set<Copy>();

  /** Before a round. `wanted`: the ids of all that is still to be copied. */
  begin(wanted: ReadonlySet<string>): void {
    this.#refused.clear();
    for (const { on, id } of [...this.#first.values()]) if (!wanted.has(id)) this.#first.delete(on);
  }

  /** Whether it may be tried. */
  takes({ on, id, size }: Copy): boolean {
    const first = this.#first.get(on);
    return first === undefined || first.id === id || size < first.size;
  }

  /** `smaller`: others wait for this side that are smaller. → the ids of those whose parts are to go, none of which is under way. */
  refused(copy: Copy, smaller: boolean): string[] {
    const first = this.#first.get(copy.on);
    if (first === undefined || copy.size < first.size) this.#first.set(copy.on, copy);
    this.#refused.add(copy);
    const going = [...this.#refused].filter((it) => it.on === copy.on && (smaller || it.id !== this.#first.get(it.on)?.id));
    for (const it of going) this.#refused.delete(it);
    return going.map(({ id }) => id);
  }

  /** It was brought, or failed otherwise. */
  through({ on, id }: Copy): void {
    if (this.#first.get(on)?.id === id) this.#first.delete(on);
  }
}
