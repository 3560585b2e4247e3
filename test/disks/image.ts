/** Images of removable disks: made, formatted, filled and read with the tools of each file system; the product has no part in it. */
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";

export type Fs = "ext4" | "vfat" | "exfat" | "none";

export interface Format {
  readonly fs: Fs;
  readonly mib: number;
  /** vfat and exfat: like "5C3D-DD9E". */
  readonly uuid?: string;
  readonly label?: string;
  /** The file system is in the first partition of a DOS table. */
  readonly partition?: boolean;
}

/** Where the first partition starts. */
export const partitionStart = 1 << 20;

/** Runs a tool to its end and gives what it printed; its own words are thrown if it fails. */
export function tool(command: string, args: readonly string[], input?: string): string {
  const { status, error, stdout, stderr } = spawnSync(command, args, {
    encoding: "utf8",
    maxBuffer: 1 << 26,
    ...(input === undefined ? {} : { input }),
  });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")}: ${error?.message ?? stderr.trim()}`);
  return stdout;
}

const typeOf = (fs: Fs): string => (fs === "ext4" ? "83" : "c");

const serial = (uuid: string): string => uuid.replace("-", "");

const mkfs: Record<Exclude<Fs, "none">, (file: string, format: Format) => void> = {
  ext4: (file, { uuid, label }) =>
    tool("mkfs.ext4", ["-q", "-F", "-m", "0", ...(uuid ? ["-U", uuid] : []), ...(label ? ["-L", label] : []), file]),
  // FAT32 as on cards, also where it is small for that.
  vfat: (file, { uuid, label, mib }) =>
    tool("mkfs.vfat", [
      ...(mib >= 34 ? ["-F", "32", "-s", "1"] : []),
      ...(uuid ? ["-i", serial(uuid)] : []),
      ...(label ? ["-n", label] : []),
      file,
    ]),
  exfat: (file, { uuid, label }) => {
    tool("mkfs.exfat", [...(label ? ["-L", label] : []), file]);
    if (uuid) tool("tune.exfat", ["-I", `0x${serial(uuid)}`, file]);
  },
};

/** Makes the image `file`; gives the file system's uuid as udev will tell it. */
export function format(file: string, wanted: Format): string | undefined {
  const start = wanted.partition ? partitionStart : 0;
  writeFileSync(file, "");
  truncateSync(file, start + wanted.mib * (1 << 20));
  if (wanted.partition) tool("sfdisk", ["-q", file], `start=2048, type=${typeOf(wanted.fs)}\n`);
  if (wanted.fs === "none") return undefined;
  return formatAt(file, start, wanted);
}

/** Adds a partition behind those of `file`; gives its file system's uuid. */
export function addPartition(file: string, wanted: Format): string {
  const start = Math.ceil(statSync(file).size / partitionStart) * partitionStart;
  truncateSync(file, start + wanted.mib * (1 << 20));
  tool("sfdisk", ["-q", "--append", file], `start=${String(start / 512)}, type=${typeOf(wanted.fs)}\n`);
  return formatAt(file, start, wanted);
}

function formatAt(file: string, start: number, wanted: Format): string {
  if (wanted.fs === "none") return "";
  const volume = `${file}.volume`;
  writeFileSync(volume, "");
  truncateSync(volume, wanted.mib * (1 << 20));
  mkfs[wanted.fs](volume, wanted);
  volumeAt(file, start, volume);
  rmSync(volume);
  return tool("blkid", ["-p", "-o", "value", "-s", "UUID", "-O", String(start), file]).trim();
}

/** Every file below `dir`: its path with "/" → its bytes. */
export function readTree(dir: string): Map<string, Buffer> {
  const files = new Map<string, Buffer>();
  for (const entry of readdirSync(dir, { recursive: true, withFileTypes: true }))
    if (entry.isFile())
      files.set(join(entry.parentPath, entry.name).slice(dir.length + 1), readFileSync(join(entry.parentPath, entry.name)));
  return new Map([...files].sort(([a], [b]) => (a < b ? -1 : 1)));
}

export type Files = Readonly<Record<string, string | Uint8Array>>;

/** Writes `files` below `dir`. */
export function writeTree(dir: string, files: Files): void {
  for (const [path, bytes] of Object.entries(files)) {
    mkdirSync(dirname(join(dir, path)), { recursive: true });
    writeFileSync(join(dir, path), bytes);
  }
}

/** Copies the file system of an image into the file `volume`, holes kept, to look into or to change while the image is left alone. */
export function volumeOf(image: string, partition: boolean, volume: string): void {
  tool("dd", [
    `if=${image}`,
    `of=${volume}`,
    "bs=1M",
    `skip=${String(partition ? partitionStart >> 20 : 0)}`,
    "conv=sparse",
    "status=none",
  ]);
}

/** Puts it back. */
export function volumeInto(image: string, partition: boolean, volume: string): void {
  volumeAt(image, partition ? partitionStart : 0, volume);
}

function volumeAt(image: string, start: number, volume: string): void {
  tool("dd", [`if=${volume}`, `of=${image}`, "bs=1M", `seek=${String(start >> 20)}`, "conv=notrunc", "status=none"]);
}

/** Reads or changes FAT by mtools: another implementation than the driver by which the laboratory mounts it. */
export const fat = {
  read: (volume: string, dir: string): void => void tool("mcopy", ["-Q", "-s", "-n", "-m", "-i", volume, "::/", dir]),
  write: (volume: string, dir: string): void =>
    void tool("mcopy", ["-Q", "-s", "-o", "-m", "-i", volume, ...readdirSync(dir).map((name) => join(dir, name)), "::/"]),
};
