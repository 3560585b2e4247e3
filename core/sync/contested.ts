/** What others change at a mirror's target again and again: most often that is another mirror into the same directory, and each undoes the other without end. */
import { isDeepStrictEqual } from "node:util";
import type { Stamp } from "../plugin.js";
import { same } from "../reconcile.js";
import type { Plan } from "./plan.js";

/** A person who edits there does so now and then. */
const tolerated = 2;
/** More of them say nothing more. */
const mostTold = 5;

export class Contested {
  #told = 0;
  readonly #seen = new Map<string, { readonly stamp: Stamp; readonly times: number }>();

  /** The paths of a round of which it is to be told now: each once. */
  note({ actions, tables: { base, here }, scans, unlisted }: Pick<Plan, "actions" | "tables" | "scans" | "unlisted">): string[] {
    if (unlisted) return [];
    return actions.flatMap((action) => {
      const { path } = action;
      const [agreed, there] = [base.get(path), scans.there.entries.get(path)];
      const isOthers = action.do === "copy" && action.over && agreed?.kind === "file" && same(agreed, here.get(path)) !== false;
      if (!isOthers || there === undefined) return [];
      const last = this.#seen.get(path);
      // Nobody has changed it since: what is to go over it has not got there yet.
      if (last !== undefined && isDeepStrictEqual(last.stamp, there.stamp)) return [];
      const times = (last?.times ?? 0) + 1;
      this.#seen.set(path, { stamp: there.stamp, times });
      return times === tolerated + 1 && this.#told++ < mostTold ? [path] : [];
    });
  }
}
