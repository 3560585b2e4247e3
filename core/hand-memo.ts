/**
 * What a target keeps of an upload by hand (`Upload.memo`), in a file of its own below the state directory until the file is there: so the same
 * command goes on where it was after a cut, as a delivery does. Without a state directory it is kept as long as the command runs.
 */
import { promises as fs } from "node:fs";
import { dirname } from "node:path";
import { codeOf, faultOfErrno } from "./errors.js";
import { makeDirDurable, removeFile, writeDurable } from "./fs.js";
import type { Memo } from "./plugin.js";

export class HandMemo implements Memo {
  readonly #kept: Map<string, unknown>;

  private constructor(
    readonly path: string | undefined,
    kept: Readonly<Record<string, unknown>>,
  ) {
    this.#kept = new Map(Object.entries(kept));
  }

  static async at(path: string | undefined): Promise<HandMemo> {
    if (path === undefined) return new HandMemo(path, {});
    try {
      return new HandMemo(path, JSON.parse(await fs.readFile(path, "utf8")) as Record<string, unknown>);
    } catch (error) {
      // A damaged one says nothing: the upload begins again.
      if (error instanceof SyntaxError || codeOf(error) === "ENOENT") return new HandMemo(path, {});
      throw faultOfErrno(error, `cannot read ${path}`);
    }
  }

  get(key: string): unknown {
    return this.#kept.get(key);
  }

  async set(key: string, value: unknown): Promise<void> {
    if (value === undefined) this.#kept.delete(key);
    else this.#kept.set(key, value);
    if (this.path === undefined) return;
    if (this.#kept.size === 0) return this.drop();
    try {
      await makeDirDurable(dirname(this.path), 0o750);
      await writeDurable(this.path, `${JSON.stringify(Object.fromEntries(this.#kept))}\n`, 0o600);
    } catch (error) {
      throw faultOfErrno(error, `cannot note in ${this.path} how far it came`);
    }
  }

  /** Nothing is to be gone on with. */
  async drop(): Promise<void> {
    if (this.path !== undefined) await removeFile(this.path);
  }
}
