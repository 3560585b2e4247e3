/**
 * THE CONTRACT between core and the plugins; exported as `filesync/plugin` with what a plugin needs beside it (`for-plugins.ts`).
 *
 * A plugin does the work and says what went wrong in terms of what core must do next (a Fault, `core/errors.ts`). Retry, backoff, rates,
 * concurrency, locking and logging are core's, wrapped around a plain plugin; a plugin arbitrates only its own link. Constructors do no I/O.
 *
 * Core guarantees: no call before `presence$` was subscribed; none after `close()`; at most `features.concurrency` opens (source) or
 * writes and commits (target; small ones as `features.pipeline` says) at a time; `list`, `stat` and `digest` may come while a file is open; one `write` at a time per upload.
 * Every method that takes a signal ends within 2 s of it with Fault "aborted" (or the Fault that is the signal's reason).
 *
 * Paths are relative to the device's root and "/"-separated, never with "." or ".." parts. Bytes of a name that are no UTF-8, and control
 * characters, are written as `core/names.ts` says, so that each path is printable text and can be turned back.
 */
import type { Readable } from "node:stream";
import type { Observable } from "rxjs";
import type { GenericSchema } from "valibot";

// ---------------------------------------------------------------- what core gives to a plugin

/** Time. Order, retry and time-outs use `monotonicMs`; wall time is for people, and only where `trusted()`. */
export interface Clock {
  /** Milliseconds since some start; never goes back. */
  monotonicMs(): number;
  /** Milliseconds since 1970 as the machine believes. */
  wallMs(): number;
  /** How long this machine runs. */
  machineUpMs?(): number;
  /** Whether wall time can be believed: NTP is in step, or an autopilot said it. */
  trusted(): boolean;
  /** Resolves after `ms`; rejects with Fault "aborted" at once when the signal is given. Leaves no timer behind. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

export type Level = "debug" | "info" | "warn" | "error";

/** A small durable store of a plugin, or of one upload. Values are JSON, a few hundred bytes. */
export interface Memo {
  get(key: string): unknown;
  /** Resolves once the value is durable; `undefined` removes it. */
  set(key: string, value: unknown): Promise<void>;
}

/** How it goes, for a service that shows it to a monitor. Bytes; counts of deliveries; keys are only ever added. */
export interface Figures {
  /** One line for a person, as `filesync status` has it. */
  readonly summary: string;
  /** In the configuration that runs. */
  readonly mistakes: number;
  readonly devices: readonly { readonly name: string; readonly type: string; readonly attached: boolean }[];
  readonly deliveries: { readonly waiting: number; readonly active: number; readonly parked: number; readonly delivered: number };
  /** Those that are parked, by kind of fault. */
  readonly parked: Readonly<Record<string, number>>;
  /** Only on the source, whole here but not everywhere, delivered. */
  readonly bytes: { readonly onSource: number; readonly here: number; readonly delivered: number };
  /** Since the engine began. */
  readonly moved: { readonly pulled: number; readonly pushed: number };
  /** Those that run; `to` is "spool" for a pull. */
  readonly transfers: readonly { readonly from: string; readonly to: string; readonly bytesPerSecond: number }[];
  readonly spool: { readonly usedBytes: number; readonly maxBytes: number; readonly freeBytes: number };
  readonly journalBytes: number;
  /** Said since the program's start, by level. */
  readonly events: Readonly<Record<Level, number>>;
  /** Milliseconds since 1970; absent before the first. */
  readonly lastDeliveryMs?: number;
}

export interface PluginContext {
  /** The device's name in the configuration. */
  readonly name: string;
  /** The vehicle's name in the configuration. */
  readonly vehicle: string;
  /** This installation's id: 8 lower-case hexadecimal digits. */
  readonly installation: string;
  /** A directory of this device's own below `stateDir`; made by the plugin when it is first needed. */
  readonly stateDir: string;
  readonly clock: Clock;
  /** Some route sends to it, or deletes or archives on it. */
  readonly changed?: boolean;
  /** Some route takes files from it. */
  readonly read?: boolean;
  /** The device's `maxRate`, bytes per second. Core slows the streams by it; a plugin on a link that others share asks for no more than that either. */
  readonly maxRate?: number;
  /** What the plugin learned and wants to know after a restart. */
  readonly memory: Memo;
  /** How all of it goes; costs some queries of the journal. Throws a Fault while the state directory cannot be written. Absent where no daemon runs. */
  readonly figures?: () => Promise<Figures>;
  /** A fact for people and programs; it becomes an event. `message` is one line and holds no secret. */
  say(level: Level, message: string, facts?: Readonly<Record<string, unknown>>): void;
  /** The device said what time it is (SYSTEM_TIME of an autopilot with GPS): wall time can be trusted from now on. */
  tellTime(wallMs: number): void;
  /** The device knows whether its vehicle is armed; undefined when it cannot tell now, which counts as armed. As often as it likes. */
  tellArmed(armed: boolean | undefined): void;
}

// ---------------------------------------------------------------- device

export interface Presence {
  readonly state: "attached" | "detached";
  /** Why it is detached, for a person: "no heartbeat on /dev/ttyACM0", "the vehicle is armed". */
  readonly reason?: string;
  /** While the first look at it has no answer yet, which comes within half a minute or two: `run --once` waits for that. */
  readonly unseen?: true;
  /** Nobody has asked it yet, so that nobody knows: who has to ask counts as attached until work, or `probe`, finds out. Core knows by itself once that was so. */
  readonly unasked?: true;
  /** Names this attachment (boot, address, mount). Another epoch is a new edge: backoff is reset, the source is listed. */
  readonly epoch?: string;
  /** Where media can be changed: the ids of those that are in now. Files of another medium wait for it; none of them counts as missing. */
  readonly media?: readonly string[];
  /** It is in, and may be taken out at once: nothing of it is in use, nothing is wanted of it. */
  readonly safe?: true;
  /** While it is attached: what else is plugged in and is not used, with the reason, for a person. */
  readonly unused?: string;
}

export interface Certificate {
  /** Whom it is for: its common name, else its other names. */
  readonly name: string;
  /** Milliseconds since 1970. */
  readonly fromMs: number;
  readonly untilMs: number;
  /** "SHA256:…", as the option `tls.fingerprint` takes it. */
  readonly fingerprint: string;
  /** The configuration names its fingerprint: its time is not looked at. */
  readonly pinned: boolean;
}

/** What becomes of the files that come from a device, for a person who is near it. */
export type News =
  /** Every file of it that was found has its receipt from each required target, and one of them is new. */
  | { readonly what: "safe" }
  /** A file of it was set aside for a required target. `reason`: one line. */
  | { readonly what: "parked"; readonly reason: string };

/** Something about a device that decides whether its files come. */
export interface Advice {
  /** `bad`: none, or not all, will come. `warn`: may be so. `unseen`: the device did not tell. */
  readonly severity: "ok" | "warn" | "bad" | "unseen";
  /** What it is about, in the device's own words: a setting's name. */
  readonly about: string;
  /** For a person, in one line that goes on from `about`: "is -1: no log is written". */
  readonly text: string;
  /** What to do, in this order: commands to type; what is no command begins with "# ". */
  readonly todo: readonly string[];
}

/** ONE object per configured device: one port, one login, one lock. */
export interface Device {
  /** The present state on subscribe, then each change. Never errors, never completes before `close()`. */
  readonly presence$: Observable<Presence>;
  /** A cheap check that login and root are usable; throws the Fault that says why not. Never changes anything there. */
  probe(signal: AbortSignal): Promise<void>;
  /** Whether files can be written there; throws the Fault that says why not, and changes nothing. Absent where only writing would tell. */
  probeTarget?(signal: AbortSignal): Promise<void>;
  /** Nothing more is wanted of it as a source until it is listed again: a disk may be unmounted. Called as often as that becomes so. `left`: what is on it and could not be had, for a person. */
  rest?(left?: string): void;
  /** Said once each time that it becomes so; from what happened since the engine began. */
  news?(news: News): void;
  /** A person wants to take it out: ends its use, and resolves with one line for them once it may be pulled. Detached from then on, until it is plugged anew. Throws the Fault that says why not. */
  eject?(signal: AbortSignal): Promise<string>;
  /** Free bytes below its root, of several media the least; undefined where nobody can tell now. Absent where it never tells. Changes nothing there; throws as `probe` does. */
  room?(signal: AbortSignal): Promise<number | undefined>;
  /** What of its own settings and state keeps files from coming, or may; also what is well. For a person who asks (`filesync doctor`). Changes nothing there; throws as `probe` does. */
  advice?(signal: AbortSignal): Promise<readonly Advice[]>;
  /** What its server shows for itself, believed or not; undefined where nothing is encrypted. Nobody is logged in. Throws "offline", "denied", "transient", "config". */
  certificate?(signal: AbortSignal): Promise<Certificate | undefined>;
  /** Idempotent. Afterwards no timer, socket, port or child is left. */
  close(): Promise<void>;
  readonly source?: Source;
  readonly target?: Target;
  /** What can be listed and changed: for delete, archive, mirror and the hand commands. */
  readonly tree?: Tree;
}

/** A plugin that serves rather than moves. It is a Device too: its source is what its clients finished sending. */
export interface Service extends Device {
  /** Opens its port. Throws Fault "config" (bad address), "denied" (no right to that port), "transient" (port is held). Core retries the latter. */
  start(signal: AbortSignal): Promise<void>;
  /** Whether `start` would work now: throws the Fault that it would. Nobody is served, nothing is changed, and nothing is left open. */
  probeStart?(signal: AbortSignal): Promise<void>;
  /** Whether what it needs beside its own port works, such as a mail server: asked also while another process serves it. Throws the Fault; nothing is sent, nothing is changed, and nothing is left open. */
  probeNeeds?(signal: AbortSignal): Promise<void>;
  /** What its operator orders (`filesync registry …`), also where it was not started: then nobody else uses its state. Throws "config" for words that it does not know, with those that it knows. */
  order?(words: readonly string[], signal: AbortSignal): Promise<Ordered>;
}

export interface Ordered {
  /** Lines for a person. */
  readonly said: readonly string[];
  /** The same as JSON, for a program; keys are only ever added. */
  readonly facts: unknown;
}

// ---------------------------------------------------------------- entries

/** What tells one state of a file from another without reading it. */
export interface Stamp {
  readonly size: number;
  /** Milliseconds since 1970, by the source's own clock; absent where it has none. */
  readonly modifiedMs?: number;
  /** Where the source has one. */
  readonly inode?: string;
  /** The medium that it is on, where media can be changed (`Presence.media`): another one's file of the same path is another file. */
  readonly medium?: string;
}

export interface FileEntry extends Stamp {
  readonly path: string;
  /** `unreadable`: something is there that cannot be listed or is no plain file; `reason` says why. It costs only itself. */
  readonly kind: "file" | "directory" | "unreadable";
  /** Also of a file that is not `settled`, where it is not being written. */
  readonly reason?: string;
  /** Of what is `unreadable`: a link, pipe, socket or device. No content of a file is left out with it. */
  readonly special?: true;
  /** true: surely complete (a finished arrival, a log that is not the newest). false: surely still written. Absent: core finds out. */
  readonly settled?: boolean;
  /**
   * Names the thing itself, whatever it is called: the same after a rename, never given to another one (of a local file system: device, inode number, time
   * of birth). Another one after a replug or a restart of this machine, where that numbers its devices anew. Absent where nothing says so.
   */
  readonly identity?: string;
  /** Of a directory in a listing, where another file system than that of the directory above begins: names it, the same each time that it is mounted. */
  readonly volume?: string;
}

/** `sha256` is core's own; `crc32-mavlink` is opcode 14 of MAVLink FTP (reflected 0xEDB88320, start 0, no final xor). */
export type DigestKind = "sha256" | "crc32-mavlink";
/** A digest with its kind: `sha256:<64 hex>` or `crc32-mavlink:<8 hex>`. */
export type Digest = `${DigestKind}:${string}`;

/** Bytes that are lent. */
export interface Chunk {
  readonly bytes: Buffer;
  /** They are not looked at any more: their memory is used again. Once; never calling it only costs memory. */
  readonly release: () => void;
}

/** Bytes in order, each chunk when it is asked for. */
export interface Reading {
  /** undefined at the end. Throws the Fault that it ends with; one call at a time. */
  next(): Promise<Chunk | undefined>;
  /** Nothing more is wanted. Idempotent; also after the end. */
  close(): void;
}

export interface HowToRead {
  /** All of it is digested, also what is before the offset. */
  readonly digest: boolean;
  /** A file that grew is "changed" too. */
  readonly exact: boolean;
  /** With both: not so where it grew once it was open, and its beginning, read once more at the end, is what was given. Who cannot look at what is open leaves this out. */
  readonly mayGrow?: boolean;
  /** Where it goes once it is open it may be read to its end, as long as it stayed the same until then. */
  readonly mayGo?: boolean;
}

export interface DigestedReading extends Reading {
  /** The SHA-256 of the whole, once `next` said that it has ended; undefined where it was not asked for. */
  readonly digest: Digest | undefined;
}

// ---------------------------------------------------------------- source

export interface SourceFeatures {
  /** `open` can begin at any offset without moving what is before it. */
  readonly ranges: boolean;
  /** Digests that the source computes by itself, cheaper than reading the file; strongest first. Known once a file was opened. */
  readonly digests: readonly DigestKind[];
  /** How many files may be open at once: 1 for MAVLink FTP. */
  readonly concurrency: number;
  /** Local and random-access: the file may be read in place rather than copied to the spool. */
  readonly inPlace: boolean;
  /** So many bytes read right before a break may be wrong, though no error came with them (a medium that is being pulled, below FUSE): they are read again. */
  readonly doubtedBytes?: number;
  /** How often listing is worth it, in ms, where the configuration says nothing: 30,000 when absent; Infinity: at each edge and hint only. */
  readonly intervalMs?: number;
}

export interface LookOptions {
  /** Times of files are wanted also where each costs a question of its own (FTP without MLSD). */
  readonly times?: true;
  /** Only whether a file is there: `undefined` also where nothing but a listing of its directory would tell more (FTP without MLST). */
  readonly file?: true;
}

export interface ListOptions extends LookOptions {
  /** Asked before a directory is entered; false leaves it out with all below it. */
  readonly enter?: (dir: string) => boolean;
  /** Directories are given too, each before what is in it; those that `enter` leaves out are not. One that cannot be listed is `unreadable` instead. */
  readonly directories?: true;
}

/** How a source is read, where it has several ways and has chosen one. */
export interface WayOfReading {
  /** In the words of its page: "plain reads", "bursts". */
  readonly name: string;
  /** One line for a person. */
  readonly why: string;
  /** What each way gave when it was tried, bytes per second. */
  readonly tried: Readonly<Record<string, number>>;
}

export interface Source {
  /** May be learned while attached; core asks each time. */
  readonly features: SourceFeatures;
  /** Hints that listing is worth it; never the only way to learn of a change. */
  readonly changes$?: Observable<void>;
  /** Plain files below the root (and `unreadable` things), in any order, each once. Throws "offline", "denied", "transient". */
  list(signal: AbortSignal, options?: ListOptions): AsyncIterable<FileEntry>;
  /** The source's own clock in ms since 1970, for "not changed for a while"; absent, or undefined for now, where it cannot be known. */
  now?(): number | undefined;
  /** The file as it is now; undefined when it is not there. Throws "offline", "denied", "transient". */
  stat(path: string, signal: AbortSignal): Promise<FileEntry | undefined>;
  /**
   * The bytes from `offset` to `entry.size`, never beyond. At the size: an empty stream. Throws, or ends the stream with, "missing",
   * "changed" (the size or stamp is not that of `entry`, an offset past the end; a file that only grew is no fault), "offline", "denied",
   * "transient", "mismatch" (it was read twice, and differs). A stream that ends early without an error is a defect: core takes it as "transient". `safest`: slow and sure, after a mismatch.
   */
  open(entry: FileEntry, offset: number, signal: AbortSignal, options?: { readonly safest?: boolean }): Promise<Readable>;
  /**
   * Like `open`, away from the event loop, for a file that is read in place. The end comes only after the file was looked at once more: "changed"
   * where it is not the one of `entry` any more, "missing" where it has gone.
   */
  readInPlace?(entry: FileEntry, offset: number, signal: AbortSignal, how: HowToRead): DigestedReading;
  /** The digest over the first `entry.size` bytes, by the source itself; undefined when it would rather not (too large, armed). */
  digest?(entry: FileEntry, kind: DigestKind, signal: AbortSignal): Promise<Digest | undefined>;
  /** Whether it may still be written, as far as the last listing tells: it is not deleted or archived yet. Absent: what has settled is complete. */
  mayGrow?(path: string): boolean;
  /** Undefined until it is chosen, which takes the first bytes of a file. */
  readonly wayOfReading?: WayOfReading | undefined;
  /**
   * With `inPlace`: names the file system that holds a directory ("" is the root), or the nearest above it that is there; another one, or none, once a disk
   * is not mounted any more. What is missing counts as gone only where it is the one that held it. Absent: it is noticed when it is to be read. Throws as `stat` does.
   */
  volume?(dir: string, signal: AbortSignal): Promise<string>;
  /** With `inPlace`: where the file is on this machine, for targets with `needs: sealedPath`; undefined where that is no text (a name that is no UTF-8). */
  localPath?(entry: FileEntry): string | undefined;
}

// ---------------------------------------------------------------- target

export interface TargetFeatures {
  /** What a push needs: bytes as they come, only a sealed file, or a sealed file that has a path on this machine. */
  readonly needs: "stream" | "sealed" | "sealedPath";
  /** `write` can begin at the offset that the peer holds. Without it nothing is sent before it is whole here, and nothing is broken off for what is more urgent. */
  readonly resume: boolean;
  /** `resume` is false only because nobody knows yet: an upload tries it out before it asks for the bytes. So one that is too large for a budget in one piece is begun. */
  readonly triesResume?: boolean;
  /** Whole parts only: an offset is a multiple of this many bytes. */
  readonly granule?: number;
  /** What `splice` takes: any bytes of a file ("ranges"), or all of a file as the first bytes of a partial ("whole"). Absent: the peer copies nothing by itself. */
  readonly splices?: "ranges" | "whole";
  /** Nothing is visible under the final name before `commit`. */
  readonly atomic: boolean;
  /** `commit` calls `Upload.naming`. Without it nobody knows of a `commit` that broke off whether the name was asked for. */
  readonly tellsNaming?: true;
  /**
   * One request, no partial, no second look: `write` makes the request and keeps the answer for `commit` (in `upload.memo`, where `lookup` finds it after a kill);
   * `offset` is 0, `discard` nothing. `read` gives the last chunk only after a durable record. From then on "throttled", "full", "denied", "rejected",
   * "conflict", "mismatch" and "unwanted" are the peer's answer that it did not take it, and a Fault that is `notTaken` says so too; any other leaves that open ("indoubt").
   */
  readonly singleShot: boolean;
  /** With `singleShot`, when nobody knows whether it arrived: "ask" a person (the default), or send it "again", once, after 24 h. */
  readonly whenInDoubt?: "ask" | "again";
  /** Digests with which the peer proves what it holds; before it was ever asked, with which it may. */
  readonly digests: readonly DigestKind[];
  readonly concurrency: number;
  /** More than those, so many uploads of together at most so many bytes: what they ask goes out together, so that small files do not wait for answers one by one. */
  readonly pipeline?: { readonly uploads: number; readonly bytes: number };
}

/** What must be at the target name when it is published. */
export type Expect =
  | { readonly kind: "absent" }
  /** Our own earlier version, whose bytes are a prefix of this one; `archive`: in the directory that the server gave it then (`Receipt.archive`), and in no other. */
  | { readonly kind: "replaces"; readonly size: number; readonly digest?: Digest; readonly archive?: string };

/** One version on its way to one target. */
export interface Upload {
  /** Names vehicle, version, target and generation; 16 lower-case hexadecimal digits. */
  readonly id: string;
  /** Where it shall be published. */
  readonly path: string;
  /**
   * The whole path of the partial: `<dir>/.<name>.<installation>-<upload id>.part`, its last part at most 255 bytes. The same for each `path` tried. `<dir>` is that of `path`; at a device with a
   * `tree` also another one, which `write` and `splice` make: then `commit` makes that of `path`.
   */
  readonly partialPath: string;
  readonly size: number;
  readonly modifiedMs?: number;
  /**
   * When it was found at its source, in milliseconds since 1970, as this machine's clock said then; while that was not to be trusted later than all that is known to be found before, and an hour later where the machine was
   * started anew since. Absent: it was never found (a `put` by hand).
   */
  readonly foundMs?: number;
  readonly expect: Expect;
  /** Whole, verified and durable here. Only then `commit` is called. */
  readonly sealed: boolean;
  /** Known once sealed. */
  readonly digest?: Digest;
  /** Bytes of its partial were not sent but spliced. Then `prove` and `commit` prove the content, by a digest or by reading back, unless the configuration says that the size will do. */
  readonly spliced?: true;
  /**
   * With `features.tellsNaming`, for as long as nobody has asked that what the partial holds gets this name: where the partial has gone, what has the name is another's file then, however long that is. `commit` calls
   * it right before it asks for that.
   */
  naming?(): void;
  /** With `needs: sealedPath`, once sealed. At a source that is read in place it is the source's own file: never to be changed. */
  readonly localPath?: string;
  /** The lower of the device's and the route's `maxRate`, bytes per second: for who sends what is at `localPath`, as nothing else slows that. */
  readonly maxRate?: number;
  /** Durable, for the plugin; gone with the upload. A directory that a server gave for it belongs here, before it is used; the receipt then names the real path. */
  readonly memo: Memo;
  /**
   * The bytes from `offset` to `size`. Never gives bytes that a power cut could take back, so it may wait for a pull that still runs.
   * Ends with the Fault that withdraws it: what was written stays, `write` rejects with that Fault.
   */
  read(offset: number, signal: AbortSignal): Readable;
  /** The same bytes, for whoever can say when each chunk is used no more. */
  chunks(offset: number, signal: AbortSignal): Reading;
}

/** How a receipt was proved, strongest first: the peer's own digest; its bytes read back; its own word for this upload; the size alone. */
export type Proof = "digest" | "readback" | "answer" | "size";

export interface Receipt {
  /** Where it is published at the target. */
  readonly path: string;
  readonly size: number;
  readonly digest?: Digest;
  readonly proof: Proof;
  /** What the target answered, one line: for a person. */
  readonly answer?: string;
  readonly url?: string;
  /** With `afterDelivery: "archive"`: the source's file goes into this directory of its archive (a slot that the server gave). */
  readonly archive?: string;
  /** As `path` shows it now, where the target has looked. */
  readonly shown?: Stamp;
}

/** Something else is at the name. `digest` where the peer can tell (asked only when the size is that of the upload). */
export interface Occupant {
  readonly occupied: true;
  readonly size: number;
  readonly digest?: Digest;
  /** How `digest` was learned. */
  readonly proof?: "digest" | "readback";
}

/** Bytes of a file that the peer holds. */
export interface Part {
  readonly path: string;
  readonly offset: number;
  readonly length: number;
}

export interface Target {
  /** May be learned while attached (FEAT); core asks each time. */
  readonly features: TargetFeatures;
  /**
   * Bytes of this upload that the peer holds in its partial; 0 when it knows nothing. Asked, never remembered: after a power cut our counter
   * may be ahead of its disk. Without `resume` it is 0 or the whole. An absent file is no fault. Throws "offline", "denied", "transient".
   */
  offset(upload: Upload, signal: AbortSignal): Promise<number>;
  /**
   * Appends `upload.read(offset)` to the partial, whose size is exactly `offset` (else Fault "conflict", and nothing was changed; at offset 0 it may
   * begin the partial anew instead).
   * Makes directories as needed. Resolves when the peer has said that it took all bytes. `onBytes` is called with each count of bytes handed on.
   * Throws "offline", "denied", "transient", "full", "rejected", or the Fault that the stream ended with.
   */
  write(upload: Upload, offset: number, signal: AbortSignal, onBytes: (n: number) => void): Promise<void>;
  /**
   * With `features.splices`: the peer itself appends bytes of a file that it holds to the partial, whose size is exactly `at` (else Fault "conflict", and
   * nothing was changed; at 0 it may begin the partial anew instead). That file stays as it is. Nobody looks at the bytes: `Upload.spliced` says so from now on. Makes directories as needed.
   * With "ranges" `write` takes an upload whose `size` is where the next splice begins. With "whole" `from` is all of a file, and `at` is 0.
   * Throws "missing", "changed" (that file has fewer bytes, or with "whole" another number of them), "rejected" (the peer does not copy this one), "offline",
   * "denied", "transient", "full"; what was copied by then stays.
   */
  splice?(upload: Upload, from: Part, at: number, signal: AbortSignal): Promise<void>;
  /**
   * Verifies the whole partial, as `commit` of the same partial then need not. For an upload that was spliced or continued, while its bytes can still be had and its name is not
   * made free yet: reading back takes long.
   * Absent: `commit` does it, always by content. Throws "mismatch", and of the partial what `commit` throws.
   */
  prove?(upload: Upload, signal: AbortSignal): Promise<void>;
  /**
   * Verifies the whole partial by the strongest means the target has, sets its time where it can, and publishes it under `upload.path` as
   * `upload.expect` says, never over anything else: then it answers the Occupant and keeps the partial. Twice gives the same receipt: a
   * partial that is gone while the name holds this size and digest was published before; with `upload.naming` the size alone does not say so. Throws "conflict" (the partial is
   * gone, or longer), "transient" (also where it is shorter: the rest is sent), "mismatch" (another digest), "offline", "denied", "full", "rejected".
   */
  commit(upload: Upload, signal: AbortSignal): Promise<Receipt | Occupant>;
  /** Forgets the partial. Nothing there is success. */
  discard(upload: Upload, signal: AbortSignal): Promise<void>;
  /** What is at `upload.path` now; undefined when nothing is. Absent where names cannot be looked at. */
  look?(upload: Upload, signal: AbortSignal): Promise<Occupant | undefined>;
  /** Throws the Fault that says why nothing is to be seen there: the root itself is not. Absent where there is a source, whose list says so, or nobody can tell. */
  expectRoot?(signal: AbortSignal): Promise<void>;
  /** For a single shot whose answer was lost: its receipt; "absent" only where it surely is not there, nor on its way: it is then sent again. The memo may be that of an upload of the same content, as which the file was found before. */
  lookup?(upload: Upload, signal: AbortSignal): Promise<Receipt | "absent" | "unknown">;
}

// ---------------------------------------------------------------- tree

export interface Tree {
  /** One directory ("" is the root), files and directories. Throws "missing", "offline", "denied", "transient". */
  list(dir: string, signal: AbortSignal): AsyncIterable<FileEntry>;
  stat(path: string, signal: AbortSignal, options?: LookOptions): Promise<FileEntry | undefined>;
  /**
   * Never over anything: Fault "conflict" when `to` exists, "missing" when `from` does not, "changed" when it is not the file of `expect` (a directory is
   * none). Makes the directories of `to`. A directory goes with all that is in it, and only where `expect` is "directory": then "changed" when `from` is
   * none. Never into itself ("rejected"). A cut in the middle may leave a file under both names, or an empty directory at `to`.
   */
  move(from: string, to: string, expect: Stamp | "directory", signal: AbortSignal, how?: MoveHow): Promise<void>;
  /** Fault "changed" when it is not that file, or a directory; already gone is success. "denied", and a Fault that is `notTaken`: it was not done; any other leaves that open. */
  remove(path: string, expect: Stamp, signal: AbortSignal): Promise<void>;
  /** Only an empty one: Fault "conflict" when something is in it, "changed" when it is no directory; already gone is success. Never the root ("rejected"). */
  rmdir(path: string, signal: AbortSignal): Promise<void>;
  /** With its parents; already there is success. */
  mkdir(path: string, signal: AbortSignal): Promise<void>;
  /**
   * A directory, with its parents. true: this call made it; false: something has that name. Of several calls at once at most one is told true, where
   * `TreePromises.exclusive` is "names" or "directories". After a Fault nobody knows.
   */
  makeNew(path: string, signal: AbortSignal): Promise<boolean>;
  /**
   * What is there now, whoever brought it, or that nothing is, outlives a power cut of the device once this resolves; of a directory its name. For mirror and two-way: what was read
   * and is gone after a cut would count as removed. `size`: as much may have to be written. Absent where the device cannot be asked for that. Throws "unreadable" where its medium did not take it, also for want of room: a system tells that once, and core
   * does not ask again; "offline", "transient", "denied", "rejected".
   */
  sync?(path: string, size: number, signal: AbortSignal): Promise<void>;
  /**
   * What can be relied on below `dir` (made where it is missing), found by trying it in a directory that is made there and taken away again; never
   * believed from what a server says of itself. Throws as `mkdir` does; what could not be taken away is in the message.
   */
  tryOut(dir: string, signal: AbortSignal): Promise<TreePromises>;
}

export interface MoveHow {
  /**
   * Nobody else gives anything the name `to`. Then a file is moved in one step where the server has one, so that what somebody puts at `from` in that moment
   * stays: without it a file is given its new name, and what is at `from` then is removed.
   */
  readonly ours?: true;
  /** The directory of `to` is there: none is made, and where it has gone, also in this moment, the file stays where it is: Fault "missing". Not where `TreePromises.exclusive` is "nothing". */
  readonly made?: true;
}

export interface TreePromises {
  /**
   * "names": of several who publish or move to one name at once exactly one wins, and nothing is ever replaced (`move`, and `Target.commit` with
   * `expect: absent`). "directories": only making a directory is so: whoever made it (`makeNew`) has it, and nothing is moved into it once it has another name (`MoveHow.made`). "nothing": neither.
   */
  readonly exclusive: "names" | "directories" | "nothing";
  /** A directory with something in it is never removed by `rmdir`, also where that came a moment before. */
  readonly rmdirIsSafe: boolean;
}

// ---------------------------------------------------------------- plugin

/** One table: validation, defaults, help text (`v.description`), JSON Schema and docs. A strict object of valibot. */
export type Schema<Options> = GenericSchema<unknown, Options>;

export type Role = "source" | "target" | "service";

/** What a person reads of a plugin in the table of all: a few words each. */
export interface About {
  /** "any FTP server". */
  readonly what: string;
  /** What makes a target of it, where that is an option: '`"write": true`'. */
  readonly target?: string;
  /** As a target, when an upload that was broken off goes on where it was: "at the byte". Absent: it begins again. */
  readonly resumes?: string;
  /** As a target, what it proves in a receipt by default: "by content". */
  readonly proves?: string;
}

export interface Plugin<Options> {
  /** As it stands in the configuration: "ftp". */
  readonly type: string;
  readonly options: Schema<Options>;
  /** What its devices can be, for `check` and `status`, before one is made. */
  readonly roles: readonly Role[];
  /** Every built-in plugin has it. */
  readonly about?: About;
  /** As targets, its devices get only what comes after their route ran first, unless the route has `since` or `newest` (mails would go out for each old log), and each file once, also under another `into`. */
  readonly fromFirstRun?: true;
  /** No server of the kind ever promises that a name is nobody else's (`TreePromises.exclusive` is never "names"): none of its devices is the `from` of a two-way route. */
  readonly neverExclusive?: true;
  /** Its devices say whether their vehicle is armed (`PluginContext.tellArmed`). */
  readonly tellsArmed?: true;
  /** The directory of this machine whose files a device with these options has, where they tell: it is noticed where two are one, or one is in the other. */
  dirOf?(options: Options): string | undefined;
  /** The same of another machine's directory: its server, user and path, written one way. Of two users nobody knows whether they see one directory. */
  addressOf?(options: Options): string;
  /** Those of `roles` that a device with these options has not, each with what would give it, for a person: 'it is only read; "write": true …'. */
  withheld?(options: Options): Readonly<Partial<Record<Role, string>>>;
  device?(options: Options, context: PluginContext): Device;
  service?(options: Options, context: PluginContext): Service;
}
