/** Hand commands, as a person types them: with a daemon and without one, on each kind of device, cut in the middle and gone on. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, linkSync, readdirSync, readFileSync, readlinkSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { spawn } from "@lydell/node-pty";
import { partialPath } from "../../core/route.js";
import { parseFingerprint } from "../../core/net.js";
import { until } from "../conformance/clause.js";
import { hasOpenssl, selfSigned, startOwn, vsftpd } from "../conformance/ftp-servers.js";
import { startGround } from "../faults/ground.js";
import { mainJs, Program, runProgram } from "../faults/process.js";
import { Random } from "../faults/random.js";
import { World } from "../faults/world.js";
import { masked } from "./said.js";

const local = (dir: string, more = {}) => ({ type: "local", dir, ...more });

/** Each test of it runs twice: through a daemon, and without one. */
function both(name: string, run: (t: TestContext, world: World, filesync: Filesync, daemon: Program | undefined) => Promise<void>): void {
  for (const running of [true, false])
    test(`${name}, ${running ? "through the daemon" : "without a daemon"}`, async (t) => {
      const world = new World(t);
      const ground = await startGround(world.path("ground"));
      t.after(() => ground.program.kill());
      for (const dir of ["disk/sub", "cwd"]) world.mkdir(dir);
      const config = world.config({
        devices: {
          disk: local("disk"),
          ftp: { type: "ftp", host: "127.0.0.1", port: ground.port, user: "plane", password: "secret" },
          away: local("nowhere"),
        },
      });
      let daemon: Program | undefined;
      if (running) {
        daemon = new Program(["run", "--json", "--config", config]);
        t.after(() => daemon?.kill());
        await daemon.until(({ what }) => what === "ready", "ready");
      }
      await run(
        t,
        world,
        async (...args) => {
          const { code, out, err } = await runProgram([...args, "--config", config], { cwd: world.path("cwd") });
          return { code, out: masked(out, world.dir), err: masked(err, world.dir) };
        },
        daemon,
      );
    });
}
type Filesync = (...args: string[]) => Promise<{ code: number | NodeJS.Signals; out: string; err: string }>;

test(
  "a server that tells neither time nor content: get calls no file of the same size another; put gives no name to what was written while it was sent",
  { skip: vsftpd.skip ?? false },
  async (t) => {
    const server = await vsftpd.start();
    t.after(() => server.stop());
    const world = new World(t);
    world.mkdir("cwd");
    writeFileSync(join(server.dir, "a.bin"), "content");
    const { port, user, password } = server;
    const ftp = { type: "ftp", host: "127.0.0.1", port, user, password, maxRate: "1MiB/s", ...server.options };
    const config = world.config({ devices: { ftp } });
    const get = () => runProgram(["get", "ftp:a.bin", "--config", config], { cwd: world.path("cwd") });
    assert.equal((await get()).code, 0);
    const again = await get();
    assert.equal(again.err, "filesync: a.bin is there already, with the same size (ftp cannot tell its content); --force replaces it\n");
    assert.equal(again.code, 2);
    world.file("cwd/b.bin", Buffer.alloc(2_000_000, 1));
    const put = runProgram(["put", "b.bin", "ftp:", "--config", config], { cwd: world.path("cwd") });
    await until("a part to be there", () => readdirSync(server.dir).some((name) => name.startsWith(".b.bin.")));
    // In its place, as who writes into it does.
    writeFileSync(world.path("cwd/b.bin"), Buffer.alloc(2_000_000, 2));
    const { code, err } = await put;
    assert.match(err, /b\.bin was written while it was read; the same command begins anew\n$/);
    assert.notEqual(code, 0);
    assert.equal(existsSync(join(server.dir, "b.bin")), false);
  },
);

both("ls, put, get, mv, rm and mkdir on a disk and on an FTP server", async (_t, world, filesync) => {
  world.file("disk/a.ulg", "content of a");
  world.file("cwd/b.bin", Buffer.alloc(300_000, 7), 1);
  assert.deepEqual(await filesync("ls", "disk:"), {
    code: 0,
    out: " -  TIME  sub/\n12  2026-05-28 00:00:00Z  a.ulg".split("\n").reverse().join("\n"),
    err: "",
  });
  for (const device of ["disk", "ftp"]) {
    for (const dir of ["new/dir", ""])
      assert.deepEqual(await filesync("mkdir", `${device}:${dir}`), { code: 0, out: `${device}:${dir}/: is there`, err: "" });
    assert.deepEqual(await filesync("put", "b.bin", `${device}:new/dir`), {
      code: 0,
      out: `b.bin → ${device}:new/dir/b.bin (300000 bytes in TIME, proved by digest)`,
      err: "",
    });
    assert.equal(
      (await filesync("put", "b.bin", `${device}:new/dir/`)).out,
      `b.bin → ${device}:new/dir/b.bin (300000 bytes, was there already, proved by digest)`,
    );
    assert.equal(
      (await filesync("ls", "-r", `${device}:new`)).out,
      "     -  -                     new/dir/\n300000  2026-05-28 00:00:01Z  new/dir/b.bin".replace(
        "-                     new",
        device === "disk" ? "TIME  new" : "TIME  new",
      ),
    );
    writeFileSync(world.path("cwd/other"), "other");
    assert.deepEqual(await filesync("put", "other", `${device}:new/dir/b.bin`), {
      code: 2,
      out: "",
      err: `filesync: ${device}:new/dir/b.bin is there already, with another content; --force replaces it`,
    });
    assert.equal(
      (await filesync("put", "--force", "other", `${device}:new/dir/b.bin`)).out,
      `other → ${device}:new/dir/b.bin (5 bytes in TIME, in the place of another, proved by digest)`,
    );
    for (const dir of ["sub/", "sub/."]) {
      assert.equal((await filesync("mv", `${device}:new/dir/b.bin`, dir)).out, `${device}:new/dir/b.bin → ${device}:sub/b.bin`);
      assert.equal((await filesync("mv", `${device}:sub/b.bin`, "new/dir/")).code, 0);
    }
    assert.deepEqual(await filesync("mv", `${device}:new/dir/b.bin`, "away:c.bin"), {
      code: 2,
      out: "",
      err: `filesync: mv moves within ${device}, and "away" is another device: bring it there by get and put; a name that begins so: ${device}:away:c.bin`,
    });
    assert.equal((await filesync("mv", `${device}:new/dir/b.bin`, "moved/c.bin")).out, `${device}:new/dir/b.bin → ${device}:moved/c.bin`);
    assert.equal(
      (await filesync("get", `${device}:moved/c.bin`, `${device}.c`)).out.replace(/proved by \w+/, "proved by X"),
      `${device}:moved/c.bin → ${device}.c (5 bytes in TIME, proved by X)`,
    );
    assert.equal(readFileSync(world.path(`cwd/${device}.c`), "utf8"), "other");
    assert.equal((await filesync("get", `${device}:moved/c.bin`, `${device}.c`)).out, `${device}.c is ${device}:moved/c.bin already`);
    writeFileSync(world.path(`cwd/${device}.c`), "mine!");
    const refused = await filesync("get", `${device}:moved/c.bin`, `${device}.c`);
    assert.deepEqual(refused, {
      code: 2,
      out: "",
      err: `filesync: ${device}.c is there already, and is another file than ${device}:moved/c.bin; --force replaces it`,
    });
    assert.equal(readFileSync(world.path(`cwd/${device}.c`), "utf8"), "mine!");
    assert.equal((await filesync("get", "--force", `${device}:moved/c.bin`, `${device}.c`)).code, 0);
    assert.equal(readFileSync(world.path(`cwd/${device}.c`), "utf8"), "other");
    assert.deepEqual(await filesync("rm", `${device}:moved/c.bin`), { code: 0, out: `${device}:moved/c.bin: removed (5 bytes)`, err: "" });
    assert.deepEqual(await filesync("rm", `${device}:moved/d.bin`), {
      code: 2,
      out: "",
      err: `filesync: there is no ${device}:moved/d.bin`,
    });
  }
  assert.deepEqual(readdirSync(world.path("cwd")).sort(), ["b.bin", "disk.c", "ftp.c", "other"]);
});

both(
  "put: a part at the device that is no beginning of the file is taken away, and the same command begins anew",
  async (_t, world, filesync) => {
    // Longer than what is looked at of its end.
    const rest = "x".repeat(100_000);
    world.file("cwd/a.bin", `content of a${rest}`);
    const kept = world.path("state/installation.json");
    const installation = existsSync(kept) ? (JSON.parse(readFileSync(kept, "utf8")) as { id: string }).id : "00000000";
    const digest = createHash("sha256").update(`content of a${rest}`).digest("hex");
    const id = createHash("sha256").update(`hand\0ftp\0a.bin\0sha256:${digest}`).digest("hex").slice(0, 16);
    world.file(join("ground/files/plane", partialPath("a.bin", installation, id)), `CONTENT of a${rest}`);
    const refused = await filesync("put", "a.bin", "ftp:");
    assert.equal(refused.code, 3);
    assert.match(refused.err, /sha256:.* sha256:.*; the same command sends it from its first byte$/);
    assert.equal((await filesync("put", "a.bin", "ftp:")).code, 0);
    assert.equal(readFileSync(world.path("ground/files/plane/a.bin"), "utf8"), `content of a${rest}`);
  },
);

both("mistakes are named, with what was meant", async (_t, world, filesync) => {
  world.file("disk/flight.ulg", "x");
  assert.equal(
    (await filesync("get", "dsik:flight.ulg")).err,
    'filesync: there is no device "dsik"; did you mean "disk"?; there are: disk, ftp, away',
  );
  assert.equal(
    (await filesync("get", "flight.ulg")).err,
    'filesync: expected DEVICE:PATH, got "flight.ulg"; the devices are: disk, ftp, away',
  );
  assert.deepEqual(await filesync("get", "disk:flihgt.ulg"), {
    code: 2,
    out: "",
    err: 'filesync: there is no disk:flihgt.ulg; did you mean "flight.ulg"?',
  });
  assert.equal(
    (await filesync("get", "disk")).err,
    'filesync: disk alone names no file: disk:PATH does, and disk:latest is the newest log; "filesync ls disk:" lists what is there',
  );
  assert.equal((await filesync("rm", "disk")).err, "filesync: disk alone names no file: disk:PATH does");
  assert.equal((await filesync("mv", "disk:", "b")).err, "filesync: disk alone names no file: disk:PATH does");
  assert.equal(
    (await filesync("ls", "disk:/mnt/microsd")).err,
    'filesync: there is no disk:mnt/microsd: a path begins below the root of disk; "filesync ls disk:" lists what is there',
  );
  assert.equal((await filesync("get", "disk:sub")).err, 'filesync: disk:sub is a directory; "filesync ls disk:sub" lists it');
  assert.equal((await filesync("get", "disk:../etc/passwd")).err, 'filesync: "../etc/passwd" leads out of the device\'s root');
  const listed = await filesync("ls", "disk:");
  for (const dir of [".", "./", "/.", "sub/..x/../.."])
    assert.deepEqual(
      [dir, await filesync("ls", `disk:${dir}`)],
      [dir, dir.includes("..") ? { code: 2, out: "", err: `filesync: "${dir}" leads out of the device's root` } : listed],
    );
  assert.match((await filesync("get", "disk:./flight.ulg", "dotted.ulg")).out, /^disk:flight\.ulg → dotted\.ulg \(/);
  assert.equal((await filesync("rm", "disk:sub")).err, "filesync: disk:sub is a directory: only files are moved and removed");
  assert.deepEqual(await filesync("get", "disk:flight.ulg", ""), {
    code: 2,
    out: "",
    err: 'filesync: an argument of get is empty ("")',
  });
  assert.equal((await filesync("put", "nothing", "disk:")).err, "filesync: cannot read nothing: there is no such file or directory");
  assert.deepEqual(await filesync("ls", "away:"), { code: 3, out: "", err: "filesync: away: DIR/nowhere does not exist" });
});

both("get: a copy is the same file where one side knows only the second; another second is another file", async (_t, world, filesync) => {
  world.file("disk/whole.bin", "content of a", 7);
  world.file("disk/fine.bin", "content of a", 7.25);
  world.file("cwd/whole.bin", "content of a", 7.456);
  world.file("cwd/fine.bin", "content of a", 7);
  for (const name of ["whole", "fine"])
    assert.equal((await filesync("get", `disk:${name}.bin`)).out, `${name}.bin is disk:${name}.bin already`);
  world.file("cwd/whole.bin", "content of b", 8.456);
  assert.equal((await filesync("get", "disk:whole.bin")).code, 2);
  world.file("cwd/fine.bin", "content of b", 7.75);
  assert.equal((await filesync("get", "disk:fine.bin")).code, 2);
});

both("get: a device of the system or a pipe is never replaced; a place on a device is no file here", async (_t, world, filesync) => {
  for (const name of ["a.bin", "b.bin"]) world.file(`disk/${name}`, name);
  assert.equal(spawnSync("mkfifo", [world.path("cwd/pipe")]).status, 0);
  symlinkSync("/dev/null", world.path("cwd/null"));
  symlinkSync("nowhere", world.path("cwd/dead"));
  for (const name of ["pipe", "null"])
    assert.deepEqual(await filesync("get", "--force", "disk:a.bin", name), {
      code: 2,
      out: "",
      err: `filesync: ${name} is there already, and no plain file: it is not replaced`,
    });
  assert.match((await filesync("get", "disk:a.bin", "dead")).err, /dead is a link to nowhere, which is not there/);
  const both = await filesync("get", "disk:a.bin", "disk:b.bin");
  assert.match(both.err, /^filesync: get takes one file of a device to this machine, and "disk:b\.bin" names one of disk/);
  assert.equal(both.code, 2);
  assert.deepEqual(readdirSync(world.path("cwd")).sort(), ["dead", "null", "pipe"]);
  assert.equal((await filesync("get", "disk:a.bin", "./disk:b.bin")).code, 0);
  // A name that is a device's but for its last letter, or has a colon and names none, is one.
  for (const name of ["disks", "C:x"]) assert.equal((await filesync("get", "disk:a.bin", name)).code, 0, name);
  assert.equal((await filesync("mv", "disk:a.bin", "ftps")).out, "disk:a.bin → disk:ftps");
});

both(
  "get: over a link it is the file that the link leads to, as with cp; what is only a name of an open file is none",
  async (_t, world, filesync) => {
    world.file("disk/a.bin", "content of a");
    world.file("elsewhere/a.bin", "another");
    symlinkSync("../elsewhere/a.bin", world.path("cwd/link"));
    assert.match((await filesync("get", "disk:a.bin", "link")).err, /^filesync: link is there already, and is another file/);
    const replaced = await filesync("get", "--force", "disk:a.bin", "link");
    assert.match(replaced.out, /^disk:a\.bin → link /);
    assert.equal(readFileSync(world.path("elsewhere/a.bin"), "utf8"), "content of a");
    assert.equal(readlinkSync(world.path("cwd/link")), "../elsewhere/a.bin");
    assert.equal((await filesync("get", "disk:a.bin", "link")).out, "link is disk:a.bin already");
    assert.deepEqual([readdirSync(world.path("cwd")), readdirSync(world.path("elsewhere"))], [["link"], ["a.bin"]]);
    const command = `exec "$0" "$@" > out`;
    const args = [mainJs, "get", "--force", "disk:a.bin", "/proc/self/fd/1", "--config", world.path("config.json")];
    const { status, stderr } = spawnSync("sh", ["-c", command, process.execPath, ...args], { cwd: world.path("cwd"), encoding: "utf8" });
    assert.deepEqual([status, stderr], [2, "filesync: /proc/self/fd/1 is there already, and no plain file: it is not replaced\n"]);
    assert.equal(readFileSync(world.path("cwd/out"), "utf8"), "");
  },
);

test("ls on a server that lets in one connection, while the daemon sends: it says what it waits for", async (t) => {
  const world = new World(t);
  const server = await startOwn({ root: world.mkdir("srv"), users: { u: { password: "p" } }, limits: { maxPerAddress: 1 } });
  t.after(() => server.close());
  // It is sent for as long as a command takes to begin, and waits then.
  world.file("in/long.bin", Buffer.alloc(15_000_000, 1));
  const ground = { type: "ftp", host: "127.0.0.1", port: server.port ?? 0, user: "u", password: "p", maxRate: "1MB/s" };
  const config = world.config({ devices: { in: local("in"), ground }, routes: [{ from: "in", to: ["ground"], into: "" }] });
  const daemon = new Program(["run", "--json", "--config", config]);
  t.after(() => daemon.kill());
  await until("the upload to run", () => existsSync(world.path("srv/u")) && readdirSync(world.path("srv/u")).length > 0);
  const { code, out, err } = await runProgram(["ls", "ground:", "--config", config]);
  assert.equal(err, "ground does not answer yet: a transfer of the daemon runs there, and it may let in no more connections\n");
  assert.equal(code, 0);
  assert.match(out, /long\.bin/);
});

both("get latest: the newest log, by time; a get that is cut goes on at its byte", async (_t, world, filesync, daemon) => {
  const bytes = new Random(3).bytes(30_000_000);
  world.file("disk/2026-05-01/old.ulg", "old", -100);
  world.file("disk/2026-05-02/new.ulg", bytes, 100);
  world.file("disk/readme.txt", "text", 200);
  const config = world.config({
    devices: { disk: local("disk", { maxRate: "4MiB/s" }), ftp: local("x"), away: local("y") },
  });
  if (daemon !== undefined) {
    daemon.signal("SIGHUP");
    await daemon.until(({ what }) => what === "reload", "reload");
  }
  const first = new Program(["get", "disk:latest", "--config", config], { cwd: world.path("cwd") });
  const partial = () => readdirSync(world.path("cwd")).find((name) => /^\.new\.ulg\.get-[0-9a-f]{16}\.part$/.test(name));
  for (;;) {
    const name = partial();
    if (name !== undefined && world.size(`cwd/${name}`) > 0) break;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await first.kill();
  world.config({ devices: { disk: local("disk"), ftp: local("x"), away: local("y") } });
  if (daemon !== undefined) {
    daemon.signal("SIGHUP");
    await daemon.until(() => daemon.events.filter(({ what }) => what === "reload").length === 2, "reload");
  }
  const again = await filesync("get", "disk:latest");
  assert.equal(again.code, 0, again.err);
  assert.match(again.err, /^disk:2026-05-02\/new\.ulg: goes on at byte \d+ of 30000000$/);
  assert.ok(readFileSync(world.path("cwd/new.ulg")).equals(bytes));
  assert.deepEqual(readdirSync(world.path("cwd")), ["new.ulg"]);
});

test("who may not read a secret uses its device through the daemon that has it", async (t) => {
  const world = new World(t);
  const ground = await startGround(world.path("ground"));
  t.after(() => ground.program.kill());
  const config = world.config({
    devices: { ftp: { type: "ftp", host: "127.0.0.1", port: ground.port, user: "plane", password: { env: "OF_THE_SERVICE" } } },
  });
  const ls = () => runProgram(["ls", "--config", config, "ftp:"]);
  const daemon = new Program(["run", "--json", "--config", config], { env: { ...process.env, OF_THE_SERVICE: "secret" } });
  t.after(() => daemon.kill());
  await daemon.until(({ what }) => what === "ready", "ready");
  assert.deepEqual(await ls(), { code: 0, out: "", err: "" });
  daemon.signal("SIGTERM");
  await daemon.exited;
  const { code, err } = await ls();
  assert.equal(code, 2);
  assert.match(err, /devices\.ftp\.password: expected the environment variable OF_THE_SERVICE to be set/);
});

test("an FTP server by URL: the password from the environment, never on the command line", async (t) => {
  const world = new World(t);
  const ground = await startGround(world.path("ground"));
  t.after(() => ground.program.kill());
  world.file("a.bin", "content of a");
  const at = `127.0.0.1:${ground.port}/`;
  const run = async (args: string[], env: NodeJS.ProcessEnv = process.env) => {
    const { code, out, err } = await runProgram(args, { cwd: world.dir, env });
    return { code, out: masked(out, world.dir), err: masked(err, world.dir).replaceAll(String(ground.port), "PORT") };
  };
  const env = { ...process.env, FILESYNC_PASSWORD: "secret" };
  assert.equal(
    (await run(["put", "a.bin", "x/", "--url", `ftp://plane@${at}`], env)).out,
    "a.bin → server:x/a.bin (12 bytes in TIME, proved by digest)",
  );
  assert.equal((await run(["ls", "-r", "--url", `ftp://plane@${at}`], env)).out.split("\n").at(-1), "12  2026-05-28 00:00:00Z  x/a.bin");
  assert.deepEqual(await run(["ls", "--url", `ftp://plane:secret@${at}`]), {
    code: 2,
    out: "",
    err: "filesync: --url: a password in it would be seen by everybody on this machine; set FILESYNC_PASSWORD, or type it when asked",
  });
  assert.equal(
    (await run(["ls", "--url", `ftp://plane@${at}`])).err,
    "filesync: set FILESYNC_PASSWORD: there is no terminal to ask for the password",
  );
  const wrong = await run(["ls", "--url", `ftp://plane@${at}`], { ...env, FILESYNC_PASSWORD: "not-this-one" });
  assert.equal(wrong.code, 3);
  assert.match(wrong.err, /^filesync: server: /);
  assert.doesNotMatch(wrong.err, /not-this-one/);
});

test(
  "an FTP server with TLS by URL: ftps, and the certificate that is believed",
  { skip: hasOpenssl ? false : "openssl is not installed" },
  async (t) => {
    const world = new World(t);
    const { cert, key, fingerprint } = selfSigned(world.dir);
    const users = { plane: { password: "secret" } };
    const server = await startOwn({ root: world.mkdir("srv"), users, tls: { cert, key, required: true } });
    t.after(() => server.close());
    world.file("srv/plane/a.bin", "content of a");
    const ls = async (scheme: string, more: NodeJS.ProcessEnv = {}) => {
      const env = { ...process.env, FILESYNC_PASSWORD: "secret", ...more };
      return runProgram(["ls", "--url", `${scheme}://plane@127.0.0.1:${server.port ?? 0}/`], { env });
    };
    const believed = { FILESYNC_FINGERPRINT: fingerprint };
    const shown = `SHA256:${Buffer.from(parseFingerprint(fingerprint) ?? "", "hex")
      .toString("base64")
      .replace("=", "")}`;
    assert.deepEqual(await ls("ftps", believed), { code: 0, out: "12  2026-05-28 00:00:00Z  a.bin", err: "" });
    const how =
      "; with --url, ftps://… has TLS (from the first byte on port 990), and FILESYNC_FINGERPRINT says which certificate is believed\n";
    const strange = await ls("ftps");
    assert.equal(strange.code, 3);
    assert.match(strange.err, /^filesync: server: cannot log in to 127\.0\.0\.1:\d+: the server's certificate or TLS is not accepted/);
    assert.ok(strange.err.endsWith(`has the "fingerprint": "${shown}"${how}`), strange.err);
    const clear = await ls("ftp", believed);
    assert.match(clear.err, /^filesync: server: cannot log in to 127\.0\.0\.1:\d+: the server wants TLS; set "secure": true/);
    assert.ok(clear.err.endsWith(how), clear.err);
    const wrong = await ls("ftps", { FILESYNC_FINGERPRINT: "nonsense" });
    assert.equal(wrong.code, 2);
    assert.match(wrong.err, /^filesync: --url ftps:.*fingerprint/);
  },
);

test("Ctrl-C in a put says what went there, and that the same command goes on, which it does", async (t) => {
  const world = new World(t);
  world.file("a.bin", Buffer.alloc(40_000_000, 1));
  world.mkdir("disk");
  const config = world.config({ devices: { disk: local("disk", { maxRate: "8MiB/s" }) } });
  const words = ["put", world.path("a.bin"), "disk:", "--config", config];
  const put = new Program(words);
  t.after(() => put.kill());
  const parts = () => readdirSync(world.path("disk")).filter((name) => name.endsWith(".part"));
  let ended = false;
  void put.exited.then(() => (ended = true));
  while (!ended && !parts().some((name) => world.size(`disk/${name}`) > 6e6)) await new Promise((resolve) => setTimeout(resolve, 20));
  put.signal("SIGINT");
  assert.equal(await put.exited, 130);
  assert.match(put.stderr, /^filesync: .*stopped; \d+ of 40000000 bytes went to disk: where it can go on, the same command does\n$/);
  world.config({ devices: { disk: local("disk") } });
  const again = await runProgram(words);
  assert.equal(again.code, 0, again.err);
  assert.match(again.err, /goes on at byte [1-9]\d+ of 40000000/);
  assert.ok(readFileSync(world.path("disk/a.bin")).equals(readFileSync(world.path("a.bin"))));
});

test("a device that is wrong in the configuration is not said to be missing; Ctrl-C leaves what has come and says so", async (t) => {
  const world = new World(t);
  world.file("disk/a.bin", Buffer.alloc(40_000_000, 1));
  const config = world.config({ devices: { disk: local("disk", { maxRate: "4MiB/s" }), bad: { type: "local", dri: "x" } } });
  const wrong = await runProgram(["ls", "bad:", "--config", config]);
  assert.equal(wrong.code, 2);
  assert.match(wrong.err, /config\.json:1: devices\.bad\.dri: unknown key "dri"; did you mean "dir"\?/);
  const get = new Program(["get", "disk:a.bin", "--config", config], { cwd: world.dir });
  t.after(() => get.kill());
  const size = () =>
    Math.max(
      0,
      ...readdirSync(world.dir)
        .filter((name) => name.endsWith(".part"))
        .map((name) => world.size(name)),
    );
  while (size() === 0) await new Promise((resolve) => setTimeout(resolve, 20));
  get.signal("SIGINT");
  assert.equal(await get.exited, 130);
  assert.match(get.stderr, /^filesync: (disk: )?stopped; \d+ bytes are here, and the same command goes on there\n$/);

  const [partial = ""] = readdirSync(world.dir).filter((name) => name.endsWith(".part"));
  writeFileSync(world.path(partial), Buffer.alloc(world.size(partial), 2));
  world.config({ devices: { disk: local("disk") } });
  const again = await runProgram(["get", "disk:a.bin", "--config", config], { cwd: world.dir });
  assert.equal(again.code, 0, again.err);
  assert.match(
    again.err,
    /disk:a\.bin: goes on at byte \d+ of 40000000\n.*what is here is not its beginning; it is read from the first byte; again\n$/,
  );
  assert.ok(readFileSync(world.path("a.bin")).equals(readFileSync(world.path("disk/a.bin"))));

  // Killed while it got its name.
  for (const how of [[], ["--force"]]) {
    linkSync(world.path("a.bin"), world.path(partial));
    assert.equal((await runProgram(["get", ...how, "disk:a.bin", "--config", config], { cwd: world.dir })).code, 0);
    assert.equal(existsSync(world.path(partial)), false);
    assert.ok(readFileSync(world.path("a.bin")).equals(readFileSync(world.path("disk/a.bin"))));
  }

  // What was begun of what the source does not have any more, and of another file.
  writeFileSync(world.path(partial), "begun");
  const others = partial.replace(/get-./, (it) => (it.endsWith("0") ? "get-1" : "get-0"));
  writeFileSync(world.path(others), "begun");
  world.file("disk/a.bin", "another content", 2);
  assert.equal((await runProgram(["get", "--force", "disk:a.bin", "--config", config], { cwd: world.dir })).code, 0);
  assert.deepEqual(
    readdirSync(world.dir).filter((name) => name.endsWith(".part")),
    [others],
  );
});

test("on a terminal a bar shows how far, how fast and how long still", async (t) => {
  const world = new World(t);
  world.file("disk/a.bin", Buffer.alloc(8_000_000, 1));
  const config = world.config({ devices: { disk: local("disk", { maxRate: "4MiB/s" }) } });
  const pty = spawn(process.execPath, [mainJs, "get", "disk:a.bin", "--config", config], { cols: 100, rows: 10, cwd: world.dir });
  let seen = "";
  pty.onData((data) => (seen += data));
  const code = await new Promise<number>((resolve) => pty.onExit(({ exitCode }) => resolve(exitCode)));
  assert.equal(code, 0, seen);
  assert.match(seen, /\x1b\[\?7l\r\x1b\[Kdisk:a\.bin \[#+\.+\] \d+ % of 8\.0 MB, [\d.]+ MB\/s, \d+ s left\x1b\[\?7h/); // eslint-disable-line no-control-regex
  assert.match(seen, /\r\x1b\[Kdisk:a\.bin → a\.bin \(8000000 bytes in \d+ s, [\d.]+ MB\/s, proved by size\)\r\n$/); // eslint-disable-line no-control-regex
});

test("a name that is no UTF-8 is typed as it is, or as paths are told, of both sides; what begins with one - and is no option is told", (t) => {
  const world = new World(t);
  world.mkdir("disk");
  const config = world.config({ devices: { disk: local("disk") } });
  writeFileSync(Buffer.concat([Buffer.from(world.dir), Buffer.from("/bad\xff.txt", "latin1")]), "content");
  const filesync = (words: string) => {
    const script = `"${process.execPath}" "${mainJs}" ${words} --config "${config}"`;
    const { status, stdout, stderr } = spawnSync("bash", ["-c", script], { cwd: world.dir, encoding: "utf8" });
    return { status, said: `${stdout}${stderr}`.trimEnd() };
  };
  const put = filesync("put $'bad\\xff.txt' disk:");
  assert.deepEqual([put.status, put.said.split(" (")[0]], [0, "bad‛FF.txt → disk:bad‛FF.txt"]);
  assert.equal(filesync("put bad‛FF.txt $'disk:other\\xfe'").status, 0);
  assert.deepEqual(readdirSync(world.path("disk"), { encoding: "latin1" }).sort(), ["bad\xff.txt", "other\xfe"]);
  assert.deepEqual(filesync("rm $'disk:other\\xfe'"), { status: 0, said: "disk:other‛FE: removed (7 bytes)" });
  const why = filesync("why -dash");
  assert.equal(why.status, 2);
  assert.match(why.said, /^filesync: -dash is no option; .*: filesync why -- -dash$/);
});
