/** Each real server on a file system of 16 MiB that is full: nothing is set aside for it, and it goes on when there is space. */
import assert from "node:assert/strict";
import { promises as fs } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { isFault } from "../../core/errors.js";
import { calm } from "./clause.js";
import { davDevice } from "./dav-harness.js";
import { apache, nginx } from "./dav-servers.js";
import { isReceipt } from "./target.js";
import { bytes, upload } from "./upload.js";
import { mountSmall, unmount } from "../small-disk.js";

for (const kind of [apache, nginx])
  test(`${kind.name}: the server's disk is full`, { skip: kind.skip ?? false }, async (t) => {
    const server = await kind.start();
    const [image, dir] = [`${server.dir}.img`, join(server.dir, "small")];
    const device = davDevice(server.url, { root: "/small" });
    const target = device.target ?? assert.fail();
    try {
      await fs.mkdir(dir);
      const none = mountSmall(image, dir, 16);
      if (none !== undefined) {
        t.skip(`no small file system here: ${none}`);
        return;
      }
      await fs.chmod(dir, 0o777);
      const content = bytes(6_000_000);
      const it = upload("large.bin", content);
      const { bavail, bsize } = await fs.statfs(dir);
      await fs.writeFile(join(dir, "ballast"), Buffer.alloc(bavail * bsize - 2_000_000));
      const faults: string[] = [];
      for (let n = 0; n < 2; n++)
        await (async () => target.write(it, await target.offset(it, calm()), calm(), () => undefined))().then(
          () => assert.fail("it was written"),
          (error: unknown) => faults.push(isFault(error) ? error.kind : String(error)),
        );
      t.diagnostic(faults.join(", "));
      for (const fault of faults) assert.ok(["full", "transient"].includes(fault), faults.join(", "));
      await fs.rm(join(dir, "ballast"));
      const held = await target.offset(it, calm());
      if (target.features.resume) assert.ok(held > 0, "what came was not kept");
      await target.write(it, held, calm(), () => undefined);
      assert.ok(isReceipt(await target.commit(it, calm())));
      assert.ok((await fs.readFile(join(dir, "large.bin"))).equals(content));
    } finally {
      await device.close();
      unmount(dir);
      await fs.rm(image, { force: true });
      await server.stop();
    }
  });
