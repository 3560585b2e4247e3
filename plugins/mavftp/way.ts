/**
 * Which way of reading is the faster on this autopilot and link: tried on the first bytes of a file that are wanted anyway, remembered, and tried
 * again when it has become much slower than remembered.
 *
 * Plain reads come first, because they can be stopped at once. A burst is tried only where it can pay.
 */
import type { Level, Memo, WayOfReading } from "../../core/plugin.js";
import { FTP_DATA_MAX } from "../../mavlink/ftp.js";
import { AUTOPILOT_ARDUPILOT, AUTOPILOT_PX4 } from "../../mavlink/messages.js";
import { SessionLost, type Reading, type Stretch } from "./reading.js";

export type Way = "reads" | "bursts";

/** What is known of the other end. */
export interface Peerage {
  /** MAV_AUTOPILOT. */
  readonly autopilot: number | undefined;
  /** Of its firmware: major, minor, patch. */
  readonly version: readonly [number, number, number] | undefined;
}

/** Rates are bytes a second; undefined: not tried. */
export interface Choice {
  readonly way: Way;
  readonly reads: number | undefined;
  readonly bursts: number | undefined;
  readonly why: string;
}

/** `now`: here. `end`: where the file ends soon after, because it cannot be stopped and might be slow. Of `never`, why. */
export type Trial = { readonly bursts: "now" | "end" } | { readonly bursts: "never"; readonly why: string };

/** A PX4 wire faster than this carries requests and data at once: a radio that shares its time is slower. */
const PX4_WIRE = 30_000;
/** ArduPilot's bursts pause on a wire without flow control, so as to take a third of it (GCS_FTP.cpp); USB and networks read faster than this. */
const UNPACED_WIRE = 100_000;

/** Whether a burst can be faster than plain reads that give `reads` bytes a second. What is only inferred from that rate is told so. */
export function trialOf({ autopilot, version }: Peerage, reads: number): Trial {
  if (autopilot === AUTOPILOT_PX4) {
    if (reads <= PX4_WIRE) return { bursts: "now" };
    return untried(`where plain reads give more than ${PX4_WIRE / 1000} kB/s a PX4's are never faster`);
  }
  if (autopilot !== AUTOPILOT_ARDUPILOT) return untried("this autopilot's are not known");
  if (version === undefined) return { bursts: "end" };
  if (version[0] < 4 || (version[0] === 4 && version[1] < 7)) return untried("up to ArduPilot 4.6 they are slowed down");
  if (reads >= UNPACED_WIRE) return { bursts: "now" };
  return untried(
    `plain reads gave less than ${UNPACED_WIRE / 1000} kB/s: taken for a radio or a port without flow control, where ArduPilot slows them down`,
  );
}

function untried(reason: string): Trial {
  return { bursts: "never", why: `bursts not tried: ${reason}` };
}

/** A file's first bytes are read by plain reads. */
const GLANCE_BYTES = 16_384;
const TRIAL_BYTES = 65_536;
const TRIAL_MS = 300;
const TRIAL_LEAST_BYTES = 48 * FTP_DATA_MAX;
/** The end of a file: so much of a burst that may be slow. */
const END_BYTES: readonly [number, number] = [24_000, 98_304];
/** A burst has to be so much faster to be begun with, as it cannot be stopped at once everywhere. */
const BETTER = 1.03;
/** What was chosen before is left only for what is so much faster. */
const HYSTERESIS = 1.15;
/** So much slower than remembered: the link is another. */
const SLOWER = 0.5;
const LOOK_BYTES = 262_144;
const LOOK_MS = 3000;
const AGAIN_MS = 60_000;

/** Bytes and the time that they took, over one or more stretches. */
class Rate {
  bytes = 0;
  ms = 0;

  add(bytes: number, ms: number): void {
    this.bytes += bytes;
    this.ms += ms;
  }

  clear(): void {
    this.bytes = this.ms = 0;
  }

  get perSecond(): number {
    return this.ms === 0 ? 0 : (this.bytes / this.ms) * 1000;
  }

  get tried(): boolean {
    return this.bytes >= TRIAL_BYTES || (this.ms >= TRIAL_MS && this.bytes >= TRIAL_LEAST_BYTES);
  }
}

export interface WayTools {
  readonly reads: Reading;
  readonly bursts: Reading | undefined;
  readonly memory: Memo;
  /** As it is known now: its version is said some time after it is first heard. */
  readonly peer: () => Peerage;
  /** Names the link in the memory. */
  readonly link: string;
  /** Milliseconds, monotonic. */
  readonly now: () => number;
  readonly say: (level: Level, message: string, facts: Readonly<Record<string, unknown>>) => void;
}

export class WayReading implements Reading {
  readonly #tools: WayTools;
  #peer: Peerage | undefined;
  #choice: Choice | undefined;
  /** The one before, while it is tried again. */
  #before: Choice | undefined;
  #reads = new Rate();
  #bursts = new Rate();
  #now = new Rate();
  #triedMs = -Infinity;
  /** The last that was said: the same is chosen again once the version is known. */
  #said: string | undefined;

  constructor(tools: WayTools) {
    this.#tools = tools;
  }

  /** Undefined until it is chosen. */
  get choice(): Choice | undefined {
    return this.#choice;
  }

  async read(stretch: Stretch): Promise<void> {
    const { assembly, end, more } = stretch;
    do {
      if (this.#isNews()) this.#recall();
      const choice = this.#choice;
      if (choice !== undefined) await this.#asChosen(stretch, choice);
      else if (!this.#reads.tried) await this.#timed(this.#tools.reads, stretch, this.#reads, () => this.#reads.tried);
      else await this.#tryBursts(stretch);
    } while (assembly.whole < end && more());
  }

  /** The peer is another than it was chosen for, or now its version is known. */
  #isNews(): boolean {
    const { autopilot, version } = this.#tools.peer();
    const known = this.#peer;
    if (known === undefined || autopilot !== known.autopilot) return true;
    return version !== known.version && version?.join() !== known.version?.join();
  }

  #recall(): void {
    const { peer, memory, bursts } = this.#tools;
    if (this.#peer?.version !== undefined) [this.#reads, this.#bursts] = [new Rate(), new Rate()];
    const { autopilot, version } = peer();
    this.#peer = { autopilot, version };
    this.#before = undefined;
    this.#choice = choiceFrom(memory.get(this.#key()), bursts !== undefined);
    if (this.#choice !== undefined) this.#say(this.#choice, true);
  }

  #key(): string {
    return `way:${this.#peer?.autopilot ?? "?"}:${this.#peer?.version?.join(".") ?? "?"}:${this.#tools.link}`;
  }

  async #asChosen(stretch: Stretch, choice: Choice): Promise<void> {
    const { reads, bursts, now, peer } = this.#tools;
    const reading = choice.way === "bursts" && bursts !== undefined ? bursts : reads;
    // Whoever wants only the first bytes has said so by then, and no burst runs that cannot be stopped.
    if (reading === bursts && stretch.assembly.gained < GLANCE_BYTES) {
      await this.#timed(reads, stretch, new Rate(), () => stretch.assembly.gained >= GLANCE_BYTES);
      return;
    }
    const least = (choice[choice.way] ?? 0) * SLOWER;
    const rate = this.#now;
    let slow = false;
    let wrong = false;
    await this.#timed(reading, stretch, rate, () => {
      if (this.#isNews()) return true;
      if (rate.bytes < LOOK_BYTES && rate.ms < LOOK_MS) return false;
      slow = rate.perSecond < least && now() - this.#triedMs > AGAIN_MS;
      // A machine that was busy then took the link for a slow one, where no burst can pay.
      wrong = choice.way === "reads" && choice.bursts === undefined && trialOf(peer(), rate.perSecond).bursts === "now";
      rate.clear();
      return slow || wrong;
    });
    if (!slow && !wrong) return;
    this.#before = slow ? choice : undefined;
    this.#choice = undefined;
    this.#reads = new Rate();
    this.#bursts = new Rate();
  }

  async #tryBursts(stretch: Stretch): Promise<void> {
    const { peer, bursts } = this.#tools;
    const trial = trialOf(peer(), this.#reads.perSecond);
    if (bursts === undefined || trial.bursts === "never") {
      const why = trial.bursts === "never" ? trial.why : "bursts not tried";
      this.#choose({ way: "reads", reads: this.#reads.perSecond, bursts: undefined, why });
      return;
    }
    const { assembly, end } = stretch;
    if (trial.bursts === "end") {
      const left = end - assembly.whole;
      if (left > END_BYTES[1] || left < END_BYTES[0]) {
        // Up to where the end is near; what is shorter is no trial.
        const near = left > END_BYTES[1];
        await this.#timed(this.#tools.reads, stretch, new Rate(), () => this.#isNews() || (near && end - assembly.whole <= END_BYTES[1]));
        return;
      }
    }
    try {
      await this.#timed(bursts, stretch, this.#bursts, () => trial.bursts === "now" && this.#bursts.tried);
    } catch (error) {
      if (stretch.signal.aborted || error instanceof SessionLost) throw error;
      // Whoever answers reads and not bursts is read by reads.
      this.#choose({ way: "reads", reads: this.#reads.perSecond, bursts: 0, why: "bursts were tried and do not work here" });
      return;
    }
    if (this.#bursts.tried || (trial.bursts === "end" && this.#bursts.bytes >= END_BYTES[0] / 2)) this.#decide();
  }

  #decide(): void {
    const [reads, bursts] = [this.#reads.perSecond, this.#bursts.perSecond];
    const before = this.#before?.way;
    const wanted = before === "bursts" ? 1 / HYSTERESIS : before === "reads" ? HYSTERESIS : BETTER;
    this.#choose({ way: bursts > reads * wanted ? "bursts" : "reads", reads, bursts, why: "both were tried" });
  }

  #choose(choice: Choice): void {
    this.#choice = choice;
    this.#triedMs = this.#tools.now();
    const known = { way: choice.way, reads: choice.reads, bursts: choice.bursts, why: choice.why };
    // What could not be kept is tried again.
    if (this.#peer?.version !== undefined) this.#tools.memory.set(this.#key(), JSON.parse(JSON.stringify(known))).catch(() => undefined);
    if (this.#before?.way !== choice.way) this.#say(choice, false);
    this.#before = undefined;
  }

  #say(choice: Choice, remembered: boolean): void {
    const { way, reads, bursts, why } = choice;
    const news = `${way}: ${why}`;
    if (news === this.#said) return;
    this.#said = news;
    const { name, tried } = inWords(choice);
    const rates = Object.entries(tried)
      .map(([what, perSecond]) => rateText(what, perSecond))
      .join(", ");
    const message = `reads by ${name} (${rates}${remembered ? ", when it was tried" : ""}): ${why}`;
    this.#tools.say("info", message, { way, readsPerSecond: reads, burstsPerSecond: bursts, why });
  }

  /** Runs `reading` until it ends, or `enough`; what comes counts from the first byte on. */
  async #timed(reading: Reading, stretch: Stretch, rate: Rate, enough: () => boolean): Promise<void> {
    const { now } = this.#tools;
    const { assembly } = stretch;
    let gained = assembly.gained;
    let atMs: number | undefined;
    const count = (): void => {
      if (assembly.gained === gained) return;
      const ms = now();
      if (atMs !== undefined) rate.add(assembly.gained - gained, ms - atMs);
      atMs = ms;
      gained = assembly.gained;
    };
    try {
      const more = (): boolean => {
        count();
        return !enough() && stretch.more();
      };
      await reading.read({ ...stretch, more });
    } finally {
      count();
    }
  }
}

const NAMES: Readonly<Record<Way, string>> = { reads: "plain reads", bursts: "bursts" };

/** The choice as the contract has it. */
export function inWords({ way, reads, bursts, why }: Choice): WayOfReading {
  const tried = { ...(reads === undefined ? {} : { [NAMES.reads]: reads }), ...(bursts === undefined ? {} : { [NAMES.bursts]: bursts }) };
  return { name: NAMES[way], why, tried };
}

function rateText(what: string, perSecond: number): string {
  return `${what} ${perSecond < 10_000 ? (perSecond / 1000).toFixed(1) : Math.round(perSecond / 1000)} kB/s`;
}

/** What was kept, if it can be made sense of. */
function choiceFrom(value: unknown, canBurst: boolean): Choice | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { way, reads, bursts, why } = value as Record<string, unknown>;
  if (way !== "reads" && !(way === "bursts" && canBurst)) return undefined;
  const rate = (known: unknown): number | undefined => (typeof known === "number" && known >= 0 ? known : undefined);
  return { way, reads: rate(reads), bursts: rate(bursts), why: typeof why === "string" ? why : "" };
}
