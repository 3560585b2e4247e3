/** The plugin "ftp": an FTP server as a source, a target and a tree. */
import type { Plugin } from "../../core/plugin.js";
import { FtpDevice } from "./device.js";
import { options, type FtpOptions } from "./options.js";

export type { FtpOptions } from "./options.js";

export const plugin: Plugin<FtpOptions> = {
  type: "ftp",
  options,
  roles: ["source", "target"],
  device: (given, context) => new FtpDevice(given, context),
};
