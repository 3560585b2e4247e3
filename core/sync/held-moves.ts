/**
 * Names at a server whose rename replaces what has the name, and whose directories may go with what is in them: given and taken by one client at a time (`lock.ts`), after a look. Each goes by
 * way of the hold, so that whose turn was ended by others does nothing any more; what was in the hold then goes back, or on to the name that only its client gives (`tidy`).
 */
import { createHash } from "node:crypto";
import { entriesOf } from "../entries.js";
import { Fault, isFault } from "../errors.js";
import type { FileEntry, Stamp, Tree } from "../plugin.js";
import type { Hold, Lock } from "./lock.js";
import { notAsListed } from "./replica.js";

export interface HeldGiven {
  readonly lock: Lock;
  readonly tree: Pick<Tree, "list" | "stat" | "move" | "rmdir">;
  /** Of a path that something else has by now: another one, for each `n` from 1 on. */
  readonly beside: (path: string, n: number) => string;
  /** Where something goes of which nobody knows where it was. Never the same twice. */
  readonly lost: (name: string) => string;
}

/** Every path is below the device's root. Each throws the Faults of the tree; "transient" where the turn was ended by others, or nobody knows what was done: then `tidy` is due. */
export class HeldMoves {
  constructor(readonly given: HeldGiven) {}

  get untidy(): boolean {
    return this.given.lock.untidy;
  }

  /** As `Lock.waitsSinceMs`. */
  get waitsSinceMs(): number | undefined {
    return this.given.lock.waitsSinceMs;
  }

  /** `Replica.take`: only this client ever gives the name `to`. */
  take(path: string, to: string, expect: Stamp | "directory", signal: AbortSignal): Promise<void> {
    const { lock, tree } = this.given;
    return lock.with(signal, async (hold) => {
      const held = await this.#into(hold, path, to, expect, signal);
      await sure(hold, tree.move(held, to, expect, signal, { ours: true }));
    });
  }

  /** `Replica.give`: only this client ever gave the name `from`. */
  give(from: string, to: string, expect: Stamp | "directory", signal: AbortSignal): Promise<void> {
    return this.#give(from, to, from, expect, signal);
  }

  #give(from: string, to: string, own: string, expect: Stamp | "directory", signal: AbortSignal): Promise<void> {
    const { lock, tree } = this.given;
    return lock.with(signal, async (hold) => {
      const held = await this.#into(hold, from, own, expect, signal);
      try {
        await tree.move(held, to, expect, signal);
      } catch (error) {
        if (!isFault(error, "conflict", "rejected", "denied")) throw unsure(hold, error);
        await sure(hold, tree.move(held, from, expect, signal, { ours: true }));
        throw error;
      }
    });
  }

  /** `Replica.rmdir`: nobody puts anything into it any more once it is held. */
  async rmdir(path: string, signal: AbortSignal): Promise<void> {
    const { lock, tree } = this.given;
    const there = await tree.stat(path, signal);
    if (there === undefined) return;
    if (there.kind !== "directory") throw new Fault("changed", `${path} is no directory any more`);
    const full = () => new Fault("conflict", `${path} is not empty`);
    if ((await entriesOf(tree, path, signal)).length > 0) throw full();
    await lock.with(signal, async (hold) => {
      let held: string;
      try {
        held = await this.#into(hold, path, path, "directory", signal);
      } catch (error) {
        if (isFault(error, "missing")) return;
        throw error;
      }
      const back = async (): Promise<boolean> => {
        if ((await entriesOf(tree, held, signal)).length === 0) return false;
        await this.#back(held, path, "directory", tree.move.bind(tree), signal);
        return true;
      };
      if (await sure(hold, back())) throw full();
      await sure(hold, tree.rmdir(held, signal));
    });
  }

  /**
   * Before anything else is done, and before what `own` were meant for is looked for there: names that only this client gives, and directories that it may have held. What the server refuses of one of them
   * alone, or seems to: by its name in `own`, else by where it is. That stays, and is tried again the next time.
   */
  async tidy(own: Iterable<string>, signal: AbortSignal): Promise<ReadonlyMap<string, Fault>> {
    const { lock, tree, lost } = this.given;
    const stuck = new Map<string, Fault>();
    const left = await lock.leftovers(signal);
    if (left.length > 0) {
      const byKey = new Map<string, string>();
      for (const path of own) byKey.set(keyOf(path), path);
      for (const dir of left) {
        const before = stuck.size;
        for (const { path, kind } of await entriesOf(tree, dir, signal)) {
          const name = path.slice(dir.length + 1);
          const place = byKey.get(name) ?? lost(name);
          // It comes to where everybody may give names, perhaps; a kill on that way leaves it where it is looked for again.
          const move: Tree["move"] = (from, to, expect) => this.#give(from, to, place, expect, signal);
          try {
            await this.#back(path, place, kind, move, signal);
          } catch (error) {
            if (!isFault(error, "denied", "rejected", "transient")) throw error;
            stuck.set(byKey.get(name) ?? path, error);
          }
        }
        if (stuck.size === before) await tree.rmdir(dir, signal);
      }
    }
    if (stuck.size === 0) lock.tidied();
    return stuck;
  }

  /** Others get their turn. */
  rest(signal: AbortSignal): Promise<void> {
    return this.given.lock.rest(signal);
  }

  /** By the name for `own`. Throws "missing" only where `from` has gone. */
  async #into(hold: Hold, from: string, own: string, expect: Stamp | "directory", signal: AbortSignal): Promise<string> {
    const { tree } = this.given;
    const held = `${hold.dir}/${keyOf(own)}`;
    try {
      await tree.move(from, held, expect, signal, { ours: true, made: true });
      return held;
    } catch (error) {
      if (isFault(error, "changed", "rejected", "denied")) throw error;
      if (isFault(error, "missing") && (await tree.stat(from, signal)) === undefined) throw error;
      throw unsure(hold, error);
    }
  }

  /** Where something has that name meanwhile, beside it; a directory's entries into the one that is there. */
  async #back(from: string, to: string, kind: FileEntry["kind"], move: Tree["move"], signal: AbortSignal): Promise<void> {
    const { tree, beside } = this.given;
    const isDir = kind === "directory";
    for (let n = 0; ; n++) {
      const entry = isDir ? undefined : await tree.stat(from, signal);
      // An answer that was lost: it is there already.
      if (!isDir && entry === undefined) return;
      try {
        await move(from, n === 0 ? to : beside(to, n), entry ?? "directory", signal);
        return;
      } catch (error) {
        if (!isFault(error, "conflict")) throw error;
      }
      if (!isDir || n > 0 || (await tree.stat(to, signal))?.kind !== "directory") continue;
      for (const { path, kind: of } of await entriesOf(tree, from, signal))
        await this.#back(path, to + path.slice(from.length), of, move, signal);
      await tree.rmdir(from, signal);
      return;
    }
  }
}

/** A name in a hold. */
const keyOf = (own: string) => createHash("sha256").update(own).digest("hex").slice(0, 32);

/** What fails leaves something in the hold. */
async function sure<T>(hold: Hold, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw unsure(hold, error);
  }
}

/** Nothing that `carry.ts` would take for an answer. */
function unsure(hold: Hold, error: unknown): unknown {
  hold.abandon();
  if (!isFault(error, ...notAsListed)) return error;
  return new Fault("transient", `another client ended the turn of this one: ${error.message}`, { cause: error });
}
