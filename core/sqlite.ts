/**
 * SQLite, whichever this machine has: `@photostructure/sqlite` carries binaries for x64 and arm64; elsewhere Node's own `node:sqlite`
 * (Node ≥ 22.13) has the same shape. Only what core uses of it is named here.
 */
import { rm } from "node:fs/promises";

export type Value = string | number | null;

export interface Statement {
  all(...values: Value[]): unknown[];
  get(...values: Value[]): unknown;
  run(...values: Value[]): { changes: number | bigint };
}

export interface Database {
  exec(sql: string): void;
  prepare(sql: string): Statement;
  /** What no COMMIT has closed is rolled back. A medium that is full or fails is no error: what it did not take is in the WAL. */
  close(): void;
}

type Constructor = new (path: string, options?: { timeout?: number }) => Database;

/**
 * Opens a database file, made where there is none, for this connection alone: to all others it is locked from the first look at it until `close`. In SQL it is the
 * schema `disk`, which whatever is made there, and each pragma, has to name. Throws SQLite's error (`errcode`).
 */
export async function openDatabase(path: string): Promise<Database> {
  const Opened = await constructorOf();
  const db = new Opened(":memory:", { timeout: 0 });
  try {
    // So the index of a WAL is on the heap. Shared, it is a file mapped into memory, and a page of that for which a full disk has no block ends the process
    // with SIGBUS: where blocks are smaller than pages, or are written anew at each change.
    db.exec(`PRAGMA locking_mode = EXCLUSIVE; ATTACH '${path.replaceAll("'", "''")}' AS disk`);
    // Left by a version that shared it.
    await rm(`${path}-shm`, { force: true });
  } catch (error) {
    db.close();
    throw error;
  }
  return {
    exec: (sql) => db.exec(sql),
    prepare: (sql) => db.prepare(sql),
    close: () => {
      rollBack(db);
      // It copies a WAL that is not empty, and removes it: never before all is on the medium in the database, whatever was set until now.
      db.exec("PRAGMA disk.synchronous = FULL");
      // A connection lives on until each of its statements was collected, with the lock of a file that is its own; what is detached is closed at once.
      db.exec("DETACH disk");
      db.close();
    },
  };
}

/** SQLite may have rolled back by itself when the medium failed. */
export function rollBack(db: Database): void {
  try {
    db.exec("ROLLBACK");
  } catch (error) {
    if (!(error instanceof Error && error.message.includes("no transaction"))) throw error;
  }
}

/** What is wrong with a database, the first of it on one line, or "ok": all of it is read through. Throws SQLite's error where that cannot be. */
export function damageOf(db: Database): string {
  const { quick_check: words } = db.prepare("PRAGMA disk.quick_check(1)").get() as { quick_check: string };
  return words.replaceAll(/\s+/g, " ").trim();
}

export async function constructorOf(): Promise<Constructor> {
  try {
    return (await import("@photostructure/sqlite")).DatabaseSync;
  } catch (error) {
    const builtIn = "node:sqlite";
    const own = (await import(builtIn).catch(() => undefined)) as { DatabaseSync: Constructor } | undefined;
    if (own === undefined)
      throw new Error(`this machine (${process.arch}) has no SQLite: FileSync needs x64 or arm64, or Node.js 22.13 or newer`, {
        cause: error,
      });
    return own.DatabaseSync;
  }
}
