/**
 * Whether the partial at a server begins as the file does. After a kill of this program nobody knows what was acknowledged: servers that
 * write in parallel leave gaps near the end, and one server is known to lose the beginning of a file that is continued.
 */
import type { Reading, Upload } from "../../core/plugin.js";
import type { Session } from "./session.js";
import { readAll } from "./transfer.js";

/** All that can have been under way at once. */
const unsureBytes = 2 * 2 ** 20;
const sampleBytes = 4096;
const samples = 16;

/**
 * How many of the first `size` bytes are proved: the last 2 MiB are compared, or what is behind the first `least`, which were acknowledged in order, and samples of what is before. 0 where a
 * sample differs.
 */
export async function provenPrefix(
  session: Session,
  handle: Buffer,
  upload: Upload,
  size: number,
  least: number,
  signal: AbortSignal,
): Promise<number> {
  const from = Math.max(0, size - unsureBytes, least);
  if (!(await sampled(session, handle, upload, from, signal)))
    // A server that lost its power may have lost what it had acknowledged.
    return least > 0 && from === least ? provenPrefix(session, handle, upload, size, 0, signal) : 0;
  const same = await sameBytes(session, handle, upload, from, size, signal);
  // Not one byte of the window: then it is another file, whatever the samples say. Behind what was acknowledged there may be a gap.
  return same === 0 && from > least ? 0 : from + same;
}

/** Whether samples of the first `size` bytes are those of the file, the first and the last of them among these. */
export async function sampled(session: Session, handle: Buffer, upload: Upload, size: number, signal: AbortSignal): Promise<boolean> {
  for (const [at, end] of placesIn(size)) {
    if ((await sameBytes(session, handle, upload, at, end, signal)) < end - at) return false;
  }
  return true;
}

/** Whether samples of the first `size` bytes hold nothing, as where a server begins a file anew that is continued. */
export async function isBlank(session: Session, handle: Buffer, size: number, what: string): Promise<boolean> {
  for (const [at, end] of placesIn(size))
    for await (const bytes of readAll(session, handle, at, end, what)) if (bytes.some((it) => it !== 0)) return false;
  return true;
}

function placesIn(size: number): (readonly [at: number, end: number])[] {
  const last = Math.max(0, size - sampleBytes);
  const places = new Set(Array.from({ length: samples }, (_, i) => Math.floor((last * i) / (samples - 1))));
  return [...places].map((at) => [at, Math.min(size, at + sampleBytes)]);
}

/** How many bytes from `from` are the same there and here. */
async function sameBytes(
  session: Session,
  handle: Buffer,
  upload: Upload,
  from: number,
  end: number,
  signal: AbortSignal,
): Promise<number> {
  if (end <= from) return 0;
  const reading = upload.chunks(from, signal);
  const own = new Own(reading);
  let same = 0;
  try {
    for await (const theirs of readAll(session, handle, from, end, upload.partialPath)) {
      const ours = await own.take(theirs.length);
      const equal = commonLength(ours, theirs);
      same += equal;
      if (equal < theirs.length) break;
    }
    return same;
  } finally {
    reading.close();
  }
}

function commonLength(a: Buffer, b: Buffer): number {
  const most = Math.min(a.length, b.length);
  if (a.subarray(0, most).equals(b.subarray(0, most))) return most;
  let at = 0;
  while (a[at] === b[at]) at += 1;
  return at;
}

/** The file's own bytes, in pieces of any length. */
class Own {
  readonly #reading: Reading;
  #rest: Buffer = Buffer.alloc(0);

  constructor(reading: Reading) {
    this.#reading = reading;
  }

  async take(length: number): Promise<Buffer> {
    while (this.#rest.length < length) {
      const chunk = await this.#reading.next();
      if (chunk === undefined) break;
      this.#rest = Buffer.concat([this.#rest, chunk.bytes]);
      chunk.release();
    }
    const taken = this.#rest.subarray(0, length);
    this.#rest = this.#rest.subarray(length);
    return taken;
  }
}
