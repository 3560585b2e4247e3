/**
 * The messages in use: their numbers, layouts and checksum extras, as in common.xml of MAVLink, and their fields as plain objects.
 *
 * A decoder is given a payload that is filled with zeros up to its full length (version 2 cuts trailing zeros, version 1 knows no
 * extension fields), so a short frame reads as zeros. An encoder gives the full payload; the framing cuts it. FILE_TRANSFER_PROTOCOL has
 * its own file, `ftp.ts`, because its content does.
 */
export const HEARTBEAT = 0;
export const SYS_STATUS = 1;
export const SYSTEM_TIME = 2;
export const PING = 4;
export const PARAM_REQUEST_READ = 20;
export const PARAM_VALUE = 22;
export const ATTITUDE = 30;
export const COMMAND_LONG = 76;
export const COMMAND_ACK = 77;
export const RADIO_STATUS = 109;
export const FILE_TRANSFER_PROTOCOL = 110;
export const AUTOPILOT_VERSION = 148;
export const STATUSTEXT = 253;
export const STORAGE_INFORMATION = 261;

export interface Layout {
  readonly name: string;
  readonly crcExtra: number;
  /** Bytes without extension fields: the length of a version 1 frame. */
  readonly base: number;
  /** Bytes with extension fields. */
  readonly full: number;
}

const layouts = new Map<number, Layout>([
  [HEARTBEAT, { name: "HEARTBEAT", crcExtra: 50, base: 9, full: 9 }],
  [SYS_STATUS, { name: "SYS_STATUS", crcExtra: 124, base: 31, full: 43 }],
  [SYSTEM_TIME, { name: "SYSTEM_TIME", crcExtra: 137, base: 12, full: 12 }],
  [PING, { name: "PING", crcExtra: 237, base: 14, full: 14 }],
  [PARAM_REQUEST_READ, { name: "PARAM_REQUEST_READ", crcExtra: 214, base: 20, full: 20 }],
  [PARAM_VALUE, { name: "PARAM_VALUE", crcExtra: 220, base: 25, full: 25 }],
  [ATTITUDE, { name: "ATTITUDE", crcExtra: 39, base: 28, full: 28 }],
  [COMMAND_LONG, { name: "COMMAND_LONG", crcExtra: 152, base: 33, full: 33 }],
  [COMMAND_ACK, { name: "COMMAND_ACK", crcExtra: 143, base: 3, full: 10 }],
  [RADIO_STATUS, { name: "RADIO_STATUS", crcExtra: 185, base: 9, full: 9 }],
  [FILE_TRANSFER_PROTOCOL, { name: "FILE_TRANSFER_PROTOCOL", crcExtra: 84, base: 254, full: 254 }],
  [AUTOPILOT_VERSION, { name: "AUTOPILOT_VERSION", crcExtra: 178, base: 60, full: 78 }],
  [STATUSTEXT, { name: "STATUSTEXT", crcExtra: 83, base: 51, full: 54 }],
  [STORAGE_INFORMATION, { name: "STORAGE_INFORMATION", crcExtra: 179, base: 27, full: 61 }],
]);

/** The layout of a message; undefined for one that is not in use here. */
export function layoutOf(messageId: number): Layout | undefined {
  return layouts.get(messageId);
}

/** A frame's bytes where the numbers below are read: any Buffer that holds the full layout. */
type Bytes = Buffer;

export const AUTOPILOT_GENERIC = 0;
export const AUTOPILOT_ARDUPILOT = 3;
export const AUTOPILOT_INVALID = 8;
export const AUTOPILOT_PX4 = 12;
export const TYPE_QUADROTOR = 2;
export const TYPE_GCS = 6;
export const TYPE_ONBOARD_CONTROLLER = 18;
export const STATE_STANDBY = 3;
export const STATE_ACTIVE = 4;
export const MODE_CUSTOM = 0x01;
export const MODE_ARMED = 0x80;
export const COMPONENT_AUTOPILOT = 1;

export interface Heartbeat {
  readonly customMode: number;
  readonly type: number;
  readonly autopilot: number;
  readonly baseMode: number;
  readonly systemStatus: number;
}

export function encodeHeartbeat(m: Heartbeat): Buffer {
  const b = Buffer.alloc(9);
  b.writeUInt32LE(m.customMode, 0);
  b[4] = m.type;
  b[5] = m.autopilot;
  b[6] = m.baseMode;
  b[7] = m.systemStatus;
  b[8] = 3;
  return b;
}

export function decodeHeartbeat(b: Bytes): Heartbeat {
  return {
    customMode: b.readUInt32LE(0),
    type: b.readUInt8(4),
    autopilot: b.readUInt8(5),
    baseMode: b.readUInt8(6),
    systemStatus: b.readUInt8(7),
  };
}

/** MAV_SYS_STATUS_LOGGING. */
export const SENSOR_LOGGING = 0x01000000;

/** The part of SYS_STATUS that is used; the rest is sent as zero. */
export interface SysStatus {
  readonly present: number;
  readonly enabled: number;
  readonly health: number;
  /** 0 to 1000. */
  readonly load: number;
  readonly voltageMv: number;
}

export function encodeSysStatus(m: SysStatus): Buffer {
  const b = Buffer.alloc(43);
  b.writeUInt32LE(m.present, 0);
  b.writeUInt32LE(m.enabled, 4);
  b.writeUInt32LE(m.health, 8);
  b.writeUInt16LE(m.load, 12);
  b.writeUInt16LE(m.voltageMv, 14);
  b.writeInt16LE(-1, 16);
  b.writeInt8(-1, 30);
  return b;
}

export function decodeSysStatus(b: Bytes): SysStatus {
  return {
    present: b.readUInt32LE(0),
    enabled: b.readUInt32LE(4),
    health: b.readUInt32LE(8),
    load: b.readUInt16LE(12),
    voltageMv: b.readUInt16LE(14),
  };
}

export interface SystemTime {
  /** 0 while the vehicle does not know the time. */
  readonly unixUsec: bigint;
  readonly bootMs: number;
}

export function encodeSystemTime(m: SystemTime): Buffer {
  const b = Buffer.alloc(12);
  b.writeBigUInt64LE(m.unixUsec, 0);
  b.writeUInt32LE(m.bootMs, 8);
  return b;
}

export function decodeSystemTime(b: Bytes): SystemTime {
  return { unixUsec: b.readBigUInt64LE(0), bootMs: b.readUInt32LE(8) };
}

export interface Ping {
  readonly timeUsec: bigint;
  readonly seq: number;
  readonly targetSystem: number;
  readonly targetComponent: number;
}

export function encodePing(m: Ping): Buffer {
  const b = Buffer.alloc(14);
  b.writeBigUInt64LE(m.timeUsec, 0);
  b.writeUInt32LE(m.seq, 8);
  b[12] = m.targetSystem;
  b[13] = m.targetComponent;
  return b;
}

const PARAM_ID_BYTES = 16;

/** By its name. */
export interface ParamRequestRead {
  readonly targetSystem: number;
  readonly targetComponent: number;
  /** At most 16 bytes. */
  readonly name: string;
}

export function encodeParamRequestRead(m: ParamRequestRead): Buffer {
  const b = Buffer.alloc(20);
  b.writeInt16LE(-1, 0);
  b[2] = m.targetSystem;
  b[3] = m.targetComponent;
  b.write(m.name, 4, PARAM_ID_BYTES, "latin1");
  return b;
}

/** Undefined for one that asks by number. */
export function decodeParamRequestRead(b: Bytes): ParamRequestRead | undefined {
  if (b.readInt16LE(0) !== -1) return undefined;
  return { targetSystem: b.readUInt8(2), targetComponent: b.readUInt8(3), name: textAt(b, 4, PARAM_ID_BYTES) };
}

/** MAV_PARAM_TYPE. */
export const PARAM_UINT8 = 1;
export const PARAM_INT8 = 2;
export const PARAM_UINT16 = 3;
export const PARAM_INT16 = 4;
export const PARAM_UINT32 = 5;
export const PARAM_INT32 = 6;
export const PARAM_REAL32 = 9;

export interface ParamValue {
  readonly name: string;
  readonly value: number;
  /** MAV_PARAM_TYPE. */
  readonly type: number;
  readonly count: number;
  readonly index: number;
}

const WHOLE: ReadonlyMap<number, { readonly read: (b: Bytes) => number; readonly write: (b: Bytes, value: number) => void }> = new Map([
  [PARAM_UINT8, { read: (b: Bytes) => b.readUInt8(0), write: (b: Bytes, value: number) => b.writeUInt8(value, 0) }],
  [PARAM_INT8, { read: (b: Bytes) => b.readInt8(0), write: (b: Bytes, value: number) => b.writeInt8(value, 0) }],
  [PARAM_UINT16, { read: (b: Bytes) => b.readUInt16LE(0), write: (b: Bytes, value: number) => b.writeUInt16LE(value, 0) }],
  [PARAM_INT16, { read: (b: Bytes) => b.readInt16LE(0), write: (b: Bytes, value: number) => b.writeInt16LE(value, 0) }],
  [PARAM_UINT32, { read: (b: Bytes) => b.readUInt32LE(0), write: (b: Bytes, value: number) => b.writeUInt32LE(value, 0) }],
  [PARAM_INT32, { read: (b: Bytes) => b.readInt32LE(0), write: (b: Bytes, value: number) => b.writeInt32LE(value, 0) }],
]);

/**
 * How a whole number stands in the field, which is a float: an ArduPilot writes its value as a float, all others put its own bytes there (mavlink.io,
 * "Parameter Protocol", C-cast and bytewise). Whose it is tells the heartbeat, so nobody has to be asked for capabilities.
 */
const wholeOf = (type: number, autopilot: number) => (autopilot === AUTOPILOT_ARDUPILOT ? undefined : WHOLE.get(type));

/** `autopilot`: MAV_AUTOPILOT of who sends it. */
export function encodeParamValue(m: ParamValue, autopilot: number): Buffer {
  const b = Buffer.alloc(25);
  const whole = wholeOf(m.type, autopilot);
  if (whole === undefined) b.writeFloatLE(m.value, 0);
  else whole.write(b, m.value);
  b.writeUInt16LE(m.count, 4);
  b.writeUInt16LE(m.index, 6);
  b.write(m.name, 8, PARAM_ID_BYTES, "latin1");
  b[24] = m.type;
  return b;
}

/** `autopilot`: MAV_AUTOPILOT of who sent it. */
export function decodeParamValue(b: Bytes, autopilot: number): ParamValue {
  const type = b.readUInt8(24);
  return {
    name: textAt(b, 8, PARAM_ID_BYTES),
    value: wholeOf(type, autopilot)?.read(b) ?? b.readFloatLE(0),
    type,
    count: b.readUInt16LE(4),
    index: b.readUInt16LE(6),
  };
}

/** Radians. */
export interface Attitude {
  readonly bootMs: number;
  readonly roll: number;
  readonly pitch: number;
  readonly yaw: number;
}

export function encodeAttitude(m: Attitude): Buffer {
  const b = Buffer.alloc(28);
  b.writeUInt32LE(m.bootMs, 0);
  b.writeFloatLE(m.roll, 4);
  b.writeFloatLE(m.pitch, 8);
  b.writeFloatLE(m.yaw, 12);
  return b;
}

export const COMMAND_REQUEST_MESSAGE = 512;
export const RESULT_ACCEPTED = 0;
export const RESULT_UNSUPPORTED = 3;

export interface CommandLong {
  readonly command: number;
  readonly targetSystem: number;
  readonly targetComponent: number;
  readonly confirmation: number;
  /** Seven; missing ones are 0. */
  readonly params: readonly number[];
}

export function encodeCommandLong(m: CommandLong): Buffer {
  const b = Buffer.alloc(33);
  for (let i = 0; i < 7; i++) b.writeFloatLE(m.params[i] ?? 0, i * 4);
  b.writeUInt16LE(m.command, 28);
  b[30] = m.targetSystem;
  b[31] = m.targetComponent;
  b[32] = m.confirmation;
  return b;
}

export function decodeCommandLong(b: Bytes): CommandLong {
  return {
    command: b.readUInt16LE(28),
    targetSystem: b.readUInt8(30),
    targetComponent: b.readUInt8(31),
    confirmation: b.readUInt8(32),
    params: [0, 4, 8, 12, 16, 20, 24].map((at) => b.readFloatLE(at)),
  };
}

/** Asks for one message, at once. `which`: of several of its kind. */
export function encodeMessageRequest(targetSystem: number, messageId: number, which = 0): Buffer {
  return encodeCommandLong({
    command: COMMAND_REQUEST_MESSAGE,
    targetSystem,
    targetComponent: COMPONENT_AUTOPILOT,
    confirmation: 0,
    params: [messageId, which],
  });
}

export interface CommandAck {
  readonly command: number;
  readonly result: number;
  readonly targetSystem: number;
  readonly targetComponent: number;
}

export function encodeCommandAck(m: CommandAck): Buffer {
  const b = Buffer.alloc(10);
  b.writeUInt16LE(m.command, 0);
  b[2] = m.result;
  b[8] = m.targetSystem;
  b[9] = m.targetComponent;
  return b;
}

export function decodeCommandAck(b: Bytes): CommandAck {
  return {
    command: b.readUInt16LE(0),
    result: b.readUInt8(2),
    targetSystem: b.readUInt8(8),
    targetComponent: b.readUInt8(9),
  };
}

export interface RadioStatus {
  readonly rssi: number;
  readonly remoteRssi: number;
  /** Free space of the radio's transmit buffer in percent. */
  readonly txbuf: number;
  readonly rxErrors: number;
  readonly fixed: number;
}

export function encodeRadioStatus(m: RadioStatus): Buffer {
  const b = Buffer.alloc(9);
  b.writeUInt16LE(m.rxErrors, 0);
  b.writeUInt16LE(m.fixed, 2);
  b[4] = m.rssi;
  b[5] = m.remoteRssi;
  b[6] = m.txbuf;
  return b;
}

export function decodeRadioStatus(b: Bytes): RadioStatus {
  return {
    rssi: b.readUInt8(4),
    remoteRssi: b.readUInt8(5),
    txbuf: b.readUInt8(6),
    rxErrors: b.readUInt16LE(0),
    fixed: b.readUInt16LE(2),
  };
}

/** MAV_PROTOCOL_CAPABILITY_FTP. */
export const CAPABILITY_FTP = 32n;

export interface AutopilotVersion {
  readonly capabilities: bigint;
  readonly uid: bigint;
  /** Major, minor, patch and type, one byte each, major highest. */
  readonly flightSwVersion: number;
  readonly boardVersion: number;
  readonly vendorId: number;
  readonly productId: number;
  /** Of the board, in hex: 18 bytes. An ArduPilot tells this one alone, and no `uid`. */
  readonly uid2: string;
}

export function encodeAutopilotVersion(m: AutopilotVersion): Buffer {
  const b = Buffer.alloc(78);
  b.writeBigUInt64LE(m.capabilities, 0);
  b.writeBigUInt64LE(m.uid, 8);
  b.writeUInt32LE(m.flightSwVersion, 16);
  b.writeUInt32LE(m.boardVersion, 28);
  b.writeUInt16LE(m.vendorId, 32);
  b.writeUInt16LE(m.productId, 34);
  b.write(m.uid2, 60, 18, "hex");
  return b;
}

export function decodeAutopilotVersion(b: Bytes): AutopilotVersion {
  return {
    capabilities: b.readBigUInt64LE(0),
    uid: b.readBigUInt64LE(8),
    flightSwVersion: b.readUInt32LE(16),
    boardVersion: b.readUInt32LE(28),
    vendorId: b.readUInt16LE(32),
    productId: b.readUInt16LE(34),
    uid2: b.toString("hex", 60, 78),
  };
}

export interface StatusText {
  /** 0 emergency to 7 debug. */
  readonly severity: number;
  /** At most 50 bytes; more is cut. */
  readonly text: string;
  /** Of a text that goes in several: the same in each of them, not 0; their order is `chunk`, from 0. The last is shorter than 50 bytes. */
  readonly id?: number;
  readonly chunk?: number;
}

export const SEVERITY_WARNING = 4;
export const SEVERITY_INFO = 6;
const TEXT_BYTES = 50;

export function encodeStatusText(m: StatusText): Buffer {
  const b = Buffer.alloc(54);
  b[0] = m.severity;
  b.write(m.text, 1, TEXT_BYTES, "latin1");
  b.writeUInt16LE(m.id ?? 0, 51);
  b[53] = m.chunk ?? 0;
  return b;
}

/** A text of any length as the messages that it takes; `id`, from 1 to 65535, tells it from other long ones of this sender. */
export function textMessages(severity: number, text: string, id: number): StatusText[] {
  if (text.length <= TEXT_BYTES) return [{ severity, text }];
  // One that fills its last message is ended by an empty one.
  const count = Math.floor(text.length / TEXT_BYTES) + 1;
  return Array.from({ length: count }, (_, chunk) => ({
    ...{ severity, id, chunk },
    text: text.slice(chunk * TEXT_BYTES, (chunk + 1) * TEXT_BYTES),
  }));
}

export function decodeStatusText(b: Bytes): StatusText {
  const text = textAt(b, 1, TEXT_BYTES);
  const id = b.readUInt16LE(51);
  return { severity: b.readUInt8(0), text, ...(id === 0 ? {} : { id, chunk: b.readUInt8(53) }) };
}

/** A text that ends at a zero, or fills its field. */
function textAt(b: Bytes, from: number, length: number): string {
  const end = b.indexOf(0, from);
  return b.toString("latin1", from, end === -1 || end > from + length ? from + length : end);
}

/** STORAGE_STATUS: no card is in; it can be used. */
export const STORAGE_EMPTY = 0;
export const STORAGE_READY = 2;

/** The part of STORAGE_INFORMATION that is used; the rest is sent as zero. */
export interface StorageInformation {
  readonly bootMs: number;
  /** MiB; they mean nothing where the status is not STORAGE_READY. */
  readonly totalMib: number;
  readonly usedMib: number;
  readonly availableMib: number;
  /** From 1. */
  readonly id: number;
  readonly count: number;
  readonly status: number;
}

export function encodeStorageInformation(m: StorageInformation): Buffer {
  const b = Buffer.alloc(61);
  b.writeUInt32LE(m.bootMs, 0);
  b.writeFloatLE(m.totalMib, 4);
  b.writeFloatLE(m.usedMib, 8);
  b.writeFloatLE(m.availableMib, 12);
  b[24] = m.id;
  b[25] = m.count;
  b[26] = m.status;
  return b;
}

export function decodeStorageInformation(b: Bytes): StorageInformation {
  return {
    bootMs: b.readUInt32LE(0),
    totalMib: b.readFloatLE(4),
    usedMib: b.readFloatLE(8),
    availableMib: b.readFloatLE(12),
    id: b.readUInt8(24),
    count: b.readUInt8(25),
    status: b.readUInt8(26),
  };
}
