/** What was damaged in the spool may be all that there is: it is kept until it is whole here again, and told. */
import assert from "node:assert/strict";
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { test, type TestContext } from "node:test";
import { openDatabase } from "../../core/sqlite.js";
import { until } from "../conformance/clause.js";
import { Program, runProgram } from "../faults/process.js";
import { Random } from "../faults/random.js";
import { World } from "../faults/world.js";

const size = 300_000;

/** One file that is whole in the spool, as its target is away. */
async function spooled(t: TestContext) {
  const world = new World(t);
  const content = new Random(1).bytes(size);
  world.file("in/log", content);
  const config = world.config({
    devices: { in: { type: "local", dir: "in", inPlace: false }, out: { type: "local", dir: "out" } },
    routes: [{ from: "in", to: ["out"], into: "" }],
  });
  const once = () => runProgram(["run", "--once", "--json", "--config", config]);
  assert.match((await once()).out, /in:log: whole here/);
  const [id = ""] = readdirSync(world.path("state/spool")).filter((name) => !name.endsWith(".json"));
  const at = world.path(`state/damaged/${id}`);
  const kept = () => readdirSync(world.path("state/damaged")).map((name) => readFileSync(world.path(`state/damaged/${name}`)));
  const why = async () => (await runProgram(["why", "in:log", "--config", config])).out;
  return { world, content, once, why, kept, at, copy: world.path(`state/spool/${id}`) };
}

test("a copy that lost its end is kept while its source is away, and goes once it is whole here again", async (t) => {
  const { world, content, once, kept, at, copy } = await spooled(t);
  truncateSync(copy, size - 1);
  renameSync(world.path("in"), world.path("pulled"));
  const { out } = await once();
  assert.ok(out.includes(`in:log: what was here of it is kept as ${at}, until it is whole here again`), out);
  assert.deepEqual(kept(), [content.subarray(0, size - 1)]);
  renameSync(world.path("pulled"), world.path("in"));
  world.mkdir("out");
  const back = await once();
  assert.equal(back.code, 0, back.out);
  assert.deepEqual([readFileSync(world.path("out/log")), kept()], [content, []]);
});

for (const damage of ["its end is lost", "bytes are others"])
  test(`a copy that is damaged is kept where its source has the file no more: ${damage}`, async (t) => {
    const { world, content, once, why, kept, at, copy } = await spooled(t);
    const damaged = damage === "its end is lost" ? content.subarray(0, size - 1) : Buffer.from(content).fill(0, 1000, 1010);
    writeFileSync(copy, damaged);
    rmSync(world.path("in/log"));
    world.mkdir("out");
    const { out } = await once();
    await once();
    assert.ok(out.includes(`kept as ${at}`), out);
    assert.deepEqual([kept(), readdirSync(world.path("out"))], [[damaged], []]);
    const text = await why();
    assert.ok(text.includes(`what was here of it is kept as ${at}`), text);
  });

test("power goes while a copy is given up: it is kept", async (t) => {
  const { world, content, once, kept, at } = await spooled(t);
  // As the journal says it then, before the file is moved.
  const db = await openDatabase(world.path("state/journal.db"));
  db.exec("UPDATE disk.versions SET state = 'found', spooled = 0, durable = 0, generation = generation + 1");
  db.close();
  renameSync(world.path("in"), world.path("pulled"));
  const { out } = await once();
  assert.ok(out.includes(`kept as ${at}`), out);
  assert.deepEqual(kept(), [content]);
});

test("what came of a file that goes from its source meanwhile is kept", async (t) => {
  const world = new World(t);
  const content = new Random(1).bytes(10 * size);
  world.file("in/log", content);
  const config = world.config({
    devices: { in: { type: "local", dir: "in", inPlace: false, maxRate: "200KiB/s" }, out: { type: "local", dir: "out" } },
    routes: [{ from: "in", to: ["out"], into: "" }],
  });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  const spool = world.path("state/spool");
  const came = () => existsSync(spool) && readdirSync(spool).some((name) => world.size(`state/spool/${name}`) > size);
  await until("some of it came", came, 60_000);
  // It notes what came.
  program.signal("SIGTERM");
  await program.exited;
  rmSync(world.path("in/log"));
  const { out } = await runProgram(["run", "--once", "--json", "--config", config]);
  assert.match(out, /in:log: has gone from in before it was whole here .*; what came of it is kept as/);
  const [kept = Buffer.alloc(0), ...others] = readdirSync(world.path("state/damaged")).map((name) =>
    readFileSync(world.path(`state/damaged/${name}`)),
  );
  assert.ok(kept.length > 0 && others.length === 0);
  assert.deepEqual(kept, content.subarray(0, kept.length));
});

test("a copy that is as it was stays, whatever one target got: another gets it, though its source has it no more", async (t) => {
  const world = new World(t);
  const content = new Random(1).bytes(4 * size);
  world.file("in/log", content);
  world.mkdir("slow");
  const config = world.config({
    devices: {
      in: { type: "local", dir: "in", inPlace: false },
      slow: { type: "local", dir: "slow", maxRate: "100kB/s" },
      later: { type: "local", dir: "later" },
    },
    routes: [{ from: "in", to: ["slow", "later"], into: "" }],
  });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what }) => what === "pulled", "it is here");
  rmSync(world.path("in/log"));
  const partial = () => readdirSync(world.path("slow")).find((name) => world.size(`slow/${name}`) > 2000);
  await until("some of it is sent", () => partial() !== undefined, 60_000);
  const handle = openSync(world.path(`slow/${partial() ?? ""}`), "r+");
  writeSync(handle, Buffer.from([(content[1000] ?? 0) ^ 1]), 0, 1, 1000);
  closeSync(handle);
  await program.until(({ what }) => what === "restarted", "it is sent again");
  world.mkdir("later");
  await program.until(() => program.events.filter(({ what }) => what === "delivered").length === 2, "both have it");
  for (const dir of ["slow", "later"]) assert.deepEqual(readFileSync(world.path(`${dir}/log`)), content);
});
