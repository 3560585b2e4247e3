/** Harnesses of the suites for the plugin "sftp" on any of the servers: each clause gets a directory of its own as its root. */
import { promises as fs } from "node:fs";
import { join } from "node:path";
import { bytesFromName } from "../../core/names.js";
import type { Device } from "../../core/plugin.js";
import { parseIn } from "../../core/options.js";
import { plugin } from "../../plugins/sftp/plugin.js";
import { sureKey, wholeOnlyKey } from "../../plugins/sftp/target.js";
import { files, filesBelow } from "./ftp-harness.js";
import type { SftpServerKind, SftpServerUnderTest } from "./sftp-servers.js";
import type { SourceHarness, SourceUnderTest } from "./source.js";
import type { TargetHarness, TargetUnderTest } from "./target.js";
import { context } from "./upload.js";

/** A device of the plugin "sftp" at a port of this machine. */
export function sftpDevice(port: number, given: Readonly<Record<string, unknown>>, ctx = context()): Device {
  const parsed = parseIn({ baseDir: "/", env: {} }, plugin.options, { host: "127.0.0.1", port, timeout: "10s", ...given });
  if (!parsed.success) throw new Error(parsed.issues.map((issue) => issue.message).join("; "));
  const device = plugin.device?.(parsed.output, ctx);
  if (device === undefined) throw new Error("the plugin makes no device");
  return device;
}

export interface SftpHarnessOptions {
  readonly kind: SftpServerKind;
  readonly given?: Readonly<Record<string, unknown>>;
  readonly name?: string;
  readonly keepsTimes?: boolean;
  /** It was learned of this server that it cannot continue a file. */
  readonly wholeOnly?: true;
  readonly known?: Readonly<Record<string, string>>;
  readonly refuses?: Readonly<Record<string, string>>;
}

/** Harnesses that share one server, started at the first clause. `stop` ends it. */
export function sftpHarness(options: SftpHarnessOptions): { target: TargetHarness; source: SourceHarness; stop(): Promise<void> } {
  const { kind, given = {}, keepsTimes = true } = options;
  let server: Promise<SftpServerUnderTest> | undefined;
  let count = 0;
  const make = async (): Promise<TargetUnderTest & SourceUnderTest> => {
    server ??= kind.start();
    const running = await server;
    const name = `root ${count++}`;
    const dir = join(running.dir, name);
    await fs.mkdir(dir);
    const { uid, gid } = await fs.stat(running.dir);
    await fs.chown(dir, uid, gid);
    const root = `${running.seen}/${name}`;
    const ctx = context();
    if (options.wholeOnly) await ctx.memory.set(wholeOnlyKey, true);
    const device = sftpDevice(running.port, { root, ...running.options, ...given }, ctx);
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
      outside: async () => (await filesBelow(running.dir)).filter((path) => !path.startsWith(`${name}/`)),
      ...(options.refuses === undefined ? {} : { refuses: options.refuses }),
      close: async () => {
        await device.close();
        // What a server puts off may still be written.
        await fs.rm(dir, { recursive: true, maxRetries: 10, retryDelay: 100 });
      },
    };
  };
  const harness = {
    name: options.name ?? kind.name,
    ...(kind.skip === undefined ? {} : { skip: kind.skip }),
    ...(options.known === undefined ? {} : { known: options.known }),
    make,
  };
  return {
    target: { ...harness, name: `target: ${harness.name}` },
    source: { ...harness, name: `source: ${harness.name}` },
    stop: async () => {
      await (await server)?.stop();
    },
  };
}
