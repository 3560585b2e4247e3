/** Free space as real servers tell it, held against what this machine says of the same disk. */
import assert from "node:assert/strict";
import { promises as fs } from "node:fs";
import { test } from "node:test";
import { calm } from "./clause.js";
import { ftpDevice } from "./ftp-harness.js";
import { ftpSrv, ownPlain, proftpd, pureFtpd, vsftpd } from "./ftp-servers.js";
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

test("ftp: our own server tells how much is free at the root, also of one that is not there yet", async (t) => {
  const server = await ownPlain.start();
  t.after(() => server.stop());
  for (const root of ["/", "/not/yet", "not yet"]) {
    const device = ftpDevice(server, { root });
    t.after(() => device.close());
    const { blocks, bsize } = await fs.statfs(server.dir);
    const free = await device.room?.(calm());
    assert.ok(free !== undefined && free > 0 && free <= blocks * bsize, `${root}: ${free}`);
  }
});

for (const kind of [vsftpd, proftpd, pureFtpd, ftpSrv])
  test(`${kind.name}: nobody can tell how much is free`, kind.skip === undefined ? {} : { skip: kind.skip }, async (t) => {
    const server = await kind.start();
    t.after(() => server.stop());
    const device = ftpDevice(server);
    t.after(() => device.close());
    assert.equal(await device.room?.(calm()), undefined);
  });
