/** From nothing to archived logs, as a person does it: ground station and vehicle are processes, mail, ssh and rsync are real. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { basename, join, relative } from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { Journal } from "../../core/journal.js";
import { certificateAt } from "../../core/net.js";
import { freePort, selfSigned } from "../conformance/ftp-servers.js";
import { CountingRelay } from "../faults/counting-relay.js";
import { mainJs, Program, runProgram } from "../faults/process.js";
import { linkIn, mailServer, type MailServer } from "../mail-server.js";
import { fly, page, planeIn, until } from "./plane.js";

const missing = ["sshd", "rsync", "rrsync", "ssh", "openssl"].filter(
  (program) => spawnSync("sh", ["-c", `PATH=$PATH:/usr/sbin command -v ${program}`]).status !== 0,
);
const skip = missing.length > 0 ? `${missing.join(", ")} not installed` : false;

const flightBytes = 24 * 2 ** 20;
/** What is fast enough for a test, and slow enough to be cut in the middle. */
const rate = "6MiB/s";

interface World {
  readonly dir: string;
  readonly post: MailServer;
  readonly apiPort: number;
  /** In front of the door. */
  readonly relay: CountingRelay;
  readonly groundConfig: string;
  readonly planeConfig: string;
  readonly inbox: string;
  readonly root: string;
  ground(): Promise<Program>;
  plane(): Program;
}

async function world(t: TestContext): Promise<World> {
  const dir = mkdtempSync(join(tmpdir(), "filesync-register-"));
  const post = await mailServer(t);
  const [apiPort, doorPort] = [await freePort(), await freePort()];
  const relay = await CountingRelay.start(doorPort);
  t.after(async () => {
    await Program.killBelow(dir);
    relay.close();
    rmSync(dir, { recursive: true, force: true });
  });
  const groundDir = join(dir, "ground");
  mkdirSync(groundDir);
  const { host, port, from } = post.options;
  const groundConfig = join(groundDir, "config.json");
  writeFileSync(
    groundConfig,
    JSON.stringify({
      stateDir: "state",
      services: {
        registry: {
          type: "registry",
          listen: `127.0.0.1:${apiPort}`,
          root: "vehicles",
          door: { listen: `127.0.0.1:${doorPort}`, port: relay.port },
          mail: { host, port, secure: false, user: "u", password: "p", from },
          slotIdle: "8s",
          keepFree: 0,
        },
      },
    }),
  );
  const { config: planeConfig, inbox } = planeIn(join(dir, "plane"));
  return {
    ...{ dir, post, apiPort, relay, groundConfig, planeConfig, inbox, root: join(groundDir, "vehicles") },
    ground: async () => {
      const program = new Program(["run", "--json", "--config", groundConfig]);
      await program.until(({ facts }) => facts?.doorPort !== undefined, "the registry's start");
      return program;
    },
    plane: () => new Program(["run", "--json", "--config", planeConfig]),
  };
}

const sha256 = (content: Buffer): string => createHash("sha256").update(content).digest("hex");
const digestOf = (path: string): string => sha256(readFileSync(path));

/** All plain files below, with what they hold. */
function treeOf(root: string): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  for (const entry of readdirSync(root, { recursive: true, withFileTypes: true }))
    if (entry.isFile()) found.set(relative(root, join(entry.parentPath, entry.name)), digestOf(join(entry.parentPath, entry.name)));
  return found;
}

test(
  "a vehicle registers once by mail; its flights arrive, whatever breaks, each in a slot of its own, and are archived",
  { skip },
  async (t) => {
    const it = await world(t);
    let ground = await it.ground();
    const { facts } = await ground.until(({ facts }) => facts?.certificate !== undefined, "its fingerprint");
    const fingerprint = String(facts?.certificate);
    const server = `https://127.0.0.1:${it.apiPort}`;
    const words = ["register", "--config", it.planeConfig, "--server", server, "--email", "pilot@example.org", "--vehicle", "plane 1"];

    // Nobody answers for the certificate.
    const unsure = await runProgram(words);
    assert.equal(unsure.code, 2);
    assert.match(unsure.err, new RegExp(`--fingerprint '?${fingerprint.replace(/[+]/g, "\\+")}`));
    const wrong = await runProgram([...words, "--fingerprint", `SHA256:${"A".repeat(43)}`]);
    assert.equal(wrong.code, 2);
    assert.match(wrong.err, /certificate is SHA256:.*, not the SHA256:A{42,43} that was given/);

    const registering = runProgram([...words, "--fingerprint", fingerprint]);
    const failed = registering.then(({ out, err }) => assert.fail(`it ended: ${out}${err}`));
    failed.catch(() => undefined);
    const link = linkIn(await Promise.race([it.post.next(), failed]));
    assert.equal(await page(it.apiPort, link, "GET"), 200);
    assert.equal(await page(it.apiPort, link, "POST"), 200);
    const done = await registering;
    assert.equal(done.code, 0, done.err);
    assert.match(done.out, /Registered as plane-1-[0-9a-f]{8} \("plane 1"\)/);
    const config = readFileSync(it.planeConfig, "utf8");
    for (const comment of ["// The plane.", "// logs", "/* nothing is sent yet */"]) assert.ok(config.includes(comment), comment);
    assert.match(config, /"station": \{\s+"type": "apsync"/);
    const again = await runProgram([...words, "--fingerprint", fingerprint]);
    assert.equal(again.code, 2);
    assert.match(again.err, /registered already, as plane-1-[0-9a-f]{8} \("plane 1"\), by the device "station"/);
    // The next flight is found once the one before has arrived, which takes longer than that.
    const short = config.replace('"type": "apsync"', `"type": "apsync", "flightGap": "2s"`);
    writeFileSync(it.planeConfig, short.replace('"into": "{device}"', `"into": "{device}", "maxRate": "${rate}"`));
    const checked = await runProgram(["check", "--probe", "--config", it.planeConfig]);
    assert.equal(checked.code, 0, checked.out + checked.err);

    let plane = it.plane();
    const digests = new Map<string, string>();
    const archive = join(it.inbox, "archive");
    const sent = (name: string) =>
      until(
        () => existsSync(archive) && readdirSync(archive, { recursive: true, encoding: "utf8" }).some((path) => path.endsWith(`/${name}`)),
        `${name} in the archive`,
      );
    /** The link is cut in each flight; what else breaks, once it goes on. */
    const inMiddle = async () => {
      const before = it.relay.sentBytes;
      await until(() => it.relay.sentBytes - before > flightBytes / 3, "a third of it");
      it.relay.cut();
      await until(() => it.relay.sentBytes - before > flightBytes / 2, "half of it");
    };

    digests.set("one.bin", sha256(fly(it.inbox, "one.bin", flightBytes)));
    await inMiddle();
    await sent("one.bin");
    const afterOne = it.relay.sentBytes;
    assert.ok(afterOne < flightBytes * 1.05 + 4 * 2 ** 20, `${afterOne} bytes went over for ${flightBytes}`);

    // The station is killed, and started again.
    digests.set("two.bin", sha256(fly(it.inbox, "two.bin", flightBytes)));
    await inMiddle();
    await ground.kill();
    ground = await it.ground();
    await sent("two.bin");
    const afterTwo = it.relay.sentBytes;
    assert.ok(afterTwo - afterOne < flightBytes * 1.05 + 4 * 2 ** 20, `${afterTwo - afterOne} bytes went over for ${flightBytes}`);

    // The vehicle is killed, and started again.
    digests.set("three.bin", sha256(fly(it.inbox, "three.bin", flightBytes)));
    await inMiddle();
    await plane.kill();
    plane = it.plane();
    await sent("three.bin");
    const afterThree = it.relay.sentBytes;
    assert.ok(afterThree - afterTwo < flightBytes * 1.05 + 4 * 2 ** 20, `${afterThree - afterTwo} bytes went over for ${flightBytes}`);

    // The station is away for two flights: each has a slot of its own all the same.
    await ground.kill();
    for (const names of [["four-a.bin", "four-b.bin"], ["five.bin"]]) {
      const found = plane.events.length;
      for (const name of names) digests.set(name, sha256(fly(it.inbox, name, 1000)));
      const count = () =>
        plane.events.slice(found).reduce((sum, { message }) => sum + Number(/(\d+) new files?$/.exec(message)?.[1] ?? 0), 0);
      // All of them: what is found later than the next flight is written would belong to that.
      await until(() => count() === names.length, `${names.join(" and ")} found`);
      await delay(4000);
    }
    ground = await it.ground();
    for (const name of ["four-a.bin", "four-b.bin", "five.bin"]) await sent(name);

    const arrived = treeOf(it.root);
    const slots = [...new Set([...arrived.keys()].map((path) => path.split("/")[2] ?? ""))].sort();
    const namesIn = (slot: string) => [...arrived.keys()].filter((path) => path.split("/")[2] === slot).map((path) => basename(path));
    assert.deepEqual(
      slots.map((slot) => namesIn(slot).sort()).sort((a, b) => (String(a) < String(b) ? -1 : 1)),
      [["five.bin"], ["four-a.bin", "four-b.bin"], ["one.bin"], ["three.bin"], ["two.bin"]],
    );
    for (const [name, digest] of digests) {
      const [path] = [...arrived.keys()].filter((it) => it.endsWith(`/inbox/${name}`));
      assert.ok(path, `${name} arrived`);
      assert.equal(arrived.get(path), digest);
      const slot = path.split("/")[2] ?? "";
      assert.equal(digestOf(join(archive, slot, name)), digest, "archived under the slot's name");
    }
    assert.equal(arrived.size, digests.size, "no litter");

    // The operator.
    const listed = await runProgram(["registry", "list", "--config", it.groundConfig]);
    assert.match(listed.out, /plane-1-[0-9a-f]{8} {2}"plane 1" of pilot@example\.org {2}7[56] MB/);
    const revoked = await runProgram(["registry", "revoke", "plane 1", "--config", it.groundConfig]);
    assert.equal(revoked.code, 0, revoked.err);
    fly(it.inbox, "six.bin", flightBytes);
    await plane.until(({ message }) => /key was revoked/.test(message), "the word that it is revoked");
    assert.equal(treeOf(it.root).size, digests.size);
    plane.signal("SIGTERM");
    ground.signal("SIGTERM");
    assert.equal(await plane.exited, 0);
    assert.equal(await ground.exited, 0);
    // What is killed is gone a moment later.
    await until(() => spawnSync("pgrep", ["-f", it.dir], { encoding: "utf8" }).stdout === "", "end of all programs");
  },
);

test("what is wrong with a registration is said at once, and nothing is written", { skip }, async (t) => {
  const it = await world(t);
  // What the operator may say is told to whoever has no configuration.
  const none = ["--config", join(it.dir, "none.json")];
  assert.match((await runProgram(["registry", ...none])).err, /needs a word: list, confirm REGISTRATION, .*, delete EMAIL$/m);
  assert.match((await runProgram(["registry"], { cwd: it.dir })).err, /needs a word: list, /);
  assert.match((await runProgram(["registry", "--help"])).out, /filesync registry delete EMAIL$/m);
  const before = readFileSync(it.planeConfig, "utf8");
  const run = async (...words: string[]) => {
    const ran = await runProgram(["register", "--config", it.planeConfig, ...words]);
    assert.equal(ran.code, 2, ran.out);
    return ran.err;
  };
  const both = await run();
  assert.match(both, /--server URL is missing/);
  assert.match(both, /--email ADDRESS is missing/);
  assert.match(await run("--server", "ground", "--email", "x"), /--server ground: .*\n.*--email x/);
  const email = ["--email", "a@example.org"];
  assert.match(await run("--server", "http://127.0.0.1:1", ...email), /refused.*; a station with TLS is asked by https:/);
  assert.match(await run("--server", "https://127.0.0.1:99999", ...email), /and a port up to 65535/);
  assert.match(await run("--server", "http://127.0.0.1:1", ...email, "--from", "cam"), /no source of that name; there are: inbox/);
  assert.match(
    await run("--server", "http://127.0.0.1:1", ...email, "--from", "inbox", "--from", "5"),
    /--from 5: .*no source of that name/,
  );
  assert.match(await run("--server", "http://127.0.0.1:1", ...email, "--vehicle", "../x"), /--vehicle/);
  assert.match(await run("--vehicle", "a", "--vehicle", "b"), /--vehicle is given twice/);
  assert.equal(readFileSync(it.planeConfig, "utf8"), before);
  const keys = execFileSync("find", [it.dir, "-name", "id-*", "-printf", "%m\n"], { encoding: "utf8" });
  assert.match(keys, /^(600\n)*$/);
});

const privately = ["--mount", "--propagation", "private"];
const noNamespace = spawnSync("unshare", [...privately, "true"]).status === 0 ? false : "no mount namespace can be made here";

test(
  "root registers for a daemon of another user: by what that may read of the machine, not by serial numbers that a PC gives to root",
  { skip: noNamespace },
  (t) => {
    const dir = mkdtempSync(join(tmpdir(), "filesync-register-"));
    t.after(() => rmSync(dir, { recursive: true, force: true }));
    const { config } = planeIn(dir);
    const state = join(dir, "state");
    mkdirSync(state);
    chownSync(state, 4711, 4711);
    chmodSync(dir, 0o755);
    const serial = "a serial number";
    const registering = `mount -t tmpfs tmpfs /sys/class && mkdir -p /sys/class/dmi/id && cd /sys/class/dmi/id || exit 9
    printf '${serial}' >product_uuid && chmod 400 product_uuid && exec "$@"`;
    const words = ["register", "--config", config, "--server", "http://127.0.0.1:1", "--email", "a@example.org"];
    const ran = spawnSync("unshare", [...privately, "sh", "-c", registering, "sh", process.execPath, mainJs, ...words], {
      encoding: "utf8",
    });
    assert.equal(ran.status, 2, ran.stderr);
    const { machine } = JSON.parse(readFileSync(join(state, "installation.json"), "utf8")) as { machine: string };
    assert.notEqual(machine, createHash("sha256").update(serial).digest("hex").slice(0, 16));
  },
);

/** A vehicle below a directory of that mode; its state directory, with a journal, is of the user 4711. */
async function ofAnother(t: TestContext, mode: number): Promise<{ dir: string; config: string; state: string }> {
  const dir = mkdtempSync(join(tmpdir(), "filesync-register-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  chmodSync(dir, mode);
  const { config } = planeIn(dir);
  const state = join(dir, "state");
  mkdirSync(state, { mode: 0o750 });
  await (await Journal.open(state)).close();
  for (const path of ["", ...readdirSync(state)]) chownSync(join(state, path), 4711, 4711);
  return { dir, config, state };
}

test(
  "what the service puts into its state directory leads root nowhere when root registers, or asks how it stands",
  { skip: process.getuid?.() === 0 ? false : "only root acts for another user" },
  async (t) => {
    const { dir, config, state } = await ofAnother(t, 0o755);
    const victim = join(dir, "ld.so.preload");
    symlinkSync(victim, join(state, "lock"));
    for (const words of [
      ["register", "--server", "http://127.0.0.1:1", "--email", "a@example.org"],
      ["retry", "--all"],
    ]) {
      const ran = spawnSync(process.execPath, [mainJs, ...words, "--config", config], { encoding: "utf8" });
      assert.equal(ran.status, 2, ran.stderr);
      assert.equal(existsSync(victim), false, words.join(" "));
    }
    rmSync(join(state, "lock"));
    for (const words of [
      ["register", "--server", "http://127.0.0.1:1", "--email", "a@example.org"],
      ["retry", "--all"],
    ])
      spawnSync(process.execPath, [mainJs, ...words, "--config", config]);
    const owners = execFileSync("find", [state, "-printf", "%U\n"], { encoding: "utf8" });
    assert.match(owners, /^(4711\n)+$/);
    assert.ok(existsSync(join(state, "devices/station")) && existsSync(join(state, "lock")));
  },
);

test(
  "root comes to a state directory by its owner's groups; where the owner may not come there, that is said",
  { skip: process.getuid?.() === 0 ? false : "only root acts for another user" },
  async (t) => {
    const { dir, config } = await ofAnother(t, 0o710);
    // A directory: what is mounted over a file goes once somebody else renames another one over that.
    const etc = join(dir, "etc");
    mkdirSync(etc);
    writeFileSync(join(etc, "passwd"), "root:x:0:0::/root:/bin/sh\ndrone:x:4711:4711::/:/bin/sh\n");
    writeFileSync(join(etc, "group"), "root:x:0:\ndrone:x:4711:\nlogs:x:4712:drone\n");
    const asks = (gid: number) => {
      chownSync(dir, 0, gid);
      const users = 'mount --bind "$1" /etc && shift && exec "$@"';
      const asked = [process.execPath, mainJs, "retry", "--all", "--config", config];
      return spawnSync("unshare", ["-m", "sh", "-c", users, "sh", etc, ...asked], { encoding: "utf8" });
    };
    assert.equal(asks(4712).status, 0);
    assert.match(asks(4713).stderr, /root acts as that one there, who may not come to it/);
  },
);

test("500 connections of one address that say nothing shut no other address out, and are ended", { skip }, async (t) => {
  const it = await world(t);
  const ground = await it.ground();
  t.after(() => ground.kill());
  let ended = 0;
  const sockets = Array.from({ length: 500 }, () => {
    const socket = connect({ host: "127.0.0.1", port: it.apiPort, localAddress: "127.0.0.1" });
    return socket.on("error", () => undefined).on("close", () => (ended += 1));
  });
  t.after(() => sockets.forEach((socket) => socket.destroy()));
  await until(() => ended === 300, "end of those beyond 200");
  assert.equal(await page(it.apiPort, "/api/station", "GET", "127.0.0.2"), 200);
  await assert.rejects(page(it.apiPort, "/api/station", "GET", "127.0.0.1"));
  await until(() => ended === 500, "end of the silent ones");
  assert.equal(await page(it.apiPort, "/api/station", "GET", "127.0.0.1"), 200);
});

test(
  "a key that the door could not be told of when its owner pressed the button, the disk full, is let in once it can be",
  { skip },
  async (t) => {
    const it = await world(t);
    const ground = await it.ground();
    const [keys = ""] = readdirSync(it.groundConfig.replace("config.json", "state"), { recursive: true, encoding: "utf8" })
      .filter((path) => path.endsWith("door/authorized_keys"))
      .map((path) => join(it.dir, "ground", "state", path));
    // Nothing can be renamed over it.
    rmSync(keys);
    mkdirSync(join(keys, "in-the-way"), { recursive: true });
    const { facts } = await ground.until(({ facts }) => facts?.certificate !== undefined, "its fingerprint");
    const server = `https://127.0.0.1:${it.apiPort}`;
    const words = [
      "--config",
      it.planeConfig,
      "--server",
      server,
      "--email",
      "pilot@example.org",
      "--fingerprint",
      String(facts?.certificate),
    ];
    const registering = runProgram(["register", ...words]);
    const link = linkIn(await it.post.next());
    assert.equal(await page(it.apiPort, link, "POST"), 500);
    const told = await ground.until(({ message }) => /POST \/confirm\//.test(message), "the word why");
    assert.ok(!told.message.includes(link.split("/").at(-1) ?? ""), "the link's token is in no log");
    await ground.until(({ message }) => /the door cannot be told .*authorized_keys/.test(message), "the word that it is tried again");
    rmSync(keys, { recursive: true });
    assert.equal((await registering).code, 0);
    await until(() => existsSync(keys) && readFileSync(keys, "utf8").includes("ssh-ed25519"), "the key at the door");
    await ground.kill();
  },
);

test(
  "a certificate that is renewed while the registry runs is what it shows; one that cannot be used is told, and changes nothing",
  { skip },
  async (t) => {
    const it = await world(t);
    const dir = join(it.dir, "ground");
    const first = selfSigned(dir);
    const { stateDir, services } = JSON.parse(readFileSync(it.groundConfig, "utf8")) as {
      stateDir: string;
      services: { registry: object };
    };
    const { cert, key } = first;
    writeFileSync(it.groundConfig, JSON.stringify({ stateDir, services: { registry: { ...services.registry, tls: { cert, key } } } }));
    const ground = await it.ground();
    const shown = async () => (await certificateAt("127.0.0.1", it.apiPort, {}, 5000, new AbortController().signal)).fingerprint;
    const before = await shown();
    writeFileSync(key, "no key");
    await ground.until(({ message }) => /key\.pem cannot be used: .*; until then/.test(message), "it is told");
    assert.equal(await shown(), before);
    selfSigned(dir);
    const { facts } = await ground.until(({ message }) => message.includes("another certificate is shown"), "the other one is shown");
    const after = await shown();
    assert.notEqual(after, before);
    assert.equal(facts?.certificate, after);
    await ground.kill();
  },
);

test("a new key: by the vehicle itself while its key is good, else by its owner; a new card has a key of its own", { skip }, async (t) => {
  const it = await world(t);
  const ground = await it.ground();
  t.after(() => ground.kill());
  const { facts } = await ground.until((event) => event.facts?.certificate !== undefined, "its fingerprint");
  const owner = ["--email", "pilot@example.org"];
  const mailed = async (...words: string[]) => {
    const running = runProgram(["register", "--config", it.planeConfig, ...owner, ...words]);
    const failed = running.then(({ out, err }) => assert.fail(`it ended: ${out}${err}`));
    failed.catch(() => undefined);
    assert.equal(await page(it.apiPort, linkIn(await Promise.race([it.post.next(), failed])), "POST"), 200);
    const { code, out, err } = await running;
    assert.equal(code, 0, err);
    return out;
  };
  const registered = await mailed(
    ...["--server", `https://127.0.0.1:${it.apiPort}`, "--fingerprint", String(facts?.certificate), "--vehicle", "plane 1"],
  );
  const [id = ""] = /plane-1-[0-9a-f]{8}/.exec(registered) ?? [];
  const keyDir = join(it.dir, "plane/state/devices/station");
  const keyFile = join(keyDir, readdirSync(keyDir).find((name) => /^id-[0-9a-f]{8}$/.test(name)) ?? "");
  const config = readFileSync(it.planeConfig, "utf8");
  const renew = (...words: string[]) => runProgram(["register", "--renew", "--config", it.planeConfig, ...words]);
  const probe = () => runProgram(["check", "--probe", "--config", it.planeConfig]);
  const keys = [readFileSync(keyFile, "utf8")];
  const changed = async () => {
    keys.push(readFileSync(keyFile, "utf8"));
    assert.equal(new Set(keys).size, keys.length, "it is another key");
    assert.equal(existsSync(`${keyFile}.new`), false);
    const { code, out, err } = await probe();
    assert.equal(code, 0, out + err);
  };
  assert.match((await renew("--server", "https://x")).err, /--server: with --renew the configuration says that/);
  const own = await renew();
  assert.equal(own.code, 0, own.err);
  assert.match(own.out, new RegExp(`${id} has a new key`));
  await changed();

  assert.equal((await runProgram(["registry", "revoke", "plane 1", "--config", it.groundConfig])).code, 0);
  assert.match((await probe()).err + (await probe()).out, /revoked/);
  const unasked = await renew();
  assert.equal(unasked.code, 2);
  assert.match(unasked.err, /not good any more: its owner is asked, with --email/);
  // What was made is kept, and used.
  const made = readFileSync(`${keyFile}.new`, "utf8");
  assert.match(await mailed("--renew", "--vehicle", "plane 1"), new RegExp(`${id} has a new key`));
  assert.equal(readFileSync(keyFile, "utf8"), made);
  await changed();

  // Its file is lost, and the station knows the vehicle still.
  rmSync(keyFile);
  assert.match((await probe()).out, /no key .*: "filesync register --renew" makes a new one/);
  for (const [email = "", vehicle = ""] of [
    ["pilot@example.org", "plane 2"],
    ["pilto@example.org", "plane 1"],
  ])
    assert.match((await renew("--email", email, "--vehicle", vehicle)).err, new RegExp(`has no vehicle "${vehicle}" here`));
  assert.match(await mailed("--renew", "--vehicle", "plane 1"), new RegExp(`${id} has a new key`));
  await changed();
  const last = readFileSync(keyFile, "utf8");

  // It was cut between the station's word and the file's name.
  renameSync(keyFile, `${keyFile}.new`);
  writeFileSync(keyFile, keys[0] ?? "", { mode: 0o600 });
  assert.equal((await renew()).code, 0);
  assert.equal(readFileSync(keyFile, "utf8"), last);
  assert.equal(readFileSync(it.planeConfig, "utf8"), config, "the configuration stays as it is");

  // A new card with the old configuration is another installation: it has a key of its own, and is the same vehicle by its owner's word.
  rmSync(join(it.dir, "plane/state"), { recursive: true });
  const unknown = await renew();
  assert.equal(unknown.code, 2);
  assert.match(unknown.err, /its owner is asked, with --email/);
  assert.match(await mailed("--renew", "--vehicle", "plane 1"), new RegExp(`${id} has a new key`));
  const [fresh = ""] = readdirSync(keyDir);
  assert.notEqual(fresh, basename(keyFile));
  assert.equal(readFileSync(it.planeConfig, "utf8"), config.replace(basename(keyFile), fresh), "only the key's name is another");
  const { code, out, err } = await probe();
  assert.equal(code, 0, out + err);
});

test("a vehicle that was taken away at the station registers anew by the same command; its device and routes stay", { skip }, async (t) => {
  const it = await world(t);
  const ground = await it.ground();
  t.after(() => ground.kill());
  const { facts } = await ground.until((event) => event.facts?.certificate !== undefined, "its fingerprint");
  const words = ["register", "--config", it.planeConfig, "--email", "pilot@example.org"];
  const at = ["--server", `https://127.0.0.1:${it.apiPort}`, "--fingerprint", String(facts?.certificate)];
  const confirmed = async (...more: string[]) => {
    const running = runProgram([...words, ...more]);
    const failed = running.then(({ out, err }) => assert.fail(`it ended: ${out}${err}`));
    failed.catch(() => undefined);
    assert.equal(await page(it.apiPort, linkIn(await Promise.race([it.post.next(), failed])), "POST"), 200);
    const { code, out, err } = await running;
    assert.equal(code, 0, err);
    return /plane-[12]-[0-9a-f]{8}/.exec(out)?.[0];
  };
  const probe = () => runProgram(["check", "--probe", "--config", it.planeConfig]);
  const first = await confirmed(...at, "--vehicle", "plane 1");
  const config = readFileSync(it.planeConfig, "utf8");
  const needless = await runProgram([...words, ...at, "--vehicle", "plane 1"]);
  assert.match(needless.err, new RegExp(`registered already, as ${first}`));
  // The certificate of the station is another since; what a person wrote beside the fingerprint stays.
  const commented = config.replace(/"tls": \{ ?/, '"tls": { /* as the station\'s log says */ ');
  assert.notEqual(commented, config);
  writeFileSync(it.planeConfig, commented.replace(/(?<="fingerprint": ")[^"]+/, `SHA256:${"A".repeat(43)}`));
  assert.match((await probe()).out, /not the SHA256:A{43} that was given.*goes into "tls\.fingerprint"/);
  const repinned = await runProgram([...words, ...at, "--vehicle", "plane 1"]);
  assert.equal(repinned.code, 0, repinned.err);
  assert.match(repinned.out, /Written to .*, the device "station"/);
  assert.equal(readFileSync(it.planeConfig, "utf8"), commented);
  writeFileSync(it.planeConfig, config);

  assert.equal((await runProgram(["registry", "delete", "pilot@example.org", "--config", it.groundConfig])).code, 0);
  assert.match((await probe()).out, /no vehicle is registered with this key.*"filesync register", as at the first time, registers it anew/);
  assert.match((await runProgram([...words, "--renew", "--vehicle", "plane 1"])).err, /registered anew, without --renew/);
  const second = await confirmed(...at.slice(0, 2), "--vehicle", "plane 1");
  assert.ok(second !== undefined && second !== first);
  assert.equal(readFileSync(it.planeConfig, "utf8"), config);
  const { code, out, err } = await probe();
  assert.equal(code, 0, out + err);

  // Another registry answers there since, and the run ended before that was written: the same command writes it.
  writeFileSync(it.planeConfig, config.replace(/"station": "[0-9a-f]{32}"/, '"station": "0011"'));
  const written = await runProgram([...words, ...at, "--vehicle", "plane 1"]);
  assert.equal(written.code, 0, written.err);
  assert.equal(readFileSync(it.planeConfig, "utf8"), config);

  // A card that was cloned is another vehicle: it has a key of its own.
  rmSync(join(it.dir, "plane/state/installation.json"));
  assert.match((await confirmed(...at, "--vehicle", "plane 2")) ?? "", /^plane-2-/);
  const other = await probe();
  assert.equal(other.code, 0, other.out + other.err);
  assert.notEqual(readFileSync(it.planeConfig, "utf8"), config);
});

test(
  "a port that another program holds: nobody is told what is not served yet; while it is served, probing tries the mail server too",
  { skip },
  async (t) => {
    const it = await world(t);
    const other = createServer().listen(it.apiPort, "127.0.0.1");
    await once(other, "listening");
    const ground = new Program(["run", "--json", "--config", it.groundConfig]);
    const served = /come in as|without TLS|the registry at|its certificate/;
    const said = () => ground.events.filter(({ message }) => served.test(message)).map(({ message }) => message);
    await ground.until(({ message }) => message.includes("is held by another program"), "the word that the port is held");
    assert.deepEqual(said(), []);
    other.close();
    await ground.until(({ facts }) => facts?.certificate !== undefined, "the registry's start");
    assert.equal(said().filter((message) => /come in as \S+ at/.test(message)).length, 1, said().join("\n"));

    const text = readFileSync(it.groundConfig, "utf8");
    const probe = () => runProgram(["check", "--probe", "--config", it.groundConfig]);
    const right = await probe();
    assert.equal(right.code, 0, right.out + right.err);
    assert.match(right.out, /registry: works: the daemon that runs serves it/);
    writeFileSync(it.groundConfig, text.replace('"password":"p"', '"password":"q"'));
    const wrong = await probe();
    assert.notEqual(wrong.code, 0, wrong.out);
    assert.match(wrong.out + wrong.err, /no mail can be sent by 127\.0\.0\.1:\d+: .*wrong password/);
    await ground.kill();
  },
);
