/**
 * A WebDAV server as a tree. Each change looks right before it acts: a DELETE takes a directory with all that is in it, also what came a moment before.
 */
import { Fault, isFault } from "../../core/errors.js";
import { parentOf } from "../../core/paths.js";
import type { MoveHow, Stamp, Tree, TreePromises } from "../../core/plugin.js";
import { dirGone, expectBelow, expectMeant, expectMovable, expectSame, RemoteTree } from "../../core/remote.js";
import { publishTo, tryOut } from "../../core/try-out.js";
import type { DavServer } from "./server.js";
import type { WebdavSource } from "./source.js";
import type { WebdavTarget } from "./target.js";

export class WebdavTree extends RemoteTree implements Tree {
  readonly #server: DavServer;
  readonly #source: WebdavSource;
  readonly #target: WebdavTarget;

  constructor(server: DavServer, source: WebdavSource, target: WebdavTarget) {
    super(source);
    this.#server = server;
    this.#source = source;
    this.#target = target;
  }

  async move(from: string, to: string, expect: Stamp | "directory", signal: AbortSignal, how: MoveHow = {}): Promise<void> {
    expectMovable(from, to);
    const server = this.#server;
    const what = `cannot move ${from} to ${to}`;
    const taken = () => new Fault("conflict", `${to} exists already`);
    const look = async (): Promise<void> => {
      const [found, there] = await Promise.all([this.stat(from, signal), this.stat(to, signal)]);
      if (found === undefined) throw new Fault("missing", `${from} is not there any more`);
      expectMeant(found, expect);
      if (there !== undefined) throw taken();
    };
    await look();
    // Where that has to be found out it takes its time.
    if (how.made !== true && (await server.ensureDirOf(to, signal))) await look();
    // nginx wants a directory's addresses to end so.
    const end = expect === "directory" ? "/" : "";
    const headers = { Destination: `${server.destination(server.at(to))}${end}`, Overwrite: "F" };
    const said = await server.said({ method: "MOVE", at: `${server.at(from)}${end}`, what, headers, slow: true }, signal);
    if (said.status === 412) throw taken();
    if (said.status !== 201 && said.status !== 204) {
      server.forgetDirs();
      if (how.made === true && (await this.stat(parentOf(to), signal)) === undefined) throw dirGone(to);
      throw server.refusal(said, what);
    }
    if (expect === "directory") server.forgetDirs();
    if ((await this.stat(to, signal)) === undefined)
      throw new Fault("transient", `${what}: the server says that it is done, and it is not`);
  }

  async remove(path: string, expect: Stamp, signal: AbortSignal): Promise<void> {
    const found = await this.stat(path, signal);
    if (found === undefined) return;
    expectSame(found, expect);
    await this.#delete(path, this.#server.at(path), `cannot remove ${path}`, signal);
  }

  async rmdir(path: string, signal: AbortSignal): Promise<void> {
    expectBelow(path);
    const server = this.#server;
    const what = `cannot remove the directory ${path}`;
    const found = await this.stat(path, signal);
    if (found === undefined) return;
    expectMeant(found, "directory");
    // Whatever it is: also what is no name of a file.
    for await (const { part } of server.children(server.at(path), what, signal))
      throw new Fault("conflict", `${path} is not empty: ${part} is in it`);
    await this.#delete(path, `${server.at(path)}/`, what, signal);
    server.forgetDirs();
  }

  async #delete(path: string, at: string, what: string, signal: AbortSignal): Promise<void> {
    await this.#server.delete(at, what, signal);
    const there = await this.stat(path, signal).catch((error: unknown) => {
      if (!isFault(error, "denied") && !(isFault(error) && error.notTaken)) throw error;
      throw new Fault("transient", `${what}: whether it is done is not known: ${error.message}`, { cause: error });
    });
    if (there !== undefined) throw new Fault("transient", `${what}: the server says that it is done, and it is not`);
  }

  async mkdir(path: string, signal: AbortSignal): Promise<void> {
    await this.source.stat("", signal);
    await this.#server.ensureDir(path, signal);
  }

  async makeNew(path: string, signal: AbortSignal): Promise<boolean> {
    expectBelow(path);
    await this.source.stat("", signal);
    await this.#server.ensureDirOf(path, signal);
    return this.#server.makeNew(this.#server.at(path), `cannot make the directory ${path}`, signal);
  }

  /**
   * `exclusive` is never more than "directories": a MOVE with `Overwrite: F` looks and acts in two steps. Of eight at once onto one name Apache 2.4 told
   * two or more that they had it in 36 rounds of 150.
   */
  tryOut(dir: string, signal: AbortSignal): Promise<TreePromises> {
    // `rclone serve webdav` looks before it makes a directory: of eight at once none but one was told that it made it in 64 rounds of 150.
    const crowd = { rivals: 8, rounds: 6 };
    return tryOut({ tree: this, source: this.#source, publish: publishTo(this.#target), crowd }, dir, signal);
  }
}
