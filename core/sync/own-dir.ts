/** The program's own directory at a side: what is in it, and which of it is this route's. */
import { randomBytes } from "node:crypto";
import { emptyDir, staying } from "../empty-dir.js";
import { entriesIfAny } from "../entries.js";
import { Fault, isFault } from "../errors.js";
import type { Folding } from "../folded.js";
import { isAtOrBelow, nameIn } from "../paths.js";
import type { FileEntry, Target, Tree, TreePromises } from "../plugin.js";
import { ownDir } from "../route.js";
import { all } from "../turns.js";
import { publishTo, smallUpload } from "../try-out.js";
import { notAsListed } from "./replica.js";
import { type Ages, aged, isDay } from "./trash.js";

/** By day. */
export const trashDir = "trash";
/** By route: what a mirror has no place for yet. */
export const awayDir = "away";
/** What is on its way to a name, of all routes and clients. */
const stagedDir = "staged";
/** Each with its route: where what a side promises is tried out. */
const tryDir = "try-";
/** Where clients take turns (`lock.ts`): whose turn it is, and whose was ended by others. */
const [lockDir, endedDir] = ["lock", "ended"];
const holders = [trashDir, awayDir, stagedDir, lockDir, endedDir];
/** Only to see whether it is there without its accent in one with the letter, too: where spellings are one. */
const accented = "\u00e9".normalize("NFC");

export interface OwnDirGiven {
  /** As a person calls the device. */
  readonly device: string;
  /** Throws where the side has none. */
  readonly tree: () => Tree;
  readonly target: () => Target;
  /** Of a path below the route's directory the one below the device's root. */
  readonly at: (path: string) => string;
  /** Names the route; no "-" is in it. */
  readonly route: string;
  /** Which directory was agreed with; durable. */
  readonly mark: { get(): string | undefined; set(mark: string): Promise<void> };
}

export interface Expired {
  readonly ages: Ages;
  /** Days' worth of trash that are gone. */
  readonly gone: number;
  /** Days of which something cannot be taken away: why, for a person. */
  readonly stays: ReadonlyMap<string, string>;
}

/** Each method throws what the tree throws. */
export class OwnDir {
  constructor(readonly given: OwnDirGiven) {}

  get lock(): string {
    return this.at(lockDir);
  }

  get ended(): string {
    return this.at(endedDir);
  }

  /** Of a `Staging`: its partial is beside that, and where clients take turns it has this name while it waits for its own. */
  staged(id: string): string {
    return this.at(`${stagedDir}/${id}`);
  }

  /** Below the device's root. */
  at(name: string): string {
    return this.given.at(name === "" ? ownDir : `${ownDir}/${name}`);
  }

  /** Throws "rejected" where a link, or a file, is in place of what is to hold what is taken aside: not every server keeps that from leaving the directory. */
  async isMarked(signal: AbortSignal): Promise<boolean> {
    const { tree } = this.given;
    const own = await tree().stat(this.at(""), signal);
    if (own === undefined) return false;
    this.#expectDir(own);
    const [marked, entries] = await all([this.isStill(signal), entriesIfAny(tree(), this.at(""), signal)]);
    for (const entry of entries) if (holders.includes(nameIn(entry.path))) this.#expectDir(entry);
    return marked;
  }

  /** The same in one look, where all else was found in order before. */
  async isStill(signal: AbortSignal): Promise<boolean> {
    const { tree, route, mark } = this.given;
    const known = mark.get();
    return known !== undefined && (await tree().stat(this.at(`${route}-${known}`), signal))?.kind === "directory";
  }

  #expectDir({ path, kind, reason = "no directory" }: FileEntry): void {
    if (kind === "directory") return;
    throw new Fault("rejected", `${this.given.device}:${path} is ${reason}: nothing can be kept in it; remove it there`);
  }

  /** Whether it is there under another spelling too, as everything else at that side then is. */
  async folds(signal: AbortSignal): Promise<Folding | undefined> {
    const { tree, at } = this.given;
    const isDir = async (path: string) => (await tree().stat(path, signal))?.kind === "directory";
    if (!(await isDir(at(ownDir.toUpperCase())))) return undefined;
    // A side that takes no such name at all may say so.
    const cut = await isDir(at(`${ownDir}.`)).catch((error: unknown) => {
      if (isFault(error, "rejected", "denied")) return false;
      throw error;
    });
    if (cut) return "case and end";
    return (await isDir(this.at(accented.normalize("NFD")))) ? "case and form" : "case";
  }

  /** Any directory, by this route. Where none was, one is known by what it shows: `strangeIn` (`stop.ts`). */
  get wasMarked(): boolean {
    return this.given.mark.get() !== undefined;
  }

  /** Those that routes made here, also ones that come no more: "route-mark". */
  async marks(signal: AbortSignal): Promise<ReadonlySet<string>> {
    const entries = await entriesIfAny(this.given.tree(), this.at(""), signal);
    return new Set(entries.flatMap(({ path }) => /^[0-9a-f]{16}-[0-9a-f]{16}$/.exec(nameIn(path)) ?? []));
  }

  /** By another mark each time: two disks that come to one mount point, or a mount point and its disk, never have the same. */
  async mark(signal: AbortSignal): Promise<void> {
    const { route, mark } = this.given;
    const tree = this.given.tree();
    const fresh = randomBytes(8).toString("hex");
    // Of an earlier time, or of a kill in the middle of this.
    for (const { path } of await entriesIfAny(tree, this.at(""), signal))
      if (path.startsWith(this.at(`${route}-`))) await tree.rmdir(path, signal);
    await tree.mkdir(this.at(`${route}-${fresh}`), signal);
    if ((await this.folds(signal)) !== undefined) await tree.mkdir(this.at(accented), signal);
    await mark.set(fresh);
  }

  /** What the device promises here, by trying. What a kill left of that is taken away. */
  async tryOut(signal: AbortSignal): Promise<TreePromises> {
    const tree = this.given.tree();
    const dir = this.at(`${tryDir}${this.given.route}`);
    await emptyDir(tree, dir, signal);
    const promises = await tree.tryOut(dir, signal);
    await tree.rmdir(dir, signal);
    return promises;
  }

  /** What its clock shows, by a directory that is made now, or by a file where directories have no times; undefined where files have none either. */
  async shownMs(signal: AbortSignal): Promise<number | undefined> {
    const tree = this.given.tree();
    const dir = this.at(`${tryDir}${this.given.route}`);
    await tree.mkdir(dir, signal);
    const made = await tree.stat(dir, signal);
    const shownMs = made?.modifiedMs ?? (await this.#fileShowsMs(`${dir}/clock`, signal));
    await tree.rmdir(dir, signal);
    return shownMs;
  }

  async #fileShowsMs(path: string, signal: AbortSignal): Promise<number | undefined> {
    const [tree, target] = [this.given.tree(), this.given.target()];
    await publishTo(target)(smallUpload(path, Buffer.from("clock")), signal);
    const made = await tree.stat(path, signal, { times: true });
    if (made !== undefined) await tree.remove(path, made, signal);
    return made?.modifiedMs;
  }

  /**
   * What mirrors had no place for that are not this one and come no more (one that has another name by now, or lost its state): it may be the only copy. `to`: a name in the trash for it, below the
   * route's directory. Gives those names; `stays`: what cannot be moved now, with why.
   */
  async clearAway(
    to: (name: string) => string,
    signal: AbortSignal,
  ): Promise<{ readonly moved: string[]; readonly stays: Map<string, Fault> }> {
    const tree = this.given.tree();
    const [moved, stays] = [[] as string[], new Map<string, Fault>()];
    for (const dir of await entriesIfAny(tree, this.at(awayDir), signal)) {
      if (dir.kind !== "directory" || nameIn(dir.path) === this.given.route) continue;
      for (const entry of await entriesIfAny(tree, dir.path, signal)) {
        const trash = this.given.at(to(nameIn(entry.path)));
        try {
          await tree.move(entry.path, trash, entry.kind === "directory" ? entry.kind : entry, signal, { ours: true });
          moved.push(trash);
        } catch (error) {
          if (!isFault(error, ...notAsListed, ...staying)) throw error;
          stays.set(entry.path, error);
        }
      }
      await tree.rmdir(dir.path, signal).catch((error: unknown) => {
        if (!isFault(error, ...notAsListed, ...staying)) throw error;
      });
    }
    return { moved, stays };
  }

  /**
   * Takes away what has been in the trash for so long, and what a client that came no more had begun to send or to try. `open`: names in the trash, below the route's directory, of what is to get a
   * name again: their days stay.
   */
  async expire(ages: Ages, keepMs: number, nowMs: number, open: readonly string[], signal: AbortSignal): Promise<Expired> {
    const tree = this.given.tree();
    const isDayOf = ({ path, kind }: FileEntry) => kind === "directory" && isDay(nameIn(path));
    const days = (await entriesIfAny(tree, this.at(trashDir), signal)).filter(isDayOf);
    const parts = (await entriesIfAny(tree, this.at(stagedDir), signal)).filter(({ kind }) => kind === "file");
    const isTry = ({ path, kind }: FileEntry) => kind === "directory" && nameIn(path).startsWith(tryDir);
    const tries = (await entriesIfAny(tree, this.at(""), signal)).filter(isTry);
    const byName = new Map([...days, ...parts, ...tries].map((entry) => [nameIn(entry.path), entry]));
    const { old, ages: now } = aged(ages, [...byName.keys()], nowMs, keepMs);
    const stays = new Map<string, string>();
    const waits = ({ path }: FileEntry) => old.includes(nameIn(path)) && open.some((at) => isAtOrBelow(this.given.at(at), path));
    const waiting = new Set(days.filter(waits).map(({ path }) => nameIn(path)));
    let gone = 0;
    for (const name of old) {
      const entry = byName.get(name);
      if (entry === undefined || waiting.has(name)) continue;
      try {
        if (entry.kind !== "directory") await tree.remove(entry.path, entry, signal);
        else {
          await emptyDir(tree, entry.path, signal);
          await tree.rmdir(entry.path, signal);
          if (isDayOf(entry)) gone += 1;
        }
      } catch (error) {
        if (!isFault(error, ...notAsListed, ...staying)) throw error;
        // What others had begun may go on just now.
        if (isDayOf(entry)) stays.set(name, error.message);
      }
    }
    // It is as old the next time.
    const kept = Object.entries(ages).filter(([name]) => stays.has(name) || waiting.has(name));
    return { ages: { ...now, ...Object.fromEntries(kept) }, gone, stays };
  }
}
