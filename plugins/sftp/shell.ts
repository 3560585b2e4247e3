/**
 * SHA-256 by the server's own `sha256sum` (of large files `openssl`, if it is there), where it allows commands. One shell per kind of file reads names from its input and answers
 * each with a line, so that a small file costs no login, no channel and no round trip of its own.
 *
 * Names go as bytes on a line, never through the shell's grammar; one that holds a line end gets no digest.
 */
import type { Client, ClientChannel } from "ssh2";
import { Fault } from "../../core/errors.js";
import type { Digest } from "../../core/plugin.js";

// `exec sh -c '…'` is the same in sh, bash, zsh, fish and csh.
const loopOf = (digest: string): string => `exec sh -c 'while IFS= read -r f; do ${digest} || echo -; done'`;
const small = 'sha256sum <"$f" 2>/dev/null';
/** openssl begins later, and is up to four times as fast: it uses what the processor has for SHA-256. */
const large = `openssl dgst -sha256 -r <"$f" 2>/dev/null || ${small}`;
export const loops = { small: loopOf(small), large: loopOf(large) } as const;
const ofNothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/** What is larger has a shell of its own: small files do not wait for it. */
const largeBytes = 8 * 2 ** 20;
/** A slow disk gives so many bytes per millisecond. */
const slowest = 2000;

interface Asked {
  readonly done: (hex: string | undefined) => void;
  readonly fail: (error: Fault) => void;
  readonly ms: number;
}

class Shell {
  readonly #channel: ClientChannel;
  readonly #asked: Asked[] = [];
  #timer: NodeJS.Timeout | undefined;
  #text = "";
  #over = false;

  constructor(channel: ClientChannel) {
    this.#channel = channel;
    channel.stderr.resume();
    channel.on("data", (bytes: Buffer) => this.#take(bytes));
    channel.once("error", () => this.end());
    channel.once("close", () => this.end());
  }

  static open(client: Client, kind: keyof typeof loops): Promise<Shell> {
    return new Promise((resolve, reject) => {
      client.exec(loops[kind], (error, channel) => {
        if (error === undefined) resolve(new Shell(channel));
        else reject(new Fault("transient", `the server runs no command: ${error.message}`, { cause: error }));
      });
    });
  }

  get closed(): boolean {
    return this.#over;
  }

  ask(path: Buffer, ms: number): Promise<string | undefined> {
    if (this.#over) return Promise.reject(new Fault("transient", "the server's shell ended"));
    return new Promise((done, fail) => {
      this.#asked.push({ done, fail, ms });
      if (this.#asked.length === 1) this.#watch();
      this.#channel.write(Buffer.concat([path, Buffer.from("\n")]));
    });
  }

  end(why = new Fault("transient", "the server's shell ended")): void {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#timer);
    for (const { fail } of this.#asked.splice(0)) fail(why);
    this.#channel.destroy();
  }

  #watch(): void {
    clearTimeout(this.#timer);
    const [first] = this.#asked;
    if (first !== undefined)
      this.#timer = setTimeout(() => this.end(new Fault("transient", "sha256sum at the server gave no answer")), first.ms);
  }

  #take(bytes: Buffer): void {
    this.#text += bytes.toString("latin1");
    for (let end = this.#text.indexOf("\n"); end >= 0; end = this.#text.indexOf("\n")) {
      const line = this.#text.slice(0, end);
      this.#text = this.#text.slice(end + 1);
      const answered = this.#asked.shift();
      answered?.done(/^([0-9a-f]{64})\b/.exec(line)?.[1]);
      this.#watch();
    }
    // A login that prints text without end.
    if (this.#text.length > 10_000) this.end();
  }
}

export class Digester {
  readonly #client: Client;
  readonly #timeoutMs: number;
  readonly #shells = new Map<"small" | "large", Promise<Shell>>();
  #over = false;

  constructor(client: Client, timeoutMs: number) {
    this.#client = client;
    this.#timeoutMs = timeoutMs;
  }

  /** Whether this server has a shell and `sha256sum`. */
  async works(): Promise<boolean> {
    try {
      const shell = await this.#shell("small");
      return (await shell.ask(Buffer.from("/dev/null"), Math.min(this.#timeoutMs, 10_000))) === ofNothing;
    } catch {
      // Whatever it is (a chroot, a forced command, a login that prints), there are no digests. A broken connection is noticed by what comes next.
      return false;
    }
  }

  /** undefined where it cannot be told: the shell does not see that file, or its name has a line end. Throws "transient". */
  async digest(path: Buffer, size: number): Promise<Digest | undefined> {
    if (path.includes(0x0a)) return undefined;
    const shell = await this.#shell(size > largeBytes ? "large" : "small");
    const hex = await shell.ask(path, this.#timeoutMs + size / slowest);
    return hex === undefined ? undefined : `sha256:${hex}`;
  }

  end(): void {
    this.#over = true;
    for (const shell of this.#shells.values()) shell.then((it) => it.end()).catch(() => undefined);
  }

  async #shell(kind: "small" | "large"): Promise<Shell> {
    const opening = this.#shells.get(kind) ?? Shell.open(this.#client, kind);
    this.#shells.set(kind, opening);
    const again = (): void => {
      if (this.#shells.get(kind) === opening) this.#shells.delete(kind);
    };
    try {
      const shell = await opening;
      if (!shell.closed || this.#over) return shell;
    } catch (error) {
      again();
      throw error;
    }
    again();
    return this.#shell(kind);
  }
}
