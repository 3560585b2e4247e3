/** A small world for a test: directories, a configuration, and the program run on it. */
import { spawnSync } from "node:child_process";
import { appendFileSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { TestContext } from "node:test";
import { codeOf } from "../../core/errors.js";
import { until } from "../conformance/clause.js";
import { mountSmall, unmount } from "../small-disk.js";
import { Program } from "./process.js";

export class World {
  readonly dir: string;

  constructor(t: TestContext) {
    this.dir = mkdtempSync(join(tmpdir(), "filesync-world-"));
    t.after(async () => {
      // What a test kills after itself, it kills after this.
      await Program.killBelow(this.dir);
      this.#mounts.forEach(unmount);
      rmSync(this.dir, { recursive: true, force: true });
    });
  }

  /** An ext4 of its own of `mib` MiB, mounted at `name`; false where this machine cannot. */
  mount(name: string, mib: number): boolean {
    const dir = this.mkdir(name);
    if (mountSmall(this.path(`${name}.img`), dir, mib) !== undefined) return false;
    this.#mounts.push(dir);
    return true;
  }

  /** Repairs what was mounted as `name`, and mounts it again. */
  mend(name: string): void {
    this.#unmounted(name, () => []);
  }

  /** Damages what was mounted as `name` (debugfs), and mounts it again. */
  spoil(name: string, requests: readonly string[]): void {
    this.#unmounted(name, (image) => requests.map((request) => ["debugfs", "-w", "-R", request, image]));
  }

  #unmounted(name: string, work: (image: string) => string[][]): void {
    const [old, image, dir] = [
      this.#images.get(name) ?? this.path(`${name}.img`),
      this.path(`${name}-${++this.#copies}.img`),
      this.path(name),
    ];
    this.#images.set(name, image);
    for (const [command = "", ...args] of [
      ["umount", dir],
      // A mount namespace of another test, begun meanwhile, keeps the file system as it is, and what mounts the same image gets that one, read-only.
      ["sync"],
      ["cp", "--sparse=always", old, image],
      // What is in its log still would be written over what `work` does.
      ["fsck.ext4", "-y", image],
      ...work(image),
      ["mount", "-o", "loop", image, dir],
    ]) {
      const { status, stderr } = spawnSync(command, args, { encoding: "utf8" });
      // fsck: 1 when it mended something.
      if ((status ?? 9) > 1) throw new Error(`${command}: ${stderr}`);
    }
  }

  /** By name, where another copy of it is mounted by now. */
  readonly #images = new Map<string, string>();
  #copies = 0;
  readonly #mounts: string[] = [];

  path(...parts: string[]): string {
    return join(this.dir, ...parts);
  }

  mkdir(...parts: string[]): string {
    mkdirSync(this.path(...parts), { recursive: true });
    return this.path(...parts);
  }

  /** A file whose time is `seconds` after 2026-05-28, so that it has settled. */
  file(path: string, content: string | Buffer, seconds = 0): void {
    const time = Date.UTC(2026, 4, 28) / 1000 + seconds;
    this.comes(this.path(path), content, (at) => utimesSync(at, time, time));
  }

  /**
   * Writes a file, and does to it what is given. Where a program runs that may look at it, it gets its name whole, by one rename: what does not
   * wait until a file has settled would bring the empty one, or one with the time of now, first.
   */
  comes(at: string, content: string | Buffer, then: (at: string) => void = () => undefined, beside = this.dir): void {
    mkdirSync(dirname(at), { recursive: true });
    const isWatched = Program.runsBelow(this.dir);
    const written = isWatched ? join(beside, ".coming") : at;
    writeFileSync(written, content);
    then(written);
    if (!isWatched) return;
    try {
      renameSync(written, at);
    } catch (error) {
      if (codeOf(error) !== "EXDEV") throw error;
      // Another file system, such as a card.
      rmSync(written);
      writeFileSync(at, content);
      then(at);
    }
  }

  config(config: object, name = "config.json"): string {
    writeFileSync(this.path(name), JSON.stringify({ vehicle: "v", stateDir: "state", spool: { keepFree: "1MiB" }, ...config }));
    return this.path(name);
  }

  /** Writes to a file until not one byte more fits on its disk. */
  fill(path: string): void {
    for (const size of [2 ** 20, 4096, 1])
      for (;;) {
        try {
          appendFileSync(this.path(path), Buffer.alloc(size, 1));
        } catch (error) {
          if (error instanceof Error && "code" in error && error.code === "ENOSPC") break;
          throw error;
        }
      }
  }

  /** Waits until a partial in `dir` has so many bytes; fails where that does not come, or was over before it was seen. */
  async partialOf(bytes: number, dir = "out"): Promise<void> {
    const partials = () => readdirSync(this.path(dir)).filter((name) => name.endsWith(".part"));
    await until(`a partial of ${bytes} bytes in ${dir}`, () => partials().some((name) => this.size(join(dir, name)) >= bytes));
  }

  size(path: string): number {
    return statSync(this.path(path), { throwIfNoEntry: false })?.size ?? -1;
  }
}
