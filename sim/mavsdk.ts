/**
 * The file server of MAVSDK (cpp/src/mavsdk/core/mavlink_ftp_server.cpp), as its clients meet it.
 *
 * One session, always with the id 0, that nothing closes but its end; an open takes it from whoever has it. A request with another session's id, and
 * one that finds no file open, closes the file. It reads through a C++ stream: a read that reaches beyond the end of the file is refused, and so
 * is every later one until the file is opened anew; one that asks for exactly what is left is not. A burst goes to the end of the file without
 * a pause, in a thread of its own: its last data packet is flagged, and nothing follows. No reply is kept, a repetition is done again.
 * None and what it does not know get no answer at all. Opening a file for writing, made or not, empties it; one that is renamed replaces what
 * has its new name. TruncateFile is not known.
 */
import { statSync } from "node:fs";
import { dataOf, encodeFtp, FTP_DATA_MAX, FTP_PAYLOAD, Nak, Op, opName, type FtpPacket } from "../mavlink/ftp.js";
import { AUTOPILOT_GENERIC } from "../mavlink/messages.js";
import type { Autopilot, FtpServer, FtpSurroundings, Sender } from "./autopilot.js";
import { changeNames, WrittenFile } from "./disk-changes.js";
import { DiskError, EEXIST, ENOENT } from "./disk-error.js";
import type { DiskFile } from "./disk-file.js";
import type { DiskEntry } from "./disk.js";
import { Hold } from "./hold.js";
import { timedEntry } from "./listing.js";
import { nothing, onDisk, pathOf, Refusal, twoPaths, u32 } from "./refusal.js";

/** Packets of a burst between two looks at what else there is; without a ring nothing slows it but the wire. */
const SLICE = 64;
const SLICE_BYTES = SLICE * 266;
const FRAME_BYTES = 266;
const MEDIUM = { fat: false, renameReplaces: true, removesDirectories: true };

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
  settings: {},
  tellsStorage: false,
  ftp: (surroundings) => new MavsdkFtp(surroundings),
};

class MavsdkFtp implements FtpServer {
  readonly #env: FtpSurroundings;
  readonly #out = Buffer.alloc(FTP_PAYLOAD);
  readonly #chunk = Buffer.alloc(FTP_DATA_MAX);
  #file: DiskFile | undefined;
  #written: WrittenFile | undefined;
  /** Kept when the file is closed. */
  #size = 0;
  /** The stream has met the end of the file. */
  #failed = false;
  #burst: { offset: number; seq: number; readonly size: number; readonly to: Sender } | undefined;
  #forgetBurst: (() => void) | undefined;
  readonly #hold: Hold;

  constructor(env: FtpSurroundings) {
    this.#env = env;
    this.#hold = new Hold(env.clock, (packet, from) => this.request(packet, from));
  }

  request(packet: FtpPacket, from: Sender): void {
    if (this.#hold.keeps(packet, from, () => undefined)) return;
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
    this.#hold.for(ms);
  }

  stop(): void {
    this.#close();
    this.#hold.stop();
  }

  openSessions(): number {
    return this.#file === undefined && this.#written === undefined ? 0 : 1;
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
        if (this.#file !== undefined) this.#close();
        this.#failed = false;
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
        this.#hold.for((file.size / this.#env.crcBytesPerSecond) * 1000, () => this.#reply(asked, from, Op.Ack, u32(crc)));
        return undefined;
      }
      case Op.CreateFile:
      case Op.OpenFileWO:
        return this.#openWritten(packet);
      case Op.WriteFile:
        return this.#write(packet);
      case Op.RemoveFile:
      case Op.RemoveDirectory:
      case Op.CreateDirectory:
        this.#change(packet, [pathOf(packet)]);
        return nothing;
      case Op.Rename:
        this.#change(packet, twoPaths(packet));
        return nothing;
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

  #openWritten(packet: FtpPacket): Uint8Array {
    if (this.#written !== undefined) this.#close();
    const create = packet.opcode === Op.CreateFile;
    try {
      this.#written = new WrittenFile(this.#env.disk, pathOf(packet), { create, truncate: true }, MEDIUM);
    } catch (error) {
      if (!(error instanceof DiskError)) throw error;
      throw new Refusal(!create && error.errno === ENOENT ? Nak.FileNotFound : Nak.Fail);
    }
    this.#size = create ? 0 : this.#written.sizeBefore;
    this.#env.stats.sessionsOpened += 1;
    return create ? nothing : u32(this.#size);
  }

  /** What is to be moved or taken away is looked for first; of what else may be wrong only a new directory's name says more than Fail. */
  #change(packet: FtpPacket, paths: readonly Buffer[]): void {
    const makes = packet.opcode === Op.CreateDirectory;
    try {
      if (!makes && statSync(this.#env.disk.place(paths[0] ?? nothing), { throwIfNoEntry: false }) === undefined)
        throw new Refusal(Nak.FileNotFound);
      changeNames(this.#env.disk, packet.opcode, paths, MEDIUM);
    } catch (error) {
      if (!(error instanceof DiskError)) throw error;
      if (!makes) throw new Refusal(Nak.Fail);
      throw error.errno === EEXIST ? new Refusal(Nak.FileExists) : new Refusal(Nak.FailErrno, error.errno);
    }
  }

  #write(packet: FtpPacket): Uint8Array {
    if (packet.session !== 0 && this.#written === undefined) this.#close();
    const file = this.#written;
    if (file === undefined) throw new Refusal(Nak.Fail);
    const data = dataOf(packet);
    const taken = onDiskPlain(() => file.write(packet.offset, data));
    this.#env.stats.writtenBytes += taken;
    if (taken < data.length) throw new Refusal(Nak.Fail);
    return nothing;
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
    for (const file of [this.#file, this.#written]) {
      if (file === undefined) continue;
      file.close();
      this.#env.stats.sessionsClosed += 1;
    }
    this.#file = this.#written = undefined;
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
