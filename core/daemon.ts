/**
 * The daemon: takes the state directory, builds devices and routes from the configuration, starts them, and stops them within 5 s of being
 * asked. A medium that refuses a write ends the engine, not the process: it is built again from what is durable, as after a power cut.
 */
import { promises as fs } from "node:fs";
import { join } from "node:path";
import { RealClock } from "./clock.js";
import { ControlError } from "./control.js";
import type { Config } from "./config.js";
import type { Engine } from "./engine.js";
import type { Events } from "./events.js";
import { freeBytesAt } from "./fs.js";
import { installationOf, type Lock, lockStateDir, machineName } from "./installation.js";
import { checkpointBytes, type Doubt } from "./journal.js";
import { isDamage, isFull, isMedium, isUnreadable } from "./tables.js";
import { backoffMs, reasonOf } from "./retry.js";
import { Run, type Drained, type Reloaded } from "./run.js";
import { progressOf, statusOf, type Status } from "./status.js";
import { shellWord, sizeText } from "./text.js";

/** An engine that ran so long was well. */
const steadyMs = 60_000;
/** What could not be read at so many starts of the engine in a row, in 15 s or more, is taken for lost. */
const stubborn = 6;
const reserveBytes = 2 * checkpointBytes;
/** With less free nothing can be written. */
const leastBytes = 2 ** 20;
/** So often it is seen whether there is room for the reserve again. */
const reserveLookMs = 10_000;

/** Why the state directory cannot be written, for a person; where its disk is full, how much is free there and how much it takes. */
export async function whyNotWritten(stateDir: string, error: unknown): Promise<string> {
  if (!isMedium(error)) return reasonOf(error);
  const free = await freeBytesAt(stateDir).catch(reasonOf);
  // To SQLite a sync that finds no room is an I/O error.
  if (typeof free === "string" || !(isFull(error) || free < leastBytes)) return reasonOf(error);
  if (free >= reserveBytes)
    return `no space is left for it on the disk of ${stateDir}, though ${sizeText(free)} are free there: a quota, or no names are left (df -i ${shellWord(stateDir)})`;
  return `no space is left on the disk of ${stateDir}: ${sizeText(free)} free, ${sizeText(reserveBytes)} needed`;
}

export interface DaemonOptions {
  readonly config: Config;
  readonly events: Events;
  readonly programVersion: string;
  readonly clock?: RealClock;
  readonly random?: () => number;
  /** Names this machine; found out when not given. */
  readonly machine?: string;
  /** A file that is there after an upgrade was taken back. */
  readonly wentBack?: string | undefined;
}

export class Daemon {
  readonly #options: DaemonOptions;
  #config: Config;
  readonly #clock: RealClock;
  readonly #startMs: number;
  #lock: Lock | undefined;
  #run: Run | undefined;
  readonly #stopping = new AbortController();
  /** How often in a row the engine ended soon after it was built. */
  #failures = 0;
  #rebuilding: Promise<void> | undefined;
  #trouble: string | undefined;
  #refused: string | undefined;

  constructor(options: DaemonOptions) {
    this.#options = options;
    this.#config = options.config;
    this.#clock = options.clock ?? new RealClock();
    this.#startMs = this.#clock.monotonicMs();
  }

  /** Throws StateDirHeld, JournalFromNewerVersion, or node's error when the state directory cannot be used. Resolves when all is started, or, where the medium is full or fails, when that was said: it looks again until `stop`. */
  async start(): Promise<void> {
    const { stateDir } = this.#config;
    this.#lock = await lockStateDir(stateDir);
    try {
      if ((await freeBytesAt(stateDir)) < leastBytes) await fs.rm(join(stateDir, "reserve"), { force: true });
      else await makeReserve(stateDir);
      await this.#begin("none").catch(async (error: unknown) => {
        if (!isDamage(error)) throw error;
        // It lies behind what opening reads: all of it is read now, and set aside.
        await this.#begin("damaged");
      });
    } catch (error) {
      if (!isMedium(error)) {
        this.#lock.release();
        throw error;
      }
      // A full or failing card does not keep the daemon down: it says so, and looks again.
      this.#rebuildAfter(undefined, error);
    }
    void this.#keepReserve(stateDir);
  }

  get ready(): boolean {
    return this.#run !== undefined && !this.#stopping.signal.aborted;
  }

  /** Why no engine runs though it was started, for a person; undefined while one does. */
  get trouble(): string | undefined {
    return this.#trouble;
  }

  status(): Status {
    if (this.#run === undefined) throw new ControlError(this.#trouble ?? "the daemon is starting: ask again in a while");
    const status = this.#asked(({ engine }) => statusOf(engine, this.#options.programVersion, this.ready, this.#refused));
    if (status === undefined) throw new ControlError("the journal failed just now, and is opened anew: ask again in a while");
    return status;
  }

  progress(): Pick<Status, "queue" | "transfers"> {
    return progressOf(this.engine);
  }

  /** Another configuration was to be applied and cannot be, for this reason: what runs goes on, and status says so until one is applied. */
  refuse(reason: string): void {
    this.#refused = reason;
  }

  /** Resolves once the journal has written, or failed to write, what waited when it was asked. */
  async alive(): Promise<void> {
    // What failed is told, and begun anew, where it was noticed.
    await this.#run?.engine.journal.durable().catch(() => undefined);
  }

  get engine(): Engine {
    if (this.#run === undefined) throw new Error("the daemon is starting");
    return this.#run.engine;
  }

  /** Applies another configuration, of the same `stateDir` and `vehicle`; undefined while the medium fails: it runs once that works again. */
  async reload(config: Config): Promise<Reloaded | undefined> {
    this.#config = config;
    this.#refused = undefined;
    return this.#run?.reload(config);
  }

  /** Checkpoints and stops; the state directory is free afterwards. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#rebuilding;
    await this.#run?.stop();
    this.#run = undefined;
    this.#lock?.release();
    this.#lock = undefined;
  }

  /** Resolves when there is nothing left that could be done now; says what is left. */
  async drained(signal: AbortSignal): Promise<Drained> {
    for (let tookMs = 0; ;) {
      // Counting what is left of 100,000 files takes a while: most of the time is for the work itself.
      await this.#clock.sleep(Math.max(10, 20 * tookMs), signal);
      await this.#rebuilding;
      const begunMs = this.#clock.monotonicMs();
      const left = this.#asked((run) => run.left());
      if (left !== undefined) return left;
      tookMs = this.#clock.monotonicMs() - begunMs;
    }
  }

  /** What a run says of itself; undefined where none is, or its journal has failed: that is opened anew then. */
  #asked<T>(ask: (run: Run) => T): T | undefined {
    const run = this.#run;
    if (run === undefined) return undefined;
    try {
      return ask(run);
    } catch (error) {
      if (!run.engine.journal.failed) throw error;
      return undefined;
    }
  }

  async #begin(doubt: Doubt): Promise<void> {
    const { events, wentBack, random = Math.random } = this.#options;
    const config = this.#config;
    const machine = this.#options.machine ?? machineName();
    const installation = await installationOf(config.stateDir, machine);
    const run = await Run.begin({ config, events, random, clock: this.#clock, startMs: this.#startMs }, installation, doubt, wentBack);
    this.#run = run;
    this.#trouble = undefined;
    // Reloaded while it was built.
    if (this.#config !== config)
      run
        .reload(this.#config)
        .catch((error: unknown) => events.say("error", "reload", `the configuration cannot be applied: ${reasonOf(error)}`));
    if (installation.clonedFrom !== undefined)
      events.say(
        "warn",
        "cloned",
        `this state directory comes from another machine (installation ${installation.clonedFrom}): from now on it is installation ${installation.id}`,
      );
    const begunMs = this.#clock.monotonicMs();
    void run.failed.then((error) => {
      if (this.#stopping.signal.aborted) return;
      if (this.#clock.monotonicMs() - begunMs > steadyMs) this.#failures = 0;
      this.#rebuildAfter(run, error);
    });
  }

  /** Never rejects. */
  async #keepReserve(stateDir: string): Promise<void> {
    const { signal } = this.#stopping;
    for (;;) {
      await this.#clock.sleep(reserveLookMs, signal).catch(() => undefined);
      if (signal.aborted) return;
      // Who cannot make it now looks again.
      if (this.#run !== undefined) await makeReserve(stateDir).catch(() => undefined);
    }
  }

  #rebuildAfter(run: Run | undefined, error: Error): void {
    const mine = Promise.resolve(this.#rebuilding)
      .then(() => this.#rebuild(run, error))
      .finally(() => {
        if (this.#rebuilding === mine) this.#rebuilding = undefined;
      });
    this.#rebuilding = mine;
  }

  /** The medium refused a write, or the journal is damaged. Never rejects. */
  async #rebuild(run: Run | undefined, error: Error): Promise<void> {
    // Who asked and who works may both have met it, or two who asked: what runs by now is another.
    if (this.#run !== run) return;
    const { events } = this.#options;
    const config = this.#config;
    const { signal } = this.#stopping;
    this.#run = undefined;
    const damaged = isDamage(error);
    const full = isFull(error);
    const how = damaged ? "is damaged" : "cannot be written";
    const troubled = (why: string) => {
      this.#trouble = `nothing is found or delivered: the journal in ${config.stateDir} ${how}: ${why}; it is looked at again`;
    };
    troubled(reasonOf(error));
    const first = await whyNotWritten(config.stateDir, error);
    troubled(first);
    events.say("error", "journal-failed", `the journal in ${config.stateDir} ${how}: ${first}; it is opened anew`);
    const said = async (next: unknown) => {
      const why = await whyNotWritten(config.stateDir, next);
      troubled(why);
      events.say("error", "journal-failed", `the journal in ${config.stateDir} cannot be opened: ${why}`);
    };
    await run?.stop().catch(said);
    let unreadable = false;
    // At once the first time; a medium that goes on refusing is given time.
    for (; !signal.aborted; this.#failures++) {
      if (this.#failures > 0)
        await this.#clock.sleep(backoffMs(this.#failures - 1, 0, Math.random()), signal).catch((stopped: unknown) => {
          if (!signal.aborted) throw stopped;
        });
      if (signal.aborted) return;
      try {
        if (full || (await freeBytesAt(config.stateDir)) < reserveBytes) await fs.rm(join(config.stateDir, "reserve"), { force: true });
        // It may open, and the first change would fail.
        if (full && (await freeBytesAt(config.stateDir)) < leastBytes) throw error;
        await this.#begin(unreadable && this.#failures >= stubborn ? "unreadable" : damaged ? "damaged" : "none");
        this.#failures += 1;
        events.say("warn", "journal-reopened", "the journal is open again; work goes on");
        return;
      } catch (next) {
        unreadable = isUnreadable(next);
        await said(next);
      }
    }
  }
}

/** Space that is given up when the disk is full, so that the journal can still be written. */
async function makeReserve(stateDir: string): Promise<void> {
  const path = join(stateDir, "reserve");
  const size = await fs.stat(path).then(
    (stat) => stat.size,
    () => 0,
  );
  if (size === reserveBytes || (await freeBytesAt(stateDir)) < 4 * reserveBytes) return;
  await fs.writeFile(path, Buffer.alloc(reserveBytes));
}
