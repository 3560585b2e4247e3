/** Each real server on a file system of 16 MiB that is full: nothing is set aside for it, what came is kept, and it goes on when there is space. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { promises as fs } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { isFault } from "../../core/errors.js";
import { calm } from "./clause.js";
import { ftpDevice } from "./ftp-harness.js";
import { ftpSrv, ownPlain, proftpd, pureFtpd, vsftpd } from "./ftp-servers.js";
import { isReceipt } from "./target.js";
import { bytes, upload } from "./upload.js";
import { mountSmall, unmount } from "../small-disk.js";

for (const kind of [ownPlain, vsftpd, proftpd, pureFtpd, ftpSrv])
  test(`${kind.name}: the server's disk is full`, { skip: kind.skip ?? false }, async (t) => {
    const server = await kind.start();
    const [image, dir] = [`${server.dir}.img`, join(server.dir, "small")];
    const device = ftpDevice(server, { root: "/small" });
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
      const [large, deep] = [upload("large.bin", content), upload("new/dir/small.bin", bytes(100_000))];
      const { bavail, bsize } = await fs.statfs(dir);
      await fs.writeFile(join(dir, "ballast"), Buffer.alloc(bavail * bsize - 2_000_000));
      const faults: string[] = [];
      // ftp-srv takes a broken upload away, and so has space for the next.
      const tries = kind === ftpSrv ? [large, large] : [large, large, deep, deep];
      for (const it of tries) {
        // To the last block, for a broken upload leaves some.
        if (it === deep) spawnSync("dd", ["if=/dev/zero", `of=${join(dir, "ballast2")}`, "bs=1024"]);
        await (async () => target.write(it, await target.offset(it, calm()), calm(), () => undefined))().then(
          // ftp-srv says that all was well.
          () =>
            target.commit(it, calm()).then(
              () => assert.fail(`${it.path} was published`),
              (error: unknown) => faults.push(isFault(error) ? error.kind : String(error)),
            ),
          (error: unknown) => faults.push(isFault(error) ? error.kind : String(error)),
        );
      }
      t.diagnostic(faults.join(", "));
      assert.equal(faults.length, tries.length);
      for (const fault of faults) assert.ok(["full", "transient"].includes(fault), faults.join(", "));
      await fs.rm(join(dir, "ballast"));
      await fs.rm(join(dir, "ballast2"), { force: true });
      for (const it of [large, deep]) {
        const held = await target.offset(it, calm());
        await target.write(it, held, calm(), () => undefined);
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
