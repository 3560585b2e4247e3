/** An SFTP server as a tree: what is looked at, moved and removed by hand, by archive and by mirror. Each change looks first. */
import { Fault } from "../../core/errors.js";
import type { Stamp, Tree } from "../../core/plugin.js";
import { expectSame, RemoteTree } from "../../core/remote.js";
import { parentOf, wirePath } from "../../core/wire-path.js";
import type { Pool } from "./pool.js";
import { lookAt, type SftpSource } from "./source.js";

export class SftpTree extends RemoteTree implements Tree {
  readonly #pool: Pool;

  constructor(pool: Pool, source: SftpSource) {
    super(source);
    this.#pool = pool;
  }

  move(from: string, to: string, expect: Stamp, signal: AbortSignal): Promise<void> {
    return this.#pool.with(signal, `cannot move ${from} to ${to}`, async ({ session }) => {
      const found = await lookAt(session, from);
      if (found === undefined) throw new Fault("missing", `${from} is not there any more`);
      expectSame(found, expect);
      const target = wirePath(session.root, to);
      if ((await session.lstat(target)) !== undefined) throw new Fault("conflict", `${to} exists already`);
      await session.makeDirs(parentOf(target));
      if (!(await session.publish(wirePath(session.root, from), target))) throw new Fault("conflict", `${to} exists already`);
    });
  }

  remove(path: string, expect: Stamp, signal: AbortSignal): Promise<void> {
    return this.#pool.with(signal, `cannot remove ${path}`, async ({ session }) => {
      const found = await lookAt(session, path);
      if (found === undefined) return;
      expectSame(found, expect);
      await session.remove(wirePath(session.root, path));
    });
  }

  mkdir(path: string, signal: AbortSignal): Promise<void> {
    return this.#pool.with(signal, `cannot make the directory ${path}`, ({ session }) => session.makeDirs(wirePath(session.root, path)));
  }
}
