/** Paths of core ↔ paths on this disk. A path that would leave the directory, by its parts or by a symbolic link, is refused. */
import { promises as fs } from "node:fs";
import { codeOf, Fault, faultOfErrno } from "../../core/errors.js";
import { makeDirDurable } from "../../core/fs.js";
import { bytesFromName, isSafePath } from "../../core/names.js";
import type { FileEntry, Stamp } from "../../core/plugin.js";
import type { Rights } from "../../core/rights.js";
import { entryOf, ifThere, type Within, withinAt } from "../../core/stat.js";

/** A directory of this machine, as a device uses it. */
export interface LocalPlace {
  readonly dir: string;
  /** It is made where it is missing. */
  readonly create: boolean;
  /** Throws Fault "offline" where its file system is not mounted, or hangs. */
  expectHere?(): Promise<void>;
  /** A refusal with what to type. Absent: who may what there is told otherwise. */
  withRights?(fault: Fault, rights: Rights, ...paths: readonly string[]): Promise<Fault>;
}

/** The same for these places. */
export async function refusedAt(place: LocalPlace, fault: Fault, rights: Rights, ...places: readonly Buffer[]): Promise<Fault> {
  // Of a name that is no UTF-8 nothing can be typed.
  const paths = places.flatMap((it) => (Buffer.from(it.toString()).equals(it) ? [it.toString()] : []));
  return (await place.withRights?.(fault, rights, ...paths)) ?? fault;
}

/** The path on disk, as bytes: a name may be no UTF-8. Throws Fault "rejected". */
export function placeOf(root: string, path: string): Buffer {
  if (!isSafePath(path)) throw new Fault("rejected", `${JSON.stringify(path)} would lead out of the directory`);
  const bytes = bytesFromName(path);
  if (bytes.includes(0)) throw new Fault("rejected", `${JSON.stringify(path)} holds a NUL byte`);
  for (const part of path.split("/")) {
    const name = bytesFromName(part);
    if (name.length > 255) throw new Fault("rejected", `the name ${JSON.stringify(part)} is longer than 255 bytes`);
    if (name.includes(0x2f) || name.equals(Buffer.from(".")) || name.equals(Buffer.from("..")))
      throw new Fault("rejected", `${JSON.stringify(path)} would lead out of the directory`);
  }
  return Buffer.concat([Buffer.from(`${root}/`), bytes]);
}

/** Makes the directory itself. Throws "denied", "full", "rejected". */
export async function makeRoot(place: LocalPlace): Promise<void> {
  const { dir } = place;
  try {
    await makeDirDurable(dir);
  } catch (error) {
    throw await refusedAt(place, faultOfErrno(error, `cannot make ${dir}`), "rwx", Buffer.from(dir));
  }
}

/** undefined when nothing is there. A symbolic link or special file is `unreadable`. With an identity only where `within` is given (`entryOf`). */
export async function statAt(root: string, path: string, within?: Within): Promise<FileEntry | undefined> {
  const stat = await lookedFor(fs.lstat(placeOf(root, path), { bigint: true }), path);
  return stat === undefined ? undefined : entryOf(path, stat, within);
}

/** A name that the file system cannot hold: FAT, exFAT and NTFS of the kernel say EINVAL. exFAT by FUSE says that there is no such file: that is no directory which went away. */
export async function noName(root: string, path: string, error: unknown): Promise<Fault | undefined> {
  const dir = parentOf(placeOf(root, path));
  if (!["ENOENT", "EINVAL"].includes(codeOf(error)) || (await fs.stat(dir).catch(() => undefined))?.isDirectory() !== true)
    return undefined;
  return new Fault("rejected", `the file system of ${root} does not take the name ${path}`, { cause: error });
}

/** undefined where nothing is at `path`, or above it. */
export async function lookedFor<T>(looked: Promise<T>, path: string): Promise<T | undefined> {
  return ifThere(looked).catch((error: unknown) => {
    throw faultOfErrno(error, `cannot look at ${path}`);
  });
}

/** The same with an identity; the directories above are no links. Throws "rejected". */
export async function lookAt(root: string, path: string): Promise<FileEntry | undefined> {
  await expectNoLink(root, path);
  return statAt(root, path, await withinAt(parentOf(placeOf(root, path))));
}

export function parentOf(place: Buffer): Buffer {
  return place.subarray(0, place.lastIndexOf(0x2f));
}

/** Throws "rejected" where a directory above `path`, below `root`, is a symbolic link: it would lead out. What is not there is none. */
export async function expectNoLink(root: string, path: string): Promise<void> {
  for (let at = path.indexOf("/"); at !== -1; at = path.indexOf("/", at + 1)) {
    const dir = path.slice(0, at);
    const stat = await lookedFor(fs.lstat(placeOf(root, dir)), dir);
    if (stat === undefined) return;
    if (stat.isSymbolicLink()) throw new Fault("rejected", `${root}/${dir} is a symbolic link: links are not followed, they may lead out`);
  }
}

export function isSame(entry: Stamp, expect: Stamp): boolean {
  return (
    entry.size === expect.size &&
    (expect.modifiedMs === undefined || entry.modifiedMs === undefined || entry.modifiedMs === expect.modifiedMs)
  );
}
