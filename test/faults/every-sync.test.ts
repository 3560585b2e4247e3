/**
 * Killed at every durable step: the program is killed (strace) as it enters its N-th sync, rename, link or unlink, for every N until a run gets to
 * its end; each time the next start has to make a whole and true world of what is left.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync, rmSync } from "node:fs";
import { test } from "node:test";
import { Program, runProgram } from "./process.js";
import { Random } from "./random.js";
import { assertReceiptsTrue, assertSameTree, treeOf } from "./trees.js";
import { World } from "./world.js";

const calls = "fsync,fdatasync,rename,link,unlink";
const strace = spawnSync("strace", ["-qq", "-e", `inject=${calls}:signal=KILL:when=1`, "-o", "/dev/null", "true"]).status === 0;

test("killed at every sync, rename, link and unlink", { skip: strace ? false : "strace is missing, or may not trace here" }, async (t) => {
  const random = new Random(12);
  const world = new World(t);
  for (let n = 0; n < 3; n++) world.file(`in/sub/f${n}`, random.bytes(n * 40_000), n);
  const source = treeOf(world.path("in"));
  const config = world.config({
    devices: { in: { type: "local", dir: "in", inPlace: false }, a: { type: "local", dir: "a" }, b: { type: "local", dir: "b" } },
    routes: [{ from: "in", to: ["a", "b"], into: "x" }],
  });
  let kills = 0;
  for (let n = 1; ; n++) {
    for (const dir of ["state", "a", "b"]) rmSync(world.path(dir), { recursive: true, force: true });
    world.mkdir("a");
    world.mkdir("b");
    const program = new Program(["run", "--once", "--json", "--config", config], {
      wrap: ["strace", "-f", "-qq", "-o", "/dev/null", "-e", `trace=${calls}`, "-e", `inject=${calls}:signal=KILL:when=${n}`],
      // One thread, so that the N-th call is the N-th of the program.
      env: { ...process.env, UV_THREADPOOL_SIZE: "1" },
    });
    const code = await program.exited;
    if (code === 0) break;
    kills += 1;
    const next = await runProgram(["run", "--once", "--json", "--config", config]);
    assert.equal(next.code, 0, `after a kill at call ${n}: ${next.out}${next.err}`);
    assertSameTree(treeOf(world.path("a/x")), source, `target a after a kill at call ${n}`);
    assertSameTree(treeOf(world.path("b/x")), source, `target b after a kill at call ${n}`);
    assert.equal(assertReceiptsTrue(world.path("state"), { a: world.path("a"), b: world.path("b") }).size, 6, `after a kill at call ${n}`);
    const left = readdirSync(world.path("state/spool")).filter((name) => !/^[0-9a-f]{16}(\.json)?$/.test(name));
    assert.deepEqual(left, [], `in the spool after a kill at call ${n}`);
    assert.ok(n < 500);
  }
  t.diagnostic(`${kills} kills`);
  assert.ok(kills > 20);
});
