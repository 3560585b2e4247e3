/** The plugin "ftp-server" held to the contract as a source: its root is changed from outside, as other programs would. */
import { promises as fs } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bytesFromName } from "../../core/names.js";
import { files } from "./files.js";
import { startOwn } from "./ftp-servers.js";
import { sourceClauses } from "./source.js";

sourceClauses({
  name: "source: ftp-server",
  make: async () => {
    const dir = await fs.mkdtemp(join(tmpdir(), "filesync-inbox-"));
    // The user's root is the server's own: no directory of a user is in the way of an empty root.
    const device = await startOwn({ root: dir, users: { tester: { password: "p", root: "." } } });
    return {
      device,
      ...files(dir, (path) => bytesFromName(path)),
      promises: { exclusive: "names", rmdirIsSafe: true },
      close: async () => {
        await device.close();
        await fs.rm(dir, { recursive: true });
      },
    };
  },
});
