/**
 * A simulated flight controller: a vehicle that speaks MAVLink over a real transport and serves the files of one directory by MAVLink FTP, as a
 * given autopilot would over a given kind of link, with faults drawn from a seed. It is for tests, demonstrations and benchmarks, and
 * says so (STATUSTEXT). It flies nothing, writes nothing, and keeps nothing after `close`.
 */
import { decodeFtp, emptyPacket, FTP_PAYLOAD, Op, type FtpPacket } from "../mavlink/ftp.js";
import { FrameParser, FrameWriter } from "../mavlink/frame.js";
import * as m from "../mavlink/messages.js";
import { readTrace, TraceWriter, type Trace } from "../mavlink/trace.js";
import type { Autopilot, Sender, Setting } from "./autopilot.js";
import { autopilotNamed } from "./autopilots.js";
import { realClock, type SimClock } from "./clock.js";
import { Disk, type Watch } from "./disk.js";
import { checkFaults, stages, startFaults, type Faults, type Passing } from "./faults.js";
import { FlightLog, type LogOptions } from "./flight-log.js";
import { FtpSide, unanswered } from "./ftp-side.js";
import type { Loaded, LoadOptions } from "./ground-station.js";
import { Radio, RADIO } from "./radio.js";
import { seeded } from "./random.js";
import { replayOf } from "./replay.js";
import { Script } from "./script.js";
import { emptyStats, type SimStats } from "./stats.js";
import type { Pulled } from "./pulled.js";
import { openTransport, type Transport } from "./transport.js";
import { Vehicle } from "./vehicle.js";
import { linkModel, waysOf } from "./wire.js";

/** A line that a client sent for people (STATUSTEXT); long ones come in chunks. */
export interface Told extends m.StatusText {
  readonly systemId: number;
  readonly componentId: number;
}

export interface SimOptions {
  readonly onText?: (told: Told) => void;
  /** "tcpin://HOST:PORT", "udpin://HOST:PORT", "udpout://HOST:PORT" or "pty:PATH". Port 0 takes any free one. */
  readonly listen: string;
  /** The directory that is "/" to clients. */
  readonly dir: string;
  /** Default "px4". */
  readonly autopilot?: string;
  /** Default "usb". */
  readonly link?: string;
  /** Fault name → value: { loss: "10%" }. */
  readonly faults?: Faults;
  /** What the faults are drawn from; default 1. */
  readonly seed?: number;
  readonly armed?: boolean;
  /** MAVLink system id; default 1. */
  readonly systemId?: number;
  /** Settings that are not the autopilot's usual ones, by name; undefined: it does not have that one. */
  readonly settings?: Readonly<Record<string, number | undefined>>;
  /** Bytes that its card takes still; "none": it says that no card is in; "silent": it says nothing of it. */
  readonly cardFree?: number | "none" | "silent";
  /** Bytes of the transmit ring, where it is not the autopilot's usual one. */
  readonly transmitRing?: number;
  /** false: no FTP server answers. */
  readonly ftp?: boolean;
  /** Time; default that of this machine. */
  readonly clock?: SimClock;
  /** Milliseconds since 1970; default this machine's. */
  readonly wallMs?: () => number;
  /** The text of a trace (mavlink/trace.ts): it is played, in place of an autopilot with files; the link is "none" unless told. */
  readonly replay?: string;
  /** Watches what clients read of which file. */
  readonly opened?: Watch;
  /** Takes the lines of a trace of what is asked and answered on this link. */
  readonly trace?: (line: string) => void;
}

export interface Sim {
  readonly url: string;
  /** What a mavftp device has as its `url` to reach this vehicle. */
  readonly clientUrl: string;
  readonly armed: boolean;
  readonly stats: SimStats;
  /** File sessions that are open now. */
  openSessions(): number;
  /** Arms or disarms, and says so at once. */
  setArmed(armed: boolean): void;
  /** Cuts every client off for so long (default 0): the cable is pulled and put back; `at`: a pseudo-terminal comes back at that path. */
  dropLink(pulled?: Pulled, at?: string): Promise<void>;
  /** Power off and on: sessions and what is on its way are gone, and nothing is said for `forMs` (default 500). */
  reboot(forMs?: number): void;
  /** The card does not answer for so long. */
  pause(ms: number): void;
  /** A ground station loads a file (default: its parameters), on this link or, `own`, on another; resolves when it has, or has given up. */
  load(options?: Partial<LoadOptions> & { readonly own?: boolean }): Promise<Loaded>;
  /** Somebody else has every file session for so long; resolves when they are given back. */
  exhaust(ms: number): Promise<void>;
  /** A log is written from now on; its path is that of the newest, or the one after it. */
  writeLog(options: LogOptions): FlightLog;
  /** Idempotent; afterwards no socket, child or timer is left. */
  close(): Promise<void>;
}

/** Free on a card of which nothing is told. */
const USUAL_FREE = 28e9;

/** A frame that came in, kept while it is on the wire. */
interface Inbound extends Passing {
  readonly messageId: number;
  readonly systemId: number;
  readonly componentId: number;
  readonly payload: Buffer;
}

/** Starts it and resolves once clients can connect. Throws an error that says which option is wrong. */
export async function startSim(options: SimOptions): Promise<Sim> {
  const trace = options.replay === undefined ? undefined : readTrace(options.replay);
  const autopilot = trace === undefined ? autopilotNamed(options.autopilot ?? "px4") : replayOf(trace);
  const link = linkModel(options.link ?? (trace === undefined ? "usb" : "none"));
  const faults = options.faults ?? {};
  checkFaults(faults);
  if (faults.unplug?.includes(",") === true && !options.listen.startsWith("pty:"))
    throw new Error("fault unplug: only a pseudo-terminal comes back under another name");
  if (faults.radio?.startsWith("own") === true && link.halfDuplex !== true)
    throw new Error("fault radio: only a link radio:BAUD has a radio that can tell how full it is");
  const clock = options.clock ?? realClock;
  const wallMs = options.wallMs ?? (() => Date.now());
  const settings = settingsOf(autopilot, options.settings ?? {});
  if (options.cardFree !== undefined && !autopilot.tellsStorage)
    throw new Error(`${autopilot.name} does not tell what is free on its card; a fault "full" makes it so, unsaid`);
  const disk = new Disk(options.dir, options.opened);
  if (typeof options.cardFree === "number") disk.freeBytes = options.cardFree;
  const random = seeded(options.seed ?? 1);
  const stats = emptyStats();
  const systemId = options.systemId ?? 1;
  const writer = new FrameWriter(systemId, m.COMPONENT_AUTOPILOT);
  const pending = new Set<() => void>();
  const packet: FtpPacket = emptyPacket();
  const script = new Script(after);
  let log: FlightLog | undefined;
  let silent = false;
  let closed = false;
  let readsWaiting = 0;
  let logFails = 0;
  // Empty until the transport is open: a client may come before that is known here.
  const medium: { transport?: Transport } = {};

  function after(ms: number, run: () => void): void {
    if (closed) return;
    const forget = clock.after(ms, () => {
      pending.delete(forget);
      run();
    });
    pending.add(forget);
  }
  const later = { after, now: () => clock.now() };

  // ---------------------------------------------------------------- out

  const outStage = stages<Buffer>(faults, {
    ...later,
    random,
    damage(frame) {
      const damaged = Buffer.from(frame);
      const at = Math.floor(random() * damaged.length);
      damaged[at] = (damaged[at] ?? 0) ^ (1 + Math.floor(random() * 255));
      return damaged;
    },
    junk: (bytes) => Buffer.from(Uint8Array.from({ length: bytes }, () => Math.floor(random() * 256))),
  });

  function leave(frame: Buffer): void {
    if (isReadReply(frame)) readsWaiting = Math.max(0, readsWaiting - 1);
    if (outStage === undefined) {
      onMedium(frame);
      return;
    }
    outStage(frame, onMedium);
  }

  function onMedium(frame: Buffer): void {
    stats.framesOut += 1;
    stats.bytesOut += frame.length;
    medium.transport?.write(frame);
    if (isFtp(frame) && frame[11] !== systemId) {
      // Another client on this link hears it too.
      const payload = Buffer.alloc(FTP_PAYLOAD);
      frame.copy(payload, 0, 10, 10 + (frame[1] ?? 0));
      ftp?.left(payload);
    }
  }

  const ring = options.transmitRing ?? autopilot.transmitRing;
  const { out: outLine, in: inLine } = waysOf<Buffer, Inbound>(link, clock, ring, leave, take);

  function send(messageId: number, payload: Buffer, length?: number): void {
    if (silent || closed) return;
    const frame = writer.encode(messageId, payload, length);
    if (outLine.put(frame)) return;
    stats.droppedByRing += 1;
    if (isReadReply(frame)) readsWaiting = Math.max(0, readsWaiting - 1);
  }

  // ---------------------------------------------------------------- in

  const inStage = stages<Inbound>(faults, { ...later, random, damage: () => undefined, junk: () => undefined });

  function arrive(frame: Inbound): void {
    if (inStage === undefined) inLine.put(frame);
    else inStage(frame, (passing) => inLine.put(passing));
  }

  function accept(): (chunk: Buffer) => void {
    const parser = new FrameParser((frame) => {
      if (silent || closed) return;
      stats.framesIn += 1;
      stats.bytesIn += frame.wireBytes;
      const { messageId, systemId: from, componentId, payload } = frame;
      if (messageId === m.FILE_TRANSFER_PROTOCOL && payload[6] === Op.ReadFile) {
        readsWaiting += 1;
        stats.peakReads = Math.max(stats.peakReads, readsWaiting);
      }
      const inbound = { length: frame.wireBytes, messageId, systemId: from, componentId, payload };
      // Without a wire nothing waits, so the parser's buffer needs no copy.
      if (inStage === undefined && !Number.isFinite(link.bytesPerSecond)) take(inbound);
      else arrive({ ...inbound, payload: Buffer.from(payload) });
    });
    return (chunk) => parser.push(chunk);
  }

  function take(frame: Inbound): void {
    if (silent || closed) return;
    if (frame.messageId === m.FILE_TRANSFER_PROTOCOL) {
      decodeFtp(frame.payload, packet);
      if (packet.targetSystem !== systemId && packet.targetSystem !== 0) return;
      if (packet.targetComponent !== m.COMPONENT_AUTOPILOT && packet.targetComponent !== 0) return;
      // A reply of another vehicle, passed on by a router, is no request.
      if (packet.opcode >= Op.Ack) return;
      if (ftp === undefined) unanswered(stats, packet.opcode);
      else ftp.request(packet, { system: frame.systemId, component: frame.componentId, channel: 0, wireBytes: frame.length });
    } else if (frame.messageId === m.RADIO_STATUS) radio.heard(frame.payload);
    else if (frame.messageId === m.STATUSTEXT)
      options.onText?.({ ...m.decodeStatusText(frame.payload), systemId: frame.systemId, componentId: frame.componentId });
    else if (frame.messageId === m.PARAM_REQUEST_READ) {
      stats.settingsAsked += 1;
      vehicle.setting(m.decodeParamRequestRead(frame.payload));
    } else if (frame.messageId === m.COMMAND_LONG) vehicle.command(m.decodeCommandLong(frame.payload), frame);
  }

  // ---------------------------------------------------------------- the vehicle

  const radio = new Radio({
    ...later,
    waiting: () => ring - outLine.free(),
    // It is at the vehicle's own port: nothing of it goes over the air.
    tell: (payload) => take({ ...RADIO, length: payload.length, messageId: m.RADIO_STATUS, payload }),
  });

  const ftp =
    options.ftp === false
      ? undefined
      : new FtpSide({
          ...{ autopilot, systemId, disk, link, clock, random, stats, faults, script, after },
          trace:
            options.trace === undefined
              ? undefined
              : new TraceWriter(options.trace, {
                  autopilot: autopilot.autopilot,
                  firmware: autopilot.version.join("."),
                  link: `simulated ${link.name}`,
                }),
          freeRing: () => outLine.free(),
          radioFree: () => radio.free,
          send: (payload, length) => send(m.FILE_TRANSFER_PROTOCOL, payload, length),
          beat: ({ system, component }) => {
            const heartbeat = {
              customMode: 0,
              type: m.TYPE_GCS,
              autopilot: m.AUTOPILOT_INVALID,
              baseMode: 0,
              systemStatus: m.STATE_ACTIVE,
            };
            const frame = new FrameWriter(system, component).encode(m.HEARTBEAT, m.encodeHeartbeat(heartbeat));
            if (!silent && !closed) outLine.put(frame);
          },
          pass(payload, from: Sender) {
            const { system, component, wireBytes: length } = from;
            arrive({ length, messageId: m.FILE_TRANSFER_PROTOCOL, systemId: system, componentId: component, payload });
          },
        });

  const vehicle: Vehicle = new Vehicle(
    {
      ...{ autopilot, systemId, random, now: () => clock.now(), wallMs, send, settings },
      card: () => (typeof options.cardFree === "string" ? options.cardFree : Math.min(disk.freeBytes, USUAL_FREE)),
      storageAsked: () => (stats.storageAsked += 1),
      ftp: ftp !== undefined,
      logging: (): boolean => logFails === 0 && (log?.logging ?? vehicle.armed),
    },
    options.armed ?? false,
  );

  function everySecond(): void {
    vehicle.everySecond(ftp?.slowsStreams === true);
    radio.beat();
    after(1000, everySecond);
  }

  function setArmed(armed: boolean): void {
    const changes = armed !== vehicle.armed;
    vehicle.armed = armed;
    log?.setArmed(armed);
    vehicle.beat();
    if (changes) script.happened(armed ? "arm" : "disarm");
  }

  function reboot(forMs = 500): void {
    silent = true;
    ftp?.stop();
    outLine.clear();
    inLine.clear();
    readsWaiting = 0;
    after(forMs, () => {
      silent = false;
      vehicle.booted();
      script.happened("boot");
    });
  }

  function writeLog(how: LogOptions): FlightLog {
    log = new FlightLog(disk, autopilot, how, vehicle.armed, wallMs);
    log.failed = logFails > 0;
    log.start(after);
    return log;
  }

  function failLog(ms: number): void {
    const count = (by: number): void => {
      logFails += by;
      if (log !== undefined) log.failed = logFails > 0;
    };
    count(1);
    after(ms, () => count(-1));
  }

  /** The events of a trace come as long after the first request as then. */
  function playEvents(rows: Trace["rows"]): void {
    const begunMs = rows.find((row) => row.kind === "request")?.ms ?? 0;
    for (const row of rows) {
      if (row.kind !== "event") continue;
      const play = (): void => {
        if (row.event === "armed" || row.event === "disarmed") setArmed(row.event === "armed");
        else if (row.event === "boot") reboot();
        else silent = row.event === "lost";
      };
      if (row.ms <= begunMs) play();
      else script.at({ kind: "event", event: "request", nth: 1 }, () => after(row.ms - begunMs, play));
    }
  }

  const opened = await openTransport(options.listen, () => {
    // Whoever connects learns at once what it is and that it lives.
    after(0, () => {
      vehicle.sayWhatItIs();
      vehicle.beat();
      script.happened("connect");
    });
    return accept();
  });
  medium.transport = opened;
  everySecond();
  if (trace !== undefined) playEvents(trace.rows);
  startFaults(faults, {
    ...later,
    ...{ random, script, setArmed, failLog },
    reboot: () => reboot(),
    // Whoever is cut off there sees it; the promise only says when it is over.
    unplug: (ms, at) => void opened.drop(ms, at),
    pause: (ms) => ftp?.pause(ms),
    exhaust: (ms) => void ftp?.exhaust(ms),
    breakAt: (offset, times) => disk.breakAt(offset, times),
    fill: (freeBytes) => void (disk.freeBytes = freeBytes),
    log: writeLog,
    load: (own) => void ftp?.load({ own }),
    radioSpeaks: () => radio.speak(),
    radioClaims: (free, ms) => radio.claim(free, ms),
    telemetry: (bytes) => vehicle.telemetry(ftp?.slowsStreams === true ? bytes / 4 : bytes),
  });

  return {
    get url() {
      return opened.url;
    },
    get clientUrl() {
      return opened.clientUrl;
    },
    stats,
    get armed() {
      return vehicle.armed;
    },
    openSessions: () => ftp?.openSessions() ?? 0,
    setArmed,
    dropLink: (pulled = 0, at) => opened.drop(pulled, at),
    reboot,
    pause: (ms) => ftp?.pause(ms),
    load: (how = {}) => (ftp === undefined ? Promise.reject(new Error("no FTP server answers here")) : ftp.load(how)),
    exhaust: (ms) => (ftp === undefined ? Promise.resolve() : ftp.exhaust(ms)),
    writeLog,
    async close() {
      if (closed) return;
      closed = true;
      for (const forget of pending) forget();
      pending.clear();
      ftp?.close();
      outLine.clear();
      inLine.clear();
      await opened.close();
    },
  };
}

/** Throws an error that lists those that there are. */
function settingsOf(autopilot: Autopilot, changed: Readonly<Record<string, number | undefined>>): ReadonlyMap<string, Setting> {
  const all = new Map(Object.entries(autopilot.settings));
  for (const [name, value] of Object.entries(changed)) {
    const usual = autopilot.settings[name];
    const known = Object.keys(autopilot.settings).join(", ");
    if (usual === undefined)
      throw new Error(`${autopilot.name} has no setting ${name} here; there ${known === "" ? "are none" : `are ${known}`}`);
    if (value === undefined) all.delete(name);
    else all.set(name, { ...usual, value });
  }
  return all;
}

function isFtp(frame: Buffer): boolean {
  // Bytes 7 to 9 are the message id.
  return frame[7] === m.FILE_TRANSFER_PROTOCOL && frame[8] === 0 && frame[9] === 0;
}

function isReadReply(frame: Buffer): boolean {
  // Behind the header of 10 come 3 of addressing, then the packet, whose byte 5 is the request's opcode.
  return isFtp(frame) && frame[18] === Op.ReadFile;
}
