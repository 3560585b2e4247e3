/**
 * One state directory on one machine. The lock keeps a second daemon out (the kernel gives it up when we die, however we die); the
 * installation id, made at first start, is bound to the machine, so that a cloned SD card becomes another installation.
 */
import { createHash, randomBytes } from "node:crypto";
import { promises as fs, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { codeOf, sqliteCodeOf } from "./errors.js";
import { makeDirDurable, writeDurable } from "./fs.js";
import { openDatabase, type Database } from "./sqlite.js";

export class StateDirHeld extends Error {}
/** Not by a FileSync: its journal is open in another program. */
export class JournalHeld extends StateDirHeld {}

export interface Installation {
  /** 8 lower-case hexadecimal digits. */
  readonly id: string;
  /** The id that was found, where the state directory woke up on another machine. */
  readonly clonedFrom?: string;
}

export interface Lock {
  release(): void;
}

/** Makes the state directory and takes it for this process. Throws StateDirHeld, or node's error when it cannot be made or written. */
export async function lockStateDir(dir: string): Promise<Lock> {
  await makeDirDurable(dir, 0o750);
  const path = join(dir, "lock");
  let db: Database;
  try {
    db = await takeLock(path);
  } catch (error) {
    if (sqliteCodeOf(error) === 5)
      throw new StateDirHeld(`another FileSync has ${dir} already; stop it first, or give this one its own "stateDir"`);
    // SQLite does not say why it cannot open it.
    if (sqliteCodeOf(error) === 14) await (await fs.open(path, "a")).close();
    // A lock file holds nothing: one that is damaged is made anew.
    if (sqliteCodeOf(error) !== 11 && sqliteCodeOf(error) !== 26) throw error;
    await fs.rm(path);
    db = await takeLock(path);
  }
  return { release: () => db.close() };
}

async function takeLock(path: string): Promise<Database> {
  const db = await openDatabase(path);
  try {
    db.exec("PRAGMA disk.journal_mode = MEMORY; PRAGMA disk.synchronous = OFF; BEGIN EXCLUSIVE");
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

/** The installation of a locked state directory. `machine` names this machine (`machineName`). */
export async function installationOf(dir: string, machine: string): Promise<Installation> {
  const path = join(dir, "installation.json");
  const found = await readInstallation(path);
  if (found?.machine === machine) return { id: found.id };
  const id = randomBytes(4).toString("hex");
  await writeDurable(path, `${JSON.stringify({ id, machine })}\n`);
  return found === undefined ? { id } : { id, clonedFrom: found.id };
}

/** The id that a state directory has now, whoever's it is; undefined where none was made yet. Changes nothing. */
export async function installationIn(dir: string): Promise<string | undefined> {
  return (await readInstallation(join(dir, "installation.json")))?.id;
}

async function readInstallation(path: string): Promise<{ id: string; machine: string } | undefined> {
  const text = await fs.readFile(path, "utf8").catch((error: unknown) => {
    if (codeOf(error) === "ENOENT") return "";
    throw error;
  });
  try {
    const value = JSON.parse(text) as { id?: unknown; machine?: unknown };
    if (typeof value.id === "string" && /^[0-9a-f]{8}$/.test(value.id) && typeof value.machine === "string")
      return { id: value.id, machine: value.machine };
  } catch {
    // Absent or damaged alike: a new id is made, at the cost of partial uploads that begin again.
    return undefined;
  }
  return undefined;
}

/**
 * A hash that differs between two machines with one SD card: the board's serial number, which a card does not carry; where none can
 * be read, the machine id of the operating system, which a clone shares until its first-boot service makes a new one. `user`: of whom the
 * state directory is, as a PC gives its serial numbers to root alone: what root read for a daemon of another user would be another machine to that.
 */
export function machineName(user = process.getuid?.()): string {
  for (const path of [
    "/sys/firmware/devicetree/base/serial-number",
    "/sys/class/dmi/id/product_uuid",
    "/sys/class/dmi/id/board_serial",
    "/etc/machine-id",
  ]) {
    try {
      if (user !== process.getuid?.() && (statSync(path).mode & 0o004) === 0) continue;
      const text = readFileSync(path, "utf8").replaceAll("\0", "").trim();
      if (text !== "") return createHash("sha256").update(text).digest("hex").slice(0, 16);
    } catch {
      // Not on this board, or only for root: the next one is asked.
      continue;
    }
  }
  return "unknown";
}
