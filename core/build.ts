/** Makes the engine's parts from a configuration: what a start, a reload and a command without a daemon have in common. It starts nothing. */
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { Subject } from "./rxjs.js";
import { Budget, type Spent } from "./budget.js";
import type { RealClock } from "./clock.js";
import type { Config, DeviceConfig } from "./config.js";
import { deviceMemory } from "./device-memory.js";
import type { Engine, RouteLane } from "./engine.js";
import type { Events } from "./events.js";
import { figuresOf } from "./figures.js";
import type { Finder } from "./find.js";
import type { Journal } from "./journal.js";
import { Gate } from "./gate.js";
import { Lane } from "./lane.js";
import { Limits } from "./limits.js";
import { LiveFiles } from "./live.js";
import type { Device, PluginContext } from "./plugin.js";
import { Queue } from "./queue.js";
import { reasonOf } from "./retry.js";
import { Rules } from "./route.js";
import { Spool } from "./spool.js";
import { isChanged } from "./sync/options.js";
import type { SyncRoute } from "./sync/sync-route.js";
import { Throttle } from "./throttle.js";
import { Transfers } from "./transfers.js";
import { Uptime, type Learned } from "./uptime.js";

export interface Given {
  readonly config: Config;
  readonly events: Events;
  readonly clock: RealClock;
  readonly random: () => number;
  /** Monotonic, of the program's start. */
  readonly startMs: number;
}

/** An engine of which the parts that a reload changes can be changed by who made it. */
export interface OwnEngine extends Engine {
  config: Config;
  readonly lanes: Map<string, Lane>;
  readonly routes: Map<string, RouteLane[]>;
  readonly finders: Map<string, Finder>;
  readonly syncs: Map<string, SyncRoute>;
}

export function engineOf(given: Given, journal: Journal, installation: string): OwnEngine {
  const { config, events, clock, random, startMs } = given;
  const names = { vehicle: config.vehicle, installation };
  const first = journal.meta("installation") === installation ? journal.meta("vehicle") : undefined;
  return {
    config,
    names,
    uploads: { ...names, vehicle: first ?? config.vehicle },
    clock,
    events,
    journal,
    queue: new Queue(journal, clock),
    spool: new Spool(config.stateDir, { maxSizeBytes: config.spool.maxSize, keepFreeBytes: config.spool.keepFree }),
    live: new LiveFiles(),
    transfers: new Transfers(clock),
    lanes: new Map(),
    finders: new Map(),
    syncs: new Map(),
    limits: new Limits(clock, config.metered),
    routes: routesBySource(config, clock),
    work$: new Subject(),
    relist$: new Subject(),
    random,
    upMs: () => clock.monotonicMs() - startMs,
  };
}

/** Undefined, and that is said, where it can never work as configured. Throws what the journal fails with. */
export function buildLane(engine: Engine, config: DeviceConfig, clock: RealClock): Lane | undefined {
  const context = contextOf(engine, config, clock);
  try {
    const device: Device | undefined =
      config.kind === "service" ? config.plugin.service?.(config.options, context) : config.plugin.device?.(config.options, context);
    if (device === undefined) throw new Error(`"${config.type}" makes no ${config.kind}`);
    const { when, budget } = config;
    return new Lane(config, device, clock, engine.events, () => engine.random(), {
      ...(when === undefined && budget === undefined ? {} : { gate: new Gate() }),
      ...(budget === undefined ? {} : { budget: new Budget(budget, metaStore<Spent>(engine.journal, `budget:${config.name}`), clock) }),
      ...(device.target === undefined ? {} : { uptime: new Uptime(metaStore<Learned>(engine.journal, `uptime:${config.name}`), clock) }),
    });
  } catch (error) {
    if (engine.journal.failed) throw error;
    engine.events.say("error", "config", `${config.name}: cannot be started: ${reasonOf(error)}; the rest runs`, { device: config.name });
    return undefined;
  }
}

function contextOf(engine: Engine, { name, maxRate }: DeviceConfig, clock: RealClock): PluginContext {
  const { events, journal } = engine;
  return {
    name,
    vehicle: engine.names.vehicle,
    installation: engine.names.installation,
    stateDir: join(engine.config.stateDir, "devices", name),
    clock,
    // Asked when it matters: a reload may change it.
    get changed() {
      return isChanged(engine.config, name);
    },
    get read() {
      const { routes, syncs } = engine.config;
      return [...routes, ...syncs].some(({ from }) => from === name) || syncs.some(({ mode, to }) => mode === "two-way" && to === name);
    },
    ...(maxRate === undefined ? {} : { maxRate }),
    memory: deviceMemory(journal, name),
    say: (level, message, facts) => events.say(level, "device", `${name}: ${message}`, { device: name, ...facts }),
    figures: () => figuresOf(engine),
    tellTime: (wallMs) => {
      if (!clock.trusted() && clock.tell(wallMs)) events.say("info", "clock", `${name} says that this machine's clock is right`);
    },
    tellArmed: (armed) => engine.limits.tell(name, armed),
  };
}

/** A small value in the journal. */
function metaStore<T>(journal: Journal, key: string) {
  return {
    load: () => {
      const value = journal.meta(key);
      return value === undefined ? undefined : (JSON.parse(value) as T);
    },
    save: (value: T) =>
      journal.commit(() => {
        journal.setMeta(key, JSON.stringify(value));
      }),
  };
}

/** The routes of each source. A route of `before` that did not change keeps its rate's buckets and its gate. */
export function routesBySource(
  config: Config,
  clock: RealClock,
  before: ReadonlyMap<string, readonly RouteLane[]> = new Map(),
): Map<string, RouteLane[]> {
  const routes = new Map<string, RouteLane[]>();
  for (const route of config.routes) {
    const kept = before.get(route.from)?.find(({ rules }) => isDeepStrictEqual(rules.route, route));
    const lane = kept ?? {
      rules: new Rules(route),
      throttles: new Map(route.to.map(({ device }) => [device, new Throttle(route.maxRate, clock)])),
      ...(route.when === undefined ? {} : { gate: new Gate() }),
    };
    routes.set(route.from, [...(routes.get(route.from) ?? []), lane]);
  }
  return routes;
}
