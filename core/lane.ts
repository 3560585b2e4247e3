/**
 * A lane: one configured device as core sees it. It joins what the plugin says of presence with what is learned from work (two failures
 * in a row and the device is detached; a probe brings it back), counts what runs on it, and holds its rate.
 *
 * Nothing durable is decided here. `attached$` is the present state on subscribe, then each edge.
 */
import type { Subscription } from "rxjs";
import { BehaviorSubject, type Observable, Subject } from "./rxjs.js";
import type { Budget } from "./budget.js";
import type { DeviceConfig } from "./config.js";
import { abortedFault, Fault, isFault, throwIfAborted } from "./errors.js";
import type { Events } from "./events.js";
import type { Gate } from "./gate.js";
import type { Clock, Device, Presence, Service, TargetFeatures } from "./plugin.js";
import { backoffMs, reasonOf } from "./retry.js";
import { withinMs, withSignals } from "./signals.js";
import { Throttle } from "./throttle.js";
import type { Uptime } from "./uptime.js";
import type { Held } from "./when.js";

/** `over` ends the probing, by `again`. */
interface Down {
  reason: string;
  readonly over: AbortController;
  readonly again: (signal: AbortSignal) => Promise<void>;
}

export interface LaneState {
  readonly attached: boolean;
  readonly reason?: string;
  readonly epoch?: string;
  /** Wall time of the last edge. */
  readonly sinceMs: number;
}

/** Until it was attached once, a device that is away is told of only after this: at a start each is away for a moment. */
const meetingMs = 2000;
/** A longer timer of node fires at once. */
const longestTimerMs = 3_600_000;
/** After a target had no space. */
const tightMs = 600_000;
const usableMs = 15_000;
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
  /** As its plugin told it last, while a service that could not be started stands as detached. */
  #told: Presence | undefined;
  /** What was learned from work against it. */
  #down: Down | undefined;
  #failures = 0;
  /** The last work against it went well: more of it may be begun at once. */
  proven = false;
  /** It answered something in this run. */
  #answered = false;
  /** It was attached once in this run. */
  #met = false;
  #telling: NodeJS.Timeout | undefined;
  /** Tells that it is away, where that is not told yet. */
  #untold: (() => void) | undefined;
  #busy = 0;
  #guests = 0;
  /** Of them those who do not wait any more. */
  #guestsIn = 0;
  readonly #hosted = new Set<Promise<unknown>>();
  readonly #closing = new AbortController();
  /** People who wait for a slot as source: a pull makes way. */
  #hurried = 0;
  readonly #waiting: (() => void)[] = [];
  #subscription: Subscription | undefined;
  #closed = false;
  #probing: Promise<void> = Promise.resolve();
  #pausedUntilMs = 0;
  #tightUntilMs = 0;
  /** So many files more, and it is not short of room. */
  #tightFor = 0;
  #stopped: string | undefined;
  /** Files that failed there, each for the first time, since it took one. */
  #failed = 0;
  /** How often it asked to wait since it took a file. */
  #putOff = 0;
  readonly #growing = new Set<string>();
  #resuming: NodeJS.Timeout | undefined;

  /** Throws "config". */
  constructor(
    readonly config: DeviceConfig,
    readonly device: Device,
    readonly clock: Clock,
    readonly events: Events,
    readonly random: () => number,
    readonly limits: { readonly gate?: Gate; readonly budget?: Budget; readonly uptime?: Uptime } = {},
  ) {
    expectWhole(device, config);
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

  /** The device itself is there; work may fail all the same, as where its root is missing: then it is not `attached`. */
  get present(): boolean {
    return this.#presence.state === "attached";
  }

  /** The first look at it has no answer yet. */
  get unseen(): boolean {
    return this.#presence.unseen === true;
  }

  /** It counts as attached, and nobody has asked it yet. */
  get unasked(): boolean {
    return this.attached && this.#presence.unasked === true && !this.#answered;
  }

  /** Where what is sent to it has conditions or a budget. */
  get gate(): Gate | undefined {
    return this.limits.gate;
  }

  get budget(): Budget | undefined {
    return this.limits.budget;
  }

  /** Where what is sent to it goes in one piece. */
  get uptime(): Uptime | undefined {
    return this.limits.uptime;
  }

  /** Why it takes no files, though it may be there. */
  get held(): Held | undefined {
    return this.gate?.held;
  }

  /** It is there, and takes files now. */
  get takes(): boolean {
    return this.attached && this.gate?.barred === undefined;
  }

  start(): void {
    // That it errors is a defect of the plugin, and costs only its own device.
    this.#subscription = this.device.presence$.subscribe({
      next: (presence) => {
        this.#told = undefined;
        this.#see(presence);
      },
      error: (error: unknown) => {
        this.#told = undefined;
        this.#see({ state: "detached", reason: `its plugin cannot tell any more whether it is there: ${reasonOf(error)}` });
      },
    });
  }

  /** A service could not be started: why. Until it is served, or tells of itself. */
  notServed(reason: string): void {
    this.#told ??= this.#presence;
    this.#see({ state: "detached", reason: `it is not served: ${reason}` });
  }

  served(): void {
    const told = this.#told;
    this.#told = undefined;
    if (told !== undefined) this.#see(told);
  }

  #see(presence: Presence): void {
    const before = this.#presence;
    this.#presence = presence;
    const edge = presence.state === "attached" && (before.state !== "attached" || before.epoch !== presence.epoch);
    // The plugin sees it: what was learned from work is out of date.
    if (edge) this.#tightUntilMs = 0;
    if (edge && this.#down !== undefined) this.#up();
    this.#update(edge);
  }

  /** The media that are in now; [""] where they cannot be changed. */
  get media(): readonly string[] {
    return this.#presence.media ?? [""];
  }

  /** Whether files of this medium can be had now. */
  holds(medium: string): boolean {
    return this.attached && this.media.includes(medium);
  }

  /** What else is plugged in and is not used, with the reason. */
  get unused(): string | undefined {
    return this.attached ? this.#presence.unused : undefined;
  }

  /** It may be taken out. */
  get safe(): boolean {
    return this.attached && this.#presence.safe === true;
  }

  /** How many more files may be open. `role` asks for the device's own bound. */
  slots(role: "source" | "target"): number {
    if (role === "target" && this.clock.monotonicMs() < this.#pausedUntilMs) return 0;
    return this.#own(role) - (role === "target" ? this.#guests : 0);
  }

  #own(role: "source" | "target"): number {
    const own = this.device[role]?.features.concurrency ?? 1;
    return Math.min(own, this.config.concurrency ?? own);
  }

  /** What it takes beside so many, as `features.pipeline`, while it is known to be well. */
  get pipeline(): TargetFeatures["pipeline"] {
    return this.proven && this.slots("target") > 1 ? this.device.target?.features.pipeline : undefined;
  }

  /** It asked to wait, or has no space: nothing is sent to it for so long, or until it attaches anew. `why`: said until it takes a file after that. */
  pauseTarget(ms: number, why?: string): void {
    this.#stopped = why;
    this.#pausedUntilMs = Math.max(this.#pausedUntilMs, this.clock.monotonicMs() + ms);
    clearTimeout(this.#resuming);
    if (!this.#closed) this.#resuming = setTimeout(() => this.wake$.next(), Math.min(ms + 1, longestTimerMs));
  }

  /** It has no space: until it has taken as many as go at once, or for a while, files are sent to it one by one, as each that is begun takes the room of others. */
  noteFull(): void {
    if (this.device.target?.features.resume !== true) return;
    this.#tightUntilMs = this.clock.monotonicMs() + tightMs;
    this.#tightFor = this.#own("target");
  }

  get isTight(): boolean {
    return this.#tightFor > 0 && this.clock.monotonicMs() < this.#tightUntilMs;
  }

  /** It took a file. */
  noteTaken(): void {
    // What was on its way when it asked for a pause says nothing of that.
    if (this.pausedMs === 0) this.#stopped = undefined;
    this.#failed = 0;
    this.#putOff = 0;
    this.#tightFor -= 1;
  }

  /** It asked to wait; before `pauseTarget`. Of several that were on their way that counts once. */
  notePutOff(): void {
    if (this.pausedMs === 0) this.#putOff += 1;
  }

  /** How often in a row it asked to wait, since it took a file or attached. */
  get putOff(): number {
    return this.#putOff;
  }

  /** A file failed there for the first time. Returns how many in a row that are now. */
  noteFailed(): number {
    return ++this.#failed;
  }

  /** What it said itself when it took no more, until it takes a file again. */
  get stopped(): string | undefined {
    return this.#stopped;
  }

  /** Why nothing is sent to it, though it may be there: a condition, a budget, or what it said itself when it took no more. */
  get idleReason(): string | undefined {
    return this.held?.reason ?? this.#stopped;
  }

  /** A person says that it is time: a pause that it asked for is over. */
  resumeTarget(): void {
    if (this.pausedMs === 0) return;
    this.#pausedUntilMs = 0;
    this.wake$.next();
  }

  /** Takes one of the places for uploads away from deliveries: `enter` says whether it is free beside so many that are still sent; `leave` gives it back. */
  invite(): { readonly enter: (sending: number) => boolean; readonly leave: () => void } {
    this.#guests += 1;
    let isIn = false;
    return {
      enter: (sending) => {
        // Who waits too is in nobody's way.
        if (sending + this.#guestsIn >= Math.max(1, this.#own("target"))) return false;
        this.#guestsIn += 1;
        return (isIn = true);
      },
      leave: () => {
        this.#guests -= 1;
        if (isIn) this.#guestsIn -= 1;
        this.wake$.next();
      },
    };
  }

  /** Counts a file that is open on the source; returns what gives the slot back. Only when `free`. */
  occupy(): () => void {
    this.#busy += 1;
    return this.#leaver();
  }

  /** A slot that is given back goes to who waits for it without being free in between. */
  #leaver(): () => void {
    let given = false;
    return () => {
      if (given) return;
      given = true;
      const next = this.#waiting.shift();
      if (next !== undefined) {
        next();
        return;
      }
      const full = !this.free;
      this.#busy -= 1;
      // Nobody was told to wait while others were free; that nothing is open any more is waited for, too.
      if (full || this.#busy === 0) this.wake$.next();
    };
  }

  /** Waits for a slot as source, before any pull that begins later; `hurry`: one that runs makes way. Returns what gives it back. */
  async borrow(signal: AbortSignal, hurry = false): Promise<() => void> {
    throwIfAborted(signal);
    if (this.free) return this.occupy();
    if (hurry) this.#hurried += 1;
    const slot = this.#queue(signal);
    this.wake$.next();
    return slot.finally(() => (this.#hurried -= hurry ? 1 : 0));
  }

  /** Somebody waits for a slot as source. */
  get awaited(): boolean {
    return this.#waiting.length > 0;
  }

  get hurried(): boolean {
    return this.#hurried > 0;
  }

  async #queue(signal: AbortSignal): Promise<() => void> {
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
    return this.#leaver();
  }

  /** Files that are open on it as source. */
  get busy(): number {
    return this.#busy;
  }

  get free(): boolean {
    return this.#waiting.length === 0 && this.#busy < this.slots("source");
  }

  /** Whether the device itself can be used now, `toWrite`: also to send to, as far as it can tell. A probe says so. */
  async usable(signal: AbortSignal, toWrite = false): Promise<boolean> {
    const { device } = this;
    try {
      await withinMs(usableMs, [signal], (within) =>
        toWrite && device.probeTarget !== undefined ? device.probeTarget(within) : device.probe(within),
      );
      return true;
    } catch (error) {
      // Whatever is wrong with it: the caller has a fault of its own that says more.
      this.events.say("debug", "probe", `${this.name}: ${reasonOf(error)}`, { device: this.name });
      return false;
    }
  }

  /** Work went well: whatever was learned against the device is void. */
  noteSuccess(): void {
    this.#failures = 0;
    this.#answered = true;
    this.proven = true;
  }

  /** It took bytes, or told something. */
  noteAnswer(): void {
    this.#answered = true;
  }

  /** Work failed. "offline" twice in a row detaches; "denied" and "config" at once. `again` tells, where it is given, whether it would go well now. */
  noteFault(error: unknown, again?: Down["again"]): void {
    if (!isFault(error)) return;
    this.proven = false;
    if (error.kind !== "offline" && error.kind !== "aborted") this.#answered = true;
    if (error.kind === "offline") {
      if (!this.attached) return;
      this.#failures += 1;
      if (this.#failures >= 2) this.#goDown(reasonOf(error), false);
    } else if (error.kind === "denied" || error.kind === "config") this.#goDown(reasonOf(error), true, again);
  }

  /** A file was longer than when it was found, with nothing to prove that it is still the same: it is found anew. */
  noteGrown(path: string): void {
    this.#growing.add(path);
  }

  /** A file was as long in the end as when it was found. */
  noteWhole(path: string): void {
    this.#growing.delete(path);
  }

  /** It was longer when it was read last, since the device attached. */
  hasGrown(path: string): boolean {
    return this.#growing.has(path);
  }

  /**
   * It was found anew for that, and is longer again before it is read: it grows all the time, and is read as far as it was found. Only
   * where files count as complete at once (`settle` 0): elsewhere it settles before it is found.
   */
  keepsGrowing(path: string): boolean {
    return this.config.settleMs === 0 && this.hasGrown(path);
  }

  /** Work that no worker does (by hand, verify). It ends before the device is closed. */
  async host<T>(signal: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const working = withSignals([signal, this.#closing.signal], work);
    this.#hosted.add(working);
    try {
      return await working;
    } finally {
      this.#hosted.delete(working);
    }
  }

  /** A person says that it may work again: it is tried now. Throws the Fault that says why it does not. */
  async lookNow(signal: AbortSignal): Promise<void> {
    await withinMs(usableMs, [signal], (within) => this.device.probe(within));
    this.#answered = true;
    if (this.#down === undefined || this.#closed) return;
    this.#up();
    this.#update(true);
  }

  /** How long nothing is sent to it still, because it asked for that or has no space; 0 when it takes bytes. */
  get pausedMs(): number {
    return Math.max(0, this.#pausedUntilMs - this.clock.monotonicMs());
  }

  /** What is to be told a moment after the start is told now: a run that ends by then has no other moment. */
  tellAway(): void {
    clearTimeout(this.#telling);
    const tell = this.#untold;
    this.#untold = undefined;
    tell?.();
  }

  /** Stops watching, then closes the device. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#down?.over.abort();
    clearTimeout(this.#telling);
    clearTimeout(this.#resuming);
    this.#subscription?.unsubscribe();
    this.#closing.abort(new Fault("offline", "the device was closed meanwhile"));
    await Promise.allSettled([this.#probing, ...this.#hosted, this.budget?.close()]);
    await this.device.close();
  }

  #goDown(reason: string, slow: boolean, again: Down["again"] = (signal) => this.device.probe(signal)): void {
    if (this.#down !== undefined || this.#closed) return;
    const down = { reason, over: new AbortController(), again };
    this.#down = down;
    this.#update(false);
    const before = this.#probing;
    this.#probing = this.#probeUntilUp(down, slow).then(() => before);
  }

  async #probeUntilUp(down: Down, slow: boolean): Promise<void> {
    const { signal } = down.over;
    for (let tries = 0; !signal.aborted; tries++) {
      try {
        await this.clock.sleep(slow ? deniedProbeMs : backoffMs(tries, this.clock.monotonicMs(), this.random()), signal);
        await down.again(signal);
        throwIfAborted(signal);
        this.#up();
        this.#update(true);
      } catch (error) {
        if (signal.aborted) return;
        down.reason = reasonOf(error);
        slow = isFault(error, "denied", "config");
        this.#update(false);
      }
    }
  }

  #up(): void {
    this.#answered = true;
    this.#down?.over.abort();
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
      this.#untold = undefined;
      if (attached) {
        this.#met = true;
        this.events.say("info", "attached", `${this.name}: attached`, { device: this.name });
      } else {
        const tell = () => this.events.say("warn", "detached", `${this.name}: ${reason ?? "detached"}`, { device: this.name, reason });
        if (this.#met) tell();
        else {
          this.#untold = tell;
          this.#telling = setTimeout(() => this.tellAway(), meetingMs);
        }
      }
    }
    if (attached && (edge || changed)) {
      this.#pausedUntilMs = 0;
      this.#stopped = undefined;
      this.#failed = 0;
      this.#putOff = 0;
      this.#growing.clear();
      this.edge$.next();
      this.wake$.next();
    }
  }
}

/** A plugin from outside may leave out what nothing works without: told here, that costs only its own device. Throws "config". */
function expectWhole(device: Device, { kind, type, plugin, options }: DeviceConfig): void {
  const withheld = plugin.withheld?.(options) ?? {};
  const given: Partial<Service> = device;
  const methods = (["probe", "close", ...(kind === "service" ? ["start" as const] : [])] as const).filter(
    (name) => typeof given[name] !== "function",
  );
  const sides = (["source", "target"] as const).flatMap((side) => {
    const part: { readonly features?: unknown } | undefined = given[side];
    if (part !== undefined) return part.features === undefined ? [`${side}.features`] : [];
    return plugin.roles.includes(side) && withheld[side] === undefined ? [side] : [];
  });
  const lacks = [...(given.presence$ === undefined ? ["presence$"] : []), ...methods, ...sides];
  if (lacks.length > 0) throw new Fault("config", `what the plugin "${type}" makes has no ${lacks.join(", no ")}`);
}
