/**
 * The file server of PX4 (src/modules/mavlink/mavlink_ftp.cpp, 1.12 to 1.17, and 1.18), as its clients meet it.
 *
 * One session per link, always with the id 0, closed after 10 s (1.18: 30 s) without any request, a refused one included. The last small
 * reply is kept and sent again for a request with the same number, whatever that asks. Reads are answered at once; a burst runs in ticks
 * of 10 ms by the free space of the transmit ring, and asks to be requested again after 35,000 bytes. Writing is refused: this card is read only.
 */
import {
  decodeFtp,
  emptyPacket,
  encodeFtp,
  FTP_DATA_AT,
  FTP_DATA_MAX,
  FTP_PAYLOAD,
  Nak,
  Op,
  opName,
  type FtpPacket,
} from "../mavlink/ftp.js";
import { AUTOPILOT_PX4 } from "../mavlink/messages.js";
import type { Autopilot, FtpServer, FtpSurroundings } from "./autopilot.js";
import { DiskError, ENOENT, type DiskFile } from "./disk.js";

const TICK_MS = 10;
/** A signed version 2 frame of FILE_TRANSFER_PROTOCOL: what PX4 reckons with. */
const FRAME_BYTES = 279;
const BURST_BYTES = 35_000;
const SMALL_REPLY = 4;

export const px4: Autopilot = {
  name: "px4",
  autopilot: AUTOPILOT_PX4,
  version: [1, 15, 4],
  transmitRing: 12_000,
  ftp: (surroundings) => new Px4Ftp(surroundings, 10_000),
};

export const px4v118: Autopilot = {
  ...px4,
  name: "px4-1.18",
  version: [1, 18, 0],
  ftp: (surroundings) => new Px4Ftp(surroundings, 30_000),
};

/** A refusal: a code, and an errno with FailErrno. */
class Refusal extends Error {
  readonly code: number;
  readonly errno: number | undefined;
  constructor(code: number, errno?: number) {
    super(`refused with ${code}`);
    this.code = code;
    this.errno = errno;
  }
}

class Px4Ftp implements FtpServer {
  readonly #env: FtpSurroundings;
  readonly #idleMs: number;
  readonly #out = Buffer.alloc(FTP_PAYLOAD);
  readonly #chunk = Buffer.alloc(FTP_DATA_MAX);
  readonly #last = { valid: false, length: 0, payload: Buffer.alloc(FTP_PAYLOAD), packet: emptyPacket() };
  #file: DiskFile | undefined;
  #idle: NodeJS.Timeout | undefined;
  #lastRequestMs = 0;
  #tick: NodeJS.Timeout | undefined;
  #burst = { offset: 0, seq: 0, sent: 0, toSystem: 0, toComponent: 0 };

  constructor(env: FtpSurroundings, idleMs: number) {
    this.#env = env;
    this.#idleMs = idleMs;
  }

  request(packet: FtpPacket, fromSystem: number, fromComponent: number): void {
    const name = opName(packet.opcode);
    this.#env.stats.requests[name] = (this.#env.stats.requests[name] ?? 0) + 1;
    this.#lastRequestMs = performance.now();
    if (this.#last.valid && packet.seq + 1 === this.#last.packet.seq) {
      this.#env.send(this.#last.payload, this.#last.length);
      return;
    }
    try {
      if (packet.size > FTP_DATA_MAX) throw new Refusal(Nak.InvalidDataSize);
      const data = this.#serve(packet, fromSystem, fromComponent);
      if (data !== later) this.#reply(packet, Op.Ack, fromSystem, fromComponent, data);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.#chunk[0] = error.code;
      if (error.errno !== undefined) this.#chunk[1] = error.errno;
      this.#reply(packet, Op.Nak, fromSystem, fromComponent, this.#chunk.subarray(0, error.errno === undefined ? 1 : 2));
    }
  }

  stop(): void {
    this.#close();
    this.#last.valid = false;
  }

  openSessions(): number {
    return this.#file === undefined ? 0 : 1;
  }

  /** The data of the ACK; `later` where the answer is a stream. */
  #serve(packet: FtpPacket, fromSystem: number, fromComponent: number): Uint8Array | typeof later {
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
        return this.#list(pathOf(packet), packet.offset);
      case Op.OpenFileRO: {
        if (this.#file !== undefined) throw new Refusal(Nak.NoSessionsAvailable);
        this.#file = onDisk(() => this.#env.disk.open(pathOf(packet)));
        this.#env.stats.sessionsOpened += 1;
        this.#watch();
        packet.session = 0;
        return u32(this.#file.size);
      }
      case Op.ReadFile: {
        const file = this.#session(packet);
        if (packet.offset >= file.size) throw new Refusal(Nak.Eof);
        const n = onDisk(() => file.read(packet.offset, this.#chunk, 0, packet.size));
        this.#env.stats.payloadBytes += n;
        return this.#chunk.subarray(0, n);
      }
      case Op.BurstReadFile:
        this.#session(packet);
        // While a stream runs this turns it to the new offset: PX4 keeps one.
        this.#burst = { offset: packet.offset, seq: packet.seq + 1, sent: 0, toSystem: fromSystem, toComponent: fromComponent };
        this.#schedule();
        return later;
      case Op.CalcFileCRC32:
        return u32(this.#crc(pathOf(packet)));
      case Op.CreateFile:
      case Op.WriteFile:
      case Op.RemoveFile:
      case Op.CreateDirectory:
      case Op.RemoveDirectory:
      case Op.OpenFileWO:
      case Op.TruncateFile:
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

  #crc(path: Buffer): number {
    try {
      return this.#env.disk.crc(path);
    } catch (error) {
      if (!(error instanceof DiskError)) throw error;
      // PX4 answers a missing file here with FailErrno, whose errno it has not set.
      throw new Refusal(Nak.FailErrno, 0);
    }
  }

  /** As many entries from number `offset` on as fit. Past the end: Eof; but an empty directory is an empty answer. */
  #list(path: Buffer, offset: number): Buffer {
    const entries: Buffer[] = [];
    for (const entry of onDisk(() => this.#env.disk.list(path))) {
      const text =
        entry.kind === "directory"
          ? Buffer.concat([Buffer.from("D"), entry.name])
          : entry.kind === "file"
            ? Buffer.concat([Buffer.from("F"), entry.name, Buffer.from(`\t${entry.size}`)])
            : skipped;
      entries.push(text.length + 1 > FTP_DATA_MAX ? skipped : text);
      // "." and ".." come where the card has them, which is anywhere.
      if (entries.length === 1 || entries.length === 3) entries.push(skipped);
    }
    const parts: Buffer[] = [];
    let length = 0;
    for (const entry of entries.slice(offset)) {
      if (length + entry.length + 1 > FTP_DATA_MAX) break;
      parts.push(entry, zero);
      length += entry.length + 1;
    }
    if (length === 0 && offset > 0) throw new Refusal(Nak.Eof);
    return Buffer.concat(parts);
  }

  #reply(packet: FtpPacket, opcode: number, toSystem: number, toComponent: number, data: Uint8Array): void {
    const length = encodeFtp(
      {
        targetSystem: toSystem,
        targetComponent: toComponent,
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
    this.#env.send(this.#out, length);
  }

  #close(): void {
    clearTimeout(this.#idle);
    clearTimeout(this.#tick);
    this.#idle = this.#tick = undefined;
    if (this.#file === undefined) return;
    this.#file.close();
    this.#file = undefined;
    this.#env.stats.sessionsClosed += 1;
  }

  /** Closes the session once nothing was asked for the idle time. A stream that runs does not count. */
  #watch(): void {
    const leftMs = this.#lastRequestMs + this.#idleMs - performance.now();
    if (leftMs <= 0) {
      this.#env.stats.sessionsTimedOut += 1;
      this.#close();
    } else this.#idle = setTimeout(() => this.#watch(), leftMs + 1);
  }

  #schedule(): void {
    this.#tick ??= setTimeout(
      () => {
        this.#tick = undefined;
        if (this.#stream()) this.#schedule();
      },
      this.#env.link.paced ? TICK_MS : 0,
    );
  }

  /** One tick of a burst; false when it is over. */
  #stream(): boolean {
    const file = this.#file;
    if (file === undefined) return false;
    let room = this.#env.link.paced ? (this.#env.link.bytesPerTick ?? this.#env.freeRing()) : 64 * FRAME_BYTES;
    if (room < FRAME_BYTES) return true;
    const burst = this.#burst;
    for (;;) {
      const n = burst.offset >= file.size ? 0 : onDisk(() => file.read(burst.offset, this.#chunk, 0, FTP_DATA_MAX));
      const full = room < 2 * FRAME_BYTES;
      const complete = full && burst.sent + n > BURST_BYTES;
      if (n === 0) this.#chunk[0] = Nak.Eof;
      const length = encodeFtp(
        {
          targetSystem: burst.toSystem,
          targetComponent: burst.toComponent,
          seq: burst.seq,
          opcode: n === 0 ? Op.Nak : Op.Ack,
          reqOpcode: Op.BurstReadFile,
          // PX4 leaves this byte unset on the last packet of a tick: what was on the stack.
          burstComplete: complete ? 1 : full ? Math.floor(this.#env.random() * 256) : 0,
          offset: burst.offset,
          data: this.#chunk.subarray(0, n === 0 ? 1 : n),
        },
        this.#out,
      );
      this.#env.send(this.#out, length);
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
const nothing = Buffer.alloc(0);
const skipped = Buffer.from("S");
const zero = Buffer.alloc(1);

/** The path in a request: up to a counted zero, if there is one. */
function pathOf(packet: FtpPacket): Buffer {
  const path = Buffer.from(packet.payload.subarray(FTP_DATA_AT, FTP_DATA_AT + packet.size));
  const end = path.indexOf(0);
  return end === -1 ? path : path.subarray(0, end);
}

function u32(value: number): Buffer {
  const b = Buffer.alloc(4);
  b.writeUInt32LE(value >>> 0);
  return b;
}

function onDisk<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    if (!(error instanceof DiskError)) throw error;
    throw error.errno === ENOENT ? new Refusal(Nak.FileNotFound) : new Refusal(Nak.FailErrno, error.errno);
  }
}
