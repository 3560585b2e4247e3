/**
 * How this server takes files, learned by asking and kept over restarts:
 *
 * - chunks: Nextcloud's uploads, which put a file together from parts;
 * - ranges: a PUT with Content-Range continues a file (Apache), proved by a trial in a file of our own;
 * - whole: any other; a PUT that breaks off is sent again from its first byte.
 */
import { Fault, isFault, orAborted } from "../../core/errors.js";
import type { Memo, Upload } from "../../core/plugin.js";
import type { Refused } from "./answers.js";
import type { DavServer } from "./server.js";

export type Way = "chunks" | "ranges" | "whole";

interface Known {
  readonly url: string;
  /** What the server says that it is: another one is asked anew. */
  readonly software: string;
  readonly way: Way;
  /** Where files are, and where uploads are gathered. */
  readonly files: string;
  readonly uploads?: string;
}

const trialKey = "trial";

/** At a range: no answer, or one that it is broken. */
class Broke extends Fault {}

/** It says nothing of what server it is. */
function isForNow({ status }: Refused): boolean {
  return status === 429 || (status >= 500 && status !== 501);
}

export class Ways {
  readonly #server: DavServer;
  readonly #memory: Memo;
  readonly #installation: string;
  /** Where files are when the server says nothing else. */
  readonly #files: string;
  #known: Known | undefined;
  #software: string | undefined;
  #trying: Promise<void> | undefined;
  /** What is known was not found out: it broke. */
  #forNow = false;

  constructor(server: DavServer, { memory, installation }: { readonly memory: Memo; readonly installation: string }) {
    this.#server = server;
    this.#files = server.files;
    this.#memory = memory;
    this.#installation = installation;
    const known = memory.get("server") as Known | undefined;
    if (known?.url === server.url.href) this.#take(known);
  }

  /** Undefined until it is learned. */
  get way(): Way | undefined {
    return this.#known?.way;
  }

  get uploads(): string {
    return this.#known?.uploads ?? "";
  }

  /** Asks what it is, once in a life of this program. Changes nothing there. */
  async learn(signal: AbortSignal): Promise<void> {
    if (this.#software !== undefined) return;
    const server = this.#server;
    const what = "cannot ask what server it is";
    const options = await server.said({ method: "OPTIONS", at: `${server.url.pathname.replace(/\/+$/, "")}/`, what }, signal);
    // Some answer OPTIONS to nobody, or only at other places: PROPFIND says whether it is one of ours.
    if (options.status === 401 || (options.status >= 300 && options.status < 400) || isForNow(options))
      throw server.refusal(options, what, true);
    const software = String(options.headers.server ?? "");
    if (this.#known?.software !== software) {
      this.#known = undefined;
      server.files = this.#files;
      const cloud = await this.#nextcloud(signal);
      if (cloud !== undefined) await this.#keep({ ...cloud, url: server.url.href, software, way: "chunks" });
      // What a portal said is not remembered.
      else await server.look(`${this.#files}/`, signal, what);
    }
    this.#software = software;
  }

  /** Where its files and uploads are, when it is a Nextcloud. */
  async #nextcloud(signal: AbortSignal): Promise<{ files: string; uploads: string } | undefined> {
    const server = this.#server;
    const { pathname } = server.url;
    const prefix = pathname.replace(/\/remote\.php(\/.*)?$/, "").replace(/\/+$/, "");
    const what = "cannot ask what server it is";
    const said = await server.said({ method: "GET", at: `${prefix}/status.php`, what }, signal);
    if (isForNow(said)) throw server.refusal(said, what, true);
    if (said.status !== 200 || !/"productname"\s*:\s*"[^"]*nextcloud/i.test(said.text)) return undefined;
    const dav = `${prefix}/remote.php/dav`;
    const named = /\/remote\.php\/dav\/files\/([^/]+)(.*)$/.exec(pathname.replace(/\/+$/, ""));
    const below = named?.[2] ?? /\/remote\.php\/webdav(\/.*?)?\/*$/.exec(pathname)?.[1] ?? "";
    // People log in by their mail address too: only the server knows the id that stands in its addresses.
    const id = named?.[1] ?? /\/principals\/users\/([^/]+)/.exec((await server.principal(`${dav}/`, signal)) ?? "")?.[1];
    if (id === undefined)
      throw new Fault("denied", 'this Nextcloud does not say who the user is; set "url" to ".../remote.php/dav/files/USER"');
    return { files: `${dav}/files/${id}${below}`, uploads: `${dav}/uploads/${id}` };
  }

  /** Whether a file can be continued; tried out, where nobody knows, in a small file beside the partial. */
  async ranges(upload: Upload, signal: AbortSignal): Promise<boolean> {
    while (this.way === undefined) {
      const mine = this.#trying === undefined;
      this.#trying ??= this.#decide(upload, signal).finally(() => (this.#trying = undefined));
      // One at a time; another's that fails says nothing of ours.
      await orAborted(mine ? this.#trying : this.#trying.catch(() => undefined), signal);
    }
    return this.way === "ranges";
  }

  async #decide(upload: Upload, signal: AbortSignal): Promise<void> {
    const continues = await this.#trial(upload, signal);
    const { url, files } = this.#server;
    const known: Known = { url: url.href, files, software: this.#software ?? "", way: continues === true ? "ranges" : "whole" };
    this.#forNow = continues === undefined;
    if (this.#forNow) this.#take(known);
    else await this.#keep(known);
  }

  /** A file that went whole broke off: a link that did so at ranges too, for once, is not believed for good. */
  doubt(): void {
    if (this.#forNow) this.#known = undefined;
    this.#forNow = false;
  }

  /** Takes away what a trial left that was cut off, also in a life before. */
  async tidy(signal: AbortSignal): Promise<void> {
    const left = this.#memory.get(trialKey) as string | undefined;
    if (left !== undefined && this.#trying === undefined) await this.#remove(left, signal);
  }

  async #remove(left: string, signal: AbortSignal): Promise<void> {
    await this.#server.delete(left, "cannot take away what was tried out", signal);
    await this.#memory.set(trialKey, undefined);
  }

  /** It did not do what it was believed to do. */
  async forget(): Promise<void> {
    this.#known = undefined;
    this.#software = undefined;
    await this.#memory.set("server", undefined);
  }

  async #keep(known: Known): Promise<void> {
    this.#take(known);
    await this.#memory.set("server", known);
  }

  #take(known: Known): void {
    this.#known = known;
    this.#server.files = known.files;
  }

  /**
   * Two bytes, one by one: a server that answers 2xx may have replaced the first by the second, or left a hole. Undefined where it, or what is before it, broke
   * at a range twice, and took a file without in between: nothing is continued there until a whole file breaks off, too.
   */
  async #trial(upload: Upload, signal: AbortSignal): Promise<boolean | undefined> {
    const server = this.#server;
    const { id, path } = upload;
    const at = server.at(`${path.slice(0, path.lastIndexOf("/") + 1)}.${this.#installation}-${id}.try.part`);
    const what = "cannot try whether uploads can be continued";
    const put = async (body: string, range?: number) => {
      const headers = { "Content-Length": body.length, ...(range === undefined ? {} : { "Content-Range": `bytes ${range}-${range}/2` }) };
      const said = await server.said({ method: "PUT", at, what, headers, body }, signal).catch((error: unknown) => {
        throw range !== undefined && isFault(error, "transient") ? new Broke(error.kind, error.message, { cause: error }) : error;
      });
      if (said.status >= 200 && said.status < 300) return true;
      const fault = server.refusal(said, what);
      // No to a range is an answer; no to any file is not.
      if (range === undefined || ["offline", "throttled", "full"].includes(fault.kind) || said.status === 401) throw fault;
      if (said.status >= 500 && said.status !== 501) throw new Broke(fault.kind, fault.message, { cause: fault });
      return false;
    };
    await this.#memory.set(trialKey, at);
    try {
      for (let broke = 0; ;) {
        await put("");
        if (broke === 2) return undefined;
        try {
          if (!((await put("F", 0)) && (await put("S", 1)))) return false;
          break;
        } catch (error) {
          if (!(error instanceof Broke)) throw error;
          broke++;
        }
      }
      if ((await server.look(at, signal, what))?.size !== 2) return false;
      const parts: Buffer[] = [];
      await server.get(at, what, signal, (bytes) => parts.push(bytes));
      return Buffer.concat(parts).toString() === "FS";
    } catch (error) {
      throw isFault(error, "missing") ? new Fault("transient", error.message, { cause: error }) : error;
    } finally {
      if (!signal.aborted) await this.#remove(at, signal);
    }
  }
}
