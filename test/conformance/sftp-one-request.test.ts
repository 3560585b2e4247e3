/** At OpenSSH a file that was just written gets its name in one request, and nothing is looked at: what may have come between, and servers that refuse a part of it (`internal-sftp -P`). */
import assert from "node:assert/strict";
import { promises as fs, renameSync } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { test, type TestContext } from "node:test";
import type { Device, Target } from "../../core/plugin.js";
import { calm, expectFault, until } from "./clause.js";
import { sftpDevice } from "./sftp-harness.js";
import { chrooted, openssh, opensshWith, type SftpServerKind } from "./sftp-servers.js";
import { isReceipt, send, targetOf } from "./target-under-test.js";
import { upload } from "./upload.js";

const modifiedMs = Date.UTC(2020, 1, 1);

/** Proved by its size alone, when nothing else is said: nothing else would notice. */
async function under(t: TestContext, kind: SftpServerKind, verify = "size"): Promise<{ target: Target; again: () => Target; dir: string }> {
  const server = await kind.start();
  const devices: Device[] = [];
  /** Another device of the same server: what a start after a kill has. */
  const again = () => {
    const device = sftpDevice(server.port, { root: server.seen, verify, ...server.options });
    devices.push(device);
    return targetOf({ device, close: () => device.close() });
  };
  t.after(async () => {
    for (const device of devices) await device.close();
    await server.stop();
  });
  return { target: again(), again, dir: server.dir };
}

for (const refused of ["fstat", "fsetstat", "setstat", "rename", "hardlink", "fsync", "fstat,fsetstat,rename"]) {
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

test("a directory that may be written to, and not be read, takes files as well", { skip: chrooted.skip ?? false }, async (t) => {
  const { target, dir } = await under(t, chrooted);
  await fs.mkdir(join(dir, "box"));
  await fs.chmod(join(dir, "box"), 0o733);
  for (const name of ["box/first", "box/second", "box/third"]) {
    assert.ok(isReceipt(await send(target, upload(name, Buffer.from(name), { modifiedMs }))));
    assert.equal(await fs.readFile(join(dir, name), "utf8"), name);
  }
});

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

for (const known of [true, false])
  test(
    `a request whose answer was lost is done while its file is looked at${known ? "" : ", first of all"}: that is what has the name`,
    {
      skip: chrooted.skip ?? false,
    },
    async (t) => {
      const { target, again, dir } = await under(t, chrooted, "auto");
      const content = Buffer.from("second");
      let lost = false;
      const it = upload("second", content, {
        read: (offset) => {
          if (lost) renameSync(join(dir, it.partialPath), join(dir, "second"));
          return Readable.from([content.subarray(offset)]);
        },
      });
      await target.write(it, 0, calm(), () => undefined);
      const later = again();
      if (known) await send(later, upload("first", Buffer.from("first")));
      // It was continued, so its beginning is looked at once more.
      await it.memo.set("resumed", true);
      lost = true;
      const receipt = await later.commit(it, calm());
      assert.ok(isReceipt(receipt), JSON.stringify(receipt));
      assert.deepEqual(await fs.readdir(dir), known ? ["first", "second"] : ["second"]);
    },
  );

test(
  "a RENAME of a lost connection that has linked the name, and not taken the partial away yet, is left to end: where it found that gone it would take the name away again",
  { skip: openssh.skip ?? false },
  async (t) => {
    const { target, again, dir } = await under(t, openssh);
    const it = upload("a.bin", Buffer.from("the only copy"), { modifiedMs });
    await target.write(it, 0, calm(), () => undefined);
    const [partial, name] = [join(dir, it.partialPath), join(dir, "a.bin")];
    await fs.link(partial, name);
    const done = again().commit(it, calm());
    // As sftp-server.c (process_rename) goes on, which was kept waiting between two calls.
    await new Promise((resolve) => setTimeout(resolve, 500));
    await fs.unlink(partial).catch(() => fs.unlink(name));
    assert.ok(isReceipt(await done));
    assert.equal(await fs.readFile(name, "utf8"), "the only copy");
    assert.deepEqual((await fs.readdir(dir)).sort(), ["a.bin"]);
  },
);
