/**
 * How much of a partial is on the medium: synced every 2 MiB, or every 5 s, beside the writing, then noted in the upload's memo. A power cut costs
 * what lies behind the last mark, at most 4 MiB; a file smaller than that has none, and costs no sync of its own.
 */
import type { promises as fs } from "node:fs";
import { syncData } from "../../core/fs.js";
import type { Upload } from "../../core/plugin.js";

export const syncedKey = "synced";
const everyBytes = 2 * 2 ** 20;
/** The writing waits for a sync when so much lies behind the mark: with the piece under way it is 4 MiB. */
const mostBytes = 3 * 2 ** 20;
const everyMs = 5000;

/** The bytes of the partial that are known to be on the medium. */
export function syncedOf(upload: Upload): number {
  const synced = upload.memo.get(syncedKey);
  return typeof synced === "number" ? synced : 0;
}

export class Marks {
  #at: number;
  #marked: number;
  #markMs = performance.now();
  #running: Promise<void> | undefined;
  #failed: { readonly error: unknown } | undefined;

  constructor(
    readonly upload: Upload,
    readonly handle: fs.FileHandle,
    /** What is known to be there already. */
    synced: number,
  ) {
    this.#at = synced;
    this.#marked = synced;
  }

  /** The bytes before `at` were written. Throws what a sync failed with. */
  async reached(at: number): Promise<void> {
    this.#at = at;
    if (at - this.#marked >= mostBytes) await this.#running;
    if (this.#failed !== undefined) throw this.#failed.error;
    if (this.#running !== undefined) return;
    if (at - this.#marked < everyBytes && (performance.now() - this.#markMs < everyMs || at === this.#marked)) return;
    this.#markMs = performance.now();
    this.#running = this.#mark()
      .catch((error: unknown) => (this.#failed = { error }))
      .then(() => (this.#running = undefined));
  }

  /** No sync runs any more. Throws what one failed with. */
  async settled(): Promise<void> {
    await this.#running;
    if (this.#failed !== undefined) throw this.#failed.error;
  }

  /** After a fault: what came is made durable. False where a sync failed: the system may have dropped those pages, and only what was noted is there. */
  async last(): Promise<boolean> {
    await this.#running;
    if (this.#failed !== undefined) return false;
    if (this.#at === this.#marked) return true;
    return this.#mark().then(
      () => true,
      () => false,
    );
  }

  async #mark(): Promise<void> {
    const at = this.#at;
    await syncData(this.handle);
    await this.upload.memo.set(syncedKey, at);
    this.#marked = at;
  }
}
