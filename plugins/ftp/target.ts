/**
 * An FTP server as a target: a hidden partial beside the final name, continued at exactly its size, verified, then renamed.
 *
 * Offsets are asked, never remembered. A resume goes by APPE, since REST and STOR corrupt on some servers, and the size is asked again
 * after it. A look at the final name comes before each rename; FTP has no rename that refuses, so what another client puts there in that
 * moment is not seen. An answer that was lost is found by looking: the partial has gone and the name holds the size.
 */
import { createHash } from "node:crypto";
import { Transform, Writable } from "node:stream";
import { Fault, isFault } from "../../core/errors.js";
import type { Digest, Occupant, Proof, Receipt, Target, TargetFeatures, Upload } from "../../core/plugin.js";
import { refused, type Connection } from "./connection.js";
import { ensureDir } from "./dirs.js";
import { timeText } from "./listing.js";
import type { FtpOptions } from "./options.js";
import type { Pool } from "./pool.js";
import { wirePath } from "./wire.js";

/** What a partial holds was proved so; `digest` where it is known. */
interface Proved {
  readonly proof: Proof;
  readonly digest?: Digest;
}

export class FtpTarget implements Target {
  readonly #options: FtpOptions;
  readonly #pool: Pool;
  /** Directories that are there, as far as we know. */
  readonly #dirs = new Set<string>();

  constructor(options: FtpOptions, pool: Pool) {
    this.#options = options;
    this.#pool = pool;
  }

  get features(): TargetFeatures {
    return {
      needs: "stream",
      resume: true,
      append: false,
      atomic: true,
      singleShot: false,
      digests: this.#options.verify === "size" ? [] : this.#pool.digests,
      concurrency: this.#options.concurrency,
    };
  }

  offset(upload: Upload, signal: AbortSignal): Promise<number> {
    return this.#pool.with(signal, `cannot ask for the size of ${upload.partialPath}`, async (connection) => {
      return (await connection.size(wirePath(connection.root, upload.partialPath))) ?? 0;
    });
  }

  write(upload: Upload, offset: number, signal: AbortSignal, onBytes: (n: number) => void): Promise<void> {
    return this.#pool.with(signal, `cannot write ${upload.path}`, async (connection) => {
      const partial = wirePath(connection.root, upload.partialPath);
      // Looked at here too: nothing is sent for a name that can never be given.
      wirePath(connection.root, upload.path);
      const held = await connection.size(partial);
      if ((held ?? 0) !== offset) throw new Fault("conflict", `the partial at the server has ${held ?? 0} bytes, not ${offset}`);
      if (offset === upload.size && held !== undefined) return;
      if (held === undefined) await ensureDir(connection, partial.slice(0, partial.lastIndexOf("/")), this.#dirs);
      try {
        await this.#send(connection, upload, partial, offset, signal, onBytes);
      } catch (error) {
        // Somebody may have removed the directory that we know: the next try looks again.
        this.#dirs.clear();
        throw error;
      }
      if (offset === 0) return;
      const now = await connection.size(partial);
      if (now !== upload.size)
        throw otherSize(now ?? 0, upload, `after a resume at ${offset} the partial has ${now ?? 0} bytes, not ${upload.size}`);
    });
  }

  commit(upload: Upload, signal: AbortSignal): Promise<Receipt | Occupant> {
    return this.#pool.with(signal, `cannot publish ${upload.path}`, async (connection) => {
      const partial = wirePath(connection.root, upload.partialPath);
      const name = wirePath(connection.root, upload.path);
      const [size, taken] = await connection.sizes(partial, name);
      if (size === undefined) return this.#published(connection, upload, name);
      if (size !== upload.size) throw otherSize(size, upload, `the partial at the server has ${size} bytes, not ${upload.size}`);
      const proved = await this.#prove(connection, upload, partial);
      const other = await this.#occupant(connection, upload, name, taken);
      if (other !== undefined && !(await this.#replaceable(connection, upload, name, other))) return other;
      const timed = upload.modifiedMs === undefined ? [] : [setTime(connection, partial, upload.modifiedMs)];
      const answers = await connection.askAll([...timed, `RNFR ${partial}`, `RNTO ${name}`]);
      // A time that cannot be set, or is not taken, changes nothing else. RNTO without RNFR is refused too: the first refusal says why.
      const [from, to] = answers.slice(timed.length);
      for (const answer of [from, to])
        if (answer === undefined || answer.code >= 400) throw refused(answer ?? { code: 451, text: "no answer" });
      return { path: upload.path, size: upload.size, ...proved };
    });
  }

  discard(upload: Upload, signal: AbortSignal): Promise<void> {
    return this.#pool.with(signal, `cannot discard ${upload.partialPath}`, async (connection) => {
      const partial = wirePath(connection.root, upload.partialPath);
      const answer = await connection.ask(`DELE ${partial}`);
      if (answer.code >= 400 && (await connection.size(partial)) !== undefined) throw refused(answer);
    });
  }

  look(upload: Upload, signal: AbortSignal): Promise<Occupant | undefined> {
    return this.#pool.with(signal, `cannot look at ${upload.path}`, async (connection) => {
      const name = wirePath(connection.root, upload.path);
      return this.#occupant(connection, upload, name, await connection.size(name));
    });
  }

  async #send(
    connection: Connection,
    upload: Upload,
    partial: string,
    offset: number,
    signal: AbortSignal,
    onBytes: (n: number) => void,
  ): Promise<void> {
    const wanted = upload.size - offset;
    let sent = 0;
    let withdrawn: Error | undefined;
    const counted = new Transform({
      transform: (chunk: Buffer, _encoding, done) => {
        const rest = chunk.subarray(0, wanted - sent);
        sent += rest.length;
        if (rest.length > 0) onBytes(rest.length);
        done(null, rest.length > 0 ? rest : undefined);
      },
      // An end before the handshake of the data connection would break it off: an empty file would never arrive by TLS.
      flush: (done) => void connection.dataReady.then(() => done()),
    });
    const source = upload.read(offset, signal);
    // What was given before the bytes are withdrawn is sent on, so that it is kept there.
    source.once("error", (error) => {
      withdrawn = error;
      counted.end();
    });
    source.once("close", () => counted.end());
    source.pipe(counted);
    try {
      await connection.store(offset === 0 ? "STOR" : "APPE", counted, partial);
    } catch (error) {
      throw isFault(withdrawn) ? withdrawn : error;
    } finally {
      source.destroy();
    }
    if (withdrawn !== undefined) throw withdrawn;
    if (sent < wanted) throw new Fault("transient", `the bytes ended at ${offset + sent} of ${upload.size}`);
  }

  /** The partial has gone: then it was published before, or it was never whole. */
  async #published(connection: Connection, upload: Upload, name: string): Promise<Receipt> {
    const size = await connection.size(name);
    if (size === upload.size) {
      const proved = await this.#prove(connection, upload, name).catch((error: unknown) => {
        if (isFault(error, "mismatch")) return undefined;
        throw error;
      });
      if (proved !== undefined) return { path: upload.path, size, ...proved };
    }
    throw new Fault("conflict", "the partial at the server has gone, and the file is not under its name");
  }

  /** Verifies what is at `wire` against the upload, as configured. Throws "mismatch". */
  async #prove(connection: Connection, upload: Upload, wire: string): Promise<Proved> {
    const { verify } = this.#options;
    if (verify === "size" || upload.digest === undefined) return { proof: "size" };
    const byServer = verify === "readback" ? undefined : await connection.digest(wire, upload.size);
    if (verify === "digest" && byServer === undefined)
      throw new Fault("denied", 'this server computes no SHA-256; set "verify" to "readback", "size" or "auto"');
    if (byServer === undefined && verify === "auto") return { proof: "size" };
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

/** Sets the time of a file. vsftpd does so by MDTM; others take the time for a part of the name there, and find nothing. */
function setTime(connection: Connection, wire: string, modifiedMs: number): string {
  return `${connection.has("MFMT") ? "MFMT" : "MDTM"} ${timeText(modifiedMs)} ${wire}`;
}

/** Reads a whole file and digests it. */
async function readDigest(connection: Connection, wire: string): Promise<Digest> {
  const hash = createHash("sha256");
  const into = new Writable({
    write(chunk: Buffer, _encoding, done) {
      hash.update(chunk);
      done();
    },
  });
  await connection.retrieve(into, wire, 0);
  return `sha256:${hash.digest("hex")}`;
}

/** Fewer bytes than were sent: a proxy or server lost the end, and took it for the whole. What is there stays good, the rest is sent. */
function otherSize(size: number, upload: Upload, text: string): Fault {
  return new Fault(size < upload.size ? "transient" : "conflict", text);
}
