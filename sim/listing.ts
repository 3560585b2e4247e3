/** What the flavours' listings have in common. */
import type { Disk, DiskEntry } from "./disk.js";

/** An entry of ListDirectoryWithTime (opcode 16): size 0 with directories, and the time of the last change in seconds since 1970, 0 where it is not known. */
export function timedEntry(entry: DiskEntry): Buffer {
  return Buffer.concat([
    Buffer.from(entry.kind === "directory" ? "D" : "F"),
    entry.name,
    Buffer.from(`\t${entry.size}\t${entry.modifiedS}`),
  ]);
}

const alias = "@MAV_LOG";

/**
 * The path that "@MAV_LOG" stands for: the directory of logs, or "/" where the card has none of that name because all that is served is logs. A
 * path that does not begin with it is given back as it is.
 */
export function logAlias(path: Buffer, logDir: string, disk: Disk): Buffer {
  const from = path[0] === 0x2f ? 1 : 0;
  const rest = path.subarray(from + alias.length);
  if (path.toString("latin1", from, from + alias.length) !== alias || (rest.length > 0 && rest[0] !== 0x2f)) return path;
  return Buffer.concat([Buffer.from(disk.isDirectory(logDir) ? logDir : "/"), rest]);
}
