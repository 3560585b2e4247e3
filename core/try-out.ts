/**
 * What can be relied on below a directory (`Tree.tryOut`), found by doing it there: the last step of each change is tried without the look before it, which would
 * hide what a server does to who comes a moment later. All is done in a directory of its own, which is taken away again, also after a failure.
 */
import { createHash, randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { emptyDir } from "./empty-dir.js";
import { entriesOf } from "./entries.js";
import { codeOf, Fault, faultOfErrno, isFault, throwIfAborted } from "./errors.js";
import type { FileEntry, Source, Target, Tree, TreePromises, Upload } from "./plugin.js";
import { readingOf } from "./reading.js";
import { all } from "./turns.js";

/** What is tried. */
export interface Tried {
  readonly tree: Omit<Tree, "tryOut">;
  readonly source: Pick<Source, "open">;
  /** Writes and publishes under `upload.path`, where nothing is expected; false where something has that name. */
  readonly publish: (upload: Upload, signal: AbortSignal) => Promise<boolean>;
  /** The last step of moving a file, without a look; false where it is refused. Absent: it replaces, or looks and acts in two steps. */
  readonly rename?: (from: string, to: string, signal: AbortSignal) => Promise<boolean>;
  /** The last step of `rmdir`, without a look; false where it is refused. Absent: it takes what is in it. */
  readonly rmdir?: (path: string, signal: AbortSignal) => Promise<boolean>;
  /** Files' times are kept in no finer steps than this, though they may be told so. */
  readonly leastStepMs?: number;
  /** How many want one directory at once, how often, before it is believed that one alone gets it; three, twice, when absent. */
  readonly crowd?: Crowd;
}

export interface Crowd {
  readonly rivals: number;
  readonly rounds: number;
}

const fewRivals: Crowd = { rivals: 3, rounds: 2 };
/** The time that is set for one file: of each step that is known another multiple comes of it, also where it is rounded. */
export const setMs = Date.UTC(2020, 0, 1) + 1347;
/** After a stop: so long what was made may take to be taken away. */
const sweepMs = 1500;

export async function tryOut(tried: Tried, dir: string, signal: AbortSignal): Promise<TreePromises> {
  const at = `${dir === "" ? "" : `${dir}/`}.filesync-try-${randomBytes(8).toString("hex")}`;
  throwIfAborted(signal);
  if (!(await tried.tree.makeNew(at, signal))) throw new Fault("conflict", `${at} is there already`);
  let found: TreePromises;
  try {
    found = await new Trial(tried, at, signal).run();
  } catch (error) {
    const left = await sweep(tried.tree, at, signal.aborted ? AbortSignal.timeout(sweepMs) : signal).catch((it: unknown) => it);
    if (left === undefined || !(error instanceof Error)) throw error;
    const kind = isFault(error) ? error.kind : "transient";
    throw new Fault(kind, `${error.message}; ${leftover(at, left)}`, { cause: error });
  }
  await sweep(tried.tree, at, signal).catch((error: unknown) => {
    throw new Fault(isFault(error) ? error.kind : "transient", leftover(at, error), { cause: error });
  });
  return found;
}

function leftover(at: string, why: unknown): string {
  return `${at} could not be taken away: ${why instanceof Error ? why.message : String(why)}`;
}

/** Takes a directory away with all that is in it. */
async function sweep(tree: Tried["tree"], dir: string, signal: AbortSignal): Promise<undefined> {
  await emptyDir(tree, dir, signal);
  await tree.rmdir(dir, signal);
  return;
}

class Trial {
  readonly #tried: Tried;
  readonly #at: string;
  readonly #signal: AbortSignal;
  #files = 0;

  constructor(tried: Tried, at: string, signal: AbortSignal) {
    this.#tried = tried;
    this.#at = at;
    this.#signal = signal;
  }

  async run(): Promise<TreePromises> {
    const files = [`${this.#at}/timed`, `${this.#at}/plain`];
    for (const [n, path] of files.entries()) await this.#make(path, n === 0 ? setMs : undefined);
    const directories = (await this.#directories()) && (await this.#goneStaysGone(files[1] ?? ""));
    const timeStepMs = await this.#times(files);
    const rmdirIsSafe = await this.#fullStays();
    const exclusive = (await this.#names()) ? "names" : directories ? "directories" : "nothing";
    return { exclusive, rmdirIsSafe, ...(timeStepMs === undefined ? {} : { timeStepMs }) };
  }

  /** A file of a length that no other has, under a name that is free. What it holds. */
  async #make(path: string, modifiedMs?: number): Promise<Buffer> {
    throwIfAborted(this.#signal);
    const content = this.#content();
    if (!(await this.#tried.publish(uploadOf(path, content, modifiedMs), this.#signal)))
      throw new Fault("conflict", `${path} is there already`);
    return content;
  }

  /** A signal for one of several at once: what listens to one signal is warned about from eleven on. */
  #own(): AbortSignal {
    return AbortSignal.any([this.#signal]);
  }

  #content(): Buffer {
    this.#files += 1;
    return randomBytes(16 + this.#files);
  }

  async #directories(): Promise<boolean> {
    const { tree, crowd = fewRivals } = this.#tried;
    const again = `${this.#at}/again`;
    if (!(await tree.makeNew(again, this.#signal)) || (await tree.makeNew(again, this.#signal))) return false;
    for (let round = 0; round < crowd.rounds; round++) {
      throwIfAborted(this.#signal);
      const wanted = Array.from({ length: crowd.rivals }, () => tree.makeNew(`${this.#at}/dir-${round}`, this.#own()));
      if ((await all(wanted)).filter(Boolean).length !== 1) return false;
    }
    return true;
  }

  /** There are servers that make what is missing of a path. */
  async #goneStaysGone(path: string): Promise<boolean> {
    const { tree } = this.#tried;
    const entry = of(await this.#list(this.#at), path);
    try {
      await tree.move(path, `${this.#at}/gone/x`, entry, this.#signal, { ours: true, made: true });
    } catch (error) {
      if (!isFault(error, "missing")) throw error;
      return (await tree.stat(`${this.#at}/gone`, this.#signal)) === undefined;
    }
    await tree.move(`${this.#at}/gone/x`, path, entry, this.#signal, { ours: true });
    return false;
  }

  /** Moves them into "full". */
  async #times(paths: readonly string[]): Promise<number | undefined> {
    const { tree, leastStepMs } = this.#tried;
    const before = await this.#list(this.#at);
    await tree.mkdir(`${this.#at}/full`, this.#signal);
    for (const path of paths) await tree.move(path, this.#moved(path), of(before, path), this.#signal);
    const after = await this.#list(`${this.#at}/full`);
    for (const path of paths) {
      const { modifiedMs } = of(before, path);
      if (modifiedMs === undefined || of(after, this.#moved(path)).modifiedMs !== modifiedMs) return undefined;
    }
    // The times of directories too: the more there are, the less is by chance.
    const told = before.flatMap(({ modifiedMs }) => (modifiedMs === undefined ? [] : [modifiedMs]));
    return Math.max(stepOf(told), leastStepMs ?? 0);
  }

  #moved(path: string): string {
    return `${this.#at}/full${path.slice(this.#at.length)}`;
  }

  async #fullStays(): Promise<boolean> {
    const { rmdir } = this.#tried;
    if (rmdir === undefined) return false;
    const dir = `${this.#at}/full`;
    const before = await this.#list(dir);
    if (await rmdir(dir, this.#signal)) return false;
    return same(before, await this.#list(dir));
  }

  async #names(): Promise<boolean> {
    const { rename } = this.#tried;
    if (rename === undefined) return false;
    throwIfAborted(this.#signal);
    const contents = new Map<string, Buffer>();
    for (let n = 0; n < fewRivals.rivals; n++) contents.set(`${this.#at}/${n}`, await this.#make(`${this.#at}/${n}`));
    const [one = "", two = ""] = contents.keys();
    if (await rename(one, two, this.#signal)) return false;
    for (const path of [one, two]) if (!(await this.#hold(path, contents.get(path)))) return false;
    return (await this.#oneMoves(rename, contents)) && (await this.#onePublishes());
  }

  async #oneMoves(rename: NonNullable<Tried["rename"]>, contents: ReadonlyMap<string, Buffer>): Promise<boolean> {
    const name = `${this.#at}/moved`;
    const won = await all([...contents.keys()].map(async (path) => ({ path, moved: await rename(path, name, this.#own()) })));
    const [winner, ...others] = won.filter(({ moved }) => moved);
    if (winner === undefined || others.length > 0) return false;
    const wanted = [...contents].map(([path, { length }]) => `${length} ${path === winner.path ? name : path}`).sort();
    const found = (await this.#list(this.#at)).map(({ size, path }) => `${size} ${path}`);
    return wanted.every((it) => found.includes(it)) && (await this.#hold(name, contents.get(winner.path)));
  }

  async #onePublishes(): Promise<boolean> {
    const name = `${this.#at}/published`;
    const contents = Array.from({ length: fewRivals.rivals }, () => this.#content());
    const publish = async (content: Buffer): Promise<boolean | undefined> => {
      try {
        return await this.#tried.publish(uploadOf(name, content), this.#own());
      } catch (error) {
        // What a server that makes a mess of it says: nobody knows who has won.
        if (isFault(error, "transient", "conflict")) return undefined;
        throw error;
      }
    };
    const won = await all(contents.map(publish));
    if (won.includes(undefined) || won.filter(Boolean).length !== 1) return false;
    return this.#hold(name, contents[won.indexOf(true)]);
  }

  #list(dir: string): Promise<FileEntry[]> {
    return entriesOf(this.#tried.tree, dir, this.#signal);
  }

  async #hold(path: string, content: Buffer | undefined): Promise<boolean> {
    try {
      return content !== undefined && (await this.#read(path)).equals(content);
    } catch (error) {
      if (isFault(error, "missing", "changed")) return false;
      throw error;
    }
  }

  async #read(path: string): Promise<Buffer> {
    const entry = await this.#tried.tree.stat(path, this.#signal);
    if (entry === undefined) throw new Fault("missing", `${path} has gone`);
    const parts: Buffer[] = [];
    for await (const part of await this.#tried.source.open(entry, 0, this.#signal)) parts.push(part as Buffer);
    return Buffer.concat(parts);
  }
}

function of(entries: readonly FileEntry[], path: string): FileEntry {
  const found = entries.find((it) => it.path === path);
  if (found === undefined) throw new Fault("transient", `${path} was made, and is not listed`);
  return found;
}

function same(a: readonly FileEntry[], b: readonly FileEntry[]): boolean {
  const text = (entries: readonly FileEntry[]): string => JSON.stringify(entries.map(({ path, size }) => `${size} ${path}`).sort());
  return text(a) === text(b);
}

/** The longest step, of those that file systems and protocols have, of which each time is a multiple; more than a second only where one is that was set. */
export function stepOf(timesMs: readonly number[]): number {
  const micros = timesMs.map((ms) => Math.round(ms * 1000));
  // Where no time can be set, those of now may happen to be even.
  const steps = timesMs.some((ms) => Math.abs(ms - setMs) < 5000) ? [2000, 1000, 10, 1] : [1000, 10, 1];
  return steps.find((step) => micros.every((it) => it % (step * 1000) === 0)) ?? 0.001;
}

function uploadOf(path: string, content: Buffer, modifiedMs?: number): Upload {
  const id = randomBytes(8).toString("hex");
  const slash = path.lastIndexOf("/") + 1;
  const memo = new Map<string, unknown>();
  return {
    id,
    path,
    partialPath: `${path.slice(0, slash)}.${path.slice(slash)}.${randomBytes(4).toString("hex")}-${id}.part`,
    size: content.length,
    ...(modifiedMs === undefined ? {} : { modifiedMs }),
    expect: { kind: "absent" },
    sealed: true,
    digest: `sha256:${createHash("sha256").update(content).digest("hex")}`,
    memo: {
      get: (key) => memo.get(key),
      set: (key, value) => {
        memo.set(key, value);
        return Promise.resolve();
      },
    },
    read: (offset) => Readable.from(offset < content.length ? [content.subarray(offset)] : []),
    chunks: (offset) => readingOf(once(content.subarray(offset))),
  };
}

async function* once(bytes: Buffer): AsyncGenerator<Buffer> {
  if (bytes.length > 0) yield await Promise.resolve(bytes);
}

/** A step over node:fs: false where `work` gives false, or is refused because something is there. Else throws the Fault; `what` opens its message. */
export async function orRefused(work: Promise<unknown>, what: string): Promise<boolean> {
  try {
    return (await work) !== false;
  } catch (error) {
    if (["EEXIST", "ENOTEMPTY"].includes(codeOf(error))) return false;
    throw faultOfErrno(error, what);
  }
}

/** `publish` of a target's. A partial that got no name is forgotten. */
export function publishTo(target: Pick<Target, "write" | "commit" | "discard">): Tried["publish"] {
  return async (upload, signal) => {
    try {
      await target.write(upload, 0, signal, () => undefined);
      const said = await target.commit(upload, signal);
      if (!("occupied" in said)) return true;
    } catch (error) {
      await target.discard(upload, signal).catch(() => undefined);
      throw error;
    }
    await target.discard(upload, signal);
    return false;
  };
}
