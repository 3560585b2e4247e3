/**
 * A WebDAV server as a target, in the way in which it takes files: Nextcloud's uploads, a partial that is continued, or a partial that is sent whole.
 */
import { Fault } from "../../core/errors.js";
import type { Occupant, Part, Receipt, Target, TargetFeatures, Upload } from "../../core/plugin.js";
import { Chunks } from "./chunks.js";
import { Files } from "./files.js";
import type { WebdavOptions } from "./options.js";
import { Publisher } from "./publish.js";
import type { DavServer } from "./server.js";
import type { Ways } from "./ways.js";

export class WebdavTarget implements Target {
  readonly #options: WebdavOptions;
  readonly #server: DavServer;
  readonly #ways: Ways;
  readonly #publisher: Publisher;
  readonly #files: Files;
  readonly #chunks: Chunks;

  constructor(options: WebdavOptions, server: DavServer, ways: Ways, installation: string) {
    this.#options = options;
    this.#server = server;
    this.#ways = ways;
    this.#publisher = new Publisher(server, options);
    this.#files = new Files(options, ways, this.#publisher);
    this.#chunks = new Chunks(options, ways, this.#publisher, installation);
  }

  get features(): TargetFeatures {
    const { way } = this.#ways;
    const { concurrency, chunkSize } = this.#options;
    return {
      needs: "stream",
      resume: way === "chunks" || way === "ranges",
      triesResume: way === undefined,
      ...(way === "chunks" ? { granule: chunkSize } : {}),
      ...(way === "ranges" ? { splices: "whole" as const } : {}),
      atomic: true,
      tellsNaming: true,
      singleShot: false,
      digests: [],
      concurrency,
      pipeline: { uploads: 4 * concurrency, bytes: 12 * 2 ** 20 * concurrency },
    };
  }

  async offset(upload: Upload, signal: AbortSignal): Promise<number> {
    return (await this.#way(signal)).offset(upload, signal);
  }

  async write(upload: Upload, offset: number, signal: AbortSignal, onBytes: (n: number) => void): Promise<void> {
    return (await this.#way(signal)).write(upload, offset, signal, onBytes);
  }

  async splice(upload: Upload, from: Part, at: number, signal: AbortSignal): Promise<void> {
    const way = await this.#way(signal);
    if (way === this.#chunks) throw new Fault("rejected", "this server puts files together from chunks alone");
    await this.#files.splice(upload, from, at, signal);
  }

  async prove(upload: Upload, signal: AbortSignal): Promise<void> {
    if ((await this.#way(signal)) === this.#files) await this.#files.prove(upload, signal);
  }

  async commit(upload: Upload, signal: AbortSignal): Promise<Receipt | Occupant> {
    return (await this.#way(signal)).commit(upload, signal);
  }

  async discard(upload: Upload, signal: AbortSignal): Promise<void> {
    return (await this.#way(signal)).discard(upload, signal);
  }

  async look(upload: Upload, signal: AbortSignal): Promise<Occupant | undefined> {
    await this.#ways.learn(signal);
    return this.#publisher.occupant(upload, this.#server.at(upload.path), signal);
  }

  async #way(signal: AbortSignal): Promise<Files | Chunks> {
    await this.#ways.learn(signal);
    return this.#ways.way === "chunks" ? this.#chunks : this.#files;
  }
}
