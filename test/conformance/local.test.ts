/** The plugin "local" held to the contract, on the file system of this machine. */
import { promises as fs } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bytesFromName } from "../../core/names.js";
import { syncedKey } from "../../plugins/local/marks.js";
import { plugin } from "../../plugins/local/plugin.js";
import { files, filesBelow } from "./ftp-harness.js";
import { sourceClauses, type SourceUnderTest } from "./source.js";
import { targetClauses, type TargetUnderTest } from "./target.js";
import { context } from "./upload.js";

async function make(): Promise<TargetUnderTest & SourceUnderTest> {
  const base = await fs.mkdtemp(join(tmpdir(), "filesync-local-"));
  const dir = join(base, "root");
  await fs.mkdir(dir);
  const device = plugin.device?.({ dir, inPlace: true, create: false }, context());
  if (device === undefined) throw new Error("the plugin makes no device");
  return {
    device,
    ...files(dir, bytesFromName),
    vouch: (upload, bytes) => upload.memo.set(syncedKey, bytes),
    secrets: [],
    outside: async () => (await filesBelow(base)).filter((path) => !path.startsWith("root/")),
    close: async () => {
      await device.close();
      await fs.rm(base, { recursive: true });
    },
  };
}

targetClauses({ name: "target: local", make });
sourceClauses({ name: "source: local", make });
