/**
 * Streams that go wrong, as an upload's bytes: too few, wrong ones, slow ones, and ones that are cut by a fault in the middle.
 */
import { Readable } from "node:stream";
import { Fault, type FaultKind } from "../../core/errors.js";
import { chunks } from "./upload.js";

/** Ends `missing` bytes early, without an error. */
export function short(content: Buffer, missing: number): (offset: number) => Readable {
  return (offset) => chunks(content.subarray(offset, Math.max(offset, content.length - missing)));
}

/** As many bytes as there should be, one of them wrong. */
export function wrong(content: Buffer, at: number): (offset: number) => Readable {
  const changed = Buffer.from(content);
  changed[at] = (changed[at] ?? 0) ^ 0xff;
  return (offset) => chunks(changed.subarray(offset));
}

/** Gives a piece, then nothing for `pauseMs`, and so on; `paused` is called in each pause. */
export function slow(
  content: Buffer,
  pieceBytes: number,
  pauseMs: number,
  paused: () => void = () => undefined,
): (offset: number) => Readable {
  return (offset) => {
    let at = offset;
    let timer: NodeJS.Timeout | undefined;
    return new Readable({
      read() {
        timer = setTimeout(
          () => {
            const piece = content.subarray(at, at + pieceBytes);
            at += piece.length;
            this.push(piece.length === 0 ? null : piece);
            paused();
          },
          at === offset ? 0 : pauseMs,
        );
      },
      destroy(error, done) {
        clearTimeout(timer);
        done(error);
      },
    });
  };
}

/** Gives the bytes up to `at`, and then no more, until it is destroyed. `reached` is called once they were taken. */
export function stuck(content: Buffer, at: number, reached: () => void): (offset: number) => Readable {
  return (offset) => {
    let given = offset;
    return new Readable({
      read() {
        if (given >= at) {
          reached();
          return;
        }
        const piece = content.subarray(given, Math.min(at, given + 64 * 1024));
        given += piece.length;
        this.push(piece);
      },
    });
  };
}

/** Gives the bytes up to `at`, then ends with a Fault. */
export function cut(content: Buffer, at: number, kind: FaultKind = "changed"): (offset: number) => Readable {
  return (offset) => {
    let given = offset;
    return new Readable({
      read() {
        if (given >= at) {
          this.destroy(new Fault(kind, "withdrawn by the test"));
          return;
        }
        const piece = content.subarray(given, Math.min(at, given + 64 * 1024));
        given += piece.length;
        this.push(piece);
      },
    });
  };
}

/** Zeros from 0 to `size`, made on the fly: for files larger than memory. */
export function zeros(size: number): (offset: number) => Readable {
  const piece = Buffer.alloc(1 << 20);
  return (offset) => {
    let left = size - offset;
    return new Readable({
      highWaterMark: 1 << 20,
      read() {
        const n = Math.min(left, piece.length);
        left -= n;
        this.push(n === 0 ? null : piece.subarray(0, n));
      },
    });
  };
}
