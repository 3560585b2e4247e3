/**
 * File systems that are mounted inside a side's directory: what was agreed on one counts as gone only where that one shows it gone. Else it is hidden: its file system is not mounted, or another
 * one is mounted over it. Pure.
 */
import { parentOf } from "../paths.js";
import { other, type Side } from "../reconcile.js";
import { isIn } from "./held.js";
import type { Scans } from "./plan.js";
import type { Agreed } from "./store.js";

export interface Hidden {
  /** What was agreed and is not to be seen. */
  readonly paths: readonly string[];
  /** Where nothing counts as absent because of that: path → reason, for a person. */
  readonly unseen: ReadonlyMap<string, string>;
}

/** What the other side has no more either may be forgotten. */
export function hiddenAt(side: Side, scans: Scans, base: ReadonlyMap<string, Agreed>): Hidden {
  const { entries, settling, unseen } = scans[side];
  const others = scans[other(side)];
  const paths: string[] = [];
  const at = new Map<string, string>();
  const topOf = (path: string, isStill: (dir: string) => boolean) => {
    let top = path;
    for (let dir = parentOf(path); dir !== "" && isStill(dir); dir = parentOf(dir)) top = dir;
    return top;
  };
  for (const [path, agreed] of base) {
    if (entries.has(path) || settling.has(path) || isIn(unseen, path) || !others.entries.has(path)) continue;
    const missing = topOf(path, (dir) => !entries.has(dir));
    const { volume } = agreed[side];
    if (volume === entries.get(parentOf(missing))?.volume) continue;
    paths.push(path);
    const begins = topOf(path, (dir) => base.get(dir)?.[side].volume === volume);
    const isMounted = entries.get(begins)?.volume !== entries.get(parentOf(begins))?.volume;
    if (volume !== undefined && !isMounted) at.set(begins, notMounted);
    else at.set(missing, otherMounted);
  }
  return { paths, unseen: at };
}

const whatNext =
  'nothing of it counts as removed; if it does not come back, "filesync approve" of this route forgets it, and removes nothing';
const notMounted = `the file system that was mounted here is not: ${whatNext}`;
const otherMounted = `it was on another file system than the one that is mounted there now: ${whatNext}`;
