/** Who keeps a file system from being unmounted, as far as this process may see: programs with something of it open, other mounts of it or below it. */
import { promises as fs } from "node:fs";
import { type Block } from "./blocks.js";
import type { Machine } from "./mounting.js";
import { readMounts } from "../../core/mounts.js";

const mostNamed = 5;

/** "less (process 4711), a mount at /mnt/x"; "" where nobody is seen. */
export async function holdersOf(dir: string, block: Block, { mountInfo }: Machine): Promise<string> {
  const below = (path: string) => path === dir || path.startsWith(`${dir}/`);
  const mounts = (await readMounts(mountInfo)).filter((one) => one.dir !== dir && (below(one.dir) || one.device === block.device));
  const found = mounts.map((one) => `a mount at ${one.dir}`);
  for (const pid of await fs.readdir("/proc")) {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid || !(await usedBy(pid)).some(below)) continue;
    const name = await fs.readFile(`/proc/${pid}/comm`, "utf8").catch(() => "?");
    found.push(`${name.trim()} (process ${pid})`);
  }
  const more = found.length > mostNamed ? ` and ${found.length - mostNamed} more` : "";
  return `${found.slice(0, mostNamed).join(", ")}${more}`;
}

/** What a process has open and where it stands; nothing of one that has ended, or that this user may not look at. */
async function usedBy(pid: string): Promise<string[]> {
  const open = await fs.readdir(`/proc/${pid}/fd`).catch(() => []);
  const links = ["cwd", "root", ...open.map((number) => `fd/${number}`)];
  return Promise.all(links.map((link) => fs.readlink(`/proc/${pid}/${link}`).catch(() => "")));
}
