/**
 * Files that are at their source again after they were deleted or archived there, perhaps, and look as before: a name that is used again, or a deletion that its medium
 * forgot. What is in them tells, which is read once, one after another, while nothing else is to be fetched. What is as it was is sent to nobody again. It is deleted or
 * archived again while all targets hold it (a client that never had the answer sends again what its station has passed on), and else stays there, which is told.
 */
import type { Engine } from "./engine.js";
import { nameOf } from "./engine.js";
import { isFault } from "./errors.js";
import type { Lane } from "./lane.js";
import type { Digest, FileEntry } from "./plugin.js";
import { digestBehind, ReadSoFar } from "./read-again.js";
import { reasonOf } from "./retry.js";
import { backAsItWas, deliveredDigest, hasLeft } from "./rows.js";
import { isHeld } from "./verify.js";

/** One that could not be read is left for so long. */
const againMs = 600_000;
/** The same, where the device did not answer. */
const soonMs = 1000;
/** One that is back each time it was taken away goes so often at once, and then after `againMs`, after twice that, … */
const oftenAtOnce = 3;
const longestMs = 24 * 3600_000;

export class Back {
  /** Versions of which the place has another file now. */
  readonly #others = new Set<string>();
  readonly #asked = new Set<string>();
  /** Of those that could not be read to their end. */
  readonly #begun = new Map<string, ReadSoFar>();
  readonly #failed = new Map<string, { readonly reason: string; readonly notBeforeMs: number }>();
  /** Of those that stay, when their targets are asked whether they hold it; of any other at once. */
  readonly #askAtMs = new Map<string, number>();
  /** Of which targets are asked, or will be. */
  readonly #asking = new Set<string>();
  /** How often they went again, and before when they do not once more. */
  readonly #went = new Map<string, { readonly times: number; readonly notBeforeMs: number }>();
  #reading: Promise<void> = Promise.resolve();
  /** Not in one row with the reading: a target may be slow, or hang. */
  #answers: Promise<void> = Promise.resolve();

  /** `again`: is called once it is known of one that it is another. */
  constructor(
    readonly engine: Engine,
    readonly lane: Lane,
    readonly stop: AbortSignal,
    readonly again: () => void,
  ) {}

  /** So many are to be read. */
  get left(): number {
    return this.#asked.size;
  }

  /** Something is read, or a target asked. */
  get busy(): boolean {
    return this.#asked.size + this.#asking.size > 0;
  }

  /** Whether what is listed is known to be another file than that version, which was taken away; where that is not known, it is read. */
  isAnother(version: string, entry: FileEntry): boolean {
    if (this.#others.has(version)) return true;
    const isDue = (this.#failed.get(version)?.notBeforeMs ?? 0) <= this.engine.clock.monotonicMs();
    if (isDue && !this.#asked.has(version)) {
      this.#asked.add(version);
      this.#reading = this.#reading.then(() => this.#read(version, entry));
    }
    return false;
  }

  /** A listing shows one that stays: where a target could not say whether it holds it, or the run had ended before that, it is asked. */
  stays(version: string): void {
    if ((this.#askAtMs.get(version) ?? 0) <= this.engine.clock.monotonicMs()) this.#ask(version);
  }

  /** `compared`: in that attachment it was read, and is as it was. `stayed`: is called where it does not go. */
  #ask(version: string, compared?: { readonly epoch: string | undefined }, stayed?: () => void): void {
    if (this.#asking.has(version)) return;
    this.#asking.add(version);
    this.#askAtMs.set(version, Infinity);
    this.#answers = this.#answers.then(async () => {
      try {
        if (this.stop.aborted) return;
        if (!(await this.#goAgain(version, compared))) stayed?.();
      } catch {
        // Of a target: what it is told when it is used, and not of this file.
        this.#askAtMs.set(version, this.engine.clock.monotonicMs() + againMs);
        if (!this.stop.aborted) stayed?.();
      } finally {
        this.#asking.delete(version);
      }
    });
  }

  /** Why it is not known of a version, which was taken away, what is there again. */
  reasonFor(version: string): string | undefined {
    const known = this.engine.queue.version(version);
    const was = known === undefined || hasLeft(known) ? "it is there again after it was taken away" : "perhaps it was taken away";
    const failed = this.#failed.get(version);
    if (this.#asking.has(version)) return "its targets are asked whether they hold it";
    if (failed !== undefined) return `${was}, and cannot be read: ${failed.reason}`;
    return this.#asked.has(version) ? `${was}, and is read to see whether it is another file` : undefined;
  }

  /** The same, of one that could not be read. */
  failureOf(version: string): string | undefined {
    return this.#failed.has(version) ? this.reasonFor(version) : undefined;
  }

  async #read(id: string, entry: FileEntry): Promise<void> {
    const { engine, lane, stop } = this;
    const before = this.#begun.get(id);
    const from = before?.offset ?? 0;
    const { epoch } = lane.state;
    try {
      if (stop.aborted || !lane.attached) return;
      const known = engine.queue.version(id);
      if (known === undefined) return;
      const delivered = deliveredDigest(known, engine.queue.deliveriesOf(id));
      // Nothing tells whether it is another, and perhaps it was there all the time.
      if (!hasLeft(known) && delivered?.startsWith("sha256:") !== true) return;
      if (delivered !== undefined && (await lane.host(stop, (signal) => this.#holds(id, entry, delivered, signal))))
        await this.#keep(id, { epoch });
      else this.#others.add(id);
      this.#failed.delete(id);
      this.again();
    } catch (error) {
      if (stop.aborted) return;
      // A file that may not be read, on a source that may.
      const ofFile = isFault(error, "missing", "changed") || (isFault(error, "denied") && (await lane.usable(stop)));
      if (!ofFile) lane.noteFault(error);
      if (isFault(error, "missing", "changed")) this.#begun.delete(id);
      const now = this.#begun.get(id);
      const isFurther = now !== undefined && now.offset > (now === before ? from : 0);
      // What comes no further would be asked for without end. Where the device was away, the next listing sees it, or the first once it is there.
      const isOffline = isFault(error, "offline");
      if (!isFurther && (lane.attached || !isOffline))
        this.#failed.set(id, { reason: reasonOf(error), notBeforeMs: engine.clock.monotonicMs() + (isOffline ? soonMs : againMs) });
      this.again();
    } finally {
      this.#asked.delete(id);
    }
  }

  async #holds(id: string, entry: FileEntry, delivered: Digest, signal: AbortSignal): Promise<boolean> {
    const { engine, lane } = this;
    const sofar = this.#begun.get(id) ?? new ReadSoFar();
    this.#begun.set(id, sofar);
    const digest = await digestBehind(engine, lane, entry, sofar, signal);
    this.#begun.delete(id);
    if (digest === delivered || sofar.parts === 1 || sofar.isSecond) return digest === delivered;
    // Of another file in its place by then the parts are of two. The second reading counts, in parts or not: the link may break each time.
    this.#begun.set(id, new ReadSoFar(true));
    return this.#holds(id, entry, delivered, signal);
  }

  async #keep(id: string, compared: { readonly epoch: string | undefined }): Promise<void> {
    const { engine, lane } = this;
    const version = engine.queue.version(id);
    if (version === undefined) return;
    if (!hasLeft(version)) {
      await engine.journal.apply(() => {
        // It was not, as far as it was tried until now.
        if (!engine.queue.releasable.has(id)) engine.queue.leaving.stayed(version);
      });
      return;
    }
    await engine.journal.apply(() => engine.journal.run("UPDATE versions SET released = ? WHERE id = ?", backAsItWas, id));
    const { source, path, medium } = version;
    // Under the rules of now it is to stay.
    if (version.after === "keep") return;
    engine.queue.kept.set(id, { source, path, medium });
    const told = () => engine.events.say("warn", "released", `${nameOf(version)}: ${backAsItWas}`, { device: lane.name, path });
    const { notBeforeMs = 0 } = this.#went.get(id) ?? {};
    if (notBeforeMs <= engine.clock.monotonicMs()) this.#ask(id, compared, told);
    else {
      this.#askAtMs.set(id, notBeforeMs);
      told();
    }
  }

  /** Has it deleted or archived once more where every target says that it holds it; false: it stays. Throws where one cannot say so now. */
  async #goAgain(id: string, compared: { readonly epoch: string | undefined } | undefined): Promise<boolean> {
    const { engine, lane, stop } = this;
    const { journal, queue } = engine;
    const version = queue.version(id);
    if (version?.released !== backAsItWas || version.after === "keep") return false;
    if (!(await isHeld(engine, version, stop))) return false;
    const goes = await journal.apply(() => {
      // It may have gone meanwhile, or a person may have asked for it.
      if (!queue.kept.delete(id) || queue.version(id)?.released !== backAsItWas) return false;
      journal.run("UPDATE versions SET released = NULL WHERE id = ?", id);
      // Until it is acted on another may take its place, also while no daemon runs.
      queue.leaving.doubt(id);
      queue.leaving.noteDoubts();
      queue.releasable.set(id, { source: lane.name, notBeforeMs: 0, ...(compared === undefined ? {} : { compared }) });
      return true;
    });
    if (!goes) return true;
    const times = (this.#went.get(id)?.times ?? 0) + 1;
    const restsMs = times < oftenAtOnce ? 0 : Math.min(longestMs, againMs * 2 ** (times - oftenAtOnce));
    this.#went.set(id, { times, notBeforeMs: engine.clock.monotonicMs() + restsMs });
    this.#askAtMs.delete(id);
    const what = version.after === "delete" ? "deleted" : "archived";
    engine.events.say("info", "released", `${nameOf(version)}: it is there again as it was, and its targets hold it: it is ${what} again`, {
      device: lane.name,
      path: version.path,
    });
    engine.work$.next();
    return true;
  }
}
