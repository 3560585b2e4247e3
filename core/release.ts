/**
 * Release: when every required delivery of a version has its receipt, the route's `afterDelivery` acts on the source. Only what the receipts cover, only
 * what was proved by content (unless the route says `trustSize`), and only after the source's file was looked at once more. What a target that is not
 * required may still get is whole here first.
 *
 * The record is written after the act: after a power cut between the two the file is already gone, which is success.
 */
import { createReadStream } from "node:fs";
import { digestsOf } from "./digest.js";
import { filter, merge, type Observable } from "./rxjs.js";
import { namesIn } from "./config.js";
import { type Engine, nameOf, type RouteLane } from "./engine.js";
import { entriesIfAny } from "./entries.js";
import { Fault, isFault } from "./errors.js";
import { intervalOf } from "./find.js";
import { folded, type Folding } from "./folded.js";
import { isConsidered, unreadAt } from "./considered.js";
import { heldNow } from "./limits.js";
import type { Lane } from "./lane.js";
import { temporaryName } from "./fs.js";
import type { Digest, Tree } from "./plugin.js";
import { otherName } from "./names.js";
import { parentOf } from "./paths.js";
import { digestAtSource } from "./read-again.js";
import {
  deliveredDigest,
  type DeliveryRow,
  hasLeft,
  leftItsPlace,
  keptUntilKey,
  olderKey,
  receiptsIn,
  stampOf,
  type StoredReceipt,
  type VersionRow,
} from "./rows.js";
import { reasonOf, toldFailed } from "./retry.js";
import { durationText } from "./text.js";
import { missedAt } from "./verify.js";
import { workers } from "./workers.js";

/** Housekeeping wakes every minute: not much later than this. */
const againMs = 30_000;
const longestMs = 3_600_000;

/** One at a time: a delete must not race with another. */
export function releaseWorkers(engine: Engine, lane: Lane, stop: AbortSignal): Observable<VersionRow> {
  const known = new Set<string>();
  const expectArchive = archiveLooks(engine, lane);
  // A route or target that is new may want the file too.
  const isKnown = (medium: string) => {
    if (!known.has(medium) && isConsidered(engine, lane.name, medium)) known.add(medium);
    return known.has(medium);
  };
  return workers<VersionRow>(merge(lane.wake$, engine.work$.pipe(filter(() => lane.attached))), stop, {
    slots: () => (lane.attached && lane.media.some(isKnown) ? 1 : 0),
    claim: async () => {
      const toCopy: VersionRow[] = [];
      const version = next(engine, lane, isKnown, toCopy);
      // In the same turn of the loop: nobody can send it again in between.
      if (version !== undefined) engine.queue.releasing.add(version.id);
      else if (toCopy.length > 0) await copy(engine, toCopy);
      return version;
    },
    run: async (version, signal) => {
      let acts = false;
      try {
        const outcome = await release(engine, lane, version, signal, expectArchive, () => (acts = true));
        const what = typeof outcome === "string" ? outcome : outcome.why;
        engine.queue.left.set(version.id, { source: lane.name, atMs: engine.clock.monotonicMs() });
        // Not waited for: what a power cut takes of it is found out anew.
        const { leaving } = engine.queue;
        await engine.journal.apply(() => {
          engine.journal.run("UPDATE versions SET released = ? WHERE id = ?", what, version.id);
          // Of what is kept, other rules may ask for it again: what was doubted is so still.
          if (hasLeft({ released: what })) leaving.ended(version.id);
          else leaving.untouched(version);
        });
        engine.queue.releasable.delete(version.id);
        engine.queue.uncopied.delete(version.id);
        const { id, source, path, medium } = version;
        if (outcome instanceof Kept) engine.queue.kept.set(id, { source, path, medium });
        else engine.queue.kept.delete(id);
        // A source that is listed only when it attaches would keep it. Elsewhere what is written all the time goes as often as its source is listed, not in a circle.
        if (outcome instanceof Other && intervalOf(lane) === Infinity) engine.relist$.next(lane.name);
        engine.events.say(what.startsWith("kept") ? "warn" : "info", "released", `${nameOf(version)}: ${what}`, {
          device: lane.name,
          path: version.path,
        });
      } catch (error) {
        const { compared, ...left } = engine.queue.releasable.get(version.id) ?? { source: lane.name, notBeforeMs: 0 };
        // Perhaps it was done, and only the answer was lost, or not waited for.
        const isDoubted = acts && !isRefused(error, version);
        if (isDoubted) engine.queue.leaving.doubt(version.id);
        const due = isDoubted || compared === undefined ? left : { ...left, compared };
        engine.queue.releasable.set(version.id, due);
        if (signal.aborted) return;
        // That nothing may be changed there says nothing of reading.
        if (!isFault(error, "denied")) lane.noteFault(error);
        const { failed: before, tries = 0 } = due;
        const isNews = before === undefined;
        const failed = reasonOf(error);
        // Each try is noted on the medium, and what is read each time costs more: what is refused, too, is left for longer and longer.
        const delivered = deliveredDigest(version, engine.queue.deliveriesOf(version.id));
        const isCheap = !isFault(error, "denied") && isSure(engine, version, delivered);
        const afterMs = isCheap ? againMs : Math.min(longestMs, againMs * 2 ** tries);
        const notBeforeMs = engine.clock.monotonicMs() + afterMs;
        engine.queue.releasable.set(version.id, { ...due, notBeforeMs, failed, tries: tries + 1 });
        engine.queue.kept.delete(version.id);
        const inAll = isNews ? failedAt(engine, lane) : Infinity;
        engine.events.say(
          inAll <= toldFailed ? "warn" : "debug",
          "again",
          `${nameOf(version)}: cannot ${version.after} it at its source: ${failed}; again in ${durationText(afterMs / 1000)}`,
          { device: lane.name, path: version.path },
        );
        if (inAll === toldFailed)
          engine.events.say(
            "warn",
            "again",
            `${lane.name}: ${toldFailed} files cannot be deleted or archived there: more of them are not told one by one; "why" tells it of each`,
            { device: lane.name },
          );
      } finally {
        engine.queue.releasing.delete(version.id);
        // Its copy may be given up now.
        if (engine.transfers.waitForSpace.size > 0 && (engine.queue.version(version.id)?.spooled ?? 0) > 0) engine.work$.next();
      }
    },
  });
}

/** The source says that it did not do it. What was moved may be refused its sync. */
function isRefused(error: unknown, { after }: VersionRow): boolean {
  return isFault(error, "denied") || (after === "delete" && isFault(error) && error.notTaken);
}

/** How many files of a source wait because their deletion or archiving failed, as far as that counts: of thousands each would go through all. */
function failedAt({ queue }: Engine, lane: Lane): number {
  let count = 0;
  for (const { source, failed } of queue.releasable.values()) {
    if (source === lane.name && failed !== undefined) count += 1;
    if (count > toldFailed) break;
  }
  return count;
}

/** `isKnown`: whether all routes were asked about what is on a medium, as far as that could be read. `toCopy`: gets what is to be copied to the spool first. */
function next(engine: Engine, lane: Lane, isKnown: (medium: string) => boolean, toCopy: VersionRow[] = []): VersionRow | undefined {
  const isUnread = unreadAt(engine, lane.name);
  const { uncopied, pulling } = engine.queue;
  const isHeld = (version: VersionRow) =>
    !lane.holds(version.medium) || !isKnown(version.medium) || isUnread(version) || mayGrow(lane, version) || pulling.has(version.id);
  return engine.queue.toRelease(lane.name, (version, deliveries) => {
    if (isHeld(version)) return true;
    const open = needing(engine, version, deliveries);
    if (open.length === 0) return false;
    const isRead = open.some(({ state }) => state === "active");
    if (
      version.store === "place" &&
      !isRead &&
      !uncopied.has(version.id) &&
      !open.every((delivery) => isSoonSent(engine, version, delivery))
    )
      toCopy.push(version);
    return true;
  });
}

/** What the spool can never hold is sent from where it is, once that can be. */
async function copy({ journal, queue, spool, work$ }: Engine, versions: readonly VersionRow[]): Promise<void> {
  for (const { id, size } of versions) if (!(await spool.canEverHold(size))) queue.uncopied.add(id);
  await journal.commit(() => {
    for (const { id } of versions) if (!queue.uncopied.has(id)) queue.intoSpool(id);
  });
  work$.next();
}

/** Deliveries to targets that are not required, which wait for the bytes that only the source has whole. A target that has left the configuration gets them no more. */
export function needing(
  { config, queue }: Engine,
  { id, state, spooled }: VersionRow,
  deliveries: readonly DeliveryRow[] = queue.deliveriesOf(id),
): DeliveryRow[] {
  if (state === "sealed" && spooled > 0) return [];
  const open = deliveries.filter(
    ({ required, state }) => required !== 1 && (state === "wanting" || state === "ready" || state === "active"),
  );
  if (open.length === 0) return open;
  const names = new Set(namesIn(config));
  return open.filter(({ target }) => names.has(target));
}

/** Then it is read where it is. What was tried once may wait for long. */
function isSoonSent(engine: Engine, version: VersionRow, delivery: DeliveryRow): boolean {
  const { state, tries, target } = delivery;
  return state === "ready" && tries === 0 && engine.lanes.get(target)?.takes === true && heldNow(engine, version, delivery) === undefined;
}

/** Whether something is left to do at a source that is there. */
export function isReleaseDue(engine: Engine, lane: Lane): boolean {
  const known = lane.media.filter((medium) => isConsidered(engine, lane.name, medium));
  const toCopy: VersionRow[] = [];
  return lane.attached && (next(engine, lane, (medium) => known.includes(medium), toCopy) !== undefined || toCopy.length > 0);
}

/** Whether size and time tell that what is at the source now is what was delivered. */
function isSure(
  { queue, journal, lanes }: Engine,
  { id, source, store, base, medium, modified_ms, trust_size, found_ms }: VersionRow,
  delivered: Digest | undefined,
): boolean {
  // Where a source tells no times, the size alone tells nothing.
  if (modified_ms === null && trust_size === 0) return false;
  const lane = lanes.get(source);
  const compared = queue.releasable.get(id)?.compared;
  // Another card of the same name may have another file of the same size and time.
  if (medium !== "") return compared !== undefined && compared.epoch === lane?.state.epoch;
  if (compared !== undefined) return true;
  const isTold = delivered?.startsWith("sha256:") === true;
  // Its beginning was perhaps taken from the version before, by samples; a source that digests by itself has said since that it is the same, unless it is too large for that.
  const digests = lane?.device.source?.features.digests ?? [];
  const isPieced = store === "spool" && base !== null && digests.every((kind) => kind === "sha256");
  if (isTold && isPieced) return false;
  // Power may have gone before it was noted that it was acted on, and the place been used again.
  if (isTold && queue.leaving.isDoubted(id)) return false;
  // The same of what a journal that lost its end does not know.
  return found_ms > Number(journal.meta(olderKey) ?? -Infinity);
}

/** Whether nothing else is at the source now than what was delivered. Where nobody knows what that was: whether its size is enough. */
async function isContent(
  engine: Engine,
  lane: Lane,
  version: VersionRow,
  delivered: Digest | undefined,
  signal: AbortSignal,
): Promise<boolean> {
  const { source } = lane.device;
  if (source === undefined || delivered?.startsWith("sha256:") !== true) return version.trust_size === 1;
  const entry = await source.stat(version.path, signal);
  // Perhaps by a run that was killed before that was on the medium: who takes it away sees to that.
  if (entry === undefined) return true;
  if ((entry.medium ?? "") !== version.medium) throw new Fault("offline", "another medium is in");
  if (entry.size !== version.size) throw new Fault("changed", `${version.path} has another size`);
  // A source that digests by itself has not to be read once more, while the copy here tells what it must say.
  const kind = source.features.digests[0];
  if (kind !== undefined && version.store === "spool" && version.state === "sealed" && version.spooled > 0) {
    const [ours, expected] = await digestsOf(createReadStream(engine.spool.pathOf(version.id), { highWaterMark: 2 ** 20, signal }), [
      "sha256",
      kind,
    ]).catch(() => []);
    const found = ours === delivered ? await source.digest?.(entry, kind, signal) : undefined;
    if (found !== undefined) return found === expected;
  }
  return (await digestAtSource(lane, entry, signal)) === delivered;
}

/** It may be the log that is being written: what was delivered is a snapshot of it. */
export function mayGrow({ device }: Lane, { path }: VersionRow): boolean {
  return device.source?.mayGrow?.(path) === true;
}

/** What waits to be acted on; a log that grows meanwhile would be doubted after a start, and fetched anew. */
function* endedOf({ queue }: Engine, lane: Lane): Generator<VersionRow> {
  for (const version of queue.releasableOf(lane.name)) if (!mayGrow(lane, version)) yield version;
}

const another = "kept: the source has another file under that name by now";

/** What is there now was never delivered, and is not known yet. */
class Other {
  constructor(readonly why: string) {}
}

/** A route asks for it, and it cannot be done; `isKept` knows it from the journal. */
class Kept {
  constructor(readonly why: string) {}
}

/** Who proved too little of it for its source to be without it, and what to do. */
export function weaklyProved(version: VersionRow, receipts: readonly StoredReceipt[]): string | undefined {
  const weak = receipts.find(({ proof, size }) => size !== version.size || (proof !== "digest" && proof !== "readback"));
  if (weak === undefined || (version.trust_size === 1 && weak.size === version.size)) return undefined;
  return `${weak.to} could only ${weak.proof === "answer" ? "say that it took it" : "prove its size"} (another "verify" at ${weak.to}, such as "readback", proves what is sent from then on; "trustSize": true on the route would accept that)`;
}

/** Throws "denied" where the archive is spelled otherwise; looks at that once while it is attached, and where it is, not at each file. */
function archiveLooks({ clock }: Engine, lane: Lane): (signal: AbortSignal) => Promise<void> {
  let looked: { readonly epoch: string | undefined; readonly untilMs: number; readonly why: string | undefined } | undefined;
  return async (signal) => {
    const { epoch } = lane.state;
    if (looked === undefined || looked.epoch !== epoch || looked.untilMs <= clock.monotonicMs()) {
      const why = await spelledOtherwise(lane, signal);
      looked = { epoch, untilMs: why === undefined ? Infinity : clock.monotonicMs() + againMs, why };
    }
    if (looked.why !== undefined) throw new Fault("denied", looked.why);
  };
}

const foldings: readonly Folding[] = ["case and form", "case and end"];

/** Where names in another case, or form, are the same (FAT, exFAT, NTFS, Windows, macOS) the archive may be there in another spelling: a listing would find all in it, to be archived once more. */
async function spelledOtherwise({ device: { tree }, config, name }: Lane, signal: AbortSignal): Promise<string | undefined> {
  for (let path = archiveOf(config); tree !== undefined && path !== ""; path = parentOf(path)) {
    if ((await tree.stat(path, signal)) === undefined) continue;
    const there = (await entriesIfAny(tree, parentOf(path), signal)).map((entry) => entry.path);
    // What is listed under no name at all is hidden by its server: nothing in it is found.
    const other = there.includes(path)
      ? undefined
      : there.find((it) => foldings.some((folding) => folded(it, folding) === folded(path, folding)));
    if (other !== undefined)
      return `its archive ${path} is there as ${other}, and what is in it would be found as new: rename that, or say so in "archiveDir" of ${name}`;
  }
  return undefined;
}

const archiveOf = ({ archiveDir = "archive" }: Lane["config"]): string => archiveDir;

/** Attachments and directories of a year are more than there is memory for: they are asked for anew. */
const mostPlaces = 1000;
/** Of directories of a source and a target, in their present attachments: whether they are one. */
const onePlaces = new WeakMap<Lane, Map<string, boolean>>();

/**
 * Somebody else, it seemed, had brought there what was to be sent: whether what is made in the one directory is seen in the other. False where nothing may be made. Throws "transient" where the target
 * cannot say so at present.
 */
async function isOnePlace(
  { lanes }: Engine,
  lane: Lane,
  tree: Tree,
  { path }: VersionRow,
  receipt: StoredReceipt,
  signal: AbortSignal,
): Promise<boolean> {
  const other = lanes.get(receipt.to);
  const there = other?.device.tree;
  if (other === undefined || there === undefined) return false;
  const [from, to] = [parentOf(path), parentOf(receipt.path)];
  const known = onePlaces.get(lane) ?? new Map<string, boolean>();
  onePlaces.set(lane, known);
  const key = JSON.stringify([lane.state.epoch, from, other.name, other.state.epoch, to]);
  const before = known.get(key);
  if (before !== undefined) return before;
  const asked = `${other.name} is asked first whether it is the same directory`;
  if (!other.attached) throw new Fault("transient", `${asked}: ${other.state.reason ?? "it is away"}`);
  const name = temporaryName();
  const at = (dir: string) => (dir === "" ? name : `${dir}/${name}`);
  let isOne = false;
  try {
    await tree.makeNew(at(from), signal);
    try {
      isOne = (await there.stat(at(to), signal)) !== undefined;
    } catch (error) {
      if (!isFault(error) || signal.aborted) throw error;
      // It is not the source's.
      throw new Fault("transient", `${asked}: ${error.message}`, { cause: error });
    } finally {
      await tree.rmdir(at(from), signal);
    }
  } catch (error) {
    // That of the directory says nothing of the file.
    if (isFault(error, "missing", "changed")) throw new Fault("transient", error.message, { cause: error });
    if (!isFault(error, "denied", "rejected")) throw error;
  }
  if (known.size >= mostPlaces) known.clear();
  known.set(key, isOne);
  return isOne;
}

/** Does what the route says; one line on what was done, or why nothing ever will be. `acts` is called before that. Throws the source's Fault. */
async function release(
  engine: Engine,
  lane: Lane,
  found: VersionRow,
  signal: AbortSignal,
  expectArchive: (signal: AbortSignal) => Promise<void>,
  acts: () => void,
): Promise<string | Kept | Other> {
  // What is at its place by now is found, and acted on, by itself, whatever it looks like.
  if (found.state === "gone") return leftItsPlace.gone;
  if (engine.queue.latest(lane.name, found)?.id !== found.id) return another;
  const tree = lane.device.tree;
  const entry = { kind: "file" as const, path: found.path, ...stampOf(found) };
  const startOf = (route: RouteLane) => engine.finders.get(lane.name)?.startOf(route) ?? -Infinity;
  const deliveries = engine.queue.deliveriesOf(found.id);
  const takes = (engine.routes.get(lane.name) ?? [])
    .filter((route) => route.rules.mayTake(entry, startOf(route)))
    .map(({ rules }) => rules.route);
  const asking = takes.filter(({ afterDelivery }) => afterDelivery !== "keep");
  if (asking.length === 0) return `kept: no route asks for it to be ${found.after === "delete" ? "deleted" : "archived"} any more`;
  const brought = takes.filter(
    (route) => asking.includes(route) || route.to.some(({ device }) => deliveries.some(({ target }) => target === device)),
  );
  // What no listing takes any more, as it is too old, or others are newer, was noted under other rules, perhaps.
  const version: VersionRow = {
    ...found,
    after: asking.some(({ afterDelivery }) => afterDelivery === "delete") ? found.after : "archive",
    trust_size: brought.every(({ trustSize }) => trustSize) ? found.trust_size : 0,
  };
  if (tree === undefined) return new Kept(`kept: nothing can be changed on ${lane.name}`);
  const required = deliveries.filter(({ required }) => required === 1);
  const receipts = receiptsIn(required);
  const weak = weaklyProved(version, receipts);
  if (weak !== undefined) return new Kept(`kept: ${weak}`);
  const expect = stampOf(version);
  try {
    // Before it is read for that.
    if (version.after === "archive") await expectArchive(signal);
    const keptUntilMs = Number(engine.journal.meta(keptUntilKey(lane.name)) ?? -Infinity);
    const isOld = required.some(({ done_ms }) => (done_ms ?? 0) <= keptUntilMs);
    // Before anything is read for it.
    const missed = isOld ? await missedAt(engine, version, signal) : undefined;
    if (missed !== undefined) return new Kept(`kept: ${missed}`);
    for (const receipt of receipts)
      if (receipt.found === true && (await isOnePlace(engine, lane, tree, version, receipt, signal)))
        return new Kept(`kept: what ${receipt.to} has of it is this very file: both are one directory`);
    await engine.queue.leaving.begin(version, () => endedOf(engine, lane));
    // What was sent was perhaps read before what is here now.
    const delivered = deliveredDigest(version, required);
    const { epoch } = lane.state;
    const sure = isSure(engine, version, delivered);
    if (!sure && !(await isContent(engine, lane, version, delivered, signal))) {
      const other = `the source has another content under that name${version.modified_ms === null ? " and size" : ", size and time"}`;
      // What is there was never delivered: the next listing finds it. Targets that have not got this one yet get it from its copy here.
      const { queue } = engine;
      const waits = queue.openOf(version.id).length > 0;
      if (waits && version.state === "sealed" && version.spooled > 0) return new Other(`${leftItsPlace.gone}: ${other}`);
      // What was there before this one is not there either, though it may look the same.
      await engine.journal.commit(() => {
        const { journal } = engine;
        queue.drop(version.id, other);
        journal.run(
          "UPDATE versions SET released = ? WHERE source = ? AND path = ? AND medium = ? AND found_ms < ? AND released IS NULL",
          leftItsPlace.gone,
          version.source,
          version.path,
          version.medium,
          version.found_ms,
        );
        queue.gone(version, false);
      });
      return new Other(`kept: ${other}`);
    }
    const due = engine.queue.releasable.get(version.id);
    if (!sure && due !== undefined) engine.queue.releasable.set(version.id, { ...due, compared: { epoch } });
    acts();
    if (version.after === "delete") {
      await tree.remove(version.path, expect, signal);
      return leftItsPlace.deleted;
    }
    const slot = receipts.find(({ archive }) => archive !== undefined)?.archive;
    const archived = [archiveOf(lane.config), ...(slot === undefined ? [] : [slot]), version.path].join("/");
    const other = delivered === undefined ? undefined : otherName(archived, delivered);
    for (const to of [archived, ...(other === undefined ? [] : [other])])
      try {
        await tree.move(version.path, to, expect, signal);
        return `${leftItsPlace.moved}${to} at its source`;
      } catch (error) {
        // A card that begins again at 00000001 makes the same names again.
        if (!isFault(error, "conflict")) throw error;
      }
    return new Kept(`kept: its archive has ${archived} already${other === undefined ? "" : `, and ${other}`}`);
  } catch (error) {
    if (isFault(error, "changed")) return new Other(another);
    if (isFault(error, "missing")) return leftItsPlace.gone;
    if (isFault(error, "rejected")) return new Kept(`kept: ${reasonOf(error)}`);
    throw error;
  }
}
