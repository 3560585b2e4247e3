/**
 * A laboratory of removable disks without hardware: what a test of the plugin `disk` stands on. Needs root; `open` says what else is missing.
 *
 *     const lab = await DiskLab.open();
 *     if (typeof lab === "string") return void t.skip(lab);
 *     t.after(() => lab.close());
 *     const card = await lab.make("card", { fs: "ext4", mib: 32, label: "CARD", files: { "DCIM/1.JPG": bytes } });
 *     await lab.plug(card);                               // /dev/disk/by-uuid/<card.uuid> is there, inside
 *     lab.run(process.execPath, ["dist/cli/main.js", "run", "-c", config], { cwd: root });
 *     await lab.pull(card);                               // reads and fsync fail with EIO, the links are gone, a mount stays behind, dead
 *     await lab.plug(card);                               // under another loop device
 *     lab.content(card)                                   // path → bytes, read without the product
 *
 * Inside are a mount and a network namespace with a /dev, a /run, a udevd and a /sys/block of their own, where only the laboratory's disks are;
 * all other directories are those of the machine, so a daemon inside and its test share a temporary directory. What is mounted inside is seen from
 * outside below `lab.path(…)`. A disk is an image, exported as a file by qemu-storage-daemon, on a loop device. Surprise removal is SIGKILL
 * to the exporter, then the `remove` event that the kernel would send for a disk that has gone; what reached the image is kept for the next plug.
 *
 * ext4 is the kernel's. vfat and exfat are mounted (`mount -t vfat`, `-t exfat`, or no -t) by FUSE drivers, fusefat and exfat-fuse, so that it
 * works under kernels without them; /proc/mounts says `fuseblk…`. After a pull their process stays, and so does the mount: what is in a cache
 * can still be read, the rest is EIO, fsync is EIO, umount works and ends the process.
 *
 * exfat stands up to all that ext4 does; fusefat is a weak driver, the only one that Debian has: good to list, read, write new files, rename and delete.
 * It says EPERM for EIO; it cannot append or truncate (EPERM), takes no names beyond ASCII, has no fsync (it succeeds, and the data
 * is lost by a pull), tells no free space, shows times a month late, 8.3 names in capitals, and the label as an empty file.
 */
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { firstLine, gather, killed } from "./children.js";
import { addPartition, fat, format, readTree, volumeInto, volumeOf, writeTree, type Files, type Format } from "./image.js";
import { clean, helpers, port, sweep, warden } from "./warden.js";

export interface Disk extends Omit<Format, "uuid"> {
  readonly name: string;
  readonly image: string;
  /** As udev tells it; "" without a file system. */
  readonly uuid: string;
  /** While it is plugged: the node of the file system, "/dev/loop3" or "/dev/loop3p1". */
  readonly node?: string;
}

export interface Plug {
  /** The little switch on the card. */
  readonly readOnly?: boolean;
  /** The kernel says that it can be taken out, as of a stick; otherwise it is as a disk that is built in. */
  readonly removable?: boolean;
  /** Ranges of the image, in bytes, whose sectors (of 4096 bytes) can be neither read nor written: EIO. `where` finds them. */
  readonly badSectors?: readonly { readonly offset: number; readonly count: number }[];
}

export interface Inside {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly uid?: number;
  readonly gid?: number;
  /** "host": with the disks of inside, but the network of outside, where the test's own servers are. Default "lab": its own loopback. */
  readonly network?: "lab" | "host";
}

export interface Mount {
  readonly source: string;
  readonly target: string;
  readonly type: string;
  readonly options: readonly string[];
}

interface Port {
  readonly number: number;
  readonly holder: ChildProcess;
}

interface Plugged extends Port {
  readonly exporter: ChildProcess;
  readonly exported: string;
  readonly removable: boolean;
}

interface OwnDisk extends Disk {
  node?: string;
  plugged?: Plugged;
  /** The loop device it had last: the next is another. */
  last?: number;
}

const needs: Readonly<Record<string, string>> = {
  unshare: "util-linux",
  ip: "iproute2",
  udevadm: "udev",
  "qemu-storage-daemon": "qemu-system-common",
  sfdisk: "fdisk",
  "mkfs.ext4": "e2fsprogs",
  "mkfs.vfat": "dosfstools",
  fusefat: "fusefat",
  mcopy: "mtools",
  "mkfs.exfat": "exfatprogs",
  "mount.exfat-fuse": "exfat-fuse",
};

const sys = "/sys/devices/virtual/block";
const binaries = ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin", "/usr/local/sbin"];

/** Why there can be no laboratory here; undefined if there can. */
function missing(): string | undefined {
  if (process.getuid?.() !== 0) return "removable disks need root";
  for (const device of ["/dev/loop-control", "/dev/fuse"]) if (!existsSync(device)) return `removable disks need ${device}`;
  if (!existsSync("/lib/systemd/systemd-udevd")) return "removable disks need the package udev";
  for (const [command, pack] of Object.entries(needs))
    if (!binaries.some((dir) => existsSync(join(dir, command)))) return `removable disks need ${command} (package ${pack})`;
  return undefined;
}

function partsOf(whole: string): string[] {
  return readdirSync(`${sys}/${whole}`)
    .filter((part) => part.startsWith(`${whole}p`))
    .sort();
}

export class DiskLab {
  readonly #dir: string;
  readonly #warden: ChildProcess;
  readonly #disks = new Set<OwnDisk>();
  #turn: Promise<unknown> = Promise.resolve();
  #closed: Promise<void> | undefined;

  private constructor(dir: string, child: ChildProcess) {
    this.#dir = dir;
    this.#warden = child;
  }

  /** A string says why it cannot be had here: tests are skipped with it. */
  static async open(): Promise<DiskLab | string> {
    const why = missing();
    if (why !== undefined) return why;
    const prefix = join(tmpdir(), "filesync-disks-");
    const old = readdirSync(tmpdir())
      .map((name) => join(tmpdir(), name))
      .filter((dir) => dir.startsWith(prefix) && existsSync(join(dir, "warden")));
    spawnSync("sh", ["-c", sweep, "sweep", ...old], { env: { ...process.env, clean }, stdio: "ignore" });
    const dir = mkdtempSync(prefix);
    mkdirSync(join(dir, "sbin"));
    for (const [name, script] of Object.entries(helpers)) writeFileSync(join(dir, "sbin", name), script, { mode: 0o755 });
    // Of a session of its own: Ctrl-C is for the test, and the warden sees that the test has gone.
    const child = spawn("unshare", ["-m", "-n", "--propagation", "private", "sh", "-c", warden, "warden", dir], {
      stdio: ["pipe", "pipe", "pipe"],
      detached: true,
    });
    const said = await firstLine(child);
    if (said.line === "ready") return new DiskLab(dir, child);
    rmSync(dir, { recursive: true });
    return `removable disks cannot be had here: ${said.errors.trim()}`;
  }

  /** Where the test sees what is at `path` inside. */
  path(path: string): string {
    return `/proc/${String(this.#warden.pid)}/root${path}`;
  }

  async make(name: string, wanted: Format & { readonly files?: Files }): Promise<Disk> {
    const image = join(this.#dir, `${name}.img`);
    const { files, ...rest } = wanted;
    const disk: OwnDisk = { ...rest, name, image, uuid: format(image, wanted) ?? "" };
    this.#disks.add(disk);
    if (files !== undefined) await this.write(disk, files);
    return disk;
  }

  /** Adds a partition to a disk with a `partition`, which is not plugged; gives the uuid of its file system. */
  addPartition(disk: Disk, wanted: Format): string {
    if (this.#own(disk).plugged) throw new Error(`${disk.name} is plugged`);
    return addPartition(disk.image, wanted);
  }

  /** Resolves once udevd has made the links. */
  plug(disk: Disk, options: Plug = {}): Promise<void> {
    return this.#inTurn(async () => {
      const own = this.#own(disk);
      if (own.plugged) throw new Error(`${disk.name} is plugged already`);
      const { exporter, exported } = await this.#export(own, options);
      const { number, holder } = await this.#attach("/dev", exported, own.last, [
        ...(options.readOnly ? ["-r"] : []),
        ...(disk.partition ? ["-P"] : []),
      ]);
      own.plugged = { exporter, exported, number, holder, removable: options.removable === true };
      own.last = number;
      const whole = `loop${String(number)}`;
      // -P has the kernel look for partitions, where it knows their tables (and forget them at the end); partx tells it of them where it does not.
      if (disk.partition) await this.exec("partx", ["-u", `/dev/${whole}`]);
      const parts = partsOf(whole);
      if (options.removable) await this.exec("sh", ["-c", `echo 1 >/run/one && mount --bind /run/one ${sys}/${whole}/removable`]);
      for (const part of parts)
        await this.exec("mknod", [`/dev/${part}`, "b", ...readFileSync(`${sys}/${whole}/${part}/dev`, "utf8").trim().split(":")]);
      await this.exec("udevadm", [
        "trigger",
        "--settle",
        "-c",
        "add",
        `${sys}/${whole}`,
        ...parts.map((part) => `${sys}/${whole}/${part}`),
      ]);
      own.node = `/dev/${parts[0] ?? whole}`;
      if (disk.uuid && !existsSync(this.path(`/dev/disk/by-uuid/${disk.uuid}`)))
        throw new Error(`udevd made no link for ${disk.name}: ${await this.exec("udevadm", ["info", own.node])}`);
    });
  }

  /** The node of its file system, while it is plugged. */
  nodeOf(disk: Disk): string {
    return this.#own(disk).node ?? "";
  }

  /** Surprise removal: resolves once the exporter is dead and the links are gone. What is mounted stays, dead. */
  pull(disk: Disk): Promise<void> {
    return this.#inTurn(async () => {
      const own = this.#own(disk);
      if (!own.plugged) throw new Error(`${disk.name} is not plugged`);
      const { exporter, exported, number, holder, removable } = own.plugged;
      delete own.plugged;
      delete own.node;
      await killed(exporter);
      const whole = `loop${String(number)}`;
      const parts = partsOf(whole);
      const nodes = [...parts, whole];
      await this.exec("udevadm", [
        "trigger",
        "--settle",
        "-c",
        "remove",
        ...parts.map((part) => `${sys}/${whole}/${part}`),
        `${sys}/${whole}`,
      ]);
      await this.exec("rm", ["-f", ...nodes.map((node) => `/dev/${node}`), `/sys/block/${whole}`]);
      await this.exec("umount", ["-l", exported]);
      if (removable) await this.exec("umount", [`${sys}/${whole}/removable`]);
      await killed(holder);
    });
  }

  /** What goes before a command and its arguments, so that it runs inside; it is that process whose signals, output and end are had. */
  wrap({ cwd = process.cwd(), uid, gid, network }: Omit<Inside, "env"> = {}): string[] {
    const user = uid === undefined ? [] : ["setpriv", "--reuid", String(uid), "--regid", String(gid ?? uid), "--clear-groups"];
    const spaces = ["-t", String(this.#warden.pid), "-m", ...(network === "host" ? [] : ["-n"])];
    return ["nsenter", ...spaces, "--", "env", "-C", cwd, ...user];
  }

  /** A process inside. It does not outlive the laboratory. */
  run(command: string, args: readonly string[] = [], { env = process.env, ...inside }: Inside = {}): ChildProcess {
    const [nsenter = "", ...words] = this.wrap(inside);
    return spawn(nsenter, [...words, command, ...args], { env });
  }

  /** Runs a command inside to its end and gives its output; throws what it said if it fails. */
  async exec(command: string, args: readonly string[] = [], options: Inside = {}): Promise<string> {
    const child = this.run(command, args, options);
    const [output, errors] = [gather(child.stdout), gather(child.stderr)];
    const [code, signal] = (await once(child, "close")) as [number | null, NodeJS.Signals | null];
    if (code !== 0) throw new Error(`${command} ${args.join(" ")}: ${errors().trim() || (signal ?? `exit ${String(code)}`)}`);
    return output();
  }

  /** The mount table inside. */
  mounts(): Mount[] {
    const plain = (word = ""): string => word.replace(/\\(\d{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
    return readFileSync(`/proc/${String(this.#warden.pid)}/mounts`, "utf8")
      .trim()
      .split("\n")
      .map((line) => line.split(" "))
      .map(([source, target, type = "", options = ""]) => ({
        source: plain(source),
        target: plain(target),
        type,
        options: options.split(","),
      }));
  }

  /** Every file on the disk, path → bytes, as it is in the image now: read from a copy, and not by the product. */
  content(disk: Disk): Promise<Map<string, Buffer>> {
    return this.#withVolume(disk, (volume, dir) => {
      if (disk.fs === "vfat") fat.read(volume, dir);
      return readTree(disk.fs === "vfat" ? dir : this.path(dir));
    });
  }

  /** Puts files onto a disk that is not plugged, as its camera would. They are whole on it afterwards, or it is as it was. */
  async write(disk: Disk, files: Files): Promise<void> {
    if (this.#own(disk).plugged) throw new Error(`${disk.name} is plugged`);
    await this.#withVolume(
      disk,
      (volume, dir) => {
        writeTree(disk.fs === "vfat" ? dir : this.path(dir), files);
        if (disk.fs === "vfat") fat.write(volume, dir);
      },
      true,
    );
  }

  /** Works with a disk that is not plugged, plugged and mounted at a directory inside, by the system alone. */
  async aside<T>(disk: Disk, work: (dir: string) => T | Promise<T>): Promise<T> {
    const dir = `/run/aside/${disk.name}`;
    await this.exec("mkdir", ["-p", dir]);
    await this.plug(disk);
    try {
      await this.exec("mount", ["-t", disk.fs, this.nodeOf(disk), dir]);
      try {
        return await work(dir);
      } finally {
        await this.exec("umount", [dir]);
      }
    } finally {
      await this.pull(disk);
    }
  }

  /** The offset in the image at which `bytes` stand: where the sectors of a file are. */
  where(disk: Disk, bytes: Uint8Array): number {
    const at = readFileSync(disk.image).indexOf(bytes);
    if (at < 0) throw new Error(`these bytes are not on ${disk.name} in one piece`);
    return at;
  }

  /** Ends every process inside, and gives back what was mounted and attached. Twice is once. */
  close(): Promise<void> {
    this.#closed ??= (async () => {
      const ended = this.#warden.exitCode === null ? once(this.#warden, "close") : undefined;
      this.#warden.stdin?.end();
      await ended;
    })();
    return this.#closed;
  }

  #own(disk: Disk): OwnDisk {
    for (const own of this.#disks) if (own === disk) return own;
    throw new Error(`${disk.name} is not of this laboratory`);
  }

  /** Plugs and pulls one after another. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(work);
    this.#turn = mine.catch(() => undefined);
    return mine;
  }

  /** The image as a file whose reads and writes fail once the exporter is dead. */
  async #export(disk: OwnDisk, { readOnly = false, badSectors = [] }: Plug): Promise<{ exporter: ChildProcess; exported: string }> {
    const exported = join(this.#dir, `${disk.name}.plug`);
    writeFileSync(exported, "");
    const file = { driver: "file", "node-name": "file", filename: disk.image, "read-only": readOnly };
    const sectors = badSectors.flatMap(({ offset, count }) => {
      // The exported file is read and written by pages; one bad sector of 512 bytes in a page is enough.
      const first = Math.floor(offset / 4096);
      return Array.from({ length: Math.ceil((offset + count) / 4096) - first }, (_, index) => 8 * (first + index));
    });
    const rule = { event: "none", errno: 5, once: false, immediately: false };
    const bad = { driver: "blkdebug", "node-name": "bad", image: "file", "inject-error": sectors.map((sector) => ({ ...rule, sector })) };
    const drivers = sectors.length > 0 ? [file, { ...bad, "read-only": readOnly }] : [file];
    const exporter = this.run("qemu-storage-daemon", [
      ...drivers.flatMap((driver) => ["--blockdev", JSON.stringify(driver)]),
      ...[
        "--export",
        `type=fuse,id=plug,node-name=${sectors.length > 0 ? "bad" : "file"},mountpoint=${exported},writable=${readOnly ? "off" : "on"}`,
      ],
      // Its greeting says that all before it is done.
      ...["--chardev", "stdio,id=said", "--monitor", "chardev=said"],
    ]);
    const { line, errors } = await firstLine(exporter);
    if (line === "") throw new Error(`qemu-storage-daemon: ${errors.trim()}`);
    // One request at a time: while it writes, this exporter lets the next one overwrite what it writes from. So the loop device is not in
    // direct-io mode either.
    const device = (await this.exec("stat", ["-c", "%Hd:%Ld", exported])).trim();
    writeFileSync(`/sys/class/bdi/${device}/read_ahead_kb`, "0");
    return { exporter, exported };
  }

  /** Attaches `file` to a free loop device, but not `not`, as a node in `dir`. */
  async #attach(dir: string, file: string, not: number | undefined, options: readonly string[]): Promise<Port> {
    const known = readdirSync(sys)
      .filter((name) => /^loop\d+$/.test(name))
      .map((name) => Number(name.slice(4)))
      .sort((a, b) => a - b);
    const free = known.filter((number) => !existsSync(`${sys}/loop${String(number)}/loop`));
    const next = (known.at(-1) ?? -1) + 1;
    for (const number of [...free, next, next + 1, next + 2, next + 3]) {
      const node = `${dir}/loop${String(number)}`;
      if (number === not || existsSync(this.path(node))) continue;
      await this.exec("mknod", [node, "b", "7", String(number)]);
      // The directory there is the kernel's only for what it knows already: the link may come to life with the device.
      if (dir === "/dev")
        await this.exec("ln", ["-sfn", `../devices/virtual/block/loop${String(number)}`, `/sys/block/loop${String(number)}`]);
      const holder = this.run("sh", ["-c", port, "port", node, file, ...options]);
      const { line, errors } = await firstLine(holder);
      if (line === "attached") return { number, holder };
      await this.exec("rm", ["-f", node, ...(dir === "/dev" ? [`/sys/block/loop${String(number)}`] : [])]);
      // Somebody else was quicker.
      if (!/busy/.test(errors)) throw new Error(`losetup: ${errors.trim()}`);
    }
    throw new Error("no loop device is free");
  }

  /** Works with the file system of a disk in a copy, mounted inside at `dir` (FAT is not mounted: mtools read and write it). */
  async #withVolume<T>(disk: Disk, work: (volume: string, dir: string) => T, keep = false): Promise<T> {
    const scratch = mkdtempSync(join(this.#dir, "copy-"));
    const [volume, dir] = [join(scratch, "volume"), join(scratch, "tree")];
    mkdirSync(dir);
    try {
      volumeOf(disk.image, disk.partition === true, volume);
      const result = disk.fs === "vfat" ? work(volume, dir) : await this.#mounted(volume, dir, work);
      if (keep) volumeInto(disk.image, disk.partition === true, volume);
      return result;
    } finally {
      rmSync(scratch, { recursive: true });
    }
  }

  async #mounted<T>(volume: string, dir: string, work: (volume: string, dir: string) => T): Promise<T> {
    // udevd finds no node in /dev, so nobody is told of it.
    await this.exec("mkdir", ["-p", "/dev/.aside"]);
    const { number, holder } = await this.#attach("/dev/.aside", volume, undefined, []);
    try {
      await this.exec("mount", [`/dev/.aside/loop${String(number)}`, dir]);
      try {
        return work(volume, dir);
      } finally {
        await this.exec("umount", [dir]);
      }
    } finally {
      await killed(holder);
      await this.exec("rm", [`/dev/.aside/loop${String(number)}`]);
    }
  }
}
