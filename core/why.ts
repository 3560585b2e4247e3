/**
 * Why a file is where it is: every reason that holds it back, and when it will go. It reads; it changes nothing. With a daemon it sees what waits
 * in memory and may look at the source; without one it says what the journal knows.
 */
import { forgottenReason } from "./amend.js";
import { namesIn } from "./config.js";
import { type Engine, routeOf, type RouteLane } from "./engine.js";
import { isFault } from "./errors.js";
import { isArchived } from "./find.js";
import type { Lane } from "./lane.js";
import { lastRan, lastSeen, type LastWord, lastWords } from "./last.js";
import { heldNow } from "./limits.js";
import { namedBy, placeIn, unknown } from "./named.js";
import type { FileEntry } from "./plugin.js";
import { goesBefore, receiptsIn, type DeliveryRow, type StoredReceipt, type VersionRow } from "./rows.js";
import { mayGrow, needing, weaklyProved } from "./release.js";
import { againText, reasonOf } from "./retry.js";
import { dateText } from "./route.js";
import { withSignals } from "./signals.js";
import { isAlone } from "./space.js";
import { mistakesOf } from "./status.js";
import { whySynced } from "./sync/why-synced.js";
import { durationText, sizeText } from "./text.js";

export interface Reason {
  /** A stable name for programs. */
  readonly code: string;
  /** One line for a person. */
  readonly text: string;
  /** The delivery that it is about. */
  readonly id?: string;
  readonly to?: string;
  /** When it goes on by itself, in ms from now, where that is known. */
  readonly inMs?: number;
}

export interface WhyFile {
  readonly source: string;
  readonly path: string;
  readonly size?: number;
  readonly modifiedMs?: number;
  readonly version?: string;
  readonly reasons: readonly Reason[];
}

const statMs = 10_000;
/** Older versions of a path that nothing waits for any more are not told. */
const most = 10;

/** `running`: a daemon asks, so lanes and finders say how it is now. Throws ControlError for a name that means nothing. */
export async function why(engine: Engine, what: string, running: boolean, signal: AbortSignal): Promise<WhyFile[]> {
  const named = namedBy(engine, what);
  const known = named
    .filter(({ deliveries }, n) => n === 0 || deliveries.some(({ state }) => state !== "done" && state !== "dropped"))
    .slice(0, most)
    .map(({ version, deliveries }) => whyKnown(engine, version, deliveries, running));
  const { device, path } = placeIn(engine, what);
  const synced = whySynced(engine, device, path, known.length > 0);
  if (known.length + synced.length > 0) return [...known, ...synced];
  if (path === "") throw unknown(engine, what);
  const sources = [...engine.routes.keys()].filter((name) => device === undefined || name === device);
  const unseen: WhyFile[] = [];
  for (const source of sources) {
    const file = await whyUnseen(engine, source, path, device !== undefined, running, signal);
    if (file !== undefined) unseen.push(file);
  }
  if (unseen.length === 0) throw unknown(engine, what);
  return unseen;
}

/** A file that the journal does not know; undefined where its source surely has none. */
async function whyUnseen(
  engine: Engine,
  source: string,
  path: string,
  asked: boolean,
  running: boolean,
  signal: AbortSignal,
): Promise<WhyFile | undefined> {
  const reasons: Reason[] = [];
  const lane = engine.lanes.get(source);
  const settling = settlingReason(engine, source, path);
  let entry: FileEntry | undefined;
  if (!running) {
    if (!asked) return undefined;
    reasons.push({ code: "unseen", text: `no listing of ${source} has seen it; no daemon runs, so ${source} cannot be asked now` });
    reasons.push(...lastReasons(engine, source, { away: "source-away", leftOut: "unseen" }));
  } else if (lane?.attached !== true) {
    if (!asked) return undefined;
    reasons.push({ code: "unseen", text: `no listing of ${source} has seen it` });
    reasons.push(...awayReasons(engine, source, "source"));
  } else {
    try {
      entry = await withSignals([signal, AbortSignal.timeout(statMs)], async (soon) => lane.device.source?.stat(path, soon));
    } catch (error) {
      if (!isFault(error)) throw error;
      reasons.push({ code: "unseen", text: `${source} cannot say whether it has it: ${reasonOf(error)}` });
    }
    if (entry === undefined && reasons.length === 0) return undefined;
    if (entry !== undefined && entry.kind !== "file")
      reasons.push({
        code: "no-file",
        text: entry.kind === "directory" ? "it is a directory" : `it is left out: ${entry.reason ?? "it cannot be read"}`,
      });
  }
  reasons.push(...(settling === undefined ? [] : [settling]));
  if (entry === undefined || entry.kind === "file")
    reasons.push(...ruleReasons(engine, source, entry ?? { path }, entry !== undefined && settling === undefined));
  return { source, path, ...(entry === undefined ? {} : stampOf(entry)), reasons };
}

interface RuledEntry {
  readonly path: string;
  readonly size?: number;
  readonly modifiedMs?: number;
}

/** What each route of a source says of a file without deliveries. */
function ruleReasons(engine: Engine, source: string, entry: RuledEntry, listed: boolean): Reason[] {
  return (engine.routes.get(source) ?? []).map((route) => {
    const { to, left, rest } = rulingOf(engine, source, entry, route);
    if (left !== undefined) return left;
    const when = listed ? "the next listing finds it" : "it goes when a listing finds it";
    return { code: "taken", to, text: rest === "" ? `the route to ${to} takes it: ${when}` : `the route to ${to} would take it, ${rest}` };
  });
}

/** Where a route goes; that it leaves a file, and by which rule; else the rules that one entry alone cannot decide. */
function rulingOf(
  engine: Engine,
  source: string,
  entry: RuledEntry,
  route: RouteLane,
): { readonly to: string; readonly left?: Reason; readonly rest: string } {
  const to = route.rules.route.to.map(({ device }) => device).join(", ");
  const startMs = isOfUnknownType(route) ? undefined : engine.finders.get(source)?.startOf(route);
  const refused = isArchived(engine.lanes.get(source)?.config, entry.path)
    ? 'it is in the directory of what was archived ("archiveDir")'
    : route.rules.refusal(entry, engine.clock.wallMs(), startMs);
  const left = { code: "left", to, text: `the route to ${to} leaves it: ${refused ?? ""}` };
  return { to, rest: restOf(route), ...(refused === undefined ? {} : { left }) };
}

function isOfUnknownType({ rules: { route } }: RouteLane): boolean {
  return route.to.some(({ unknownType }) => unknownType === true);
}

function restOf(lane: RouteLane): string {
  const { route } = lane.rules;
  const rest = [
    ...(route.newest === undefined ? [] : [`if it is among the newest ${route.newest} ("newest")`]),
    ...(isOfUnknownType(lane)
      ? ["once its type is known, which the configuration has wrong; until then what comes after this route ran first"]
      : []),
    ...(route.since === "install" && !isOfUnknownType(lane) ? ['if it came after this route ran first ("since": "install")'] : []),
  ];
  return rest.join(" and ");
}

function whyKnown(engine: Engine, version: VersionRow, deliveries: readonly DeliveryRow[], running: boolean): WhyFile {
  const settling = settlingReason(engine, version.source, version.path);
  const reasons: Reason[] = settling === undefined ? [] : [{ ...settling, text: `a newer state of it is seen: ${settling.text}` }];
  const all = engine.queue.deliveriesOf(version.id);
  if (all.length === 0) reasons.push({ code: "passed-over", text: "it was found, and no route took it then" });
  for (const delivery of [...deliveries].sort((a, b) => (a.target < b.target ? -1 : 1)))
    reasons.push(
      ...deliveryReasons(engine, version, delivery, running).map((reason) => ({ ...reason, id: delivery.id, to: delivery.target })),
    );
  if (version.state !== "gone") reasons.push(...leftReasons(engine, version, all));
  if (isAlone(engine, version) && deliveries.length > 0)
    reasons.push({
      code: "only-copy",
      text: `nobody got it: its copy in the spool stays, unless ${version.source} is seen to have it still; to remove the copy: filesync forget ${version.id}`,
    });
  const after = afterReason(engine, version);
  if (after !== undefined) reasons.push(after);
  return { source: version.source, path: version.path, ...stampOf(entryOf(version)), version: version.id, reasons };
}

/** Which routes brought it nowhere, and by which rule. */
function leftReasons(engine: Engine, version: VersionRow, deliveries: readonly DeliveryRow[]): Reason[] {
  const entry = entryOf(version);
  return (engine.routes.get(version.source) ?? []).flatMap((route) => {
    if (route.rules.route.to.some(({ device }) => deliveries.some(({ target }) => target === device))) return [];
    const { to, left, rest } = rulingOf(engine, version.source, entry, route);
    if (left !== undefined) return [left];
    return rest === "" ? [] : [{ code: "left", to, text: `the route to ${to} takes it only ${rest}` }];
  });
}

function deliveryReasons(engine: Engine, version: VersionRow, delivery: DeliveryRow, running: boolean): Reason[] {
  const { id, target } = delivery;
  const said = delivery.reason ?? "";
  const foreign = !namesIn(engine.config).includes(target);
  const leave: Reason = {
    code: "foreign",
    text: `"${target}" is not in the configuration: put it back, or give this up: filesync forget ${id}`,
  };
  const routeless = routeOf(engine, version, delivery) === undefined;
  const left: Reason = { code: "routeless", text: `no route brings it to ${target} any more; found while one did, it still goes` };
  const state = engine.queue.stateOf(delivery);
  switch (state) {
    case "done": {
      const receipt = JSON.parse(delivery.receipt ?? "{}") as Partial<StoredReceipt>;
      const answer = receipt.answer === undefined ? "" : ` (${receipt.answer})`;
      const twice =
        receipt.sentBefore === undefined
          ? ""
          : `; sent once before, ${dateText(Date.parse(receipt.sentBefore))}, and that answer was lost: it may be there twice`;
      return [
        {
          code: "delivered",
          text: `delivered ${atText(receipt)} as ${receipt.path ?? delivery.path}, proved by ${receipt.proof ?? "nothing"}${answer}${twice}`,
        },
      ];
    }
    case "dropped":
    case "discard": {
      const rest = state === "discard" ? `; what was sent of it is still to be taken away at ${target}` : "";
      if (delivery.fault === "unwanted") return [{ code: "not-for-target", text: `is nothing for ${target}: ${said}` }];
      const text =
        said === forgottenReason ? `given up by a person (to send it after all: filesync retry ${id})` : `is not sent any more: ${said}`;
      return [{ code: said === forgottenReason ? "forgotten" : "dropped", text: `${text}${rest}` }];
    }
    case "parked": {
      const since = delivery.parked_ms === null ? "" : ` since ${dateText(delivery.parked_ms)}`;
      const fault = delivery.fault ?? "unknown";
      const parked: Reason = {
        code: "parked",
        text: `set aside${since} (${fault}): ${said}${againText(fault, version.source, [target], id)}; to give it up: filesync forget ${id}`,
      };
      return foreign ? [parked, leave] : [parked];
    }
    case "active": {
      const moves = moving(engine, id);
      return [{ code: "sending", text: `is being sent${moves}` }, ...(routeless ? [left] : [])];
    }
    case "wanting":
    case "ready": {
      const reasons = foreign ? [leave] : [];
      if (!foreign && routeless) reasons.push({ ...left, text: `${left.text}; to give it up: filesync forget ${id}` });
      // What is read in place has its bytes nowhere else.
      const fromSource = state === "wanting" || version.store !== "spool";
      const inMs = delivery.not_before - engine.clock.monotonicMs();
      if (foreign) {
        // What was wrong with it when it left does not count any more.
      } else if (delivery.fault === "held") {
        if (inMs > 0) reasons.push(heldReason(engine, version, delivery, running));
      } else if (delivery.fault !== null) {
        const tries = delivery.tries > 0 ? `, after ${delivery.tries} ${delivery.tries === 1 ? "try" : "tries"}` : "";
        const when = !running ? "at once when the daemon runs" : inMs > 0 ? `in ${durationText(inMs / 1000)}` : "as soon as it can be";
        const inDoubt = delivery.fault === "indoubt";
        reasons.push({
          code: inDoubt ? "in-doubt" : "again",
          text: inDoubt
            ? `${said}; looked for again ${when}; to send it again now, when you have looked there: filesync retry ${id}`
            : `failed (${delivery.fault}): ${said}; tried again ${when}${tries}`,
          ...(running && inMs > 0 ? { inMs } : {}),
        });
      }
      if (!running)
        return [
          ...reasons,
          ...(foreign ? [] : lastReasons(engine, target, { away: "target-away", held: "held" })),
          ...(fromSource
            ? lastReasons(engine, version.source, { away: "source-away", full: state === "wanting" ? "spool-full" : undefined })
            : []),
          { code: "no-daemon", text: 'waits for the daemon, which does not run: start it with "filesync run"' },
        ];
      if (!foreign) reasons.push(...awayReasons(engine, target, "target"));
      if (state === "wanting") reasons.push(...pullReasons(engine, version, delivery), ...heldReasons(engine, target));
      else reasons.push(...(fromSource ? awayReasons(engine, version.source, "source") : []), ...pushReasons(engine, delivery));
      return reasons.some(({ code }) => code !== "routeless") ? reasons : [...reasons, { code: "next", text: "goes next" }];
    }
  }
}

/** Why its bytes are not here yet. */
function pullReasons(engine: Engine, version: VersionRow, delivery: DeliveryRow): Reason[] {
  const { queue, transfers, journal } = engine;
  if (queue.pulling.has(version.id))
    return [{ code: "pulling", text: `is being read from ${version.source}${moving(engine, version.id)}` }];
  const away = awayReasons(engine, version.source, "source");
  if (away.length > 0) return away;
  if (engine.lanes.get(version.source)?.holds(version.medium) === false)
    return [{ code: "medium-away", text: `it is on ${version.medium}, which is not in ${version.source} now: plug it in again` }];
  const reasons: Reason[] = [];
  const full = transfers.waitForSpace.get(version.source);
  if (full !== undefined) reasons.push({ code: "spool-full", text: full });
  const before = journal.get<{ n: number }>(
    `SELECT COUNT(DISTINCT version) AS n FROM deliveries WHERE source = ?1 AND medium = ?7 AND target = ?2 AND state = 'wanting' AND not_before <= ?3
     AND (weight > ?4 OR (weight = ?4 AND (rank > ?5 OR (rank = ?5 AND path > ?6))))`,
    version.source,
    delivery.target,
    engine.clock.monotonicMs(),
    delivery.weight,
    delivery.rank,
    delivery.path,
    version.medium,
  )?.n;
  const running = transfers.running.filter(({ facts }) => facts.kind === "pull" && facts.from === version.source).length;
  reasons.push(...turnReasons(engine.lanes.get(version.source), "source", before ?? 0, running));
  return reasons;
}

/** Why its bytes, which are here, do not go. */
function pushReasons(engine: Engine, delivery: DeliveryRow): Reason[] {
  const reasons = heldReasons(engine, delivery.target);
  const lane = engine.lanes.get(delivery.target);
  if (lane?.attached !== true) return reasons;
  if (lane.pausedMs > 0)
    reasons.push({
      code: "target-paused",
      text: `${lane.name} asked for a pause, or has no space (${lane.idleReason ?? "it did not say"}): it is tried again in ${durationText(lane.pausedMs / 1000)}`,
      inMs: lane.pausedMs,
    });
  const ready = engine.journal.all<DeliveryRow>(
    "SELECT weight, rank, path FROM deliveries WHERE target = ? AND state = 'ready' AND not_before <= ?",
    delivery.target,
    engine.clock.monotonicMs(),
  );
  const running = engine.journal.get<{ n: number }>(
    "SELECT COUNT(*) AS n FROM deliveries WHERE state = 'active' AND target = ?",
    delivery.target,
  );
  reasons.push(...turnReasons(lane, "target", ready.filter((other) => goesBefore(other, delivery)).length, running?.n ?? 0));
  return reasons;
}

/** By what it is held back now: what the journal notes is of when it was put off. */
function heldReason(engine: Engine, version: VersionRow, delivery: DeliveryRow, running: boolean): Reason {
  const now = running ? heldNow(engine, version, delivery) : undefined;
  return {
    code: "held",
    text: `is held back: ${now?.reason ?? delivery.reason ?? ""}`,
    ...(now?.inMs === undefined ? {} : { inMs: now.inMs }),
  };
}

/** Its target's "when" or "budget". */
function heldReasons(engine: Engine, target: string): Reason[] {
  const held = engine.lanes.get(target)?.held;
  if (held === undefined) return [];
  return [
    { code: "held", text: `nothing is sent to ${target} now: ${held.reason}`, ...(held.inMs === undefined ? {} : { inMs: held.inMs }) },
  ];
}

function turnReasons(lane: Lane | undefined, role: "source" | "target", before: number, running: number): Reason[] {
  if (lane === undefined) return [];
  const places = lane.slots(role);
  const reasons: Reason[] = [];
  if (before > 0)
    reasons.push({
      code: "behind",
      text: `waits its turn at ${lane.name}: ${before} ${before === 1 ? "file goes" : "files go"} before it`,
    });
  if (running > 0 && running >= places)
    reasons.push({
      code: "busy",
      text: `${lane.name} has its hands full: ${running} ${running === 1 ? "transfer runs" : "transfers run"}, and no more at once ("concurrency")`,
    });
  return reasons;
}

/** A device that is away, or is not configured any more. */
function awayReasons(engine: Engine, name: string, role: "source" | "target"): Reason[] {
  const lane = engine.lanes.get(name);
  if (lane?.attached === true) return [];
  if (lane !== undefined)
    return [
      { code: `${role}-away`, text: `${name} is detached since ${dateText(lane.state.sinceMs)}: ${lane.state.reason ?? "it is away"}` },
    ];
  const { wrong } = engine.config;
  if (wrong?.devices.some((device) => device.name === name) === true)
    return [{ code: `${role}-away`, text: `${name} is not started: ${mistakesOf(wrong, name)}` }];
  const there = engine.config.devices.some((device) => device.name === name);
  return [
    {
      code: `${role}-away`,
      text: there ? `${name} could not be started (the log says why)` : `"${name}" is not in the configuration: put it back`,
    },
  ];
}

/** While no daemon runs: what the last one knew of a device, with the code of each. */
function lastReasons(engine: Engine, name: string, codes: Readonly<Partial<Record<LastWord["what"], string>>>): Reason[] {
  const last = lastSeen(engine, name);
  if (last === undefined) return [];
  return lastWords(last, name).flatMap(({ what, text }) => {
    const code = codes[what];
    return code === undefined ? [] : [{ code, text: `${lastRan(last)}: ${text}` }];
  });
}

function settlingReason(engine: Engine, source: string, path: string): Reason | undefined {
  const seen = engine.finders.get(source)?.settling(path);
  if (seen === undefined) return undefined;
  if (seen.written) {
    const how =
      seen.reason === undefined ? `it is still being written, says ${source}` : `it is not complete, says ${source}: ${seen.reason}`;
    return { code: "settling", text: `${how} (${sizeText(seen.size)} so far)` };
  }
  return {
    code: "settling",
    text: `it has not settled yet (${sizeText(seen.size)}): it counts as complete in ${durationText(seen.inMs / 1000)} if it stays the same ("settle")`,
    inMs: seen.inMs,
  };
}

/** What becomes of the source's file. */
function afterReason(engine: Engine, version: VersionRow): Reason | undefined {
  if (version.state === "gone")
    return {
      code: "gone",
      text: `at ${version.source}: this version is gone: removed, or another took its place${asideText(engine, version)}`,
    };
  if (version.released !== null) {
    const back = engine.finders.get(version.source)?.backReason(version.id);
    return { code: "released", text: `at ${version.source}: ${version.released}${back === undefined ? "" : `; ${back}`}` };
  }
  if (version.after === "keep") return undefined;
  const what = version.after === "delete" ? "deleted" : "archived";
  const required = engine.queue.deliveriesOf(version.id).filter((delivery) => delivery.required === 1);
  const open = required.filter(({ state }) => state !== "done");
  const lane = engine.lanes.get(version.source);
  if (open.length === 0 && lane !== undefined && mayGrow(lane, version))
    return {
      code: "release",
      text: `at ${version.source}: it is ${what} once it is surely not written any more: it may be the log that is open`,
    };
  if (open.length === 0) {
    const targets = needing(engine, version).map(({ target }) => target);
    if (targets.length > 0)
      return {
        code: "release",
        text: `at ${version.source}: it is ${what} once ${targets.join(", ")} ${targets.length === 1 ? "has" : "have"} it, or the spool has a copy of it for that`,
      };
    const { failed, notBeforeMs = 0 } = engine.queue.releasable.get(version.id) ?? {};
    if (failed === undefined) return { code: "release", text: `at ${version.source}: it is ${what} next` };
    const inMs = Math.max(0, notBeforeMs - engine.clock.monotonicMs());
    const text = `at ${version.source}: it could not be ${what}: ${failed}`;
    return { code: "release", text: `${text}; tried again ${inMs > 0 ? `in ${durationText(inMs / 1000)}` : "soon"}`, inMs };
  }
  const given = open.filter(({ state }) => state === "dropped" || state === "discard").map(({ target }) => target);
  if (given.length > 0) return { code: "withheld", text: `at ${version.source}: it is not ${what}: ${given.join(", ")} never got it` };
  const weak = weaklyProved(version, receiptsIn(required));
  if (weak !== undefined) return { code: "withheld", text: `at ${version.source}: it is not ${what}: ${weak}` };
  return {
    code: "release",
    text: `at ${version.source}: it is ${what} when ${open.map(({ target }) => target).join(", ")} ${open.length === 1 ? "has" : "have"} it`,
  };
}

function asideText({ spool }: Engine, { id }: VersionRow): string {
  const at = spool.asideOf(id);
  return at === undefined ? "" : `; what was here of it is kept as ${at}`;
}

/** ": 12 % of 3 MB, 1.2 MB/s, 5 s left" */
function moving(engine: Engine, id: string): string {
  const transfer = engine.transfers.running.find(({ facts }) => facts.id === id);
  if (transfer === undefined) return "";
  const { size } = transfer.facts;
  const percent = size === 0 ? 100 : Math.floor((transfer.offset / size) * 100);
  const { bytesPerSecond, secondsLeft } = transfer.pace();
  const left = secondsLeft === undefined ? "" : `, ${durationText(secondsLeft)} left`;
  return `: ${percent} % of ${sizeText(size)}, ${sizeText(bytesPerSecond)}/s${left}`;
}

function entryOf(version: VersionRow): { path: string; size: number; modifiedMs?: number } {
  return { path: version.path, size: version.size, ...(version.modified_ms === null ? {} : { modifiedMs: version.modified_ms }) };
}

function stampOf({ size, modifiedMs }: { size: number; modifiedMs?: number }): { size: number; modifiedMs?: number } {
  return { size, ...(modifiedMs === undefined ? {} : { modifiedMs }) };
}

function atText({ at, clock }: Partial<StoredReceipt>): string {
  return `${at === undefined ? "" : dateText(Date.parse(at))}${clock === "unset" ? " (the clock was not set)" : ""}`;
}
