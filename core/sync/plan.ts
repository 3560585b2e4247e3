/** What a round of a mirror or two-way route would do now: both sides are listed, and the table is asked. */
import { isDeepStrictEqual } from "node:util";
import { isFault, throwIfAborted } from "../errors.js";
import { type Taken, takenOtherwise } from "../folded.js";
import { isAtOrBelow } from "../paths.js";
import type { Digest } from "../plugin.js";
import {
  type Action,
  bothSides,
  type Content,
  type Contents,
  isMove,
  isUnseen,
  lastMove,
  type Move,
  other,
  type Side,
  type Tables,
} from "../reconcile.js";
import { ownDir } from "../route.js";
import { all, Turns } from "../turns.js";
import { keyOf, looksAs, type World } from "./carry.js";
import { type Held, isIn, namesOf, waits, whyIn } from "./held.js";
import { type Hidden, hiddenAt } from "./hidden.js";
import { type Entry, isOfPath, type Replica, type Scan } from "./replica.js";
import type { Agreed } from "./store.js";

const askedAtOnce = 8;

export type Planning = Pick<World, "sides" | "table" | "known" | "learned"> & { readonly store: Pick<World["store"], "base"> };

export type Scans = Readonly<Record<Side, Scan>>;

export interface Plan {
  readonly actions: readonly Action[];
  readonly tables: Tables;
  readonly scans: Scans;
  /** Each file's content that is known, by `keyOf`. */
  readonly digests: ReadonlyMap<string, Digest>;
  /** What is to be agreed instead, whatever is done: a side shows the same content otherwise now, or that thing has another name. */
  readonly shown: readonly (readonly [string, Agreed])[];
  /** Files whose content would decide, and that cannot be read: left as they are, with the reason. */
  readonly unread: Readonly<Record<Side, ReadonlyMap<string, string>>>;
  /** What was agreed and is hidden at a side, on a file system that is not to be seen there: it is left as it is. */
  readonly hidden: Readonly<Record<Side, readonly string[]>>;
  /** What was agreed and could not be synced, and the medium of that side has lost: it is to be forgotten, so that it stays at the other side. */
  readonly lost: ReadonlyMap<string, Side>;
  /** The other side was not listed: `known`. */
  readonly unlisted: boolean;
  /** Actions that cannot be done, as the side has the name in another spelling. */
  readonly taken: ReadonlyMap<Action, Taken>;
}

/** What a round would do now, and nothing with what is held: what waits for that is held too. Reads contents where they decide; changes nothing. */
export async function planned(
  { sides, store, table, known, learned }: Planning,
  signal: AbortSignal,
  held: Held = new Map(),
): Promise<Plan> {
  const unlisted = known?.scan(store.base);
  const [here, listed] = await Promise.all([sides.here.scan(signal), unlisted ?? sides.there.scan(signal)]);
  const there = table.alone === true && unlisted === undefined ? await withHidden(listed, here, sides.there, store.base, signal) : listed;
  const shown = { here, there };
  const hidden = { here: hiddenAt("here", shown, store.base), there: hiddenAt("there", shown, store.base) };
  const scans = { here: withUnseen(here, hidden.here), there: withUnseen(there, hidden.there) };
  const digests = new Map<string, Digest>();
  const outdated = table.alone === true ? outdatedNames(store.base, here) : new Map<string, Agreed>();
  const agreed = outdated.size === 0 ? store.base : new Map([...store.base, ...outdated]);
  const named = identified(agreed);
  for (const side of bothSides)
    for (const [path, entry] of scans[side].entries)
      for (const it of [agreed.get(path), entry.identity === undefined || side === "there" ? undefined : named.get(entry.identity)])
        if (it?.digest !== undefined && it[side].recent !== true && looksAs(entry, it[side])) {
          digests.set(keyOf(side, path), it.digest);
          break;
        }
  for (const [key, { side, path, of, digest }] of learned ?? [])
    if (digests.has(key) || !isDeepStrictEqual(scans[side].entries.get(path), of)) learned?.delete(key);
    else digests.set(key, digest);
  /** Others were at work there while they were read. */
  const changing = new Set<string>();
  const unread = { here: new Map<string, string>(), there: new Map<string, string>() };
  const unseen = (side: Side, path: string) =>
    changing.has(path) ||
    bothSides.some((it) => unread[it].has(path)) ||
    scans[side].settling.has(path) ||
    isIn(held, path) ||
    isIn(scans[side].unseen, path);
  const lost = lostBy(store.base, scans);
  const base = new Map(
    [...agreed].flatMap(([path, { kind, size, digest, here: was }]) =>
      lost.has(path) ? [] : [[path, contentOf(kind, size, digest, was.identity)] as const],
    ),
  );
  const folding = new Map(bothSides.flatMap((side) => (scans[side].folds === undefined ? [] : [[side, scans[side].folds] as const])));
  for (;;) {
    if (table.alone === true && held.size + changing.size > 0) {
      const renamed = renamedHere(agreed, here);
      waitTogether(
        renamed,
        (path) => whyIn(held, path),
        (path, why) => held.set(path, why),
      );
      waitTogether(
        renamed,
        (path) => changing.has(path) || undefined,
        (path) => changing.add(path),
      );
    }
    const tables: Tables = {
      ...{ base, here: contentsOf(here, "here", digests), there: contentsOf(there, "there", digests), unseen, folding },
      ...(there.others === undefined ? {} : { others: there.others }),
    };
    const actions = table.actions(tables);
    if (spread(held, actions, (path) => store.base.has(path) || bothSides.some((side) => scans[side].entries.has(path)))) continue;
    const moves = actions.filter(isMove);
    const questions = actions.flatMap(({ path, ...action }) =>
      action.do === "learn" ? action.sides.map((side) => ({ side, path: side === "there" ? listedAt(path, moves) : path })) : [],
    );
    if (questions.length === 0)
      return {
        ...{ actions, tables, scans, digests, unread, lost, unlisted: unlisted !== undefined },
        hidden: { here: hidden.here.paths, there: hidden.there.paths },
        taken: takenOtherwise(
          actions,
          Object.fromEntries([...folding].map(([side, how]) => [side, { contents: allShown(tables[side], scans[side]), folding: how }])),
        ),
        shown: [...outdated, ...(lastMove(actions) < 0 ? shownAnew(agreed, scans, digests, tables) : [])],
      };
    for (const { side, path } of questions) {
      const entry = scans[side].entries.get(path);
      if (entry === undefined) throw new Error("only what was listed is to be learned");
      try {
        const [key, digest] = [keyOf(side, path), await sides[side].digest(path, entry, signal)];
        digests.set(key, digest);
        if (entry.recent !== true) learned?.set(key, { side, path, of: entry, digest });
      } catch (error) {
        if (error instanceof Error && (await isOfPath(error, sides[side], signal))) unread[side].set(path, error.message);
        else if (isFault(error, "changed", "missing")) changing.add(path);
        else throw error;
      }
      throwIfAborted(signal);
    }
  }
}

/** What was agreed with `unsynced`, or below that, where its medium lost it: it is gone, shorter, older, or in a directory of another identity, and is there under no other name. */
function lostBy(base: ReadonlyMap<string, Agreed>, scans: Scans): Map<string, Side> {
  const lost = new Map<string, Side>();
  for (const side of bothSides) {
    const flagged = [...base].filter(([, agreed]) => agreed[side].unsynced !== undefined);
    if (flagged.length === 0) continue;
    const { entries } = scans[side];
    const named = byIdentity(entries.values(), (entry) => entry);
    const isLess = (now: Entry | undefined, agreed: Agreed) => {
      if (now?.kind !== agreed.kind) return true;
      if (now.kind === "directory") return false;
      const { modifiedMs = Infinity } = now.stamp;
      return now.stamp.size < agreed.size || modifiedMs < (agreed[side].stamp.modifiedMs ?? -Infinity);
    };
    const isElsewhere = (agreed: Agreed) => named.get(agreed[side].identity ?? "")?.some((entry) => !isLess(entry, agreed)) === true;
    const isTop = ([path, agreed]: readonly [string, Agreed]) => {
      const now = entries.get(path);
      const isAnother = now?.kind === "directory" && now.identity !== agreed[side].identity;
      return (isAnother || isLess(now, agreed)) && !isElsewhere(agreed);
    };
    const tops = new Set(flagged.filter(isTop).map(([path]) => path));
    if (tops.size === 0) continue;
    const isUnseen = (path: string) => scans[side].settling.has(path) || isIn(scans[side].unseen, path);
    for (const [path, agreed] of base)
      if (
        isIn(tops, path) &&
        isLess(entries.get(path), agreed) &&
        !isElsewhere(agreed) &&
        !isUnseen(path) &&
        scans[other(side)].entries.has(path)
      )
        lost.set(path, side);
  }
  return lost;
}

/** Some servers do not list all that they have (nginx: names that begin with a dot): what was agreed would be brought anew at each listing. */
async function withHidden(there: Scan, here: Scan, side: Replica, base: ReadonlyMap<string, Agreed>, signal: AbortSignal): Promise<Scan> {
  // Another spelling would answer. What is not here may be what the route leaves out by now.
  if (!there.marked || there.folds !== undefined) return there;
  const missing = [...base].filter(
    ([path]) => here.entries.has(path) && !there.entries.has(path) && !there.settling.has(path) && !isIn(there.unseen, path),
  );
  if (missing.length === 0) return there;
  const entries = new Map(there.entries);
  const turns = new Turns(askedAtOnce);
  const ask = async (path: string, agreed: Agreed) => {
    try {
      const shown = await side.stat(path, signal);
      if (shown !== undefined && looksAs(shown, agreed.there)) entries.set(path, shown);
    } catch (error) {
      if (!(await isOfPath(error, side, signal))) throw error;
    }
  };
  await all(missing.map(([path, agreed]) => turns.run(signal, () => ask(path, agreed))));
  return { ...there, entries };
}

/** What was agreed under one name, and has another one here now. */
function renamedHere(base: ReadonlyMap<string, Agreed>, here: Scan): (readonly [string, string])[] {
  const isSame = (path: string, identity: string) =>
    base.get(path)?.here.identity === identity && here.entries.get(path)?.identity === identity;
  const elsewhere = new Map<string, string>();
  for (const [path, { identity }] of here.entries) if (identity !== undefined && !isSame(path, identity)) elsewhere.set(identity, path);
  return [...base].flatMap(([path, { here: was }]) => {
    const { identity } = was;
    const to = identity === undefined || isSame(path, identity) ? undefined : elsewhere.get(identity);
    return to === undefined ? [] : [[path, to] as const];
  });
}

/** Where people gave what waits another name, or its name to something else, that waits too: it would be brought anew. */
function waitTogether<W>(
  renamed: readonly (readonly [string, string])[],
  why: (path: string) => W | undefined,
  wait: (path: string, why: W) => void,
): void {
  for (let any = true; any;) {
    any = false;
    for (const pair of renamed) {
      const [one, two] = pair.map(why);
      const cause = one ?? two;
      if (cause === undefined || (one !== undefined && two !== undefined)) continue;
      wait(pair[one === undefined ? 0 : 1], cause);
      any = true;
    }
  }
}

/** Holds what waits for what is held, by where it is listed; false: that was held already. What is not listed (a name for a moment) may be another the next time. */
function spread(held: Held, actions: readonly Action[], isListed: (path: string) => boolean): boolean {
  const { size } = held;
  if (size === 0) return false;
  const all: Held = new Map(held);
  const moves: Move[] = [];
  for (const action of actions) {
    const why = waits(all, action);
    if (why !== undefined)
      for (const name of namesOf(action))
        for (const path of [name, listedAt(name, moves)]) if (isListed(path) && !isIn(held, path)) held.set(path, why);
    if (isMove(action)) moves.push(action);
  }
  return held.size > size;
}

/**
 * What could not get a thing's new name was brought anew under that, and stays under the old one where nothing is deleted: it is not that thing any more, and must not be moved for it later.
 * Of the names that were agreed for one thing as many are it as it has names here (hard links): those that it has still, then those whose content it has, then the latest; which of equals, is
 * for the table to say.
 */
function outdatedNames(base: ReadonlyMap<string, Agreed>, { entries }: Scan): Map<string, Agreed> {
  const outdated = new Map<string, Agreed>();
  const several = [...byIdentity(base, ([, { here }]) => here)].filter(([, names]) => names.length > 1);
  if (several.length === 0) return outdated;
  const now = byIdentity(entries.values(), (entry) => entry);
  for (const [identity, names] of several) {
    const things = now.get(identity) ?? [];
    if (things.length === 0 || names.length <= things.length) continue;
    const ranks = names.map(([path, { here }]) => {
      if (entries.get(path)?.identity === identity) return Infinity;
      return things.some((entry) => looksAs(entry, here)) ? Number.MAX_VALUE : (here.stamp.modifiedMs ?? 0);
    });
    const least = [...ranks].sort((one, two) => two - one)[things.length - 1] ?? 0;
    for (const [n, [path, it]] of names.entries()) {
      const { identity: _, unsynced: __, ...here } = it.here;
      if ((ranks[n] ?? 0) < least) outdated.set(path, { ...it, here });
    }
  }
  return outdated;
}

function byIdentity<T>(all: Iterable<T>, entryOf: (one: T) => Entry): Map<string, T[]> {
  const found = new Map<string, T[]>();
  for (const one of all) {
    const { identity } = entryOf(one);
    if (identity === undefined) continue;
    const those = found.get(identity);
    if (those === undefined) found.set(identity, [one]);
    else those.push(one);
  }
  return found;
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

/** Also what is not to be touched now, and what is the program's own: nothing comes into that by another spelling. */
function allShown(contents: Contents, { settling, unseen }: Scan): Contents {
  const more = [ownDir, ...settling, ...unseen.keys()];
  return new Map([...contents, ...more.map((path) => [path, contents.get(path) ?? untouched] as const)]);
}

const untouched: Content = { kind: "directory" };

/** Rows 10 whose files had to be read: they do not have to be the next time. And what could not be synced. */
function shownAnew(
  base: ReadonlyMap<string, Agreed>,
  { here, there }: Scans,
  digests: ReadonlyMap<string, Digest>,
  tables: Tables,
): (readonly [string, Agreed])[] {
  return [...base].flatMap(([path, agreed]) => {
    if (isUnseen(tables, path)) return [];
    const [one, two] = [here.entries.get(path), there.entries.get(path)];
    if (agreed.kind === "directory" && one?.kind === "directory" && two?.kind === "directory")
      return isNamedAs(one, agreed.here) && two.volume === agreed.there.volume && !isUnsynced(agreed)
        ? []
        : [[path, { ...agreed, here: one, there: two }] as const];
    const same = bothSides.every((side) => digests.get(keyOf(side, path)) === agreed.digest);
    if (agreed.digest === undefined || !same || one?.kind !== "file" || two?.kind !== "file") return [];
    const changed =
      !looksAs(one, agreed.here) ||
      !looksAs(two, agreed.there) ||
      one.recent !== agreed.here.recent ||
      two.recent !== agreed.there.recent ||
      !isNamedAs(one, agreed.here) ||
      two.volume !== agreed.there.volume ||
      isUnsynced(agreed);
    return changed ? [[path, { ...agreed, here: one, there: two }] as const] : [];
  });
}

const isUnsynced = ({ here, there }: Agreed) => here.unsynced !== undefined || there.unsynced !== undefined;

const isNamedAs = (one: Entry, two: Entry) => one.identity === two.identity && one.volume === two.volume;

const withUnseen = (scan: Scan, { unseen }: Hidden): Scan =>
  unseen.size === 0 ? scan : { ...scan, unseen: new Map([...scan.unseen, ...unseen]) };

function contentsOf({ entries }: Scan, side: Side, digests: ReadonlyMap<string, Digest>): Map<string, Content> {
  return new Map(
    [...entries].map(([path, { kind, stamp, identity }]) => [path, contentOf(kind, stamp.size, digests.get(keyOf(side, path)), identity)]),
  );
}

function contentOf(kind: "file" | "directory", size: number, digest: Digest | undefined, identity: string | undefined): Content {
  const named = identity === undefined ? {} : { identity };
  return kind === "directory" ? { kind, ...named } : { kind, size, ...named, ...(digest === undefined ? {} : { digest }) };
}
