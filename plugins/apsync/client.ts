/** The registry as a vehicle sees it: signed requests over HTTP, and what its answers mean for core. */
import * as v from "valibot";
import { Fault, type FaultKind, isFault } from "../../core/errors.js";
import { HttpClient, type HttpAnswer } from "../../core/http.js";
import type { Clock } from "../../core/plugin.js";
import * as wire from "../registry/wire.js";
import type { Signer } from "./key.js";

export interface ClientOptions {
  /** "https://ground.example.org:8443". */
  readonly url: string;
  readonly tls: { readonly fingerprint?: string | undefined; readonly ca?: string | undefined };
  readonly timeout: number;
  /** The registry that is meant; undefined: the one that answers, learned at the first question. */
  readonly station?: string | undefined;
  /** With each request. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** What the registry refused. */
export class Problem extends Fault {
  constructor(
    kind: FaultKind,
    readonly code: string,
    message: string,
    retryAfterMs?: number,
  ) {
    super(kind, message, retryAfterMs === undefined ? {} : { retryAfterMs });
  }
}

const kinds: Readonly<Record<wire.ProblemCode, FaultKind>> = {
  "bad-request": "rejected",
  challenge: "transient",
  signature: "denied",
  "unknown-key": "denied",
  revoked: "denied",
  "not-found": "transient",
  "name-taken": "rejected",
  "key-taken": "rejected",
  "slot-busy": "throttled",
  "slot-closed": "transient",
  quota: "full",
  full: "full",
  "too-many": "throttled",
  expired: "rejected",
  gone: "rejected",
  internal: "transient",
};

/** What its owner does, beside what the station says. */
const ways: Partial<Record<wire.ProblemCode, string>> = {
  "unknown-key":
    '. It was taken away there, or its registry was lost: "filesync register", as at the first time, registers it anew; its device and routes stay',
  revoked: '. "filesync register --renew", with --email ADDRESS and --vehicle NAME as at the first time, asks its owner for a new key',
};

/** A challenge may be worthless at once: the registry was started anew. */
const mostChallenges = 3;
const mostAnswer = 1024 * 1024;
const longestEvent = 64 * 1024;

interface Question<T> {
  readonly method: string;
  readonly path: string;
  /** Or what makes it, once the challenge is known. */
  readonly body?: object | ((challenge: string) => object);
  readonly what: string;
  readonly answer: v.GenericSchema<unknown, T>;
}

export class RegistryClient {
  readonly #options: ClientOptions;
  readonly #http: HttpClient;
  readonly #signer: () => Promise<Signer>;
  /** Challenges that came with answers, and are not used. */
  readonly #challenges: string[] = [];
  #about: wire.Station | undefined;

  /** `signer` is asked each time: a key may be made later. */
  constructor(options: ClientOptions, clock: Clock, signer: () => Promise<Signer>) {
    this.#options = options;
    this.#http = new HttpClient({
      origin: new URL(options.url),
      tls: options.tls,
      timeoutMs: options.timeout,
      clock,
      headers: options.headers ?? {},
    });
    this.#signer = signer;
  }

  /** Which registry this is; looked at once. Throws "denied" where another is meant, "config" where it is none. */
  async station(signal: AbortSignal): Promise<string> {
    return (await this.about(signal)).station;
  }

  /** All that it tells of itself; throws the same. */
  async about(signal: AbortSignal): Promise<wire.Station> {
    if (this.#about !== undefined) return this.#about;
    const answer = await this.#http.request({ method: "GET", path: wire.paths.station, what: "cannot ask the registry" }, signal);
    const found = v.safeParse(wire.station, await jsonOf(answer));
    if (!found.success)
      throw new Fault(
        answer.status >= 500 ? "transient" : "config",
        `${this.#options.url} is no registry of FileSync (it answers ${answer.status}${/html/.test(answer.headers["content-type"] ?? "") ? " with a page: a portal may be in between" : ""})`,
      );
    const { station } = found.output;
    const meant = this.#options.station;
    if (meant !== undefined && meant !== station)
      throw new Fault("denied", `another registry answers at ${this.#options.url}: register the vehicle there anew`);
    return (this.#about = found.output);
  }

  async register(asked: Omit<wire.Register, "publicKey">, signal: AbortSignal): Promise<wire.Registration> {
    const { publicKey } = await this.#signer();
    return this.#ask(
      { method: "POST", path: wire.paths.register, body: { ...asked, publicKey }, what: "cannot register", answer: wire.registration },
      signal,
    );
  }

  registration(id: string, signal: AbortSignal): Promise<wire.Registration> {
    return this.#ask(
      { method: "GET", path: wire.paths.registration(id), what: "cannot ask for the registration", answer: wire.registration },
      signal,
    );
  }

  /** Each state of a registration as it comes; ends with the connection. */
  async *watch(id: string, signal: AbortSignal): AsyncGenerator<wire.Registration> {
    const answer = await this.#signed("GET", wire.paths.events(id), undefined, "cannot watch the registration", signal);
    if (answer.status !== 200) await refuse(answer, "cannot watch the registration");
    const stop = () => answer.stream.destroy();
    signal.addEventListener("abort", stop, { once: true });
    try {
      let text = "";
      for await (const chunk of answer.stream) {
        text += String(chunk).replaceAll("\r", "");
        const blocks = text.split("\n\n");
        text = blocks.pop() ?? "";
        if (text.length > longestEvent) return;
        for (const block of blocks) {
          const data = block
            .split("\n")
            .flatMap((line) => (line.startsWith("data:") ? [line.slice(5).trimStart()] : []))
            .join("\n");
          const parsed = v.safeParse(wire.registration, data === "" ? undefined : tryJson(data));
          if (parsed.success) yield parsed.output;
        }
      }
    } catch (error) {
      if (signal.aborted || !isFault(error)) return;
      throw error;
    } finally {
      signal.removeEventListener("abort", stop);
      answer.stream.destroy();
    }
  }

  /** From then on the vehicle has this key, and no other. */
  async rotate(next: Signer, signal: AbortSignal): Promise<void> {
    const station = await this.station(signal);
    const path = wire.paths.key;
    const body = (challenge: string) => {
      const text = wire.signedText({ station, method: "POST", path, body: new Uint8Array(), challenge });
      return { publicKey: next.publicKey, signature: next.sign(text) };
    };
    await this.#ask({ method: "POST", path, body, what: "cannot change the key", answer: v.object({ fingerprint: v.string() }) }, signal);
  }

  vehicle(signal: AbortSignal): Promise<wire.VehicleNow> {
    return this.#ask({ method: "GET", path: wire.paths.vehicle, what: "cannot ask for the vehicle", answer: wire.vehicleNow }, signal);
  }

  /** A new password at the station's FTP server; the one before ends. */
  ftpPassword(signal: AbortSignal): Promise<wire.FtpAccess> {
    const what = "cannot get a password for FTP";
    return this.#ask({ method: "POST", path: wire.paths.ftpPassword, body: {}, what, answer: wire.ftpAccess }, signal);
  }

  slot(body: wire.AskSlot, signal: AbortSignal): Promise<wire.Slot> {
    return this.#ask({ method: "POST", path: wire.paths.slots, body, what: "cannot get a slot", answer: wire.slot }, signal);
  }

  announce(slot: string, { partial, path, size }: v.InferOutput<typeof wire.announce>, signal: AbortSignal): Promise<wire.Held> {
    const file = { partial, path, size };
    return this.#ask(
      { method: "POST", path: wire.paths.files(slot), body: file, what: `cannot send ${file.path}`, answer: wire.held },
      signal,
    );
  }

  async discard(slot: string, partial: string, signal: AbortSignal): Promise<void> {
    const query = `?partial=${encodeURIComponent(partial)}`;
    await this.#ask(
      { method: "DELETE", path: `${wire.paths.files(slot)}${query}`, what: "cannot discard a partial", answer: v.object({}) },
      signal,
    );
  }

  commit(slot: string, files: wire.Commit["files"], signal: AbortSignal): Promise<wire.Committed> {
    return this.#ask(
      { method: "POST", path: wire.paths.commit(slot), body: { files }, what: "cannot commit", answer: wire.committed },
      signal,
    );
  }

  certificate(signal: AbortSignal) {
    return this.#http.certificate(signal);
  }

  close(): void {
    this.#http.close();
  }

  /** Throws Problem for what the registry refuses, and what `HttpClient.request` throws. */
  async #ask<T>({ method, path, body, what, answer: schema }: Question<T>, signal: AbortSignal): Promise<T> {
    const answer = await this.#signed(method, path, body, what, signal);
    if (answer.status >= 300) await refuse(answer, what);
    const parsed = v.safeParse(schema, await jsonOf(answer));
    if (parsed.success) return parsed.output;
    throw new Fault("transient", `${what}: the registry's answer is none that is known (${v.getDotPath(parsed.issues[0]) ?? "no JSON"})`);
  }

  async #signed(method: string, path: string, given: Question<unknown>["body"], what: string, signal: AbortSignal): Promise<HttpAnswer> {
    const station = await this.station(signal);
    const signer = await this.#signer();
    for (let n = 1; ; n++) {
      const challenge = this.#challenges.pop() ?? (await this.#challenge(signal));
      const body = Buffer.from(given === undefined ? "" : JSON.stringify(typeof given === "function" ? given(challenge) : given));
      const signature = signer.sign(wire.signedText({ station, method, path, body, challenge }));
      const headers = {
        Authorization: `FileSync key="${signer.fingerprint}", challenge="${challenge}", signature="${signature}"`,
        ...(given === undefined ? {} : { "Content-Type": "application/json", "Content-Length": body.length }),
      };
      const answer = await this.#http.request({ method, path, headers, what, ...(given === undefined ? {} : { body }) }, signal);
      const next = answer.headers[wire.challengeHeader];
      if (typeof next === "string") this.#challenges.push(next);
      if (answer.status !== 401 || n === mostChallenges) return answer;
      const text = await answer.text();
      const problem = v.safeParse(wire.problem, tryJson(text));
      if (problem.success && problem.output.error !== "challenge") throw problemOf(problem.output, what, answer);
      this.#challenges.length = 0;
    }
  }

  async #challenge(signal: AbortSignal): Promise<string> {
    const what = "cannot ask the registry";
    const answer = await this.#http.request({ method: "GET", path: wire.paths.challenge, what }, signal);
    if (answer.status !== 200) await refuse(answer, what);
    const parsed = v.safeParse(v.object({ challenge: v.string() }), await jsonOf(answer));
    if (!parsed.success) throw new Fault("transient", `${what}: it gave no challenge`);
    return parsed.output.challenge;
  }
}

async function refuse(answer: HttpAnswer, what: string): Promise<never> {
  const problem = v.safeParse(wire.problem, await jsonOf(answer));
  if (problem.success) throw problemOf(problem.output, what, answer);
  throw new Fault("transient", `${what}: the server answers ${answer.status}`);
}

function problemOf({ error, message }: v.InferOutput<typeof wire.problem>, what: string, { headers }: HttpAnswer): Problem {
  const seconds = Number(headers["retry-after"]);
  const kind = Object.hasOwn(kinds, error) ? kinds[error as wire.ProblemCode] : "transient";
  const way = Object.hasOwn(ways, error) ? ways[error as wire.ProblemCode] : undefined;
  return new Problem(
    kind,
    error,
    `${what}: ${message}${way ?? ""}`,
    Number.isFinite(seconds) && kind === "throttled" ? seconds * 1000 : undefined,
  );
}

async function jsonOf(answer: HttpAnswer): Promise<unknown> {
  return tryJson(await answer.text(mostAnswer));
}

function tryJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Whoever asked says what it should have been.
    return undefined;
  }
}
