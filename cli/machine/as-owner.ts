/** What root does as another user: in a directory of that one, as a link there may lead anywhere; and what that one may. */
import { closeSync, openSync, statSync } from "node:fs";
import { constructorOf } from "../../core/sqlite.js";

/** `work` as whose `dir` is, where root does it; else as who runs this. The whole process is that user meanwhile, so that what works beside it has to be able to. */
export async function asOwnerOf<T>(dir: string, work: () => Promise<T>): Promise<T> {
  const { uid, gid } = statSync(dir);
  if (process.geteuid?.() !== 0 || uid === 0) return work();
  // What is loaded at its first use: from where that user may not look, perhaps.
  await constructorOf();
  const before = process.getgroups?.() ?? [];
  takeGroups(uid, gid);
  try {
    process.setegid?.(gid);
    process.seteuid?.(uid);
    return await work();
  } finally {
    process.seteuid?.(0);
    process.setegid?.(0);
    process.setgroups?.(before);
  }
}

/** By one of its own it may come to that directory. */
function takeGroups(uid: number, gid: number): void {
  try {
    // Not among node's types.
    (process as { initgroups?: (user: number, group: number) => void }).initgroups?.(uid, gid);
  } catch {
    // No user of this machine has that id.
    process.setgroups?.([gid]);
  }
}

/** Whether a user may read a file, tried by root as that user: an access control list says what owner, group and rights do not. */
export function mayOpen(path: string, { uid, groups }: { readonly uid: number; readonly groups: readonly number[] }): boolean {
  const before = process.getgroups?.() ?? [];
  // Not everywhere may root act as another (a container).
  let acts = false;
  try {
    process.setgroups?.([...groups]);
    acts = true;
    process.setegid?.(groups[0] ?? uid);
    process.seteuid?.(uid);
    closeSync(openSync(path, "r"));
    return true;
  } catch {
    return false;
  } finally {
    if (acts) {
      process.seteuid?.(0);
      process.setegid?.(0);
      process.setgroups?.(before);
    }
  }
}
