/** The campaign's own judges: each clause of the checker turns red at a planted defect, and only that clause; the ledger, the schedule and the power cut do what they say. */
import assert from "node:assert/strict";
import { DatabaseSync } from "@photostructure/sqlite";
import { createHash } from "node:crypto";
import { appendFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { checkJournal, checkReceipts, checkSource, checkTarget, contentOf, missingAt, type ExpectedTarget } from "./campaign/checker.js";
import { Ledger, tooDear } from "./campaign/ledger.js";
import { pilotFinding } from "./campaign/pilot.js";
import { tear, unsynced } from "./campaign/power.js";
import { faultKinds, schedule } from "./campaign/schedule.js";
import { runProgram } from "./process.js";
import { Random } from "./random.js";
import { treeOf } from "./trees.js";
import { World } from "./world.js";

test("each clause of the checker is red at its defect", async (t) => {
  const world = new World(t);
  world.mkdir("out");
  for (const name of ["a.bin", "b.bin", "taken.bin", "grown.bin"]) world.file(`in/${name}`, `content of ${name}`);
  world.file("out/x/taken.bin", "somebody else's");
  const old = contentOf(readFileSync(world.path("in/grown.bin")));
  appendFileSync(world.path("in/grown.bin"), " and more");
  world.file("in/grown.bin", readFileSync(world.path("in/grown.bin")), 5);
  const config = world.config({
    devices: { in: { type: "local", dir: "in", inPlace: false }, out: { type: "local", dir: "out" } },
    routes: [{ from: "in", to: ["out"], into: "x" }],
  });
  assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
  const files = new Map([...treeOf(world.path("in"))].map(([path, content]) => [`x/${path}`, [content]]));
  files.get("x/grown.bin")?.unshift(old);
  const expected: ExpectedTarget = {
    name: "out",
    root: world.path("out"),
    files,
    foreign: new Map([["x/taken.bin", contentOf(Buffer.from("somebody else's"))]]),
  };
  const state = world.path("state");
  const source = treeOf(world.path("in"));
  const check = () =>
    [
      ...checkTarget(expected),
      ...checkReceipts(state, [expected]),
      ...checkJournal(state),
      ...checkSource("in", world.path("in"), source),
    ].map((finding) => finding.split(":", 1)[0]);
  assert.deepEqual(check(), []);
  assert.deepEqual(missingAt(expected), []);
  // A stranger's file of the same size is not what is waited for.
  const size = readFileSync(world.path("in/a.bin")).length;
  assert.deepEqual(missingAt({ ...expected, foreign: new Map([["x/a.bin", `${size} 00`]]) }), ["x/a.bin"]);

  /** Plants a defect in a file, sees what is found, and takes it back. */
  const planted = (name: string, plant: (path: string) => void, clauses: string[], what: string) => {
    const path = world.path(name);
    const before = existsSync(path) ? readFileSync(path) : undefined;
    plant(path);
    assert.deepEqual([...new Set(check())].sort(), clauses, what);
    if (before === undefined) rmSync(path);
    else writeFileSync(path, before);
    assert.deepEqual(check(), [], `after: ${what}`);
  };
  const taken = `x/taken~${createHash("sha256").update("content of taken.bin").digest("hex").slice(0, 8)}.bin`;
  planted("out/x/a.bin", (path) => rmSync(path), ["lost", "untrue"], "a file that is not there");
  planted(`out/${taken}`, (path) => rmSync(path), ["lost", "untrue"], "another name that is not there");
  planted("out/x/b.bin", (path) => writeFileSync(path, "Content of b.bin"), ["lost", "untrue", "wrong"], "other bytes of the same length");
  planted("out/x/b.bin", (path) => truncateSync(path, 3), ["lost", "untrue", "wrong"], "a part of a file under its name");
  planted("out/x/grown.bin", (path) => writeFileSync(path, "content of grown.bin"), ["lost", "untrue"], "the version before");
  planted("out/x/taken.bin", (path) => writeFileSync(path, "content of taken.bin"), ["overwritten"], "a stranger's file, replaced");
  planted("out/x/taken.bin", (path) => rmSync(path), ["overwritten"], "a stranger's file, gone");
  planted("out/x/new.bin", (path) => writeFileSync(path, "?"), ["wrong"], "a file that nobody made");
  planted("out/x/.a.bin.01-02.part", (path) => writeFileSync(path, "?"), ["left"], "a partial");
  planted("in/a.bin", (path) => rmSync(path), ["source"], "a source's file that is gone");
  planted("in/a.bin", (path) => appendFileSync(path, "?"), ["source"], "a source's file that was written to");
  planted("state/spool/0123456789abcdef", (path) => writeFileSync(path, "?"), ["left"], "a spool file of nobody");
  planted(
    "state/receipts.jsonl",
    (path) => writeFileSync(path, readFileSync(path, "utf8").split("\n").slice(1).join("\n")),
    ["untrue"],
    "a delivery that is done without a line",
  );
  planted(
    "state/receipts.jsonl",
    (path) => writeFileSync(path, readFileSync(path, "utf8").replace(/"digest":"sha256:\w+",?/, "")),
    ["untrue"],
    "a proof by digest without one",
  );
  planted("state/journal.damaged-1.db", (path) => writeFileSync(path, ""), ["damaged"], "a journal that was set aside");
  const change = (sql: string) => (path: string) => {
    const db = new DatabaseSync(path);
    db.exec(`${sql}; PRAGMA wal_checkpoint(TRUNCATE)`);
    db.close();
  };
  planted(
    "state/journal.db",
    change("UPDATE deliveries SET state = 'parked' WHERE path LIKE '%a.bin'"),
    ["stuck"],
    "a delivery that was set aside",
  );
  planted(
    "state/journal.db",
    change("UPDATE versions SET digest = 'sha256:0' WHERE path = 'a.bin'"),
    ["wrong"],
    "a spool file that is not what the journal says",
  );
});

test("what grew under another name keeps that, and what only has the name of something shorter is wrong", (t) => {
  const world = new World(t);
  const [short, long, another] = ["begun", "begun and more", "quite another"].map((text) => Buffer.from(text));
  assert.ok(short !== undefined && long !== undefined && another !== undefined);
  const name = `a~${createHash("sha256").update(short).digest("hex").slice(0, 8)}.bin`;
  const check = (last: Buffer) => {
    world.file(`out/${name}`, last);
    const files = new Map([["a.bin", [short, last].map(contentOf)]]);
    const expected = { name: "out", root: world.path("out"), files, foreign: new Map() };
    return [missingAt(expected), checkTarget(expected).map((finding) => finding.split(":", 1)[0])];
  };
  assert.deepEqual(check(long), [[], []]);
  assert.deepEqual(check(another), [[], ["lost", "wrong"]]);
});

test("the ledger: what is carried below the mark is moved again; the price is closed by the first new byte", () => {
  let faults = 0;
  let nowMs = 0;
  const ledger = new Ledger(
    () => faults,
    () => nowMs,
  );
  const first = ledger.begin("/a", 0);
  for (let n = 0; n < 12; n++) {
    nowMs += 1000;
    first(2 ** 20);
  }
  faults = 1;
  // From 9 MiB on: three again, then one new.
  ledger.begin("/a", 9 * 2 ** 20)(4 * 2 ** 20);
  assert.deepEqual(ledger.prices, [{ path: "/a", bytes: 3 * 2 ** 20, transferMs: 3000, faults: 1, excused: false }]);
  assert.deepEqual(tooDear(ledger.prices), []);
  // From zero: thirteen again.
  faults = 2;
  ledger.begin("/a", 0)(14 * 2 ** 20);
  assert.equal(tooDear(ledger.prices).length, 1);
  // Little, but it had taken long.
  const slow = ledger.begin("/slow", 0);
  for (let n = 0; n < 100; n++) {
    nowMs += 1000;
    slow(64 * 1024);
  }
  faults = 3;
  ledger.begin("/slow", 80 * 64 * 1024)(21 * 64 * 1024);
  assert.equal(tooDear(ledger.prices).at(-1)?.path, "/slow");
  // Begun anew and never finished: settled at the end.
  ledger.begin("/b", 0)(9 * 2 ** 20);
  ledger.begin("/b", 0)(8 * 2 ** 20);
  ledger.excuse("/c");
  ledger.begin("/c", 0)(9 * 2 ** 20);
  ledger.begin("/c", 0)(9 * 2 ** 20);
  ledger.settle();
  assert.deepEqual(
    tooDear(ledger.prices).map(({ path }) => path),
    ["/a", "/slow", "/b"],
  );
});

test("the same seed gives the same schedule, and every kind of fault has its turn", () => {
  const options = { rounds: 20, livesPerRound: 12, lifeMs: 5000, stopMs: 60_000 };
  const plan = schedule({ seed: 5, ...options });
  assert.deepEqual(schedule({ seed: 5, ...options }), plan);
  assert.notDeepEqual(schedule({ seed: 6, ...options }), plan);
  const lives = plan.flatMap((round) => round.lives);
  const kinds = new Set(lives.flatMap((life) => life.faults.map(({ kind }) => kind)));
  assert.deepEqual([...kinds].sort(), [...faultKinds].sort());
  assert.deepEqual([...new Set(lives.map(({ ending }) => ending))].sort(), [
    "kill",
    "kill while stopping",
    "killed at a call",
    "power cut",
    "stop",
  ]);
  const without = schedule({ seed: 5, ...options, without: new Set(["power cut", "killed at a call", "clock"]) });
  assert.ok(
    without.every((round) => round.lives.every((life) => ["kill", "kill while stopping", "stop"].includes(life.ending) && !life.clock)),
  );
});

test("a power cut takes what was not synced, and nothing else", (t) => {
  const world = new World(t);
  const dir = world.mkdir("m");
  const path = join(dir, "f");
  const log = [
    `10 openat(AT_FDCWD</>, "${path}", O_RDWR|O_CREAT, 0644) = 5<${path}>`,
    `10 pwrite64(5<${path}>, ""..., 8192, 0) = 8192`,
    `11 fdatasync(5<${path}> <unfinished ...>`,
    // While the sync runs: not part of it.
    `10 pwrite64(5<${path}>, ""..., 4096, 8192) = 4096`,
    `11 <... fdatasync resumed>) = 0`,
    `10 fsync(6<${dir}>) = 0`,
    `12 write(7<${dir}/log>, ""..., 10) = 10`,
    `12 fdatasync(7<${dir}/log>) = -1 EIO (Input/output error)`,
    // Killed in the middle: what it did is not known.
    `12 write(7<${dir}/log>, ""..., 7) = ?`,
    `10 rename("${dir}/t", "${dir}/named") = 0`,
    `10 openat(AT_FDCWD</>, "${dir}/made", O_RDWR|O_CREAT, 0644) = 8<${dir}/made>`,
    `10 pwrite64(9<${world.path("else")}>, ""..., 8192, 0) = 8192`,
  ].join("\n");
  const lost = unsynced(log, [dir], new Set([join(dir, "log")]));
  assert.deepEqual(
    [...lost.bytes],
    [
      [path, [{ from: 8192, to: 12_288 }]],
      [
        join(dir, "log"),
        [
          { from: -10, to: Infinity },
          { from: 0, to: 0 },
        ],
      ],
    ],
  );
  assert.deepEqual(lost.names, [
    { kind: "renamed", to: join(dir, "named"), from: join(dir, "t") },
    { kind: "made", to: join(dir, "made") },
  ]);
  const made = () => {
    rmSync(dir, { recursive: true });
    mkdirSync(dir);
    writeFileSync(path, Buffer.alloc(12_288, 1));
    writeFileSync(join(dir, "log"), "synced, and not synced");
    writeFileSync(join(dir, "named"), "named");
    writeFileSync(join(dir, "made"), "");
  };
  const seen = new Set<string>();
  for (let seed = 0; seed < 200; seed++) {
    made();
    for (const what of tear(lost, new Random(seed))) seen.add(what.replace(/\d+/g, "N"));
    assert.ok(readFileSync(path).subarray(0, 8192).equals(Buffer.alloc(8192, 1)), "synced bytes were touched");
    assert.equal(readFileSync(join(dir, "log")).subarray(0, 12).toString("latin1"), "synced, and ");
    assert.ok(existsSync(join(dir, "named")) !== existsSync(join(dir, "t")));
    if (existsSync(join(dir, "t"))) renameSync(join(dir, "t"), join(dir, "named"));
  }
  const ends = [...seen].map((text) => text.replace(/^.*\/m(?=\/)/, ""));
  for (const end of [
    "/f: cut from N to N",
    "/f: N bytes zero of N",
    "/f: N bytes garbage of N",
    "/named: renamed undone",
    "/made: made undone",
  ])
    assert.ok(ends.includes(end), `${end} is not among ${ends.join("; ")}`);
});

test("a ground station that is not let in at its first try is found, unless the cause is none of ours", () => {
  const calm = { lossy: 0, disturbed: false, left: false, early: false, own: false };
  const loads = [
    { whole: true, refusals: 0, lost: 0 },
    { whole: true, refusals: 1, lost: 0 },
    { whole: true, refusals: 0, lost: 1 },
    { whole: false, refusals: 40, lost: 0 },
  ];
  const found = (at: Partial<typeof calm>) =>
    loads.flatMap((loaded, n) => (pilotFinding(loaded, { ...calm, ...at }) === undefined ? [] : [n]));
  assert.deepEqual(found({}), [1, 2, 3]);
  assert.deepEqual(found({ own: true }), [1, 2, 3]);
  assert.deepEqual(found({ early: true }), [2, 3], "who was there before us is let in once it was refused");
  assert.deepEqual(found({ lossy: 0.02 }), [2, 3], "a heartbeat may be lost");
  for (const at of [{ lossy: 0.3 }, { disturbed: true }, { left: true }, { early: true, own: true }]) assert.deepEqual(found(at), []);
  assert.match(pilotFinding(loads[3] ?? assert.fail(), calm) ?? "", /^did not load its file, refused 40 times/);
});
