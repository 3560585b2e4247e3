/** What root does in a directory of another user: as that user, as a link there may lead anywhere. */
import { statSync } from "node:fs";
import { constructorOf } from "../../core/sqlite.js";

/** `work` as whose `dir` is, where root does it; else as who runs this. The whole process is that user meanwhile, so that what works beside it has to be able to. */
export async function asOwnerOf<T>(dir: string, work: () => Promise<T>): Promise<T> {
  const { uid, gid } = statSync(dir);
  if (process.geteuid?.() !== 0 || uid === 0) return work();
  // What is loaded at its first use: from where that user may not look, perhaps.
  await constructorOf();
  const before = process.getgroups?.() ?? [];
  process.setgroups?.([gid]);
  process.setegid?.(gid);
  process.seteuid?.(uid);
  try {
    return await work();
  } finally {
    process.seteuid?.(0);
    process.setegid?.(0);
    process.setgroups?.(before);
  }
}
