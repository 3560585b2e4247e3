/** Sending by rsync through the program as a person runs it: what comes out, what it says, what a second run does; and a route's rate and a target's budget. */
import assert from "node:assert/strict";
import { chownSync, mkdirSync, promises as fs, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { until } from "../conformance/clause.js";
import { rsyncOnly, rsyncShell } from "../conformance/rsync-servers.js";
import type { SftpServerKind } from "../conformance/sftp-servers.js";
import { Program, runProgram } from "../faults/process.js";
import { Random } from "../faults/random.js";
import { assertReceiptsTrue, assertSameTree, treeOf } from "../faults/trees.js";
import { World } from "../faults/world.js";

async function scene(t: TestContext, kind: SftpServerKind) {
  const server = await kind.start();
  t.after(() => server.stop());
  const world = new World(t);
  world.mkdir("in");
  const to = join(server.dir, "to");
  mkdirSync(to);
  const { uid, gid } = statSync(server.dir);
  chownSync(to, uid, gid);
  const nas = { type: "rsync", host: "127.0.0.1", port: server.port, root: `${server.seen}/to`, ...server.options };
  const configured = (device: object = {}, route: object = {}, source: object = {}) =>
    world.config({
      devices: { in: { type: "local", dir: "in", ...source }, nas: { ...nas, ...device } },
      routes: [{ from: "in", to: ["nas"], into: "", ...route }],
    });
  const once = (config: string) => runProgram(["run", "--once", "--json", "--config", config]);
  return { world, to, configured, once };
}

for (const kind of [rsyncShell, rsyncOnly]) {
  const skip = kind.skip ?? false;

  test(`${kind.name}: many files, a second run, one that grew, and another's that has the name`, { skip }, async (t) => {
    const { world, to, configured, once } = await scene(t, kind);
    const random = new Random(3);
    const count = kind === rsyncShell ? 60 : 8;
    for (let i = 0; i < count; i++) world.file(`in/d${i % 3}/f ${i}.bin`, random.bytes(random.between(0, 30_000)), i);
    world.file("in/large.ulg", random.bytes(9_500_000));
    world.file("in/taken.bin", "ours");
    // What begins so in a list of names is a remark to rsync.
    world.file("in/#1/;a.bin", "noted");
    world.file("in/;b.bin", "noted too");
    await fs.writeFile(join(to, "taken.bin"), "theirs");
    const config = configured();
    const first = await once(config);
    assert.equal(first.code, 0, first.out);
    assert.equal(readFileSync(join(to, "taken.bin"), "utf8"), "theirs");
    const other = (await fs.readdir(to)).find((name) => name.startsWith("taken~"));
    assert.equal(readFileSync(join(to, other ?? ""), "utf8"), "ours");
    await fs.rm(join(to, "taken.bin"));
    await fs.rename(join(to, other ?? ""), join(to, "taken.bin"));
    assertSameTree(treeOf(to), treeOf(world.path("in")), "the target");
    assert.equal(statSync(join(to, "large.ulg")).mtimeMs, statSync(world.path("in/large.ulg")).mtimeMs, "the time was not kept");
    const receipts = [...assertReceiptsTrue(world.path("state"), {}).values()];
    assert.equal(receipts.length, count + 4);
    const lines = readFileSync(world.path("state/receipts.jsonl"), "utf8")
      .split("\n")
      .filter((line) => line.includes('"proof"'));
    assert.ok(lines.length === count + 4 && lines.every((line) => line.includes('"proof":"digest"')));
    const second = await once(config);
    assert.ok(second.code === 0 && !second.out.includes('"what":"delivered"'), second.out);
    world.file("in/large.ulg", Buffer.concat([readFileSync(world.path("in/large.ulg")), random.bytes(100_000)]), 100);
    assert.equal((await once(config)).code, 0);
    assertSameTree(treeOf(to), treeOf(world.path("in")), "the target");
    // As where its disk is not mounted.
    await fs.rename(to, `${to}.away`);
    const { code, out } = await runProgram(["verify", "taken.bin", "--config", config]);
    const root = kind === rsyncShell ? to : "./to";
    assert.equal(code, 3);
    assert.match(out, /^1 delivery: 0 proved, 1 could not be looked at$/m);
    assert.ok(out.includes(`nothing is to be seen there: the root ${root} is not there; is its disk not mounted?`), out);
  });

  test(`${kind.name}: from the spool, with the time that the source says where a shell can set it`, { skip }, async (t) => {
    const { world, to, configured, once } = await scene(t, kind);
    world.file("in/log.ulg", new Random(4).bytes(700_000));
    const done = await once(configured({}, {}, { inPlace: false }));
    assert.equal(done.code, 0, done.out);
    assertSameTree(treeOf(to), treeOf(world.path("in")), "the target");
    if (kind === rsyncShell) assert.equal(statSync(join(to, "log.ulg")).mtimeMs, statSync(world.path("in/log.ulg")).mtimeMs);
  });
}

test("what has the longest name that there is can be verified", { skip: rsyncShell.skip ?? false }, async (t) => {
  const { world, configured, once } = await scene(t, rsyncShell);
  world.file(`in/${"n".repeat(251)}.bin`, "content");
  const config = configured();
  assert.equal((await once(config)).code, 0);
  const { code, out } = await runProgram(["verify", "--config", config]);
  assert.equal(code, 0, out);
  assert.match(out, /1 proved/);
});

test("a rate of the route slows it, and a budget is kept to what rsync tells", { skip: rsyncShell.skip ?? false }, async (t) => {
  const { world, to, configured } = await scene(t, rsyncShell);
  world.file("in/log.ulg", new Random(5).bytes(6_000_000));
  const config = configured({ budget: { day: "2MB", month: "1GB" }, concurrency: 1 }, { maxRate: "512KiB/s" });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await until(
    "the budget to be used up",
    async () => (await runProgram(["why", "log.ulg", "--config", config])).out.includes("budget"),
    60_000,
  );
  const part = (await fs.readdir(to)).find((name) => name.endsWith(".part")) ?? assert.fail("nothing was sent");
  const held = () => statSync(join(to, part)).size;
  // What was on its way is written there still.
  await until("what was told to be there", () => held() >= 1_900_000);
  // It tells once a second.
  assert.ok(held() < 4_500_000, `${held()} bytes are there`);
});

test("a budget counts small files that go together while they go", { skip: rsyncShell.skip ?? false }, async (t) => {
  const { world, to, configured, once } = await scene(t, rsyncShell);
  const random = new Random(6);
  for (let i = 0; i < 60; i++) world.file(`in/${i}.ulg`, random.bytes(100_000));
  const config = configured({ budget: { day: "1MB" } }, { maxRate: "512KiB/s" });
  const ran = await once(config);
  assert.equal(ran.code, 3, ran.out);
  const sent = (await fs.readdir(to)).reduce((sum, name) => sum + statSync(join(to, name)).size, 0);
  assert.ok(sent >= 900_000 && sent < 3_500_000, `${sent} bytes are there`);
});
