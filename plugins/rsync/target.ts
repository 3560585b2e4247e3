/**
 * A server with rsync as a target: a hidden partial beside the final name, filled in place by rsync and continued by `--append-verify`, proved, and
 * given its name without ever replacing another's file.
 */
import { stat } from "node:fs/promises";
import { Fault, faultOfErrno, isFault, orAborted, throwIfAborted } from "../../core/errors.js";
import type { Digest, Occupant, Receipt, Target, TargetFeatures, Upload } from "../../core/plugin.js";
import { isAlike } from "../../core/remote.js";
import { begunAnew, expectTaken, isUntaken, noteUntaken, seldom } from "../../core/untaken.js";
import { wirePath } from "../../core/wire-path.js";
import type { FarEnd, FarState } from "./far.js";
import { isUnsynced } from "./faults.js";
import type { Link, Login } from "./link.js";
import type { RsyncOptions } from "./options.js";
import { mostBytesTogether, mostTogether } from "./rsync.js";

const here = Buffer.from(".");

export class RsyncTarget implements Target {
  readonly #options: RsyncOptions;
  readonly #link: Link;
  /** Uploads that a run of rsync wrote whole: both rsyncs compared a checksum of all of it. */
  readonly #compared = new Set<string>();
  /** Of uploads that were stopped: a run with others that still writes them. */
  readonly #busy = new Map<string, Promise<void>>();

  constructor(options: RsyncOptions, link: Link) {
    this.#options = options;
    this.#link = link;
  }

  get features(): TargetFeatures {
    const { verify, concurrency } = this.#options;
    return {
      needs: "sealedPath",
      resume: true,
      atomic: true,
      tellsNaming: true,
      singleShot: false,
      digests: verify === "size" ? [] : ["sha256"],
      // rrsync serves one at a time.
      concurrency: this.#link.rsyncAlone ? 1 : concurrency,
      // Two batches: one is sent while the other is named.
      pipeline: { uploads: 2 * mostTogether, bytes: 2 * mostBytesTogether },
    };
  }

  async probe(signal: AbortSignal): Promise<void> {
    const { rsync } = await this.#link.login(signal);
    await rsync.look(signal);
  }

  async offset(upload: Upload, signal: AbortSignal): Promise<number> {
    const { far } = await this.#ready(upload, signal);
    const held = (await far.state(upload.partialPath, signal))?.size ?? 0;
    return isUntaken(upload) ? 0 : held;
  }

  async write(upload: Upload, offset: number, signal: AbortSignal, onBytes: (n: number) => void): Promise<void> {
    const { far, rsync } = await this.#ready(upload, signal);
    const localPath = await wholeFile(upload);
    // In place rsync would write nothing where the right bytes seem to be.
    if (isUntaken(upload)) {
      if (offset > 0) expectTaken(upload);
      await far.remove(upload.partialPath, signal);
      await begunAnew(upload);
    }
    if (offset > 0) {
      const held = (await far.state(upload.partialPath, signal))?.size ?? 0;
      if (held !== offset) throw new Fault("conflict", `the partial at the server has ${held} bytes, not ${offset}`);
      if (offset === upload.size) return;
    }
    this.#compared.delete(upload.id);
    await far.prepare(signal);
    const { sent, ended } = rsync.send({ upload, localPath, offset, signal, onBytes });
    const busy = ended.then(async (error) => {
      // Also where nobody waits for it any more.
      await orUntaken(upload, error).catch(() => undefined);
      if (this.#busy.get(upload.partialPath) === busy) this.#busy.delete(upload.partialPath);
    });
    this.#busy.set(upload.partialPath, busy);
    await sent.catch(async (error: unknown) => {
      throw await orUntaken(upload, error);
    });
    this.#compared.add(upload.id);
  }

  async commit(upload: Upload, signal: AbortSignal): Promise<Receipt | Occupant> {
    const { far } = await this.#ready(upload, signal);
    const { path, partialPath, size } = upload;
    expectTaken(upload);
    const proof = await this.#proved(far, upload, signal);
    if (proof === undefined) return this.#published(far, upload, signal);
    // A run of rsync that went well synced it.
    if (!this.#compared.has(upload.id)) await this.#settle(far, upload, signal);
    const receipt = { path, size, ...proof };
    throwIfAborted(signal);
    upload.naming?.();
    if ((await far.publish(upload, false, signal)) === "published") return this.#forget(upload, receipt);
    const there = await far.state(path, signal);
    if (there === undefined) throw new Fault("transient", `${path} was taken at the server, and is free again`);
    const occupant = await this.#occupant(far, upload, there, signal);
    if (!(await this.#replaceable(far, upload, there, occupant, signal))) return occupant;
    if ((await far.publish(upload, true, signal)) !== "published") throw new Fault("transient", `${partialPath} could not replace ${path}`);
    return this.#forget(upload, receipt);
  }

  async #settle(far: FarEnd, upload: Upload, signal: AbortSignal): Promise<void> {
    // What it says is heard also where nobody waits for it any more: asked once more its system says that all is well.
    const settling = far.settle(upload.partialPath).catch(async (error: unknown) => {
      throw await orUntaken(upload, error);
    });
    await orAborted(settling, signal);
    expectTaken(upload);
  }

  async discard(upload: Upload, signal: AbortSignal): Promise<void> {
    const { far } = await this.#ready(upload, signal);
    this.#forget(upload, undefined);
    await far.remove(upload.partialPath, signal);
    await begunAnew(upload);
  }

  async look(upload: Upload, signal: AbortSignal): Promise<Occupant | undefined> {
    const { far } = await this.#ready(upload, signal);
    const there = await far.state(upload.path, signal);
    return there === undefined ? undefined : this.#occupant(far, upload, there, signal);
  }

  async expectRoot(signal: AbortSignal): Promise<void> {
    const { rsync } = await this.#link.login(signal);
    if (!(await rsync.look(signal))) throw new Fault("transient", `the root ${this.#options.root} is not there`);
  }

  #forget<T>(upload: Upload, result: T): T {
    this.#compared.delete(upload.id);
    return result;
  }

  async #ready(upload: Upload, signal: AbortSignal): Promise<Login> {
    throwIfAborted(signal);
    for (const path of [upload.path, upload.partialPath]) wirePath(here, path);
    await orAborted(this.#busy.get(upload.partialPath) ?? Promise.resolve(), signal);
    return this.#link.login(signal);
  }

  /** How the partial is proved; undefined where there is none. Throws "transient", "conflict", "mismatch". */
  async #proved(far: FarEnd, upload: Upload, signal: AbortSignal): Promise<{ proof: "digest" | "size"; digest?: Digest } | undefined> {
    const digest = this.#compares(upload) ? await far.digest(upload.partialPath, upload, signal, this.#compared.has(upload.id)) : undefined;
    // The same digest is the same size.
    if (digest !== undefined && digest === upload.digest) return { proof: "digest", digest };
    const there = await far.state(upload.partialPath, signal);
    if (there === undefined) return undefined;
    if (there.kind !== "file") throw new Fault("conflict", "what is at the partial's name is no file");
    if (there.size !== upload.size)
      throw new Fault(
        there.size < upload.size ? "transient" : "conflict",
        `the partial at the server has ${there.size} bytes, not ${upload.size}`,
      );
    if (!this.#compares(upload)) return { proof: "size" };
    throw new Fault("mismatch", `the server holds ${digest ?? "another content"}, not ${upload.digest}`);
  }

  /** The partial has gone: then it was published before, or it was never whole. */
  async #published(far: FarEnd, upload: Upload, signal: AbortSignal): Promise<Receipt> {
    const there = await far.state(upload.path, signal);
    if (there?.kind === "file" && there.size === upload.size) {
      const { path, size } = upload;
      const digest = this.#compares(upload) ? await far.digest(path, upload, signal) : undefined;
      if (this.#compares(upload) ? digest !== undefined && digest === upload.digest : upload.naming === undefined && !isAlike(upload)) {
        await far.keep(path, signal);
        return digest === undefined ? { path, size, proof: "size" } : { path, size, proof: "digest", digest };
      }
    }
    throw new Fault("conflict", "the partial at the server has gone, and the file is not under its name");
  }

  async #occupant(far: FarEnd, upload: Upload, there: FarState, signal: AbortSignal): Promise<Occupant> {
    const alike = there.kind === "file" && there.size === upload.size;
    const digest = alike && this.#options.verify !== "size" ? await far.digest(upload.path, upload, signal) : undefined;
    // It may be ours, by a try that was killed.
    if (alike && (!this.#compares(upload) || digest === upload.digest)) await far.keep(upload.path, signal);
    return { occupied: true, size: there.size, ...(digest === undefined ? {} : { digest, proof: "digest" }) };
  }

  /** Whether what is there is our own earlier version, as far as the server can tell. */
  async #replaceable(far: FarEnd, upload: Upload, there: FarState, occupant: Occupant, signal: AbortSignal): Promise<boolean> {
    const { expect } = upload;
    if (expect.kind !== "replaces" || there.kind !== "file" || expect.size !== there.size) return false;
    if (expect.digest === undefined || this.#options.verify === "size") return true;
    const found = occupant.digest ?? (await far.digest(upload.path, { ...upload, size: there.size }, signal));
    return found === undefined || found === expect.digest;
  }

  #compares(upload: Upload): boolean {
    return this.#options.verify !== "size" && upload.digest !== undefined;
  }
}

/** What to throw where a transfer ended with `error`. */
export async function orUntaken(upload: Upload, error: unknown): Promise<unknown> {
  if (isFault(error) && isUnsynced(error)) await noteUntaken(upload);
  return seldom(upload, error);
}

/** Where the file is here. Throws "transient" where it is not as long as it should be: it is looked at again. */
export async function wholeFile({ localPath, size }: Upload): Promise<string> {
  if (localPath === undefined) throw new Fault("transient", "the file has no path on this machine");
  const found = await stat(localPath).catch((error: unknown) => {
    throw faultOfErrno(error, `cannot read ${localPath}`);
  });
  if (found.size !== size) throw new Fault("transient", `${localPath} has ${found.size} bytes, not ${size}`);
  return localPath;
}
