/** What is read is on its side's medium as it was read, also where it is written again in the moment in which that shows no difference; and a medium that hangs holds up nobody else. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
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

/** What happens to each sync of these files. `-D`: the program is the child that is killed. */
const injecting = (what: string, paths: readonly string[]) => [
  ...["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", ...paths.flatMap((path) => ["-P", path])],
  ...["-e", "trace=fsync", "-e", `inject=fsync:${what}`],
];
const [strace = "", ...words] = injecting("error=EIO", ["/"]);
const traced = spawnSync(strace, [...words, "true"]).status === 0 ? {} : { skip: "strace is missing, or may not trace here" };

for (const [mode, error, text] of [
  ["mirror", "EROFS", "the file system is read-only"],
  ["two-way", "EROFS", "the file system is read-only"],
  ["mirror", "EIO", "input/output error"],
  // Of a network's disk; of one that promised more room than it has.
  ["mirror", "ETIMEDOUT", "ETIMEDOUT: connection timed out, fsync"],
  ["two-way", "ENOSPC", "no space is left on the device"],
] as const)
  test(`${mode}: what a disk that fails does not sync (${error}) is brought, and stays when the disk has lost it`, traced, async (t) => {
    const world = new World(t);
    const [box, nas] = [world.mkdir("box"), world.mkdir("nas")];
    const file = join(box, "log.bin");
    writeFileSync(file, "a crash");
    const config = world.config({
      devices: { box: { type: "local", dir: "box", settle: "0s" }, nas: { type: "local", dir: "nas", settle: "0s" } },
      routes: [{ from: "box", to: ["nas"], mode, ...(mode === "mirror" ? { deletes: true } : {}) }],
    });
    const once = ["run", "--once", "--json", "--config", config];
    const { code, out } = await runProgram(once, { wrap: injecting(`error=${error}`, [file]) });
    assert.equal(code, 3, out);
    assert.match(out, /finished, but box . nas: 1 path could not be synced where it was read;/);
    assert.ok(out.includes(`box: cannot sync log.bin: ${text}`) && out.includes("it is brought all the same"), out);
    // A system tells of that once, and says yes to whoever is started anew and asks again.
    if (error !== "EROFS") assert.equal((await runProgram(once)).code, 3);
    assert.equal(readFileSync(join(nas, "log.bin"), "utf8"), "a crash");
    rmSync(file);
    const next = await runProgram(once);
    assert.match(next.out, /log\.bin: box could not sync it, and has lost it since: it stays at nas/);
    assert.equal(next.code, mode === "mirror" ? 3 : 0);
    assert.equal((await runProgram(once)).code, 0);
    assert.equal(readFileSync(join(nas, "log.bin"), "utf8"), "a crash");
    assert.equal(existsSync(file), mode === "two-way");
  });

test("files whose syncs hang leave other routes alone", traced, async (t) => {
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
  const program = new Program(["run", "--json", "--config", config], { wrap: injecting("delay_enter=120s", files) });
  await until("all wait for their syncs", () => all(nas).filter((path) => path.endsWith(".part")).length === files.length, 60_000);
  tracer = Number(/^TracerPid:\s+(\d+)/m.exec(readFileSync(`/proc/${program.pid}/status`, "utf8"))?.[1]);
  writeFileSync(join(a, "log.bin"), "another");
  await program.until(
    ({ what, message }) => what === "delivered" && message.startsWith("a:log.bin"),
    "it is delivered beside them",
    60_000,
  );
});
