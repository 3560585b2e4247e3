/** A whole file that cannot get its name yet: it is sent once, whatever happens until it can, and nothing of it is left behind then. The device refuses names as long as a file says so. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { until } from "../conformance/clause.js";
import { clockEnv, hasFakeClock } from "../faults/fake-clock.js";
import { Program, runProgram } from "../faults/process.js";
import { World } from "../faults/world.js";
import { all } from "./replicas.js";
import { statusOf } from "./shared.js";

const dist = (path: string) => JSON.stringify(fileURLToPath(new URL(`../../${path}`, import.meta.url)));

/** `local`, as a server whose clients take turns where `promises` are such. */
const pluginText = (busy: string, promises: object) => `
import { existsSync, readFileSync } from "node:fs";
import { Fault } from ${dist("core/errors.js")};
import { plugin as local } from ${dist("plugins/local/plugin.js")};
export const plugin = {
  ...local,
  type: "busy",
  device: (given, context) => {
    const device = local.device(given, context);
    const { tree, target } = device;
    const now = () => (existsSync(${JSON.stringify(busy)}) ? readFileSync(${JSON.stringify(busy)}, "utf8") : undefined);
    const refuse = (path) => {
      if (!/(^|\\/)log\\.bin$/.test(path)) return;
      if (now() === "" && !path.includes(".filesync")) throw new Fault("conflict", "it is busy");
      if (now() === "trash" && path.includes(".filesync/trash")) throw new Fault("denied", "permission denied");
    };
    const [move, commit] = [tree.move.bind(tree), target.commit.bind(target)];
    tree.tryOut = async () => (${JSON.stringify(promises)});
    tree.move = async (from, to, ...more) => (refuse(to), move(from, to, ...more));
    target.commit = async (upload, signal) => {
      while (now() === "hold") await new Promise((resolve) => setTimeout(resolve, 10));
      const free = now() === "" && !upload.path.includes(".filesync");
      return free ? { occupied: true, size: 1 } : commit(upload, signal);
    };
    return device;
  },
};
export default plugin;
`;

const size = 2 ** 20;

/** `again`: sent once more after a kill: a partial's pages that `local` did not sync may have gone. */
for (const [name, mode, again, promises] of [
  ["mirror", "mirror", size, {}],
  ["two-way, by names that nobody replaces", "two-way", size, { exclusive: "names", rmdirIsSafe: true }],
  ["two-way, in turn", "two-way", 0, { exclusive: "directories", rmdirIsSafe: false }],
] as const)
  test(name, async (t) => {
    const world = new World(t);
    const [box, nas, busy] = [world.mkdir("box"), world.mkdir("nas"), world.path("busy")];
    writeFileSync(world.path("busy.mjs"), pluginText(busy, promises));
    const own = { settle: "0s", interval: "1s" };
    const config = world.config({
      devices: { box: { type: "local", dir: "box", ...own }, nas: { type: "./busy.mjs", dir: "nas", ...own } },
      routes: [{ from: "box", to: ["nas"], mode }],
    });
    const content = randomBytes(size);
    writeFileSync(join(box, "log.bin"), content);
    writeFileSync(busy, "");
    const stuck = async () => {
      const program = new Program(["run", "--json", "--config", config]);
      t.after(() => program.kill());
      await program.until(({ what }) => what === "sync-trouble", "it does not get its name");
      return { program, pushed: (await statusOf(config)).moved.pushed };
    };
    const first = await stuck();
    assert.equal(first.pushed, size, "sent at first");
    await first.program.kill();
    const { program, pushed } = await stuck();
    assert.equal(pushed, again, "sent after a kill");
    rmSync(busy);
    await program.until(({ what }) => what === "synced", "it gets its name");
    assert.equal((await statusOf(config)).moved.pushed, again, "sent when it got its name");
    assert.ok(readFileSync(join(nas, "log.bin")).equals(content));
    const left = () => all(nas).filter((path) => path.endsWith(".part") || /^\.filesync\/(staged|lock)\/./.test(path));
    await until("nothing of it is left", () => left().length === 0, 10_000);
    assert.deepEqual(readdirSync(nas).sort(), [".filesync", "log.bin"]);
  });

test("in turn: what was taken aside and cannot go on to the trash holds up nothing else, is told, and goes on once it can", async (t) => {
  const world = new World(t);
  const [box, nas, busy] = [world.mkdir("box"), world.mkdir("nas"), world.path("busy")];
  writeFileSync(world.path("busy.mjs"), pluginText(busy, { exclusive: "directories", rmdirIsSafe: false }));
  const own = { settle: "0s", interval: "1s" };
  const config = world.config({
    devices: { box: { type: "local", dir: "box", ...own }, nas: { type: "./busy.mjs", dir: "nas", ...own } },
    routes: [{ from: "box", to: ["nas"], mode: "two-way" }],
  });
  writeFileSync(join(box, "log.bin"), "old");
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await until("it is brought", () => existsSync(join(nas, "log.bin")), 30_000);
  writeFileSync(busy, "trash");
  writeFileSync(join(box, "log.bin"), "new content");
  await until("it is taken aside", () => !existsSync(join(nas, "log.bin")), 30_000);
  writeFileSync(join(box, "other.txt"), "other");
  await until("another file is brought", () => existsSync(join(nas, "other.txt")), 30_000);
  const troubles = async () => JSON.stringify((await statusOf(config)).syncs[0]);
  await until("it is told", async () => /log\.bin.*permission denied/.test(await troubles()), 30_000);
  assert.equal(readFileSync(join(box, "log.bin"), "utf8"), "new content");
  rmSync(busy);
  await until("it goes on", () => existsSync(join(nas, "log.bin")) && readFileSync(join(nas, "log.bin"), "utf8") === "new content", 60_000);
  const kept = all(nas).find((path) => path.startsWith(".filesync/trash/") && path.endsWith("log.bin"));
  assert.equal(kept === undefined ? undefined : readFileSync(join(nas, kept), "utf8"), "old");
});

test(
  "what was taken aside and cannot get its name is not taken out of the trash, however long that lasts: it may be the only copy",
  { skip: hasFakeClock ? false : 'libfaketime is not installed (Debian: "faketime")' },
  async (t) => {
    const world = new World(t);
    const [box, nas, busy, clock] = [world.mkdir("box"), world.mkdir("nas"), world.path("busy"), world.path("clock")];
    writeFileSync(
      world.path("denying.mjs"),
      `
import { existsSync } from "node:fs";
import { Fault } from ${dist("core/errors.js")};
import { plugin as local } from ${dist("plugins/local/plugin.js")};
export const plugin = {
  ...local,
  type: "denying",
  device: (given, context) => {
    const device = local.device(given, context);
    const { tree } = device;
    const move = tree.move.bind(tree);
    tree.move = async (from, to, ...more) => {
      if (to.includes(".conflict-") && existsSync(${JSON.stringify(busy)})) throw new Fault("denied", "permission denied");
      return move(from, to, ...more);
    };
    return device;
  },
};
export default plugin;
`,
    );
    const config = world.config({
      devices: { box: { type: "./denying.mjs", dir: "box", settle: "0s" }, nas: { type: "local", dir: "nas", settle: "0s" } },
      routes: [{ from: "box", to: ["nas"], mode: "two-way" }],
    });
    const env = { ...process.env, ...clockEnv(clock) };
    const run = async (offset: string, code: number) => {
      writeFileSync(clock, offset);
      const ran = await runProgram(["run", "--once", "--config", config], { env });
      assert.equal(ran.code, code, ran.out + ran.err);
    };
    world.file("box/a", "old");
    world.file("box/b", "b");
    await run("+0", 0);
    world.file("box/a", "written here", 1);
    world.file("nas/a", "written there", 1);
    rmSync(join(box, "b"));
    writeFileSync(busy, "");
    for (let day = 0; day <= 42; day += 7) await run(`+${day}d`, 3);
    rmSync(busy);
    await run("+42d", 0);
    const contents = (dir: string) =>
      all(dir).flatMap((path) => (path.startsWith(".filesync/") ? [] : [readFileSync(join(dir, path), "utf8")]));
    assert.deepEqual(contents(box).sort(), ["written here", "written there"]);
    assert.deepEqual(contents(nas).sort(), ["written here", "written there"]);
    // What is over goes.
    for (let day = 49; day <= 84; day += 7) await run(`+${day}d`, 0);
    assert.deepEqual(
      [...all(box), ...all(nas)].filter((path) => /^\.filesync\/trash\/[^/]+\/./.test(path)),
      [],
    );
  },
);

test("in turn: that another machine has its turn, and since when, is told while one waits", async (t) => {
  const world = new World(t);
  const [box, nas] = [world.mkdir("box"), world.mkdir("nas")];
  writeFileSync(world.path("busy.mjs"), pluginText(world.path("busy"), { exclusive: "directories", rmdirIsSafe: false }));
  const own = { settle: "0s", interval: "1s" };
  const config = world.config({
    devices: { box: { type: "local", dir: "box", ...own }, nas: { type: "./busy.mjs", dir: "nas", ...own } },
    routes: [{ from: "box", to: ["nas"], mode: "two-way" }],
  });
  const hold = join(nas, ".filesync/lock/0123456789abcdef-0123456789ab");
  mkdirSync(hold, { recursive: true });
  writeFileSync(join(box, "a.txt"), "a");
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what }) => what === "ready", "ready");
  const reason = async () => (await statusOf(config)).syncs[0]?.reason;
  await until(
    "it is told",
    async () => /^another machine has its turn at nas, for \d+ s now; one that died /.test((await reason()) ?? ""),
    30_000,
  );
  assert.equal(existsSync(join(nas, "a.txt")), false);
  rmdirSync(hold);
  await until("it has its turn", () => existsSync(join(nas, "a.txt")), 30_000);
  await until("nothing is told", async () => (await reason()) === undefined, 10_000);
});

test("an approval that comes while a round is under way, of what that does not know yet, is for the next one", async (t) => {
  const world = new World(t);
  const [box, nas, busy] = [world.mkdir("box"), world.mkdir("nas"), world.path("busy")];
  writeFileSync(world.path("busy.mjs"), pluginText(busy, {}));
  const config = world.config({
    devices: { box: { type: "local", dir: "box", settle: "0s", interval: "1s" }, nas: { type: "./busy.mjs", dir: "nas" } },
    routes: [{ from: "box", to: ["nas"], mode: "mirror", deletes: true, maxDeletes: 1 }],
  });
  for (const name of ["a", "b", "c", "d"]) writeFileSync(join(box, name), name);
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await until("they are brought", () => existsSync(join(nas, "d")), 30_000);
  writeFileSync(busy, "hold");
  writeFileSync(join(box, "e"), "e");
  await until("it is sent", () => all(nas).some((path) => path.endsWith(".part")), 30_000);
  for (const name of ["a", "b"]) rmSync(join(box, name));
  assert.match((await runProgram(["plan", "--config", config])).out, /2 of \d would be removed at nas/);
  const approved = await runProgram(["approve", "box:nas", "--config", config]);
  assert.equal(approved.code, 0, approved.err);
  rmSync(busy);
  await until("they are removed", () => !existsSync(join(nas, "a")) && !existsSync(join(nas, "b")), 30_000);
  assert.ok(existsSync(join(nas, "e")));
});

test("at a server that lists not all that it has, what cannot get its name is waited for and told, and not sent again without a pause", async (t) => {
  const world = new World(t);
  const box = world.mkdir("box");
  const nas = world.mkdir("nas");
  writeFileSync(
    world.path("veils.mjs"),
    `
import { plugin as local } from ${dist("plugins/local/plugin.js")};
export const plugin = {
  ...local,
  type: "veils",
  device: (given, context) => {
    const device = local.device(given, context);
    const { source } = device;
    const list = source.list.bind(source);
    source.list = async function* (...asked) {
      for await (const entry of list(...asked)) if (!entry.path.includes("veiled")) yield entry;
    };
    return device;
  },
};
export default plugin;
`,
  );
  const own = { settle: "0s", interval: "1s" };
  const config = world.config({
    devices: { box: { type: "local", dir: "box", ...own }, nas: { type: "./veils.mjs", dir: "nas", ...own } },
    routes: [{ from: "box", to: ["nas"], mode: "mirror" }],
  });
  for (const name of ["veiled 1", "veiled 2", "plain"]) writeFileSync(join(box, name), "content");
  const run = () => runProgram(["run", "--once", "--config", config]);
  await run();
  writeFileSync(join(box, "veiled 1"), "other content");
  writeFileSync(join(nas, "veiled 3"), "of others");
  writeFileSync(join(box, "veiled 3"), "content");
  const { out, err } = await run();
  assert.match(out + err, /veiled 3: something that is not listed is in the way/);
  assert.equal(readFileSync(join(nas, "veiled 1"), "utf8"), "other content");
  assert.equal(readFileSync(join(nas, "veiled 3"), "utf8"), "of others");
});

test("what a round failed with is told while the next one is at work, until one comes to its end", async (t) => {
  const world = new World(t);
  const [box, state] = [world.mkdir("box"), world.path("state.txt")];
  world.mkdir("nas");
  writeFileSync(
    world.path("slow.mjs"),
    `
import { readFileSync } from "node:fs";
import { Fault } from ${dist("core/errors.js")};
import { plugin as local } from ${dist("plugins/local/plugin.js")};
export const plugin = {
  ...local,
  type: "slow",
  device: (given, context) => {
    const device = local.device(given, context);
    const { source } = device;
    const list = source.list.bind(source);
    const now = () => readFileSync(${JSON.stringify(state)}, "utf8");
    source.list = async function* (...asked) {
      if (now() === "fails") throw new Fault("transient", "no answer came");
      while (now() === "hangs") await new Promise((resolve) => setTimeout(resolve, 10));
      yield* list(...asked);
    };
    return device;
  },
};
export default plugin;
`,
  );
  const config = world.config({
    devices: { box: { type: "./slow.mjs", dir: "box", settle: "0s", interval: "1s" }, nas: { type: "local", dir: "nas" } },
    routes: [{ from: "box", to: ["nas"], mode: "mirror" }],
  });
  writeFileSync(join(box, "a"), "a");
  writeFileSync(state, "fails");
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what }) => what === "ready", "ready");
  const told = async () => {
    const [sync] = (await statusOf(config)).syncs;
    return `${sync?.state}: ${sync?.reason ?? ""}`;
  };
  await until("it failed", async () => /^waiting: .*no answer came$/.test(await told()), 30_000);
  writeFileSync(state, "hangs");
  await until("it is at work", async () => /^working: the round before failed: .*no answer came$/.test(await told()), 30_000);
  writeFileSync(state, "");
  await until("it is even", async () => (await told()) === "even: ", 30_000);
});
