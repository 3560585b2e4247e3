/**
 * A relay in front of a server that speaks over one connection at a time: it counts, outside the program, what clients send and are told, and can cut all that runs. It can be as far away as is
 * wanted: what comes in goes out so much later, however much of it is on its way.
 */
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { join, pass, reset } from "./joined.js";

export class CountingRelay {
  sentBytes = 0;
  /** Once clients have sent so many, nothing more is taken of them until they are cut. */
  holdsAt = Infinity;
  /** What servers answer. */
  receivedBytes = 0;
  readonly #sockets = new Set<Socket>();
  readonly #server: Server;

  private constructor(toPort: number, delayMs: number) {
    this.#server = createServer((client) => {
      const server = connect(toPort, "127.0.0.1");
      client.on("data", (bytes) => {
        this.sentBytes += bytes.length;
        if (this.sentBytes < this.holdsAt) return;
        client.unpipe();
        client.pause();
      });
      server.on("data", (bytes) => (this.receivedBytes += bytes.length));
      pass(client, server, delayMs);
      pass(server, client, delayMs);
      join(client, server, delayMs, this.#sockets);
    });
  }

  /** `delayMs`: one way. */
  static async start(toPort: number, { delayMs = 0 }: { delayMs?: number } = {}): Promise<CountingRelay> {
    const relay = new CountingRelay(toPort, delayMs);
    relay.#server.listen(0, "127.0.0.1");
    await once(relay.#server, "listening");
    return relay;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** What runs now says nothing more, and is not closed: as behind a router that forgot it. */
  swallow(): void {
    for (const socket of this.#sockets) {
      socket.unpipe();
      socket.resume();
    }
  }

  cut(): void {
    for (const socket of this.#sockets) reset(socket);
  }

  close(): void {
    this.#server.close();
    this.cut();
  }
}
