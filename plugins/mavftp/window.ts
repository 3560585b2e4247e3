/**
 * Reading by a window of ReadFile requests: a few are always on their way, a lost one is asked for again by itself, and the window's size
 * finds what the link bears: one more per loss-free round, half after a loss.
 *
 * A reply counts only when it answers a request that is on its way, by its number and its offset: a late one of another file, whose
 * session has the same id on PX4, never gets in. A reply may be shorter than asked; the rest is asked for again.
 */
import { abortedFault, Fault } from "../../core/errors.js";
import { FTP_DATA_AT, FTP_DATA_MAX, Nak, nakName, nakOf, Op, type FtpPacket } from "../../mavlink/ftp.js";
import { SessionLost, type Reading, type Stretch } from "./reading.js";

export interface WindowLimits {
  readonly first: number;
  readonly least: number;
  readonly most: number;
}

/** Four never overrun a PX4's smallest buffers, so it never goes below; eight fill every link. */
export const PX4_WINDOW: WindowLimits = { first: 4, least: 4, most: 8 };
/** ArduPilot queues five requests and drops what comes beyond, from whomever. */
export const ARDUPILOT_WINDOW: WindowLimits = { first: 4, least: 4, most: 5 };
/** One at a time: slow and sure. */
export const SAFEST_WINDOW: WindowLimits = { first: 1, least: 1, most: 1 };

const RESEND_LEAST_MS = 30;
const RESEND_MOST_MS = 1000;
/** Without one byte of progress for so long the stretch is given up. */
const STUCK_MS = 8000;
const STUCK_ROUNDS = 8;
/** So many later requests answered first: it is lost. */
const OVERTAKEN = 3;
const EOF_TRIES = 3;

interface Pending {
  readonly offset: number;
  readonly length: number;
  /** Of the last sending. */
  seq: number;
  /** Of the sending before: its reply is as good. */
  earlierSeq: number;
  sentMs: number;
  order: number;
  sends: number;
  overtaken: number;
  eofs: number;
}

export class WindowReading implements Reading {
  readonly #limits: WindowLimits;
  /** What was learned of the link stays from file to file. */
  #window: number;
  #roundMs = 0;
  #varianceMs = 0;

  constructor(limits: WindowLimits) {
    this.#limits = limits;
    this.#window = limits.first;
  }

  /** Requests that may be on their way now. */
  get window(): number {
    return Math.floor(this.#window);
  }

  read(stretch: Stretch): Promise<void> {
    return new Promise((resolve, reject) => new Run(this, stretch, resolve, reject).start());
  }

  /** How long a request may take before it counts as lost. */
  resendMs(): number {
    if (this.#roundMs === 0) return RESEND_MOST_MS;
    return Math.min(Math.max(this.#roundMs + 4 * this.#varianceMs, RESEND_LEAST_MS), RESEND_MOST_MS);
  }

  roundTook(ms: number): void {
    if (this.#roundMs === 0) {
      this.#roundMs = ms;
      this.#varianceMs = ms / 2;
    } else {
      this.#varianceMs += (Math.abs(ms - this.#roundMs) - this.#varianceMs) / 4;
      this.#roundMs += (ms - this.#roundMs) / 8;
    }
    this.#window = Math.min(this.#limits.most, this.#window + 1 / this.#window);
  }

  lost(): void {
    this.#window = Math.max(this.#limits.least, this.#window / 2);
  }

  get roundMs(): number {
    return this.#roundMs;
  }
}

/** One stretch on its way. */
class Run {
  readonly #pace: WindowReading;
  readonly #stretch: Stretch;
  readonly #resolve: () => void;
  readonly #reject: (error: Error) => void;
  readonly #bySeq = new Map<number, Pending>();
  readonly #pending = new Set<Pending>();
  /** Pieces that replies left out. */
  readonly #missing: { offset: number; length: number }[] = [];
  #next: number;
  #order = 0;
  #timer: NodeJS.Timeout | undefined;
  #progressMs = performance.now();
  #lossMs = -Infinity;
  /** Looks at what is late since the last progress. */
  #rounds = 0;

  constructor(pace: WindowReading, stretch: Stretch, resolve: () => void, reject: (error: Error) => void) {
    this.#pace = pace;
    this.#stretch = stretch;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#next = stretch.assembly.whole;
  }

  start(): void {
    if (this.#stretch.signal.aborted) {
      this.#reject(abortedFault(this.#stretch.signal));
      return;
    }
    this.#stretch.signal.addEventListener("abort", this.#stop, { once: true });
    this.#stretch.requests.reader = (packet) => this.#take(packet);
    this.#fill();
  }

  readonly #stop = (): void => this.#end(abortedFault(this.#stretch.signal));

  #end(error?: Error): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#stretch.signal.removeEventListener("abort", this.#stop);
    this.#stretch.requests.reader = undefined;
    if (error === undefined) this.#resolve();
    else this.#reject(error);
  }

  /** Sends until the window is full; ends the stretch when nothing is left to do. */
  #fill(): void {
    const { end } = this.#stretch;
    while (this.#pending.size < this.#pace.window && (this.#missing.length > 0 || (this.#next < end && this.#stretch.more()))) {
      const piece = this.#missing.shift();
      const offset = piece?.offset ?? this.#next;
      const length = piece?.length ?? Math.min(FTP_DATA_MAX, end - this.#next);
      if (piece === undefined) this.#next += length;
      const pending = { offset, length, seq: -1, earlierSeq: -1, sentMs: 0, order: 0, sends: 0, overtaken: 0, eofs: 0 };
      this.#pending.add(pending);
      this.#send(pending);
    }
    if (this.#pending.size === 0) this.#end();
    else this.#timer ??= setTimeout(this.#look, this.#pace.resendMs());
  }

  #send(pending: Pending): void {
    const { file, requests } = this.#stretch;
    this.#bySeq.delete(pending.earlierSeq);
    pending.earlierSeq = pending.seq;
    // A new number each time: under the old one an autopilot may answer with what it last kept.
    pending.seq = requests.nextSeq();
    pending.sentMs = performance.now();
    pending.order = this.#order++;
    pending.sends += 1;
    pending.overtaken = 0;
    this.#bySeq.set(pending.seq, pending);
    requests.sendRead(file.session, pending.offset, pending.length, pending.seq, file.systemId);
  }

  /** Looks for requests that took too long. */
  readonly #look = (): void => {
    this.#timer = undefined;
    const now = performance.now();
    // Rounds count too: a machine that slept has waited long, but not asked.
    this.#rounds += 1;
    if (now - this.#progressMs > STUCK_MS && this.#rounds >= STUCK_ROUNDS) {
      const fault = new Fault("transient", `the autopilot stopped answering reads at byte ${this.#stretch.assembly.whole}`);
      this.#end(fault);
      return;
    }
    let soonestMs = Infinity;
    for (const pending of this.#pending) {
      const allowedMs = Math.min(this.#pace.resendMs() * 2 ** (pending.sends - 1), RESEND_MOST_MS);
      if (now - pending.sentMs >= allowedMs) this.#again(pending);
      soonestMs = Math.min(soonestMs, pending.sentMs + allowedMs);
    }
    this.#timer = setTimeout(this.#look, Math.max(soonestMs - now, 5));
  };

  #again(pending: Pending): void {
    const now = performance.now();
    // One loss per round counts: what is lost together is one event.
    if (now - this.#lossMs > this.#pace.roundMs) {
      this.#lossMs = now;
      this.#pace.lost();
    }
    this.#send(pending);
  }

  #take(packet: FtpPacket): void {
    const pending = this.#bySeq.get((packet.seq - 1) & 0xffff);
    if (pending === undefined || packet.session !== this.#stretch.file.session) return;
    if (packet.opcode === Op.Nak) {
      this.#refused(pending, packet);
      return;
    }
    if (packet.offset !== pending.offset) return;
    const length = Math.min(packet.size, pending.length);
    if (length === 0) {
      this.#refused(pending, packet);
      return;
    }
    const latest = ((packet.seq - 1) & 0xffff) === pending.seq;
    if (latest) this.#pace.roundTook(performance.now() - pending.sentMs);
    this.#done(pending);
    if (length < pending.length) this.#missing.push({ offset: pending.offset + length, length: pending.length - length });
    this.#progressMs = performance.now();
    this.#rounds = 0;
    this.#stretch.assembly.place(pending.offset, packet.payload, FTP_DATA_AT, length);
    if (latest) for (const other of this.#pending) if (other.order < pending.order && ++other.overtaken >= OVERTAKEN) this.#again(other);
    this.#fill();
  }

  #done(pending: Pending): void {
    this.#bySeq.delete(pending.seq);
    this.#bySeq.delete(pending.earlierSeq);
    this.#pending.delete(pending);
  }

  #refused(pending: Pending, packet: FtpPacket): void {
    const code = packet.opcode === Op.Nak ? nakOf(packet).code : Nak.Eof;
    if (code === Nak.InvalidSession || code === Nak.FileNotFound || code === Nak.NoSessionsAvailable) {
      this.#end(new SessionLost(nakName(code)));
      return;
    }
    // The size was known when the file was opened, so its end cannot come before it; PX4 names errors after a stale errno at times.
    if (code === Nak.Eof && ++pending.eofs >= EOF_TRIES) {
      this.#end(new Fault("changed", `the file ends before byte ${pending.offset + 1}, it was longer when it was listed`));
      return;
    }
    if (code !== Nak.Eof && pending.sends >= EOF_TRIES) {
      const { errno } = nakOf(packet);
      this.#end(
        new Fault(
          "transient",
          `the autopilot cannot read byte ${pending.offset}: ${nakName(code)}${errno === 0 ? "" : ` (errno ${errno})`}`,
        ),
      );
      return;
    }
    this.#send(pending);
  }
}
