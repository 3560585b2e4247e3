/**
 * What was whole once, of which no copy is here any more (it made room, as its source had it still), and whose place there another file took before every target had it. Whether that grew from it
 * is known at once where it is too short for that, else once it has been read; until then nothing is said, as most of what is longer grew.
 */
import { type Engine, nameOf } from "./engine.js";
import type { Digest, FileEntry } from "./plugin.js";
import type { VersionRow } from "./rows.js";

export interface Overwritten {
  readonly version: VersionRow;
  readonly targets: readonly string[];
}

/** Inside `apply`. What waited for this version is decided; empty: nothing waited, or it was decided before. */
export function decide({ journal, queue }: Engine, version: VersionRow, as: "overwritten" | "grown"): Overwritten[] {
  const waited = queue.deliveriesOf(version.id).filter(({ fault }) => fault === "superseded");
  for (const { id } of waited) journal.run("UPDATE deliveries SET fault = ? WHERE id = ?", as === "grown" ? null : as, id);
  return waited.length === 0 ? [] : [{ version, targets: waited.map(({ target }) => target) }];
}

/** Inside `apply`. Of one path: what the version that is there now, and follows on `base`, cannot have grown from. */
export function decideBehind(
  engine: Engine,
  source: string,
  entry: Pick<FileEntry, "path" | "medium">,
  base: string | null,
): Overwritten[] {
  const { queue } = engine;
  const begins = new Set(queue.basesOf({ base }).map(({ id }) => id));
  const wholeOnce = queue.goneOf(source, entry).filter(({ id, digest }) => digest !== null && !begins.has(id));
  return wholeOnce.flatMap(({ id }) => queue.version(id) ?? []).flatMap((version) => decide(engine, version, "overwritten"));
}

/** Inside `apply`. What is whole now is what a listing showed as something shorter for a while: it is not lost. */
export function foundAgain({ journal, queue }: Engine, { id, source, path, medium, size }: VersionRow, digest: Digest): void {
  for (const gone of queue.goneOf(source, { path, medium }))
    if (gone.id !== id && gone.size === size && gone.digest === digest)
      journal.run("UPDATE deliveries SET fault = NULL WHERE version = ? AND fault IN ('superseded', 'overwritten')", gone.id);
}

export function sayOverwritten({ events }: Engine, overwritten: readonly Overwritten[]): void {
  for (const { version, targets } of overwritten) {
    const { source, path, size } = version;
    events.say(
      "error",
      "lost",
      `${nameOf(version)}: another file took its place at ${source} before ${targets.join(", ")} had its ${size} bytes, of which no copy is here`,
      { device: source, path, fault: "overwritten" },
    );
  }
}
