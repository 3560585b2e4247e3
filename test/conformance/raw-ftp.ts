/** A client that says anything: lines as bytes, answers as text. For tests of what no decent client does. */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { buffer } from "node:stream/consumers";

export class RawFtp {
  readonly socket: Socket;
  #text = "";
  #more: () => void = () => undefined;
  #ended = false;

  constructor(port: number, options: { readonly localAddress?: string } = {}) {
    this.socket = connect({ host: "127.0.0.1", port, ...options });
    this.socket.on("data", (chunk) => {
      this.#text += chunk.toString("latin1");
      this.#more();
    });
    this.socket.on("error", () => this.socket.destroy());
    this.socket.on("close", () => {
      this.#ended = true;
      this.#more();
    });
  }

  /** A client that has logged in. */
  static async login(port: number, user: string, password: string, options: { readonly localAddress?: string } = {}): Promise<RawFtp> {
    const client = new RawFtp(port, options);
    await client.answer();
    await client.ask(`USER ${user}`);
    const said = await client.ask(`PASS ${password}`);
    if (!said.startsWith("230")) throw new Error(said);
    return client;
  }

  send(text: string | Buffer): void {
    this.socket.write(text);
  }

  /** The next answer, with all its lines; "" once the connection has ended. */
  async answer(): Promise<string> {
    for (;;) {
      const match = /^(?:(\d{3})-[^\n]*\n(?:(?!\1 )[^\n]*\n)*)?(\d{3}) [^\n]*\n/.exec(this.#text);
      if (match !== null) {
        this.#text = this.#text.slice(match[0].length);
        return Buffer.from(match[0].trimEnd(), "latin1").toString();
      }
      if (this.#ended) return "";
      await new Promise<void>((resolve) => (this.#more = resolve));
    }
  }

  async ask(line: string | Buffer): Promise<string> {
    this.send(Buffer.concat([Buffer.from(line), Buffer.from("\r\n")]));
    return this.answer();
  }

  /** A data connection, after EPSV. */
  async data(): Promise<Socket> {
    const said = await this.ask("EPSV");
    const port = Number(/\|\|\|(\d+)\|/.exec(said)?.[1]);
    const socket = connect({ host: "127.0.0.1", port });
    // A transfer that is refused ends it as it likes; the answer tells.
    socket.on("error", () => socket.destroy());
    await once(socket, "connect");
    return socket;
  }

  /** Uploads, and gives the last answer. */
  async store(command: string, content: Buffer): Promise<string> {
    const data = await this.data();
    const first = await this.ask(command);
    if (!first.startsWith("150")) {
      data.destroy();
      return first;
    }
    data.end(content);
    return this.answer();
  }

  /** Receives, and gives the bytes; throws the answer when it is not 226. */
  async receive(command: string): Promise<Buffer> {
    const data = await this.data();
    const first = await this.ask(command);
    if (!first.startsWith("150")) {
      data.destroy();
      throw new Error(first);
    }
    const content = await buffer(data);
    const last = await this.answer();
    if (!last.startsWith("226")) throw new Error(last);
    return content;
  }

  close(): void {
    this.socket.destroy();
  }
}
