/**
 * vsftpd lets a transfer of a file wait while another has it (`lock_upload_files`, on by default), and says 150 only then: so it is after a link was lost,
 * whose transfer it believes in for minutes. Each try that is given up waits there too, and goes on once the lock is free.
 */
import assert from "node:assert/strict";
import { promises as fs } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { Target, Upload } from "../../core/plugin.js";
import { FtpRelay } from "../faults/relay.js";
import { calm, expectFault, onceReached, until } from "./clause.js";
import { ftpDevice } from "./ftp-harness.js";
import { vsftpd } from "./ftp-servers.js";
import { RawFtp } from "./raw-ftp.js";
import { isReceipt } from "./target-under-test.js";
import { bytes, upload } from "./upload.js";

const content = bytes(6_000_000, 7);
const tries = 4;

/** A partial that a client began whose link is dead, and of which the server does not know that. */
async function withDead(
  held: number,
  work: (scene: {
    readonly target: Target;
    readonly it: Upload;
    readonly offset: () => Promise<number>;
    readonly dir: string;
    readonly relay: FtpRelay;
    readonly write: () => Promise<void>;
    /** Its data connection ends at last. */
    readonly end: () => Promise<void>;
  }) => Promise<void>,
): Promise<void> {
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
    // The server gives nothing of it meanwhile, either.
    await until("what was sent to be there", async () => (await fs.stat(join(server.dir, it.partialPath))).size === held);
    const write = () => onceReached(async () => target.write(it, await target.offset(it, calm()), calm(), () => undefined));
    const end = async () => {
      transfer.destroy();
      assert.match(await dead.answer(), /^226/);
    };
    await work({ target, it, offset, dir: server.dir, relay, write, end });
  } finally {
    dead.close();
    await device.close();
    await relay.close();
    await server.stop();
  }
}

for (const [held, knownPace] of [
  [0, false],
  [200_000, false],
  [3_000_000, true],
] as const)
  test(
    `vsftpd: a partial of ${held} bytes is locked by a transfer that is long dead${knownPace ? ", and sending is fast" : ""}: it is begun anew beside that`,
    { skip: vsftpd.skip ?? false },
    () =>
      withDead(held, async ({ target, it, offset, dir, relay, write, end }) => {
        if (knownPace) await onceReached(() => target.write(upload("b.bin", content), 0, calm(), () => undefined));
        const before = relay.uploadedBytes;
        assert.match(await expectFault(write(), "transient"), /it is sent from its first byte$/);
        assert.equal(await offset(), 0);
        await write();
        assert.ok(isReceipt(await target.commit(it, calm())));
        assert.equal(relay.uploadedBytes - before, content.length);
        await end();
        assert.ok((await fs.readFile(join(dir, "a.bin"))).equals(content));
      }),
  );

for (const [held, knownPace] of [
  [3_000_000, false],
  [5_000_000, true],
] as const)
  test(
    `vsftpd: a partial of ${held} bytes is locked by a transfer that is long dead${knownPace ? ", and sending is fast" : ""}: no try sends a byte, and the rest arrives once that is given up`,
    { skip: vsftpd.skip ?? false },
    () =>
      withDead(held, async ({ target, it, dir, relay, write, end }) => {
        if (knownPace) await onceReached(() => target.write(upload("b.bin", content), 0, calm(), () => undefined));
        const before = relay.uploadedBytes;
        for (let n = 0; n < tries; n++) assert.match(await expectFault(write(), "transient"), /may still hold it there$/);
        await end();
        await write();
        assert.ok(isReceipt(await target.commit(it, calm())));
        assert.equal(relay.uploadedBytes - before, content.length - held, "bytes were sent again");
        // Those that were given up are gone by now: they waited before the last.
        assert.ok((await fs.readFile(join(dir, "a.bin"))).equals(content));
      }),
  );
