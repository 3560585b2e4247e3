/**
 * A lane: one configured device as core sees it. It joins what the plugin says of presence with what is learned from work (two failures
 * in a row and the device is detached; a probe brings it back), counts what runs on it, and holds its rate.
 *
 * Nothing durable is decided here. `attached$` is the present state on subscribe, then each edge.
 */
import { BehaviorSubject, type Observable, Subject, type Subscription } from "rxjs";
import type { DeviceConfig } from "./config.js";
import { abortedFault, isFault, throwIfAborted } from "./errors.js";
import type { Events } from "./events.js";
import type { Clock, Device, Presence } from "./plugin.js";
import { backoffMs, reasonOf } from "./retry.js";
import { Throttle } from "./throttle.js";

export interface LaneState {
  readonly attached: boolean;
  readonly reason?: string;
  readonly epoch?: string;
  /** Wall time of the last edge. */
  readonly sinceMs: number;
}

/** Until it was attached once, a device that is away is told of only after this: at a start each is away for a moment. */
const meetingMs = 2000;
/** A person has to act: probe slowly. */
const deniedProbeMs = 60_000;

export class Lane {
  readonly #state: BehaviorSubject<LaneState>;
  readonly state$: Observable<LaneState>;
  /** Emits when work may have become possible: attached, another epoch, a slot that became free. */
  readonly wake$ = new Subject<void>();
  /** Emits on each attachment (an edge, or another epoch): backoff is reset, a source is listed. */
  readonly edge$ = new Subject<void>();
  readonly throttle: Throttle;
  #presence: Presence = { state: "detached", reason: "not looked at yet" };
  #down: { reason: string } | undefined;
  #failures = 0;
  /** It was attached once in this run. */
  #met = false;
  #telling: NodeJS.Timeout | undefined;
  #busy = 0;
  readonly #waiting: (() => void)[] = [];
  #subscription: Subscription | undefined;
  readonly #closing = new AbortController();
  #probing: Promise<void> | undefined;

  constructor(
    readonly config: DeviceConfig,
    readonly device: Device,
    readonly clock: Clock,
    readonly events: Events,
    readonly random: () => number,
  ) {
    this.#state = new BehaviorSubject<LaneState>({ attached: false, reason: "not looked at yet", sinceMs: clock.wallMs() });
    this.state$ = this.#state.asObservable();
    this.throttle = new Throttle(config.maxRate, clock);
  }

  get name(): string {
    return this.config.name;
  }

  get state(): LaneState {
    return this.#state.value;
  }

  get attached(): boolean {
    return this.#state.value.attached;
  }

  start(): void {
    this.#subscription = this.device.presence$.subscribe((presence) => {
      const before = this.#presence;
      this.#presence = presence;
      const edge = presence.state === "attached" && (before.state !== "attached" || before.epoch !== presence.epoch);
      // The plugin sees it: what was learned from work is out of date.
      if (edge && this.#down !== undefined) this.#up();
      this.#update(edge);
    });
  }

  /** How many more files may be open. `role` asks for the device's own bound. */
  slots(role: "source" | "target"): number {
    const own = this.device[role]?.features.concurrency ?? 1;
    return Math.min(own, this.config.concurrency ?? own);
  }

  /** Counts a file that is open on the source; returns what gives the slot back. Only when `free`. */
  occupy(): () => void {
    this.#busy += 1;
    let given = false;
    return () => {
      if (given) return;
      given = true;
      this.#busy -= 1;
      const next = this.#waiting.shift();
      if (next === undefined) this.wake$.next();
      else next();
    };
  }

  /** Waits for a slot as source, before any pull that begins later (a file that goes straight through); returns what gives it back. */
  async borrow(signal: AbortSignal): Promise<() => void> {
    throwIfAborted(signal);
    if (this.free) return this.occupy();
    await new Promise<void>((resolve, reject) => {
      const turn = () => {
        signal.removeEventListener("abort", leave);
        resolve();
      };
      const leave = () => {
        this.#waiting.splice(this.#waiting.indexOf(turn), 1);
        reject(abortedFault(signal));
      };
      this.#waiting.push(turn);
      signal.addEventListener("abort", leave, { once: true });
    });
    return this.occupy();
  }

  get free(): boolean {
    return this.#waiting.length === 0 && this.#busy < this.slots("source");
  }

  /** Work went well: whatever was learned against the device is void. */
  noteSuccess(): void {
    this.#failures = 0;
  }

  /** Work failed. "offline" twice in a row detaches; "denied" and "config" at once. */
  noteFault(error: unknown): void {
    if (!isFault(error)) return;
    if (error.kind === "offline") {
      this.#failures += 1;
      if (this.#failures >= 2) this.#goDown(reasonOf(error), false);
    } else if (error.kind === "denied" || error.kind === "config") this.#goDown(reasonOf(error), true);
  }

  /** Stops watching, then closes the device. */
  async close(): Promise<void> {
    this.#closing.abort();
    clearTimeout(this.#telling);
    this.#subscription?.unsubscribe();
    await this.#probing;
    await this.device.close();
  }

  #goDown(reason: string, slow: boolean): void {
    if (this.#down !== undefined || this.#closing.signal.aborted) return;
    this.#down = { reason };
    this.#update(false);
    this.#probing = this.#probeUntilUp(slow);
  }

  async #probeUntilUp(slow: boolean): Promise<void> {
    const signal = this.#closing.signal;
    for (let tries = 0; this.#isDown(); tries++) {
      try {
        await this.clock.sleep(slow ? deniedProbeMs : backoffMs(tries, this.clock.monotonicMs(), this.random()), signal);
        await this.device.probe(signal);
        this.#up();
        this.#update(true);
      } catch (error) {
        if (signal.aborted) return;
        this.#down = { reason: reasonOf(error) };
        slow = isFault(error, "denied") || isFault(error, "config");
        this.#update(false);
      }
    }
  }

  #isDown(): boolean {
    return this.#down !== undefined;
  }

  #up(): void {
    this.#down = undefined;
    this.#failures = 0;
  }

  #update(edge: boolean): void {
    const attached = this.#presence.state === "attached" && this.#down === undefined;
    const reason = this.#down?.reason ?? this.#presence.reason;
    const before = this.#state.value;
    const changed = before.attached !== attached || (!attached && before.reason !== reason);
    if (changed || edge)
      this.#state.next({
        attached,
        sinceMs: before.attached === attached && !edge ? before.sinceMs : this.clock.wallMs(),
        ...(attached || reason === undefined ? {} : { reason }),
        ...(this.#presence.epoch === undefined ? {} : { epoch: this.#presence.epoch }),
      });
    if (changed) {
      clearTimeout(this.#telling);
      if (attached) {
        this.#met = true;
        this.events.say("info", "attached", `${this.name}: attached`, { device: this.name });
      } else {
        const tell = () => this.events.say("warn", "detached", `${this.name}: ${reason ?? "detached"}`, { device: this.name, reason });
        if (this.#met) tell();
        else this.#telling = setTimeout(tell, meetingMs);
      }
    }
    if (attached && (edge || changed)) {
      this.edge$.next();
      this.wake$.next();
    }
  }
}
