/** Directory entries and cluster chains that are broken, in the image of a disk that is not plugged. */
import { readFileSync, writeFileSync } from "node:fs";

/**
 * Breaks one file of an exFAT, whose name is in no other: "checksum": its set of entries is no valid one; "cluster": it begins behind the end of the
 * medium; "chain": it has no cluster after its first.
 */
export function breakExfat(image: string, name: string, what: "checksum" | "cluster" | "chain"): void {
  const bytes = readFileSync(image);
  // A file's set: its entry, its stream, its name.
  const file = bytes.indexOf(Buffer.from(name, "utf16le")) - 2 - 64;
  const stream = file + 32;
  if (bytes[file] !== 0x85 || bytes[stream] !== 0xc0) throw new Error(`${name} is not on this exFAT`);
  if (what === "cluster") bytes.writeUInt32LE(0x0fff_fff0, stream + 20);
  // Without "it is in one piece" the table is asked, which holds nothing of such a file.
  if (what === "chain") bytes.writeUInt8((bytes[stream + 1] ?? 0) & ~2, stream + 1);
  let sum = 0;
  for (let at = 0; at < 32 * (1 + (bytes[file + 1] ?? 0)); at++)
    if (at !== 2 && at !== 3) sum = (((sum & 1) << 15) + (sum >> 1) + (bytes[file + at] ?? 0)) & 0xffff;
  bytes.writeUInt16LE(what === "checksum" ? sum ^ 0xffff : sum, file + 2);
  writeFileSync(image, bytes);
}

/** What comes after the first cluster of a file of a FAT32: a cluster behind the end of the medium. `short`: its name as it is stored, "A       BIN". */
export function breakFat32(image: string, short: string): void {
  const bytes = readFileSync(image);
  const entry = bytes.indexOf(Buffer.from(short, "latin1"));
  if (entry < 0) throw new Error(`${short} is not on this FAT`);
  const [sector, reserved, fats, each] = [bytes.readUInt16LE(11), bytes.readUInt16LE(14), bytes[16] ?? 0, bytes.readUInt32LE(36)];
  const first = bytes.readUInt16LE(entry + 26) + 65_536 * bytes.readUInt16LE(entry + 20);
  for (let n = 0; n < fats; n++) bytes.writeUInt32LE(0x0fff_ffe0, sector * (reserved + n * each) + 4 * first);
  writeFileSync(image, bytes);
}
