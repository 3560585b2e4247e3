/** The one list of flavours. */
import { ardupilot46, ardupilot47, ardupilot48 } from "./ardupilots.js";
import type { Autopilot } from "./autopilot.js";
import { mavsdk } from "./mavsdk.js";
import { px4, px4v118 } from "./px4.js";

export const autopilots: readonly Autopilot[] = [px4, px4v118, ardupilot46, ardupilot47, ardupilot48, mavsdk];

/** The flavour of that name. Throws an error that lists the known ones. */
export function autopilotNamed(name: string): Autopilot {
  const found = autopilots.find((autopilot) => autopilot.name === name);
  if (found === undefined) throw new Error(`no autopilot "${name}"; known: ${autopilots.map((a) => a.name).join(", ")}`);
  return found;
}
