/**
 * Files of one device on this machine, read, digested and listed in a thread of its own: there a call of the file system costs a few
 * microseconds rather than a trip through libuv's pool, digesting takes no time from the loop, and a medium that hangs holds up only itself.
 *
 * The thread begins with the first question and ends after a while without any. What it reads is lent: a chunk that is given back is read into again.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { abortedFault, Fault, throwIfAborted, type FaultKind } from "./errors.js";
import { holdHeap } from "./heap.js";
import type { Chunk, Digest, DigestedReading, FileEntry, HowToRead } from "./plugin.js";
import { soon } from "./soon.js";

/** What the thread is asked. `id` names the reading or listing. */
export type Asked =
  | {
      readonly do: "read";
      readonly id: number;
      /** The path on disk, and as a person reads it. */
      readonly place: Uint8Array;
      readonly path: string;
      readonly size: number;
      readonly modifiedMs: number | undefined;
      /** The first byte to be given; with `digest` those before it are digested. */
      readonly from: number;
      readonly digest: boolean;
      readonly exact: boolean;
      readonly mayGrow?: boolean;
      readonly mayGo?: boolean;
    }
  | { readonly do: "list"; readonly id: number; readonly place: Uint8Array; readonly dir: string }
  /** One was taken: one more may come. */
  | { readonly do: "more"; readonly id: number }
  /** Given back: it may be read into. */
  | { readonly do: "keep"; readonly buffer: ArrayBuffer }
  | { readonly do: "end"; readonly id: number };

/** What the thread tells. `end`: nothing follows. */
export interface Told {
  readonly id: number;
  readonly buffer?: ArrayBuffer;
  readonly bytes?: number;
  readonly digest?: Digest;
  readonly entries?: readonly FileEntry[];
  readonly fault?: { readonly kind: FaultKind; readonly message: string };
  readonly end?: true;
}

/** So many chunks of one reading are read before any is taken. */
export const ahead = 2;
/** A buffer of less is not worth the way back. */
const worthBytes = 512 * 1024;
const idleMs = 10_000;
/** So long its end is waited for. */
const heldMs = 1000;

interface Job {
  told(message: Told): void;
  broken(error: Error): void;
}

export class FileThread {
  #worker: Worker | undefined;
  #nextId = 1;
  readonly #jobs = new Map<number, Job>();
  #asking: Asked[] = [];
  #kept: ArrayBuffer[] = [];
  #idle: NodeJS.Timeout | undefined;
  #closed = false;

  /** Throws, in `next`, what a Source's `open` throws. */
  read(place: Uint8Array, entry: FileEntry, from: number, how: HowToRead, signal: AbortSignal): DigestedReading {
    const id = this.#nextId++;
    const reading = new ThreadReading(this, id, signal);
    const { path, size, modifiedMs } = entry;
    this.#begin(reading, { do: "read", id, place, path, size, modifiedMs, from, ...how });
    return reading;
  }

  /** What is in one directory, some hundred at a time. `dir`: its path in core, "" for the root. Throws the Fault of opening it. */
  async *list(place: Uint8Array, dir: string, signal: AbortSignal): AsyncGenerator<readonly FileEntry[]> {
    throwIfAborted(signal);
    const id = this.#nextId++;
    const messages = new Messages(signal);
    this.#begin(messages, { do: "list", id, place, dir });
    let ended = false;
    try {
      while (!ended) {
        const told = await messages.next();
        ended = told.end === true;
        if (!ended) this.ask({ do: "more", id });
        if (told.entries !== undefined) yield told.entries;
      }
    } finally {
      messages.close();
      this.end(id, ended);
    }
  }

  /** Ends the thread; whoever still reads is told "aborted". */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#stop(new Fault("aborted", "the device was closed"));
  }

  /** To the thread, at the end of this turn of the loop or a moment later: one message for all that is asked until then. */
  ask(asked: Asked): void {
    if (this.#closed) return;
    if (this.#asking.length === 0) soon(this.#jobs.size, () => this.#post());
    this.#asking.push(asked);
    if (asked.do === "keep") this.#kept.push(asked.buffer);
  }

  /** Nothing more is wanted of this; `told`: the thread said so. */
  end(id: number, told: boolean): void {
    if (!this.#jobs.delete(id)) return;
    if (!told) this.ask({ do: "end", id });
    if (this.#jobs.size > 0) return;
    this.#worker?.unref();
    this.#idle ??= setTimeout(() => this.#rest(), idleMs).unref();
  }

  #begin(job: Job, asked: Asked & { readonly id: number }): void {
    if (this.#closed) {
      job.broken(new Fault("aborted", "the device was closed"));
      return;
    }
    clearTimeout(this.#idle);
    this.#idle = undefined;
    this.#jobs.set(asked.id, job);
    this.ask(asked);
  }

  #post(): void {
    const asking = this.#asking;
    const kept = this.#kept;
    this.#asking = [];
    this.#kept = [];
    // What came after its end has nobody to tell.
    if (this.#closed || (this.#worker === undefined && this.#jobs.size === 0)) return;
    try {
      this.#worker ??= this.#start();
      if (this.#jobs.size > 0) this.#worker.ref();
      this.#worker.postMessage(asking, kept);
    } catch (error) {
      void this.#stop(new Fault("transient", "no thread can be begun that reads files", { cause: error }));
    }
  }

  #start(): Worker {
    const worker = new Worker(new URL("file-thread-main.js", import.meta.url), {
      name: "files",
      resourceLimits: { maxOldGenerationSizeMb: 64, maxYoungGenerationSizeMb: 4, stackSizeMb: 1 },
    });
    worker.unref();
    worker.once("online", holdHeap);
    worker.on("message", (all: readonly Told[]) => {
      for (const told of all) this.#jobs.get(told.id)?.told(told);
    });
    worker.on("error", (error) => {
      if (this.#worker === worker) void this.#stop(new Fault("transient", `the thread that reads files failed: ${String(error)}`));
    });
    return worker;
  }

  #rest(): void {
    this.#idle = undefined;
    if (this.#jobs.size === 0) void this.#stop(new Fault("aborted", "nothing is read"));
  }

  async #stop(fault: Fault): Promise<void> {
    clearTimeout(this.#idle);
    this.#idle = undefined;
    const worker = this.#worker;
    this.#worker = undefined;
    const jobs = [...this.#jobs.values()];
    this.#jobs.clear();
    for (const job of jobs) job.broken(fault);
    // One that a file system holds ends with that.
    await Promise.race([worker?.terminate(), sleep(heldMs, undefined, { ref: false })]);
  }
}

/** What the thread tells of one thing, in order. */
class Messages implements Job {
  readonly #told: Told[] = [];
  #failure: Error | undefined;
  #waiting: { resolve(told: Told): void; reject(error: Error): void } | undefined;
  readonly #onAbort = () => this.broken(abortedFault(this.#signal));
  readonly #signal: AbortSignal;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
    if (signal.aborted) this.#onAbort();
    else signal.addEventListener("abort", this.#onAbort, { once: true });
  }

  told(told: Told): void {
    if (told.fault !== undefined) this.broken(new Fault(told.fault.kind, told.fault.message));
    else if (this.#waiting === undefined) this.#told.push(told);
    else {
      this.#waiting.resolve(told);
      this.#waiting = undefined;
    }
  }

  broken(error: Error): void {
    this.#failure ??= error;
    this.#waiting?.reject(error);
    this.#waiting = undefined;
  }

  /** Throws the fault that it ended with, after what came before; "aborted" at once. */
  next(): Promise<Told> {
    if (this.#signal.aborted) return Promise.reject(abortedFault(this.#signal));
    const told = this.#told.shift();
    if (told !== undefined) return Promise.resolve(told);
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => (this.#waiting = { resolve, reject }));
  }

  close(): void {
    this.#signal.removeEventListener("abort", this.#onAbort);
  }
}

class ThreadReading implements DigestedReading {
  digest: Digest | undefined;
  #over = false;
  #failure: Error | undefined;
  readonly #messages: Messages;

  constructor(
    readonly thread: FileThread,
    readonly id: number,
    signal: AbortSignal,
  ) {
    this.#messages = new Messages(signal);
  }

  told(told: Told): void {
    this.#messages.told(told);
  }

  broken(error: Error): void {
    this.#messages.broken(error);
  }

  async next(): Promise<Chunk | undefined> {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#over) return undefined;
    let told: Told;
    try {
      told = await this.#messages.next();
    } catch (error) {
      this.#failure = error as Error;
      this.close();
      throw error;
    }
    const { buffer, bytes = 0 } = told;
    if (told.end === true) {
      this.digest = told.digest;
      this.#close(true);
    } else this.thread.ask({ do: "more", id: this.id });
    if (buffer === undefined) return undefined;
    return { bytes: Buffer.from(buffer, 0, bytes), release: () => this.#release(buffer) };
  }

  close(): void {
    this.#close(false);
  }

  #close(told: boolean): void {
    if (this.#over) return;
    this.#over = true;
    this.#messages.close();
    this.thread.end(this.id, told);
  }

  #release(buffer: ArrayBuffer): void {
    if (buffer.byteLength >= worthBytes) this.thread.ask({ do: "keep", buffer });
  }
}
