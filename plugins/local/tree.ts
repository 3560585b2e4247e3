/**
 * Listing and changing by hand, and for delete, archive, mirror and two-way. Each change looks right before it acts.
 *
 * A file is moved by a hard link, a directory onto one that was made for it: exactly one of several gets a name. Where there are no hard links (FAT, exFAT) a file is
 * moved after a look, and what another program puts there in that moment is replaced.
 */
import { constants, promises as fs } from "node:fs";
import { codeOf, Fault, faultOfErrno, faultOfRmdir, faultOfSync, isFault, throwIfAborted } from "../../core/errors.js";
import type { FileThread } from "../../core/file-thread.js";
import { removeDurable, renameByLink, renameDirNew, renameNew, syncDir, syncGone, syncName, syncThere } from "../../core/fs.js";
import type { FileEntry, MoveHow, Stamp, Tree, TreePromises } from "../../core/plugin.js";
import { expectBelow, expectMovable } from "../../core/remote.js";
import { orRefused, publishTo, tryOut } from "../../core/try-out.js";
import { Turns } from "../../core/turns.js";
import { expectNoLink, isSame, type LocalPlace, lookAt, makeRoot, noName, parentOf, placeOf, refusedAt } from "./place.js";
import { listDir, type LocalSource } from "./source.js";
import { makeDirs, type LocalTarget } from "./target.js";

export class LocalTree implements Tree {
  readonly root: string;
  readonly #place: LocalPlace;
  readonly #files: FileThread;
  readonly #source: LocalSource;
  readonly #target: LocalTarget;
  /** A medium that hangs leaves one thread of libuv's, which by itself has four, to everybody else. */
  readonly #syncs = new Turns(3);

  constructor(place: LocalPlace, files: FileThread, source: LocalSource, target: LocalTarget) {
    this.root = place.dir;
    this.#place = place;
    this.#files = files;
    this.#source = source;
    this.#target = target;
  }

  async *list(dir: string, signal: AbortSignal): AsyncIterable<FileEntry> {
    await this.#place.expectHere?.();
    if (dir !== "") await expectNoLink(this.root, `${dir}/`);
    for await (const entries of listDir(this.#files, this.#place, dir, signal))
      for (const entry of entries) {
        throwIfAborted(signal);
        yield entry;
      }
  }

  async stat(path: string): Promise<FileEntry | undefined> {
    await this.#place.expectHere?.();
    return lookAt(this.root, path);
  }

  async move(from: string, to: string, expect: Stamp | "directory", _signal?: AbortSignal, how: MoveHow = {}): Promise<void> {
    expectMovable(from, to);
    const [source, target] = [placeOf(this.root, from), placeOf(this.root, to)];
    try {
      await this.#expect(from, expect).catch(async (error: unknown) => {
        if (isFault(error, "missing")) await syncMoved(source, target);
        throw error;
      });
      if (how.made !== true) await this.#makeDirsOf(to);
      // One that may be written and not read cannot be synced: that is said before anything is moved.
      await (await fs.open(parentOf(target), constants.O_RDONLY | constants.O_DIRECTORY)).close();
      // That took its time.
      await this.#expect(from, expect);
      if (expect === "directory") await renameDirNew(source, target);
      else await (how.ours === true ? fs.rename(source, target) : renameNew(source, target));
      await syncName(target);
      if (!parentOf(source).equals(parentOf(target))) await syncDir(parentOf(source));
    } catch (error) {
      if (codeOf(error) === "EEXIST") throw new Fault("conflict", `${to} is there already`);
      // What is moved is there still: it is the new name that is refused.
      const refused = (await this.stat(from).catch(() => undefined)) === undefined ? undefined : await noName(this.root, to, error);
      throw refused ?? (await this.#refused(faultOfErrno(error, `cannot move ${from} to ${to}`), target, source));
    }
  }

  async remove(path: string, expect: Stamp): Promise<void> {
    const now = await this.stat(path);
    if (now !== undefined) expectIs(now, expect);
    const place = placeOf(this.root, path);
    try {
      await (now === undefined ? syncGone(place) : removeDurable(place));
    } catch (error) {
      throw await this.#refused(faultOfErrno(error, `cannot remove ${path}`), place);
    }
  }

  async rmdir(path: string): Promise<void> {
    expectBelow(path);
    const now = await this.stat(path);
    if (now !== undefined) expectIs(now, "directory");
    const place = placeOf(this.root, path);
    try {
      if (now !== undefined) await fs.rmdir(place);
      await syncGone(place);
    } catch (error) {
      const fault = faultOfRmdir(error, path);
      if (fault !== undefined) throw await this.#refused(fault, place);
    }
  }

  async mkdir(path: string): Promise<void> {
    await this.#makeDirsOf(path === "" ? "x" : `${path}/x`);
  }

  async makeNew(path: string): Promise<boolean> {
    expectBelow(path);
    const place = placeOf(this.root, path);
    await this.#makeDirsOf(path);
    try {
      await fs.mkdir(place);
      await syncDir(parentOf(place));
      return true;
    } catch (error) {
      if (codeOf(error) === "EEXIST") return false;
      throw await this.#refused(faultOfErrno(error, `cannot make the directory ${path}`), place);
    }
  }

  async sync(path: string, _size: number, signal: AbortSignal): Promise<void> {
    try {
      await this.#syncs.run(signal, () => syncThere(placeOf(this.root, path)));
    } catch (error) {
      throw faultOfSync(error, path);
    }
  }

  tryOut(dir: string, signal: AbortSignal): Promise<TreePromises> {
    throwIfAborted(signal);
    const refused = (work: Promise<unknown>) => orRefused(work, `cannot try out ${dir === "" ? this.root : dir}`);
    const tried = {
      tree: this,
      source: this.#source,
      publish: publishTo(this.#target),
      rename: (from: string, to: string) => refused(renameByLink(placeOf(this.root, from), placeOf(this.root, to))),
      rmdir: (path: string) => refused(fs.rmdir(placeOf(this.root, path))),
    };
    return tryOut(tried, dir, signal);
  }

  #refused(fault: Fault, ...places: readonly Buffer[]): Promise<Fault> {
    return refusedAt(this.#place, fault, "rwx", ...places.map(parentOf));
  }

  async #makeDirsOf(path: string): Promise<void> {
    await this.#place.expectHere?.();
    if (this.#place.create) await makeRoot(this.#place);
    await makeDirs(this.#place, path);
  }

  async #expect(path: string, expect: Stamp | "directory"): Promise<void> {
    const now = await this.stat(path);
    if (now === undefined) throw new Fault("missing", `${path} is no longer there`);
    expectIs(now, expect);
  }
}

/** Perhaps by a run that was killed before it was synced. Never without both names. */
async function syncMoved(source: Buffer, target: Buffer): Promise<void> {
  await syncThere(target);
  await syncGone(source);
}

function expectIs(now: FileEntry, expect: Stamp | "directory"): void {
  const meant = expect === "directory" ? now.kind === "directory" : now.kind === "file" && isSame(now, expect);
  if (!meant) throw new Fault("changed", `${now.path} is not the ${expect === "directory" ? "directory" : "file"} that was expected`);
}
