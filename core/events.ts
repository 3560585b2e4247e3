/**
 * The one stream of events. The log, `status`, the web page and the metrics are readers of it; nothing durable depends on it.
 * An event is a fact that has happened, with a line for a person and fields for a program.
 */
import { Subject, type Observable } from "rxjs";
import type { Level } from "./plugin.js";

export interface Event {
  readonly level: Level;
  /** A stable name for programs: "found", "pulled", "delivered", "parked", "attached", "detached", … */
  readonly what: string;
  /** One line for a person; names the device and the path where there are any. */
  readonly message: string;
  readonly facts?: Readonly<Record<string, unknown>>;
}

export class Events {
  readonly #events = new Subject<Event>();
  readonly all$: Observable<Event> = this.#events.asObservable();

  say(level: Level, what: string, message: string, facts?: Readonly<Record<string, unknown>>): void {
    this.#events.next(facts === undefined ? { level, what, message } : { level, what, message, facts });
  }
}
