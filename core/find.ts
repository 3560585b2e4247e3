/**
 * Find: a source is listed while it is attached (at each edge, every interval, at each hint); the rules choose; a file waits until it has
 * settled; then the journal gets the version and one delivery per target in one transaction. Ids are derived from what they name, so
 * finding twice changes nothing, and a listing that is cut short costs only time.
 *
 * A hint that comes while listing stays queued: the listing is done once more after it.
 */
import { audit, defer, EMPTY, filter, merge, type Observable, of, Subject, switchMap, timer } from "./rxjs.js";
import { Back } from "./back.js";
import { Survey } from "./compact.js";
import { Considering } from "./considered.js";
import { type Engine, type RouteLane } from "./engine.js";
import { lookInto } from "./entries.js";
import { Fault, isFault, throwIfAborted } from "./errors.js";
import { foundNow } from "./found-at.js";
import type { Lane } from "./lane.js";
import { Looks } from "./looks.js";
import { Missing } from "./missing.js";
import { decideBehind, type Overwritten, sayOverwritten } from "./overwritten.js";
import { copyComesBack } from "./places.js";
import type { FileEntry, Source } from "./plugin.js";
import { backAsItWas, goesBefore, hasLeft, keptUntilKey, type Latest, leftItsPlace, stampOf, type VersionRow } from "./rows.js";
import { backoffMs, reasonOf } from "./retry.js";
import { dateText, dayOf, plausible, type PlannedDelivery, type Rules, undated, versionId, type AfterDelivery } from "./route.js";

const defaultIntervalMs = 30_000;
const batch = 200;
/** After a look, what hints that something has changed waits for so many times as long as the look took. */
const restsTimes = 4;
/** A file that is listed, and is not that when it is asked for: after the second time it is left for so long, then twice as long, … */
const firstLeftMs = 60_000;
const longestLeftMs = 24 * 3600_000;

/** A clock that is put right by less was not wrong. */
const stepMs = 60_000;
/** A source's clock that went further than ours by more was set. */
const setMs = 2000;
/** So long after this machine was switched on a clock may have been set right before we looked first. */
const bootedMs = 10 * 60_000;

/** When each `since: install` route ran first; `fresh`: those whose first listing is this one. `trusted`: the time is known now. */
interface Starts {
  readonly ms: ReadonlyMap<string, number>;
  readonly fresh: ReadonlySet<string>;
  readonly trusted: boolean;
}

/** Which action at the source wins, when routes differ: the furthest. It waits for every required target of all of them. */
const furthest: readonly AfterDelivery[] = ["keep", "archive", "delete"];

/** A file that has not settled, as it was seen last. */
export interface Seen {
  readonly size: number;
  /** The source says that it is not complete; and perhaps why, where it is not being written. */
  readonly written: boolean;
  readonly reason?: string;
}

/** What a copy route may want and a listing had to leave out (it cannot be read, is a link, …): how many paths, how many of them are neither links nor special files, and the first. */
export interface LeftOut {
  readonly paths: number;
  readonly unread: number;
  readonly path: string;
  readonly reason: string;
}

/** How soon after a listing a source is listed again, also where nothing says that it changed; Infinity: not by itself. */
export function intervalOf({ config, device }: Lane): number {
  return config.intervalMs ?? device.source?.features.intervalMs ?? defaultIntervalMs;
}

/** Whether no listing finds it, as it is in the directory for what was archived. */
export function isArchived(config: Lane["config"] | undefined, path: string): boolean {
  return config?.archiveDir !== undefined && path.startsWith(`${config.archiveDir}/`);
}

export class Finder {
  /** Listings that were completed since the start. */
  listings = 0;
  /** By the last of them. */
  leftOut: LeftOut | undefined;
  /** Files that are seen and have not settled yet. */
  readonly #unsettled = new Map<string, Seen & { modifiedMs: number | undefined; sinceMs: number }>();
  /** What `since: install` left in the first listing before it had settled, while another route waits for that; by path. */
  readonly #leftEarly = new Map<string, { readonly stamp: string; readonly by: readonly RouteLane[] }>();
  /** Stamps of files that have settled and that no rule took, at the last listing. */
  readonly #decided = new Map<string, string>();
  /** In this listing it was noted that what was kept is to leave. */
  #keptNoted = false;
  readonly #told = new Set<string>();
  /** Files that were given up as gone or changed, and that listings show as they were: how often they were found once more, and when last. */
  readonly #returned = new Map<string, { readonly path: string; readonly times: number; readonly atMs: number }>();
  /** Listings that failed, one after another. */
  failures = 0;
  readonly #looks = new Looks(
    () => this.#look(),
    () => this.lane.attached,
  );
  /** A look has ended, which took so many ms. */
  readonly #looked$ = new Subject<number>();
  #restsUntilMs = 0;
  #looking = false;
  /** When the listing began that runs, or ran last. */
  #beganMs = 0;
  /** What the source's own clock said last, and when. */
  #clock: { readonly sourceMs: number; readonly atMs: number } | undefined;
  /** When it was seen to have been set. */
  #setAtMs = -Infinity;
  readonly #source: Source;
  readonly #routes: readonly RouteLane[];
  readonly #missing: Missing;
  readonly #back: Back;

  constructor(
    readonly engine: Engine,
    readonly lane: Lane,
    readonly stop: AbortSignal,
  ) {
    const source = lane.device.source;
    if (source === undefined) throw new Error(`${lane.name} is no source`);
    this.#source = source;
    this.#missing = new Missing(engine, lane, source);
    this.#back = new Back(engine, lane, stop, () => this.#looks.hint());
    this.#routes = engine.routes.get(lane.name) ?? [];
  }

  get unsettled(): number {
    return this.#unsettled.size;
  }

  /** Files that are there again after they were taken away, and are to be read to see whether they are others. */
  get rereading(): number {
    return this.#back.left;
  }

  /** How a file stands that has not settled; `inMs`: when it will have, if it stays the same. */
  settling(path: string): (Seen & { readonly inMs: number }) | undefined {
    const seen = this.#unsettled.get(path);
    if (seen === undefined) return undefined;
    const { sinceMs, modifiedMs: _, ...rest } = seen;
    return { ...rest, inMs: Math.max(0, sinceMs + this.lane.config.settleMs - this.engine.clock.monotonicMs()) };
  }

  /** Of a version that was taken away at its source: why it is not known what is there again; undefined where nothing is, or that is known. */
  backReason(version: string): string | undefined {
    return this.#back.reasonFor(version);
  }

  /** When a route with `"since": "install"` ran first; undefined where it never did, or has no such rule. */
  startOf(route: RouteLane): number | undefined {
    const known = this.#startNoted(route);
    return known === undefined ? undefined : Number(known.replace("listing:", ""));
  }

  /** Something is seen that the next listings will decide on. */
  get busy(): boolean {
    return this.#looks.busy || this.#unsettled.size > 0 || this.#back.busy;
  }

  /** Lists until `stop`; completes when the last listing has ended. */
  run(): Promise<void> {
    const { lane, stop, engine } = this;
    const intervalMs = intervalOf(lane);
    // A look that takes long is not begun again at once: at least half of the time the source is left alone.
    const later$ = this.#looked$.pipe(switchMap((tookMs) => timer(Math.max(intervalMs - tookMs, tookMs))));
    // What is deleted here once it is delivered changes the source, too: of thousands each would begin a look at all that are left.
    const rested$ = defer(() => timer(Math.max(0, this.#restsUntilMs - engine.clock.monotonicMs())));
    const changed$ = (this.#source.changes$ ?? EMPTY).pipe(
      audit(() => (this.#looking ? this.#looked$.pipe(switchMap(() => rested$)) : rested$)),
    );
    const hints$: Observable<unknown> = merge(
      of(undefined),
      lane.edge$,
      Number.isFinite(intervalMs) ? later$ : EMPTY,
      changed$,
      engine.relist$.pipe(filter((name) => name === lane.name)),
    );
    return this.#looks.run(hints$, stop);
  }

  async #look(): Promise<void> {
    const beganMs = this.engine.clock.monotonicMs();
    const tookMs = () => this.engine.clock.monotonicMs() - beganMs;
    this.#looking = true;
    try {
      await this.list(this.stop);
      this.failures = 0;
      this.lane.noteSuccess();
      if (this.#unsettled.size > 0) this.#looks.hintIn(Math.max(100, this.lane.config.settleMs, tookMs()));
    } catch (error) {
      if (this.stop.aborted) return;
      if (this.engine.journal.failed) throw error;
      this.lane.noteFault(error, (signal) => this.#again(signal));
      // The lane says it, once, when the device is gone.
      this.engine.events.say(
        this.failures === 0 && !isFault(error, "offline") ? "warn" : "debug",
        "listing-failed",
        `${this.lane.name}: cannot list it: ${reasonOf(error)}`,
        { device: this.lane.name },
      );
      this.#looks.hintIn(backoffMs(this.failures++, this.engine.upMs(), this.engine.random()));
    } finally {
      this.#looking = false;
      this.#restsUntilMs = beganMs + (1 + restsTimes) * tookMs();
      this.#looked$.next(tookMs());
    }
  }

  #enters(dir: string): boolean {
    return dir !== this.lane.config.archiveDir && this.#routes.some(({ rules }) => rules.enters(dir));
  }

  /** Whether it can be listed; of what is sent to, too, whether it answers: an upload may make its root. A reload may change which it is. */
  async #again(signal: AbortSignal): Promise<void> {
    const { routes, syncs } = this.engine.config;
    const sentTo = [...routes.flatMap(({ to }) => to.map(({ device }) => device)), ...syncs.map(({ to }) => to)];
    await (sentTo.includes(this.lane.name)
      ? this.lane.device.probe(signal)
      : lookInto(this.#source, signal, { enter: (dir) => this.#enters(dir) }));
  }

  /** One listing. Throws the source's Fault; what was found until then stays found. */
  async list(signal: AbortSignal): Promise<void> {
    const { engine, lane } = this;
    // What is a link may lead elsewhere since the configuration was read.
    for (const {
      rules: { route },
    } of this.#routes)
      for (const { device } of route.to) {
        const back = copyComesBack(engine.config.devices, route, device, engine.names);
        if (back !== undefined) throw new Fault("config", back);
      }
    const considering = new Considering(engine, lane);
    this.#beganMs = engine.clock.monotonicMs();
    // Also where nothing waits: what comes next may have been written before it is set.
    this.#sourceNow(false);
    const { epoch } = lane.state;
    const starts = await this.#routeStarts();
    const seen = new Set<string>();
    /** As what each place was listed that is not left out. */
    const listed = new Map<string, string>();
    /** The journal had nothing of their paths; only a listing adds that. */
    const unknown = new Set<FileEntry>();
    const timed: { id: string; modifiedMs: number }[] = [];
    this.#keptNoted = false;
    const wanted: { entry: FileEntry; routes: RouteLane[] }[] = [];
    const old: FileEntry[] = [];
    const enter = (dir: string) => this.#enters(dir);
    const archived = (path: string) => isArchived(lane.config, path);
    const survey = Survey.begin(engine, lane);
    let count = 0;
    let leftOut: LeftOut | undefined;
    const leave = ({ path, special }: FileEntry, reason: string) => {
      this.#tellOnce(path, reason);
      // Of a directory nobody knows what is in it, of what cannot be looked at not even its size.
      if (this.#routes.some(({ rules }) => rules.mayWantBelow(path) || rules.wants({ path, size: rules.route.minSize })))
        leftOut = { path, reason, ...leftOut, paths: (leftOut?.paths ?? 0) + 1, unread: (leftOut?.unread ?? 0) + (special ? 0 : 1) };
    };
    for await (const entry of this.#source.list(signal, { enter })) {
      throwIfAborted(signal);
      survey?.note(entry);
      if (++count % 1000 === 0) await breathe();
      if (entry.kind === "directory" || archived(entry.path)) continue;
      if (entry.kind === "unreadable") {
        considering.noteUnread(entry);
        leave(entry, entry.reason ?? "cannot be read");
        continue;
      }
      const routes = this.#routes.filter(({ rules }) => rules.wants(entry));
      if (routes.length === 0) continue;
      seen.add(entry.path);
      const known = engine.queue.latest(lane.name, entry);
      const same = known !== undefined && this.#isSame(known, entry);
      if (!same && this.#isLeft(entry)) {
        leave(entry, "it is listed, but when it is asked for it is gone, or is not what was listed; it is tried again later");
        continue;
      }
      if (same && engine.queue.kept.has(known.id)) this.#back.stays(known.id);
      const failure = same ? this.#back.failureOf(known.id) : undefined;
      if (failure !== undefined) leave(entry, failure);
      const place = entry.medium === undefined ? entry.path : `${entry.medium}\0${entry.path}`;
      const stamp = stampText(entry);
      const listedAs = listed.get(place) ?? stamp;
      if (listedAs !== stamp) {
        // Each would take the place of the other, again and again.
        leave(entry, "it is listed twice, and not as the same file");
        continue;
      }
      listed.set(place, stamp);
      if (known === undefined) unknown.add(entry);
      if (same && known.modified_ms === null && entry.modifiedMs !== undefined) timed.push({ id: known.id, modifiedMs: entry.modifiedMs });
      const counts = routes.some(({ rules }) => rules.route.newest !== undefined);
      // The journal knows it, and the rules are the same: nothing to decide, but it counts among the newest.
      if (same && !considering.mustAsk(entry)) {
        if (counts) wanted.push({ entry: { ...entry, settled: false }, routes });
        continue;
      }
      if (!same && known !== undefined && this.#isBeingSent(known, entry)) {
        if (counts) wanted.push({ entry: { ...entry, settled: false }, routes });
        continue;
      }
      if (!same && !this.#settled(entry)) {
        // Once it has settled, nothing may tell it from what came later.
        const by = routes.filter((route) => this.#isLeftFirst(entry, route, starts));
        if (known === undefined && by.length === routes.length) old.push(entry);
        else if (by.length > 0) this.#leftEarly.set(entry.path, { stamp: stampText(entry), by });
        if (counts) wanted.push({ entry: { ...entry, settled: false }, routes });
        continue;
      }
      wanted.push({ entry, routes });
    }
    for (const path of this.#unsettled.keys()) if (!seen.has(path)) this.#unsettled.delete(path);
    for (const [key, { path }] of this.#returned) if (!seen.has(path)) this.#returned.delete(key);
    for (const [id, { source, atMs }] of engine.queue.left) if (source === lane.name && atMs < this.#beganMs) engine.queue.left.delete(id);
    const goneAgain: string[] = [];
    for (const [id, { source, path, medium }] of engine.queue.kept) {
      if (source !== lane.name || (seen.has(path) && lane.holds(medium))) continue;
      engine.queue.kept.delete(id);
      if (lane.holds(medium) && engine.queue.version(id)?.released === backAsItWas) goneAgain.push(id);
    }
    if (timed.length > 0 || goneAgain.length > 0)
      await engine.journal.apply(() => {
        for (const id of goneAgain) engine.journal.run("UPDATE versions SET released = ? WHERE id = ?", leftItsPlace.gone, id);
        for (const { id, modifiedMs } of timed) {
          engine.journal.run("UPDATE versions SET modified_ms = ? WHERE id = ?", modifiedMs, id);
          // It is the time of what is there now, which nothing told from another of its size until now: what is to leave it is read before that, as it was to be.
          const due = engine.queue.releasable.get(id);
          if (due === undefined) continue;
          engine.queue.releasable.set(id, { source: due.source, notBeforeMs: due.notBeforeMs });
          engine.queue.leaving.doubt(id);
        }
        if (timed.length > 0) engine.queue.leaving.noteDoubts();
      });

    const chosen = this.#choose(wanted, starts);
    // What settled and no rule took is decided: it is not waited for, and has not to settle again while it stays the same.
    this.#decided.clear();
    const taken = new Set(chosen.map(({ entry }) => entry.path));
    for (const { entry } of wanted) if (entry.settled !== false && !taken.has(entry.path)) this.#decide(entry);
    for (const entry of old) chosen.push({ entry, routes: [] });
    let [added, known] = [0, 0];
    for (let at = 0; at < chosen.length; at += batch) {
      throwIfAborted(signal);
      const overwritten: Overwritten[] = [];
      await engine.journal.apply(() => {
        for (const { entry, routes } of chosen.slice(at, at + batch)) {
          const wanted = this.#record(entry, routes, unknown.has(entry), overwritten);
          if (wanted === "new") added += 1;
          else if (wanted === "known") known += 1;
        }
      });
      sayOverwritten(engine, overwritten);
      engine.work$.next();
      await breathe();
    }
    for (const path of this.#leftEarly.keys()) if (!this.#unsettled.has(path)) this.#leftEarly.delete(path);
    const noteConsidered = considering.end();
    // Otherwise that is known: a listing without anything new asks the medium for nothing.
    if (noteConsidered !== undefined || starts.fresh.size > 0)
      await engine.journal.apply(() => {
        noteConsidered?.();
        // Only now it is known that a target which they require gets nothing more of what was there.
        for (const { rules } of this.#routes)
          for (const { device, requires } of rules.route.to) if (requires.length > 0) engine.queue.dueAt(device);
        for (const key of starts.fresh) engine.journal.run("UPDATE meta SET value = ? WHERE key = ?", String(starts.ms.get(key) ?? 0), key);
      });
    if (considering.all) engine.work$.next();
    this.listings += 1;
    this.leftOut = leftOut;
    if (added > 0)
      engine.events.say("info", "found", `${lane.name}: ${added} new ${added === 1 ? "file" : "files"}`, {
        device: lane.name,
        count: added,
      });
    if (known > 0)
      engine.events.say("info", "listed", `${lane.name}: ${known} known ${known === 1 ? "file goes" : "files go"} to more targets`, {
        device: lane.name,
        count: known,
      });
    if (added + known === 0) engine.events.say("debug", "listed", `${lane.name}: listed, nothing new`, { device: lane.name });
    await this.#missing.look(seen, epoch, signal);
    await survey?.end((file) => !archived(file.path) && this.#routes.some(({ rules }) => rules.wants(file)), signal);
  }

  /** Before each target had a route of its own, that was noted of all targets of a route together. */
  #startNoted(route: RouteLane): string | undefined {
    const { journal } = this.engine;
    const key = startKey(this.lane.name, route);
    const begin = `since:${this.lane.name}:`;
    const together = () =>
      journal
        .all<{ key: string; value: string }>("SELECT key, value FROM meta WHERE substr(key, 1, ?) = ?", begin.length, begin)
        .filter((noted) => noted.key.slice(begin.length).split(",").includes(key.slice(begin.length)))
        .map(({ value }) => value)
        .sort((a, b) => Number(a.replace("listing:", "")) - Number(b.replace("listing:", "")))[0];
    return journal.meta(key) ?? together();
  }

  async #routeStarts(): Promise<Starts> {
    const { engine, lane } = this;
    const trusted = engine.clock.trusted();
    const ms = new Map<string, number>();
    const fresh = new Set<string>();
    for (const route of this.#routes) {
      if (route.rules.route.since !== "install") continue;
      const key = startKey(lane.name, route);
      const known = this.#startNoted(route);
      const listing = known === undefined || known.startsWith("listing:") ? "listing:" : "";
      const nowMs = engine.clock.wallMs();
      let startMs = known === undefined ? nowMs : Number(known.replace("listing:", ""));
      if (known !== undefined && trusted && startMs > nowMs + stepMs) {
        // What was there then is known as left, so all else came later.
        engine.events.say(
          "warn",
          "clock",
          `${lane.name}: the clock was ahead (${dateText(startMs)}) when a route with "since": "install" ran first: what was not there then counts as later, whatever its time`,
          { device: lane.name },
        );
        startMs = 0;
      }
      ms.set(key, startMs);
      if (listing !== "") fresh.add(key);
      if (engine.journal.meta(key) !== `${listing}${startMs}`)
        await engine.journal.apply(() => engine.journal.setMeta(key, `${listing}${startMs}`));
    }
    return { ms, fresh, trusted };
  }

  #choose(wanted: { entry: FileEntry; routes: RouteLane[] }[], starts: Starts): { entry: FileEntry; routes: RouteLane[] }[] {
    const newest = new Map<RouteLane, Set<FileEntry>>();
    for (const route of this.#routes)
      if (route.rules.route.newest !== undefined)
        newest.set(route, new Set(route.rules.newestOf(wanted.filter(({ routes }) => routes.includes(route)).map(({ entry }) => entry))));
    return wanted
      .filter(({ entry }) => entry.settled !== false)
      .map(({ entry, routes }) => ({
        entry,
        routes: routes.filter((route) => (newest.get(route)?.has(entry) ?? true) && this.#isSince(entry, route, starts)),
      }))
      .filter(({ entry, routes }) => routes.length > 0 || this.#isPassedOver(entry, starts.fresh.size > 0 || newest.size > 0));
  }

  #isSince(entry: FileEntry, route: RouteLane, { ms, fresh, trusted }: Starts): boolean {
    const early = this.#leftEarly.get(entry.path);
    if (early?.by.includes(route) === true && early.stamp === stampText(entry)) return false;
    if (route.rules.route.since === "install" && plausible(entry.modifiedMs) === undefined && this.#wasPassedOver(entry, route))
      return false;
    const key = startKey(this.lane.name, route);
    // While nobody knows the time, nothing tells what is there from what was there before.
    const startMs = fresh.has(key) && !trusted ? Infinity : (ms.get(key) ?? 0);
    return route.rules.isSince(entry, startMs, fresh.has(key), this.engine.clock.wallMs());
  }

  /** The journal has it, and it was not for this route: what no time tells apart from what comes later stays left, also when routes change. */
  #wasPassedOver(entry: FileEntry, { rules: { route } }: RouteLane): boolean {
    const { queue } = this.engine;
    const known = queue.latest(this.lane.name, entry);
    if (known === undefined || !this.#isSame(known, entry)) return false;
    return !queue.deliveriesOf(known.id).some(({ target }) => route.to.some(({ device }) => device === target));
  }

  /** `since: install` leaves it, in the first listing of that route. */
  #isLeftFirst(entry: FileEntry, route: RouteLane, starts: Starts): boolean {
    return starts.fresh.has(startKey(this.lane.name, route)) && !this.#isSince(entry, route, starts);
  }

  /**
   * What `newest`, or the first listing of `since: install`, leaves out is recorded without deliveries: the next listing knows it as decided,
   * also when the newer ones have been deleted from the source by then.
   */
  #isPassedOver(entry: FileEntry, decides: boolean): boolean {
    return decides && this.engine.queue.latest(this.lane.name, entry) === undefined;
  }

  /** Inside `apply`. Whether it goes somewhere new: a file that is new, or one that was known; undefined: it does not. */
  #record(entry: FileEntry, routes: readonly RouteLane[], unknown: boolean, overwritten: Overwritten[]): "new" | "known" | undefined {
    const { engine, lane } = this;
    const before = unknown ? undefined : engine.queue.latest(lane.name, entry);
    const after = furthest[Math.max(0, ...routes.map(({ rules }) => furthest.indexOf(rules.route.afterDelivery)))] ?? "keep";
    const trustSize = routes.every(({ rules }) => rules.route.trustSize);
    let version = before !== undefined && this.#isSame(before, entry) ? engine.queue.version(before.id) : undefined;
    const fresh = version === undefined;
    if (version === undefined) {
      if (before !== undefined) engine.queue.kept.delete(before.id);
      if (before?.state === "found") engine.queue.makeWay(before.id);
      const gone = engine.queue.goneOf(lane.name, entry);
      // One that is gone and was whole somewhere, as when one target had it before it grew: what comes may have grown from that.
      const last = before ?? gone.find(({ digest }) => digest !== null);
      const base = this.#mayBegin(last?.id, entry);
      overwritten.push(...decideBehind(engine, gone, base));
      const what = {
        store: this.#source.features.inPlace ? ("place" as const) : ("spool" as const),
        after,
        trustSize,
        // Whatever the clock does, what is found later is later.
        foundMs: Math.max(foundNow(engine), ...[before, gone[0]].map((earlier) => (earlier?.found_ms ?? 0) + 1)),
        ...(base === null ? {} : { base }),
      };
      version = engine.queue.add(versionId(lane.name, entry), lane.name, entry, what);
      // A source that lists a path twice.
      if (version === undefined && unknown) return this.#record(entry, routes, false, overwritten);
      if (version === undefined && !(before !== undefined && sameStamp(before, entry))) this.#noteReturn(entry);
      // The same stamp came back after another content: only a count can tell them apart.
      for (let twin = 1; version === undefined; twin++)
        version = engine.queue.add(versionId(lane.name, entry, String(twin)), lane.name, entry, what);
    }
    const planned = together(routes.flatMap(({ rules }) => this.#planned(version, entry, rules)));
    const added = engine.queue.addDeliveries(version, planned);
    const others = () =>
      this.#routes
        .filter((route) => !routes.includes(route) && route.rules.mayTake(entry, this.startOf(route) ?? -Infinity))
        .flatMap(({ rules }) => this.#planned(version, entry, rules));
    if (!fresh && engine.queue.setRules(version.id, planned, others()) && version.after !== "keep")
      engine.queue.releasable.set(version.id, { source: lane.name, notBeforeMs: 0 });
    // Under other rules what was kept is looked at once more.
    const kept = version.released?.startsWith("kept") === true;
    const differs = version.after !== after || version.trust_size !== (trustSize ? 1 : 0) || kept;
    if (routes.length > 0 && differs && engine.queue.deliveriesOf(version.id).length > 0) {
      engine.journal.run(
        "UPDATE versions SET after = ?, trust_size = ?, released = ? WHERE id = ?",
        after,
        trustSize ? 1 : 0,
        kept ? null : version.released,
        version.id,
      );
      if (version.after === "keep" && after !== "keep") this.#noteKept();
      engine.queue.releasable.set(version.id, { source: lane.name, notBeforeMs: 0 });
    }
    this.#unsettled.delete(entry.path);
    return added === 0 ? undefined : fresh ? "new" : "known";
  }

  /** Inside `apply`. By the latest receipt: whatever the clock said, and says. Once for each listing, as all of the source's deliveries are looked through. */
  #noteKept(): void {
    const { engine, lane } = this;
    if (this.#keptNoted) return;
    this.#keptNoted = true;
    const last =
      engine.journal.get<{ ms: number | null }>("SELECT MAX(done_ms) AS ms FROM deliveries WHERE source = ?", lane.name)?.ms ?? 0;
    const before = Number(engine.journal.meta(keptUntilKey(lane.name)) ?? 0);
    engine.journal.setMeta(keptUntilKey(lane.name), String(Math.max(last, before)));
  }

  /** The version that a file may have grown from: that one, or what it follows on where it was never whole and a listing showed it longer for a while (a file that is trimmed as it is closed). */
  #mayBegin(last: string | undefined, { size }: FileEntry): string | null {
    for (let id = last ?? null; id !== null;) {
      const version = this.engine.queue.version(id);
      if (version === undefined) break;
      if (version.size <= size) return version.size > 0 ? version.id : null;
      id = version.digest === null ? version.base : null;
    }
    return null;
  }

  /** The day in its path stays what it was at first, also once its source tells its time, or does not any more. */
  #planned(version: VersionRow, entry: FileEntry, rules: Rules): readonly PlannedDelivery[] {
    const { names, queue } = this.engine;
    const plan = (day: string) => rules.plan(version.id, entry, day, names);
    const [planned, before] = [plan(dayOf({ path: version.path, ...stampOf(version) })), plan(undated)];
    if (planned[0]?.path === before[0]?.path) return planned;
    const known = new Set(queue.deliveriesOf(version.id).map(({ id }) => id));
    return before.some(({ id }) => known.has(id)) ? before : planned;
  }

  /** Whether it is what was found there before, as far as that is known now. */
  #isSame(known: Latest, entry: FileEntry): boolean {
    if (!sameStamp(known, entry)) return false;
    const { left, leaving, releasable } = this.engine.queue;
    // What is doubted release compares, but for what is not to be acted on now.
    const mayHaveLeft = hasLeft(known) || (leaving.isDoubted(known.id) && !releasable.has(known.id));
    const isBack = mayHaveLeft && (left.get(known.id)?.atMs ?? -Infinity) < this.#beganMs;
    return !(isBack && this.#back.isAnother(known.id, entry));
  }

  /** A source that attached anew, or with another medium in, may have it after all. */
  #seenAs(entry: FileEntry): string {
    return `${this.lane.state.epoch ?? ""} ${entry.medium ?? ""} ${stampText(entry)} ${entry.path}`;
  }

  #noteReturn(entry: FileEntry): void {
    const seenAs = this.#seenAs(entry);
    const times = (this.#returned.get(seenAs)?.times ?? 0) + 1;
    this.#returned.set(seenAs, { path: entry.path, times, atMs: this.engine.clock.monotonicMs() });
  }

  /** Whether it returned only now: it would be found and given up at each listing, with a version more in the journal each time. */
  #isLeft(entry: FileEntry): boolean {
    const last = this.#returned.get(this.#seenAs(entry));
    if (last === undefined) return false;
    return this.engine.clock.monotonicMs() - last.atMs < Math.min(longestLeftMs, firstLeftMs * 2 ** (last.times - 1));
  }

  #decide(entry: FileEntry): void {
    this.#unsettled.delete(entry.path);
    this.#decided.set(entry.path, stampText(entry));
  }

  /**
   * What is sent in place as it was found goes on, also while its file grows: else one that grows faster than it is sent would never arrive. The longer one is
   * found when that has ended, whatever came of it.
   */
  #isBeingSent(known: Latest, entry: FileEntry): boolean {
    const { queue } = this.engine;
    if (known.store !== "place" || known.state !== "found" || known.size > entry.size || queue.pulling.has(known.id)) return false;
    if (![...queue.pushing.values()].some(({ delivery }) => delivery.version === known.id && delivery.state !== "discard")) return false;
    queue.outgrown.add(known.id);
    return true;
  }

  /** Whether a file is complete, as far as can be told. What is not is looked at again after `settle`. */
  #settled(entry: FileEntry): boolean {
    const settleMs = this.lane.config.settleMs;
    // A source may be wrong (a log before which an old clock has put another): what was longer when it was read is to stay the same first.
    if (entry.settled === true && !this.lane.hasGrown(entry.path)) return true;
    if (settleMs === 0 && entry.settled !== false) return true;
    if (entry.settled !== false && this.#decided.get(entry.path) === stampText(entry)) return true;
    const now = this.engine.clock.monotonicMs();
    const before = this.#unsettled.get(entry.path);
    const same = before?.size === entry.size && before.modifiedMs === entry.modifiedMs;
    const { size, modifiedMs, reason } = entry;
    const sinceMs = same ? before.sinceMs : now;
    const written = entry.settled === false;
    this.#unsettled.set(entry.path, { size, modifiedMs, sinceMs, written, ...(reason === undefined ? {} : { reason }) });
    if (entry.settled === false) return false;
    const sourceNow = this.#sourceNow();
    if (
      sourceNow !== undefined &&
      entry.modifiedMs !== undefined &&
      entry.modifiedMs <= sourceNow &&
      sourceNow - entry.modifiedMs > settleMs
    ) {
      this.#unsettled.delete(entry.path);
      return true;
    }
    return same && now - before.sinceMs >= settleMs;
  }

  /** The source's own clock; undefined so long after it was set (by NTP, on a Pi without a battery), or perhaps was, as what was written right before that, and is perhaps not complete, seems to be old. `answers`: it has been asked, so that one that tells none now has none. */
  #sourceNow(answers = true): number | undefined {
    const atMs = this.engine.clock.monotonicMs();
    const sourceMs = this.#source.now?.();
    if (sourceMs === undefined) {
      if (answers) this.#setAtMs = atMs;
      return undefined;
    }
    const before = this.#clock;
    this.#clock = { sourceMs, atMs };
    const wasSet =
      before === undefined
        ? (this.engine.clock.machineUpMs?.() ?? Infinity) < bootedMs
        : sourceMs - before.sourceMs - (atMs - before.atMs) > setMs;
    if (wasSet) this.#setAtMs = atMs;
    return atMs - this.#setAtMs < this.lane.config.settleMs ? undefined : sourceMs;
  }

  #tellOnce(path: string, reason: string): void {
    const key = `${path}\0${reason}`;
    if (this.#told.has(key) || this.#told.size > 10_000) return;
    this.#told.add(key);
    this.engine.events.say("warn", "unreadable", `${this.lane.name}:${path}: left out: ${reason}`, {
      device: this.lane.name,
      path,
      reason,
    });
  }
}

/**
 * Size and time; where one of the two has no time, the size: a source may learn to tell times, or lose them, with another firmware, and no file is
 * another one by that. Another inode alone is a card that was mounted anew.
 */
function sameStamp(version: Latest, entry: FileEntry): boolean {
  if (version.size !== entry.size) return false;
  return version.modified_ms === null || entry.modifiedMs === undefined || version.modified_ms === entry.modifiedMs;
}

/** Of two routes to one place, where one requires it it is required, and it goes when the first of them says. */
function together(planned: readonly PlannedDelivery[]): PlannedDelivery[] {
  const places = new Map<string, PlannedDelivery>();
  for (const plan of planned) {
    const other = places.get(plan.id) ?? plan;
    const first = goesBefore(plan, other) ? plan : other;
    places.set(plan.id, { ...first, required: plan.required || other.required });
  }
  return [...places.values()];
}

function stampText({ size, modifiedMs }: FileEntry): string {
  return `${size} ${modifiedMs ?? ""}`;
}

function startKey(source: string, { rules: { route } }: RouteLane): string {
  return `since:${source}:${route.to.map(({ device }) => device).join(",")}`;
}

/** Lets the event loop turn. */
function breathe(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
