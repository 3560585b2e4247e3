/**
 * One WebDAV server: requests with its login, what is at a path, directories. That it is a WebDAV server shows in its answers to PROPFIND, so
 * whatever a 2xx to another method said, `look` decides.
 */
import { abortedFault, Fault, isFault } from "../../core/errors.js";
import { HttpClient, isReading, type Asked, type HttpAnswer } from "../../core/http.js";
import { netFault } from "../../core/net.js";
import { parentOf } from "../../core/paths.js";
import type { Certificate, Clock, PluginContext } from "../../core/plugin.js";
import { KnownDirs } from "../../core/remote.js";
import { Turns } from "../../core/turns.js";
import { refusal, type Refused, schemeWanted, statusIn, statusOf } from "./answers.js";
import { hrefOf, partsOf } from "./hrefs.js";
import { NoMultistatus, readMultistatus, type DavResponse } from "./multistatus.js";
import type { WebdavOptions } from "./options.js";

/** What is at a path. */
export interface Seen {
  readonly collection: boolean;
  readonly size: number;
  readonly modifiedMs: number | undefined;
}

export interface Question extends Omit<Asked, "what" | "path" | "answerMs"> {
  /** Encoded, from the root of the host. */
  readonly at: string;
  readonly what: string;
  /** The answer may take as long as a whole file takes the server. */
  readonly slow?: boolean;
}

/**
 * So long is waited, in ms, before what is locked (423, RFC 4918 §11.3) is asked again: `rclone serve webdav` locks a path for as long as it is at work on
 * a request, also on one whose connection broke off.
 */
export const lockedMs: readonly number[] = [50, 100, 200, 400, 800];

const props = '<?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:"><prop>@</prop></propfind>';
const fileProps = props.replace("@", "<resourcetype/><getcontentlength/><getlastmodified/>");
const quotaProps = props.replace("@", "<quota-available-bytes/>");
const principalProps = props.replace("@", "<current-user-principal/>");

const withScheme = (address: string, scheme: string): string => address.replace(/^https?:/, scheme);

const advice = 'see whether another "url" or "root" is meant';

export class DavServer {
  readonly url: URL;
  readonly clock: Clock;
  /** Where files are, encoded, without "/" at its end; the root is below it. */
  files: string;
  readonly #options: WebdavOptions;
  readonly #client: HttpClient;
  /** Files go out as many at once as the options say; a question waits for none of them. */
  readonly #bodies: Turns;
  readonly #questions: Turns;
  readonly #root: string;
  readonly #dirs = new KnownDirs();
  #ahead: number | undefined;
  /** With which other places are named there. */
  #scheme: string;

  constructor(options: WebdavOptions, { clock }: Pick<PluginContext, "clock">) {
    this.#options = options;
    this.url = new URL(options.url);
    this.#scheme = this.url.protocol;
    this.files = this.url.pathname.replace(/\/+$/, "");
    this.#root = options.root;
    this.clock = clock;
    const { user, password, timeout, tls, concurrency } = options;
    const login = user === undefined ? undefined : Buffer.from(`${user}:${password?.reveal() ?? ""}`).toString("base64");
    const headers = { "User-Agent": "filesync", ...(login === undefined ? {} : { Authorization: `Basic ${login}` }) };
    this.#client = new HttpClient({ origin: this.url, tls, timeoutMs: timeout, clock, headers, kept: 3 * concurrency });
    this.#bodies = new Turns(concurrency);
    this.#questions = new Turns(2 * concurrency);
  }

  /** A path of core, encoded, from the root of the host. Throws "rejected" for one that leaves the device's root. */
  at(path: string): string {
    return `${this.files}${hrefOf(this.#root)}${hrefOf(path)}`;
  }

  /** The server's own time, in ms since 1970; undefined where it does not say it: one without a clock must not (RFC 9110 §6.6.1). */
  now(): number | undefined {
    return this.#ahead === undefined ? undefined : this.clock.monotonicMs() + this.#ahead;
  }

  /** Any answer is one; its body is the caller's. */
  async ask(question: Question, signal: AbortSignal): Promise<HttpAnswer> {
    const answer = await this.#askAt(question, signal);
    const { method, at } = question;
    // Apache's mod_dir wants a directory to be named with "/" at its end. A file is never to be read or written there.
    if (method === "GET" || method === "PUT" || !this.#wantsSlash(answer, at)) return answer;
    await this.reading(question.what, signal, () => answer.text());
    return this.#askAt({ ...question, at: `${at}/` }, signal);
  }

  #wantsSlash({ status, headers: { location = "" } }: HttpAnswer, at: string): boolean {
    if (status < 300 || status >= 400 || at.endsWith("/") || !URL.canParse(location, this.url.href)) return false;
    const { hostname, pathname } = new URL(location, this.url);
    return hostname === this.url.hostname && pathname.endsWith("/") && partsOf(pathname).join("/") === partsOf(at).join("/");
  }

  async #askAt({ at, slow, ...asked }: Question, signal: AbortSignal): Promise<HttpAnswer> {
    const answerMs = slow === true ? { answerMs: this.#options.answerTimeout } : {};
    const turns = isReading(asked.body) ? this.#bodies : this.#questions;
    const answer = await turns.run(signal, () => this.#client.request({ ...asked, path: at === "" ? "/" : at, ...answerMs }, signal));
    const date = Date.parse(answer.headers.date ?? "");
    this.#ahead = Number.isNaN(date) ? undefined : date - this.clock.monotonicMs();
    return answer;
  }

  /** Asks, and reads what it says, at most 64 KiB of it. */
  async said(question: Question, signal: AbortSignal): Promise<Refused> {
    const said = await this.#saidOnce(question, signal);
    const headers = question.headers;
    const scheme = schemeWanted(said);
    if (scheme === undefined || typeof headers?.Destination !== "string" || headers.Destination.startsWith(scheme)) return said;
    this.#scheme = scheme;
    return this.#saidOnce({ ...question, headers: { ...headers, Destination: withScheme(headers.Destination, scheme) } }, signal);
  }

  async #saidOnce(question: Question, signal: AbortSignal): Promise<Refused> {
    const answer = await this.ask(question, signal);
    const text = await this.#words(answer, question.what, signal);
    const status = answer.status === 207 ? (statusIn(text) ?? 207) : answer.status;
    return { status, headers: answer.headers, text };
  }

  /** A refusal needs none: a server that does not want the rest of a body may break off behind it. */
  #words(answer: HttpAnswer, what: string, signal: AbortSignal): Promise<string> {
    return this.reading(what, signal, () =>
      answer.text().catch((error: unknown) => {
        if (answer.status < 400 || signal.aborted) throw error;
        return "";
      }),
    );
  }

  /** Throws what a refusal means; `good` are the answers that say yes. */
  async must(question: Question, signal: AbortSignal, good: readonly number[]): Promise<Refused> {
    const said = await this.said(question, signal);
    if (!good.includes(said.status)) throw this.refusal(said, question.what);
    return said;
  }

  refusal(refused: Refused, what: string, looks = false): Fault {
    return refusal(refused, { what, url: this.url, clock: this.clock, looks });
  }

  /** What goes wrong while an answer's body is read. */
  async reading<T>(what: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw this.broken(error, what, signal);
    }
  }

  broken(error: unknown, what: string, signal: AbortSignal): Fault {
    if (signal.aborted) return abortedFault(signal);
    return netFault(error, { what: `${what} at ${this.url.host}`, clockTrusted: this.clock.trusted() });
  }

  /** What is at an encoded path; undefined when nothing is. */
  async look(at: string, signal: AbortSignal, what = "cannot look"): Promise<Seen | undefined> {
    const found: DavResponse[] = [];
    try {
      for await (const response of this.propfind(at, 0, what, signal)) found.push(response);
    } catch (error) {
      if (isFault(error, "missing")) return undefined;
      // Apache says 400 of a name below a file.
      if (isFault(error, "rejected") && (await this.#isBelowFile(at, what, signal))) return undefined;
      throw error;
    }
    const [first] = found;
    if (first === undefined) throw new Fault("transient", `${what}: ${this.url.host} answers nothing about ${at}`);
    const { collection, size = 0, modifiedMs, status } = first;
    if (status === 404 || status === 410) return undefined;
    this.#expectTold(status, what);
    return { collection, size, modifiedMs };
  }

  /** A list may say of what was asked for itself that it was refused. */
  #expectTold(status: number | undefined, what: string): void {
    if (status === undefined || status < 400) return;
    const fault = this.refusal({ status, headers: {}, text: "" }, what, true);
    throw fault.kind === "full" ? new Fault("transient", fault.message, { cause: fault }) : fault;
  }

  async #isBelowFile(at: string, what: string, signal: AbortSignal): Promise<boolean> {
    const above = at.replace(/\/+$/, "").replace(/\/[^/]*$/, "");
    if (above.length <= this.files.length) return false;
    const there = await this.look(above, signal, what);
    return there === undefined ? this.#isBelowFile(above, what, signal) : !there.collection;
  }

  /** Bytes that may still be put there (RFC 4331); undefined where the server does not tell, or knows no bound. */
  async room(signal: AbortSignal): Promise<number | undefined> {
    const what = "cannot ask for the free space";
    for (const at of this.#rootAndAbove()) {
      try {
        for await (const { available } of this.propfind(`${at}/`, 0, what, signal, quotaProps)) return available;
      } catch (error) {
        if (this.#isAboveUrl(at) && isFault(error, "denied")) return undefined;
        // The root is made by the first upload.
        if (!isFault(error, "missing")) throw error;
      }
    }
    return undefined;
  }

  /** A root that is not there yet is made by the first upload; but something above it must say that it is WebDAV. Throws "denied". */
  async expectRoot(signal: AbortSignal): Promise<void> {
    const what = "cannot use the root";
    const none = `${what}: there is no directory at ${this.url.origin}${this.files}/`;
    for (const at of this.#rootAndAbove()) {
      const seen = await this.look(`${at}/`, signal, what).catch((error: unknown) => {
        if (!this.#isAboveUrl(at) || !isFault(error, "denied")) throw error;
        throw new Fault("denied", `${none}, and above it ${error.message.slice(`${what}: `.length)}: make it there, or ${advice}`, {
          cause: error,
        });
      });
      if (seen?.collection === true) return;
      if (seen !== undefined) throw new Fault("denied", `${what}: ${this.url.origin}${at} is a file`);
    }
    throw new Fault("denied", `${none}, nor above it: ${advice}`);
  }

  /** Encoded, without "/" at the end, up to the host. */
  *#rootAndAbove(): Generator<string> {
    for (let at = this.at(""); ; at = parentOf(at)) {
      yield at;
      if (at === "") return;
    }
  }

  #isAboveUrl(at: string): boolean {
    return at.length < this.files.length;
  }

  /** For `Device.certificate`. */
  certificate(signal: AbortSignal): Promise<Certificate | undefined> {
    return this.#client.certificate(signal);
  }

  /** What is in an encoded directory, by the last part of its href. Throws "missing". */
  async *children(at: string, what: string, signal: AbortSignal): AsyncGenerator<DavResponse & { readonly part: string }> {
    const own = partsOf(at);
    let itself = false;
    let elsewhere: string | undefined;
    for await (const response of this.propfind(`${at}/`, 1, what, signal)) {
      const parts = partsOf(response.href);
      const part = parts.at(-1);
      if (!own.every((it, i) => it === parts[i])) {
        if (!parts.every((it, i) => it === own[i])) elsewhere ??= response.href;
      } else if (parts.length === own.length) {
        this.#expectTold(response.status, what);
        if (!response.collection) throw new Fault("denied", `${what}: ${this.url.host} does not say that it is a directory`);
        itself = true;
      } else if (parts.length === own.length + 1 && part !== undefined) yield { ...response, part };
    }
    // What it calls by other names would count as gone.
    if (!itself || elsewhere !== undefined)
      throw new Fault(
        "denied",
        `${what}: ${this.url.host} answers with other addresses than ${at}/${elsewhere === undefined ? "" : ` (${elsewhere.slice(0, 100)})`}: set "url" to the one that the server itself uses`,
      );
  }

  /** The user's own principal, as Nextcloud has it: ".../principals/users/ID/". */
  async principal(at: string, signal: AbortSignal): Promise<string | undefined> {
    let found: string | undefined;
    for await (const { principal } of this.propfind(at, 0, "cannot ask for the user", signal, principalProps)) found ??= principal;
    return found;
  }

  async *propfind(at: string, depth: 0 | 1, what: string, signal: AbortSignal, body = fileProps): AsyncGenerator<DavResponse> {
    const headers = { Depth: String(depth), "Content-Type": "application/xml; charset=utf-8", "Content-Length": Buffer.byteLength(body) };
    const answer = await this.ask({ method: "PROPFIND", at, what, headers, body }, signal);
    if (answer.status !== 207) {
      const text = await this.#words(answer, what, signal);
      throw this.refusal({ status: answer.status, headers: answer.headers, text }, what, depth === 0);
    }
    try {
      yield* readMultistatus(answer.stream);
    } catch (error) {
      if (error instanceof NoMultistatus)
        throw new Fault("transient", `${what}: what ${this.url.host} answers is no list of WebDAV: ${error.message}`, { cause: error });
      throw this.broken(error, what, signal);
    } finally {
      if (!answer.stream.readableEnded) answer.stream.destroy();
    }
  }

  /** Makes the directory of a path with its parents, also the root and what is missing of the path of "url". True where that was not known to be there, and had to be asked. */
  async ensureDirOf(path: string, signal: AbortSignal): Promise<boolean> {
    return this.ensureDir(parentOf(path), signal);
  }

  async ensureDir(dir: string, signal: AbortSignal): Promise<boolean> {
    return this.makeDir(this.at(dir), signal);
  }

  /** An encoded path. */
  async makeDir(at: string, signal: AbortSignal): Promise<boolean> {
    if (at === "" || this.#dirs.has(at)) return false;
    const what = `cannot make the directory ${decodeURI(at.replace(/%(?![0-7])/g, "%25"))}`;
    // Where none of these can be, no file goes: that is not a word about one of them.
    const isRoots = at.length <= this.at("").length;
    const there = await this.look(`${at}/`, signal, what).catch((error: unknown) => {
      // Above its own directory a user may be shown nothing: what the one below it is answered says more.
      if (this.#isAboveUrl(at) && isFault(error, "denied")) return { collection: true };
      // Nor does Apache show one that holds an "index.html" (mod_dir); what is put there is taken.
      if (!isRoots && statusOf(error) === 405) return { collection: true };
      throw error;
    });
    if (there === undefined) {
      await this.makeDir(parentOf(at), signal);
      // Another client may have made it in between.
      if (isRoots) await this.#makeRoots(at, what, signal);
      else await this.makeNew(at, what, signal);
    } else if (!there.collection) throw new Fault(isRoots ? "denied" : "rejected", `${what}: a file has this name`);
    this.#dirs.add(at);
    return true;
  }

  /** The root, or one above it. What says that there is no WebDAV to make it in is "denied". */
  async #makeRoots(at: string, what: string, signal: AbortSignal): Promise<void> {
    const said = await this.said({ method: "MKCOL", at: `${at}/`, what }, signal);
    if (said.status === 201 || (await this.look(`${at}/`, signal, what)) !== undefined) return;
    this.forgetDirs();
    const fault = this.refusal(said, what);
    if (![400, 403, 404, 405, 409, 410, 501].includes(said.status)) throw fault;
    throw new Fault("denied", `${fault.message}: make it there, or ${advice}`, { cause: fault });
  }

  /** An encoded path whose parent is there: true where this made it, false where something has that name. */
  async makeNew(at: string, what: string, signal: AbortSignal): Promise<boolean> {
    const said = await this.said({ method: "MKCOL", at: `${at}/`, what }, signal);
    if (said.status === 201) return true;
    // RFC 4918 §9.3.1 has 405 for a name that is taken; some servers say it in another way.
    if (said.status === 405 || (await this.look(at, signal, what)) !== undefined) return false;
    this.forgetDirs();
    throw this.refusal(said, what);
  }

  /** Somebody may have removed what we know: the next try looks again. */
  forgetDirs(): void {
    this.#dirs.clear();
  }

  /** A whole file, into `take`. */
  async get(at: string, what: string, signal: AbortSignal, take: (bytes: Buffer) => void): Promise<void> {
    const answer = await this.ask({ method: "GET", at, what, headers: { "Accept-Encoding": "identity" } }, signal);
    await this.reading(what, signal, async () => {
      if (answer.status !== 200) throw this.refusal({ ...answer, text: await answer.text() }, what);
      for await (const chunk of answer.stream) take(chunk as Buffer);
    });
  }

  /** Some bytes of a file; undefined where the server gives no part, or another. */
  async part(at: string, from: number, end: number, what: string, signal: AbortSignal): Promise<Buffer | undefined> {
    const headers = { "Accept-Encoding": "identity", Range: `bytes=${from}-${end - 1}` };
    const answer = await this.ask({ method: "GET", at, what, headers }, signal);
    if (answer.status !== 206 || !String(answer.headers["content-range"]).startsWith(`bytes ${from}-${end - 1}/`)) {
      answer.stream.destroy();
      return undefined;
    }
    const parts: Buffer[] = [];
    await this.reading(what, signal, async () => {
      for await (const chunk of answer.stream) parts.push(chunk as Buffer);
    });
    const bytes = Buffer.concat(parts);
    return bytes.length === end - from ? bytes : undefined;
  }

  async delete(at: string, what: string, signal: AbortSignal): Promise<void> {
    const question = { method: "DELETE", at, what };
    for (const waitMs of lockedMs) {
      const said = await this.said(question, signal);
      if ([200, 202, 204, 404].includes(said.status)) return;
      // Where a directory above is a file Apache says 400, and nginx 409: nothing is there.
      if ([400, 409].includes(said.status) && (await this.look(at, signal, what)) === undefined) return;
      if (said.status !== 423) throw this.refusal(said, what);
      await this.clock.sleep(waitMs, signal);
    }
    await this.must(question, signal, [200, 202, 204, 404]);
  }

  /** The address for a header that names another place. */
  destination(at: string): string {
    return `${withScheme(this.url.origin, this.#scheme)}${at}`;
  }

  close(): void {
    this.#client.close();
  }
}
