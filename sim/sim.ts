/**
 * A simulated flight controller: a vehicle that speaks MAVLink over a real transport and serves the files of one directory by MAVLink FTP, as a
 * given autopilot would over a given kind of link, with faults drawn from a seed. It is for tests, demonstrations and benchmarks, and
 * says so (STATUSTEXT). It flies nothing, writes nothing, and keeps nothing after `close`.
 */
import { decodeFtp, emptyPacket, FTP_DATA_MAX, Op, opName, type FtpPacket } from "../mavlink/ftp.js";
import { FrameParser, FrameWriter } from "../mavlink/frame.js";
import * as m from "../mavlink/messages.js";
import type { FtpServer } from "./autopilot.js";
import { autopilotNamed } from "./autopilots.js";
import { realClock } from "./clock.js";
import { Disk } from "./disk.js";
import { checkFaults, stages, startFaults, type Passing } from "./faults.js";
import { seeded } from "./random.js";
import { emptyStats, type SimStats } from "./stats.js";
import { openTransport, type Transport } from "./transport.js";
import { linkModel, waysOf } from "./wire.js";

export interface SimOptions {
  /** "tcpin://HOST:PORT", "udpin://HOST:PORT", "udpout://HOST:PORT" or "pty:PATH". Port 0 takes any free one. */
  readonly listen: string;
  /** The directory that is "/" to clients. */
  readonly dir: string;
  /** Default "px4". */
  readonly autopilot?: string;
  /** Default "usb". */
  readonly link?: string;
  /** Fault name → value: { loss: "10%" }. */
  readonly faults?: Readonly<Record<string, string>>;
  /** What the faults are drawn from; default 1. */
  readonly seed?: number;
  readonly armed?: boolean;
  /** MAVLink system id; default 1. */
  readonly systemId?: number;
  /** Bytes of the transmit ring, where it is not the autopilot's usual one. */
  readonly transmitRing?: number;
  /** false: no FTP server answers. */
  readonly ftp?: boolean;
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
  /** Cuts every client off for `forMs` (default 0): the cable is pulled and put back. */
  dropLink(forMs?: number): Promise<void>;
  /** Power off and on: sessions and what is on its way are gone, and nothing is said for `forMs` (default 500). */
  reboot(forMs?: number): void;
  /** Idempotent; afterwards no socket, child or timer is left. */
  close(): Promise<void>;
}

/** A frame that came in, kept while it is on the wire. */
interface Inbound extends Passing {
  readonly messageId: number;
  readonly systemId: number;
  readonly componentId: number;
  readonly payload: Buffer;
}

/** Starts it and resolves once clients can connect. Throws an error that says which option is wrong. */
export async function startSim(options: SimOptions): Promise<Sim> {
  const autopilot = autopilotNamed(options.autopilot ?? "px4");
  const link = linkModel(options.link ?? "usb");
  const faults = options.faults ?? {};
  checkFaults(faults);
  const disk = new Disk(options.dir);
  const random = seeded(options.seed ?? 1);
  const stats = emptyStats();
  const systemId = options.systemId ?? 1;
  const writer = new FrameWriter(systemId, m.COMPONENT_AUTOPILOT);
  const timers = new Set<NodeJS.Timeout>();
  const packet: FtpPacket = emptyPacket();
  let armed = options.armed ?? false;
  let bootedMs = performance.now();
  let silent = false;
  let closed = false;
  let readsWaiting = 0;
  // Empty until the transport is open: a client may come before that is known here.
  const medium: { transport?: Transport } = {};

  function after(ms: number, run: () => void): void {
    if (closed) return;
    const timer = setTimeout(() => {
      timers.delete(timer);
      run();
    }, ms);
    timers.add(timer);
  }

  // ---------------------------------------------------------------- out

  const outStage = stages<Buffer>(faults, {
    random,
    after,
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
  }

  const { out: outLine, in: inLine } = waysOf<Buffer, Inbound>(
    link,
    realClock,
    options.transmitRing ?? autopilot.transmitRing,
    leave,
    take,
  );

  function send(messageId: number, payload: Buffer, length?: number): void {
    if (silent || closed) return;
    const frame = writer.encode(messageId, payload, length);
    if (outLine.put(frame)) return;
    stats.droppedByRing += 1;
    if (isReadReply(frame)) readsWaiting = Math.max(0, readsWaiting - 1);
  }

  // ---------------------------------------------------------------- in

  const inStage = stages<Inbound>(faults, { random, after, damage: () => undefined, junk: () => undefined });

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
      if (ftp === undefined) stats.requests[opName(packet.opcode)] = (stats.requests[opName(packet.opcode)] ?? 0) + 1;
      else ftp.request(packet, { system: frame.systemId, component: frame.componentId, channel: 0, wireBytes: frame.length });
    } else if (frame.messageId === m.COMMAND_LONG) command(m.decodeCommandLong(frame.payload), frame);
  }

  function command(asked: m.CommandLong, from: Inbound): void {
    if (asked.targetSystem !== systemId && asked.targetSystem !== 0) return;
    const known = asked.command === m.COMMAND_REQUEST_MESSAGE && asked.params[0] === m.AUTOPILOT_VERSION;
    const result = known ? m.RESULT_ACCEPTED : m.RESULT_UNSUPPORTED;
    const ack = { command: asked.command, result, targetSystem: from.systemId, targetComponent: from.componentId };
    send(m.COMMAND_ACK, m.encodeCommandAck(ack));
    if (!known) return;
    const [major, minor, patch] = autopilot.version;
    send(
      m.AUTOPILOT_VERSION,
      m.encodeAutopilotVersion({
        capabilities: ftp === undefined ? 0n : m.CAPABILITY_FTP,
        uid: 0x53494d0000000000n + BigInt(systemId),
        flightSwVersion: ((major << 24) | (minor << 16) | (patch << 8) | 255) >>> 0,
        boardVersion: 0,
        vendorId: 0,
        productId: 0,
      }),
    );
  }

  // ---------------------------------------------------------------- the vehicle

  const startFtp = (): FtpServer | undefined =>
    options.ftp === false
      ? undefined
      : autopilot.ftp({
          disk,
          link,
          clock: realClock,
          random,
          stats,
          crcBytesPerSecond: Infinity,
          readMost: FTP_DATA_MAX,
          freeRing: () => outLine.free(),
          send: (payload, length) => send(m.FILE_TRANSFER_PROTOCOL, payload, length),
        });
  let ftp = startFtp();

  function heartbeat(): void {
    send(
      m.HEARTBEAT,
      m.encodeHeartbeat({
        customMode: 0,
        type: m.TYPE_QUADROTOR,
        autopilot: autopilot.autopilot,
        baseMode: m.MODE_CUSTOM | (armed ? m.MODE_ARMED : 0),
        systemStatus: armed ? m.STATE_ACTIVE : m.STATE_STANDBY,
      }),
    );
  }

  function beat(): void {
    heartbeat();
    const logging = armed ? m.SENSOR_LOGGING : 0;
    send(m.SYS_STATUS, m.encodeSysStatus({ present: m.SENSOR_LOGGING, enabled: logging, health: logging, load: 300, voltageMv: 16_000 }));
    const bootMs = Math.floor(performance.now() - bootedMs);
    send(m.SYSTEM_TIME, m.encodeSystemTime({ unixUsec: BigInt(Date.now()) * 1000n, bootMs }));
  }

  function everySecond(): void {
    beat();
    after(1000, everySecond);
  }

  function sayWhatItIs(): void {
    send(m.STATUSTEXT, m.encodeStatusText({ severity: 6, text: `FileSync simulator, ${autopilot.name}: not a real vehicle` }));
  }

  function reboot(forMs = 500): void {
    silent = true;
    ftp?.stop();
    outLine.clear();
    inLine.clear();
    readsWaiting = 0;
    after(forMs, () => {
      silent = false;
      bootedMs = performance.now();
      ftp = startFtp();
      sayWhatItIs();
      beat();
    });
  }

  function telemetry(bytes: number): void {
    const bootMs = Math.floor(performance.now() - bootedMs);
    for (let sent = 0; sent < bytes; sent += 40)
      send(m.ATTITUDE, m.encodeAttitude({ bootMs, roll: random(), pitch: random(), yaw: random() }));
  }

  const opened = await openTransport(options.listen, () => {
    // Whoever connects learns at once what it is and that it lives.
    after(0, () => {
      sayWhatItIs();
      beat();
    });
    return accept();
  });
  medium.transport = opened;
  everySecond();
  startFaults(faults, { random, after, payloadBytes: () => stats.payloadBytes, reboot: () => reboot(), telemetry });

  return {
    url: opened.url,
    clientUrl: opened.clientUrl,
    stats,
    get armed() {
      return armed;
    },
    openSessions: () => ftp?.openSessions() ?? 0,
    setArmed(value) {
      armed = value;
      beat();
    },
    dropLink: (forMs = 0) => opened.drop(forMs),
    reboot,
    async close() {
      if (closed) return;
      closed = true;
      for (const timer of timers) clearTimeout(timer);
      timers.clear();
      ftp?.stop();
      outLine.clear();
      inLine.clear();
      await opened.close();
    },
  };
}

function isReadReply(frame: Buffer): boolean {
  // Bytes 7 to 9 are the message id; behind the header of 10 come 3 of addressing, then the packet, whose byte 5 is the request's opcode.
  return frame[7] === m.FILE_TRANSFER_PROTOCOL && frame[8] === 0 && frame[9] === 0 && frame[18] === Op.ReadFile;
}
