/**
 * News for a device of the files that come from it (`Device.news`): that all are safe, that one stays. "safe" is never said too early: not while
 * anything that was found is open or set aside, or anything that was seen still settles.
 */
import { auditTime, filter, merge, tap } from "./rxjs.js";
import type { Engine } from "./engine.js";
import type { Lane } from "./lane.js";
import { elsewhere } from "./rows.js";

const soonMs = 200;

/** Until `stop`. */
export function watchNews(engine: Engine, lane: Lane, stop: AbortSignal): void {
  const { device } = lane;
  const { journal, events, queue, work$ } = engine;
  if (device.news === undefined) return;
  /** One was delivered since it was last said. */
  let delivered = false;
  const parked = () =>
    journal.all<{ id: string; reason: string | null }>(
      `SELECT id, reason FROM deliveries WHERE ${elsewhere} AND state = 'parked' AND required = 1 AND source = ?`,
      lane.name,
    );
  /** Done, and not said yet. */
  const unsaid = () =>
    [...queue.pushing.values()].some(
      ({ delivery }) => delivery.source === lane.name && delivery.required === 1 && delivery.state !== "discard",
    );
  const open = () =>
    unsaid() ||
    journal.get(
      "SELECT 1 FROM deliveries WHERE source = ? AND required = 1 AND state IN ('wanting', 'ready', 'active') LIMIT 1",
      lane.name,
    ) !== undefined;
  // What an earlier run set aside is not said again.
  const told = new Set(parked().map(({ id }) => id));
  const mine$ = events.all$.pipe(
    filter(({ facts }) => facts?.["from"] === lane.name || facts?.["device"] === lane.name),
    tap(({ what }) => (delivered ||= what === "delivered")),
  );
  const watching = merge(work$, mine$)
    .pipe(auditTime(soonMs))
    .subscribe(() => {
      if (journal.failed) return;
      const now = parked();
      for (const id of told) if (!now.some((one) => one.id === id)) told.delete(id);
      for (const { id, reason } of now) {
        if (told.has(id)) continue;
        told.add(id);
        device.news?.({ what: "parked", reason: reason ?? "" });
      }
      const finder = engine.finders.get(lane.name);
      const settled = finder !== undefined && finder.listings > 0 && finder.unsettled === 0 && !finder.busy;
      if (!delivered || !settled || open() || now.length > 0) return;
      delivered = false;
      device.news?.({ what: "safe" });
    });
  if (stop.aborted) watching.unsubscribe();
  else stop.addEventListener("abort", () => watching.unsubscribe(), { once: true });
}
