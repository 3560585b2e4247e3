/** How each device, mirror and two-way route was when the daemon stopped, for who asks while none runs. After a kill nobody knows. */
import type { Engine } from "./engine.js";
import type { LeftOut } from "./find.js";
import type { Journal } from "./journal.js";
import { dateText } from "./route.js";
import type { SyncState } from "./sync/sync-route.js";

export interface LastSeen {
  readonly presence: "attached" | "detached";
  readonly reason?: string;
  /** Why nothing was sent to it, though it may have been there. */
  readonly held?: string;
  /** Why nothing more was read from it: the spool had no room. */
  readonly full?: string;
  /** By its last listing. */
  readonly leftOut?: LeftOut;
  /** ISO 8601: when it was known last. */
  readonly at: string;
}

/** Of a mirror or two-way route. */
export interface LastRound {
  readonly state: SyncState;
  readonly reason?: string;
  /** A hundred at most. */
  readonly troubles: readonly { readonly path: string; readonly reason: string }[];
  readonly at: string;
}

const deviceKey = (device: string) => `lane:${device}`;
const routeKey = (route: string) => `round:${route}`;

/** Inside `apply`, when the engine stops. */
export function noteLast({ journal, lanes, finders, transfers, syncs, clock }: Engine): void {
  const at = new Date(clock.wallMs()).toISOString();
  for (const { name, attached, state, idleReason } of lanes.values()) {
    const leftOut = finders.get(name)?.leftOut;
    const full = transfers.waitForSpace.get(name);
    const seen: LastSeen = {
      presence: attached ? "attached" : "detached",
      ...(state.reason === undefined ? {} : { reason: state.reason }),
      ...(idleReason === undefined ? {} : { held: idleReason }),
      ...(full === undefined ? {} : { full }),
      ...(leftOut === undefined ? {} : { leftOut }),
      at,
    };
    journal.setMeta(deviceKey(name), JSON.stringify(seen));
  }
  for (const { name, state, reason, troubles } of syncs.values()) {
    const left = [...troubles].slice(0, mostTroubles).map(([path, why]) => ({ path, reason: why }));
    const round: LastRound = { state, ...(reason === undefined ? {} : { reason }), troubles: left, at };
    journal.setMeta(routeKey(name), JSON.stringify(round));
  }
}

const mostTroubles = 100;

/** Inside `apply`, when it starts: what was known then is no longer so. */
export function forgetLast(journal: Journal): void {
  journal.run("DELETE FROM meta WHERE (key >= 'lane:' AND key < 'lane;') OR (key >= 'round:' AND key < 'round;')");
}

export interface LastWord {
  readonly what: "away" | "held" | "full" | "leftOut";
  readonly text: string;
}

/** What kept a device, `name`, from its work; of one that was well nothing. */
export function lastWords({ presence, reason, held, full, leftOut }: LastSeen, name: string): LastWord[] {
  const more = leftOut === undefined || leftOut.paths === 1 ? "" : ` and ${leftOut.paths - 1} more`;
  return [
    ...(presence === "detached" ? [{ what: "away" as const, text: `${name} was away: ${reason ?? "nobody knows why"}` }] : []),
    ...(held === undefined ? [] : [{ what: "held" as const, text: `nothing was sent to ${name}: ${held}` }]),
    ...(full === undefined ? [] : [{ what: "full" as const, text: `nothing more was read from ${name}: ${full}` }]),
    ...(leftOut === undefined ? [] : [{ what: "leftOut" as const, text: `${leftOut.path} was left out (${leftOut.reason})${more}` }]),
  ];
}

export const lastRan = ({ at }: Pick<LastSeen, "at">): string => `when it last ran (${dateText(Date.parse(at))})`;

/** undefined where nobody knows. */
export function lastSeen({ journal }: Engine, device: string): LastSeen | undefined {
  return noted(journal, deviceKey(device));
}

/** `route`: as `nameOf` says it. undefined where nobody knows. */
export function lastRound({ journal }: Engine, route: string): LastRound | undefined {
  return noted(journal, routeKey(route));
}

function noted<T>(journal: Journal, key: string): T | undefined {
  const text = journal.meta(key);
  return text === undefined ? undefined : (JSON.parse(text) as T);
}
