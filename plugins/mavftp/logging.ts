/**
 * Whether the autopilot still writes its log: a flight without one cannot be looked at afterwards, and the person who flies should hear of it before.
 *
 * It is told by MAV_SYS_STATUS_LOGGING (bit 24) of SYS_STATUS. ArduPilot: enabled is what is configured, health that no write failed, armed or not.
 * PX4: healthy while its logger runs. So it logs when both are set; it does not when the bit is healthy no more though enabled, or when it
 * was seen to log before. That counts while armed, and for a moment after each of our readings, where it logged before that; and only when it
 * stays so for 3 s: a log takes a moment to begin. What was never seen to log, and is not enabled, is configured so.
 */
import type { Clock } from "../../core/plugin.js";
import { SENSOR_LOGGING, type SysStatus } from "../../mavlink/messages.js";

export type SayLogging = (level: "error" | "info", message: string) => void;

const LASTS_MS = 3000;
/** What happens so long after a reading was not its doing. */
const AFTER_READING_MS = 15_000;

export class LoggingWatch {
  readonly #clock: Clock;
  readonly #say: SayLogging;
  #armed = false;
  /** The last SYS_STATUS said that it logs; undefined: none came since the arming or disarm. */
  #logs: boolean | undefined;
  #seen = false;
  /** Since when it does not; undefined: it does. */
  #sinceMs: number | undefined;
  /** It logged, disarmed, when a reading began. */
  #before = false;
  #readMs = -Infinity;
  /** People were told since it last logged, or was last armed. */
  #told = false;
  /** People were told since it last logged. */
  #alarm = false;

  constructor(clock: Clock, say: SayLogging) {
    this.#clock = clock;
    this.#say = say;
  }

  /** Another autopilot. */
  reset(): void {
    this.#seen = this.#told = this.#alarm = this.#before = this.#armed = false;
    this.#logs = this.#sinceMs = undefined;
  }

  /** What its heartbeat says. */
  armed(armed: boolean): void {
    if (armed === this.#armed) return;
    this.#armed = armed;
    this.#logs = this.#sinceMs = undefined;
    this.#told = this.#before = false;
    this.#readMs = -Infinity;
  }

  reads(): void {
    if (!this.#armed) this.#before = this.#logs === true;
  }

  hasRead(): void {
    if (this.#before) this.#readMs = this.#clock.monotonicMs();
  }

  status({ enabled, health }: SysStatus): void {
    const on = (bits: number): boolean => (bits & SENSOR_LOGGING) !== 0;
    this.#logs = on(enabled) && on(health);
    if (this.#logs) {
      this.#seen = true;
      this.#told = false;
      this.#sinceMs = undefined;
      if (this.#alarm) this.#say("info", "the autopilot writes its log again");
      this.#alarm = false;
      return;
    }
    if (!on(enabled) && !this.#seen) return;
    const now = this.#clock.monotonicMs();
    this.#sinceMs ??= now;
    if (this.#told || now - this.#sinceMs < LASTS_MS) return;
    if (this.#armed) this.#alert("the vehicle is armed, and the autopilot writes no log: look at its SD card before you fly on");
    else if (now - this.#readMs < AFTER_READING_MS)
      this.#alert("the autopilot wrote its log before its files were read, and does no longer: look at its SD card, or restart it");
  }

  #alert(message: string): void {
    this.#told = this.#alarm = true;
    this.#say("error", message);
  }
}
