/**
 * The file server of PX4 (src/modules/mavlink/mavlink_ftp.cpp, 1.12 to 1.17, and 1.18), as its clients meet it.
 *
 * One session per link, always with the id 0, closed after 10 s (1.18: 30 s) without any request, a refused one included. The last small
 * reply is kept and sent again for a request with the same number, whatever that asks. Reads are answered at once; a burst runs in ticks
 * of 10 ms by the free space of the transmit ring, and asks to be requested again after 35,000 bytes. A checksum keeps the whole link
 * busy: what comes meanwhile waits in a receive buffer of 600 bytes, and is lost beyond. 1.18 knows ListDirectoryWithTime (pull request
 * 27542) and "@MAV_LOG" (27151). Writing is refused: this card is read only.
 */
import { decodeFtp, emptyPacket, encodeFtp, FTP_DATA_MAX, FTP_PAYLOAD, Nak, Op, opName, type FtpPacket } from "../mavlink/ftp.js";
import { AUTOPILOT_PX4 } from "../mavlink/messages.js";
import type { Autopilot, FtpServer, FtpSurroundings, Sender } from "./autopilot.js";
import { DiskError } from "./disk-error.js";
import type { DiskEntry } from "./disk.js";
import type { DiskFile } from "./disk-file.js";
import { logAlias, timedEntry } from "./listing.js";
import { nothing, onDisk, pathOf, Refusal, u32 } from "./refusal.js";

const TICK_MS = 10;
/** What a late timer of this process may take from the next tick. */
const TICK_LATE_MS = 5;
/** A signed version 2 frame of FILE_TRANSFER_PROTOCOL: what PX4 reckons with. */
const FRAME_BYTES = 279;
const BURST_BYTES = 35_000;
const SMALL_REPLY = 4;
const RECEIVE_BYTES = 600;
const LOG_DIR = "/fs/microsd/log";

/** What one release does otherwise than another. */
interface Release {
  readonly idleMs: number;
  /** Lists with times, and knows the directory of logs by its alias. */
  readonly times: boolean;
}

export const px4: Autopilot = {
  name: "px4",
  autopilot: AUTOPILOT_PX4,
  version: [1, 15, 4],
  transmitRing: 12_000,
  serverPerLink: true,
  logDir: LOG_DIR,
  firstLog: "log001.ulg",
  sessions: 1,
  parameterFile: "/etc/extras/parameters.json.xz",
  ftp: (surroundings) => new Px4Ftp(surroundings, { idleMs: 10_000, times: false }),
};

export const px4v118: Autopilot = {
  ...px4,
  name: "px4-1.18",
  version: [1, 18, 0],
  ftp: (surroundings) => new Px4Ftp(surroundings, { idleMs: 30_000, times: true }),
};

class Px4Ftp implements FtpServer {
  readonly #env: FtpSurroundings;
  readonly #release: Release;
  readonly #out = Buffer.alloc(FTP_PAYLOAD);
  readonly #chunk = Buffer.alloc(FTP_DATA_MAX);
  readonly #last = { valid: false, length: 0, payload: Buffer.alloc(FTP_PAYLOAD), packet: emptyPacket() };
  #file: DiskFile | undefined;
  #forgetIdle: (() => void) | undefined;
  #lastRequestMs = 0;
  #forgetTick: (() => void) | undefined;
  #tickedMs = -Infinity;
  #burst: { offset: number; seq: number; sent: number; readonly to: Sender } | undefined;
  /** While a checksum is computed: what the receive buffer holds. */
  #held: { readonly packet: FtpPacket; readonly from: Sender }[] | undefined;
  #forgetBusy: (() => void) | undefined;

  constructor(env: FtpSurroundings, release: Release) {
    this.#env = env;
    this.#release = release;
  }

  request(packet: FtpPacket, from: Sender): void {
    if (this.#held === undefined) this.#take(packet, from);
    else if (this.#held.reduce((bytes, held) => bytes + held.from.wireBytes, from.wireBytes) > RECEIVE_BYTES)
      this.#env.stats.droppedByReceive += 1;
    else this.#held.push({ packet: { ...packet, payload: Buffer.from(packet.payload) }, from });
  }

  #take(packet: FtpPacket, from: Sender): void {
    const name = opName(packet.opcode);
    this.#env.stats.requests[name] = (this.#env.stats.requests[name] ?? 0) + 1;
    this.#lastRequestMs = this.#env.clock.now();
    if (this.#last.valid && packet.seq + 1 === this.#last.packet.seq) {
      this.#env.send(this.#last.payload, this.#last.length, from.channel);
      return;
    }
    try {
      if (packet.size > FTP_DATA_MAX) throw new Refusal(Nak.InvalidDataSize);
      const data = this.#serve(packet, from);
      if (data !== later) this.#reply(packet, Op.Ack, from, data);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.#reply(packet, Op.Nak, from, error.data);
    }
  }

  stop(): void {
    this.#close();
    this.#last.valid = false;
    this.#forgetBusy?.();
    this.#held = undefined;
  }

  openSessions(): number {
    return this.#file === undefined ? 0 : 1;
  }

  /** The data of the ACK; `later` where the answer is a stream. */
  #serve(packet: FtpPacket, from: Sender): Uint8Array | typeof later {
    switch (packet.opcode) {
      case Op.None:
        return nothing;
      case Op.TerminateSession:
        this.#session(packet);
        this.#close();
        return nothing;
      case Op.ResetSessions:
        this.#close();
        return nothing;
      case Op.ListDirectory:
        return this.#list(packet, false);
      case Op.ListDirectoryWithTime:
        if (!this.#release.times) throw new Refusal(Nak.UnknownCommand);
        return this.#list(packet, true);
      case Op.OpenFileRO: {
        if (this.#file !== undefined) throw new Refusal(Nak.NoSessionsAvailable);
        this.#file = onDisk(() => this.#env.disk.open(this.#path(packet)));
        this.#env.stats.sessionsOpened += 1;
        this.#watch();
        packet.session = 0;
        return u32(this.#file.size);
      }
      case Op.ReadFile: {
        const file = this.#session(packet);
        if (packet.offset >= file.size) throw new Refusal(Nak.Eof);
        const n = onDisk(() => file.read(packet.offset, this.#chunk, 0, Math.min(packet.size, this.#env.readMost)));
        this.#env.stats.payloadBytes += n;
        return this.#chunk.subarray(0, n);
      }
      case Op.BurstReadFile:
        this.#session(packet);
        // While a stream runs this turns it to the new offset: PX4 keeps one.
        this.#burst = { offset: packet.offset, seq: packet.seq + 1, sent: 0, to: from };
        this.#schedule();
        return later;
      case Op.CalcFileCRC32:
        return this.#crc(packet, from);
      case Op.TruncateFile:
        // Its file's size is asked for first; the errno of that is not kept.
        onDiskOr(new Refusal(Nak.FailErrno, 0), () => this.#env.disk.open(this.#path(packet)).close());
        throw new Refusal(Nak.FileProtected);
      case Op.CreateFile:
      case Op.WriteFile:
      case Op.RemoveFile:
      case Op.CreateDirectory:
      case Op.RemoveDirectory:
      case Op.OpenFileWO:
      case Op.Rename:
        throw new Refusal(Nak.FileProtected);
      default:
        throw new Refusal(Nak.UnknownCommand);
    }
  }

  #session(packet: FtpPacket): DiskFile {
    if (packet.session !== 0 || this.#file === undefined) throw new Refusal(Nak.InvalidSession);
    return this.#file;
  }

  #path(packet: FtpPacket): Buffer {
    return this.#release.times ? logAlias(pathOf(packet), LOG_DIR, this.#env.disk) : pathOf(packet);
  }

  #crc(packet: FtpPacket, from: Sender): Uint8Array | typeof later {
    const path = this.#path(packet);
    // PX4 answers a missing file here with FailErrno, whose errno it has not set.
    const crc = u32(onDiskOr(new Refusal(Nak.FailErrno, 0), () => this.#env.disk.crc(path)));
    const { crcBytesPerSecond, disk } = this.#env;
    if (crcBytesPerSecond === Infinity) return crc;
    const file = disk.open(path);
    file.close();
    const asked = { ...packet, payload: nothing };
    this.#hold((file.size / crcBytesPerSecond) * 1000, () => this.#reply(asked, Op.Ack, from, crc));
    return later;
  }

  pause(ms: number): void {
    this.#hold(ms, () => undefined);
  }

  /** The receiving thread does one thing for so long; what comes meanwhile is looked at then. */
  #hold(ms: number, then: () => void): void {
    if (this.#held !== undefined) return;
    this.#held = [];
    this.#forgetBusy = this.#env.clock.after(ms, () => {
      const held = this.#held ?? [];
      this.#held = undefined;
      then();
      for (const { packet: next, from: sender } of held) this.request(next, sender);
    });
  }

  /** As many entries from number `offset` on as fit. Past the end: Eof; but an empty directory is an empty answer. */
  #list(packet: FtpPacket, timed: boolean): Buffer {
    const { offset } = packet;
    const found = onDisk(() => this.#env.disk.list(this.#path(packet)));
    const count = found.length + (found.length === 0 ? 0 : found.length === 1 ? 1 : 2);
    const parts: Buffer[] = [];
    let length = 0;
    for (let at = offset; at < count; at++) {
      // "." and ".." come where the card has them, which is anywhere.
      const entry = at === 1 || at === 3 ? skipped : entryText(found[at - (at > 3 ? 2 : at > 1 ? 1 : 0)] as DiskEntry, timed);
      if (length + entry.length + 1 > FTP_DATA_MAX) break;
      parts.push(entry, zero);
      length += entry.length + 1;
    }
    if (length === 0 && offset > 0) throw new Refusal(Nak.Eof);
    return Buffer.concat(parts);
  }

  #reply(packet: FtpPacket, opcode: number, to: Sender, data: Uint8Array): void {
    const length = encodeFtp(
      {
        targetSystem: to.system,
        targetComponent: to.component,
        seq: (packet.seq + 1) & 0xffff,
        session: packet.session,
        opcode,
        reqOpcode: packet.opcode,
        offset: packet.offset,
        data,
      },
      this.#out,
    );
    if (data.length <= SMALL_REPLY) {
      this.#last.valid = true;
      this.#last.length = length;
      this.#out.copy(this.#last.payload);
      decodeFtp(this.#last.payload, this.#last.packet);
    }
    this.#env.send(this.#out, length, to.channel);
  }

  #close(): void {
    this.#forgetIdle?.();
    this.#forgetTick?.();
    this.#forgetIdle = this.#forgetTick = undefined;
    if (this.#file === undefined) return;
    this.#file.close();
    this.#file = undefined;
    this.#env.stats.sessionsClosed += 1;
  }

  /** Closes the session once nothing was asked for the idle time. A stream that runs does not count. */
  #watch(): void {
    const leftMs = this.#lastRequestMs + this.#release.idleMs - this.#env.clock.now();
    if (leftMs <= 0) {
      this.#env.stats.sessionsTimedOut += 1;
      this.#close();
    } else this.#forgetIdle = this.#env.clock.after(leftMs + 1, () => this.#watch());
  }

  /** Mavlink::send is called often, and does something every 10 ms at most. */
  #schedule(): void {
    const { clock, link } = this.#env;
    const waitMs = link.paced ? Math.max(0, this.#tickedMs + TICK_MS - clock.now()) : 0;
    this.#forgetTick ??= clock.after(waitMs, () => {
      this.#forgetTick = undefined;
      this.#tickedMs = Math.max(this.#tickedMs + TICK_MS, clock.now() - TICK_LATE_MS);
      if (this.#stream()) this.#schedule();
    });
  }

  /** One tick of a burst; false when it is over. */
  #stream(): boolean {
    const file = this.#file;
    const burst = this.#burst;
    if (file === undefined || burst === undefined) return false;
    let room = this.#env.link.paced ? (this.#env.link.bytesPerTick ?? this.#env.freeRing(burst.to.channel)) : 64 * FRAME_BYTES;
    if (room < FRAME_BYTES) return true;
    for (;;) {
      let n = 0;
      let refusal = new Refusal(Nak.Eof);
      try {
        if (burst.offset < file.size) n = onDisk(() => file.read(burst.offset, this.#chunk, 0, FTP_DATA_MAX));
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        refusal = error;
      }
      const full = room < 2 * FRAME_BYTES;
      const complete = n > 0 && full && burst.sent + n > BURST_BYTES;
      const length = encodeFtp(
        {
          targetSystem: burst.to.system,
          targetComponent: burst.to.component,
          seq: burst.seq,
          opcode: n === 0 ? Op.Nak : Op.Ack,
          reqOpcode: Op.BurstReadFile,
          // PX4 leaves this byte unset on the last packet of a tick, and with a refusal: what was on the stack.
          burstComplete: complete ? 1 : full || n === 0 ? Math.floor(this.#env.random() * 256) : 0,
          offset: burst.offset,
          data: n === 0 ? refusal.data : this.#chunk.subarray(0, n),
        },
        this.#out,
      );
      this.#env.send(this.#out, length, burst.to.channel);
      burst.seq = (burst.seq + 1) & 0xffff;
      burst.offset += n;
      burst.sent += n;
      this.#env.stats.payloadBytes += n;
      if (n === 0 || complete) return false;
      if (full) return true;
      room -= FRAME_BYTES;
    }
  }
}

const later = Symbol("later");
const skipped = Buffer.from("S");
const zero = Buffer.alloc(1);

/** The entry as PX4 writes it: one that is too long counts as left out. */
function entryText(entry: DiskEntry, timed: boolean): Buffer {
  if (entry.kind === "other") return skipped;
  const text = timed
    ? timedEntry(entry)
    : Buffer.concat([
        Buffer.from(entry.kind === "directory" ? "D" : "F"),
        entry.name,
        Buffer.from(entry.kind === "file" ? `\t${entry.size}` : ""),
      ]);
  return text.length + 1 > FTP_DATA_MAX ? skipped : text;
}

/** Work on the card, all of whose errors become one refusal. */
function onDiskOr<T>(refusal: Refusal, call: () => T): T {
  try {
    return call();
  } catch (error) {
    if (error instanceof DiskError) throw refusal;
    throw error;
  }
}
