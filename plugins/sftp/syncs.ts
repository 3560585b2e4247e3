/**
 * Makes names durable at a server that can sync (`fsync@openssh.com`); one that cannot is left as it is. Throws the Faults of a connection that broke, and
 * Refusal where a file is not synced.
 *
 * OpenSSH opens a directory as it opens a file (sftp-server.c, process_open), does what is asked in the order of asking, and syncs what is open: one sync is for all names that were given or taken away in it before.
 */
import { parentOf } from "../../core/wire-path.js";
import { isAbsent, isRefusal, type Refusal, Status } from "./faults.js";
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
    try {
      // What is asked for once it is open may come behind the sync.
      const handle = await this.#session.open(dir, Open.read).finally(() => this.#coming.delete(key));
      await this.#syncAndClose(handle, 0);
      return true;
    } catch (error) {
      ifRefused(error);
      // One that is not there may come, and what the medium did, or FAILURE, which may be that of too many open files, says nothing of the next time.
      if (isAbsent(error) || isOfMedium(error)) return false;
      if (this.#refused.size >= mostDirs) this.#refused.clear();
      this.#refused.add(key);
      return false;
    }
  }

  /** Both are asked for at once. */
  async #syncAndClose(handle: Buffer, bytes: number): Promise<void> {
    await Promise.all([this.#session.sync(handle, bytes), this.#session.close(handle)]);
  }

  /** A name that a file was just given; `bytes` is how much of it there may be to write. Where no links were seen its file system may be a FAT, which writes what a new name names only with the file (core/fs.ts, `syncName`). */
  async name(path: Buffer, bytes = 0): Promise<void> {
    const dir = parentOf(path);
    if (!this.#session.gives(dir) || !(await this.dir(dir))) await this.found(path, bytes);
  }

  /** A file that was found under its name, which may be another's work, or that of a run that was killed. One that was taken away meanwhile is left so. Throws Refusal where its sync fails. */
  async found(path: Buffer, bytes: number): Promise<void> {
    if (!this.#session.canSync) return;
    // Windows syncs only what is open for writing; elsewhere that may be refused. What its medium did not take is not asked for once more: the system tells that once.
    if (!(await this.#syncFile(path, Open.read, bytes).catch(ifNotAllowed))) await this.#syncFile(path, Open.write, bytes);
    await this.dir(parentOf(path));
  }

  /** false where it cannot be opened so. */
  async #syncFile(path: Buffer, flags: number, bytes: number): Promise<boolean> {
    const handle = await this.#session.open(path, flags).catch(ifRefused);
    if (handle !== undefined)
      await this.#syncAndClose(handle, bytes).catch((error: unknown) => {
        // OpenSSH's words for EINVAL and ENOSYS: a file system that syncs no files.
        if (!isRefusal(error, Status.badMessage, Status.unsupported)) throw error;
      });
    return handle !== undefined;
  }
}

/** What the server says of its medium. */
export const isOfMedium = (error: unknown): error is Refusal => isRefusal(error, Status.failure, Status.noSpace, Status.quota);

function ifNotAllowed(error: unknown): void {
  if (isOfMedium(error)) throw error;
  ifRefused(error);
}
