/**
 * The tables of the journal: their format, what led to it from older ones, and the database that holds them, opened as the journal wants it.
 * What SQLite's errors mean for it.
 */
import { dirname } from "node:path";
import { codeOf, isCorrupt, sqliteCodeOf } from "./errors.js";
import { freeBytesAt } from "./fs.js";
import { damageOf, openDatabase, rollBack, type Database } from "./sqlite.js";

/** What led from each older format of the tables below to the next: `migrations[n]` from n + 1 to n + 2. */
const migrations = [
  "ALTER TABLE deliveries ADD COLUMN marks TEXT",
  `ALTER TABLE versions ADD COLUMN medium TEXT NOT NULL DEFAULT '';
  ALTER TABLE deliveries ADD COLUMN medium TEXT NOT NULL DEFAULT '';
  DROP INDEX deliveries_wanting;
  CREATE INDEX disk.deliveries_wanting ON deliveries (source, medium, target, weight DESC, rank DESC, path DESC) WHERE state = 'wanting'`,
];
/** What has the path ?2, or is below it: one range of an index that ends with "path". For an OR alone SQLite would read all that the index has of what is before that. */
export const atOrBelow = "path >= ?2 AND path < ?2 || '0' AND (path = ?2 OR path > ?2 || '/')";

/** Of a journal that this version can read (`user_version`). */
export const newestFormat = 1 + migrations.length;
/**
 * By rowid, so that what was found together lies together: by their ids, which are hashes, each change of a file's rows would write pages of their own, three times the bytes in all. Versions before that
 * made them WITHOUT ROWID; what is asked of them is the same.
 */
const versions = `(
  id TEXT PRIMARY KEY NOT NULL, source TEXT NOT NULL, path TEXT NOT NULL,
  size INTEGER NOT NULL, modified_ms REAL, inode TEXT,
  state TEXT NOT NULL,                      -- found | sealed | gone
  store TEXT NOT NULL,                      -- spool | place | through
  generation INTEGER NOT NULL DEFAULT 0, durable INTEGER NOT NULL DEFAULT 0, digest TEXT,
  base TEXT,                                -- the version that this one may continue
  safest INTEGER NOT NULL DEFAULT 0,        -- to be read in the source's safest mode, after a mismatch
  found_ms REAL NOT NULL, sealed_ms REAL,
  after TEXT NOT NULL DEFAULT 'keep', trust_size INTEGER NOT NULL DEFAULT 0,
  released TEXT,                            -- what was done at the source, or why it never will be
  spooled INTEGER NOT NULL DEFAULT 0,       -- bytes that the spool holds or has promised
  medium TEXT NOT NULL DEFAULT ''           -- of a source whose media can be changed
)`;
const deliveries = `(
  id TEXT PRIMARY KEY NOT NULL, version TEXT NOT NULL, source TEXT NOT NULL, target TEXT NOT NULL, path TEXT NOT NULL, required INTEGER NOT NULL,
  state TEXT NOT NULL,                      -- wanting | ready | active | parked | discard | done | dropped
  size INTEGER NOT NULL, weight REAL NOT NULL, rank REAL NOT NULL,
  not_before REAL NOT NULL DEFAULT 0,       -- by the monotonic clock of this run
  tries INTEGER NOT NULL DEFAULT 0, restarts INTEGER NOT NULL DEFAULT 0,
  begun INTEGER NOT NULL DEFAULT 0,         -- 1 + the generation whose partial may be at the target
  fault TEXT, reason TEXT, parked_ms REAL, replaces TEXT, memo TEXT, receipt TEXT, done_ms REAL,
  marks TEXT,                               -- what core noted before it did what cannot be taken back
  medium TEXT NOT NULL DEFAULT ''           -- its version's
)`;
const tables = `
CREATE TABLE disk.meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE disk.versions ${versions};
CREATE TABLE disk.deliveries ${deliveries};
CREATE TABLE disk.memory (device TEXT, key TEXT, value TEXT NOT NULL, PRIMARY KEY (device, key)) WITHOUT ROWID;
`;

/**
 * What is forgotten leaves room in the file, which the next rows take. Only a long file of which more than half is such room is made shorter, at a start: that
 * writes what is left three times, which is not worth it for less. (`auto_vacuum` would move pages at each deletion, for as long as the journal lives.)
 */
const longBytes = 64 * 2 ** 20;

/** Made where they are not there. What came later than the tables above changes no format: a version that does not know it works all the same. */
const later = `
CREATE INDEX IF NOT EXISTS disk.versions_path ON versions (source, path);
CREATE INDEX IF NOT EXISTS disk.versions_spooled ON versions (sealed_ms) WHERE spooled > 0;
CREATE INDEX IF NOT EXISTS disk.versions_open ON versions (source) WHERE state = 'found';
CREATE INDEX IF NOT EXISTS disk.versions_release ON versions (source) WHERE released IS NULL AND after <> 'keep';
CREATE INDEX IF NOT EXISTS disk.deliveries_version ON deliveries (version);
CREATE INDEX IF NOT EXISTS disk.deliveries_wanting ON deliveries (source, medium, target, weight DESC, rank DESC, path DESC) WHERE state = 'wanting';
CREATE INDEX IF NOT EXISTS disk.deliveries_ready ON deliveries (target, weight DESC, rank DESC, path DESC) WHERE state = 'ready';
CREATE INDEX IF NOT EXISTS disk.deliveries_else ON deliveries (state, target) WHERE state IN ('active', 'parked', 'discard');
CREATE INDEX IF NOT EXISTS disk.deliveries_due ON deliveries (not_before) WHERE not_before > 0 AND state IN ('wanting', 'ready', 'discard');
CREATE INDEX IF NOT EXISTS disk.versions_gone ON versions (source, path) WHERE state = 'gone';
-- With the size: what was delivered is added up in it alone.
CREATE INDEX IF NOT EXISTS disk.deliveries_delivered ON deliveries (done_ms, size) WHERE state = 'done';
DROP INDEX IF EXISTS deliveries_done;
-- Of two-way routes: what both sides held last, and what is under way (sync/store.ts).
CREATE TABLE IF NOT EXISTS disk.agreed (route TEXT, path TEXT, agreed TEXT NOT NULL, PRIMARY KEY (route, path)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS disk.staged (route TEXT, id TEXT, staged TEXT NOT NULL, PRIMARY KEY (route, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS disk.intents (route TEXT, id TEXT, intent TEXT NOT NULL, PRIMARY KEY (route, id)) WITHOUT ROWID;
-- Versions that a listing did not show any more, and when that was first so, by trusted wall time.
CREATE TABLE IF NOT EXISTS disk.absent (version TEXT PRIMARY KEY, since_ms REAL NOT NULL) WITHOUT ROWID;
-- Versions that perhaps left their place at the source already (leaving.ts); 1: known is only that another came later, which may have grown from them.
CREATE TABLE IF NOT EXISTS disk.doubted (version TEXT PRIMARY KEY, grown INTEGER NOT NULL) WITHOUT ROWID;
`;

/** Nothing of it is damaged: a newer version wrote it, or this one cannot use it. */
export class JournalFromNewerVersion extends Error {}
/** Throws JournalFromNewerVersion, or what `isDamage` or `isMedium` knows. `suspect`: all of it is read through. */
export async function openTables(path: string, suspect: boolean): Promise<Database> {
  const db = await openDatabase(path);
  try {
    // `synchronous` first: a new database is synced while it is turned to WAL.
    // The default cache of 2 MB holds the rows of some 3,000 files: with more to do, pages that were changed go to the WAL twice and are read back.
    for (const pragma of [
      "disk.synchronous = OFF",
      "disk.journal_mode = WAL",
      "wal_autocheckpoint = 0",
      "temp_store = MEMORY",
      "disk.cache_size = -8000",
    ])
      db.exec(`PRAGMA ${pragma}`);
    const version = (db.prepare("PRAGMA disk.user_version").get() as { user_version: number }).user_version;
    if (version > newestFormat)
      throw new JournalFromNewerVersion(
        `${path} was written by a newer FileSync (format ${version}; this one knows ${newestFormat}): install that version again, or move the file away to begin anew from receipts.jsonl`,
      );
    const changes = version === 0 ? tables : migrations.slice(version - 1).join("; ");
    try {
      if (changes !== "") db.exec(`BEGIN; ${changes}; PRAGMA disk.user_version = ${newestFormat}; COMMIT`);
      await byRowid(db, path);
      db.exec(later);
    } catch (error) {
      if (sqliteCodeOf(error) !== 1) throw error;
      rollBack(db);
      if (!isOurs(db) || damageOf(db) !== "ok") throw error;
      throw new JournalFromNewerVersion(
        `${path} is whole, and this version cannot use it (${(error as Error).message}): install the version that wrote it again, or move the file away to begin anew from receipts.jsonl`,
        { cause: error },
      );
    }
    if (suspect) {
      const found = damageOf(db);
      if (found !== "ok") throw Object.assign(new Error(found), { damaged: true });
      makeIndexesAnew(db);
    }
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

/** It has what the first format had. */
function isOurs(db: Database): boolean {
  try {
    db.exec(
      "SELECT key, value FROM meta LIMIT 0; SELECT id, source, path, state FROM versions LIMIT 0; SELECT id, version, target, state FROM deliveries LIMIT 0; SELECT device, key FROM memory LIMIT 0",
    );
    return true;
  } catch (error) {
    if (sqliteCodeOf(error) !== 1) throw error;
    return false;
  }
}

/** No check finds one that names rows that are not there, as where the medium took a page of it back; who reads that would meet damage again and again. */
function makeIndexesAnew(db: Database): void {
  try {
    db.exec("REINDEX disk.versions; REINDEX disk.deliveries");
  } catch (error) {
    // Two rows of one id.
    if (sqliteCodeOf(error) === 19) throw Object.assign(error as Error, { damaged: true });
    // Without room they stay as they are.
    if (!isFull(error)) throw error;
  }
}

/** Of an older version. A card without room for it keeps them as they are: what was written until it was full would stay in the WAL. */
async function byRowid(db: Database, path: string): Promise<void> {
  const isOld = db.prepare("SELECT 1 FROM disk.sqlite_schema WHERE name = 'deliveries' AND sql LIKE '%WITHOUT ROWID'").get() !== undefined;
  if (!isOld || (await freeBytesAt(dirname(path))) < 4 * lengthOf(db)) return;
  try {
    db.exec(`BEGIN;
      CREATE TABLE disk.versions_new ${versions}; INSERT INTO versions_new SELECT * FROM versions ORDER BY found_ms, source, path;
      CREATE TABLE disk.deliveries_new ${deliveries};
      INSERT INTO deliveries_new SELECT d.* FROM versions_new v JOIN deliveries d ON d.version = v.id ORDER BY v.rowid;
      INSERT OR IGNORE INTO deliveries_new SELECT * FROM deliveries;
      DROP TABLE versions; ALTER TABLE versions_new RENAME TO versions;
      DROP TABLE deliveries; ALTER TABLE deliveries_new RENAME TO deliveries;
      COMMIT`);
  } catch (error) {
    rollBack(db);
    if (!isMedium(error)) throw error;
  }
}

/** Whole or not at all: SQLite syncs in its own order meanwhile. A card without room for it keeps the long file. */
export function shorten(db: Database): void {
  if (lengthOf(db) <= longBytes || 2 * asked(db, "freelist_count") <= asked(db, "page_count")) return;
  // What is left may be more than the memory has room for.
  db.exec("PRAGMA disk.synchronous = FULL; PRAGMA temp_store = FILE");
  try {
    db.exec("VACUUM disk");
    db.exec("PRAGMA disk.wal_checkpoint(TRUNCATE)");
  } catch (error) {
    if (!isMedium(error)) throw error;
  } finally {
    db.exec("PRAGMA disk.synchronous = OFF; PRAGMA temp_store = MEMORY");
  }
}

const asked = (db: Database, name: string) => Number(Object.values(db.prepare(`PRAGMA disk.${name}`).get() as Record<string, unknown>)[0]);
/** Bytes. */
const lengthOf = (db: Database) => asked(db, "page_count") * asked(db, "page_size");

/** SQLITE_NOMEM, IOERR, CORRUPT, FULL, NOTADB: the transaction is gone, or nothing can be trusted any more. */
export function isFatal(error: unknown): error is Error {
  return [7, 10, 11, 13, 26].includes(sqliteCodeOf(error) ?? 0);
}

/** The disk is full, or fails: SQLITE_IOERR, SQLITE_FULL, or node's own word for it. */
export function isMedium(error: unknown): error is Error {
  return [10, 13].includes(sqliteCodeOf(error) ?? 0) || ["ENOSPC", "EDQUOT", "EIO"].includes(codeOf(error));
}

/** The medium refuses to read, in node's words: SQLite's are those of damage. */
export function isUnreadable(error: unknown): boolean {
  return codeOf(error) === "EIO" && (error as NodeJS.ErrnoException).syscall === "read";
}

/** The disk is full: SQLITE_FULL, or node's own word for it. */
export function isFull(error: unknown): error is Error {
  return sqliteCodeOf(error) === 13 || ["ENOSPC", "EDQUOT"].includes(codeOf(error));
}

/** SQLITE_CORRUPT, SQLITE_NOTADB, or tables that are not ours. */
export function isDamage(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return "damaged" in error || isCorrupt(error) || sqliteCodeOf(error) === 1;
}
