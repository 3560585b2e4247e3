/**
 * The disk of the state directory is full, or fails, when the program is asked to stop: that is a stop like any other, and the next start finds everything.
 * The log of the journal stays where the database could not take it over, or not surely.
 */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { test, type TestContext } from "node:test";
import { mainJs, Program, runProgram } from "./process.js";
import { assertReceiptsTrue, treeOf } from "./trees.js";
import { World } from "./world.js";

const files = 60;

function worldOf(t: TestContext): { world: World; config: string } {
  const world = new World(t);
  world.mkdir("out");
  world.mkdir("in");
  return {
    world,
    config: world.config({
      stateDir: "small/state",
      // Each listing is noted, which a disk that is full by then would refuse before the stop.
      devices: { in: { type: "local", dir: "in", interval: "1h" }, out: { type: "local", dir: "out" } },
      routes: [{ from: "in", to: ["out"], into: "" }],
    }),
  };
}

function put(world: World): void {
  for (let n = 0; n < files; n++) world.file(join("in", `a-rather-long-name-of-a-file-so-that-the-journal-grows-${n}`), `content ${n}`, n);
}

const delivered = (program: Program) => program.events.filter(({ what }) => what === "delivered").length;

/** Stops it in order, with nothing for a person to read but that; then starts again, where nothing is delivered a second time. */
async function stopsWell(world: World, config: string, program: Program, mend: () => void): Promise<void> {
  program.signal("SIGTERM");
  assert.equal(await program.exited, 0, program.stderr);
  assert.equal(program.stderr, "");
  assert.ok(
    program.events.every(({ level }) => level !== "error"),
    program.events.map(({ message }) => message).join("\n"),
  );
  assert.ok(world.size("small/state/journal.db-wal") > 0, "the log is there");
  mend();
  const next = await runProgram(["run", "--once", "--json", "--config", config]);
  assert.equal(next.code, 0, next.out + next.err);
  assert.equal(next.out.includes('"delivered"'), false, next.out);
  assert.equal(assertReceiptsTrue(world.path("small/state"), { out: world.path("out") }).size, files);
  assert.deepEqual(treeOf(world.path("out")), treeOf(world.path("in")));
}

const needsRoot = process.getuid?.() === 0 ? false : "needs root to mount a small file system";

test("a stop on a full disk", { skip: needsRoot }, async (t) => {
  const { world, config } = worldOf(t);
  if (!world.mount("small", 120)) {
    t.skip("no loop devices here");
    return;
  }
  put(world);
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(() => delivered(program) === files, "all files");
  world.fill("small/ballast");
  await stopsWell(world, config, program, () => rmSync(world.path("small/ballast")));
});

test("a stop on a disk that became read-only; a start on it says so", { skip: needsRoot }, async (t) => {
  const { world, config } = worldOf(t);
  if (!world.mount("small", 120)) {
    t.skip("no loop devices here");
    return;
  }
  // What the kernel does with a card that fails, while files are open.
  const mounted = spawnSync("findmnt", ["-n", "-o", "SOURCE", world.path("small")], { encoding: "utf8" });
  const trigger = `/sys/fs/ext4/${basename(mounted.stdout.trim())}/trigger_fs_error`;
  const become = (options: string) => spawnSync("mount", ["-o", `remount,${options}`, world.path("small")]).status;
  if (!existsSync(trigger) || become("errors=remount-ro") !== 0) {
    t.skip("no errors of ext4 can be made here");
    return;
  }
  put(world);
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(() => delivered(program) === files, "all files");
  writeFileSync(trigger, "1");
  await stopsWell(world, config, program, () => {
    const refused = spawnSync(process.execPath, [mainJs, "run", "--once", "--config", config], { encoding: "utf8" });
    assert.equal(refused.status, 2);
    const state = world.path("small/state");
    const words = "cannot be written: the file system is read-only; mount it for writing";
    assert.equal(refused.stderr, `filesync: the state directory ${state} ${words}, or set "stateDir" to a directory elsewhere\n`);
    const offline = (...args: string[]) => spawnSync(process.execPath, [mainJs, ...args, "--config", config], { encoding: "utf8" });
    const forget = offline("forget", "in:nothing");
    assert.deepEqual([forget.status, forget.stderr], [2, `filesync: ${state} ${words}\n`]);
    const status = offline("status");
    assert.deepEqual([status.status, status.stderr], [0, ""]);
    world.mend("small");
  });
});

const strace =
  spawnSync("strace", ["-f", "--seccomp-bpf", "-qq", "-e", "inject=fsync:error=EIO:when=1", "-o", "/dev/null", "true"]).status === 0;
for (const call of ["pwrite64", "fsync"])
  test(`a stop on a disk that fails at ${call}`, { skip: strace ? false : "strace is missing, or may not trace here" }, async (t) => {
    const { world, config } = worldOf(t);
    put(world);
    const program = new Program(["run", "--json", "--config", config]);
    t.after(() => program.kill());
    await program.until(() => delivered(program) === files, "all files");
    // The database is written and synced by a checkpoint alone.
    const path = world.path("small/state/journal.db");
    const args = ["-f", "-p", `${program.pid}`, "-P", path, "-e", `trace=${call}`, "-e", `inject=${call}:error=EIO`];
    const failing = spawn("strace", args, { stdio: ["ignore", "ignore", "pipe"] });
    let said = "";
    await new Promise<void>((resolve) =>
      failing.stderr.setEncoding("utf8").on("data", (text: string) => {
        said += text;
        if (said.includes("attached")) resolve();
      }),
    );
    const closed = once(failing, "close");
    await stopsWell(world, config, program, () => undefined);
    await closed;
    assert.match(said, /EIO .*INJECTED/);
  });

test(
  "a state directory on a file system that keeps no sockets (FAT): said, with what to do, and nothing is left running",
  { skip: strace ? false : "strace is missing, or may not trace here" },
  async (t) => {
    const { world, config } = worldOf(t);
    const wrap = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=bind", "-e", "inject=bind:error=EPERM"];
    const program = new Program(["run", "--json", "--config", config], { wrap });
    t.after(() => program.kill());
    assert.equal(await program.exited, 2, program.stderr);
    const words = 'its file system keeps none, as FAT, exFAT and NTFS; "stateDir" needs one of Linux, such as ext4';
    assert.equal(program.stderr, `filesync: no socket can be made in ${world.path("small/state")}: ${words}\n`);
  },
);
