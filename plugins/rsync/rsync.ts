/**
 * Runs of rsync. Files go to the names of their partials, in place, so that what arrived stays whatever breaks; small ones many at a time. What is to
 * be sent stands as symbolic links in a directory of its own (`stage`), under the names that it shall have there.
 *
 * A file that is continued goes by `--append-verify`: rsync compares a checksum of the whole at the end, also of what was there before, and sends
 * again what differs. Nothing is ever deleted but a partial of our own, by its name.
 */
import { mkdir, mkdtemp, rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import { Observable } from "../../core/rxjs.js";
import { abortedFault, Fault, isFault, orAborted, throwIfAborted } from "../../core/errors.js";
import type { Upload } from "../../core/plugin.js";
import { parentOf, wirePath } from "../../core/wire-path.js";
import type { Children, Ended } from "./children.js";
import { faultsByFile, isOfOneFile, rsyncFault, syncsNone } from "./faults.js";
import { Gathered } from "./gathered.js";
import type { RsyncOptions } from "./options.js";
import { progressOf } from "./progress.js";

/** A larger file has a run of its own. */
const smallBytes = 8 * 2 ** 20;
/** So many small files in one run. */
export const mostTogether = 256;
export const mostBytesTogether = 32 * 2 ** 20;
/** A slow disk gives so many bytes per second: so long rsync may be silent while it reads what is there. */
const slowestPerSecond = 2e6;

export interface Sending {
  readonly upload: Upload;
  readonly localPath: string;
  readonly offset: number;
  readonly signal: AbortSignal;
  readonly onBytes: (n: number) => void;
}

/** Where a run goes: a name in ssh's configuration, and the directory there. */
export interface Place {
  /** For `-e`. */
  readonly ssh: string;
  /** "filesync:/srv/logs/". */
  readonly to: string;
}

/**
 * Names are given one by one, and the directories on the way are not part of it: those that are missing are made. As a part of it, a directory would take away a
 * file, or a link to a directory, that stands in its place there.
 */
const byName = ["--files-from=-", "--from0", "--no-implied-dirs"];

/** They came with rsync 3.2.4 and 3.2.3, and are done without where the one there does not know them. */
const newer = ["--fsync", "--mkpath"];
/** The rrsync of before 3.2.4 does not say which option it does not know. */
const unnamed = /invalid rsync-command syntax or options/;

interface More {
  /** Told how many bytes of files went by. */
  readonly onTotal?: (bytes: number) => void;
  readonly input?: Buffer;
}

export class Rsync {
  readonly #options: RsyncOptions;
  readonly #children: Children;
  readonly #place: Place;
  readonly #dir: string;
  readonly #slots: number;
  readonly #small: Gathered<Sending, Fault | undefined>;
  readonly #large: Gathered<Sending, Fault | undefined>;
  /** Those that the rsync there knows. */
  readonly #newer = new Set(newer);
  /** rrsync locks what it serves. */
  oneAtATime = false;
  /** Runs that are under way. Each ends by itself once no byte moves for too long. */
  runs = 0;
  #turn: Promise<unknown> = Promise.resolve();

  /** `dir`: where stages are made. `alone`: one run at a time, because a rate is to be kept. */
  constructor(options: RsyncOptions, children: Children, place: Place, dir: string, alone: boolean) {
    this.#options = options;
    this.#children = children;
    this.#place = place;
    this.#dir = dir;
    this.#slots = alone ? 1 : options.concurrency;
    const weight = ({ upload }: Sending): number => upload.size;
    this.#small = new Gathered({ slots: this.#slots, most: mostTogether, weight, mostWeight: mostBytesTogether }, (asked) =>
      this.#sendAll(asked),
    );
    this.#large = new Gathered({ slots: this.#slots, most: 1 }, (asked) => this.#sendAll(asked));
  }

  /** Sends a file to its partial from `offset` on. One that is small may go on after its signal, for a moment, with the others of its run: `ended` tells, also what was wrong then. */
  send(sending: Sending): { readonly sent: Promise<void>; readonly ended: Promise<unknown> } {
    const small = sending.offset === 0 && sending.upload.size <= smallBytes;
    const asked = (small ? this.#small : this.#large).ask(sending).then((fault) => {
      if (fault !== undefined) throw fault;
    });
    return { sent: orAborted(asked, sending.signal), ended: asked.catch((error: unknown) => error) };
  }

  /** One answer each: what some of many fail with rsync says of each, and the others are sent again, together; where it does not say of whom, each alone. */
  async #sendAll(asked: readonly Sending[]): Promise<(Fault | undefined)[]> {
    const faults = new Map<Sending, Fault | undefined>();
    for (let alone = false; ;) {
      const left = asked.filter((it) => !faults.has(it) && !it.signal.aborted);
      const sent = alone ? left.slice(0, 1) : left;
      if (sent.length === 0) break;
      const fault = await this.#sendOnce(sent);
      if (fault === undefined || sent.length === 1 || !isOfOneFile(fault)) {
        for (const it of sent) faults.set(it, fault);
        continue;
      }
      const uploads = sent.map(({ upload }) => upload);
      const named = faultsByFile(fault, uploads);
      for (const it of sent) if (named.has(it.upload)) faults.set(it, named.get(it.upload));
      alone = named.size === 0;
    }
    return asked.map((it) => (faults.has(it) ? faults.get(it) : abortedFault(it.signal)));
  }

  /** All of them in one run; it is stopped when nobody wants any of them. */
  async #sendOnce(asked: readonly Sending[]): Promise<Fault | undefined> {
    const stop = new AbortController();
    const look = (): void => {
      if (asked.every(({ signal }) => signal.aborted)) stop.abort();
    };
    for (const { signal } of asked) signal.addEventListener("abort", look, { once: true });
    try {
      await this.#sendStaged(asked, stop.signal);
      return undefined;
    } catch (error) {
      if (stop.signal.aborted) return abortedFault(asked[0]?.signal ?? stop.signal);
      if (isFault(error)) return error;
      throw error;
    } finally {
      for (const { signal } of asked) signal.removeEventListener("abort", look);
    }
  }

  async #sendStaged(asked: readonly Sending[], signal: AbortSignal): Promise<void> {
    // Only one that is alone is continued.
    const offset = asked[0]?.offset ?? 0;
    const onTotal = shared(asked, offset);
    const bytes = asked.reduce((sum, { upload }) => sum + upload.size, 0);
    // Continued: what is there is longer than nothing. Anew: whatever is there is made what it should be, also where its size is right.
    const how = offset > 0 ? ["--append-verify"] : ["--inplace", "--ignore-times"];
    const files = asked.map(({ upload, localPath }) => ({ path: upload.partialPath, localPath }));
    const input = listOf(files);
    await this.#staged(files, signal, (stage) =>
      this.#run(
        `cannot write ${asked
          .map(({ upload }) => upload.path)
          .slice(0, 3)
          .join(", ")}${asked.length > 3 ? ", …" : ""}`,
        [...how, ...this.#sendOptions(bytes, rateOf(asked)), "--info=progress2", "--no-human-readable", `${stage}/`, this.#place.to],
        signal,
        { onTotal, input },
      ),
    );
    onTotal(bytes);
  }

  /**
   * A file that is there already (the partial) is given another name: rsync finds it by its size and time, copies it at the server, and compares a checksum
   * of the whole. Whether it was done: not where the name is taken, unless `over`.
   */
  async publish(upload: Upload, localPath: string, over: boolean, signal: AbortSignal): Promise<boolean> {
    const never = over ? ["--ignore-times"] : ["--ignore-existing"];
    const files = [{ path: upload.path, localPath }];
    return this.#staged(files, signal, async (stage) => {
      const { out } = await this.#run(
        `cannot publish ${upload.path}`,
        ["--fuzzy", ...never, ...this.#sendOptions(2 * upload.size, upload.maxRate), "--out-format=%i", `${stage}/`, this.#place.to],
        signal,
        { input: listOf(files) },
      );
      return /^<f/m.test(out);
    });
  }

  /** Whether the file there has the content of the one here, by checksums of both rsyncs. */
  async same(path: string, localPath: string, size: number, signal: AbortSignal): Promise<boolean> {
    const files = [{ path, localPath }];
    return this.#staged(files, signal, async (stage) => {
      const args = ["--checksum", "--dry-run", ...byName, "-L", "--out-format=%i", ...this.#patience(size), `${stage}/`, this.#place.to];
      const { out } = await this.#run(`cannot compare ${path}`, args, signal, { input: listOf(files) });
      return !/^<f/m.test(out);
    });
  }

  /** The size of what is there; undefined where nothing is. A directory or what is no file has none. */
  async sizeOf(path: string, signal: AbortSignal): Promise<{ readonly size?: number } | undefined> {
    const how = ["--list-only", "--no-human-readable", "--no-dirs", "--files-from=-", "--from0", "--ignore-missing-args"];
    const ended = await this.#end([...how, ...this.#patience(0), this.#place.to, this.#dir], signal, { input: nameOf(path) });
    if (isRootAbsent(ended) || isBelowFile(ended)) return undefined;
    if (ended.code !== 0) throw rsyncFault(`cannot look at ${path}`, ended);
    // The directories on the way are listed too; names have their line ends escaped.
    const depth = path.split("/").length;
    const last = ended.out.split("\n").filter((line) => /^[-dlcbps]\S{9}/.test(line))[depth - 1];
    if (last === undefined) return undefined;
    const size = /^-\S+ +(\d+) /.exec(last)?.[1];
    return size === undefined ? {} : { size: Number(size) };
  }

  /** Whether the root is there: the first upload makes it. Throws where it cannot be looked at. */
  async look(signal: AbortSignal): Promise<boolean> {
    const ended = await this.#end(["--list-only", "--dirs", "--exclude=*", ...this.#patience(0), this.#place.to], signal);
    if (ended.code === 0) return true;
    if (isRootAbsent(ended)) return false;
    if (/change_dir .* failed: Not a directory/.test(ended.err)) throw new Fault("config", "the root is no directory");
    throw rsyncFault("cannot use the root", ended);
  }

  /** Removes one file of our own, by its name. */
  async remove(path: string, signal: AbortSignal): Promise<void> {
    await this.#staged([{ path, localPath: undefined }], signal, (stage) =>
      this.#run(
        `cannot remove ${path}`,
        ["--delete-missing-args", ...byName, "-O", ...this.#patience(0), `${stage}/`, this.#place.to],
        signal,
        { input: nameOf(path) },
      ),
    );
  }

  /** Modes are those of the umask there; times are kept, owners are not. */
  #sendOptions(bytes: number, rate: number | undefined): string[] {
    return [
      ...[...byName, "-Lt", "--omit-dir-times", "--chmod=D777,F666", ...this.#newer],
      ...(this.#options.compress ? ["--compress"] : []),
      ...(rate === undefined ? [] : [`--bwlimit=${Math.max(1, Math.floor(rate / 1024 / this.#slots))}`]),
      ...this.#patience(bytes),
    ];
  }

  #patience(bytes: number): string[] {
    return [`--timeout=${Math.ceil(this.#options.timeout / 1000 + bytes / slowestPerSecond)}`];
  }

  /** Throws what it ended with. */
  async #run(what: string, args: readonly string[], signal: AbortSignal, more: More = {}): Promise<Ended> {
    const ended = await this.#end(args, signal, more);
    if (ended.code === 0) return ended;
    const unknown = newer.filter((it) => args.includes(it) && (ended.err.includes(it) || unnamed.test(ended.err)));
    if (unknown.length > 0) {
      for (const it of unknown) this.#newer.delete(it);
      return this.#run(
        what,
        args.filter((it) => !unknown.includes(it)),
        signal,
        more,
      );
    }
    // Not at once without it: what is whole there by now would not be compared.
    if (syncsNone(ended.err)) this.#newer.delete("--fsync");
    throw rsyncFault(what, ended);
  }

  #end(args: readonly string[], signal: AbortSignal, { onTotal, input }: More = {}): Promise<Ended> {
    const run = async (): Promise<Ended> => {
      this.runs += 1;
      try {
        return await this.#children.run(["rsync", "-e", this.#place.ssh, ...args], {
          signal,
          ...(input === undefined ? {} : { input }),
          ...(onTotal === undefined ? {} : { onOut: totals(onTotal) }),
        });
      } finally {
        this.runs -= 1;
      }
    };
    return this.oneAtATime ? this.#inTurn(run, signal) : run();
  }

  #inTurn<T>(run: () => Promise<T>, signal: AbortSignal): Promise<T> {
    const mine = this.#turn.then(run);
    this.#turn = mine.catch(() => undefined);
    return orAborted(mine, signal);
  }

  async #staged<T>(
    files: readonly { readonly path: string; readonly localPath: string | undefined }[],
    signal: AbortSignal,
    work: (stage: string) => Promise<T>,
  ): Promise<T> {
    throwIfAborted(signal);
    const stage = await mkdtemp(join(this.#dir, "s"));
    try {
      const made = new Set<string>();
      for (const { path, localPath } of files) {
        const at = wirePath(Buffer.from(stage), path);
        const dir = parentOf(at);
        if (!made.has(dir.toString("latin1"))) await mkdir(dir, { recursive: true });
        made.add(dir.toString("latin1"));
        if (localPath !== undefined) await symlink(localPath, at);
      }
      return await work(stage);
    } finally {
      await rm(stage, { recursive: true, force: true });
    }
  }
}

function listOf(files: readonly { readonly path: string }[]): Buffer {
  return Buffer.concat(files.flatMap(({ path }) => [nameOf(path), Buffer.of(0)]));
}

/** A path of core below the root, as bytes, for a list of names. One that begins with "#" or ";" would be a remark there, also with `--from0`, and be left out without a word. */
function nameOf(path: string): Buffer {
  const name = wirePath(Buffer.from("."), path);
  return /^[#;]/.test(path) ? name : name.subarray(2);
}

/** A file is where a directory was. */
function isBelowFile({ code, err }: Ended): boolean {
  return code === 23 && /link_stat .* failed: Not a directory/.test(err);
}

/** As rsync says it, or the rrsync of 3.5, which starts none then. Which of the two ends first decides on the code. */
function isRootAbsent({ code, err }: Ended): boolean {
  return code !== 0 && /(change_dir .* failed:|post-realpath open failed .*) No such file or directory/.test(err);
}

function rateOf(asked: readonly Sending[]): number | undefined {
  const rates = asked.flatMap(({ upload }) => (upload.maxRate === undefined ? [] : [upload.maxRate]));
  return rates.length === 0 ? undefined : Math.min(...rates);
}

/**
 * Tells the files of a run what went by of all of them together, as if one had gone after the other: what counts the bytes (a budget) has to hear of them while they
 * go, and which file they are of does not matter to it.
 */
function shared(asked: readonly Sending[], offset: number): (total: number) => void {
  let told = offset;
  return (total) => {
    let begin = 0;
    for (const { upload, onBytes } of asked) {
      const end = begin + upload.size;
      const more = Math.min(total, end) - Math.max(told, begin);
      if (more > 0) onBytes(more);
      begin = end;
    }
    told = Math.max(told, total);
  };
}

/** Text in, totals out. */
function totals(onTotal: (bytes: number) => void): (text: string) => void {
  let push: (text: string) => void = () => undefined;
  progressOf(new Observable<string>((subscriber) => void (push = (text) => subscriber.next(text)))).subscribe(onTotal);
  return (text) => push(text);
}
