/**
 * Routes that do not run any more, and kept the same two directories as one that does (it has another mode, or a device another name): what they had agreed is not what was agreed last. Should one come
 * back, what came back meanwhile would count as removed, and what was put back as it was as not changed.
 */
import type { Journal } from "../journal.js";
import type { Side } from "../reconcile.js";
import { all } from "../turns.js";
import type { DeviceReplica } from "./device-replica.js";
import { markKey, ownMemo } from "./journal-store.js";

export interface OutlivedGiven {
  readonly journal: Journal;
  /** By `routeId`, all that are configured. */
  readonly running: ReadonlySet<string>;
  readonly sides: Readonly<Record<Side, Pick<DeviceReplica, "marks">>>;
}

/** One that had begun something, or agreed; `turned`: its sides are the others of this one's. */
export interface Outlived {
  readonly route: string;
  readonly turned: boolean;
}

/** Throws the Fault of a side. */
export async function outlived(
  { journal, running, sides }: OutlivedGiven,
  table: "intents" | "agreed",
  signal: AbortSignal,
): Promise<Outlived[]> {
  const known = journal.all<{ route: string }>(`SELECT DISTINCT route FROM ${table}`).map(({ route }) => route);
  const others = known.filter((route) => !running.has(route));
  if (others.length === 0) return [];
  const [here, there] = await all([sides.here.marks(signal), sides.there.marks(signal)]);
  return others.flatMap((route): Outlived[] => {
    const own = ownMemo(journal, route);
    const markOf = (side: Side) => {
      const mark = own.get(markKey(side));
      return typeof mark === "string" ? `${route}-${mark}` : "";
    };
    const [from, to] = [markOf("here"), markOf("there")];
    // A mirror that takes nothing away made no mark at its source.
    if (there.has(to) && (from === "" || here.has(from))) return [{ route, turned: false }];
    return here.has(to) && there.has(from) ? [{ route, turned: true }] : [];
  });
}

/** Durable; what they had begun stays. */
export function forgetAgreed(journal: Journal, routes: readonly Outlived[]): Promise<void> {
  return journal.commit(() => {
    for (const { route } of routes) journal.run("DELETE FROM agreed WHERE route = ?", route);
  });
}
