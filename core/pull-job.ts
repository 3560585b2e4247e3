/**
 * One run over one version, from the source into the spool: its identity is checked, the source opened at the spool's durable offset, bytes
 * appended and digested, checkpoints taken; at the end size, the source's own digest and its stamp are checked, and the file is sealed.
 *
 * A checkpoint is data first, then the journal, and only then a push may send it.
 */
import type { FileHandle } from "node:fs/promises";
import { Digester } from "./digest.js";
import { type Engine, nameOf, streamTargets } from "./engine.js";
import { codeOf, Fault, faultOfErrno, isFault, throwIfAborted } from "./errors.js";
import type { EventName } from "./events.js";
import { bufferFor } from "./fs.js";
import type { Lane } from "./lane.js";
import type { LiveFile } from "./live.js";
import { isOtherNameOf } from "./names.js";
import { decide, foundAgain, type Overwritten, sayOverwritten } from "./overwritten.js";
import type { Digest, FileEntry, Source } from "./plugin.js";
import { hasLeft, isLost, marksIn, stampOf, type DeliveryRow, type StoredReceipt, type VersionRow } from "./rows.js";
import { dayOf, undated } from "./route.js";
import { sampleAt, samplesOf } from "./samples.js";
import { giveUp } from "./space.js";
import type { Sidecar, SpoolWriter } from "./spool.js";
import { otherThan } from "./stat.js";
import { pacedBytes } from "./throttle.js";
import type { Transfer } from "./transfers.js";

/** With what comes in while it is synced, and what sockets hold, at most 4 MiB are read again. */
const everyBytes = 3 * 2 ** 20;
/** Where what came last is in doubt, what is durable ends somewhere before that. */
const markBytes = 128 * 1024;
/** More is not read a second time only because it may be another file. */
const mostTwiceBytes = 4 * 2 ** 20;
const soonMs = 2000;
const soonBytes = 256 * 1024;
const atLeastMs = 10_000;
const followedMs = 500;

export class PullJob {
  /** At least one byte became durable that was not before. */
  progress = false;
  /** All of it came before, not proved yet, and its source has another file by now, of another size: one of the same may be that which was touched. */
  overwritten = false;
  /** What is here could not be read, or is not all that it was. */
  #isSpoiled = false;
  #version: VersionRow;
  #digest = new Digester("sha256");
  #other: Digester | undefined;
  /** The source's file is longer than this version. */
  #grown = false;
  /**
   * It is longer now than it was when it was found, and nothing of it is here: whether it is still that file, or a longer one that took its name, only
   * the content of a version before can tell. Without one it is found anew, because a beginning of another file must not go out under its
   * name (but see `Lane.keepsGrowing`).
   */
  #unvouched = false;
  /** What was whole once is here, as far as anybody can tell: it cannot be read. */
  #unread: Error | undefined;
  /** The digest of the first `base.size` bytes, once they have passed. */
  #atBase: Digest | undefined;
  /** How far `#digest` is. */
  #digested = 0;
  /** What the digest was on the way, of what is not durable yet. */
  #marks: Mark[] = [];
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
    /** Called once the source is not needed any more: what is left is the medium's. */
    readonly read: () => void,
  ) {
    this.#version = version;
    this.#bases = engine.queue.basesOf(version);
    this.#base = this.#bases.find(({ digest }) => digest !== null);
  }

  async run(): Promise<void> {
    const { engine } = this;
    if (await this.#isProvedHere()) await this.#seal();
    else {
      const entry = await this.#present();
      if (this.#version.store === "place" && entry !== undefined) {
        await this.#readInPlace(entry);
        return;
      }
      await (entry === undefined ? this.#sealWhole() : this.#fetch(entry));
    }
    if (this.#grew && this.#base !== undefined && this.#base.spooled > 0) await engine.spool.noteSuperseded(this.#base.id);
    for (const base of this.#bases) if (base.state === "gone" && base.spooled > 0) await giveUp(engine, base, "delivered");
  }

  async #fetch(entry: FileEntry): Promise<void> {
    const { source } = this;
    const kind = source.features.digests.find((known) => known !== "sha256");
    if (kind !== undefined && source.digest !== undefined) this.#other = new Digester(kind);
    if (this.#version.durable === 0 && this.#version.safest === 0) await this.#adoptBase(entry);
    this.#unvouched = this.#grown && this.#version.durable === 0 && !this.lane.keepsGrowing(this.#version.path);
    if (this.#unvouched && this.#base === undefined && this.#version.digest === null) throw this.#notVouched();
    try {
      await this.#spool(entry);
    } catch (error) {
      if (!(await this.engine.spool.isBad(this.#version.id, error, this.progress))) throw error;
      throw await this.#damaged(error, "the disk takes other files: it is read from its source again");
    }
  }

  async #spool(entry: FileEntry): Promise<void> {
    const { signal } = this;
    const writer = await this.#resume(entry);
    try {
      await this.#copy(entry, writer);
      throwIfAborted(signal);
      // What was whole here once, and is again, needs no word of its source, where another file may be by now.
      const isProved = this.#version.digest === this.#digest.value();
      // A short file is recorded once, when it is sealed; the proof of a source that digests by itself may take minutes.
      const short = isProved || (this.#version.durable === 0 && this.#other === undefined);
      const kept = short ? undefined : this.#checkpoint(writer);
      kept?.catch(() => undefined);
      try {
        if (!isProved) await this.#prove(entry);
      } catch (error) {
        await kept;
        // All of it came: it may be gone when the source can be asked again.
        if (!isFault(error, "mismatch") && !isFault(error, "changed")) await this.#checkpoint(writer);
        throw error;
      }
      this.read();
      await kept;
      await this.#seal(short ? writer : undefined);
    } finally {
      await writer.close();
    }
  }

  /** What was whole once, and is all here again, is proved by what it was: its source, where another file may be by now, is not asked. */
  async #isProvedHere(): Promise<boolean> {
    const { id, size, digest } = this.#version;
    if (!this.#isHere || digest?.startsWith("sha256:") !== true) return false;
    const { handle } = await this.engine.spool.writer(id, size);
    if (handle === undefined) return false;
    try {
      if ((await this.#digestPrefix(handle, size)) && this.#digest.value() === digest) return true;
    } catch (error) {
      this.#unread = this.#unreadable(error);
      if (this.#unread === undefined) throw error;
    } finally {
      await handle.close();
    }
    this.#forgetDigests();
    return false;
  }

  /** Another try may read it: it is set aside only after some. */
  #unreadable(error: unknown): Error | undefined {
    return codeOf(error) === "EIO" ? new Error(`${this.#unreadText(error)}; its source has it no more`, { cause: error }) : undefined;
  }

  get #isHere(): boolean {
    const { store, durable, size } = this.#version;
    return store === "spool" && durable > 0 && durable === size;
  }

  /** The entry to open: as it is now, but no longer than this version. Undefined: it went after its last byte was read, so what is here is whole. */
  async #present(): Promise<FileEntry | undefined> {
    const { size, path, safest } = this.#version;
    const now = await this.source.stat(path, this.signal);
    // What its source's own digest was against once is believed only with that.
    if (now === undefined && this.#isHere && safest === 0) return undefined;
    this.#grown = now !== undefined && now.size > size;
    try {
      return sameOrGrown(this.#version, now);
    } catch (error) {
      this.overwritten = this.#isHere && isFault(error, "changed") && now !== undefined && now.size < size;
      throw this.#unread !== undefined && isFault(error, "changed", "missing") ? this.#unread : error;
    }
  }

  async #sealWhole(): Promise<void> {
    if (this.#unread !== undefined) throw this.#unread;
    const { id, size, digest } = this.#version;
    const fault = (what: string) => new Fault("missing", `it is no longer there, and what was here of it is ${what}`);
    const { handle } = await this.engine.spool.writer(id, size);
    if (handle === undefined) throw fault("cut off");
    try {
      if (digest?.startsWith("sha256:") === true) throw fault("damaged");
      const isWhole = await this.#digestPrefix(handle, size).catch((error: unknown) => {
        throw this.#unreadable(error) ?? error;
      });
      if (!isWhole) throw fault("damaged");
    } finally {
      await handle.close();
    }
    await this.#seal();
  }

  /** A file that grew: what the spool has of the version before is taken over, if it is the beginning of this one. */
  async #adoptBase(entry: FileEntry): Promise<void> {
    // One that has left its place did not grow, nor did one of the same size: whatever its first bytes and its last are, others may lie between. What came after it may have.
    const left = this.#bases.findIndex((base) => hasLeft(base) || this.engine.queue.leaving.hasPerhapsLeft(base.id));
    const later = left === -1 ? this.#bases : this.#bases.slice(0, left);
    const base = later.find(({ spooled, durable, size }) => spooled > 0 && durable > 0 && size < this.#version.size);
    if (base === undefined) return;
    if (!(await this.#sameSamples(base.id, entry, base.durable))) return;
    await this.engine.spool.adopt(base.id, this.#version.id, base.durable);
    const isWhole = base.durable === base.size && base.digest?.startsWith("sha256:") === true;
    const mark = isWhole && base.digest !== null ? { at: base.size, digest: base.digest } : this.#markOf(base);
    await this.#record({ durable: base.durable, generation: this.#version.generation }, mark);
  }

  /** The writer at the durable offset, the digest brought up to it. Begins anew when what is here is not the beginning of the source's file. */
  async #resume(entry: FileEntry): Promise<SpoolWriter> {
    const { engine } = this;
    const at = this.#version.durable;
    if (at > 0) {
      const same = await this.#sameSamples(this.#version.id, entry, at);
      const writer = same ? await engine.spool.writer(this.#version.id, at) : undefined;
      const isHere = writer?.handle !== undefined;
      if (writer?.handle !== undefined) {
        const isWhole = await this.#digestPrefix(writer.handle, at).catch(async (error: unknown) => {
          await writer.close();
          throw codeOf(error) === "EIO" ? await this.#damaged(error, "it is read from its source again") : error;
        });
        if (isWhole) {
          this.transfer.offset = at;
          this.live.advance(at);
          this.#say("resumed", `goes on at byte ${at} of ${this.#version.size}`);
          return writer;
        }
        await writer.close();
      }
      this.overwritten = !same && this.#isHere && this.#grown && !this.#isSpoiled;
      // Not what it was when it was found, and not that continued: another file has its name.
      if (!same && (this.#grown || entry.modifiedMs !== (this.#version.modified_ms ?? undefined))) throw anotherFile();
      engine.events.say(
        "warn",
        "restarted",
        `${nameOf(this.#version)}: what is in the spool is not ${isHere ? "what it was when it came" : "its beginning"}; it is read again from the first byte`,
        {
          device: this.#version.source,
          path: this.#version.path,
        },
      );
      await this.#record({ durable: 0, generation: this.#version.generation + 1 });
    }
    this.transfer.offset = 0;
    await engine.journal.apply(() => engine.journal.run("UPDATE versions SET spooled = MAX(size, 1) WHERE id = ?", this.#version.id));
    return engine.spool.writer(this.#version.id, 0);
  }

  /** The medium fails at what is here, and the source has all of it. */
  async #damaged(error: unknown, then: string): Promise<Fault> {
    await this.#record({ durable: 0, generation: this.#version.generation + 1 });
    return new Fault("transient", `${this.#unreadText(error)}; ${then}`, { cause: error });
  }

  #unreadText(error: unknown): string {
    return faultOfErrno(error, `cannot read the spool file ${this.engine.spool.pathOf(this.#version.id)}`).message;
  }

  async #copy(entry: FileEntry, writer: SpoolWriter): Promise<void> {
    const { engine, live, source, signal, transfer } = this;
    const stream = await source.open(entry, writer.offset, signal, { safest: this.#version.safest === 1 });
    let markMs = engine.clock.monotonicMs();
    let markOffset = writer.offset;
    let checkpoint: Promise<void> | undefined;
    let failed: { error: unknown } | undefined;
    try {
      for await (const bytes of pacedBytes(stream, this.lane.throttle, signal)) {
        if (writer.offset + bytes.length > entry.size) throw new Error("the source gave more bytes than it said");
        this.#update(bytes, writer.offset);
        await writer.append(bytes);
        if (source.features.doubtedBytes !== undefined && writer.offset - (this.#marks.at(-1)?.at ?? 0) >= markBytes) this.#mark();
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
      if (failed === undefined) await this.#checkpoint(writer, isFault(error, "unreadable"));
      throw failed === undefined ? error : failed.error;
    }
    await checkpoint;
    if (failed !== undefined) throw failed.error;
    throwIfAborted(signal);
    if (writer.offset === entry.size) {
      await writer.flush();
      return;
    }
    await this.#checkpoint(writer);
    throw new Fault("transient", `the source ended after ${writer.offset} of ${entry.size} bytes`);
  }

  /** Data first, then the journal; only then a push may send it. `sure`: what came last is in no doubt. */
  async #checkpoint(writer: SpoolWriter, sure = false): Promise<void> {
    this.#mark();
    const synced = await writer.sync();
    const doubted = sure || synced === this.#version.size ? 0 : (this.source.features.doubtedBytes ?? 0);
    // What lies behind a mark nobody could tell from what its medium has damaged.
    const mark = this.#marks.findLast(({ at }) => at <= synced - doubted);
    const durable = Math.max(this.#version.durable, mark?.at ?? 0);
    if (durable === this.#version.durable) return;
    this.progress = true;
    this.#marks = this.#marks.filter(({ at }) => at > durable);
    await this.#record({ durable, generation: this.#version.generation }, mark);
    this.live.advance(durable);
  }

  #mark(): void {
    this.#marks.push({ at: this.#digested, digest: this.#digest.value() });
  }

  /** `mark`: of what is durable. */
  async #record(state: { durable: number; generation: number }, mark?: Mark): Promise<void> {
    const { engine } = this;
    const { id } = this.#version;
    if (state.generation !== this.live.generation) this.live.restart(state.generation);
    await engine.journal.commit(() => {
      engine.journal.run(
        "UPDATE versions SET durable = ?, generation = ?, spooled = MAX(size, 1) WHERE id = ?",
        state.durable,
        state.generation,
        id,
      );
      if (mark !== undefined) engine.journal.setMeta(markKey(id), JSON.stringify({ generation: state.generation, ...mark }));
      if (state.durable > 0) this.#letFollow();
    });
    this.#version = { ...this.#version, ...state };
    engine.work$.next();
  }

  /** The source's own digest, and that the file did not change underneath. */
  async #prove(entry: FileEntry): Promise<void> {
    const { source, signal } = this;
    if (this.#other !== undefined && source.digest !== undefined) {
      const theirs = await source.digest(entry, this.#other.kind, signal).catch((error: unknown) => {
        if (!isFault(error, "missing")) throw error;
        return undefined;
      });
      const ours = this.#other.value();
      if (theirs !== undefined && theirs !== ours) throw new Fault("mismatch", `the source says ${theirs}, what arrived here is ${ours}`);
    }
    const now = await source.stat(this.#version.path, signal);
    // Gone after its last byte was read: what is here is whole.
    if (now === undefined) return;
    const read = sameOrGrown(this.#version, now);
    if (now.size === read.size) this.lane.noteWhole(read.path);
    else if (!(await this.#continues(read))) throw this.#notVouched();
  }

  /**
   * What is longer now may be another file that was written over this one while it was read, or before its first byte was: then it is found anew, and what is here is its beginning.
   * Where it was so the last time, too, it grows all the time, and one that is long would be read twice; what can be asked then is whether nothing of two was mixed.
   */
  async #continues(read: FileEntry): Promise<boolean> {
    const { id, digest, store, path } = this.#version;
    if (digest !== null && !this.#grew) {
      this.#unvouched = true;
      return true;
    }
    // What is read in place is read again as it is sent, and held against this digest.
    if (store === "place") return this.#grew || this.lane.hasGrown(path);
    // That its beginning is the version before says nothing of the rest: another file may have been written over it since that was seen.
    return (this.#grew || this.lane.hasGrown(path) || read.size > mostTwiceBytes) && this.#sameSamples(id, read, read.size);
  }

  /** With the writer of what may not be on the medium yet. A sidecar's digest is looked at before it is believed: both are synced at once. */
  async #seal(writer?: SpoolWriter): Promise<void> {
    const { engine } = this;
    const digest = this.#digest.value();
    const { id, size } = this.#version;
    // It was whole here once, and its copy was given up: another content is no more of it, whatever it looks like. A receipt's digest may be of another kind.
    const { digest: known } = this.#version;
    if (this.#unvouched && known !== null && known !== digest) throw this.#notVouched();
    if (known?.startsWith("sha256:") === true && known !== digest) throw anotherFile();
    if (this.#version.store === "spool") await Promise.all([writer?.sync(true), engine.spool.writeSidecar(this.#sidecar(digest))]);
    let overwritten: Overwritten[] = [];
    await engine.journal.commit(() => {
      engine.journal.run(
        "UPDATE versions SET state = 'sealed', durable = ?, digest = ?, sealed_ms = ?, safest = 0 WHERE id = ?",
        size,
        digest,
        engine.clock.wallMs(),
        id,
      );
      engine.journal.run("UPDATE deliveries SET state = 'ready' WHERE version = ? AND state = 'wanting'", id);
      engine.journal.setMeta(markKey(id), undefined);
      this.#joinBase();
      // Of a digest of another kind nobody can say whether it grew.
      if (this.#base?.digest?.startsWith("sha256:") === true)
        overwritten = decide(engine, this.#base, this.#grew ? "grown" : "overwritten");
      foundAgain(engine, this.#version, digest);
    });
    if (!this.#grew) sayOverwritten(engine, overwritten);
    const { source, path, medium } = this.#version;
    const again = await engine.spool.dropAside(id, (aside) => {
      const earlier = engine.queue.version(aside);
      return earlier?.source === source && earlier.path === path && earlier.medium === medium;
    });
    if (again.length > 0)
      await engine.journal.apply(() => {
        // Each byte of those is in this one.
        for (const gone of again) engine.journal.run(`UPDATE deliveries SET fault = NULL WHERE version = ? AND ${isLost}`, gone);
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

  /** Inside `commit`. This version replaces what the one before has, or would have replaced, at each target, unless somebody else had put it there; false while that one is still on its way. */
  #inherit(): boolean {
    const before = this.#base === undefined ? [] : this.engine.queue.deliveriesOf(this.#base.id);
    for (const delivery of before) {
      this.#keepDay(delivery);
      const first = this.#keepsOn(delivery) ? delivery.id : marksIn(delivery.marks).after;
      if (first !== undefined) this.engine.queue.goAfter(first, this.#version.id, delivery);
      const replaced = delivery.state === "done" ? delivery.receipt : delivery.replaces;
      if (replaced === null || (JSON.parse(replaced) as StoredReceipt).found === true) continue;
      for (const { id, target, path } of this.engine.queue.deliveriesOf(this.#version.id))
        // What is known by a receipt alone is where that says.
        if (target === delivery.target && (path === delivery.path || isOtherNameOf(path, delivery.path)))
          this.engine.journal.run("UPDATE deliveries SET replaces = ? WHERE id = ?", replaced, id);
    }
    return before.every(({ state }) => state === "done" || state === "dropped");
  }

  /** Inside `commit`. The day in a path is fixed when a file is found first: where it grew on another day, it goes to where its beginning went. */
  #keepDay({ target, path }: DeliveryRow): void {
    const { engine } = this;
    const { id, source, base } = this.#version;
    const mine = engine.queue.deliveriesOf(id).filter((row) => row.target === target);
    if (mine.some((row) => row.path === path)) return;
    // Each file goes there once, whatever path it would have by now.
    const isOnce = engine.routes.get(source)?.some(({ rules }) => rules.route.to.some(({ device, once }) => device === target && once));
    const [only] = mine;
    if (isOnce === true && only?.begun === 0) engine.journal.run("UPDATE deliveries SET path = ? WHERE id = ?", path, only.id);
    if (isOnce === true) return;
    const dayIn = (version: VersionRow) => dayOf({ path: version.path, ...stampOf(version) });
    const days = new Set([undated]);
    for (let earlier = base; earlier !== null;) {
      const version = engine.queue.version(earlier);
      if (version !== undefined) days.add(dayIn(version));
      earlier = version?.base ?? null;
    }
    for (const { rules } of engine.routes.get(source) ?? []) {
      const pathOn = (day: string) => rules.pathOf(this.#version, day, engine.names);
      const row = mine.find((it) => it.path === pathOn(dayIn(this.#version)) && it.begun === 0);
      if (row !== undefined && [...days].some((day) => pathOn(day) === path))
        engine.journal.run("UPDATE deliveries SET path = ? WHERE id = ?", path, row.id);
    }
  }

  /**
   * What is begun of the version before, where it can go on, goes to its end: else a file that grows faster than it is sent would never arrive. So does what may have its name already, and only the answer
   * is missing: else this version would find the name taken.
   */
  #keepsOn({ id, version, state, begun, target, marks }: DeliveryRow): boolean {
    const { queue, lanes } = this.engine;
    // What is not whole here would be fetched for that, and has no room beside this one, perhaps.
    const known = queue.version(version);
    const isHere = known?.store !== "spool" || known.state === "sealed";
    const resumes = isHere && lanes.get(target)?.device.target?.features.resume === true;
    const goesOn = resumes || marksIn(marks).publishing !== undefined;
    return queue.pushing.has(id) ? state === "active" : begun > 0 && goesOn && ["wanting", "ready", "active"].includes(state);
  }

  /** Inside `commit`. This version is whole: it takes the place of the one before. */
  #joinBase(): void {
    const base = this.#base;
    if (base === undefined || !this.#grew) return;
    const { queue } = this.engine;
    this.#inherit();
    const goOn = queue.deliveriesOf(base.id).filter((delivery) => this.#keepsOn(delivery));
    queue.drop(
      base.id,
      "superseded: the file grew",
      goOn.map(({ id }) => id),
    );
    this.engine.journal.run("UPDATE versions SET released = 'superseded' WHERE id = ? AND released IS NULL", base.id);
  }

  /** A file in place that may have grown is looked through before it is sent; any other the push digests by itself. */
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
      if (this.#unvouched && this.#version.digest === null && !this.#grew) throw this.#notVouched();
      this.#digest.update(bytes.subarray(edge));
    } else this.#digest.update(bytes);
    this.#other?.update(bytes);
    this.#digested = at + bytes.length;
  }

  #markOf({ id, generation, durable }: VersionRow): Mark | undefined {
    const text = this.engine.journal.meta(markKey(id));
    const mark = text === undefined ? undefined : (JSON.parse(text) as Mark & { generation: number });
    return mark?.generation === generation && mark.at <= durable ? { at: mark.at, digest: mark.digest } : undefined;
  }

  /** False, and nothing is digested, where its medium has damaged what was durable: samples would not tell, and its digest would be that of the damage. */
  async #digestPrefix(handle: FileHandle, bytes: number): Promise<boolean> {
    const mark = this.#markOf(this.#version);
    const buffer = bufferFor(bytes);
    for (let at = 0; at < bytes;) {
      throwIfAborted(this.signal);
      const end = mark !== undefined && at < mark.at ? mark.at : bytes;
      const { bytesRead } = await handle.read(buffer, 0, Math.min(buffer.length, end - at), at);
      if (bytesRead === 0) throw new Fault("transient", "the spool file is shorter than the journal says");
      this.#update(buffer.subarray(0, bytesRead), at);
      at += bytesRead;
      if (at !== mark?.at || this.#digest.value() === mark.digest) continue;
      this.#forgetDigests();
      return false;
    }
    return true;
  }

  #forgetDigests(): void {
    this.#digest = new Digester("sha256");
    if (this.#other !== undefined) this.#other = new Digester(this.#other.kind);
    this.#atBase = undefined;
    this.#digested = 0;
  }

  /** Whether the first 4 KiB, and the 4 KiB before `at`, are the same here and at the source. */
  async #sameSamples(spooled: string, entry: FileEntry, at: number): Promise<boolean> {
    const handle = await this.engine.spool.reader(spooled).catch((error: unknown) => {
      if (isFault(error, "missing") || (isFault(error) && codeOf(error.cause) === "EIO")) return undefined;
      throw error;
    });
    if (handle === undefined) return this.#spoiled();
    try {
      if ((await handle.stat()).size < at) return this.#spoiled();
      for (const [from, length] of samplesOf(0, at)) {
        const ours = Buffer.alloc(length);
        const read = await handle.read(ours, 0, length, from).catch((error: unknown) => {
          if (codeOf(error) !== "EIO") throw error;
          return undefined;
        });
        // What the medium here fails at is no use.
        if (read === undefined) return this.#spoiled();
        if (!(await sampleAt(this.source, entry, from, length, this.signal)).equals(ours)) return false;
      }
      return true;
    } finally {
      await handle.close();
    }
  }

  #spoiled(): false {
    this.#isSpoiled = true;
    return false;
  }

  #notVouched(): Fault {
    this.lane.noteGrown(this.#version.path);
    return anotherFile();
  }

  #say(what: EventName, text: string): void {
    const { source, path } = this.#version;
    this.engine.events.say("info", what, `${nameOf(this.#version)}: ${text}`, { device: source, path });
  }

  #sidecar(digest: Digest): Sidecar {
    const { id, source, path, generation, found_ms: foundMs } = this.#version;
    return { version: id, source, path, generation, digest, foundMs, ...stampOf(this.#version) };
  }
}

/** The digest of the first bytes. */
interface Mark {
  readonly at: number;
  readonly digest: Digest;
}

/** In the journal's table "meta", while a version is half here; with its generation. */
const markKey = (version: string) => `half:${version}`;

export function anotherFile(): Fault {
  return new Fault("changed", "another file is there now");
}

/** The entry to read for this version. Throws "missing", or "changed" unless the file is the same or (unless `exact`) only grew. */
export function sameOrGrown(version: VersionRow, now: FileEntry | undefined, exact = false): FileEntry {
  if (now === undefined) throw new Fault("missing", "it is no longer there");
  if ((now.medium ?? "") !== version.medium) throw new Fault("offline", "another medium is in");
  const other = otherThan(stampOf(version), now, exact);
  if (other !== undefined) throw new Fault("changed", other);
  return { ...now, size: version.size };
}
