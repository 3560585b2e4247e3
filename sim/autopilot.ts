/**
 * What makes one autopilot differ from another: who it says it is, its buffers, and its file server. A flavour is one file that exports
 * an `Autopilot`, and one line in the list of `autopilots.ts`.
 */
import type { FtpPacket } from "../mavlink/ftp.js";
import type { SimClock } from "./clock.js";
import type { Disk } from "./disk.js";
import type { Random } from "./random.js";
import type { SimStats } from "./stats.js";
import type { LinkModel } from "./wire.js";

/** What a file server sees of the rest of the simulator. */
export interface FtpSurroundings {
  readonly disk: Disk;
  readonly link: LinkModel;
  readonly clock: SimClock;
  readonly random: Random;
  readonly stats: SimStats;
  /** Bytes a second that a checksum reads from the card; Infinity: it takes no time. */
  readonly crcBytesPerSecond: number;
  /** The most that one read gives, where that is less than a packet holds (ArduPilot on an RP2350: 48). */
  readonly readMost: number;
  /** Bytes that the transmit ring of that channel still takes. */
  readonly freeRing: (channel: number) => number;
  /** Percent of its buffer that a radio on one of the links said to be free; 100 where none said anything lately. */
  readonly radioFree: () => number;
  /** Sends `payload[0..length)` as FILE_TRANSFER_PROTOCOL, trailing zeros cut; the buffer may be used again at once. */
  readonly send: (payload: Buffer, length: number, channel: number) => void;
}

/** Where a request comes from. */
export interface Sender {
  readonly system: number;
  readonly component: number;
  /** The autopilot's number of the link: 0 is the simulator's own, others are links beside it. */
  readonly channel: number;
  /** The frame on the wire, which waits in the receive buffer. */
  readonly wireBytes: number;
}

export interface FtpServer {
  /** A request. The packet lives only during the call. */
  request(packet: FtpPacket, from: Sender): void;
  /** Its card does not answer for so long: whatever is asked meanwhile waits, as far as there is room for it. */
  pause(ms: number): void;
  /** Power goes: files are closed, nothing is remembered, no timer stays. */
  stop(): void;
  /** Sessions that are open now. */
  openSessions(): number;
  /** What else is sent on that link comes at a quarter of its rate now. Absent: never. */
  slowsStreams?(channel: number): boolean;
}

/** One setting (PARAM_VALUE): MAV_PARAM_TYPE and value. */
export interface Setting {
  readonly type: number;
  readonly value: number;
}

export interface Autopilot {
  readonly name: string;
  /** MAV_AUTOPILOT. */
  readonly autopilot: number;
  /** Major, minor, patch. */
  readonly version: readonly [number, number, number];
  /** Bytes that may wait to be sent, where a wire paces them. */
  readonly transmitRing: number;
  /** True where each link has a file server of its own (PX4). */
  readonly serverPerLink: boolean;
  /** Where its logs are, below "/". */
  readonly logDir: string;
  /** The name of its first log. */
  readonly firstLog: string;
  /** How many sessions a client can hold so that nobody else gets one. */
  readonly sessions: number;
  /** A file that its ground stations load first, and that is on no card. */
  readonly parameterFile: string;
  /** Those that say whether and how it logs, as they are when nobody has changed them; it has no others here. */
  readonly settings: Readonly<Record<string, Setting>>;
  /** It tells the room on its card (STORAGE_INFORMATION). */
  readonly tellsStorage: boolean;
  ftp(surroundings: FtpSurroundings): FtpServer;
}
