/**
 * What the four steps (find, pull, push, release) share: the engine's parts, named once. It decides nothing.
 */
import { Subject } from "./rxjs.js";
import type { Config } from "./config.js";
import type { Events } from "./events.js";
import type { Finder } from "./find.js";
import type { Gate } from "./gate.js";
import type { Journal } from "./journal.js";
import type { Lane } from "./lane.js";
import type { Limits } from "./limits.js";
import type { LiveFiles } from "./live.js";
import type { Clock } from "./plugin.js";
import type { Queue } from "./queue.js";
import type { DeliveryRow, VersionRow } from "./rows.js";
import type { Names, Rules } from "./route.js";
import type { Spool } from "./spool.js";
import type { SyncRoute } from "./sync/sync-route.js";
import type { Throttle } from "./throttle.js";
import type { Transfers } from "./transfers.js";

export interface Engine {
  readonly config: Config;
  readonly names: Names;
  /** What ids of uploads are made of: the vehicle by its first name here, so that after another one what was begun goes on. */
  readonly uploads: Names;
  readonly clock: Clock;
  readonly events: Events;
  readonly journal: Journal;
  readonly queue: Queue;
  readonly spool: Spool;
  readonly live: LiveFiles;
  readonly transfers: Transfers;
  readonly lanes: ReadonlyMap<string, Lane>;
  /** Of the sources that have routes. */
  readonly finders: ReadonlyMap<string, Finder>;
  readonly limits: Limits;
  /** By name, as people name them in commands. */
  readonly syncs: ReadonlyMap<string, SyncRoute>;
  /** The rules of each source's routes, with the rate and the gate of each. */
  readonly routes: ReadonlyMap<string, readonly RouteLane[]>;
  /** Something was queued, or a spool byte became durable: whoever waits for work looks. */
  readonly work$: Subject<void>;
  /** Asks for a listing of a source. */
  readonly relist$: Subject<string>;
  /** Seeds jitter; injected by tests. */
  random(): number;
  /** How long the daemon has been up, in ms. */
  upMs(): number;
}

export interface RouteLane {
  readonly rules: Rules;
  /** Of each target. */
  readonly throttles: ReadonlyMap<string, Throttle>;
  /** Where the route has conditions. */
  readonly gate?: Gate;
}

/** Names of lanes that can be a target and take files now, or do not. */
export function targets(engine: Engine, takes: boolean): string[] {
  return [...engine.lanes.values()].filter((lane) => lane.device.target !== undefined && lane.takes === takes).map(({ name }) => name);
}

/** Takes bytes as they come, and goes on where a pull that broke off left them. */
export function followsPulls({ device: { target } }: Lane): boolean {
  return target?.features.needs === "stream" && target.features.resume;
}

export function streamTargets(engine: Engine): string[] {
  return [...engine.lanes.values()].filter(followsPulls).map(({ name }) => name);
}

/** The route that a delivery belongs to; undefined when the configuration no longer has it. */
export function routeOf(engine: Engine, version: VersionRow, delivery: Pick<DeliveryRow, "target">): RouteLane | undefined {
  return engine.routes
    .get(version.source)
    ?.find(({ rules }) => rules.route.to.some(({ device }) => device === delivery.target) && rules.wants(version));
}

/** Sources with routes of which nobody knows yet what they have, also those that cannot be started; not those that the configuration is wrong about. */
export function unlistedIn({ config, routes, finders }: Engine): string[] {
  return config.devices.flatMap(({ name }) => (routes.has(name) && (finders.get(name)?.listings ?? 0) === 0 ? [name] : []));
}

/** "pixhawk:2026-05-01/10_00_00.ulg" */
export function nameOf(version: Pick<VersionRow, "source" | "path">): string {
  return `${version.source}:${version.path}`;
}
