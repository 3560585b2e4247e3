/** How a PX4 lists a directory: what it leaves out counts as "S". "." and ".." come where the card has them, which is anywhere. */
import { FTP_DATA_MAX, Nak } from "../mavlink/ftp.js";
import type { DiskEntry } from "./disk.js";
import { timedEntry } from "./listing.js";
import { Refusal } from "./refusal.js";

const skipped = Buffer.from("S");
const zero = Buffer.alloc(1);

/** As many entries from number `offset` on as fit. Past the end: Eof; but an empty directory is an empty answer. */
export function px4Listing(found: readonly DiskEntry[], offset: number, timed: boolean): Buffer {
  const count = found.length + (found.length === 0 ? 0 : found.length === 1 ? 1 : 2);
  const parts: Buffer[] = [];
  let length = 0;
  for (let at = offset; at < count; at++) {
    const entry = at === 1 || at === 3 ? skipped : entryText(found[at - (at > 3 ? 2 : at > 1 ? 1 : 0)] as DiskEntry, timed);
    if (length + entry.length + 1 > FTP_DATA_MAX) break;
    parts.push(entry, zero);
    length += entry.length + 1;
  }
  if (length === 0 && offset > 0) throw new Refusal(Nak.Eof);
  return Buffer.concat(parts);
}

/** The entry as PX4 writes it: one that is too long counts as left out. */
function entryText(entry: DiskEntry, timed: boolean): Buffer {
  if (entry.kind === "other") return skipped;
  const text = timed
    ? timedEntry(entry)
    : Buffer.concat([
        Buffer.from(entry.kind === "directory" ? "D" : "F"),
        entry.name,
        Buffer.from(entry.kind === "file" ? `\t${entry.size}` : ""),
      ]);
  return text.length + 1 > FTP_DATA_MAX ? skipped : text;
}
