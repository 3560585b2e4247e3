/**
 * What core gives to a plugin, made up for tests: a context whose memory is a Map and whose clock is the real one, and uploads over bytes
 * that are held in memory or made on the fly.
 */
import { createHash, randomBytes } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { Readable } from "node:stream";
import { Fault } from "../../core/errors.js";
import { cutName } from "../../core/names.js";
import type { Clock, Digest, Expect, Level, Memo, PluginContext, Reading as CoreReading, Upload } from "../../core/plugin.js";

export function memo(): Memo {
  const values = new Map<string, unknown>();
  return {
    get: (key) => values.get(key),
    set: (key, value) => {
      if (value === undefined) values.delete(key);
      else values.set(key, value);
      return Promise.resolve();
    },
  };
}

export function realClock(trusted = true): Clock {
  return {
    monotonicMs: () => performance.now(),
    wallMs: () => Date.now(),
    trusted: () => trusted,
    sleep: async (ms, signal) => {
      try {
        await delay(ms, undefined, { signal });
      } catch (error) {
        throw new Fault("aborted", "stopped", { cause: error });
      }
    },
  };
}

export interface Said {
  readonly level: Level;
  readonly message: string;
  readonly facts: Readonly<Record<string, unknown>>;
}

export interface TestContext extends PluginContext {
  /** Everything that the plugin said, in order. */
  readonly said: readonly Said[];
  /** Resolves with the first thing said that matches, also if it was said before. */
  heard(match: RegExp): Promise<Said>;
}

export function context(options: { readonly stateDir?: string; readonly clock?: Clock } = {}): TestContext {
  const said: Said[] = [];
  const waiting = new Set<(it: Said) => void>();
  return {
    name: "under-test",
    vehicle: "plane-1",
    installation: "0a1b2c3d",
    stateDir: options.stateDir ?? "/nonexistent",
    clock: options.clock ?? realClock(),
    memory: memo(),
    said,
    say: (level, message, facts = {}) => {
      const it = { level, message, facts };
      said.push(it);
      for (const tell of waiting) tell(it);
    },
    tellTime: () => undefined,
    tellArmed: () => undefined,
    heard: (match) =>
      new Promise((resolve) => {
        const tell = (it: Said): void => {
          if (!match.test(it.message)) return;
          waiting.delete(tell);
          resolve(it);
        };
        waiting.add(tell);
        said.forEach(tell);
      }),
  };
}

export function sha256(bytes: Uint8Array): Digest {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/** Bytes that no compression or zero-filled hole can be taken for; the same for the same seed. */
export function bytes(size: number, seed = 1): Buffer {
  const made = Buffer.alloc(size);
  let state = (seed * 2654435761 + 12345) >>> 0;
  for (let i = 0; i < size; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    made[i] = state >>> 24;
  }
  return made;
}

/** Where an upload is read: what offsets were asked for, and how many bytes were given. */
export interface Reading {
  readonly offsets: number[];
  given: number;
}

export interface TestUpload extends Upload {
  readonly reading: Reading;
  /** The same bytes, not counted: for a harness that puts them where the target wants them. */
  readonly open: (offset: number, signal: AbortSignal) => Readable;
}

export interface UploadOptions {
  readonly expect?: Expect;
  readonly modifiedMs?: number;
  /** Of the partial; a new one by default. */
  readonly id?: string;
  /** Declared size; that of the content by default. */
  readonly size?: number;
  /** Declared digest; that of the content by default. */
  readonly digest?: Digest;
  /** Where the bytes come from, in place of the content. */
  readonly read?: (offset: number, signal: AbortSignal) => Readable;
}

/** `<dir of path>/.<name>.<installation>-<upload id>.part`, the last part at most 255 bytes. */
export function partialPathOf(path: string, id: string): string {
  const at = path.lastIndexOf("/") + 1;
  const tail = `.0a1b2c3d-${id}.part`;
  return `${path.slice(0, at)}.${cutName(path.slice(at), 254 - tail.length)}${tail}`;
}

/** A sealed upload of `content` to `path`. */
export function upload(path: string, content: Buffer, options: UploadOptions = {}): TestUpload {
  const id = options.id ?? randomBytes(8).toString("hex");
  const reading: Reading = { offsets: [], given: 0 };
  const size = options.size ?? content.length;
  const open = options.read ?? ((offset: number) => chunks(content.subarray(offset)));
  const read = (offset: number, signal: AbortSignal): Readable => {
    reading.offsets.push(offset);
    const stream = open(offset, signal);
    stream.on("data", (chunk: Buffer) => (reading.given += chunk.length));
    stream.pause();
    // Node 24 reads ahead before anybody has asked: whoever asks is told all the same.
    stream.on("error", () => undefined);
    return stream;
  };
  return {
    id,
    path,
    partialPath: partialPathOf(path, id),
    size,
    ...(options.modifiedMs === undefined ? {} : { modifiedMs: options.modifiedMs }),
    expect: options.expect ?? { kind: "absent" },
    sealed: true,
    digest: options.digest ?? sha256(content),
    memo: memo(),
    reading,
    open,
    read,
    chunks: (offset, signal) => readingOfStream(read(offset, signal)),
  };
}

/** Each chunk is checked not to be given back twice. */
export function readingOfStream(stream: Readable): CoreReading {
  const chunks = stream[Symbol.asyncIterator]() as AsyncIterator<Buffer, undefined>;
  return {
    next: async () => {
      const result = await chunks.next();
      if (result.done === true) return undefined;
      const bytes = Buffer.from(result.value);
      let lent = true;
      const release = (): void => {
        if (!lent) throw new Error("a chunk was given back twice");
        lent = false;
        // Whoever still looks at it sees it.
        bytes.fill(0xee);
      };
      return { bytes, release };
    },
    close: () => void stream.destroy(),
  };
}

/** A stream of these bytes in pieces of 64 KiB. */
export function chunks(content: Buffer, pieceBytes = 64 * 1024): Readable {
  let at = 0;
  return new Readable({
    highWaterMark: pieceBytes,
    read() {
      const piece = content.subarray(at, at + pieceBytes);
      at += piece.length;
      this.push(piece.length === 0 ? null : piece);
    },
  });
}
