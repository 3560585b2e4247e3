/**
 * Commands that move data: STOR, APPE, RETR, LIST, NLST, MLSD.
 *
 * 226 after STOR and APPE means that data and name are on the medium. What breaks in the middle keeps the bytes that came, synced before
 * the answer. REST before STOR or APPE is taken only at exactly the size of the file: so there is never a hole, never a cut inside a file.
 */
import type { Stats } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import type { Socket } from "node:net";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { TLSSocket } from "node:tls";
import { codeOf, isUnsynced } from "../../core/errors.js";
import { syncData } from "../../core/fs.js";
import { tlsPieceBytes } from "../../core/net.js";
import { Answer, answerOf } from "./answer.js";
import { isPartial, makes, need, permOf } from "./commands-files.js";
import { factLine, listLine } from "./listing.js";
import { expectEnded } from "./passive.js";
import { corePathOf, fileError, wireName, wirePath, type Place, type Root } from "./root.js";
import type { Login, Session, Transfer, Verb, Verbs } from "./session.js";

/** So much may wait for the medium: it keeps the last sync short, and the sender no faster than the disk. */
const syncEveryBytes = 64 * 1024 * 1024;

export const transferVerbs: Verbs = {
  STOR: once("<path>", (session, arg) => store(session, arg, "STOR")),
  APPE: once("<path>", (session, arg) => store(session, arg, "APPE")),
  RETR: once("<path>", retrieve),
  LIST: once("[<path>]", (session, arg) => list(session, arg, "LIST")),
  NLST: once("[<path>]", (session, arg) => list(session, arg, "NLST")),
  MLSD: once("[<path>]", (session, arg) => list(session, arg, "MLSD")),
};

/** A port is for one transfer, also for one that is refused: a client that reads its data connection first would wait on it for minutes. */
function once(words: string, move: (session: Session, arg: Buffer) => Promise<void>): Verb {
  return {
    words,
    run: async (session, arg) => {
      try {
        await move(session, arg);
      } finally {
        await session.passive?.refuse();
        session.passive = undefined;
      }
    },
  };
}

/** Runs `move` on the data connection; watches that bytes move; ends the connection when it is aborted. Throws the Answer that says why it broke. */
async function transferring(session: Session, verb: string, move: (socket: Socket, transfer: Transfer) => Promise<void>): Promise<void> {
  const { passive, shared } = session;
  if (passive === undefined) throw new Answer(425, "EPSV or PASV comes first.");
  if (shared.options.tls?.required === true && !session.protectData) throw new Answer(522, "Data must be protected here: PROT P first.");
  session.passive = undefined;
  const end: { why?: Answer } = {};
  let socket: Socket | undefined;
  const transfer: Transfer = {
    verb,
    bytes: 0,
    busy: false,
    abort: (why) => {
      end.why ??= why;
      passive.close();
      socket?.destroy();
    },
  };
  session.transfer = transfer;
  const { stall } = shared.options.limits;
  try {
    await session.reply(150, "Go on.");
    const taken = await passive.take(stall, session.protectData ? session.secureContext : undefined);
    socket = taken;
    // `abort` is called from outside while this waits.
    if (end.why !== undefined) taken.destroy();
    // Node looks into what it has given the system to send: over a slow link one piece takes longer than that, and `bytesWritten` stands still.
    // Each time: given to `setTimeout` it would be heard once.
    taken.setTimeout(stall).on("timeout", () => {
      const moved = taken.bytesRead + taken.bytesWritten;
      // Where this process, or the machine, stood still for as long, what came meanwhile is read only now.
      setImmediate(() => {
        if (transfer.busy || taken.bytesRead + taken.bytesWritten > moved) taken.setTimeout(stall);
        else transfer.abort(new Answer(426, "No byte moved for too long; what arrived is kept."));
      });
    });
    await move(taken, transfer);
  } catch (error) {
    throw end.why ?? answerOf(error) ?? new Answer(426, "The data connection broke; what arrived is kept.");
  } finally {
    session.transfer = undefined;
    passive.close();
  }
  if (end.why !== undefined) throw end.why;
}

async function store(session: Session, arg: Buffer, verb: "STOR" | "APPE"): Promise<void> {
  const { shared } = session;
  const rest = session.takeRest();
  const place = session.place(arg);
  const login = need(session, "write");
  if (session.passive === undefined) throw new Answer(425, "EPSV or PASV comes first.");
  const outer = login.root.outer(place);
  const release = await shared.writers.claim(corePathOf(outer), login.name, (why) => session.transfer?.abort(why));
  try {
    const { handle, stats, made } = await openToWrite(session, place, login.root, rest);
    try {
      const start = startOf(verb, rest, stats, shared.options.overwrite);
      const goesOn = start > 0 && shared.arrivals.isBroken(outer, stats.size);
      await receive(session, { handle, start, was: stats, made, goesOn, place, login, verb });
    } finally {
      await handle.close();
    }
  } finally {
    release();
  }
}

async function openToWrite(session: Session, place: Place, root: Root, rest = 0): ReturnType<Root["open"]> {
  if (isPartial(place)) return root.open(place, "create");
  try {
    return await root.open(place, "write");
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
  }
  // Refused once it is made, it would be left empty, and be delivered so.
  if (rest > 0) throw notFrom(0);
  return makes(session, place, () => root.open(place, "create"));
}

function notFrom(bytes: number): Answer {
  return new Answer(554, `The file has ${bytes} bytes: it can only go on from there.`);
}

function startOf(verb: "STOR" | "APPE", rest: number | undefined, stats: Stats, overwrite: boolean): number {
  if (rest !== undefined && rest > 0 && rest !== stats.size) throw notFrom(stats.size);
  if (verb === "APPE" || (rest ?? 0) > 0) return stats.size;
  if (stats.size > 0 && !overwrite) throw new Answer(553, "There is a file of that name, and files are not replaced here.");
  return 0;
}

interface Incoming {
  readonly handle: FileHandle;
  readonly start: number;
  /** Before this upload. */
  readonly was: Stats;
  readonly made: boolean;
  /** What is there is of an upload that broke. */
  readonly goesOn: boolean;
  readonly place: Place;
  readonly login: Login;
  readonly verb: string;
}

async function receive(session: Session, file: Incoming): Promise<void> {
  const { arrivals } = session.shared;
  const { login, place, handle } = file;
  const outer = login.root.outer(place);
  let at = file.start;
  let synced = file.start;
  const sync = async (): Promise<void> => {
    try {
      await syncData(handle);
      synced = at;
    } catch (error) {
      if (isUnsynced(error)) await handle.truncate((at = synced)).catch(() => login.root.unlink(place));
      throw error;
    }
  };
  const kept = async (): Promise<void> => {
    await sync();
    if (file.made) await login.root.syncNames(place.slice(0, -1));
  };
  // The client's connection comes meanwhile.
  const begun = file.made || isPartial(place) ? undefined : arrivals.begun(outer);
  begun?.catch(() => undefined);
  let isCut = false;
  try {
    await transferring(session, file.verb, async (socket, transfer) => {
      await begun;
      if (file.start < file.was.size) {
        await handle.truncate(file.start);
        isCut = true;
      }
      let unsynced = 0;
      for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
        transfer.busy = true;
        // A disk that gets full takes a part of it.
        await writeAll(handle, chunk as Buffer, at, (bytes) => (at += bytes));
        transfer.bytes += (chunk as Buffer).length;
        unsynced += (chunk as Buffer).length;
        if (unsynced >= syncEveryBytes) {
          await sync();
          unsynced = 0;
        }
        transfer.busy = false;
      }
      await expectEnded(socket);
    }).finally(() => {
      if (!file.made && (isCut || at > file.start)) arrivals.replaced(outer, file.was);
    });
    await kept();
    // Killed or unplugged right behind its last byte, it looks whole here; only who hears the answer has finished.
    if (session.ended.aborted) throw new Answer(426, "The connection has ended.");
  } catch (error) {
    const spared = isCut || at > file.start ? undefined : await begun;
    await (spared?.() ?? keepBroken(session, file, () => at, kept));
    throw error;
  }
  session.shared.synced.note(await handle.stat());
  if (isPartial(place)) arrivals.forgotten(outer);
  else if (file.verb === "APPE" && !file.goesOn) await arrivals.appended(outer, login.name, at);
  else await arrivals.arrived(outer, login.name, at);
  await session.reply(226, `${at} bytes are stored.`);
}

/** `reached` tells how much of it is there: a sync that fails takes away what came since the one before. */
async function keepBroken(session: Session, file: Incoming, reached: () => number, kept: () => Promise<void>): Promise<void> {
  const { shared } = session;
  const { login, place } = file;
  const outer = login.root.outer(place);
  const isNothing = () => file.made && reached() === 0;
  const said = (error: unknown) => {
    const why = error instanceof Error ? error.message : String(error);
    shared.say("error", `a broken upload could not be synced: ${why}`, { path: corePathOf(outer), user: login.name });
  };
  if (!isNothing()) await kept().catch(said);
  // Then there is nothing to keep but a name that would look like an empty file.
  const isGone = isNothing() && (await login.root.unlink(place).then(() => true, said)) === true;
  if (isPartial(place)) return;
  if (isGone) shared.arrivals.forgotten(outer);
  else await shared.arrivals.broken(outer, login.name, reached());
}

/** `onWritten` is called with what each write took, also of those before the one that fails. */
async function writeAll(handle: FileHandle, chunk: Buffer, position: number, onWritten: (bytes: number) => void): Promise<void> {
  for (let done = 0; done < chunk.length;) {
    const { bytesWritten } = await handle.write(chunk, done, chunk.length - done, position + done);
    if (bytesWritten === 0) throw fileError("EIO", "nothing could be written");
    done += bytesWritten;
    onWritten(bytesWritten);
  }
}

async function retrieve(session: Session, arg: Buffer): Promise<void> {
  const start = session.takeRest() ?? 0;
  const { handle, stats } = await session.login().root.open(session.place(arg), "read");
  try {
    if (start > stats.size) throw new Answer(554, `The file has only ${stats.size} bytes.`);
    await transferring(session, "RETR", async (socket, transfer) => {
      const file = handle.createReadStream({
        start,
        autoClose: false,
        highWaterMark: socket instanceof TLSSocket ? tlsPieceBytes : 256 * 1024,
      });
      file.on("data", (chunk) => (transfer.bytes += chunk.length));
      await pipeline(file, socket);
    });
  } finally {
    await handle.close();
  }
  await session.reply(226, "Sent.");
}

async function list(session: Session, arg: Buffer, verb: "LIST" | "NLST" | "MLSD"): Promise<void> {
  session.takeRest();
  const login = session.login();
  // "LIST -la dir": what people type; a name that begins with "-" is "./-name".
  const options = verb === "MLSD" ? 0 : (/^(-[A-Za-z1]+( +|$))*/.exec(arg.toString("latin1"))?.[0].length ?? 0);
  const path = arg.subarray(options);
  const place = session.place(path);
  const stats = await login.root.lstat(place);
  if (verb === "MLSD" && !stats.isDirectory()) throw new Answer(501, "MLSD lists directories: use MLST.");
  await transferring(session, verb, async (socket) => {
    await pipeline(Readable.from(lines(session, login, place, stats, verb)), socket);
  });
  await session.reply(226, "Listed.");
}

async function* lines(session: Session, login: Login, place: Place, at: Stats, verb: "LIST" | "NLST" | "MLSD"): AsyncGenerator<Buffer> {
  const nowMs = session.shared.clock.wallMs();
  const line = (name: Buffer, stats: Stats): string =>
    verb === "MLSD"
      ? factLine(wireName(name), stats, session.facts, permOf(login, stats))
      : verb === "NLST"
        ? wireName(name)
        : listLine(name, stats, nowMs);
  if (!at.isDirectory()) {
    const name = place.at(-1) ?? Buffer.from("/");
    yield Buffer.from(`${verb === "NLST" ? wirePath(place) : line(name, at)}\r\n`);
    return;
  }
  for await (const batch of login.root.read(place)) {
    const text = batch.map(({ name, stats }) => `${line(name, stats)}\r\n`).join("");
    if (text !== "") yield Buffer.from(text);
  }
}
