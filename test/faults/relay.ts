/**
 * A relay in front of an FTP server, in plain sight of every byte: it counts what is uploaded and downloaded, outside the program, and can cut everything
 * that runs through it. Passive replies (227, 229) are rewritten so that data connections run through it too. It can be as far away as is
 * wanted: what comes in goes out so much later, however much of it is on its way.
 */
import { createServer, Socket, type AddressInfo, type Server } from "node:net";
import { join, later, pass, reset } from "./joined.js";

export class FtpRelay {
  /** Bytes that went from clients to the server on data connections. */
  uploadedBytes = 0;
  /** Bytes that came from the server on data connections. */
  downloadedBytes = 0;
  /** Control connections that were opened to it. */
  controlConnections = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #dataServers = new Set<Server>();

  private constructor(
    readonly toPort: number,
    readonly delayMs: number,
  ) {
    this.#server = createServer((client) => this.#control(client));
  }

  /** `delayMs`: one way. */
  static async start(toPort: number, { delayMs = 0 }: { delayMs?: number } = {}): Promise<FtpRelay> {
    const relay = new FtpRelay(toPort, delayMs);
    await new Promise<void>((resolve) => relay.#server.listen(0, "127.0.0.1", resolve));
    return relay;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Resets every connection, as a link that is lost does in the end. */
  cut(): void {
    for (const socket of this.#sockets) reset(socket);
  }

  async close(): Promise<void> {
    this.cut();
    for (const server of this.#dataServers) server.close();
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
  }

  #control(client: Socket): void {
    this.controlConnections += 1;
    const server = this.#connect(this.toPort);
    join(client, server, this.delayMs, this.#sockets);
    pass(client, server, this.delayMs);
    let text = "";
    // Lines, one after another: a passive reply has to wait for its relay's port.
    let turn = Promise.resolve();
    server.setEncoding("latin1").on("data", (part: string) => {
      text += part;
      const lines = text.split("\r\n");
      text = lines.pop() ?? "";
      for (const line of lines)
        turn = turn.then(async () => {
          const out = `${await this.#rewritten(line)}\r\n`;
          later(this.delayMs, () => client.write(out, "latin1"));
        });
    });
    server.on("end", () => void turn.then(() => later(this.delayMs, () => client.end())));
  }

  async #rewritten(line: string): Promise<string> {
    const extended = /^229 .*\(\|\|\|(\d+)\|\)/.exec(line);
    if (extended !== null) return `229 Entering Extended Passive Mode (|||${await this.#data(Number(extended[1]))}|)`;
    const plain = /^227 .*?\((\d+),(\d+),(\d+),(\d+),(\d+),(\d+)\)/.exec(line);
    if (plain === null) return line;
    const port = await this.#data(Number(plain[5]) * 256 + Number(plain[6]));
    return `227 Entering Passive Mode (127,0,0,1,${port >> 8},${port & 255})`;
  }

  /** A port of ours for one data connection to the server's. */
  async #data(toPort: number): Promise<number> {
    const listener = createServer((client) => {
      listener.close();
      this.#dataServers.delete(listener);
      const server = this.#connect(toPort);
      join(client, server, this.delayMs, this.#sockets);
      client.on("data", (bytes: Buffer) => (this.uploadedBytes += bytes.length));
      server.on("data", (bytes: Buffer) => (this.downloadedBytes += bytes.length));
      pass(client, server, this.delayMs);
      pass(server, client, this.delayMs);
    });
    this.#dataServers.add(listener);
    await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
    return (listener.address() as AddressInfo).port;
  }

  #connect(port: number): Socket {
    const socket = new Socket();
    later(this.delayMs, () => socket.connect(port, "127.0.0.1"));
    return socket;
  }
}
