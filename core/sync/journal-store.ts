/** What a route remembers, in the journal; all of it is in memory too, for as long as the route runs. */
import type { Journal } from "../journal.js";
import type { Memo } from "../plugin.js";
import type { Side } from "../reconcile.js";
import { atOrBelow } from "../tables.js";
import { type Agreed, agreeTo, type Change, type Intent, type Staged, type Store } from "./store.js";

export class JournalStore implements Store {
  readonly base = new Map<string, Agreed>();
  readonly intents = new Map<string, Intent>();
  readonly staged = new Map<string, Staged>();
  /** Uploads of which something is noted: most have nothing, and nobody has to ask. */
  readonly #noted: Set<string>;

  /** `route`: a hash, the same for the same two directories. */
  constructor(
    readonly journal: Journal,
    readonly route: string,
  ) {
    for (const { path, agreed } of journal.all<{ path: string; agreed: string }>("SELECT path, agreed FROM agreed WHERE route = ?", route))
      this.base.set(path, JSON.parse(agreed) as Agreed);
    for (const { id, intent } of journal.all<{ id: string; intent: string }>("SELECT id, intent FROM intents WHERE route = ?", route))
      this.intents.set(id, JSON.parse(intent) as Intent);
    for (const { id, staged } of journal.all<{ id: string; staged: string }>("SELECT id, staged FROM staged WHERE route = ?", route))
      this.staged.set(id, JSON.parse(staged) as Staged);
    this.#noted = new Set([...this.staged.keys()].filter((id) => journal.meta(memoKey(id)) !== undefined));
  }

  async change(change: Change): Promise<void> {
    const { agree = [], shift, intend, settle, stage, unstage } = change;
    const { journal, route } = this;
    let moving: readonly string[] = [];
    await journal.commit(() => {
      for (const [path, agreed] of agree)
        if (agreed === undefined) journal.run("DELETE FROM agreed WHERE route = ? AND path = ?", route, path);
        else
          journal.run(
            "INSERT INTO agreed VALUES (?, ?, ?) ON CONFLICT (route, path) DO UPDATE SET agreed = excluded.agreed",
            ...[route, path, JSON.stringify(agreed)],
          );
      if (shift !== undefined) {
        const { from, to } = shift;
        const moves = `route = ?1 AND ${atOrBelow}`;
        moving = [from, to].flatMap((path) =>
          journal.all<{ path: string }>(`SELECT path FROM agreed WHERE ${moves}`, route, path).map((one) => one.path),
        );
        journal.run(`DELETE FROM agreed WHERE ${moves}`, route, to);
        journal.run(`UPDATE agreed SET path = ?3 || substr(path, ?4) WHERE ${moves}`, route, from, to, Array.from(from).length + 1);
      }
      if (intend !== undefined) journal.run("INSERT OR REPLACE INTO intents VALUES (?, ?, ?)", route, intend.id, JSON.stringify(intend));
      if (settle !== undefined) journal.run("DELETE FROM intents WHERE route = ? AND id = ?", route, settle);
      if (stage !== undefined)
        journal.run("INSERT OR REPLACE INTO staged VALUES (?, ?, ?)", route, stage.staging.id, JSON.stringify(stage));
      if (unstage !== undefined) {
        journal.run("DELETE FROM staged WHERE route = ? AND id = ?", route, unstage);
        if (this.#noted.delete(unstage)) journal.setMeta(memoKey(unstage), undefined);
      }
    });
    agreeTo(this.base, change, moving);
    if (intend !== undefined) this.intents.set(intend.id, intend);
    if (settle !== undefined) this.intents.delete(settle);
    if (stage !== undefined) this.staged.set(stage.staging.id, stage);
    if (unstage !== undefined) this.staged.delete(unstage);
  }

  /** Of an upload; gone with what was staged. */
  memo(upload: string): Memo {
    const memo = memoOf(this.journal, memoKey(upload));
    return {
      get: (key) => (this.#noted.has(upload) ? memo.get(key) : undefined),
      set: (key, value) => {
        this.#noted.add(upload);
        return memo.set(key, value);
      },
    };
  }

  /** Of the route. */
  get own(): Memo {
    return ownMemo(this.journal, this.route);
  }
}

/** In that: which directory was agreed with. */
export const markKey = (side: Side): string => `mark ${side}`;

/** What a route remembers of itself, also of one that does not run. */
export const ownMemo = (journal: Journal, route: string): Memo => memoOf(journal, `sync:${route}`);

function memoOf(journal: Journal, name: string): Memo {
  const kept = () => JSON.parse(journal.meta(name) ?? "{}") as Record<string, unknown>;
  return {
    get: (key) => kept()[key],
    set: (key, value) => {
      const { [key]: _, ...others } = kept();
      const next = value === undefined ? others : { ...others, [key]: value };
      return journal.commit(() => journal.setMeta(name, Object.keys(next).length === 0 ? undefined : JSON.stringify(next)));
    },
  };
}

const memoKey = (upload: string) => `upload:${upload}`;
