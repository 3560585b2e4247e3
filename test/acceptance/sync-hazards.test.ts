/** What happens to shared directories in the field: other people, cards that come and go, full servers, machines without a clock. */
import assert from "node:assert/strict";
import {
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { until } from "../conformance/clause.js";
import { nginx, password as davPassword, user as davUser } from "../conformance/dav-servers.js";
import { chrooted } from "../conformance/sftp-servers.js";
import { Program, runProgram } from "../faults/process.js";
import { World } from "../faults/world.js";
import { mountSmall, unmount } from "../small-disk.js";
import { once, type Shared, shared, statusOf } from "../sync/shared.js";

const skip = chrooted.skip === undefined ? {} : { skip: chrooted.skip };

test("a directory that is renamed to one in which others keep files joins it: nothing of theirs goes to the trash", skip, async (t) => {
  const both = await shared(t);
  const config = both.config({ mode: "mirror" });
  both.put("here", "tmp/ours.jpg", "ours");
  both.put("here", "2025/old.jpg", "stays there");
  await once(config);
  rmSync(join(both.box, "2025"), { recursive: true });
  both.put("there", "2026/theirs.jpg", "theirs");
  both.put("there", "tmp/put there by them.jpg", "too");
  await once(config);
  renameSync(join(both.box, "tmp"), join(both.box, "2026"));
  mkdirSync(join(both.box, "2025"));
  await once(config);
  assert.deepEqual(both.tree("there"), {
    ...{ "2025/": "", "2025/old.jpg": "stays there" },
    ...{ "2026/": "", "2026/ours.jpg": "ours", "2026/theirs.jpg": "theirs", "2026/put there by them.jpg": "too" },
  });
  assert.deepEqual(both.trashed("there"), []);
});

test("what others put into a directory at the server stays when that goes here, also when it was not listed since", skip, async (t) => {
  const both = await shared(t);
  const config = both.config({ mode: "mirror", deletes: true }, {}, { interval: "1h" });
  both.put("here", "flight1/log", "ours");
  both.put("here", "flight1/changed", "ours");
  const program = await following(t, both, config);
  both.put("there", "flight1/IMG_1.JPG", "delivered by another route, and deleted at its source");
  both.put("there", "flight1/changed", "by them");
  // At once.
  renameSync(join(both.box, "flight1"), both.world.path("flight1"));
  await until("ours has gone", () => !existsSync(join(both.nas, "flight1/log")), 60_000);
  await program.kill();
  assert.deepEqual(both.tree("there"), {
    ...{ "flight1/": "", "flight1/IMG_1.JPG": "delivered by another route, and deleted at its source", "flight1/changed": "by them" },
  });
});

test(
  "what the route leaves out at the server stays where it is: its directory neither goes here nor makes room with it",
  skip,
  async (t) => {
    const both = await shared(t);
    const config = both.config({ mode: "mirror", deletes: true, include: ["**/*.ulg"], exclude: ["**/notes"] });
    both.put("here", "flight1/a.ulg", "ours");
    both.put("here", "flight1/day/b.ulg", "ours");
    both.put("here", "flight2/c.ulg", "ours");
    both.put("here", "tmp/d.ulg", "ours");
    await once(config);
    both.put("there", "flight1/day/report.txt", "theirs");
    both.put("there", "flight2/notes/c.ulg", "theirs");
    both.put("there", "flight3/photo.jpg", "theirs");
    for (const dir of ["flight1", "flight2"]) rmSync(join(both.box, dir), { recursive: true });
    renameSync(join(both.box, "tmp"), join(both.box, "flight3"));
    await once(config);
    await once(config);
    assert.deepEqual(both.tree("there"), {
      ...{ "flight1/": "", "flight1/day/": "", "flight1/day/report.txt": "theirs" },
      ...{ "flight2/": "", "flight2/notes/": "", "flight2/notes/c.ulg": "theirs" },
      ...{ "flight3/": "", "flight3/d.ulg": "ours", "flight3/photo.jpg": "theirs" },
    });
  },
);

test(
  "what others put into a directory that gives up its name does not go to the trash with it, in one that has another name by then",
  skip,
  async (t) => {
    const both = await shared(t);
    const config = both.config({ mode: "mirror", deletes: true }, {}, { interval: "1h" });
    mkdirSync(join(both.box, "day/cam"), { recursive: true });
    both.put("here", "day/log", "ours");
    both.put("here", "new/a.jpg", "ours");
    const program = await following(t, both, config);
    both.put("there", "day/cam/theirs.jpg", "theirs");
    // At once.
    renameSync(join(both.box, "day"), join(both.box, "day 1"));
    rmSync(join(both.box, "day 1/cam"), { recursive: true });
    renameSync(join(both.box, "new"), join(both.box, "day 1/cam"));
    await until("it follows", () => existsSync(join(both.nas, "day 1/cam/a.jpg")) && !existsSync(join(both.nas, "new")), 60_000);
    await program.kill();
    assert.deepEqual(both.tree("there"), {
      ...{ "day 1/": "", "day 1/log": "ours", "day 1/cam/": "", "day 1/cam/a.jpg": "ours", "day 1/cam/theirs.jpg": "theirs" },
    });
  },
);

test("a directory at the server that became a link is not written into, also when it was not listed since", skip, async (t) => {
  const both = await shared(t);
  const config = both.config({ mode: "mirror", deletes: true }, {}, { interval: "1h" });
  both.put("here", "d/a", "a");
  const program = await following(t, both, config);
  both.put("there", "elsewhere/x", "x");
  renameSync(join(both.nas, "d"), join(both.nas, "was d"));
  symlinkSync("elsewhere", join(both.nas, "d"));
  both.put("here", "d/new", "new");
  both.put("here", "e", "e");
  await until("the rest has arrived", () => existsSync(join(both.nas, "e")), 60_000);
  // It is told once the round has ended.
  await until("it is told", async () => /nas:d.*symbolic link/.test(JSON.stringify((await statusOf(config)).syncs[0]?.troubles)), 60_000);
  await program.kill();
  assert.deepEqual(readdirSync(join(both.nas, "elsewhere")), ["x"]);
});

for (const mode of ["mirror", "two-way"])
  test(`${mode}: nothing leaves the directory by a link in place of what is to hold it`, skip, async (t) => {
    const both = await shared(t);
    const config = both.config({ mode });
    both.put("here", "a", "first");
    await once(config);
    both.put("there", "elsewhere/x", "x");
    renameSync(join(both.nas, "elsewhere"), join(both.served.dir, "elsewhere"));
    for (const name of [".filesync/trash", ".filesync"]) {
      rmSync(join(both.nas, ".filesync/trash"), { recursive: true, force: true });
      if (name === ".filesync") renameSync(join(both.nas, name), join(both.served.dir, "elsewhere/own"));
      symlinkSync(name === ".filesync" ? "../elsewhere/own" : "../../elsewhere", join(both.nas, name));
      both.put("here", "a", `another, ${name}`);
      assert.ok((await once(config, 3)).includes(`nas:shared/${name} is a symbolic link: nothing can be kept in it; remove it there`));
      assert.equal(both.tree("there")["a"], "first");
      assert.deepEqual(
        readdirSync(join(both.served.dir, "elsewhere")).filter((it) => it !== "own"),
        ["x"],
      );
    }
    rmSync(join(both.nas, ".filesync"));
    renameSync(join(both.served.dir, "elsewhere/own"), join(both.nas, ".filesync"));
    await once(config);
    assert.equal(both.tree("there")["a"], "another, .filesync");
    assert.deepEqual(both.trash("there"), { a: "first" });
  });

for (const route of [{ mode: "mirror", deletes: true }, { mode: "two-way" }] as const) {
  test(
    `${route.mode}: a card that is missing at its mount point, where the first start found none, takes nothing away; nor does another card`,
    skip,
    async (t) => {
      const both = await shared(t);
      const config = both.config(route);
      // The mount point, then the card on it.
      await once(config);
      const [point, card] = [`${both.box}-point`, `${both.box}-card`];
      renameSync(both.box, point);
      mkdirSync(both.box);
      for (let n = 1; n <= 12; n++) both.put("here", `DCIM/${n}.jpg`, String(n));
      await once(config);
      assert.equal(Object.keys(both.tree("there")).length, 13);
      renameSync(both.box, card);
      renameSync(point, both.box);
      mkdirSync(join(both.box, "DCIM"));
      assert.match(await stoppedBy(config), /the directory of box is not the one that was agreed with/);
      assert.equal(Object.keys(both.tree("there")).length, 13);
      rmSync(both.box, { recursive: true });
      mkdirSync(both.box);
      both.put("here", "DCIM/of another card.jpg", "x");
      assert.match(await stoppedBy(config), /is not the one that was agreed with/);
      rmSync(both.box, { recursive: true });
      renameSync(card, both.box);
      both.put("here", "DCIM/13.jpg", "13");
      await once(config);
      assert.deepEqual(both.tree("there"), both.tree("here"));
      assert.deepEqual(both.trashed("there"), []);
    },
  );

  test(`${route.mode}: one approval is for all that was shown, also where names are changed first`, skip, async (t) => {
    const both = await shared(t);
    const config = both.config({ ...route, maxDeletes: 2 });
    for (let n = 1; n <= 6; n++) both.put("here", `a${n}`, String(n));
    for (const name of ["b", "c", "d", "e"]) both.put("here", `d/${name}`, name);
    await once(config);
    for (let n = 1; n <= 5; n++) both.put("here", `a${n}`, undefined);
    for (const name of ["c", "d", "e"]) both.put("here", `d/${name}`, undefined);
    renameSync(join(both.box, "d"), join(both.box, "e"));
    const program = new Program(["run", "--json", "--config", config]);
    t.after(() => program.kill());
    await program.until(({ what }) => what === "sync-stopped", "it stops");
    const { code, err } = await runProgram(["approve", "--config", config, nameIn(config)]);
    assert.equal(code, 0, err);
    await until("all of it is done", () => both.isEven(), 60_000);
    assert.equal(program.events.filter(({ what }) => what === "sync-stopped").length, 1);
  });
}

test(
  "a change that keeps size and second, of a machine without a clock too, is seen by the others, and is in conflict with theirs",
  skip,
  async (t) => {
    const both = await shared(t);
    const other = new World(t);
    const config = both.config({ mode: "two-way" });
    const there = { ...(JSON.parse(readFileSync(config, "utf8")) as { devices: object; routes: object }), vehicle: "b" };
    other.mkdir("box");
    const theirs = other.config(there);
    const write = (box: string, name: string, content: string, at: number) => {
      writeFileSync(join(box, `${name}.new`), content);
      utimesSync(join(box, `${name}.new`), at, at);
      renameSync(join(box, `${name}.new`), join(box, name));
    };
    const dos = Date.UTC(1980, 0, 1) / 1000;
    const real = Date.UTC(2026, 4, 1) / 1000;
    write(both.box, "log", "version 1", dos);
    write(both.box, "p1", "photo one", real);
    write(both.box, "p2", "photo two", real);
    await once(config);
    await once(theirs);
    write(both.box, "log", "version 2", dos);
    write(both.box, "p1", "photo two", real);
    write(both.box, "p2", "photo one", real);
    await once(config);
    writeFileSync(join(other.path("box"), "log"), "of the other");
    await once(theirs);
    await once(config);
    const found = (box: string) =>
      readdirSync(box)
        .flatMap((name) => (name === ".filesync" ? [] : [`${name.replace(/-b-\w+/, "")}: ${readFileSync(join(box, name), "utf8")}`]))
        .sort();
    assert.deepEqual(found(other.path("box")), ["log.conflict: of the other", "log: version 2", "p1: photo two", "p2: photo one"]);
    assert.deepEqual(found(both.box), found(other.path("box")));
  },
);

test("a full server: what fits is brought, what has gone goes, and what to do is told; with room the rest comes", async (t) => {
  const mounted: string[] = [];
  // Before the world is taken away.
  t.after(() => mounted.forEach(unmount));
  const world = new World(t);
  const [box, nas] = [world.mkdir("box"), world.mkdir("nas")];
  const why = mountSmall(world.path("image"), nas, 8);
  if (why !== undefined) {
    t.skip(why);
    return;
  }
  mounted.push(nas);
  // A round is over before the next: what it came to is seen in between.
  const config = world.config({
    devices: { box: { type: "local", dir: "box", settle: "0s", interval: "10s" }, nas: { type: "local", dir: "nas", settle: "0s" } },
    routes: [{ from: "box", to: ["nas"], mode: "mirror", into: "shared", deletes: true }],
  });
  writeFileSync(join(box, "gone"), "gone");
  writeFileSync(join(nas, "ballast"), Buffer.alloc(4_000_000, "x"));
  await once(config);
  writeFileSync(join(box, "a large one"), Buffer.alloc(5_000_000, "y"));
  writeFileSync(join(box, "b small"), "small");
  rmSync(join(box, "gone"));
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await until(
    "what is small has arrived, and what has gone went",
    () => existsSync(join(nas, "shared/b small")) && !existsSync(join(nas, "shared/gone")),
    60_000,
  );
  await until(
    "it is told",
    async () =>
      /nas has .* free, and this needs 5.0 MB; make room there: .*trashKeep/.test((await statusOf(config)).syncs[0]?.reason ?? ""),
    60_000,
  );
  rmSync(join(nas, "ballast"));
  await until("the rest has arrived", () => existsSync(join(nas, "shared/a large one")), 60_000);
  await program.kill();
});

for (const [what, before] of [
  ["a new file", undefined],
  ["a file that changed", 5_000_000],
  ["a file that changed, of the same size", 20_000_000],
] as const)
  test(`${what}, whose name the server refuses each time, is not read, nor what is there, for each try`, skip, async (t) => {
    const both = await shared(t);
    const config = both.config({ mode: "mirror" }, {}, { interval: "1h" });
    const [size, dir] = [20_000_000, join(both.nas, "d")];
    const put = (content: string, year: string) => {
      both.put("here", "d/log.bin", content);
      utimesSync(join(both.box, "d/log.bin"), new Date(year), new Date(year));
    };
    both.put("there", "d/kept", "by others");
    if (before !== undefined) put("a".repeat(before), "2020");
    await once(config);
    const { uid, gid } = statSync(dir);
    chownSync(dir, 0, 0);
    put("b".repeat(size), "2021");
    const program = new Program(["run", "--json", "--config", config]);
    t.after(() => program.kill());
    await program.until(({ what, message }) => what === "sync-trouble" && message.includes("d/log.bin"), "it is told");
    const read = () => Number(/rchar: (\d+)/.exec(readFileSync(`/proc/${program.pid}/io`, "utf8"))?.[1]);
    const readBefore = read();
    for (let n = 1; n <= 4; n++) {
      both.put("here", `next ${n}`, "of another round");
      await until("the next round has ended", () => existsSync(join(both.nas, `next ${n}`)), 30_000);
    }
    assert.ok(read() - readBefore < size, `${read() - readBefore} bytes were read`);
    chownSync(dir, uid, gid);
    await until("it is brought", () => both.tree("there")["d/log.bin"]?.startsWith("b") === true, 60_000);
    await program.kill();
  });

test(
  "what nginx has and does not list (names that begin with a dot) is not brought again at each listing, and a change still comes",
  nginx.skip === undefined ? {} : { skip: nginx.skip },
  async (t) => {
    const server = await nginx.start();
    t.after(() => server.stop());
    const world = new World(t);
    const [box, nas] = [world.mkdir("box"), join(server.dir, "shared")];
    const config = world.config({
      devices: {
        box: { type: "local", dir: "box", settle: "0s" },
        nas: { type: "webdav", url: server.url, user: davUser, password: davPassword, ...server.options },
      },
      routes: [{ from: "box", to: ["nas"], mode: "mirror", into: "shared", deletes: true }],
    });
    mkdirSync(join(box, ".conf"));
    for (const path of [".hidden", ".conf/x", "plain"]) writeFileSync(join(box, path), path);
    await once(config);
    assert.doesNotMatch(await once(config), /change/);
    writeFileSync(join(box, ".hidden"), "another content");
    await once(config);
    assert.equal(readFileSync(join(nas, ".hidden"), "utf8"), "another content");
    assert.equal(readFileSync(join(nas, ".conf/x"), "utf8"), ".conf/x");
    assert.doesNotMatch(await once(config), /change/);
  },
);

test("another file system that is mounted in the directory there: what belongs in it is told, and holds up nothing", async (t) => {
  const mounted: string[] = [];
  // Before the world is taken away.
  t.after(() => mounted.forEach(unmount));
  const world = new World(t);
  const [box, sub] = [world.mkdir("box"), world.mkdir("nas/sub")];
  const why = mountSmall(world.path("image"), sub, 8);
  if (why !== undefined) {
    t.skip(why);
    return;
  }
  mounted.push(sub);
  const config = world.config({
    devices: { box: { type: "local", dir: "box", settle: "0s" }, nas: { type: "local", dir: "nas", settle: "0s" } },
    routes: [{ from: "box", to: ["nas"], mode: "mirror" }],
  });
  mkdirSync(join(box, "sub"));
  writeFileSync(join(box, "sub/in it"), "in it");
  writeFileSync(join(box, "zulu"), "beside it");
  const said = await once(config, 3);
  assert.match(said, /box ⇒ nas: sub\/in it: nas: cannot publish sub\/in it: that is on another file system/);
  assert.equal(readFileSync(world.path("nas/zulu"), "utf8"), "beside it");
});

/** A daemon that has brought all that is here. */
async function following(t: Parameters<typeof shared>[0], both: Shared, config: string): Promise<Program> {
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await until("it follows", () => both.isEven(), 60_000);
  await until("it knows", async () => (await statusOf(config)).syncs[0]?.state === "even", 60_000);
  return program;
}

async function stoppedBy(config: string): Promise<string> {
  const program = new Program(["run", "--json", "--config", config]);
  try {
    return (await program.until(({ what }) => what === "sync-stopped", "it stops")).message;
  } finally {
    await program.kill();
  }
}

const nameIn = (config: string) => (readFileSync(config, "utf8").includes('"two-way"') ? "box:nas" : "box:nas/shared");

for (const [name, there, back] of [
  ["two-way under another name of the server", { mode: "two-way" }, "server"],
  ["a mirror that deletes", { mode: "mirror", deletes: true }, "nas"],
  ["a mirror", { mode: "mirror" }, "nas"],
] as const)
  test(
    `two-way, then ${name}, then two-way as before: what was agreed in the beginning takes nothing away that came back since`,
    skip,
    async (t) => {
      const both = await shared(t);
      const { device } = both.served;
      const often = { settle: "0s", interval: "1s" };
      const config = (route: object, nas: string) =>
        both.world.config({
          devices: { box: { type: "local", dir: "box", ...often }, [nas]: { ...device, ...often } },
          routes: [{ from: "box", to: [nas], into: "shared", ...route }],
        });
      const files = { gone: "gone", changed: "before", stays: "stays" };
      for (const [path, content] of Object.entries(files)) both.put("here", path, content);
      await once(config({ mode: "two-way" }, "nas"));
      await once(config(there, back));
      both.put("here", "gone", undefined);
      both.put("there", "gone", undefined);
      both.put("here", "changed", "and after");
      await once(config(there, back));
      assert.deepEqual(both.tree("there"), { changed: "and after", stays: "stays" });
      // Somebody gets back what was there in the beginning, and finds it so no more.
      both.put("there", "gone", "gone");
      both.put("there", "changed", "before");
      await once(config({ mode: "two-way" }, "nas"));
      const { gone, changed, stays, ...conflict } = both.tree("there");
      assert.deepEqual({ gone, changed, stays }, files);
      assert.deepEqual(Object.values(conflict), ["and after"]);
      assert.deepEqual(both.tree("here"), both.tree("there"));
    },
  );

test("a route that was taken out for a while, beside which none kept the same two directories, knows what was agreed", skip, async (t) => {
  const both = await shared(t);
  const other = both.world.mkdir("other");
  const often = { settle: "0s", interval: "1s" };
  const config = (...routes: object[]) =>
    both.world.config({
      devices: {
        box: { type: "local", dir: "box", ...often },
        other: { type: "local", dir: "other", ...often },
        nas: { ...both.served.device, ...often },
      },
      routes,
    });
  const kept = { from: "box", to: ["nas"], into: "shared", mode: "two-way" };
  for (const name of ["a", "b", "c"]) both.put("here", name, name);
  await once(config(kept));
  await once(config({ from: "box", to: ["other"], mode: "mirror", deletes: true }));
  assert.equal(existsSync(join(other, "a")), true);
  both.put("here", "a", undefined);
  both.put("there", "b", "changed");
  await once(config(kept));
  assert.deepEqual(both.tree("here"), { b: "changed", c: "c" });
  assert.deepEqual(both.tree("there"), both.tree("here"));
});

/** `local`, killed when something is to get a name. */
const killedText = (name: string) => `
import { plugin as local } from ${JSON.stringify(fileURLToPath(new URL("../../plugins/local/plugin.js", import.meta.url)))};
export const plugin = {
  ...local,
  type: "killed",
  device: (given, context) => {
    const device = local.device(given, context);
    const { tree } = device;
    const move = tree.move.bind(tree);
    tree.move = async (from, to, ...how) => {
      if (to.includes(${JSON.stringify(name)})) {
        process.kill(process.pid, "SIGKILL");
        await new Promise(() => undefined);
      }
      return move(from, to, ...how);
    };
    return device;
  },
};
export default plugin;
`;

for (const [name, route, nas, machine] of [
  ["its server has another name", { mode: "two-way" }, "server"],
  ["it is a mirror", { mode: "mirror" }, "nas"],
  ["it is a mirror that deletes", { mode: "mirror", deletes: true }, "nas"],
  ["its card is in another board", { mode: "two-way" }, "nas", "another board"],
  ["it leads the other way", { mode: "two-way", from: "nas", to: ["box"] }, "nas"],
] as const)
  test(`two-way, killed before the loser of a conflict has its name, and then ${name}: it gets that`, async (t) => {
    const world = new World(t);
    const [box, served] = [world.mkdir("box"), world.mkdir("nas")];
    writeFileSync(world.path("killed.mjs"), killedText(".conflict-"));
    const config = (type: string, to: string, how: object) =>
      world.config({
        devices: { box: { type, dir: "box", settle: "0s" }, [to]: { type: "local", dir: "nas", settle: "0s" } },
        routes: [{ from: "box", to: [to], ...how }],
      });
    const first = config("./killed.mjs", "nas", { mode: "two-way" });
    for (const path of ["a", "b"]) writeFileSync(join(box, path), "agreed");
    await once(first);
    writeFileSync(join(box, "a"), "changed here");
    writeFileSync(join(served, "a"), "there");
    await runProgram(["run", "--once", "--config", first]);
    assert.equal(existsSync(join(box, "a")), false);
    if (machine !== undefined) {
      const installation = world.path("state", "installation.json");
      const { id } = JSON.parse(readFileSync(installation, "utf8")) as { id: string };
      writeFileSync(installation, JSON.stringify({ id, machine }));
    }
    await once(config("local", nas, route));
    const conflict = readdirSync(box).find((path) => path.startsWith("a.conflict-"));
    assert.equal(readFileSync(join(box, conflict ?? "none"), "utf8"), "changed here");
    assert.equal(readFileSync(join(served, conflict ?? "none"), "utf8"), "changed here");
    assert.equal(readFileSync(join(served, "a"), "utf8"), "there");
  });

/** `local`, where clients have to take turns, killed while something is in the hold of one. */
const killedInTurnText = `
import { plugin as local } from ${JSON.stringify(fileURLToPath(new URL("../../plugins/local/plugin.js", import.meta.url)))};
export const plugin = {
  ...local,
  type: "turns",
  device: (given, context) => {
    const device = local.device(given, context);
    const { tree } = device;
    const move = tree.move.bind(tree);
    const tryOut = tree.tryOut.bind(tree);
    tree.tryOut = async (...how) => ({ ...(await tryOut(...how)), exclusive: "directories" });
    tree.move = async (from, to, ...how) => {
      if (from.startsWith(".filesync/lock/") && to.startsWith(".filesync/trash/")) {
        process.kill(process.pid, "SIGKILL");
        await new Promise(() => undefined);
      }
      return move(from, to, ...how);
    };
    return device;
  },
};
export default plugin;
`;

for (const [name, route, nas] of [
  ["its server has another name", { mode: "two-way" }, "server"],
  ["it is a mirror", { mode: "mirror" }, "nas"],
  ["it is a mirror that deletes", { mode: "mirror", deletes: true }, "nas"],
] as const)
  test(`two-way by turns, killed while it had taken a file that is to be replaced, and then ${name}: nothing stays in its hold`, async (t) => {
    const world = new World(t);
    const [box, served] = [world.mkdir("box"), world.mkdir("nas")];
    writeFileSync(world.path("turns.mjs"), killedInTurnText);
    const config = (type: string, to: string, how: object) =>
      world.config({
        devices: { box: { type: "local", dir: "box", settle: "0s" }, [to]: { type, dir: "nas", settle: "0s" } },
        routes: [{ from: "box", to: [to], ...how }],
      });
    const first = config("./turns.mjs", "nas", { mode: "two-way" });
    for (const path of ["a", "b"]) writeFileSync(join(box, path), "agreed");
    await once(first);
    writeFileSync(join(box, "a"), "changed here");
    await runProgram(["run", "--once", "--config", first]);
    assert.equal(existsSync(join(served, "a")), false);
    assert.equal(readdirSync(join(served, ".filesync/lock")).length, 1);
    await once(config("local", nas, route));
    assert.equal(readFileSync(join(served, "a"), "utf8"), "changed here");
    const within = (dir: string) => (existsSync(join(served, ".filesync", dir)) ? readdirSync(join(served, ".filesync", dir)) : []);
    assert.deepEqual([...within("lock"), ...within("ended")], []);
    const trash = readdirSync(join(served, ".filesync/trash"), { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    assert.deepEqual(
      trash.map((entry) => readFileSync(join(entry.parentPath, entry.name), "utf8")),
      ["agreed"],
    );
  });
