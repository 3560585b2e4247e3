/**
 * A double of Yandex Disk's WebDAV, not the real one: built from what users of rclone and others report. It holds its answer to a PUT while it digests the file,
 * so long that what is between gives up; meanwhile the file is not there yet. It knows no ranges: what comes with Content-Range replaces all.
 */
import { createHash } from "node:crypto";
import { promises as fs } from "node:fs";
import { DavDouble, type Exchange } from "./dav.js";

/** How a PUT ends, once for each: not at all, by a cut, or by a proxy that gave up; the file appears after so many looks at it. */
export interface Digesting {
  readonly end: "silence" | "cut" | "504";
  readonly looks: number;
}

export class YandexDouble extends DavDouble {
  readonly digesting: Digesting[] = [];
  /** Endings that are slowed down, so that nothing should be sent to such a name. */
  readonly slowPuts: string[] = [];
  override software = "";
  readonly #hidden = new Map<string, number>();

  protected override special(exchange: Exchange): Promise<boolean> {
    const { method, path } = exchange;
    if (method === "PUT" && /\.(bin|ulg|zip|mp4)$/i.test(path)) this.slowPuts.push(path);
    const looks = this.#hidden.get(path);
    if (method !== "PROPFIND" || looks === undefined) return Promise.resolve(false);
    if (looks <= 1) this.#hidden.delete(path);
    else this.#hidden.set(path, looks - 1);
    this.say(exchange, 404);
    return Promise.resolve(true);
  }

  protected override async put(exchange: Exchange, at: string): Promise<void> {
    const digesting = exchange.request.headers["content-length"] === "0" ? undefined : this.digesting.shift();
    // Before its last byte has come: whoever looks in that moment must not see it.
    if (digesting !== undefined && digesting.looks > 0) this.#hidden.set(exchange.path, digesting.looks);
    if (!(await this.receive(exchange, at))) {
      this.#hidden.delete(exchange.path);
      return;
    }
    if (digesting === undefined) {
      const etag = createHash("md5")
        .update(await fs.readFile(at))
        .digest("hex");
      this.say(exchange, 201, "", { etag });
      return;
    }
    if (digesting.end === "504") this.say(exchange, 504);
    if (digesting.end === "cut") exchange.request.socket.resetAndDestroy();
  }
}
