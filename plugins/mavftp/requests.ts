/**
 * Single requests of MAVLink FTP and their replies: one at a time, sent again under the same number until the answer comes, because the
 * autopilot then repeats its answer and does nothing twice.
 *
 * Numbers begin at random and go up by one. One that an autopilot could take for a repetition of an earlier request is left out: PX4 and
 * ArduPilot answer those with their last small reply, whatever is asked. Reading, which has many packets on the way, takes them
 * through `reader`.
 */
import { abortedFault, Fault } from "../../core/errors.js";
import { dataOf, decodeFtp, emptyPacket, encodeFtp, FTP_PAYLOAD, nakOf, Op, opName, type FtpPacket } from "../../mavlink/ftp.js";
import type { Frame } from "../../mavlink/frame.js";
import { COMPONENT_AUTOPILOT, FILE_TRANSFER_PROTOCOL } from "../../mavlink/messages.js";
import { Later } from "./later.js";
import type { Sending } from "./recorder.js";

export interface Request {
  readonly opcode: number;
  readonly session: number;
  readonly offset?: number;
  readonly size?: number;
  readonly data?: Uint8Array;
}

export interface Reply {
  /** undefined: ACK. Else the code of the NAK. */
  readonly nak: number | undefined;
  readonly errno: number;
  readonly session: number;
  readonly data: Buffer;
}

export interface Patience {
  /** Until it is sent again; grows by half each time. */
  readonly firstMs?: number;
  /** Until it is given up. */
  readonly totalMs?: number;
}

const RESEND_MAX_MS = 2500;
const TOTAL_MS = 10_000;
const SMALL_REPLY = 4;
const SKIPPED = 2100;
/** Another program that is answered so has the session from then on, or has ended ours. */
const TAKES: readonly number[] = [Op.OpenFileRO, Op.OpenFileWO, Op.CreateFile, Op.ResetSessions];

export class Requests {
  /** Takes the replies to ReadFile and BurstReadFile; the packet lives only during the call. */
  reader: ((packet: FtpPacket) => void) | undefined;
  /** Requests sent so far, repeated ones too. */
  sent = 0;
  /** The autopilot has answered at least one request. */
  answered = false;
  /** Called when another program is seen to open a file or to reset all sessions (the opcode), with its session. */
  foreign: ((session: number, opcode: number) => void) | undefined;

  readonly #link: Sending;
  readonly #packet = emptyPacket();
  readonly #out = Buffer.alloc(FTP_PAYLOAD);
  #seq = Math.floor(Math.random() * 65_535);
  #lastSmallSeq = -1;
  #waiting: { seq: number; readonly opcode: number; readonly take: (reply: Reply) => void; readonly stale: () => void } | undefined;
  /** Smoothed time to an answer; undefined until there was one, on a radio perhaps. */
  #answerMs: number | undefined;

  constructor(link: Sending) {
    this.#link = link;
  }

  /** Takes a FILE_TRANSFER_PROTOCOL frame of our autopilot. */
  frame(frame: Frame): void {
    const packet = decodeFtp(frame.payload, this.#packet);
    if (packet.opcode !== Op.Ack && packet.opcode !== Op.Nak) return;
    if (packet.targetSystem !== this.#link.systemId || packet.targetComponent !== this.#link.componentId) {
      const { reqOpcode, opcode, session } = packet;
      if (opcode === Op.Ack && TAKES.includes(reqOpcode)) this.foreign?.(session, reqOpcode);
      return;
    }
    this.answered = true;
    if (packet.size <= SMALL_REPLY) this.#lastSmallSeq = packet.seq;
    const waiting = this.#waiting;
    if (waiting !== undefined && packet.seq === ((waiting.seq + 1) & 0xffff)) {
      if (packet.reqOpcode === waiting.opcode) waiting.take(replyOf(packet));
      else waiting.stale();
    } else if (packet.reqOpcode === Op.ReadFile || packet.reqOpcode === Op.BurstReadFile) this.reader?.(packet);
  }

  /** Leaves out the numbers that the packets of a burst have: up to 2,000 for one request, and the present ones of a few more. */
  skip(): void {
    this.#seq = (this.#seq + SKIPPED) & 0xffff;
  }

  /** The next number that no autopilot takes for a repetition. */
  nextSeq(): number {
    do this.#seq = (this.#seq + 1) & 0xffff;
    while (
      // 65535 + 1 is not 0 in PX4's arithmetic: a repetition of it would be done twice.
      this.#seq === 0xffff ||
      this.#seq + 1 === this.#lastSmallSeq
    );
    return this.#seq;
  }

  /** Sends one request, without waiting. */
  send(request: Request, seq: number, toSystem: number): void {
    this.sent += 1;
    const length = encodeFtp({ ...request, targetSystem: toSystem, targetComponent: COMPONENT_AUTOPILOT, seq }, this.#out);
    this.#link.send(FILE_TRANSFER_PROTOCOL, this.#out, length);
  }

  /** Like `send` for a ReadFile, at the least cost: it is done thousands of times a second. */
  sendRead(session: number, offset: number, size: number, seq: number, toSystem: number): void {
    const out = this.#out;
    this.sent += 1;
    out[0] = 0;
    out[1] = toSystem;
    out[2] = COMPONENT_AUTOPILOT;
    out[3] = seq & 0xff;
    out[4] = seq >> 8;
    out[5] = session;
    out[6] = Op.ReadFile;
    out[7] = size;
    out[8] = out[9] = out[10] = 0;
    out.writeUInt32LE(offset, 11);
    this.#link.send(FILE_TRANSFER_PROTOCOL, out, 15);
  }

  /**
   * Sends a request and resolves with its reply. Only one at a time: callers hold the turn of the link. Rejects with the signal's
   * Fault, or with Fault "transient" when no answer comes.
   */
  ask(request: Request, toSystem: number, signal: AbortSignal, patience: Patience = {}): Promise<Reply> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) {
        reject(abortedFault(signal));
        return;
      }
      const begunMs = performance.now();
      let resendMs = patience.firstMs ?? Math.min(Math.max(4 * (this.#answerMs ?? Infinity) + 50, 250), 1000);
      let sends = 0;
      const end = (): void => {
        timer.stop();
        signal.removeEventListener("abort", stop);
        this.#waiting = undefined;
      };
      const stop = (): void => {
        end();
        reject(abortedFault(signal));
      };
      const send = (): void => {
        const leftMs = (patience.totalMs ?? TOTAL_MS) - (performance.now() - begunMs);
        if (leftMs <= 0) {
          end();
          reject(new Fault("transient", `the autopilot gave no answer to ${opName(request.opcode)}`));
          return;
        }
        sends += 1;
        this.send(request, waiting.seq, toSystem);
        timer.in(Math.min(resendMs, leftMs));
        resendMs = Math.min(resendMs * 1.5, Math.max(RESEND_MAX_MS, patience.firstMs ?? 0));
      };
      const timer = new Later(send);
      const waiting = {
        seq: this.nextSeq(),
        opcode: request.opcode,
        take: (reply: Reply) => {
          end();
          if (sends === 1) {
            const tookMs = performance.now() - begunMs;
            this.#answerMs = this.#answerMs === undefined ? tookMs : this.#answerMs + (tookMs - this.#answerMs) / 8;
          }
          resolve(reply);
        },
        // The autopilot took it for a repetition of an older request: it is a new one under another number.
        stale: () => {
          timer.stop();
          this.#seq = (this.#seq + 16) & 0xffff;
          waiting.seq = this.nextSeq();
          send();
        },
      };
      this.#waiting = waiting;
      signal.addEventListener("abort", stop, { once: true });
      send();
    });
  }
}

function replyOf(packet: FtpPacket): Reply {
  const { code, errno } = nakOf(packet);
  return {
    nak: packet.opcode === Op.Nak ? code : undefined,
    errno: packet.opcode === Op.Nak ? errno : 0,
    session: packet.session,
    data: dataOf(packet),
  };
}
