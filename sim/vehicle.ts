/** What a vehicle says of itself beside its files: that it lives, whether it is armed and logs, what time it is, what it runs. */
import * as m from "../mavlink/messages.js";
import type { Autopilot, Setting } from "./autopilot.js";
import type { Random } from "./random.js";

/** Of its frame. */
const ATTITUDE_BYTES = 40;
/** Of the card. */
const CARD_BYTES = 32e9;
const MIB = 2 ** 20;

export interface VehicleSurroundings {
  readonly autopilot: Autopilot;
  readonly systemId: number;
  readonly ftp: boolean;
  readonly random: Random;
  /** Milliseconds. */
  readonly now: () => number;
  /** Milliseconds since 1970. */
  readonly wallMs: () => number;
  /** A log is being written. */
  readonly logging: () => boolean;
  readonly send: (messageId: number, payload: Buffer) => void;
  readonly settings: ReadonlyMap<string, Setting>;
  /** Bytes that its card takes still; "none": no card is in; "silent": it does not answer for it. */
  readonly card: () => number | "none" | "silent";
  /** Its card was asked for. */
  readonly storageAsked: () => void;
}

export class Vehicle {
  armed: boolean;
  readonly #env: VehicleSurroundings;
  #bootedMs: number;
  #beats = 0;
  /** Bytes of telemetry that are due. */
  #dueBytes = 0;

  constructor(env: VehicleSurroundings, armed: boolean) {
    this.#env = env;
    this.armed = armed;
    this.#bootedMs = env.now();
  }

  /** Its heartbeat, and what comes as often; `slow`: that only every fourth time. */
  everySecond(slow: boolean): void {
    this.#beats += 1;
    if (slow && this.#beats % 4 !== 0) this.#heartbeat();
    else this.beat();
  }

  /** Everything of it that comes every second. */
  beat(): void {
    const { send, logging, wallMs } = this.#env;
    this.#heartbeat();
    const enabled = logging() ? m.SENSOR_LOGGING : 0;
    send(m.SYS_STATUS, m.encodeSysStatus({ present: m.SENSOR_LOGGING, enabled, health: enabled, load: 300, voltageMv: 16_000 }));
    send(m.SYSTEM_TIME, m.encodeSystemTime({ unixUsec: BigInt(Math.round(wallMs())) * 1000n, bootMs: this.#bootMs() }));
  }

  #heartbeat(): void {
    const { send, autopilot } = this.#env;
    send(
      m.HEARTBEAT,
      m.encodeHeartbeat({
        customMode: 0,
        type: m.TYPE_QUADROTOR,
        autopilot: autopilot.autopilot,
        baseMode: m.MODE_CUSTOM | (this.armed ? m.MODE_ARMED : 0),
        systemStatus: this.armed ? m.STATE_ACTIVE : m.STATE_STANDBY,
      }),
    );
  }

  sayWhatItIs(): void {
    const text = `FileSync simulator, ${this.#env.autopilot.name}: not a real vehicle`;
    this.#env.send(m.STATUSTEXT, m.encodeStatusText({ severity: 6, text }));
  }

  /** It has started anew. */
  booted(): void {
    this.#bootedMs = this.#env.now();
    this.sayWhatItIs();
    this.beat();
  }

  telemetry(bytes: number): void {
    const { random, send } = this.#env;
    for (this.#dueBytes += bytes; this.#dueBytes >= ATTITUDE_BYTES; this.#dueBytes -= ATTITUDE_BYTES)
      send(m.ATTITUDE, m.encodeAttitude({ bootMs: this.#bootMs(), roll: random(), pitch: random(), yaw: random() }));
  }

  command(asked: m.CommandLong, from: { readonly systemId: number; readonly componentId: number }): void {
    const { systemId, send, autopilot, ftp } = this.#env;
    if (asked.targetSystem !== systemId && asked.targetSystem !== 0) return;
    const wanted = asked.command === m.COMMAND_REQUEST_MESSAGE ? asked.params[0] : undefined;
    if (wanted === m.STORAGE_INFORMATION) this.#env.storageAsked();
    const known = wanted === m.AUTOPILOT_VERSION || (wanted === m.STORAGE_INFORMATION && autopilot.tellsStorage);
    const result = known ? m.RESULT_ACCEPTED : m.RESULT_UNSUPPORTED;
    const ack = { command: asked.command, result, targetSystem: from.systemId, targetComponent: from.componentId };
    send(m.COMMAND_ACK, m.encodeCommandAck(ack));
    if (!known) return;
    if (wanted === m.STORAGE_INFORMATION) {
      const card = this.#env.card();
      if (card !== "silent") this.#storage(card === "none" ? undefined : card);
      return;
    }
    const [major, minor, patch] = autopilot.version;
    send(
      m.AUTOPILOT_VERSION,
      m.encodeAutopilotVersion({
        capabilities: ftp ? m.CAPABILITY_FTP : 0n,
        uid: 0n,
        flightSwVersion: ((major << 24) | (minor << 16) | (patch << 8) | 255) >>> 0,
        boardVersion: 0,
        vendorId: 0,
        productId: 0,
        uid2: Buffer.from(`simulated board ${systemId}`.padEnd(18, "\0")).toString("hex"),
      }),
    );
  }

  /** As a PX4 does (src/modules/mavlink/streams/STORAGE_INFORMATION.hpp). */
  #storage(free: number | undefined): void {
    const { send } = this.#env;
    const total = free === undefined ? 0 : Math.max(CARD_BYTES, free);
    const card = { totalMib: total / MIB, usedMib: (total - (free ?? 0)) / MIB, availableMib: (free ?? 0) / MIB };
    const [count, status] = free === undefined ? [0, m.STORAGE_EMPTY] : [1, m.STORAGE_READY];
    send(m.STORAGE_INFORMATION, m.encodeStorageInformation({ bootMs: this.#bootMs(), ...card, id: 1, count, status }));
  }

  /** Of one that it does not have nothing is said: all of these do so. */
  setting(asked: m.ParamRequestRead | undefined): void {
    const { systemId, send, autopilot, settings } = this.#env;
    if (asked?.targetSystem !== systemId || (asked.targetComponent !== m.COMPONENT_AUTOPILOT && asked.targetComponent !== 0)) return;
    const setting = settings.get(asked.name);
    if (setting === undefined) return;
    const place = { count: settings.size, index: [...settings.keys()].indexOf(asked.name) };
    send(m.PARAM_VALUE, m.encodeParamValue({ name: asked.name, ...setting, ...place }, autopilot.autopilot));
  }

  #bootMs(): number {
    return Math.floor(this.#env.now() - this.#bootedMs);
  }
}
