/** Harnesses of the suites for the plugin "sftp" on any of the servers. */
import { promises as fs } from "node:fs";
import { join } from "node:path";
import { bytesFromName } from "../../core/names.js";
import type { Device } from "../../core/plugin.js";
import { plugin } from "../../plugins/sftp/plugin.js";
import { sureKey, wholeOnlyKey } from "../../plugins/sftp/target.js";
import { files } from "./files.js";
import { deviceOf, served, type Served, type ServedOptions } from "./served.js";
import type { SftpServerKind } from "./sftp-servers.js";
import { send } from "./target-under-test.js";
import { context, upload } from "./upload.js";

/** A device of the plugin "sftp" at a port of this machine. */
export function sftpDevice(port: number, given: Readonly<Record<string, unknown>>, ctx = context()): Device {
  return deviceOf(plugin, { host: "127.0.0.1", port, timeout: "10s", ...given }, ctx);
}

export interface SftpHarnessOptions extends ServedOptions {
  readonly kind: SftpServerKind;
  readonly given?: Readonly<Record<string, unknown>>;
  readonly keepsTimes?: boolean;
  /** It was learned of this server that it cannot continue a file. */
  readonly wholeOnly?: true;
  /** A file was published already: it was seen what the server does. */
  readonly warm?: true;
}

export function sftpHarness(options: SftpHarnessOptions): Served {
  const { kind, given = {}, keepsTimes = true } = options;
  return served(kind, options, async (running, dir, name) => {
    const root = `${running.seen}/${name}`;
    const ctx = context();
    if (options.wholeOnly) await ctx.memory.set(wholeOnlyKey, true);
    const device = sftpDevice(running.port, { root, ...running.options, ...given }, ctx);
    if (options.warm && device.target !== undefined) {
      await send(device.target, upload("first", Buffer.from("first")));
      await fs.rm(join(dir, "first"));
    }
    const { modifiedMs, ...rest } = files(dir, bytesFromName);
    return {
      device,
      ...rest,
      ...(keepsTimes ? { modifiedMs } : {}),
      vouch: (upload, bytes) => upload.memo.set(sureKey, bytes),
      unplug: () => running.unplug(),
      replug: () => running.replug(),
      secrets: running.secrets,
      stranger: () => Promise.resolve(sftpDevice(running.port, { root, ...running.wrong })),
      close: () => device.close(),
    };
  });
}
