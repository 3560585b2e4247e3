/** The bytes of an upload as the bodies of one or more requests. */
import { Readable } from "node:stream";
import { Fault } from "../../core/errors.js";
import type { Upload } from "../../core/plugin.js";

/** Gives the bytes from an offset, cut into bodies of the lengths that are asked for. Each is read whole, or nothing follows. */
export class Bodies {
  readonly #bytes: Readable;
  readonly #chunks: AsyncIterator<Buffer>;
  readonly #upload: Upload;
  readonly #onBytes: (n: number) => void;
  #rest: Buffer = Buffer.alloc(0);
  #at: number;

  constructor(upload: Upload, offset: number, signal: AbortSignal, onBytes: (n: number) => void) {
    this.#upload = upload;
    this.#onBytes = onBytes;
    this.#at = offset;
    this.#bytes = upload.read(offset, signal);
    this.#chunks = this.#bytes[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  }

  next(length: number): Readable {
    return Readable.from(this.#take(length), { objectMode: false });
  }

  close(): void {
    // Whoever withdrew it has been told already.
    this.#bytes.once("error", () => undefined).destroy();
  }

  async *#take(length: number): AsyncGenerator<Buffer> {
    for (let left = length; left > 0;) {
      if (this.#rest.length === 0) {
        const next = await this.#chunks.next();
        // A request that promised more would wait for it for ever.
        if (next.done === true) throw new Fault("transient", `the bytes ended at ${this.#at} of ${this.#upload.size}`);
        this.#rest = next.value;
      }
      const part = this.#rest.subarray(0, left);
      this.#rest = this.#rest.subarray(part.length);
      left -= part.length;
      this.#at += part.length;
      this.#onBytes(part.length);
      if (part.length > 0) yield part;
    }
  }
}
