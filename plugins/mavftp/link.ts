/**
 * The link to one autopilot: opens its wire, opens it again when it is lost, makes frames of its bytes, and says every second that we
 * are there (HEARTBEAT of an onboard computer, in the vehicle's own system; never 255, which would feed a ground-station failsafe).
 *
 * It knows no file transfer and no autopilot: whoever wants frames listens. Frames sent while no wire is open are lost, as on any radio.
 */
import { dirname } from "node:path";
import { isFault, type FaultKind } from "../../core/errors.js";
import { NameWatch } from "../../core/name-watch.js";
import type { Clock } from "../../core/plugin.js";
import { withSignals } from "../../core/signals.js";
import { FrameParser, FrameWriter, type Frame } from "../../mavlink/frame.js";
import * as m from "../../mavlink/messages.js";
import { placeOf, type Address } from "./address.js";
import { tornText } from "./serial.js";
import { TornWatch } from "./torn.js";
import { openWire, type Wire } from "./wire.js";

export interface LinkState {
  readonly open: boolean;
  /** Why it is not open. */
  readonly reason: string;
  /** What an operation that needs it throws. */
  readonly kind: FaultKind;
}

export interface LinkListener {
  /** Valid only during the call. */
  frame(frame: Frame): void;
  state(state: LinkState): void;
}

/** The reason of a wire on which nothing comes. */
export function silence(place: string): string {
  return `nothing is received on ${place}`;
}

const RETRY_MIN_MS = 250;
const RETRY_MAX_MS = 4000;
/** A connection that we made, and on which nothing comes for so long, is opened anew: the other end may have restarted. */
const SILENCE_MS = 10_000;
/** A port whose bytes another program takes is looked at again after so long. */
const TORN_RETRY_MS = 30_000;

export class Link {
  state: LinkState = { open: false, reason: "not opened yet", kind: "offline" };
  /** `performance.now()` when the wire was opened. */
  openedMs = 0;
  /** Bytes and frames since then. */
  bytes = 0;
  frames = 0;

  readonly #address: Address;
  readonly #clock: Clock;
  readonly #writer: FrameWriter;
  readonly #parser: FrameParser;
  readonly #stop = new AbortController();
  #listener: LinkListener | undefined;
  #wire: Wire | undefined;
  #batch: Buffer[] = [];
  #lastBytesMs = 0;
  readonly #tornWatch = new TornWatch();
  #torn = false;
  #done: Promise<void> | undefined;

  constructor(address: Address, componentId: number, clock: Clock) {
    this.#address = address;
    this.#clock = clock;
    this.#writer = new FrameWriter(1, componentId);
    this.#parser = new FrameParser((frame) => {
      this.frames += 1;
      this.#listener?.frame(frame);
    });
  }

  get isSerial(): boolean {
    return this.#address.kind === "serial";
  }

  /** Who we are on the wire. The system is 1 until the vehicle's own is known. */
  get systemId(): number {
    return this.#writer.systemId;
  }
  set systemId(id: number) {
    this.#writer.systemId = id;
  }
  get componentId(): number {
    return this.#writer.componentId;
  }

  /** Begins to open the wire; once. */
  start(listener: LinkListener): void {
    this.#listener = listener;
    this.#done ??= this.#keepOpen();
  }

  /** What is sent within one turn of the event loop leaves in one write. */
  send(messageId: number, payload: Buffer, length?: number): void {
    if (this.#wire === undefined) return;
    this.#batch.push(this.#writer.encode(messageId, payload, length));
    if (this.#batch.length === 1)
      queueMicrotask(() => {
        const batch = this.#batch;
        this.#batch = [];
        this.#wire?.write(batch);
      });
  }

  /** While a frame is handed on: it is of whom we talk to, and what is sent goes to where it came from. */
  stay(): void {
    this.#wire?.stay?.();
  }

  /** Idempotent. */
  async close(): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }

  async #keepOpen(): Promise<void> {
    const signal = this.#stop.signal;
    let retryMs = RETRY_MIN_MS;
    for (;;) {
      const state = await this.#once(signal);
      if (this.frames > 0) retryMs = RETRY_MIN_MS;
      if (signal.aborted) return;
      this.#become(state);
      await this.#pause((this.#torn ? TORN_RETRY_MS : retryMs) * (0.75 + Math.random() / 2), signal);
      if (signal.aborted) return;
      retryMs = Math.min(retryMs * 2, RETRY_MAX_MS);
    }
  }

  /** Ends early with the signal, and when a port may have been plugged in. */
  async #pause(ms: number, signal: AbortSignal): Promise<void> {
    const hinted = new AbortController();
    const address = this.#address;
    const waits = address.kind === "serial" && !this.#torn;
    const watch = waits ? new NameWatch(dirname(address.path), () => hinted.abort()) : undefined;
    try {
      await withSignals([signal, hinted.signal], (over) => this.#clock.sleep(ms, over));
    } catch (error) {
      if (!isFault(error, "aborted")) throw error;
    } finally {
      watch?.close();
    }
  }

  /** Opens the wire, and stays until it is lost; then why. */
  async #once(signal: AbortSignal): Promise<LinkState> {
    this.bytes = this.frames = 0;
    this.#torn = false;
    this.#parser.reset();
    this.#tornWatch.opened();
    const tornBefore = this.#parser.badCrc;
    let lose: (reason: string) => void = () => undefined;
    const lost = new Promise<string>((resolve) => (lose = resolve));
    let wire: Wire;
    try {
      wire = await openWire(this.#address, { bytes: (chunk) => this.#take(chunk), lost: lose }, signal);
    } catch (error) {
      // The serial library may be missing its native part: that, too, is a reason for people.
      const reason = error instanceof Error ? error.message : String(error);
      return { open: false, reason, kind: isFault(error) ? error.kind : "offline" };
    }
    const stopped = (): void => lose("closed");
    signal.addEventListener("abort", stopped);
    if (signal.aborted) stopped();
    this.#wire = wire;
    this.openedMs = this.#lastBytesMs = performance.now();
    if (!signal.aborted) this.#become({ open: true, reason: "", kind: "offline" });
    this.#heartbeat();
    const serial = this.#address.kind === "serial";
    const beat = setInterval(() => {
      this.#heartbeat();
      const calls = this.#address.kind === "tcpout" || this.#address.kind === "udpout";
      if (calls && performance.now() - this.#lastBytesMs > SILENCE_MS) lose(silence(placeOf(this.#address)));
      const torn = this.#parser.badCrc - tornBefore;
      this.#torn = serial && this.#tornWatch.look(performance.now(), this.frames, torn);
      if (this.#torn) lose("torn");
    }, 1000);
    let reason = await lost;
    clearInterval(beat);
    signal.removeEventListener("abort", stopped);
    this.#wire = undefined;
    await wire.close();
    if (this.#torn) reason = await tornText(placeOf(this.#address));
    return { open: false, reason, kind: "offline" };
  }

  #take(chunk: Buffer): void {
    this.#lastBytesMs = performance.now();
    this.bytes += chunk.length;
    this.#parser.push(chunk);
  }

  #become(state: LinkState): void {
    this.state = state;
    this.#listener?.state(state);
  }

  #heartbeat(): void {
    this.send(
      m.HEARTBEAT,
      m.encodeHeartbeat({
        customMode: 0,
        type: m.TYPE_ONBOARD_CONTROLLER,
        autopilot: m.AUTOPILOT_INVALID,
        baseMode: 0,
        systemStatus: m.STATE_ACTIVE,
      }),
    );
  }
}
