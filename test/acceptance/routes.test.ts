/** What routes promise, seen from outside: growth, delete and archive, priorities that act between chunks, since, newest, two targets each at its own pace. */
import assert from "node:assert/strict";
import { appendFileSync, existsSync, readFileSync, readdirSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { startGround } from "../faults/ground.js";
import { Program, runProgram, type SeenEvent } from "../faults/process.js";
import { Random } from "../faults/random.js";
import { treeOf } from "../faults/trees.js";
import { World } from "../faults/world.js";

const local = (dir: string, more = {}) => ({ type: "local", dir, ...more });
const once = (config: string) => runProgram(["run", "--once", "--json", "--config", config]);

for (const inPlace of [true, false])
  test(`a file that grows is the same file continued, ${inPlace ? "read in place" : "through the spool"}`, async (t) => {
    const random = new Random(1);
    const world = new World(t);
    world.mkdir("out");
    const ground = await startGround(world.path("ground"));
    t.after(() => ground.program.kill());
    const config = world.config({
      devices: {
        in: local("in", { inPlace }),
        out: local("out"),
        ftp: { type: "ftp", host: "127.0.0.1", port: ground.port, user: "plane", password: "secret" },
      },
      routes: [{ from: "in", to: ["out", "ftp"], into: "" }],
    });
    world.file("in/a.BIN", random.bytes(3_000_000));
    assert.equal((await once(config)).code, 0);
    appendFileSync(world.path("in/a.BIN"), random.bytes(700_000));
    utimesSync(world.path("in/a.BIN"), 1_781_000_000, 1_781_000_000);
    const run = await once(config);
    assert.equal(run.code, 0, run.out);
    assert.deepEqual(readdirSync(world.path("out")), ["a.BIN"]);
    assert.deepEqual(readdirSync(ground.root), ["a.BIN"]);
    for (const path of [world.path("out/a.BIN"), `${ground.root}/a.BIN`])
      assert.deepEqual(readFileSync(path), readFileSync(world.path("in/a.BIN")));
    assert.match(run.out, /in:a\.BIN → out: goes on at byte 3000000 of 3700000/);
    if (!inPlace) assert.match(run.out, /in:a\.BIN: goes on at byte 3000000 of 3700000/);
  });

test("delete and archive wait for proof from every required target, and touch only what was delivered", async (t) => {
  const world = new World(t);
  world.mkdir("out");
  for (const dir of ["del", "arc", "keep"]) world.file(`${dir}/x/a`, `in ${dir}`);
  const config = world.config({
    devices: {
      del: local("del"),
      arc: local("arc", { archiveDir: "sent" }),
      keep: local("keep"),
      out: local("out"),
      down: { type: "ftp", host: "127.0.0.1", port: 1, user: "u", password: "p" },
    },
    routes: [
      { from: "del", to: ["out", { device: "down", required: false }], afterDelivery: "delete" },
      { from: "arc", to: ["out"], afterDelivery: "archive" },
      { from: "keep", to: ["out", "down"], afterDelivery: "delete" },
    ],
  });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(() => program.events.filter(({ what }) => what === "released").length === 2, "two releases");
  assert.equal(existsSync(world.path("del/x/a")), false);
  assert.equal(readFileSync(world.path("arc/sent/x/a"), "utf8"), "in arc");
  assert.equal(readFileSync(world.path("keep/x/a"), "utf8"), "in keep");
  assert.equal(treeOf(world.path("out")).size, 3);
  await program.kill();
  // What was archived is not found again.
  assert.doesNotMatch((await once(config)).out, /arc: \d+ new file/);
});

for (const afterDelivery of ["delete", "archive"])
  for (const requires of [[], ["out"]])
    test(`what a target that is not required may still get outlives that (${afterDelivery}${requires.length > 0 ? ", once another has it" : ""})`, async (t) => {
      const world = new World(t);
      world.mkdir("out");
      const names = Array.from({ length: 5 }, (_, n) => `log${n}`);
      const write = () => {
        for (const name of names) world.file(`in/${name}`, `in ${name}`);
      };
      const held = (dir: string) => [...treeOf(world.path(dir)).keys()].sort();
      const config = (review: string) =>
        world.config({
          devices: { in: local("in", { archiveDir: "archive" }), out: local("out"), review: local(review) },
          routes: [{ from: "in", to: ["out", { device: "review", required: false, requires }], into: "", afterDelivery }],
        });
      const left = () => held("in").filter((path) => !path.startsWith("archive/"));
      // It is there: it is read in its place.
      world.mkdir("there");
      write();
      const there = await once(config("there"));
      assert.equal(there.code, 0, there.out);
      assert.doesNotMatch(there.out, /whole here/);
      assert.deepEqual([held("there"), left()], [names, []]);
      // It is away: the spool has a copy for it.
      for (const dir of ["in", "out"]) rmSync(world.path(dir), { recursive: true });
      rmSync(world.path("state"), { recursive: true });
      world.mkdir("out");
      write();
      const away = await once(config("away"));
      assert.equal(away.code, 3, away.out);
      assert.deepEqual([held("out"), left()], [names, []], away.out);
      world.mkdir("away");
      const back = await once(config("away"));
      assert.equal(back.code, 0, back.out);
      assert.deepEqual(held("away"), names);
    });

test("--once copies all of a source into the spool for a target that is away, however long that takes", async (t) => {
  const world = new World(t);
  const names = Array.from({ length: 14 }, (_, n) => `log${n}`);
  for (const name of names) world.file(`in/${name}`, Buffer.alloc(100_000, name));
  const config = world.config({
    devices: { in: local("in", { inPlace: false, concurrency: 1, maxRate: "200kB/s" }), out: local("out") },
    routes: [{ from: "in", to: ["out"], into: "" }],
  });
  const first = await once(config);
  assert.equal(first.code, 3, first.out);
  rmSync(world.path("in"), { recursive: true });
  world.mkdir("out");
  const { out } = await once(config);
  assert.deepEqual([...treeOf(world.path("out")).keys()].sort(), [...names].sort(), first.out + out);
});

test("a target that is not required, and has left the configuration, keeps nothing at its source", async (t) => {
  const world = new World(t);
  world.file("in/log", "a log");
  const config = (review: boolean) =>
    world.config({
      devices: { in: local("in"), out: local("out"), ...(review ? { review: local("review") } : {}) },
      routes: [{ from: "in", to: ["out", ...(review ? [{ device: "review", required: false }] : [])], into: "", afterDelivery: "delete" }],
    });
  await once(config(true));
  world.mkdir("out");
  const { out } = await once(config(false));
  assert.deepEqual([existsSync(world.path("in/log")), existsSync(world.path("out/log"))], [false, true], out);
});

test("the spool has a copy for a target that is there, and waits for one that is away", async (t) => {
  const world = new World(t);
  world.mkdir("out");
  world.mkdir("there");
  world.file("in/log", "a log");
  const optional = (device: string, requires: string[] = []) => ({ device, required: false, requires });
  const config = world.config({
    devices: { in: local("in"), out: local("out"), away: local("away"), there: local("there") },
    routes: [{ from: "in", to: ["out", optional("away"), optional("there", ["away"])], into: "", afterDelivery: "delete" }],
  });
  await once(config);
  assert.deepEqual([existsSync(world.path("in/log")), existsSync(world.path("out/log"))], [false, true]);
  world.mkdir("away");
  const back = await once(config);
  assert.equal(back.code, 0, back.out);
  for (const dir of ["away", "there"]) assert.equal(readFileSync(world.path(`${dir}/log`), "utf8"), "a log");
});

test("what cannot be copied for a target that is not required stays at its source until that has it", async (t) => {
  const world = new World(t);
  world.mkdir("out");
  world.file("in/large", Buffer.alloc(5_000_000, 1));
  const config = world.config({
    spool: { maxSize: "1MiB" },
    devices: { in: local("in"), out: local("out"), review: local("away") },
    routes: [{ from: "in", to: ["out", { device: "review", required: false }], into: "", afterDelivery: "delete" }],
  });
  await once(config);
  assert.deepEqual([existsSync(world.path("in/large")), existsSync(world.path("out/large"))], [true, true]);
  const why = await runProgram(["why", "in:large", "--config", config]);
  assert.match(why.out, /at in: it is deleted once review has it, or the spool has a copy of it for that/);
  world.mkdir("away");
  const back = await once(config);
  assert.equal(back.code, 0, back.out);
  assert.deepEqual([existsSync(world.path("in/large")), existsSync(world.path("away/large"))], [false, true]);
});

test("a receipt by size alone does not delete, unless the route trusts it", async (t) => {
  const world = new World(t);
  const ground = await startGround(world.path("ground"));
  t.after(() => ground.program.kill());
  world.file("in/a", "a");
  const config = (trustSize: boolean) =>
    world.config({
      stateDir: `state-${String(trustSize)}`,
      devices: {
        in: local("in"),
        ftp: { type: "ftp", host: "127.0.0.1", port: ground.port, user: "plane", password: "secret", verify: "size" },
      },
      routes: [{ from: "in", to: ["ftp"], afterDelivery: "delete", trustSize, into: String(trustSize) }],
    });
  const until = async (trust: boolean) => {
    const program = new Program(["run", "--json", "--config", config(trust)]);
    const event = await program.until(({ what }) => what === "released", "release");
    await program.kill();
    return event.message;
  };
  assert.match(await until(false), /kept: ftp could only prove its size/);
  assert.equal(readFileSync(world.path("in/a"), "utf8"), "a");
  assert.match(await until(true), /deleted at its source/);
  assert.equal(existsSync(world.path("in/a")), false);
});

test("what is found at its target, and is the source's own file by another way, is not deleted; what somebody else brought there is", async (t) => {
  const world = new World(t);
  const ground = await startGround(world.path("ground"));
  t.after(() => ground.program.kill());
  for (const dir of ["own/day", "other/day"]) world.file(`${dir}/a`, "content of a");
  world.file("ground/files/plane/day/a", "content of a");
  rmSync(world.path("own"), { recursive: true });
  symlinkSync(ground.root, world.path("own"));
  const ftp = { type: "ftp", host: "127.0.0.1", port: ground.port, user: "plane", password: "secret", verify: "readback" };
  const config = (from: string) =>
    world.config({
      devices: { in: local(from, { settle: "0s" }), ground: ftp },
      routes: [{ from: "in", to: ["ground"], into: "", afterDelivery: "delete" }],
    });
  assert.match((await once(config("other"))).out, /in:day\/a: deleted at its source/);
  const { code, out } = await once(config("own"));
  assert.equal(code, 3);
  assert.match(out, /in:day\/a: kept: what ground has of it is this very file: both are one directory/);
  assert.deepEqual(readdirSync(join(ground.root, "day")), ["a"]);
});

test("what was to be kept, and is to be deleted now, is asked for at its target first: its disk may have been replaced", async (t) => {
  const world = new World(t);
  for (const name of ["a", "b", "c"]) world.file(`in/${name}`, `content of ${name}`);
  world.mkdir("out");
  const config = (more: object) =>
    world.config({
      devices: { in: local("in", { settle: "0s" }), out: local("out") },
      routes: [{ from: "in", to: ["out"], into: "", ...more }],
    });
  assert.equal((await once(config({}))).code, 0);
  rmSync(world.path("out/a"));
  world.file("out/b", "of somebody else");
  world.file("in/d", "content of d");
  const { code, out } = await once(config({ afterDelivery: "delete" }));
  assert.equal(code, 3);
  assert.match(out, /in:a: kept: out:a is not there any more/);
  assert.match(out, /in:b: kept: out:b is another file by now/);
  assert.deepEqual(readdirSync(world.path("in")).sort(), ["a", "b"]);
  // Also by a run that comes later.
  world.file("out/b", "content of b");
  assert.equal((await once(config({}))).code, 0);
  assert.equal((await once(config({ afterDelivery: "delete" }))).code, 3);
  assert.deepEqual(readdirSync(world.path("in")), ["a"]);
});

test("--once ends with 3 each time while a file cannot be deleted or archived as its route asks; status says how many", async (t) => {
  const world = new World(t);
  const ground = await startGround(world.path("ground"));
  t.after(() => ground.program.kill());
  world.mkdir("out");
  world.file("arc/a", "new");
  world.file("arc/sent/a", "old");
  world.file("arc/b", "b");
  world.file("arc/e.txt", "e");
  for (const name of ["e.txt", "e~3f79bb7b.txt"]) world.file(`arc/sent/${name}`, "old");
  world.file("weak/c", "c");
  const config = world.config({
    devices: {
      arc: local("arc", { archiveDir: "sent", settle: "0s", interval: "1s" }),
      weak: local("weak"),
      out: local("out"),
      ftp: { type: "ftp", host: "127.0.0.1", port: ground.port, user: "plane", password: "secret", verify: "size" },
    },
    routes: [
      { from: "arc", to: ["out"], afterDelivery: "archive" },
      { from: "weak", to: ["ftp"], afterDelivery: "delete" },
    ],
  });
  for (let run = 0; run < 2; run++) {
    const { code, out } = await once(config);
    if (run === 0) assert.match(out, /arc:e\.txt: kept: its archive has sent\/e\.txt already, and sent\/e~3f79bb7b\.txt/);
    if (run === 0) assert.match(out, /weak:c: kept: ftp could only prove its size/);
    assert.match(out, /finished, but 2 files could not be deleted or archived at the source \((arc:e\.txt, weak:c|weak:c, arc:e\.txt): /);
    assert.equal(code, 3, out);
  }
  assert.equal(readFileSync(world.path("arc/sent/b"), "utf8"), "b");
  const same = ["a", "a~11507a0e"].map((name) => readFileSync(world.path("arc/sent", name), "utf8"));
  assert.deepEqual(
    [same, existsSync(world.path("arc/a"))],
    [["old", "new"], false],
    "a name that the archive has is given to nothing else",
  );
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what }) => what === "ready", "ready");
  const status = async () => JSON.parse((await runProgram(["status", "--json", "--config", config])).out) as Record<string, unknown>;
  const { unreleased, summary } = await status();
  assert.equal(unreleased, 2);
  assert.match(String(summary), /; 2 files could not be deleted or archived at the source$/);
  // A person sees to it.
  rmSync(world.path("arc/sent/e.txt"));
  const retried = await runProgram(["retry", "arc:e.txt", "--config", config]);
  assert.match(retried.out, /^arc:e\.txt: to delete or archive it at its source, as its route asks, is tried again/);
  await program.until(({ message }) => message.startsWith("arc:e.txt: moved to sent/e.txt"), "what was mended");
  assert.equal((await status()).unreleased, 1);
  await program.kill();
  rmSync(world.path("weak/c"));
  assert.equal((await once(config)).code, 0);
});

test("--once ends with 3 while a file is lost that its target never got, until that is forgotten", async (t) => {
  const world = new World(t);
  world.file("in/a", "a");
  world.file("in/b", "b");
  const out = { type: "local", dir: "out" };
  const config = world.config({ devices: { in: local("in"), out }, routes: [{ from: "in", to: ["out"], into: "" }] });
  assert.equal((await once(config)).code, 3);
  rmSync(world.path("in/a"));
  const away = await once(config);
  assert.match(away.out, /in:a: has gone from in before out had it/);
  assert.match(away.out, /finished, but 1 delivery could not be made now, 1 file was lost at the source/);
  assert.equal(away.code, 3);
  world.mkdir("out");
  for (let run = 0; run < 2; run++) {
    const { code, out: said } = await once(config);
    assert.match(said, /finished, but 1 file was lost at the source \(\\"filesync status\\" names it\)/);
    assert.equal(code, 3, said);
  }
  assert.deepEqual(readdirSync(world.path("out")), ["b"]);
  assert.equal((await runProgram(["forget", "in:a", "--config", config])).code, 0);
  const { code, out: said } = await once(config);
  assert.equal(code, 0, said);
});

test("a small urgent file passes a large one that is on its way, on both hops, and the large one loses nothing", async (t) => {
  const random = new Random(2);
  const world = new World(t);
  world.mkdir("out");
  world.mkdir("urgent");
  world.file("bulk/big.bin", random.bytes(30_000_000));
  const config = world.config({
    devices: {
      in: local(".", { inPlace: false, concurrency: 1, maxRate: "3MiB/s", interval: "1s", settle: "0s" }),
      out: local("out", { concurrency: 1, maxRate: "2MiB/s" }),
    },
    routes: [
      { from: "in", to: ["out"], include: ["bulk/**"], into: "" },
      { from: "in", to: ["out"], include: ["urgent/**"], into: "", weight: 10 },
    ],
  });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what }) => what === "ready", "ready");
  const partial = () =>
    existsSync(world.path("out/bulk")) ? readdirSync(world.path("out/bulk")).map((name) => world.size(`out/bulk/${name}`)) : [];
  while (!partial().some((size) => size > 3_000_000)) await new Promise((resolve) => setTimeout(resolve, 10));
  world.file("urgent/crash.ulg", random.bytes(200_000), 10);
  await program.until(({ what, message }) => what === "delivered" && message.includes("crash.ulg"), "the urgent file", 20_000);
  assert.equal(existsSync(world.path("out/bulk/big.bin")), false, "the large one is still on its way");
  await program.until(({ what, message }) => what === "delivered" && message.includes("big.bin"), "the large file");
  assert.deepEqual(readFileSync(world.path("out/bulk/big.bin")), readFileSync(world.path("bulk/big.bin")));
  assert.ok(program.events.some(({ what, message }) => what === "resumed" && message.startsWith("in:bulk/big.bin: goes on at byte")));
});

test("newest and since: old logs are not queued, new ones are", async (t) => {
  const world = new World(t);
  world.mkdir("a");
  world.mkdir("b");
  for (let n = 0; n < 6; n++) world.file(`in/log${n}`, `log ${n}`, n * 60);
  const config = world.config({
    devices: { in: local("in"), a: local("a"), b: local("b") },
    routes: [
      { from: "in", to: ["a"], newest: 2, into: "" },
      { from: "in", to: ["b"], since: "install", into: "" },
    ],
  });
  assert.equal((await once(config)).code, 0);
  assert.deepEqual(readdirSync(world.path("a")), ["log4", "log5"]);
  assert.deepEqual(readdirSync(world.path("b")), []);
  world.file("in/log6", "log 6");
  const now = Date.now() / 1000 + 1;
  utimesSync(world.path("in/log6"), now, now);
  await new Promise((resolve) => setTimeout(resolve, 1500));
  // Another target beside it takes nothing from what the first one gets.
  world.mkdir("c");
  const fresh = world.config({
    devices: { in: local("in", { settle: "0s" }), a: local("a"), b: local("b"), c: local("c") },
    routes: [
      { from: "in", to: ["a"], newest: 2, into: "" },
      { from: "in", to: ["c", "b"], since: "install", into: "" },
    ],
  });
  assert.equal((await once(fresh)).code, 0);
  assert.deepEqual(readdirSync(world.path("b")), ["log6"]);
  assert.deepEqual(readdirSync(world.path("c")), []);
  assert.deepEqual(readdirSync(world.path("a")), ["log4", "log5", "log6"]);
});

test("a file that the spool can never hold goes straight through, and resumes after a kill", async (t) => {
  const random = new Random(4);
  const world = new World(t);
  world.mkdir("out");
  world.file("in/huge.bin", random.bytes(12_000_000));
  const config = world.config({
    spool: { maxSize: "2MiB", keepFree: "1MiB" },
    devices: { in: local("in", { inPlace: false, maxRate: "4MiB/s" }), out: local("out") },
    routes: [{ from: "in", to: ["out"], into: "" }],
  });
  const program = new Program(["run", "--json", "--config", config]);
  await world.partialOf(4_000_000);
  await program.kill();
  const run = await once(config);
  assert.equal(run.code, 0, run.out);
  assert.match(run.out, /in:huge\.bin → out: goes on at byte [1-9]\d{6}/);
  assert.deepEqual(readFileSync(world.path("out/huge.bin")), readFileSync(world.path("in/huge.bin")));
  assert.deepEqual(readdirSync(world.path("out")), ["huge.bin"]);
});

test("a file that is still being written waits until it has settled", async (t) => {
  const world = new World(t);
  world.mkdir("out");
  const config = world.config({
    // More than may lie between two of its lines.
    devices: { in: local("in", { settle: "8s", interval: "1s" }), out: local("out") },
    routes: [{ from: "in", to: ["out"], into: "" }],
  });
  world.mkdir("in");
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what }) => what === "ready", "ready");
  for (let n = 0; n < 8; n++) {
    appendFileSync(world.path("in/growing"), `${n}\n`);
    await new Promise((resolve) => setTimeout(resolve, 400));
  }
  await program.until(({ what }) => what === "delivered", "delivery");
  assert.equal(readFileSync(world.path("out/growing"), "utf8"), "0\n1\n2\n3\n4\n5\n6\n7\n");
  assert.equal(program.events.filter(({ what }) => what === "delivered").length, 1);
});

test("a file that grew after the journal was lost is still the same file", async (t) => {
  const random = new Random(8);
  const world = new World(t);
  world.mkdir("out");
  const config = world.config({
    devices: { in: local("in"), out: local("out") },
    routes: [{ from: "in", to: ["out"], into: "" }],
  });
  world.file("in/a.BIN", random.bytes(3_000_000));
  world.file("in/b.BIN", random.bytes(1000));
  assert.equal((await once(config)).code, 0);
  for (const end of ["", "-wal", "-shm"]) rmSync(world.path(`state/journal.db${end}`), { force: true });
  appendFileSync(world.path("in/a.BIN"), random.bytes(500_000));
  utimesSync(world.path("in/a.BIN"), 1_781_000_000, 1_781_000_000);
  const run = await once(config);
  assert.equal(run.code, 0, run.out);
  assert.deepEqual(treeOf(world.path("out")), treeOf(world.path("in")));
  assert.doesNotMatch(run.out, /b\.BIN → out/);
});

test("a file that grew: what is there in the version before is not sent again, unless somebody changed it", async (t) => {
  const world = new World(t);
  const ground = await startGround(world.path("ground"));
  t.after(() => ground.program.kill());
  world.mkdir("out");
  const config = world.config({
    devices: {
      in: local("in", { settle: "0s" }),
      out: local("out"),
      ground: { type: "ftp", host: "127.0.0.1", port: ground.port, user: "plane", password: "secret" },
    },
    routes: [{ from: "in", to: ["out", "ground"], into: "" }],
  });
  const random = new Random(9);
  const run = async (): Promise<readonly SeenEvent[]> => {
    const program = new Program(["run", "--once", "--json", "--config", config]);
    t.after(() => program.kill());
    assert.equal(await program.exited, 0, program.stderr + JSON.stringify(program.events));
    return program.events;
  };
  const places = [world.path("out"), ground.root];
  const grow = (bytes: number) => appendFileSync(world.path("in/a.BIN"), random.bytes(bytes));
  const parts = () => places.flatMap((dir) => readdirSync(dir).filter((name) => name.endsWith(".part")));
  world.file("in/a.BIN", random.bytes(3_000_000));
  await run();
  grow(100_000);
  const tail = await run();
  const resumed = (events: readonly SeenEvent[]) => events.filter(({ what }) => what === "resumed").map(({ message }) => message);
  assert.deepEqual(
    resumed(tail).sort(),
    ["ground", "out"].map((to) => `in:a.BIN → ${to}: goes on at byte 3000000 of 3100000`),
  );
  for (const dir of places) assert.deepEqual(treeOf(dir), treeOf(world.path("in")));

  const foreign = random.bytes(3_100_000);
  for (const dir of places) writeFileSync(join(dir, "a.BIN"), foreign);
  grow(100_000);
  const whole = await run();
  assert.deepEqual(
    whole.filter(({ what, level }) => level === "error" || what === "parked"),
    [],
  );
  for (const dir of places) {
    const names = readdirSync(dir);
    assert.equal(names.length, 2, `${dir}: ${names.join()}`);
    assert.ok(readFileSync(join(dir, "a.BIN")).equals(foreign), "somebody's file was replaced");
    const other = names.find((name) => name !== "a.BIN") ?? "";
    assert.ok(readFileSync(join(dir, other)).equals(readFileSync(world.path("in/a.BIN"))));
  }
  assert.deepEqual(parts(), []);
});

test("another file, longer, in place of one whose digest is known and that still waits: nothing of it goes under the old name, and no target is blamed", async (t) => {
  const world = new World(t);
  world.mkdir("out");
  const write = (into: string) =>
    world.config({
      devices: { in: local("in", { settle: "0s" }), out: local("out"), later: local("later") },
      routes: [{ from: "in", to: ["out", "later"], into }],
    });
  const run = async (config: string): Promise<readonly SeenEvent[]> => {
    const program = new Program(["run", "--once", "--json", "--config", config]);
    t.after(() => program.kill());
    await program.exited;
    return program.events;
  };
  world.file("in/a.BIN", Buffer.alloc(3000, 1));
  await run(write("a"));
  world.file("in/a.BIN", Buffer.alloc(30_000, 2), 1);
  world.mkdir("later");
  // What waits goes where the old route brought it, so the new version does not take its place.
  const events = await run(write("b"));
  assert.deepEqual(
    events.filter(({ what }) => what === "parked").map(({ message }) => message),
    [],
  );
  assert.match(
    events.find(({ what }) => what === "changed")?.message ?? "",
    /^in:a\.BIN → later: it was written while it was sent; it is looked at anew/,
  );
  assert.deepEqual([...treeOf(world.path("later")).keys()], ["b/a.BIN"]);
});

test("newest: a file that changed and is still not among them is not waited for", async (t) => {
  const world = new World(t);
  world.mkdir("out");
  const ground = await startGround(world.path("ground"));
  t.after(() => ground.program.kill());
  // FTP has no clock: a file settles in two listings.
  const config = world.config({
    devices: {
      in: { type: "ftp", host: "127.0.0.1", port: ground.port, user: "plane", password: "secret", settle: "300ms" },
      out: local("out"),
    },
    routes: [{ from: "in", to: ["out"], into: "", newest: 1 }],
  });
  world.file("ground/files/plane/new", "the newest", 100);
  world.file("ground/files/plane/old", "old", 0);
  assert.equal((await once(config)).code, 0);
  world.file("ground/files/plane/old", "changed", 10);
  const again = new Program(["run", "--once", "--json", "--config", config]);
  t.after(() => again.kill());
  await again.until(({ what }) => what === "stopped", "its end", 30_000);
  assert.deepEqual(readdirSync(world.path("out")), ["new"]);
});

test("newest and delete: what was passed over stays, also when the newer ones are gone", async (t) => {
  const world = new World(t);
  world.mkdir("out");
  for (let n = 0; n < 4; n++) world.file(`in/log${n}`, `log ${n}`, n * 60);
  const config = world.config({
    devices: { in: local("in", { interval: "1s" }), out: local("out") },
    routes: [{ from: "in", to: ["out"], newest: 2, afterDelivery: "delete", into: "" }],
  });
  for (let n = 0; n < 2; n++) assert.equal((await once(config)).code, 0);
  const program = new Program(["run", "--json", "--verbose", "--config", config]);
  t.after(() => program.kill());
  await program.until(() => program.events.filter(({ what }) => what === "listed").length >= 3, "three listings");
  assert.deepEqual(readdirSync(world.path("out")), ["log2", "log3"]);
  assert.deepEqual(readdirSync(world.path("in")).sort().slice(0, 2), ["log0", "log1"]);
});

test("a target that leaves the configuration is waited for, and that is said: its file is not deleted before it has it", async (t) => {
  const world = new World(t);
  world.mkdir("a");
  world.file("in/x", "x");
  const config = (more: object, to: readonly string[]) =>
    world.config({ devices: { in: local("in"), a: local("a"), ...more }, routes: [{ from: "in", to, into: "", afterDelivery: "delete" }] });
  const down = { type: "ftp", host: "127.0.0.1", port: 1, user: "u", password: "p" };
  assert.equal((await once(config({ b: down }, ["a", "b"]))).code, 3);
  const without = await once(config({}, ["a"]));
  assert.match(without.out, /in → b: 1 delivery waits: \\"b\\" is not in the configuration: put it back, or give up/);
  assert.equal(readFileSync(world.path("in/x"), "utf8"), "x");
  world.mkdir("b");
  const program = new Program(["run", "--json", "--config", config({ b: local("b") }, ["a", "b"])]);
  t.after(() => program.kill());
  await program.until(({ what }) => what === "released", "release");
  assert.equal(readFileSync(world.path("b/x"), "utf8"), "x");
  assert.equal(existsSync(world.path("in/x")), false);
});
