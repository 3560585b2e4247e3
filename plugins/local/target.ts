/**
 * The target role: a partial beside its final name, then a hard link or rename that replaces nothing. The partial's bytes are read back and
 * digested before it is published, and synced before the name is given: after a power cut the name holds the whole file or is not there. A long
 * one is synced on the way too (`marks.ts`).
 */
import { createHash } from "node:crypto";
import { constants, promises as fs, type Stats } from "node:fs";
import { addAbortSignal } from "node:stream";
import { Fault, abortedFault, codeOf, faultOfErrno, isFault, throwIfAborted } from "../../core/errors.js";
import { BadPlaces, copyNew, piecesOf, removeDurable, renameNew, removeFile, syncDir, syncFound, syncName } from "../../core/fs.js";
import type { Digest, Occupant, Part, Receipt, Target, TargetFeatures, Upload } from "../../core/plugin.js";
import { Marks, syncedKey, syncedOf } from "./marks.js";
import { expectNoLink, lookedFor, type LocalPlace, makeRoot, noName, parentOf, placeOf, refusedAt, statAt } from "./place.js";

export class LocalTarget implements Target {
  readonly features: TargetFeatures = {
    needs: "stream",
    resume: true,
    splices: "whole",
    atomic: true,
    singleShot: false,
    digests: ["sha256"],
    concurrency: 16,
  };

  readonly root: string;
  readonly #place: LocalPlace;
  /** Partials that this process wrote, and no sync of which has failed. */
  readonly #written = new Set<string>();
  readonly #bad = new BadPlaces();

  constructor(place: LocalPlace) {
    this.root = place.dir;
    this.#place = place;
  }

  async offset(upload: Upload, signal: AbortSignal): Promise<number> {
    throwIfAborted(signal);
    const partial = await lookedFor(fs.lstat(placeOf(this.root, upload.partialPath)), upload.partialPath);
    if (partial === undefined) return 0;
    // Killed before the link was all: what has its name is whole, and is never written to again.
    if (partial.nlink > 1) return partial.size === upload.size ? partial.size : 0;
    return this.#known(upload, partial.size);
  }

  /**
   * How much of a partial of this size can be believed: all that this process wrote; of an earlier one only what was synced, because behind it may
   * be pages that a power cut took back.
   */
  #known(upload: Upload, size: number): number {
    return this.#written.has(upload.partialPath) ? size : Math.min(size, syncedOf(upload));
  }

  async write(upload: Upload, offset: number, signal: AbortSignal, onBytes: (n: number) => void): Promise<void> {
    throwIfAborted(signal);
    await this.#place.expectHere?.();
    // A final name that can never be must not cost a transfer first.
    placeOf(this.root, upload.path);
    const place = placeOf(this.root, upload.partialPath);
    if (this.#place.create) await makeRoot(this.#place);
    await makeDirs(this.#place, upload.partialPath);
    let handle: fs.FileHandle | undefined;
    let marks: Marks | undefined;
    let at = offset;
    const before = syncedOf(upload);
    try {
      handle = await this.#open(place, upload.partialPath);
      const { size, nlink } = await handle.stat();
      if (nlink > 1) {
        await removeFile(place);
        throw new Fault("conflict", "the partial is another file, too");
      }
      const known = this.#known(upload, size);
      if (known !== offset) throw new Fault("conflict", `the partial has ${known} bytes, not ${offset}`);
      if (size > offset) await handle.truncate(offset);
      // What is noted must be true of the bytes to come: it is taken back before they are written.
      if (syncedOf(upload) > offset) await upload.memo.set(syncedKey, undefined);
      this.#written.add(upload.partialPath);
      marks = new Marks(upload, handle, Math.min(offset, syncedOf(upload)));
      // A stream that waits for bytes must not outlive the signal.
      for await (const chunk of addAbortSignal(signal, upload.read(offset, signal))) {
        const bytes = chunk as Buffer;
        for (let done = 0; done < bytes.length;) {
          const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, at);
          done += bytesWritten;
          at += bytesWritten;
        }
        onBytes(bytes.length);
        await marks.reached(at);
      }
      await marks.settled();
      if (at !== upload.size) throw new Fault("transient", `what was read ended after ${at} of ${upload.size} bytes`);
      // NFS may say only here that the server had no room.
      await handle.close().catch((error: unknown) => {
        this.#written.delete(upload.partialPath);
        throw error;
      });
    } catch (error) {
      // What came is worth keeping over a power cut; a whole file is synced by `commit`.
      const synced = await marks?.last();
      if (synced === false) this.#written.delete(upload.partialPath);
      if (synced === false ? syncedOf(upload) > before : at > offset) this.#bad.forget(upload.partialPath);
      if (signal.aborted) throw abortedFault(signal);
      // It can never be whole there, and would only take room: 4 GiB on FAT.
      if (codeOf(error) === "EFBIG") await this.discard(upload, signal);
      throw isFault(error) ? error : await this.#mediumFault(upload, error, `cannot write ${upload.partialPath}`, signal);
    } finally {
      // What was told first counts.
      await handle?.close().catch(() => undefined);
    }
  }

  async #mediumFault(upload: Upload, error: unknown, what: string, signal: AbortSignal): Promise<Fault> {
    const fault = await this.#targetFault(upload, error, what);
    if (!(await this.#bad.isBad(upload.partialPath, parentOf(placeOf(this.root, upload.partialPath)), error))) return fault;
    await this.discard(upload, signal);
    return new Fault("transient", `${fault.message}, and takes other files: this one is begun anew`, { cause: error });
  }

  async #targetFault(upload: Upload, error: unknown, what: string): Promise<Fault> {
    return refusedAt(this.#place, asTargetFault(error, what), "rwx", parentOf(placeOf(this.root, upload.partialPath)));
  }

  /** As a clone, where the file system has those: that takes no time and no room. */
  async splice(upload: Upload, from: Part, at: number, signal: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    await this.#place.expectHere?.();
    placeOf(this.root, upload.path);
    const place = placeOf(this.root, upload.partialPath);
    if (at !== 0 || from.offset !== 0) throw new Fault("conflict", "only all of a file is copied, to begin with");
    await expectNoLink(this.root, from.path);
    const there = await statAt(this.root, from.path);
    if (there === undefined) throw new Fault("missing", `${from.path} is not there`);
    if (there.kind !== "file" || there.size !== from.length) throw new Fault("changed", `${from.path} has ${there.size} bytes`);
    await makeDirs(this.#place, upload.partialPath);
    try {
      await removeFile(place);
      // What was noted as synced is not there any more.
      if (syncedOf(upload) > 0) await upload.memo.set(syncedKey, undefined);
      const source = placeOf(this.root, from.path);
      const size = await copyOf(source, place, signal);
      if (size !== from.length) throw new Fault("changed", `${from.path} has ${size} bytes by now`);
      this.#written.add(upload.partialPath);
    } catch (error) {
      throw isFault(error) ? error : await this.#targetFault(upload, error, `cannot copy ${from.path}`);
    }
  }

  async #open(place: Buffer, path: string): Promise<fs.FileHandle> {
    try {
      return await fs.open(place, constants.O_WRONLY | constants.O_CREAT | constants.O_NOFOLLOW, 0o666);
    } catch (error) {
      throw (await noName(this.root, path, error)) ?? error;
    }
  }

  async commit(upload: Upload, signal: AbortSignal): Promise<Receipt | Occupant> {
    throwIfAborted(signal);
    await this.#place.expectHere?.();
    placeOf(this.root, upload.path);
    const partial = await statAt(this.root, upload.partialPath);
    if (partial === undefined) {
      const there = await this.look(upload, signal);
      if (there?.digest !== undefined && there.digest === upload.digest) return receipt(upload, there.digest);
      throw new Fault("conflict", "the partial is gone");
    }
    if (partial.size !== upload.size)
      throw new Fault(partial.size < upload.size ? "transient" : "conflict", `the partial has ${partial.size} bytes, not ${upload.size}`);
    const place = placeOf(this.root, upload.partialPath);
    let digest: Digest;
    try {
      digest = await this.#proven(place, upload, signal);
      const name = placeOf(this.root, upload.path);
      await makeDirs(this.#place, upload.path);
      const there = await this.look(upload, signal);
      if (there !== undefined) {
        const { expect } = upload;
        if (
          expect.kind !== "replaces" ||
          there.size !== expect.size ||
          (expect.digest !== undefined && (await digestOf(name, there.size, signal)) !== expect.digest)
        )
          return there;
        await fs.rename(place, name);
      } else await renameNew(place, name);
      await syncName(name);
    } catch (error) {
      // Somebody was faster than the look.
      if (codeOf(error) === "EEXIST") {
        const there = await this.look(upload, signal);
        if (there !== undefined) return there;
      }
      if (isFault(error)) throw error;
      const kept = (await statAt(this.root, upload.partialPath).catch(() => undefined)) !== undefined;
      const refused = kept ? await noName(this.root, upload.path, error) : undefined;
      throw refused ?? (await this.#mediumFault(upload, error, `cannot publish ${upload.path}`, signal));
    }
    this.#written.delete(upload.partialPath);
    this.#bad.forget(upload.partialPath);
    return receipt(upload, digest);
  }

  /** Reads the partial back, gives it its time, and syncs it. Throws "mismatch", and node's errors. */
  async #proven(place: Buffer, upload: Upload, signal: AbortSignal): Promise<Digest> {
    const handle = await fs.open(place, constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      const digest = await digestIn(handle, upload.size, signal);
      if (upload.digest !== undefined && digest !== upload.digest)
        throw new Fault("mismatch", `the target holds ${digest}, what was sent is ${upload.digest}`);
      if (upload.modifiedMs !== undefined) await handle.utimes(new Date(), new Date(upload.modifiedMs));
      await handle.sync().catch((error: unknown) => {
        // The system may have dropped the pages, and would not say so a second time: what was not synced before is written again.
        this.#written.delete(upload.partialPath);
        throw error;
      });
      return digest;
    } finally {
      await handle.close();
    }
  }

  async discard(upload: Upload, signal: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    await this.#place.expectHere?.();
    try {
      await removeDurable(placeOf(this.root, upload.partialPath));
    } catch (error) {
      // A file is where a directory was.
      if (codeOf(error) !== "ENOTDIR") throw await this.#targetFault(upload, error, `cannot remove ${upload.partialPath}`);
    }
    this.#written.delete(upload.partialPath);
    this.#bad.forget(upload.partialPath);
    if (syncedOf(upload) > 0) await upload.memo.set(syncedKey, undefined);
  }

  async look(upload: Upload, signal: AbortSignal): Promise<Occupant | undefined> {
    const there = await statAt(this.root, upload.path);
    if (there === undefined) return undefined;
    if (there.kind !== "file" || there.size !== upload.size) return { occupied: true, size: there.size };
    const name = placeOf(this.root, upload.path);
    const digest = await digestOf(name, there.size, signal);
    // It may be ours, by a try that was killed before its name was on the medium, or what others have just copied there.
    if (upload.digest === undefined || upload.digest === digest)
      await syncFound(name).catch((error: unknown) => {
        throw asTargetFault(error, `cannot sync ${upload.path}`);
      });
    return { occupied: true, size: there.size, digest, proof: "digest" };
  }
}

/** As `copyNew`; a link is not followed. */
async function copyOf(from: Buffer, to: Buffer, signal: AbortSignal): Promise<number> {
  const source = await fs.open(from, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    return await copyNew(source, to, signal);
  } finally {
    await source.close();
  }
}

function receipt(upload: Upload, digest: Digest): Receipt {
  return { path: upload.path, size: upload.size, digest, proof: upload.digest === undefined ? "size" : "digest" };
}

/** Makes the directories above a path; new names are durable. Throws the Fault. */
export async function makeDirs(place: LocalPlace, path: string): Promise<void> {
  const { dir: root } = place;
  let at = path.indexOf("/");
  try {
    for (; at !== -1; at = path.indexOf("/", at + 1)) {
      const dir = placeOf(root, path.slice(0, at));
      const there = (await lookedFor(fs.lstat(dir), path.slice(0, at))) ?? (await madeDir(dir));
      // A link to a directory elsewhere would lead out of the root.
      if (!there.isDirectory()) throw new Fault("rejected", `${root}/${path.slice(0, at)} is there and is not a directory`);
    }
  } catch (error) {
    if (isFault(error)) throw error;
    const made = path.slice(0, at);
    throw await refusedAt(place, asTargetFault(error, `cannot make the directory ${made}`), "rwx", parentOf(placeOf(root, made)));
  }
}

async function madeDir(dir: Buffer): Promise<Stats> {
  try {
    await fs.mkdir(dir);
    await syncDir(parentOf(dir));
  } catch (error) {
    // Of two that make it at once one is second.
    if (codeOf(error) !== "EEXIST") throw error;
  }
  return fs.lstat(dir);
}

/** A directory of the target that vanished is the target that is away. */
function asTargetFault(error: unknown, what: string): Fault {
  const fault = faultOfErrno(error, what);
  return fault.kind === "missing" ? new Fault("offline", fault.message, { cause: error }) : fault;
}

async function digestOf(place: Buffer, size: number, signal: AbortSignal): Promise<Digest> {
  try {
    const handle = await fs.open(place, constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      return await digestIn(handle, size, signal);
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw isFault(error) ? error : asTargetFault(error, "cannot read back what was written");
  }
}

async function digestIn(handle: fs.FileHandle, size: number, signal: AbortSignal): Promise<Digest> {
  const hash = createHash("sha256");
  for await (const bytes of piecesOf(handle, size, signal)) hash.update(bytes);
  return `sha256:${hash.digest("hex")}`;
}
