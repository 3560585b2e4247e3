/**
 * The server's root as a Tree: what core and a person may list and change there, beside the clients.
 *
 * A change is durable when it resolves, never goes over anything, and only touches the file that was meant. What a client is writing is
 * left alone: Fault "changed".
 */
import { buffer } from "node:stream/consumers";
import { codeOf, Fault, faultOfErrno, faultOfRmdir, faultOfSync, throwIfAborted } from "../../core/errors.js";
import type { FileEntry, MoveHow, Stamp, Tree, TreePromises, Upload } from "../../core/plugin.js";
import { expectBelow, expectMovable } from "../../core/remote.js";
import { orRefused, tryOut } from "../../core/try-out.js";
import { Turns } from "../../core/turns.js";
import { isSame, type Inbox } from "./inbox.js";
import { placeOfCorePath, type Place } from "./root.js";

export class InboxTree implements Tree {
  readonly #inbox: Inbox;
  readonly #turns = new Turns();

  constructor(inbox: Inbox) {
    this.#inbox = inbox;
  }

  async *list(dir: string, signal: AbortSignal): AsyncGenerator<FileEntry> {
    throwIfAborted(signal);
    if (dir !== "") {
      const entry = await this.stat(dir, signal);
      if (entry?.kind !== "directory") throw new Fault("missing", `there is no directory ${dir}`);
    }
    for await (const entry of this.#inbox.read(placeOfCorePath(dir), signal)) {
      if (entry.path === dir) throw new Fault("denied", `${dir} ${entry.reason ?? "cannot be listed"}`);
      yield entry;
    }
  }

  stat(path: string, signal: AbortSignal): Promise<FileEntry | undefined> {
    return this.#inbox.stat(path, signal);
  }

  async move(from: string, to: string, expect: Stamp | "directory", signal: AbortSignal, how: MoveHow = {}): Promise<void> {
    expectMovable(from, to);
    const [source, target] = [placeOfCorePath(from), placeOfCorePath(to)];
    await this.#expectAt(from, expect, signal);
    try {
      if (how.made !== true) await this.#makeDirs(target.slice(0, -1));
      await this.#unwritten([from, to], async () => {
        // Making them took its time.
        await this.#expectAt(from, expect, signal);
        const rename = () => this.#inbox.root.rename(source, target, false);
        if (expect === "directory") return this.#inbox.moveDir(source, target, rename);
        await rename();
        this.#inbox.forgotten(source);
      });
    } catch (error) {
      if (codeOf(error) === "EEXIST") throw new Fault("conflict", `${to} exists already`);
      throw faultOfErrno(error, `cannot move ${from} to ${to}`);
    }
  }

  async remove(path: string, expect: Stamp, signal: AbortSignal): Promise<void> {
    const place = placeOfCorePath(path);
    await this.#unwritten([path], async () => {
      const found = await this.stat(path, signal);
      if (found === undefined) return;
      this.#expect(found, expect);
      try {
        await this.#inbox.root.unlink(place);
        this.#inbox.forgotten(place);
      } catch (error) {
        if (codeOf(error) !== "ENOENT") throw faultOfErrno(error, `cannot remove ${path}`);
      }
    });
  }

  async rmdir(path: string, signal: AbortSignal): Promise<void> {
    expectBelow(path);
    const found = await this.stat(path, signal);
    if (found === undefined) return;
    this.#expect(found, "directory");
    try {
      await this.#inbox.root.removeDir(placeOfCorePath(path));
    } catch (error) {
      const fault = faultOfRmdir(error, path);
      if (fault !== undefined) throw fault;
    }
  }

  async makeNew(path: string, signal: AbortSignal): Promise<boolean> {
    throwIfAborted(signal);
    expectBelow(path);
    const place = placeOfCorePath(path);
    try {
      await this.#makeDirs(place.slice(0, -1));
      await this.#inbox.root.makeDir(place);
      return true;
    } catch (error) {
      if (codeOf(error) === "EEXIST") return false;
      throw faultOfErrno(error, `cannot make the directory ${path}`);
    }
  }

  async sync(path: string): Promise<void> {
    try {
      await this.#inbox.root.syncThere(placeOfCorePath(path));
    } catch (error) {
      throw faultOfSync(error, path);
    }
  }

  tryOut(dir: string, signal: AbortSignal): Promise<TreePromises> {
    const { root } = this.#inbox;
    const refused = (work: Promise<unknown>) => orRefused(work, `cannot try out ${dir === "" ? "the root" : dir}`);
    const tried = {
      tree: this,
      source: this.#inbox,
      publish: (upload: Upload, on: AbortSignal) => refused(this.#publish(upload, on)),
      rename: (from: string, to: string) => refused(root.renameByLink(placeOfCorePath(from), placeOfCorePath(to))),
      rmdir: (path: string) => refused(root.removeDir(placeOfCorePath(path))),
    };
    return tryOut(tried, dir, signal);
  }

  /** As a client's upload is given its name where nothing may be replaced. Throws EEXIST. */
  async #publish(upload: Upload, signal: AbortSignal): Promise<void> {
    const { root } = this.#inbox;
    const [partial, place] = [placeOfCorePath(upload.partialPath), placeOfCorePath(upload.path)];
    const { handle } = await root.open(partial, "create");
    try {
      await handle.writeFile(await buffer(upload.read(0, signal)));
    } finally {
      await handle.close();
    }
    try {
      if (upload.modifiedMs !== undefined) await root.setTime(partial, upload.modifiedMs);
      await root.rename(partial, place, false);
    } catch (error) {
      await root.unlink(partial);
      throw error;
    }
  }

  async mkdir(path: string, signal: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    try {
      await this.#makeDirs(placeOfCorePath(path));
    } catch (error) {
      throw faultOfErrno(error, `cannot make the directory ${path}`);
    }
  }

  async #makeDirs(place: Place): Promise<void> {
    for (let depth = 1; depth <= place.length; depth++) {
      const dir = place.slice(0, depth);
      try {
        await this.#inbox.root.makeDir(dir);
      } catch (error) {
        if (codeOf(error) !== "EEXIST") throw error;
        if (!(await this.#inbox.root.lstat(dir)).isDirectory()) throw new Fault("rejected", `${dir.join("/")} is no directory`);
      }
    }
  }

  /** No client can begin to write there meanwhile. One after the other: of two who want one name, the second is to find what the first put there. */
  #unwritten(paths: readonly string[], work: () => Promise<void>): Promise<void> {
    return this.#turns.run(undefined, async () => {
      const release = this.#inbox.hold(...paths);
      if (release === undefined) throw new Fault("changed", `${paths.join(" or ")}, or a file in it, is being written`);
      try {
        await work();
      } finally {
        release();
      }
    });
  }

  async #expectAt(path: string, expect: Stamp | "directory", signal: AbortSignal): Promise<void> {
    const found = await this.stat(path, signal);
    if (found === undefined) throw new Fault("missing", `${path} is not there any more`);
    this.#expect(found, expect);
  }

  #expect(found: FileEntry, expect: Stamp | "directory"): void {
    if (expect === "directory") {
      if (found.kind !== "directory") throw new Fault("changed", `${found.path} is no directory any more`);
      return;
    }
    if (found.settled === false) throw new Fault("changed", `${found.path} is being written`);
    if (found.kind !== "file" || !isSame(expect, found)) throw new Fault("changed", `${found.path} is not the file that was meant`);
  }
}
