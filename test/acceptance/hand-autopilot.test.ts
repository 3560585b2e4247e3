/** Hand commands on a flight controller: by URL and from the configuration, with a daemon and without one; how it is read, and what is recorded. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { spawn } from "@lydell/node-pty";
import { Op } from "../../mavlink/ftp.js";
import { AUTOPILOT_ARDUPILOT } from "../../mavlink/messages.js";
import { readTrace } from "../../mavlink/trace.js";
import { startSim } from "../../sim/sim.js";
import { mainJs, Program, runProgram } from "../faults/process.js";
import { Random } from "../faults/random.js";
import { World } from "../faults/world.js";
import { masked } from "./said.js";

const local = (dir: string) => ({ type: "local", dir });

test("a flight controller: by URL without a configuration; through the daemon while it reads; never a second link", async (t) => {
  const world = new World(t);
  // The daemon reads it for sixteen seconds, in which a command begins.
  const log = new Random(5).bytes(800_000);
  world.file("card/fs/microsd/log/2026-05-02/09_10_57.ulg", log);
  world.file("card/fs/microsd/log/2026-05-01/10_00_00.ulg", "older");
  const sim = await startSim({
    listen: "tcpin://127.0.0.1:0",
    dir: world.path("card"),
    autopilot: "px4",
    link: "usb",
    armed: false,
    faults: {},
  });
  t.after(() => sim.close());
  mkdirSync(world.path("cwd"));
  const filesync = async (...args: string[]) => {
    const { code, out, err } = await runProgram(args, { cwd: world.path("cwd") });
    return { code, out: masked(out, world.dir), err: masked(err, world.dir) };
  };
  const url = ["--url", sim.clientUrl];
  assert.deepEqual(await filesync("ls", ...url, "/fs/microsd/log"), {
    code: 0,
    out: "-  -                     2026-05-01/\n-  -                     2026-05-02/",
    err: "",
  });
  const whole = await filesync("ls", "-r", ...url, "/fs/microsd/log/2026-05-01");
  const typed = whole.out.slice(whole.out.lastIndexOf(" ") + 1);
  assert.equal(typed, "/fs/microsd/log/2026-05-01/10_00_00.ulg", "a path is said as it is typed");
  assert.equal((await filesync("get", ...url, typed, "older.ulg")).code, 0);
  const way = "by plain reads: bursts not tried: where plain reads give more than 30 kB/s a PX4's are never faster";
  assert.deepEqual(await filesync("get", ...url, "latest", "l.ulg"), {
    code: 0,
    out: `autopilot:2026-05-02/09_10_57.ulg → l.ulg (800000 bytes in TIME, ${way}, proved by digest)`,
    err: "",
  });
  assert.ok(readFileSync(world.path("cwd/l.ulg")).equals(log));
  assert.equal(
    (await filesync("ls", ...url, "/fs/microsd/lgo")).err,
    'filesync: there is no autopilot:/fs/microsd/lgo; did you mean "/fs/microsd/log"?',
  );
  assert.equal((await filesync("ls", "--url", "tcpin:/nonsense", "/")).code, 2);

  world.mkdir("out");
  const config = world.config({
    devices: { fc: { type: "mavftp", url: sim.clientUrl, settle: "0s", maxRate: "50KiB/s" }, out: local("out") },
    routes: [{ from: "fc", to: ["out"], into: "" }],
  });
  assert.match(
    (await filesync("rm", "fc:2026-05-01/10_00_00.ulg", "--config", config)).err,
    /^filesync: fc cannot be changed by hand: it is only read; "write": true on this device lets files be put, moved and removed there$/,
  );
  const daemon = new Program(["run", "--json", "--config", config]);
  t.after(() => daemon.kill());
  await daemon.until(({ what }) => what === "found", "found");
  const got = await filesync("get", "fc:2026-05-01/10_00_00.ulg", "--config", config);
  assert.equal(got.code, 0, got.err);
  assert.equal(readFileSync(world.path("cwd/10_00_00.ulg"), "utf8"), "older");
  assert.equal(existsSync(world.path("out/2026-05-02/09_10_57.ulg")), false, "the daemon's own transfer was still on its way");
  await daemon.until(() => daemon.events.filter(({ what }) => what === "delivered").length === 2, "both delivered");
  assert.ok(readFileSync(world.path("out/2026-05-02/09_10_57.ulg")).equals(log));
  // Chosen while the daemon read: known from the first byte on.
  const again = await filesync("get", "fc:2026-05-02/09_10_57.ulg", "again.ulg", "--config", config);
  assert.equal(again.out, `fc:2026-05-02/09_10_57.ulg → again.ulg (800000 bytes in TIME, ${way}, proved by digest)`);
  const json = await filesync("get", "--json", "fc:2026-05-02/09_10_57.ulg", "json.ulg", "--config", config);
  const last = JSON.parse(json.out.split("\n").at(-1) ?? "") as { way: { name: string; why: string; tried: Record<string, number> } };
  assert.deepEqual([last.way.name, `by plain reads: ${last.way.why}`], ["plain reads", way]);
  assert.ok((last.way.tried["plain reads"] ?? 0) > 1000);
});

test("the bar of a flight controller's log says how it is read, and why", async (t) => {
  const world = new World(t);
  world.file("card/a.bin", new Random(6).bytes(1_500_000));
  const sim = await startSim({ listen: "tcpin://127.0.0.1:0", dir: world.path("card"), autopilot: "ardupilot-4.6", link: "usb" });
  t.after(() => sim.close());
  const pty = spawn(process.execPath, [mainJs, "get", "--url", sim.clientUrl, "/a.bin"], { cols: 200, rows: 10, cwd: world.dir });
  let seen = "";
  pty.onData((data) => (seen += data));
  const code = await new Promise<number>((resolve) => pty.onExit(({ exitCode }) => resolve(exitCode)));
  assert.equal(code, 0, seen);
  const way = "by plain reads: bursts not tried: up to ArduPilot 4\\.6 they are slowed down";
  const bar = `\\[#*\\.*\\] \\d+ % of 1\\.5 MB, [\\d.]+ kB/s, \\d+ s left, ${way}`;
  assert.match(seen, new RegExp(`\\r\\x1b\\[Kautopilot:a\\.bin ${bar}`));
  assert.match(seen, new RegExp(`→ a\\.bin \\(1500000 bytes in \\d+ s, [\\d.]+ kB/s, ${way}, proved by digest\\)\\r\\n$`));
});

test("by URL the command itself is the word that files may be changed, on a vehicle that is disarmed", async (t) => {
  const world = new World(t);
  world.file("script.lua", "return 1\n");
  world.mkdir("card/APM/scripts");
  const sim = await startSim({ listen: "tcpin://127.0.0.1:0", dir: world.path("card"), autopilot: "ardupilot-4.7" });
  t.after(() => sim.close());
  const filesync = (...args: string[]) => runProgram([...args, "--url", sim.clientUrl], { cwd: world.dir });
  const put = await filesync("put", "script.lua", "/APM/scripts/");
  assert.deepEqual([put.code, put.err], [0, ""]);
  assert.equal(readFileSync(world.path("card/APM/scripts/script.lua"), "utf8"), "return 1\n");
  for (const args of [
    ["mkdir", "/APM/scripts/old"],
    ["mv", "/APM/scripts/script.lua", "/APM/scripts/old/a.lua"],
    ["rm", "/APM/scripts/old/a.lua"],
  ])
    assert.deepEqual([(await filesync(...args)).code, args[0]], [0, args[0]]);
  assert.deepEqual(readdirSync(world.path("card/APM/scripts/old")), []);
  sim.setArmed(true);
  const armed = await filesync("put", "script.lua", "/APM/scripts/");
  assert.deepEqual([armed.code, armed.err], [3, "filesync: autopilot: the vehicle is armed\n"]);
  assert.deepEqual(readdirSync(world.path("card/APM/scripts")), ["old"]);
});

test("get of a file with a byte that the card cannot read ends soon, names it, and keeps all before it", async (t) => {
  const world = new World(t);
  const log = new Random(8).bytes(1_200_000);
  world.file("card/a.ulg", log);
  const sim = await startSim({ listen: "tcpin://127.0.0.1:0", dir: world.path("card"), autopilot: "px4", faults: { eio: "1000kB" } });
  t.after(() => sim.close());
  mkdirSync(world.path("cwd"));
  const got = await runProgram(["get", "--url", sim.clientUrl, "/a.ulg"], { cwd: world.path("cwd") });
  const fault = "autopilot: the autopilot cannot read byte 1000000: its card fails there: FailErrno (errno 5)";
  const said = got.err.split("\n").filter((line) => !line.startsWith("autopilot:a.ulg:"));
  assert.deepEqual(
    [got.code, ...said],
    [3, `${fault}; again`, `filesync: ${fault}; 1000000 bytes are here, and the same command goes on there`, ""],
    "and what is said is said once",
  );
  const [partial] = readdirSync(world.path("cwd"));
  assert.ok(readFileSync(world.path(`cwd/${partial ?? ""}`)).equals(log.subarray(0, 1_000_000)));
});

test("--trace records a flight controller's link, by URL and from the configuration; a recording that cannot be made is said", async (t) => {
  const world = new World(t);
  world.file("card/log/00000001.BIN", new Random(7).bytes(50_000));
  const sim = await startSim({ listen: "tcpin://127.0.0.1:0", dir: world.path("card"), autopilot: "ardupilot-4.6", link: "usb" });
  t.after(() => sim.close());
  mkdirSync(world.path("disk"));
  const config = world.config({ devices: { fc: { type: "mavftp", url: sim.clientUrl, root: "/log" }, disk: local("disk") } });
  const run = (...args: string[]) => runProgram(args, { cwd: world.dir });
  const url = ["--url", sim.clientUrl];
  for (const [trace, args] of [
    ["by-url.jsonl", ["get", "/log/00000001.BIN", "a.BIN", ...url]],
    ["by-name.jsonl", ["get", "fc:00000001.BIN", "b.BIN", "--config", config]],
    ["listing.jsonl", ["ls", "fc:", "--config", config]],
  ] as const) {
    const done = await run(...args, "--trace", trace);
    assert.deepEqual([done.code, done.err], [0, ""]);
    const { head, rows } = readTrace(readFileSync(world.path(trace), "utf8"));
    assert.equal(head.autopilot, AUTOPILOT_ARDUPILOT);
    const asked = (opcode: number) => rows.filter((row) => row.kind === "request" && row.opcode === opcode).length;
    assert.ok(asked(Op.ListDirectory) + asked(Op.ListDirectoryWithTime) > 0);
    // By bursts, too, where this machine is busy.
    const reads = (opcode: number) => opcode === Op.ReadFile || opcode === Op.BurstReadFile;
    const came = rows.flatMap((row) => (row.kind === "reply" && reads(row.reqOpcode) ? [row.size] : []));
    assert.equal(came.reduce((sum, bytes) => sum + bytes, 0) >= 50_000, args[0] === "get", `${trace}: every read of it`);
  }
  const first = readFileSync(world.path("listing.jsonl"), "utf8");
  assert.deepEqual(await run("ls", "fc:", "--config", config, "--trace", "listing.jsonl"), {
    code: 2,
    out: "",
    err: "filesync: --trace: listing.jsonl is there already: name another file, or remove it\n",
  });
  assert.equal(readFileSync(world.path("listing.jsonl"), "utf8"), first);
  const nowhere = await run("ls", "/log", ...url, "--trace", "no/where.jsonl");
  assert.equal(nowhere.code, 0);
  assert.match(nowhere.err, /^autopilot: cannot record to .*no\/where\.jsonl: ENOENT/);
  for (const [words, says] of [
    [
      ["ls", "/nolog"],
      `there is no autopilot:nolog: a path begins below the root of autopilot; "filesync ls --url ${sim.clientUrl} /" lists what is there`,
    ],
    [["get", "/log"], `autopilot:log is a directory; "filesync ls --url ${sim.clientUrl} /log" lists it`],
  ] as const)
    assert.equal((await run(...words, ...url)).err, `filesync: ${says}\n`);
  for (const [args, says] of [
    [
      ["ls", "disk:", "--config", config],
      'filesync: --trace: a device of type "local" records nothing; a flight controller (mavftp) does\n',
    ],
    [
      ["ls", "/", "--url", "ftp://127.0.0.1:1/"],
      'filesync: --trace: a device of type "ftp" records nothing; a flight controller (mavftp) does\n',
    ],
  ] as const)
    assert.deepEqual(await run(...args, "--trace", "x.jsonl"), { code: 2, out: "", err: says });
  const daemon = new Program(["run", "--json", "--config", config]);
  t.after(() => daemon.kill());
  await daemon.until(({ what }) => what === "ready", "ready");
  const held = await run("ls", "fc:", "--config", config, "--trace", "x.jsonl");
  assert.deepEqual(held, {
    code: 2,
    out: "",
    err: 'filesync: --trace: a daemon runs and has the link of fc: set "trace" of fc in its configuration, or stop it for so long\n',
  });
  assert.match((await run("ls", "disk:", "--config", config, "--trace", "x.jsonl")).err, /a device of type "local" records nothing/);
  assert.equal(existsSync(world.path("x.jsonl")), false);
});
