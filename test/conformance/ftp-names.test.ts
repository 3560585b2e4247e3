/** Names that a server would change into others: they arrive as they are, or are refused before a byte is sent; what is there stays. */
import assert from "node:assert/strict";
import { existsSync, promises as fs } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { test, type TestContext } from "node:test";
import { isFault } from "../../core/errors.js";
import { calm } from "./clause.js";
import { ftpDevice } from "./ftp-harness.js";
import { type FtpServerKind, ftpSrv, ownPlain, proftpd, pureFtpd, vsftpd } from "./ftp-servers.js";
import { all } from "./source-under-test.js";
import { isReceipt } from "./target-under-test.js";
import { bytes, upload } from "./upload.js";

async function on(kind: FtpServerKind, t: TestContext) {
  const server = await kind.start();
  const device = ftpDevice(server);
  t.after(async () => {
    await device.close();
    await server.stop();
  });
  return { server, device };
}

for (const kind of [ownPlain, vsftpd, proftpd, pureFtpd, ftpSrv])
  test(
    `${kind.name}: a name that ends with a space, one with the byte FF, and a directory with an asterisk`,
    { skip: kind.skip ?? false },
    async (t) => {
      const { server, device } = await on(kind, t);
      const target = device.target ?? assert.fail();
      await fs.writeFile(join(server.dir, "log_"), "somebody else's");
      await fs.chmod(join(server.dir, "log_"), 0o666);
      for (const name of ["log ", "a\u201bFF\u201bFE.jpg", "a*b/log"]) {
        const content = bytes(5000, 1);
        const it = upload(name, content);
        try {
          await target.write(it, await target.offset(it, calm()), calm(), () => undefined);
          const receipt = await target.commit(it, calm());
          assert.ok(isReceipt(receipt));
          assert.ok((await fs.readFile(Buffer.concat([Buffer.from(`${server.dir}/`), server.disk(name)]))).equals(content));
          t.diagnostic(`${JSON.stringify(name)}: arrived`);
        } catch (error) {
          assert.ok(isFault(error, "rejected"), String(error));
          t.diagnostic(error.message);
        }
      }
      assert.equal(await fs.readFile(join(server.dir, "log_"), "utf8"), "somebody else's");
    },
  );

for (const kind of [ownPlain, vsftpd, proftpd, pureFtpd])
  test(
    `${kind.name}: names with the byte FF, each beside what it would be without: each is read, and removed, as itself`,
    { skip: kind.skip ?? false },
    async (t) => {
      const { server, device } = await on(kind, t);
      const source = device.source ?? assert.fail();
      const names = ["ab", "a\u201bFFb", "a\u201bFF\u201bFFb", "a\u201bFF\u201bFBb", "c", "c\u201bFF\u201bFE"];
      const onDisk = (name: string) => Buffer.concat([Buffer.from(`${server.dir}/`), server.disk(name)]);
      for (const [n, name] of names.entries()) {
        await fs.writeFile(onDisk(name), `content ${n}`);
        await fs.utimes(onDisk(name), 1e9, 1e9);
      }
      const found = (await all(source)).sort((a, b) => (a.path < b.path ? -1 : 1));
      assert.deepEqual(
        found.map(({ path }) => path),
        [...names].sort(),
      );
      for (const entry of found) {
        const content = await text(await source.open(entry, 0, calm()));
        assert.equal(content, `content ${names.indexOf(entry.path)}`, entry.path);
      }
      await device.tree?.remove("a\u201bFF\u201bFFb", found.find(({ path }) => path === "a\u201bFF\u201bFFb") ?? assert.fail(), calm());
      for (const name of names) assert.equal(existsSync(onDisk(name)), name !== "a\u201bFF\u201bFFb", name);
    },
  );
