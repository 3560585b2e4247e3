/** What is on a medium while it is mounted, through its directory held open. */
import { constants, promises as fs } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { EMPTY } from "../../core/rxjs.js";
import { Fault, faultOfErrno, isFault } from "../../core/errors.js";
import type { FileThread } from "../../core/file-thread.js";
import { expectNoLink } from "../local/place.js";
import { LocalSource } from "../local/source.js";
import { LocalTarget } from "../local/target.js";
import { LocalTree } from "../local/tree.js";
import type { Block } from "./blocks.js";
import type { Looks } from "./media.js";
import type { Mounted } from "./mounting.js";
import { sampleOf } from "./sample.js";

/** What is on it, while somebody has a lease. */
export interface Content {
  /** The mounted directory, held open: what is done below it never lands in the directory that the mount hid, whenever the mount goes. */
  readonly held: FileHandle;
  readonly root: string;
  readonly source: LocalSource;
  readonly target: LocalTarget;
  readonly tree: LocalTree;
}

/** Throws "offline" where it is mounted there no more, "denied" where `root` leads out of it; the rest is an error of the medium's. */
export async function openContent({ dir, dev, readOnly }: Mounted, block: Block, root: string, files: FileThread): Promise<Content> {
  let held: FileHandle;
  try {
    held = await fs.open(dir, constants.O_RDONLY | constants.O_DIRECTORY);
  } catch (error) {
    throw faultOfErrno(error, `cannot open ${dir}`);
  }
  try {
    if ((await held.stat()).dev !== dev) throw new Fault("offline", `${block.path} is mounted at ${dir} no more`);
    await expectRoot(held, dir, root, block);
  } catch (error) {
    await held.close();
    throw error;
  }
  const at = join(`/proc/self/fd/${held.fd}`, root);
  // What was written and not synced before it was unmounted or pulled is not known to be there: a new target knows nothing of it.
  const source = new LocalSource({ dir: at, inPlace: false, create: false }, EMPTY, files);
  const target = new LocalTarget({ dir: at, create: !readOnly });
  return { held, root: at, source, target, tree: new LocalTree({ dir: at, create: !readOnly }, files, source, target) };
}

async function expectRoot({ fd }: FileHandle, dir: string, root: string, block: Block): Promise<void> {
  const top = `/proc/self/fd/${fd}`;
  try {
    await expectNoLink(top, `${root}/`.replace(/^\/+/, ""));
  } catch (error) {
    if (!isFault(error, "rejected")) throw error;
    throw new Fault("denied", `the root "${root}" on ${block.path} leads out of it: ${error.message.replaceAll(top, dir)}`);
  }
}

/** For who recognises it. `expectToStay`: that an error is not of a medium that is being pulled; throws where it is. */
export function looksIn({ root, tree }: Content, expectToStay: () => Promise<void>): Looks {
  let stays = false;
  return {
    stat: async (path) => {
      try {
        return await tree.stat(path);
      } catch (error) {
        if (isFault(error, "offline")) throw error;
        if (!stays) await expectToStay();
        stays = true;
        // A directory that cannot be read.
        return undefined;
      }
    },
    sample: (path, size) => sampleOf(root, path, size),
  };
}

/** Whether the device's directory is on it. */
export async function hasRoot({ root }: Content): Promise<boolean> {
  try {
    return (await fs.stat(root)).isDirectory();
  } catch (error) {
    const fault = faultOfErrno(error, `cannot look at ${root}`);
    if (fault.kind === "missing") return false;
    throw fault;
  }
}
