/**
 * Changing what is on the simulated card: files that are written, made, moved and taken away, each on the disk of this machine at once. What a
 * client may do, and how it is answered, is each server's own.
 */
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmdirSync,
  truncateSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { Op } from "../mavlink/ftp.js";
import { DiskError, EACCES, EEXIST, EINVAL, EISDIR, ENOSPC, guard } from "./disk-error.js";
import type { Disk } from "./disk.js";

export interface OpenHow {
  /** One that is not there is made. */
  readonly create: boolean;
  /** What it holds is thrown away. */
  readonly truncate: boolean;
}

/** What one medium does otherwise than another. */
export interface Medium {
  /** Names are FAT's: some characters cannot be. */
  readonly fat: boolean;
  /** A file that is in the way of a rename is replaced. */
  readonly renameReplaces: boolean;
  /** Removing a file removes an empty directory too. */
  readonly removesDirectories: boolean;
}

/** What a directory takes of the card: one cluster of a small one. */
const DIRECTORY_BYTES = 4096;

/** A file that is open for writing. */
export class WrittenFile {
  /** Before it was opened. */
  readonly sizeBefore: number;
  readonly #disk: Disk;
  readonly #fd: number;
  #closed = false;

  /** Throws DiskError. */
  constructor(disk: Disk, path: Buffer, { create, truncate }: OpenHow, { fat }: Medium) {
    const place = fat ? fatPlace(disk, path) : disk.place(path);
    const flags = constants.O_WRONLY | constants.O_NONBLOCK | (create ? constants.O_CREAT : 0);
    this.#fd = guard(() => openSync(place, flags, 0o666));
    if (!fstatSync(this.#fd).isFile()) {
      closeSync(this.#fd);
      throw new DiskError(EISDIR, "not a plain file");
    }
    this.sizeBefore = fstatSync(this.#fd).size;
    this.#disk = disk;
    if (truncate) {
      guard(() => truncateSync(place, 0));
      disk.freeBytes += this.sizeBefore;
    }
    disk.changed();
  }

  /** How many of the bytes the card took: fewer than there are where it is full. Throws DiskError. */
  write(offset: number, bytes: Uint8Array): number {
    const size = fstatSync(this.#fd).size;
    const lacking = Math.max(0, offset + bytes.length - size - this.#disk.freeBytes);
    const length = Math.max(0, bytes.length - lacking);
    if (length === 0) return 0;
    const taken = guard(() => writeSync(this.#fd, bytes, 0, length, offset));
    this.#disk.freeBytes -= Math.max(0, offset + taken - size);
    return taken;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#fd);
  }
}

/** Does what one of the requests asks that need no open file. Throws DiskError. */
export function changeNames(disk: Disk, opcode: number, [path, to]: readonly Buffer[], medium: Medium): void {
  if (path === undefined) throw new DiskError(EINVAL, "no path");
  const known = (at: Buffer): Buffer => (medium.fat ? fatPlace(disk, at) : disk.place(at));
  switch (opcode) {
    case Op.RemoveFile:
      remove(disk, disk.place(path), medium.removesDirectories);
      break;
    case Op.RemoveDirectory:
      if (medium.removesDirectories) remove(disk, disk.place(path), true);
      else removeDirectory(disk, disk.place(path));
      break;
    case Op.CreateDirectory: {
      const place = known(path);
      const there = lstatSync(place, { throwIfNoEntry: false });
      if (there === undefined && disk.freeBytes < DIRECTORY_BYTES) throw new DiskError(ENOSPC, "the card is full");
      guard(() => mkdirSync(place));
      disk.freeBytes -= DIRECTORY_BYTES;
      break;
    }
    case Op.Rename: {
      if (to === undefined) throw new DiskError(EINVAL, "no second path");
      const place = known(to);
      const there = lstatSync(place, { throwIfNoEntry: false });
      if (there !== undefined && !medium.renameReplaces) throw new DiskError(EEXIST, "the new name is taken");
      guard(() => renameSync(disk.place(path), place));
      disk.freeBytes += there?.size ?? 0;
      break;
    }
    default:
      throw new RangeError(`opcode ${opcode} changes no names`);
  }
  disk.changed();
}

/** Cuts a file, or makes it longer with zeros. Throws DiskError. */
export function truncate(disk: Disk, path: Buffer, size: number): void {
  const place = disk.place(path);
  const longer = size - guard(() => lstatSync(place)).size;
  if (longer > disk.freeBytes) throw new DiskError(ENOSPC, "the card is full");
  guard(() => truncateSync(place, size));
  disk.freeBytes -= longer;
  disk.changed();
}

function remove(disk: Disk, place: Buffer, directoriesToo: boolean): void {
  const there = guard(() => lstatSync(place));
  if (!directoriesToo || !there.isDirectory()) {
    guard(() => unlinkSync(place));
    disk.freeBytes += there.size;
    return;
  }
  // FatFs says of one that is not empty that it is denied.
  if (guard(() => readdirSync(place)).length > 0) throw new DiskError(EACCES, "the directory is not empty");
  removeDirectory(disk, place);
}

function removeDirectory(disk: Disk, place: Buffer): void {
  guard(() => rmdirSync(place));
  disk.freeBytes += DIRECTORY_BYTES;
}

/** The long names of FAT hold no control characters, and none of these. */
const NOT_IN_FAT = Buffer.from('"*:<>?\\|');

/** Throws the DiskError of a name that FAT cannot hold. */
function fatPlace(disk: Disk, path: Buffer): Buffer {
  if (path.some((byte) => byte < 0x20 || byte === 0x7f || NOT_IN_FAT.includes(byte))) throw new DiskError(EINVAL, "FAT has no such names");
  return disk.place(path);
}
