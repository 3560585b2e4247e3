/** The source role: every plain file below the directory. Links and special files are named as `unreadable`; a directory that may not be read costs only itself. */
import { promises as fs } from "node:fs";
import type { Readable } from "node:stream";
import type { Observable } from "rxjs";
import { Fault, faultOfErrno, isFault, throwIfAborted } from "../../core/errors.js";
import type { FileThread } from "../../core/file-thread.js";
import { mountedBelow } from "../../core/mounts.js";
import { isRunning } from "../../core/paths.js";
import type { DigestedReading, FileEntry, HowToRead, ListOptions, Source, SourceFeatures } from "../../core/plugin.js";
import { readableOf } from "../../core/reading.js";
import { entryInstead, listedStill, nameless, noneIfGone, pathIn, volumeAt, volumeOf, withinAt } from "../../core/stat.js";
import { type LocalPlace, lookAt, makeRoot, placeOf, refusedAt, statAt } from "./place.js";

/** For so many in all a thread is not begun: that takes longer. */
const fewNames = 200;

/** One listing, of one directory or more. */
export interface Listing {
  /** How many names were looked at. */
  seen: number;
}

export class LocalSource implements Source {
  readonly features: SourceFeatures;

  readonly root: string;
  readonly #place: LocalPlace;
  readonly #files: FileThread;

  constructor(
    place: LocalPlace & { readonly inPlace: boolean },
    readonly changes$: Observable<void>,
    files: FileThread,
  ) {
    this.root = place.dir;
    this.#place = place;
    this.#files = files;
    this.features = { ranges: true, digests: [], concurrency: 16, inPlace: place.inPlace };
  }

  async *list(signal: AbortSignal, options: ListOptions = {}): AsyncIterable<FileEntry> {
    await this.#place.expectHere?.();
    if (this.#place.create) await makeRoot(this.#place);
    const whole = options.directories === true;
    const mounted = whole ? await this.#mounted() : undefined;
    const listing: Listing = { seen: 0 };
    const dirs: FileEntry[] = [{ path: "", kind: "directory", size: 0 }];
    const vanished: FileEntry[] = [];
    for (let dir = dirs.pop(); dir !== undefined; dir = dirs.pop()) {
      // It is given once it is known that it can be listed.
      let given = dir.path === "" || !whole;
      try {
        if (!given && dir.volume !== undefined) dir = { ...dir, volume: await volumeOf(placeOf(this.root, dir.path), dir.volume) };
        for await (const entries of listDir(this.#files, this.#place, dir.path, signal, listing)) {
          if (!given) yield dir;
          given = true;
          for (const entry of entries) {
            throwIfAborted(signal);
            if (entry.kind !== "directory") {
              // No file yet.
              if (!isRunning(entry.path)) yield entry;
            } else if (options.enter?.(entry.path) !== false) dirs.push(entry);
          }
        }
      } catch (error) {
        if (dir.path === "" || !isFault(error) || error.kind === "aborted" || error.kind === "offline") throw error;
        const unreadable = { path: dir.path, kind: "unreadable" as const, size: 0, reason: error.message };
        if (!given && error.kind === "missing") vanished.push(unreadable);
        else yield unreadable;
      }
    }
    // One that is put in the place of another is missing for a moment.
    for (const dir of vanished) if ((await lookAt(this.root, dir.path).catch(() => dir)) !== undefined) yield dir;
    // What a listing shows of two file systems would count as gone.
    if (mounted !== (whole ? await this.#mounted() : undefined))
      throw new Fault("transient", `something was mounted or unmounted in ${this.root} while it was listed`);
  }

  /** Which directory it is, and what is mounted in it: what is mounted above it may go, and one of that name be below that. undefined: it is not there. */
  async #mounted(): Promise<string | undefined> {
    const root = await fs.realpath(this.root).catch(() => undefined);
    const it = root === undefined ? undefined : await fs.stat(root, { bigint: true }).catch(() => undefined);
    return root === undefined || it === undefined ? undefined : `${it.dev}:${it.ino} ${await mountedBelow(root)}`;
  }

  async stat(path: string, signal: AbortSignal): Promise<FileEntry | undefined> {
    throwIfAborted(signal);
    await this.#place.expectHere?.();
    return lookAt(this.root, path);
  }

  async volume(dir: string, signal: AbortSignal): Promise<string> {
    throwIfAborted(signal);
    return volumeAt(this.root, dir);
  }

  now(): number {
    return Date.now();
  }

  localPath(entry: FileEntry): string | undefined {
    const place = placeOf(this.root, entry.path);
    const text = place.toString();
    return Buffer.from(text).equals(place) ? text : undefined;
  }

  readInPlace(entry: FileEntry, offset: number, signal: AbortSignal, how: HowToRead): DigestedReading {
    const place = placeOf(this.root, entry.path);
    const reading = this.#files.read(place, entry, offset, how, signal);
    return {
      next: () => reading.next().catch((error: unknown) => this.#orAway(error, place)),
      close: () => reading.close(),
      get digest() {
        return reading.digest;
      },
    };
  }

  /** In the mount point of a disk that was unmounted since, nothing is missing, and what is there is not what it was. */
  async #orAway(error: unknown, place: Buffer): Promise<never> {
    if (isFault(error, "missing", "changed")) await this.#place.expectHere?.();
    throw isFault(error) ? await refusedAt(this.#place, error, "r", place) : error;
  }

  open(entry: FileEntry, offset: number, signal: AbortSignal): Promise<Readable> {
    return Promise.resolve(readableOf(this.readInPlace(entry, offset, signal, { digest: false, exact: false, mayGo: true })));
  }
}

/** One directory, some hundred entries at a time, at least once. Throws the Fault of opening it; what vanishes while it is looked at is left out. */
export async function* listDir(
  files: FileThread,
  within: LocalPlace,
  dir: string,
  signal: AbortSignal,
  listing: Listing = { seen: 0 },
): AsyncGenerator<readonly FileEntry[]> {
  const { dir: root } = within;
  const place = dir === "" ? Buffer.from(root) : placeOf(root, dir);
  if (listing.seen <= fewNames) {
    let names: Buffer[];
    try {
      names = await fs.readdir(place, { encoding: "buffer" });
    } catch (error) {
      const fault = faultOfErrno(error, `cannot list ${dir === "" ? root : dir}`);
      if (dir === "" && fault.kind === "missing") throw new Fault("offline", `${root} does not exist`);
      throw await refusedAt(within, fault, "rx", place);
    }
    listing.seen += names.length;
    if (listing.seen <= fewNames) {
      yield await look(root, dir, names, signal);
      return;
    }
  }
  yield* files.list(place, dir, signal);
}

async function look(root: string, dir: string, names: readonly Buffer[], signal: AbortSignal): Promise<FileEntry[]> {
  const at = dir === "" ? Buffer.from(root) : placeOf(root, dir);
  const within = await withinAt(at);
  const entries: FileEntry[] = [];
  const missing: Buffer[] = [];
  const lookFor = (path: string) => statAt(root, path, within).catch((error: unknown) => entryInstead(path, error));
  for (const name of names) {
    throwIfAborted(signal);
    const entry = await lookFor(pathIn(dir, name));
    if (entry === undefined) missing.push(name);
    else entries.push(entry);
  }
  if (missing.length > 0)
    for (const name of listedStill(missing, await fs.readdir(at, { encoding: "buffer" }).catch(noneIfGone)))
      entries.push((await lookFor(pathIn(dir, name))) ?? nameless(dir, name));
  return entries;
}
