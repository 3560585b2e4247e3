/** What the helper mounts, and where: the rules alone. What is asked is believed in nothing. */
import * as v from "valibot";
import { bare, type Block, isSystem, refusalOf } from "./blocks.js";
import type { HelperRequest } from "./helper.js";

const path = v.pipe(
  v.string(),
  v.maxLength(1024),
  // Neither "..", nor a name that a program could take for something else.
  v.check((text) => /^(\/[^/\p{Cc}]+)+$/u.test(text) && !text.split("/").some((name) => name === "." || name === "..")),
);
const schema = v.variant("do", [
  v.strictObject({ do: v.literal("mount"), device: path, readOnly: v.boolean(), mountPoint: v.optional(path) }),
  v.strictObject({ do: v.literal("unmount"), dir: path, lazy: v.boolean() }),
]);

/** The request in a line; undefined where it is none. */
export function requestIn(line: string): HelperRequest | undefined {
  let json: unknown;
  try {
    json = JSON.parse(line);
  } catch {
    return undefined;
  }
  const { success, output } = v.safeParse(schema, json);
  if (!success) return undefined;
  if (output.do === "unmount") return output;
  const { mountPoint, ...rest } = output;
  return mountPoint === undefined ? rest : { ...rest, mountPoint };
}

/**
 * Who asked: the last part of the name that systemd gives the instance of a connection is the peer's user as the kernel says it ("7-1234-998";
 * socket.c, instance_from_socket). undefined: it is not known.
 */
export function askerIn(instance: string): number | undefined {
  const [, uid] = /^\d+(?:-\d+(?:_\d+)?)+-(\d+)$/.exec(instance) ?? [];
  return uid === undefined ? undefined : Number(uid);
}

/** Something that the system has in use. */
export interface Use {
  /** `major:minor` */
  readonly device: string;
  /** Of the whole disks below it. */
  readonly disks: readonly string[];
  /** Where it is mounted; undefined: it is swap. */
  readonly dir?: string;
}

export interface Facts {
  readonly uses: readonly Use[];
  /** What fstab names: "8:1", 'UUID=…', 'LABEL=…', 'PARTUUID=…'. */
  readonly fstab: readonly string[];
  /** The helper mounted there. */
  readonly own: (dir: string) => boolean;
  /** UUIDs of file systems on fixed disks that the administrator allows. */
  readonly fixed: readonly string[];
}

/** Why nobody may have what has this number; undefined where its use is no hindrance. */
export function useOf({ device, disks }: Pick<Use, "device" | "disks">, name: string, { uses, fstab, own }: Facts): string | undefined {
  const same = uses.find((use) => use.device === device);
  if (same !== undefined) return same.dir === undefined ? `${name} is swap space` : `${name} is mounted already, at ${same.dir}`;
  const system = uses.find(
    (use) => (use.dir === undefined || (!own(use.dir) && isSystem(use.dir))) && use.disks.some((one) => disks.includes(one)),
  );
  if (system !== undefined)
    return `${name} is on a disk that this system runs from (${system.dir ?? "swap"}): it is never mounted for a service`;
  return fstab.includes(device) ? inFstab(name) : undefined;
}

/** Why this file system is not mounted for a service; undefined where it is. */
export function refusalFor(block: Block, { fstab, fixed }: Pick<Facts, "fstab" | "fixed">): string | undefined {
  const none = refusalOf(block);
  if (none !== undefined) return none;
  const { path: name, fsType = "", uuid } = block;
  if (!mountable.includes(fsType)) return `${name} has a file system that is not mounted for a service: ${fsType}`;
  if (fstab.some((one) => means(one, block))) return inFstab(name);
  if (block.removable || (uuid !== undefined && fixed.some((one) => bare(one) === bare(uuid)))) return undefined;
  return (
    `${name} is on a fixed disk: put its UUID${uuid === undefined ? "" : ` (${uuid})`} into FILESYNC_MOUNT_FIXED ` +
    `("systemctl edit filesync-mount@.service"), or into /etc/fstab`
  );
}

const inFstab = (name: string) => `${name} is in /etc/fstab, which says who mounts it: mount it by that, and it is used as it is`;

/** What drivers of the kernel or their stand-ins read, and libblkid knows for sure. */
const mountable = ["vfat", "exfat", "ntfs", "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "udf", "iso9660", "hfsplus"];

/** Whether a line of fstab names this block by a tag. */
function means(source: string, { uuid, partUuid, label }: Block): boolean {
  const [, tag, value = ""] = /^(\w+)="?([^"]*)"?$/.exec(source) ?? [];
  if (tag === "UUID") return uuid !== undefined && bare(value) === bare(uuid);
  if (tag === "PARTUUID") return partUuid?.toLowerCase() === value.toLowerCase();
  return tag === "LABEL" && label === value;
}

/** The sources that fstab names, as they stand there. */
export function sourcesIn(fstab: string): string[] {
  return fstab.split("\n").flatMap((line) => {
    const [source = ""] = line.trim().split(/\s+/);
    return source === "" || source.startsWith("#")
      ? []
      : [source.replaceAll(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))];
  });
}

/** Where a `mountPoint` may be: below one of these. */
const places = ["/mnt", "/media", "/srv"];

/** Why nothing is mounted at `dir`, whatever is there; undefined where it may be. */
export function placeRefused(dir: string): string | undefined {
  return places.some((place) => dir.startsWith(`${place}/`))
    ? undefined
    : `${dir} cannot be a mount point for a service: choose a directory below ${places.join(", ")}, or leave "mountPoint" out`;
}
