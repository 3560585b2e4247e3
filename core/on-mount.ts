/**
 * Whether a directory is on the file system that it was on. A disk that is not mounted leaves its mount point: what is written there fills the file system
 * of the machine, and is hidden once the disk is back.
 */
import { readFileSync, realpathSync, statfsSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import * as v from "valibot";
import { codeOf, Fault } from "./errors.js";
import { isIn, mountsIn } from "./mounts.js";
import { described } from "./options.js";
import type { Memo, Presence } from "./plugin.js";

/** The option of a device that has a directory of this machine. */
export const mounted = () =>
  v.optional(
    described(
      v.boolean("true or false"),
      "Whether its directory has to be on a file system that is mounted: `true` from the first start on, `false` never. Default: once it was seen to be.",
    ),
  );

interface Known {
  /** With no link in it. */
  readonly dir: string;
  /** Where its file system is mounted. */
  readonly at: string;
}

const key = "mount";

const wayOut = '"mounted": false';

/** Whether a reason, as `status` tells it, is one of these. */
export const isOfMount = (reason: string): boolean => reason.includes(wayOut);

/** How often a directory that is away is looked for, and one that is there looked at. */
export const lookMs = 2000;

/** What statfs says of tmpfs and ramfs. */
const inMemory = [0x01021994, 0x858458f6];

export class OnMount {
  #known: Known | undefined;
  /** `placeOf` where it was seen last, on a file system that is not the machine's own: as long as it is there nothing else has to be looked at. */
  #there: string | undefined;

  /** `must`: the option. What was seen is kept in `memory`. */
  constructor(
    readonly dir: string,
    readonly must: boolean | undefined,
    readonly memory: Memo,
  ) {
    this.#known = memory.get(key) as Known | undefined;
  }

  /**
   * Why it is not, for a person. Synchronous: some microseconds, and as many for each part of the path where that is new. A directory that cannot be looked at is
   * no reason: that shows where it is used.
   */
  away(): string | undefined {
    if (this.must === false || (this.#there !== undefined && placeOf(this.dir) === this.#there)) return undefined;
    this.#there = undefined;
    const found = lookedAt(this.dir);
    if (found === undefined) return undefined;
    const { dir, isThere, at } = found;
    // Below the same mount point, also by another way: a link that leads on is on the disk, and goes with it.
    const was = this.#known !== undefined && isIn(dir, this.#known.at) ? this.#known.at : undefined;
    const without = `mount it, or say ${wayOut} where ${this.dir} is to be used without`;
    if (was !== undefined && was !== at && isIn(was, at)) return `${was} is not mounted: ${without}`;
    if (was === undefined && this.must === true && !isMounted(found)) return `${this.dir} is on no file system that is mounted: ${without}`;
    if (!isThere || at === "/") return undefined;
    if (at !== was || dir !== this.#known?.dir) this.#learn({ dir, at });
    this.#there = placeOf(dir);
    return undefined;
  }

  /** For what is served also while nobody asks: `told` gets its presence, at once and whenever that is another. Ended by what is returned. */
  watch(epoch: string, told: (presence: Presence) => void): () => void {
    let was: string | undefined;
    told({ state: "attached", epoch });
    const timer = setInterval(() => {
      const away = this.away();
      if (away === was) return;
      was = away;
      told(away === undefined ? { state: "attached", epoch } : { state: "detached", reason: `it is not served: ${away}` });
    }, lookMs);
    return () => clearInterval(timer);
  }

  /** Throws Fault "offline". */
  expectHere(): void {
    const away = this.away();
    if (away !== undefined) throw new Fault("offline", away);
  }

  #learn(known: Known): void {
    this.#known = known;
    // Else it is learned at the next start.
    this.memory.set(key, known).catch(() => undefined);
  }
}

/** Names a directory that is there, on its file system: one that is mounted twice has two places for it. */
function placeOf(path: string): string | undefined {
  try {
    const dir = realpathSync(path);
    return `${statSync(dir).dev} ${dir}`;
  } catch {
    return undefined;
  }
}

interface Found extends Known {
  readonly isThere: boolean;
}

function lookedAt(dir: string): Found | undefined {
  try {
    const real = realOf(dir);
    return { ...real, at: mountOf(real.dir) };
  } catch {
    return undefined;
  }
}

/** Also of a directory that is not there. */
function realOf(dir: string): { readonly dir: string; readonly isThere: boolean } {
  try {
    return { dir: realpathSync(dir), isThere: true };
  } catch (error) {
    if (codeOf(error) !== "ENOENT" || dirname(dir) === dir) throw error;
    return { dir: join(realOf(dirname(dir)).dir, basename(dir)), isThere: false };
  }
}

/** The uppermost directory of the same file system, from `dir` on or, where that is not there, from the nearest above it. */
function mountOf(dir: string): string {
  let found: { readonly at: string; readonly device: number } | undefined;
  for (let at = dir; ; at = dirname(at)) {
    const device = statSync(at, { throwIfNoEntry: false })?.dev;
    if (found !== undefined && device !== found.device) return found.at;
    if (device !== undefined) found = { at, device };
    if (dirname(at) === at) return at;
  }
}

/**
 * Before it was ever seen. A mount point may be in memory, as below /run/media. Another part of the machine's own file system that is bound there
 * (`mount --bind`), which no number of a device tells, counts; one that is bound to its own place, as a sandbox of systemd does, does not.
 */
function isMounted({ dir, at }: Found): boolean {
  try {
    if (at !== "/" && !inMemory.includes(statfsSync(at).type)) return true;
    const mounts = mountsIn(readFileSync("/proc/self/mountinfo", "utf8"));
    const top = mounts.findLast((mount) => mount.dir === "/");
    return mounts.some(
      (mount) => mount.dir !== "/" && mount.device === top?.device && isIn(dir, mount.dir) && mount.root !== join(top.root, mount.dir),
    );
  } catch {
    return false;
  }
}
