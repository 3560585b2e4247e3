/** The plugin "ftp-server": receives files by FTP, and gives what arrived to routes as a source. */
import type { Plugin } from "../../core/plugin.js";
import { options, type FtpServerOptions } from "./options.js";
import { FtpServer } from "./server.js";

export type { FtpServerOptions } from "./options.js";

export const plugin: Plugin<FtpServerOptions> = {
  type: "ftp-server",
  about: { what: "the bundled FTP server; what arrives can be the start of a route" },
  options,
  roles: ["service", "source"],
  dirOf: ({ root }) => root,
  service: (given, context) => new FtpServer(given, context),
};
