/**
 * Pull: from the source into the spool. A version is claimed, its identity checked, the source opened at the spool's durable offset, bytes
 * appended and digested, checkpoints taken; at the end size, the source's own digest and its stamp are checked, and the file is sealed.
 *
 * A kill or power cut at any point leaves a spool file whose first `durable` bytes (journal) are the source's; what lies behind is cut off at
 * the next start. Bytes that have to be written again raise the version's generation, so that no target mixes the two.
 */
import { createHash } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import { filter, merge, type Observable } from "rxjs";
import { Digester } from "./digest.js";
import { type Engine, nameOf, routeOf, streamTargets, targets } from "./engine.js";
import { Fault, isFault, throwIfAborted } from "./errors.js";
import type { Lane } from "./lane.js";
import type { LiveFile } from "./live.js";
import type { Digest, FileEntry, Source } from "./plugin.js";
import { goesBefore, type VersionRow, type Wanted } from "./queue.js";
import { type Action, actionFor, countsAsTry, reasonOf } from "./retry.js";
import { giveUp, makeRoom } from "./space.js";
import type { Sidecar, SpoolWriter } from "./spool.js";
import type { Transfer } from "./transfers.js";
import { workers } from "./workers.js";

const sampleBytes = 4096;
const everyBytes = 4 * 2 ** 20;
const soonMs = 2000;
const soonBytes = 256 * 1024;
const atLeastMs = 10_000;
const followedMs = 500;
/** Not worth giving way for less. */
const worthBytes = 4 * 2 ** 20;
/** Hashing reads as much at once; 64 KiB halves the rate. */
const hashBytes = 2 ** 20;

export interface Pull {
  readonly version: VersionRow;
  readonly rank: Wanted;
  /** Gives back the slot of the source. */
  readonly leave: () => void;
  transfer?: Transfer;
}

export function pullWorkers(engine: Engine, lane: Lane, stop: AbortSignal): Observable<Pull> {
  const wake$ = merge(lane.wake$, engine.work$.pipe(filter(() => lane.attached)));
  return workers<Pull>(wake$, stop, {
    slots: () => (lane.attached ? lane.slots("source") : 0),
    claim: () => claim(engine, lane, stop),
    run: (pull, signal) => run(engine, lane, pull, signal),
    givesWay: async (running) => {
      const { queue, spool } = engine;
      const best = queue.wanted(lane.name, targets(engine, true), 1)[0];
      const version = best === undefined ? undefined : queue.version(best.version);
      if (best === undefined || version === undefined) return undefined;
      const last = running.reduce((a, b) => (goesBefore(a.rank, b.rank) ? b : a));
      const left = last.version.size - (last.transfer?.offset ?? 0);
      if (!goesBefore(best, last.rank) || left <= worthBytes) return undefined;
      // What could not begin in its place must not stop it.
      if (version.base !== null && queue.pulling.has(version.base)) return undefined;
      return version.store !== "spool" || (await spool.fits(version.id, version.size, version.durable)) ? last : undefined;
    },
  });
}

async function claim(engine: Engine, lane: Lane, stop: AbortSignal): Promise<Pull | undefined> {
  const { queue, spool } = engine;
  if (!lane.attached || !lane.free) return undefined;
  let full: string | undefined;
  // What an attached target waits for goes first, and may push out what only waits for targets that are away.
  for (const reachable of [true, false]) {
    for (const rank of queue.wanted(lane.name, targets(engine, reachable))) {
      const version = queue.version(rank.version);
      if (version === undefined || (version.base !== null && queue.pulling.has(version.base))) continue;
      if (version.state === "sealed" && (version.store !== "spool" || version.spooled > 0)) {
        // The copy here is whole, whatever became of the source's.
        await engine.journal.apply(() => queue.bytesCome(version.id, [...engine.lanes.keys()]));
        engine.work$.next();
        continue;
      }
      if (version.store === "spool" && !(await spool.canEverHold(version.size))) {
        await engine.journal.apply(() => {
          engine.journal.run("UPDATE versions SET store = 'through' WHERE id = ?", version.id);
          engine.journal.run("UPDATE deliveries SET state = 'ready' WHERE version = ? AND state = 'wanting'", version.id);
        });
        engine.work$.next();
        continue;
      }
      const fits =
        version.store !== "spool" ||
        (await spool.reserve(version.id, version.size, version.durable)) ||
        (reachable && (await makeRoom(engine, version, stop)));
      if (!fits) {
        full ??= nameOf(version);
        continue;
      }
      // The slot, or the version, may have been taken while space was looked for, or the version been given up.
      const now = queue.version(version.id);
      if (now?.generation !== version.generation || now.state !== version.state || queue.pulling.has(version.id)) continue;
      if (!lane.free) return undefined;
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

async function run(engine: Engine, lane: Lane, work: Pull, signal: AbortSignal): Promise<void> {
  const { version } = work;
  const { queue, journal } = engine;
  const live = engine.live.begin(version.id, version.store === "place" ? 0 : version.durable);
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
  const job = new PullJob(engine, lane, source, version, live, work.transfer, signal);
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
    await settle(engine, lane, version, error, job.progress, signal);
  } finally {
    engine.transfers.end(work.transfer);
    engine.live.end(version.id);
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
  progress: boolean,
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
  if (!ofFile && !isFault(error, "full")) lane.noteFault(error);
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
      events.say("warn", "waiting", `${nameOf(version)}: ${reason}; waits for ${lane.name}`, facts);
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
    case "park":
      for (const delivery of waiting) await queue.park(delivery.id, action.fault, reason);
      events.say("error", "parked", `${nameOf(version)}: set aside: ${reason}`, facts);
      return;
    case "relist":
      await journal.commit(() => {
        journal.run("UPDATE versions SET state = 'gone' WHERE id = ?", version.id);
        queue.drop(version.id, reason);
      });
      if (isFault(error, "missing")) {
        await engine.spool.drop(version.id);
        await journal.apply(() => journal.run("UPDATE versions SET spooled = 0 WHERE id = ?", version.id));
        events.say(
          "error",
          "lost",
          `${nameOf(version)}: has gone from ${lane.name} before it was whole here (${version.durable} of ${version.size} bytes)`,
          facts,
        );
      } else events.say("warn", "changed", `${nameOf(version)}: ${reason}; it is looked at anew`, facts);
      engine.relist$.next(version.source);
  }
}

/** One run over one version. */
class PullJob {
  /** At least one byte became durable that was not before. */
  progress = false;
  #version: VersionRow;
  #digest = new Digester("sha256");
  #other: Digester | undefined;
  /** The digest of the first `base.size` bytes, once they have passed. */
  #atBase: Digest | undefined;
  /** The versions before this one, the latest first, down to one that was whole here. */
  readonly #bases: readonly VersionRow[];
  /** The one that was whole here. */
  readonly #base: VersionRow | undefined;

  constructor(
    readonly engine: Engine,
    readonly lane: Lane,
    readonly source: Source,
    version: VersionRow,
    readonly live: LiveFile,
    readonly transfer: Transfer,
    readonly signal: AbortSignal,
  ) {
    this.#version = version;
    this.#bases = basesOf(engine, version);
    this.#base = this.#bases.find(({ digest }) => digest !== null);
  }

  async run(): Promise<void> {
    const { engine, source, signal } = this;
    const entry = await this.#present();
    if (this.#version.store === "place") {
      await this.#readInPlace(entry);
      return;
    }
    const kind = source.features.digests.find((known) => known !== "sha256");
    if (kind !== undefined && source.digest !== undefined) this.#other = new Digester(kind);
    if (this.#version.durable === 0) await this.#adoptBase(entry);
    const writer = await this.#resume(entry);
    try {
      await this.#copy(entry, writer);
      throwIfAborted(signal);
      await this.#prove(entry);
      await this.#seal();
    } finally {
      await writer.close();
    }
    for (const base of this.#bases) if (base.state === "gone" && base.spooled > 0) await giveUp(engine, base, "delivered");
  }

  /** The entry to open: as it is now, but no longer than this version. */
  async #present(): Promise<FileEntry> {
    const now = await this.source.stat(this.#version.path, this.signal);
    return sameOrGrown(this.#version, now);
  }

  /** A file that grew: what the spool has of the version before is taken over, if it is the beginning of this one. */
  async #adoptBase(entry: FileEntry): Promise<void> {
    const base = this.#bases.find(({ spooled, durable }) => spooled > 0 && durable > 0);
    if (base === undefined || base.durable > this.#version.size) return;
    if (!(await this.#sameSamples(base.id, entry, base.durable))) return;
    await this.engine.spool.adopt(base.id, this.#sidecar(), base.durable);
    await this.#record({ durable: base.durable, generation: this.#version.generation });
  }

  /** The writer at the durable offset, the digest brought up to it. Begins anew when what is here is not the beginning of the source's file. */
  async #resume(entry: FileEntry): Promise<SpoolWriter> {
    const { engine } = this;
    const at = this.#version.durable;
    if (at > 0) {
      const same = await this.#sameSamples(this.#version.id, entry, at);
      const writer = same ? await engine.spool.writer(this.#sidecar(), at) : undefined;
      if (writer?.handle !== undefined) {
        await this.#digestPrefix(writer.handle, at);
        this.transfer.offset = at;
        this.live.advance(at);
        this.#say("resumed", `goes on at byte ${at} of ${this.#version.size}`);
        return writer;
      }
      engine.events.say(
        "warn",
        "restarted",
        `${nameOf(this.#version)}: what is in the spool is not its beginning; it is read again from the first byte`,
        {
          device: this.#version.source,
          path: this.#version.path,
        },
      );
      await this.#record({ durable: 0, generation: this.#version.generation + 1 });
    }
    this.live.advance(0);
    this.transfer.offset = 0;
    await engine.journal.apply(() => engine.journal.run("UPDATE versions SET spooled = MAX(size, 1) WHERE id = ?", this.#version.id));
    return engine.spool.writer(this.#sidecar(), 0);
  }

  async #copy(entry: FileEntry, writer: SpoolWriter): Promise<void> {
    const { engine, live, source, signal, transfer } = this;
    const stream = await source.open(entry, writer.offset, signal, { safest: this.#version.safest === 1 });
    let markMs = engine.clock.monotonicMs();
    let markOffset = writer.offset;
    let checkpoint: Promise<void> | undefined;
    let failed: { error: unknown } | undefined;
    try {
      for await (const chunk of stream) {
        const bytes = chunk as Buffer;
        if (writer.offset + bytes.length > entry.size) throw new Error("the source gave more bytes than it said");
        await this.lane.throttle.take(bytes.length, signal);
        this.#update(bytes, writer.offset);
        await writer.append(bytes);
        transfer.offset = writer.offset;
        engine.transfers.pulledBytes += bytes.length;
        const sinceMs = engine.clock.monotonicMs() - markMs;
        const since = writer.offset - markOffset;
        const due =
          since >= everyBytes ||
          (sinceMs >= soonMs && since >= soonBytes) ||
          sinceMs >= atLeastMs ||
          (live.followers > 0 && sinceMs >= followedMs);
        if (due && checkpoint === undefined && writer.offset < entry.size) {
          await writer.flush();
          markMs = engine.clock.monotonicMs();
          markOffset = writer.offset;
          // The sync runs beside the reading: a slow card must not stop a source that is only here for a minute.
          checkpoint = this.#checkpoint(writer)
            .catch((error: unknown) => {
              failed = { error };
              stream.destroy();
            })
            .finally(() => (checkpoint = undefined));
        }
      }
    } catch (error) {
      await checkpoint;
      // What came is kept, as far as it can be made durable.
      if (failed === undefined) await this.#checkpoint(writer);
      throw failed === undefined ? error : failed.error;
    }
    await checkpoint;
    if (failed !== undefined) throw failed.error;
    throwIfAborted(signal);
    await this.#checkpoint(writer);
    if (writer.offset !== entry.size) throw new Fault("transient", `the source ended after ${writer.offset} of ${entry.size} bytes`);
  }

  /** Data first, then the journal; only then a push may send it. */
  async #checkpoint(writer: SpoolWriter): Promise<void> {
    const durable = await writer.sync();
    if (durable === this.#version.durable) return;
    this.progress = true;
    await this.#record({ durable, generation: this.#version.generation });
    this.live.advance(durable);
  }

  async #record(state: { durable: number; generation: number }): Promise<void> {
    const { engine } = this;
    const { id } = this.#version;
    await engine.journal.commit(() => {
      engine.journal.run(
        "UPDATE versions SET durable = ?, generation = ?, spooled = MAX(size, 1) WHERE id = ?",
        state.durable,
        state.generation,
        id,
      );
      if (state.durable > 0) this.#letFollow();
    });
    this.#version = { ...this.#version, ...state };
    engine.work$.next();
  }

  /** The source's own digest, and that the file did not change underneath. */
  async #prove(entry: FileEntry): Promise<void> {
    const { source, signal } = this;
    if (this.#other !== undefined && source.digest !== undefined) {
      const theirs = await source.digest(entry, this.#other.kind, signal);
      const ours = this.#other.value();
      if (theirs !== undefined && theirs !== ours) throw new Fault("mismatch", `the source says ${theirs}, what arrived here is ${ours}`);
    }
    const now = await source.stat(this.#version.path, signal);
    // Gone after its last byte was read: what is here is whole.
    if (now !== undefined) sameOrGrown(this.#version, now);
  }

  async #seal(): Promise<void> {
    const { engine } = this;
    const digest = this.#digest.value();
    const { id, size } = this.#version;
    if (this.#version.store === "spool") await engine.spool.writeSidecar({ ...this.#sidecar(), digest });
    await engine.journal.commit(() => {
      engine.journal.run(
        "UPDATE versions SET state = 'sealed', durable = ?, digest = ?, sealed_ms = ?, safest = 0 WHERE id = ?",
        size,
        digest,
        engine.clock.wallMs(),
        id,
      );
      engine.journal.run("UPDATE deliveries SET state = 'ready' WHERE version = ? AND state = 'wanting'", id);
      this.#joinBase();
    });
  }

  /**
   * Inside `commit`. Pushes may follow; of a file that may have grown only once that is decided, because a target that has the file
   * before continues it, and one that has another file does not. The version before stays in the queue until this one is whole: its
   * copy here may be all that there will ever be.
   */
  #letFollow(): void {
    if (this.#base !== undefined && this.#atBase === undefined) return;
    if (this.#grew && !this.#inherit()) return;
    this.engine.queue.bytesCome(this.#version.id, streamTargets(this.engine));
  }

  /** Growth is proven: the bytes of the version before are the beginning of this one. */
  get #grew(): boolean {
    return this.#base !== undefined && this.#atBase !== undefined && this.#atBase === this.#base.digest;
  }

  /** Inside `commit`. This version replaces what the one before has, or would have replaced, at each target; false while that one is still on its way. */
  #inherit(): boolean {
    const before = this.#base === undefined ? [] : this.engine.queue.deliveriesOf(this.#base.id);
    for (const delivery of before) {
      const replaced = delivery.state === "done" ? delivery.receipt : delivery.replaces;
      if (replaced !== null)
        this.engine.journal.run(
          "UPDATE deliveries SET replaces = ? WHERE version = ? AND target = ? AND path = ?",
          replaced,
          this.#version.id,
          delivery.target,
          delivery.path,
        );
    }
    return before.every(({ state }) => state === "done" || state === "dropped");
  }

  /** Inside `commit`. This version is whole: it takes the place of the one before. */
  #joinBase(): void {
    const base = this.#base;
    if (base === undefined || !this.#grew) return;
    this.#inherit();
    this.engine.queue.drop(base.id, "superseded: the file grew");
    this.engine.journal.run("UPDATE versions SET released = 'superseded' WHERE id = ? AND released IS NULL", base.id);
  }

  /** A local, random-access file stays where it is: it is only digested. */
  async #readInPlace(entry: FileEntry): Promise<void> {
    const { engine, source, signal, transfer, live } = this;
    const follow = async () => {
      await engine.journal.apply(() => this.#letFollow());
      engine.work$.next();
    };
    await follow();
    let at = 0;
    for await (const chunk of await source.open(entry, 0, signal)) {
      const bytes = chunk as Buffer;
      this.#update(bytes, at);
      at += bytes.length;
      transfer.offset = at;
      live.advance(at);
      if (this.#atBase !== undefined && this.#base !== undefined && at - bytes.length < this.#base.size) await follow();
    }
    throwIfAborted(signal);
    if (at !== entry.size) throw new Fault("changed", `it ended after ${at} of ${entry.size} bytes`);
    await this.#prove(entry);
    await this.#seal();
  }

  #update(bytes: Buffer, at: number): void {
    const edge = this.#base === undefined ? -1 : this.#base.size - at;
    if (edge > 0 && edge <= bytes.length) {
      this.#digest.update(bytes.subarray(0, edge));
      this.#atBase = this.#digest.value();
      this.#digest.update(bytes.subarray(edge));
    } else this.#digest.update(bytes);
    this.#other?.update(bytes);
  }

  async #digestPrefix(handle: FileHandle, bytes: number): Promise<void> {
    const buffer = Buffer.allocUnsafe(hashBytes);
    for (let at = 0; at < bytes;) {
      throwIfAborted(this.signal);
      const { bytesRead } = await handle.read(buffer, 0, Math.min(buffer.length, bytes - at), at);
      if (bytesRead === 0) throw new Fault("transient", "the spool file is shorter than the journal says");
      this.#update(buffer.subarray(0, bytesRead), at);
      at += bytesRead;
    }
  }

  /** Whether the first 4 KiB, and the 4 KiB before `at`, are the same here and at the source. */
  async #sameSamples(spooled: string, entry: FileEntry, at: number): Promise<boolean> {
    const handle = await this.engine.spool.reader(spooled).catch((error: unknown) => {
      if (isFault(error, "missing")) return undefined;
      throw error;
    });
    if (handle === undefined) return false;
    try {
      if ((await handle.stat()).size < at) return false;
      const samples = new Map([
        [0, Math.min(sampleBytes, at)],
        [Math.max(0, at - sampleBytes), Math.min(sampleBytes, at)],
      ]);
      for (const [from, length] of samples) {
        const ours = Buffer.alloc(length);
        await handle.read(ours, 0, length, from);
        const theirs = await this.#sample(entry, from, length);
        if (!createHash("sha256").update(ours).digest().equals(createHash("sha256").update(theirs).digest())) return false;
      }
      return true;
    } finally {
      await handle.close();
    }
  }

  async #sample(entry: FileEntry, from: number, length: number): Promise<Buffer> {
    const stream = await this.source.open(entry, from, this.signal);
    const parts: Buffer[] = [];
    let have = 0;
    for await (const chunk of stream) {
      parts.push(chunk as Buffer);
      have += (chunk as Buffer).length;
      if (have >= length) break;
    }
    throwIfAborted(this.signal);
    return Buffer.concat(parts).subarray(0, length);
  }

  #say(what: string, text: string): void {
    const { source, path } = this.#version;
    this.engine.events.say("info", what, `${nameOf(this.#version)}: ${text}`, { device: source, path });
  }

  #sidecar(): Sidecar {
    const { id, source, path, size, modified_ms, generation } = this.#version;
    return { version: id, source, path, size, generation, ...(modified_ms === null ? {} : { modifiedMs: modified_ms }) };
  }
}

function basesOf(engine: Engine, version: VersionRow): VersionRow[] {
  const bases: VersionRow[] = [];
  for (let id = version.base; id !== null;) {
    const base = engine.queue.version(id);
    if (base === undefined) break;
    bases.push(base);
    id = base.digest === null ? base.base : null;
  }
  return bases;
}

/** The entry to read for this version. Throws "missing", or "changed" unless the file is the same or only grew. */
export function sameOrGrown(version: VersionRow, now: FileEntry | undefined): FileEntry {
  if (now === undefined) throw new Fault("missing", "it is no longer there");
  const touched = version.modified_ms !== null && now.modifiedMs !== undefined && now.modifiedMs !== version.modified_ms;
  if (now.size < version.size) throw new Fault("changed", `it has ${now.size} bytes now, not ${version.size}`);
  if (now.size === version.size && touched) throw new Fault("changed", "it was written since it was found");
  return { ...now, size: version.size };
}
