/** why, retry, forget and verify, as a person reads them: each reason, with a daemon and from the journal alone. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Journal } from "../../core/journal.js";
import { until } from "../conformance/clause.js";
import { startGround } from "../faults/ground.js";
import { Program, runProgram } from "../faults/process.js";
import { World } from "../faults/world.js";
import { masked } from "./said.js";

const local = (dir: string, more = {}) => ({ type: "local", dir, ...more });
const down = { type: "ftp", host: "127.0.0.1", port: 1, user: "u", password: "p" };

function filesyncOn(world: World, config: string) {
  return async (...args: string[]) => {
    const { code, out, err } = await runProgram([...args, "--config", config]);
    return { code, out: masked(out, world.dir), err: masked(err, world.dir) };
  };
}

test("why: delivered, left by each rule, away, never seen; by source path, DEVICE:PATH, target path and id", async (t) => {
  const world = new World(t);
  for (const dir of ["out"]) world.mkdir(dir);
  world.file("in/log/a.ulg", "content of a");
  world.file("in/log/small.ulg", "x");
  world.file("in/tmp/b.ulg", "content of b");
  world.file("in/c.txt", "content of c");
  world.file("in/new\nline.ulg", "content of it");
  const config = world.config({
    devices: { in: local("in"), out: local("out"), ground: down, gone: local("nowhere") },
    routes: [
      { from: "in", to: ["out", "ground"], include: ["**/*.ulg"], exclude: ["tmp"], minSize: 5 },
      { from: "gone", to: ["out"] },
    ],
  });
  const filesync = filesyncOn(world, config);
  const never = await filesync("why", "log/a.ulg");
  assert.deepEqual(never, {
    code: 2,
    out: "",
    err: 'filesync: no FileSync runs with DIR/state, and none ever did; start it with "filesync run", or, where "stateDir" was changed while one runs, restart that',
  });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what, message }) => what === "delivered" && message.includes("a.ulg"), "delivery");
  await program.until(({ what, message }) => what === "delivered" && message.includes("line.ulg"), "delivery");
  await program.until(({ message }) => message.startsWith("ground: "), "ground is away");
  const why = async (what: string) => (await filesync("why", what)).out.split("\n");
  const file = "in:log/a.ulg  (12 B, 2026-05-28 00:00:00Z)";
  const delivered = "  → out: delivered TIME as v/in/log/a.ulg, proved by digest  [ID]";
  const byPath = await why("log/a.ulg");
  assert.equal(byPath[0], file);
  assert.match(byPath[1] ?? "", /^ {2}→ ground: (failed \(offline\): .*refused.*|ground is detached since TIME: .*refused.*) {2}\[ID\]$/);
  assert.equal(byPath.at(-1), delivered);
  for (const what of ["in:log/a.ulg", "v/in/log/a.ulg"])
    assert.deepEqual([(await why(what))[0], (await why(what)).at(-1)], [file, delivered]);
  assert.deepEqual(await why("out:v/in/log/a.ulg"), [file, delivered]);
  const json = JSON.parse((await runProgram(["why", "--json", "log/a.ulg", "--config", config])).out) as {
    files: { version: string; reasons: { code: string; id: string; to: string }[] }[];
  };
  const ids = json.files[0]?.reasons.filter(({ code }) => code === "delivered") ?? [];
  assert.deepEqual(
    ids.map(({ to }) => to),
    ["out"],
  );
  assert.deepEqual(await why(ids[0]?.id ?? ""), [file, delivered]);
  assert.equal((await why(json.files[0]?.version ?? ""))[0], file);

  const left = (rule: string) => `  the route to out, ground leaves it: ${rule}`;
  assert.deepEqual(await why("c.txt"), ["in:c.txt  (12 B, 2026-05-28 00:00:00Z)", left('no pattern of "include" takes it: "**/*.ulg"')]);
  assert.deepEqual(await why("tmp/b.ulg"), ["in:tmp/b.ulg  (12 B, 2026-05-28 00:00:00Z)", left('"exclude" leaves it: "tmp"')]);
  assert.deepEqual(await why("log/small.ulg"), [
    "in:log/small.ulg  (1 B, 2026-05-28 00:00:00Z)",
    left('it has 1 bytes, and "minSize" is 5'),
  ]);
  assert.deepEqual((await why("in:log")).slice(1), ["  it is a directory"]);
  // As a shell completes it, and as it is printed.
  for (const what of ["in:new\nline.ulg", "in:new‛0Aline.ulg"])
    assert.match((await why(what)).at(-1) ?? "", /→ out: delivered TIME as v\/in\/new‛0Aline\.ulg/);
  assert.deepEqual(await why("gone:x.ulg"), [
    "gone:x.ulg",
    "  no listing of gone has seen it",
    "  gone is detached since TIME: DIR/nowhere does not exist",
    "  the route to out takes it: it goes when a listing finds it",
  ]);
  assert.deepEqual(await filesync("why", "log/b.ulg"), {
    code: 2,
    out: "",
    err: 'filesync: nothing of the name "log/b.ulg" is known; did you mean "log/a.ulg"?',
  });
  assert.deepEqual(await filesync("why", "other/a.ulg"), {
    code: 2,
    out: "",
    err: 'filesync: nothing of the name "other/a.ulg" is known; did you mean "in:log/a.ulg"?',
  });
  for (const [args, err] of [
    [["verify", "ground"], '"ground" is a device: name a file of it, as in ground:PATH, or an id'],
    [["why", "out:"], '"out" is a device: name a file of it, as in out:PATH, or an id'],
    [["why", "grund:log/a.ulg"], 'there is no device "grund"; did you mean "ground"?'],
    [["forget", "grund:log/a.ulg"], 'there is no device "grund"; did you mean "ground"?'],
  ] as const)
    assert.deepEqual(await filesync(...args), { code: 2, out: "", err: `filesync: ${err}` });
  program.signal("SIGTERM");
  await program.exited;
  const alone = await why("log/a.ulg");
  assert.deepEqual([alone[0], alone.at(-1)], [file, delivered]);
  assert.match(alone.at(-2) ?? "", /^ {2}→ ground: waits for the daemon, which does not run: start it with "filesync run" {2}\[ID\]$/);
  assert.deepEqual((await why("in:never.ulg")).slice(1), [
    "  no listing of in has seen it; no daemon runs, so in cannot be asked now",
    "  the route to out, ground takes it: it goes when a listing finds it",
  ]);
});

test("why: not settled, passed over by newest, behind others, on its way, delete withheld", async (t) => {
  const world = new World(t);
  for (const dir of ["out", "slow"]) world.mkdir(dir);
  for (let n = 0; n < 3; n++) world.file(`few/${n}`, `file ${n}`, n);
  for (let n = 0; n < 3; n++) world.file(`many/${n}`, Buffer.alloc(30_000_000, n), n);
  world.file("fresh/now", "just written");
  utimesSync(world.path("fresh/now"), new Date(), new Date());
  const ground = await startGround(world.path("ground"));
  t.after(() => ground.program.kill());
  const config = world.config({
    devices: {
      few: local("few"),
      many: local("many"),
      fresh: local("fresh", { settle: "1h" }),
      out: local("out"),
      // One of them is sent for as long as all these commands take.
      slow: local("slow", { maxRate: "100KiB/s", concurrency: 1 }),
      ftp: { type: "ftp", host: "127.0.0.1", port: ground.port, user: "plane", password: "secret", verify: "size" },
    },
    routes: [
      { from: "few", to: ["out"], newest: 1 },
      { from: "few", to: ["ftp"], include: ["2"], afterDelivery: "delete" },
      { from: "many", to: ["slow"], into: "" },
      { from: "fresh", to: ["out"] },
    ],
  });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what, message }) => what === "released" && message.startsWith("few:2"), "release");
  await program.until(({ what }) => what === "found" && program.events.filter((event) => event.what === "found").length >= 2, "found");
  const filesync = filesyncOn(world, config);
  const why = async (what: string) =>
    (await filesync("why", what)).out
      .replace(/(\d+ h )?\d+ min( \d+ s)?/g, "N min")
      .replace(/sent: .*B\/s.*? {2}\[/, "sent: …  [")
      .split("\n");
  assert.deepEqual(await why("fresh:now"), [
    "fresh:now  (12 B, TIME)",
    '  it has not settled yet (12 B): it counts as complete in N min if it stays the same ("settle")',
    "  the route to out takes it: it goes when a listing finds it",
  ]);
  assert.deepEqual(await why("few:0"), [
    "few:0  (6 B, 2026-05-28 00:00:00Z)",
    "  it was found, and no route took it then",
    '  the route to out takes it only if it is among the newest 1 ("newest")',
    '  the route to ftp leaves it: no pattern of "include" takes it: "2"',
  ]);
  assert.deepEqual((await why("few:2")).slice(1), [
    "  → ftp: delivered TIME as v/few/2, proved by size  [ID]",
    "  → out: delivered TIME as v/few/2, proved by digest  [ID]",
    '  at few: kept: ftp could only prove its size (another "verify" at ftp, such as "readback", proves what is sent from then on; "trustSize": true on the route would accept that)',
  ]);
  assert.deepEqual(
    (await why("many:2")).slice(1).map((line) => line.replace(/: .*(is being sent).*/, ": $1")),
    ["  → slow: is being sent"],
  );
  assert.deepEqual((await why("many:0")).slice(1), [
    "  → slow: waits its turn at slow: 1 file goes before it  [ID]",
    '  → slow: slow has its hands full: 1 transfer runs, and no more at once ("concurrency")  [ID]',
  ]);
});

/** One file set aside: a file that may not be read, on a source that may. */
async function parkOne(world: World, config: string): Promise<void> {
  const run = await runProgram(["run", "--once", "--json", "--config", config]);
  assert.equal(run.code, 3, run.out + run.err);
  const journal = await Journal.open(world.path("state"));
  await journal.commit(() =>
    journal.run(
      "UPDATE deliveries SET state = 'parked', fault = 'rejected', reason = 'it will never be taken', parked_ms = 1780000000000 WHERE target = 'b'",
    ),
  );
  await journal.close();
}

for (const running of [false, true])
  test(`retry and forget ${running ? "a daemon's deliveries" : "without a daemon"}: said, and nothing at the source goes because of it`, async (t) => {
    const world = new World(t);
    world.mkdir("a");
    for (const name of ["x", "y"]) world.file(`in/${name}`, `content of ${name}`);
    const config = world.config({
      devices: { in: local("in"), a: local("a"), b: local("b") },
      routes: [{ from: "in", to: ["a", "b"], into: "", afterDelivery: "delete" }],
    });
    await parkOne(world, config);
    const filesync = filesyncOn(world, config);
    let program: Program | undefined;
    if (running) {
      program = new Program(["run", "--json", "--config", config]);
      t.after(() => program?.kill());
      await program.until(({ what }) => what === "ready", "ready");
    }
    assert.equal(
      (await filesync("why", "x")).out.split("\n").find((line) => line.includes("→ b")),
      "  → b: set aside since 2026-05-28 20:26:40Z (rejected): it will never be taken; to try it now: filesync retry ID; to give it up: filesync forget ID  [ID]",
    );
    assert.equal((await filesync("why", "x")).out.split("\n").at(-1), "  at in: it is deleted when b has it");
    assert.deepEqual(await filesync("retry", "nothing"), { code: 2, out: "", err: 'filesync: nothing of the name "nothing" is known' });
    assert.deepEqual(await filesync("retry", "a"), { code: 0, out: "nothing of a is set aside, or waits for its time", err: "" });
    assert.deepEqual(await filesync("retry"), {
      code: 2,
      out: "",
      err: 'filesync: retry needs an id, a device, a path, or --all ("filesync status" lists what was set aside)',
    });
    assert.deepEqual(await filesync("forget", "in:x"), {
      code: 0,
      out: "in:x → b [ID]: given up; no file was touched\nin:x stays at its source: not every required target has it",
      err: "",
    });
    assert.equal((await filesync("forget", "x")).out, "nothing of x was set aside, or waits for what has left the configuration");
    assert.deepEqual((await filesync("why", "x")).out.split("\n").slice(-2), [
      "  → b: given up by a person (to send it after all: filesync retry ID)  [ID]",
      "  at in: it is not deleted: b never got it",
    ]);
    const retried = await filesync("retry", "y");
    assert.equal(retried.code, 0);
    const still = running ? "" : '\nnothing moves while no daemon runs: start it with "filesync run"';
    assert.ok(
      [`in:y → b [ID]: tried again${still}`, "in:y → b [ID]: tried again\nb: DIR/b does not exist"].includes(retried.out),
      retried.out,
    );
    world.mkdir("b");
    program ??= new Program(["run", "--json", "--config", config]);
    t.after(() => program?.kill());
    await program.until(({ what, message }) => what === "released" && message.startsWith("in:y"), "y is released");
    program.signal("SIGTERM");
    await program.exited;
    assert.deepEqual(readdirSync(world.path("b")), ["y"]);
    assert.deepEqual(readdirSync(world.path("in")), ["x"]);
    assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
    assert.deepEqual(readdirSync(world.path("in")), ["x"], "also the next start does not delete it");

    const json = JSON.parse((await runProgram(["why", "--json", "x", "--config", config])).out) as {
      files: { reasons: { code: string; id: string }[] }[];
    };
    const id = json.files[0]?.reasons.find(({ code }) => code === "forgotten")?.id ?? "";
    assert.equal(
      (await filesync("retry", id)).out,
      'in:x → b [ID]: sent again, unless the target has it\nnothing moves while no daemon runs: start it with "filesync run"',
    );
    assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
    assert.equal(readFileSync(world.path("b/x"), "utf8"), "content of x");
    assert.deepEqual(readdirSync(world.path("in")), [], "now that all have it");
  });

test("what is given up while something of it is at the target can be sent again only when that was taken away, and it says so", async (t) => {
  const world = new World(t);
  world.mkdir("a");
  world.mkdir("b");
  world.file("in/x", "content of x");
  const config = world.config({ devices: { in: local("in"), a: local("a"), b: local("b") }, routes: [{ from: "in", to: ["a", "b"] }] });
  assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
  const journal = await Journal.open(world.path("state"));
  await journal.commit(() =>
    journal.run("UPDATE deliveries SET state = 'parked', begun = 1, fault = 'rejected', receipt = NULL WHERE target = 'b'"),
  );
  const id = journal.get<{ id: string }>("SELECT id FROM deliveries WHERE target = 'b'")?.id ?? "";
  await journal.close();
  const filesync = filesyncOn(world, config);
  assert.equal((await filesync("forget", id)).out, "in:x → b [ID]: given up; what b may have of an unfinished upload is taken away there");
  assert.equal(
    (await filesync("retry", id)).out,
    [
      "in:x → b [ID]: was given up, and what was sent of it is still to be taken away at b; it can be sent again after that: filesync retry ID",
      'nothing moves while no daemon runs: start it with "filesync run"',
    ].join("\n"),
  );
  assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
  assert.match((await filesync("retry", id)).out, /^in:x → b \[ID\]: sent again/);
});

test("forget lets go of a target that left the configuration, and of the spool's copy that nobody needs", async (t) => {
  const world = new World(t);
  world.mkdir("a");
  world.file("in/x", "content of x");
  const config = world.config({
    devices: { in: local("in", { inPlace: false }), a: local("a"), old: down },
    routes: [{ from: "in", to: ["a", "old"] }],
  });
  assert.equal((await runProgram(["run", "--once", "--config", config])).code, 3);
  world.config({ devices: { in: local("in", { inPlace: false }), a: local("a") }, routes: [{ from: "in", to: ["a"] }] });
  const filesync = filesyncOn(world, config);
  const why = (await filesync("why", "x")).out;
  assert.match(why, /→ old: "old" is not in the configuration: put it back, or give this up: filesync forget ID/);
  assert.doesNotMatch(why, /tried again/);
  assert.deepEqual(await filesync("forget", "a"), {
    code: 2,
    out: "",
    err: 'filesync: "a" is a device of the configuration, and nothing is told as lost there: name a path or an id ("filesync status" lists what was set aside)',
  });
  // It was to be begun: what an answer that was lost left behind nobody knows.
  assert.match(
    (await filesync("forget", "old")).out,
    /^in:x → old \[ID\]: given up; what old may have of an unfinished upload stays there/,
  );
  const run = await runProgram(["run", "--once", "--json", "--config", config]);
  assert.equal(run.code, 0, run.out);
  assert.doesNotMatch(run.out, /waits for/);
});

test("forget of a file that is being sent: a route that brings it goes on; once none does it is stopped, and its partial taken away", async (t) => {
  const world = new World(t);
  for (const dir of ["a", "b"]) world.mkdir(dir);
  world.file("in/x", "x".repeat(2_000_000));
  const devices = { in: local("in", { inPlace: false }), a: local("a"), b: local("b", { maxRate: "20KiB/s" }) };
  const route = { from: "in", to: ["a", "b"], into: "" };
  const config = world.config({ devices, routes: [route] });
  const filesync = filesyncOn(world, config);
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what, message }) => what === "delivered" && message.includes("→ a"), "a has it");
  await until("a part of it at b", () => readdirSync(world.path("b")).length > 0);
  assert.match(
    (await filesync("forget", "x")).out,
    /^in:x → b \[ID\]: left as it is, because it is being sent at this moment: to stop it, exclude it in its route \("exclude"\), reload \(SIGHUP\), and say this again$/m,
  );
  world.config({ devices, routes: [{ ...route, to: ["a"] }] });
  program.signal("SIGHUP");
  await program.until(({ what }) => what === "reload", "read anew");
  assert.deepEqual(await filesync("forget", "x"), {
    code: 0,
    out: "in:x → b [ID]: given up; what b may have of an unfinished upload is taken away there",
    err: "",
  });
  await until("b to be as it was", () => readdirSync(world.path("b")).length === 0);
  assert.match((await filesync("why", "x")).out, /→ b: given up by a person/);
  program.signal("SIGTERM");
  await program.exited;
  assert.ok(!program.events.some(({ what, message }) => what === "delivered" && message.includes("→ b")));
});

test("what was sent of a file to a target that left the configuration stays there, and forget says so", async (t) => {
  const world = new World(t);
  world.mkdir("a");
  world.file("in/x", "content of x");
  const config = world.config({ devices: { in: local("in"), a: local("a") }, routes: [{ from: "in", to: ["a"] }] });
  assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
  const journal = await Journal.open(world.path("state"));
  await journal.commit(() => journal.run("UPDATE deliveries SET state = 'ready', begun = 1, receipt = NULL, target = 'old'"));
  await journal.close();
  assert.equal(
    (await filesyncOn(world, config)("forget", "old")).out,
    "in:x → old [ID]: given up; what old may have of an unfinished upload stays there, as it is not in the configuration",
  );
});

test("what was found under a route that was taken out still goes; why says so, and forget gives it up", async (t) => {
  const world = new World(t);
  world.mkdir("a");
  world.mkdir("b");
  for (const name of ["x", "y"]) world.file(`in/${name}`, `content of ${name}`);
  const devices = { in: local("in", { inPlace: false }), a: local("a"), b: local("b", { when: { interface: "nosuch0" } }) };
  const config = world.config({ devices, routes: [{ from: "in", to: ["a", "b"], into: "" }] });
  assert.equal((await runProgram(["run", "--once", "--config", config])).code, 3);
  const filesync = filesyncOn(world, config);
  assert.match((await filesync("forget", "x")).out, /^in:x → b \[ID\]: left as it is, because it can still be delivered$/m);
  world.config({ devices: { ...devices, b: local("b") }, routes: [{ from: "in", to: ["a"], into: "" }] });
  assert.match(
    (await filesync("why", "x")).out,
    /→ b: no route brings it to b any more; found while one did, it still goes; to give it up: filesync forget ID/,
  );
  assert.equal((await filesync("forget", "x")).out, "in:x → b [ID]: given up; no file was touched");
  const run = await runProgram(["run", "--once", "--json", "--config", config]);
  assert.equal(run.code, 0, run.out);
  assert.deepEqual([world.size("b/x"), world.size("b/y"), world.size("a/x")], [-1, 12, 12]);
});

test("verify: proved, damaged, missing; it says what to do, and that does it", async (t) => {
  const world = new World(t);
  world.mkdir("a");
  for (const name of ["x", "y", "z"]) world.file(`in/${name}`, `content of ${name}`);
  const ground = await startGround(world.path("ground"));
  t.after(() => ground.program.kill());
  const config = world.config({
    devices: {
      in: local("in", { inPlace: false }),
      a: local("a"),
      ftp: { type: "ftp", host: "127.0.0.1", port: ground.port, user: "plane", password: "secret" },
    },
    routes: [{ from: "in", to: ["a", "ftp"], into: "" }],
  });
  assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
  const filesync = filesyncOn(world, config);
  const good = await filesync("verify");
  assert.equal(good.code, 0, good.out);
  assert.equal(good.out.split("\n").at(-1), "6 deliveries: 6 proved");
  assert.deepEqual((await filesync("verify", "x")).out.split("\n").sort(), [
    "2 deliveries: 2 proved",
    "in:x at in: its source has it, with the same size and time (by size)",
    "in:x at spool: its copy in the spool is whole (by digest)",
    "in:x → a:x: a holds the content that was delivered (by digest)",
    "in:x → ftp:x: ftp holds the content that was delivered (by digest)",
  ]);
  writeFileSync(world.path("a/x"), "CONTENT of x");
  rmSync(`${ground.root}/y`);
  const [copy] = readdirSync(world.path("state/spool")).filter(
    (name) => !name.includes(".") && readFileSync(world.path(`state/spool/${name}`), "utf8") === "content of z",
  );
  writeFileSync(world.path(`state/spool/${copy ?? ""}`), "CONTENT of z");
  const bad = async () => {
    const { code, out } = await filesync("verify");
    assert.equal(code, 3);
    return out
      .split("\n")
      .filter((line) => line.startsWith("WRONG") || line.includes("deliveries"))
      .sort();
  };
  const expected = [
    "6 deliveries: 4 proved, 3 wrong",
    "WRONG  in:x → a:x: another content of the same size is there; to send it again: filesync retry ID",
    "WRONG  in:y → ftp:y: it is not there any more; to send it again: filesync retry ID",
    "WRONG  in:z at spool: its copy in the spool is damaged; to have it read again from in: rm DIR/state/spool/ID",
  ];
  assert.deepEqual(await bad(), expected);
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what }) => what === "ready", "ready");
  assert.deepEqual(await bad(), expected, "through the daemon's devices it is the same");
  const id = /retry ([0-9a-f]{16})/.exec((await runProgram(["verify", "y", "--config", config])).out)?.[1] ?? "";
  assert.equal((await filesync("retry", id)).out, "in:y → ftp [ID]: sent again, unless the target has it");
  await program.until(({ what, message }) => what === "delivered" && message.startsWith("in:y → ftp"), "y again");
  assert.equal(readFileSync(`${ground.root}/y`, "utf8"), "content of y");
  assert.equal((await filesync("verify", "y")).code, 0);
});

test("verify: what took the place of a delivered file and is none is wrong, whatever its size; where the place itself is not there, nobody knows", async (t) => {
  const world = new World(t);
  world.mkdir("a");
  world.file("in/pipe", "");
  world.file("in/dir", "content");
  symlinkSync(world.mkdir("mnt"), world.path("disk"));
  const { port, root, program } = await startGround(world.path("ground"));
  t.after(() => program.kill());
  const config = world.config({
    devices: {
      ...{ in: local("in"), a: local("a"), disk: local("disk/b", { create: true }) },
      far: { type: "ftp", host: "127.0.0.1", port, user: "plane", password: "secret", root: "mnt" },
    },
    routes: [{ from: "in", to: ["a", "disk", "far"], into: "" }],
  });
  assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
  for (const dir of [world.dir, root]) renameSync(join(dir, "mnt"), join(dir, "not mounted"));
  for (const name of ["pipe", "dir"]) rmSync(world.path(`a/${name}`));
  execFileSync("mkfifo", [world.path("a/pipe")]);
  world.mkdir("a/dir");
  const { code, out } = await filesyncOn(world, config)("verify");
  assert.equal(code, 3);
  assert.deepEqual(
    out
      .split("\n")
      .filter((line) => !line.startsWith("in:pipe at") && !line.startsWith("in:dir at"))
      .sort(),
    [
      "6 deliveries: 0 proved, 2 wrong, 4 could not be looked at",
      "WRONG  in:dir → a:dir: what is there now is a directory; to send it again: filesync retry ID",
      "WRONG  in:pipe → a:pipe: what is there now is a pipe; to send it again: filesync retry ID",
      ...["dir", "pipe"].flatMap((name) => [
        `unknown  in:${name} → disk:${name}: DIR/disk is a link to DIR/mnt, which is not there: mount or make that, or remove the link`,
        `unknown  in:${name} → far:${name}: nothing is to be seen there: the root cannot be entered: the server said "No such file or directory."; is its disk not mounted?`,
      ]),
    ],
  );
});

test(
  "another user's state directory: which user, not a stack trace",
  { skip: process.getuid?.() === 0 ? false : "needs root" },
  async (t) => {
    const world = new World(t);
    world.mkdir("out");
    world.file("in/x", "x");
    const config = world.config({ devices: { in: local("in"), out: local("out") }, routes: [{ from: "in", to: ["out"] }] });
    assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
    chmodSync(world.dir, 0o755);
    const nobody = { uid: 65534, gid: 65534 };
    for (const command of [["why", "x"], ["retry", "--all"], ["status"]]) {
      const run = await runProgram([...command, "--config", config], nobody);
      assert.equal(run.code, 2);
      assert.match(
        run.err,
        /^filesync: (permission denied for .*state.*: (it belongs to the user with id 0; run this as that user, or as root|run this as the daemon's user)|no FileSync runs.*)\n$/,
      );
    }
    chownSync(world.path("state"), 0, 0);
    chmodSync(world.path("state"), 0o755);
    assert.match(
      (await runProgram(["why", "x", "--config", config], nobody)).err,
      /it belongs to the user with id 0; run this as that user, or as root/,
    );
    assert.ok(existsSync(world.path("out/v/in/x")));
  },
);
