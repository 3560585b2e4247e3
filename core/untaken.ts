/**
 * Uploads of which a target's medium did not take all (`isUnsynced` in errors.ts says why that is heard once): noted in their memos, so that the next try, also after a restart, begins them anew. A
 * medium that refuses each time (it fails, or its file system syncs nothing and says so in the words of one that fails) gets all of it more and more seldom: over a radio that is dear.
 */
import { Fault, isFault } from "./errors.js";
import type { Upload } from "./plugin.js";

const untakenKey = "untaken";
const minuteMs = 60_000;
/** After the second time in a row, and those that follow. */
const waitsMs = [10, 40, 160, 360].map((minutes) => minutes * minuteMs);

interface Untaken {
  readonly times: number;
  /** What is there is not to be believed. */
  readonly now: boolean;
}

function notedIn({ memo }: Upload): Untaken {
  return (memo.get(untakenKey) as Untaken | undefined) ?? { times: 0, now: false };
}

export function isUntaken(upload: Upload): boolean {
  return notedIn(upload).now;
}

/** Throws "conflict". */
export function expectTaken(upload: Upload): void {
  if (isUntaken(upload)) throw new Fault("conflict", "the server could not sync what it has of the file");
}

export async function noteUntaken(upload: Upload): Promise<void> {
  const { times, now } = notedIn(upload);
  if (!now) await upload.memo.set(untakenKey, { times: times + 1, now: true } satisfies Untaken);
}

/** Nothing of it is there any more. */
export async function begunAnew(upload: Upload): Promise<void> {
  const { times, now } = notedIn(upload);
  if (now) await upload.memo.set(untakenKey, { times, now: false } satisfies Untaken);
}

/** What a try ended with; it waits where that was for its medium, not for the first time. */
export function seldom(upload: Upload, error: unknown): unknown {
  const { times, now } = notedIn(upload);
  const retryAfterMs = waitsMs[Math.min(times - 2, waitsMs.length - 1)];
  if (!now || retryAfterMs === undefined || !isFault(error, "transient")) return error;
  return new Fault(error.kind, error.message, { cause: error.cause, retryAfterMs });
}
