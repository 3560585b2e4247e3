/** One side of a mirror or two-way route, as `carry.ts` works on it: `device-replica.ts` over a device, and the model of the tests. */
import { Fault, isFault } from "../errors.js";
import type { Folding } from "../folded.js";
import type { Digest, LookOptions, Stamp } from "../plugin.js";

/** Faults that say that something is not as it was listed any more. */
export const notAsListed = ["changed", "missing", "conflict"] as const;

export interface Entry {
  readonly kind: "file" | "directory";
  readonly stamp: Stamp;
  /** As `FileEntry.identity`, at the side of the route's `from`. */
  readonly identity?: string;
  /** Of what is on another file system than the side's root: names that, as `FileEntry.volume`. */
  readonly volume?: string;
  /** It was written a moment before it was looked at: what is written to it next may show no difference, so it has to be read to be known. */
  readonly recent?: true;
  /** Of what was agreed: it was read there, and could not be synced. That it is gone there, or shorter, is what its medium lost, not what a person did. */
  readonly unsynced?: Unsynced;
}

export interface Unsynced {
  /** For a person. */
  readonly reason: string;
  /** `bootId` of when its medium did not take it: a system tells that once, and says yes to whoever asks again. Absent: each round asks. */
  readonly boot?: string;
}

/** What can be seen, whole or with what could not. What belongs to this program is left out. */
export interface Scan {
  readonly entries: ReadonlyMap<string, Entry>;
  /** What could not be seen, with the reason: nothing counts as absent at or below it. "": the root. */
  readonly unseen: ReadonlyMap<string, string>;
  /** Directories in which something is that the route leaves out. Not known of what was not listed. */
  readonly others?: ReadonlySet<string>;
  /** Files that were written so short a time ago that they may not be complete: left as they are, like what could not be seen. */
  readonly settling: ReadonlySet<string>;
  /** The root carries this route's mark: it is the directory that was agreed with. */
  readonly marked: boolean;
  /** As `Replica.folds`. */
  readonly folds?: Folding | undefined;
}

/** A file that a side holds, and its content as it was agreed. */
export interface Earlier {
  readonly entry: Entry;
  readonly digest: Digest;
}

/** What `stage` and `publish` end with where it is the other side that cannot be read, or synced. */
export class NotRead extends Fault {
  constructor(cause: Fault) {
    const { kind, message, retryAfterMs, notTaken } = cause;
    super(kind, message, { cause, notTaken, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) });
  }
}

/** Of what is thrown by the other side. */
export function notRead(error: unknown): never {
  throw isFault(error) && !isFault(error, "aborted") ? new NotRead(error) : error;
}

/** Whether what a side said of a path is of that path alone: the rest can be done. What may be of all of it (the login, the link) is, where the side works. */
export async function isOfPath(error: unknown, side: Replica, signal: AbortSignal): Promise<boolean> {
  if (isFault(error, "rejected", "mismatch", "unreadable")) return true;
  return isFault(error, "denied", "transient") && side.usable(signal);
}

/** What a side may hold of a content that is sent to it. */
export interface Held {
  /** Something of it may be staged. */
  readonly begun: boolean;
  /** What has the name, as far as is known: what both have in common need not be sent. */
  readonly old?: Earlier;
  /** Called once its turn has come, right before it is read. */
  readonly reads: () => void;
}

/** A content on its way to a side, under a name that nobody sees. */
export interface Staging {
  /** Names route, side, path, and the content by how it was listed; 16 lower-case hexadecimal digits. */
  readonly id: string;
  readonly path: string;
  readonly size: number;
  readonly modifiedMs?: number;
}

export interface Begun {
  readonly trash: readonly string[];
  readonly staged: readonly Staging[];
  readonly dirs: readonly string[];
}

/** Every method throws the Faults of Source, Target and Tree (plugin.ts). What it did when it resolves outlives a power cut, as far as the device can promise that. */
export interface Replica {
  scan(signal: AbortSignal): Promise<Scan>;
  /** Whether it can be used now. Never throws. */
  usable(signal: AbortSignal): Promise<boolean>;
  /** Of what was begun something may be where only `tidy` finds it. */
  readonly untidy: boolean;
  /**
   * Before anything is looked at: `trash`: the names that something may have been given last (`take`); `staged`; `dirs`: what may have been removed last. Where the root is marked.
   * What cannot be where it belongs now, perhaps because of its path alone: by its name in `trash`, its path in `staged` or `dirs`, else by where it is. Nothing is to be done with that before another `tidy`.
   */
  tidy(begun: Begun, signal: AbortSignal): Promise<ReadonlyMap<string, Fault>>;
  /** As `Scan.marked`. */
  isMarked(signal: AbortSignal): Promise<boolean>;
  /** The same, in the middle of a round that found it marked. */
  isStill(signal: AbortSignal): Promise<boolean>;
  /** Where spellings of a name are one there; known once it is marked. */
  folds(signal: AbortSignal): Promise<Folding | undefined>;
  /** Puts the mark there, and makes the root where there is none. */
  mark(signal: AbortSignal): Promise<void>;
  /** undefined: nothing. Something that is neither file nor directory: Fault "rejected". */
  stat(path: string, signal: AbortSignal, how?: Pick<LookOptions, "file">): Promise<Entry | undefined>;
  /** As of `Tree`; nothing where the device cannot be asked for that. */
  sync(path: string, size: number, signal: AbortSignal): Promise<void>;
  /** By reading all of it. Fault "changed" or "missing" where it is not that entry any more. */
  digest(path: string, entry: Entry, signal: AbortSignal): Promise<Digest>;
  /** With its parents; already there is success. Fault "conflict" where a file is. */
  mkdir(path: string, signal: AbortSignal): Promise<void>;
  /** Fault "conflict" where something is in it, "changed" where it is no directory; already gone is success. */
  rmdir(path: string, signal: AbortSignal): Promise<void>;
  /**
   * To a name that nobody else uses, whose directories it makes: in one step, so that what others put at `path` meanwhile stays; a directory with all that is in
   * it. Fault "changed", "missing".
   */
  take(path: string, to: string, expect: Entry, signal: AbortSignal): Promise<void>;
  /**
   * What was taken, or what is there, a directory with all that is in it; never over anything: Fault "conflict". "missing" where it has gone. Makes the directories of `to`. A cut may
   * leave both names of a file, or an empty directory at `to`.
   */
  give(from: string, to: string, expect: Entry, signal: AbortSignal): Promise<void>;
  /** The content of `entry` of the other side, whole; a power cut may take its end, but not that entry, where its side can sync. Goes on where it was. Its digest. Fault "changed" or "missing" where it is not that entry any more. */
  stage(staging: Staging, from: Replica, entry: Entry, known: Held, signal: AbortSignal): Promise<Digest>;
  /**
   * Proves what was staged of that entry of the other side, and gives it its name, never over anything: undefined where something else has it. Where this content has it already, that was
   * done before, and durable. Fault "conflict" where it is not staged whole, or is not what it should be: it has to be staged again. "changed" or "missing" where a part of the entry has to be read
   * again, and it is not that any more.
   */
  publish(staging: Staging, digest: Digest, from: Replica, entry: Entry, signal: AbortSignal): Promise<Entry | undefined>;
  /** What of it is there beside what may have its name: a cut may leave all of it under both names. `entry`: where it is a file. */
  staged(staging: Staging, signal: AbortSignal): Promise<{ readonly bytes: number; readonly entry?: Entry }>;
  /** What was staged of it. Nothing there is success. */
  drop(staging: Staging, signal: AbortSignal): Promise<void>;
}
