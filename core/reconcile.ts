/**
 * What a two-way route has to do, from three tables: what was last agreed (base), what is on one side, what is on the other; and the words that a mirror
 * (`reconcile-mirror.ts`) shares with it. Pure: nothing is read or changed here, and each action is checked again where it is carried out (`sync/carry.ts`).
 * The table is that of docs/two-way.md.
 */
import type { Folding } from "./folded.js";
import { depthOf, parentOf } from "./paths.js";
import type { Digest } from "./plugin.js";

/** "here": the side of the route's `from`; "there": that of its `to`. */
export type Side = "here" | "there";
export const bothSides = ["here", "there"] as const;
export const other = (side: Side): Side => (side === "here" ? "there" : "here");

/**
 * What a name holds. A file's digest is absent until it was read: it is not known then whether it is another content of the same size. `identity`: as
 * `FileEntry.identity` at the side of the route's `from`; only a mirror asks for it.
 */
export type Content =
  | { readonly kind: "directory"; readonly identity?: string }
  | { readonly kind: "file"; readonly size: number; readonly digest?: Digest; readonly identity?: string };

/** By path: "a/b.txt", without the root. A directory is an entry of its own; each entry's parents are entries too. */
export type Contents = ReadonlyMap<string, Content>;

export interface Tables {
  readonly base: Contents;
  readonly here: Contents;
  readonly there: Contents;
  /** Whether anything at or below this path could not be seen on a side: nothing counts as absent there. */
  readonly unseen?: (side: Side, path: string) => boolean;
  /** Directories of the other side in which something is that the route leaves out; only a mirror asks for it. */
  readonly others?: ReadonlySet<string>;
  /** Sides that do not tell the spellings of a name apart: `folded.ts`. */
  readonly folding?: ReadonlyMap<Side, Folding>;
}

/** A row of the table of docs/two-way.md. */
export type Row = 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | 11 | 12 | 13 | 14 | 15;

export type Action =
  /** Both hold the same: that is agreed from now on. */
  | { readonly do: "adopt"; readonly path: string }
  /** Neither holds it any more. */
  | { readonly do: "forget"; readonly path: string }
  /** Whether contents of one size are equal decides: these sides have to be read first. */
  | { readonly do: "learn"; readonly path: string; readonly sides: readonly Side[] }
  | { readonly do: "mkdir"; readonly path: string; readonly on: Side }
  /** Only where nothing is in it. */
  | { readonly do: "rmdir"; readonly path: string; readonly on: Side }
  /** What the other side has comes to `on`; `over`: a file that is there goes to the trash first. */
  | { readonly do: "copy"; readonly path: string; readonly on: Side; readonly over: boolean }
  /** To the trash; a directory with all that is in it. */
  | { readonly do: "remove"; readonly path: string; readonly on: Side }
  /** What is at `from` gets this name, a directory with all that is in it: nothing has the name. Only of a mirror; what comes after it counts on it. */
  | { readonly do: "move"; readonly path: string; readonly on: Side; readonly from: string }
  /** Both stay: what `loser` has gets a name of its own, and the other's keeps this one. */
  | { readonly do: "conflict"; readonly path: string; readonly loser: Side };

export type Move = Extract<Action, { readonly do: "move" }>;
export const isMove = (action: Action): action is Move => action.do === "move";
/** -1: nothing is moved. */
export const lastMove = (actions: readonly Action[]): number => actions.findLastIndex(isMove);

/** undefined: that cannot be said without reading. */
export function same(one: Content | undefined, two: Content | undefined): boolean | undefined {
  if (one === undefined || two === undefined || one.kind === "directory" || two.kind === "directory") return one?.kind === two?.kind;
  if (one.size !== two.size) return false;
  return one.digest === undefined || two.digest === undefined ? undefined : one.digest === two.digest;
}

/** Of these sides the ones that have a file of which it is not known what is in it. */
export function unread(contents: Readonly<Partial<Record<Side, Content | undefined>>>): Side[] {
  return bothSides.filter((side) => {
    const content = contents[side];
    return content?.kind === "file" && content.digest === undefined;
  });
}

/** Nothing can be said of a path that was not seen on both sides. */
export const isUnseen = ({ unseen }: Tables, path: string): boolean => unseen !== undefined && bothSides.some((side) => unseen(side, path));

/** The row that a path is in; the sides that have to be read before that can be said. */
export function rowOf(b: Content | undefined, l: Content | undefined, r: Content | undefined): Row | readonly Side[] {
  if (b === undefined) {
    if (l === undefined) return r === undefined ? 1 : 2;
    if (r === undefined) return 3;
    const equal = same(l, r);
    return equal === undefined ? unread({ here: l, there: r }) : equal ? 4 : 5;
  }
  const [stayedHere, stayedThere] = [same(b, l), same(b, r)];
  if (l === undefined) {
    if (r === undefined) return 6;
    return stayedThere === undefined ? unread({ there: r }) : stayedThere ? 7 : 8;
  }
  if (r === undefined) return stayedHere === undefined ? unread({ here: l }) : stayedHere ? 9 : 12;
  if (stayedHere === undefined || stayedThere === undefined) {
    // Where both were written, it is enough to know that they are not equal.
    const toRead = unread({ here: l, there: r });
    if (toRead.length > 0) return toRead;
  }
  if (stayedHere === true) return stayedThere === true ? 10 : 11;
  if (stayedThere === true) return 13;
  const equal = same(l, r);
  return equal === undefined ? unread({ here: l, there: r }) : equal ? 14 : 15;
}

/** Both sides follow each other. The actions in the order in which they are to be done; those on one path depend on nothing later. */
export function twoWay(tables: Tables): Action[] {
  const { base, here, there } = tables;
  const paths = [...new Set([...base.keys(), ...here.keys(), ...there.keys()])].sort(deepestFirst);
  const found: Action[] = [];
  /** Directories of a side that hold something which stays. */
  const kept: Record<Side, Set<string>> = { here: new Set(), there: new Set() };
  const keep = (side: Side, path: string) => kept[side].add(parentOf(path));
  for (const path of paths) {
    const [b, l, r] = [base.get(path), here.get(path), there.get(path)];
    if (isUnseen(tables, path)) {
      for (const side of bothSides) keep(side, path);
      continue;
    }
    const row = rowOf(b, l, r);
    if (typeof row !== "number") {
      found.push({ do: "learn", path, sides: row });
      for (const side of bothSides) if ((side === "here" ? l : r) !== undefined) keep(side, path);
      continue;
    }
    const actions = [...actionsOf(path, row, l, r, kept)];
    found.push(...actions);
    // What is there in the end keeps the directory above it.
    const goes = (side: Side) => actions.some((action) => (action.do === "remove" || action.do === "rmdir") && action.on === side);
    if (l !== undefined && !goes("here")) keep("here", path);
    if (r !== undefined && !goes("there")) keep("there", path);
  }
  return inOrder(found);
}

function* actionsOf(
  path: string,
  row: Row,
  l: Content | undefined,
  r: Content | undefined,
  kept: Readonly<Record<Side, ReadonlySet<string>>>,
): Generator<Action> {
  /** A directory on one side only, in which something stays: it changed. */
  const stays = (side: Side, content: Content | undefined) => content?.kind === "directory" && kept[side].has(path);
  const bring = function* (on: Side, what: Content | undefined, old: Content | undefined): Generator<Action> {
    if (old?.kind === "directory" && what?.kind === "file") yield { do: "rmdir", path, on };
    if (what?.kind === "directory") {
      if (old?.kind === "file") yield { do: "remove", path, on };
      yield { do: "mkdir", path, on };
    } else yield { do: "copy", path, on, over: old?.kind === "file" };
  };
  switch (row) {
    case 1:
    case 10:
      return;
    case 2:
    case 8:
      yield* bring("here", r, undefined);
      return;
    case 3:
    case 12:
      yield* bring("there", l, undefined);
      return;
    case 4:
    case 14:
      yield { do: "adopt", path };
      return;
    case 6:
      yield { do: "forget", path };
      return;
    case 7:
    case 9: {
      const on = row === 7 ? "there" : "here";
      const content = row === 7 ? r : l;
      if (content?.kind !== "directory") yield { do: "remove", path, on };
      // A change beats a delete, also one below it.
      else if (stays(on, content)) yield { do: "mkdir", path, on: other(on) };
      else yield { do: "rmdir", path, on };
      return;
    }
    case 11:
      if (stays("here", l)) yield { do: "conflict", path, loser: "there" };
      else yield* bring("here", r, l);
      return;
    case 13:
      if (stays("there", r)) yield { do: "conflict", path, loser: "here" };
      else yield* bring("there", l, r);
      return;
    case 5:
    case 15:
      // A directory keeps its name: the files in it have theirs by it. Of two files that of the server does.
      yield { do: "conflict", path, loser: r?.kind === "file" && l?.kind === "directory" ? "there" : "here" };
  }
}

/** Names are made free first; directories from the top; then contents; what goes from the bottom; last what comes where a directory was emptied. */
export function inOrder(actions: readonly Action[]): Action[] {
  const emptied = new Set(actions.flatMap((action) => (action.do === "rmdir" ? [`${action.on}\0${action.path}`] : [])));
  const filled = new Set(
    actions.flatMap((action) => (action.do === "mkdir" || (action.do === "copy" && !action.over) ? [`${action.on}\0${action.path}`] : [])),
  );
  const phase = (action: Action): number => {
    switch (action.do) {
      case "learn":
      case "adopt":
      case "forget":
      case "conflict":
      case "move":
        return 0;
      case "mkdir":
        return 1;
      case "copy":
        return emptied.has(`${action.on}\0${action.path}`) ? 4 : 2;
      case "remove":
        // A directory comes where a file is, or a file where a directory is.
        return filled.has(`${action.on}\0${action.path}`) ? 1 : 3;
      case "rmdir":
        return 3;
    }
  };
  const fromTop = (one: Action, two: Action) =>
    depthOf(one.path) - depthOf(two.path) ||
    (one.path < two.path ? -1 : one.path > two.path ? 1 : (one.do === "remove" ? -1 : 0) - (two.do === "remove" ? -1 : 0));
  const inPhase = (n: number) => actions.filter((action) => phase(action) === n);
  return [
    ...inPhase(0).sort(fromTop),
    ...inPhase(1).sort(fromTop),
    ...inPhase(2).sort(fromTop),
    ...inPhase(3).sort((one, two) => deepestFirst(one.path, two.path)),
    ...inPhase(4).sort(fromTop),
  ];
}

export const deepestFirst = (one: string, two: string): number => depthOf(two) - depthOf(one) || (one < two ? -1 : one > two ? 1 : 0);
