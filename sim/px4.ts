/**
 * The file server of PX4 (src/modules/mavlink/mavlink_ftp.cpp, 1.12 to 1.17, and 1.18), as its clients meet it.
 *
 * One session per link, always with the id 0, closed after 10 s (1.18: 30 s) without any request, a refused one included. The last small
 * reply is kept and sent again for a request with the same number, whatever that asks. Reads are answered at once; a burst runs in ticks
 * of 10 ms by the free space of the transmit ring, and asks to be requested again after 35,000 bytes. A checksum keeps the whole link
 * busy: what comes meanwhile waits in a receive buffer of 600 bytes, and is lost beyond. 1.18 knows ListDirectoryWithTime (pull request
 * 27542) and "@MAV_LOG" (27151). Writing is in `px4-changes.ts`.
 */
import { dataOf, decodeFtp, emptyPacket, encodeFtp, FTP_DATA_MAX, FTP_PAYLOAD, Nak, Op, opName, type FtpPacket } from "../mavlink/ftp.js";
import { AUTOPILOT_PX4, PARAM_INT32 } from "../mavlink/messages.js";
import type { Autopilot, FtpServer, FtpSurroundings, Sender, Setting } from "./autopilot.js";
import type { WrittenFile } from "./disk-changes.js";
import { DiskError, EBADF, ENOSPC } from "./disk-error.js";
import type { DiskFile } from "./disk-file.js";
import { Hold } from "./hold.js";
import { logAlias } from "./listing.js";
import { Px4Changes } from "./px4-changes.js";
import { px4Listing } from "./px4-listing.js";
import { nothing, onDisk, pathOf, Refusal, twoPaths, u32 } from "./refusal.js";

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

const whole = (value: number): Setting => ({ type: PARAM_INT32, value });
/** src/modules/logger/params.c, src/lib/circuit_breaker. */
const SETTINGS = { SDLOG_MODE: whole(0), SDLOG_DIRS_MAX: whole(0), CBRK_USB_CHK: whole(0) };

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
  settings: SETTINGS,
  tellsStorage: true,
  ftp: (surroundings) => new Px4Ftp(surroundings, { idleMs: 10_000, times: false }),
};

export const px4v118: Autopilot = {
  ...px4,
  name: "px4-1.18",
  version: [1, 18, 0],
  // Since 1.17 (pull request 25478).
  settings: { ...SETTINGS, SDLOG_BACKEND: whole(3) },
  ftp: (surroundings) => new Px4Ftp(surroundings, { idleMs: 30_000, times: true }),
};

class Px4Ftp implements FtpServer {
  readonly #env: FtpSurroundings;
  readonly #release: Release;
  readonly #out = Buffer.alloc(FTP_PAYLOAD);
  readonly #chunk = Buffer.alloc(FTP_DATA_MAX);
  readonly #last = { valid: false, length: 0, payload: Buffer.alloc(FTP_PAYLOAD), packet: emptyPacket() };
  #file: DiskFile | undefined;
  #written: WrittenFile | undefined;
  readonly #changes: Px4Changes;
  #forgetIdle: (() => void) | undefined;
  #lastRequestMs = 0;
  #forgetTick: (() => void) | undefined;
  #tickedMs = -Infinity;
  #burst: { offset: number; seq: number; sent: number; readonly to: Sender } | undefined;
  /** While a checksum is computed requests wait in the receive buffer. */
  readonly #hold: Hold;

  constructor(env: FtpSurroundings, release: Release) {
    this.#env = env;
    this.#release = release;
    this.#hold = new Hold(env.clock, (packet, from) => this.#take(packet, from), RECEIVE_BYTES);
    this.#changes = new Px4Changes(env.disk);
  }

  request(packet: FtpPacket, from: Sender): void {
    if (!this.#hold.keeps(packet, from, () => (this.#env.stats.droppedByReceive += 1))) this.#take(packet, from);
  }

  #take(packet: FtpPacket, from: Sender): void {
    const name = opName(packet.opcode);
    this.#env.stats.requests[name] = (this.#env.stats.requests[name] ?? 0) + 1;
    this.#lastRequestMs = this.#env.clock.now();
    this.#changes.asked(this.#lastRequestMs);
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
    this.#hold.stop();
  }

  openSessions(): number {
    return this.#open === undefined ? 0 : 1;
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
        return px4Listing(
          onDisk(() => this.#env.disk.list(this.#path(packet))),
          packet.offset,
          false,
        );
      case Op.ListDirectoryWithTime:
        if (!this.#release.times) throw new Refusal(Nak.UnknownCommand);
        return px4Listing(
          onDisk(() => this.#env.disk.list(this.#path(packet))),
          packet.offset,
          true,
        );
      case Op.OpenFileRO: {
        if (this.#open !== undefined) throw new Refusal(Nak.NoSessionsAvailable);
        this.#file = onDisk(() => this.#env.disk.open(this.#path(packet)));
        return this.#opened(packet, this.#file.size);
      }
      case Op.ReadFile: {
        this.#session(packet);
        if (packet.offset >= (this.#file ?? { size: this.#written?.sizeBefore ?? 0 }).size) throw new Refusal(Nak.Eof);
        const file = this.#file;
        if (file === undefined) throw new Refusal(Nak.FailErrno, EBADF);
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
      case Op.CreateFile:
      case Op.OpenFileWO: {
        if (this.#open !== undefined) throw new Refusal(Nak.NoSessionsAvailable);
        const file = onDisk(() => this.#changes.open(this.#path(packet), packet.opcode));
        this.#written = file;
        return this.#opened(packet, file.sizeBefore);
      }
      case Op.WriteFile: {
        if (packet.session !== 0 && this.#open === undefined) throw new Refusal(Nak.InvalidSession);
        this.#changes.writes();
        const file = this.#written;
        if (file === undefined) throw new Refusal(Nak.FailErrno, EBADF);
        const data = dataOf(packet);
        const n = onDisk(() => file.write(packet.offset, data));
        this.#env.stats.writtenBytes += n;
        // What was taken before the card was full is in the file, and not told (NuttX, fat_write).
        if (n < data.length) throw new Refusal(Nak.FailErrno, ENOSPC);
        return u32(n);
      }
      case Op.RemoveFile:
      case Op.CreateDirectory:
      case Op.RemoveDirectory:
      case Op.TruncateFile:
        onDisk(() => this.#changes.change(packet.opcode, [this.#path(packet)], packet.offset));
        return nothing;
      case Op.Rename: {
        const paths = twoPaths(packet);
        this.#changes.names(paths[0]);
        onDisk(() => this.#changes.change(packet.opcode, paths, 0));
        return nothing;
      }
      default:
        throw new Refusal(Nak.UnknownCommand);
    }
  }

  get #open(): DiskFile | WrittenFile | undefined {
    return this.#file ?? this.#written;
  }

  #opened(packet: FtpPacket, size: number): Uint8Array {
    this.#env.stats.sessionsOpened += 1;
    this.#watch();
    packet.session = 0;
    return u32(size);
  }

  /** Throws the Refusal of a session that is none. */
  #session(packet: FtpPacket): void {
    if (packet.session !== 0 || this.#open === undefined) throw new Refusal(Nak.InvalidSession);
  }

  #path(packet: FtpPacket): Buffer {
    const path = this.#release.times ? logAlias(pathOf(packet), LOG_DIR, this.#env.disk) : pathOf(packet);
    // A checksum has a buffer of its own.
    return packet.opcode === Op.CalcFileCRC32 ? path : this.#changes.names(path);
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
    this.#hold.for((file.size / crcBytesPerSecond) * 1000, () => this.#reply(asked, Op.Ack, from, crc));
    return later;
  }

  pause(ms: number): void {
    this.#hold.for(ms);
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
    if (this.#open === undefined) return;
    this.#open.close();
    this.#file = this.#written = undefined;
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
/** Work on the card, all of whose errors become one refusal. */
function onDiskOr<T>(refusal: Refusal, call: () => T): T {
  try {
    return call();
  } catch (error) {
    if (error instanceof DiskError) throw refusal;
    throw error;
  }
}
