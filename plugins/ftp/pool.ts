/**
 * Logins that are used again. Short work shares them, so that a few connections do for many small files: what is asked at the same time
 * goes out together. Work that takes long (a large file, a file that is read) has one for itself.
 *
 * There are at most `concurrency` for sharing, fewer where the server lets us have no more. Idle ones are closed after a while, and looked at
 * before they are used again, since servers end idle connections too.
 */
import { Fault, isFault, orAborted, throwIfAborted } from "../../core/errors.js";
import type { Clock, DigestKind } from "../../core/plugin.js";
import { withSignals } from "../../core/signals.js";
import { Connection } from "./connection.js";
import { Login, type ServerMemory } from "./login.js";
import type { FtpOptions } from "./options.js";

const idleMs = 30_000;
const trustedMs = 2_000;
/** After a server refused one more connection: so long none is tried. */
const modestMs = 60_000;

/** A login, or one that is being opened, and who uses it. */
interface Entry {
  readonly opening: Promise<Login>;
  login?: Login;
  users: number;
  exclusive: boolean;
  idleSinceMs: number;
}

/** A connection of one's own; whoever has it says how it ended. */
export interface Lease {
  readonly connection: Connection;
  /** Ends the use: `whole` when the connection is between two commands, so that it can be used again. */
  end(whole: boolean): void;
}

export class Pool {
  readonly #options: FtpOptions;
  readonly #clock: Clock;
  readonly #server: ServerMemory = { oneByOne: false };
  #entries: Entry[] = [];
  #limit = 0;
  #limitUntilMs = 0;
  /** Who waits for a connection that somebody has for himself. */
  #waiting: (() => void)[] = [];
  #digests: readonly DigestKind[] | undefined;
  #copies = false;
  #timer: NodeJS.Timeout | undefined;
  readonly #over = new AbortController();

  constructor(options: FtpOptions, clock: Clock) {
    this.#options = options;
    this.#clock = clock;
  }

  /** What the server digests by itself; undefined before the first login. */
  get digests(): readonly DigestKind[] | undefined {
    return this.#digests;
  }

  /** Whether the server copies a file by itself; known after the first login. */
  get copies(): boolean {
    return this.#copies;
  }

  /** A connection of one's own. Throws "offline", "denied", "transient", "config". */
  async lease(signal: AbortSignal): Promise<Lease> {
    const { entry, login } = await this.#take(() => {
      this.#forgetClosed();
      const idle = this.#entries.find((it) => it.users === 0 && it.login !== undefined);
      const found = idle ?? (this.#entries.length >= this.#most ? undefined : this.#open());
      if (found !== undefined) found.exclusive = true;
      return found;
    }, signal);
    let over = false;
    return {
      connection: new Connection(login, signal),
      end: (whole) => {
        if (over) return;
        over = true;
        if (!whole) login.close();
        this.#leave(entry);
      },
    };
  }

  /** Runs `work` with a connection that others may share. Throws Faults whose message opens with `what`. */
  async with<T>(signal: AbortSignal, what: string, work: (connection: Connection) => Promise<T>): Promise<T> {
    const { entry, login } = await this.#take(() => this.#shared(), signal);
    try {
      const connection = new Connection(login, signal);
      return await connection.run(what, () => work(connection));
    } finally {
      this.#leave(entry);
    }
  }

  close(): void {
    this.#over.abort(new Fault("aborted", "the device was closed"));
    clearTimeout(this.#timer);
    for (const { login } of this.#entries.splice(0)) login?.close();
  }

  /** How many there may be: what was refused once is not asked for again for a while. */
  get #most(): number {
    return this.#clock.monotonicMs() < this.#limitUntilMs ? this.#limit : Infinity;
  }

  /** The one with the least to do, or a new one while there may be more; undefined when all that there may be are others' own. */
  #shared(): Entry | undefined {
    this.#forgetClosed();
    const mine = this.#entries.filter(({ exclusive }) => !exclusive);
    const load = (it: Entry): number => it.users + (it.login?.load ?? 0);
    const least = mine.length === 0 ? undefined : mine.reduce((a, b) => (load(b) < load(a) ? b : a));
    const enough = this.#entries.length >= Math.min(this.#most, this.#options.concurrency);
    if (least !== undefined && (load(least) === 0 || enough)) return least;
    return this.#entries.length >= this.#most ? undefined : this.#open();
  }

  #open(): Entry {
    // It does not end with who asked first: others may have come to wait for it.
    const opening = Login.open(this.#options, this.#clock, this.#server, this.#over.signal);
    const entry: Entry = { opening, users: 0, exclusive: false, idleSinceMs: 0 };
    this.#entries.push(entry);
    opening.then(
      (login) => {
        entry.login = login;
        entry.idleSinceMs = this.#clock.monotonicMs();
        this.#digests = login.digestCommand === undefined ? [] : ["sha256"];
        this.#copies = login.copies;
        if (this.#over.signal.aborted) login.close();
        for (const look of this.#waiting.splice(0)) look();
        this.#sweepLater();
      },
      (error: unknown) => {
        this.#entries = this.#entries.filter((it) => it !== entry);
        for (const look of this.#waiting.splice(0)) look();
        if (isFault(error, "aborted")) return;
        // A server that is there and lets nobody else in: we do with what we have, or may have yet. Where nobody gets in it is not that.
        const others = this.#entries.filter(({ login }) => login?.closed !== true).length;
        this.#limit = others;
        this.#limitUntilMs = others === 0 ? 0 : this.#clock.monotonicMs() + modestMs;
      },
    );
    return entry;
  }

  /** A login that answers. */
  async #take(pick: () => Entry | undefined, signal: AbortSignal): Promise<{ entry: Entry; login: Login }> {
    for (;;) {
      throwIfAborted(signal);
      throwIfAborted(this.#over.signal);
      const entry = pick();
      if (entry === undefined) {
        const turn = new Promise<void>((resolve) => this.#waiting.push(resolve));
        await withSignals([signal, this.#over.signal], (over) => orAborted(turn, over));
        continue;
      }
      entry.users += 1;
      try {
        const login = await orAborted(entry.opening, signal);
        const alone = entry.users === 1 && this.#clock.monotonicMs() - entry.idleSinceMs >= trustedMs;
        if (!alone || (await this.#answers(login, signal))) return { entry, login };
        login.close();
      } catch (error) {
        this.#leave(entry);
        // No more of us are let in: the others will do, also those that are not yet in.
        if (entry.login === undefined && !isFault(error, "aborted") && (await this.#hasOthers(signal))) continue;
        throw error;
      }
      this.#leave(entry);
    }
  }

  /** Whether a login is open, or one that is being opened gets in. */
  async #hasOthers(signal: AbortSignal): Promise<boolean> {
    if (this.#entries.some(({ login }) => login?.closed === false)) return true;
    try {
      await orAborted(Promise.any(this.#entries.filter(({ login }) => login === undefined).map(({ opening }) => opening)), signal);
      return true;
    } catch (error) {
      if (isFault(error, "aborted")) throw error;
      return false;
    }
  }

  async #answers(login: Login, signal: AbortSignal): Promise<boolean> {
    try {
      return (await orAborted(login.control.ask("NOOP"), signal)).code < 400;
    } catch (error) {
      if (isFault(error, "aborted")) throw error;
      return false;
    }
  }

  #leave(entry: Entry): void {
    entry.users -= 1;
    if (entry.users > 0) return;
    for (const look of this.#waiting.splice(0)) look();
    entry.exclusive = false;
    entry.idleSinceMs = this.#clock.monotonicMs();
    this.#forgetClosed();
  }

  /** They count for nothing: not as ours, nor among those that the server lets us have. */
  #forgetClosed(): void {
    this.#entries = this.#entries.filter(({ login }) => login?.closed !== true);
  }

  #sweepLater(): void {
    if (this.#timer !== undefined || this.#over.signal.aborted) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      const now = this.#clock.monotonicMs();
      for (const { users, login, idleSinceMs } of this.#entries) if (users === 0 && now - idleSinceMs >= idleMs) login?.close();
      this.#forgetClosed();
      if (this.#entries.length > 0) this.#sweepLater();
    }, idleMs);
    // An idle connection is no reason for a program to stay.
    this.#timer.unref();
  }
}
