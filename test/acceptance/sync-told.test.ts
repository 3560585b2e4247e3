/** Mirror and two-way routes between directories of this machine: what a person is told of them, and asked. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, chownSync, cpSync, existsSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync } from "node:fs";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { Status } from "../../core/status.js";
import { Program, runProgram } from "../faults/process.js";
import { World } from "../faults/world.js";
import { unmountIdle } from "../small-disk.js";
import { once } from "../sync/shared.js";

const own = { settle: "0s", interval: "1s" };

/** "box" and "nas", each a directory, and a route from the one to the other. */
class Two {
  readonly world: World;

  constructor(t: TestContext) {
    this.world = new World(t);
    this.world.mkdir("box");
    this.world.mkdir("nas");
  }

  config(route: object, more: { readonly devices?: object; readonly routes?: readonly object[] } = {}): string {
    return this.world.config({
      devices: { box: { type: "local", dir: "box", ...own }, nas: { type: "local", dir: "nas", ...own }, ...more.devices },
      routes: [{ from: "box", to: ["nas"], ...route }, ...(more.routes ?? [])],
    });
  }

  put(path: string, content = path): void {
    this.world.comes(this.world.path(path), content);
  }
}

test("run --once ends with 3 where a route could not bring all of it, and says why", async (t) => {
  const two = new Two(t);
  const { world } = two;
  const config = two.config({ mode: "mirror", deletes: true });
  const left = async (message: RegExp) => assert.match(await once(config, 3), message);
  // Which is told after it, too.
  const told = async (message: RegExp, why: RegExp, path = "a1") => {
    assert.match((await runProgram(["status", "--config", config])).out, message);
    assert.match((await runProgram(["why", `box:${path}`, "--config", config])).out, why);
  };
  for (let n = 1; n <= 30; n++) two.put(`box/a${n}`);
  renameSync(world.path("nas"), world.path("away"));
  await left(/finished, but box ⇒ nas: nas: .*nas does not exist; the lines above say why/);
  const { code, out } = await runProgram(["plan", "--config", config]);
  assert.deepEqual([code, out.includes("the same on both sides")], [0, false]);
  assert.match(out, /^box:nas {2}\w+: box ⇒ nas: .*nas does not exist$/);
  renameSync(world.path("away"), world.path("nas"));
  await once(config);
  symlinkSync("a1", world.path("box/link"));
  await left(/finished, but box ⇒ nas: 1 path is left as it is;/);
  await told(
    /\nbox:nas {2}no daemon runs; when it last ran \(.*\): all of it is there, but for 1 left as it is {2}\(mirror, 0 changes\)\n {2}box:link: /,
    /when it last ran \(.*\), box ⇒ nas left it as it was: .*link/,
    "link",
  );
  // Whoever leaves it out knows of it.
  two.config({ mode: "mirror", deletes: true, exclude: ["link"] });
  await once(config);
  rmSync(world.path("box/link"));
  for (let n = 1; n <= 30; n++) rmSync(world.path(`box/a${n}`));
  await left(/finished, but box ⇒ nas: everything \(30 of 30\) would be removed at nas: /);
  await told(
    /\nbox:nas {2}no daemon runs; when it last ran \(.*\): stopped: everything \(30 of 30\) would be removed at nas: /,
    /no daemon runs; when it last ran \(.*\), the route was stopped: everything/,
  );
});

test("run --once says why a source is away also where that was not known when it was looked at first", async (t) => {
  const { world } = new Two(t);
  const [box, nas] = ["unplugged", "nas"].map((dir) => ({ type: "local", dir }));
  const config = world.config({ devices: { box, nas }, routes: [{ from: "box", to: ["nas"], mode: "mirror" }] });
  assert.match(await once(config, 3), /finished, but box ⇒ nas: box: .*unplugged does not exist; the lines above say why/);
});

test("run --once ends with 3 where a route is refused", async (t) => {
  const two = new Two(t);
  const { world } = two;
  world.mkdir("weak");
  const local = JSON.stringify(fileURLToPath(new URL("../../plugins/local/plugin.js", import.meta.url)));
  world.file(
    "weak.mjs",
    `import { plugin as local } from ${local};
     const weak = (device) => {
       const tryOut = device.tree.tryOut.bind(device.tree);
       device.tree.tryOut = async (...how) => ({ ...(await tryOut(...how)), exclusive: "directories" });
       return device;
     };
     export const plugin = { ...local, type: "weak", device: (...given) => weak(local.device(...given)) };`,
  );
  const config = two.config(
    { mode: "two-way", from: "weak", to: ["nas"] },
    { devices: { weak: { type: "./weak.mjs", dir: "weak", ...own } } },
  );
  assert.match(await once(config, 3), /finished, but weak ↔ nas: weak may give a name that something has to something else/);
  const why = async () => {
    const { out, err } = await runProgram(["why", "a", "--config", config]);
    return out + err;
  };
  // Nothing was removed, and nothing is in the trash.
  const refused = /weak ↔ nas: when it last ran \(.*\), the route was refused: weak may give a name that something has/;
  assert.match(await why(), refused);
  assert.doesNotMatch(await why(), /trash/);
  // Nothing of it would be done.
  two.put("nas/a");
  const { code, out } = await runProgram(["plan", "--config", config]);
  assert.equal(code, 0);
  assert.match(out, /^weak:nas {2}refused: weak may give a name that something has to something else .*$/);
});

test("a target that comes to be inside its source while it runs is refused, and nothing is brought there", async (t) => {
  const two = new Two(t);
  const { world } = two;
  world.mkdir("box/sub");
  two.put("box/a");
  rmSync(world.path("nas"), { recursive: true });
  const config = two.config(
    { mode: "mirror" },
    {
      routes: [{ from: "oth", to: ["out"] }],
      devices: {
        oth: { type: "local", dir: "oth", ...own },
        out: { type: "local", dir: "out", ...own },
      },
    },
  );
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ message }) => message.includes("is ready"), "it is ready");
  symlinkSync(world.path("box/sub"), world.path("nas"));
  const { message } = await program.until(({ what }) => what === "sync-stopped", "it is refused");
  assert.match(message, /^box ⇒ nas: nas is in box \(.*leave it out \("exclude": \["sub"\]\)/);
  symlinkSync(world.path("oth/in"), world.path("out"));
  world.mkdir("oth/in");
  two.put("oth/b");
  const copied = await program.until(({ what }) => what === "listing-failed", "it is not listed");
  assert.match(copied.message, /^oth: cannot list it: .*out:v\/oth is in oth/);
  assert.deepEqual(readdirSync(world.path("box/sub")), []);
  assert.deepEqual(readdirSync(world.path("oth")).sort(), ["b", "in"]);
  const { code, out } = await runProgram(["check", "--config", config]);
  assert.equal(code, 2);
  assert.match(out, /routes\[0\]\.to\[0\]: nas is in box/);
});

const needsMount = { skip: process.getuid?.() === 0 ? false : "needs root to mount" };

test("two mirrors into one directory, one of them by way of a bind mount, are refused: they would fight over it", needsMount, async (t) => {
  const two = new Two(t);
  const { world } = two;
  const [oth, bound] = [world.mkdir("oth"), world.mkdir("bound")];
  const config = two.config(
    { mode: "mirror" },
    {
      devices: { oth: { type: "local", dir: oth }, bound: { type: "local", dir: bound } },
      routes: [{ from: "oth", to: ["bound"], mode: "mirror" }],
    },
  );
  assert.equal((await runProgram(["check", "--config", config])).code, 0);
  assert.equal(spawnSync("mount", ["--bind", world.path("nas"), bound]).status, 0);
  try {
    const { code, out } = await runProgram(["check", "--config", config]);
    assert.equal(code, 2);
    assert.match(out, /another route keeps nas: the same as something else: they would undo one another's changes/);
  } finally {
    spawnSync("umount", [bound]);
  }
});

test(
  "a target that is mounted within its source is refused, also where only a part of it is, or what is around it: it would fill itself",
  needsMount,
  async (t) => {
    const two = new Two(t);
    const { world } = two;
    two.put("box/f");
    world.mkdir("nas/part");
    const at = world.mkdir("box/t/at");
    for (const [what, left] of [
      ["nas", "t/at"],
      ["nas/part", "t/at"],
      [".", "t/at/nas"],
    ] as const) {
      assert.equal(spawnSync("mount", ["--bind", world.path(what), at]).status, 0);
      try {
        for (const mode of ["mirror", "two-way", "copy"]) {
          const check = async (more = {}) => runProgram(["check", "--config", two.config({ mode, into: "", ...more })]);
          const { code, out } = await check();
          assert.equal(code, 2, `${mode} ${what}`);
          assert.ok(out.includes(`without end; leave it out ("exclude": ["${left}"]), or choose another directory`), out);
          assert.equal((await check({ exclude: ["t/at"] })).code, 0, `${mode} ${what}`);
        }
      } finally {
        spawnSync("umount", [at]);
      }
    }
    assert.equal((await runProgram(["check", "--config", two.config({ mode: "two-way" })])).code, 0);
  },
);

test("what a route keeps in .filesync is not sent by a route from the directory above", async (t) => {
  const two = new Two(t);
  const { world } = two;
  const dir = (at: string) => ({ type: "local", dir: at, create: true, ...own });
  const config = two.config(
    { from: "in", mode: "two-way", into: "in" },
    {
      devices: { above: dir("above"), in: dir("above/in"), up: dir("up"), mir: dir("mir") },
      routes: [
        { from: "above", to: ["up"], into: "" },
        { from: "above", to: ["mir"], mode: "mirror", deletes: true },
      ],
    },
  );
  world.mkdir("above/in");
  for (const name of ["a", "b"]) two.put(`above/in/${name}`);
  await once(config);
  two.put("nas/in/a", "changed there");
  rmSync(world.path("nas/in/b"));
  await once(config);
  await once(config);
  const named = (at: string) => readdirSync(world.path(at), { recursive: true, encoding: "utf8" }).sort();
  assert.ok(named("above/in").some((path) => path.startsWith(".filesync/trash/")));
  assert.ok(named("up").includes("in/b"));
  assert.deepEqual(
    [...named("up"), ...named("mir")].filter((path) => path.includes(".filesync") && !path.startsWith(".filesync")),
    [],
  );
  assert.deepEqual(
    named("mir").filter((path) => !path.startsWith(".filesync")),
    ["in", "in/a"],
  );
});

for (const mode of ["two-way", "mirror"] as const)
  test(`plan of a ${mode} route whose directory is another one shows what is done once that is approved`, async (t) => {
    const two = new Two(t);
    const { world } = two;
    const config = two.config({ mode, ...(mode === "mirror" ? { deletes: true } : {}) });
    for (const name of ["a", "b", "c"]) two.put(`box/${name}`);
    await once(config);
    renameSync(world.path("box"), world.path("away"));
    world.mkdir("box");
    two.put("box/a", "another");
    two.put("box/new");
    const planned = async () => (await runProgram(["plan", "--config", config])).out;
    const first =
      /^ {2}the directory of box is not the one that was agreed with: it is not mounted, or was made anew; nothing is done before "filesync approve box:nas"; then what was agreed is forgotten, nothing is removed, and this is done:$/m;
    const before = await planned();
    assert.match(before, first);
    assert.match(before, /^ {2}new: bring it to nas/m);
    assert.match(
      before,
      mode === "two-way"
        ? /^ {2}b: bring it to box {2}\[row 2:/m
        : /^ {2}b: left as it is: what was agreed of it is forgotten: it stays there/m,
    );
    assert.match(before, mode === "two-way" ? /^ {2}a: keep both:/m : /^ {2}a: bring it to nas, the old one to the trash there/m);
    const program = new Program(["run", "--json", "--config", config]);
    t.after(() => program.kill());
    await program.until(({ what }) => what === "sync-stopped", "it stops");
    assert.match(await planned(), first);
    assert.equal((await runProgram(["approve", "box:nas", "--config", config])).code, 0);
    await program.until(({ what }) => what === "synced", "it goes on");
    const names = readdirSync(world.path("nas")).filter((name) => name !== ".filesync");
    for (const name of ["a", "b", "c", "new"]) assert.ok(names.includes(name), name);
  });

test("a route that was stopped and goes on says that it works, as long as that takes", async (t) => {
  const two = new Two(t);
  const { world } = two;
  const config = two.config({ mode: "mirror", deletes: true, maxRate: "100kB/s" });
  two.put("box/a");
  await once(config);
  renameSync(world.path("box"), world.path("away"));
  world.mkdir("box");
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what }) => what === "sync-stopped", "it stops");
  two.put("away/b", "b".repeat(10_000_000));
  rmSync(world.path("box"), { recursive: true });
  renameSync(world.path("away"), world.path("box"));
  await eventually(async () => /^box:nas: works, 1 of 2 paths waits$/m.test((await runProgram(["status", "--config", config])).out));
});

for (const side of ["box", "nas"])
  test(`a file, or a link, where the program keeps its own at ${side} is told with the place`, async (t) => {
    const two = new Two(t);
    const { world } = two;
    const config = two.config({ mode: "two-way" });
    two.put(`${side}/.filesync`);
    assert.ok((await once(config, 3)).includes(`${side}:.filesync is no directory: nothing can be kept in it`));
    rmSync(world.path(side, ".filesync"));
    symlinkSync(world.dir, world.path(side, ".filesync"));
    assert.ok((await once(config, 3)).includes(`${side}:.filesync is a symbolic link: nothing can be kept in it`));
  });

test("retry lets a mirror look again; what only such a route follows is known to retry, forget and verify", async (t) => {
  const two = new Two(t);
  const { world } = two;
  const rare = (dir: string) => ({ type: "local", dir, settle: "0s", interval: "1h" });
  const config = two.config({ mode: "mirror" }, { devices: { box: rare("box"), nas: rare("nas") } });
  world.mkdir("box/d");
  two.put("box/d/a");
  world.mkdir("nas");
  symlinkSync(world.dir, world.path("nas/d"));
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what }) => what === "sync-trouble", "it cannot be brought");
  for (const command of ["retry", "forget", "verify"])
    assert.deepEqual(await runProgram([command, "d/a", "--config", config]).then(({ code, err }) => ({ code, err: err.trim() })), {
      code: 2,
      err: 'filesync: "d/a" has no deliveries or receipts, as box ⇒ nas follows it: "filesync why d/a" says how it stands',
    });
  const why = await runProgram(["why", "box:d/a", "--config", config]);
  assert.equal(why.out, "box:d/a\n  box ⇒ nas leaves it as it is, with nas:d: a symbolic link");
  rmSync(world.path("nas/d"));
  assert.equal((await runProgram(["retry", "nas", "--config", config])).out, "box ⇒ nas: looks again now");
  await program.until(({ what }) => what === "synced", "it is brought");
});

test("deletes switched on at a mirror that ran without: what was agreed stays so, and an empty mount point still takes nothing away", async (t) => {
  const two = new Two(t);
  const { world } = two;
  const names = (at: string) =>
    readdirSync(world.path(at), { recursive: true, encoding: "utf8" }).filter((name) => !name.startsWith(".filesync"));
  world.mkdir("box/dir");
  for (const name of ["a", "b", "c", "d", "dir/e"]) two.put(`box/${name}`);
  await once(two.config({ mode: "mirror" }));
  assert.ok(!readdirSync(world.path("box")).includes(".filesync"));
  const config = two.config({ mode: "mirror", deletes: true });
  const planned = async () => (await runProgram(["plan", "--config", config])).out;
  // Not mounted: the directory above is there, as on a card of another one.
  renameSync(world.path("box"), world.path("card"));
  world.mkdir("box/dir");
  assert.match(await once(config, 3), /box ⇒ nas: the directory of box does not hold most of what was agreed any more: it is not mounted/);
  assert.match(
    await planned(),
    /not mounted, or most of it was removed; nothing is done before "filesync approve box:nas"; then what it does not hold/,
  );
  assert.match(await planned(), /^ {2}a: left as it is: what was agreed of it is forgotten: it stays there$/m);
  rmSync(world.path("box"), { recursive: true });
  renameSync(world.path("card"), world.path("box"));
  rmSync(world.path("box/a"));
  assert.match(await planned(), /^ {2}a: move it to the trash at nas$/m);
  await once(config);
  assert.deepEqual(names("nas").sort(), ["b", "c", "d", "dir", "dir/e"]);
  // From now on it is known by its mark, whatever it shows.
  renameSync(world.path("box"), world.path("card"));
  cpSync(world.path("card"), world.path("box"), {
    recursive: true,
    preserveTimestamps: true,
    filter: (path) => !path.includes(".filesync"),
  });
  assert.match(await once(config, 3), /the directory of box is not the one that was agreed with/);
});

test("deletes switched on where most has gone from the source: once that is approved, what is still there is followed on", async (t) => {
  const two = new Two(t);
  const { world } = two;
  for (const name of ["a", "b", "c", "d", "e"]) two.put(`box/${name}`);
  await once(two.config({ mode: "mirror" }));
  for (const name of ["a", "b", "c"]) rmSync(world.path("box", name));
  const config = two.config({ mode: "mirror", deletes: true });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what }) => what === "sync-stopped", "it stops");
  assert.equal((await runProgram(["approve", "box:nas", "--config", config])).code, 0);
  await program.until(({ what }) => what === "sync-anew", "it goes on");
  const names = () => readdirSync(world.path("nas")).filter((name) => name !== ".filesync");
  await eventually(async () => /^box:nas: all of it is there/.test((await runProgram(["status", "--config", config])).out));
  assert.deepEqual(names(), ["a", "b", "c", "d", "e"]);
  rmSync(world.path("box/d"));
  await program.until(({ what }) => what === "synced", "it is followed");
  assert.deepEqual(names(), ["a", "b", "c", "e"]);
});

test("approve while no daemon runs is for the next run, and for nothing but what stops it now", async (t) => {
  const two = new Two(t);
  const { world } = two;
  const config = two.config({ mode: "mirror", deletes: true, maxDeletes: 1 });
  const approve = () => runProgram(["approve", "box:nas", "--config", config]);
  const names = () => readdirSync(world.path("nas")).filter((name) => name !== ".filesync");
  const remove = (...gone: readonly string[]) => gone.forEach((name) => rmSync(world.path("box", name)));
  const all = ["a", "b", "c", "d", "e", "f", "g", "h"];
  for (const name of all) two.put(`box/${name}`);
  await once(config);
  const none = await approve();
  assert.equal(none.code, 2);
  assert.match(none.err, /box ⇒ nas does not wait for an approval: nothing stops it/);
  assert.match((await runProgram(["status", "--config", config])).out, /^box:nas: no daemon runs\n/);
  remove("a", "b");
  // Before any run stopped, too.
  const plan = async () => (await runProgram(["plan", "--config", config])).out;
  const asks =
    /^box:nas {2}.*\n {2}2 of \d would be removed at nas, .*: nothing is done before "filesync approve box:nas"; then this is done:\n/;
  assert.match(await plan(), asks);
  const { code, out, err } = await approve();
  assert.equal(code, 0, err);
  assert.match(
    out,
    /^box ⇒ nas: no daemon runs; the next run within a day goes on, once, if it still is so that 2 of 8 would be removed at nas/,
  );
  assert.match(await plan(), /\n {2}2 of 8 would be removed at nas, .*: it is approved for the next run; then this is done:\n {2}a: /);
  await once(config);
  assert.deepEqual(names(), all.slice(2));
  remove("c", "d");
  await once(config, 3);
  assert.equal((await approve()).code, 0);
  // As many, but others.
  two.put("box/c");
  remove("e");
  assert.match(await plan(), asks);
  assert.match(await once(config, 3), /2 of 6 would be removed at nas/);
  two.put("box/e");
  rmSync(world.path("box/c"));
  // What was not used once is used up.
  await once(config, 3);
  assert.deepEqual(names(), all.slice(2));
  renameSync(world.path("box"), world.path("away"));
  world.mkdir("box");
  two.put("box/new");
  await once(config, 3);
  assert.equal((await approve()).code, 0);
  assert.match(await plan(), /or was made anew; it is approved for the next run; then what was agreed is forgotten, nothing is removed/);
  await once(config);
  assert.deepEqual(names(), [...all.slice(2), "new"]);
});

test("status begins with what waits, and counts it; why says by which route a file is kept the same", async (t) => {
  const two = new Two(t);
  const { world } = two;
  const config = two.config({ mode: "two-way", into: "in", maxDeletes: 2 });
  const status = async () => (await runProgram(["status", "--config", config])).out;
  const why = async (what: string) => runProgram(["why", what, "--config", config]);
  for (const name of ["a", "b", "c", "d"]) two.put(`box/${name}`, "four");
  world.mkdir("box/dir");
  const begin = () => {
    const program = new Program(["run", "--json", "--config", config]);
    t.after(() => program.kill());
    return program;
  };
  const first = begin();
  await first.until(({ what }) => what === "synced", "it is brought");
  let even = "";
  await eventually(async () => /^box:nas: the same on both sides\n/.test((even = await status())));
  assert.match(even, /^box:nas {2}the same on both sides {2}\(two-way, 5 changes\)$/m);
  assert.match(
    (await why("a")).out,
    /^box:a {2}\(4 B, .*\)\n {2}box ↔ nas follows it: it was the same on both sides; so it was found \d{4}-/,
  );
  assert.match((await why("nas:in/dir")).out, /^box:dir\n {2}box ↔ nas follows it: it was the same on both sides/);
  // All of them at once, as far as a listing can tell.
  await first.kill();
  for (const name of ["a", "b", "c"]) rmSync(world.path("box", name));
  const program = begin();
  await program.until(({ what }) => what === "sync-stopped", "it stops");
  assert.match(await status(), /^box:nas: stopped, 3 of 5 paths wait: 3 of 5 would be removed at nas/);
  assert.match(
    (await why("box:a")).out,
    /^ {2}box ↔ nas has something to do with it; the route is stopped: 3 of 5 would.*\n {2}box ↔ nas follows it: before that it was the same on both sides$/m,
  );
  const { syncs } = JSON.parse((await runProgram(["status", "--json", "--config", config])).out) as Status;
  assert.deepEqual([syncs[0]?.pending, syncs[0]?.paths, syncs[0]?.settling], [3, 5, 0]);
  const unknown = await why("x");
  assert.equal(unknown.code, 2);
  assert.match(unknown.err, /nothing of the name "x" is known; what box ↔ nas removed .* lies in ".filesync\/trash" of the side/);
  await program.kill();
  assert.match((await why("d")).out, /^ {2}box ↔ nas follows it: it was the same on both sides; no daemon runs$/m);
});

test("what is the same on both sides is told to be so also while it is looked at again", async (t) => {
  const two = new Two(t);
  for (let n = 0; n < 500; n++) two.put(`box/${n}`);
  const config = two.config({ mode: "mirror", exclude: ["noise"] });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what }) => what === "synced", "it is brought");
  const status = async () => (await runProgram(["status", "--config", config])).out;
  const isEven = (text: string) => text.startsWith("box:nas: all of it is there\n");
  await eventually(async () => isEven(await status()));
  // A reason to look, and nothing to do, again and again.
  const noise = setInterval(() => two.put("box/noise", String(Math.random())), 2);
  t.after(() => clearInterval(noise));
  for (let asked = 0; asked < 10; asked++) {
    const text = await status();
    assert.ok(isEven(text), text);
  }
  clearInterval(noise);
  await program.kill();
});

test("what is left as it is, or not complete yet, is counted where a mirror has brought all else", async (t) => {
  const two = new Two(t);
  const { world } = two;
  const config = two.config({ mode: "mirror" }, { devices: { box: { type: "local", dir: "box", interval: "1s", settle: "1h" } } });
  symlinkSync("nowhere", world.path("box/link"));
  two.put("box/young");
  two.world.file("box/old", "old");
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what }) => what === "synced", "it is brought");
  const status = async () => (await runProgram(["status", "--config", config])).out;
  await eventually(async () =>
    (await status()).startsWith("box:nas: all of it is there, but for 1 left as it is, and 1 not complete yet\n"),
  );
  const why = async (what: string) => (await runProgram(["why", what, "--config", config])).out;
  assert.match(await why("link"), /^box:link\n {2}box ⇒ nas leaves it as it is: a symbolic link$/);
  assert.match(await why("young"), /^box:young\n {2}box ⇒ nas waits for it: it is being written, or was a moment ago/);
  assert.match(await why("old"), /^box:old {2}\(3 B, .*\)\n {2}box ⇒ nas follows it: it was brought to nas; /);
});

test("a two-way route does not wait until what it brought itself has settled, and does where others write", async (t) => {
  const two = new Two(t);
  const config = two.config({ mode: "two-way" }, { devices: { nas: { type: "local", dir: "nas", interval: "1s", settle: "1h" } } });
  two.put("box/new");
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what }) => what === "synced", "it is brought");
  await program.kill();
  two.put("nas/theirs");
  const { out } = await runProgram(["plan", "--config", config]);
  const waits = out.split("\n").filter((line) => line.includes("it is being written"));
  assert.deepEqual(
    waits.map((line) => /new|theirs/.exec(line)?.[0]),
    ["theirs"],
    out,
  );
  // All of it is there: it does not wait for an hour.
  rmSync(two.world.path("nas/theirs"));
  await once(config);
});

test("SIGHUP with another rule of a mirror says that a route changed", async (t) => {
  const two = new Two(t);
  const config = two.config({ mode: "mirror" });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ message }) => message.includes("is ready"), "it is ready");
  two.config({ mode: "mirror", exclude: ["*.tmp"] });
  program.signal("SIGHUP");
  const { message } = await program.until(({ what }) => what === "reload", "it is taken");
  assert.equal(message, "the new configuration runs: routes from box changed");
  program.events.length = 0;
  program.signal("SIGHUP");
  const same = await program.until(({ what }) => what === "reload", "it is taken again");
  assert.equal(same.message, "the new configuration runs: devices and routes are the same");
});

/** What a daemon says is so a moment after it said what it did. */
async function eventually(isSo: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + 60_000;
  while (!(await isSo())) {
    assert.ok(performance.now() < end, "it never came to be so");
    await sleep(50);
  }
}

const nobody = 65534;
const needsRoot = process.getuid?.() === 0 ? false : "the program has to run as another user, which takes root";

for (const mode of ["mirror", "two-way"])
  test(
    `${mode}: what may not be read, and where nothing may be written, is told with the side; the rest arrives, and it comes once it may`,
    { skip: needsRoot },
    async (t) => {
      const two = new Two(t);
      const { world } = two;
      const config = two.config({ mode });
      chmodSync(world.dir, 0o755);
      for (const dir of ["state", "box/closed", "nas/closed"]) world.mkdir(dir);
      for (const path of ["box/secret", "box/closed/f", "box/open"]) two.put(path);
      for (const path of ["state", "box", "nas", "box/closed", "box/closed/f", "box/open"]) chownSync(world.path(path), nobody, nobody);
      chmodSync(world.path("box/secret"), 0);
      // Only their bytes would tell whether they are the same.
      two.put("box/both", "here");
      two.put("nas/both", "nas!");
      chmodSync(world.path("nas/both"), 0);
      const run = async () => {
        const { code, out, err } = await runProgram(["run", "--once", "--config", config], { uid: nobody, gid: nobody });
        return { code, said: out + err };
      };
      const { code, said } = await run();
      assert.equal(code, 3, said);
      assert.match(said, /: secret: box: cannot open secret: permission denied/);
      assert.match(said, /: closed\/f: nas: .*permission denied/);
      assert.match(said, /: nas:both: cannot open both: permission denied/);
      assert.deepEqual(readdirSync(world.path("nas")).sort(), [".filesync", "both", "closed", "open"]);
      rmSync(world.path("nas/both"));
      chmodSync(world.path("box/secret"), 0o644);
      chownSync(world.path("nas/closed"), nobody, nobody);
      const after = await run();
      assert.equal(after.code, 0, after.said);
      assert.deepEqual(
        readdirSync(world.path("nas"), { recursive: true })
          .filter((path) => !String(path).startsWith(".filesync"))
          .sort(),
        ["both", "closed", "closed/f", "open", "secret"],
      );
    },
  );

for (const mode of ["mirror", "two-way"])
  test(`${mode}: where nothing at all may be written, it is told which side that is`, { skip: needsRoot }, async (t) => {
    const two = new Two(t);
    const { world } = two;
    const config = two.config({ mode, deletes: mode === "mirror" ? true : undefined });
    chmodSync(world.dir, 0o755);
    for (const dir of ["state", "box", "nas"]) chownSync(world.mkdir(dir), nobody, nobody);
    two.put("box/f");
    for (const side of ["box", "nas"]) {
      chownSync(world.path(side), 0, 0);
      const { out } = await runProgram(["run", "--once", "--config", config], { uid: nobody, gid: nobody });
      assert.match(out, new RegExp(`: ${side}: cannot make the directory .filesync: permission denied`));
      chownSync(world.path(side), nobody, nobody);
    }
    assert.equal((await runProgram(["run", "--once", "--config", config], { uid: nobody, gid: nobody })).code, 0);
  });

test("plan of a mirror says of what is in a directory that goes to the trash that it goes with it", async (t) => {
  const two = new Two(t);
  const { world } = two;
  const config = two.config({ mode: "mirror", deletes: true });
  for (const dir of ["old/below", "kept", "moved"]) world.mkdir(`box/${dir}`);
  for (const name of ["old/a", "old/below/b", "kept/c", "moved/d", "moved/e"]) two.put(`box/${name}`);
  await once(config);
  rmSync(world.path("box/old"), { recursive: true });
  rmSync(world.path("box/kept"), { recursive: true });
  two.put("nas/kept/theirs");
  renameSync(world.path("box/moved/d"), world.path("box/d"));
  rmSync(world.path("box/moved"), { recursive: true });
  const { out } = await runProgram(["plan", "--config", config]);
  const said = new Map(out.split("\n").map((line) => [line.trim().replace(/:.*/, ""), line.replace(/^[^:]*: /, "")]));
  assert.deepEqual(
    ["old", "old/a", "old/below", "old/below/b", "moved/e"].map((path) => said.get(path)),
    [
      "move it to the trash at nas",
      ...Array.from({ length: 3 }, () => "goes to the trash at nas with old"),
      "goes to the trash at nas with moved",
    ],
    out,
  );
  assert.equal(said.get("kept/c"), "move it to the trash at nas");
  assert.equal(said.get("kept/theirs"), "left as it is: this route did not bring it there: it stays there");
  assert.equal(said.get("d"), "move it there at nas from moved/d");
});

for (const mode of ["mirror", "two-way"])
  test(`${mode}: a file that somebody has locked at the server, and one on a bad sector, hold up nothing else, and come once they can`, async (t) => {
    const two = new Two(t);
    const { world } = two;
    const local = JSON.stringify(fileURLToPath(new URL("../../plugins/local/plugin.js", import.meta.url)));
    const errors = JSON.stringify(fileURLToPath(new URL("../../core/errors.js", import.meta.url)));
    world.file(
      "sick.mjs",
      `import { existsSync } from "node:fs";
     import { plugin as local } from ${local};
     import { Fault } from ${errors};
     const sick = (device) => {
       const { source, target, tree } = device;
       const fail = (kind, it) => { if (!existsSync(${JSON.stringify(world.path("mended"))})) throw new Fault(kind, it); };
       const { move } = tree, { commit } = target, { readInPlace } = source;
       tree.move = (from, ...more) => { if (from === "a-locked") fail("transient", "it is locked"); return move.call(tree, from, ...more); };
       target.commit = (upload, ...more) => { if (upload.path === "b-locked") fail("transient", "it is locked"); return commit.call(target, upload, ...more); };
       source.readInPlace = (entry, ...more) => {
         const reading = readInPlace.call(source, entry, ...more);
         if (entry.path === "c-bad") { const next = reading.next.bind(reading); reading.next = async () => { fail("unreadable", "bad sector"); return next(); }; }
         return reading;
       };
       return device;
     };
     export const plugin = { ...local, type: "sick", device: (...given) => sick(local.device(...given)) };`,
    );
    const devices = { box: { type: "./sick.mjs", dir: "box", ...own }, nas: { type: "./sick.mjs", dir: "nas", ...own } };
    const config = two.config({ mode }, { devices });
    two.put("box/a-locked", "before");
    await once(config);
    for (const path of ["a-locked", "b-locked", "c-bad", "d"]) two.put(`box/${path}`);
    const program = new Program(["run", "--json", "--config", config]);
    t.after(() => program.kill());
    const isThere = (path: string) =>
      existsSync(world.path("nas", path)) && readFileSync(world.path("nas", path), "utf8") === `box/${path}`;
    const isTold = async (said: RegExp) => said.test((await runProgram(["status", "--config", config])).out);
    await eventually(async () => isThere("d") && (await isTold(/^box:nas {2}waits, 3 of 4 paths wait: it is locked/m)));
    for (const said of [/a-locked: nas: it is locked/, /b-locked: nas: it is locked/, /c-bad: box: bad sector/])
      assert.ok(await isTold(said));
    two.put("mended");
    await eventually(() => Promise.resolve(["a-locked", "b-locked", "c-bad"].every(isThere)));
    await program.kill();
  });

for (const [mode, sign] of [
  ["mirror", "⇒"],
  ["two-way", "↔"],
] as const)
  test(`what a mirror of another name had put aside when it was killed goes to the trash, and that is told: ${mode}`, async (t) => {
    const two = new Two(t);
    const { world } = two;
    const config = two.config({ mode });
    const away = "nas/.filesync/away/0123456789abcdef";
    world.mkdir(away, "1111111111111111");
    two.put(`${away}/1111111111111111/a`, "the only one");
    two.put(`${away}/2222222222222222`, "another");
    const said = await once(config);
    const places = [
      ...said.matchAll(new RegExp(`box ${sign} nas: what a mirror .* had put aside at nas is in the trash now, as (\\S+): it may be`, "g")),
    ].map(([, place = ""]) => world.path("nas", place));
    assert.deepEqual(
      places
        .sort((one, two) => (one.slice(-4) < two.slice(-4) ? -1 : 1))
        .map((place, n) => readFileSync(n === 0 ? `${place}/a` : place, "utf8")),
      ["the only one", "another"],
    );
    assert.equal(existsSync(world.path(away)), false);
  });

for (const mode of ["mirror", "two-way"])
  test(
    `${mode}: what is on a file system that is mounted in the directory has not gone while that is not mounted, or another one is mounted over it`,
    needsMount,
    async (t) => {
      const two = new Two(t);
      const { world } = two;
      const [disks, card, plain] = [world.mkdir("disks"), world.mkdir("box/card"), world.mkdir("box/plain")];
      const mount = (...how: readonly string[]) => assert.equal(spawnSync("mount", how).status, 0);
      mount("-t", "tmpfs", "none", disks);
      const mounted = new Set([disks]);
      try {
        const on = (at: string, disk: string) => {
          mount("--bind", world.mkdir("disks", disk), at);
          mounted.add(at);
        };
        const off = async (at: string) => {
          await unmountIdle(at);
          mounted.delete(at);
        };
        const config = two.config({ mode, ...(mode === "mirror" ? { deletes: true } : {}) });
        const isThere = (...paths: readonly string[]) => paths.map((path) => existsSync(world.path("nas", path)));
        on(card, "card");
        for (const path of ["a", "card/x", "card/y", "plain/p"]) two.put(`box/${path}`);
        await once(config);
        await off(card);
        // As whoever mounts them by themselves does.
        rmSync(card, { recursive: true });
        two.put("box/b");
        assert.match(
          await once(config, 3),
          /box:card: the file system that was mounted here is not: nothing of it counts as removed; if it does not/,
        );
        assert.deepEqual(isThere("card/x", "card/y", "b"), [true, true, true]);
        const program = new Program(["run", "--json", "--config", config]);
        t.after(() => program.kill());
        const told = (message: RegExp) => program.until((event) => message.test(event.message), String(message));
        await told(/box:card: the file system that was mounted here is not/);
        world.mkdir("box/card");
        on(card, "card");
        const synced = () => program.events.filter(({ what }) => what === "synced").length;
        /** It is so, and agreed. */
        const agreed = async (change: () => void, isSo: () => boolean) => {
          const before = synced();
          change();
          await program.until(() => synced() > before && isSo(), "that it is agreed");
        };
        await agreed(
          () => rmSync(world.path("box/card/y")),
          () => !isThere("card/y")[0],
        );
        on(plain, "other");
        await agreed(
          () => two.put("box/plain/q"),
          () => isThere("plain/q")[0] === true,
        );
        await told(/box:plain\/p: it was on another file system than the one that is mounted there now: /);
        assert.deepEqual(isThere("card/x", "plain/p"), [true, true]);
        await off(plain);
        await off(card);
        const said = async (...words: readonly string[]) => (await runProgram([...words, "--config", config])).out;
        const hidden = "2 of what was agreed are on a file system that is not mounted in box";
        await eventually(async () =>
          (await said("plan")).includes(`\n  ${hidden}: it is left as it is until that comes back, or "filesync approve`),
        );
        assert.match(await said("approve", "box:nas"), new RegExp(`it goes on, once, though ${hidden} \\(card/x, plain/q\\)`));
        await eventually(async () => !(await said("status")).includes("mounted here is not"));
        // Nothing was removed for it; what is on both sides now is followed.
        assert.deepEqual(isThere("card/x", "plain/p", "plain/q"), [true, true, true]);
        assert.equal(existsSync(world.path("box/card/x")), mode === "two-way");
        await program.kill();
      } finally {
        for (const at of [...mounted].reverse()) await unmountIdle(at);
      }
    },
  );
