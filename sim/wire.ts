/**
 * The wire between the simulated autopilot and its client: link models (one row each), and a line that carries frames at a rate.
 *
 * A line takes whole frames into a ring and lets them out at the pace of the wire; a frame that does not fit is dropped whole, as PX4's
 * Mavlink::send_start does. Time that a late timer of this process took is given back to the line, so that a closed loop runs at the
 * wire's pace and not at the pace of timers; over more than a few milliseconds the rate is never exceeded.
 */
export interface LinkModel {
  readonly name: string;
  /** Each way; Infinity where the wire is no limit. */
  readonly bytesPerSecond: number;
  /** false: no wire, no rings, no ticks. */
  readonly paced: boolean;
  /** What a burst may send in one tick where no ring limits it. */
  readonly bytesPerTick?: number;
  /** Of a serial port without flow control. */
  readonly baud?: number;
}

interface LinkRow {
  readonly name: string;
  /** How it is written, for messages. */
  readonly form: string;
  readonly make: (argument: string | undefined) => LinkModel | undefined;
}

/** One row per link model: adding one is adding a row. */
const rows: readonly LinkRow[] = [
  { name: "usb", form: "usb", make: (a) => (a === undefined ? { name: "usb", bytesPerSecond: 700_000, paced: true } : undefined) },
  {
    name: "uart",
    form: "uart:BAUD",
    make: (a) =>
      /^[1-9]\d{2,7}$/.test(a ?? "")
        ? { name: `uart:${a ?? ""}`, bytesPerSecond: Number(a) / 10, paced: true, baud: Number(a) }
        : undefined,
  },
  {
    name: "radio",
    form: "radio:BAUD",
    make: (a) =>
      /^[1-9]\d{2,7}$/.test(a ?? "")
        ? { name: `radio:${a ?? ""}`, bytesPerSecond: Number(a) / 10, paced: true, baud: Number(a) }
        : undefined,
  },
  {
    name: "udp",
    form: "udp",
    make: (a) => (a === undefined ? { name: "udp", bytesPerSecond: Infinity, paced: true, bytesPerTick: 1500 } : undefined),
  },
  { name: "none", form: "none", make: (a) => (a === undefined ? { name: "none", bytesPerSecond: Infinity, paced: false } : undefined) },
];

/** The model for "usb" or "uart:57600". Throws an error that lists the known ones. */
export function linkModel(text: string): LinkModel {
  const colon = text.indexOf(":");
  const name = colon === -1 ? text : text.slice(0, colon);
  const model = rows.find((row) => row.name === name)?.make(colon === -1 ? undefined : text.slice(colon + 1));
  if (model === undefined) throw new Error(`no link model "${text}"; known: ${rows.map((row) => row.form).join(", ")}`);
  return model;
}

/** The most that is given back for one late timer. */
const LATE_MAX_MS = 5;

interface Queued<T> {
  readonly frame: T;
  readonly dueMs: number;
}

export class Line<T extends { readonly length: number }> {
  readonly #deliver: (frame: T) => void;
  readonly #bytesPerMs: number;
  readonly #ring: number;
  #queue: Queued<T>[] = [];
  #head = 0;
  #freeAtMs = 0;
  #lateMs = 0;
  #timer: NodeJS.Timeout | undefined;

  /** `ring`: the bytes that may wait. `deliver` is called for each frame that has passed. */
  constructor(bytesPerSecond: number, ring: number, deliver: (frame: T) => void) {
    this.#bytesPerMs = bytesPerSecond / 1000;
    this.#ring = ring;
    this.#deliver = deliver;
  }

  /** Bytes that still fit. */
  free(): number {
    const backlogMs = Math.max(0, this.#freeAtMs - this.#now());
    return Math.max(0, this.#ring - (Number.isFinite(this.#bytesPerMs) ? backlogMs * this.#bytesPerMs : 0));
  }

  /** False when the ring is full: the frame is dropped. */
  put(frame: T): boolean {
    if (!Number.isFinite(this.#bytesPerMs)) {
      this.#deliver(frame);
      return true;
    }
    if (frame.length > this.free()) return false;
    this.#freeAtMs = Math.max(this.#freeAtMs, this.#now()) + frame.length / this.#bytesPerMs;
    this.#queue.push({ frame, dueMs: this.#freeAtMs });
    this.#arm();
    return true;
  }

  /** Forgets what is on its way. */
  clear(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#queue = [];
    this.#head = 0;
    this.#freeAtMs = 0;
  }

  #now(): number {
    return performance.now() - this.#lateMs;
  }

  #arm(): void {
    const first = this.#queue[this.#head];
    if (this.#timer !== undefined || first === undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#flush();
    }, first.dueMs - performance.now());
  }

  #flush(): void {
    const now = performance.now();
    for (let next = this.#queue[this.#head]; next !== undefined && next.dueMs <= now; next = this.#queue[this.#head]) {
      this.#head += 1;
      this.#lateMs = Math.min(LATE_MAX_MS, now - next.dueMs);
      this.#deliver(next.frame);
    }
    if (this.#head > 256) {
      this.#queue = this.#queue.slice(this.#head);
      this.#head = 0;
    }
    this.#arm();
  }
}
