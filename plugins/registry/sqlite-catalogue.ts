/** The catalogue in a file of SQLite: WAL, each change synced. Nobody else knows what is in it, so a copy is kept beside it. */
import { statSync } from "node:fs";
import { chmod, mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { Fault, isCorrupt } from "../../core/errors.js";
import { removeDurable, removeFile, renameDurable, syncFound } from "../../core/fs.js";
import { damageOf, openDatabase, rollBack, type Database, type Statement, type Value } from "../../core/sqlite.js";
import { type Catalogue, type FileRow, type Owner, type Pending, type SlotRow, Taken, type Used, type Vehicle } from "./catalogue.js";

const version = 3;

const schema = `
CREATE TABLE disk.owners (id TEXT PRIMARY KEY, email TEXT NOT NULL UNIQUE, quota INTEGER) STRICT;
CREATE TABLE disk.vehicles (id TEXT PRIMARY KEY, name TEXT NOT NULL, owner TEXT NOT NULL REFERENCES owners(id) ON DELETE CASCADE, key TEXT NOT NULL, fingerprint TEXT NOT NULL UNIQUE,
  state TEXT NOT NULL, created_ms INTEGER NOT NULL, quota INTEGER, ftp_hash TEXT, ftp_bytes INTEGER NOT NULL DEFAULT 0, legacy INTEGER NOT NULL DEFAULT 0, UNIQUE (owner, name)) STRICT;
CREATE TABLE disk.pending (id TEXT PRIMARY KEY, email TEXT NOT NULL, name TEXT, key TEXT NOT NULL, fingerprint TEXT NOT NULL UNIQUE, state TEXT NOT NULL, reason TEXT, by TEXT NOT NULL,
  token_hash TEXT NOT NULL UNIQUE, mailed INTEGER NOT NULL, age_ms INTEGER NOT NULL, vehicle TEXT, legacy INTEGER NOT NULL DEFAULT 0, renew INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE disk.slots (id TEXT PRIMARY KEY, vehicle TEXT NOT NULL REFERENCES vehicles(id) ON DELETE CASCADE, name TEXT NOT NULL, state TEXT NOT NULL, opened_ms INTEGER NOT NULL, UNIQUE (vehicle, name)) STRICT;
CREATE INDEX disk.open_slots ON slots (state) WHERE state = 'open';
CREATE TABLE disk.files (slot TEXT NOT NULL REFERENCES slots(id) ON DELETE CASCADE, path TEXT NOT NULL, size INTEGER NOT NULL, digest TEXT NOT NULL, committed_ms INTEGER NOT NULL,
  gone INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (slot, path)) STRICT;
CREATE INDEX disk.files_there ON files (slot) WHERE gone = 0;
`;

/** What makes a file of that format one of the next. */
const migrations: Readonly<Record<number, string>> = {
  1: `ALTER TABLE vehicles ADD COLUMN ftp_hash TEXT; ALTER TABLE vehicles ADD COLUMN ftp_bytes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE vehicles ADD COLUMN legacy INTEGER NOT NULL DEFAULT 0; ALTER TABLE pending ADD COLUMN legacy INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE pending ADD COLUMN renew INTEGER NOT NULL DEFAULT 0;`,
  2: "ALTER TABLE files ADD COLUMN gone INTEGER NOT NULL DEFAULT 0; CREATE INDEX disk.files_there ON files (slot) WHERE gone = 0;",
};

interface VehicleRow {
  id: string;
  name: string;
  owner: string;
  email: string;
  owner_quota: number | null;
  key: string;
  fingerprint: string;
  state: Vehicle["state"];
  created_ms: number;
  quota: number | null;
  ftp_hash: string | null;
  ftp_bytes: number;
  legacy: number;
}

interface PendingRow {
  id: string;
  email: string;
  name: string | null;
  key: string;
  fingerprint: string;
  state: Pending["state"];
  reason: string | null;
  by: Pending["by"];
  token_hash: string;
  mailed: number;
  age_ms: number;
  vehicle: string | null;
  legacy: number;
  renew: number;
}

const copyMs = 24 * 3600_000;
const copyOf = (path: string) => `${path}.copy`;
/** Its name until it is whole. */
const makingOf = (path: string) => `${copyOf(path)}.new`;

const vehicleRows = `SELECT v.*, o.email, o.quota AS owner_quota FROM vehicles v JOIN owners o ON o.id = v.owner`;

/** Opens the file, made where there is none. Throws Fault "denied" where it is damaged, an Error that a newer version wrote it, or SQLite's. */
export async function openCatalogue(path: string): Promise<Catalogue> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  try {
    return await opened(path);
  } catch (error) {
    throw orDamage(path, error);
  }
}

/** What a person reads of damage: it cannot be mended here, and what to do. */
function orDamage(path: string, error: unknown): unknown {
  if (!isCorrupt(error)) return error;
  const copy = statSync(copyOf(path), { throwIfNoEntry: false });
  const help =
    copy === undefined
      ? "put a backup of it there, or take it away: then all vehicles register anew; their files stay"
      : `with the station stopped, its copy of ${copy.mtime.toISOString().slice(0, 19)}Z can take its place: rm -f ${path}-wal && mv ${copyOf(path)} ${path}; what was registered, revoked or sent since is not in that`;
  return new Fault("denied", `the catalogue ${path} is damaged (${error.message}): ${help}`, { cause: error });
}

async function opened(path: string): Promise<Catalogue> {
  const database = await openDatabase(path);
  try {
    database.exec(
      "PRAGMA disk.journal_mode = WAL; PRAGMA disk.synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA disk.secure_delete = ON",
    );
    const { user_version: found } = database.prepare("PRAGMA disk.user_version").get() as { user_version: number };
    if (found > version) throw new Error(`${path} was written by a newer version of FileSync (format ${found}, not ${version})`);
    if (found === 0) database.exec(`BEGIN; ${schema} PRAGMA disk.user_version = ${version}; COMMIT`);
    for (let at = found; at > 0 && at < version; at++)
      database.exec(`BEGIN; ${migrations[at] ?? ""} PRAGMA disk.user_version = ${at + 1}; COMMIT`);
    return new SqliteCatalogue(path, database);
  } catch (error) {
    database.close();
    throw error;
  }
}

class SqliteCatalogue implements Catalogue {
  readonly #database: Database;
  readonly #statements = new Map<string, Statement>();

  #copying: Promise<void> | undefined;

  constructor(
    readonly path: string,
    database: Database,
  ) {
    this.#database = database;
  }

  keepCopy(nowMs: number): Promise<void> {
    return (this.#copying = this.#keepCopy(nowMs));
  }

  async #keepCopy(nowMs: number): Promise<void> {
    const [path, making] = [copyOf(this.path), makingOf(this.path)];
    // Of before a power cut.
    await removeFile(making);
    const age = nowMs - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? -Infinity);
    if (Math.abs(age) < copyMs) return;
    try {
      // What is damaged takes the place of no copy.
      const found = damageOf(this.#database);
      if (found !== "ok") throw Object.assign(new Error(found), { errcode: 11 });
      this.#database.prepare("VACUUM disk INTO ?").run(making);
      await chmod(making, 0o600);
      await syncFound(making);
      await renameDurable(making, path);
    } catch (error) {
      await removeFile(making).catch(() => undefined);
      throw orDamage(this.path, error);
    }
  }

  vehicles(): Promise<Vehicle[]> {
    return this.#do(() => this.#all<VehicleRow>(`${vehicleRows} ORDER BY o.email, v.name`).map(vehicleOf));
  }

  vehicle(id: string): Promise<Vehicle | undefined> {
    return this.#do(() => this.#vehicle("v.id = ?", id));
  }

  vehicleOfKey(fingerprint: string): Promise<Vehicle | undefined> {
    return this.#do(() => this.#vehicle("v.fingerprint = ?", fingerprint));
  }

  vehicleNamed(email: string, name: string): Promise<Vehicle | undefined> {
    return this.#do(() => this.#vehicle("o.email = ? AND v.name = ?", email, name));
  }

  setKey(vehicle: string, key: string, fingerprint: string): Promise<void> {
    return this.#do(() => {
      if (this.#vehicle("v.fingerprint = ? AND v.id <> ?", fingerprint, vehicle) !== undefined) throw new Taken("key");
      this.#run("UPDATE vehicles SET key = ?, fingerprint = ?, ftp_hash = NULL WHERE id = ?", key, fingerprint, vehicle);
    });
  }

  setState(vehicle: string, state: Vehicle["state"]): Promise<void> {
    return this.#do(() => {
      this.#run("UPDATE vehicles SET state = ? WHERE id = ?", state, vehicle);
      if (state === "revoked") this.#run("UPDATE vehicles SET ftp_hash = NULL WHERE id = ?", vehicle);
    });
  }

  setFtpHash({ id, fingerprint }: Pick<Vehicle, "id" | "fingerprint">, hash: string): Promise<boolean> {
    const change = "UPDATE vehicles SET ftp_hash = ? WHERE id = ? AND fingerprint = ? AND state = 'active'";
    return this.#do(() => Number(this.#prepared(change).run(hash, id, fingerprint).changes) > 0);
  }

  setFtpBytes(vehicle: string, bytes: number): Promise<void> {
    return this.#do(() => this.#run("UPDATE vehicles SET ftp_bytes = ? WHERE id = ?", bytes, vehicle));
  }

  setQuota(who: { readonly vehicle: string } | { readonly owner: string }, bytes: number | undefined): Promise<void> {
    return this.#do(() => {
      if ("vehicle" in who) this.#run("UPDATE vehicles SET quota = ? WHERE id = ?", bytes ?? null, who.vehicle);
      else this.#run("UPDATE owners SET quota = ? WHERE id = ?", bytes ?? null, who.owner);
    });
  }

  async deleteOwner(email: string): Promise<number> {
    // Before, too: after a power cut nobody would know that it has what was deleted.
    await this.#dropCopy();
    const registrations = await this.#do(() => {
      this.#run("DELETE FROM owners WHERE email = ?", email);
      return Number(this.#prepared("DELETE FROM pending WHERE email = ?").run(email).changes);
    });
    // The log has them still.
    this.#database.exec("PRAGMA disk.wal_checkpoint(TRUNCATE)");
    await this.#dropCopy();
    return registrations;
  }

  async #dropCopy(): Promise<void> {
    await this.#copying?.catch(() => undefined);
    for (const path of [makingOf(this.path), copyOf(this.path)]) await removeDurable(path);
  }

  addPending(it: Pending): Promise<void> {
    return this.#do(() => {
      this.#run("DELETE FROM pending WHERE fingerprint = ?", it.fingerprint);
      this.#run(
        "INSERT INTO pending VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ...[it.id, it.email, it.name ?? null, it.key, it.fingerprint, it.state, it.reason ?? null, it.by],
        ...[it.tokenHash, it.mailed ? 1 : 0, it.ageMs, it.vehicle ?? null, it.legacy ? 1 : 0, it.renew ? 1 : 0],
      );
    });
  }

  pending(id: string): Promise<Pending | undefined> {
    return this.#pending("id", id);
  }

  pendingOfToken(tokenHash: string): Promise<Pending | undefined> {
    return this.#pending("token_hash", tokenHash);
  }

  pendingOfKey(fingerprint: string): Promise<Pending | undefined> {
    return this.#pending("fingerprint", fingerprint);
  }

  allPending(): Promise<Pending[]> {
    return this.#do(() => this.#all<PendingRow>("SELECT * FROM pending WHERE state = 'waiting' ORDER BY age_ms DESC").map(pendingOf));
  }

  changePending(
    id: string,
    { state, reason, mailed, tokenHash }: Partial<Pick<Pending, "state" | "reason" | "mailed" | "tokenHash">>,
  ): Promise<boolean> {
    const change = `UPDATE pending SET state = coalesce(?, state), reason = coalesce(?, reason), mailed = coalesce(?, mailed), token_hash = coalesce(?, token_hash)
      WHERE id = ? AND state = 'waiting'`;
    const values = [state ?? null, reason ?? null, mailed === undefined ? null : Number(mailed), tokenHash ?? null, id];
    return this.#do(() => Number(this.#prepared(change).run(...values).changes) > 0);
  }

  age(ms: number, expireMs: number, keepMs: number): Promise<string[]> {
    return this.#do(() => {
      if (this.#all("SELECT 1 FROM pending LIMIT 1").length === 0) return [];
      this.#run("UPDATE pending SET age_ms = age_ms + ?", Math.round(ms));
      const expired = this.#all<{ id: string }>("SELECT id FROM pending WHERE state = 'waiting' AND age_ms > ?", expireMs);
      this.#run("UPDATE pending SET state = 'expired' WHERE state = 'waiting' AND age_ms > ?", expireMs);
      this.#run("DELETE FROM pending WHERE age_ms > ?", expireMs + keepMs);
      return expired.map(({ id }) => id);
    });
  }

  confirm(
    id: string,
    made: { readonly vehicle: string; readonly name: string; readonly owner: string; readonly atMs: number },
  ): Promise<Vehicle> {
    return this.#do(() => {
      const [row] = this.#all<PendingRow>("SELECT * FROM pending WHERE id = ? AND state = 'waiting'", id);
      if (row === undefined) throw new Taken("over");
      this.#run("INSERT INTO owners (id, email) VALUES (?, ?) ON CONFLICT (email) DO NOTHING", made.owner, row.email);
      const [owner] = this.#all<{ id: string }>("SELECT id FROM owners WHERE email = ?", row.email);
      if (this.#vehicle("v.fingerprint = ?", row.fingerprint) !== undefined) throw new Taken("key");
      const before = this.#vehicle("o.email = ? AND v.name = ?", row.email, made.name);
      if (before?.state === "active" && row.renew === 0) throw new Taken("name");
      if (before === undefined && row.renew === 1) throw new Taken("none");
      if (before !== undefined)
        this.#run(
          "UPDATE vehicles SET key = ?, fingerprint = ?, state = 'active', legacy = ?, ftp_hash = NULL WHERE id = ?",
          row.key,
          row.fingerprint,
          row.legacy,
          before.id,
        );
      else
        this.#run(
          "INSERT INTO vehicles (id, name, owner, key, fingerprint, state, created_ms, legacy) VALUES (?, ?, ?, ?, ?, 'active', ?, ?)",
          ...[made.vehicle, made.name, owner?.id ?? made.owner, row.key, row.fingerprint, made.atMs, row.legacy],
        );
      const known = before?.id ?? made.vehicle;
      this.#run("UPDATE pending SET state = 'confirmed', vehicle = ? WHERE id = ?", known, id);
      const vehicle = this.#vehicle("v.id = ?", known);
      if (vehicle === undefined) throw new Error("the vehicle was not kept");
      return vehicle;
    });
  }

  addSlot({ id, vehicle, name, state, openedMs }: SlotRow): Promise<boolean> {
    const add = "INSERT INTO slots VALUES (?, ?, ?, ?, ?) ON CONFLICT (vehicle, name) DO NOTHING";
    return this.#do(() => Number(this.#prepared(add).run(id, vehicle, name, state, openedMs).changes) > 0);
  }

  slot(id: string): Promise<SlotRow | undefined> {
    return this.#do(() => this.#slots("id = ?", id)[0]);
  }

  openSlots(): Promise<SlotRow[]> {
    return this.#do(() => this.#slots("state = 'open'"));
  }

  slotBefore({ id, vehicle }: SlotRow): Promise<SlotRow | undefined> {
    return this.#do(() => this.#slots("vehicle = ? AND id <> ? ORDER BY rowid DESC LIMIT 1", vehicle, id)[0]);
  }

  setSlot(id: string, state: SlotRow["state"], was?: SlotRow["state"]): Promise<void> {
    return this.#do(() => this.#run("UPDATE slots SET state = ? WHERE id = ? AND state = coalesce(?, state)", state, id, was ?? null));
  }

  setEmptied(id: string, was: SlotRow["state"]): Promise<boolean> {
    const change = "UPDATE slots SET state = 'emptied' WHERE id = ? AND state = ? AND EXISTS (SELECT 1 FROM files WHERE slot = slots.id)";
    return this.#do(() => Number(this.#prepared(change).run(id, was).changes) > 0);
  }

  dropUnused(id: string): Promise<void> {
    return this.#do(() => this.#run("DELETE FROM slots WHERE id = ? AND NOT EXISTS (SELECT 1 FROM files WHERE slot = slots.id)", id));
  }

  dropSlot(id: string): Promise<void> {
    return this.#do(() => this.#run("DELETE FROM slots WHERE id = ?", id));
  }

  addFile({ slot, path, size, digest, committedMs }: Omit<FileRow, "gone">): Promise<void> {
    return this.#do(() =>
      this.#run(
        `INSERT INTO files VALUES (?, ?, ?, ?, ?, 0)
          ON CONFLICT (slot, path) DO UPDATE SET size = excluded.size, digest = excluded.digest, committed_ms = excluded.committed_ms, gone = 0`,
        ...[slot, path, size, digest, committedMs],
      ),
    );
  }

  file(slot: string, path: string): Promise<FileRow | undefined> {
    return this.#do(() => this.#files("slot = ? AND path = ?", slot, path)[0]);
  }

  slotsOf(vehicle: string): Promise<SlotRow[]> {
    return this.#do(() => this.#slots("vehicle = ?", vehicle));
  }

  filesIn(slot: string): Promise<FileRow[]> {
    return this.#do(() => this.#files("slot = ? AND gone = 0", slot));
  }

  setGone({ slot, path, committedMs }: FileRow, gone: boolean): Promise<void> {
    const change = "UPDATE files SET gone = ? WHERE slot = ? AND path = ? AND committed_ms = ?";
    return this.#do(() => this.#run(change, gone ? 1 : 0, slot, path, committedMs));
  }

  setAllGone(slot: string): Promise<void> {
    return this.#do(() => this.#run("UPDATE files SET gone = 1 WHERE slot = ? AND gone = 0", slot));
  }

  async used(vehicle: string): Promise<Used> {
    return (
      (await this.#used("WHERE v.owner = (SELECT owner FROM vehicles WHERE id = ?)", vehicle)).get(vehicle) ?? { vehicle: 0, owner: 0 }
    );
  }

  usedOfAll(): Promise<ReadonlyMap<string, Used>> {
    return this.#used("");
  }

  close(): Promise<void> {
    this.#database.close();
    return Promise.resolve();
  }

  /** `where`: never of some vehicles of an owner only. */
  #used(where: string, ...values: Value[]): Promise<ReadonlyMap<string, Used>> {
    const sums = `SELECT v.id, v.owner, v.ftp_bytes + coalesce(sum(f.size), 0) AS n
      FROM vehicles v LEFT JOIN slots s ON s.vehicle = v.id LEFT JOIN files f ON f.slot = s.id AND f.gone = 0 ${where} GROUP BY v.id`;
    return this.#do(() => {
      const rows = this.#all<{ id: string; owner: string; n: number }>(sums, ...values);
      const owners = new Map<string, number>();
      for (const { owner, n } of rows) owners.set(owner, (owners.get(owner) ?? 0) + n);
      return new Map(rows.map(({ id, owner, n }) => [id, { vehicle: n, owner: owners.get(owner) ?? 0 }]));
    });
  }

  #pending(column: "id" | "token_hash" | "fingerprint", value: string): Promise<Pending | undefined> {
    return this.#do(() => this.#all<PendingRow>(`SELECT * FROM pending WHERE ${column} = ?`, value).map(pendingOf)[0]);
  }

  #vehicle(where: string, ...values: Value[]): Vehicle | undefined {
    return this.#all<VehicleRow>(`${vehicleRows} WHERE ${where}`, ...values).map(vehicleOf)[0];
  }

  #slots(where: string, ...values: Value[]): SlotRow[] {
    return this.#all<SlotRow>(`SELECT id, vehicle, name, state, opened_ms AS openedMs FROM slots WHERE ${where}`, ...values);
  }

  #files(where: string, ...values: Value[]): FileRow[] {
    const rows = `SELECT slot, path, size, digest, committed_ms AS committedMs, gone FROM files WHERE ${where}`;
    return this.#all<Omit<FileRow, "gone"> & { gone: number }>(rows, ...values).map((row) => ({ ...row, gone: row.gone === 1 }));
  }

  #all<Row>(sql: string, ...values: Value[]): Row[] {
    return this.#prepared(sql).all(...values) as Row[];
  }

  #run(sql: string, ...values: Value[]): void {
    this.#prepared(sql).run(...values);
  }

  #prepared(sql: string): Statement {
    let statement = this.#statements.get(sql);
    if (statement === undefined) this.#statements.set(sql, (statement = this.#database.prepare(sql)));
    return statement;
  }

  /** All of it or nothing. */
  #do<T>(work: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      try {
        resolve(this.#whole(work));
      } catch (error) {
        const told = orDamage(this.path, error);
        reject(told instanceof Error ? told : new Error(String(told)));
      }
    });
  }

  #whole<T>(work: () => T): T {
    this.#database.exec("BEGIN");
    try {
      const result = work();
      this.#database.exec("COMMIT");
      return result;
    } catch (error) {
      rollBack(this.#database);
      throw error;
    }
  }
}

function ownerOf(row: VehicleRow): Owner {
  return { id: row.owner, email: row.email, ...(row.owner_quota === null ? {} : { quotaBytes: row.owner_quota }) };
}

function vehicleOf(row: VehicleRow): Vehicle {
  const { id, name, key, fingerprint, state, created_ms: createdMs, quota, ftp_hash: ftpHash, ftp_bytes: ftpBytes } = row;
  return {
    ...{ id, name, owner: ownerOf(row), key, fingerprint, legacy: row.legacy === 1, state, createdMs, ftpBytes },
    ...(quota === null ? {} : { quotaBytes: quota }),
    ...(ftpHash === null ? {} : { ftpHash }),
  };
}

function pendingOf(row: PendingRow): Pending {
  const { id, email, name, key, fingerprint, state, reason, by, token_hash: tokenHash, mailed, age_ms: ageMs, vehicle } = row;
  return {
    ...{ id, email, key, fingerprint, legacy: row.legacy === 1, renew: row.renew === 1, state, by, tokenHash, mailed: mailed === 1, ageMs },
    ...(name === null ? {} : { name }),
    ...(reason === null ? {} : { reason }),
    ...(vehicle === null ? {} : { vehicle }),
  };
}
