/** What is read is on its side's medium as it was read, also where it is written again in the moment in which that shows no difference; and a medium that hangs holds up nobody else. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { until } from "../conformance/clause.js";
import { Program, runProgram } from "../faults/process.js";
import { World } from "../faults/world.js";
import { all } from "./replicas.js";

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

/** `-D`: the program is the child that is killed. */
const hanging = (paths: readonly string[]) => [
  ...["strace", "-D", "-f", "-qq", "-o", "/dev/null", ...paths.flatMap((path) => ["-P", path])],
  ...["-e", "trace=fsync", "-e", "inject=fsync:delay_enter=120s"],
];
const canHang = spawnSync(hanging(["/"])[0] ?? "", [...hanging(["/"]).slice(1), "true"]).status === 0;

test("files whose syncs hang leave other routes alone", canHang ? {} : { skip: "strace is missing, or may not trace here" }, async (t) => {
  let tracer = 0;
  // Before all else goes: it waits for its delays.
  t.after(() => tracer > 0 && process.kill(tracer, "SIGKILL"));
  const world = new World(t);
  const [box, nas, a] = [world.mkdir("box"), world.mkdir("nas"), world.mkdir("a"), world.mkdir("b")];
  const files = Array.from({ length: 12 }, (_, n) => join(box, `log${n}.bin`));
  for (const file of files) writeFileSync(file, file);
  const own = { settle: "0s", interval: "1s" };
  const config = world.config({
    devices: Object.fromEntries(["box", "nas", "a", "b"].map((dir) => [dir, { type: "local", dir, ...own }])),
    routes: [
      { from: "box", to: ["nas"], mode: "mirror" },
      { from: "a", to: ["b"] },
    ],
  });
  const program = new Program(["run", "--json", "--config", config], { wrap: hanging(files) });
  await until("all wait for their syncs", () => all(nas).filter((path) => path.endsWith(".part")).length === files.length, 60_000);
  tracer = Number(/^TracerPid:\s+(\d+)/m.exec(readFileSync(`/proc/${program.pid}/status`, "utf8"))?.[1]);
  writeFileSync(join(a, "log.bin"), "another");
  await program.until(
    ({ what, message }) => what === "delivered" && message.startsWith("a:log.bin"),
    "it is delivered beside them",
    60_000,
  );
});
