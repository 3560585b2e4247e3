/** Room for the journal and the spool: bytes, names, a file system that may be written, a card that does not fail. */
import { promises as fs } from "node:fs";
import { join } from "node:path";
import type { Config } from "../../core/config.js";
import { faultOfErrno } from "../../core/errors.js";
import { mayWriteIn } from "../../core/fs.js";
import { shellWord, sizeText } from "../../core/text.js";
import { type Mount, mountsIn } from "../../core/mounts.js";
import { type Finding, findingsOf } from "./finding.js";
import { mayDo } from "../machine/rights.js";
import { journalTrouble, othersIn, strangeIn } from "../machine/state-dir.js";
import { at, isThere, nearest, realPath, statOf, textOf, type User, type View } from "../machine/view.js";

const finding = findingsOf("space");
const fewNames = 2000;
/** What the kernel says of a medium that fails (mmc, block, ext4, FAT). */
const failing =
  /(I\/O error|critical medium error|error -?\d+ (sending|transferring|whilst)|Timeout waiting for hardware|EXT4-fs error|EXT4-fs \(.*\): error|FAT-fs .*error|Remounting filesystem read-only|Card stuck)/i;

/** What statfs(2) tells of the disk; a test has its own. */
export type Figures = (dir: string) => Promise<{ bsize: number; bavail: number; blocks: number; files: number; ffree: number }>;

export async function checkSpace(
  view: View,
  { stateDir, spool: { keepFree, maxSize } }: Pick<Config, "stateDir" | "spool">,
  user: User,
  figures: Figures = (dir) => fs.statfs(dir),
): Promise<Finding[]> {
  const strange = strangeIn(at(view, stateDir));
  if (strange !== undefined) return [finding("bad", join(stateDir, strange.path), strange.words, `# ${strange.todo}`)];
  const found: Finding[] = [];
  const dir = nearest(view, stateDir);
  const mount = mountOf(view, dir);
  if (dir !== stateDir && !(await mayMake(view, dir, user)))
    found.push(
      finding(
        "bad",
        stateDir,
        `it is missing, and ${user.name} may not make it`,
        `sudo install -d -o ${user.name} -m 750 ${shellWord(stateDir)}`,
      ),
    );
  else if (dir === stateDir) found.push(...ownership(view, stateDir, user), ...contents(view, stateDir));
  const { bsize, bavail, blocks, files, ffree } = await figures(at(view, dir));
  const free = bavail * bsize;
  const big = `sudo du -xh --max-depth=2 ${shellWord(mount?.dir ?? "/")} | sort -h | tail`;
  if (mount?.readOnly === true)
    found.push(
      finding(
        "bad",
        stateDir,
        `its file system (${mount.from} at ${mount.dir}) is read-only: the kernel makes it so after errors of the card`,
        "sudo dmesg | grep -iE 'mmc|ext4|i/o error' | tail",
        `sudo mount -o remount,rw ${shellWord(mount.dir)}`,
        "# if it comes back: save what is on it, and take a new card",
      ),
    );
  if (files > 0 && ffree < fewNames)
    found.push(finding("bad", stateDir, `no names are left on its disk (${ffree} inodes): no file can be made`, `df -i ${shellWord(dir)}`));
  if (free <= keepFree)
    found.push(
      finding(
        "bad",
        stateDir,
        `${sizeText(free)} are free on its disk, where "spool.keepFree" leaves ${sizeText(keepFree)} free: nothing is pulled`,
        `df -h ${shellWord(dir)}`,
        big,
        '# or a smaller "spool.keepFree", or "stateDir" on another disk',
      ),
    );
  else if (free < 2 * keepFree)
    found.push(
      finding(
        "warn",
        stateDir,
        `${sizeText(free)} are free on its disk, ${sizeText(keepFree)} of them stay free`,
        `df -h ${shellWord(dir)}`,
        big,
      ),
    );
  if (maxSize + keepFree > blocks * bsize)
    found.push(
      finding(
        "warn",
        stateDir,
        `"spool.maxSize" is ${sizeText(maxSize)}, and its disk has ${sizeText(blocks * bsize)} in all: the disk is the bound`,
        `# for example "spool": { "maxSize": "${Math.max(1, Math.floor((blocks * bsize - keepFree) / 2 ** 31))}GiB" }`,
      ),
    );
  found.push(...(await kernelLog(view, mount)));
  if (!found.some(({ severity }) => severity === "bad" || severity === "warn"))
    found.push(
      finding(
        "ok",
        stateDir,
        `${sizeText(free)} free, of which ${sizeText(keepFree)} stay free; the spool takes at most ${sizeText(maxSize)}`,
      ),
    );
  return found;
}

async function mayMake(view: View, dir: string, user: User): Promise<boolean> {
  if (user.uid === 0) return true;
  if (user.uid === view.me.uid)
    return mayWriteIn(at(view, dir)).then(
      () => true,
      () => false,
    );
  return mayDo(view, dir, user, 0o3) === true;
}

function ownership(view: View, stateDir: string, user: User): Finding[] {
  const stat = statOf(view, stateDir);
  if (stat === undefined || user.uid === 0 || stat.uid === user.uid) return [];
  return [
    finding(
      "bad",
      stateDir,
      `it belongs to the user with id ${stat.uid}, and the daemon is ${user.name}`,
      `sudo chown -R ${user.name} ${shellWord(stateDir)}`,
    ),
  ];
}

/** What in it keeps the daemon from beginning. */
function contents(view: View, stateDir: string): Finding[] {
  try {
    const other = othersIn(at(view, stateDir));
    if (other !== undefined)
      return [
        finding(
          "bad",
          join(stateDir, other.path),
          `it belongs to the user with id ${other.uid}, and its directory to ${other.owner}: the daemon may not be able to use it`,
          `sudo chown -R ${other.owner} ${shellWord(stateDir)}`,
        ),
      ];
    const path = join(stateDir, "journal.db");
    const trouble = isThere(view, path) ? journalTrouble(at(view, path)) : undefined;
    return trouble === undefined ? [] : [finding("bad", path, trouble)];
  } catch (error) {
    return [finding("unseen", stateDir, faultOfErrno(error, "what is in it").message, "sudo filesync doctor")];
  }
}

/** The file system that a directory is on: the one whose mount point is the longest part of its path, and of these the last. */
export function mountOf(view: View, dir: string): Mount | undefined {
  const path = realPath(view, dir) ?? dir;
  const holds = mountsIn(textOf(view, "/proc/self/mountinfo")).filter(
    (one) => one.dir === "/" || path === one.dir || path.startsWith(`${one.dir}/`),
  );
  return holds.reduce<Mount | undefined>((best, one) => (best === undefined || one.dir.length >= best.dir.length ? one : best), undefined);
}

async function kernelLog(view: View, mount: Mount | undefined): Promise<Finding[]> {
  // "/dev/mmcblk0p2" is a part of mmcblk0, "/dev/sda1" of sda.
  const disk = /^\/dev\/(mmcblk\d+|nvme\d+n\d+|[sv]d[a-z]+)/.exec(mount?.from ?? "")?.[1];
  if (disk === undefined) return [];
  const host = disk.replace(/^mmcblk(\d+)$/, "mmc$1");
  const { code, out, complaint } = await view.run("dmesg", ["--color=never"], 10_000);
  if (code !== 0)
    return [finding("unseen", disk, `whether the kernel complains of this disk: ${complaint}`, `sudo dmesg | grep -E '${disk}|${host}:'`)];
  const lines = out.split("\n").filter((line) => (line.includes(disk) || line.includes(`${host}:`)) && failing.test(line));
  const last = lines.at(-1);
  if (last === undefined) return [];
  return [
    finding(
      "bad",
      disk,
      `the kernel complained ${lines.length} times of this disk since it started, last: ${last.trim()}`,
      `sudo dmesg | grep -E '${disk}|${host}:' | tail`,
      "# the card or its supply fails: save what is on it, and take a new one",
    ),
  ];
}
