/**
 * The one stream of events. The log, `status`, the web page, the metrics and `onEvent` are readers of it; nothing durable depends on it.
 * An event is a fact that has happened, with a line for a person and fields for a program.
 */
import { Subject, type Observable } from "./rxjs.js";
import type { Level } from "./plugin.js";

/** Every event that there is. Names are a promise to programs: they are only ever added. */
export const eventNames = [
  "again",
  "attached",
  "changed",
  "clock",
  "cloned",
  "compacted",
  "config",
  "delivered",
  "detached",
  "device",
  "expired",
  "foreign",
  "found",
  "given-up",
  "held",
  "hook-dropped",
  "hook-failed",
  "journal-failed",
  "journal-older",
  "journal-reopened",
  "journal-set-aside",
  "left",
  "listed",
  "listing-failed",
  "lost",
  "open",
  "parked",
  "probe",
  "pulled",
  "ready",
  "rebuilt",
  "released",
  "reload",
  "restarted",
  "resumed",
  "service-failed",
  "spliced",
  "spool-damaged",
  "spool-full",
  "start",
  "stopped",
  "sync-anew",
  "sync-aside",
  "sync-failed",
  "sync-stopped",
  "sync-trouble",
  "synced",
  "systemd",
  "trimmed",
  "unreadable",
  "waiting",
] as const;
export type EventName = (typeof eventNames)[number];

export interface Event {
  readonly level: Level;
  readonly what: EventName;
  /** One line for a person; names the device and the path where there are any. */
  readonly message: string;
  readonly facts?: Readonly<Record<string, unknown>>;
}

export class Events {
  readonly #events = new Subject<Event>();
  readonly all$: Observable<Event> = this.#events.asObservable();

  /** How many were said, by level. */
  readonly counts: Record<Level, number> = { debug: 0, info: 0, warn: 0, error: 0 };

  say(level: Level, what: EventName, message: string, facts?: Readonly<Record<string, unknown>>): void {
    this.counts[level] += 1;
    this.#events.next(facts === undefined ? { level, what, message } : { level, what, message, facts });
  }
}

/** One line of JSON, with the time of now. */
export function jsonOf(event: Event): string {
  return JSON.stringify({ time: new Date().toISOString(), ...event });
}
