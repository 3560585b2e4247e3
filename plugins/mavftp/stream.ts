/**
 * Which packets belong to a burst: those whose number and offset have gone on together from the request's. A packet of another file, late, in a
 * session of the same id (PX4 has only 0), does not, whatever its offset says.
 */
import { FTP_DATA_MAX, type FtpPacket } from "../../mavlink/ftp.js";

export class Stream {
  readonly #seq: number;
  readonly #offset: number;
  readonly #end: number;
  /** Data bytes of each packet but the file's last; undefined until a packet tells. */
  #each: number | undefined;
  /** The furthest packet that came. */
  packets = 0;
  /** Up to its end. */
  bytes = 0;

  /** `seq`: of the request, `offset`: where it begins, `end`: of what is wanted of the file. */
  constructor(seq: number, offset: number, end: number) {
    this.#seq = seq;
    this.#offset = offset;
    this.#end = end;
  }

  /** False for the refusal that ended a burst before this one. */
  mayEndWith(packet: FtpPacket): boolean {
    return ((packet.seq - this.#seq - 1) & 0xffff) < 0x8000;
  }

  /** True for a packet of this burst, with `length` data bytes. */
  has(packet: FtpPacket, length: number): boolean {
    const before = packet.offset - this.#offset;
    const low = (packet.seq - this.#seq - 1) & 0xffff;
    const last = packet.offset + length >= this.#end;
    // From a packet beyond the first, if that is the first to come, the size is known by division.
    const each = this.#each ?? (before === 0 ? (last ? FTP_DATA_MAX : length) : before / low);
    const number = before / each;
    if (before < 0 || !Number.isInteger(each) || each > FTP_DATA_MAX || !Number.isInteger(number) || (number & 0xffff) !== low)
      return false;
    if (length > each || (length < each && !last)) return false;
    if (before > 0 || !last) this.#each = each;
    this.packets = Math.max(this.packets, number + 1);
    this.bytes = Math.max(this.bytes, before + length);
    return true;
  }
}
