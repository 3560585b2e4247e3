/**
 * A telemetry radio at the vehicle's port that tells how full its buffer is (SiK: radio/mavlink.c): RADIO_STATUS, put into the line beside what comes
 * over the air, after each heartbeat of the vehicle. It is no wire; that is the link "radio" (`air.ts`).
 */
import * as m from "../mavlink/messages.js";
import type { Later } from "./faults.js";

/** '3' and 'D': how SiK signs. */
export const RADIO = { systemId: 51, componentId: 68 } as const;
/** About what an Si1000 has for the bytes from its serial port. */
const BUFFER_BYTES = 2048;
const BEAT_MS = 1000;
/** What was heard longer ago counts no more (GCS_Common.cpp, last_txbuf_is_greater). */
const STALE_MS = 5000;

export interface RadioSurroundings extends Later {
  /** Bytes that wait to be sent over the air. */
  readonly waiting: () => number;
  /** The payload of a RADIO_STATUS comes in. */
  readonly tell: (payload: Buffer) => void;
}

export class Radio {
  readonly #env: RadioSurroundings;
  #speaks = false;
  #heard = { free: 100, atMs: -Infinity };

  constructor(env: RadioSurroundings) {
    this.#env = env;
  }

  /** From now on it tells how full it is. */
  speak(): void {
    this.#speaks = true;
  }

  /** A heartbeat of the vehicle passes. */
  beat(): void {
    if (this.#speaks) this.#tell(100 - Math.ceil((100 * Math.min(this.#env.waiting(), BUFFER_BYTES)) / BUFFER_BYTES));
  }

  /** It says for so long that so much of its buffer is free, in percent, and then that all is. */
  claim(free: number, forMs: number): void {
    this.#tell(forMs > 0 ? free : 100);
    if (forMs > 0) this.#env.after(Math.min(BEAT_MS, forMs), () => this.claim(free, forMs - BEAT_MS));
  }

  /** A RADIO_STATUS has come in, from whomever. */
  heard(payload: Buffer): void {
    this.#heard = { free: m.decodeRadioStatus(payload).txbuf, atMs: this.#env.now() };
  }

  /** How much of a radio's buffer is free, in percent, as far as the vehicle has heard. */
  get free(): number {
    return this.#env.now() - this.#heard.atMs > STALE_MS ? 100 : this.#heard.free;
  }

  #tell(txbuf: number): void {
    this.#env.tell(m.encodeRadioStatus({ rssi: 200, remoteRssi: 200, txbuf, rxErrors: 0, fixed: 0 }));
  }
}
