/** What keeps a route from taking away what nobody wanted to lose. Pure. */
import { isAtOrBelow, parentOf } from "../paths.js";
import { type Action, bothSides, isMove, lastMove, type Side } from "../reconcile.js";

export interface MaxDeletes {
  /** At most this share of what is agreed, 0 to 1, and at least so many. */
  readonly share: number;
  readonly least: number;
}

/**
 * Why it is not done by itself: one line for a person; undefined: it may be done. `moved`: paths whose content comes under another name in the same plan.
 * `named`: the sides, as people know them.
 */
export function objection(
  actions: readonly Action[],
  base: ReadonlyMap<string, unknown>,
  { share, least }: MaxDeletes,
  moved: ReadonlySet<string>,
  named: Readonly<Record<Side, string>>,
): string | undefined {
  const agreed = base.size;
  for (const side of bothSides) {
    const gone = goneAt(side, actions, base).filter((path) => !moved.has(path));
    const most = Math.max(least, Math.floor(agreed * share));
    const where = `at ${named[side]}`;
    if (gone.length > 0 && gone.length >= agreed && agreed > 1) return `everything (${agreed} of ${agreed}) would be removed ${where}`;
    if (gone.length > most) return `${gone.length} of ${agreed} would be removed ${where}, and without being asked at most ${most} are`;
  }
  return undefined;
}

/** What would be removed at a side of what was agreed: a directory goes with all that is in it by then. */
export function goneAt(side: Side, actions: readonly Action[], base: ReadonlyMap<string, unknown>): string[] {
  const removes = (action: Action) => (action.do === "remove" || action.do === "rmdir") && action.on === side;
  const moves = lastMove(actions);
  const removed = new Set(actions.slice(moves + 1).flatMap((action) => (removes(action) ? [action.path] : [])));
  const before = actions.slice(0, moves + 1);
  if (removed.size === 0 && !before.some(removes)) return [];
  // What only gets another content keeps its name.
  const put = new Set(
    actions.flatMap((action) => ((action.do === "mkdir" || action.do === "copy") && action.on === side ? [action.path] : [])),
  );
  const isRemoved = (path: string): boolean => path !== "" && (removed.has(path) || isRemoved(parentOf(path)));
  return [...base.keys()].filter((path) => {
    let at = path;
    for (const action of before)
      if (removes(action) && isAtOrBelow(at, action.path)) return true;
      else if (isMove(action) && isAtOrBelow(at, action.from)) at = action.path + at.slice(action.from.length);
    return !put.has(at) && isRemoved(at);
  });
}
