/**
 * A WebDAV server as a source: several directories at once, each by PROPFIND with Depth 1, bytes by GET with a Range.
 *
 * A stream gives exactly the bytes up to the size that was listed, and ends with an error when the server ends early. What a GET answers counts
 * only as far as PROPFIND agrees: a portal's page is no file.
 */
import { Readable } from "node:stream";
import { Fault, isFault } from "../../core/errors.js";
import type { HttpAnswer } from "../../core/http.js";
import type { FileEntry, ListOptions, Source, SourceFeatures } from "../../core/plugin.js";
import { listBelow } from "../../core/remote.js";
import { otherThan } from "../../core/stat.js";
import { canBeAskedFor, nameOf } from "./hrefs.js";
import type { WebdavOptions } from "./options.js";
import type { DavServer, Seen } from "./server.js";
import type { Ways } from "./ways.js";

export class WebdavSource implements Source {
  readonly #server: DavServer;
  readonly #ways: Ways;
  readonly #concurrency: number;
  #ranges = true;

  constructor({ concurrency }: WebdavOptions, server: DavServer, ways: Ways) {
    this.#server = server;
    this.#ways = ways;
    this.#concurrency = concurrency;
  }

  get features(): SourceFeatures {
    return { ranges: this.#ranges, digests: [], concurrency: this.#concurrency, inPlace: false };
  }

  now(): number | undefined {
    return this.#server.now();
  }

  list(signal: AbortSignal, options?: ListOptions): AsyncGenerator<FileEntry> {
    // Half of the questions that may be asked at once: the others are for what is moved.
    return listBelow((dir, own) => this.readDir(dir, own), signal, options, this.#concurrency);
  }

  /** One directory. Throws "missing" when there is none, "denied" for one below the root of which the server tells that it is there, and twice not what is in it. */
  async readDir(dir: string, signal: AbortSignal): Promise<FileEntry[]> {
    await this.#ways.learn(signal);
    const what = dir === "" ? "cannot list the root" : `cannot list ${dir}`;
    try {
      return await this.#entriesOf(dir, what, signal);
    } catch (error) {
      if (dir === "" || !isFault(error, "transient")) throw error;
      // Of a directory that it may not read itself Apache breaks off the answer, and nginx says 500.
      if ((await this.#server.look(`${this.#server.at(dir)}/`, signal, what)) === undefined)
        throw new Fault("missing", `${dir} is not there any more`, { cause: error });
      return this.#entriesOf(dir, what, signal).catch((again: unknown) => {
        if (!isFault(again, "transient")) throw again;
        throw new Fault("denied", `${again.message}; it is there, and may not be readable for the server itself`, { cause: again });
      });
    }
  }

  async #entriesOf(dir: string, what: string, signal: AbortSignal): Promise<FileEntry[]> {
    const entries: FileEntry[] = [];
    for await (const found of this.#server.children(this.#server.at(dir), what, signal)) {
      const name = nameOf(found.part);
      // No name of a file: nothing could be asked for by it.
      if (name === undefined || found.status === 404) continue;
      const path = dir === "" ? name : `${dir}/${name}`;
      if (!canBeAskedFor(found.part, name))
        entries.push({
          path,
          kind: "unreadable",
          size: 0,
          reason: "its name holds control characters, which are never sent to a WebDAV server",
        });
      else if (found.collection) entries.push({ path, kind: "directory", size: 0 });
      else if (found.size === undefined) entries.push({ path, kind: "unreadable", size: 0, reason: "the server tells no size" });
      else entries.push(fileOf(path, { ...found, size: found.size }));
    }
    return entries;
  }

  async stat(path: string, signal: AbortSignal): Promise<FileEntry | undefined> {
    await this.#ways.learn(signal);
    const seen = await this.#server.look(this.#server.at(path), signal, `cannot look at ${path}`);
    return seen === undefined ? undefined : fileOf(path, seen);
  }

  async open(entry: FileEntry, offset: number, signal: AbortSignal): Promise<Readable> {
    const { path, size } = entry;
    const what = `cannot read ${path}`;
    const now = await this.stat(path, signal);
    if (now === undefined) throw new Fault("missing", `${path} is not there any more`);
    const why = now.kind !== "file" ? "it is no file any more" : otherThan(entry, now);
    if (why !== undefined || offset > size) throw new Fault("changed", `${path} is not the file that was found: ${why ?? "it is shorter"}`);
    if (offset === size) return Readable.from([]);
    const headers = { "Accept-Encoding": "identity", Range: `bytes=${offset}-${size - 1}` };
    const answer = await this.#server.ask({ method: "GET", at: this.#server.at(path), what, headers }, signal);
    const skip = await this.#beginning(answer, now.size, offset, what, signal);
    return Readable.from(this.#bytes(answer, skip, size - offset, what, signal), { highWaterMark: 1 });
  }

  /** How many bytes come before the wanted ones. Throws where it is not that file that comes. */
  async #beginning(answer: HttpAnswer, size: number, offset: number, what: string, signal: AbortSignal): Promise<number> {
    const { status, headers, stream } = answer;
    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers["content-range"] ?? "");
    if (status === 206 && range !== null && Number(range[1]) === offset) return 0;
    if (status === 200 && headers["content-length"] === String(size) && headers["content-encoding"] === undefined) {
      this.#ranges = false;
      return offset;
    }
    if (status >= 400 && status !== 416) {
      const text = await this.#server.reading(what, signal, () => answer.text());
      throw this.#server.refusal({ status, headers, text }, what);
    }
    stream.destroy();
    if (status === 416) throw new Fault("changed", `${what}: it is shorter than it was`);
    if (status >= 300) throw this.#server.refusal({ status, headers, text: "" }, what);
    throw new Fault("transient", `${what}: ${this.#server.url.host} answers ${status} with something else than was asked for`);
  }

  async *#bytes({ stream }: HttpAnswer, skip: number, length: number, what: string, signal: AbortSignal): AsyncGenerator<Buffer> {
    let before = skip;
    let left = length;
    try {
      for await (const chunk of stream) {
        const part = (chunk as Buffer).subarray(before, before + left);
        before -= Math.min(before, (chunk as Buffer).length);
        left -= part.length;
        if (part.length > 0) yield part;
        if (left === 0) break;
      }
    } catch (error) {
      throw this.#server.broken(error, what, signal);
    } finally {
      if (!stream.readableEnded) stream.destroy();
    }
    if (left > 0) throw new Fault("transient", `${what}: it ended ${left} bytes early`);
  }
}

function fileOf(path: string, { collection, size, modifiedMs }: Seen): FileEntry {
  return {
    path,
    kind: collection ? "directory" : "file",
    size: collection ? 0 : size,
    ...(modifiedMs === undefined ? {} : { modifiedMs }),
  };
}
