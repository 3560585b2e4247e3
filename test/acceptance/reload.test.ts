/** SIGHUP: another configuration while it runs. What did not change goes on; what is wrong is refused whole. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { test } from "node:test";
import { plugins } from "../../cli/plugins.js";
import type { Status } from "../../core/status.js";
import { Program, runProgram } from "../faults/process.js";
import { treeOf } from "../faults/trees.js";
import { World } from "../faults/world.js";

const local = (dir: string, more = {}) => ({ type: "local", dir, ...more });

test("devices and routes come, change and go; a transfer between devices that stay is not touched", async (t) => {
  const world = new World(t);
  for (const dir of ["out", "b"]) world.mkdir(dir);
  world.file("in/large", Buffer.alloc(20_000_000, 1));
  const write = (devices: object, to: readonly string[]) =>
    world.config({
      devices: { in: local("in", { interval: "1s" }), ...devices },
      routes: to.map((name) => ({ from: "in", to: [name], into: "" })),
    });
  const slow = local("out", { maxRate: "1MiB/s" });
  const config = write({ out: slow }, ["out"]);
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  const count = (what: string, text: string) =>
    program.events.filter((event) => event.what === what && event.message.includes(text)).length;
  const reloads = async (n: number) => {
    program.signal("SIGHUP");
    await program.until(() => count("reload", "") === n, `reload ${n}`);
    return program.events.filter(({ what }) => what === "reload").at(-1)?.message;
  };
  await program.until(({ what }) => what === "found", "the file is found");
  write({ out: slow, b: local("b") }, ["out", "b"]);
  assert.equal(await reloads(1), "the new configuration runs: b added; routes from in changed");
  await program.until(({ message }) => message.startsWith("in:large → b:large ("), "delivery to b");
  assert.equal(count("delivered", "→ out"), 0);
  assert.equal(count("resumed", "→ out") + count("attached", "out:"), 1, "out was attached once, and its transfer not interrupted");
  assert.equal(count("attached", "in:"), 1);

  const partial = () => readdirSync(world.path("out")).some((name) => world.size(`out/${name}`) > 0);
  while (!partial()) await new Promise((resolve) => setTimeout(resolve, 20));
  write({ out: local("out"), b: local("b") }, ["out", "b"]);
  assert.equal(await reloads(2), "the new configuration runs: out changed");
  await program.until(({ message }) => message.startsWith("in:large → out:large ("), "delivery to out");
  assert.match(program.events.find(({ what }) => what === "resumed")?.message ?? "", /^in:large → out: goes on at byte \d+ of 20000000$/);
  assert.equal(await reloads(3), "the new configuration runs: devices and routes are the same");

  write({ out: local("out") }, ["out"]);
  assert.equal(await reloads(4), "the new configuration runs: b removed; routes from in changed");
  world.file("in/later", "later");
  await program.until(({ message }) => message.startsWith("in:later → out:later"), "the next file");
  assert.deepEqual([...treeOf(world.path("b")).keys()], ["large"]);
  program.signal("SIGTERM");
  assert.equal(await program.exited, 0, program.stderr);
});

test("a mirror between devices that stay goes on with the round that it is in; one that changed begins anew", async (t) => {
  const world = new World(t);
  for (const dir of ["a", "b", "more"]) world.mkdir(dir);
  world.file("in/small", "small");
  const own = { settle: "0s", interval: "1s" };
  const mirror = (to: string, exclude: readonly string[]) => ({ from: "in", to: [to], mode: "mirror", maxRate: "300kB/s", exclude });
  const write = (exclude: readonly string[], more: object) =>
    world.config({
      devices: { in: local("in", own), a: local("a", own), b: local("b", own), ...more },
      routes: [mirror("a", []), mirror("b", exclude)],
    });
  const config = write([], {});
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  const synced = (to: string) =>
    program.events.filter(({ what, message }) => what === "synced" && message.startsWith(`in ⇒ ${to}:`)).length;
  await program.until(() => synced("a") > 0 && synced("b") > 0, "the small file");
  world.file("in/large", Buffer.alloc(9_000_000, 1));
  const changes = async () => {
    const { out } = await runProgram(["status", "--json", "--config", config]);
    return (JSON.parse(out) as Status).syncs.map(({ changes, pending }) => [changes, pending]);
  };
  while ((await changes()).some(([, pending]) => pending !== 1)) await new Promise((resolve) => setTimeout(resolve, 50));
  write(["large"], { more: local("more") });
  program.signal("SIGHUP");
  await program.until(({ what }) => what === "reload", "it reads");
  const [[a, left] = [], [b] = []] = await changes();
  assert.deepEqual([a, left, b], [1, 1, 0]);
});

test("a service whose port changes serves on the new one; a route to a new device waits for nothing", async (t) => {
  const world = new World(t);
  const write = (password: string) =>
    world.config({
      devices: { out: local("out", { create: true }) },
      services: { ftp: { type: "ftp-server", listen: "127.0.0.1:0", root: "files", users: { u: { password, write: true } } } },
      routes: [{ from: "ftp", to: ["out"] }],
    });
  const program = new Program(["run", "--json", "--config", write("one")]);
  t.after(() => program.kill());
  const listening = () => program.events.filter(({ message }) => message.includes("listens on 127.0.0.1:"));
  await program.until(() => listening().length === 1, "listening");
  write("two");
  program.signal("SIGHUP");
  await program.until(({ message }) => message === "the new configuration runs: ftp changed", "reload");
  await program.until(() => listening().length === 2, "listening again");
  program.signal("SIGTERM");
  assert.equal(await program.exited, 0);
});

test('a reload of what did not change, with an age as "since", changes no route', async (t) => {
  const world = new World(t);
  for (const dir of ["in", "out"]) world.mkdir(dir);
  const config = world.config({ devices: { in: local("in"), out: local("out") }, routes: [{ from: "in", to: ["out"], since: "30d" }] });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what }) => what === "ready", "ready");
  program.signal("SIGHUP");
  const { message } = await program.until(({ what }) => what === "reload", "reload");
  assert.doesNotMatch(message, /routes from in changed/);
});

test("a configuration that is wrong, cannot be read, or needs a restart: all is said, and what runs goes on", async (t) => {
  const world = new World(t);
  world.mkdir("out");
  const good = { devices: { in: local("in", { interval: "1s" }), out: local("out") }, routes: [{ from: "in", to: ["out"], into: "" }] };
  world.mkdir("in");
  const config = world.config(good);
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  const reload = async (n: number) => {
    program.signal("SIGHUP");
    await program.until(() => program.events.filter(({ what }) => what === "reload").length === n, `reload ${n}`);
    return program.events.filter(({ what }) => what === "reload" || what === "config").map(({ message }) => message);
  };
  await program.until(({ what }) => what === "ready", "ready");
  const same = world.config(good, "same.json");
  const refused = async () => (JSON.parse((await runProgram(["status", "--json", "--config", same])).out) as Status).refused;
  assert.equal(await refused(), undefined);
  const twoMistakes = `the new one has 2 mistakes (the first: line 1: devices.out.type: there is no plugin "lcoal"; did you mean "local"?; there are: ${plugins.types.join(", ")})`;
  world.config({ devices: { in: local("in"), out: { type: "lcoal", dir: "out" } }, routes: [{ from: "in", to: ["uot"] }] });
  assert.deepEqual(await reload(1), [
    `${config}:1: devices.out.type: there is no plugin "lcoal"; did you mean "local"?; there are: ${plugins.types.join(", ")}`,
    `${config}:1: routes[0].to[0]: there is no device "uot"; did you mean "out"?`,
    `the configuration stays as it was: ${twoMistakes}`,
  ]);
  assert.equal(await refused(), `the configuration stays as it was: ${twoMistakes}`);
  writeFileSync(config, "{");
  assert.equal(
    (await reload(2)).at(-1),
    "the configuration stays as it was: the new one has a mistake (line 1: this is no JSON: close brace expected (column 2))",
  );
  world.config({ ...good, vehicle: "another", stateDir: "elsewhere" });
  assert.equal(
    (await reload(3)).at(-1),
    'the configuration stays as it was: "stateDir" and "vehicle" cannot change while it runs; restart it',
  );
  // Commands go by the file: they find nobody there, and must not have a second one started.
  assert.match((await runProgram(["status", "--config", config])).err, /where "stateDir" was changed while one runs, restart that/);
  world.file("in/a", "a");
  await program.until(({ what }) => what === "delivered", "delivery by the old configuration");
  rmSync(config);
  assert.match((await reload(4)).at(-1) ?? "", /^the configuration stays as it was: there is no .*config\.json: "filesync init/);
  assert.match((await refused()) ?? "", /: there is no .*config\.json/);
  const text = (await runProgram(["status", "--config", same])).out;
  assert.match(text, /^the configuration stays as it was: there is no .*; 1 B delivered, nothing is on its way\n/);
  world.config(good);
  assert.equal((await reload(5)).at(-1), "the new configuration runs: devices and routes are the same");
  assert.equal(await refused(), undefined);
});

for (const [how, words] of [
  ["run --config FILE", (file: string) => ["run", "--json", "--config", file]],
  ["--config FILE run", (file: string) => ["--config", file, "run", "--json"]],
] as const)
  test(`${how}: a SIGHUP before it listens to that, while it still reads its configuration: it begins, and reads it again`, async (t) => {
    const world = new World(t);
    for (const dir of ["in", "out"]) world.mkdir(dir);
    const good = { devices: { in: local("in"), out: local("out") }, routes: [{ from: "in", to: ["out"] }] };
    const next = world.config({ ...good, devices: { ...good.devices, more: local("out") } }, "next.json");
    const text = readFileSync(world.config(good, "first.json"), "utf8");
    const config = world.path("config.json");
    execFileSync("mkfifo", [config]);
    const program = new Program(words(config));
    t.after(() => program.kill());
    // It is opened once the program reads it.
    const first = await open(config, "w");
    renameSync(next, config);
    program.signal("SIGHUP");
    await first.writeFile(text);
    await first.close();
    const { message } = await program.until(({ what }) => what === "reload", "reload");
    assert.equal(message, "the new configuration runs: more added");
    program.signal("SIGTERM");
    assert.equal(await program.exited, 0, program.stderr);
  });

test("SIGUSR1, by which Node opens its debugger to all users of a machine, opens none", async (t) => {
  const world = new World(t);
  for (const dir of ["in", "out"]) world.mkdir(dir);
  const config = world.config({ devices: { in: local("in"), out: local("out") }, routes: [{ from: "in", to: ["out"] }] });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what }) => what === "ready", "ready");
  program.signal("SIGUSR1");
  program.signal("SIGHUP");
  await program.until(({ what }) => what === "reload", "reload");
  program.signal("SIGTERM");
  assert.equal(await program.exited, 0, program.stderr);
  assert.doesNotMatch(program.stderr, /debugger/i);
});

test("beside a file that cannot be read by now commands ask the daemon that runs; without one they say what is wrong with it", async (t) => {
  const world = new World(t);
  world.mkdir("out");
  world.file("in/a", "a");
  const config = world.config({ devices: { in: local("in"), out: local("out") }, routes: [{ from: "in", to: ["out"], into: "" }] });
  const whole = readFileSync(config, "utf8");
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what }) => what === "delivered", "delivery");
  for (const [broken, mistake] of [
    [`${whole.slice(0, -1)},,`, "this is no JSON: "],
    [whole.replace('"devices"', '"devcies"'), 'unknown key "devcies"'],
  ] as const) {
    writeFileSync(config, broken);
    for (const [args, said] of [
      [["status"], "everything that was found is delivered (1 B)"],
      [["status", "--json"], '"summary":"everything that was found is delivered (1 B)"'],
      [["why", "a"], "→ out: delivered"],
      [["verify"], "1 delivery: 1 proved"],
      [["retry", "--all"], "nothing is set aside"],
      [["forget", "a"], "nothing of a was set aside"],
      [["ready"], "ready for"],
      [["ls", "out:"], "  a"],
    ] as const) {
      const { code, out, err } = await runProgram([...args, "--config", config]);
      assert.deepEqual([code, out.includes(said)], [0, true], `${args.join(" ")}: ${out}${err}`);
      assert.ok(err.includes(mistake) && err.endsWith("runs with what it read before:\n"), err);
    }
  }
  program.signal("SIGTERM");
  assert.equal(await program.exited, 0, program.stderr);
  for (const args of [["status"], ["why", "a"], ["verify"], ["retry", "--all"], ["forget", "a"], ["ready"], ["ls", "out:"]]) {
    const { code, out, err } = await runProgram([...args, "--config", config]);
    assert.deepEqual([code, out], [2, ""]);
    assert.match(err, /unknown key "devcies"/);
  }
});
