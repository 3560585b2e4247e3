/** How the file servers say no, and how they read what a request carries. */
import { FTP_DATA_AT, FTP_DATA_MAX, Nak, type FtpPacket } from "../mavlink/ftp.js";
import { DiskError, EEXIST, EINVAL, ENOENT } from "./disk-error.js";

/** A NAK: a code, and an errno where the autopilot adds one. */
export class Refusal extends Error {
  readonly code: number;
  readonly errno: number | undefined;
  constructor(code: number, errno?: number) {
    super(`refused with ${code}`);
    this.code = code;
    this.errno = errno;
  }

  /** What the NAK carries. */
  get data(): Uint8Array {
    return Uint8Array.from(this.errno === undefined ? [this.code] : [this.code, this.errno]);
  }
}

/** Work on the card; its errors become refusals as PX4 and ArduPilot translate errno: a code of their own for some, FailErrno for the rest. */
export function onDisk<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    if (!(error instanceof DiskError)) throw error;
    if (error.errno === ENOENT) throw new Refusal(Nak.FileNotFound);
    if (error.errno === EEXIST) throw new Refusal(Nak.FileExists);
    throw new Refusal(Nak.FailErrno, error.errno);
  }
}

/** The path in a request: up to a counted zero, if there is one. */
export function pathOf(packet: Pick<FtpPacket, "payload" | "size">): Buffer {
  const path = Buffer.from(packet.payload.subarray(FTP_DATA_AT, FTP_DATA_AT + Math.min(packet.size, FTP_DATA_MAX)));
  const end = path.indexOf(0);
  return end === -1 ? path : path.subarray(0, end);
}

/** The two paths of a Rename. Throws the Refusal of one that has no second. */
export function twoPaths(packet: Pick<FtpPacket, "payload" | "size">): readonly [Buffer, Buffer] {
  const data = Buffer.from(packet.payload.subarray(FTP_DATA_AT, FTP_DATA_AT + Math.min(packet.size, FTP_DATA_MAX)));
  const zero = data.indexOf(0);
  if (zero === -1) throw new Refusal(Nak.FailErrno, EINVAL);
  const second = data.subarray(zero + 1);
  const end = second.indexOf(0);
  return [data.subarray(0, zero), end === -1 ? second : second.subarray(0, end)];
}

export function u32(value: number): Buffer {
  const b = Buffer.alloc(4);
  b.writeUInt32LE(value >>> 0);
  return b;
}

export const nothing = Buffer.alloc(0);
