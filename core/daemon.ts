/**
 * The daemon: takes the state directory, builds devices and routes from the configuration, starts them, and stops them within 5 s of being
 * asked. A medium that refuses a write ends the engine, not the process: it is built again from what is durable, as after a power cut.
 */
import { setMaxListeners } from "node:events";
import { promises as fs } from "node:fs";
import { join } from "node:path";
import { auditTime, lastValueFrom, type Observable, Subject } from "rxjs";
import { RealClock } from "./clock.js";
import type { Config, DeviceConfig } from "./config.js";
import type { Engine, RouteLane } from "./engine.js";
import { isFault } from "./errors.js";
import type { Events } from "./events.js";
import { Finder } from "./find.js";
import { type Installation, installationOf, type Lock, lockStateDir, machineName } from "./installation.js";
import { isDamage, Journal } from "./journal.js";
import { Lane } from "./lane.js";
import { LiveFiles } from "./live.js";
import type { Device, Memo, PluginContext, Service } from "./plugin.js";
import { pullWorkers } from "./pull.js";
import { pushWorkers } from "./push.js";
import { Queue } from "./queue.js";
import { recover } from "./recover.js";
import { releaseWorkers } from "./release.js";
import { backoffMs, reasonOf } from "./retry.js";
import { Rules } from "./route.js";
import { expire } from "./space.js";
import { Spool } from "./spool.js";
import { statusOf, type Status } from "./status.js";
import { Throttle } from "./throttle.js";
import { Transfers } from "./transfers.js";

const housekeepingMs = 60_000;
const dailyMs = 86_400_000;
/** `--once` waits no longer for what failed so often. */
const triesOnce = 5;
/** An engine that ran so long was well. */
const steadyMs = 60_000;
const reserveBytes = 16 * 2 ** 20;

export interface DaemonOptions {
  readonly config: Config;
  readonly events: Events;
  readonly programVersion: string;
  readonly clock?: RealClock;
  readonly random?: () => number;
  /** Names this machine; found out when not given. */
  readonly machine?: string;
}

/** What a drain left behind. */
export interface Drained {
  readonly waiting: number;
  readonly parked: number;
  /** Sources that could not be listed. */
  readonly unlisted: readonly string[];
}

export class Daemon {
  readonly #options: DaemonOptions;
  readonly #clock: RealClock;
  readonly #startMs: number;
  #lock: Lock | undefined;
  #run: Run | undefined;
  readonly #stopping = new AbortController();
  /** How often in a row the engine ended soon after it was built. */
  #failures = 0;
  #rebuilding: Promise<void> | undefined;

  constructor(options: DaemonOptions) {
    this.#options = options;
    this.#clock = options.clock ?? new RealClock();
    this.#startMs = this.#clock.monotonicMs();
  }

  /** Throws StateDirHeld, JournalFromNewerVersion, or node's error when the state directory cannot be used. Resolves when all is started, or, where the medium is full or fails, when that was said: it looks again until `stop`. */
  async start(): Promise<void> {
    const { stateDir } = this.#options.config;
    this.#lock = await lockStateDir(stateDir);
    try {
      if ((await freeBytes(stateDir)) < 2 ** 20) await fs.rm(join(stateDir, "reserve"), { force: true });
      else await makeReserve(stateDir);
      await this.#begin(false);
    } catch (error) {
      if (isMedium(error)) {
        // A full or failing card does not keep the daemon down: it says so, and looks again.
        this.#rebuildAfter(undefined, error);
        return;
      }
      this.#lock.release();
      throw error;
    }
  }

  get ready(): boolean {
    return this.#run !== undefined && !this.#stopping.signal.aborted;
  }

  status(): Status {
    if (this.#run === undefined) throw new Error("the daemon is starting");
    return statusOf(this.#run.engine, this.#options.programVersion, this.ready);
  }

  get engine(): Engine {
    if (this.#run === undefined) throw new Error("the daemon is starting");
    return this.#run.engine;
  }

  /** Checkpoints and stops; the state directory is free afterwards. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#rebuilding;
    await this.#run?.stop();
    this.#run = undefined;
    this.#lock?.release();
    this.#lock = undefined;
  }

  /** Resolves when there is nothing left that could be done now; says what is left. */
  async drained(signal: AbortSignal): Promise<Drained> {
    for (let tookMs = 0; ;) {
      // Counting what is left of 100,000 files takes a while: most of the time is for the work itself.
      await this.#clock.sleep(Math.max(100, 20 * tookMs), signal);
      await this.#rebuilding;
      const begunMs = this.#clock.monotonicMs();
      const left = this.#run?.left(this.#clock.monotonicMs() - this.#startMs);
      if (left !== undefined) return left;
      tookMs = this.#clock.monotonicMs() - begunMs;
    }
  }

  async #begin(suspect: boolean): Promise<void> {
    const { config, events } = this.#options;
    const machine = this.#options.machine ?? machineName();
    const installation = await installationOf(config.stateDir, machine);
    const run = await Run.begin(this.#options, this.#clock, this.#startMs, installation, suspect);
    this.#run = run;
    if (installation.clonedFrom !== undefined)
      events.say(
        "warn",
        "cloned",
        `this state directory comes from another machine (installation ${installation.clonedFrom}): from now on it is installation ${installation.id}`,
      );
    const begunMs = this.#clock.monotonicMs();
    void run.failed.then((error) => {
      if (this.#stopping.signal.aborted) return;
      if (this.#clock.monotonicMs() - begunMs > steadyMs) this.#failures = 0;
      this.#rebuildAfter(run, error);
    });
  }

  #rebuildAfter(run: Run | undefined, error: Error): void {
    const mine = Promise.resolve(this.#rebuilding)
      .then(() => this.#rebuild(run, error))
      .finally(() => {
        if (this.#rebuilding === mine) this.#rebuilding = undefined;
      });
    this.#rebuilding = mine;
  }

  /** The medium refused a write, or the journal is damaged. Never rejects. */
  async #rebuild(run: Run | undefined, error: Error): Promise<void> {
    const { events, config } = this.#options;
    const { signal } = this.#stopping;
    this.#run = undefined;
    const suspect = isDamage(error);
    const full = "code" in error && (error.code === "ENOSPC" || ("errcode" in error && error.errcode === 13));
    events.say("error", "journal-failed", `the journal in ${config.stateDir} cannot be written: ${reasonOf(error)}; it is opened anew`);
    const said = (next: unknown) => events.say("error", "journal-failed", `the journal cannot be opened: ${reasonOf(next)}`);
    await run?.stop().catch(said);
    // At once the first time; a medium that goes on refusing is given time.
    for (; !signal.aborted; this.#failures++) {
      if (this.#failures > 0)
        await this.#clock.sleep(backoffMs(this.#failures - 1, 0, Math.random()), signal).catch((stopped: unknown) => {
          if (!signal.aborted) throw stopped;
        });
      if (signal.aborted) return;
      try {
        if (full || (await freeBytes(config.stateDir)) < reserveBytes) await fs.rm(join(config.stateDir, "reserve"), { force: true });
        await this.#begin(suspect);
        this.#failures += 1;
        events.say("warn", "journal-reopened", "the journal is open again; work goes on");
        return;
      } catch (next) {
        said(next);
      }
    }
  }
}

/** One life of the engine, from the opening of the journal to its closing. */
class Run {
  readonly #stop = new AbortController();
  /** What runs; each takes itself out when it has ended. */
  readonly #running = new Set<Promise<void>>();
  readonly #finders: Finder[] = [];
  readonly #timers: NodeJS.Timeout[] = [];
  #dueTimer: NodeJS.Timeout | undefined;
  #stopped: Promise<void> | undefined;
  #fail: (error: Error) => void = () => undefined;
  /** Resolves with the error that ended the engine. */
  readonly failed: Promise<Error>;

  private constructor(
    readonly engine: Engine,
    readonly options: DaemonOptions,
  ) {
    this.failed = new Promise((resolve) => (this.#fail = resolve));
    // One signal, heard by every lane: their number is no leak.
    setMaxListeners(0, this.#stop.signal);
  }

  static async begin(
    options: DaemonOptions,
    clock: RealClock,
    startMs: number,
    installation: Installation,
    suspect: boolean,
  ): Promise<Run> {
    const { config, events } = options;
    const random = options.random ?? Math.random;
    const journal = await Journal.open(config.stateDir, suspect);
    const lanes = new Map<string, Lane>();
    const engine: Engine = {
      config,
      names: { vehicle: config.vehicle, installation: installation.id },
      clock,
      events,
      journal,
      queue: new Queue(journal, clock),
      spool: new Spool(config.stateDir, { maxSizeBytes: config.spool.maxSize, keepFreeBytes: config.spool.keepFree }),
      live: new LiveFiles(),
      transfers: new Transfers(clock),
      lanes,
      routes: routesBySource(config, clock),
      work$: new Subject(),
      relist$: new Subject(),
      random,
      upMs: () => clock.monotonicMs() - startMs,
    };
    const run = new Run(engine, options);
    try {
      if (journal.setAside.length > 0)
        events.say(
          "error",
          "journal-set-aside",
          `the journal was damaged; it was set aside as ${journal.setAside.join(", ")} and is rebuilt from receipts, sources and targets`,
        );
      await dropInherited(journal, installation);
      await recover(engine, config.stateDir, journal.setAside.length > 0);
      for (const device of config.devices) {
        const lane = buildLane(engine, device, clock, random);
        if (lane !== undefined) lanes.set(device.name, lane);
      }
      run.#start();
      return run;
    } catch (error) {
      await run.stop();
      throw error;
    }
  }

  #start(): void {
    const { engine } = this;
    const { signal } = this.#stop;
    engine.journal.failed$.subscribe((error) => this.#fail(error));
    const keep = (ended: Promise<unknown>) => this.#keep(ended);
    const drain = (work$: Observable<unknown>) => keep(lastValueFrom(work$, { defaultValue: undefined }));
    for (const lane of engine.lanes.values()) {
      lane.edge$.subscribe(() => {
        keep(engine.journal.apply(() => engine.queue.dueNow(lane.name)).then(() => engine.work$.next()));
      });
      if (lane.device.source !== undefined && engine.routes.has(lane.name)) {
        const finder = new Finder(engine, lane, signal);
        this.#finders.push(finder);
        keep(finder.run());
      }
      if (lane.device.source !== undefined) {
        drain(pullWorkers(engine, lane, signal));
        drain(releaseWorkers(engine, lane, signal));
      }
      if (lane.device.target !== undefined) drain(pushWorkers(engine, lane, signal));
      if (lane.config.kind === "service") keep(this.#serve(lane, lane.device as Service));
      lane.start();
    }
    const due = engine.work$.pipe(auditTime(100)).subscribe(() => {
      clearTimeout(this.#dueTimer);
      if (signal.aborted || engine.journal.failed) return;
      const at = engine.queue.nextDueMs();
      if (at !== undefined)
        this.#dueTimer = setTimeout(() => engine.work$.next(), Math.min(dailyMs, Math.max(10, at - engine.clock.monotonicMs() + 1)));
    });
    signal.addEventListener("abort", () => due.unsubscribe());
    this.#timers.push(
      // Space on the disk comes back unasked, and what failed at its source is due again.
      setInterval(() => keep(expire(engine).then(() => engine.work$.next())), housekeepingMs),
      setInterval(() => keep(this.#daily()), dailyMs),
    );
    engine.work$.next();
  }

  #keep(ended: Promise<unknown>): void {
    const kept: Promise<void> = ended
      .then(
        () => undefined,
        (error: unknown) => this.#fail(error instanceof Error ? error : new Error(String(error))),
      )
      .finally(() => this.#running.delete(kept));
    this.#running.add(kept);
  }

  /** A port that is held is tried again; what can never work is said once and looked at slowly. */
  async #serve(lane: Lane, service: Service): Promise<void> {
    const { signal } = this.#stop;
    const { clock, events } = this.engine;
    for (let tries = 0; !signal.aborted; tries++) {
      try {
        await service.start(signal);
        return;
      } catch (error) {
        if (signal.aborted) return;
        events.say(tries === 0 ? "error" : "debug", "service-failed", `${lane.name}: cannot serve: ${reasonOf(error)}`, {
          device: lane.name,
        });
        const slow = isFault(error, "config") || isFault(error, "denied");
        await clock.sleep(slow ? 60_000 : backoffMs(tries, 0, this.engine.random()), signal).catch((stopped: unknown) => {
          if (!signal.aborted) throw stopped;
        });
      }
    }
  }

  async #daily(): Promise<void> {
    const { engine } = this;
    const again = await engine.journal.apply(() => engine.queue.retryUnknown());
    if (again > 0) engine.work$.next();
  }

  /** What is left once nothing more can be done now; undefined while something can. */
  left(upMs: number): Drained | undefined {
    const { engine } = this;
    const { journal, queue, lanes } = engine;
    if (journal.failed || queue.pulling.size > 0 || queue.pushing.size > 0) return undefined;
    for (const finder of this.#finders) {
      if (!finder.lane.attached) {
        if (upMs < 15_000) return undefined;
      } else if (finder.failures < triesOnce && (finder.listings === 0 || finder.busy)) return undefined;
    }
    // What found no space was tried, and is not waited for.
    const rows = journal.all<{ source: string; target: string; state: string; n: number; tries: number }>(
      `SELECT source, target, state, COUNT(*) AS n, MIN(CASE WHEN fault = 'full' AND not_before > ? THEN ${triesOnce} ELSE tries END) AS tries
       FROM deliveries WHERE state IN ('wanting', 'ready', 'active', 'discard', 'parked') GROUP BY source, target, state`,
      engine.clock.monotonicMs(),
    );
    let waiting = 0;
    let parked = 0;
    for (const { source, target, state, n, tries } of rows) {
      if (state === "parked") {
        parked += n;
        continue;
      }
      waiting += n;
      const needed = state === "wanting" ? [source, target] : [target];
      const possible = needed.every((name) => lanes.get(name)?.attached === true);
      if (possible && tries < triesOnce && !(state === "wanting" && engine.transfers.waitForSpace.has(source))) return undefined;
      // A target may still be attaching.
      if (!possible && upMs < 5000 && needed.some((name) => lanes.get(name)?.attached === false)) return undefined;
    }
    return { waiting, parked, unlisted: this.#finders.filter(({ listings }) => listings === 0).map(({ lane }) => lane.name) };
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#shutDown();
    return this.#stopped;
  }

  async #shutDown(): Promise<void> {
    const { engine } = this;
    this.#stop.abort();
    for (const timer of this.#timers) clearInterval(timer);
    clearTimeout(this.#dueTimer);
    while (this.#running.size > 0) await Promise.all(this.#running);
    await Promise.all([...engine.lanes.values()].map((lane) => lane.close()));
    await engine.journal.close();
  }
}

function buildLane(engine: Engine, config: DeviceConfig, clock: RealClock, random: () => number): Lane | undefined {
  const context = contextOf(engine, config.name, clock);
  try {
    const device: Device | undefined =
      config.kind === "service" ? config.plugin.service?.(config.options, context) : config.plugin.device?.(config.options, context);
    if (device === undefined) throw new Error(`"${config.type}" makes no ${config.kind}`);
    return new Lane(config, device, clock, engine.events, random);
  } catch (error) {
    engine.events.say("error", "config", `${config.name}: cannot be started: ${reasonOf(error)}; the rest runs`, { device: config.name });
    return undefined;
  }
}

function contextOf(engine: Engine, name: string, clock: RealClock): PluginContext {
  const { events, journal } = engine;
  return {
    name,
    vehicle: engine.names.vehicle,
    installation: engine.names.installation,
    stateDir: join(engine.config.stateDir, "devices", name),
    clock,
    memory: deviceMemory(journal, name),
    say: (level, message, facts) => events.say(level, "device", `${name}: ${message}`, { device: name, ...facts }),
    tellTime: (wallMs) => {
      if (!clock.trusted() && clock.tell(wallMs)) events.say("info", "clock", `${name} says that this machine's clock is right`);
    },
  };
}

function deviceMemory(journal: Journal, device: string): Memo {
  return {
    get: (key) => {
      const row = journal.get<{ value: string }>("SELECT value FROM memory WHERE device = ? AND key = ?", device, key);
      return row === undefined ? undefined : (JSON.parse(row.value) as unknown);
    },
    set: (key, value) =>
      journal.commit(() => {
        if (value === undefined) journal.run("DELETE FROM memory WHERE device = ? AND key = ?", device, key);
        else
          journal.run(
            "INSERT INTO memory VALUES (?, ?, ?) ON CONFLICT (device, key) DO UPDATE SET value = excluded.value",
            device,
            key,
            JSON.stringify(value),
          );
      }),
  };
}

function routesBySource(config: Config, clock: RealClock): Map<string, RouteLane[]> {
  const routes = new Map<string, RouteLane[]>();
  for (const route of config.routes) {
    const lane = { rules: new Rules(route), throttle: new Throttle(route.maxRate, clock) };
    routes.set(route.from, [...(routes.get(route.from) ?? []), lane]);
  }
  return routes;
}

/** The disk is full, or fails: SQLITE_IOERR, SQLITE_FULL, or node's own word for it. */
function isMedium(error: unknown): error is Error {
  if (!(error instanceof Error)) return false;
  const code = "errcode" in error ? (error.errcode as number) & 0xff : 0;
  return code === 10 || code === 13 || ("code" in error && (error.code === "ENOSPC" || error.code === "EIO"));
}

/** What another installation began is not ours to go on with. Asked of the journal, because power may go after the new id was written. */
async function dropInherited(journal: Journal, { id, clonedFrom }: Installation): Promise<void> {
  const known = journal.get<{ value: string }>("SELECT value FROM meta WHERE key = 'installation'")?.value;
  if (known === id) return;
  await journal.commit(() => {
    if (known !== undefined || clonedFrom !== undefined) journal.run("UPDATE deliveries SET begun = 0, memo = NULL WHERE state <> 'done'");
    journal.run("INSERT INTO meta VALUES ('installation', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", id);
  });
}

/** Space that is given up when the disk is full, so that the journal can still be written. */
async function makeReserve(stateDir: string): Promise<void> {
  const path = join(stateDir, "reserve");
  const size = await fs.stat(path).then(
    (stat) => stat.size,
    () => 0,
  );
  if (size === reserveBytes || (await freeBytes(stateDir)) < 4 * reserveBytes) return;
  await fs.writeFile(path, Buffer.alloc(reserveBytes));
}

async function freeBytes(dir: string): Promise<number> {
  const { bavail, bsize } = await fs.statfs(dir);
  return bavail * bsize;
}
