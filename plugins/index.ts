/** The one list of plugins: type → how it is loaded. A plugin is loaded only when the configuration names it. */
import type { Plugin } from "../core/plugin.js";

export const builtIn: Readonly<Record<string, () => Promise<Plugin<never>>>> = {
  local: async () => (await import("./local/plugin.js")).plugin as Plugin<never>,
  disk: async () => (await import("./disk/plugin.js")).plugin as unknown as Plugin<never>,
  mavftp: async () => (await import("./mavftp/plugin.js")).plugin as Plugin<never>,
  ftp: async () => (await import("./ftp/plugin.js")).plugin as Plugin<never>,
  sftp: async () => (await import("./sftp/plugin.js")).plugin as Plugin<never>,
  rsync: async () => (await import("./rsync/plugin.js")).plugin as Plugin<never>,
  post: async () => (await import("./post/plugin.js")).plugin as unknown as Plugin<never>,
  webdav: async () => (await import("./webdav/plugin.js")).plugin as Plugin<never>,
  metrics: async () => (await import("./metrics/plugin.js")).plugin as Plugin<never>,
  apsync: async () => (await import("./apsync/plugin.js")).plugin as Plugin<never>,
  registry: async () => (await import("./registry/plugin.js")).plugin as Plugin<never>,
  "ftp-server": async () => (await import("./ftp-server/plugin.js")).plugin as Plugin<never>,
};
