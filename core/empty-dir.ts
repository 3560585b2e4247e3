/** Taking away what is in a directory of a device. */
import { entriesIfAny } from "./entries.js";
import { isFault } from "./errors.js";
import type { Tree } from "./plugin.js";

/** Takes away all that is in a directory, not the directory; one that is not there is empty. Throws as `list`, `remove` and `rmdir` do. */
export async function emptyDir(tree: Pick<Tree, "list" | "remove" | "rmdir">, dir: string, signal: AbortSignal): Promise<void> {
  for (const entry of await entriesIfAny(tree, dir, signal)) {
    if (entry.kind !== "directory") await tree.remove(entry.path, entry, signal);
    // Many are empty.
    else
      await tree.rmdir(entry.path, signal).catch(async (error: unknown) => {
        if (!isFault(error, "conflict")) throw error;
        await emptyDir(tree, entry.path, signal);
        await tree.rmdir(entry.path, signal);
      });
  }
}
