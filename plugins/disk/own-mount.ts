/**
 * Where this program mounts by itself: below the state directories of its devices, and at the directories of the configuration, where others may
 * mount too. That it did so there is noted, which outlives a kill; a mount goes with the system, so a note of before its last start says nothing.
 *
 * All devices of this installation count: two that name one disk share its mount (`shared.ts`), whichever of them made it.
 */
import { promises as fs, readdirSync, readFileSync, realpathSync } from "node:fs";
import { basename, dirname, join } from "node:path";

const boot = "/proc/sys/kernel/random/boot_id";
const place = "mnt";
const noteName = "mounted";

export class OwnMounts {
  /** `stateDir` is that of a device; those of the others are beside it. */
  constructor(readonly stateDir: string) {}

  /** Where it mounts what is called `name`. */
  dirFor(name: string): string {
    return join(this.stateDir, place, name);
  }

  /** Before it is mounted: what a kill leaves is known to be ours. */
  async note(dir: string): Promise<void> {
    await fs.mkdir(this.stateDir, { recursive: true });
    await fs.writeFile(join(this.stateDir, noteName), `${readFileSync(boot, "utf8")}${dir}`);
  }

  /** Nothing of ours is mounted at `dir` any more. */
  async forget(dir: string): Promise<void> {
    for (const [note, noted] of this.#notes()) if (noted === dir) await fs.rm(note, { force: true });
  }

  /** Whether this program mounts at `dir`. */
  has(dir: string): boolean {
    const [device, own, name] = dir.startsWith(`${this.#all}/`) ? dir.slice(this.#all.length + 1).split("/") : [];
    if (device !== undefined && own === place && name !== undefined) return true;
    return [...this.#notes().values()].includes(dir);
  }

  get #all(): string {
    return dirname(this.stateDir);
  }

  /** What is noted since the system was started: the directory, by the note. */
  #notes(): Map<string, string> {
    const now = readFileSync(boot, "utf8");
    const notes = new Map<string, string>();
    for (const device of read(() => readdirSync(this.#all)) ?? []) {
      const note = join(this.#all, device, noteName);
      const text = read(() => readFileSync(note, "utf8")) ?? "";
      if (text.startsWith(now)) notes.set(note, text.slice(now.length));
    }
    return notes;
  }
}

/** undefined: it is not there. */
function read<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    if (error instanceof Error && "code" in error && (error.code === "ENOENT" || error.code === "ENOTDIR")) return undefined;
    throw error;
  }
}

/** As the mount table names it: without links; of what is not there yet, as far as it is. */
export function realOf(path: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    // What else is wrong with it is told when it is to be mounted there.
    if (!(error instanceof Error && "code" in error && error.code === "ENOENT") || dirname(path) === path) return path;
    return join(realOf(dirname(path)), basename(path));
  }
}
