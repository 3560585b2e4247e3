/**
 * Data connections: a port that waits for one connection of one client.
 *
 * Only the address of the control connection is let in; anyone else is hung up on and the port waits on. One connection is taken, then the
 * port is free again. The server never connects out (PORT and EPRT are refused), so it cannot be used against others.
 */
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { setImmediate } from "node:timers/promises";
import { TLSSocket, type SecureContext } from "node:tls";
import { codeOf } from "../../core/errors.js";
import { Answer } from "./answer.js";
import type { PortRange } from "./options.js";

/** Addresses as they compare: an IPv4 address that came through an IPv6 socket is itself. */
export function plainAddress(address: string | undefined): string {
  return (address ?? "").replace(/^::ffff:/i, "");
}

/** Hands out ports of a range, each in turn, so that a port that was just left is used last. */
export class Ports {
  readonly #range: PortRange | undefined;
  #next = 0;

  constructor(range: PortRange | undefined) {
    this.#range = range;
  }

  /** Listens on a free port. Throws Answer 425 when all are taken. */
  async listen(server: Server, host: string): Promise<number> {
    const tries = this.#range === undefined ? 1 : this.#range.to - this.#range.from + 1;
    for (let i = 0; i < tries; i++) {
      const port = this.#range === undefined ? 0 : this.#range.from + (this.#next++ % tries);
      try {
        await listening(server, port, host);
        return (server.address() as AddressInfo).port;
      } catch (error) {
        if (codeOf(error) !== "EADDRINUSE") throw error;
      }
    }
    throw new Answer(425, "No port for a data connection is free; try again.");
  }
}

function listening(server: Server, port: number, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ port, host }, () => {
      server.off("error", reject);
      resolve();
    });
  });
}

export class Passive {
  readonly port: number;
  readonly #server: Server;
  readonly #arrived: Promise<Socket>;
  #giveUp: (why: Error) => void = () => undefined;
  #socket: Socket | undefined;

  private constructor(server: Server, port: number, client: string, onStranger: (address: string) => void) {
    this.#server = server;
    this.port = port;
    this.#arrived = new Promise((resolve, reject) => {
      this.#giveUp = reject;
      server.on("connection", (socket) => {
        const from = plainAddress(socket.remoteAddress);
        if (from !== client || this.#socket !== undefined) {
          if (from !== client) onStranger(from);
          socket.destroy();
          return;
        }
        this.#socket = socket;
        // An error before anybody reads is seen by who reads later; without a listener it would end the process.
        socket.on("error", (error) => socket.destroy(error));
        socket.setKeepAlive(true, 10_000);
        server.close();
        resolve(socket);
      });
    });
    // It may be closed before anybody waits.
    this.#arrived.catch(() => undefined);
  }

  /** Waits on a free port of `host` for a connection from `client`. Throws Answer 425. */
  static async open(ports: Ports, host: string, client: string, onStranger: (address: string) => void): Promise<Passive> {
    const server = createServer({ highWaterMark: 1 << 20, noDelay: true, allowHalfOpen: true });
    const port = await ports.listen(server, host);
    return new Passive(server, port, client, onStranger);
  }

  /** The connection, with TLS on it where a context is given. Throws Answer 425 when none comes in time, 522 when TLS fails. */
  async take(timeoutMs: number, secure: SecureContext | undefined): Promise<Socket> {
    const timer = setTimeout(() => {
      this.#giveUp(new Answer(425, "No data connection came in time."));
      this.#socket?.destroy();
    }, timeoutMs);
    try {
      const raw = await this.#arrived;
      if (secure === undefined) return raw;
      raw.allowHalfOpen = false;
      if (raw.readableEnded) raw.destroy();
      return await shaken(raw, secure);
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * Ends the waiting and the connection of a command that is refused. A connection that the system has taken, and this process not yet, is taken first: closed unseen it would be reset, and clients tell
   * that in place of the answer.
   */
  async refuse(): Promise<void> {
    // The second comes behind a whole round of what the system has to tell.
    await setImmediate();
    await setImmediate();
    this.close();
  }

  /** Ends the waiting and the connection. */
  close(): void {
    this.#giveUp(new Answer(425, "The data connection was given up."));
    this.#server.close();
    this.#socket?.destroy();
  }
}

/**
 * Throws where what looked like the client's end of an upload was a reset: right behind bytes that were not read yet libuv takes one for the other, and tells it only to who writes. With TLS nobody is
 * asked: clients that leave the server's session tickets unread reset what they have ended.
 */
export function expectEnded(socket: Socket): Promise<void> {
  if (socket instanceof TLSSocket) return Promise.resolve();
  return new Promise((resolve, reject) => socket.write(Buffer.alloc(0), (error) => (error ? reject(error) : resolve())));
}

function shaken(raw: Socket, secureContext: SecureContext): Promise<Socket> {
  const socket = new TLSSocket(raw, { isServer: true, secureContext });
  return new Promise((resolve, reject) => {
    socket.once("secure", () => resolve(socket));
    socket.once("close", () => reject(new Answer(522, "TLS on the data connection failed.")));
    socket.on("error", () => socket.destroy());
  });
}
