/**
 * The log that the vehicle writes: it grows in steps of a second, as both autopilots bring theirs to the card.
 *
 * ArduPilot writes while armed, with LOG_DISARMED always; with LOG_FILE_DSRMROT a disarm begins a new file, without it one file goes on over
 * flights. PX4 writes one file for each arming. The bytes are made up; nothing is written on this machine.
 */
import type { Autopilot } from "./autopilot.js";
import type { Disk } from "./disk.js";

export interface LogOptions {
  readonly bytesPerSecond: number;
  /** Only while armed; else always. */
  readonly armed: boolean;
  /** A new file begins with each arming (`armed`), or with each disarm (else); if not, the newest goes on. */
  readonly rotates: boolean;
}

const STEP_MS = 1000;

export class FlightLog {
  /** It cannot be written now, whatever `logging` says. */
  failed = false;
  readonly #disk: Disk;
  readonly #autopilot: Autopilot;
  readonly #options: LogOptions;
  readonly #wallMs: () => number;
  #armed: boolean;
  #path: string;

  constructor(disk: Disk, autopilot: Autopilot, options: LogOptions, armed: boolean, wallMs: () => number) {
    this.#disk = disk;
    this.#autopilot = autopilot;
    this.#options = options;
    this.#armed = armed;
    this.#wallMs = wallMs;
    const newest = newestLog(disk, autopilot.logDir);
    this.#path = newest === undefined || (armed && options.armed && options.rotates) ? this.#next(newest) : newest;
    if (this.logging) this.#grow(0);
  }

  /** It is being written. */
  get logging(): boolean {
    return this.#armed || !this.#options.armed;
  }

  /** The file that is written, or was last. */
  get path(): string {
    return this.#path;
  }

  setArmed(armed: boolean): void {
    if (armed === this.#armed) return;
    this.#armed = armed;
    const { rotates, armed: onlyArmed } = this.#options;
    if (!rotates || armed !== onlyArmed) return;
    this.#path = this.#next(newestLog(this.#disk, this.#autopilot.logDir));
    this.#grow(0);
  }

  /** Runs for as long as `after` does. */
  start(after: (ms: number, run: () => void) => void): void {
    after(STEP_MS, () => {
      if (this.logging && !this.failed) this.#grow(Math.round((this.#options.bytesPerSecond * STEP_MS) / 1000));
      this.start(after);
    });
  }

  #grow(bytes: number): void {
    this.#disk.grow(this.#path, bytes, Math.floor(this.#wallMs() / 1000));
  }

  /** The name of the log after that one. */
  #next(newest: string | undefined): string {
    if (newest === undefined) {
      const dir = this.#disk.isDirectory(this.#autopilot.logDir) ? this.#autopilot.logDir : "";
      return `${dir}/${this.#autopilot.firstLog}`;
    }
    const time = /(\d\d)_(\d\d)_(\d\d)(\.ulg)$/.exec(newest);
    if (time !== null) {
      // PX4 names it by the second at which it began.
      const [hours, minutes, seconds] = time.slice(1, 4).map(Number) as [number, number, number];
      const next = (hours * 3600 + minutes * 60 + seconds + 1) % 86_400;
      const text = [next / 3600, (next / 60) % 60, next % 60].map((part) => String(Math.floor(part)).padStart(2, "0")).join("_");
      return `${newest.slice(0, time.index)}${text}.ulg`;
    }
    // The last number in it goes up: 00000042.BIN, log003.ulg.
    return newest.replace(/(\d+)(\D*)$/, (_all, digits: string, rest: string) => {
      return String(Number(digits) + 1).padStart(digits.length, "0") + rest;
    });
  }
}

/** The last log by the order of names, in the directory of logs or, where that is not there, anywhere. */
export function newestLog(disk: Disk, logDir: string): string | undefined {
  const found: string[] = [];
  const look = (dir: string): void => {
    for (const entry of disk.list(Buffer.from(dir === "" ? "/" : dir))) {
      const path = `${dir}/${entry.name.toString()}`;
      if (entry.kind === "directory") look(path);
      else if (entry.kind === "file" && /\.(ulg|bin)$/i.test(path)) found.push(path);
    }
  };
  look(disk.isDirectory(logDir) ? logDir : "");
  return found.sort().at(-1);
}
