/** The registry's catalogue in SQLite: files of earlier formats. What it does is in the other tests here. */
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { openDatabase } from "../../core/sqlite.js";
import type { Catalogue } from "./catalogue.js";
import { openCatalogue } from "./sqlite-catalogue.js";

test("a catalogue of the first version is taken over", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "filesync-registry-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const old = await openDatabase(join(dir, "registry.sqlite"));
  old.exec(`CREATE TABLE disk.owners (id TEXT PRIMARY KEY, email TEXT NOT NULL UNIQUE, quota INTEGER) STRICT;
    CREATE TABLE disk.vehicles (id TEXT PRIMARY KEY, name TEXT NOT NULL, owner TEXT NOT NULL REFERENCES owners(id) ON DELETE CASCADE, key TEXT NOT NULL, fingerprint TEXT NOT NULL UNIQUE,
      state TEXT NOT NULL, created_ms INTEGER NOT NULL, quota INTEGER, UNIQUE (owner, name)) STRICT;
    CREATE TABLE disk.pending (id TEXT PRIMARY KEY, email TEXT NOT NULL, name TEXT, key TEXT NOT NULL, fingerprint TEXT NOT NULL UNIQUE, state TEXT NOT NULL, reason TEXT, by TEXT NOT NULL,
      token_hash TEXT NOT NULL UNIQUE, mailed INTEGER NOT NULL, age_ms INTEGER NOT NULL, vehicle TEXT) STRICT;
    CREATE TABLE disk.slots (id TEXT PRIMARY KEY, vehicle TEXT NOT NULL REFERENCES vehicles(id) ON DELETE CASCADE, name TEXT NOT NULL, state TEXT NOT NULL, opened_ms INTEGER NOT NULL, UNIQUE (vehicle, name)) STRICT;
    CREATE TABLE disk.files (slot TEXT NOT NULL REFERENCES slots(id) ON DELETE CASCADE, path TEXT NOT NULL, size INTEGER NOT NULL, digest TEXT NOT NULL, committed_ms INTEGER NOT NULL, PRIMARY KEY (slot, path)) STRICT;
    INSERT INTO owners VALUES ('o', 'a@example.org', NULL);
    INSERT INTO vehicles VALUES ('plane-1', 'plane', 'o', 'ssh-ed25519 AAAA', 'SHA256:x', 'active', 1, 5);
    INSERT INTO pending VALUES ('p', 'a@example.org', 'new', 'ssh-ed25519 BBBB', 'SHA256:y', 'waiting', NULL, 'operator', 'h', 0, 5, NULL);
    INSERT INTO slots VALUES ('s', 'plane-1', 'n', 'closed', 1);
    INSERT INTO files VALUES ('s', 'a', 7, 'sha256:0', 1);
    PRAGMA disk.user_version = 1;`);
  old.close();
  for (let n = 0; n < 2; n++) {
    const catalogue = await openCatalogue(join(dir, "registry.sqlite"));
    const [vehicle] = await catalogue.vehicles();
    assert.deepEqual([vehicle?.id, vehicle?.quotaBytes, vehicle?.ftpBytes, vehicle?.legacy], ["plane-1", 5, n * 3, false]);
    const pending = await catalogue.pending("p");
    assert.deepEqual([pending?.ageMs, pending?.legacy], [5, false]);
    assert.deepEqual(await catalogue.used("plane-1"), { vehicle: 7 + n * 3, owner: 7 + n * 3 });
    assert.equal(await catalogue.setFtpHash({ id: "plane-1", fingerprint: "SHA256:x" }, "h"), true);
    await catalogue.setFtpBytes("plane-1", 3);
    const [id, hash] = [`l${n}`, `SHA256:${n}`];
    const fresh = {
      id,
      email: "b@example.org",
      key: "ssh-rsa x",
      fingerprint: hash,
      state: "waiting",
      by: "operator",
      tokenHash: hash,
    } as const;
    await catalogue.addPending({ ...fresh, mailed: false, ageMs: 0, legacy: true, renew: false });
    assert.equal((await catalogue.confirm(id, { vehicle: `old-${n}`, name: `old ${n}`, owner: "a-2", atMs: 1 })).legacy, true);
    await catalogue.close();
  }
});

test("so is one of the version before that has slots with files: what they keep counts, and can go", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "filesync-registry-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const path = join(dir, "registry.sqlite");
  await openCatalogue(path).then((made) => made.close());
  const old = await openDatabase(path);
  old.exec(`DROP INDEX disk.files_there; ALTER TABLE disk.files DROP COLUMN gone;
    INSERT INTO owners VALUES ('o', 'a@example.org', NULL);
    INSERT INTO vehicles (id, name, owner, key, fingerprint, state, created_ms) VALUES ('plane-1', 'plane', 'o', 'ssh-ed25519 AAAA', 'SHA256:x', 'active', 1);
    INSERT INTO slots VALUES ('s', 'plane-1', 'n', 'closed', 1);
    INSERT INTO files VALUES ('s', 'a', 7, 'sha256:0', 1), ('s', 'b', 5, 'sha256:1', 1);
    PRAGMA disk.user_version = 2;`);
  old.close();
  for (const kept of [12, 5]) {
    const catalogue = await openCatalogue(path);
    assert.equal((await catalogue.used("plane-1")).vehicle, kept);
    const files = await catalogue.filesIn("s");
    assert.deepEqual(
      files.map(({ path }) => path),
      kept === 5 ? ["b"] : ["a", "b"],
    );
    const first = await catalogue.file("s", "a");
    assert.equal(first?.gone, kept === 5);
    await catalogue.setGone(first, true);
    await catalogue.close();
  }
});

test("a damaged catalogue says so, and what to do: its copy of the day, in which nothing is that was deleted, takes its place", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "filesync-registry-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const path = join(dir, "registry.sqlite");
  const copy = `${path}.copy`;
  const registers = async (catalogue: Catalogue, id: string) => {
    await catalogue.addPending({
      ...{
        id,
        email: `${id}@example.org`,
        key: `ssh-ed25519 ${id}`,
        fingerprint: `SHA256:${id}`,
        tokenHash: id,
        legacy: false,
        renew: false,
      },
      ...{ state: "waiting", by: "operator", mailed: false, ageMs: 0 },
    });
    await catalogue.confirm(id, { vehicle: `v-${id}`, name: id, owner: `o-${id}`, atMs: 1 });
  };
  const catalogue = await openCatalogue(path);
  for (const id of ["one", "two"]) await registers(catalogue, id);
  const now = Date.now();
  await catalogue.keepCopy(now);
  assert.equal(statSync(copy).mode & 0o777, 0o600);
  // As power went while one was made.
  writeFileSync(`${copy}.new`, readFileSync(copy));
  await catalogue.deleteOwner("two@example.org");
  assert.deepEqual([existsSync(copy), existsSync(`${copy}.new`)], [false, false]);
  await catalogue.keepCopy(now);
  assert.ok(!readFileSync(copy).includes("two@example.org"));
  await registers(catalogue, "three");
  await catalogue.keepCopy(now + 1000);
  assert.ok(!readFileSync(copy).includes("three@example.org"), "once a day");
  await catalogue.close();
  const damage = (from: number) => {
    const bytes = readFileSync(path);
    bytes.fill(0xa5, from);
    writeFileSync(path, bytes);
  };
  damage(4096);
  const broken = await openCatalogue(path);
  const said = {
    name: "Fault",
    message:
      /^the catalogue .*registry\.sqlite is damaged \(.*\): with the station stopped, its copy of .* can take its place: rm -f .*-wal && mv .*copy .*sqlite; what was registered/,
  };
  await assert.rejects(broken.vehicles(), said);
  // It takes the place of no copy.
  await assert.rejects(broken.keepCopy(now + 48 * 3600_000), said);
  await broken.close();
  damage(0);
  await assert.rejects(openCatalogue(path), said);
  renameSync(copy, path);
  const again = await openCatalogue(path);
  t.after(() => again.close());
  assert.deepEqual(
    (await again.vehicles()).map(({ id }) => id),
    ["v-one"],
  );
  await again.keepCopy(now);
  assert.ok(existsSync(copy));
});
