/** Mirrors with a real OpenSSH that allows nothing but SFTP: what SKYNET did, guards, and what a person is told. */
import assert from "node:assert/strict";
import {
  appendFileSync,
  copyFileSync,
  linkSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { PlannedRoute } from "../../core/sync/commands.js";
import { until } from "../conformance/clause.js";
import { chrooted } from "../conformance/sftp-servers.js";
import { Program, runProgram } from "../faults/process.js";
import { once, type Shared, shared, statusOf, stopped } from "../sync/shared.js";

const skip = chrooted.skip === undefined ? {} : { skip: chrooted.skip };

/** What names a file at the server, whatever it is called: the same after a move, another one after it was sent again. */
const thing = (both: Shared, path: string) => statSync(join(both.nas, path)).ino;

test(
  "a day with it: what is made, changed, renamed and removed here becomes so there, and what only got another name is not sent again",
  skip,
  async (t) => {
    const both = await shared(t);
    const config = both.config({ mode: "mirror", deletes: true });
    const program = new Program(["run", "--json", "--config", config]);
    t.after(() => program.kill());
    const settled = () => program.until(() => both.isEven(), "it follows");
    both.put("here", "flights/day 1/a.txt", "one");
    both.put("here", "flights/day 1/ü–😀.txt", "odd");
    mkdirSync(join(both.box, "empty/in it"), { recursive: true });
    await settled();
    assert.equal(both.tree("there")["empty/in it/"], "");
    const old = thing(both, "flights/day 1/a.txt");
    renameSync(join(both.box, "flights"), join(both.box, "Flights 2026"));
    await settled();
    assert.equal(thing(both, "Flights 2026/day 1/a.txt"), old);
    appendFileSync(join(both.box, "Flights 2026/day 1/a.txt"), " and more");
    await settled();
    rmSync(join(both.box, "Flights 2026"), { recursive: true });
    await settled();
    assert.deepEqual(Object.keys(both.tree("there")).sort(), ["empty/", "empty/in it/"]);
    assert.deepEqual(
      both
        .trashed("there")
        .filter(([path]) => path.endsWith("a.txt"))
        .map(([path, content]) => `${path}: ${content}`)
        .sort(),
      ["Flights 2026/day 1/a.txt: one", "Flights 2026/day 1/a.txt: one and more"],
    );
    const told = async () => (await statusOf(config)).syncs.map(({ route, mode, state, troubles }) => ({ route, mode, state, troubles }));
    // It looks once more before it says so.
    let last: Awaited<ReturnType<typeof told>> = [];
    await until("it knows", async () => (last = await told())[0]?.state !== "working");
    assert.deepEqual(last, [{ route: "box:nas/shared", mode: "mirror", state: "even", troubles: [] }]);
  },
);

test(
  "names that changed while nothing ran: a swap, a circle, a rotation, a directory that comes into its own place, one that takes its parent's",
  skip,
  async (t) => {
    const both = await shared(t);
    const config = both.config({ mode: "mirror", deletes: true });
    const given = ["s/one", "s/two", "c/1", "c/2", "c/3", "log", "log.1", "log.2", "in/x", "out/sub/deep/y", "p/a", "q/b", "same"];
    for (const path of given) both.put("here", path, `content of ${path}`);
    await once(config);
    assert.deepEqual(both.tree("there"), both.tree("here"));
    const things = new Map(given.map((path) => [`content of ${path}`, thing(both, path)]));
    const mv = (from: string, to: string) => renameSync(join(both.box, from), join(both.box, to));
    mv("s/one", "t");
    mv("s/two", "s/one");
    mv("t", "s/two");
    mv("c/1", "t");
    mv("c/3", "c/1");
    mv("c/2", "c/3");
    mv("t", "c/2");
    mv("log.1", "log.2");
    mv("log", "log.1");
    both.put("here", "log", "new");
    mv("in", "t");
    mkdirSync(join(both.box, "in"));
    mv("t", "in/in");
    mv("out/sub/deep", "t");
    rmSync(join(both.box, "out"), { recursive: true });
    mv("t", "out");
    mv("p", "t");
    mv("q", "p");
    mv("t", "q");
    // Another name of the same file is a file of its own there.
    linkSync(join(both.box, "same"), join(both.box, "twin"));
    const planned = JSON.parse((await runProgram(["plan", "--json", "--config", config])).out) as { routes: PlannedRoute[] };
    const words = planned.routes[0]?.paths.flatMap(({ actions }) => actions) ?? [];
    assert.ok(words.includes("move it there at nas from c/3"), JSON.stringify(words));
    const before = both.tree("there");
    assert.equal(before["c/1"], "content of c/1");
    await once(config);
    assert.deepEqual(both.tree("there"), both.tree("here"));
    for (const [path, content] of Object.entries(both.tree("there")))
      if (things.has(content) && path !== "twin") assert.equal(thing(both, path), things.get(content), path);
    // What a name was given over, and only that, is in the trash.
    assert.deepEqual(
      both.trashed("there").map(([, content]) => content),
      ["content of log.2"],
    );
    assert.ok(
      !readdirSync(join(both.nas, ".filesync")).includes("away") ||
        readdirSync(join(both.nas, ".filesync/away"), { recursive: true }).length <= 1,
    );
  },
);

test(
  "without deletes what has gone here stays there; a name that is needed again is made free, and what had it is in the trash",
  skip,
  async (t) => {
    const both = await shared(t);
    const config = both.config({ mode: "mirror" });
    for (const path of ["a", "b", "d/x", "e"]) both.put("here", path, `old ${path}`);
    await once(config);
    for (const path of ["a", "b", "d"]) both.put("here", path, undefined);
    await once(config);
    assert.deepEqual(both.tree("there"), { a: "old a", b: "old b", "d/": "", "d/x": "old d/x", e: "old e" });
    both.put("here", "a", "new a, longer");
    renameSync(join(both.box, "e"), join(both.box, "b"));
    both.put("here", "d", "a file where a directory was");
    await once(config);
    assert.deepEqual(both.tree("there"), { a: "new a, longer", b: "old e", d: "a file where a directory was" });
    assert.deepEqual(Object.entries(both.trash("there")).sort(), [
      ["a", "old a"],
      ["b", "old b"],
      ["d/x", "old d/x"],
    ]);
  },
);

test("what others have at the server is left alone, but for a name that is needed, which goes to the trash", skip, async (t) => {
  const both = await shared(t);
  const config = both.config({ mode: "mirror", deletes: true });
  both.put("there", "theirs/of them", "foreign");
  both.put("there", "a", "foreign too");
  both.put("there", "same", "equal");
  both.put("here", "a", "ours");
  both.put("here", "same", "equal");
  both.put("here", "d/x", "x");
  const untouched = thing(both, "same");
  await once(config);
  assert.deepEqual(both.tree("there"), { a: "ours", "d/": "", "d/x": "x", same: "equal", "theirs/": "", "theirs/of them": "foreign" });
  assert.equal(thing(both, "same"), untouched);
  assert.deepEqual(both.trash("there"), { a: "foreign too" });
  // Somebody changed what was ours, took another away, and put something into a directory that goes.
  both.put("there", "a", "changed by them");
  both.put("there", "same", undefined);
  both.put("there", "d/theirs", "in ours");
  both.put("here", "d", undefined);
  const { out } = await runProgram(["plan", "--config", config]);
  assert.match(out, /d: forget it: it, or something in it, is somebody else's, and stays there\n.*d\/theirs: .* it stays there/);
  await once(config);
  assert.deepEqual(both.tree("there"), {
    ...{ a: "ours", "d/": "", "d/theirs": "in ours", same: "equal", "theirs/": "", "theirs/of them": "foreign" },
  });
  assert.deepEqual(
    both
      .trashed("there")
      .map(([, content]) => content)
      .sort(),
    ["changed by them", "foreign too", "x"],
  );
});

test(
  "too much that would be removed, and a source that is not mounted, stop it until a person says so; without deletes nothing is removed at all",
  skip,
  async (t) => {
    const both = await shared(t);
    const config = both.config({ mode: "mirror", deletes: true, maxDeletes: 2 });
    const { program, message } = await stopped(t, both, config);
    assert.match(message, /^box ⇒ nas\/shared: 3 of 6 would be removed at nas, .*at most 2 are: .*filesync approve box:nas\/shared/);
    assert.equal((await runProgram(["approve", "box", "--config", config])).code, 0);
    await program.until(({ what }) => what === "synced", "it goes on");
    assert.deepEqual(Object.keys(both.tree("there")).sort(), ["a4", "a5", "a6"]);
    await program.kill();
    renameSync(both.box, `${both.box}-away`);
    mkdirSync(both.box);
    writeFileSync(join(both.box, "on the mount point"), "!");
    const again = new Program(["run", "--json", "--config", config]);
    t.after(() => again.kill());
    const strange = await again.until(({ what }) => what === "sync-stopped", "it stops");
    assert.match(strange.message, /the directory of box is not the one that was agreed with/);
    assert.deepEqual(Object.keys(both.tree("there")).sort(), ["a4", "a5", "a6"]);
    await again.kill();
    const adds = both.config({ mode: "mirror" }, {});
    await once(adds);
    assert.deepEqual(Object.keys(both.tree("there")).sort(), ["a4", "a5", "a6", "on the mount point"]);
  },
);

test("a server that was set up anew gets everything again, and that is told", skip, async (t) => {
  const both = await shared(t);
  const config = both.config({ mode: "mirror", deletes: true });
  for (let n = 1; n <= 30; n++) both.put("here", `d/a${n}`, String(n));
  await once(config);
  for (const name of readdirSync(both.nas)) rmSync(join(both.nas, name), { recursive: true });
  assert.match(
    await once(config),
    /box ⇒ nas\/shared: the directory of nas is not the one of before: what was agreed is forgotten, and nothing is removed/,
  );
  assert.deepEqual(both.tree("there"), both.tree("here"));
});

test(
  "links are never followed out of the tree, and are told; a copy with the same time and size and another content is sent",
  skip,
  async (t) => {
    const both = await shared(t);
    const config = both.config({ mode: "mirror" });
    both.put("here", "a", "first");
    symlinkSync("/etc", join(both.box, "link"));
    await once(config, 3);
    assert.deepEqual(both.tree("there"), { a: "first" });
    assert.match(JSON.stringify((await statusOf(config)).syncs[0]), /unknown/);
    // cp -p of another version over it.
    const { atime, mtime } = statSync(join(both.box, "a"));
    writeFileSync(both.world.path("other"), "other");
    utimesSync(both.world.path("other"), atime, mtime);
    copyFileSync(both.world.path("other"), join(both.box, "a.new"));
    utimesSync(join(both.box, "a.new"), atime, mtime);
    renameSync(join(both.box, "a.new"), join(both.box, "a"));
    await once(config, 3);
    assert.deepEqual(both.tree("there"), { a: "other" });
  },
);

test("what was brought a moment ago is not waited for at the server", skip, async (t) => {
  const both = await shared(t);
  const config = both.config({ mode: "mirror", deletes: true }, {}, { settle: "1h" });
  both.put("here", "a", "a");
  both.put("here", "b", "b");
  await once(config);
  renameSync(join(both.box, "a"), join(both.box, "c"));
  both.put("here", "b", "changed");
  await once(config);
  assert.deepEqual(both.tree("there"), { b: "changed", c: "a" });
});
