/** Vehicles' accounts at the FTP server: the registry by its API, and the real server beside it. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test, type TestContext } from "node:test";
import { startOwn } from "../../test/conformance/ftp-servers.js";
import { RawFtp } from "../../test/conformance/raw-ftp.js";
import { plane, refusedAs, registered, signed, station, type Station, until } from "../../test/doubles/station.js";
import { runProgram } from "../../test/faults/process.js";
import type { FtpServer } from "../ftp-server/server.js";
import * as wire from "./wire.js";

const signal = new AbortController().signal;

/** The FTP server of a station, which knows nothing of it but the file. */
async function ftpServer(t: TestContext, at: Station): Promise<FtpServer> {
  const dir = dirname(at.root);
  const server = await startOwn({ root: join(dir, "ftp"), usersFile: join(dir, "ftp-users.json") });
  t.after(() => server.close());
  return server;
}

const usersOf = (at: Station) =>
  (JSON.parse(readFileSync(join(dirname(at.root), "ftp-users.json"), "utf8")) as { users: Record<string, Record<string, unknown>> }).users;

const letIn = async (server: FtpServer, user: string, password: string, localAddress: string): Promise<string> => {
  const client = new RawFtp(server.port ?? 0, { localAddress });
  await client.answer();
  await client.ask(`USER ${user}`);
  const said = await client.ask(`PASS ${password}`);
  client.close();
  return said.slice(0, 3);
};

test("a vehicle gets a password for FTP, by its key or from the operator: shown once, the one before ends, and a new key ends it too", async (t) => {
  const at = await station(t, { ftp: { host: "ftp.example.org", port: 2100 } });
  const server = await ftpServer(t, at);
  const it = await registered(t, at, "plane");
  assert.deepEqual(usersOf(at), {}, "who asked for none has no account");
  const first = await it.client.ftpPassword(signal);
  assert.deepEqual({ ...first, password: "" }, { host: "ftp.example.org", port: 2100, user: it.id, password: "" });
  assert.match(first.password, /^[A-Za-z3-9]{24}$/);
  assert.equal(await letIn(server, it.id, first.password, "127.0.0.2"), "230");

  const said = (await at.order("password", "plane")).join("\n");
  const second = /^password {2}(\S+)$/m.exec(said)?.[1] ?? "";
  assert.match(said, new RegExp(`^${it.id} sends by FTP to ftp\\.example\\.org, port 2100, in clear\\nuser {6}${it.id}\\n`));
  assert.equal(await letIn(server, it.id, first.password, "127.0.0.3"), "530");
  assert.equal(await letIn(server, it.id, second, "127.0.0.4"), "230");
  assert.match((await at.order("list")).join("\n"), / {2}FTP$/);
  const dir = dirname(at.root);
  assert.equal(statSync(join(dir, "ftp-users.json")).mode & 0o777, 0o600);
  for (const name of readdirSync(dir).filter((name) => statSync(join(dir, name)).isFile()))
    for (const password of [first.password, second])
      assert.equal(readFileSync(join(dir, name)).includes(password), false, `${name} has it`);
  assert.equal(at.said.join("\n").includes(second), false);

  // A new key, from the operator or by the old one.
  const other = await plane(t, at);
  const rotated = await at.order("rotate", it.id, ...other.signer.publicKey.split(" "));
  assert.match(rotated.join("\n"), new RegExp(`filesync registry password ${it.id}`));
  assert.equal(await letIn(server, it.id, second, "127.0.0.5"), "530");
  assert.doesNotMatch((await at.order("list")).join("\n"), /FTP/);
  await other.client.ftpPassword(signal);
  const { signer } = await plane(t, at);
  const { challenge } = (await (await fetch(`${at.url}${wire.paths.challenge}`)).json()) as { challenge: string };
  const text = wire.signedText({ station: "station-1", method: "POST", path: wire.paths.key, body: new Uint8Array(), challenge });
  const own = await signed(other, "POST", wire.paths.key, { publicKey: signer.publicKey, signature: signer.sign(text) }, { challenge });
  assert.equal(own.status, 200);
  assert.deepEqual(usersOf(at), {});
});

test("a password for FTP is for who signs, once, and is not revoked; not without end; and where there is an FTP server", async (t) => {
  const at = await station(t, { ftp: {} });
  const it = await registered(t, at, "plane");
  const path = wire.paths.ftpPassword;
  assert.equal((await fetch(`${at.url}${path}`, { method: "POST" })).status, 401);
  assert.equal((await signed(it, "POST", path, {}, { signature: "AAAA" })).error, "signature");
  const once_ = await signed(it, "POST", path, {});
  assert.equal(once_.status, 200);
  assert.equal((await signed(it, "POST", path, {}, { challenge: once_.challenge })).error, "challenge", "what was heard is worth nothing");
  const stranger = await plane(t, at);
  assert.equal((await signed(stranger, "POST", path, {})).error, "unknown-key");
  for (let n = 0; n < 4; n++) await it.client.ftpPassword(signal);
  await assert.rejects(it.client.ftpPassword(signal), refusedAs("too-many"));
  at.clock.advance(60_000);
  await it.client.ftpPassword(signal);

  // Between the question and the answer: neither who is out nor who came with an old key has one.
  const [before] = await at.catalogue.vehicles();
  assert.ok(before);
  await at.order("revoke", it.id);
  assert.deepEqual(usersOf(at), {});
  assert.equal((await at.catalogue.vehicle(it.id))?.ftpHash, undefined, "nothing of it is kept");
  await assert.rejects(it.client.ftpPassword(signal), refusedAs("revoked"));
  await assert.rejects(at.order("password", it.id), /is revoked/);
  await assert.rejects(at.ftp?.password(before) ?? Promise.resolve(), /revoked/);
  await at.order("rotate", it.id, ...stranger.signer.publicKey.split(" "));
  assert.deepEqual(usersOf(at), {}, "the password does not come back");
  await assert.rejects(at.ftp?.password(before) ?? Promise.resolve(), /changed meanwhile/);

  const without = await station(t);
  const there = await registered(t, without, "plane");
  assert.equal((await there.client.about(signal)).ftp, false);
  await assert.rejects(there.client.ftpPassword(signal), refusedAs("not-found"));
  await assert.rejects(without.order("password", there.id), /no accounts at an FTP server/);
  const dir = dirname(without.root);
  writeFileSync(join(dir, "config.json"), JSON.stringify({ stateDir: "state", devices: { in: { type: "local", dir: "in" } } }));
  const words = ["register", "--ftp", "--config", join(dir, "config.json"), "--server", without.url, "--email", "new@example.org"];
  const { code, err } = await runProgram(words);
  assert.equal(code, 2);
  assert.match(err, /no accounts at an FTP server, and nothing was registered/);
  assert.deepEqual(await without.catalogue.allPending(), []);
});

test("revoked and deleted vehicles are logged out of the FTP server, also in the middle of an upload; delete takes their directories", async (t) => {
  const at = await station(t, { ftp: {} });
  const server = await ftpServer(t, at);
  const [one, two] = [await registered(t, at, "one"), await registered(t, at, "two", "other@example.org")];
  const begun = async ({ id, client }: typeof one) => {
    const ftp = await RawFtp.login(server.port ?? 0, id, (await client.ftpPassword(signal)).password);
    const data = await ftp.data();
    assert.match(await ftp.ask("STOR a.bin"), /^150/);
    data.write(Buffer.alloc(1000));
    return ftp;
  };
  const [first, second] = [await begun(one), await begun(two)];
  const ftpRoot = join(dirname(at.root), "ftp");
  await until(() => [one, two].every(({ id }) => statSync(join(ftpRoot, id, "a.bin")).size === 1000));
  await at.order("revoke", one.id);
  assert.match(await first.answer(), /^421 This account, or its password, was taken away/);
  assert.equal(statSync(join(ftpRoot, one.id, "a.bin")).size, 1000, "what it sent stays");
  assert.deepEqual(Object.keys(usersOf(at)), [two.id]);
  await at.order("delete", "other@example.org");
  assert.match(await second.answer(), /^421 This account, or its password, was taken away/);
  assert.deepEqual(readdirSync(ftpRoot), [one.id]);
});

test("what came by FTP counts for the quotas of the vehicle and of its owner, whatever it is called; over it nothing more is taken until there is room", async (t) => {
  const at = await station(t, { ftp: {}, slots: { vehicleBytes: 10_000, ownerBytes: 15_000 } });
  const server = await ftpServer(t, at);
  const [one, two] = [await registered(t, at, "one"), await registered(t, at, "two")];
  const ftp = await RawFtp.login(server.port ?? 0, one.id, (await one.client.ftpPassword(signal)).password);
  await two.client.ftpPassword(signal);
  const walked = async (is: () => boolean | Promise<boolean>) => {
    at.clock.advance(60_000);
    at.ftp?.tick();
    await until(is);
  };
  const mayWrite = ({ id }: typeof one) => usersOf(at)[id]?.write;
  const used = async ({ id }: typeof one) => (await at.catalogue.used(id)).vehicle;

  await ftp.ask("MKD d");
  assert.match(await ftp.store("STOR d/‛FF.bin", Buffer.alloc(9_999)), /^226/);
  assert.ok(readdirSync(join(dirname(at.root), "ftp", one.id, "d"), { encoding: "buffer" })[0]?.includes(0xff), "no UTF-8");
  at.ftp?.tick();
  assert.equal(await used(one), 0, "at most once a minute");
  await walked(async () => (await used(one)) === 9_999);
  assert.equal(mayWrite(one), true, "there is room");
  assert.match((await at.order("list")).join("\n"), new RegExp(`${one.id}  "one" of pilot@example.org  10.0 kB`));
  const { id: slot } = await one.client.slot({}, signal);
  await assert.rejects(one.client.announce(slot, { partial: ".a.part", path: "a", size: 2 }, signal), refusedAs("quota"));

  assert.match(await ftp.store("STOR one-more.bin", Buffer.alloc(1)), /^226/);
  await walked(() => mayWrite(one) === false);
  assert.equal(usersOf(at)[one.id]?.full, "The quota of this vehicle (10 kB) is used up.");
  assert.equal(mayWrite(two), true);
  await until(async () => /^552 The quota of this vehicle/.test(await ftp.store("STOR more.bin", Buffer.alloc(1))));
  const warned = () => at.said.filter((said) => said.startsWith(`${one.id} may send no more by FTP`)).length;
  await walked(() => true);
  assert.equal(warned(), 1, "said once");

  // The owner's quota is the other vehicle's too.
  mkdirSync(join(dirname(at.root), "ftp", two.id), { recursive: true });
  writeFileSync(join(dirname(at.root), "ftp", two.id, "b.bin"), Buffer.alloc(6_000));
  await walked(() => mayWrite(two) === false);
  assert.match(String(usersOf(at)[two.id]?.full), /of its owner/);

  // After a restart too, before anything was walked.
  const again = await at.restarted();
  assert.equal(usersOf(again)[one.id]?.write, false);
  await again.order("quota", one.id, "1MB");
  await again.order("quota", "pilot@example.org", "1MB");
  assert.deepEqual([usersOf(again)[one.id]?.write, usersOf(again)[two.id]?.write], [true, true], "at once");
  assert.ok(again.said.includes(`${one.id} may send by FTP again`));
});

test("the users' file: written at each start, and again where it could not be; told once; never where users reach it", async (t) => {
  const at = await station(t, { ftp: {} });
  const it = await registered(t, at, "plane");
  await it.client.ftpPassword(signal);
  const file = join(dirname(at.root), "ftp-users.json");
  rmSync(file);
  const again = await at.restarted();
  assert.deepEqual(Object.keys(usersOf(again)), [it.id]);
  // What cannot be replaced: even root cannot rename a file over a directory.
  rmSync(file);
  mkdirSync(file);
  await assert.rejects(again.order("revoke", it.id), /cannot write .*ftp-users\.json, so the FTP server goes by what it had/);
  for (let n = 0; n < 2; n++) again.ftp?.tick();
  await until(() => again.said.some((said) => said.includes("cannot write")));
  rmSync(file, { recursive: true });
  again.ftp?.tick();
  await until(() => {
    again.ftp?.tick();
    return existsSync(file);
  });
  assert.deepEqual(usersOf(again), {});
  assert.equal(again.said.filter((said) => said.includes("cannot write")).length, 1);
  const root = dirname(at.root);
  await assert.rejects(station(t, { ftp: { root, usersFile: join(root, "users.json") } }), /put it elsewhere/);
});
