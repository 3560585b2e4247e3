/**
 * The world of a campaign: a simulated flight controller, a camera (FTP), two directories; a ground station (FTP) and a disk as targets; file
 * systems of their own where this machine can; and the book of what was made, which the checker believes.
 */
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { startSim, type Sim } from "../../../sim/sim.js";
import { Random } from "../random.js";
import { contentOf, type Content, type ExpectedTarget } from "./checker.js";
import { keystream, lastingPort } from "./making.js";
import { ownerOf, startPlace, type Place, type PlaceKind } from "./place.js";
import { isRoot, Served } from "./servers.js";

interface Origin {
  /** Where its files are on this disk. */
  readonly dir: string;
  /** `into` of its route. */
  readonly into: string;
  readonly targets: readonly ("ground" | "disk")[];
  /** Its files go once they are delivered. */
  readonly deletes?: true;
}

/** "size sha256" of every content that a path had. Names as Latin-1 of their bytes. */
type Book = Map<string, Content[]>;

const spoolBytes = 24 * 2 ** 20;
/** rsync takes only what is whole here. */
const spoolOf = (target: PlaceKind) => (target === "rsync" ? 2 : 1) * spoolBytes;
const odd = ["a b", "it's", "[x] {y}", "-dash", "полёт", "#1 100%", "a;b&c", "~tilde~", 'say "hi"'];

export class Scene {
  readonly origins: Readonly<Record<"pixhawk" | "camera" | "inbox" | "outbox", Origin>>;
  readonly #book = new Map<string, Book>();
  readonly #foreign = new Map<string, Map<string, Content>>();
  readonly #mounts: string[] = [];
  #count = 0;
  bytes = 0;
  /** Bytes of all contents that go to the ground station, for the count of what was sent to it again. */
  groundBytes = 0;
  /** Bytes of files of the flight controller, for the count of what was pulled again. */
  simBytes = 0;

  private constructor(
    readonly dir: string,
    readonly sim: Sim,
    readonly ground: Place,
    readonly camera: Served,
    readonly config: string,
    readonly mounted: boolean,
    mounts: readonly string[],
  ) {
    this.#mounts.push(...mounts);
    this.origins = {
      pixhawk: { dir: join(dir, "vehicle", "log"), into: "logs", targets: ["ground", "disk"] },
      camera: { dir: join(camera.root, "DCIM"), into: "photos", targets: ["ground"] },
      inbox: { dir: join(dir, "inbox"), into: "inbox", targets: ["ground", "disk"] },
      outbox: { dir: join(dir, "outbox"), into: "out", targets: ["disk"], deletes: true },
    };
    for (const name of Object.keys(this.origins)) this.#book.set(name, new Map());
    for (const name of ["ground", "disk"]) this.#foreign.set(name, new Map());
  }

  /** `target`: what the ground station is. */
  static async make(seed: number, faults: () => number, verify: string, target: PlaceKind): Promise<Scene> {
    const dir = mkdtempSync(join(tmpdir(), "filesync-campaign-"));
    chmodSync(dir, 0o755);
    const mounts: string[] = [];
    for (const [name, mib] of [
      ["state", 160],
      ["disk", 900],
      ["ground", 900],
    ] as const) {
      mkdirSync(join(dir, name));
      if (isRoot && mount(join(dir, `${name}.img`), join(dir, name), mib)) mounts.push(join(dir, name));
    }
    for (const name of ["vehicle/log", "inbox", "outbox", "camera/files/DCIM", "ground/home", "disk/root"])
      mkdirSync(join(dir, name), { recursive: true });
    const sim = await startSim({ listen: `tcpin://127.0.0.1:${await lastingPort()}`, dir: join(dir, "vehicle"), link: "none", seed });
    const home = join(dir, "ground", "home");
    const ground =
      target === "ftp"
        ? await Served.start("ground", home, join(dir, "ground-server"), faults)
        : await startPlace(target, "ground", home, faults);
    const camera = await Served.start("camera", join(dir, "camera", "files"), join(dir, "camera-server"), faults);
    camera.relay.pace = (4 * 2 ** 20) / 1000;
    const config = join(dir, "config.json");
    const local = { type: "local", interval: "1s", settle: "0s" };
    const routes = [
      { from: "pixhawk", to: ["ground", "disk"], into: "logs" },
      { from: "camera", to: ["ground"], into: "photos" },
      { from: "inbox", to: ["ground", "disk"], into: "inbox" },
      { from: "outbox", to: ["disk"], into: "out", afterDelivery: "delete" },
    ];
    writeFileSync(
      config,
      JSON.stringify({
        vehicle: "plane",
        stateDir: join(dir, "state", "state"),
        // Some files are larger than this: they go straight through.
        spool: { maxSize: `${spoolOf(target)}`, keepFree: "1MiB", keep: "5s" },
        devices: {
          pixhawk: { type: "mavftp", url: sim.clientUrl, root: "/log", settle: "0s", interval: "2s", maxRate: "6MiB/s" },
          camera: { ...camera.device, timeout: "3s", root: "/DCIM", interval: "2s", settle: "0s", maxRate: "6MiB/s" },
          inbox: { ...local, dir: join(dir, "inbox"), inPlace: false, maxRate: "6MiB/s" },
          outbox: { ...local, dir: join(dir, "outbox") },
          ground: { ...ground.device, timeout: "3s", maxRate: "6MiB/s", ...(target === "ftp" ? { verify } : {}) },
          disk: { type: "local", dir: join(dir, "disk", "root"), maxRate: "8MiB/s" },
        },
        routes,
      }),
    );
    return new Scene(dir, sim, ground, camera, config, mounts.length === 3, mounts);
  }

  get stateDir(): string {
    return join(this.dir, "state", "state");
  }

  rootOf(target: "ground" | "disk"): string {
    return target === "ground" ? this.ground.root : join(this.dir, "disk", "root");
  }

  /** A new file on one of the sources, drawn from `seed`; now and then with a stranger's file in its place at a target, or one that grows or is replaced. */
  add(seed: number): string {
    const random = new Random(seed);
    const drawn = random.next();
    const [name, origin] = random.pick(Object.entries(this.origins));
    const book = this.#book.get(name) ?? new Map<string, Content[]>();
    const known = [...book.keys()];
    const change = name === "inbox" && known.length > 0 && random.next() < 0.25 ? random.pick(known) : undefined;
    if (change !== undefined) return this.#change(book, origin, change, random);
    const n = this.#count++;
    const size =
      drawn < 0.06
        ? 0
        : drawn < 0.4
          ? random.between(1, 65_536)
          : drawn < 0.7
            ? random.between(65_536, 1_000_000)
            : drawn < 0.95
              ? random.between(1_000_000, 7_000_000)
              : random.between(8_000_000, 32_000_000);
    const label = name === "pixhawk" || random.next() < 0.7 ? "f" : random.pick(odd);
    const path = `${random.pick(["", "2026-05-28/", "sess001/sub/"])}${String(n).padStart(5, "0")} ${label}.bin`.replace(" f", "");
    const bytes = keystream(seed, size);
    for (const target of origin.targets) if (random.next() < 0.08) this.#occupy(target, `${origin.into}/${path}`, bytes, random);
    this.#write(join(placeOf(origin), path), bytes, 1_779_926_400 + n);
    book.set(latin1(path), [contentOf(bytes)]);
    this.#book.set(name, book);
    // Straight through: what the sockets to the target held when they broke has to be read from the camera again, and nobody here can know how much that is.
    if (name === "camera" && size > spoolBytes) this.camera.relay.downloads.excuse(`/DCIM/${path}`);
    this.bytes += size;
    if (name === "pixhawk") this.simBytes += size;
    if (origin.targets.includes("ground")) this.groundBytes += size;
    return `${name}:${path} (${size})`;
  }

  /** A file that grows, or comes back with other content. */
  #change(book: Book, origin: Origin, name: string, random: Random): string {
    const path = Buffer.from(name, "latin1").toString();
    const full = join(placeOf(origin), path);
    const contents = book.get(name) ?? [];
    // What is sent of it again is no fault's price.
    this.ground.relay.uploads.excuse(`/${origin.into}/${path}`);
    const bytes = keystream(random.between(1, 2 ** 31), random.between(1, 2_000_000));
    const grows = random.next() < 0.5;
    const whole = grows ? Buffer.concat([readFileSync(full), bytes]) : bytes;
    this.#write(full, whole, 1_780_000_000 + this.#count++);
    contents.push(contentOf(whole));
    book.set(name, contents);
    this.bytes += bytes.length;
    if (origin.targets.includes("ground")) this.groundBytes += whole.length;
    return `inbox:${path} ${grows ? "grew" : "was replaced"} (${whole.length})`;
  }

  /** Somebody else's file, or by chance the same, has the name already. */
  #occupy(target: "ground" | "disk", path: string, ours: Buffer, random: Random): void {
    const drawn = random.next();
    const bytes =
      drawn < 0.2
        ? ours
        : drawn < 0.5
          ? ours.subarray(0, Math.floor(ours.length / 2))
          : keystream(random.between(1, 2 ** 31), ours.length + random.between(0, 2) * 10);
    const full = join(this.rootOf(target), path);
    try {
      this.#write(full, bytes, 1_700_000_000);
    } catch {
      // No space there just now.
      rmSync(temporaryOf(full, this.#count), { force: true });
      return;
    }
    this.#foreign.get(target)?.set(latin1(path), contentOf(bytes));
  }

  /** Whole or not at all, as a device that closes its file. */
  #write(full: string, bytes: Buffer, seconds: number): void {
    mkdirSync(dirname(full), { recursive: true });
    const temporary = temporaryOf(full, this.#count);
    writeFileSync(temporary, bytes);
    utimesSync(temporary, seconds, seconds);
    this.#give(full, temporary);
    renameSync(temporary, full);
  }

  /** The servers run as an ordinary user, who has to own what is there. */
  #give(full: string, file: string): void {
    const served = [this.ground, this.camera].find(({ root }) => full.startsWith(`${root}/`));
    if (served === undefined || !isRoot) return;
    const { uid, gid } = ownerOf(served);
    chownSync(file, uid, gid);
    for (let at = dirname(full); at !== served.root; at = dirname(at)) {
      chownSync(at, uid, gid);
      // Servers that are another user than the owner of the root, which anybody may change.
      chmodSync(at, 0o777);
    }
  }

  expected(): ExpectedTarget[] {
    return (["ground", "disk"] as const).map((target) => {
      const files = new Map<string, readonly Content[]>();
      for (const [name, origin] of Object.entries(this.origins))
        if (origin.targets.includes(target))
          for (const [path, contents] of this.#book.get(name) ?? []) files.set(`${origin.into}/${path}`, contents);
      return { name: target, root: this.rootOf(target), files, foreign: this.#foreign.get(target) ?? new Map<string, Content>() };
    });
  }

  /** What each source has to hold now, once all is delivered. */
  sources(): { name: string; dir: string; files: Map<string, Content> }[] {
    return Object.entries(this.origins).map(([name, origin]) => ({
      name,
      dir: origin.dir,
      files:
        origin.deletes === true
          ? new Map<string, Content>()
          : new Map([...(this.#book.get(name) ?? [])].map(([path, contents]) => [path, contents.at(-1) ?? ""])),
    }));
  }

  /** What was checked is put away, so that the disk does not fill. */
  putAway(): void {
    for (const { dir } of Object.values(this.origins)) empty(dir);
    for (const target of ["ground", "disk"] as const)
      for (const { into } of Object.values(this.origins)) rmSync(join(this.rootOf(target), into), { recursive: true, force: true });
    for (const book of this.#book.values()) book.clear();
    for (const foreign of this.#foreign.values()) foreign.clear();
  }

  async close(keep: boolean): Promise<void> {
    await this.sim.close();
    await this.ground.close();
    await this.camera.close();
    if (keep) return;
    for (const mount of this.#mounts) spawnSync("umount", ["-l", mount]);
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** Where an origin's directory is just now: it may be unplugged. */
function placeOf({ dir }: Origin): string {
  return existsSync(`${dir}.away`) ? `${dir}.away` : dir;
}

function temporaryOf(full: string, n: number): string {
  return join(dirname(full), `.${n}.part`);
}

function mount(image: string, dir: string, mib: number): boolean {
  return [
    ["truncate", "-s", `${mib}M`, image],
    ["mkfs.ext4", "-q", "-m", "0", image],
    ["mount", "-o", "loop", image, dir],
  ].every(([command = "", ...args]) => spawnSync(command, args).status === 0);
}

function latin1(path: string): string {
  return Buffer.from(path).toString("latin1");
}

function empty(dir: string): void {
  spawnSync("find", [dir, "-mindepth", "1", "-delete"]);
}
