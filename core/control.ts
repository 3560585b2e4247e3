/**
 * How the command line asks a running daemon: a socket in the state directory, one conversation per connection. Whoever may write to the state
 * directory may ask. A socket that a killed daemon left behind is replaced at the next start (the state directory's lock is held first).
 *
 * Each side sends lines of JSON; `{"bytes":N}` is followed by N bytes. Who asks sends the request, later perhaps bytes and `{"end":true}`, and behind
 * `{"anew":true}` others in their place. The answer is any number of `{"say":…}` and bytes, then `{"ok":…}` or `{"error":…,"fault":…}`; an empty line says that the work goes on.
 * Who goes away before the answer ends the work.
 */
import { promises as fs, closeSync, openSync } from "node:fs";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { PassThrough, type Writable } from "node:stream";
import { codeOf, Fault, isFault, type FaultKind } from "./errors.js";
import { reasonOf } from "./retry.js";

const name = "control.sock";
/** A path of a Unix socket has at most 107 bytes; a longer one is reached through an open directory. */
const longestPath = 100;
/** Twice that in silence: a timer that was due while this process was stopped (Ctrl-Z) fires before what came meanwhile is read. */
const silentMs = 5000;
const aliveMs = 3000;
const longestLine = 1024 * 1024;
/** So much of what is sent waits for who takes it. */
const sentAhead = 1024 * 1024;

export interface ControlRequest {
  readonly command: string;
  readonly [argument: string]: unknown;
}

/** An error whose message is for the person who asked: a mistake of theirs, or something that they have to mend. */
export class ControlError extends Error {}

/** What a command has with the one who asked, beside its answer. */
export interface Exchange {
  /** The one who asked has gone, or wants no more. */
  readonly signal: AbortSignal;
  readonly say: (fact: unknown) => void;
  /** Resolves when there is room for more. */
  readonly give: (bytes: Buffer) => Promise<void>;
  /** What the one who asked sends, to its end. Again once a fact was said that asks for other bytes: they come in the place of those before. */
  readonly take: () => AsyncIterable<Buffer>;
  /** Where what is sent is on this machine, when the one who asked is this process: no path of another's is believed. */
  readonly localPath?: string;
}

export type Answer = (request: ControlRequest, exchange: Exchange) => unknown;

/** The side that asked. */
export interface Asking {
  readonly signal?: AbortSignal;
  /** What it returns is sent, to its end, or until it returns other bytes. */
  said?(fact: unknown): AsyncIterable<Buffer> | undefined;
  given?(bytes: Buffer): Promise<void>;
  /** Where the file that is sent is on this machine. A daemon does not hear of it. */
  readonly localPath?: string;
}

export class ControlServer {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  constructor(
    readonly stateDir: string,
    answer: Answer,
  ) {
    this.#server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
      // A client that went away does not concern us.
      socket.on("error", () => socket.destroy());
      void serve(socket, answer);
    });
  }

  /** Throws ControlError where the file system keeps no sockets, as those of cards and sticks. */
  async start(): Promise<void> {
    const place = join(this.stateDir, name);
    await fs.rm(place, { force: true });
    try {
      await new Promise<void>((resolve, reject) => {
        this.#server.once("error", reject);
        withPath(this.stateDir, (path) => this.#server.listen(path, resolve));
      });
    } catch (error) {
      // A driver of FUSE may leave a plain file, which the next start would take for somebody's.
      const left = await fs.lstat(place).catch(() => undefined);
      if (left?.isFile() === true) await fs.rm(place);
      else if (!["EPERM", "EOPNOTSUPP", "ENOSYS"].includes(codeOf(error))) throw error;
      throw new ControlError(
        `no socket can be made in ${this.stateDir}: its file system keeps none, as FAT, exFAT and NTFS; "stateDir" needs one of Linux, such as ext4`,
      );
    }
    await fs.chmod(place, 0o660);
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
    // On a disk that became read-only, or fails, it stays: nobody answers there, and the next start makes it anew.
    await fs.rm(join(this.stateDir, name), { force: true }).catch((error: unknown) => {
      if (!["EROFS", "EIO"].includes(codeOf(error))) throw error;
    });
  }
}

/** Never rejects. */
async function serve(socket: Socket, answer: Answer): Promise<void> {
  const gone = new AbortController();
  const sent = new Sent();
  const line = (value: unknown) => socket.write(`${JSON.stringify(value)}\n`);
  const exchange: Exchange = {
    signal: gone.signal,
    say: (fact) => line({ say: fact }),
    give: (bytes) => send(socket, bytes),
    take: () => sent.take(),
  };
  const work = async (request: ControlRequest) => {
    const alive = setInterval(() => socket.write("\n"), aliveMs);
    try {
      line({ ok: (await answer(request, exchange)) ?? null });
    } catch (error) {
      line({
        error: reasonOf(error),
        ...(isFault(error) ? { fault: error.kind } : {}),
        ...(error instanceof ControlError ? { usage: true } : {}),
      });
    } finally {
      clearInterval(alive);
      socket.end();
    }
  };
  let begun = false;
  try {
    for await (const frame of framesOf(socket, longestLine)) {
      if (Buffer.isBuffer(frame)) await sent.came(frame);
      else if (!begun) {
        begun = true;
        void work(frame as unknown as ControlRequest);
      } else if ("anew" in frame) sent.begins();
      else if ("end" in frame) sent.ends();
    }
  } catch {
    // It broke off, or what it sent is none of ours.
    socket.destroy();
  }
  const fault = new Fault("aborted", "the one who asked has gone");
  gone.abort(fault);
  sent.over(fault);
}

/** What the one who asked sends, as often as it is taken: what still comes for a taking before is dropped. */
class Sent {
  #takings = 0;
  /** For which of them comes what comes now; it may come before it is taken. */
  #coming = 1;
  #stream = roomForSent();

  take(): AsyncIterable<Buffer> {
    this.#takings += 1;
    if (this.#takings > 1) {
      this.over(new Fault("aborted", "other bytes were asked for"));
      this.#stream = roomForSent();
    }
    return this.#stream as AsyncIterable<Buffer>;
  }

  begins(): void {
    this.#coming += 1;
  }

  /** Resolves when there is room for more. */
  async came(bytes: Buffer): Promise<void> {
    const stream = this.#wanted();
    if (stream?.write(bytes) === false) await room(stream);
  }

  ends(): void {
    this.#wanted()?.end();
  }

  over(why: Fault): void {
    this.#stream.destroy(why);
  }

  #wanted(): PassThrough | undefined {
    // Who takes may have had enough.
    return this.#coming < this.#takings || this.#stream.destroyed ? undefined : this.#stream;
  }
}

function roomForSent(): PassThrough {
  return new PassThrough({ highWaterMark: sentAhead }).on("error", () => undefined);
}

/** The answer of the daemon that has this state directory; undefined when none runs. Throws ControlError or Fault with its words. */
export async function ask(stateDir: string, request: ControlRequest, asking: Asking = {}): Promise<{ readonly ok: unknown } | undefined> {
  const socket = await connect(stateDir);
  if (socket === undefined) return undefined;
  const stop = () => socket.destroy();
  asking.signal?.addEventListener("abort", stop, { once: true });
  let sending: Promise<unknown> = Promise.resolve();
  let sent = 0;
  try {
    let heard = -1;
    socket.setTimeout(silentMs).on("timeout", () => {
      if (socket.bytesRead === heard) socket.destroy(new ControlError("the daemon does not answer"));
      heard = socket.bytesRead;
      socket.setTimeout(silentMs);
    });
    socket.write(`${JSON.stringify(request)}\n`);
    for await (const frame of framesOf(socket)) {
      if (Buffer.isBuffer(frame)) {
        // A disk here may take long: what the daemon says meanwhile is not read.
        socket.setTimeout(0);
        await asking.given?.(frame);
        socket.setTimeout(silentMs);
      } else if ("say" in frame) {
        const bytes = asking.said?.(frame.say);
        if (bytes !== undefined) {
          const nth = ++sent;
          sending = sending.then(() => sendAll(socket, bytes, nth > 1, () => nth === sent));
        }
        // Our own trouble with reading ends the conversation; the daemon's word for it comes first.
        sending.catch((error: unknown) => socket.destroy(error instanceof Error ? error : undefined));
      } else if ("ok" in frame) return { ok: frame.ok };
      else if ("error" in frame) {
        const message = String(frame.error);
        if (frame.usage === true) throw new ControlError(message);
        throw typeof frame.fault === "string" ? new Fault(frame.fault as FaultKind, message) : new Error(message);
      }
    }
  } catch (error) {
    if (asking.signal?.aborted === true) throw new Fault("aborted", "stopped");
    const code = codeOf(error);
    if (code !== "ECONNRESET" && code !== "EPIPE" && code !== "ERR_STREAM_PREMATURE_CLOSE") throw error;
  } finally {
    asking.signal?.removeEventListener("abort", stop);
    socket.destroy();
  }
  if (asking.signal?.aborted === true) throw new Fault("aborted", "stopped");
  throw new Fault("offline", "the daemon stopped before it answered");
}

/** The same conversation without a socket between. */
export function exchangeFor(asking: Asking): Exchange {
  let taken: AsyncIterable<Buffer> | undefined;
  return {
    signal: asking.signal ?? new AbortController().signal,
    say: (fact) => (taken = asking.said?.(fact) ?? taken),
    give: async (bytes) => asking.given?.(bytes),
    take: () => {
      if (taken === undefined) throw new Error("nothing is sent");
      return taken;
    },
    ...(asking.localPath === undefined ? {} : { localPath: asking.localPath }),
  };
}

function connect(stateDir: string): Promise<Socket | undefined> {
  return new Promise((resolve, reject) => {
    withPath(stateDir, (path) => {
      const socket = createConnection(path);
      socket.once("connect", () => {
        socket.removeListener("error", failed);
        resolve(socket);
      });
      const failed = (error: NodeJS.ErrnoException) => {
        if (["ENOENT", "ECONNREFUSED", "ENOTDIR", "ELOOP", "ENAMETOOLONG"].includes(codeOf(error))) resolve(undefined);
        else if (error.code === "EACCES")
          reject(new ControlError(`permission denied for ${join(stateDir, name)}: run this as the daemon's user`));
        else reject(error);
      };
      socket.once("error", failed);
    });
  });
}

/** To its end, or as long as they are wanted. */
async function sendAll(socket: Socket, bytes: AsyncIterable<Buffer>, anew: boolean, wanted: () => boolean): Promise<void> {
  if (anew) socket.write('{"anew":true}\n');
  for await (const chunk of bytes) {
    await send(socket, chunk);
    if (!wanted()) return;
  }
  socket.write('{"end":true}\n');
}

function send(socket: Socket, bytes: Buffer): Promise<void> {
  if (socket.destroyed) return Promise.reject(new Fault("aborted", "the other side has gone"));
  socket.write(`{"bytes":${bytes.length}}\n`);
  return socket.write(bytes) ? Promise.resolve() : room(socket);
}

/** Resolves once it takes more, or no more at all. */
function room(stream: Writable): Promise<void> {
  return new Promise((resolve) => {
    const on = () => {
      stream.removeListener("drain", on).removeListener("close", on);
      resolve();
    };
    stream.on("drain", on).on("close", on);
  });
}

/** The lines and bytes that come; throws for what is no line of ours. */
async function* framesOf(socket: Socket, longest = Infinity): AsyncGenerator<Record<string, unknown> | Buffer> {
  let rest: Buffer = Buffer.alloc(0);
  let bytes = 0;
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    while (rest.length > 0) {
      if (bytes > 0) {
        const part = rest.subarray(0, bytes);
        bytes -= part.length;
        rest = rest.subarray(part.length);
        yield part;
        continue;
      }
      const end = rest.indexOf(10);
      if (end === -1) {
        if (rest.length > longest) throw new Error("a line that is too long");
        break;
      }
      const text = rest.subarray(0, end).toString();
      rest = rest.subarray(end + 1);
      if (text === "") continue;
      const frame = JSON.parse(text) as Record<string, unknown>;
      if (typeof frame.bytes === "number") bytes = frame.bytes;
      else yield frame;
    }
  }
}

function withPath(stateDir: string, use: (path: string) => void): void {
  const path = join(stateDir, name);
  if (Buffer.byteLength(path) <= longestPath) {
    use(path);
    return;
  }
  let dir: number;
  try {
    dir = openSync(stateDir, "r");
  } catch {
    // Not there: the connection says so.
    use(path.slice(0, longestPath));
    return;
  }
  use(`/proc/self/fd/${dir}/${name}`);
  // The path is resolved by the system call, which comes in this turn of the loop.
  setImmediate(() => closeSync(dir));
}
