/** The plugin "rsync": the real rsync over the real ssh, as a target. */
import type { Plugin } from "../../core/plugin.js";
import { serverAddress } from "../../core/wire-path.js";
import { RsyncDevice } from "./device.js";
import { options, type RsyncOptions } from "./options.js";

export type { RsyncOptions } from "./options.js";

export const plugin: Plugin<RsyncOptions> = {
  type: "rsync",
  about: {
    what: "the real rsync over ssh, a shell or `rrsync` there",
    resumes: "at the byte",
    proves: "by the server's SHA-256, or rsync's own checksum",
  },
  options,
  roles: ["target"],
  addressOf: (given) => serverAddress("ssh", given),
  device: (given, context) => new RsyncDevice(given, context),
};
