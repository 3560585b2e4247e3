/** File systems of a test's own, on loop devices: small, so that they get full. */
import { spawnSync } from "node:child_process";
import { until } from "./conformance/clause.js";

const ext4: readonly string[] = ["mkfs.ext4", "-q", "-m", "0"];
const loop = (image: string, dir: string): readonly string[] => ["mount", "-o", "loop", image, dir];

/** Makes one of `mib` MiB in the file `image`, and mounts it at `dir`, which is there. undefined: done; else why it cannot be had here. */
export function mountSmall(image: string, dir: string, mib: number, mkfs = ext4, mount = loop): string | undefined {
  for (const [command = "", ...args] of [["truncate", "-s", `${mib}M`, image], [...mkfs, image], mount(image, dir)]) {
    const { status, error, stderr } = spawnSync(command, args, { encoding: "utf8" });
    if (status !== 0) return `${command}: ${error?.message ?? stderr.trim()}`;
  }
  return undefined;
}

/** It wants a block device, which goes by itself once it is unmounted. */
const exfatMount = 'l=$(losetup -f --show "$0") && mount.exfat-fuse "$l" "$1" >&2; r=$?; losetup -d "$l"; exit $r';

/** The command that mounts one. */
export const exfatAt = (image: string, dir: string): readonly string[] => ["sh", "-c", exfatMount, image, dir];

/** An exFAT, by FUSE. */
export function mountExfat(image: string, dir: string, mib = 64): string | undefined {
  return mountSmall(image, dir, mib, ["mkfs.exfat"], exfatAt);
}

/** As a person unmounts it: once nobody has anything of it open, as a program that lists it has for a moment. */
export async function unmountIdle(dir: string): Promise<void> {
  await until(`nobody has ${dir} open`, () => spawnSync("umount", [dir]).status === 0);
}

export function unmount(dir: string): void {
  spawnSync("umount", ["-l", dir]);
}
