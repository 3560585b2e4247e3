/** Why a round does nothing until a person has looked: a root is not the directory that was agreed with, or too much would be removed. */
import { isFault } from "../errors.js";
import type { Digest } from "../plugin.js";
import { bothSides, other, type Side } from "../reconcile.js";
import { shortHash } from "../route.js";
import { keyOf, looksAs } from "./carry.js";
import { goneAt, type MaxDeletes, objection } from "./guard.js";
import { type Plan, planned, type Planning, type Scans } from "./plan.js";
import { isOfPath, type Scan } from "./replica.js";
import type { Agreed } from "./store.js";

export interface Guards {
  /** undefined: as much as may be. */
  readonly maxDeletes: MaxDeletes | undefined;
  /** Of what was agreed, what a person said may be removed, this time. */
  readonly approved?: ReadonlySet<Agreed> | undefined;
  /** Whether a person said that what is hidden at a side may be forgotten. */
  readonly forgets: (hidden: Stopped) => boolean;
  /** Where another directory than the one that was agreed with will do: then what was agreed is forgotten (but for `stillAgreed`), and nothing is removed. */
  readonly anew: readonly Side[];
  /** No mark was ever made at this side: it is known by what it shows. */
  readonly neverMarked: (side: Side) => boolean;
  /** The sides, as people know them. */
  readonly named: Readonly<Record<Side, string>>;
}

interface Asked {
  /** What would be removed, with its side. */
  readonly paths?: readonly string[];
  /** The same as it was agreed, which it is under another name too. */
  readonly gone?: readonly Agreed[];
  /** Sides that are not the directory that was agreed with. */
  readonly strange?: readonly Side[];
  /** It stops nothing: what is hidden would be forgotten. */
  readonly hidden?: readonly string[];
}

/** What a person is asked: nothing was done, but for what `hidden` says. */
export class Stopped extends Error {
  /** The same only for the same reason and the same paths. */
  readonly id: string;
  readonly gone: ReadonlySet<Agreed>;
  readonly strange: readonly Side[];
  readonly paths: ReadonlySet<string>;
  readonly hidden: ReadonlySet<string>;

  constructor(message: string, { paths = [], gone = [], strange = [], hidden = [] }: Asked) {
    super(message);
    this.id = shortHash(message, ...paths, ...hidden);
    this.paths = new Set(paths);
    this.gone = new Set(gone);
    this.strange = strange;
    this.hidden = new Set(hidden);
  }

  /** Whoever said yes to this said it to all of that. */
  covers({ paths, gone, strange, hidden }: Stopped): boolean {
    return (
      [...paths].every((path) => this.paths.has(path)) &&
      [...gone].every((agreed) => this.gone.has(agreed)) &&
      strange.every((side) => this.strange.includes(side)) &&
      [...hidden].every((path) => this.hidden.has(path))
    );
  }
}

/** Why a round would do nothing now; undefined: it would. Changes nothing. */
export async function stopOf(world: Planning, rules: Guards, signal: AbortSignal): Promise<Stopped | undefined> {
  const plan = await planned(world, signal);
  return stopIn(world, plan, strangeIn(plan.scans, world.store.base, rules.neverMarked), rules, signal);
}

/** The same of a plan that is known, and of what `strangeIn` found in it. */
export async function stopIn(
  world: Planning,
  plan: Plan,
  strange: readonly Side[],
  rules: Guards,
  signal: AbortSignal,
): Promise<Stopped | undefined> {
  const asked = strange.find((side) => !rules.anew.includes(side));
  if (asked !== undefined) return strangeRoot(asked, rules, strange);
  // Where it is begun anew nothing is removed.
  if (strange.length > 0) return undefined;
  return (await tooMuch(world, plan, rules, signal)) ?? hiddenIn(plan, rules.named);
}

/** Of what is hidden at a side a person may say that it does not come back. */
export function hiddenIn({ hidden }: Pick<Plan, "hidden">, named: Guards["named"]): Stopped | undefined {
  const paths = bothSides.flatMap((side) => [...hidden[side]].sort().map((path) => `${side} ${path}`));
  if (paths.length === 0) return undefined;
  const where = bothSides.filter((side) => hidden[side].length > 0).map((side) => named[side]);
  return new Stopped(
    `${paths.length} of what was agreed ${paths.length === 1 ? "is" : "are"} on a file system that is not mounted in ${where.join(" and ")}`,
    { hidden: paths },
  );
}

/** Why a round would not do that plan, of the directories that were agreed with: too much would be removed. */
export async function tooMuch(
  { sides, store }: Planning,
  plan: Plan,
  { maxDeletes, approved, named }: Pick<Guards, "maxDeletes" | "approved" | "named">,
  signal: AbortSignal,
): Promise<Stopped | undefined> {
  if (maxDeletes === undefined) return undefined;
  const { actions } = plan;
  const { base } = store;
  const against = (but: ReadonlySet<string>) => objection(actions, base, maxDeletes, but, named);
  const known = new Set(approved === undefined ? [] : [...base].flatMap(([path, agreed]) => (approved.has(agreed) ? [path] : [])));
  if (against(known) === undefined) return undefined;
  // Only where it matters new files are read to see whether they are old ones.
  const moved = await movedIn({ sides, store }, plan, signal);
  // What was approved before is told with the rest.
  const text = against(new Set([...known, ...moved])) === undefined ? undefined : against(moved);
  if (text === undefined) return undefined;
  const gone = bothSides.flatMap((side) =>
    goneAt(side, actions, base)
      .sort()
      .map((path) => ({ side, path })),
  );
  return new Stopped(text, {
    paths: gone.map(({ side, path }) => `${side} ${path}`),
    gone: gone.flatMap(({ path }) => base.get(path) ?? []),
  });
}

/** In words for a person. */
export function strangeText(name: string, neverMarked: boolean): string {
  return neverMarked
    ? `the directory of ${name} does not hold most of what was agreed any more: it is not mounted, or most of it was removed`
    : `the directory of ${name} is not the one that was agreed with: it is not mounted, or was made anew`;
}

export function strangeRoot(side: Side, { named, neverMarked }: Guards, strange: readonly Side[] = [side]): Stopped {
  return new Stopped(strangeText(named[side], neverMarked(side)), { strange });
}

type Base = ReadonlyMap<string, Agreed>;

/**
 * The sides that are not the directory that was agreed with: they have not the mark. A side that never had one (a mirror without "deletes" makes none at its source) is that directory
 * where it shows more than half of what was agreed and is at the other side: an empty mount point and another card do not, and what is removed of the rest has its own guard (`maxDeletes`).
 */
export function strangeIn(scans: Scans, base: Base, neverMarked: Guards["neverMarked"]): Side[] {
  const showsMost = (side: Side) => {
    const held = [...base].filter(([path]) => scans[other(side)].entries.has(path));
    return held.filter(([path, agreed]) => shows(scans[side], side, path, agreed)).length * 2 > held.length;
  };
  return base.size === 0 ? [] : bothSides.filter((side) => !scans[side].marked && !(neverMarked(side) && showsMost(side)));
}

/** What need not be forgotten where such sides are begun with anew: no mark says that it is another directory, and it shows that. */
export function stillAgreed(strange: readonly Side[], scans: Scans, base: Base, neverMarked: Guards["neverMarked"]): Map<string, Agreed> {
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
      // It is written just now: then it is no old one. Nor is what cannot be read.
      if (!isFault(error, "changed", "missing") && !(await isOfPath(error, sides[from], signal))) throw error;
    }
  }
  return new Set(gone.filter(({ digest }) => come.has(digest)).map(({ path }) => path));
}
