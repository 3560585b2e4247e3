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

  /** The id of the medium on `block`. Throws what `looks` throws. */
  async recognise(block: Block, looks: Looks): Promise<string> {
    const uuid = nameOf(block);
    const known = await this.#load();
    for (const one of known.filter((other) => other.uuid === uuid)) {
      const found: Found[] = [];
      for (const file of one.files) found.push(await lookedAt(file, looks));
      if (isSame(found, one.serial !== undefined && one.serial === block.serial)) return one.id;
    }
    const taken = new Set(known.map(({ id }) => id));
    let id = uuid;
    for (let n = 2; taken.has(id); n++) id = `${uuid}~${n}`;
    return id;
  }

  /** These are files of it now; of those that are remembered samples are taken, where there are none yet. Durable when it resolves. */
  async remember(id: string, block: Block, files: readonly Remembered[], sample: Looks["sample"]): Promise<void> {
    const known = await this.#load();
    const before = known.find((one) => one.id === id);
    const sampled: Remembered[] = [];
    for (const file of newest(files)) {
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
