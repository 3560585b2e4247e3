/**
 * The journal: what is known of every file, delivery and pending action, on SQLite (WAL). One process at a time has it.
 *
 * Promise. What `commit(fn)` did is on the medium when its promise resolves; what `apply(fn)` did is seen by every later read here, and is on
 * the medium no later than anything committed after it. After a kill or a power cut the journal holds a prefix of what was done, in order,
 * never half of one `fn`. A journal that cannot be read is set aside (`journal.damaged-N`) and a new one is begun: never a start that fails.
 *
 * How. SQLite itself does not sync before it is closed (synchronous=OFF): a sync of a bad SD card takes seconds, and would block the event loop as long. Writes
 * gather in one transaction; the flush loop commits it (into the page cache, under a millisecond) and then syncs the WAL in libuv's
 * thread pool; whoever waits for durability waits for that. While a sync runs the next group gathers, so a slow card sees few, large writes.
 * A checkpoint keeps SQLite's own order: WAL synced, pages copied, database synced, WAL emptied, emptied WAL synced; nothing is applied
 * meanwhile, because the first write after the copy would begin the WAL anew while the database may not be on the medium yet.
 * Once a commit or a sync has failed nothing more is taken (`failed$`): the daemon closes it and opens it again, as after a power cut.
 */
import { closeSync, existsSync, fstatSync, openSync, promises as fs, readSync, writeSync } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { Subject } from "./rxjs.js";
import { syncData, syncDir } from "./fs.js";
import { behindMark, markKey, markOf, trimReceipts } from "./receipts.js";
import { isCorrupt, sqliteCodeOf } from "./errors.js";
import { JournalHeld } from "./installation.js";
import type { Database, Statement, Value } from "./sqlite.js";
import { isDamage, isFatal, isMedium, JournalFromNewerVersion, openTables, shorten } from "./tables.js";

/** The log is copied into the database once it is longer. A full disk has to have room for both: the daemon's reserve is twice this. */
export const checkpointBytes = 8 * 2 ** 20;
/**
 * A group gathers while more comes, at most so long, before it is written: a card wears by the number of syncs. One of so many has gathered while
 * the one before it was written.
 */
const gatherMs = 10;
const lullMs = 2;
const enough = 16;
/** So often receipts are synced before a commit while more are coming; the last time nobody may add any. */
const mostRounds = 3;

export class JournalDamaged extends Error {}

export const damagedText = (dir: string): string => `the journal in ${dir} is damaged: "filesync run" sets it aside and rebuilds it`;

interface Waiter {
  resolve(): void;
  reject(error: Error): void;
}

/** "damaged": all of it is read first; "unreadable": so it is, and what the medium goes on refusing to read counts as damage, too. */
export type Doubt = "none" | "damaged" | "unreadable";

export class Journal {
  /** Emits once when the medium refused a write: nothing more is taken. */
  readonly failed$ = new Subject<Error>();
  #failure: Error | undefined;

  #open = false;
  #waiters: Waiter[] = [];
  #lines: string[] = [];
  #flushing: Promise<void> | undefined;
  #thawed: Promise<void> | undefined;
  readonly #prepared = new Map<string, Statement>();

  private constructor(
    readonly dir: string,
    readonly db: Database,
    readonly wal: FileHandle,
    readonly main: FileHandle,
    readonly receipts: FileHandle,
    /** The names of what was set aside on opening; empty when the journal was whole. */
    readonly setAside: readonly string[],
    /** Lines that were taken out of receipts.jsonl on opening. */
    readonly trimmed: number,
  ) {}

  /**
   * Opens the journal of a state directory that is locked already; `doubt`: what was met before; `mend`: one that is
   * damaged is set aside and begun anew, and so is a newer version's where an upgrade was taken back (`wentBack`: a file that is there then, beside that in `dir`). Throws JournalFromNewerVersion, JournalDamaged (nothing was changed), JournalHeld (another program has it open), or node's error when the directory
   * cannot be written.
   */
  static async open(dir: string, doubt: Doubt = "none", mend = true, wentBack?: string): Promise<Journal> {
    const path = join(dir, "journal.db");
    const suspect = doubt !== "none";
    let setAside: string[] = [];
    let db: Database;
    // Node says why a file cannot be written; SQLite's word for everything is "unable to open database file".
    await (await fs.open(path, "a")).close();
    try {
      db = await openTables(path, suspect).catch((error: unknown) => {
        if (!isDamage(error) || doubt === "unreadable") throw error;
        // SQLite takes a read that the medium refuses for damage.
        for (const end of ["", "-wal"]) readThrough(`${path}${end}`);
        return openTables(path, suspect);
      });
    } catch (error) {
      if (sqliteCodeOf(error) === 5) throw new JournalHeld(`${path} is open in another program, such as sqlite3: close it there`);
      if (error instanceof JournalFromNewerVersion ? !mend || !isTakenBack(dir, wentBack) : !isDamage(error)) throw error;
      if (!mend) throw new JournalDamaged(damagedText(dir), { cause: error });
      setAside = await moveAside(dir);
      db = await openTables(path, false);
    }
    const handles: FileHandle[] = [];
    try {
      const receiptsPath = join(dir, "receipts.jsonl");
      // What a journal does not know of which damage was met says nothing.
      if (mend && !suspect) shorten(db);
      const trimmed = mend && !suspect ? await trimmedLines(receiptsPath, db) : 0;
      const opened = async (name: string, flags: string) => {
        const handle = await fs.open(name, flags);
        handles.push(handle);
        return handle;
      };
      const wal = await opened(`${path}-wal`, "a+");
      const main = await opened(path, "r+");
      const receipts = await opened(receiptsPath, "a+");
      await endLine(receiptsPath, receipts);
      // It fits this version: the next that does not would be somebody's mistake.
      if (mend) await fs.rm(join(dir, "went-back"), { force: true });
      await main.sync();
      await wal.sync();
      await syncDir(dir);
      return new Journal(dir, db, wal, main, receipts, setAside, trimmed);
    } catch (error) {
      db.close();
      for (const handle of handles) await handle.close();
      throw error;
    }
  }

  /** Nothing more is taken. */
  get failed(): boolean {
    return this.#failure !== undefined;
  }

  /** All rows of a query. Reads see what was applied. */
  all<Row>(sql: string, ...values: Value[]): Row[] {
    return this.#asked(() => this.#prepare(sql).all(...values)) as Row[];
  }

  get<Row>(sql: string, ...values: Value[]): Row | undefined {
    return this.#asked(() => this.#prepare(sql).get(...values)) as Row | undefined;
  }

  /** Damage is the journal's, whoever meets it: a listing would take it for its source's, and tell it for ever. It is looked for, and set aside, where the journal is opened anew. */
  #asked<T>(ask: () => T): T {
    try {
      return ask();
    } catch (error) {
      if (isCorrupt(error)) this.#fail(error);
      throw error;
    }
  }

  /** Inside `apply` or `commit` only. The number of rows changed. */
  run(sql: string, ...values: Value[]): number {
    if (!this.#open) throw new Error("a write outside apply() or commit()");
    return Number(this.#prepare(sql).run(...values).changes);
  }

  /** A small value by its name, of the table "meta"; undefined where there is none. */
  meta(key: string): string | undefined {
    return this.get<{ value: string }>("SELECT value FROM meta WHERE key = ?", key)?.value;
  }

  /** Inside `apply` or `commit` only; undefined takes it away. */
  setMeta(key: string, value: string | undefined): void {
    if (value === undefined) this.run("DELETE FROM meta WHERE key = ?", key);
    else this.run("INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value);
  }

  /** A line for receipts.jsonl, written and synced before the transaction that it belongs to. Inside `apply` or `commit` only. */
  appendReceipt(line: string): void {
    this.#lines.push(line);
  }

  /** Where lines of receipts.jsonl begin that this journal does not know, as far as it can tell. */
  get unknownFrom(): number | undefined {
    return behindMark(this.receipts.fd, this.meta(markKey));
  }

  /** Inside `apply` or `commit` only. What it holds now says all that receipts.jsonl does. */
  noteReceipts(): void {
    const mark = markOf(this.receipts.fd);
    if (this.meta(markKey) !== mark) this.setMeta(markKey, mark);
  }

  /** Does `fn` (synchronously, whole or not at all); resolves once its changes are seen, which is at once unless a checkpoint runs. */
  async apply<T>(fn: () => T): Promise<T> {
    while (this.#thawed !== undefined) await this.#thawed;
    if (this.#failure !== undefined) throw this.#failure;
    if (!this.#open) {
      this.db.exec("BEGIN");
      this.#open = true;
    }
    const lines = this.#lines.length;
    this.#prepare("SAVEPOINT fn").run();
    try {
      const value = fn();
      this.#prepare("RELEASE fn").run();
      this.#flushing ??= this.#flush();
      return value;
    } catch (error) {
      this.#lines.length = lines;
      // After these SQLite has rolled back the whole transaction, with what others applied to it.
      if (isFatal(error)) this.#fail(error);
      else {
        this.db.exec("ROLLBACK TO fn; RELEASE fn");
        this.#flushing ??= this.#flush();
      }
      throw error;
    }
  }

  /** `apply`, and resolves once it is durable. */
  async commit<T>(fn: () => T): Promise<T> {
    const value = await this.apply(fn);
    await this.durable();
    return value;
  }

  /** Resolves once all that was applied is durable. */
  durable(): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (!this.#open && this.#flushing === undefined) return Promise.resolve();
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  /** A medium that is full or fails is no reason to throw: what is durable stays so, in the WAL, and the next `open` finds it. */
  async close(): Promise<void> {
    try {
      if (this.#failure === undefined) await this.durable();
    } catch (error) {
      if (!isMedium(error) && !isDamage(error)) throw error;
    }
    await this.#flushing;
    this.db.close();
    // Only now: closing any handle of the database gives up SQLite's lock on it.
    await Promise.all([this.wal.close(), this.main.close(), this.receipts.close()]);
  }

  /** How many syncs were asked of the medium; for the benchmark of wear. */
  syncs = 0;

  async #flush(): Promise<void> {
    try {
      while (this.#open || this.#waiters.length > 0) {
        await this.#gather();
        // Whoever waits now had its changes applied before this commit; who comes later waits for the next.
        const waiters = this.#waiters;
        this.#waiters = [];
        try {
          const full = fstatSync(this.wal.fd).size > checkpointBytes;
          const hasLines = this.#lines.length > 0;
          let thaw: (() => void) | undefined;
          try {
            // What is applied while lines are synced is part of this commit, and its own lines must be there before it too. In the end none may be added.
            for (let round = 1; this.#lines.length > 0; round++) {
              if (round === mostRounds) thaw = this.#freeze();
              const lines = this.#lines.join("");
              this.#lines = [];
              // As SQLite writes its pages: into the page cache.
              for (let rest = Buffer.from(lines); rest.length > 0;) rest = rest.subarray(writeSync(this.receipts.fd, rest));
              this.syncs += 1;
              await syncData(this.receipts);
            }
            // Frozen before the commit: whatever is applied after it would be in the WAL that a checkpoint is to empty.
            if (full) thaw ??= this.#freeze();
            if (this.#open) {
              if (hasLines) this.noteReceipts();
              this.db.exec("COMMIT");
              this.#open = false;
              if (!full) thaw?.();
              this.syncs += 1;
              await syncData(this.wal);
            }
            if (full) await this.#checkpoint();
          } finally {
            thaw?.();
          }
        } catch (error) {
          this.#waiters = waiters.concat(this.#waiters);
          throw error;
        }
        for (const waiter of waiters) waiter.resolve();
      }
    } catch (error) {
      this.#fail(error instanceof Error ? error : new Error(String(error)));
    } finally {
      this.#flushing = undefined;
    }
  }

  /** Until many wait, or nobody came to wait for a moment. */
  async #gather(): Promise<void> {
    for (let ms = 0, before = -1; ms < gatherMs && this.#waiters.length !== before; ms += lullMs) {
      before = this.#waiters.length;
      if (before >= enough) return;
      await new Promise((resolve) => setTimeout(resolve, lullMs));
    }
  }

  /** Nothing is applied until the function that it returns is called. */
  #freeze(): () => void {
    let thaw: () => void = () => undefined;
    const thawed = new Promise<void>((resolve) => (thaw = resolve));
    this.#thawed = thawed;
    return () => {
      this.#thawed = undefined;
      thaw();
    };
  }

  /** Frozen, with the WAL synced and no transaction open. */
  async #checkpoint(): Promise<void> {
    this.db.exec("PRAGMA disk.wal_checkpoint(PASSIVE)");
    this.syncs += 2;
    await syncData(this.main);
    this.db.exec("PRAGMA disk.wal_checkpoint(TRUNCATE)");
    await syncData(this.wal);
  }

  #fail(error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    for (const waiter of this.#waiters.splice(0)) waiter.reject(error);
    this.failed$.next(error);
  }

  #prepare(sql: string): Statement {
    let statement = this.#prepared.get(sql);
    if (statement === undefined) {
      statement = this.db.prepare(sql);
      this.#prepared.set(sql, statement);
    }
    return statement;
  }
}

/** deploy/trial.sh leaves a file where it put an older version back: nobody is there to say that the newer one's journal may be given up. It knows not every "stateDir". */
function isTakenBack(dir: string, told = ""): boolean {
  return existsSync(join(dir, "went-back")) || existsSync(told);
}

/** A card without room for both files keeps the longer one. */
async function trimmedLines(path: string, db: Database): Promise<number> {
  try {
    return await trimReceipts(path, db);
  } catch (error) {
    if (!isMedium(error)) throw error;
    return 0;
  }
}

/** Throws node's error where the medium refuses. In one go, as SQLite reads. */
function readThrough(path: string): void {
  if (!existsSync(path)) return;
  const fd = openSync(path, "r");
  try {
    const block = Buffer.alloc(2 ** 20);
    for (let at = 0, read = 1; read > 0; at += read) read = readSync(fd, block, 0, block.length, at);
  } finally {
    closeSync(fd);
  }
}

/** A cut may have torn the last line: what follows begins on a line of its own. */
async function endLine(path: string, receipts: FileHandle): Promise<void> {
  const { size } = await receipts.stat();
  if (size === 0) return;
  const reader = await fs.open(path, "r");
  try {
    const last = Buffer.alloc(1);
    await reader.read(last, 0, 1, size - 1);
    if (last[0] !== 0x0a) await receipts.appendFile("\n");
  } finally {
    await reader.close();
  }
}

async function moveAside(dir: string): Promise<string[]> {
  let n = 1;
  while (existsSync(join(dir, `journal.damaged-${n}.db`))) n += 1;
  const moved: string[] = [];
  for (const end of ["", "-wal"]) {
    const from = join(dir, `journal.db${end}`);
    if (!existsSync(from)) continue;
    const to = join(dir, `journal.damaged-${n}.db${end}`);
    await fs.rename(from, to);
    moved.push(to);
  }
  await syncDir(dir);
  return moved;
}
