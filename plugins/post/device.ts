/** One server that takes files by a POST, as a device. It counts as attached until core, which sees the failures, says otherwise. */
import { BehaviorSubject } from "../../core/rxjs.js";
import { Fault } from "../../core/errors.js";
import { HttpClient, wantsTls, wantsTlsAdvice } from "../../core/http.js";
import type { Certificate, Device, PluginContext, Presence } from "../../core/plugin.js";
import { Board } from "./board.js";
import type { PostOptions } from "./plugin.js";
import { PostTarget } from "./target.js";

/** Nothing tells the right server from another that answers at its address. */
function tellsNothing({ url, preset, answer }: PostOptions): boolean {
  return new URL(url).protocol === "http:" && preset === undefined && answer.contains === undefined && answer.url === undefined;
}

export class PostDevice implements Device {
  readonly presence$ = new BehaviorSubject<Presence>({ state: "attached", unasked: true });
  readonly target: PostTarget;
  readonly #client: HttpClient;
  readonly #options: PostOptions;

  constructor(options: PostOptions, context: PluginContext) {
    this.#options = options;
    const { tls, timeout } = options;
    this.#client = new HttpClient({ origin: new URL(options.url), tls, timeoutMs: timeout, clock: context.clock });
    const board = new Board(
      `Posted by ${context.vehicle} to ${context.name}`,
      context.stateDir,
      (text) => context.say("warn", text),
      options.index,
    );
    // A portal cannot speak for a server with a certificate.
    if (tellsNothing(options))
      context.say(
        "warn",
        `any server's 200 counts as posted, also a portal's: say by "answer" what the right one answers ("contains", "url"), or use https://`,
      );
    this.target = new PostTarget(options, this.#client, board, context);
  }

  /** Whether something answers there. What it would say to a file only a file tells. */
  async probe(signal: AbortSignal): Promise<void> {
    const { pathname, host } = new URL(this.#options.url);
    const answer = await this.#client.request({ method: "GET", path: pathname, what: "cannot ask" }, signal);
    const { status, headers } = answer;
    const text = status === 400 ? await answer.text().catch(() => "") : "";
    answer.stream.destroy();
    if (wantsTls(status, text)) throw new Fault("denied", `${host} answers 400: ${wantsTlsAdvice}`);
    if (status >= 500) throw new Fault("transient", `${host} answers ${status}`);
    const to = headers.location;
    if (status >= 300 && status < 400 && to !== undefined && URL.canParse(to, this.#options.url)) {
      const other = new URL(to, this.#options.url).host;
      if (other !== host) throw new Fault("offline", `${host} leads to ${other}: a portal before it, or another "url" is meant`);
    }
  }

  certificate(signal: AbortSignal): Promise<Certificate | undefined> {
    return this.#client.certificate(signal);
  }

  close(): Promise<void> {
    this.#client.close();
    this.presence$.complete();
    return Promise.resolve();
  }
}
