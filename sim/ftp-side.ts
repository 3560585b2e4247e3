/**
 * The file transfer of the vehicle: its server (or servers, where each link has its own), the faults on its replies, the moments of requests, and
 * the second clients beside the one that the simulator is for.
 */
import { decodeFtp, emptyPacket, FTP_DATA_MAX, FTP_PAYLOAD, Op, opName, type FtpPacket } from "../mavlink/ftp.js";
import type { TraceWriter } from "../mavlink/trace.js";
import type { Autopilot, FtpServer, FtpSurroundings, Sender } from "./autopilot.js";
import type { SimClock } from "./clock.js";
import type { Disk } from "./disk.js";
import { boardOf, replyStages, type Faults } from "./faults.js";
import { madeBytes } from "./disk-file.js";
import { SecondClient, type Loaded, type LoadOptions } from "./ground-station.js";
import type { Random } from "./random.js";
import type { Event, Script } from "./script.js";
import type { SimStats } from "./stats.js";
import type { LinkModel } from "./wire.js";

export interface FtpSideSurroundings {
  readonly autopilot: Autopilot;
  readonly systemId: number;
  readonly disk: Disk;
  readonly link: LinkModel;
  readonly clock: SimClock;
  readonly random: Random;
  readonly stats: SimStats;
  readonly faults: Faults;
  readonly script: Script;
  readonly after: (ms: number, run: () => void) => void;
  /** Bytes that the transmit ring of the simulator's link still takes. */
  readonly freeRing: () => number;
  /** Percent of its buffer that a radio said to be free. */
  readonly radioFree: () => number;
  /** Sends FILE_TRANSFER_PROTOCOL on that link. */
  readonly send: (payload: Buffer, length: number) => void;
  /** Takes the packets of that link, both ways. */
  readonly trace: TraceWriter | undefined;
  /** A request goes over that link, as if a router had passed it on. */
  readonly pass: (payload: Buffer, from: Sender) => void;
  /** The HEARTBEAT of a ground station comes by on that link. */
  readonly beat: (from: { readonly system: number; readonly component: number }) => void;
}

/** Who a second client is on the wire: QGroundControl's address, and one nobody has. */
const STATION = { system: 255, component: 190 };
const HOLDER = { system: 254, component: 190 };
const OWN_LINK = 1;
const HOLDERS_LINK = 2;
const HELD_FROM = 201;
const PARAMETER_BYTES = 20_000;
const OWN_LINK_MS = 2;

const moments = new Map<number, Event>([
  [Op.OpenFileRO, "open"],
  [Op.ReadFile, "read"],
  [Op.BurstReadFile, "burst"],
  [Op.ListDirectory, "list"],
  [Op.ListDirectoryWithTime, "list"],
  [Op.CalcFileCRC32, "crc"],
  [Op.TerminateSession, "end"],
  [Op.ResetSessions, "reset"],
  [Op.OpenFileWO, "open"],
  [Op.CreateFile, "create"],
  [Op.WriteFile, "write"],
  [Op.Rename, "rename"],
  [Op.RemoveFile, "remove"],
  [Op.RemoveDirectory, "remove"],
  [Op.CreateDirectory, "mkdir"],
]);

export class FtpSide {
  readonly #env: FtpSideSurroundings;
  /** By channel, where each link has its own; else all are the first. */
  readonly #servers = new Map<number, FtpServer>();
  readonly #reply: ReturnType<typeof replyStages>;
  readonly #scratch = Buffer.alloc(FTP_PAYLOAD);
  readonly #packet = emptyPacket();
  /** By system. */
  readonly #seconds = new Map<number, SecondClient>();

  constructor(env: FtpSideSurroundings) {
    this.#env = env;
    this.#reply = replyStages(env.faults, { ...env, now: () => env.clock.now() });
    env.disk.make(env.autopilot.parameterFile, madeBytes(0, PARAMETER_BYTES));
  }

  /** A request; the packet lives only during the call. */
  request(packet: FtpPacket, from: Sender): void {
    if (isSecond(from.system)) this.#env.stats.secondRequests += 1;
    else {
      this.#env.script.happened("request");
      const moment = moments.get(packet.opcode);
      if (moment !== undefined) this.#env.script.happened(moment);
      this.#env.trace?.request(this.#env.clock.now(), packet);
    }
    this.#server(from.channel).request(packet, from);
  }

  openSessions(): number {
    return [...this.#servers.values()].reduce((open, server) => open + server.openSessions(), 0);
  }

  /** What else is sent on the simulator's link comes at a quarter of its rate now. */
  get slowsStreams(): boolean {
    return this.#servers.get(0)?.slowsStreams?.(0) === true;
  }

  pause(ms: number): void {
    this.#server(0).pause(ms);
  }

  /** Power goes. */
  stop(): void {
    for (const server of this.#servers.values()) server.stop();
    this.#servers.clear();
  }

  /** The end of all; second clients too. */
  close(): void {
    for (const client of this.#seconds.values()) client.stop();
    this.stop();
  }

  /** A reply has left on the simulator's link: is it a second client's? */
  left(payload: Buffer): void {
    const client = this.#seconds.get(payload[1] ?? 0);
    if (client !== undefined) client.reply(decodeFtp(payload, emptyPacket()));
  }

  /** A ground station loads a file; `own`: over a link of its own. */
  async load(options: Partial<LoadOptions> & { readonly own?: boolean }): Promise<Loaded> {
    const client = this.#second(STATION, options.own === true ? OWN_LINK : 0);
    const loaded = await client.load({ path: this.#env.autopilot.parameterFile, ...options });
    this.#env.stats.stationLoads.push({ ...loaded, bytes: loaded.bytes.length });
    return loaded;
  }

  /** Somebody has every session for so long. */
  async exhaust(ms: number): Promise<void> {
    const { autopilot } = this.#env;
    const client = this.#second(HOLDER, autopilot.serverPerLink ? 0 : HOLDERS_LINK);
    const sessions = Array.from({ length: autopilot.sessions }, (_, i) => HELD_FROM + i);
    await client.hold(autopilot.parameterFile, sessions, ms);
  }

  #second(who: { readonly system: number; readonly component: number }, channel: number): SecondClient {
    const { clock, systemId, random } = this.#env;
    const from: Sender = { ...who, channel, wireBytes: 40 };
    const client = new SecondClient(
      {
        clock,
        system: systemId,
        ...(this.#isHeard(who, channel) ? { beat: () => this.#env.beat(who) } : {}),
        send: (payload, length) => {
          const whole = Buffer.alloc(FTP_PAYLOAD);
          payload.copy(whole, 0, 0, length);
          if (channel === 0) this.#env.pass(whole, from);
          else this.#env.after(OWN_LINK_MS, () => this.request(decodeFtp(whole, emptyPacket()), from));
        },
      },
      Math.floor(random() * 30_000) * 2,
    );
    this.#seconds.get(who.system)?.stop();
    this.#seconds.set(who.system, client);
    return client;
  }

  /** Heartbeats of the same link are passed on by its router; those of another by ArduPilot itself, by a PX4 only if told to. */
  #isHeard(who: { readonly system: number }, channel: number): boolean {
    return who.system === STATION.system && (channel === 0 || !this.#env.autopilot.serverPerLink);
  }

  #server(channel: number): FtpServer {
    const key = this.#env.autopilot.serverPerLink ? channel : 0;
    let server = this.#servers.get(key);
    if (server === undefined) {
      server = this.#env.autopilot.ftp(this.#surroundings());
      this.#servers.set(key, server);
    }
    return server;
  }

  #surroundings(): FtpSurroundings {
    const { disk, link, clock, random, stats, faults, freeRing, radioFree, script } = this.#env;
    return {
      disk,
      link,
      clock,
      random,
      stats,
      ...boardOf(faults, { crcBytesPerSecond: Infinity, readMost: FTP_DATA_MAX }),
      freeRing: (channel) => (channel === 0 ? freeRing() : Infinity),
      radioFree,
      send: (payload, length, channel) => {
        if (this.#reply === undefined) this.#send(payload, length, channel);
        else {
          // The server keeps its buffer for a repetition: it must not see what faults make of it.
          this.#scratch.fill(0);
          payload.copy(this.#scratch, 0, 0, length);
          this.#reply(this.#scratch, length, (changed, n) => this.#send(changed, n, channel));
        }
        script.served(stats.payloadBytes);
      },
    };
  }

  #send(payload: Buffer, length: number, channel: number): void {
    if (channel === 0 && this.#env.trace === undefined) {
      this.#env.send(payload, length);
      return;
    }
    const whole = Buffer.alloc(FTP_PAYLOAD);
    payload.copy(whole, 0, 0, length);
    if (channel === 0) {
      if (!isSecond(whole[1] ?? 0)) this.#env.trace?.reply(this.#env.clock.now(), decodeFtp(whole, this.#packet));
      this.#env.send(payload, length);
      return;
    }
    this.#env.after(OWN_LINK_MS, () => this.#seconds.get(whole[1] ?? 0)?.reply(decodeFtp(whole, this.#packet)));
  }
}

function isSecond(system: number): boolean {
  return system === STATION.system || system === HOLDER.system;
}

/** Counts a request that no server takes. */
export function unanswered(stats: SimStats, opcode: number): void {
  const name = opName(opcode);
  stats.requests[name] = (stats.requests[name] ?? 0) + 1;
}
