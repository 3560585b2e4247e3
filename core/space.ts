/**
 * Room in the spool: what is delivered goes after its retention, or at once when room is needed; then what waits only for targets that are
 * away and that its source still holds, to be pulled again later. The only copy of a file is never given up.
 */
import { type Engine, nameOf, targets } from "./engine.js";
import { isFault } from "./errors.js";
import type { VersionRow } from "./queue.js";

const stillWaits = "('wanting', 'ready', 'active', 'parked', 'discard')";

/** Gives up spool copies until `version` fits; true when its space is reserved. */
export async function makeRoom(engine: Engine, version: VersionRow): Promise<boolean> {
  const reserve = () => engine.spool.reserve(version.id, version.size, version.durable);
  for (const row of engine.journal.all<VersionRow>(
    `SELECT * FROM versions v WHERE spooled > 0 AND (state = 'sealed' OR state = 'gone')
     AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.version = v.id AND d.state IN ${stillWaits}) ORDER BY sealed_ms LIMIT 1000`,
  )) {
    await giveUp(engine, row, false);
    if (await reserve()) return true;
  }
  const away = targets(engine, false);
  const attached = targets(engine, true);
  const marks = attached.map(() => "?").join(", ");
  const waiting = engine.journal.all<VersionRow>(
    `SELECT * FROM versions v WHERE spooled > 0 AND id <> ?
     AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.version = v.id AND (d.state = 'active' OR (d.state IN ('wanting', 'ready') AND d.target IN (${marks}))))
     ORDER BY found_ms LIMIT 1000`,
    version.id,
    ...attached,
  );
  for (const row of waiting) {
    if (engine.queue.pulling.has(row.id) || !(await sourceHolds(engine, row))) continue;
    await giveUp(engine, row, true);
    engine.events.say(
      "info",
      "given-up",
      `${nameOf(row)}: its copy here makes room; ${row.source} still has it, and it is pulled again when ${away.join(", ") || "its target"} can take it`,
      {
        device: row.source,
        path: row.path,
      },
    );
    if (await reserve()) return true;
  }
  return false;
}

/** Retention: delivered files older than `keep` leave the spool. Does nothing while the clock is not trusted. */
export async function expire(engine: Engine): Promise<void> {
  if (!engine.clock.trusted()) return;
  const before = engine.clock.wallMs() - engine.config.spool.keep;
  for (const row of engine.journal.all<VersionRow>(
    `SELECT * FROM versions v WHERE spooled > 0 AND state IN ('sealed', 'gone') AND COALESCE(sealed_ms, found_ms) < ?
     AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.version = v.id AND d.state IN ${stillWaits}) LIMIT 1000`,
    before,
  ))
    await giveUp(engine, row, false);
}

/** `again`: deliveries still need it, so it goes back to be pulled, as another generation. The journal first: a file without a row is removed at start-up. */
async function giveUp(engine: Engine, version: VersionRow, again: boolean): Promise<void> {
  await engine.journal.commit(() => {
    engine.journal.run("UPDATE versions SET spooled = 0 WHERE id = ?", version.id);
    if (!again) return;
    engine.journal.run("UPDATE versions SET state = 'found', durable = 0, generation = generation + 1 WHERE id = ?", version.id);
    engine.queue.bytesStop(version.id);
  });
  await engine.spool.drop(version.id);
}

/** The source is attached, and still has this very version. */
async function sourceHolds(engine: Engine, version: VersionRow): Promise<boolean> {
  const lane = engine.lanes.get(version.source);
  if (lane?.attached !== true || lane.device.source === undefined || version.state === "gone") return false;
  try {
    const now = await lane.device.source.stat(version.path, AbortSignal.timeout(10_000));
    return (
      now?.size === version.size && (version.modified_ms === null || now.modifiedMs === undefined || now.modifiedMs === version.modified_ms)
    );
  } catch (error) {
    if (isFault(error)) return false;
    throw error;
  }
}
