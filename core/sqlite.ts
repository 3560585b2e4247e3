/**
 * SQLite, whichever this machine has: `@photostructure/sqlite` carries binaries for x64 and arm64; elsewhere Node's own `node:sqlite`
 * (Node ≥ 22.13) has the same shape. Only what core uses of it is named here.
 */
export type Value = string | number | null;

export interface Statement {
  all(...values: Value[]): unknown[];
  get(...values: Value[]): unknown;
  run(...values: Value[]): { changes: number | bigint };
}

export interface Database {
  exec(sql: string): void;
  prepare(sql: string): Statement;
  close(): void;
}

type Constructor = new (path: string, options?: { timeout?: number }) => Database;

/** Opens a database file, made where there is none. Throws SQLite's error (`errcode`). */
export async function openDatabase(path: string): Promise<Database> {
  const Opened = await constructorOf();
  return new Opened(path, { timeout: 0 });
}

async function constructorOf(): Promise<Constructor> {
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
