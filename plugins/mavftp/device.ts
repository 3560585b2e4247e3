/**
 * One configured autopilot: its link, its peer, its file sessions, and the contract over them. What arbitrates is below; here paths are made
 * and answers become entries. The link is opened when presence is first asked for.
 */
import { Observable, type Observable as Stream } from "../../core/rxjs.js";
import type { Readable } from "node:stream";
import { Fault } from "../../core/errors.js";
import { realOf } from "../../core/fs.js";
import { parentOf } from "../../core/paths.js";
import type {
  Advice,
  Device,
  Digest,
  DigestKind,
  FileEntry,
  ListOptions,
  News,
  PluginContext,
  Presence,
  Source,
  SourceFeatures,
  Target,
  Tree,
  WayOfReading,
} from "../../core/plugin.js";
import { Nak, Op } from "../../mavlink/ftp.js";
import {
  AUTOPILOT_ARDUPILOT,
  AUTOPILOT_PX4,
  FILE_TRANSFER_PROTOCOL,
  HEARTBEAT,
  SYSTEM_TIME,
  type StorageInformation,
} from "../../mavlink/messages.js";
import type { TraceHead } from "../../mavlink/trace.js";
import { addressText, isOwnUsb, placeOf } from "./address.js";
import { Card, type Stay } from "./card.js";
import { openDownload } from "./download.js";
import { Link } from "./link.js";
import { besides, isLastLog, listTree, noRoot, pathBytes, withSettled, type LastNumbers } from "./listing.js";
import { Neighbours, type Ourselves } from "./neighbours.js";
import { Peer } from "./peer.js";
import { Pilot } from "./pilot.js";
import type { MavftpOptions } from "./plugin.js";
import { RateCap } from "./rate.js";
import { Questions } from "./questions.js";
import type { Reading } from "./reading.js";
import { Recorder } from "./recorder.js";
import { Requests } from "./requests.js";
import { refusal } from "./refusals.js";
import { Sessions } from "./session.js";
import { cardAdvice, freeOn, tellsStorage } from "./storage.js";
import { adviceOf, firmwareAdvice, settingsToAsk } from "./settings.js";
import { MavftpTarget } from "./target.js";
import { MavftpTree } from "./tree.js";
import { ARDUPILOT_BURST, BurstReading, PX4_BURST, type BurstRules } from "./burst.js";
import { ARDUPILOT_WINDOW, Pace, PX4_WINDOW, SAFEST_WINDOW } from "./pace.js";
import { inWords, WayReading, type Choice } from "./way.js";
import { WindowReading } from "./window.js";

/** How long a probe waits for the first heartbeat. */
const PROBE_MS = 4000;
/** Its file server takes offsets for signed numbers (GCS_FTP.cpp, AP_Filesystem). */
const ARDUPILOT_BYTES = 2 ** 31;
/** An offset has 32 bits. */
const LAST_OFFSET = 2 ** 32;
/** LASTLOG.TXT holds one number. */
const LASTLOG_BYTES = 20;

/** By MAV_AUTOPILOT: whose bursts are known. */
const BURSTS: ReadonlyMap<number, BurstRules> = new Map([
  [AUTOPILOT_PX4, PX4_BURST],
  [AUTOPILOT_ARDUPILOT, ARDUPILOT_BURST],
]);

/** A partial of an upload that runs, ours or another's: no file yet. */
const PARTIAL = /(^|\/)\.[^/]*\.part$/;

export class MavftpDevice implements Device, Source {
  readonly presence$: Stream<Presence>;
  readonly source: Source = this;
  readonly target?: Target;
  readonly tree?: Tree;
  readonly changes$: Stream<void>;

  readonly #options: MavftpOptions;
  readonly #link: Link;
  readonly #peer: Peer;
  readonly #requests: Requests;
  readonly #questions: Questions;
  readonly #sessions: Sessions;
  readonly #context: PluginContext;
  readonly #rate: RateCap;
  /** By MAV_AUTOPILOT: what was learned of the link stays from file to file. */
  readonly #readings = new Map<number, WayReading>();
  readonly #downloads = new Set<Promise<void>>();
  readonly #recorder: Recorder | undefined;
  readonly #card: Card;
  readonly #pilot: Pilot | undefined;
  readonly news?: (news: News) => void;
  /** Files that were surely complete at the last listing, and their sizes. */
  #complete: ReadonlyMap<string, number> = new Map();
  /** By directory: what its LASTLOG.TXT said, and the logs that there were beside that one. */
  readonly #lastLogs = new Map<string, { readonly number: number; readonly beside: string }>();
  #closed: Promise<void> | undefined;

  constructor(options: MavftpOptions, context: PluginContext) {
    const place = placeOf(options.url);
    this.#options = options;
    this.#context = context;
    this.#link = new Link(options.url, options.componentId, context.clock);
    const neighbours = new Neighbours(context.clock, options.exclusive, (message) => context.say("info", message));
    this.#peer = new Peer(
      this.#link,
      { place, systemId: options.systemId, pauseWhenArmed: options.whenArmed === "pause", neighbours },
      context,
    );
    if (options.trace !== undefined)
      this.#recorder = new Recorder(
        options.trace,
        () => this.#traceHead(),
        (level, message) => context.say(level, message),
      );
    this.#requests = new Requests(this.#recorder?.over(this.#link) ?? this.#link);
    this.#questions = new Questions((id, payload) => this.#link.send(id, payload), this.#peer, context.clock);
    this.#sessions = new Sessions(this.#requests, this.#peer, context.clock, place, options.exclusive);
    this.#rate = new RateCap(context.maxRate, context.clock);
    this.#card = new Card(this.#peer, this.#sessions, options);
    if (options.write) {
      const target = new MavftpTarget({
        ...{ peer: this.#peer, requests: this.#requests, sessions: this.#sessions, rate: this.#rate, card: this.#card },
        readBack: (entry, signal) => this.#read(entry, 0, signal, this.#reading()),
      });
      this.target = target;
      this.tree = new MavftpTree(this.#card, this, target);
    }
    if (options.tellPilot) {
      const peer = this.#peer;
      const may = () => peer.present && (peer.armed === false || (peer.armed === true && options.whenArmed === "continue"));
      const pilot = new Pilot(context.clock, (id, payload) => this.#link.send(id, payload), may);
      this.#pilot = pilot;
      this.news = (news) => pilot.news(news);
    }
    this.presence$ = new Observable((subscriber) => {
      this.#start();
      return this.#peer.presence$.subscribe(subscriber);
    });
    this.changes$ = this.#peer.changes$;
  }

  get features(): SourceFeatures {
    return { ranges: true, digests: this.#card.checksums ? ["crc32-mavlink"] : [], concurrency: 1, inPlace: false };
  }

  async probe(signal: AbortSignal): Promise<void> {
    await this.#attached(signal);
    await this.#card.with(signal, (stay) => this.#expectRoot(stay));
  }

  async #expectRoot({ ask, root }: Stay): Promise<void> {
    const at = await root();
    const reply = await ask({ opcode: Op.ListDirectory, offset: 0, data: pathBytes(at, "") });
    if (reply.nak === undefined || reply.nak === Nak.Eof) return;
    const fault = refusal("list the root", reply);
    throw fault.kind === "missing" ? noRoot(at) : fault;
  }

  /** While it is attached, so not while it is armed, unless reading goes on then too. */
  async advice(signal: AbortSignal): Promise<Advice[]> {
    this.#peer.attachment();
    const [settings, card] = await Promise.all([this.#settings(signal), this.#storage(signal)]);
    const { autopilot = -1, version } = this.#peer;
    return [...firmwareAdvice(autopilot, version), ...settings, ...(tellsStorage(autopilot) ? [cardAdvice(card)] : [])];
  }

  /** Which there are depends on the version. */
  async #settings(signal: AbortSignal): Promise<Advice[]> {
    const { autopilot = -1 } = this.#peer;
    const usb = isOwnUsb(this.#options.url, realOf);
    if (settingsToAsk({ autopilot, version: undefined, usb }).length === 0) return [];
    await this.#questions.version(signal);
    const asked = { autopilot, version: this.#peer.version, usb };
    return adviceOf(asked, await this.#questions.settings(settingsToAsk(asked), signal));
  }

  /** A PX4 tells what is free on its card; undefined of all others. */
  async room(signal: AbortSignal): Promise<number | undefined> {
    this.#peer.attachment();
    const card = await this.#storage(signal);
    return card === undefined ? undefined : freeOn(card);
  }

  async #storage(signal: AbortSignal): Promise<StorageInformation | undefined> {
    return tellsStorage(this.#peer.autopilot) ? this.#questions.storage(signal) : undefined;
  }

  async *list(signal: AbortSignal, options: ListOptions = {}): AsyncGenerator<FileEntry> {
    const { entries, lastNumbers } = await this.#card.with(signal, async (stay) => {
      const root = await stay.root();
      const listed = await listTree(stay.ask, { root, enter: options.enter, directories: options.directories, dialect: stay.dialect });
      const found = listed.filter(({ path }) => !PARTIAL.test(path));
      return { entries: found, lastNumbers: await this.#lastNumbers(found, root, stay) };
    });
    const told = withSettled(entries, this.#peer.armed !== false, lastNumbers, this.#complete);
    this.#complete = new Map(told.flatMap(({ path, size, settled }) => (settled === true ? [[path, size]] : [])));
    yield* told;
  }

  /** Each but those that another log has followed: an ArduPilot may keep one log over flights, and may log while it is disarmed. */
  mayGrow(path: string): boolean {
    return !this.#complete.has(path);
  }

  /** What an ArduPilot says is its last log. While a file of ours is open, and no other log has come or changed, it is the same. */
  async #lastNumbers(entries: readonly FileEntry[], root: string, { attachment, signal }: Stay): Promise<LastNumbers> {
    // One that was there is, where it is not listed: a listing goes by numbers, and misses one where something before it is deleted meanwhile.
    const numbers = new Map<string, number | "unread">([...this.#lastLogs.keys()].map((dir) => [dir, "unread"]));
    for (const { kind, path, size } of entries) {
      if (kind !== "file" || !isLastLog(path)) continue;
      const dir = parentOf(path);
      const readable = size > 0 && size <= LASTLOG_BYTES;
      const known = this.#lastLogs.get(dir);
      if (known !== undefined && readable && this.#sessions.holding && known.beside === besides(known.number, dir, entries)) {
        numbers.set(dir, known.number);
        continue;
      }
      const text = readable ? await this.#sessions.glance(attachment, pathBytes(root, path), size, signal) : undefined;
      const number = Number.parseInt(text?.toString("latin1") ?? "", 10);
      numbers.set(dir, Number.isNaN(number) ? "unread" : number);
      if (!Number.isNaN(number)) this.#lastLogs.set(dir, { number, beside: besides(number, dir, entries) });
    }
    return numbers;
  }

  stat(path: string, signal: AbortSignal): Promise<FileEntry | undefined> {
    return this.#card.with(signal, (stay) => this.#stat(stay, path));
  }

  /** Without its card an autopilot says of each file that it is not there: that is no word about the file. */
  async #stat(stay: Stay, path: string): Promise<FileEntry | undefined> {
    const found = await this.#card.stat(stay, path);
    if (found === undefined) await this.#expectRoot(stay);
    return found;
  }

  async open(entry: FileEntry, offset: number, signal: AbortSignal, options: { readonly safest?: boolean } = {}): Promise<Readable> {
    if (offset > entry.size) throw new Fault("changed", `the file has ${entry.size} bytes, byte ${offset} is past its end`);
    const most = this.#peer.autopilot === AUTOPILOT_ARDUPILOT ? ARDUPILOT_BYTES : LAST_OFFSET;
    if (entry.size > most)
      throw new Fault(
        "rejected",
        `it has ${entry.size} bytes, and by MAVLink FTP this autopilot gives only the first ${most / 2 ** 30} GiB of a file: take it from the card itself`,
      );
    return this.#read(entry, offset, signal, options.safest === true ? new WindowReading(new Pace(SAFEST_WINDOW)) : this.#reading());
  }

  async #read(entry: FileEntry, offset: number, signal: AbortSignal, reading: Reading): Promise<Readable> {
    const path = await this.#card.with(signal, async ({ root }) => pathBytes(await root(), entry.path));
    const tools = {
      peer: this.#peer,
      requests: this.#requests,
      sessions: this.#sessions,
      reading,
      rate: this.#rate,
      samples: this.#card.affordsChecksum(entry.size) ? undefined : Math.random,
    };
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
    const card = this.#card;
    if (kind !== "crc32-mavlink" || !card.affordsChecksum(entry.size)) return undefined;
    return card.with<Digest | undefined>(signal, async (stay) => {
      const now = await this.#stat(stay, entry.path);
      if (now === undefined) throw new Fault("missing", "there is no such file on the autopilot");
      // It covers the whole file, so one that has grown has another checksum than its first bytes.
      if (now.size !== entry.size || this.#peer.armed !== false) return undefined;
      const crc = await card.checksum(stay, entry.path, entry.size);
      // It is read to the end that it has by then, which takes seconds.
      if (this.mayGrow(entry.path) && ((await this.#stat(stay, entry.path))?.size ?? entry.size) !== entry.size) return undefined;
      return crc === undefined ? undefined : `crc32-mavlink:${crc.toString(16).padStart(8, "0")}`;
    });
  }

  close(): Promise<void> {
    this.#closed ??= (async () => {
      this.#peer.stop(new Fault("aborted", "closed"));
      // Open sessions are ended first: nobody else could, until the autopilot gives them up.
      await this.#sessions.idle();
      await Promise.all(this.#downloads);
      await this.#link.close();
      await this.#recorder?.close();
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
    this.#peer.presence$.subscribe(() => this.#record());
    this.#peer.start();
    this.#link.start({
      frame: (frame) => {
        if (peer.isFrom(frame)) link.stay();
        peer.neighbours.frame(frame, we);
        if (frame.messageId === FILE_TRANSFER_PROTOCOL) {
          if (!this.#peer.isFrom(frame)) return;
          this.#peer.heard();
          this.#recorder?.received(frame.payload);
          this.#requests.frame(frame);
        } else {
          this.#peer.frame(frame);
          if (this.#peer.isFrom(frame)) this.#questions.frame(frame);
          if (frame.messageId === HEARTBEAT) this.#pilot?.look();
          if (frame.messageId === HEARTBEAT || frame.messageId === SYSTEM_TIME) this.#record();
        }
      },
      state: (state) => this.#peer.linkState(state),
    });
  }

  #record(): void {
    const { armed, present, boots } = this.#peer;
    this.#recorder?.vehicle({ armed: armed === true, heard: present, boots });
  }

  #traceHead(): TraceHead {
    const { autopilot = 0, version = [] } = this.#peer;
    return { autopilot, firmware: version.join("."), link: placeOf(this.#options.url) };
  }

  /** How this autopilot is read over this link, and why; undefined until that is found out. */
  get way(): Choice | undefined {
    return this.#readings.get(this.#peer.autopilot ?? AUTOPILOT_ARDUPILOT)?.choice;
  }

  /** Major, minor and patch of its firmware; undefined until it answered. */
  get version(): readonly [number, number, number] | undefined {
    return this.#peer.version;
  }

  /** What its heartbeat says, while that comes; undefined: no autopilot is heard. */
  get heard(): { readonly autopilot: number; readonly armed: boolean } | undefined {
    const { present, autopilot, armed } = this.#peer;
    return present && autopilot !== undefined ? { autopilot, armed: armed !== false } : undefined;
  }

  /** Whether its port or connection is open. */
  get linked(): boolean {
    return this.#link.state.open;
  }

  /** Where its logs are, as it is found where no root is configured. Throws "denied" where there is no such place, "offline" while it is armed. */
  logDirectory(signal: AbortSignal): Promise<string> {
    return this.#card.with(signal, ({ root }) => root());
  }

  /** It said that it is disarmed. */
  get disarmed(): boolean {
    return this.#peer.armed === false;
  }

  get wayOfReading(): WayOfReading | undefined {
    return this.way === undefined ? undefined : inWords(this.way);
  }

  /** FTP requests sent so far. */
  get requestsSent(): number {
    return this.#requests.sent;
  }

  /** How this autopilot is read. */
  #reading(): Reading {
    const autopilot = this.#peer.autopilot ?? AUTOPILOT_ARDUPILOT;
    let reading = this.#readings.get(autopilot);
    if (reading === undefined) {
      const pace = new Pace(autopilot === AUTOPILOT_PX4 ? PX4_WINDOW : ARDUPILOT_WINDOW);
      const rules = BURSTS.get(autopilot);
      reading = new WayReading({
        reads: new WindowReading(pace),
        bursts: rules === undefined ? undefined : new BurstReading(pace, rules),
        memory: this.#context.memory,
        peer: () => this.#peer,
        link: addressText(this.#options.url),
        now: () => this.#context.clock.monotonicMs(),
        say: (level, message, facts) => this.#context.say(level, message, facts),
      });
      this.#readings.set(autopilot, reading);
    }
    return reading;
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
