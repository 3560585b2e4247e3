/**
 * Where this program mounts by itself: below the state directories of its devices, and at the directories of the configuration, where others may
 * mount too. That it did so there is noted, which outlives a kill; a mount goes with the system, so a note of before its last start says nothing.
 *
 * All devices of this installation count: two that name one disk share its mount (`shared.ts`), whichever of them made it.
 */
import { promises as fs, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { bootId } from "../../core/boot.js";
import { codeOf } from "../../core/errors.js";

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
    await fs.writeFile(join(this.stateDir, noteName), `${bootId()}\n${dir}`);
  }

  /** Nothing of ours is mounted at `dir` any more. */
  async forget(dir: string): Promise<void> {
    for (const [note, noted] of this.#notes()) if (noted === dir) await fs.rm(note, { force: true });
  }

  /** Whether this program mounts at a directory, as noted at the first question: for one look, whose mounts were read before it asks. */
  forOneLook(): (dir: string) => boolean {
    let noted: ReadonlySet<string> | undefined;
    return (dir) => {
      const [device, own, name] = dir.startsWith(`${this.#all}/`) ? dir.slice(this.#all.length + 1).split("/") : [];
      if (device !== undefined && own === place && name !== undefined) return true;
      noted ??= new Set(this.#notes().values());
      return noted.has(dir);
    };
  }

  get #all(): string {
    return dirname(this.stateDir);
  }

  /** What is noted since the system was started: the directory, by the note. */
  #notes(): Map<string, string> {
    const now = `${bootId()}\n`;
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
    if (["ENOENT", "ENOTDIR"].includes(codeOf(error))) return undefined;
    throw error;
  }
}
