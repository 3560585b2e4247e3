/**
 * Uploads to Nextcloud (chunked upload v2): numbered chunks in a directory of their own, which the server puts together under the final name.
 *
 * What it holds is what it lists: a chunk that broke off is not there. Until the end the upload has a destination of its own, where nothing is: on S3 the
 * chunks are written to the destination, and one that was another's would be written over.
 */
import { Fault, isFault } from "../../core/errors.js";
import type { Occupant, Receipt, Upload } from "../../core/plugin.js";
import { isAlike } from "../../core/remote.js";
import { statusOf } from "./answers.js";
import { Bodies } from "./body.js";
import type { WebdavOptions } from "./options.js";
import { timeHeader, type Publisher } from "./publish.js";
import type { DavServer } from "./server.js";
import type { Ways } from "./ways.js";

const mostChunks = 10_000;
/** What a proxy or the server says while it still puts the file together. */
const stillMerging: ReadonlySet<number | undefined> = new Set([202, 423, 502, 504]);

export class Chunks {
  readonly #server: DavServer;
  readonly #ways: Ways;
  readonly #publisher: Publisher;
  readonly #options: WebdavOptions;
  readonly #installation: string;

  constructor(options: WebdavOptions, ways: Ways, publisher: Publisher, installation: string) {
    this.#options = options;
    this.#server = publisher.server;
    this.#ways = ways;
    this.#publisher = publisher;
    this.#installation = installation;
  }

  async offset(upload: Upload, signal: AbortSignal): Promise<number> {
    return (await this.#held(upload, signal)) ?? 0;
  }

  async write(upload: Upload, offset: number, signal: AbortSignal, onBytes: (n: number) => void): Promise<void> {
    const { chunkSize } = this.#options;
    const { size, path } = upload;
    const server = this.#server;
    const what = `cannot write ${path}`;
    server.at(path);
    if (size > mostChunks * chunkSize)
      throw new Fault("rejected", `${what}: Nextcloud takes at most ${mostChunks} chunks of a file: make "chunkSize" larger`);
    let held = await this.#held(upload, signal);
    if (offset === 0 && held !== undefined) {
      await this.discard(upload, signal);
      held = undefined;
    }
    if ((held ?? 0) !== offset) throw new Fault("conflict", `${what}: the server holds ${held ?? 0} bytes of it, not ${offset}`);
    await server.ensureDirOf(path, signal);
    const dir = this.#dirOf(upload);
    const headers = { Destination: this.#staging(upload), "OC-Total-Length": size };
    if (held === undefined) await server.must({ method: "MKCOL", at: dir, what, headers }, signal, [201, 405]);
    if (offset === size) return;
    const bodies = new Bodies(upload, offset, signal, onBytes);
    try {
      for (let from = offset; from < size; from += chunkSize) {
        const length = Math.min(chunkSize, size - from);
        const number = String(Math.floor(from / chunkSize) + 1).padStart(5, "0");
        const question = {
          method: "PUT",
          at: `${dir}/${number}`,
          what,
          headers: { ...headers, "Content-Type": "application/octet-stream", "Content-Length": length },
          body: bodies.next(length),
          slow: true,
        };
        const said = await server.said(question, signal);
        if (said.status === 201 || said.status === 204) continue;
        const fault = server.refusal(said, what);
        // Nextcloud forgets uploads that nobody goes on with for a day.
        throw fault.kind === "missing" ? new Fault("transient", fault.message, { cause: fault }) : fault;
      }
    } finally {
      bodies.close();
    }
    const now = (await this.#held(upload, signal)) ?? 0;
    if (now !== size) throw new Fault("transient", `${what}: the server says that it has taken all, and lists ${now} bytes of ${size}`);
  }

  async commit(upload: Upload, signal: AbortSignal): Promise<Receipt | Occupant> {
    const publisher = this.#publisher;
    const { size } = upload;
    const name = this.#server.at(upload.path);
    const held = await this.#held(upload, signal);
    if (held === undefined) return publisher.published(upload, name, signal, upload.naming !== undefined);
    const there = await publisher.occupant(upload, name, signal);
    if (held !== size) {
      const ours = there === undefined || isAlike(upload) ? undefined : await this.#unlessOurs(upload, name, there, signal);
      if (ours !== undefined && !("occupied" in ours)) return ours;
      throw new Fault("transient", `the server holds ${held} bytes of it, not ${size}`);
    }
    const over = there !== undefined && (await publisher.replaceable(upload, name, there, signal));
    if (there !== undefined && !over) return this.#unlessOurs(upload, name, there, signal);
    const other = size === 0 ? await this.#empty(upload, name, over, signal) : await this.#assemble(upload, name, over, signal);
    if (other !== undefined) return this.#unlessOurs(upload, name, other, signal);
    return publisher.receipt(upload, await this.#proved(upload, name, signal));
  }

  async discard(upload: Upload, signal: AbortSignal): Promise<void> {
    await this.#server.delete(this.#dirOf(upload), `cannot discard what was sent of ${upload.path}`, signal);
  }

  /** Chunks from the first that are there without a gap, in bytes; undefined where there is no such upload. */
  async #held(upload: Upload, signal: AbortSignal): Promise<number | undefined> {
    const { chunkSize } = this.#options;
    const sizes = new Map<number, number>();
    try {
      for await (const { part, size, collection } of this.#server.children(
        this.#dirOf(upload),
        `cannot ask what is there of ${upload.path}`,
        signal,
      ))
        if (/^\d+$/.test(part) && !collection && size !== undefined) sizes.set(Number(part), size);
    } catch (error) {
      if (isFault(error, "missing")) return undefined;
      throw error;
    }
    let held = 0;
    for (let n = 1; held < upload.size && sizes.get(n) === Math.min(chunkSize, upload.size - held); n++) held += sizes.get(n) ?? 0;
    return held;
  }

  /** Of a MOVE whose answer was lost the name is there first; then its chunks, up to 10,000 of them, are taken away one by one. */
  async #unlessOurs(upload: Upload, name: string, there: Occupant, signal: AbortSignal): Promise<Occupant | Receipt> {
    if (upload.naming !== undefined || there.size !== upload.size || there.digest !== undefined || upload.size === 0) return there;
    const { clock } = this.#server;
    const end = clock.monotonicMs() + this.#options.timeout;
    for (let waitMs = 500; ; waitMs = Math.min(2 * waitMs, 5000)) {
      if ((await this.#held(upload, signal)) === undefined) return this.#publisher.published(upload, name, signal);
      if (clock.monotonicMs() + waitMs > end) return there;
      await clock.sleep(waitMs, signal);
    }
  }

  /** The server may answer long before it is done, or not at all: then what is under the name says it. */
  async #assemble(upload: Upload, name: string, over: boolean, signal: AbortSignal): Promise<Occupant | undefined> {
    try {
      return await this.#publisher.move(upload, `${this.#dirOf(upload)}/.file`, over, signal);
    } catch (error) {
      if (!isFault(error, "transient")) throw error;
      const { clock } = this.#server;
      const end = clock.monotonicMs() + this.#options.answerTimeout;
      for (let waitMs = 1000; ; waitMs = Math.min(2 * waitMs, 15_000)) {
        const there = await this.#server.look(name, signal);
        // Once it is put together its chunks are gone.
        if (there?.size === upload.size && (!isAlike(upload) || (await this.#held(upload, signal)) === undefined)) return undefined;
        if (!stillMerging.has(statusOf(error)) || clock.monotonicMs() + waitMs > end) throw error;
        await clock.sleep(waitMs, signal);
      }
    }
  }

  /** An empty file has no chunk. */
  async #empty(upload: Upload, name: string, over: boolean, signal: AbortSignal): Promise<Occupant | undefined> {
    const what = `cannot publish ${upload.path}`;
    const headers = { "Content-Length": 0, ...(over ? {} : { "If-None-Match": "*" }), ...timeHeader(upload) };
    upload.naming?.();
    const said = await this.#server.said({ method: "PUT", at: name, what, headers, body: "" }, signal);
    if (said.status === 412) return this.#publisher.occupant(upload, name, signal);
    if (said.status !== 201 && said.status !== 204) throw this.#server.refusal(said, what);
    if ((await this.#server.look(name, signal, what))?.size !== 0)
      throw new Fault("transient", `${what}: the server says that it is done, and it is not there`);
    await this.discard(upload, signal);
    return undefined;
  }

  /** Chunks cannot be read, so only the published file is; one that is wrong, which nobody else can have put there, goes again. */
  async #proved(upload: Upload, name: string, signal: AbortSignal): ReturnType<Publisher["prove"]> {
    try {
      return await this.#publisher.prove(upload, name, signal);
    } catch (error) {
      if (isFault(error, "mismatch")) await this.#server.delete(name, `cannot take ${upload.path} away again`, signal);
      throw error;
    }
  }

  #dirOf({ id }: Upload): string {
    return `${this.#ways.uploads}/filesync-${this.#installation}-${id}`;
  }

  /** Not named .part: Nextcloud keeps that ending for itself. */
  #staging({ path, id }: Upload): string {
    return this.#server.destination(this.#server.at(`${path.slice(0, path.lastIndexOf("/") + 1)}.${this.#installation}-${id}.upload`));
  }
}
