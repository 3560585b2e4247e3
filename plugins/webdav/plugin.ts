/** The plugin "webdav": a WebDAV server as a source, a target and a tree. */
import type { Plugin } from "../../core/plugin.js";
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
  device: (given, context) => new WebdavDevice(given, context),
};
