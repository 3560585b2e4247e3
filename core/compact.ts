/**
 * Compaction: what nobody needs any more is forgotten, so that the journal stays small for years. Once a day and medium, after a listing of a source
 * to its end, while wall time is trusted: the versions that are no longer at the source, and were seen to be away for as long as `journal.keep` says,
 * go with their deliveries, unless something still asks for them (`held`). The newest version of what is listed stays, whatever its age: it is what
 * tells the next listing that nothing is new.
 *
 * The days count from the first such listing without the file, not from its delivery: a listing that shows nothing once (a mount that is missing, a card
 * that is out) makes nothing forgotten that had been there for years.
 */
import type { Engine } from "./engine.js";
import { throwIfAborted } from "./errors.js";
import type { Lane } from "./lane.js";
import { notePassed } from "./passed.js";
import type { FileEntry } from "./plugin.js";
import { forgottenIn, setForgotten, sumOf, type Forgotten } from "./receipts.js";
import { hasGone, isFoundAgain, isOverwritten, isReleasable, type VersionRow } from "./rows.js";

const dailyMs = 86_400_000;
/** Rows of a transaction: the loop turns between two. */
const page = 1000;

/** Of a version `v`: the same file of the same medium, found later. */
const laterOne = "w.source = v.source AND w.path = v.path AND w.medium = v.medium AND w.found_ms > v.found_ms";
const delivery = "SELECT 1 FROM deliveries d WHERE d.version = v.id";

/** Why a version `v` stays, though its file was away all the time since ?1. */
const held = [
  // The spool has bytes of it, or has promised them.
  "v.spooled > 0",
  // Something is to be sent, or to be taken away at a target; a person decides on what was set aside.
  `EXISTS (${delivery} AND d.state NOT IN ('done', 'dropped'))`,
  // It was delivered lately, from the spool.
  `EXISTS (${delivery} AND d.done_ms >= ?1)`,
  // A person is told that it was lost, and said nothing to that.
  `EXISTS (${delivery} AND ${hasGone}) AND NOT ${isFoundAgain}`,
  `EXISTS (${delivery} AND ${isOverwritten})`,
  // It says that an older one, which was lost, was found again.
  `EXISTS (SELECT 1 FROM versions u JOIN deliveries d ON d.version = u.id WHERE u.source = v.source AND u.path = v.path AND u.medium = v.medium
     AND u.found_ms < v.found_ms AND d.${hasGone})`,
  // The next turn of release looks for it at its source.
  isReleasable,
  // It is the beginning of one that stays, or of one whose content is still to be held against it.
  `EXISTS (SELECT 1 FROM versions w WHERE w.source = v.source AND w.path = v.path AND w.base = v.id
     AND (w.digest IS NULL OR NOT EXISTS (SELECT 1 FROM absent a WHERE a.version = w.id AND a.since_ms < ?1)))`,
].map((rule) => `(${rule})`);

type Row = Pick<VersionRow, "id" | "path" | "size" | "medium"> & { readonly since_ms: number | null; readonly superseded: number };

/** What one listing sees of the media that are due. */
export class Survey {
  /** Paths by medium. */
  readonly #listed = new Map<string, Set<string>>();
  /** Directories in which something could not be read: what else is there, nobody knows. */
  readonly #doubted = new Set<string>();

  private constructor(
    readonly engine: Engine,
    readonly lane: Lane,
    readonly media: readonly string[],
  ) {}

  /** Undefined where nothing is due. */
  static begin(engine: Engine, lane: Lane): Survey | undefined {
    const { clock, journal } = engine;
    if (!clock.trusted()) return undefined;
    const now = clock.wallMs();
    const due = lane.media.filter((medium) => {
      const last = journal.meta(lastKey(lane, medium));
      // A clock that was wrong and went back.
      return last === undefined || now - Number(last) >= dailyMs || Number(last) > now;
    });
    return due.length === 0 ? undefined : new Survey(engine, lane, due);
  }

  note({ path, kind, medium = "" }: FileEntry): void {
    if (kind === "unreadable") this.#doubted.add(path.slice(0, path.lastIndexOf("/") + 1));
    if (kind !== "file") return;
    const paths = this.#listed.get(medium);
    if (paths === undefined) this.#listed.set(medium, new Set([path]));
    else paths.add(path);
  }

  /** The listing has ended, and was whole. `covers`: whether it would have shown a file, by the rules. Throws "aborted"; what was forgotten until then stays so. */
  async end(covers: (file: Pick<VersionRow, "path" | "size">) => boolean, stop: AbortSignal): Promise<void> {
    const { engine, lane } = this;
    const { journal, clock } = engine;
    const media = this.media.filter((medium) => lane.holds(medium));
    if (media.length === 0) return;
    await notePassed(engine);
    const now = clock.wallMs();
    const before = now - engine.config.journal.keep;
    const [back, gone, old]: [string[], string[], string[]] = [[], [], []];
    for (let last: Pick<Row, "path" | "id"> | undefined = { path: "", id: "" }; last !== undefined;) {
      throwIfAborted(stop);
      const rows: Row[] = journal.all<Row>(
        `SELECT v.id, v.path, v.size, v.medium, a.since_ms,
           v.state = 'gone' OR EXISTS (SELECT 1 FROM versions w WHERE ${laterOne} AND w.state <> 'gone') AS superseded
         FROM versions v LEFT JOIN absent a ON a.version = v.id WHERE v.source = ? AND (v.path, v.id) > (?, ?) ORDER BY v.path, v.id LIMIT ${page}`,
        lane.name,
        last.path,
        last.id,
      );
      last = rows.at(-1);
      for (const row of rows) {
        if (!media.includes(row.medium) || this.#isDoubted(row.path) || !covers(row)) continue;
        const isThere = row.superseded === 0 && this.#listed.get(row.medium)?.has(row.path) === true;
        if (isThere && row.since_ms !== null) back.push(row.id);
        else if (!isThere && row.since_ms === null) gone.push(row.id);
        else if (!isThere && row.since_ms !== null && row.since_ms < before) old.push(row.id);
      }
      await turn();
    }
    await this.#inGroups(back, stop, (id) => journal.run("DELETE FROM absent WHERE version = ?", id));
    await this.#inGroups(gone, stop, (id) => journal.run("INSERT INTO absent VALUES (?, ?)", id, now));
    const sum = { versions: 0, deliveries: 0 };
    await this.#inGroups(old, stop, (id) => {
      const one = forget(engine, id, before);
      if (one === undefined) return;
      setForgotten(journal, sumOf(forgottenIn(journal), one));
      sum.versions += 1;
      sum.deliveries += one.deliveries;
    });
    await journal.apply(() => {
      for (const medium of media) journal.setMeta(lastKey(lane, medium), String(now));
    });
    if (sum.versions > 0)
      engine.events.say("info", "compacted", `${lane.name}: ${sum.versions} states of files that left it long ago are forgotten`, {
        device: lane.name,
        ...sum,
      });
  }

  /** In the order of the tables, so that one transaction changes few pages. */
  async #inGroups(ids: string[], stop: AbortSignal, change: (id: string) => unknown): Promise<void> {
    ids.sort();
    for (let at = 0; at < ids.length; at += page) {
      throwIfAborted(stop);
      await this.engine.journal.commit(() => ids.slice(at, at + page).forEach(change));
      await turn();
    }
  }

  #isDoubted(path: string): boolean {
    if (this.#doubted.has("")) return true;
    for (let at = path.indexOf("/"); at !== -1; at = path.indexOf("/", at + 1)) if (this.#doubted.has(path.slice(0, at + 1))) return true;
    return false;
  }
}

/** Inside `commit`. Its deliveries that were done; undefined where something holds it. */
function forget({ journal, queue }: Engine, id: string, before: number): Forgotten | undefined {
  // They have it in memory.
  if (queue.pulling.has(id) || queue.releasing.has(id)) return undefined;
  if (journal.run(`DELETE FROM versions AS v WHERE v.id = ?2 AND NOT (${held.join(" OR ")})`, before, id) === 0) return undefined;
  const done = journal.get<{ deliveries: number; bytes: number | null }>(
    "SELECT COUNT(*) AS deliveries, SUM(size) AS bytes FROM deliveries WHERE version = ? AND state = 'done'",
    id,
  );
  journal.run("DELETE FROM meta WHERE key IN (SELECT 'marks:' || id FROM deliveries WHERE version = ?)", id);
  journal.run("DELETE FROM deliveries WHERE version = ?", id);
  journal.run("DELETE FROM absent WHERE version = ?", id);
  queue.releasable.delete(id);
  queue.leaving.ended(id);
  return { deliveries: done?.deliveries ?? 0, bytes: done?.bytes ?? 0 };
}

/** Lets the event loop turn. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

const lastKey = ({ name }: Lane, medium: string) => `compacted:${name}:${medium}`;
