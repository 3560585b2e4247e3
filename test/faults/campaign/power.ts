/**
 * A power cut, taken seriously: from a log of the system calls of a life (strace) it is known which bytes and names were not synced when the
 * program was killed; those, and no others, may be gone, zero or garbage afterwards. What was synced stays.
 *
 * Not simulated: an unsynced truncate or unlink that comes undone (the old bytes are no longer there to be given back).
 */
import {
  existsSync,
  ftruncateSync,
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import type { Random } from "../random.js";

/** What the tracer has to record. */
export const recordedCalls =
  "openat,creat,write,writev,pwrite64,pwritev,ftruncate,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,copy_file_range,sendfile,ioctl";

interface Write {
  readonly from: number;
  readonly to: number;
  /** The line at which it had ended; Infinity while it runs. */
  ended: number;
}
interface Named {
  readonly kind: "made" | "renamed" | "linked";
  readonly from?: string;
  readonly to: string;
  ended: number;
}

export interface Volatile {
  /** Path → ranges of bytes that were written and not synced; a negative `from`: so many bytes at the end. */
  readonly bytes: Map<string, { readonly from: number; readonly to: number }[]>;
  /** Names whose directory was not synced since. */
  readonly names: readonly { readonly kind: "made" | "renamed" | "linked"; readonly from?: string; readonly to: string }[];
}

/** Reads a log of `strace -f -y -s 0`. `before`: the files that were there at the start. Paths below `roots` only. */
export function unsynced(log: string, roots: readonly string[], before: ReadonlySet<string>): Volatile {
  const writes = new Map<string, Write[]>();
  let names: Named[] = [];
  const known = new Set(before);
  const running = new Map<string, (ok: boolean, result: number) => void>();
  const ours = (path: string) => roots.some((root) => path === root || path.startsWith(`${root}/`));
  const lines = log.split("\n");
  let at = 0;
  const wrote = (path: string, from: number, to: number): Write => {
    const write: Write = { from, to, ended: Infinity };
    writes.set(path, [...(writes.get(path) ?? []), write]);
    return write;
  };
  const named = (kind: Named["kind"], to: string, from?: string) => {
    const name: Named = { kind, to, ended: Infinity, ...(from === undefined ? {} : { from }) };
    // What stood there before cannot be given back.
    if (!known.has(to)) names.push(name);
    return name;
  };
  const begin = (call: string, args: string): ((ok: boolean, result: number) => void) => {
    const path = fdPath(args);
    switch (call) {
      case "pwrite64":
      case "pwritev": {
        if (path === undefined || !ours(path)) return nothing;
        const [, length, offset] = (/"(?:\.\.\.)?, (\d+), (\d+)/.exec(args) ?? /\], \d+()?, (\d+)/.exec(args) ?? []).map(Number);
        if (offset === undefined) throw new Error(`cannot read the log: ${args}`);
        const write = wrote(path, offset, call === "pwritev" ? Infinity : offset + (length ?? 0));
        return () => (write.ended = at);
      }
      case "write":
      case "writev": {
        if (path === undefined || !ours(path)) return nothing;
        // How much of one that never ended was written is not known: none of it is taken back.
        const write = wrote(path, 0, 0);
        return (ok, result) => {
          write.ended = at;
          if (ok) Object.assign(write, { from: -result, to: Infinity });
        };
      }
      case "copy_file_range":
      case "sendfile":
      case "ioctl": {
        const target = call === "copy_file_range" ? fdPaths(args)[1] : path;
        if (target === undefined || !ours(target) || (call === "ioctl" && !args.includes("FICLONE"))) return nothing;
        const write = wrote(target, 0, Infinity);
        return () => (write.ended = at);
      }
      case "fsync":
      case "fdatasync": {
        if (path === undefined || !ours(path)) return nothing;
        const begun = at;
        return (ok) => {
          if (!ok) return;
          writes.set(
            path,
            (writes.get(path) ?? []).filter(({ ended }) => ended >= begun),
          );
          names = names.filter(({ to, ended }) => dirname(to) !== path || ended >= begun);
        };
      }
      case "ftruncate":
        return (ok) => {
          if (!ok || path === undefined) return;
          const length = Number(/, (\d+)/.exec(args)?.[1] ?? 0);
          writes.set(
            path,
            (writes.get(path) ?? []).filter(({ from }) => from < length && length > 0),
          );
        };
      case "openat":
      case "creat": {
        const opened = strings(args)[0];
        if (opened === undefined || !ours(opened) || !args.includes("O_CREAT") || known.has(opened)) return nothing;
        const name = named("made", opened);
        return (ok) => {
          name.ended = at;
          if (ok) known.add(opened);
        };
      }
      case "rename":
      case "renameat":
      case "renameat2":
      case "link":
      case "linkat": {
        const [from, to] = strings(args);
        if (from === undefined || to === undefined || !ours(to)) return nothing;
        const link = call.startsWith("link");
        const name = named(link ? "linked" : "renamed", to, from);
        return (ok) => {
          name.ended = at;
          if (!ok) return;
          known.add(to);
          writes.set(to, writes.get(from) ?? []);
          if (link) return;
          known.delete(from);
          writes.delete(from);
          names = names.filter((it) => it === name || it.to !== from);
        };
      }
      case "unlink":
        return (ok) => {
          const [path] = strings(args);
          if (!ok || path === undefined) return;
          writes.delete(path);
          known.delete(path);
          names = names.filter(({ to }) => to !== path);
        };
      default:
        return nothing;
    }
  };
  for (; at < lines.length; at++) {
    const match = /^(\d+) +(.*)$/.exec(lines[at] ?? "");
    if (match === null) continue;
    const [, pid = "", text = ""] = match;
    const resumed = /^<\.\.\. (\w+) resumed>(.*)$/.exec(text);
    const call = /^(\w+)\((.*)$/.exec(text);
    if (resumed !== null) {
      const run = running.get(pid);
      running.delete(pid);
      finish(run, resumed[2] ?? "");
    } else if (call !== null) {
      const end = begin(call[1] ?? "", call[2] ?? "");
      if (/<unfinished \.\.\.>$/.test(text)) running.set(pid, end);
      else finish(end, call[2] ?? "");
    }
  }
  const bytes = new Map<string, { from: number; to: number }[]>();
  for (const [path, list] of writes)
    if (list.length > 0)
      bytes.set(
        path,
        list.map(({ from, to }) => ({ from, to })),
      );
  return { bytes, names: names.map(({ kind, from, to }) => ({ kind, to, ...(from === undefined ? {} : { from }) })) };
}

/** Takes back what a power cut may take back, by chance; says what. */
export function tear(lost: Volatile, random: Random): string[] {
  const done: string[] = [];
  for (const [path, ranges] of lost.bytes) {
    const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
    // SQLite makes its shared memory anew whenever nobody has it open.
    if (size === 0 || path.endsWith("-shm") || random.next() < 0.15) continue;
    const tail = -ranges.reduce((sum, { from }) => sum + Math.min(0, from), 0);
    const real = [
      ...ranges.filter(({ from }) => from >= 0).map(({ from, to }) => ({ from, to: Math.min(to, size) })),
      ...(tail > 0 ? [{ from: Math.max(0, size - tail), to: size }] : []),
    ].filter(({ from, to }) => from < to);
    if (real.length === 0) continue;
    const fd = openSync(path, "r+");
    try {
      // The bytes at the end that are all unsynced.
      let end = size;
      for (let found = true; found;) {
        const range = real.find(({ from, to }) => to >= end && from < end);
        found = range !== undefined;
        end = range?.from ?? end;
      }
      if (end < size && random.next() < 0.5) {
        const to = random.between(end, size);
        ftruncateSync(fd, to);
        done.push(`${path}: cut from ${size} to ${to}`);
        continue;
      }
      const garbage = random.next() < 0.4;
      let spoiled = 0;
      for (const { from, to } of real)
        for (let at = from; at < to; at = (Math.floor(at / 4096) + 1) * 4096) {
          if (random.next() < 0.5) continue;
          const length = Math.min(to, (Math.floor(at / 4096) + 1) * 4096) - at;
          writeSync(fd, garbage ? random.bytes(length) : Buffer.alloc(length), 0, length, at);
          spoiled += length;
        }
      if (spoiled > 0) done.push(`${path}: ${spoiled} bytes ${garbage ? "garbage" : "zero"} of ${size}`);
    } finally {
      closeSync(fd);
    }
  }
  for (const { kind, from, to } of [...lost.names].reverse()) {
    if (!existsSync(to) || random.next() < 0.5) continue;
    if (kind === "made") rmSync(to, { force: true });
    else if (from !== undefined && !existsSync(from)) renameSync(to, from);
    else if (kind === "linked") rmSync(to);
    else continue;
    done.push(`${to}: ${kind} undone`);
  }
  return done;
}

/** Every file below the directories. */
export function filesBelow(roots: readonly string[]): Set<string> {
  const files = new Set<string>();
  for (const root of roots)
    if (existsSync(root))
      for (const entry of readdirSync(root, { recursive: true, withFileTypes: true }))
        if (!entry.isDirectory()) files.add(join(entry.parentPath, entry.name));
  return files;
}

export function readLog(path: string): string {
  return existsSync(path) ? readFileSync(path, "utf8") : "";
}

function nothing(): void {
  // A call that is not of interest.
}

function finish(end: ((ok: boolean, result: number) => void) | undefined, text: string): void {
  const result = /\) += (-?\d+)/.exec(text);
  end?.(result !== null && !result[1]?.startsWith("-"), Number(result?.[1] ?? 0));
}

/** `18</path>` → the path. */
function fdPath(args: string): string | undefined {
  return fdPaths(args)[0];
}
function fdPaths(args: string): string[] {
  return [...args.matchAll(/\d+<(\/[^>]*)>/g)].map(([, path = ""]) => unescaped(path));
}
function strings(args: string): string[] {
  return [...args.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, text = ""]) => unescaped(text));
}
/** strace writes bytes beyond ASCII as octal. */
function unescaped(text: string): string {
  const bytes = text.replace(/\\([0-7]{1,3}|.)/g, (_, code: string) =>
    /^[0-7]/.test(code) ? String.fromCharCode(parseInt(code, 8)) : ({ n: "\n", t: "\t", r: "\r", v: "\v", f: "\f" }[code] ?? code),
  );
  return Buffer.from(bytes, "latin1").toString();
}
