/** Killed at every durable step (sync, rename, link, unlink) until a run gets to its end; each time the next start has to make a whole and true world of what is left. */
import assert from "node:assert/strict";
import { linkSync, readdirSync, rmSync } from "node:fs";
import { test } from "node:test";
import { killedAt, killedAtEach, skipKilledAt } from "./killed-at.js";
import { runProgram } from "./process.js";
import { Random } from "./random.js";
import { assertReceiptsTrue, assertSameTree, treeOf } from "./trees.js";
import { World } from "./world.js";

test("killed at every sync, rename, link and unlink", skipKilledAt, async (t) => {
  const random = new Random(12);
  const world = new World(t);
  for (let n = 0; n < 3; n++) world.file(`in/sub/f${n}`, random.bytes(n * 40_000), n);
  const source = treeOf(world.path("in"));
  const config = world.config({
    devices: { in: { type: "local", dir: "in", inPlace: false }, a: { type: "local", dir: "a" }, b: { type: "local", dir: "b" } },
    routes: [{ from: "in", to: ["a", "b"], into: "x" }],
  });
  const once = ["run", "--once", "--json", "--config", config];
  const before = () => {
    for (const dir of ["state", "a", "b"]) rmSync(world.path(dir), { recursive: true, force: true });
    world.mkdir("a");
    world.mkdir("b");
  };
  const kills = await killedAtEach(t, once, before, async (at, n) => {
    if (n === 0) return;
    const next = await runProgram(once);
    assert.equal(next.code, 0, `after ${at}: ${next.out}${next.err}`);
    assertSameTree(treeOf(world.path("a/x")), source, `target a after ${at}`);
    assertSameTree(treeOf(world.path("b/x")), source, `target b after ${at}`);
    assert.equal(assertReceiptsTrue(world.path("state"), { a: world.path("a"), b: world.path("b") }).size, 6, `after ${at}`);
    const left = readdirSync(world.path("state/spool")).filter((name) => !/^[0-9a-f]{16}(\.json)?$/.test(name));
    assert.deepEqual(left, [], `in the spool after ${at}`);
  });
  t.diagnostic(JSON.stringify(kills));
  const counts = Object.values(kills);
  assert.ok(counts.reduce((sum, count) => sum + count) > 20 && counts.every((count) => count > 0));
});

test(
  "killed between the link and the removal that give a file its name, and the source has gone since: it keeps all of its bytes",
  skipKilledAt,
  async (t) => {
    const world = new World(t);
    world.file("in/a", new Random(13).bytes(3_000_000), 1);
    const source = treeOf(world.path("in"));
    world.mkdir("out");
    const config = world.config({
      devices: { in: { type: "local", dir: "in" }, out: { type: "local", dir: "out" } },
      routes: [{ from: "in", to: ["out"], into: "" }],
    });
    const once = ["run", "--once", "--json", "--config", config];
    assert.ok(await killedAt(once, "link", 1));
    const parts = readdirSync(world.path("out"));
    assert.equal(parts.length, 1);
    linkSync(world.path("out", parts[0] ?? ""), world.path("out/a"));
    rmSync(world.path("in/a"));
    const next = await runProgram(once);
    assert.equal(next.code, 0, next.out + next.err);
    assertSameTree(treeOf(world.path("out")), source, "the target");
    assert.equal(assertReceiptsTrue(world.path("state"), { out: world.path("out") }).size, 1);
  },
);
