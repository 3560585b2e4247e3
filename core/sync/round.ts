/** One round of a mirror or two-way route: what was begun is ended, both sides are listed, what is to be done is decided, and done. */
import { isFault, throwIfAborted } from "../errors.js";
import type { Digest } from "../plugin.js";
import { type Action, type Content, isMove, lastMove, type Move, other, parentOf, type Side, type Tables } from "../reconcile.js";
import { carryOut, type Listed, looksAs, recover, type World } from "./carry.js";
import { goneAt, type MaxDeletes, objection } from "./guard.js";
import type { Scan } from "./replica.js";
import { type Agreed, isAtOrBelow } from "./store.js";

const sides = ["here", "there"] as const;

export interface Rules {
  /** undefined: a person said that all of it may be removed, this time. */
  readonly maxDeletes: MaxDeletes | undefined;
  /** Where another directory than the one that was agreed with will do: then what was agreed is forgotten, and nothing is removed. */
  readonly anew: readonly Side[];
  /** That is so at this side. */
  readonly begunAnew: (side: Side) => void;
  /** Before the first change of a round, once it is clear that these are the right directories. */
  readonly before: (signal: AbortSignal) => Promise<void>;
  /** The sides, as people know them. */
  readonly named: Readonly<Record<Side, string>>;
  /** Copies that are under way at once. */
  readonly together: number;
}

export interface Done {
  readonly done: number;
  /** Paths where something did not fit any more: another round is due. */
  readonly left: ReadonlySet<string>;
  /** What can never be done as it is: path → reason. */
  readonly failed: ReadonlyMap<string, string>;
  /** What could not be seen, so that nothing at or below it was done: path → reason. */
  readonly unseen: Readonly<Record<Side, ReadonlyMap<string, string>>>;
  /** Files that are not complete yet. */
  readonly settling: number;
}

/** Nothing was done: a person has to look. A root is not the directory that was agreed with, or too much would be removed. */
export class Stopped extends Error {}

function strangeRoot(name: string): Stopped {
  return new Stopped(`the directory of ${name} is not the one that was agreed with: it is not mounted, or was made anew`);
}

export interface Plan {
  readonly actions: readonly Action[];
  readonly tables: Tables;
  readonly scans: Readonly<Record<Side, Scan>>;
  /** Each file's content that is known, by side and path. */
  readonly digests: ReadonlyMap<string, Digest>;
  /** Read, and found to be what was agreed: a side shows that otherwise now. */
  readonly shown: readonly (readonly [string, Agreed])[];
}

/** Throws the Fault of a side that does not work; Stopped. */
export async function round(world: World, rules: Rules, signal: AbortSignal): Promise<Done> {
  try {
    return await begun(world, rules, signal);
  } catch (error) {
    world.known?.forget();
    throw error;
  }
}

async function begun(world: World, rules: Rules, signal: AbortSignal): Promise<Done> {
  const { store } = world;
  if (store.intents.size > 0) world.known?.forget();
  const open = await recover(world, rules.anew, signal);
  if (open !== undefined) throw strangeRoot(rules.named[open]);
  let plan = await planned(world, signal);
  const strange = sides.filter((side) => !plan.scans[side].marked);
  if (strange.length > 0 && store.base.size > 0) {
    for (const side of strange)
      if (!rules.anew.includes(side)) throw strangeRoot(rules.named[side]);
      else rules.begunAnew(side);
    await store.change({ agree: [...store.base.keys()].map((path) => [path, undefined]) });
    plan = await planned(world, signal);
  }
  const { actions, scans } = plan;
  const { maxDeletes } = rules;
  if (maxDeletes !== undefined) {
    const against = (moved: ReadonlySet<string>) => objection(actions, store.base, maxDeletes, moved, rules.named);
    // Only where it matters new files are read to see whether they are old ones.
    const text = against(new Set()) === undefined ? undefined : against(await movedIn(world, plan, signal));
    if (text !== undefined) throw new Stopped(text);
  }
  await rules.before(signal);
  for (const side of sides) if (!scans[side].marked) await world.sides[side].mark(signal);
  await dropUnwanted(world, plan, signal);
  if (plan.shown.length > 0) await store.change({ agree: plan.shown });
  const { done, left, failed } = await carryAll(world, plan, rules.together, signal);
  noteKnown(world, plan, left.size + failed.size === 0);
  const settling = new Set([...scans.here.settling, ...scans.there.settling]).size;
  return { done, left, failed, unseen: { here: scans.here.unseen, there: scans.there.unseen }, settling };
}

/** What is known of a mirror after a round: nothing where anything did not fit, was not seen, or took directories to other places. */
function noteKnown({ known, store }: World, { actions, scans: { there } }: Plan, fits: boolean): void {
  const removed = new Set(actions.flatMap((action) => (action.do === "remove" ? [action.path] : [])));
  const carried = lastMove(actions) >= 0 || [...removed].some((path) => there.entries.get(path)?.kind === "directory");
  if (fits && !carried && there.unseen.size + there.settling.size === 0) known?.keep(there, store.base, removed);
  else known?.forget();
}

/** What a round would do now. Reads contents where they decide; changes nothing. */
export async function planned({ sides: replicas, store, table, known }: World, signal: AbortSignal): Promise<Plan> {
  const [here, there] = await Promise.all([replicas.here.scan(signal), known?.scan(store.base) ?? replicas.there.scan(signal)]);
  const scans = { here, there };
  const digests = new Map<string, Digest>();
  const named = identified(store.base);
  for (const side of sides)
    for (const [path, entry] of scans[side].entries)
      for (const agreed of [store.base.get(path), entry.identity === undefined || side === "there" ? undefined : named.get(entry.identity)])
        if (agreed?.digest !== undefined && agreed[side].recent !== true && looksAs(entry, agreed[side])) {
          digests.set(keyOf(side, path), agreed.digest);
          break;
        }
  /** Changed while they were read. */
  const unsteady = new Set<string>();
  const unseen = (side: Side, path: string) => unsteady.has(path) || scans[side].settling.has(path) || isUnseen(scans[side].unseen, path);
  const base = new Map(
    [...store.base].map(([path, { kind, size, digest, here: was }]) => [path, contentOf(kind, size, digest, was.identity)]),
  );
  for (;;) {
    const tables: Tables = { base, here: contentsOf(here, "here", digests), there: contentsOf(there, "there", digests), unseen };
    const actions = table.actions(tables);
    const moves = actions.filter(isMove);
    const questions = actions.flatMap(({ path, ...action }) =>
      action.do === "learn" ? action.sides.map((side) => ({ side, path: side === "there" ? listedAt(path, moves) : path })) : [],
    );
    if (questions.length === 0)
      return { actions, tables, scans, digests, shown: lastMove(actions) < 0 ? shownAnew(store.base, scans, digests) : [] };
    for (const { side, path } of questions) {
      const entry = scans[side].entries.get(path);
      if (entry === undefined) throw new Error("only what was listed is to be learned");
      try {
        digests.set(keyOf(side, path), await replicas[side].digest(path, entry, signal));
      } catch (error) {
        if (!isFault(error, "changed") && !isFault(error, "missing")) throw error;
        unsteady.add(path);
      }
      throwIfAborted(signal);
    }
  }
}

/** By what names a thing here, whatever it is called. */
function identified(base: ReadonlyMap<string, Agreed>): Map<string, Agreed> {
  return new Map(
    [...base.values()].flatMap((agreed) => (agreed.here.identity === undefined ? [] : [[agreed.here.identity, agreed] as const])),
  );
}

/** Where something was listed, by where it is after these moves. */
export function listedAt(path: string, moves: readonly Move[]): string {
  return moves.reduceRight((at, { from, path: to }) => (isAtOrBelow(at, to) ? from + at.slice(to.length) : at), path);
}

/** Copies go together, as many as may; everything else waits for what is before it. Where something is moved the rest waits until it is listed where it is then. */
async function carryAll(world: World, { actions: planned, scans, digests }: Plan, together: number, signal: AbortSignal) {
  const failed = new Map<string, string>();
  const left = new Set<string>();
  const moves: Move[] = [];
  const last = lastMove(planned);
  const actions = last < 0 ? planned : planned.slice(0, last + 1);
  let done = 0;
  const listedOf =
    (name: string): Listed =>
    (side) => {
      const path = side === "there" ? listedAt(name, moves) : name;
      const entry = scans[side].entries.get(path);
      const digest = digests.get(keyOf(side, path));
      return entry === undefined ? undefined : { entry, ...(digest === undefined ? {} : { digest }) };
    };
  const one = async (action: Action) => {
    throwIfAborted(signal);
    try {
      const outcome = await carryOut(world, action, listedOf(isMove(action) ? action.from : action.path), signal);
      if (outcome === "done") {
        done += 1;
        if (isMove(action)) moves.push(action);
        return;
      }
      left.add(action.path);
    } catch (error) {
      if (!isFault(error, "rejected") && !isFault(error, "denied") && !isFault(error, "mismatch")) throw error;
      failed.set(action.path, error.message);
    }
    if (isMove(action)) world.table.notMoved?.(listedAt(action.from, moves));
  };
  for (let at = 0; at < actions.length;) {
    let end = at;
    while (end < actions.length && actions[end]?.do === "copy") end += 1;
    const copies = actions.slice(at, end);
    const next = async () => {
      for (let action = copies.shift(); action !== undefined; action = copies.shift()) await one(action);
    };
    const results = await Promise.allSettled(Array.from({ length: Math.min(together, copies.length) }, next));
    for (const result of results) if (result.status === "rejected") throw result.reason;
    const action = actions[end];
    if (action !== undefined) await one(action);
    at = end + 1;
  }
  return { done, left, failed };
}

/** What was staged for a content that is not wanted any more. */
async function dropUnwanted({ sides: replicas, names, store }: World, { actions, scans }: Plan, signal: AbortSignal): Promise<void> {
  if (store.staged.size === 0) return;
  const wanted = new Set(
    actions.flatMap((action) => {
      const entry = action.do === "copy" ? scans[other(action.on)].entries.get(action.path) : undefined;
      return action.do !== "copy" || entry === undefined ? [] : [names.staging(action.on, action.path, entry)];
    }),
  );
  for (const [id, { on, staging }] of [...store.staged])
    if (!wanted.has(id)) {
      await replicas[on].drop(staging, signal);
      await store.change({ unstage: id });
    }
}

/** Rows 10 whose files had to be read: they do not have to be the next time. */
function shownAnew(
  base: ReadonlyMap<string, Agreed>,
  { here, there }: Plan["scans"],
  digests: ReadonlyMap<string, Digest>,
): (readonly [string, Agreed])[] {
  return [...base].flatMap(([path, agreed]) => {
    const [one, two] = [here.entries.get(path), there.entries.get(path)];
    if (agreed.kind === "directory" && one?.kind === "directory" && two?.kind === "directory")
      return one.identity === agreed.here.identity ? [] : [[path, { ...agreed, here: one }] as const];
    const same = sides.every((side) => digests.get(keyOf(side, path)) === agreed.digest);
    if (agreed.digest === undefined || !same || one?.kind !== "file" || two?.kind !== "file") return [];
    const changed =
      !looksAs(one, agreed.here) ||
      !looksAs(two, agreed.there) ||
      one.recent !== agreed.here.recent ||
      two.recent !== agreed.there.recent ||
      one.identity !== agreed.here.identity;
    return changed ? [[path, { ...agreed, here: one, there: two }] as const] : [];
  });
}

/** Removals whose content gets another name in the same plan: a rename is a delete and a create. */
async function movedIn({ sides: replicas, store }: World, { actions, scans, digests }: Plan, signal: AbortSignal): Promise<Set<string>> {
  const gone = sides.flatMap((side) =>
    goneAt(side, actions, store.base).flatMap((path) => {
      const agreed = store.base.get(path);
      return agreed?.digest === undefined ? [] : [{ path, size: agreed.size, digest: agreed.digest }];
    }),
  );
  const sizes = new Set(gone.map(({ size }) => size));
  const come = new Set<Digest>();
  for (const action of actions) {
    const from = action.do === "copy" ? other(action.on) : undefined;
    const entry = from === undefined ? undefined : scans[from].entries.get(action.path);
    if (from === undefined || entry === undefined || !sizes.has(entry.stamp.size)) continue;
    try {
      come.add(digests.get(keyOf(from, action.path)) ?? (await replicas[from].digest(action.path, entry, signal)));
    } catch (error) {
      // It is written just now: then it is no old one.
      if (!isFault(error, "changed") && !isFault(error, "missing")) throw error;
    }
  }
  return new Set(gone.filter(({ digest }) => come.has(digest)).map(({ path }) => path));
}

function contentsOf({ entries }: Scan, side: Side, digests: ReadonlyMap<string, Digest>): Map<string, Content> {
  return new Map(
    [...entries].map(([path, { kind, stamp, identity }]) => [path, contentOf(kind, stamp.size, digests.get(keyOf(side, path)), identity)]),
  );
}

function contentOf(kind: "file" | "directory", size: number, digest: Digest | undefined, identity: string | undefined): Content {
  const named = identity === undefined ? {} : { identity };
  return kind === "directory" ? { kind, ...named } : { kind, size, ...named, ...(digest === undefined ? {} : { digest }) };
}

/** At or below something that could not be seen. */
function isUnseen(unseen: ReadonlyMap<string, string>, path: string): boolean {
  if (unseen.size === 0) return false;
  for (let at = path; ; at = parentOf(at)) {
    if (unseen.has(at)) return true;
    if (at === "") return false;
  }
}

const keyOf = (side: Side, path: string) => `${side}\0${path}`;
