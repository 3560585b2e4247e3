/**
 * Mounting one file system, by the first way that this machine has: udisks2, mount(8) where this process may, the helper of the service
 * (`helper.ts`). Never formats, never repairs: what cannot be mounted for writing is tried read-only.
 */
import { constants, existsSync, promises as fs, readFileSync } from "node:fs";
import { join } from "node:path";
import { codeOf, Fault } from "../../core/errors.js";
import { type Block, stayOf } from "./blocks.js";
import { runCommand, type RunCommand } from "../../core/program.js";
import { askHelper, helperDir, helperPaths, type HelperPaths, type HelperRequest } from "./helper.js";
import { nameOf } from "./media.js";
import { type Mount, readMounts } from "../../core/mounts.js";
import type { OwnMounts } from "./own-mount.js";

/** Where this machine tells of itself; a test has its own. */
export interface Machine {
  readonly run: RunCommand;
  readonly mountInfo: string;
  readonly sys: string;
  /** Where udev names disks. */
  readonly byUuid: string;
  /** What udev knows of each that it has looked at. */
  readonly udev: string;
  /** Of the helper; nothing is there where it is not installed. */
  readonly helper: HelperPaths;
  /** This process may call mount(8) by itself. */
  mayMount(): boolean;
}

export const thisMachine: Machine = {
  run: runCommand,
  mountInfo: "/proc/self/mountinfo",
  sys: "/sys",
  byUuid: "/dev/disk/by-uuid",
  udev: "/run/udev/data",
  helper: helperPaths,
  mayMount,
};

const sysAdmin = 21n;

function mayMount(): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
  return effective !== undefined && ((BigInt(`0x${effective}`) >> sysAdmin) & 1n) === 1n;
}

export type Way = "udisks2" | "mount" | "helper" | "found";

/** A file system as it is mounted now. */
export interface Mounted {
  readonly dir: string;
  readonly readOnly: boolean;
  /** "found": somebody else mounted it, and unmounts it. */
  readonly way: Way;
  readonly stay: string;
  /** Of the mounted file system, as stat(2) says: another number means that it is not mounted there any more. */
  readonly dev: number;
  /** The same as the mount table has it: `major:minor`. */
  readonly device: string;
}

/** Drivers, the best first, where mount(8) does not know which by itself; FUSE's where the kernel has none. */
export const drivers: Readonly<Record<string, readonly string[]>> = {
  exfat: ["exfat", "exfat-fuse"],
  ntfs: ["ntfs3", "ntfs-3g"],
};
/** No program on it is run, and its files are this user's. Names are UTF-8. */
export const safeFlags = ["nosuid", "nodev", "noexec"];

export function optionsOf(driver: string, readOnly: boolean, owner: { readonly uid: number; readonly gid: number }): string {
  const own = `uid=${owner.uid},gid=${owner.gid},umask=022`;
  const special: Readonly<Record<string, string>> = {
    vfat: `${own},utf8=1${readOnly ? "" : ",flush"}`,
    exfat: own,
    "exfat-fuse": own,
    ntfs3: own,
    "ntfs-3g": own,
  };
  const more = special[driver];
  return `${readOnly ? "ro" : "rw"},${safeFlags.join(",")},noatime${more === undefined ? "" : `,${more}`}`;
}

/** The present mount of a block that is alive; the writable one where there are several. */
export async function mountOf(block: Block, machine: Machine): Promise<Mount | undefined> {
  const all = (await readMounts(machine.mountInfo)).filter(
    ({ device, from, root }) => root === "/" && (device === block.device || from === block.path),
  );
  return all.find(({ readOnly }) => !readOnly) ?? all.at(-1);
}

/** What is mounted at `dir`; on top where there are several. */
export async function mountAt(dir: string, machine: Machine): Promise<Mount | undefined> {
  return (await readMounts(machine.mountInfo)).findLast((mount) => mount.dir === dir);
}

export interface Wish {
  readonly block: Block;
  readonly readOnly: boolean;
  /** Where the configuration wants it. */
  readonly mountPoint?: string;
  /** Where it goes otherwise, by mount(8). */
  readonly ownDir: string;
  /** Notes that this program mounts at `mountPoint`; the helper has notes of its own. */
  readonly own?: OwnMounts;
}

/** Mounts it. Throws Fault "offline" with what is in the way and what to do. */
export async function mount(wish: Wish, machine: Machine): Promise<Mounted> {
  const { block } = wish;
  const stay = stayOf(block, machine.sys);
  if (stay === undefined) throw new Fault("offline", `${block.path} was pulled`);
  const why: string[] = [];
  // Read-only after a failure: a dirty or worn medium can often still be read.
  for (const readOnly of wish.readOnly || block.readOnly ? [true] : [false, true]) {
    const way = await mountBy({ ...wish, readOnly }, machine, why);
    if (way === undefined) continue;
    // Others may mount it at the same time.
    const at = way === "udisks2" ? await mountOf(block, machine) : await mountAt(dirOf(wish, way, machine), machine);
    if (at !== undefined) return { dir: at.dir, readOnly: at.readOnly, way, stay, dev: (await fs.stat(at.dir)).dev, device: at.device };
  }
  const all = [...new Set(why)].join("; ");
  const unclean =
    block.readOnly && /read-only/i.test(all)
      ? "; it was not unmounted cleanly, which is mended by writing: move the switch of the card once"
      : "";
  const mend = /bad superblock|structure needs cleaning|input\/output error/i.test(all)
    ? `; it may be damaged: "fsck -n ${block.path}" says what of it, and without "-n" repairs it`
    : "";
  throw new Fault("offline", `${block.path} cannot be mounted: ${all}${unclean}${mend}`);
}

function dirOf({ block, mountPoint, ownDir }: Wish, way: Way, { helper }: Machine): string {
  return mountPoint ?? (way === "helper" ? helperDir(nameOf(block), block.device, helper) : ownDir);
}

/** The way that worked; else `why` is told what each complained of. */
async function mountBy(wish: Wish, machine: Machine, why: string[]): Promise<Way | undefined> {
  const { block, mountPoint, readOnly } = wish;
  if (mountPoint === undefined) {
    const { code, complaint } = await machine.run("udisksctl", [
      ...["mount", "--no-user-interaction", "--block-device", block.path, "--options"],
      `${readOnly ? "ro" : "rw"},nosuid,nodev,noexec,noatime`,
    ]);
    if (code === 0) return "udisks2";
    // Not installed, or its service does not run.
    if (code !== null && !/connecting to the udisks daemon/i.test(complaint)) why.push(`udisks2: ${complaint}`);
  }
  if (machine.mayMount()) {
    const said = await mountHere(wish, machine);
    if (said === undefined) return "mount";
    why.push(said);
    return undefined;
  }
  const answer = await askHelper(machine.helper.socket, requestOf(wish));
  if (answer === undefined) return "helper";
  why.push(answer);
  return undefined;
}

function requestOf({ block, readOnly, mountPoint }: Wish): HelperRequest {
  return { do: "mount", device: block.path, readOnly, ...(mountPoint === undefined ? {} : { mountPoint }) };
}

/** By mount(8), in this process's name. undefined: done; else what is in the way. */
export async function mountHere(
  { block, mountPoint, ownDir, readOnly, own }: Wish,
  machine: Machine,
  owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 },
): Promise<string | undefined> {
  const dir = mountPoint ?? ownDir;
  const taken = await inTheWay(dir, machine);
  if (taken !== undefined) return taken;
  if (mountPoint !== undefined) await own?.note(mountPoint);
  const why: string[] = [];
  for (const driver of drivers[block.fsType ?? ""] ?? [block.fsType ?? "auto"]) {
    const { code, complaint } = await machine.run("mount", ["-t", driver, "-o", optionsOf(driver, readOnly, owner), block.path, dir]);
    if (code === 0) return undefined;
    why.push(complaint);
  }
  if (mountPoint !== undefined) await own?.forget(mountPoint);
  return why.join("; ");
}

/** Makes the directory where it is missing; why nothing can be mounted there. */
async function inTheWay(dir: string, machine: Machine): Promise<string | undefined> {
  const there = await mountAt(dir, machine);
  if (there !== undefined) return `${dir} is in use: ${there.from} is mounted there`;
  try {
    await fs.mkdir(dir, { recursive: true });
    if ((await fs.readdir(dir)).length > 0)
      return `${dir} is not empty: what is in it would be hidden; empty it, or choose another "mountPoint"`;
  } catch (error) {
    return `${dir} cannot be a mount point: ${error instanceof Error ? error.message : String(error)}`;
  }
  return undefined;
}

/** Where anybody has it mounted, also in part, or out of this process's sight; what nobody may tell this user is not in it. */
export async function placesOf({ path, device }: Block, machine: Machine): Promise<readonly string[]> {
  const seen = (await readMounts(machine.mountInfo)).filter((mount) => mount.device === device || mount.from === path);
  if (seen.length > 0) return seen.map(({ dir }) => dir);
  try {
    // The kernel's own word: who mounts has it for itself alone.
    await (await fs.open(path, constants.O_RDONLY | constants.O_EXCL)).close();
    return [];
  } catch (error) {
    return codeOf(error) === "EBUSY" ? ["a place that is not seen from here"] : [];
  }
}

/**
 * Ends a mount that this program made. `lazy`: its medium has gone; what is open on it stays broken. undefined: done, or something else is mounted there by now; else
 * why not ("busy" in it).
 */
export async function unmount({ dir, way, device }: Mounted, block: Block, lazy: boolean, machine: Machine): Promise<string | undefined> {
  const isThere = async () => (await mountAt(dir, machine))?.device === device;
  if (!(await isThere())) return undefined;
  if (way === "udisks2") {
    const { code, complaint } = await machine.run("udisksctl", [
      ...["unmount", "--no-user-interaction", "--block-device", block.path],
      ...(lazy ? ["--force"] : []),
    ]);
    // It takes away by itself what was pulled.
    if (code === 0 || !(await isThere())) return undefined;
    if (!machine.mayMount()) return complaint;
  }
  const why = machine.mayMount()
    ? await machine.run("umount", [...(lazy ? ["-l"] : []), dir]).then(({ code, complaint }) => (code === 0 ? undefined : complaint))
    : await askHelper(machine.helper.socket, { do: "unmount", dir, lazy });
  // Of what was pulled another device may have taken it away meanwhile (`sweep`).
  return why === undefined || !(await isThere()) ? undefined : why;
}

/** Whether what was mounted is mounted there still, and its medium is in. */
export async function isAlive({ dir, dev, stay }: Mounted, block: Block, machine: Machine): Promise<boolean> {
  if (stayOf(block, machine.sys) !== stay) return false;
  try {
    return (await fs.stat(dir)).dev === dev;
  } catch {
    // A dead file system has many words for it.
    return false;
  }
}

/** The mount of somebody else, or of ours before a kill: undefined where it is dead. `ours`: where this program mounts. */
export async function adopt(block: Block, ours: (dir: string) => boolean, machine: Machine): Promise<Mounted | undefined> {
  const at = await mountOf(block, machine);
  const stay = stayOf(block, machine.sys);
  if (at === undefined || stay === undefined) return undefined;
  try {
    await fs.access(join(at.dir, "."), constants.R_OK);
    const { dev } = await fs.stat(at.dir);
    return {
      dir: at.dir,
      readOnly: at.readOnly,
      way: ours(at.dir) ? (machine.mayMount() ? "mount" : "helper") : "found",
      stay,
      dev,
      device: at.device,
    };
  } catch (error) {
    const code = codeOf(error);
    if (code === "EACCES")
      throw new Fault("denied", `${block.path} is mounted at ${at.dir}, which this user may not read: allow it to, or unmount it`, {
        cause: error,
      });
    return undefined;
  }
}

/** Takes away the dead mounts that this program left behind, of disks that were pulled while it did not run. */
export async function sweep(ours: (dir: string) => boolean, machine: Machine, forget: (dir: string) => Promise<void>): Promise<void> {
  for (const { dir, device, from } of await readMounts(machine.mountInfo)) {
    if (!ours(dir)) continue;
    const alive = await fs.stat(dir).then(
      // A FUSE driver has a number of its own.
      () => stayOf({ path: from, device }, machine.sys) !== undefined || (device.startsWith("0:") && existsSync(from)),
      () => false,
    );
    if (alive) continue;
    if (machine.mayMount()) await machine.run("umount", ["-l", dir]);
    else await askHelper(machine.helper.socket, { do: "unmount", dir, lazy: true });
    await forget(dir);
  }
}
