/**
 * One run over one delivery, from here to its target: the target is asked how much it has, the push goes on from there, the whole is verified and
 * published, never over another file.
 *
 * The record `begun` is durable before the first byte is sent, so that a partial of an earlier generation is found and discarded; `publishing` is
 * durable before the name is given, `elsewhere` before the other one is, so that a rename whose answer was lost is recognised where no look at the
 * target proves content, and none is where no rename was ever asked for. A single shot has none of them (`single-shot.ts`).
 */
import { forgottenReason } from "./amend.js";
import { within, type Budget } from "./budget.js";
import { contentOf, type Content } from "./content.js";
import { type Engine, nameOf, routeOf, type RouteLane } from "./engine.js";
import { Fault, isFault, throwIfAborted } from "./errors.js";
import { folded } from "./folded.js";
import { goesOnAt, isShort, leastSpliced, spliced } from "./go-on.js";
import type { Lane } from "./lane.js";
import { overBudget } from "./limits.js";
import { isOtherNameOf, otherName } from "./names.js";
import type { Digest, Expect, Memo, Occupant, Reading, Receipt, Target, Upload } from "./plugin.js";
import type { Push } from "./push.js";
import { type DeliveryRow, type Marks, marksIn, placeOf, stampOf, type StoredReceipt, type VersionRow } from "./rows.js";
import { readableOf } from "./reading.js";
import { partialPath, uploadId } from "./route.js";
import { doubt, heldBack, isUndated, recordOf, type Sending, Shot } from "./single-shot.js";
import { paced } from "./throttle.js";

/** Names at targets that are being published now: two uploads to one name are published one after the other. */
const publishing = new Map<string, Promise<unknown>>();

/** The same for all names that a target may take for one, as FAT does "A", "a" and "a.": where it has no links, of two that look at once both find the name free. */
const alike = (path: string): string => folded(path.toUpperCase(), "case and form").replace(/[. ]+(?=\/|$)/g, "");

/** Instead of what a target answers. */
const alreadyThere = "was there already";

/** Less is no matter, though it be sent again and again. */
const worthBytes = 2 ** 20;

export class PushJob {
  /** The target took bytes that it did not have, and keeps them should it break off, as far as what became of those before tells. */
  progress = false;
  #sentBytes = 0;
  readonly #content: Content;
  /** What a comparison with what is there ended with: who compares may put up with a source that has gone. */
  #compared: unknown;
  /** What the run ended with. */
  #ended: unknown;
  readonly #route: RouteLane | undefined;
  /** The attachment that it began with. */
  readonly epoch: string | undefined;
  #spliced: boolean;
  /** Which of its other names it gets, or may have; 0: its own. */
  #elsewhere: 0 | 1 | 2;
  /** The target was asked to give what it holds the file's own name; undefined: nobody noted that, nor that it was not. */
  #asked: boolean | undefined;
  /** Before the last chunk of a single shot. */
  #beforeLast: (() => Promise<void>) | undefined;
  #digest: Digest | undefined;
  #sealed = false;
  /** Nothing of it is here, and its source has another file, or none: what the target holds is compared with nothing. */
  #isLast = false;
  #needsSource = true;
  /** What is read is sent. */
  #sends = false;
  /** What is sent is counted as it is read. */
  #counts = false;
  /** 1 + the generation of which something may be at the target. */
  #begun: number;
  /** Whose partial is sent, or gets the name. */
  #generation: number;

  /** By the clock that only goes on. */
  readonly begunMs: number;

  constructor(
    readonly engine: Engine,
    readonly lane: Lane,
    readonly target: Target,
    readonly version: VersionRow,
    readonly work: Push,
    readonly signal: AbortSignal,
  ) {
    this.#content = contentOf(engine, version, signal, () => !target.features.digests.includes("sha256"));
    this.epoch = lane.state.epoch;
    this.begunMs = engine.clock.monotonicMs();
    this.#route = routeOf(engine, version, work.delivery);
    this.#sealed = version.state === "sealed";
    this.#begun = work.delivery.begun;
    this.#generation = version.generation;
    const { spliced, publishing, elsewhere } = marksIn(work.delivery.marks);
    this.#spliced = spliced === true;
    this.#elsewhere = nthOf(elsewhere);
    if (publishing !== undefined) this.#asked = true;
    this.#digest = version.digest ?? undefined;
  }

  /** The fault that reading ended with, where reading is what failed. */
  get broken(): unknown {
    const { broken } = this.#content;
    return !this.#needsSource || (broken === this.#compared && !isOf(this.#ended, broken)) ? undefined : broken;
  }

  /** It cost the link what the target did not keep, as far as `progress` tells. */
  get wasted(): boolean {
    return !this.progress && this.#sentBytes >= worthBytes;
  }

  get sentBytes(): number {
    return this.#sentBytes;
  }

  close(): void {
    this.#content.close();
  }

  async run(): Promise<StoredReceipt> {
    try {
      return await this.#push();
    } catch (error) {
      this.#ended = error;
      // Of what is read where it lies that may be its source's, which has another file by then that looks the same.
      if (isFault(error, "mismatch") && this.#content.broken === undefined) await this.#content.reprove?.(this.signal);
      throw error;
    }
  }

  async #push(): Promise<StoredReceipt> {
    const { target, version, work, signal } = this;
    const { delivery } = work;
    const before = await this.#broughtBefore();
    // What nobody can be asked about holds as of then.
    if (before !== undefined && target.look === undefined)
      return {
        ...this.#receipt({ ...before, answer: alreadyThere }),
        at: before.at,
        ...(before.clock === undefined ? {} : { clock: before.clock }),
      };
    if (target.features.singleShot) return this.#shoot();
    const { restart, publishing } = marksIn(delivery.marks);
    const first = delivery.begun !== version.generation + 1 || restart === true;
    const done = first && restart !== true ? await this.#publishEarlier(publishing) : undefined;
    if (done !== undefined) return done;
    if (first) await this.#begin();
    const upload = this.#upload(this.#path);
    const isThrough = version.store === "through";
    const canLearn = (this.#content.canSeal || isThrough) && target.features.digests.length > 0;
    // Nothing there of what was begun: perhaps because it was published before the answer, or power, was lost.
    if (target.look !== undefined && (this.#sealed || canLearn) && (first || (await target.offset(upload, signal)) === 0)) {
      const there = await target.look(upload, signal);
      if (there?.digest !== undefined && there.size === version.size && !this.#sealed) await (isThrough ? this.#learn() : this.#seal());
      // Published, and cut off before the partial's own name was taken away; or begun, and brought by somebody else meanwhile. What a person wants sent again may be there still.
      if (there !== undefined && this.#isSame(there) && before === undefined)
        return first && !this.#wasOurs(upload) ? { ...this.#receipt(there), found: true } : this.#alreadyThere(upload, there);
      // As well proved as then.
      const isThere =
        there !== undefined &&
        (this.#isSame(there) || (before?.proof === "size" && there.size === version.size && there.digest === undefined));
      if (isThere && before !== undefined) return this.#alreadyThere(upload, there);
      const isAnothers = before === undefined && there !== undefined && !this.#isReplaced(upload, there);
      const elsewhere = this.#elsewhere > 0 || isAnothers ? await this.#elsewhereThere() : undefined;
      if (elsewhere !== undefined) return elsewhere;
    }
    if (!first && (this.#sealed || isThrough) && publishing !== undefined) {
      const done = (await this.#givenElsewhere()) ?? (await this.#publishHeld(upload));
      if (done !== undefined) return done;
      await this.#noteUnnamed();
    }
    await this.#prepare();
    await this.#send(this.#upload(this.#path), first ? 0 : undefined);
    await this.#seal(true).catch((error: unknown) => this.#withoutSource(error));
    return this.#publish(this.#upload(this.#path));
  }

  /** What was brought of the version before, where that has the content of this one, and only its time is another. Not where a person wants it sent. */
  async #broughtBefore(): Promise<StoredReceipt | undefined> {
    const { id, marks } = this.work.delivery;
    if (this.version.base === null) return undefined;
    const before = this.engine.queue.replacedBy(id) ?? (await this.#foundSince());
    if (before?.size !== this.version.size || marksIn(marks).again === true) return undefined;
    if (placeOf(before) !== this.#path) return undefined;
    if (!this.#sealed) await this.#seal();
    const digest = before.digest ?? this.engine.queue.digestOf(before.version);
    return digest !== undefined && digest === this.#digest ? before : undefined;
  }

  /** Of a single shot in doubt that was found after it was superseded: nothing of it was to be replaced by then. */
  async #foundSince(): Promise<StoredReceipt | undefined> {
    if (!this.target.features.singleShot) return undefined;
    const done = (await this.#sameBefore()).find(({ state, receipt }) => state === "done" && receipt !== null);
    return done === undefined ? undefined : (JSON.parse(done.receipt ?? "") as StoredReceipt);
  }

  /** What became of the versions before that have this very content, under the same name: of the last one first. */
  async #sameBefore(): Promise<DeliveryRow[]> {
    const { engine, version, work } = this;
    const { target, path } = work.delivery;
    const same: DeliveryRow[] = [];
    for (let base = version.base; base !== null;) {
      const before = engine.queue.version(base);
      if (before?.digest == null || before.size !== version.size) break;
      if (!this.#sealed) await this.#seal();
      if (before.digest !== this.#digest) break;
      same.push(...engine.queue.deliveriesOf(before.id).filter((row) => row.target === target && row.path === path));
      base = before.base;
    }
    return same;
  }

  /** What has the name is what this one is to replace. */
  #isReplaced({ expect }: Upload, { size, digest }: Occupant): boolean {
    return expect.kind === "replaces" && expect.size === size && (expect.digest ?? digest) === (digest ?? expect.digest);
  }

  /** It was brought there before, and a person wants it sent again. */
  #wasOurs({ path }: Upload): boolean {
    const before = this.#before;
    return before?.version === this.version.id && placeOf(before) === path;
  }

  /** Its own name is, or was, another's: what has this content under one that tells it. Brought by somebody else, unless it was about to be given that very name. */
  async #elsewhereThere(): Promise<StoredReceipt | undefined> {
    const { target, work, signal } = this;
    if (this.#digest === undefined) return undefined;
    for (const nth of [1, 2] as const) {
      const other = this.#upload(nthName(work.delivery.path, this.#digest, nth));
      const there = await target.look?.(other, signal);
      if (there !== undefined && this.#isSame(there))
        return nth === this.#elsewhere ? this.#alreadyThere(other, there) : this.#foundThere(other, there);
      if (there === undefined && this.#elsewhere !== 2) return undefined;
    }
    return undefined;
  }

  /**
   * Of what was about to get its name; undefined where it is not whole there, as when the server lost its end, or a transfer that came late made it anew: the rest is sent. Where nobody can look at the
   * name, it is asked for once more before that: what is not held may have it.
   */
  async #publishHeld(upload: Upload, asksAgain = this.target.look === undefined): Promise<StoredReceipt | undefined> {
    return this.#publish(upload).catch(async (error: unknown) => {
      if (isFault(error, "conflict")) return undefined;
      if (!isFault(error, "transient") || !(await this.#isShort(upload))) throw error;
      return asksAgain ? this.#publishHeld(upload, false) : undefined;
    });
  }

  /** An earlier program noted of both names the same. The other one tells the digest: what has it is this content, and as nothing is held, it got that. */
  async #givenElsewhere(): Promise<StoredReceipt | undefined> {
    const { target, version, work, signal } = this;
    if (this.#elsewhere > 0 || this.#digest === undefined || target.features.digests.length > 0) return undefined;
    const other = this.#upload(otherName(work.delivery.path, this.#digest));
    const there = (await target.offset(other, signal)) > 0 ? undefined : await target.look?.(other, signal);
    return there?.size === version.size ? this.#alreadyThere(other, there) : undefined;
  }

  /** The copy here was given up while nobody knew whether what was sent of it had its name already: of the same content, it needs no second one. */
  async #publishEarlier(publishing: Marks["publishing"]): Promise<StoredReceipt | undefined> {
    const { target, version } = this;
    const { begun } = this.work.delivery;
    if (begun === 0 || this.#digest === undefined || publishing !== this.#digest) return undefined;
    // Who is given its path may need that to give the name, too.
    if (target.features.needs === "sealedPath" && !this.#sealed) return undefined;
    this.#generation = begun - 1;
    const done = await this.#publishHeld(this.#upload(this.#path));
    if (done === undefined) this.#generation = version.generation;
    return done;
  }

  async #isShort(upload: Upload): Promise<boolean> {
    const { target, version, signal } = this;
    return isShort(
      version.size,
      await target.offset(upload, signal),
      async () => (await target.look?.(this.#upload(this.#given), signal))?.size,
    );
  }

  /** What an earlier generation, or another hand, left under the partial's name is taken away. From here on something of ours may be there. */
  async #begin(): Promise<void> {
    const { engine, version, work } = this;
    await this.discardBegun();
    this.#begun = version.generation + 1;
    this.#spliced = false;
    this.#elsewhere = 0;
    this.#asked = false;
    const { sending, again } = engine.queue.marksOf(work.delivery.id);
    const changed = await engine.journal.commit(() =>
      engine.journal.run(
        "UPDATE deliveries SET begun = ?1, memo = CASE begun WHEN ?1 THEN memo END, marks = ?3 WHERE id = ?2 AND state = 'active'",
        version.generation + 1,
        work.delivery.id,
        sending === undefined && again === undefined ? null : JSON.stringify({ sending, again }),
      ),
    );
    // Superseded meanwhile, as one that had not begun: nobody would take its partial away.
    if (changed === 0) throw new Fault("aborted", "is not to be sent any more");
  }

  /** What the target needs before the first byte. */
  async #prepare(): Promise<void> {
    const { engine, target, version, lane } = this;
    const { needs } = target.features;
    if (needs === "stream") return;
    if (version.store === "through")
      throw new Fault("rejected", `it is larger than the spool can ever hold ("maxSize"), and ${lane.name} takes only what is whole here`);
    if (needs === "sealedPath" && version.store === "place" && this.#content.localPath === undefined) {
      if (!engine.queue.pulling.has(version.id)) await engine.journal.commit(() => engine.queue.intoSpool(version.id));
      throw new Fault("aborted", "is copied to the spool first: at its source it has no path that could be given on");
    }
    if (!this.#sealed) await this.#seal();
  }

  /** One request. What it is sent for a second time was looked for first. */
  async #shoot(): Promise<StoredReceipt> {
    const { engine, target, work, signal } = this;
    const { queue, clock, journal } = engine;
    const { id, path } = work.delivery;
    let before = marksIn(work.delivery.marks).sending ?? (await this.#doubtBefore());
    if (before !== undefined) {
      const found = await this.#lookup();
      if (typeof found === "object") return this.#receipt(found);
      if (isUndated(before, clock)) {
        const sending = { ...before, atMs: clock.wallMs(), trusted: true };
        await journal.commit(() => queue.noteSending(id, sending));
        before = sending;
      }
      const fault = doubt(before, found, target.features.whenInDoubt, clock);
      if (fault !== undefined) throw fault;
      if (found === "absent") before = undefined;
    }
    await this.#begin();
    await this.#prepare();
    const shot = new Shot({
      seal: () => this.#seal(true),
      note: () => journal.commit(() => queue.noteSending(id, recordOf(before, clock))),
      takeBack: () => journal.commit(() => queue.noteSending(id, before)),
    });
    this.#beforeLast = shot.beforeLast;
    const there = await shot.go(
      () => this.#send(this.#upload(path), 0),
      () => target.commit(this.#upload(path), signal),
    );
    return { ...this.#receipt(there), ...(before === undefined ? {} : { sentBefore: new Date(before.atMs).toISOString() }) };
  }

  /** A version before has this very content, and nobody knows whether that arrived: so it is of this one. */
  async #doubtBefore(): Promise<Sending | undefined> {
    const { journal, queue } = this.engine;
    const { id, marks } = this.work.delivery;
    if (marksIn(marks).again === true) return undefined;
    const sendingOf = (row: DeliveryRow) => (row.state === "done" ? undefined : marksIn(row.marks).sending);
    const before = (await this.#sameBefore()).find((row) => sendingOf(row) !== undefined);
    const sending = before === undefined ? undefined : sendingOf(before);
    if (before === undefined || sending === undefined) return undefined;
    await journal.commit(() => {
      queue.noteSending(id, sending);
      journal.run("UPDATE deliveries SET memo = ? WHERE id = ?", before.memo, id);
    });
    return sending;
  }

  /** Not to be sent any more. A single shot that was in doubt and has arrived has its receipt all the same; whatever else is there is taken away. */
  async discard(): Promise<StoredReceipt | undefined> {
    const { work } = this;
    const found = marksIn(work.delivery.marks).sending === undefined ? "unknown" : await this.#lookup();
    if (typeof found === "object") return this.#receipt(found);
    const last = await this.#publishLast();
    if (last === undefined) await this.discardBegun();
    return last === "stays" ? undefined : last;
  }

  #leaveThere({ partialPath }: Upload, { message }: Fault): "stays" {
    const { engine, lane, version, work } = this;
    const text = `${nameOf(version)} → ${lane.name}: ${message}; all of it is at ${lane.name} as ${partialPath}, and stays there: it may be the last copy`;
    engine.events.say("error", "lost", text, { device: lane.name, path: work.delivery.path, id: work.delivery.id });
    return "stays";
  }

  /** It has gone from its source, or is another there, and had no copy here: what the target holds may be the last one. Whole, it gets a name; undefined: it is not, or a person gave it up. */
  async #publishLast(): Promise<StoredReceipt | "stays" | undefined> {
    const { target, version, work, signal, engine } = this;
    const { features } = target;
    const { begun, fault, marks, reason } = work.delivery;
    const { publishing, restart } = marksIn(marks);
    const digest = engine.queue.digestOf(version.id);
    const isLast = publishing !== undefined || ["missing", "superseded", "overwritten", "changed"].includes(fault ?? "");
    if (!isLast || reason === forgottenReason || version.state !== "gone" || digest === undefined) return undefined;
    // Who is given its path may need that to give the name, too.
    if (begun === 0 || restart === true || features.singleShot || features.needs === "sealedPath") return undefined;
    this.#generation = begun - 1;
    this.#digest = digest;
    this.#sealed = true;
    this.#isLast = true;
    const upload = this.#upload(this.#path);
    const held = await target.offset(upload, signal).catch((error: unknown) => {
      // Of what is not whole there only its bytes would tell more.
      if (!isFault(error, "missing")) throw error;
      return undefined;
    });
    // Sent as it was read, it may be of another file: only what was proved here before it was to get its name needs no proof there.
    const isProved = publishing === digest || (held === version.size && target.features.digests.length > 0);
    if (isProved)
      return this.#publishHeld(upload).catch((error: unknown) => {
        if (isFault(error, "rejected")) return this.#leaveThere(upload, error);
        if (!isFault(error, "mismatch")) throw error;
        return undefined;
      });
    // Power may have gone after it got its name.
    const there = held === 0 ? await target.look?.(upload, signal) : undefined;
    return there !== undefined && this.#isSame(there) ? this.#alreadyThere(upload, there) : undefined;
  }

  async #lookup(): Promise<Receipt | "absent" | "unknown"> {
    const { target, signal } = this;
    const { begun, path } = this.work.delivery;
    return (await target.lookup?.(this.#upload(path, Math.max(0, begun - 1)), signal)) ?? "unknown";
  }

  /** What this delivery may have left at the target is taken away. */
  async discardBegun(): Promise<void> {
    if (this.#begun > 0) await this.target.discard(this.#upload(this.work.delivery.path, this.#begun - 1), this.signal);
  }

  /** How much of it the target has. */
  heldThere(): Promise<number> {
    return this.target.offset(this.#upload(this.work.delivery.path, this.#begun - 1), this.signal);
  }

  /** What is there is taken away, for others to have its room: it begins anew. False where it had none, or is whole there, perhaps the last copy: that stays. */
  async giveRoom(): Promise<boolean> {
    const { engine, work } = this;
    const { queue, journal } = engine;
    const held = await this.heldThere();
    if (held >= this.version.size) return false;
    const { restart } = queue.marksOf(work.delivery.id);
    const mark = (restart: true | undefined) => queue.setMarks(work.delivery.id, { ...queue.marksOf(work.delivery.id), restart });
    // It had no name there: what has that when it begins anew is somebody else's.
    if (held > 0) await journal.commit(() => mark(true));
    try {
      await this.discardBegun();
    } catch (error) {
      // Without an answer it may have been taken away.
      if (held > 0 && isFault(error, "denied", "rejected")) await journal.apply(() => mark(restart));
      throw error;
    }
    return held > 0;
  }

  /** `isSent`: to the last byte. To prove that may be to read all of it: not before each try, nor for each try to give it its name. */
  async #seal(isSent = false): Promise<void> {
    const { proved } = this.engine.queue;
    const { id } = this.work.delivery;
    this.#digest = await this.#content.sealed(this.signal, isSent && proved.get(id) !== this.version.generation);
    this.#sealed = true;
    if (isSent) proved.set(id, this.version.generation);
  }

  /** To read all of what is not kept here costs its source only. */
  async #learn(): Promise<void> {
    this.#digest ??= await this.#content.digest(this.signal);
  }

  /** It has gone from its source, perhaps the last copy but for what the target holds whole: that is published, and proved as far as its target can. Not where nobody knows what it was: no digest. */
  async #withoutSource(error: unknown): Promise<void> {
    const { target, version, signal, engine } = this;
    const digest = engine.queue.digestOf(version.id);
    // Who is given its path may need that to give the name, too.
    if (!isFault(error, "missing") || digest === undefined || target.features.needs === "sealedPath") throw error;
    this.#needsSource = false;
    const held = await target.offset(this.#upload(this.#path), signal);
    this.#needsSource = held !== version.size;
    if (this.#needsSource) throw error;
    this.#digest = digest;
    this.#sealed = true;
  }

  /** `known`: how much is there, when that needs no question. */
  async #send(upload: Upload, known?: number): Promise<void> {
    const { engine, target, version, work, signal } = this;
    const held = known ?? (await goesOnAt(target, upload, signal));
    const { sentFrom, proved } = engine.queue;
    const inVain = held <= (sentFrom.get(work.delivery.id) ?? -1);
    const offset = held > 0 ? held : await this.#splice(upload);
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
    // Who is given its path cannot tell that it has gone from what is wrong at the target.
    if (target.features.needs === "sealedPath") {
      await this.#seal();
      await this.#content.expectNoLonger?.(signal);
    }
    const { lane } = this;
    const { budget } = lane;
    const begunMs = engine.clock.monotonicMs();
    let counted: Promise<unknown> = Promise.resolve();
    this.#sends = true;
    proved.delete(work.delivery.id);
    const moved = (bytes: number) => {
      // What goes twice is no more of the file.
      transfer.offset = Math.min(version.size, transfer.offset + bytes);
      // What does not come through `chunks` is counted as it is told.
      if (budget !== undefined && !this.#counts) counted = Promise.all([counted, this.#spend(budget, bytes)]);
      this.#sentBytes += bytes;
      if (bytes > 0) this.lane.noteAnswer();
      if (bytes > 0) sentFrom.set(work.delivery.id, held);
      this.progress ||= bytes > 0 && target.features.resume && !inVain;
      engine.transfers.pushedBytes += bytes;
    };
    try {
      await target.write(upload, offset, signal, moved);
    } finally {
      this.#sends = false;
    }
    await counted;
    if (!target.features.resume) await lane.uptime?.moved(transfer.offset - offset, engine.clock.monotonicMs() - begunMs);
    throwIfAborted(signal);
  }

  /**
   * Where the peer copies, and digests what it then holds: the version before, whose bytes this one begins with, need not travel again. How many bytes are there so. Not a second time: what was found under
   * that name may be another's by now.
   */
  async #splice(upload: Upload): Promise<number> {
    const { engine, target, signal, version } = this;
    const { expect, path } = upload;
    const { id, restarts } = this.work.delivery;
    const { splices, digests, singleShot } = target.features;
    if (singleShot || splices === undefined || digests.length === 0 || restarts > 0) return 0;
    if (expect.kind !== "replaces" || expect.size < leastSpliced || expect.size >= version.size) return 0;
    this.#spliced = true;
    await engine.journal.commit(() => engine.queue.setMarks(id, { ...engine.queue.marksOf(id), spliced: true }));
    const fault = await spliced(target, this.#upload(path), { path, offset: 0, length: expect.size }, 0, signal);
    if (fault === undefined) return expect.size;
    engine.events.say("debug", "spliced", `${nameOf(version)} → ${this.lane.name}: all of it is sent: ${fault.message}`, { path });
    await target.discard(upload, signal);
    return 0;
  }

  async #spend(budget: Budget, bytes: number): Promise<void> {
    await budget.spend(bytes).catch((error: unknown) => {
      // The journal failed: the engine ends by itself.
      if (!this.engine.journal.failed) throw error;
    });
    if (budget.held !== undefined) this.lane.gate?.set(budget.held);
  }

  /** Under its own name, else under another that names its content. */
  async #publish(upload: Upload): Promise<StoredReceipt> {
    const { target, signal, version } = this;
    if (this.#elsewhere === 0 || this.#digest === undefined) {
      await this.#notePublishing({});
      const there = await this.#name(upload);
      if (!("occupied" in there)) return this.#receipt(there);
      // It kept the partial.
      this.#asked = false;
      if (this.#isSame(there)) return this.#foundThere(upload, there);
      if (this.#digest === undefined) {
        // What is there may be this very content; else the other name needs the digest.
        await this.#learn();
        if (this.#digest === undefined)
          throw new Fault("transient", `${upload.path} is taken at ${this.lane.name}; its source ended early`);
        return this.#publish(this.#upload(this.#path));
      }
    }
    const asked = [upload.path];
    for (const elsewhere of this.#elsewhere === 2 ? ([2] as const) : ([true, 2] as const)) {
      await this.#notePublishing({ elsewhere });
      const other = this.#upload(this.#given);
      asked.push(other.path);
      const there = await this.#oneAtATime(other.path, () => target.commit(other, signal));
      if (!("occupied" in there)) return this.#receipt(there);
      // The name holds the digest: the same size under it is this content.
      if (this.#isSame(there) || (there.digest === undefined && there.size === version.size)) return this.#foundThere(other, there);
    }
    // When it is tried again any of them may be free.
    await this.#noteUnnamed();
    throw new Fault("rejected", `${asked.join(", ")} are all taken by other files at ${this.lane.name}`);
  }

  /** Where no look at the target proves content, or nothing begun goes on there once the file has grown (`PullJob`). Throws Fault "aborted" where it was superseded, or set aside, while it was sent. */
  async #notePublishing(where: Pick<Marks, "elsewhere">): Promise<void> {
    const { target, engine, work } = this;
    const { id } = work.delivery;
    const { again } = engine.queue.marksOf(id);
    const marks: Marks = { ...this.#marks, ...(again === undefined ? {} : { again }), publishing: this.#digest ?? true, ...where };
    // Another name is one that somebody else may have given to this content, too.
    const proves = target.features.digests.length > 0 && target.look !== undefined && target.features.resume;
    const { state } = this.work.delivery;
    const isAsked = state === "discard" ? state : "active";
    const active =
      proves && where.elsewhere === undefined
        ? engine.queue.isIn(id, isAsked)
        : (await engine.journal.commit(() => engine.queue.setMarks(id, marks, isAsked))) > 0;
    if (!active) throw new Fault("aborted", "is not to be sent any more");
    this.#elsewhere = nthOf(where.elsewhere);
  }

  /** Its own. Where it broke off before the target asked for that, this is known later, too. */
  async #name(upload: Upload): Promise<Receipt | Occupant> {
    if (upload.naming === undefined) this.#asked = true;
    try {
      return await this.#oneAtATime(upload.path, () => this.target.commit(upload, this.signal));
    } catch (error) {
      if (this.#asked !== true) await this.#noteUnnamed();
      throw error;
    }
  }

  /** What has the name is not ours: what is there, or is sent now, was never to get it. */
  async #noteUnnamed(): Promise<void> {
    const { journal, queue } = this.engine;
    const { id } = this.work.delivery;
    this.#elsewhere = 0;
    this.#asked = false;
    const { publishing, elsewhere, ...marks } = queue.marksOf(id);
    if (publishing !== undefined || elsewhere !== undefined) await journal.commit(() => queue.setMarks(id, marks));
  }

  /** Nobody notes what a target was asked that proves content. */
  get #isUnnamed(): boolean {
    return this.#asked === undefined ? this.target.features.digests.length === 0 : !this.#asked;
  }

  /** What it may replace, or was itself before a person wanted it sent again: of a version that others came before that is decided while it is pulled, so perhaps after this was claimed. */
  get #before(): StoredReceipt | undefined {
    const { id, replaces } = this.work.delivery;
    if (this.version.base !== null) return this.engine.queue.replacedBy(id);
    return replaces === null ? undefined : (JSON.parse(replaces) as StoredReceipt);
  }

  /** Its own name; where another's file had that as the version before came, the one that it got. */
  get #path(): string {
    const { path } = this.work.delivery;
    const before = this.#before;
    const place = before === undefined ? path : placeOf(before);
    return isOtherNameOf(path, place) ? place : path;
  }

  /** The name that it is given, or was about to be. */
  get #given(): string {
    return this.#elsewhere === 0 || this.#digest === undefined
      ? this.#path
      : nthName(this.work.delivery.path, this.#digest, this.#elsewhere);
  }

  async #alreadyThere(upload: Upload, there: Occupant): Promise<StoredReceipt> {
    await this.target.discard(upload, this.signal);
    return this.#receipt({
      path: upload.path,
      size: there.size,
      proof: there.proof ?? "size",
      answer: alreadyThere,
      ...(there.digest === undefined ? {} : { digest: there.digest }),
    });
  }

  /** Our partial is still there, so it was not ours that took the name, unless it was brought there before. */
  async #foundThere(upload: Upload, there: Occupant): Promise<StoredReceipt> {
    const receipt = await this.#alreadyThere(upload, there);
    return this.#wasOurs(upload) ? receipt : { ...receipt, found: true };
  }

  async #oneAtATime<T>(path: string, publish: () => Promise<T>): Promise<T> {
    const key = `${this.lane.name}:${alike(path)}`;
    while (publishing.has(key)) await publishing.get(key)?.catch(() => undefined);
    const mine = publish();
    publishing.set(key, mine);
    try {
      return await mine;
    } finally {
      publishing.delete(key);
    }
  }

  get #marks(): { readonly spliced?: true } {
    return this.#spliced ? { spliced: true } : {};
  }

  #isSame(there: Occupant): boolean {
    return there.size === this.version.size && this.#digest !== undefined && there.digest === this.#digest;
  }

  #receipt(there: Receipt | Occupant): StoredReceipt {
    const { engine, version, work } = this;
    const { path, answer, url, archive }: Partial<Receipt> & { path: string } =
      "occupied" in there ? { path: this.#path, answer: alreadyThere } : there;
    return {
      delivery: work.delivery.id,
      version: version.id,
      from: version.source,
      source: version.path,
      ...stampOf(version),
      to: this.lane.name,
      path,
      size: there.size,
      // A target may have digested what it has: without a digest of the source's that proves nothing.
      proof: this.#digest === undefined ? "size" : (there.proof ?? "size"),
      ...(this.#digest === undefined ? {} : { digest: this.#digest }),
      ...(answer === undefined ? {} : { answer }),
      ...(url === undefined ? {} : { url }),
      ...(archive === undefined ? {} : { archive }),
      at: new Date(engine.clock.wallMs()).toISOString(),
      ...(engine.clock.trusted() ? {} : { clock: "unset" as const }),
    };
  }

  #upload(path: string, generation = this.#generation): Upload {
    const { engine, version, work } = this;
    const id = uploadId(engine.uploads, work.delivery.id, generation);
    const throttles = [this.lane.throttle, this.#route?.throttles.get(this.lane.name)];
    const rates = throttles.flatMap((it) => (it?.rate === undefined ? [] : [it.rate]));
    const content = this.#content;
    const digest = this.#digest;
    const localPath = this.#sealed && this.target.features.needs === "sealedPath" ? content.localPath : undefined;
    const beforeLast = this.#beforeLast;
    const expect = () => this.#expect(path);
    const chunks = (offset: number, signal: AbortSignal): Reading => {
      if (this.#isLast) return nothingLeft;
      // It is compared with what is there.
      if (!this.#sends) return this.#comparing(content.chunks(offset, signal, true));
      // A target that had to find out whether it takes parts knows it now.
      const over = overBudget(this.lane, version.size - offset);
      if (over !== undefined) throw new Fault("aborted", over.reason);
      const reading =
        beforeLast === undefined
          ? content.chunks(offset, signal)
          : heldBack(content.chunks(offset, signal), this.version.size - offset, beforeLast);
      const outgoing = paced(reading, throttles, signal);
      const { budget, gate } = this.lane;
      this.#counts = true;
      return budget === undefined ? outgoing : within(budget, outgoing, (held) => gate?.set(held, false));
    };
    return {
      id,
      path,
      partialPath: partialPath(work.delivery.path, engine.names.installation, id),
      size: version.size,
      ...(version.modified_ms === null ? {} : { modifiedMs: version.modified_ms }),
      foundMs: version.found_ms,
      get expect() {
        return expect();
      },
      sealed: this.#sealed,
      ...(digest === undefined ? {} : { digest }),
      ...this.#marks,
      // The other name tells the content.
      ...(this.target.features.tellsNaming === true && path === this.#path && this.#isUnnamed
        ? { naming: () => void (this.#asked = true) }
        : {}),
      ...(localPath === undefined ? {} : { localPath }),
      ...(rates.length === 0 ? {} : { maxRate: Math.min(...rates) }),
      memo: this.#memo(),
      read: (offset, signal) => readableOf(chunks(offset, signal)),
      chunks,
    };
  }

  #comparing(reading: Reading): Reading {
    const ended = (error: unknown): never => {
      if (isFault(error, "missing", "changed")) this.#compared = error;
      throw error;
    };
    return { next: () => reading.next().catch(ended), close: () => reading.close() };
  }

  #expect(path: string): Expect {
    const before = this.#before;
    // What is only as long as what a person wants sent again may be somebody else's by now.
    if (before === undefined || before.version === this.version.id || placeOf(before) !== path) return { kind: "absent" };
    const { size, digest, archive } = before;
    return { kind: "replaces", size, ...(digest === undefined ? {} : { digest }), ...(archive === undefined ? {} : { archive }) };
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

const nothingLeft: Reading = {
  next: () => Promise.reject(new Fault("missing", "it is no longer here, nor at its source")),
  close: () => undefined,
};

/** The names of what may not take its own. */
const nthName = (path: string, digest: Digest, nth: 1 | 2): string => otherName(path, digest, nth === 1 ? 8 : 16);

const nthOf = (elsewhere: Marks["elsewhere"]) => (elsewhere === true ? 1 : (elsewhere ?? 0));

/** Whether an error is that fault, or was made of it. */
function isOf(error: unknown, fault: unknown): boolean {
  return error === fault || (error instanceof Error && error.cause !== undefined && isOf(error.cause, fault));
}
