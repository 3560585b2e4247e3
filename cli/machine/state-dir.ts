/** What lies in a state directory, and is not as the one who has that directory needs it. */
import { accessSync, closeSync, constants, lstatSync, openSync, readSync, statSync, type Stats } from "node:fs";
import { dirname, join } from "node:path";
import { codeOf, Fault, faultOfErrno } from "../../core/errors.js";
import { mayWriteIn } from "../../core/fs.js";
import { withRights } from "../../core/rights.js";
import { newestFormat } from "../../core/tables.js";
import { shellWord } from "../../core/text.js";
import { barredFromDir } from "./rights.js";
import type { User, View } from "./view.js";

type Kind = "file" | "directory" | "socket";

/** What the daemon keeps in it. */
const kept: Readonly<Record<string, Kind>> = {
  devices: "directory",
  "installation.json": "file",
  "journal.db": "file",
  "journal.db-shm": "file",
  "journal.db-wal": "file",
  lock: "file",
  "receipts.jsonl": "file",
  reserve: "file",
  spool: "directory",
  "control.sock": "socket",
};

const elsewhere = 'set "stateDir" to another directory';

interface Strange {
  readonly path: string;
  readonly words: string;
  readonly todo: string;
}

/** The directory itself (path ""), or the first thing in it, that is something else than the daemon can work with; in words. */
export function strangeIn(dir: string): Strange | undefined {
  const impossible = impossibleText(dir);
  if (impossible !== undefined) return { path: "", words: impossible, todo: elsewhere };
  const own = kindOf(dir);
  if (own === undefined) return undefined;
  if (own !== "directory") return { path: "", words: `it is a ${own}, and has to be a directory`, todo: `move it away, or ${elsewhere}` };
  for (const [path, kind] of Object.entries(kept)) {
    const found = kindOf(join(dir, path));
    if (found !== undefined && found !== kind)
      return { path, words: `it is a ${found}, and FileSync keeps a ${kind} there`, todo: "move it away" };
  }
  return undefined;
}

/** The same in one sentence, with what to do. */
export function strangeText(dir: string): string | undefined {
  const strange = strangeIn(dir);
  return strange === undefined ? undefined : `${join(dir, strange.path)} cannot be used: ${strange.words}; ${strange.todo}`;
}

/** Why no directory can ever have that name, whatever is moved away there. */
function impossibleText(dir: string): string | undefined {
  try {
    if (statSync(dir, { throwIfNoEntry: false }) !== undefined) return undefined;
  } catch (error) {
    const code = codeOf(error);
    if (code === "ELOOP") return "its symbolic links lead in a circle (ELOOP)";
    if (code === "ENAMETOOLONG") return "its path, or a name in it, is too long for this system (ENAMETOOLONG)";
    if (code !== "ENOTDIR") return undefined;
  }
  for (let at = dirname(dir); ; at = dirname(at)) {
    const kind = kindOf(at);
    if (kind !== undefined || at === dirname(at))
      return kind === undefined || kind === "directory" ? undefined : `${at} is a ${kind}, and has to be a directory`;
  }
}

/** undefined: nothing has that name, or it cannot be seen. */
function kindOf(path: string): Kind | "link to nowhere" | "device or pipe" | undefined {
  try {
    const stat: Stats | undefined = statSync(path, { throwIfNoEntry: false });
    if (stat === undefined) return lstatSync(path, { throwIfNoEntry: false }) === undefined ? undefined : "link to nowhere";
    return stat.isFile() ? "file" : stat.isDirectory() ? "directory" : stat.isSocket() ? "socket" : "device or pipe";
  } catch {
    return undefined;
  }
}

/** The first of what the daemon keeps in it (`path` below it) that is another user's than the directory itself. Throws node's error. */
export function othersIn(dir: string): { readonly path: string; readonly uid: number; readonly owner: number } | undefined {
  const owner = statSync(dir).uid;
  for (const name of Object.keys(kept)) {
    const stat = statSync(join(dir, name), { throwIfNoEntry: false });
    if (stat !== undefined && stat.uid !== owner) return { path: name, uid: stat.uid, owner };
  }
  return undefined;
}

/** In words, with what to type; undefined where all is its owner's, or that cannot be seen. */
export function othersText(dir: string): string | undefined {
  try {
    const other = othersIn(dir);
    return other === undefined
      ? undefined
      : `permission denied: ${join(dir, other.path)} belongs to the user with id ${other.uid}, and its directory to ${other.owner}: sudo chown -R ${other.owner} ${shellWord(dir)}`;
  } catch {
    return undefined;
  }
}

/** Why who has that directory may not use it, with what to type; undefined where that is not so, or cannot be seen. */
export function barredText(dir: string): string | undefined {
  try {
    if (statSync(dir).uid !== process.getuid?.()) return undefined;
  } catch {
    return undefined;
  }
  const barred = [dir, ...Object.keys(kept).map((name) => join(dir, name))].find(isBarred);
  if (barred === undefined) return undefined;
  return `permission denied: ${barred} is yours, and its mode does not let you write: chmod u+rw${kindOf(barred) === "directory" ? "x" : ""} ${shellWord(barred)}`;
}

/** What `error` says of writing in it, which was not allowed, with what to do. */
export async function deniedText(dir: string, error: unknown): Promise<string> {
  const known = othersText(dir) ?? barredText(dir);
  if (known !== undefined) return known;
  const what = `the state directory ${dir} cannot be written`;
  const fault = faultOfErrno(error, what);
  // SQLite's word for it is none of node's.
  const denied = fault.kind === "denied" ? fault : new Fault("denied", `${what}: permission denied`, { cause: error });
  const { message } = await withRights(denied, "rwx", dir);
  return `${message}; or run as a user who may, or set "stateDir" to a directory of yours`;
}

/** Why a daemon of this user could not keep anything in it, with what to do; undefined where nothing is seen that is in the way. */
export async function unwritableText(view: View, dir: string, user: User): Promise<string | undefined> {
  if (user.uid === view.me.uid)
    return mayWriteIn(dir).then(
      () => barredText(dir),
      (error: unknown) => deniedText(dir, error),
    );
  const barred = barredFromDir(view, dir, user, { writes: true, makes: true });
  return barred === undefined ? undefined : `${barred.words}: ${barred.todo}`;
}

/** It is there, and who runs this may not change it. */
function isBarred(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK | (kindOf(path) === "directory" ? constants.X_OK : 0));
    return false;
  } catch (error) {
    return codeOf(error) === "EACCES";
  }
}

/** Why the journal in it cannot be used, by its first bytes; undefined: nothing is seen there. */
export function journalTrouble(path: string): string | undefined {
  const head = Buffer.alloc(64);
  const fd = openSync(path, "r");
  let read: number;
  try {
    read = readSync(fd, head, 0, head.length, 0);
  } finally {
    closeSync(fd);
  }
  // An empty one is a new one. https://sqlite.org/fileformat.html
  if (read === 0) return undefined;
  if (read < head.length || head.toString("latin1", 0, 16) !== "SQLite format 3\0")
    return "it is damaged: the next start makes it anew from receipts.jsonl";
  const format = head.readUInt32BE(60);
  return format > newestFormat
    ? `a newer FileSync wrote it (format ${format}; this one knows ${newestFormat}): no start begins; install that version again, or move the file away to begin anew from receipts.jsonl`
    : undefined;
}
