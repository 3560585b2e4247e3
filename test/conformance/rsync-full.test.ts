/** A server's file system of 16 MiB that is full, by rsync: "full" in both ways of working, what arrived stays, and it goes on when there is space. */
import assert from "node:assert/strict";
import { promises as fs } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { calm, expectFault } from "./clause.js";
import { rsyncDevice } from "./rsync-harness.js";
import { rsyncOnly, rsyncShell } from "./rsync-servers.js";
import { isReceipt } from "./target.js";
import { bytes, context, upload } from "./upload.js";
import { mountSmall, unmount } from "../small-disk.js";

for (const kind of [rsyncShell, rsyncOnly])
  test(`${kind.name}: the server's disk is full`, { skip: kind.skip ?? false }, async (t) => {
    const server = await kind.start();
    const local = await fs.mkdtemp(join(server.dir, "..", "local-"));
    const [image, dir] = [`${server.dir}.img`, join(server.dir, "small")];
    const given = { root: `${server.seen}/small`, ...server.options };
    const device = rsyncDevice(server.port, given, context({ stateDir: join(local, "state") }));
    const target = device.target ?? assert.fail();
    try {
      await fs.mkdir(dir);
      const none = mountSmall(image, dir, 16);
      if (none !== undefined) {
        t.skip(`no small file system here: ${none}`);
        return;
      }
      const { uid, gid } = await fs.stat(server.dir);
      await fs.chown(dir, uid, gid);
      const localPath = join(local, "large");
      const content = bytes(5_000_000);
      await fs.writeFile(localPath, content);
      const large = { ...upload("large.bin", content), localPath };
      const { bavail, bsize } = await fs.statfs(dir);
      await fs.writeFile(join(dir, "ballast"), Buffer.alloc(bavail * bsize - 2_000_000));
      const write = async () => target.write(large, await target.offset(large, calm()), calm(), () => undefined);
      for (let i = 0; i < 2; i++) assert.match(await expectFault(write(), "full"), /no space is left at the server/);
      const held = await target.offset(large, calm());
      assert.ok(held > 1_000_000, `${held} bytes were kept`);
      await fs.rm(join(dir, "ballast"));
      await write();
      assert.ok(isReceipt(await target.commit(large, calm())));
      assert.ok((await fs.readFile(join(dir, "large.bin"))).equals(content));
    } finally {
      await device.close();
      unmount(dir);
      await fs.rm(image, { force: true });
      await server.stop();
    }
  });
