/** What can be asked of an SFTP server, one method per request. Throws Refusal where the server refuses, else Faults. */
import { setTimeout as sleep } from "node:timers/promises";
import { Fault, orAborted } from "../../core/errors.js";
import { isAbsent, isRefusal, Refusal, Status } from "./faults.js";
import { parentOf } from "../../core/wire-path.js";
import { orFull } from "./publishing.js";
import { Syncs } from "./syncs.js";
import { Type, type Answer, type Cursor, type Part, type Wire } from "./wire.js";

export const Open = { read: 1, write: 2, create: 8, truncate: 16, exclusive: 32 } as const;

const has = { size: 1, owner: 2, permissions: 4, times: 8, extended: 0x80000000 } as const;
const S_IFMT = 0o170000;
const kinds: Readonly<Record<number, Attributes["kind"]>> = { 0o100000: "file", 0o040000: "directory", 0o120000: "link" };

export interface Attributes {
  readonly kind: "file" | "directory" | "link" | "special" | "unknown";
  /** undefined where the server tells none. */
  readonly size: number | undefined;
  /** Whole seconds. */
  readonly modifiedMs: number | undefined;
}

export interface Named extends Attributes {
  readonly name: Buffer;
}

export interface Space {
  readonly freeBytes: number;
  readonly freeFiles: number;
  readonly files: number;
}

/** OpenSSH from 9.0 on (draft-ietf-secsh-filexfer-extensions-00, section 7). */
export const copying = "copy-data";
const syncing = "fsync@openssh.com";
/** An fsync of a large file on a slow disk: so many bytes per millisecond at least. */
const slowestSync = 1000;
/** So many directories are remembered. */
const mostDirs = 1000;
/** So long a RENAME whose connection was lost may take from its first step to its second, and how often it is looked at. */
const halfGivenMs = 5000;
const lookMs = 100;

export class Session {
  readonly #wire: Wire;
  readonly #extensions: ReadonlyMap<string, string>;
  readonly openSsh: boolean;
  #tells: boolean | undefined;
  #links = false;
  /** What is asked for, and nobody waits for. */
  #leaving = 0;
  #refuses: Promise<boolean> | undefined;
  /** Directories whose files were seen to be linked. */
  readonly #giving = new Set<string>();
  /** The root of the device, absolute. */
  readonly root: Buffer;
  readonly syncs = new Syncs(this);

  private constructor(wire: Wire, extensions: ReadonlyMap<string, string>, root: Buffer, software: string) {
    this.#wire = wire;
    this.#extensions = extensions;
    this.root = root;
    // It may run another's SFTP server.
    this.openSsh = software.startsWith("OpenSSH_") && [syncing, "lsetstat@openssh.com"].every((it) => extensions.has(it));
  }

  /** `root` is relative to the login directory where it does not begin with "/". `software`: what the server calls itself. */
  static async start(wire: Wire, root: string, software = ""): Promise<Session> {
    const extensions = await wire.start();
    const bare = Buffer.from(root.length > 1 ? root.replace(/\/+$/, "") : root);
    if (root.startsWith("/")) return new Session(wire, extensions, bare.length === 0 ? Buffer.from("/") : bare, software);
    const login = new Session(wire, extensions, Buffer.alloc(0), software);
    const home = await login.#realpath(Buffer.from("."));
    const below = /^(\.\/?)*$/.test(root)
      ? home
      : Buffer.concat([home.toString() === "/" ? Buffer.alloc(0) : home, Buffer.from("/"), bare]);
    return new Session(wire, extensions, below, software);
  }

  get closed(): boolean {
    return this.#wire.closed;
  }

  /** Requests whose answers somebody waits for. */
  get load(): number {
    return this.#wire.load - this.#leaving;
  }

  can(extension: string): boolean {
    return this.#extensions.has(extension);
  }

  /** The file or link itself; undefined when nothing is there. */
  async lstat(path: Buffer): Promise<Attributes | undefined> {
    return orAbsent(this.#attributes(Type.lstat, path));
  }

  /** What a link leads to; undefined when nothing is there. */
  async stat(path: Buffer): Promise<Attributes | undefined> {
    return orAbsent(this.#attributes(Type.stat, path));
  }

  fstat(handle: Buffer): Promise<Attributes> {
    return this.#attributes(Type.fstat, handle);
  }

  async open(path: Buffer, flags: number): Promise<Buffer> {
    return handleOf(await this.#wire.ask(Type.open, [path, flags, 0]));
  }

  async close(handle: Buffer): Promise<void> {
    done(await this.#wire.ask(Type.close, [handle]));
  }

  /** undefined at the end of the file. It may give less than was asked for. */
  async read(handle: Buffer, offset: number, length: number): Promise<Buffer | undefined> {
    const answer = await this.#wire.ask(Type.read, [handle, BigInt(offset), length]);
    if (answer.type === Type.data) return answer.body.string();
    if (answer.type === Type.status && statusOf(answer.body, Status.eof) === Status.eof) return undefined;
    throw unexpected(answer);
  }

  async write(handle: Buffer, offset: number, bytes: Buffer): Promise<void> {
    done(await this.#wire.ask(Type.write, [handle, BigInt(offset), bytes]));
  }

  get canSync(): boolean {
    return this.can(syncing);
  }

  /** Onto the medium, where the server can; `bytes` is how much there may be to write. */
  async sync(handle: Buffer, bytes: number): Promise<void> {
    if (!this.canSync) return;
    const asked = this.#wire.ask(Type.extended, [Buffer.from(syncing), handle], 60_000 + bytes / slowestSync);
    try {
      done(await asked);
    } catch (error) {
      // A file system that has none (FUSE) says that it is not supported.
      if (!isRefusal(error, Status.unsupported)) throw error;
    }
  }

  /** `copy-data`: the server copies between two open files. Throws Refusal. */
  async copy(from: Buffer, offset: number, length: number, to: Buffer, at: number): Promise<void> {
    const parts = [Buffer.from(copying), from, BigInt(offset), BigInt(length), to, BigInt(at)];
    done(await this.#wire.ask(Type.extended, parts, 60_000 + length / slowestSync));
  }

  /** 1970 to 2106: what is before or after gets the nearest. */
  async setTime(path: Buffer, modifiedMs: number): Promise<void> {
    done(await this.#wire.ask(Type.setstat, [path, ...timesOf(modifiedMs)]));
  }

  /** The same of an open file. */
  async setTimeOf(handle: Buffer, modifiedMs: number): Promise<void> {
    done(await this.#wire.ask(Type.fsetstat, [handle, ...timesOf(modifiedMs)]));
  }

  async truncate(handle: Buffer, size: number): Promise<void> {
    done(await this.#wire.ask(Type.fsetstat, [handle, has.size, BigInt(size)]));
  }

  /** All of a directory. Two at once are asked for what is in it: most have their end in the second answer, and none is left out where a server answers the second first. */
  async list(path: Buffer): Promise<Named[]> {
    const handle = handleOf(await this.#wire.ask(Type.opendir, [path]));
    const found: Named[] = [];
    try {
      for (let ended = false; !ended;) {
        const asked = [this.#wire.ask(Type.readdir, [handle]), this.#wire.ask(Type.readdir, [handle])];
        for (const answer of await Promise.all(asked))
          // Behind its end a server may say anything.
          if (answer.type === Type.status && (ended || statusOf(answer.body, Status.eof) === Status.eof)) ended = true;
          else found.push(...namesOf(answer));
      }
      return found;
    } finally {
      // Nobody has to wait for that, and no other login is made for it.
      if (!this.closed) {
        this.#leaving += 1;
        const left = () => void (this.#leaving -= 1);
        this.close(handle).then(left, left);
      }
    }
  }

  /** Already gone is success. */
  async remove(path: Buffer): Promise<void> {
    await orAbsent(this.#wire.ask(Type.remove, [path]).then(done));
  }

  /** The same; it stays so where the server can sync. */
  async removeDurable(path: Buffer): Promise<void> {
    const removed = this.remove(path);
    // Others may do what was asked later before.
    if (!this.openSsh) await removed;
    await Promise.all([removed, this.syncs.dir(parentOf(path))]);
  }

  /** Makes a directory and its parents; those that are new. */
  async makeDirs(path: Buffer): Promise<Buffer[]> {
    const there = await this.stat(path);
    if (there !== undefined) {
      if (there.kind === "directory" || there.kind === "unknown") return [];
      throw new Fault("rejected", `${path.toString()} is a file there, and a directory is needed`);
    }
    const above = path.length > 1 ? await this.makeDirs(parentOf(path)) : [];
    try {
      done(await this.#wire.ask(Type.mkdir, [path, 0]));
      return [...above, path];
    } catch (error) {
      // Another client may have made it in between.
      const found = await this.stat(path);
      if (found?.kind === "directory") return above;
      if (found === undefined && (await this.lstat(path)) !== undefined)
        throw new Fault("transient", `${path.toString()} is a link there that leads nowhere: is its disk not mounted?`);
      throw await orFull(this, parentOf(path), error);
    }
  }

  /** A directory whose parent is there: true where this made it, false where something has that name. */
  async makeDir(path: Buffer): Promise<boolean> {
    try {
      done(await this.#wire.ask(Type.mkdir, [path, 0]));
      return true;
    } catch (error) {
      if (!(error instanceof Refusal) || (await this.lstat(path)) === undefined) throw await orFull(this, parentOf(path), error);
      return false;
    }
  }

  /** Throws Refusal where something is in it, as OpenSSH has it: rclone takes that too. */
  async removeDir(path: Buffer): Promise<void> {
    done(await this.#wire.ask(Type.rmdir, [path]));
  }

  /**
   * Gives a file another name, at which nothing was a moment ago; false when something has it. With hard links the server decides that in one step; without
   * them the name is looked at before, since not every server refuses a RENAME onto a file.
   */
  async publish(from: Buffer, to: Buffer): Promise<boolean> {
    try {
      if ((await this.link(from, to)) !== undefined) {
        this.#links = true;
        return true;
      }
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      // FAT and network drives have no links. What else was wrong, RENAME says too.
    }
    return this.#renameNew(from, to);
  }

  /** A hard link was seen under a name that nothing had: so it is made, and refused where something has the name. */
  get links(): boolean {
    return this.#links;
  }

  /**
   * `give` of a file in this directory is known to do what `link` does. Of each directory by itself: another file system may be mounted there, and on one without hard links OpenSSH looks where a
   * link leads, and renames over one that leads nowhere.
   */
  gives(dir: Buffer): boolean {
    return this.#giving.has(dir.toString("latin1"));
  }

  /** OpenSSH's RENAME of a file makes a hard link and takes the old name away (sftp-server.c, process_rename). Throws Refusal, also where something has that name. */
  async give(from: Buffer, to: Buffer): Promise<void> {
    done(await this.#wire.ask(Type.rename, [from, to]));
  }

  /**
   * The same by a hard link alone; undefined where the server has none. rclone says yes to a link and makes none: a link is believed when both names show the same. How it is seen. Throws
   * Refusal, also where something has that name.
   */
  async link(from: Buffer, to: Buffer): Promise<Attributes | undefined> {
    if (!this.can("hardlink@openssh.com")) return undefined;
    const asked = this.#wire.ask(Type.extended, [Buffer.from("hardlink@openssh.com"), from, to]).then(done);
    // Where links are known they are looked at without waiting.
    if (!this.#links) await asked;
    const [seen, own] = await Promise.all([this.lstat(to), this.#links ? undefined : this.lstat(from), asked]);
    if (seen === undefined || (own !== undefined && (seen.size !== own.size || seen.modifiedMs !== own.modifiedMs))) return undefined;
    if (this.openSsh && (await (this.#refuses ??= this.#refusesTaken(from, to)))) {
      if (this.#giving.size >= mostDirs) this.#giving.clear();
      this.#giving.add(parentOf(from).toString("latin1"));
    }
    await this.remove(from);
    return seen;
  }

  /**
   * Takes away the first of two names of one file, which `give` may have left when its connection was lost. It may still be at it: OpenSSH's RENAME links, then removes the old name, and where that
   * has gone meanwhile it takes the new one away again (sftp-server.c, process_rename). So it gets the time to end.
   */
  async endGiving(from: Buffer, signal: AbortSignal): Promise<void> {
    for (let ms = 0; this.openSsh && ms < halfGivenMs; ms += lookMs) {
      await orAborted(sleep(lookMs), signal);
      if ((await this.lstat(from)) === undefined) return;
    }
    await this.remove(from);
  }

  /** What calls itself OpenSSH may be something else. Both names are those of one file: nothing is lost where RENAME goes over what is there. */
  async #refusesTaken(from: Buffer, to: Buffer): Promise<boolean> {
    try {
      await this.give(from, to);
      return false;
    } catch (error) {
      // Other codes say that it is not allowed at all.
      return isRefusal(error, Status.failure);
    }
  }

  /**
   * The same of a directory. OpenSSH's RENAME looks first, and goes over an empty directory that comes after (sftp-server.c, process_rename): the name is
   * made, which only one can, and renamed over, which is refused once something else is in it. Only where the server is seen to say that a name is taken.
   */
  async publishDir(from: Buffer, to: Buffer): Promise<boolean> {
    if (!this.can("posix-rename@openssh.com") || !(await this.#tellsTaken(parentOf(to)))) return this.#renameNew(from, to);
    if (!(await this.makeDir(to))) return false;
    try {
      await this.#renameOver(from, to);
      return true;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      // Not ours alone any more where something is in it.
      const stays = await this.removeDir(to).then(
        () => false,
        (it: unknown) => {
          if (it instanceof Refusal) return !isAbsent(it);
          throw it;
        },
      );
      if (stays) return false;
      throw error;
    }
  }

  async #renameNew(from: Buffer, to: Buffer): Promise<boolean> {
    if ((await this.lstat(to)) !== undefined) return false;
    try {
      await this.give(from, to);
      return true;
    } catch (error) {
      if (isRefusal(error, Status.failure, Status.exists) && (await this.lstat(to)) !== undefined) return false;
      throw error;
    }
  }

  /** A file, to a name that nobody else gives to anything: in one step where the server has one. */
  async rename(from: Buffer, to: Buffer): Promise<boolean> {
    if (!this.can("posix-rename@openssh.com")) return this.publish(from, to);
    await this.#renameOver(from, to);
    return true;
  }

  /** Whether making a directory that is there is refused: `dir` is one. */
  async #tellsTaken(dir: Buffer): Promise<boolean> {
    this.#tells ??= !(await this.makeDir(dir));
    return this.#tells;
  }

  async #renameOver(from: Buffer, to: Buffer): Promise<void> {
    done(await this.#wire.ask(Type.extended, [Buffer.from("posix-rename@openssh.com"), from, to]));
  }

  /** Puts a file in the place of another. */
  async replace(from: Buffer, to: Buffer): Promise<void> {
    if (this.can("posix-rename@openssh.com")) {
      await this.#renameOver(from, to);
      return;
    }
    await this.remove(to);
    await this.give(from, to);
  }

  /** undefined where the server does not tell. */
  async space(path: Buffer): Promise<Space | undefined> {
    if (!this.can("statvfs@openssh.com")) return undefined;
    const answer = await this.#wire.ask(Type.extended, [Buffer.from("statvfs@openssh.com"), path]);
    if (answer.type !== Type.extendedReply) return undefined;
    const figures = Array.from({ length: 8 }, () => answer.body.figure());
    const [, fragment = 0, , , available = 0, files = 0, , freeFiles = 0] = figures;
    return { freeBytes: fragment * available, files, freeFiles };
  }

  end(why: Fault): void {
    this.#wire.end(why);
  }

  async #realpath(path: Buffer): Promise<Buffer> {
    const [first] = namesOf(await this.#wire.ask(Type.realpath, [path]));
    if (first === undefined) throw new Fault("transient", "the server does not tell its login directory");
    return first.name;
  }

  async #attributes(type: number, what: Part): Promise<Attributes> {
    const answer = await this.#wire.ask(type, [what]);
    if (answer.type !== Type.attrs) throw unexpected(answer);
    return attributesOf(answer.body);
  }
}

function timesOf(modifiedMs: number): Part[] {
  const seconds = Math.min(Math.max(0, Math.floor(modifiedMs / 1000)), 0xffffffff);
  return [has.times, seconds, seconds];
}

async function orAbsent<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw error;
  }
}

/** The code, which is "ok" or `also`; a Refusal otherwise. */
function statusOf(body: Cursor, also: number = Status.ok): number {
  const code = body.u32();
  if (code === Status.ok || code === also) return code;
  throw new Refusal(code, body.left >= 4 ? body.string() : Buffer.alloc(0));
}

function done(answer: Answer): void {
  if (answer.type !== Type.status) throw unexpected(answer);
  statusOf(answer.body);
}

/** For an answer of another type than the one that is waited for: a refusal, or nonsense. */
function unexpected({ type, body }: Answer): Error {
  if (type === Type.status) {
    const code = body.u32();
    return new Refusal(code, body.left >= 4 ? body.string() : Buffer.alloc(0));
  }
  return new Fault("transient", `the server gave an answer of type ${type} to something else`);
}

function handleOf(answer: Answer): Buffer {
  if (answer.type !== Type.handle) throw unexpected(answer);
  return Buffer.from(answer.body.string());
}

function namesOf(answer: Answer): Named[] {
  if (answer.type !== Type.name) throw unexpected(answer);
  const count = answer.body.u32();
  const found: Named[] = [];
  for (let i = 0; i < count; i++) {
    const name = Buffer.from(answer.body.string());
    answer.body.string();
    found.push({ name, ...attributesOf(answer.body) });
  }
  return found;
}

function attributesOf(body: Cursor): Attributes {
  const flags = body.u32();
  const size = (flags & has.size) === 0 ? undefined : body.u64();
  if ((flags & has.owner) !== 0) for (let i = 0; i < 2; i++) body.u32();
  const mode = (flags & has.permissions) === 0 ? undefined : body.u32();
  let modifiedMs: number | undefined;
  if ((flags & has.times) !== 0) {
    body.u32();
    modifiedMs = body.u32() * 1000;
  }
  if ((flags & has.extended) !== 0)
    for (let left = body.u32(); left > 0; left--) {
      body.string();
      body.string();
    }
  const kind = mode === undefined ? "unknown" : (kinds[mode & S_IFMT] ?? ((mode & S_IFMT) === 0 ? "unknown" : "special"));
  return { kind, size, modifiedMs };
}
