/**
 * What FAT and exFAT do otherwise: names that are one there, files that are too large. A name that a rename made is that of an empty file until the file itself is synced (Linux, `vfat_rename`); found by `npm run vm -- disks`. So whoever gives
 * a name syncs the file under it, but on file systems that are known not to need it. Seen by strace here, on one that nobody knows; what it does on FAT is seen there.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, renameSync, statfsSync } from "node:fs";
import { test, type TestContext } from "node:test";
import { until } from "../conformance/clause.js";
import { mountExfat, unmount } from "../small-disk.js";
import { statusOf } from "../sync/shared.js";
import { Program, runProgram } from "./process.js";
import { treeOf } from "./trees.js";
import { World } from "./world.js";

const strace = spawnSync("strace", ["-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "true"]).status === 0;
const skip = strace ? false : "strace is missing";
const ext4 = 0xef53;

/** A world whose `card` is an exFAT; undefined, and the test is skipped, where there can be none. */
function exfatIn(t: TestContext): World | undefined {
  const mounted: string[] = [];
  // Before the world is taken away.
  t.after(() => mounted.forEach(unmount));
  const world = new World(t);
  const card = world.mkdir("card");
  const why = mountExfat(world.path("image"), card);
  if (why === undefined) mounted.push(card);
  else t.skip(why);
  return why === undefined ? world : undefined;
}

/** What is synced, and when, while a file is delivered and archived in `disk`; `place`: what is synced of a path there. */
async function expectSynced(world: World, place: (path: string) => string): Promise<void> {
  world.file("disk/in/a.bin", Buffer.alloc(100_000, 1));
  world.mkdir("disk/out");
  const config = world.config({
    devices: { in: { type: "local", dir: "disk/in", archiveDir: "done" }, out: { type: "local", dir: "disk/out" } },
    routes: [{ from: "in", to: ["out"], into: "", afterDelivery: "archive" }],
  });
  const trace = ["strace", "-f", "--seccomp-bpf", "-y", "-qq", "-o", world.path("trace"), "-e", "trace=link,rename,fsync,write"];
  const program = new Program(["run", "--once", "--json", "--config", config], { wrap: trace });
  assert.equal(await program.exited, 0, program.stderr);
  const lines = readFileSync(world.path("trace"), "utf8").split("\n");
  const first = (what: RegExp, from = 0) => lines.findIndex((line, at) => at >= from && what.test(line));
  const syncs = (path: string) => new RegExp(`fsync\\(\\d+<[^>]*/${place(path)}>`);
  const named = first(/(link|rename)\(.*\/out\/a\.bin"/);
  assert.ok(named > 0);
  const synced = first(syncs("out/a.bin"), named);
  assert.ok(synced > 0, "synced under its name at the target");
  assert.ok(synced < first(/write\(\d+<[^>]*receipts\.jsonl>/), "before the receipt");
  const archived = first(/(link|rename)\(.*"[^"]*\/in\/a\.bin"/);
  assert.ok(archived > 0, "archived");
  assert.ok(first(syncs("in/done/a.bin"), archived) > 0, "synced under its name in the archive");
}

test("a file is synced under the name that it was given, before anybody hears of it", { skip }, async (t) => {
  const world = new World(t);
  const disk = world.mkdir("disk");
  const { status, stderr } = spawnSync("mount", ["-t", "ramfs", "none", disk], { encoding: "utf8" });
  if (status !== 0) {
    t.skip(`no other file system can be mounted: ${stderr.trim()}`);
    return;
  }
  try {
    await expectSynced(world, (path) => path);
  } finally {
    unmount(disk);
  }
});

test("where a name is durable with its directory that is synced, before anybody hears of it", { skip }, async (t) => {
  const world = new World(t);
  if (statfsSync(world.dir).type !== ext4) {
    t.skip("the directory for temporary files is not on ext4");
    return;
  }
  await expectSynced(world, (path) => path.slice(0, path.lastIndexOf("/")));
});

test("names that differ only in case, delivered to an exFAT at once: none takes the other's place", async (t) => {
  const world = exfatIn(t);
  if (world === undefined) return;
  const names = ["F.TXT", "f.txt", "F.txt"];
  for (let dir = 0; dir < 12; dir++) for (const name of names) world.file(`in/${dir}/${name}`, `${dir} ${name}`);
  const contents = (dir: string) => [...treeOf(world.path(dir)).values()].sort();
  const sent = contents("in");
  const config = world.config({
    devices: { in: { type: "local", dir: "in" }, card: { type: "local", dir: "card" } },
    routes: [{ from: "in", to: ["card"], into: "", afterDelivery: "delete" }],
  });
  const program = new Program(["run", "--once", "--json", "--config", config]);
  assert.equal(await program.exited, 0, program.stderr);
  assert.deepEqual(contents("card"), sent);
  assert.deepEqual(contents("in"), []);
});

test("an archive that is spelled in another case on an exFAT: what is in it is not found as new, and archived, again and again", async (t) => {
  const world = exfatIn(t);
  if (world === undefined) return;
  world.mkdir("card/Archive");
  world.file("card/a.bin", "content of a");
  world.mkdir("out");
  const start = (archiveDir: string) => {
    const config = world.config({
      devices: { card: { type: "local", dir: "card", archiveDir, interval: "1s" }, out: { type: "local", dir: "out" } },
      routes: [{ from: "card", to: ["out"], into: "", afterDelivery: "archive" }],
    });
    const program = new Program(["run", "--json", "--config", config]);
    t.after(() => program.kill());
    return program;
  };
  const program = start("archive");
  await program.until(({ what }) => what === "again" || what === "released", "that it is archived, or not");
  assert.match(program.events.map(({ message }) => message).join("\n"), /its archive archive is there as Archive/);
  program.signal("SIGTERM");
  await program.exited;
  const other = start("Archive");
  await until("that it is archived", () => existsSync(world.path("card/Archive/a.bin")));
  world.file("card/b.bin", "content of b");
  await until("that the next is archived", () => existsSync(world.path("card/Archive/b.bin")));
  other.signal("SIGTERM");
  await other.exited;
  assert.deepEqual([...treeOf(world.path("out")).keys()], ["a.bin", "b.bin"]);
  assert.deepEqual([...treeOf(world.path("card")).keys()], ["Archive/a.bin", "Archive/b.bin"]);
});

for (const others of [0, 250])
  test(
    `a name by which its file system finds nothing is told, not passed over as if it had gone (beside ${others} others)`,
    { skip },
    async (t) => {
      const world = new World(t);
      world.file("in/clip.", "content");
      for (let n = 0; n < others; n++) world.file(`in/${n}.bin`, "content");
      world.mkdir("out");
      const config = world.config({
        devices: { in: { type: "local", dir: "in" }, out: { type: "local", dir: "out" } },
        routes: [{ from: "in", to: ["out"], into: "" }],
      });
      // As FAT's driver does, which takes away the dot that another system let it end with.
      const denies = ["-P", world.path("in/clip."), "-e", "trace=statx", "-e", "inject=statx:error=ENOENT"];
      const program = new Program(["run", "--once", "--json", "--config", config], {
        wrap: ["strace", "-f", "-qq", "-o", "/dev/null", ...denies],
      });
      await program.exited;
      assert.match(
        program.events.map(({ message }) => message).join("\n"),
        /in:clip\.: left out: it is listed, and not found by that name/,
      );
    },
  );

for (const others of [0, 250])
  test(`a name that is removed and made anew while its directory is listed is found (beside ${others} others)`, { skip }, async (t) => {
    const world = new World(t);
    world.file("in/state.json", "content");
    for (let n = 0; n < others; n++) world.file(`in/${n}.bin`, "content");
    world.mkdir("out");
    const config = world.config({
      devices: { in: { type: "local", dir: "in" }, out: { type: "local", dir: "out" } },
      routes: [{ from: "in", to: ["out"], into: "", include: ["*.json"] }],
    });
    // Counted in each thread.
    const denies = ["-P", world.path("in/state.json"), "-e", "trace=statx", "-e", "inject=statx:error=ENOENT:when=1"];
    const program = new Program(["run", "--once", "--json", "--config", config], {
      wrap: ["env", "UV_THREADPOOL_SIZE=1", "strace", "-f", "-qq", "-o", "/dev/null", ...denies],
    });
    await program.exited;
    assert.doesNotMatch(program.events.map(({ message }) => message).join("\n"), /left out/);
    assert.deepEqual([...treeOf(world.path("out")).keys()], ["state.json"]);
  });

// More than the 16 MiB of the reserve.
const limited = spawnSync("prlimit", ["--fsize=20000000", "true"]).status === 0;

test(
  "a file that is too large for its target's file system, as beyond 4 GiB for FAT, is set aside, leaves nothing there, and others go",
  { skip: limited ? false : "prlimit is missing" },
  async (t) => {
    const world = new World(t);
    world.file("in/large.bin", Buffer.alloc(24_000_000, 1));
    world.file("in/small.bin", "small");
    world.mkdir("out");
    const config = world.config({
      devices: { in: { type: "local", dir: "in" }, out: { type: "local", dir: "out" } },
      routes: [{ from: "in", to: ["out"], into: "" }],
    });
    const program = new Program(["run", "--once", "--json", "--config", config], { wrap: ["prlimit", "--fsize=20000000"] });
    assert.equal(await program.exited, 3, program.stderr);
    assert.match(program.events.find(({ what }) => what === "parked")?.message ?? "", /too large for this file system/);
    assert.deepEqual([...treeOf(world.path("out")).keys()], ["small.bin"]);
  },
);

for (const mode of ["mirror", "two-way"] as const)
  test(
    `${mode}: what is too large for the other side's file system is sent there once, told, and leaves nothing there; all else goes on`,
    { skip: limited ? false : "prlimit is missing" },
    async (t) => {
      const world = new World(t);
      world.file("in/large.bin", Buffer.alloc(24_000_000, 1));
      world.mkdir("out");
      const own = { type: "local", settle: "0s", interval: "1s" };
      const config = world.config({
        devices: { in: { ...own, dir: "in" }, out: { ...own, dir: "out" } },
        routes: [{ from: "in", to: ["out"], mode }],
      });
      const program = new Program(["run", "--json", "--config", config], { wrap: ["prlimit", "--fsize=20000000"] });
      t.after(() => program.kill());
      const trouble = await program.until(({ what }) => what === "sync-trouble", "it is told");
      assert.match(trouble.message, /too large for this file system; it is tried again now and then/);
      for (const path of ["one.bin", "two.bin", "three.bin"]) {
        world.file(`in/${path}`, path);
        await until(`${path} to come`, () => existsSync(world.path(`out/${path}`)));
      }
      const { moved } = await statusOf(config);
      assert.ok(moved.pushed < 24_000_000, `${moved.pushed} bytes were sent`);
      // What is written anew is tried. By one rename: a round between the emptying and the writing would bring an empty file first,
      // and lay that into the trash for the next.
      world.file("new", "small by now");
      renameSync(world.path("new"), world.path("in/large.bin"));
      const there = world.path("out/large.bin");
      await until("that it comes", () => existsSync(there) && readFileSync(there, "utf8") === "small by now");
      program.signal("SIGTERM");
      await program.exited;
      assert.deepEqual(treeOf(world.path("out")), treeOf(world.path("in")));
    },
  );

test(
  "what was too large for the other side of a mirror is sent there at once when a person says that it is tried again",
  { skip: limited ? false : "prlimit is missing" },
  async (t) => {
    const world = new World(t);
    world.file("in/large.bin", Buffer.alloc(24_000_000, 1));
    world.mkdir("out");
    const config = world.config({
      devices: { in: { type: "local", dir: "in", settle: "0s" }, out: { type: "local", dir: "out" } },
      routes: [{ from: "in", to: ["out"], mode: "mirror" }],
    });
    const program = new Program(["run", "--json", "--config", config], { wrap: ["prlimit", "--fsize=20000000:unlimited"] });
    t.after(() => program.kill());
    await program.until(({ what }) => what === "sync-trouble", "it is told");
    assert.equal(spawnSync("prlimit", ["--pid", String(program.pid), "--fsize=unlimited"]).status, 0);
    assert.equal((await runProgram(["retry", "out", "--config", config])).out, "in ⇒ out: looks again now");
    await until("that it comes", () => existsSync(world.path("out/large.bin")));
    program.signal("SIGTERM");
    await program.exited;
  },
);
