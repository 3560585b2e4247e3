/**
 * What was whole once, of which no copy is here any more (it made room, as its source had it still), and whose place there another file took before every target had it. Whether that grew from it
 * is known at once where it is too short for that, else once it has been read; until then nothing is said, as most of what is longer grew.
 */
import { type Engine, nameOf } from "./engine.js";
import type { Digest } from "./plugin.js";
import type { Queue } from "./queue.js";
import { type DeliveryRow, hasGone, isLost, type VersionRow } from "./rows.js";
import { grewFrom } from "./space.js";

export interface Overwritten {
  readonly version: VersionRow;
  readonly targets: readonly string[];
}

/** Inside `apply`. What waited for this version is decided; empty: nothing waited, or it was decided, or said to be lost, before. */
export function decide({ journal }: Engine, version: VersionRow, as: "overwritten" | "grown"): Overwritten[] {
  const waited = journal.all<Pick<DeliveryRow, "id" | "target" | "fault">>(
    `SELECT id, target, fault FROM deliveries WHERE version = ? AND ${hasGone}`,
    version.id,
  );
  for (const { id } of waited) journal.run("UPDATE deliveries SET fault = ? WHERE id = ?", as === "grown" ? null : as, id);
  const unsaid = waited.filter(({ fault }) => fault === "superseded");
  return unsaid.length === 0 ? [] : [{ version, targets: unsaid.map(({ target }) => target) }];
}

/** Inside `apply`. Of what has gone of one path: what the version that is there now, and follows on `base`, cannot have grown from. */
export function decideBehind(engine: Engine, gone: ReturnType<Queue["goneOf"]>, base: string | null): Overwritten[] {
  const { queue } = engine;
  const wholeOnce = gone.filter(({ digest }) => digest !== null);
  if (wholeOnce.length === 0) return [];
  const begins = new Set(queue.basesOf({ base }).map(({ id }) => id));
  return wholeOnce
    .flatMap(({ id }) => (begins.has(id) ? [] : (queue.version(id) ?? [])))
    .flatMap((version) => decide(engine, version, "overwritten"));
}

/** Inside `apply`. What is whole now is what a listing showed as something shorter, or not at all, for a while: it is not lost. */
export function foundAgain({ journal, queue }: Engine, { id, source, path, medium, size }: VersionRow, digest: Digest): void {
  for (const gone of queue.goneOf(source, { path, medium }))
    if (gone.id !== id && gone.size === size && gone.digest === digest)
      journal.run(`UPDATE deliveries SET fault = NULL WHERE version = ? AND ${isLost}`, gone.id);
}

/**
 * A version that was whole once is found to be another as it is read again: it is given up. What took its place may have been found meanwhile, and be whole here already. Status tells what is decided also
 * where power goes before it is said.
 */
export async function becameAnother(engine: Engine, version: VersionRow, reason: string): Promise<void> {
  const { journal, queue } = engine;
  const latest = () => queue.version(queue.latest(version.source, version)?.id ?? "");
  const whole = latest();
  const isHere = whole?.state === "sealed" && whole.spooled > 0 && whole.found_ms > version.found_ms;
  const compared = isHere
    ? { id: whole.id, as: (await grewFrom(engine, whole, version)) ? ("grown" as const) : ("overwritten" as const) }
    : undefined;
  const decided = await journal.commit(() => {
    queue.gone(version, true);
    queue.supersede(version.id, reason);
    const found = latest();
    if (found === undefined || found.found_ms <= version.found_ms) return [];
    if (found.state === "sealed" && whole?.digest === version.digest) {
      decide(engine, version, "grown");
      return [];
    }
    // It cannot have grown from what is longer; and what has left the spool, or is read where it lies, has another beginning: else this one would have gone as that, or been sent.
    if (found.size < version.size || (found.state === "sealed" && whole?.spooled === 0)) return decide(engine, version, "overwritten");
    if (found.state !== "sealed") return decideBehind(engine, queue.goneOf(version.source, version), found.base);
    return found.id === compared?.id ? decide(engine, version, compared.as) : [];
  });
  if (compared?.as !== "grown") sayOverwritten(engine, decided);
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
