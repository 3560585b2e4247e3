/**
 * receipts.jsonl: a line for each delivery, and for each single shot that is on its way; a journal that was lost is begun anew from it. Lines are
 * appended by the journal. At a start those of versions that the journal forgot (`compact.ts`) are taken out, once they are more than half of them.
 *
 * Each transaction that has lines there notes where they end (`markOf`). So a journal that is older than its receipts, because its medium took back what was
 * synced, or power went before the transaction, is known at the next start by what is behind its mark (`recover.ts`), without reading the rest.
 */
import { createHash } from "node:crypto";
import { closeSync, fstatSync, openSync, promises as fs, readSync } from "node:fs";
import { replaceDurable } from "./fs.js";
import type { Journal } from "./journal.js";
import type { StoredReceipt } from "./rows.js";
import type { Sending } from "./single-shot.js";
import type { Database } from "./sqlite.js";

/** Shorter than this it stays as it is: a card wears by writing, too. */
const atLeastBytes = 2 ** 20;
const partLength = 2 ** 16;

/** What was delivered and is forgotten: how many deliveries, and their bytes. */
export interface Forgotten {
  readonly deliveries: number;
  readonly bytes: number;
}

const forgottenKey = "forgotten";
const none: Forgotten = { deliveries: 0, bytes: 0 };

/** What the journal forgot; of one that was lost only what its receipts were rid of. */
export function forgottenIn(journal: Journal): Forgotten {
  return forgottenOf(journal.meta(forgottenKey));
}

/** Whether it ever forgot: one that knows nothing may be none that was begun anew. */
export function hasForgotten(journal: Journal): boolean {
  return journal.meta(forgottenKey) !== undefined;
}

/** Inside `apply`. */
export function setForgotten(journal: Journal, { deliveries, bytes }: Forgotten): void {
  journal.setMeta(forgottenKey, JSON.stringify({ deliveries, bytes }));
}

function forgottenOf(text: string | undefined): Forgotten {
  return text === undefined ? none : (JSON.parse(text) as Forgotten);
}

export function sumOf(a: Forgotten, b: Forgotten): Forgotten {
  return { deliveries: a.deliveries + b.deliveries, bytes: a.bytes + b.bytes };
}

export type Line =
  | { readonly what: "receipt"; readonly receipt: StoredReceipt }
  /** A single shot of this delivery may have been taken; null: it was not. */
  | { readonly what: "sending"; readonly delivery: string; readonly record: Sending | null }
  /** The first line, where some were taken out: what they were. */
  | { readonly what: "forgotten"; readonly forgotten: Forgotten };

/** A line of receipts.jsonl; undefined for one that power cut short, which says nothing: what it would have said is asked of sources and targets. */
export function lineOf(text: string): Line | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const line = value as Partial<StoredReceipt> & { sending?: unknown; record?: Sending | null; forgotten?: Partial<Forgotten> };
  if (typeof line.sending === "string") return { what: "sending", delivery: line.sending, record: line.record ?? null };
  const { deliveries, bytes } = line.forgotten ?? {};
  if (typeof deliveries === "number" && typeof bytes === "number") return { what: "forgotten", forgotten: { deliveries, bytes } };
  const texts = [line.delivery, line.version, line.from, line.source, line.to, line.path, line.at];
  const whole = texts.every((one) => typeof one === "string") && typeof line.size === "number";
  return whole ? { what: "receipt", receipt: line as StoredReceipt } : undefined;
}

/** The lines of a file that is there, as text, one after another, from a byte on. */
export async function* linesIn(path: string, start = 0): AsyncGenerator<string> {
  const file = await fs.open(path);
  // Closed by its reader, also when that is left early.
  yield* file.readLines({ encoding: "utf8", start });
}

/** In the journal's table "meta". */
export const markKey = "receipts";
const markedBytes = 1024;

/** Where lines end, and what is before that, so that it is no mark of another file. */
export function markOf(fd: number, end = fstatSync(fd).size): string {
  const last = Buffer.alloc(Math.min(end, markedBytes));
  readSync(fd, last, 0, last.length, end - last.length);
  return `${end} ${createHash("sha256").update(last).digest("hex")}`;
}

/** Where the lines begin that come after a mark; undefined: there are none, or nobody can tell, as with no mark (of a version before) or that of another file. */
export function behindMark(fd: number, mark: string | undefined): number | undefined {
  const end = Number.parseInt(mark ?? "", 10);
  return fstatSync(fd).size > end && markOf(fd, end) === mark ? end : undefined;
}

/**
 * Takes out the lines of versions that this journal forgot, where the file is over 1 MiB and they are more than half of its lines; how many. Nobody has
 * the file open. Every other line stays as it is; the first says from then on what was taken out. A cut leaves the old file or the new.
 *
 * A line is taken out only where the journal can say that it forgot: one that is new, or is still being rebuilt, or does not know more than that, is asked for nothing,
 * nor one that does not know all lines yet.
 */
export async function trimReceipts(path: string, db: Database): Promise<number> {
  const size = await fs.stat(path).then(
    (stat) => stat.size,
    () => 0,
  );
  if (size <= atLeastBytes || db.prepare("SELECT 1 FROM meta WHERE key = 'recovering'").get() !== undefined) return 0;
  const metaOf = (key: string) => (db.prepare("SELECT value FROM meta WHERE key = ?").get(key) as { value: string } | undefined)?.value;
  const mark = metaOf(markKey);
  if (withFile(path, (fd) => behindMark(fd, mark)) !== undefined) return 0;
  const before = await forgottenBefore(path);
  const all = forgottenOf(metaOf(forgottenKey));
  const left = all.deliveries - before.deliveries;
  const { done } = db.prepare("SELECT COUNT(*) AS done FROM deliveries WHERE state = 'done'").get() as { done: number };
  // They are known to be less than half, without reading all.
  if (left <= done) return 0;

  const version = db.prepare("SELECT 1 FROM versions WHERE id = ?");
  const delivery = db.prepare("SELECT 1 FROM deliveries WHERE id = ?1 UNION ALL SELECT 1 FROM meta WHERE key = 'marks:' || ?1");
  const stays = (line: Line | undefined) =>
    line?.what === "receipt"
      ? version.get(line.receipt.version) !== undefined
      : line?.what !== "sending" || delivery.get(line.delivery) !== undefined;
  let lines = 0;
  let out = 0;
  /** Bytes of each delivery. */
  const gone = new Map<string, number>();
  for await (const text of linesIn(path)) {
    lines += 1;
    const line = lineOf(text);
    if (stays(line)) continue;
    out += 1;
    if (line?.what === "receipt") gone.set(line.receipt.delivery, line.receipt.size);
  }
  // Some more may be: a cut can take a row whose line is there. Many more are another journal's.
  if (2 * out <= lines || gone.size > 2 * left) return 0;
  const bytes = [...gone.values()].reduce((sum, one) => sum + one, 0);
  const forgotten = sumOf(before, { deliveries: gone.size, bytes });
  await replaceDurable(path, async function* () {
    let part = `${JSON.stringify({ forgotten })}\n`;
    for await (const text of linesIn(path)) {
      const line = lineOf(text);
      if (line?.what === "forgotten" || !stays(line)) continue;
      part += `${text}\n`;
      if (part.length < partLength) continue;
      yield part;
      part = "";
    }
    yield part;
  });
  if (mark !== undefined) db.prepare("UPDATE meta SET value = ? WHERE key = ?").run(withFile(path, markOf), markKey);
  return out;
}

function withFile<T>(path: string, fn: (fd: number) => T): T {
  const fd = openSync(path, "r");
  try {
    return fn(fd);
  } finally {
    closeSync(fd);
  }
}

async function forgottenBefore(path: string): Promise<Forgotten> {
  for await (const text of linesIn(path)) {
    const line = lineOf(text);
    return line?.what === "forgotten" ? line.forgotten : none;
  }
  return none;
}
