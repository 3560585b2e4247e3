/**
 * What a mirror has to do, so that the other side holds what this one does: from three tables, as `reconcile.ts`. Pure. The table is that of docs/mirror.md.
 *
 * What has the same identity as something that was agreed is that, under another name: it is moved there, with all that is in it. Names are given from the top. What stands in
 * the way and has a place elsewhere goes there first; where that is not free yet (a swap, a circle, a directory that comes into its own place), to a name in `away`.
 * Nothing that was at the other side is replaced: it goes to the trash, also what was put into `away` and found no place.
 */
import { folded } from "./folded.js";
import { depthOf, nameIn, parentOf } from "./paths.js";
import { type Action, type Content, deepestFirst, inOrder, isUnseen, same, type Tables, unread } from "./reconcile.js";

export interface MirrorRules {
  /** What was brought there and has gone here goes there too, to the trash. Otherwise it stays. */
  readonly deletes: boolean;
  /** A directory there in which nothing else is, listed with the rest: "x/y". Not at this side. */
  readonly away: string;
  /** A name in `away` that nothing has, and that is never given twice. */
  readonly fresh: () => string;
  /** Whether what was agreed for this path could not be moved when it was tried: it is brought anew. */
  readonly fixed?: (path: string) => boolean;
}

/**
 * The actions in the order in which they are to be done. Those up to the last "move" change where things are: then both sides are listed again, and asked about anew.
 */
export function mirror(tables: Tables, rules: MirrorRules): Action[] {
  const { actions, base, there } = new Places(tables, rules).settle();
  return [...actions, ...contentsOf({ ...tables, base, there }, rules)];
}

// ---------------------------------------------------------------- names

/** Something at the other side, wherever it is by now. */
class Node {
  readonly children = new Map<string, Node>();

  constructor(
    public name: string,
    public parent: Node | undefined,
  ) {}

  /** What is there. */
  now: Content | undefined;
  /** What was agreed for it. */
  base: Content | undefined;
  /** Something is in it that the route leaves out. */
  others = false;

  get path(): string {
    const above = this.parent?.path ?? "";
    return above === "" ? this.name : `${above}/${this.name}`;
  }

  /** At that path below it; where nothing is, it is made, empty. */
  reach(path: string): Node {
    if (path === "") return this;
    const above = this.reach(parentOf(path));
    const name = nameIn(path);
    const found = above.children.get(name) ?? new Node(name, above);
    above.children.set(name, found);
    return found;
  }

  find(path: string): Node | undefined {
    return path === "" ? this : this.find(parentOf(path))?.children.get(nameIn(path));
  }

  /** It, and all that is in it. */
  *all(): Generator<Node> {
    yield this;
    for (const child of this.children.values()) yield* child.all();
  }

  /** Something is in it there; what only was agreed is nowhere. */
  get holds(): boolean {
    return this.others || [...this.children.values()].some(({ now }) => now !== undefined);
  }

  leave(): void {
    this.parent?.children.delete(this.name);
    this.parent = undefined;
  }
}

class Places {
  readonly #root = new Node("", undefined);
  readonly #actions: Action[] = [];
  /** Where what was agreed has to be, and the other way round. */
  readonly #goal = new Map<Node, string>();
  readonly #wanted = new Map<string, Node>();
  /** Directories of which what is in them comes into another one that is there already. */
  readonly #merged = new Map<Node, Node>();
  /** Names that have what belongs there, or from which what does not has gone. */
  readonly #settled = new Set<string>([""]);

  constructor(
    readonly tables: Tables,
    readonly rules: MirrorRules,
  ) {}

  settle(): { actions: readonly Action[]; base: Tables["base"]; there: Tables["there"] } {
    const { base, here, there } = this.tables;
    const asTheyAre = { actions: [], base, there };
    const stray = [...there.keys()].some((path) => path.startsWith(`${this.rules.away}/`));
    if (!stray && !this.#isAnyElsewhere()) return asTheyAre;
    for (const [path, content] of base) this.#root.reach(path).base = content;
    for (const [path, content] of there) this.#root.reach(path).now = content;
    for (const path of this.tables.others ?? []) this.#root.reach(path).others = true;
    this.#pair();
    const fromTop = [...here.keys()].sort((one, two) => depthOf(one) - depthOf(two) || (one < two ? -1 : 1));
    for (const path of fromTop) {
      if (!isUnseen(this.tables, path)) this.#place(path);
      this.#settled.add(path);
    }
    for (const [node, into] of [...this.#merged].reverse()) this.#merge(node, into);
    for (const node of [...(this.#root.find(this.rules.away)?.children.values() ?? [])])
      if (node.now !== undefined && !isUnseen(this.tables, node.path)) this.#remove(node);
    const shifted = { base: new Map<string, Content>(), there: new Map<string, Content>() };
    for (const node of this.#root.all()) {
      if (node.base !== undefined) shifted.base.set(node.path, node.base);
      if (node.now !== undefined) shifted.there.set(node.path, node.now);
    }
    return { actions: this.#actions, ...shifted };
  }

  /** Whether something that was agreed under one name has another one now. */
  #isAnyElsewhere(): boolean {
    const { base, here } = this.tables;
    const gone = new Set<string>();
    for (const [path, { identity }] of base) if (identity !== undefined && here.get(path)?.identity !== identity) gone.add(identity);
    if (gone.size > 0)
      for (const [path, { identity }] of here)
        if (identity !== undefined && gone.has(identity) && base.get(path)?.identity !== identity) return true;
    return false;
  }

  /** Each thing of this side, and what was made of it there. Of several names of one thing (hard links) those that were agreed keep theirs. */
  #pair(): void {
    const { here, base } = this.tables;
    const free = new Map<string, Node[]>();
    for (const [path, { identity, kind }] of base) {
      const node = this.#root.find(path);
      if (identity === undefined || node?.now?.kind !== kind || this.rules.fixed?.(path) === true || isUnseen(this.tables, path)) continue;
      // What others changed there stays where they have it.
      if (same(node.base, node.now) !== true) continue;
      if (here.get(path)?.identity === identity) this.#want(path, node);
      else free.set(identity, [...(free.get(identity) ?? []), node]);
    }
    for (const [path, { identity }] of here) {
      if (identity === undefined || this.#wanted.has(path) || isUnseen(this.tables, path)) continue;
      const node = free.get(identity)?.shift();
      if (node !== undefined) this.#want(path, node);
    }
  }

  #want(path: string, node: Node): void {
    this.#goal.set(node, path);
    this.#wanted.set(path, node);
  }

  #place(path: string): void {
    const node = this.#wanted.get(path);
    const found = this.#root.find(path);
    if (node !== undefined && found === node) return;
    if (found?.now !== undefined && this.#goal.has(found)) this.#makeRoom(found);
    const inTheWay = this.#root.find(path);
    if (node !== undefined && inTheWay !== undefined && this.#isToMerge(node, inTheWay)) {
      this.#goal.delete(node);
      this.#wanted.delete(path);
      this.#merged.set(node, inTheWay);
      return;
    }
    // A directory that only was made anew is the same one.
    if (inTheWay !== undefined && node !== undefined) this.#clear(inTheWay);
    else if (this.tables.here.get(path)?.kind === "directory" && inTheWay?.now?.kind === "file") this.#remove(inTheWay);
    if (node !== undefined) this.#move(node, path);
  }

  /** What has another place goes there, and what is at that place to its own before; where a circle closes, or a place is not to be had yet, to `away`. */
  #makeRoom(first: Node): void {
    const chain = new Set<Node>();
    for (let last = first; ;) {
      const goal = this.#goal.get(last);
      if (goal === undefined) return;
      chain.add(last);
      const next = this.#root.find(goal);
      const merges = next !== undefined && this.#isToMerge(last, next);
      const isHad = this.#settled.has(parentOf(goal)) && !`${goal}/`.startsWith(`${last.path}/`) && !merges;
      if (isHad && (next?.now === undefined || !this.#goal.has(next))) {
        if (next !== undefined) this.#clear(next);
        break;
      }
      if (!isHad || next === undefined || chain.has(next)) {
        this.#setAside(last);
        chain.delete(last);
        break;
      }
      last = next;
    }
    for (const node of [...chain].reverse()) {
      const goal = this.#goal.get(node);
      if (goal !== undefined && this.#root.find(goal)?.now === undefined) this.#move(node, goal);
      else this.#setAside(node);
    }
  }

  /** Others' files, and what stays there, are in the directory that has the name: they keep their places. */
  #isToMerge(node: Node, there: Node): boolean {
    return node.now?.kind === "directory" && there.now?.kind === "directory" && there.holds && !this.#goal.has(there);
  }

  /** What nobody wants elsewhere comes along, as with a directory that is moved; where something has its name it stays. */
  #merge(node: Node, into: Node): void {
    for (const child of [...node.children.values()]) {
      if (child.now === undefined || this.tables.here.has(child.path) || isUnseen(this.tables, child.path)) continue;
      const there = into.children.get(child.name);
      if (there?.now === undefined) this.#move(child, `${into.path}/${child.name}`);
      else if (child.now?.kind === "directory" && there.now?.kind === "directory") this.#merge(child, there);
    }
    if (node.holds || this.tables.here.has(node.path)) return;
    this.#actions.push({ do: "rmdir", path: node.path, on: "there" });
    node.leave();
  }

  /** Nothing of this side is it any more. What is in it may be. */
  #clear(node: Node): void {
    if (node.now === undefined) return;
    for (const one of node.all())
      if (this.#goal.has(one)) {
        this.#setAside(node);
        return;
      }
    this.#remove(node);
  }

  #setAside(node: Node): void {
    this.#move(node, `${this.rules.away}/${this.rules.fresh()}`);
  }

  #move(node: Node, to: string): void {
    // The side takes both names for one: by way of a third.
    const folding = this.tables.folding?.get("there");
    if (folding !== undefined && folded(node.path, folding) === folded(to, folding)) this.#setAside(node);
    const parent = this.#made(parentOf(to));
    this.#actions.push({ do: "move", from: node.path, path: to, on: "there" });
    node.leave();
    node.name = nameIn(to);
    node.parent = parent;
    parent.children.set(node.name, node);
  }

  /** A directory of this side, so that it is known as that, whatever comes next. */
  #made(dir: string): Node {
    const node = this.#root.reach(dir);
    const content = this.tables.here.get(dir);
    if (node.now === undefined && content?.kind === "directory") {
      this.#made(parentOf(dir));
      this.#actions.push({ do: "mkdir", path: dir, on: "there" });
      node.now = node.base = content;
    }
    return node;
  }

  #remove(node: Node): void {
    this.#actions.push({ do: "remove", path: node.path, on: "there" });
    node.leave();
  }
}

// ---------------------------------------------------------------- contents

/** With all names where they belong. */
function contentsOf(tables: Tables, { deletes }: MirrorRules): Action[] {
  const { base, here, there, others } = tables;
  const paths = [...new Set([...base.keys(), ...here.keys(), ...there.keys()])].sort(deepestFirst);
  const found: Action[] = [];
  /** Directories that go with all that is in them. */
  const whole = new Set<string>();
  /** Directories there that hold something which stays. */
  const kept = new Set<string>(others);
  /** And what cannot be seen. */
  const waiting = new Set<string>();
  for (const path of paths) {
    const [b, l, r] = [base.get(path), here.get(path), there.get(path)];
    if (isUnseen(tables, path)) {
      kept.add(parentOf(path));
      waiting.add(parentOf(path));
      continue;
    }
    // It goes with what is in it, once that is seen.
    if (deletes && l === undefined && waiting.has(path) && b?.kind === "directory" && r?.kind === "directory") {
      kept.add(parentOf(path));
      waiting.add(parentOf(path));
      continue;
    }
    const actions = [...(l === undefined ? withoutIt(path, b, r, deletes, kept) : withIt(path, b, l, r))];
    found.push(...actions);
    const goes = actions.some((action) => action.do === "remove");
    if (goes && r?.kind === "directory") whole.add(path);
    if (l !== undefined || (r !== undefined && !goes)) kept.add(parentOf(path));
  }
  return inOrder(whole.size === 0 ? found : found.filter(({ path }) => !isBelowOneOf(path, whole)));
}

function isBelowOneOf(path: string, dirs: ReadonlySet<string>): boolean {
  for (let at = parentOf(path); at !== ""; at = parentOf(at)) if (dirs.has(at)) return true;
  return false;
}

/** It is not at this side. */
function* withoutIt(
  path: string,
  b: Content | undefined,
  r: Content | undefined,
  deletes: boolean,
  kept: ReadonlySet<string>,
): Generator<Action> {
  // What was not brought there is nobody's business.
  if (b === undefined) return;
  const stayed = same(b, r);
  if (r === undefined || stayed === false || (deletes && r.kind === "directory" && kept.has(path))) yield { do: "forget", path };
  else if (!deletes) return;
  else if (stayed === undefined) yield { do: "learn", path, sides: ["there"] };
  else yield { do: "remove", path, on: "there" };
}

function* withIt(path: string, b: Content | undefined, l: Content, r: Content | undefined): Generator<Action> {
  if (l.kind === "directory") {
    if (r?.kind === "file") yield { do: "remove", path, on: "there" };
    if (r?.kind !== "directory") yield { do: "mkdir", path, on: "there" };
    else if (b?.kind !== "directory") yield { do: "adopt", path };
    return;
  }
  if (r?.kind === "directory") yield { do: "remove", path, on: "there" };
  if (r?.kind !== "file") {
    yield { do: "copy", path, on: "there", over: false };
    return;
  }
  const [here, there] = [same(b, l), same(b, r)];
  if (b !== undefined && here === true && there === true) return;
  const equal = same(l, r);
  if (equal !== undefined) yield equal ? { do: "adopt", path } : { do: "copy", path, on: "there", over: true };
  else yield { do: "learn", path, sides: unread({ here: l, there: r }) };
}
