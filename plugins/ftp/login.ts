/**
 * A logged-in control connection and what is known of its server: features, root, whom to believe, whether it takes commands in a row.
 */
import { TLSSocket, type ConnectionOptions } from "node:tls";
import { abortedFault, type Fault, isFault, orAborted, throwIfAborted } from "../../core/errors.js";
import { certificateOf, expectPinned, hostAndPort, tlsOptions } from "../../core/net.js";
import type { Certificate, Clock } from "../../core/plugin.js";
import { type Door, isSilence, unlessStranger } from "../../core/stranger.js";
import { type Answer, Control, holdsFF, ProtocolError, Refusal, Silence } from "./control.js";
import { type Data, type DataMemory, openData } from "./data.js";
import { ftpFault, implicitPort, TlsRefusal } from "./faults.js";
import type { Listed } from "./listing.js";
import type { FtpOptions } from "./options.js";
import { bytesAsText } from "./wire.js";

const trialMs = 5000;
/** Servers that leave commands on the line until a transfer is over. ProFTPD refuses them (450), Pure-FTPd looks for ABOR in them. */
const readsInTurn = /\bvsFTPd\b|\bFileSync\b/;

/** What outlives one connection to the server. */
export interface ServerMemory {
  /** It was found to answer out of order: it gets one command at a time. */
  oneByOne: boolean;
}

/** Servers that keep a space at the end of a name. Pure-FTPd turns it into "_" at RNTO, over whatever has that name. */
const keepsSpaces = /\bvsFTPd\b|\bFileSync\b|\bProFTPD\b/;

export class Login {
  readonly control: Control;
  readonly options: FtpOptions;
  /** The server was there from then on, for as long as it answers here: by `performance.now`. */
  readonly sinceMs = performance.now();
  readonly #clock: Clock;
  readonly #server: ServerMemory;
  readonly #tls: ConnectionOptions | undefined;
  readonly #memory: DataMemory = { epsv: undefined, ticket: undefined, resumed: false };
  #features = new Map<string, string>();
  #root = "";
  /** Ends when the transfers that were asked for so far have ended. */
  #transfers: Promise<void> = Promise.resolve();
  transfersWaiting = 0;
  #inDirectory: Promise<unknown> = Promise.resolve();
  /** Listings that wait for their turn, by directory. */
  readonly listings = new Map<string, Promise<Listed[] | Answer>>();

  private constructor(control: Control, options: FtpOptions, clock: Clock, server: ServerMemory, tls: ConnectionOptions | undefined) {
    this.control = control;
    this.#server = server;
    this.options = options;
    this.#clock = clock;
    this.#tls = tls;
  }

  /** Connects and logs in. Throws "offline", "denied", "transient", "config". */
  static async open(options: FtpOptions, clock: Clock, server: ServerMemory, signal: AbortSignal): Promise<Login> {
    throwIfAborted(signal);
    const known = server.oneByOne;
    const opening = (within: AbortSignal) => bounded(options, within, (over) => Login.#open(options, clock, server, over));
    try {
      // With TLS from the first byte what is no TLS says who it is.
      return options.secure === "implicit" ? await opening(signal) : await unlessStranger(doorOf(options), signal, opening, isNoAnswer);
    } catch (error) {
      if (error instanceof ProtocolError && !known) {
        server.oneByOne = true;
        return await Login.open(options, clock, server, signal);
      }
      if (signal.aborted) throw abortedFault(signal);
      const { password, secure, port } = options;
      const situation = { what: `cannot log in to ${placeOf(options)}`, connecting: true, clockTrusted: clock.trusted(), secure, port };
      throw ftpFault(error, { ...situation, password: password.reveal() });
    }
  }

  static async #open(options: FtpOptions, clock: Clock, server: ServerMemory, over: AbortSignal): Promise<Login> {
    const { host, secure } = options;
    const tls = secure === false ? undefined : await tlsOptions(host, options.tls);
    const control = await connected(options, tls, over);
    const login = new Login(control, options, clock, server, tls);
    try {
      if (control.socket instanceof TLSSocket) expectPinned(control.socket, options.tls);
      await login.#logIn();
      return login;
    } catch (error) {
      login.close();
      throw error;
    }
  }

  get closed(): boolean {
    return this.control.closed;
  }

  /** The root as text of bytes, without "/" at its end. */
  get root(): string {
    return this.#root;
  }

  /** How much is asked of it now. */
  get load(): number {
    return this.control.busy + 4 * this.transfersWaiting;
  }

  /** Why a path (as text of bytes) would not arrive as it is; undefined when it would. */
  unsafe(wire: string): string | undefined {
    const { greeting, takesFF } = this.control;
    if (/ (\/|$)/.test(wire) && !keepsSpaces.test(greeting)) return "ends with a space, which this server may change into another name";
    if (wire.includes("\xff") && !takesFF) return holdsFF;
    return undefined;
  }

  has(feature: string): boolean {
    return this.#features.has(feature);
  }

  /** Whether it copies a file by itself (SITE CPFR and CPTO), as ProFTPD's mod_copy and our own server do. */
  get copies(): boolean {
    return /(^|[; ])COPY([; ]|$)/i.test(this.#features.get("SITE") ?? "");
  }

  /** The command that gives a SHA-256, where the server has one. */
  get digestCommand(): "HASH" | "XSHA256" | undefined {
    if (/(^|[;, ])SHA-256/i.test(this.#features.get("HASH") ?? "")) return "HASH";
    return this.#features.has("XSHA256") ? "XSHA256" : undefined;
  }

  close(): void {
    this.control.close();
  }

  fault(error: unknown, what: string): Fault {
    if (isFault(error)) return error;
    if (error instanceof ProtocolError) this.#server.oneByOne = true;
    const { password, secure } = this.options;
    return ftpFault(error, { what, connecting: false, clockTrusted: this.#clock.trusted(), secure, password: password.reveal() });
  }

  /** One transfer at a time: `work` runs when those before it have ended. */
  async transfer<T>(signal: AbortSignal, commands: readonly string[], work: (data: Data) => Promise<T>): Promise<T> {
    const before = this.#transfers;
    let end: () => void = () => undefined;
    const mine = new Promise<void>((resolve) => (end = resolve));
    this.#transfers = before.then(() => mine);
    this.transfersWaiting += 1;
    try {
      await orAborted(before, signal);
      // The next one's commands wait at the server, its port comes with the answer to this one.
      const opening = openData(this.control, commands, this.#memory, {
        timeoutMs: this.options.timeout,
        ...(this.#tls === undefined ? {} : { tls: this.#tls }),
        check: (socket) => expectPinned(socket, this.options.tls),
      });
      if (this.control.ahead) void opening.then(end, end);
      const data = await opening;
      // What goes wrong there is told by the answer, or by whoever reads or writes.
      data.socket.on("error", () => undefined);
      const moved = this.control.moving(data.socket);
      try {
        return await work(data);
      } finally {
        moved();
        data.socket.destroy();
      }
    } finally {
      this.transfersWaiting -= 1;
      end();
    }
  }

  /** Alone in the use of the current directory. */
  inDirectory<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#inDirectory.then(work);
    this.#inDirectory = mine.catch(() => undefined);
    return mine;
  }

  async #logIn(): Promise<void> {
    const { user, password, root } = this.options;
    const { control } = this;
    const named = taken(await control.ask(`USER ${bytesAsText(user)}`));
    const passed = named.code === 331 ? taken(await control.ask(`PASS ${bytesAsText(password.reveal())}`)) : named;
    // It asks for an account, which nothing of today has.
    if (passed.code >= 300) throw new Refusal(passed);
    control.oneByOne = this.#server.oneByOne;
    // Three commands with three kinds of answers in a row: whoever mixes them up, or loses one, is found here.
    const lost = () => control.fail(new ProtocolError("the server leaves commands unanswered that come in a row"));
    const trial = control.oneByOne ? undefined : setTimeout(lost, Math.min(trialMs, this.options.timeout / 3));
    const [features, home, type] = await Promise.all(
      control.askAll([
        { command: "FEAT", codes: /^211/ },
        { command: "PWD", codes: /^257/ },
        { command: "TYPE I", codes: /^200/ },
      ]),
    ).finally(() => clearTimeout(trial));
    if (type !== undefined) taken(type);
    control.ahead = !this.#server.oneByOne && readsInTurn.test(control.greeting);
    this.#features = featuresOf(features);
    const wishes: string[] = [];
    // Asked for where it is offered; servers that have it without asking say so in other words.
    if (this.has("UTF8")) wishes.push("OPTS UTF8 ON");
    if (this.has("MLST")) wishes.push("OPTS MLST type;size;modify;unique;");
    if (this.digestCommand === "HASH") wishes.push("OPTS HASH SHA-256");
    if (this.#tls !== undefined) wishes.push("PBSZ 0", "PROT P");
    const answers = await Promise.all(control.askAll(wishes.map((command) => ({ command }))));
    const secured = answers.at(-1);
    if (this.#tls !== undefined && secured !== undefined) taken(secured);
    const start = root.startsWith("/") ? "" : (/"((?:[^"]|"")*)"/.exec(home?.text ?? "")?.[1]?.replaceAll('""', '"') ?? "");
    this.#root = `${start}/${root === "." ? "" : bytesAsText(root)}`.replace(/\/+/g, "/").replace(/\/$/, "");
  }
}

function portOf({ secure, port = secure === "implicit" ? implicitPort : 21 }: FtpOptions): number {
  return port;
}

function placeOf(options: FtpOptions): string {
  return hostAndPort(options.host, portOf(options));
}

/** A server of the web waits for what it is asked, as long as one of FTP is waited for. */
function doorOf(options: FtpOptions): Door {
  const { host, timeout } = options;
  return {
    host,
    port: portOf(options),
    hello: "HEAD / HTTP/1.0\r\n\r\n",
    isMeant: (said) => /^\s*\d{3}[ -]/.test(said),
    meant: { kind: "FTP", options: '"host" and "port"' },
    timeoutMs: timeout,
  };
}

function isNoAnswer(error: unknown): boolean {
  return error instanceof ProtocolError || error instanceof Silence || isSilence(error);
}

/** A control connection, with the TLS that the options ask for; nobody is logged in. */
async function connected(options: FtpOptions, tls: ConnectionOptions | undefined, over: AbortSignal): Promise<Control> {
  const { host, secure, timeout } = options;
  const control = await Control.open(host, portOf(options), timeout, over, secure === "implicit" ? tls : undefined);
  try {
    if (secure !== true || tls === undefined) return control;
    const answer = await control.ask("AUTH TLS", /^234/);
    if (answer.code >= 400) throw new TlsRefusal(answer);
    await control.secure(tls);
    return control;
  } catch (error) {
    control.close();
    throw error;
  }
}

/** For `Device.certificate`. */
export async function certificateOfServer(options: FtpOptions, clock: Clock, signal: AbortSignal): Promise<Certificate | undefined> {
  const { host, secure, password, port } = options;
  if (secure === false) return undefined;
  const looking = async (over: AbortSignal) =>
    connected(options, { ...(await tlsOptions(host, options.tls)), rejectUnauthorized: false }, over);
  let control: Control | undefined;
  try {
    control = await bounded(options, signal, looking);
    const { socket } = control;
    return socket instanceof TLSSocket ? certificateOf(socket, options.tls) : undefined;
  } catch (error) {
    if (signal.aborted) throw abortedFault(signal);
    const situation = {
      what: `cannot look at the certificate of ${placeOf(options)}`,
      connecting: true,
      clockTrusted: clock.trusted(),
      secure,
      port,
    };
    throw ftpFault(error, { ...situation, password: password.reveal() });
  } finally {
    control?.close();
  }
}

/** The answer, where it is none of refusal. Throws Refusal. */
export function taken(answer: Answer): Answer {
  if (answer.code >= 400) throw new Refusal(answer);
  return answer;
}

function featuresOf(answer: Answer | undefined): Map<string, string> {
  const lines = answer === undefined || answer.code >= 400 ? [] : answer.text.split("\n").slice(1, -1);
  return new Map(
    lines.map((line) => {
      const [name = "", ...rest] = line.trim().split(" ");
      return [name.toUpperCase(), rest.join(" ")];
    }),
  );
}

/** A bound for what nothing else bounds: name look-up, the TLS handshake, answers that come a letter at a time. `over` is given to what is begun where it ends otherwise. */
async function bounded<T>(options: FtpOptions, signal: AbortSignal, work: (over: AbortSignal) => Promise<T>): Promise<T> {
  const over = new AbortController();
  let stop: () => void = () => undefined;
  let timer: NodeJS.Timeout | undefined;
  const ended = new Promise<never>((_resolve, reject) => {
    stop = () => reject(abortedFault(signal));
    signal.addEventListener("abort", stop, { once: true });
    timer = setTimeout(() => reject(Object.assign(new Error("no answer came"), { code: "ETIMEDOUT" })), options.timeout);
  });
  try {
    return await Promise.race([work(over.signal), ended]);
  } catch (error) {
    over.abort();
    throw error;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
  }
}
