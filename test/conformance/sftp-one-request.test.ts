/** At OpenSSH a file that was just written gets its name in one request, and nothing is looked at: what may have come between, and servers that refuse a part of it (`internal-sftp -P`). */
import assert from "node:assert/strict";
import { promises as fs } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import type { Target } from "../../core/plugin.js";
import { calm, expectFault, until } from "./clause.js";
import { sftpDevice } from "./sftp-harness.js";
import { openssh, opensshWith, type SftpServerKind } from "./sftp-servers.js";
import { isReceipt, send, targetOf } from "./target-under-test.js";
import { upload } from "./upload.js";

const modifiedMs = Date.UTC(2020, 1, 1);

/** Proved by its size alone, as where there are no commands: nothing else would notice. */
async function under(t: TestContext, kind: SftpServerKind): Promise<{ target: Target; dir: string }> {
  const server = await kind.start();
  const device = sftpDevice(server.port, { root: server.seen, verify: "size", ...server.options });
  t.after(async () => {
    await device.close();
    await server.stop();
  });
  return { target: targetOf({ device, close: () => device.close() }), dir: server.dir };
}

for (const refused of ["fstat", "fsetstat", "setstat", "rename", "hardlink", "fstat,fsetstat,rename"]) {
  const kind = opensshWith(`OpenSSH without ${refused}`, `-P ${refused}`);
  test(`${kind.name}: files arrive, with their times, and never over another`, { skip: kind.skip ?? false }, async (t) => {
    const { target, dir } = await under(t, kind);
    for (const name of ["first", "second", "third"]) {
      const receipt = await send(target, upload(name, Buffer.from(name), { modifiedMs }));
      const { mtimeMs } = await fs.stat(join(dir, name));
      // What cannot be set through the name is set through the open file, once it is known that RENAME will do.
      if (refused !== "setstat" || name !== "first") assert.equal(mtimeMs, modifiedMs, name);
      if (receipt.shown !== undefined) assert.deepEqual(receipt.shown, { size: name.length, modifiedMs: mtimeMs });
    }
    const other = upload("second", Buffer.from("of somebody else"), { modifiedMs });
    await target.write(other, 0, calm(), () => undefined);
    assert.ok(!isReceipt(await target.commit(other, calm())));
    assert.equal(await fs.readFile(join(dir, "second"), "utf8"), "second");
  });
}

test(
  "a partial that was begun anew by a write that was stopped is not published as what was there before",
  { skip: openssh.skip ?? false },
  async (t) => {
    const { target, dir } = await under(t, openssh);
    await send(target, upload("first", Buffer.from("first")));
    const it = upload("second", Buffer.from("second"));
    await target.write(it, 0, calm(), () => undefined);
    const stop = new AbortController();
    const stopped = target.write(it, 0, stop.signal, () => undefined);
    // The request has gone out, and nobody waits for its answer.
    setImmediate(() => stop.abort());
    await expectFault(stopped, "aborted");
    await until("it to be empty", async () => (await fs.stat(join(dir, it.partialPath))).size === 0);
    await expectFault(target.commit(it, calm()), "transient");
    assert.deepEqual(
      (await fs.readdir(dir)).filter((name) => !name.startsWith(".")),
      ["first"],
    );
  },
);

test(
  "a time that became known, or another, after the file was written is what the file has",
  { skip: openssh.skip ?? false },
  async (t) => {
    const { target, dir } = await under(t, openssh);
    await send(target, upload("first", Buffer.from("first")));
    for (const [name, before] of [
      ["second", {}],
      ["third", { modifiedMs: Date.UTC(2019, 1, 1) }],
    ] as const) {
      const it = upload(name, Buffer.from(name), before);
      await target.write(it, 0, calm(), () => undefined);
      assert.ok(isReceipt(await target.commit({ ...it, modifiedMs }, calm())));
      assert.equal((await fs.stat(join(dir, name))).mtimeMs, modifiedMs, name);
    }
  },
);
