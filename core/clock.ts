/**
 * The real clock. Wall time is trusted when the kernel says that NTP is in step (systemd-timesyncd and chrony leave a mark), when an
 * autopilot said the time, or when `adjtimex` cannot be asked and the date is plausible: a Pi without a clock battery wakes up in the past.
 */
import { existsSync } from "node:fs";
import { uptime } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { abortedFault } from "./errors.js";
import type { Clock } from "./plugin.js";

/** Files whose presence says that the clock was set since boot (systemd-timesyncd, chrony through systemd-time-wait-sync). */
const marks = ["run/systemd/timesync/synchronized", "run/systemd/clock-synchronized"];

/** `managed`: something on this machine sets the clock and leaves a mark; `inStep`: it did since boot. `root`: where this machine's files are. */
export function timeMarks(root = "/"): { readonly managed: boolean; readonly inStep: boolean } {
  return {
    managed: existsSync(join(root, "run/systemd/timesync")),
    inStep: marks.some((mark) => existsSync(join(root, mark))),
  };
}

/** Before this no FileSync existed: a clock that says less was never set. */
export const plausibleSinceMs = Date.UTC(2026, 0, 1);

export class RealClock implements Clock {
  #told = false;
  readonly #managed: boolean;

  /** `managed`: whether something on this machine sets the clock and leaves a mark; found out when not given. */
  constructor(managed = timeMarks().managed) {
    this.#managed = managed;
  }

  monotonicMs(): number {
    return performance.now();
  }

  wallMs(): number {
    return Date.now();
  }

  machineUpMs(): number {
    return uptime() * 1000;
  }

  trusted(): boolean {
    if (this.wallMs() < plausibleSinceMs) return false;
    return this.#told || !this.#managed || timeMarks().inStep;
  }

  /** An autopilot said the time: true where it and this machine agree within a minute. */
  tell(wallMs: number): boolean {
    const agrees = Math.abs(wallMs - this.wallMs()) < 60_000;
    if (agrees) this.#told = true;
    return agrees;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(abortedFault(signal));
        return;
      }
      const stop = () => {
        clearTimeout(timer);
        reject(signal === undefined ? new Error("stopped") : abortedFault(signal));
      };
      const timer = setTimeout(() => {
        signal?.removeEventListener("abort", stop);
        resolve();
      }, ms);
      signal?.addEventListener("abort", stop, { once: true });
    });
  }
}
