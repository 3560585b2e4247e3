import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { Random } from "../test/faults/random.js";
import { Journal } from "./journal.js";
import { type Database, openDatabase } from "./sqlite.js";
import { JournalFromNewerVersion } from "./tables.js";

function tempDir(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "filesync-journal-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

function record(journal: Journal, n: number): void {
  journal.run("INSERT INTO meta VALUES (?, ?)", `n${n}`, "x".repeat(n % 300));
}

function count(journal: Journal): number {
  return journal.get<{ n: number }>("SELECT COUNT(*) AS n FROM meta")?.n ?? 0;
}

test("what was committed is there after a new start", async (t) => {
  const dir = tempDir(t);
  let journal = await Journal.open(dir);
  await Promise.all(Array.from({ length: 50 }, (_, n) => journal.commit(() => record(journal, n))));
  assert.ok(journal.syncs <= 4, `fifty at once are one group, not ${journal.syncs} syncs`);
  await journal.close();
  journal = await Journal.open(dir);
  assert.equal(count(journal), 50);
  assert.deepEqual(journal.setAside, []);
  await journal.close();
});

test("no delivery is done before its line is in receipts.jsonl, also when it is acknowledged while others' lines are synced", async (t) => {
  const dir = tempDir(t);
  const journal = await Journal.open(dir);
  let n = 0;
  const acknowledge = () => {
    n += 1;
    record(journal, n);
    journal.appendReceipt(`{"n":${n}}\n`);
  };
  const later: Promise<void>[] = [];
  const sync = journal.receipts.datasync.bind(journal.receipts);
  t.mock.method(journal.receipts, "datasync", async () => {
    // Others go on while the medium is at it.
    if (n < 20) later.push(journal.commit(acknowledge));
    await sync();
  });
  const walSync = journal.wal.datasync.bind(journal.wal);
  let commits = 0;
  t.mock.method(journal.wal, "datasync", async () => {
    commits += 1;
    const lines = readFileSync(join(dir, "receipts.jsonl"), "utf8").trim().split("\n").length;
    const committed = await committedIn(dir);
    assert.ok(committed <= lines, `${committed} are committed, ${lines} have a line`);
    await walSync();
  });
  await journal.commit(acknowledge);
  for (let seen = 0; seen < later.length; seen++) await later[seen];
  assert.equal(n, 20);
  assert.ok(commits > 1);
  await journal.close();
});

test("a piece of work that fails leaves nothing of itself, and what came before it stays", async (t) => {
  const dir = tempDir(t);
  const journal = await Journal.open(dir);
  await journal.apply(() => record(journal, 1));
  await assert.rejects(
    journal.commit(() => {
      record(journal, 2);
      journal.appendReceipt("never\n");
      throw new Error("no");
    }),
    /no/,
  );
  await journal.commit(() => record(journal, 3));
  assert.deepEqual(
    journal.all<{ key: string }>("SELECT key FROM meta ORDER BY key").map(({ key }) => key),
    ["n1", "n3"],
  );
  await journal.close();
  assert.equal(readFileSync(join(dir, "receipts.jsonl"), "utf8"), "");
});

test("nothing of it is mapped into memory, where a page without a block on a full disk would end the process", async (t) => {
  const dir = tempDir(t);
  writeFileSync(join(dir, "journal.db-shm"), "of a version that mapped it");
  const journal = await Journal.open(dir);
  await journal.commit(() => record(journal, 1));
  assert.deepEqual(readdirSync(dir).sort(), ["journal.db", "journal.db-wal", "receipts.jsonl"]);
  if (process.platform === "linux") assert.doesNotMatch(readFileSync("/proc/self/maps", "utf8"), new RegExp(dir));
  await journal.close();
});

test("closed, it is anybody's at once, whatever was prepared; open, it is nobody else's", async (t) => {
  const path = join(tempDir(t), "it's.db");
  const first = await openDatabase(path);
  first.exec("PRAGMA disk.journal_mode = WAL; CREATE TABLE disk.t (a)");
  const kept = first.prepare("SELECT * FROM t");
  assert.deepEqual(kept.all(), []);
  await assert.rejects(openDatabase(path), { errcode: 5 });
  first.exec("BEGIN; INSERT INTO t VALUES (1)");
  first.close();
  assert.equal(existsSync(`${path}-wal`), false);
  const second = await openDatabase(path);
  assert.deepEqual(second.prepare("SELECT * FROM t").all(), []);
  second.close();
  assert.throws(() => kept.all());
});

const strace = spawnSync("strace", ["-qq", "-e", "trace=fsync", "-o", "/dev/null", "true"]).status === 0;
test(
  "closed before it is a journal: its log goes once the database is on the medium",
  { skip: strace ? false : "strace is missing, or may not trace here" },
  async (t) => {
    const dir = tempDir(t);
    await made(join(dir, "killed"));
    const db = await openDatabase(join(dir, "open.db"));
    db.exec("PRAGMA disk.journal_mode = WAL; PRAGMA disk.user_version = 99");
    for (const end of ["", "-wal"]) copyFileSync(join(dir, `open.db${end}`), join(dir, `killed/journal.db${end}`));
    db.close();
    const script = `
      import { openTables } from ${JSON.stringify(fileURLToPath(new URL("./tables.js", import.meta.url)))};
      await openTables(${JSON.stringify(join(dir, "killed/journal.db"))}, false).catch(({ message }) => process.stdout.write(message));`;
    const log = join(dir, "calls");
    const trace = ["-f", "-qq", "-y", "-o", log, "-e", "trace=fsync,fdatasync,unlink"];
    const { stdout } = spawnSync("strace", [...trace, process.execPath, "--input-type=module", "-e", script], { encoding: "utf8" });
    assert.match(stdout, /was written by a newer FileSync/);
    const calls = readFileSync(log, "utf8").match(/(sync|unlink)\(.*journal\.db(-wal)?\b/g) ?? [];
    assert.deepEqual(
      calls.map((call) => `${call.startsWith("sync") ? "sync" : "unlink"} ${call.endsWith("-wal") ? "log" : "database"}`),
      ["sync log", "sync database", "unlink log"],
    );
  },
);

test("checkpoints keep the WAL short and lose nothing", async (t) => {
  const dir = tempDir(t);
  let journal = await Journal.open(dir);
  for (let round = 0; round < 80; round++)
    await journal.commit(() => {
      for (let n = 0; n < 400; n++) journal.run("INSERT INTO meta VALUES (?, ?)", `${round}-${n}`, "y".repeat(900));
    });
  assert.ok(statSync(join(dir, "journal.db-wal")).size < 10 * 2 ** 20);
  assert.equal(count(journal), 32_000);
  await journal.close();
  journal = await Journal.open(dir);
  assert.equal(count(journal), 32_000);
  await journal.close();
});

test("a WAL torn in its tail opens, and holds a prefix", async (t) => {
  const dir = tempDir(t);
  const from = join(dir, "whole");
  const journal = await Journal.open(await made(from));
  for (let n = 0; n < 10; n++) await journal.commit(() => record(journal, n));
  const before = statSync(join(from, "journal.db-wal")).size;
  await journal.commit(() => record(journal, 10));
  const after = statSync(join(from, "journal.db-wal")).size;
  // As after a kill: the files as they are now, without a close.
  const copy = join(dir, "copy");
  cpSync(from, copy, { recursive: true });
  const whole = readFileSync(join(copy, "journal.db-wal"));
  const db = readFileSync(join(copy, "journal.db"));
  const torn = join(dir, "torn");
  await made(torn);
  // Each byte of a frame's header and of the ends of its page; of what lies between, which is a page of the database, one in five.
  const frame = 24 + 4096;
  const isNear = (cut: number) => (cut - before + frame) % frame < 64 || (before - cut + frame) % frame < 32;
  for (let cut = before - 30; cut <= after; cut++) {
    if (!isNear(cut) && cut % 5 !== 0) continue;
    const path = join(torn, "journal.db");
    writeFileSync(path, db);
    // A tail of a torn write is short, or whole with rubbish behind the cut.
    writeFileSync(
      `${path}-wal`,
      cut % 2 === 0 ? whole.subarray(0, cut) : Buffer.concat([whole.subarray(0, cut), Buffer.alloc(after - cut, cut)]),
    );
    const opened = await openDatabase(path);
    const rows = opened.prepare("SELECT key FROM meta ORDER BY LENGTH(key), key").all() as { key: string }[];
    opened.close();
    const least = cut < before ? 9 : cut < after ? 10 : 11;
    assert.ok(rows.length >= least && rows.length <= 11, `cut at ${cut} of ${before}…${after}: ${rows.length} records`);
    rows.forEach(({ key }, n) => assert.equal(key, `n${n}`));
  }
  await journal.close();
});

/** Nobody else reads it while it is open: a copy is as after a kill. */
async function committedIn(dir: string): Promise<number> {
  const copy = join(dir, "copy");
  await made(copy);
  for (const end of ["", "-wal"]) copyFileSync(join(dir, `journal.db${end}`), join(copy, `journal.db${end}`));
  const db = await openDatabase(join(copy, "journal.db"));
  const { n } = db.prepare("SELECT COUNT(*) AS n FROM meta WHERE key LIKE 'n%'").get() as { n: number };
  db.close();
  return n;
}

async function made(dir: string): Promise<string> {
  const { mkdir } = await import("node:fs/promises");
  await mkdir(dir, { recursive: true });
  return dir;
}

test("a journal that is rubbish is set aside with its name said, and a new one is begun", async (t) => {
  const random = new Random(7);
  for (const [what, spoil] of [
    ["random bytes", (path: string) => writeFileSync(path, random.bytes(20_000))],
    ["a text", (path: string) => writeFileSync(path, "this was a database\n")],
    [
      "its first page zeroed",
      (path: string) => writeFileSync(path, Buffer.concat([Buffer.alloc(4096), readFileSync(path).subarray(4096)])),
    ],
    [
      "tables of somebody else",
      (path: string) => {
        rmSync(path);
        copyFileSync(path.replace("journal.db", "other.db"), path);
      },
    ],
  ] as const) {
    const dir = tempDir(t);
    const other = await openDatabase(join(dir, "other.db"));
    other.exec("CREATE TABLE disk.versions (id TEXT); PRAGMA disk.user_version = 0");
    other.close();
    let journal = await Journal.open(dir);
    await journal.commit(() => record(journal, 1));
    await journal.close();
    spoil(join(dir, "journal.db"));
    journal = await Journal.open(dir);
    assert.equal(journal.setAside.length >= 1, true, what);
    assert.ok(existsSync(journal.setAside[0] ?? ""), what);
    assert.equal(count(journal), 0, what);
    await journal.commit(() => record(journal, 2));
    await journal.close();
  }
});

test("damage in the middle is found when it is suspected", async (t) => {
  const dir = tempDir(t);
  let journal = await Journal.open(dir);
  await journal.commit(() => {
    for (let n = 0; n < 3000; n++) record(journal, n);
  });
  await journal.close();
  const path = join(dir, "journal.db");
  const bytes = readFileSync(path);
  bytes.fill(0xa5, bytes.length - 8 * 4096, bytes.length - 4096);
  writeFileSync(path, bytes);
  journal = await Journal.open(dir, "damaged");
  assert.match(journal.setAside[0] ?? "", /journal\.damaged-1\.db$/);
  await journal.close();
});

test("an empty file is an empty journal, and a missing WAL is only what was not checkpointed", async (t) => {
  const dir = tempDir(t);
  writeFileSync(join(dir, "journal.db"), "");
  const journal = await Journal.open(dir);
  assert.deepEqual(journal.setAside, []);
  await journal.close();
  truncateSync(join(dir, "receipts.jsonl"), 0);
  await (await Journal.open(dir)).close();
});

test("a journal of a newer version is left as it is", async (t) => {
  const dir = tempDir(t);
  await (await Journal.open(dir)).close();
  const db = await openDatabase(join(dir, "journal.db"));
  db.exec("PRAGMA disk.user_version = 99");
  db.close();
  const before = readdirSync(dir);
  await assert.rejects(
    Journal.open(dir),
    (error: unknown) => error instanceof JournalFromNewerVersion && /newer FileSync \(format 99/.test(error.message),
  );
  assert.deepEqual(readdirSync(dir), before);
});

test("a whole journal that a version cannot use, for a mistake of its own, is told and left as it is", async (t) => {
  const dir = tempDir(t);
  const first = await Journal.open(dir);
  await first.commit(() => record(first, 1));
  await first.close();
  const db = await openDatabase(join(dir, "journal.db"));
  // What led from the first format to the second was done already.
  db.exec("PRAGMA disk.user_version = 1");
  db.close();
  const before = readdirSync(dir);
  for (const doubt of ["none", "damaged"] as const)
    await assert.rejects(
      Journal.open(dir, doubt),
      (error: unknown) => error instanceof JournalFromNewerVersion && /is whole.*duplicate column name/.test(error.message),
    );
  assert.deepEqual(readdirSync(dir), before);
  const again = await openDatabase(join(dir, "journal.db"));
  again.exec("PRAGMA disk.user_version = 3");
  again.close();
  const journal = await Journal.open(dir);
  assert.equal(count(journal), 1);
  await journal.close();
});

test("a journal of a newer version that was taken back is set aside, once", async (t) => {
  const dir = tempDir(t);
  const newer = async () => {
    const db = await openDatabase(join(dir, "journal.db"));
    db.exec("PRAGMA disk.user_version = 99");
    db.close();
  };
  const first = await Journal.open(dir);
  await first.commit(() => record(first, 1));
  await first.close();
  await newer();
  writeFileSync(join(dir, "went-back"), "");
  // Who only reads sets nothing aside.
  await assert.rejects(Journal.open(dir, "none", false), JournalFromNewerVersion);
  const journal = await Journal.open(dir);
  assert.equal(journal.setAside[0], join(dir, "journal.damaged-1.db"));
  assert.equal(count(journal), 0);
  await journal.close();
  await newer();
  await assert.rejects(Journal.open(dir), JournalFromNewerVersion);
});

test("where the state directory is not the usual one, its service is told that an upgrade was taken back", async (t) => {
  const dir = tempDir(t);
  const mark = join(tempDir(t), "went-back");
  const db = await openDatabase(join(dir, "journal.db"));
  db.exec("PRAGMA disk.user_version = 99");
  db.close();
  await assert.rejects(Journal.open(dir, "none", true, mark), JournalFromNewerVersion);
  writeFileSync(mark, "");
  const journal = await Journal.open(dir, "none", true, mark);
  assert.equal(journal.setAside[0], join(dir, "journal.damaged-1.db"));
  await journal.close();
});

test("a journal of an older version is brought up to this one, with all that it holds", async (t) => {
  const dir = tempDir(t);
  const first = await Journal.open(dir);
  await first.commit(() => record(first, 1));
  await first.close();
  const db = await openDatabase(join(dir, "journal.db"));
  db.exec(`DROP INDEX deliveries_wanting; ALTER TABLE versions DROP COLUMN medium; ALTER TABLE deliveries DROP COLUMN medium;
    CREATE INDEX disk.deliveries_wanting ON deliveries (source, target, weight DESC, rank DESC, path DESC) WHERE state = 'wanting';
    ALTER TABLE deliveries DROP COLUMN marks; PRAGMA disk.user_version = 1`);
  db.close();
  const journal = await Journal.open(dir);
  assert.deepEqual(journal.setAside, []);
  assert.equal(count(journal), 1);
  assert.deepEqual(journal.all("SELECT marks, medium FROM deliveries"), []);
  const index = journal.get<{ sql: string }>("SELECT sql FROM disk.sqlite_schema WHERE name = 'deliveries_wanting'")?.sql;
  assert.match(index ?? "", /\(source, medium, target,/);
  await journal.close();
});

const withoutRowid = (db: Database, table: string) => {
  const { sql } = db.prepare("SELECT sql FROM disk.sqlite_schema WHERE name = ?").get(table) as { sql: string };
  db.exec(`BEGIN; ${sql.replace(/^CREATE TABLE \S+/, "CREATE TABLE disk.old")} WITHOUT ROWID; INSERT INTO old SELECT * FROM ${table};
    DROP TABLE ${table}; ALTER TABLE old RENAME TO ${table}; COMMIT`);
};

test("rows that an older version laid by their ids lie in the order in which they were found, and nothing of them is lost", async (t) => {
  const dir = tempDir(t);
  const schemaOf = (journal: Journal) =>
    journal.all<{ sql: string }>("SELECT name, replace(sql, '\"', '') AS sql FROM disk.sqlite_schema WHERE sql IS NOT NULL ORDER BY name");
  const rowsOf = (journal: Journal) => [
    journal.all("SELECT * FROM versions ORDER BY id"),
    journal.all("SELECT * FROM deliveries ORDER BY id"),
  ];
  const first = await Journal.open(dir);
  await first.commit(() => {
    for (let n = 0; n < 50; n++) {
      const id = createHash("sha256").update(`${n}`).digest("hex");
      const found = "INSERT INTO versions (id, source, path, size, state, store, found_ms) VALUES (?, 'cam', ?, 1, 'sealed', 'place', ?)";
      first.run(found, id, `${n}`, n);
      const wanted =
        "INSERT INTO deliveries (id, version, source, target, path, required, state, size, weight, rank) VALUES (?, ?, 'cam', 'g', ?, 1, 'ready', 1, 0, 0)";
      first.run(wanted, `d${id}`, id, `${n}`);
    }
    first.run(
      "INSERT INTO deliveries SELECT 'alone', 'none', 'cam', 'g', 'x', 1, 'done', 1, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, 1, NULL, ''",
    );
  });
  const [schema, rows] = [schemaOf(first), rowsOf(first)];
  await first.close();
  const db = await openDatabase(join(dir, "journal.db"));
  for (const table of ["versions", "deliveries"]) withoutRowid(db, table);
  db.close();
  const journal = await Journal.open(dir);
  assert.deepEqual(journal.setAside, []);
  assert.deepEqual(schemaOf(journal), schema);
  assert.deepEqual(rowsOf(journal), rows);
  const paths = journal.all<{ path: string }>("SELECT path FROM deliveries ORDER BY rowid").map(({ path }) => path);
  assert.deepEqual(paths, [...Array.from({ length: 50 }, (_, n) => `${n}`), "x"]);
  await journal.close();
});

test("a medium that refuses a write: whoever waits hears of it, and nothing more is taken", async (t) => {
  const dir = tempDir(t);
  const journal = await Journal.open(dir);
  let failed = 0;
  journal.failed$.subscribe(() => (failed += 1));
  await journal.wal.close();
  await assert.rejects(journal.commit(() => record(journal, 1)));
  await assert.rejects(journal.apply(() => record(journal, 2)));
  assert.equal(failed, 1);
  assert.equal(journal.failed, true);
  journal.db.close();
  await Promise.all([journal.main.close(), journal.receipts.close()]);
});

test("killed after any record: what was told to be durable is there, in order", async (t) => {
  const dir = tempDir(t);
  const script = `
    import { Journal } from ${JSON.stringify(fileURLToPath(new URL("./journal.js", import.meta.url)))};
    const journal = await Journal.open(${JSON.stringify(dir)});
    const start = journal.get("SELECT COUNT(*) AS n FROM meta").n;
    for (let n = start; ; n++) {
      const done = journal.commit(() => journal.run("INSERT INTO meta VALUES (?, ?)", "n" + n, "z".repeat(n % 2000)));
      if (n % 3 === 0) { await done; process.stdout.write(n + "\\n"); } else done.catch(() => undefined);
    }`;
  const random = new Random(11);
  let told = -1;
  for (let kill = 0; kill < 15; kill++) {
    const child = spawn(process.execPath, ["--input-type=module", "-e", script], { stdio: ["ignore", "pipe", "inherit"] });
    const enough = random.between(1, 40);
    let lines = 0;
    await new Promise<void>((resolve) => {
      child.stdout.setEncoding("utf8").on("data", (text: string) => {
        for (const line of text.split("\n").slice(0, -1)) told = Math.max(told, Number(line));
        lines += text.split("\n").length - 1;
        if (lines >= enough) child.kill("SIGKILL");
      });
      child.on("close", () => resolve());
    });
    const journal = await Journal.open(dir);
    const rows = journal.all<{ key: string }>("SELECT key FROM meta ORDER BY LENGTH(key), key");
    assert.ok(rows.length > told, `${rows.length} records, but ${told} was told to be durable`);
    rows.forEach(({ key }, n) => assert.equal(key, `n${n}`));
    assert.deepEqual(journal.setAside, []);
    await journal.close();
  }
});

test("a long file of which more than half is free is made shorter at a start; what is in it stays", async (t) => {
  const dir = tempDir(t);
  const size = () => statSync(join(dir, "journal.db")).size;
  let journal = await Journal.open(dir);
  for (let n = 0; n < 70; n++)
    await journal.commit(() => journal.run("INSERT INTO meta VALUES (?, ?)", `n${n}`, String(n % 10).repeat(2 ** 20)));
  const rows = () => journal.all<{ key: string }>("SELECT key FROM meta ORDER BY key").map(({ key }) => key);
  await journal.commit(() => journal.run("DELETE FROM meta WHERE key > 'n55'"));
  await journal.close();
  const long = size();
  journal = await Journal.open(dir);
  await journal.commit(() => journal.run("DELETE FROM meta WHERE key > 'n3'"));
  await journal.close();
  assert.equal(size(), long, "less than half was free");
  journal = await Journal.open(dir, "none", false);
  await journal.close();
  assert.equal(size(), long, "only a daemon does that");
  journal = await Journal.open(dir);
  assert.ok(size() < long / 2, `${size()} of ${long} bytes`);
  const left = rows();
  assert.ok(left.length > 20 && left.length < 25, left.join());
  assert.ok(
    journal
      .all<{ key: string; value: string }>("SELECT key, value FROM meta")
      .every(({ key, value }) => value.startsWith(key.at(-1) ?? "")),
  );
  await journal.commit(() => record(journal, 1000));
  await journal.close();
  journal = await Journal.open(dir);
  assert.equal(rows().length, left.length + 1);
  await journal.close();
});
