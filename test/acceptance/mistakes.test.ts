/** Mistakes in a configuration of which the rest runs: the rest does, what is wrong is told for as long as it lasts, and nothing is lost by it. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { test, type TestContext } from "node:test";
import { Program, runProgram } from "../faults/process.js";
import { World } from "../faults/world.js";

const local = (dir: string, more = {}) => ({ type: "local", dir, ...more });

interface Said {
  readonly summary: string;
  readonly configuration?: { readonly mistakes: readonly { readonly path: string }[]; readonly therefore: readonly string[] };
  readonly devices: readonly { readonly name: string; readonly presence: string; readonly reason?: string }[];
}

const ask = async (command: string, config: string, ...more: string[]) => (await runProgram([command, ...more, "--config", config])).out;
const statusOf = async (config: string) => JSON.parse(await ask("status", config, "--json")) as Said;

/** Runs with `wrong` as device c until b has a.ulg, looks, mends c, and waits until c has it and it is gone from its source. */
async function mended(t: TestContext, wrong: object, look: (config: string, program: Program) => Promise<void>) {
  const world = new World(t);
  for (const dir of ["b", "c"]) world.mkdir(dir);
  world.file("a/a.ulg", "content of a");
  const write = (c: object) =>
    world.config({
      devices: { a: local("a", { interval: "1s" }), b: local("b"), c },
      routes: [{ from: "a", to: ["b", "c"], into: "", afterDelivery: "delete" }],
    });
  const config = write(wrong);
  const program = new Program(["run", "--json", "--config", config]);
  await program.until(({ message }) => message.startsWith("a:a.ulg → b:a.ulg"), "that b has it");
  await look(config, program);
  world.file("a/b.ulg", "content of b");
  await program.until(({ message }) => message.startsWith("a:b.ulg → b:b.ulg"), "another listing, and what it leads to");
  assert.ok(existsSync(world.path("a/a.ulg")), "c did not have it yet");
  write(local("c"));
  program.signal("SIGHUP");
  await program.until(({ message }) => message.startsWith("a:a.ulg → c:a.ulg"), "that c has it");
  for (const name of ["a.ulg", "b.ulg"])
    await program.until(
      ({ what, message }) => what === "released" && message === `a:${name}: deleted at its source`,
      `that ${name} is deleted at its source`,
    );
  const { summary, configuration } = await statusOf(config);
  assert.deepEqual([summary, configuration], ["everything that was found is delivered (48 B)", undefined]);
  program.signal("SIGTERM");
  assert.equal(await program.exited, 2, "it began with a mistake");
}

test("a mistake in one target: the others get their files, its own wait for it, and everybody is told", async (t) => {
  await mended(t, local("c", { colour: "red" }), async (config, program) => {
    const mistake = 'line 1: devices.c.colour: unknown key "colour"';
    const first = `the configuration has a mistake (${mistake}): c is not started, and files for it wait`;
    const ready = program.events.find(({ what }) => what === "ready")?.message ?? "";
    assert.ok(ready.endsWith(`; ${first}`), ready);
    const { summary, configuration, devices } = await statusOf(config);
    assert.equal(summary, `${first}; 12 B only on its source, 0 B here and not yet everywhere, 12 B delivered`);
    assert.deepEqual(
      configuration?.mistakes.map(({ path }) => path),
      ["devices.c.colour"],
    );
    assert.deepEqual(configuration.therefore, ["c is not started, and files for it wait"]);
    const c = devices.find(({ name }) => name === "c");
    assert.deepEqual([c?.presence, c?.reason], ["unknown", `its configuration has a mistake (${mistake})`]);
    const text = await ask("status", config);
    assert.match(
      text,
      /^mistakes in the configuration:\n {2}line 1: devices\.c\.colour: unknown key "colour"\ntherefore c is not started/m,
    );
    assert.match(
      await ask("why", config, "a.ulg"),
      /→ c: .*c is not started: its configuration has a mistake \(line 1: devices\.c\.colour/,
    );
  });
});

test("a variable that is not set, in one target", async (t) => {
  await mended(t, { type: "ftp", host: "127.0.0.1", user: "u", password: { env: "FILESYNC_TEST_UNSET" } }, async (config) => {
    const { summary } = await statusOf(config);
    assert.match(summary, /^the configuration has a mistake \(line 1: devices\.c\.password.*: .*FILESYNC_TEST_UNSET.*\): c is not started/);
  });
});

test("a target of a type that nobody knows: nothing is removed at the source before it is known", async (t) => {
  await mended(t, { type: "locl", dir: "c" }, async (config) => {
    const { configuration } = await statusOf(config);
    assert.deepEqual(configuration?.therefore, ["c is not started, and files for it wait", "nothing is deleted or archived at a"]);
    const why = await ask("why", config, "a.ulg");
    assert.match(why, /the route to c takes it only once its type is known/);
    assert.doesNotMatch(why, /"since"/, "the configuration has no such word");
  });
});

test("a route that is wrong: the other runs, and removes nothing that this one may want; the summary does not say that all is well", async (t) => {
  const world = new World(t);
  world.mkdir("b");
  world.file("a/a.ulg", "content of a");
  const config = world.config({
    devices: { a: local("a"), b: local("b"), c: local("c", { create: true }) },
    routes: [
      { from: "a", to: ["b"], into: "", afterDelivery: "delete" },
      { from: "a", to: ["c"], into: "", inclde: ["*"] },
    ],
  });
  const program = new Program(["run", "--json", "--config", config]);
  await program.until(({ message }) => message.startsWith("a:a.ulg → b:a.ulg"), "that b has it");
  const { summary, configuration } = await statusOf(config);
  assert.deepEqual(configuration?.therefore, ["the route from a to c does not run", "nothing is deleted or archived at a"]);
  assert.match(summary, /^the configuration has a mistake .*; 12 B delivered, nothing is on its way$/);
  program.signal("SIGTERM");
  assert.equal(await program.exited, 2);
  assert.ok(existsSync(world.path("a/a.ulg")));
});
