/** Digests computed here, over bytes given in order. `sha256` is what receipts hold; the others exist to be compared with what a source computes by itself. */
import { createHash, type Hash } from "node:crypto";
import { crc32 } from "node:zlib";
import type { Digest, DigestKind } from "./plugin.js";

export class Digester {
  readonly kind: DigestKind;
  #sha: Hash | undefined;
  #crc = 0;

  constructor(kind: DigestKind) {
    this.kind = kind;
    if (kind === "sha256") this.#sha = createHash("sha256");
  }

  update(bytes: Uint8Array): void {
    if (this.#sha !== undefined) this.#sha.update(bytes);
    // MAVLink FTP starts at 0 and has no final xor; zlib's start value and result are both inverted.
    else this.#crc = (crc32(bytes, (this.#crc ^ 0xffffffff) >>> 0) ^ 0xffffffff) >>> 0;
  }

  /** The digest of the bytes so far; more may follow. */
  value(): Digest {
    if (this.#sha !== undefined) return `sha256:${this.#sha.copy().digest("hex")}`;
    return `${this.kind}:${this.#crc.toString(16).padStart(8, "0")}`;
  }
}

/** One of each kind, over the same bytes. */
export async function digestsOf(bytes: AsyncIterable<unknown>, kinds: readonly DigestKind[]): Promise<Digest[]> {
  const digesters = kinds.map((kind) => new Digester(kind));
  for await (const chunk of bytes) for (const digester of digesters) digester.update(chunk as Buffer);
  return digesters.map((digester) => digester.value());
}

/** The kind of a digest. */
export function kindOf(digest: Digest): DigestKind {
  return digest.slice(0, digest.indexOf(":")) as DigestKind;
}
