/**
 * Whether the next flights have room: on the sources' cards, in the spool, at the targets; and whether nothing that has to arrive was set aside. What
 * cannot tell its room is not known, which is neither.
 *
 * How much they need: the most bytes of one day so far, of each source for its card, of the sources together for the spool and for a target that has to
 * get them; at least 1 GiB. A file's day is that of its time stamp (UTC), or the one on which it was found.
 */
import { asked } from "./asked.js";
import type { Engine } from "./engine.js";
import { throwIfAborted } from "./errors.js";
import { reasonOf } from "./retry.js";
import { elsewhere } from "./rows.js";
import { shellWord, sizeText } from "./text.js";

export interface Place {
  readonly what: "spool" | "source" | "target" | "deliveries";
  /** The device's name. */
  readonly name: string;
  readonly state: "ready" | "not-ready" | "not-known";
  /** Bytes; absent where there is nothing to measure, or nobody knows. */
  readonly need?: number;
  readonly free?: number;
  /** One line for a person. */
  readonly text: string;
  /** What to type. */
  readonly todo?: readonly string[];
}

export interface Readiness {
  /** No place is known not to be. */
  readonly ready: boolean;
  /** Bytes that the next flights are taken to make, of all sources. */
  readonly need: number;
  readonly places: readonly Place[];
}

const leastNeed = 2 ** 30;
/** An earlier time stamp is a clock that was not set. */
const plausibleMs = Date.UTC(2010, 0, 1);
const waits = "('wanting', 'ready', 'active', 'parked')";

/** `need`: bytes, in place of what the days so far say. Changes nothing. */
export async function readiness(engine: Engine, need: number | undefined, signal: AbortSignal): Promise<Readiness> {
  const { routes } = engine.config;
  const sources = [...new Set(routes.map(({ from }) => from))];
  const days = daysOf(engine);
  const needOf = (names: readonly string[]) => need ?? Math.max(leastNeed, largestDay(days, names));
  const targets = new Map<string, string[]>();
  for (const { from, to } of routes)
    for (const { device, required } of to) if (required) targets.set(device, [...(targets.get(device) ?? []), from]);
  const places = await Promise.all([
    spoolPlace(engine, needOf(sources.filter((name) => engine.lanes.get(name)?.device.source?.features.inPlace !== true))),
    ...sources.map((name) => devicePlace(engine, "source", name, needOf([name]), 0, signal)),
    ...[...targets].map(([name, from]) => devicePlace(engine, "target", name, needOf(from), waitingFor(engine, name), signal)),
  ]);
  throwIfAborted(signal);
  const all = [...places, ...parkedPlace(engine)];
  return { ready: !all.some(({ state }) => state === "not-ready"), need: needOf(sources), places: all };
}

interface Day {
  readonly source: string;
  readonly day: string;
  readonly bytes: number;
}

/** Of files that have a receipt; of one that grew the largest. */
function daysOf({ journal }: Engine): Day[] {
  return journal.all<Day>(
    `SELECT source, day, SUM(size) AS bytes FROM (
       SELECT v.source, date((CASE WHEN v.modified_ms > ${plausibleMs} THEN v.modified_ms ELSE v.found_ms END) / 1000, 'unixepoch') AS day, MAX(v.size) AS size
       FROM versions v WHERE EXISTS (SELECT 1 FROM deliveries d WHERE d.version = v.id AND d.state = 'done')
       GROUP BY v.source, v.medium, v.path, day)
     GROUP BY source, day`,
  );
}

function largestDay(days: readonly Day[], sources: readonly string[]): number {
  const sums = new Map<string, number>();
  for (const { source, day, bytes } of days) if (sources.includes(source)) sums.set(day, (sums.get(day) ?? 0) + bytes);
  return Math.max(0, ...sums.values());
}

/** What is delivered makes room; what waits stays, and what is still at its source comes before the next flight. */
async function spoolPlace(engine: Engine, need: number): Promise<Place> {
  const { journal, spool, config } = engine;
  const sum = (what: string, where: string) =>
    journal.get<{ n: number | null }>(`SELECT SUM(${what}) AS n FROM versions v WHERE ${where}`)?.n ?? 0;
  const open = `EXISTS (SELECT 1 FROM deliveries d WHERE d.version = v.id AND d.state IN ${waits})`;
  const got = "(released = 'superseded' OR EXISTS (SELECT 1 FROM deliveries d WHERE d.version = v.id AND d.state = 'done'))";
  const spare = sum("spooled", `spooled > 0 AND state IN ('sealed', 'gone') AND NOT ${open} AND ${got}`);
  const coming = `state = 'found' AND store = 'spool' AND ${open}`;
  const byMaxSize = spool.maxSizeBytes - (spool.usedBytes - spare) - sum("size - spooled", coming);
  const byDisk = (await spool.freeBytes()) - config.spool.keepFree + spare - sum("size - durable", coming);
  const free = Math.max(0, Math.min(byMaxSize, byDisk));
  const [bound, more] =
    byMaxSize < byDisk
      ? ['"spool.maxSize"', '# or: a larger "spool.maxSize" in the configuration']
      : ['its disk and "spool.keepFree"', `df -h ${shellWord(config.stateDir)}`];
  const text = `${sizeText(free)} free, beside what waits for its target or is still to come, by ${bound}`;
  if (free >= need) return { what: "spool", name: "spool", state: "ready", need, free, text };
  return {
    ...{ what: "spool", name: "spool", state: "not-ready", need, free, text: `${text}; ${sizeText(need)} are needed` },
    todo: ["filesync status   # what waits, and for whom", more],
  };
}

/** `before`: bytes that go there before those of the next flights. */
async function devicePlace(
  engine: Engine,
  what: "source" | "target",
  name: string,
  need: number,
  before: number,
  signal: AbortSignal,
): Promise<Place> {
  const lane = engine.lanes.get(name);
  const unknown = (text: string): Place => ({ what, name, state: "not-known", need: need + before, text });
  if (lane === undefined) return unknown("nobody can ask it: no daemon runs, or it cannot be started as configured");
  // What it said itself counts for more than what is free: a quota, or a disk that it does not show.
  if (what === "target" && lane.stopped !== undefined)
    return {
      ...{ what, name, state: "not-ready", need: need + before, text: `it took no more: ${lane.stopped}` },
      todo: [`# make room on ${name}`, `filesync retry ${name}`],
    };
  const waits = before > 0 ? `; ${sizeText(before)} that have to arrive wait for it` : "";
  let free: number | undefined;
  try {
    free = lane.device.room === undefined ? undefined : await asked(lane, signal, async (hosted) => lane.device.room?.(hosted));
  } catch (error) {
    return unknown(`it cannot be asked: ${reasonOf(error)}${waits}`);
  }
  if (free === undefined)
    return unknown(
      lane.attached || waits === ""
        ? "it does not tell how much is free"
        : `it is away: ${lane.state.reason ?? "nobody knows why"}${waits}`,
    );
  const ahead = before === 0 ? "" : `, ${sizeText(before)} of which go to what waits for it`;
  const text = `${sizeText(free)} free${ahead}`;
  if (free >= need + before) return { what, name, state: "ready", need: need + before, free, text };
  return {
    ...{ what, name, state: "not-ready", need: need + before, free, text: `${text}; ${sizeText(need)} are needed` },
    todo: [what === "source" ? `filesync ls -r ${name}:   # what is on it; remove what has arrived` : `# make room on ${name}`],
  };
}

function waitingFor({ journal }: Engine, target: string): number {
  return (
    journal.get<{ n: number | null }>(
      `SELECT SUM(size) AS n FROM deliveries WHERE target = ? AND required = 1 AND state IN ${waits}`,
      target,
    )?.n ?? 0
  );
}

function parkedPlace({ journal }: Engine): Place[] {
  const n =
    journal.get<{ n: number }>(`SELECT COUNT(*) AS n FROM deliveries WHERE ${elsewhere} AND state = 'parked' AND required = 1`)?.n ?? 0;
  if (n === 0) return [];
  return [
    {
      ...{ what: "deliveries", name: "deliveries", state: "not-ready" },
      text: `${n} that ${n === 1 ? "has" : "have"} to arrive ${n === 1 ? "is" : "are"} set aside`,
      todo: ["filesync status", "filesync retry --all"],
    },
  ];
}
