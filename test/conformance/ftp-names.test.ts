/** Names that a server would change into others: they arrive as they are, or are refused before a byte is sent; what is there stays. */
import assert from "node:assert/strict";
import { promises as fs } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { isFault } from "../../core/errors.js";
import { calm } from "./clause.js";
import { ftpDevice } from "./ftp-harness.js";
import { ftpSrv, ownPlain, proftpd, pureFtpd, vsftpd } from "./ftp-servers.js";
import { isReceipt } from "./target-under-test.js";
import { bytes, upload } from "./upload.js";

for (const kind of [ownPlain, vsftpd, proftpd, pureFtpd, ftpSrv])
  test(
    `${kind.name}: a name that ends with a space, one with the byte FF, and a directory with an asterisk`,
    { skip: kind.skip ?? false },
    async (t) => {
      const server = await kind.start();
      const device = ftpDevice(server);
      t.after(async () => {
        await device.close();
        await server.stop();
      });
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
