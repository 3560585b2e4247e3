/** USB sticks for a machine: made here, filled and read in the machine by the kernel's own drivers, while no daemon runs. */
import { chmodSync, mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { format, type Fs } from "../disks/image.js";
import { treeOf } from "../faults/trees.js";
import type { Random } from "../faults/random.js";
import type { Machine, Stick } from "./machine.js";

export const kinds = ["vfat", "exfat", "ext4"] as const satisfies readonly Fs[];
export type Kind = (typeof kinds)[number];

export interface UsbStick extends Stick {
  readonly fs: Kind;
  /** As udev tells it. */
  readonly uuid: string;
}

/** Path → size and SHA-256. */
export type Tree = ReadonlyMap<string, string>;

export function makeStick(machine: Machine, { name, fs, mib, uuid }: { name: string; fs: Kind; mib: number; uuid?: string }): UsbStick {
  const image = join(machine.dir, `${name}.img`);
  return { name, image, fs, uuid: format(image, { fs, mib, ...(uuid === undefined ? {} : { uuid }) }) ?? "" };
}

/** About `bytes` of files as a camera makes them: a large one, some of a few MB, many small; laid down in `dir`. */
export function makeFiles(dir: string, random: Random, bytes: number): Tree {
  const sizes = [Math.round(bytes * 0.4), ...Array.from({ length: 12 }, () => Math.round((bytes * 0.55) / 12))];
  for (let left = bytes * 0.05; left > 0 && sizes.length < 60; left -= sizes.at(-1) ?? 0) sizes.push(random.between(0, 60_000));
  // Of a day of its own; FAT knows even seconds only.
  const begun = Date.UTC(2026, 3, random.between(1, 30), random.between(0, 24)) / 1000;
  sizes.forEach((size, n) => {
    const path = join(dir, `DCIM/${String(100 + (n % 5))}MEDIA/IMG_${String(n).padStart(4, "0")}.JPG`);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, random.bytes(size));
    // The newest are moved first: so the large one is what a pull hits.
    utimesSync(path, begun - 60 * n, begun - 60 * n);
  });
  return treeOf(dir);
}

export function fill(machine: Machine, stick: UsbStick, random: Random, bytes: number): Promise<Tree> {
  return mounted(machine, stick, "rw", (at) => putFiles(machine, at, random, bytes));
}

/** Puts such files into a directory of the machine. */
export async function putFiles(machine: Machine, at: string, random: Random, bytes: number): Promise<Tree> {
  const dir = mkdtempSync(join(tmpdir(), "filesync-files-"));
  try {
    const tree = makeFiles(dir, random, bytes);
    // It becomes the root of the file system, which others read too.
    chmodSync(dir, 0o755);
    await machine.put(dir, at);
    return tree;
  } finally {
    rmSync(dir, { recursive: true });
  }
}

/** What is on it now. */
export function contentOf(machine: Machine, stick: UsbStick): Promise<Tree> {
  return mounted(machine, stick, "ro", (at) => treeIn(machine, at));
}

/** Every file below a directory in the machine. */
export async function treeIn(machine: Machine, dir: string): Promise<Tree> {
  const sizes = await machine.must(`mkdir -p ${dir} && cd ${dir} && find . -type f -printf '%s %P\\n'`);
  const sums = await machine.must(`cd ${dir} && find . -type f -exec sha256sum {} +`);
  const bytes = new Map(sizes.split("\n").map((line) => [line.slice(line.indexOf(" ") + 1), line.slice(0, line.indexOf(" "))]));
  const lines = sums.split("\n").filter((line) => line !== "");
  return new Map(
    lines.map((line) => {
      const path = line.slice(68);
      return [path, `${bytes.get(path) ?? "?"} ${line.slice(0, 64)}`];
    }),
  );
}

async function mounted<T>(machine: Machine, stick: UsbStick, mode: "ro" | "rw", work: (at: string) => Promise<T>): Promise<T> {
  const node = `/dev/disk/by-uuid/${stick.uuid}`;
  await machine.plug(stick);
  try {
    await machine.must(`mkdir -p /mnt/fill; until [ -b ${node} ]; do sleep 0.2; done; udevadm settle; mount -o ${mode} ${node} /mnt/fill`);
    try {
      return await work("/mnt/fill");
    } finally {
      await machine.must("umount /mnt/fill");
    }
  } finally {
    await machine.pull(stick);
  }
}
