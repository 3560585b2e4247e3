/** What a target asks of the far end, whether a shell answers there or only rsync. Paths are bytes below the root. */
import type { Digest, Upload } from "../../core/plugin.js";

export interface FarState {
  readonly kind: "file" | "other";
  readonly size: number;
}

/** `published`: it has its name now. */
export type Outcome = "published" | "occupied";

export interface FarEnd {
  /** For a person: how it proves and publishes. */
  readonly way: string;
  /** undefined where nothing is there. */
  state(path: string, signal: AbortSignal): Promise<FarState | undefined>;
  /**
   * The digest of what is there, of a file of `upload.size` bytes; undefined where it cannot be told: then it is not that of the upload, or nobody can
   * compare. `compared`: rsync wrote it whole a moment ago, and compared it with the file here.
   */
  digest(path: string, upload: Upload, signal: AbortSignal, compared?: boolean): Promise<Digest | undefined>;
  /**
   * The partial gets the name, never over another file; `replace`: over the one that is there. Throws "mismatch" where it finds out on the way. Where the far end can
   * sync, the name is durable then.
   */
  publish(upload: Upload, replace: boolean, signal: AbortSignal): Promise<Outcome>;
  /** What rsync may not have synced is on the medium, as far as the far end can say so. Throws what its medium refused. */
  settle(path: string): Promise<void>;
  /** Makes what is found under its name durable, where the far end can. */
  keep(path: string, signal: AbortSignal): Promise<void>;
  /** Nothing there is success. */
  remove(path: string, signal: AbortSignal): Promise<void>;
  /** Before the first byte is sent. */
  prepare(signal: AbortSignal): Promise<void>;
}
