/** The source role: what is on the media that are in, by the plugin `local`. A byte that cannot be read costs that file, and is named. */
import { constants, promises as fs } from "node:fs";
import type { Readable } from "node:stream";
import type { Observable } from "rxjs";
import { Fault, faultOfErrno, isFault, throwIfAborted } from "../../core/errors.js";
import type { FileEntry, ListOptions, Source, SourceFeatures } from "../../core/plugin.js";
import { readableOf, readingOf } from "../../core/reading.js";
import { placeOf } from "../local/place.js";
import type { Disks } from "./device.js";
import { hasRoot } from "./content.js";
import type { Medium } from "./medium.js";
import { mostRemembered, newest, type Remembered, timed } from "./media.js";

/** The unit in which a medium that fails is read: a page, or a sector of a large disk. */
const sectorBytes = 4096;
/** So many good bytes behind an error, and it is read in large pieces again. */
const wellBytes = 2 ** 20;

export class DiskSource implements Source {
  readonly features: SourceFeatures = {
    ...{ ranges: true, digests: [], inPlace: false, intervalMs: Infinity },
    // Several, so that one is read while another is synced.
    concurrency: 4,
    // A read that a pull cuts short below FUSE ends in zeros: it is at most one piece and what was read ahead of it.
    doubtedBytes: 2 ** 20,
  };

  readonly now?: () => number;

  /** `gadget`: who writes there has a clock of its own, which nobody can ask. */
  constructor(
    readonly disks: Disks,
    readonly changes$: Observable<void>,
    gadget: boolean,
  ) {
    if (!gadget) this.now = () => Date.now();
  }

  async *list(signal: AbortSignal, options: ListOptions = {}): AsyncIterable<FileEntry> {
    for (const medium of await this.disks.toList(signal)) yield* this.#listOne(medium, signal, options);
  }

  async *#listOne(medium: Medium, signal: AbortSignal, { enter, directories }: ListOptions): AsyncIterable<FileEntry> {
    const { disks } = this;
    const lease = await medium.lease(false, signal);
    let files: Remembered[] = [];
    const left: string[] = [];
    try {
      if (!(await hasRoot(lease.content))) {
        await medium.expectAlive();
        disks.hasNoRoot(medium);
        return;
      }
      if (directories === true && disks.several) yield { path: medium.id, kind: "directory", size: 0, medium: medium.id };
      const within = {
        ...(enter === undefined ? {} : { enter: (dir: string) => enter(disks.pathOf(medium, dir)) || (left.push(`${dir}/`), false) }),
        ...(directories === undefined ? {} : { directories }),
      };
      for await (const entry of lease.content.source.list(lease.signal, within)) {
        if (entry.kind === "file") {
          files.push({ path: entry.path, size: entry.size, ...timed(entry, -medium.aheadMs) });
          if (files.length >= 32 * mostRemembered) files = newest(files);
        }
        yield this.#entry(medium, entry);
      }
      await medium.expectAlive();
    } catch (error) {
      throw await medium.faultOf(error, signal);
    } finally {
      lease.end();
    }
    await disks.remember(medium, files, left, signal);
  }

  #entry(medium: Medium, entry: FileEntry): FileEntry {
    const there = { ...entry, ...timed(entry, -medium.aheadMs), path: this.disks.pathOf(medium, entry.path), medium: medium.id };
    // Nobody else can write on it.
    return entry.kind === "file" && this.disks.alone(medium) ? { ...there, settled: true } : there;
  }

  async stat(path: string, signal: AbortSignal): Promise<FileEntry | undefined> {
    const { medium, inner } = this.disks.at(path);
    return medium.use(false, signal, async ({ tree }) => {
      const entry = await tree.stat(inner);
      // Below FUSE what was pulled is known for a while, and what was read of it last may be zeros.
      await medium.expectAlive();
      return entry === undefined ? undefined : this.#entry(medium, entry);
    });
  }

  open(entry: FileEntry, offset: number, signal: AbortSignal): Promise<Readable> {
    return Promise.resolve(readableOf(readingOf(this.#bytes(entry, offset, signal))));
  }

  /** The medium is held from the first byte on: a stream that is never read holds nothing. */
  async *#bytes(given: FileEntry, offset: number, outer: AbortSignal): AsyncGenerator<Buffer> {
    const { medium, inner } = this.disks.at(given.path, given.medium);
    const entry = { ...given, ...timed(given, medium.aheadMs), path: inner };
    const lease = await medium.lease(false, outer);
    const { content, signal } = lease;
    let at = offset;
    try {
      while (at < entry.size || at === offset) {
        try {
          for await (const chunk of await content.source.open(entry, at, signal)) {
            at += (chunk as Buffer).length;
            yield chunk as Buffer;
          }
          return;
        } catch (error) {
          if (!isFault(error, "transient")) throw error;
          await medium.expectToStay(signal);
          // The medium failed somewhere in a large piece: what is good of it is had in small ones.
          for await (const bytes of sectors(content.root, entry, at, signal)) {
            at += bytes.length;
            yield bytes;
          }
        }
      }
    } catch (error) {
      throw await medium.faultOf(error, outer);
    } finally {
      lease.end();
    }
  }
}

/** Up to `wellBytes` from `from`. Throws "unreadable" with the place of the first byte that cannot be had. */
async function* sectors(root: string, entry: FileEntry, from: number, signal: AbortSignal): AsyncGenerator<Buffer> {
  const end = Math.min(entry.size, from + wellBytes);
  let handle: fs.FileHandle;
  try {
    handle = await fs.open(placeOf(root, entry.path), constants.O_RDONLY | constants.O_NOFOLLOW);
  } catch (error) {
    throw asUnreadable(error, "it cannot be opened");
  }
  try {
    for (let at = from; at < end;) {
      throwIfAborted(signal);
      const wanted = Math.min(sectorBytes - (at % sectorBytes), end - at);
      const bytes = Buffer.allocUnsafe(wanted);
      let bytesRead: number;
      try {
        ({ bytesRead } = await handle.read(bytes, 0, wanted, at));
      } catch (error) {
        throw asUnreadable(error, `it cannot be read at byte ${at} of ${entry.size}`);
      }
      if (bytesRead === 0) throw new Fault("changed", `it ended at ${at}, before ${entry.size}`);
      at += bytesRead;
      yield bytes.subarray(0, bytesRead);
    }
  } finally {
    await handle.close();
  }
}

function asUnreadable(error: unknown, what: string): Fault {
  const fault = faultOfErrno(error, what);
  return fault.kind === "transient" ? new Fault("unreadable", fault.message, { cause: error }) : fault;
}
