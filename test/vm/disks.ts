/**
 * USB sticks in a machine of their own (machine.ts): plugged and pulled at moments of chance, two with one UUID, a stick pulled while it is written on, the
 * power cut with sticks in. Trees are compared by SHA-256, made by another program than ours. `npm run vm -- disks`.
 */
import { Random } from "../faults/random.js";
import { Daemon, install } from "./daemon.js";
import { compare, type Given, hintsOf, movedAgain, Results, spread, troubles, type Row } from "./evidence.js";
import { Machine } from "./machine.js";
import { isIn, pause, plugAndPull, type Stay } from "./sessions.js";
import { contentOf, fill, kinds, makeStick, putFiles, treeIn, type Tree, type UsbStick } from "./sticks.js";

export interface DisksGiven extends Given {
  /** Of each stick, by its UUID; the other scenarios have shares of it. */
  readonly pulls: number;
}

const mib = 2 ** 20;
/** What an interruption may cost. */
const mostAgain = 4 * mib;
const out = { type: "local", dir: "/data/out" };

/** A string says why there can be no machine here. */
export async function disks(given: DisksGiven): Promise<readonly Row[] | string> {
  const machine = await Machine.start(given);
  if (typeof machine === "string") return machine;
  try {
    await install(machine);
    const run = new Disks(machine, given);
    for (const name of scenarios) {
      if (given.only !== undefined && !given.only.includes(name)) continue;
      const begun = performance.now();
      given.say(`--- ${name}`);
      await run.scenario(name);
      given.say(`--- ${name}: ${Math.round((performance.now() - begun) / 1000)} s`);
    }
    return run.results.rows;
  } finally {
    await machine.close();
  }
}

export const scenarios = ["uuid", "any", "target", "twins", "power"] as const;

class Disks {
  readonly results: Results;
  readonly daemon: Daemon;
  readonly random: Random;

  constructor(
    readonly machine: Machine,
    readonly given: DisksGiven,
  ) {
    this.results = new Results(given.say);
    this.daemon = new Daemon(machine);
    this.random = new Random(given.seed);
  }

  /** What it throws is a row too: the others are run. */
  async scenario(name: (typeof scenarios)[number]): Promise<void> {
    try {
      await this.machine.must("rm -rf /data && mkdir -p /data/out /data/in");
      await this[name]();
      this.results.none(name, "troubles that the daemon told of", troubles(this.daemon));
    } catch (error) {
      this.results.row(name, "ran to its end", error instanceof Error ? error.message : String(error), false);
    }
    try {
      await this.daemon.stop();
      await this.machine.pullAll();
      await this.machine.must("umount -l /var/lib/filesync/mnt/*/* 2>/dev/null; true");
    } catch (error) {
      // The machine itself is broken: nothing more can be run on it.
      throw new Error(`after ${name}`, { cause: error });
    }
  }

  async uuid(): Promise<void> {
    const { sticks, trees } = await this.#filled("uuid", this.given.pulls);
    const devices = Object.fromEntries(sticks.map(({ fs, uuid }) => [fs, { type: "disk", uuid }]));
    await this.daemon.start({ devices: { ...devices, out }, routes: sticks.map(({ fs }) => ({ from: fs, to: ["out"] })) });
    const stays = await this.#all(sticks, ({ fs }) => fs, this.given.pulls);
    const last = await this.#finish("uuid", sticks, trees);
    this.#judgeRead("uuid", stays, { last, idle: await this.#untilSafe(sticks), trees });
    await this.#judgeSources("uuid", sticks, stays, trees, ({ fs }) => `v/${fs}/`);
  }

  async any(): Promise<void> {
    const pulls = Math.ceil(this.given.pulls / 3);
    const { sticks, trees } = await this.#filled("any", pulls);
    await this.daemon.start({ devices: { any: { type: "disk", any: true }, out }, routes: [{ from: "any", to: ["out"] }] });
    const stays = await this.#all(sticks, () => "any", pulls);
    const last = await this.#finish("any", sticks, trees);
    this.#judgeRead("any", stays, { last, idle: await this.#untilSafe(sticks), trees });
    await this.#judgeSources("any", sticks, stays, trees, ({ uuid }) => `v/any/${uuid}/`);
  }

  /** From a directory to three sticks, which are pulled while they are written on. */
  async target(): Promise<void> {
    const pulls = Math.ceil(this.given.pulls / 3);
    const bytes = (8 + 2 * pulls) * mib;
    const sticks = kinds.map((fs) => makeStick(this.machine, { name: `target-${fs}`, fs, mib: 64 + Math.ceil((1.4 * bytes) / mib) }));
    const tree = await putFiles(this.machine, "/data/in", this.random, bytes);
    const devices = Object.fromEntries(sticks.map(({ fs, uuid }) => [fs, { type: "disk", uuid }]));
    await this.daemon.start({
      devices: { in: { type: "local", dir: "/data/in" }, ...devices },
      routes: [{ from: "in", to: sticks.map(({ fs }) => fs) }],
    });
    const stays = await this.#all(sticks, ({ fs }) => fs, pulls);
    await this.#finish(
      "target",
      sticks,
      sticks.map(() => tree),
    );
    this.#judgeStays("target", stays);
    this.#judgeAgain("target", (_, to) => to !== "spool", stays.length);
    const moved = this.daemon.moved?.pushed ?? 0;
    this.#judgeTotal("target", moved - 3 * sizeOf(tree), stays);
    await this.#judgeMounts("target");
    await this.daemon.stop();
    for (const stick of sticks) this.#judgeTree(`target ${stick.fs}`, await contentOf(this.machine, stick), prefixed(tree, "v/in/"));
  }

  /** Two sticks with one UUID and files of the same names: in turn, and both at once. */
  async twins(): Promise<void> {
    const turns = Math.max(2, Math.ceil(this.given.pulls / 10));
    const uuid = "5C3D-DD9E";
    const bytes = (8 + 4 * turns) * mib;
    const sticks = ["twin-a", "twin-b"].map((name) =>
      makeStick(this.machine, { name, fs: "vfat", uuid, mib: 64 + Math.ceil((1.3 * bytes) / mib) }),
    );
    const trees: Tree[] = [];
    for (const stick of sticks) trees.push(await fill(this.machine, stick, this.random, bytes));
    await this.daemon.start({ devices: { cam: { type: "disk", uuid }, out }, routes: [{ from: "cam", to: ["out"] }] });
    const stays: Stay[] = [];
    for (let n = 0; n < turns; n++) for (const stick of sticks) stays.push(...(await this.#stays(stick, "cam", 1)));
    // Both at once, the second while the first is at work.
    const [first, second] = sticks as [UsbStick, UsbStick];
    let from = this.daemon.seen.length;
    await this.machine.plug(first);
    await isIn(this.daemon, "cam", first, from);
    await this.machine.plug(second);
    await this.daemon.until(({ message }) => message.includes("answers the description too"), "that the second waits", from);
    this.results.row("twins", "both at once: the second waits, and that is said", "yes");
    for (const stick of [first, second]) {
      await this.daemon.until(({ message }) => message.endsWith("it may be pulled"), "that it may be pulled", from, 300_000);
      from = this.daemon.seen.length;
      await this.machine.pull(stick);
    }
    await this.daemon.watch(() => this.#rest === 0, "the last delivery", 120_000);
    this.#judgeStays("twins", stays);
    this.#judgeTotal("twins", (this.daemon.moved?.pulled ?? 0) - sizeOf(...trees), stays);
    await this.#judgeMounts("twins");
    // The second of a name is published under `name~<digest>.ext`.
    const wanted = trees.flatMap((tree) => [...prefixed(tree, "v/cam/")]).map(([path, content]) => `${path} ${content}`);
    const found = [...(await treeIn(this.machine, "/data/out"))].map(
      ([path, content]) => `${path.replace(/~[0-9a-f]{8}(?=\.JPG$)/, "")} ${content}`,
    );
    this.results.none(
      "twins",
      `lost of ${wanted.length} files`,
      wanted.filter((one) => !found.includes(one)),
    );
    this.results.none("twins", "wrong", [
      ...found.filter((one) => !wanted.includes(one)),
      ...(found.length > wanted.length ? ["too many"] : []),
    ]);
  }

  /** The power is cut while one stick is read and two are written on. */
  async power(): Promise<void> {
    const cuts = Math.max(2, Math.ceil(this.given.pulls / 10));
    const bytes = (8 + 6 * cuts) * mib;
    const size = 64 + Math.ceil((1.4 * bytes) / mib);
    const source = makeStick(this.machine, { name: "power-exfat", fs: "exfat", mib: size });
    const targets = (["vfat", "ext4"] as const).map((fs) => makeStick(this.machine, { name: `power-${fs}`, fs, mib: size }));
    const tree = await fill(this.machine, source, this.random, bytes);
    const inTree = await putFiles(this.machine, "/data/in", this.random, bytes);
    const devices = Object.fromEntries([source, ...targets].map(({ fs, uuid }) => [fs, { type: "disk", uuid }]));
    await this.daemon.start({
      devices: { ...devices, in: { type: "local", dir: "/data/in" }, out },
      routes: [
        { from: "exfat", to: ["out"] },
        { from: "in", to: ["vfat", "ext4"] },
      ],
    });
    const sticks = [source, ...targets].map((stick) => ({ ...stick, bps: mib }));
    for (const stick of sticks) await this.machine.plug(stick);
    for (let n = 1; n <= cuts; n++) {
      const from = this.daemon.seen.length;
      const runs = () =>
        new Set(this.daemon.seen.slice(from).flatMap((one) => (one.seen === "moved" ? one.transfers.map(({ to }) => to) : [])));
      await this.daemon.watch(
        () => ["spool", "vfat", "ext4"].every((to) => runs().has(to)),
        `that all three work, before cut ${n}`,
        120_000,
      );
      await pause(this.random.between(500, 6000));
      const at = this.daemon.moved?.transfers.map(({ to, path, offset }) => `${to} ${path} at ${(offset / mib).toFixed(1)} MiB`).join(", ");
      await this.machine.powerCut();
      this.given.say(`  cut ${n} of ${cuts}: ${at ?? ""}`);
      await this.machine.boot();
      await this.daemon.observe();
    }
    await this.daemon.watch(() => this.#rest === 0 && this.#files >= tree.size + 2 * inTree.size, "that all is delivered", 900_000);
    this.results.row("power", "power cuts with one stick read and two written on; each time it went on by itself", cuts);
    this.#judgeAgain("power", () => true, cuts);
    for (const stick of sticks) await this.machine.pull(stick);
    await this.daemon.stop();
    this.#judgeTree("power source", await treeIn(this.machine, "/data/out"), prefixed(tree, "v/exfat/"));
    for (const stick of targets)
      this.#judgeTree(`power target ${stick.fs}`, await contentOf(this.machine, stick), prefixed(inTree, "v/in/"));
  }

  // ---------------------------------------------------------------- what they share

  /** One stick of each kind, with more on it than is read while it is plugged and pulled so often. */
  async #filled(name: string, pulls: number): Promise<{ sticks: UsbStick[]; trees: Tree[] }> {
    const bytes = (8 + 2 * pulls) * mib;
    const sticks = kinds.map((fs) => makeStick(this.machine, { name: `${name}-${fs}`, fs, mib: 64 + Math.ceil((1.3 * bytes) / mib) }));
    const trees: Tree[] = [];
    for (const stick of sticks) trees.push(await fill(this.machine, stick, this.random, bytes));
    return { sticks, trees };
  }

  #stays(stick: UsbStick, device: string, pulls: number, random = this.random): Promise<Stay[]> {
    return plugAndPull({ machine: this.machine, daemon: this.daemon, random, device, pulls, say: this.given.say }, stick);
  }

  /** All at the same time, each by a chance of its own. */
  async #all(sticks: readonly UsbStick[], device: (stick: UsbStick) => string, pulls: number): Promise<Stay[]> {
    const seeds = sticks.map(() => this.random.between(0, 2 ** 31));
    const runs = sticks.map((stick, n) => this.#stays(stick, device(stick), pulls, new Random(seeds[n] ?? 0)));
    const ended = await Promise.allSettled(runs);
    const failed = ended.find((one) => one.status === "rejected");
    if (failed !== undefined) throw failed.reason;
    return ended.flatMap((one) => (one.status === "fulfilled" ? one.value : []));
  }

  /** Plugged for good, until all is where it belongs and each may be pulled; then pulled. What QEMU read from them meanwhile. */
  async #finish(name: string, sticks: readonly UsbStick[], trees: readonly Tree[]): Promise<number> {
    const files = trees.reduce((sum, { size }) => sum + size, 0);
    const done = () => this.#rest === 0 && this.#files >= files;
    return this.#untilSafe(sticks, () => this.daemon.watch(done, `${name}: that all ${files} are delivered`, 900_000));
  }

  /** Plugs them, waits until each may be pulled, and pulls them. */
  async #untilSafe(sticks: readonly UsbStick[], also = () => Promise.resolve()): Promise<number> {
    const from = this.daemon.seen.length;
    for (const stick of sticks) await this.machine.plug(stick);
    await also();
    for (const { uuid } of sticks)
      await this.daemon.until(
        ({ message }) => message.includes(uuid) && message.endsWith("it may be pulled"),
        `that ${uuid} may be pulled`,
        from,
      );
    let bytes = 0;
    for (const stick of sticks) bytes += (await this.machine.pull(stick)).read;
    await this.daemon.watch(() => sticks.every(({ uuid }) => this.#isOut(uuid, from)), "that it is seen that they were pulled");
    return bytes;
  }

  #isOut(uuid: string, from: number): boolean {
    const { seen } = this.daemon;
    return seen.slice(from).some((one) => one.seen === "said" && one.event.message.includes(uuid) && /was pulled/.test(one.event.message));
  }

  /** Deliveries that are not done yet. */
  get #rest(): number {
    const { waiting, active, parked } = this.daemon.moved?.queue ?? { waiting: 1, active: 0, parked: 0 };
    return waiting + active + parked;
  }

  get #files(): number {
    return this.daemon.moved?.queue.delivered ?? 0;
  }

  async #judgeSources(
    name: string,
    sticks: readonly UsbStick[],
    stays: readonly Stay[],
    trees: readonly Tree[],
    into: (stick: UsbStick) => string,
  ): Promise<void> {
    this.#judgeStays(name, stays);
    this.#judgeAgain(name, (_, to) => to === "spool", stays.length);
    this.#judgeTotal(name, (this.daemon.moved?.pulled ?? 0) - sizeOf(...trees), stays);
    this.#judgeHints(name, sticks);
    await this.#judgeMounts(name);
    const expected = new Map(sticks.flatMap((stick, n) => [...prefixed(trees[n] ?? new Map<string, string>(), into(stick))]));
    this.#judgeTree(name, await treeIn(this.machine, "/data/out"), expected);
  }

  #judgeStays(name: string, stays: readonly Stay[]): void {
    const hit = stays.filter(({ broken }) => broken > 0).length;
    const early = stays.filter((stay) => stay.early).length;
    this.results.row(
      name,
      "pulls; in the middle of a transfer; at a moment when it may not have been seen",
      `${stays.length}; ${hit}; ${early}`,
      hit > 0,
    );
  }

  #judgeAgain(name: string, isHop: (from: string, to: string) => boolean, pulls: number): void {
    const again = movedAgain(this.daemon.seen, isHop);
    const most = Math.max(0, ...again.map(({ bytes }) => bytes));
    const zero = again.filter(({ bytes, at }) => at === 0 && bytes > mostAgain);
    this.results.row(
      name,
      `moved again of one transfer after one of ${pulls} interruptions, at most`,
      `${(most / mib).toFixed(2)} MiB`,
      most <= mostAgain,
    );
    this.results.none(
      name,
      "begun again from zero after more than 4 MiB",
      zero.map(({ path, bytes }) => `${path} after ${bytes} bytes`),
    );
  }

  /** By the daemon's own counter, which misses no byte. */
  #judgeTotal(name: string, bytes: number, stays: readonly Stay[]): void {
    const hit = Math.max(1, stays.filter(({ broken }) => broken > 0).length);
    const each = bytes / hit / mib;
    this.results.row(
      name,
      "moved again in all; for each pull in the middle",
      `${(bytes / mib).toFixed(1)} MiB; ${each.toFixed(2)} MiB`,
      each <= 4 && bytes >= 0,
    );
  }

  #judgeHints(name: string, sticks: readonly UsbStick[]): void {
    const hints = hintsOf(
      this.daemon.seen,
      sticks.map(({ uuid }) => uuid),
    );
    this.results.row(
      name,
      "plugs that udev told of; of which the hint (inotify) came",
      `${hints.plugs}; ${hints.hinted}`,
      hints.plugs === hints.hinted,
    );
    this.results.row(name, "the hint after udev's word", spread(hints.plugMs));
    this.results.row(name, "udev's word after the kernel's", spread(hints.udevMs));
    this.results.row(
      name,
      "pulls that udev told of; of which the hint came",
      `${hints.removes}; ${hints.removesHinted}`,
      hints.removes === hints.removesHinted,
    );
    this.results.row(name, "the hint after udev's word of a pull", spread(hints.removeMs));
  }

  /** Seen from outside: with the listings, what the kernel read ahead, and the chunk that was not whole yet. `idle`: a plug of each with nothing new. */
  #judgeRead(name: string, stays: readonly Stay[], given: { last: number; idle: number; trees: readonly Tree[] }): void {
    const read = stays.reduce((sum, stay) => sum + stay.read, given.last);
    const files = sizeOf(...given.trees);
    const plugs = stays.length + given.trees.length;
    const more = (read - files) / plugs;
    const idle = given.idle / given.trees.length;
    const text = [read, files].map((bytes) => (bytes / mib).toFixed(0)).concat([more, idle].map((bytes) => (bytes / mib).toFixed(2)));
    const what = "MiB read by QEMU's count; of the files; more for each plug; for a plug with nothing new";
    this.results.row(name, what, text.join("; "), more - idle <= mostAgain);
  }

  async #judgeMounts(name: string): Promise<void> {
    const left = await this.machine.must("grep /var/lib/filesync /proc/mounts || true");
    this.results.none(
      name,
      "mounts left behind, all sticks being out",
      left.split("\n").filter((line) => line !== ""),
    );
  }

  #judgeTree(name: string, found: Tree, expected: Tree): void {
    const { lost, wrong } = compare(found, expected);
    this.results.none(name, `lost of ${expected.size} files`, lost);
    this.results.none(name, "wrong", wrong);
  }
}

function prefixed(tree: Tree, prefix: string): Tree {
  return new Map([...tree].map(([path, content]) => [`${prefix}${path}`, content]));
}

function sizeOf(...trees: Tree[]): number {
  return trees.flatMap((tree) => [...tree.values()]).reduce((sum, content) => sum + Number(content.split(" ", 1)[0]), 0);
}
