/** What keeps a route from taking away what nobody wanted to lose. Pure. */
import type { Action, Side } from "../reconcile.js";

export interface MaxDeletes {
  /** At most this share of what is agreed, 0 to 1, and at least so many. */
  readonly share: number;
  readonly least: number;
}

/** Why it is not done by itself: one line for a person; undefined: it may be done. `agreed`: paths of the base; `moved`: removals whose content comes under another name in the same plan. `named`: the sides, as people know them. */
export function objection(
  actions: readonly Action[],
  agreed: number,
  { share, least }: MaxDeletes,
  moved: ReadonlySet<string>,
  named: Readonly<Record<Side, string>>,
): string | undefined {
  for (const side of ["here", "there"] as const) {
    const gone = actions.filter(
      (action) => (action.do === "remove" || action.do === "rmdir") && action.on === side && !moved.has(action.path),
    );
    const most = Math.max(least, Math.floor(agreed * share));
    const where = `at ${named[side]}`;
    if (gone.length > 0 && gone.length >= agreed && agreed > 1) return `everything (${agreed} of ${agreed}) would be removed ${where}`;
    if (gone.length > most) return `${gone.length} of ${agreed} would be removed ${where}, and without being asked at most ${most} are`;
  }
  return undefined;
}
