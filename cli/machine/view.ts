/** The machine as the checks see it: its files below a root, its programs, and who asks. Nothing here changes anything. */
import { existsSync, readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { codeOf } from "../../core/errors.js";
import { runCommand, type RunCommand } from "../../core/program.js";
import { thisUser, type User } from "../../core/rights.js";

export type { User };

/** A text; or why there is none. */
export type Read = { readonly text: string } | { readonly denied: true } | undefined;

export interface View {
  /** "/": this machine's own. */
  readonly root: string;
  readonly run: RunCommand;
  /** Who asks. */
  readonly me: User;
  readonly nowMs: number;
}

export function thisView(): View {
  return { root: "/", run: runCommand, me: thisUser(), nowMs: Date.now() };
}

export function at(view: View, path: string): string {
  return join(view.root, path);
}

export function isThere(view: View, path: string): boolean {
  return existsSync(at(view, path));
}

/** Itself, or the first above it that is there. */
export function nearest(view: View, path: string): string {
  return isThere(view, path) || dirname(path) === path ? path : nearest(view, dirname(path));
}

/** undefined: it is not there. Throws what is neither that nor a missing permission. */
export function read(view: View, path: string): Read {
  try {
    return { text: readFileSync(at(view, path), "utf8") };
  } catch (error) {
    return whyNot(error);
  }
}

/** The text of a file that all may read; "" where it is not there. */
export function textOf(view: View, path: string): string {
  const found = read(view, path);
  return found !== undefined && "text" in found ? found.text : "";
}

/** The names in a directory; none where it is not there, or may not be looked into. */
export function namesIn(view: View, dir: string): string[] {
  try {
    return readdirSync(at(view, dir)).sort();
  } catch (error) {
    whyNot(error);
    return [];
  }
}

function whyNot(error: unknown): { readonly denied: true } | undefined {
  const code = codeOf(error);
  if (code === "EACCES" || code === "EPERM") return { denied: true };
  // A process, a device that went while it was looked at; a path that can lead nowhere.
  if (["ENOENT", "ENOTDIR", "ESRCH", "ENODEV", "ENXIO", "EIO", "EINVAL", "ELOOP", "ENAMETOOLONG"].includes(code)) return undefined;
  throw error;
}

/** What a link says; undefined where there is none. */
export function linkOf(view: View, path: string): string | undefined {
  try {
    return readlinkSync(at(view, path));
  } catch {
    // No link, or nothing, or nothing for us.
    return undefined;
  }
}

/** Where the links from a path lead, as the machine names it; undefined where nothing is there. */
export function realPath(view: View, path: string): string | undefined {
  let now = path;
  for (let n = 0; n < 40; n++) {
    const link = linkOf(view, now);
    if (link === undefined) return isThere(view, now) ? now : undefined;
    now = resolve(dirname(now), link);
  }
  return undefined;
}

/** Owner, group and rights; undefined where nothing is there. */
export function statOf(view: View, path: string): { readonly uid: number; readonly gid: number; readonly mode: number } | undefined {
  try {
    return statSync(at(view, path));
  } catch (error) {
    whyNot(error);
    return undefined;
  }
}

/** The name of a group; its number where it has none. */
export function groupName(view: View, gid: number): string {
  return rows(view, "/etc/group").find(([, , id]) => id === String(gid))?.[0] ?? String(gid);
}

/** A user by name or number, with its groups; undefined where nobody has that name. */
export function userNamed(view: View, name: string): User | undefined {
  const row = rows(view, "/etc/passwd").find(([own, , id]) => own === name || id === name);
  if (row === undefined) return undefined;
  const [own = "", , uid, gid] = row;
  const more = rows(view, "/etc/group").flatMap(([, , id, members = ""]) => (members.split(",").includes(own) ? [Number(id)] : []));
  return { name: own, uid: Number(uid), groups: [Number(gid), ...more] };
}

export function groupNumber(view: View, name: string): number | undefined {
  const id = rows(view, "/etc/group").find(([own]) => own === name)?.[2];
  return id === undefined ? undefined : Number(id);
}

function rows(view: View, path: string): string[][] {
  return textOf(view, path)
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => line.split(":"));
}

/** Processes of this name (/proc/PID/comm has its first 15 characters). */
export function processesOf(view: View, name: string): number[] {
  return namesIn(view, "/proc")
    .filter((pid) => /^\d+$/.test(pid) && textOf(view, `/proc/${pid}/comm`).trim() === name.slice(0, 15))
    .map(Number);
}
