/**
 * An FTP server as a tree: what is looked at, moved and removed by hand, by archive, mirror and two-way.
 *
 * FTP compares nothing by itself: each change looks right before it acts, and what another client does in between is not seen.
 */
import { Fault } from "../../core/errors.js";
import { parentOf } from "../../core/paths.js";
import type { FileEntry, LookOptions, MoveHow, Stamp, Tree, TreePromises } from "../../core/plugin.js";
import { dirGone, expectBelow, expectMeant, expectMovable, expectSame, RemoteTree } from "../../core/remote.js";
import { publishTo, tryOut } from "../../core/try-out.js";
import { Refusal, type Connection } from "./connection.js";
import { ensureDir } from "./dirs.js";
import { taken } from "./login.js";
import type { Pool } from "./pool.js";
import { lookAt, type FtpSource } from "./source.js";
import type { FtpTarget } from "./target.js";
import { wirePath } from "./wire.js";

export class FtpTree extends RemoteTree implements Tree {
  readonly #pool: Pool;
  readonly #source: FtpSource;
  readonly #target: FtpTarget;

  constructor(pool: Pool, source: FtpSource, target: FtpTarget) {
    super(source);
    this.#pool = pool;
    this.#source = source;
    this.#target = target;
  }

  override stat(path: string, signal: AbortSignal, options?: LookOptions): Promise<FileEntry | undefined> {
    return this.#pool.with(signal, `cannot look at ${path}`, async (connection) => {
      if (options?.file !== true || connection.has("MLST") || path === "") return lookAt(connection, path, options);
      const size = await connection.sizeTold(wirePath(connection.root, path));
      return size === undefined ? undefined : { path, kind: "file", size };
    });
  }

  async move(from: string, to: string, expect: Stamp | "directory", signal: AbortSignal, how: MoveHow = {}): Promise<void> {
    expectMovable(from, to);
    return this.#pool.with(signal, `cannot move ${from} to ${to}`, async (connection) => {
      const target = connection.newPath(to);
      const look = async (): Promise<void> => {
        const [found, there] = await Promise.all([lookAt(connection, from, timesOf(expect)), lookAt(connection, to)]);
        if (found === undefined) throw new Fault("missing", `${from} is not there any more`);
        expectMeant(found, expect);
        if (there !== undefined) throw new Fault("conflict", `${to} exists already`);
      };
      await look();
      // Making directories takes its time.
      if (how.made !== true && (await ensureDir(connection, parentOf(target), new Set()))) await look();
      const answer = await rename(connection, from, target);
      if (answer.code >= 500 && (await lookAt(connection, from)) !== undefined && (await lookAt(connection, to)) !== undefined)
        throw new Fault("conflict", `${to} exists already`);
      if (answer.code >= 400 && how.made === true && (await lookAt(connection, parentOf(to))) === undefined) throw dirGone(to);
      taken(answer);
    });
  }

  remove(path: string, expect: Stamp, signal: AbortSignal): Promise<void> {
    return this.#pool.with(signal, `cannot remove ${path}`, async (connection) => {
      const found = await lookAt(connection, path, timesOf(expect));
      if (found === undefined) return;
      expectSame(found, expect);
      const answer = await connection.ask(`DELE ${wirePath(connection.root, path)}`);
      if (answer.code >= 400 && (await lookAt(connection, path)) !== undefined) throw new Refusal(answer);
    });
  }

  async rmdir(path: string, signal: AbortSignal): Promise<void> {
    expectBelow(path);
    return this.#pool.with(signal, `cannot remove the directory ${path}`, async (connection) => {
      // There are servers that take a directory with all that is in it.
      if (!(await isEmpty(connection, path))) return;
      const answer = await connection.ask(`RMD ${wirePath(connection.root, path)}`);
      // 550 says nothing: whether it is not there or not empty is seen by looking.
      if (answer.code >= 400 && (await isEmpty(connection, path))) throw new Refusal(answer);
    });
  }

  mkdir(path: string, signal: AbortSignal): Promise<void> {
    return this.#pool.with(signal, `cannot make the directory ${path}`, async (connection) => {
      await ensureDir(connection, connection.newPath(path), new Set());
    });
  }

  async makeNew(path: string, signal: AbortSignal): Promise<boolean> {
    expectBelow(path);
    return this.#pool.with(signal, `cannot make the directory ${path}`, async (connection) => {
      const wire = connection.newPath(path);
      for (;;) {
        const answer = await connection.ask(`MKD ${wire}`);
        if (answer.code < 400) return true;
        if ((await lookAt(connection, path)) !== undefined) return false;
        // 550 says nothing: a directory above it may be missing.
        if (!(await ensureDir(connection, parentOf(wire), new Set()))) throw new Refusal(answer);
      }
    });
  }

  /** `exclusive` is never more than "directories": FTP has no rename that must not replace, and a server that refuses one may look and act in two steps. */
  tryOut(dir: string, signal: AbortSignal): Promise<TreePromises> {
    const rmdir = (path: string, on: AbortSignal): Promise<boolean> =>
      this.#pool.with(on, `cannot try out ${dir === "" ? "the root" : dir}`, async (connection) => {
        const answer = await connection.ask(`RMD ${wirePath(connection.root, path)}`);
        if (answer.code >= 400 && answer.code < 500) throw new Refusal(answer);
        return answer.code < 400;
      });
    return tryOut({ tree: this, source: this.#source, publish: publishTo(this.#target), rmdir }, dir, signal);
  }
}

const timesOf = (expect: Stamp | "directory"): LookOptions =>
  expect !== "directory" && expect.modifiedMs !== undefined ? { times: true } : {};

/** In one packet: another's rename on the same connection never comes between. The answer is that of the first that was refused. */
async function rename(connection: Connection, from: string, target: string): ReturnType<Connection["ask"]> {
  const [first, second] = await connection.askAll([
    { command: `RNFR ${wirePath(connection.root, from)}`, codes: /^350/ },
    { command: `RNTO ${target}`, codes: /^2/ },
  ]);
  return [first, second].find((it) => it === undefined || it.code >= 400) ?? second ?? { code: 451, text: "no answer" };
}

/** False when nothing is there. Throws "conflict" and "changed". */
async function isEmpty(connection: Connection, path: string): Promise<boolean> {
  const found = await lookAt(connection, path);
  if (found === undefined) return false;
  expectMeant(found, "directory");
  if ((await connection.list(wirePath(connection.root, path))).length > 0) throw new Fault("conflict", `${path} is not empty`);
  return true;
}
