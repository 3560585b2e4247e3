/**
 * What is known of the room at full targets, of each delivery: who gave it to whom (`full-target.ts`), and what was made of it. Of this run only: after
 * a start everything is tried anew.
 */

/** `by` gave its room to a delivery of which the target had `held` bytes; Infinity: whatever it has. */
interface Given {
  readonly held: number;
  readonly by: string;
  /** The target took a file since. */
  mayAgain: boolean;
}

interface Known {
  readonly target: string;
  /** Until the target has more of it than when it was last given room, or took a file, it gets none. */
  given?: Given;
  /** It has nothing where it was begun, or all of it; until it is tried again. */
  givesNone?: boolean;
  /** It gave its room to one that made nothing of it, perhaps as it goes to another file system: it gives no more, until it finds none itself. */
  gaveInVain?: boolean;
  /** How often what was sent of it made way for what is no larger, and at which attachment it did last. */
  madeWay?: { readonly times: number; readonly epoch: string | undefined };
}

export class Rooms {
  /** By delivery. */
  readonly #known = new Map<string, Known>();
  /** By target: who was given room, until something is sent there. */
  readonly #next = new Map<string, string>();

  of(id: string): Omit<Readonly<Known>, "target"> {
    return this.#known.get(id) ?? {};
  }

  note({ id, target }: { readonly id: string; readonly target: string }, what: Omit<Known, "target">): void {
    this.#known.set(id, { ...this.#known.get(id), target, ...what });
  }

  /** `last` gave its room to `first`, which is next there. */
  gave(first: { readonly id: string; readonly target: string }, held: number, last: string): void {
    this.note(first, { given: { held, by: last, mayAgain: false } });
    this.#next.set(first.target, first.id);
  }

  /** Something is sent to a target: who was given room there, and was not sent since. */
  begins(target: string): string | undefined {
    const next = this.#next.get(target);
    this.#next.delete(target);
    return next;
  }

  /** Another was sent first, or it broke off: that says nothing of the room that it was given. */
  saysNothing(id: string): void {
    delete this.#known.get(id)?.given;
  }

  /** It may have something there again. */
  tried(id: string): void {
    delete this.#known.get(id)?.givesNone;
  }

  /** A target took a file: `found`, one for which it had no room before. */
  took(target: string, found: boolean): void {
    for (const known of this.#known.values()) {
      if (known.target !== target) continue;
      if (found) delete known.gaveInVain;
      if (known.given !== undefined) known.given.mayAgain = true;
    }
  }

  /** What made way at a target, at that attachment. */
  madeWayAt(target: string, epoch: string | undefined): string[] {
    return [...this.#known].flatMap(([id, known]) =>
      known.target === target && known.madeWay !== undefined && known.madeWay.epoch === epoch ? [id] : [],
    );
  }

  /** A target is met that may be another than the one of before. */
  isNew(target: string): void {
    for (const known of this.#known.values()) if (known.target === target) delete known.madeWay;
  }

  /** A person wants it tried. */
  asked(id: string): void {
    delete this.#known.get(id)?.madeWay;
  }

  forgetEnded(isOpen: (id: string) => boolean): void {
    for (const id of this.#known.keys()) if (!isOpen(id)) this.#known.delete(id);
  }
}
