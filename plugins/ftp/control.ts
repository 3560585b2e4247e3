/**
 * The control connection of FTP: commands out, answers back, in order.
 *
 * Commands gather while answers are outstanding and go out together in one packet once all have come: many pieces of work share one round
 * trip, and a server that begins with a second packet before it has answered the first (ftp-srv) is never led into it. A transfer is the last
 * in its packet. What a server answers in another order is noticed by its codes; it then gets one command at a time.
 *
 * Text is one character per byte. Any error but a refusal ends the connection: what waits is rejected with it, and so is all that comes later.
 */
import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from "node:tls";
import { Fault } from "../../core/errors.js";
import { unacknowledged } from "../../core/net.js";

export interface Answer {
  readonly code: number;
  /** Without the code of its first line. */
  readonly text: string;
}

/** A server's answer of refusal. */
export class Refusal extends Error {
  constructor(readonly answer: Answer) {
    super(`${answer.code} ${answer.text}`);
  }

  get code(): number {
    return this.answer.code;
  }
}

/** The server did not speak FTP as it should. */
export class ProtocolError extends Error {}

/** No answer, or no byte, for as long as is allowed. */
export class Silence extends Error {}

/** To Telnet, whose rules RFC 959 has for commands, the byte FF begins a command of its own, and is itself where it is doubled. Most servers know nothing of that. */
const takesFF = /\bvsFTPd\b|\bPure-FTPd\b|\bFileSync\b/;
const doublesFF = /\bProFTPD\b/;
export const holdsFF = "holds the byte FF, which this server may take for a command";

/** So many commands keep a server busy while others gather, so long. */
const enough = 4;
const gatherMs = 2;
const longestAnswer = 1024 * 1024;

interface Waiting {
  readonly command: string;
  readonly signal: AbortSignal | undefined;
  /** What a command that was taken may be answered with; of any other success the server has lost its order. */
  readonly codes: RegExp | undefined;
  readonly onBegin: (() => void) | undefined;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: Error) => void;
}

export interface Asked {
  readonly command: string;
  readonly codes?: RegExp;
  /** Of a command that transfers: called with each answer 1xx that comes before the one that counts, as the server has begun. */
  readonly onBegin?: () => void;
}

export class Control {
  #socket: Socket;
  readonly #timeoutMs: number;
  /** Sent, and not yet answered. */
  readonly #sent: Waiting[] = [];
  /** Not yet sent. */
  #next: Waiting[] = [];
  #flushing = false;
  #text = "";
  #lines: string[] = [];
  #length = 0;
  #failure: Error | undefined;
  readonly #timer: NodeJS.Timeout;
  #patientUntilMs = 0;
  #resting = 0;
  /** The data connections of transfers that last, and what the system had still to send of each when it was looked at last. */
  readonly #data = new Map<Socket, number>();
  /** One command at a time: the server is known to lose its order, or not yet known to keep it. */
  oneByOne = true;
  /** Commands go out while answers are outstanding: the server is known to read them when their turn comes, also during a transfer. */
  ahead = false;
  greeting = "";

  private constructor(socket: Socket, timeoutMs: number) {
    this.#socket = socket;
    this.#timeoutMs = timeoutMs;
    this.#timer = setTimeout(() => this.#silent(), timeoutMs);
    // The socket keeps the program; the timer alone must not.
    this.#timer.unref();
    this.#listen(socket);
  }

  /**
   * Connects, and reads the greeting. Throws node's error, Silence, or Refusal. The caller bounds how long it takes, with the name look-up: a server that says a
   * letter now and then is not silent. `over` ends the connection whenever it is given.
   */
  static async open(host: string, port: number, timeoutMs: number, over: AbortSignal, tls?: ConnectionOptions): Promise<Control> {
    over.throwIfAborted();
    const socket = tls === undefined ? connectTcp({ host, port, noDelay: true }) : connectTls({ ...tls, host, port });
    socket.setNoDelay(true);
    const control = new Control(socket, timeoutMs);
    over.addEventListener("abort", () => control.close(), { once: true });
    try {
      control.#timer.refresh();
      const greeting = await new Promise<Answer>((resolve, reject) =>
        control.#sent.push({ command: "", signal: undefined, codes: undefined, onBegin: undefined, resolve, reject }),
      );
      if (greeting.code >= 400) throw new Refusal(greeting);
      control.greeting = greeting.text;
      return control;
    } catch (error) {
      control.close();
      throw error;
    }
  }

  get closed(): boolean {
    return this.#failure !== undefined;
  }

  get socket(): Socket {
    return this.#socket;
  }

  /** How many commands wait for their answers. */
  get busy(): number {
    return this.#sent.length + this.#next.length;
  }

  /** TLS from here on, after the server's 234. */
  async secure(options: ConnectionOptions): Promise<void> {
    const raw = this.#socket;
    raw.removeAllListeners();
    const secured: TLSSocket = connectTls({ ...options, socket: raw });
    this.#socket = secured;
    this.#listen(secured);
    this.#timer.refresh();
    await new Promise<void>((resolve, reject) => {
      secured.once("secureConnect", resolve);
      // `#listen` closes it; who waits for the handshake is told here.
      secured.once("error", reject);
      secured.once("close", () => reject(this.#failure ?? new Error("closed")));
    });
  }

  /** One command and its answer, also one of refusal. `waitMs`: how long it may take, where that is longer than usual. */
  ask(command: string, codes?: RegExp, waitMs = 0, signal?: AbortSignal): Promise<Answer> {
    if (waitMs > this.#timeoutMs) this.#patientUntilMs = Math.max(this.#patientUntilMs, performance.now() + waitMs);
    return this.#enqueue({ command, ...(codes === undefined ? {} : { codes }) }, signal);
  }

  /** Commands that go out together, and their answers in order. Only for commands that do no harm when the one before is refused. */
  askAll(asked: readonly Asked[], signal?: AbortSignal): Promise<Answer>[] {
    return asked.map((it) => this.#enqueue(it, signal));
  }

  /** What was asked with a signal that has been given, and was not sent yet, never will be. */
  sweep(): void {
    const gone = this.#next.filter(({ signal }) => signal?.aborted === true);
    this.#next = this.#next.filter((it) => !gone.includes(it));
    for (const { reject } of gone) reject(new Error("not asked any more"));
  }

  /** Until the function that it returns is called, the server is not expected to do anything. */
  rest(): () => void {
    this.#resting += 1;
    return () => {
      this.#resting -= 1;
      this.#timer.refresh();
    };
  }

  /** Until the function that it returns is called, the server is expected to move bytes here, also after its last answer: silence ends both connections. */
  moving(data: Socket): () => void {
    this.#data.set(data, Infinity);
    // What the system is given to send it counts itself: over a slow link one piece takes longer than the server may be silent.
    // Each time: given to `setTimeout` it would be heard once, perhaps while our own side had nothing to send.
    data.setTimeout(this.#timeoutMs).on("timeout", () => {
      if (data.writableLength > 0) this.#giveUp();
    });
    data.once("finish", () => this.touch());
    return () => this.#data.delete(data);
  }

  /** A byte moved on a data connection: the server is at work. */
  touch(): void {
    this.#timer.refresh();
  }

  close(): void {
    this.fail(new Error("the connection was closed"));
  }

  /** Ends the connection with this error. */
  fail(error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    clearTimeout(this.#timer);
    this.#socket.destroy();
    const waiting = [...this.#sent.splice(0), ...this.#next.splice(0)];
    for (const { reject } of waiting) reject(error);
  }

  /** Whether the byte FF in a name stays what it is. */
  get takesFF(): boolean {
    return takesFF.test(this.greeting) || doublesFF.test(this.greeting);
  }

  #enqueue({ command: plain, codes, onBegin }: Asked, signal?: AbortSignal): Promise<Answer> {
    if (/[\r\n\0]/.test(plain)) return Promise.reject(new ProtocolError("a command may not hold a line break"));
    const hasFF = plain.includes("\xff");
    if (hasFF && !this.takesFF) return Promise.reject(new Fault("rejected", `its path ${holdsFF}`));
    const command = hasFF && doublesFF.test(this.greeting) ? plain.replaceAll("\xff", "\xff\xff") : plain;
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) {
        reject(this.#failure);
        return;
      }
      this.#next.push({ command, signal, codes, onBegin, resolve, reject });
      this.#flushSoon();
    });
  }

  /** At the end of this turn of the loop, a little later while the server has enough to do: what other work asks meanwhile goes along. */
  #flushSoon(): void {
    if (this.#flushing || !this.#mayFlush || this.#next.length === 0) return;
    this.#flushing = true;
    const flush = (): void => {
      this.#flushing = false;
      if (this.#failure !== undefined || !this.#mayFlush || this.#next.length === 0) return;
      const now = this.#next.splice(0, this.#atOnce);
      this.#sent.push(...now);
      this.#timer.refresh();
      this.#socket.write(now.map(({ command }) => `${command}\r\n`).join(""), "latin1");
    };
    if (this.#sent.length < enough) setImmediate(flush);
    else setTimeout(flush, gatherMs);
  }

  /** How many of those that are not sent yet go together. What comes behind a transfer would be read while that lasts: ProFTPD answers it before, Pure-FTPd takes parts of it. */
  get #atOnce(): number {
    if (this.oneByOne) return 1;
    const transfer = this.ahead ? -1 : this.#next.findIndex(({ onBegin }) => onBegin !== undefined);
    return transfer === -1 ? this.#next.length : transfer + 1;
  }

  get #mayFlush(): boolean {
    return this.#sent.length === 0 || (this.ahead && !this.oneByOne);
  }

  #listen(socket: Socket): void {
    socket.setEncoding("latin1");
    socket.on("data", (text: string) => this.#read(text));
    socket.on("error", (error) => this.fail(error));
    socket.on("end", () => this.fail(Object.assign(new Error("the server closed the connection"), { code: "ECONNRESET" })));
    socket.on("close", () => this.fail(Object.assign(new Error("the connection was closed"), { code: "ECONNRESET" })));
  }

  #read(text: string): void {
    this.#text += text;
    if (this.#text.length > longestAnswer) {
      this.fail(new ProtocolError("the server's answer has no end"));
      return;
    }
    let from = 0;
    for (let end = this.#text.indexOf("\n"); end !== -1; end = this.#text.indexOf("\n", from)) {
      this.#line(this.#text.slice(from, end).replace(/\r$/, ""));
      from = end + 1;
    }
    // A line that comes a letter at a time is no sign of life.
    if (from > 0) {
      this.#timer.refresh();
      this.#text = this.#text.slice(from);
    }
    this.#flushSoon();
  }

  #line(line: string): void {
    const [first] = this.#lines;
    if (first === undefined) {
      if (line === "") return;
      if (!/^\d{3}[ -]|^\d{3}$/.test(line)) {
        this.fail(new ProtocolError(`what answers is no FTP server: ${JSON.stringify(line.slice(0, 60))}`));
        return;
      }
      if (line[3] !== "-") {
        this.#answer({ code: Number(line.slice(0, 3)), text: line.slice(4) });
        return;
      }
    }
    this.#lines.push(line);
    this.#length += line.length + 1;
    if (this.#length > longestAnswer) this.fail(new ProtocolError("the server's answer has no end"));
    if (first === undefined || !line.startsWith(`${first.slice(0, 3)} `)) return;
    const answer = { code: Number(first.slice(0, 3)), text: this.#lines.join("\n").slice(4) };
    this.#lines = [];
    this.#length = 0;
    this.#answer(answer);
  }

  #answer(answer: Answer): void {
    // "150 here it comes" before the answer that counts.
    if (answer.code < 200) {
      this.#sent[0]?.onBegin?.();
      return;
    }
    const waiting = this.#sent.shift();
    if (waiting === undefined) {
      // Nobody asked: a server says so that it is going away.
      if (answer.code === 421) this.fail(new Refusal(answer));
      return;
    }
    if (answer.code < 400 && waiting.codes?.test(String(answer.code)) === false) {
      const error = new ProtocolError(
        `the server answered ${waiting.command.slice(0, 4).trim()} with "${answer.code} ${answer.text.slice(0, 60)}": it is out of order`,
      );
      waiting.reject(error);
      this.fail(error);
      return;
    }
    waiting.resolve(answer);
    // Whatever else waits would wait for nothing.
    if (answer.code === 421) this.fail(new Refusal(answer));
  }

  #silent(): void {
    if (this.#failure !== undefined) return;
    const idle = this.#sent.length === 0 && this.#data.size === 0;
    const sending = [...this.#data.keys()].some((data) => data.writableLength > 0 || this.#isLeaving(data));
    if (idle || sending || this.#resting > 0 || performance.now() < this.#patientUntilMs) {
      this.#timer.refresh();
      return;
    }
    this.#giveUp();
  }

  /** What the system was given went out since the last look: of the last of it the answer may be on its way. */
  #isLeaving(data: Socket): boolean {
    const [left, before] = [unacknowledged(data), this.#data.get(data) ?? 0];
    this.#data.set(data, left);
    return left < before && (left > 0 || before < Infinity);
  }

  #giveUp(): void {
    const silence = new Silence(this.#sent.length > 0 ? "no answer came" : "the server said that all was sent, and it does not come");
    for (const data of this.#data.keys()) data.destroy(silence);
    this.fail(silence);
  }
}
