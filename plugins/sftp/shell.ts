/**
 * SHA-256 by the server's own `sha256sum` (of large files `openssl`, of small ones perl, if these are there), where it allows commands. One shell per kind of file reads names from its input, up to an
 * empty line, and answers each with a line: a small file costs no login, no channel and no round trip of its own, and those that are asked while others are digested share a program.
 *
 * Names go as bytes on a line, never through the shell's grammar; one that holds a line end gets no digest.
 */
import type { Socket } from "node:net";
import type { Client, ClientChannel } from "ssh2";
import { Fault } from "../../core/errors.js";
import type { Digest } from "../../core/plugin.js";
import { Departure } from "./socket.js";

// `exec sh -c '…'` is the same in sh, bash, zsh, fish and csh.
const loopOf = (all: string, first = ""): string =>
  `exec sh -c '${first}set --; while IFS= read -r f; do if [ "$f" ]; then set -- "$@" "$f"; continue; fi; ${all}; set --; done'`;
const eachBy = (digest: string): string => `for f do ${digest} || echo -; done`;
const small = 'sha256sum <"$f" 2>/dev/null';
/** It leaves out what it cannot read: then each is asked alone. */
const together = 'o=$(sha256sum "$@" </dev/null 2>/dev/null) && printf "%s\\n" "$o"';
/** openssl begins later, and is up to four times as fast: it uses what the processor has for SHA-256. */
const large = `openssl dgst -sha256 -r <"$f" 2>/dev/null || ${small}`;
/** To begin a program takes longer than to digest so much; perl, whose Digest::SHA uses nothing of the processor's own, begins once for all. */
const quickBytes = 512 * 1024;
/** As the loop, but that the empty line says nothing. In double quotes of sh, in single ones of any shell. */
const perl = [
  "binmode STDIN; binmode STDOUT; $|=1;",
  "while (defined(my $f=<STDIN>)) { chomp $f; next if $f eq q{}; my $s=eval {",
  "open(my $h, q{<}, $f) or die; binmode $h;",
  `if ((-s $h || 0) > ${quickBytes}) { open(my $p, q{-|}, q{sha256sum}, q{--}, $f) or die; my $l=<$p>; close($p) or die; return $l =~ /([0-9a-f]{64})/ ? $1 : die }`,
  "my $d=Digest::SHA->new(256); while (sysread($h, my $b, 131072) // die) { $d->add($b) } $d->hexdigest };",
  "print((defined $s ? $s : q{-}) . chr(10)) }",
].join(" ");
const byPerl = `sha256sum </dev/null >/dev/null 2>&1 && perl -MDigest::SHA -e 1 2>/dev/null && exec perl -MDigest::SHA -e "${perl.replaceAll("$", "\\$")}" 2>/dev/null; `;
export const loops = { small: loopOf(`${together} || ${eachBy(small)}`, byPerl), large: loopOf(eachBy(large)) } as const;
/** Of a line that a loop answers: in hexadecimal digits, or undefined. A backslash says that the name behind it is not written as it is. */
export const digestIn = (line: string): string | undefined => /^\\?([0-9a-f]{64})\b/.exec(line)?.[1];
const ofNothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/** What is larger has a shell of its own: small files do not wait for it. */
export const largeBytes = 8 * 2 ** 20;
/** What is asked at once: so many names, or so many bytes to digest. */
const mostNames = 32;
const mostBytes = 4 * 2 ** 20;
/** So long a shell may take for its first answer, and so many times the device's timeout where one is known to be there. */
const firstMs = 10_000;
const slowBeginnings = 4;
/** A slow disk gives so many bytes per millisecond. */
const slowest = 2000;

interface Asked {
  readonly path: Buffer;
  readonly size: number;
  /** So long it may take for an answer, beside reading the file. */
  readonly patienceMs: number;
  readonly done: (hex: string | undefined) => void;
  readonly fail: (error: Fault) => void;
}

class Shell {
  readonly #channel: ClientChannel;
  readonly #departure: Departure | undefined;
  readonly #waiting: Asked[] = [];
  /** What the shell was told, in that order. */
  #asked: Asked[] = [];
  #timer: NodeJS.Timeout | undefined;
  #text = "";
  #over = false;

  constructor(channel: ClientChannel, departure?: Departure) {
    this.#channel = channel;
    this.#departure = departure;
    channel.stderr.resume();
    channel.on("data", (bytes: Buffer) => this.#take(bytes));
    channel.once("error", () => this.end());
    channel.once("close", () => this.end());
  }

  /** Throws "transient", also where the server says neither yes nor no for `patienceMs`. */
  static open(client: Client, kind: keyof typeof loops, patienceMs: number, departure?: Departure): Promise<Shell> {
    return new Promise((resolve, reject) => {
      let late = false;
      departure?.heard();
      const timer = setTimeout(() => {
        if (departure?.excuses() === true) {
          timer.refresh();
          return;
        }
        late = true;
        reject(new Fault("transient", "the server gives no answer to the wish for a command"));
      }, patienceMs).unref();
      client.exec(loops[kind], (error, channel) => {
        clearTimeout(timer);
        if (error === undefined && late) channel.destroy();
        else if (error === undefined) resolve(new Shell(channel, departure));
        else reject(new Fault("transient", `the server runs no command: ${error.message}`, { cause: error }));
      });
    });
  }

  get closed(): boolean {
    return this.#over;
  }

  ask(path: Buffer, size: number, patienceMs: number): Promise<string | undefined> {
    if (this.#over) return Promise.reject(new Fault("transient", "the server's shell ended"));
    return new Promise((done, fail) => {
      this.#waiting.push({ path, size, patienceMs, done, fail });
      if (this.#asked.length === 0 && this.#waiting.length === 1) setImmediate(() => this.#send());
    });
  }

  end(why = new Fault("transient", "the server's shell ended")): void {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#timer);
    for (const { fail } of [...this.#asked.splice(0), ...this.#waiting.splice(0)]) fail(why);
    this.#channel.destroy();
  }

  #send(): void {
    if (this.#over || this.#asked.length > 0) return;
    let count = 0;
    for (let bytes = 0; count < Math.min(mostNames, this.#waiting.length); count++) {
      bytes += this.#waiting[count]?.size ?? 0;
      if (count > 0 && bytes > mostBytes) break;
    }
    this.#asked = this.#waiting.splice(0, count);
    if (count === 0) return;
    const end = Buffer.from("\n");
    this.#channel.write(Buffer.concat([...this.#asked.flatMap(({ path }) => [path, end]), end]));
    this.#watch();
  }

  #watch(): void {
    clearTimeout(this.#timer);
    const [first] = this.#asked;
    if (first === undefined) return;
    this.#departure?.heard();
    const readMs = this.#asked.reduce((sum, { size }) => sum + size, 0) / slowest;
    this.#timer = setTimeout(() => this.#silent(), first.patienceMs + readMs);
  }

  #silent(): void {
    if (this.#departure?.excuses() === true) this.#timer?.refresh();
    else this.end(new Fault("transient", "sha256sum at the server gave no answer"));
  }

  #take(bytes: Buffer): void {
    this.#text += bytes.toString("latin1");
    for (let end = this.#text.indexOf("\n"); end >= 0; end = this.#text.indexOf("\n")) {
      const line = this.#text.slice(0, end);
      this.#text = this.#text.slice(end + 1);
      const answered = this.#asked.shift();
      answered?.done(digestIn(line));
      this.#watch();
    }
    this.#send();
    // A login that prints text without end.
    if (this.#text.length > 10_000) this.end();
  }
}

export class Digester {
  readonly #client: Client;
  readonly #timeoutMs: number;
  readonly #socket: Socket | undefined;
  readonly #shells = new Map<"small" | "large", Promise<Shell>>();
  #over = false;

  /** `socket`: what is below the client. */
  constructor(client: Client, timeoutMs: number, socket?: Socket) {
    this.#client = client;
    this.#timeoutMs = timeoutMs;
    this.#socket = socket;
  }

  /** Whether this server has a shell and `sha256sum`. `did`: it had before, so it may only be slow to begin (a disk that sleeps, a machine that is busy). */
  async works(did = false): Promise<boolean> {
    try {
      const patienceMs = did ? slowBeginnings * this.#timeoutMs : Math.min(this.#timeoutMs, firstMs);
      const shell = await this.#shell("small", patienceMs);
      return (await shell.ask(Buffer.from("/dev/null"), 0, patienceMs)) === ofNothing;
    } catch {
      // Whatever it is (a chroot, a forced command, a login that prints), there are no digests. A broken connection is noticed by what comes next.
      return false;
    }
  }

  /** undefined where it cannot be told: the shell does not see that file, or its name has a line end. Throws "transient". */
  async digest(path: Buffer, size: number): Promise<Digest | undefined> {
    if (path.includes(0x0a)) return undefined;
    const shell = await this.#shell(size > largeBytes ? "large" : "small");
    const hex = await shell.ask(path, size, this.#timeoutMs);
    return hex === undefined ? undefined : `sha256:${hex}`;
  }

  end(): void {
    this.#over = true;
    for (const shell of this.#shells.values()) shell.then((it) => it.end()).catch(() => undefined);
  }

  async #shell(kind: "small" | "large", patienceMs = this.#timeoutMs): Promise<Shell> {
    const opening = this.#shells.get(kind) ?? Shell.open(this.#client, kind, patienceMs, this.#socket && new Departure(this.#socket));
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
