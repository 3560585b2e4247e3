/**
 * The target role: a partial beside the final name, verified, then renamed. Only while the vehicle is disarmed.
 *
 * The partial is `.<installation>-<upload id>.part`: a request holds 239 bytes, a rename two paths in them, and NuttX takes names of 32 bytes unless
 * it was built otherwise (CONFIG_FAT_MAXFNAME), so the file's own name has no room in it. It is continued at its size; bytes of an earlier life of this program are proved by the
 * autopilot's checksum first. The whole is proved by that checksum, or read back. No autopilot's rename can be trusted to refuse a name that is
 * taken: a look comes before it, and what another client puts there in that moment is not seen.
 */
import { Fault, isFault, throwIfAborted } from "../../core/errors.js";
import { bytesFromName, isSafePath } from "../../core/names.js";
import { nameIn, parentOf } from "../../core/paths.js";
import type { Chunk, FileEntry, Occupant, Reading, Receipt, Target, TargetFeatures, Upload } from "../../core/plugin.js";
import { AUTOPILOT_ARDUPILOT, AUTOPILOT_PX4 } from "../../mavlink/messages.js";
import { TakenName, type Card, type Stay } from "./card.js";
import { pathBytes } from "./listing.js";
import { Sum } from "./sum.js";
import { writeBytes, type UploadTools } from "./upload.js";

/** Of two paths with a zero between; a PX4 cuts off the last byte of a full request (_data_as_cstring). */
const PATHS_BYTES = 238;
/** What a listing with times has room for beside a name. */
const NAME_BYTES = 214;
/** The zero, and the "~12345678" of a name that was taken. */
const SPARE_BYTES = 1 + 9;
/** Of so many files it is known what was sent. */
const SUMS_MAX = 32;
/** An offset has 32 bits; an ArduPilot's are signed. */
const MOST_BYTES = 2 ** 31;

export interface TargetTools extends UploadTools {
  readonly card: Card;
  /** The whole of a file, from the autopilot. */
  readonly readBack: (entry: FileEntry, signal: AbortSignal) => Promise<AsyncIterable<Buffer>>;
}

export class MavftpTarget implements Target {
  readonly #tools: TargetTools;
  /** By partial: what this process sent. */
  readonly #sums = new Map<string, Sum>();

  constructor(tools: TargetTools) {
    this.#tools = tools;
  }

  get features(): TargetFeatures {
    const { autopilot } = this.#tools.peer;
    return {
      needs: "stream",
      // A MAVSDK server empties a file that is opened for writing (mavlink_ftp_server.cpp).
      resume: autopilot === AUTOPILOT_PX4 || autopilot === AUTOPILOT_ARDUPILOT,
      atomic: true,
      singleShot: false,
      digests: ["crc32-mavlink"],
      concurrency: 1,
    };
  }

  async offset(upload: Upload, signal: AbortSignal): Promise<number> {
    throwIfAborted(signal);
    const { card } = this.#tools;
    const held = await card.with(signal, async (stay) => (await card.stat(stay, await partialOf(stay, upload)))?.size ?? 0);
    return this.features.resume || held === upload.size ? held : 0;
  }

  async write(upload: Upload, offset: number, signal: AbortSignal, onBytes: (n: number) => void): Promise<void> {
    throwIfAborted(signal);
    const { card } = this.#tools;
    checkPath(upload.path);
    if (upload.size > MOST_BYTES) throw new Fault("rejected", `it has ${upload.size} bytes, and MAVLink FTP writes no more than 2 GiB`);
    await card.grounded(signal, async (stay) => {
      const partial = await partialOf(stay, upload);
      const size = async (): Promise<number> => (await card.stat(stay, partial))?.size ?? 0;
      if (offset === 0) await card.makeDir(stay, parentOf(partial));
      else {
        const held = await size();
        if (held !== offset) throw new Fault("conflict", `the partial on the autopilot has ${held} bytes, not ${offset}`);
      }
      const { sum, bytes } = await this.#from(stay, upload, partial, offset);
      this.#keep(partial, sum);
      const written = await writeBytes(this.#tools, {
        attachment: stay.attachment,
        path: pathBytes(await stay.root(), partial),
        offset,
        bytes,
        sum,
        onBytes,
        size: this.features.resume ? size : undefined,
        signal: stay.signal,
      });
      if (written !== upload.size) throw new Fault("transient", `what was read ended after ${written} of ${upload.size} bytes`);
    });
  }

  /** The bytes from `offset` on, and the sum of those before; those that this process did not write are proved to be what the autopilot has. */
  async #from(stay: Stay, upload: Upload, partial: string, offset: number): Promise<{ readonly sum: Sum; readonly bytes: Reading }> {
    const known = offset === 0 ? new Sum() : this.#sums.get(partial);
    if (known?.size === offset) return { sum: known, bytes: upload.chunks(offset, stay.signal) };
    const { card } = this.#tools;
    const theirs = card.affordsChecksum(offset) ? await card.checksum(stay, partial, offset) : undefined;
    const bytes = upload.chunks(0, stay.signal);
    try {
      const { sum, rest } = await summed(bytes, offset);
      if (sum.crc === theirs) return { sum, bytes: rest };
      throw new Fault("conflict", "what the partial on the autopilot holds cannot be proved to be the beginning of this file");
    } catch (error) {
      bytes.close();
      throw error;
    }
  }

  #keep(partial: string, sum: Sum): void {
    this.#sums.delete(partial);
    this.#sums.set(partial, sum);
    for (const oldest of this.#sums.keys()) {
      if (this.#sums.size <= SUMS_MAX) break;
      this.#sums.delete(oldest);
    }
  }

  async commit(upload: Upload, signal: AbortSignal): Promise<Receipt | Occupant> {
    throwIfAborted(signal);
    checkPath(upload.path);
    const { card } = this.#tools;
    return card.grounded(signal, async (stay) => {
      const partial = await partialOf(stay, upload);
      const there = await card.stat(stay, partial);
      if (there === undefined) return this.#published(stay, upload, partial);
      if (there.size !== upload.size)
        throw new Fault(
          there.size < upload.size ? "transient" : "conflict",
          `the partial on the autopilot has ${there.size} bytes, not ${upload.size}`,
        );
      const receipt = await this.#prove(stay, upload, partial, partial);
      const occupant = await this.#occupant(stay, upload);
      if (occupant !== undefined) {
        if (!(await this.#replaceable(stay, upload, occupant))) return occupant;
        // Its bytes are the beginning of the partial's: a cut between the two loses nothing.
        await card.remove(stay, upload.path);
      } else if (parentOf(upload.path) !== parentOf(partial)) await card.makeDir(stay, parentOf(upload.path));
      try {
        await card.rename(stay, partial, upload.path);
      } catch (error) {
        // It never gets this name, so nobody would take the partial away before somebody gives the file up.
        if (isFault(error, "rejected")) await this.#drop(stay, partial);
        // Somebody was faster than the look.
        if (!(error instanceof TakenName)) throw error;
        const now = await this.#occupant(stay, upload);
        if (now !== undefined) return now;
        throw new Fault("transient", error.message, { cause: error });
      }
      return receipt;
    });
  }

  /** The partial has gone: then it was published before, or somebody took it away. */
  async #published(stay: Stay, upload: Upload, partial: string): Promise<Receipt> {
    const there = await this.#tools.card.stat(stay, upload.path);
    if (there?.kind === "file" && there.size === upload.size) {
      const receipt = await this.#prove(stay, upload, partial, upload.path).catch((error: unknown) => {
        if (isFault(error, "mismatch")) return undefined;
        throw error;
      });
      if (receipt !== undefined) return receipt;
    }
    throw new Fault("conflict", "the partial on the autopilot has gone, and the file is not under its name");
  }

  /** What is at `path` is this upload, whose partial is or was `partial`. Throws "mismatch". */
  async #prove(stay: Stay, upload: Upload, partial: string, path: string): Promise<Receipt> {
    const { card } = this.#tools;
    const sent = this.#sums.get(partial);
    const whole = sent?.size === upload.size ? sent : undefined;
    if (whole !== undefined && upload.digest !== undefined && whole.digest !== upload.digest)
      throw new Fault("mismatch", `what was sent is ${whole.digest}, not ${upload.digest}`);
    const theirs = whole !== undefined && card.affordsChecksum(upload.size) ? await card.checksum(stay, path, upload.size) : undefined;
    if (whole !== undefined && theirs !== undefined) {
      if (theirs !== whole.crc)
        throw new Fault("mismatch", `the autopilot's checksum is ${hex(theirs)}, that of what was sent is ${hex(whole.crc)}`);
      return { path: upload.path, size: upload.size, digest: whole.digest, proof: upload.digest === undefined ? "size" : "digest" };
    }
    const back = await this.#readBack(stay, path, upload.size);
    const expected = upload.digest ?? whole?.digest;
    if (expected !== undefined && back.digest !== expected)
      throw new Fault("mismatch", `the autopilot holds ${back.digest}, not ${expected}`);
    return { path: upload.path, size: upload.size, digest: back.digest, proof: upload.digest === undefined ? "size" : "readback" };
  }

  async #readBack({ signal }: Stay, path: string, size: number): Promise<Sum> {
    const sum = new Sum();
    if (size > 0) for await (const bytes of await this.#tools.readBack({ path, kind: "file", size }, signal)) sum.update(bytes);
    return sum;
  }

  async #occupant(stay: Stay, upload: Upload): Promise<Occupant | undefined> {
    const there = await this.#tools.card.stat(stay, upload.path);
    if (there === undefined) return undefined;
    if (there.kind !== "file" || there.size !== upload.size) return { occupied: true, size: there.size };
    return { occupied: true, size: there.size, digest: (await this.#readBack(stay, upload.path, there.size)).digest, proof: "readback" };
  }

  /** Whether what is there is our own earlier version. */
  async #replaceable(stay: Stay, { expect, path }: Upload, there: Occupant): Promise<boolean> {
    if (expect.kind !== "replaces" || expect.size !== there.size || expect.digest === undefined) return false;
    return (there.digest ?? (await this.#readBack(stay, path, there.size)).digest) === expect.digest;
  }

  async discard(upload: Upload, signal: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    const { card } = this.#tools;
    // Nothing was ever sent for a name that cannot be given.
    if (wrongWith(upload.path) !== undefined) return;
    await card.grounded(signal, async (stay) => this.#drop(stay, await partialOf(stay, upload)));
  }

  async #drop(stay: Stay, partial: string): Promise<void> {
    const { card } = this.#tools;
    this.#sums.delete(partial);
    if ((await card.stat(stay, partial)) !== undefined) await card.remove(stay, partial);
  }

  async look(upload: Upload, signal: AbortSignal): Promise<Occupant | undefined> {
    throwIfAborted(signal);
    checkPath(upload.path);
    return this.#tools.card.with(signal, (stay) => this.#occupant(stay, upload));
  }
}

/** The partial's path; also the check that a rename of it to its final name fits into a request. Throws "rejected". */
async function partialOf(stay: Stay, { partialPath, path }: Upload): Promise<string> {
  checkPath(path);
  const own = /\.[0-9a-f]{8}-[0-9a-f]{16}\.part$/.exec(partialPath)?.[0] ?? nameIn(partialPath);
  const dir = parentOf(partialPath);
  const partial = dir === "" ? own : `${dir}/${own}`;
  checkRename(await stay.root(), partial, path);
  return partial;
}

/** Throws "rejected" where a rename does not fit into a request, or a name into a listing. */
export function checkRename(root: string, from: string, to: string): void {
  if (pathBytes(root, from).length + pathBytes(root, to).length + SPARE_BYTES > PATHS_BYTES)
    throw new Fault(
      "rejected",
      "its path is too long for MAVLink FTP, whose requests have room for 238 bytes of old and new name together",
    );
}

/** Throws "rejected" for a path that can never be. */
export function checkPath(path: string): void {
  const wrong = wrongWith(path);
  if (wrong !== undefined) throw new Fault("rejected", wrong);
}

function wrongWith(path: string): string | undefined {
  if (!isSafePath(path)) return `${JSON.stringify(path)} would lead out of the directory`;
  for (const part of path.split("/")) {
    const name = bytesFromName(part);
    if (name.includes(0) || name.includes(0x2f) || [".", ".."].includes(name.toString("latin1")))
      return `${JSON.stringify(path)} would lead out of the directory`;
    // One that is longer would end a PX4's or an older ArduPilot's listing for everybody.
    if (name.length > NAME_BYTES)
      return `the name ${JSON.stringify(part)} is longer than the ${NAME_BYTES} bytes that a listing has room for`;
  }
  return undefined;
}

/** The sum of the first `size` bytes, and a reading of those behind. */
async function summed(bytes: Reading, size: number): Promise<{ readonly sum: Sum; readonly rest: Reading }> {
  const sum = new Sum();
  let left: Chunk | undefined;
  while (sum.size < size) {
    const chunk = await bytes.next();
    if (chunk === undefined) break;
    const more = chunk.bytes.subarray(size - sum.size);
    sum.update(chunk.bytes.subarray(0, size - sum.size));
    if (more.length > 0) left = { bytes: more, release: chunk.release };
    else chunk.release();
  }
  const next = (): ReturnType<Reading["next"]> => {
    const first = left;
    left = undefined;
    return first === undefined ? bytes.next() : Promise.resolve(first);
  };
  return { sum, rest: { next, close: () => bytes.close() } };
}

function hex(crc: number): string {
  return crc.toString(16).padStart(8, "0");
}
