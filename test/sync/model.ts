/**
 * Three clients, each with a tree of its own, keep one server's tree: people edit all four trees at random, the clients' rounds interleave call by call, and each is
 * killed, or loses its link, before or after any call. Then it is quiet: all trees have to be equal, and each content that nobody overwrote or deleted has to be in them.
 */
import { createHash } from "node:crypto";
import { Fault } from "../../core/errors.js";
import { type Side, twoWay } from "../../core/reconcile.js";
import { type Names, unsyncedOf, type World } from "../../core/sync/carry.js";
import type { Entry } from "../../core/sync/replica.js";
import { NoRoom } from "../../core/sync/no-room.js";
import { round } from "../../core/sync/round.js";
import type { Agreed, Change, Intent, Staged, Store } from "../../core/sync/store.js";
import { Random } from "../faults/random.js";
import { endOf, isEnd, Killed, Steps, turn } from "./steps.js";
import { type Broken, digestOf, type Gate, sizeOf, Tree, TreeReplica, trashDir } from "./model-tree.js";

/** A rule that is broken on purpose: the model has to find each. */
export const variants = [
  "blind replace",
  "look, then replace",
  "no comparison",
  "newest wins without a copy",
  "what was read is not synced",
  "no intents",
  "no rule 2",
  "no rule 3",
] as const;
export type Variant = (typeof variants)[number];

export interface Found {
  readonly steps: number;
  readonly kills: number;
  readonly conflicts: number;
  /** What is wrong, with what a person needs to see it again. */
  readonly wrong?: string;
}

class MemoryStore implements Store {
  readonly base = new Map<string, Agreed>();
  readonly intents = new Map<string, Intent>();
  readonly staged = new Map<string, Staged>();
  #late: Change | undefined;
  /** What was agreed, and was to be forgotten last. */
  forgotten: { readonly path: string; readonly content: number } | undefined;

  constructor(
    readonly gate: (when: "before" | "after", call: string) => Promise<void>,
    readonly variant: Variant | undefined,
    /** What is to be agreed from then on, whatever becomes of it; undefined: nothing. */
    readonly agreed: (path: string, content: number | undefined) => void,
  ) {}

  async change(change: Change): Promise<void> {
    await this.gate("before", "change");
    const forgets =
      change.stage === undefined &&
      change.unstage === undefined &&
      change.settle === undefined &&
      change.intend === undefined &&
      change.agree?.every(([, agreed]) => agreed === undefined) === true;
    for (const [path, agreed] of change.agree ?? []) {
      const old = contentOf(this.base.get(path));
      if (forgets && old !== undefined) this.forgotten = { path, content: old };
      this.agreed(path, contentOf(agreed));
    }
    if (this.variant === "no rule 3" && forgets) this.#late = change;
    else {
      if (this.#late !== undefined) this.#apply(this.#late);
      this.#late = undefined;
      this.#apply(change);
    }
    await this.gate("after", "change");
  }

  /** What a kill leaves; `holds`: whether that content has that name. */
  killed(holds: (intent: Intent) => boolean): void {
    this.#late = undefined;
    if (this.variant === "no rule 2") for (const [id, intent] of this.intents) if (holds(intent)) this.intents.delete(id);
  }

  #apply({ agree = [], intend, settle, stage, unstage }: Change): void {
    for (const [path, agreed] of agree)
      if (agreed === undefined) this.base.delete(path);
      else this.base.set(path, agreed);
    if (intend !== undefined && this.variant !== "no intents") this.intents.set(intend.id, intend);
    if (settle !== undefined) this.intents.delete(settle);
    if (stage !== undefined) this.staged.set(stage.staging.id, stage);
    if (unstage !== undefined) this.staged.delete(unstage);
  }
}

/** A client's work, one call at a time: whoever holds the model decides who goes on. */
class Client {
  readonly steps: Steps;
  readonly sides: Readonly<Record<Side, TreeReplica>>;
  readonly world: World;
  readonly store: MemoryStore;
  /** What both sides held last, by path, whatever is written down of it. */
  readonly agreed = new Map<string, number>();
  /** Its round runs. */
  running = false;
  #boots = 0;

  constructor(
    readonly name: string,
    readonly tree: Tree,
    server: Tree,
    readonly tools: {
      readonly random: Random;
      readonly counts: { steps: number; conflicts: number; serial: number };
      readonly variant: Variant | undefined;
      readonly fails: () => boolean;
    },
  ) {
    const { counts, fails, random, variant } = tools;
    this.steps = new Steps(tools.random, counts);
    const { gate } = this.steps;
    const agreed = (path: string, content: number | undefined) => {
      if (content === undefined) this.agreed.delete(path);
      else this.agreed.set(path, content);
    };
    this.store = new MemoryStore(gate, variant, agreed);
    const names: Names = {
      trash: (_side, path, id) => `${trashDir}/${id}/${path}`,
      conflict: (path, n) => `${path}.conflict-${name}-${n}-${(counts.conflicts += 1)}`,
      staging: (side, path, { stamp }: Entry) => hash(`${name} ${side} ${path} ${stamp.size} ${stamp.modifiedMs}`),
      intent: () => hash(`${name} ${(counts.serial += 1)}`),
    };
    const broken: Broken = {
      replaces: variant === "blind replace",
      looksFirst: variant === "look, then replace",
      blind: variant === "no comparison",
      newestWins: variant === "newest wins without a copy",
      unsynced: variant === "what was read is not synced",
    };
    const published = (path: string, content: number) => void this.agreed.set(path, content);
    let listed = 0;
    const gateHere: Gate = async (when, call) => {
      await gate();
      if (when === "after") return;
      if (call === "scan") listed = tree.turn;
      if (!fails() || !call.startsWith("sync ") || random.below(8) > 0) return;
      // What gets a name between a failure and the look at that is not known: of what was listed it is.
      tree.fail(call.slice("sync ".length), listed);
      throw new Fault("unreadable", "the disk fails");
    };
    const boot = () => String(this.#boots);
    this.sides = {
      here: new TreeReplica(tree, gateHere, broken, published),
      there: new TreeReplica(server, gate, broken, published),
    };
    this.world = {
      sides: this.sides,
      store: this.store,
      names,
      table: { actions: twoWay },
      untaken: new Map(),
      get boot() {
        return boot();
      },
      unsynced: new Map(),
      learned: new Map(),
    };
  }

  /** Begins a round; "wrong": why it ended as none may. */
  begin(wrong: (error: unknown) => void): void {
    this.running = true;
    void round(
      this.world,
      {
        maxDeletes: undefined,
        anew: [],
        begunAnew: () => undefined,
        neverMarked: () => false,
        forgets: () => false,
        named: { here: "here", there: "there" },
        before: () => Promise.resolve(),
        together: this.tools.random.below(3) + 1,
        noRoom: new NoRoom(),
      },
      new AbortController().signal,
    )
      .catch((error: unknown) => {
        if (!isEnd(error)) wrong(error);
      })
      .finally(() => (this.running = false));
  }

  /** Power goes, or (as the program sees it) every link. */
  kill(error: Error): void {
    if (error instanceof Killed) {
      this.store.killed(({ on, path, put }) => {
        const there = this.sides[on].tree.content(path);
        return there !== undefined && put?.digest === digestOf(there);
      });
      // What has no name yet may be on no medium.
      for (const { on, staging } of this.store.staged.values())
        if (this.tools.random.below(3) === 0) this.sides[on].tree.staged.delete(staging.id);
    }
    this.steps.kill(error);
  }

  /** After a power cut. */
  startAnew(): void {
    const { unsynced } = this.world;
    this.#boots += 1;
    unsynced.clear();
    for (const [key, entry] of unsyncedOf(this.store)) unsynced.set(key, entry);
  }
}

const contentOf = (agreed: Agreed | undefined) =>
  agreed?.digest === undefined ? undefined : Number(agreed.digest.slice("sha256:".length));
const hash = (text: string) => createHash("sha256").update(text).digest("hex").slice(0, 16);

export interface Options {
  readonly seed: number;
  /** Calls that are made while people edit. */
  readonly steps: number;
  readonly variant?: Variant;
  /** One of so many calls is somebody's last. */
  readonly kills?: number;
  /** Now and then a client's disk does not take what is synced, which it tells once. */
  readonly fails?: boolean;
  /** The server takes no name that begins with "b". */
  readonly refuses?: boolean;
}

const names = ["a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "f", "f/a"];

export async function model({ seed, steps, variant, kills: rarity = 60, fails = false, refuses = false }: Options): Promise<Found> {
  const random = new Random(seed);
  let time = 1;
  const tick = () => (time += 1);
  const server = new Tree(tick, false);
  if (refuses) server.refuses = (path) => !path.startsWith(trashDir) && path.split("/").some((name) => name.startsWith("b"));
  const counts = { steps: 0, conflicts: 0, serial: 0 };
  const log: string[] = [];
  const clients = [0, 1, 2].map(
    (n) =>
      new Client(`c${n}`, new Tree(tick, true, fails ? "born" : "none"), server, {
        random,
        counts,
        variant,
        fails: () => fails && log.at(-1) !== "quiet",
      }),
  );
  const trees = [server, ...clients.map(({ tree }) => tree)];
  /** Contents that somebody made, and nobody took away. */
  const kept = new Set<number>();
  /** By path, each content that somebody gave it. */
  const held = new Map<string, readonly number[]>();
  /** What power took of a tree, by its path there: who writes there, or where it was agreed, before anybody looked wrote over it. */
  const taken = new Map<Tree, Map<string, number>>();
  let wrong: string | undefined;
  let kills = 0;
  let content = 0;
  const retire = (tree: Tree, path: string) => {
    for (const one of [path, ...tree.below(path)]) {
      const old = tree.content(one);
      if (old !== undefined) kept.delete(old);
      tree.nodes.delete(one);
    }
  };
  const give = (tree: Tree, path: string, given?: number) => {
    const old = tree.content(path);
    const takenAway = new Set([old, server.content(path)].filter((one) => one !== undefined && !kept.has(one)));
    const before = tree.nodes.get(path);
    retire(tree, path);
    const agreed = clients.find((client) => client.tree === tree)?.agreed.get(path);
    for (const [at, gone] of taken.get(tree) ?? [])
      if (at === path || gone === agreed) {
        kept.delete(gone);
        taken.get(tree)?.delete(at);
      }
    // Now and then one that this name had before.
    const earlier = random.below(4) === 0 ? held.get(path) : undefined;
    const known = given ?? (earlier === undefined ? undefined : random.pick(earlier.slice(-3)));
    const chosen = known ?? (content += 1);
    held.set(path, [...(held.get(path) ?? []), chosen]);
    if (known === undefined && before?.kind !== "directory") tree.putUnsynced(path, chosen, before);
    else tree.put(path, chosen);
    // Back to what was agreed, or is about to be, is no change that anybody could see; nor is once more what is there, and others took away.
    const digest = digestOf(chosen);
    const unseen = ({ agreed, store, tree: own }: Client) =>
      (agreed.get(path) === chosen ||
        [...store.intents.values()].some((intent) => intent.path === path && intent.put?.digest === digest) ||
        [...store.staged.values()].some(({ staging }) => staging.path === path && server.staged.get(staging.id) === chosen)) &&
      (own === tree || own.content(path) !== chosen);
    if (!takenAway.has(chosen) && !clients.some(unseen)) kept.add(chosen);
    log.push(`${trees.indexOf(tree)} write ${path}=${chosen}`);
  };
  const edit = () => {
    // The server's own people edit less.
    const tree = trees[random.below(8) === 0 ? 0 : random.below(3) + 1];
    const path = names[random.below(names.length)];
    if (tree === undefined || path === undefined || tree.refuses(path)) return;
    const node = tree.nodes.get(path);
    switch (random.below(5)) {
      case 0:
      case 1:
        if (node?.kind === "directory" && random.below(3) > 0) return;
        if (!tree.makeParents(path)) return;
        give(tree, path);
        return;
      case 2:
        log.push(`${trees.indexOf(tree)} delete ${path}`);
        retire(tree, path);
        return;
      case 3: {
        const to = names[random.below(names.length)];
        if (
          to === undefined ||
          tree.refuses(to) ||
          node === undefined ||
          tree.nodes.has(to) ||
          `${to}/`.startsWith(`${path}/`) ||
          !tree.makeParents(to)
        )
          return;
        log.push(`${trees.indexOf(tree)} rename ${path} ${to}`);
        tree.rename(path, to);
        return;
      }
      default:
        if (node === undefined && tree.makeParents(`${path}/x`)) log.push(`${trees.indexOf(tree)} mkdir ${path}`);
    }
  };
  const broken = (client: Client) => (error: unknown) => {
    wrong ??= `${client.name}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`;
  };
  const advance = async () => {
    const client = random.pick(clients);
    if (!client.running) client.begin(broken(client));
    else client.steps.go();
    await turn();
  };
  while (counts.steps < steps && wrong === undefined) {
    if (random.below(12) === 0) edit();
    await advance();
    if (random.below(rarity) === 0) {
      kills += 1;
      const client = random.pick(clients);
      const open = [...client.store.intents.values()];
      const { forgotten } = client.store;
      const end = endOf(random);
      client.kill(end);
      const cut = end instanceof Killed ? [client.tree] : [];
      if (random.below(12) === 0) {
        cut.push(server);
        for (const one of clients) one.kill(new Fault("offline", "the server lost power"));
      }
      // What is nowhere else is lost.
      for (const tree of cut)
        for (const [path, { content: gone }] of tree.cut(random)) {
          taken.set(tree, (taken.get(tree) ?? new Map<string, number>()).set(path, gone));
          log.push(`${trees.indexOf(tree)} loses ${gone}`);
          if (!trees.some((one) => [...one.live()].some(([, node]) => node.kind === "file" && node.content === gone))) kept.delete(gone);
        }
      await turn();
      if (end instanceof Killed) client.startAnew();
      // Somebody takes back the change that was on its way.
      for (const { path, on } of open) {
        const base = contentOf(client.store.base.get(path));
        if (on === "here" || base === undefined || client.tree.content(path) === undefined || random.below(2) === 0) continue;
        give(client.tree, path, base);
      }
      // Or puts on the server what was agreed before a conflict.
      if (forgotten !== undefined && server.content(forgotten.path) !== undefined && random.below(2) === 0) {
        give(server, forgotten.path, forgotten.content);
      }
    }
  }
  log.push("quiet");
  // Whatever runs ends; then each client in turn, until nothing changes any more.
  let before = "";
  for (let n = 0; n < 40 && wrong === undefined; n++) {
    for (const client of clients) {
      if (!client.running) client.begin(broken(client));
      while (client.running && wrong === undefined) {
        client.steps.go();
        await turn();
      }
    }
    const now = trees.map((tree) => tree.text()).join("\n");
    if (now === before) break;
    before = now;
  }
  if (wrong === undefined) wrong = judge(trees, clients, kept);
  const { steps: made, conflicts } = counts;
  return {
    steps: made,
    kills,
    conflicts,
    ...(wrong === undefined ? {} : { wrong: `seed ${seed}: ${wrong}\n${log.slice(-60).join("\n")}` }),
  };
}

function judge(trees: readonly Tree[], clients: readonly Client[], kept: ReadonlySet<number>): string | undefined {
  const [server] = trees;
  const refuses = (path: string) => server?.refuses(path) === true;
  const [first, ...others] = trees.map((tree) => tree.text(refuses));
  if (others.some((one) => one !== first)) return `the trees differ:\n${trees.map((tree) => tree.text()).join("\n")}`;
  const live = new Set(trees.flatMap((tree) => [...tree.live()].flatMap(([, node]) => (node.kind === "file" ? [node.content] : []))));
  const lost = [...kept].filter((content) => !live.has(content));
  if (lost.length > 0) return `lost: ${lost.join(", ")} (of size ${sizeOf(lost[0] ?? 0)}); left is ${first ?? ""}`;
  for (const { name, store } of clients) if (store.intents.size > 0) return `${name} is still in the middle of something`;
  /** Until that is not wanted any more. */
  const waits = (id: string) =>
    clients.some(({ store, tree }) => {
      const path = store.staged.get(id)?.staging.path;
      return path !== undefined && refuses(path) && tree.content(path) === server?.staged.get(id);
    });
  const litter = trees.findIndex(({ staged }) => [...staged.keys()].some((id) => !waits(id)));
  return litter === -1 ? undefined : `staged contents are left in tree ${litter}`;
}
