/**
 * Who else is on the link, and when the autopilot is left to them: a ground station that has just appeared loads its parameters by the same one
 * file session that a log is read by (PX4: one per link; ArduPilot up to 4.6: one for all links), and is refused while we have it.
 *
 * A ground station is who sends HEARTBEATs of MAV_TYPE_GCS from another system, or moves files with our autopilot; it appears when it has not been
 * heard for 10 s. Then the autopilot is left alone for 20 s, and as long after as files are still moved, but for 60 s at most. The same
 * when our session is refused or lost while somebody is there; refused again right after that, it is 35 s: a PX4 1.18 keeps a session that
 * somebody forgot for 30 s, and asking for it would keep it longer.
 */
import type { Clock } from "../../core/plugin.js";
import type { Frame } from "../../mavlink/frame.js";
import { COMPONENT_AUTOPILOT, decodeHeartbeat, FILE_TRANSFER_PROTOCOL, HEARTBEAT, TYPE_GCS } from "../../mavlink/messages.js";

/** Who we are, and whom we talk to. */
export interface Ourselves {
  readonly systemId: number;
  readonly componentId: number;
  readonly isAutopilot: (frame: Frame) => boolean;
}

const LEAVE_MS = 20_000;
const LEAVE_AGAIN_MS = 35_000;
const LEAVE_MOST_MS = 60_000;
/** Not heard for so long, whoever speaks has newly appeared. */
const GONE_MS = 10_000;
/** Whoever is heard within so long of a wire's opening was there before us: heartbeats come every second. */
const BEFORE_US_MS = 1500;
/** Files are being moved as long as nothing is missing for so long. */
const MOVING_MS = 3000;
/** Refused within so long of coming back: again. */
const AGAIN_MS = 5000;

export class Neighbours {
  /** Called when the autopilot is to be left alone from now on. */
  leaves: () => void = () => undefined;

  readonly #clock: Clock;
  readonly #say: (message: string) => void;
  readonly #alone: boolean;
  /** By system and component, when a ground station was last heard. */
  readonly #stations = new Map<number, number>();
  #movedMs = -Infinity;
  #openedMs = -Infinity;
  #leaving: { readonly reason: string; readonly fromMs: number; readonly untilMs: number } | undefined;
  #cameBackMs = -Infinity;

  /** `alone`: nobody else uses the link, so nobody is looked for. `say` tells people. */
  constructor(clock: Clock, alone: boolean, say: (message: string) => void) {
    this.#clock = clock;
    this.#alone = alone;
    this.#say = say;
  }

  /** Why the autopilot is left alone now; undefined: it is not. */
  get reason(): string | undefined {
    const leaving = this.#leaving;
    if (leaving === undefined) return undefined;
    const now = this.#clock.monotonicMs();
    const moving = now - this.#movedMs < MOVING_MS && now - leaving.fromMs < LEAVE_MOST_MS;
    if (now < leaving.untilMs || moving) return leaving.reason;
    this.#leaving = undefined;
    this.#cameBackMs = now;
    return undefined;
  }

  /** The wire has been opened. */
  opened(): void {
    this.#openedMs = this.#clock.monotonicMs();
  }

  /** Takes every frame that comes. */
  frame(frame: Frame, we: Ourselves): void {
    if (this.#alone) return;
    if (frame.messageId === FILE_TRANSFER_PROTOCOL) this.#moved(frame, we);
    else if (frame.messageId === HEARTBEAT && frame.systemId !== we.systemId) this.#beat(frame);
  }

  /** The autopilot refused us a session, or has closed ours. */
  refused(): void {
    if (this.#present) this.held();
  }

  /** Somebody has the session, and does not give it back. */
  held(): void {
    const again = this.reason === undefined && this.#clock.monotonicMs() - this.#cameBackMs < AGAIN_MS;
    this.#leave("another program uses the autopilot's file session", again ? LEAVE_AGAIN_MS : LEAVE_MS);
  }

  /** Leaves the autopilot alone from now on, unless it is already, or the link is ours. */
  #leave(who: string, ms = LEAVE_MS): void {
    if (this.#alone || this.reason !== undefined) return;
    const now = this.#clock.monotonicMs();
    const reason = `${who}: it is left alone for ${ms / 1000} s`;
    this.#leaving = { reason, fromMs: now, untilMs: now + ms };
    this.#say(reason);
    this.leaves();
  }

  /** Somebody was heard a moment ago. */
  get #present(): boolean {
    const now = this.#clock.monotonicMs();
    return now - this.#movedMs < GONE_MS || [...this.#stations.values()].some((heardMs) => now - heardMs < GONE_MS);
  }

  #beat(frame: Frame): void {
    if (decodeHeartbeat(frame.payload).type !== TYPE_GCS) return;
    const now = this.#clock.monotonicMs();
    const key = (frame.systemId << 8) | frame.componentId;
    const heardMs = this.#stations.get(key) ?? -Infinity;
    this.#stations.set(key, now);
    if (now - heardMs > GONE_MS && now - this.#openedMs > BEFORE_US_MS) this.#leave("a ground station appeared");
  }

  /** A reply of our autopilot to somebody else, or somebody's request to it; not what is asked of a camera in its system, or what that answers. */
  #moved(frame: Frame, we: Ourselves): void {
    const [, system, component] = frame.payload;
    const others = we.isAutopilot(frame)
      ? system !== we.systemId || component !== we.componentId
      : system === we.systemId && (component === COMPONENT_AUTOPILOT || component === 0) && !isOf(frame, we);
    if (!others) return;
    const now = this.#clock.monotonicMs();
    const before = this.#movedMs;
    this.#movedMs = now;
    if (now - before > GONE_MS) this.#leave("another program moves files of the autopilot");
  }
}

const isOf = (frame: Frame, we: Ourselves) => frame.systemId === we.systemId && frame.componentId === we.componentId;
