/**
 * How an ArduPilot lists a directory (gen_dir_entry and list_dir of GCS_FTP.cpp): a zero after each entry, up to 4.7 a second one by mistake; what is
 * neither file nor directory is left out and not counted; a name that fits into no packet ends the listing up to 4.7, and costs itself from 4.8 on.
 * "." and ".." are there where the directory is not empty, as on boards with Linux; a card's directories have none.
 */
import { FTP_DATA_MAX, Nak } from "../mavlink/ftp.js";
import type { DiskEntry } from "./disk.js";
import { timedEntry } from "./listing.js";
import { Refusal } from "./refusal.js";

export interface ListingStyle {
  /** Zeros after an entry. */
  readonly zeros: 1 | 2;
  /** A name that fits into no packet ends the listing there. */
  readonly endsAtLongName: boolean;
}

/** One answer: entries from number `offset` on. Throws the Refusal Eof where there are none. */
export function listing(entries: readonly DiskEntry[], offset: number, timed: boolean, style: ListingStyle): Buffer {
  const parts: Buffer[] = [];
  let length = 0;
  let at = 0;
  for (const text of texts(entries, timed)) {
    const needed = text.length + 1;
    const never = needed >= FTP_DATA_MAX;
    if (at < offset) {
      // What fits nowhere is not counted; the old way counts one that just does not.
      if (!never || (style.endsAtLongName && needed === FTP_DATA_MAX)) at += 1;
      continue;
    }
    if (never && !style.endsAtLongName) continue;
    if (needed + length >= FTP_DATA_MAX) break;
    parts.push(text, Buffer.alloc(style.zeros));
    length += text.length + style.zeros;
  }
  if (length === 0) throw new Refusal(Nak.Eof);
  return Buffer.concat(parts);
}

function* texts(entries: readonly DiskEntry[], timed: boolean): Generator<Buffer> {
  const dots = (name: string): Buffer => Buffer.from(timed ? `D${name}\t0\t0` : `D${name}`);
  for (const [n, entry] of entries.entries()) {
    if (n === 0) yield dots(".");
    if (entry.kind !== "other") yield timed ? timedText(entry) : plain(entry);
    if (n === 0) yield dots("..");
  }
}

function plain(entry: DiskEntry): Buffer {
  if (entry.kind === "directory") return Buffer.concat([Buffer.from("D"), entry.name]);
  // A size is written as 32 bits.
  return Buffer.concat([Buffer.from("F"), entry.name, Buffer.from(`\t${entry.size >>> 0}`)]);
}

/** A tab in a name would make the fields ambiguous: it is skipped, and counts. */
function timedText(entry: DiskEntry): Buffer {
  return entry.name.includes(0x09) ? Buffer.from("S") : timedEntry(entry);
}
