/**
 * What runs for the sessions of a door, as /proc tells it. sshd puts two marks into the environment of whatever it starts for a session, which no client can change: the
 * door and the connection. They stay with all that comes of it, whoever its parent is by then.
 */
import { type BigIntStats, readdirSync, readFileSync, statSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { codeOf } from "../../core/errors.js";

export const doorMark = "FILESYNC_DOOR";
export const connectionMark = "FILESYNC_CONNECTION";
export const vehicleMark = "FILESYNC_VEHICLE";

export interface SessionProcess {
  readonly pid: number;
  readonly connection: string;
  /** Absent in the first moment of a session, before its shell has begun the program that takes it in. */
  readonly vehicle?: string;
}

/** rsync keeps a partial where it is asked to end; that takes it no longer. */
const graceMs = 400;
/** Also how long a process that sshd has just forked may take to have its marks. */
const lookEveryMs = 50;
/** Many connections that end at once share one look. */
const youngMs = 20;

export class Sessions {
  #seen: readonly SessionProcess[] = [];
  #seenMs = -Infinity;

  /** `dir`: the door's. */
  constructor(readonly dir: string) {}

  /** All that run now. A process that ended and is not waited for yet has no environment any more, and does not count. */
  look(): readonly SessionProcess[] {
    if (performance.now() - this.#seenMs < youngMs) return this.#seen;
    const found: SessionProcess[] = [];
    for (const name of readdirSync("/proc")) {
      if (!/^\d+$/.test(name)) continue;
      const marks = wordsOf(`/proc/${name}/environ`);
      if (!marks.includes(`${doorMark}=${this.dir}`)) continue;
      const valueOf = (mark: string) => marks.find((it) => it.startsWith(`${mark}=`))?.slice(mark.length + 1);
      // Before its environment says it, the command line of `enter` does.
      const vehicle =
        valueOf(vehicleMark) ?? /\/enter(?:-legacy)?'?[\s\0]'?([a-z0-9-]+)'?$/.exec(wordsOf(`/proc/${name}/cmdline`).join("\0"))?.[1];
      found.push({ pid: Number(name), connection: valueOf(connectionMark) ?? "", ...(vehicle === undefined ? {} : { vehicle }) });
    }
    this.#seen = found;
    this.#seenMs = performance.now();
    return found;
  }

  /** Ends those that `which` holds for, asked first, then made to. Resolves once there are none, and none was about to be. */
  async end(which: (process: SessionProcess) => boolean): Promise<void> {
    const askedMs = new Map<number, number>();
    for (let quiet = 0; quiet < 2;) {
      const running = this.look().filter(which);
      quiet = running.length === 0 ? quiet + 1 : 0;
      for (const { pid } of running) {
        const nowMs = performance.now();
        const asked = askedMs.get(pid);
        if (asked === undefined) {
          askedMs.set(pid, nowMs);
          signal(pid, "SIGTERM");
        } else if (nowMs - asked >= graceMs) signal(pid, "SIGKILL");
      }
      if (quiet < 2) await delay(lookEveryMs);
    }
  }
}

/** Whether that process has the file open, whatever name it has by now. */
export function hasOpen(pid: number, { dev, ino }: Pick<BigIntStats, "dev" | "ino">): boolean {
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) => {
      const stat = statSync(`/proc/${pid}/fd/${fd}`, { bigint: true, throwIfNoEntry: false });
      return stat?.ino === ino && stat.dev === dev;
    });
  } catch {
    // It has ended.
    return false;
  }
}

/** `pid`: below 0 a group. */
export function signal(pid: number, what: NodeJS.Signals): void {
  try {
    process.kill(pid, what);
  } catch (error) {
    // It has ended already.
    if (codeOf(error) !== "ESRCH") throw error;
  }
}

/** Nothing where it is another user's, or has gone. */
function wordsOf(path: string): string[] {
  try {
    return readFileSync(path, "latin1").split("\0").slice(0, -1);
  } catch {
    return [];
  }
}
