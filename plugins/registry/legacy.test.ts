/** Vehicles with the client of APSync: what they are answered, what becomes of what they send, what nobody gets by it. The door's part is by the real sshd, ssh and rsync. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import {
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test, type TestContext } from "node:test";
import { openDatabase } from "../../core/sqlite.js";
import { ApsyncClient } from "../../test/doubles/apsync-client.js";
import { begin, type DoorAtWork, doorIn, run, until, whyNoDoor } from "../../test/doubles/door-at-work.js";
import { plane, registered, station, type Station } from "../../test/doubles/station.js";
import { freePort } from "../../test/conformance/ftp-servers.js";
import { CountingRelay } from "../../test/faults/counting-relay.js";
import { Program, runProgram } from "../../test/faults/process.js";
import { linkIn, mailServer } from "../../test/mail-server.js";
import { readKey } from "../apsync/key.js";
import type { SlotsOptions } from "./slots.js";

const signal = new AbortController().signal;
const noDoor = whyNoDoor();
const with_ = (why: string | undefined) => (why === undefined ? {} : { skip: why });
const sha256 = (content: string | Buffer): string => `sha256:${createHash("sha256").update(content).digest("hex")}`;
const ed25519 = ["-t", "ed25519"];

function temporary(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "filesync-apsync-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

function client(t: TestContext, at: Station, key: readonly string[] = ed25519): ApsyncClient {
  return new ApsyncClient(temporary(t), { webPort: Number(new URL(at.url).port), sshPort: 1, user: "files" }, key);
}

const legacyStation = (t: TestContext, slots: Partial<SlotsOptions> = {}) => station(t, { slots: { legacy: true, ...slots } });

/** Confirmed by the operator; its id. */
async function admitted(at: Station, it: ApsyncClient): Promise<string> {
  assert.equal((await it.register("pilot@example.org")).status, 200);
  await at.order("confirm", (await at.catalogue.pendingOfKey(it.fingerprint))?.id ?? "");
  return String((await it.verify()).body["vehicle_id"]);
}

test("it registers by the mail's button, is told so in the words that it reads, and gets one slot for as long as that is open", async (t) => {
  const post = await mailServer(t);
  const at = await station(t, { mail: post.options, slots: { legacy: true } });
  const it = client(t, at, ["-t", "rsa"]);
  assert.deepEqual((await it.verify()).status, 401, "nobody knows it");
  const first = await it.register(" Pilot@Example.org ");
  assert.equal(first.status, 200);
  assert.match(String(first.body["msg"]), /button of the page/);
  const link = linkIn(await post.next());
  for (let n = 0; n < 3; n++) assert.equal((await fetch(`${at.url}${link}`)).status, 200);
  const waits = await it.verify();
  assert.deepEqual([waits.status, waits.body["verify"]], [200, false]);
  assert.equal((await it.upload()).status, 401, "not yet");
  assert.equal((await fetch(`${at.url}${link}`, { method: "POST" })).status, 200);
  const { body } = await it.verify();
  assert.equal(body["verify"], true);
  assert.match(String(body["vehicle_id"]), /^vehicle-[0-9a-f]{8}$/);
  assert.match(String(body["user_id"]), /^pilot-[0-9a-f]{8}$/);
  assert.match(String((await it.register("pilot@example.org")).body["msg"]), /Already verified/);
  assert.equal((await it.register("thief@example.org")).status, 409);

  const slot = await it.upload();
  assert.deepEqual(slot, { status: 200, body: { archive_folder: slot.body["archive_folder"], valid_time: 600 } });
  assert.deepEqual((await it.upload()).body, slot.body);
  const listed = await at.order("list");
  assert.match(listed.join("\n"), /vehicle-[0-9a-f]{8} .* legacy$/m);
});

test("off by default: none of its endpoints is there, and nobody of that kind comes in", async (t) => {
  const at = await station(t);
  const it = client(t, at);
  for (const [method, path] of [
    ["GET", "/"],
    ["POST", "/register"],
    ["POST", "/verify"],
    ["POST", "/upload"],
    ["GET", "/verify"],
  ] as const)
    assert.equal((await it.ask(method, path, { _xsrf: "a" }, "a")).status, 404, path);
});

test("what it must not do: no form of another site, no weak key, none of another kind of vehicle, no guessing", async (t) => {
  const at = await legacyStation(t);
  const it = client(t, at);
  const fields = { email: "a@example.org", public_key: Buffer.from(it.publicKey).toString("base64") };
  for (const [given, cookie] of [
    [{}, "x".repeat(32)],
    [{ _xsrf: "" }, ""],
    [{ _xsrf: "x".repeat(32) }, ""],
    [{ _xsrf: "x".repeat(32) }, "y".repeat(32)],
    [{ _xsrf: "x" }, "x".repeat(32)],
  ] as const)
    for (const path of ["/register", "/verify", "/upload"])
      assert.equal((await it.ask("POST", path, { ...fields, ...given }, cookie)).status, 400, `${path} ${JSON.stringify(given)}`);
  const asJson = await fetch(`${at.url}/register`, {
    method: "POST",
    headers: { Cookie: "_xsrf=a" },
    body: JSON.stringify({ ...fields, _xsrf: "a" }),
  });
  assert.equal(asJson.status, 400);

  const register = (line: string, email = "a@example.org") => {
    at.clock.advance(60_000);
    return it.ask("POST", "/register", { email, public_key: Buffer.from(line).toString("base64"), _xsrf: "a" }, "a");
  };
  const weak = client(t, at, ["-t", "rsa", "-b", "1024"]).publicKey;
  const [, base64 = ""] = weak.split(" ");
  const blob = Buffer.from(base64, "base64");
  const strings = (...parts: Buffer[]) =>
    `ssh-rsa ${Buffer.concat(parts.flatMap((it) => [Buffer.from([0, 0, it.length >> 8, it.length & 255]), it])).toString("base64")}`;
  const modulus = Buffer.concat([Buffer.from([0, 0x80]), Buffer.alloc(254), Buffer.from([1])]);
  const [name, e] = [Buffer.from("ssh-rsa"), Buffer.from([3])];
  for (const line of [
    weak,
    `ssh-rsa ${blob.subarray(0, -1).toString("base64")}`,
    strings(name, Buffer.from([1]), modulus),
    strings(name, Buffer.from([4]), modulus),
    strings(name, e, Buffer.concat([Buffer.from([0]), modulus])),
    strings(name, e, modulus, Buffer.from("more")),
    strings(Buffer.from("ssh-dss"), e, modulus),
    client(t, at, ["-t", "ecdsa"]).publicKey,
    `command="id" ${it.publicKey}`,
    "",
  ])
    assert.equal((await register(line)).status, 400, line);
  for (const email of ["a@example.org\r\nBcc: b@example.org", "no", ""]) assert.equal((await register(it.publicKey, email)).status, 400);
  assert.equal((await register(strings(name, e, modulus))).status, 200, "the same with nothing wrong");

  // A vehicle of the new kind, and one that waits to be: their fingerprints are worth nothing here, and their keys are theirs.
  const fresh = await registered(t, at, "new");
  for (const ask of [() => it.upload(fresh.signer.fingerprint), () => it.verify(fresh.signer.fingerprint)])
    assert.equal((await ask()).status, 401);
  assert.equal((await register(fresh.signer.publicKey, "pilot@example.org")).status, 409);
  const waits = await plane(t, at);
  const { id } = await waits.client.register({ email: "pilot@example.org", vehicle: "waits" }, signal);
  assert.equal((await register(waits.signer.publicKey, "thief@example.org")).status, 409);
  assert.equal((await it.verify(waits.signer.fingerprint)).status, 401);
  assert.equal((await waits.client.registration(id, signal)).state, "waiting");

  // And the other way round: its key signs nothing.
  const old = client(t, at);
  const vehicle = await admitted(at, old);
  const signer = await readKey(old.identity);
  const asNew = await plane(t, at, signer);
  await assert.rejects(asNew.client.slot({}, signal), /no vehicle is registered with this key/);
  await assert.rejects(asNew.client.register({ email: "pilot@example.org" }, signal), /registered already/);

  // The operator.
  assert.equal((await old.upload()).status, 200);
  await at.order("revoke", vehicle);
  assert.equal((await old.upload()).status, 401);
  assert.equal((await old.verify()).body["verify"], false);
  const rsa = client(t, at, ["-t", "rsa"]);
  await at.order("rotate", vehicle, ...rsa.publicKey.split(" "));
  assert.equal((await rsa.verify()).body["vehicle_id"], vehicle);
  await assert.rejects(at.order("rotate", vehicle, ...weak.split(" ")), /RSA key of at least 2048 bits/);
  await assert.rejects(at.order("rotate", fresh.id, ...rsa.publicKey.split(" ")), /no ed25519/);

  let guesses = 0;
  const guess = async () => (await it.verify(`SHA256:${randomBytes(33).toString("base64").slice(0, 43)}`)).status;
  let answer = await guess();
  for (; guesses < 200 && answer === 401; guesses++) answer = await guess();
  assert.ok(guesses <= 70, `${guesses} guesses at once`);
  // The next may be answered again: each second allows one.
  assert.equal(answer, 429);
  at.clock.advance(60_000);
  assert.equal((await rsa.verify()).status, 200, "a minute later it is answered again");
});

test("what is whole gets its name once no session runs; nothing is written over, nothing is twice, litter goes", async (t) => {
  const at = await legacyStation(t);
  const it = client(t, at);
  const id = await admitted(at, it);
  const folder = String((await it.upload()).body["archive_folder"]);
  const incoming = at.door.open_.get(id) ?? "";
  const dir = dirname(incoming);
  const slot = (await at.catalogue.openSlots())[0]?.id ?? "";
  assert.ok(dir.endsWith(`/${folder}`));
  const arrive = (name: string, content: string) => writeFileSync(join(incoming, name), content, { mode: 0o400 });
  /** What arrived while it was looked through is seen by a later look. */
  const comes = (what: string, test: () => boolean) =>
    until(what, async () => {
      await at.slots.tick();
      return test();
    });
  const there = () => readdirSync(dir).sort();

  arrive("1.BIN", "one");
  arrive(".2.BIN.backup", "hidden, and whole");
  at.door.busy.add(id);
  await at.slots.tick();
  await at.slots.tick();
  assert.deepEqual(there(), [".incoming"]);
  at.door.busy.delete(id);
  await comes("the names", () => existsSync(join(dir, "1.BIN")) && existsSync(join(dir, ".2.BIN.backup")));
  const row = await at.catalogue.file(slot, "1.BIN");
  assert.deepEqual([row?.size, row?.digest], [3, sha256("one")]);

  arrive("1.BIN", "one");
  await comes("the same to go", () => !existsSync(join(incoming, "1.BIN")));
  arrive("1.BIN", "another");
  const other = `1~${sha256("another").slice(7, 15)}.BIN`;
  await comes("another's name", () => existsSync(join(dir, other)));
  assert.equal(readFileSync(join(dir, "1.BIN"), "utf8"), "one");
  assert.equal((await at.catalogue.file(slot, other))?.size, 7);
  await until("it to be said", () => at.said.some((line) => line.includes(`it is ${other} there`)));
  assert.deepEqual(await at.catalogue.used(id), { vehicle: 3 + 17 + 7, owner: 3 + 17 + 7 });

  // A kill between the record and the name, between the name's two links, and in the middle of rsync.
  await at.catalogue.addFile({ slot, path: "3.BIN", size: 5, digest: sha256("three"), committedMs: 1 });
  arrive("3.BIN", "three");
  linkSync(join(dir, "1.BIN"), join(incoming, "1.BIN"));
  mkdirSync(join(incoming, ".filesync-under-way"));
  writeFileSync(join(incoming, ".filesync-under-way", "4.BIN.AbCdEf"), "four, a lo");
  writeFileSync(join(incoming, ".filesync-under-way", "4.BIN.aaaaaa"), "four");
  // What else rsync may be asked for.
  mkdirSync(join(incoming, "sub", "dir"), { recursive: true });
  writeFileSync(join(incoming, "sub", "dir", "x"), "x");
  symlinkSync("/etc/passwd", join(incoming, "link"));
  writeFileSync(Buffer.from(`${incoming}/\xff.BIN`, "latin1"), "bytes");
  const again = await at.restarted();
  await until("the third", async () => {
    await again.slots.tick();
    return existsSync(join(dir, "3.BIN")) && readdirSync(dir, { encoding: "latin1" }).includes("\xff.BIN");
  });
  await until("what was cut", () => existsSync(join(incoming, ".filesync-cut", "4.BIN")));
  assert.equal(readFileSync(join(incoming, ".filesync-cut", "4.BIN"), "utf8"), "four, a lo");
  again.clock.advance(601_000);
  await again.slots.tick();
  assert.ok(!again.door.open_.has(id));
  assert.deepEqual(readdirSync(incoming, { recursive: true }).sort(), [".filesync-cut", ".filesync-cut/4.BIN"]);
  assert.equal(readFileSync(join(dir, "1.BIN"), "utf8"), "one");

  // What was cut goes on in the next slot, and is in one place only.
  const next = client(t, again);
  for (const end of ["", ".pub"]) writeFileSync(`${next.identity}${end}`, readFileSync(`${it.identity}${end}`));
  again.clock.jumpWall(60_000);
  const second = String((await next.upload()).body["archive_folder"]);
  assert.notEqual(second, folder);
  assert.equal(readFileSync(join(dirname(dir), second, ".incoming", ".filesync-cut", "4.BIN"), "utf8"), "four, a lo");
  assert.deepEqual(there(), [".2.BIN.backup", "1.BIN", other, "3.BIN", "\ufffd.BIN"].sort());

  // Switched off: nobody comes in, and what is whole gets its name.
  writeFileSync(join(dirname(dir), second, ".incoming", "5.BIN"), "five");
  const off = await again.restarted({ legacy: false });
  assert.equal(readFileSync(join(dirname(dir), second, "5.BIN"), "utf8"), "five");
  assert.deepEqual([...off.door.open_.keys()], []);
  assert.deepEqual(await off.catalogue.openSlots(), []);
});

test("a quota, and the disk, hold: it is refused before it sends, and stopped where it sends more; what it cut is kept, and counts", async (t) => {
  const at = await legacyStation(t, { vehicleBytes: 2000 });
  const it = client(t, at);
  const id = await admitted(at, it);
  assert.equal((await it.upload()).status, 200);
  const incoming = at.door.open_.get(id) ?? "";
  mkdirSync(join(incoming, ".filesync-under-way"));
  writeFileSync(join(incoming, "whole.BIN"), Buffer.alloc(900));
  writeFileSync(join(incoming, ".filesync-under-way", "long.BIN.aaaaaa"), Buffer.alloc(1000));
  at.door.busy.add(id);
  await at.slots.tick();
  assert.ok(at.door.open_.has(id), "there is room yet");
  writeFileSync(join(incoming, ".filesync-under-way", "long.BIN.aaaaaa"), Buffer.alloc(1200));
  await at.slots.tick();
  assert.ok(!at.door.open_.has(id));
  assert.ok(at.said.some((line) => /more than there is room for/.test(line)));
  assert.equal(statSync(join(dirname(incoming), "whole.BIN")).size, 900, "its vehicle has put it away");
  await at.order("quota", id, "2200B");
  assert.equal((await it.upload()).status, 200, "more is allowed");
  const next = at.door.open_.get(id) ?? "";
  assert.equal(statSync(join(next, ".filesync-cut", "long.BIN")).size, 1200);
  await at.order("quota", id, "default");
  const refused = await it.upload();
  assert.equal(refused.status, 413);
  assert.match(String(refused.body["msg"]), /do not fit/);

  // What lies too deep to be counted goes, as all directories do.
  await at.order("quota", id, "1MB");
  assert.equal((await it.upload()).status, 200);
  const last = at.door.open_.get(id) ?? "";
  mkdirSync(join(last, ...Array.from({ length: 12 }, () => "d".repeat(200))), { recursive: true });
  at.door.busy.add(id);
  await at.slots.tick();
  assert.ok(!at.door.open_.has(id));
  assert.deepEqual(readdirSync(last), [".filesync-cut"]);

  const full = await legacyStation(t, { keepFreeBytes: 2 ** 60 });
  const other = client(t, full);
  await admitted(full, other);
  assert.equal((await other.upload()).status, 507);
});

interface Door {
  readonly door: DoorAtWork;
  readonly slot: string;
  /** ssh as the legacy vehicle; `shared`: over one connection, which saves the handshakes. */
  readonly ssh: (...words: string[]) => string[];
  readonly shared: (...words: string[]) => string[];
  /** rsync as it, which lies to its own end about what it was asked for: the door sees what APSync's client says. */
  readonly liar: (...words: string[]) => string[];
}

async function legacyDoor(t: TestContext): Promise<Door> {
  const door = doorIn(t, { options: { legacy: true } });
  await door.start();
  await door.ask("setKeys", [
    { vehicle: "old-1", publicKey: door.key("old-1", "rsa"), legacy: true },
    { vehicle: "plane-2", publicKey: door.key("plane-2") },
  ]);
  for (const vehicle of ["old-1", "plane-2"]) await door.ask("open", vehicle, door.makeDir(`slots-${vehicle}`));
  const ssh = (...words: string[]) => door.ssh("old-1", ...words);
  const socket = join(door.base, "shared");
  const shared = (...words: string[]) => ssh("-S", socket, ...words);
  const words = `exec ${shared(door.host).join(" ")} 'rsync --server -vlHogDtprze.iLsfxCIvu . ~'\n`;
  const liar = door.writeFile("liar", `#!/bin/sh\n${words}`, 0o755);
  return {
    door,
    slot: door.slot("old-1"),
    ssh,
    shared,
    liar: (...more) => ["rsync", "-e", liar, "--timeout=30", ...more, `${door.host}:~`],
  };
}

/** Bytes of rsync's protocol 29, as far as a list of files: it needs no answer, so any name can be in it. */
function listOf(...files: readonly { readonly name: string; readonly mode: number; readonly link?: string }[]): Buffer {
  const int = (n: number) => {
    const bytes = Buffer.alloc(4);
    bytes.writeInt32LE(n);
    return bytes;
  };
  const longName = 0x40;
  const parts = files.flatMap(({ name, mode, link }) => [
    ...[Buffer.from([longName]), int(Buffer.byteLength(name)), Buffer.from(name), int(0), int(1), int(mode), int(0), int(0)],
    ...(link === undefined ? [] : [int(Buffer.byteLength(link)), Buffer.from(link)]),
  ]);
  return Buffer.concat([int(29), ...parts, Buffer.from([0]), int(0), int(0), int(0)]);
}

test("the door takes what APSync's client asks for, wherever it wants it, and nothing else of a legacy key", with_(noDoor), async (t) => {
  const { door, slot, ssh, shared, liar } = await legacyDoor(t);
  const { host, base } = door;
  const outside = door.makeDir("outside");
  const secret = `secret-${randomBytes(8).toString("hex")}`;
  door.writeFile("outside/secret", `${secret}\n`);
  writeFileSync(door.slot("plane-2", "theirs"), `${secret}\n`);
  const before = [readdirSync(outside), statSync(outside).mtimeMs, readdirSync(door.slot("plane-2"))];
  const master = begin(ssh("-M", "-N", "-S", `${base}/shared`, host));
  await until("a connection", () => existsSync(`${base}/shared`));
  const whole = () => readdirSync(slot).filter((it) => !it.startsWith(".filesync-"));
  const harmless = (what: string, text: string) => {
    assert.ok(!text.includes(secret), `${what} told the secret: ${text}`);
    assert.deepEqual([readdirSync(outside), statSync(outside).mtimeMs, readdirSync(door.slot("plane-2"))], before, what);
    for (const name of readdirSync(slot, { recursive: true, encoding: "utf8" }))
      if (statSync(join(slot, name), { throwIfNoEntry: false })?.isFile() === true)
        assert.ok(!readFileSync(join(slot, name), "latin1").includes(secret), `${what}: ${name}`);
  };
  const file = door.writeFile("0001.BIN", "a log\n");

  for (const to of ["~", ".", "/etc", "../x", `${outside}/x`, "x", `$(touch ${outside}/t)`, `; touch ${outside}/t`, "a b", ""]) {
    rmSync(join(slot, "0001.BIN"), { force: true });
    const { code, out, err } = await run(["rsync", "-ahHzv", "-e", shared().join(" "), file, `${host}:${to}`]);
    assert.equal(code, 0, `${to}: ${err}`);
    harmless(to, out + err);
    assert.deepEqual(whole(), ["0001.BIN"], to);
  }

  const letters = "vlHogDtprze.iLsfxCIvu";
  const typed = [
    ...["id", "", "sh", "rsync", "scp -t .", "internal-sftp", `cat ${outside}/secret`],
    ...[`rsync --server --sender -${letters} . ~`, `rsync --server -${letters} --sender . ~`, `rsync  --server -${letters} . ~`],
    ...["--delete", "--remove-source-files", "--inplace", "--append", "-s", "--write-devices", `--log-file=${outside}/t`].map(
      (it) => `rsync --server -${letters} ${it} . ~`,
    ),
    ...[
      `--partial-dir=${outside}`,
      `--temp-dir=${outside}`,
      `--copy-dest=${outside}`,
      `--files-from=${outside}/secret`,
      "--no-munge-links",
    ].map((it) => `rsync --server -${letters} ${it} . ~`),
    ...["m", "K", "k", "L", "R", "d", "b", "u", "c", "s", "n", "-"].map((it) => `rsync --server -v${it}lHogDtprze.iLsfxCIvu . ~`),
    ...["-vlHogDtprz", "-vle", "-e.Ls", "-vle.L-s", "-vle..", "-vle.L;id", "-vlex", "-", "vle.Ls", "-v\tle.Ls"].map(
      (it) => `rsync --server ${it} . ~`,
    ),
    ...[
      `rsync --server -${letters} .`,
      `rsync --server -${letters} ~`,
      `rsync --server -${letters}\n. ~`,
      `\nrsync --server -${letters} . ~`,
    ],
    ...[`/usr/bin/rsync --server -${letters} . ~`, `env rsync --server -${letters} . ~`, `rsync --server --daemon .`],
  ];
  for (const command of typed) {
    const { code, out, err } = await run([...shared(host), command], "junk that is no protocol\n");
    assert.equal(code, 2, `${command}: ${out}${err}`);
    assert.match(err, /only what APSync asks of rsync is taken here/, command);
    harmless(command, out + err);
  }
  assert.notEqual((await run([...ssh("-tt", host), "id"])).code, 0);
  assert.notEqual(
    (
      await run(
        [
          "sftp",
          "-b",
          "-",
          "-F",
          "none",
          "-i",
          join(base, "old-1.key"),
          "-P",
          `${door.port}`,
          "-o",
          `UserKnownHostsFile=${base}/known_hosts`,
          host,
        ],
        "ls\n",
      )
    ).code,
    0,
  );
  const back = await run(ssh("-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:9", host));
  assert.match(back.err, /remote port forwarding failed/);

  // What a client may send that asks as APSync's does: links, hard links, trees, devices, modes.
  const mine = join(base, "mine");
  mkdirSync(join(mine, "tree"), { recursive: true });
  writeFileSync(join(mine, "tree", "x"), "x");
  symlinkSync(outside, join(mine, "out"));
  symlinkSync(`${outside}/secret`, join(mine, "secret"));
  writeFileSync(join(mine, "a"), "linked");
  linkSync(join(mine, "a"), join(mine, "b"));
  if (process.getuid?.() === 0) {
    await run(["mknod", join(mine, "zero"), "c", "1", "5"]);
    await run(["mknod", join(mine, "disk"), "b", "7", "0"]);
  }
  const tries = async (what: string, argv: string[]) => {
    const { code, out, err } = await run(argv);
    harmless(what, out + err);
    // An attack that never came in proves nothing.
    assert.notEqual(code, 255, `${what}: ${err}`);
  };
  await tries("all of -a", liar("-ahHzv", `${mine}/`));
  for (const name of ["zero", "disk", "out/secret", "secret"]) assert.ok(!existsSync(join(slot, name)), name);
  assert.equal(readFileSync(join(slot, "tree", "x"), "utf8"), "x", "it came so far");
  for (const own of [".filesync-under-way", ".filesync-cut"]) symlinkSync(outside, join(mine, own));
  for (const _ of [1, 2]) await tries("links for our own directories", liar("-ahHzv", `${mine}/`));
  for (const name of readdirSync(slot)) rmSync(join(slot, name), { recursive: true });
  mkdirSync(join(base, "through", "out"), { recursive: true });
  writeFileSync(join(base, "through", "out", "x"), "x");
  for (const options of [["-ahHzv"], ["-ahHzvK"], ["-ahHzv", "--inplace"], ["-ahHzv", "--delete"], ["-ahHzvR"]])
    await tries(options.join(" "), liar(...options, `${base}/through/`));
  writeFileSync(join(base, "through", "secret"), "through a link\n");
  await tries("through a link", liar("-ahHzv", "--inplace", join(base, "through", "secret")));
  await tries("reading", ["rsync", "-a", "-e", shared().join(" "), `${host}:~/0001.BIN`, join(base, "read")]);
  assert.ok(!existsSync(join(base, "read")));

  // Names that no rsync would send.
  const [plain, link] = [0o100644, 0o120777];
  const raw = async (what: string, list: Buffer) => {
    const { out, err } = await run([...shared(host), `rsync --server -${letters} . ~`], list);
    harmless(what, out + err);
    return out + err;
  };
  for (const name of ["../x", "a/../../x", `${outside}/x`, "/x", ".."])
    assert.match(await raw(name, listOf({ name, mode: plain })), /unsafe pathname|ABORTING|rsync error/, name);
  await raw("a link and what is below it", listOf({ name: "l", mode: link, link: outside }, { name: "l/x", mode: plain }));
  assert.ok(!existsSync(join(slot, "l", "secret")));
  assert.equal(master.child.exitCode, null, "all of it came in");
  await until("nobody to be busy", async () => (await door.ask("isBusy", "old-1")) === false);
});

/** What rsync has under way. */
function bytesUnderWay(slot: string): number {
  const dir = join(slot, ".filesync-under-way");
  return existsSync(dir) ? readdirSync(dir).reduce((sum, name) => sum + statSync(join(dir, name)).size, 0) : 0;
}

test("only that key, never with SHA-1; what sshd makes of it; one session at a time", with_(noDoor), async (t) => {
  const { door, slot, ssh } = await legacyDoor(t);
  const { host, base } = door;
  const ask = "rsync --server -vlHogDtprze.iLsfxCIvu . ~";
  const denied = /Permission denied \(publickey\)/;
  for (const algorithm of ["ssh-rsa", "ssh-rsa-cert-v01@openssh.com"])
    assert.match((await run([...ssh("-o", `PubkeyAcceptedAlgorithms=${algorithm}`, host), ask])).err, denied, algorithm);
  for (const algorithm of ["rsa-sha2-256", "rsa-sha2-512"])
    assert.doesNotMatch((await run([...ssh("-o", `PubkeyAcceptedAlgorithms=${algorithm}`, host), ask])).err, denied, algorithm);
  door.key("stranger", "rsa");
  assert.match((await run([...door.ssh("stranger", host), ask])).err, denied);
  // A vehicle of the new kind has its own command, and an RSA key of that kind is none.
  assert.match((await run([...door.ssh("plane-2", host), `${ask}x`])).err, /rrsync error|protocol/);
  await assert.rejects(door.ask("setKeys", [{ vehicle: "plane-2", publicKey: door.key("old-1") }]), /no ed25519 key/);

  // Where root asks it, sshd wants what its own service makes at each start of the machine.
  if (process.getuid?.() === 0) mkdirSync("/run/sshd", { recursive: true });
  const told = async (text: string) => {
    const file = door.writeFile("tried_config", text);
    return (await run(["/usr/sbin/sshd", "-T", "-f", file])).out.split("\n").sort();
  };
  const written = readFileSync(join(door.dir, "sshd_config"), "utf8");
  const on = await told(written);
  const off = await told(written.replace(/^PubkeyAcceptedAlgorithms .*/m, "PubkeyAcceptedAlgorithms ssh-ed25519"));
  assert.deepEqual(
    on.filter((line) => !off.includes(line)),
    ["pubkeyacceptedalgorithms ssh-ed25519,rsa-sha2-512,rsa-sha2-256"],
  );
  const without = doorIn(t);
  await without.start();
  assert.ok(!existsSync(join(without.dir, "enter-legacy")));
  assert.deepEqual(await told(readFileSync(join(without.dir, "sshd_config"), "utf8").replaceAll(without.dir, door.dir)), off);

  const log = door.writeFile("long.BIN", randomBytes(2 ** 24).toString("hex"));
  const words = ["rsync", "-ahHzv", "-e", ssh().join(" "), log, `${host}:~`];
  const first = begin(words);
  // With bytes: of an empty one nothing is kept.
  await until("it to have begun", () => bytesUnderWay(slot) > 0);
  first.child.kill("SIGSTOP");
  const second = await run(words);
  assert.match(second.err, /another session of this vehicle has not ended/);
  assert.deepEqual(readdirSync(slot), [".filesync-under-way"]);
  first.child.kill("SIGKILL");
  await first.ended;
  await until("what came to be kept", () => existsSync(join(slot, ".filesync-cut", "long.BIN")));

  // What was set holds after a kill, also for an RSA key.
  await door.kill();
  await until("nothing to be left", () => door.left().length === 0);
  await door.start();
  assert.equal((await run(["rsync", "-ahHzv", "-e", ssh().join(" "), door.writeFile("1.BIN", "1"), `${host}:~`])).code, 0);
  assert.ok(existsSync(join(slot, "1.BIN")), base);
});

const missing = ["openssl", "flock"].find((it) => spawnSync("sh", ["-c", `command -v ${it}`]).status !== 0);
const flightBytes = 32 * 2 ** 20;

test(
  "from nothing to archived logs, as APSync's client does it: a link that is cut, a station that is killed; one folder, nothing sent twice, all proved",
  with_(noDoor ?? missing),
  async (t) => {
    const [webPort, doorPort] = [await freePort(), await freePort()];
    const relay = await CountingRelay.start(doorPort);
    const dir = mkdtempSync(join(tmpdir(), "filesync-apsync-"));
    // In this order: what writes there may keep it from being removed, and where a hook fails node runs none that follows.
    t.after(async () => {
      relay.close();
      await Program.killBelow(dir);
      rmSync(dir, { recursive: true, force: true });
    });
    const post = await mailServer(t);
    const { host, port, from } = post.options;
    const config = join(dir, "config.json");
    const registry = {
      ...{
        type: "registry",
        listen: `127.0.0.1:${webPort}`,
        proxy: true,
        publicUrl: "https://ground.example.org",
        root: "vehicles",
        legacy: true,
      },
      ...{ door: { listen: `127.0.0.1:${doorPort}`, port: relay.port }, slotIdle: "6s", keepFree: 0 },
      mail: { host, port, secure: false, user: "u", password: "p", from },
    };
    writeFileSync(config, JSON.stringify({ stateDir: "state", services: { registry } }));
    const start = async () => {
      const program = new Program(["run", "--json", "--config", config]);
      const { facts } = await program.until(({ facts }) => facts?.["user"] !== undefined, "the door's start");
      await program.until(({ facts }) => facts?.["doorPort"] !== undefined, "the registry's start");
      return { program, user: String(facts?.["user"]) };
    };
    const { program: first, user } = await start();
    let ground = first;
    const it = new ApsyncClient(dir, { webPort, sshPort: relay.port, user });
    assert.equal((await it.register("pilot@example.org")).status, 200);
    const link = linkIn(await post.next());
    const page = `http://127.0.0.1:${webPort}${link}`;
    assert.equal((await fetch(page)).status, 200);
    assert.equal((await it.verify()).body["verify"], false);
    assert.equal((await fetch(page, { method: "POST" })).status, 200);
    const verified = (await it.verify()).body;
    assert.deepEqual([verified["verify"], String(verified["msg"]).includes(`port ${relay.port}, user ${user}`)], [true, true]);

    const vehicle = join(dir, "vehicles", String(verified["user_id"]), String(verified["vehicle_id"]));
    const digests = new Map<string, string>();
    const fly = (name: string, bytes: number) => {
      const content = randomBytes(bytes);
      digests.set(name, sha256(content));
      writeFileSync(join(it.logs, name), content);
    };
    /** Of what it had sent. */
    const cutInMiddle = async (name: string, cut: () => Promise<void> | void): Promise<number> => {
      const before = relay.sentBytes;
      const round = it.round();
      await until("half of it", () => relay.sentBytes - before > flightBytes / 2, 30_000);
      await cut();
      assert.equal(await round, undefined);
      const kept = () => join(vehicle, readdirSync(vehicle)[0] ?? "", ".incoming", ".filesync-cut", name);
      await until("what came to be kept", () => existsSync(kept()));
      await until("its session to have ended", () => spawnSync("pgrep", ["-f", `confine-root=${dir}|FILESYNC_DOOR=${dir}`]).status !== 0);
      const { size } = statSync(kept());
      assert.ok(size > flightBytes / 4, `${size} bytes had come`);
      return size;
    };
    const goesOn = async (name: string, had: number): Promise<string> => {
      const before = relay.sentBytes;
      let archived: string | undefined;
      await until(`${name} in the archive`, async () => (archived = await it.round().catch(() => undefined)) !== undefined, 30_000);
      const sent = relay.sentBytes - before;
      t.diagnostic(`${name}: ${had} of ${flightBytes} bytes had come, ${sent} more were sent`);
      assert.ok(sent <= flightBytes - had + 2 ** 20, `${sent} bytes were sent, and ${had} of ${flightBytes} had come`);
      return archived ?? "";
    };

    const archived: string[] = [];
    fly("00000001.BIN", flightBytes);
    archived.push(await goesOn("00000001.BIN", await cutInMiddle("00000001.BIN", () => relay.cut())));
    fly("00000002.BIN", flightBytes);
    const killed = await cutInMiddle("00000002.BIN", () => ground.kill());
    ({ program: ground } = await start());
    archived.push(await goesOn("00000002.BIN", killed));
    fly("00000003.BIN", 2 ** 20);
    archived.push((await it.round()) ?? "");
    const folder = dirname(archived[0] ?? "");
    assert.deepEqual(
      archived.map((path) => path.split("/")),
      ["1", "2", "3"].map((n) => [folder, `0000000${n}.BIN`]),
    );

    // Published, closed, tidied.
    await until("the end of the slot", () => !existsSync(join(vehicle, folder, ".incoming")), 30_000);
    assert.deepEqual(readdirSync(join(dir, "vehicles"), { recursive: true }).length, 3 + 3, "no litter");
    const listed = await runProgram(["registry", "list", "--json", "--config", config]);
    assert.match(listed.out, /"legacy": ?true/);
    fly("00000004.BIN", 1000);
    const next = (await it.round()) ?? "";
    assert.notEqual(dirname(next), folder, "the next flight has its own");
    ground.signal("SIGTERM");
    assert.equal(await ground.exited, 0);
    assert.equal(it.errors.includes("Permission denied"), false, it.errors);

    // What was not published yet is at the next start.
    ({ program: ground } = await start());
    await until("the fourth", () => existsSync(join(vehicle, next)));
    ground.signal("SIGTERM");
    assert.equal(await ground.exited, 0);
    // What is killed is gone a moment later.
    await until("no program to be left", () => spawnSync("pgrep", ["-f", dir], { encoding: "utf8" }).stdout === "");
    const found =
      readdirSync(join(dir, "state"), { recursive: true, encoding: "utf8" }).find((path) => path.endsWith("registry.sqlite")) ?? "";
    const catalogue = await openDatabase(join(dir, "state", found));
    const rows = catalogue
      .prepare("SELECT s.name AS folder, f.path, f.size, f.digest FROM files f JOIN slots s ON s.id = f.slot ORDER BY f.path")
      .all();
    catalogue.close();
    assert.equal(rows.length, 4);
    for (const [n, row] of (rows as { folder: string; path: string; size: number; digest: string }[]).entries()) {
      const path = [...archived, next][n] ?? "";
      assert.equal(join(row.folder, row.path), path);
      const [arrived, put] = [readFileSync(join(vehicle, path)), readFileSync(join(it.archive, path))];
      assert.deepEqual([row.size, row.digest], [arrived.length, sha256(arrived)]);
      assert.deepEqual([sha256(arrived), sha256(put)], [digests.get(row.path), digests.get(row.path)], path);
    }
  },
);
