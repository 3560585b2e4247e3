/** A WebDAV server as a tree. Each change looks first: a DELETE takes a directory with all that is in it. */
import { Fault } from "../../core/errors.js";
import type { Stamp, Tree } from "../../core/plugin.js";
import { expectSame, RemoteTree } from "../../core/remote.js";
import type { DavServer } from "./server.js";
import type { WebdavSource } from "./source.js";

export class WebdavTree extends RemoteTree implements Tree {
  readonly #server: DavServer;

  constructor(server: DavServer, source: WebdavSource) {
    super(source);
    this.#server = server;
  }

  async move(from: string, to: string, expect: Stamp, signal: AbortSignal): Promise<void> {
    const server = this.#server;
    const what = `cannot move ${from} to ${to}`;
    const found = await this.stat(from, signal);
    if (found === undefined) throw new Fault("missing", `${from} is not there any more`);
    expectSame(found, expect);
    const taken = () => new Fault("conflict", `${to} exists already`);
    if ((await this.stat(to, signal)) !== undefined) throw taken();
    await server.ensureDirOf(to, signal);
    const headers = { Destination: server.destination(server.at(to)), Overwrite: "F" };
    const said = await server.said({ method: "MOVE", at: server.at(from), what, headers, slow: true }, signal);
    if (said.status === 412) throw taken();
    if (said.status !== 201 && said.status !== 204) {
      server.forgetDirs();
      throw server.refusal(said, what);
    }
    if ((await this.stat(to, signal)) === undefined)
      throw new Fault("transient", `${what}: the server says that it is done, and it is not`);
  }

  async remove(path: string, expect: Stamp, signal: AbortSignal): Promise<void> {
    const found = await this.stat(path, signal);
    if (found === undefined) return;
    expectSame(found, expect);
    const what = `cannot remove ${path}`;
    await this.#server.delete(this.#server.at(path), what, signal);
    if ((await this.stat(path, signal)) !== undefined)
      throw new Fault("transient", `${what}: the server says that it is done, and it is not`);
  }

  async mkdir(path: string, signal: AbortSignal): Promise<void> {
    await this.source.stat("", signal);
    await this.#server.ensureDir(path, signal);
  }
}
