/** A medium that fails at one place and is sound elsewhere (a bad block, a file system that a pull damaged): what lies there is brought once more, from where it is whole. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, renameSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { Program } from "./process.js";
import { Random } from "./random.js";
import { assertReceiptsTrue, assertSameTree, treeOf } from "./trees.js";
import { World } from "./world.js";

const strace =
  spawnSync("strace", ["-f", "--seccomp-bpf", "-qq", "-e", "inject=fsync:error=EIO:when=1", "-o", "/dev/null", "true"]).status === 0;
const skip = strace ? false : "strace is missing, or may not trace here";
const mib = 2 ** 20;

function worldOf(t: TestContext, source: object): { world: World; config: (limits: { in?: string; out?: string }) => string } {
  const world = new World(t);
  world.mkdir("in");
  world.file("in/log", new Random(7).bytes(12 * mib));
  const config = (limits: { in?: string; out?: string }) => {
    const rate = (maxRate: string | undefined) => (maxRate === undefined ? {} : { maxRate });
    return world.config({
      devices: {
        in: { type: "local", dir: "in", ...source, ...rate(limits.in) },
        out: { type: "local", dir: "out", create: false, ...rate(limits.out) },
      },
      routes: [{ from: "in", to: ["out"], into: "" }],
    });
  };
  return { world, config };
}

/** A run with a medium that fails at such a call at that path; at the n-th, for one thread does them all. What it said. */
async function failing(path: string, call: string, when: string, config: string): Promise<string> {
  const wrap = [
    "strace",
    "-f",
    "--seccomp-bpf",
    "-qq",
    "-o",
    "/dev/null",
    "-P",
    path,
    "-e",
    `trace=${call}`,
    "-e",
    `inject=${call}:error=EIO:when=${when}`,
  ];
  const program = new Program(["run", "--once", "--json", "--verbose", "--config", config], {
    wrap,
    env: { ...process.env, UV_THREADPOOL_SIZE: "1" },
  });
  assert.equal(await program.exited, 0, said(program) + program.stderr);
  return said(program);
}

function assertWhole(world: World): void {
  assertSameTree(treeOf(world.path("out")), treeOf(world.path("in")), "the target");
  assertReceiptsTrue(world.path("state"), { out: world.path("out") });
}

/** Whole in the spool, before its target is there. */
async function sealed(t: TestContext, world: World, config: string): Promise<void> {
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await until(program, () => existsSync(world.path("state/spool")) && existsSync(world.path("state/spool", `${spooledIn(world)}.json`)));
  program.signal("SIGTERM");
  assert.equal(await program.exited, 0, program.stderr);
}

const said = (program: Program) => program.events.map(({ message }) => message).join("\n");

const spooledIn = (world: World) => readdirSync(world.path("state/spool")).find((name) => /^[0-9a-f]{16}$/.test(name)) ?? "none";
/** Until what it does on a disk, of which it says nothing. */
async function until(program: Program, done: () => boolean): Promise<void> {
  let ended: unknown;
  void program.exited.then((code) => (ended = code));
  while (!done()) {
    assert.equal(ended, undefined, said(program) + program.stderr);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

for (const [what, call, when, words] of [
  [
    "its samples cannot be read in the spool",
    "pread64",
    "1",
    /what is in the spool is not its beginning; it is read again from the first byte/,
  ],
  [
    "what is between its samples cannot be read in the spool",
    "pread64",
    "3",
    /cannot read the spool file \S+: input\/output error \(the medium may be failing\); it is read from its source again/,
  ],
  [
    "the rest cannot be written in the spool, which takes others",
    "pwrite64",
    "1..3",
    /cannot write the spool file \S+state\/spool\/\S+: input\/output error \(the medium may be failing\); the disk takes other files: it is read from its source again/,
  ],
] as const)
  test(`of a file that is half pulled, ${what}: it is pulled anew`, { skip }, async (t) => {
    const { world, config } = worldOf(t, { inPlace: false });
    const first = new Program(["run", "--json", "--config", config({ in: "4MiB/s" })]);
    t.after(() => first.kill());
    await until(first, () => existsSync(world.path("state/spool")) && world.size(join("state/spool", spooledIn(world))) > 6 * mib);
    await first.kill();
    world.mkdir("out");
    const told = await failing(world.path("state/spool", spooledIn(world)), call, when, config({}));
    assert.match(told, words);
    assertWhole(world);
  });

test("a file in the spool cannot be read, and its source has it: it is pulled again", { skip }, async (t) => {
  const { world, config } = worldOf(t, { inPlace: false });
  await sealed(t, world, config({}));
  world.mkdir("out");
  const told = await failing(world.path("state/spool", spooledIn(world)), "pread64", "1", config({}));
  assert.match(told, /cannot read the spool file \S+: input\/output error \(the medium may be failing\); it is pulled again/);
  assertWhole(world);
});

test("a file in the spool cannot be read, and is the only copy: it is kept, and tried again", { skip }, async (t) => {
  const { world, config } = worldOf(t, { inPlace: false });
  await sealed(t, world, config({}));
  world.mkdir("out");
  world.mkdir("kept");
  renameSync(world.path("in/log"), world.path("kept/log"));
  const told = await failing(world.path("state/spool", spooledIn(world)), "pread64", "1..2", config({}));
  assert.match(told, /cannot read the spool file \S+: input\/output error \(the medium may be failing\); again in/);
  assertSameTree(treeOf(world.path("out")), treeOf(world.path("kept")), "the target");
});

test("the medium of a target fails at one partial, and takes other files: it is begun anew", { skip }, async (t) => {
  const { world, config } = worldOf(t, {});
  world.mkdir("out");
  const first = new Program(["run", "--json", "--config", config({ out: "4MiB/s" })]);
  t.after(() => first.kill());
  const partial = () => readdirSync(world.path("out")).find((name) => name.endsWith(".part")) ?? "none";
  await until(first, () => world.size(join("out", partial())) > 6 * mib);
  await first.kill();
  const told = await failing(world.path("out", partial()), "fdatasync", "1..3", config({}));
  assert.match(told, /cannot write \S+: input\/output error \(the medium may be failing\), and takes other files: this one is begun anew/);
  assertWhole(world);
});
