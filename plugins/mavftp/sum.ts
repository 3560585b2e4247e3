/** The digests of bytes that were given in order: core's own, and the autopilot's checksum, reflected 0xEDB88320 with start 0 and no final xor. */
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import type { Digest } from "../../core/plugin.js";

export class Sum {
  readonly #sha = createHash("sha256");
  /** How many bytes. */
  size = 0;
  crc = 0;

  update(bytes: Uint8Array): void {
    this.#sha.update(bytes);
    // zlib inverts its start value and its result.
    this.crc = (crc32(bytes, (this.crc ^ 0xffffffff) >>> 0) ^ 0xffffffff) >>> 0;
    this.size += bytes.length;
  }

  /** Of the bytes so far; more may follow. */
  get digest(): Digest {
    return `sha256:${this.#sha.copy().digest("hex")}`;
  }
}
