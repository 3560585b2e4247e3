/**
 * The file server of ArduPilot (libraries/GCS_MAVLink/GCS_FTP.cpp), as its clients meet it, in three generations: 4.6 and before, 4.7, and 4.8.
 *
 * One worker does one thing at a time: a burst runs to its end (500 packets, 2,000 from 4.8 on) before anything else is looked at, and nothing
 * stops it. Where the port has no flow control (a UART; USB up to 4.6, pull request 31549) it pauses after each packet of a burst, so as to
 * take a third of the wire. A reply waits until the transmit ring has room, and a radio that says how full it is (RADIO_STATUS) more than a third of
 * its buffer; other streams come at a quarter of their rate while files were asked for within a second (GCS_Common.cpp). The last reply is sent again for a request with the number
 * before it, from the same sender and session, whatever that asks. Offsets are signed: nothing beyond 2 GiB can be read. 4.8 knows
 * ListDirectoryWithTime and "@MAV_LOG" (pull request 34229).
 * Writing is in `ardupilot-changes.ts`.
 */
import { encodeFtp, FTP_DATA_MAX, FTP_PAYLOAD, Nak, Op, opName, type FtpPacket } from "../mavlink/ftp.js";
import { changeCard, OFFSET_MAX } from "./ardupilot-changes.js";
import { listing } from "./ardupilot-listing.js";
import type { Release } from "./ardupilot-releases.js";
import { OneSession, type Session, type SessionRules } from "./ardupilot-sessions.js";
import { Worker, type Asked, type Sleep } from "./ardupilot-worker.js";
import type { FtpServer, FtpSurroundings, Sender } from "./autopilot.js";
import { WrittenFile } from "./disk-changes.js";
import { EINVAL } from "./disk-error.js";
import type { DiskFile } from "./disk-file.js";
import { logAlias } from "./listing.js";
import { nothing, onDisk, Refusal, u32 } from "./refusal.js";

/** Where its logs are. */
export const LOG_DIR = "/APM/LOGS";
/** Unsigned, as the server reckons: 254 bytes of payload and 12 around them. */
const FRAME_BYTES = 266;
/** What a USB port says of itself. */
const USB_BYTES_PER_SECOND = 204_800;
/** What one packet of a burst takes the worker: 3,170 KiB/s were measured on its code without a wire. */
const PACKET_MS = 0.0736;

/** Percent of a radio's buffer: with no more free nothing of FTP is sent, to anybody. */
const RADIO_LEAST = 33;
const STREAMS_SLOW_MS = 1000;

/** The reply that is built, and kept to be sent again. */
interface Answer {
  seq: number;
  session: number;
  opcode: number;
  reqOpcode: number;
  burstComplete: number;
  offset: number;
  data: Uint8Array;
  to: Sender | undefined;
}

export class ArdupilotFtp implements FtpServer {
  readonly #env: FtpSurroundings;
  readonly #release: Release;
  readonly #worker: Worker;
  readonly #sessions: SessionRules;
  readonly #out = Buffer.alloc(FTP_PAYLOAD);
  readonly #chunk = Buffer.alloc(FTP_DATA_MAX);
  #reply: Answer = { seq: 0, session: -1, opcode: 0, reqOpcode: 0, burstComplete: 0, offset: 0, data: nothing, to: undefined };
  #forgetSweep: (() => void) | undefined;

  constructor(env: FtpSurroundings, release: Release) {
    this.#env = env;
    this.#release = release;
    this.#worker = new Worker(env);
    this.#sessions = release.sessions((session) => this.#close(session));
    this.#worker.start(this.#work());
  }

  request(packet: FtpPacket, from: Sender): void {
    const name = opName(packet.opcode);
    this.#env.stats.requests[name] = (this.#env.stats.requests[name] ?? 0) + 1;
    this.#worker.receive(packet, from);
  }

  pause(ms: number): void {
    this.#worker.pause(ms);
  }

  stop(): void {
    this.#worker.stop();
    this.#forgetSweep?.();
    for (const session of this.#sessions.all) this.#close(session);
  }

  openSessions(): number {
    return this.#sessions.all.filter((session) => session.file !== undefined).length;
  }

  slowsStreams(channel: number): boolean {
    const now = this.#worker.now();
    // The old way knows one time for all links.
    const old = this.#sessions instanceof OneSession;
    return this.#sessions.all.some(({ sentMs, owner }) => now - sentMs < STREAMS_SLOW_MS && (old || owner?.channel === channel));
  }

  *#work(): Generator<Sleep> {
    for (;;) {
      const asked = this.#worker.next();
      if (asked === undefined) {
        if (this.#forgetSweep === undefined) this.#sweep();
        yield "idle";
      } else yield* this.#handle(asked);
    }
  }

  *#handle(asked: Asked): Generator<Sleep> {
    const old = this.#sessions instanceof OneSession;
    // The old way looks for a repetition first, the new way for the session.
    if (old && this.#isAgain(asked, asked.session)) {
      yield* this.#push(asked, this.#sessions.all[0]);
      return;
    }
    let found;
    try {
      found = this.#sessions.find(asked, this.#worker.now());
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.#begin(asked, asked.session);
      this.#refuse(error);
      yield* this.#push(asked, old ? this.#sessions.all[0] : undefined);
      return;
    }
    if (found === "done") {
      this.#begin(asked, asked.session);
      yield* this.#push(asked, old ? this.#sessions.all[0] : undefined);
      return;
    }
    const { session, id } = found;
    if (!old && this.#isAgain(asked, id) && this.#reply.data[0] !== Nak.NoSessionsAvailable) {
      yield* this.#push(asked, session);
      return;
    }
    this.#begin(asked, id);
    try {
      if (asked.size > FTP_DATA_MAX) throw new Refusal(Nak.InvalidDataSize);
      if (asked.opcode === Op.BurstReadFile) {
        yield* this.#burst(asked, session);
        return;
      }
      this.#reply.data = yield* this.#serve(asked, session);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.#refuse(error);
    }
    yield* this.#push(asked, session);
  }

  /** True where the request's number is the one before the last reply's. */
  #isAgain(asked: Asked, session: number): boolean {
    const { to } = this.#reply;
    return (
      to?.system === asked.from.system &&
      to.component === asked.from.component &&
      this.#reply.session === session &&
      asked.seq + 1 === this.#reply.seq
    );
  }

  #begin(asked: Asked, session: number): void {
    this.#reply = {
      seq: (asked.seq + 1) & 0xffff,
      session,
      opcode: Op.Ack,
      reqOpcode: asked.opcode,
      burstComplete: 0,
      offset: 0,
      data: nothing,
      to: asked.from,
    };
  }

  #refuse(refusal: Refusal): void {
    this.#reply.opcode = Op.Nak;
    this.#reply.data = refusal.data;
  }

  /** Sends the reply when the ring has room for it. */
  *#push(asked: Asked, session: Session | undefined): Generator<Sleep> {
    const { to } = this.#reply;
    const begunMs = this.#worker.now();
    if (session !== undefined) this.#sessions.sent(session, { opcode: Op.None }, begunMs);
    while (to !== undefined && !this.#canSend(to.channel)) {
      if (this.#worker.now() - begunMs > this.#release.giveUpMs) {
        if (session !== undefined) {
          this.#close(session);
          session.sentMs = -Infinity;
        }
        return;
      }
      yield this.#release.retryMs;
    }
    if (session !== undefined && this.#reply.reqOpcode === Op.TerminateSession) this.#sessions.sent(session, asked, begunMs);
    if (to === undefined) return;
    const length = encodeFtp({ ...this.#reply, targetSystem: to.system, targetComponent: to.component }, this.#out);
    this.#env.send(this.#out, length, to.channel);
  }

  #canSend(channel: number): boolean {
    const { link, freeRing, radioFree } = this.#env;
    return radioFree() > RADIO_LEAST && (!link.paced || freeRing(channel) >= FRAME_BYTES);
  }

  /** The data of the ACK. Throws Refusal. */
  *#serve(asked: Asked, session: Session): Generator<Sleep, Uint8Array> {
    switch (asked.opcode) {
      case Op.None:
        return nothing;
      case Op.TerminateSession:
      case Op.ResetSessions:
        this.#close(session);
        return nothing;
      case Op.ListDirectory:
        return this.#list(asked, false);
      case Op.ListDirectoryWithTime:
        if (!this.#release.times) throw new Refusal(this.#release.unknown);
        return this.#list(asked, true);
      case Op.OpenFileRO: {
        if (session.file !== undefined && session.idle(this.#worker.now())) this.#close(session);
        if (session.file !== undefined) throw new Refusal(Nak.Fail);
        const path = this.#path(asked);
        session.file = onDisk(() => this.#env.disk.open(path));
        this.#env.stats.sessionsOpened += 1;
        return u32(session.file.size);
      }
      case Op.ReadFile: {
        const n = this.#read(fileOf(session), asked.offset, asked.size);
        if (n === 0) throw new Refusal(Nak.Eof);
        this.#reply.offset = asked.offset;
        return this.#chunk.subarray(0, n);
      }
      case Op.CalcFileCRC32: {
        const path = this.#path(asked);
        const { disk, crcBytesPerSecond } = this.#env;
        const crc = onDisk(() => disk.crc(path));
        if (crcBytesPerSecond !== Infinity) {
          const file = onDisk(() => disk.open(path));
          file.close();
          yield (file.size / crcBytesPerSecond) * 1000;
        }
        return u32(crc);
      }
      default: {
        const answered = changeCard(asked, session, this.#env, { path: () => this.#path(asked), openMakes: this.#release.openMakes });
        // TruncateFile too is not there.
        if (answered === undefined) throw new Refusal(this.#release.unknown);
        if (answered.offset !== undefined) this.#reply.offset = answered.offset;
        return nothing;
      }
    }
  }

  #list(asked: Asked, timed: boolean): Buffer {
    this.#reply.offset = asked.offset;
    const path = this.#path(asked);
    return listing(
      onDisk(() => this.#env.disk.list(path)),
      asked.offset,
      timed,
      this.#release.listing,
    );
  }

  /** The path of a request. Throws the Refusal of one whose size is not its length. */
  #path(asked: Asked): Buffer {
    const zero = asked.data.indexOf(0);
    const length = zero === -1 ? FTP_DATA_MAX : zero;
    const counted = this.#release.countedZero && asked.size === length + 1;
    if (asked.size === 0 || (asked.size !== length && !counted)) throw new Refusal(Nak.InvalidDataSize);
    const path = asked.data.subarray(0, length);
    return this.#release.times ? logAlias(path, LOG_DIR, this.#env.disk) : path;
  }

  /** Bytes into the chunk; 0 at the end that the file has now. Throws Refusal. */
  #read(file: DiskFile, offset: number, size: number): number {
    if (offset > OFFSET_MAX) throw new Refusal(Nak.FailErrno, EINVAL);
    const n = onDisk(() => file.read(offset, this.#chunk, 0, Math.min(size, FTP_DATA_MAX, this.#env.readMost), file.now()));
    this.#env.stats.payloadBytes += n;
    return n;
  }

  *#burst(asked: Asked, session: Session): Generator<Sleep> {
    const reply = this.#reply;
    const { burstPackets, end } = this.#release;
    let begun = false;
    try {
      const file = fileOf(session);
      const size = Math.min(asked.size === 0 ? FTP_DATA_MAX : asked.size, this.#env.readMost);
      const pauseMs = this.#pauseMs(size);
      if (asked.offset > OFFSET_MAX) throw new Refusal(Nak.FailErrno, EINVAL);
      let offset = asked.offset;
      if (end.offsetOfEnd) reply.offset = offset;
      begun = true;
      for (let i = 0; i < burstPackets; i++) {
        const n = this.#read(file, offset, size);
        if (n === 0) throw new Refusal(Nak.Eof);
        reply.opcode = Op.Ack;
        reply.offset = offset;
        reply.burstComplete = i === burstPackets - 1 || (end.shortFlagged && n < size) ? 1 : 0;
        reply.data = this.#chunk.subarray(0, n);
        yield* this.#push(asked, session);
        if (end.offsetOfEnd || n < size) reply.offset += n;
        reply.seq = (reply.seq + 1) & 0xffff;
        offset += n;
        yield pauseMs;
      }
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (end.refusalFlagged && begun) reply.burstComplete = 1;
      this.#refuse(error);
      yield* this.#push(asked, session);
    }
  }

  /** After each packet of a burst. */
  #pauseMs(size: number): number {
    const { paced, baud } = this.#env.link;
    if (!paced) return 0;
    if (baud === undefined && this.#release.flowControl) return PACKET_MS;
    return Math.floor((3000 * (27 + size)) / (baud === undefined ? USB_BYTES_PER_SECOND : baud / 10));
  }

  #close(session: Session): void {
    if (session.file === undefined) return;
    session.file.close();
    session.file = undefined;
    this.#env.stats.sessionsClosed += 1;
  }

  /** Closes what is long unused, now and when the next one is. */
  #sweep(): void {
    this.#forgetSweep = undefined;
    const open = this.openSessions();
    const now = this.#worker.now();
    const again = this.#sessions.sweep(now);
    this.#env.stats.sessionsTimedOut += open - this.openSessions();
    if (again !== undefined) this.#forgetSweep = this.#env.clock.after(again - now + 1, () => this.#sweep());
  }
}

/** The file of a session that reads. Throws Refusal. */
function fileOf(session: Session): DiskFile {
  if (session.file === undefined) throw new Refusal(Nak.FileNotFound);
  if (session.file instanceof WrittenFile) throw new Refusal(Nak.Fail);
  return session.file;
}
