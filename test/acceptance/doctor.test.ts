/** doctor, as a person meets it: a port that another program has, a daemon that runs, an ordinary user, a certificate that ends, broken configurations. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, chownSync, existsSync, readFileSync, readdirSync, realpathSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import type { Finding } from "../../cli/doctor/finding.js";
import { openDatabase } from "../../core/sqlite.js";
import { parseFingerprint } from "../../core/net.js";
import { openTransport } from "../../sim/transport.js";
import { hasOpenssl, selfSigned } from "../conformance/ftp-servers.js";
import { Program, runProgram } from "../faults/process.js";
import { World } from "../faults/world.js";

const local = (dir: string, more = {}) => ({ type: "local", dir, ...more });
const needsOpenssl = hasOpenssl ? {} : { skip: "openssl is not installed" };

async function doctor(config: string, options: Parameters<typeof runProgram>[1] = {}) {
  const { code, out, err } = await runProgram(["doctor", "--json", "--config", config], options);
  const said = (out === "" ? { findings: [] } : JSON.parse(out)) as { findings: Finding[] };
  const of = (severity: Finding["severity"], family?: Finding["family"]) =>
    said.findings
      .filter((one) => one.severity === severity && (family === undefined || one.family === family))
      .map(({ about, text, todo }) => `${about}: ${text} [${todo.join(" | ")}]`);
  return { code, err, of };
}

test("a port that another program has is bad, with that program's name and what to do", async (t) => {
  const world = new World(t);
  const path = world.path("ttyDRONE");
  const transport = await openTransport(`pty:${path}`, () => () => undefined);
  t.after(() => transport.close());
  const config = world.config({ devices: { pixhawk: { type: "mavftp", url: `serial://${path}:57600` } } });
  const holder = spawn("bash", ["-c", `exec 5<>"$1"; echo held; exec -a mavproxy.py sleep 600`, "bash", path], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  t.after(() => holder.kill("SIGKILL"));
  await once(holder.stdout, "data");
  const { code, of } = await doctor(config);
  assert.equal(code, 3);
  const bad = of("bad", "serial");
  assert.equal(bad.length, 1, bad.join("\n"));
  assert.match(
    bad[0] ?? "",
    new RegExp(`^pixhawk: .*ttyDRONE is used by mavproxy\\.py \\(process ${holder.pid ?? 0}\\).*--out=udpout:127\\.0\\.0\\.1:14551`),
  );
  assert.ok(existsSync(realpathSync(path)), "the port is still there");
  const text = (await runProgram(["doctor", "--config", config])).out;
  assert.match(text, /^BAD {5}pixhawk: .*\n {10}ps -p \d+ -o pid,user,args\n/);
  assert.match(text, /\n\d+ bad, \d+ to look at(, \d+ could not be seen)?$/);
});

test("with a daemon, and without one: what it says of it; nothing is made or changed", async (t) => {
  const world = new World(t);
  world.mkdir("out");
  world.file("in/a.ulg", "content");
  const config = world.config({ devices: { in: local("in"), out: local("out") }, routes: [{ from: "in", to: ["out"] }] });
  const before = await doctor(config);
  assert.equal(before.code, 0, before.of("bad").join("\n"));
  assert.match(before.of("warn", "daemon").join(), /none runs with .*state: nothing is found or delivered/);
  assert.deepEqual(readdirSync(world.dir).sort(), ["config.json", "in", "out"], "no state directory was made");
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what }) => what === "delivered", "it arrived");
  const { code, of } = await doctor(config);
  assert.equal(code, 0, of("bad").join("\n"));
  assert.match(of("ok", "daemon").join(), /it runs: everything that was found is delivered/);
  assert.deepEqual(of("ok", "devices").sort(), ["in: works []", "out: works []"]);
});

test("a journal that is damaged behind its beginning is told, with a daemon and without one, and what is typed about it mends it", async (t) => {
  const world = new World(t);
  world.mkdir("out");
  for (let n = 0; n < 300; n++) world.file(`in/${"long/".repeat(20)}${n}.ulg`, `content ${n}`);
  const config = world.config({ devices: { in: local("in"), out: local("out") }, routes: [{ from: "in", to: ["out"] }] });
  const path = world.path("state/journal.db");
  const once = () => runProgram(["run", "--once", "--config", config]);
  const temporary = world.mkdir("tmp");
  const ofJournal = async () => {
    const { of } = await doctor(config, { env: { ...process.env, TMPDIR: temporary } });
    assert.deepEqual(readdirSync(temporary), []);
    return (["bad", "unseen"] as const).flatMap((one) => of(one, "space")).join("\n");
  };
  assert.equal((await once()).code, 0);
  assert.equal(await ofJournal(), "");
  const whole = readFileSync(path);
  const db = await openDatabase(path);
  const { page } = db.prepare("SELECT rootpage AS page FROM disk.sqlite_master WHERE name = 'versions_gone'").get() as { page: number };
  db.close();
  const damaged = Buffer.from(readFileSync(path)).fill(0xa5, (page - 1) * 4096, page * 4096);
  writeFileSync(path, damaged);
  const told =
    /^.*journal\.db: it is damaged \(.*page.*\) \[sudo systemctl stop filesync \| (sudo mv \S+journal\.db \S+; sudo rm -f \S+-wal) \|/;
  const found = await ofJournal();
  assert.match(found, told);
  assert.deepEqual(readFileSync(path), damaged, "nothing is changed");
  writeFileSync(path, whole);
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what }) => what === "ready", "it runs");
  assert.equal(await ofJournal(), "");
  writeFileSync(path, damaged);
  assert.match(await ofJournal(), told);
  await program.kill();
  const [, typed = ""] = told.exec(found) ?? [];
  execFileSync("sh", ["-c", typed.replaceAll("sudo ", "")]);
  const again = await once();
  assert.equal(again.code, 0, again.out);
  assert.equal(await ofJournal(), "");
});

test("what the daemon cannot use is not well because root can", async (t) => {
  if (process.getuid?.() !== 0) {
    t.skip("only root runs the daemon as another user");
    return;
  }
  const world = new World(t);
  chmodSync(world.dir, 0o755);
  world.file("home/logs/a.ulg", "content");
  chmodSync(world.path("home"), 0o700);
  chownSync(world.mkdir("state"), 65534, 65534);
  const config = world.config({ devices: { in: local("home/logs") }, routes: [] });
  const program = new Program(["run", "--json", "--config", config], { uid: 65534, gid: 65534, cwd: "/" });
  t.after(() => program.kill());
  await program.until(({ what }) => what === "detached", "that it says so");
  const { code, of } = await doctor(config);
  assert.equal(code, 3);
  assert.deepEqual(of("ok", "devices"), []);
  assert.match(of("bad", "devices").join(), /^in: nobody may not use .*logs: no right to enter .*home \[namei -l .*\]$/);
});

test("who has the socket in the state directory is the daemon: to an ordinary user beside it nothing is said of chown", async (t) => {
  if (process.getuid?.() !== 0) {
    t.skip("only root runs the program as another user");
    return;
  }
  const world = new World(t);
  chmodSync(world.dir, 0o755);
  world.mkdir("in");
  const config = world.config({ devices: { in: local("in") }, routes: [] });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what }) => what === "attached", "it runs");
  for (const mode of [0o750, 0o755]) {
    chmodSync(world.path("state"), mode);
    const { of } = await doctor(config, { uid: 65534, gid: 65534, cwd: "/" });
    assert.deepEqual(of("bad", "space"), []);
    assert.match(of("unseen", "daemon").join(), /permission denied for .*control\.sock/);
    assert.doesNotMatch([...of("bad"), ...of("warn"), ...of("unseen")].join("\n"), /EACCES|chown/);
  }
});

test("root looks at all devices at once where another user has the state directory, and leaves nothing behind", async (t) => {
  if (process.getuid?.() !== 0) {
    t.skip("only root acts as another user");
    return;
  }
  const world = new World(t);
  chmodSync(world.dir, 0o755);
  const nobody = { uid: 65534, gid: 65534, cwd: "/" };
  chownSync(world.mkdir("state"), nobody.uid, nobody.gid);
  const config = world.config({ devices: { in: local(world.mkdir("in")) }, routes: [] });
  assert.equal((await runProgram(["run", "--once", "--config", config], nobody)).code, 0);
  world.file("key", "no key");
  const server = { type: "rsync", host: "127.0.0.1", port: 1, user: "u", privateKey: "key", hostKey: `SHA256:${"A".repeat(43)}` };
  // None takes long: each that is done while root is another user cannot take away what it made.
  const servers = Object.fromEntries(Array.from({ length: 8 }, (_, n) => [`server-${n}`, server]));
  world.config({ devices: { in: local("in"), ...servers }, routes: [] });
  const temporary = world.mkdir("tmp");
  const { of } = await doctor(config, { env: { ...process.env, TMPDIR: temporary } });
  assert.deepEqual([of("unseen", "devices"), of("unseen", "space")], [[], []]);
  assert.deepEqual(of("ok", "devices"), ["in: works []"]);
  assert.doesNotMatch([...of("bad"), ...of("warn")].join("\n"), /EACCES/);
  assert.deepEqual(readdirSync(temporary), []);
});

test("a configuration in a directory that may not be looked into is there: who may not read it is told so", async (t) => {
  if (process.getuid?.() !== 0) {
    t.skip("only root runs the program as another user");
    return;
  }
  const world = new World(t);
  world.config({});
  chmodSync(world.dir, 0o700);
  for (const command of ["status", "ready", "doctor"]) {
    const { code, out, err } = await runProgram([command], { uid: 65534, gid: 65534, cwd: world.dir });
    assert.equal(code, 2);
    assert.match(out + err, /config\.json cannot be read: permission denied; use sudo, or log in again/, command);
  }
});

test("a secret that only root may read is no mistake: who asks is told that it is not for them, and who can tell", async (t) => {
  if (process.getuid?.() !== 0) {
    t.skip("only root runs the program as another user");
    return;
  }
  const world = new World(t);
  chmodSync(world.dir, 0o755);
  chownSync(world.mkdir("in"), 65534, 65534);
  chownSync(world.mkdir("state"), 65534, 65534);
  writeFileSync(world.path("file.secret"), "p", { mode: 0o600 });
  world.file("credentials/g", "p");
  chmodSync(world.path("credentials"), 0o700);
  const ftp = (password: object) => ({ type: "ftp", host: "127.0.0.1", port: 1, user: "u", password });
  const config = world.config({
    devices: { in: local("in"), g: ftp({ credential: "g" }), h: ftp({ file: "file.secret" }) },
    routes: [{ from: "in", to: ["g", "h"] }],
  });
  const { code, of } = await doctor(config, { uid: 65534, gid: 65534, cwd: "/" });
  assert.deepEqual(of("bad"), []);
  assert.equal(code, 0);
  const closed = (name: string, file: string) =>
    `${config}: 1: devices.${name}.password: expected the secret in ${world.path(file)}, which this user may not read; root's doctor tells whether it is right (sudo filesync doctor) [sudo filesync doctor]`;
  assert.deepEqual(of("unseen", "configuration"), [closed("g", "credentials/g"), closed("h", "file.secret")]);
  const root = await doctor(config);
  assert.deepEqual(root.of("unseen", "configuration"), []);
  assert.equal(root.of("ok", "configuration").length, 1);
});

test("an ordinary user is told what is not for them, and what could not be seen", async (t) => {
  const world = new World(t);
  chmodSync(world.dir, 0o755);
  world.mkdir("in");
  const state = world.mkdir("state");
  chmodSync(state, 0o700);
  const secret = world.path("closed.json");
  writeFileSync(secret, "{}");
  chmodSync(secret, 0o600);
  const path = world.path("ttyDRONE");
  const transport = await openTransport(`pty:${path}`, () => () => undefined);
  t.after(() => transport.close());
  chmodSync(realpathSync(path), 0o600);
  const config = world.config({
    devices: { in: local("in"), fc: { type: "mavftp", url: `serial://${path}:57600` } },
    services: { ftp: { type: "ftp-server", listen: "127.0.0.1:0", root: "served", users: { u: { password: "pass" } } } },
    routes: [{ from: "fc", to: ["in"] }],
  });
  const nobody = { uid: 65534, gid: 65534, cwd: "/" };
  const { code, of } = await doctor(config, nobody);
  assert.equal(code, 0, "nothing is known to be bad");
  // Whose the closed directory is, that one's daemon it is.
  assert.deepEqual(of("bad", "space"), []);
  assert.match(of("unseen", "space").join(), /state: what is in it: permission denied \[sudo filesync doctor\]/);
  assert.match(of("unseen", "serial").join(), /the open files of other users are hidden from nobody \[sudo fuser -v/);
  assert.match(of("unseen", "daemon").join(), /permission denied for .*control\.sock.*\[sudo filesync doctor\]/);
  assert.match(of("unseen", "devices").join(), /ftp: whether it works: a daemon that may have it does not tell/);
  assert.match(of("unseen", "devices").join(), /in: whether root may use it: cannot write in .*permission denied/);
  chmodSync(state, 0o755);
  assert.match(
    (await doctor(config, nobody)).of("bad", "space").join(),
    /state: it belongs to the user with id 0, and the daemon is nobody \[sudo chown -R nobody/,
  );
  const closed = await doctor(secret, nobody);
  assert.equal(closed.code, 2);
  assert.match(closed.of("bad", "configuration").join(), /closed\.json cannot be read: permission denied/);
});

test(
  "a certificate that ends in five days is told, of an FTP server and of a web server; a pinned one is well",
  needsOpenssl,
  async (t) => {
    const world = new World(t);
    const { cert, key, fingerprint } = selfSigned(world.mkdir("tls"), 5);
    const ground = world.config(
      {
        stateDir: "ground-state",
        services: {
          ftp: { type: "ftp-server", listen: "127.0.0.1:0", root: "served", users: { u: { password: "pass" } }, tls: { cert, key } },
        },
      },
      "ground.json",
    );
    const server = new Program(["run", "--json", "--config", ground]);
    t.after(() => server.kill());
    const { facts } = await server.until(({ message }) => message.includes("FTP server listens on"), "it listens");
    const web = createServer({ cert: readFileSync(cert), key: readFileSync(key) }, (_request, answer) => answer.end("ok"));
    t.after(() => web.close());
    await once(web.listen(0, "127.0.0.1"), "listening");
    const ftp = { type: "ftp", host: "127.0.0.1", port: facts?.["port"], user: "u", password: "pass", secure: true };
    const config = world.config({
      devices: {
        believed: { ...ftp, tls: { ca: cert } },
        pinned: { ...ftp, tls: { fingerprint } },
        unknown: ftp,
        web: { type: "post", url: `https://127.0.0.1:${(web.address() as AddressInfo).port}/upload`, tls: { ca: cert } },
      },
    });
    const { code, of } = await doctor(config);
    assert.equal(code, 3);
    const soon = of("warn", "devices");
    assert.deepEqual(
      soon.map((line) =>
        line
          .replace(/ on \d{4}-\d\d-\d\d/, " on DAY")
          .replace(/in [45] days/, "in N days")
          .replace(/:.*/, (rest) => rest.split(" [")[0] ?? ""),
      ),
      ["believed", "unknown", "web"].map(
        (name) => `${name}: the server's certificate (filesync-test) expires in N days, on DAY: nothing is sent to it from then on`,
      ),
    );
    assert.match(of("ok", "devices").join("\n"), /pinned: the server's certificate \(filesync-test\) is known by its fingerprint/);
    const [bad = ""] = of("bad", "devices");
    assert.match(bad, /^unknown: cannot log in to 127\.0\.0\.1:\d+: the server's certificate or TLS is not accepted/);
    const shown = /: the one that is shown there \(filesync-test\) has the "fingerprint": "(SHA256:[^"]+)"/.exec(bad)?.[1] ?? bad;
    assert.equal(parseFingerprint(shown), parseFingerprint(fingerprint));
  },
);

test("a configuration that cannot be used, or is not there, ends with 2, after all that can be looked at without it; mistakes in parts with 3", async (t) => {
  const world = new World(t);
  writeFileSync(world.path("torn.json"), '{ "devices": {');
  const torn = await doctor(world.path("torn.json"));
  assert.equal(torn.code, 2);
  assert.match(torn.of("bad", "configuration").join(), /torn\.json: 1: this is no JSON/);
  assert.equal(torn.of("ok", "versions").length, 1);
  const missing = await doctor(world.path("none.json"));
  assert.equal(missing.code, 2);
  assert.match(missing.of("bad", "configuration").join(), /none\.json: there is no such file/);
  const parts = world.config({ devices: { in: local("in"), what: { type: "ftq" } } }, "parts.json");
  const some = await doctor(parts);
  assert.equal(some.code, 3);
  assert.match(some.of("bad", "configuration").join(), /1: devices\.what\.type: there is no plugin "ftq"; did you mean "ftp"/);
  assert.match(some.of("bad", "devices").join(), /in: .*in does not exist/);
  const without = await runProgram(["doctor"], { cwd: world.dir });
  if (statSync("/etc/filesync/config.json", { throwIfNoEntry: false }) === undefined) {
    assert.match(without.out, /^WARN {4}configuration: there is none here, and none in \/etc\/filesync/m);
    assert.equal(without.code, 0, without.out);
  }
});

test("a port that the daemon itself has is well", async (t) => {
  const world = new World(t);
  const path = world.path("ttyDRONE");
  world.mkdir("card", "log");
  const sim = new Program(["sim", "--listen", `pty:${path}`, "--dir", world.mkdir("card"), "--link", "none"]);
  t.after(() => sim.kill());
  await sim.until(({ message }) => message.startsWith("listening on"), "the autopilot");
  world.mkdir("out");
  const config = world.config({
    devices: { pixhawk: { type: "mavftp", url: `serial://${path}:57600`, root: "/log" }, out: local("out") },
    routes: [{ from: "pixhawk", to: ["out"] }],
  });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what, facts }) => what === "attached" && facts?.["device"] === "pixhawk", "it is attached");
  const { of } = await doctor(config);
  assert.deepEqual(of("bad", "serial"), []);
  assert.deepEqual(of("ok", "devices"), [
    "pixhawk: attached: the daemon that runs uses it []",
    "out: works []",
    "pixhawk: its firmware is PX4 1.15.4 []",
    "pixhawk: SDLOG_MODE is 0: a log from arming to disarming []",
    "pixhawk: its card has 28 GB free of 32 GB []",
  ]);
});

test("why there is no log directory is asked all the same, directly and through the daemon", async (t) => {
  const world = new World(t);
  const silent = ["--param", "SDLOG_MODE=-1", "--dir", world.mkdir("card"), "--link", "none"];
  const sim = new Program(["sim", "--listen", "tcpin://127.0.0.1:0", ...silent]);
  t.after(() => sim.kill());
  const { message } = await sim.until((said) => said.message.startsWith("listening on"), "the autopilot");
  world.mkdir("out");
  const config = world.config({
    devices: { pixhawk: { type: "mavftp", url: message.replace("listening on tcpin", "tcpout") }, out: local("out") },
    routes: [{ from: "pixhawk", to: ["out"] }],
  });
  const why =
    /^pixhawk: .*there is no \/fs\/microsd\/log.*\npixhawk: SDLOG_MODE is -1: no log is written \[# in a ground station: set SDLOG_MODE to 0/;
  const direct = await doctor(config);
  assert.match(direct.of("bad", "devices").join("\n"), why);
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what, facts }) => what === "detached" && facts?.["device"] === "pixhawk", "its root is missed");
  assert.match((await doctor(config)).of("bad", "devices").join("\n"), why);
});

test("an autopilot that writes no log is bad, asked directly and through the daemon that has its port; the text says what to set", async (t) => {
  const world = new World(t);
  const settings = ["--param", "SDLOG_BACKEND=2", "--param", "SDLOG_MODE=2", "--autopilot", "px4-1.18"];
  const sim = new Program(["sim", "--listen", "tcpin://127.0.0.1:0", "--dir", world.mkdir("card"), "--link", "none", ...settings]);
  t.after(() => sim.kill());
  const { message } = await sim.until((said) => said.message.startsWith("listening on"), "the autopilot");
  world.mkdir("out");
  const config = world.config({
    devices: { pixhawk: { type: "mavftp", url: message.replace("listening on tcpin", "tcpout"), root: "/" }, out: local("out") },
    routes: [{ from: "pixhawk", to: ["out"] }],
  });
  const expected = {
    bad: [
      "pixhawk: SDLOG_BACKEND is 2: logs go out by MAVLink only, none is written to the card [# in a ground station: set SDLOG_BACKEND to 3, then restart the autopilot]",
    ],
    warn: [
      "pixhawk: SDLOG_MODE is 2: a log ends only when the autopilot is switched off, so that of the last flight comes after its next start [# in a ground station: set SDLOG_MODE to 0, then restart the autopilot]",
    ],
  };
  const direct = await doctor(config);
  assert.equal(direct.code, 3);
  assert.deepEqual({ bad: direct.of("bad", "devices"), warn: direct.of("warn", "devices") }, expected);
  const text = (await runProgram(["doctor", "--config", config])).out;
  assert.match(
    text,
    /^BAD {5}pixhawk: SDLOG_BACKEND is 2: .*\n {10}# in a ground station: set SDLOG_BACKEND to 3, then restart the autopilot\n/m,
  );
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what, facts }) => what === "attached" && facts?.["device"] === "pixhawk", "it is attached");
  const asked = await doctor(config);
  assert.deepEqual({ bad: asked.of("bad", "devices"), warn: asked.of("warn", "devices") }, expected);
  sim.signal("SIGUSR1");
  await program.until(({ what, facts }) => what === "detached" && facts?.["device"] === "pixhawk", "it is armed");
  const armed = await doctor(config);
  assert.deepEqual(armed.of("warn", "devices"), [], "an armed autopilot is asked for nothing");
  assert.match(armed.of("bad", "devices").join(), /^pixhawk: detached: the vehicle is armed/);
});
