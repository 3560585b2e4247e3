/**
 * Records what is asked and answered on a link, for a bug report: `mavlink/trace.ts` says what is kept (no content, no names that tell of
 * anybody), `filesync sim --replay FILE` plays it. The file is begun anew at each start, and ends at 32 MiB. A recording that cannot be written is
 * said once, and changes nothing else.
 */
import { createWriteStream, type WriteStream } from "node:fs";
import type { Level } from "../../core/plugin.js";
import { decodeFtp, emptyPacket } from "../../mavlink/ftp.js";
import { FILE_TRANSFER_PROTOCOL } from "../../mavlink/messages.js";
import { headLine, TraceWriter, type TraceHead } from "../../mavlink/trace.js";

const mostBytes = 32 * 2 ** 20;
/** The head names the firmware, which is asked for four times, a second each: lines wait for it so long, and so many. */
const headMs = 5000;
const linesWithoutHead = 50_000;

/** What requests need of a link. */
export interface Sending {
  readonly systemId: number;
  readonly componentId: number;
  send(messageId: number, payload: Buffer, length?: number): void;
}

export interface VehicleState {
  readonly armed: boolean;
  /** Its heartbeat comes. */
  readonly heard: boolean;
  /** Restarts that were seen. */
  readonly boots: number;
}

export class Recorder {
  readonly #head: () => TraceHead;
  readonly #say: (level: Level, message: string) => void;
  readonly #path: string;
  /** Opened with the first line. */
  #file: WriteStream | undefined;
  readonly #trace: TraceWriter;
  readonly #packet = emptyPacket();
  readonly #beganMs = performance.now();
  #waiting: string[] | undefined = [];
  #bytes = 0;
  #vehicle: VehicleState | undefined;
  #over = false;

  constructor(path: string, head: () => TraceHead, say: (level: Level, message: string) => void) {
    this.#path = path;
    this.#head = head;
    this.#say = say;
    this.#trace = new TraceWriter((line) => this.#line(line));
  }

  /** The same link, of which everything is recorded that is sent through it. */
  over(link: Sending): Sending {
    return {
      get systemId() {
        return link.systemId;
      },
      get componentId() {
        return link.componentId;
      },
      send: (messageId, payload, length) => {
        if (messageId === FILE_TRANSFER_PROTOCOL && !this.#over) this.#trace.request(this.#ms, decodeFtp(payload, this.#packet));
        link.send(messageId, payload, length);
      },
    };
  }

  /** The payload of a FILE_TRANSFER_PROTOCOL of the autopilot to us. */
  received(payload: Buffer): void {
    if (!this.#over) this.#trace.reply(this.#ms, decodeFtp(payload, this.#packet));
  }

  /** Tells of the vehicle when it is another than before. */
  vehicle(now: VehicleState): void {
    const before = this.#vehicle;
    if (before === undefined && !now.heard) return;
    this.#vehicle = now;
    if (this.#over || before === undefined) return;
    if (now.boots !== before.boots) this.#trace.event(this.#ms, "boot");
    if (now.heard !== before.heard) this.#trace.event(this.#ms, now.heard ? "back" : "lost");
    if (now.armed !== before.armed) this.#trace.event(this.#ms, now.armed ? "armed" : "disarmed");
  }

  /** Resolves once all of it is in the file. Idempotent. */
  async close(): Promise<void> {
    if (this.#waiting !== undefined && this.#waiting.length > 0) this.#begin();
    const file = this.#file;
    if (file !== undefined && !file.closed)
      await new Promise<void>((resolve) => {
        file.once("close", resolve);
        file.end();
      });
    this.#over = true;
  }

  get #ms(): number {
    return performance.now() - this.#beganMs;
  }

  #line(line: string): void {
    if (this.#waiting === undefined) {
      this.#write(line);
      return;
    }
    this.#waiting.push(line);
    if (this.#head().firmware !== "" || this.#ms > headMs || this.#waiting.length >= linesWithoutHead) this.#begin();
  }

  #begin(): void {
    const lines = this.#waiting ?? [];
    this.#waiting = undefined;
    for (const line of [headLine(this.#head()), ...lines]) this.#write(line);
  }

  #write(line: string): void {
    if (this.#over) return;
    this.#bytes += line.length + 1;
    if (this.#bytes > mostBytes) this.#end("info", `${this.#path} is full: the recording has ended`);
    else (this.#file ??= this.#open()).write(`${line}\n`);
  }

  #open(): WriteStream {
    const file = createWriteStream(this.#path, { mode: 0o600 });
    file.on("error", (error) => this.#end("warn", `cannot record to ${this.#path}: ${error.message}`));
    return file;
  }

  #end(level: Level, message: string): void {
    if (this.#over) return;
    this.#over = true;
    this.#waiting = undefined;
    this.#say(level, message);
    this.#file?.end();
  }
}
