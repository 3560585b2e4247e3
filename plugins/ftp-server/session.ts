/**
 * One control connection: lines in, answers out, in the order of the lines however many come in one packet.
 *
 * One command runs at a time; only ABOR and a closed connection reach a transfer that runs. Lines, lines that wait, and answers that are
 * not read are bounded; a client that is silent too long is told 421. `close()` ends the connection and what it is doing.
 */
import type { Socket } from "node:net";
import { TLSSocket, type SecureContext } from "node:tls";
import { Answer, answerOf } from "./answer.js";
import { Lines, longestLineBytes } from "./lines.js";
import { factNames, type Fact } from "./listing.js";
import { Passive, plainAddress } from "./passive.js";
import { placeOf, type Place, type Root } from "./root.js";
import type { User } from "./options.js";
import type { Shared } from "./shared.js";

export interface Login {
  readonly name: string;
  readonly rights: User;
  readonly root: Root;
}

/** A transfer that runs, as ABOR and STAT see it. */
export interface Transfer {
  readonly verb: string;
  bytes: number;
  /** Waiting for our own medium: then it is not the client that is slow. */
  busy: boolean;
  abort(why: Answer): void;
}

export type Command = (session: Session, arg: Buffer) => Promise<void>;
export interface Verb {
  readonly run: Command;
  /** Also before the login. */
  readonly open?: boolean;
  /** Words after the verb, for HELP. */
  readonly words?: string;
}
export type Verbs = Readonly<Record<string, Verb>>;

const mostWaitingLines = 64;
const mostUnreadBytes = 256 * 1024;

export class Session {
  readonly shared: Shared;
  readonly address: string;
  readonly localAddress: string;
  user: Login | undefined;
  /** The name given by USER, until PASS. */
  named: string | undefined;
  cwd: Place = [];
  renameFrom: Place | undefined;
  copyFrom: Place | undefined;
  protectData = false;
  /** Of its TLS, also for data. */
  secureContext: SecureContext | undefined;
  onlyEpsv = false;
  facts: ReadonlySet<Fact> = new Set(factNames);
  passive: Passive | undefined;
  transfer: Transfer | undefined;
  wrongPasswords = 0;
  /** When it came, by the monotonic clock. */
  readonly sinceMs: number;
  #restAt: number | undefined;
  #socket: Socket;
  #lines = new Lines();
  #waiting: Buffer[] = [];
  #wake: () => void = () => undefined;
  #timer: NodeJS.Timeout | undefined;
  #closing = false;
  readonly #verbs: Verbs;
  readonly #ended = new AbortController();

  constructor(socket: Socket, shared: Shared, verbs: Verbs) {
    this.shared = shared;
    this.sinceMs = shared.clock.monotonicMs();
    this.#socket = socket;
    this.#verbs = verbs;
    this.address = plainAddress(socket.remoteAddress);
    this.localAddress = plainAddress(socket.localAddress);
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 30_000);
    this.#listen(socket);
  }

  /** Given once the connection is gone, or is being closed. */
  get ended(): AbortSignal {
    return this.#ended.signal;
  }

  get secure(): boolean {
    return this.#socket instanceof TLSSocket;
  }

  /** Greets, and runs commands until the connection ends. Never rejects. */
  async run(): Promise<void> {
    try {
      this.#awaitLogin();
      await this.reply(220, "FileSync FTP server ready.");
      for (let line = await this.#next(); line !== undefined; line = await this.#next()) {
        if (this.user !== undefined) clearTimeout(this.#timer);
        await this.#command(line);
        if (this.user !== undefined) this.#deadline(this.shared.options.limits.idle, "Idle for too long.");
      }
    } catch (error) {
      if (!this.ended.aborted) this.shared.complain(`FTP connection from ${this.address} ended: ${textOf(error)}`, {});
    } finally {
      this.close();
    }
  }

  /** One answer; several lines make a multi-line answer. Resolves when the client is not too far behind in reading. */
  async reply(code: number, ...lines: string[]): Promise<void> {
    if (this.ended.aborted || !this.#socket.writable) return;
    const last = lines.at(-1) ?? "";
    const first = lines.slice(0, -1);
    const text = first.map((line, i) => (i === 0 ? `${code}-${line}\r\n` : ` ${line}\r\n`)).join("") + `${code} ${last}\r\n`;
    this.#socket.write(text);
    if (this.#socket.writableLength > mostUnreadBytes) await this.#drained();
  }

  /** Nobody is logged in any more; there is as long for a login as at the beginning. */
  logOut(): void {
    this.named = undefined;
    if (this.user === undefined) return;
    this.shared.leave(this.user);
    this.user = undefined;
    this.#awaitLogin();
  }

  /** What a client means by a path. Throws EINVAL, ENAMETOOLONG. */
  place(arg: Buffer): Place {
    return placeOf(this.cwd, arg);
  }

  /** Who is logged in. Throws Answer 530. */
  login(): Login {
    if (this.user === undefined) throw new Answer(530, "Log in with USER and PASS first.");
    return this.user;
  }

  set restAt(offset: number) {
    this.#restAt = offset;
  }

  /** The offset of the last REST, once; undefined without one. */
  takeRest(): number | undefined {
    const offset = this.#restAt;
    this.#restAt = undefined;
    return offset;
  }

  /** Another port for data in place of the one before. */
  async openPassive(): Promise<Passive> {
    this.passive?.close();
    this.passive = undefined;
    const passive = await Passive.open(this.shared.ports, this.localAddress, this.address, (address) =>
      this.shared.complain(`a data connection from ${address} was refused: it is for ${this.address}`, { address }),
    );
    if (this.ended.aborted) passive.close();
    else this.passive = passive;
    return passive;
  }

  /** Puts TLS on the control connection. What came in clear after AUTH would be taken for what came inside: then it ends. */
  async startTls(secureContext: SecureContext): Promise<void> {
    const raw = this.#socket;
    if (this.ended.aborted) return;
    if (this.#waiting.length > 0 || this.#lines.pending) throw new Answer(421, "Nothing may follow AUTH before TLS.");
    raw.removeAllListeners("data");
    raw.pause();
    await this.reply(234, "Start TLS.");
    const secured = new TLSSocket(raw, { isServer: true, secureContext });
    this.#socket = secured;
    this.secureContext = secureContext;
    this.#listen(secured);
    await new Promise<void>((resolve, reject) => {
      secured.once("secure", resolve);
      secured.once("close", () => reject(new Error("the TLS handshake failed")));
    });
  }

  /** Says why, and ends, with what is running: a transfer is answered so. */
  dismiss(why: string): void {
    if (this.ended.aborted || this.#closing) return;
    this.passive?.close();
    if (this.transfer !== undefined) {
      this.transfer.abort(new Answer(421, why));
      return;
    }
    void this.reply(421, why);
    this.hangUp();
  }

  /** Ends after the answers that were written. */
  hangUp(): void {
    this.#closing = true;
    this.#socket.end();
    this.#deadline(2000, "");
    this.#wake();
  }

  /** Ends at once, with what is running. Idempotent. */
  close(): void {
    clearTimeout(this.#timer);
    if (this.ended.aborted) return;
    this.#ended.abort(new Answer(421, "The connection has ended."));
    this.transfer?.abort(new Answer(426, "The connection has ended."));
    this.passive?.close();
    if (this.#closing) {
      // A client that does not read its last answer keeps nothing open.
      this.#socket.setTimeout(2000, () => this.#socket.destroy());
      this.#socket.destroySoon();
    } else this.#socket.destroy();
    this.#wake();
  }

  #listen(socket: Socket): void {
    socket.on("data", (chunk) => this.#take(chunk));
    // Whoever cannot hear the answer any more (killed, unplugged) has finished nothing: a transfer that runs is broken.
    socket.on("end", () => this.close());
    socket.on("close", () => this.close());
    socket.on("error", (error) => {
      this.shared.say("debug", `FTP connection from ${this.address}: ${error.message}`, {});
      socket.destroy();
    });
  }

  #take(chunk: Buffer): void {
    if (this.#closing) return;
    const lines = this.#lines.push(chunk);
    if (lines === undefined) {
      this.shared.complain(`a line of more than ${longestLineBytes} bytes from ${this.address} was refused`, { address: this.address });
      this.#socket.write("500 The line is too long.\r\n");
      this.hangUp();
      return;
    }
    this.#waiting.push(...lines);
    if (this.#waiting.length > mostWaitingLines) this.#socket.pause();
    // Its answer comes in its turn, after the one of the transfer.
    if (this.transfer !== undefined && lines.some((line) => /^ABOR\s*$/i.test(line.toString("latin1"))))
      this.transfer.abort(new Answer(426, "Aborted; what arrived is kept."));
    this.#wake();
  }

  async #next(): Promise<Buffer | undefined> {
    while (!this.ended.aborted && !this.#closing) {
      const line = this.#waiting.shift();
      if (line !== undefined) {
        if (this.#waiting.length === 0 && this.#socket.isPaused()) this.#socket.resume();
        return line;
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return undefined;
  }

  async #command(line: Buffer): Promise<void> {
    const space = line.indexOf(0x20);
    const name = (space < 0 ? line : line.subarray(0, space)).toString("latin1").toUpperCase();
    const arg = space < 0 ? Buffer.alloc(0) : line.subarray(space + 1);
    const verb = Object.hasOwn(this.#verbs, name) ? this.#verbs[name] : undefined;
    try {
      if (verb === undefined) throw new Answer(500, "Unknown command.");
      if (verb.open !== true) this.login();
      // A line end that some proxy or log would take for one; a name with it is written as ‛0D.
      if (arg.includes(0x0d)) throw new Answer(501, "A carriage return may only end a line.");
      if (name !== "RNTO") this.renameFrom = undefined;
      if (name !== "SITE") this.copyFrom = undefined;
      await verb.run(this, arg);
    } catch (error) {
      // Nobody is left to hear it.
      if (this.ended.aborted) return;
      const answer = answerOf(error);
      if (answer === undefined) this.shared.say("error", `FTP command ${name} failed: ${textOf(error)}`, { user: this.user?.name });
      await this.reply(answer?.code ?? 451, answer?.message ?? "The server could not do that; try again.");
      if (answer?.code === 421) this.hangUp();
    }
  }

  #awaitLogin(): void {
    this.#deadline(this.shared.options.limits.login, "Log in sooner.");
  }

  #deadline(ms: number, why: string): void {
    clearTimeout(this.#timer);
    if (this.ended.aborted) return;
    this.#timer = setTimeout(() => {
      if (this.#closing) this.close();
      else void this.reply(421, why).then(() => this.hangUp());
    }, ms);
  }

  async #drained(): Promise<void> {
    const socket = this.#socket;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => socket.destroy(), this.shared.options.limits.stall);
      const done = (): void => {
        clearTimeout(timer);
        socket.off("drain", done);
        socket.off("close", done);
        resolve();
      };
      socket.on("drain", done);
      socket.on("close", done);
    });
  }
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
