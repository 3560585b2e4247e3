/**
 * Faults: what went wrong, said in terms of what core must do next.
 *
 * A plugin maps its protocol's codes to one of these kinds at its edge; protocol codes never leave a plugin. What is thrown and is
 * no Fault is treated as `transient`, and parked after 20 tries without one byte of progress.
 */

/** Each kind is an action of core; `core/retry.ts` holds the table. */
export type FaultKind =
  /** The device is not there. Waits for presence, keeps the offset; no try is counted. */
  | "offline"
  /** Time-out, reset, 5xx. Again from the durable offset, 1 s doubling to 5 min, jittered, never given up. */
  | "transient"
  /** Asked to wait: waits `retryAfterMs`. */
  | "throttled"
  /** No space there, or in the spool. What needs that space is paused and looked at again. */
  | "full"
  /** Login, permission, TLS, host key. The device is parked and probed slowly; a person is asked. */
  | "denied"
  /** The partial there is not ours. It is discarded and begun again, once; then the delivery is parked. */
  | "conflict"
  /** The digest differs. The source is read again in its safest mode and sent again, once; then parked with both digests. */
  | "mismatch"
  /** The file is not the one that was found. The partial is dropped (kept, where the file only grew); the new version is found. */
  | "changed"
  /** The file has gone from the source. The loss is recorded once; deliveries of what is spooled go on. */
  | "missing"
  /** This file will never be taken there. This delivery is parked with the reason; the rest goes on. */
  | "rejected"
  /** The source cannot read these bytes: a bad sector, a broken entry. Its deliveries are parked with the place; tried again when the source attaches anew, and daily. Of `Tree.sync`: its medium did not take what was written to it. */
  | "unreadable"
  /** The target has no use for this file, and said so before it took any of it. This delivery is dropped with the reason; nobody waits for it. */
  | "unwanted"
  /** A single shot was sent whole, and the answer was lost. It is looked for before it is sent again. */
  | "indoubt"
  /** Can never work as configured. This device does not start; the rest runs. */
  | "config"
  /** Our own signal. Nothing is done. */
  | "aborted";

export interface FaultOptions {
  readonly cause?: unknown;
  /** With `throttled`: how long the peer asked us to wait, in ms; with `transient`: with this file alone. With `indoubt`: when it is looked for again (core's own). */
  readonly retryAfterMs?: number;
  /** The peer answered that it did not do it. Of a single shot also: it broke off before the peer can have had all of it, though its last chunk was read. */
  readonly notTaken?: boolean;
}

/**
 * The one error that crosses the plugin contract. The message is read by a person: it names what is wrong, and what to do where that
 * is known. It never holds a secret, and needs no device name in it (core adds device and path).
 */
export class Fault extends Error {
  readonly kind: FaultKind;
  readonly retryAfterMs: number | undefined;
  readonly notTaken: boolean;

  constructor(kind: FaultKind, message: string, options: FaultOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "Fault";
    this.kind = kind;
    this.retryAfterMs = options.retryAfterMs;
    this.notTaken = options.notTaken === true;
  }
}

/** True for a Fault, of one of `kinds` where some are given. Survives two copies of this module (a plugin from outside brings its own). */
export function isFault(error: unknown, ...kinds: readonly FaultKind[]): error is Fault {
  if (!(error instanceof Error) || error.name !== "Fault" || !("kind" in error)) return false;
  return kinds.length === 0 || kinds.some((kind) => kind === error.kind);
}

/** As it is, but a Fault with its device in front: where nothing else says which one it is. */
export function withDevice(device: string, error: unknown): unknown {
  return isFault(error) ? new Fault(error.kind, `${device}: ${error.message}`, { cause: error }) : error;
}

/** The code that node gave an error ("ENOENT", "ECONNRESET"); "" where it has none, or is no error. */
export function codeOf(error: unknown): string {
  if (!(error instanceof Error && "code" in error && typeof error.code === "string")) return "";
  return /^unknown/i.test(error.code) && "errno" in error ? (unnamed[-Number(error.errno)] ?? error.code) : error.code;
}

/** Those of Linux that node has no names for. A file system that finds itself damaged (EBADMSG, EUCLEAN: a sum, an inode) says no more than EIO does. */
const unnamed: Readonly<Record<number, string>> = { 74: "EIO", 116: "ESTALE", 117: "EIO", 122: "EDQUOT", 123: "ENOMEDIUM" };

/** What SQLite says of its disk (sqlite3_errstr): `all()` of @photostructure/sqlite throws that without the code. */
const sqliteWords: Readonly<Record<string, number>> = {
  "out of memory": 7,
  "disk I/O error": 10,
  "database disk image is malformed": 11,
  "database or disk is full": 13,
  "file is not a database": 26,
};

/** SQLite's primary result code (https://www.sqlite.org/rescode.html): 13 is SQLITE_FULL; undefined for what SQLite did not say. */
export function sqliteCodeOf(error: unknown): number | undefined {
  if (!(error instanceof Error)) return undefined;
  if ("errcode" in error) return Number(error.errcode) & 0xff;
  return codeOf(error) === "ERR_SQLITE_ERROR" ? sqliteWords[error.message] : undefined;
}

/** SQLITE_CORRUPT, SQLITE_NOTADB. */
export function isCorrupt(error: unknown): error is Error {
  return [11, 26].includes(sqliteCodeOf(error) ?? 0);
}

/** The Fault for an error of node:fs at a place that holds files. `what` opens the message: "cannot write /a/b". */
export function faultOfErrno(error: unknown, what: string): Fault {
  if (isFault(error)) return error;
  const code = codeOf(error);
  const kind = errnoKinds[code] ?? "transient";
  const said = errnoTexts[code] ?? (error instanceof Error ? error.message : String(error));
  return new Fault(kind, `${what}: ${said}`, { cause: error });
}

/** What a person reads of an error at a place that `what` names: words in place of node's own. A Fault keeps its own, behind the place. */
export function textOfErrno(error: unknown, what: string): string {
  return isFault(error) ? `${what}: ${error.message}` : (faultOfErrno(error, what).message.split("\n", 1)[0] ?? what);
}

/**
 * What fsync(2) says of what could not be written (EIO, ENOSPC, EDQUOT, ETIMEDOUT of a network's) it says once: the system may have dropped those pages, reads what was to be there from its cache, and
 * says of another sync that all is well. So such a file is written anew from where it was synced last.
 */
export function isUnsynced(error: unknown): boolean {
  if (!(error instanceof Error && "syscall" in error) || !["fsync", "fdatasync"].includes(String(error.syscall))) return false;
  return isFault(faultOfErrno(error, ""), "transient", "full");
}

/** The Fault of `Tree.sync` for what node:fs said. */
export function faultOfSync(error: unknown, path: string): Fault {
  const fault = faultOfErrno(error, `cannot sync ${path}`);
  return isUnsynced(error) ? new Fault("unreadable", fault.message, { cause: error }) : fault;
}

/** The Fault of `Tree.rmdir` for what node:fs said when it should remove the directory at `path`; undefined where nothing is there. */
export function faultOfRmdir(error: unknown, path: string): Fault | undefined {
  switch (codeOf(error)) {
    case "ENOENT":
      return undefined;
    case "ENOTEMPTY":
    case "EEXIST":
      return new Fault("conflict", `${path} is not empty`, { cause: error });
    case "ENOTDIR":
      return new Fault("changed", `${path} is no directory any more`, { cause: error });
    default:
      return faultOfErrno(error, `cannot remove the directory ${path}`);
  }
}

/** Throws Fault "aborted" once the signal was given. */
export function throwIfAborted(signal: AbortSignal): void {
  if (signal.aborted) throw abortedFault(signal);
}

/** The Fault of a given signal: its reason where that is a Fault already (core aborts with the reason why). */
export function abortedFault(signal: AbortSignal): Fault {
  return isFault(signal.reason) ? signal.reason : new Fault("aborted", "stopped");
}

/** What `work` gives; the Fault of the signal as soon as that is given, while `work` goes on. */
export async function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal.aborted) {
    // Nobody looks at it any more.
    work.catch(() => undefined);
    throw abortedFault(signal);
  }
  let stop: () => void = () => undefined;
  const aborted = new Promise<never>((_resolve, reject) => {
    stop = () => reject(abortedFault(signal));
    signal.addEventListener("abort", stop, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

const errnoKinds: Readonly<Record<string, FaultKind>> = {
  ENOENT: "missing",
  ENOTDIR: "missing",
  ENOSPC: "full",
  EDQUOT: "full",
  EACCES: "denied",
  EPERM: "denied",
  EROFS: "denied",
  ENODEV: "offline",
  ENXIO: "offline",
  ENOMEDIUM: "offline",
  ESTALE: "offline",
  ENOTCONN: "offline",
  ECONNABORTED: "offline",
  ENAMETOOLONG: "rejected",
  EFBIG: "rejected",
  EINVAL: "rejected",
  EILSEQ: "rejected",
  EISDIR: "rejected",
  EXDEV: "rejected",
};

const errnoTexts: Readonly<Record<string, string>> = {
  ENOENT: "there is no such file or directory",
  ENOTDIR: "a part of the path is not a directory",
  EISDIR: "it is a directory",
  ENOSPC: "no space is left on the device",
  EDQUOT: "the disk quota is used up",
  EACCES: "permission denied",
  EPERM: "the operation is not permitted",
  EROFS: "the file system is read-only",
  EIO: "input/output error (the medium may be failing)",
  ENODEV: "the device has gone",
  ENXIO: "the device has gone",
  ENOTCONN: "the program that is its file system has ended",
  // What was asked of it and not answered (Linux, fs/fuse/dev.c); what is asked later is ENOTCONN.
  ECONNABORTED: "the program that is its file system has ended",
  ENAMETOOLONG: "the name is too long for this file system",
  EFBIG: "the file is too large for this file system",
  EMFILE: "too many open files",
  EXDEV: "that is on another file system",
};
