/** OpenSSH on a file system of 16 MiB that is full: it says only "failure", and it is "full" all the same; it goes on when there is space. */
import assert from "node:assert/strict";
import { promises as fs } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { calm, expectFault } from "./clause.js";
import { sftpDevice } from "./sftp-harness.js";
import { chrooted, openssh } from "./sftp-servers.js";
import { isReceipt } from "./target.js";
import { bytes, upload } from "./upload.js";
import { mountSmall, unmount } from "../small-disk.js";

for (const kind of [openssh, chrooted])
  test(`${kind.name}: the server's disk is full`, { skip: kind.skip ?? false }, async (t) => {
    const server = await kind.start();
    const [image, dir] = [`${server.dir}.img`, join(server.dir, "small")];
    const device = sftpDevice(server.port, { root: `${server.seen}/small`, ...server.options });
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
      const content = bytes(6_000_000);
      const large = upload("large.bin", content);
      const { bavail, bsize } = await fs.statfs(dir);
      await fs.writeFile(join(dir, "ballast"), Buffer.alloc(bavail * bsize - 2_000_000));
      const write = async () => target.write(large, await target.offset(large, calm()), calm(), () => undefined);
      for (let i = 0; i < 2; i++) assert.match(await expectFault(write(), "full"), /no space is left at the server/);
      const deep = upload("new/dir/small.bin", bytes(100_000));
      await expectFault(
        target.write(deep, 0, calm(), () => undefined),
        "full",
      );
      await fs.rm(join(dir, "ballast"));
      const held = await target.offset(large, calm());
      assert.ok(held > 1_000_000, `${held} bytes were kept`);
      for (const it of [large, deep]) {
        await target.write(it, await target.offset(it, calm()), calm(), () => undefined);
        assert.ok(isReceipt(await target.commit(it, calm())));
      }
      assert.ok((await fs.readFile(join(dir, "large.bin"))).equals(content));
    } finally {
      await device.close();
      unmount(dir);
      await fs.rm(image, { force: true });
      await server.stop();
    }
  });
