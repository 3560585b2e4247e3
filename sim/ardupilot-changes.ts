/**
 * How an ArduPilot changes its card (libraries/GCS_MAVLink/GCS_FTP.cpp over AP_Filesystem_FATFS): FAT, where a rename does not replace, and where
 * what removes a file removes an empty directory too. OpenFileWO keeps what the file holds, and makes none up to 4.6. TruncateFile is not known.
 *
 * Of a full card no answer says that it is full: a write that was taken in part is acknowledged like a whole one, one of which nothing was taken is
 * an I/O error (AP_Filesystem_FATFS::write), and a directory without room is denied (FatFs, f_mkdir).
 */
import { FTP_DATA_MAX, Nak, Op } from "../mavlink/ftp.js";
import type { Session } from "./ardupilot-sessions.js";
import type { Asked } from "./ardupilot-worker.js";
import type { FtpSurroundings } from "./autopilot.js";
import { changeNames, WrittenFile } from "./disk-changes.js";
import type { Disk } from "./disk.js";
import { DiskError, EACCES, EINVAL, EIO, ENOSPC } from "./disk-error.js";
import { onDisk, Refusal } from "./refusal.js";

/** Offsets are signed. */
export const OFFSET_MAX = 0x7fffffff;
const MEDIUM = { fat: true, renameReplaces: false, removesDirectories: true };

export interface ChangeTools {
  /** The path of the request. Throws Refusal. */
  readonly path: () => Buffer;
  /** OpenFileWO makes a file that is not there. */
  readonly openMakes: boolean;
}

/** Does what a request asks that changes the card; its ACK holds no data but perhaps an offset. Undefined for another request. Throws Refusal. */
export function changeCard(
  asked: Asked,
  session: Session,
  { disk, stats }: FtpSurroundings,
  { path, openMakes }: ChangeTools,
): { readonly offset?: number } | undefined {
  switch (asked.opcode) {
    case Op.CreateFile:
    case Op.OpenFileWO: {
      if (session.file !== undefined) throw new Refusal(Nak.Fail);
      const truncate = asked.opcode === Op.CreateFile;
      const at = path();
      session.file = onDisk(() => new WrittenFile(disk, at, { create: truncate || openMakes, truncate }, MEDIUM));
      stats.sessionsOpened += 1;
      return {};
    }
    case Op.WriteFile: {
      const { file } = session;
      if (file === undefined) throw new Refusal(Nak.FileNotFound);
      if (!(file instanceof WrittenFile)) throw new Refusal(Nak.Fail);
      if (asked.offset > OFFSET_MAX) throw new Refusal(Nak.FailErrno, EINVAL);
      const data = asked.data.subarray(0, asked.size);
      const taken = onDisk(() => file.write(asked.offset, data));
      if (taken === 0 && data.length > 0) throw new Refusal(Nak.FailErrno, EIO);
      // How much the card took is not told.
      stats.writtenBytes += taken;
      return { offset: asked.offset };
    }
    case Op.RemoveFile:
    case Op.CreateDirectory:
    case Op.RemoveDirectory: {
      const at = path();
      onDisk(() => fatNames(disk, asked.opcode, [at]));
      return {};
    }
    case Op.Rename: {
      const zero = asked.data.indexOf(0);
      const end = asked.data.indexOf(0, zero + 1);
      const counted = end === -1 ? FTP_DATA_MAX : end;
      if (asked.size === 0 || zero === -1 || asked.size !== counted) throw new Refusal(Nak.InvalidDataSize);
      const paths = [asked.data.subarray(0, zero), asked.data.subarray(zero + 1, counted)];
      onDisk(() => fatNames(disk, asked.opcode, paths));
      return {};
    }
    default:
      return undefined;
  }
}

/** Throws DiskError. */
function fatNames(disk: Disk, opcode: number, paths: readonly Buffer[]): void {
  try {
    changeNames(disk, opcode, paths, MEDIUM);
  } catch (error) {
    throw error instanceof DiskError && error.errno === ENOSPC ? new DiskError(EACCES, error.message) : error;
  }
}
