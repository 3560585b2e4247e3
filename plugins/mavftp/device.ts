/**
 * One configured autopilot: its link, its peer, its file sessions, and the contract over them. What arbitrates is below; here paths are made
 * and answers become entries. The link is opened when presence is first asked for.
 */
import { Observable, type Observable as Stream } from "rxjs";
import type { Readable } from "node:stream";
import { Fault, isFault } from "../../core/errors.js";
import type {
  Device,
  Digest,
  DigestKind,
  FileEntry,
  ListOptions,
  PluginContext,
  Presence,
  Source,
  SourceFeatures,
} from "../../core/plugin.js";
import { FTP_DATA_MAX, Nak, Op } from "../../mavlink/ftp.js";
import { AUTOPILOT_ARDUPILOT, AUTOPILOT_PX4, FILE_TRANSFER_PROTOCOL } from "../../mavlink/messages.js";
import { placeOf } from "./address.js";
import { openDownload } from "./download.js";
import { Link } from "./link.js";
import { entryOf, listDirectory, listTree, noRoot, pathBytes, withSettled, type Ask } from "./listing.js";
import { Neighbours, type Ourselves } from "./neighbours.js";
import { Peer } from "./peer.js";
import type { MavftpOptions } from "./plugin.js";
import { RateCap } from "./rate.js";
import type { Reading } from "./reading.js";
import { Requests } from "./requests.js";
import { refusal, Sessions } from "./session.js";
import { joinSignals } from "./signals.js";
import { ARDUPILOT_WINDOW, PX4_WINDOW, SAFEST_WINDOW, WindowReading } from "./window.js";

/** How long a probe waits for the first heartbeat. */
const PROBE_MS = 4000;
/** The slowest card: what an autopilot needs for its checksum. */
const CRC_BYTES_PER_MS = 50;
const CRC_LEAST_MS = 5000;

export class MavftpDevice implements Device, Source {
  readonly presence$: Stream<Presence>;
  readonly source: Source = this;
  readonly changes$: Stream<void>;

  readonly #options: MavftpOptions;
  readonly #link: Link;
  readonly #peer: Peer;
  readonly #requests: Requests;
  readonly #sessions: Sessions;
  readonly #rate: RateCap;
  /** By MAV_AUTOPILOT: what was learned of the link stays from file to file. */
  readonly #readings = new Map<number, Reading>();
  readonly #downloads = new Set<Promise<void>>();
  #checksums = true;
  #closed: Promise<void> | undefined;

  constructor(options: MavftpOptions, context: PluginContext) {
    const place = placeOf(options.url);
    this.#options = options;
    this.#link = new Link(options.url, options.componentId, context.clock);
    const neighbours = new Neighbours(context.clock, options.exclusive, (message) => context.say("info", message));
    this.#peer = new Peer(
      this.#link,
      { place, systemId: options.systemId, pauseWhenArmed: options.whenArmed === "pause", neighbours },
      context,
    );
    this.#requests = new Requests(this.#link);
    this.#sessions = new Sessions(this.#requests, this.#peer, context.clock, place, options.exclusive);
    this.#rate = new RateCap(context.maxRate, context.clock);
    this.presence$ = new Observable((subscriber) => {
      this.#start();
      return this.#peer.presence$.subscribe(subscriber);
    });
    this.changes$ = this.#peer.changes$;
  }

  get features(): SourceFeatures {
    return { ranges: true, digests: this.#checksums ? ["crc32-mavlink"] : [], concurrency: 1, inPlace: false };
  }

  async probe(signal: AbortSignal): Promise<void> {
    await this.#attached(signal);
    await this.#with(signal, async (ask) => {
      const reply = await ask({ opcode: Op.ListDirectory, offset: 0, data: pathBytes(this.#options.root, "") });
      if (reply.nak === undefined || reply.nak === Nak.Eof) return;
      const fault = refusal("list the root", reply);
      throw fault.kind === "missing" ? noRoot(this.#options.root) : fault;
    });
  }

  async *list(signal: AbortSignal, options: ListOptions = {}): AsyncGenerator<FileEntry> {
    const entries = await this.#with(signal, (ask) => listTree(ask, { root: this.#options.root, enter: options.enter }));
    yield* withSettled(entries, this.#peer.armed !== false);
  }

  async stat(path: string, signal: AbortSignal): Promise<FileEntry | undefined> {
    return this.#with(signal, (ask) => this.#stat(ask, path));
  }

  async open(entry: FileEntry, offset: number, signal: AbortSignal, options: { readonly safest?: boolean } = {}): Promise<Readable> {
    if (offset > entry.size) throw new Fault("changed", `the file has ${entry.size} bytes, byte ${offset} is past its end`);
    const path = this.#path(entry.path);
    const reading = options.safest === true ? new WindowReading(SAFEST_WINDOW) : this.#reading();
    const tools = { peer: this.#peer, requests: this.#requests, sessions: this.#sessions, reading, rate: this.#rate };
    this.#peer.logging.reads();
    const { stream, ended } = await openDownload(tools, { path, size: entry.size, offset }, signal);
    this.#downloads.add(ended);
    void ended.then(() => {
      this.#downloads.delete(ended);
      this.#peer.logging.hasRead();
    });
    return stream;
  }

  async digest(entry: FileEntry, kind: DigestKind, signal: AbortSignal): Promise<Digest | undefined> {
    if (kind !== "crc32-mavlink" || !this.#checksums || entry.size > this.#options.crcMaxSize) return undefined;
    return this.#with<Digest | undefined>(signal, async (ask) => {
      const now = await this.#stat(ask, entry.path);
      if (now === undefined) throw new Fault("missing", "there is no such file on the autopilot");
      // It covers the whole file, so one that has grown has another checksum than its first bytes.
      if (now.size !== entry.size || this.#peer.armed !== false) return undefined;
      const totalMs = CRC_LEAST_MS + entry.size / CRC_BYTES_PER_MS;
      const reply = await ask({ opcode: Op.CalcFileCRC32, data: this.#path(entry.path) }, { totalMs, firstMs: 1000 + entry.size / 1000 });
      if (reply.nak === Nak.UnknownCommand) {
        this.#checksums = false;
        return undefined;
      }
      if (reply.nak !== undefined) throw refusal("compute the checksum", reply);
      return `crc32-mavlink:${reply.data.readUInt32LE(0).toString(16).padStart(8, "0")}`;
    });
  }

  close(): Promise<void> {
    this.#closed ??= (async () => {
      this.#peer.stop(new Fault("aborted", "closed"));
      // Open sessions are ended first: nobody else could, until the autopilot gives them up.
      await this.#sessions.idle();
      await Promise.all(this.#downloads);
      await this.#link.close();
    })();
    return this.#closed;
  }

  #start(): void {
    if (this.#closed !== undefined) return;
    const link = this.#link;
    const peer = this.#peer;
    const we: Ourselves = {
      get systemId() {
        return link.systemId;
      },
      componentId: link.componentId,
      isAutopilot: (frame) => peer.isFrom(frame),
    };
    this.#peer.start();
    this.#link.start({
      frame: (frame) => {
        peer.neighbours.frame(frame, we);
        if (frame.messageId === FILE_TRANSFER_PROTOCOL) {
          if (!this.#peer.isFrom(frame)) return;
          this.#peer.heard();
          this.#requests.frame(frame);
        } else this.#peer.frame(frame);
      },
      state: (state) => this.#peer.linkState(state),
    });
  }

  /** Work under the present attachment: it ends with the attachment's Fault when that ends. */
  async #with<T>(signal: AbortSignal, work: (ask: AskPatiently) => Promise<T>): Promise<T> {
    const attachment = this.#peer.attachment();
    const joined = joinSignals(signal, attachment.signal);
    try {
      return await work((request, patience) => this.#sessions.ask(attachment, request, joined.signal, patience));
    } finally {
      joined.release();
    }
  }

  async #stat(ask: Ask, path: string): Promise<FileEntry | undefined> {
    const slash = path.lastIndexOf("/");
    try {
      const listed = await listDirectory(ask, pathBytes(this.#options.root, slash === -1 ? "" : path.slice(0, slash)));
      const found = listed.find((entry) => entry.name === path.slice(slash + 1));
      return found === undefined ? undefined : entryOf(path, found);
    } catch (error) {
      if (isFault(error, "missing")) return undefined;
      throw error;
    }
  }

  /** How this autopilot is read. */
  #reading(): Reading {
    const autopilot = this.#peer.autopilot ?? AUTOPILOT_ARDUPILOT;
    let reading = this.#readings.get(autopilot);
    if (reading === undefined) {
      reading = new WindowReading(autopilot === AUTOPILOT_PX4 ? PX4_WINDOW : ARDUPILOT_WINDOW);
      this.#readings.set(autopilot, reading);
    }
    return reading;
  }

  #path(path: string): Buffer {
    const bytes = pathBytes(this.#options.root, path);
    if (bytes.length > FTP_DATA_MAX) throw new Fault("rejected", "its path is too long for MAVLink FTP");
    return bytes;
  }

  /** Waits a moment for the autopilot; whether it is there is the caller's to find out. */
  async #attached(signal: AbortSignal): Promise<void> {
    if (signal.aborted || this.#peer.presence$.value.state === "attached") return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", done);
        subscription.unsubscribe();
        resolve();
      };
      const timer = setTimeout(done, PROBE_MS);
      signal.addEventListener("abort", done, { once: true });
      const subscription = this.#peer.presence$.subscribe({
        next: (presence) => {
          if (presence.state === "attached") queueMicrotask(done);
        },
        complete: () => queueMicrotask(done),
      });
    });
  }
}

type AskPatiently = (request: Parameters<Ask>[0], patience?: Parameters<Sessions["ask"]>[3]) => ReturnType<Ask>;
