/**
 * One logged-in connection: basic-ftp with the few things that it does not do.
 *
 * Text is one character per byte. A signal closes the connection, since basic-ftp knows no other way to stop; what then waits ends with
 * the signal's Fault. After any error but an answer of the server the connection is closed and must be thrown away.
 */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { isIP, type Socket } from "node:net";
import type { Readable, Writable } from "node:stream";
import { TLSSocket, type ConnectionOptions } from "node:tls";
import { Client, FTPError, type FTPResponse } from "basic-ftp";
import { abortedFault, Fault, faultOfErrno, isFault, throwIfAborted } from "../../core/errors.js";
import type { Clock, Digest } from "../../core/plugin.js";
import { ftpFault, isForbidden } from "./faults.js";
import { parseFacts, parseListLine, parseTime, type Listed } from "./listing.js";
import type { FtpOptions } from "./options.js";
import { openData } from "./passive.js";
import { bytesAsText, nameFromWire } from "./wire.js";

export interface Answer {
  readonly code: number;
  readonly text: string;
}

export class Connection {
  readonly #client: Client;
  readonly #options: FtpOptions;
  readonly #clock: Clock;
  #features = new Map<string, string>();
  #root = "";
  #dataReady: Promise<void> = Promise.resolve();
  #setReady: () => void = () => undefined;

  private constructor(options: FtpOptions, clock: Clock) {
    this.#options = options;
    this.#clock = clock;
    this.#client = new Client(options.timeout);
    this.#client.ftp.encoding = "latin1";
    this.#client.prepareTransfer = (ftp) => {
      const check = (socket: Socket): void => this.#expectPinned(socket);
      return openData(ftp, { timeoutMs: options.timeout, check, ready: () => this.#setReady() });
    };
  }

  /** Connects and logs in. Throws "offline", "denied", "transient", "config". */
  static async open(options: FtpOptions, clock: Clock, signal: AbortSignal): Promise<Connection> {
    throwIfAborted(signal);
    const connection = new Connection(options, clock);
    try {
      await connection.#bounded(connection.#connect(), signal);
      await connection.#bounded(connection.#logIn(), signal);
      return connection;
    } catch (error) {
      connection.close();
      if (signal.aborted) throw abortedFault(signal);
      throw connection.#fault(error, `cannot log in to ${options.host}`, true);
    }
  }

  get closed(): boolean {
    return this.#client.closed;
  }

  /** The root as text of bytes, without "/" at its end. */
  get root(): string {
    return this.#root;
  }

  /** Resolves when the data connection of the running transfer takes bytes: with TLS, after the handshake. */
  get dataReady(): Promise<void> {
    return this.#dataReady;
  }

  has(feature: string): boolean {
    return this.#features.has(feature);
  }

  /** The command that gives a SHA-256, where the server has one. */
  get digestCommand(): "HASH" | "XSHA256" | undefined {
    if (/(^|[;, ])SHA-256/i.test(this.#features.get("HASH") ?? "")) return "HASH";
    return this.#features.has("XSHA256") ? "XSHA256" : undefined;
  }

  close(): void {
    this.#client.close();
  }

  /** Runs `work`; the signal ends it by closing the connection. Throws a Fault whose message opens with `what`. */
  async run<T>(signal: AbortSignal, what: string, work: () => Promise<T>): Promise<T> {
    throwIfAborted(signal);
    const stop = (): void => this.close();
    signal.addEventListener("abort", stop, { once: true });
    try {
      return await work();
    } catch (error) {
      if (signal.aborted) throw abortedFault(signal);
      throw this.#fault(error, what, false);
    } finally {
      signal.removeEventListener("abort", stop);
    }
  }

  /** One command and its answer, also one of refusal. `waitMs`: how long the answer may take, where that is longer than usual. */
  async ask(command: string, waitMs?: number): Promise<Answer> {
    const { ftp } = this.#client;
    const asked = ftp.handle(command, (response, task) => {
      if (response instanceof FTPError) task.resolve({ code: response.code, text: response.message.slice(4) });
      else if (response instanceof Error) task.reject(response);
      else task.resolve({ code: response.code, text: response.message.slice(4) });
    }) as Promise<Answer>;
    if (waitMs !== undefined) ftp.socket.setTimeout(Math.max(waitMs, this.#options.timeout));
    return asked;
  }

  /**
   * Commands in one packet, and their answers in order: one round trip. Only for commands that do no harm when the one before is refused.
   */
  async askAll(commands: readonly string[]): Promise<Answer[]> {
    const { ftp } = this.#client;
    const answers: Answer[] = [];
    const { socket } = ftp;
    // In one packet: ftp-srv begins with what comes in a second one before it has answered the first.
    socket.cork();
    try {
      const asked = ftp.handle(commands[0], (response, task) => {
        if (response instanceof Error && !(response instanceof FTPError)) {
          task.reject(response);
          return;
        }
        answers.push({ code: response.code, text: response.message.slice(4) });
        if (answers.length === commands.length) task.resolve(answers);
      }) as Promise<Answer[]>;
      for (const command of commands.slice(1)) ftp.send(command);
      socket.uncork();
      return await asked;
    } finally {
      if (socket.writableCorked > 0) socket.uncork();
    }
  }

  /** One command that must be taken. Throws FTPError. */
  async command(command: string): Promise<FTPResponse> {
    return this.#client.send(command);
  }

  /**
   * The size of a plain file; undefined when there is none. Some servers say no number for an empty file (ftp-srv), or know no SIZE:
   * then the directory is listed.
   */
  async size(wire: string): Promise<number | undefined> {
    return this.#sizeOf(wire, await this.ask(`SIZE ${wire}`));
  }

  /** The sizes of two files, in one round trip. */
  async sizes(one: string, other: string): Promise<[number | undefined, number | undefined]> {
    const [first, second] = await this.askAll([`SIZE ${one}`, `SIZE ${other}`]);
    if (first === undefined || second === undefined) throw new Fault("transient", "the server left an answer out");
    return [await this.#sizeOf(one, first), await this.#sizeOf(other, second)];
  }

  async #sizeOf(wire: string, answer: Answer): Promise<number | undefined> {
    const number = /^(\d+)/.exec(answer.text.trim());
    if (answer.code === 213 && number !== null) return Number(number[1]);
    if (answer.code === 550) return undefined;
    if (answer.code !== 213 && !isUnknownCommand(answer)) throw refused(answer);
    const found = await this.entry(wire);
    return found?.kind === "file" ? found.size : undefined;
  }

  /** The time of a file in ms; undefined when the server does not say. */
  async modified(wire: string): Promise<number | undefined> {
    const answer = await this.ask(`MDTM ${wire}`);
    return answer.code === 213 ? parseTime(answer.text) : undefined;
  }

  /** What is at a path, by MLST or by the listing of its directory; undefined when nothing is. */
  async entry(wire: string): Promise<Listed | undefined> {
    const at = wire.lastIndexOf("/");
    if (this.has("MLST")) {
      const answer = await this.ask(`MLST ${wire}`);
      const line = answer.text.split("\n").find((text) => /^ ?\S+=\S*; /.test(text));
      if (answer.code === 250 && line !== undefined) {
        const facts = line.replace(/^ /, "");
        // Servers answer with the whole path or with the name alone: the name that was asked for is the one.
        return parseFacts(`${facts.slice(0, facts.indexOf(" "))} ${wire.slice(at + 1)}`);
      }
      if (answer.code === 550) return undefined;
      if (!isUnknownCommand(answer)) throw refused(answer);
    }
    const name = wire.slice(at + 1);
    const answer = await this.ask(`CWD ${wire.slice(0, at) || "/"}`);
    if (answer.code === 550) return undefined;
    if (answer.code >= 400) throw refused(answer);
    const shown = nameFromWire(name);
    return (await this.#listHere()).find((it) => it.name === shown);
  }

  /** One directory. Throws FTPError 550 when there is none. */
  async list(wire: string): Promise<Listed[]> {
    if (this.has("MLST")) return (await this.#lines(`MLSD ${wire}`)).map(parseFacts).filter((it) => it !== undefined);
    // LIST with a path: vsftpd, ProFTPD and Pure-FTPd would take *, ?, [ and { in it for patterns.
    await this.command(`CWD ${wire}`);
    return this.#listHere();
  }

  /** The digest of the whole file, by the server. Undefined when it has no command for it, or will not. */
  async digest(wire: string, size: number): Promise<Digest | undefined> {
    const command = this.digestCommand;
    if (command === undefined) return undefined;
    // The server reads the file while nothing is said: 5 MB/s is a slow disk.
    const answer = await this.ask(`${command} ${wire}`, this.#options.timeout + size / 5000);
    const hex = answer.code < 300 ? /(?:^|[^0-9a-f])([0-9a-f]{64})(?:[^0-9a-f]|$)/i.exec(answer.text)?.[1] : undefined;
    if (answer.code >= 400 && answer.code < 500) throw refused(answer);
    return hex === undefined ? undefined : `sha256:${hex.toLowerCase()}`;
  }

  /** Sends a stream by STOR or APPE. Resolves with the server's answer; the stream is destroyed on an error. */
  async store(command: "STOR" | "APPE", source: Readable, wire: string): Promise<void> {
    // Made before anything is asked: an empty stream may end before there is a data connection.
    this.#dataReady = new Promise((resolve) => (this.#setReady = resolve));
    try {
      if (command === "STOR") await this.#client.uploadFrom(source, wire);
      else await this.#client.appendFrom(source, wire);
    } catch (error) {
      source.destroy();
      this.close();
      throw error;
    }
  }

  /** Receives a file from `offset` into a stream. */
  async retrieve(into: Writable, wire: string, offset: number): Promise<void> {
    await this.#client.downloadTo(into, wire, offset);
  }

  /** The current directory, with LIST. */
  async #listHere(): Promise<Listed[]> {
    let lines: string[];
    try {
      lines = await this.#lines("LIST -a");
    } catch (error) {
      // Small servers take "-a" for a name.
      if (!(error instanceof FTPError)) throw error;
      lines = await this.#lines("LIST");
    }
    return lines.map(parseListLine).filter((it) => it !== undefined);
  }

  /** The lines of a listing, as they came. */
  async #lines(command: string): Promise<string[]> {
    let text = "";
    this.#client.availableListCommands = [command];
    this.#client.parseList = (raw) => {
      text = raw;
      return [];
    };
    await this.#client.list();
    return text.split(/\r?\n/).filter((line) => line !== "");
  }

  async #connect(): Promise<void> {
    const { host, secure, port = secure === "implicit" ? 990 : 21 } = this.#options;
    const client = this.#client;
    if (secure === "implicit") await client.connectImplicitTLS(host, port, await this.#tlsOptions());
    else await client.connect(host, port);
    if (secure === true) await client.useTLS(await this.#tlsOptions());
    this.#expectPinned(client.ftp.socket);
  }

  async #logIn(): Promise<void> {
    const { user, password, root } = this.#options;
    const client = this.#client;
    await client.login(bytesAsText(user), bytesAsText(password.reveal()));
    this.#features = new Map([...(await client.features())].map(([name, value]) => [name.toUpperCase(), value]));
    await client.send("TYPE I");
    // Asked for where it is offered; servers that have it without asking say so in other words.
    if (this.has("UTF8")) await this.ask("OPTS UTF8 ON");
    if (this.has("MLST")) await this.ask("OPTS MLST type;size;modify;unique;");
    if (this.digestCommand === "HASH") await this.ask("OPTS HASH SHA-256");
    if (client.ftp.hasTLS) {
      await this.ask("PBSZ 0");
      await client.send("PROT P");
    }
    const home = root.startsWith("/") ? "" : await this.#home();
    this.#root = `${home}/${bytesAsText(root)}`.replace(/\/+/g, "/").replace(/\/$/, "");
  }

  async #home(): Promise<string> {
    const answer = await this.command("PWD");
    return /"((?:[^"]|"")*)"/.exec(answer.message)?.[1]?.replaceAll('""', '"') ?? "";
  }

  async #tlsOptions(): Promise<ConnectionOptions> {
    const { host, tls } = this.#options;
    let ca: Buffer | undefined;
    if (tls.ca !== undefined) {
      try {
        ca = await readFile(tls.ca);
      } catch (error) {
        const { message } = faultOfErrno(error, `cannot read ${tls.ca}`);
        throw new Fault("config", message, { cause: error });
      }
    }
    return {
      host,
      ...(isIP(host) === 0 ? { servername: host } : {}),
      ...(ca === undefined ? {} : { ca }),
      // With a fingerprint the certificate itself is compared: its time, name and issuer say nothing more.
      rejectUnauthorized: tls.fingerprint === undefined,
    };
  }

  /** Throws "denied" when a certificate is pinned and this is not the one. */
  #expectPinned(socket: unknown): void {
    const { fingerprint } = this.#options.tls;
    if (fingerprint === undefined || !(socket instanceof TLSSocket)) return;
    const { raw } = socket.getPeerCertificate() as { raw?: Buffer };
    // A resumed session goes on with the peer that was checked at its start.
    if (raw === undefined && socket.isSessionReused()) return;
    const found = createHash("sha256")
      .update(raw ?? Buffer.alloc(0))
      .digest();
    if (found.toString("hex") === fingerprint) return;
    const shown = `SHA256:${found.toString("base64").replace(/=+$/, "")}`;
    throw new Fault("denied", `the server's certificate is ${shown}, not the one that is configured: another server, or a new certificate`);
  }

  /** A bound for what basic-ftp does not bound: name look-up and the TLS handshake. */
  async #bounded(work: Promise<void>, signal: AbortSignal): Promise<void> {
    let stop: () => void = () => undefined;
    let timer: NodeJS.Timeout | undefined;
    const ended = new Promise<never>((_resolve, reject) => {
      stop = () => reject(abortedFault(signal));
      signal.addEventListener("abort", stop, { once: true });
      timer = setTimeout(() => reject(new Fault("offline", `${this.#options.host} does not answer`)), this.#options.timeout);
    });
    try {
      await Promise.race([work, ended]);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", stop);
      // It may still fail after the race is over, which changes nothing.
      work.catch(() => undefined);
    }
  }

  #fault(error: unknown, what: string, connecting: boolean): Fault {
    if (isFault(error)) return error;
    const { password } = this.#options;
    return ftpFault(error, { what, connecting, clockTrusted: this.#clock.trusted(), password: password.reveal() });
  }
}

export function isUnknownCommand(answer: Answer): boolean {
  return answer.code === 500 || answer.code === 502 || answer.code === 504;
}

/** Whether the answer says that nothing is there, rather than that it is forbidden. */
export function isAbsent(answer: Answer): boolean {
  return answer.code === 550 && !isForbidden(answer.text);
}

/** An answer of refusal as the error that basic-ftp would throw. */
export function refused(answer: Answer): FTPError {
  return new FTPError({ code: answer.code, message: `${answer.code} ${answer.text}` });
}
