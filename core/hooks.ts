/**
 * Commands of a person's that are run for events (`onEvent`). They are readers of the stream like the log: none of them slows, stops or ends the
 * daemon. What cannot be run in time is left out, and that is said.
 */
import type { Subscription } from "rxjs";
import { jsonOf, type Event, type EventName, type Events } from "./events.js";
import { runCommand, type RunCommand } from "./program.js";

export interface HookRule {
  /** "*": whatever the log shows. */
  readonly event: "*" | readonly EventName[];
  /** The program, then its arguments. */
  readonly command: readonly string[];
}

export interface HookLimits {
  readonly atOnce: number;
  readonly mostWaiting: number;
  readonly ms: number;
  /** Between TERM and KILL. */
  readonly graceMs: number;
  /** After `hurry`: how long what runs and waits may still take. */
  readonly hurryMs: number;
  readonly run: RunCommand;
}

const usual: HookLimits = { atOnce: 4, mostWaiting: 256, ms: 30_000, graceMs: 5000, hurryMs: 2000, run: runCommand };

/** What is said of hooks runs none: one that fails would run for its own failure. */
const ofHooks: readonly EventName[] = ["hook-failed", "hook-dropped"];
/** The same failure is said again only after this. */
const sameMs = 3_600_000;
const mostFailures = 64;
/** At most so many different failures are said in a minute. */
const saidPerMinute = 6;

interface Call {
  readonly command: readonly string[];
  readonly event: Event;
  /** The event in JSON, with the time when it came. */
  readonly text: string;
}

export class Hooks {
  readonly #limits: HookLimits;
  readonly #subscription: Subscription;
  readonly #waiting: Call[] = [];
  readonly #over = new AbortController();
  #rules: readonly HookRule[];
  #running = 0;
  #overflowed = false;
  #hurrying: NodeJS.Timeout | undefined;
  #idle: (() => void) | undefined;
  /** Failure → when it was said, monotonic. */
  readonly #failures = new Map<string, number>();
  #minuteMs = -Infinity;
  #saidInMinute = 0;
  #unsaid = 0;

  constructor(
    readonly events: Events,
    rules: readonly HookRule[],
    limits: Partial<HookLimits> = {},
  ) {
    this.#limits = { ...usual, ...limits };
    this.#rules = rules;
    this.#subscription = events.all$.subscribe((event) => this.#take(event));
  }

  /** From now on these; what waits still runs as it was. */
  use(rules: readonly HookRule[]): void {
    this.#rules = rules;
  }

  /** A stop was asked for: what does not end soon is ended, and what waits then is left out. All is over 3 s later. */
  hurry(): void {
    this.#hurrying ??= setTimeout(() => {
      const left = this.#waiting.splice(0).length;
      if (left > 0) this.events.say("warn", "hook-dropped", `"onEvent": ${counted(left)} left out: the daemon stops`);
      this.#over.abort();
      this.#look();
    }, this.#limits.hurryMs);
  }

  /** Takes no more events; resolves once what runs and waits has ended. */
  async close(): Promise<void> {
    this.#subscription.unsubscribe();
    if (this.#running > 0 || this.#waiting.length > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
    clearTimeout(this.#hurrying);
  }

  #take(event: Event): void {
    if (ofHooks.includes(event.what) || this.#over.signal.aborted) return;
    const calls = this.#rules.filter((rule) => (rule.event === "*" ? event.level !== "debug" : rule.event.includes(event.what)));
    if (calls.length === 0) return;
    const text = `${jsonOf(event)}\n`;
    for (const { command } of calls) this.#waiting.push({ command, event, text });
    const surplus = this.#waiting.length - this.#limits.mostWaiting;
    if (surplus > 0) {
      this.#waiting.splice(0, surplus);
      if (!this.#overflowed)
        this.events.say(
          "warn",
          "hook-dropped",
          `"onEvent": events come faster than their commands end: more than ${this.#limits.mostWaiting} wait, and the oldest are left out until all have been run`,
        );
      this.#overflowed = true;
    }
    // Not in the turn of whoever says it: beginning a process takes a while.
    setImmediate(() => this.#look());
  }

  #look(): void {
    while (this.#running < this.#limits.atOnce) {
      const call = this.#waiting.shift();
      if (call === undefined) break;
      this.#running += 1;
      void this.#run(call).finally(() => {
        this.#running -= 1;
        this.#look();
      });
    }
    if (this.#waiting.length === 0) this.#overflowed = false;
    if (this.#waiting.length === 0 && this.#running === 0) this.#idle?.();
  }

  async #run({ command: [program = "", ...args], event, text }: Call): Promise<void> {
    const { run, ms, graceMs } = this.#limits;
    const how = { env: variablesOf(event), input: text, graceMs };
    const { code, complaint } = await run(program, args, ms, this.#over.signal, how);
    if (code === 0) return;
    const why = this.#over.signal.aborted ? "it was ended: the daemon stops" : complaint;
    this.#sayFailed(`"onEvent": ${program} failed: ${why}`, event);
  }

  #sayFailed(message: string, event: Event): void {
    const nowMs = performance.now();
    if (nowMs - (this.#failures.get(message) ?? -Infinity) < sameMs) return;
    if (nowMs - this.#minuteMs >= 60_000) {
      this.#minuteMs = nowMs;
      this.#saidInMinute = 0;
    }
    if (this.#saidInMinute >= saidPerMinute) {
      this.#unsaid += 1;
      return;
    }
    this.#saidInMinute += 1;
    this.#failures.delete(message);
    this.#failures.set(message, nowMs);
    for (const oldest of this.#failures.keys()) {
      if (this.#failures.size <= mostFailures) break;
      this.#failures.delete(oldest);
    }
    const more = this.#unsaid === 0 ? "" : ` (${this.#unsaid} more failures were not said)`;
    this.#unsaid = 0;
    this.events.say("warn", "hook-failed", `${message}${more}`, { event: event.what });
  }
}

/** Of a file: where it comes from, its path there, where it goes to. What is not known is empty. */
function variablesOf({ what, message, facts = {} }: Event): Record<string, string> {
  const text = (...keys: string[]) => {
    const known = keys.map((key) => facts[key]).find((value) => value !== undefined);
    return typeof known === "string" ? known : "";
  };
  return {
    FILESYNC_EVENT: what,
    FILESYNC_DEVICE: text("from", "device"),
    FILESYNC_PATH: text("source", "path"),
    FILESYNC_TO: text("to"),
    FILESYNC_MESSAGE: message,
  };
}

function counted(n: number): string {
  return n === 1 ? "one command is" : `${n} commands are`;
}
