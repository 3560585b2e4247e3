/**
 * The durable queue over the journal: claim, acknowledge, release. A delivery is in one state at a time:
 *
 *   wanting ──bytes come──▶ ready ──claim──▶ active ──acknowledge──▶ done
 *      ▲                      │ ▲               │ └──park──▶ parked ──retry──▶ wanting
 *      └──pull stopped, or────┘ └────release────┘
 *         spool given up                        (superseded: discard ──▶ dropped)
 *
 * A claim is this process's: `recover`, at start-up, makes what was claimed when power went claimable again. Nothing here waits for the medium
 * but `acknowledge` and what says so; a claim that is lost in a power cut costs nothing.
 */
import type { Fault } from "./errors.js";
import type { Journal } from "./journal.js";
import { Leaving } from "./leaving.js";
import type { Clock, Digest, FileEntry } from "./plugin.js";
import type { PlannedDelivery } from "./route.js";
import {
  atMost,
  bestFirst,
  canSend,
  elsewhere,
  goesBefore,
  hasLeft,
  isReleasable,
  marksIn,
  sendable,
  type DeliveryRow,
  type Marks,
  type Ranked,
  type StoredReceipt,
  type Latest,
  type VersionRow,
  type Wanted,
  wasBrought,
} from "./rows.js";
import { fullSoonMs, fullTurns } from "./retry.js";
import { isTooLarge, Rooms } from "./rooms.js";
import type { Sending } from "./single-shot.js";
import { atOrBelow } from "./tables.js";

const soonMs = 60_000;
/** So many that are due, and too large to go before another, are passed over. */
const beforeMost = 64;

/** Deliveries that wait for a device that the configuration does not have: their target, or the source that still has their bytes. */
export interface Foreign {
  readonly source: string;
  readonly target: string;
  readonly away: string;
  readonly deliveries: number;
}

/** With what a person does about it. */
export function foreignText({ source, away }: Foreign): string {
  const what = away === source ? "all of it that has not arrived" : "what waits for it";
  return `"${away}" is not in the configuration: put it back, or give up ${what}: filesync forget ${away}`;
}

export class Queue {
  /** Versions that are being pulled now, with the rank they were claimed for. */
  readonly pulling = new Map<string, Ranked>();
  /** Deliveries that are being pushed now, by id, and what stops that. */
  readonly pushing = new Map<string, { readonly delivery: DeliveryRow; readonly stop?: (reason: Fault) => void }>();
  /** Targets to which, perhaps, something goes only after a shorter version of it. */
  readonly following = new Set<string>();
  /** Versions whose file was seen to be longer while they were pushed: that is looked at when this has ended. */
  readonly outgrown = new Set<string>();
  /** How much the target was found to have of a delivery before bytes of it were sent: where that is no more the next time, nothing of them was kept. */
  readonly sentFrom = new Map<string, number>();
  /** Deliveries of which all that was sent was seen to be of the version's digest, and of which generation. */
  readonly proved = new Map<string, number>();
  readonly rooms = new Rooms();
  /** Versions of which something was delivered, and whose source may have to act on that: to be looked at by `release`. `compared`: it was read in that attachment, and is what was delivered. */
  readonly releasable = new Map<
    string,
    {
      readonly source: string;
      readonly notBeforeMs: number;
      readonly failed?: string;
      readonly tries?: number;
      readonly compared?: { readonly epoch: string | undefined };
    }
  >();

  readonly leaving: Leaving;

  /** Versions whose file stays at its source, as far as it was seen since, though it was to be deleted or archived there. */
  readonly kept = new Map<string, Pick<VersionRow, "source" | "path" | "medium">>();

  /** When versions were acted on at their source: a listing that began before may show them still. */
  readonly left = new Map<string, { readonly source: string; readonly atMs: number }>();

  /** Receipts that are on their way to the medium. */
  readonly #unsynced = new Set<StoredReceipt>();

  /** Versions that the spool could never hold when it was to have a copy of them. */
  readonly uncopied = new Set<string>();

  /** Versions whose source is acted on now. */
  readonly releasing = new Set<string>();

  constructor(
    readonly journal: Journal,
    readonly clock: Clock,
  ) {
    this.leaving = new Leaving(journal);
  }

  /** After a start: every claim of the run before is void, and what was waiting is due at once. */
  async recover(): Promise<void> {
    await this.journal.apply(() => {
      const { journal } = this;
      // The words of the index `deliveries_due`, so that it is used.
      journal.run("UPDATE deliveries SET not_before = 0 WHERE not_before > 0 AND state IN ('wanting', 'ready', 'discard')");
      journal.run(
        `UPDATE deliveries SET not_before = 0, state = CASE WHEN EXISTS (SELECT 1 FROM versions v WHERE v.id = version AND ${sendable}) THEN 'ready' ELSE 'wanting' END
         WHERE ${elsewhere} AND state = 'active'`,
      );
      journal.run(
        `UPDATE deliveries SET state = 'wanting' WHERE state = 'ready' AND version IN (SELECT id FROM versions v WHERE v.state = 'found' AND NOT ${sendable})`,
      );
      // Of what is half here (pull-job.ts), and of what made way: a longer version begins with that.
      journal.run(
        "DELETE FROM meta WHERE key >= 'half:' AND key < 'half;' AND substr(key, 6) NOT IN (SELECT id FROM versions WHERE spooled > 0 AND state <> 'sealed')",
      );
      // By version, of which the spool holds few: among the waiting there may be 100,000. In place and straight through, the pull's claim sees to it.
      journal.run(
        "UPDATE deliveries SET state = 'ready' WHERE +state = 'wanting' AND version IN (SELECT id FROM versions WHERE spooled > 0 AND state = 'sealed')",
      );
    });
    const following = `SELECT DISTINCT target FROM deliveries WHERE state IN ('wanting', 'ready') AND marks LIKE '%"after":%'`;
    for (const { target } of this.journal.all<{ target: string }>(following)) this.following.add(target);
    for (const { id, source } of this.journal.all<VersionRow>(`SELECT id, source FROM versions v WHERE ${isReleasable}`))
      this.releasable.set(id, { source, notBeforeMs: 0 });
    this.leaving.recover((id) => {
      const version = this.version(id);
      return version !== undefined && !hasLeft(version);
    });
  }

  /** What waits for devices that are not among these. It keeps waiting: a device may come back. */
  foreign(configured: readonly string[]): Foreign[] {
    const known = `(${configured.map((_, n) => `?${n + 1}`).join(", ")})`;
    const needed = "(state = 'wanting' OR EXISTS (SELECT 1 FROM versions v WHERE v.id = version AND v.store <> 'spool'))";
    // One state at a time: each has an index of its own. What a daemon that was killed had claimed waits.
    return ["state = 'wanting'", "state = 'ready'", `${elsewhere} AND state = 'active'`].flatMap((where) =>
      this.journal
        .all<Omit<Foreign, "away">>(
          `SELECT source, target, COUNT(*) AS deliveries FROM deliveries
           WHERE ${where} AND (target NOT IN ${known} OR (source NOT IN ${known} AND ${needed})) GROUP BY source, target`,
          ...configured,
        )
        .map((row) => ({ ...row, away: configured.includes(row.target) ? row.source : row.target })),
    );
  }

  version(id: string): VersionRow | undefined {
    return this.journal.get<VersionRow>("SELECT * FROM versions WHERE id = ?", id);
  }

  /** Inside `apply`. A version in place is known to be whole, and its digest; false when that was known before. */
  sealInPlace(version: string, digest: Digest): boolean {
    const sql =
      "UPDATE versions SET state = 'sealed', durable = size, digest = ?, sealed_ms = ?, safest = 0 WHERE id = ? AND state = 'found' AND store = 'place'";
    return this.journal.run(sql, digest, this.clock.wallMs(), version) > 0;
  }

  /** The digest of a version, as soon as one reading of it has learned it. */
  digestOf(version: string): Digest | undefined {
    return this.journal.get<{ digest: Digest | null }>("SELECT digest FROM versions WHERE id = ?", version)?.digest ?? undefined;
  }

  delivery(id: string): DeliveryRow | undefined {
    return this.journal.get<DeliveryRow>("SELECT * FROM deliveries WHERE id = ?", id);
  }

  /** The receipt of the version before, which a delivery may replace; undefined where there is none, or the delivery is not there. */
  replacedBy(delivery: string): StoredReceipt | undefined {
    const replaces = this.journal.get<{ replaces: string | null }>("SELECT replaces FROM deliveries WHERE id = ?", delivery)?.replaces;
    return replaces === null || replaces === undefined ? undefined : (JSON.parse(replaces) as StoredReceipt);
  }

  /** A claim of a daemon that was killed is none: it waits. */
  stateOf({ id, state }: Pick<DeliveryRow, "id" | "state">): DeliveryRow["state"] {
    return state === "active" && !this.pushing.has(id) ? "ready" : state;
  }

  /** "active": claimed, and not withdrawn since. */
  isIn(delivery: string, state: "active" | "discard"): boolean {
    return this.journal.get(`SELECT 1 FROM deliveries WHERE id = ? AND state = '${state}'`, delivery) !== undefined;
  }

  marksOf(delivery: string): Marks {
    return marksIn(this.journal.get<{ marks: string | null }>("SELECT marks FROM deliveries WHERE id = ?", delivery)?.marks ?? null);
  }

  /** Inside `commit`. A journal that was lost knows it again from receipts.jsonl. undefined: it was refused. */
  noteSending(delivery: string, sending: Sending | undefined): void {
    this.journal.appendReceipt(`${JSON.stringify({ sending: delivery, record: sending ?? null })}\n`);
    const { again } = this.marksOf(delivery);
    this.setMarks(delivery, { ...(sending === undefined ? {} : { sending }), ...(again === undefined ? {} : { again }) });
  }

  /** Inside `apply`. With `state`: only while it is in that. How many were marked. */
  setMarks(delivery: string, marks: Marks, state?: DeliveryRow["state"]): number {
    const text = JSON.stringify(marks);
    const only = state === undefined ? "" : `AND state = '${state}'`;
    return this.journal.run(`UPDATE deliveries SET marks = ? WHERE id = ? ${only}`, text, delivery);
  }

  deliveriesOf(version: string): DeliveryRow[] {
    return this.journal.all<DeliveryRow>("SELECT * FROM deliveries WHERE version = ?", version);
  }

  /** Those that may still be sent. */
  openOf(version: string): DeliveryRow[] {
    return this.deliveriesOf(version).filter(({ state }) => ["wanting", "ready", "active", "parked"].includes(state));
  }

  /** The version of a path on one medium that was found last and is not gone. */
  latest(source: string, { path, medium = "" }: Pick<FileEntry, "path" | "medium">): Latest | undefined {
    // Asked for each name of each listing: all columns take twice as long.
    return this.journal.get<Latest>(
      "SELECT id, size, modified_ms, state, store, found_ms, released FROM versions WHERE source = ? AND path = ? AND medium = ? AND state <> 'gone' ORDER BY found_ms DESC LIMIT 1",
      source,
      path,
      medium,
    );
  }

  /** What has gone of a path of one medium, the last found first. */
  goneOf(
    source: string,
    { path, medium = "" }: Pick<FileEntry, "path" | "medium">,
  ): Pick<VersionRow, "id" | "size" | "digest" | "found_ms">[] {
    return this.journal.all<Pick<VersionRow, "id" | "size" | "digest" | "found_ms">>(
      "SELECT id, size, digest, found_ms FROM versions WHERE source = ? AND path = ? AND medium = ? AND state = 'gone' ORDER BY found_ms DESC",
      source,
      path,
      medium,
    );
  }

  /** Whether there is a version that is not gone of what is at a path of one medium, or below it. */
  knowsBelow(source: string, { path, medium = "" }: Pick<FileEntry, "path" | "medium">): boolean {
    const known = `SELECT 1 FROM versions WHERE source = ?1 AND ${atOrBelow} AND medium = ?3 AND state <> 'gone' LIMIT 1`;
    return this.journal.get(known, source, path, medium) !== undefined;
  }

  /** Inside `apply`. A new version, as it stands in the journal; undefined when one of that id is there already. */
  add(
    id: string,
    source: string,
    entry: FileEntry,
    what: { store: VersionRow["store"]; base?: string; after: VersionRow["after"]; trustSize: boolean; foundMs: number },
  ): VersionRow | undefined {
    const { path, size, modifiedMs: modified_ms = null, inode = null, medium = "" } = entry;
    const { store, base = null, after, foundMs: found_ms } = what;
    const trust_size = what.trustSize ? 1 : 0;
    const row = { id, source, path, size, modified_ms, inode, state: "found" as const, store, base, found_ms, after, trust_size, medium };
    // A journal that was rebuilt no longer knows what it had sent of a file: what may be left of that is another generation's.
    const added = this.journal.get<{ generation: number }>(
      `INSERT INTO versions (id, source, path, size, modified_ms, inode, state, store, base, found_ms, after, trust_size, medium, generation)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, EXISTS (SELECT 1 FROM meta WHERE key = 'rebuilt')) ON CONFLICT (id) DO NOTHING RETURNING generation`,
      ...Object.values(row),
    );
    if (added === undefined) return undefined;
    return { ...row, generation: added.generation, durable: 0, digest: null, safest: 0, sealed_ms: null, released: null, spooled: 0 };
  }

  /** Inside `apply`. Deliveries that are there already stay as they are. Returns how many are new and still to be done. */
  addDeliveries(version: VersionRow, planned: readonly PlannedDelivery[]): number {
    let added = 0;
    // Delivered and expired: it has to be pulled again.
    const expired = version.store === "spool" && version.state === "sealed" && version.spooled === 0;
    for (const plan of planned) {
      if (plan.once === true && this.#isGoing(version.id, plan.target)) continue;
      const here = canSend(version) && !expired;
      const state = here ? "ready" : "wanting";
      const changes = this.journal.run(
        `INSERT INTO deliveries (id, version, source, target, path, required, state, size, weight, rank, medium, begun, marks)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, EXISTS (SELECT 1 FROM meta WHERE key = 'rebuilt'),
           (SELECT value FROM meta WHERE key = 'marks:' || ?1)) 
         ON CONFLICT (id) DO NOTHING`,
        plan.id,
        version.id,
        version.source,
        plan.target,
        plan.path,
        plan.required ? 1 : 0,
        state,
        version.size,
        plan.weight,
        plan.rank,
        version.medium,
      );
      added += changes;
    }
    if (expired && added > 0)
      this.journal.run("UPDATE versions SET state = 'found', durable = 0, generation = generation + 1 WHERE id = ?", version.id);
    return added;
  }

  /**
   * Inside `apply`. What is planned now counts for what was found under other rules, too: when it goes, and whether release waits for it, unless its target has no use for it. `others`: what is planned by
   * routes that may have found it, and would not any more; what they require stays so. Whether release may wait for something else now.
   */
  setRules(version: string, planned: readonly PlannedDelivery[], others: readonly PlannedDelivery[]): boolean {
    const all = [...planned, ...others];
    const places = new Set(all.map(({ id }) => id));
    let changes = 0;
    for (const row of this.deliveriesOf(version)) {
      const plan = planned.find(({ id }) => id === row.id);
      if (
        plan !== undefined &&
        (plan.weight !== row.weight || plan.rank !== row.rank) &&
        !["done", "dropped", "discard"].includes(row.state)
      )
        this.journal.run("UPDATE deliveries SET weight = ?, rank = ? WHERE id = ?", plan.weight, plan.rank, row.id);
      // Where nothing goes there any more, what goes elsewhere at its target counts.
      const isOf = (it: PlannedDelivery) => (places.has(row.id) ? it.id === row.id : it.target === row.target);
      if (row.fault === "unwanted" || !all.some(isOf)) continue;
      const requires = (plans: readonly PlannedDelivery[]) => plans.some((it) => it.required && isOf(it));
      const required = requires(planned) || (row.required === 1 && requires(others)) ? 1 : 0;
      if (required === row.required) continue;
      this.journal.run("UPDATE deliveries SET required = ? WHERE id = ?", required, row.id);
      changes += 1;
    }
    return changes > 0;
  }

  #isGoing(version: string, target: string): boolean {
    return this.journal.get("SELECT 1 FROM deliveries WHERE version = ? AND target = ? LIMIT 1", version, target) !== undefined;
  }

  /**
   * The best versions to pull now, best first: wanted by one of `targets`, on one of `media`, due, not being pulled. `limit` per target and medium.
   */
  wanted(source: string, media: readonly string[], targets: readonly string[], limit = 8): Wanted[] {
    const now = this.clock.monotonicMs();
    const found = new Map<string, Wanted>();
    for (const [medium, target] of media.flatMap((medium) => targets.map((target) => [medium, target] as const))) {
      const rows = this.journal.all<Wanted>(
        `SELECT version, target, path, weight, rank FROM deliveries WHERE source = ? AND medium = ? AND target = ? AND state = 'wanting' AND not_before <= ? ${bestFirst} ${atMost(limit + this.pulling.size)}`,
        source,
        medium,
        target,
        now,
      );
      for (const row of rows) {
        const other = found.get(row.version);
        if (!this.pulling.has(row.version) && (other === undefined || goesBefore(row, other))) found.set(row.version, row);
      }
    }
    return [...found.values()].sort((a, b) => (goesBefore(a, b) ? -1 : 1));
  }

  /** Inside `apply`. Bytes are there: those that can take them as they come may begin. */
  bytesCome(version: string, streamTargets: readonly string[]): number {
    if (streamTargets.length === 0) return 0;
    const marks = streamTargets.map(() => "?").join(", ");
    return this.journal.run(
      `UPDATE deliveries SET state = 'ready' WHERE version = ? AND state = 'wanting' AND target IN (${marks})`,
      version,
      ...streamTargets,
    );
  }

  /** Inside `apply`. No more bytes for now. Active ones find out by themselves. */
  bytesStop(version: string): void {
    this.journal.run("UPDATE deliveries SET state = 'wanting' WHERE version = ? AND state = 'ready'", version);
  }

  /** Inside `apply`. What was to be read in place is pulled after all. */
  intoSpool(version: string): void {
    const sql =
      "UPDATE versions SET store = 'spool', state = 'found', durable = 0, generation = generation + 1 WHERE id = ? AND store = 'place'";
    if (this.journal.run(sql, version) > 0) this.bytesStop(version);
  }

  /** The best delivery that is ready for a target; not yet claimed, nor one whose last push has not ended. */
  best(target: string, which: { readonly refused?: boolean } = {}): DeliveryRow | undefined {
    // More than one, of which most are not due, are dear to find.
    const [best] = this.bestOf(target, 1, which);
    if (best === undefined || !this.pushing.has(best.id)) return best;
    return this.bestOf(target, this.pushing.size + 1, which).find(({ id }) => !this.pushing.has(id));
  }

  /** The best deliveries that are ready for a target, best first; of those, without `refused`, which it did not deny before. */
  bestOf(target: string, limit: number, { refused = true }: { readonly refused?: boolean } = {}): DeliveryRow[] {
    const but = refused ? "" : "AND fault IS NOT 'denied'";
    return this.journal.all<DeliveryRow>(
      `SELECT * FROM deliveries WHERE target = ? AND state = 'ready' AND not_before <= ? ${but} ${bestFirst} ${atMost(limit)}`,
      target,
      this.clock.monotonicMs(),
    );
  }

  /** Whether anything is being sent to a target, or goes soon. */
  isSending(target: string): boolean {
    const due = "SELECT 1 FROM deliveries WHERE target = ? AND state = 'ready' AND not_before <= ? LIMIT 1";
    return (
      this.journal.get(due, target, this.clock.monotonicMs() + soonMs) !== undefined ||
      this.journal.get(`SELECT 1 FROM deliveries WHERE ${elsewhere} AND state = 'active' AND target = ? LIMIT 1`, target) !== undefined
    );
  }

  /** Whether anything is still to be sent to a target, or taken away there. */
  hasOpen(target: string): boolean {
    return (
      this.journal.get(
        "SELECT 1 FROM deliveries WHERE target = ? AND state IN ('wanting', 'ready', 'active', 'discard') LIMIT 1",
        target,
      ) !== undefined
    );
  }

  /** Inside `apply`. It is held back, which is no fault of anything. */
  putOff(id: string, untilMs: number, reason: string): void {
    this.journal.run(
      "UPDATE deliveries SET not_before = ?, fault = 'held', reason = ? WHERE id = ? AND state = 'ready'",
      untilMs,
      reason,
      id,
    );
  }

  /** Inside `apply`. What was held back of what goes to a target, or of one version, is due now. */
  dueAt(target: string, version?: string): void {
    const of = version === undefined ? "" : "AND version = ?";
    this.journal.run(
      `UPDATE deliveries SET not_before = 0, fault = NULL, reason = NULL WHERE target = ? AND fault = 'held' AND state IN ('wanting', 'ready') ${of}`,
      target,
      ...(version === undefined ? [] : [version]),
    );
  }

  /**
   * Claims the best delivery for a target; else one whose partial there is to be discarded. "full": the best is not one of those that may begin now. `refusedLast`: what it denied
   * before comes behind all others. `discardsFirst`: it needs the room.
   */
  async claim(
    target: string,
    may: (best: DeliveryRow) => boolean = () => true,
    { refusedLast = false, discardsFirst = false }: { readonly refusedLast?: boolean; readonly discardsFirst?: boolean } = {},
  ): Promise<DeliveryRow | "full" | undefined> {
    for (;;) {
      const left = discardsFirst ? this.#toDiscard(target) : undefined;
      if (left !== undefined) return left;
      const best = (refusedLast ? this.best(target, { refused: false }) : undefined) ?? this.best(target);
      if (best === undefined) return this.#toDiscard(target);
      const row = this.#withRoom(target) ?? best;
      if (!may(row)) return "full";
      // It may have been taken while a checkpoint of the journal was waited for.
      const taken = await this.journal.apply(
        () => this.journal.run("UPDATE deliveries SET state = 'active' WHERE id = ? AND state = 'ready'", row.id) > 0,
      );
      this.rooms.tried(row.id);
      if (taken) return Object.assign(row, { state: "active" as const });
    }
  }

  /** The best delivery that is ready for a target, but for what is too large to go before that one. */
  bestBefore(target: string, row: DeliveryRow): DeliveryRow | undefined {
    return this.bestOf(target, beforeMost).find((best) => !this.pushing.has(best.id) && !isTooLarge(best, row));
  }

  /** What others gave their room, once: of what is due it goes before what is too large for that. */
  #withRoom(target: string): DeliveryRow | undefined {
    const now = this.clock.monotonicMs();
    const isFirst = (row: DeliveryRow) => (this.bestBefore(target, row) ?? row).id === row.id;
    return this.rooms
      .gotAt(target)
      .flatMap((id) => this.delivery(id) ?? [])
      .find((row) => row.state === "ready" && row.not_before <= now && !this.pushing.has(row.id) && isFirst(row));
  }

  /**
   * What was begun at a target, and goes on there only with room or at another time, best first; what waits for its source comes last. Not what may have its name already, or is a single shot; nor what broke
   * off: that goes on by itself.
   */
  begunAt(target: string): DeliveryRow[] {
    return (["ready", "wanting"] as const)
      .flatMap((state) =>
        this.journal.all<DeliveryRow>(
          `SELECT * FROM deliveries WHERE target = ? AND state = '${state}' AND begun > 0 AND (state = 'wanting' OR fault IS NULL OR fault IN ('full', 'held', 'denied')) ${bestFirst}`,
          target,
        ),
      )
      .filter(({ marks }) => {
        const { publishing, sending } = marksIn(marks);
        return publishing === undefined && sending === undefined;
      });
  }

  /** Inside `apply`. A target that had no room took a file of that size: what is no larger is due there, without `but`; what is larger is so before long, without `costly`. */
  roomAt(
    target: string,
    size: number,
    { but, costly }: { readonly but: readonly string[]; readonly costly: readonly string[] },
    nowMs: number,
  ): void {
    const due = (toMs: number, is: "<=" | ">", without: readonly string[]) =>
      // The words of the index `deliveries_due`, so that it is used.
      this.journal.run(
        `UPDATE deliveries SET not_before = ?1 WHERE not_before > ?1 AND state IN ('wanting', 'ready', 'discard') AND state <> 'discard' AND target = ?2 AND fault = 'full' AND size ${is} ?3 AND id NOT IN (SELECT value FROM json_each(?4))`,
        toMs,
        target,
        size,
        JSON.stringify(without),
      );
    due(0, "<=", but);
    due(nowMs + fullSoonMs, ">", costly);
  }

  /** Whether it goes on by itself: what waits for its source, or is held back, takes no room for now. */
  mayTake(id: string): boolean {
    const row = this.delivery(id);
    return row !== undefined && ["ready", "active"].includes(row.state) && row.fault !== "held" && row.fault !== "denied";
  }

  /** How much waits for a full target, of what is no larger than that, without these. Not only what was tried: the first `fullTurns` have all turns. */
  fullBytes(target: string, size: number, but: readonly string[]): number {
    const sql =
      "SELECT SUM(size) AS bytes FROM deliveries WHERE target = ? AND state = 'ready' AND (fault IS NULL OR fault = 'full') AND size <= ? AND id NOT IN (SELECT value FROM json_each(?))";
    return this.journal.get<{ bytes: number | null }>(sql, target, size, JSON.stringify(but))?.bytes ?? 0;
  }

  /** How many wait for their turn at a target, what broke off too; more than `fullTurns` count as so many. */
  readyFor(target: string): number {
    const some = `SELECT 1 FROM deliveries WHERE target = ? AND state = 'ready' AND (fault IS NULL OR fault NOT IN ('held', 'denied')) LIMIT ${fullTurns}`;
    return this.journal.get<{ n: number }>(`SELECT COUNT(*) AS n FROM (${some})`, target)?.n ?? 0;
  }

  #toDiscard(target: string): DeliveryRow | undefined {
    return this.journal
      .all<DeliveryRow>(
        `SELECT * FROM deliveries WHERE ${elsewhere} AND state = 'discard' AND target = ? AND not_before <= ? ${atMost(this.pushing.size + 1)}`,
        target,
        this.clock.monotonicMs(),
      )
      .find(({ id }) => !this.pushing.has(id));
  }

  /** Gives a claim back: to be pushed where there are bytes to send, as they come where the target `follows` a pull, else to be pulled. Without a fault, what is known of earlier ones stays. */
  release(id: string, notBeforeMs: number, follows: boolean, fault?: { kind: string; reason: string; tries: number }): Promise<void> {
    return this.journal.apply(() => {
      const row = this.delivery(id);
      const version = row === undefined ? undefined : this.version(row.version);
      if (row?.state !== "active" || version === undefined) return;
      const bytes = canSend(version) || (follows && this.pulling.has(version.id));
      this.journal.run(
        "UPDATE deliveries SET state = ?, not_before = ?, fault = ?, reason = ?, tries = ? WHERE id = ?",
        bytes ? "ready" : "wanting",
        fault === undefined ? Math.max(row.not_before, notBeforeMs) : notBeforeMs,
        fault === undefined ? row.fault : fault.kind,
        fault === undefined ? row.reason : fault.reason,
        fault === undefined ? row.tries : fault.tries,
        id,
      );
      if (fault?.kind === "full") this.setMarks(id, { ...marksIn(row.marks), full: true });
    });
  }

  /** Inside `apply`. A source, or this medium of it, is away: what is not kept here waits for it. */
  sourceAway(source: string, medium: string): void {
    this.journal.run(
      `UPDATE deliveries SET state = 'wanting' WHERE state = 'ready' AND source = ? AND medium = ?
       AND EXISTS (SELECT 1 FROM versions v WHERE v.id = version AND v.store <> 'spool')`,
      source,
      medium,
    );
  }

  /** Inside `commit`. The target has no use for it: no other target's receipt waits for this one. */
  leave(id: string, reason: string): void {
    this.journal.run(
      `UPDATE deliveries SET state = 'dropped', begun = 0, required = 0, fault = 'unwanted', reason = ?, memo = NULL, marks = NULL WHERE id = ? AND state = 'active'`,
      reason,
      id,
    );
    const row = this.delivery(id);
    if (row !== undefined) this.#letFollow(row);
    if (row !== undefined) this.releasable.set(row.version, { source: row.source, notBeforeMs: 0 });
  }

  /** Sets aside with a reason; durable before it is told. What waits to follow it holds all of it, and goes instead. */
  park(id: string, fault: string, reason: string): Promise<void> {
    return this.journal.commit(() => {
      this.journal.run(
        "UPDATE deliveries SET state = 'parked', fault = ?, reason = ?, parked_ms = ? WHERE id = ? AND state IN ('wanting', 'ready', 'active')",
        fault,
        reason,
        this.clock.wallMs(),
        id,
      );
      const row = this.delivery(id);
      if (row?.state === "parked" && this.#letFollow(row) > 0) this.journal.run("UPDATE deliveries SET state = 'discard' WHERE id = ?", id);
    });
  }

  /** The delivery is done, and that is durable, here and in receipts.jsonl. */
  async acknowledge(id: string, receipt: StoredReceipt): Promise<void> {
    this.#unsynced.add(receipt);
    await this.journal.commit(() => {
      const line = JSON.stringify(receipt);
      this.journal.appendReceipt(`${line}\n`);
      this.done(id, receipt, line, this.clock.wallMs());
    });
    // A journal that failed is opened anew, with a queue of its own: here nothing of it is acted on any more.
    this.#unsynced.delete(receipt);
  }

  /** Inside `apply`. The delivery is done, as a line of receipts.jsonl says. */
  done(id: string, receipt: StoredReceipt, line: string, atMs: number): void {
    // What the rules say now of its source: they may have changed while it was sent.
    const done = this.journal.get<{ after: string | null; target: string; path: string }>(
      `UPDATE deliveries SET state = 'done', receipt = ?, fault = NULL, reason = NULL, tries = 0, memo = NULL, marks = NULL, done_ms = ?
       WHERE id = ? RETURNING target, path, (SELECT after FROM versions v WHERE v.id = version) AS after`,
      line,
      atMs,
      id,
    );
    if (done !== undefined) this.#letFollow({ ...done, id }, receipt);
    if (done?.after !== "keep") this.releasable.set(receipt.version, { source: receipt.from, notBeforeMs: 0 });
  }

  /** How many files that every required target has could not be deleted or archived at their sources, and are tried again. */
  get unreleased(): number {
    return [...this.releasable.values()].filter(({ failed }) => failed !== undefined).length;
  }

  /** The next version of a source of which every required delivery is done, and whose source was not acted on yet. */
  toRelease(source: string, held: (version: VersionRow, deliveries: readonly DeliveryRow[]) => boolean): VersionRow | undefined {
    const now = this.clock.monotonicMs();
    for (const [id, due] of this.releasable) {
      if (due.source !== source || due.notBeforeMs > now) continue;
      // Power may take a receipt yet.
      if ([...this.#unsynced].some((receipt) => receipt.version === id)) continue;
      const version = this.version(id);
      const deliveries = this.deliveriesOf(id);
      const required = deliveries.filter((delivery) => delivery.required === 1);
      const all = required.length > 0 && required.every(({ state }) => state === "done");
      if (version !== undefined && version.released === null && version.after !== "keep" && all) {
        if (held(version, deliveries)) continue;
        return version;
      }
      // Once every required target has it, or other rules ask for it, it is here again, and what was doubted of it is so still.
      this.releasable.delete(id);
    }
    return undefined;
  }

  /** A source attached: what failed there is due. */
  releaseNow(source: string): void {
    for (const [id, due] of this.releasable)
      if (due.source === source) this.releasable.set(id, { ...due, notBeforeMs: 0, ...(due.tries === undefined ? {} : { tries: 0 }) });
  }

  /** Those of a source that are to be acted on now, in that order, and others that cannot be yet. */
  *releasableOf(source: string): Generator<VersionRow> {
    const now = this.clock.monotonicMs();
    for (const [id, due] of this.releasable) {
      const version = due.source === source && due.notBeforeMs <= now ? this.version(id) : undefined;
      if (version !== undefined) yield version;
    }
  }

  /** Inside `apply`. What is not sent yet of a version never will be; a partial that may be at a target is discarded there. */
  drop(version: string, reason: string, but: readonly string[] = []): void {
    this.journal.run(
      `UPDATE deliveries SET state = CASE WHEN begun > 0 THEN 'discard' ELSE 'dropped' END, reason = ?, not_before = 0
       WHERE version = ? AND state IN ('wanting', 'ready', 'active', 'parked') AND id NOT IN (${but.map(() => "?").join(", ")})`,
      reason,
      version,
      ...but,
    );
    if (this.following.size > 0) for (const row of this.deliveriesOf(version).filter(({ id }) => !but.includes(id))) this.#letFollow(row);
  }

  /**
   * Inside `apply`. A version will never be whole: its file has gone, or is `another`. With it, what was there before has, but for what that one may have grown
   * from: what looks like it later is perhaps another.
   */
  gone({ id, source, path, medium, found_ms, size }: VersionRow, another: boolean): void {
    this.journal.run("UPDATE versions SET state = 'gone' WHERE id = ?", id);
    const before = this.journal.all<Pick<VersionRow, "id" | "released" | "size">>(
      "SELECT id, released, size FROM versions WHERE source = ? AND path = ? AND medium = ? AND state <> 'gone' AND found_ms < ?",
      source,
      path,
      medium,
      found_ms,
    );
    for (const version of before) if (!hasLeft(version)) this.leaving.doubt(version.id, another && version.size < size);
    this.leaving.noteDoubts();
  }

  /** The versions before this one, the latest first, down to one that was whole here. */
  basesOf(version: Pick<VersionRow, "base">): VersionRow[] {
    const bases: VersionRow[] = [];
    for (let id = version.base; id !== null;) {
      const base = this.version(id);
      if (base === undefined) break;
      bases.push(base);
      id = base.digest === null ? base.base : null;
    }
    return bases;
  }

  /** The one of them that may still come whole from its source. */
  comesBefore(version: Pick<VersionRow, "base">): VersionRow | undefined {
    return this.basesOf(version).find(({ state }) => state === "found");
  }

  /** What came of one of them that made way, and is still here. */
  halfBefore(version: Pick<VersionRow, "base">): VersionRow | undefined {
    return this.basesOf(version).find(({ state, digest, spooled }) => state === "gone" && digest === null && spooled > 0);
  }

  /** Whether all of it has come, and what is left is to prove it: that, too, where its file has gone by then. */
  isAllHere({ state, size, durable }: Pick<VersionRow, "state" | "size" | "durable">): boolean {
    return state === "found" && size > 0 && durable === size;
  }

  /** Inside `apply`. What is not being read, and has not come whole, makes way for what was found after it. */
  makeWay(version: string): void {
    const row = this.version(version);
    if (row === undefined || this.pulling.has(version) || this.isAllHere(row)) return;
    this.journal.run("UPDATE versions SET state = 'gone' WHERE id = ?", version);
    if (row.digest === null) this.drop(version, "superseded: the file changed before it was whole here");
    else this.supersede(version, "superseded: the file changed, and no copy of what it was is here");
  }

  /**
   * Inside `apply`. Drops what was whole once, and has no copy left: whether it is lost tells what took its place at its source (`overwritten.ts`). Not for a target that had it before, or may have it
   * under its name.
   */
  supersede(version: string, reason: string): void {
    const open = this.openOf(version);
    this.drop(version, reason);
    for (const row of open)
      if (row.size > 0 && !wasBrought(row) && marksIn(row.marks).publishing === undefined)
        this.journal.run("UPDATE deliveries SET fault = 'superseded' WHERE id = ?", row.id);
  }

  /** Inside `apply`. What of this version goes where that delivery goes waits until it has ended. */
  goAfter(first: string, version: string, { target, path }: Pick<DeliveryRow, "target" | "path">): void {
    this.following.add(target);
    for (const row of this.deliveriesOf(version).filter((row) => row.target === target && row.path === path))
      this.setMarks(row.id, { ...marksIn(row.marks), after: first });
  }

  /** The delivery that is to end before this one begins, while it has not. */
  goesFirst({ marks }: Pick<DeliveryRow, "marks">): DeliveryRow | undefined {
    const { after } = marksIn(marks);
    const first = after === undefined ? undefined : this.delivery(after);
    return first !== undefined && ["wanting", "ready", "active"].includes(first.state) ? first : undefined;
  }

  /**
   * Inside `apply`. A delivery has ended, with that receipt or without: what waited for it may go, and replaces what it brought, unless somebody else
   * had put that there. How much waited.
   */
  #letFollow({ id, target, path }: Pick<DeliveryRow, "id" | "target" | "path">, receipt?: StoredReceipt): number {
    if (!this.following.has(target)) return 0;
    const replaces = receipt === undefined || receipt.found === true ? null : JSON.stringify(receipt);
    return this.journal.run(
      `UPDATE deliveries SET replaces = COALESCE(?1, replaces), not_before = 0, fault = NULL, reason = NULL
       WHERE target = ?2 AND path = ?3 AND state IN ('wanting', 'ready') AND json_extract(marks, '$.after') = ?4`,
      replaces,
      target,
      path,
      id,
    );
  }

  /**
   * Inside `apply`. Whatever waits for or from this device is due now (a presence edge), but for what it refused as a target where `refused` stays, and what gave its room at a full target, if it is the same by its `epoch`; what an unknown error parked is tried again.
   */
  dueNow(device: string, { refused = "due", epoch }: { readonly refused?: "due" | "stays"; readonly epoch?: string } = {}): void {
    const gave = JSON.stringify(this.rooms.met(device, epoch));
    const but = refused === "due" ? "" : "AND NOT (target = ?1 AND fault IS 'denied')";
    this.journal.run(
      `UPDATE deliveries SET not_before = 0 WHERE not_before > 0 AND state IN ('wanting', 'ready', 'discard') AND (source = ?1 OR target = ?1) ${but} AND id NOT IN (SELECT value FROM json_each(?2))`,
      device,
      gave,
    );
    const unparked = this.journal.run(
      `UPDATE deliveries SET state = 'wanting', tries = 0, not_before = 0 WHERE ${elsewhere} AND state = 'parked'
       AND (fault IN ('unknown', 'denied') AND (target = ?1 OR source = ?1) OR fault = 'unreadable' AND source = ?1)`,
      device,
    );
    if (unparked > 0) this.#readyWhereSealed();
  }

  /**
   * Inside `apply`. These deliveries, set aside or waiting for their time, are due now, as if they had never failed. `decided`: a person says that
   * what was in doubt is sent again.
   */
  retry(ids: readonly string[], decided = false): void {
    for (const id of ids) {
      const row = this.delivery(id);
      if (row !== undefined) this.rooms.asked(row);
      const { sending, ...marks } = this.marksOf(id);
      const isDecided = decided && sending !== undefined;
      if (isDecided) this.setMarks(id, { ...marks, sending: { ...sending, decided: true } });
      // What was decided nobody is asked any more.
      this.journal.run(
        `UPDATE deliveries SET state = CASE state WHEN 'parked' THEN 'wanting' ELSE state END, tries = 0, restarts = 0, not_before = 0,
         fault = CASE ?2 WHEN 1 THEN NULL ELSE fault END, reason = CASE ?2 WHEN 1 THEN NULL ELSE reason END
         WHERE id = ?1 AND state IN ('wanting', 'ready', 'parked')`,
        ...[id, isDecided ? 1 : 0],
      );
    }
    if (ids.length > 0) this.#readyWhereSealed();
  }

  /** What ended in another way than by a receipt, as one that was superseded while it waited, is not kept in mind for ever. */
  forgetEnded(): void {
    const isOpen = (id: string) =>
      this.journal.get("SELECT 1 FROM deliveries WHERE id = ? AND state NOT IN ('done', 'dropped')", id) !== undefined;
    for (const known of [this.sentFrom, this.proved]) for (const id of known.keys()) if (!isOpen(id)) known.delete(id);
    this.rooms.forgetEnded(isOpen);
  }

  /** Inside `apply`. What an unknown error parked, or a source could not read, is looked at again. */
  retryUnknown(): number {
    const changes = this.journal.run(
      `UPDATE deliveries SET state = 'wanting', tries = 0, not_before = 0 WHERE ${elsewhere} AND state = 'parked' AND fault IN ('unknown', 'denied', 'unreadable')`,
    );
    this.#readyWhereSealed();
    return changes;
  }

  #readyWhereSealed(): void {
    this.journal.run(
      `UPDATE deliveries SET state = 'ready' WHERE state = 'wanting'
       AND EXISTS (SELECT 1 FROM versions v WHERE v.id = version AND v.state <> 'gone' AND ${sendable})`,
    );
  }

  /** When the first delivery that was not due yet at `afterMs` is due, by the monotonic clock. */
  nextDueMs(afterMs: number): number | undefined {
    return (
      this.journal.get<{ due: number | null }>(
        "SELECT MIN(not_before) AS due FROM deliveries WHERE not_before > MAX(?, 0) AND not_before > 0 AND state IN ('wanting', 'ready', 'discard')",
        afterMs,
      )?.due ?? undefined
    );
  }
}
