/**
 * What systemd is told of the daemon: ready, stopping, a line for `systemctl status`, and at intervals that it is alive (sd_notify(3)). By
 * systemd's own `systemd-notify`: Node.js has no datagram sockets of Unix. The unit needs `Type=notify` and `NotifyAccess=all`.
 */
import { execFile } from "node:child_process";
import { reasonOf } from "../core/retry.js";

/** How the daemon is, once it has answered. */
export interface Health {
  readonly ready: boolean;
  /** One line for a person. */
  readonly summary: string;
}

/** At most so long between two signs of life, and at least three in the time that systemd waits. */
const mostMs = 30_000;
const perTimeout = 3;
/** Of `systemd-notify`, which waits for systemd to take it. */
const notifyMs = 20_000;

export class Supervisor {
  readonly everyMs: number;
  readonly #watched: boolean;
  readonly #report: (message: string) => void;
  #ready = false;
  #telling: Promise<unknown> = Promise.resolve();
  #failed = "";

  private constructor(env: NodeJS.ProcessEnv, report: (message: string) => void) {
    const { WATCHDOG_USEC, WATCHDOG_PID } = env;
    const timeoutMs = Number(WATCHDOG_USEC ?? 0) / 1000;
    this.#watched = timeoutMs > 0 && (WATCHDOG_PID === undefined || Number(WATCHDOG_PID) === process.pid);
    this.everyMs = this.#watched ? Math.min(mostMs, timeoutMs / perTimeout) : mostMs;
    this.#report = report;
  }

  /** Undefined where nobody waits for word. `report` is told once of each trouble with telling. */
  static of(env: NodeJS.ProcessEnv, report: (message: string) => void): Supervisor | undefined {
    return env.NOTIFY_SOCKET === undefined || env.NOTIFY_SOCKET === "" ? undefined : new Supervisor(env, report);
  }

  /** It cannot begin yet, and tries again: the time for its start is not over. */
  waits(summary: string): Promise<void> {
    return this.#tell(`EXTEND_TIMEOUT_USEC=${3 * mostMs * 1000}`, statusOf(summary));
  }

  stopping(): Promise<void> {
    return this.#tell("STOPPING=1");
  }

  /** It ends with a mistake that a person has to mend: what `systemctl status` shows from then on. */
  mistake(summary: string): Promise<void> {
    return this.#tell(statusOf(summary));
  }

  /** Asks `look` now and at intervals, and passes on what it answers; what it throws, or never answers, is no sign of life. Gives what ends it. */
  watch(look: () => Promise<Health>): () => void {
    let looking = false;
    const once = async () => {
      if (looking) return;
      looking = true;
      try {
        const { ready, summary } = await look();
        const first = ready && !this.#ready;
        this.#ready ||= ready;
        if (first) await this.#tell("READY=1", statusOf(summary));
        else if (this.#ready) await this.#tell(...(this.#watched ? ["WATCHDOG=1"] : []), statusOf(summary));
        else await this.waits(summary);
      } catch (error) {
        this.#trouble(`the daemon does not answer itself: ${reasonOf(error)}`);
      } finally {
        looking = false;
      }
    };
    void once();
    const timer = setInterval(() => void once(), this.everyMs);
    return () => clearInterval(timer);
  }

  /** In turn, so that the last word is the latest. Never rejects. */
  #tell(...words: readonly string[]): Promise<void> {
    const told = this.#telling.then(
      () =>
        new Promise<void>((resolve) => {
          execFile("systemd-notify", words, { timeout: notifyMs }, (error) => {
            if (error === null) this.#failed = "";
            else this.#trouble(`systemd cannot be told how it is: ${error.message.trim()}`);
            resolve();
          });
        }),
    );
    this.#telling = told;
    return told;
  }

  #trouble(message: string): void {
    if (message === this.#failed) return;
    this.#failed = message;
    this.#report(message);
  }
}

/** A line end would end the assignment. */
function statusOf(summary: string): string {
  return `STATUS=${summary.replace(/\s+/g, " ").trim()}`;
}
