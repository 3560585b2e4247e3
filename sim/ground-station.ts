/**
 * A second client: a ground station that loads a file (its parameters, after it has connected) one request at a time, as QGroundControl does, and a
 * client that holds sessions so that nobody else gets one. Both go through the autopilot's own session rules.
 */
import { encodeFtp, FTP_DATA_AT, FTP_DATA_MAX, FTP_PAYLOAD, Nak, Op, type FtpPacket } from "../mavlink/ftp.js";
import type { SimClock } from "./clock.js";

/** How a second client reaches the autopilot. */
export interface Wiring {
  readonly clock: SimClock;
  /** The autopilot's system. */
  readonly system: number;
  /** Sends a request; the buffer may be used again at once. */
  readonly send: (payload: Buffer, length: number) => void;
  /** Its HEARTBEAT comes by where the simulator's client is; absent: nothing of it does. */
  readonly beat?: () => void;
}

export interface LoadOptions {
  readonly path: string;
  /** How long it goes on asking when the file is refused, ms; default 60,000. */
  readonly patienceMs?: number;
  /** At the end it resets all sessions, as QGroundControl does; default true. */
  readonly resets?: boolean;
  /** Its heartbeats, one a second, begin so long before it asks; default 1,000. Where none comes by it asks at once. */
  readonly announcedMs?: number;
}

export interface Loaded {
  /** True: every byte up to the size came. */
  readonly whole: boolean;
  readonly bytes: Buffer;
  /** How often opening was refused. */
  readonly refusals: number;
  /** How often the file was taken away in the middle. */
  readonly lost: number;
  readonly tookMs: number;
}

const ANSWER_MS = 1000;
const TRIES = 5;
const REFUSED_MS = 500;
const ANNOUNCED_MS = 1000;
const BEAT_MS = 1000;

/** What came back for one request; undefined: nothing. */
interface Reply {
  readonly ack: boolean;
  readonly code: number;
  readonly session: number;
  readonly data: Buffer;
}

export class SecondClient {
  readonly #wiring: Wiring;
  readonly #out = Buffer.alloc(FTP_PAYLOAD);
  #seq: number;
  #waiting: { readonly seq: number; readonly opcode: number; readonly take: (reply: Reply) => void } | undefined;
  #stopped = false;
  readonly #wakes = new Set<() => void>();

  /** `seq`: its first number. */
  constructor(wiring: Wiring, seq: number) {
    this.#wiring = wiring;
    this.#seq = seq;
  }

  /** A reply that is addressed to it. The packet lives only during the call. */
  reply(packet: FtpPacket): void {
    const waiting = this.#waiting;
    if (waiting === undefined || packet.seq !== ((waiting.seq + 1) & 0xffff) || packet.reqOpcode !== waiting.opcode) return;
    const data = Buffer.from(packet.payload.subarray(FTP_DATA_AT, FTP_DATA_AT + Math.min(packet.size, FTP_DATA_MAX)));
    waiting.take({ ack: packet.opcode === Op.Ack, code: data[0] ?? 0, session: packet.session, data });
  }

  /** Gives up whatever it does. */
  stop(): void {
    this.#stopped = true;
    for (const wake of this.#wakes) wake();
  }

  /** Loads a file. Never throws: what went wrong is in the result. */
  async load(options: LoadOptions): Promise<Loaded> {
    const { clock, beat } = this.#wiring;
    if (beat === undefined) return this.#load(options);
    // Ground stations say that they are there from the moment they open a link, and ask once they have seen the vehicle.
    let forget: () => void = () => undefined;
    const again = (): void => {
      beat();
      forget = clock.after(BEAT_MS, again);
    };
    again();
    this.#wakes.add(forgetBeats);
    function forgetBeats(): void {
      forget();
    }
    await this.#sleep(options.announcedMs ?? ANNOUNCED_MS);
    try {
      return await this.#load(options);
    } finally {
      forgetBeats();
      this.#wakes.delete(forgetBeats);
    }
  }

  async #load(options: LoadOptions): Promise<Loaded> {
    const { clock } = this.#wiring;
    const begunMs = clock.now();
    const patienceMs = options.patienceMs ?? 60_000;
    let parts: Buffer[] = [];
    let [at, size, refusals, lost] = [0, 0, 0, 0];
    let session: number | undefined;
    while (!this.#stopped && clock.now() - begunMs < patienceMs) {
      if (session === undefined) {
        const opened = await this.#ask(Op.OpenFileRO, { data: Buffer.from(options.path) });
        if (opened?.ack !== true) {
          refusals += 1;
          await this.#sleep(REFUSED_MS);
          continue;
        }
        session = opened.session;
        size = opened.data.readUInt32LE(0);
        [parts, at] = [[], 0];
      }
      if (at >= size) break;
      const read = await this.#ask(Op.ReadFile, { session, offset: at, size: Math.min(FTP_DATA_MAX, size - at) });
      if (read?.ack === true && read.data.length > 0) {
        parts.push(read.data);
        at += read.data.length;
      } else if (read?.code === Nak.Eof) break;
      else {
        lost += 1;
        session = undefined;
      }
    }
    if (session !== undefined) await this.#ask(Op.TerminateSession, { session });
    if (options.resets !== false) await this.#ask(Op.ResetSessions, { session: session ?? 0 });
    return { whole: session !== undefined && at === size, bytes: Buffer.concat(parts), refusals, lost, tookMs: clock.now() - begunMs };
  }

  /** Opens the file in these sessions, one after the other as it gets them, and keeps them in use for so long; then gives them back. */
  async hold(path: string, sessions: readonly number[], forMs: number): Promise<void> {
    const untilMs = this.#wiring.clock.now() + forMs;
    const held = new Map<number, number>();
    while (!this.#stopped && this.#wiring.clock.now() < untilMs) {
      for (const wanted of sessions) {
        const own = held.get(wanted);
        if (own === undefined) {
          const opened = await this.#ask(Op.OpenFileRO, { session: wanted, data: Buffer.from(path) });
          if (opened?.ack === true) held.set(wanted, opened.session);
        } else {
          const read = await this.#ask(Op.ReadFile, { session: own, size: 1 });
          if (read?.ack === false) held.delete(wanted);
        }
      }
      await this.#sleep(held.size < sessions.length ? 50 : 1000);
    }
    for (const session of held.values()) await this.#ask(Op.TerminateSession, { session });
  }

  async #ask(opcode: number, fields: { session?: number; offset?: number; size?: number; data?: Buffer }): Promise<Reply | undefined> {
    // Not the number after the last reply's: that would be answered with it again.
    this.#seq = (this.#seq + 2) & 0xffff;
    const seq = this.#seq;
    for (let tries = 0; tries < TRIES && !this.#stopped; tries++) {
      const reply = await new Promise<Reply | undefined>((resolve) => {
        const done = (result?: Reply): void => {
          forget();
          this.#wakes.delete(done);
          this.#waiting = undefined;
          resolve(result);
        };
        const forget = this.#wiring.clock.after(ANSWER_MS, () => done());
        this.#wakes.add(done);
        this.#waiting = { seq, opcode, take: done };
        const length = encodeFtp({ targetSystem: this.#wiring.system, targetComponent: 1, seq, opcode, ...fields }, this.#out);
        this.#wiring.send(this.#out, length);
      });
      if (reply !== undefined) return reply;
    }
    return undefined;
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      if (this.#stopped) {
        resolve();
        return;
      }
      const done = (): void => {
        forget();
        this.#wakes.delete(done);
        resolve();
      };
      const forget = this.#wiring.clock.after(ms, done);
      this.#wakes.add(done);
    });
  }
}
