/**
 * Push: from here to one target. The target is asked how much it has, the push goes on from there, the whole is verified and published,
 * never over another file, and the receipt is durable before anybody hears of it.
 *
 * A kill or power cut leaves a partial at the target, named after the upload: the next start asks for its size and goes on. The record
 * `begun` is durable before the first byte is sent, so that a partial of an earlier generation is found and discarded; `publishing` is durable before
 * the name is given, so that a rename whose answer was lost is recognised where the target can prove no content.
 */
import { filter, merge, type Observable } from "rxjs";
import { contentOf, readableOf, type Content } from "./content.js";
import { type Engine, nameOf, routeOf, type RouteLane } from "./engine.js";
import { Fault, isFault, throwIfAborted } from "./errors.js";
import type { Lane } from "./lane.js";
import type { Digest, Expect, Memo, Occupant, Receipt, Target, TargetFeatures, Upload } from "./plugin.js";
import { goesBefore, type DeliveryRow, type StoredReceipt, type VersionRow } from "./queue.js";
import { type Action, actionFor, countsAsTry, reasonOf } from "./retry.js";
import { otherName, partialPath, uploadId } from "./route.js";
import type { Transfer } from "./transfers.js";
import { workers } from "./workers.js";

const worthBytes = 4 * 2 ** 20;

export interface Push {
  readonly delivery: DeliveryRow;
  transfer?: Transfer;
}

export function pushWorkers(engine: Engine, lane: Lane, stop: AbortSignal): Observable<Push> {
  const wake$ = merge(lane.wake$, engine.work$.pipe(filter(() => lane.attached)));
  const running = new Set<Push>();
  /** Whether one more may begin: as many as the target takes; more of small ones, while it is known to be well. */
  const mayBegin = ({ size }: DeliveryRow) => {
    if (running.size < lane.slots("target")) return true;
    const pipeline = pipelined(lane);
    if (pipeline === undefined || running.size >= pipeline.uploads) return false;
    const bytes = [...running].reduce((sum, { delivery }) => sum + delivery.size, size);
    return bytes <= pipeline.bytes;
  };
  return workers<Push>(wake$, stop, {
    slots: () => (lane.attached ? Math.max(lane.slots("target"), pipelined(lane)?.uploads ?? 0) : 0),
    claim: async () => {
      if (!lane.attached) return undefined;
      const delivery = await engine.queue.claim(lane.name, mayBegin);
      if (delivery === undefined || delivery === "full") return delivery;
      engine.queue.pushing.set(delivery.id, delivery);
      return { delivery };
    },
    run: async (push, signal) => {
      running.add(push);
      await run(engine, lane, push, signal).finally(() => running.delete(push));
    },
    givesWay: (running) => {
      const best = engine.queue.best(lane.name);
      if (best === undefined) return undefined;
      const last = running.reduce((a, b) => (goesBefore(a.delivery, b.delivery) ? b : a));
      const left = last.delivery.size - (last.transfer?.offset ?? 0);
      return goesBefore(best, last.delivery) && left > worthBytes ? last : undefined;
    },
  });
}

/** What a target takes beside the usual: while it is known to be well, and not held to one thing at a time. */
function pipelined(lane: Lane): TargetFeatures["pipeline"] {
  return lane.proven && lane.slots("target") > 1 ? lane.device.target?.features.pipeline : undefined;
}

async function run(engine: Engine, lane: Lane, work: Push, signal: AbortSignal): Promise<void> {
  const { delivery } = work;
  const { queue } = engine;
  const target = lane.device.target;
  const version = queue.version(delivery.version);
  if (target === undefined || version === undefined)
    throw new Error(`${lane.name} is no target, or ${delivery.version} is not in the journal`);
  const job = new PushJob(engine, lane, target, version, work, signal);
  try {
    if (delivery.state === "discard") {
      await job.discardBegun();
      await engine.journal.apply(() =>
        engine.journal.run("UPDATE deliveries SET state = 'dropped', begun = 0 WHERE id = ? AND state = 'discard'", delivery.id),
      );
    } else {
      const receipt = await job.run();
      await queue.acknowledge(delivery.id, receipt, version.after !== "keep");
      engine.events.say(
        "info",
        "delivered",
        `${nameOf(version)} → ${lane.name}:${receipt.path} (${receipt.size} bytes, proved by ${receipt.proof})`,
        { ...receipt },
      );
    }
    lane.noteSuccess();
  } catch (error) {
    await settle(engine, lane, version, delivery, error, job, signal);
  } finally {
    job.close();
    if (work.transfer !== undefined) engine.transfers.end(work.transfer);
    queue.pushing.delete(delivery.id);
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
  // A plugin may wrap the fault that its stream ended with: the stream's own word counts.
  const cause = job.broken ?? error;
  const ofSource = job.broken !== undefined;
  const facts = { device: lane.name, path: delivery.path, id: delivery.id, fault: isFault(cause) ? cause.kind : "unknown" };
  const tries = job.progress ? 0 : delivery.tries;
  const sourceLane = engine.lanes.get(version.source);
  // A file that may not be read, on a source that may: only that file is set aside.
  const ofFile = ofSource && isFault(cause, "denied") && sourceLane !== undefined && (await sourceLane.usable(signal));
  const action: Action = ofFile
    ? { do: "park", fault: "denied" }
    : actionFor(cause, { tries, restarts: delivery.restarts, upMs: engine.upMs() }, engine.random());
  const reason = reasonOf(cause);
  const what = `${nameOf(version)} → ${lane.name}`;
  if (!ofSource) lane.noteFault(cause);
  else if (!ofFile && !isFault(cause, "aborted")) sourceLane?.noteFault(cause);
  const again = (afterMs: number, counted: number) =>
    queue.release(delivery.id, clock.monotonicMs() + afterMs, { kind: facts.fault, reason, tries: counted });
  if (delivery.state === "discard") {
    await journal.apply(() => journal.run("UPDATE deliveries SET not_before = ? WHERE id = ?", clock.monotonicMs() + 30_000, delivery.id));
    events.say("warn", "again", `${what}: cannot discard what is left there: ${reason}; again in 30 s`, facts);
    return;
  }
  switch (action.do) {
    case "nothing":
      // It waits for a pull, gives way, or the daemon stops. A little later, so that others get their turn.
      await queue.release(delivery.id, ofSource ? clock.monotonicMs() + 1000 : 0);
      return;
    case "wait":
      await again(lane.attached || ofSource ? 1000 : 0, tries);
      if (ofSource && engine.lanes.get(version.source)?.attached !== true) await journal.apply(() => queue.sourceAway(version.source));
      // The lane says it, once, when the device is gone: a file's word would be the second.
      events.say("debug", "waiting", `${what}: ${reason}; waits for ${ofSource ? version.source : lane.name}`, facts);
      return;
    case "again":
      await again(action.afterMs, countsAsTry(cause) ? tries + 1 : tries);
      // It is the target that wants peace, or space, not this one file.
      if (!ofSource && (isFault(cause, "throttled") || isFault(cause, "full"))) lane.pauseTarget(action.afterMs);
      events.say(tries === 0 ? "warn" : "debug", "again", `${what}: ${reason}; again in ${Math.ceil(action.afterMs / 1000)} s`, facts);
      return;
    case "restart":
      await job.discardBegun();
      // The safest reading of the source is a new pull: a new generation, for which every upload begins anew.
      await journal.commit(() => {
        journal.run("UPDATE deliveries SET restarts = restarts + 1 WHERE id = ?", delivery.id);
        if (action.safest && version.store === "spool" && queue.version(version.id)?.generation === version.generation) {
          journal.run("UPDATE versions SET state = 'found', durable = 0, generation = generation + 1, safest = 1 WHERE id = ?", version.id);
          queue.bytesStop(version.id);
        }
      });
      await queue.release(delivery.id, 0, { kind: facts.fault, reason, tries });
      events.say("warn", "restarted", `${what}: ${reason}; it is sent again from the first byte`, facts);
      return;
    case "relist":
      // The finder sees what became of it.
      await again(1000, tries);
      engine.relist$.next(version.source);
      if (isFault(cause, "missing") || isFault(cause, "changed")) await giveUpVersion(engine, version, reason, what, facts);
      return;
    case "park":
      await queue.park(delivery.id, action.fault, reason);
      events.say("error", "parked", `${what}: set aside: ${reason}`, facts);
  }
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
  await engine.journal.commit(() => {
    engine.journal.run("UPDATE versions SET state = 'gone' WHERE id = ?", version.id);
    engine.queue.drop(version.id, reason);
  });
  engine.events.say("error", "lost", `${what}: ${reason}; this version cannot be sent any more`, facts);
}

/** Names at targets that are being published now: two uploads to one name are published one after the other. */
const publishing = new Map<string, Promise<unknown>>();

class PushJob {
  /** The target took bytes that it did not have. */
  progress = false;
  readonly #content: Content;
  readonly #route: RouteLane | undefined;
  #digest: Digest | undefined;
  #sealed = false;

  constructor(
    readonly engine: Engine,
    readonly lane: Lane,
    readonly target: Target,
    readonly version: VersionRow,
    readonly work: Push,
    readonly signal: AbortSignal,
  ) {
    this.#content = contentOf(engine, version, signal, !target.features.digests.includes("sha256"));
    this.#route = routeOf(engine, version, work.delivery);
    this.#sealed = version.state === "sealed";
    this.#digest = version.digest ?? undefined;
  }

  /** The fault that reading ended with, where reading is what failed. */
  get broken(): unknown {
    return this.#content.broken;
  }

  close(): void {
    this.#content.close();
  }

  async run(): Promise<StoredReceipt> {
    const { engine, target, version, work, signal } = this;
    const { delivery } = work;
    const first = delivery.begun !== version.generation + 1;
    if (first && delivery.begun > 0) await this.discardBegun();
    const upload = this.#upload(delivery.path);
    // Nothing there of what was begun: perhaps because it was published before the answer, or power, was lost.
    if (
      (this.#sealed || (this.#content.canSeal && target.features.digests.length > 0)) &&
      (first || (await target.offset(upload, signal)) === 0)
    ) {
      const there = await target.look?.(upload, signal);
      if (there?.digest !== undefined && there.size === version.size && !this.#sealed) await this.#seal();
      // A partial that was begun and holds nothing may be there beside it.
      if (there !== undefined && this.#isSame(there)) return delivery.begun > 0 ? this.#alreadyThere(upload, there) : this.#receipt(there);
    }
    if (first) {
      const begun = await engine.journal.commit(() =>
        engine.journal.run(
          "UPDATE deliveries SET begun = ?, memo = NULL WHERE id = ? AND state = 'active'",
          version.generation + 1,
          delivery.id,
        ),
      );
      // Superseded meanwhile, as one that had not begun: nobody would take its partial away.
      if (begun === 0) throw new Fault("aborted", "is not to be sent any more");
    } else if (this.#sealed && this.#memo().get("publishing") !== undefined) {
      const done = await this.#publish(upload).catch((error: unknown) => {
        if (isFault(error, "conflict")) return undefined;
        throw error;
      });
      if (done !== undefined) return done;
    }
    if (target.features.needs !== "stream" && !this.#sealed) await this.#seal();
    await this.#send(this.#upload(delivery.path), first && !target.features.append ? 0 : undefined);
    await this.#seal();
    return this.#publish(this.#upload(delivery.path));
  }

  /** What this delivery may have left at the target is taken away. */
  async discardBegun(): Promise<void> {
    const { begun } = this.engine.queue.delivery(this.work.delivery.id) ?? this.work.delivery;
    if (begun > 0) await this.target.discard(this.#upload(this.work.delivery.path, begun - 1), this.signal);
  }

  async #seal(): Promise<void> {
    this.#digest = await this.#content.sealed(this.signal);
    this.#sealed = true;
  }

  /** `known`: how much is there, when that needs no question. */
  async #send(upload: Upload, known?: number): Promise<void> {
    const { engine, target, version, work, signal } = this;
    let offset = known ?? (await target.offset(upload, signal));
    if (offset > version.size || (offset > 0 && !target.features.resume)) {
      await target.discard(upload, signal);
      offset = 0;
    }
    const transfer = engine.transfers.begin(
      {
        id: work.delivery.id,
        kind: "push",
        route: `${version.source} → ${this.lane.name}`,
        from: version.source,
        to: this.lane.name,
        path: upload.path,
        size: version.size,
      },
      offset,
    );
    work.transfer = transfer;
    if (offset > 0)
      engine.events.say("info", "resumed", `${nameOf(version)} → ${this.lane.name}: goes on at byte ${offset} of ${version.size}`, {
        device: this.lane.name,
        path: upload.path,
      });
    if (offset === version.size && version.size > 0) return;
    await target.write(upload, offset, signal, (bytes) => {
      transfer.offset += bytes;
      this.progress ||= bytes > 0;
      engine.transfers.pushedBytes += bytes;
    });
    throwIfAborted(signal);
  }

  /** Under its own name, else under another that names its content. */
  async #publish(upload: Upload): Promise<StoredReceipt> {
    const { target, signal, version, engine, work } = this;
    // Superseded, or set aside, while it was sent.
    if (engine.queue.delivery(work.delivery.id)?.state !== "active") throw new Fault("aborted", "is not to be sent any more");
    if (target.features.digests.length === 0) await this.#memo().set("publishing", 1);
    const there = await this.#oneAtATime(upload.path, () => target.commit(upload, signal));
    if (!("occupied" in there)) return this.#receipt(there);
    if (this.#isSame(there)) return this.#alreadyThere(upload, there);
    if (this.#digest === undefined) {
      // What is there may be this very content; else the other name needs the digest.
      this.#digest = await this.#content.digest(signal);
      if (this.#digest === undefined) throw new Fault("transient", `${upload.path} is taken at ${this.lane.name}; its source ended early`);
      return this.#publish(this.#upload(work.delivery.path));
    }
    const other = this.#upload(otherName(upload.path, this.#digest));
    const second = await this.#oneAtATime(other.path, () => target.commit(other, signal));
    if (!("occupied" in second)) return this.#receipt(second);
    // The name holds the digest: the same size under it is this content.
    if (this.#isSame(second) || (second.digest === undefined && second.size === version.size)) return this.#alreadyThere(other, second);
    throw new Fault("rejected", `${upload.path} and ${other.path} are both taken by other files at ${this.lane.name}`);
  }

  async #alreadyThere(upload: Upload, there: Occupant): Promise<StoredReceipt> {
    await this.target.discard(upload, this.signal);
    return this.#receipt({
      path: upload.path,
      size: there.size,
      proof: there.proof ?? "size",
      answer: "was there already",
      ...(there.digest === undefined ? {} : { digest: there.digest }),
    });
  }

  async #oneAtATime<T>(path: string, publish: () => Promise<T>): Promise<T> {
    const key = `${this.lane.name}:${path}`;
    while (publishing.has(key)) await publishing.get(key)?.catch(() => undefined);
    const mine = publish();
    publishing.set(key, mine);
    try {
      return await mine;
    } finally {
      publishing.delete(key);
    }
  }

  #isSame(there: Occupant): boolean {
    return there.size === this.version.size && this.#digest !== undefined && there.digest === this.#digest;
  }

  #receipt(there: Receipt | Occupant): StoredReceipt {
    const { engine, version, work } = this;
    const { path, answer, url } = "occupied" in there ? { path: work.delivery.path, answer: "was there already", url: undefined } : there;
    return {
      delivery: work.delivery.id,
      version: version.id,
      from: version.source,
      source: version.path,
      ...(version.modified_ms === null ? {} : { modifiedMs: version.modified_ms }),
      to: this.lane.name,
      path,
      size: there.size,
      // A target may have digested what it has: without a digest of the source's that proves nothing.
      proof: this.#digest === undefined ? "size" : (there.proof ?? "size"),
      ...(this.#digest === undefined ? {} : { digest: this.#digest }),
      ...(answer === undefined ? {} : { answer }),
      ...(url === undefined ? {} : { url }),
      at: new Date(engine.clock.wallMs()).toISOString(),
      ...(engine.clock.trusted() ? {} : { clock: "unset" as const }),
    };
  }

  #upload(path: string, generation = this.version.generation): Upload {
    const { engine, version, work } = this;
    const id = uploadId(engine.names, work.delivery.id, generation);
    const throttles = [this.lane.throttle, this.#route?.throttle];
    const content = this.#content;
    const digest = this.#digest;
    const localPath = this.#sealed ? content.localPath : undefined;
    const expect = () => this.#expect(path);
    return {
      id,
      path,
      partialPath: partialPath(work.delivery.path, engine.names.installation, id),
      size: version.size,
      ...(version.modified_ms === null ? {} : { modifiedMs: version.modified_ms }),
      get expect() {
        return expect();
      },
      sealed: this.#sealed,
      ...(digest === undefined ? {} : { digest }),
      ...(localPath === undefined ? {} : { localPath }),
      memo: this.#memo(),
      read: (offset, signal) =>
        readableOf(
          (async function* () {
            for await (const chunk of content.chunks(offset, signal)) {
              for (const throttle of throttles) await throttle?.take(chunk.length, signal);
              yield chunk;
            }
          })(),
        ),
    };
  }

  #expect(path: string): Expect {
    // Decided while it is pulled, so perhaps after this was claimed.
    const { replaces } = this.engine.queue.delivery(this.work.delivery.id) ?? this.work.delivery;
    const before = replaces === null ? undefined : (JSON.parse(replaces) as StoredReceipt);
    if (before?.path !== path) return { kind: "absent" };
    return { kind: "replaces", size: before.size, ...(before.digest === undefined ? {} : { digest: before.digest }) };
  }

  #memo(): Memo {
    const { journal } = this.engine;
    const { id } = this.work.delivery;
    const read = () => {
      const memo = journal.get<{ memo: string | null }>("SELECT memo FROM deliveries WHERE id = ?", id)?.memo;
      return (memo === null || memo === undefined ? {} : JSON.parse(memo)) as Record<string, unknown>;
    };
    return {
      get: (key) => read()[key],
      set: (key, value) =>
        journal.commit(
          () => void journal.run("UPDATE deliveries SET memo = ? WHERE id = ?", JSON.stringify({ ...read(), [key]: value }), id),
        ),
    };
  }
}
