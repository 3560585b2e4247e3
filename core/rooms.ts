/** What is known of deliveries for which their target had no room (`full-target.ts`). Of this run only: after a start each is tried anew. */
import { madeWayMsAfter } from "./retry.js";
import { marksIn, type DeliveryRow } from "./rows.js";

type Row = Pick<DeliveryRow, "id" | "target">;

interface Known {
  readonly target: string;
  /** So often in a row, with nothing of it taken in between; the first of these may have taken some. */
  refused?: number;
  /** Nothing is kept there of what was sent of it. */
  wasted?: boolean;
  /** Others gave it their room: not tried since, or that says nothing of the room, as it broke off or another took that. */
  given?: "untried" | "unknown";
  /** How much of it is there; until it is tried again. */
  held?: number;
  /** How often what was sent of it was taken away there for another. */
  gave?: { readonly times: number; readonly size: number };
}

/** Whether it found its target full itself. Its fault may be that the spool is. */
export function foundFull({ marks }: Pick<DeliveryRow, "marks">): boolean {
  return marksIn(marks).full === true;
}

/** Whether it has to wait for what is smaller, though it is more urgent: it found no room itself, and would take that of the other in vain. */
export function isTooLarge(best: DeliveryRow, { size }: DeliveryRow): boolean {
  return foundFull(best) && best.size > size;
}

export class Rooms {
  /** By delivery. */
  readonly #known = new Map<string, Known>();
  /** By target: how often in a row what got the room found none all the same, perhaps as it is another file system's, and until when nobody gives any. */
  readonly #inVain = new Map<string, { readonly times: number; readonly untilMs: number }>();
  /** By target: which it was when it attached last. */
  readonly #epochs = new Map<string, string | undefined>();

  #of({ id, target }: Row): Known {
    const known = this.#known.get(id) ?? { target };
    this.#known.set(id, known);
    return known;
  }

  /** It found no room, after `progress` or none. How often in vain by now: the first time somebody may have taken what was free. */
  refused(row: DeliveryRow, { progress, wasted }: { readonly progress: boolean; readonly wasted: boolean }, nowMs: number): number {
    const known = this.#of(row);
    known.wasted = wasted;
    known.refused = progress ? 1 : (known.refused ?? (row.fault === "full" && foundFull(row) ? 1 : 0)) + 1;
    if (known.given === "untried") {
      const times = this.#inVain.get(row.target)?.times ?? 0;
      this.#inVain.set(row.target, { times: times + 1, untilMs: nowMs + madeWayMsAfter(times) });
    }
    delete known.given;
    return known.refused - 1;
  }

  brokeOff(id: string): void {
    const known = this.#known.get(id);
    if (known?.given !== undefined) known.given = "unknown";
  }

  /** Whether anybody is to give room there: it was not in vain before, or long ago. */
  mayBeGiven(target: string, nowMs: number): boolean {
    return (this.#inVain.get(target)?.untilMs ?? 0) <= nowMs;
  }

  /** It may have something else there. */
  tried(id: string): void {
    delete this.#known.get(id)?.held;
  }

  held(id: string): number | undefined {
    return this.#known.get(id)?.held;
  }

  noteHeld(row: Row, bytes: number): void {
    this.#of(row).held = bytes;
  }

  /** What was sent of it is taken away, or perhaps. How often it was before. */
  gave(row: DeliveryRow): number {
    const known = this.#of(row);
    const times = known.gave?.times ?? 0;
    known.gave = { times: times + 1, size: row.size };
    return times;
  }

  /** What others gave is for this one. */
  got(row: Row): void {
    this.#of(row).given = "untried";
  }

  /** What got room at a target, and was not tried since. */
  gotAt(target: string): string[] {
    return [...this.#known].flatMap(([id, known]) => (known.target === target && known.given === "untried" ? [id] : []));
  }

  /**
   * A target took bytes of it, the last of all. `found`: what is no larger has room there, too, `but` for what may have given its own, and did so before. `costly`: what waits for more than
   * its turn, as all of it goes again. `mayTake`: whether what got room goes on by itself; else that is anybody's.
   */
  took(row: DeliveryRow, mayTake: (id: string) => boolean): { readonly found: boolean; readonly but: string[]; readonly costly: string[] } {
    const { id, target, size } = row;
    const there = [...this.#known].filter(([, known]) => known.target === target);
    const gave = there.filter(([, known]) => known.gave !== undefined);
    const isGiven = there.some(([of, { given }]) => given !== undefined && (of === id || mayTake(of)));
    const found = foundFull(row) || (!isGiven && gave.some(([, known]) => (known.gave?.size ?? Infinity) <= size));
    // The room was nobody's: what is no larger is as if it had never given any.
    if (!isGiven) {
      if (found) this.#inVain.delete(target);
      for (const [, known] of gave) if ((known.gave?.size ?? Infinity) <= size) delete known.gave;
    }
    for (const [, known] of there) if (known.given !== undefined) known.given = "unknown";
    this.#known.delete(id);
    const those = (is: (known: Known) => boolean) => there.flatMap(([id, known]) => (is(known) ? [id] : []));
    return {
      found,
      but: isGiven ? those((known) => (known.gave?.times ?? 0) > 1) : [],
      costly: those((known) => known.gave !== undefined || known.wasted === true),
    };
  }

  /** A device is there: at another attachment it may be another. What was taken away, and waits for longer each time, is not due because of that. */
  met(device: string, epoch: string | undefined): string[] {
    if (this.#epochs.has(device) && this.#epochs.get(device) !== epoch) this.isNew(device);
    this.#epochs.set(device, epoch);
    return [...this.#known].flatMap(([id, { gave }]) => (gave === undefined ? [] : [id]));
  }

  /** A target is met that may be another than the one of before. */
  isNew(target: string): void {
    this.#inVain.delete(target);
    for (const [id, known] of this.#known) if (known.target === target) this.#known.delete(id);
  }

  /** A person wants it tried. */
  asked({ id, target }: Row): void {
    this.#inVain.delete(target);
    this.#known.delete(id);
  }

  forgetEnded(isOpen: (id: string) => boolean): void {
    for (const id of this.#known.keys()) if (!isOpen(id)) this.#known.delete(id);
  }
}
