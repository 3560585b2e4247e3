/**
 * A mirror that is killed (strace) as it enters its N-th link, then unlink, rename or sync, for every N until a run gets to its end; and what it was about to bring, replace and move has gone or has
 * another name when it starts again. Nothing may stay there of which nobody knows any more: a kill leaves files under two names.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { all, treeOf } from "../sync/replicas.js";
import { once } from "../sync/shared.js";
import { Program } from "./process.js";
import { World } from "./world.js";

// strace counts each by itself.
const calls = ["link", "unlink", "rename", "fdatasync", "fsync"];
const strace = spawnSync("strace", ["-qq", "-e", "inject=link:signal=KILL:when=1", "-o", "/dev/null", "true"]).status === 0;
const skip = strace ? false : "strace is missing, or may not trace here";

test("a mirror killed at every step, and edited before it starts again", { skip }, async (t) => {
  const world = new World(t);
  const own = { settle: "0s" };
  const config = world.config({
    devices: { box: { type: "local", dir: "box", ...own }, nas: { type: "local", dir: "nas", ...own } },
    routes: [{ from: "box", to: ["nas"], mode: "mirror", into: "", deletes: true, maxDeletes: 100 }],
  });
  world.mkdir("nas");
  for (const name of ["replaced", "moved"]) world.file(`box/${name}`, `first ${name}`, 1);
  await once(config);
  writeFileSync(world.path("box/replaced"), "second, longer");
  renameSync(world.path("box/moved"), world.path("box/moved-1"));
  writeFileSync(world.path("box/new"), "new");
  const dirs = ["state", "box", "nas"];
  const copy = (from: string, to: string) => {
    for (const dir of dirs) cpSync(world.path(`${from}${dir}`), world.path(`${to}${dir}`), { recursive: true, preserveTimestamps: true });
  };
  const litter = () => all(world.path("nas")).filter((path) => path.endsWith(".part") || /^\.filesync\/away\/[^/]+\/./.test(path));
  copy("", "image/");
  let [kills, twice] = [0, 0];
  /** false: it came to its end. */
  const killedAt = async (call: string, n: number): Promise<boolean> => {
    const program = new Program(["run", "--once", "--json", "--config", config], {
      wrap: ["strace", "-f", "-qq", "-o", "/dev/null", "-e", `trace=${call}`, "-e", `inject=${call}:signal=KILL:when=${n}`],
      // One thread, so that the N-th call is the N-th of the program.
      env: { ...process.env, UV_THREADPOOL_SIZE: "1" },
    });
    const killed = (await program.exited) !== 0;
    if (killed) {
      kills += 1;
      if (existsSync(world.path("nas/new")) && litter().length > 0) twice += 1;
      rmSync(world.path("box/replaced"));
      renameSync(world.path("box/moved-1"), world.path("box/moved-2"));
      renameSync(world.path("box/new"), world.path("box/new-1"));
      await once(config);
      assert.deepEqual(treeOf(world.path("nas")), treeOf(world.path("box")), `after a kill at ${call} ${n}`);
      assert.deepEqual(litter(), [], `after a kill at ${call} ${n}`);
    }
    for (const dir of dirs) rmSync(world.path(dir), { recursive: true });
    copy("image/", "");
    return killed;
  };
  for (const call of calls) for (let n = 1; await killedAt(call, n); n++) assert.ok(n < 100);
  t.diagnostic(`${kills} kills, ${twice} of them with files under two names`);
  assert.ok(kills > 20 && twice > 0);
});
