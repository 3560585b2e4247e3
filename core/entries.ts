/** What is in one directory of a device. */
import { isFault } from "./errors.js";
import type { FileEntry, ListOptions, Source, Tree } from "./plugin.js";

type Listing = Pick<Tree, "list">;

/** Whole before anything is done with it: what is listed while it changes may be told wrong. Throws as `Tree.list` does. */
export async function entriesOf(tree: Listing, dir: string, signal: AbortSignal): Promise<FileEntry[]> {
  const found: FileEntry[] = [];
  for await (const entry of tree.list(dir, signal)) found.push(entry);
  return found;
}

/** The same; of a directory that is not there nothing. */
export async function entriesIfAny(tree: Listing, dir: string, signal: AbortSignal): Promise<FileEntry[]> {
  return entriesOf(tree, dir, signal).catch((error: unknown) => {
    if (isFault(error, "missing")) return [];
    throw error;
  });
}

/** Whether its root can be listed. Throws as `Source.list` does. */
export async function lookInto(source: Pick<Source, "list">, signal: AbortSignal, options?: ListOptions): Promise<void> {
  for await (const _ of source.list(signal, options)) return;
}
