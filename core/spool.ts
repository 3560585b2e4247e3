/**
 * The spool: the local buffer between source and target. One file per version (`<version id>`), and, once it is whole, beside it a sidecar (`<version
 * id>.json`) that names the version and its digest, so that a journal that was lost can be rebuilt.
 *
 * The journal, not the file, says how many bytes are durable: `writer` cuts the file to that offset, because what lies behind it may be
 * pages that a power cut tore. Space is reserved before a pull begins: `maxSize` bounds what the spool takes, `keepFree` what it leaves on the disk.
 *
 * What is damaged is kept beside it (`damaged/<version id>`) until that file is whole here again: it may be all that there is.
 */
import { constants, createReadStream, existsSync, promises as fs } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { codeOf, Fault, faultOfErrno } from "./errors.js";
import { BadPlaces, freeBytesAt, makeDirDurable, removeFile, removeTemporaries, replaceDurable, syncData, syncDir } from "./fs.js";

export interface SpoolLimits {
  readonly maxSizeBytes: number;
  readonly keepFreeBytes: number;
}

/** What a sidecar says of its spool file. */
export interface Sidecar {
  readonly version: string;
  readonly source: string;
  readonly path: string;
  readonly size: number;
  readonly modifiedMs?: number;
  readonly medium?: string;
  readonly generation: number;
  readonly digest: string;
  /** Not in those of versions before. */
  readonly foundMs?: number;
  /** A longer version, which is whole here too, begins with it. */
  readonly superseded?: true;
}

export class Spool {
  readonly #dir: string;
  #limits: SpoolLimits;
  /** Bytes each version has, or has been promised. */
  readonly #held = new Map<string, number>();
  #used = 0;
  readonly #bad = new BadPlaces();
  readonly #asideDir: string;
  /** Bytes of the versions that are being written: what is missing of them will be taken from what is free now. */
  readonly #coming = new Map<string, number>();
  #asking: Promise<unknown> = Promise.resolve();
  /** Versions of which something is set aside, as far as this run knows: of most nobody has to look. */
  readonly #aside = new Set<string>();

  constructor(stateDir: string, limits: SpoolLimits) {
    this.#dir = join(stateDir, "spool");
    this.#asideDir = join(stateDir, "damaged");
    this.#limits = limits;
  }

  /** What is held above a lower limit stays until it is delivered. */
  limit(limits: SpoolLimits): void {
    this.#limits = limits;
  }

  get usedBytes(): number {
    return this.#used;
  }

  get maxSizeBytes(): number {
    return this.#limits.maxSizeBytes;
  }

  /** Makes the directory; the ids of the versions that have a file. */
  async open(): Promise<string[]> {
    await makeDirDurable(this.#dir, 0o750);
    // Versions before wrote sidecars under such names first.
    await removeTemporaries(this.#dir);
    const names = await fs.readdir(this.#dir);
    // A sidecar is removed after its file.
    const files = new Set(names);
    const alone = names.filter((name) => name.endsWith(".json") && !files.has(name.slice(0, -5)));
    // One that cannot be removed says nothing.
    for (const name of alone) await removeFile(join(this.#dir, name)).catch(() => undefined);
    const aside = await fs.readdir(this.#asideDir).catch(() => []);
    for (const name of aside) this.#aside.add(name);
    return names.filter((name) => /^[0-9a-f]{16}$/.test(name));
  }

  /** Whether a version of this size could ever be held, with everything else given up. */
  async canEverHold(sizeBytes: number): Promise<boolean> {
    if (sizeBytes > this.#limits.maxSizeBytes) return false;
    const { blocks, bsize } = await fs.statfs(this.#dir);
    return sizeBytes <= blocks * bsize - this.#limits.keepFreeBytes;
  }

  /** How many bytes are missing for a version to have space now; 0: it has, or there is some. What is here of it, also what will be written again, is in that space. */
  async lacks(version: string, sizeBytes: number): Promise<number> {
    const more = Math.max(0, sizeBytes - (this.#held.get(version) ?? 0));
    const allowed = this.#limits.maxSizeBytes - this.#used - more;
    // What is written meanwhile counts twice rather than not at all: what others were promised is asked before what is free.
    const others = [...this.#coming].filter(([id]) => id !== version);
    const left = async () => (await this.freeBytes()) - (sizeBytes - (await sizeOf(this.pathOf(version)))) - this.#limits.keepFreeBytes;
    const promised = others.reduce((sum, [, bytes]) => sum + bytes, 0);
    const over = promised - (await left());
    return Math.max(0, -allowed, over > 0 ? (await this.#stillComes(others)) - (await left()) : 0);
  }

  /** What was promised to these and is not on the disk yet. */
  async #stillComes(of: Iterable<readonly [string, number]>): Promise<number> {
    const missing = await Promise.all([...of].map(async ([id, bytes]) => Math.max(0, bytes - (await sizeOf(this.pathOf(id))))));
    return missing.reduce((sum, bytes) => sum + bytes, 0);
  }

  /** Free bytes on its disk, with what is to stay free. */
  freeBytes(): Promise<number> {
    return freeBytesAt(this.#dir);
  }

  /** How the space stands, for a person. */
  async spaceText(): Promise<string> {
    const mb = (bytes: number) => `${(bytes / 1e6).toFixed(0)} MB`;
    const coming = await this.#stillComes(this.#coming);
    const beside = coming > 0 ? `, beside ${mb(coming)} that still come of what is being fetched` : "";
    const sizes = await Promise.all([...this.#aside].map((version) => sizeOf(join(this.#asideDir, version))));
    const aside = sizes.reduce((sum, size) => sum + size, 0);
    const kept = aside < 1e6 ? "" : `; ${mb(aside)} are in ${this.#asideDir}, which only a person removes`;
    return `${mb(this.#used)} of ${mb(this.#limits.maxSizeBytes)} ("maxSize") are taken; ${mb(await this.freeBytes())} are free on its disk, where ${mb(this.#limits.keepFreeBytes)} ("keepFree") stay free${beside}${kept}`;
  }

  /** Promises space to a version: true, or false when it does not fit now. A second promise to the same version is the larger of both. */
  async reserve(version: string, sizeBytes: number): Promise<boolean> {
    // One after another, because looking waits: two that ask at once would be promised the same space.
    const asked = this.#asking.then(async () => {
      if ((await this.lacks(version, sizeBytes)) > 0) return false;
      if (this.#used + sizeBytes - (this.#held.get(version) ?? 0) > this.#limits.maxSizeBytes) return false;
      this.hold(version, sizeBytes);
      this.#coming.set(version, sizeBytes);
      return true;
    });
    this.#asking = asked.catch(() => undefined);
    return asked;
  }

  /** Nothing more is written of a version now: it is whole, or broke off, and space is promised to it again before it goes on. */
  comesNoMore(version: string): void {
    this.#coming.delete(version);
  }

  /** The same of what is not whole here: what it was promised and has not taken is free for others. */
  async brokeOff(version: string): Promise<void> {
    this.comesNoMore(version);
    const has = await sizeOf(this.pathOf(version));
    // Promised again meanwhile.
    if (this.#coming.has(version)) return;
    const held = this.heldBytes(version);
    if (held <= has) return;
    this.#held.set(version, has);
    this.#used -= held - has;
  }

  /** What a version takes, or was promised. */
  heldBytes(version: string): number {
    return this.#held.get(version) ?? 0;
  }

  /** Counts what a version takes (at start-up, from the journal). */
  hold(version: string, sizeBytes: number): void {
    const before = this.#held.get(version) ?? 0;
    const now = Math.max(before, sizeBytes);
    this.#held.set(version, now);
    this.#used += now - before;
  }

  pathOf(version: string): string {
    return join(this.#dir, version);
  }

  #sidecarOf(version: string): string {
    return `${this.pathOf(version)}.json`;
  }

  /** A writer that appends at `offset`; the file is cut to it. Without a handle where the file is shorter than that. Throws Fault "full". */
  async writer(version: string, offset: number): Promise<SpoolWriter> {
    const path = this.pathOf(version);
    let handle: FileHandle | undefined;
    try {
      const fresh = offset === 0;
      handle = fresh ? await newFile(path) : await fs.open(path, constants.O_RDWR);
      const { size } = await handle.stat();
      if (size < offset) {
        await handle.close();
        return new SpoolWriter(undefined, size, path);
      }
      if (size > offset) await handle.truncate(offset);
      return new SpoolWriter(handle, offset, path, fresh ? this.#dir : undefined);
    } catch (error) {
      await handle?.close().catch(() => undefined);
      throw spoolFault(error, `cannot write the spool file ${path}`);
    }
  }

  /** Nobody relies on it before this resolves: one that a power cut tears is read as none. Throws Fault "full" or "transient". */
  async writeSidecar(sidecar: Sidecar): Promise<void> {
    const path = this.#sidecarOf(sidecar.version);
    try {
      const handle = await fs.open(path, "w", 0o640);
      try {
        await handle.writeFile(`${JSON.stringify(sidecar)}\n`);
        await Promise.all([syncData(handle), syncDir(this.#dir)]);
      } finally {
        await handle.close();
      }
    } catch (error) {
      throw spoolFault(error, `cannot write ${path}`);
    }
  }

  /** The sidecar of a version; undefined when there is none that can be read. */
  async readSidecar(version: string): Promise<Sidecar | undefined> {
    // Absent or torn: the spool file is then of nobody, and is removed by who asked.
    return fs.readFile(this.#sidecarOf(version), "utf8").then(sidecarIn, () => undefined);
  }

  /** For a journal that is lost later: nothing is to be sent of it that was not. Not durable: torn, it is of a file that nobody asks for. */
  async noteSuperseded(version: string): Promise<void> {
    // Never made anew: it may be given up just now.
    const handle = await fs.open(this.#sidecarOf(version), "r+").catch(() => undefined);
    try {
      const sidecar = sidecarIn((await handle?.readFile("utf8")) ?? "");
      if (sidecar === undefined || sidecar.superseded === true) return;
      const text = `${JSON.stringify({ ...sidecar, superseded: true })}\n`;
      await handle?.write(text, 0);
      await handle?.truncate(Buffer.byteLength(text));
    } catch {
      // The medium fails.
    } finally {
      await handle?.close().catch(() => undefined);
    }
  }

  /** Takes over the first `bytes` of another version (a file that grew). The bytes are copied (shared, where the file system can) and synced. */
  async adopt(from: string, version: string, bytes: number): Promise<void> {
    const path = this.pathOf(version);
    await fs.copyFile(this.pathOf(from), path, constants.COPYFILE_FICLONE);
    await fs.truncate(path, bytes);
    const handle = await fs.open(path, "r+");
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
    await syncDir(this.#dir);
  }

  /** The file of a version becomes the first `bytes` of another's, in one step. */
  async replace(version: string, from: string, bytes: number): Promise<void> {
    await replaceDurable(
      this.pathOf(version),
      () => createReadStream(this.pathOf(from), { highWaterMark: 2 ** 20, end: bytes - 1 }),
      0o640,
    );
  }

  /** For reading; the caller closes it. */
  async reader(version: string): Promise<FileHandle> {
    try {
      return await fs.open(this.pathOf(version), "r");
    } catch (error) {
      throw faultOfErrno(error, `cannot read the spool file ${this.pathOf(version)}`);
    }
  }

  /** After a fault, whether a version is to be begun anew because its file cannot be written. `wrote`: something of it became durable before. */
  async isBad(version: string, error: unknown, wrote: boolean): Promise<boolean> {
    if (wrote) this.#bad.forget(version);
    return error instanceof SpoolFault && this.#bad.isBad(version, this.#dir, error.cause);
  }

  /** Forgets a version's bytes. */
  async drop(version: string): Promise<void> {
    try {
      await removeFile(this.pathOf(version));
      await removeFile(this.#sidecarOf(version));
    } finally {
      this.forget(version);
    }
  }

  /** Forgets a version's bytes, which may be all that there is of it: where they are now; undefined: there were none. Of two the longer is kept. */
  async setAside(version: string): Promise<string | undefined> {
    const [from, to] = [this.pathOf(version), join(this.#asideDir, version)];
    const size = await sizeOf(from);
    const held = await sizeOf(to);
    if (size > held) {
      await makeDirDurable(this.#asideDir, 0o750);
      await fs.rename(from, to);
      await syncDir(this.#asideDir);
      this.#aside.add(version);
    }
    await this.drop(version);
    return this.asideOf(version);
  }

  /** Where something of a version is set aside. */
  asideOf(version: string): string | undefined {
    const at = join(this.#asideDir, version);
    return existsSync(at) ? at : undefined;
  }

  /** It is whole here. What is set aside of it is of no use any more, nor of what `isEarlier`, where it has no byte that this has not: those that go. */
  async dropAside(version: string, isEarlier: (version: string) => boolean): Promise<string[]> {
    const dropped: string[] = [];
    for (const aside of [...this.#aside])
      if (aside === version || (isEarlier(aside) && (await this.#isBegin(aside, version)))) {
        this.#aside.delete(aside);
        await removeFile(join(this.#asideDir, aside));
        dropped.push(aside);
      }
    return dropped;
  }

  /** False where one of them cannot be read. */
  async #isBegin(aside: string, version: string): Promise<boolean> {
    const at = join(this.#asideDir, aside);
    const size = await sizeOf(at);
    if (size === 0 || (await sizeOf(this.pathOf(version))) < size) return false;
    const files: FileHandle[] = [];
    try {
      for (const path of [at, this.pathOf(version)]) files.push(await fs.open(path, "r"));
      const [kept, whole] = files as [FileHandle, FileHandle];
      const [a, b] = [Buffer.alloc(2 ** 18), Buffer.alloc(2 ** 18)];
      for (let from = 0; from < size;) {
        const length = Math.min(a.length, size - from);
        const reads = await Promise.all([kept.read(a, 0, length, from), whole.read(b, 0, length, from)]);
        if (reads.some(({ bytesRead }) => bytesRead !== length) || !a.subarray(0, length).equals(b.subarray(0, length))) return false;
        from += length;
      }
      return true;
    } catch {
      return false;
    } finally {
      for (const file of files) await file.close();
    }
  }

  /** Takes back what was promised to a version that has no bytes. */
  forget(version: string): void {
    this.#bad.forget(version);
    this.comesNoMore(version);
    this.#used -= this.#held.get(version) ?? 0;
    this.#held.delete(version);
  }
}

function sidecarIn(text: string): Sidecar | undefined {
  try {
    return JSON.parse(text) as Sidecar;
  } catch {
    return undefined;
  }
}

async function sizeOf(path: string): Promise<number> {
  return (await fs.stat(path).catch(() => undefined))?.size ?? 0;
}

/** A push may still read the file of the generation before: it must not see the bytes of this one in it. */
async function newFile(path: string): Promise<FileHandle> {
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL;
  try {
    return await fs.open(path, flags, 0o640);
  } catch (error) {
    if (codeOf(error) !== "EEXIST") throw error;
    await removeFile(path);
    return fs.open(path, flags, 0o640);
  }
}

/** Of what is written in the spool. */
class SpoolFault extends Fault {}

/** A spool that cannot be written is a spool without space, whatever the reason: what needs it pauses, the source is not at fault. */
function spoolFault(error: unknown, what: string): Fault {
  const { kind, message } = faultOfErrno(error, what);
  return new SpoolFault(kind === "transient" ? kind : "full", message, { cause: error });
}

const writeBytes = 256 * 1024;

/** Gathers what comes into larger writes; `sync` makes it durable. */
export class SpoolWriter {
  readonly handle: FileHandle | undefined;
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  #written: number;
  readonly #path: string;
  /** The directory in which its name is not durable yet. */
  #unnamedIn: string | undefined;

  constructor(handle: FileHandle | undefined, offset: number, path: string, unnamedIn?: string) {
    this.handle = handle;
    this.#written = offset;
    this.#path = path;
    this.#unnamedIn = unnamedIn;
  }

  /** Where the next byte goes. */
  get offset(): number {
    return this.#written + this.#pendingBytes;
  }

  async append(bytes: Buffer): Promise<void> {
    this.#pending.push(bytes);
    this.#pendingBytes += bytes.length;
    if (this.#pendingBytes >= writeBytes) await this.flush();
  }

  /**
   * All that was appended before the call is on the medium when this resolves; its end is returned. `nameLater`: the sidecar follows before anybody
   * relies on it, and makes the names of both durable. Throws Fault "full" or "transient".
   */
  async sync(nameLater = false): Promise<number> {
    await this.flush();
    // What is written while the sync runs is not part of it.
    const end = this.#written;
    try {
      if (this.handle !== undefined) await syncData(this.handle);
      if (this.#unnamedIn !== undefined && !nameLater) {
        await syncDir(this.#unnamedIn);
        this.#unnamedIn = undefined;
      }
    } catch (error) {
      throw spoolFault(error, `cannot sync the spool file ${this.#path}`);
    }
    return end;
  }

  async close(): Promise<void> {
    await this.handle?.close();
  }

  /** Hands what was gathered to the file. Never two at a time: `append`, `flush` and `sync` are awaited one after another. */
  async flush(): Promise<void> {
    if (this.#pendingBytes === 0 || this.handle === undefined) return;
    const pending = this.#pending;
    this.#pending = [];
    this.#pendingBytes = 0;
    const bytes = pending.length === 1 && pending[0] !== undefined ? pending[0] : Buffer.concat(pending);
    try {
      for (let at = 0; at < bytes.length;) {
        const { bytesWritten } = await this.handle.write(bytes, at, bytes.length - at, this.#written);
        at += bytesWritten;
        this.#written += bytesWritten;
      }
    } catch (error) {
      throw spoolFault(error, `cannot write the spool file ${this.#path}`);
    }
  }
}
