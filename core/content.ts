/**
 * The bytes of one version as a push reads them: from the spool (behind a pull that still runs, never past what is durable), in place at a
 * local source, or straight through from a source whose file the spool can never hold.
 *
 * A fault of reading is the source's or the spool's, not the target's: it is kept in `broken`, so that the target is not blamed for it.
 */
import type { FileHandle } from "node:fs/promises";
import { Digester } from "./digest.js";
import { type Engine } from "./engine.js";
import { codeOf, Fault, faultOfErrno, isFault, throwIfAborted } from "./errors.js";
import type { Lane } from "./lane.js";
import type { Digest, DigestedReading, FileEntry, Reading, Source } from "./plugin.js";
import { anotherFile, sameOrGrown } from "./pull-job.js";
import { stampOf, type VersionRow } from "./rows.js";
import { readingOf, StreamReading } from "./reading.js";
import { Samples } from "./samples.js";
import { giveUp, remade, sourceHolds } from "./space.js";
import { paced, pacedBytes } from "./throttle.js";

const readBytes = 512 * 1024;

export interface Content {
  /** The fault that reading ended with. */
  readonly broken: unknown;
  /** A path on this machine, where there is one. */
  readonly localPath: string | undefined;
  /** `sealed` can be asked before anything is sent. */
  readonly canSeal: boolean;
  /** `compares`: with what is there already, and nothing is sent of it. */
  chunks(offset: number, signal: AbortSignal, compares?: boolean): Reading;
  /** Resolves with the digest once the version is whole and proved here; undefined where only its size can be known. `proves`: what was sent of it is what that digest is of, as far as nobody else tells. */
  sealed(signal: AbortSignal, proves?: boolean): Promise<Digest | undefined>;
  /** Reads all of it once more where `sealed` knew no digest. */
  digest(signal: AbortSignal): Promise<Digest | undefined>;
  /**
   * The target holds something else than was promised: throws "changed" where that is what its source has by now, and what reading it throws. Absent: what is sent is proved when it is
   * sent, or before it is sent once more.
   */
  reprove?(signal: AbortSignal): Promise<void>;
  /** Throws "changed" where what has its path is longer by now: who is given that would send all of it. Absent: it never is. */
  expectNoLonger?(signal: AbortSignal): Promise<void>;
  close(): void;
}

export function contentOf(engine: Engine, version: VersionRow, signal: AbortSignal, proveAlong: () => boolean): Content {
  if (version.store === "spool") return new SpoolContent(engine, version, proveAlong);
  return version.store === "place" ? new PlaceContent(engine, version, proveAlong) : new ThroughContent(engine, version, signal);
}

/** The source of a version that is not kept here. Throws "offline" when it is not configured. */
function sourceOf(engine: Engine, version: VersionRow): { lane: Lane; source: Source } {
  const lane = engine.lanes.get(version.source);
  const source = lane?.device.source;
  if (lane === undefined || source === undefined) throw new Fault("offline", `${version.source} is not configured any more`);
  return { lane, source };
}

class SpoolContent implements Content {
  broken: unknown;
  readonly canSeal = false;
  /** Of what was read from the first byte on. */
  #along: { readonly digest: Digester; bytes: number } | undefined;

  /** `proveAlong`: the target cannot digest, so what is sent is digested here too: the medium may have damaged it since it was whole. */
  constructor(
    readonly engine: Engine,
    readonly version: VersionRow,
    readonly proveAlong: () => boolean,
  ) {}

  get localPath(): string {
    return this.engine.spool.pathOf(this.version.id);
  }

  chunks(offset: number, signal: AbortSignal): Reading {
    return readingOf(this.#chunks(offset, signal));
  }

  async *#chunks(offset: number, signal: AbortSignal): AsyncGenerator<Buffer> {
    const { engine, version } = this;
    const live = version.state === "sealed" ? undefined : engine.live.get(version.id);
    if (live !== undefined) live.followers += 1;
    const along = offset === 0 && this.proveAlong() ? { digest: new Digester("sha256"), bytes: 0 } : undefined;
    this.#along = along;
    try {
      // Not before there is something to be read: until then it may be the file of the generation before.
      let handle: FileHandle | undefined;
      try {
        for (let at = offset; at < version.size;) {
          throwIfAborted(signal);
          const durable = live === undefined ? version.durable : live.reach(version.generation);
          const end = version.state === "sealed" ? version.size : Math.min(version.size, durable);
          if (at >= end) {
            if (live === undefined) throw new Fault("aborted", "waits for more of the file");
            await live.beyond(at, version.generation, signal);
            continue;
          }
          handle ??= await engine.spool.reader(version.id);
          const buffer = Buffer.allocUnsafe(Math.min(readBytes, end - at));
          const { bytesRead } = await handle.read(buffer, 0, buffer.length, at);
          if (bytesRead === 0) throw new Fault("missing", "the spool file is shorter than the journal says");
          at += bytesRead;
          const bytes = buffer.subarray(0, bytesRead);
          along?.digest.update(bytes);
          if (along !== undefined) along.bytes = at;
          yield bytes;
        }
      } finally {
        await handle?.close();
      }
    } catch (error) {
      this.broken = isFault(error, "missing")
        ? await this.#lost(error)
        : codeOf(isFault(error) ? error.cause : error) === "EIO"
          ? await this.#damaged(error, signal)
          : error;
      throw this.broken;
    } finally {
      if (live !== undefined) live.followers -= 1;
    }
  }

  /** It is the copy here that is missing: that says nothing of the source. */
  async #lost(fault: Fault, isSealed = this.version.state === "sealed"): Promise<Fault> {
    if (!isSealed || !(await giveUp(this.engine, this.version, "lost"))) return new Fault("aborted", "waits for more of the file");
    const isAnew = this.engine.queue.version(this.version.id)?.state === "sealed";
    return new Fault("transient", `${fault.message}; it is ${isAnew ? "made anew here" : "pulled again"}`);
  }

  /** The medium fails at the copy here: where the source has the file still, that is read once more; else this is the only one, and is tried again. */
  async #damaged(error: unknown, signal: AbortSignal): Promise<Fault> {
    const fault = faultOfErrno(error, `cannot read the spool file ${this.localPath}`);
    if (this.version.state === "sealed" && (await remade(this.engine, this.version)))
      return new Fault("transient", `${fault.message}; it is made anew here`);
    return (await sourceHolds(this.engine, this.version, signal)) ? this.#lost(fault) : fault;
  }

  async sealed(signal: AbortSignal, proves = false): Promise<Digest | undefined> {
    const digest = await whenSealed(this, this.engine, this.version, signal);
    if (proves && digest?.startsWith("sha256:") === true && this.proveAlong()) await this.#prove(digest, signal);
    return digest;
  }

  /** All of it is read where it was not sent in one piece. */
  async #prove(digest: Digest, signal: AbortSignal): Promise<void> {
    const { size } = this.version;
    const sent = () => (this.#along?.bytes === size ? this.#along.digest.value() : undefined);
    let found = sent();
    if (found === undefined) {
      for await (const _ of this.#chunks(0, signal));
      found = sent();
    }
    if (found === digest) return;
    this.broken = await this.#lost(new Fault("transient", `its copy in the spool is damaged: ${found ?? "unknown"}, not ${digest}`), true);
    throw this.broken;
  }

  digest(signal: AbortSignal): Promise<Digest | undefined> {
    return this.sealed(signal);
  }

  close(): void {
    // Each read closes its own handle.
  }
}

class PlaceContent implements Content {
  broken: unknown;
  readonly canSeal = true;
  #reading: DigestedReading | undefined;

  /** `proveAlong`: the target cannot digest, so what is sent is digested here too and compared. */
  constructor(
    readonly engine: Engine,
    readonly version: VersionRow,
    readonly proveAlong: () => boolean,
  ) {}

  get localPath(): string | undefined {
    return this.engine.lanes.get(this.version.source)?.device.source?.localPath?.(this.#entry);
  }

  get #entry(): FileEntry {
    const { path } = this.version;
    return { path, kind: "file", ...stampOf(this.version) };
  }

  /** Of a file that nobody knows the digest of, what was sent before is read once more. */
  chunks(offset: number, signal: AbortSignal, compares = false): Reading {
    return this.#read(offset, signal, !compares && (this.version.digest === null || (offset === 0 && this.proveAlong())));
  }

  #read(offset: number, signal: AbortSignal, digest: boolean): Reading {
    this.#reading?.close();
    this.#reading = undefined;
    const broken = (error: unknown): never => {
      this.broken = error;
      noteGrown(this.engine, this.version, error);
      throw error;
    };
    try {
      const { lane, source } = sourceOf(this.engine, this.version);
      const how = { digest, exact: isExact(this.engine, this.version, lane), mayGrow: true, mayGo: true };
      const reading = source.readInPlace?.(this.#entry, offset, signal, how) ?? new StreamReading(source, this.#entry, offset, signal, how);
      this.#reading = reading;
      const read = paced(reading, [lane.throttle], signal);
      return { next: () => read.next().catch(broken), close: () => read.close() };
    } catch (error) {
      return broken(error);
    }
  }

  /** The digest of the whole: learned while it was sent, else by reading it; from then on every target knows it. */
  async sealed(signal: AbortSignal): Promise<Digest | undefined> {
    const { engine, version } = this;
    // A pull looks through what may have grown.
    if (engine.live.get(version.id) !== undefined) await whenSealed(this, engine, version, signal);
    try {
      // Its end comes behind a last look at the source.
      if (this.#reading !== undefined && (await this.#reading.next()) !== undefined) this.close();
      let digest = this.#reading?.digest;
      if (digest === undefined) {
        const known = engine.queue.digestOf(version.id);
        if (known !== undefined) {
          const now = await sourceOf(engine, version).source.stat(version.path, signal);
          sameOrGrown(version, now);
          // What is longer now may be another file: then its beginning is not what was found.
          if (now?.size === version.size) return known;
        }
        digest = await this.#digestAll(signal);
      }
      const learned = await engine.journal.apply(() => engine.queue.sealInPlace(version.id, digest));
      if (!learned && (engine.queue.digestOf(version.id) ?? digest) !== digest)
        throw new Fault("changed", "it was written while it was sent");
      return digest;
    } catch (error) {
      this.broken = error;
      throw error;
    }
  }

  async #digestAll(signal: AbortSignal): Promise<Digest> {
    const { size } = this.version;
    const reading = this.#read(size, signal, true);
    if ((await reading.next()) === undefined && this.#reading?.digest !== undefined) return this.#reading.digest;
    throw new Fault("changed", `it ended before its ${size} bytes`);
  }

  digest(signal: AbortSignal): Promise<Digest | undefined> {
    return this.sealed(signal);
  }

  async expectNoLonger(signal: AbortSignal): Promise<void> {
    const { engine, version } = this;
    try {
      const now = await sourceOf(engine, version).source.stat(version.path, signal);
      if (now !== undefined && now.size > version.size) throw new Fault("changed", `it has ${now.size} bytes now, not ${version.size}`);
    } catch (error) {
      this.broken = error;
      throw error;
    }
  }

  async reprove(signal: AbortSignal): Promise<void> {
    const known = this.engine.queue.digestOf(this.version.id);
    try {
      if (known?.startsWith("sha256:") === true && (await this.#digestAll(signal)) !== known) throw anotherFile();
    } catch (error) {
      this.broken = error;
      throw error;
    }
  }

  close(): void {
    this.#reading?.close();
    this.#reading = undefined;
  }
}

class ThroughContent implements Content {
  broken: unknown;
  readonly canSeal = false;
  readonly localPath = undefined;
  #entry: FileEntry | undefined;
  #digest: Digester | undefined;
  #samples: Samples | undefined;
  #at = 0;
  #leave: (() => void) | undefined;

  constructor(
    readonly engine: Engine,
    readonly version: VersionRow,
    readonly signal: AbortSignal,
  ) {}

  chunks(offset: number, signal: AbortSignal): Reading {
    return readingOf(this.#chunks(offset, signal));
  }

  async *#chunks(offset: number, signal: AbortSignal): AsyncGenerator<Buffer> {
    try {
      const { lane, source } = sourceOf(this.engine, this.version);
      if (!lane.holds(this.version.medium)) throw new Fault("offline", `${this.version.source} is away`);
      this.#leave ??= await lane.borrow(signal);
      const now = await source.stat(this.version.path, signal);
      const entry = sameOrGrown(this.version, now, isExact(this.engine, this.version, lane));
      this.#entry = entry;
      this.#digest = offset === 0 ? new Digester("sha256") : undefined;
      this.#samples = new Samples(offset);
      this.#at = offset;
      for await (const bytes of pacedBytes(await source.open(entry, offset, signal), lane.throttle, signal)) {
        this.#digest?.update(bytes);
        this.#samples.update(bytes);
        this.#at += bytes.length;
        yield bytes;
      }
    } catch (error) {
      this.broken = error;
      noteGrown(this.engine, this.version, error);
      throw error;
    }
  }

  /** What went through is not kept: its digest is known only when it went through in one piece. */
  async sealed(signal: AbortSignal): Promise<Digest | undefined> {
    const { engine, version } = this;
    try {
      const { source, lane } = sourceOf(engine, version);
      const now = await source.stat(version.path, signal);
      const entry = sameOrGrown(version, now ?? this.#entry);
      const digest = this.#at === version.size ? this.#digest?.value() : undefined;
      const known = engine.queue.version(version.id)?.digest ?? undefined;
      if (digest !== undefined && known !== undefined && digest !== known) throw new Fault("changed", "it was written between two targets");
      if (now?.size === version.size) lane.noteWhole(version.path);
      // What is longer now may be another that was written over it meanwhile; but see `Lane.hasGrown`.
      else if (now !== undefined && (digest === undefined || digest !== known)) {
        const growsOn = lane.hasGrown(version.path) && (await this.#samples?.areIn(source, entry, signal)) !== false;
        if (!growsOn) throw new Fault("changed", `it has ${now.size} bytes now, not ${version.size}`);
      }
      if (digest !== undefined && known === undefined)
        await engine.journal.apply(() => engine.journal.run("UPDATE versions SET digest = ? WHERE id = ?", digest, version.id));
      return digest ?? known;
    } catch (error) {
      this.broken = error;
      noteGrown(engine, version, error);
      throw error;
    }
  }

  /** From the source, whole: only where another file has the name, and one that names the content is needed. */
  async digest(signal: AbortSignal): Promise<Digest | undefined> {
    try {
      let bytes = 0;
      for await (const chunk of this.#chunks(0, signal)) bytes += chunk.length;
      throwIfAborted(signal);
      if (bytes !== this.version.size) throw new Fault("transient", `the source ended after ${bytes} of ${this.version.size} bytes`);
    } catch (error) {
      this.broken = error;
      throw error;
    }
    return this.sealed(signal);
  }

  close(): void {
    this.#leave?.();
    this.#leave = undefined;
  }
}

/** Nothing proves that a file which is longer now is the one that was found: it may be another that took its name, and is found anew. */
function isExact({ queue }: Engine, { id, path }: VersionRow, lane: Lane): boolean {
  return queue.digestOf(id) === undefined && !lane.keepsGrowing(path);
}

function noteGrown(engine: Engine, version: VersionRow, error: unknown): void {
  if (isFault(error, "changed")) engine.lanes.get(version.source)?.noteGrown(version.path);
}

async function whenSealed(
  content: { broken: unknown },
  engine: Engine,
  version: VersionRow,
  signal: AbortSignal,
): Promise<Digest | undefined> {
  if (version.state !== "sealed") {
    try {
      await engine.live.get(version.id)?.beyond(version.size, version.generation, signal);
    } catch (error) {
      content.broken = error;
      throw error;
    }
  }
  const now = engine.queue.version(version.id);
  if (now?.state !== "sealed" || now.generation !== version.generation) {
    const fault = new Fault("aborted", "waits for more of the file");
    content.broken = fault;
    throw fault;
  }
  return now.digest ?? undefined;
}
