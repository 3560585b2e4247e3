/**
 * The file systems that this machine has on its disks, as `lsblk` (util-linux) tells them from udev's database, and which of them a device of the
 * configuration means.
 */
import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { codeOf } from "../../core/errors.js";
import type { RunCommand } from "../../core/program.js";

export interface Block {
  /** "/dev/sda1" */
  readonly path: string;
  /** `major:minor`. */
  readonly device: string;
  readonly type: string;
  readonly fsType?: string;
  readonly uuid?: string;
  readonly partUuid?: string;
  readonly label?: string;
  readonly bytes: number;
  /** Of the stick or the card, where it tells one; a reader of cards tells its own. */
  readonly serial?: string;
  /** The write-protect switch. */
  readonly readOnly: boolean;
  /** It can be taken out, and holds nothing that this system runs from. */
  readonly removable: boolean;
  /** It has partitions, or is what others lie on. */
  readonly divided: boolean;
}

const flag = v.pipe(
  v.union([v.boolean(), v.string(), v.number()]),
  v.transform((value) => value === true || value === "1" || value === 1),
);
const text = v.optional(v.nullable(v.string()));
const row = v.object({
  path: v.string(),
  kname: v.string(),
  pkname: text,
  "maj:min": v.pipe(
    v.string(),
    v.transform((value) => value.trim()),
  ),
  type: v.string(),
  fstype: text,
  uuid: text,
  partuuid: text,
  label: text,
  size: v.pipe(v.union([v.number(), v.string()]), v.transform(Number)),
  ro: flag,
  rm: flag,
  hotplug: flag,
  serial: text,
  mountpoint: text,
  mountpoints: v.optional(v.nullable(v.array(v.nullable(v.string())))),
});
type Row = v.InferOutput<typeof row>;
const listing = v.object({ blockdevices: v.array(row) });
const columns = "PATH,KNAME,PKNAME,MAJ:MIN,TYPE,FSTYPE,UUID,PARTUUID,LABEL,SIZE,RO,RM,HOTPLUG,SERIAL,MOUNTPOINT";

/** Everything that lsblk knows; `own`: where this program mounts disks. Throws an error whose message says why that cannot be had. */
export async function readBlocks(run: RunCommand, own: (dir: string) => boolean, udev = "/run/udev/control"): Promise<Block[]> {
  const list = (what: string) => run("lsblk", ["--json", "--bytes", "--list", "--output", what], 10_000);
  let { code, out, complaint } = await list(`${columns},MOUNTPOINTS`);
  // Before util-linux 2.37.
  if (code !== 0 && complaint.includes("MOUNTPOINTS")) ({ code, out, complaint } = await list(columns));
  if (code !== 0) throw new Error(`lsblk cannot list the disks: ${complaint}`);
  const blocks = blocksIn(out, own);
  // It lists all disks, and has not one file system on any: no disk would ever be found to be the one that is meant.
  if (blocks.length > 0 && blocks.every(({ fsType }) => fsType === undefined) && !existsSync(udev))
    throw new Error("lsblk cannot tell what is on the disks: udev, which tells it that, does not run here");
  return blocks;
}

export function blocksIn(json: string, own: (dir: string) => boolean): Block[] {
  const { blockdevices: rows } = v.parse(listing, JSON.parse(json));
  const byName = new Map(rows.map((one) => [one.kname, one]));
  const wholeOf = (one: Row): Row => {
    const parent = one.pkname === null || one.pkname === undefined || one.pkname === one.kname ? undefined : byName.get(one.pkname);
    return parent === undefined ? one : wholeOf(parent);
  };
  // Of several mounts "mountpoint" is one: of what is bound below /mnt too, that.
  const system = ({ mountpoint, mountpoints }: Row) =>
    [mountpoint, ...(mountpoints ?? [])].some((dir) => typeof dir === "string" && !own(dir) && isSystem(dir));
  const inUse = new Set(rows.filter(system).map((one) => wholeOf(one).kname));
  const parents = new Set(rows.map(({ pkname }) => pkname));
  return rows.map((one) => {
    const whole = wholeOf(one);
    const serial = one.serial ?? whole.serial ?? undefined;
    return {
      path: one.path,
      device: one["maj:min"],
      type: one.type,
      ...given("fsType", one.fstype),
      ...given("uuid", one.uuid),
      ...given("partUuid", one.partuuid),
      ...given("label", one.label),
      bytes: one.size,
      ...given("serial", serial),
      readOnly: one.ro,
      removable: (whole.rm || whole.hotplug) && !inUse.has(whole.kname),
      divided: parents.has(one.kname),
    };
  });
}

function given<K extends string>(key: K, value: string | null | undefined): Partial<Record<K, string>> {
  return value === null || value === undefined || value === "" ? {} : ({ [key]: value } as Record<K, string>);
}

/** Where removable media are mounted by people and desktops; a card that is mounted elsewhere (/, /boot, swap) is the system's own. So is what overlayroot lays over another as "/". */
export function isSystem(mountPoint: string): boolean {
  return /^\/media\/root-r[ow](\/|$)/.test(mountPoint) || !/^\/(media|mnt|run\/media|run\/filesync)(\/|$)/.test(mountPoint);
}

/** What a device of the configuration asks for. */
export type Wanted = { readonly uuid: string } | { readonly label: string } | { readonly any: true };

export function wantedText(wanted: Wanted): string {
  if ("uuid" in wanted) return `no disk with the UUID ${wanted.uuid} is plugged in`;
  if ("label" in wanted) return `no disk with the label "${wanted.label}" is plugged in`;
  return "no removable disk is plugged in";
}

export function matches(block: Block, wanted: Wanted): boolean {
  if ("uuid" in wanted) return block.uuid !== undefined && bare(block.uuid) === bare(wanted.uuid);
  if ("label" in wanted) return block.label === wanted.label;
  if (!block.removable || block.type === "rom") return false;
  // Of a disk with partitions only those are file systems. One that holds nothing at all is told of; an empty slot of a reader is none.
  return block.fsType !== undefined || (!block.divided && block.bytes > 0 && !isBuiltIn(block.path));
}

/** Areas of a soldered eMMC that hold no file system, and are never plugged. */
function isBuiltIn(path: string): boolean {
  return /mmcblk\d+(boot|rpmb|gp)\d*$/.test(path);
}

/** FAT's "5C3D-DD9E" is written with and without the dash, in either case. */
export function bare(uuid: string): string {
  return uuid.replaceAll("-", "").toLowerCase();
}

const containers: Readonly<Record<string, string>> = {
  crypto_LUKS: "it is encrypted (LUKS): unlock it, then it is found by the UUID of the file system in it",
  BitLocker: "it is encrypted (BitLocker): unlock it with dislocker or cryptsetup first",
  swap: "it is swap space, no file system",
  LVM2_member: "it is a part of a volume group (LVM): name the UUID of the file system in it",
  linux_raid_member: "it is a part of a RAID: name the UUID of the file system in it",
  zfs_member: "it is a part of a ZFS pool, which is not mounted by this program",
};

/** Why a block that matches can be no medium; undefined when it can. */
export function refusalOf({ path, fsType }: Block): string | undefined {
  if (fsType === undefined)
    return `${path} has no file system that is known here: it is new, broken, or of an unknown kind ("lsblk -f" shows what is seen)`;
  const why = containers[fsType];
  return why === undefined ? undefined : `${path}: ${why}`;
}

/** `major:minor` of the block device at `path`; undefined where none is. */
export function deviceAt(path: string): string | undefined {
  const node = statSync(path, { throwIfNoEntry: false });
  if (node?.isBlockDevice() !== true) return undefined;
  return `${(node.rdev >> 8) & 0xfff}:${(node.rdev & 0xff) | ((node.rdev >> 12) & 0xfff00)}`;
}

/**
 * Names this very stay of a medium: another number after each change of the medium or the plug, also where the kernel gives the same name again. Of
 * a block that has gone: undefined.
 */
export function stayOf({ path, device }: Pick<Block, "path" | "device">, sys: string): string | undefined {
  // udev takes the node away first.
  if (deviceAt(path) !== device) return undefined;
  const at = join(sys, "dev/block", device);
  // It is a link, and what is above it is what is above where that leads: no path that `join` makes shorter.
  for (const from of ["diskseq", "../diskseq", "dev"]) {
    try {
      return `${device}#${readFileSync(`${at}/${from}`, "utf8").trim()}`;
    } catch (error) {
      // A partition has its disk's; kernels before 5.15 have none.
      if (!["ENOENT", "ENODEV"].includes(codeOf(error))) throw error;
    }
  }
  return undefined;
}
