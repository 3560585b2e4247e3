/** What root does as another user: in a directory of that one, as a link there may lead anywhere; and what that one may. */
import { closeSync, openSync, statSync } from "node:fs";
import { constructorOf } from "../../core/sqlite.js";

/** `work` as whose `dir` is, where root does it; else as who runs this. The whole process is that user meanwhile, so that what works beside it has to be able to. */
export async function asOwnerOf<T>(dir: string, work: () => Promise<T>): Promise<T> {
  const { uid, gid } = statSync(dir);
  if (process.geteuid?.() !== 0 || uid === 0) return work();
  // What is loaded at its first use: from where that user may not look, perhaps.
  await constructorOf();
  const back = become(uid, gid, () => takeGroups(uid, gid));
  try {
    return await work();
  } finally {
    back();
  }
}

/** The whole process is that user until what it gives is called. Throws where root may not act as another (a container). */
function become(uid: number, gid: number, takesGroups: () => void): () => void {
  const before = process.getgroups?.() ?? [];
  const back = () => {
    process.seteuid?.(0);
    process.setegid?.(0);
    process.setgroups?.(before);
  };
  takesGroups();
  try {
    process.setegid?.(gid);
    process.seteuid?.(uid);
    return back;
  } catch (error) {
    back();
    throw error;
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
  let back: (() => void) | undefined;
  try {
    back = become(uid, groups[0] ?? uid, () => process.setgroups?.([...groups]));
    closeSync(openSync(path, "r"));
    return true;
  } catch {
    return false;
  } finally {
    back?.();
  }
}
