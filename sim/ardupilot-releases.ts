/** What one generation of ArduPilot's file server does otherwise than another: 4.6 and before, 4.7, 4.8 (GCS_FTP.cpp). */
import { Nak } from "../mavlink/ftp.js";
import type { ListingStyle } from "./ardupilot-listing.js";
import { FiveSessions, OneSession, type Session, type SessionRules } from "./ardupilot-sessions.js";

export interface Release {
  readonly sessions: (close: (session: Session) => void) => SessionRules;
  readonly listing: ListingStyle;
  readonly burstPackets: number;
  /** USB, and networks, push back: a burst there needs no pauses. */
  readonly flowControl: boolean;
  /** A zero that the size of a path counts is borne. */
  readonly countedZero: boolean;
  readonly unknown: number;
  /** Lists with times, and knows the directory of logs by its alias. */
  readonly times: boolean;
  /** Opening for writing makes a file that is not there. */
  readonly openMakes: boolean;
  /** How the end of a burst is told. */
  readonly end: {
    /** The last packet is flagged where it is short. */
    readonly shortFlagged: boolean;
    /** The refusal behind it is flagged. */
    readonly refusalFlagged: boolean;
    /** Its offset is that of the end; else that of the last packet where that was full. */
    readonly offsetOfEnd: boolean;
  };
  /** A reply that finds no room in the ring is tried again after so long. */
  readonly retryMs: number;
  /** And given up, with its session, after so long. */
  readonly giveUpMs: number;
}

const oldListing: ListingStyle = { zeros: 2, endsAtLongName: true };

export const release46: Release = {
  sessions: (close) => new OneSession(close),
  listing: oldListing,
  burstPackets: 500,
  flowControl: false,
  countedZero: false,
  unknown: Nak.Fail,
  times: false,
  openMakes: false,
  end: { shortFlagged: false, refusalFlagged: false, offsetOfEnd: false },
  retryMs: 2,
  giveUpMs: Infinity,
};

export const release47: Release = {
  ...release46,
  sessions: (close) => new FiveSessions(close, false),
  flowControl: true,
  countedZero: true,
  openMakes: true,
  end: { shortFlagged: true, refusalFlagged: false, offsetOfEnd: false },
  retryMs: 0.1,
};

export const release48: Release = {
  ...release47,
  sessions: (close) => new FiveSessions(close, true),
  listing: { zeros: 1, endsAtLongName: false },
  burstPackets: 2000,
  unknown: Nak.UnknownCommand,
  times: true,
  end: { shortFlagged: false, refusalFlagged: true, offsetOfEnd: true },
  giveUpMs: 3000,
};
