/**
 * Room in the spool: what is delivered goes after its retention, or at once when room is needed; then what waits only for targets that are
 * away and that its source still holds, to be pulled again later. The only copy of a file is never given up, also when all its deliveries were
 * forgotten: it stays until its source is seen to hold it, or a person forgets it a second time.
 */
import { createReadStream } from "node:fs";
import { digestsOf } from "./digest.js";
import { type Engine, nameOf, targets } from "./engine.js";
import { abortedFault, Fault, isFault, textOfErrno, throwIfAborted } from "./errors.js";
import { temporaryName } from "./fs.js";
import { notePassed } from "./passed.js";
import { hasLeft, type VersionRow } from "./rows.js";

/** Deliveries that may yet need the bytes. */
const stillWaits = "('wanting', 'ready', 'active', 'parked')";

const holdsMs = 10_000;

/** So many copies are looked at in one go. */
const mostAtOnce = 1000;

/** Gives up spool copies until `version` fits; true when its space is reserved. */
export async function makeRoom(engine: Engine, version: Pick<VersionRow, "id" | "size">, stop: AbortSignal): Promise<boolean> {
  const reserve = () => engine.spool.reserve(version.id, version.size);
  for (const row of done(engine, Number.MAX_SAFE_INTEGER)) {
    if (stop.aborted) return false;
    if ((await isElsewhere(engine, row, stop)) && (await giveUp(engine, row, "delivered")) && (await reserve())) return true;
  }
  const attached = targets(engine, true);
  const marks = attached.map(() => "?").join(", ");
  // What was delivered meanwhile goes first: it is not pulled again.
  const lacking = await engine.spool.lacks(version.id, version.size);
  const waiting = engine.journal.all<VersionRow & { readonly waits: 0 | 1 }>(
    `SELECT *, EXISTS (SELECT 1 FROM deliveries d WHERE d.version = v.id AND d.state IN ${stillWaits}) AS waits FROM versions v WHERE spooled > 0 AND id <> ?
     AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.version = v.id AND (d.state = 'active' OR (d.state IN ('wanting', 'ready') AND d.target IN (${marks}))))
     ORDER BY waits, found_ms LIMIT ${mostAtOnce}`,
    version.id,
    ...attached,
  );
  const going: typeof waiting = [];
  let bytes = 0;
  for (const row of waiting) {
    if (bytes >= lacking) break;
    if (stop.aborted) return false;
    const mayGo = () => (row.waits === 0 ? isElsewhere(engine, row, stop) : sourceHolds(engine, row, stop));
    const { pulling, releasing } = engine.queue;
    if (row.released !== "superseded" && (pulling.has(row.id) || releasing.has(row.id) || !(await mayGo()))) continue;
    going.push(row);
    bytes += Math.min(row.size, engine.spool.heldBytes(row.id));
  }
  // What is given up in vain is pulled again at once, and again and again; so is what is given up for one while another takes its room.
  if (bytes < lacking && waiting.length < mostAtOnce) return false;
  engine.transfers.makingRoom += 1;
  try {
    return await giveUpAll(engine, going, reserve, stop);
  } finally {
    engine.transfers.makingRoom -= 1;
    engine.work$.next();
  }
}

/** Until `reserve` has what it wants. */
async function giveUpAll(
  engine: Engine,
  going: readonly (VersionRow & { readonly waits: 0 | 1 })[],
  reserve: () => Promise<boolean>,
  stop: AbortSignal,
): Promise<boolean> {
  const away = targets(engine, false);
  for (const row of going) {
    if (stop.aborted) return false;
    if (row.released === "superseded") {
      if ((await giveUpBegun(engine, row)) && (await reserve())) return true;
      continue;
    }
    // Since it was asked for this one, it was for others.
    if (row.waits === 1 && going.length > 1 && !(await sourceHolds(engine, row, stop))) continue;
    if (!(await giveUp(engine, row, row.waits === 0 ? "delivered" : "waits"))) continue;
    if (row.waits === 1)
      engine.events.say(
        "info",
        "given-up",
        `${nameOf(row)}: its copy here makes room; ${row.source} still has it, and it is pulled again when ${away.join(", ") || "its target"} can take it`,
        {
          device: row.source,
          path: row.path,
        },
      );
    if (await reserve()) return true;
  }
  return reserve();
}

/** A file of no version. */
export interface HeldCopy {
  readonly path: string;
  drop(): Promise<void>;
}

/**
 * A copy of what comes, with its space promised to it like to any file; not durable, and gone with the next start. Throws Fault "full" where it has no
 * room, "transient" where other than `size` bytes came.
 */
export async function holdCopy(engine: Engine, size: number, bytes: AsyncIterable<Buffer>, stop: AbortSignal): Promise<HeldCopy> {
  const { spool } = engine;
  const id = temporaryName();
  const ever = await spool.canEverHold(size);
  if (!ever || !((await spool.reserve(id, size)) || (await makeRoom(engine, { id, size }, stop)))) {
    throwIfAborted(stop);
    throw new Fault("full", `it is copied to the spool first, where it has no room: ${await spool.spaceText()}`);
  }
  const drop = () => spool.drop(id);
  try {
    const writer = await spool.writer(id, 0);
    try {
      for await (const chunk of bytes) await writer.append(chunk);
      await writer.flush();
    } finally {
      await writer.close();
      spool.comesNoMore(id);
    }
    throwIfAborted(stop);
    if (writer.offset !== size) throw new Fault("transient", `${writer.offset} bytes came, not ${size}`);
    return { path: spool.pathOf(id), drop };
  } catch (error) {
    await drop();
    throw error;
  }
}

/** Retention: delivered files older than `keep` leave the spool. Does nothing while the clock is not trusted. */
export async function expire(engine: Engine, stop: AbortSignal): Promise<void> {
  if (!engine.clock.trusted()) return;
  await notePassed(engine);
  const beforeMs = engine.clock.wallMs() - engine.config.spool.keep;
  const begun = engine.journal.all<VersionRow>(
    `SELECT * FROM versions v WHERE spooled > 0 AND released = 'superseded' AND sealed_ms < ?
     AND EXISTS (SELECT 1 FROM deliveries d WHERE d.version = v.id AND d.state IN ${stillWaits}) LIMIT 1000`,
    beforeMs,
  );
  for (const row of begun) {
    if (stop.aborted) return;
    await giveUpBegun(engine, row);
  }
  for (const row of done(engine, beforeMs)) {
    if (stop.aborted) return;
    if (await isElsewhere(engine, row, stop)) await giveUp(engine, row, "delivered");
  }
}

/** What was begun of a version would go to its end, though a longer one holds all of it. False where it is being sent. */
async function giveUpBegun(engine: Engine, row: VersionRow): Promise<boolean> {
  const { queue, journal } = engine;
  if (queue.deliveriesOf(row.id).some(({ id }) => queue.pushing.has(id))) return false;
  await journal.commit(() => queue.drop(row.id, "superseded: the file grew"));
  return giveUp(engine, row, "delivered");
}

/** Copies that nothing waits for any more, also what is half here (a longer version took it over; its target had it all the time), the oldest first; those that somebody got before those that nobody did. */
function done(engine: Engine, beforeMs: number): VersionRow[] {
  return engine.journal.all<VersionRow>(
    `SELECT * FROM versions v WHERE spooled > 0 AND COALESCE(sealed_ms, found_ms) < ?
     AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.version = v.id AND d.state IN ${stillWaits})
     ORDER BY NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.version = v.id AND d.state = 'done'), sealed_ms LIMIT 1000`,
    beforeMs,
  );
}

/** Of a copy that nothing waits for: nobody got it, and no longer version has its bytes. Perhaps its source does. */
export function isAlone(engine: Engine, version: VersionRow): boolean {
  const states = engine.queue.deliveriesOf(version.id).map(({ state }) => state);
  const whole = version.state === "sealed" && version.spooled > 0;
  return whole && version.released !== "superseded" && !states.some((state) => state === "done" || stillWaits.includes(`'${state}'`));
}

async function isElsewhere(engine: Engine, version: VersionRow, stop: AbortSignal): Promise<boolean> {
  return !isAlone(engine, version) || (await sourceHolds(engine, version, stop));
}

/**
 * Gives up a version's copy: what is delivered; what waits, or cannot be read any more, goes back to be pulled, as another generation. False, and
 * nothing is done, where that is not so any more. The journal first: a file without a row is removed at start-up.
 */
export async function giveUp(engine: Engine, version: VersionRow, why: "delivered" | "waits" | "lost"): Promise<boolean> {
  const { journal, queue, spool } = engine;
  const given = await unwritten(engine, version, async () => {
    if (why === "lost" && (await madeAnew(engine, version))) return true;
    const given = await journal.commit(() => {
      const now = queue.version(version.id);
      const states = queue.deliveriesOf(version.id).map(({ state }) => state);
      if (now === undefined || now.spooled === 0 || now.generation !== version.generation) return false;
      // Its source was looked at a moment ago, and was acted on since, perhaps.
      if (why === "waits" && (now.released !== version.released || queue.leaving.isDoubted(version.id))) return false;
      if (why === "waits" && isFollowed(engine, now)) return false;
      if (why === "delivered" ? states.some((state) => stillWaits.includes(`'${state}'`)) : why === "waits" && states.includes("active"))
        return false;
      journal.run("UPDATE versions SET spooled = 0 WHERE id = ?", version.id);
      if (now.state === "gone" || (why === "delivered" && now.state === "sealed")) return true;
      journal.run("UPDATE versions SET state = 'found', durable = 0, generation = generation + 1 WHERE id = ?", version.id);
      queue.bytesStop(version.id);
      return true;
    });
    if (given && why === "lost") tellAside(engine, version, await orTold(engine, version.id, () => spool.setAside(version.id)));
    else if (given) await orTold(engine, version.id, () => spool.drop(version.id));
    return given;
  });
  if (why !== "delivered") engine.work$.next();
  return given;
}

/** Nobody may begin to write that file meanwhile. False, and nothing is done, where somebody does, or it is being taken from its source: there it is no more in a moment. */
async function unwritten({ queue }: Engine, { id, path }: VersionRow, work: () => Promise<boolean>): Promise<boolean> {
  if (queue.pulling.has(id) || queue.releasing.has(id)) return false;
  queue.pulling.set(id, { weight: 0, rank: 0, path });
  try {
    return await work();
  } finally {
    queue.pulling.delete(id);
  }
}

/**
 * A copy that is damaged is made anew, as another generation, where a longer version that is whole here begins with it: its source may be away, and that one waits until it has ended. Nobody may write that
 * file meanwhile.
 */
export async function madeAnew(engine: Engine, version: VersionRow): Promise<boolean> {
  const { journal, queue, spool } = engine;
  const { id, source, path, medium, size, generation } = version;
  const now = queue.version(id);
  if (now?.generation !== generation || now.state === "gone") return false;
  const longer = journal.all<VersionRow>(
    "SELECT * FROM versions WHERE source = ? AND path = ? AND medium = ? AND size > ? AND state = 'sealed' AND spooled > 0 ORDER BY found_ms",
    source,
    path,
    medium,
    size,
  );
  for (const whole of longer) {
    if (size === 0 || !(await grewFrom(engine, whole, version))) continue;
    try {
      await spool.replace(id, whole.id, size);
      if (!(await isWhole(engine, version))) return false;
    } catch (error) {
      engine.events.say("warn", "spool-damaged", textOfErrno(error, `the spool file ${spool.pathOf(id)} cannot be made anew`));
      return false;
    }
    await journal.commit(() => {
      journal.run("UPDATE versions SET state = 'sealed', durable = size, spooled = size, generation = generation + 1 WHERE id = ?", id);
      journal.run("UPDATE deliveries SET state = 'ready' WHERE version = ? AND state = 'wanting'", id);
    });
    spool.hold(id, size);
    const text = `${nameOf({ source, path })}: its copy here was damaged, and is made anew from that of the longer version`;
    engine.events.say("warn", "spool-damaged", text, { device: source, path });
    return true;
  }
  return false;
}

/** The same while others may want to write it. */
export async function remade(engine: Engine, version: VersionRow): Promise<boolean> {
  const done = await unwritten(engine, version, () => madeAnew(engine, version));
  if (done) engine.work$.next();
  return done;
}

/** One file that its medium has damaged keeps no other waiting: what cannot be done with it is told. */
export async function orTold<T>(engine: Engine, id: string, work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    engine.events.say("warn", "spool-damaged", textOfErrno(error, `the spool file ${engine.spool.pathOf(id)} cannot be removed`));
    return undefined;
  }
}

/** Whether the copy here is what was whole here, by reading it. */
export async function isWhole(engine: Engine, version: VersionRow): Promise<boolean> {
  return version.digest !== null && beginsWith(engine, version, version.size, version.digest);
}

/** Whether so many bytes of the copy here have that digest. */
async function beginsWith({ spool }: Engine, { id }: VersionRow, bytes: number, digest: string): Promise<boolean> {
  const read = createReadStream(spool.pathOf(id), { highWaterMark: 2 ** 20, end: Math.max(bytes, 1) - 1 });
  const [found] = await digestsOf(read, ["sha256"]).catch(() => []);
  return found === digest;
}

/** Whether the copy here begins with all of a shorter version. */
export async function grewFrom(engine: Engine, whole: VersionRow, { size, digest }: VersionRow): Promise<boolean> {
  return digest !== null && size <= whole.size && (await beginsWith(engine, whole, size, digest));
}

/** Of what could not be used as it was here. */
export function tellAside({ events }: Engine, version: Pick<VersionRow, "source" | "path">, at: string | undefined): void {
  if (at === undefined) return;
  events.say("warn", "spool-damaged", `${nameOf(version)}: what was here of it is kept as ${at}, until it is whole here again`, {
    device: version.source,
    path: version.path,
  });
}

/** It was whole here, and a listing saw something else in its place since. */
function isFollowed({ queue }: Engine, version: VersionRow): boolean {
  return version.state === "sealed" && queue.latest(version.source, version)?.id !== version.id;
}

/** The source is attached, and still has this very version. */
export async function sourceHolds(engine: Engine, version: VersionRow, stop: AbortSignal): Promise<boolean> {
  const lane = engine.lanes.get(version.source);
  if (lane?.holds(version.medium) !== true || lane.device.source === undefined || version.state === "gone") return false;
  // What is there after it left its place, or may have, is another, or not known.
  if (hasLeft(version) || engine.queue.leaving.isDoubted(version.id) || isFollowed(engine, version)) return false;
  const asking = new AbortController();
  const end = () => asking.abort(abortedFault(stop));
  const timer = setTimeout(end, holdsMs);
  stop.addEventListener("abort", end, { once: true });
  try {
    const now = await lane.device.source.stat(version.path, asking.signal);
    return (
      now?.size === version.size &&
      (now.medium ?? "") === version.medium &&
      (version.modified_ms === null || now.modifiedMs === undefined || now.modifiedMs === version.modified_ms)
    );
  } catch (error) {
    // A source that cannot say does not hold it, as far as is known.
    if (isFault(error)) return false;
    throw error;
  } finally {
    clearTimeout(timer);
    stop.removeEventListener("abort", end);
  }
}
