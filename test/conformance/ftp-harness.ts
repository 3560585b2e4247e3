/** Harnesses of the suites for the plugin "ftp" on any of the servers. */
import type { Device } from "../../core/plugin.js";
import { plugin } from "../../plugins/ftp/plugin.js";
import { files } from "./files.js";
import type { FtpServerKind, FtpServerUnderTest } from "./ftp-servers.js";
import { deviceOf, served, type Served, type ServedOptions } from "./served.js";
import { vouching } from "./target-under-test.js";
import { context } from "./upload.js";

/** A device of the plugin "ftp" at this server. */
export function ftpDevice(server: FtpServerUnderTest, given: Readonly<Record<string, unknown>> = {}, ctx = context()): Device {
  const { port, user, password, options } = server;
  return deviceOf(plugin, { host: "127.0.0.1", port, user, password, timeout: "10s", ...options, ...given }, ctx);
}

export interface FtpHarnessOptions extends ServedOptions {
  readonly kind: FtpServerKind;
  readonly given?: Readonly<Record<string, unknown>>;
  readonly keepsTimes?: boolean;
}

export function ftpHarness(options: FtpHarnessOptions): Served {
  const { kind, given = {}, keepsTimes = true } = options;
  return served(kind, options, (running, dir, name) => {
    const device = ftpDevice(running, { root: `/${name}`, ...given });
    const { modifiedMs, ...rest } = files(dir, (path) => running.disk(path));
    return Promise.resolve({
      device,
      ...rest,
      ...(keepsTimes ? { modifiedMs } : {}),
      vouch: vouching(device),
      ...(running.unplug === undefined ? {} : { unplug: () => running.unplug?.() ?? Promise.resolve() }),
      ...(running.replug === undefined ? {} : { replug: () => running.replug?.() ?? Promise.resolve() }),
      secrets: [running.password, "wrong-pass-4712"],
      stranger: () => Promise.resolve(ftpDevice(running, { root: `/${name}`, password: "wrong-pass-4712" })),
      close: () => device.close(),
    });
  });
}
