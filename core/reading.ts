/** Readings: of a generator, as a stream, digested on the way. */
import { Readable } from "node:stream";
import { Digester } from "./digest.js";
import { Fault } from "./errors.js";
import type { Chunk, Digest, DigestedReading, FileEntry, HowToRead, Reading, Source } from "./plugin.js";
import { otherThan } from "./stat.js";

/** As a stream. Its chunks are whoever's who reads it: they are never given back. */
export function readableOf(reading: Reading): Readable {
  const chunks = async function* () {
    try {
      for (let chunk = await reading.next(); chunk !== undefined; chunk = await reading.next()) yield chunk.bytes;
    } finally {
      reading.close();
    }
  };
  // Chunk by chunk: a stream of bytes would join what waits in it, which is a copy.
  return Readable.from(chunks(), { highWaterMark: 1 });
}

export function readingOf(chunks: AsyncGenerator<Buffer>): Reading {
  return {
    next: async () => {
      const result = await chunks.next();
      return result.done === true ? undefined : { bytes: result.value, release: () => undefined };
    },
    close: () => void chunks.return(undefined).catch(() => undefined),
  };
}

/** Each chunk passes through `each` before it is given. */
export function passing(reading: Reading, each: (chunk: Chunk) => Promise<void>): Reading {
  return {
    next: async () => {
      const chunk = await reading.next();
      if (chunk !== undefined) await each(chunk);
      return chunk;
    },
    close: () => reading.close(),
  };
}

/** What is left of a chunk that is given in parts; it is given back once all of them were. */
export class Rest {
  readonly #chunk: Chunk;
  #from = 0;
  #out: number;

  constructor(chunk: Chunk) {
    this.#chunk = chunk;
    this.#out = chunk.bytes.length;
  }

  get empty(): boolean {
    return this.#from === this.#chunk.bytes.length;
  }

  take(most: number): Chunk {
    const bytes = this.#chunk.bytes.subarray(this.#from, this.#from + most);
    this.#from += bytes.length;
    const release = () => {
      this.#out -= bytes.length;
      if (this.#out === 0) this.#chunk.release();
    };
    return { bytes, release };
  }
}

/** What `Source.readInPlace` promises, for a source that only opens streams. */
export class StreamReading implements DigestedReading {
  digest: Digest | undefined;
  readonly #chunks: AsyncGenerator<Buffer, void>;

  constructor(source: Source, entry: FileEntry, offset: number, signal: AbortSignal, { digest, exact }: HowToRead) {
    this.#chunks = this.#read(source, entry, offset, signal, exact, digest ? new Digester("sha256") : undefined);
  }

  async next(): Promise<Chunk | undefined> {
    const result = await this.#chunks.next();
    return result.done === true ? undefined : { bytes: result.value, release: () => undefined };
  }

  close(): void {
    void this.#chunks.return(undefined).catch(() => undefined);
  }

  async *#read(
    source: Source,
    entry: FileEntry,
    offset: number,
    signal: AbortSignal,
    exact: boolean,
    along?: Digester,
  ): AsyncGenerator<Buffer, void> {
    let at = along === undefined ? offset : 0;
    for await (const chunk of await source.open(entry, at, signal)) {
      const bytes = chunk as Buffer;
      along?.update(bytes);
      const ahead = offset - at;
      at += bytes.length;
      if (ahead < bytes.length) yield ahead > 0 ? bytes.subarray(ahead) : bytes;
    }
    if (at < entry.size) return;
    const now = await source.stat(entry.path, signal);
    if (now === undefined) throw new Fault("missing", "it is no longer there");
    const other = otherThan(entry, now, exact);
    if (other !== undefined) throw new Fault("changed", other);
    this.digest = along?.value();
  }
}
