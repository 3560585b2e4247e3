/**
 * Files that wait for a target, are read in place, and have gone from their source: nobody has a copy. The push would notice it once the target is
 * there, which may be never; it is told after the first listing in which one is missing.
 *
 * A listing alone proves nothing. What it did not show is asked for by name, and counts as gone only where the file system that held it is there: a disk
 * that is not mounted leaves an empty directory, or none. Which file system holds a directory is learned while a file that waits there is seen, and is
 * kept in the journal. What cannot be asked for (a directory that may not be read) waits on.
 */
import { type Engine, nameOf } from "./engine.js";
import { isFault, throwIfAborted } from "./errors.js";
import type { Lane } from "./lane.js";
import { parentOf } from "./paths.js";
import type { Source } from "./plugin.js";
import { type DeliveryRow, elsewhere, stampOf, type VersionRow } from "./rows.js";
import { otherThan } from "./stat.js";

type Waiting = Pick<VersionRow, "id" | "source" | "path" | "size" | "modified_ms" | "medium">;

const nothing: { readonly missing: readonly Waiting[]; readonly unsure: boolean } = { missing: [], unsure: false };

export class Missing {
  /** What the last listing showed, where all that was missing from it is decided: the same again has nothing new. */
  #shown: string | undefined;

  constructor(
    readonly engine: Engine,
    readonly lane: Lane,
    readonly source: Source,
  ) {}

  /** After a listing to its end, which began in `epoch`. `shown`: the paths of files that some route wants. Throws "aborted". */
  async look(shown: ReadonlySet<string>, epoch: string | undefined, signal: AbortSignal): Promise<void> {
    const { lane, source } = this;
    if (!source.features.inPlace || source.volume === undefined) return;
    const sum = sumOf(shown, epoch);
    if (sum === this.#shown) return;
    this.#shown = undefined;
    const before = this.#volumes();
    const after: Record<string, string> = {};
    let decided = true;
    for (const [dir, waiting] of this.#waiting()) {
      throwIfAborted(signal);
      const known = before[dir];
      try {
        const { missing, unsure } = known === undefined ? nothing : await this.#notThere(waiting, shown, signal);
        if (unsure) decided = false;
        // Looked at after the files: what went with its file system in between is not taken for removed.
        const volume = await source.volume(dir, signal);
        if (lane.state.epoch !== epoch) return;
        if (volume === known) for (const version of missing) decided = (await this.#lost(version)) && decided;
        else decided = false;
        const holds = volume === known || (await this.#holds(waiting, shown, signal)) ? volume : known;
        if (holds !== undefined) after[dir] = holds;
      } catch (error) {
        if (!isFault(error) || error.kind === "aborted") throw error;
        decided = false;
        if (known !== undefined) after[dir] = known;
      }
      await breathe();
    }
    if (JSON.stringify(before) !== JSON.stringify(after))
      await this.engine.journal.apply(() =>
        this.engine.journal.setMeta(volumesKey(lane), Object.keys(after).length === 0 ? undefined : JSON.stringify(after)),
      );
    if (decided) this.#shown = sum;
  }

  /** Of this source, in place, by directory; none that we took away there ourselves. */
  #waiting(): Map<string, Waiting[]> {
    const open = ["state = 'wanting'", "state = 'ready'", `${elsewhere} AND state = 'parked'`]
      .map((where) => `SELECT version FROM deliveries WHERE ${where} AND source = ?1`)
      .join(" UNION ALL ");
    const rows = this.engine.journal.all<Waiting>(
      `SELECT v.id, v.source, v.path, v.size, v.modified_ms, v.medium FROM versions v
       WHERE v.id IN (${open}) AND v.store = 'place' AND v.state <> 'gone' AND (v.released IS NULL OR v.released LIKE 'kept%') ORDER BY v.path`,
      this.lane.name,
    );
    const dirs = new Map<string, Waiting[]>();
    for (const row of rows) {
      const dir = parentOf(row.path);
      const there = dirs.get(dir);
      if (there === undefined) dirs.set(dir, [row]);
      else there.push(row);
    }
    return dirs;
  }

  /** `unsure`: of some that cannot be asked for. */
  async #notThere(waiting: readonly Waiting[], shown: ReadonlySet<string>, signal: AbortSignal): Promise<typeof nothing> {
    const missing: Waiting[] = [];
    let unsure = false;
    for (const version of waiting) {
      if (shown.has(version.path) || !this.lane.holds(version.medium)) continue;
      try {
        if ((await this.source.stat(version.path, signal)) === undefined) missing.push(version);
      } catch (error) {
        if (!isFault(error) || error.kind === "aborted") throw error;
        unsure = true;
      }
    }
    return { missing, unsure };
  }

  /** Whether one of them is there as it was found: then this is the file system that holds them. */
  async #holds(waiting: readonly Waiting[], shown: ReadonlySet<string>, signal: AbortSignal): Promise<boolean> {
    for (const version of waiting) {
      if (!shown.has(version.path)) continue;
      const now = await this.source.stat(version.path, signal);
      if (now !== undefined && otherThan(stampOf(version), now) === undefined) return true;
    }
    return false;
  }

  /** False: it is being read, sent or taken away, and whoever does that sees what becomes of it. */
  async #lost(version: Waiting): Promise<boolean> {
    const { journal, queue, events } = this.engine;
    const reason = "it has gone from its source before every target had it";
    const gone = await journal.commit(() => {
      const open = queue.openOf(version.id);
      const known = queue.version(version.id);
      // What a target may hold whole, and can prove, is its push's to decide.
      const isPushed = ({ state, begun }: DeliveryRow) =>
        state === "active" || (state === "ready" && known?.state === "sealed" && begun - 1 === known.generation);
      if (queue.pulling.has(version.id) || queue.releasing.has(version.id) || open.some(isPushed)) return undefined;
      // Who sent it while it was asked for has said what became of it.
      if (known === undefined || open.length === 0) return undefined;
      queue.gone(known, false);
      queue.drop(version.id, reason);
      for (const { id } of open) journal.run("UPDATE deliveries SET fault = 'missing' WHERE id = ?", id);
      return open.map(({ target }) => target);
    });
    if (gone === undefined) return false;
    const facts = { device: version.source, path: version.path, fault: "missing" };
    events.say("error", "lost", `${nameOf(version)}: has gone from ${version.source} before ${gone.join(", ")} had it`, facts);
    this.engine.work$.next();
    return true;
  }

  #volumes(): Readonly<Record<string, string>> {
    const text = this.engine.journal.meta(volumesKey(this.lane));
    return text === undefined ? {} : (JSON.parse(text) as Record<string, string>);
  }
}

const volumesKey = ({ name }: Lane) => `volumes:${name}`;

/** Tells two sets of paths apart, in any order (FNV-1a, added up). */
function sumOf(paths: ReadonlySet<string>, epoch = ""): string {
  let sum = 0;
  for (const path of paths) {
    let hash = 0x811c9dc5;
    for (let at = 0; at < path.length; at++) hash = Math.imul(hash ^ path.charCodeAt(at), 0x01000193);
    sum = (sum + (hash >>> 0)) % Number.MAX_SAFE_INTEGER;
  }
  return `${paths.size} ${sum} ${epoch}`;
}

/** Lets the event loop turn. */
function breathe(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
