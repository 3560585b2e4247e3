/** The machine's image, built once for each recipe (build.sh, and the Node.js that is copied in) and kept in a cache. */
import { createHash } from "node:crypto";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, renameSync, rmSync, statfsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const recipe = fileURLToPath(new URL("../../../test/vm/build.sh", import.meta.url));

/** What builds and runs it: command → package. */
const needs: Readonly<Record<string, string>> = {
  mmdebstrap: "mmdebstrap",
  "qemu-system-x86_64": "qemu-system-x86",
  "qemu-img": "qemu-utils",
  "mkfs.ext4": "e2fsprogs",
  "ssh-keygen": "openssh-client",
  setpriv: "util-linux",
};
const binaries = ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin", "/usr/local/sbin"];
/** The image, what it is built from, and what a run writes. */
const needsBytes = 8 * 2 ** 30;

export interface Image {
  readonly kernel: string;
  readonly initrd: string;
  readonly root: string;
  /** Of the machine's root. */
  readonly key: string;
}

/** Builds it if it is not there. A string says why it cannot be had. */
export function imageIn(cache = join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "filesync-vm")): Image | string {
  for (const [command, pack] of Object.entries(needs))
    if (!binaries.some((dir) => existsSync(join(dir, command)))) return `the machine needs ${command} (package ${pack})`;
  const node = realpathSync(process.execPath);
  const name = createHash("sha256").update(readFileSync(recipe)).update(process.version).update(process.arch).digest("hex").slice(0, 16);
  const dir = join(cache, name);
  if (!existsSync(dir)) {
    if (process.getuid?.() !== 0) return "the machine is built by root (mmdebstrap, chroot)";
    if (process.arch !== "x64") return `the machine is one of x86-64, and the Node.js that is copied in is for ${process.arch}`;
    mkdirSync(cache, { recursive: true, mode: 0o700 });
    const { bavail, bsize } = statfsSync(cache);
    if (bavail * bsize < needsBytes) return `${cache} has not the ${String(needsBytes / 2 ** 30)} GiB free that the machine needs`;
    const building = mkdtempSync(join(cache, "building-"));
    const { status, error } = spawnSync(recipe, [building], { stdio: ["ignore", 2, 2], env: { ...process.env, NODE: node } });
    if (status !== 0) {
      rmSync(building, { recursive: true, force: true });
      return `the machine could not be built: ${error?.message ?? "the words of build.sh are above"}`;
    }
    // Whoever was quicker has made the same.
    if (existsSync(dir)) rmSync(building, { recursive: true });
    else renameSync(building, dir);
  }
  return { kernel: join(dir, "vmlinuz"), initrd: join(dir, "initrd.img"), root: join(dir, "root.img"), key: join(dir, "id") };
}
