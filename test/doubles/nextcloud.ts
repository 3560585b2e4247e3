/**
 * A double of Nextcloud's WebDAV with chunked upload v2, not the real one: built from its developer manual and apps/dav/lib/Upload (the names of chunks, the
 * destination that each request needs, the sum that is checked, no reading of chunks, no names that end with .part), and from what users report of the
 * last MOVE: 423 and 504 while it still puts the file together.
 */
import { createReadStream, createWriteStream, promises as fs } from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { DavDouble, statOf, type Exchange } from "./dav.js";

const id = "tester-id";
const files = `/remote.php/dav/files/${id}`;
const uploads = `/remote.php/dav/uploads/${id}`;

export class NextcloudDouble extends DavDouble {
  /** What the last MOVE answers while it goes on by itself, once for each. */
  readonly merging: number[] = [];
  /** How often the name is asked for before a merge of `merging` is done. */
  mergeLooks = 2;
  /** On S3 each chunk but the last has so much at least. */
  leastChunk = 0;
  override software = "Apache";
  #merge: { readonly work: () => Promise<void>; looks: number } | undefined;

  /** What the user sees as files. */
  get files(): string {
    return join(this.dir, "files");
  }

  get uploads(): string {
    return join(this.dir, "uploads");
  }

  override async start(): Promise<this> {
    await fs.mkdir(this.files, { recursive: true });
    await fs.mkdir(this.uploads, { recursive: true });
    return super.start();
  }

  protected override disk(path: string): string | undefined {
    if (path === files || path.startsWith(`${files}/`)) return join(this.files, path.slice(files.length));
    if (path === uploads || path.startsWith(`${uploads}/`)) return join(this.uploads, path.slice(uploads.length));
    return undefined;
  }

  protected override async special(exchange: Exchange): Promise<boolean> {
    const { method, path, request } = exchange;
    if (path === "/status.php") {
      this.say(exchange, 200, JSON.stringify({ installed: true, maintenance: false, productname: "Nextcloud", versionstring: "31.0.9" }));
      return true;
    }
    if (method === "PROPFIND" && path === "/remote.php/dav") {
      const principal = `<d:current-user-principal><d:href>/remote.php/dav/principals/users/${id}/</d:href></d:current-user-principal>`;
      const status = "<d:status>HTTP/1.1 200 OK</d:status>";
      this.multistatus(exchange, [
        `<d:response><d:href>/remote.php/dav/</d:href><d:propstat><d:prop>${principal}</d:prop>${status}</d:propstat></d:response>`,
      ]);
      return true;
    }
    if (method === "PROPFIND" && this.#merge !== undefined && path.startsWith(files) && --this.#merge.looks <= 0) {
      const { work } = this.#merge;
      this.#merge = undefined;
      await work();
    }
    if (!path.startsWith(`${uploads}/`)) return method === "PUT" && this.#reserved(exchange);
    const destination = request.headers.destination;
    if (method === "GET") this.say(exchange, 405, "Reading intermediate uploads is not allowed");
    else if (
      (method === "PUT" || method === "MKCOL") &&
      (destination === undefined || (await statOf(this.destination(exchange))) !== undefined)
    )
      this.say(exchange, 400, "this double takes uploads only as v2, to where nothing is");
    else if (method === "PUT") return this.#wrongChunk(exchange);
    else if (method === "MOVE") await this.#assemble(exchange);
    else return false;
    return true;
  }

  #reserved(exchange: Exchange): boolean {
    if (!/\.(part|filepart)$/.test(exchange.path)) return false;
    const name = "OCA\\DAV\\Connector\\Sabre\\Exception\\InvalidPath";
    this.say(exchange, 400, `<d:error xmlns:d="DAV:" xmlns:s="http://sabredav.org/ns"><s:exception>${name}</s:exception></d:error>`);
    return true;
  }

  #wrongChunk(exchange: Exchange): boolean {
    const name = exchange.path.slice(exchange.path.lastIndexOf("/") + 1);
    if (/^\d+$/.test(name) && Number(name) >= 1 && Number(name) <= 10_000) return false;
    this.say(exchange, 400, "Invalid chunk name, must be numeric between 1 and 10000");
    return true;
  }

  async #assemble(exchange: Exchange): Promise<void> {
    const { path, request } = exchange;
    const dir = join(this.uploads, path.slice(uploads.length, -"/.file".length));
    const to = this.destination(exchange);
    if (!path.endsWith("/.file") || (await statOf(dir)) === undefined) {
      this.say(exchange, 404);
      return;
    }
    const chunks = (await fs.readdir(dir)).sort((a, b) => Number(a) - Number(b));
    const sizes = await Promise.all(chunks.map(async (name) => (await fs.stat(join(dir, name))).size));
    const sum = sizes.reduce((all, size) => all + size, 0);
    if (String(sum) !== request.headers["oc-total-length"]) {
      this.say(exchange, 400, "Chunks on server do not sum up");
      return;
    }
    if (sizes.slice(0, -1).some((size) => size < this.leastChunk)) {
      this.say(exchange, 500, "EntityTooSmall");
      return;
    }
    const work = async (): Promise<void> => {
      const whole = this.temporary();
      await fs.writeFile(whole, "");
      for (const name of chunks) await pipeline(createReadStream(join(dir, name)), createWriteStream(whole, { flags: "a" }));
      const seconds = Number(request.headers["x-oc-mtime"]);
      if (!Number.isNaN(seconds)) await fs.utimes(whole, seconds, seconds);
      await fs.rename(whole, to);
      await fs.rm(dir, { recursive: true });
    };
    const busy = this.#merge === undefined ? this.merging.shift() : 423;
    if (busy === undefined) return this.move(exchange, work);
    this.#merge ??= { work, looks: this.mergeLooks };
    this.say(exchange, busy);
  }
}
