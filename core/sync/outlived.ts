/**
 * Routes that do not run any more, and kept the same two directories as one that does (it has another mode, or a device another name): what they had agreed is not what was agreed last. Should one come
 * back, what came back meanwhile would count as removed, and what was put back as it was as not changed.
 */
import type { Journal } from "../journal.js";
import type { Side } from "../reconcile.js";
import { all } from "../turns.js";
import type { DeviceReplica } from "./device-replica.js";
import { markKey, ownMemo } from "./journal-store.js";

/** What such routes had agreed is forgotten, durably; what they had begun stays. `running`: by `routeId`, all that are configured. Whether there was any. Throws the Fault of a side. */
export async function forgetOutlived(
  journal: Journal,
  running: ReadonlySet<string>,
  sides: Readonly<Record<Side, Pick<DeviceReplica, "marks">>>,
  signal: AbortSignal,
): Promise<boolean> {
  const known = journal.all<{ route: string }>("SELECT DISTINCT route FROM agreed").map(({ route }) => route);
  const others = known.filter((route) => !running.has(route));
  if (others.length === 0) return false;
  const [here, there] = await all([sides.here.marks(signal), sides.there.marks(signal)]);
  // A mirror that takes nothing away made no mark here.
  const isHere = (route: string) => here.has(route) || ownMemo(journal, route).get(markKey("here")) === undefined;
  const outlived = others.filter((route) => there.has(route) && isHere(route));
  if (outlived.length === 0) return false;
  await journal.commit(() => {
    for (const route of outlived) journal.run("DELETE FROM agreed WHERE route = ?", route);
  });
  return true;
}
