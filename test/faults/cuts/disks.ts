/**
 * Power cuts at real file systems. Each disk of a scene is an ext4 (or an exFAT, by FUSE) of its own, whose writes and syncs are recorded, block by block. Then each sync is tried as the moment at which power went: what a disk
 * had synced before is there, and of what it was given since nothing, or blocks by chance. It is mounted as after a cut, so its journal is replayed (what has none is mended), and the scene says what is wrong.
 *
 * A disk of its own for each, because a sync of one file writes down all that its file system was told before: on one, a sync that a target forgot would be made good by the journal's.
 */
import { spawn, spawnSync } from "node:child_process";
import { closeSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { until } from "../../conformance/clause.js";
import { tool } from "../../disks/image.js";
import { exfatAt, mountExfat, mountSmall, unmount } from "../../small-disk.js";
import { Random } from "../random.js";

export interface Scene {
  /** Their names; each is mounted at `at(name)`. */
  readonly disks: readonly string[];
  /** Those that are an exFAT. */
  readonly exfat?: readonly string[];
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
export interface SceneIn {
  (at: (...parts: string[]) => string): Scene | Promise<Scene>;
  /** Why it cannot run on this machine. */
  readonly skip?: string;
}

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
/** The cuts at one sync, beside those of programs alone: of what came since nothing is there, or blocks by chance; and once more while what is left is gone on with. */
const kinds = ["nothing", "chance", "chance", "twice"];

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
  for (const mount of [mountSmall, mountExfat]) {
    const dir = mkdtempSync(join(tmpdir(), "filesync-cuts-"));
    const at = join(dir, "disk");
    mkdirSync(at);
    try {
      const why = mount(join(dir, "image"), at, mib);
      if (why !== undefined) return why;
    } finally {
      unmount(at);
      rmSync(dir, { recursive: true });
    }
  }
  return undefined;
}

interface Write {
  readonly disk: number;
  readonly offset: number;
  readonly bytes: Buffer;
}
type Entry = Write | { readonly disk: number };

/** Tries the cuts of one scene. */
export async function cuts(sceneIn: SceneIn, { seed, most = Infinity, say }: CutsGiven): Promise<CutsReport> {
  const dir = mkdtempSync(join(tmpdir(), "filesync-cuts-"));
  const scene = await sceneIn((...parts) => join(dir, ...parts));
  const lab = new Lab(dir, scene);
  const random = new Random(seed);
  const findings: string[] = [];
  let tried = 0;
  try {
    await lab.prepare("made");
    // What was mounted may be written to once more, by a mount namespace of another test that keeps it.
    lab.copy("made", "first");
    const log = await lab.recorded("first");
    const syncs = syncsIn(log);
    for (const { sync, kind } of plan(syncs, Object.keys(scene.alone ?? {}), most, random)) {
      const chance = random.below(2 ** 31);
      // Each time others: mount namespaces of other tests may keep those that were mounted.
      const images = `cut-${tried}`;
      let what = `sync ${sync} (${kind})`;
      let again = () => lab.cut("first", log, sync, kind, chance, images);
      again();
      try {
        if (kind === "twice") {
          lab.copy(images, "second");
          const log = await lab.recorded("second");
          const then = new Random(chance).below(syncsIn(log));
          what += `, then ${then}`;
          again = () => lab.cut("second", log, then, kind, chance, images);
          again();
        }
        lab.mount(images);
        await scene.check();
      } catch (error) {
        lab.unmount();
        // As they were found, not as the program left them.
        again();
        const kept = `found-${findings.length + 1}`;
        lab.copy(images, kept);
        findings.push(`${what}: ${error instanceof Error ? error.message : String(error)}`);
        say?.(`${findings.at(-1)}; the disks as they were then: ${join(dir, kept)}`);
      } finally {
        lab.unmount();
        rmSync(join(dir, images), { recursive: true });
      }
      tried += 1;
      if (tried % 20 === 0) say?.(`${tried} cuts, ${what}: ${findings.length} found`);
    }
    if (findings.length === 0) rmSync(dir, { recursive: true });
    return { syncs, cuts: tried, findings, dir };
  } catch (error) {
    lab.unmount();
    rmSync(dir, { recursive: true });
    throw error;
  }
}

/** The disks of a scene: images in directories by name, and where they are mounted. */
class Lab {
  /** As the recorder numbers them. */
  readonly #disks: readonly string[];

  constructor(
    readonly dir: string,
    readonly scene: Scene,
  ) {
    this.#disks = [...scene.disks].sort();
    for (const disk of this.#disks) mkdirSync(join(dir, disk));
  }

  async prepare(images: string): Promise<void> {
    mkdirSync(join(this.dir, images));
    for (const disk of this.#disks) {
      const make = this.#isExfat(disk) ? mountExfat : mountSmall;
      const why = make(join(this.dir, images, disk), join(this.dir, disk), mib);
      if (why !== undefined) throw new Error(why);
    }
    await this.scene.prepare();
    for (const disk of this.#disks) tool("sync", ["-f", join(this.dir, disk)]);
    this.unmount();
  }

  mount(images: string): void {
    for (const disk of this.#disks) {
      const [image, dir] = [join(this.dir, images, disk), join(this.dir, disk)];
      if (this.#isExfat(disk) && images !== "shown") spawnSync("fsck.exfat", ["-y", image]);
      // What nobody syncs stays off the medium for as long as a scene takes, however slow the machine.
      const [command = "", ...args] = this.#isExfat(disk) ? exfatAt(image, dir) : ["mount", "-o", "loop,commit=300", image, dir];
      tool(command, args);
    }
  }

  #isExfat(disk: string): boolean {
    return this.scene.exfat?.includes(disk) === true;
  }

  unmount(): void {
    for (const disk of this.#disks) unmount(join(this.dir, disk));
  }

  copy(from: string, to: string): void {
    mkdirSync(join(this.dir, to), { recursive: true });
    for (const disk of this.#disks) copyFileSync(join(this.dir, from, disk), join(this.dir, to, disk));
  }

  /** What disks that begin as these images are told while the scene goes; the images stay as they are. */
  async recorded(images: string): Promise<Entry[]> {
    const [log, shown] = [join(this.dir, "log"), join(this.dir, "shown")];
    mkdirSync(shown, { recursive: true });
    this.copy(images, "recorded");
    const program = spawn(python, ["-c", recorder, join(this.dir, "recorded"), log, shown], { stdio: ["ignore", "inherit", "inherit"] });
    const ended = new Promise((resolve) => program.once("close", resolve));
    let length: number;
    try {
      await until("the recorder", () => existsSync(join(shown, this.#disks[0] ?? "")));
      this.mount("shown");
      await this.scene.go();
      // What an unmount writes, no cut does.
      length = statSync(log).size;
    } finally {
      this.unmount();
      unmount(shown);
      program.kill("SIGKILL");
      await ended;
    }
    return entriesOf(readFileSync(log).subarray(0, length));
  }

  /** The images `to`, as `from` when power goes right before that sync. */
  cut(from: string, log: readonly Entry[], sync: number, kind: string, chance: number, to: string): void {
    const random = new Random(chance);
    const share = random.next();
    const alone = this.scene.alone?.[kind];
    this.copy(from, to);
    for (const [number, disk] of this.#disks.entries()) {
      const stays = (): boolean => (alone === undefined ? kind !== "nothing" && random.next() < share : !alone.includes(disk));
      const { synced, since } = toldBefore(log, sync, number);
      const fd = openSync(join(this.dir, to, disk), "r+");
      try {
        for (const { offset, bytes } of [...synced, ...since.filter(stays)]) writeSync(fd, bytes, 0, bytes.length, offset);
      } finally {
        closeSync(fd);
      }
    }
  }
}

function entriesOf(log: Buffer): Entry[] {
  const entries: Entry[] = [];
  for (let at = 0; at < log.length;) {
    const [disk, offset, size] = [log.readUInt8(at + 1), Number(log.readBigUInt64LE(at + 2)), log.readUInt32LE(at + 10)];
    const isSync = log[at] === "S".charCodeAt(0);
    at += headBytes;
    entries.push(isSync ? { disk } : { disk, offset, bytes: log.subarray(at, at + size) });
    at += size;
  }
  return entries;
}

/** Where the syncs are of a disk that was told something since its last. */
function syncsAt(log: readonly Entry[]): number[] {
  const told = new Set<number>();
  return [...log.entries()].flatMap(([at, entry]) => {
    if (!("bytes" in entry)) return told.delete(entry.disk) ? [at] : [];
    told.add(entry.disk);
    return [];
  });
}

const syncsIn = (log: readonly Entry[]): number => syncsAt(log).length;

/** What one disk was told before that sync of any. */
function toldBefore(log: readonly Entry[], sync: number, disk: number): { readonly synced: Write[]; readonly since: Write[] } {
  const own = log.slice(0, syncsAt(log)[sync]).filter((entry) => entry.disk === disk);
  const last = own.findLastIndex((entry) => !("bytes" in entry));
  const writes = (entries: readonly Entry[]) => entries.filter((entry) => "bytes" in entry);
  return { synced: writes(own.slice(0, last + 1)), since: writes(own.slice(last + 1)) };
}

/** All cuts, or so many of them, in order. */
function plan(syncs: number, alone: readonly string[], most: number, random: Random): { readonly sync: number; readonly kind: string }[] {
  const all = Array.from({ length: syncs }, (_, sync) => [...kinds, ...alone].map((kind) => ({ sync, kind, drawn: random.next() }))).flat();
  const chosen = new Set([...all].sort((a, b) => a.drawn - b.drawn).slice(0, most));
  return all.filter((cut) => chosen.has(cut));
}
