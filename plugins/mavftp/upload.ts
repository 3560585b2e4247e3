/**
 * One file on its way to the autopilot: bytes are written one request at a time, each sent again until it is answered, because a write at a place is
 * the same when it is done twice. More on the way at once would not fit: an ArduPilot's receive buffer holds one full request, a PX4's two.
 *
 * Where a file can be opened again without losing what it holds, the session is given back while no bytes come, and to another file of ours that
 * waits; it is opened again at the byte where it was, as long as the file has that size.
 */
import { abortedFault, Fault, isFault } from "../../core/errors.js";
import type { Reading } from "../../core/plugin.js";
import { FTP_DATA_MAX, Nak, nakName, Op } from "../../mavlink/ftp.js";
import type { Attachment, Peer } from "./peer.js";
import type { RateCap } from "./rate.js";
import { SessionLost } from "./reading.js";
import { changeRefusal } from "./refusals.js";
import type { Reply, Requests } from "./requests.js";
import type { OpenedFile, Sessions } from "./session.js";
import type { Sum } from "./sum.js";

export interface UploadTools {
  readonly peer: Peer;
  readonly requests: Requests;
  readonly sessions: Sessions;
  readonly rate: RateCap;
}

export interface Written {
  readonly attachment: Attachment;
  /** The whole path of the file on the autopilot. */
  readonly path: Buffer;
  /** Where it begins; at 0 the file is made, or emptied. */
  readonly offset: number;
  readonly bytes: Reading;
  /** Takes what the autopilot said it has. */
  readonly sum: Sum;
  readonly onBytes: (n: number) => void;
  /** The size that the file has now; undefined where a file that is opened again is emptied. */
  readonly size: (() => Promise<number>) | undefined;
  readonly signal: AbortSignal;
}

/** How long others may wait while a writing has the turn. */
const TURN_MS = 40;
/** With no bytes to write, the session is given back after so long: a PX4 forgets after 2 s what may be written. */
const IDLE_MS = 1500;
/** A session that is lost so often without one byte between is somebody's. */
const LOST_MAX = 3;
const EBADF = 9;

/** What says that the session is not, or no longer, ours: by the autopilots' own words for it (mavlink_ftp.cpp, GCS_FTP.cpp). */
const LOST: readonly number[] = [Nak.InvalidSession, Nak.FileNotFound, Nak.Fail, Nak.FileExists, Nak.FileProtected];

/** Resolves with how many bytes the file has, once `bytes` ended and the session is ended. Throws what `Target.write` says; what was written stays. */
export async function writeBytes(tools: UploadTools, wanted: Written): Promise<number> {
  const { peer, requests, sessions, rate } = tools;
  const { attachment, path, sum, signal } = wanted;
  const lost = new AbortController();
  let file: OpenedFile | undefined;
  let at = wanted.offset;
  let begun = at > 0;
  let losses = 0;
  let refused: Reply | undefined;

  async function openFile(): Promise<OpenedFile> {
    if (begun) {
      if (wanted.size === undefined)
        throw new Fault("transient", "the autopilot closed the file, and would empty it when it is opened again");
      const size = await wanted.size();
      // The answer to the last write may have been lost.
      if (size < at || size > at + FTP_DATA_MAX)
        throw new Fault("transient", `the file on the autopilot has ${size} bytes, and ${at} were written`);
    }
    const opened = await sessions.open(attachment, path, signal, begun ? Op.OpenFileWO : Op.CreateFile);
    opened.taken = () => lost.abort(new Fault("transient", "another program took the autopilot's file session"));
    begun = true;
    return opened;
  }

  /** Another file of ours gets its turn, unless this one would have to begin anew. */
  const yields = (): boolean => sessions.wanted && wanted.size !== undefined;

  async function giveBack(): Promise<void> {
    const open = file;
    file = undefined;
    if (open !== undefined) await sessions.end(open);
  }

  const noWrite = (reply: Reply): Fault => changeRefusal("write it", reply, { opcode: Op.WriteFile, autopilot: peer.autopilot });

  /** One turn's worth of a piece; how much of it was written. */
  async function writeSome(open: OpenedFile, bytes: Buffer): Promise<number> {
    const begunMs = performance.now();
    let done = 0;
    do {
      if (lost.signal.aborted) throw abortedFault(lost.signal);
      const data = bytes.subarray(done, done + FTP_DATA_MAX);
      const reply = await requests.ask({ opcode: Op.WriteFile, session: open.session, offset: at, data }, open.systemId, signal);
      if (reply.nak !== undefined) {
        refused = reply;
        if (LOST.includes(reply.nak) || (reply.nak === Nak.FailErrno && reply.errno === EBADF)) throw new SessionLost(nakName(reply.nak));
        throw noWrite(reply);
      }
      // A PX4 says how much its card took, an ArduPilot does not: that it was less is seen by the next write, and by the size in the end.
      const taken = reply.data.length >= 4 ? Math.min(reply.data.readUInt32LE(0), data.length) : data.length;
      if (taken === 0) throw new Fault("full", "the autopilot's card is full");
      sum.update(data.subarray(0, taken));
      at += taken;
      done += taken;
      losses = 0;
      rate.came(taken);
      wanted.onBytes(taken);
    } while (done < bytes.length && rate.open && !yields() && !(sessions.turns.wanted && performance.now() - begunMs > TURN_MS));
    return done;
  }

  async function writeAll(bytes: Buffer): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      await rate.ready(signal);
      if (yields()) await giveBack();
      const open: OpenedFile = file ?? (await openFile());
      file = open;
      const before = at;
      try {
        await sessions.turns.run(signal, () => writeSome(open, bytes.subarray(done)));
      } catch (error) {
        if (!(error instanceof SessionLost)) throw error;
        losses += 1;
        // A PX4 that has forgotten what may be written keeps the session.
        if (refused?.nak === Nak.FileProtected) await giveBack();
        else {
          sessions.forget(open);
          file = undefined;
          peer.neighbours.refused();
        }
        if (losses > LOST_MAX && refused !== undefined) throw noWrite(refused);
      }
      done += at - before;
    }
  }

  /** The next bytes; while they do not come the session is given back. */
  async function next(): ReturnType<Reading["next"]> {
    const timer = wanted.size === undefined ? undefined : setTimeout(() => void giveBack(), IDLE_MS);
    let stop: () => void = () => undefined;
    const stopped = new Promise<never>((_resolve, reject) => {
      stop = () => reject(abortedFault(signal));
      if (signal.aborted) stop();
      else signal.addEventListener("abort", stop, { once: true });
    });
    try {
      return await Promise.race([wanted.bytes.next(), stopped]);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", stop);
    }
  }

  try {
    if (at === 0) file = await openFile();
    for (let chunk = await next(); chunk !== undefined; chunk = await next()) {
      await writeAll(chunk.bytes);
      chunk.release();
    }
    return at;
  } catch (error) {
    // A directory that went away meanwhile is no file that is missing.
    throw isFault(error, "missing") ? new Fault("transient", error.message, { cause: error }) : error;
  } finally {
    wanted.bytes.close();
    await giveBack();
  }
}
