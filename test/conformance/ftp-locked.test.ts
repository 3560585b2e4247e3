/**
 * vsftpd lets a transfer of a file wait while another has it (`lock_upload_files`, on by default), and says 150 only then: so it is after a link was lost,
 * whose transfer it believes in for minutes. Each try that is given up waits there too, and goes on once the lock is free.
 */
import assert from "node:assert/strict";
import { promises as fs } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { FtpRelay } from "../faults/relay.js";
import { calm, expectFault, onceReached, until } from "./clause.js";
import { ftpDevice } from "./ftp-harness.js";
import { vsftpd } from "./ftp-servers.js";
import { RawFtp } from "./raw-ftp.js";
import { isReceipt } from "./target-under-test.js";
import { bytes, upload } from "./upload.js";

const content = bytes(6_000_000, 7);
const tries = 4;
for (const held of [0, 2_000_000])
  test(
    `vsftpd: a partial of ${held} bytes is locked by a transfer that is long dead: no try sends more than a beginning, and the file arrives whole`,
    { skip: vsftpd.skip ?? false },
    async () => {
      const server = await vsftpd.start();
      const relay = await FtpRelay.start(server.port);
      const device = ftpDevice({ ...server, port: relay.port }, { timeout: "1s" });
      const dead = await RawFtp.login(server.port, server.user, server.password);
      try {
        const target = device.target ?? assert.fail();
        const it = upload("a.bin", content);
        const offset = () => onceReached(() => target.offset(it, calm()));
        await dead.ask("TYPE I");
        const transfer = await dead.data();
        assert.match(await dead.ask(`STOR ${it.partialPath}`), /^150/);
        if (held > 0) transfer.write(content.subarray(0, held));
        await until("what was sent to be there", async () => (await offset()) === held);
        for (let n = 0; n < tries; n++) {
          const from = await offset();
          await expectFault(
            target.write(it, from, calm(), () => undefined),
            "transient",
          );
        }
        // Its data connection ends with the link.
        transfer.destroy();
        assert.match(await dead.answer(), /^226/);
        await target.write(it, await offset(), calm(), () => undefined);
        assert.ok(isReceipt(await target.commit(it, calm())));
        assert.equal(relay.uploadedBytes, content.length - held, "bytes were sent again");
        // Those that were given up are gone by now: they waited before the last.
        assert.ok((await fs.readFile(join(server.dir, "a.bin"))).equals(content));
      } finally {
        dead.close();
        await device.close();
        await relay.close();
        await server.stop();
      }
    },
  );
