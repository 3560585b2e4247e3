/**
 * A double of PX4 Flight Review's upload, not the real one: built from what its source says (app/tornado_handlers/upload.py), with its limits and errors, and
 * the ways in which it, a proxy before it or a link can fail. Three dialects: the original, one that wants a key, and flight-review-rs.
 */
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import http, { type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface Log {
  readonly id: string;
  readonly fields: Readonly<Record<string, string>>;
  readonly filename: string;
  readonly bytes: Buffer;
}

/** What it does instead of answering as it should, once for each name that is put in. */
export type Trick =
  /** Cuts the connection after so many bytes of the body. */
  | { readonly cutAfter: number }
  /** Takes all, stores it, and cuts the connection before the answer. */
  | "cut-answer"
  /** Takes all, stores it, and never answers. */
  | "silent"
  /** Answers as a proxy or the application would, without storing it. */
  | { readonly status: number; readonly text?: string; readonly headers?: Record<string, string> };

const magic = Buffer.from([0x55, 0x4c, 0x6f, 0x67, 0x01, 0x12, 0x35]);

export class FlightReviewDouble {
  readonly logs: Log[] = [];
  readonly tricks: Trick[] = [];
  requests = 0;
  /** The application's cap in bytes, lifted by expected_size; and a proxy's, lifted by nothing. */
  cap = 300 * 2 ** 20;
  proxyCap = Infinity;
  key: string | undefined;
  /** Stored bytes are given back changed. */
  corrupts = false;
  /** So many times what is stored cannot be had. */
  keeps = 0;
  readonly #server = http.createServer((request, response) => void this.#serve(request, response));

  static async start(v2 = false): Promise<FlightReviewDouble> {
    const double = new FlightReviewDouble(v2);
    double.#server.on("checkContinue", (request: IncomingMessage, response: ServerResponse) => {
      if (double.#tooLarge(request)) double.#refuse(request, response);
      else {
        response.writeContinue();
        void double.#serve(request, response);
      }
    });
    double.#server.listen(0, "127.0.0.1");
    await once(double.#server, "listening");
    return double;
  }

  private constructor(readonly v2: boolean) {}

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}${this.v2 ? "/api/upload" : "/upload"}`;
  }

  stop(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  #tooLarge(request: IncomingMessage): "proxy" | "application" | undefined {
    const length = Number(request.headers["content-length"] ?? NaN);
    if (length > this.proxyCap) return "proxy";
    const expected = Number(new URL(request.url ?? "/", this.url).searchParams.get("expected_size") ?? 0);
    return length > Math.max(this.cap, expected + 65_536) ? "application" : undefined;
  }

  #refuse(request: IncomingMessage, response: ServerResponse): void {
    this.requests += 1;
    // nginx says 413; Tornado closes with an empty 400 while the client is still sending.
    if (this.#tooLarge(request) === "proxy")
      response.writeHead(413, { connection: "close" }).end("<html><title>413 Request Entity Too Large</title></html>");
    else response.writeHead(400, { connection: "close" }).end();
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.method === "GET") {
      this.#give(request, response);
      return;
    }
    if (this.#tooLarge(request) !== undefined) {
      this.#refuse(request, response);
      return;
    }
    this.requests += 1;
    const trick = this.tricks.shift();
    const parts: Buffer[] = [];
    let size = 0;
    try {
      for await (const part of request) {
        parts.push(part as Buffer);
        size += (part as Buffer).length;
        if (typeof trick === "object" && "cutAfter" in trick && size > trick.cutAfter) {
          request.socket.resetAndDestroy();
          return;
        }
      }
    } catch {
      return;
    }
    if (typeof trick === "object" && "status" in trick) {
      response.writeHead(trick.status, trick.headers ?? {}).end(trick.text ?? "");
      return;
    }
    const length = request.headers["content-length"];
    if (length === undefined) return void response.writeHead(411).end("Length Required");
    const form = parseForm(Buffer.concat(parts), /boundary=(.+)$/.exec(request.headers["content-type"] ?? "")?.[1] ?? "");
    const answer = this.#take(request, form);
    if (trick === "cut-answer") request.socket.resetAndDestroy();
    else if (trick !== "silent") response.writeHead(answer.status, answer.headers).end(answer.text);
  }

  #take(request: IncomingMessage, { fields, files }: Form): { status: number; headers: Record<string, string>; text: string } {
    const html = (status: number, text: string) => ({
      status,
      headers: { "content-type": "text/html" },
      text: `<html><body><h3>${text}</h3></body></html>`,
    });
    const needed = this.v2 ? [] : ["description", "email"];
    if (this.key !== undefined && request.headers.authorization !== `Bearer ${this.key}`) return html(403, "API key required");
    const file = files.get(this.v2 ? "file" : "filearg");
    if (file === undefined || needed.some((name) => fields[name] === undefined)) return html(500, "Internal Server Error");
    if (Object.values(fields).some((text) => Buffer.byteLength(text) > 10_240)) return html(400, "Field too large");
    if (!file.bytes.subarray(0, 7).equals(magic)) return html(400, "Invalid File");
    const id = randomUUID();
    this.logs.push({ id, fields, ...file });
    if (this.v2)
      return { status: 200, headers: { "content-type": "application/json" }, text: JSON.stringify({ id, delete_token: `secret-${id}` }) };
    // As the server does it: JSON that says it is text/html.
    if (fields.redirect === "false")
      return { status: 200, headers: { "content-type": "text/html" }, text: JSON.stringify({ url: `/plot_app?log=${id}` }) };
    return { status: 302, headers: { location: `/plot_app?log=${id}` }, text: "" };
  }

  #give(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? "/", this.url);
    const id = this.v2 ? url.pathname.split("/")[3] : (url.searchParams.get("log") ?? undefined);
    const log = this.logs.find((one) => one.id === id);
    if (url.pathname === "/upload" || log === undefined)
      response.writeHead(url.pathname === "/upload" ? 200 : 404).end("a double of Flight Review");
    else if (this.keeps-- > 0) response.writeHead(503).end();
    else response.writeHead(200).end(this.corrupts ? Buffer.concat([log.bytes, Buffer.from("!")]) : log.bytes);
  }
}

interface Form {
  readonly fields: Record<string, string>;
  readonly files: Map<string, { filename: string; bytes: Buffer }>;
}

/** As the server's parser does: only double-quoted parameters, and no `filename*`. */
function parseForm(body: Buffer, boundary: string): Form {
  const fields: Record<string, string> = {};
  const files = new Map<string, { filename: string; bytes: Buffer }>();
  const mark = Buffer.from(`--${boundary}`);
  for (let at = body.indexOf(mark); at !== -1;) {
    const next = body.indexOf(mark, at + mark.length);
    if (next === -1) break;
    const part = body.subarray(at + mark.length + 2, next - 2);
    const end = part.indexOf("\r\n\r\n");
    const head = part.toString("utf8", 0, end);
    const content = part.subarray(end + 4);
    const name = /; name="([^"]*)"/.exec(head)?.[1];
    const filename = /; filename="([^"]*)"/.exec(head)?.[1];
    if (name !== undefined && filename !== undefined) files.set(name, { filename, bytes: Buffer.from(content) });
    else if (name !== undefined) fields[name] = content.toString("utf8");
    at = next;
  }
  return { fields, files };
}

/** A ULog with one topic that was logged for so long; `bytes` of filling. */
export function ulog(seconds: number, bytes = 0, seed = 1): Buffer {
  const message = (type: string, ...parts: Buffer[]) => {
    const body = Buffer.concat(parts);
    const head = Buffer.alloc(3);
    head.writeUInt16LE(body.length);
    head.write(type, 2, "latin1");
    return Buffer.concat([head, body]);
  };
  const u64 = (value: number) => {
    const buffer = Buffer.alloc(8);
    buffer.writeBigUInt64LE(BigInt(Math.round(value)));
    return buffer;
  };
  const startUs = 5_000_000;
  const filling: Buffer[] = [];
  for (let left = bytes; left > 0; left -= 60_000) filling.push(message("I", Buffer.alloc(Math.min(left, 60_000), seed)));
  return Buffer.concat([
    magic,
    Buffer.from([1]),
    u64(startUs),
    message("F", Buffer.from("inner:float[3] xyz;uint8_t[2] pad;")),
    message("F", Buffer.from("attitude:inner[2] q;uint64_t timestamp;float[4] rest;")),
    message("A", Buffer.from([0, 7, 0]), Buffer.from("attitude")),
    ...filling,
    ...[0, seconds / 2, seconds].map((s) => message("D", Buffer.from([7, 0]), Buffer.alloc(28), u64(startUs + s * 1e6), Buffer.alloc(16))),
  ]);
}
