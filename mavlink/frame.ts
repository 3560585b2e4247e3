/**
 * MAVLink framing: bytes in any pieces → frames whose checksum holds, and back. Versions 1 and 2; a signature is skipped, not verified.
 *
 * After a byte that begins no frame the search goes on at the next byte, so no frame behind junk or a false start byte is lost. A start byte counts only
 * where a header of a known message with a possible length follows; so a false one holds nothing up, a message that is not in use is stepped
 * over at the cost of looking at its bytes, and the cost is linear in what comes in. At most one incomplete frame (280 bytes) is kept.
 */
import { frameCrc } from "./crc.js";
import { layoutOf } from "./messages.js";

const START_V1 = 0xfe;
const START_V2 = 0xfd;
const SIGNED = 0x01;
const SIGNATURE = 13;

/** One received frame. The object and its payload are used again for the next: valid only during the callback. */
export interface Frame {
  readonly version: 1 | 2;
  readonly seq: number;
  readonly systemId: number;
  readonly componentId: number;
  readonly messageId: number;
  /** The full payload, filled up with zeros. */
  readonly payload: Buffer;
  /** Bytes on the wire. */
  readonly wireBytes: number;
}

export class FrameParser {
  /** Bytes given so far. */
  bytes = 0;
  /** Frames handed on. */
  frames = 0;
  /** Candidates whose checksum did not hold: line noise, or another dialect's layout. */
  badCrc = 0;

  readonly #onFrame: (frame: Frame) => void;
  readonly #frame: { -readonly [K in keyof Frame]: Frame[K] };
  #rest: Buffer = Buffer.alloc(0);

  constructor(onFrame: (frame: Frame) => void) {
    this.#onFrame = onFrame;
    this.#frame = { version: 2, seq: 0, systemId: 0, componentId: 0, messageId: 0, payload: Buffer.alloc(256), wireBytes: 0 };
  }

  /** Takes the next bytes; calls back once per frame that they complete. */
  push(chunk: Buffer): void {
    this.bytes += chunk.length;
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const end = bytes.length;
    let at = 0;
    while (at < end) {
      const start = bytes[at];
      if (start !== START_V2 && start !== START_V1) {
        at += 1;
        continue;
      }
      const taken = start === START_V2 ? this.#tryV2(bytes, at, end) : this.#tryV1(bytes, at, end);
      if (taken < 0) break;
      at += taken;
    }
    // A copy: the chunk is the sender's to use again, and may be large.
    this.#rest = at < end ? Buffer.from(bytes.subarray(at)) : empty;
  }

  /** Forgets an incomplete frame: the line was opened anew. */
  reset(): void {
    this.#rest = empty;
  }

  /** Bytes to go forward; -1 when more must come first. */
  #tryV2(bytes: Buffer, at: number, end: number): number {
    if (at + 10 > end) return this.#couldBeV2(bytes, at, end) ? -1 : 1;
    const length = bytes[at + 1] as number;
    const flags = bytes[at + 2] as number;
    const messageId = (bytes[at + 7] as number) | ((bytes[at + 8] as number) << 8) | ((bytes[at + 9] as number) << 16);
    const layout = layoutOf(messageId);
    if (layout === undefined || flags > SIGNED || length > layout.full) return 1;
    const crcAt = at + 10 + length;
    const next = crcAt + 2 + (flags === SIGNED ? SIGNATURE : 0);
    if (next > end) return -1;
    if (frameCrc(bytes, at + 1, crcAt, layout.crcExtra) !== ((bytes[crcAt] as number) | ((bytes[crcAt + 1] as number) << 8))) {
      this.badCrc += 1;
      return 1;
    }
    const frame = this.#frame;
    frame.version = 2;
    frame.seq = bytes[at + 4] as number;
    frame.systemId = bytes[at + 5] as number;
    frame.componentId = bytes[at + 6] as number;
    this.#emit(bytes, at + 10, length, layout.full, messageId, next - at);
    return next - at;
  }

  /** False when the few bytes of a header that are there rule it out already. */
  #couldBeV2(bytes: Buffer, at: number, end: number): boolean {
    return at + 2 >= end || (bytes[at + 2] as number) <= SIGNED;
  }

  #tryV1(bytes: Buffer, at: number, end: number): number {
    if (at + 6 > end) return -1;
    const length = bytes[at + 1] as number;
    const messageId = bytes[at + 5] as number;
    const layout = layoutOf(messageId);
    if (layout?.base !== length) return 1;
    const crcAt = at + 6 + length;
    const next = crcAt + 2;
    if (next > end) return -1;
    if (frameCrc(bytes, at + 1, crcAt, layout.crcExtra) !== ((bytes[crcAt] as number) | ((bytes[crcAt + 1] as number) << 8))) {
      this.badCrc += 1;
      return 1;
    }
    const frame = this.#frame;
    frame.version = 1;
    frame.seq = bytes[at + 2] as number;
    frame.systemId = bytes[at + 3] as number;
    frame.componentId = bytes[at + 4] as number;
    this.#emit(bytes, at + 6, length, layout.full, messageId, next - at);
    return next - at;
  }

  #emit(bytes: Buffer, from: number, length: number, full: number, messageId: number, wireBytes: number): void {
    const frame = this.#frame;
    bytes.copy(frame.payload, 0, from, from + length);
    if (length < full) frame.payload.fill(0, length, full);
    frame.messageId = messageId;
    frame.wireBytes = wireBytes;
    this.frames += 1;
    this.#onFrame(frame);
  }
}

const empty = Buffer.alloc(0);

/** Makes the frames of one sender: its identity, and the running number that receivers count losses with. */
export class FrameWriter {
  systemId: number;
  componentId: number;
  #seq = 0;

  constructor(systemId: number, componentId: number) {
    this.systemId = systemId;
    this.componentId = componentId;
  }

  /**
   * A version 2 frame around `payload[0..length)`, without its trailing zeros. Throws on a message that is not in use.
   */
  encode(messageId: number, payload: Buffer, length = payload.length): Buffer {
    const layout = layoutOf(messageId);
    if (layout === undefined) throw new RangeError(`message ${messageId} is not in use here`);
    let used = Math.min(length, layout.full);
    // The first byte is always sent, as the MAVLink guide says.
    while (used > 1 && payload[used - 1] === 0) used -= 1;
    const frame = Buffer.allocUnsafe(12 + used);
    frame[0] = START_V2;
    frame[1] = used;
    frame[2] = 0;
    frame[3] = 0;
    frame[4] = this.#seq;
    frame[5] = this.systemId;
    frame[6] = this.componentId;
    frame[7] = messageId & 0xff;
    frame[8] = (messageId >> 8) & 0xff;
    frame[9] = messageId >> 16;
    payload.copy(frame, 10, 0, used);
    frame.writeUInt16LE(frameCrc(frame, 1, 10 + used, layout.crcExtra), 10 + used);
    this.#seq = (this.#seq + 1) & 0xff;
    return frame;
  }
}
