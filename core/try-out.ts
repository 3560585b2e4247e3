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
import { withSignals } from "./signals.js";
import { all, Turns } from "./turns.js";

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
  /** How many want one directory at once, how often, before it is believed that one alone gets it; three, twice, when absent. */
  readonly crowd?: Crowd;
  /** Only a crowd comes at once: the device's own listings go wrong while something changes, and its line takes one thing at a time anyway. */
  readonly oneByOne?: true;
}

export interface Crowd {
  readonly rivals: number;
  readonly rounds: number;
}

const fewRivals: Crowd = { rivals: 3, rounds: 2 };
/** After a stop: so long what was made may take to be taken away. */
const sweepMs = 1500;

export async function tryOut(tried: Tried, dir: string, signal: AbortSignal): Promise<TreePromises> {
  const at = `${dir === "" ? "" : `${dir}/`}.filesync-try-${randomBytes(8).toString("hex")}`;
  throwIfAborted(signal);
  if (!(await tried.tree.makeNew(at, signal))) throw new Fault("conflict", `${at} is there already`);
  let found: TreePromises;
  try {
    found = await withSignals([signal], (own) => new Trial(tried, new Place(tried, at, own)).run());
    throwIfAborted(signal);
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

/** The directory of a trial. */
class Place {
  readonly #tried: Tried;
  readonly #at: string;
  readonly signal: AbortSignal;
  readonly #turns: Turns;
  #files = 0;

  constructor(tried: Tried, at: string, signal: AbortSignal) {
    this.#tried = tried;
    this.#at = at;
    this.signal = signal;
    this.#turns = new Turns(tried.oneByOne === true ? 1 : Infinity);
  }

  /** What may go beside others, of those a crowd as one. */
  beside<T>(work: () => Promise<T>): Promise<T> {
    return this.#turns.run(undefined, work);
  }

  path(name: string): string {
    return `${this.#at}/${name}`;
  }

  /** Of a length that no other has. */
  content(): Buffer {
    this.#files += 1;
    return randomBytes(16 + this.#files);
  }

  /** False where something has that name. */
  async publish(path: string, content: Buffer): Promise<boolean> {
    throwIfAborted(this.signal);
    return this.#tried.publish(smallUpload(path, content), this.signal);
  }

  /** A file under a name that is free. What it holds. */
  async make(path: string): Promise<Buffer> {
    const content = this.content();
    if (!(await this.beside(() => this.publish(path, content)))) throw new Fault("conflict", `${path} is there already`);
    return content;
  }

  async list(dir = this.#at): Promise<FileEntry[]> {
    throwIfAborted(this.signal);
    return entriesOf(this.#tried.tree, dir, this.signal);
  }

  /** What is listed holds that. */
  async holds(entry: FileEntry | undefined, content: Buffer | undefined): Promise<boolean> {
    if (entry === undefined || content === undefined) return false;
    return this.beside(async () => (await this.#read(entry))?.equals(content) ?? false);
  }

  async #read(entry: FileEntry): Promise<Buffer | undefined> {
    try {
      const parts: Buffer[] = [];
      for await (const part of await this.#tried.source.open(entry, 0, this.signal)) parts.push(part as Buffer);
      return Buffer.concat(parts);
    } catch (error) {
      if (isFault(error, "missing", "changed")) return undefined;
      throw error;
    }
  }
}

/**
 * What is asked beside others, as who looks finds it: a failure where it failed. As if each had been asked after those that it depends on, a failure of what turns out to be nobody's
 * question is none.
 */
type Found<T> = () => T;

async function found<T>(work: Promise<T>): Promise<Found<T>> {
  const [it] = await Promise.allSettled([work]);
  return () => {
    if (it.status === "fulfilled") return it.value;
    throw it.reason;
  };
}

/** Over a line with latency each step takes its time: all goes together that does not wait for another. While a directory is listed nothing is changed in it. */
class Trial {
  readonly #tried: Tried;
  readonly #place: Place;

  constructor(tried: Tried, place: Place) {
    this.#tried = tried;
    this.#place = place;
  }

  async run(): Promise<TreePromises> {
    const { tree, rename } = this.#tried;
    const place = this.#place;
    const [plain, stray, full] = [place.path("plain"), place.path("stray"), place.path("full")];
    const names = rename === undefined ? undefined : new Names(rename, place);
    // By the files connections are opened: the crowds after them come by all of them at the same moment.
    const [again] = await all([
      found(place.beside(() => this.#again())),
      place.make(plain),
      place.make(stray),
      place.beside(() => tree.mkdir(full, place.signal)),
      names?.make(),
    ]);
    const before = await place.list();
    const [directories] = await all([
      again() ? this.#directories(of(before, stray)) : false,
      names?.race(),
      place.beside(() => tree.move(plain, `${full}/plain`, of(before, plain), place.signal)),
    ]);
    const mayHold = names?.mayHold === true;
    const [inFull, after] = await all([place.list(full), mayHold ? place.list() : []]);
    const [rmdirIsSafe, exclusive] = await all([this.#fullStays(full, inFull), names?.hold(after) ?? false]);
    return {
      exclusive: exclusive ? "names" : directories ? "directories" : "nothing",
      rmdirIsSafe,
    };
  }

  /** What is there is not made once more. */
  async #again(): Promise<boolean> {
    const { tree } = this.#tried;
    const again = this.#place.path("again");
    return (await tree.makeNew(again, this.#place.signal)) && !(await tree.makeNew(again, this.#place.signal));
  }

  async #directories(stray: FileEntry): Promise<boolean> {
    const { crowd = fewRivals } = this.#tried;
    const place = this.#place;
    const rounds = Array.from({ length: crowd.rounds }, (_, n) => found(place.beside(() => this.#oneMakes(`dir-${n}`, crowd.rivals))));
    const [gone, ...each] = await all([found(place.beside(() => this.#goneStaysGone(stray))), ...rounds]);
    return each.every((one) => one()) && gone();
  }

  async #oneMakes(name: string, rivals: number): Promise<boolean> {
    const { tree } = this.#tried;
    const wanted = Array.from({ length: rivals }, () => tree.makeNew(this.#place.path(name), this.#place.signal));
    return (await all(wanted)).filter(Boolean).length === 1;
  }

  /** There are servers that make what is missing of a path. */
  async #goneStaysGone(stray: FileEntry): Promise<boolean> {
    const { tree } = this.#tried;
    const gone = this.#place.path("gone");
    try {
      await tree.move(stray.path, `${gone}/x`, stray, this.#place.signal, { ours: true, made: true });
      return false;
    } catch (error) {
      if (!isFault(error, "missing")) throw error;
      return (await tree.stat(gone, this.#place.signal)) === undefined;
    }
  }

  async #fullStays(full: string, before: readonly FileEntry[]): Promise<boolean> {
    const { rmdir } = this.#tried;
    if (rmdir === undefined || (await rmdir(full, this.#place.signal))) return false;
    return same(before, await this.#place.list(full));
  }
}

/** Whether of several who want one name one gets it, and nothing is replaced. */
class Names {
  readonly #rename: NonNullable<Tried["rename"]>;
  readonly #place: Place;
  readonly #one: string;
  readonly #two: string;
  readonly #moved: string;
  readonly #published: string;
  readonly #rivals: readonly string[];
  readonly #contents = new Map<string, Buffer>();
  #publisher: Found<Buffer | undefined> = () => undefined;
  #refused: Found<boolean> = () => false;
  #mover: Found<string | undefined> = () => undefined;

  constructor(rename: NonNullable<Tried["rename"]>, place: Place) {
    this.#rename = rename;
    this.#place = place;
    [this.#one, this.#two] = [place.path("one"), place.path("two")];
    [this.#moved, this.#published] = [place.path("moved"), place.path("published")];
    this.#rivals = Array.from({ length: fewRivals.rivals }, (_, n) => place.path(String(n)));
  }

  async make(): Promise<void> {
    await all([this.#one, this.#two, ...this.#rivals].map(async (path) => this.#contents.set(path, await this.#place.make(path))));
  }

  async race(): Promise<void> {
    const rename = async (from: string, to: string) => this.#rename(from, to, this.#place.signal);
    const winner = async () => {
      const won = (await all(this.#rivals.map(async (path) => ((await rename(path, this.#moved)) ? [path] : [])))).flat();
      return won.length === 1 ? won[0] : undefined;
    };
    const beside = <T>(work: () => Promise<T>) => found(this.#place.beside(work));
    [this.#publisher, this.#mover, this.#refused] = await all([
      beside(() => this.#onePublishes()),
      beside(winner),
      beside(async () => !(await rename(this.#one, this.#two))),
    ]);
  }

  /** As far as it is known after the race. */
  get mayHold(): boolean {
    return this.#refused();
  }

  /** By the place as it is after the race. */
  async hold(after: readonly FileEntry[]): Promise<boolean> {
    if (!this.mayHold) return false;
    const holds = async (path: string, content: Buffer | undefined) =>
      this.#place.holds(
        after.find((it) => it.path === path),
        content,
      );
    const contentOf = (path: string) => this.#contents.get(path);
    const moved = async () => {
      const mover = this.#mover();
      if (mover === undefined) return false;
      const wanted = this.#rivals.map((path) => `${contentOf(path)?.length ?? 0} ${path === mover ? this.#moved : path}`);
      const shown = after.map(({ size, path }) => `${size} ${path}`);
      return wanted.every((it) => shown.includes(it)) && (await holds(this.#moved, contentOf(mover)));
    };
    const published = async () => holds(this.#published, this.#publisher());
    const looked = [holds(this.#one, contentOf(this.#one)), holds(this.#two, contentOf(this.#two)), moved(), published()];
    return (await all(looked.map(found))).every((one) => one());
  }

  /** What has the name; undefined where nobody or more than one was told so. */
  async #onePublishes(): Promise<Buffer | undefined> {
    const contents = Array.from({ length: fewRivals.rivals }, () => this.#place.content());
    const publish = async (content: Buffer): Promise<boolean | undefined> => {
      try {
        return await this.#place.publish(this.#published, content);
      } catch (error) {
        // What a server that makes a mess of it says: nobody knows who has won.
        if (isFault(error, "transient", "conflict")) return undefined;
        throw error;
      }
    };
    const won = await all(contents.map(publish));
    return won.includes(undefined) || won.filter(Boolean).length !== 1 ? undefined : contents[won.indexOf(true)];
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

/** Of a content that is here, for `publishTo`. */
export function smallUpload(path: string, content: Buffer): Upload {
  const id = randomBytes(8).toString("hex");
  const slash = path.lastIndexOf("/") + 1;
  const memo = new Map<string, unknown>();
  return {
    id,
    path,
    partialPath: `${path.slice(0, slash)}.${path.slice(slash)}.${randomBytes(4).toString("hex")}-${id}.part`,
    size: content.length,
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
