/**
 * The helper that mounts, on its own side (`filesync mount-helper`): root, for one question of a user who is trusted in nothing. It mounts only file
 * systems that are mounted nowhere and belong to nothing of the system, never with programs or devices, below its own directory or in an empty one
 * that nobody but root can exchange; it unmounts only what it mounted.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { constants, existsSync, lstatSync, promises as fs, readdirSync, readFileSync, realpathSync } from "node:fs";
import { dirname, join } from "node:path";
import { codeOf } from "../../core/errors.js";
import { type Block, deviceAt, readBlocks } from "./blocks.js";
import { type HelperAnswer, helperDir, type HelperRequest, isHelpers, noteOf, shortOf } from "./helper.js";
import { askerIn, type Facts, placeRefused, refusalFor, requestIn, sourcesIn, type Use, useOf } from "./helper-rules.js";
import { nameOf } from "./media.js";
import { type Machine, mountAt, mountHere, safeFlags } from "./mounting.js";
import { readMounts } from "../../core/mounts.js";

export interface HelperGiven {
  /** The service's user, by name or number: it alone may ask, and has what is mounted. */
  readonly user: string;
  /** The name that systemd gives the connection. */
  readonly instance: string;
  /** UUIDs of file systems on fixed disks that are mounted all the same. */
  readonly fixed: readonly string[];
}

/** An answer that is no. */
class Refused extends Error {}

/** Does what the line asks. Never throws; `done`: what was changed. */
export async function answerTo(line: string, given: HelperGiven, machine: Machine): Promise<{ answer: HelperAnswer; done?: string }> {
  try {
    const owner = await ownerOf(given.user, machine);
    if (askerIn(given.instance) !== owner.uid) throw new Refused(`only the user ${given.user} may ask the helper that mounts`);
    const request = requestIn(line);
    if (request === undefined) throw new Refused("this is no request to the helper that mounts; do its version and the service's differ?");
    await prepare(machine);
    const done = await (request.do === "mount" ? mountFor(request, given, owner, machine) : unmountFor(request, machine));
    return { answer: { ok: true }, done };
  } catch (error) {
    return { answer: { error: error instanceof Error ? error.message : String(error) } };
  }
}

async function ownerOf(user: string, { run }: Machine): Promise<{ uid: number; gid: number }> {
  const { code, out } = user === "" ? { code: null, out: "" } : await run("getent", ["passwd", user], 10_000);
  const [, , uid, gid] = out.trim().split(":");
  if (code !== 0 || uid === undefined || gid === undefined)
    throw new Refused(
      `the helper that mounts knows no user "${user}": FILESYNC_MOUNT_USER in filesync-mount@.service names the service's user`,
    );
  return { uid: Number(uid), gid: Number(gid) };
}

type MountRequest = HelperRequest & { readonly do: "mount" };

async function mountFor(asked: MountRequest, given: HelperGiven, owner: { uid: number; gid: number }, machine: Machine): Promise<string> {
  const { path, device } = nodeOf(asked.device);
  const { mountPoint, readOnly } = asked;
  return locked(device, machine, async () => {
    const block = await blockOf(path, device, given, machine);
    const ownDir = helperDir(nameOf(block), device, machine.helper);
    const dir = mountPoint ?? ownDir;
    // Before there is a lock of its name, which stays.
    if (mountPoint !== undefined) await expectPlace(dir, true, machine);
    return locked(dir, machine, async () => {
      await expectPlace(dir, mountPoint !== undefined, machine);
      // Before it is mounted: what a kill leaves is known to be ours.
      if (mountPoint !== undefined) await fs.writeFile(noteOf(dir, machine.helper), block.path);
      const wish = { block, readOnly, ownDir, ...(mountPoint === undefined ? {} : { mountPoint }) };
      const why = (await mountHere(wish, machine, owner)) ?? (await unsafe(dir, machine));
      if (why !== undefined) {
        await forget(dir, machine);
        throw new Refused(why);
      }
      return `mounted ${path} at ${dir}${readOnly ? ", read-only" : ""}`;
    });
  });
}

/** The node itself, whatever link was given. Who asks learns of nothing else whether it is there. */
function nodeOf(asked: string): { path: string; device: string } {
  const path = existsSync(asked) ? realpathSync(asked) : "";
  const device = path.startsWith("/dev/") ? deviceAt(path) : undefined;
  if (device === undefined) throw new Refused(`${asked} is not there, or no block device below /dev`);
  return { path, device };
}

async function blockOf(path: string, device: string, { fixed }: HelperGiven, machine: Machine): Promise<Block> {
  const own = (dir: string) => isHelpers(dir, machine.helper);
  const facts: Facts = { uses: await usesOf(machine), fstab: await fstabOf(), own, fixed };
  const use = useOf({ device, disks: disksOf(device, machine.sys) }, path, facts);
  if (use !== undefined) throw new Refused(use);
  const block = (await readBlocks(machine.run, own)).find((one) => one.device === device);
  if (block === undefined) throw new Refused(`lsblk does not list ${path}`);
  const refusal = refusalFor(block, facts);
  if (refusal !== undefined) throw new Refused(refusal);
  await expectIdle(path);
  return { ...block, path };
}

async function usesOf(machine: Machine): Promise<Use[]> {
  const use = (device: string, dir?: string): Use => ({
    device,
    disks: disksOf(device, machine.sys),
    ...(dir === undefined ? {} : { dir }),
  });
  const mounts = (await readMounts(machine.mountInfo)).map(({ device, from, dir }) =>
    use((from.startsWith("/") ? deviceAt(from) : undefined) ?? device, dir),
  );
  const swaps = sourcesIn(await fs.readFile("/proc/swaps", "utf8")).flatMap((path) => deviceAt(path) ?? []);
  return [...mounts, ...swaps.map((device) => use(device))];
}

async function fstabOf(): Promise<string[]> {
  if (!existsSync("/etc/fstab")) return [];
  return sourcesIn(await fs.readFile("/etc/fstab", "utf8")).map((source) => {
    const named = source.replace(/^PARTLABEL="?([^"]*)"?$/, "/dev/disk/by-partlabel/$1");
    return (named.startsWith("/dev/") ? deviceAt(named) : undefined) ?? source;
  });
}

/** The whole disks below a block device: of a partition one, of a volume those that it lies on. None of what is no disk. */
function disksOf(device: string, sys: string): string[] {
  const link = join(sys, "dev/block", device);
  if (!existsSync(link)) return [];
  const at = realpathSync(link);
  const deviceIn = (dir: string) => readFileSync(join(dir, "dev"), "utf8").trim();
  if (existsSync(join(at, "partition"))) return disksOf(deviceIn(dirname(at)), sys);
  const slaves = existsSync(join(at, "slaves")) ? readdirSync(join(at, "slaves")) : [];
  return slaves.length === 0 ? [device] : slaves.flatMap((name) => disksOf(deviceIn(join(at, "slaves", name)), sys));
}

/** The kernel's own word that nobody has it: another container's mount, a volume group or a RAID holds it too. */
async function expectIdle(path: string): Promise<void> {
  try {
    await (await fs.open(path, constants.O_RDONLY | constants.O_EXCL)).close();
  } catch (error) {
    if (codeOf(error) === "EBUSY") throw new Refused(`${path} is in use by something else`);
    throw error;
  }
}

/** Throws where nothing is mounted at `dir`, of its own or the one that was asked for. Whether it is empty is looked at by who mounts. */
async function expectPlace(dir: string, isAsked: boolean, machine: Machine): Promise<void> {
  if (isAsked) {
    const refused = placeRefused(dir);
    if (refused !== undefined) throw new Refused(refused);
    const stat = await fs.lstat(dir).catch(() => undefined);
    if (stat?.isDirectory() !== true) throw new Refused(`${dir} is no directory: make it`);
    // What a disk has in it may be a link by the time that it is mounted on.
    const below = (await readMounts(machine.mountInfo)).find((one) => dir.startsWith(`${one.dir}/`) && isHelpers(one.dir, machine.helper));
    if (below !== undefined) throw new Refused(`${dir} is on a disk that can be taken out: choose a directory of this system`);
    // Before its note is written: the note of another mount stays.
    if ((await mountAt(dir, machine)) !== undefined) throw new Refused(`${dir} is in use: something is mounted there`);
  }
  expectRoots(dir);
}

/** Throws where somebody but root could put a link in the place of `dir` or of what is above it. */
function expectRoots(dir: string): void {
  const parent = dirname(dir);
  if (!existsSync(parent) || realpathSync(parent) !== parent) throw new Refused(`${dir} is reached by a link: name the directory itself`);
  for (let at = parent; ; at = dirname(at)) {
    const { uid, mode } = lstatSync(at);
    if (uid !== 0 || (mode & 0o022) !== 0)
      throw new Refused(`${at} has to belong to root, and nobody else may write in it: else ${dir} can be no mount point`);
    if (at === "/") return;
  }
}

/** Makes the helper's own directories, where nobody else can have them. */
async function prepare({ helper }: Machine): Promise<void> {
  await fs.mkdir(helper.top, { recursive: true });
  expectRoots(helper.disks);
  for (const dir of [helper.disks, helper.notes, helper.locks]) await fs.mkdir(dir, { recursive: true });
}

/** Does work while no other question does the same, also of another process. The lock goes with this process. */
async function locked<T>(what: string, { helper }: Machine, work: () => Promise<T>): Promise<T> {
  const holder = spawn("flock", ["--wait", "30", join(helper.locks, shortOf(what)), "cat"], { stdio: ["pipe", "pipe", "ignore"] });
  const ended = once(holder, "close");
  // That it ended without the lock is told by its end.
  holder.stdin.on("error", () => undefined).write("\n");
  // What it gives back says that it has the lock.
  const had = await Promise.race([once(holder.stdout, "data").then(() => true), ended.then(() => false)]);
  if (!had) throw new Refused(`something else is done with ${what} now: try again`);
  try {
    return await work();
  } finally {
    holder.stdin.end();
    await ended;
  }
}

/** What is mounted obeys: a driver might not. It is unmounted where it does not. */
async function unsafe(dir: string, machine: Machine): Promise<string | undefined> {
  const mounted = await mountAt(dir, machine);
  if (mounted === undefined) return `${dir}: nothing is mounted there after all`;
  const missing = safeFlags.filter((flag) => !mounted.options.includes(flag));
  if (missing.length === 0) return undefined;
  await machine.run("umount", ["-l", dir]);
  return `${mounted.from} could not be mounted with ${missing.join(", ")}`;
}

async function unmountFor({ dir, lazy }: HelperRequest & { readonly do: "unmount" }, machine: Machine): Promise<string> {
  const refused = new Refused(`${dir} was not mounted by the helper that mounts`);
  if ((await mountAt(dir, machine)) === undefined) throw refused;
  return locked(dir, machine, async () => {
    const there = await mountAt(dir, machine);
    const note = dir.startsWith(`${machine.helper.disks}/`) ? there?.from : await noted(dir, machine);
    if (there === undefined || note !== there.from) throw refused;
    const { code, complaint } = await machine.run("umount", [...(lazy ? ["-l"] : []), dir]);
    if (code !== 0) throw new Refused(complaint);
    await forget(dir, machine);
    return `unmounted ${there.from} at ${dir}${lazy ? ", lazily" : ""}`;
  });
}

async function noted(dir: string, { helper }: Machine): Promise<string | undefined> {
  const path = noteOf(dir, helper);
  return existsSync(path) ? fs.readFile(path, "utf8") : undefined;
}

/** Nothing of ours is mounted at `dir` any more. */
async function forget(dir: string, { helper }: Machine): Promise<void> {
  await fs.rm(noteOf(dir, helper), { force: true });
  // Not empty: something is mounted there again, or was all the time.
  if (dir.startsWith(`${helper.disks}/`)) await fs.rmdir(dir).catch(() => undefined);
}
