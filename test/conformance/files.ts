/** Files below a directory of this machine, as the suites look at what a device did there. */
import { promises as fs } from "node:fs";
import { dirname, join } from "node:path";
import { bytesFromName } from "../../core/names.js";
import type { TreePromises, Upload } from "../../core/plugin.js";
import { syncedKey } from "../../plugins/local/marks.js";

/** Paths of all files below `dir`, relative to it. */
export async function filesBelow(dir: string): Promise<string[]> {
  const found = await fs.readdir(dir, { recursive: true, withFileTypes: true });
  return found
    .filter((it) => !it.isDirectory())
    .map((it) => join(it.parentPath, it.name).slice(dir.length + 1))
    .sort();
}

async function orUndefined<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof Error && "code" in error && (error.code === "ENOENT" || error.code === "ENOTDIR")) return undefined;
    throw error;
  }
}

/** Files below a directory of this machine by their path in core, as both suites want them. */
export function files(dir: string, disk: (path: string) => Buffer) {
  const at = (path: string): Buffer => Buffer.concat([Buffer.from(`${dir}/`), disk(path)]);
  const own = async (path: string): Promise<void> => {
    // Another user's server must be able to change what the test puts there.
    const { uid, gid } = await fs.stat(dir);
    for (let p = path; p !== "."; p = dirname(p)) await fs.lchown(at(p), uid, gid);
  };
  const parents = (path: string): Promise<unknown> =>
    dirname(path) === "." ? Promise.resolve() : fs.mkdir(at(dirname(path)), { recursive: true });
  return {
    read: (path: string) => orUndefined(fs.readFile(at(path))),
    size: async (path: string) => (await orUndefined(fs.stat(at(path))))?.size,
    modifiedMs: async (path: string) => (await fs.stat(at(path))).mtimeMs,
    remove: (path: string) => fs.rm(at(path)),
    append: (path: string, content: Buffer) => fs.appendFile(at(path), content),
    list: () => filesBelow(dir),
    put: async (path: string, content: Buffer): Promise<void> => {
      await parents(path);
      await fs.writeFile(at(path), content);
      await own(path);
    },
    link: async (path: string, to: string): Promise<void> => {
      await parents(path);
      await fs.symlink(to, at(path));
    },
    sparse: async (path: string, size: number): Promise<void> => {
      await parents(path);
      await fs.writeFile(at(path), "");
      await fs.truncate(at(path), size);
      await own(path);
    },
  };
}

/** Names of the clauses that a FAT or exFAT has no room for, each with the reason. */
export function notOn(fileSystem: "FAT" | "exFAT"): Record<string, string> {
  const taken = `${fileSystem} takes none of " * / : < > ? \\ | and no control character`;
  return {
    [`it's "quoted" \\ here.bin`]: taken,
    "a*?[b]{c,d}~$HOME.bin": taken,
    "100%41 & #1;a=b+c|d.bin": taken,
    "line\u201b0Abreak.bin": taken,
  };
}

const notOnExfat = {
  ...notOn("exFAT"),
  "a -> b.bin": 'exFAT takes no ">"',
  "caf\u201bE9.bin": "exFAT keeps names as UTF-16, and loses other bytes",
};

/** The harness of a device whose root is the directory `dir` on a medium that keeps names as bytes, or on exFAT. */
export function onMedium(dir: string, exfat: boolean) {
  const { sparse, link, ...rest } = files(dir, bytesFromName);
  const promises: TreePromises = exfat ? { exclusive: "directories", rmdirIsSafe: true } : { exclusive: "names", rmdirIsSafe: true };
  return {
    ...rest,
    promises,
    // exFAT has neither sparse files nor links.
    ...(exfat ? { refuses: notOnExfat } : { sparse, link }),
    vouch: (upload: Upload, bytes: number) => upload.memo.set(syncedKey, bytes),
    secrets: [],
  };
}
