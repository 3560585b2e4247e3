/** Who answers at an address, for somebody who has no configuration yet. */
import { firstValueFrom, filter, takeUntil, timer, defaultIfEmpty, merge, interval } from "../../core/rxjs.js";
import { isFault } from "../../core/errors.js";
import type { PluginContext } from "../../core/plugin.js";
import { AUTOPILOT_ARDUPILOT, AUTOPILOT_PX4 } from "../../mavlink/messages.js";
import type { Address } from "./address.js";
import { MavftpDevice } from "./device.js";

export interface Answers {
  /** "PX4", "ArduPilot", else its number. */
  readonly autopilot: string;
  readonly armed: boolean;
  /** Where its logs are; undefined: that could not be asked, and `why` says why. */
  readonly logs?: string;
  readonly why?: string;
}

/** `opened`: the port or connection could be used, and nobody answered. `reason`: for a person. */
export interface Silent {
  readonly opened: boolean;
  readonly reason: string;
}

const LOOK_MS = 100;
const LOGS_MS = 5000;
const NAMES: ReadonlyMap<number, string> = new Map([
  [AUTOPILOT_PX4, "PX4"],
  [AUTOPILOT_ARDUPILOT, "ArduPilot"],
]);

/** Listens for a heartbeat for at most `ms`, and asks a disarmed autopilot where its logs are. It only reads. */
export async function lookAt(address: Address, context: PluginContext, ms: number): Promise<Answers | Silent> {
  const device = new MavftpDevice(
    { url: address, whenArmed: "pause", write: false, componentId: 191, exclusive: false, tellPilot: false, crcMaxSize: 0 },
    context,
  );
  let reason = "";
  let opened = false;
  const watching = device.presence$.subscribe((presence) => {
    if (presence.state === "detached") reason = presence.reason ?? "";
  });
  try {
    // An autopilot that is armed is heard, and stays detached.
    const heard = await firstValueFrom(
      merge(device.presence$, interval(LOOK_MS)).pipe(
        filter(() => {
          opened ||= device.linked;
          return device.heard !== undefined;
        }),
        takeUntil(timer(ms)),
        defaultIfEmpty(undefined),
      ),
    ).then(() => device.heard);
    if (heard === undefined) return { opened, reason };
    const found = { autopilot: NAMES.get(heard.autopilot) ?? `MAV_AUTOPILOT ${heard.autopilot}`, armed: heard.armed };
    if (heard.armed) return { ...found, why: "the vehicle is armed" };
    try {
      return { ...found, logs: await device.logDirectory(AbortSignal.timeout(LOGS_MS)) };
    } catch (error) {
      if (!isFault(error)) throw error;
      return { ...found, why: error.message };
    }
  } finally {
    watching.unsubscribe();
    await device.close();
  }
}
