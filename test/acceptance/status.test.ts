/** status, as a person sees it: with and without a daemon, drawn in place on a terminal. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { spawn } from "@lydell/node-pty";
import { openDatabase } from "../../core/sqlite.js";
import type { Status } from "../../core/status.js";
import { mainJs, Program, runProgram, statusNow } from "../faults/process.js";
import { World } from "../faults/world.js";
import { unmountIdle } from "../small-disk.js";
import { statusOf } from "../sync/shared.js";
import { until } from "../conformance/clause.js";
import { masked } from "./said.js";

const local = (dir: string, more = {}) => ({ type: "local", dir, ...more });

async function delivered(world: World): Promise<string> {
  world.mkdir("out");
  world.file("in/a.ulg", "content of a");
  const config = world.config({ devices: { in: local("in"), out: local("out") }, routes: [{ from: "in", to: ["out"] }] });
  assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
  return config;
}

test("without a daemon the devices of the configuration are there, and nobody claims to know of them", async (t) => {
  const world = new World(t);
  const config = await delivered(world);
  const { code, out } = await runProgram(["status", "--config", config]);
  assert.equal(code, 0);
  assert.deepEqual(
    masked(out, world.dir)
      .replace(/T[\d:]+Z/g, "T…Z")
      .replace(/\d{4}-\d\d-\d\dT…Z/g, "TIME")
      .split("\n"),
    [
      "everything that was found is delivered (12 B) (no daemon runs)",
      "",
      "in   unknown: no daemon runs  (local)",
      "out  unknown: no daemon runs  (local)",
      "",
      "deliveries: 0 waiting, 0 active, 0 set aside, 1 done; spool 0 B of 17 GB",
      "",
      "delivered last:",
      "  TIME  in:a.ulg → out:v/in/a.ulg  12 B, proved by digest",
    ],
  );
  const json = JSON.parse((await runProgram(["status", "--json", "--config", config])).out) as { devices: { last?: { at: string } }[] };
  assert.deepEqual(json.devices[0], {
    name: "in",
    type: "local",
    roles: ["source", "target"],
    presence: "unknown",
    reason: "no daemon runs",
    last: { presence: "attached", at: json.devices[0]?.last?.at },
  });
});

test("a journal that is damaged behind its beginning, or lost all, is no internal error, and nobody says that all is delivered without a word of it", async (t) => {
  const world = new World(t);
  const config = await delivered(world);
  const path = readdirSync(world.dir, { recursive: true, encoding: "utf8" }).find((name) => name.endsWith("journal.db")) ?? "";
  const journal = world.path(path);
  const whole = readFileSync(journal);
  writeFileSync(journal, Buffer.concat([whole.subarray(0, 4096), Buffer.alloc(whole.length - 4096, 0xa5)]));
  for (const words of [["status"], ["why", "a.ulg"], ["verify"]]) {
    const { code, err } = await runProgram([...words, "--config", config]);
    assert.equal(
      masked(err, world.dir),
      `filesync: the journal in DIR/${dirname(path)} is damaged: "filesync run" sets it aside and rebuilds it`,
    );
    assert.equal(code, 2, words[0]);
  }
  // It is noticed where the daemon reads first, too.
  const begun = await runProgram(["run", "--once", "--config", config]);
  assert.match(begun.out, /was set aside as .*journal\.damaged-1\.db and is rebuilt/);
  assert.equal(begun.code, 0);
  writeFileSync(journal, "");
  const { code, err } = await runProgram(["status", "--config", config]);
  assert.match(err, /does not know all that receipts\.jsonl beside it says/);
  assert.equal(code, 0);
  assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
  const after = await runProgram(["status", "--config", config]);
  assert.equal(after.err, "");
  assert.match(after.out, /in:a\.ulg → out:v\/in\/a\.ulg/);
});

/** Its first page. Where the journal is. */
async function damage(world: World, table: string): Promise<string> {
  const path = readdirSync(world.dir, { recursive: true, encoding: "utf8" }).find((name) => name.endsWith("journal.db")) ?? "";
  const journal = world.path(path);
  const db = await openDatabase(journal);
  const { page } = db.prepare("SELECT rootpage AS page FROM disk.sqlite_master WHERE name = ?").get(table) as { page: number };
  db.close();
  const bytes = readFileSync(journal);
  bytes.fill(0xa5, (page - 1) * 4096, page * 4096);
  writeFileSync(journal, bytes);
  return path;
}

for (const table of ["versions", "versions_path", "memory"])
  test(`a journal of which only ${table} is damaged: no device is told as what fails, it is rebuilt`, async (t) => {
    const world = new World(t);
    const config = await delivered(world);
    await damage(world, table);
    world.file("in/b.ulg", "b");
    const { code, out } = await runProgram(["run", "--once", "--config", config]);
    assert.equal(code, 0, out);
    assert.doesNotMatch(out, /cannot (list|be started)/);
    assert.match(out, /was set aside as .*journal\.damaged-1\.db and is rebuilt/);
    assert.match(out, /in:b\.ulg → out:/);
  });

for (const index of ["deliveries_due", "versions_gone"])
  test(`a journal of which only ${index} is damaged is rebuilt once that is read for who asks`, async (t) => {
    const world = new World(t);
    const config = await delivered(world);
    const path = await damage(world, index);
    const daemon = new Program(["run", "--json", "--config", config]);
    t.after(() => daemon.kill());
    await daemon.until(({ what }) => what === "ready", "ready");
    await until("status says that all is delivered", async () => {
      const { code, out, err } = await runProgram(["status", "--config", config]);
      assert.doesNotMatch(err, /internal error/);
      return code === 0 && out.includes("in:a.ulg → out:v/in/a.ulg");
    });
    await until("it was set aside", () => existsSync(world.path(join(dirname(path), "journal.damaged-1.db"))));
  });

test("on a read-only file system the journal is read all the same, also after a kill; what would change it says what to do", async (t) => {
  const world = new World(t);
  world.mkdir("out");
  world.file("in/a.ulg", "content of a");
  const config = world.config({ devices: { in: local("in"), out: local("out") }, routes: [{ from: "in", to: ["out"] }] });
  if (!world.mount("state", 64)) {
    t.skip("nothing can be mounted here");
    return;
  }
  const state = world.path("state");
  const program = new Program(["run", "--json", "--config", config]);
  await program.until(({ message }) => message.startsWith("in:a.ulg → out:"), "that it is delivered");
  await program.kill();
  assert.equal(spawnSync("mount", ["-o", "remount,ro", state]).status, 0);
  const temporary = { env: { ...process.env, TMPDIR: world.mkdir("tmp") } };
  const { code, out, err } = await runProgram(["status", "--config", config], temporary);
  assert.deepEqual([code, err], [0, ""]);
  assert.match(out, /^everything that was found is delivered \(12 B\) \(no daemon runs\)\n/);
  assert.match((await runProgram(["why", "a.ulg", "--config", config], temporary)).out, /^in:a\.ulg {2}\(12 B/);
  assert.deepEqual(readdirSync(world.path("tmp")), [], "nothing of it is left");
  const nowhere = await runProgram(["status", "--config", config], { env: { ...process.env, TMPDIR: world.path("nowhere") } });
  assert.equal(nowhere.code, 2);
  assert.match(
    nowhere.err,
    /state cannot be written, and to be read .* copied to .*nowhere: there is no such file or directory; set TMPDIR/,
  );
  const probed = await runProgram(["check", "--probe", "--config", config], { env: { ...process.env, TMPDIR: world.path("nowhere") } });
  assert.match(probed.out, /^in: what in needs .* is kept in \S*nowhere: there is no such file or directory; set TMPDIR to a directory/m);
  const listed = await runProgram(["ls", "in:", "--config", config], { env: { ...process.env, TMPDIR: world.path("nowhere") } });
  assert.deepEqual([listed.code, /^filesync: what in needs .*; set TMPDIR to a directory/.test(listed.err)], [2, true], listed.err);
  const forget = await runProgram(["forget", "a.ulg", "--config", config]);
  assert.deepEqual(
    [forget.code, forget.err],
    [2, `filesync: ${state} cannot be written: the file system is read-only; mount it for writing\n`],
  );
});

test("after a kill nothing is being sent: why and status say that it waits for the daemon, or for a device that has left the configuration", async (t) => {
  const world = new World(t);
  world.mkdir("out");
  world.file("in/a.bin", Buffer.alloc(2_000_000));
  const devices = { in: local("in"), out: local("out") };
  const slow = { devices: { ...devices, out: local("out", { maxRate: "10kB/s" }) }, routes: [{ from: "in", to: ["out"] }] };
  const config = world.config(slow);
  const program = new Program(["run", "--json", "--config", config]);
  await program.until(({ message }) => message.includes(" is ready: "), "that it runs");
  await until("it is being sent", async () => (await statusOf(config)).transfers.length > 0);
  assert.deepEqual((await statusOf(config)).queue, { waiting: 0, active: 1, parked: 0, delivered: 0 });
  await program.kill();
  assert.deepEqual((await statusOf(config)).queue, { waiting: 1, active: 0, parked: 0, delivered: 0 });
  const codes = async () => {
    const { files } = JSON.parse((await runProgram(["why", "--json", "a.bin", "--config", config])).out) as {
      files: { reasons: { code: string }[] }[];
    };
    return files.flatMap(({ reasons }) => reasons.map(({ code }) => code));
  };
  assert.deepEqual(await codes(), ["no-daemon"]);
  world.mkdir("other");
  world.config({ devices: { in: local("in"), other: local("other") }, routes: [{ from: "in", to: ["other"] }] });
  assert.deepEqual(await codes(), ["foreign", "no-daemon"]);
  const told = async () =>
    masked((await runProgram(["status", "--config", config])).out, world.dir)
      .split("\n")
      .at(-1);
  assert.equal(
    await told(),
    '  in → out  1 waits: "out" is not in the configuration: put it back, or give up what waits for it: filesync forget out',
  );
  // What is told there works at once, also before a daemon has looked what the killed one left.
  cpSync(world.path("state"), world.path("copy"), { recursive: true, filter: (path) => !path.endsWith(".sock") });
  const copy = world.config({ stateDir: "copy", devices: { in: local("in") }, routes: [] }, "copy.json");
  assert.match((await runProgram(["forget", "out", "--config", copy])).out, /^in:a.bin → out .*: given up; /);
  // Its bytes are still to come from a source that has another name now.
  world.config({ devices: { inbox: local("in"), out: local("out") }, routes: [] });
  const away = '"in" is not in the configuration: put it back, or give up all of it that has not arrived: filesync forget in';
  const { out } = await runProgram(["run", "--once", "--json", "--config", config]);
  assert.ok(out.includes(JSON.stringify(`in → out: 1 delivery waits: ${away}`)), out);
  assert.equal(await told(), `  in → out  1 waits: ${away}`);
});

test("a server that nobody has asked is not said to be there", async (t) => {
  const world = new World(t);
  world.mkdir("in");
  const ground = { type: "ftp", host: "127.0.0.1", port: 1, user: "u", password: "p", secure: false };
  const config = world.config({ devices: { in: local("in"), ground }, routes: [{ from: "in", to: ["ground"] }] });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ message }) => message.includes(" is ready: "), "that it runs");
  const lines = async () => (await runProgram(["status", "--config", config])).out.split("\n");
  assert.match((await lines()).find((line) => line.startsWith("ground")) ?? "", /^ground {2}attached, not asked yet {2}\(ftp, since /);
  assert.match((await lines()).find((line) => line.startsWith("in ")) ?? "", /^in {6}attached {2}\(local, since /);
  world.file("in/a.ulg", "content of a");
  await until("it was asked", async () => (await lines()).some((line) => /^ground {2}detached: .*refused/.test(line)));
});

test("without a daemon it needs no secret: what only the service's environment tells is left out, and is no mistake", async (t) => {
  const world = new World(t);
  world.file("in/a.ulg", "content of a");
  const config = world.config({
    devices: { in: local("in"), ground: { type: "ftp", host: "127.0.0.1", port: 1, user: "u", password: { env: "FILESYNC_TEST_PW" } } },
    routes: [{ from: "in", to: ["ground"] }],
  });
  const env = { ...process.env, FILESYNC_TEST_PW: "p" };
  assert.equal((await runProgram(["run", "--once", "--config", config], { env })).code, 3);
  const { code, out, err } = await runProgram(["status", "--config", config]);
  assert.equal(code, 0, err);
  assert.match(out, /^12 B only on its source, 0 B here and not yet everywhere, 0 B delivered \(no daemon runs\)\n/);
  assert.match(out, /\nground {2}unknown: no daemon runs; when it last ran/);
  assert.doesNotMatch(out, /mistake|FILESYNC_TEST_PW/);
  const why = await runProgram(["why", "a.ulg", "--config", config]);
  assert.doesNotMatch(why.out, /mistake|FILESYNC_TEST_PW/);
});

test("what the last run learned of devices that were away is told after it, until one runs again", async (t) => {
  const world = new World(t);
  world.file("in/a.ulg", "content of a");
  const config = world.config({
    devices: { in: local("in"), ground: { type: "ftp", host: "127.0.0.1", port: 1, user: "u", password: "p" }, away: local("nowhere") },
    routes: [{ from: "in", to: ["ground", "away"] }],
  });
  assert.equal((await runProgram(["run", "--once", "--config", config])).code, 3);
  const said = async (...args: string[]) => masked((await runProgram([...args, "--config", config])).out, world.dir).split("\n");
  assert.deepEqual((await said("status")).slice(1, 5), [
    "",
    "in      unknown: no daemon runs  (local)",
    "ground  unknown: no daemon runs; when it last ran (TIME) it was away: cannot log in to 127.0.0.1:1: the server is not there (the connection is refused)  (ftp)",
    "away    unknown: no daemon runs; when it last ran (TIME) it was away: DIR/nowhere does not exist  (local)",
  ]);
  const why = await said("why", "a.ulg");
  assert.deepEqual(
    why.filter((line) => line.includes("last ran")),
    [
      "  → away: when it last ran (TIME): away was away: DIR/nowhere does not exist  [ID]",
      "  → ground: when it last ran (TIME): ground was away: cannot log in to 127.0.0.1:1: the server is not there (the connection is refused)  [ID]",
    ],
  );
  const killed = new Program(["run", "--json", "--config", config]);
  await killed.until(({ what }) => what === "ready", "ready");
  await killed.kill();
  assert.equal((await said("status"))[3], "ground  unknown: no daemon runs  (ftp)", "after a kill nobody knows");
});

test("what kept a run from its work is told after it: a condition, a budget that is used up, a spool that is full, what was left out", async (t) => {
  const world = new World(t);
  for (const name of ["a.ulg", "b.ulg", "c.ulg"]) world.file(`in/${name}`, "x".repeat(3_000_000));
  symlinkSync("a.ulg", world.path("in/link"));
  for (const dir of ["never", "little"]) world.mkdir(dir);
  const config = world.config({
    devices: {
      in: local("in", { inPlace: false, settle: "0s" }),
      never: local("never", { when: { interface: ["none0"] } }),
      little: local("little", { budget: { day: "4MB" } }),
    },
    routes: [{ from: "in", to: ["never", "little"] }],
    spool: { maxSize: "7MB" },
  });
  assert.equal((await runProgram(["run", "--once", "--config", config])).code, 3);
  const said = async (...args: string[]) => masked((await runProgram([...args, "--config", config])).out, world.dir).split("\n");
  const numbers = (line: string) => line.replace(/\d+ MB are free/, "N MB are free").replace(/begins in .*?(?= {2}[([]|$)/, "begins in T");
  const full =
    'in:a.ulg waits for space in the spool: 6 MB of 7 MB ("maxSize") are taken; N MB are free on its disk, where 1074 MB ("keepFree") stay free';
  const none = 'none0 is not up, or without an address other than fe80::… ("interface")';
  const used = "its budget of 4.0 MB a day is used up; the next begins in T";
  assert.deepEqual((await said("status")).slice(2, 5).map(numbers), [
    `in      unknown: no daemon runs; when it last ran (TIME) nothing more was read from it: ${full}; link was left out (a symbolic link)  (local)`,
    `never   unknown: no daemon runs; when it last ran (TIME) nothing was sent to it: ${none}  (local)`,
    `little  unknown: no daemon runs; when it last ran (TIME) nothing was sent to it: ${used}  (local)`,
  ]);
  const why = async (path: string) => (await said("why", path)).filter((line) => line.includes("last ran")).map(numbers);
  const sent = [
    `  → little: when it last ran (TIME): nothing was sent to little: ${used}  [ID]`,
    `  → never: when it last ran (TIME): nothing was sent to never: ${none}  [ID]`,
  ];
  assert.deepEqual(await why("c.ulg"), sent);
  const read = ["little", "never"].map((to) => `  → ${to}: when it last ran (TIME): nothing more was read from in: ${full}  [ID]`);
  assert.deepEqual((await why("a.ulg")).sort(), [...sent, ...read].sort());
  assert.deepEqual(await why("in:link"), ["  when it last ran (TIME): link was left out (a symbolic link)"]);
});

test("a file that is removed while its target is away is told before that is back; what is on a disk that is not mounted only waits", async (t) => {
  const world = new World(t);
  for (const name of ["plain/a", "plain/day/b", "plain/day/c"]) world.file(name, `content of ${name}`);
  const disk = world.mount("logs/disk", 8);
  if (disk) world.file("logs/disk/x", "content of x");
  else world.mkdir("logs");
  const config = world.config({
    devices: { plain: local("plain", { interval: "1s" }), logs: local("logs", { interval: "1s" }), ground: local("ground") },
    routes: ["plain", "logs"].map((from) => ({ from, to: ["ground"], into: "{device}" })),
  });
  const program = new Program(["run", "--json", "--verbose", "--config", config]);
  t.after(() => program.kill());
  const listings = (device: string) => program.events.filter(({ what, facts }) => what === "listed" && facts?.["device"] === device).length;
  const listed = async (device: string) => {
    const before = listings(device);
    await program.until(() => listings(device) > before + 1, `two listings of ${device}`);
  };
  await Promise.all([listed("plain"), listed("logs")]);
  if (disk) await unmountIdle(world.path("logs/disk"));
  rmSync(world.path("plain/a"));
  rmSync(world.path("plain/day"), { recursive: true });
  const lost = () => program.events.filter(({ what }) => what === "lost").map(({ message }) => message);
  await program.until(() => lost().length === 3, "the losses");
  await Promise.all([listed("plain"), listed("logs")]);
  assert.deepEqual(
    lost().sort(),
    ["a", "day/b", "day/c"].map((path) => `plain:${path}: has gone from plain before ground had it`),
  );
  const status = await statusOf(config);
  assert.deepEqual(status.lost.map(({ from, path }) => `${from}:${path}`).sort(), ["plain:a", "plain:day/b", "plain:day/c"]);
  assert.match(status.summary, /3 files were lost at the source/);
  if (!disk) {
    t.skip("no file system can be mounted here: the rest was shown");
    return;
  }
  assert.equal(spawnSync("mount", ["-o", "loop", world.path("logs/disk.img"), world.path("logs/disk")]).status, 0);
  world.mkdir("ground");
  await program.until(({ what, message }) => what === "delivered" && message.includes("logs:disk/x"), "the disk's file");
  assert.equal(lost().length, 3);
});

test("what has not settled yet, what was left out, and what was lost at its source, is told beside what is delivered", async (t) => {
  const world = new World(t);
  for (const dir of ["place", "spool", "fresh"]) world.file(`${dir}/x`, `content at ${dir}`);
  utimesSync(world.path("fresh/x"), new Date(), new Date());
  for (const name of ["a.ulg", "b.ulg", "excluded.ulg"]) symlinkSync("elsewhere", world.path("spool", name));
  const config = world.config({
    devices: {
      place: local("place", { interval: "1s" }),
      spool: local("spool", { inPlace: false }),
      fresh: local("fresh", { settle: "1h" }),
      out: local("out"),
    },
    routes: ["place", "spool", "fresh"].map((from) => ({ from, to: ["out"], into: "{device}", exclude: ["excluded*"] })),
  });
  const program = new Program(["run", "--json", "--verbose", "--config", config]);
  t.after(() => program.kill());
  await program.until(() => program.events.filter(({ what }) => what === "found").length === 2, "both are found");
  await program.until(({ what, facts }) => what === "listed" && facts?.["device"] === "place", "that its place is known");
  rmSync(world.path("place/x"));
  // The one that is read where it is goes; the other's copy in the spool is whole.
  await program.until(({ what }) => what === "pulled", "one is here");
  await program.until(({ what }) => what === "lost", "the loss");
  world.file("spool/y", "another");
  await program.kill();
  const status = async () => masked((await runProgram(["status", "--config", config])).out, world.dir).split("\n");
  const again = new Program(["run", "--json", "--config", config]);
  t.after(() => again.kill());
  world.mkdir("out");
  await again.until(() => again.events.filter(({ what }) => what === "delivered").length === 2, "the others");
  const running = await status();
  assert.match(
    running[0] ?? "",
    /^\d+ B delivered, nothing is on its way; 2 paths are left out at the source; 1 file is not complete yet at the source; 1 file was lost at the source$/,
  );
  assert.match(running.join("\n"), /^spool {2}attached; left out: (a|b)\.ulg \(a symbolic link\) and 1 more {2}\(local/m);
  const lost = running.indexOf(
    "lost at their source, before every target had them (filesync forget ID, or DEVICE, and it is told no more):",
  );
  assert.equal(running[lost + 1], "  place:x  16 B  [ID]");
  for (const what of ["place:x", "place"]) {
    const { code, out } = await runProgram(["forget", what, "--config", config]);
    assert.deepEqual(
      [code, masked(out, world.dir)],
      what === "place" ? [2, ""] : [0, "place:x → out [ID]: was lost at its source; status tells it no more"],
    );
  }
  assert.match(
    (await status())[0] ?? "",
    /^everything that was found is delivered \(\d+ B\); 2 paths are left out at the source; 1 file is not complete yet at the source$/,
  );
});

test("--watch without a terminal writes block after block; Ctrl-C ends it well", async (t) => {
  const world = new World(t);
  const config = await delivered(world);
  const watch = new Program(["status", "--watch", "--config", config]);
  t.after(() => watch.kill());
  const blocks = () => watch.events.filter(({ message }) => message.startsWith("everything that was found")).length;
  await watch.until(() => blocks() === 2, "two blocks");
  watch.signal("SIGINT");
  assert.equal(await watch.exited, 0);
});

for (const key of ["q", "\x03"])
  test(`--watch on a terminal draws in place and gives the screen back at ${JSON.stringify(key)}`, async (t) => {
    const world = new World(t);
    const config = await delivered(world);
    const pty = spawn(process.execPath, [mainJs, "status", "--watch", "--config", config], { cols: 60, rows: 8, cwd: world.dir });
    let seen = "";
    const code = await new Promise<number>((resolve) => {
      let pressed = false;
      pty.onData((data) => {
        seen += data;
        if (pressed || seen.split("\x1b[H").length < 3) return;
        pressed = true;
        pty.write(key);
      });
      pty.onExit(({ exitCode }) => resolve(exitCode));
    });
    assert.equal(code, 0, seen);
    assert.ok(seen.startsWith("\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H"), JSON.stringify(seen.slice(0, 40)));
    assert.ok(seen.endsWith("\x1b[?7h\x1b[?25h\x1b[?1049l"));
    const frames = seen.split("\x1b[H").slice(1);
    for (const frame of frames) {
      const lines = frame.replace(/\x1b\[[?0-9]*[A-Za-z]/g, "").split("\r\n"); // eslint-disable-line no-control-regex
      assert.ok(lines.length <= 8 && lines.every((line) => line.length <= 60), JSON.stringify(lines));
      assert.match(frame, /… \d+ lines more/);
      assert.ok(!frame.includes("\x1b[2J"));
    }
  });

test("what failed and is tried again is told with its reason, how many wait, and when", async (t) => {
  const world = new World(t);
  for (const name of ["a", "b", "c"]) world.file(`in/${name}`, `content ${name}`);
  const server = createServer((request, response) => {
    request.resume();
    response.writeHead(request.method === "PUT" ? 500 : request.method === "PROPFIND" ? 404 : 201).end("the disk is tired");
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  const config = world.config({
    devices: { in: local("in"), cloud: { type: "webdav", url } },
    routes: [{ from: "in", to: ["cloud"] }],
  });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ level, message }) => level === "warn" && message.includes("→ cloud"), "that one failed");
  // Each second try waits longer: soon none is under way.
  let now: Status | undefined;
  await until("all three to wait", async () => (now = await statusNow(config))?.failing[0]?.deliveries === 3, 60_000);
  const [failing, ...others] = now?.failing ?? [];
  assert.ok(failing !== undefined);
  const { seconds = NaN, reason } = failing;
  assert.deepEqual([others, failing.from, failing.to, failing.fault], [[], "in", "cloud", "transient"]);
  assert.match(reason, /^cannot write v\/in\/[abc]: .* answers 500 \("the disk is tired"\)$/);
  assert.ok(seconds >= 0 && seconds <= 30, `${seconds} s`);
  program.signal("SIGTERM");
  await program.exited;
  const { out } = await runProgram(["status", "--config", config]);
  assert.match(out, /spool .*\n {2}in → cloud {2}3 wait after a failure: cannot write .*tired"\)$/m, "without a daemon nothing is tried");
});

/** NaN where it does not say. */
function secondsLeft(summary: string): number {
  const [, minutes = "0", seconds] = /about (?:(\d+) min )?(\d+) s left/.exec(summary) ?? [];
  return 60 * Number(minutes) + Number(seconds);
}

test("how long it takes is as long as the slowest target takes for all of its own", async (t) => {
  const world = new World(t);
  for (const dir of ["slow", "fast"]) world.mkdir(dir);
  const size = 8_000_000;
  world.file("in/large", Buffer.alloc(size, 1));
  const config = world.config({
    devices: { in: local("in"), slow: local("slow", { maxRate: "150kB/s" }), fast: local("fast", { maxRate: "350kB/s" }) },
    routes: [{ from: "in", to: ["slow", "fast"], into: "" }],
  });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what }) => what === "ready", "it is ready");
  const slowOf = ({ transfers }: Status) => transfers.find(({ to }) => to === "slow");
  await until(
    "both to be on their way",
    async () => {
      const status = await statusNow(config);
      const slow = status && slowOf(status);
      return status?.transfers.length === 2 && slow?.secondsLeft !== undefined && slow.offset >= size / 20;
    },
    60_000,
  );
  const status = await statusOf(config);
  const { queue, summary } = status;
  assert.equal(queue.delivered, 0, "it was delivered before that was seen");
  const left = slowOf(status)?.secondsLeft ?? NaN;
  assert.ok(Math.abs(secondsLeft(summary) - left) <= 1, `${summary}; the slow transfer: ${left} s`);
});

test("how long it takes counts what has been sent of a file", async (t) => {
  const world = new World(t);
  world.mkdir("out");
  const size = 8_000_000;
  world.file("in/large", Buffer.alloc(size, 1));
  const config = world.config({
    devices: { in: local("in"), out: local("out", { maxRate: "300kB/s" }) },
    routes: [{ from: "in", to: ["out"], into: "" }],
  });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what }) => what === "ready", "it is ready");
  await until(
    "a quarter to be sent",
    async () => {
      const transfer = (await statusNow(config))?.transfers[0];
      return transfer?.secondsLeft !== undefined && transfer.offset >= size / 4;
    },
    60_000,
  );
  const { transfers, summary, queue } = await statusOf(config);
  assert.equal(queue.delivered, 0, "it was delivered before that was seen");
  const left = transfers[0]?.secondsLeft ?? NaN;
  assert.ok(Math.abs(secondsLeft(summary) - left) <= 1, `${summary}; the transfer: ${left} s`);
});
