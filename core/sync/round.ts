/** One round of a mirror or two-way route: what was begun is ended, both sides are listed, what is to be done is decided, and done. */
import { isDeepStrictEqual } from "node:util";
import { type Fault, isFault, throwIfAborted } from "../errors.js";
import { folded, type Taken } from "../folded.js";
import { depthOf, isAtOrBelow, parentOf } from "../paths.js";
import { type Action, bothSides, isMove, isUnseen, lastMove, type Move, other, type Side } from "../reconcile.js";
import { ownDir } from "../route.js";
import { all, Turns } from "../turns.js";
import { carryOut, dropStaged, expectStill, isTold, keyOf, type Listed, looksAs, recover, sideOf, synced, type World } from "./carry.js";
import { type Held, hold, isIn, namesOf, waits } from "./held.js";
import type { Copy, NoRoom } from "./no-room.js";
import { listedAt, type Plan, planned, type Scans } from "./plan.js";
import { type Entry, isOfPath, notRead, type Scan, type Staging } from "./replica.js";
import type { Agreed, Staged } from "./store.js";
import { type Guards, hiddenIn, stillAgreed, strangeIn, strangeRoot, tooMuch } from "./stop.js";

export interface Rules extends Guards {
  /** Another directory is begun with at this side. */
  readonly begunAnew: (side: Side) => void;
  /** Before the first change at a side, once it is clear that it is the right directory. */
  readonly before: (side: Side, signal: AbortSignal) => Promise<void>;
  /** What is to be done, also where that stops the round. */
  readonly told?: (plan: Plan) => void;
  /** What was agreed is forgotten, as its medium lost it: path → what becomes of it, for a person. */
  readonly lost?: (told: ReadonlyMap<string, string>) => void;
  /** Nothing stops it: that is done now. */
  readonly begins?: () => Promise<void>;
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
  /** What is on no medium where it was read, as far as is known: path → reason. */
  readonly unsynced: ReadonlyMap<string, string>;
  /** What could not be seen, so that nothing at or below it was done: path → reason. */
  readonly unseen: Readonly<Record<Side, ReadonlyMap<string, string>>>;
  /** Files that are not complete yet. */
  readonly settling: number;
  /** Names were changed: what is to be done beside that is decided in the next round. */
  readonly more: boolean;
  /** Something had no room, or went wrong in a way that passes; everything else was done. */
  readonly broke?: Fault;
}

/** Throws the Fault of a side that does not work; Stopped. */
export async function round(world: World, rules: Rules, signal: AbortSignal): Promise<Done> {
  try {
    return await begun(world, rules, new Map(), signal);
  } catch (error) {
    world.known?.forget();
    // Other things are to be done before what is sent: parts of that take the room for them.
    if (isFault(error, "full")) await dropEach(world, () => true, signal).catch(() => undefined);
    throw error;
  }
}

async function begun(world: World, rules: Rules, held: Held, signal: AbortSignal): Promise<Done> {
  const { store } = world;
  if (store.intents.size > 0) world.known?.forget();
  const open = await recover(world, held, rules.anew, rules.before, signal);
  if (open !== undefined) throw strangeRoot(open, rules);
  let plan = await planned(world, signal, held);
  const strange = strangeIn(plan.scans, store.base, rules.neverMarked);
  if (strange.length > 0) {
    for (const side of strange)
      if (!rules.anew.includes(side)) throw strangeRoot(side, rules, strange);
      else rules.begunAnew(side);
    const still = stillAgreed(strange, plan.scans, store.base, rules.neverMarked);
    await store.change({ agree: [...store.base.keys()].flatMap((path) => (still.has(path) ? [] : [[path, undefined] as const])) });
    plan = await planned(world, signal, held);
  }
  if (plan.unlisted && !(await holds(world, plan, rules.together, signal))) {
    world.known?.forget();
    plan = await planned(world, signal, held);
  }
  const hidden = hiddenIn(plan, rules.named);
  if (hidden !== undefined && rules.forgets(hidden)) {
    await store.change({ agree: bothSides.flatMap((side) => plan.hidden[side].map((path) => [path, undefined] as const)) });
    plan = await planned(world, signal, held);
  }
  const { any, others } = await claimed(world, plan, signal);
  if (any) plan = await planned(world, signal, held);
  const { actions, scans } = plan;
  rules.told?.(plan);
  const stop = await tooMuch(world, plan, rules, signal);
  if (stop !== undefined) throw stop;
  for (const side of bothSides) await rules.before(side, signal);
  await rules.begins?.();
  const unmarked = bothSides.filter((side) => !scans[side].marked);
  for (const side of unmarked) await world.sides[side].mark(signal);
  // Only now that is known, and then other things are to be done.
  for (const side of unmarked) if ((await world.sides[side].folds(signal)) !== undefined) return begun(world, rules, held, signal);
  await dropUnwanted(world, plan, held, others, signal);
  const shown = await syncedAnew(world, plan, held, rules.together, signal);
  const lost = [...plan.lost.keys()].map((path) => [path, undefined] as const);
  if (shown.length + lost.length > 0) await store.change({ agree: [...shown, ...lost] });
  if (lost.length > 0) rules.lost?.(lostText(world, plan, rules));
  const { done, left, failed, fits, broke, again } = await carryAll(world, plan, rules, held, signal);
  noteKnown(world, plan, fits);
  if (again) {
    const rest = await begun(world, rules, held, signal);
    return { ...rest, done: done + rest.done };
  }
  const settling = new Set([...scans.here.settling, ...scans.there.settling]).size;
  const unseen = (side: Side) => new Map([...scans[side].unseen, ...plan.unread[side]]);
  return {
    ...{ done, left, failed, unsynced: unsyncedIn(world, plan, rules), unseen: { here: unseen("here"), there: unseen("there") }, settling },
    more: lastMove(actions) >= 0,
    ...(broke === undefined ? {} : { broke }),
  };
}

function lostText({ table }: World, { lost, scans }: Plan, { named }: Rules): Map<string, string> {
  const replaced = { here: `what ${named.there} has of it goes to the trash there`, there: "it is sent again" };
  const textOf = (path: string, at: Side) =>
    scans[at].entries.has(path)
      ? `what was written last since: ${table.alone === true ? replaced[at] : "both are kept"}`
      : `it since: it stays at ${named[other(at)]}`;
  return new Map([...lost].map(([path, at]) => [path, `${named[at]} could not sync it, and has lost ${textOf(path, at)}`]));
}

function unsyncedIn(world: World, plan: Plan, rules: Rules): Map<string, string> {
  const { store } = world;
  const { named } = rules;
  const found = lostText(world, plan, rules);
  for (const [path, agreed] of store.base)
    for (const at of bothSides) {
      const { unsynced } = agreed[at];
      if (unsynced !== undefined)
        found.set(
          path,
          `${named[at]}: ${unsynced.reason}; it is brought all the same, and should its medium lose it, that is not followed`,
        );
    }
  return found;
}

/** Of what is shown otherwise now, what is to be agreed: of what somebody saved again a power cut could leave an empty file, which would count as a change. Holds what cannot be synced now. */
async function syncedAnew(world: World, { shown, scans }: Plan, held: Held, together: number, signal: AbortSignal): Promise<Plan["shown"]> {
  const { sides, store } = world;
  const turns = new Turns(together);
  const sync = async (path: string, now: Agreed): Promise<Plan["shown"]> => {
    const was = store.base.get(path);
    let next = now;
    for (const at of bothSides)
      try {
        const one = was?.[at];
        if (
          one !== undefined &&
          scans[at].entries.has(path) &&
          (one.recent === true || one.unsynced !== undefined || one.identity !== now[at].identity || !looksAs(now[at], one))
        )
          next = { ...next, [at]: await synced(world, at, path, now[at], signal) };
      } catch (error) {
        if (!isFault(error) || !(await isOfPath(error, sides[at], signal))) throw error;
        hold(held, path, undefined, at, error);
        return [];
      }
    return isDeepStrictEqual(next, was) ? [] : [[path, next]];
  };
  return (await all(shown.map(([path, now]) => turns.run(signal, () => sync(path, now))))).flat();
}

/** Whether a side that was not listed is as it is known, where it matters: what is done in a directory is done in that, and none goes in which others may have put something. */
async function holds({ sides }: World, { actions, scans: { there } }: Plan, together: number, signal: AbortSignal): Promise<boolean> {
  const above = new Set<string>();
  const moves: Move[] = [];
  for (const action of actions) {
    if (!("on" in action)) continue;
    if (action.do === "remove" && there.entries.get(listedAt(action.path, moves))?.kind === "directory") return false;
    for (const path of isMove(action) ? [action.path, action.from] : [action.path])
      for (let dir = listedAt(parentOf(path), moves); dir !== "" && !above.has(dir); dir = parentOf(dir)) above.add(dir);
    if (isMove(action)) moves.push(action);
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

/**
 * What this route brought to a name, and could not note any more, is agreed, where it has gone here meanwhile: else nobody would know whose it is. `any`: there was such a thing; `others`: stagings whose
 * name something else has.
 */
async function claimed(world: World, { scans: { here, there }, tables }: Plan, signal: AbortSignal) {
  const { sides, store, known } = world;
  const others = new Set<string>();
  let any = false;
  for (const [id, staged] of [...store.staged]) {
    const { path, size } = staged.staging;
    const shown = mayBePublished(world, staged, there);
    // What is not to be seen here now may be there still.
    if (here.entries.has(path) || shown === undefined || isUnseen(tables, path)) continue;
    const { bytes, entry } = await sides.there.staged(staged.staging, signal);
    if (entry === undefined ? bytes > 0 : !isTold(entry) || !looksAs(entry, shown)) {
      others.add(id);
      continue;
    }
    // It may be what others brought there, of the same size, and it is long to read: nothing looks as if it were that.
    const { volume, unsynced } = staged;
    const was: Entry = {
      ...{ kind: "file", stamp: { size }, recent: true },
      ...(volume === undefined ? {} : { volume }),
      ...(unsynced === undefined ? {} : { unsynced }),
    };
    await store.change({ agree: [[path, { kind: "file", size, digest: `sha256:unread-${id}`, here: was, there: shown }]] });
    any = true;
  }
  if (any) known?.forget();
  return { any, others };
}

/** It gets its name without an intent: that it has it is known from what was noted of it alone. */
const isNamedUnnoted = ({ table, store }: World, { on, staging, over }: Staged): boolean =>
  table.alone === true && on === "there" && over !== true && !store.base.has(staging.path);

/** What may be what was staged, with the name that it was for, which nobody noted. */
function mayBePublished(world: World, staged: Staged, there: Scan): Entry | undefined {
  const { path, size } = staged.staging;
  const shown = isNamedUnnoted(world, staged) ? there.entries.get(path) : undefined;
  return shown?.kind === "file" && shown.stamp.size === size ? shown : undefined;
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

/** Copies go together, as many as may, and so do notes, and what goes that is as deep: each waits for the journal's medium. Everything else waits for what is before it. Where something is moved the rest waits until it is listed where it is then. */
async function carryAll(
  world: World,
  { actions: planned, scans, digests, taken }: Plan,
  { together, noRoom, named }: Rules,
  held: Held,
  signal: AbortSignal,
) {
  const failed = new Map<string, string>();
  for (const { of, on, error } of held.values()) failed.set(of, `${named[on]}: ${error.message}`);
  const left = new Set<string>();
  const moves: Move[] = [];
  const last = lastMove(planned);
  const actions = last < 0 ? planned : planned.slice(0, last + 1);
  let done = 0;
  /** Of what was tried. */
  let refused = held.size > 0;
  let full: Fault | undefined;
  let passing = [...held.values()].find(({ error }) => error.kind === "transient")?.error;
  let again = false;
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
  /** Where nothing came: what was to be done there would make directories of which nobody knows. */
  const unmoved = new Set<string>();
  /** What was to go elsewhere after that, by where it is now: it does not go to the trash with the directory that it was to leave. */
  let stayed: string[] = [];
  /** What was to come after it is decided anew. */
  const notMoved = ({ from, path }: Move) => {
    unmoved.add(path);
    const agreed = world.store.base.get(from);
    if (agreed !== undefined) world.table.notMoved?.(agreed);
    left.add(path);
  };
  const tops = new Map<string, Promise<boolean>>();
  const spelled = new Map<Side, ReadonlySet<string>>();
  /**
   * What was listed as gone is there: some servers leave out what they cannot look at (OpenSSH all that is in a directory without the right to search it), or end a list early; or it has come back. Where
   * spellings are one another may be what is found.
   */
  const isThere = async (action: Action) => {
    if (action.do !== "remove" || isAtOrBelow(action.path, ownDir)) return false;
    const side = other(action.on);
    const { entries, folds, marked } = scans[side];
    const { path } = action;
    if (!marked || folds !== undefined || entries.has(path)) return false;
    const isOne = async (at: string, how?: { readonly file: true }) =>
      (await world.sides[side].stat(at, signal, how).catch(notRead)) !== undefined;
    // Of a directory that has gone each file would be asked for.
    let top: string | undefined;
    let dir = parentOf(path);
    for (; dir !== "" && !entries.has(dir); dir = parentOf(dir)) top = dir;
    // Not every server says plainly that nothing is below a file.
    if (entries.get(dir)?.kind === "file") return false;
    if (top !== undefined) {
      const key = keyOf(side, top);
      const isTop = tops.get(key) ?? isOne(top);
      tops.set(key, isTop);
      if (!(await isTop)) return false;
    }
    if (!(await isOne(path, world.store.base.get(path)?.kind === "file" ? { file: true } : undefined))) return false;
    // Another file system that is mounted in it may take spellings for one.
    const names = spelled.get(side) ?? new Set([...entries.keys()].map(anySpelling));
    spelled.set(side, names);
    return !names.has(anySpelling(path));
  };
  const still = new Map<Side, Promise<void>>();
  /** Before the first that goes because it has gone there: a disk that went while it was listed looks like that. */
  const stillThere = (side: Side) => {
    const looks = still.get(side) ?? (scans[side].marked ? expectStill(world.sides[side], signal) : Promise.resolve());
    still.set(side, looks);
    return looks;
  };
  const one = async (action: Action) => {
    throwIfAborted(signal);
    const copy = copies.get(action);
    waiting.delete(action);
    if (waits(held, action) !== undefined) return;
    const lacks = namesOf(action).some((name) => isIn(unmoved, name));
    if (lacks || (action.do === "remove" && stayed.some((at) => isAtOrBelow(at, action.path)))) {
      left.add(action.path);
      if (isMove(action)) stayed.push(action.from);
      return;
    }
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
      if (isRemoval(action)) await stillThere(other(action.on));
      const listed = listedOf(isMove(action) ? action.from : action.path);
      const outcome = (await isThere(action)) ? "left" : await carryOut(world, action, listed, signal);
      if (copy !== undefined) noRoom.through(copy);
      if (outcome === "done") {
        done += 1;
        if (isMove(action)) {
          const { from, path } = action;
          moves.push(action);
          stayed = stayed.map((at) => (isAtOrBelow(at, from) ? path + at.slice(from.length) : at));
        }
        return;
      }
      left.add(action.path);
    } catch (error) {
      if (!isFault(error)) throw error;
      const at = action.do === "conflict" ? action.loser : sideOf("on" in action ? action.on : "there", error);
      if (error.kind === "full" && copy !== undefined) {
        full = error;
        const smaller = [...waiting].some((it) => (copies.get(it)?.size ?? Infinity) < copy.size);
        const gone = noRoom.refused(copy, smaller);
        await dropEach(world, ({ id }) => gone.includes(id), signal);
      } else {
        const passes = error.kind === "transient";
        if (!(await isOfPath(error, world.sides[at], signal))) throw error;
        if ("on" in action && ((passes && last >= 0) || isBegun(world, action.path))) {
          // Nobody knows whether it was done: what comes after it would count on it, and be taken for what was begun.
          hold(held, action.path, isMove(action) ? action.from : undefined, at, error);
          if (last >= 0) {
            // A move may count on it: what is to be moved is not brought anew for that.
            again = true;
            return;
          }
        }
        if (passes) passing ??= error;
        if (copy !== undefined) noRoom.through(copy);
      }
      refused = true;
      failed.set(action.path, `${named[at]}: ${error.message}`);
    }
    if (isMove(action)) notMoved(action);
  };
  for (let at = 0; at < actions.length;) {
    let end = at + 1;
    while (end < actions.length && goTogether(actions[at], actions[end])) end += 1;
    const those = actions.slice(at, end);
    const next = async () => {
      for (let action = those.shift(); action !== undefined; action = those.shift()) await one(action);
    };
    await all(Array.from({ length: Math.min(together, those.length) }, next));
    at = end;
  }
  // There is room now.
  if (full === undefined) for (const path of skipped) left.add(path);
  const broke = full ?? passing;
  return { done, left, failed, fits: left.size === 0 && !refused, again, ...(broke === undefined ? {} : { broke }) };
}

/** Whether neither counts on the other, where the second comes after the first. */
function goTogether(one: Action | undefined, two: Action | undefined): boolean {
  if (one === undefined || two === undefined) return false;
  if (one.do === "copy" || one.do === "adopt") return one.do === two.do;
  return isRemoval(one) && isRemoval(two) && depthOf(one.path) === depthOf(two.path);
}

const anySpelling = (path: string) => folded(folded(path, "case and end"), "case and form");

const isRemoval = (action: Action): action is Extract<Action, { do: "remove" | "rmdir" }> =>
  action.do === "remove" || action.do === "rmdir";

const isBegun = ({ store }: World, path: string): boolean => [...store.intents.values()].some((intent) => intent.path === path);

/** For a person. */
export function takenText({ by, goes }: Taken, side: string): string {
  if (by === undefined) return `${side} takes away the dots that a name ends with: it waits until this has another name`;
  return `${side} has ${by}, and takes both names for one: it ${goes ? "comes when that has gone" : "waits until that has gone there, or one of them gets another name"}`;
}

async function dropEach(world: World, unwanted: (staging: Staging) => boolean, signal: AbortSignal): Promise<void> {
  for (const staged of [...world.store.staged.values()]) {
    const { on, staging } = staged;
    if (!unwanted(staging)) continue;
    if (isNamedUnnoted(world, staged)) await world.sides[on].drop(staging, signal);
    else await dropStaged(world, staged, signal);
  }
}

/**
 * What was staged for a content that is not wanted any more. Of what cannot be seen now, and of which no part is there, nobody knows: it may have got its name (`claimed`); nor of what is there, but is
 * not agreed yet: it may go here before that, also where another content is to replace it. What is whole may have both names.
 */
async function dropUnwanted(
  world: World,
  { actions, scans, tables }: Plan,
  held: Held,
  others: ReadonlySet<string>,
  signal: AbortSignal,
): Promise<void> {
  const { sides, store } = world;
  if (store.staged.size === 0) return;
  const wanted = new Set([...copiesOf(world, actions, scans).values()].map(({ id }) => id));
  const adopted = new Set(actions.flatMap((action) => (action.do === "adopt" ? [action.path] : [])));
  for (const [id, staged] of [...store.staged]) {
    const { on, staging } = staged;
    if (wanted.has(id) || adopted.has(staging.path) || isIn(held, staging.path)) continue;
    const mayHaveName = !others.has(id) && mayBePublished(world, staged, scans.there) !== undefined;
    if (mayHaveName || isUnseen(tables, staging.path)) {
      const { bytes } = await sides[on].staged(staging, signal);
      if (bytes === 0 || bytes === staging.size) continue;
    }
    await dropStaged(world, staged, signal);
  }
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
