/**
 * An FTP server as a target: a hidden partial beside the final name, continued at exactly its size, verified, then renamed.
 *
 * Offsets are asked, never remembered. A resume goes by APPE, since REST and STOR corrupt on some servers, and the size is asked again
 * after it. A look at the final name comes right before each rename; where the server would replace what another client puts there in that
 * moment, that is not seen. An answer to the rename that was lost, or is not true, is found by looking: the partial has gone and the name holds the size.
 */
import { createHash } from "node:crypto";
import { Fault, isFault } from "../../core/errors.js";
import { parentOf } from "../../core/paths.js";
import type { Digest, Occupant, Part, Proof, Receipt, Target, TargetFeatures, Upload } from "../../core/plugin.js";
import { comparedBytes, isAlike, isOwn, KnownDirs, noDigest } from "../../core/remote.js";
import { type Answer, type Connection, Held, Refusal } from "./connection.js";
import { ensureDir } from "./dirs.js";
import { continuesNever, isTooLarge } from "./faults.js";
import { timeText } from "./listing.js";
import type { FtpOptions } from "./options.js";
import { taken } from "./login.js";
import type { Pool } from "./pool.js";
import { readable, wirePath } from "./wire.js";

/** What a partial holds was proved so; `digest` where it is known. */
interface Proved {
  readonly proof: Proof;
  readonly digest?: Digest;
}

const noAnswer: Answer = { code: 451, text: "no answer" };

/** What has no more left to send than this shares its connection. */
const smallBytes = 8 * 2 ** 20;
/** So long a server may take to say that it goes on with a partial, or so many times as long as it took to tell its size. */
const heldMs = 5000;
const heldTimes = 3;
/** What may be sent once more rather than wait for a transfer that is long dead: what took so long to send, at most so much; and so much where that is not known. */
const twice = { ms: 10_000, bytes: 4 * 2 ** 20, unknownBytes: 256 * 1024 } as const;
const patienceAfter = (askedMs: number): number => Math.max(heldMs, heldTimes * (performance.now() - askedMs));
/** What says how fast sending is. */
const tellingBytes = 64 * 1024;
/** So often in a row a look may come to no end: a server that never gives a file, or a link that never lasts so long, would keep an upload for ever. */
const mostInVain = 2;
const longDead = "an earlier transfer may still hold that; it is sent from its first byte";

export class FtpTarget implements Target {
  readonly #options: FtpOptions;
  readonly #pool: Pool;
  readonly #dirs = new KnownDirs();
  /** Uploads whose partial was found empty. */
  readonly #empty = new Set<string>();
  /** Uploads whose partial was proved as it is, before `commit`. */
  readonly #proved = new Map<string, Proved>();
  /** When the server held an upload's partial as it was sent, by its answer then or by a look. It has not lost its power since where a connection still answers that is older. */
  readonly #heldMs = new Map<string, number>();
  /** The server was seen to give files from their first byte alone. */
  #blind = false;
  /** How often in a row a look at an upload's partial came to no end: refused for now, not begun, or broken off. */
  readonly #inVain = new Map<string, number>();
  /** Uploads that were begun anew because the server did not go on with them. */
  readonly #anew = new Set<string>();
  /** As the last upload went. */
  #bytesPerMs: number | undefined;
  /** The server was seen to append to no file. */
  #wholeOnly = false;

  constructor(options: FtpOptions, pool: Pool) {
    this.#options = options;
    this.#pool = pool;
  }

  get features(): TargetFeatures {
    // Where nothing digests, what was copied there would have to be read back: that saves nothing.
    const splices = this.#pool.copies && (this.#options.verify !== "auto" || (this.#pool.digests ?? []).length > 0);
    return {
      needs: "stream",
      resume: !this.#wholeOnly,
      ...(splices ? { splices: "whole" as const } : {}),
      atomic: true,
      tellsNaming: true,
      singleShot: false,
      // Before it was ever asked it may digest: so the first files, too, are looked for before they are sent.
      digests: this.#options.verify === "size" ? [] : (this.#pool.digests ?? ["sha256"]),
      concurrency: this.#options.concurrency,
      pipeline: { uploads: 16 * this.#options.concurrency, bytes: 12 * 2 ** 20 * this.#options.concurrency },
    };
  }

  offset(upload: Upload, signal: AbortSignal): Promise<number> {
    return this.#pool.with(signal, `cannot look at ${upload.partialPath}`, async (connection) => {
      const partial = partialOf(connection, upload);
      const askedMs = performance.now();
      const size = await connection.size(partial);
      if (size === 0 && !this.#wholeOnly) this.#empty.add(upload.id);
      if (size === undefined || size === 0 || size > upload.size || this.#isSound(connection, upload)) return size ?? 0;
      return (await this.#comesSound(connection, upload, partial, size, askedMs, signal)) ? size : 0;
    });
  }

  #isSound({ sinceMs }: Connection, { id }: Upload): boolean {
    return this.#blind || sinceMs <= (this.#heldMs.get(id) ?? -1);
  }

  /**
   * Whether the end of what is there is that of the file, or nobody can tell: a server that lost its power may have lost of what it had taken, and keep its size. Otherwise it is taken away: vsftpd
   * would truncate it for STOR once nobody has it any more, see `#append`. Throws Held, and "transient".
   */
  async #comesSound(
    connection: Connection,
    upload: Upload,
    partial: string,
    size: number,
    askedMs: number,
    signal: AbortSignal,
  ): Promise<boolean> {
    const inVain = this.#inVain.get(upload.id) ?? 0;
    if (inVain >= mostInVain) return true;
    const from = Math.max(0, size - comparedBytes);
    const patienceMs = patienceAfter(askedMs);
    const theirs = await connection.part(partial, from, size - from, patienceMs).catch(async (error: unknown) => {
      if (!signal.aborted) this.#inVain.set(upload.id, inVain + 1);
      await this.#beginAnew(error, upload, size, signal);
      throw error;
    });
    this.#inVain.delete(upload.id);
    if (theirs !== undefined && theirs.length !== size - from) {
      const now = await this.#pool.with(signal, `cannot look at ${upload.partialPath}`, (other) => other.size(partial));
      if (now !== size) throw new Fault("transient", `${upload.partialPath} had ${size} bytes at the server, and has ${now ?? 0} now`);
      // Another part than was asked for (REST), from its first byte on; or it lost the end on its way.
      this.#blind ||= theirs.length > size - from;
      return true;
    }
    const sound = theirs === undefined || (await isOwn(upload, from, theirs, signal));
    if (sound) this.#heldMs.set(upload.id, askedMs);
    // Where it may not be taken away it may be written anew all the same.
    else await connection.ask(`DELE ${partial}`);
    return sound;
  }

  async write(upload: Upload, offset: number, signal: AbortSignal, onBytes: (n: number) => void): Promise<void> {
    return this.#with(upload.size - offset, signal, `cannot write ${upload.path}`, (connection) =>
      this.#append(connection, upload, offset, signal, onBytes),
    );
  }

  /** With a connection that is shared, or of its own when much is to be moved. */
  async #with<T>(bytes: number, signal: AbortSignal, what: string, work: (connection: Connection) => Promise<T>): Promise<T> {
    if (bytes <= smallBytes) return this.#pool.with(signal, what, work);
    const lease = await this.#pool.lease(signal);
    try {
      return await lease.connection.run(what, () => work(lease.connection));
    } finally {
      lease.end(!lease.connection.closed);
    }
  }

  async #append(connection: Connection, upload: Upload, offset: number, signal: AbortSignal, onBytes: (n: number) => void): Promise<void> {
    const partial = partialOf(connection, upload);
    if (this.#options.verify === "digest" && !connection.digests) throw noDigest();
    this.#proved.delete(upload.id);
    if (offset === 0) await ensureDir(connection, parentOf(partial), this.#dirs);
    // vsftpd lets a second transfer of a file wait for the first, and truncates for STOR only then. One whose client has long gone would so empty what was
    // sent and published meanwhile: a partial that is there is only ever appended to.
    const begins = offset === 0 && !this.#empty.delete(upload.id);
    let patienceMs: number | undefined;
    if (!begins) {
      const askedMs = performance.now();
      const held = (await connection.size(partial)) ?? 0;
      if (held !== offset) throw new Fault("conflict", `the partial at the server has ${held} bytes, not ${offset}`);
      if (offset === upload.size) return;
      patienceMs = patienceAfter(askedMs);
    } else this.#heldMs.set(upload.id, performance.now());
    const wanted = upload.size - offset;
    // Others may have the connection first.
    let begunMs: number | undefined;
    const told = (n: number): void => {
      begunMs ??= performance.now();
      onBytes(n);
    };
    try {
      const sent = await connection.store(begins ? "STOR" : "APPE", partial, upload.chunks(offset, signal), wanted, told, patienceMs);
      if (sent >= tellingBytes && begunMs !== undefined) this.#bytesPerMs = sent / (performance.now() - begunMs);
      this.#heldMs.set(upload.id, performance.now());
      this.#inVain.delete(upload.id);
      if (sent < wanted) throw new Fault("transient", `the bytes ended at ${offset + sent} of ${upload.size}`);
    } catch (error) {
      // It answered: what it took before that it has.
      if (!connection.closed && !signal.aborted) this.#heldMs.set(upload.id, performance.now());
      // Somebody may have removed the directory that we know: the next try looks again.
      this.#dirs.clear();
      if (!begins) await this.#beginAnew(error, upload, offset, signal);
      if (!(error instanceof Refusal)) throw error;
      if (!begins && continuesNever(error, partial)) return await this.#wholeFromNow(connection, partial, readable(error.message));
      // It can never be whole there, or will not go on from there, and would only take room.
      if (isTooLarge(error) || this.#wholeOnly) await connection.ask(`DELE ${partial}`);
      throw error;
    }
    if (begins) return;
    const now = await connection.size(partial);
    if (now === upload.size) return;
    // Pure-FTPd with "NoTruncate" (-0) puts what is appended in the place of what was there.
    if (now === wanted) return await this.#wholeFromNow(connection, partial, `${offset} bytes that were there have gone after APPE`);
    throw otherSize(now ?? 0, upload, `after a resume at ${offset} the partial has ${now ?? 0} bytes, not ${upload.size}`);
  }

  /** The server was seen to append to no file: what it has of one is taken away. */
  async #wholeFromNow(connection: Connection, partial: string, why: string): Promise<never> {
    this.#wholeOnly = true;
    await connection.ask(`DELE ${partial}`);
    throw new Fault("transient", `this server continues no file ("${why}"): what breaks off is sent to it whole again`);
  }

  /** Where the server did not begin with a partial that is there, and little is lost by it, that is taken away. Throws "transient" then. */
  async #beginAnew(error: unknown, upload: Upload, held: number, signal: AbortSignal): Promise<void> {
    if (error instanceof Held && this.#mayBeginAnew(upload, held) && (await this.#takenAway(upload, signal)))
      throw new Fault("transient", `the server does not go on with what it has of it: ${longDead}`);
  }

  /** Once: a server that never says that it goes on would never have more. */
  #mayBeginAnew({ id }: Upload, held: number): boolean {
    const most = this.#bytesPerMs === undefined ? twice.unknownBytes : Math.min(twice.bytes, this.#bytesPerMs * twice.ms);
    return held <= most && !this.#anew.has(id);
  }

  /** Without its name the partial is no more than what an earlier transfer has open: nothing holds the next of that name. */
  #takenAway({ id, partialPath }: Upload, signal: AbortSignal): Promise<boolean> {
    return this.#pool.with(signal, `cannot discard ${partialPath}`, async (connection) => {
      const { code } = await connection.ask(`DELE ${wirePath(connection.root, partialPath)}`);
      if (code < 400) this.#anew.add(id);
      return code < 400;
    });
  }

  splice(upload: Upload, from: Part, at: number, signal: AbortSignal): Promise<void> {
    this.#proved.delete(upload.id);
    // For as long as the server copies nothing else is asked on that connection.
    return this.#with(Infinity, signal, `cannot copy ${from.path} at the server`, async (connection) => {
      const partial = partialOf(connection, upload);
      const source = connection.newPath(from.path);
      if (at !== 0 || from.offset !== 0) throw new Fault("conflict", "only all of a file is copied, to begin with");
      const [size, held] = await connection.sizes(source, partial);
      if (size === undefined) throw new Fault("missing", `${from.path} is not there`);
      if (size !== from.length) throw new Fault("changed", `${from.path} has ${size} bytes, not ${from.length}`);
      await ensureDir(connection, parentOf(partial), this.#dirs);
      if (held !== undefined) await connection.command(`DELE ${partial}`);
      await connection.copy(source, partial, size);
      const copied = await connection.size(partial);
      this.#heldMs.set(upload.id, performance.now());
      if (copied !== size) throw new Fault("rejected", `the server says that it is done, and the partial has ${copied ?? 0} bytes`);
    });
  }

  prove(upload: Upload, signal: AbortSignal): Promise<void> {
    const read = this.#options.verify === "readback" ? upload.size : 0;
    return this.#with(read, signal, `cannot prove ${upload.path}`, async (connection) => {
      const partial = partialOf(connection, upload);
      const size = await connection.size(partial);
      if (size === undefined) throw new Fault("conflict", "the partial at the server has gone");
      if (size !== upload.size) throw otherSize(size, upload, `the partial at the server has ${size} bytes, not ${upload.size}`);
      this.#proved.set(upload.id, await this.#provePartial(connection, upload, partial));
    });
  }

  commit(upload: Upload, signal: AbortSignal): Promise<Receipt | Occupant> {
    const read = this.#options.verify === "readback" ? upload.size : 0;
    return this.#with(read, signal, `cannot publish ${upload.path}`, async (connection) => {
      const partial = partialOf(connection, upload);
      const name = connection.newPath(upload.path);
      // The look at the name comes last, as near to the rename as it can: a proof takes as long as the server needs to read the file.
      const hashed = this.features.digests.length > 0;
      const askedMs = performance.now();
      const compares = !hashed && read === 0 && upload.size > 0 && !this.#isSound(connection, upload);
      const reads = read > 0 || compares;
      const [size, there] = await connection.sizes(...(hashed || reads ? [partial] : [partial, name]));
      if (size === undefined) return this.#published(connection, upload, name, upload.naming !== undefined);
      if (size !== upload.size) throw otherSize(size, upload, `the partial at the server has ${size} bytes, not ${upload.size}`);
      if (compares && !(await this.#comesSound(connection, upload, partial, size, askedMs, signal)))
        throw new Fault("transient", "the server has lost of what it had taken of it: it is sent again");
      // In one packet with the question for the digest, and answered after it.
      const [proved, now] = await Promise.all([
        this.#proved.get(upload.id) ?? this.#provePartial(connection, upload, partial),
        hashed ? connection.size(name) : there,
      ]);
      const other = await this.#occupant(connection, upload, name, reads ? await connection.size(name) : now);
      if (other !== undefined && !(await this.#replaceable(connection, upload, name, other))) return other;
      await ensureDir(connection, parentOf(name), this.#dirs);
      const timed = upload.modifiedMs === undefined ? [] : [{ command: setTime(connection, partial, upload.modifiedMs) }];
      const rename = [
        { command: `RNFR ${partial}`, codes: /^350/ },
        { command: `RNTO ${name}`, codes: /^2/ },
      ];
      upload.naming?.();
      // In the packet with the rename: what the server answers to that is believed only where the name shows it.
      const [answers, renamed] = await Promise.all([connection.askAll([...timed, ...rename]), connection.size(name)]);
      // A time that cannot be set, or is not taken, changes nothing else. RNTO without RNFR is refused too: the first refusal says why.
      const [from = noAnswer, to = noAnswer] = answers.slice(timed.length);
      taken(from);
      if (to.code >= 400) {
        // The directory that we know may have gone.
        this.#dirs.clear();
        // Refused, and done all the same.
        if (renamed !== undefined && (await connection.size(partial)) === undefined) return this.#published(connection, upload, name);
        // From a server that replaces nothing, where somebody was faster.
        const first = to.code >= 500 ? await this.#occupant(connection, upload, name, renamed) : undefined;
        if (first !== undefined) return first;
        // A directory has no size. Pure-FTPd says 451 to that.
        if (renamed === undefined && (await isDirectory(connection, name))) return { occupied: true, size: 0 };
        throw new Refusal(to);
      }
      // Where both have gone it was done, and somebody has taken the file away already.
      if (renamed !== upload.size && (await connection.size(partial)) !== undefined)
        throw new Fault(
          "transient",
          `the server said that it gave ${upload.path} its name ("${to.code} ${readable(to.text)}"), and did not`,
        );
      this.#forget(upload);
      return { path: upload.path, size: upload.size, ...proved };
    });
  }

  discard(upload: Upload, signal: AbortSignal): Promise<void> {
    this.#forget(upload);
    return this.#pool.with(signal, `cannot discard ${upload.partialPath}`, async (connection) => {
      // Nothing was ever sent for a name that cannot be given.
      if (!connection.canHave(upload.path)) return;
      const partial = wirePath(connection.root, upload.partialPath);
      const answer = await connection.ask(`DELE ${partial}`);
      if (answer.code >= 400 && (await connection.size(partial)) !== undefined) throw new Refusal(answer);
    });
  }

  #forget({ id }: Upload): void {
    this.#proved.delete(id);
    this.#anew.delete(id);
    this.#heldMs.delete(id);
    this.#inVain.delete(id);
  }

  look(upload: Upload, signal: AbortSignal): Promise<Occupant | undefined> {
    const read = this.#options.verify === "readback" ? upload.size : 0;
    return this.#with(read, signal, `cannot look at ${upload.path}`, async (connection) => {
      const name = connection.newPath(upload.path);
      return this.#occupant(connection, upload, name, await connection.size(name));
    });
  }

  /** The partial has gone: then it was published before, or it was never whole. */
  async #published(connection: Connection, upload: Upload, name: string, unnamed = false): Promise<Receipt> {
    const size = await connection.size(name);
    if (size === upload.size) {
      const proved = await this.#prove(connection, upload, name).catch((error: unknown) => {
        if (isFault(error, "mismatch")) return undefined;
        throw error;
      });
      if (proved !== undefined && !((unnamed || isAlike(upload)) && proved.proof === "size")) return { path: upload.path, size, ...proved };
    }
    throw new Fault("conflict", "the partial at the server has gone, and the file is not under its name");
  }

  async #provePartial(connection: Connection, upload: Upload, partial: string): Promise<Proved> {
    try {
      return await this.#prove(connection, upload, partial);
    } catch (error) {
      if (!isFault(error, "mismatch") || upload.modifiedMs === undefined) throw error;
      // ProFTPD's mod_digest keeps what it has digested by path and time, to the second: of a partial that was made anew within one it tells the old digest.
      await connection.ask(setTime(connection, partial, upload.modifiedMs));
      return this.#prove(connection, upload, partial);
    }
  }

  /** Verifies what is at `wire` against the upload, as configured. Throws "mismatch". */
  async #prove(connection: Connection, upload: Upload, wire: string): Promise<Proved> {
    const { verify } = this.#options;
    if (verify === "size" || upload.digest === undefined) return { proof: "size" };
    const byServer = verify === "readback" ? undefined : await connection.digest(wire, upload.size);
    if (verify === "digest" && byServer === undefined) throw noDigest();
    if (byServer === undefined && verify === "auto" && upload.spliced !== true) return { proof: "size" };
    const found = byServer ?? (await readDigest(connection, wire));
    if (found !== upload.digest) throw new Fault("mismatch", `the server holds ${found}, not ${upload.digest}`);
    return { proof: byServer === undefined ? "readback" : "digest", digest: found };
  }

  async #occupant(connection: Connection, upload: Upload, name: string, size: number | undefined): Promise<Occupant | undefined> {
    if (size === undefined) return undefined;
    const digest = size === upload.size ? await this.#digestOf(connection, name, size) : undefined;
    return { occupied: true, size, ...digest };
  }

  async #digestOf(
    connection: Connection,
    wire: string,
    size: number,
  ): Promise<{ digest: Digest; proof: "digest" | "readback" } | undefined> {
    const { verify } = this.#options;
    if (verify === "size") return undefined;
    if (verify === "readback") return { digest: await readDigest(connection, wire), proof: "readback" };
    const digest = await connection.digest(wire, size);
    return digest === undefined ? undefined : { digest, proof: "digest" };
  }

  /** Whether what is there is our own earlier version, as far as the server can tell. */
  async #replaceable(connection: Connection, upload: Upload, name: string, there: Occupant): Promise<boolean> {
    const { expect } = upload;
    if (expect.kind !== "replaces" || expect.size !== there.size) return false;
    if (expect.digest === undefined) return true;
    const found = there.digest ?? (await this.#digestOf(connection, name, there.size))?.digest;
    return found === undefined || found === expect.digest;
  }
}

/** Where its partial is. Throws "rejected" for a name that can never be given: nothing is asked or sent for it. */
function partialOf(connection: Connection, upload: Upload): string {
  connection.newPath(upload.path);
  return wirePath(connection.root, upload.partialPath);
}

/** Sets the time of a file. vsftpd does so by MDTM; others take the time for a part of the name there, and find nothing. */
function setTime(connection: Connection, wire: string, modifiedMs: number): string {
  return `${connection.has("MFMT") ? "MFMT" : "MDTM"} ${timeText(modifiedMs)} ${wire}`;
}

/** Reads a whole file and digests it. */
async function readDigest(connection: Connection, wire: string): Promise<Digest> {
  const hash = createHash("sha256");
  for await (const chunk of connection.retrieve(wire, 0)) hash.update(chunk);
  return `sha256:${hash.digest("hex")}`;
}

/** Fewer bytes than were sent: a proxy or server lost the end, and took it for the whole. What is there stays good, the rest is sent. */
function otherSize(size: number, upload: Upload, text: string): Fault {
  return new Fault(size < upload.size ? "transient" : "conflict", text);
}

/** Whether a directory has that name, as far as the server tells. */
async function isDirectory(connection: Connection, name: string): Promise<boolean> {
  try {
    return (await connection.entry(name))?.kind === "directory";
  } catch (error) {
    if (error instanceof Refusal) return false;
    throw error;
  }
}
