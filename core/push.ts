/**
 * Push: from here to one target. The best delivery that is ready is claimed; `push-job.ts` moves and publishes it; the receipt is durable before
 * anybody hears of it; after a fault the table of `retry.ts` says what becomes of it.
 *
 * A kill or power cut leaves a partial at the target, named after the upload: the next start asks for its size and goes on.
 */
import { filter, merge, type Observable } from "./rxjs.js";
import { type Engine, followsPulls, nameOf, routeOf } from "./engine.js";
import { type Fault, isFault } from "./errors.js";
import { makeRoom } from "./full-target.js";
import type { Lane } from "./lane.js";
import { decided, putOffHeld } from "./limits.js";
import { becameAnother } from "./overwritten.js";
import { PushJob } from "./push-job.js";
import { goesBefore, type DeliveryRow, type VersionRow } from "./rows.js";
import {
  type Action,
  actionFor,
  againText,
  backoffMs,
  countsAsTry,
  fullMs,
  fullMsAfter,
  reasonOf,
  refusedMsAfter,
  costlyRefusedMsAfter,
  toldFailed,
} from "./retry.js";
import { joinSignals } from "./signals.js";
import type { Transfer } from "./transfers.js";
import { mayBegin } from "./turns.js";
import { giveUp, isWhole } from "./space.js";
import { workers } from "./workers.js";

const worthBytes = 4 * 2 ** 20;
export interface Push {
  readonly delivery: DeliveryRow;
  /** Once it runs: for a person who gives it up. */
  stop?: (reason: Fault) => void;
  transfer?: Transfer;
}

export function pushWorkers(engine: Engine, lane: Lane, stop: AbortSignal): Observable<Push> {
  const wake$ = merge(lane.wake$, engine.work$.pipe(filter(() => lane.attached)));
  const running = new Set<Push>();
  const fits = ({ size }: DeliveryRow) => {
    const bytes = [...running].reduce((sum, { delivery }) => sum + delivery.size, 0);
    return mayBegin({ count: running.size, bytes }, size, lane.slots("target"), lane.pipeline);
  };
  return workers<Push>(wake$, stop, {
    slots: () =>
      !lane.takes ? 0 : lane.isTight ? Math.min(lane.slots("target"), 1) : Math.max(lane.slots("target"), lane.pipeline?.uploads ?? 0),
    claim: async () => {
      if (!lane.takes) return undefined;
      const refusedLast = lane.device.target?.features.singleShot === true;
      await putOffHeld(engine, lane, refusedLast);
      const delivery = await engine.queue.claim(lane.name, fits, { refusedLast, discardsFirst: lane.isTight });
      if (delivery === undefined || delivery === "full") return delivery;
      const push: Push = { delivery };
      engine.queue.pushing.set(delivery.id, push);
      return push;
    },
    run: async (push, signal, stop) => {
      push.stop = stop;
      running.add(push);
      await run(engine, lane, push, signal).finally(() => running.delete(push));
    },
    givesWay: (running) => {
      if (lane.device.target?.features.resume !== true) return undefined;
      const last = running.reduce((a, b) => (goesBefore(a.delivery, b.delivery) ? b : a));
      if (last.delivery.size - (last.transfer?.offset ?? 0) <= worthBytes) return undefined;
      const best = lane.isTight ? engine.queue.bestBefore(lane.name, last.delivery) : engine.queue.best(lane.name);
      return best !== undefined && goesBefore(best, last.delivery) ? last : undefined;
    },
  });
}

async function run(engine: Engine, lane: Lane, work: Push, signal: AbortSignal): Promise<void> {
  const { delivery } = work;
  const { queue, clock } = engine;
  const target = lane.device.target;
  const version = queue.version(delivery.version);
  if (target === undefined || version === undefined)
    throw new Error(`${lane.name} is no target, or ${delivery.version} is not in the journal`);
  // What cannot be resumed is not broken off by a condition that is no longer met.
  const gates = target.features.resume ? [lane.gate?.signal, routeOf(engine, version, delivery)?.gate?.signal] : [];
  const stops = gates.filter((gate) => gate !== undefined);
  const joined = joinSignals(signal, ...stops);
  const job = new PushJob(engine, lane, target, version, work, joined.signal);
  try {
    const receipt = delivery.state === "discard" ? await job.discard() : await job.run();
    if (receipt === undefined)
      await engine.journal.apply(() =>
        engine.journal.run("UPDATE deliveries SET state = 'dropped', begun = 0 WHERE id = ? AND state = 'discard'", delivery.id),
      );
    else {
      await queue.acknowledge(delivery.id, receipt);
      await decided(engine, version, lane.name);
      engine.events.say(
        "info",
        "delivered",
        `${nameOf(version)} → ${lane.name}:${receipt.path} (${receipt.size} bytes, proved by ${receipt.proof})${receipt.url === undefined ? "" : `: ${receipt.url}`}`,
        { ...receipt },
      );
    }
    lane.noteSuccess();
    queue.sentFrom.delete(delivery.id);
    queue.proved.delete(delivery.id);
    if (receipt !== undefined) {
      // It, or others, found no room before: somebody made some.
      const room = job.sentBytes > 0 || delivery.size === 0 ? queue.rooms.took(delivery, (id) => queue.mayTake(id)) : undefined;
      if (room?.found === true) await engine.journal.apply(() => queue.roomAt(lane.name, delivery.size, room, clock.monotonicMs()));
      lane.noteTaken();
    }
  } catch (error) {
    await settle(engine, lane, version, delivery, error, job, signal);
  } finally {
    joined.release();
    job.close();
    if (work.transfer !== undefined) engine.transfers.end(work.transfer);
    queue.pushing.delete(delivery.id);
    if (queue.outgrown.delete(version.id)) engine.relist$.next(version.source);
    engine.work$.next();
  }
}

/** After a fault: what becomes of the delivery. */
async function settle(
  engine: Engine,
  lane: Lane,
  version: VersionRow,
  delivery: DeliveryRow,
  error: unknown,
  job: PushJob,
  signal: AbortSignal,
): Promise<void> {
  const { queue, journal, events, clock } = engine;
  const ofSource = job.broken !== undefined;
  // A plugin may wrap the fault that its stream ended with: the stream's own word counts. What a target itself misses is not the source's file.
  const cause = job.broken ?? (isFault(error, "missing", "changed") ? new Error(error.message, { cause: error }) : error);
  const facts = {
    ...{ device: lane.name, path: delivery.path, id: delivery.id, fault: isFault(cause) ? cause.kind : "unknown" },
    ...{ from: version.source, source: version.path, to: lane.name },
  };
  // Tries without room say nothing of another fault, nor the other way round.
  const differs = (delivery.fault === "full") !== (facts.fault === "full");
  const tries = job.progress || (differs && !job.wasted) ? 0 : delivery.tries;
  const sourceLane = engine.lanes.get(version.source);
  // A file that may not be read, on a source that may: only that file is set aside.
  const ofFile = ofSource && isFault(cause, "denied") && sourceLane !== undefined && (await sourceLane.usable(signal));
  const ofLogin = !ofSource && isFault(cause, "denied") && lane.attached;
  // What a single shot's server says to a login, or a key, only a file tells. It is away for a while, and whether this file is what it refuses shows by another, which goes first then.
  const afterOthers = ofLogin && lane.device.target?.features.singleShot === true;
  // A file that may not be written, on a target where others may: its device is not away for that, and the others do not wait behind it.
  const refused = ofLogin && !afterOthers && (await lane.usable(signal, true));
  // A disk that came back may have lost what its cache held: it is asked anew.
  const replugged = !ofSource && isFault(cause, "conflict") && (lane.state.epoch !== job.epoch || !lane.attached);
  // It takes away what it has no room for, all of which would go again: others may be smaller.
  const wasted = !ofSource && isFault(cause, "full") && job.wasted;
  const action: Action = ofFile
    ? { do: "park", fault: "denied" }
    : replugged
      ? { do: "again", afterMs: 0 }
      : refused
        ? { do: "again", afterMs: refusedMsAfter(tries) }
        : wasted
          ? { do: "again", afterMs: costlyRefusedMsAfter(tries) }
          : (await isRotten(engine, version, delivery, cause))
            ? { do: "again", afterMs: backoffMs(tries, engine.upMs(), engine.random()) }
            : actionFor(cause, { tries, restarts: delivery.restarts, upMs: engine.upMs() }, engine.random());
  if (ofSource || facts.fault !== "full") queue.rooms.brokeOff(delivery.id);
  const reason = reasonOf(cause);
  const what = `${nameOf(version)} → ${lane.name}`;
  if (!ofSource && !refused) lane.noteFault(isFault(cause, "indoubt") ? cause.cause : cause);
  else if (ofSource && !ofFile && !isFault(cause, "aborted") && sourceLane?.holds(version.medium) === true) sourceLane.noteFault(cause);
  const again = (afterMs: number, counted: number) =>
    queue.release(delivery.id, clock.monotonicMs() + afterMs, followsPulls(lane), { kind: facts.fault, reason, tries: counted });
  if (delivery.state === "discard") {
    await journal.apply(() => journal.run("UPDATE deliveries SET not_before = ? WHERE id = ?", clock.monotonicMs() + 30_000, delivery.id));
    events.say("warn", "again", `${what}: cannot discard what is left there: ${reason}; again in 30 s`, facts);
    return;
  }
  switch (action.do) {
    case "nothing":
      // It waits for a pull, gives way, or the daemon stops. A little later, so that others get their turn.
      await queue.release(delivery.id, ofSource ? clock.monotonicMs() + 1000 : 0, followsPulls(lane));
      return;
    case "wait":
      if (afterOthers) await again(costlyRefusedMsAfter(tries), tries + 1);
      else await again(lane.attached || ofSource ? 1000 : 0, tries);
      if (ofSource && sourceLane?.holds(version.medium) !== true)
        await journal.apply(() => queue.sourceAway(version.source, version.medium));
      // The lane says it, once, when the device is gone: a file's word would be the second.
      events.say("debug", "waiting", `${what}: ${reason}; waits for ${ofSource ? version.source : lane.name}`, facts);
      return;
    case "again": {
      // It is the target that wants peace, or space, not this one file: of that the first file's word is enough.
      const ofTarget = !ofSource && isFault(cause, "throttled", "full");
      const known = delivery.fault === facts.fault;
      const isFull = ofTarget && facts.fault === "full";
      // Nothing became free since the try before.
      const inVain = isFull ? queue.rooms.refused(delivery, { progress: job.progress, wasted }, clock.monotonicMs()) : 0;
      const afterMs =
        inVain > 0 && !wasted ? fullMsAfter(inVain - 1, 1 + queue.readyFor(lane.name), clock.monotonicMs() - job.begunMs) : action.afterMs;
      await again(afterMs, refused || wasted || inVain > 0 || countsAsTry(cause) ? tries + 1 : tries);
      const inARow = tries === 0 && (refused || (!ofSource && isFault(cause, "transient"))) ? lane.noteFailed() : 0;
      const isNews = ofTarget
        ? lane.stopped === undefined || !(known || delivery.fault === null)
        : tries === 0 && inARow <= toldFailed && !(known && facts.fault === "indoubt");
      if (ofTarget && facts.fault === "throttled") lane.notePutOff();
      // What it holds of its source others may need now.
      job.close();
      if (isFull) lane.noteFull();
      const failedMs = clock.monotonicMs();
      if (inVain > 0 && (await makeRoom(engine, lane, delivery, inVain, signal))) return;
      // What was asked meanwhile is of its turn, not of the next one's.
      if (ofTarget) lane.pauseTarget(isFull ? Math.max(0, fullMs - (clock.monotonicMs() - failedMs)) : afterMs, reason);
      events.say(
        isNews ? "warn" : "debug",
        "again",
        `${what}: ${reason}; ${facts.fault === "indoubt" ? "looked for" : "again"} in ${Math.ceil(afterMs / 1000)} s`,
        facts,
      );
      if (inARow === toldFailed)
        events.say(
          "warn",
          "again",
          `${lane.name}: ${toldFailed} files in a row failed there: more of them are not told one by one until it takes one; "status" counts them`,
          { device: lane.name, fault: facts.fault },
        );
      return;
    }
    case "restart": {
      // What is there is taken away when it begins again: the target may be gone now. The safest reading of the source is a new pull: a new generation, for which every upload begins anew. Not where the
      // copy here is what it was: another target may need it, and its source may have it no more.
      const isRead = action.safest && version.store === "spool" && !(await isWhole(engine, version));
      await journal.commit(() => {
        journal.run("UPDATE deliveries SET restarts = restarts + 1 WHERE id = ?", delivery.id);
        const { publishing, elsewhere, ...marks } = queue.marksOf(delivery.id);
        // What the target has of another content did not get the name; what has gone there may have.
        const asked = isFault(cause, "mismatch") ? {} : { publishing, elsewhere };
        queue.setMarks(delivery.id, { ...marks, ...asked, restart: true });
        if (isRead) journal.run("UPDATE versions SET safest = 1 WHERE id = ?", version.id);
      });
      if (isRead) await giveUp(engine, version, "lost");
      await queue.release(delivery.id, 0, followsPulls(lane), { kind: facts.fault, reason, tries });
      events.say("warn", "restarted", `${what}: ${reason}; it is sent again from the first byte`, facts);
      return;
    }
    case "relist":
      // The finder sees what became of it.
      await again(1000, tries);
      engine.relist$.next(version.source);
      if (isFault(cause, "missing", "changed")) await giveUpVersion(engine, version, reason, what, facts);
      return;
    case "leave":
      await journal.commit(() => queue.leave(delivery.id, reason));
      await decided(engine, version, lane.name);
      events.say("info", "left", `${what}: nothing for this target: ${reason}`, facts);
      return;
    case "park":
      await queue.park(delivery.id, action.fault, reason);
      events.say(
        "error",
        "parked",
        `${what}: set aside: ${reason}${againText(action.fault, version.source, [lane.name], delivery.id)}`,
        facts,
      );
  }
}

/** What came there is another again, and it is the copy here that is damaged, once more or still: that is given up. */
async function isRotten(engine: Engine, { id, store }: VersionRow, { restarts }: DeliveryRow, fault: unknown): Promise<boolean> {
  const now = engine.queue.version(id);
  if (restarts === 0 || !isFault(fault, "mismatch") || store !== "spool" || now?.state !== "sealed" || now.digest === null) return false;
  return !(await isWhole(engine, now)) && giveUp(engine, now, "lost");
}

/** The source's file is gone or another, and there is no copy here: this version will never be whole. */
async function giveUpVersion(
  engine: Engine,
  version: VersionRow,
  reason: string,
  what: string,
  facts: Readonly<Record<string, unknown>>,
): Promise<void> {
  const now = engine.queue.version(version.id);
  if (now === undefined || (now.store === "spool" && now.state === "sealed")) return;
  const isAnother = facts.fault === "changed";
  // What was whole once may be lost with that.
  if (isAnother && now.digest?.startsWith("sha256:") === true) await becameAnother(engine, now, reason);
  else
    await engine.journal.commit(() => {
      engine.queue.gone(version, isAnother);
      engine.queue.drop(version.id, reason);
    });
  if (isAnother) engine.events.say("warn", "changed", `${what}: ${reason}; it is looked at anew`, facts);
  else engine.events.say("error", "lost", `${what}: ${reason}; this version cannot be sent any more`, facts);
}
