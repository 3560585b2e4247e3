/**
 * What goes wrong on the way, drawn from the seed: one row per fault. A row acts on frames as they pass (`stage`), on the vehicle
 * (`start`), or both. Adding a fault is adding a row.
 */
import type { Random } from "./random.js";

/** Work that is due later; all of it is forgotten when the simulator closes. */
export interface Later {
  readonly after: (ms: number, run: () => void) => void;
}

/** What a fault may do to the vehicle. */
export interface World extends Later {
  readonly random: Random;
  /** File bytes served so far. */
  payloadBytes(): number;
  reboot(): void;
  /** Sends telemetry that nobody asked for, about so many bytes. */
  telemetry(bytes: number): void;
}

/** A frame on its way. */
export interface Passing {
  readonly length: number;
}

/** Takes a frame and gives on none, one or more. */
export type Stage<T extends Passing> = (frame: T, next: (frame: T) => void) => void;

interface FaultRow {
  readonly name: string;
  /** How its value is written, for messages. */
  readonly form: string;
  /** False when the value is wrong. */
  readonly check: (value: string) => boolean;
  /** For frames either way. `change` damages one; undefined: it is as good as lost. */
  readonly stage?: <T extends Passing>(value: string, tools: Tools<T>) => Stage<T>;
  readonly start?: (value: string, world: World) => void;
}

export interface Tools<T extends Passing> extends Later {
  readonly random: Random;
  /** The frame with one byte changed; undefined where that is as good as lost. */
  readonly damage: (frame: T) => T | undefined;
  /** Such a frame of random bytes; undefined where there is none. */
  readonly junk: (bytes: number) => T | undefined;
}

const rows: readonly FaultRow[] = [
  {
    name: "loss",
    form: "a share of frames that are lost, either way: 0.1 or 10%",
    check: isShare,
    stage: (value, { random }) => {
      const p = share(value);
      return (frame, next) => {
        if (random() >= p) next(frame);
      };
    },
  },
  {
    name: "dup",
    form: "a share of frames that come twice: 0.1 or 10%",
    check: isShare,
    stage: (value, { random }) => {
      const p = share(value);
      return (frame, next) => {
        next(frame);
        if (random() < p) next(frame);
      };
    },
  },
  {
    name: "reorder",
    form: "a share of frames that one to three later ones overtake: 0.1 or 10%",
    check: isShare,
    stage: reorder,
  },
  {
    name: "delay",
    form: "every frame comes up to so much later, in order: 20ms",
    check: (value) => isTime(value),
    stage: delay,
  },
  {
    name: "corrupt",
    form: "a share of frames with one wrong byte: 0.01 or 1%",
    check: isShare,
    stage: (value, { random, damage }) => {
      const p = share(value);
      return (frame, next) => {
        const passing = random() < p ? damage(frame) : frame;
        if (passing !== undefined) next(passing);
      };
    },
  },
  {
    name: "junk",
    form: "a share of frames that up to 300 random bytes follow: 0.1 or 10%",
    check: isShare,
    stage: (value, { random, junk }) => {
      const p = share(value);
      return (frame, next) => {
        next(frame);
        if (random() >= p) return;
        const bytes = junk(1 + Math.floor(random() * 300));
        if (bytes !== undefined) next(bytes);
      };
    },
  },
  {
    name: "reboot",
    form: "once, after so many file bytes or so much time: 500kB or 10s",
    check: (value) => isTime(value) || isBytes(value),
    start: (value, world) => {
      if (isTime(value)) {
        world.after(time(value), () => world.reboot());
        return;
      }
      const bytes = sizeOf(value);
      const look = (): void => {
        if (world.payloadBytes() >= bytes) world.reboot();
        else world.after(5, look);
      };
      look();
    },
  },
  {
    name: "noise",
    form: "telemetry beside the files, bytes a second: 20kB",
    check: isBytes,
    start: (value, world) => {
      const perTick = sizeOf(value) / 50;
      const beat = (): void => {
        world.telemetry(perTick);
        world.after(20, beat);
      };
      beat();
    },
  },
];

/** Throws an error that names a fault that is not known, or a value that cannot be. */
export function checkFaults(faults: Readonly<Record<string, string>>): void {
  for (const [name, value] of Object.entries(faults)) {
    const row = rows.find((known) => known.name === name);
    if (row === undefined) throw new Error(`no fault "${name}"; known: ${rows.map((known) => known.name).join(", ")}`);
    if (!row.check(value)) throw new Error(`fault ${name}=${value}: expected ${row.form}`);
  }
}

/** The stages that frames pass, as one; undefined when nothing acts on frames. */
export function stages<T extends Passing>(faults: Readonly<Record<string, string>>, tools: Tools<T>): Stage<T> | undefined {
  let all: Stage<T> | undefined;
  for (const row of rows) {
    const value = faults[row.name];
    if (value === undefined || row.stage === undefined) continue;
    const stage = row.stage(value, tools);
    const before = all;
    all = before === undefined ? stage : (frame, next) => before(frame, (passing) => stage(passing, next));
  }
  return all;
}

/** Starts what acts on the vehicle. */
export function startFaults(faults: Readonly<Record<string, string>>, world: World): void {
  for (const row of rows) {
    const value = faults[row.name];
    if (value !== undefined) row.start?.(value, world);
  }
}

function reorder<T extends Passing>(value: string, { random, after }: Tools<T>): Stage<T> {
  const p = share(value);
  const held: { frame: T; overtaken: number }[] = [];
  return (frame, next) => {
    if (random() < p) {
      const entry = { frame, overtaken: 1 + Math.floor(random() * 3) };
      held.push(entry);
      // Nothing may follow it for a while: then it comes without being overtaken.
      after(30, () => {
        const at = held.indexOf(entry);
        if (at === -1) return;
        held.splice(at, 1);
        next(frame);
      });
      return;
    }
    next(frame);
    for (const entry of [...held]) {
      entry.overtaken -= 1;
      if (entry.overtaken > 0) continue;
      held.splice(held.indexOf(entry), 1);
      next(entry.frame);
    }
  };
}

function delay<T extends Passing>(value: string, { random, after }: Tools<T>): Stage<T> {
  const upTo = time(value);
  let lastDueMs = 0;
  return (frame, next) => {
    const now = performance.now();
    lastDueMs = Math.max(lastDueMs, now + random() * upTo);
    after(lastDueMs - now, () => next(frame));
  };
}

function share(value: string): number {
  return value.endsWith("%") ? Number(value.slice(0, -1)) / 100 : Number(value);
}

function isShare(value: string): boolean {
  return /^\d+(\.\d+)?%?$/.test(value) && share(value) <= 1;
}

function isTime(value: string): boolean {
  return /^\d+(\.\d+)?(ms|s)$/.test(value);
}

function time(value: string): number {
  return value.endsWith("ms") ? Number(value.slice(0, -2)) : Number(value.slice(0, -1)) * 1000;
}

function isBytes(value: string): boolean {
  return /^\d+(\.\d+)?(B|kB|MB|KiB|MiB)?$/.test(value);
}

function sizeOf(value: string): number {
  const unit = { B: 1, kB: 1e3, MB: 1e6, KiB: 1024, MiB: 1024 ** 2 }[/[A-Za-z]+$/.exec(value)?.[0] ?? "B"] ?? 1;
  return Number.parseFloat(value) * unit;
}
