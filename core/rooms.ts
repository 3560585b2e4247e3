/** What is known of deliveries for which their target had no room (`full-target.ts`). Of this run only: after a start each is tried anew. */
import type { DeliveryRow } from "./rows.js";

interface Known {
  readonly target: string;
  /** So often in a row, with nothing of it taken in between; the first of these may have taken some. */
  refused?: number;
  /** It has nothing where it was begun, or all of it; until it is tried again. */
  givesNone?: boolean;
  /** How often what was sent of it was taken away there for another, and at which attachment it was last. */
  gave?: number;
  epoch?: string | undefined;
}

export class Rooms {
  /** By delivery. */
  readonly #known = new Map<string, Known>();

  #of({ id, target }: Pick<DeliveryRow, "id" | "target">): Known {
    const known = this.#known.get(id) ?? { target };
    this.#known.set(id, known);
    return known;
  }

  /** It found no room, after `progress` or none. How often in vain by now: the first time somebody may have taken what was free. */
  refused(row: DeliveryRow, progress: boolean): number {
    const known = this.#of(row);
    known.refused = progress ? 1 : (known.refused ?? (row.fault === "full" ? 1 : 0)) + 1;
    return known.refused - 1;
  }

  /** It may have something there again. */
  tried(id: string): void {
    delete this.#known.get(id)?.givesNone;
  }

  noteNone(row: DeliveryRow): void {
    this.#of(row).givesNone = true;
  }

  mayGive(id: string): boolean {
    return this.#known.get(id)?.givesNone !== true;
  }

  /** What was sent of it is taken away, at that attachment. How often it was before. */
  gave(row: DeliveryRow, epoch: string | undefined): number {
    const known = this.#of(row);
    const before = known.gave ?? 0;
    known.gave = before + 1;
    known.epoch = epoch;
    known.givesNone = true;
    return before;
  }

  hasGiven(id: string): boolean {
    return this.#known.get(id)?.gave !== undefined;
  }

  /** What was taken away at a target, and may fill it again: others go first. */
  gaveAt(target: string): string[] {
    return [...this.#known].flatMap(([id, known]) => (known.gave !== undefined && known.target === target ? [id] : []));
  }

  /** What was taken away, and waits for longer each time: not due because a device is there, but for another target than the one where that was, by its `epoch`. */
  gaveBut(device: string, epoch: string | undefined): string[] {
    return [...this.#known].flatMap(([id, known]) =>
      known.gave !== undefined && (known.target !== device || known.epoch === epoch) ? [id] : [],
    );
  }

  /** A target is met that may be another than the one of before. */
  isNew(target: string): void {
    for (const [id, known] of this.#known) if (known.target === target) this.#known.delete(id);
  }

  /** A person wants it tried, or it has ended. */
  forget(id: string): void {
    this.#known.delete(id);
  }

  forgetEnded(isOpen: (id: string) => boolean): void {
    for (const id of this.#known.keys()) if (!isOpen(id)) this.#known.delete(id);
  }
}
