/** Listing and changing by hand, and for delete and archive. Each change looks at the file once more first. */
import { promises as fs } from "node:fs";
import { Fault, faultOfErrno } from "../../core/errors.js";
import type { FileThread } from "../../core/file-thread.js";
import { renameNew, syncName } from "../../core/fs.js";
import type { FileEntry, Stamp, Tree } from "../../core/plugin.js";
import { expectNoLink, isSame, placeOf, statAt } from "./place.js";
import { listDir } from "./source.js";
import { makeDirs } from "./target.js";

export class LocalTree implements Tree {
  constructor(
    readonly root: string,
    readonly files: FileThread,
  ) {}

  async *list(dir: string, signal: AbortSignal): AsyncIterable<FileEntry> {
    if (dir !== "") await expectNoLink(this.root, `${dir}/`);
    yield* listDir(this.files, this.root, dir, signal);
  }

  async stat(path: string): Promise<FileEntry | undefined> {
    await expectNoLink(this.root, path);
    return statAt(this.root, path);
  }

  async move(from: string, to: string, expect: Stamp): Promise<void> {
    await this.#expect(from, expect);
    const place = placeOf(this.root, to);
    try {
      await makeDirs(this.root, to);
      await renameNew(placeOf(this.root, from), place);
      await syncName(place);
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "EEXIST") throw new Fault("conflict", `${to} is there already`);
      throw faultOfErrno(error, `cannot move ${from} to ${to}`);
    }
  }

  async remove(path: string, expect: Stamp): Promise<void> {
    if ((await this.stat(path)) === undefined) return;
    await this.#expect(path, expect);
    try {
      await fs.rm(placeOf(this.root, path));
    } catch (error) {
      throw faultOfErrno(error, `cannot remove ${path}`);
    }
  }

  async mkdir(path: string): Promise<void> {
    await makeDirs(this.root, `${path}/x`);
  }

  async #expect(path: string, expect: Stamp): Promise<void> {
    const now = await this.stat(path);
    if (now === undefined) throw new Fault("missing", `${path} is no longer there`);
    if (now.kind !== "file" || !isSame(now, expect)) throw new Fault("changed", `${path} is not the file that was expected`);
  }
}
