/**
 * An FTP server as a source: lists by MLSD or LIST, reads by RETR from any offset.
 *
 * Without MLSD there are no times but where they are asked for one by one (`LookOptions.times`): a file is then told from its other versions by its size
 * alone. A stream gives exactly the bytes up to the size that was listed, and ends with an error when the server ends early.
 */
import { Readable } from "node:stream";
import { Fault, isFault } from "../../core/errors.js";
import { nameIn, parentOf } from "../../core/paths.js";
import type { Digest, DigestKind, FileEntry, ListOptions, LookOptions, Source, SourceFeatures } from "../../core/plugin.js";
import { listBelow } from "../../core/remote.js";
import { isAbsent, Refusal, type Connection } from "./connection.js";
import { continuesNever } from "./faults.js";
import type { Listed } from "./listing.js";
import type { FtpOptions } from "./options.js";
import type { Lease, Pool } from "./pool.js";
import { readable, wirePath } from "./wire.js";

export function entryOf(dir: string, listed: Listed): FileEntry {
  const { name, kind, size, reason, special, modifiedMs } = listed;
  return {
    // Without a name it stands for what the server left out of the directory.
    path: name === "" ? dir || "." : dir === "" ? name : `${dir}/${name}`,
    kind,
    size,
    ...(reason === undefined ? {} : { reason }),
    ...(special === undefined ? {} : { special }),
    ...(modifiedMs === undefined ? {} : { modifiedMs }),
  };
}

export class FtpSource implements Source {
  readonly #options: FtpOptions;
  readonly #pool: Pool;
  /** The server was seen to give files from their first byte alone. */
  #wholeOnly = false;

  constructor(options: FtpOptions, pool: Pool) {
    this.#options = options;
    this.#pool = pool;
  }

  get features(): SourceFeatures {
    return { ranges: !this.#wholeOnly, digests: this.#pool.digests ?? [], concurrency: this.#options.concurrency, inPlace: false };
  }

  list(signal: AbortSignal, options?: ListOptions): AsyncGenerator<FileEntry> {
    // One more for each connection, so that it need not wait for us.
    return listBelow((dir, own) => this.readDir(dir, own, options), signal, options, 2 * this.#options.concurrency);
  }

  /** One directory. Throws "missing" when there is none: vsftpd says so of one that may not be entered, too. */
  readDir(dir: string, signal: AbortSignal, { times }: LookOptions = {}): Promise<FileEntry[]> {
    return this.#pool.with(signal, dir === "" ? "cannot list the root" : `cannot list ${dir}`, async (connection) => {
      const wire = wirePath(connection.root, dir);
      const listed = await connection.enterAndList(wire);
      if (Array.isArray(listed)) return (times === true ? await connection.timed(dir, listed) : listed).map((it) => entryOf(dir, it));
      if (listed.code === 550 && dir === "")
        throw new Fault("denied", `the root cannot be entered: the server said "${readable(listed.text)}"`);
      if (isAbsent(listed)) throw new Fault("missing", `there is no directory ${dir}`);
      throw new Refusal(listed);
    });
  }

  /** By SIZE where there is no MLST, since a look would list the whole directory: a link to a file is then told as the file, which no list does. */
  stat(path: string, signal: AbortSignal): Promise<FileEntry | undefined> {
    return this.#pool.with(signal, `cannot look at ${path}`, async (connection) => {
      const size = connection.has("MLST") || path === "" ? undefined : await connection.sizeTold(wirePath(connection.root, path));
      return size === undefined ? lookAt(connection, path) : { path, kind: "file", size };
    });
  }

  async open(entry: FileEntry, offset: number, signal: AbortSignal): Promise<Readable> {
    const what = `cannot read ${entry.path}`;
    const lease = await this.#pool.lease(signal);
    const { connection } = lease;
    try {
      const { wire, size } = await connection.run(what, async () => {
        const path = wirePath(connection.root, entry.path);
        const [size, modifiedMs] = await Promise.all([
          connection.size(path),
          entry.modifiedMs === undefined ? undefined : connection.modified(path),
        ]);
        if (size === undefined) throw missing(entry);
        const retimed = modifiedMs !== undefined && size === entry.size && Math.abs(modifiedMs - (entry.modifiedMs ?? 0)) >= 1000;
        if (size < entry.size || offset > entry.size || retimed)
          throw new Fault("changed", `${entry.path} is not the file that was found: ${entry.size} bytes then, ${size} now`);
        return { wire: path, size };
      });
      const received = this.#received(connection, wire, offset);
      return Readable.from(this.#expectFrom(offset, size, entry, bytes({ lease, wire, entry, offset, what, received }), signal), {
        highWaterMark: 1,
      });
    } catch (error) {
      lease.end(isFault(error) && !connection.closed);
      throw error;
    }
  }

  /** A server that takes REST and gives the file from its first byte all the same gives more than there is behind `offset`: what came is not what was asked for. */
  async *#expectFrom(
    offset: number,
    size: number,
    entry: FileEntry,
    given: ReturnType<typeof bytes>,
    signal: AbortSignal,
  ): AsyncGenerator<Buffer> {
    const hadMore = yield* given;
    if (!hadMore || offset === 0 || this.#wholeOnly || size > entry.size) return;
    // It may have grown since.
    if ((await this.stat(entry.path, signal))?.size !== size) return;
    this.#wholeOnly = true;
    throw new Fault("changed", `the server was asked for ${entry.path} from byte ${offset} on (REST), and gave another part of it`);
  }

  /** From a server that takes no REST all of it comes, and what is before `offset` is thrown away. */
  async *#received(connection: Connection, wire: string, offset: number): AsyncGenerator<Buffer> {
    if (!this.#wholeOnly)
      try {
        yield* connection.retrieve(wire, offset);
        return;
      } catch (error) {
        if (offset === 0 || !(error instanceof Refusal) || !continuesNever(error, wire)) throw error;
        this.#wholeOnly = true;
      }
    let before = offset;
    for await (const chunk of connection.retrieve(wire, 0)) {
      const part = chunk.subarray(Math.min(before, chunk.length));
      before -= chunk.length - part.length;
      yield part;
    }
  }

  digest(entry: FileEntry, kind: DigestKind, signal: AbortSignal): Promise<Digest | undefined> {
    if (kind !== "sha256") return Promise.resolve(undefined);
    return this.#pool.with(signal, `cannot ask for the digest of ${entry.path}`, async (connection) => {
      const wire = wirePath(connection.root, entry.path);
      // The server digests the whole file: one that grew has another digest than the one that is asked for.
      if ((await connection.size(wire)) !== entry.size) return undefined;
      return connection.digest(wire, entry.size);
    });
  }
}

const missing = ({ path }: FileEntry) => new Fault("missing", `${path} is not there any more`);

/** It went after it was looked at: the answer to RETR does not say so in words of which one can be sure. */
async function hasGone(connection: Connection, wire: string, what: string): Promise<boolean> {
  return (await connection.run(what, () => connection.size(wire))) === undefined;
}

/** What is at a path; undefined when nothing is. */
export async function lookAt(connection: Connection, path: string, { times }: LookOptions = {}): Promise<FileEntry | undefined> {
  const wire = wirePath(connection.root, path);
  if (path === "") return { path, kind: "directory", size: 0 };
  const listed = await connection.entry(wire);
  if (listed === undefined) return undefined;
  // The name is the one that was asked for, however the server writes it.
  const named = { ...listed, name: nameIn(path) };
  const [timed = named] = times === true ? await connection.timed(parentOf(path), [named]) : [];
  return entryOf(parentOf(path), timed);
}

interface Wanted {
  readonly lease: Lease;
  readonly wire: string;
  readonly entry: FileEntry;
  readonly offset: number;
  readonly what: string;
  readonly received: AsyncGenerator<Buffer>;
}

/** The bytes from `offset` to the entry's size; returns whether more came. The connection goes back when all came and the server's last answer was read. */
async function* bytes({ lease, wire, entry, offset, what, received }: Wanted): AsyncGenerator<Buffer, boolean> {
  const { connection } = lease;
  let left = entry.size - offset;
  let whole = left === 0;
  try {
    while (left > 0) {
      const next = await connection.run(what, () => received.next());
      // A proxy that closed early looks the same as a file that was cut: the next try looks at the file again.
      if (next.done === true) throw new Fault("transient", `${entry.path} ended ${left} bytes early`);
      const part = next.value.subarray(0, left);
      left -= part.length;
      if (part.length > 0) yield part;
      // It grew: the rest is not asked for, and only closing the connection stops it.
      if (part.length < next.value.length) return true;
    }
    if (!whole) whole = (await connection.run(what, () => received.next())).done === true;
    return !whole;
  } catch (error) {
    whole = !connection.closed;
    // All is here, whatever the server thinks of it.
    if (left > 0) throw whole && isFault(error, "rejected") && (await hasGone(connection, wire, what)) ? missing(entry) : error;
    return false;
  } finally {
    lease.end(whole);
    await received.return(undefined).catch(() => undefined);
  }
}
