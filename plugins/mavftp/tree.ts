/**
 * The autopilot's card as a tree: what is looked at, moved and removed by hand and for `afterDelivery`. Changes only while the vehicle is disarmed.
 * MAVLink FTP compares nothing by itself: each change looks first, and what another client does in between is not seen.
 */
import { Fault, isFault, throwIfAborted } from "../../core/errors.js";
import { isSafePath } from "../../core/names.js";
import { parentOf } from "../../core/paths.js";
import type { FileEntry, MoveHow, Source, Stamp, Tree, TreePromises } from "../../core/plugin.js";
import { dirGone, expectBelow, expectMeant, expectMovable, expectSame } from "../../core/remote.js";
import { publishTo, tryOut } from "../../core/try-out.js";
import { Turns } from "../../core/turns.js";
import { TakenName, type Card, type Stay } from "./card.js";
import { Refused } from "./refusals.js";
import { checkPath, checkRename, type MavftpTarget } from "./target.js";

/** FAT keeps every second second: by so much and no more the same time may differ. */
const SAME_MS = 2000;

export class MavftpTree implements Tree {
  readonly #card: Card;
  readonly #source: Pick<Source, "open">;
  readonly #target: MavftpTarget;
  /** A listing goes by numbers, in several requests, and a look is one: it misses what is there where something before it goes meanwhile. */
  readonly #turns = new Turns();

  constructor(card: Card, source: Pick<Source, "open">, target: MavftpTarget) {
    this.#card = card;
    this.#source = source;
    this.#target = target;
  }

  async *list(dir: string, signal: AbortSignal): AsyncGenerator<FileEntry> {
    throwIfAborted(signal);
    yield* await this.#turns.run(signal, () => this.#card.with(signal, (stay) => this.#card.list(stay, dir)));
  }

  async stat(path: string, signal: AbortSignal): Promise<FileEntry | undefined> {
    return isSafePath(path) ? this.#turns.run(signal, () => this.#card.with(signal, (stay) => this.#card.stat(stay, path))) : undefined;
  }

  async move(from: string, to: string, expect: Stamp | "directory", signal: AbortSignal, how: MoveHow = {}): Promise<void> {
    expectMovable(from, to);
    checkPath(to);
    const card = this.#card;
    return this.#alone(signal, async (stay) => {
      checkRename(await stay.root(), from, to);
      const look = async (): Promise<void> => {
        const found = await card.stat(stay, from);
        if (found === undefined) throw new Fault("missing", `${from} is not there any more`);
        expectMeant(found, expect, SAME_MS + 1);
        if ((await card.stat(stay, to)) !== undefined) throw new Fault("conflict", `${to} exists already`);
      };
      await look();
      if (parentOf(to) !== parentOf(from)) {
        if (how.made !== true) await card.makeDir(stay, parentOf(to));
        else if ((await card.stat(stay, parentOf(to))) === undefined) throw dirGone(to);
        await look();
      }
      await card.rename(stay, from, to).catch((error: unknown) => {
        throw error instanceof TakenName ? new Fault("conflict", `${to} exists already`, { cause: error }) : error;
      });
    });
  }

  async remove(path: string, expect: Stamp, signal: AbortSignal): Promise<void> {
    checkPath(path);
    const card = this.#card;
    return this.#alone(signal, async (stay) => {
      const found = await card.stat(stay, path);
      if (found === undefined) return;
      expectSame(found, expect, SAME_MS + 1);
      await card.remove(stay, path);
    });
  }

  async mkdir(path: string, signal: AbortSignal): Promise<void> {
    if (path !== "") checkPath(path);
    return this.#alone(signal, (stay) => this.#card.makeDir(stay, path));
  }

  async rmdir(path: string, signal: AbortSignal): Promise<void> {
    expectBelow(path);
    checkPath(path);
    const card = this.#card;
    return this.#alone(signal, async (stay) => {
      if (!(await this.#isEmpty(stay, path))) return;
      try {
        await card.removeDir(stay, path);
      } catch (error) {
        // What an autopilot says of one that is not empty is different with each.
        if (!isFault(error) || error.kind === "aborted" || error.kind === "offline" || (await this.#isEmpty(stay, path))) throw error;
      }
    });
  }

  /** False when nothing is there. Throws "conflict" and "changed". */
  async #isEmpty(stay: Stay, path: string): Promise<boolean> {
    const found = await this.#card.stat(stay, path);
    if (found === undefined) return false;
    expectMeant(found, "directory");
    if ((await this.#card.list(stay, path)).length > 0) throw new Fault("conflict", `${path} is not empty`);
    return true;
  }

  #alone<T>(signal: AbortSignal, work: (stay: Stay) => Promise<T>): Promise<T> {
    return this.#turns.run(signal, () => this.#card.grounded(signal, work));
  }

  async makeNew(path: string, signal: AbortSignal): Promise<boolean> {
    expectBelow(path);
    checkPath(path);
    const card = this.#card;
    return this.#card.grounded(signal, async (stay) => {
      await card.makeDir(stay, parentOf(path));
      return card.makeNew(stay, path);
    });
  }

  tryOut(dir: string, signal: AbortSignal): Promise<TreePromises> {
    const card = this.#card;
    const refused = (work: (stay: Stay) => Promise<void>, on: AbortSignal): Promise<boolean> =>
      this.#card.grounded(on, (stay) =>
        work(stay).then(
          () => true,
          (error: unknown) => {
            if (error instanceof TakenName || error instanceof Refused) return false;
            throw error;
          },
        ),
      );
    const tried = {
      tree: this,
      source: this.#source,
      publish: publishTo(this.#target),
      rename: (from: string, to: string, on: AbortSignal) => refused((stay) => card.rename(stay, from, to), on),
      rmdir: (path: string, on: AbortSignal) => refused((stay) => card.removeDir(stay, path), on),
      crowd: { rivals: 2, rounds: 1 },
      oneByOne: true as const,
    };
    return tryOut(tried, dir, signal);
  }
}
