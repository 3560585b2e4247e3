/**
 * Pull: from the source into the spool. The best version that is wanted is claimed, when the spool has room for it; `pull-job.ts` moves it; after a
 * fault the table of `retry.ts` says what becomes of it.
 *
 * A kill or power cut at any point leaves a spool file whose first `durable` bytes (journal) are the source's; what lies behind is cut off at
 * the next start. Bytes that have to be written again raise the version's generation, so that no target mixes the two.
 */
import { filter, merge, type Observable } from "./rxjs.js";
import { type Engine, nameOf, routeOf, targets } from "./engine.js";
import { isFault } from "./errors.js";
import type { Lane } from "./lane.js";
import { becameAnother, decide, type Overwritten } from "./overwritten.js";
import { PullJob } from "./pull-job.js";
import { canSend, goesBefore, type VersionRow, type Wanted, wasBrought } from "./rows.js";
import { type Action, actionFor, againText, countsAsTry, reasonOf } from "./retry.js";
import { makeRoom, orTold } from "./space.js";
import { shellWord } from "./text.js";
import type { Transfer } from "./transfers.js";
import { workers } from "./workers.js";

/** Not worth giving way for less. */
const worthBytes = 4 * 2 ** 20;

/** So many that are read are made durable beside those that are being read: on a slow card that takes longer than reading a small file. */
const mostSealing = 4;

export interface Pull {
  readonly version: VersionRow;
  readonly rank: Wanted;
  /** Gives back the slot of the source. */
  readonly leave: () => void;
  transfer?: Transfer;
  /** Its source is not needed any more. */
  sealing?: true;
}

export function pullWorkers(engine: Engine, lane: Lane, stop: AbortSignal): Observable<Pull> {
  const wake$ = merge(lane.wake$, engine.work$.pipe(filter(() => lane.attached)));
  let sealing = 0;
  return workers<Pull>(wake$, stop, {
    slots: () => (lane.attached ? lane.slots("source") + Math.min(sealing, mostSealing) : 0),
    claim: () => claim(engine, lane, stop),
    run: async (pull, signal) => {
      const read = () => {
        pull.sealing = true;
        sealing += 1;
        pull.leave();
        engine.work$.next();
      };
      await run(engine, lane, pull, signal, read);
      if (pull.sealing === true) sealing -= 1;
    },
    givesWay: async (all) => {
      const { queue, spool } = engine;
      const running = all.filter((pull) => pull.sealing !== true);
      if (running.length === 0) return undefined;
      if (lane.hurried) return running[0];
      const best = queue.wanted(lane.name, lane.media, targets(engine, true), 1)[0];
      const version = best === undefined ? undefined : queue.version(best.version);
      if (best === undefined || version === undefined) return undefined;
      const last = running.reduce((a, b) => (goesBefore(a.rank, b.rank) ? b : a));
      const left = last.version.size - (last.transfer?.offset ?? 0);
      if (!goesBefore(best, last.rank) || left <= worthBytes) return undefined;
      // What could not begin in its place must not stop it.
      if (waits(engine, version)) return undefined;
      return version.store !== "spool" || (await spool.lacks(version.id, version.size)) === 0 ? last : undefined;
    },
  });
}

async function claim(engine: Engine, lane: Lane, stop: AbortSignal): Promise<Pull | undefined> {
  const { queue, spool } = engine;
  if (!lane.attached || !lane.free) return undefined;
  let full: string | undefined;
  // What an attached target waits for goes first, and may push out what only waits for targets that are away.
  for (const reachable of [true, false]) {
    for (const rank of queue.wanted(lane.name, lane.media, targets(engine, reachable))) {
      const version = queue.version(rank.version);
      // While room was sought for one before it, a longer one was found.
      if (version === undefined || version.state === "gone" || waits(engine, version)) continue;
      if (canSend(version) && (version.store !== "spool" || version.spooled > 0)) {
        // The copy here is whole, whatever became of the source's; or the push reads it there, in place or straight through.
        await engine.journal.apply(() => queue.bytesCome(version.id, [...engine.lanes.keys()]));
        engine.work$.next();
        continue;
      }
      // Of room that is being made nothing is for targets that are away.
      const mayTake = reachable || engine.transfers.makingRoom === 0;
      let fits = version.store !== "spool" || (mayTake && (await spool.reserve(version.id, version.size)));
      if (!fits && !(await spool.canEverHold(version.size))) {
        let outgrown: Overwritten[] = [];
        await engine.journal.apply(() => {
          engine.journal.run("UPDATE versions SET store = 'through', durable = 0, spooled = 0 WHERE id = ?", version.id);
          engine.journal.run("UPDATE deliveries SET state = 'ready' WHERE version = ? AND state = 'wanting'", version.id);
          // Nobody reads it before it is sent.
          outgrown = queue.basesOf(version).flatMap((base) => decide(engine, base, "grown"));
        });
        for (const { version: base, targets } of outgrown)
          engine.events.say(
            "warn",
            "changed",
            `${nameOf(base)}: has ${version.size} bytes now, too many for the spool, and goes as it is: where it did not grow from the ${base.size} that it had, ${targets.join(", ")} never get${targets.length === 1 ? "s" : ""} those`,
            { device: base.source, path: base.path },
          );
        if (version.spooled > 0) await orTold(engine, version.id, () => spool.drop(version.id));
        engine.work$.next();
        continue;
      }
      fits ||= reachable && (await makeRoom(engine, version, stop));
      if (!fits) {
        full ??= nameOf(version);
        continue;
      }
      const before = queue.comesBefore(version);
      // It was being read when this one was found, and broke off. Read beside this one it might be delivered first.
      if (before?.digest === null) await engine.journal.apply(() => queue.makeWay(before.id));
      // The slot, or the version, may have been taken while space was looked for, or the version been given up.
      const now = queue.version(version.id);
      if (queue.pulling.has(version.id)) continue;
      if (now?.generation !== version.generation || now.state !== version.state || !lane.free || waits(engine, version)) {
        if (now === undefined || now.spooled === 0) spool.forget(version.id);
        else if (now.state !== "sealed") await spool.brokeOff(version.id);
        else spool.comesNoMore(version.id);
        if (!lane.free) return undefined;
        continue;
      }
      engine.transfers.waitForSpace.delete(lane.name);
      queue.pulling.set(version.id, rank);
      return { version: now, rank, leave: lane.occupy() };
    }
  }
  // Only once all was looked at: `--once` ends by it.
  const { waitForSpace } = engine.transfers;
  if (full === undefined) waitForSpace.delete(lane.name);
  else {
    const text = `${full} waits for space in the spool: ${await spool.spaceText()}`;
    if (!waitForSpace.has(lane.name)) engine.events.say("warn", "spool-full", text, { device: lane.name });
    waitForSpace.set(lane.name, text);
  }
  return undefined;
}

/** Its beginning is being read, or is to be proved before that is known to be another: what that comes to is what this one goes on from. */
function waits({ queue, lanes }: Engine, version: VersionRow): boolean {
  if (version.base !== null && queue.pulling.has(version.base)) return true;
  const before = queue.comesBefore(version);
  if (before === undefined) return false;
  if (queue.pulling.has(before.id)) return true;
  // For a target that has left the configuration nobody reads it.
  const isOpen = () =>
    queue.deliveriesOf(before.id).some(({ state, target }) => lanes.has(target) && ["wanting", "ready", "active"].includes(state));
  return before.digest === null && queue.isAllHere(before) && isOpen();
}

/** `read`: called once its source is not needed any more. */
async function run(engine: Engine, lane: Lane, work: Pull, signal: AbortSignal, read: () => void): Promise<void> {
  const { version } = work;
  const { queue, journal } = engine;
  const live = engine.live.begin(version.id, version.generation, version.store === "place" ? 0 : version.durable);
  const source = lane.device.source;
  if (source === undefined) throw new Error(`${lane.name} is no source`);
  work.transfer = engine.transfers.begin(
    {
      id: version.id,
      kind: "pull",
      route: `${version.source} → spool`,
      from: version.source,
      to: "spool",
      path: version.path,
      size: version.size,
    },
    version.durable,
  );
  const route = routeOf(engine, version, work.rank);
  const job = new PullJob(engine, lane, source, version, live, work.transfer, signal, read);
  try {
    await job.run();
    lane.noteSuccess();
    live.seal();
    engine.events.say("info", "pulled", `${nameOf(version)}: whole here (${version.size} bytes)`, {
      device: version.source,
      path: version.path,
      size: version.size,
      route: route?.rules.route.into,
    });
  } catch (error) {
    await settle(engine, lane, version, error, job, signal);
  } finally {
    engine.transfers.end(work.transfer);
    engine.live.end(version.id);
    if (queue.version(version.id)?.state !== "sealed") await engine.spool.brokeOff(version.id);
    else engine.spool.comesNoMore(version.id);
    queue.pulling.delete(version.id);
    await journal.apply(() => {
      const now = queue.version(version.id);
      if (now?.state !== "sealed") queue.bytesStop(version.id);
      if (now?.spooled === 0) engine.spool.forget(version.id);
    });
    work.leave();
    engine.work$.next();
  }
}

/** After a fault: what becomes of the version and its deliveries. */
async function settle(
  engine: Engine,
  lane: Lane,
  version: VersionRow,
  error: unknown,
  { progress, overwritten }: PullJob,
  signal: AbortSignal,
): Promise<void> {
  const { queue, journal, events, clock } = engine;
  const facts = { device: version.source, path: version.path, fault: isFault(error) ? error.kind : "unknown" };
  const waiting = queue.deliveriesOf(version.id).filter(({ state }) => state === "wanting" || state === "ready" || state === "active");
  const tries = progress ? 0 : Math.max(0, ...waiting.map((delivery) => delivery.tries));
  const restarts = Math.max(0, ...waiting.map((delivery) => delivery.restarts));
  // A file that may not be read, on a source that may: only that file is set aside.
  const ofFile = isFault(error, "denied") && (await lane.usable(signal));
  const action: Action = ofFile
    ? { do: "park", fault: "denied" }
    : actionFor(error, { tries, restarts, upMs: engine.upMs() }, engine.random());
  // A medium that was taken out says nothing of the others.
  const out = lane.attached && !lane.holds(version.medium);
  if (!ofFile && !out && !isFault(error, "full")) lane.noteFault(error);
  const reason = reasonOf(error);
  const later = (afterMs: number) =>
    journal.apply(() => {
      journal.run(
        "UPDATE deliveries SET not_before = ?, tries = ?, fault = ?, reason = ? WHERE version = ? AND state IN ('wanting', 'ready', 'active')",
        clock.monotonicMs() + afterMs,
        countsAsTry(error) ? tries + 1 : tries,
        facts.fault,
        reason,
        version.id,
      );
    });
  switch (action.do) {
    case "nothing":
      return;
    case "wait":
      // The first failure leaves the device attached: a second soon after tells whether it is gone.
      await later(lane.attached ? 1000 : 0);
      // The lane says it, once, when the device is gone: a file's word would be the second.
      events.say("debug", "waiting", `${nameOf(version)}: ${reason}; waits for ${lane.name}`, facts);
      return;
    case "again":
      await later(action.afterMs);
      events.say(
        tries === 0 ? "warn" : "debug",
        "again",
        `${nameOf(version)}: ${reason}; again in ${Math.ceil(action.afterMs / 1000)} s`,
        facts,
      );
      return;
    case "restart":
      await journal.commit(() => {
        journal.run(
          "UPDATE versions SET generation = generation + 1, durable = 0, safest = ? WHERE id = ?",
          action.safest ? 1 : 0,
          version.id,
        );
        journal.run(
          "UPDATE deliveries SET restarts = restarts + 1, fault = ?, reason = ? WHERE version = ? AND state IN ('wanting', 'ready', 'active')",
          facts.fault,
          reason,
          version.id,
        );
      });
      events.say("warn", "restarted", `${nameOf(version)}: ${reason}; it is read again from the first byte`, facts);
      return;
    case "leave":
    case "park": {
      const fault = action.do === "park" ? action.fault : facts.fault;
      for (const delivery of waiting) await queue.park(delivery.id, fault, reason);
      const [one, other] = waiting;
      const what = one !== undefined && other === undefined ? one.id : shellWord(nameOf(version));
      const targets = waiting.map(({ target }) => target);
      events.say("error", "parked", `${nameOf(version)}: set aside: ${reason}${againText(fault, version.source, targets, what)}`, facts);
      return;
    }
    case "relist":
      await giveUpPulled(engine, lane, version, error, overwritten && version.digest === null, facts);
      engine.relist$.next(version.source);
  }
}

/** Its source has it no more, or another, and not all of it came: it will never be whole. */
async function giveUpPulled(
  engine: Engine,
  lane: Lane,
  version: VersionRow,
  error: unknown,
  /** All of it had come, and nobody knows what it was. */
  overwritten: boolean,
  facts: { readonly device: string; readonly path: string; readonly fault: string },
): Promise<void> {
  const { queue, journal, events } = engine;
  const reason = reasonOf(error);
  let isBrought = false;
  if (version.digest !== null && isFault(error, "changed")) await becameAnother(engine, version, reason);
  else
    await journal.commit(() => {
      const open = queue.openOf(version.id);
      queue.gone(version, !isFault(error, "missing"));
      queue.drop(version.id, reason);
      // What `status` tells of it; of the others the push has said it, or they have arrived.
      const lost = open.filter((row) => !wasBrought(row));
      for (const { id } of lost) journal.run("UPDATE deliveries SET fault = ? WHERE id = ?", overwritten ? "overwritten" : facts.fault, id);
      isBrought = open.length > 0 && lost.length === 0;
    });
  if (isBrought) events.say("warn", "changed", `${nameOf(version)}: ${reason}; it cannot be sent again`, facts);
  else if (overwritten || isFault(error, "missing")) {
    const setAside = async ({ id }: VersionRow) => {
      const kept = await engine.spool.setAside(id);
      await journal.apply(() => journal.run("UPDATE versions SET spooled = 0 WHERE id = ?", id));
      return kept;
    };
    const half = overwritten ? undefined : queue.halfBefore(version);
    const kept = (await setAside(version)) ?? (half === undefined ? undefined : await setAside(half));
    const what = overwritten
      ? `another file took its place at ${lane.name} after all of it came (${version.size} bytes), and before that was proved`
      : `has gone from ${lane.name} before it was whole here (${version.durable} of ${version.size} bytes)`;
    events.say("error", "lost", `${nameOf(version)}: ${what}${kept === undefined ? "" : `; what came of it is kept as ${kept}`}`, facts);
  } else events.say("warn", "changed", `${nameOf(version)}: ${reason}; it is looked at anew`, facts);
}
