/** A directory at Apache that another client has locked (RFC 4918 §6): what is written there waits, and nothing else does. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { calm, expectFault } from "./clause.js";
import { davDevice } from "./dav-harness.js";
import { target } from "./dav-scene.js";
import { apache, password, user } from "./dav-servers.js";
import { bytes, upload } from "./upload.js";

const lockinfo =
  '<?xml version="1.0"?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockinfo>';

test(
  "a lock of another client on a directory is no portal: what belongs there is tried again, what does not goes",
  { skip: apache.skip ?? false },
  async (t) => {
    const server = await apache.start();
    t.after(() => server.stop());
    const ask = (method: string, path: string, headers: Record<string, string> = {}, body?: string) =>
      fetch(`${server.url}${path}`, {
        method,
        headers: { authorization: `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`, ...headers },
        ...(body === undefined ? {} : { body }),
      });
    assert.equal((await ask("MKCOL", "/theirs/")).status, 201);
    const lock = await ask("LOCK", "/theirs/", { depth: "infinity", timeout: "Second-600" }, lockinfo);
    assert.equal(lock.status, 200);
    const device = davDevice(server.url, { user, password });
    t.after(() => device.close());
    const content = bytes(100_000);
    const put = async (path: string) => {
      const it = upload(path, content);
      await target(device).write(it, 0, calm(), () => undefined);
      await target(device).commit(it, calm());
    };
    assert.match(await expectFault(put("theirs/a.bin"), "transient"), /answers 423 \(.*somebody has locked it$/);
    // Its parent is locked, it is not.
    assert.match(await expectFault(put("theirs/below/a.bin"), "transient"), /answers 423 \(.*somebody has locked it$/);
    await put("ours/a.bin");
    assert.equal((await ask("UNLOCK", "/theirs/", { "lock-token": lock.headers.get("lock-token") ?? "" })).status, 204);
    await put("theirs/a.bin");
    assert.ok(existsSync(join(server.dir, "theirs/a.bin")));
  },
);
