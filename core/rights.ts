/** Who may not do what in a directory of this machine, by owner, group and mode, and what to type so that it may. */
import { constants, promises as fs, readFileSync } from "node:fs";
import { userInfo } from "node:os";
import { dirname } from "node:path";
import { codeOf, Fault, faultOfErrno } from "./errors.js";
import { mayWriteIn } from "./fs.js";
import { shellWord } from "./text.js";

/** To read a file; to list a directory; to make and remove names in one. */
export type Rights = "r" | "rx" | "rwx";

export interface User {
  readonly name: string;
  readonly uid: number;
  /** Ids of all of its groups, its own first. */
  readonly groups: readonly number[];
}

const bits: Readonly<Record<Rights, number>> = {
  r: constants.R_OK,
  rx: constants.R_OK | constants.X_OK,
  rwx: constants.W_OK | constants.X_OK,
};

/** Who runs this. */
export function thisUser(): User {
  const [uid, gid] = [process.geteuid?.() ?? 0, process.getegid?.() ?? 0];
  return { name: nameOf(uid), uid, groups: [gid, ...(process.getgroups?.() ?? [])] };
}

function nameOf(uid: number): string {
  try {
    return userInfo().username;
  } catch (error) {
    // A number without a name.
    if (codeOf(error) !== "") return String(uid);
    throw error;
  }
}

/** `group`: the name of the user's own. */
export function grantText(
  path: string,
  rights: Rights,
  owner: { readonly uid: number; readonly gid: number },
  user: User,
  group: string,
): string {
  const word = shellWord(path);
  if (owner.uid === user.uid) return `${user.uid === process.geteuid?.() ? "" : "sudo "}chmod u+${rights} ${word}`;
  if (user.groups.includes(owner.gid)) return `sudo chmod g+${rights} ${word}`;
  return `sudo chgrp ${group} ${word} && sudo chmod g+${rights} ${word}`;
}

/** For a directory that is to be made. */
export function makeText(dir: string, user: Pick<User, "name">): string {
  return `sudo install -d -o ${user.name} ${shellWord(dir)}`;
}

/** The way there, from the top. */
export function above(path: string): string[] {
  const up = dirname(path);
  return up === path ? [] : [...above(up), up];
}

/** A refusal ("denied"), with who may not do that at the first of these paths that explains it, and what to type. */
export async function withRights(fault: Fault, rights: Rights, ...paths: readonly string[]): Promise<Fault> {
  if (fault.kind !== "denied") return fault;
  for (const path of paths) {
    const why = await whyRefused(path, rights);
    if (why !== undefined) return new Fault("denied", `${fault.message}: ${why}`, { cause: fault.cause });
  }
  return fault;
}

/** Throws the Fault with all that where no name can be made in a directory, or it could not be made itself; `what` opens the message. */
export async function expectWritable(dir: string, what: string): Promise<void> {
  await mayWriteIn(dir).catch(async (error: unknown) => {
    throw await withRights(faultOfErrno(error, what), "rwx", dir);
  });
}

async function whyRefused(path: string, rights: Rights): Promise<string | undefined> {
  const me = thisUser();
  for (const dir of above(path))
    if ((await refusal(dir, constants.X_OK)) === "EACCES") return `${me.name} may not enter ${dir}: namei -l ${shellWord(path)}`;
  const code = await refusal(path, bits[rights]);
  if (code === "ENOENT" && rights === "rwx") return `${me.name} may not make ${path}: ${makeText(path, me)}`;
  if (code !== "EACCES") return undefined;
  const owner = await fs.stat(path).catch(() => undefined);
  if (owner === undefined) return undefined;
  return `${me.name} may not ${rights === "rwx" ? "write in" : "read"} ${path}: ${grantText(path, rights, owner, me, groupName(me.groups[0] ?? 0))}`;
}

async function refusal(path: string, mode: number): Promise<string> {
  return fs.access(path, mode).then(() => "", codeOf);
}

function groupName(gid: number): string {
  let rows = "";
  try {
    rows = readFileSync("/etc/group", "utf8");
  } catch {
    // Its number is taken, too.
  }
  return (
    rows
      .split("\n")
      .find((row) => row.split(":")[2] === String(gid))
      ?.split(":")[0] ?? String(gid)
  );
}
