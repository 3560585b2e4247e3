/** A server's disk that is full, by rsync: "full" in both ways of working, what arrived stays, and it goes on when there is space. */
import assert from "node:assert/strict";
import { promises as fs } from "node:fs";
import { join } from "node:path";
import { calm, expectFault } from "./clause.js";
import { arrives, goOn, nearlyFull } from "./nearly-full.js";
import { rsyncDevice } from "./rsync-harness.js";
import { rsyncOnly, rsyncShell } from "./rsync-servers.js";
import { bytes, context, upload } from "./upload.js";

for (const kind of [rsyncShell, rsyncOnly]) {
  const content = bytes(5_000_000);
  let localPath = "";
  nearlyFull(
    kind,
    async (server) => {
      const local = await fs.mkdtemp(join(server.dir, "..", "local-"));
      localPath = join(local, "large");
      await fs.writeFile(localPath, content);
      return rsyncDevice(server.port, { root: `${server.seen}/small`, ...server.options }, context({ stateDir: join(local, "state") }));
    },
    async (disk) => {
      const { target } = disk;
      const large = { ...upload("large.bin", content), localPath };
      for (let i = 0; i < 2; i++) assert.match(await expectFault(goOn(target, large), "full"), /no space is left at the server/);
      const held = await target.offset(large, calm());
      assert.ok(held > 1_000_000, `${held} bytes were kept`);
      await disk.free();
      await arrives(disk, large, content);
    },
  );
}
