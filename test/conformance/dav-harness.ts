/** Harnesses of the suites for the plugin "webdav" on any of the servers. */
import { promises as fs } from "node:fs";
import { join } from "node:path";
import type { Device, Memo } from "../../core/plugin.js";
import { plugin } from "../../plugins/webdav/plugin.js";
import { calm } from "./clause.js";
import { diskName, password, user, type DavServerKind, type DavServerUnderTest } from "./dav-servers.js";
import { files } from "./files.js";
import { deviceOf, served, type Served, type ServedOptions } from "./served.js";
import { vouching } from "./target-under-test.js";
import { bytes, context, memo, upload } from "./upload.js";

/** A device of the plugin "webdav". `memory`: what it knows from before. */
export function davDevice(
  url: string,
  given: Readonly<Record<string, unknown>> = {},
  options: { readonly memory?: Memo; readonly ctx?: ReturnType<typeof context> } = {},
): Device {
  const ctx = options.ctx ?? context();
  const { memory = ctx.memory } = options;
  return deviceOf(plugin, { url, user, password, timeout: "10s", ...given }, { ...ctx, memory });
}

export interface DavHarnessOptions extends ServedOptions {
  readonly kind: DavServerKind;
  readonly given?: Readonly<Record<string, unknown>>;
  readonly keepsTimes?: boolean;
}

export function davHarness(options: DavHarnessOptions): Served {
  const { kind, given = {}, keepsTimes = false } = options;
  const memory = memo();
  /** What a device learns at its first upload, as after a restart of the daemon. */
  const start = async (): Promise<DavServerUnderTest> => {
    const running = await kind.start();
    const device = davDevice(running.url, { root: "learning", ...running.options, ...given }, { memory });
    const it = upload("learning.bin", bytes(100_000));
    await device.target?.write(it, 0, calm(), () => undefined);
    await device.target?.discard(it, calm());
    await device.close();
    await fs.rm(join(running.dir, "learning"), { recursive: true });
    return running;
  };
  return served({ ...kind, start }, options, async (running, dir, name) => {
    const open = () => fs.chmod(dir, 0o777).then(() => openAll(dir));
    await open();
    const device = davDevice(running.url, { root: `/${name}`, ...running.options, ...given }, { memory });
    const { modifiedMs, put, sparse, ...rest } = files(dir, diskName);
    return {
      device,
      ...rest,
      put: (path, content) => put(path, content).then(open),
      sparse: (path, size) => sparse(path, size).then(open),
      ...(keepsTimes ? { modifiedMs } : {}),
      vouch: vouching(device),
      unplug: () => running.unplug(),
      replug: () => running.replug(),
      secrets: [password, "wrong-pass-4712", Buffer.from(`${user}:${password}`).toString("base64")],
      stranger: () => Promise.resolve(davDevice(running.url, { root: `/${name}`, password: "wrong-pass-4712" })),
      close: () => device.close(),
    };
  });
}

/** Another user's server must be able to change what the test puts there. */
async function openAll(dir: string): Promise<void> {
  for (const it of await fs.readdir(Buffer.from(dir), { withFileTypes: true, encoding: "buffer" })) {
    const path = Buffer.concat([Buffer.from(`${dir}/`), it.name]);
    if (it.isSymbolicLink()) continue;
    await fs.chmod(path, it.isDirectory() ? 0o777 : 0o666);
    if (it.isDirectory()) await openAll(path.toString());
  }
}
