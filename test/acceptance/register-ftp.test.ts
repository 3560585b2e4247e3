/** A vehicle that sends by FTP, with a password that nobody made up: ground station and vehicle are processes, and what ends the one reaches the other through a file. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, chownSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { freePort, selfSigned } from "../conformance/ftp-servers.js";
import { Program, runProgram } from "../faults/process.js";
import { World } from "../faults/world.js";
import { fly, planeIn, until } from "./plane.js";

const missing = ["sshd", "rsync", "rrsync", "openssl"].filter(
  (program) => spawnSync("sh", ["-c", `PATH=$PATH:/usr/sbin command -v ${program}`]).status !== 0,
);
const skip = missing.length > 0 ? `${missing.join(", ")} not installed` : false;

interface Ground {
  readonly dir: string;
  readonly config: string;
  readonly server: string;
  readonly ftpPort: number;
  readonly tls: ReturnType<typeof selfSigned>;
  readonly program: Program;
  /** Ends it, and starts it with this in place of that in its configuration. */
  restart(from: string, to: string): Promise<void>;
  /** The certificate of the registry. */
  readonly fingerprint: string;
  order(...words: string[]): Promise<string>;
  /** A vehicle's configuration and its inbox. */
  vehicle(name: string): { readonly config: string; readonly inbox: string };
  /** Registers, and the operator confirms. */
  register(config: string, ...words: string[]): Promise<{ code: number | NodeJS.Signals; out: string; err: string }>;
}

async function ground(t: TestContext): Promise<Ground> {
  const dir = mkdtempSync(join(tmpdir(), "filesync-register-ftp-"));
  t.after(async () => {
    await Program.killBelow(dir);
    rmSync(dir, { recursive: true, force: true });
  });
  const [apiPort, doorPort, ftpPort] = [await freePort(), await freePort(), await freePort()];
  const tls = selfSigned(dir);
  const config = join(dir, "config.json");
  const registry = {
    ...{ type: "registry", listen: `127.0.0.1:${apiPort}`, root: "vehicles", door: { listen: `127.0.0.1:${doorPort}` }, keepFree: 0 },
    ftp: { usersFile: "ftp-users.json", root: "ftp", port: ftpPort, tls: { cert: tls.cert } },
  };
  const ftp = {
    ...{ type: "ftp-server", listen: `127.0.0.1:${ftpPort}`, root: "ftp", usersFile: "ftp-users.json" },
    tls: { cert: tls.cert, key: tls.key, required: true },
  };
  writeFileSync(config, JSON.stringify({ stateDir: "state", services: { registry, ftp } }));
  const start = async () => {
    const started = new Program(["run", "--json", "--config", config]);
    const { facts } = await started.until(({ facts: it }) => it?.certificate !== undefined, "the registry's start");
    await started.until(({ message }) => message.includes("FTP server listens"), "the FTP server's start");
    return { started, facts };
  };
  const { started, facts } = await start();
  let program = started;
  const [server, fingerprint] = [`https://127.0.0.1:${apiPort}`, String(facts?.certificate)];
  const order = async (...words: string[]) => {
    const { code, out, err } = await runProgram(["registry", ...words, "--config", config]);
    assert.equal(code, 0, err);
    return out;
  };
  return {
    ...{ dir, config, server, ftpPort, tls, fingerprint, order },
    get program() {
      return program;
    },
    restart: async (from, to) => {
      program.signal("SIGTERM");
      assert.equal(await program.exited, 0);
      writeFileSync(config, readFileSync(config, "utf8").replaceAll(from, to));
      program = (await start()).started;
    },
    vehicle: (name) => planeIn(join(dir, name)),
    register: async (path, ...words) => {
      const known = ["--server", server, "--email", "pilot@example.org", "--fingerprint", fingerprint];
      const registering = new Program(["register", "--config", path, ...known, ...words]);
      const waits = registering.until(({ message }) => message.includes("registry confirm"), "the word that it waits");
      const said = await Promise.race([waits, registering.exited.then(() => undefined)]);
      waits.catch(() => undefined);
      if (said !== undefined) await order("confirm", said.message.split(" ").at(-1) ?? "");
      const code = await registering.exited;
      return { code, out: registering.events.map(({ message }) => message).join("\n"), err: registering.stderr };
    },
  };
}

/** Other programs have accounts too. */
async function sendsByItself(t: TestContext, at: Ground): Promise<void> {
  const { config, inbox } = at.vehicle("camera");
  const { code, err } = await at.register(config, "--vehicle", "camera");
  assert.equal(code, 0, err);
  assert.match(readFileSync(config, "utf8"), /"type": "apsync"/, "one that registers as always may have an account too");
  const said = await at.order("password", "camera");
  assert.ok(said.includes(at.tls.fingerprint.slice(0, 7)), said);
  const [user = "", password = ""] = ["user", "password"].map((what) => new RegExp(`^${what} +(\\S+)$`, "m").exec(said)?.[1]);
  writeFileSync(join(inbox, "a.jpg"), Buffer.alloc(100_000, 7));
  const url = `ftp://127.0.0.1:${at.ftpPort}`;
  const there = (program: string) => spawnSync("sh", ["-c", `command -v ${program}`]).status === 0;
  if (there("curl"))
    execFileSync("curl", [
      "-sS",
      "--ssl-reqd",
      "--cacert",
      at.tls.cert,
      "--user",
      `${user}:${password}`,
      "-T",
      join(inbox, "a.jpg"),
      `${url}/curl.jpg`,
    ]);
  else t.diagnostic("curl is not installed");
  if (there("lftp")) {
    const script = `set ssl:ca-file ${at.tls.cert}; set ftp:ssl-force true; set net:max-retries 1; open -u ${user},${password} ${url}; put ${join(inbox, "a.jpg")} -o lftp.jpg; bye`;
    execFileSync("lftp", ["--norc", "-c", script], { env: { ...process.env, HOME: at.dir } });
  } else t.diagnostic("lftp is not installed");
  for (const program of ["curl", "lftp"].filter(there)) assert.equal(statSync(join(at.dir, "ftp", user, `${program}.jpg`)).size, 100_000);
}

test(
  "a vehicle registers, gets a password, and sends by FTP with the pinned certificate, until it is revoked in the middle of an upload; curl and lftp send too",
  { skip },
  async (t) => {
    const at = await ground(t);
    const { config, inbox } = at.vehicle("plane");
    const registered = await at.register(config, "--ftp", "--vehicle", "plane 1");
    assert.equal(registered.code, 0, registered.err);
    const text = readFileSync(config, "utf8");
    for (const comment of ["// The plane.", "// logs", "/* nothing is sent yet */"]) assert.ok(text.includes(comment), comment);
    assert.match(text, /"station": \{\s+"type": "ftp",\s+"host": "127\.0\.0\.1"/);
    assert.match(text, /"secure": true,\s+"tls": \{ "fingerprint": "SHA256:/);
    const secret = join(inbox, "../state/devices/station/ftp.secret");
    assert.match(text, /"password": \{ "file": "state\/devices\/station\/ftp\.secret" \}/);
    assert.equal(statSync(secret).mode & 0o777, 0o600);
    const password = readFileSync(secret, "utf8").trim();
    const id = /Registered as (plane-1-[0-9a-f]{8})/.exec(registered.out)?.[1] ?? "";
    assert.equal(registered.out.includes(password), false);
    assert.match(await at.order("list"), new RegExp(`${id}  "plane 1" of pilot@example\\.org .* FTP$`));
    const checked = await runProgram(["check", "--probe", "--config", config]);
    assert.equal(checked.code, 0, checked.out + checked.err);

    await sendsByItself(t, at);

    writeFileSync(config, text.replace('"into": "{device}"', '"into": "{device}", "maxRate": "2MiB/s"'));
    let plane = new Program(["run", "--json", "--config", config]);
    const one = fly(inbox, "one.bin", 200_000);
    const arrived = join(at.dir, "ftp", id, "inbox", "one.bin");
    await until(() => existsSync(arrived), "the first log");
    assert.ok(readFileSync(arrived).equals(one));
    const archive = join(inbox, "archive");
    await until(
      () => existsSync(archive) && readdirSync(archive, { recursive: true }).some((it) => String(it).endsWith("one.bin")),
      "the archive",
    );

    fly(inbox, "two.bin", 40 * 2 ** 20);
    const partial = () => readdirSync(join(at.dir, "ftp", id, "inbox")).find((name) => name.endsWith(".part"));
    const came = () => statSync(join(at.dir, "ftp", id, "inbox", partial() ?? "one.bin")).size;
    await until(() => partial() !== undefined && came() > 2 ** 20, "a part of the second");
    const beganMs = performance.now();
    await at.order("revoke", id);
    await plane.until(({ message }) => /account, or its password, was taken away/.test(message), "the word why the upload ended");
    t.diagnostic(`told ${Math.round(performance.now() - beganMs)} ms after the order was given`);
    assert.ok(came() > 2 ** 20, "what came is kept");
    await plane.until(({ message }) => /530|Wrong user or password/.test(message), "the word that it cannot log in");

    // The way back: its owner says so; and another password by the same command, once the operator has made one.
    const refused = await at.register(config, "--ftp", "--vehicle", "plane 1");
    assert.equal(refused.code, 2);
    const [, typed = ""] = /this key was revoked\. .*: filesync (.*)$/m.exec(refused.err) ?? [];
    const way = ["--renew", "--ftp", "--server", at.server, "--email", "pilot@example.org", "--vehicle", "'plane 1'"];
    assert.equal(typed, ["register", ...way, "--fingerprint", at.fingerprint, "--config", config].join(" "));
    for (const words of [[], ["--email", "pilot@example.org", "--vehicle", "plane 1"], ["--server", at.server], ["--device", "station"]]) {
      const astray = await runProgram(["register", "--renew", "--config", config, ...words]);
      assert.equal(astray.code, 2);
      assert.match(astray.err, /by FTP: "filesync register --renew --ftp --server URL --email ADDRESS --vehicle NAME"/, words.join(" "));
    }
    for (const again of [["--renew"], []]) {
      if (again.length === 0) await at.order("password", id);
      const back = await at.register(config, "--ftp", "--vehicle", "plane 1", ...again);
      assert.equal(back.code, 0, back.err);
      assert.match(back.out, new RegExp(`${id} has a new password`));
      const probed = await runProgram(["check", "--probe", "--config", config]);
      assert.equal(probed.code, 0, probed.out + probed.err);
    }
    const renewed = readFileSync(secret, "utf8").trim();
    assert.notEqual(renewed, password);
    plane.signal("SIGTERM");
    assert.equal(await plane.exited, 0);
    plane = new Program(["run", "--json", "--config", config]);
    await until(() => existsSync(join(at.dir, "ftp", id, "inbox", "two.bin")), "the second log");
    plane.signal("SIGTERM");
    at.program.signal("SIGTERM");
    assert.equal(await plane.exited, 0);
    assert.equal(await at.program.exited, 0);
    assert.equal(
      [...at.program.events, ...plane.events].some(({ message }) => message.includes(password)),
      false,
      "no log has the password",
    );
  },
);

test(
  "a vehicle that sends by FTP and was taken away is registered anew by the same command, its device and routes stay; a device whose account is good, or that leads elsewhere, is left alone",
  { skip },
  async (t) => {
    const at = await ground(t);
    const { config, inbox } = at.vehicle("plane");
    const register = (...words: string[]) => at.register(config, "--ftp", "--vehicle", "plane 1", ...words);
    const idIn = (out: string) => /Registered as (plane-1-[0-9a-f]{8})/.exec(out)?.[1] ?? "";
    const first = await register();
    assert.equal(first.code, 0, first.err);
    const text = readFileSync(config, "utf8").replace('"into": "{device}"', '"into": "{device}", "maxRate": "2MiB/s" /* slow */');
    writeFileSync(config, text);
    const keys = join(inbox, "../state/devices/station");
    const [key = ""] = readdirSync(keys).filter((name) => /^id-[0-9a-f]{8}$/.test(name));
    const keyText = readFileSync(join(keys, key), "utf8");

    // Another key, and the account of before is good.
    rmSync(join(keys, key));
    for (const name of ["plane 1", "plane 2"]) {
      const taken = await at.register(config, "--ftp", "--vehicle", name);
      assert.equal(taken.code, 2, taken.out);
      assert.match(taken.err, /"station" logs in as plane-1-.*(is let in there|another vehicle).*--device/);
      assert.match(taken.err, /register --renew --ftp/);
    }
    assert.doesNotMatch(await at.order("list"), /plane 2|waits/);

    writeFileSync(join(keys, key), keyText, { mode: 0o600 });
    assert.match(await at.order("delete", "pilot@example.org"), /1 vehicle/);
    writeFileSync(config, text.replace('"host": "127.0.0.1"', '"host": "127.0.0.2"'));
    const elsewhere = await register();
    assert.equal(elsewhere.code, 2, elsewhere.out);
    assert.match(elsewhere.err, /at 127\.0\.0\.2, and the station is 127\.0\.0\.1.*--device/);
    assert.doesNotMatch(await at.order("list"), /plane-1|waits/);
    // Nobody can tell.
    writeFileSync(config, text.replace(`"port": ${at.ftpPort}`, '"port": 1'));
    const unseen = await register();
    assert.equal(unseen.code, 2, unseen.out);
    assert.match(unseen.err, /whether that account is gone cannot be seen now \(.*the connection is refused.*--device/);
    assert.doesNotMatch(await at.order("list"), /plane-1|waits/);
    writeFileSync(config, text);

    const anew = await register();
    assert.equal(anew.code, 0, anew.err);
    const [before, now] = [idIn(first.out), idIn(anew.out)];
    assert.notEqual(now, before);
    assert.match(anew.out, /the device "station" and its routes stay/);
    assert.equal(readFileSync(config, "utf8"), text.replace(before, now));
    const probed = await runProgram(["check", "--probe", "--config", config]);
    assert.equal(probed.code, 0, probed.out + probed.err);

    // It was ended between the station's word and the configuration.
    writeFileSync(config, text);
    const again = await register();
    assert.equal(again.code, 0, again.err);
    assert.equal(readFileSync(config, "utf8"), text.replace(before, now));

    // Its key was revoked, and its configuration is lost.
    await at.order("revoke", now);
    at.vehicle("plane");
    const revoked = await register();
    assert.equal(revoked.code, 2, revoked.out);
    assert.match(revoked.err, /register --renew --ftp --server/);
    const back = await register("--renew");
    assert.equal(back.code, 0, back.err);
    assert.equal(idIn(back.out), now);
    const works = await runProgram(["check", "--probe", "--config", config]);
    assert.equal(works.code, 0, works.out + works.err);
  },
);

test(
  "a new password of a vehicle that sends by FTP: what the station says of its FTP server by then is written, and told",
  { skip },
  async (t) => {
    const at = await ground(t);
    const { config } = at.vehicle("plane");
    const first = await at.register(config, "--ftp", "--vehicle", "plane 1");
    assert.equal(first.code, 0, first.err);
    const text = readFileSync(config, "utf8");
    const port = await freePort();
    await at.restart(String(at.ftpPort), String(port));
    const moved = await at.register(config, "--ftp", "--vehicle", "plane 1");
    assert.equal(moved.code, 0, moved.err);
    assert.match(moved.out, new RegExp(`"port" is ${port} \\(it was ${at.ftpPort}\\)`));
    assert.equal(readFileSync(config, "utf8"), text.replace(String(at.ftpPort), String(port)));
    const probed = await runProgram(["check", "--probe", "--config", config]);
    assert.equal(probed.code, 0, probed.out + probed.err);

    // Another certificate, another password file, and what else a person wrote.
    const bare = text
      .replace(/"tls": \{[^}]*\}/, '"tls": { "fingerprint": "aa" }'.replace("aa", "a".repeat(64)))
      .replace(/"file": "[^"]*"/, '"file": "my.secret"');
    writeFileSync(config, bare.replace(String(at.ftpPort), `${port}, "concurrency": 2`).replace('"secure": true', '"secure": false'));
    const other = await at.register(config, "--ftp", "--vehicle", "plane 1");
    assert.equal(other.code, 0, other.err);
    for (const word of ["secure", "tls", "password"]) assert.match(other.out, new RegExp(`"${word}" is `));
    assert.equal(readFileSync(config, "utf8"), text.replace(String(at.ftpPort), `${port}, "concurrency": 2`));
  },
);

test("what root orders while no daemon runs, also before the registry's first start, is the daemon's user's", async (t) => {
  if (process.getuid?.() !== 0) {
    t.skip("only root orders for another user");
    return;
  }
  const world = new World(t);
  chmodSync(world.dir, 0o755);
  const nobody = { uid: 65534, gid: 65534, cwd: "/" };
  chownSync(world.mkdir("state"), nobody.uid, nobody.gid);
  const none = world.config({ devices: {}, routes: [] });
  assert.equal((await runProgram(["run", "--once", "--config", none], nobody)).code, 0);
  const registry = { type: "registry", root: "vehicles", ftp: { usersFile: "state/ftp-users.json", root: "ftp" } };
  const config = world.config({ devices: {}, routes: [], services: { registry } });
  const listed = await runProgram(["registry", "list", "--config", config]);
  assert.equal(listed.out, "no vehicle is registered", listed.err);
  assert.ok(existsSync(world.path("state/devices/registry/registry.sqlite")));
  const owners = readdirSync(world.path("state"), { recursive: true }).map((name) => statSync(world.path("state", String(name))).uid);
  assert.deepEqual([...new Set(owners)], [nobody.uid]);
});
