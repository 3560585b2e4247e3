/** What sources and trees over a connection have in common: their servers list a directory at a time, and compare nothing by themselves. */
import { Fault, isFault, lender, throwIfAborted } from "./errors.js";
import { depthOf } from "./paths.js";
import type { FileEntry, ListOptions, Stamp, Tree } from "./plugin.js";

/** What a source over a connection gives its tree. */
export interface RemoteSource {
  /** One directory whole; "" is the root. Throws "missing" when there is none. */
  readDir(dir: string, signal: AbortSignal): Promise<FileEntry[]>;
  stat(path: string, signal: AbortSignal): Promise<FileEntry | undefined>;
}

/** The looking half of `Tree`. */
export abstract class RemoteTree implements Pick<Tree, "list" | "stat"> {
  constructor(protected readonly source: RemoteSource) {}

  async *list(dir: string, signal: AbortSignal): AsyncGenerator<FileEntry> {
    throwIfAborted(signal);
    yield* await this.source.readDir(dir, signal);
  }

  stat(path: string, signal: AbortSignal): Promise<FileEntry | undefined> {
    return this.source.stat(path, signal);
  }
}

/** Deeper is no tree that people make, but a directory that a server shows in itself (a link that it does not tell): without a bound no listing ends. */
const deepest = 100;

/**
 * What `Source.list` promises, from a reading of whole directories ("" is the root): no connection waits for who takes the entries, and up to `atOnce` are read together. A directory
 * below the root that cannot be read costs only itself: the login was good a moment ago, and its parent listed it.
 */
export async function* listBelow(
  readDir: (dir: string, signal: AbortSignal) => Promise<FileEntry[]>,
  signal: AbortSignal,
  options: ListOptions = {},
  atOnce = 1,
): AsyncGenerator<FileEntry> {
  const waiting: FileEntry[] = [{ path: "", kind: "directory", size: 0 }];
  const reading: { readonly dir: FileEntry; readonly entries: Promise<FileEntry[] | FileEntry> }[] = [];
  const lend = lender(signal);
  const read = (dir: string) => lend((own) => readDir(dir, own));
  const next = () => {
    for (let dir; reading.length < atOnce && (dir = waiting.pop()) !== undefined;) {
      const entries = orUnreadable(read, dir.path);
      // Thrown in its turn.
      entries.catch(() => undefined);
      reading.push({ dir, entries });
    }
    return reading.shift();
  };
  for (let one = next(); one !== undefined; one = next()) {
    const { dir } = one;
    const found = await one.entries;
    if (options.directories === true && dir.path !== "" && Array.isArray(found)) {
      throwIfAborted(signal);
      yield dir;
    }
    for (const entry of Array.isArray(found) ? found : [found]) {
      throwIfAborted(signal);
      if (entry.kind !== "directory") yield entry;
      else if (depthOf(entry.path) > deepest)
        yield { path: entry.path, kind: "unreadable", size: 0, reason: `it is more than ${deepest} directories deep` };
      else if (options.enter?.(entry.path) !== false) waiting.push(entry);
    }
  }
}

async function orUnreadable(read: (dir: string) => Promise<FileEntry[]>, dir: string): Promise<FileEntry[] | FileEntry> {
  try {
    return await read(dir);
  } catch (error) {
    if (dir === "" || !isFault(error, "rejected", "denied", "missing")) throw error;
    return { path: dir, kind: "unreadable", size: 0, reason: error.message };
  }
}

/** Of a move that makes no directories (`MoveHow.made`). */
export const dirGone = (to: string): Fault => new Fault("missing", `the directory of ${to} is not there any more`);

/** Throws "rejected" for the root, and for what would be moved into itself. */
export function expectMovable(from: string, to: string): void {
  expectBelow(from);
  expectBelow(to);
  if (to.startsWith(`${from}/`)) throw new Fault("rejected", `${from} cannot be moved into itself`);
}

/** Throws "rejected" for the root. */
export function expectBelow(path: string): void {
  if (path === "") throw new Fault("rejected", "the root itself stays what and where it is");
}

/** Throws "changed" unless what was found is what was meant: any directory, or the file as `expectSame` says. */
export function expectMeant(found: FileEntry, expect: Stamp | "directory", apartMs?: number): void {
  if (expect !== "directory") expectSame(found, expect, apartMs);
  else if (found.kind !== "directory") throw new Fault("changed", `${found.path} is no directory any more`);
}

/**
 * Throws "changed" unless what was found is the file that was meant. Times that differ by less than `apartMs` are the same: most servers tell
 * them by the second.
 */
export function expectSame(found: FileEntry, expect: Stamp, apartMs = 1000): void {
  if (found.kind !== "file") throw new Fault("changed", `${found.path} is no file any more`);
  const bothTimed = expect.modifiedMs !== undefined && found.modifiedMs !== undefined;
  const retimed = bothTimed && Math.abs(expect.modifiedMs - found.modifiedMs) >= apartMs;
  if (found.size !== expect.size || retimed) throw new Fault("changed", `${found.path} is not the file that was meant`);
}
