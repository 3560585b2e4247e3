/**
 * Names that a side takes for one: FAT, exFAT, NTFS, and the servers of Samba, macOS and Windows tell "A" and "a" not apart. What such a side lists has one spelling; asked for another it shows the
 * same thing, so that nothing may be made there under that. Pure.
 */
import { type Action, bothSides, type Contents, isMove, type Side } from "./reconcile.js";
import { isAtOrBelow, parentOf } from "./paths.js";

/** The same for all spellings. What is missed (an "ß") is found to be in the way when it is done. */
export const folded = (path: string): string => path.normalize("NFC").toLowerCase();

export interface Taken {
  /** How the side spells what has the name: a path. */
  readonly by: string;
  /** That goes in the same plan: the name is free soon. */
  readonly goes: boolean;
}

/** Of these actions, in their order, those that would give a name where such a side has it in another spelling. `shown`: what those sides hold; absent: all spellings are names of their own. */
export function takenOtherwise(actions: readonly Action[], shown: Readonly<Partial<Record<Side, Contents>>>): Map<Action, Taken> {
  const found = new Map<Action, Taken>();
  for (const side of bothSides) {
    const contents = shown[side];
    if (contents === undefined) continue;
    const names = new Names(contents);
    for (const action of actions) {
      if (!("on" in action) || action.on !== side) continue;
      if (action.do === "remove") names.leave(action.path);
      else if (action.do === "rmdir") names.free(action.path);
      else {
        const by = names.otherThan(action.path);
        if (by !== undefined) found.set(action, { by, goes: actions.some((it) => leaves(it, side, by)) });
        else if (isMove(action)) names.move(action.from, action.path);
        else names.take(action.path);
      }
    }
  }
  return found;
}

const leaves = (action: Action, side: Side, path: string) =>
  (action.do === "remove" || action.do === "rmdir" || action.do === "move") &&
  action.on === side &&
  isAtOrBelow(path, isMove(action) ? action.from : action.path);

/** What has which name at a side, as actions change it. */
class Names {
  readonly #spelled = new Map<string, string>();

  constructor(readonly contents: Contents) {
    for (const path of contents.keys()) this.take(path);
  }

  take(path: string): void {
    this.#spelled.set(folded(path), path);
  }

  free(path: string): void {
    this.#spelled.delete(folded(path));
  }

  /** With all that is in it; what has left. */
  leave(path: string): string[] {
    const gone = this.contents.get(path)?.kind === "file" ? [path] : [...this.#spelled.values()].filter((it) => isAtOrBelow(it, path));
    for (const it of gone) this.free(it);
    return gone;
  }

  move(from: string, to: string): void {
    for (const path of this.leave(from)) this.take(to + path.slice(from.length));
  }

  /** The highest above it, or it itself, that is spelled otherwise. */
  otherThan(path: string): string | undefined {
    const above = parentOf(path);
    const by = above === "" ? undefined : this.otherThan(above);
    if (by !== undefined) return by;
    const spelled = this.#spelled.get(folded(path));
    return spelled === path ? undefined : spelled;
  }
}
