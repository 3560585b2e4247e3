/**
 * Data connections: EPSV, else PASV, always to the host of the control connection.
 *
 * The address in an answer to PASV is not used: behind NAT it is a private one, and an evil server could name anybody's. With TLS the
 * session of the control connection goes on, which many servers ask for; the certificate is checked again where it is pinned.
 */
import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls, TLSSocket, type ConnectionOptions } from "node:tls";
import { type Answer, type Asked, type Control, ProtocolError, Refusal } from "./control.js";
import { readable } from "./wire.js";

export interface DataOptions {
  readonly timeoutMs: number;
  /** With TLS. */
  readonly tls?: ConnectionOptions;
  /** Throws when the other side is not who it should be. */
  readonly check: (socket: TLSSocket) => void;
}

/** What the data connections of one control connection remember. */
export interface DataMemory {
  /** Whether the server knows EPSV; undefined until it was asked. */
  epsv: boolean | undefined;
  /** The last TLS ticket: servers give a new one with each connection, and take each one once. */
  ticket: Buffer | undefined;
  /** The TLS session of the login went on in a data connection. */
  resumed: boolean;
}

export interface Data {
  readonly socket: Socket;
  /** Bytes can be sent: with TLS, after the handshake, which servers begin with the transfer. */
  readonly ready: Promise<void>;
  /** The answers to the commands before the one that transfers. */
  readonly before: readonly Promise<Answer>[];
  /** Resolves with the server's 125 or 150: it has the file open, and takes or gives its bytes. Never, where it does not say so. */
  readonly begun: Promise<void>;
  /** The answer that ends the transfer, also one of refusal. */
  readonly answer: Promise<Answer>;
}

/** How servers say that a transfer is over. */
const transferred = /^(200|225|226|250)$/;

/** Asks for a port, connects, and sends `commands`, of which the last transfers. Throws Refusal when the server would rather not. */
export async function openData(control: Control, commands: readonly string[], memory: DataMemory, options: DataOptions): Promise<Data> {
  let onBegin: () => void = () => undefined;
  const begun = new Promise<void>((resolve) => (onBegin = resolve));
  const asked = commands.map((command) => (/^REST/.test(command) ? { command, codes: /^350/ } : { command, codes: transferred, onBegin }));
  // Whoever waits for an answer is told; nobody waits for it while the connection is made.
  const ask = (all: readonly Asked[]): Promise<Answer>[] => {
    const answers = control.askAll(all);
    for (const each of answers) each.catch(() => undefined);
    return answers;
  };
  let port: number;
  let answers: readonly Promise<Answer>[];
  if (memory.epsv === true) {
    // In one packet: the server says its port, goes on to the command, and there waits for the connection.
    const [first, ...rest] = ask([{ command: "EPSV", codes: /^229/ }, ...asked]);
    answers = rest;
    const answer = (await first) ?? { code: 451, text: "no answer" };
    port = portOf(answer);
    if (port === 0) {
      // It took EPSV before: perhaps this is the answer to the command behind it.
      const error = answer.code === 421 ? new Refusal(answer) : new ProtocolError(`the server now answers EPSV with "${answer.code}"`);
      control.fail(error);
      throw error;
    }
  } else {
    port = await askPort(control, memory);
    // Together: the server waits for the connection, and the connection for nothing.
    answers = ask(asked);
  }
  const host = control.socket.remoteAddress;
  if (host === undefined) throw new Error("the control connection has ended");
  const before = answers.slice(0, -1);
  const answer = answers.at(-1) ?? Promise.reject(new Error("a transfer needs a command"));
  const raw: Socket = connectTcp({ host, port, noDelay: true });
  try {
    await connected(raw, port, options.timeoutMs, answer);
  } catch (error) {
    raw.destroy();
    // Now the server waits for a connection that never comes.
    if (!(error instanceof Refusal)) control.fail(asError(error));
    throw error;
  }
  if (options.tls === undefined) return { socket: raw, ready: Promise.resolve(), before, begun, answer };
  const session = memory.ticket ?? (control.socket instanceof TLSSocket ? control.socket.getSession() : undefined);
  const tls: ConnectionOptions = { ...options.tls, socket: raw };
  const secured = connectTls({ ...tls, ...(session === undefined ? {} : { session }) });
  secured.on("session", (ticket) => {
    memory.ticket = ticket;
  });
  let expired = false;
  const ready = new Promise<void>((resolve, reject) => {
    secured.once("error", reject);
    secured.once("close", () => reject(new Error("the data connection was closed")));
    // A server that never begins the handshake, and then no more answers either.
    answer.catch(reject);
    secured.once("secureConnect", () => {
      expired = memory.resumed && !secured.isSessionReused();
      memory.resumed ||= secured.isSessionReused();
      try {
        options.check(secured);
        resolve();
      } catch (error) {
        secured.destroy();
        reject(asError(error));
      }
    });
  });
  ready.catch(() => undefined);
  // Servers that ask for the session take none with another (ProFTPD 425, vsftpd 522); sessions expire, and only a login begins a new one.
  const judged = answer.then((it) => {
    if (it.code < 400 || !expired) return it;
    const error = new Error(`the TLS session of the login has expired (the server said "${it.code} ${readable(it.text)}")`);
    control.fail(error);
    throw error;
  });
  judged.catch(() => undefined);
  return { socket: secured, ready, before, begun, answer: judged };
}

/** The port in an answer to EPSV; 0 when there is none. */
function portOf(answer: Answer): number {
  return answer.code === 229 ? Number(/\(([!-~])\1\1(\d{1,5})\1\)/.exec(answer.text)?.[2] ?? 0) : 0;
}

async function askPort(control: Control, memory: DataMemory): Promise<number> {
  if (memory.epsv !== false) {
    const answer = await control.ask("EPSV", /^229/);
    const port = portOf(answer);
    memory.epsv = port !== 0;
    if (port !== 0) return port;
    if (answer.code >= 400 && answer.code < 500) throw new Refusal(answer);
  }
  const answer = await control.ask("PASV", /^227/);
  if (answer.code >= 400) throw new Refusal(answer);
  const match = /\d+,\d+,\d+,\d+,(\d+),(\d+)/.exec(answer.text);
  if (match === null) throw new ProtocolError("the server's answer to PASV names no port");
  return (Number(match[1]) & 255) * 256 + (Number(match[2]) & 255);
}

/** Resolves once there is a connection; throws the refusal when the server would rather not have one. */
function connected(socket: Socket, port: number, timeoutMs: number, answer: Promise<Answer>): Promise<void> {
  return new Promise((resolve, reject) => {
    const done = (then: () => void): void => {
      clearTimeout(timer);
      socket.off("error", failed);
      socket.off("connect", up);
      then();
    };
    // Whatever it was, it was not the server that is not there: its control connection is open.
    const failed = (error: Error): void =>
      done(() => reject(new Error(`no data connection to port ${port}: ${error.message}`, { cause: error })));
    const up = (): void => done(resolve);
    const timer = setTimeout(() => failed(new Error("no answer")), timeoutMs);
    socket.once("error", failed);
    socket.once("connect", up);
    answer.then(
      (it) => {
        if (it.code >= 400) done(() => reject(new Refusal(it)));
      },
      (error: unknown) => done(() => reject(asError(error))),
    );
  });
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
