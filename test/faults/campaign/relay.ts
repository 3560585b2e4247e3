/**
 * A relay in front of an FTP server that misbehaves as links and servers do: it resets, freezes, swallows one direction or both, delays, refuses,
 * tells a wrong size. It reads the control connections, so it knows which file each data connection carries, and keeps the ledgers of them.
 */
import { createConnection, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { posix } from "node:path";
import { reset } from "../joined.js";
import { Ledger } from "./ledger.js";

/** up: what the daemon sends. */
type Direction = "up" | "down";

/** A command that waits for its answer, and for a passive one the transfer that will use its port. */
interface Asked {
  readonly word: string;
  readonly path: string;
  use?: Use;
}
interface Use {
  word?: string;
  path?: string;
  rest?: number;
}

export class RoughRelay {
  readonly uploads: Ledger;
  readonly downloads: Ledger;
  /** Bytes that went up in connections that this relay cannot read. */
  unreadBytes = 0;
  /** Bytes that were taken and never passed on. */
  swallowedBytes = 0;
  /** How many data connections are open now. */
  transfers = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #dataSockets = new Set<Socket>();
  readonly #dataServers = new Set<Server>();
  readonly #swallowing = new Set<Direction>();
  readonly #thaws = new Set<() => void>();
  #frozen = false;
  #refusing = false;
  #delayMs = 0;
  /**
   * Bytes per ms of a download. Slower than the daemon reads: else what counts as moved would be what the sockets hold before a reader that is held
   * back by "maxRate", up to 10 MB on loopback.
   */
  pace = Infinity;
  #closeAfter: { direction: Direction; bytes: number } | undefined;
  /** As behind a NAT: answers to PASV tell an address where nobody is. */
  nat = false;
  /** EPSV is not known here. */
  noEpsv = false;
  #lie: { delta: number; mayLie: (path: string) => boolean; told: (path: string) => void } | undefined;

  private constructor(
    public toPort: number,
    faults: () => number,
    readonly sizeOf: ((path: string) => number) | undefined,
  ) {
    this.uploads = new Ledger(faults);
    this.downloads = new Ledger(faults);
    this.#server = createServer({ allowHalfOpen: true }, (client) => (sizeOf === undefined ? this.#plain(client) : this.#control(client)));
  }

  /** `sizeOf`: the bytes that the server has under a path, for APPE says no offset. Without it: any protocol, whose connections are only counted. */
  static async start(toPort: number, faults: () => number, sizeOf?: (path: string) => number): Promise<RoughRelay> {
    const relay = new RoughRelay(toPort, faults, sizeOf);
    await new Promise<void>((resolve) => relay.#server.listen(0, "127.0.0.1", resolve));
    return relay;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Resets every connection, or only those of data. False when there was none. */
  cut(what: "all" | "data" = "all"): boolean {
    const sockets = [...(what === "all" ? this.#sockets : this.#dataSockets)];
    for (const socket of sockets) reset(socket);
    return sockets.length > 0;
  }

  /** Nothing moves, and nobody is told: the link is a black hole that keeps what it has. */
  freeze(on: boolean): void {
    this.#frozen = on;
    if (on) for (const socket of this.#sockets) socket.pause();
    else {
      for (const thaw of [...this.#thaws]) thaw();
      for (const socket of this.#sockets) socket.resume();
    }
  }

  /** What goes in these directions is taken, and never arrives. Connections that were hit stay broken: their bytes are gone. */
  swallow(directions: readonly Direction[]): void {
    const hit = this.#swallowing.size > 0 && directions.length === 0;
    this.#swallowing.clear();
    for (const direction of directions) this.#swallowing.add(direction);
    // The link is back, but no connection that lost bytes can go on: TCP would have given up on it.
    if (hit) this.cut();
  }

  refuse(on: boolean): void {
    this.#refusing = on;
    if (on) this.cut();
  }

  delay(ms: number): void {
    this.#delayMs = ms;
  }

  /** Once so many bytes of a data connection went this way, the receiver is told that it was all, and the rest is swallowed. Once. */
  closeAfter(direction: Direction, bytes: number): void {
    this.#closeAfter = { direction, bytes };
  }

  /** The next answer to SIZE for a path that `mayLie` allows is wrong by `delta`. */
  lie(delta: number, mayLie: (path: string) => boolean, told: (path: string) => void): void {
    this.#lie = { delta, mayLie, told };
  }

  async close(): Promise<void> {
    this.cut();
    for (const server of this.#dataServers) server.close();
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
  }

  #plain(client: Socket): void {
    if (this.#refusing) {
      reset(client);
      return;
    }
    const server = createConnection({ port: this.toPort, host: "127.0.0.1", allowHalfOpen: true });
    this.#join(client, server);
    this.#dataSockets.add(client).add(server);
    client.once("close", () => {
      this.#dataSockets.delete(client);
      this.#dataSockets.delete(server);
    });
    this.#pass(client, server, "up", (bytes) => (this.unreadBytes += bytes.length));
    this.#pass(server, client, "down", () => undefined);
  }

  #control(client: Socket): void {
    if (this.#refusing) {
      reset(client);
      return;
    }
    const server = createConnection({ port: this.toPort, host: "127.0.0.1", allowHalfOpen: true });
    this.#join(client, server);
    const asked: Asked[] = [{ word: "", path: "" }];
    const waiting: Use[] = [];
    let cwd = "/";
    let rest = 0;
    this.#lines(client, server, "up", (line) => {
      const [, verb = "", argument = ""] = /^(\S+) ?(.*)$/.exec(line) ?? [];
      const word = verb.toUpperCase();
      const path = posix.resolve(cwd, Buffer.from(argument, "latin1").toString());
      if (word === "CWD") cwd = path;
      if (word === "CDUP") cwd = posix.dirname(cwd);
      const question: Asked = { word, path };
      if (word === "REST") rest = Number(argument);
      if (word === "EPSV" || word === "PASV") {
        question.use = {};
        waiting.push(question.use);
      }
      if (/^(STOR|APPE|RETR|LIST|NLST|MLSD)$/.test(word)) {
        Object.assign(waiting.shift() ?? {}, { word, path, rest });
        rest = 0;
      }
      asked.push(question);
      return Promise.resolve(word === "EPSV" && this.noEpsv ? "NOOP" : line);
    });
    let inside: string | undefined;
    this.#lines(server, client, "down", async (line) => {
      const code = /^(\d\d\d)([ -])/.exec(line);
      if (inside !== undefined) {
        if (!line.startsWith(`${inside} `)) return line;
      } else if (code?.[2] === "-") {
        inside = code[1];
        return line;
      }
      inside = undefined;
      if (code === null || line.startsWith("1")) return line;
      return this.#answered(line, asked.shift(), waiting);
    });
  }

  async #answered(line: string, question: Asked | undefined, waiting: Use[]): Promise<string> {
    if (question?.use !== undefined) {
      if (question.word === "EPSV" && this.noEpsv) line = "500 EPSV is not understood.";
      const extended = /^229 .*\(\|\|\|(\d+)\|\)/.exec(line);
      if (extended !== null) return `229 Entering Extended Passive Mode (|||${await this.#data(Number(extended[1]), question.use)}|)`;
      const plain = /^227 .*?\((\d+),(\d+),(\d+),(\d+),(\d+),(\d+)\)/.exec(line);
      if (plain !== null) {
        const port = await this.#data(Number(plain[5]) * 256 + Number(plain[6]), question.use);
        return `227 Entering Passive Mode (${this.nat ? "192,0,2,1" : "127,0,0,1"},${port >> 8},${port & 255})`;
      }
      const at = waiting.indexOf(question.use);
      if (at !== -1) waiting.splice(at, 1);
    }
    const size = /^213 (\d+)$/.exec(line);
    const lie = this.#lie;
    if (question?.word === "SIZE" && size !== null && lie?.mayLie(question.path) === true) {
      this.#lie = undefined;
      lie.told(question.path);
      return `213 ${Math.max(0, Number(size[1]) + lie.delta)}`;
    }
    return line;
  }

  /** A port of ours for one data connection to the server's. */
  async #data(toPort: number, use: Use): Promise<number> {
    const listener = createServer({ allowHalfOpen: true }, (client) => {
      listener.close();
      this.#dataServers.delete(listener);
      const server = createConnection({ port: toPort, host: "127.0.0.1", allowHalfOpen: true });
      this.#join(client, server);
      this.transfers += 1;
      this.#dataSockets.add(client).add(server);
      client.once("close", () => {
        this.transfers -= 1;
        this.#dataSockets.delete(client);
        this.#dataSockets.delete(server);
      });
      let count: ((bytes: number) => void) | undefined;
      const counted = (ledger: Ledger, words: RegExp) => (bytes: Buffer) => {
        if (use.word === undefined || !words.test(use.word)) return;
        const path = use.path ?? "";
        count ??= ledger.begin(finalPath(path), use.word === "APPE" ? (this.sizeOf?.(path) ?? 0) : (use.rest ?? 0));
        count(bytes.length);
      };
      this.#pass(client, server, "up", counted(this.uploads, /^(STOR|APPE)$/));
      this.#pass(server, client, "down", counted(this.downloads, /^RETR$/));
    });
    this.#dataServers.add(listener);
    await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
    return (listener.address() as AddressInfo).port;
  }

  /** Bytes as they come; counted once they were handed on. */
  #pass(from: Socket, to: Socket, direction: Direction, count: (bytes: Buffer) => void): void {
    let turn = Promise.resolve();
    let passed = 0;
    let closed = false;
    from.on("data", (bytes: Buffer) => {
      if (closed || this.#swallowing.has(direction)) {
        this.swallowedBytes += bytes.length;
        return;
      }
      passed += bytes.length;
      if (this.#closeAfter?.direction === direction && passed > this.#closeAfter.bytes) {
        this.#closeAfter = undefined;
        closed = true;
        this.swallowedBytes += bytes.length;
        turn = turn.then(() => void to.end());
        return;
      }
      from.pause();
      turn = turn.then(async () => {
        await this.#held();
        count(bytes);
        if (direction === "down" && this.pace < Infinity) await new Promise((resolve) => setTimeout(resolve, bytes.length / this.pace));
        if (!to.write(bytes)) await new Promise<void>((resolve) => to.once("drain", resolve).once("close", resolve));
        if (!this.#frozen) from.resume();
      });
    });
    from.on("end", () => void turn.then(() => this.#swallowing.has(direction) || to.end()));
  }

  #lines(from: Socket, to: Socket, direction: Direction, rewrite: (line: string) => Promise<string>): void {
    let text = "";
    // One after another: a passive answer has to wait for its relay's port.
    let turn = Promise.resolve();
    from.setEncoding("latin1").on("data", (part: string) => {
      text += part;
      const lines = text.split("\r\n");
      text = lines.pop() ?? "";
      for (const line of lines)
        turn = turn.then(async () => {
          const out = await rewrite(line);
          await this.#held();
          if (this.#swallowing.has(direction)) this.swallowedBytes += out.length;
          else to.write(`${out}\r\n`, "latin1");
        });
    });
    from.on("end", () => void turn.then(() => this.#swallowing.has(direction) || to.end()));
  }

  /** While the link is slow or frozen. */
  async #held(): Promise<void> {
    if (this.#delayMs > 0) await new Promise((resolve) => setTimeout(resolve, this.#delayMs));
    while (this.#frozen)
      await new Promise<void>((resolve) => {
        const thaw = () => {
          this.#thaws.delete(thaw);
          resolve();
        };
        this.#thaws.add(thaw);
      });
  }

  #join(a: Socket, b: Socket): void {
    for (const [one, other] of [
      [a, b],
      [b, a],
    ] as const) {
      this.#sockets.add(one);
      if (this.#frozen) one.pause();
      // An end that breaks breaks the other: the relay itself has no opinion. One that ends is passed on by who reads it.
      one.on("error", () => reset(other));
      one.on("close", () => this.#sockets.delete(one));
    }
  }
}

/** A partial is counted under the name that it will have. */
export function finalPath(path: string): string {
  const partial = /^\.(.+)\.[0-9a-f]+-[0-9a-f]+\.part$/.exec(posix.basename(path));
  return partial === null ? path : posix.join(posix.dirname(path), partial[1] ?? "");
}
