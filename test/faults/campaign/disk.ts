/**
 * A disk that is pulled at random moments, as source or as target, in the laboratory of removable disks. In the end trees are compared byte for byte, by
 * the eyes of the system alone.
 */
import { mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { DiskLab, type Disk } from "../../disks/lab.js";
import { Program, runProgram, type SeenEvent } from "../process.js";
import { Random } from "../random.js";
import { treeOf } from "../trees.js";

export interface DiskCampaign {
  readonly seed: number;
  /** What the disk is. */
  readonly role: "source" | "target";
  readonly fs: "ext4" | "exfat";
  readonly pulls: number;
  readonly megabytes: number;
  /** Bytes per second at the disk, so that pulls hit transfers. */
  readonly rate: number;
  /** How long nothing may be left to do after the last plug. */
  readonly restMs: number;
  readonly say?: ((line: string) => void) | undefined;
}

export interface DiskReport {
  readonly pulls: number;
  /** Pulls that hit a transfer. */
  readonly hits: number;
  readonly files: number;
  readonly resumed: number;
  /** Bytes that the disk gave or took beyond those of the files. */
  readonly againBytes: number;
  readonly seconds: number;
  readonly findings: readonly string[];
  /** It stays where something was found. */
  readonly dir: string;
}

/** Files at once on a disk as source and as target; each may have to move so many bytes again after a pull. */
const atOnce = { source: 4, target: 2 };
const againAtMost = 4 * 2 ** 20;
const mountMs = 10_000;

/** A string: why it cannot be had here. */
export async function diskCampaign(how: DiskCampaign): Promise<DiskReport | string> {
  const lab = await DiskLab.open();
  if (typeof lab === "string") return lab;
  const dir = mkdtempSync(join(tmpdir(), "filesync-pulls-"));
  try {
    const report = await new Pulls(how, lab, dir).run();
    if (report.findings.length === 0) rmSync(dir, { recursive: true });
    return report;
  } finally {
    await lab.close();
  }
}

class Pulls {
  readonly #random: Random;
  readonly #findings: string[] = [];
  readonly #begin = performance.now();
  readonly #config: string;

  constructor(
    readonly how: DiskCampaign,
    readonly lab: DiskLab,
    readonly dir: string,
  ) {
    this.#random = new Random(how.seed);
    this.#config = join(dir, "config.json");
    mkdirSync(join(dir, "here"));
  }

  async run(): Promise<DiskReport> {
    const { how, lab, dir } = this;
    const disk = await lab.make("disk", { fs: how.fs, mib: Math.ceil(how.megabytes * 1.15) + 64 });
    const here = join(dir, "here");
    const files = how.role === "source" ? await lab.aside(disk, (at) => this.#fill(lab.path(at))) : this.#fill(here);
    const expected = how.role === "source" ? await lab.aside(disk, (at) => treeOf(lab.path(at))) : treeOf(here);
    expected.forEach((_, path) => path.startsWith("lost+found") && expected.delete(path));
    const device = { type: "disk", uuid: disk.uuid, maxRate: `${Math.round(how.rate / 2 ** 20)}MiB/s` };
    const [from, to] = how.role === "source" ? ["disk", "here"] : ["here", "disk"];
    const devices = { disk: device, here: { type: "local", dir: here } };
    const config = { vehicle: "v", stateDir: "state", spool: { keepFree: "1MiB" }, devices, routes: [{ from, to: [to], into: "" }] };
    writeFileSync(this.#config, JSON.stringify(config));
    const program = new Program(["run", "--json", "--config", this.#config], { wrap: lab.wrap() });
    let hits = 0;
    try {
      for (let n = 1; n <= how.pulls; n++) {
        await lab.plug(disk);
        const attached = () => program.events.filter(({ what, message }) => what === "attached" && message.startsWith("disk:")).length >= n;
        await program.until(attached, `plug ${n}`);
        // On average the files last for all pulls.
        const meanMs = ((how.megabytes * 1e6) / how.rate / how.pulls) * 1000;
        await new Promise((resolve) => setTimeout(resolve, this.#random.between(0, Math.max(20, 1.6 * meanMs))));
        const busy = program.events.length;
        await lab.pull(disk);
        // Where reading notices it first, "detached" says so too, before it is known what was in use.
        const pulled = ({ what, message }: SeenEvent) => what === "device" && /^disk: \S+ was pulled/.test(message);
        await program.until(() => program.events.filter(pulled).length >= n, `that pull ${n} is noticed`);
        const hit = program.events.slice(busy).some((event) => pulled(event) && event.message.includes("in use"));
        if (hit) hits += 1;
        await this.#noMount(n);
        how.say?.(`pull ${n}: ${hit ? "in the middle" : "at rest"}`);
      }
      await lab.plug(disk);
      await this.#untilDone(program, files);
      await this.#judge(program, disk, expected);
      const moved = await this.#moved(how.role);
      const size = [...expected.values()].reduce((sum, text) => sum + Number(text.split(" ")[0]), 0);
      const againBytes = Math.max(0, moved - size);
      if (againBytes > hits * atOnce[how.role] * againAtMost) this.#findings.push(`${againBytes} bytes were moved again in ${hits} pulls`);
      const resumed = program.events.filter(({ what, message }) => what === "resumed" && message.startsWith(`${from}:`)).length;
      const seconds = Math.round((performance.now() - this.#begin) / 1000);
      return { pulls: how.pulls, hits, files, resumed, againBytes, seconds, findings: this.#findings, dir };
    } finally {
      await program.kill();
    }
  }

  /** A few large files and many small ones. */
  #fill(root: string): number {
    let left = this.how.megabytes * 1e6;
    let n = 0;
    while (left > 0) {
      const size = Math.min(left, n % 5 === 0 ? this.#random.between(20e6, 120e6) : this.#random.between(1, 6e6));
      const path = join(root, `DCIM/${100 + (n % 7)}/IMG_${n}.JPG`);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, patternOf(this.#random, size));
      const time = Date.UTC(2026, 4, 1) / 1000 + 2 * n;
      utimesSync(path, time, time);
      left -= size;
      n += 1;
    }
    return n;
  }

  async #noMount(n: number): Promise<void> {
    const until = performance.now() + mountMs;
    const dead = () => this.lab.mounts().filter(({ target }) => target.startsWith(this.dir));
    while (dead().length > 0 && performance.now() < until) await new Promise((resolve) => setTimeout(resolve, 20));
    for (const { target } of dead()) this.#findings.push(`after pull ${n} the dead mount ${target} stays`);
  }

  async #untilDone(program: Program, files: number): Promise<void> {
    const delivered = () => program.events.filter(({ what }) => what === "delivered").length >= files;
    await program.until(delivered, `${files} deliveries`, this.how.restMs);
    await program.until(
      () => program.events.findLast(({ what, facts }) => what === "device" && facts?.["medium"] !== undefined)?.facts?.["safe"] === true,
      "its rest",
    );
  }

  async #judge(program: Program, disk: Disk, expected: ReadonlyMap<string, string>): Promise<void> {
    const { lab, how } = this;
    for (const { what, message } of program.events)
      if (what === "lost" || what === "restarted" || what === "parked" || what === "changed") this.#findings.push(message);
    await lab.pull(disk);
    const actual = how.role === "source" ? treeOf(join(this.dir, "here")) : await lab.aside(disk, (at) => treeOf(lab.path(at)));
    for (const path of actual.keys()) if (path.startsWith("lost+found")) actual.delete(path);
    for (const [path, content] of expected)
      if (actual.get(path) !== content) this.#findings.push(`${path}: ${actual.get(path) ?? "is missing"}, not ${content}`);
    for (const path of actual.keys()) if (!expected.has(path)) this.#findings.push(`${path} should not be there`);
  }

  async #moved(role: "source" | "target"): Promise<number> {
    const { out } = await runProgram(["status", "--json", "--config", this.#config]);
    const { moved } = JSON.parse(out) as { moved: { pulled: number; pushed: number } };
    return role === "source" ? moved.pulled : moved.pushed;
  }
}

/** Bytes of which no two pieces of 4 KiB are alike, made faster than by chance alone. */
function patternOf(random: Random, size: number): Buffer {
  const bytes = Buffer.alloc(size, random.bytes(4099));
  for (let at = 0; at + 8 <= size; at += 4096) bytes.writeDoubleLE(random.next(), at);
  return bytes;
}
