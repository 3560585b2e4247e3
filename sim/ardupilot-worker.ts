/**
 * The threads of an ArduPilot that file transfer goes through: the main loop, which takes requests out of the receive buffer 400 times a second and
 * puts them into a queue of five (what finds it full is lost, GCS_FTP.cpp says so), and the one worker, which looks into that queue every 2 ms
 * and does one thing at a time, for all links.
 *
 * The worker is written as a generator that yields how long it sleeps. Without a wire ("none") nobody waits for ticks, but the queue stays.
 */
import type { FtpPacket } from "../mavlink/ftp.js";
import { FTP_DATA_AT } from "../mavlink/ftp.js";
import type { FtpSurroundings, Sender } from "./autopilot.js";
import { SteadyClock } from "./clock.js";

const LOOP_MS = 1000 / 400;
const POLL_MS = 2;
const RECEIVE_BYTES = 512;
const QUEUE = 5;
/** Steps that are done without letting the rest of this process do something. */
const SLICE = 64;

/** A request as the worker gets it. */
export interface Asked {
  readonly seq: number;
  readonly session: number;
  readonly opcode: number;
  readonly size: number;
  readonly offset: number;
  readonly data: Buffer;
  readonly from: Sender;
}

/** What a thread yields: milliseconds to sleep, or that it has nothing to do. */
export type Sleep = number | "idle";

export class Worker {
  readonly #env: FtpSurroundings;
  readonly #clock: SteadyClock;
  readonly #queue: Asked[] = [];
  #received: Asked[] = [];
  #receivedBytes = 0;
  #forgetLoop: (() => void) | undefined;
  #forgetSleep: (() => void) | undefined;
  #thread: Iterator<Sleep> | undefined;
  #idleMs: number | undefined;

  constructor(env: FtpSurroundings) {
    this.#env = env;
    this.#clock = new SteadyClock(env.clock);
  }

  /** The time of this board. */
  now(): number {
    return this.#clock.now();
  }

  start(thread: Iterator<Sleep>): void {
    this.#thread = thread;
    this.#run();
  }

  stop(): void {
    this.#forgetLoop?.();
    this.#forgetSleep?.();
    this.#thread = undefined;
    this.#queue.length = 0;
    this.#received = [];
  }

  /** The worker does nothing for so long. */
  pause(ms: number): void {
    this.#forgetSleep?.();
    this.#idleMs = undefined;
    this.#sleep(ms);
  }

  /** The next request; undefined where there is none. */
  next(): Asked | undefined {
    return this.#queue.shift();
  }

  /** A request comes in. The packet lives only during the call. */
  receive(packet: FtpPacket, from: Sender): void {
    const { seq, session, opcode, size, offset } = packet;
    const asked = { seq, session, opcode, size, offset, data: Buffer.from(packet.payload.subarray(FTP_DATA_AT)), from };
    if (!this.#env.link.paced) {
      this.#put(asked);
      return;
    }
    if (this.#receivedBytes + from.wireBytes > RECEIVE_BYTES) {
      this.#env.stats.droppedByReceive += 1;
      return;
    }
    this.#received.push(asked);
    this.#receivedBytes += from.wireBytes;
    const now = this.#clock.now();
    this.#forgetLoop ??= this.#clock.after((Math.floor(now / LOOP_MS) + 1) * LOOP_MS - now, () => {
      this.#forgetLoop = undefined;
      const received = this.#received;
      this.#received = [];
      this.#receivedBytes = 0;
      for (const each of received) this.#put(each);
    });
  }

  #put(asked: Asked): void {
    if (this.#queue.length >= QUEUE) {
      this.#env.stats.droppedByQueue += 1;
      return;
    }
    this.#queue.push(asked);
    if (this.#idleMs === undefined) return;
    // It wakes up at the next of its looks.
    const sleptMs = this.#clock.now() - this.#idleMs;
    this.#idleMs = undefined;
    this.#sleep(this.#env.link.paced ? Math.max(1, Math.ceil(sleptMs / POLL_MS)) * POLL_MS - sleptMs : 0);
  }

  #sleep(ms: number): void {
    this.#forgetSleep = this.#clock.after(ms, () => this.#run());
  }

  #run(): void {
    for (let steps = 0; ; steps++) {
      const step = this.#thread?.next();
      if (step === undefined || step.done === true) return;
      if (step.value === "idle") {
        this.#idleMs = this.#clock.now();
        return;
      }
      if (step.value > 0 || steps >= SLICE) {
        this.#sleep(step.value);
        return;
      }
    }
  }
}
