/**
 * Who may use a file on an ArduPilot, in its two ways (libraries/GCS_MAVLink/GCS_FTP.cpp).
 *
 * Up to 4.6 there is one open file for everybody, on all links; its session has the number that the client chose. From 4.7 on there are five, each
 * known by sender, link and number. In both a session that was used in the last 3 s is not taken away; using means that something was answered
 * in it, and in the old way any answer to anybody counts.
 */
import { Nak, Op } from "../mavlink/ftp.js";
import type { Asked } from "./ardupilot-worker.js";
import type { Sender } from "./autopilot.js";
import type { WrittenFile } from "./disk-changes.js";
import type { DiskFile } from "./disk-file.js";
import { Refusal } from "./refusal.js";

/** After so long a session may be taken by another. */
const IDLE_MS = 3000;
/** After so long a session of 4.7 is closed, wanted or not. */
const KILL_MS = 20_000;
const SESSIONS = 5;
const OPENINGS: readonly number[] = [Op.OpenFileRO, Op.OpenFileWO, Op.CreateFile];

export class Session {
  file: DiskFile | WrittenFile | undefined;
  id = 0;
  owner: Pick<Sender, "system" | "component" | "channel"> | undefined;
  /** -Infinity: not in use. */
  sentMs = -Infinity;

  idle(now: number): boolean {
    return now - this.sentMs >= IDLE_MS;
  }
}

/** A request's session, and the number that it has from now on. */
export interface Found {
  readonly session: Session;
  readonly id: number;
}

export interface SessionRules {
  readonly all: readonly Session[];
  /** The session of a request. "done": it is answered with a plain ACK. Throws the Refusal of one that has no session here. */
  find(asked: Asked, now: number): Found | "done";
  /** Something was answered in it. */
  sent(session: Session, asked: Pick<Asked, "opcode">, now: number): void;
  /** Closes what nobody has used for too long; then when to look again, undefined: not before the next answer. */
  sweep(now: number): number | undefined;
}

/** Closes the file of a session. */
export type Close = (session: Session) => void;

/** The way of 4.6 and before. */
export class OneSession implements SessionRules {
  readonly #session = new Session();
  readonly all = [this.#session];
  /** The number of the session; undefined: nobody's. */
  #current: number | undefined;
  readonly #close: Close;

  constructor(close: Close) {
    this.#close = close;
  }

  find(asked: Asked, now: number): Found | "done" {
    const session = this.#session;
    const ends = asked.opcode === Op.TerminateSession || asked.opcode === Op.ResetSessions;
    if (asked.session !== this.#current && ends) return "done";
    if (session.file !== undefined && asked.session !== this.#current) {
      if (!session.idle(now)) throw new Refusal(Nak.InvalidSession);
      this.#close(session);
      this.#current = undefined;
    }
    if (ends) this.#current = undefined;
    else if (OPENINGS.includes(asked.opcode) && session.file === undefined) this.#current = asked.session;
    return { session, id: asked.session };
  }

  sent(session: Session, asked: Pick<Asked, "opcode">, now: number): void {
    // The end of any session, a foreign one too, makes the open file look long unused: whoever asks next gets it.
    session.sentMs = asked.opcode === Op.TerminateSession ? -Infinity : now;
  }

  sweep(): undefined {
    return undefined;
  }
}

/** The way of 4.7 and later. `allocates`: 4.8 gives a request without a number one of its own. */
export class FiveSessions implements SessionRules {
  readonly all = Array.from({ length: SESSIONS }, () => new Session());
  readonly #close: Close;
  readonly #allocates: boolean;
  #nextId = 1;

  constructor(close: Close, allocates: boolean) {
    this.#close = close;
    this.#allocates = allocates;
  }

  find(asked: Asked, now: number): Found | "done" {
    if (asked.opcode === Op.ResetSessions) {
      for (const session of this.all) if (isOf(session, asked.from)) this.#free(session);
      return "done";
    }
    const own = this.all.find((session) => isOf(session, asked.from) && session.id === asked.session);
    if (own !== undefined) return { session: own, id: asked.session };
    const oldest = this.all.reduce((before, session) => (session.sentMs < before.sentMs ? session : before));
    if (!oldest.idle(now)) throw new Refusal(Nak.NoSessionsAvailable);
    this.#free(oldest);
    oldest.id = asked.session;
    if (this.#allocates && asked.session === 0) {
      oldest.id = this.#nextId;
      this.#nextId = this.#nextId === 255 ? 1 : this.#nextId + 1;
    }
    oldest.owner = asked.from;
    return { session: oldest, id: oldest.id };
  }

  sent(session: Session, asked: Pick<Asked, "opcode">, now: number): void {
    session.sentMs = asked.opcode === Op.TerminateSession ? -Infinity : now;
  }

  sweep(now: number): number | undefined {
    let again: number | undefined;
    for (const session of this.all) {
      if (session.sentMs === -Infinity) continue;
      const dueMs = session.sentMs + KILL_MS;
      if (dueMs <= now) this.#free(session);
      else again = Math.min(again ?? Infinity, dueMs);
    }
    return again;
  }

  #free(session: Session): void {
    this.#close(session);
    session.sentMs = -Infinity;
  }
}

function isOf({ owner }: Session, from: Sender): boolean {
  return owner?.system === from.system && owner.component === from.component && owner.channel === from.channel;
}
