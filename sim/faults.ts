/**
 * What goes wrong, drawn from the seed or scripted: one row per fault. A row acts on frames as they pass (`stage`), on the file server's replies
 * (`reply`), on what the board is (`board`), or on the vehicle (`start`). Adding a fault is adding a row; the frames' are in `frame-faults.ts`, the
 * replies' in `reply-faults.ts`, the rest in `vehicle-faults.ts`.
 */
import type { LogOptions } from "./flight-log.js";
import { frameFaults } from "./frame-faults.js";
import type { Random } from "./random.js";
import { replyFaults } from "./reply-faults.js";
import type { Script } from "./script.js";
import { vehicleFaults } from "./vehicle-faults.js";

/** Work that is due later; all of it is forgotten when the simulator closes. */
export interface Later {
  readonly after: (ms: number, run: () => void) => void;
  /** Milliseconds. */
  readonly now: () => number;
}

/** What a fault may do to the vehicle. */
export interface World extends Later {
  readonly random: Random;
  readonly script: Script;
  reboot(): void;
  /** The cable is pulled for so long, and put back; `at`: under another name. */
  unplug(ms: number, at: string | undefined): void;
  setArmed(armed: boolean): void;
  /** The card does not answer for so long. */
  pause(ms: number): void;
  /** Others have all file sessions for so long. */
  exhaust(ms: number): void;
  /** That byte of a file cannot be read, so many times. */
  breakAt(offset: number, times: number): void;
  /** The card takes only so many more bytes. */
  fill(freeBytes: number): void;
  /** No log is written for so long, though it should be. */
  failLog(ms: number): void;
  /** A log is written. */
  log(options: LogOptions): void;
  /** A ground station loads its parameters; `own`: over a link of its own. */
  load(own: boolean): void;
  /** The radio tells how full it is. */
  radioSpeaks(): void;
  /** A radio says for so long that so many percent of its buffer are free. */
  radioClaims(free: number, ms: number): void;
  /** Sends telemetry that nobody asked for, so many bytes in the mean, as far as the autopilot lets it. */
  telemetry(bytes: number): void;
}

/** A frame on its way. */
export interface Passing {
  readonly length: number;
}

/** Takes a frame and gives on none, one or more. */
export type Stage<T extends Passing> = (frame: T, next: (frame: T) => void) => void;

/** Takes a reply of the file server, `payload[0..length)`, and gives on none, one or more. The buffer lives only during the call. */
export type ReplyStage = (payload: Buffer, length: number, next: (payload: Buffer, length: number) => void) => void;

/** What the file server is told of its board. */
export interface Board {
  crcBytesPerSecond: number;
  readMost: number;
}

export interface FaultRow {
  readonly name: string;
  /** How its value is written, for messages. */
  readonly form: string;
  /** False when the value is wrong. */
  readonly check: (value: string) => boolean;
  /** For frames either way. */
  readonly stage?: <T extends Passing>(value: string, tools: Tools<T>) => Stage<T>;
  readonly reply?: (value: string, tools: Later & { readonly random: Random; readonly script: Script }) => ReplyStage;
  readonly board?: (value: string) => Partial<Board>;
  readonly start?: (value: string, world: World) => void;
}

export interface Tools<T extends Passing> extends Later {
  readonly random: Random;
  /** The frame with one byte changed; undefined where that is as good as lost. */
  readonly damage: (frame: T) => T | undefined;
  /** Such a frame of random bytes; undefined where there is none. */
  readonly junk: (bytes: number) => T | undefined;
}

/** Fault name → value. */
export type Faults = Readonly<Record<string, string>>;

const rows: readonly FaultRow[] = [...frameFaults, ...vehicleFaults, ...replyFaults];

/** Throws an error that names a fault that is not known, or a value that cannot be. */
export function checkFaults(faults: Faults): void {
  for (const [name, value] of Object.entries(faults)) {
    const row = rows.find((known) => known.name === name);
    if (row === undefined) throw new Error(`no fault "${name}"; known: ${rows.map((known) => known.name).join(", ")}`);
    if (!row.check(value)) throw new Error(`fault ${name}=${value}: expected ${row.form}`);
  }
}

function* given(faults: Faults): Generator<[FaultRow, string]> {
  for (const row of rows) {
    const value = faults[row.name];
    if (value !== undefined) yield [row, value];
  }
}

/** The stages that frames pass, as one; undefined when nothing acts on frames. */
export function stages<T extends Passing>(faults: Faults, tools: Tools<T>): Stage<T> | undefined {
  let all: Stage<T> | undefined;
  for (const [row, value] of given(faults)) {
    if (row.stage === undefined) continue;
    const stage = row.stage(value, tools);
    const before = all;
    all = before === undefined ? stage : (frame, next) => before(frame, (passing) => stage(passing, next));
  }
  return all;
}

/** The same for replies. */
export function replyStages(faults: Faults, tools: Later & { readonly random: Random; readonly script: Script }): ReplyStage | undefined {
  let all: ReplyStage | undefined;
  for (const [row, value] of given(faults)) {
    if (row.reply === undefined) continue;
    const stage = row.reply(value, tools);
    const before = all;
    all = before === undefined ? stage : (payload, length, next) => before(payload, length, (p, n) => stage(p, n, next));
  }
  return all;
}

/** What they make of the board. */
export function boardOf(faults: Faults, board: Board): Board {
  let made = board;
  for (const [row, value] of given(faults)) made = { ...made, ...row.board?.(value) };
  return made;
}

/** Starts what acts on the vehicle. */
export function startFaults(faults: Faults, world: World): void {
  for (const [row, value] of given(faults)) row.start?.(value, world);
}
