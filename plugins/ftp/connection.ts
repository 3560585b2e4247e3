/**
 * A connection as one piece of work sees it: what it asks, and the files that it moves, on a login that others may share.
 *
 * When the signal is given nothing more is asked. A transfer that runs is broken off by closing its data connection; the login stays good
 * for the others, unless the server then does not answer.
 */
import { once } from "node:events";
import { TLSSocket } from "node:tls";
import { abortedFault, Fault, isFault, orAborted, throwIfAborted } from "../../core/errors.js";
import { tlsPieceBytes } from "../../core/net.js";
import { parentOf } from "../../core/paths.js";
import type { Chunk, Digest, Reading } from "../../core/plugin.js";
import { type Answer, type Asked, ProtocolError, Refusal, Silence } from "./control.js";
import type { Data } from "./data.js";
import { continuesNever, saysWhy, StoreRefusal } from "./faults.js";
import { parseFacts, parseListLine, parseTime, type Listed } from "./listing.js";
import { type Login, taken } from "./login.js";
import { nameFromWire, readable, wirePath } from "./wire.js";

export type { Answer } from "./control.js";
export { Refusal } from "./control.js";

/** The server did not say that it takes, or gives, a file. */
export class Held extends Silence {}

/** After a signal: a server that has not answered by then is given up. */
const patienceMs = 1500;

/** What may wait in a data socket. */
const queuedBytes = 2 ** 20;
/**
 * What STOR sends before the server has said that it takes the file, so that a small file waits for nothing. A server that cannot yet (vsftpd waits for
 * an earlier transfer to give up its lock) would be sent all that sockets hold, with each try. APPE sends nothing: what an abandoned try had sent would be
 * appended once the lock is free.
 */
const earlyBytes = 256 * 1024;
/** What lists more has lost its end, or wants to fill our memory. */
const longestLine = 64 * 1024;
const mostEntries = 500_000;
/** So many questions go out before the answers to them were read: others use the login, too. */
const askedTogether = 100;

export class Connection {
  readonly #login: Login;
  readonly #signal: AbortSignal;

  constructor(login: Login, signal: AbortSignal) {
    this.#login = login;
    this.#signal = signal;
  }

  get closed(): boolean {
    return this.#login.closed;
  }

  /** The server was there from then on, for as long as it answers here: by `performance.now`. */
  get sinceMs(): number {
    return this.#login.sinceMs;
  }

  /** The root as text of bytes, without "/" at its end. */
  get root(): string {
    return this.#login.root;
  }

  /** Whether something can get this name here. */
  canHave(path: string): boolean {
    return this.#login.unsafe(wirePath(this.root, path).slice(this.root.length)) === undefined;
  }

  /** The path of something that is to get this name. Throws "rejected" when it cannot have it there. */
  newPath(path: string): string {
    const wire = wirePath(this.root, path);
    const reason = this.#login.unsafe(wire.slice(this.root.length));
    if (reason !== undefined) throw new Fault("rejected", `the name ${JSON.stringify(path)} ${reason}`);
    return wire;
  }

  has(feature: string): boolean {
    return this.#login.has(feature);
  }

  /** Runs `work`. Throws a Fault whose message opens with `what`; "aborted" within 2 s of the signal. */
  async run<T>(what: string, work: () => Promise<T>): Promise<T> {
    const signal = this.#signal;
    throwIfAborted(signal);
    let timer: NodeJS.Timeout | undefined;
    const hurry = (): void => {
      this.#login.control.sweep();
      timer = setTimeout(() => this.#login.close(), patienceMs);
    };
    signal.addEventListener("abort", hurry, { once: true });
    try {
      return await work();
    } catch (error) {
      if (signal.aborted) throw abortedFault(signal);
      throw this.#login.fault(error, what);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", hurry);
    }
  }

  /** One command and its answer, also one of refusal. `waitMs`: how long the answer may take, where that is longer than usual. */
  async ask(command: string, waitMs?: number): Promise<Answer> {
    throwIfAborted(this.#signal);
    const answer = await this.#login.control.ask(command, undefined, waitMs, this.#signal);
    throwIfAborted(this.#signal);
    return answer;
  }

  /** Commands in one packet, and their answers in order: one round trip. Only for commands that do no harm when the one before is refused. */
  async askAll(asked: readonly Asked[]): Promise<Answer[]> {
    throwIfAborted(this.#signal);
    const answers = await Promise.all(this.#login.control.askAll(asked, this.#signal));
    throwIfAborted(this.#signal);
    return answers;
  }

  /** Whether a directory can be entered; every other path here is absolute. It is left again: Pure-FTPd gives up a login whose directory was removed. */
  enter(dir: string): Promise<Answer> {
    return this.#login.inDirectory(async () => {
      const [entered] = await this.askAll([{ command: `CWD ${dir}` }, { command: `CWD ${this.root === "" ? "/" : this.root}` }]);
      return entered ?? { code: 451, text: "no answer" };
    });
  }

  /** Bytes free below a directory (text of bytes), or below the nearest one that is there; undefined where the server does not tell. Throws Refusal. */
  async available(dir: string): Promise<number | undefined> {
    if (!this.has("AVBL")) return undefined;
    const answer = await this.ask(`AVBL ${dir === "" ? "/" : dir}`);
    // It is made by the first upload.
    if (isAbsent(answer) && dir !== "") return this.available(parentOf(dir));
    if (isUnknownCommand(answer)) return undefined;
    const number = /^(\d+)\s*$/.exec(taken(answer).text);
    return answer.code === 213 && number !== null ? Number(number[1]) : undefined;
  }

  /** One command that must be taken. Throws Refusal. */
  async command(command: string): Promise<Answer> {
    return taken(await this.ask(command));
  }

  /**
   * The size of a plain file; undefined when there is none. Some servers say no number for an empty file (ftp-srv), or know no SIZE:
   * then the directory is listed.
   */
  async size(wire: string): Promise<number | undefined> {
    const [size] = await this.sizes(wire);
    return size;
  }

  /** The sizes of files, in one round trip. */
  async sizes(...wires: readonly string[]): Promise<(number | undefined)[]> {
    const answers = await this.askAll(wires.map((wire) => ({ command: `SIZE ${wire}`, codes: /^213/ })));
    const sizes: (number | undefined)[] = [];
    for (const [n, wire] of wires.entries()) sizes.push(await this.#sizeOf(wire, answers[n] ?? { code: 451, text: "no answer" }));
    return sizes;
  }

  async #sizeOf(wire: string, answer: Answer): Promise<number | undefined> {
    const size = told(answer);
    // Who may only write to a ProFTPD ("<Limit READ>") is refused SIZE as well, and told by MLST.
    const refused = answer.code === 550 && this.has("MLST") && saysWhy(answer.text);
    if (size !== undefined || (answer.code === 550 && !refused)) return size;
    if (answer.code !== 213 && !refused && !isUnknownCommand(answer)) throw new Refusal(answer);
    const found = await this.entry(wire);
    return found?.kind === "file" ? found.size : undefined;
  }

  /** The size of what SIZE takes for a file, perhaps by a link; undefined where it says none. */
  async sizeTold(wire: string): Promise<number | undefined> {
    return told(await this.ask(`SIZE ${wire}`));
  }

  /** The time of a file in ms; undefined when the server does not say. */
  async modified(wire: string): Promise<number | undefined> {
    const answer = await this.ask(`MDTM ${wire}`);
    return answer.code === 213 ? parseTime(answer.text) : undefined;
  }

  /** With the time of each file of a directory (a path of core), asked one by one where the listing has none and the server tells them. */
  async timed(dir: string, listed: readonly Listed[]): Promise<Listed[]> {
    if (!this.has("MDTM")) return [...listed];
    const below = dir === "" ? "" : `${dir}/`;
    const timed: Listed[] = [];
    for (let from = 0; from < listed.length; from += askedTogether) {
      const asked = listed.slice(from, from + askedTogether).map(async (it) => {
        if (it.kind !== "file" || it.modifiedMs !== undefined) return it;
        const modifiedMs = await this.modified(wirePath(this.root, below + it.name)).catch((error: unknown) => {
          // Of a name that this server is not asked for nobody knows the time.
          if (isFault(error, "rejected")) return undefined;
          throw error;
        });
        return modifiedMs === undefined ? it : { ...it, modifiedMs };
      });
      timed.push(...(await Promise.all(asked)));
    }
    return timed;
  }

  /** What is at a path, by MLST or by the listing of its directory; undefined when nothing is. */
  async entry(wire: string): Promise<Listed | undefined> {
    const at = wire.lastIndexOf("/");
    if (this.has("MLST")) {
      const answer = await this.ask(`MLST ${wire}`);
      const line = answer.text.split("\n").find((text) => /^ ?\S+=\S*; /.test(text));
      if (answer.code === 250 && line !== undefined) {
        const facts = line.replace(/^ /, "");
        // Servers answer with the whole path or with the name alone: the name that was asked for is the one.
        return parseFacts(`${facts.slice(0, facts.indexOf(" "))} ${wire.slice(at + 1)}`);
      }
      if (answer.code === 550) return undefined;
      if (!isUnknownCommand(answer)) throw new Refusal(answer);
    }
    const name = wire.slice(at + 1);
    const listed = await this.#listedFrom(wire.slice(0, at) || "/");
    if (!Array.isArray(listed)) {
      if (listed.code === 550) return undefined;
      throw new Refusal(listed);
    }
    const shown = nameFromWire(name);
    return listed.find((it) => it.name === shown);
  }

  /** One directory. Throws Refusal 550 when there is none. */
  async list(wire: string): Promise<Listed[]> {
    if (this.has("MLST")) return this.#entries([`MLSD ${wire}`], parseFacts);
    const listed = await this.#listIn(wire);
    if (!Array.isArray(listed)) throw new Refusal(listed);
    return listed;
  }

  /** One directory, or the answer to who would enter it and may not: what is said of a listing does not tell what is missing from what is forbidden. */
  async enterAndList(wire: string): Promise<Listed[] | Answer> {
    if (!this.has("MLST")) return this.#listIn(wire);
    const entered = await this.enter(wire);
    return entered.code >= 400 ? entered : this.list(wire);
  }

  /** Has the server copy a file of so many bytes. Not on a login that others use. Throws Refusal, and "rejected" where it does not copy this one. */
  async copy(from: string, to: string, size: number): Promise<void> {
    for (const command of [`SITE CPFR ${from}`, `SITE CPTO ${to}`]) {
      const answer = await this.ask(command, this.#patienceMs(size));
      if (answer.code >= 500 && answer.code !== 552)
        throw new Fault("rejected", `the server does not copy it: ${answer.code} ${answer.text}`);
      taken(answer);
    }
  }

  /** How long a server may take that reads so many bytes while nothing is said: 5 MB/s is a slow disk. */
  #patienceMs(bytes: number): number {
    return this.#login.options.timeout + bytes / 5000;
  }

  /** Whether the server digests by itself. */
  get digests(): boolean {
    return this.#login.digestCommand !== undefined;
  }

  /** The digest of the whole file, by the server. Undefined when it has no command for it, or will not. */
  async digest(wire: string, size: number): Promise<Digest | undefined> {
    const command = this.#login.digestCommand;
    if (command === undefined) return undefined;
    const answer = await this.ask(`${command} ${wire}`, this.#patienceMs(size));
    const hex = answer.code < 300 ? /(?:^|[^0-9a-f])([0-9a-f]{64})(?:[^0-9a-f]|$)/i.exec(answer.text)?.[1] : undefined;
    if (answer.code >= 400 && answer.code < 500) throw new Refusal(answer);
    return hex === undefined ? undefined : `sha256:${hex.toLowerCase()}`;
  }

  /**
   * Sends at most `limit` bytes by STOR or APPE; resolves with their number once the server has said that it took them. When `source` ends
   * with an error, what it gave before is sent on, so that it is kept there, and the error is thrown. More than a beginning is sent only to a
   * server that says 125 or 150 (RFC 959 asks it to): throws Held where it does not say so within `patienceMs`, or for as long as any answer may take.
   */
  async store(
    command: "STOR" | "APPE",
    wire: string,
    source: Reading,
    limit: number,
    onBytes: (n: number) => void,
    patienceMs?: number,
  ): Promise<number> {
    const { control } = this.#login;
    const signal = this.#signal;
    let sent = 0;
    const broken: { error?: Error } = {};
    const next = async (): Promise<Chunk | undefined> => {
      // While we have nothing to send the server is not to blame for the silence.
      const rest = control.rest();
      try {
        return await orAborted(source.next(), signal);
      } catch (error) {
        broken.error = error as Error;
        return undefined;
      } finally {
        rest();
      }
    };
    // Read while earlier transfers still run.
    const first = next();
    let early = command === "STOR" ? earlyBytes : 0;
    let waits = true;
    try {
      await this.#transfer([`${command} ${wire}`], async (data) => {
        if (patienceMs !== undefined) this.#expectBegun(data, patienceMs);
        await data.ready;
        waits = false;
        let answered = false;
        data.answer.then(
          () => (answered = true),
          () => (answered = true),
        );
        void data.begun.then(() => (early = Infinity));
        const put = (bytes: Buffer, used?: () => void): void => {
          data.socket.write(bytes, used);
          sent += bytes.length;
          onBytes(bytes.length);
        };
        for (let chunk = await first; chunk !== undefined; chunk = sent < limit ? await next() : undefined) {
          if (answered || data.socket.destroyed) break;
          let bytes = chunk.bytes.subarray(0, limit - sent);
          const now = early - sent;
          if (now < bytes.length) {
            if (now > 0) put(bytes.subarray(0, now));
            bytes = bytes.subarray(Math.max(0, now));
            waits = true;
            await orEnded(data, () => data.begun);
            if (answered || data.socket.destroyed) break;
            waits = false;
          }
          const most = data.socket instanceof TLSSocket ? tlsPieceBytes : queuedBytes;
          do {
            put(bytes.subarray(0, most), bytes.length > most ? undefined : chunk.release);
            bytes = bytes.subarray(most);
            // So that the next is read and digested while this one goes out.
            if (data.socket.writableLength > most) await orEnded(data, (over) => once(data.socket, "drain", over));
          } while (bytes.length > 0 && !answered && !data.socket.destroyed);
        }
        data.socket.resume();
        if (!signal.aborted) data.socket.end();
        const answer = taken(await data.answer);
        if (!data.socket.writableFinished && broken.error === undefined)
          throw new Fault("transient", `the server ended the transfer before all was sent ("${answer.code} ${readable(answer.text)}")`);
      });
      if (broken.error !== undefined) throw broken.error;
      return sent;
    } catch (error) {
      if (error instanceof Refusal) throw new StoreRefusal(error.answer);
      throw waits ? orHeld(error, "takes") : error;
    } finally {
      source.close();
    }
  }

  #expectBegun({ begun, answer }: Data, withinMs: number): void {
    const timer = setTimeout(() => this.#login.control.fail(new Silence("no answer came")), withinMs);
    const heard = () => clearTimeout(timer);
    void begun.then(heard);
    answer.then(heard, heard);
  }

  /**
   * What a file holds from `offset` on, `length` bytes; more of them where it holds more, or the server gives another part than it was asked for: then the connection is ended. Undefined where the
   * server does not give it. Throws Held where it does not begin within `patienceMs`.
   */
  async part(wire: string, offset: number, length: number, patienceMs: number): Promise<Buffer | undefined> {
    const parts: Buffer[] = [];
    let came = 0;
    let waits = true;
    try {
      await this.#transfer(retrieving(wire, offset), async (data) => {
        this.#expectBegun(data, patienceMs);
        void data.begun.then(() => (waits = false));
        await data.ready;
        for (const answer of data.before) taken(await answer);
        for await (const chunk of data.socket as AsyncIterable<Buffer>) {
          this.#login.control.touch();
          parts.push(chunk);
          came += chunk.length;
          if (came > length) {
            this.#login.close();
            return;
          }
        }
        taken(await data.answer);
      });
    } catch (error) {
      if (error instanceof Refusal && (error.code >= 500 || continuesNever(error, wire))) return undefined;
      throw waits ? orHeld(error, "gives") : error;
    }
    return Buffer.concat(parts);
  }

  /** The bytes of a file from `offset`; ends once the server has said that it sent all. Whoever stops before that breaks the connection. */
  async *retrieve(wire: string, offset: number): AsyncGenerator<Buffer> {
    yield* this.#received(retrieving(wire, offset));
  }

  async *#received(commands: readonly string[]): AsyncGenerator<Buffer> {
    const login = this.#login;
    let broken = true;
    // A generator cannot run inside a callback: the transfer is held open until it has ended.
    let opened: (data: Data) => void = () => undefined;
    let close: () => void = () => undefined;
    const data$ = new Promise<Data>((resolve) => (opened = resolve));
    const closed = new Promise<void>((resolve) => (close = resolve));
    let refusal: Refusal | undefined;
    const held = this.#transfer(
      commands,
      async (data) => {
        opened(data);
        await closed;
      },
      (answer) => (refusal = new Refusal(answer)),
    );
    try {
      const data = await Promise.race([data$, held.then(() => Promise.reject(abortedFault(this.#signal)))]);
      await data.ready;
      for (const answer of data.before) taken(await answer);
      for await (const chunk of data.socket as AsyncIterable<Buffer>) {
        login.control.touch();
        const rest = login.control.rest();
        try {
          yield chunk;
        } finally {
          rest();
        }
      }
      taken(await data.answer);
      broken = false;
    } catch (error) {
      const why = refusal ?? error;
      broken = !(why instanceof Refusal);
      throw why;
    } finally {
      if (broken) login.close();
      close();
      await held.catch(() => undefined);
    }
  }

  /** One transfer; the signal closes its data connection. A refusal counts for more than what it did to the data connection. */
  #transfer(commands: readonly string[], work: (data: Data) => Promise<void>, onRefusal?: (answer: Answer) => void): Promise<void> {
    const signal = this.#signal;
    return this.#login.transfer(signal, commands, async (data) => {
      // Where nothing goes over it any more, some servers leave the data connection open for minutes.
      data.answer.then(
        (answer) => {
          if (answer.code < 400) return;
          onRefusal?.(answer);
          data.socket.destroy();
        },
        () => data.socket.destroy(),
      );
      const stop = (): void => void data.socket.destroy();
      signal.addEventListener("abort", stop, { once: true });
      if (signal.aborted) stop();
      try {
        await work(data);
      } catch (error) {
        data.socket.destroy();
        if (error instanceof Refusal) throw error;
        const answer = await data.answer;
        throw answer.code >= 400 && !signal.aborted ? new Refusal(answer) : error;
      } finally {
        signal.removeEventListener("abort", stop);
      }
    });
  }

  /** What a directory holds from now on. One listing is for all that ask for it before it begins. */
  async #listedFrom(wire: string): Promise<Listed[] | Answer> {
    const { listings } = this.#login;
    for (let shared = listings.get(wire); shared !== undefined; shared = listings.get(wire)) {
      // How another's ended, as by its signal, says nothing of ours.
      const listed = await shared.catch(() => undefined);
      if (listed !== undefined) return listed;
    }
    const own = this.#listIn(wire, () => listings.delete(wire));
    listings.set(wire, own);
    return own;
  }

  /** LIST in a directory. With a path behind LIST, vsftpd, ProFTPD and Pure-FTPd would take *, ?, [ and { in it for patterns. */
  async #listIn(wire: string, begins: () => void = () => undefined): Promise<Listed[] | Answer> {
    return this.#login.inDirectory(async () => {
      begins();
      const entered = await this.ask(`CWD ${wire}`);
      if (entered.code >= 400) return entered;
      try {
        return await this.#entries(["LIST -a"], parseListLine);
      } catch (error) {
        // Small servers take "-a" for a name.
        if (!(error instanceof Refusal)) throw error;
        return this.#entries(["LIST"], parseListLine);
      }
    });
  }

  /** The entries of a listing; one without a name tells of those that the server left out. */
  async #entries(commands: readonly string[], parse: (line: string) => Listed | undefined): Promise<Listed[]> {
    const listed: Listed[] = [];
    const take = (line: string): void => {
      const bare = line.replace(/\r$/, "");
      const entry = bare === "" ? undefined : parse(bare);
      if (entry !== undefined) listed.push(entry);
    };
    let said: Answer | undefined;
    let waits = false;
    await this.#transfer(commands, async (data) => {
      await data.ready;
      waits = true;
      data.answer.then(
        () => (waits = false),
        () => undefined,
      );
      let rest = "";
      for await (const chunk of data.socket as AsyncIterable<Buffer>) {
        this.#login.control.touch();
        const lines = (rest + chunk.toString("latin1")).split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines) take(line);
        if (rest.length > longestLine || listed.length > mostEntries)
          this.#login.control.fail(new ProtocolError("the server's listing of a directory has no end"));
      }
      take(rest);
      said = await data.answer;
      taken(said);
    }).catch((error: unknown) => {
      if (!waits || !(error instanceof Silence)) throw error;
      const seconds = this.#login.options.timeout / 1000;
      throw new Silence(
        `no listing came within ${seconds} s; where the server needs longer for all that is there, give it a longer "timeout"`,
        {
          cause: error,
        },
      );
    });
    // vsftpd says so in an answer of success, behind an empty list; Pure-FTPd ends a list after 10,000 entries (its "-L").
    if (said !== undefined && /failed to open directory/i.test(said.text)) throw new Refusal({ code: 550, text: said.text });
    if (said === undefined || !/truncated/i.test(said.text)) return listed;
    const reason = `the server left out the rest: it said "${said.text.trim()}": have it list more of one directory (Pure-FTPd: -L)`;
    return [...listed, { name: "", kind: "unreadable", size: 0, reason }];
  }
}

function retrieving(wire: string, offset: number): string[] {
  return offset > 0 ? [`REST ${offset}`, `RETR ${wire}`] : [`RETR ${wire}`];
}

/** Of a transfer that the server did not begin. */
function orHeld(error: unknown, does: "takes" | "gives"): unknown {
  if (!(error instanceof Silence)) return error;
  return new Held(`the server did not say that it ${does} the file (150): an earlier transfer may still hold it there`, { cause: error });
}

/** `what`, or the transfer has ended. Throws when the control connection fails. */
async function orEnded(data: Data, what: (over: { signal: AbortSignal }) => Promise<unknown>): Promise<void> {
  if (data.socket.destroyed) return;
  const over = new AbortController();
  const options = { signal: over.signal };
  try {
    await Promise.race([what(options), once(data.socket, "close", options), data.answer]);
  } catch (error) {
    if (!data.socket.destroyed) throw error;
  } finally {
    over.abort();
  }
}

/** What SIZE answered; undefined where that is no number. */
function told({ code, text }: Answer): number | undefined {
  const number = /^(\d+)/.exec(text.trim());
  return code === 213 && number !== null ? Number(number[1]) : undefined;
}

export function isUnknownCommand(answer: Answer): boolean {
  return answer.code === 500 || answer.code === 502 || answer.code === 504;
}

/** Whether the answer says that nothing is there, rather than another reason. */
export function isAbsent(answer: Answer): boolean {
  return answer.code === 550 && !saysWhy(answer.text);
}
