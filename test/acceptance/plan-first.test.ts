/** `plan` before anything ever ran: a person looks at what a mirror or two-way route would do before it may do it. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { runProgram } from "../faults/process.js";
import { treeOf } from "../faults/trees.js";
import { World } from "../faults/world.js";

const own = { type: "local", settle: "0s" };

for (const [mode, planned] of [
  [
    "mirror",
    /^ {2}deep: left as it is: this route did not bring it there: it stays there\n {2}x: bring it to nas, the old one to the trash there$/m,
  ],
  [
    "two-way",
    /^ {2}deep: make the directory at box {2}\[row 2: - \| - \| directory\]\n {2}x: keep both: the one at (box|nas) gets another name {2}\[row 5: /m,
  ],
] as const)
  test(`plan of a ${mode} route that never ran shows what a first run would do, and leaves nothing`, async (t) => {
    const world = new World(t);
    for (const dir of ["box", "nas", "nas/deep"]) world.mkdir(dir);
    writeFileSync(world.path("box/x"), "ours");
    writeFileSync(world.path("nas/x"), "theirs");
    const devices = { box: { ...own, dir: "box" }, nas: { ...own, dir: "nas" } };
    const config = world.config({ devices, routes: [{ mode, from: "box", to: ["nas"], into: "" }] });
    const scratch = () => readdirSync(world.mkdir("tmp"));
    const before = [treeOf(world.path("box")), treeOf(world.path("nas")), scratch()];
    const { code, out, err } = await runProgram(["plan", "--config", config], { env: { ...process.env, TMPDIR: world.path("tmp") } });
    assert.equal(code, 0, err);
    assert.match(out, planned);
    assert.match(err, /and none ever did: this is what a first run would find/);
    assert.deepEqual([treeOf(world.path("box")), treeOf(world.path("nas")), scratch()], before);
    assert.equal(existsSync(world.path("state")), false);
  });
