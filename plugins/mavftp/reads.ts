/**
 * Plain ReadFile requests, a few on their way at a time: a lost one is asked for again by itself, what a short answer left out too.
 *
 * A reply counts only when it answers a request that is on its way, by its number and its offset: a late one of another file, whose
 * session has the same id on PX4, never gets in.
 */
import { Fault, isFault } from "../../core/errors.js";
import { FTP_DATA_AT, Nak, nakName, nakOf, Op, type FtpPacket } from "../../mavlink/ftp.js";
import type { Piece } from "./assembly.js";
import { Later } from "./later.js";
import { RESEND_MOST_MS, type Pace } from "./pace.js";
import { EndedEarly, SessionLost, type Stretch } from "./reading.js";

export interface ReadsOf {
  /** The next piece to ask for; undefined: none for now. */
  next(): Piece | undefined;
  /** Nothing is on its way, and nothing was next. */
  idle(): void;
  /** It cannot go on: SessionLost, or a Fault. */
  failed(error: Error): void;
}

/** Without one byte of progress for so long it is given up. */
export const STUCK_MS = 8000;
const STUCK_ROUNDS = 8;
const REFUSALS_MAX = 3;
const EIO = 5;

interface Pending {
  readonly offset: number;
  readonly length: number;
  /** Of the last sending. */
  seq: number;
  /** Of the sending before: its reply is as good. */
  earlierSeq: number;
  sentMs: number;
  earlierSentMs: number;
  order: number;
  /** Later requests that were answered first. */
  overtaken: number;
  /** It was sent again because of them. */
  hurried: boolean;
  refusals: number;
}

/** What is to be asked for before anything else. */
interface Left extends Piece {
  /** Of the piece that it was a part of. */
  readonly refusals: number;
}

export class Reads {
  readonly #pace: Pace;
  readonly #stretch: Stretch;
  readonly #of: ReadsOf;
  readonly #bySeq = new Map<number, Pending>();
  readonly #pending = new Set<Pending>();
  /** What short replies left out, and halves of what was refused. */
  readonly #left: Left[] = [];
  /** The first byte that cannot be read: what is before it is waited for. */
  #broken: { readonly offset: number; readonly error: Error } | undefined;
  #order = 0;
  readonly #timer = new Later(() => this.#look());
  #progressMs = performance.now();
  #lossMs = -Infinity;
  /** Looks at what is late since the last progress. */
  #rounds = 0;

  constructor(pace: Pace, stretch: Stretch, of: ReadsOf) {
    this.#pace = pace;
    this.#stretch = stretch;
    this.#of = of;
  }

  /** Sends until the window is full. */
  fill(): void {
    if (this.#pending.size === 0) {
      this.#progressMs = performance.now();
      this.#rounds = 0;
    }
    while (this.#pending.size < this.#pace.window) {
      const left = this.#left.shift();
      const piece = left ?? (this.#broken === undefined ? this.#of.next() : undefined);
      if (piece === undefined) break;
      if (piece.offset > (this.#broken?.offset ?? Infinity)) continue;
      // Spelled out: it is made thousands of times a second.
      const pending: Pending = {
        offset: piece.offset,
        length: piece.length,
        seq: -1,
        earlierSeq: -1,
        sentMs: 0,
        earlierSentMs: 0,
        order: 0,
        overtaken: 0,
        hurried: false,
        refusals: left?.refusals ?? 0,
      };
      this.#pending.add(pending);
      this.#send(pending);
    }
    if (this.#pending.size > 0) {
      if (!this.#timer.set) this.#timer.in(this.#pace.resendMs());
    } else if (this.#broken !== undefined) {
      this.#fail(this.#broken.error);
    } else {
      this.stop();
      this.#of.idle();
    }
  }

  /** Answers that are waited for. */
  get waiting(): number {
    return this.#pending.size;
  }

  /** Nothing is sent any more. */
  stop(): void {
    this.#timer.stop();
    this.#pending.clear();
    this.#bySeq.clear();
  }

  /** A reply to a ReadFile, of our session. */
  take(packet: FtpPacket): void {
    const pending = this.#bySeq.get((packet.seq - 1) & 0xffff);
    if (pending === undefined) return;
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
    const now = performance.now();
    const latest = ((packet.seq - 1) & 0xffff) === pending.seq;
    if (this.#pace.roundMs === 0) {
      // The first look was set for a link of which nothing is known.
      this.#timer.stop();
    }
    // Each sending has its number, so what a late answer took is known too: else a link that became slower would be asked twice for all.
    this.#pace.roundTook(now - (latest ? pending.sentMs : pending.earlierSentMs));
    this.#forget(pending);
    if (length < pending.length) this.#left.push({ offset: pending.offset + length, length: pending.length - length, refusals: 0 });
    this.#progressMs = now;
    this.#rounds = 0;
    this.#stretch.assembly.place(pending.offset, packet.payload, FTP_DATA_AT, length);
    if (!latest && pending.hurried) this.#pace.cameLate();
    if (latest)
      for (const other of this.#pending)
        if (other.order < pending.order && ++other.overtaken >= this.#pace.overtaken) {
          this.#again(other);
          other.hurried = true;
        }
    this.fill();
  }

  #send(pending: Pending): void {
    const { file, requests } = this.#stretch;
    this.#bySeq.delete(pending.earlierSeq);
    pending.earlierSeq = pending.seq;
    // A new number each time: under the old one an autopilot may answer with what it last kept.
    pending.seq = requests.nextSeq();
    pending.earlierSentMs = pending.sentMs;
    pending.sentMs = performance.now();
    pending.order = this.#order++;
    pending.overtaken = 0;
    pending.hurried = false;
    this.#bySeq.set(pending.seq, pending);
    requests.sendRead(file.session, pending.offset, pending.length, pending.seq, file.systemId);
  }

  /** Looks for requests that took too long. */
  #look(): void {
    const now = performance.now();
    // Rounds count too: a machine that slept has waited long, but not asked.
    this.#rounds += 1;
    if (now - this.#progressMs > STUCK_MS && this.#rounds >= STUCK_ROUNDS) {
      this.#fail(new Fault("transient", `the autopilot stopped answering reads at byte ${this.#stretch.assembly.whole}`));
      return;
    }
    let soonestMs = Infinity;
    for (const pending of this.#pending) {
      const allowedMs = this.#allowedMs(pending);
      if (now - pending.sentMs >= allowedMs) this.#again(pending);
      soonestMs = Math.min(soonestMs, pending.sentMs + allowedMs);
    }
    this.#timer.in(Math.max(soonestMs - now, 5));
  }

  /** Longer and longer while nothing at all is answered; while others are, what was lost twice is no reason to wait. */
  #allowedMs({ sentMs }: Pending): number {
    return Math.min(Math.max(this.#pace.resendMs(), sentMs - this.#progressMs), RESEND_MOST_MS);
  }

  #again(pending: Pending): void {
    const now = performance.now();
    // One loss per round counts: what is lost together is one event.
    if (now - this.#lossMs > this.#pace.roundMs) {
      this.#lossMs = now;
      this.#pace.lost();
    }
    this.#send(pending);
  }

  #fail(error: Error): void {
    this.stop();
    this.#of.failed(error);
  }

  #forget(pending: Pending): void {
    this.#bySeq.delete(pending.seq);
    this.#bySeq.delete(pending.earlierSeq);
    this.#pending.delete(pending);
  }

  #refused(pending: Pending, packet: FtpPacket): void {
    // The size was known when the file was opened, so its end cannot come before it; PX4 names errors after a stale errno at times.
    const { offset, length } = pending;
    const refusals = ++pending.refusals;
    const fatal = refusedRead(packet, offset, refusals);
    if (fatal === undefined) this.#send(pending);
    else if (!isFault(fatal)) this.#fail(fatal);
    else {
      this.#forget(pending);
      const half = length >> 1;
      // Of a piece that holds one bad byte all others are wanted: else each try, which cuts the file elsewhere, would come a little further.
      if (half > 0) this.#left.unshift({ offset, length: half, refusals }, { offset: offset + half, length: length - half, refusals });
      else {
        this.#broken = { offset, error: fatal };
        for (const other of this.#pending) if (other.offset > offset) this.#forget(other);
      }
      this.fill();
    }
  }
}

/** What a refusal at that byte, the `tries`th, means: SessionLost, EndedEarly, a Fault, or undefined: it is to be asked for again. */
export function refusedRead(packet: FtpPacket, offset: number, tries: number): Error | undefined {
  const code = packet.opcode === Op.Nak ? nakOf(packet).code : Nak.Eof;
  if (code === Nak.InvalidSession || code === Nak.FileNotFound || code === Nak.NoSessionsAvailable) return new SessionLost(nakName(code));
  if (tries < REFUSALS_MAX) return undefined;
  if (code === Nak.Eof) return new EndedEarly(`the file ends before byte ${offset + 1}, it was longer when it was listed`);
  // MAVSDK's stream, once it has met the end of the file, fails for every byte until the file is opened anew (mavlink_ftp_server.cpp).
  // FileExists is what a PX4 makes of any refusal after an errno that an earlier call left behind (mavlink_ftp.cpp): of a session that is gone, too.
  if (code === Nak.Fail || code === Nak.FileExists) return new SessionLost(nakName(code));
  const { errno } = nakOf(packet);
  const card = errno === EIO ? "its card fails there: " : "";
  return new Fault(
    "transient",
    `the autopilot cannot read byte ${offset}: ${card}${nakName(code)}${errno === 0 ? "" : ` (errno ${errno})`}`,
  );
}
