/** A server whose disk gets full: a file system of 16 MiB, mounted as "small" in its directory, with 2 MB left. */
import assert from "node:assert/strict";
import { promises as fs } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { isFault } from "../../core/errors.js";
import type { Device, Target } from "../../core/plugin.js";
import { mountSmall, unmount } from "../small-disk.js";
import { calm } from "./clause.js";
import { isReceipt } from "./target-under-test.js";
import { upload } from "./upload.js";

interface Served {
  readonly dir: string;
  stop(): Promise<void>;
}

export interface NearlyFull {
  readonly device: Device;
  readonly target: Target;
  /** The file system, as this machine sees it. */
  readonly dir: string;
  /** There is space again. */
  free(): Promise<void>;
  note(text: string): void;
}

type Put = ReturnType<typeof upload>;

/** One test; skipped where nothing can be mounted. `open` gives a device whose root is the small file system. */
export function nearlyFull<S extends Served>(
  kind: { readonly name: string; readonly skip?: string | undefined; start(): Promise<S> },
  open: (server: S) => Device | Promise<Device>,
  work: (it: NearlyFull) => Promise<void>,
): void {
  void test(`${kind.name}: the server's disk is full`, { skip: kind.skip ?? false }, async (t) => {
    const server = await kind.start();
    const [image, dir] = [`${server.dir}.img`, join(server.dir, "small")];
    const ballast = join(dir, "ballast");
    let device: Device | undefined;
    try {
      await fs.mkdir(dir);
      const none = mountSmall(image, dir, 16);
      if (none !== undefined) {
        t.skip(`no small file system here: ${none}`);
        return;
      }
      const { uid, gid } = await fs.stat(server.dir);
      await fs.chown(dir, uid, gid);
      await fs.chmod(dir, 0o777);
      const { bavail, bsize } = await fs.statfs(dir);
      await fs.writeFile(ballast, Buffer.alloc(bavail * bsize - 2_000_000));
      device = await open(server);
      await work({ device, target: device.target ?? assert.fail(), dir, free: () => fs.rm(ballast), note: (text) => t.diagnostic(text) });
    } finally {
      await device?.close();
      unmount(dir);
      await fs.rm(image, { force: true });
      await server.stop();
    }
  });
}

/** Goes on where the target is. */
export async function goOn(target: Target, it: Put): Promise<void> {
  await target.write(it, await target.offset(it, calm()), calm(), () => undefined);
}

/** What `work` ends with has to be a fault; its kind. */
export async function kindOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => assert.fail("there was space"),
    (error: unknown) => (isFault(error) ? error.kind : String(error)),
  );
}

/** With space again it gets whole. */
export async function arrives({ target, dir }: NearlyFull, it: Put, content: Buffer): Promise<void> {
  await goOn(target, it);
  assert.ok(isReceipt(await target.commit(it, calm())));
  assert.ok((await fs.readFile(join(dir, it.path))).equals(content));
}
