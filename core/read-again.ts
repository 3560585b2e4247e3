/** What a source's file holds now, by reading it once more: at the pace that the device is allowed, and not beside more transfers than it takes. */
import type { Readable } from "node:stream";
import { digestsOf } from "./digest.js";
import type { Lane } from "./lane.js";
import type { Digest, FileEntry } from "./plugin.js";
import { pacedBytes } from "./throttle.js";

/** Its SHA-256. Throws the source's Fault. */
export async function digestAtSource(lane: Lane, entry: FileEntry, signal: AbortSignal): Promise<Digest | undefined> {
  const [digest] = await digestsOf(await openSlowly(lane, entry, signal), ["sha256"]);
  return digest;
}

async function openSlowly(lane: Lane, entry: FileEntry, signal: AbortSignal): Promise<AsyncIterable<Buffer>> {
  const leave = await lane.borrow(signal);
  const stream = await lane.device.source?.open(entry, 0, signal).catch((error: unknown) => {
    leave();
    throw error;
  });
  return (async function* () {
    try {
      yield* pacedBytes(stream as Readable, lane.throttle, signal);
    } finally {
      leave();
    }
  })();
}
