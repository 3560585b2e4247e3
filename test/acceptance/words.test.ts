/** Words of a command line as they are typed, and output that nobody reads to its end, or that has nowhere to go. */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, openSync, readFileSync, statSync } from "node:fs";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { mainJs, Program, runProgram } from "../faults/process.js";
import { World } from "../faults/world.js";

const box = (dir: string, more = {}) => ({ devices: { box: { type: "local", dir, ...more } }, routes: [] });

test("a word that looks like a number or an option is taken as it was typed", async (t) => {
  const world = new World(t);
  world.mkdir("box");
  world.file("007", JSON.stringify({ stateDir: world.path("state"), ...box(world.path("box")) }));
  world.file("-dash", "content");
  const cwd = world.path("");
  const run = (...args: string[]) => runProgram(args, { cwd });
  const put = async (...args: string[]) => assert.deepEqual((await run("put", "--config", "007", ...args)).code, 0);
  await put("--force", "007", "box:00000001");
  await put("--json", "007", "box:true");
  await put("--", "-dash", "box:");
  const listed = await run("ls", "--config=007", "box:");
  assert.deepEqual(
    listed.out.split("\n").map((line) => line.split(" ").at(-1)),
    ["-dash", "00000001", "true"],
  );
  assert.match((await run("ls", "--config", "007", "--json", "0123")).err, /expected DEVICE:PATH, got "0123"/);
  assert.match((await run("ls", "--config", "007", "--json", "false")).err, /expected DEVICE:PATH, got "false"/);
  const dash = await run("get", "--config", "007", "box:true", "-");
  assert.deepEqual(
    [dash.code, dash.err],
    [2, 'filesync: - is no option; a name that begins with "-" goes behind "--": filesync get -- -\n'],
  );
  assert.match((await run("status", "--config", "")).err, /--config needs a value/);
});

test("a file that is copied by hand arrives, though nobody reads how far it is", async (t) => {
  const world = new World(t);
  world.file("box/a.bin", Buffer.alloc(3_000_000, 7));
  const config = world.config(box("box", { maxRate: "1MiB/s" }));
  const local = world.path("a.bin");
  const child = spawn(process.execPath, [mainJs, "get", "--json", "box:a.bin", local, "--config", config], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  child.stdout.destroy();
  child.stderr.destroy();
  assert.deepEqual(await once(child, "exit"), [0, null]);
  assert.ok(existsSync(local), "0 says that it is done");
  assert.equal(statSync(local).size, 3_000_000);
  assert.equal(readFileSync(local)[2_999_999], 7);
});

test("with its words going to a full disk, what does something goes on, and what only tells says so", async (t) => {
  const world = new World(t);
  world.file("a/1.bin", "one");
  world.mkdir("b");
  const devices = { a: { type: "local", dir: "a", settle: "0s", interval: "1s" }, b: { type: "local", dir: "b" } };
  const config = world.config({ devices, routes: [{ from: "a", to: ["b"], into: "" }] });
  const full = openSync("/dev/full", "w");
  t.after(() => closeSync(full));
  const daemon = spawn(process.execPath, [mainJs, "run", "--config", config], { stdio: ["ignore", full, full] });
  const ended = once(daemon, "exit");
  t.after(() => daemon.kill("SIGKILL"));
  const arrives = async (name: string) => {
    for (const endMs = Date.now() + 30_000; Date.now() < endMs && !existsSync(world.path(name));) await sleep(50);
    assert.ok(existsSync(world.path(name)), name);
  };
  await arrives("b/1.bin");
  world.file("a/2.bin", "two");
  await arrives("b/2.bin");
  daemon.kill("SIGTERM");
  assert.deepEqual(await ended, [0, null]);
  const status = spawnSync(process.execPath, [mainJs, "status", "--config", config], { stdio: ["ignore", full, "pipe"], encoding: "utf8" });
  assert.equal(status.stderr, "filesync: what it says cannot be written: no space is left on the device\n");
  assert.equal(status.status, 2);
});

for (const [signal, code] of [
  ["SIGINT", 130],
  ["SIGTERM", 0],
] as const)
  test(`a daemon that is stopped by ${signal} says so by its exit code: ${code}`, async (t) => {
    const config = new World(t).config({ devices: { a: { type: "local", dir: "a" } } });
    const program = new Program(["run", "--json", "--config", config]);
    await program.until(({ what }) => what === "ready", "ready");
    program.signal(signal);
    assert.equal(await program.exited, code);
    assert.ok(program.events.some(({ what }) => what === "stopped"));
  });

test("run --once that is stopped by Ctrl-C did not do all, and says so by its exit code", async (t) => {
  const world = new World(t);
  world.file("a/1.bin", Buffer.alloc(1_000_000));
  world.mkdir("b");
  const devices = { a: { type: "local", dir: "a", settle: "0s" }, b: { type: "local", dir: "b", maxRate: "10kB/s" } };
  const config = world.config({ devices, routes: [{ from: "a", to: ["b"], into: "" }] });
  const program = new Program(["run", "--once", "--json", "--config", config]);
  await program.until(({ what }) => what === "ready", "ready");
  program.signal("SIGINT");
  assert.equal(await program.exited, 130);
});
