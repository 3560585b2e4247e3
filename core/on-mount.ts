/**
 * Whether a directory is on the file system that it was on. A disk that is not mounted leaves its mount point: what is written there fills the file system
 * of the machine, and is hidden once the disk is back.
 */
import { promises as fs, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import * as v from "valibot";
import { codeOf, Fault } from "./errors.js";
import { isIn, readMounts } from "./mounts.js";
import { described } from "./options.js";
import type { Memo, Presence } from "./plugin.js";
import { distinctUntilChanged, exhaustMap, startWith, timer } from "./rxjs.js";
import { ifThere } from "./stat.js";

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

const hangs = "does not answer: its file system hangs";

/** Whether a reason, as `status` tells it, is one of these. */
export const isOfMount = (reason: string): boolean => reason.includes(wayOut) || isHanging(reason);

export const isHanging = (reason: string): boolean => reason.endsWith(hangs);

/** How often a directory that is away is looked for, and one that is there looked at. */
export const lookMs = 2000;

/** What statfs says of tmpfs and ramfs. */
const inMemory = [0x01021994, 0x858458f6];

/** The same, and of ext2 to ext4, XFS, Btrfs, F2FS, FAT, exFAT and overlayfs (statfs(2)). */
const own: ReadonlySet<number> = new Set([...inMemory, 0xef53, 0x58465342, 0x9123683e, 0xf2f52010, 0x4d44, 0x2011bab0, 0x794c7630]);

/** A look that takes longer is one at a file system that hangs: a driver that is a program answers once it has synced, a disk once it spins. */
const hangsMs = 30_000;

/** Of those who ask while an answer is awaited, which may tell what is no more, all get the next one. */
export class Look<T> {
  #running: Promise<{ readonly found: T } | undefined> | undefined;
  #next: Promise<{ readonly found: T } | undefined> | undefined;
  #hangs = false;

  constructor(readonly look: () => Promise<T>) {}

  /** It is late. */
  get hangs(): boolean {
    return this.#hangs;
  }

  /** undefined where it is late: at once, as long as it is. */
  async asked(): Promise<{ readonly found: T } | undefined> {
    if (this.#hangs) return undefined;
    if (this.#running === undefined) return this.#begun();
    const next = () => {
      this.#next = undefined;
      return this.asked();
    };
    return (this.#next ??= this.#running.then(next, next));
  }

  #begun(): Promise<{ readonly found: T } | undefined> {
    return (this.#running = new Promise((resolve, reject) => {
      const late = setTimeout(() => {
        this.#hangs = true;
        resolve(undefined);
      }, hangsMs);
      const ended = () => {
        this.#running = undefined;
        this.#hangs = false;
        clearTimeout(late);
      };
      void this.look()
        .finally(ended)
        .then((found) => resolve({ found }), reject);
    }));
  }
}

export class OnMount {
  readonly #whole: Look<string | undefined>;
  readonly #quick: Look<boolean>;
  #known: Known | undefined;
  /** The device of what the last whole look found in order. As long as the directory is on that, nothing else has to be looked at. */
  #device: number | undefined;
  /** The kernel's own, on a disk of this machine or in memory: of a directory that was just looked at it answers at once. */
  #isOwn = false;

  /** `must`: the option. What was seen is kept in `memory`. */
  constructor(
    readonly dir: string,
    readonly must: boolean | undefined,
    readonly memory: Memo,
  ) {
    this.#known = memory.get(key) as Known | undefined;
    this.#whole = new Look(() => this.#looked());
    this.#quick = new Look(async () => this.#device !== undefined && this.#device === (await deviceOf(dir)));
  }

  /** Why it is not, for a person: within half a minute, also where it hangs. A directory that cannot be looked at is no reason: that shows where it is used. */
  async away(): Promise<string | undefined> {
    const answer = await this.#whole.asked();
    return answer === undefined ? hanging(this.dir) : answer.found;
  }

  /** For what is served also while nobody asks: `told` gets its presence, at once and whenever that is another. Ended by what is returned. */
  watch(epoch: string, told: (presence: Presence) => void): () => void {
    const looking = timer(lookMs, lookMs)
      .pipe(
        exhaustMap(() => this.away()),
        startWith(undefined),
        distinctUntilChanged(),
      )
      .subscribe((away) =>
        told(away === undefined ? { state: "attached", epoch } : { state: "detached", reason: `it is not served: ${away}` }),
      );
    return () => looking.unsubscribe();
  }

  /** Before each use: it may be unmounted between two looks. Throws Fault "offline". */
  async expectHere(): Promise<void> {
    if (this.must === false && !this.#whole.hangs) return;
    // Of many small files each is preceded by several of these: where it cannot take long it is not asked of another thread, which takes four times as long.
    if (this.#isOwn && !this.#whole.hangs && this.#device !== undefined && deviceNow(this.dir) === this.#device) return;
    const quick = this.#whole.hangs ? undefined : await this.#quick.asked();
    const away = quick === undefined ? hanging(this.dir) : quick.found ? undefined : await this.away();
    if (away !== undefined) throw new Fault("offline", away);
  }

  async #looked(): Promise<string | undefined> {
    // What the system knows of directories it may say from memory; this is asked of the file system itself.
    const type = (await fs.statfs(this.dir).catch(() => undefined))?.type;
    this.#isOwn = type !== undefined && own.has(type);
    if (this.must === false) return undefined;
    // Until that is known, what is on the device from before is there.
    let device: number | undefined;
    try {
      const found = await lookedAt(this.dir);
      const away = found === undefined ? undefined : await this.#awayOf(found);
      // What is bound there is on the same device before and after.
      if (away === undefined && found?.isThere === true && (found.at !== "/" || this.must !== true)) device = found.device;
      return away;
    } finally {
      this.#device = device;
    }
  }

  async #awayOf(found: Found): Promise<string | undefined> {
    const { dir, isThere, at } = found;
    // Below the same mount point, also by another way: a link that leads on is on the disk, and goes with it.
    const was = this.#known !== undefined && isIn(dir, this.#known.at) ? this.#known.at : undefined;
    const without = `mount it, or say ${wayOut} where ${this.dir} is to be used without`;
    if (was !== undefined && was !== at && isIn(was, at)) return `${was} is not mounted: ${without}`;
    if (was === undefined && this.must === true && !(await isMounted(found)))
      return `${this.dir} is on no file system that is mounted: ${without}`;
    if (!isThere) return undefined;
    if (at !== "/" && (at !== was || dir !== this.#known?.dir)) this.#learn({ dir, at });
    return undefined;
  }

  #learn(known: Known): void {
    this.#known = known;
    // Else it is learned at the next start.
    this.memory.set(key, known).catch(() => undefined);
  }
}

export const hanging = (dir: string) => `${dir} ${hangs}`;

/** In some microseconds. */
function deviceNow(path: string): number | undefined {
  try {
    return statSync(path).dev;
  } catch {
    return undefined;
  }
}

async function deviceOf(path: string): Promise<number | undefined> {
  return (await fs.stat(path).catch(() => undefined))?.dev;
}

interface Found extends Known {
  readonly isThere: boolean;
  readonly device: number | undefined;
}

async function lookedAt(dir: string): Promise<Found | undefined> {
  try {
    const real = await realOf(dir);
    return { ...real, ...(await mountOf(real.dir)) };
  } catch {
    return undefined;
  }
}

/** Also of a directory that is not there. */
async function realOf(dir: string): Promise<{ readonly dir: string; readonly isThere: boolean }> {
  try {
    return { dir: await fs.realpath(dir), isThere: true };
  } catch (error) {
    if (codeOf(error) !== "ENOENT" || dirname(dir) === dir) throw error;
    return { dir: join((await realOf(dirname(dir))).dir, basename(dir)), isThere: false };
  }
}

/** The uppermost directory of the same file system, from `dir` on or, where that is not there, from the nearest above it. */
async function mountOf(dir: string): Promise<{ readonly at: string; readonly device: number | undefined }> {
  let found: { readonly at: string; readonly device: number } | undefined;
  for (let at = dir; ; at = dirname(at)) {
    const device = (await ifThere(fs.stat(at)))?.dev;
    if (found !== undefined && device !== found.device) return found;
    if (device !== undefined) found = { at, device };
    if (dirname(at) === at) return { at, device };
  }
}

/**
 * Before it was ever seen. A mount point may be in memory, as below /run/media. Another part of the machine's own file system that is bound there
 * (`mount --bind`), which no number of a device tells, counts; one that is bound to its own place, as a sandbox of systemd does, does not.
 */
async function isMounted({ dir, at }: Found): Promise<boolean> {
  try {
    if (at !== "/" && !inMemory.includes((await fs.statfs(at)).type)) return true;
    const mounts = await readMounts("/proc/self/mountinfo");
    const top = mounts.findLast((mount) => mount.dir === "/");
    return mounts.some(
      (mount) => mount.dir !== "/" && mount.device === top?.device && isIn(dir, mount.dir) && mount.root !== join(top.root, mount.dir),
    );
  } catch {
    return false;
  }
}
