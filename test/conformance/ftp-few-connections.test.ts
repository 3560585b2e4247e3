/** An FTP server that lets in one connection, or two: all arrives over those, and it is not asked for more again and again. */
import assert from "node:assert/strict";
import { promises as fs } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import type { Target } from "../../core/plugin.js";
import { FtpRelay } from "../faults/relay.js";
import { calm } from "./clause.js";
import { ftpDevice } from "./ftp-harness.js";
import { startOwn } from "./ftp-servers.js";
import { isReceipt } from "./target-under-test.js";
import { bytes, upload } from "./upload.js";

/** Our own server, which lets in so many at once, by a relay that counts. */
async function few(t: TestContext, most: number) {
  const dir = await fs.mkdtemp(join(tmpdir(), "filesync-few-"));
  t.after(() => fs.rm(dir, { recursive: true }));
  const server = await startOwn({ root: dir, users: { u: { password: "p" } }, limits: { maxPerAddress: most } });
  const relay = await FtpRelay.start(server.port ?? 0);
  const device = ftpDevice({ port: relay.port, user: "u", password: "p", options: {} } as never);
  t.after(async () => {
    await device.close();
    await relay.close();
    await server.close();
  });
  return { dir, relay, target: device.target as Target };
}

for (const most of [1, 2])
  test(`a server that lets in ${most}: large and small files arrive`, async (t) => {
    const { dir, relay, target } = await few(t, most);
    const send = async (name: string, content: Buffer) => {
      const it = upload(name, content);
      await target.write(it, await target.offset(it, calm()), calm(), () => undefined);
      assert.ok(isReceipt(await target.commit(it, calm())));
      assert.ok((await fs.readFile(join(dir, "u", name))).equals(content));
    };
    // The first connection is there before more are asked for.
    await send("first.bin", bytes(10, 1));
    await Promise.all([
      ...Array.from({ length: 3 }, (_, n) => send(`large${n}.bin`, bytes(20_000_000, n))),
      ...Array.from({ length: 30 }, (_, n) => send(`small${n}.bin`, bytes(2000 + n, n))),
    ]);
    assert.ok(relay.controlConnections <= most + 8, `${relay.controlConnections} connections were opened`);
  });

test("a server that lets in one, and is asked for more before that one is in: all arrives", async (t) => {
  const { target } = await few(t, 1);
  await Promise.all(
    [20_000_000, 2000, 2001, 2002, 2003].map(async (size) => {
      const it = upload(`${size}.bin`, bytes(size, 1));
      await target.write(it, await target.offset(it, calm()), calm(), () => undefined);
      assert.ok(isReceipt(await target.commit(it, calm())));
    }),
  );
});
