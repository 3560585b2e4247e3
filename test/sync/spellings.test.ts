/** A side for which names that differ only in case are one: a real exFAT, by FUSE. What has no place there is named and stays, and nothing is moved to the trash for the spelling of its name. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { until } from "../conformance/clause.js";
import { Program, runProgram } from "../faults/process.js";
import { World } from "../faults/world.js";
import { mountExfat, unmount } from "../small-disk.js";
import { treeOf } from "./replicas.js";
import { once, statusOf } from "./shared.js";

const left = 3;

interface ExfatWorld {
  readonly box: string;
  readonly nas: string;
  /** The path of one with a route from "box" to "nas". */
  config(route: object): string;
}

/** `nas` is an exFAT; undefined: there is none, and the test is skipped. */
function exfatWorld(t: TestContext): ExfatWorld | undefined {
  const mounted: string[] = [];
  // Before the world is taken away.
  t.after(() => mounted.forEach(unmount));
  const world = new World(t);
  const [box, nas] = [world.mkdir("box"), world.mkdir("nas")];
  const why = mountExfat(world.path("image"), nas);
  if (why !== undefined) {
    t.skip(why);
    return undefined;
  }
  mounted.push(nas);
  const own = { type: "local", settle: "0s", interval: "1s" };
  const devices = { box: { ...own, dir: "box" }, nas: { ...own, dir: "nas" } };
  return { box, nas, config: (route) => world.config({ devices, routes: [{ from: "box", to: ["nas"], ...route }] }) };
}

for (const mode of ["mirror", "mirror with deletes", "two-way"] as const)
  test(`${mode} to exFAT`, async (t) => {
    const exfat = exfatWorld(t);
    if (exfat === undefined) return;
    const { box, nas } = exfat;
    const config = exfat.config({
      mode: mode.startsWith("mirror") ? "mirror" : mode,
      ...(mode === "mirror with deletes" ? { deletes: true } : {}),
    });
    const put = (path: string, text: string) => {
      mkdirSync(join(box, path, ".."), { recursive: true });
      writeFileSync(join(box, path), text);
    };
    const trees = () => [treeOf(box), treeOf(nas)];
    const inTrash = () =>
      [box, nas].flatMap((root) =>
        readdirSync(root, { recursive: true, encoding: "utf8" }).filter(
          (path) => path.startsWith(".filesync/trash/") && /[a-z]$/i.test(path),
        ),
      );
    for (let n = 0; n < 30; n++) put(`logs/f${n}`, `log ${n}`);
    put("Dd/x", "one");
    put("dd/x", "two");
    put("Old", "old");
    const before = treeOf(box);

    // Both for the first time: one of them comes, once, and the other is named.
    const said = await once(config, left);
    assert.equal(said.match(/change/g)?.length, 1, said);
    const planned = (await runProgram(["plan", "--config", config])).out;
    for (const text of [said, planned]) assert.match(text, /dd\b.*nas has Dd, and takes both names for one/);
    assert.deepEqual(treeOf(box), before);
    const there = new Map([...before].filter(([path]) => !path.startsWith("dd")));
    assert.deepEqual(treeOf(nas), there);

    // A daemon does not try it again and again.
    const program = new Program(["run", "--json", "--config", config]);
    t.after(() => program.kill());
    await program.until(({ what }) => what === "sync-trouble", "it is told");
    await sleep(3000);
    assert.deepEqual(
      program.events.filter(({ what }) => what === "synced"),
      [],
    );
    assert.deepEqual((await statusOf(config)).syncs[0]?.troubles.map(({ path }) => path).sort(), ["dd"]);
    await program.kill();

    // Another spelling of the same name; one of the two names goes.
    renameSync(join(box, "Old"), join(box, "oLD"));
    renameSync(join(box, "logs"), join(box, "LOGS"));
    rmSync(join(box, "dd"), { recursive: true });
    await once(config);
    const renamed = treeOf(box);
    assert.equal(renamed.get("oLD"), "old");
    assert.equal([...renamed.keys()].filter((path) => path.startsWith("LOGS/f")).length, 30);
    assert.deepEqual(trees()[1], renamed, "the same spelling there");
    // What is known by its identity was moved, and nothing of it is in the trash.
    if (mode !== "two-way") assert.deepEqual(inTrash(), []);
    assert.equal(readFileSync(join(nas, "oLD"), "utf8"), "old");

    // There: what has the other spelling here is what was agreed, and goes; the new one comes.
    if (mode === "two-way") {
      renameSync(join(nas, "oLD"), join(nas, "other"));
      renameSync(join(nas, "other"), join(nas, "OLD"));
      await once(config);
      const [here, now] = trees();
      assert.equal(here?.get("OLD"), "old");
      assert.equal(here?.get("oLD"), undefined);
      assert.deepEqual(here, now);
    }
  });

for (const [what, name] of [
  ["is another's spelling", "TAKEN"],
  ["cannot be", "ke:ep"],
] as const)
  test(`a mirror renames a thing to a name that ${what} on exFAT: all else is brought, and that is told`, async (t) => {
    const exfat = exfatWorld(t);
    if (exfat === undefined) return;
    const { box, nas } = exfat;
    const config = exfat.config({ mode: "mirror" });
    for (const path of ["keep", "taken", "changed"]) writeFileSync(join(box, path), path);
    await once(config);
    renameSync(join(box, "keep"), join(box, name));
    writeFileSync(join(box, "changed"), "since then");
    for (const path of ["new", "newer"]) {
      writeFileSync(join(box, path), path);
      const said = await once(config, left);
      assert.match(said, new RegExp(`: ${name}: nas`));
      assert.equal(readFileSync(join(nas, path), "utf8"), path);
      assert.equal(readFileSync(join(nas, "changed"), "utf8"), "since then");
      assert.equal(readFileSync(join(nas, "taken"), "utf8"), "taken");
    }
    renameSync(join(box, name), join(box, "free"));
    await once(config);
    assert.equal(readFileSync(join(nas, "free"), "utf8"), "keep");
  });

test("two-way to exFAT: a name that it cannot hold is told as that, and holds up nothing else", async (t) => {
  const exfat = exfatWorld(t);
  if (exfat === undefined) return;
  const { box, nas } = exfat;
  const config = exfat.config({ mode: "two-way" });
  mkdirSync(join(box, "cam"));
  for (const path of ["cam/log 12:30.txt", "cam/ok", "keep", "keep2"]) writeFileSync(join(box, path), path);
  const said = await once(config, left);
  assert.match(said, /cam\/log 12:30\.txt: nas: the file system of .* does not take the name cam\/log 12:30\.txt/);
  assert.doesNotMatch(said, /turn|waiting/);
  assert.deepEqual(Object.fromEntries(treeOf(nas)), { "cam/": "", "cam/ok": "cam/ok", keep: "keep", keep2: "keep2" });
  rmSync(join(box, "cam"), { recursive: true });
  await once(config);
  assert.deepEqual(Object.fromEntries(treeOf(nas)), { keep: "keep", keep2: "keep2" });
});

const dist = (path: string) => JSON.stringify(fileURLToPath(new URL(`../../${path}`, import.meta.url)));

/** `local` over what Linux makes of names on FAT, of which no driver is here: dots at the end are taken away, and its own directory has both its spellings. */
const cutting = `
import { plugin as local } from ${dist("plugins/local/plugin.js")};
const cut = (path) => path.replace(/\\.+(?=\\/|$)/g, "").replace(/(^|\\/)\\.FILESYNC/, "$1.filesync");
const cutIn = (given) =>
  typeof given === "string" ? cut(given)
  : typeof given?.path !== "string" ? given
  : { ...given, path: cut(given.path), ...(given.partialPath === undefined ? {} : { partialPath: cut(given.partialPath) }) };
const over = (part) => new Proxy(part, {
  get: (_, key) => {
    const value = Reflect.get(part, key, part);
    if (typeof value !== "function") return value;
    return (...given) => {
      const result = value.apply(part, given.map(cutIn));
      const { path } = given[0] ?? {};
      return key !== "commit" ? result : result.then((it) => (it.path === undefined ? it : { ...it, path }));
    };
  },
});
export const plugin = {
  ...local,
  type: "cutting",
  device: (given, context) => {
    const device = local.device(given, context);
    return Object.assign(device, { tree: over(device.tree), source: over(device.source), target: over(device.target) });
  },
};
export default plugin;
`;

for (const route of [{ mode: "mirror", deletes: true }, { mode: "two-way" }])
  test(`${route.mode} to exFAT: a directory that there would be the program's own is told, and stays as it is`, async (t) => {
    const exfat = exfatWorld(t);
    if (exfat === undefined) return;
    const { box, nas } = exfat;
    const config = exfat.config(route);
    mkdirSync(join(box, ".FileSync/trash"), { recursive: true });
    for (const path of [".FileSync/notes", ".FileSync/trash/a", "plain"]) writeFileSync(join(box, path), path);
    const before = treeOf(box);
    for (let n = 0; n < 2; n++)
      assert.match(await once(config, left), /: \.FileSync: nas has \.filesync, and takes both names for one: it waits until/);
    assert.deepEqual(treeOf(box), before);
    assert.deepEqual(Object.fromEntries(treeOf(nas)), { plain: "plain" });
    assert.equal(existsSync(join(nas, ".filesync/notes")), false);
  });

for (const [mode, route] of [
  ["mirror", { mode: "mirror" }],
  ["mirror with deletes", { mode: "mirror", deletes: true }],
  ["two-way", { mode: "two-way" }],
] as const)
  test(`${mode} to a side that takes dots at the end of a name away: such a name is told, and stays as it is; all else is brought once`, async (t) => {
    const world = new World(t);
    const [box, nas] = [world.mkdir("box"), world.mkdir("nas")];
    writeFileSync(world.path("cutting.mjs"), cutting);
    const own = { settle: "0s", interval: "1s" };
    const config = world.config({
      devices: { box: { type: "local", dir: "box", ...own }, nas: { type: "./cutting.mjs", dir: "nas", ...own } },
      routes: [{ from: "box", to: ["nas"], ...route }],
    });
    mkdirSync(join(box, "sub"));
    mkdirSync(join(box, "sub."));
    for (const path of ["trail.", "sub/a", "sub./a", "plain"]) writeFileSync(join(box, path), path);
    const before = treeOf(box);
    const said = await once(config, left);
    assert.match(said, /: trail\.: nas takes away the dots that a name ends with/);
    assert.match(said, /: sub\.: nas has sub, and takes both names for one/);
    assert.deepEqual(treeOf(box), before);
    assert.deepEqual(Object.fromEntries(treeOf(nas)), { plain: "plain", "sub/": "", "sub/a": "sub/a" });
    const program = new Program(["run", "--json", "--config", config]);
    t.after(() => program.kill());
    await program.until(({ what }) => what === "sync-trouble", "it is told");
    // Whole at once: the empty one would be a change of its own.
    world.comes(join(box, "more"), "more");
    await program.until(({ what }) => what === "synced", "all else comes");
    world.comes(join(box, "most"), "most");
    await until("that comes too", () => existsSync(join(nas, "most")));
    await program.kill();
    const counts = program.events.flatMap(({ what, facts }) => (what === "synced" ? [Number(facts?.count)] : []));
    assert.ok(counts.reduce((sum, n) => sum + n, 0) <= 2, `${counts.join(" + ")} changes for two files`);
    renameSync(join(box, "trail."), join(box, "trail"));
    rmSync(join(box, "sub."), { recursive: true });
    await once(config);
    assert.deepEqual(treeOf(nas), treeOf(box));
  });
