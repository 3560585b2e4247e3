/**
 * Carries out the actions of `reconcile.ts`, so that no content is lost by whatever happens at any moment: a kill, a power cut, a change on either side.
 *
 * 1. Before anything that was agreed is taken aside there is a durable intent. It is moved to the trash, and what came is compared with what was meant; what is new gets its name only
 *    where nothing has it. `recover` runs before anything is listed: it puts back a wrong take, and what an empty name should hold.
 * 2. What was done before it was written down counts as agreed, where the content is the intent's.
 * 3. What was agreed is forgotten, durably, before the loser of a conflict gets another name.
 *
 * An action that does not fit any more is left: the next listing shows what is to be done instead.
 */
import { Fault, isFault } from "../errors.js";
import { isAtOrBelow, nameIn, parentOf } from "../paths.js";
import type { Digest } from "../plugin.js";
import { type Action, bothSides, type Move, other, type Side, type Tables } from "../reconcile.js";
import { type Held, hold } from "./held.js";
import type { Known } from "./known.js";
import { type Begun, type Entry, isOfPath, notAsListed, NotRead, notRead, type Replica, type Staging, type Unsynced } from "./replica.js";
import { type Agreed, type Intent, type Old, type Staged, type Store } from "./store.js";

/** 2001-01-01: earlier times are those of machines without a clock. */
const neverSetMs = 978_307_200_000;
/** The coarsest steps in which servers tell times. */
const coarseMs = 2000;

export interface Names {
  /** Where something that is taken aside goes, below the root; never the same twice. */
  trash(side: Side, path: string, id: string): string;
  /** "a.conflict-plane-1-20260501T101500.txt" of "a.txt"; another one for each `n`. */
  conflict(path: string, n: number): string;
  /** Staging.id. */
  staging(side: Side, path: string, entry: Entry): string;
  /** 16 lower-case hexadecimal digits, never the same twice. */
  intent(): string;
}

/** A side refuses a name, or what is to get it, and not everything. */
const isRefusal = async (error: unknown, side: Replica, signal: AbortSignal): Promise<boolean> =>
  isFault(error, "mismatch", "rejected") || (isFault(error, "denied") && (await isOfPath(error, side, signal)));

/** Where it went wrong that something was to be done on a side. */
export const sideOf = (on: Side, error: unknown): Side => (error instanceof NotRead ? other(on) : on);

export interface World {
  readonly sides: Readonly<Record<Side, Replica>>;
  readonly store: Store;
  readonly names: Names;
  readonly table: Table;
  /** Of a mirror. */
  readonly known?: Known;
  /** Ids of what could not be taken aside, by side and path: the next try is by the same. In memory. */
  readonly untaken: Map<string, string>;
  /** `bootId`. */
  readonly boot: string;
  /** What its medium did not take, by `thingOf`, as it was then: it may not be agreed yet, or not by that name. `unsyncedOf`, to begin with. */
  readonly unsynced: Map<string, Entry>;
  /** What had to be read to decide, and is not agreed yet: as long as it is listed so it is not read for each round. In memory. */
  readonly learned?: Map<string, Learned>;
}

export interface Learned {
  readonly side: Side;
  readonly path: string;
  readonly of: Entry;
  readonly digest: Digest;
}

/** What is to be done: `twoWay`, `mirror`. */
export interface Table {
  /** Nobody else writes what this route wrote: a content that got its name needs no intent, as nothing is lost by finding it there. */
  readonly alone?: true;
  actions(tables: Tables): readonly Action[];
  /** What was agreed so could not be moved. */
  notMoved?(agreed: Agreed): void;
}

/** What became of an action: "left" where it did not fit any more, and has to be decided anew. */
export type Outcome = "done" | "left";

/** How the paths of an action were listed. */
export type Listed = (side: Side) => { readonly entry: Entry; readonly digest?: Digest } | undefined;

/** Throws the Fault of a side that does not work; what does not fit is an outcome. */
export async function carryOut(world: World, action: Action, listed: Listed, signal: AbortSignal): Promise<Outcome> {
  try {
    return await act(world, action, listed, signal);
  } catch (error) {
    if (isFault(error, ...notAsListed)) return "left";
    throw error;
  }
}

async function act(world: World, action: Action, listed: Listed, signal: AbortSignal): Promise<Outcome> {
  const { store, sides } = world;
  const { path } = action;
  switch (action.do) {
    case "learn":
      throw new Error("a content is learned before anything is done");
    case "adopt": {
      const [here, there] = [listed("here"), listed("there")];
      if (here === undefined || there === undefined) return "left";
      const [one, two] = [
        await synced(world, "here", path, here.entry, signal).catch(notRead),
        await synced(world, "there", path, there.entry, signal),
      ];
      await store.change({ agree: [[path, agreedOf(one, two, here.digest ?? there.digest)]] });
      return "done";
    }
    case "forget":
      await store.change({ agree: [[path, undefined]] });
      return "done";
    case "mkdir":
      return makeDir(world, action.on, path, listed, signal);
    case "rmdir":
      await sides[action.on].rmdir(path, signal);
      await store.change({ agree: [[path, undefined]] });
      return "done";
    case "conflict":
      return evade(world, action.loser, path, listed, signal);
    case "remove":
      return remove(world, action.on, path, listed, signal);
    case "move":
      return move(world, action, listed, signal);
    case "copy":
      return copy(world, action, listed, signal);
  }
}

/** Where nobody else writes, it is agreed before it is there: one whose making was not answered, and that has gone here since, would be nobody's, and stay. */
async function makeDir(world: World, on: Side, path: string, listed: Listed, signal: AbortSignal): Promise<Outcome> {
  const { store, sides, table } = world;
  const model = listed(other(on))?.entry;
  if (model?.kind !== "directory") return "left";
  // On a FAT what is in it is lost with its name.
  const from = await synced(world, other(on), path, model, signal).catch(notRead);
  const agree = (made: Entry) => store.change({ agree: [[path, agreedBy(on, made, from, undefined)]] });
  // What was to make room may be there still.
  const before = table.alone === true && !store.base.has(path);
  if (before) await agree({ kind: "directory", stamp: { size: 0 } });
  await sides[on].mkdir(path, signal);
  const made = await sides[on].stat(path, signal);
  if (made?.kind !== "directory") return "left";
  await expectBrought(world, on, signal);
  if (!before) await agree(made);
  return "done";
}

/**
 * What is to be agreed of an entry, once it is synced, or cannot be: what can be read of a medium that fails is brought all the same. What it did not take once is not on it by what is written to that later.
 * `before`: of a try with this very content. Throws the Fault of a side that does not work, and "transient": it is tried again.
 */
export async function synced(world: World, at: Side, path: string, entry: Entry, signal: AbortSignal, before?: Unsynced): Promise<Entry> {
  const { sides, boot, store, unsynced } = world;
  const key = thingOf(at, path, entry);
  const agreed = store.base.get(path)?.[at];
  const was = unsynced.get(key) ?? (agreed?.identity === entry.identity ? agreed : undefined);
  const isSame = before !== undefined || (was !== undefined && looksAs(entry, was));
  const known = before ?? (isSame || entry.identity !== undefined ? was?.unsynced : undefined);
  const stays = known?.boot === boot ? { ...entry, unsynced: known } : undefined;
  if (stays !== undefined && isSame) return stays;
  try {
    await sides[at].sync(path, entry.stamp.size, signal);
  } catch (error) {
    const why = await whyUnsynced(world, at, error, signal);
    if (why.boot === undefined) return { ...entry, unsynced: why };
    // Something else may have the name by now, of which that was said.
    const now = await sides[at].stat(path, signal).catch(() => undefined);
    for (const one of [...(now === undefined ? [] : [now]), entry]) unsynced.set(thingOf(at, path, one), { ...one, unsynced: why });
    return { ...entry, unsynced: why };
  }
  if (stays !== undefined) {
    unsynced.set(key, stays);
    return stays;
  }
  unsynced.delete(key);
  const { unsynced: _, ...plain } = entry;
  return plain;
}

/** Throws what is not of that path alone, and what passes. */
async function whyUnsynced({ sides, boot }: World, at: Side, error: unknown, signal: AbortSignal): Promise<Unsynced> {
  if (!isFault(error) || error.kind === "transient" || !(await isOfPath(error, sides[at], signal))) throw error;
  return { reason: error.message, ...(error.kind === "unreadable" ? { boot } : {}) };
}

/** As it was agreed. */
export const unsyncedOf = ({ base }: Pick<Store, "base">): World["unsynced"] =>
  new Map(
    [...base].flatMap(([path, agreed]) =>
      bothSides.flatMap((at) => (agreed[at].unsynced === undefined ? [] : [[thingOf(at, path, agreed[at]), agreed[at]] as const])),
    ),
  );

/** Names a thing of a side: whatever it is called, where that is told. */
const thingOf = (side: Side, path: string, { identity }: Entry) => keyOf(side, identity ?? `/${path}`);

/** Rule 3. By way of the trash: what others put at the name meanwhile stays, and so does what they put at the other. */
async function evade(world: World, on: Side, path: string, listed: Listed, signal: AbortSignal): Promise<Outcome> {
  const { store, names } = world;
  const shown = listed(on);
  if (shown?.entry.kind !== "file") return "left";
  const { entry } = shown;
  const id = await takingId(world, on, path, signal);
  const intent: Intent = { id, on, path, old: oldOf(shown, names.trash(on, path, id)), beside: true };
  await store.change({ intend: intent, agree: [[path, undefined]] });
  if (!(await take(world, intent, signal))) return "left";
  await aside(world, intent, entry, signal);
  return "done";
}

/** The loser of a conflict gets its name. */
async function aside({ store, sides, names }: World, { on, path, old, id }: Intent, taken: Entry, signal: AbortSignal): Promise<void> {
  if (old !== undefined) await giveTo(sides[on], old.trash, conflictNames(names, path), taken, signal);
  await store.change({ settle: id });
}

/** To the first of these names that nothing has, and that the side takes: where its directory has become a file it does not. Which one; throws the last Fault where there is none. */
async function giveTo(side: Replica, from: string, to: Iterable<string>, entry: Entry, signal: AbortSignal): Promise<string> {
  let taken: unknown;
  for (const name of to)
    try {
      await side.give(from, name, entry, signal);
      return name;
    } catch (error) {
      if (!isFault(error, "conflict", "rejected")) throw error;
      taken = error;
    }
  throw taken;
}

/** In its directory; where that has become a file, in the next above. */
function* conflictNames(names: Names, path: string): Generator<string> {
  const name = nameIn(path);
  for (let dir = parentOf(path); ; dir = parentOf(dir)) {
    for (let n = 1; n <= 9; n++) yield names.conflict(dir === "" ? name : `${dir}/${name}`, n);
    if (dir === "") return;
  }
}

async function remove(world: World, on: Side, path: string, listed: Listed, signal: AbortSignal): Promise<Outcome> {
  const { store, names } = world;
  const shown = listed(on);
  if (shown === undefined) return "left";
  const id = await takingId(world, on, path, signal);
  const intent: Intent = { id, on, path, old: oldOf(shown, names.trash(on, path, id)) };
  await store.change({ intend: intent });
  if (!(await take(world, intent, signal))) return "left";
  await store.change({ agree: forgotten(store, path), settle: id });
  return "done";
}

/** What was agreed at a path and below it. */
function forgotten({ base }: Store, dir: string): (readonly [string, undefined])[] {
  // Of many files each would look at all that was agreed.
  if (base.get(dir)?.kind === "file") return [[dir, undefined]];
  return [...base.keys()].flatMap((path) => (isAtOrBelow(path, dir) ? [[path, undefined] as const] : []));
}

/** What was agreed goes with it: whatever becomes of the program in between, `recover` finds where it is. */
async function move(world: World, action: Move, listed: Listed, signal: AbortSignal): Promise<Outcome> {
  const { store, sides, names } = world;
  const { on, path, from } = action;
  const entry = listed(on)?.entry;
  if (entry === undefined) return "left";
  const id = names.intent();
  const was = store.base.get(from);
  // On a FAT the new name is that of an empty file until then.
  const read = was && (await synced(world, other(on), path, was[other(on)], signal).catch(notRead));
  await store.change({
    intend: { id, on, path, move: { from, entry } },
    ...(was !== undefined && read?.unsynced !== undefined ? { agree: [[from, { ...was, [other(on)]: read }]] } : {}),
  });
  try {
    await sides[on].give(from, path, entry, signal);
  } catch (error) {
    // When an answer was lost it may have been moved, and what is refused half-way may leave the directory that was made for it.
    const refused = isFault(error, "rejected", "denied");
    if (!refused && !isFault(error, ...notAsListed)) throw error;
    if (await moved(sides[on], store, { id, path, from }, signal)) return "done";
    if (!refused) return "left";
    throw error;
  }
  await store.change({ settle: id, shift: { from, to: path } });
  return "done";
}

/** Whether a move was done; its intent is over. */
async function moved(
  side: Replica,
  store: Store,
  { id, path, from }: { readonly id: string; readonly path: string; readonly from: string },
  signal: AbortSignal,
): Promise<boolean> {
  const [old, now] = [await side.stat(from, signal), await side.stat(path, signal)];
  const done = old === undefined && now !== undefined;
  // A directory may be left there that was made for it.
  if (old?.kind === "directory" && now?.kind === "directory")
    await side.rmdir(path, signal).catch((error: unknown) => {
      if (!isFault(error, "conflict", "changed")) throw error;
    });
  await store.change({ settle: id, ...(done ? { shift: { from, to: path } } : {}) });
  return done;
}

/** A kill may leave both names of a file. It may have a third one here by now, and then nobody would know whose the second is: into the trash with it. */
async function takeSecond(
  side: Replica,
  { store, names }: World,
  { id, on, path }: Intent,
  from: string,
  signal: AbortSignal,
): Promise<void> {
  const agreed = store.base.get(from);
  const [old, now] = agreed?.kind === "file" ? [await side.stat(from, signal), await side.stat(path, signal)] : [];
  if (agreed === undefined || old === undefined || now === undefined || !isTold(now) || !looksAs(old, agreed[on]) || !looksAs(now, old))
    return;
  await side.take(path, names.trash(on, path, id), now, signal).catch((error: unknown) => {
    // Others are at work there, or it may not be touched: then it stays as it is.
    if (!isFault(error, ...notAsListed, "denied", "rejected", "unreadable")) throw error;
  });
}

async function copy(world: World, action: Action & { do: "copy" }, listed: Listed, signal: AbortSignal): Promise<Outcome> {
  const { store, sides, names, table } = world;
  const { on, path, over } = action;
  const [from, old] = [listed(other(on)), listed(on)];
  if (from?.entry.kind !== "file" || over !== (old?.entry.kind === "file")) return "left";
  const { entry } = from;
  const { size, modifiedMs } = entry.stamp;
  const kept = modifiedMs !== undefined && (table.alone === true || tells(on, entry, old?.entry)) ? { modifiedMs } : {};
  const staging: Staging = { id: names.staging(on, path, entry), path, size, ...kept };
  await dropOtherTime(world, staging, signal);
  const before = store.staged.get(staging.id);
  const begun = before !== undefined;
  const { volume } = entry;
  const unsynced = before?.unsynced;
  const stage: Staged = {
    ...{ on, staging },
    ...(over ? { over } : {}),
    ...(volume === undefined ? {} : { volume }),
    ...(unsynced === undefined ? {} : { unsynced }),
  };
  if (!begun || (before.over === true && !over)) await store.change({ stage });
  const agreed = store.base.get(path)?.digest;
  const earlier = over && agreed !== undefined && old?.digest === agreed ? { old: { entry: old.entry, digest: agreed } } : {};
  const sync = async () => {
    const sent = await synced(world, other(on), path, entry, signal, unsynced).catch(notRead);
    if (sent.unsynced !== undefined && sent.unsynced !== unsynced) await store.change({ stage: { ...stage, unsynced: sent.unsynced } });
    return sent;
  };
  // Beside the sending; what may be written once more without a difference that shows, as it was read.
  let early: Promise<Entry> | undefined;
  const reads = () => {
    if (entry.recent !== true) early = sync();
    early?.catch(() => undefined);
  };
  const sending = sides[on].stage(staging, sides[other(on)], entry, { begun, reads, ...earlier }, signal);
  // Also where that breaks: what a sync found is noted, before anything else becomes of what is staged.
  const digest = await sending.finally(() => early?.catch(() => undefined));
  const sent = await (early ?? sync());
  if (!over && table.alone === true) {
    const published = await sides[on].publish(staging, digest, sides[other(on)], entry, signal);
    if (published === undefined) return "left";
    await store.change({ agree: [[path, agreedBy(on, published, sent, digest)]], unstage: staging.id });
    return "done";
  }
  const id = over ? await takingId(world, on, path, signal) : names.intent();
  const intent: Intent = {
    ...{ id, on, path, put: { staging, digest, from: sent } },
    ...(over && old !== undefined ? { old: oldOf(old, names.trash(on, path, id)) } : {}),
  };
  await store.change({ intend: intent });
  if (!(await take(world, intent, signal))) return "left";
  const published = await publish(world, intent, staging, digest, entry, signal);
  if (published === undefined) {
    // What was taken is the content that was agreed, and replaced: it stays in the trash. As after a kill (`settle`): the name was free, and nothing is removed for what was agreed before.
    await store.change({ settle: id, ...(intent.old === undefined ? {} : { agree: [[path, undefined]] as const }) });
    return "left";
  }
  await expectBrought(world, on, signal);
  await store.change({ agree: [[path, agreedBy(on, published, sent, digest)]], settle: id, unstage: staging.id });
  return "done";
}

/** What came into another directory (its disk is not mounted any more) would count as removed there, once the disk is back. Of a mirror it is brought again then. Throws "offline". */
async function expectBrought({ sides, table }: World, on: Side, signal: AbortSignal): Promise<void> {
  if (table.alone !== true) await expectStill(sides[on], signal);
}

/** Throws "offline" where the side has another directory by now than the one that was listed. */
export async function expectStill(side: Replica, signal: AbortSignal): Promise<void> {
  if (!(await side.isStill(signal))) throw new Fault("offline", "the directory is not the one that was agreed with any more");
}

/**
 * What is another content than was sent gets no name, nor does what the side refuses: what was taken aside for it has its own again. The intent is over, so that the next round decides anew: what is not
 * wanted any more must not be tried for ever, and hold its directory.
 */
async function publish(
  world: World,
  intent: Intent,
  staging: Staging,
  digest: Digest,
  from: Entry,
  signal: AbortSignal,
): Promise<Entry | undefined> {
  const side = world.sides[intent.on];
  try {
    return await side.publish(staging, digest, world.sides[other(intent.on)], from, signal);
  } catch (error) {
    if (!(await isRefusal(error, side, signal))) throw error;
    const named = await settle(world, intent, signal, true);
    if (named === undefined) throw error;
    await side.drop(staging, signal);
    return named;
  }
}

/** Some servers set the time of a file while they write it: what was staged to have another one, or one at all, would keep that. */
async function dropOtherTime(world: World, { id, modifiedMs }: Staging, signal: AbortSignal): Promise<void> {
  const begun = world.store.staged.get(id);
  if (begun !== undefined && begun.staging.modifiedMs !== modifiedMs) await dropStaged(world, begun, signal);
}

/** After a kill in between it is dropped once more, which finds nothing. */
export async function dropStaged({ store, sides }: World, { on, staging }: Staged, signal: AbortSignal): Promise<void> {
  await sides[on].drop(staging, signal);
  await store.change({ unstage: staging.id });
}

/** Whether others see by its size and time that this is another content than what was there. Clocks that were never set give many files one time. */
function tells(on: Side, { stamp: { size, modifiedMs = 0 } }: Entry, old: Entry | undefined): boolean {
  if (on === "here") return true;
  if (modifiedMs < neverSetMs) return false;
  return old?.stamp.size !== size || old.stamp.modifiedMs === undefined || Math.abs(old.stamp.modifiedMs - modifiedMs) >= coarseMs;
}

/** Takes the intent's old content aside. false: it was another one, which is back; the intent is over. */
async function take(world: World, intent: Intent, signal: AbortSignal): Promise<boolean> {
  const { store, sides } = world;
  const { on, path, old, id } = intent;
  if (old === undefined) return true;
  try {
    await sides[on].take(path, old.trash, old.entry, signal);
  } catch (error) {
    // Not that it was refused is certain, when an answer was lost.
    if (!isFault(error, ...notAsListed)) throw error;
    if ((await sides[on].stat(old.trash, signal)) === undefined) {
      world.untaken.set(keyOf(on, path), id);
      await store.change({ settle: id });
      return false;
    }
  }
  const taken = await sides[on].stat(old.trash, signal);
  if (taken !== undefined && (await isIt(sides[on], old, taken, signal))) return true;
  if (taken !== undefined) await putBack(world, intent, taken, signal);
  await store.change({ settle: id });
  return false;
}

/** Names a path of a side. */
export const keyOf = (side: Side, path: string) => `${side}\0${path}`;

/** Where each try had a name of its own in the trash, each would leave directories there, and be told anew. */
async function takingId({ sides, names, untaken }: World, on: Side, path: string, signal: AbortSignal): Promise<string> {
  const last = untaken.get(keyOf(on, path));
  untaken.delete(keyOf(on, path));
  const isFree = last !== undefined && (await sides[on].stat(names.trash(on, path, last), signal)) === undefined;
  return isFree ? last : names.intent();
}

function oldOf({ entry, digest }: NonNullable<ReturnType<Listed>>, trash: string): Old {
  return { entry, trash, ...(entry.recent === true && digest !== undefined ? { digest } : {}) };
}

/** What came is what was meant. Some servers tell no times. */
async function isIt(side: Replica, old: Old, taken: Entry, signal: AbortSignal): Promise<boolean> {
  if (!looksAs(taken, old.entry)) return false;
  return old.digest === undefined || (await side.digest(old.trash, taken, signal)) === old.digest;
}

/** What was taken gets its name again, or one of its own; whether it has its name. */
async function putBack({ sides, names }: World, { on, path, old }: Intent, taken: Entry, signal: AbortSignal): Promise<boolean> {
  if (old === undefined) return false;
  return (await giveTo(sides[on], old.trash, [path, ...conflictNames(names, path)], taken, signal)) === path;
}

/**
 * Ends what a kill or a lost link left in the middle. Before anything is listed; again where it throws. What was taken aside is found only in the directory that was agreed with: what was begun on a
 * side without its mark (a disk that is not mounted) stays, and that side is given; `anew`: those where it is forgotten. What cannot be ended because of its path alone is held, and so is what is held already.
 */
export async function recover(
  { sides, ...world }: World,
  held: Held,
  anew: readonly Side[],
  before: (side: Side, signal: AbortSignal) => Promise<void>,
  signal: AbortSignal,
): Promise<Side | undefined> {
  const { store } = world;
  for (const on of bothSides)
    if (sides[on].untidy && (await sides[on].isMarked(signal))) {
      await before(on, signal);
      for (const [name, error] of await sides[on].tidy(begunOn(store, on), signal)) {
        if (!(await isOfPath(error, sides[on], signal))) throw error;
        const intent = [...store.intents.values()].find((it) => it.on === on && [it.old?.trash, it.move?.from].includes(name));
        hold(held, intent?.path ?? name, intent?.move?.from, on, error);
      }
    }
  let strange: Side | undefined;
  for (const intent of [...store.intents.values()])
    if (await sides[intent.on].isMarked(signal)) {
      await before(intent.on, signal);
      if (!held.has(intent.path))
        try {
          await settle({ sides, ...world }, intent, signal);
        } catch (error) {
          const on = sideOf(intent.on, error);
          if (!isFault(error) || !(await isOfPath(error, sides[on], signal))) throw error;
          hold(held, intent.path, intent.move?.from, on, error);
        }
    } else if (anew.includes(intent.on)) await store.change({ settle: intent.id });
    else strange = intent.on;
  return strange;
}

function begunOn({ base, intents, staged }: Store, side: Side): Begun {
  return {
    trash: [...intents.values()].flatMap(({ on, old }) => (on === side && old !== undefined ? [old.trash] : [])),
    staged: [...staged.values()].flatMap(({ on, staging }) => (on === side ? [staging] : [])),
    dirs: [...base].flatMap(([path, { kind }]) => (kind === "directory" ? [path] : [])),
  };
}

/** As what a new content has its name, where it has; `refused`: that it gets that was refused a moment ago. */
async function settle(world: World, intent: Intent, signal: AbortSignal, refused = false): Promise<Entry | undefined> {
  const { store, sides } = world;
  const { id, on, path, move, old, put } = intent;
  const side = sides[on];
  const unsynced = await foundUnsynced(world, intent, signal);
  const found = (entry: Entry): Entry => (unsynced === undefined ? entry : { ...entry, unsynced });
  if (move !== undefined) {
    const was = store.base.get(move.from);
    if (unsynced !== undefined && was !== undefined) await store.change({ agree: [[move.from, { ...was, [on]: found(was[on]) }]] });
    await takeSecond(side, world, intent, move.from, signal);
    await moved(side, store, { id, path, from: move.from }, signal);
    return undefined;
  }
  const taken = old === undefined ? undefined : await side.stat(old.trash, signal);
  if (old !== undefined && taken === undefined) world.untaken.set(keyOf(on, path), id);
  if (old !== undefined && taken !== undefined && !(await isIt(side, old, taken, signal))) {
    await putBack(world, intent, taken, signal);
    await store.change({ settle: id });
    return undefined;
  }
  if (old !== undefined && taken !== undefined && intent.beside === true) {
    await aside(world, intent, taken, signal);
    return undefined;
  }
  // Whether it has a name that is refused shows when it is to get it.
  const now = put === undefined || old !== undefined ? await side.stat(path, signal) : await statIfNamed(side, path, signal);
  const free = taken !== undefined || old === undefined;
  if (put !== undefined) {
    // What nobody wants any more gets no name now. Of a mirror it may have another name here by now, and gets that there with it; what could not be synced where it was read may be nowhere else by now.
    const isAnyway = world.table.alone === true || put.from.unsynced !== undefined;
    const isWanted = now !== undefined || (!refused && (isAnyway || (await isStill(sides[other(on)], path, put.from, signal))));
    const published = isWanted ? await publishAgain(sides, intent, now, free, signal) : undefined;
    if (published !== undefined) {
      const named = found(published);
      await store.change({ agree: [[path, agreedBy(on, named, put.from, put.digest)]], settle: id });
      return named;
    }
    // The name is empty, and what was agreed is in the trash. Once it has its name again that is true still: not a conflict with what was to replace it.
    if (now === undefined && taken !== undefined && (await putBack(world, intent, taken, signal))) {
      await store.change({ settle: id });
      return undefined;
    }
    // It has its name back, perhaps by a try before this one. Where others write, they may have brought the same.
    if (world.table.alone === true && taken !== undefined) {
      const back = await side.stat(path, signal);
      if (back !== undefined && isTold(back) && looksAs(back, taken)) {
        await store.change({ settle: id });
        return undefined;
      }
    }
  }
  // From the moment that the name was free nobody knows what both sides held last: nothing is removed for what was agreed before.
  const over = now === undefined || (put === undefined ? taken !== undefined : free);
  await store.change({ settle: id, ...(over ? { agree: [[path, undefined]] as const } : {}) });
  return undefined;
}

/** As far as can be seen. */
async function isStill(side: Replica, path: string, entry: Entry, signal: AbortSignal): Promise<boolean> {
  try {
    const now = await side.stat(path, signal);
    return now !== undefined && looksAs(now, entry);
  } catch (error) {
    if (!isFault(error, "denied", "rejected")) return notRead(error);
    return error.kind === "denied";
  }
}

/** What is found done was perhaps not synced any more. Why it cannot be. */
async function foundUnsynced(world: World, intent: Intent, signal: AbortSignal): Promise<Unsynced | undefined> {
  const { sides, store, boot } = world;
  const { on, path, move, old, unsynced: before } = intent;
  if (before?.boot === boot) return before;
  const side = sides[on];
  let unsynced: Unsynced | undefined;
  // What lost its name last: never without both.
  for (const at of [old?.trash, path, move?.from]) {
    if (at === undefined) continue;
    const entry = await side.stat(at, signal).catch((error: unknown) => {
      if (!isFault(error, "rejected", "denied")) throw error;
    });
    unsynced ??= entry === undefined ? await goneUnsynced(world, on, at, signal) : (await synced(world, on, at, entry, signal)).unsynced;
  }
  if (unsynced !== undefined) await store.change({ intend: { ...intent, unsynced } });
  return unsynced;
}

async function goneUnsynced(world: World, on: Side, path: string, signal: AbortSignal): Promise<Unsynced | undefined> {
  try {
    await world.sides[on].sync(path, 0, signal);
    return undefined;
  } catch (error) {
    return whyUnsynced(world, on, error, signal);
  }
}

/** As which the new content has its name, or gets it now; undefined where another has it, or the content is not whole. `free`: nothing is to be taken aside before. */
async function publishAgain(
  sides: World["sides"],
  intent: Intent,
  now: Entry | undefined,
  free: boolean,
  signal: AbortSignal,
): Promise<Entry | undefined> {
  const { put, path, on, old } = intent;
  if (put === undefined) return undefined;
  const { staging, digest, from } = put;
  const side = sides[on];
  try {
    if (now === undefined) return free ? await side.publish(staging, digest, sides[other(on)], from, signal) : undefined;
    if (now.kind !== "file" || now.stamp.size !== staging.size) return undefined;
    // What was to be taken aside before is there still.
    if (!free && old !== undefined && old.digest === undefined && looksAs(now, old.entry)) return undefined;
    return (await side.digest(path, now, signal)) === digest ? now : undefined;
  } catch (error) {
    if (isFault(error, ...notAsListed)) return undefined;
    // What has the name already, and may not be read, is not known: it waits until it may.
    if ((now !== undefined && isFault(error, "denied")) || !(await isRefusal(error, side, signal))) throw error;
    const after = now === undefined ? await statIfNamed(side, path, signal) : undefined;
    if (after === undefined) return undefined;
    // It was refused, and has its name all the same.
    await side.sync(path, after.stamp.size, signal);
    return publishAgain(sides, intent, after, free, signal);
  }
}

/** Names that it refuses some servers do not even look for. */
async function statIfNamed(side: Replica, path: string, signal: AbortSignal): Promise<Entry | undefined> {
  try {
    return await side.stat(path, signal);
  } catch (error) {
    if (!(await isRefusal(error, side, signal))) throw error;
    return undefined;
  }
}

/** Some servers tell no times: then much looks the same. */
export const isTold = ({ stamp }: Entry) => stamp.modifiedMs !== undefined;

/** As far as is known it is that content, and no other. */
export function looksAs(one: Entry, two: Entry): boolean {
  if (one.kind !== two.kind) return false;
  if (one.kind === "directory") return true;
  const [a, b] = [one.stamp, two.stamp];
  return a.size === b.size && a.modifiedMs === b.modifiedMs && (a.inode === undefined || b.inode === undefined || a.inode === b.inode);
}

function agreedBy(on: Side, shown: Entry, others: Entry, digest: Digest | undefined): Agreed {
  return on === "here" ? agreedOf(shown, others, digest) : agreedOf(others, shown, digest);
}

function agreedOf(here: Entry, there: Entry, digest: Digest | undefined): Agreed {
  if (here.kind === "directory") return { kind: "directory", size: 0, here, there };
  if (digest === undefined) throw new Fault("changed", "its content is not known");
  return { kind: "file", size: here.stamp.size, digest, here, there };
}
