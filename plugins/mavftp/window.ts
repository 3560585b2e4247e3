/**
 * Reading by a window of plain reads, from the first missing byte on. It can be stopped at once, and on most links nothing is faster.
 */
import { abortedFault } from "../../core/errors.js";
import { FTP_DATA_MAX, Op } from "../../mavlink/ftp.js";
import type { Pace } from "./pace.js";
import type { Reading, Stretch } from "./reading.js";
import { Reads } from "./reads.js";

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
      const stop = (): void => over(abortedFault(signal));
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
        stop();
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
