/**
 * What makes one autopilot differ from another: who it says it is, its buffers, and its file server. A flavour is one file that exports
 * an `Autopilot`, and one line in the list below.
 */
import type { FtpPacket } from "../mavlink/ftp.js";
import type { Disk } from "./disk.js";
import { px4, px4v118 } from "./px4.js";
import type { Random } from "./random.js";
import type { SimStats } from "./stats.js";
import type { LinkModel } from "./wire.js";

/** What a file server sees of the rest of the simulator. */
export interface FtpSurroundings {
  readonly disk: Disk;
  readonly link: LinkModel;
  readonly random: Random;
  readonly stats: SimStats;
  /** Bytes that the transmit ring still takes. */
  readonly freeRing: () => number;
  /** Sends `payload[0..length)` as FILE_TRANSFER_PROTOCOL, trailing zeros cut; the buffer may be used again at once. */
  readonly send: (payload: Buffer, length: number) => void;
}

export interface FtpServer {
  /** A request of this link; `from` is its sender. The packet lives only during the call. */
  request(packet: FtpPacket, fromSystem: number, fromComponent: number): void;
  /** Power goes: files are closed, nothing is remembered, no timer stays. */
  stop(): void;
  /** Sessions that are open now. */
  openSessions(): number;
}

export interface Autopilot {
  readonly name: string;
  /** MAV_AUTOPILOT. */
  readonly autopilot: number;
  /** Major, minor, patch. */
  readonly version: readonly [number, number, number];
  readonly transmitRing: number;
  ftp(surroundings: FtpSurroundings): FtpServer;
}

const autopilots: readonly Autopilot[] = [px4, px4v118];

/** The flavour of that name. Throws an error that lists the known ones. */
export function autopilotNamed(name: string): Autopilot {
  const found = autopilots.find((autopilot) => autopilot.name === name);
  if (found === undefined) throw new Error(`no autopilot "${name}"; known: ${autopilots.map((a) => a.name).join(", ")}`);
  return found;
}
