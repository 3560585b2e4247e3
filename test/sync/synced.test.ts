/** What is read is on its side's medium as it was read, also where it is written again in the moment in which that shows no difference. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { runProgram } from "../faults/process.js";
import { World } from "../faults/world.js";

const dist = (path: string) => JSON.stringify(fileURLToPath(new URL(`../../${path}`, import.meta.url)));

/** `local`, whose file was written right before it is listed, and once more right before it is read; what a sync finds is told at `synced`. */
const pluginText = (file: string, synced: string) => `
import { readFileSync, utimesSync, writeFileSync } from "node:fs";
import { plugin as local } from ${dist("plugins/local/plugin.js")};
const file = ${JSON.stringify(file)};
export const plugin = {
  ...local,
  type: "written",
  device: (given, context) => {
    const device = local.device(given, context);
    const { source, tree } = device;
    const [list, read, sync] = [source.list.bind(source), source.readInPlace.bind(source), tree.sync.bind(tree)];
    let at;
    source.list = (...how) => {
      at ??= Math.floor(Date.now() / 1000);
      utimesSync(file, at, at);
      return list(...how);
    };
    source.readInPlace = (entry, ...how) => {
      if (entry.path === "log.bin") writeFileSync(file, "second", { flag: "r+" });
      utimesSync(file, at, at);
      return read(entry, ...how);
    };
    tree.sync = async (path, ...how) => {
      if (path === "log.bin") writeFileSync(${JSON.stringify(synced)}, readFileSync(file));
      return sync(path, ...how);
    };
    return device;
  },
};
export default plugin;
`;

for (const mode of ["mirror", "two-way"])
  test(mode, async (t) => {
    const world = new World(t);
    const [file, copy, synced] = [join(world.mkdir("box"), "log.bin"), join(world.mkdir("nas"), "log.bin"), world.path("synced")];
    writeFileSync(file, "first.");
    writeFileSync(world.path("written.mjs"), pluginText(file, synced));
    const config = world.config({
      devices: { box: { type: "./written.mjs", dir: "box", settle: "0s" }, nas: { type: "local", dir: "nas" } },
      routes: [{ from: "box", to: ["nas"], mode }],
    });
    const { code, err } = await runProgram(["run", "--once", "--config", config]);
    assert.equal(code, 0, err);
    assert.deepEqual([readFileSync(copy, "utf8"), readFileSync(synced, "utf8")], ["second", "second"]);
  });
