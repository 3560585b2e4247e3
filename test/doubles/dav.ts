/**
 * A double of a WebDAV server over a directory, not a real one: the plain methods of RFC 4918 as a careful server answers them, and hooks by which one
 * lies, breaks off or says no. Nextcloud's and Yandex's doubles build on it.
 */
import { once } from "node:events";
import { createReadStream, createWriteStream, promises as fs, type Stats } from "node:fs";
import http, { type IncomingMessage, type ServerResponse } from "node:http";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { freePort } from "../conformance/ftp-servers.js";

export interface Exchange {
  readonly method: string;
  /** Decoded, below the host, without "/" at its end. */
  readonly path: string;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
}

export class DavDouble {
  /** "PUT /a/b", in order. */
  readonly asked: string[] = [];
  /** Bytes of bodies that came in. */
  receivedBytes = 0;
  /** Answers in place of the double when it returns true. */
  instead: (exchange: Exchange) => boolean | Promise<boolean> = () => false;
  /** Bytes that still fit in. */
  quota = Infinity;
  /** What it calls itself. */
  software = "dav-double";
  #server = this.#make();
  #port = 0;
  #temporary = 0;

  constructor(
    readonly dir: string,
    readonly login?: { readonly user: string; readonly password: string },
  ) {}

  async start(): Promise<this> {
    if (this.#port === 0) this.#port = await freePort();
    this.#server.listen(this.#port, "127.0.0.1");
    await once(this.#server, "listening");
    return this;
  }

  /** As a server that is killed: connections are reset; `start` brings it back on the same port. */
  async stop(): Promise<void> {
    const closed = once(this.#server, "close");
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
    this.#server = this.#make();
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** Where a path of a URL is on the disk; undefined where there is nothing of the kind. */
  protected disk(path: string): string | undefined {
    return join(this.dir, path);
  }

  /** What is more than plain WebDAV; false for what is not. */
  protected special(_exchange: Exchange): Promise<boolean> {
    return Promise.resolve(false);
  }

  #make(): http.Server {
    const serve = (request: IncomingMessage, response: ServerResponse) => {
      this.#serve(request, response).catch(() => response.destroy());
    };
    return http.createServer(serve).on("checkContinue", serve);
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = "" } = request;
    const path = decodeURIComponent(new URL(request.url ?? "/", this.url).pathname).replace(/\/+$/, "");
    const exchange = { method, path, request, response };
    this.asked.push(`${method} ${path}`);
    request.on("data", (chunk: Buffer) => (this.receivedBytes += chunk.length)).pause();
    response.setHeader("server", this.software);
    if (await this.instead(exchange)) return;
    const { login } = this;
    const wanted = login === undefined ? undefined : `Basic ${Buffer.from(`${login.user}:${login.password}`).toString("base64")}`;
    if (wanted !== undefined && request.headers.authorization !== wanted && !path.endsWith("/status.php")) {
      this.say(exchange, 401, "", { "www-authenticate": 'Basic realm="double"' });
      return;
    }
    if (await this.special(exchange)) return;
    const at = this.disk(path);
    if (at === undefined) {
      this.say(exchange, 404);
      return;
    }
    switch (method) {
      case "OPTIONS": {
        this.say(exchange, 200, "", { dav: "1, 3" });
        return;
      }
      case "PROPFIND":
        return this.#propfind(exchange, at);
      case "GET":
        return this.#get(exchange, at);
      case "PUT":
        return this.put(exchange, at);
      case "MKCOL":
        return fs.mkdir(at).then(
          () => this.say(exchange, 201),
          (error: unknown) => this.say(exchange, isThere(error) ? 405 : 409),
        );
      case "DELETE":
        if ((await statOf(at)) === undefined) {
          this.say(exchange, 404);
          return;
        }
        await fs.rm(at, { recursive: true });
        {
          this.say(exchange, 204);
          return;
        }
      case "MOVE":
        return this.move(exchange, () => fs.rename(at, this.destination(exchange)));
      default: {
        this.say(exchange, 405);
        return;
      }
    }
  }

  say({ request, response }: Exchange, status: number, text = "", headers: http.OutgoingHttpHeaders = {}): void {
    // A body that nobody wants is let in as far as it has come.
    if (!request.complete && Number(request.headers["content-length"] ?? 0) > 0) {
      response.setHeader("connection", "close");
      request.resume();
    }
    response.writeHead(status, headers).end(text);
  }

  destination({ request }: Exchange): string {
    const path = decodeURIComponent(new URL(String(request.headers.destination), this.url).pathname);
    return this.disk(path) ?? "";
  }

  protected async move(exchange: Exchange, work: () => Promise<void>): Promise<void> {
    const to = this.destination(exchange);
    const there = await statOf(to);
    if (there !== undefined && exchange.request.headers.overwrite === "F") {
      this.say(exchange, 412);
      return;
    }
    if ((await statOf(join(to, ".."))) === undefined) {
      this.say(exchange, 409);
      return;
    }
    await work();
    this.say(exchange, there === undefined ? 201 : 204);
  }

  protected temporary(): string {
    return join(this.dir, `.double-${this.#temporary++}`);
  }

  /** The body, whole, under `at`; what breaks off leaves nothing. False after it answered no. */
  protected async receive(exchange: Exchange, at: string): Promise<boolean> {
    const { request, response } = exchange;
    const length = Number(request.headers["content-length"] ?? 0);
    if ((await statOf(join(at, "..")))?.isDirectory() !== true) {
      this.say(exchange, 409);
      return false;
    }
    if (request.headers.expect === "100-continue") response.writeContinue();
    const temporary = this.temporary();
    try {
      await pipeline(request, createWriteStream(temporary));
    } catch {
      await fs.rm(temporary, { force: true });
      return false;
    }
    if (length > this.quota) {
      await fs.rm(temporary);
      this.say(exchange, 507);
      return false;
    }
    this.quota -= length;
    await fs.rename(temporary, at);
    return true;
  }

  protected async put(exchange: Exchange, at: string): Promise<void> {
    const before = await statOf(at);
    if (before !== undefined && exchange.request.headers["if-none-match"] === "*") {
      this.say(exchange, 412);
      return;
    }
    if (await this.receive(exchange, at)) this.say(exchange, before === undefined ? 201 : 204);
  }

  async #get(exchange: Exchange, at: string): Promise<void> {
    const stat = await statOf(at);
    if (stat?.isFile() !== true) {
      this.say(exchange, 404);
      return;
    }
    const range = /^bytes=(\d+)-(\d+)$/.exec(exchange.request.headers.range ?? "");
    const [start, end] = range === null ? [0, stat.size - 1] : [Number(range[1]), Math.min(Number(range[2]), stat.size - 1)];
    if (start > 0 && start >= stat.size) {
      this.say(exchange, 416);
      return;
    }
    exchange.response.writeHead(range === null ? 200 : 206, {
      "content-length": end - start + 1,
      ...(range === null ? {} : { "content-range": `bytes ${start}-${end}/${stat.size}` }),
    });
    if (end < start) exchange.response.end();
    else await pipeline(createReadStream(at, { start, end }), exchange.response);
  }

  async #propfind(exchange: Exchange, at: string): Promise<void> {
    const stat = await statOf(at);
    if (stat === undefined) {
      this.say(exchange, 404);
      return;
    }
    const own = exchange.path;
    const found = [responseOf(own, stat)];
    if (exchange.request.headers.depth === "1" && stat.isDirectory())
      for (const name of await fs.readdir(at)) {
        const below = await statOf(join(at, name));
        if (below !== undefined && !name.startsWith(".double-")) found.push(responseOf(`${own}/${name}`, below));
      }
    this.multistatus(exchange, found);
  }

  multistatus(exchange: Exchange, responses: readonly string[]): void {
    const text = `<?xml version="1.0"?><d:multistatus xmlns:d="DAV:">${responses.join("")}</d:multistatus>`;
    this.say(exchange, 207, text, { "content-type": "application/xml; charset=utf-8" });
  }
}

function isThere(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "EEXIST";
}

/** What is there; a link counts as nothing. */
export async function statOf(path: string): Promise<Stats | undefined> {
  const stat = await fs.lstat(path).catch(() => undefined);
  return stat?.isFile() === true || stat?.isDirectory() === true ? stat : undefined;
}

export function responseOf(path: string, stat: Pick<Stats, "size" | "mtime" | "isDirectory">): string {
  const href = path.split("/").map(encodeURIComponent).join("/");
  const props = stat.isDirectory()
    ? "<d:resourcetype><d:collection/></d:resourcetype>"
    : `<d:resourcetype/><d:getcontentlength>${stat.size}</d:getcontentlength>`;
  return (
    `<d:response><d:href>${href}${stat.isDirectory() ? "/" : ""}</d:href><d:propstat><d:prop>${props}` +
    `<d:getlastmodified>${stat.mtime.toUTCString()}</d:getlastmodified></d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response>`
  );
}
