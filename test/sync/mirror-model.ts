/**
 * A tree is edited at random, and a mirror of it follows: files and directories are written, renamed, swapped, put in one another's place, removed; now and then others write at the
 * mirror. The program is killed, or loses its link, before or after any call. Then it is quiet: the mirror has to hold what the tree does; whatever
 * was at the mirror has to be there still, or in its trash; and what only got another name was not sent again.
 */
import { Fault } from "../../core/errors.js";
import type { Action, Tables } from "../../core/reconcile.js";
import { isAtOrBelow } from "../../core/paths.js";
import type { Digest } from "../../core/plugin.js";
import { unsyncedOf, type World } from "../../core/sync/carry.js";
import { MirrorTable } from "../../core/sync/mirror-table.js";
import { Known } from "../../core/sync/known.js";
import { NoRoom } from "../../core/sync/no-room.js";
import { round } from "../../core/sync/round.js";
import type { Agreed, Change } from "../../core/sync/store.js";
import { Random } from "../faults/random.js";
import { Kept } from "./kept.js";
import { awayDir, digestOf, Tree, TreeReplica, trashDir } from "./model-tree.js";
import { endOf, isEnd, Killed, Steps, turn } from "./steps.js";

/** A rule that is broken on purpose: the model has to find each. */
export const mirrorVariants = [
  "inode alone",
  "no other name",
  "not from the top",
  "blind replace",
  "what was agreed stays behind",
  "what was copied is believed",
  "what was read is not synced",
  "what was told once is asked again",
] as const;
export type MirrorVariant = (typeof mirrorVariants)[number];

export interface MirrorFound {
  readonly steps: number;
  readonly kills: number;
  readonly moves: number;
  /** What is wrong, with what a person needs to see it again. */
  readonly wrong?: string;
}

export interface MirrorOptions {
  readonly seed: number;
  /** Calls that are made while people edit. */
  readonly steps: number;
  readonly deletes: boolean;
  /** Nobody kills, and nobody else writes at the mirror. */
  readonly calm?: boolean;
  /** Nobody else writes at the mirror. */
  readonly alone?: boolean;
  /** Now and then what is done with one name at the mirror fails for a while, before it is done or after. */
  readonly locks?: boolean;
  /** Now and then the disk of the tree does not take what is synced, which it tells once. */
  readonly fails?: boolean;
  readonly variant?: MirrorVariant;
}

const names = ["a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "f", "f/a", "f/g", "f/g/a"];

class MirrorStore extends Kept {
  /** Contents of which it was ever known what they are called here, and that they are there. */
  readonly noted = new Set<Digest>();
  /** By path, the turn in which what was noted last was listed. */
  readonly listed = new Map<string, number>();

  constructor(
    readonly gate: () => Promise<void>,
    readonly variant: MirrorVariant | undefined,
    /** The turn of the last listing. */
    readonly listing: () => number,
  ) {
    super();
  }

  override async change(change: Change): Promise<void> {
    await this.gate();
    const { shift: _, ...rest } = change;
    await super.change(this.variant === "what was agreed stays behind" ? rest : change);
    const { agree = [], shift } = change;
    for (const [path, agreed] of agree) {
      this.listed.set(path, this.listing());
      if (agreed?.digest !== undefined && agreed.here.identity !== undefined) this.noted.add(agreed.digest);
    }
    if (shift !== undefined) for (const path of this.base.keys()) if (isAtOrBelow(path, shift.to)) this.listed.set(path, this.listing());
    await this.gate();
  }
}

class MirrorWorld {
  readonly random: Random;
  readonly counts = { steps: 0, moves: 0, serial: 0 };
  #boots = 0;
  readonly here: Tree;
  readonly there: Tree;
  readonly steps: Steps;
  readonly store: MirrorStore;
  readonly world: World;
  readonly known = new Known();
  readonly log: string[] = [];
  /** Each content that ever was at the mirror, and that nobody there took away. */
  readonly arrived = new Set<number>();
  /** Contents and directories that others made there. */
  readonly foreign = new Set<string>();
  /** Sent though it was known to be there. What is renamed before it was answered that it is there is sent anew. */
  readonly again = new Set<number>();
  wrong: string | undefined;
  /** Names at the mirror, with what the mirror says of them. */
  readonly locked = new Map<string, { readonly when: "before" | "after"; readonly fault: Fault }>();
  running = false;
  readonly table: MirrorTable;
  #linked = false;
  #scans = 0;
  #listedAt = 0;
  #time = 1;
  #content = 0;

  constructor(readonly options: MirrorOptions) {
    const { seed, variant } = options;
    this.random = new Random(seed);
    const tick = () => (this.#time += 1);
    this.here = new Tree(tick, true, variant === "inode alone" ? "inode alone" : "born", true);
    this.there = new Tree(tick, false);
    this.steps = new Steps(this.random, this.counts);
    this.store = new MirrorStore(this.steps.gate, variant, () => this.#listedAt);
    const intent = () => String((this.counts.serial += 1)).padStart(6, "0");
    const gate = async (when: "before" | "after", call: string) => {
      if (when === "before") this.#note(call);
      // Servers link and unlink in one call: nobody else comes in between, but a kill may.
      this.#linked = call.startsWith(when === "before" ? "unlink " : "link ");
      await this.steps.gate();
      const [, what, path = ""] = /^(\S+) (.*)$/.exec(call) ?? [];
      // A file gets both its new name and loses the old one, or neither.
      const half = (what === "link" && when === "after") || (what === "unlink" && when === "before");
      const lock = half || what === "stat" || what === "look" || what === "digest" ? undefined : this.locked.get(path);
      if (lock?.when === when) throw lock.fault;
      // Between what was compared and what is copied.
      if (when === "after" && call.startsWith("compare ") && this.others && this.random.below(8) === 0)
        this.meddle(call.slice("compare ".length));
    };
    const gateHere = async (when: "before" | "after", call: string) => {
      await this.steps.gate();
      if (when === "before" && /^(scan$|sync )/.test(call)) this.log.push(`    here: ${call}`);
      if (when === "before" && call === "scan") this.#listedAt = this.here.turn;
      if (when === "before" && call.startsWith("sync ") && options.fails === true && this.random.below(8) === 0) {
        this.log.push("    here: it fails");
        // What gets a name between a failure and the look at that is not known: of what was listed it is.
        this.here.fail(call.slice("sync ".length), this.#listedAt);
        throw new Fault("unreadable", "the disk fails");
      }
    };
    this.table = new MirrorTable(this.store, { deletes: options.deletes, away: awayDir, fresh: intent });
    const boot = () => String(variant === "what was told once is asked again" ? (this.#boots += 1) : this.#boots);
    this.world = {
      sides: {
        here: new TreeReplica(this.here, gateHere, { unsynced: variant === "what was read is not synced" }),
        there: new TreeReplica(
          this.there,
          gate,
          { replaces: variant === "blind replace", believed: variant === "what was copied is believed" },
          (_path, content) => void this.arrived.add(content),
          (content) => {
            if (this.store.noted.has(digestOf(content))) this.again.add(content);
          },
        ),
      },
      store: this.store,
      known: this.known,
      untaken: new Map(),
      get boot() {
        return boot();
      },
      unsynced: new Map(),
      learned: new Map(),
      names: {
        trash: (_side, path, id) => `${trashDir}/${id}/${path}`,
        conflict: (path) => `${path}.conflict`,
        staging: (_side, path, { stamp }) => `${path} ${stamp.size} ${stamp.modifiedMs}`,
        intent,
      },
      table: { alone: true, actions: (tables) => this.#actions(tables), notMoved: (agreed) => this.#notMoved(agreed) },
    };
  }

  get others(): boolean {
    return this.options.calm !== true && this.options.alone !== true;
  }

  #note(call: string): void {
    if (/^(link|make) /.test(call)) this.counts.moves += 1;
    // Held is at least one name more each time.
    if (call === "scan" && (this.#scans += 1) > 60) this.wrong ??= "a round does not end";
    this.log.push(`    ${call}`);
  }

  /** It is sent anew. */
  #notMoved(agreed: Agreed): void {
    this.table.notMoved(agreed);
    const from = [...this.store.base].find(([, one]) => one === agreed)?.[0];
    for (const [path, { digest }] of this.store.base)
      if (from !== undefined && digest !== undefined && isAtOrBelow(path, from)) this.store.noted.delete(digest);
  }

  #actions(tables: Tables): Action[] {
    const { variant } = this.options;
    const actions = this.table.actions(tables);
    this.#expectRight(actions, tables);
    if (variant === "no other name") return actions.filter((action) => action.do !== "move" || !action.path.startsWith(`${awayDir}/`));
    return variant === "not from the top" ? [...actions].reverse() : actions;
  }

  /** What is moved is the thing that has the other name now, as the tree itself knows it. */
  #expectRight(actions: readonly Action[], { base }: Tables): void {
    if (this.options.variant !== "inode alone") return;
    for (const action of actions) {
      const before = action.do === "move" ? base.get(action.from) : undefined;
      const now = action.do === "move" ? this.here.nodes.get(action.path) : undefined;
      if (before?.kind !== "file" || now?.kind !== "file") continue;
      const was = [...this.#things].find(([content]) => digestOf(content) === before.digest)?.[1];
      if (was !== undefined && was !== now.born) this.wrong ??= `moved is another thing than ${action.path}`;
    }
  }
  /** By content, the thing that it was written into. */
  readonly #things = new Map<number, number>();

  #written(path: string): void {
    const node = this.here.nodes.get(path);
    if (node?.kind === "file") this.#things.set(node.content, node.born);
  }

  edit(): void {
    const { here, random } = this;
    const [path, to] = [random.pick(names), random.pick(names)];
    const node = here.nodes.get(path);
    const apart = path !== to && !`${to}/`.startsWith(`${path}/`) && !`${path}/`.startsWith(`${to}/`);
    const rename = (from: string, into: string) => {
      here.remove(into);
      here.rename(from, into);
      this.log.push(`rename ${from} ${into}`);
    };
    switch (random.below(9)) {
      case 0:
      case 1:
        if (node?.kind === "directory" || !here.makeParents(path)) return;
        // In place, or by another file that takes the name.
        if (node !== undefined && random.below(2) === 0) here.write(path, (this.#content += 1));
        else {
          if (node !== undefined) here.remove(path);
          here.put(path, (this.#content += 1));
        }
        this.#written(path);
        this.log.push(`write ${path}=${this.#content}`);
        return;
      case 2:
        here.remove(path);
        this.log.push(`delete ${path}`);
        return;
      case 3:
      case 4: {
        const old = here.nodes.get(to);
        if (node === undefined || !apart || !here.makeParents(to) || (old !== undefined && old.kind !== node.kind)) return;
        rename(path, to);
        return;
      }
      case 5:
        // Each gets the other's name.
        if (node === undefined || !here.nodes.has(to) || !apart) return;
        rename(path, "x");
        rename(to, path);
        rename("x", to);
        return;
      case 6: {
        // A directory comes into a new one of its own name, or what is in one takes its place.
        if (node?.kind !== "directory") return;
        const children = here.below(path).filter((one) => !one.slice(path.length + 1).includes("/"));
        const moved = random.pick([path, ...children]);
        rename(moved, "x");
        if (moved !== path) here.remove(path);
        const place = moved === path ? `${path}/g` : path;
        here.makeParents(place);
        rename("x", place);
        return;
      }
      case 7:
        // As logs are rotated.
        for (const [from, into] of [
          ["c", "d"],
          ["b", "c"],
          ["a", "b"],
        ] as const)
          if (here.nodes.has(from) && here.makeParents(into)) rename(from, into);
        return;
      default:
        if (node === undefined && here.makeParents(`${path}/x`)) this.log.push(`mkdir ${path}`);
    }
  }

  /** By somebody else, at the mirror. */
  meddle(path = this.random.pick(names)): void {
    const { there, random } = this;
    if (this.#linked) return;
    const gone = (dir: string) => {
      for (const one of [dir, ...there.below(dir)]) {
        const content = there.content(one);
        if (content !== undefined) this.arrived.delete(content);
      }
      there.remove(dir);
    };
    if (random.below(3) > 0) {
      if (there.nodes.get(path)?.kind === "directory" || !there.makeParents(path)) return;
      gone(path);
      there.put(path, (this.#content += 1));
      this.arrived.add(this.#content);
      this.log.push(`others write ${path}=${this.#content}`);
    } else {
      gone(path);
      this.log.push(`others delete ${path}`);
    }
  }

  lock(): void {
    const { locked, random } = this;
    if (locked.size > 0 && random.below(2) === 0) {
      locked.clear();
      this.log.push("  unlocked");
      return;
    }
    const [path, when] = [random.pick(names), random.pick(["before", "after"] as const)];
    const kind = random.pick(["transient", "denied"] as const);
    locked.set(path, { when, fault: new Fault(kind, `${path} is locked`) });
    this.log.push(`  ${path} is locked: ${kind} ${when}`);
  }

  /** Power goes here: what was noted as it was listed is there still, or known as what the disk did not take. */
  cut(): void {
    this.#boots += 1;
    const { base } = this.store;
    const isKnown = (path: string) => [...base].some(([one, { here }]) => here.unsynced !== undefined && isAtOrBelow(path, one));
    for (const [path, { content, turn }] of this.here.cut(this.random)) {
      this.log.push(`  loses ${path}=${content}`);
      const isNoted = !isKnown(path) && base.get(path)?.digest === digestOf(content) && turn <= (this.store.listed.get(path) ?? 0);
      if (isNoted) this.wrong ??= `${path} was noted, and was on no medium`;
    }
  }

  /** The program is started anew. */
  startAnew(): void {
    const { unsynced } = this.world;
    unsynced.clear();
    for (const [key, entry] of unsyncedOf(this.store)) unsynced.set(key, entry);
  }

  begin(): void {
    this.running = true;
    this.log.push("  round");
    this.#scans = 0;
    if (this.random.below(6) === 0) this.known.forget();
    void round(
      this.world,
      {
        ...{ maxDeletes: undefined, anew: ["there"], begunAnew: () => undefined, neverMarked: () => false, forgets: () => false },
        named: { here: "here", there: "there" },
        before: () => Promise.resolve(),
        together: this.random.below(3) + 1,
        noRoom: new NoRoom(),
      },
      new AbortController().signal,
    )
      .then(({ left, failed }) => {
        if (left.size + failed.size === 0) this.table.forget();
      })
      .catch((error: unknown) => {
        if (!isEnd(error)) this.wrong ??= error instanceof Error ? (error.stack ?? error.message) : String(error);
      })
      .finally(() => (this.running = false));
  }

  async advance(): Promise<void> {
    if (!this.running) this.begin();
    else this.steps.go();
    await turn();
  }

  /** Until nothing changes any more. */
  async settle(): Promise<void> {
    const text = () => [...this.there.nodes].map(([path, node]) => `${path}${node.kind === "file" ? node.content : "/"}`).join(" ");
    this.log.push("quiet");
    this.locked.clear();
    for (let n = 0, before = ""; n < 40 && this.wrong === undefined; n++) {
      this.known.forget();
      if (!this.running) this.begin();
      while (this.running && this.wrong === undefined) {
        this.steps.go();
        await turn();
      }
      if (text() === before && this.there.staged.size === 0) return;
      before = text();
    }
    this.wrong ??= "it does not come to an end";
  }

  judge(): string | undefined {
    const { here, there, store, options } = this;
    const kindOf = (tree: Tree, path: string) => tree.content(path) ?? tree.nodes.get(path)?.kind;
    for (const path of here.nodes.keys())
      if (kindOf(here, path) !== kindOf(there, path)) return `${path} differs: ${here.text()} | ${there.text()}`;
    const live = new Set([...there.nodes].flatMap(([, node]) => (node.kind === "file" ? [node.content] : [])));
    const lost = [...this.arrived].filter((content) => !live.has(content));
    if (lost.length > 0) return `lost at the mirror: ${lost.join(", ")}`;
    const extra = [...there.live()].find(([path]) => !here.nodes.has(path) && path !== awayDir);
    if (options.deletes && !this.others && options.fails !== true && extra !== undefined)
      return `${extra[0]} is too much: ${here.text()} | ${there.text()}`;
    if (options.calm === true && this.again.size > 0) return `sent again: ${[...this.again].join(", ")}`;
    if (there.below(awayDir).length > 0) return `left in ${awayDir}: ${there.below(awayDir).join(" ")}`;
    if (store.intents.size > 0) return "it is still in the middle of something";
    return there.staged.size > 0 ? "staged contents are left" : undefined;
  }
}

export async function mirrorModel(options: MirrorOptions): Promise<MirrorFound> {
  const world = new MirrorWorld(options);
  const { random, counts } = world;
  let kills = 0;
  while (counts.steps < options.steps && world.wrong === undefined) {
    if (random.below(15) === 0) world.edit();
    if (world.others && random.below(150) === 0) world.meddle();
    if (options.locks === true && random.below(60) === 0) world.lock();
    await world.advance();
    if (options.calm === true || random.below(60) > 0) continue;
    kills += 1;
    world.log.push("  killed");
    const end = endOf(random);
    if (end instanceof Killed) {
      // What has no name yet may be on no medium.
      for (const { on, staging } of world.store.staged.values()) if (random.below(3) === 0) world[on].staged.delete(staging.id);
      world.cut();
    }
    world.steps.kill(end);
    await turn();
    if (end instanceof Killed) world.startAnew();
  }
  await world.settle();
  const wrong = world.wrong ?? world.judge();
  return {
    ...{ steps: counts.steps, kills, moves: counts.moves },
    ...(wrong === undefined ? {} : { wrong: `seed ${options.seed}: ${wrong}\n${world.log.slice(-120).join("\n")}` }),
  };
}
