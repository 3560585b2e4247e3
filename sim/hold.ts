/** A server that does one thing for a while: what comes meanwhile is looked at when that is over, as far as there was room for it. */
import type { FtpPacket } from "../mavlink/ftp.js";
import type { Sender } from "./autopilot.js";
import type { SimClock } from "./clock.js";

interface Held {
  readonly packet: FtpPacket;
  readonly from: Sender;
}

export class Hold {
  readonly #clock: SimClock;
  readonly #take: (packet: FtpPacket, from: Sender) => void;
  readonly #roomBytes: number;
  #held: Held[] | undefined;
  #forget: (() => void) | undefined;

  /** `take` gets what has waited, in order; `roomBytes`: more than that on the wire does not wait. */
  constructor(clock: SimClock, take: (packet: FtpPacket, from: Sender) => void, roomBytes = Infinity) {
    this.#clock = clock;
    this.#take = take;
    this.#roomBytes = roomBytes;
  }

  /** Keeps a request while something is being done; false where nothing is. `lost` is called where there is no room. */
  keeps(packet: FtpPacket, from: Sender, lost: () => void): boolean {
    if (this.#held === undefined) return false;
    const bytes = this.#held.reduce((sum, held) => sum + held.from.wireBytes, from.wireBytes);
    if (bytes > this.#roomBytes) lost();
    else this.#held.push({ packet: { ...packet, payload: Buffer.from(packet.payload) }, from });
    return true;
  }

  /** One thing takes so long, unless another is being done already; then `then`. */
  for(ms: number, then: () => void = () => undefined): void {
    if (this.#held !== undefined) return;
    this.#held = [];
    this.#forget = this.#clock.after(ms, () => {
      const held = this.#held ?? [];
      this.#held = undefined;
      then();
      for (const { packet, from } of held) this.#take(packet, from);
    });
  }

  /** Power goes. */
  stop(): void {
    this.#forget?.();
    this.#held = undefined;
  }
}
