/**
 * How old something is, by a clock that may be wrong today. What is kept for so long, copies in the spool and what the journal knows of files that have gone, is dated by wall time; of what lies
 * between two looks at the clock no more counts than in the trash. So a clock that is set by years makes nothing old, and what is dated by one that was ahead is no longer kept for that.
 */
import type { Engine } from "./engine.js";
import { lookEveryMs, mostBetween } from "./sync/trash.js";

/** A clock that is put right by less was not wrong. */
const stepMs = 60_000;
/** A machine that is off and on counts by this, however little is to pass. */
const hourMs = 3_600_000;
const notedKey = "passed";

/** What both clocks said when an engine began and nobody knew the time. */
const clocks = new WeakMap<Engine, { readonly wallMs: number; readonly monotonicMs: number }>();

/** Before anything is whole here. */
export function noteClock(engine: Engine): void {
  const { clock } = engine;
  if (!clock.trusted()) clocks.set(engine, { wallMs: clock.wallMs(), monotonicMs: clock.monotonicMs() });
}

/** What became whole while the clock was wrong (a machine without one of its own, before NTP) is as old as it is. */
async function setRight(engine: Engine): Promise<void> {
  const before = clocks.get(engine);
  clocks.delete(engine);
  if (before === undefined) return;
  const until = before.wallMs + engine.clock.monotonicMs() - before.monotonicMs;
  const by = engine.clock.wallMs() - until;
  if (Math.abs(by) < stepMs) return;
  const sql = "UPDATE versions SET sealed_ms = sealed_ms + ? WHERE spooled > 0 AND sealed_ms BETWEEN ? AND ?";
  await engine.journal.apply(() => engine.journal.run(sql, by, before.wallMs, until));
}

/** Where no look was noted (a journal of an older version), something was known of the time when this was. */
function lastDone({ journal }: Engine): number | undefined {
  const sql =
    "SELECT MAX(ms) AS ms FROM (SELECT MAX(done_ms) AS ms FROM deliveries WHERE state = 'done' UNION ALL SELECT MAX(since_ms) FROM absent)";
  return journal.get<{ ms: number | null }>(sql)?.ms ?? undefined;
}

/** Before anything is taken for old. Does nothing while the clock is not trusted. */
export async function notePassed(engine: Engine): Promise<void> {
  const { journal, clock, config } = engine;
  if (!clock.trusted()) return;
  await setRight(engine);
  const { spool, journal: known } = config;
  const everyMs = Math.max(hourMs, lookEveryMs(spool.keep));
  const nowMs = clock.wallMs();
  const noted = journal.meta(notedKey);
  const passedMs = nowMs - (noted === undefined ? (lastDone(engine) ?? nowMs - everyMs) : Number(noted));
  if (noted !== undefined && passedMs > -stepMs && passedMs < everyMs) return;
  /** What does not count. */
  const over = (keepMs: number) => {
    const ms = passedMs - Math.max(everyMs, mostBetween(keepMs));
    return ms < stepMs ? 0 : ms;
  };
  const dated = (column: string) => `${column} = MIN(?1, ${column} + ?2) WHERE (?2 > 0 OR ${column} > ?1)`;
  await journal.apply(() => {
    journal.run(`UPDATE versions SET ${dated("sealed_ms")} AND spooled > 0`, nowMs, over(spool.keep));
    journal.run(`UPDATE absent SET ${dated("since_ms")}`, nowMs, over(known.keep));
    journal.run("UPDATE deliveries SET done_ms = ?1 WHERE state = 'done' AND done_ms > ?1", nowMs);
    journal.setMeta(notedKey, String(nowMs));
  });
}
