/**
 * SFTP version 3 over a channel: requests go out as they are asked, those of one turn of the loop together, small ones of a moment together where many are under way; answers come back by
 * their number.
 *
 * Names are bytes, so that one of any encoding comes back as it was listed. A channel that ends, or gives no answer for too long, ends all
 * that waits with a Fault; nothing is tried again here.
 */
import type { Duplex } from "node:stream";
import { Fault, isFault } from "../../core/errors.js";
import { soon } from "../../core/soon.js";
import type { Departure } from "./socket.js";

export const Type = {
  init: 1,
  version: 2,
  open: 3,
  close: 4,
  read: 5,
  write: 6,
  lstat: 7,
  fstat: 8,
  setstat: 9,
  fsetstat: 10,
  opendir: 11,
  readdir: 12,
  remove: 13,
  mkdir: 14,
  rmdir: 15,
  realpath: 16,
  stat: 17,
  rename: 18,
  status: 101,
  handle: 102,
  data: 103,
  name: 104,
  attrs: 105,
  extended: 200,
  extendedReply: 201,
} as const;

/** No answer is longer: a list of 100 names of 255 bytes, twice, takes a tenth of it. */
const mostBytes = 2 ** 20;

/** What one SSH packet carries: OpenSSH takes no more, and each costs a cipher, a nonce and a digest of its own. */
const packetBytes = 32 * 1024;
/** So many buffers that went out are kept. */
const mostSpare = 16;

/** A part of a request: a number of 32 bits, one of 64 (bigint), or bytes with their length before them. */
export type Part = number | bigint | Buffer;

export interface Answer {
  readonly type: number;
  readonly body: Cursor;
}

/** Reads an answer from its start to its end. What is not there is a Fault: the server does not keep to the protocol. */
export class Cursor {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  u32(): number {
    return this.#take(4).readUInt32BE();
  }

  u64(): number {
    const value = this.#take(8).readBigUInt64BE();
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new Fault("transient", `the server told a size of ${value} bytes`);
    return Number(value);
  }

  /** One that may be beyond what a number can tell: then the most that it can. */
  figure(): number {
    return Number(this.#take(8).readBigUInt64BE());
  }

  string(): Buffer {
    return this.#take(this.u32());
  }

  #take(n: number): Buffer {
    if (n > this.left) throw new Fault("transient", "the server's answer is shorter than it says");
    this.#at += n;
    return this.#bytes.subarray(this.#at - n, this.#at);
  }
}

interface Waiting {
  readonly done: (answer: Answer) => void;
  readonly fail: (error: Fault) => void;
  /** Until then silence is no fault. */
  readonly untilMs: number;
}

export class Wire {
  readonly #channel: Duplex;
  readonly #timeoutMs: number;
  readonly #departure: Departure | undefined;
  readonly #waiting = new Map<number, Waiting>();
  #version: ((extensions: ReadonlyMap<string, string>) => void) | undefined;
  #parts: Buffer[] = [];
  #held = 0;
  /** Requests that go out together. */
  #out: Buffer | undefined;
  #filled = 0;
  #spare: Buffer[] = [];
  #next = 1;
  #heardMs = performance.now();
  #timer: NodeJS.Timeout | undefined;
  #over: Fault | undefined;
  /** Once, when it ends, however that comes. */
  onEnd: ((why: Fault) => void) | undefined;

  /** `departure`: of the socket below. */
  constructor(channel: Duplex, timeoutMs: number, departure?: Departure) {
    this.#channel = channel;
    this.#timeoutMs = timeoutMs;
    this.#departure = departure;
    channel.on("data", (bytes: Buffer) => this.#take(bytes));
    channel.once("error", (error: Error) => this.end(new Fault("transient", `the connection broke: ${error.message}`, { cause: error })));
    channel.once("close", () => this.end(new Fault("transient", "the server closed the connection")));
  }

  get closed(): boolean {
    return this.#over !== undefined;
  }

  /** Requests without an answer. */
  get load(): number {
    return this.#waiting.size;
  }

  /** What the server can beside version 3. Once, before anything else. */
  async start(): Promise<ReadonlyMap<string, string>> {
    const told = new Promise<ReadonlyMap<string, string>>((resolve, reject) => {
      this.#version = resolve;
      this.#wait(0, { done: () => undefined, fail: reject, untilMs: 0 });
    });
    const hello = Buffer.alloc(9);
    hello.writeUInt32BE(5);
    hello[4] = Type.init;
    hello.writeUInt32BE(3, 5);
    this.#channel.write(hello);
    return told;
  }

  /** Sends a request; its parts are copied before this returns. `patienceMs`: so long silence is no fault. */
  ask(type: number, parts: readonly Part[], patienceMs = 0): Promise<Answer> {
    if (this.#over !== undefined) return Promise.reject(this.#over);
    const id = this.#next;
    this.#next = id === 0xffffffff ? 1 : id + 1;
    let length = 9;
    for (const part of parts) length += typeof part === "number" ? 4 : typeof part === "bigint" ? 8 : 4 + part.length;
    const { into: message, from } = this.#room(length);
    message.writeUInt32BE(length - 4, from);
    message[from + 4] = type;
    message.writeUInt32BE(id, from + 5);
    let at = from + 9;
    for (const part of parts) {
      if (typeof part === "number") at = message.writeUInt32BE(part, at);
      else if (typeof part === "bigint") at = message.writeBigUInt64BE(part, at);
      else {
        at = message.writeUInt32BE(part.length, at);
        at += part.copy(message, at);
      }
    }
    return new Promise((done, fail) => {
      this.#wait(id, { done, fail, untilMs: patienceMs === 0 ? 0 : performance.now() + patienceMs });
    });
  }

  /** Where a request of so many bytes is to be written, at once. */
  #room(length: number): { into: Buffer; from: number } {
    if (this.#filled + length > packetBytes) this.#flush();
    if (this.#out === undefined) {
      this.#out = (length <= packetBytes ? this.#spare.pop() : undefined) ?? Buffer.allocUnsafeSlow(Math.max(length, packetBytes));
      soon(length < packetBytes / 2 ? this.#waiting.size : 0, () => this.#flush());
    }
    const from = this.#filled;
    this.#filled += length;
    return { into: this.#out, from };
  }

  #flush(): void {
    const out = this.#out;
    if (out === undefined || this.#over !== undefined) return;
    const bytes = out.subarray(0, this.#filled);
    this.#out = undefined;
    this.#filled = 0;
    // Once it is encrypted, which makes a copy, its memory is used again.
    this.#channel.write(bytes, (error) => {
      if (!error && out.length === packetBytes && this.#spare.length < mostSpare) this.#spare.push(out);
    });
  }

  end(why: Fault): void {
    if (this.#over !== undefined) return;
    this.#over = why;
    clearTimeout(this.#timer);
    for (const { fail } of this.#waiting.values()) fail(why);
    this.#waiting.clear();
    this.#channel.destroy();
    this.onEnd?.(why);
  }

  #wait(id: number, waiting: Waiting): void {
    if (this.#waiting.size === 0) this.#heard();
    this.#waiting.set(id, waiting);
    this.#timer ??= setTimeout(() => this.#look(), this.#timeoutMs);
  }

  #heard(): void {
    this.#heardMs = performance.now();
    this.#departure?.heard();
  }

  #look(): void {
    this.#timer = undefined;
    if (this.#waiting.size === 0 || this.#over !== undefined) return;
    const now = performance.now();
    const until = Math.max(this.#heardMs + this.#timeoutMs, ...[...this.#waiting.values()].map((it) => it.untilMs));
    if (now < until) this.#timer = setTimeout(() => this.#look(), until - now);
    else if (this.#departure?.excuses() === true) this.#timer = setTimeout(() => this.#look(), this.#timeoutMs);
    else this.end(new Fault("transient", `the server gave no answer for ${Math.round((now - this.#heardMs) / 1000)} s`));
  }

  #take(bytes: Buffer): void {
    this.#heard();
    this.#parts.push(bytes);
    this.#held += bytes.length;
    try {
      while (this.#over === undefined && this.#held >= 4) {
        if (this.#parts.length > 1 && (this.#parts[0]?.length ?? 0) < 4) this.#parts = [Buffer.concat(this.#parts)];
        const length = 4 + (this.#parts[0]?.readUInt32BE() ?? 0);
        if (length > mostBytes || length < 9) throw new Fault("denied", "what answers speaks no SFTP (perhaps its login prints text)");
        if (this.#held < length) return;
        const whole = this.#parts.length === 1 ? (this.#parts[0] ?? Buffer.alloc(0)) : Buffer.concat(this.#parts);
        this.#held -= length;
        this.#parts = this.#held > 0 ? [whole.subarray(length)] : [];
        this.#answer(whole.subarray(0, length));
      }
    } catch (error) {
      this.end(isFault(error) ? error : new Fault("transient", String(error)));
    }
  }

  #answer(message: Buffer): void {
    const type = message[4] ?? 0;
    const body = new Cursor(message.subarray(5));
    if (type === Type.version) {
      const version = body.u32();
      if (version < 3) throw new Fault("denied", `the server speaks only version ${version} of SFTP, and 3 is needed`);
      const extensions = new Map<string, string>();
      while (body.left > 0) extensions.set(body.string().toString(), body.string().toString());
      this.#waiting.delete(0);
      this.#version?.(extensions);
      return;
    }
    const id = body.u32();
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) throw new Fault("transient", `the server answered what was not asked (${type})`);
    this.#waiting.delete(id);
    waiting.done({ type, body });
  }
}
