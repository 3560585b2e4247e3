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

export class Back {
  /** Versions of which the place has another file now. */
  readonly #others = new Set<string>();
  readonly #asked = new Set<string>();
  /** Of those that could not be read to their end. */
  readonly #begun = new Map<string, ReadSoFar>();
  readonly #failed = new Map<string, { readonly reason: string; readonly notBeforeMs: number }>();
  /** Of those that stay, when their targets are asked whether they hold it; of any other at once. */
  readonly #askAtMs = new Map<string, number>();
  #reading: Promise<void> = Promise.resolve();

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
    if ((this.#askAtMs.get(version) ?? 0) > this.engine.clock.monotonicMs()) return;
    this.#askAtMs.set(version, Infinity);
    this.#reading = this.#reading.then(async () => {
      await this.#goAgain(version).catch(() => this.#later(version));
    });
  }

  /** Why it is not known of a version, which was taken away, what is there again. */
  reasonFor(version: string): string | undefined {
    const known = this.engine.queue.version(version);
    const was = known === undefined || hasLeft(known) ? "it is there again after it was taken away" : "perhaps it was taken away";
    const failed = this.#failed.get(version);
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
    if (!(await this.#goAgain(id, compared)))
      engine.events.say("warn", "released", `${nameOf(version)}: ${backAsItWas}`, { device: lane.name, path });
  }

  /** Has it deleted or archived once more where every target says that it holds it; false: it stays. `compared`: in that attachment it was read, and is as it was. */
  async #goAgain(id: string, compared?: { readonly epoch: string | undefined }): Promise<boolean> {
    const { engine, lane, stop } = this;
    const { journal, queue } = engine;
    const version = queue.version(id);
    if (version?.released !== backAsItWas || version.after === "keep") return false;
    this.#askAtMs.set(id, Infinity);
    try {
      if (!(await isHeld(engine, version, stop))) return false;
    } catch (error) {
      if (!isFault(error, "offline")) throw error;
      this.#later(id);
      return false;
    }
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
    const what = version.after === "delete" ? "deleted" : "archived";
    engine.events.say("info", "released", `${nameOf(version)}: it is there again as it was, and its targets hold it: it is ${what} again`, {
      device: lane.name,
      path: version.path,
    });
    engine.work$.next();
    return true;
  }

  #later(id: string): void {
    this.#askAtMs.set(id, this.engine.clock.monotonicMs() + againMs);
  }
}
