/**
 * The content of FILE_TRANSFER_PROTOCOL: requests and replies of MAVLink FTP (mavlink.io/en/services/ftp.html).
 *
 * A data chunk's length is its `size` field, never the length of the frame, which loses trailing zeros. Decoding fills an object that the
 * caller keeps and reads again, because a download at USB speed is thousands of packets a second.
 */
export const FTP_PAYLOAD = 254;
/** Data bytes of one packet. */
export const FTP_DATA_MAX = 239;
/** Where data begins in the message's payload. */
export const FTP_DATA_AT = 15;

export const Op = {
  None: 0,
  TerminateSession: 1,
  ResetSessions: 2,
  ListDirectory: 3,
  OpenFileRO: 4,
  ReadFile: 5,
  CreateFile: 6,
  WriteFile: 7,
  RemoveFile: 8,
  CreateDirectory: 9,
  RemoveDirectory: 10,
  OpenFileWO: 11,
  TruncateFile: 12,
  Rename: 13,
  CalcFileCRC32: 14,
  BurstReadFile: 15,
  ListDirectoryWithTime: 16,
  Ack: 128,
  Nak: 129,
} as const;

export const Nak = {
  None: 0,
  Fail: 1,
  FailErrno: 2,
  InvalidDataSize: 3,
  InvalidSession: 4,
  NoSessionsAvailable: 5,
  Eof: 6,
  UnknownCommand: 7,
  FileExists: 8,
  FileProtected: 9,
  FileNotFound: 10,
} as const;

const opNames = new Map<number, string>(Object.entries(Op).map(([name, code]) => [code, name]));
const nakNames = new Map<number, string>(Object.entries(Nak).map(([name, code]) => [code, name]));

/** "ReadFile", or the number of an opcode that has no name here. */
export function opName(opcode: number): string {
  return opNames.get(opcode) ?? `opcode ${opcode}`;
}

/** "InvalidSession", or the number of a code that has no name here. */
export function nakName(code: number): string {
  return nakNames.get(code) ?? `error ${code}`;
}

/** One packet, either way. */
export interface FtpPacket {
  targetSystem: number;
  targetComponent: number;
  seq: number;
  session: number;
  opcode: number;
  /** Data bytes in this packet; with a ReadFile request the bytes that are asked for. */
  size: number;
  reqOpcode: number;
  burstComplete: number;
  offset: number;
  /** The whole message payload, for the data at FTP_DATA_AT; lives as long as the frame that it came in. */
  payload: Buffer;
}

export function emptyPacket(): FtpPacket {
  return {
    targetSystem: 0,
    targetComponent: 0,
    seq: 0,
    session: 0,
    opcode: 0,
    size: 0,
    reqOpcode: 0,
    burstComplete: 0,
    offset: 0,
    payload: Buffer.alloc(FTP_PAYLOAD),
  };
}

/** Fills `into` from a message payload of 254 bytes. `payload` is referred to, not copied. */
export function decodeFtp(payload: Buffer, into: FtpPacket): FtpPacket {
  const b = payload as Uint8Array & Record<number, number>;
  into.targetSystem = b[1] as number;
  into.targetComponent = b[2] as number;
  into.seq = (b[3] as number) | ((b[4] as number) << 8);
  into.session = b[5] as number;
  into.opcode = b[6] as number;
  into.size = b[7] as number;
  into.reqOpcode = b[8] as number;
  into.burstComplete = b[9] as number;
  into.offset = ((b[11] as number) | ((b[12] as number) << 8) | ((b[13] as number) << 16) | ((b[14] as number) << 24)) >>> 0;
  into.payload = payload;
  return into;
}

/** A copy of the data of a packet. A size that cannot be (over 239) counts as 239. */
export function dataOf(packet: FtpPacket): Buffer {
  return Buffer.from(packet.payload.subarray(FTP_DATA_AT, FTP_DATA_AT + Math.min(packet.size, FTP_DATA_MAX)));
}

/** Why a NAK was sent: its code, and the errno that comes with FailErrno (0 where there is none). */
export function nakOf(packet: FtpPacket): { readonly code: number; readonly errno: number } {
  const code = packet.size === 0 ? Nak.Fail : (packet.payload[FTP_DATA_AT] ?? Nak.Fail);
  return { code, errno: code === Nak.FailErrno && packet.size >= 2 ? (packet.payload[FTP_DATA_AT + 1] ?? 0) : 0 };
}

/** What a packet to be encoded holds; absent numbers are 0. */
export interface FtpFields {
  readonly targetSystem: number;
  readonly targetComponent: number;
  readonly seq: number;
  readonly opcode: number;
  readonly session?: number;
  /** The `size` field where it is not the length of `data`: the bytes that a ReadFile asks for. */
  readonly size?: number;
  readonly reqOpcode?: number;
  readonly burstComplete?: number;
  readonly offset?: number;
  /** At most 239 bytes. */
  readonly data?: Uint8Array;
}

/** Writes the fields into `into` (254 bytes, used again and again) and returns how many bytes hold them; what follows is zero in meaning. */
export function encodeFtp(fields: FtpFields, into: Buffer): number {
  const length = fields.data?.length ?? 0;
  if (length > FTP_DATA_MAX) throw new RangeError(`${length} bytes do not fit into one FTP packet`);
  into[0] = 0;
  into[1] = fields.targetSystem;
  into[2] = fields.targetComponent;
  into[3] = fields.seq & 0xff;
  into[4] = (fields.seq >> 8) & 0xff;
  into[5] = fields.session ?? 0;
  into[6] = fields.opcode;
  into[7] = fields.size ?? length;
  into[8] = fields.reqOpcode ?? 0;
  into[9] = fields.burstComplete ?? 0;
  into[10] = 0;
  into.writeUInt32LE(fields.offset ?? 0, 11);
  if (fields.data !== undefined) into.set(fields.data, FTP_DATA_AT);
  return FTP_DATA_AT + length;
}
