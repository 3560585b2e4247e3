/**
 * Names that a side takes for one: FAT, exFAT, NTFS, and the servers of Samba, macOS and Windows tell "A" and "a" not apart. What such a side lists has one spelling; asked for another it shows the
 * same thing, so that nothing may be made there under that. Pure.
 */
import { type Action, bothSides, type Contents, isMove, type Side } from "./reconcile.js";
import { isAtOrBelow, parentOf } from "./paths.js";

/**
 * What makes no difference there. macOS takes a letter with an accent for the letter and the accent, too; FAT and exFAT of Linux, and Windows, take away what dots a name ends with ("case and
 * end"): it never has them in a listing.
 */
export type Folding = "case" | "case and form" | "case and end";

const dotted = /\.+(?=\/|$)/g;

/** The same for all spellings. What is missed (an "ß") is found to be in the way when it is done. */
export function folded(path: string, folding: Folding): string {
  return (folding === "case" ? path : folding === "case and end" ? path.replace(dotted, "") : path.normalize("NFC")).toLowerCase();
}

/** What such a side holds: all that it listed, and what it only showed. */
export interface Shown {
  readonly contents: Contents;
  readonly folding: Folding;
}

export interface Taken {
  /** How the side spells what has the name: a path. undefined: it would have the name, and list it without the dots that it ends with. */
  readonly by: string | undefined;
  /** The name that is taken: of what is to be done, or of a directory above it. */
  readonly at: string;
  /** That goes in the same plan: the name is free soon. */
  readonly goes: boolean;
}

/** Of these actions, in their order, those that would give a name where such a side has it in another spelling. */
export function takenOtherwise(actions: readonly Action[], shown: Readonly<Partial<Record<Side, Shown>>>): Map<Action, Taken> {
  const found = new Map<Action, Taken>();
  for (const side of bothSides) {
    const held = shown[side];
    if (held === undefined) continue;
    const names = new Names(held);
    const goes = new Set(actions.flatMap((action) => (leaves(action, side) ? [isMove(action) ? action.from : action.path] : [])));
    for (const action of actions) {
      if (!("on" in action) || action.on !== side) continue;
      if (action.do === "remove") names.leave(action.path);
      else if (action.do === "rmdir") names.free(action.path);
      else {
        const other = names.otherThan(action.path);
        if (other !== undefined) found.set(action, { ...other, goes: other.by !== undefined && isAtOrBelowOneOf(other.by, goes) });
        else if (isMove(action)) names.move(action.from, action.path);
        else names.take(action.path);
      }
    }
  }
  return found;
}

const leaves = (action: Action, side: Side) =>
  (action.do === "remove" || action.do === "rmdir" || action.do === "move") && action.on === side;

function isAtOrBelowOneOf(path: string, dirs: ReadonlySet<string>): boolean {
  for (let at = path; at !== ""; at = parentOf(at)) if (dirs.has(at)) return true;
  return false;
}

/** What has which name at a side, as actions change it. */
class Names {
  readonly #spelled = new Map<string, string>();
  readonly #held = new Set<string>();

  constructor(readonly shown: Shown) {
    for (const path of shown.contents.keys()) this.take(path);
  }

  take(path: string): void {
    this.#held.add(path);
    this.#spelled.set(this.#folded(path), path);
  }

  free(path: string): void {
    this.#held.delete(path);
    if (this.#spelled.get(this.#folded(path)) === path) this.#spelled.delete(this.#folded(path));
  }

  /** With all that is in it; what has left. */
  leave(path: string): string[] {
    const isFile = this.shown.contents.get(path)?.kind === "file";
    const gone = isFile ? [path] : [...this.#held].filter((it) => isAtOrBelow(it, path));
    for (const it of gone) this.free(it);
    return gone;
  }

  move(from: string, to: string): void {
    for (const path of this.leave(from)) this.take(to + path.slice(from.length));
  }

  /** The highest above it, or it itself, that is there, and only in another spelling. */
  otherThan(path: string): Pick<Taken, "by" | "at"> | undefined {
    const above = parentOf(path);
    const other = above === "" ? undefined : this.otherThan(above);
    if (other !== undefined) return other;
    if (this.#held.has(path)) return undefined;
    const by = this.#spelled.get(this.#folded(path));
    const isCut = this.shown.folding === "case and end" && path.endsWith(".");
    return by === undefined && !isCut ? undefined : { by, at: path };
  }

  #folded(path: string): string {
    return folded(path, this.shown.folding);
  }
}
