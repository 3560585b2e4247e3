/** Where an upload goes on. */
import type { Target, Upload } from "./plugin.js";

/** The offset to send from: what the target holds; 0 where that is too long, or half of a file that only goes whole: it is discarded. Throws as both of them do. */
export async function goesOnAt(target: Target, upload: Upload, signal: AbortSignal): Promise<number> {
  const offset = await target.offset(upload, signal);
  if (offset === 0 || offset === upload.size || (offset < upload.size && target.features.resume)) return offset;
  await target.discard(upload, signal);
  return 0;
}
