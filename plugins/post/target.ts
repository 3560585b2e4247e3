/**
 * One request per file, as a single shot: what was sent whole and not answered is core's to decide about. What the server's answers mean is in `answers.ts`.
 */
import { createHash } from "node:crypto";
import { codeOf, Fault, isFault } from "../../core/errors.js";
import type { HttpClient } from "../../core/http.js";
import { nameIn } from "../../core/paths.js";
import type { PluginContext, Reading, Receipt, Target, TargetFeatures, Upload } from "../../core/plugin.js";
import { passing } from "../../core/reading.js";
import { counted, readAnswer, type Read } from "./answers.js";
import type { Board } from "./board.js";
import { formOf } from "./form.js";
import type { PostOptions } from "./plugin.js";
import { isUlog, ulogDurationMs } from "./ulog.js";

/** From here on a server, or a proxy before it, may find it too large. */
const largeBytes = 95e6;
const mostBreaks = 5;
/** What small ones gain by asking first is less than the round trip. */
const asksFrom = 2 ** 20;

export class PostTarget implements Target {
  readonly features: TargetFeatures;

  constructor(
    readonly options: PostOptions,
    readonly client: HttpClient,
    readonly board: Board,
    readonly context: PluginContext,
  ) {
    this.features = {
      needs: options.minDuration === undefined ? "sealed" : "sealedPath",
      resume: false,
      atomic: true,
      singleShot: true,
      whenInDoubt: options.whenInDoubt,
      digests: [],
      concurrency: 1,
    };
  }

  offset(): Promise<number> {
    return Promise.resolve(0);
  }

  async write(upload: Upload, _offset: number, signal: AbortSignal, onBytes: (n: number) => void): Promise<void> {
    await this.#expectLong(upload);
    const bytes = upload.chunks(0, signal);
    try {
      const [beginning, all] = await peeked(bytes);
      if (this.options.only === "ulog" && !isUlog(beginning)) throw new Fault("unwanted", "it is no ULog");
      const read = await this.#post(upload, all, signal, onBytes);
      await upload.memo.set("answer", read);
    } finally {
      bytes.close();
    }
  }

  async commit(upload: Upload, signal: AbortSignal): Promise<Receipt> {
    const read = upload.memo.get("answer") as Read | undefined;
    if (read === undefined) throw new Fault("transient", "the server's answer is not known any more");
    return this.#taken(upload, read, signal);
  }

  /** Nothing of it stays anywhere. */
  discard(): Promise<void> {
    return Promise.resolve();
  }

  async lookup(upload: Upload, signal: AbortSignal): Promise<Receipt | "absent" | "unknown"> {
    const read = upload.memo.get("answer") as Read | undefined;
    if (read === undefined) return "unknown";
    try {
      return await this.#taken(upload, read, signal);
    } catch (error) {
      // What is there is not this file.
      if (isFault(error, "mismatch")) return "absent";
      throw error;
    }
  }

  /** Proved as it has to be. Throws what `#readBack` throws. */
  async #taken(upload: Upload, read: Read, signal: AbortSignal): Promise<Receipt> {
    const proof = this.options.verify === "readback" ? await this.#readBack(upload, read, signal) : "answer";
    await this.#list(upload, read);
    const { answer, url } = read;
    return { path: upload.path, size: upload.size, proof, answer, ...(url === undefined ? {} : { url }) };
  }

  async #list({ path, size }: Upload, { url, secret, at }: Read): Promise<void> {
    await this.board.add({ at, path, size, ...(url === undefined ? {} : { url }), ...(secret === undefined ? {} : { secret }) });
  }

  async #expectLong({ localPath }: Upload): Promise<void> {
    const { minDuration } = this.options;
    if (minDuration === undefined || localPath === undefined) return;
    const ms = await ulogDurationMs(localPath);
    if (ms !== undefined && ms < minDuration)
      throw new Fault("unwanted", `the log lasts ${Math.round(ms / 1000)} s, less than "minDuration", ${minDuration / 1000} s`);
  }

  async #post(upload: Upload, bytes: Reading, signal: AbortSignal, onBytes: (n: number) => void): Promise<Read> {
    const { options } = this;
    const { size } = upload;
    const counted = passing(bytes, (chunk) => {
      onBytes(chunk.bytes.length);
      return Promise.resolve();
    });
    const fields = Object.fromEntries(Object.entries(options.fields).map(([name, text]) => [name, this.#filled(text, upload)]));
    const form = formOf(fields, { name: options.file, filename: safeName(upload.path), size }, counted);
    const url = new URL(options.url);
    if (options.preset?.cap !== undefined && size > options.preset.cap) url.searchParams.set("expected_size", String(size));
    const headers = Object.fromEntries(Object.entries(options.headers).map(([name, value]) => [name, value.reveal()]));
    if (options.key !== undefined) headers.Authorization = `Bearer ${options.key.reveal()}`;
    try {
      const answer = await this.client.request(
        {
          method: "POST",
          path: `${url.pathname}${url.search}`,
          headers: { ...headers, ...form.headers },
          body: form.body,
          answerMs: options.answerTimeout,
          mayBeRefused: size > asksFrom,
          what: "cannot post it",
        },
        signal,
      );
      return await readAnswer(answer, { options, upload, clock: this.context.clock });
    } catch (error) {
      throw isFault(error, "transient") ? await this.#broken(upload, error) : error;
    }
  }

  /** A server that finds it too large may break off in the middle, time after time, and say nothing. */
  async #broken(upload: Upload, fault: Fault): Promise<Fault> {
    const cause = codeOf(fault.cause);
    if (upload.size < largeBytes || !["ECONNRESET", "EPIPE"].includes(cause)) return fault;
    const breaks = await counted(upload, "breaks");
    if (breaks < mostBreaks) return fault;
    return new Fault(
      "rejected",
      `the server broke it off ${breaks} times while it was sent: it is probably larger than the server takes (Flight Review: 300 MiB, and often 100 MB by a proxy before it)`,
      { cause: fault },
    );
  }

  #filled(text: string, { path, size, modifiedMs }: Upload): string {
    const { vehicle, installation } = this.context;
    const name = nameIn(path);
    const date = modifiedMs === undefined || modifiedMs < Date.UTC(2001) ? "undated" : new Date(modifiedMs).toISOString().slice(0, 10);
    const words: Readonly<Record<string, string>> = { vehicle, installation, path, name, size: String(size), date };
    return text.replace(/\{(\w+)\}/g, (all, word: string) => (Object.hasOwn(words, word) ? (words[word] ?? all) : all));
  }

  /** Throws "mismatch" where the server gives other bytes back. */
  async #readBack({ digest, path }: Upload, { id }: Read, signal: AbortSignal): Promise<Receipt["proof"]> {
    const { preset, url } = this.options;
    if (preset?.download === undefined || id === undefined || digest === undefined) return "answer";
    const name = encodeURIComponent(safeName(path));
    const answer = await this.client.request(
      { method: "GET", path: preset.download.replace("{id}", encodeURIComponent(id)).replace("{name}", name), what: "cannot read it back" },
      signal,
    );
    if (answer.status !== 200) {
      answer.stream.destroy();
      throw new Fault("transient", `cannot read it back from ${new URL(url).host}: it answers ${answer.status}`);
    }
    const hash = createHash("sha256");
    for await (const chunk of answer.stream) hash.update(chunk as Buffer);
    const found = `sha256:${hash.digest("hex")}`;
    if (found !== digest) throw new Fault("mismatch", `the server gives other bytes back: ${found}, not ${digest}`);
    return "readback";
  }
}

/** The bytes of the first chunk, and all of it. */
async function peeked(reading: Reading): Promise<[beginning: Buffer, all: Reading]> {
  let first = await reading.next();
  const next = (): ReturnType<Reading["next"]> => {
    const now = first;
    first = undefined;
    return now === undefined ? reading.next() : Promise.resolve(now);
  };
  return [first?.bytes ?? Buffer.alloc(0), { next, close: () => reading.close() }];
}

/** Servers want it in double quotes, and know no other way to write it. */
function safeName(path: string): string {
  return nameIn(path).replace(/["\\\p{Cc}]/gu, "_");
}
