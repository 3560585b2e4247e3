/**
 * Bytes to and from an open file, many requests under way. How many follows the line: as long as answers come soon, more; on a slow line
 * few, so that a stop, or a look at another file, does not wait behind megabytes.
 */
import { createHash } from "node:crypto";
import { Fault } from "../../core/errors.js";
import type { Digest, Reading } from "../../core/plugin.js";
import type { Session } from "./session.js";

/** With its header it is one SSH packet: twice as fast as 32 KiB, of which the end goes in a packet of its own. */
export const pieceBytes = 32 * 1024 - 512;
const mostPieces = 64;
const soonMs = 300;
const lateMs = 1000;

/** How many requests there may be. */
class Window {
  #size = 16;

  get size(): number {
    return Math.floor(this.#size);
  }

  answered(afterMs: number): void {
    if (afterMs > lateMs) this.#size = Math.max(2, this.#size * 0.9);
    else if (afterMs < soonMs) this.#size = Math.min(mostPieces, this.#size + 1);
  }
}

/** What `write` came to, also when it failed: all before `sure` was acknowledged. */
export interface Progress {
  sure: number;
}

/**
 * Writes what `reading` gives from `progress.sure` on. `end` asks for what comes behind the last byte, once that is sent: a server does what is asked of one file in the order of asking
 * (draft-ietf-secsh-filexfer-02, section 4.1). Throws what the reading, the server or `end` ends with, once no request is under way.
 */
export async function writeAll(
  session: Session,
  handle: Buffer,
  reading: Reading,
  progress: Progress,
  onBytes: (n: number) => void,
  end: () => Promise<unknown>,
): Promise<void> {
  const window = new Window();
  const under: { end: number; acknowledged: boolean }[] = [];
  let failed: { error: unknown } | undefined;
  let wake: () => void = () => undefined;
  const turn = (): Promise<void> => new Promise((resolve) => (wake = resolve));
  const send = (at: number, bytes: Buffer): void => {
    const piece = { end: at + bytes.length, acknowledged: false };
    const from = performance.now();
    under.push(piece);
    session.write(handle, at, bytes).then(
      () => {
        window.answered(performance.now() - from);
        piece.acknowledged = true;
        // In order: what lies behind a gap is not sure.
        while (failed === undefined && under[0]?.acknowledged === true) {
          const { end } = under.shift() ?? { end: progress.sure };
          onBytes(end - progress.sure);
          progress.sure = end;
        }
        wake();
      },
      (error: unknown) => {
        piece.acknowledged = true;
        failed ??= { error };
        wake();
      },
    );
  };
  const settled = async (): Promise<void> => {
    while (under.some((it) => !it.acknowledged)) await turn();
  };
  let at = progress.sure;
  /** What is less than a piece waits here for the next chunk. */
  let rest = Buffer.alloc(0);
  /** A request copies its bytes. */
  const put = async (bytes: Buffer): Promise<void> => {
    while (under.length >= window.size && failed === undefined) await turn();
    if (failed !== undefined || bytes.length === 0) return;
    send(at, bytes);
    at += bytes.length;
  };
  let ended: { error: unknown } | undefined;
  let behind: Promise<unknown> | undefined;
  try {
    for (let chunk = await reading.next(); chunk !== undefined; chunk = await reading.next()) {
      for (let from = 0; from < chunk.bytes.length && failed === undefined;) {
        const part = chunk.bytes.subarray(from, from + pieceBytes - rest.length);
        from += part.length;
        const whole = rest.length + part.length === pieceBytes;
        if (rest.length > 0 || !whole) rest = Buffer.concat([rest, part]);
        if (!whole) continue;
        await put(rest.length > 0 ? rest : part);
        rest = Buffer.alloc(0);
      }
      chunk.release();
      if (failed !== undefined) break;
    }
  } catch (error) {
    ended = { error };
  }
  // What came before the reading was withdrawn is kept.
  await put(rest);
  if (failed === undefined && ended === undefined) behind = end().catch((error: unknown) => void (ended = { error }));
  await settled();
  await behind;
  const why = failed ?? ended;
  if (why !== undefined) throw why.error;
}

/** The bytes of an open file from `offset` to `end`, in order. Throws "transient" when the file ends before. */
export async function* readAll(session: Session, handle: Buffer, offset: number, end: number, what: string): AsyncGenerator<Buffer> {
  const window = new Window();
  const under: Promise<Buffer[]>[] = [];
  let asked = offset;
  const ask = async (at: number, length: number): Promise<Buffer[]> => {
    const parts: Buffer[] = [];
    const from = performance.now();
    // A server may give less than was asked for.
    for (let got = 0; got < length;) {
      const bytes = await session.read(handle, at + got, length - got);
      if (bytes === undefined || bytes.length === 0) throw new Fault("transient", `${what} ended at ${at + got} of ${end} bytes`);
      if (bytes.length > length - got) throw new Fault("transient", `the server gave more of ${what} than was asked for`);
      parts.push(bytes);
      got += bytes.length;
    }
    window.answered(performance.now() - from);
    return parts;
  };
  try {
    for (;;) {
      while (asked < end && under.length < window.size) {
        const length = Math.min(pieceBytes, end - asked);
        const part = ask(asked, length);
        // Each is looked at in its turn.
        part.catch(() => undefined);
        under.push(part);
        asked += length;
      }
      const next = under.shift();
      if (next === undefined) return;
      yield* await next;
    }
  } finally {
    await Promise.allSettled(under);
  }
}

/** Reads the first `size` bytes of a file and digests them. */
export async function readDigest(session: Session, handle: Buffer, size: number, what: string): Promise<Digest> {
  const hash = createHash("sha256");
  for await (const bytes of readAll(session, handle, 0, size, what)) hash.update(bytes);
  return `sha256:${hash.digest("hex")}`;
}
