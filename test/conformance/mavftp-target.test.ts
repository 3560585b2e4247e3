/** The plugin "mavftp" held to the contract as a target and a tree, on each simulated autopilot that can be written to. */
import assert from "node:assert/strict";
import { promises as fs } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as v from "valibot";
import { bytesFromName } from "../../core/names.js";
import type { TreePromises } from "../../core/plugin.js";
import { plugin } from "../../plugins/mavftp/plugin.js";
import { autopilots } from "../../sim/autopilots.js";
import { startSim } from "../../sim/sim.js";
import { register, until } from "./clause.js";
import { files, notOn } from "./files.js";
import type { SourceUnderTest } from "./source-under-test.js";
import { targetClauses } from "./target.js";
import type { TargetUnderTest } from "./target-under-test.js";
import { treeClauses } from "./tree.js";
import { context } from "./upload.js";

const long = "the name is longer than a listing of MAVLink FTP has room for";

const onPx4: TreePromises = { exclusive: "directories", rmdirIsSafe: true };
const onArdupilot: TreePromises = { exclusive: "names", rmdirIsSafe: true };
const promises: Readonly<Record<string, TreePromises>> = {
  px4: onPx4,
  "px4-1.18": onPx4,
  "ardupilot-4.6": onArdupilot,
  "ardupilot-4.7": onArdupilot,
  "ardupilot-4.8": onArdupilot,
  mavsdk: onPx4,
};

/** A vehicle whose card is a directory of its own; the device's root is where every autopilot can be written. */
async function make(autopilot: string): Promise<TargetUnderTest & SourceUnderTest> {
  const base = await fs.mkdtemp(join(tmpdir(), "filesync-mavftp-"));
  const dir = join(base, "fs", "microsd");
  await fs.mkdir(dir, { recursive: true });
  const sim = await startSim({ listen: "tcpin://127.0.0.1:0", link: "none", dir: base, autopilot });
  const options = v.parse(plugin.options, { url: sim.clientUrl, root: "/fs/microsd", write: true });
  const device = plugin.device?.(options, context()) ?? assert.fail("the plugin makes no device");
  let attached = false;
  device.presence$.subscribe(({ state }) => (attached = state === "attached"));
  await until("the autopilot to be heard", () => attached);
  const { read, put, append, remove, list, size } = files(dir, bytesFromName);
  return {
    device,
    ...{ read, put, append, remove, list, size },
    promises: promises[autopilot] ?? assert.fail(`it is not said what ${autopilot} promises`),
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

for (const { name } of autopilots) {
  targetClauses({ name: `target: mavftp on ${name}`, make: () => make(name) });
  register(treeClauses, { name: `mavftp on ${name}`, make: () => make(name) });
}
