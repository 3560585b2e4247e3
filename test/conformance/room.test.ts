/** Free space as real servers tell it, held against what this machine says of the same disk. */
import assert from "node:assert/strict";
import { promises as fs } from "node:fs";
import { test } from "node:test";
import { calm } from "./clause.js";
import { sftpDevice } from "./sftp-harness.js";
import { openssh } from "./sftp-servers.js";

test(
  "sftp: OpenSSH tells how much is free at the root, also of one that is not there yet",
  openssh.skip === undefined ? {} : { skip: openssh.skip },
  async (t) => {
    const server = await openssh.start();
    t.after(() => server.stop());
    for (const root of [server.seen, `${server.seen}/not/yet`]) {
      const device = sftpDevice(server.port, { root, ...server.options });
      t.after(() => device.close());
      const { blocks, bsize } = await fs.statfs(server.dir);
      const free = await device.room?.(calm());
      assert.ok(free !== undefined && free > 0 && free <= blocks * bsize, String(free));
    }
  },
);
