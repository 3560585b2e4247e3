/**
 * A full target: what was begun there may take all room of each other, and none becomes whole; or one that is larger than all the room there is keeps others
 * from going. So what was sent of some is taken away there, and another gets that room. Each such time costs the link what was sent: who gives waits, for
 * longer each time, whatever became of it.
 */
import { followsPulls, nameOf, type Engine } from "./engine.js";
import { isFault } from "./errors.js";
import type { Lane } from "./lane.js";
import { PushJob } from "./push-job.js";
import { madeWayMsAfter, reasonOf } from "./retry.js";
import { foundFull } from "./rooms.js";
import { goesBefore, type DeliveryRow } from "./rows.js";
import { withinMs } from "./signals.js";

/** How long a target may take to tell what it has of a file, or to take that away, where another waits. */
const askedMs = 60_000;
/** So often what is larger, but more urgent, keeps its room: somebody may make some meanwhile. */
const triesForSmaller = 3;
/** All that is given goes again: not for less than this share of it, but for what is more important. */
const worthShare = 0.01;
/** So many are looked at at a time: each may have to be asked what it holds. */
const askedMost = 64;
/** So much may be free in nobody's partial: a write that does not fit fails as a whole. */
const slackBytes = 2 ** 20;

/**
 * Makes room at a full target for what found none there again, `inVain` times by now; that is due then. Who found it full, too, and is less urgent or larger, or cannot go on now, gives its room: the last of
 * them first, so many as make it whole. False where that cannot be: the room is somebody else's.
 */
export async function makeRoom(engine: Engine, lane: Lane, { id }: DeliveryRow, inVain: number, signal: AbortSignal): Promise<boolean> {
  const { queue, journal, clock } = engine;
  const { rooms } = queue;
  const now = clock.monotonicMs();
  const failed = queue.delivery(id);
  const others = [...queue.pushing.values()].some(({ delivery }) => delivery.target === lane.name && delivery.id !== id);
  if (lane.device.target?.features.resume !== true || others || failed?.state !== "ready" || !rooms.mayBeGiven(lane.name, now))
    return false;
  const isAway = ({ state, fault, not_before }: DeliveryRow) =>
    state === "wanting" || (not_before > now && (fault === "held" || fault === "denied"));
  const mustGive = (row: DeliveryRow) => isAway(row) || goesBefore(failed, row) || (inVain > triesForSmaller && failed.size < row.size);
  const givers = queue.begunAt(lane.name).filter((row) => row.id !== id && foundFull(row) && mustGive(row) && rooms.held(row.id) !== 0);
  if (givers.length === 0) return false;
  const held = await heldOf(engine, lane, failed, signal);
  if (held === undefined || held < 0) return false;
  let giving: { readonly row: DeliveryRow; readonly bytes: number }[] = [];
  let given = 0;
  let asked = 0;
  for (const row of givers.reverse()) {
    if (held + given >= failed.size) break;
    const known = rooms.held(row.id);
    if (known === undefined && ++asked > askedMost) break;
    const there = known ?? (await heldOf(engine, lane, row, signal));
    if (there === undefined) return false;
    // What is whole there is perhaps the last copy.
    const bytes = there < row.size ? Math.max(0, there) : 0;
    // What it refuses to tell it may tell later.
    if (there >= 0) rooms.noteHeld(row, bytes);
    if (bytes > 0) giving.push({ row, bytes });
    given += bytes;
  }
  // Small ones that were asked before one that has enough.
  for (const { row, bytes } of [...giving].reverse())
    if (held + given - bytes >= failed.size) {
      giving = giving.filter((it) => it.row !== row);
      given -= bytes;
    }
  const isEnough = () => given > 0 && held + given + Math.min(slackBytes, failed.size / 4) >= failed.size;
  const most = Math.max(given, failed.size);
  const goesBesides = queue.fullBytes(
    lane.name,
    most,
    giving.map(({ row }) => row.id),
  );
  const isWorth = goesBesides >= given * worthShare;
  if (!isWorth && giving.some(({ row }) => row.weight >= failed.weight)) return false;
  // It may have been given up, or superseded, meanwhile.
  if (queue.delivery(id)?.state !== "ready") return false;
  let made = false;
  for (const { row, bytes } of giving) {
    if (!isEnough()) break;
    const timesMore = isAway(row) || goesBefore(failed, row) ? 0 : 1;
    const gave = await gaveRoom(engine, lane, row, failed, { timesMore, isNews: inVain === 1 }, signal);
    if (gave === undefined) break;
    if (gave) made = true;
    else given -= bytes;
  }
  if (!made) return false;
  rooms.got(failed);
  await journal.apply(() => journal.run("UPDATE deliveries SET not_before = 0 WHERE id = ? AND state = 'ready'", id));
  return true;
}

/** How much of it the target has, -1 where it refuses to say, or cannot without the source; undefined where it cannot be asked now. Some say where they are asked already that they have no room for it. */
function heldOf(engine: Engine, lane: Lane, row: DeliveryRow, signal: AbortSignal): Promise<number | undefined> {
  let isOfSource = false;
  return begunAs(engine, lane, row, signal, (job) => job.heldThere().finally(() => (isOfSource = job.broken !== undefined))).catch(
    (error: unknown) => (isFault(error, "full") ? 0 : isOfSource || isFault(error, "denied", "rejected") ? -1 : undefined),
  );
}

/** False where it has none there, or cannot give it; undefined where the target cannot be asked now: it may have done it. `timesMore`: it waits as if it had given so often more. */
async function gaveRoom(
  engine: Engine,
  lane: Lane,
  last: DeliveryRow,
  first: DeliveryRow,
  { timesMore, isNews }: { readonly timesMore: number; readonly isNews: boolean },
  signal: AbortSignal,
): Promise<boolean | undefined> {
  const { queue, journal, events, clock } = engine;
  const taken = await journal.apply(() =>
    journal.run("UPDATE deliveries SET state = 'active' WHERE id = ? AND state = ?", last.id, last.state),
  );
  if (taken === 0) return false;
  const version = queue.version(last.version);
  const facts = {
    ...{ device: lane.name, path: last.path, id: last.id, fault: "full" },
    ...{ from: last.source, source: version?.path, to: lane.name },
  };
  const what = `${version === undefined ? last.path : nameOf(version)} → ${lane.name}: what was sent of it`;
  let isOfSource = false;
  let afterMs = 0;
  const { epoch } = lane.state;
  const waits = () => {
    // Another disk by now.
    if (lane.state.epoch !== epoch) return;
    afterMs = madeWayMsAfter(queue.rooms.gave(last) + timesMore);
    // What became of earlier bytes of either says nothing of what the target keeps.
    queue.sentFrom.delete(last.id);
    queue.sentFrom.delete(first.id);
  };
  try {
    const gave = await begunAs(engine, lane, last, signal, (job) =>
      job.giveRoom().catch((error: unknown) => {
        isOfSource = job.broken !== undefined;
        throw error;
      }),
    );
    queue.rooms.noteHeld(last, 0);
    if (!gave) return false;
    waits();
    events.say(
      "warn",
      "again",
      `${what} is taken away there: it took the room of ${first.path}; again in ${Math.ceil(afterMs / 60_000)} min`,
      facts,
    );
    return true;
  } catch (error) {
    const refused = isFault(error, "denied", "rejected");
    const level = isNews && refused && !isOfSource ? "warn" : "debug";
    events.say(level, "again", `${what} takes the room of ${first.path}, and cannot be taken away: ${reasonOf(error)}`, facts);
    if (refused) queue.rooms.noteHeld(last, 0);
    if (refused || isOfSource) return false;
    // It was begun to be taken away.
    if (queue.marksOf(last.id).restart === true) waits();
    return undefined;
  } finally {
    const fault = { kind: "full", reason: `it made way there for ${first.path}`, tries: last.tries };
    const untilMs = clock.monotonicMs() + afterMs;
    await queue.release(last.id, afterMs === 0 ? 0 : untilMs, followsPulls(lane), afterMs === 0 ? undefined : fault);
  }
}

/** What was begun there, asked as by its own push: what reads its source for that may have to wait for it. */
async function begunAs<T>(
  engine: Engine,
  lane: Lane,
  row: DeliveryRow,
  signal: AbortSignal,
  work: (job: PushJob) => Promise<T>,
): Promise<T> {
  const version = engine.queue.version(row.version);
  const { target } = lane.device;
  if (version === undefined || target === undefined) throw new Error(`nothing is known of ${row.path}`);
  return withinMs(askedMs, [signal], async (within) => {
    const job = new PushJob(engine, lane, target, version, { delivery: row }, within);
    try {
      return await work(job);
    } finally {
      job.close();
    }
  });
}
