/**
 * Pure: what core does after a fault. The table of the plugin contract, in code; each row has a test.
 */
import { isFault, type FaultKind } from "./errors.js";

export type Action =
  /** Give the claim back until the device is attached again. */
  | { readonly do: "wait" }
  /** Again from the durable offset after this time. */
  | { readonly do: "again"; readonly afterMs: number }
  /** Discard what is there and begin again from the first byte, now; `safest`: reading the source in its safest mode. */
  | { readonly do: "restart"; readonly safest: boolean }
  /** Set aside. */
  | { readonly do: "park"; readonly fault: string }
  /** The file is not what was found: drop the version, list again. */
  | { readonly do: "relist" }
  /** It is nothing for this target: not sent, and not waited for. */
  | { readonly do: "leave" }
  | { readonly do: "nothing" };

export interface Tried {
  /** Tries so far without one byte of progress. */
  readonly tries: number;
  /** How often this was begun again from the first byte. */
  readonly restarts: number;
  /** How long the daemon has been running: power may last a minute. */
  readonly upMs: number;
}

/** So many files that fail at a device are told one by one: where it lets an account write or delete nothing it would be all of them. */
export const toldFailed = 3;

const firstMs = 1000;
const capMs = 300_000;
const earlyCapMs = 30_000;
const earlyMs = 600_000;
const unknownTries = 20;
export const fullMs = 10_000;
/** What waits at a full target has its turn within that, unless more than `fullTurns` wait, or their tries take long. */
const fullCapMs = 3_600_000;
export const fullTurns = fullCapMs / fullMs;
/** Once it took something, all have a turn within that. */
export const fullSoonMs = 600_000;
const refusedMs = 60_000;
const refusedCapMs = 600_000;
const costlyRefusedCapMs = 3_600_000;
const madeWayCapMs = 6 * 3_600_000;

/** `random`: 0 ≤ x < 1; full jitter over the upper half, so that the least wait still grows. */
export function backoffMs(tries: number, upMs: number, random: number): number {
  const cap = upMs < earlyMs ? earlyCapMs : capMs;
  const wait = Math.min(cap, firstMs * 2 ** Math.min(tries, 20));
  return wait / 2 + (wait / 2) * random;
}

/** Again, when a target that works otherwise refused this one file (rights, of a directory say): nobody says when that changes. */
export function refusedMsAfter(tries: number): number {
  return Math.min(refusedCapMs, refusedMs * 2 ** Math.min(tries, 10));
}

/** Again, when a full target had no room for it a second time, `waiting`: as one of so many. It may be this one that is too large: in turn, each full time another is tried, the sooner again the less often it was in vain. `tookMs`: how long such a try takes. */
export function fullMsAfter(tries: number, waiting: number, tookMs: number): number {
  const turns = Math.min(waiting, 2 ** Math.min(tries + 1, 10));
  return turns <= 1 ? fullMs : Math.min(fullCapMs, turns * (fullMs + tookMs));
}

/** The same of what costs the whole file each time, as a single shot does. It begins beyond the time for which a target that denied something is left alone: another file goes first. */
export function costlyRefusedMsAfter(tries: number): number {
  return Math.min(costlyRefusedCapMs, 2 * refusedMs * 2 ** Math.min(tries, 10));
}

/** Again, when what was sent of it to a full target made way there, so many `times` before: ever more seldom, as all that has room goes again. Not at once: it would take what becomes free for another. */
export function madeWayMsAfter(times: number): number {
  return times === 0 ? refusedMs : Math.min(madeWayCapMs, refusedCapMs * 4 ** Math.min(times - 1, 10));
}

export function actionFor(error: unknown, tried: Tried, random: number): Action {
  const again: Action = { do: "again", afterMs: backoffMs(tried.tries, tried.upMs, random) };
  if (!isFault(error)) return tried.tries + 1 >= unknownTries ? { do: "park", fault: "unknown" } : again;
  const kind: FaultKind = error.kind;
  switch (kind) {
    case "offline":
    case "denied":
    case "config":
      return { do: "wait" };
    case "transient":
    case "throttled":
      return error.retryAfterMs === undefined ? again : { do: "again", afterMs: error.retryAfterMs };
    case "full":
      return { do: "again", afterMs: fullMs };
    case "conflict":
      return tried.restarts === 0 ? { do: "restart", safest: false } : { do: "park", fault: kind };
    case "mismatch":
      return tried.restarts === 0 ? { do: "restart", safest: true } : { do: "park", fault: kind };
    case "changed":
    case "missing":
      return { do: "relist" };
    case "indoubt":
      return error.retryAfterMs === undefined ? { do: "park", fault: kind } : { do: "again", afterMs: error.retryAfterMs };
    case "rejected":
    case "unreadable":
      return { do: "park", fault: kind };
    case "unwanted":
      return { do: "leave" };
    case "aborted":
      return { do: "nothing" };
  }
}

/** Whether a fault counts as a try (the table's last column). */
export function countsAsTry(error: unknown): boolean {
  return !isFault(error) || error.kind === "transient" || error.kind === "conflict" || error.kind === "mismatch";
}

/** Of what was set aside: when it is tried again by itself, and what a person types to try it now. Goes on behind the reason. */
export function againText(fault: string, source: string, targets: readonly string[], what: string): string {
  const alone =
    fault === "unknown" || fault === "denied"
      ? `; it is tried again daily, and when ${[...targets, source].join(" or ")} attaches`
      : fault === "unreadable"
        ? `; it is tried again daily, and when ${source} is plugged in anew`
        : "";
  return `${alone}; to try it now: filesync retry ${what}`;
}

/** What a person reads of an error. Errors that no rule names keep their first line. */
export function reasonOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.split("\n", 1)[0] ?? text;
}
