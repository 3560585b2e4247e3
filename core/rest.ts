/**
 * Rest: a device that can be taken out is told when nothing more is wanted of it: all that it has is here or delivered, nothing is to be deleted or
 * archived on it, nothing is being sent to it, and a mirror or two-way route found both sides the same since it came.
 */
import { auditTime, filter, merge } from "./rxjs.js";
import type { Engine } from "./engine.js";
import type { Lane } from "./lane.js";
import { elsewhere } from "./rows.js";
import { nameOf, type SyncConfig } from "./sync/options.js";

const soonMs = 200;

/** Until `stop`. */
export function watchRest(engine: Engine, lane: Lane, stop: AbortSignal): void {
  const { device } = lane;
  if (device.rest === undefined) return;
  const listed$ = engine.events.all$.pipe(
    filter(({ what, facts }) => (what === "listed" || what === "found") && facts?.["device"] === lane.name),
  );
  const watching = merge(lane.wake$, engine.work$, listed$)
    .pipe(auditTime(soonMs))
    .subscribe(() => {
      if (!engine.journal.failed && lane.attached && !isWanted(engine, lane)) device.rest?.(leftOn(engine, lane));
    });
  if (stop.aborted) watching.unsubscribe();
  else stop.addEventListener("abort", () => watching.unsubscribe(), { once: true });
}

function isWanted({ config, syncs, journal, queue, finders }: Engine, lane: Lane): boolean {
  const follows = ({ from, to }: SyncConfig): boolean => from === lane.name || to === lane.name;
  if (config.syncs.some((sync) => follows(sync) && syncs.get(nameOf(sync))?.isDoneWith(lane) !== true)) return true;
  const finder = finders.get(lane.name);
  if (finder !== undefined && (finder.listings === 0 || finder.busy || finder.failures > 0)) return true;
  if (lane.busy > 0) return true;
  if (queue.isSending(lane.name)) return true;
  for (const [id, { source }] of queue.releasable) if (source === lane.name && lane.holds(queue.version(id)?.medium ?? "")) return true;
  // Read to its end, and not durable here yet.
  for (const id of queue.pulling.keys()) if (queue.version(id)?.source === lane.name) return true;
  return lane.media.some(
    (medium) =>
      journal.get("SELECT 1 FROM deliveries WHERE source = ? AND medium = ? AND state = 'wanting' LIMIT 1", lane.name, medium) !==
        undefined ||
      // Read at the source while they are sent: of these only those that are not sealed are open.
      journal.get(
        `SELECT 1 FROM versions v WHERE v.source = ? AND v.state = 'found' AND v.store <> 'spool' AND v.medium = ?
         AND EXISTS (SELECT 1 FROM deliveries d WHERE d.version = v.id AND d.state IN ('ready', 'active')) LIMIT 1`,
        lane.name,
        medium,
      ) !== undefined,
  );
}

/** What is on it and could not be had, for a person; undefined: nothing. */
function leftOn({ config, syncs, journal, finders }: Engine, lane: Lane): string | undefined {
  const parked = lane.media.reduce((sum, medium) => sum + (journal.get<{ n: number }>(parkedOn, lane.name, medium)?.n ?? 0), 0);
  const unread = finders.get(lane.name)?.leftOut?.paths ?? 0;
  const left = config.syncs.filter(({ from }) => from === lane.name).flatMap((sync) => syncs.get(nameOf(sync))?.leftText ?? []);
  const texts = [
    ...(parked === 0 ? [] : [`${parked} ${parked === 1 ? "file is" : "files are"} set aside`]),
    ...(unread === 0 ? [] : [`${unread} ${unread === 1 ? "path" : "paths"} could not be read`]),
    ...left,
  ];
  return texts.length === 0 ? undefined : texts.join("; ");
}

/** Those of which the spool has all do not count. */
const parkedOn = `SELECT COUNT(DISTINCT d.version) AS n FROM deliveries d JOIN versions v ON v.id = d.version
  WHERE d.${elsewhere} AND d.state = 'parked' AND d.source = ? AND d.medium = ? AND v.state = 'found'`;
