/**
 * What all control connections of one server share: options, users, the ports for data, who writes what, and where arrivals are told.
 *
 * One file is written by one connection at a time. A client that lost its link comes back while its old transfer still hangs in the
 * server: the old one is ended for it, and the client is told to ask the size again, because bytes may have come in between.
 */
import type { Stats } from "node:fs";
import type { SecureContext } from "node:tls";
import type { Clock, Level } from "../../core/plugin.js";
import { Answer } from "./answer.js";
import type { Doorkeeper } from "./doorkeeper.js";
import type { FtpServerOptions, User } from "./options.js";
import type { Ports } from "./passive.js";
import type { Place, Root } from "./root.js";
import type { Login } from "./session.js";

export interface Arrivals {
  /** A file is about to be made, or changed, under its own name: durable, so that what a kill or a power cut leaves is known to be a part. The result takes that back, where it is as it was. */
  begun(place: Place): Promise<() => Promise<void>>;
  /** Whether what is at this place is known to be a part of what was sent. */
  isBroken(place: Place, bytes: number): boolean;
  /** A file is whole and durable: `place` is below the server's root. */
  arrived(place: Place, user: string, bytes: number): Promise<void>;
  /** What was there is not, or not as it was, by a client: what has its size and time from now on is another. */
  replaced(place: Place, was: Stats): void;
  /** The time in place of `ms` that no file of the size of what is there had there before: clients set times by the second, and those without a clock all the same one. It would be taken for that, and be deleted with it. */
  timeApart(place: Place, ms: number): Promise<number>;
  /** Something was put behind what was whole: durable, but perhaps only a piece, as of a program that sends a log while it is written. */
  appended(place: Place, user: string, bytes: number): Promise<void>;
  /** An upload broke, and left a part under its own name. */
  broken(place: Place, user: string, bytes: number): Promise<void>;
  /** The time of a file was set: it is as whole as before. */
  retimed(place: Place): Promise<void>;
  /** Runs the rename of a directory: what is in it stays as whole, or as broken, as before, also when power goes in the middle. */
  moveDir(from: Place, to: Place, rename: () => Promise<void>): Promise<void>;
  /** Nothing is at this place any more, or something else. */
  forgotten(place: Place): void;
}

export interface Shared {
  readonly options: FtpServerOptions;
  readonly clock: Clock;
  readonly ports: Ports;
  readonly doorkeeper: Doorkeeper;
  readonly writers: Writers;
  readonly synced: Synced;
  readonly arrivals: Arrivals;
  /** Names of the commands with the words after them, for HELP. */
  readonly verbs: readonly (readonly [string, string | undefined])[];
  /** Who has that name now. */
  userOf(name: string): Promise<User | undefined>;
  /** With the certificate as its files have it now; undefined where there is no TLS. Never rejects. */
  secureContext(): Promise<SecureContext | undefined>;
  /** The tree of a user; made where it is missing. Throws node's error. */
  rootOf(name: string, user: User): Promise<Root>;
  /** Counts a login; false when that user has too many. */
  admit(login: Login): boolean;
  leave(login: Login): void;
  /** Says who came in, not each time. */
  loggedIn(login: Login, session: { readonly address: string; readonly secure: boolean }): void;
  say(level: Level, message: string, facts: Readonly<Record<string, unknown>>): void;
  /** A warning of what anybody on the network can bring about, as often as he likes: said the first, tenth, hundredth, … time in an hour, and of so many addresses. */
  complain(message: string, facts: Readonly<Record<string, unknown>>): void;
}

/** More are synced once more before they get a name. */
const mostSynced = 1000;

/** Files that are on the medium as they are. What was sent before this start is none: a kill may have left it in the system's cache alone. */
export class Synced {
  readonly #known = new Set<string>();

  note(stats: Stats): void {
    this.#known.add(shownBy(stats));
    const [oldest] = this.#known;
    if (this.#known.size > mostSynced && oldest !== undefined) this.#known.delete(oldest);
  }

  has(stats: Stats): boolean {
    return this.#known.has(shownBy(stats));
  }
}

/** Times may be set in between. */
function shownBy({ dev, ino, size }: Stats): string {
  return `${dev} ${ino} ${size}`;
}

interface Writer {
  readonly user: string;
  readonly end: (why: Answer) => void;
  readonly ended: Promise<void>;
}

export class Writers {
  readonly #byKey = new Map<string, Writer>();
  readonly #held = new Set<string>();

  has(key: string): boolean {
    return this.#byKey.has(key);
  }

  /** Whether a file in a directory, or further below, is being written. */
  hasBelow(dir: string): boolean {
    return [...this.#byKey.keys()].some((key) => key.startsWith(`${dir}/`));
  }

  /**
   * Keeps files or directories from being written while they are renamed or deleted; the result ends that. Undefined while something
   * there is being written, or held already.
   */
  hold(...keys: string[]): (() => void) | undefined {
    if (keys.some((key) => this.has(key) || this.hasBelow(key) || this.#isHeld(key))) return undefined;
    for (const key of keys) this.#held.add(key);
    return () => {
      for (const key of keys) this.#held.delete(key);
    };
  }

  #isHeld(key: string): boolean {
    return [...this.#held].some((held) => key === held || key.startsWith(`${held}/`) || held.startsWith(`${key}/`));
  }

  /**
   * Claims a file; the result gives it back. Throws Answer 450 while another connection writes it; if that one is of the same user it
   * is ended first.
   */
  async claim(key: string, user: string, end: (why: Answer) => void): Promise<() => void> {
    if (this.#isHeld(key)) throw new Answer(450, "The file or its directory is being renamed or deleted: try again.");
    const other = this.#byKey.get(key);
    if (other !== undefined) {
      if (other.user !== user) throw new Answer(450, "The file is being written by another user.");
      other.end(new Answer(426, "The same user began to write this file again; what arrived is kept."));
      await other.ended;
      throw new Answer(450, "An older transfer of this file was still open and was ended: ask its size again.");
    }
    let release: () => void = () => undefined;
    const ended = new Promise<void>((resolve) => {
      release = () => {
        this.#byKey.delete(key);
        resolve();
      };
    });
    this.#byKey.set(key, { user, end, ended });
    return release;
  }
}
