/** The plugin "sftp": an SFTP server as a source, a target and a tree. */
import type { Plugin } from "../../core/plugin.js";
import { serverAddress } from "../../core/wire-path.js";
import { SftpDevice } from "./device.js";
import { options, type SftpOptions } from "./options.js";

export type { SftpOptions } from "./options.js";

export const plugin: Plugin<SftpOptions> = {
  type: "sftp",
  about: { what: "any server with SSH", resumes: "at the byte", proves: "by the server's `sha256sum` where it may run, else by size" },
  options,
  roles: ["source", "target"],
  addressOf: (given) => serverAddress("ssh", given),
  device: (given, context) => new SftpDevice(given, context),
};
