/**
 * Reading by a window of plain reads, from the first missing byte on. It can be stopped at once, and on most links nothing is faster.
 */
import { abortedFault } from "../../core/errors.js";
import { FTP_DATA_MAX, Op } from "../../mavlink/ftp.js";
import type { Pace } from "./pace.js";
import type { Reading, Stretch } from "./reading.js";
import { Reads } from "./reads.js";

/** How long what is on the way is waited for when reading is stopped. */
const DRAIN_MOST_MS = 150;

export class WindowReading implements Reading {
  readonly #pace: Pace;

  constructor(pace: Pace) {
    this.#pace = pace;
  }

  read(stretch: Stretch): Promise<void> {
    const { signal, assembly, requests, file, end, more } = stretch;
    return new Promise((resolve, reject) => {
      const over = (error?: Error): void => {
        reads.stop();
        signal.removeEventListener("abort", stop);
        requests.reader = undefined;
        if (error === undefined) resolve();
        else reject(error);
      };
      const stop = (): void => {
        let left = reads.waiting;
        reads.stop();
        const end = (): void => {
          clearTimeout(timer);
          over(abortedFault(signal));
        };
        // What is on the way comes first, and is thrown away: an ArduPilot has room for five requests, and would drop the one that ends the session.
        const timer = setTimeout(end, left === 0 ? 0 : DRAIN_MOST_MS);
        requests.reader = (packet) => {
          if (packet.reqOpcode === Op.ReadFile && packet.session === file.session && --left <= 0) end();
        };
      };
      let asked = assembly.whole;
      const reads = new Reads(this.#pace, stretch, {
        next() {
          const piece = more() ? assembly.missing(asked, end, FTP_DATA_MAX) : undefined;
          if (piece !== undefined) asked = piece.offset + piece.length;
          return piece;
        },
        idle: over,
        failed: over,
      });
      if (signal.aborted) {
        over(abortedFault(signal));
        return;
      }
      signal.addEventListener("abort", stop, { once: true });
      requests.reader = (packet) => {
        if (packet.reqOpcode === Op.ReadFile && packet.session === file.session) reads.take(packet);
      };
      reads.fill();
    });
  }
}
