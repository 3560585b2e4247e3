/**
 * One content on its way to a side. Where that holds an earlier version of it, only what is new is sent, and the side itself copies the rest: all of the old one where the file only grew, else the
 * chunks that both have. The partial is at any moment the beginning of the new content, so that it goes on where it was after whatever happened.
 *
 * What was copied there is not believed: it is proved by its content before it gets its name, and sent whole where it is another one.
 */
import { createHash } from "node:crypto";
import { Fault, isFault } from "../errors.js";
import { goesOnAt, leastSpliced, spliced } from "../go-on.js";
import type { Chunk as Lent, Digest, DigestedReading, Reading, Target, Upload } from "../plugin.js";
import { readingOf } from "../reading.js";
import { type Chunk, Chunker, hashOf, type Step, stepsOf } from "./chunks.js";

/** The same, of what is found of it in the new version. */
export const leastFound = 128 * 1024;
/** In the memo of an upload: "begun": its partial was spliced; "wrong": what was spliced was another content, and all of it is sent. */
const splicingKey = "splicing";

/** What the side still holds under its name. */
export interface Old {
  readonly path: string;
  readonly size: number;
  readonly digest: Digest;
  readonly chunks: () => Promise<readonly Chunk[] | undefined>;
}

export interface SendingGiven {
  readonly target: Target;
  /** Without its bytes: those are given here. */
  readonly upload: Omit<Upload, "read" | "chunks" | "spliced">;
  /** As the source has it; ends with Fault "changed" where it is not the one that was listed any more. */
  readonly read: (offset: number, digest: boolean, signal: AbortSignal) => DigestedReading;
  readonly readable: (reading: Reading) => ReturnType<Upload["read"]>;
  /** Throws "full" where so many bytes have no room there. */
  readonly room: (bytes: number) => Promise<void>;
  /** A reading as it may go out: at its pace, and no more than may be sent. */
  readonly outgoing: (reading: Reading, signal: AbortSignal) => Reading;
  readonly old?: Old;
  /** Something of it may be there: else the side is not asked. */
  readonly begun: boolean;
  /** The chunks of what is sent are wanted. */
  readonly chunked: boolean;
  /** It is at `at` now: so many bytes before that were sent, or copied there. */
  readonly went: (at: number, how: "sent" | "spliced", bytes: number) => void;
  /** Why it is sent whole: a line for a person. */
  readonly whole: (level: "debug" | "warn", why: string) => void;
}

export interface Sent {
  /** undefined: the end of it was not read, as it was there already. */
  readonly digest: Digest | undefined;
  readonly chunks?: readonly Chunk[];
}

type Give = (offset: number, signal: AbortSignal) => Reading;

export class Sending {
  /** What the target is given when it asks for bytes. */
  #give: Give = (offset, signal) => this.#compared(offset, signal);
  #continued = false;
  #asks: boolean;
  /** As the memo has it; asked only where something may be there. */
  #splicing: unknown;
  /** Of the reading that was given last: after its end the digest is known. */
  #last: DigestedReading | undefined;

  constructor(readonly given: SendingGiven) {
    this.#asks = given.begun;
  }

  /** Resolves when the partial is whole. */
  async run(signal: AbortSignal): Promise<Sent> {
    const { upload, old, whole } = this.given;
    const offset = this.#asks ? await this.#goesOnAt(signal) : 0;
    this.#asks = true;
    this.#continued = offset > 0;
    if (this.#continued || old !== undefined) this.#splicing = upload.memo.get(splicingKey);
    if (offset === upload.size && offset > 0) return { digest: undefined };
    await this.given.room(upload.size - offset);
    if (old === undefined || !this.#splices(old)) return this.#plain(offset, signal);
    try {
      return (await this.#spliced(old, offset, signal)) ?? (await this.#plain(offset, signal));
    } catch (error) {
      // Of the source, or of a side that is not there: that is not for another way to mend.
      if (!(error instanceof NotSpliced)) throw error;
      whole("debug", error.message);
      return this.#plain(await this.#goesOnAt(signal), signal);
    }
  }

  async #goesOnAt(signal: AbortSignal): Promise<number> {
    this.#give = this.#compared;
    const offset = await goesOnAt(this.given.target, this.#upload(), signal);
    this.given.went(offset, "sent", 0);
    return offset;
  }

  /** Proves what was copied, or was there before, while its name is not made free yet. false: it is another content, of which nothing is left. */
  async prove(digest: Digest, signal: AbortSignal): Promise<boolean> {
    const { target } = this.given;
    const upload = this.#upload({ sealed: true, digest });
    if (upload.spliced !== true && !this.#continued) return true;
    this.#give = this.#compared;
    try {
      await target.prove?.(upload, signal);
      return true;
    } catch (error) {
      if (!isFault(error, "mismatch")) throw error;
      await discardWrong(target, upload, signal);
      this.given.whole("warn", `what was there is not what was taken for it: ${error.message}`);
      return false;
    }
  }

  #splices(old: Old): boolean {
    const { target } = this.given;
    return target.splice !== undefined && target.features.splices !== undefined && old.size >= leastSpliced && this.#splicing !== "wrong";
  }

  /** From there on as it is. */
  async #plain(offset: number, signal: AbortSignal): Promise<Sent> {
    const { target, chunked, read } = this.given;
    let chunker: Chunker | undefined;
    this.#give = (from, reader) => {
      const reading = (this.#last = read(chunked ? 0 : from, true, reader));
      if (!chunked) return this.given.outgoing(reading, reader);
      const scan = new Scan(reading, (chunker = new Chunker()));
      return this.given.outgoing(scan.from(from), reader);
    };
    await target.write(this.#upload(), offset, signal, this.#sent(offset));
    return this.#done(chunker);
  }

  #done(chunker: Chunker | undefined): Sent {
    const digest = this.#last?.digest;
    return { digest, ...(chunker === undefined || digest === undefined || !this.given.chunked ? {} : { chunks: chunker.end() }) };
  }

  /** undefined: nothing was done. */
  async #spliced(old: Old, offset: number, signal: AbortSignal): Promise<Sent | undefined> {
    const { target, upload, chunked, read, whole } = this.given;
    const ranges = target.features.splices === "ranges";
    // What was begun otherwise goes on.
    if (!ranges && offset > 0) return undefined;
    const grew = upload.size > old.size && offset < old.size;
    const before = ranges ? await old.chunks() : undefined;
    if (!grew && before === undefined) {
      if (ranges && chunked) whole("debug", "what it was made of is not known here");
      return undefined;
    }
    const chunker = before === undefined && !chunked ? undefined : new Chunker();
    const scan = new Scan((this.#last = read(0, true, signal)), chunker);
    try {
      if (grew && (await scan.digestTo(old.size)) === old.digest) {
        await this.#splice({ length: old.size - offset, from: offset }, offset, signal);
        let given = false;
        this.#give = (from, reader) => {
          // Read once: it goes on behind what was compared.
          if (from === old.size && !given) {
            given = true;
            return this.given.outgoing(scan, reader);
          }
          return this.given.outgoing((this.#last = read(from, true, reader)), reader);
        };
        await target.write(this.#upload(), old.size, signal, this.#sent(old.size));
        return this.#done(given && this.#last === scan.reading ? chunker : undefined);
      }
      if (before === undefined || chunker === undefined) return undefined;
      await scan.toEnd();
      const now = chunker.end();
      await this.#inSteps(stepsOf(before, now, leastFound), now, offset, signal);
      return this.#done(chunker);
    } finally {
      scan.close();
    }
  }

  async #inSteps(steps: readonly Step[], now: readonly Chunk[], offset: number, signal: AbortSignal): Promise<void> {
    const { target } = this.given;
    let end = 0;
    for (const { length, from } of steps) {
      const start = Math.max(end, offset);
      end += length;
      if (end <= offset) continue;
      if (from === undefined) {
        this.#give = (at, reader) => this.given.outgoing(readingOf(this.#again(now, at, end, reader)), reader);
        await target.write(this.#upload({ size: end }), start, signal, this.#sent(start));
      } else await this.#splice({ length: end - start, from: from + length - (end - start) }, start, signal);
    }
  }

  /** Bytes that were read before, from a file that may have changed: chunk by chunk they are those. */
  async *#again(now: readonly Chunk[], offset: number, end: number, signal: AbortSignal): AsyncGenerator<Buffer> {
    let [n, start] = [0, 0];
    for (let length = now[n]?.length ?? 0; start + length <= offset; length = now[n]?.length ?? Infinity) {
      start += length;
      n += 1;
    }
    const reading = this.given.read(start, false, signal);
    const scan = new Scan(reading, undefined);
    try {
      for (; start < end; n++) {
        const { length, hash } = now[n] ?? { length: 0, hash: "" };
        const bytes = await scan.take(length);
        if (bytes.length < length || length === 0 || hashOf(bytes) !== hash) throw new Fault("changed", "it is written while it is sent");
        yield bytes.subarray(Math.max(0, offset - start));
        start += length;
      }
    } finally {
      scan.close();
    }
  }

  /** Throws NotSpliced where sending may do. */
  async #splice({ length, from = 0 }: Step, at: number, signal: AbortSignal): Promise<void> {
    const { target, upload, old, went } = this.given;
    if (old === undefined) throw new Error("nothing can be spliced");
    // Before the first: from then on nobody knows what the partial holds.
    if (this.#splicing !== "begun") await upload.memo.set(splicingKey, (this.#splicing = "begun"));
    const fault = await spliced(target, this.#upload(), { path: old.path, offset: from, length }, at, signal);
    if (fault !== undefined) throw new NotSpliced(fault.message, { cause: fault });
    went(at + length, "spliced", length);
  }

  #sent(offset: number): (bytes: number) => void {
    let at = offset;
    return (bytes) => this.given.went((at += bytes), "sent", bytes);
  }

  /** What is there already is only compared: nobody needs a digest of that. */
  readonly #compared: Give = (offset, signal) => this.given.read(offset, false, signal);

  #upload(more: Partial<Upload> = {}): Upload {
    const { upload, readable } = this.given;
    const chunks: Give = (offset, signal) => this.#give(offset, signal);
    const spliced = this.#splicing === "begun" ? { spliced: true as const } : {};
    return { ...upload, ...spliced, chunks, read: (offset, signal) => readable(chunks(offset, signal)), ...more };
  }
}

class NotSpliced extends Error {}

/** With what is known of its partial. */
export function withSplicing<T extends Pick<Upload, "memo">>(upload: T): T & { readonly spliced?: true } {
  return { ...upload, ...(upload.memo.get(splicingKey) === "begun" ? { spliced: true as const } : {}) };
}

/** What was spliced is another content: the next try sends all of it. */
export async function discardWrong(target: Target, upload: Upload, signal: AbortSignal): Promise<void> {
  if (upload.spliced === true) await upload.memo.set(splicingKey, "wrong");
  await target.discard(upload, signal);
}

/** A reading from the first byte on, that is cut as it passes. */
class Scan implements Reading {
  at = 0;
  /** What was read of a chunk that is not used up. */
  #rest: Lent | undefined;

  constructor(
    readonly reading: Reading,
    readonly chunker: Chunker | undefined,
  ) {}

  async next(): Promise<Lent | undefined> {
    const chunk = this.#rest ?? (await this.#read());
    this.#rest = undefined;
    this.at += chunk?.bytes.length ?? 0;
    return chunk;
  }

  close(): void {
    this.#rest?.release();
    this.#rest = undefined;
    this.reading.close();
  }

  /** The digest of what is before `end`. */
  async digestTo(end: number): Promise<Digest> {
    const hash = createHash("sha256");
    await this.#through(end, (bytes) => hash.update(bytes));
    return `sha256:${hash.digest("hex")}`;
  }

  async toEnd(): Promise<void> {
    await this.#through(Infinity, () => undefined);
  }

  /** Fewer at the end of it. */
  async take(length: number): Promise<Buffer> {
    const parts: Buffer[] = [];
    await this.#through(this.at + length, (bytes) => parts.push(Buffer.from(bytes)));
    return Buffer.concat(parts);
  }

  /** What is before `offset` is not given. */
  from(offset: number): Reading {
    return {
      next: async () => {
        if (this.at < offset) await this.#through(offset, () => undefined);
        return this.next();
      },
      close: () => this.close(),
    };
  }

  async #through(end: number, each: (bytes: Buffer) => void): Promise<void> {
    while (this.at < end) {
      const chunk = await this.next();
      if (chunk === undefined) return;
      const behind = this.at - end;
      const { bytes, release } = chunk;
      if (behind <= 0) {
        each(bytes);
        release();
        continue;
      }
      each(bytes.subarray(0, bytes.length - behind));
      this.#rest = { bytes: bytes.subarray(bytes.length - behind), release };
      this.at = end;
    }
  }

  async #read(): Promise<Lent | undefined> {
    const chunk = await this.reading.next();
    if (chunk !== undefined) this.chunker?.update(chunk.bytes);
    return chunk;
  }
}
