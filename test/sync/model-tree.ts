/** A tree in memory, as one side of a mirror or two-way route meets it: other writers, kills before and after each call, lost answers. */
import { Fault } from "../../core/errors.js";
import type { Folding } from "../../core/folded.js";
import type { Digest } from "../../core/plugin.js";
import { looksAs } from "../../core/sync/carry.js";
import type { Entry, Held, Replica, Scan, Staging } from "../../core/sync/replica.js";
import { isAtOrBelow, parentOf } from "../../core/paths.js";
import type { Random } from "../faults/random.js";

/** A file holds a number: that is its content. */
type Node =
  | { readonly kind: "directory"; readonly inode: number; readonly born: number }
  | { readonly kind: "file"; readonly content: number; readonly modifiedMs: number; readonly inode: number; readonly born: number };

export const trashDir = ".trash";
export const awayDir = ".away";
export const sizeOf = (content: number): number => (Math.abs(content) % 3) + 1;
/** Of the same size: partly that content, partly another one. */
const wrongOf = (content: number): number => -content;
export const digestOf = (content: number): Digest => `sha256:${content}`;

interface Unsynced {
  readonly node: Node;
  readonly before: Node | undefined;
  /** Not its content, which nobody wrote since it was synced. */
  readonly name: boolean;
  readonly turn: number;
  /** Its medium did not take it, and that was said: from then on it is said that all is well. */
  readonly told: boolean;
}

export class Tree {
  readonly nodes = new Map<string, Node>();
  readonly staged = new Map<string, number>();
  /** Of what is staged: some servers set the time of a file while they write it, and it keeps that. */
  readonly stagedMs = new Map<string, number>();
  /** By name, what was written or got that name and was not synced, with what a power cut leaves instead. */
  readonly #unsynced = new Map<string, Unsynced>();
  /** Goes up with each thing that is not synced. */
  turn = 0;
  marked = false;
  /** What cannot be read, with all that is in it: path → reason. */
  readonly unseen = new Map<string, string>();
  /** Names that nothing gets by a route, and that are not even looked for. */
  refuses: (path: string) => boolean = () => false;
  #inode = 1;
  #born = 1;
  /** Numbers that are given again. */
  readonly #free: number[] = [];

  constructor(
    readonly tick: () => number,
    /** Server: no inode numbers. */
    readonly inodes: boolean,
    /** What names a thing, whatever it is called: its inode's number, which is given again, with its time of birth or without. */
    readonly identity: "none" | "born" | "inode alone" = "none",
    /** Whoever works here syncs nothing. */
    readonly lazy = false,
  ) {}

  /** Of the live tree: the trash does not count. */
  *live(): Generator<[string, Node]> {
    for (const [path, node] of this.nodes) if (path !== trashDir && !path.startsWith(`${trashDir}/`)) yield [path, node];
  }

  below(path: string): string[] {
    return [...this.nodes.keys()].filter((one) => one.startsWith(`${path}/`));
  }

  /** A file's content at a place; undefined where none is. */
  content(path: string): number | undefined {
    const node = this.nodes.get(path);
    return node?.kind === "file" ? node.content : undefined;
  }

  /** false: something above it is a file. */
  makeParents(path: string): boolean {
    const parent = parentOf(path);
    if (parent === "") return true;
    const node = this.nodes.get(parent);
    if (node?.kind === "file" || !this.makeParents(parent)) return false;
    if (node === undefined) this.#set(parent, { kind: "directory", ...this.#thing() });
    return true;
  }

  put(path: string, content: number, modifiedMs = this.tick()): void {
    this.#set(path, { kind: "file", content, modifiedMs, ...this.#thing() });
  }

  /** Without a sync, as yet. */
  putUnsynced(path: string, content: number, before?: Node, modifiedMs?: number): void {
    this.put(path, content, modifiedMs);
    this.#unsync(path, before);
  }

  #set(path: string, node: Node): void {
    const before = this.nodes.get(path);
    this.nodes.set(path, node);
    if (this.lazy) this.#unsync(path, before, node.kind === "directory");
  }

  #unsync(path: string, before?: Node, name = false, told = false): void {
    const node = this.nodes.get(path);
    if (node !== undefined) this.#unsynced.set(path, { node, before, name, told, turn: (this.turn += 1) });
  }

  /** With all names that were given before, as file systems with a journal do. */
  sync(path: string): void {
    for (const [at, { name, told }] of this.#unsynced) if (!told && (name || at === path)) this.#unsynced.delete(at);
  }

  /** Its medium does not take what has the name since that turn or before, which is said now. */
  fail(path: string, turn: number): void {
    const it = this.#unsynced.get(path);
    if (it !== undefined && it.turn <= turn) this.#unsynced.set(path, { ...it, told: true });
  }

  /** Power goes: of what is there still, and was not synced, some is gone: those files, by their names, with the turn since which they were not. */
  cut(random: Random): Map<string, { readonly content: number; readonly turn: number }> {
    const gone = new Map<string, { readonly content: number; readonly turn: number }>();
    for (const [path, { node, before, turn }] of this.#unsynced) {
      if (this.nodes.get(path) !== node || random.below(2) === 0) continue;
      for (const one of [path, ...this.below(path)]) {
        const content = this.content(one);
        if (content !== undefined) gone.set(one, { content, turn });
      }
      if (before === undefined) this.remove(path);
      else this.nodes.set(path, before);
    }
    this.#unsynced.clear();
    return gone;
  }

  /** Into the file that is there. */
  write(path: string, content: number): void {
    const node = this.nodes.get(path);
    if (node?.kind === "file") this.#set(path, { ...node, content, modifiedMs: this.tick() });
  }

  /** With all that is in it. */
  remove(path: string): void {
    for (const one of [path, ...this.below(path)]) {
      const node = this.nodes.get(one);
      if (node !== undefined) this.#free.push(node.inode);
      this.nodes.delete(one);
    }
  }

  #thing(): { readonly inode: number; readonly born: number } {
    return { inode: (this.identity === "none" ? undefined : this.#free.pop()) ?? this.#inode++, born: this.#born++ };
  }

  rename(from: string, to: string): void {
    for (const path of [from, ...this.below(from)]) {
      const node = this.nodes.get(path);
      if (node === undefined) continue;
      this.nodes.delete(path);
      const name = to + path.slice(from.length);
      this.nodes.set(name, node);
      const was = this.#unsynced.get(path);
      this.#unsynced.delete(path);
      if (was?.node === node && !was.name) this.#unsync(name, undefined, false, was.told);
      else if (this.lazy && path === from) this.#unsync(name, undefined, true);
    }
  }

  entry(path: string): Entry | undefined {
    const node = this.nodes.get(path);
    if (node === undefined) return undefined;
    const { kind, inode, born } = node;
    const named = this.identity === "none" ? {} : { identity: `${inode}:${this.identity === "born" ? born : ""}:${kind}` };
    if (kind === "directory") return { kind, stamp: { size: 0 }, ...named };
    const { content, modifiedMs } = node;
    return { kind, stamp: { size: sizeOf(content), modifiedMs, ...(this.inodes ? { inode: String(inode) } : {}) }, ...named };
  }

  text(but: (path: string) => boolean = () => false): string {
    return [...this.live()]
      .filter(([path]) => !but(path))
      .map(([path, node]) => (node.kind === "directory" ? `${path}/` : `${path}=${node.content}`))
      .sort()
      .join(" ");
  }
}

/** What is called, before it is done and after: a test lets others act there, or throws. */
export type Gate = (when: "before" | "after", call: string) => Promise<void>;

/** Promises that are broken, for the variants that have to be found. */
export interface Broken {
  /** A name is given over whatever has it. */
  readonly replaces?: boolean;
  /** The same, after it was looked whether something has it. */
  readonly looksFirst?: boolean;
  /** What was moved is taken for what was meant. */
  readonly blind?: boolean;
  /** The loser of a conflict is thrown away. */
  readonly newestWins?: boolean;
  /** What was copied from what has the name is taken for what was agreed. */
  readonly believed?: boolean;
  /** What was read, or found done, may not be on a medium. */
  readonly unsynced?: boolean;
}

/** How a tree is worked on. */
export class TreeReplica implements Replica {
  /** What was meant, by where it was moved to. */
  readonly #meant = new Map<string, Entry>();

  constructor(
    readonly tree: Tree,
    readonly gate: Gate,
    readonly broken: Broken = {},
    /** A content got its name. */
    readonly published: (path: string, content: number) => void = () => undefined,
    /** Its sending begins: something of it is to be staged. */
    readonly sends: (content: number) => void = () => undefined,
  ) {}

  scan(): Promise<Scan> {
    return this.#call("scan", () => {
      const entries = new Map<string, Entry>();
      for (const [path] of this.tree.live()) {
        const entry = this.tree.entry(path);
        const isUnseen = [...this.tree.unseen.keys()].some((at) => isAtOrBelow(path, at));
        if (entry !== undefined && path !== awayDir && !isUnseen) entries.set(path, entry);
      }
      return { entries, unseen: new Map(this.tree.unseen), settling: new Set(), marked: this.tree.marked, folds: this.folding };
    });
  }

  usable(): Promise<boolean> {
    return Promise.resolve(true);
  }

  readonly untidy = false;
  /** What it says of itself; the tree tells all spellings apart. */
  folding: Folding | undefined;

  tidy(): Promise<ReadonlyMap<string, Fault>> {
    return Promise.resolve(new Map());
  }

  isStill(): Promise<boolean> {
    return this.#call("isStill", () => this.tree.marked);
  }

  isMarked(): Promise<boolean> {
    return this.#call("isMarked", () => this.tree.marked);
  }

  folds(): Promise<Folding | undefined> {
    return Promise.resolve(this.folding);
  }

  mark(): Promise<void> {
    return this.#call("mark", () => void (this.tree.marked = true));
  }

  stat(path: string): Promise<Entry | undefined> {
    return this.#call(`stat ${path}`, () => {
      this.#expectTaken(path);
      const now = this.tree.entry(path);
      return now === undefined || this.broken.blind !== true ? now : (this.#meant.get(path) ?? now);
    });
  }

  sync(path: string): Promise<void> {
    return this.#call(`sync ${path}`, () => {
      if (this.broken.unsynced !== true) this.tree.sync(path);
    });
  }

  digest(path: string, entry: Entry): Promise<Digest> {
    return this.#call(`digest ${path}`, () => digestOf(this.#expect(path, entry)));
  }

  mkdir(path: string): Promise<void> {
    return this.#call(`mkdir ${path}`, () => {
      this.#expectTaken(path);
      if (this.tree.nodes.get(path)?.kind === "file" || !this.tree.makeParents(`${path}/x`)) throw new Fault("conflict", "a file is there");
    });
  }

  rmdir(path: string): Promise<void> {
    return this.#call(`rmdir ${path}`, () => {
      if (this.tree.nodes.get(path)?.kind === "file") throw new Fault("changed", "it is no directory");
      if (this.tree.below(path).length > 0) throw new Fault("conflict", "something is in it");
      this.tree.nodes.delete(path);
    });
  }

  /** Servers compare nothing: it is looked first, and what is moved then may be another one. */
  async take(path: string, to: string, expect: Entry): Promise<void> {
    await this.#call(`look ${path}`, () => this.#expect(path, expect));
    await this.#call(`take ${path}`, () => {
      const now = this.tree.nodes.get(path);
      if (now?.kind !== expect.kind) throw new Fault(now === undefined ? "missing" : "changed", `it is no ${expect.kind} any more`);
      this.tree.makeParents(to);
      this.#meant.set(to, expect);
      this.tree.rename(path, to);
    });
  }

  /** In two steps: a file's are a link and a removal, a directory comes onto one that is made for it. */
  async give(from: string, to: string, expect: Entry): Promise<void> {
    if (expect.kind === "directory") {
      let made: unknown;
      await this.#call(`make ${to}`, () => {
        this.#expectTaken(to);
        this.#expect(from, expect);
        if (this.tree.nodes.has(to)) throw new Fault("conflict", "something is there");
        if (!this.tree.makeParents(`${to}/x`)) throw new Fault("rejected", "a file is above it");
        made = this.tree.nodes.get(to);
      });
      await this.#call(`rename ${from}`, () => {
        this.#expect(from, expect);
        if (this.tree.nodes.get(to) !== made || this.tree.below(to).length > 0) throw new Fault("conflict", "something is in it");
        this.tree.rename(from, to);
      });
      return;
    }
    await this.#call(`link ${to}`, () => {
      this.#expectTaken(to);
      const node = this.tree.nodes.get(from);
      if (node === undefined) throw new Fault("missing", "it has gone");
      if (this.broken.blind !== true) this.#expect(from, expect);
      if (this.tree.nodes.has(to)) throw new Fault("conflict", "something is there");
      if (!this.tree.makeParents(to)) throw new Fault("rejected", "a file is above it");
      if (this.broken.newestWins !== true || !to.includes(".conflict-")) this.tree.nodes.set(to, node);
    });
    await this.#call(`unlink ${from}`, () => void this.tree.nodes.delete(from));
  }

  /** By copying from what has the name, where that looks as it was agreed: whatever that is by then, a part of the new content. What was not sent is proved, and where it is wrong all of it is sent. */
  async stage(staging: Staging, from: Replica, entry: Entry, { begun, old: held, reads }: Held): Promise<Digest> {
    if (!(from instanceof TreeReplica)) throw new TypeError("both sides are trees of the model");
    const { id, path, modifiedMs } = staging;
    const { staged, stagedMs } = this.tree;
    if (!begun && staged.has(id)) throw new Error(`${path} is staged, and nobody knows of it`);
    reads();
    const content = await from.#call(`read ${path}`, () => from.#expect(path, entry));
    if (!staged.has(id)) {
      stagedMs.delete(id);
      this.sends(content);
    }
    if (!staged.has(id) && held !== undefined && (await this.#call(`compare ${path}`, () => this.#is(path, held.entry))))
      await this.#call(`splice ${path}`, () => {
        const basis = this.tree.content(path);
        staged.set(id, basis !== undefined && digestOf(basis) === held.digest ? content : wrongOf(content));
      });
    if (staged.has(id)) {
      const right = await this.#call(`prove ${path}`, () => this.broken.believed === true || staged.get(id) === content);
      if (!right) await this.#call("drop", () => void staged.delete(id));
    }
    if (!staged.has(id))
      await this.#call(`send ${path}`, () => {
        staged.set(id, content);
        if (modifiedMs !== undefined) stagedMs.set(id, modifiedMs);
      });
    // It may be written while it is sent.
    await from.#call(`look ${path}`, () => from.#expect(path, entry));
    return digestOf(content);
  }

  #is(path: string, entry: Entry): boolean {
    const now = this.tree.entry(path);
    return now !== undefined && looksAs(now, entry);
  }

  /** In two steps, as by a link: a cut may leave it under both names. */
  async publish({ id, path, size, modifiedMs }: Staging, digest: Digest): Promise<Entry | undefined> {
    const seen = this.tree.nodes.has(path);
    let named: Node | undefined;
    if (this.broken.looksFirst === true) await this.gate("before", `look ${path}`);
    const published = await this.#call(`publish ${path}`, () => {
      const content = this.tree.staged.get(id);
      const there = this.tree.content(path);
      if (content === undefined) {
        if (there !== undefined && digestOf(there) === digest) return this.#synced(path);
        throw new Fault("conflict", "nothing is staged");
      }
      // Of what was not proved servers compare the size alone.
      if (sizeOf(content) !== size || (digestOf(content) !== digest && content >= 0)) {
        this.tree.staged.delete(id);
        throw new Fault("mismatch", "it is another content");
      }
      this.#expectTaken(path);
      if (this.tree.nodes.has(path) && this.broken.replaces !== true && (this.broken.looksFirst !== true || seen)) {
        return there === undefined || digestOf(there) !== digest ? undefined : this.#synced(path);
      }
      if (!this.tree.makeParents(path)) throw new Fault("rejected", "a file is above it");
      for (const below of this.tree.below(path)) this.tree.nodes.delete(below);
      const time = modifiedMs ?? this.tree.stagedMs.get(id) ?? this.tree.tick();
      this.tree.putUnsynced(path, content, undefined, time);
      named = this.tree.nodes.get(path);
      this.tree.stagedMs.set(id, time);
      this.published(path, content);
      return this.tree.entry(path);
    });
    if (published !== undefined)
      await this.#call(`unstage ${path}`, () => {
        this.tree.staged.delete(id);
        // Whatever people have renamed it to.
        const now = [...this.tree.nodes].find(([, node]) => node === named);
        this.tree.sync(now?.[0] ?? path);
      });
    return published;
  }

  #synced(path: string): Entry | undefined {
    this.tree.sync(path);
    return this.tree.entry(path);
  }

  staged({ id, size }: Staging): Promise<{ readonly bytes: number; readonly entry?: Entry }> {
    return this.#call("staged", () => {
      if (!this.tree.staged.has(id)) return { bytes: 0 };
      const modifiedMs = this.tree.stagedMs.get(id);
      return { bytes: size, entry: { kind: "file", stamp: { size, ...(modifiedMs === undefined ? {} : { modifiedMs }) } } };
    });
  }

  drop({ id }: Staging): Promise<void> {
    return this.#call("drop", () => void this.tree.staged.delete(id));
  }

  #expectTaken(path: string): void {
    if (this.tree.refuses(path)) throw new Fault("denied", "it does not take that name");
  }

  #expect(path: string, { kind, stamp }: Entry): number {
    const [node, now] = [this.tree.nodes.get(path), this.tree.entry(path)];
    if (node === undefined || now === undefined) throw new Fault("missing", "it has gone");
    const other =
      now.kind !== kind || now.stamp.size !== stamp.size || now.stamp.modifiedMs !== stamp.modifiedMs || now.stamp.inode !== stamp.inode;
    if (other) throw new Fault("changed", "it is another one");
    return node.kind === "file" ? node.content : 0;
  }

  async #call<T>(name: string, work: () => T): Promise<T> {
    await this.gate("before", name);
    const result = work();
    await this.gate("after", name);
    return result;
  }
}
