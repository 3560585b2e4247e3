/** What a server digests of a large file while it still syncs and closes that: where it is not what is there in the end. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test, type TestContext } from "node:test";
import { calm, expectFault } from "./clause.js";
import { sftpDevice } from "./sftp-harness.js";
import { scripted, STATUS_CODE, type Bent } from "./sftp-scripted.js";
import { isReceipt } from "./target-under-test.js";
import { bytes, context, realClock, upload } from "./upload.js";

const nothing = (): void => undefined;
const size = 9 * 2 ** 20;
const nowhere = "/dev/null";

/** A server that digests what `seen` says that its programs see of a file. */
async function under(t: TestContext, seen: (path: string, files: ReadonlyMap<string, Buffer>) => Buffer | undefined, bent: Bent) {
  const asked: string[] = [];
  const server = await scripted({
    ...bent,
    shell: (channel) => {
      let text = "";
      channel.on("data", (chunk: Buffer) => {
        text += chunk.toString();
        const lines = text.split("\n");
        text = lines.pop() ?? "";
        for (const name of lines.filter((line) => line !== "")) {
          const content = name === nowhere ? Buffer.alloc(0) : seen(name, server.files);
          if (name !== nowhere) asked.push(name);
          channel.write(content === undefined ? "-\n" : `${createHash("sha256").update(content).digest("hex")}  ${name}\n`);
        }
      });
    },
  });
  const options = { user: "u", password: "p", root: "/", hostKey: server.hostKey, timeout: "20s" };
  const device = sftpDevice(server.port, options, context({ clock: realClock() }));
  t.after(async () => {
    await device.close().finally(() => server.close());
  });
  return { server, asked, target: device.target ?? assert.fail() };
}

test("a large file is digested before it is closed; a server whose programs see only what was closed is asked once more", async (t) => {
  const closed = new Set<string>();
  let before = NaN;
  const { target, asked } = await under(t, (name, files) => (closed.has(name) ? files.get(name) : Buffer.alloc(0)), {
    close: (sftp, id, path) => {
      // As one that syncs for a while.
      const look = setInterval(() => {
        if (asked.length === 0) return;
        clearInterval(look);
        before = asked.length;
        closed.add(path);
        sftp.status(id, STATUS_CODE.OK);
      }, 10).unref();
      return true;
    },
  });
  const it = upload("a.bin", bytes(size));
  await target.write(it, 0, calm(), nothing);
  assert.equal(before, 1);
  const receipt = await target.commit(it, calm());
  assert.ok(isReceipt(receipt) && receipt.proof === "digest");
  assert.equal(asked.length, 2);
});

test("what was digested of a write that failed at its end is no proof of what is there later", async (t) => {
  let fails = true;
  const { server, target, asked } = await under(t, (name, files) => files.get(name), {
    // As a quota of a network file system does it: what was written is not kept.
    close: (sftp, id, path) => {
      if (!fails) return false;
      fails = false;
      const look = setInterval(() => {
        if (asked.length === 0) return;
        clearInterval(look);
        server.files.set(path, Buffer.alloc(size));
        sftp.status(id, STATUS_CODE.FAILURE);
      }, 10).unref();
      return true;
    },
  });
  const it = upload("a.bin", bytes(size));
  await assert.rejects(target.write(it, 0, calm(), nothing));
  assert.equal(await target.offset(it, calm()), size);
  await expectFault(target.commit(it, calm()), "mismatch");
  assert.equal(server.files.has("/a.bin"), false);
});
