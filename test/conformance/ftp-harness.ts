/** Harnesses of the suites for the plugin "ftp" on any of the servers: each clause gets a directory of its own as its root. */
import { promises as fs } from "node:fs";
import { dirname, join } from "node:path";
import type { Device } from "../../core/plugin.js";
import { parseIn } from "../../core/options.js";
import { plugin } from "../../plugins/ftp/plugin.js";
import type { FtpServerKind, FtpServerUnderTest } from "./ftp-servers.js";
import type { SourceHarness, SourceUnderTest } from "./source.js";
import type { TargetHarness, TargetUnderTest } from "./target.js";
import { context } from "./upload.js";

/** A device of the plugin "ftp" at this server. */
export function ftpDevice(server: FtpServerUnderTest, given: Readonly<Record<string, unknown>> = {}, ctx = context()): Device {
  const parsed = parseIn({ baseDir: "/", env: {} }, plugin.options, {
    host: "127.0.0.1",
    port: server.port,
    user: server.user,
    password: server.password,
    timeout: "10s",
    ...server.options,
    ...given,
  });
  if (!parsed.success) throw new Error(parsed.issues.map((issue) => issue.message).join("; "));
  const device = plugin.device?.(parsed.output, ctx);
  if (device === undefined) throw new Error("the plugin makes no device");
  return device;
}

/** Paths of all files below `dir`, relative to it. */
export async function filesBelow(dir: string): Promise<string[]> {
  const found = await fs.readdir(dir, { recursive: true, withFileTypes: true });
  return found
    .filter((it) => !it.isDirectory())
    .map((it) => join(it.parentPath, it.name).slice(dir.length + 1))
    .sort();
}

async function orUndefined<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof Error && "code" in error && (error.code === "ENOENT" || error.code === "ENOTDIR")) return undefined;
    throw error;
  }
}

/** Files below a directory of this machine by their path in core, as both suites want them. */
export function files(dir: string, disk: (path: string) => Buffer) {
  const at = (path: string): Buffer => Buffer.concat([Buffer.from(`${dir}/`), disk(path)]);
  const own = async (path: string): Promise<void> => {
    // Another user's server must be able to change what the test puts there.
    const { uid, gid } = await fs.stat(dir);
    for (let p = path; p !== "."; p = dirname(p)) await fs.lchown(at(p), uid, gid);
  };
  const parents = (path: string): Promise<unknown> =>
    dirname(path) === "." ? Promise.resolve() : fs.mkdir(at(dirname(path)), { recursive: true });
  return {
    read: (path: string) => orUndefined(fs.readFile(at(path))),
    size: async (path: string) => (await orUndefined(fs.stat(at(path))))?.size,
    modifiedMs: async (path: string) => (await fs.stat(at(path))).mtimeMs,
    remove: (path: string) => fs.rm(at(path)),
    append: (path: string, content: Buffer) => fs.appendFile(at(path), content),
    list: () => filesBelow(dir),
    put: async (path: string, content: Buffer): Promise<void> => {
      await parents(path);
      await fs.writeFile(at(path), content);
      await own(path);
    },
    link: async (path: string, to: string): Promise<void> => {
      await parents(path);
      await fs.symlink(to, at(path));
    },
    sparse: async (path: string, size: number): Promise<void> => {
      await parents(path);
      await fs.writeFile(at(path), "");
      await fs.truncate(at(path), size);
      await own(path);
    },
  };
}

export interface FtpHarnessOptions {
  readonly kind: FtpServerKind;
  readonly given?: Readonly<Record<string, unknown>>;
  readonly name?: string;
  readonly keepsTimes?: boolean;
  readonly known?: Readonly<Record<string, string>>;
  readonly refuses?: Readonly<Record<string, string>>;
}

/** Harnesses that share one server, started at the first clause. `stop` ends it. */
export function ftpHarness(options: FtpHarnessOptions): { target: TargetHarness; source: SourceHarness; stop(): Promise<void> } {
  const { kind, given = {}, keepsTimes = true } = options;
  let server: Promise<FtpServerUnderTest> | undefined;
  let count = 0;
  const make = async (): Promise<TargetUnderTest & SourceUnderTest> => {
    server ??= kind.start();
    const running = await server;
    const name = `root ${count++}`;
    const dir = join(running.dir, name);
    await fs.mkdir(dir);
    const { uid, gid } = await fs.stat(running.dir);
    await fs.chown(dir, uid, gid);
    const device = ftpDevice(running, { root: `/${name}`, ...given });
    const { modifiedMs, ...rest } = files(dir, (path) => running.disk(path));
    return {
      device,
      ...rest,
      ...(keepsTimes ? { modifiedMs } : {}),
      ...(running.unplug === undefined ? {} : { unplug: () => running.unplug?.() ?? Promise.resolve() }),
      ...(running.replug === undefined ? {} : { replug: () => running.replug?.() ?? Promise.resolve() }),
      secrets: [running.password, "wrong-pass-4712"],
      stranger: () => Promise.resolve(ftpDevice(running, { root: `/${name}`, password: "wrong-pass-4712" })),
      outside: async () => (await filesBelow(running.dir)).filter((path) => !path.startsWith(`${name}/`)),
      ...(options.refuses === undefined ? {} : { refuses: options.refuses }),
      close: async () => {
        await device.close();
        await fs.rm(dir, { recursive: true });
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
