/**
 * Which medium this is. Its file system's UUID says it, but cards that were imaged from one master share theirs. They are told apart by what they
 * hold: of each medium that was seen the newest files are remembered, and one that has other files under those names is another medium. Cameras without
 * a clock give files of one size one time: samples of their contents tell those.
 *
 * The reader or stick (`serial`) decides only where the files leave it open: a card in another reader is the same card.
 */
import { join } from "node:path";
import { readFile } from "node:fs/promises";
import * as v from "valibot";
import { codeOf } from "../../core/errors.js";
import { makeDirDurable, writeDurable } from "../../core/fs.js";
import type { FileEntry } from "../../core/plugin.js";
import type { Block } from "./blocks.js";

/** So many files of a medium are remembered. */
export const mostRemembered = 32;

const remembered = v.object({
  path: v.string(),
  size: v.number(),
  modifiedMs: v.optional(v.number()),
  /** Of its content (`sample.ts`). */
  sample: v.optional(v.string()),
});
export type Remembered = v.InferOutput<typeof remembered>;
const medium = v.object({
  /** Its name in the journal: the UUID, with "~2" and so on behind it where another has that already. */
  id: v.string(),
  uuid: v.string(),
  serial: v.optional(v.string()),
  files: v.array(remembered),
});
export type Known = v.InferOutput<typeof medium>;
const store = v.object({ media: v.array(medium) });

/** What a medium says of one remembered file: the same, one of another stamp (a longer one is the same) or of another content, or nothing there. */
export type Found = "same" | "other" | "foreign" | "none";

/** `sample` of it now; undefined where it is not known. */
export function compared(file: Remembered, now: FileEntry | undefined, sample?: string): Found {
  if (now?.kind !== "file") return "none";
  if (isStamped(file, now)) return file.sample !== undefined && sample !== undefined && sample !== file.sample ? "foreign" : "same";
  return now.size > file.size && (now.modifiedMs ?? 0) >= (file.modifiedMs ?? 0) ? "same" : "other";
}

function isStamped(file: Remembered, now: { readonly size: number; readonly modifiedMs?: number }): boolean {
  return now.size === file.size && (file.modifiedMs === undefined || now.modifiedMs === file.modifiedMs);
}

/** What is looked at on a medium; a file that is not there, or cannot be read, is undefined. */
export interface Looks {
  readonly stat: (path: string) => Promise<FileEntry | undefined>;
  readonly sample: (path: string, size: number) => Promise<string | undefined>;
}

/** Whether a medium that has this of a known one's files is that one. */
export function isSame(found: readonly Found[], sameSerial: boolean): boolean {
  const count = (what: Found) => found.filter((one) => one === what).length;
  const [same, foreign] = [count("same"), count("foreign")];
  // One file of a clockless camera's card may be rewritten with the time that it had (an index); more than that may be lost if it is not read anew.
  if (foreign > 1 || (foreign === 1 && !(sameSerial && same > 2))) return false;
  const other = count("other") + foreign;
  // Some files are rewritten on any card (indexes, databases): where it is open, it is the same. A wrong "another" would read all of it anew.
  if (other > 1 && (sameSerial ? same === 0 : other > same)) return false;
  if (other > 0) return true;
  // All of them gone: it was emptied, or is another; the stick itself says which.
  return same > 0 || sameSerial || found.length === 0;
}

/**
 * File systems that hold times as clocks on the wall showed them (exFAT where who wrote knew no zone). The system tells them by a zone of its own, which is another one
 * after a change to summer time, a `timedatectl set-timezone` or a new image: then all files of a card are told so much later or earlier.
 */
const byZone: ReadonlySet<string> = new Set(["vfat", "exfat"]);
const zonesMs = 15 * 60_000;
const mostAheadMs = 26 * 3_600_000;

export interface Recognised {
  readonly id: string;
  /** By how much its files are told to be later than they were when it was first seen. */
  readonly aheadMs: number;
}

/** By how much the files that are there with the size that they had are later, most of them; 0 where one is not, or no change of a zone is so much. Only such count whose content can be compared. */
async function aheadOf(files: readonly Remembered[], { stat }: Looks): Promise<number> {
  const times = new Map<number, number>();
  for (const { path, size, modifiedMs, sample } of files) {
    const now = await stat(path);
    if (now?.kind !== "file" || now.size !== size || now.modifiedMs === undefined || modifiedMs === undefined) continue;
    const ms = now.modifiedMs - modifiedMs;
    if (ms === 0) return 0;
    if (sample !== undefined && ms % zonesMs === 0 && Math.abs(ms) <= mostAheadMs) times.set(ms, (times.get(ms) ?? 0) + 1);
  }
  return [...times].sort((a, b) => b[1] - a[1])[0]?.[0] ?? 0;
}

/** The same time, so much later; none where there is none. */
export function timed({ modifiedMs }: { readonly modifiedMs?: number | undefined }, laterMs: number): { readonly modifiedMs?: number } {
  return modifiedMs === undefined ? {} : { modifiedMs: modifiedMs + laterMs };
}

/** Those that tell most: the newest. */
export function newest(files: readonly Remembered[]): Remembered[] {
  return [...files].sort((a, b) => (b.modifiedMs ?? 0) - (a.modifiedMs ?? 0) || (a.path < b.path ? -1 : 1)).slice(0, mostRemembered);
}

/** The media that a device has seen, in a file of its own. */
export class Media {
  readonly #path: string;
  readonly #dir: string;
  #known: Known[] | undefined;

  constructor(
    stateDir: string,
    readonly warn: (text: string) => void,
  ) {
    this.#dir = stateDir;
    this.#path = join(stateDir, "media.json");
  }

  /** Which medium is on `block`. Throws what `looks` throws. */
  async recognise(block: Block, looks: Looks): Promise<Recognised> {
    const uuid = nameOf(block);
    const known = await this.#load();
    let shifted: (Recognised & { same: number }) | undefined;
    for (const { id, serial, files } of known.filter((other) => other.uuid === uuid)) {
      const sameSerial = serial !== undefined && serial === block.serial;
      const aheadMs = byZone.has(block.fsType ?? "") ? await aheadOf(files, looks) : 0;
      // A file that was rewritten just so much later is no zone: then all is as by the times that are told.
      for (const by of aheadMs === 0 ? [0] : [aheadMs, 0]) {
        const found: Found[] = [];
        for (const file of files) found.push(await lookedAt({ ...file, ...timed(file, by) }, looks));
        const same = found.filter((one) => one === "same").length;
        if (!isSame(found, sameSerial) || (by !== 0 && same === 0)) continue;
        if (by === 0 && same >= (shifted?.same ?? 0)) return { id, aheadMs: 0 };
        // One that was met in this zone already is known by these very times: as another one, by versions that knew of no zones.
        if (by !== 0 && same > (shifted?.same ?? 0)) shifted = { id, aheadMs: by, same };
        break;
      }
    }
    if (shifted !== undefined) return { id: shifted.id, aheadMs: shifted.aheadMs };
    const taken = new Set(known.map(({ id }) => id));
    let id = uuid;
    for (let n = 2; taken.has(id); n++) id = `${uuid}~${n}`;
    return { id, aheadMs: 0 };
  }

  /**
   * These are files of it now; of those that are remembered samples are taken, where there are none yet. What is remembered below directories that were `left` stays. Durable when it
   * resolves.
   */
  async remember(
    id: string,
    block: Block,
    files: readonly Remembered[],
    sample: Looks["sample"],
    left: readonly string[] = [],
  ): Promise<void> {
    const known = await this.#load();
    const before = known.find((one) => one.id === id);
    const sampled: Remembered[] = [];
    const stay = (before?.files ?? []).filter(({ path }) => left.some((dir) => path.startsWith(dir)));
    for (const { sample: _, ...file } of newest([...files, ...stay])) {
      const had = before?.files.find((one) => one.path === file.path && isStamped(one, file))?.sample;
      const now = had ?? (await sample(file.path, file.size));
      sampled.push({ ...file, ...(now === undefined ? {} : { sample: now }) });
    }
    const now: Known = {
      id,
      uuid: nameOf(block),
      ...(block.serial === undefined ? {} : { serial: block.serial }),
      // An emptied card is still known by what it had.
      files: sampled.length === 0 ? (before?.files ?? []) : sampled,
    };
    if (before !== undefined && JSON.stringify(before) === JSON.stringify(now)) return;
    this.#known = [...known.filter((one) => one.id !== id), now];
    await makeDirDurable(this.#dir);
    await writeDurable(this.#path, JSON.stringify({ media: this.#known }));
  }

  async #load(): Promise<Known[]> {
    if (this.#known !== undefined) return this.#known;
    let text: string;
    try {
      text = await readFile(this.#path, "utf8");
    } catch (error) {
      if (codeOf(error) !== "ENOENT") throw error;
      return (this.#known = []);
    }
    try {
      this.#known = v.parse(store, JSON.parse(text)).media;
    } catch (error) {
      this.warn(`${this.#path} is damaged (${String(error).split("\n", 1)[0] ?? ""}): which media were seen is learned anew`);
      this.#known = [];
    }
    return this.#known;
  }
}

async function lookedAt(file: Remembered, { stat, sample }: Looks): Promise<Found> {
  const now = await stat(file.path);
  const read = file.sample !== undefined && now?.kind === "file" && isStamped(file, now);
  return compared(file, now, read ? await sample(file.path, file.size) : undefined);
}

/** By what a file system is named; "" where it has no name at all. */
export function nameOf({ uuid, partUuid, label }: Block): string {
  return (uuid ?? partUuid ?? label ?? "").replaceAll(/[^\w.-]/g, "_");
}
