/** A directory that may not be written, at servers whose login is good elsewhere: how often the bytes of a file go out in vain. */
import assert from "node:assert/strict";
import { promises as fs } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { isFault } from "../../core/errors.js";
import { calm } from "./clause.js";
import { davDevice } from "./dav-harness.js";
import { target } from "./dav-scene.js";
import { apache, nginxWith } from "./dav-servers.js";
import { bytes, upload } from "./upload.js";

const size = 300_000;
const rule =
  "location /shut/ { dav_methods PUT DELETE MKCOL COPY MOVE; dav_ext_methods PROPFIND OPTIONS; limit_except GET PROPFIND OPTIONS { deny all; } }";

for (const { kind, by, answers, fault, opens, inVain } of [
  { kind: nginxWith("www-data"), by: "its rights", answers: /answers 500/, fault: "transient", opens: true, inVain: size },
  { kind: nginxWith("www-data", rule), by: "a rule", answers: /answers 403/, fault: "denied", opens: false, inVain: size },
  { kind: apache, by: "its rights", answers: /answers 500/, fault: "transient", opens: true, inVain: 0 },
] as const)
  test(
    `${kind.name}: where a directory may not be written by ${by}, a file is sent there once at most until it may; the others go on`,
    { skip: kind.skip ?? false },
    async (t) => {
      const server = await kind.start();
      t.after(() => server.stop());
      const shut = join(server.dir, "shut");
      await fs.mkdir(shut, { mode: 0o755 });
      const device = davDevice(server.url);
      t.after(() => device.close());
      let sent = 0;
      const put = async (path: string): Promise<string> => {
        const it = upload(path, bytes(size));
        try {
          await target(device).write(it, 0, calm(), (n) => (sent += n));
          await target(device).commit(it, calm());
          return "taken";
        } catch (error) {
          if (!isFault(error, fault) || !answers.test(error.message)) throw error;
          return fault;
        }
      };
      assert.equal(await put("open/a.bin"), "taken");
      sent = 0;
      assert.equal(await put("shut/0.bin"), fault);
      // A rule speaks before all of it has gone out.
      const once = sent;
      assert.ok(once <= inVain);
      for (let n = 0; n < 3; n++) assert.equal(await put(`shut/${n}.bin`), fault);
      assert.equal(sent, once);
      // The login is good, as core asks before it lets only that file wait.
      await device.probe(calm());
      assert.equal(await put("open/b.bin"), "taken");
      if (!opens) return;
      await fs.chmod(shut, 0o777);
      assert.equal(await put("shut/0.bin"), "taken");
      assert.equal((await fs.stat(join(shut, "0.bin"))).size, size);
    },
  );
