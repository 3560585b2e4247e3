/** The plugin "rsync": the real rsync over the real ssh, as a target. */
import type { Plugin } from "../../core/plugin.js";
import { RsyncDevice } from "./device.js";
import { options, type RsyncOptions } from "./options.js";

export type { RsyncOptions } from "./options.js";

export const plugin: Plugin<RsyncOptions> = {
  type: "rsync",
  options,
  roles: ["target"],
  device: (given, context) => new RsyncDevice(given, context),
};
