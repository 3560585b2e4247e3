/**
 * What is at the other side of a mirror, without listing it again: nobody else writes what this route wrote there. What does not fit shows when it is done, and leads to a listing.
 */
import type { Entry, Scan } from "./replica.js";
import type { Agreed } from "./store.js";

export class Known {
  /** What was there beside what is agreed; undefined: it has to be listed. */
  #others: ReadonlyMap<string, Entry> | undefined;
  #folds: Scan["folds"];

  /** In place of a listing; undefined: there has to be one. */
  scan(base: ReadonlyMap<string, Agreed>): Scan | undefined {
    if (this.#others === undefined) return undefined;
    const entries = new Map(this.#others);
    for (const [path, { there }] of base) entries.set(path, there);
    return { entries, unseen: new Map(), settling: new Set(), marked: true, folds: this.#folds };
  }

  /** After a round that did all that it wanted to: what it saw, and what it took away. */
  keep({ entries, folds }: Scan, base: ReadonlyMap<string, Agreed>, removed: ReadonlySet<string>): void {
    this.#folds = folds;
    this.#others = new Map([...entries].filter(([path]) => !base.has(path) && !removed.has(path)));
  }

  /** The next round lists. */
  forget(): void {
    this.#others = undefined;
  }
}
