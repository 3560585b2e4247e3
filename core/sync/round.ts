/** One round of a mirror or two-way route: what was begun is ended, both sides are listed, what is to be done is decided, and done. */
import { type Fault, isFault, throwIfAborted } from "../errors.js";
import { type Taken, takenOtherwise } from "../folded.js";
import { isAtOrBelow, parentOf } from "../paths.js";
import type { Digest } from "../plugin.js";
import {
  type Action,
  bothSides,
  type Content,
  type Contents,
  isMove,
  lastMove,
  type Move,
  other,
  type Side,
  type Tables,
} from "../reconcile.js";
import { shortHash } from "../route.js";
import { all, Turns } from "../turns.js";
import { carryOut, type Listed, looksAs, recover, type World } from "./carry.js";
import { goneAt, type MaxDeletes, objection } from "./guard.js";
import { type Copy, NoRoom } from "./no-room.js";
import { type Entry, NotRead, type Scan, type Staging } from "./replica.js";
import type { Agreed } from "./store.js";

export interface Rules {
  /** undefined: a person said that all of it may be removed, this time. */
  readonly maxDeletes: MaxDeletes | undefined;
  /** Where another directory than the one that was agreed with will do: then what was agreed is forgotten (but for `stillAgreed`), and nothing is removed. */
  readonly anew: readonly Side[];
  /** No mark was ever made at this side: it is known by what it shows. */
  readonly neverMarked: (side: Side) => boolean;
  /** Another directory is begun with at this side. */
  readonly begunAnew: (side: Side) => void;
  /** Before the first change at a side, once it is clear that it is the right directory. */
  readonly before: (side: Side, signal: AbortSignal) => Promise<void>;
  /** What is to be done, also where that stops the round. */
  readonly told?: (plan: Plan) => void;
  /** The sides, as people know them. */
  readonly named: Readonly<Record<Side, string>>;
  /** Copies that are under way at once. */
  readonly together: number;
  /** The same for each round. */
  readonly noRoom: NoRoom;
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
  /** Names were changed: what is to be done beside that is decided in the next round. */
  readonly more: boolean;
  /** Something had no room; everything else was done. */
  readonly full?: Fault;
}

/** Nothing was done: a person has to look. A root is not the directory that was agreed with, or too much would be removed. */
export class Stopped extends Error {
  /** The same only for the same reason and the same paths. */
  readonly id: string;

  constructor(message: string, gone: readonly string[] = []) {
    super(message);
    this.id = shortHash(message, ...gone);
  }
}

/** Why a round would do nothing now; undefined: it would. Changes nothing. */
export async function stopOf(world: Planning, rules: Guards, signal: AbortSignal): Promise<Stopped | undefined> {
  const plan = await planned(world, signal);
  const strange = strangeIn(plan.scans, world.store.base, rules.neverMarked);
  const asked = strange.find((side) => !rules.anew.includes(side));
  if (asked !== undefined) return strangeRoot(asked, rules);
  // Where it is begun anew nothing is removed.
  return strange.length > 0 ? undefined : tooMuch(world, plan, rules, signal);
}

/** Why a round would not do that plan, of the directories that were agreed with: too much would be removed. */
export async function tooMuch(
  { sides, store }: Planning,
  plan: Plan,
  { maxDeletes, named }: Pick<Guards, "maxDeletes" | "named">,
  signal: AbortSignal,
): Promise<Stopped | undefined> {
  if (maxDeletes === undefined) return undefined;
  const { actions } = plan;
  const against = (moved: ReadonlySet<string>) => objection(actions, store.base, maxDeletes, moved, named);
  // Only where it matters new files are read to see whether they are old ones.
  const text = against(new Set()) === undefined ? undefined : against(await movedIn({ sides, store }, plan, signal));
  if (text === undefined) return undefined;
  return new Stopped(
    text,
    bothSides.flatMap((side) =>
      goneAt(side, actions, store.base)
        .map((path) => `${side} ${path}`)
        .sort(),
    ),
  );
}

type Guards = Pick<Rules, "maxDeletes" | "anew" | "neverMarked" | "named">;
type Planning = Pick<World, "sides" | "table" | "known"> & { readonly store: Pick<World["store"], "base"> };

/** In words for a person. */
export function strangeText(name: string, neverMarked: boolean): string {
  return neverMarked
    ? `the directory of ${name} does not hold most of what was agreed any more: it is not mounted, or most of it was removed`
    : `the directory of ${name} is not the one that was agreed with: it is not mounted, or was made anew`;
}

function strangeRoot(side: Side, { named, neverMarked }: Guards): Stopped {
  return new Stopped(strangeText(named[side], neverMarked(side)));
}

type Base = ReadonlyMap<string, Agreed>;
type Scans = Plan["scans"];

/**
 * The sides that are not the directory that was agreed with: they have not the mark. A side that never had one (a mirror without "deletes" makes none at its source) is that directory
 * where it shows more than half of what was agreed and is at the other side: an empty mount point and another card do not, and what is removed of the rest has its own guard (`maxDeletes`).
 */
export function strangeIn(scans: Scans, base: Base, neverMarked: Rules["neverMarked"]): Side[] {
  const showsMost = (side: Side) => {
    const held = [...base].filter(([path]) => scans[other(side)].entries.has(path));
    return held.filter(([path, agreed]) => shows(scans[side], side, path, agreed)).length * 2 > held.length;
  };
  return base.size === 0 ? [] : bothSides.filter((side) => !scans[side].marked && !(neverMarked(side) && showsMost(side)));
}

/** What need not be forgotten where such sides are begun with anew: no mark says that it is another directory, and it shows that. */
export function stillAgreed(strange: readonly Side[], scans: Scans, base: Base, neverMarked: Rules["neverMarked"]): Map<string, Agreed> {
  return new Map(
    [...base].filter(([path, agreed]) => strange.every((side) => neverMarked(side) && shows(scans[side], side, path, agreed))),
  );
}

/** A directory of that name may be any. */
function shows({ entries }: Scan, side: Side, path: string, agreed: Agreed): boolean {
  const entry = entries.get(path);
  if (entry === undefined || !looksAs(entry, agreed[side])) return false;
  return entry.kind === "file" || (entry.identity !== undefined && entry.identity === agreed[side].identity);
}

export interface Plan {
  readonly actions: readonly Action[];
  readonly tables: Tables;
  readonly scans: Readonly<Record<Side, Scan>>;
  /** Each file's content that is known, by side and path. */
  readonly digests: ReadonlyMap<string, Digest>;
  /** Read, and found to be what was agreed: a side shows that otherwise now. */
  readonly shown: readonly (readonly [string, Agreed])[];
  /** The other side was not listed: `known`. */
  readonly unlisted: boolean;
  /** Actions that cannot be done, as the side has the name in another spelling. */
  readonly taken: ReadonlyMap<Action, Taken>;
}

/** Throws the Fault of a side that does not work; Stopped. */
export async function round(world: World, rules: Rules, signal: AbortSignal): Promise<Done> {
  try {
    return await begun(world, rules, signal);
  } catch (error) {
    world.known?.forget();
    // Other things are to be done before what is sent: parts of that take the room for them.
    if (isFault(error, "full")) await dropStaged(world, () => true, signal).catch(() => undefined);
    throw error;
  }
}

async function begun(world: World, rules: Rules, signal: AbortSignal): Promise<Done> {
  const { store } = world;
  if (store.intents.size > 0) world.known?.forget();
  const open = await recover(world, rules.anew, rules.before, signal);
  if (open !== undefined) throw strangeRoot(open, rules);
  let plan = await planned(world, signal);
  const strange = strangeIn(plan.scans, store.base, rules.neverMarked);
  if (strange.length > 0) {
    for (const side of strange)
      if (!rules.anew.includes(side)) throw strangeRoot(side, rules);
      else rules.begunAnew(side);
    const still = stillAgreed(strange, plan.scans, store.base, rules.neverMarked);
    await store.change({ agree: [...store.base.keys()].flatMap((path) => (still.has(path) ? [] : [[path, undefined] as const])) });
    plan = await planned(world, signal);
  }
  if (plan.unlisted && !(await holds(world, plan, rules.together, signal))) {
    world.known?.forget();
    plan = await planned(world, signal);
  }
  if (await claimed(world, plan, signal)) plan = await planned(world, signal);
  const { actions, scans } = plan;
  rules.told?.(plan);
  const stop = await tooMuch(world, plan, rules, signal);
  if (stop !== undefined) throw stop;
  for (const side of bothSides) await rules.before(side, signal);
  const unmarked = bothSides.filter((side) => !scans[side].marked);
  for (const side of unmarked) await world.sides[side].mark(signal);
  // Only now that is known, and then other things are to be done.
  for (const side of unmarked) if ((await world.sides[side].folds(signal)) !== undefined) return begun(world, rules, signal);
  await dropUnwanted(world, plan, signal);
  if (plan.shown.length > 0) await store.change({ agree: plan.shown });
  const { done, left, failed, full } = await carryAll(world, plan, rules, signal);
  noteKnown(world, plan, left.size + failed.size === 0);
  const settling = new Set([...scans.here.settling, ...scans.there.settling]).size;
  return {
    ...{ done, left, failed, unseen: { here: scans.here.unseen, there: scans.there.unseen }, settling },
    more: lastMove(actions) >= 0,
    ...(full === undefined ? {} : { full }),
  };
}

/** Whether a side that was not listed is as it is known, where it matters: what is done in a directory is done in that, and none goes in which others may have put something. */
async function holds({ sides }: World, { actions, scans: { there } }: Plan, together: number, signal: AbortSignal): Promise<boolean> {
  const above = new Set<string>();
  for (const action of actions) {
    if (!("on" in action)) continue;
    if (action.do === "remove" && there.entries.get(action.path)?.kind === "directory") return false;
    for (const path of isMove(action) ? [action.path, action.from] : [action.path])
      for (let dir = parentOf(path); dir !== "" && !above.has(dir); dir = parentOf(dir)) above.add(dir);
  }
  const turns = new Turns(together);
  const isThere = async (dir: string) => {
    try {
      return (await sides.there.stat(dir, signal))?.kind === "directory";
    } catch (error) {
      // A link, that leads who knows where.
      if (!isFault(error, "rejected")) throw error;
      return false;
    }
  };
  const known = [...above].filter((dir) => there.entries.get(dir)?.kind === "directory");
  const found = await all(known.map((dir) => turns.run(signal, () => isThere(dir))));
  return !found.includes(false);
}

/** What this route brought to a name, and could not note any more, is agreed, where it has gone here meanwhile: else nobody would know whose it is. Whether there was such a thing. */
async function claimed({ sides, store, table, known }: World, { scans: { here, there } }: Plan, signal: AbortSignal): Promise<boolean> {
  if (table.alone !== true) return false;
  let any = false;
  for (const [id, { on, staging }] of [...store.staged]) {
    const { path, size } = staging;
    const shown = there.entries.get(path);
    if (on !== "there" || here.entries.has(path) || store.base.has(path) || shown?.kind !== "file" || shown.stamp.size !== size) continue;
    // As long as a part of it is there it has not got its name.
    if (await sides.there.isStaged(staging, signal)) continue;
    const digest = await sides.there.digest(path, shown, signal);
    // It may be what others brought there, of the same size: nothing here looks as if it were that without being read.
    const was: Entry = { kind: "file", stamp: { size }, recent: true };
    await store.change({ agree: [[path, { kind: "file", size, digest, here: was, there: shown }]], unstage: id });
    any = true;
  }
  if (any) known?.forget();
  return any;
}

/** What is known of a mirror after a round: nothing where anything did not fit, was not seen, or took directories to other places. */
function noteKnown({ known, store }: World, { actions, scans: { there } }: Plan, fits: boolean): void {
  const removed = new Set(actions.flatMap((action) => (action.do === "remove" || action.do === "rmdir" ? [action.path] : [])));
  const carried = actions.some(
    (action) => isMove(action) || (action.do === "remove" && there.entries.get(action.path)?.kind === "directory"),
  );
  if (fits && !carried && there.unseen.size + there.settling.size === 0) known?.keep(there, store.base, removed);
  else known?.forget();
}

/** What a round would do now. Reads contents where they decide; changes nothing. */
export async function planned({ sides, store, table, known }: Planning, signal: AbortSignal): Promise<Plan> {
  const unlisted = known?.scan(store.base);
  const [here, there] = await Promise.all([sides.here.scan(signal), unlisted ?? sides.there.scan(signal)]);
  const scans = { here, there };
  const digests = new Map<string, Digest>();
  const named = identified(store.base);
  for (const side of bothSides)
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
  const folding = new Map(bothSides.flatMap((side) => (scans[side].folds === undefined ? [] : [[side, scans[side].folds] as const])));
  for (;;) {
    const tables: Tables = { base, here: contentsOf(here, "here", digests), there: contentsOf(there, "there", digests), unseen, folding };
    const actions = table.actions(tables);
    const moves = actions.filter(isMove);
    const questions = actions.flatMap(({ path, ...action }) =>
      action.do === "learn" ? action.sides.map((side) => ({ side, path: side === "there" ? listedAt(path, moves) : path })) : [],
    );
    if (questions.length === 0)
      return {
        ...{ actions, tables, scans, digests, unlisted: unlisted !== undefined },
        taken: takenOtherwise(
          actions,
          Object.fromEntries([...folding].map(([side, how]) => [side, { contents: allShown(tables[side], scans[side]), folding: how }])),
        ),
        shown: lastMove(actions) < 0 ? shownAnew(store.base, scans, digests) : [],
      };
    for (const { side, path } of questions) {
      const entry = scans[side].entries.get(path);
      if (entry === undefined) throw new Error("only what was listed is to be learned");
      try {
        digests.set(keyOf(side, path), await sides[side].digest(path, entry, signal));
      } catch (error) {
        if (!isFault(error, "changed", "missing")) throw error;
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
async function carryAll(
  world: World,
  { actions: planned, scans, digests, taken }: Plan,
  { together, noRoom, named }: Rules,
  signal: AbortSignal,
) {
  const failed = new Map<string, string>();
  const left = new Set<string>();
  const moves: Move[] = [];
  const last = lastMove(planned);
  const actions = last < 0 ? planned : planned.slice(0, last + 1);
  let done = 0;
  let full: Fault | undefined;
  const waiting = new Set(actions);
  const skipped = new Set<string>();
  const copies = copiesOf(world, planned, scans);
  noRoom.begin(new Set([...copies.values()].map(({ id }) => id)));
  const listedOf =
    (name: string): Listed =>
    (side) => {
      const path = side === "there" ? listedAt(name, moves) : name;
      const entry = scans[side].entries.get(path);
      const digest = digests.get(keyOf(side, path));
      return entry === undefined ? undefined : { entry, ...(digest === undefined ? {} : { digest }) };
    };
  /** What was to come after it is decided anew. */
  const notMoved = ({ from, path }: Move) => {
    world.table.notMoved?.(listedAt(from, moves));
    left.add(path);
  };
  const one = async (action: Action) => {
    throwIfAborted(signal);
    const copy = copies.get(action);
    waiting.delete(action);
    const has = taken.get(action);
    if (has !== undefined && "on" in action) {
      if (has.goes) left.add(action.path);
      else if (!isMove(action)) failed.set(has.at, takenText(has, named[action.on]));
      if (copy !== undefined) noRoom.through(copy);
      if (isMove(action)) notMoved(action);
      return;
    }
    if (copy !== undefined && !noRoom.takes(copy)) {
      skipped.add(action.path);
      return;
    }
    try {
      const outcome = await carryOut(world, action, listedOf(isMove(action) ? action.from : action.path), signal);
      if (copy !== undefined) noRoom.through(copy);
      if (outcome === "done") {
        done += 1;
        if (isMove(action)) moves.push(action);
        return;
      }
      left.add(action.path);
    } catch (error) {
      if (isFault(error, "full") && copy !== undefined) {
        full = error;
        const smaller = [...waiting].some((it) => (copies.get(it)?.size ?? Infinity) < copy.size);
        const gone = noRoom.refused(copy, smaller);
        await dropStaged(world, ({ id }) => gone.includes(id), signal);
      } else if (!isFault(error, "rejected", "denied", "mismatch")) throw error;
      else if (copy !== undefined) noRoom.through(copy);
      const at = sideOf(action, error);
      failed.set(action.path, at === undefined ? error.message : `${named[at]}: ${error.message}`);
    }
    if (isMove(action)) notMoved(action);
  };
  for (let at = 0; at < actions.length;) {
    let end = at;
    while (end < actions.length && actions[end]?.do === "copy") end += 1;
    const those = actions.slice(at, end);
    const next = async () => {
      for (let action = those.shift(); action !== undefined; action = those.shift()) await one(action);
    };
    await all(Array.from({ length: Math.min(together, those.length) }, next));
    const action = actions[end];
    if (action !== undefined) await one(action);
    at = end + 1;
  }
  // There is room now.
  if (full === undefined) for (const path of skipped) left.add(path);
  return { done, left, failed, ...(full === undefined ? {} : { full }) };
}

/** Also what is not to be touched now. */
function allShown(contents: Contents, { settling, unseen }: Scan): Contents {
  if (settling.size + unseen.size === 0) return contents;
  return new Map([...contents, ...[...settling, ...unseen.keys()].map((path) => [path, contents.get(path) ?? untouched] as const)]);
}

const untouched: Content = { kind: "directory" };

/** Where it went wrong, as far as an action is of one side. */
function sideOf(action: Action, error: Fault): Side | undefined {
  if (action.do === "conflict") return action.loser;
  if (!("on" in action)) return undefined;
  return error instanceof NotRead ? other(action.on) : action.on;
}

/** For a person. */
export function takenText({ by, goes }: Taken, side: string): string {
  return `${side} has ${by}, and takes both names for one: it ${goes ? "comes when that has gone" : "waits until that has gone there, or one of them gets another name"}`;
}

async function dropStaged({ sides, store }: World, unwanted: (staging: Staging) => boolean, signal: AbortSignal): Promise<void> {
  for (const [id, { on, staging }] of [...store.staged])
    if (unwanted(staging)) {
      await sides[on].drop(staging, signal);
      await store.change({ unstage: id });
    }
}

/** What was staged for a content that is not wanted any more. */
async function dropUnwanted(world: World, { actions, scans }: Plan, signal: AbortSignal): Promise<void> {
  if (world.store.staged.size === 0) return;
  const wanted = new Set([...copiesOf(world, actions, scans).values()].map(({ id }) => id));
  await dropStaged(world, ({ id }) => !wanted.has(id), signal);
}

function copiesOf({ names }: World, actions: readonly Action[], scans: Scans): Map<Action, Copy> {
  return new Map(
    actions.flatMap((action) => {
      const entry = action.do === "copy" ? scans[other(action.on)].entries.get(action.path) : undefined;
      if (action.do !== "copy" || entry === undefined) return [];
      return [[action, { on: action.on, id: names.staging(action.on, action.path, entry), size: entry.stamp.size }] as const];
    }),
  );
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
    const same = bothSides.every((side) => digests.get(keyOf(side, path)) === agreed.digest);
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
async function movedIn(
  { sides, store }: Pick<Planning, "sides" | "store">,
  { actions, scans, digests }: Plan,
  signal: AbortSignal,
): Promise<Set<string>> {
  const gone = bothSides.flatMap((side) =>
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
      come.add(digests.get(keyOf(from, action.path)) ?? (await sides[from].digest(action.path, entry, signal)));
    } catch (error) {
      // It is written just now: then it is no old one.
      if (!isFault(error, "changed", "missing")) throw error;
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
