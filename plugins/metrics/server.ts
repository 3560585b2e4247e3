/** GET /metrics and GET /health, nothing else. Slow clients are closed, many are refused, and all of them together ask core at most once a second. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { monitorEventLoopDelay, type IntervalHistogram } from "node:perf_hooks";
import { BehaviorSubject } from "../../core/rxjs.js";
import { Fault, throwIfAborted } from "../../core/errors.js";
import { hostAndPort, listening } from "../../core/net.js";
import type { Figures, PluginContext, Presence, Service } from "../../core/plugin.js";
import type { MetricsOptions } from "./plugin.js";
import { contentType, metricsText, type Process } from "./text.js";

const mostConnections = 16;
const clientMs = 10_000;
/** So often it is looked whether the event loop is late: each look wakes the processor. */
const lagEveryMs = 100;
/** Figures this young are given again. */
const youngMs = 1000;
/** A medium that does not answer for so long is not well. */
const patienceMs = 5000;

export class MetricsServer implements Service {
  readonly presence$ = new BehaviorSubject<Presence>({ state: "detached", reason: "the metrics are not served yet" });
  #server: Server | undefined;
  #closed = false;
  #lag: IntervalHistogram | undefined;
  #asked: { readonly atMs: number; readonly figures: Promise<Figures>; readonly answered: boolean } | undefined;

  constructor(
    readonly options: MetricsOptions,
    readonly context: PluginContext,
  ) {}

  /** The port that it listens on; undefined before `start` and after `close`. */
  get port(): number | undefined {
    return (this.#server?.address() as AddressInfo | null | undefined)?.port;
  }

  async start(signal: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    if (this.#closed) throw new Fault("aborted", "it was closed");
    if (this.#server !== undefined) return;
    const server = createServer(
      {
        headersTimeout: clientMs,
        requestTimeout: clientMs,
        keepAliveTimeout: clientMs,
        connectionsCheckingInterval: 1000,
        maxHeaderSize: 8192,
      },
      (request, response) => void this.#answer(request, response),
    );
    server.maxConnections = mostConnections;
    // Also one that does not read its answer.
    server.setTimeout(clientMs, (socket) => socket.destroy());
    await listening(server, this.options.listen);
    server.on("error", (error) => this.context.say("error", `the port of the metrics: ${error.message}`));
    this.#server = server;
    this.#lag = monitorEventLoopDelay({ resolution: lagEveryMs });
    this.#lag.enable();
    const { host } = this.options.listen;
    const place = hostAndPort(host, this.port ?? 0);
    this.context.say("info", `metrics at http://${place}/metrics, health at http://${place}/health`, { host, port: this.port });
    this.presence$.next({ state: "attached", epoch: `listening-${this.port ?? 0}` });
  }

  async probeStart(signal: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    const server = createServer();
    await listening(server, this.options.listen);
    await new Promise<void>((resolve) => server.close(() => resolve()));
  }

  probe(signal: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    return this.#server === undefined ? Promise.reject(new Fault("offline", "the metrics are not served")) : Promise.resolve();
  }

  async close(): Promise<void> {
    this.#closed = true;
    const server = this.#server;
    this.#server = undefined;
    this.#lag?.disable();
    if (server !== undefined) {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    }
    this.presence$.complete();
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const end = (code: number, type: string, body: string, more: Readonly<Record<string, string>> = {}) => {
      response.writeHead(code, { "Content-Type": type, "Content-Length": Buffer.byteLength(body), "Cache-Control": "no-store", ...more });
      response.end(body);
    };
    const plain = "text/plain; charset=utf-8";
    const path = (request.url ?? "").split("?")[0];
    // What comes with it is not read: the connection ends with the answer.
    if (path !== "/metrics" && path !== "/health") end(404, plain, "there are /metrics and /health\n", { Connection: "close" });
    else if (request.method !== "GET") end(405, plain, "only GET\n", { Allow: "GET", Connection: "close" });
    else
      try {
        const figures = await this.#figures();
        if (path === "/metrics") end(200, contentType, metricsText(figures, this.#process()));
        else end(200, "application/json", `${JSON.stringify({ ready: true, summary: figures.summary })}\n`);
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        if (path === "/metrics") end(503, plain, `${reason}\n`);
        else end(503, "application/json", `${JSON.stringify({ ready: false, reason })}\n`);
      }
  }

  /** One question for all who ask within a second, or while it is not answered. */
  async #figures(): Promise<Figures> {
    const { clock, figures } = this.context;
    if (figures === undefined) throw new Fault("offline", "no daemon runs");
    const nowMs = clock.monotonicMs();
    if (this.#asked === undefined || (this.#asked.answered && nowMs - this.#asked.atMs >= youngMs)) {
      const asked = { atMs: nowMs, figures: figures(), answered: false };
      const answer = () => (asked.answered = true);
      asked.figures.then(answer, answer);
      this.#asked = asked;
    }
    const { figures: answer } = this.#asked;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const why = `the state directory has not answered for ${patienceMs / 1000} s: its medium is slow, or fails`;
      timer = setTimeout(() => reject(new Fault("transient", why)), patienceMs);
    });
    try {
      return await Promise.race([answer, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  #process(): Process {
    const lag = this.#lag;
    const { user, system } = process.cpuUsage();
    // What is measured is the time between two looks. Of nothing measured yet a histogram says NaN.
    const seconds = (nanoseconds: number) => (lag !== undefined && lag.count > 0 ? Math.max(0, nanoseconds / 1e9 - lagEveryMs / 1000) : 0);
    const lagSeconds = {
      p50: seconds(lag?.percentile(50) ?? 0),
      p99: seconds(lag?.percentile(99) ?? 0),
      max: seconds(lag?.max ?? 0),
    };
    lag?.reset();
    return {
      residentBytes: process.memoryUsage.rss(),
      cpuSeconds: (user + system) / 1e6,
      startSeconds: performance.timeOrigin / 1000,
      lagSeconds,
    };
  }
}
