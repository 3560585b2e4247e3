/** init and import-legacy, as a person meets them: questions at a terminal, and what was written is run until files arrive. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, lstatSync, readdirSync, readFileSync, renameSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { test, type TestContext } from "node:test";
import { spawn } from "@lydell/node-pty";
import { parse } from "jsonc-parser";
import { expectChangeable } from "../../cli/register.js";
import { freePort, hasOpenssl } from "../conformance/ftp-servers.js";
import { mainJs, Program, runProgram } from "../faults/process.js";
import { World } from "../faults/world.js";

const cursor = new RegExp(String.raw`${String.fromCharCode(27)}\[[0-9;]*[A-Za-z]`, "g");
const noDoor = ["sshd", "rsync", "rrsync", "ssh"].filter(
  (program) => spawnSync("sh", ["-c", `PATH=$PATH:/usr/sbin command -v ${program}`]).status !== 0,
);
const needsDoor =
  !hasOpenssl || noDoor.length > 0 ? { skip: `not installed: ${[...(hasOpenssl ? [] : ["openssl"]), ...noDoor].join(", ")}` } : {};
const needsOpenssl = hasOpenssl ? {} : { skip: "openssl is not installed" };

interface Written {
  vehicle: string;
  stateDir: string;
  devices: Record<string, Record<string, unknown>>;
  routes: Record<string, unknown>[];
  services: Record<string, { users: object }>;
}

const read = (path: string) => parse(readFileSync(path, "utf8"), [], { allowTrailingComma: true }) as Written;

/** Answers what is asked: the first pattern that fits the last line. → all that was seen, and the exit code. */
async function answering(t: TestContext, args: readonly string[], answers: readonly (readonly [RegExp, string])[]) {
  const pty = spawn(process.execPath, [mainJs, ...args], { cols: 250, rows: 40 });
  t.after(() => {
    try {
      pty.kill("SIGKILL");
    } catch {
      // It has ended.
    }
  });
  let seen = "";
  let asked = 0;
  pty.onData((data) => {
    seen += data;
    // Of what came since the last answer, without what moves the cursor.
    const line =
      seen
        .slice(asked)
        .replaceAll(cursor, "")
        .split(/[\r\n]+/)
        .at(-1) ?? "";
    if (!/: $/.test(line)) return;
    const [, answer] = answers.find(([question]) => question.test(line)) ?? [];
    if (answer === undefined) return;
    asked = seen.length;
    pty.write(`${answer}\r`);
  });
  const code = await new Promise<number>((resolve) => pty.onExit(({ exitCode }) => resolve(exitCode)));
  return { code, seen };
}

/** A ground station as `init --ground` makes it, on a free port of this machine, that runs. */
async function groundStation(t: TestContext, world: World, ...vehicles: string[]) {
  world.mkdir("ground");
  const config = world.path("ground/config.json");
  const { code, out, err } = await runProgram([
    "init",
    "--ground",
    "--yes",
    "--config",
    config,
    ...vehicles.flatMap((name) => ["--vehicle", name]),
  ]);
  assert.deepEqual([code, err], [0, ""]);
  const text = readFileSync(config, "utf8");
  writeFileSync(config, text.replace('"0.0.0.0:2121"', '"127.0.0.1:0"').replace(/"passivePorts": "[\d-]+",/, ""));
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  const { facts } = await program.until(({ message }) => message.includes("FTP server listens on"), "it listens");
  return { config, out, port: Number(facts?.["port"]), program };
}

/** All that is said to be wrong with a configuration. */
async function wrongWith(config: string): Promise<string> {
  const { out, err } = await runProgram(["check", "--config", config]);
  return `${out}${err}`.replace(`${config}: nothing is wrong`, "");
}

test("from the questions at a terminal to files on the ground", needsOpenssl, async (t) => {
  const world = new World(t);
  const ground = await groundStation(t, world, "plane-1");
  const password = readFileSync(world.path("ground/credentials/plane-1"), "utf8").trim();
  const path = world.path("ttyDRONE");
  world.file("card/fs/microsd/log/2026-05-01/09_00_00.ulg", "an older log");
  world.file("card/fs/microsd/log/2026-05-02/10_00_00.ulg", "the newest log", 9);
  const sim = new Program(["sim", "--listen", `pty:${path}`, "--dir", world.path("card"), "--link", "none"]);
  t.after(() => sim.kill());
  await sim.until(({ message }) => message.startsWith("listening on"), "the autopilot is there");
  world.mkdir("vehicle");
  const config = world.path("vehicle/config.json");
  const { code, seen } = await answering(
    t,
    ["init", "--config", config],
    [
      [/^Name of this vehicle/, "plane-1"],
      [/^Take the (logs|files)/, "n"],
      [/^Address of the autopilot/, `serial://${path}:57600`],
      [/^Number/, "1"],
      [/^Its name or address/, "127.0.0.1"],
      [/^Its port \[2121\]/, String(ground.port)],
      [/^User \[plane-1\]/, ""],
      [/^Password/, password],
      [/^Is it the one\?/, "y"],
    ],
  );
  assert.equal(code, 0, seen);
  assert.match(seen, /PX4 answers there/);
  assert.ok(!seen.includes(password), "the password is not shown");
  const fingerprint = /"fingerprint": "(SHA256:[^"]+)"/.exec(ground.out)?.[1] ?? "";
  assert.ok(fingerprint !== "" && seen.includes(fingerprint), "the one that the ground station said");
  assert.equal(await wrongWith(config), "");
  const written = read(config);
  assert.deepEqual(written.devices.autopilot, { type: "mavftp", url: `serial://${path}:57600` });
  assert.deepEqual(written.devices.ground?.password, { credential: "ground" });
  assert.deepEqual(written.devices.ground?.tls, { fingerprint });
  assert.match(readFileSync(config, "utf8"), /\/\/ A flight controller with PX4\. Its logs are in \/fs\/microsd\/log: .*docs\/mavftp\.md/);
  assert.equal(statSync(world.path("vehicle/credentials/ground")).mode & 0o777, 0o600);
  assert.deepEqual(readdirSync(world.path("vehicle")).sort(), ["config.json", "credentials"], "nothing else is left");
  const run = await runProgram(["run", "--once", "--json", "--config", config]);
  assert.equal(run.code, 0, `${run.out}\n${run.err}`);
  const arrived = world.path("ground/files/plane-1/autopilot");
  assert.equal(readFileSync(`${arrived}/2026-05-01/09_00_00.ulg`, "utf8"), "an older log");
  assert.equal(readFileSync(`${arrived}/2026-05-02/10_00_00.ulg`, "utf8"), "the newest log");
});

test(
  "the lines that the ground prints are all that a vehicle needs; another vehicle is added without a comment lost",
  needsOpenssl,
  async (t) => {
    const world = new World(t);
    const ground = await groundStation(t, world, "plane-1");
    const { config } = ground;
    writeFileSync(config, readFileSync(config, "utf8").replace('"users": {', '"users": {\n        // the old one'));
    const before = readFileSync(config, "utf8");
    const again = await runProgram(["init", "--ground", "--yes", "--config", config, "--vehicle", "plane-2"]);
    assert.equal(again.code, 0, again.err);
    const after = readFileSync(config, "utf8");
    assert.equal(
      after,
      before.replace(
        '"plane-1": { "password": { "credential": "plane-1" } }',
        '"plane-1": { "password": { "credential": "plane-1" } },\n        "plane-2": { "password": { "credential": "plane-2" } }',
      ),
    );
    assert.equal(await wrongWith(config), "");
    const third = await runProgram(["init", "--ground", "--yes", "--config", config, "--vehicle", "plane-2"]);
    assert.match(third.out, /plane-2 is a user already/);
    assert.equal(readFileSync(config, "utf8"), after);
    // A copy of this card: its certificate went with --prepare-image.
    const fingerprintIn = (text: string) => /"fingerprint": "(SHA256:[^"]+)"/.exec(text)?.[1];
    for (const name of ["ftp.crt", "ftp.key"]) renameSync(world.path("ground/certs", name), world.path(`ground/${name}`));
    const copy = await runProgram(["init", "--ground", "--yes", "--config", config]);
    assert.match(copy.out, /Made: .*ftp\.crt and its key/);
    assert.equal(await wrongWith(config), "");
    assert.ok(fingerprintIn(copy.out) !== undefined && fingerprintIn(copy.out) !== fingerprintIn(ground.out), "another certificate");
    for (const name of ["ftp.crt", "ftp.key"]) renameSync(world.path(`ground/${name}`), world.path("ground/certs", name));
    // The running server does not know the second one yet: it is plane-1 that sends.
    const lines = /\n {2}("ground": \{[^]*?\n {2}\})/.exec(ground.out)?.[1] ?? "";
    const password = /its password, into credentials\/ground there: (\S{24})\n/.exec(ground.out)?.[1] ?? "";
    assert.doesNotMatch(password, /[0O1lI5S2Z8B]/);
    assert.equal(statSync(world.path("ground/certs/ftp.key")).mode & 0o777, 0o640);
    world.file("in/a.ulg", "content");
    world.mkdir("credentials");
    writeFileSync(world.path("credentials/ground"), password);
    const vehicle = world.config({
      devices: { in: { type: "local", dir: "in" }, ...(parse(`{${lines}}`) as object) },
      routes: [{ from: "in", to: ["ground"], into: "{device}" }],
    });
    const here = readFileSync(vehicle, "utf8").replace(/"host":"[^"]+","port":2121/, `"host":"127.0.0.1","port":${ground.port}`);
    writeFileSync(vehicle, here);
    const run = await runProgram(["run", "--once", "--json", "--config", vehicle]);
    assert.equal(run.code, 0, `${run.out}\n${run.err}`);
    assert.equal(readFileSync(world.path("ground/files/plane-1/in/a.ulg"), "utf8"), "content");
    // Another certificate is not believed.
    world.file("in/b.ulg", "more");
    writeFileSync(vehicle, here.replace(/SHA256:..../, "SHA256:AAAA"));
    const refused = await runProgram(["run", "--once", "--json", "--config", vehicle]);
    assert.equal(refused.code, 3);
    assert.ok(!existsSync(world.path("ground/files/plane-1/in/b.ulg")));
  },
);

test(
  "a station with a registry: what it prints registers a vehicle, and one that sends by FTP is added to it later",
  needsDoor,
  async (t) => {
    const world = new World(t);
    world.mkdir("ground");
    const config = world.path("ground/config.json");
    const init = (...more: string[]) => runProgram(["init", "--ground", "--registry", "--yes", "--config", config, ...more]);
    const first = await init();
    assert.deepEqual([first.code, first.err], [0, ""]);
    assert.deepEqual(Object.keys(read(config).services), ["ftp", "registry"]);
    assert.equal(await wrongWith(config), "");
    const text = readFileSync(config, "utf8");
    assert.match((await init()).out, /the registry is there already, and stays as it is\n.*stays as it is/);
    assert.equal(readFileSync(config, "utf8"), text);
    const second = await init("--vehicle", "plane-2");
    assert.deepEqual([second.code, second.err], [0, ""]);
    assert.deepEqual(Object.keys(read(config).services["ftp"]?.users ?? {}), ["plane-2"]);
    assert.equal(await wrongWith(config), "");

    const ftpPort = await freePort();
    const here = text
      .replace('"0.0.0.0:8443"', '"127.0.0.1:0"')
      .replace('"0.0.0.0:2222"', '"127.0.0.1:0"')
      .replace(/"passivePorts": "[\d-]+",/, "");
    writeFileSync(
      config,
      here.replace('"0.0.0.0:2121"', `"127.0.0.1:${ftpPort}"`).replace('"ftp": { "usersFile"', `"ftp": { "port": ${ftpPort}, "usersFile"`),
    );
    const ground = new Program(["run", "--json", "--config", config]);
    t.after(() => ground.kill());
    const { facts } = await ground.until((event) => event.facts?.["doorPort"] !== undefined, "the registry's start");
    const typed = /register --server \S+ --fingerprint (\S+) --email YOU@EXAMPLE.ORG --vehicle NAME\n/.exec(first.out);
    const order = (...words: string[]) => runProgram(["registry", ...words, "--config", config, "--json"]);
    assert.match(first.out, /\n {2}filesync registry list --config .*\n {2}filesync registry confirm REGISTRATION --config /);
    world.mkdir("in");
    const vehicle = world.config({ devices: { in: { type: "local", dir: "in", settle: "0s" } }, routes: [] });
    const registering = runProgram([
      ...["register", "--server", `https://127.0.0.1:${String(facts?.["port"])}`, "--fingerprint", typed?.[1] ?? ""],
      ...["--email", "you@example.org", "--vehicle", "plane-1", "--config", vehicle],
    ]);
    let waits = "";
    while (waits === "") {
      const { waiting } = JSON.parse((await order("list")).out) as { waiting: { id: string }[] };
      waits = waiting[0]?.id ?? "";
    }
    assert.equal((await order("confirm", waits)).code, 0);
    const registered = await registering;
    assert.deepEqual([registered.code, registered.err], [0, ""]);
    world.file("in/a.ulg", "content");
    const run = await runProgram(["run", "--once", "--json", "--config", vehicle]);
    assert.equal(run.code, 0, `${run.out}\n${run.err}`);
    const arrived = readdirSync(world.path("ground/vehicles"), { recursive: true }).filter((name) => String(name).endsWith("/in/a.ulg"));
    assert.equal(arrived.length, 1);
  },
);

test("a password that is gone is not said to be there: a new one is made for the vehicle that is named", needsOpenssl, async (t) => {
  const world = new World(t);
  const init = async (...vehicles: string[]) => {
    const given = vehicles.flatMap((name) => ["--vehicle", name]);
    const { code, out, err } = await runProgram(["init", "--ground", "--yes", "--config", world.path("config.json"), ...given]);
    assert.deepEqual([code, err], [0, ""]);
    return out;
  };
  await init("a", "b");
  const [a, b] = [world.path("credentials/a"), world.path("credentials/b")];
  const before = readFileSync(world.path("config.json"), "utf8");
  const old = readFileSync(a, "utf8");
  rmSync(a);
  const listed = await init();
  assert.ok(listed.includes(`there: ${a} is missing here`) && listed.includes('"filesync init --ground --yes --vehicle a" makes'), listed);
  assert.ok(listed.includes(`there: what ${b} has here`), listed);
  assert.ok(!existsSync(a));
  // An empty one would let everybody in.
  writeFileSync(a, "\n");
  assert.ok((await wrongWith(world.path("config.json"))).includes(`a secret in ${a}; it is empty`));
  for (const empty of ["\n", ""]) {
    writeFileSync(a, empty);
    assert.ok((await init()).includes(`there: ${a} is empty here`));
  }
  const made = await init("a", "b");
  const password = readFileSync(a, "utf8");
  assert.notEqual(password, old);
  assert.equal(statSync(a).mode & 0o777, 0o600);
  assert.match(
    made,
    /a is a user already, but its password was not there any more: .* has a new one, and the one before is good no longer\nb is a user already, and stays/,
  );
  assert.ok(made.includes(`there: ${password}`), made);
  assert.ok(made.includes(`there: what ${b} has here`), made);
  assert.equal(readFileSync(world.path("config.json"), "utf8"), before);
  assert.equal(await wrongWith(world.path("config.json")), "");
  // Another name of the file, and a password that is in none.
  writeFileSync(
    world.path("config.json"),
    before.replace('"credential": "a"', '"credential": "of-a"').replace('{ "credential": "b" }', '"secret"'),
  );
  const others = await init("a", "b");
  assert.ok(others.includes(`there: ${readFileSync(world.path("credentials/of-a"), "utf8")}`), others);
  assert.ok(others.includes(`there: the one that ${world.path("config.json")} has`), others);
});

test("a configuration that is a link to where it is kept stays one: what changes is changed there", needsOpenssl, async (t) => {
  const world = new World(t);
  const config = world.path("config.json");
  const init = async (...given: string[]) => {
    const { code, err } = await runProgram(["init", "--ground", "--yes", "--config", config, ...given]);
    assert.deepEqual([code, err], [0, ""]);
  };
  await init("--vehicle", "a");
  world.mkdir("checkout");
  const kept = world.path("checkout/config.json");
  renameSync(config, kept);
  symlinkSync(kept, config);
  const before = readFileSync(kept, "utf8");
  await init("--vehicle", "b");
  assert.ok(lstatSync(config).isSymbolicLink() && readFileSync(kept, "utf8").includes('"b": {'));
  await init("--vehicle", "c", "--force");
  assert.ok(lstatSync(config).isSymbolicLink() && readFileSync(kept, "utf8").includes('"c": {'));
  assert.ok(readFileSync(`${kept}.old`, "utf8").startsWith(before.slice(0, 100)));
});

test("a configuration that is a link to what is not there, as on a disk that is not mounted, is told, and nothing is made", async (t) => {
  const world = new World(t);
  const config = world.path("config.json");
  symlinkSync(world.path("disk/config.json"), config);
  const before = readdirSync(world.dir);
  for (const words of [["init", "--yes"], ["init", "--yes", "--ground", "--vehicle", "a"], ["run", "--once"], ["status"]]) {
    const { code, out, err } = await runProgram([...words, "--config", config]);
    assert.deepEqual([code, out], [2, ""], err);
    assert.equal(
      err,
      `filesync: ${config} is a link to ${world.path("disk/config.json")}, which is not there: mount or make that, or remove the link\n`,
    );
  }
  assert.deepEqual(readdirSync(world.dir), before);
});

test("a ground station's certificate that is not there is told before anything is changed", needsOpenssl, async (t) => {
  const world = new World(t);
  const config = world.path("config.json");
  const init = (name: string) => runProgram(["init", "--ground", "--yes", "--config", config, "--vehicle", name]);
  assert.equal((await init("a")).code, 0);
  writeFileSync(config, readFileSync(config, "utf8").replace('"certs/ftp.crt"', '"other.crt"'));
  const before = readFileSync(config, "utf8");
  for (const [why, words] of [
    ["absent", "is not there"],
    ["no certificate", "cannot be read ("],
  ] as const) {
    if (why !== "absent") writeFileSync(world.path("other.crt"), why);
    const { code, out, err } = await init("b");
    assert.deepEqual([code, out], [2, ""], err);
    assert.ok(err.includes(`${world.path("other.crt")}, the certificate that vehicles are to believe, ${words}`), err);
    assert.equal(readFileSync(config, "utf8"), before);
    assert.ok(!existsSync(world.path("credentials/b")));
  }
});

test("without a terminal it asks nobody; over another configuration only with --force, and that is kept", async (t) => {
  const world = new World(t);
  const config = world.path("config.json");
  const silent = await runProgram(["init", "--config", config]);
  assert.deepEqual(
    [silent.code, silent.err],
    [2, "filesync: init asks questions, and there is no terminal here: --yes takes the default of each\n"],
  );
  assert.ok(!existsSync(config));
  writeFileSync(config, "{}", { mode: 0o604 });
  const refused = await runProgram(["init", "--yes", "--config", config]);
  assert.equal(refused.code, 2);
  assert.match(refused.err, /config\.json is there already: --force writes a new one, and keeps this one as .*config\.json\.old/);
  assert.equal(readFileSync(config, "utf8"), "{}");
  const forced = await runProgram(["init", "--yes", "--force", "--vehicle", "plane-7", "--config", config]);
  assert.equal(forced.code, 0, forced.err);
  assert.ok(forced.out.includes(`begin anew, with all plugged in: filesync init --force --config ${config}`), forced.out);
  assert.equal(readFileSync(`${config}.old`, "utf8"), "{}");
  assert.equal(read(config).vehicle, "plane-7");
  assert.equal(statSync(config).mode & 0o777, 0o604, "its rights stay");
  assert.equal(await wrongWith(config), "");
  const twice = await runProgram(["init", "--yes", "--force", "--config", config]);
  assert.equal(twice.code, 0, twice.err);
  assert.equal(readFileSync(`${config}.old.2`, "utf8"), "{}", "the first one is still there");
});

test("on a read-only file system, where root can write no more than others, it says so in words", async (t) => {
  const world = new World(t);
  if (!world.mount("etc", 64)) {
    t.skip("nothing can be mounted here");
    return;
  }
  const etc = world.path("etc");
  assert.equal(spawnSync("mount", ["-o", "remount,ro", etc]).status, 0);
  const { code, err } = await runProgram(["init", "--yes", "--config", world.path("etc/config.json")]);
  assert.deepEqual(
    [code, err],
    [2, `filesync: nothing can be written in ${etc}: the file system is read-only; name another place with --config FILE\n`],
  );
  const config = world.path("etc/config.json");
  await assert.rejects(expectChangeable(config), { message: `${config} cannot be changed: the file system is read-only` });
});

test("what the installation wrote says nothing, and is replaced without --force", async (t) => {
  const world = new World(t);
  const config = world.path("config.json");
  writeFileSync(config, readFileSync(new URL("../../../deploy/empty.config.json", import.meta.url)));
  assert.equal(await wrongWith(config), "");
  const { code, err } = await runProgram(["init", "--yes", "--config", config]);
  assert.equal(code, 0, err);
  assert.deepEqual(readdirSync(world.dir), ["config.json"]);
  assert.equal(read(config).stateDir, "state");
});

test("Ctrl-C at a question, and the end of the input, write nothing", async (t) => {
  const world = new World(t);
  const config = world.path("config.json");
  const stopped = await answering(t, ["init", "--config", config], [[/^Name of this vehicle/, "\x03"]]);
  assert.equal(stopped.code, 130, stopped.seen);
  const ended = await answering(t, ["init", "--config", config], [[/^Name of this vehicle/, "\x04"]]);
  assert.equal(ended.code, 2, ended.seen);
  assert.match(ended.seen, /the questions were not answered to the end: nothing was written/);
  assert.deepEqual(readdirSync(world.dir), []);
});

test("nothing typed where an answer is needed is refused with the reason, and asked again, but not for ever; the end of the input ends it", async (t) => {
  const world = new World(t);
  const config = world.path("config.json");
  const questions = (password: string) =>
    [
      [/^Name of this vehicle/, "plane-1"],
      [/^Take the (logs|files)/, "n"],
      [/^Address of the autopilot/, ""],
      [/^Number/, "1"],
      [/^Its name or address/, "127.0.0.1"],
      [/^Its port/, "1"],
      [/^User/, ""],
      [/^Password/, password],
    ] as const;
  const empty = await answering(t, ["init", "--config", config], questions(""));
  assert.equal(empty.code, 2, empty.seen);
  assert.equal(empty.seen.match(/Password \(it is not shown\)/g)?.length, 3);
  assert.match(empty.seen, /an answer is needed: an empty password is none/);
  assert.match(empty.seen, /Password: 3 times nothing was typed where an answer is needed; nothing was written/);
  const host = await answering(t, ["init", "--config", config], [...questions("").slice(0, 4), [/^Its name or address/, ""]]);
  assert.equal(host.code, 2, host.seen);
  assert.match(host.seen, /Its name or address: 3 times nothing was typed/);
  const ended = await answering(t, ["init", "--config", config], questions("\x04"));
  assert.equal(ended.code, 2, ended.seen);
  assert.match(ended.seen, /the questions were not answered to the end: nothing was written/);
  assert.deepEqual(readdirSync(world.dir), []);
});

test("openssl that is missing is named with its package, and nothing is written", async (t) => {
  const world = new World(t);
  const { code, err } = await runProgram(["init", "--ground", "--yes", "--config", world.path("config.json")], {
    env: { ...process.env, PATH: world.dir },
  });
  assert.equal(code, 2);
  assert.match(err, /openssl is missing.*apt install openssl/);
  assert.deepEqual(readdirSync(world.dir), []);
});

test("import-legacy: the old configuration, run until its file arrives; what it cannot take over is said", async (t) => {
  const world = new World(t);
  world.file("old/temp/source/files/left.txt", "left");
  world.file("old/temp/source/a/log.ulg", "log");
  world.mkdir("old/temp/target");
  const place = (dir: string) => ({ device: "device_local", args: { mount_point: dir } });
  const old = {
    gui: false,
    mover_count: 4,
    rules: { include: ["*"], exclude: ["/files/*"] },
    source: place("./temp/source"),
    target: place("./temp/target"),
  };
  writeFileSync(world.path("old/config.json"), JSON.stringify(old));
  const config = world.path("config.json");
  const made = await runProgram(["import-legacy", world.path("old/config.json"), "--config", config]);
  assert.equal(made.code, 3, made.err);
  assert.match(made.out, /Not taken over:\n {2}"mover_count": how many files move at once/);
  assert.match(readFileSync(config, "utf8"), /\/\/ Not taken over: "mover_count"/);
  assert.equal(await wrongWith(config), "");
  const run = await runProgram(["run", "--once", "--json", "--config", config]);
  assert.equal(run.code, 0, `${run.out}\n${run.err}`);
  assert.deepEqual(readdirSync(world.path("old/temp/target")), ["a"]);
  assert.equal(readFileSync(world.path("old/temp/target/a/log.ulg"), "utf8"), "log");
  const over = await runProgram(["import-legacy", world.path("old/config.json"), "--config", config]);
  assert.equal(over.code, 2);
  assert.match(over.err, /is there already, and is not replaced/);
});

test("import-legacy: a piece of the old documentation, with its password in a file of its own; what is no such file", async (t) => {
  const world = new World(t);
  const piece = '"target": {\n "device_class": "FTP",\n "args": { "host": "192.168.20.131", "user": "test-1", "passwd": "passwd" }\n},';
  writeFileSync(world.path("piece.txt"), piece);
  const config = world.path("config.json");
  const made = await runProgram(["import-legacy", world.path("piece.txt"), "--config", config]);
  assert.equal(made.code, 0, made.err);
  assert.deepEqual(read(config).devices.target?.password, { credential: "target" });
  assert.equal(readFileSync(world.path("credentials/target"), "utf8"), "passwd\n");
  assert.equal(await wrongWith(config), "");
  writeFileSync(world.path("marked.txt"), `\uFEFF${piece}`);
  world.mkdir("marked");
  const marked = await runProgram(["import-legacy", world.path("marked.txt"), "--config", world.path("marked/config.json")]);
  assert.equal(marked.code, 0, marked.err);
  writeFileSync(world.path("other.json"), '{ "a": 1 }');
  const other = await runProgram(["import-legacy", world.path("other.json"), "--config", world.path("x.json")]);
  assert.equal(other.code, 2);
  assert.match(other.err, /holds no configuration of the old FileSync/);
  const none = await runProgram(["import-legacy", world.path("none.json"), "--config", world.path("x.json")]);
  assert.equal(none.err.trim(), `filesync: cannot read ${world.path("none.json")}: there is no such file or directory`);
  writeFileSync(world.path("torn.json"), '{\n  "source": {\n    "device" }\n}');
  writeFileSync(world.path("torn.txt"), '"source": {\n  "device": "device_local",\n  "args" {}\n},');
  for (const [name, place] of [
    ["torn.json", `${world.path("torn.json")}:3: this is no JSON: colon expected (column 14)`],
    ["torn.txt", `${world.path("torn.txt")}:3: this is no JSON: colon expected (column 10)`],
  ] as const) {
    const torn = await runProgram(["import-legacy", world.path(name), "--config", world.path("x.json")]);
    assert.equal(torn.code, 2);
    assert.equal(torn.err.trim(), `filesync: ${place}; nor is it ftp_server.py`);
  }
});

test("import-legacy: what cannot be used is left out and said, with its place in the old file; the rest is taken over", async (t) => {
  const world = new World(t);
  const local = (dir: string) => ({ device: "device_local", args: { dir } });
  const worker = (name: string, source: object, target: object) => ({ name, source, target });
  const ftp = { device: "device_ftp", args: { host: "ftp://10.0.0.1", user: "u", passwd: "secret" } };
  const post = { device: "device_post", args: { uploader_url: "logs.px4.io/upload" } };
  const workers = [
    worker("good", local("./a"), local("./b")),
    worker("bad", local("./a"), ftp),
    worker("inside", local("./a"), local("./a/in")),
    worker("up", local("./a"), post),
  ];
  const old = world.path("old.json");
  writeFileSync(old, JSON.stringify({ workers }, null, 1));
  const line = (words: string) => readFileSync(old, "utf8").split(words)[0]?.split("\n").length ?? 0;
  const config = world.path("n.json");
  const { code, out, err } = await runProgram(["import-legacy", old, "--config", config]);
  assert.deepEqual([code, err], [3, ""]);
  for (const words of [
    `worker bad: the target (ftp): expected a host name or an address: no URL, no user, no spaces, got "ftp://10.0.0.1" (${old}:${line("ftp://")})`,
    `worker up: the target (post): expected a URL that begins with "https://" or "http://", got "logs.px4.io/upload" (${old}:${line("logs.px4")})`,
  ])
    assert.ok(out.includes(`  ${words}\n`), out);
  assert.match(out, new RegExp(`worker inside: .*target-3 is in source .*\\(${old}:${line('"inside"') - 1}\\)\n`));
  assert.equal(await wrongWith(config), "");
  assert.deepEqual(
    read(config).routes.map(({ from, to }) => [from, to]),
    [["source", ["target"]]],
  );
  assert.ok(!existsSync(world.path("credentials")), "nor its password");
  writeFileSync(world.path("one.json"), JSON.stringify({ target: ftp }));
  const none = await runProgram(["import-legacy", world.path("one.json"), "--config", world.path("x.json")]);
  assert.equal(none.code, 2);
  assert.match(none.err, /nothing of .*one\.json can be used:\nthe target \(ftp\): expected a host name .*one\.json:1\)\n$/);
});

test("a command that is printed can be typed, whatever the directory is called", async (t) => {
  const world = new World(t);
  const dir = "sp ace's $HOME";
  world.mkdir(dir);
  const config = world.path(dir, "config.json");
  const typed = (words: string) => {
    const named = `filesync() { "${process.execPath}" "${mainJs}" "$@"; }`;
    const { status, stdout, stderr } = spawnSync("sh", ["-c", `${named}; ${words}`], { encoding: "utf8", cwd: world.dir });
    return { status, out: stdout + stderr };
  };
  const missing = await runProgram(["check", "--config", config]);
  const makes = /"(filesync init --config .*)" makes one/.exec(missing.err)?.[1] ?? "";
  const made = typed(`${makes} --yes`);
  assert.equal(made.status, 0, `${missing.err}${made.out}`);
  const next = / {2}(filesync check .*)\n/.exec(made.out)?.[1] ?? "";
  const checked = typed(next);
  assert.ok(checked.out.includes(`${config}: nothing is wrong`), `${next}: ${checked.out}`);
});
