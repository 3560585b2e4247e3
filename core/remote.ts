/** What sources, targets and trees over a connection have in common: their servers list a directory at a time, and compare nothing by themselves. */
import { createHash } from "node:crypto";
import { Fault, isFault, throwIfAborted } from "./errors.js";
import { depthOf, nameIn } from "./paths.js";
import type { FileEntry, ListOptions, Stamp, Tree, Upload } from "./plugin.js";
import { withSignals } from "./signals.js";

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

/** So much of the end of a partial is read back where nobody knows whether the server still has what it had taken. */
export const comparedBytes = 65_536;

/**
 * Whether what a target holds of an upload from `from` on is the file's own: a server that lost its power may have lost of what it had taken, and keep its size. Throws what the file's bytes end with; what
 * is whole there, and cannot be compared as its source has gone, may be the last copy, and counts as such.
 */
export async function isOwn(upload: Upload, from: number, theirs: Buffer, signal: AbortSignal): Promise<boolean> {
  const reading = upload.chunks(from, signal);
  try {
    let at = 0;
    while (at < theirs.length) {
      const chunk = await reading.next();
      if (chunk === undefined) return false;
      const bytes = chunk.bytes.subarray(0, theirs.length - at);
      const same = bytes.equals(theirs.subarray(at, at + bytes.length));
      at += bytes.length;
      chunk.release();
      if (!same) return false;
    }
    return true;
  } catch (error) {
    if (from + theirs.length === upload.size && isFault(error, "missing", "changed")) return true;
    throw error;
  } finally {
    reading.close();
  }
}

/** What it replaces has its size: by that nobody can tell which of the two has the name. */
export function isAlike({ expect, size }: Pick<Upload, "expect" | "size">): boolean {
  return expect.kind === "replaces" && expect.size === size;
}

const mostKnown = 1000;

/** Directories that are there, as far as we know. In a year a server may be given more of them than there is memory for: they are counted anew. */
export class KnownDirs extends Set<string> {
  override add(dir: string): this {
    if (this.size >= mostKnown && !this.has(dir)) this.clear();
    return super.add(dir);
  }
}

/** Deeper is no tree that people make. */
const deepest = 100;
/**
 * A directory whose listing is that of so many of those above it is one of them: a link that the server does not tell. Two such links in one directory would be listed without end. Of files, their
 * sizes and times, no tree has so many copies in itself; of names of directories alone it may have some.
 */
const mostAlike = { withFiles: 3, without: 8 };

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
  const waiting: Awaited[] = [{ dir: { path: "", kind: "directory", size: 0 }, above: [] }];
  const reading: (Awaited & { readonly entries: Promise<FileEntry[] | FileEntry> })[] = [];
  const read = (dir: string) => withSignals([signal], (own) => readDir(dir, own));
  const next = () => {
    for (let one; reading.length < atOnce && (one = waiting.pop()) !== undefined;) {
      const entries = orUnreadable(read, one.dir.path);
      // Thrown in its turn.
      entries.catch(() => undefined);
      reading.push({ ...one, entries });
    }
    return reading.shift();
  };
  for (let one = next(); one !== undefined; one = next()) {
    const { dir } = one;
    const listed = await one.entries;
    const listing = Array.isArray(listed) ? listingOf(listed) : undefined;
    const found = listing !== undefined && isAbove(listing, one.above) ? inItself(dir.path) : listed;
    const above = listing === undefined ? [] : [...one.above, listing];
    if (options.directories === true && dir.path !== "" && Array.isArray(found)) {
      throwIfAborted(signal);
      yield dir;
    }
    for (const entry of Array.isArray(found) ? found : [found]) {
      throwIfAborted(signal);
      if (entry.kind !== "directory") yield entry;
      else if (depthOf(entry.path) > deepest)
        yield { path: entry.path, kind: "unreadable", size: 0, reason: `it is more than ${deepest} directories deep` };
      else if (options.enter?.(entry.path) !== false) waiting.push({ dir: entry, above });
    }
  }
}

/** A directory to be read, and the listings of those above it. */
interface Awaited {
  readonly dir: FileEntry;
  readonly above: readonly Listing[];
}

interface Listing {
  /** One for each content. */
  readonly digest: string;
  readonly most: number;
}

async function orUnreadable(read: (dir: string) => Promise<FileEntry[]>, dir: string): Promise<FileEntry[] | FileEntry> {
  try {
    return await read(dir);
  } catch (error) {
    // Only a person knows where the files are, or when they will be there.
    if (dir === "" && isFault(error, "missing")) throw new Fault("denied", `the root is not there: ${error.message}`, { cause: error });
    if (dir === "" || !isFault(error, "rejected", "denied", "missing")) throw error;
    return { path: dir, kind: "unreadable", size: 0, reason: error.message };
  }
}

/** Undefined without a directory in it: nothing is below that. */
function listingOf(entries: readonly FileEntry[]): Listing | undefined {
  if (!entries.some(({ kind }) => kind === "directory")) return undefined;
  const lines = entries.map(({ path, kind, size, modifiedMs }) => JSON.stringify([nameIn(path), kind, size, modifiedMs]));
  const digest = createHash("sha256").update(lines.sort().join("\n")).digest("base64");
  return { digest, most: entries.some(({ kind }) => kind === "file") ? mostAlike.withFiles : mostAlike.without };
}

function isAbove({ digest, most }: Listing, above: readonly Listing[]): boolean {
  return above.filter((it) => it.digest === digest).length >= most;
}

const inItself = (path: string): FileEntry => ({
  ...{ path, kind: "unreadable", size: 0 },
  reason: "what is in it is what is in directories above it: the server shows one of those in itself",
});

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

/** Where the configuration wants the server's own digest as proof. */
export const noDigest = (): Fault => new Fault("denied", 'this server computes no SHA-256; set "verify" to "readback", "size" or "auto"');
