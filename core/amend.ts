/**
 * What a person does with deliveries: `retry` brings back what was set aside, `forget` gives it up; said once more, it gives up a copy in the spool
 * that nobody got. Neither touches a file at a source or a target, but for the partial of what is given up. What is forgotten has no receipt and never counts as one: a source's file that waits for it is not deleted or archived.
 */
import { namesIn } from "./config.js";
import { ControlError } from "./control.js";
import { type Engine, nameOf, routeOf } from "./engine.js";
import { Fault } from "./errors.js";
import { required } from "./limits.js";
import { reasonOf } from "./retry.js";
import { isDevice, namedBy, unknown } from "./named.js";
import { isKept, isLost, marksIn, type DeliveryRow, type Marks, type StoredReceipt, type VersionRow } from "./rows.js";
import { giveUp, isAlone } from "./space.js";

/** One delivery, for a person and a program. */
export interface Told {
  readonly id: string;
  /** "pixhawk:2026-05-01/10_00_00.ulg" */
  readonly file: string;
  readonly to: string;
}

export interface Retried {
  /** Were set aside. */
  readonly retried: readonly Told[];
  /** Were delivered, or forgotten, and are sent once more unless the target has them. */
  readonly again: readonly Told[];
  /** Waited for their time, and are due now. */
  readonly due: number;
  /** Of both those that may have arrived: they are only looked for. */
  readonly inDoubt: number;
  /** Were forgotten, and what was sent of them is still to be taken away at the target: only then can they be sent again. */
  readonly leaving: readonly Told[];
  /** Files that stayed at their source, against what their route asks: that is tried once more. */
  readonly releases: readonly string[];
  /** Whether a daemon runs: without one nothing moves. */
  readonly running: boolean;
  /** Devices that were away and were tried, and what they said. */
  readonly devices: Readonly<Record<string, string>>;
  /** Mirror and two-way routes that look again now. */
  readonly looks: readonly string[];
}

/** `what`: an id, a device or a path; undefined: all that was set aside or waits for its time. Throws ControlError for a name that means nothing. */
export async function retry(engine: Engine, what: string | undefined, signal: AbortSignal, running = true): Promise<Retried> {
  const { journal, queue } = engine;
  const done = await journal.commit(() => {
    const meant =
      what === undefined
        ? deliveriesWhere(engine, "state = 'parked' OR (not_before > 0 AND state IN ('wanting', 'ready'))")
        : meantBy(engine, what);
    const parked = meant.filter(({ state }) => state === "parked");
    // Only who names it says that it may be sent twice.
    const decided = what !== undefined && namedBy(engine, what).length > 0;
    queue.retry(
      parked.map(({ id }) => id),
      decided,
    );
    const isDoubted = ({ marks }: DeliveryRow) => {
      const { sending } = marksIn(marks);
      return sending !== undefined && sending.decided !== true;
    };
    // What is in doubt may be due, and is not sent before that is said.
    const waited = meant.filter(
      (row) =>
        (row.state === "wanting" || row.state === "ready") && (row.not_before > engine.clock.monotonicMs() || (decided && isDoubted(row))),
    );
    queue.retry(
      waited.map(({ id }) => id),
      decided,
    );
    const inDoubt = decided ? 0 : [...parked, ...waited].filter(isDoubted).length;
    const again = meant.filter(({ id, state }) => id === what && (state === "done" || state === "dropped"));
    for (const delivery of again) sendAgain(engine, delivery);
    const leaving = meant.filter(({ id, state }) => id === what && state === "discard");
    const tell = (rows: readonly DeliveryRow[]) => rows.map((row) => told(engine, row));
    const releases = keptBy(engine, what).map((version) => {
      journal.run("UPDATE versions SET released = NULL WHERE id = ?", version.id);
      queue.releasable.set(version.id, { source: version.source, notBeforeMs: 0 });
      queue.kept.delete(version.id);
      return nameOf(version);
    });
    const said = { retried: tell(parked), again: tell(again), due: waited.length, inDoubt, leaving: tell(leaving), releases, running };
    return { said, targets: [...parked, ...waited].map(({ target }) => target) };
  });
  if (what === undefined) for (const lane of engine.lanes.values()) lane.resumeTarget();
  const devices: Record<string, string> = {};
  for (const name of new Set([...(what === undefined ? [] : [what]), ...done.targets])) {
    const lane = engine.lanes.get(name);
    lane?.resumeTarget();
    if (lane === undefined || lane.attached) continue;
    devices[name] = await lane.lookNow(signal).then(
      () => "attached",
      (error: unknown) => reasonOf(error),
    );
  }
  const routes = [...engine.syncs.values()].filter(({ here, there }) => what === undefined || [here.name, there.name].includes(what));
  for (const route of routes) route.retry();
  engine.work$.next();
  return { ...done.said, devices, looks: routes.map(({ title }) => title) };
}

/** Inside `commit`. Throws ControlError where no copy is left to send. */
function sendAgain({ journal, queue }: Engine, delivery: DeliveryRow): void {
  const version = queue.version(delivery.version);
  if (version === undefined) return;
  const here = version.state === "sealed" && version.store === "spool" && version.spooled > 0;
  if (queue.releasing.has(version.id))
    throw new ControlError(`${nameOf(version)} is being taken from its source at this moment: ask again in a while`);
  const left = version.released === null || version.released.startsWith("kept") || version.released.startsWith("before");
  if (!here && (version.state === "gone" || !left))
    throw new ControlError(
      `${nameOf(version)} cannot be sent again: the spool has no copy, and at its source it is gone (${version.released ?? "replaced or removed"})`,
    );
  if (!here && version.store === "spool")
    journal.run("UPDATE versions SET state = 'found', durable = 0, generation = generation + 1 WHERE id = ? AND spooled = 0", version.id);
  // It is known again where it still is, unless somebody else had put it there.
  const { receipt } = delivery;
  const isOurs = receipt !== null && (JSON.parse(receipt) as StoredReceipt).found !== true;
  journal.run(
    "UPDATE deliveries SET state = 'parked', replaces = COALESCE(?, replaces), receipt = NULL, done_ms = NULL, fault = NULL, reason = NULL, memo = NULL, marks = ? WHERE id = ?",
    isOurs ? receipt : null,
    JSON.stringify({ again: true } satisfies Marks),
    delivery.id,
  );
  queue.retry([delivery.id]);
}

export interface Forgotten {
  /** `partial`, where its target may have something of an unfinished upload: that is taken away, or stays because nobody can be asked. */
  readonly forgotten: readonly (Told & { readonly partial?: "goes" | "stays" })[];
  /** Files that are not deleted or archived at their source because of that. */
  readonly kept: readonly string[];
  /** Files of which the spool has a copy that nobody got: it stays. */
  readonly alone: readonly string[];
  /** Were lost at their source, and are told no more. */
  readonly lost: readonly Told[];
  /** Files that were forgotten before, and whose copy in the spool is removed now. */
  readonly removed: readonly string[];
  /** Is meant, but a route still brings it to its target, or has brought it: it is not forgotten. "active": it is being sent at this moment. */
  readonly left: readonly (Told & { readonly state: string })[];
}

/** `what`: an id, a path, a target that has left the configuration, or a source, of which what was lost there is told no more. What is being sent, and is to be given up, is stopped. Throws ControlError for a name that means nothing. */
export async function forget(engine: Engine, what: string): Promise<Forgotten> {
  const { journal, queue } = engine;
  const configured = new Set(namesIn(engine.config));
  if (configured.has(what)) {
    const lost = deliveriesWhere(engine, `source = ?1 AND ${isLost}`, what);
    if (lost.length === 0)
      throw new ControlError(
        `"${what}" is a device of the configuration, and nothing is told as lost there: name a path or an id ("filesync status" lists what was set aside)`,
      );
    await journal.commit(() => journal.run(`UPDATE deliveries SET fault = NULL WHERE source = ? AND ${isLost}`, what));
    return { forgotten: [], kept: [], alone: [], lost: lost.map((row) => told(engine, row)), removed: [], left: [] };
  }
  const touched = new Map<string, VersionRow>();
  const done = await journal.commit(() => {
    const meant = meantBy(engine, what);
    const open = meant.filter(({ state }) => state !== "dropped" && state !== "discard");
    const given = open.filter((row) => row.state === "parked" || isUnwanted(engine, configured, row));
    const partialOf = (row: DeliveryRow): "goes" | "stays" | undefined =>
      row.begun === 0 ? undefined : configured.has(row.target) ? "goes" : "stays";
    for (const row of given) {
      const state = partialOf(row) === "goes" ? "discard" : "dropped";
      journal.run("UPDATE deliveries SET state = ?, reason = ?, not_before = 0 WHERE id = ?", state, forgottenReason, row.id);
      const version = queue.version(row.version);
      if (version !== undefined) touched.set(version.id, version);
    }
    const lost = meant.filter(({ id }) => journal.run(`UPDATE deliveries SET fault = NULL WHERE id = ? AND ${isLost}`, id) > 0);
    const required = new Set(given.filter((row) => row.required === 1).map(({ version }) => version));
    const kept = [...touched.values()].filter(({ id, after, released }) => required.has(id) && after !== "keep" && released === null);
    return {
      forgotten: given.map((row) => {
        const partial = partialOf(row);
        return { ...told(engine, row), ...(partial === undefined ? {} : { partial }) };
      }),
      lost: lost.map((row) => told(engine, row)),
      kept: kept.map(nameOf),
      alone: [...touched.keys()]
        .flatMap((id) => queue.version(id) ?? [])
        .filter((version) => isAlone(engine, version))
        .map(nameOf),
      again: open.length > 0 ? [] : [...new Set(meant.map(({ version }) => version))],
      left: open.filter((row) => !given.includes(row)).map((row) => ({ ...told(engine, row), state: queue.stateOf(row) })),
    };
  });
  for (const { id } of done.forgotten) queue.pushing.get(id)?.stop?.(new Fault("aborted", "was given up"));
  for (const { id } of touched.values()) {
    const version = queue.version(id);
    // A copy that is not whole serves nobody now. A whole one stays as long as the spool keeps what was delivered.
    const waits = queue.deliveriesOf(id).some(({ state }) => state !== "done" && state !== "dropped");
    if (version?.state === "found" && version.spooled > 0 && !waits) await giveUp(engine, version, "waits");
  }
  const removed: string[] = [];
  for (const version of done.again.flatMap((id) => queue.version(id) ?? []))
    if (isAlone(engine, version) && (await giveUp(engine, version, "delivered"))) removed.push(nameOf(version));
  engine.work$.next();
  const { forgotten, lost, kept, alone, left } = done;
  return { forgotten, lost, kept, alone, removed, left };
}

/** It waits or is being sent, and its target, or what would bring it there, has left the configuration, or what it requires will never be. */
function isUnwanted(engine: Engine, configured: ReadonlySet<string>, row: DeliveryRow): boolean {
  if (row.state !== "wanting" && row.state !== "ready" && row.state !== "active") return false;
  if (!configured.has(row.target)) return true;
  const version = engine.queue.version(row.version);
  return version !== undefined && (routeOf(engine, version, row) === undefined || required(engine, version, row).never !== undefined);
}

/** The reason of a delivery that a person gave up. */
export const forgottenReason = "forgotten";

/** Deliveries of an id, a path, or from or to a device. */
function meantBy(engine: Engine, what: string): DeliveryRow[] {
  const named = namedBy(engine, what).flatMap(({ deliveries }) => deliveries);
  if (named.length > 0) return named;
  if (!isDevice(engine, what)) throw unknown(engine, what);
  return deliveriesWhere(engine, "state IN ('wanting', 'ready', 'active', 'parked') AND (source = ?1 OR target = ?1)", what);
}

/** Those that were to be deleted or archived at their source, and stayed there, or wait for another try. */
function keptBy(engine: Engine, what: string | undefined): VersionRow[] {
  const { journal, queue } = engine;
  const waiting = [...queue.releasable].filter(([id, { failed }]) => failed !== undefined && !queue.releasing.has(id));
  const kept = journal
    .all<VersionRow>(`SELECT v.* FROM versions v WHERE ${isKept}`)
    .concat(waiting.flatMap(([id]) => queue.version(id) ?? []));
  if (what === undefined) return kept;
  const named = new Set(namedBy(engine, what).map(({ version }) => version.id));
  return kept.filter(({ id, source }) => named.has(id) || (named.size === 0 && source === what));
}

function deliveriesWhere(engine: Engine, where: string, ...values: string[]): DeliveryRow[] {
  return engine.journal.all<DeliveryRow>(`SELECT * FROM deliveries WHERE ${where}`, ...values);
}

function told(engine: Engine, row: DeliveryRow): Told {
  const version = engine.queue.version(row.version);
  return { id: row.id, file: version === undefined ? row.path : nameOf(version), to: row.target };
}
