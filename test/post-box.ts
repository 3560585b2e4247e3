/** A server in memory that takes one request per file, and a target over it: a single shot. */
import { Fault } from "../core/errors.js";
import type { Device, Receipt, Target, Upload } from "../core/plugin.js";
import { FakeDevice } from "./fake-device.js";

export class PostBox extends FakeDevice {
  /** What the server took, in order. */
  readonly posts: { path: string; bytes: Buffer }[] = [];
  /** What `lookup` says where the plugin kept no answer; undefined: this target has no `lookup`. */
  lookup: ((path: string, size: number) => Receipt | "absent" | "unknown") | undefined;
  /** So many bytes came, of all requests. */
  came = 0;
  /** The connection breaks, once each, while a chunk is on its way to the plugin: the reading is closed then, or left to itself. */
  readonly breaks: ("closed" | "left")[] = [];

  constructor(
    name: string,
    readonly whenInDoubt?: "ask" | "again",
  ) {
    super(name);
  }

  receipt(path: string, size: number): Receipt {
    return { path, size, proof: "answer", url: `https://box/${path}` };
  }

  override device(role: "source" | "target"): Device {
    return { ...super.device(role), target: this.#target() };
  }

  /** Calls: "chunk PATH N" with the count of bytes before it, "took PATH" once the server has all, "commit PATH", "lookup PATH". */
  #target(): Target {
    return {
      features: {
        needs: "stream",
        resume: false,
        atomic: true,
        singleShot: true,
        ...(this.whenInDoubt === undefined ? {} : { whenInDoubt: this.whenInDoubt }),
        digests: [],
        concurrency: 1,
      },
      offset: () => Promise.resolve(0),
      discard: () => Promise.resolve(),
      write: async (upload: Upload, _offset, signal, onBytes) => {
        const breaks = this.breaks.shift();
        if (breaks !== undefined) {
          const reading = upload.chunks(0, signal);
          reading.next().catch(() => undefined);
          if (breaks === "closed") reading.close();
          throw new Fault("transient", "the connection was reset");
        }
        const parts: Buffer[] = [];
        for await (const chunk of upload.read(0, signal)) {
          this.came += (chunk as Buffer).length;
          const length = parts.reduce((sum, part) => sum + part.length, 0);
          await this.call(`chunk ${upload.path} ${length}`, signal);
          parts.push(chunk as Buffer);
          onBytes((chunk as Buffer).length);
        }
        const bytes = Buffer.concat(parts);
        // The server was promised more, and takes nothing.
        if (bytes.length < upload.size) throw new Fault("transient", `the bytes ended at ${bytes.length}, not at ${upload.size}`);
        this.posts.push({ path: upload.path, bytes });
        await this.call(`took ${upload.path}`, signal);
        await upload.memo.set("answer", this.receipt(upload.path, upload.size));
      },
      commit: async (upload, signal) => {
        await this.call(`commit ${upload.path}`, signal);
        return upload.memo.get("answer") as Receipt;
      },
      ...(this.lookup === undefined
        ? {}
        : {
            lookup: async (upload: Upload, signal: AbortSignal) => {
              await this.call(`lookup ${upload.path}`, signal);
              return (upload.memo.get("answer") as Receipt | undefined) ?? this.lookup?.(upload.path, upload.size) ?? "unknown";
            },
          }),
    };
  }
}
