/**
 * An FTP server as a tree: what is looked at, moved and removed by hand, by archive and by mirror.
 *
 * FTP compares nothing by itself: each change looks first, and what another client does in between is not seen.
 */
import { Fault } from "../../core/errors.js";
import type { Stamp, Tree } from "../../core/plugin.js";
import { expectSame, RemoteTree } from "../../core/remote.js";
import { Refusal, type Connection } from "./connection.js";
import { ensureDir } from "./dirs.js";
import type { Pool } from "./pool.js";
import { lookAt, type FtpSource } from "./source.js";
import { wirePath } from "./wire.js";

export class FtpTree extends RemoteTree implements Tree {
  readonly #pool: Pool;

  constructor(pool: Pool, source: FtpSource) {
    super(source);
    this.#pool = pool;
  }

  move(from: string, to: string, expect: Stamp, signal: AbortSignal): Promise<void> {
    return this.#pool.with(signal, `cannot move ${from} to ${to}`, async (connection) => {
      const found = await lookAt(connection, from);
      if (found === undefined) throw new Fault("missing", `${from} is not there any more`);
      expectSame(found, expect);
      if ((await lookAt(connection, to)) !== undefined) throw new Fault("conflict", `${to} exists already`);
      const target = connection.newPath(to);
      await ensureDir(connection, target.slice(0, target.lastIndexOf("/")), new Set());
      await connection.command(`RNFR ${wirePath(connection.root, from)}`);
      await connection.command(`RNTO ${target}`);
    });
  }

  remove(path: string, expect: Stamp, signal: AbortSignal): Promise<void> {
    return this.#pool.with(signal, `cannot remove ${path}`, async (connection) => {
      const found = await lookAt(connection, path);
      if (found === undefined) return;
      expectSame(found, expect);
      await gone(connection, `DELE ${wirePath(connection.root, path)}`, path);
    });
  }

  mkdir(path: string, signal: AbortSignal): Promise<void> {
    return this.#pool.with(signal, `cannot make the directory ${path}`, (connection) =>
      ensureDir(connection, connection.newPath(path), new Set()),
    );
  }
}

async function gone(connection: Connection, command: string, path: string): Promise<void> {
  const answer = await connection.ask(command);
  if (answer.code >= 400 && (await lookAt(connection, path)) !== undefined) throw new Refusal(answer);
}
