/** The bytes of an upload as the bodies of one or more requests. */
import { Fault } from "../../core/errors.js";
import type { Chunk, Reading, Upload } from "../../core/plugin.js";
import { Rest } from "../../core/reading.js";

/** Gives the bytes from an offset, cut into bodies of the lengths that are asked for. Each is read whole, or nothing follows. */
export class Bodies {
  readonly #reading: Reading;
  readonly #upload: Upload;
  readonly #onBytes: (n: number) => void;
  #rest: Rest | undefined;
  #at: number;
  readonly #from: number;
  /** Reading them ended with a fault, or too early. */
  failed = false;

  constructor(upload: Upload, offset: number, signal: AbortSignal, onBytes: (n: number) => void) {
    this.#upload = upload;
    this.#onBytes = onBytes;
    this.#at = offset;
    this.#from = offset;
    this.#reading = upload.chunks(offset, signal);
  }

  /** How many bytes went into bodies. */
  get given(): number {
    return this.#at - this.#from;
  }

  next(length: number): Reading {
    let left = length;
    return {
      next: async () => {
        if (left === 0) return undefined;
        const part = await this.#take(left);
        left -= part.bytes.length;
        return part;
      },
      // The others go on with what is left.
      close: () => undefined,
    };
  }

  close(): void {
    this.#reading.close();
  }

  async #take(most: number): Promise<Chunk> {
    while (this.#rest === undefined || this.#rest.empty) {
      const chunk = await this.#next().catch((error: unknown) => {
        this.failed = true;
        throw error;
      });
      this.#rest = new Rest(chunk);
    }
    const part = this.#rest.take(most);
    this.#at += part.bytes.length;
    this.#onBytes(part.bytes.length);
    return part;
  }

  async #next(): Promise<Chunk> {
    const chunk = await this.#reading.next();
    // A request that promised more would wait for it for ever.
    if (chunk === undefined) throw new Fault("transient", `the bytes ended at ${this.#at} of ${this.#upload.size}`);
    return chunk;
  }
}
