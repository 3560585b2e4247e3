/** The rows of the journal as the steps see them: versions and deliveries, what is noted of a delivery, and in which order they go. */
import type { Digest, Receipt, Stamp } from "./plugin.js";
import type { Sending } from "./single-shot.js";

export interface VersionRow {
  readonly id: string;
  readonly source: string;
  readonly path: string;
  readonly size: number;
  readonly modified_ms: number | null;
  readonly inode: string | null;
  readonly state: "found" | "sealed" | "gone";
  readonly store: "spool" | "place" | "through";
  readonly generation: number;
  readonly durable: number;
  readonly digest: Digest | null;
  readonly base: string | null;
  readonly safest: number;
  readonly found_ms: number;
  readonly sealed_ms: number | null;
  readonly after: "keep" | "delete" | "archive";
  readonly trust_size: number;
  readonly released: string | null;
  readonly spooled: number;
  /** "" where media cannot be changed. */
  readonly medium: string;
}

/** What a listing is compared with. */
export type Latest = Pick<VersionRow, "id" | "size" | "modified_ms" | "state" | "store" | "found_ms" | "released">;

export interface DeliveryRow {
  readonly id: string;
  readonly version: string;
  readonly source: string;
  readonly target: string;
  readonly path: string;
  readonly required: number;
  readonly state: "wanting" | "ready" | "active" | "parked" | "discard" | "done" | "dropped";
  readonly size: number;
  readonly weight: number;
  readonly rank: number;
  readonly not_before: number;
  readonly tries: number;
  readonly restarts: number;
  readonly begun: number;
  readonly fault: string | null;
  readonly reason: string | null;
  readonly parked_ms: number | null;
  readonly replaces: string | null;
  readonly memo: string | null;
  readonly receipt: string | null;
  readonly done_ms: number | null;
  readonly marks: string | null;
  readonly medium: string;
}

export function stampOf({ size, modified_ms, medium }: Pick<VersionRow, "size" | "modified_ms" | "medium">): Stamp {
  return { size, ...(modified_ms === null ? {} : { modifiedMs: modified_ms }), ...(medium === "" ? {} : { medium }) };
}

/** What core noted of a delivery before it did what cannot be taken back. */
export interface Marks {
  /** The name was about to be given, to what has this digest. */
  readonly publishing?: Digest | true;
  /** It is the other name, which tells the digest: another file has its own; 2: that one was taken, too. */
  readonly elsewhere?: true | 2;
  /** What is left at the target is none of ours, or broken: it is taken away before anything is sent. */
  readonly restart?: true;
  /** Its beginning was not sent: the peer copied it from the version before. */
  readonly spliced?: true;
  /** A single shot was about to be whole there. */
  readonly sending?: Sending;
  /** The delivery of a shorter version, whose bytes this one begins with: begun before, it goes first. */
  readonly after?: string;
  /** A person wants it sent, though its content was brought there before. */
  readonly again?: true;
  /** It found its target full, and holds what was sent until then. */
  readonly full?: true;
}

/** What a receipt is in the journal, in receipts.jsonl and in `status`. */
export interface StoredReceipt extends Receipt {
  readonly delivery: string;
  readonly version: string;
  readonly from: string;
  readonly to: string;
  readonly source: string;
  /** The source's time of the file, where it has one. */
  readonly modifiedMs?: number;
  /** The source's medium, where it has such. */
  readonly medium?: string;
  /** ISO 8601; `clock: "unset"` beside it where wall time could not be trusted. */
  readonly at: string;
  readonly clock?: "unset";
  /** When it was sent once before (ISO 8601), and that answer was lost: it may be there twice. */
  readonly sentBefore?: string;
  /** Somebody else had put this very content there: it is theirs, and never replaced. */
  readonly found?: true;
}

/** It was brought there before, and a person wants it sent again. */
export const wasBrought = ({ version, replaces }: Pick<DeliveryRow, "version" | "replaces">): boolean =>
  replaces !== null && (JSON.parse(replaces) as StoredReceipt).version === version;

/** Where it was brought, below the directory that the server gave. */
export const placeOf = ({ path, archive }: StoredReceipt): string =>
  archive !== undefined && path.startsWith(`${archive}/`) ? path.slice(archive.length + 1) : path;

export function marksIn(marks: string | null): Marks {
  return marks === null ? {} : (JSON.parse(marks) as Marks);
}

export type Ranked = Pick<DeliveryRow, "weight" | "rank" | "path">;

/** What a version is to be pulled for. */
export type Wanted = Pick<DeliveryRow, "version" | "target" | "path" | "weight" | "rank">;

/** Whether `a` goes before `b`. */
export function goesBefore(a: Ranked, b: Ranked): boolean {
  return a.weight !== b.weight ? a.weight > b.weight : a.rank !== b.rank ? a.rank > b.rank : a.path > b.path;
}

/** Whether a push may begin without a pull: what is whole here, or is read at its source. A file there that may have grown is looked through first. */
export function canSend(version: Pick<VersionRow, "state" | "store" | "base">): boolean {
  return version.state === "sealed" || version.store === "through" || (version.store === "place" && version.base === null);
}

/** The same, of a version `v`. */
export const sendable = "(v.state = 'sealed' OR v.store = 'through' OR (v.store = 'place' AND v.base IS NULL))";

/** The words of the index of what is neither waiting nor done: without them SQLite does not use it. */
export const elsewhere = "state IN ('active', 'parked', 'discard')";

/** Of a delivery: its file has gone from the source before it was whole here, or was found to be another there, and nobody said yet that this is known. */
export const hasGone = "state IN ('dropped', 'discard') AND fault IN ('missing', 'superseded')";

/** The same, of what was whole once, and whose place at the source another content took while no copy was here: a later version of the path says nothing of it. */
export const isOverwritten = "state IN ('dropped', 'discard') AND fault = 'overwritten'";

export const isLost = "state IN ('dropped', 'discard') AND fault IN ('missing', 'superseded', 'overwritten')";

/** Of a version `v`: its path was found again, and is there, or came whole. */
export const isFoundAgain = `EXISTS (SELECT 1 FROM versions w WHERE w.source = v.source AND w.path = v.path AND w.medium = v.medium AND w.found_ms > v.found_ms
  AND (w.state <> 'gone' OR w.digest IS NOT NULL))`;

/** Of a version `v`: every required target has it, and nothing was done at its source yet. */
export const isReleasable = `v.released IS NULL AND v.after <> 'keep'
  AND EXISTS (SELECT 1 FROM deliveries d WHERE d.version = v.id AND d.required = 1 AND d.state = 'done')
  AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.version = v.id AND d.required = 1 AND d.state <> 'done')`;

/** In the journal's table "meta": what was found until then was known when the journal had lost its end. */
export const olderKey = "older";

/** There too: the last receipt by when the rules said of files of a source, which were to be kept until then, that they leave it. What was delivered until that may be held by nobody by now. */
export const keptUntilKey = (source: string): string => `kept-until:${source}`;

/** What release says of a file that is not at its place any more: what is seen there later came later. */
export const leftItsPlace = { deleted: "deleted at its source", gone: "gone from its source already", moved: "moved to " } as const;

/** And what is said of one that is there again. */
export const backAsItWas = "kept: it was taken away there, and is there again as it was";

export const hasLeft = ({ released }: Pick<VersionRow, "released">): boolean =>
  Object.values(leftItsPlace).some((words) => released?.startsWith(words) === true);

/** Of those that are done. */
export function receiptsIn(deliveries: readonly Pick<DeliveryRow, "receipt">[]): StoredReceipt[] {
  return deliveries.flatMap(({ receipt }) => (receipt === null ? [] : [JSON.parse(receipt) as StoredReceipt]));
}

/** What was sent of a version, which was perhaps read before its digest was known otherwise; undefined: nobody knows. */
export function deliveredDigest(
  { digest }: Pick<VersionRow, "digest">,
  deliveries: readonly Pick<DeliveryRow, "receipt">[],
): Digest | undefined {
  const receipts = receiptsIn(deliveries);
  return receipts.find((receipt) => receipt.digest?.startsWith("sha256:"))?.digest ?? digest ?? undefined;
}

/** Of a version `v`: its file was to be deleted or archived at its source, and never will be under these rules. Where another took its place, or no route asks for it, that is nothing that is left. */
export const isKept = `v.released LIKE 'kept: %' AND v.released NOT LIKE 'kept: no route asks %' AND v.released NOT LIKE 'kept: the source has another %'
  AND v.after <> 'keep' AND v.state <> 'gone'
  AND NOT EXISTS (SELECT 1 FROM versions w WHERE w.source = v.source AND w.path = v.path AND w.medium = v.medium AND w.found_ms > v.found_ms)`;

export const bestFirst = "ORDER BY weight DESC, rank DESC, path DESC";

/**
 * A few rows at most: `n`, rounded up to a power of two. Never `LIMIT ?`, nor `state = ?` where an index has a condition on it: SQLite looks at such
 * a value while it plans, and compiles the statement anew at each use.
 */
export const atMost = (n: number): string => `LIMIT ${2 ** Math.ceil(Math.log2(n))}`;
