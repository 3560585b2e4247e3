/**
 * A full target: what was begun there may take all room of each other, and none becomes whole. So what was sent of one is taken away there, and another gets
 * that room: the first from the last, or what fits from what is larger than all the room that there is. `rooms.ts` knows what was made of it.
 */
import { followsPulls, nameOf, type Engine } from "./engine.js";
import { isFault } from "./errors.js";
import type { Lane } from "./lane.js";
import { PushJob } from "./push-job.js";
import { madeWayMsAfter, reasonOf } from "./retry.js";
import type { DeliveryRow } from "./rows.js";
import { withinMs } from "./signals.js";

/** How long a target may take to tell what it has of a file, or to take that away, where another waits. */
const askedMs = 60_000;
/** So often a smaller file was tried in vain before, when a larger one makes way: somebody may make room meanwhile. */
const triesForSmaller = 3;
/** All that a larger one holds goes again: not for less than this share of it. */
const worthShare = 0.01;
/** So many larger ones are asked at a time what they hold. */
const askedMost = 8;

/** Makes room at a full target, by what others hold there; who gets that is due. False where none can: the room is somebody else's. */
export async function makeRoom(engine: Engine, lane: Lane, failed: DeliveryRow, signal: AbortSignal): Promise<boolean> {
  const { queue } = engine;
  const others = [...queue.pushing.values()].some(({ delivery }) => delivery.target === lane.name && delivery.id !== failed.id);
  if (lane.device.target?.features.resume !== true || others) return false;
  const begun = queue.begunAt(lane.name);
  const made = await roomForFirst(engine, lane, begun, failed, signal);
  return made ?? (await roomForSmaller(engine, lane, begun, failed, signal));
}

/**
 * What was begun there may take all room of each other, and none becomes whole. The last of them that can gives its room to the first that found none; to the next, where the first had no more of what it was
 * given before. Undefined where nobody has any to give; false where the target cannot be asked now.
 */
async function roomForFirst(
  engine: Engine,
  lane: Lane,
  begun: readonly DeliveryRow[],
  failed: DeliveryRow,
  signal: AbortSignal,
): Promise<boolean | undefined> {
  const { queue } = engine;
  const giversAfter = (at: number) =>
    begun.slice(at + 1).filter(({ id, fault }) => !queue.rooms.of(id).givesNone && (fault === "full" || !queue.rooms.of(id).gaveInVain));
  for (const [at, first] of begun.entries()) {
    if (first.state !== "ready" || first.fault !== "full") continue;
    if (giversAfter(at).length === 0) return undefined;
    const held = await heldOf(engine, lane, first, signal);
    if (held === undefined) return false;
    if (held < 0) continue;
    const before = queue.rooms.of(first.id).given;
    if (before !== undefined && held <= before.held) {
      queue.rooms.note({ id: before.by, target: lane.name }, { gaveInVain: true });
      if (!before.mayAgain) continue;
    }
    for (const last of giversAfter(at).reverse()) {
      const gave = await gaveRoom(engine, lane, last, first, { held, waits: false, isNews: failed.tries === 0 }, signal);
      if (gave !== false) return gave === true;
    }
    return undefined;
  }
  return undefined;
}

/** What is alone in holding room has none for the rest of it, and keeps smaller ones from going: it gives them that, once what waits is worth it. */
async function roomForSmaller(
  engine: Engine,
  lane: Lane,
  begun: readonly DeliveryRow[],
  failed: DeliveryRow,
  signal: AbortSignal,
): Promise<boolean> {
  const { queue } = engine;
  const before = queue.rooms.of(failed.id).given;
  if (failed.tries < triesForSmaller || (before?.held === Infinity && !before.mayAgain)) return false;
  const larger = begun
    .filter(({ state, fault, size }) => state === "ready" && fault === "full" && size > failed.size)
    .filter(({ id }) => !queue.rooms.of(id).givesNone && !queue.rooms.of(id).gaveInVain)
    .sort((a, b) => a.size - b.size);
  for (const large of larger.slice(0, askedMost)) {
    const held = await heldOf(engine, lane, large, signal);
    if (held === undefined) return false;
    if (held <= 0) queue.rooms.note(large, { givesNone: true });
    if (held < failed.size || queue.fullBytes(lane.name, held) < held * worthShare) continue;
    const gave = await gaveRoom(engine, lane, large, failed, { held: Infinity, waits: true, isNews: false }, signal);
    if (gave !== false) return gave === true;
  }
  return false;
}

/** How much of it the target has, -1 where it refuses to say; undefined where it cannot be asked now. Some say where they are asked already that they have no room for it. */
function heldOf(engine: Engine, lane: Lane, row: DeliveryRow, signal: AbortSignal): Promise<number | undefined> {
  return begunAs(engine, lane, row, signal, (job) => job.heldThere()).catch((error: unknown) =>
    isFault(error, "full") ? 0 : isFault(error, "denied", "rejected") ? -1 : undefined,
  );
}

/** False where it has none there, or cannot give it; undefined where the target cannot be asked now. `held`: what the target has of `first`. What gave it a second time to what is no larger is tried ever more seldom, `waits`: the first time, too. */
async function gaveRoom(
  engine: Engine,
  lane: Lane,
  last: DeliveryRow,
  first: DeliveryRow,
  { held, waits, isNews }: { readonly held: number; readonly waits: boolean; readonly isNews: boolean },
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
  let wait: { readonly afterMs: number; readonly fault: { kind: string; reason: string; tries: number } } | undefined;
  try {
    const made = await begunAs(engine, lane, last, signal, (job) =>
      job.giveRoom().catch((error: unknown) => {
        isOfSource = job.broken !== undefined;
        throw error;
      }),
    );
    if (!made) {
      queue.rooms.note(last, { givesNone: true });
      return false;
    }
    const times = queue.rooms.of(last.id).madeWay?.times ?? 0;
    const afterMs = last.size < first.size ? 0 : madeWayMsAfter(waits ? times + 1 : times);
    const again = afterMs === 0 ? "" : `; again in ${Math.ceil(afterMs / 60_000)} min`;
    events.say("warn", "again", `${what} is taken away there: it took the room of ${first.path}${again}`, facts);
    if (afterMs > 0) wait = { afterMs, fault: { kind: "full", reason: `it made way there for ${first.path}`, tries: last.tries } };
    if (last.size >= first.size) queue.rooms.note(last, { madeWay: { times: times + 1, epoch: lane.state.epoch } });
    queue.rooms.saysNothing(last.id);
    queue.rooms.gave(first, held, last.id);
    // What became of earlier bytes of either says nothing of what the target keeps.
    queue.sentFrom.delete(last.id);
    queue.sentFrom.delete(first.id);
    await journal.apply(() => journal.run("UPDATE deliveries SET not_before = 0 WHERE id = ? AND state = 'ready'", first.id));
    return true;
  } catch (error) {
    const refused = isFault(error, "denied", "rejected");
    const level = isNews && refused && !isOfSource ? "warn" : "debug";
    events.say(level, "again", `${what} takes the room of ${first.path}, and cannot be taken away: ${reasonOf(error)}`, facts);
    return refused || isOfSource ? false : undefined;
  } finally {
    await queue.release(last.id, wait === undefined ? 0 : clock.monotonicMs() + wait.afterMs, followsPulls(lane), wait?.fault);
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
