/**
 * A gate before a target or a route: open, or held with a reason. What is sent is broken off when it closes, and goes on where it was when it opens. A budget breaks nothing off: what it
 * allowed goes out, and it allows no more.
 */
import { Subject } from "./rxjs.js";
import { Fault } from "./errors.js";
import type { Held } from "./when.js";

const unseen: Held = { reason: "its conditions are not looked at yet" };
/** They are looked at every 2 s once something waits. */
const resting: Held = { reason: "its conditions are looked at again, as nothing waited for them", inMs: 2000 };

export class Gate {
  /** Emits at the first look, when it opens or closes, and when it is open after a rest. */
  readonly changes$ = new Subject<Held | undefined>();
  #held: Held | undefined = unseen;
  #open = new AbortController();
  /** It was looked at once. */
  looked = false;
  /** Nothing waited for it, and it is not looked at: what was so may not be so any more. */
  resting = false;

  constructor() {
    this.#open.abort(closed(unseen.reason));
  }

  get held(): Held | undefined {
    return this.#held;
  }

  /** Why nothing may begin now: also that it is not known whether it may. */
  get barred(): Held | undefined {
    return this.resting ? resting : this.#held;
  }

  /** Aborted once what is sent is broken off. */
  get signal(): AbortSignal {
    return this.#open.signal;
  }

  set(held: Held | undefined, breaksOff = true): void {
    const before = this.#held;
    // What came while it rested waits for that word, also where it is the same.
    const first = !this.looked || (this.resting && held === undefined);
    this.looked = true;
    this.resting = false;
    this.#held = held;
    if (held === undefined && this.#open.signal.aborted) this.#open = new AbortController();
    if (held !== undefined && breaksOff) this.#open.abort(closed(held.reason));
    // A reason that tells how long it still takes is another one each time: only the edges are news.
    if (first || (before === undefined) !== (held === undefined)) this.changes$.next(held);
  }
}

function closed(reason: string): Fault {
  return new Fault("aborted", reason);
}
