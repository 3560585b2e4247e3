/** The plugin "mavftp" held to the contract as a target, on each simulated autopilot that can be written to. */
import assert from "node:assert/strict";
import { promises as fs } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as v from "valibot";
import { bytesFromName } from "../../core/names.js";
import { plugin } from "../../plugins/mavftp/plugin.js";
import { autopilots } from "../../sim/autopilots.js";
import { startSim } from "../../sim/sim.js";
import { until } from "./clause.js";
import { files, notOn } from "./files.js";
import { targetClauses, type TargetUnderTest } from "./target.js";
import { context } from "./upload.js";

const long = "the name is longer than a listing of MAVLink FTP has room for";

/** A vehicle whose card is a directory of its own; the device's root is where every autopilot can be written. */
async function make(autopilot: string): Promise<TargetUnderTest> {
  const base = await fs.mkdtemp(join(tmpdir(), "filesync-mavftp-"));
  const dir = join(base, "fs", "microsd");
  await fs.mkdir(dir, { recursive: true });
  const sim = await startSim({ listen: "tcpin://127.0.0.1:0", link: "none", dir: base, autopilot });
  const options = v.parse(plugin.options, { url: sim.clientUrl, root: "/fs/microsd", write: true });
  const device = plugin.device?.(options, context()) ?? assert.fail("the plugin makes no device");
  let attached = false;
  device.presence$.subscribe(({ state }) => (attached = state === "attached"));
  await until("the autopilot to be heard", () => attached);
  const { read, put, remove, list, size } = files(dir, bytesFromName);
  return {
    device,
    ...{ read, put, remove, list, size },
    refuses: { [`${"n".repeat(251)}.bin`]: long, ...(autopilot === "mavsdk" ? {} : notOn("FAT")) },
    secrets: [],
    outside: async () => (await fs.readdir(base)).filter((name) => name !== "fs"),
    close: async () => {
      await device.close();
      await sim.close();
      await fs.rm(base, { recursive: true });
    },
  };
}

for (const { name } of autopilots) targetClauses({ name: `target: mavftp on ${name}`, make: () => make(name) });
