/** Samples of files' contents: enough to tell files of one name, size and time on two cards apart, without reading cards from end to end. */
import { createHash } from "node:crypto";
import { constants, promises as fs } from "node:fs";
import { faultOfErrno } from "../../core/errors.js";
import { placeOf } from "../local/place.js";

const pieceBytes = 4096;

/** Of the beginning, the middle and the end of a file of `size` bytes; undefined: it is empty, or cannot be read now. Throws Fault "offline". */
export async function sampleOf(root: string, path: string, size: number): Promise<string | undefined> {
  if (size === 0) return undefined;
  const hash = createHash("sha256");
  try {
    const handle = await fs.open(placeOf(root, path), constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      for (const at of new Set([0, (size - pieceBytes) / 2, size - pieceBytes].map((from) => Math.max(0, Math.floor(from))))) {
        const { buffer, bytesRead } = await handle.read(Buffer.alloc(pieceBytes), 0, pieceBytes, at);
        hash.update(buffer.subarray(0, bytesRead));
      }
    } finally {
      await handle.close();
    }
  } catch (error) {
    const fault = faultOfErrno(error, `cannot read ${path}`);
    if (fault.kind === "offline") throw fault;
    return undefined;
  }
  return hash.digest("base64url").slice(0, 16);
}
