/** A whole file that cannot get its name yet: it is sent once, whatever happens until it can, and nothing of it is left behind then. The device refuses names as long as a file says so. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { until } from "../conformance/clause.js";
import { Program } from "../faults/process.js";
import { World } from "../faults/world.js";
import { all } from "./replicas.js";
import { statusOf } from "./shared.js";

const dist = (path: string) => JSON.stringify(fileURLToPath(new URL(`../../${path}`, import.meta.url)));

/** `local`, as a server whose clients take turns where `promises` are such. */
const pluginText = (busy: string, promises: object) => `
import { existsSync } from "node:fs";
import { Fault } from ${dist("core/errors.js")};
import { plugin as local } from ${dist("plugins/local/plugin.js")};
export const plugin = {
  ...local,
  type: "busy",
  device: (given, context) => {
    const device = local.device(given, context);
    const { tree, target } = device;
    const refuse = (path) => {
      if (/(^|\\/)log\\.bin$/.test(path) && !path.includes(".filesync") && existsSync(${JSON.stringify(busy)})) throw new Fault("conflict", "it is busy");
    };
    const [move, commit] = [tree.move.bind(tree), target.commit.bind(target)];
    tree.tryOut = async () => (${JSON.stringify(promises)});
    tree.move = async (from, to, ...more) => (refuse(to), move(from, to, ...more));
    target.commit = async (upload, signal) => {
      const free = existsSync(${JSON.stringify(busy)}) && !upload.path.includes(".filesync");
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
