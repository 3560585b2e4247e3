/**
 * What clients finished sending, as a Source over the server's root.
 *
 * Hidden partials (`.*.part`) are not listed. A file whose upload ended with its answer, or that was given its name, is `settled`; one that
 * is being written, or whose upload broke, or was cut off by a kill or a power cut, is surely not, for as long as its client may come back
 * and go on. After that it is what there is of it: that is told, and core decides by waiting. So it does of what was put behind a whole file, which may be a piece.
 */
import { createHash } from "node:crypto";
import type { Stats } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { Readable } from "node:stream";
import { Subject } from "../../core/rxjs.js";
import { abortedFault, codeOf, Fault, faultOfErrno, throwIfAborted } from "../../core/errors.js";
import type { Digest, DigestKind, FileEntry, ListOptions, PluginContext, Source, SourceFeatures, Stamp } from "../../core/plugin.js";
import { timeOf } from "../../core/stat.js";
import { isPartial } from "./commands-files.js";
import { corePathOf, placeOfCorePath, type Place, type Root } from "./root.js";
import type { Arrivals, Writers } from "./shared.js";

/** What arrived before so many others is old enough to have settled by itself. */
const mostFinished = 10_000;

/** A part waits for its client for so long after it broke, or was found cut off: while this server runs, over all its starts. */
const comesBackMs = 60 * 60_000;

/** How long it ran in all is noted so often, while a part waits. */
const noteUpMs = 60_000;
const upKey = "up";

/** That no part is there any more is noted with the next note, or after this. */
const clearsMs = 200;

/** Noted of an upload that runs, in place of the size that it broke at: what a kill leaves of it has any. */
const runs = -1;

const brokeOff = "its upload broke off; its client may go on with it";

/** So many of those that had one name, one after the other, are known. */
const mostBefore = 8;

export class Inbox implements Source, Arrivals {
  readonly features: SourceFeatures = { ranges: true, digests: ["sha256"], concurrency: 4, inPlace: true };
  readonly changes$ = new Subject<void>();
  readonly #context: PluginContext;
  readonly #writers: Writers;
  /** Size, time and inode of what arrived since the start, the newest last. */
  readonly #finished = new Map<string, string>();
  /** Sizes and times of files that clients replaced or took away since the start, by path. */
  readonly #before = new Map<string, readonly string[]>();
  /** Of what is there is no part any more, though one is still noted: a power cut before that is mended makes the file come later. A sync of its own would double the time of a small upload. */
  readonly #noParts = new Set<string>();
  #clears = false;
  readonly #closed = new AbortController();
  #beganMs = 0;
  /** Before this start. */
  #ranMs = 0;
  #root: Root | undefined;

  constructor(context: PluginContext, writers: Writers) {
    this.#context = context;
    this.#writers = writers;
  }

  /** From now on it can be listed. */
  begin(root: Root): void {
    this.#root = root;
    this.#beganMs = this.#context.clock.monotonicMs();
    const ranMs = this.#context.memory.get(upKey);
    this.#ranMs = typeof ranMs === "number" ? ranMs : 0;
  }

  /** How long this server ran, over all its starts. */
  get #upMs(): number {
    return this.#ranMs + Math.round(this.#context.clock.monotonicMs() - this.#beganMs);
  }

  async close(): Promise<void> {
    this.#root = undefined;
    this.changes$.complete();
    this.#closed.abort();
    await this.#clear();
  }

  /** Throws "offline" while the server is not started. */
  get root(): Root {
    if (this.#root === undefined) throw new Fault("offline", "the FTP server is not started");
    return this.#root;
  }

  async begun(place: Place): Promise<() => Promise<void>> {
    const path = corePathOf(place);
    const [finished, part] = [this.#finished.get(path), this.#partAt(path)];
    this.#finished.delete(path);
    const clearing = this.#clear();
    await this.#note(path, { bytes: runs });
    await clearing;
    return async () => {
      if (finished !== undefined) keep(this.#finished, path, finished);
      await this.#note(path, part);
    };
  }

  isBroken(place: Place, bytes: number): boolean {
    return this.#isPart(corePathOf(place), bytes);
  }

  #isPart(path: string, bytes: number): boolean {
    const part = this.#partAt(path);
    return part?.bytes === bytes || part?.bytes === runs;
  }

  #partAt(path: string): Part | undefined {
    if (this.#noParts.has(path)) return undefined;
    const noted = this.#context.memory.get(partKey(path));
    if (typeof noted === "number") return { bytes: noted };
    return isPart(noted) ? noted : undefined;
  }

  async arrived(place: Place, user: string, bytes: number): Promise<void> {
    const path = corePathOf(place);
    keep(this.#finished, path, textOf(await this.#apart(place)));
    this.#noPart(path);
    this.#context.say("info", `${user} sent ${path}`, { user, path, size: bytes });
    this.changes$.next();
  }

  async appended(place: Place, user: string, bytes: number): Promise<void> {
    const path = corePathOf(place);
    this.#finished.delete(path);
    await this.#apart(place);
    this.#noPart(path);
    this.#context.say("info", `${user} sent more of ${path}`, { user, path, size: bytes });
    this.changes$.next();
  }

  async broken(place: Place, user: string, bytes: number): Promise<void> {
    const path = corePathOf(place);
    this.#finished.delete(path);
    await this.#note(path, { bytes, sinceMs: this.#upMs });
    this.#context.say("warn", `an upload of ${user} broke: ${path} has ${bytes} bytes so far`, { user, path, size: bytes });
  }

  async retimed(place: Place): Promise<void> {
    const path = corePathOf(place);
    // Of a partial, as FileSync sends it, there is nothing to know.
    if (!this.#finished.has(path) && !this.#before.has(path)) return;
    const stats = await this.#apart(place);
    if (this.#finished.has(path)) this.#finished.set(path, textOf(stats));
  }

  replaced(place: Place, was: Stats): void {
    if (!was.isFile() || isPartial(place)) return;
    const path = corePathOf(place);
    keep(this.#before, path, [...(this.#before.get(path) ?? []), stampOf(was.size, was.mtimeMs)].slice(-mostBefore));
  }

  async timeApart(place: Place, ms: number): Promise<number> {
    const before = this.#before.get(corePathOf(place));
    if (before === undefined) return ms;
    const { size } = await this.root.lstat(place);
    let at = ms;
    // Node may set it some nanoseconds too early, which `entryOf` shows as the millisecond before.
    while (before.includes(stampOf(size, at)) || before.includes(stampOf(size, at - 1))) at += 2;
    return at;
  }

  /** Where a client has set it otherwise, or the file system has no such times: FAT tells them by two seconds. */
  async #apart(place: Place): Promise<Stats> {
    const before = this.#before.get(corePathOf(place)) ?? [];
    let stats = await this.root.lstat(place);
    let at = Math.trunc(stats.mtimeMs);
    for (let n = 0; n <= before.length && before.includes(stampOf(stats.size, stats.mtimeMs)); n++) {
      await this.root.setTime(place, (at += n === 0 ? 2 : 2000));
      stats = await this.root.lstat(place);
    }
    return stats;
  }

  async moveDir(from: Place, to: Place, rename: () => Promise<void>): Promise<void> {
    const calm = new AbortController().signal;
    // Noted ahead: power that goes behind the rename must not leave a torn upload that is known under its old name alone. Not where
    // something has the new name: the rename fails, and what is whole there would count as torn.
    const noted: string[] = [];
    if ((await this.stat(corePathOf(to), calm)) === undefined) {
      for await (const name of this.#filesBelow(from)) {
        const path = corePathOf([...to, ...name]);
        const part = this.#partAt(corePathOf([...from, ...name]));
        // What is still noted there is of a rename that power cut off.
        await this.#note(path, part);
        if (part !== undefined) noted.push(path);
      }
    }
    try {
      await rename();
    } finally {
      // It may fail behind the rename.
      if ((await this.stat(corePathOf(from), calm)) === undefined) await this.#follow(from, to);
      else for (const path of noted) this.#noPart(path);
    }
  }

  async #follow(from: Place, to: Place): Promise<void> {
    for await (const name of this.#filesBelow(to)) {
      const place = [...to, ...name];
      const [path, before] = [corePathOf(place), corePathOf([...from, ...name])];
      const finished = this.#finished.get(before);
      this.#finished.delete(before);
      if (finished !== undefined) keep(this.#finished, path, finished);
      this.#noPart(before);
      const stats = await this.root.lstat(place);
      this.replaced([...from, ...name], stats);
      if (!this.#before.has(path)) continue;
      const apart = textOf(await this.#apart(place));
      if (finished === textOf(stats)) keep(this.#finished, path, apart);
    }
  }

  /** Places of plain files, from that directory on. */
  async *#filesBelow(dir: Place): AsyncGenerator<Place> {
    for await (const { path, kind } of this.read(dir, new AbortController().signal)) {
      const place = placeOfCorePath(path);
      if (kind === "file") yield place.slice(dir.length);
      if (kind === "directory") for await (const below of this.#filesBelow(place)) yield place.slice(dir.length).concat(below);
    }
  }

  forgotten(place: Place): void {
    const path = corePathOf(place);
    this.#finished.delete(path);
    this.#noPart(path);
  }

  async *list(signal: AbortSignal, options?: ListOptions): AsyncGenerator<FileEntry> {
    const waiting: FileEntry[] = [{ path: "", kind: "directory", size: 0 }];
    for (let dir = waiting.pop(); dir !== undefined; dir = waiting.pop()) {
      // It is given once it is known that it can be listed.
      let given = dir.path === "" || options?.directories !== true;
      for await (const entry of this.read(placeOfCorePath(dir.path), signal)) {
        if (!given && entry.path !== dir.path) yield dir;
        given = true;
        if (entry.kind === "directory") {
          if (options?.enter?.(entry.path) !== false) waiting.push(entry);
        } else if (!isPartial(placeOfCorePath(entry.path))) yield entry;
      }
      if (!given) yield dir;
    }
  }

  /** One directory. A directory that cannot be read is one `unreadable` entry; one that has gone is empty. Throws for the root. */
  async *read(dir: Place, signal: AbortSignal): AsyncGenerator<FileEntry> {
    const above = corePathOf(dir);
    try {
      for await (const batch of this.root.read(dir)) {
        throwIfAborted(signal);
        // At once: what is being written now may be told when that has ended, with the size of now.
        for (const entry of batch.map(({ name, stats }) => this.entryOf(corePathOf([...dir, name]), stats))) {
          yield entry;
          throwIfAborted(signal);
        }
      }
    } catch (error) {
      if (dir.length === 0 || codeOf(error) === "") throw faultOfErrno(error, "cannot list the FTP server's root");
      if (codeOf(error) === "ENOENT") return;
      yield { path: above, kind: "unreadable", size: 0, reason: faultOfErrno(error, "cannot be listed").message };
    }
  }

  async stat(path: string, signal: AbortSignal): Promise<FileEntry | undefined> {
    throwIfAborted(signal);
    try {
      return this.entryOf(path, await this.root.lstat(placeOfCorePath(path)));
    } catch (error) {
      if (["ENOENT", "ENOTDIR", "ELOOP", "EINVAL", "ENAMETOOLONG"].includes(codeOf(error))) return undefined;
      throw faultOfErrno(error, `cannot look at ${path}`);
    }
  }

  async volume(dir: string, signal: AbortSignal): Promise<string> {
    throwIfAborted(signal);
    try {
      return await this.root.volume(placeOfCorePath(dir));
    } catch (error) {
      throw faultOfErrno(error, `cannot look at ${dir}`);
    }
  }

  async open(entry: FileEntry, offset: number, signal: AbortSignal): Promise<Readable> {
    throwIfAborted(signal);
    const handle = await this.#openFile(entry);
    if (offset > entry.size || signal.aborted) {
      await handle.close();
      throw signal.aborted ? abortedFault(signal) : new Fault("changed", `${entry.path} has ${entry.size} bytes, not ${offset}`);
    }
    return Readable.from(bytesOf(handle, entry, offset, signal), { objectMode: false, highWaterMark: 1 << 20 });
  }

  async digest(entry: FileEntry, kind: DigestKind, signal: AbortSignal): Promise<Digest | undefined> {
    if (kind !== "sha256") return undefined;
    const hash = createHash("sha256");
    for await (const chunk of await this.open(entry, 0, signal)) hash.update(chunk as Buffer);
    return `sha256:${hash.digest("hex")}`;
  }

  async #openFile(entry: FileEntry): Promise<FileHandle> {
    const { handle, stats } = await this.#found(entry);
    const now = this.entryOf(entry.path, stats);
    if (isContinued(entry, now)) return handle;
    await handle.close();
    throw new Fault("changed", `${entry.path} is not the file that was found: ${entry.size} bytes then, ${now.size} now`);
  }

  async #found(entry: FileEntry): Promise<{ handle: FileHandle; stats: Stats }> {
    try {
      return await this.root.open(placeOfCorePath(entry.path), "read");
    } catch (error) {
      throw faultOfErrno(error, `cannot read ${entry.path}`);
    }
  }

  /** Keeps clients from writing at these places, and below; the result ends that. Undefined while one does. */
  hold(...paths: string[]): (() => void) | undefined {
    return this.#writers.hold(...paths);
  }

  entryOf(path: string, stats: Stats): FileEntry {
    const stamp = { size: stats.size, ...timeOf(Math.trunc(stats.mtimeMs)), inode: String(stats.ino) };
    if (stats.isDirectory()) return { path, kind: "directory", ...stamp };
    if (!stats.isFile())
      return { path, kind: "unreadable", ...stamp, reason: stats.isSymbolicLink() ? "a symbolic link" : "no plain file", special: true };
    const settled = this.#settled(path, stats);
    const broke = settled === false && !this.#writers.has(path);
    return { path, kind: "file", ...stamp, ...(settled === undefined ? {} : { settled }), ...(broke ? { reason: brokeOff } : {}) };
  }

  #settled(path: string, stats: Stats): boolean | undefined {
    if (this.#writers.has(path)) return false;
    if (this.#finished.get(path) === textOf(stats)) return true;
    const part = this.#partAt(path);
    if (part === undefined || !this.#isPart(path, stats.size)) return undefined;
    if (part.sinceMs === undefined) this.#note(path, { ...part, sinceMs: this.#upMs }).catch(() => undefined);
    if (this.#upMs - (part.sinceMs ?? this.#upMs) < comesBackMs) {
      this.#noteUp();
      return false;
    }
    this.#noPart(path);
    const text = `the upload of ${path} did not go on for an hour: its ${stats.size} bytes are taken as they are`;
    this.#context.say("warn", text, { path, size: stats.size });
    return undefined;
  }

  #noteUp(): void {
    const noted = this.#context.memory.get(upKey);
    if (this.#upMs - (typeof noted === "number" ? noted : 0) < noteUpMs) return;
    this.#context.memory.set(upKey, this.#upMs).catch(() => undefined);
  }

  /** Durable when it resolves. */
  async #note(path: string, part: Part | undefined): Promise<void> {
    const { memory } = this.#context;
    if (part !== undefined) this.#noParts.delete(path);
    // With it: by the time of an earlier note it would have broken in the future.
    const up = part?.sinceMs === undefined ? Promise.resolve() : memory.set(upKey, this.#upMs);
    up.catch(() => undefined);
    if (part !== undefined || memory.get(partKey(path)) !== undefined) await memory.set(partKey(path), part);
    await up;
    if (memory.get(partKey(path)) === undefined) this.#noParts.delete(path);
  }

  #noPart(path: string): void {
    if (this.#context.memory.get(partKey(path)) === undefined) return;
    this.#noParts.add(path);
    if (this.#clears) return;
    this.#clears = true;
    const clear = async () => {
      await this.#context.clock.sleep(clearsMs, this.#closed.signal);
      this.#clears = false;
      await this.#clear();
    };
    // Closed: that clears, too.
    clear().catch(() => undefined);
  }

  /** Where the journal fails it is opened anew, which begins this device anew. */
  async #clear(): Promise<void> {
    await Promise.allSettled([...this.#noParts].map((path) => this.#note(path, undefined)));
  }
}

/** An upload that did not end: `bytes` of it are there, or however many (`runs`); `sinceMs`: how long the server had run in all when it broke, or was found cut off. */
interface Part {
  readonly bytes: number;
  readonly sinceMs?: number;
}

function isPart(value: unknown): value is Part {
  return typeof value === "object" && value !== null && "bytes" in value && typeof value.bytes === "number";
}

function partKey(path: string): string {
  return `broken ${path}`;
}

/** As the newest of a bounded number. */
function keep<T>(known: Map<string, T>, path: string, value: T): void {
  known.delete(path);
  known.set(path, value);
  const [oldest] = known.keys();
  if (known.size > mostFinished && oldest !== undefined) known.delete(oldest);
}

/** As `entryOf` tells it. */
function stampOf(size: number, ms: number): string {
  return `${size} ${Math.trunc(ms)}`;
}

function textOf(stats: Stats): string {
  return `${stats.size} ${stats.mtimeMs} ${stats.ino}`;
}

/** Whether `now` is the file of `then`, unchanged or only longer. */
function isContinued(then: Stamp, now: Stamp): boolean {
  if (then.inode !== undefined && then.inode !== now.inode) return false;
  return now.size > then.size || isSame(then, now);
}

/** Whether two stamps are of one state of a file, as far as both say. */
export function isSame(then: Stamp, now: Stamp): boolean {
  if (then.size !== now.size) return false;
  if (then.inode !== undefined && then.inode !== now.inode) return false;
  return then.modifiedMs === undefined || then.modifiedMs === now.modifiedMs;
}

async function* bytesOf(handle: FileHandle, entry: FileEntry, offset: number, signal: AbortSignal): AsyncGenerator<Buffer> {
  try {
    for (let at = offset; at < entry.size;) {
      throwIfAborted(signal);
      const { bytesRead, buffer } = await handle.read(Buffer.allocUnsafe(Math.min(256 * 1024, entry.size - at)), { position: at });
      if (bytesRead === 0) throw new Fault("changed", `${entry.path} became shorter while it was read`);
      at += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  } catch (error) {
    throw faultOfErrno(error, `cannot read ${entry.path}`);
  } finally {
    await handle.close();
  }
}
