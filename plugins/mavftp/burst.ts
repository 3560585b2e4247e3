/**
 * Reading by bursts: one request, and the autopilot sends packet after packet until it pauses or the file ends. What was lost on the way is filled by
 * plain reads, while the burst runs where the autopilot serves both (PX4), after it where it does not (ArduPilot).
 *
 * Only the offset of data is believed. An end, a flag and a refusal are hints: packets that still come prove them wrong. A burst is never asked
 * for again while its packets come, because an ArduPilot then sends it twice.
 */
import { abortedFault, Fault, isFault } from "../../core/errors.js";
import { FTP_DATA_AT, FTP_DATA_MAX, Nak, nakOf, Op, type FtpPacket } from "../../mavlink/ftp.js";
import { Later } from "./later.js";
import type { Pace } from "./pace.js";
import type { Reading, Stretch } from "./reading.js";
import { Reads, refusedRead, STUCK_MS } from "./reads.js";
import { Stream } from "./stream.js";

export interface BurstRules {
  /** Plain reads are answered while a burst runs. */
  readonly fillsDuring: boolean;
  /** A burst request at the end of the file ends the burst that runs. */
  readonly stoppable: boolean;
  /** A burst does not count as use of the session: something is asked at least so often. */
  readonly keepAliveMs?: number;
  /** Whether a flagged packet, so far into its burst, is surely the last. */
  readonly endsAt: (packets: number, bytes: number) => boolean;
}

/** mavlink_ftp.cpp: a second request turns the stream, the flag is unset memory before 35,000 bytes, sessions close 10 s after the last request. */
export const PX4_BURST: BurstRules = {
  fillsDuring: true,
  stoppable: true,
  keepAliveMs: 3000,
  endsAt: (_packets, bytes) => bytes > 35_000,
};
/** GCS_FTP.cpp: one worker sends a burst to its end, of 500 packets, 2,000 from 4.8 on. */
export const ARDUPILOT_BURST: BurstRules = {
  fillsDuring: false,
  stoppable: false,
  endsAt: (packets) => packets === 500 || packets === 2000,
};

/** With so much behind a gap the gaps are filled before more is asked for: it waits in memory. */
const HOLD_BYTES = 1 << 20;
/** Packets that may overtake one that is not lost. */
const RIPE_BYTES = 3 * FTP_DATA_MAX;
const STALL_LEAST_MS = 150;
const STALL_MOST_MS = 2000;
const HINT_LEAST_MS = 25;
const FIRST_LEAST_MS = 150;
const FIRST_MOST_MS = 1000;
const RESEND_MOST_MS = 2500;
const STUCK_ROUNDS = 4;
const STOP_TRIES = 5;
/** So many ends of bursts, without a byte between, count as much as one of a plain read. */
const EOF_FOR_ONE = 4;
/** A place behind the end of every file. */
const NOWHERE = 0xffff_ffff;
/** Requests whose packets are still taken: an autopilot that was busy answers all that it has queued. */
const REMEMBERED = 16;

export class BurstReading implements Reading {
  readonly #pace: Pace;
  readonly #rules: BurstRules;

  constructor(pace: Pace, rules: BurstRules) {
    this.#pace = pace;
    this.#rules = rules;
  }

  read(stretch: Stretch): Promise<void> {
    return new Promise((resolve, reject) => new Run(this.#pace, this.#rules, stretch, resolve, reject).start());
  }
}

/** One stretch on its way. */
class Run {
  readonly #pace: Pace;
  readonly #rules: BurstRules;
  readonly #stretch: Stretch;
  readonly #resolve: () => void;
  readonly #reject: (error: Error) => void;
  readonly #reads: Reads;
  #state: "streaming" | "filling" | "stopping" = "filling";
  /** The latest first. */
  #streams: Stream[] = [];
  /** Gaps before it are asked for. */
  #asked: number;
  /** Something says that the burst is over. */
  #hinted = false;
  /** Sendings of the present request, with no packet since. */
  #sends = 0;
  /** Refusals since the last new byte. */
  #refusals = 0;
  /** Up to here plain reads are to try: a burst cannot tell which byte of the card is bad. */
  #toRead = 0;
  #packetMs = 0;
  /** Smoothed time between packets. */
  #betweenMs = 0;
  #progressMs = performance.now();
  #rounds = 0;
  /** Numbers of the requests to stop. */
  readonly #stopSeqs: number[] = [];
  #stopMs = 0;
  readonly #timer = new Later(() => this.#look());
  #keepAlive: NodeJS.Timeout | undefined;

  constructor(pace: Pace, rules: BurstRules, stretch: Stretch, resolve: () => void, reject: (error: Error) => void) {
    this.#pace = pace;
    this.#rules = rules;
    this.#stretch = stretch;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#asked = stretch.assembly.whole;
    this.#reads = new Reads(pace, stretch, {
      next: () => this.#gap(),
      idle: () => this.#filled(),
      failed: (error) => this.#end(error),
    });
  }

  start(): void {
    const { signal, requests, file } = this.#stretch;
    if (signal.aborted) {
      this.#reject(abortedFault(signal));
      return;
    }
    signal.addEventListener("abort", this.#abort, { once: true });
    requests.reader = (packet) => {
      if (packet.session !== file.session) return;
      if (packet.reqOpcode === Op.ReadFile) this.#reads.take(packet);
      else if (packet.opcode === Op.Nak) this.#refused(packet);
      else this.#data(packet);
    };
    const { keepAliveMs } = this.#rules;
    if (keepAliveMs !== undefined)
      this.#keepAlive = setInterval(() => {
        requests.send({ opcode: Op.None, session: file.session }, requests.nextSeq(), file.systemId);
      }, keepAliveMs);
    this.#goOn();
  }

  readonly #abort = (): void => this.#end(abortedFault(this.#stretch.signal));

  #end(error?: Error): void {
    this.#timer.stop();
    clearInterval(this.#keepAlive);
    this.#reads.stop();
    this.#stretch.signal.removeEventListener("abort", this.#abort);
    this.#stretch.requests.reader = undefined;
    // Whatever is asked next must not have a number that a packet of the burst has, nor look like a repetition of the burst.
    this.#stretch.requests.skip();
    if (error === undefined) this.#resolve();
    else this.#reject(error);
  }

  /** The burst is over, or none was begun: what comes next. */
  #goOn(): void {
    const { assembly, end, more } = this.#stretch;
    this.#hinted = false;
    this.#timer.stop();
    if (assembly.whole >= end || !more()) {
      this.#end();
    } else if (assembly.head >= end || assembly.head < this.#toRead || assembly.head - assembly.whole > HOLD_BYTES) {
      this.#state = "filling";
      this.#asked = this.#reads.waiting > 0 ? this.#asked : assembly.whole;
      this.#reads.fill();
    } else {
      this.#sends = 0;
      this.#request();
    }
  }

  #request(): void {
    const { requests, file, assembly } = this.#stretch;
    this.#state = "streaming";
    this.#sends += 1;
    this.#hinted = false;
    if (this.#streams.length > 0) requests.skip();
    const seq = requests.nextSeq();
    this.#streams = [new Stream(seq, assembly.head, this.#stretch.end), ...this.#streams.slice(0, REMEMBERED - 1)];
    requests.send({ opcode: Op.BurstReadFile, session: file.session, offset: assembly.head, size: FTP_DATA_MAX }, seq, file.systemId);
    this.#packetMs = performance.now();
    this.#watch();
  }

  /** How long silence is borne now. */
  #patienceMs(): number {
    if (this.#state === "stopping") return Math.max(2 * HINT_LEAST_MS, 4 * this.#betweenMs, 2 * this.#pace.roundMs);
    if (this.#sends > 0) {
      const firstMs = this.#pace.roundMs === 0 ? FIRST_MOST_MS : 4 * this.#pace.roundMs + 100;
      return Math.min(Math.min(Math.max(firstMs, FIRST_LEAST_MS), FIRST_MOST_MS) * 1.5 ** (this.#sends - 1), RESEND_MOST_MS);
    }
    if (this.#hinted) return Math.max(HINT_LEAST_MS, 3 * this.#betweenMs);
    return Math.min(Math.max(STALL_LEAST_MS, 8 * this.#betweenMs), STALL_MOST_MS);
  }

  #watch(): void {
    this.#timer.in(Math.max(1, this.#packetMs + this.#patienceMs() - performance.now()));
  }

  #look(): void {
    const now = performance.now();
    if (now - this.#packetMs < this.#patienceMs() - 0.5) {
      this.#watch();
      return;
    }
    this.#rounds += 1;
    if (this.#state === "stopping") {
      // Silence is no answer: a burst that goes on would leave the plain reads no room.
      if (this.#stopSeqs.length < STOP_TRIES) this.#askToStop(now);
      else this.#end();
    } else if (now - this.#progressMs > STUCK_MS && this.#rounds >= STUCK_ROUNDS) {
      this.#end(new Fault("transient", `the autopilot stopped sending at byte ${this.#stretch.assembly.whole}`));
    } else if (this.#sends > 0) {
      if (this.#stretch.more()) this.#request();
      else this.#end();
    } else this.#goOn();
  }

  #data(packet: FtpPacket): void {
    const { assembly, end, more } = this.#stretch;
    const length = Math.min(packet.size, FTP_DATA_MAX);
    const now = performance.now();
    const betweenMs = now - this.#packetMs;
    // Whatever burst it is of: the autopilot is sending, and what was asked last may wait behind that.
    this.#packetMs = now;
    const stream = length === 0 ? undefined : this.#streams.find((known) => known.has(packet, length));
    if (stream === undefined) return;
    const before = assembly.gained;
    assembly.place(packet.offset, packet.payload, FTP_DATA_AT, Math.min(length, end - packet.offset));
    if (assembly.gained > before) {
      this.#progressMs = now;
      this.#rounds = this.#refusals = 0;
    }
    if (stream === this.#streams[0]) this.#flows(betweenMs);
    if (this.#state === "filling") return;
    if (this.#state === "stopping") {
      this.#stop(now);
      return;
    }
    const flagged = packet.burstComplete === 1 && stream === this.#streams[0];
    if (assembly.head >= end || (flagged && this.#rules.endsAt(stream.packets, stream.bytes))) {
      this.#goOn();
      return;
    }
    if (flagged) this.#hint();
    if (!more()) {
      if (this.#rules.stoppable) this.#stop(now);
    } else if (this.#rules.fillsDuring && assembly.head > assembly.whole) this.#reads.fill();
  }

  /** A packet of the present burst: it runs. */
  #flows(betweenMs: number): void {
    const slow = this.#sends > 0;
    if (!slow) this.#betweenMs += (betweenMs - this.#betweenMs) / 16;
    this.#sends = 0;
    this.#hinted = false;
    if (slow) this.#watch();
  }

  #hint(): void {
    this.#hinted = true;
    this.#watch();
  }

  /** No more is wanted. */
  #stop(now: number): void {
    const againMs = 2 * this.#pace.roundMs + 100;
    // What is on the way comes first; that a stop was lost is seen by what comes long after it.
    if (this.#stopSeqs.length > 0 && (now - this.#stopMs < againMs || this.#stopSeqs.length >= STOP_TRIES)) return;
    this.#state = "stopping";
    this.#reads.stop();
    this.#askToStop(now);
  }

  /** The stream is turned to where there is nothing. */
  #askToStop(now: number): void {
    const { requests, file } = this.#stretch;
    this.#stopMs = this.#packetMs = now;
    const seq = requests.nextSeq();
    this.#stopSeqs.push(seq);
    requests.send({ opcode: Op.BurstReadFile, session: file.session, offset: NOWHERE, size: FTP_DATA_MAX }, seq, file.systemId);
    this.#watch();
  }

  #refused(packet: FtpPacket): void {
    const { assembly, end } = this.#stretch;
    if (this.#state === "filling") return;
    if (this.#state === "stopping") {
      if (this.#stopSeqs.includes((packet.seq - 1) & 0xffff)) this.#end();
      return;
    }
    this.#packetMs = performance.now();
    // The end of a burst of before says nothing about this one.
    if (this.#streams[0]?.mayEndWith(packet) !== true) return;
    const { code } = nakOf(packet);
    if (code === Nak.Eof && assembly.head >= end) {
      this.#goOn();
      return;
    }
    this.#refusals += 1;
    // A burst over the last bytes of a file tells its end also where these were lost on the way.
    const fatal = refusedRead(packet, assembly.head, code === Nak.Eof ? Math.floor(this.#refusals / EOF_FOR_ONE) : this.#refusals);
    if (isFault(fatal)) {
      this.#toRead = Math.min(assembly.head + FTP_DATA_MAX, end);
      this.#refusals = 0;
      this.#goOn();
      return;
    }
    if (fatal !== undefined) {
      this.#end(fatal);
      return;
    }
    this.#sends = 0;
    this.#hint();
  }

  /** What the reads are to ask for. */
  #gap() {
    const { assembly, end, more } = this.#stretch;
    const to =
      this.#state === "filling"
        ? Math.max(Math.min(assembly.head, end), this.#toRead)
        : this.#rules.fillsDuring
          ? assembly.head - RIPE_BYTES
          : 0;
    const piece = more() ? assembly.missing(this.#asked, to, FTP_DATA_MAX) : undefined;
    if (piece !== undefined) this.#asked = piece.offset + piece.length;
    return piece;
  }

  #filled(): void {
    if (this.#state === "filling") this.#goOn();
  }
}
