/** Where an upload goes on. */
import { isFault, type FaultKind } from "./errors.js";
import type { Part, Target, Upload } from "./plugin.js";

/** The offset to send from: what the target holds; 0 where that is too long, or half of a file that only goes whole: it is discarded. Throws as both of them do. */
export async function goesOnAt(target: Target, upload: Upload, signal: AbortSignal): Promise<number> {
  const offset = await target.offset(upload, signal);
  if (offset === 0 || offset === upload.size || (offset < upload.size && target.features.resume)) return offset;
  await target.discard(upload, signal);
  return 0;
}

/**
 * Whether what was whole, and was to get its name, is not whole any more: `held` of it is left, and `named` bytes have its name. Where nothing of it is left, and as much has the name, it got that, and
 * only the answer is missing still.
 */
export async function isShort(size: number, held: number, named: () => Promise<number | undefined>): Promise<boolean> {
  return held < size && (held > 0 || (await named()) !== size);
}

/** What is held of less is sent again: copying it takes some answers of the server. */
export const leastSpliced = 256 * 1024;

/** Where a splice ends with one of them, sending goes no further either. */
const goesNoFurther: ReadonlySet<FaultKind> = new Set(["aborted", "offline", "full", "throttled"]);

/** As `Target.splice`; undefined when it is done, else what kept the peer from it, where sending may do: perhaps a part was copied. Throws the Faults that would end that, too. */
export async function spliced(target: Target, upload: Upload, from: Part, at: number, signal: AbortSignal): Promise<Error | undefined> {
  try {
    if (target.splice === undefined) throw new Error("the peer copies nothing by itself");
    await target.splice(upload, from, at, signal);
    return undefined;
  } catch (error) {
    if (!isFault(error) || goesNoFurther.has(error.kind)) throw error;
    return error;
  }
}
