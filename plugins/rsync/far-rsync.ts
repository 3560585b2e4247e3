/**
 * The far end where only rsync may run (`rrsync`, a forced command). It looks by a listing, proves by rsync's own checksums of the file there and the one
 * here, whose SHA-256 is computed as well, and gives a file its name by a copy that rsync makes at the server.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { Fault, faultOfErrno } from "../../core/errors.js";
import type { Digest, Upload } from "../../core/plugin.js";
import type { FarEnd, FarState, Outcome } from "./far.js";
import type { Rsync } from "./rsync.js";

export class FarRsync implements FarEnd {
  readonly way = "rsync alone";
  readonly #rsync: Rsync;
  /** By a partial's path: the file here, as it was before it was digested. */
  readonly #digested = new Map<string, string>();

  constructor(rsync: Rsync) {
    this.#rsync = rsync;
  }

  prepare(): Promise<void> {
    return Promise.resolve();
  }

  async state(path: string, signal: AbortSignal): Promise<FarState | undefined> {
    const found = await this.#rsync.sizeOf(path, signal);
    if (found === undefined) return undefined;
    return found.size === undefined ? { kind: "other", size: 0 } : { kind: "file", size: found.size };
  }

  /** That of the file here, where both are the same. */
  async digest(path: string, upload: Upload, signal: AbortSignal, compared = false): Promise<Digest | undefined> {
    const { localPath, size } = upload;
    if (localPath === undefined) return undefined;
    if (path === upload.partialPath) this.#digested.set(path, await shownBy(localPath));
    if (!(compared || (await this.#rsync.same(path, localPath, size, signal)))) return undefined;
    const hash = createHash("sha256");
    await pipeline(createReadStream(localPath), hash, { signal });
    return `sha256:${hash.digest("hex")}`;
  }

  async publish(upload: Upload, replace: boolean, signal: AbortSignal): Promise<Outcome> {
    if (upload.localPath === undefined) throw new Fault("transient", "the file has no path on this machine");
    const before = this.#digested.get(upload.partialPath) ?? (await shownBy(upload.localPath));
    if (!(await this.#rsync.publish(upload, upload.localPath, replace, signal))) return "occupied";
    // rsync sends it once more, as it is by now, where it is not what the partial is.
    if ((await shownBy(upload.localPath)) !== before)
      throw new Fault("transient", `${upload.localPath} changed here while it got its name there, which may have other bytes`);
    await this.#rsync.remove(upload.partialPath, signal);
    this.#digested.delete(upload.partialPath);
    return "published";
  }

  /** The copy that gets the name is synced. */
  settle(): Promise<void> {
    return Promise.resolve();
  }

  /** rsync syncs what it writes, and nothing else. */
  keep(): Promise<void> {
    return Promise.resolve();
  }

  /** A listing first: rsync would make the directories of what is not there. */
  async remove(path: string, signal: AbortSignal): Promise<void> {
    this.#digested.delete(path);
    if ((await this.#rsync.sizeOf(path, signal)) !== undefined) await this.#rsync.remove(path, signal);
  }
}

async function shownBy(path: string): Promise<string> {
  const { ino, size, mtimeNs } = await stat(path, { bigint: true }).catch((error: unknown) => {
    throw faultOfErrno(error, `cannot read ${path}`);
  });
  return `${ino} ${size} ${mtimeNs}`;
}
