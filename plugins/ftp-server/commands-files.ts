/**
 * Commands on files and directories that move no data: where one is, what is there, names, times, digests.
 *
 * RFC 959 and 3659; MFMT as in draft-somers-ftp-mfxx, HASH as in draft-bryan-ftpext-hash. A change is durable when its answer is sent.
 */
import { createHash } from "node:crypto";
import type { Stats } from "node:fs";
import { isUnsynced } from "../../core/errors.js";
import { ifThere } from "../../core/stat.js";
import { Answer } from "./answer.js";
import { factLine, ftpTime, parseFtpTime } from "./listing.js";
import { corePathOf, fileError, wirePath, type Place, type Root } from "./root.js";
import type { Login, Session, Verbs } from "./session.js";

export const fileVerbs: Verbs = {
  PWD: { run: (session) => session.reply(257, `${quoted(session.cwd)} is the current directory.`) },
  CWD: { words: "<path>", run: cwd },
  CDUP: { run: (session) => cwd(session, Buffer.from("..")) },
  SIZE: { words: "<path>", run: async (session, arg) => session.reply(213, `${(await plainFile(session, arg)).size}`) },
  MDTM: { words: "<path>", run: async (session, arg) => session.reply(213, ftpTime(await plainFile(session, arg))) },
  MFMT: { words: "<time> <path>", run: mfmt },
  MLST: { words: "[<path>]", run: mlst },
  RNFR: { words: "<path>", run: rnfr },
  RNTO: { words: "<path>", run: rnto },
  SITE: { words: "CPFR <path> | CPTO <path>", run: site },
  DELE: { words: "<path>", run: dele },
  MKD: { words: "<path>", run: mkd },
  RMD: { words: "<path>", run: rmd },
  HASH: { words: "<path>", run: hash },
};

/** A path in an answer of PWD and MKD: quotes in it are doubled (RFC 959, appendix II). */
function quoted(place: Place): string {
  return `"${wirePath(place).replaceAll('"', '""')}"`;
}

/** The name of an upload that is not whole: nothing that anybody reads yet. */
export function isPartial(place: Place): boolean {
  const name = place.at(-1)?.toString("latin1") ?? "";
  return name.startsWith(".") && name.endsWith(".part");
}

/** Runs what makes a new file. Of one under its own name it is noted before that it is not whole yet. */
export async function makes<T>(session: Session, place: Place, make: () => Promise<T>): Promise<T> {
  if (isPartial(place)) return make();
  const { arrivals } = session.shared;
  const outer = session.login().root.outer(place);
  await arrivals.begun(outer);
  try {
    return await make();
  } catch (error) {
    arrivals.forgotten(outer);
    throw error;
  }
}

/** `finish`: what was sent gets its time and its name, or is discarded: it takes no more room. */
export type Right = "write" | "rename" | "delete" | "finish";

export function has({ rights }: Login, right: Right): boolean {
  if (right === "write") return rights.write;
  const may = rights.write || rights.full !== undefined;
  return right === "finish" ? may : may && (rights[right] ?? true);
}

/** Throws Answer 550 where the user has no such right; 552 where it is only for want of room. */
export function need(session: Session, right: Right): Login {
  const login = session.login();
  if (has(login, right)) return login;
  if (login.rights.full !== undefined && right === "write") throw new Answer(552, login.rights.full);
  session.shared.complain(`${login.name} was refused: no right to ${right}`, { user: login.name, address: session.address });
  throw new Answer(550, `No right to ${right} here.`);
}

/** What is being written is left alone, and so is the directory that holds it. Throws Answer 450. */
function expectUnused(session: Session, login: Login, place: Place): void {
  holdUnused(session, login, place)();
}

/** Nobody can write there until the result is called. Throws Answer 450. */
function holdUnused({ shared: { writers } }: Session, login: Login, ...places: Place[]): () => void {
  const paths = places.map((place) => corePathOf(login.root.outer(place)));
  if (paths.some((path) => writers.has(path))) throw new Answer(450, "The file is being written.");
  if (paths.some((path) => writers.hasBelow(path))) throw new Answer(450, "A file in that directory is being written.");
  const release = writers.hold(...paths);
  if (release === undefined) throw new Answer(450, "It is being renamed or deleted.");
  return release;
}

/** MLST's "perm": what this user may do there. */
export function permOf(login: Login, stats: Stats): string {
  const change = `${has(login, "rename") ? "f" : ""}${has(login, "delete") ? "d" : ""}`;
  if (stats.isDirectory()) return `el${login.rights.write ? "cm" : ""}${change}`;
  return `r${login.rights.write ? "aw" : ""}${change}`;
}

async function cwd(session: Session, arg: Buffer): Promise<void> {
  const place = session.place(arg);
  if (!(await session.login().root.lstat(place)).isDirectory()) throw fileError("ENOTDIR", "not a directory");
  session.cwd = place;
  await session.reply(250, `${quoted(place)} is the current directory.`);
}

async function plainFile(session: Session, arg: Buffer): Promise<Stats> {
  const stats = await session.login().root.lstat(session.place(arg));
  if (!stats.isFile()) throw new Answer(550, "Not a plain file.");
  return stats;
}

async function mfmt(session: Session, arg: Buffer): Promise<void> {
  const { root } = need(session, "finish");
  const space = arg.indexOf(0x20);
  const ms = parseFtpTime(arg.subarray(0, Math.max(0, space)).toString("latin1"));
  if (ms === undefined) throw new Answer(501, "MFMT takes YYYYMMDDHHMMSS and a path.");
  const place = session.place(arg.subarray(space + 1));
  const { arrivals } = session.shared;
  const outer = root.outer(place);
  await root.setTime(place, await arrivals.timeApart(outer, ms));
  await arrivals.retimed(outer);
  const stats = await root.lstat(place);
  await session.reply(213, `Modify=${ftpTime(stats)}; ${wirePath(place)}`);
}

async function mlst(session: Session, arg: Buffer): Promise<void> {
  const login = session.login();
  const place = session.place(arg);
  const stats = await login.root.lstat(place);
  await session.reply(250, "Facts:", factLine(wirePath(place), stats, session.facts, permOf(login, stats)), "End");
}

async function rnfr(session: Session, arg: Buffer): Promise<void> {
  const place = session.place(arg);
  const login = need(session, isPartial(place) ? "finish" : "rename");
  await login.root.lstat(place);
  expectUnused(session, login, place);
  session.renameFrom = place;
  await session.reply(350, "And the new name?");
}

async function rnto(session: Session, arg: Buffer): Promise<void> {
  const from = session.renameFrom;
  session.renameFrom = undefined;
  const login = need(session, "finish");
  if (from === undefined) throw new Answer(503, "RNFR comes first.");
  const to = session.place(arg);
  const release = holdUnused(session, login, from, to);
  try {
    await renamed(session, login, from, to);
  } finally {
    release();
  }
  await session.reply(250, "Renamed.");
}

/** What the medium does not take of a partial is sent anew. */
async function sync(root: Root, place: Place): Promise<void> {
  try {
    await root.syncThere(place);
  } catch (error) {
    if (isUnsynced(error) && isPartial(place)) await root.unlink(place);
    throw error;
  }
}

async function renamed({ shared }: Session, { root, name }: Login, from: Place, to: Place): Promise<void> {
  const { arrivals, options } = shared;
  const rename = () => root.rename(from, to, options.overwrite);
  const stats = await root.lstat(from);
  if (stats.isDirectory()) return arrivals.moveDir(root.outer(from), root.outer(to), rename);
  if (stats.isFile() && !shared.synced.has(stats)) await sync(root, from);
  const was = await ifThere(root.lstat(to));
  await rename();
  arrivals.replaced(root.outer(from), stats);
  if (was !== undefined) arrivals.replaced(root.outer(to), was);
  arrivals.forgotten(root.outer(from));
  if (stats.isFile() && !isPartial(to)) await arrivals.arrived(root.outer(to), name, stats.size);
}

/** Copies, as ProFTPD's mod_copy has it: a client that holds an earlier version here sends only what is new. Nothing is replaced. */
async function site(session: Session, arg: Buffer): Promise<void> {
  const space = arg.indexOf(0x20);
  const verb = arg
    .subarray(0, space < 0 ? arg.length : space)
    .toString("latin1")
    .toUpperCase();
  const path = space < 0 ? Buffer.alloc(0) : arg.subarray(space + 1);
  const from = session.copyFrom;
  session.copyFrom = undefined;
  if (verb === "CPFR") {
    await plainFile(session, path);
    session.copyFrom = session.place(path);
    await session.reply(350, "And the copy's name?");
  } else if (verb === "CPTO") {
    if (from === undefined) throw new Answer(503, "SITE CPFR comes first.");
    expectUnused(session, session.login(), from);
    await copied(session, from, session.place(path));
  } else throw new Answer(504, "Only SITE CPFR and SITE CPTO.");
}

async function copied(session: Session, from: Place, to: Place): Promise<void> {
  const { shared } = session;
  const { root, name } = need(session, "write");
  const outer = root.outer(to);
  const release = await shared.writers.claim(corePathOf(outer), name, () => undefined);
  try {
    const was = await root.lstat(from);
    const copy = async () => {
      const size = await root.copy(from, to, session.ended);
      const { mtimeMs, ino } = await root.lstat(from);
      if (!shared.writers.has(corePathOf(root.outer(from))) && mtimeMs === was.mtimeMs && ino === was.ino) return size;
      await root.unlink(to);
      throw new Answer(450, "The file changed meanwhile.");
    };
    const isTaken = (await ifThere(root.lstat(to))) !== undefined;
    const size = isTaken ? await copy() : await makes(session, to, copy);
    if (isPartial(to)) shared.arrivals.forgotten(outer);
    else await shared.arrivals.arrived(outer, name, size);
    await session.reply(250, `${size} bytes are copied.`);
  } finally {
    release();
  }
}

async function dele(session: Session, arg: Buffer): Promise<void> {
  const place = session.place(arg);
  const login = need(session, isPartial(place) ? "finish" : "delete");
  const release = holdUnused(session, login, place);
  try {
    const { arrivals } = session.shared;
    const was = await login.root.lstat(place);
    await login.root.unlink(place);
    arrivals.replaced(login.root.outer(place), was);
    arrivals.forgotten(login.root.outer(place));
  } finally {
    release();
  }
  await session.reply(250, "Deleted.");
}

async function mkd(session: Session, arg: Buffer): Promise<void> {
  const place = session.place(arg);
  if (place.length === 0) throw fileError("EEXIST", "the root is there");
  await need(session, "write").root.makeDir(place);
  await session.reply(257, `${quoted(place)} was made.`);
}

async function rmd(session: Session, arg: Buffer): Promise<void> {
  await need(session, "delete").root.removeDir(session.place(arg));
  await session.reply(250, "Removed.");
}

async function hash(session: Session, arg: Buffer): Promise<void> {
  const place = session.place(arg);
  const { handle, stats } = await session.login().root.open(place, "read");
  try {
    const digest = createHash("sha256");
    let bytes = 0;
    for await (const chunk of handle.createReadStream({ autoClose: false, highWaterMark: 1 << 20 })) {
      digest.update(chunk as Buffer);
      bytes += (chunk as Buffer).length;
      if (session.ended.aborted) return;
    }
    if (bytes !== stats.size) throw new Answer(450, "The file changed meanwhile.");
    // A client that finds its file whole may take away its own.
    if (!isPartial(place)) await session.login().root.syncThere(place);
    await session.reply(213, `SHA-256 0-${bytes} ${digest.digest("hex")} ${arg.toString()}`);
  } finally {
    await handle.close();
  }
}
