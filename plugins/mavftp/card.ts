/**
 * What is on the autopilot's card: where its root is, what a directory holds, what the autopilot's checksum of a file is; and the changes that need
 * no open file.
 *
 * A change is asked for once, and where its answer does not come it is looked whether it was done before it is asked for again: a repetition may be
 * done a second time (a MAVSDK server keeps no answers, and the others only their last).
 */
import { Fault, isFault } from "../../core/errors.js";
import { nameIn, parentOf } from "../../core/paths.js";
import type { FileEntry } from "../../core/plugin.js";
import { joinSignals } from "../../core/signals.js";
import { Nak, Op } from "../../mavlink/ftp.js";
import { AUTOPILOT_ARDUPILOT, AUTOPILOT_PX4 } from "../../mavlink/messages.js";
import { entryOf, listDirectory, listedAgain, noRoot, pathBytes, type Ask, type Dialect } from "./listing.js";
import type { Attachment, Peer } from "./peer.js";
import { changeRefusal, refusal } from "./refusals.js";
import type { Reply, Request } from "./requests.js";
import type { Sessions } from "./session.js";

/** Where a PX4 mounts it. */
const PX4_CARD = "/fs/microsd";
/** The slowest card: what an autopilot needs for its checksum. */
const CRC_BYTES_PER_MS = 50;
const CRC_LEAST_MS = 5000;
/** How long the answer to a change may take: a large file on a slow card. */
const CHANGE_MS = 2500;
const CHANGE_TRIES = 4;

/** Where logs are when nobody says: the name that newer autopilots have for it (PX4 1.18, ArduPilot 4.8), then the places that older ones use. */
const ALIAS = "@MAV_LOG";
const LOG_DIRS: ReadonlyMap<number, readonly string[]> = new Map([
  [AUTOPILOT_PX4, ["/fs/microsd/log"]],
  [AUTOPILOT_ARDUPILOT, ["/APM/LOGS", "logs"]],
]);
const OTHER_LOG_DIRS = ["/fs/microsd/log", "/APM/LOGS", "logs"];

export interface CardOptions {
  /** Undefined: where this autopilot keeps its logs. */
  readonly root?: string | undefined;
  /** Larger files get no checksum. */
  readonly crcMaxSize: number;
  /** It is written to as well, by paths that stand for themselves. */
  readonly write: boolean;
}

/** What was found out of an autopilot since it is attached. */
interface Known extends Dialect {
  root: string | undefined;
}

/** Work during one stay of the autopilot. */
export interface Stay {
  readonly attachment: Attachment;
  /** Given, with its Fault, when the stay or the caller ends. */
  readonly signal: AbortSignal;
  readonly ask: Ask;
  readonly dialect: Dialect;
  /** Where the root is. Throws "denied" where there is no such place. */
  readonly root: () => Promise<string>;
}

export class Card {
  readonly #peer: Peer;
  readonly #sessions: Sessions;
  readonly #options: CardOptions;
  readonly #known = new WeakMap<Attachment, Known>();
  /** The autopilot computes checksums, as far as is known. */
  checksums = true;

  constructor(peer: Peer, sessions: Sessions, options: CardOptions) {
    this.#peer = peer;
    this.#sessions = sessions;
    this.#options = options;
  }

  /** Work under the present attachment: it ends with the Fault of what ends that. */
  with<T>(signal: AbortSignal, work: (stay: Stay) => Promise<T>): Promise<T> {
    return this.#with(signal, undefined, work);
  }

  /** What changes the card: as `with`, and only while the vehicle is surely disarmed. */
  grounded<T>(signal: AbortSignal, work: (stay: Stay) => Promise<T>): Promise<T> {
    return this.#with(signal, () => this.#peer.ground(), work);
  }

  async #with<T>(signal: AbortSignal, ground: (() => AbortSignal) | undefined, work: (stay: Stay) => Promise<T>): Promise<T> {
    const attachment = this.#peer.attachment();
    const known = this.#known.get(attachment) ?? { timed: undefined, root: undefined, places: new Map() };
    this.#known.set(attachment, known);
    const joined = joinSignals(signal, attachment.signal, ...(ground === undefined ? [] : [ground()]));
    const ask: Ask = (request, patience) => this.#sessions.ask(attachment, request, joined.signal, patience);
    try {
      return await work({ attachment, signal: joined.signal, ask, dialect: known, root: () => this.#root(ask, known) });
    } finally {
      joined.release();
    }
  }

  async #root(ask: Ask, known: Known): Promise<string> {
    if (this.#options.root !== undefined) return this.#options.root;
    if (known.root !== undefined) return known.root;
    const dirs = LOG_DIRS.get(this.#peer.autopilot ?? -1) ?? OTHER_LOG_DIRS;
    for (const dir of this.#options.write ? dirs : [ALIAS, ...dirs]) {
      const reply = await ask({ opcode: Op.ListDirectory, offset: 0, data: pathBytes(dir, "") });
      if (reply.nak === undefined || reply.nak === Nak.Eof) return (known.root = dir);
      const refused = refusal(`list ${dir}`, reply);
      // Who does not know the alias refuses it in any way; a card that fails is no missing directory.
      if (refused.kind !== "missing" && dir !== ALIAS) throw refused;
    }
    throw noRoot(dirs[0] ?? "");
  }

  /** One directory. Throws "missing". */
  async list({ ask, dialect, root }: Stay, dir: string): Promise<FileEntry[]> {
    const listed = await listDirectory(ask, pathBytes(await root(), dir), dialect);
    return listed.map((entry) => entryOf(dir === "" ? entry.name : `${dir}/${entry.name}`, entry));
  }

  async stat(stay: Stay, path: string): Promise<FileEntry | undefined> {
    const again = await listedAgain(stay.ask, pathBytes(await stay.root(), parentOf(path)), nameIn(path), stay.dialect);
    return again === undefined ? (await this.statAll(stay, [path]))[0] : entryOf(path, again);
  }

  /** Several of one directory, by one listing. */
  async statAll(stay: Stay, paths: readonly string[]): Promise<(FileEntry | undefined)[]> {
    const dir = parentOf(paths[0] ?? "");
    const found = await this.list(stay, dir).catch((error: unknown) => {
      if (isFault(error, "missing")) return [];
      throw error;
    });
    return paths.map((path) => found.find((entry) => entry.path === path));
  }

  /** The checksum keeps the autopilot busy: only on the ground, and not for long. */
  affordsChecksum(size: number): boolean {
    return this.checksums && size <= this.#options.crcMaxSize && this.#peer.armed === false;
  }

  /** Of the whole file, by the autopilot itself; undefined where it knows none. Throws "missing", "transient". */
  async checksum({ ask, root }: Stay, path: string, size: number): Promise<number | undefined> {
    const totalMs = CRC_LEAST_MS + size / CRC_BYTES_PER_MS;
    const data = pathBytes(await root(), path);
    const reply = await ask({ opcode: Op.CalcFileCRC32, data }, { totalMs, firstMs: 1000 + size / 1000 });
    if (reply.nak === Nak.UnknownCommand) {
      this.checksums = false;
      return undefined;
    }
    if (reply.nak !== undefined) throw refusal("compute the checksum", reply);
    if (reply.data.length < 4) throw new Fault("transient", "the autopilot's answer holds no checksum");
    return reply.data.readUInt32LE(0);
  }

  /** The new name must be free: not every autopilot refuses one that is taken. */
  async rename(stay: Stay, from: string, to: string): Promise<void> {
    const root = await stay.root();
    const data = Buffer.concat([pathBytes(root, from), Buffer.from([0]), pathBytes(root, to)]);
    await this.#change(stay, { opcode: Op.Rename, data }, "rename it", async () => {
      if ((await this.stat(stay, from)) !== undefined) return false;
      return (await this.stat(stay, to)) !== undefined;
    });
  }

  /** A plain file; nothing there is success. */
  async remove(stay: Stay, path: string): Promise<void> {
    const data = pathBytes(await stay.root(), path);
    const gone = async (): Promise<boolean> => (await this.stat(stay, path)) === undefined;
    await this.#change(stay, { opcode: Op.RemoveFile, data }, "remove it", gone);
  }

  /** A directory; nothing there is success. Throws Refused where the autopilot will not, perhaps because something is in it. */
  async removeDir(stay: Stay, path: string): Promise<void> {
    const data = pathBytes(await stay.root(), path);
    const gone = async (): Promise<boolean> => (await this.stat(stay, path)) === undefined;
    await this.#change(stay, { opcode: Op.RemoveDirectory, data }, "remove the directory", gone);
  }

  /** A directory whose parent is there: true where this made it, false where something has that name. Asked once: whose it is when the answer is lost, nobody knows. */
  async makeNew(stay: Stay, path: string): Promise<boolean> {
    const data = pathBytes(await stay.root(), path);
    const reply = await stay.ask({ opcode: Op.CreateDirectory, data }, { firstMs: CHANGE_MS, totalMs: CHANGE_MS });
    if (reply.nak === undefined) return true;
    if ((await this.stat(stay, path)) !== undefined) return false;
    throw changeRefusal(`make the directory ${path}`, reply, { opcode: Op.CreateDirectory, autopilot: this.#peer.autopilot });
  }

  /** A directory, with those above it, also above the root. */
  async makeDir(stay: Stay, dir: string): Promise<void> {
    await this.#makeDirs(stay, pathBytes(await stay.root(), dir));
  }

  async #makeDirs(stay: Stay, path: Buffer): Promise<void> {
    const isThere = (): Promise<boolean> =>
      listDirectory(stay.ask, path).then(
        () => true,
        (error: unknown) => {
          if (isFault(error, "missing")) return false;
          throw error;
        },
      );
    if (path.equals(Buffer.from("/")) || (await isThere())) return;
    const slash = path.lastIndexOf(0x2f);
    if (slash > 0) await this.#makeDirs(stay, path.subarray(0, slash));
    const what = `make the directory ${path.toString()}`;
    try {
      await this.#change(stay, { opcode: Op.CreateDirectory, data: path }, what, isThere);
    } catch (error) {
      // It is there, and cannot be listed.
      if (error instanceof TakenName) throw new Fault("rejected", `${path.toString()} on the autopilot is there and is not a directory`);
      // Not there without a card, and a PX4 lets nobody make it.
      if (isFault(error, "rejected") && `${PX4_CARD}/`.startsWith(`${path.toString()}/`)) throw noRoot(PX4_CARD);
      throw error;
    }
  }

  /** `done`: whether it was done, by this request or by one before whose answer was lost. */
  async #change({ ask }: Stay, request: Omit<Request, "session">, what: string, done: () => Promise<boolean>): Promise<void> {
    for (let tries = 1; ; tries += 1) {
      let reply: Reply | undefined;
      let silence: unknown;
      try {
        reply = await ask(request, { firstMs: CHANGE_MS, totalMs: CHANGE_MS });
      } catch (error) {
        if (!isFault(error, "transient")) throw error;
        silence = error;
      }
      if (reply !== undefined && reply.nak === undefined) return;
      if (await done()) return;
      if (reply?.nak === Nak.FileExists) throw new TakenName(what);
      if (reply !== undefined) throw changeRefusal(what, reply, { opcode: request.opcode, autopilot: this.#peer.autopilot });
      if (tries === CHANGE_TRIES) throw silence;
    }
  }
}

/** The autopilot says that something has that name. */
export class TakenName extends Fault {
  constructor(what: string) {
    super("conflict", `the autopilot cannot ${what}: something has that name`);
  }
}
