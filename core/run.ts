/**
 * One life of the engine, from the opening of the journal to its closing. Each device has a life of its own in it: a reload ends and begins only
 * those that changed, and what the rules of a source decide (finding, releasing) begins anew where its routes changed.
 */
import { setMaxListeners } from "node:events";
import { isDeepStrictEqual } from "node:util";
import { auditTime, lastValueFrom, map, type Observable } from "./rxjs.js";
import { buildLane, engineOf, routesBySource, type Given, type OwnEngine } from "./build.js";
import type { Config, DeviceConfig } from "./config.js";
import { nameOf as fileName, type RouteLane, unlistedIn } from "./engine.js";
import { isFault } from "./errors.js";
import { Finder } from "./find.js";
import type { Installation } from "./installation.js";
import { type Doubt, Journal } from "./journal.js";
import { forgetLast, noteLast } from "./last.js";
import type { Lane } from "./lane.js";
import { beforeReroute, wake, watchGate, watchRoutes } from "./limits.js";
import type { Service } from "./plugin.js";
import { pullWorkers } from "./pull.js";
import { pushWorkers } from "./push.js";
import { recover, tellForeign } from "./recover.js";
import { isReleaseDue, releaseWorkers } from "./release.js";
import { watchNews } from "./news.js";
import { noteClock } from "./passed.js";
import { watchRest } from "./rest.js";
import { backoffMs, reasonOf } from "./retry.js";
import { expire } from "./space.js";
import { lostIn } from "./status.js";
import { nameOf, type SyncConfig, titleOf } from "./sync/options.js";
import { SyncRoute } from "./sync/sync-route.js";

const housekeepingMs = 60_000;
const dailyMs = 86_400_000;
/** `--once` waits no longer for what failed so often. */
const triesOnce = 5;
/** Nor for what is to be tried only after longer than this, which is about what so many tries wait in all. */
const patienceMs = 15_000;
/** What is in doubt is looked for soon; what waits longer waits for a day. */
const soonMs = 5000;

/** What a drain left behind. */
export interface Drained {
  readonly waiting: number;
  readonly parked: number;
  /** Files that have gone from their sources before every target had them, and nobody has found or forgotten since. */
  readonly lost: number;
  /** Of those that were delivered: what could not be deleted or archived at its source, and is tried again. */
  readonly unreleased: number;
  /** Others, which will never be under these rules: their names. */
  readonly kept: readonly string[];
  /** Sources that could not be listed. */
  readonly unlisted: readonly string[];
  /** Paths at sources that could not be read. */
  readonly unread: number;
  /** Mirror and two-way routes that did not bring all of it: which, and why, for a person. */
  readonly uneven: readonly string[];
}

/** What a reload did, by name of device; `rerouted`: sources of which a route changed. */
export interface Reloaded {
  readonly added: readonly string[];
  readonly changed: readonly string[];
  readonly removed: readonly string[];
  readonly rerouted: readonly string[];
}

/** Work that ends together. */
class Crew {
  readonly #stop = new AbortController();
  /** What runs; each takes itself out when it has ended. */
  readonly #running = new Set<Promise<void>>();

  constructor(readonly fail: (error: Error) => void) {
    // One signal, heard by every worker: their number is no leak.
    setMaxListeners(0, this.#stop.signal);
  }

  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  keep(ended: Promise<unknown>): void {
    const kept: Promise<void> = ended
      .then(
        () => undefined,
        (error: unknown) => this.fail(error instanceof Error ? error : new Error(String(error))),
      )
      .finally(() => this.#running.delete(kept));
    this.#running.add(kept);
  }

  drain(work$: Observable<unknown>): void {
    this.keep(lastValueFrom(work$, { defaultValue: undefined }));
  }

  abort(): void {
    this.#stop.abort();
  }

  async end(): Promise<void> {
    this.abort();
    while (this.#running.size > 0) await Promise.all(this.#running);
  }
}

/** One device at work. */
interface Life {
  readonly lane: Lane;
  readonly crew: Crew;
  /** What the rules of its routes decide. */
  rules: Crew;
}

export class Run {
  readonly #crew: Crew;
  readonly #lives = new Map<string, Life>();
  readonly #timers: NodeJS.Timeout[] = [];
  /** Of the routes between two devices that both follow. */
  readonly #syncs = new Map<SyncRoute, Crew>();
  #dueTimer: NodeJS.Timeout | undefined;
  #reloading: Promise<unknown> = Promise.resolve();
  /** How many reloads run or wait. */
  #reloads = 0;
  /** When the devices of now were begun: at the start, or by the last reload. */
  #enteredMs = 0;
  #stopped: Promise<void> | undefined;
  #fail: (error: Error) => void = () => undefined;
  /** Resolves with the error that ended the engine. */
  readonly failed: Promise<Error>;

  private constructor(
    readonly engine: OwnEngine,
    readonly given: Given,
  ) {
    this.failed = new Promise((resolve) => (this.#fail = resolve));
    this.#crew = new Crew(this.#fail);
  }

  static async begin(given: Given, installation: Installation, doubt: Doubt, wentBack?: string): Promise<Run> {
    const { config, events } = given;
    const journal = await Journal.open(config.stateDir, doubt, true, wentBack);
    let run: Run;
    try {
      run = new Run(engineOf(given, journal, installation.id), given);
    } catch (error) {
      // Damage may lie where this reads first. What stays open would be in the way of who sets it aside.
      await journal.close().catch(() => undefined);
      throw error;
    }
    try {
      if (journal.setAside.length > 0)
        events.say(
          "error",
          "journal-set-aside",
          `the journal is damaged, or of a newer version that was taken back; it was set aside as ${journal.setAside.join(", ")} and is rebuilt from receipts, sources and targets`,
        );
      if (journal.trimmed > 0)
        events.say("info", "trimmed", `${journal.trimmed} lines of receipts.jsonl were of files that are forgotten, and are taken out`);
      await dropInherited(run.engine, installation);
      await recover(run.engine, config.stateDir, journal.setAside.length > 0);
      await journal.apply(() => forgetLast(journal));
      run.#start();
      return run;
    } catch (error) {
      await run.stop();
      throw error;
    }
  }

  #start(): void {
    const { engine } = this;
    const { signal } = this.#crew;
    engine.journal.failed$.subscribe((error) => this.#fail(error));
    this.#watchRoutes();
    this.#enter(engine.config.devices);
    this.#sync();
    engine.limits.start(engine, (work) => this.#crew.keep(work));
    const due = engine.work$
      .pipe(
        map(() => engine.clock.monotonicMs()),
        auditTime(100),
      )
      .subscribe((wokenMs) => {
        clearTimeout(this.#dueTimer);
        if (signal.aborted || engine.journal.failed) return;
        // Also what has become due since the workers were woken: they may not have seen it.
        const at = engine.queue.nextDueMs(wokenMs);
        if (at !== undefined)
          this.#dueTimer = setTimeout(() => engine.work$.next(), Math.min(dailyMs, Math.max(10, at - engine.clock.monotonicMs() + 1)));
      });
    signal.addEventListener("abort", () => due.unsubscribe());
    this.#timers.push(
      // Space on the disk comes back unasked, and what failed at its source is due again.
      setInterval(() => this.#crew.keep(expire(engine, signal).then(() => engine.work$.next())), housekeepingMs),
      setInterval(() => this.#crew.keep(this.#daily()), dailyMs),
    );
    noteClock(engine);
    engine.work$.next();
  }

  /** All are there before the first begins: what one finds may be for another. */
  #enter(devices: readonly DeviceConfig[]): void {
    const { engine } = this;
    this.#enteredMs = engine.clock.monotonicMs();
    const lanes: Lane[] = [];
    for (const device of devices) {
      const lane = buildLane(engine, device, this.given.clock);
      if (lane === undefined) continue;
      engine.lanes.set(device.name, lane);
      lanes.push(lane);
    }
    for (const lane of lanes) this.#begin(lane);
  }

  #begin(lane: Lane): void {
    const { engine } = this;
    const crew = new Crew(this.#fail);
    const life: Life = { lane, crew, rules: new Crew(this.#fail) };
    this.#lives.set(lane.name, life);
    let met = false;
    lane.edge$.subscribe(() => {
      // What it would say to a file its probe does not tell: what it refused lets others go first. As it is configured now it was asked nothing yet.
      const refused = met && lane.device.target?.features.singleShot === true ? "stays" : "due";
      if (!met) engine.queue.rooms.isNew(lane.name);
      met = true;
      engine.queue.releaseNow(lane.name);
      this.#crew.keep(
        engine.journal.apply(() => engine.queue.dueNow(lane.name, { refused, epoch: lane.state.epoch })).then(() => engine.work$.next()),
      );
    });
    watchGate(engine, lane, (work) => this.#crew.keep(work));
    if (lane.device.source !== undefined) {
      this.#rule(life);
      crew.drain(pullWorkers(engine, lane, crew.signal));
    }
    if (lane.device.target !== undefined) crew.drain(pushWorkers(engine, lane, crew.signal));
    watchRest(engine, lane, crew.signal);
    watchNews(engine, lane, crew.signal);
    if (lane.config.kind === "service") crew.keep(this.#serve(lane, lane.device as Service, crew.signal));
    lane.start();
  }

  /** Those whose devices there are, and that do not run. */
  #sync(): void {
    const { engine } = this;
    for (const config of engine.config.syncs) {
      const [here, there] = [engine.lanes.get(config.from), engine.lanes.get(config.to)];
      if (here === undefined || there === undefined || engine.syncs.has(nameOf(config))) continue;
      try {
        const route = new SyncRoute(engine, config, here, there);
        const crew = new Crew(this.#fail);
        engine.syncs.set(route.name, route);
        this.#syncs.set(route, crew);
        crew.keep(route.run(crew.signal));
      } catch (error) {
        if (!isFault(error, "config")) throw error;
        engine.events.say("error", "config", `${titleOf(config)}: ${error.message}; the rest runs`);
      }
    }
  }

  #watchRoutes(): void {
    for (const source of this.engine.routes.keys()) watchRoutes(this.engine, source, (work) => this.#crew.keep(work));
  }

  #rule(life: Life): void {
    const { engine } = this;
    const { lane, rules } = life;
    if (engine.routes.has(lane.name)) {
      const finder = new Finder(engine, lane, rules.signal);
      engine.finders.set(lane.name, finder);
      rules.keep(finder.run());
    }
    rules.drain(releaseWorkers(engine, lane, rules.signal));
  }

  async #leave(name: string): Promise<void> {
    const { engine } = this;
    const life = this.#lives.get(name);
    if (life === undefined) return;
    await Promise.all([life.rules.end(), life.crew.end()]);
    this.#lives.delete(name);
    engine.finders.delete(name);
    engine.lanes.delete(name);
    engine.transfers.waitForSpace.delete(name);
    await life.lane.close();
    engine.limits.forget(name);
  }

  /** Applies another configuration of the same state directory and vehicle: what did not change goes on. */
  reload(config: Config): Promise<Reloaded> {
    this.#reloads += 1;
    const reloading = this.#reloading.then(() => this.#reload(config)).finally(() => (this.#reloads -= 1));
    this.#reloading = reloading.catch(() => undefined);
    return reloading;
  }

  async #reload(config: Config): Promise<Reloaded> {
    const { engine } = this;
    const next = new Map(config.devices.map((device) => [device.name, device]));
    const before = new Map(engine.config.devices.map((device) => [device.name, device]));
    const removed = [...before.keys()].filter((name) => !next.has(name));
    const added = [...next.keys()].filter((name) => !before.has(name));
    const changed = [...next.keys()].filter((name) => before.has(name) && !isDeepStrictEqual(before.get(name), next.get(name)));
    const routes = routesBySource(config, this.given.clock, engine.routes);
    const rerouted = [...new Set([...routes.keys(), ...engine.routes.keys()])].filter(
      (name) => !isDeepStrictEqual(engine.routes.get(name)?.map(routeOf), routes.get(name)?.map(routeOf)),
    );
    const followed = new Set([...config.syncs, ...engine.config.syncs].map(({ from }) => from));
    const syncsOf = (syncs: Config["syncs"], name: string) => syncs.filter(({ from }) => from === name);
    const resynced = [...followed].filter((name) => !isDeepStrictEqual(syncsOf(config.syncs, name), syncsOf(engine.config.syncs, name)));
    // They hold both of their devices.
    const left = new Set([...removed, ...changed]);
    const isSame = (was: SyncConfig) => !left.has(was.from) && !left.has(was.to) && config.syncs.some((it) => isDeepStrictEqual(it, was));
    // What was refused is tried anew.
    const ended = [...this.#syncs].filter(([{ config: was, state }]) => !isSame(was) || state === "refused");
    await Promise.all(ended.map(([, crew]) => crew.end()));
    for (const [route] of ended) {
      this.#syncs.delete(route);
      engine.syncs.delete(route.name);
    }
    // A port is free before another device opens it.
    await Promise.all([...removed, ...changed].map((name) => this.#leave(name)));
    const turned = rerouted.map((name) => this.#lives.get(name)).filter((life) => life !== undefined);
    await Promise.all(turned.map((life) => life.rules.end()));
    if (!this.#crew.signal.aborted) {
      engine.config = config;
      engine.spool.limit({ maxSizeBytes: config.spool.maxSize, keepFreeBytes: config.spool.keepFree });
      const reroute = beforeReroute(engine);
      engine.routes.clear();
      for (const [name, lanes] of routes) engine.routes.set(name, lanes);
      reroute();
      engine.limits.machine.metered = config.metered;
      this.#watchRoutes();
      for (const life of turned) {
        engine.finders.delete(life.lane.name);
        life.rules = new Crew(this.#fail);
        if (life.lane.device.source !== undefined) this.#rule(life);
      }
      this.#enter([...changed, ...added].flatMap((name) => next.get(name) ?? []));
      for (const route of this.#syncs.keys()) route.hint();
      this.#sync();
      tellForeign(engine);
      // What held it may be in the configuration no more.
      await wake(engine, [...engine.lanes.keys()]);
    }
    return { added, changed, removed, rerouted: [...new Set([...rerouted, ...resynced])] };
  }

  /** A port that is held is tried again; what can never work is said once and looked at slowly. */
  async #serve(lane: Lane, service: Service, signal: AbortSignal): Promise<void> {
    const { clock, events } = this.engine;
    for (let tries = 0; !signal.aborted; tries++) {
      try {
        await service.start(signal);
        lane.served();
        return;
      } catch (error) {
        if (signal.aborted) return;
        lane.notServed(reasonOf(error));
        events.say(tries === 0 ? "error" : "debug", "service-failed", `${lane.name}: cannot serve: ${reasonOf(error)}`, {
          device: lane.name,
        });
        const slow = isFault(error, "config", "denied");
        await clock.sleep(slow ? 60_000 : backoffMs(tries, 0, this.engine.random()), signal).catch((stopped: unknown) => {
          if (!signal.aborted) throw stopped;
        });
      }
    }
  }

  async #daily(): Promise<void> {
    const { engine } = this;
    engine.queue.forgetEnded();
    const again = await engine.journal.apply(() => engine.queue.retryUnknown());
    if (again > 0) engine.work$.next();
  }

  /** What is left once nothing more can be done now; undefined while something can. */
  left(): Drained | undefined {
    const { engine } = this;
    const { journal, queue, lanes } = engine;
    // What a reload brings is given the same time as what was there at the start.
    const upMs = engine.clock.monotonicMs() - this.#enteredMs;
    if (this.#reloads > 0 || journal.failed || queue.pulling.size > 0 || queue.pushing.size > 0 || queue.releasing.size > 0)
      return undefined;
    const finders = [...engine.finders.values()];
    for (const finder of finders) {
      if (!finder.lane.attached) {
        if (upMs < 15_000 || finder.lane.unseen) return undefined;
      } else if (finder.failures < triesOnce && (finder.listings === 0 || finder.busy)) return undefined;
      else if (isReleaseDue(engine, finder.lane)) return undefined;
    }
    for (const route of engine.syncs.values()) if (route.isBusy(upMs)) return undefined;
    // What found no space, was refused by itself, or is to wait for long, was tried, and is not waited for.
    const rows = journal.all<{ source: string; medium: string; target: string; state: string; n: number; tries: number }>(
      `SELECT source, medium, target, state, COUNT(*) AS n, MIN(CASE WHEN fault IN ('full', 'held', 'denied') AND not_before > ?1 OR fault = 'indoubt' AND not_before > ?1 + ${soonMs}
         OR not_before > ?1 + ${patienceMs} THEN ${triesOnce} ELSE tries END) AS tries
       FROM deliveries WHERE state IN ('wanting', 'ready', 'active', 'discard', 'parked') GROUP BY source, medium, target, state`,
      engine.clock.monotonicMs(),
    );
    let waiting = 0;
    let parked = 0;
    const missed = new Set<Lane>();
    for (const { source, medium, target, state, n, tries } of rows) {
      if (state === "parked") {
        parked += n;
        continue;
      }
      waiting += n;
      const needed = state === "wanting" ? [source, target] : [target];
      const gate = lanes.get(target)?.gate;
      const sending = (engine.routes.get(source) ?? []).filter(({ rules }) => rules.route.to.some(({ device }) => device === target));
      const gates = [gate, ...sending.map((route) => route.gate)];
      // They are looked at within 2 s.
      if (gates.some((it) => it !== undefined && (it.resting || (!it.looked && upMs < 15_000)))) return undefined;
      const [giver, taker] = [lanes.get(source), lanes.get(target)];
      // For a target that is away the spool gets a copy, but for one that has left the configuration.
      const possible =
        taker?.device.target !== undefined &&
        (state === "wanting" ? giver?.device.source !== undefined && giver.holds(medium) : taker.attached && gate?.held === undefined);
      // What is still to be pulled can be, whatever its target says.
      if (possible && state !== "wanting" && isPutOff(lanes.get(target))) continue;
      if (possible && tries < triesOnce && !(state === "wanting" && engine.transfers.waitForSpace.has(source))) return undefined;
      // A target may still be attaching, or take its time, as a disk that spins up does.
      const away = needed.flatMap((name) => lanes.get(name) ?? []).filter(({ attached }) => !attached);
      if (away.some(({ unseen }) => unseen || upMs < 5000)) return undefined;
      for (const lane of away) missed.add(lane);
    }
    for (const lane of missed) lane.tellAway();
    const uneven = engine.config.syncs.flatMap((config) => {
      const route = engine.syncs.get(nameOf(config));
      return route === undefined ? [`${titleOf(config)}: one of its devices cannot be started as configured`] : (route.leftText ?? []);
    });
    const unread = finders.reduce((sum, { leftOut }) => sum + (leftOut?.unread ?? 0), 0);
    const lost = lostIn(journal).length;
    return {
      waiting,
      parked,
      lost,
      unreleased: queue.unreleased,
      kept: [...queue.kept.values()].map(fileName),
      unlisted: unlistedIn(engine),
      unread,
      uneven,
    };
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#shutDown();
    return this.#stopped;
  }

  async #shutDown(): Promise<void> {
    const { engine } = this;
    this.#crew.abort();
    for (const crew of this.#syncs.values()) crew.abort();
    for (const { crew, rules } of this.#lives.values()) {
      crew.abort();
      rules.abort();
    }
    for (const timer of this.#timers) clearInterval(timer);
    this.engine.limits.stop();
    clearTimeout(this.#dueTimer);
    await this.#reloading;
    await Promise.all([...this.#syncs.values()].map((crew) => crew.end()));
    const lives = [...this.#lives.values()];
    await Promise.all(lives.flatMap(({ crew, rules }) => [crew.end(), rules.end()]));
    await this.#crew.end();
    await engine.journal
      .apply(() => noteLast(engine))
      .catch((error: unknown) => {
        if (!engine.journal.failed) throw error;
      });
    await Promise.all(lives.map(({ lane }) => lane.close()));
    await engine.journal.close();
  }
}

const routeOf = ({ rules }: RouteLane) => rules.route;

/** It asks its files to wait for long, or again and again. */
function isPutOff(lane: Lane | undefined): boolean {
  return lane !== undefined && (lane.pausedMs > patienceMs || lane.putOff >= triesOnce);
}

/** What another installation began is not ours to go on with. Asked of the journal, because power may go after the new id was written. */
async function dropInherited({ journal, uploads }: OwnEngine, { id, clonedFrom }: Installation): Promise<void> {
  const known = journal.meta("installation");
  if (known === id && journal.meta("vehicle") === uploads.vehicle) return;
  await journal.commit(() => {
    if (known !== id && (known !== undefined || clonedFrom !== undefined))
      journal.run(
        "UPDATE deliveries SET begun = 0, memo = NULL, marks = json_remove(marks, '$.publishing', '$.elsewhere', '$.restart') WHERE state <> 'done'",
      );
    journal.setMeta("installation", id);
    journal.setMeta("vehicle", uploads.vehicle);
  });
}
