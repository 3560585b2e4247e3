/** What a journal says, and takes, while no daemon runs. Has the state directory for that moment: who wants it then looks again for a while. */
import { existsSync, promises as fs, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { engineOf, type OwnEngine } from "../core/build.js";
import { RealClock } from "../core/clock.js";
import { whyNotWritten } from "../core/daemon.js";
import type { Config, DeviceConfig } from "../core/config.js";
import { codeOf, isCorrupt, sqliteCodeOf } from "../core/errors.js";
import { Events } from "../core/events.js";
import { installationIn, lockStateDir, type Lock } from "../core/installation.js";
import { damagedText, Journal, JournalDamaged } from "../core/journal.js";
import { forgottenIn } from "../core/receipts.js";
import { isMedium } from "../core/tables.js";
import { UsageError } from "./config.js";
import { noScratch } from "./scratch.js";
import { asOwnerOf } from "./machine/as-owner.js";
import { barredText, othersText, strangeText } from "./machine/state-dir.js";

const patienceMs = 3000;

/** While somebody has a state directory who may be a command, which has it for a moment only. */
export class Patience {
  readonly #clock = new RealClock();
  readonly #untilMs = this.#clock.monotonicMs() + patienceMs;

  /** False where it has lasted too long for that, or `signal` ended it. */
  async wait(signal?: AbortSignal): Promise<boolean> {
    if (this.#clock.monotonicMs() >= this.#untilMs) return false;
    await this.#clock.sleep(100, signal).catch(() => undefined);
    return signal?.aborted !== true;
  }
}

/**
 * What is asked of a journal. "reads": it changes nothing, and can do without writing. "foresees": where there is no journal it sees what a first run would, and nothing of that
 * stays. "changes": all else.
 */
export type Asks = "reads" | "foresees" | "changes";

/** What `work` says with the journal, while nobody else has it. Throws UsageError where there is no journal or it is another user's, and StateDirHeld. */
export async function withJournal<T>(config: Config, asks: Asks, work: (engine: OwnEngine) => T | Promise<T>): Promise<T> {
  const { stateDir } = config;
  const reads = asks === "reads";
  const strange = strangeText(stateDir);
  if (strange !== undefined) throw new UsageError(strange);
  if (!existsSync(join(stateDir, "journal.db"))) {
    const none = `no FileSync runs with ${stateDir}, and none ever did`;
    if (asks === "foresees") return foreseen(config, none, work);
    throw new UsageError(`${none}; start it with "filesync run", or, where "stateDir" was changed while one runs, restart that`);
  }
  let lock: Lock | undefined;
  let copy: string | undefined;
  try {
    if (reads && (await isOnReadOnly(stateDir))) copy = await copyOf(stateDir);
    else lock = await asOwnerOf(stateDir, () => lockStateDir(stateDir));
    const opened =
      copy === undefined ? asOwnerOf(stateDir, () => Journal.open(stateDir, "none", false)) : Journal.open(copy, "none", false);
    const journal = await opened.catch(async (error: unknown) => {
      // One of an older version wants room.
      if (!reads || copy !== undefined || !isMedium(error)) throw error;
      copy = await copyOf(stateDir);
      return Journal.open(copy, "none", false);
    });
    try {
      const engine = engineWith(config, journal, await installationIn(stateDir));
      for (const { id, size } of journal.all<{ id: string; size: number }>("SELECT id, size FROM versions WHERE spooled > 0"))
        engine.spool.hold(id, size);
      if (copy === undefined && knowsLess(journal, stateDir))
        process.stderr.write(
          `the journal in ${stateDir} does not know all that receipts.jsonl beside it says: the next start of the daemon takes it from there, and it is not told here\n`,
        );
      return await work(engine);
    } finally {
      await journal.close();
    }
  } catch (error) {
    // Not all of it is read when it is opened.
    if (isCorrupt(error)) throw new JournalDamaged(damagedText(stateDir), { cause: error });
    if (isMedium(error))
      throw new UsageError(`the journal in ${stateDir} cannot be ${reads ? "read" : "written"}: ${await whyNotWritten(stateDir, error)}`);
    if (isReadOnly(error)) throw new UsageError(`${stateDir} cannot be written: the file system is read-only; mount it for writing`);
    if (!isDenied(error)) throw error;
    const known = othersText(stateDir) ?? barredText(stateDir);
    if (known !== undefined) throw new UsageError(known);
    const { uid } = statSync(stateDir);
    throw new UsageError(
      `permission denied for ${stateDir}: it belongs to the user with id ${uid}; ${
        process.geteuid?.() === 0
          ? `root acts as that one there, who may not come to it ("namei -l ${stateDir}" shows where), or as whom root may not act here`
          : "run this as that user, or as root"
      }`,
    );
  } finally {
    lock?.release();
    if (copy !== undefined) await fs.rm(copy, { recursive: true });
  }
}

/** What a daemon learned of devices, by their names: of what has a directory of this machine, as where it is mounted. */
export type Learned = ReadonlyMap<string, ReadonlyMap<string, unknown>>;

/** Nothing where a daemon runs, which knows more, or where it cannot be read. Nothing may work beside it: root is another user meanwhile, and nobody else gets the journal. */
export async function learnedOf(devices: readonly DeviceConfig[], config: Config): Promise<Learned> {
  const names = devices.filter(({ plugin }) => plugin.dirOf !== undefined).map(({ name }) => name);
  if (names.length === 0) return new Map();
  try {
    return await withJournal(
      config,
      "reads",
      ({ journal }) =>
        new Map(
          names.map((name) => [
            name,
            new Map(
              journal
                .all<{ key: string; value: string }>("SELECT key, value FROM memory WHERE device = ?", name)
                .map(({ key, value }): [string, unknown] => [key, JSON.parse(value)]),
            ),
          ]),
        ),
    );
  } catch {
    // What is wrong with it is no matter of these devices.
    return new Map();
  }
}

/** With a state directory that knows nothing, for this question alone. */
async function foreseen<T>(config: Config, none: string, work: (engine: OwnEngine) => T | Promise<T>): Promise<T> {
  const cannot = (error: unknown): never => {
    throw noScratch(`${none}, and what a first run would find needs room in`, error);
  };
  const stateDir = await fs.mkdtemp(join(tmpdir(), "filesync-first-")).catch(cannot);
  try {
    const journal = await Journal.open(stateDir).catch(cannot);
    process.stderr.write(`${none}: this is what a first run would find\n`);
    try {
      return await work(engineWith({ ...config, stateDir }, journal, undefined));
    } finally {
      await journal.close();
    }
  } finally {
    await fs.rm(stateDir, { recursive: true });
  }
}

function engineWith(config: Config, journal: Journal, installation: string | undefined): OwnEngine {
  const clock = new RealClock();
  const given = { config, events: new Events(), clock, random: Math.random, startMs: clock.monotonicMs() };
  return engineOf(given, journal, installation ?? "00000000");
}

/** After a power cut: it lost its end, or all of it. */
function knowsLess(journal: Journal, stateDir: string): boolean {
  if (journal.unknownFrom !== undefined) return true;
  const size = statSync(join(stateDir, "receipts.jsonl"), { throwIfNoEntry: false })?.size ?? 0;
  return size > 0 && journal.get("SELECT 1 FROM versions LIMIT 1") === undefined && forgottenIn(journal).deliveries === 0;
}

/** Nobody else writes there either. */
async function isOnReadOnly(stateDir: string): Promise<boolean> {
  try {
    await (await fs.open(join(stateDir, "journal.db"), "a")).close();
    return false;
  } catch (error) {
    if (isReadOnly(error)) return true;
    throw error;
  }
}

/** SQLite reads a journal with its log only where it may write beside it. */
async function copyOf(stateDir: string): Promise<string> {
  const cannot = (error: unknown): never => {
    throw noScratch(`${stateDir} cannot be written, and to be read the journal has to be copied to`, error);
  };
  const dir = await fs.mkdtemp(join(tmpdir(), "filesync-journal-")).catch(cannot);
  try {
    for (const name of ["journal.db", "journal.db-wal"])
      if (existsSync(join(stateDir, name))) await fs.copyFile(join(stateDir, name), join(dir, name));
    return dir;
  } catch (error) {
    await fs.rm(dir, { recursive: true });
    if (isDenied(error)) throw error;
    return cannot(error);
  }
}

/** node's word, or SQLite's: SQLITE_PERM, SQLITE_READONLY, SQLITE_CANTOPEN. */
export function isDenied(error: unknown): boolean {
  return [3, 8, 14].includes(sqliteCodeOf(error) ?? 0) || ["EACCES", "EPERM"].includes(codeOf(error));
}

function isReadOnly(error: unknown): boolean {
  return codeOf(error) === "EROFS";
}
