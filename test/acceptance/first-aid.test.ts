/** What keeps the program from beginning at all, in the words of the program and of doctor: its Node, its state directory, its disk, its configuration's first bytes. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { lockStateDir } from "../../core/installation.js";
import { mainJs, runProgram } from "../faults/process.js";
import { World } from "../faults/world.js";

const local = (dir: string) => ({ type: "local", dir, settle: "0s" });
const needsRoot = process.getuid?.() === 0 ? false : "needs root";
const nobody = 65534;

function worldOf(t: TestContext, more: object = {}) {
  const world = new World(t);
  world.mkdir("out");
  world.file("in/a", "a");
  const config = world.config({ devices: { in: local("in"), out: local("out") }, routes: [{ from: "in", to: ["out"] }], ...more });
  return { world, config };
}

/** What doctor finds bad of a path. */
async function bad(config: string, about: string): Promise<string> {
  const { out } = await runProgram(["doctor", "--json", "--config", config]);
  const { findings } = JSON.parse(out) as { findings: { severity: string; about: string; text: string; todo: string[] }[] };
  return findings
    .filter((one) => one.severity === "bad" && one.about === about)
    .map(({ text, todo }) => [text, ...todo].join("\n"))
    .join("\n");
}

test("an older Node is told so by every command, and nothing of the program is loaded", (t) => {
  const { world } = worldOf(t);
  world.file("old.cjs", `Object.defineProperty(process, "versions", { value: { ...process.versions, node: "18.20.8" } });`);
  const { status, stderr } = spawnSync(process.execPath, ["-r", world.path("old.cjs"), mainJs, "check"], { encoding: "utf8" });
  assert.deepEqual(
    [status, stderr],
    [2, `filesync: FileSync needs Node.js 20.19 or newer; this is 18.20.8 (${process.execPath}). Install a newer one, then try again.\n`],
  );
});

test(
  "root makes nothing in another user's state directory; what it made there before is named, with what to type",
  { skip: needsRoot },
  async (t) => {
    const { world, config } = worldOf(t);
    const state = world.mkdir("state");
    chmodSync(world.dir, 0o755);
    chownSync(state, nobody, nobody);
    const { code, err } = await runProgram(["run", "--once", "--config", config]);
    assert.equal(code, 2);
    assert.match(err, /state belongs to the user with id 65534, who could not use what root makes there: run this as that user/);
    assert.deepEqual(readdirSync(state), []);
    mkdirSync(world.path("out/v"));
    chownSync(world.path("out/v"), nobody, nobody);
    assert.equal((await runProgram(["run", "--once", "--config", config], { uid: nobody, gid: nobody })).code, 0);
    const used = await runProgram(["run", "--config", config]);
    assert.deepEqual([used.code, used.err], [2, err]);
    rmSync(state, { recursive: true });
    mkdirSync(state);
    chownSync(state, 0, 0);
    assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
    chownSync(state, nobody, nobody);
    const told = new RegExp(`${state}/\\S+ belongs to the user with id 0, and its directory to 65534: .*chown -R 65534 ${state}`, "s");
    for (const command of [["status"], ["run", "--once"]]) {
      const as = await runProgram([...command, "--config", config], { uid: nobody, gid: nobody });
      assert.equal(as.code, 2, as.out + as.err);
      assert.match(as.err, told);
    }
    assert.match(await bad(config, `${state}/installation.json`), /belongs to the user with id 0.*\nsudo chown -R 65534/);
    for (const name of readdirSync(state)) chownSync(join(state, name), nobody, nobody);
    mkdirSync(join(state, "devices"), { recursive: true });
    chownSync(join(state, "devices"), 0, 0);
    assert.match(await bad(config, `${state}/devices`), /belongs to the user with id 0.*\nsudo chown -R 65534/);
  },
);

test("a state directory that is a file, a journal of a newer version, and one that is rubbish: doctor says it", async (t) => {
  const { world, config } = worldOf(t);
  const state = world.path("state");
  writeFileSync(state, "");
  assert.match(await bad(config, state), /it is a file, and has to be a directory/);
  rmSync(state);
  assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
  const journal = `${state}/journal.db`;
  assert.equal(await bad(config, journal), "");
  const patch = (at: number, bytes: Buffer) => {
    const fd = openSync(journal, "r+");
    writeSync(fd, bytes, 0, bytes.length, at);
    closeSync(fd);
  };
  patch(60, Buffer.from([0, 0, 0, 99]));
  assert.match(await bad(config, journal), /a newer FileSync wrote it \(format 99; this one knows \d+\)/);
  patch(0, Buffer.from("rubbish"));
  assert.match(await bad(config, journal), /it is damaged/);
});

test("a state directory that can never be one: each command says why and what to do, and check where it is set", async (t) => {
  const world = new World(t);
  world.file("file", "");
  symlinkSync("round", world.path("about"));
  symlinkSync("about", world.path("round"));
  const other = 'set "stateDir" to another directory';
  for (const [stateDir, words, todo] of [
    ["round", "its symbolic links lead in a circle (ELOOP)", other],
    ["round/state", "its symbolic links lead in a circle (ELOOP)", other],
    ["n".repeat(300), "its path, or a name in it, is too long for this system (ENAMETOOLONG)", other],
    ["file", "it is a file, and has to be a directory", `move it away, or ${other}`],
    ["file/state", `${world.path("file")} is a file, and has to be a directory`, other],
  ] as const) {
    const config = world.path("config.json");
    writeFileSync(
      config,
      `{\n  "vehicle": "v",\n  "stateDir": "${stateDir}",\n  "devices": { "in": { "type": "local", "dir": "." } }\n}\n`,
    );
    const said = `${world.path(stateDir)} cannot be used: ${words}; ${todo}`;
    for (const command of [["run", "--once"], ["run"], ["status"]]) {
      const { code, err } = await runProgram([...command, "--config", config]);
      assert.deepEqual([code, err], [2, `filesync: ${said}\n`]);
    }
    const check = await runProgram(["check", "--config", config]);
    assert.deepEqual([check.code, check.out, check.err], [2, `${config}:3: stateDir: ${said}`, ""]);
    const { usable } = JSON.parse((await runProgram(["check", "--json", "--config", config])).out) as { usable: boolean };
    assert.equal(usable, false);
    assert.equal((await runProgram(["ls", "in:", "--config", config])).code, 0);
    assert.match(await bad(config, world.path(stateDir)), new RegExp(words.replace(/[()]/g, ".")));
  }
  const nowhere = await runProgram(["run", "--once", "--config", world.config({ stateDir: "/proc/x", devices: {} })]);
  assert.equal(nowhere.code, 2, nowhere.err);
  assert.match(
    nowhere.err,
    /^filesync: the state directory \/proc\/x cannot be made: .* \/proc; set "stateDir" to a directory elsewhere\n$/,
  );
});

test("what has the name of a thing in the state directory and is another: every command says it at once", async (t) => {
  const { world, config } = worldOf(t);
  const state = world.path("state");
  const says = async (path: string, words: string, todo = "move it away") => {
    for (const command of [["run", "--once"], ["run"], ["status"]]) {
      const { code, out, err } = await runProgram([...command, "--config", config]);
      assert.deepEqual([code, err], [2, `filesync: ${path} cannot be used: ${words}; ${todo}\n`], out);
    }
    assert.match(await bad(config, path), new RegExp(words));
  };
  symlinkSync("nowhere", state);
  await says(state, "it is a link to nowhere, and has to be a directory", 'move it away, or set "stateDir" to another directory');
  rmSync(state);
  assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
  for (const name of ["journal.db", "journal.db-wal", "reserve", "control.sock", "spool"]) {
    const path = `${state}/${name}`;
    const aside = existsSync(path);
    if (aside) renameSync(path, world.path("aside"));
    if (name === "spool") {
      writeFileSync(path, "");
      await says(path, "it is a file, and FileSync keeps a directory there");
    } else {
      mkdirSync(path);
      await says(path, `it is a directory, and FileSync keeps a ${name === "control.sock" ? "socket" : "file"} there`);
    }
    rmSync(path, { recursive: true });
    if (aside) renameSync(world.path("aside"), path);
  }
  renameSync(`${state}/journal.db`, world.path("aside"));
  assert.equal(spawnSync("mkfifo", [`${state}/journal.db`]).status, 0);
  await says(`${state}/journal.db`, "it is a device or pipe, and FileSync keeps a file there");
});

test("who may not write in an empty state directory is told so", { skip: needsRoot }, async (t) => {
  const { world, config } = worldOf(t);
  const state = world.mkdir("state");
  chmodSync(world.dir, 0o755);
  for (const mode of [0o755, 0o700]) {
    chmodSync(state, mode);
    const { code, err } = await runProgram(["run", "--once", "--config", config], { uid: nobody, gid: nobody });
    assert.equal(code, 2, err);
    assert.match(
      err,
      /^filesync: the state directory \S+ cannot be written: permission denied: nobody may not write in \S+: sudo chgrp nogroup .*; or run as a user who may/,
    );
  }
});

test("who has the state directory and may not write there is told its mode, by each command", { skip: needsRoot }, async (t) => {
  const { world, config } = worldOf(t);
  const state = world.mkdir("state");
  chmodSync(world.dir, 0o755);
  for (const dir of ["out", "state"]) chownSync(world.path(dir), nobody, nobody);
  const said = async (...args: string[]) => runProgram([...args, "--config", config], { uid: nobody, gid: nobody });
  assert.equal((await said("run", "--once")).code, 0);
  for (const [path, locked, usual, advice] of [
    [state, 0o555, 0o755, "chmod u+rwx"],
    [`${state}/journal.db`, 0o444, 0o644, "chmod u+rw"],
  ] as const) {
    chmodSync(path, locked);
    for (const args of [["run", "--once"], ["status"], ["retry", "--all"]]) {
      const { code, err } = await said(...args);
      assert.deepEqual(
        [args, code, err],
        [args, 2, `filesync: permission denied: ${path} is yours, and its mode does not let you write: ${advice} ${path}\n`],
      );
    }
    chmodSync(path, usual);
  }
});

test("a full disk: run --once ends, report and init say it and leave nothing behind", { skip: needsRoot }, async (t) => {
  const { world } = worldOf(t);
  world.mkdir("small");
  if (!world.mount("small", 24)) {
    t.skip("no loop devices here");
    return;
  }
  const config = world.config({
    stateDir: "small/state",
    devices: { in: local("in"), out: local("out") },
    routes: [{ from: "in", to: ["out"] }],
  });
  const own = world.path("small/config.json");
  writeFileSync(own, readFileSync(config));
  world.fill("small/ballast");
  const begun = await runProgram(["run", "--once", "--config", config]);
  assert.equal(begun.code, 2, begun.out);
  assert.match(begun.err, /^filesync: the state directory .*small\/state cannot be used: no space is left on the disk of /);
  rmSync(world.path("small/ballast"));
  assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
  world.fill("small/ballast");
  const ran = await runProgram(["run", "--once", "--config", config]);
  assert.equal(ran.code, 3, ran.out + ran.err);
  assert.match(ran.out, /finished, but nothing could be done: .*no space is left/);
  const status = await runProgram(["status", "--config", config]);
  assert.equal(status.code, 0, status.err);
  const out = world.path("small/report.txt");
  const report = await runProgram(["report", "--config", config, "--out", out]);
  assert.deepEqual([report.code, existsSync(out)], [2, false], report.err);
  assert.match(report.err, /report\.txt cannot be written: no space is left/);
  const init = await runProgram(["init", "--yes", "--force", "--config", own]);
  assert.equal(init.code, 2, init.err);
  assert.match(init.err, /^filesync: \S+config\.json\S* cannot be written: no space is left/m);
  assert.equal(existsSync(`${own}.old`), false);
});

test("a byte order mark before a configuration says nothing; UTF-16 is told", async (t) => {
  const { config } = worldOf(t);
  const text = readFileSync(config, "utf8");
  writeFileSync(config, Buffer.from(`\uFEFF${text}`, "utf16le"));
  const wide = await runProgram(["check", "--config", config]);
  assert.equal(wide.code, 2);
  assert.match(wide.out + wide.err, /config\.json:1: this is no text in UTF-8, perhaps one in UTF-16: save it as UTF-8/);
  writeFileSync(config, text);
  writeFileSync(config, `\uFEFF${readFileSync(config, "utf8")}`);
  const { code, out, err } = await runProgram(["check", "--config", config]);
  assert.equal(code, 0, out + err);
});

test("a command that reads the journal has the state directory for a moment: a daemon that starts meanwhile, and another command, wait", async (t) => {
  const { world, config } = worldOf(t);
  assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
  world.file("in/b", "b");
  const lock = await lockStateDir(world.path("state"));
  const [status, ran] = [runProgram(["status", "--json", "--config", config]), runProgram(["run", "--once", "--config", config])];
  await sleep(2000);
  lock.release();
  assert.deepEqual([(await status).code, (await ran).code], [0, 0], (await status).err + (await ran).err);
  assert.ok(existsSync(world.path("out/v/in/b")), (await ran).out);
});

test("a command of onEvent that is not there: doctor says it", async (t) => {
  const { config } = worldOf(t, {
    onEvent: [
      { event: ["delivered"], command: ["/no/such/program", "x"] },
      { event: ["lost"], command: ["/bin/true"] },
    ],
  });
  assert.match(await bad(config, "onEvent"), /^there is no \/no\/such\/program: nothing is run for its events\n/);
});
