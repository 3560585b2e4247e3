/** A file that the spool can never hold goes straight through. Continued after a kill nobody here has seen all of it: no receipt may claim more. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, renameSync } from "node:fs";
import { test } from "node:test";
import { Program, runProgram } from "./process.js";
import { Random } from "./random.js";
import { assertReceiptsTrue, assertSameTree, treeOf } from "./trees.js";
import { World } from "./world.js";

test("straight through, killed and continued: proved by its size alone, so the source keeps it", async (t) => {
  const world = new World(t);
  world.mkdir("out");
  world.file("card/large.BIN", new Random(8).bytes(12_000_000));
  const config = world.config({
    spool: { maxSize: "1MiB", keepFree: "1MiB" },
    devices: { card: { type: "local", dir: "card", inPlace: false, maxRate: "4MiB/s" }, out: { type: "local", dir: "out" } },
    routes: [{ from: "card", to: ["out"], into: "", afterDelivery: "delete" }],
  });
  const program = new Program(["run", "--json", "--config", config]);
  await world.partialOf(6_000_000);
  await program.kill();
  const rest = await runProgram(["run", "--once", "--json", "--config", config]);
  assert.match(rest.out, /goes on at byte [1-9]\d*/);
  assertSameTree(treeOf(world.path("out")), new Map([...treeOf(world.path("card"))]), "the target");
  const [receipt, ...others] = [...assertReceiptsTrue(world.path("state"), { out: world.path("out") }).values()];
  assert.equal(others.length, 0);
  assert.deepEqual(
    { digest: receipt?.digest, proof: (receipt as { proof?: string } | undefined)?.proof },
    { digest: undefined, proof: "size" },
  );
  assert.ok(existsSync(world.path("card/large.BIN")), "it was deleted on the word of a target that had nothing to compare with");
});

test("straight through, and its source is away for a while: it goes on past the spool, which could never hold it", async (t) => {
  const world = new World(t);
  world.mkdir("out");
  world.file("card/large.BIN", new Random(9).bytes(12_000_000));
  const config = world.config({
    spool: { maxSize: "1MiB", keepFree: "1MiB" },
    devices: {
      card: { type: "local", dir: "card", inPlace: false, maxRate: "4MiB/s", interval: "1s" },
      out: { type: "local", dir: "out" },
    },
    routes: [{ from: "card", to: ["out"], into: "" }],
  });
  const first = new Program(["run", "--json", "--config", config]);
  await world.partialOf(4_000_000);
  await first.kill();
  renameSync(world.path("card"), world.path("away"));
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what, message }) => what === "detached" && message.startsWith("card"), "the card to be missed");
  renameSync(world.path("away"), world.path("card"));
  await program.until(({ what }) => what === "delivered", "the delivery");
  assert.ok(!program.events.some(({ what }) => what === "pulled"), "it was pulled into the spool");
  assert.deepEqual(readdirSync(world.path("state/spool")), []);
  assertSameTree(treeOf(world.path("out")), treeOf(world.path("card")), "the target");
});

test("straight through, killed and continued, and another file has its name: both are there", async (t) => {
  const world = new World(t);
  world.mkdir("out");
  world.file("card/large.BIN", new Random(10).bytes(12_000_000));
  const config = world.config({
    spool: { maxSize: "1MiB", keepFree: "1MiB" },
    devices: { card: { type: "local", dir: "card", inPlace: false, maxRate: "4MiB/s" }, out: { type: "local", dir: "out" } },
    routes: [{ from: "card", to: ["out"], into: "" }],
  });
  const program = new Program(["run", "--json", "--config", config]);
  await world.partialOf(6_000_000);
  await program.kill();
  world.file("out/large.BIN", "somebody else's");
  const rest = await runProgram(["run", "--once", "--json", "--config", config]);
  assert.equal(rest.code, 0, rest.out);
  const [content = ""] = treeOf(world.path("card")).values();
  const out = treeOf(world.path("out"));
  assert.deepEqual([...out.keys()].sort(), ["large.BIN", `large~${content.split(" ")[1]?.slice(0, 8)}.BIN`]);
  assert.ok([...out.values()].includes(content));
  assert.equal(out.get("large.BIN")?.split(" ")[0], "15");
  assertReceiptsTrue(world.path("state"), { out: world.path("out") });
});
