/** The plugin "ftp": an FTP server as a source, a target and a tree. */
import type { Plugin } from "../../core/plugin.js";
import { serverAddress } from "../../core/wire-path.js";
import { FtpDevice } from "./device.js";
import { implicitPort } from "./faults.js";
import { options, type FtpOptions } from "./options.js";

export type { FtpOptions } from "./options.js";

export const plugin: Plugin<FtpOptions> = {
  type: "ftp",
  about: { what: "any FTP server", resumes: "at the byte", proves: "by the server's SHA-256 where it has one, else by size" },
  options,
  roles: ["source", "target"],
  neverExclusive: true,
  addressOf: ({ port, secure, ...given }) => serverAddress("ftp", { ...given, port: port ?? (secure === "implicit" ? implicitPort : 21) }),
  device: (given, context) => new FtpDevice(given, context),
};
