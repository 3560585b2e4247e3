/**
 * The file server of MAVSDK (cpp/src/mavsdk/core/mavlink_ftp_server.cpp), as its clients meet it.
 *
 * One session, always with the id 0, that nothing closes but its end; an open takes it from whoever has it. A request with another session's id, and
 * one that finds no file open, closes the file. It reads through a C++ stream: a read that reaches beyond the end of the file is refused, and so
 * is every later one until the file is opened anew; one that asks for exactly what is left is not. A burst goes to the end of the file without
 * a pause, in a thread of its own: its last data packet is flagged, and nothing follows. No reply is kept, a repetition is done again.
 * None and what it does not know get no answer at all. Writing is refused: this card is read only.
 */
import { encodeFtp, FTP_DATA_MAX, FTP_PAYLOAD, Nak, Op, opName, type FtpPacket } from "../mavlink/ftp.js";
import { AUTOPILOT_GENERIC } from "../mavlink/messages.js";
import type { Autopilot, FtpServer, FtpSurroundings, Sender } from "./autopilot.js";
import { DiskError } from "./disk-error.js";
import type { DiskFile } from "./disk-file.js";
import type { DiskEntry } from "./disk.js";
import { timedEntry } from "./listing.js";
import { nothing, onDisk, pathOf, Refusal, u32 } from "./refusal.js";

/** Packets of a burst between two looks at what else there is; without a ring nothing slows it but the wire. */
const SLICE = 64;
const SLICE_BYTES = SLICE * 266;
const FRAME_BYTES = 266;

export const mavsdk: Autopilot = {
  name: "mavsdk",
  autopilot: AUTOPILOT_GENERIC,
  version: [3, 15, 0],
  // It queues as much as there is; on a wire no more than a few slices are ever ahead.
  transmitRing: 4 * SLICE_BYTES,
  serverPerLink: false,
  logDir: "/log",
  firstLog: "log001.ulg",
  sessions: 1,
  parameterFile: "/parameters.json",
  ftp: (surroundings) => new MavsdkFtp(surroundings),
};

class MavsdkFtp implements FtpServer {
  readonly #env: FtpSurroundings;
  readonly #out = Buffer.alloc(FTP_PAYLOAD);
  readonly #chunk = Buffer.alloc(FTP_DATA_MAX);
  #file: DiskFile | undefined;
  /** Kept when the file is closed. */
  #size = 0;
  /** The stream has met the end of the file. */
  #failed = false;
  #burst: { offset: number; seq: number; readonly size: number; readonly to: Sender } | undefined;
  #forgetBurst: (() => void) | undefined;
  #held: { readonly packet: FtpPacket; readonly from: Sender }[] | undefined;
  #forgetHeld: (() => void) | undefined;

  constructor(env: FtpSurroundings) {
    this.#env = env;
  }

  request(packet: FtpPacket, from: Sender): void {
    if (this.#held !== undefined) {
      this.#held.push({ packet: { ...packet, payload: Buffer.from(packet.payload) }, from });
      return;
    }
    const name = opName(packet.opcode);
    this.#env.stats.requests[name] = (this.#env.stats.requests[name] ?? 0) + 1;
    try {
      if (packet.size > FTP_DATA_MAX) throw new Refusal(Nak.InvalidDataSize);
      const data = this.#serve(packet, from);
      if (data !== undefined) this.#reply(packet, from, Op.Ack, data);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.#reply(packet, from, Op.Nak, error.data);
    }
  }

  pause(ms: number): void {
    this.#hold(ms, () => undefined);
  }

  /** One thing takes so long; what comes meanwhile is looked at then. */
  #hold(ms: number, then: () => void): void {
    if (this.#held !== undefined) return;
    this.#held = [];
    this.#forgetHeld = this.#env.clock.after(ms, () => {
      const held = this.#held ?? [];
      this.#held = undefined;
      then();
      for (const { packet, from } of held) this.request(packet, from);
    });
  }

  stop(): void {
    this.#close();
    this.#forgetHeld?.();
    this.#held = undefined;
  }

  openSessions(): number {
    return this.#file === undefined ? 0 : 1;
  }

  /** The data of the ACK; undefined: no answer now, or none at all. */
  #serve(packet: FtpPacket, from: Sender): Uint8Array | undefined {
    switch (packet.opcode) {
      case Op.TerminateSession:
      case Op.ResetSessions:
        this.#close();
        return nothing;
      case Op.ListDirectory:
        return this.#list(packet, false);
      case Op.ListDirectoryWithTime:
        return this.#list(packet, true);
      case Op.OpenFileRO: {
        this.#close();
        const file = onDiskPlain(() => this.#env.disk.open(pathOf(packet)));
        this.#file = file;
        this.#size = file.size;
        this.#env.stats.sessionsOpened += 1;
        return u32(file.size);
      }
      case Op.ReadFile: {
        const file = this.#seek(packet);
        if (packet.offset + packet.size > this.#size) {
          this.#failed = true;
          throw new Refusal(Nak.Fail);
        }
        const n = onDiskPlain(() => file.read(packet.offset, this.#chunk, 0, Math.min(packet.size, this.#env.readMost)));
        this.#env.stats.payloadBytes += n;
        return this.#chunk.subarray(0, n);
      }
      case Op.BurstReadFile:
        this.#seek(packet);
        this.#burst = { offset: packet.offset, seq: (packet.seq + 1) & 0xffff, size: packet.size, to: from };
        this.#stream();
        return undefined;
      case Op.CalcFileCRC32: {
        const crc = onDiskPlain(() => this.#env.disk.crc(pathOf(packet)));
        if (this.#env.crcBytesPerSecond === Infinity) return u32(crc);
        const file = this.#env.disk.open(pathOf(packet));
        file.close();
        const asked = { ...packet, payload: nothing };
        this.#hold((file.size / this.#env.crcBytesPerSecond) * 1000, () => this.#reply(asked, from, Op.Ack, u32(crc)));
        return undefined;
      }
      case Op.CreateFile:
      case Op.WriteFile:
      case Op.RemoveFile:
      case Op.CreateDirectory:
      case Op.RemoveDirectory:
      case Op.OpenFileWO:
      case Op.Rename:
        throw new Refusal(Nak.FileProtected);
      default:
        return undefined;
    }
  }

  /** The file, its stream at the offset of a request. Throws the Refusal of a place that cannot be. */
  #seek(packet: FtpPacket): DiskFile {
    if (packet.session !== 0) this.#close();
    if (packet.offset >= this.#size) throw new Refusal(Nak.Eof);
    if (this.#file === undefined || this.#failed) throw new Refusal(Nak.Fail);
    return this.#file;
  }

  #list(packet: FtpPacket, timed: boolean): Buffer {
    const entries = onDiskPlain(() => this.#env.disk.list(pathOf(packet)));
    const parts: Buffer[] = [];
    let length = 0;
    // What is neither file nor directory is left out, but counted by the offset.
    for (const entry of entries.slice(packet.offset)) {
      if (entry.kind === "other") continue;
      const text = timed ? timedEntry(entry) : plain(entry);
      if (length + text.length + 1 > FTP_DATA_MAX) break;
      parts.push(text, zero);
      length += text.length + 1;
    }
    if (length === 0) throw new Refusal(Nak.Eof);
    return Buffer.concat(parts);
  }

  #stream(): void {
    this.#forgetBurst?.();
    this.#forgetBurst = this.#env.clock.after(0, () => {
      this.#forgetBurst = undefined;
      const room = this.#env.link.paced ? Math.floor(this.#env.freeRing(this.#burst?.to.channel ?? 0) / FRAME_BYTES) : SLICE;
      for (let n = 0; n < Math.min(room, SLICE); n++) if (!this.#burstPacket()) return;
      if (room >= SLICE) this.#stream();
      // A full queue: as long as the wire takes for a packet or two.
      else this.#forgetBurst = this.#env.clock.after(1, () => this.#stream());
    });
  }

  /** False: it was the last. */
  #burstPacket(): boolean {
    const burst = this.#burst;
    const file = this.#file;
    if (burst === undefined || file === undefined) return false;
    const length = Math.min(burst.size, this.#size - burst.offset, this.#env.readMost);
    let n: number;
    try {
      n = onDiskPlain(() => file.read(burst.offset, this.#chunk, 0, length));
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.#failed = true;
      this.#send(burst.to, { seq: burst.seq, opcode: Op.Nak, reqOpcode: Op.BurstReadFile, data: error.data });
      return false;
    }
    const last = burst.offset + n === this.#size;
    const data = this.#chunk.subarray(0, n);
    this.#send(burst.to, {
      ...{ seq: burst.seq, opcode: Op.Ack, reqOpcode: Op.BurstReadFile, offset: burst.offset },
      ...{ burstComplete: last ? 1 : 0, data },
    });
    burst.offset += n;
    burst.seq = (burst.seq + 1) & 0xffff;
    this.#env.stats.payloadBytes += n;
    return !last && n > 0;
  }

  #reply(packet: FtpPacket, to: Sender, opcode: number, data: Uint8Array): void {
    // Only the answer to a read repeats the offset.
    const offset = packet.opcode === Op.ReadFile && opcode === Op.Ack ? packet.offset : 0;
    this.#send(to, { seq: (packet.seq + 1) & 0xffff, opcode, reqOpcode: packet.opcode, offset, data });
  }

  #send(to: Sender, fields: Omit<Parameters<typeof encodeFtp>[0], "targetSystem" | "targetComponent">): void {
    const length = encodeFtp({ ...fields, targetSystem: to.system, targetComponent: to.component }, this.#out);
    this.#env.send(this.#out, length, to.channel);
  }

  #close(): void {
    this.#forgetBurst?.();
    this.#forgetBurst = this.#burst = undefined;
    this.#failed = false;
    if (this.#file === undefined) return;
    this.#file.close();
    this.#file = undefined;
    this.#env.stats.sessionsClosed += 1;
  }
}

const zero = Buffer.alloc(1);

function plain(entry: DiskEntry): Buffer {
  return Buffer.concat([
    Buffer.from(entry.kind === "directory" ? "D" : "F"),
    entry.name,
    Buffer.from(entry.kind === "file" ? `\t${entry.size}` : ""),
  ]);
}

/** Work on the card: what is not there has a code, any other error is Fail. */
function onDiskPlain<T>(call: () => T): T {
  try {
    return onDisk(call);
  } catch (error) {
    if (error instanceof Refusal && error.code !== Nak.FileNotFound) throw new Refusal(Nak.Fail);
    if (error instanceof DiskError) throw new Refusal(Nak.Fail);
    throw error;
  }
}
