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

test("a name that several routes have is answered with these, one that none has with all", async (t) => {
  const world = new World(t);
  const names = ["box", "nas", "other", "far"];
  for (const dir of names) world.mkdir(dir);
  const config = world.config({
    devices: Object.fromEntries(names.map((dir) => [dir, { ...own, dir }])),
    routes: ["nas:a", "nas:b", "other:c"].map((to) => {
      const [device = "", into] = to.split(":");
      return { mode: "mirror", from: device === "nas" ? "box" : "far", to: [device], into };
    }),
  });
  const plan = async (what: string) => {
    const { code, err } = await runProgram(["plan", what, "--config", config]);
    return [code, err.trim().split("\n").at(-1)];
  };
  assert.deepEqual(await plan("box"), [2, 'filesync: "box" is of several routes, name one: box:nas/a, box:nas/b']);
  assert.deepEqual(await plan("fox"), [2, 'filesync: there is no such route "fox"; there are: box:nas/a, box:nas/b, far:other/c']);
});
