/**
 * Logins that are used again. All work shares them: what is asked at the same time goes out together, so one connection does for many files,
 * and a second lets the server use another processor.
 */
import { abortedFault, Fault, isFault, orAborted, throwIfAborted } from "../../core/errors.js";
import type { Clock, DigestKind, Memo, PluginContext } from "../../core/plugin.js";
import { sftpFault } from "./faults.js";
import { logIn, type Login } from "./login.js";
import { asksForDigests, type SftpOptions } from "./options.js";
import { copying } from "./session.js";

/** In the device's memory: it digested at the last login. */
const digestsKey = "digests";
const most = 2;
const idleMs = 30_000;
/** After a server refused one more connection: so long none is tried. */
const modestMs = 60_000;

interface Entry {
  readonly opening: Promise<Login>;
  login?: Login;
  users: number;
  idleSinceMs: number;
}

/** A login that somebody uses for longer than one call. */
export interface Lease {
  readonly login: Login;
  end(): void;
}

export class Pool {
  readonly #options: SftpOptions;
  readonly #clock: Clock;
  readonly #memory: Memo;
  #entries: Entry[] = [];
  #digests: readonly DigestKind[] | undefined;
  #copies = false;
  #modestUntilMs = 0;
  #timer: NodeJS.Timeout | undefined;
  readonly #over = new AbortController();

  constructor(options: SftpOptions, context: PluginContext) {
    this.#options = options;
    this.#clock = context.clock;
    this.#memory = context.memory;
  }

  /** What the server digests by itself; undefined before that is known of the first login. */
  get digests(): readonly DigestKind[] | undefined {
    return this.#digests;
  }

  /** Whether the server copies by itself; known after the first login. */
  get copies(): boolean {
    return this.#copies;
  }

  /** Runs `work` with a login. Throws Faults whose message opens with `what`; ends with the signal, whatever the work does. */
  async with<T>(signal: AbortSignal, what: string, work: (login: Login) => Promise<T>): Promise<T> {
    const lease = await this.lease(signal);
    try {
      return await this.run(what, () => orAborted(work(lease.login), signal));
    } finally {
      lease.end();
    }
  }

  /** Makes Faults of what `work` throws. */
  async run<T>(what: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw sftpFault(error, { what, clockTrusted: this.#clock.trusted() });
    }
  }

  async lease(signal: AbortSignal): Promise<Lease> {
    throwIfAborted(signal);
    throwIfAborted(this.#over.signal);
    const entry = this.#pick();
    entry.users += 1;
    let over = false;
    const end = (): void => {
      if (over) return;
      over = true;
      entry.users -= 1;
      entry.idleSinceMs = this.#clock.monotonicMs();
      this.#entries = this.#entries.filter(({ login }) => login?.closed !== true);
    };
    try {
      return { login: await orAborted(entry.opening, signal), end };
    } catch (error) {
      end();
      const others = this.#entries.some((it) => it !== entry && it.login?.closed === false);
      if (entry.login === undefined && others && !isFault(error, "aborted")) return this.lease(signal);
      throw error;
    }
  }

  close(): void {
    this.#over.abort(new Fault("aborted", "the device was closed"));
    clearTimeout(this.#timer);
    for (const { login } of this.#entries.splice(0)) login?.end(new Fault("aborted", "the device was closed"));
  }

  /** The one with the least to do, or a new one while there may be more. */
  #pick(): Entry {
    this.#entries = this.#entries.filter(({ login }) => login?.closed !== true);
    const load = ({ users, login }: Entry): number => users + (login?.session.load ?? 0);
    const [first] = [...this.#entries].sort((a, b) => load(a) - load(b));
    const more = this.#entries.length < Math.min(most, this.#options.concurrency) && this.#clock.monotonicMs() >= this.#modestUntilMs;
    if (first === undefined || (load(first) > 0 && first.login !== undefined && more)) return this.#open();
    return first;
  }

  #open(): Entry {
    // It does not end with who asked first: others may have come to wait for it.
    const opening = logIn(this.#options, this.#clock, this.#over.signal, this.#memory.get(digestsKey) === true);
    const entry: Entry = { opening, users: 0, idleSinceMs: this.#clock.monotonicMs() };
    this.#entries.push(entry);
    opening.then(
      (login) => {
        entry.login = login;
        void login.digester.then((digester) => {
          // Of a connection that broke nobody knows.
          if (login.closed) return;
          this.#digests = digester === undefined ? [] : ["sha256"];
          this.#note(digester !== undefined);
        });
        this.#copies = login.session.can(copying);
        if (this.#over.signal.aborted) login.end(abortedFault(this.#over.signal));
        this.#sweepLater();
      },
      () => {
        this.#entries = this.#entries.filter((it) => it !== entry);
        // A server that is there and lets nobody else in: we do with what we have.
        this.#modestUntilMs = this.#entries.length === 0 ? 0 : this.#clock.monotonicMs() + modestMs;
      },
    );
    return entry;
  }

  /** Without it the next login waits less long for a shell. */
  #note(digests: boolean): void {
    if (!asksForDigests(this.#options) || (this.#memory.get(digestsKey) === true) === digests) return;
    this.#memory.set(digestsKey, digests ? true : undefined).catch(() => undefined);
  }

  #sweepLater(): void {
    if (this.#timer !== undefined || this.#over.signal.aborted) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      const now = this.#clock.monotonicMs();
      for (const { users, login, idleSinceMs } of this.#entries)
        if (users === 0 && now - idleSinceMs >= idleMs) login?.end(new Fault("transient", "it was idle"));
      this.#entries = this.#entries.filter(({ login }) => login?.closed !== true);
      if (this.#entries.length > 0) this.#sweepLater();
    }, idleMs);
    // An idle connection is no reason for a program to stay.
    this.#timer.unref();
  }
}
