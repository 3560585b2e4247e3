/** Each real server on a disk that is full: nothing is set aside for it, what came is kept, and it goes on when there is space. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { promises as fs } from "node:fs";
import { join } from "node:path";
import { calm } from "./clause.js";
import { ftpDevice } from "./ftp-harness.js";
import { ftpSrv, ownPlain, proftpd, pureFtpd, vsftpd } from "./ftp-servers.js";
import { arrives, goOn, kindOf, nearlyFull } from "./nearly-full.js";
import { bytes, upload } from "./upload.js";

for (const kind of [ownPlain, vsftpd, proftpd, pureFtpd, ftpSrv])
  nearlyFull(
    kind,
    (server) => ftpDevice(server, { root: "/small" }),
    async (disk) => {
      const { target, dir } = disk;
      const [content, little] = [bytes(6_000_000), bytes(100_000)];
      const [large, deep] = [upload("large.bin", content), upload("new/dir/small.bin", little)];
      const faults: string[] = [];
      // ftp-srv takes a broken upload away, and so has space for the next.
      for (const it of kind === ftpSrv ? [large, large] : [large, large, deep, deep]) {
        // To the last block, for a broken upload leaves some.
        if (it === deep) spawnSync("dd", ["if=/dev/zero", `of=${join(dir, "ballast2")}`, "bs=1024"]);
        // ftp-srv says that all was well.
        faults.push(await kindOf(goOn(target, it).then(() => target.commit(it, calm()))));
      }
      disk.note(faults.join(", "));
      for (const fault of faults) assert.ok(["full", "transient"].includes(fault), faults.join(", "));
      if (kind !== ftpSrv) assert.deepEqual(faults.slice(0, 2), ["full", "full"]);
      await disk.free();
      await fs.rm(join(dir, "ballast2"), { force: true });
      await arrives(disk, large, content);
      await arrives(disk, deep, little);
    },
  );
