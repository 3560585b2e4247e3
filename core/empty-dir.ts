/** Taking away what is in a directory of a device. */
import { entriesIfAny } from "./entries.js";
import { Fault, isFault, throwIfAborted } from "./errors.js";
import type { FileEntry, Tree } from "./plugin.js";
import { withSignals } from "./signals.js";
import { Turns } from "./turns.js";

type Emptied = Pick<Tree, "list" | "remove" | "rmdir">;

/** Of a server far away each thing takes some round trips. */
const atOnce = 8;
/** Faults that may be of one thing alone. */
export const staying = ["changed", "conflict", "denied", "rejected"] as const;

interface Failed {
  readonly error: unknown;
}

/**
 * Takes away all that is in a directory, not the directory; one that is not there is empty. Several things at once, a directory after what is in it. Throws as `list`, `remove` and `rmdir` do, once
 * nothing is under way any more: what stays (`staying`; links, too) keeps nothing else; after another failure nothing more is begun.
 */
export function emptyDir(tree: Emptied, dir: string, signal: AbortSignal): Promise<void> {
  return new Emptying(tree, signal).empty(dir);
}

class Emptying {
  readonly #tree: Emptied;
  readonly #signal: AbortSignal;
  readonly #turns = new Turns(atOnce);
  #failed: Failed | undefined;

  constructor(tree: Emptied, signal: AbortSignal) {
    this.#tree = tree;
    this.#signal = signal;
  }

  async empty(dir: string): Promise<void> {
    const entries = await this.#inTurn((signal) => entriesIfAny(this.#tree, dir, signal));
    const taken = await Promise.all(entries.map((entry) => this.#take(entry)));
    this.#expectWell();
    const stays = taken.find((failed) => failed !== undefined);
    if (stays !== undefined) throw stays.error;
  }

  /** Never rejects. */
  async #take(entry: FileEntry): Promise<Failed | undefined> {
    const { path, kind, reason = "no plain file" } = entry;
    const rmdir = () => this.#inTurn((signal) => this.#tree.rmdir(path, signal));
    try {
      if (kind === "unreadable") throw new Fault("rejected", `${path} is ${reason}`);
      if (kind !== "directory") await this.#inTurn((signal) => this.#tree.remove(path, entry, signal));
      // Many are empty.
      else
        await rmdir().catch(async (error: unknown) => {
          if (!isFault(error, "conflict")) throw error;
          await this.empty(path);
          await rmdir();
        });
      return undefined;
    } catch (error) {
      if (!isFault(error, ...staying)) this.#failed ??= { error };
      return { error };
    }
  }

  #inTurn<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    return this.#turns.run(undefined, async () => {
      this.#expectWell();
      throwIfAborted(this.#signal);
      return withSignals([this.#signal], work);
    });
  }

  #expectWell(): void {
    if (this.#failed !== undefined) throw this.#failed.error;
  }
}
