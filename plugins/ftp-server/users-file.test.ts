/** Users in a file that somebody writes while the server runs: let in, let out, and what is wrong with the file. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, promises as fs } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { isFault } from "../../core/errors.js";
import { writeDurable } from "../../core/fs.js";
import { hashPassword } from "../../core/password.js";
import { startOwn } from "../../test/conformance/ftp-servers.js";
import { RawFtp } from "../../test/conformance/raw-ftp.js";
import { bytes, context, realClock, type TestContext as Heard } from "../../test/conformance/upload.js";
import type { FtpServer } from "./server.js";

interface Served {
  readonly dir: string;
  readonly file: string;
  readonly server: FtpServer;
  readonly heard: Heard;
  /** Of wrong passwords, in ms. */
  readonly waits: readonly number[];
  real(path: string): string;
  write(users: Readonly<Record<string, unknown>>): Promise<void>;
  login(user: string, password?: string): Promise<RawFtp>;
  /** The answer to PASS. */
  tried(user: string, password?: string): Promise<string>;
}

const hash = hashPassword("p");

async function served(t: TestContext, given: Readonly<Record<string, unknown>> = {}): Promise<Served> {
  const dir = await fs.mkdtemp(join(tmpdir(), "filesync-users-"));
  const file = join(dir, "users.json");
  // Who guessed waits no real time.
  const waits: number[] = [];
  const sleep = (ms: number) => Promise.resolve(void waits.push(ms));
  const heard = context({ clock: { ...realClock(), sleep } });
  const server = await startOwn({ root: join(dir, "srv"), usersFile: file, ...given }, heard);
  t.after(async () => {
    await server.close();
    await fs.rm(dir, { recursive: true });
  });
  const port = server.port ?? 0;
  return {
    ...{ dir, file, server, heard, waits },
    real: (path) => join(dir, "srv", path),
    write: (users) => writeDurable(file, JSON.stringify({ users }), 0o600),
    login: (user, password = "p") => RawFtp.login(port, user, password),
    tried: async (user, password = "p") => {
      const client = new RawFtp(port);
      await client.answer();
      await client.ask(`USER ${user}`);
      const said = await client.ask(`PASS ${password}`);
      client.close();
      return said;
    },
  };
}

/** An upload that has begun and does not end. */
async function begun(client: RawFtp, path: string, content: Buffer) {
  const data = await client.data();
  assert.match(await client.ask(`STOR ${path}`), /^150/);
  data.write(content);
  return data;
}

async function until(seen: () => Promise<boolean>): Promise<void> {
  for (const end = performance.now() + 10_000; !(await seen());) {
    assert.ok(performance.now() < end, "it did not come to that");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const sizeOf = async (path: string): Promise<number> => (await fs.stat(path).catch(() => undefined))?.size ?? -1;

test("who is put into the file logs in at once, into a directory of their own; before there is a file nobody does", async (t) => {
  const it = await served(t);
  assert.match(await it.tried("plane-1"), /^530/);
  await it.write({ "plane-1": { passwordHash: await hash }, "plane-2": { passwordHash: await hash, root: "fleet/two", write: false } });
  const one = await it.login("plane-1");
  assert.match(await one.store("STOR a.bin", bytes(1000)), /^226/);
  assert.equal(await sizeOf(it.real("plane-1/a.bin")), 1000);
  const two = await it.login("plane-2");
  assert.match(await two.store("STOR a.bin", bytes(1000)), /^550 No right to write/);
  assert.equal(existsSync(it.real("fleet/two")), true);
  // What the server runs as could be led elsewhere by a link; so nobody is.
  await fs.symlink(it.dir, it.real("plane-1/out"));
  assert.match(await one.ask("CWD out"), /^550/);
  assert.match(await one.store("STOR out/b.bin", bytes(1)), /^550/);
  assert.deepEqual(
    it.heard.said.filter(({ level }) => level === "error"),
    [],
  );
});

test("who is taken out is logged out within a second and told why, also in the middle of an upload, which keeps what came", async (t) => {
  const it = await served(t, { users: { fixed: { password: "p" } } });
  const others = { stays: { passwordHash: await hash } };
  await it.write({ ...others, gone: { passwordHash: await hash } });
  const [gone, idle, stays, fixed] = [await it.login("gone"), await it.login("gone"), await it.login("stays"), await it.login("fixed")];
  const data = await begun(gone, "cut.bin", bytes(100_000));
  await until(async () => (await sizeOf(it.real("gone/cut.bin"))) === 100_000);
  const beforeMs = performance.now();
  await it.write(others);
  assert.match(await gone.answer(), /^421 This account, or its password, was taken away/);
  assert.match(await idle.answer(), /^421 This account, or its password, was taken away/);
  t.diagnostic(`logged out in ${Math.round(performance.now() - beforeMs)} ms`);
  assert.equal(await gone.answer(), "", "the connection ends");
  await until(async () => data.destroyed || Promise.resolve(data.closed));
  assert.equal(await sizeOf(it.real("gone/cut.bin")), 100_000);
  assert.match(await it.tried("gone"), /^530/);
  for (const client of [stays, fixed]) assert.match(await client.store("STOR on.bin", bytes(10)), /^226/);
  await it.heard.heard(/^gone from 127\.0\.0\.1 is logged out: This account, or its password, was taken away/);
  await it.heard.heard(/an upload of gone broke: gone\/cut\.bin has 100000 bytes/);
});

test("a new password ends who came with the old one", async (t) => {
  const it = await served(t);
  await it.write({ u: { passwordHash: await hash } });
  const before = await it.login("u");
  await it.write({ u: { passwordHash: await hashPassword("q") } });
  assert.match(await before.answer(), /^421 The password of this account was changed/);
  assert.match(await it.tried("u", "p"), /^530/);
  assert.match(await it.tried("u", "q"), /^230/);
});

test("who may write no more ends what runs; where there is only no room, what was sent gets its name", async (t) => {
  const it = await served(t);
  await it.write({ u: { passwordHash: await hash } });
  const client = await it.login("u");
  const data = await begun(client, ".a.bin.1.part", bytes(1000));
  const other = await it.login("u");
  await it.write({ u: { passwordHash: await hash, write: false, full: "The quota of 5 GB is used up." } });
  await until(async () => /^552 The quota of 5 GB is used up/.test(await other.store("STOR b.bin", bytes(1))));
  data.end(bytes(1000));
  assert.match(await client.answer(), /^226 2000/);
  assert.match(await client.ask("MFMT 20260101000000 .a.bin.1.part"), /^213/);
  assert.match(await client.ask("RNFR .a.bin.1.part"), /^350/);
  assert.match(await client.ask("RNTO a.bin"), /^250/);
  assert.match(await client.ask("MKD d"), /^552/);
  assert.match(await client.ask("AVBL"), /^213 0$/);
  assert.match(await client.ask("ALLO 1"), /^552/);
  assert.match(await client.ask("DELE a.bin"), /^250/, "that makes room");
  await it.write({ u: { passwordHash: await hash, write: false } });
  await until(async () => (await client.ask("MKD d")).startsWith("550"));
  await it.write({ u: { passwordHash: await hash } });
  await until(async () => (await client.ask("MKD d")).startsWith("257"));
});

test("what is wrong with the file is said once with its place, and keeps nobody else out", async (t) => {
  const it = await served(t, { users: { fixed: { password: "p" } } });
  const warned = () => it.heard.said.filter(({ level, message }) => level === "warn" && message.includes("users' file"));
  await it.write({ u: { passwordHash: await hash } });
  const before = await it.login("u");
  // At once: of a file that is just being written another thing is wrong.
  await writeDurable(it.file, `{ "users": {\n "u": { "passwordHash": "${await hash}" } `, 0o600);
  assert.match(await before.answer(), /^421/, "nobody knows whether that one may stay");
  for (let n = 0; n < 2; n++) assert.match(await it.tried("fixed"), /^230/);
  assert.match(await it.tried("u"), /^530/);
  assert.equal(warned().length, 1);
  assert.match(warned()[0]?.message ?? "", /it is no JSON.*; nobody of it can log in/);
  assert.equal(warned()[0]?.message.includes("scrypt"), false, "no hash is shown");

  await it.write({
    u: { passwordHash: await hash },
    bad: { passwordHash: "secret" },
    worse: { password: "p" },
    worst: "SecretPw9",
    "../x": { passwordHash: await hash },
  });
  assert.match(await it.tried("u"), /^230/, "what is wrong with one costs that one");
  for (const name of ["bad", "worse", "worst", "../x"]) assert.match(await it.tried(name), /^(530|421)/);
  assert.match(
    warned()[1]?.message ?? "",
    /users\.bad\.passwordHash: expected a hash such as .*users\.worse\.password.*users\.worst: expected an object;.*users\.\.\.\/x: a root is missing/,
  );
  assert.doesNotMatch(warned()[1]?.message ?? "", /SecretPw9/);
  await it.write({ u: { passwordHash: await hash } });
  assert.match(await it.tried("u"), /^230/);
  await it.heard.heard(/nothing is wrong with the users' file/);

  for (const make of [() => fs.mkdir(it.file), () => Promise.resolve(void execFileSync("mkfifo", [it.file]))]) {
    await fs.rm(it.file);
    await make();
    assert.match(await it.tried("fixed"), /^230/);
    assert.match(await it.tried("u"), /^530/);
    await fs.rm(it.file, { recursive: true });
    await it.write({ u: { passwordHash: await hash } });
    assert.match(await it.tried("u"), /^230/);
  }
  assert.equal(
    warned().length,
    4,
    warned()
      .map(({ message }) => message)
      .join("\n"),
  );
});

test("of a name that both have the configuration holds", async (t) => {
  const it = await served(t, { users: { u: { password: "mine" } } });
  await it.write({ u: { passwordHash: await hash } });
  assert.match(await it.tried("u", "p"), /^530/);
  assert.match(await it.tried("u", "mine"), /^230/);
  await it.write({ u: { passwordHash: await hash }, v: { passwordHash: await hash } });
  assert.match(await it.tried("v"), /^230/);
  await it.heard.heard(/u is a user of the configuration too, which holds/);
});

test("guessing the password of such a user gets slower, and ends the connection", async (t) => {
  const it = await served(t);
  await it.write({ u: { passwordHash: await hash } });
  const client = new RawFtp(it.server.port ?? 0);
  await client.answer();
  const answers: string[] = [];
  for (let n = 0; n < 3; n++) {
    await client.ask("USER u");
    answers.push(await client.ask(`PASS guess-${n}`));
  }
  assert.match(answers.join("\n"), /^530 .*\n530 .*\n421 Too many wrong passwords/);
  assert.deepEqual(it.waits, [500, 1000, 2000]);
});

test("where users could reach the file the server does not start", async (t) => {
  const dir = await fs.mkdtemp(join(tmpdir(), "filesync-users-"));
  t.after(() => fs.rm(dir, { recursive: true }));
  await fs.mkdir(join(dir, "srv"));
  await fs.symlink(join(dir, "srv"), join(dir, "other"));
  for (const usersFile of [join(dir, "srv/users.json"), join(dir, "other/users.json")])
    await assert.rejects(
      startOwn({ root: join(dir, "srv"), usersFile }),
      (error) => isFault(error, "config") && /put it elsewhere/.test(error.message),
    );
});
