/**
 * The autopilot at the other end: which system it is, whether it is armed, when it booted; and from that whether its files may be asked for.
 *
 * Attached only while its heartbeat comes, and, unless told to go on, only while that says disarmed: what is not known counts as armed; and not
 * while a ground station is let at it (`neighbours.ts`). Each reason for being detached is one that a person can act on. A new boot or a new wire is a new epoch; whoever works under the old one is
 * told by its signal.
 */
import { randomBytes } from "node:crypto";
import { BehaviorSubject, Subject, type Observable } from "../../core/rxjs.js";
import { Fault, type FaultKind } from "../../core/errors.js";
import type { PluginContext, Presence } from "../../core/plugin.js";
import type { Frame } from "../../mavlink/frame.js";
import * as m from "../../mavlink/messages.js";
import { LoggingWatch } from "./logging.js";
import type { Neighbours } from "./neighbours.js";
import { silence, type Link, type LinkState } from "./link.js";

/** One stay of the autopilot: from attached to detached. */
export interface Attachment {
  readonly systemId: number;
  /** Given, with the Fault that says why, when it ends. */
  readonly signal: AbortSignal;
}

export interface PeerOptions {
  /** For people: "/dev/ttyACM0". */
  readonly place: string;
  /** The one to talk to; else the first that is heard. */
  readonly systemId: number | undefined;
  readonly pauseWhenArmed: boolean;
  /** Whether somebody else is to be let at it. */
  readonly neighbours: Neighbours;
}

const LOOK_MS = 200;
/** So long after two were heard under one id nothing is asked. */
const MIXED_MS = 10_000;
/** Heartbeats come every second; a few may be lost on a radio. */
const HEARTBEAT_LOST_MS = 3800;
/** How long a fresh wire is given before its silence is a reason. */
const FIRST_LOOK_MS = 3000;
/** After a disarm the autopilot closes its log. */
const DISARM_SETTLE_MS = 3000;
/** Where an armed autopilot is read, what is to be written waits, and looks again so often. */
const ARMED_LOOK_MS = 2000;
/** Time may seem to go back a little when frames overtake each other. */
const REBOOT_STEP_MS = 2500;
const PLAUSIBLE_FROM_MS = Date.UTC(2020, 0, 1);
const PLAUSIBLE_TO_MS = Date.UTC(2100, 0, 1);
const VERSION_TRIES = 4;
/** In the memory: the board that was read last. */
const BOARD = "board";

export class Peer {
  readonly presence$: BehaviorSubject<Presence>;
  readonly changes$: Observable<void>;
  readonly neighbours: Neighbours;
  readonly logging: LoggingWatch;
  /** Undefined until a heartbeat said so. */
  armed: boolean | undefined;
  /** MAV_AUTOPILOT of its heartbeat. */
  autopilot: number | undefined;
  /** Major, minor and patch of its firmware; undefined until it answered. */
  version: readonly [number, number, number] | undefined;
  /** Restarts that were seen. */
  boots = 0;

  readonly #link: Link;
  readonly #options: PeerOptions;
  readonly #context: PluginContext;
  readonly #changes = new Subject<void>();
  readonly #epochBase = randomBytes(4).toString("hex");
  #epoch = 0;
  #systemId: number | undefined;
  #heartbeatMs = -Infinity;
  #frameMs = -Infinity;
  #disarmedMs = -Infinity;
  #bootMs: number | undefined;
  /** By our clock: since when the autopilot runs, when it last said so, and since when the one ran that it was before it restarted. */
  #bootedMs = -Infinity;
  #bootSeenMs = -Infinity;
  #restarted: number | undefined;
  #attachment: { readonly attachment: Attachment; readonly end: AbortController } | undefined;
  #ground: AbortController | undefined;
  #versionAsked = { tries: 0, atMs: 0 };
  #toldTime = false;
  /** When two kinds of autopilot were last heard under one system id. */
  #mixedMs = -Infinity;
  readonly #toldOthers = new Set<number>();
  #timer: NodeJS.Timeout | undefined;

  constructor(link: Link, options: PeerOptions, context: PluginContext) {
    this.#link = link;
    this.#options = options;
    this.#context = context;
    this.presence$ = new BehaviorSubject<Presence>({ state: "detached", reason: `${options.place} is not opened yet` });
    this.changes$ = this.#changes.asObservable();
    this.neighbours = options.neighbours;
    this.logging = new LoggingWatch(context.clock, (level, message) => context.say(level, message));
    this.neighbours.leaves = () => this.#look();
  }

  start(): void {
    this.#timer ??= setInterval(() => this.#look(), LOOK_MS);
  }

  stop(fault: Fault): void {
    clearInterval(this.#timer);
    this.#detach(fault.message, fault.kind);
    this.presence$.complete();
    this.#changes.complete();
  }

  /** The present stay. Throws Fault "offline" (or "denied": the port) with the reason where there is none. */
  attachment(): Attachment {
    if (this.#attachment !== undefined) return this.#attachment.attachment;
    const { open, kind } = this.#link.state;
    throw new Fault(open ? "offline" : kind, this.presence$.value.reason ?? "the autopilot is not there");
  }

  /**
   * Given, with the Fault that says why, when the autopilot is no longer surely disarmed. Throws that Fault where it is not now: nothing is
   * written then, also where reading goes on.
   */
  ground(): AbortSignal {
    const fault = this.#aloft();
    if (fault !== undefined) throw fault;
    return (this.#ground ??= new AbortController()).signal;
  }

  #aloft(): Fault | undefined {
    const again = { retryAfterMs: ARMED_LOOK_MS };
    if (this.armed !== false) return new Fault("throttled", "the vehicle is armed: nothing is written to it until it is disarmed", again);
    if (performance.now() - this.#disarmedMs >= DISARM_SETTLE_MS) return undefined;
    return new Fault("throttled", "the vehicle has just been disarmed, its log is being closed", again);
  }

  #leaveGround(): void {
    const fault = this.#aloft();
    if (fault === undefined) return;
    this.#ground?.abort(fault);
    this.#ground = undefined;
  }

  /** Its heartbeat comes, whether its files may be asked for or not. */
  get present(): boolean {
    return this.#link.state.open && !this.#silent(performance.now());
  }

  /** True for a frame of the autopilot that we talk to. */
  isFrom(frame: Frame): boolean {
    return frame.systemId === this.#systemId && frame.componentId === m.COMPONENT_AUTOPILOT;
  }

  /** Any frame of it came. */
  heard(): void {
    this.#frameMs = performance.now();
  }

  linkState(state: LinkState): void {
    this.#heartbeatMs = this.#disarmedMs = -Infinity;
    this.armed = undefined;
    if (state.open) this.neighbours.opened();
    if (!state.open) {
      this.#detach(state.reason, state.kind);
      // Another may be at its end when it is opened again.
      this.version = undefined;
    } else this.#look();
    this.#leaveGround();
  }

  frame(frame: Frame): void {
    if (frame.messageId === m.HEARTBEAT) this.#heartbeat(frame);
    else if (!this.isFrom(frame)) return;
    else if (frame.messageId === m.SYSTEM_TIME) this.#time(m.decodeSystemTime(frame.payload));
    else if (frame.messageId === m.SYS_STATUS) this.logging.status(m.decodeSysStatus(frame.payload));
    else if (frame.messageId === m.AUTOPILOT_VERSION) this.#versionIs(m.decodeAutopilotVersion(frame.payload));
  }

  #heartbeat(frame: Frame): void {
    if (frame.componentId !== m.COMPONENT_AUTOPILOT) return;
    const beat = m.decodeHeartbeat(frame.payload);
    if (beat.autopilot === m.AUTOPILOT_INVALID || beat.type === m.TYPE_GCS || beat.type === m.TYPE_ONBOARD_CONTROLLER) return;
    const now = performance.now();
    if (frame.systemId !== this.#systemId) {
      if (!this.#choose(frame.systemId)) {
        this.#tellOther(frame.systemId);
        return;
      }
    } else if (beat.autopilot !== this.autopilot && now - this.#heartbeatMs < HEARTBEAT_LOST_MS) this.#mixedMs = now;
    this.#heartbeatMs = now;
    const armed = (beat.baseMode & m.MODE_ARMED) !== 0;
    if (this.armed === true && !armed) {
      this.#disarmedMs = now;
      if (!this.#options.pauseWhenArmed) this.#changes.next();
    }
    this.armed = armed;
    this.logging.armed(armed);
    this.autopilot = beat.autopilot;
    // Where arming ends the stay, that is the reason that is told.
    this.#look();
    this.#leaveGround();
  }

  #tellOther(systemId: number): void {
    if (this.#options.systemId !== undefined || this.#toldOthers.has(systemId)) return;
    this.#toldOthers.add(systemId);
    this.#context.say(
      "warn",
      `two autopilots are on ${this.#options.place}, systems ${String(this.#systemId)} and ${systemId}: system ${String(this.#systemId)} is read; "systemId" says which`,
    );
  }

  /** Whether this system is, from now on, the one that we talk to. */
  #choose(systemId: number): boolean {
    if (this.#options.systemId !== undefined && this.#options.systemId !== systemId) return false;
    // On a bad radio ours is waited for as long as where it is alone.
    if (this.#systemId !== undefined && !this.#silent(performance.now())) return false;
    // What is asked still is asked of the one before, of which nobody knows any more whether it is armed.
    if (this.#attachment !== undefined)
      this.#detach(`no heartbeat of system ${String(this.#systemId)} on ${this.#options.place}`, "offline");
    this.#systemId = systemId;
    this.#bootMs = this.#restarted = undefined;
    this.version = undefined;
    this.logging.reset();
    this.#link.systemId = systemId;
    return true;
  }

  #time({ unixUsec, bootMs }: m.SystemTime): void {
    const now = performance.now();
    const from = now - bootMs;
    // Whoever goes on counting from before a restart has not restarted: two count, as long as both are heard.
    const older = this.#restarted !== undefined && Math.abs(from - this.#restarted) < REBOOT_STEP_MS;
    if (older && now - this.#bootSeenMs < MIXED_MS) {
      this.#mixedMs = now;
      this.#look();
      return;
    }
    if (older) this.#restarted = undefined;
    this.#bootSeenMs = now;
    if (this.#bootMs !== undefined && bootMs < this.#bootMs - REBOOT_STEP_MS) {
      this.#restarted = this.#bootedMs;
      this.#bootedMs = from;
      this.#bootMs = bootMs;
      this.boots += 1;
      this.#detach("the autopilot restarted", "offline");
      // It may run another firmware now.
      this.version = undefined;
      this.#look();
    } else {
      this.#bootMs = Math.max(bootMs, this.#bootMs ?? 0);
      this.#bootedMs = from;
    }
    const wallMs = Number(unixUsec / 1000n);
    if (this.#toldTime || wallMs < PLAUSIBLE_FROM_MS || wallMs > PLAUSIBLE_TO_MS) return;
    this.#toldTime = true;
    this.#context.tellTime(wallMs);
  }

  #versionIs({ flightSwVersion: packed, uid, uid2 }: m.AutopilotVersion): void {
    if (this.version !== undefined) return;
    this.version = [packed >>> 24, (packed >>> 16) & 0xff, (packed >>> 8) & 0xff];
    this.#context.say("info", `the autopilot runs firmware ${this.version.join(".")}`);
    this.#boardIs(/[^0]/.test(uid2) ? uid2 : uid === 0n ? undefined : uid.toString(16));
  }

  /** `board`: what no two have alike; undefined where it does not tell. */
  #boardIs(board: string | undefined): void {
    const { memory, name } = this.#context;
    const before = memory.get(BOARD);
    if (board === undefined || board === before) return;
    // What could not be kept is told again.
    memory.set(BOARD, board).catch(() => undefined);
    if (before === undefined) return;
    this.#context.say(
      "warn",
      `this is another autopilot than before: a log of it that has name, size and time of one that is known is taken for that, and not fetched; if its card is another too, give the device another name than ${name} in the configuration, and all its logs are fetched`,
    );
  }

  /** Looks at what is known, and says when that changes something. */
  #look(): void {
    this.#context.tellArmed(this.present ? this.armed : undefined);
    const reason = this.#reason();
    if (reason !== undefined) {
      this.#detach(reason, "offline");
      return;
    }
    if (this.#attachment === undefined) this.#attach();
    this.#askVersion();
  }

  /** Why the autopilot's files may not be asked for now; undefined when they may. */
  #reason(): string | undefined {
    const { place, pauseWhenArmed, systemId } = this.#options;
    if (!this.#link.state.open) return this.presence$.value.reason;
    const now = performance.now();
    if (this.#silent(now)) {
      if (this.#attachment !== undefined) return `no heartbeat on ${place}`;
      // A silent wire is opened anew at times: that is no news.
      if (this.#link.bytes === 0 && this.presence$.value.reason === silence(place)) return silence(place);
      if (now - this.#link.openedMs < FIRST_LOOK_MS) return `waiting for a heartbeat on ${place}`;
      if (this.#link.bytes === 0) return silence(place);
      if (this.#link.frames === 0)
        return `${place} receives bytes but no MAVLink: ${this.#link.isSerial ? "wrong baud rate, or not an autopilot" : "wrong port, or not an autopilot"}`;
      return `no heartbeat of ${systemId === undefined ? "an autopilot" : `system ${systemId}`} on ${place}, though it carries MAVLink`;
    }
    // Their files would be taken for each other's.
    if (now - this.#mixedMs < MIXED_MS)
      return `two autopilots with the system id ${String(this.#systemId)} are on ${place}: give each an id of its own (PX4 MAV_SYS_ID, ArduPilot SYSID_THISMAV), then "systemId" says which is read`;
    if (pauseWhenArmed && this.armed !== false) return "the vehicle is armed";
    if (pauseWhenArmed && now - this.#disarmedMs < DISARM_SETTLE_MS) return "the vehicle has just been disarmed, its log is being closed";
    return this.neighbours.reason;
  }

  /** Heartbeats get lost on a bad radio: while the autopilot's other frames come, two more are waited for. */
  #silent(now: number): boolean {
    const ageMs = now - this.#heartbeatMs;
    return ageMs > HEARTBEAT_LOST_MS && (ageMs > HEARTBEAT_LOST_MS + 2000 || now - this.#frameMs > 1000);
  }

  #attach(): void {
    const end = new AbortController();
    this.#epoch += 1;
    this.#versionAsked = { tries: 0, atMs: 0 };
    this.#toldTime = false;
    this.#attachment = { attachment: { systemId: this.#systemId ?? 1, signal: end.signal }, end };
    this.presence$.next({ state: "attached", epoch: `${this.#epochBase}.${this.#epoch}` });
  }

  #detach(reason: string, kind: FaultKind): void {
    const before = this.presence$.value;
    const attachment = this.#attachment;
    this.#attachment = undefined;
    if (before.state === "attached" || before.reason !== reason) this.presence$.next({ state: "detached", reason });
    attachment?.end.abort(new Fault(kind, reason));
  }

  #askVersion(): void {
    const asked = this.#versionAsked;
    if (this.version !== undefined || asked.tries >= VERSION_TRIES || performance.now() - asked.atMs < 1000) return;
    this.#versionAsked = { tries: asked.tries + 1, atMs: performance.now() };
    this.#link.send(m.COMMAND_LONG, m.encodeMessageRequest(this.#systemId ?? 1, m.AUTOPILOT_VERSION));
  }
}
