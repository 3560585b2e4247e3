/** The plugin "webdav": a WebDAV server as a source, a target and a tree. */
import type { Plugin } from "../../core/plugin.js";
import { serverAddress } from "../../core/wire-path.js";
import { WebdavDevice } from "./device.js";
import { options, type WebdavOptions } from "./options.js";

export const plugin: Plugin<WebdavOptions> = {
  type: "webdav",
  about: {
    what: "Nextcloud, Yandex Disk, or any WebDAV server",
    resumes: "at the byte or by chunks, where the server can",
    proves: "by size; by reading back on demand",
  },
  options,
  roles: ["source", "target"],
  neverExclusive: true,
  addressOf: ({ url, user = "", root }) => {
    const { protocol, hostname, port, pathname } = new URL(url);
    const scheme = protocol.slice(0, -1);
    return serverAddress(scheme, {
      host: hostname,
      port: Number(port) || (scheme === "https" ? 443 : 80),
      user,
      root: `${pathname}/${root}`,
    });
  },
  device: (given, context) => new WebdavDevice(given, context),
};
