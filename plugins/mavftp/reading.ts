/**
 * The way in which the bytes of an open file are asked for. A strategy is one implementation of `Reading`.
 */
import type { Assembly } from "./assembly.js";
import type { Requests } from "./requests.js";

/** The file that is open on the autopilot. */
export interface OpenFile {
  /** Of the file session, as the autopilot named it. */
  readonly session: number;
  readonly systemId: number;
}

export interface Stretch {
  readonly file: OpenFile;
  readonly requests: Requests;
  /** Where bytes go; reading begins at its `whole`. */
  readonly assembly: Assembly;
  /** Reading ends here. */
  readonly end: number;
  /** False when no more is wanted for now: what is on the way is still taken. */
  readonly more: () => boolean;
  readonly signal: AbortSignal;
}

/** The autopilot says that the session is not, or no longer, ours. */
export class SessionLost extends Error {}

/** The file ends before the size that it was opened with: it has changed, or the session reads another's file (a MAVSDK server has one for everybody). */
export class EndedEarly extends SessionLost {}

export interface Reading {
  /**
   * Reads from `assembly.whole` on, until `end` or until no more is wanted and nothing is on its way. Rejects with SessionLost, with a
   * Fault, or with the signal's; then nothing of it is sent any more.
   */
  read(stretch: Stretch): Promise<void>;
}
