/** The plugin "apsync": a ground station with a registry as target. `filesync register` sets it up. */
import type { Plugin } from "../../core/plugin.js";
import { ApsyncDevice } from "./device.js";
import { options, type ApsyncOptions } from "./options.js";

export const plugin: Plugin<ApsyncOptions> = {
  type: "apsync",
  about: { what: "a ground station that knows its vehicles (service registry)", resumes: "at the byte", proves: "by content" },
  options,
  roles: ["target"],
  device: (given, context) => new ApsyncDevice(given, context),
};
