/** The far end where commands are allowed: a shell that looks, digests, links and removes, many files at a time. */
import { stat } from "node:fs/promises";
import { Fault, orAborted } from "../../core/errors.js";
import type { Digest, Upload } from "../../core/plugin.js";
import { parentOf, wirePath } from "../../core/wire-path.js";
import type { FarEnd, FarState, Outcome } from "./far.js";
import { rsyncFault, unsyncedFault } from "./faults.js";
import { Gathered } from "./gathered.js";
import { quoted, type Shell } from "./shell.js";

/** So many files are asked for at once; their names fit into what a system takes as arguments. */
const most = 128;
const mostNameBytes = 96 * 1024;
/** What is larger is digested by a shell of its own: small files do not wait for it. */
const largeBytes = 8 * 2 ** 20;
/** Some syncs know no files, and write all that the server has to write. */
const syncMs = 300_000;
/** A slow disk gives so many bytes per millisecond. */
const slowest = 2000;

interface Named {
  readonly path: Buffer;
  readonly size: number;
}

interface Naming {
  readonly partial: Buffer;
  readonly name: Buffer;
}

export class FarShell implements FarEnd {
  readonly way = "a shell at the server";
  readonly #shell: Shell;
  readonly #open: () => Shell;
  readonly #timeoutMs: number;
  readonly #root: Buffer;
  #forLarge: Shell | undefined;
  #prepared: Promise<void> | undefined;
  readonly #states: Gathered<Buffer, FarState | undefined>;
  readonly #small: Gathered<Named, Digest | undefined>;
  readonly #large: Gathered<Named, Digest | undefined>;
  readonly #names: Gathered<Naming, string>;
  readonly #gone: Gathered<Buffer, undefined>;
  readonly #kept: Gathered<Buffer, undefined>;

  /** `open` gives one more shell. */
  constructor(shell: Shell, open: () => Shell, root: string, timeoutMs: number) {
    this.#shell = shell;
    this.#open = open;
    this.#timeoutMs = timeoutMs;
    this.#root = Buffer.from(root);
    const how = { slots: 1, most, mostWeight: mostNameBytes };
    const length = (it: Buffer): number => it.length;
    this.#states = new Gathered({ ...how, weight: length }, (paths) => this.#statesOf(paths));
    this.#small = new Gathered({ ...how, weight: ({ path }) => path.length }, (asked) => this.#digestsOf(this.#shell, asked));
    this.#large = new Gathered({ slots: 1, most: 1 }, (asked) => this.#digestsOf(this.#largeShell(), asked));
    this.#names = new Gathered({ ...how, weight: ({ partial, name }) => partial.length + name.length }, (asked) => this.#publishAll(asked));
    this.#gone = new Gathered({ ...how, weight: length }, async (paths) => {
      await this.#do(`rm -f -- ${paths.map(quoted).join(" ")}`, "cannot remove a partial");
      return paths.map(() => undefined);
    });
    this.#kept = new Gathered({ ...how, weight: (path) => 2 * path.length }, async (paths) => {
      const dirs = new Map(paths.map((path) => [parentOf(path).toString("latin1"), parentOf(path)]));
      // The names first: what is linked is on the medium with them. What cannot be synced is left as it is.
      await this.#shell.ask(`lasts ${[...dirs.values(), ...paths].map(quoted).join(" ")}`, Math.max(this.#timeoutMs, syncMs));
      return paths.map(() => undefined);
    });
  }

  get closed(): boolean {
    return this.#shell.closed;
  }

  async end(): Promise<void> {
    await Promise.all([this.#shell.end(), this.#forLarge?.end()]);
  }

  /** The root is made by the first upload. */
  prepare(signal: AbortSignal): Promise<void> {
    this.#prepared ??= this.#do(`mkdir -p -- ${quoted(this.#root)}`, "cannot make the root").catch((error: unknown) => {
      this.#prepared = undefined;
      throw error;
    });
    return orAborted(this.#prepared, signal);
  }

  state(path: string, signal: AbortSignal): Promise<FarState | undefined> {
    return orAborted(this.#states.ask(this.#at(path)), signal);
  }

  digest(path: string, { size }: Upload, signal: AbortSignal): Promise<Digest | undefined> {
    return orAborted((size > largeBytes ? this.#large : this.#small).ask({ path: this.#at(path), size }), signal);
  }

  async publish(upload: Upload, replace: boolean, signal: AbortSignal): Promise<Outcome> {
    const [partial, name] = [this.#at(upload.partialPath), this.#at(upload.path)];
    await orAborted(this.#setTime(upload, partial), signal);
    if (replace) {
      await this.#do(`mv -f -- ${quoted(partial)} ${quoted(name)}`, `cannot replace ${upload.path}`);
      await orAborted(this.#kept.ask(name), signal);
      return "published";
    }
    const answer = await this.#names.ask({ partial, name });
    if (answer === "x") return "occupied";
    if (answer !== "y") throw rsyncFault(`cannot publish ${upload.path}`, { code: 11, err: answer.slice(2) });
    // It is under both names until then; where it was moved nothing is left.
    await this.#gone.ask(partial);
    // Where that is stopped the next try finds the partial gone, and the name.
    await orAborted(this.#kept.ask(name), signal);
    return "published";
  }

  async settle(path: string): Promise<void> {
    const answer = (await this.#shell.ask(`last ${quoted(this.#at(path))}`, Math.max(this.#timeoutMs, syncMs))).trimEnd();
    if (answer !== "y") throw unsyncedFault(`cannot sync ${path}`, answer.slice(2));
  }

  async keep(path: string, signal: AbortSignal): Promise<void> {
    await orAborted(this.#kept.ask(this.#at(path)), signal);
  }

  async remove(path: string, signal: AbortSignal): Promise<void> {
    await orAborted(this.#gone.ask(this.#at(path)), signal);
  }

  #at(path: string): Buffer {
    return wirePath(this.#root, path);
  }

  #largeShell(): Shell {
    if (this.#forLarge?.closed !== false) this.#forLarge = this.#open();
    return this.#forLarge;
  }

  async #do(command: string, what: string): Promise<void> {
    const answer = (await this.#shell.ask(`ok ${command}`, this.#timeoutMs)).trimEnd();
    if (answer !== "y") throw rsyncFault(what, { code: 11, err: answer.slice(2) });
  }

  async #statesOf(paths: readonly Buffer[]): Promise<(FarState | undefined)[]> {
    const lines = linesOf(await this.#shell.ask(`st ${paths.map(quoted).join(" ")}`, this.#timeoutMs));
    return paths.map((_, i) => {
      const [, kind, size] = /^([fop-]) (\d+)$/.exec(lines[i] ?? "") ?? [];
      if (kind === undefined) throw new Fault("transient", `the server's shell answered "${(lines[i] ?? "").slice(0, 100)}"`);
      if (kind === "p") throw new Fault("denied", "a directory at the server may not be entered");
      return kind === "-" ? undefined : { kind: kind === "f" ? "file" : "other", size: Number(size) };
    });
  }

  async #digestsOf(shell: Shell, asked: readonly Named[]): Promise<(Digest | undefined)[]> {
    const ms = asked.reduce((sum, { size }) => sum + size / slowest, this.#timeoutMs);
    const paths = asked.map(({ path }) => path);
    const names = paths.map(quoted).join(" ");
    // A line end in a name could be taken for the end of an answer.
    if (!paths.some((path) => path.includes(0x0a))) {
      const lines = linesOf(await shell.ask(`sums ${names}`, ms));
      if (lines.length === paths.length) return lines.map(digestIn);
    }
    const lines = linesOf(await shell.ask(`sum1 ${names}`, ms));
    return paths.map((_, i) => digestIn(lines[i] ?? ""));
  }

  async #publishAll(asked: readonly Naming[]): Promise<string[]> {
    const names = asked.map(({ partial, name }) => `${quoted(partial)} ${quoted(name)}`).join(" ");
    const answer = await this.#shell.ask(`pub ${names}`, this.#timeoutMs);
    // What a failed command says may have several lines; each answer begins with its letter.
    const answers = answer.split(/\n(?=[xy]\n|e )/).map((it) => it.trimEnd());
    if (answers.length !== asked.length) throw new Fault("transient", "the server's shell did not answer for each name");
    return answers;
  }

  /** rsync keeps the time of the file here; a copy in the spool has one of its own. */
  async #setTime({ modifiedMs, localPath }: Upload, partial: Buffer): Promise<void> {
    if (modifiedMs === undefined || modifiedMs < 0 || localPath === undefined) return;
    const { mtimeMs } = await stat(localPath);
    if (Math.floor(mtimeMs / 1000) === Math.floor(modifiedMs / 1000)) return;
    const [y, mo, d, h, mi, s] = new Date(modifiedMs).toISOString().split(/[-T:.]/);
    // A time that cannot be set changes nothing else.
    await this.#shell.ask(`TZ=UTC0 touch -m -t ${y}${mo}${d}${h}${mi}.${s} -- ${quoted(partial)} 2>/dev/null`, this.#timeoutMs);
  }
}

function linesOf(answer: string): string[] {
  return answer.split("\n").slice(0, -1);
}

/** sha256sum puts a backslash before a line whose name it had to escape. */
function digestIn(line: string): Digest | undefined {
  const hex = /^\\?([0-9a-f]{64})\b/.exec(line)?.[1];
  return hex === undefined ? undefined : `sha256:${hex}`;
}
