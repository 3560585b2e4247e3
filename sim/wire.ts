/**
 * The wire between the simulated autopilot and its client: link models (one row each), and a line that carries frames at a rate.
 *
 * A line takes whole frames into a ring and lets them out at the pace of the wire; a frame that does not fit is dropped whole, as PX4's
 * Mavlink::send_start does.
 */
import { Air } from "./air.js";
import { SteadyClock, type SimClock } from "./clock.js";

export interface LinkModel {
  readonly name: string;
  /** Each way, or both together where it is half duplex; Infinity where the wire is no limit. */
  readonly bytesPerSecond: number;
  /** One way at a time. */
  readonly halfDuplex?: boolean;
  /** From the last byte that leaves to the frame that arrives. */
  readonly latencyMs?: number;
  /** false: no wire, no rings, no ticks. */
  readonly paced: boolean;
  /** What a burst may send in one tick where no ring limits it. */
  readonly bytesPerTick?: number;
  /** Of a serial port without flow control. */
  readonly baud?: number;
}

/** Of a telemetry radio with its buffers. */
const RADIO_LATENCY_MS = 60;

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
        ? {
            name: `radio:${a ?? ""}`,
            bytesPerSecond: Number(a) / 10,
            paced: true,
            baud: Number(a),
            halfDuplex: true,
            latencyMs: RADIO_LATENCY_MS,
          }
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

interface Queued<T> {
  readonly frame: T;
  readonly dueMs: number;
}

/** One way of a wire: a ring of bytes that wait, and what takes them away. */
export interface Way<T extends { readonly length: number }> {
  /** Bytes that still fit. */
  free(): number;
  /** False when the ring is full: the frame is dropped. */
  put(frame: T): boolean;
  /** Forgets what is on its way. */
  clear(): void;
}

/** A way of its own: the other way does not slow it. */
export class Line<T extends { readonly length: number }> implements Way<T> {
  readonly #deliver: (frame: T) => void;
  readonly #bytesPerMs: number;
  readonly #ring: number;
  readonly #clock: SteadyClock;
  readonly #latencyMs: number;
  #queue: Queued<T>[] = [];
  #head = 0;
  #freeAtMs = 0;
  #forget: (() => void) | undefined;

  /** `ring`: the bytes that may wait. `deliver` is called for each frame that has passed, `latencyMs` after its last byte left. */
  constructor(link: Pick<LinkModel, "bytesPerSecond" | "latencyMs">, ring: number, deliver: (frame: T) => void, clock: SimClock) {
    this.#bytesPerMs = link.bytesPerSecond / 1000;
    this.#latencyMs = link.latencyMs ?? 0;
    this.#ring = ring;
    this.#deliver = deliver;
    this.#clock = new SteadyClock(clock);
  }

  free(): number {
    const backlogMs = Math.max(0, this.#freeAtMs - this.#clock.now());
    return Math.max(0, this.#ring - (Number.isFinite(this.#bytesPerMs) ? backlogMs * this.#bytesPerMs : 0));
  }

  put(frame: T): boolean {
    if (!Number.isFinite(this.#bytesPerMs)) {
      this.#deliver(frame);
      return true;
    }
    if (frame.length > this.free()) return false;
    this.#freeAtMs = Math.max(this.#freeAtMs, this.#clock.now()) + frame.length / this.#bytesPerMs;
    this.#queue.push({ frame, dueMs: this.#freeAtMs + this.#latencyMs });
    this.#arm();
    return true;
  }

  clear(): void {
    this.#forget?.();
    this.#forget = undefined;
    this.#queue = [];
    this.#head = 0;
    this.#freeAtMs = 0;
  }

  #arm(): void {
    const first = this.#queue[this.#head];
    if (this.#forget !== undefined || first === undefined) return;
    this.#forget = this.#clock.after(first.dueMs - this.#clock.now(), () => {
      this.#forget = undefined;
      this.#flush();
    });
  }

  #flush(): void {
    // A late timer brings with it what was due since.
    const now = this.#clock.now() + this.#clock.lateMs;
    for (let next = this.#queue[this.#head]; next !== undefined && next.dueMs <= now; next = this.#queue[this.#head]) {
      this.#head += 1;
      this.#clock.isLateSince(next.dueMs);
      this.#deliver(next.frame);
    }
    if (this.#head > 256) {
      this.#queue = this.#queue.slice(this.#head);
      this.#head = 0;
    }
    this.#arm();
  }
}

/** Both ways of a link: `out` has a ring, what comes in has none before the receive buffer. */
export function waysOf<Out extends { readonly length: number }, In extends { readonly length: number }>(
  link: LinkModel,
  clock: SimClock,
  ring: number,
  out: (frame: Out) => void,
  take: (frame: In) => void,
): { readonly out: Way<Out>; readonly in: Way<In> } {
  if (link.halfDuplex !== true) return { out: new Line(link, ring, out, clock), in: new Line(link, Infinity, take, clock) };
  const air = new Air(link, clock);
  return { out: air.way(ring, out), in: air.way(Infinity, take) };
}
