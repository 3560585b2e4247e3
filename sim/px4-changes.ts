/**
 * How a PX4 changes its card (src/modules/mavlink/mavlink_ftp.cpp, NuttX). Only below /fs/microsd/ (_validatePathIsWritable). A WriteFile looks at
 * no path of its own but at the work buffer, which holds the path of whatever was asked last, and which is thrown away after 2 s: after a pause,
 * or a listing of another place, it is refused (FileProtected). A rename replaces what has the new name.
 */
import { Nak, Op } from "../mavlink/ftp.js";
import { changeNames, truncate, WrittenFile } from "./disk-changes.js";
import { DiskError } from "./disk-error.js";
import type { Disk } from "./disk.js";
import { Refusal } from "./refusal.js";

const WRITABLE = "/fs/microsd/";
const BUFFER_MS = 2000;
const MEDIUM = { fat: true, renameReplaces: true, removesDirectories: false };

export class Px4Changes {
  readonly #disk: Disk;
  #buffer = "";
  #usedMs = -Infinity;

  constructor(disk: Disk) {
    this.#disk = disk;
  }

  /** Any request comes in. */
  asked(now: number): void {
    if (now - this.#usedMs > BUFFER_MS) this.#buffer = "";
    this.#usedMs = now;
  }

  /** A request names this path. */
  names(path: Buffer): Buffer {
    this.#buffer = path.toString("latin1");
    return path;
  }

  /** Throws DiskError. */
  open(path: Buffer, opcode: number): WrittenFile {
    return new WrittenFile(this.#disk, path, { create: true, truncate: opcode === Op.CreateFile }, MEDIUM);
  }

  /** Throws the Refusal of a WriteFile whose work buffer holds no path that may be written. */
  writes(): void {
    if (!isWritable(this.#buffer)) throw new Refusal(Nak.FileProtected);
  }

  /** Throws Refusal, or DiskError. */
  change(opcode: number, paths: readonly Buffer[], size: number): void {
    if (!isWritable((paths.at(-1) ?? Buffer.alloc(0)).toString("latin1"))) throw new Refusal(Nak.FileProtected);
    if (opcode !== Op.TruncateFile) {
      changeNames(this.#disk, opcode, paths, MEDIUM);
      return;
    }
    try {
      truncate(this.#disk, paths[0] ?? Buffer.alloc(0), size);
    } catch (error) {
      // The errno of the file's size, which is asked for first, is not kept.
      throw error instanceof DiskError ? new Refusal(Nak.FailErrno, 0) : error;
    }
  }
}

function isWritable(path: string): boolean {
  return path.startsWith(WRITABLE) && !path.includes("/../");
}
