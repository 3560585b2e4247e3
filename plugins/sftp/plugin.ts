/** The plugin "sftp": an SFTP server as a source, a target and a tree. */
import type { Plugin } from "../../core/plugin.js";
import { SftpDevice } from "./device.js";
import { options, type SftpOptions } from "./options.js";

export type { SftpOptions } from "./options.js";

export const plugin: Plugin<SftpOptions> = {
  type: "sftp",
  options,
  roles: ["source", "target"],
  device: (given, context) => new SftpDevice(given, context),
};
