/**
 * The file session of one autopilot: whose turn it is on the link, opening and ending, and what to do when the session is not ours.
 *
 * One thing is on the wire at a time: a listing, a checksum, or a stretch of reading or writing; a long one lets the others in between. One file is
 * open at a time, and given back at times while another one of ours waits. A session that was opened is always ended, also when its opening was
 * interrupted. Sessions of others are waited for, never reset, unless the link is ours alone.
 */
import { abortedFault, Fault, isFault, throwIfAborted } from "../../core/errors.js";
import type { Clock } from "../../core/plugin.js";
import { Turns } from "../../core/turns.js";
import { Nak, Op } from "../../mavlink/ftp.js";
import { AUTOPILOT_ARDUPILOT, AUTOPILOT_PX4 } from "../../mavlink/messages.js";
import type { Attachment, Peer } from "./peer.js";
import type { OpenFile } from "./reading.js";
import { changeRefusal, refusal } from "./refusals.js";
import type { Patience, Reply, Request, Requests } from "./requests.js";

export interface OpenedFile extends OpenFile {
  /** When it was opened. */
  readonly size: number;
  /** Called when another program is seen to have got this session. */
  taken: () => void;
}

/** A PX4 closes a session that nobody asked anything for this long; asking keeps it alive, so we keep quiet. 1.18 and later: the second. Who has not said its version may be either. */
const PX4_IDLE_MS = [10_500, 30_500] as const;
/** An ArduPilot gives a session that was not used for 3 s to whoever asks next (GCS_FTP.cpp). */
const ARDUPILOT_IDLE_MS = [3300, 3300] as const;
const TERMINATE_MS = 1000;
/** A file of ours stays open for so long before another one of ours gets its turn. */
const SHARE_MS = 1000;
/** Another has the session, or all of them. */
const OCCUPIED: readonly number[] = [Nak.NoSessionsAvailable, Nak.InvalidSession];
/** What an autopilot with file transfer may not know. */
const OPTIONAL: readonly number[] = [Op.CalcFileCRC32, Op.ListDirectoryWithTime];

export class Sessions {
  readonly turns = new Turns();
  readonly #requests: Requests;
  readonly #peer: Peer;
  readonly #clock: Clock;
  readonly #place: string;
  readonly #exclusive: boolean;
  /** What a request carries outside of a session; an ArduPilot takes it for the session's own id. */
  #ownId = newId();
  /** The session that we opened and did not see ended. */
  #left: OpenedFile | undefined;
  /** When its ending was last tried in vain. */
  #leftMs = Infinity;
  readonly #busy = new Set<Promise<unknown>>();
  /** Who of us has a file open, or is about to. */
  readonly #files = new Turns();
  /** What lets the next one have a file open. */
  readonly #leave = new WeakMap<OpenedFile, () => void>();
  #openedMs = 0;

  constructor(requests: Requests, peer: Peer, clock: Clock, place: string, exclusive: boolean) {
    this.#requests = requests;
    this.#peer = peer;
    this.#clock = clock;
    this.#place = place;
    this.#exclusive = exclusive;
    requests.foreign = (session, opcode) => {
      // The end of all sessions is on a PX4 that of ours; an ArduPilot ends those of who asks.
      const gone = opcode === Op.ResetSessions ? peer.autopilot === AUTOPILOT_PX4 : this.#left?.session === session;
      if (this.#left === undefined || !gone) return;
      this.#left.taken();
      this.#left = undefined;
    };
  }

  /**
   * One request in its own turn. Throws the Fault of silence, of the signal, of an autopilot without file transfer, or "transient" where another has the
   * session: an ArduPilot up to 4.6 then refuses everything to everybody else.
   */
  ask(attachment: Attachment, request: Omit<Request, "session">, signal: AbortSignal, patience?: Patience): Promise<Reply> {
    const once = (): Promise<Reply> => this.#ask(attachment, { ...request, session: this.#ownId }, signal, patience);
    return this.turns.run(signal, () => this.#whenFree(attachment, once, OCCUPIED, signal));
  }

  /** Another file of ours waits to be opened, and the one that is open has been so for long enough. */
  get wanted(): boolean {
    return this.#files.wanted && performance.now() - this.#openedMs > SHARE_MS;
  }

  /** A file of ours is open, or is being opened or ended. */
  get holding(): boolean {
    return this.#left !== undefined || this.#busy.size > 0;
  }

  /**
   * Opens a file, for reading unless `opcode` says otherwise, once no other file of ours is open. Throws "missing", "transient" (held by another),
   * "denied" (no file transfer), or the signal's Fault at once; a session that is opened after that is ended. The caller ends what it got with `end`.
   */
  async open(attachment: Attachment, path: Buffer, signal: AbortSignal, opcode: number = Op.OpenFileRO): Promise<OpenedFile> {
    const leave = await new Promise<() => void>((resolve, reject) => {
      this.#files.run(signal, () => new Promise<void>((done) => resolve(done))).catch(reject);
    });
    let given = false;
    try {
      await this.idle();
      throwIfAborted(signal);
      const opening = this.turns.run(signal, () => this.#openInTurn(attachment, path, signal, opcode));
      this.#keep(opening);
      given = true;
      opening.then(
        (file) => this.#leave.set(file, leave),
        () => leave(),
      );
      return await new Promise((resolve, reject) => {
        const stop = (): void => {
          reject(abortedFault(signal));
          // It may have been opened in the same moment: nobody else would end it.
          opening.then(
            (file) => this.end(file),
            () => undefined,
          );
        };
        signal.addEventListener("abort", stop, { once: true });
        opening.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
      });
    } finally {
      if (!given) leave();
    }
  }

  /** The first bytes of a small file, once no other file of ours is open: one that is gives its session back for that. Undefined where it cannot be read. Throws like `ask`. */
  glance(attachment: Attachment, path: Buffer, bytes: number, signal: AbortSignal): Promise<Buffer | undefined> {
    return this.#files.run(signal, async () => {
      await this.idle();
      return this.turns.run(signal, async () => {
        await this.#endLeft();
        const opened = await this.#openOnce(attachment, path, signal, Op.OpenFileRO);
        if (opened.nak !== undefined) return undefined;
        this.#left = { session: opened.session, systemId: attachment.systemId, size: 0, taken: () => undefined };
        this.#leftMs = Infinity;
        try {
          const read = await this.#ask(attachment, { opcode: Op.ReadFile, session: opened.session, size: bytes }, signal);
          return read.nak === undefined ? read.data : undefined;
        } finally {
          await this.#terminate(this.#left);
        }
      });
    });
  }

  /** Ends a session; resolves when the autopilot said so, or after a second. Never throws. */
  async end(file: OpenedFile): Promise<void> {
    try {
      if (this.#left !== file) return;
      const ending = this.turns.run(undefined, () => this.#terminate(file));
      this.#keep(ending);
      await ending;
    } finally {
      this.#leave.get(file)?.();
    }
  }

  /** The session is not ours any more: it is not to be ended, and what still comes in it is not to be taken for the next one's. */
  forget(file: OpenedFile): void {
    this.#leave.get(file)?.();
    if (this.#left !== file) return;
    this.#left = undefined;
    this.#ownId = newId(this.#ownId);
  }

  /** Resolves when no session is being opened or ended any more. */
  async idle(): Promise<void> {
    await Promise.allSettled(this.#busy);
  }

  #keep(work: Promise<unknown>): void {
    this.#busy.add(work);
    const done = (): void => void this.#busy.delete(work);
    // Whoever began the work has its error.
    work.then(done, done);
  }

  async #openInTurn(attachment: Attachment, path: Buffer, signal: AbortSignal, opcode: number): Promise<OpenedFile> {
    await this.#endLeft();
    const once = (): Promise<Reply> => this.#openOnce(attachment, path, signal, opcode);
    // Opening makes no file: FileExists is a PX4's refusal under a name that an errno of before has given it.
    const occupied = [...OCCUPIED, Nak.FileExists];
    let reply = await this.#whenFree(attachment, once, occupied, signal);
    if (this.#peer.autopilot === AUTOPILOT_ARDUPILOT && reply.nak === Nak.Fail) {
      throwIfAborted(signal);
      // Our own session of before is open still: nobody heard its end.
      await this.#ask(attachment, { opcode: Op.TerminateSession, session: this.#ownId }, signal);
      reply = await this.#whenFree(attachment, once, occupied, signal);
    }
    if (reply.nak !== undefined) {
      throwIfAborted(signal);
      throw opcode === Op.OpenFileRO
        ? refusal("open it", reply)
        : changeRefusal("open it to write", reply, { opcode, autopilot: this.#peer.autopilot });
    }
    const size = reply.data.length >= 4 ? reply.data.readUInt32LE(0) : 0;
    this.#leftMs = Infinity;
    this.#openedMs = performance.now();
    this.#left = { session: reply.session, systemId: attachment.systemId, size, taken: () => undefined };
    if (!signal.aborted) return this.#left;
    await this.#terminate(this.#left);
    throw abortedFault(signal);
  }

  /** The answer to `once`, asked again while it is one of `occupied`: after a silence in which a session that nobody uses is closed, because asking keeps it open. */
  async #whenFree(attachment: Attachment, once: () => Promise<Reply>, occupied: readonly number[], signal: AbortSignal): Promise<Reply> {
    for (let waits = 0; ; waits += 1) {
      const reply = await once();
      if (reply.nak === undefined || !occupied.includes(reply.nak)) return reply;
      throwIfAborted(signal);
      this.#peer.neighbours.refused();
      throwIfAborted(signal);
      const waitMs = (this.#peer.autopilot === AUTOPILOT_ARDUPILOT ? ARDUPILOT_IDLE_MS : this.#px4IdleMs())[waits];
      if (waitMs === undefined) {
        this.#peer.neighbours.held();
        throwIfAborted(signal);
        throw new Fault("transient", "another program (a ground station?) uses the autopilot's file session");
      }
      if (this.#exclusive && waits === 0) await this.#ask(attachment, { opcode: Op.ResetSessions, session: this.#ownId }, signal);
      else await this.#clock.sleep(waitMs, signal);
    }
  }

  /** Given up in the middle, it still waits a moment for the answer, which says what has to be ended. */
  async #openOnce(attachment: Attachment, path: Buffer, signal: AbortSignal, opcode: number): Promise<Reply> {
    const late = new AbortController();
    let timer: NodeJS.Timeout | undefined;
    const stop = (): void => {
      timer = setTimeout(() => late.abort(signal.reason), TERMINATE_MS);
    };
    throwIfAborted(signal);
    signal.addEventListener("abort", stop, { once: true });
    try {
      return await this.#ask(attachment, { opcode, session: this.#ownId, data: path }, late.signal);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", stop);
    }
  }

  #px4IdleMs(): readonly number[] {
    const version = this.#peer.version;
    if (version === undefined) return PX4_IDLE_MS;
    return [PX4_IDLE_MS[version[0] > 1 || version[1] >= 18 ? 1 : 0]];
  }

  async #endLeft(): Promise<void> {
    // One that was left long ago is closed by now: what is open then is somebody else's.
    if (this.#clock.monotonicMs() - this.#leftMs > PX4_IDLE_MS[1]) this.#left = undefined;
    if (this.#left !== undefined) await this.#terminate(this.#left);
  }

  async #terminate(file: OpenedFile): Promise<void> {
    try {
      const request = { opcode: Op.TerminateSession, session: file.session };
      await this.#requests.ask(request, file.systemId, new AbortController().signal, { firstMs: 200, totalMs: TERMINATE_MS });
      if (this.#left === file) this.#left = undefined;
      this.#leftMs = Infinity;
    } catch (error) {
      if (!isFault(error, "transient")) throw error;
      // The link is down: the autopilot closes it when idle, and it is ended first thing when the next is opened.
      if (this.#leftMs === Infinity) this.#leftMs = this.#clock.monotonicMs();
    }
  }

  async #ask(attachment: Attachment, request: Request, signal: AbortSignal, patience?: Patience): Promise<Reply> {
    try {
      const reply = await this.#requests.ask(request, attachment.systemId, signal, patience);
      if (reply.nak === Nak.UnknownCommand && !OPTIONAL.includes(request.opcode)) throw this.#unsupported("denied");
      return reply;
    } catch (error) {
      if (isFault(error, "transient") && !this.#requests.answered) throw this.#unsupported("transient");
      throw error;
    }
  }

  #unsupported(kind: "denied" | "transient"): Fault {
    return new Fault(
      kind,
      `the autopilot on ${this.#place} answers no MAVLink FTP: on PX4 the port needs a mode with FTP (USB has it; TELEM: MAV_X_MODE "normal" or "onboard"), on ArduPilot it must not be switched off in BRD_OPTIONS`,
    );
  }
}

/** Another than before. Never 0, for which an ArduPilot 4.8 makes up a session each time. */
function newId(before = 0): number {
  return 1 + ((before + Math.floor(Math.random() * 253)) % 254);
}
