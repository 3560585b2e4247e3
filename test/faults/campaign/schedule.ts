/** Pure: a seed → the whole schedule of a campaign. What is drawn here is all the chance there is; the same seed gives the same schedule. */
import { Random } from "../random.js";

/** What goes wrong while the daemon lives. */
export const faultKinds = [
  "reset",
  "reset data",
  "freeze",
  "swallow",
  "half-open up",
  "half-open down",
  "flap",
  "delay",
  "refuse",
  "wrong size",
  "server killed",
  "server swapped",
  "server full",
  "target full",
  "state full",
  "state EIO",
  "spool EIO",
  "spool ENOSPC",
  "spool sync",
  "journal ENOSPC",
  "journal sync",
  "source EIO",
  "target EIO",
  "target ENOSPC",
  "target sync",
  "stopped",
  "clock",
  "link dropped",
  "vehicle reboot",
  "unplugged",
  "reconfigured",
] as const;
export type FaultKind = (typeof faultKinds)[number];

export interface PlannedFault {
  /** Since the start of the life. */
  readonly atMs: number;
  readonly kind: FaultKind;
  readonly forMs: number;
  /** Which relay, file or errno: 0 ≤ draw < 1. */
  readonly draw: number;
}

export interface PlannedFile {
  readonly atMs: number;
  readonly seed: number;
}

export type Ending = "kill" | "kill while stopping" | "stop" | "power cut" | "killed at a call";

export interface PlannedLife {
  readonly seed: number;
  readonly lengthMs: number;
  readonly ending: Ending;
  /** Under a clock that can be set. */
  readonly clock: boolean;
  readonly faults: readonly PlannedFault[];
  readonly files: readonly PlannedFile[];
}

/** Some lives, then rest: all has to arrive, and is looked at. */
export interface PlannedRound {
  readonly lives: readonly PlannedLife[];
  /** Whether the last daemon lives on, or `run --once` has to finish. */
  readonly rest: "lives on" | "once";
}

export interface ScheduleOptions {
  readonly seed: number;
  readonly rounds: number;
  readonly livesPerRound: number;
  readonly lifeMs: number;
  /** The longest SIGSTOP. */
  readonly stopMs: number;
  /** What cannot be done on this machine. */
  readonly without?: ReadonlySet<string>;
}

export function schedule(options: ScheduleOptions): PlannedRound[] {
  const random = new Random(options.seed);
  const without = options.without ?? new Set();
  const rounds: PlannedRound[] = [];
  for (let r = 0; r < options.rounds; r++) {
    const lives: PlannedLife[] = [];
    for (let n = 0; n < options.livesPerRound; n++) lives.push(life(random, options, without));
    rounds.push({ lives, rest: random.next() < 0.5 ? "lives on" : "once" });
  }
  return rounds;
}

/** A system call that fails: wants a tracer. */
export function ofMedium(kind: FaultKind): boolean {
  return / (EIO|ENOSPC|sync)$/.test(kind);
}

function life(random: Random, options: ScheduleOptions, without: ReadonlySet<string>): PlannedLife {
  const drawn = random.next();
  const wished: Ending =
    drawn < 0.3 ? "kill" : drawn < 0.38 ? "kill while stopping" : drawn < 0.45 ? "stop" : drawn < 0.75 ? "power cut" : "killed at a call";
  const ending = without.has(wished) ? "kill" : wished;
  const traced = ending === "power cut" || ending === "killed at a call";
  // A sixth die while they start, or just after.
  const lengthMs =
    random.next() < 0.16 ? random.between(0, 600) : random.between(Math.floor(options.lifeMs / 3), Math.floor((options.lifeMs * 5) / 3));
  const clock = !traced && random.next() < 0.4 && !without.has("clock");
  const kinds = faultKinds.filter((kind) => {
    if (without.has(kind) || (kind === "clock" && !clock)) return false;
    // One tracer at a time.
    return !(traced && ofMedium(kind));
  });
  // A call that fails wants a file that is in use just then: these miss more often than others.
  const media = kinds.filter(ofMedium);
  const faults: PlannedFault[] = [];
  for (let atMs = random.between(0, 1500); atMs < lengthMs; atMs += random.between(150, 1700)) {
    const drawn = random.next();
    const often = drawn < 0.15 ? (["reset", "reset data", "server killed"] as const) : drawn < 0.4 && media.length > 0 ? media : kinds;
    const kind = random.pick(often);
    const longest = kind === "stopped" ? options.stopMs : 4000;
    // Most are short; a few as long as they may be.
    const forMs = random.next() < 0.95 ? random.between(50, Math.min(1500, longest)) : random.between(50, longest);
    faults.push({ atMs, kind, forMs, draw: random.next() });
  }
  const files: PlannedFile[] = [];
  for (let atMs = 0; atMs < lengthMs; atMs += random.between(200, 2200)) files.push({ atMs, seed: random.between(1, 2 ** 31) });
  return { seed: random.between(1, 2 ** 31), lengthMs, ending, clock, faults, files };
}
