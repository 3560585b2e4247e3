/** What a route remembers, in memory. */
import { type Agreed, agreeTo, type Change, type Intent, type Staged, type Store } from "../../core/sync/store.js";

export class Kept implements Store {
  readonly base = new Map<string, Agreed>();
  readonly intents = new Map<string, Intent>();
  readonly staged = new Map<string, Staged>();

  change(change: Change): Promise<void> {
    const { intend, settle, stage, unstage } = change;
    agreeTo(this.base, change);
    if (intend !== undefined) this.intents.set(intend.id, intend);
    if (settle !== undefined) this.intents.delete(settle);
    if (stage !== undefined) this.staged.set(stage.staging.id, stage);
    if (unstage !== undefined) this.staged.delete(unstage);
    return Promise.resolve();
  }
}
