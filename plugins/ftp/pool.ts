/**
 * Logged-in connections that are used again: one piece of work has one connection; after an error it is thrown away.
 *
 * How many there are is bounded by how much core asks for at once. Idle ones are closed after a while, and looked at before they are
 * used again, since servers end idle connections too.
 */
import { Fault, isFault } from "../../core/errors.js";
import type { Clock, DigestKind } from "../../core/plugin.js";
import { Connection } from "./connection.js";
import type { FtpOptions } from "./options.js";

const idleMs = 30_000;
const trustedMs = 2_000;

interface Idle {
  readonly connection: Connection;
  readonly sinceMs: number;
}

/** A connection in use; whoever has it says how it ended. */
export interface Lease {
  readonly connection: Connection;
  /** Ends the use: `whole` when the connection is between two commands, so that it can be used again. */
  end(whole: boolean): void;
}

export class Pool {
  readonly #options: FtpOptions;
  readonly #clock: Clock;
  readonly #idle: Idle[] = [];
  readonly #used = new Set<Connection>();
  #digests: readonly DigestKind[] = [];
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: FtpOptions, clock: Clock) {
    this.#options = options;
    this.#clock = clock;
  }

  /** What the server digests by itself; known after the first login. */
  get digests(): readonly DigestKind[] {
    return this.#digests;
  }

  /** A connection of one's own. Throws "offline", "denied", "transient", "config". */
  async lease(signal: AbortSignal): Promise<Lease> {
    if (this.#closed) throw new Fault("aborted", "the device was closed");
    const connection = (await this.#reuse(signal)) ?? (await Connection.open(this.#options, this.#clock, signal));
    if (this.#isClosed()) {
      connection.close();
      throw new Fault("aborted", "the device was closed");
    }
    this.#used.add(connection);
    this.#digests = connection.digestCommand === undefined ? [] : ["sha256"];
    let over = false;
    return {
      connection,
      end: (whole) => {
        if (over) return;
        over = true;
        this.#used.delete(connection);
        if (!whole || this.#closed || connection.closed) connection.close();
        else this.#keep(connection);
      },
    };
  }

  /** Runs `work` with a connection. Throws Faults whose message opens with `what`. */
  async with<T>(signal: AbortSignal, what: string, work: (connection: Connection) => Promise<T>): Promise<T> {
    const lease = await this.lease(signal);
    try {
      const result = await lease.connection.run(signal, what, () => work(lease.connection));
      lease.end(true);
      return result;
    } catch (error) {
      // An answer of the server leaves the connection between two commands; so does a Fault that we made of one.
      lease.end(isFault(error) && !lease.connection.closed);
      throw error;
    }
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    for (const { connection } of this.#idle.splice(0)) connection.close();
    for (const connection of this.#used) connection.close();
  }

  #isClosed(): boolean {
    return this.#closed;
  }

  async #reuse(signal: AbortSignal): Promise<Connection | undefined> {
    for (let idle = this.#idle.pop(); idle !== undefined; idle = this.#idle.pop()) {
      const { connection, sinceMs } = idle;
      if (connection.closed) continue;
      if (this.#clock.monotonicMs() - sinceMs < trustedMs) return connection;
      try {
        const answer = await connection.run(signal, "cannot go on", () => connection.ask("NOOP"));
        if (answer.code < 400) return connection;
      } catch (error) {
        if (isFault(error, "aborted")) throw error;
      }
      connection.close();
    }
    return undefined;
  }

  #keep(connection: Connection): void {
    this.#idle.push({ connection, sinceMs: this.#clock.monotonicMs() });
    if (this.#timer !== undefined) return;
    this.#timer = setTimeout(() => this.#sweep(), idleMs);
    // An idle connection is no reason for a program to stay.
    this.#timer.unref();
  }

  #sweep(): void {
    this.#timer = undefined;
    const now = this.#clock.monotonicMs();
    const kept = this.#idle.splice(0).filter(({ connection, sinceMs }) => {
      if (now - sinceMs < idleMs) return true;
      connection.close();
      return false;
    });
    this.#idle.push(...kept);
    if (kept.length === 0) return;
    this.#timer = setTimeout(() => this.#sweep(), idleMs);
    this.#timer.unref();
  }
}
