/**
 * `get`: a file of a device into this directory. What has come so far stands beside it under a partial name that says which file, in which state, it
 * is the beginning of; the same command goes on there. Nothing different is replaced without `--force`.
 */
import { constants, createReadStream, promises as fs, type PathLike, type Stats } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { ControlError } from "../core/control.js";
import { Digester, kindOf } from "../core/digest.js";
import { codeOf, Fault, faultOfErrno, isFault } from "../core/errors.js";
import { removeFile, renameDurable, renameNew, syncName } from "../core/fs.js";
import type { Found } from "../core/hand.js";
import type { Digest, DigestKind, FileEntry, WayOfReading } from "../core/plugin.js";
import { backoffMs, reasonOf } from "../core/retry.js";
import { partialPath, shortHash } from "../core/route.js";
import { deadLink } from "../core/stat.js";
import { UsageError } from "./config.js";
import { onlyWaits, type Place } from "./hand.js";
import { Meter } from "./output.js";

/** In the id of a partial, behind what says which file it is of. */
const stateLength = 8;
/** So many bytes before the offset are read again and compared. */
const overlapBytes = 4096;
/** Failures in a row without a byte. */
const mostTries = 5;

export interface CopyOptions {
  readonly force: boolean;
  readonly json: boolean;
}

export async function getFile(place: Place, given: string | undefined, options: CopyOptions): Promise<void> {
  const { name, signal } = place;
  const other = given?.includes(":") === true ? given.slice(0, given.indexOf(":")) : undefined;
  if (given !== undefined && other !== undefined && place.devices.includes(other))
    throw new UsageError(
      `get takes one file of a device to this machine, and "${given}" names one of ${other}: each is a command of its own; a file here that is called so: ./${given}`,
    );
  const { entry, digests } = (await place.ask({ command: "stat", path: place.path }, { signal, said: onlyWaits(options) })) as Found;
  const local = await localName(given, basename(entry.path));
  const state = shortHash(String(entry.size), String(entry.modifiedMs ?? "")).slice(0, stateLength);
  const id = `${shortHash(name, entry.path).slice(0, -stateLength)}${state}`;
  const at = await behindLink(local);
  const partial = join(dirname(at), partialPath(basename(at), "get", id));
  await removePublished(partial);
  const there = await statOf(local);
  // A device of the system (/dev/null), a pipe: a file in its place would be in everybody's way.
  if (there !== undefined && (!there.isFile() || (await isOfSystem(local))))
    throw new UsageError(`${local} is there already, and no plain file: it is not replaced`);
  const dead = there === undefined ? await deadLink(local) : undefined;
  if (dead !== undefined) throw new UsageError(dead);
  if (there !== undefined && !options.force) {
    const same = await isSame(local, there, place, entry);
    if (same === true) {
      tell(options.json, { path: entry.path, local, size: entry.size, already: true }, `${local} is ${name}:${entry.path} already`);
      return;
    }
    const how =
      same === undefined ? `with the same size (${name} cannot tell its content)` : `and is another file than ${name}:${entry.path}`;
    throw new UsageError(`${local} is there already, ${how}; --force replaces it`);
  }
  const file = await openPartial(partial, local);
  try {
    const got = await receive(place, entry, file, partial, digests, options);
    await file.sync();
    if (entry.modifiedMs !== undefined) await file.utimes(new Date(), new Date(entry.modifiedMs));
    await publish(partial, at, local, options.force);
    const { proof, digest, meter } = got;
    const rate = meter.at > meter.from ? `${meter.paceText}${meter.wayText}` : "";
    tell(
      options.json,
      { path: entry.path, local, size: entry.size, resumedAt: meter.from, proof, digest, ...meter.wayFacts },
      `${name}:${entry.path} → ${local} (${entry.size} bytes${rate}, proved by ${proof})`,
    );
  } finally {
    await file.close();
  }
  await removeOutgrown(partial);
}

/** Killed while it got its name, a file has both: it is no beginning of anything, and what would be written to it would be written to what has its name. */
async function removePublished(partial: string): Promise<void> {
  if (((await statOf(partial))?.nlink ?? 1) > 1) await removeFile(partial);
}

/** What came of the same file in other states than this one, and is nothing's beginning any more. */
async function removeOutgrown(partial: string): Promise<void> {
  const [dir, own] = [dirname(partial), basename(partial)];
  const end = own.length - stateLength - ".part".length;
  for (const name of await fs.readdir(dir))
    if (name.length === own.length && name.startsWith(own.slice(0, end)) && name.endsWith(".part")) await removeFile(join(dir, name));
}

interface Got {
  readonly proof: "digest" | "size";
  readonly digest: Digest;
  readonly meter: Meter;
}

/** All bytes are in `file`, and proved as well as the device can. Goes on by itself after what passes. */
async function receive(
  place: Place,
  entry: FileEntry,
  file: FileHandle,
  partial: string,
  digests: readonly DigestKind[],
  { json }: CopyOptions,
): Promise<Got> {
  const { name, signal } = place;
  let { size: offset } = await file.stat();
  if (offset > entry.size) {
    await file.truncate(0);
    offset = 0;
  }
  const meter = new Meter(`${name}:${entry.path}`, entry.size, offset, json);
  if (offset > 0 && !json) meter.note(`${name}:${entry.path}: goes on at byte ${offset} of ${entry.size}`);
  try {
    let told: string | undefined;
    for (let tries = 0; ; tries++) {
      const before = meter.at;
      try {
        const answer = await receiveOnce(place, entry, file, meter);
        const kinds = [...new Set<DigestKind>(["sha256", ...digests])];
        const own = await digestsOf(partial, kinds);
        const [sha256] = own;
        if (sha256 === undefined) throw new Error("no digest");
        if (answer.digest === undefined) return { proof: "size", digest: sha256, meter };
        const { digest } = answer;
        const same = own.find((known) => kindOf(known) === kindOf(digest));
        if (same === digest) return { proof: "digest", digest: sha256, meter };
        await file.truncate(0);
        throw new Fault(
          "mismatch",
          `${name}: what came is not what ${name} holds (${String(same)}, not ${digest}); the same command reads it anew`,
        );
      } catch (error) {
        if (meter.at > before) {
          tries = 0;
          told = undefined;
        }
        const passes = isFault(error, "transient", "offline", "throttled");
        // Of another file what is here is no beginning.
        const keeps = !isFault(error, "mismatch", "changed", "missing");
        if (!passes || signal.aborted || tries + 1 >= mostTries) {
          if (isFault(error) || error instanceof ControlError)
            rethrow(
              error,
              `${reasonOf(error)}${keeps && meter.at > 0 ? `; ${meter.at} bytes are here, and the same command goes on there` : ""}`,
            );
          throw error;
        }
        const reason = reasonOf(error);
        if (!json && reason !== told) meter.note(`${reason}; again`);
        told = reason;
        await new Promise((resolve) => setTimeout(resolve, backoffMs(tries, 0, Math.random())));
      }
    }
  } finally {
    meter.close();
  }
}

async function receiveOnce(place: Place, entry: FileEntry, file: FileHandle, meter: Meter): Promise<{ digest?: Digest }> {
  const { signal } = place;
  const overlap = Math.min(overlapBytes, meter.at);
  const known = Buffer.alloc(overlap);
  await file.read(known, 0, overlap, meter.at - overlap);
  let compared = 0;
  const given = async (bytes: Buffer) => {
    const again = Math.min(overlap - compared, bytes.length);
    if (again > 0 && !bytes.subarray(0, again).equals(known.subarray(compared, compared + again))) {
      await file.truncate(0);
      meter.at = 0;
      throw new Fault("transient", `${place.name}:${entry.path}: what is here is not its beginning; it is read from the first byte`);
    }
    compared += again;
    const fresh = bytes.subarray(again);
    try {
      for (let at = 0; at < fresh.length;) {
        const { bytesWritten } = await file.write(fresh, at, fresh.length - at, meter.at);
        at += bytesWritten;
        meter.at += bytesWritten;
      }
    } catch (error) {
      throw faultOfErrno(error, "cannot write what came");
    }
  };
  const said = (fact: unknown) => {
    const { waiting, way } = fact as { waiting?: string; way?: WayOfReading };
    if (waiting !== undefined && !meter.json) meter.note(waiting);
    if (way !== undefined) meter.way = way;
    return undefined;
  };
  const answer = (await place.ask({ command: "get", entry, offset: meter.at - overlap }, { signal, given, said })) as { digest?: Digest };
  if (meter.at !== entry.size) throw new Fault("transient", `${place.name}: the bytes ended at ${meter.at} of ${entry.size}`);
  return answer;
}

function rethrow(error: Error, message: string): never {
  throw isFault(error) ? new Fault(error.kind, message, { cause: error }) : new ControlError(message);
}

/** What is written, as by cp, where the name is a link: that stays one. */
async function behindLink(local: string): Promise<string> {
  return (await fs.lstat(local).catch(() => undefined))?.isSymbolicLink() === true ? fs.realpath(local).catch(() => local) : local;
}

/** A name for what is open (/dev/stdout): what it shows is a file, it is none. */
async function isOfSystem(local: string): Promise<boolean> {
  return /^\/(dev|proc)(\/(?!shm\/)|$)/.test(`${await fs.realpath(dirname(local))}/`);
}

async function localName(given: string | undefined, name: string): Promise<string> {
  if (given === undefined) return name;
  const stat = await statOf(given);
  if (stat?.isDirectory() === true || given.endsWith("/")) return join(given, name);
  return given;
}

async function statOf(path: string): Promise<Stats | undefined> {
  try {
    return await fs.stat(path);
  } catch (error) {
    const fault = faultOfErrno(error, `cannot look at ${path}`);
    if (fault.kind === "missing") return undefined;
    throw new UsageError(fault.message);
  }
}

/** The same size and time; or, where the device can tell, the same content. undefined: it tells neither time nor content. */
async function isSame(local: string, there: Stats, place: Place, entry: FileEntry): Promise<boolean | undefined> {
  if (there.size !== entry.size) return false;
  if (entry.modifiedMs !== undefined && Math.abs(there.mtimeMs - entry.modifiedMs) < 2) return true;
  // Nothing is read from the end: only the device's own digest is asked for.
  const { digest } = (await place.ask({ command: "get", entry, offset: entry.size }, { signal: place.signal })) as { digest?: Digest };
  if (digest !== undefined) return (await digestsOf(local, [kindOf(digest)]))[0] === digest;
  return entry.modifiedMs === undefined ? undefined : sameSecond(there.mtimeMs, entry.modifiedMs);
}

/** Where one side knows no more than the second (FTP, some disks), the second is all that can be compared. */
function sameSecond(a: number, b: number): boolean {
  return (a % 1000 === 0 || b % 1000 === 0) && Math.floor(a / 1000) === Math.floor(b / 1000);
}

async function openPartial(partial: string, local: string): Promise<FileHandle> {
  try {
    return await fs.open(partial, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o666);
  } catch (error) {
    throw new UsageError(faultOfErrno(error, `cannot write ${local}`).message);
  }
}

async function publish(partial: string, at: string, local: string, force: boolean): Promise<void> {
  try {
    if (force) await renameDurable(partial, at);
    else {
      await renameNew(partial, at);
      await syncName(at);
    }
  } catch (error) {
    if (codeOf(error) === "EEXIST") throw new UsageError(`${local} has come into being meanwhile; --force replaces it`);
    throw faultOfErrno(error, `cannot give ${local} its name`);
  }
}

export async function digestsOf(path: PathLike, kinds: readonly DigestKind[]): Promise<Digest[]> {
  const digesters = kinds.map((kind) => new Digester(kind));
  for await (const chunk of createReadStream(path, { highWaterMark: 2 ** 20 }))
    for (const digester of digesters) digester.update(chunk as Buffer);
  return digesters.map((digester) => digester.value());
}

/** The last word of a copy. */
export function tell(json: boolean, facts: Readonly<Record<string, unknown>>, text: string): void {
  process.stdout.write(`${json ? JSON.stringify(facts) : text}\n`);
}
