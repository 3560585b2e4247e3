/**
 * `node journal-main.js STATEDIR DIR`: reads through the journal of a state directory, by a copy in DIR, and says as JSON what it found. A process of its own: nothing stops SQLite
 * while it reads. Also while a daemon has it: its log only grows, and the database is changed only where the log is begun anew.
 */
import { constants, existsSync, promises as fs, readSync, openSync, closeSync, statSync } from "node:fs";
import { join } from "node:path";
import { codeOf, faultOfErrno, isCorrupt, sqliteCodeOf } from "../../core/errors.js";
import { damageOf, openDatabase } from "../../core/sqlite.js";

/** `moving`: it was changed each time meanwhile. `denied`, `unreadable`: what the system says, in words. */
export interface JournalRead {
  readonly found: "whole" | "damaged" | "unreadable" | "denied" | "moving" | "unseen";
  readonly words: string;
}

const tries = 3;

const [stateDir = "", dir = ""] = process.argv.slice(2);
process.stdout.write(`${JSON.stringify(await readThrough())}\n`);

async function readThrough(): Promise<JournalRead> {
  try {
    for (let n = 0; n < tries; n++) {
      const before = state();
      for (const end of ["-wal", ""]) await copy(end);
      if (state() === before) return await check(join(dir, "journal.db"));
    }
    return { found: "moving", words: "it was written all the time" };
  } catch (error) {
    const code = codeOf(error);
    const words = faultOfErrno(error, "").message.replace(/^: /, "");
    return { found: code === "EIO" ? "unreadable" : code === "EACCES" || code === "EPERM" ? "denied" : "unseen", words };
  }
}

/** What is another once the database was changed. */
function state(): string {
  const { mtimeMs, size, ino } = statSync(join(stateDir, "journal.db"));
  const head = Buffer.alloc(32);
  const log = join(stateDir, "journal.db-wal");
  if (existsSync(log)) {
    const fd = openSync(log, "r");
    try {
      readSync(fd, head, 0, head.length, 0);
    } finally {
      closeSync(fd);
    }
  }
  return `${mtimeMs} ${size} ${ino} ${head.toString("hex")}`;
}

async function copy(end: string): Promise<void> {
  const to = join(dir, `journal.db${end}`);
  await fs.rm(to, { force: true });
  await fs.copyFile(join(stateDir, `journal.db${end}`), to, constants.COPYFILE_FICLONE).catch((error: unknown) => {
    if (end === "" || codeOf(error) !== "ENOENT") throw error;
  });
}

async function check(path: string): Promise<JournalRead> {
  try {
    const db = await openDatabase(path);
    try {
      const words = damageOf(db);
      return { found: words === "ok" ? "whole" : "damaged", words };
    } finally {
      db.close();
    }
  } catch (error) {
    // SQLITE_ERROR: what the first page says of it cannot be.
    if (!(error instanceof Error) || !(isCorrupt(error) || sqliteCodeOf(error) === 1)) throw error;
    return { found: "damaged", words: error.message };
  }
}
