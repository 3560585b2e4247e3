/**
 * An SFTP server as a source: lists with times, reads from any offset by many requests at once.
 *
 * A stream gives exactly the bytes up to the size that was listed, and ends with an error when the file ends early. Links are not followed.
 */
import { Readable } from "node:stream";
import { Fault, orAborted } from "../../core/errors.js";
import { nameFromBytes } from "../../core/names.js";
import type { Digest, DigestKind, FileEntry, ListOptions, Source, SourceFeatures } from "../../core/plugin.js";
import { listBelow } from "../../core/remote.js";
import { isAbsent, isRefusal, Status } from "./faults.js";
import type { SftpOptions } from "./options.js";
import { wirePath } from "../../core/wire-path.js";
import type { Lease, Pool } from "./pool.js";
import { Open, type Attributes, type Session } from "./session.js";
import { readAll } from "./transfer.js";

/** Directories: of a server far away each takes some round trips. */
const listedAtOnce = 16;

export function entryOf(path: string, { kind, size, modifiedMs }: Attributes): FileEntry {
  const stamp = { path, size: size ?? 0, ...(modifiedMs === undefined ? {} : { modifiedMs }) };
  if (kind === "directory") return { ...stamp, kind };
  if (kind === "link") return { path, size: 0, kind: "unreadable", reason: "a symbolic link", special: true };
  if (kind === "special") return { path, size: 0, kind: "unreadable", reason: "no plain file", special: true };
  if (size === undefined) return { path, size: 0, kind: "unreadable", reason: "listed without a size" };
  return { ...stamp, kind: "file" };
}

export class SftpSource implements Source {
  readonly #options: SftpOptions;
  readonly #pool: Pool;

  constructor(options: SftpOptions, pool: Pool) {
    this.#options = options;
    this.#pool = pool;
  }

  get features(): SourceFeatures {
    return { ranges: true, digests: this.#pool.digests ?? [], concurrency: this.#options.concurrency, inPlace: false };
  }

  /** By one connection: to log in once more is worth it only for contents. */
  async *list(signal: AbortSignal, options?: ListOptions): AsyncGenerator<FileEntry> {
    const lease = await this.#pool.lease(signal);
    const { session } = lease.login;
    const readDir = (dir: string, own: AbortSignal) => this.#pool.run(cannotList(dir), () => orAborted(entriesIn(session, dir), own));
    try {
      yield* listBelow(readDir, signal, options, listedAtOnce);
    } finally {
      lease.end();
    }
  }

  /** One directory whole. Throws "missing" when there is none. */
  readDir(dir: string, signal: AbortSignal): Promise<FileEntry[]> {
    return this.#pool.with(signal, cannotList(dir), ({ session }) => entriesIn(session, dir));
  }

  stat(path: string, signal: AbortSignal): Promise<FileEntry | undefined> {
    return this.#pool.with(signal, `cannot look at ${path}`, ({ session }) => lookAt(session, path));
  }

  async open(entry: FileEntry, offset: number, signal: AbortSignal): Promise<Readable> {
    const lease = await this.#pool.lease(signal);
    try {
      // Who reads a file asks `features` for its digest.
      await orAborted(lease.login.digester, signal);
      const handle = await this.#pool.run(`cannot read ${entry.path}`, () =>
        orAborted(openSame(lease.login.session, entry, offset), signal),
      );
      return Readable.from(this.#bytes(lease, handle, entry, offset, signal), { highWaterMark: 1 });
    } catch (error) {
      lease.end();
      throw error;
    }
  }

  async *#bytes(lease: Lease, handle: Buffer, entry: FileEntry, offset: number, signal: AbortSignal): AsyncGenerator<Buffer> {
    const { session } = lease.login;
    const received = readAll(session, handle, offset, entry.size, entry.path);
    try {
      for (;;) {
        const next = await this.#pool.run(`cannot read ${entry.path}`, () => orAborted(received.next(), signal));
        if (next.done === true) return;
        yield next.value;
      }
    } finally {
      // What was asked for in advance is not waited for.
      void received
        .return(undefined)
        .catch(() => undefined)
        .then(() => session.close(handle).catch(() => undefined))
        .then(() => lease.end());
    }
  }

  digest(entry: FileEntry, kind: DigestKind, signal: AbortSignal): Promise<Digest | undefined> {
    if (kind !== "sha256") return Promise.resolve(undefined);
    return this.#pool.with(signal, `cannot ask for the digest of ${entry.path}`, async ({ session, digester }) => {
      const path = wirePath(session.root, entry.path);
      // All of the file is digested: one that grew has another digest than the one that is asked for.
      if ((await session.lstat(path))?.size !== entry.size) return undefined;
      return (await digester)?.digest(path, entry.size);
    });
  }
}

const cannotList = (dir: string): string => (dir === "" ? "cannot list the root" : `cannot list ${dir}`);

async function entriesIn(session: Session, dir: string): Promise<FileEntry[]> {
  const found: FileEntry[] = [];
  const wire = wirePath(session.root, dir);
  const listed = await session.list(wire);
  // OpenSSH leaves out what it cannot look at: of a directory that it may not search that is all of it, itself (".") too.
  if (listed.length === 0)
    await session.lstat(Buffer.concat([wire, Buffer.from("/.")])).catch((error: unknown) => {
      // Others show it empty as it is, and may take no such path.
      if (session.openSsh || !isRefusal(error, Status.failure, Status.badMessage, Status.unsupported)) throw error;
    });
  for (const it of listed) {
    const text = it.name.toString("latin1");
    if (text === "." || text === ".." || text === "" || /[/\0]/.test(text)) continue;
    const name = nameFromBytes(it.name);
    found.push(entryOf(dir === "" ? name : `${dir}/${name}`, it));
  }
  return found;
}

/** What is at a path; undefined when nothing is. */
export async function lookAt(session: Session, path: string): Promise<FileEntry | undefined> {
  const wire = wirePath(session.root, path);
  const found = await (path === "" ? session.stat(wire) : session.lstat(wire));
  return found === undefined ? undefined : entryOf(path, found);
}

/** Throws "missing" and "changed". */
async function openSame(session: Session, entry: FileEntry, offset: number): Promise<Buffer> {
  const path = wirePath(session.root, entry.path);
  let handle: Buffer | undefined;
  try {
    handle = await session.open(path, Open.read);
    const { size = -1, modifiedMs } = await session.fstat(handle);
    const retimed = size === entry.size && entry.modifiedMs !== undefined && modifiedMs !== undefined && modifiedMs !== entry.modifiedMs;
    if (size < entry.size || offset > entry.size || retimed)
      throw new Fault("changed", `${entry.path} is not the file that was found: ${entry.size} bytes then, ${size} now`);
    return handle;
  } catch (error) {
    if (handle !== undefined) void session.close(handle).catch(() => undefined);
    if (isAbsent(error)) throw new Fault("missing", `${entry.path} is not there any more`);
    throw error;
  }
}
