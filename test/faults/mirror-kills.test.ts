/**
 * A mirror that is killed at every durable step (sync, rename, link, unlink) until a run gets to its end; and what it was about to bring, replace and move has gone or has another name when it starts
 * again. Nothing may stay there of which nobody knows any more: a kill leaves files under two names. And what a power cut takes of
 * what a two-way route was about to bring.
 */
import assert from "node:assert/strict";
import { cpSync, existsSync, linkSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { mountSmall, unmount } from "../small-disk.js";
import { all, treeOf } from "../sync/replicas.js";
import { once } from "../sync/shared.js";
import { killedAt, killedAtEach, skipKilledAt } from "./killed-at.js";
import { World } from "./world.js";

test("a mirror killed at every step, and edited before it starts again", skipKilledAt, async (t) => {
  const world = new World(t);
  const own = { settle: "0s" };
  const config = world.config({
    devices: { box: { type: "local", dir: "box", ...own }, nas: { type: "local", dir: "nas", ...own } },
    routes: [{ from: "box", to: ["nas"], mode: "mirror", into: "", deletes: true, maxDeletes: 100 }],
  });
  world.mkdir("nas");
  for (const name of ["replaced", "moved"]) world.file(`box/${name}`, `first ${name}`, 1);
  await once(config);
  writeFileSync(world.path("box/replaced"), "second, longer");
  renameSync(world.path("box/moved"), world.path("box/moved-1"));
  writeFileSync(world.path("box/new"), "new");
  const dirs = ["state", "box", "nas"];
  const copy = (from: string, to: string) => {
    for (const dir of dirs) cpSync(world.path(`${from}${dir}`), world.path(`${to}${dir}`), { recursive: true, preserveTimestamps: true });
  };
  const litter = () => all(world.path("nas")).filter((path) => path.endsWith(".part") || /^\.filesync\/away\/[^/]+\/./.test(path));
  copy("", "image/");
  let twice = 0;
  const before = () => {
    for (const dir of dirs) rmSync(world.path(dir), { recursive: true });
    copy("image/", "");
  };
  const kills = await killedAtEach(t, ["run", "--once", "--json", "--config", config], before, async (at, n) => {
    if (n === 0) return;
    if (existsSync(world.path("nas/new")) && litter().length > 0) twice += 1;
    rmSync(world.path("box/replaced"));
    renameSync(world.path("box/moved-1"), world.path("box/moved-2"));
    renameSync(world.path("box/new"), world.path("box/new-1"));
    await once(config);
    assert.deepEqual(treeOf(world.path("nas")), treeOf(world.path("box")), `after ${at}`);
    assert.deepEqual(litter(), [], `after ${at}`);
  });
  t.diagnostic(`${JSON.stringify(kills)}, ${twice} of them with files under two names`);
  assert.ok(twice > 0 && Object.values(kills).every((count) => count > 0));
});

test(
  "killed between the two names of a file of a card that is mounted within, which goes there before it starts again",
  skipKilledAt,
  async (t) => {
    const world = new World(t);
    world.mkdir("nas");
    world.mkdir("box");
    const card = world.mkdir("box/card");
    const why = mountSmall(world.path("image"), card, 20);
    if (why !== undefined) {
      t.skip(why);
      return;
    }
    try {
      writeFileSync(world.path("box/card/old"), "old");
      const config = world.config({
        devices: { box: { type: "local", dir: "box", settle: "0s" }, nas: { type: "local", dir: "nas" } },
        routes: [{ from: "box", to: ["nas"], mode: "mirror", into: "", deletes: true, maxDeletes: 100, exclude: ["lost+found/"] }],
      });
      await once(config);
      writeFileSync(world.path("box/card/new"), "new");
      assert.ok(await killedAt(["run", "--once", "--json", "--config", config], "link", 1));
      const part = all(world.path("nas")).find((path) => path.endsWith(".part"));
      linkSync(world.path("nas", part ?? ""), world.path("nas/card/new"));
      rmSync(world.path("box/card/new"));
      await once(config);
      assert.deepEqual(
        all(world.path("nas")).filter((path) => path.endsWith(".part") || path === "card/new"),
        [],
      );
    } finally {
      unmount(card);
    }
  },
);

test(
  "two-way, the power goes before a change has its name, and takes its end: it is brought once more, and is no conflict with what it replaces",
  skipKilledAt,
  async (t) => {
    const world = new World(t);
    const config = world.config({
      devices: { box: { type: "local", dir: "box", settle: "0s" }, nas: { type: "local", dir: "nas", settle: "0s" } },
      routes: [{ from: "box", to: ["nas"], mode: "two-way", into: "" }],
    });
    world.mkdir("nas");
    world.file("box/a", "first", 1);
    await once(config);
    world.file("box/a", "second, longer", 2);
    assert.ok(await killedAt(["run", "--once", "--json", "--config", config], "link", 1, world.path("nas/a")));
    assert.ok(!existsSync(world.path("nas/a")));
    const [part = "", ...others] = all(world.path("nas")).filter((path) => /^\.filesync\/staged\/.*\.part$/.test(path));
    assert.deepEqual(others, []);
    truncateSync(world.path("nas", part), 4);
    await once(config);
    assert.deepEqual([...treeOf(world.path("nas"))], [["a", "second, longer"]]);
    assert.deepEqual(treeOf(world.path("box")), treeOf(world.path("nas")));
  },
);
