/** What a mirror does, without what could not be moved: that is brought anew, as it would not go the next time either. */
import type { Action, Tables } from "../reconcile.js";
import { mirror, type MirrorRules } from "../reconcile-mirror.js";
import type { Table } from "./carry.js";
import type { Agreed, Store } from "./store.js";

export class MirrorTable implements Table {
  readonly alone = true;
  /** As it was agreed: what is agreed anew may be moved. */
  readonly #fixed = new Set<Agreed>();

  constructor(
    readonly store: Pick<Store, "base">,
    readonly rules: Omit<MirrorRules, "fixed">,
  ) {}

  actions(tables: Tables): Action[] {
    return mirror(tables, { ...this.rules, fixed: (path) => this.#isFixed(path) });
  }

  notMoved(agreed: Agreed): void {
    this.#fixed.add(agreed);
  }

  /** Both sides are even. */
  forget(): void {
    this.#fixed.clear();
  }

  #isFixed(path: string): boolean {
    const agreed = this.store.base.get(path);
    return agreed !== undefined && this.#fixed.has(agreed);
  }
}
