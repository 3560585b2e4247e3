/**
 * Makes names durable at a server that can sync (`fsync@openssh.com`); one that cannot is left as it is. Faults are those of a connection that broke.
 *
 * OpenSSH opens a directory as it opens a file (sftp-server.c, process_open), does what is asked in the order of asking, and syncs what is open: one sync is for all names that were given or taken away in it before.
 */
import { parentOf } from "../../core/wire-path.js";
import { isAbsent } from "./faults.js";
import { ifRefused } from "./publishing.js";
import { Open, type Session } from "./session.js";

/** So many directories are remembered. */
const mostDirs = 1000;

export class Syncs {
  readonly #session: Session;
  /** Syncs that are asked for once their directory is open. */
  readonly #coming = new Map<string, Promise<boolean>>();
  readonly #refused = new Set<string>();

  constructor(session: Session) {
    this.#session = session;
  }

  /** What was asked of names in a directory before this call, and will be done; false where the server does not sync directories. */
  dir(dir: Buffer): Promise<boolean> {
    const key = dir.toString("latin1");
    if (!this.#session.canSync || this.#refused.has(key)) return Promise.resolve(false);
    const coming = this.#coming.get(key);
    if (coming !== undefined) return coming;
    const synced = this.#syncDir(dir, key);
    this.#coming.set(key, synced);
    return synced;
  }

  async #syncDir(dir: Buffer, key: string): Promise<boolean> {
    let handle: Buffer | undefined;
    try {
      handle = await this.#session.open(dir, Open.read);
    } catch (error) {
      if (isAbsent(error)) return false;
      ifRefused(error);
    } finally {
      // What is asked for from now on may come behind the sync.
      this.#coming.delete(key);
    }
    if (handle !== undefined) {
      const asked = [this.#session.sync(handle, 0), this.#session.close(handle)];
      if ((await Promise.all(asked).catch(ifRefused)) !== undefined) return true;
    }
    if (this.#refused.size >= mostDirs) this.#refused.clear();
    this.#refused.add(key);
    return false;
  }

  /** A name that a file which is on the medium was just given. Where no links were seen its file system may be a FAT, which writes what a new name names only with the file (core/fs.ts, `syncName`). */
  async name(path: Buffer): Promise<void> {
    const dir = parentOf(path);
    if (!this.#session.gives(dir) || !(await this.dir(dir))) await this.found(path);
  }

  /** A file that was found under its name, which may be another's work, or that of a run that was killed. One that was taken away meanwhile is left so. Throws Refusal where its sync fails. */
  async found(path: Buffer): Promise<void> {
    if (!this.#session.canSync) return;
    // Windows syncs only what is open for writing; elsewhere that may be refused.
    if (!(await this.#syncFile(path, Open.read).catch(ifRefused))) await this.#syncFile(path, Open.write);
    await this.dir(parentOf(path));
  }

  /** false where it cannot be opened so. */
  async #syncFile(path: Buffer, flags: number): Promise<boolean> {
    const handle = await this.#session.open(path, flags).catch(ifRefused);
    if (handle !== undefined) await Promise.all([this.#session.sync(handle, 0), this.#session.close(handle)]);
    return handle !== undefined;
  }
}
