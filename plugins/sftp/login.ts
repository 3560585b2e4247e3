/** A login at a server: a connection whose host key was checked, SFTP on it, and digests where the server allows commands. */
import type { Socket } from "node:net";
import ssh2, { type Client, type ClientChannel, type ConnectConfig } from "ssh2";
import { Fault, isFault } from "../../core/errors.js";
import type { Clock } from "../../core/plugin.js";
import { hostAndPort } from "../../core/net.js";
import { sftpFault } from "./faults.js";
import { believed, families, sshDoor, type Believed } from "../../core/host-key.js";
import { unlessStranger } from "../../core/stranger.js";
import { waysOf, type Way } from "./keys.js";
import { asksForDigests, type SftpOptions } from "./options.js";
import { Session } from "./session.js";
import { Digester } from "./shell.js";
import { Departure, gatheringSocket, softwareOf, watchMoves } from "./socket.js";
import { Wire } from "./wire.js";

/** So many signs of life stay without an answer before a connection is broken. */
const looks = 3;

export interface Login {
  readonly session: Session;
  /** undefined where the server allows no commands, or has no sha256sum. Its shell may begin slowly: only who wants digests waits for it. Never rejects. */
  readonly digester: Promise<Digester | undefined>;
  readonly closed: boolean;
  end(why: Fault): void;
}

/** `digested`: the server did at the last login. Throws "offline", "denied", "transient". */
export async function logIn(options: SftpOptions, clock: Clock, signal: AbortSignal, digested = false): Promise<Login> {
  try {
    const ways = await waysOf(options);
    const keys = await believed(options);
    const connection = await unlessStranger(sshDoor(options), signal, (within) => connected(options, keys, ways, within));
    try {
      return await started(connection, options, digested);
    } catch (error) {
      connection.client.destroy();
      throw error;
    }
  } catch (error) {
    throw sftpFault(error, { what: cannotLogIn(options), connecting: true, clockTrusted: clock.trusted() });
  }
}

function cannotLogIn({ host, port }: SftpOptions): string {
  return `cannot log in to ${hostAndPort(host, port)}`;
}

/** The host key that a server shows; nobody logs in. Throws "offline", "denied", "transient". */
export async function hostKeyOf(options: SftpOptions, clock: Clock, signal: AbortSignal): Promise<Buffer> {
  let shown: Buffer | undefined;
  const noneYet: Believed = {
    mayBe: () => true,
    objection: (key) => {
      shown = key;
      return "it is only looked at";
    },
  };
  try {
    const { client } = await connectOnce(options, noneYet, [], families.flat(), signal);
    client.destroy();
  } catch (error) {
    if (shown === undefined)
      throw sftpFault(error, {
        what: `cannot look at the host key of ${hostAndPort(options.host, options.port)}`,
        connecting: true,
        clockTrusted: clock.trusted(),
      });
  }
  if (shown === undefined) throw new Fault("denied", "the server showed no host key");
  return shown;
}

/** Another key of the same server may be the one that is believed: each family is asked for before the server is refused. */
async function connected(options: SftpOptions, keys: Believed, ways: readonly Way[], signal: AbortSignal): Promise<Connection> {
  const possible = families.filter((family) => keys.mayBe(family));
  let refused: unknown;
  for (const asked of possible.length === families.length ? [possible.flat(), ...families.slice(1)] : [possible.flat()]) {
    try {
      return await connectOnce(options, keys, ways, asked, signal);
    } catch (error) {
      if (!(error instanceof WrongKey)) {
        // Of a family that the server does not have.
        if (refused !== undefined && isNoMatch(error)) continue;
        throw error;
      }
      refused ??= error;
      if (options.hostKey === undefined) break;
    }
  }
  throw refused instanceof WrongKey ? new Fault("denied", refused.message) : new Fault("denied", "no host key can be believed");
}

interface Connection {
  readonly client: Client;
  readonly socket: Socket;
  /** What the server calls itself. */
  readonly software: string | undefined;
}

class WrongKey extends Error {}

function isNoMatch(error: unknown): boolean {
  return error instanceof Error && /no matching host key/i.test(error.message);
}

function connectOnce(
  options: SftpOptions,
  keys: Believed,
  ways: readonly Way[],
  serverHostKey: readonly string[],
  signal: AbortSignal,
): Promise<Connection> {
  const { host, port, user: username, timeout, compress } = options;
  return new Promise((resolve, reject) => {
    const client = new ssh2.Client();
    const sock = gatheringSocket();
    const software = softwareOf(sock);
    const tried: Way[] = [];
    let offered: readonly string[] = [];
    let objection: string | undefined;
    let agentFault: Error | undefined;
    const fail = (error: unknown): void => {
      signal.removeEventListener("abort", stop);
      client.removeAllListeners();
      // What a dying connection still says is nobody's.
      client.on("error", () => undefined);
      client.destroy();
      sock.destroy();
      reject(error instanceof Error ? error : new Error(String(error)));
    };
    const stop = (): void => fail(isFault(signal.reason) ? signal.reason : new Fault("aborted", "stopped"));
    if (signal.aborted) {
      stop();
      return;
    }
    signal.addEventListener("abort", stop, { once: true });
    client.once("ready", () => {
      signal.removeEventListener("abort", stop);
      client.removeAllListeners("error");
      client.removeAllListeners("close");
      resolve({ client, socket: sock, software: software() });
    });
    client.on("error", (error: Error & { level?: string }) => {
      // The agent's own fault: the other ways are tried.
      if (error.level === "agent") agentFault = error;
      else if (objection !== undefined) fail(new WrongKey(objection));
      else if (error.level === "client-authentication") fail(notLetIn({ username, tried, offered, agentFault, agent: options.agent }));
      else fail(connectFault(error, options));
    });
    client.once("close", () => fail(closedEarly(options)));
    const left = [...ways];
    const config: ConnectConfig = {
      sock,
      username,
      readyTimeout: timeout,
      keepaliveInterval: askEveryMs(timeout),
      // It counts only answers, which wait behind what goes before them over a slow link: see `watchMoves`.
      keepaliveCountMax: Infinity,
      hostVerifier: (key: Buffer) => {
        objection = keys.objection(key);
        return objection === undefined;
      },
      algorithms: {
        serverHostKey: [...serverHostKey] as NonNullable<NonNullable<ConnectConfig["algorithms"]>["serverHostKey"]> & string[],
        compress: compress ? ["zlib@openssh.com", "zlib", "none"] : ["none", "zlib@openssh.com", "zlib"],
      },
      authHandler: (methods, _partial, next) => {
        if (Array.isArray(methods)) offered = methods;
        for (let way = left.shift(); way !== undefined; way = left.shift()) {
          if (offered.length > 0 && !offered.includes(way.method)) continue;
          tried.push(way);
          next(way.auth);
          return;
        }
        // @types/ssh2 does not know that false says "no more".
        next(false as unknown as "none");
      },
    };
    try {
      client.connect(config);
      sock.connect({ host, port });
    } catch (error) {
      fail(new Fault("config", error instanceof Error ? error.message : String(error), { cause: error }));
    }
  });
}

/** A sign of life, while nothing else is asked. */
function askEveryMs(timeoutMs: number): number {
  return Math.max(1000, Math.floor(timeoutMs / looks));
}

interface Refused {
  readonly username: string;
  readonly tried: readonly Way[];
  readonly offered: readonly string[];
  readonly agentFault: Error | undefined;
  readonly agent: string | undefined;
}

function notLetIn({ username, tried, offered, agentFault, agent }: Refused): Fault {
  const methods = offered.length === 0 ? "" : `; the server takes ${offered.join(", ")}`;
  // It comes back with its user's login.
  if (agentFault !== undefined && agent !== undefined) {
    const others = tried.filter(({ auth }) => auth.type !== "agent");
    const besides = others.length === 0 ? "" : `, and the server does not let the user "${username}" in with ${named(others)}`;
    return new Fault("offline", `the SSH agent at ${agent} does not help to log in (${agentFault.message})${besides}${methods}`, {
      cause: agentFault,
    });
  }
  const how = tried.length === 0 ? "with what is configured" : `with ${named(tried)}`;
  return new Fault("denied", `the server does not let the user "${username}" in ${how}${methods}`);
}

function named(ways: readonly Way[]): string {
  return ways.map(({ what }) => what).join(" or ");
}

function closedEarly(options: SftpOptions, cause?: Error): Fault {
  return new Fault("offline", `${cannotLogIn(options)}: the server closed the connection before the login`, { cause });
}

function connectFault(error: Error & { level?: string }, options: SftpOptions): Error {
  const cause = { cause: error };
  const { message, level } = error;
  if (level === "client-timeout") return new Fault("offline", `${cannotLogIn(options)}: the server does not answer`, cause);
  if (/lost before handshake|socket hang up/i.test(message)) return closedEarly(options, error);
  if (isNoMatch(error)) return error;
  if (/no matching/i.test(message))
    return new Fault("denied", `the server and this program find nothing that both speak (${message})`, cause);
  if (/identification|protocol version|bad packet length/i.test(message))
    return new Fault("denied", `what answers there speaks no SSH (${message}); look at "host" and "port"`, cause);
  return error;
}

async function started({ client, socket, software }: Connection, options: SftpOptions, digested: boolean): Promise<Login> {
  const timeoutMs = options.timeout;
  let broke: ((why: Fault) => void) | undefined;
  client.on("error", (error) => broke?.(new Fault("transient", `the connection broke: ${error.message}`, { cause: error })));
  const unwatch = watchMoves(socket, askEveryMs(timeoutMs), looks, () => {
    broke?.(new Fault("transient", `the connection broke: the server gave no answer for ${Math.round(timeoutMs / 1000)} s`));
    client.destroy();
  });
  client.on("close", () => {
    unwatch();
    broke?.(new Fault("transient", "the connection was closed"));
  });
  const digester = asksForDigests(options) ? new Digester(client, timeoutMs, socket) : undefined;
  const opening = new Promise<Session>((resolve, reject) => {
    broke = reject;
    const departure = new Departure(socket);
    const timer = setTimeout(() => {
      if (departure.excuses()) timer.refresh();
      else reject(new Fault("transient", "the server gives no answer to the wish for SFTP"));
    }, timeoutMs).unref();
    client.subsys("sftp", (error: Error | undefined, channel: ClientChannel) => {
      clearTimeout(timer);
      if (error !== undefined) {
        reject(new Fault("denied", `the server gives this user no SFTP (${error.message})`, { cause: error }));
        return;
      }
      channel.stderr.resume();
      const wire = new Wire(channel, timeoutMs, new Departure(socket));
      broke = (why) => {
        wire.end(why);
        reject(why);
      };
      // The connection is of no use without it, and would keep the process alive.
      wire.onEnd = (why) => broke?.(why);
      Session.start(wire, options.root, software).then(resolve, reject);
    });
  });
  const works = digester?.works(digested) ?? Promise.resolve(false);
  const session = await opening;
  let closed = false;
  const end = (why: Fault): void => {
    if (closed) return;
    closed = true;
    session.end(why);
    digester?.end();
    client.end();
    // A server that does not answer to the end is left.
    client.destroy();
  };
  broke = end;
  return {
    session,
    digester: works.then((it) => {
      if (it) return digester;
      digester?.end();
      return undefined;
    }),
    get closed() {
      return closed || session.closed;
    },
    end,
  };
}
