/**
 * The server's root as a Tree: what core and a person may list and change there, beside the clients.
 *
 * A change is durable when it resolves, never goes over anything, and only touches the file that was meant. What a client is writing is
 * left alone: Fault "changed".
 */
import { Fault, faultOfErrno, throwIfAborted } from "../../core/errors.js";
import type { FileEntry, Stamp, Tree } from "../../core/plugin.js";
import { isSame, type Inbox } from "./inbox.js";
import { codeOf, placeOfCorePath, type Place } from "./root.js";

export class InboxTree implements Tree {
  readonly #inbox: Inbox;

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

  async move(from: string, to: string, expect: Stamp, signal: AbortSignal): Promise<void> {
    const found = await this.stat(from, signal);
    if (found === undefined) throw new Fault("missing", `${from} is not there any more`);
    this.#expect(found, expect);
    try {
      const [source, target] = [placeOfCorePath(from), placeOfCorePath(to)];
      await this.#makeDirs(target.slice(0, -1));
      await this.#inbox.root.rename(source, target, false);
      await this.#inbox.forgotten(source);
    } catch (error) {
      if (codeOf(error) === "EEXIST") throw new Fault("conflict", `${to} exists already`);
      throw faultOfErrno(error, `cannot move ${from} to ${to}`);
    }
  }

  async remove(path: string, expect: Stamp, signal: AbortSignal): Promise<void> {
    const found = await this.stat(path, signal);
    if (found === undefined) return;
    this.#expect(found, expect);
    try {
      const place = placeOfCorePath(path);
      await this.#inbox.root.unlink(place);
      await this.#inbox.forgotten(place);
    } catch (error) {
      if (codeOf(error) !== "ENOENT") throw faultOfErrno(error, `cannot remove ${path}`);
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

  #expect(found: FileEntry, expect: Stamp): void {
    if (found.settled === false) throw new Fault("changed", `${found.path} is being written`);
    if (found.kind !== "file" || !isSame(expect, found)) throw new Fault("changed", `${found.path} is not the file that was meant`);
  }
}
