/**
 * The autopilot's card as a tree: what is looked at, moved and removed by hand and for `afterDelivery`. Changes only while the vehicle is disarmed.
 * MAVLink FTP compares nothing by itself: each change looks first, and what another client does in between is not seen.
 */
import { Fault, throwIfAborted } from "../../core/errors.js";
import { isSafePath } from "../../core/names.js";
import type { FileEntry, Stamp, Tree } from "../../core/plugin.js";
import { expectSame } from "../../core/remote.js";
import { dirOf, TakenName, type Card } from "./card.js";
import { checkPath, checkRename } from "./target.js";

/** FAT keeps every second second: by so much and no more the same time may differ. */
const SAME_MS = 2000;

export class MavftpTree implements Tree {
  readonly #card: Card;

  constructor(card: Card) {
    this.#card = card;
  }

  async *list(dir: string, signal: AbortSignal): AsyncGenerator<FileEntry> {
    throwIfAborted(signal);
    yield* await this.#card.with(signal, (stay) => this.#card.list(stay, dir));
  }

  async stat(path: string, signal: AbortSignal): Promise<FileEntry | undefined> {
    return isSafePath(path) ? this.#card.with(signal, (stay) => this.#card.stat(stay, path)) : undefined;
  }

  async move(from: string, to: string, expect: Stamp, signal: AbortSignal): Promise<void> {
    checkPath(to);
    const card = this.#card;
    return card.with(
      signal,
      async (stay) => {
        checkRename(await stay.root(), from, to);
        const found = await card.stat(stay, from);
        if (found === undefined) throw new Fault("missing", `${from} is not there any more`);
        expectSame(found, expect, SAME_MS + 1);
        if ((await card.stat(stay, to)) !== undefined) throw new Fault("conflict", `${to} exists already`);
        await card.makeDir(stay, dirOf(to));
        await card.rename(stay, from, to).catch((error: unknown) => {
          throw error instanceof TakenName ? new Fault("conflict", `${to} exists already`, { cause: error }) : error;
        });
      },
      true,
    );
  }

  async remove(path: string, expect: Stamp, signal: AbortSignal): Promise<void> {
    checkPath(path);
    const card = this.#card;
    return card.with(
      signal,
      async (stay) => {
        const found = await card.stat(stay, path);
        if (found === undefined) return;
        expectSame(found, expect, SAME_MS + 1);
        await card.remove(stay, path);
      },
      true,
    );
  }

  async mkdir(path: string, signal: AbortSignal): Promise<void> {
    checkPath(path);
    return this.#card.with(signal, (stay) => this.#card.makeDir(stay, path), true);
  }
}
