/**
 * One file on its way: a stream that reads only as fast as it is read, over as many openings as it takes.
 *
 * While nobody reads from the stream the autopilot's file session is given back after a moment, so a full disk here keeps no ground station out;
 * it is opened again, and its size checked again, when bytes are wanted. The stream ends with every byte up to the size, or with the
 * Fault that says why not, behind all bytes that came before it (unless the reader or the link is gone); in each case, and when it is
 * destroyed, the session is ended.
 */
import { Readable } from "node:stream";
import { abortedFault, Fault, isFault } from "../../core/errors.js";
import { joinSignals } from "../../core/signals.js";
import { FTP_DATA_MAX, Op } from "../../mavlink/ftp.js";
import { Assembly } from "./assembly.js";
import type { Peer } from "./peer.js";
import type { RateCap } from "./rate.js";
import { EndedEarly, SessionLost, type Reading } from "./reading.js";
import type { Requests } from "./requests.js";
import { Samples, type Sample } from "./samples.js";
import type { OpenedFile, Sessions } from "./session.js";

export interface Wanted {
  /** The whole path on the autopilot. */
  readonly path: Buffer;
  readonly size: number;
  readonly offset: number;
}

export interface DownloadTools {
  readonly peer: Peer;
  readonly requests: Requests;
  readonly sessions: Sessions;
  readonly reading: Reading;
  readonly rate: RateCap;
  /** Some of what came is read once more and compared, with pieces drawn by this; undefined: another proof follows. */
  readonly samples?: (() => number) | undefined;
}

export interface Download {
  readonly stream: Readable;
  /** Resolves, never rejects, once the stream is over and its session ended. */
  readonly ended: Promise<void>;
}

const STREAM_BYTES = 262_144;
/** How long others may wait while a reading has the turn. */
const TURN_MS = 40;
/** The first bytes are handed on at once: core compares as many. */
const GREETING_BYTES = 4096;
/** Bytes are handed on at least so often. */
const FLUSH_MS = 100;
/** With nobody reading, the session is given back after so long. */
const IDLE_MS = 3000;
/** A session that is lost so often without one byte between is somebody's. */
const LOST_MAX = 3;

/** Opens the file. Throws what `Source.open` says, and the stream may end with "mismatch" too, where samples differ; resolves once the autopilot has it open and its size fits. */
export async function openDownload(tools: DownloadTools, wanted: Wanted, signal: AbortSignal): Promise<Download> {
  const attachment = tools.peer.attachment();
  const destroyed = new AbortController();
  const joined = joinSignals(signal, attachment.signal, destroyed.signal);
  const { sessions, requests, reading, rate } = tools;

  async function openFile(): Promise<OpenedFile> {
    const file = await sessions.open(attachment, wanted.path, joined.signal);
    file.taken = () => destroyed.abort(new Fault("transient", "another program took the autopilot's file session"));
    if (file.size >= wanted.size) return file;
    await sessions.end(file);
    throw new Fault("changed", `the file has ${file.size} bytes now, it had ${wanted.size} when it was listed`);
  }

  let file: OpenedFile | undefined;
  try {
    file = await openFile();
  } catch (error) {
    joined.release();
    throw error;
  }

  let greeted = false;
  let wake: () => void = () => undefined;
  // Kept here, because a Readable forgets what it holds when it fails.
  const held: Buffer[] = [];
  let heldBytes = 0;
  let begun = false;
  let asked = false;
  let over: { readonly failure: Error | undefined } | undefined;
  const hungry = (): boolean => begun && heldBytes < STREAM_BYTES;
  const stream = new Readable({
    highWaterMark: 0,
    read() {
      begun = asked = true;
      give();
      wake();
    },
    destroy(error, done) {
      destroyed.abort(isFault(error) ? error : new Fault("aborted", "stopped"));
      done(error);
    },
  });
  function give(): void {
    if (!asked) return;
    const bytes = held.shift();
    if (bytes !== undefined) {
      asked = false;
      heldBytes -= bytes.length;
      stream.push(bytes);
    } else if (over?.failure !== undefined) stream.destroy(over.failure);
    else if (over !== undefined) stream.push(null);
  }
  const samples = tools.samples === undefined ? undefined : new Samples(tools.samples);
  let last: Buffer = Buffer.alloc(0);
  const assembly = new Assembly(wanted.offset, (bytes) => {
    last = Buffer.concat([last, bytes.subarray(-FTP_DATA_MAX)]).subarray(-FTP_DATA_MAX);
    samples?.take(assembly.handed - bytes.length, bytes);
    held.push(bytes);
    heldBytes += bytes.length;
    give();
  });

  async function readSome(open: OpenedFile): Promise<void> {
    const begunMs = performance.now();
    let flushedMs = begunMs;
    let counted = assembly.whole;
    const more = (): boolean => {
      const now = performance.now();
      // Whoever wants only a sample has it soon, and can stop us.
      if (!greeted && assembly.gained >= GREETING_BYTES) {
        greeted = true;
        assembly.flush();
      }
      if (now - flushedMs > FLUSH_MS) {
        flushedMs = now;
        assembly.flush();
      }
      rate.came(assembly.whole - counted);
      counted = assembly.whole;
      return hungry() && rate.open && !sessions.wanted && !(sessions.turns.wanted && now - begunMs > TURN_MS);
    };
    try {
      await reading.read({ file: open, requests, assembly, end: wanted.size, more, signal: joined.signal });
    } finally {
      rate.came(assembly.whole - counted);
    }
  }

  /** Waits until bytes are wanted; gives the session back meanwhile. */
  async function untilHungry(): Promise<void> {
    if (hungry()) return;
    let timer: NodeJS.Timeout | undefined;
    const stop = (): void => wake();
    joined.signal.addEventListener("abort", stop, { once: true });
    try {
      await new Promise<void>((resolve) => {
        wake = resolve;
        timer = setTimeout(() => {
          const idle = file;
          file = undefined;
          if (idle !== undefined) void sessions.end(idle);
        }, IDLE_MS);
        if (joined.signal.aborted) resolve();
      });
    } finally {
      clearTimeout(timer);
      joined.signal.removeEventListener("abort", stop);
    }
    if (joined.signal.aborted) throw abortedFault(joined.signal);
  }

  async function pump(): Promise<void> {
    let lost = 0;
    let wholeBefore = assembly.whole;
    while (assembly.whole < wanted.size) {
      await untilHungry();
      await rate.ready(joined.signal);
      const open: OpenedFile = file ?? (await openFile());
      const anew = file === undefined;
      file = open;
      try {
        if (anew) await compareLast(open);
        await sessions.turns.run(joined.signal, () => readSome(open));
      } catch (error) {
        if (!(error instanceof SessionLost)) throw error;
        sessions.forget(open);
        tools.peer.neighbours.refused();
        file = undefined;
        lost = assembly.whole > wholeBefore ? 1 : lost + 1;
        wholeBefore = assembly.whole;
        // Opened anew it has its size still, and ends there again.
        if (error instanceof EndedEarly && lost > 1) throw new Fault("changed", error.message);
        if (lost > LOST_MAX) throw new Fault("transient", `the autopilot keeps closing the file session (${error.message})`);
      }
      if (file !== undefined && sessions.wanted && assembly.whole < wanted.size) {
        const shared = file;
        file = undefined;
        await sessions.end(shared);
      }
      // What is whole goes on its way when the turn ends, full block or not.
      if (assembly.whole > assembly.handed) assembly.flush();
    }
    if (samples !== undefined && file !== undefined) await compare(file, samples.kept);
  }

  /**
   * The session that is over may have been another program's in the end: on a PX4 all have the same number, so one that ends ours and opens a file gets what we ask for
   * answered from that, and a router may keep from us what it is told. Then what came last is not ours.
   */
  async function compareLast(open: OpenedFile): Promise<void> {
    assembly.flush();
    const ahead = assembly.furthest(FTP_DATA_MAX);
    if (last.length > 0) await compare(open, [{ offset: assembly.handed - last.length, bytes: last }]);
    if (ahead !== undefined) await compare(open, [ahead]);
  }

  async function compare(open: OpenedFile, kept: readonly Sample[]): Promise<void> {
    for (const { offset, bytes } of kept) {
      const request = { opcode: Op.ReadFile, session: open.session, offset, size: bytes.length };
      const reply = await sessions.turns.run(joined.signal, () => requests.ask(request, open.systemId, joined.signal));
      // What cannot be compared proves nothing, either way.
      if (reply.nak === undefined && !reply.data.equals(bytes.subarray(0, reply.data.length)))
        throw new Fault("mismatch", `what the autopilot gives at byte ${offset} is not what came before`);
    }
  }

  async function run(): Promise<void> {
    const failure = await pump().then(
      () => undefined,
      (error: unknown) => (error instanceof Error ? error : new Error(String(error))),
    );
    if (failure !== undefined) {
      if (joined.signal.aborted) stream.destroy(failure);
      else {
        assembly.flush();
        over = { failure };
        give();
      }
    }
    joined.release();
    if (file !== undefined) await sessions.end(file);
    if (failure === undefined) {
      over = { failure };
      give();
    }
  }
  return { stream, ended: run() };
}
