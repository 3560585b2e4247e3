/**
 * HTTP for plugins: requests over kept connections, whom to believe, time-outs, faults. A redirect is an answer like any other: a plugin that
 * followed it could be led to a portal, and its password with it.
 */
import http, { type IncomingMessage, type OutgoingHttpHeaders } from "node:http";
import https from "node:https";
import { connect as connectTcp, type Socket } from "node:net";
import { setImmediate as turn } from "node:timers/promises";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { abortedFault, codeOf, Fault, isFault, throwIfAborted } from "./errors.js";
import { certificateAt, expectPinned, hostAndPort, hostOf, netFault, type Tls, tlsOptions, tlsPieceBytes } from "./net.js";
import type { Certificate, Clock, Reading } from "./plugin.js";
import { strangerFault } from "./stranger.js";

export interface HttpOptions {
  /** http: or https: */
  readonly origin: URL;
  readonly tls: Tls;
  /** How long nothing may move, in ms. */
  readonly timeoutMs: number;
  readonly clock: Clock;
  /** With every request. */
  readonly headers?: OutgoingHttpHeaders;
  /** So many connections are kept while nothing is asked; default 4. */
  readonly kept?: number;
}

export interface Asked {
  readonly method: string;
  /** Path and query as they go out, percent-encoded. */
  readonly path: string;
  readonly headers?: OutgoingHttpHeaders;
  /**
   * A reading's length is told by a header, or it goes out in chunks. Each chunk is given back once the socket has done with it, the reading is
   * closed with the request. What it ends with is what the request ends with.
   */
  readonly body?: Reading | Buffer | string;
  /** How long the answer may take once the body has gone out, in ms, whatever moves meanwhile; default: `timeoutMs`. */
  readonly answerMs?: number;
  /** The body goes out only once the server has not refused it by the headers alone: one that is too large costs nothing then. A server that refuses to be asked so ("transient") is not from then on. */
  readonly mayBeRefused?: boolean;
  /** Opens messages: "cannot write a/b". */
  readonly what: string;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: IncomingMessage["headers"];
  /** The body, for who reads it as it comes. Read, or `text` called, or destroyed: else the connection is not used again. */
  readonly stream: IncomingMessage;
  /** At most so many bytes of it; the rest is thrown away. It has `answerMs` to come whole: one that goes on and on would be waited for as long. */
  text(most?: number): Promise<string>;
}

const mostText = 65_536;
const continueMs = 1500;
/** How long a server that is busy is left alone where it does not say. */
export const busyMs = 60_000;
/** A server that is wrong about its own time would be left alone for years. */
const longestWaitMs = 86_400_000;
/** With more than this waiting for the socket, nothing more is read. */
const queuedBytes = 2 ** 20;

export class HttpClient {
  readonly #options: HttpOptions;
  #agent: http.Agent | undefined;
  /** It refused an Expect. */
  #expectsNothing = false;
  #closed = false;

  constructor(options: HttpOptions) {
    this.#options = options;
  }

  /** Throws "offline", "denied", "transient", "config", "aborted" (`notTaken` where not all had gone out); any answer at all is an answer. */
  async request(asked: Asked, signal: AbortSignal): Promise<HttpAnswer> {
    throwIfAborted(signal);
    const { origin, clock } = this.#options;
    // A kept connection that the server closed meanwhile is no fault of anything: once more, over a new one.
    for (let [fresh, sent] = [false, false]; ; fresh = true) {
      const tried = { reached: false, reused: false, sent: false };
      try {
        return await this.#once(asked, signal, tried, fresh);
      } catch (error) {
        if (signal.aborted) throw abortedFault(signal);
        if (isFault(error)) throw error;
        sent ||= tried.sent;
        if (tried.reused && !fresh && !isReading(asked.body) && isSafe(asked.method)) continue;
        const what = `${asked.what} at ${tried.reached ? origin.host : placeOf(origin)}`;
        const stranger = tried.reused ? undefined : strangerIn(error);
        if (stranger !== undefined) throw new Fault("denied", `${what}: ${stranger.message}`, { cause: error, notTaken: true });
        const { kind, message, cause } = netFault(error, {
          what,
          clockTrusted: clock.trusted(),
          ...(tried.reached ? {} : { connecting: true, noTls }),
        });
        throw new Fault(kind, message, { cause, notTaken: !sent });
      }
    }
  }

  /** For `Device.certificate`. */
  async certificate(signal: AbortSignal): Promise<Certificate | undefined> {
    const { origin, tls, timeoutMs, clock } = this.#options;
    if (origin.protocol !== "https:") return undefined;
    try {
      return await certificateAt(hostOf(origin), portOf(origin), tls, timeoutMs, signal);
    } catch (error) {
      throw netFault(error, {
        what: `cannot look at the certificate of ${placeOf(origin)}`,
        connecting: true,
        clockTrusted: clock.trusted(),
      });
    }
  }

  close(): void {
    this.#closed = true;
    this.#agent?.destroy();
  }

  async #once(
    asked: Asked,
    signal: AbortSignal,
    tried: { reached: boolean; reused: boolean; sent: boolean },
    fresh: boolean,
  ): Promise<HttpAnswer> {
    const { origin, timeoutMs, headers } = this.#options;
    const secure = origin.protocol === "https:";
    const agent = (fresh ? undefined : this.#agent) ?? (await this.#makeAgent(!fresh));
    throwIfAborted(signal);
    if (this.#closed) throw new Fault("aborted", "closed");
    if (!fresh) this.#agent = agent;
    const { method, path, body, answerMs = timeoutMs } = asked;
    const expects = asked.mayBeRefused === true && !this.#expectsNothing;
    return new Promise((resolve, reject) => {
      const request = (secure ? https : http).request({
        hostname: hostOf(origin),
        port: portOf(origin),
        method,
        path,
        // Who is told nothing may compress (RFC 9110 §12.5.3).
        headers: { "Accept-Encoding": "identity", ...headers, ...asked.headers, ...(expects ? { Expect: "100-continue" } : {}) },
        agent,
        ofWhom: signal,
      } as http.RequestOptions);
      let answered = false;
      /** It wants no more of the body. */
      let refused = false;
      let over = false;
      /** Our own bytes are waited for. */
      let hungry = false;
      let broken: unknown;
      const fail = (error: unknown) => {
        broken ??= error;
        request.destroy(error instanceof Error ? error : new Error(String(error)));
      };
      const stop = () => fail(abortedFault(signal));
      const end = () => {
        over = true;
        signal.removeEventListener("abort", stop);
        clearTimeout(waiting);
        clearTimeout(answering);
        request.socket?.removeListener("timeout", quiet);
        if (isReading(body)) body.close();
        // The server would wait for the rest: nothing else can be asked there.
        if (!request.writableEnded) request.destroy();
      };
      /** Nothing moved for so long: no answer, unless it is our own bytes that are waited for. Then the next of them sets the time anew. */
      const quiet = () => {
        if (!hungry || request.writableLength > 0 || (request.socket?.writableLength ?? 0) > 0) fail(noAnswer());
      };
      signal.addEventListener("abort", stop, { once: true });
      request.setTimeout(timeoutMs);
      request.once("socket", (socket) => {
        socket.on("timeout", quiet);
        tried.reached = true;
        tried.reused = request.reusedSocket;
      });
      request.once("response", (message) => {
        answered = true;
        refused = (message.statusCode ?? 0) >= 400;
        clearTimeout(waiting);
        clearTimeout(answering);
        request.socket?.removeListener("timeout", quiet);
        message.once("close", end).once("error", end);
        message.setTimeout(timeoutMs, () => message.destroy(noAnswer()));
        const text = (most?: number) => textOf(message, answerMs, most);
        if (expects && message.statusCode === 417) {
          this.#expectsNothing = true;
          message.destroy();
          reject(new Fault("transient", `${asked.what} at ${origin.host}: it refuses to be asked before (417)`, { notTaken: true }));
        }
        resolve({ status: message.statusCode ?? 0, headers: message.headers, stream: message, text });
      });
      // 101: nothing more comes of the request, not even an error.
      request.once("upgrade", (message, socket) => {
        socket.destroy();
        end();
        reject(new Error(`it changes to another protocol (${message.statusCode ?? 0})`));
      });
      // After an answer, what goes wrong is told by the answer's stream.
      request.on("error", (error) => {
        end();
        if (!answered) reject(broken instanceof Error ? broken : error);
      });
      request.once("finish", () => {
        tried.sent = true;
        if (answered || over) return;
        request.setTimeout(0);
        answering = setTimeout(() => fail(noAnswer()), answerMs);
      });
      const mostBytes = secure ? tlsPieceBytes : queuedBytes;
      const pour = async (reading: Reading): Promise<void> => {
        for (let given = 0; ; given++) {
          hungry = true;
          const chunk = await reading.next();
          hungry = false;
          if (chunk !== undefined && given > 0) await lookedAround();
          if (over || refused || request.destroyed) return;
          if (chunk === undefined) break;
          for (let at = 0; at < chunk.bytes.length; at += mostBytes) {
            const isLast = at + mostBytes >= chunk.bytes.length;
            // What broke off may still be looked at: it is not given back.
            request.write(chunk.bytes.subarray(at, at + mostBytes), (error) => (error || !isLast ? undefined : chunk.release()));
            if (request.writableLength > mostBytes) await drained(request);
            if (over || refused || request.destroyed) return;
          }
        }
        request.end();
      };
      const send = () => {
        clearTimeout(waiting);
        if (!isReading(body)) request.end(body);
        else if (!answered && !over) pour(body).catch((error: unknown) => (answered ? undefined : fail(error)));
      };
      let waiting: NodeJS.Timeout | undefined;
      let answering: NodeJS.Timeout | undefined;
      if (!expects) send();
      else {
        request.flushHeaders();
        request.once("continue", send);
        // Who knows no "Expect" says nothing.
        waiting = setTimeout(send, continueMs);
      }
    });
  }

  /** Connections are made here, so that nothing is said to a server before it is known. */
  async #makeAgent(keepAlive: boolean): Promise<http.Agent> {
    const { origin, tls, timeoutMs, kept = 4 } = this.#options;
    const secure = origin.protocol === "https:";
    const host = hostOf(origin);
    const given = secure ? await tlsOptions(host, tls) : {};
    const agent = new (secure ? https : http).Agent({ keepAlive, maxFreeSockets: kept, keepAliveMsecs: 10_000 });
    const port = portOf(origin);
    agent.createConnection = (asked, done) => {
      const callback = done as ((error: Error | null, socket?: Socket) => void) | undefined;
      const socket = secure ? connectTls({ ...given, host, port, ALPNProtocols: ["http/1.1"] }) : connectTcp({ host, port, noDelay: true });
      const timer = setTimeout(() => socket.destroy(noAnswer()), timeoutMs);
      // A request that is stopped ends only once it has its socket.
      const { ofWhom } = asked as { readonly ofWhom?: AbortSignal };
      const stop = () => ofWhom !== undefined && socket.destroy(abortedFault(ofWhom));
      ofWhom?.addEventListener("abort", stop, { once: true });
      const settled = () => {
        clearTimeout(timer);
        ofWhom?.removeEventListener("abort", stop);
      };
      const fail = (error: Error) => {
        settled();
        callback?.(error);
      };
      socket.once("error", fail);
      socket.once(secure ? "secureConnect" : "connect", () => {
        settled();
        socket.off("error", fail);
        try {
          if (secure) expectPinned(socket as TLSSocket, tls);
          callback?.(null, socket);
        } catch (error) {
          socket.destroy();
          callback?.(error as Error);
        }
      });
      return undefined;
    };
    return agent;
  }
}

export function isReading(body: Asked["body"]): body is Reading {
  return typeof body === "object" && "next" in body;
}

/**
 * What had come in by now was read. A server that refuses in the middle of a body may reset the connection: a write to that fails, and what the server had
 * said is gone with the socket.
 */
async function lookedAround(): Promise<void> {
  // The end of this turn of the event loop, then of one that looks at all sockets.
  await turn();
  await turn();
}

/** All that was written went out, or nothing more does. */
function drained(request: http.ClientRequest): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      request.off("drain", done).off("close", done);
      resolve();
    };
    request.on("drain", done).on("close", done);
    if (request.destroyed) done();
  });
}

function portOf({ port, protocol }: URL): number {
  return port === "" ? (protocol === "https:" ? 443 : 80) : Number(port);
}

function placeOf(origin: URL): string {
  return hostAndPort(hostOf(origin), portOf(origin));
}

/** What came on a new connection does not begin as an answer of HTTP does: `rawPacket` of node's parser. */
function strangerIn(error: unknown): Fault | undefined {
  if (!(error instanceof Error) || !("rawPacket" in error) || !Buffer.isBuffer(error.rawPacket)) return undefined;
  const said = error.rawPacket.toString("latin1");
  return codeOf(error) !== "HPE_INVALID_CONSTANT" || said.startsWith("HTTP/")
    ? undefined
    : strangerFault(said, { kind: "web", options: '"url"' });
}

/** Of what is no TLS at all, in OpenSSL's words. */
function noTls(why: string): string {
  return /wrong version number|packet length too long|http request|record layer/i.test(why)
    ? `what answers there speaks no TLS (${why}); look at "url": its port, and whether it is "http://"`
    : `the server and this program find no TLS that both speak (${why})`;
}

/** What Apache, nginx and servers in Go say, with 400, to HTTP without TLS on a port that has it. */
export function wantsTls(status: number, text: string): boolean {
  return status === 400 && /plain HTTP (to an SSL-enabled|request was sent to HTTPS)|HTTP request to an HTTPS server/i.test(text);
}

export const wantsTlsAdvice = 'this port is for TLS; look at "url": its port, and whether it is "https://"';

function noAnswer(): Error {
  return Object.assign(new Error("no answer came"), { code: "ETIMEDOUT" });
}

function isSafe(method: string): boolean {
  return !["POST", "PATCH", "MOVE", "COPY", "LOCK"].includes(method);
}

async function textOf(message: IncomingMessage, withinMs: number, most = mostText): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  const timer = setTimeout(() => message.destroy(noAnswer()), withinMs);
  try {
    for await (const part of message) {
      if (size < most) parts.push(part as Buffer);
      size += (part as Buffer).length;
      if (size > 16 * mostText) break;
    }
  } finally {
    clearTimeout(timer);
  }
  return Buffer.concat(parts).subarray(0, most).toString("utf8");
}

/**
 * How long to wait, in ms, from Retry-After (RFC 9110 §10.2.3): seconds or a date, a day at most. Undefined where it asks for no wait: who asks again at once, over and
 * over, is held back by nothing. A date is one of the server's clock, which `Date` tells beside it: ours may be wrong, or not set.
 */
export function retryAfterMs(headers: IncomingMessage["headers"], clock: Clock): number | undefined {
  const text = headers["retry-after"] ?? "";
  const said = Date.parse(headers.date ?? "");
  const nowMs = Number.isNaN(said) && clock.trusted() ? clock.wallMs() : said;
  const ms = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - nowMs;
  return ms > 0 ? Math.min(ms, longestWaitMs) : undefined;
}
