/** The mount table of this process (proc(5), /proc/self/mountinfo). */
import { readFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { isAtOrBelow } from "./paths.js";

export interface Mount {
  /** `major:minor` of what is mounted; a FUSE driver may have one of its own. */
  readonly device: string;
  /** The directory of the file system that is seen here. */
  readonly root: string;
  readonly dir: string;
  readonly type: string;
  /** What was mounted, as it was named then: "/dev/sda1". */
  readonly from: string;
  readonly readOnly: boolean;
  /** Of the mount: "nosuid", "noexec". */
  readonly options: readonly string[];
}

export async function readMounts(path: string): Promise<Mount[]> {
  return mountsIn(await readFile(path, "utf8"));
}

/**
 * What is mounted at a directory, or below it, as a text that is another one once anything was mounted or unmounted there; "" where no table tells (another system than Linux). `path`: absolute, with no
 * link in it.
 */
export async function mountedBelow(path: string): Promise<string> {
  const text = await readFile("/proc/self/mountinfo", "utf8").catch(() => "");
  // The number of a mount, and its directory.
  const fields = text.split("\n").map((line) => line.split(" "));
  return fields.flatMap(([id = "", , , , dir = ""]) => (isIn(plain(dir), path) ? `${id} ${dir}` : [])).join("\n");
}

/** `24 1 8:1 / /mnt ro,noatime shared:1 - ext4 /dev/sda1 rw`: what is before " - " is of the mount, what is behind of the file system. */
export function mountsIn(text: string): Mount[] {
  return text.split("\n").flatMap((line) => {
    const [before, after] = line.split(" - ", 2);
    const [, , device, root, dir, options] = (before ?? "").split(" ");
    const [type, from, superOptions] = (after ?? "").split(" ");
    if (device === undefined || root === undefined || dir === undefined || type === undefined) return [];
    const readOnly = isReadOnly(options) || isReadOnly(superOptions);
    return [{ device, root: plain(root), dir: plain(dir), type, from: plain(from ?? ""), readOnly, options: (options ?? "").split(",") }];
  });
}

/** Of a directory that can be had by several mounts (`mount --bind`, a disk that is mounted twice) always the same of its paths. `path`: absolute, with no link in it. */
export function unbound(mounts: readonly Mount[], path: string): string {
  const at = mountOf(mounts, path);
  if (at === undefined) return path;
  const inside = join(at.root, relative(at.dir, path));
  const seenBy = ({ dir, root }: Mount) => join(dir, relative(root, inside));
  const most = mounts
    .filter((it) => it.device === at.device && isIn(inside, it.root) && mountOf(mounts, seenBy(it)) === it)
    .sort((a, b) => a.root.length - b.root.length)[0];
  return seenBy(most ?? at);
}

/** That shows what is at a path: what was mounted last at a directory covers what was there. */
function mountOf(mounts: readonly Mount[], path: string): Mount | undefined {
  const length = Math.max(...mounts.map(({ dir }) => (isIn(path, dir) ? dir.length : -1)));
  return mounts.findLast(({ dir }) => dir.length === length && isIn(path, dir));
}

/** Of paths with no link in them. */
export const isIn = (path: string, dir: string) => dir === "/" || isAtOrBelow(path, dir);

function isReadOnly(options = ""): boolean {
  return options.split(",").includes("ro");
}

/** Blanks, tabs, line ends and backslashes are written as `\040`. */
function plain(text: string): string {
  return text.replaceAll(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}
