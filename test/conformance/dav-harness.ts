/** Harnesses of the suites for the plugin "webdav" on any of the servers: each clause gets a directory of its own as its root. */
import { promises as fs } from "node:fs";
import { join } from "node:path";
import type { Device, Memo } from "../../core/plugin.js";
import { parseIn } from "../../core/options.js";
import { plugin } from "../../plugins/webdav/plugin.js";
import { calm } from "./clause.js";
import { diskName, password, user, type DavServerKind, type DavServerUnderTest } from "./dav-servers.js";
import { files, filesBelow } from "./ftp-harness.js";
import type { SourceHarness, SourceUnderTest } from "./source.js";
import type { TargetHarness, TargetUnderTest } from "./target.js";
import { bytes, context, memo, upload } from "./upload.js";

/** A device of the plugin "webdav". `memory`: what it knows from before. */
export function davDevice(
  url: string,
  given: Readonly<Record<string, unknown>> = {},
  options: { readonly memory?: Memo; readonly ctx?: ReturnType<typeof context> } = {},
): Device {
  const parsed = parseIn({ baseDir: "/", env: {} }, plugin.options, { url, user, password, timeout: "10s", ...given });
  if (!parsed.success) throw new Error(parsed.issues.map((issue) => issue.message).join("; "));
  const ctx = options.ctx ?? context();
  const device = plugin.device?.(parsed.output, options.memory === undefined ? ctx : { ...ctx, memory: options.memory });
  if (device === undefined) throw new Error("the plugin makes no device");
  return device;
}

export interface DavHarnessOptions {
  readonly kind: DavServerKind;
  readonly given?: Readonly<Record<string, unknown>>;
  readonly name?: string;
  readonly keepsTimes?: boolean;
  readonly known?: Readonly<Record<string, string>>;
  readonly refuses?: Readonly<Record<string, string>>;
}

/** Harnesses that share one server, started at the first clause. `stop` ends it. */
export function davHarness(options: DavHarnessOptions): { target: TargetHarness; source: SourceHarness; stop(): Promise<void> } {
  const { kind, given = {}, keepsTimes = false } = options;
  let server: Promise<DavServerUnderTest> | undefined;
  const memory = memo();
  let count = 0;
  /** What a device learns at its first upload, as after a restart of the daemon. */
  const learned = async (): Promise<DavServerUnderTest> => {
    const running = await kind.start();
    const device = davDevice(running.url, { root: "learning", ...running.options, ...given }, { memory });
    const it = upload("learning.bin", bytes(100_000));
    await device.target?.write(it, 0, calm(), () => undefined);
    await device.target?.discard(it, calm());
    await device.close();
    await fs.rm(join(running.dir, "learning"), { recursive: true });
    return running;
  };
  const make = async (): Promise<TargetUnderTest & SourceUnderTest> => {
    server ??= learned();
    const running = await server;
    const name = `root ${count++}`;
    const dir = join(running.dir, name);
    await fs.mkdir(dir);
    await fs.chmod(dir, 0o777);
    const device = davDevice(running.url, { root: `/${name}`, ...running.options, ...given }, { memory });
    const { modifiedMs, put, sparse, ...rest } = files(dir, diskName);
    /** Another user's server must be able to change what the test puts there. */
    const open = () => fs.chmod(dir, 0o777).then(() => openAll(dir));
    return {
      device,
      ...rest,
      put: (path, content) => put(path, content).then(open),
      sparse: (path, size) => sparse(path, size).then(open),
      ...(keepsTimes ? { modifiedMs } : {}),
      unplug: () => running.unplug(),
      replug: () => running.replug(),
      secrets: [password, "wrong-pass-4712", Buffer.from(`${user}:${password}`).toString("base64")],
      stranger: () => Promise.resolve(davDevice(running.url, { root: `/${name}`, password: "wrong-pass-4712" })),
      outside: async () => (await filesBelow(running.dir)).filter((path) => !path.startsWith(`${name}/`)),
      ...(options.refuses === undefined ? {} : { refuses: options.refuses }),
      close: async () => {
        await device.close();
        await fs.rm(dir, { recursive: true, force: true });
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

async function openAll(dir: string): Promise<void> {
  for (const it of await fs.readdir(Buffer.from(dir), { withFileTypes: true, encoding: "buffer" })) {
    const path = Buffer.concat([Buffer.from(`${dir}/`), it.name]);
    if (it.isSymbolicLink()) continue;
    await fs.chmod(path, it.isDirectory() ? 0o777 : 0o666);
    if (it.isDirectory()) await openAll(path.toString());
  }
}
