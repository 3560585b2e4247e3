/** Disks that are plugged in and can be taken out, as sources. Nothing is mounted for it. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { sizeText } from "../../core/text.js";
import { type Block, readBlocks, refusalOf } from "../../plugins/disk/blocks.js";
import { helperPaths } from "../../plugins/disk/helper.js";
import { mountsIn } from "../../core/mounts.js";
import { at, textOf, type View } from "../machine/view.js";

export interface Disk {
  readonly uuid: string;
  readonly label?: string;
  /** For a person: /dev/sda1 (exfat, "FLIR", 64 GB). */
  readonly text: string;
  /** Whether it has a directory DCIM, as cameras make it; undefined: it is not mounted, so nobody knows. */
  readonly photos: boolean | undefined;
}

/** Throws an error whose message says why they cannot be listed. */
export async function findDisks(view: View): Promise<Disk[]> {
  const blocks = await readBlocks(view.run, (dir) => dir.startsWith(`${helperPaths.disks}/`));
  const mounts = mountsIn(textOf(view, "/proc/self/mountinfo"));
  return blocks.flatMap((block) => {
    const { uuid, label, path, fsType = "", bytes } = block;
    if (!isMedium(block) || uuid === undefined) return [];
    const mount = mounts.find(({ device, from }) => device === block.device || from === path);
    const named = label === undefined ? "" : `, "${label}"`;
    return [
      {
        uuid,
        ...(label === undefined ? {} : { label }),
        text: `${path} (${fsType}${named}, ${sizeText(bytes)})`,
        photos: mount === undefined ? undefined : existsSync(at(view, join(mount.dir, "DCIM"))),
      },
    ];
  });
}

function isMedium(block: Block): boolean {
  return block.removable && block.type !== "rom" && block.fsType !== undefined && refusalOf(block) === undefined;
}
