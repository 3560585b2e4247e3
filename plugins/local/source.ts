/** The source role: every plain file below the directory. Links and special files are named as `unreadable`; a directory that may not be read costs only itself. */
import { promises as fs } from "node:fs";
import { Readable } from "node:stream";
import type { Observable } from "rxjs";
import { Fault, abortedFault, faultOfErrno, isFault, throwIfAborted } from "../../core/errors.js";
import { nameFromBytes } from "../../core/names.js";
import type { FileEntry, ListOptions, Source, SourceFeatures } from "../../core/plugin.js";
import { entryOf, kindOf, makeRoot, openPlain, placeOf, statAt } from "./place.js";

const readBytes = 512 * 1024;
/** Partial names of an upload that runs, ours or another's: no files yet. */
const partial = /^\..*\.part$/;

export class LocalSource implements Source {
  readonly features: SourceFeatures;

  readonly root: string;
  readonly #create: boolean;

  constructor(
    { dir, inPlace, create }: { readonly dir: string; readonly inPlace: boolean; readonly create: boolean },
    readonly changes$: Observable<void>,
  ) {
    this.root = dir;
    this.#create = create;
    this.features = { ranges: true, digests: [], concurrency: 16, inPlace };
  }

  async *list(signal: AbortSignal, options: ListOptions = {}): AsyncIterable<FileEntry> {
    if (this.#create) await makeRoot(this.root);
    const dirs = [""];
    for (let dir = dirs.pop(); dir !== undefined; dir = dirs.pop()) {
      try {
        for await (const entry of listDir(this.root, dir, signal)) {
          if (entry.kind !== "directory") {
            if (!partial.test(entry.path.slice(entry.path.lastIndexOf("/") + 1))) yield entry;
          } else if (options.enter?.(entry.path) !== false) dirs.push(entry.path);
        }
      } catch (error) {
        if (dir === "" || !isFault(error) || error.kind === "aborted" || error.kind === "offline") throw error;
        yield { path: dir, kind: "unreadable", size: 0, reason: error.message };
      }
    }
  }

  async stat(path: string, signal: AbortSignal): Promise<FileEntry | undefined> {
    throwIfAborted(signal);
    return statAt(this.root, path);
  }

  now(): number {
    return Date.now();
  }

  localPath(entry: FileEntry): string | undefined {
    const place = placeOf(this.root, entry.path);
    const text = place.toString();
    return Buffer.from(text).equals(place) ? text : undefined;
  }

  async open(entry: FileEntry, offset: number, signal: AbortSignal): Promise<Readable> {
    throwIfAborted(signal);
    const handle = await openPlain(this.root, entry.path);
    try {
      const stat = await handle.stat({ bigint: true });
      const now = entryOf(entry.path, stat);
      if (!stat.isFile()) throw new Fault("rejected", `${entry.path} is ${kindOf(stat)}`);
      if (now.size < entry.size) throw new Fault("changed", `it has ${now.size} bytes now, not ${entry.size}`);
      if (now.size === entry.size && entry.modifiedMs !== undefined && now.modifiedMs !== entry.modifiedMs)
        throw new Fault("changed", "it was written since it was found");
      if (offset > entry.size) throw new Fault("changed", `it ends at ${entry.size}, before ${offset}`);
    } catch (error) {
      await handle.close();
      throw error;
    }
    return Readable.from(bytes(handle, offset, entry.size, signal), { highWaterMark: 1 });
  }
}

async function* bytes(handle: fs.FileHandle, from: number, to: number, signal: AbortSignal): AsyncGenerator<Buffer> {
  try {
    for (let at = from; at < to;) {
      if (signal.aborted) throw abortedFault(signal);
      const buffer = Buffer.allocUnsafe(Math.min(readBytes, to - at));
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, at);
      if (bytesRead === 0) throw new Fault("changed", `it ended at ${at}, before ${to}`);
      at += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  } catch (error) {
    throw faultOfErrno(error, "cannot read it");
  } finally {
    await handle.close();
  }
}

/** One directory. Throws the Fault of opening it; what vanishes while it is looked at is left out. */
export async function* listDir(root: string, dir: string, signal: AbortSignal): AsyncIterable<FileEntry> {
  const place = dir === "" ? Buffer.from(root) : placeOf(root, dir);
  let names: Buffer[];
  try {
    names = await fs.readdir(place, { encoding: "buffer" });
  } catch (error) {
    const fault = faultOfErrno(error, `cannot list ${dir === "" ? root : dir}`);
    throw dir === "" && fault.kind === "missing" ? new Fault("offline", `${root} does not exist`) : fault;
  }
  for (const name of names) {
    throwIfAborted(signal);
    const path = `${dir === "" ? "" : `${dir}/`}${nameFromBytes(name)}`;
    try {
      const entry = await statAt(root, path);
      if (entry !== undefined) yield entry;
    } catch (error) {
      if (!isFault(error) || error.kind === "offline") throw error;
      yield { path, kind: "unreadable", size: 0, reason: error.message };
    }
  }
}
