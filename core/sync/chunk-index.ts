/**
 * The chunks of what was agreed, a small file for each content, by its digest: what a file was when it is sent again. About 300 KB for each GiB. Nothing depends on them: one that is missing or damaged
 * means that the file is sent whole.
 */
import { promises as fs } from "node:fs";
import { join } from "node:path";
import { codeOf } from "../errors.js";
import { makeDirDurable, removeFile, removeTemporaries, writeDurable } from "../fs.js";
import type { Digest } from "../plugin.js";
import { type Chunk, decoded, encoded } from "./chunks.js";

/** Of smaller files the whole is soon sent; the chunks of larger ones take too much memory. */
const smallest = 4 * 2 ** 20;
const largest = 8 * 2 ** 30;

export class ChunkIndex {
  /** Nobody else writes in `dir`, which is made when it is needed. */
  constructor(readonly dir: string) {}

  /** Whether a file of this size has one. */
  has(size: number): boolean {
    return size >= smallest && size <= largest;
  }

  /** undefined: there is none, or it is damaged. Throws node's error. */
  async load(digest: Digest, size: number): Promise<readonly Chunk[] | undefined> {
    try {
      return decoded(await fs.readFile(this.#at(digest)), size);
    } catch (error) {
      if (codeOf(error) !== "ENOENT") throw error;
      return undefined;
    }
  }

  /** Throws node's error. */
  async save(digest: Digest, chunks: readonly Chunk[]): Promise<void> {
    await makeDirDurable(this.dir);
    await writeDurable(this.#at(digest), encoded(chunks));
  }

  /** Takes away those of other contents. Throws node's error. */
  async keep(wanted: ReadonlySet<Digest>): Promise<void> {
    try {
      await removeTemporaries(this.dir);
      for (const name of await fs.readdir(this.dir)) if (!wanted.has(`sha256:${name}`)) await removeFile(join(this.dir, name));
    } catch (error) {
      if (codeOf(error) !== "ENOENT") throw error;
    }
  }

  #at(digest: Digest): string {
    return join(this.dir, digest.slice(digest.indexOf(":") + 1));
  }
}
