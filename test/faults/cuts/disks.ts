/**
 * Power cuts at real file systems. Each disk of a scene is an ext4 of its own, whose writes and syncs are recorded, block by block. Then each sync is tried as the moment at which power went: what a disk
 * had synced before is there, and of what it was given since nothing, or blocks by chance. It is mounted as after a cut, so its journal is replayed, and the scene says what is wrong.
 *
 * A disk of its own for each, because a sync of one file writes down all that its file system was told before: on one, a sync that a target forgot would be made good by the journal's.
 */
import { spawn, spawnSync } from "node:child_process";
import { closeSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { until } from "../../conformance/clause.js";
import { mountSmall, unmount } from "../../small-disk.js";
import { Random } from "../random.js";

export interface Scene {
  /** Their names; each is mounted at `at(name)`. */
  readonly disks: readonly string[];
  /** Programs that may lose power alone: the name of the cut, and which disks are theirs. */
  readonly alone?: Readonly<Record<string, readonly string[]>>;
  /** What is on the disks before it begins. */
  prepare(): Promise<void> | void;
  /** What is recorded. */
  go(): Promise<void>;
  /** After a cut. Throws what is wrong. */
  check(): Promise<void>;
}

/** Of a scene whose disks are mounted below `dir`, a directory of its own. */
export type SceneIn = (at: (...parts: string[]) => string) => Scene | Promise<Scene>;

export interface CutsGiven {
  readonly seed: number;
  /** So many of all, chosen by the seed; without it all. */
  readonly most?: number;
  readonly say?: ((line: string) => void) | undefined;
}

export interface CutsReport {
  readonly syncs: number;
  readonly cuts: number;
  readonly findings: readonly string[];
  /** Where the disks of what was found are; gone where nothing was. */
  readonly dir: string;
}

const mib = 48;
/** Cuts at one sync that keep blocks by chance. */
const byChance = 2;

/** A file system that shows the images of a directory, and appends each write and sync to one log. What the page cache holds back is on no medium either: direct. */
const recorder = `
import errno, os, stat, struct, sys
from fusepy import FUSE, FuseOSError, Operations

class Recorder(Operations):
    def __init__(self, images, log):
        self.images = {"/" + name: (n, os.open(os.path.join(images, name), os.O_RDWR)) for n, name in enumerate(sorted(os.listdir(images)))}
        self.log = open(log, "wb", buffering=0)
    def getattr(self, path, fh=None):
        if path == "/":
            return dict(st_mode=stat.S_IFDIR | 0o700, st_nlink=2)
        if path not in self.images:
            raise FuseOSError(errno.ENOENT)
        return dict(st_mode=stat.S_IFREG | 0o600, st_nlink=1, st_size=os.fstat(self.images[path][1]).st_size)
    def read(self, path, size, offset, fh):
        return os.pread(self.images[path][1], size, offset)
    def write(self, path, data, offset, fh):
        n, image = self.images[path]
        os.pwrite(image, data, offset)
        self.log.write(struct.pack("<cBQI", b"W", n, offset, len(data)) + data)
        return len(data)
    def fsync(self, path, datasync, fh):
        self.log.write(struct.pack("<cBQI", b"S", self.images[path][0], 0, 0))
        return 0

FUSE(Recorder(sys.argv[1], sys.argv[2]), sys.argv[3], foreground=True, nothreads=True, direct_io=True, big_writes=True)
`;
const headBytes = 14;

/** Debian's: `python3` may be another. */
const python = "/usr/bin/python3";

/** Why it cannot be done on this machine. */
export function whyNoCuts(): string | undefined {
  if (process.getuid?.() !== 0) return "only root may mount";
  if (!existsSync("/dev/fuse")) return "/dev/fuse is missing";
  if (spawnSync(python, ["-c", "import fusepy"]).status !== 0) return "python3-fusepy is missing";
  const dir = mkdtempSync(join(tmpdir(), "filesync-cuts-"));
  try {
    return mountSmall(join(dir, "image"), dir, 8);
  } finally {
    unmount(dir);
    rmSync(dir, { recursive: true });
  }
}

interface Write {
  readonly disk: number;
  readonly offset: number;
  readonly bytes: Buffer;
}

/** Tries the cuts of one scene. */
export async function cuts(sceneIn: SceneIn, { seed, most = Infinity, say }: CutsGiven): Promise<CutsReport> {
  const dir = mkdtempSync(join(tmpdir(), "filesync-cuts-"));
  const scene = await sceneIn((...parts) => join(dir, ...parts));
  // As the recorder numbers them.
  const disks = [...scene.disks].sort();
  const path = (kind: string, disk: string) => join(dir, `${kind}.images`, disk);
  for (const kind of ["recorded", "synced", "cut"]) mkdirSync(join(dir, `${kind}.images`));
  for (const disk of disks) mkdirSync(join(dir, disk));
  const mount = (images: string) => {
    for (const disk of disks) run("mount", "-o", "loop", join(images, disk), join(dir, disk));
  };
  const unmountAll = () => disks.forEach((disk) => unmount(join(dir, disk)));
  try {
    for (const disk of disks) {
      const why = mountSmall(path("recorded", disk), join(dir, disk), mib);
      if (why !== undefined) throw new Error(why);
    }
    await scene.prepare();
    unmountAll();
    run("sync");
    for (const disk of disks) copyFileSync(path("recorded", disk), path("synced", disk));
    const log = await recorded(dir, disks, mount, unmountAll, () => scene.go());
    const findings: string[] = [];
    const random = new Random(seed);
    const given = disks.map((): Write[] => []);
    const planned = plan(log, Object.keys(scene.alone ?? {}), most, random);
    let syncs = 0;
    let tried = 0;
    for (const [n, entry] of log.entries()) {
      if ("bytes" in entry) {
        given[entry.disk]?.push(entry);
        continue;
      }
      if ((given[entry.disk] ?? []).length === 0) continue;
      for (const kind of planned[syncs] ?? []) {
        const share = random.next();
        const stays = (disk: string) => (kind === "chance" ? random.next() < share : scene.alone?.[kind]?.includes(disk) === false);
        for (const [number, disk] of disks.entries()) {
          copyFileSync(path("synced", disk), path("cut", disk));
          write(
            path("cut", disk),
            (given[number] ?? []).filter(() => stays(disk)),
          );
        }
        const what = `sync ${syncs} (${kind})`;
        const kept = join(dir, `found-${n}-${kind}`);
        mkdirSync(kept);
        for (const disk of disks) copyFileSync(path("cut", disk), join(kept, disk));
        mount(join(dir, "cut.images"));
        try {
          await scene.check();
          rmSync(kept, { recursive: true });
        } catch (error) {
          findings.push(`${what}: ${error instanceof Error ? error.message : String(error)}`);
          say?.(`${findings.at(-1)}; the disks as they were then: ${kept}`);
        } finally {
          unmountAll();
        }
        tried += 1;
        if (tried % 20 === 0) say?.(`${tried} cuts, ${what}: ${findings.length} found`);
      }
      write(path("synced", disks[entry.disk] ?? ""), given[entry.disk] ?? []);
      given[entry.disk] = [];
      syncs += 1;
    }
    if (findings.length === 0) rmSync(dir, { recursive: true });
    return { syncs, cuts: tried, findings, dir };
  } catch (error) {
    unmountAll();
    rmSync(dir, { recursive: true });
    throw error;
  }
}

type Entry = Write | { readonly disk: number };

/** The log of what the disks were told meanwhile. */
async function recorded(
  dir: string,
  disks: readonly string[],
  mount: (images: string) => void,
  unmountAll: () => void,
  go: () => Promise<void>,
): Promise<Entry[]> {
  const [images, log, shown] = ["recorded.images", "log", "shown"].map((name) => join(dir, name)) as [string, string, string];
  mkdirSync(shown);
  const program = spawn(python, ["-c", recorder, images, log, shown], { stdio: ["ignore", "inherit", "inherit"] });
  const ended = new Promise((resolve) => program.once("close", resolve));
  let length: number;
  try {
    await until("the recorder", () => existsSync(join(shown, disks[0] ?? "")));
    mount(shown);
    await go();
    // What an unmount writes, no cut does.
    length = statSync(log).size;
  } finally {
    unmountAll();
    run("sync");
    unmount(shown);
    await ended;
  }
  const bytes = readFileSync(log).subarray(0, length);
  rmSync(log);
  const entries: Entry[] = [];
  for (let at = 0; at < bytes.length;) {
    const [disk, offset, size] = [bytes.readUInt8(at + 1), Number(bytes.readBigUInt64LE(at + 2)), bytes.readUInt32LE(at + 10)];
    const isSync = bytes[at] === "S".charCodeAt(0);
    at += headBytes;
    entries.push(isSync ? { disk } : { disk, offset, bytes: bytes.subarray(at, at + size) });
    at += size;
  }
  return entries;
}

/** For each sync of a disk that was given something, the kinds of cuts before it. */
function plan(log: readonly Entry[], alone: readonly string[], most: number, random: Random): string[][] {
  const dirty = new Set<number>();
  let syncs = 0;
  for (const entry of log)
    if ("bytes" in entry) dirty.add(entry.disk);
    else if (dirty.delete(entry.disk)) syncs += 1;
  const kinds = ["nothing", ...alone, ...Array<string>(byChance).fill("chance")];
  const all = Array.from({ length: syncs }, (_, sync) => kinds.map((kind) => ({ sync, kind, drawn: random.next() }))).flat();
  const chosen = new Set([...all].sort((a, b) => a.drawn - b.drawn).slice(0, most));
  const planned = Array.from({ length: syncs }, (): string[] => []);
  for (const cut of all) if (chosen.has(cut)) planned[cut.sync]?.push(cut.kind);
  return planned;
}

function write(image: string, writes: readonly Write[]): void {
  const fd = openSync(image, "r+");
  try {
    for (const { offset, bytes } of writes) writeSync(fd, bytes, 0, bytes.length, offset);
  } finally {
    closeSync(fd);
  }
}

function run(command: string, ...args: string[]): void {
  const { status, error, stderr } = spawnSync(command, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")}: ${error?.message ?? stderr.trim()}`);
}
