/** A transfer in which no byte moves: also one that was let off once is watched on. */
import assert from "node:assert/strict";
import { promises as fs } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { until } from "../../test/conformance/clause.js";
import { startOwn } from "../../test/conformance/ftp-servers.js";
import { RawFtp } from "../../test/conformance/raw-ftp.js";
import { bytes } from "../../test/conformance/upload.js";

for (const spared of [false, true])
  test(`a client that goes silent is let go${spared ? ", also behind a moment in which this machine stood still" : ""}`, async (t) => {
    const root = await fs.mkdtemp(join(tmpdir(), "filesync-stall-"));
    const server = await startOwn({ root, limits: { stall: "300ms" }, users: { u: { password: "p" } } });
    t.after(async () => {
      await server.close();
      await fs.rm(root, { recursive: true });
    });
    const ftp = await RawFtp.login(server.port ?? 0, "u", "p");
    const data = await ftp.data();
    assert.match(await ftp.ask("STOR a.bin"), /^150/);
    data.write(bytes(2000));
    await until("the first bytes", async () => (await fs.stat(join(root, "u/a.bin"))).size === 2000);
    if (spared) {
      data.write(bytes(2000));
      for (const fromMs = performance.now(); performance.now() < fromMs + 600;);
      await until("the next bytes", async () => (await fs.stat(join(root, "u/a.bin"))).size === 4000);
    }
    const answered = await Promise.race([ftp.answer(), delay(5000, "nothing was said for 5 s, the limit is 300 ms", { ref: false })]);
    assert.match(answered, /^426 No byte/);
    ftp.close();
  });
