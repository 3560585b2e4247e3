/** What is known of deliveries for which their target had no room (`full-target.ts`). Of this run only: after a start each is tried anew. */
import { madeWayMsAfter } from "./retry.js";
import type { DeliveryRow } from "./rows.js";

interface Known {
  readonly target: string;
  /** So often in a row, with nothing of it taken in between; the first of these may have taken some. */
  refused?: number;
  /** Others gave it their room, and it was not tried since, or took it. */
  given?: boolean;
  /** What was sent of it is being taken away, and no person wanted it tried since. */
  giving?: boolean;
  /** It has nothing where it was begun, or all of it; until it is tried again. */
  givesNone?: boolean;
  /** How often what was sent of it was taken away there for another, and at which attachment it was last. */
  gave?: number;
  epoch?: string | undefined;
  size?: number;
}

export class Rooms {
  /** By delivery. */
  readonly #known = new Map<string, Known>();
  /** By target: how often in a row what got the room found none all the same, perhaps as it is another file system's, and until when nobody gives any. */
  readonly #inVain = new Map<string, { readonly times: number; readonly untilMs: number }>();

  #of({ id, target }: Pick<DeliveryRow, "id" | "target">): Known {
    const known = this.#known.get(id) ?? { target };
    this.#known.set(id, known);
    return known;
  }

  /** It found no room, after `progress` or none. How often in vain by now: the first time somebody may have taken what was free. */
  refused(row: DeliveryRow, progress: boolean, nowMs: number): number {
    const known = this.#of(row);
    known.refused = progress ? 1 : (known.refused ?? (row.fault === "full" ? 1 : 0)) + 1;
    if (known.given === true) {
      const times = this.#inVain.get(row.target)?.times ?? 0;
      this.#inVain.set(row.target, { times: times + 1, untilMs: nowMs + madeWayMsAfter(times) });
    }
    delete known.given;
    return known.refused - 1;
  }

  /** It ended otherwise: that says nothing of the room that it was given. */
  brokeOff(id: string): void {
    delete this.#known.get(id)?.given;
  }

  /** Whether it found its target full itself. */
  foundFull({ id, fault }: Pick<DeliveryRow, "id" | "fault">): boolean {
    return fault === "full" || this.#known.get(id)?.refused !== undefined;
  }

  /** It may have something there again. */
  tried(id: string): void {
    delete this.#known.get(id)?.givesNone;
  }

  noteNone(row: DeliveryRow): void {
    this.#of(row).givesNone = true;
  }

  mayGive({ id, target }: DeliveryRow, nowMs: number): boolean {
    return this.#known.get(id)?.givesNone !== true && (this.#inVain.get(target)?.untilMs ?? 0) <= nowMs;
  }

  gives(row: DeliveryRow): void {
    this.#of(row).giving = true;
  }

  /** What was sent of it is taken away, or perhaps, at that attachment. How often it was before; undefined where a person wants it tried meanwhile. */
  gave(row: DeliveryRow, epoch: string | undefined): number | undefined {
    const known = this.#of(row);
    known.givesNone = true;
    if (known.giving !== true) return undefined;
    delete known.giving;
    const before = known.gave ?? 0;
    known.gave = before + 1;
    known.epoch = epoch;
    known.size = row.size;
    return before;
  }

  /** What others gave is for this one. */
  got(row: DeliveryRow): void {
    this.#of(row).given = true;
  }

  /** A target took it. Of those that made way, the ones that this does not make due: where it took their room. */
  took({ id, target, fault, size }: DeliveryRow): { readonly found: boolean; readonly but: string[] } {
    const hadRoom = this.#known.get(id)?.given === true;
    const gave = [...this.#known].filter(([, known]) => known.target === target && known.gave !== undefined);
    const found = this.foundFull({ id, fault }) || (!hadRoom && gave.length > 0);
    if (found) this.#inVain.delete(target);
    // There is room for as much, of nobody's.
    if (!hadRoom) for (const [, known] of gave) if ((known.size ?? Infinity) <= size) delete known.gave;
    this.#known.delete(id);
    return { found, but: hadRoom ? gave.flatMap(([id, known]) => ((known.gave ?? 0) > 1 ? [id] : [])) : [] };
  }

  hasGiven(id: string): boolean {
    return this.#known.get(id)?.gave !== undefined;
  }

  /** What was taken away at a target, and may fill it again: others as important go first. */
  gaveAt(target: string): string[] {
    return [...this.#known].flatMap(([id, known]) => (known.gave !== undefined && known.target === target ? [id] : []));
  }

  /** A device is there, at that attachment. What was taken away, and waits for longer each time, and is not due because of that: elsewhere, or there as it was. */
  met(device: string, epoch: string | undefined): string[] {
    for (const known of this.#known.values()) if (known.target === device && known.epoch !== epoch) delete known.gave;
    return [...this.#known].flatMap(([id, { gave }]) => (gave === undefined ? [] : [id]));
  }

  /** A target is met that may be another than the one of before. */
  isNew(target: string): void {
    this.#inVain.delete(target);
    for (const [id, known] of this.#known) if (known.target === target) this.#known.delete(id);
  }

  /** A person wants it tried. */
  forget(id: string): void {
    this.#known.delete(id);
  }

  forgetEnded(isOpen: (id: string) => boolean): void {
    for (const id of this.#known.keys()) if (!isOpen(id)) this.#known.delete(id);
  }
}
