/** Disks of the configuration: whether they are in, by which way they are mounted, and whether their file system can be read here. Nothing is mounted. */
import type { DeviceConfig } from "../../core/config.js";
import { reasonOf } from "../../core/retry.js";
import { type Block, matches, readBlocks, refusalOf, type Wanted, wantedText } from "../../plugins/disk/blocks.js";
import { helperPaths } from "../../plugins/disk/helper.js";
import { drivers } from "../../plugins/disk/mounting.js";
import { mountsIn } from "../../core/mounts.js";
import { type DiskConfig, wantedOf } from "../../plugins/disk/plugin.js";
import { type Finding, findingsOf } from "./finding.js";
import { groupName, isThere, statOf, textOf, type User, type View } from "../machine/view.js";

const finding = findingsOf("disks");
const bins = ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/local/bin"];
/** What brings a driver, where the kernel has none. */
const packages: Readonly<Record<string, string>> = {
  exfat: "exfat-fuse",
  ntfs: "ntfs-3g",
  f2fs: "f2fs-tools",
  btrfs: "btrfs-progs",
  xfs: "xfsprogs",
  hfsplus: "hfsprogs",
};

export interface DiskWanted {
  readonly name: string;
  readonly wanted: Wanted;
  readonly mountPoint?: string | undefined;
}

export function disksOf(devices: readonly DeviceConfig[]): DiskWanted[] {
  return devices.flatMap(({ name, type, options }) => {
    if (type !== "disk") return [];
    const given = options as DiskConfig;
    return [{ name, wanted: wantedOf(given), mountPoint: given.mountPoint }];
  });
}

export async function checkDisks(view: View, disks: readonly DiskWanted[], user: User): Promise<Finding[]> {
  if (disks.length === 0) return [];
  let blocks: Block[];
  try {
    blocks = await readBlocks(
      view.run,
      (dir) => dir.startsWith(`${helperPaths.disks}/`) || disks.some(({ mountPoint }) => mountPoint === dir),
    );
  } catch (error) {
    return [finding("unseen", "disks", reasonOf(error), "sudo apt install util-linux udev")];
  }
  const ways = await waysOf(view, user);
  return disks.flatMap((disk) => one(view, disk, blocks, ways, user));
}

function one(view: View, { name, wanted, mountPoint }: DiskWanted, blocks: readonly Block[], ways: Ways, user: User): Finding[] {
  const found: Finding[] = [];
  const usable = ways.there.filter((way) => way !== "udisks2" || mountPoint === undefined);
  const mounts = mountsIn(textOf(view, "/proc/self/mountinfo"));
  const inside = blocks.filter((block) => matches(block, wanted));
  const mounted = inside.every((block) => mounts.some(({ device, from }) => device === block.device || from === block.path));
  if (usable.length === 0 && !(inside.length > 0 && mounted))
    found.push(finding("bad", name, `${user.name} has no way to mount it: ${ways.lacking}`, ...ways.todo));
  if (inside.length === 0) {
    const others = blocks
      .filter(({ fsType, removable }) => fsType !== undefined && removable)
      .map(
        ({ path, uuid, label, fsType }) =>
          `${path} (${fsType ?? ""}, uuid ${uuid ?? "none"}${label === undefined ? "" : `, label "${label}"`})`,
      );
    const there =
      others.length === 0 ? "no other removable disk is in either" : `there ${others.length === 1 ? "is" : "are"} ${others.join(", ")}`;
    const rest = "any" in wanted ? "" : `; ${there}`;
    found.push(finding("warn", name, `${wantedText(wanted)}${rest}`, "lsblk -f"));
  }
  for (const block of inside) {
    const refused = refusalOf(block);
    if (refused !== undefined) {
      found.push(finding("bad", name, refused, "lsblk -f"));
      continue;
    }
    const lacks = driverLacking(view, block.fsType ?? "");
    if (lacks !== undefined && !mounts.some(({ from }) => from === block.path))
      found.push(finding("bad", name, `${block.path} has ${block.fsType ?? ""}, which nothing here can read`, ...lacks));
    else
      found.push(
        finding(
          "ok",
          name,
          `${block.path} is in (${block.fsType ?? ""})${block.readOnly ? ", write-protected by its switch" : ""}${mounted ? ", mounted" : usable.length === 0 ? "" : `, to be mounted by ${usable[0] ?? ""}`}`,
        ),
      );
  }
  return found;
}

interface Ways {
  readonly there: readonly string[];
  /** Why there is none. */
  readonly lacking: string;
  readonly todo: readonly string[];
}

/** In the order in which they are tried (`plugins/disk/mounting.ts`). */
async function waysOf(view: View, user: User): Promise<Ways> {
  const there: string[] = [];
  const { code } = await view.run("udisksctl", ["status"], 10_000);
  if (code === 0) there.push("udisks2");
  if (user.uid === 0) there.push("mount");
  const socket = statOf(view, helperPaths.socket);
  const allowed = socket !== undefined && (socket.uid === user.uid || user.groups.includes(socket.gid));
  if (allowed && user.uid !== 0) there.push("helper");
  if (socket !== undefined && !allowed) {
    const group = groupName(view, socket.gid);
    return {
      there,
      lacking: `it is not in the group ${group}, which may ask the helper`,
      todo: [`sudo usermod -aG ${group} ${user.name}`, "# log in again; a service: sudo systemctl restart filesync"],
    };
  }
  return {
    there,
    lacking: "it is not root, udisks2 does not run, and the helper neither",
    todo: [
      "sudo systemctl enable --now filesync-mount.socket",
      "# or: sudo apt install udisks2, with a rule that lets it (docs/disk-without-root.md)",
    ],
  };
}

/** What to type where neither the kernel nor a program has a driver of it. */
function driverLacking(view: View, fsType: string): readonly string[] | undefined {
  const names = drivers[fsType] ?? [fsType];
  const loaded = textOf(view, "/proc/filesystems")
    .split("\n")
    .map((line) => line.split("\t").at(-1));
  const modules = `/lib/modules/${textOf(view, "/proc/sys/kernel/osrelease").trim()}`;
  const known = `${textOf(view, `${modules}/modules.dep`)}\n${textOf(view, `${modules}/modules.builtin`)}`;
  const has = names.some(
    (name) =>
      loaded.includes(name) || new RegExp(`/${name}\\.ko`, "m").test(known) || bins.some((dir) => isThere(view, `${dir}/mount.${name}`)),
  );
  if (has) return undefined;
  const pack = packages[fsType];
  return pack === undefined ? [`sudo modprobe ${names[0] ?? fsType}`] : [`sudo apt install ${pack}`];
}
