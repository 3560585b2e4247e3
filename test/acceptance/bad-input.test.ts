/** What a person gets for bad input: one clear message, the rest goes on, nothing is lost. Run as a user runs it. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, chownSync, existsSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { Journal } from "../../core/journal.js";
import { openDatabase } from "../../core/sqlite.js";
import { Client } from "basic-ftp";
import { freePort, startOwn } from "../conformance/ftp-servers.js";
import { startGround } from "../faults/ground.js";
import { mainJs, Program, runProgram } from "../faults/process.js";
import { treeOf } from "../faults/trees.js";
import { World } from "../faults/world.js";
import { masked } from "./said.js";

const root = process.getuid?.() === 0;
const nobody = { uid: 65534, gid: 65534 };
const local = (dir: string, more = {}) => ({ type: "local", dir, ...more });

test("no configuration, an unknown command, an unknown option: exit code 2 and what to do", async (t) => {
  const world = new World(t);
  const nothing = await runProgram(["run"], { cwd: world.dir });
  if (!existsSync("/etc/filesync/config.json"))
    assert.match(nothing.err, /^filesync: there is no config\.json here .*"filesync init" writes one/);
  const unknown = await runProgram(["rnu"], { cwd: world.dir });
  assert.equal(unknown.code, 2);
  assert.match(unknown.err, /there is no command "rnu"; did you mean "run"\?; "filesync --help" lists them/);
  const option = await runProgram(["run", "--onec"], { cwd: world.dir });
  assert.equal(option.code, 2);
  assert.match(option.err, /^filesync: Unknown option `--onec`/);
  const missing = await runProgram(["check", "--config", "nowhere.json"], { cwd: world.dir });
  assert.equal(missing.code, 2);
  assert.match(missing.err, /there is no .*nowhere\.json/);
});

test("check says every error and exits with 2; run leaves out what is wrong and does the rest", async (t) => {
  const world = new World(t);
  world.file("in/a", "a");
  world.mkdir("out");
  const config = world.config({
    devices: { in: local("in"), out: local("out"), bad: { type: "local", dri: "x" } },
    routes: [
      { from: "in", to: ["out"], into: "" },
      { from: "bad", to: ["out"] },
    ],
  });
  const check = await runProgram(["check", "--config", config]);
  assert.equal(check.code, 2);
  assert.match(check.out, /config\.json:1: devices\.bad\.dri: unknown key "dri"; did you mean "dir"\?/);
  const run = await runProgram(["run", "--once", "--config", config]);
  assert.equal(run.code, 2);
  assert.match(run.err, /unknown key "dri"/);
  assert.equal(readFileSync(world.path("out/a"), "utf8"), "a");
  const good = world.config({ devices: { in: local("in") } }, "good.json");
  assert.match((await runProgram(["check", "--probe", "--config", good])).out, /in: works\n.*nothing is wrong/);
  const asJson = async (path: string, ...more: string[]) => {
    const { code, out } = await runProgram(["check", "--json", ...more, "--config", path]);
    return [code, JSON.parse(out)] as [number, { usable: boolean; problems: { line: number; path: string }[]; probed?: object[] }];
  };
  assert.deepEqual(await asJson(good, "--probe"), [
    0,
    { usable: true, problems: [], probed: [{ name: "in", works: true, said: "works" }] },
  ]);
  const [code, { usable, problems, probed }] = await asJson(config);
  assert.deepEqual(
    [code, usable, problems.map(({ path }) => path), probed],
    [2, true, ["devices.bad.dir", "devices.bad.dri"], undefined],
    "the rest can be used",
  );
  world.file("torn.json", '{ "devices": {');
  const [torn, nothing] = await asJson(world.path("torn.json"));
  assert.deepEqual([torn, nothing.usable, nothing.problems[0]?.line], [2, false, 1]);
  const [gone, none] = await asJson(world.path("gone.json"));
  assert.deepEqual([gone, none.usable, none.problems.length], [2, false, 1]);
});

test("names with spaces, quotes, newlines, bytes that are no UTF-8, 255 bytes; files of 0 bytes; dated 1970: all arrive over FTP", async (t) => {
  const world = new World(t);
  const names = [
    "a b",
    "it's",
    'say "hi"',
    "line\nbreak",
    " lead and trail ",
    "%41",
    "-rf",
    "~tilde",
    "ünï",
    "x".repeat(255),
    "empty",
    "..hidden",
    "back\\slash",
  ];
  for (const name of names) world.file(join("in", name), name === "empty" ? "" : `content of ${name}`);
  writeFileSync(Buffer.concat([Buffer.from(`${world.path("in")}/caf`), Buffer.from([0xe9])]), "latin-1");
  world.file("in/old.BIN", "from 1970", -Date.UTC(2026, 4, 28) / 1000);
  const ground = await startGround(world.path("ground"));
  t.after(() => ground.program.kill());
  world.mkdir("out");
  const config = world.config({
    devices: {
      in: local("in", { settle: "0s" }),
      ftp: { type: "ftp", host: "127.0.0.1", port: ground.port, user: "plane", password: "secret" },
      out: local("out"),
    },
    routes: [{ from: "in", to: ["ftp", "out"], into: "" }],
  });
  const run = await runProgram(["run", "--once", "--json", "--config", config]);
  assert.equal(run.code, 0, run.out);
  const source = treeOf(world.path("in"));
  assert.deepEqual(treeOf(world.path("out")), source);
  // A name that a line of FTP cannot carry arrives as printable text; its content is the same.
  const ftp = treeOf(ground.root);
  assert.equal(ftp.size, source.size);
  assert.deepEqual([...ftp.values()].sort(), [...source.values()].sort());
  assert.ok(ftp.has('say "hi"') && ftp.has("x".repeat(255)));
});

test("a source that cannot be listed, and a spool without space: --once ends with 3 and says what", async (t) => {
  const world = new World(t);
  world.mkdir("out");
  const missing = world.config({ devices: { in: local("nowhere"), out: local("out") }, routes: [{ from: "in", to: ["out"] }] });
  const run = await runProgram(["run", "--once", "--config", missing]);
  assert.equal(run.code, 3);
  assert.match(run.out, /finished, but in could not be listed/);
  world.file("in/a", "a");
  const full = world.config(
    {
      spool: { maxSize: "1GiB", keepFree: "900TiB" },
      devices: { in: local("in", { inPlace: false }), out: local("out") },
      routes: [{ from: "in", to: ["out"] }],
    },
    "full.json",
  );
  const spool = await runProgram(["run", "--once", "--config", full]);
  // What the spool can never hold goes straight through.
  assert.equal(spool.code, 0, spool.out);
  assert.deepEqual([...treeOf(world.path("out")).keys()], ["v/in/a"]);
});

test("a wrong password: the device waits and says so, the other target gets its files, and the password is nowhere", async (t) => {
  const world = new World(t);
  world.file("in/a", "a");
  world.mkdir("out");
  const ground = await startGround(world.path("ground"));
  t.after(() => ground.program.kill());
  const config = world.config({
    devices: {
      in: local("in"),
      ftp: { type: "ftp", host: "127.0.0.1", port: ground.port, user: "plane", password: "wrong-password" },
      out: local("out"),
    },
    routes: [{ from: "in", to: ["ftp", "out"], into: "" }],
  });
  const run = await runProgram(["run", "--once", "--json", "--config", config]);
  assert.equal(run.code, 3);
  assert.equal(readFileSync(world.path("out/a"), "utf8"), "a");
  assert.match(run.out, /"detached".*ftp: .*(password|login)/i);
  assert.doesNotMatch(run.out + run.err, /wrong-password/);
});

test("--config below a file says what is wrong with that path, without node's words", async (t) => {
  const world = new World(t);
  const path = `${world.config({ devices: {} })}/config.json`;
  const { code, err } = await runProgram(["check", "--config", path]);
  assert.deepEqual([code, err], [2, `filesync: ${path} cannot be read: a part of the path is not a directory\n`]);
});

test("a configuration of the FileSync in Python: check and run say first, and once, what makes one of this program of it", async (t) => {
  const world = new World(t);
  const args = { host: "192.168.20.131", user: "test-1", passwd: "passwd" };
  const old = {
    workers: [
      {
        source: { device_class: "LOCAL", module_path: "device_local", args: { dir: world.mkdir("in") } },
        target: { device_class: "FTP", module_path: "device_ftp", args },
      },
    ],
  };
  const config = world.path("old.json");
  writeFileSync(config, JSON.stringify(old, null, 2));
  const words = `${config}:2: this is a configuration of the FileSync in Python ("workers"): "filesync import-legacy ${config} --config NEW" writes one of this program to NEW`;
  for (const command of ["check", "run"]) {
    const { code, out, err } = await runProgram([command, "--config", config]);
    const lines = `${out}\n${err}`.split("\n").filter((line) => line !== "");
    assert.equal(code, 2);
    assert.equal(lines.filter((line) => line.includes("import-legacy")).length, 1, lines.join("\n"));
    assert.equal(lines[0]?.replace(/^filesync: /, ""), words);
  }
  const made = await runProgram(["import-legacy", config, "--config", world.path("NEW")]);
  assert.match(made.out, /^Written: /, made.err);
});

test("check --probe: of a server that lets one in and says nothing it is told that it does not answer, not that something stopped", async (t) => {
  const world = new World(t);
  const silent = createServer().listen(0, "127.0.0.1");
  t.after(() => silent.close());
  await once(silent, "listening");
  const { port } = silent.address() as AddressInfo;
  const config = world.config({ devices: { ftp: { type: "ftp", host: "127.0.0.1", port } } });
  const { code, out } = await runProgram(["check", "--probe", "--config", config]);
  assert.deepEqual([code, out], [2, "ftp: it does not answer within 15 s"]);
});

test(
  "check --probe: a target that cannot be written, one of which nobody can know, a service's port and directory",
  { skip: root ? false : "needs root to become another user" },
  async (t) => {
    const world = new World(t);
    chmodSync(world.dir, 0o755);
    for (const dir of ["in", "readonly", "out", "state"]) world.mkdir(dir);
    for (const dir of ["out", "state"]) chownSync(world.path(dir), nobody.uid, nobody.gid);
    const ground = await startGround(world.path("ground"));
    t.after(() => ground.program.kill());
    const port = await freePort();
    const server = (more: object) => ({ type: "ftp-server", root: "out/srv", users: { u: { password: "p" } }, ...more });
    const config = world.config({
      devices: {
        in: local("in"),
        readonly: local("readonly"),
        out: local("out"),
        made: local("out/new/dir", { create: true }),
        ftp: { type: "ftp", host: "127.0.0.1", port: ground.port, user: "plane", password: "secret" },
        byHand: { type: "ftp", host: "127.0.0.1", port: ground.port, user: "plane", password: "secret", root: "/no/such" },
      },
      routes: [{ from: "in", to: ["readonly", "out", "made", "ftp"] }],
      services: {
        free: server({ listen: `127.0.0.1:${port}` }),
        held: server({ listen: `127.0.0.1:${ground.port}` }),
        closed: server({ listen: `127.0.0.1:${port}`, root: "readonly/srv" }),
        bare: server({ listen: `127.0.0.1:${port}`, tls: { cert: "no.crt", key: "no.key" } }),
      },
    });
    const said = async () => {
      const { code, out } = await runProgram(["check", "--probe", "--config", config], nobody);
      return { code, out: masked(out, world.dir).replaceAll(`${ground.port}`, "HELD") };
    };
    assert.deepEqual(await said(), {
      code: 2,
      out: [
        "in: works",
        "readonly: cannot write in DIR/readonly: permission denied: nobody may not write in DIR/readonly: sudo chgrp nogroup DIR/readonly && sudo chmod g+rwx DIR/readonly",
        "out: works",
        "made: works",
        "ftp: answers; whether it can be written is not tried",
        'byHand: answers, and its root cannot be listed (the root cannot be entered: the server said "No such file or directory.")',
        "free: can be started",
        'held: port HELD of 127.0.0.1 is held by another program; stop that, or set another port in "listen"',
        "closed: u could not write in DIR/readonly/srv/u: permission denied: nobody may not make DIR/readonly/srv/u: sudo install -d -o nobody DIR/readonly/srv/u",
        'bare: there is no DIR/no.crt: put the certificate there; "filesync init --ground --yes" makes the one of a ground station anew',
      ].join("\n"),
    });
    assert.deepEqual(readdirSync(world.path("out")), [], "a look changes nothing");
    // One that runs holds its own port.
    const daemon = new Program(["run", "--json", "--config", config], nobody);
    t.after(() => daemon.kill());
    await daemon.until(({ message }) => message.includes("FTP server listens"), "listening");
    await daemon.until(({ what }) => what === "ready", "ready");
    assert.match((await said()).out, /^free: works: the daemon that runs serves it$/m);
  },
);

test(
  "check --probe: a source that delivered files are to leave, and that this user may not write",
  { skip: root ? false : "needs root to become another user" },
  async (t) => {
    const world = new World(t);
    chmodSync(world.dir, 0o755);
    for (const dir of ["kept", "left", "out", "state"]) world.mkdir(dir);
    for (const dir of ["out", "state"]) chownSync(world.path(dir), nobody.uid, nobody.gid);
    const config = world.config({
      devices: { kept: local("kept"), left: local("left", { archiveDir: "done" }), out: local("out") },
      routes: [
        { from: "kept", to: ["out"] },
        { from: "left", to: ["out"], afterDelivery: "archive" },
      ],
    });
    assert.equal((await runProgram(["check", "--config", config], nobody)).code, 0);
    const { code, out } = await runProgram(["check", "--probe", "--config", config], nobody);
    assert.deepEqual(
      [code, masked(out, world.dir)],
      [
        2,
        [
          "kept: works",
          'left: "afterDelivery" takes away there what was delivered: cannot write in DIR/left: permission denied: ' +
            "nobody may not write in DIR/left: sudo chgrp nogroup DIR/left && sudo chmod g+rwx DIR/left",
          "out: works",
        ].join("\n"),
      ],
    );
  },
);

test(
  "a source, a target, a spool that is read-only; run as an ordinary user",
  { skip: root ? false : "needs root to become another user" },
  async (t) => {
    const world = new World(t);
    chmodSync(world.dir, 0o755);
    world.file("in/a", "a");
    world.file("in/secret/b", "b");
    // No content is left out with it.
    symlinkSync("a", world.path("in/link"));
    world.file("in/c", "c");
    chmodSync(world.path("in/secret"), 0o700);
    chmodSync(world.path("in/c"), 0o600);
    world.mkdir("readonly");
    world.mkdir("out");
    world.mkdir("state");
    for (const dir of ["out", "state"]) chownSync(world.path(dir), nobody.uid, nobody.gid);
    const config = world.config({
      devices: { in: local("in"), readonly: local("readonly"), out: local("out") },
      routes: [{ from: "in", to: ["readonly", "out"], into: "" }],
    });
    const run = await runProgram(["run", "--once", "--json", "--config", config], nobody);
    assert.equal(run.code, 3, run.out + run.err);
    assert.equal(readFileSync(world.path("out/a"), "utf8"), "a");
    const said = run.out.replaceAll(world.dir, "DIR");
    const given = (path: string, rights: string) => `sudo chgrp nogroup DIR/${path} && sudo chmod g+${rights} DIR/${path}`;
    const holds = (text: string) => assert.ok(said.includes(text), `${text}\nis not in\n${said}`);
    holds(`in:secret: left out: cannot list secret: permission denied: nobody may not read DIR/in/secret: ${given("in/secret", "rx")}`);
    holds(
      `in:c → out: set aside: cannot open c: permission denied: nobody may not read DIR/in/c: ${given("in/c", "r")}; ` +
        "it is tried again daily, and when out or in attaches; to try it now: filesync retry ",
    );
    const status = await runProgram(["status", "--config", config], nobody);
    assert.match(status.out, /^ {2}in:c → out: cannot open c: permission denied: nobody may not read /m);
    assert.match(run.out, /finished, but .*, 1 path at the source could not be read; the lines above say why/);
    assert.doesNotMatch(run.out, /"detached","message":"in:/);
    assert.match(run.out, /readonly: cannot write .*permission denied: nobody may not write in .*\/readonly: sudo chgrp nogroup /);
    const denied = world.config({ stateDir: "readonly/state", devices: {} }, "denied.json");
    const state = await runProgram(["run", "--config", denied], nobody);
    assert.equal(state.code, 2);
    const words = masked(state.err, world.dir);
    assert.equal(
      words,
      "filesync: the state directory DIR/readonly/state cannot be written: permission denied: nobody may not make DIR/readonly/state: " +
        'sudo install -d -o nobody DIR/readonly/state; or run as a user who may, or set "stateDir" to a directory of yours',
    );
    // `check` looks at the file alone, `--probe` at what is on this machine.
    assert.equal((await runProgram(["check", "--config", denied], nobody)).code, 0);
    const probed = await runProgram(["check", "--probe", "--config", denied], nobody);
    assert.equal(probed.code, 2);
    assert.match(
      masked(probed.out, world.dir),
      /^DIR\/denied\.json:\d+: stateDir: the state directory DIR\/readonly\/state cannot be written: /,
    );
  },
);

test(
  "a full target and a full spool: it says so, and goes on when there is space",
  { skip: root ? false : "needs root to mount a small file system" },
  async (t) => {
    const world = new World(t);
    if (!world.mount("small", 16)) {
      t.skip("no loop devices here");
      return;
    }
    for (let n = 0; n < 4; n++) world.file(`in/${n}.bin`, Buffer.alloc(3_000_000, n + 1), n);
    writeFileSync(world.path("small/ballast"), Buffer.alloc(8_000_000));
    const config = world.config({
      devices: { in: local("in"), small: local("small") },
      routes: [{ from: "in", to: ["small"], into: "files" }],
    });
    const program = new Program(["run", "--json", "--config", config]);
    t.after(() => program.kill());
    const full = await program.until(({ message }) => message.includes("no space is left"), "the full target");
    assert.match(full.message, /^in:\d\.bin → small: cannot write .*no space is left on the device; again in 10 s/);
    spawnSync("rm", [world.path("small/ballast")]);
    await program.until(
      ({ what }) => what === "delivered" && program.events.filter((event) => event.what === "delivered").length === 4,
      "all four",
      40_000,
    );
    assert.deepEqual(treeOf(world.path("small/files")), treeOf(world.path("in")));
  },
);

test("a journal of a newer version, and a second daemon on one state directory: refused, nothing is touched", async (t) => {
  const world = new World(t);
  world.file("in/a", "a");
  world.mkdir("out");
  const config = world.config({ devices: { in: local("in"), out: local("out") }, routes: [{ from: "in", to: ["out"] }] });
  const first = new Program(["run", "--json", "--config", config]);
  await first.until(({ what }) => what === "delivered", "delivery");
  const second = await runProgram(["run", "--config", config]);
  assert.equal(second.code, 2);
  assert.match(second.err, /^filesync: another FileSync has .*state already; stop it first, or give this one its own "stateDir"\n$/);
  first.signal("SIGTERM");
  assert.equal(await first.exited, 0);
  const db = await openDatabase(world.path("state/journal.db"));
  db.exec("PRAGMA disk.user_version = 7");
  db.close();
  const newer = await runProgram(["run", "--config", config]);
  assert.equal(newer.code, 2);
  assert.match(newer.err, /was written by a newer FileSync \(format 7; this one knows \d+\): install that version again/);
});

test("a journal that another program has open is told as that", async (t) => {
  const world = new World(t);
  const config = world.config({ devices: { in: local("in") }, routes: [] });
  world.mkdir("in");
  assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
  const db = await openDatabase(world.path("state/journal.db"));
  t.after(() => db.close());
  for (const command of ["run", "status"]) {
    const { code, err } = await runProgram([command, "--config", config]);
    assert.deepEqual(
      [code, err],
      [2, `filesync: ${world.path("state/journal.db")} is open in another program, such as sqlite3: close it there\n`],
      command,
    );
  }
});

test("a journal that is rubbish: it starts, says so, rebuilds from the receipts, and sends nothing twice", async (t) => {
  const world = new World(t);
  for (let n = 0; n < 5; n++) world.file(`in/${n}`, `content ${n}`, n);
  world.mkdir("out");
  const config = world.config({ devices: { in: local("in"), out: local("out") }, routes: [{ from: "in", to: ["out"], into: "" }] });
  assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
  const receipts = readFileSync(world.path("state/receipts.jsonl"), "utf8");
  writeFileSync(world.path("state/journal.db"), "rubbish\n".repeat(1000));
  const run = await runProgram(["run", "--once", "--json", "--config", config]);
  assert.equal(run.code, 0);
  assert.match(run.out, /the journal is damaged, .*; it was set aside as .*journal\.damaged-1\.db/);
  assert.match(run.out, /5 receipts are known from receipts\.jsonl/);
  assert.doesNotMatch(run.out, /"delivered"/);
  assert.equal(readdirSync(world.path("out")).length, 5);
  assert.equal(readFileSync(world.path("state/receipts.jsonl"), "utf8").trim(), receipts.trim());
});

test("a journal of which one table is rubbish, which shows only behind opening: it is set aside and rebuilt, too", async (t) => {
  const world = new World(t);
  for (let n = 0; n < 5; n++) world.file(`in/${n}`, `content ${n}`, n);
  world.mkdir("out");
  const config = world.config({ devices: { in: local("in"), out: local("out") }, routes: [{ from: "in", to: ["out"], into: "" }] });
  assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
  const path = world.path("state/journal.db");
  const db = await openDatabase(path);
  const asked = (sql: string) => Object.values(db.prepare(sql).get() as Record<string, number>)[0] ?? NaN;
  const [root, bytes] = [asked("SELECT rootpage FROM disk.sqlite_schema WHERE name = 'deliveries'"), asked("PRAGMA disk.page_size")];
  db.close();
  writeFileSync(path, readFileSync(path).fill(0xff, (root - 1) * bytes, root * bytes));
  const run = await runProgram(["run", "--once", "--json", "--config", config]);
  assert.equal(run.code, 0, run.out + run.err);
  assert.match(run.out, /the journal is damaged, .*; it was set aside as .*journal\.damaged-1\.db/);
  assert.match(run.out, /5 receipts are known from receipts\.jsonl/);
  assert.doesNotMatch(run.out, /"delivered"/);
});

test("a state directory that is lost: of what a server has and digests no byte is sent again, also of the first files", async (t) => {
  const world = new World(t);
  for (let n = 0; n < 5; n++) world.file(`in/${n}`, `content ${n}`, n);
  const once = async (write: boolean) => {
    const server = await startOwn({ root: world.path("srv"), users: { u: { password: "p", write } } });
    const out = { type: "ftp", host: "127.0.0.1", port: server.port, user: "u", password: "p" };
    const config = world.config({ devices: { in: local("in"), out }, routes: [{ from: "in", to: ["out"], into: "" }] });
    const run = await runProgram(["run", "--once", "--json", "--config", config]).finally(() => server.close());
    assert.equal(run.code, 0, run.out);
    return run.out;
  };
  assert.match(await once(true), /"delivered"/);
  rmSync(world.path("state"), { recursive: true });
  // Nothing could be written there now.
  await once(false);
  assert.equal(readFileSync(world.path("state/receipts.jsonl"), "utf8").split('"answer":"was there already"').length - 1, 5);
});

test("a state directory from another machine takes a new installation id and says so", async (t) => {
  const world = new World(t);
  const config = world.config({ devices: {} });
  assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
  const path = world.path("state/installation.json");
  const before = JSON.parse(readFileSync(path, "utf8")) as { id: string };
  writeFileSync(path, JSON.stringify({ ...before, machine: "another" }));
  const run = await runProgram(["run", "--once", "--json", "--config", config]);
  assert.match(
    run.out,
    new RegExp(`comes from another machine \\(installation ${before.id}\\): from now on it is installation [0-9a-f]{8}`),
  );
  assert.notEqual((JSON.parse(readFileSync(path, "utf8")) as { id: string }).id, before.id);
});

test("a hash made by hash-password lets its user in, and shows no password", async (t) => {
  const world = new World(t);
  const made = spawnSync(process.execPath, [mainJs, "hash-password"], { input: "a secret\n", encoding: "utf8" });
  assert.equal(made.status, 0);
  assert.match(made.stdout, /^scrypt\$[^ ]+\n$/);
  const config = world.config({
    services: { ftp: { type: "ftp-server", listen: "127.0.0.1:0", root: "files", users: { u: { passwordHash: made.stdout.trim() } } } },
  });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  const { message } = await program.until((event) => /listens on 127\.0\.0\.1:\d+/.test(event.message), "listening");
  const client = new Client();
  try {
    const access = { host: "127.0.0.1", port: Number(/:(\d+)$/.exec(message)?.[1]), user: "u" };
    await assert.rejects(client.access({ ...access, password: "wrong" }), /530/);
    await client.access({ ...access, password: "a secret" });
  } finally {
    client.close();
  }
});

test("power goes while a lost journal is rebuilt: the only copy, in the spool, still reaches its second target", async (t) => {
  const world = new World(t);
  world.mkdir("a");
  world.file("in/x", "the only copy");
  const config = world.config({
    devices: { in: local("in", { inPlace: false }), a: local("a"), b: local("b") },
    routes: [{ from: "in", to: ["a", "b"], into: "" }],
  });
  assert.equal((await runProgram(["run", "--once", "--config", config])).code, 3);
  for (const end of ["", "-wal", "-shm"]) spawnSync("rm", ["-f", world.path(`state/journal.db${end}`)]);
  spawnSync("rm", [world.path("in/x")]);
  // As far as the rebuilding got: the receipt is in, the spool was not looked at.
  const receipt = JSON.parse(readFileSync(world.path("state/receipts.jsonl"), "utf8").trim()) as {
    version: string;
    size: number;
    modifiedMs: number;
  };
  const journal = await Journal.open(world.path("state"));
  await journal.commit(() => {
    journal.run("INSERT INTO meta VALUES ('recovering', '1')");
    journal.run(
      "INSERT INTO versions (id, source, path, size, modified_ms, state, store, generation, found_ms) VALUES (?, 'in', 'x', ?, ?, 'found', 'spool', 1, 0)",
      receipt.version,
      receipt.size,
      receipt.modifiedMs,
    );
  });
  await journal.close();
  world.mkdir("b");
  const run = await runProgram(["run", "--once", "--config", config]);
  assert.equal(run.code, 0, run.out);
  assert.equal(readFileSync(world.path("b/x"), "utf8"), "the only copy");
});
