/** OpenSSH on a disk that is full: it says only "failure", and it is "full" all the same; it goes on when there is space. */
import assert from "node:assert/strict";
import { calm, expectFault } from "./clause.js";
import { arrives, goOn, nearlyFull } from "./nearly-full.js";
import { sftpDevice } from "./sftp-harness.js";
import { chrooted, openssh } from "./sftp-servers.js";
import { bytes, upload } from "./upload.js";

for (const kind of [openssh, chrooted])
  nearlyFull(
    kind,
    (server) => sftpDevice(server.port, { root: `${server.seen}/small`, ...server.options }),
    async (disk) => {
      const { target, device } = disk;
      const [content, little] = [bytes(6_000_000), bytes(100_000)];
      const [large, deep] = [upload("large.bin", content), upload("new/dir/small.bin", little)];
      for (let i = 0; i < 2; i++) assert.match(await expectFault(goOn(target, large), "full"), /no space is left at the server/);
      await expectFault(
        target.write(deep, 0, calm(), () => undefined),
        "full",
      );
      await expectFault(device.tree?.mkdir("dir", calm()) ?? Promise.resolve(), "full");
      await expectFault(device.tree?.makeNew("dir", calm()) ?? Promise.resolve(), "full");
      await disk.free();
      const held = await target.offset(large, calm());
      assert.ok(held > 1_000_000, `${held} bytes were kept`);
      await arrives(disk, large, content);
      await arrives(disk, deep, little);
    },
  );
