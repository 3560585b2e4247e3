/**
 * The file system of the simulated flight controller: what lies below one directory, whose path is "/" to clients. Changing it is in
 * `disk-changes.ts`.
 *
 * No path leads out of it: ".." stops at "/", and a symbolic link that points outside is not there. Names are bytes. Calls are
 * synchronous, as they are in an autopilot, where the one thread that answers also reads the card.
 */
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  realpathSync,
  statSync,
  type Dirent,
  type Stats,
} from "node:fs";
import { crc32 } from "node:zlib";
import { DiskError, EISDIR, ENOENT, guard } from "./disk-error.js";
import { DiskFile, FileContent, OverlaidContent, type BadPlace, type Content } from "./disk-file.js";

/** What a directory holds under one name. Its size and time are looked up when they are asked for. */
export interface DiskEntry {
  readonly name: Buffer;
  readonly kind: "file" | "directory" | "other";
  /** 0 for what is no file. */
  readonly size: number;
  /** Of the last change, in whole seconds since 1970; 0 where that is not known. */
  readonly modifiedS: number;
}

/** Called for a file that a client opens, by the path that it asked for; what it returns is told of each piece that is read of it then. */
export type Watch = (path: string) => (offset: number, bytes: number) => void;

const SLASH = 0x2f;

export class Disk {
  /** Bytes that the card still takes. What is taken away gives its own back; what was made up (`grow`) takes none. */
  freeBytes = Infinity;
  readonly #root: Buffer;
  /** The names of the directory that was listed last: a long one is asked for in hundreds of pieces. */
  #listed: { readonly dir: Buffer; readonly stamp: bigint; readonly entries: DiskEntry[] } | undefined;
  readonly #made = new Map<string, Buffer>();
  /** Bytes behind the end of a file, by its real path; a file that is only here begins empty. */
  readonly #grown = new Map<string, { extra: number; readonly begun: boolean; modifiedS: number }>();
  readonly #bad: BadPlace[] = [];
  readonly #opened: Watch | undefined;

  /** Throws where `dir` is no directory. `opened` watches what clients read. */
  constructor(dir: string, opened?: Watch) {
    this.#opened = opened;
    this.#root = realpathSync.native(Buffer.from(dir), { encoding: "buffer" });
    if (!statSync(this.#root).isDirectory()) throw new Error(`${dir} is not a directory`);
  }

  /** The entries of a directory, ordered by the bytes of their names. */
  list(path: Buffer): readonly DiskEntry[] {
    const dir = this.#resolve(path);
    const stamp = guard(() => statSync(dir, { bigint: true }).mtimeNs);
    if (this.#listed?.dir.equals(dir) !== true || this.#listed.stamp !== stamp) {
      const found = guard(() => readdirSync(dir, { encoding: "buffer", withFileTypes: true }) as unknown as Dirent<Buffer>[]);
      const entries = found.map((entry) => this.#entry(dir, entry));
      entries.sort((a, b) => a.name.compare(b.name));
      this.#listed = { dir, stamp, entries };
    }
    return this.#grown.size === 0 ? this.#listed.entries : this.#withGrown(dir, this.#listed.entries);
  }

  /** Opens a plain file; its size is fixed at this moment. */
  open(path: Buffer): DiskFile {
    return new DiskFile(this.#content(path), this.#opened?.(path.toString("latin1")));
  }

  /** Where a path is on this machine, whether something is there or not; its directory must be there. Throws DiskError. */
  place(path: Buffer): Buffer {
    const parts = partsOf(path);
    const name = parts.at(-1);
    if (name === undefined) throw new DiskError(EISDIR, "the root");
    const dir = this.#real(parts.slice(0, -1));
    if (!guard(() => statSync(dir)).isDirectory()) throw new DiskError(ENOENT, "below a file");
    const place = Buffer.concat([dir, Buffer.from("/"), name]);
    if (lstatSync(place, { throwIfNoEntry: false })?.isSymbolicLink() === true && !this.#leadsInside(place))
      throw new DiskError(ENOENT, "outside");
    return place;
  }

  /** What is on it was changed: within the grain of its times that would not be seen. */
  changed(): void {
    this.#listed = undefined;
  }

  /** True for a directory that is there. */
  isDirectory(path: string): boolean {
    try {
      return statSync(this.#resolve(Buffer.from(path))).isDirectory();
    } catch (error) {
      if (error instanceof DiskError) return false;
      throw error;
    }
  }

  /** Makes a file of these bytes that no listing shows, as autopilots have for parameters. */
  make(path: string, bytes: Buffer): void {
    this.#made.set(path, bytes);
  }

  /** A plain file becomes longer by so many bytes (`madeBytes` of its offsets); `begun`: it need not be there yet, only its directory. */
  grow(path: string, bytes: number, modifiedS: number): void {
    const at = path.lastIndexOf("/");
    const key = Buffer.concat([this.#resolve(Buffer.from(path.slice(0, at + 1))), Buffer.from(`/${path.slice(at + 1)}`)]).toString(
      "latin1",
    );
    const begun = statSync(Buffer.from(key, "latin1"), { throwIfNoEntry: false }) === undefined;
    const grown = this.#grown.get(key) ?? { extra: 0, begun, modifiedS };
    grown.extra += bytes;
    grown.modifiedS = modifiedS;
    this.#grown.set(key, grown);
  }

  /** From now on this byte of a file cannot be read, so many times. */
  breakAt(offset: number, times = Infinity): void {
    this.#bad.push({ offset, times });
  }

  /** The checksum of MAVLink FTP: reflected 0xEDB88320, start 0, no final xor. */
  crc(path: Buffer): number {
    const file = new DiskFile(this.#content(path));
    try {
      const block = Buffer.allocUnsafe(65536);
      let crc = 0;
      for (let at = 0; at < file.size;) {
        const n = file.read(at, block, 0, block.length);
        if (n === 0) break;
        // zlib inverts its start value and its result.
        crc = (crc32(block.subarray(0, n), (crc ^ 0xffffffff) >>> 0) ^ 0xffffffff) >>> 0;
        at += n;
      }
      return crc;
    } finally {
      file.close();
    }
  }

  #content(path: Buffer): Content {
    const made = this.#made.get(path.toString("latin1"));
    if (made !== undefined) return contentOf(made);
    const begun = this.#begun(path);
    if (begun !== undefined) return new OverlaidContent(undefined, () => begun.extra, this.#bad);
    const real = this.#resolve(path);
    const fd = guard(() => openSync(real, constants.O_RDONLY | constants.O_NONBLOCK));
    if (!fstatSync(fd).isFile()) {
      closeSync(fd);
      throw new DiskError(EISDIR, "not a plain file");
    }
    const key = real.toString("latin1");
    return new OverlaidContent(new FileContent(fd), () => this.#grown.get(key)?.extra ?? 0, this.#bad);
  }

  /** A file that is only here. */
  #begun(path: Buffer): { readonly extra: number } | undefined {
    if (this.#grown.size === 0) return undefined;
    const at = path.lastIndexOf(SLASH);
    const dir = this.#resolve(path.subarray(0, at + 1));
    const grown = this.#grown.get(Buffer.concat([dir, Buffer.from("/"), path.subarray(at + 1)]).toString("latin1"));
    return grown?.begun === true ? grown : undefined;
  }

  #withGrown(dir: Buffer, entries: readonly DiskEntry[]): DiskEntry[] {
    const at = `${dir.toString("latin1")}/`;
    const all = entries.map((entry): DiskEntry => {
      const grown = this.#grown.get(at + entry.name.toString("latin1"));
      return grown === undefined
        ? entry
        : { name: entry.name, kind: entry.kind, size: entry.size + grown.extra, modifiedS: grown.modifiedS };
    });
    for (const [key, { extra, begun, modifiedS }] of this.#grown) {
      const name = key.slice(at.length);
      if (begun && key.startsWith(at) && !name.includes("/"))
        all.push({ name: Buffer.from(name, "latin1"), kind: "file", size: extra, modifiedS });
    }
    return all.sort((a, b) => a.name.compare(b.name));
  }

  #entry(dir: Buffer, found: Dirent<Buffer>): DiskEntry {
    const { name } = found;
    const path = Buffer.concat([dir, Buffer.from("/"), name]);
    // Whether a link leads inside is looked at once, when the directory is read.
    const stat = (): Stats | undefined => (found.isSymbolicLink() && !this.#leadsInside(path) ? undefined : statOf(path));
    const target = found.isSymbolicLink() ? stat() : found;
    const kind = target?.isFile() === true ? "file" : target?.isDirectory() === true ? "directory" : "other";
    return {
      name,
      kind,
      get size() {
        return kind === "file" ? (stat()?.size ?? 0) : 0;
      },
      get modifiedS() {
        return Math.max(0, Math.floor((stat()?.mtimeMs ?? 0) / 1000));
      },
    };
  }

  #leadsInside(path: Buffer): boolean {
    try {
      return this.#inside(realpathSync.native(path, { encoding: "buffer" }));
    } catch (error) {
      // A link to nowhere: it is listed as something that is no file.
      if (!(error instanceof Error && "code" in error)) throw error;
      return false;
    }
  }

  #resolve(path: Buffer): Buffer {
    return this.#real(partsOf(path));
  }

  #real(parts: readonly Buffer[]): Buffer {
    const joined = Buffer.concat([this.#root, ...parts.flatMap((part) => [Buffer.from("/"), part])]);
    const real = guard(() => realpathSync.native(joined, { encoding: "buffer" }));
    if (!this.#inside(real)) throw new DiskError(ENOENT, "outside");
    return real;
  }

  #inside(real: Buffer): boolean {
    const root = this.#root;
    if (real.equals(root) || root.length === 1) return true;
    return real.length > root.length && real[root.length] === SLASH && real.subarray(0, root.length).equals(root);
  }
}

const dot = Buffer.from(".");
const dotDot = Buffer.from("..");

/** The names of a path; ".." stops at "/". Throws DiskError. */
function partsOf(path: Buffer): Buffer[] {
  const parts: Buffer[] = [];
  for (let from = 0; from <= path.length;) {
    const slash = path.indexOf(SLASH, from);
    const end = slash === -1 ? path.length : slash;
    const part = path.subarray(from, end);
    if (part.equals(dotDot)) parts.pop();
    else if (part.length > 0 && !part.equals(dot)) parts.push(part);
    from = end + 1;
  }
  if (parts.some((part) => part.includes(0))) throw new DiskError(ENOENT, "a name holds a zero byte");
  return parts;
}

function contentOf(bytes: Buffer): Content {
  return {
    size: () => bytes.length,
    read: (into, length, position) => bytes.copy(into, 0, position, position + length),
    close: () => undefined,
  };
}

/** Undefined for what has gone since its directory was read. */
function statOf(path: Buffer): Stats | undefined {
  return statSync(path, { throwIfNoEntry: false }) ?? lstatSync(path, { throwIfNoEntry: false });
}
