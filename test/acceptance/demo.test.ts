/** `demo` as who has just installed it types it. */
import assert from "node:assert/strict";
import { statSync } from "node:fs";
import { test } from "node:test";
import { runProgram } from "../faults/process.js";
import { World } from "../faults/world.js";

test("demo --dir makes the directory where it is missing, with those above it; where a file is in the way that is told", async (t) => {
  const world = new World(t);
  const demo = (dir: string) => runProgram(["demo", "--once", "--dir", dir], { cwd: world.dir });
  const { code, out, err } = await demo("my/own/logs");
  assert.equal(code, 0, err);
  assert.ok(statSync(world.path("my/own/logs")).isDirectory());
  assert.ok(out.includes(`${world.path("my/own/logs")} was made, and is empty: copy logs into it`), out);
  const again = await demo("my/own/logs");
  assert.equal(again.code, 0, again.err);
  assert.doesNotMatch(again.out, /was made/);
  world.file("file", "");
  for (const dir of ["file", "file/logs"]) {
    const blocked = await demo(dir);
    assert.deepEqual([blocked.code, blocked.err], [2, `filesync: ${world.path(dir)} is not a directory, and none can be made there\n`]);
  }
});
