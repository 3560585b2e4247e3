/**
 * Who else has a serial port open. Two programs that read one port each get a part of the bytes, and the lock that we take is advisory: most
 * MAVLink programs do not ask for it. So the open files of all processes are looked at (/proc/PID/fd). Those of other users cannot be seen
 * unless we are root; of them a process counts whose arguments name the port, or a mavlink-routerd whose configuration does.
 *
 * It is done every second or two for as long as a port is open, by synchronous calls, which cost a fraction of the others here, for a few processes at a
 * time.
 *
 * Whoever only writes (flags in /proc/PID/fdinfo) takes nothing from us. Who made a pseudo-terminal, or sits at one as its terminal, is no owner.
 */
import { readdirSync, readlinkSync } from "node:fs";
import { readFile, readlink, realpath } from "node:fs/promises";
import { basename, join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { codeOf } from "../../core/errors.js";
import { configOf } from "./routers.js";

/** Where the system's own files are. */
export interface SystemRoots {
  readonly proc: string;
  readonly etc: string;
}

export const SYSTEM: SystemRoots = { proc: "/proc", etc: "/etc" };

export interface Owner {
  readonly pid: number;
  /** As a person knows it: "mavlink-routerd", "mavproxy.py". */
  readonly name: string;
  readonly args: readonly string[];
}

/** Every so often all is looked at; in between only what processes have opened since. */
const WHOLE_EVERY = 10;
/** So many processes are looked at in one go. */
const GO = 50;
const WRITE_ONLY = 1;
const ACCESS = 3;
const INTERPRETERS = /^(python|node|perl|ruby|sh|bash|dash|sudo|env)[\d.]*$/;

/** Looks for others that have one port open; it may be asked again and again. */
export class OwnerWatch {
  readonly #path: string;
  readonly #roots: SystemRoots;
  /** By process, the open files that were looked at and are not the port. */
  #known = new Map<string, ReadonlySet<string>>();
  #looks = 0;

  constructor(path: string, roots: SystemRoots = SYSTEM) {
    this.#path = path;
    this.#roots = roots;
  }

  /** The first that is found; undefined: nobody, as far as can be seen. */
  async look(): Promise<Owner | undefined> {
    for await (const owner of this.#owners()) return owner;
    return undefined;
  }

  /** Everybody who is found. */
  async all(): Promise<Owner[]> {
    const found: Owner[] = [];
    for await (const owner of this.#owners()) found.push(owner);
    return found;
  }

  async *#owners(): AsyncGenerator<Owner> {
    const self = await readlink(join(this.#roots.proc, "self")).catch(() => "");
    const port = await realpath(this.#path).catch(() => this.#path);
    if (this.#looks++ % WHOLE_EVERY === 0) this.#known.clear();
    const before = this.#known;
    this.#known = new Map();
    const { proc } = this.#roots;
    for (const [n, pid] of entries(proc).entries()) {
      if (n % GO === GO - 1) await turn();
      if (!/^\d+$/.test(pid) || pid === self) continue;
      const seen = before.get(pid);
      // What it cannot hide does not change.
      const fds = seen === nothing ? hidden : entries(`${proc}/${pid}/fd`);
      const holds = fds === hidden ? seen !== nothing && (await this.#isNamed(pid, port)) : await this.#holds(pid, fds, port, seen);
      if (holds) yield await ownerOf(proc, pid);
      else if (fds === hidden) this.#known.set(pid, nothing);
    }
  }

  async #holds(pid: string, fds: readonly string[], port: string, before: ReadonlySet<string> | undefined): Promise<boolean> {
    if (before?.size === fds.length && fds.every((fd) => before.has(fd))) {
      this.#known.set(pid, before);
      return false;
    }
    const other = new Set<string>();
    this.#known.set(pid, other);
    for (const fd of fds) {
      const known = before?.has(fd) === true;
      if (!known && targetOf(this.#roots.proc, pid, fd) === port && (await this.#isPort(pid, fd)) && !this.#isTerminal(pid, fd, fds, port))
        return true;
      other.add(fd);
    }
    return false;
  }

  /** It is read, not only written. */
  async #isPort(pid: string, fd: string): Promise<boolean> {
    const info = await readFile(join(this.#roots.proc, pid, "fdinfo", fd), "utf8").catch(() => "");
    const flags = parseInt(/^flags:\s*([0-7]+)/m.exec(info)?.[1] ?? "0", 8);
    return (flags & ACCESS) !== WRITE_ONLY;
  }

  /** A pseudo-terminal in the hands of who made it, or as somebody's standard input. */
  #isTerminal(pid: string, fd: string, fds: readonly string[], port: string): boolean {
    if (!port.startsWith("/dev/pts/")) return false;
    if (Number(fd) <= 2) return true;
    return fds.some((other) => targetOf(this.#roots.proc, pid, other).endsWith("/ptmx"));
  }

  /** What can be told of a process whose open files are hidden. */
  async #isNamed(pid: string, port: string): Promise<boolean> {
    const args = await argsOf(this.#roots.proc, pid);
    const names = new Set([port, this.#path]);
    const mentions = (text: string): boolean => [...names].some((name) => new RegExp(`(^|[=:,/]|\\b)${escaped(name)}($|[:,])`).test(text));
    if (args.some(mentions)) return true;
    if (nameOf(args) !== "mavlink-routerd") return false;
    for (const device of (await configOf(args, this.#roots.etc)).devices)
      if ((await realpath(device).catch(() => device)) === port) return true;
    return false;
  }
}

async function ownerOf(proc: string, pid: string): Promise<Owner> {
  const args = await argsOf(proc, pid);
  const name = args.length > 0 ? nameOf(args) : (await readFile(join(proc, pid, "comm"), "utf8").catch(() => "?")).trim();
  return { pid: Number(pid), name, args };
}

async function argsOf(proc: string, pid: string): Promise<string[]> {
  const line = await readFile(join(proc, pid, "cmdline"), "utf8").catch(() => "");
  return line.split("\0").filter((arg) => arg !== "");
}

/** Every process but this one, as far as it has arguments. */
export async function processesIn({ proc }: SystemRoots): Promise<Owner[]> {
  const self = await readlink(join(proc, "self")).catch(() => "");
  const pids = entries(proc).filter((pid) => /^\d+$/.test(pid) && pid !== self);
  const found = await Promise.all(pids.map((pid) => ownerOf(proc, pid)));
  return found.filter(({ args }) => args.length > 0);
}

/** Of a script its own name, not that of who runs it. */
export function nameOf(args: readonly string[]): string {
  const names = args.map((arg) => basename(arg));
  const script = names.find((name, i) => !INTERPRETERS.test(name) && !(args[i] ?? "").startsWith("-"));
  return script ?? names[0] ?? "?";
}

/** What stands for a directory that we may not look into. */
const hidden: readonly string[] = [];

/** Of a process whose open files are hidden: it is not by its arguments that it has the port. */
const nothing: ReadonlySet<string> = new Set();

/** "" where it was closed meanwhile. */
function targetOf(proc: string, pid: string, fd: string): string {
  try {
    return readlinkSync(`${proc}/${pid}/fd/${fd}`);
  } catch {
    return "";
  }
}

/** Nothing where it has gone: processes end. */
function entries(dir: string): readonly string[] {
  try {
    return readdirSync(dir);
  } catch (error) {
    const code = codeOf(error);
    return code === "EACCES" || code === "EPERM" ? hidden : [];
  }
}

function escaped(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
}
