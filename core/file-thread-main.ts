/** What runs in the thread of `file-thread.ts`: plain synchronous calls, one chunk of one file at a time, in turn. */
import { createHash, type Hash } from "node:crypto";
import { closeSync, fstatSync, lstatSync, openSync, readdirSync, readSync } from "node:fs";
import { parentPort } from "node:worker_threads";
import { Fault, faultOfErrno, isFault } from "./errors.js";
import { ahead, type Asked, type Told } from "./file-thread.js";
import type { FileEntry } from "./plugin.js";
import {
  entryInstead,
  entryOf,
  kindOf,
  listedStill,
  nameless,
  noneIfGone,
  openFlags,
  otherThan,
  pathIn,
  type Within,
  withinAtSync,
} from "./stat.js";

const chunkBytes = 512 * 1024;
/** Not more than this is looked at before others get their turn. */
const listedAtOnce = 500;
/** So many buffers that were given back are kept. */
const mostSpare = 8;
/** What is told goes together: with so many bytes, or at the end of a turn. */
const toldBytes = 256 * 1024;

const spare: ArrayBuffer[] = [];
const jobs = new Map<number, Job>();
let turning = false;
let telling: Told[] = [];
let lent: ArrayBuffer[] = [];
let lentBytes = 0;

interface Job {
  /** Something may be done now. */
  readonly ready: boolean;
  step(): void;
  more(): void;
  close(): void;
}

function tell(told: Told): void {
  if (told.end === true) jobs.delete(told.id);
  telling.push(told);
  if (told.buffer === undefined) return;
  lent.push(told.buffer);
  lentBytes += told.buffer.byteLength;
  if (lentBytes >= toldBytes) post();
}

function post(): void {
  if (telling.length === 0) return;
  parentPort?.postMessage(telling, lent);
  telling = [];
  lent = [];
  lentBytes = 0;
}

function fail(id: number, error: unknown, what: string): void {
  const { kind, message } = isFault(error) ? error : faultOfErrno(error, what);
  tell({ id, fault: { kind, message }, end: true });
}

class Read implements Job {
  readonly #asked: Extract<Asked, { do: "read" }>;
  readonly #hash: Hash | undefined;
  #fd: number | undefined;
  #opened = false;
  #begun = false;
  #at: number;
  #credit = ahead;
  #proof: Proof | undefined;

  constructor(asked: Extract<Asked, { do: "read" }>) {
    this.#asked = asked;
    this.#hash = asked.digest ? createHash("sha256") : undefined;
    this.#at = asked.digest ? 0 : asked.from;
  }

  get ready(): boolean {
    return this.#credit > 0 || this.#at < this.#asked.from || this.#proof !== undefined;
  }

  more(): void {
    this.#credit += 1;
  }

  close(): void {
    const fd = this.#fd;
    this.#fd = undefined;
    if (fd === undefined) return;
    try {
      closeSync(fd);
    } catch {
      // It was only read; a file system by FUSE whose program has ended says so here once more, and it is closed all the same.
    }
  }

  step(): void {
    const { id, size, from, path } = this.#asked;
    try {
      if (this.#proof !== undefined) {
        this.#prove(this.#proof);
        return;
      }
      this.#fd ??= this.#open();
      if (this.#at >= size) {
        this.#end(this.#fd);
        return;
      }
      const before = this.#at < from;
      const wanted = Math.min(chunkBytes, (before ? from : size) - this.#at);
      const into = bufferFor(wanted);
      const bytes = readSync(this.#fd, new Uint8Array(into), 0, wanted, this.#at);
      if (bytes === 0) throw new Fault("changed", `it ended at ${this.#at}, before ${size}`);
      // Behind its first byte: what is another file by now was perhaps that already.
      if (!this.#begun) this.#expectSame(entryOf(path, fstatSync(this.#fd, { bigint: true })));
      this.#begun = true;
      this.#hash?.update(new Uint8Array(into, 0, bytes));
      this.#at += bytes;
      if (before) keep(into);
      else {
        this.#credit -= 1;
        this.#end(this.#fd, into, bytes);
      }
    } catch (error) {
      this.close();
      fail(id, error, this.#opened ? "cannot read it" : `cannot open ${path}`);
    }
  }

  #open(): number {
    const { place, path, size, from } = this.#asked;
    const fd = openSync(Buffer.from(place), openFlags);
    this.#fd = fd;
    const stat = fstatSync(fd, { bigint: true });
    if (!stat.isFile()) throw new Fault("rejected", `${path} is ${kindOf(stat)}`);
    if (from > size) throw new Fault("changed", `it ends at ${size}, before ${from}`);
    this.#opened = true;
    return fd;
  }

  #expectSame(now: FileEntry, exact = this.#asked.exact): void {
    const { size, modifiedMs } = this.#asked;
    const other = otherThan({ size, ...(modifiedMs === undefined ? {} : { modifiedMs }) }, now, exact);
    if (other !== undefined) throw new Fault("changed", other);
  }

  /** Tells a chunk; with the last one that it ends, once the file was found to be the same still. */
  #end(fd: number, buffer?: ArrayBuffer, bytes?: number): void {
    const { id, place, path, size, mayGo, exact, mayGrow } = this.#asked;
    const chunk = buffer === undefined ? {} : { buffer, bytes: bytes ?? 0 };
    if (this.#at < size) {
      tell({ id, ...chunk });
      return;
    }
    const named = lstatSync(Buffer.from(place), { bigint: true, throwIfNoEntry: mayGo !== true });
    const stat = named ?? fstatSync(fd, { bigint: true });
    this.close();
    if (!stat.isFile()) throw new Fault("changed", `${path} is ${kindOf(stat)} now`);
    const digest = this.#hash === undefined ? undefined : (`sha256:${this.#hash.digest("hex")}` as const);
    const last: Told = { id, ...chunk, ...(digest === undefined ? {} : { digest }), end: true };
    const now = entryOf(path, stat);
    if (exact && mayGrow === true && digest !== undefined && named !== undefined && now.size > size) {
      this.#expectSame(now, false);
      this.#fd = openSync(Buffer.from(place), openFlags);
      this.#proof = { last, now, hash: createHash("sha256"), at: 0 };
      return;
    }
    this.#expectSame(now);
    tell(last);
  }

  /** A piece of the beginning of what is longer now. */
  #prove(proof: Proof): void {
    const { size } = this.#asked;
    const into = bufferFor(Math.min(chunkBytes, size - proof.at));
    const bytes = readSync(this.#fd ?? -1, new Uint8Array(into), 0, Math.min(chunkBytes, size - proof.at), proof.at);
    proof.hash.update(new Uint8Array(into, 0, bytes));
    keep(into);
    proof.at += bytes;
    if (proof.at < size && bytes > 0) return;
    this.#proof = undefined;
    this.close();
    if (`sha256:${proof.hash.digest("hex")}` !== proof.last.digest) this.#expectSame(proof.now);
    tell(proof.last);
  }
}

/** Whether a file that is longer at the end of its reading still begins with what was read: the digest of it so far. */
interface Proof {
  readonly last: Told;
  readonly now: FileEntry;
  readonly hash: Hash;
  at: number;
}

class List implements Job {
  #names: Buffer[] | undefined;
  #within: Within | undefined;
  readonly #missing: Buffer[] = [];
  #credit = ahead;

  constructor(readonly asked: Extract<Asked, { do: "list" }>) {}

  get ready(): boolean {
    return this.#credit > 0;
  }

  more(): void {
    this.#credit += 1;
  }

  close(): void {
    this.#names = [];
  }

  step(): void {
    const { id, place, dir } = this.asked;
    try {
      if (this.#names === undefined) {
        this.#names = readdirSync(Buffer.from(place), { encoding: "buffer" });
        this.#within = withinAtSync(Buffer.from(place));
      }
      const entries = this.#names
        .splice(0, listedAtOnce)
        .map((name) => this.#look(name))
        .filter((it) => it !== undefined);
      const ends = this.#names.length === 0;
      if (ends && this.#missing.length > 0)
        for (const name of listedStill(this.#missing, this.#namesNow())) entries.push(this.#look(name) ?? nameless(dir, name));
      this.#credit -= 1;
      tell({ id, entries, ...(ends ? { end: true } : {}) });
    } catch (error) {
      fail(id, error, `cannot list ${dir === "" ? Buffer.from(place).toString() : dir}`);
    }
  }

  #namesNow(): Buffer[] {
    try {
      return readdirSync(Buffer.from(this.asked.place), { encoding: "buffer" });
    } catch (error) {
      return noneIfGone(error);
    }
  }

  /** undefined for what vanished meanwhile. Throws "offline": that is the whole device's. */
  #look(name: Buffer): FileEntry | undefined {
    const { place, dir } = this.asked;
    const path = pathIn(dir, name);
    try {
      const stat = lstatSync(Buffer.concat([place, Buffer.from("/"), name]), { bigint: true, throwIfNoEntry: false });
      if (stat === undefined) this.#missing.push(name);
      return stat === undefined ? undefined : entryOf(path, stat, this.#within);
    } catch (error) {
      return entryInstead(path, error);
    }
  }
}

function bufferFor(bytes: number): ArrayBuffer {
  if (bytes < chunkBytes / 8) return new ArrayBuffer(bytes);
  return spare.pop() ?? new ArrayBuffer(chunkBytes);
}

function keep(buffer: ArrayBuffer): void {
  if (buffer.byteLength === chunkBytes && spare.length < mostSpare) spare.push(buffer);
}

/** One step of each that is ready, then a look at what was asked meanwhile. */
function turn(): void {
  turning = false;
  let again = false;
  for (const job of [...jobs.values()]) {
    if (!job.ready) continue;
    job.step();
    again ||= job.ready;
  }
  post();
  if (again && jobs.size > 0) turnSoon();
}

function turnSoon(): void {
  if (turning) return;
  turning = true;
  setImmediate(turn);
}

parentPort?.on("message", (asking: readonly Asked[]) => {
  for (const asked of asking) {
    if (asked.do === "read") jobs.set(asked.id, new Read(asked));
    else if (asked.do === "list") jobs.set(asked.id, new List(asked));
    else if (asked.do === "more") jobs.get(asked.id)?.more();
    else if (asked.do === "keep") keep(asked.buffer);
    else {
      jobs.get(asked.id)?.close();
      jobs.delete(asked.id);
    }
  }
  turnSoon();
});
