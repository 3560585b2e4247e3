/** Two-way routes with a real OpenSSH that allows nothing but SFTP: each row of the table, guards, and what a person is told. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, readdirSync, renameSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { PlannedRoute } from "../../core/sync/commands.js";
import { until } from "../conformance/clause.js";
import { rcloneSftp } from "../conformance/sftp-servers.js";
import { clockEnv, hasFakeClock } from "../faults/fake-clock.js";
import { Program, runProgram } from "../faults/process.js";
import { World } from "../faults/world.js";
import { rows } from "../sync/rows.js";
import { openssh, refusing, untimed } from "../sync/servers.js";
import { once, shared, statusOf, stopped } from "../sync/shared.js";

const skipOf = ({ skip }: { readonly skip?: string }) => (skip === undefined ? {} : { skip });
const skip = skipOf(openssh);

test("each row of the table, on OpenSSH that allows nothing but SFTP", skip, async (t) => {
  const both = await shared(t);
  const config = both.config({ mode: "two-way", maxDeletes: 100 });
  const name = (row: number) => `row-${row}.txt`;
  for (const { row, base } of rows) if (base !== undefined) both.put("here", name(row), base);
  await once(config);
  assert.deepEqual(both.tree("there"), both.tree("here"));
  for (const { row, base, here, there } of rows) {
    // What stays as it is is not touched.
    if (here !== base) both.put("here", name(row), here);
    if (there !== base) both.put("there", name(row), there);
  }
  const planned = JSON.parse((await runProgram(["plan", "--json", "--config", config])).out) as { routes: PlannedRoute[] };
  await once(config);
  const [here, there] = [both.tree("here"), both.tree("there")];
  for (const { row, pisync, result, beside, trash } of rows)
    await t.test(`row ${row} (PiSync: ${pisync})`, () => {
      const known = planned.routes[0]?.paths.find(({ path }) => path === name(row));
      if (row > 1) assert.equal(known?.row, row, JSON.stringify(known));
      assert.equal(here[name(row)], result);
      assert.equal(there[name(row)], result);
      const named = (tree: Record<string, string>) =>
        Object.entries(tree).flatMap(([path, content]) => (path.startsWith(`row-${row}.conflict-`) ? [content] : []));
      assert.deepEqual([named(here), named(there)], beside === undefined ? [[], []] : [[beside], [beside]]);
      assert.deepEqual([both.trash("here")[name(row)], both.trash("there")[name(row)]], [trash?.here, trash?.there]);
    });
  assert.deepEqual(here, there);
});

test("a day with it: directories, renames, conflicts and changes come through, in both directions", skip, async (t) => {
  const both = await shared(t);
  const config = both.config({ mode: "two-way" });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  /** Waits until the daemon has done something, and both are the same. */
  let seen = 0;
  const settled = async () => {
    await program.until(() => {
      const synced = program.events.filter(({ what }) => what === "synced").length;
      if (synced <= seen) return false;
      const equal = both.isEven();
      if (equal) seen = synced;
      return equal;
    }, "both are the same");
  };
  both.put("here", "flights/day 1/a.txt", "one");
  both.put("here", "flights/day 1/ü–😀.txt", "odd");
  mkdirSync(join(both.box, "empty/in it"), { recursive: true });
  await settled();
  assert.equal(both.tree("there")["empty/in it/"], "");
  both.put("there", "from the ground.txt", "hello");
  await settled();
  assert.equal(both.tree("here")["from the ground.txt"], "hello");
  renameSync(join(both.box, "flights"), join(both.box, "Flights 2026"));
  await settled();
  assert.equal(both.tree("there")["Flights 2026/day 1/a.txt"], "one");
  assert.equal(both.tree("there")["flights/"], undefined);
  both.put("there", "Flights 2026", undefined);
  await settled();
  assert.deepEqual(Object.keys(both.tree("here")).sort(), ["empty/", "empty/in it/", "from the ground.txt"]);
  assert.equal(both.trash("here")["Flights 2026/day 1/a.txt"], "one");
});

test("files that only got another name are not counted as removed", skip, async (t) => {
  const both = await shared(t);
  const config = both.config({ mode: "two-way", maxDeletes: 1 });
  for (let n = 1; n <= 5; n++) both.put("here", `a${n}`, `content ${n}`);
  await once(config);
  for (let n = 1; n <= 5; n++) renameSync(join(both.box, `a${n}`), join(both.box, `b${n}`));
  await once(config);
  assert.deepEqual(Object.keys(both.tree("there")).sort(), ["b1", "b2", "b3", "b4", "b5"]);
  assert.deepEqual(both.tree("there"), both.tree("here"));
});

test(
  "a name at a server in which the sign stands that this program quotes bytes with: it is told, stays, and holds up nothing else",
  untimed.skip === undefined ? {} : { skip: untimed.skip },
  async (t) => {
    const both = await shared(t, untimed);
    const config = both.config({ mode: "two-way" });
    // "A" quoted without need, and the sign alone, once and as it is written.
    for (const [n, name] of ["x\u201b41", "\u201b", "\u201b\u201b", "d\u201b41/in it", "other"].entries())
      both.put("there", name, String(n));
    const before = both.tree("there");
    const said = await once(config, 3);
    await once(config, 3);
    assert.deepEqual(both.tree("there"), before);
    assert.deepEqual(both.tree("here"), { "\u201b": "2", other: "4" });
    for (const name of ["x\u201b41", "\u201b", "d\u201b41"]) assert.match(said, new RegExp(`nas:${name}: in its name the sign`));
    assert.deepEqual(both.trashed("there"), []);
  },
);

test("what this route leaves out keeps its directory, and that is told", skip, async (t) => {
  const both = await shared(t);
  const config = both.config({ mode: "two-way", exclude: ["**/*.own"] });
  both.put("here", "d/a", "a");
  both.put("here", "b", "b");
  await once(config);
  both.put("there", "d/of the server.own", "own");
  both.put("here", "d", undefined);
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  const { message } = await program.until(({ what }) => what === "sync-trouble", "it is told");
  assert.match(message, /^box ↔ nas: d: something that is not listed is in the way: /);
  assert.deepEqual(both.tree("there"), { b: "b", "d/": "", "d/of the server.own": "own" });
  assert.deepEqual(
    (await statusOf(config)).syncs[0]?.troubles.map(({ path }) => path),
    ["d"],
  );
});

test(
  "too much that would be removed, and a directory that is not the one that was agreed with, stop it until a person says so",
  skip,
  async (t) => {
    const both = await shared(t);
    const config = both.config({ mode: "two-way", maxDeletes: 2 });
    const { program, message } = await stopped(t, both, config);
    assert.match(
      message,
      /^box ↔ nas: 3 of 6 would be removed at nas, .*at most 2 are: .*filesync plan box:nas .*filesync approve box:nas/,
    );
    const status = await statusOf(config);
    assert.equal(status.syncs[0]?.state, "stopped");
    assert.match(status.summary, /^box:nas: stopped, 3 of 6 paths wait: 3 of 6 would be removed/);
    const plan = (await runProgram(["plan", "--config", config])).out;
    assert.match(plan, /^ {2}a1: move it to the trash at nas {2}\[row 7: 1 B \S+ \| - \| 1 B \S+\]$/m);
    assert.match(plan, /^ {2}3 paths are the same on both sides$/m);
    const approve = () => runProgram(["approve", "box:nas", "--config", config]);
    both.put("here", "a4", undefined);
    const other = await approve();
    assert.equal(other.code, 2);
    assert.match(
      other.err,
      /box ↔ nas: nothing is approved, as it is not what was shown last: 4 of 6 would be .* \(a1, a2, a3, a4\); filesync plan/,
    );
    assert.equal(Object.keys(both.tree("there")).length, 6);
    const approved = await approve();
    assert.equal(approved.code, 0, approved.err);
    assert.match(approved.out, /^box ↔ nas: it goes on, once, though 4 of 6 would be removed at nas, .* \(a1, a2, a3, a4\)$/m);
    await program.until(({ what }) => what === "synced", "it goes on");
    assert.deepEqual(Object.keys(both.tree("there")).sort(), ["a5", "a6"]);
    await program.kill();
    // A mount point without its disk.
    renameSync(both.box, `${both.box}-away`);
    mkdirSync(both.box);
    const again = new Program(["run", "--json", "--config", config]);
    t.after(() => again.kill());
    const strange = await again.until(({ what }) => what === "sync-stopped", "it stops");
    assert.match(strange.message, /the directory of box is not the one that was agreed with: it is not mounted, or was made anew/);
    assert.deepEqual(readdirSync(both.box), []);
    assert.deepEqual(Object.keys(both.tree("there")).sort(), ["a5", "a6"]);
    // It is a new one, says a person: what the other side has comes to it.
    assert.equal((await runProgram(["approve", "box", "--config", config])).code, 0);
    await again.until(({ what }) => what === "synced", "it goes on");
    assert.deepEqual(both.tree("here"), both.tree("there"));
    assert.equal(Object.keys(both.tree("here")).length, 2);
  },
);

const anybody = rcloneSftp("off");

test("a server on which nothing is had by one alone is refused, with what was tried; nothing is sent", skipOf(anybody), async (t) => {
  const server = await anybody.start();
  t.after(() => server.stop());
  const world = new World(t);
  world.mkdir("box");
  writeFileSync(world.path("box/a"), "a");
  const config = world.config({
    devices: {
      box: { type: "local", dir: "box", settle: "0s", interval: "1s" },
      nas: { type: "sftp", host: "127.0.0.1", port: server.port, root: "/", ...server.options },
    },
    routes: [{ from: "box", to: ["nas"], mode: "two-way" }],
  });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  const { message } = await program.until(({ what }) => what === "sync-stopped", "it is refused");
  assert.match(
    message,
    /^box ↔ nas: nas may give a name that something has to something else, and the same new directory to several .*\(tried\)/,
  );
  assert.equal((await statusOf(config)).syncs[0]?.state, "refused");
  const { code, err } = await runProgram(["approve", "box", "--config", config]);
  assert.equal(code, 2);
  assert.match(err, /box ↔ nas does not wait for an approval: nas may give/);
  await program.kill();
  assert.ok(!existsSync(join(server.dir, "a")));
  const alone = await runProgram(["approve", "box", "--config", config]);
  assert.match(alone.err, /box ↔ nas does not wait for an approval: nas may give/);
});

for (const [kind, clock] of [...["+0", "+1h", "-1h"].map((it) => [openssh, it] as const), [untimed, "+0"], [untimed, "+1h"]] as const)
  test(
    `what is written at the server (${kind.name}) in the same second and of the same size as what was listed a moment before comes too, with a clock here of ${clock}`,
    skipOf(hasFakeClock ? kind : { skip: "faketime is missing" }),
    async (t) => {
      const both = await shared(t, kind);
      const config = both.config({ mode: "two-way" });
      const env = { ...process.env, ...clockEnv(both.world.path("clock")) };
      writeFileSync(both.world.path("clock"), clock);
      const program = new Program(["run", "--json", "--config", config], { env });
      t.after(() => program.kill());
      await program.until(({ what }) => what === "ready", "ready");
      const write = (name: string, content: string, seconds: number) => {
        both.put("there", name, content);
        utimesSync(join(both.nas, name), seconds, seconds);
      };
      const arrives = (name: string, content: string) => until(`${name}: ${content}`, () => both.tree("here")[name] === content);
      for (let n = 0; ; n++) {
        const name = `${n}.txt`;
        const second = Math.ceil(Date.now() / 1000);
        write(name, "one", second);
        await arrives(name, "one");
        // It was listed later than a moment after that second.
        if (Date.now() - second * 1000 > 1000) continue;
        write(name, "two", second);
        await arrives(name, "two");
        return;
      }
    },
  );

test(
  "at a server that lists no times (vsftpd), what looks as it was agreed is not read again; a new time says that it changed",
  skipOf(untimed),
  async (t) => {
    const both = await shared(t, untimed);
    const config = both.config({ mode: "two-way" });
    const seconds = Math.floor(Date.now() / 1000) - 3600;
    const write = (content: string, at: number) => {
      both.put("there", "log", content);
      utimesSync(join(both.nas, "log"), at, at);
    };
    write("one", seconds);
    await once(config);
    assert.deepEqual(both.tree("here"), { log: "one" });
    both.put("here", "ours", "ours");
    utimesSync(join(both.box, "ours"), seconds, seconds);
    await once(config);
    assert.equal(statSync(join(both.nas, "ours")).mtimeMs, seconds * 1000);
    // Only who reads all of it sees that.
    write("two", seconds);
    await once(config);
    assert.deepEqual(both.tree("here"), { log: "one", ours: "ours" });
    write("two", seconds + 1);
    await once(config);
    assert.deepEqual(both.tree("here"), { log: "two", ours: "ours" });
    assert.deepEqual(both.trash("here"), { log: "one" });
  },
);

test(
  "a name that the server does not take (Apache as of Debian: .ht*) is left alone, and is over with its file",
  skipOf(refusing),
  async (t) => {
    const both = await shared(t, refusing);
    chmodSync(both.nas, 0o777);
    const config = both.config({ mode: "two-way" });
    for (const path of ["site/.htaccess", "site/index.txt", "keep", "keep2", "keep3"]) both.put("here", path, path);
    const why = async () => (await runProgram(["why", "site/.htaccess", "--config", config])).out;
    for (let n = 0; n < 2; n++) assert.match(await once(config, 3), /site\/\.htaccess: nas: .*403/);
    assert.match(await why(), /when it last ran \(.*\), box ↔ nas left it as it was: nas: .*403/);
    assert.match(await why(), /has begun to bring it, and it has no name yet; no daemon runs/);
    // It was sent once, and waits.
    assert.deepEqual(both.parts(), ["site/.htaccess".length]);
    const program = new Program(["run", "--json", "--config", config]);
    t.after(() => program.kill());
    await program.until(({ what }) => what === "sync-trouble", "it is told");
    await until("status says it", async () => {
      const [sync] = (await statusOf(config)).syncs;
      // It looks again and again, and on a busy machine may be found at it each time.
      return sync?.evenAt !== undefined && sync.troubles.length === 1 && sync.troubles[0]?.path === "site/.htaccess";
    });
    assert.match(await why(), /leaves it as it is: nas: .*403/);
    both.put("here", "site", undefined);
    await until("it is gone there", () => both.isEven());
    await until("nothing is left", async () => {
      const [sync] = (await statusOf(config)).syncs;
      return sync?.troubles.length === 0 && both.parts().length === 0;
    });
    await program.kill();
    assert.doesNotMatch(await once(config), /htaccess/);
    both.put("here", "site", "a file");
    await once(config);
    assert.equal(both.tree("there")["site"], "a file");
  },
);

test(
  "a directory here in which nothing may be made: what comes into it is left alone, and is over where it goes there",
  skip,
  async (t) => {
    const both = await shared(t);
    const config = both.config({ mode: "two-way" });
    for (const path of ["dir/one", "keep", "keep2"]) both.put("here", path, path);
    await once(config);
    const lock = (flag: string) => spawnSync("chattr", [flag, join(both.box, "dir")]).status === 0;
    if (!lock("+i")) {
      t.skip("chattr: no directory can be made so here");
      return;
    }
    t.after(() => lock("-i"));
    both.put("there", "dir/two", "two");
    assert.match(await once(config, 3), /dir\/two: box: /);
    both.put("there", "dir/two", undefined);
    assert.doesNotMatch(await once(config), /two/);
    lock("-i");
    both.put("there", "dir", undefined);
    await once(config);
    assert.deepEqual(both.tree("here"), { keep: "keep", keep2: "keep2" });
  },
);
