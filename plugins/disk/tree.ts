/** Listing and changing by hand, and for delete and archive. With several media (`any`) each is a directory of the root. */
import { Fault } from "../../core/errors.js";
import type { FileEntry, MoveHow, Stamp, Tree, TreePromises } from "../../core/plugin.js";
import type { Disks } from "./device.js";
import { timed } from "./media.js";

export class DiskTree implements Tree {
  constructor(readonly disks: Disks) {}

  async *list(dir: string, signal: AbortSignal): AsyncIterable<FileEntry> {
    const { disks } = this;
    if (dir === "" && disks.several) {
      for (const { id } of disks.media) yield { path: id, kind: "directory", size: 0, medium: id };
      return;
    }
    const { medium, inner } = disks.at(dir);
    const lease = await medium.lease(false, signal);
    try {
      for await (const entry of lease.content.tree.list(inner, lease.signal))
        yield { ...entry, ...timed(entry, -medium.aheadMs), path: disks.pathOf(medium, entry.path), medium: medium.id };
    } catch (error) {
      throw await medium.faultOf(error, signal);
    } finally {
      lease.end();
    }
  }

  async stat(path: string, signal: AbortSignal): Promise<FileEntry | undefined> {
    const { disks } = this;
    if (disks.several && !path.includes("/")) {
      const there = disks.media.some(({ id }) => id === path) || path === "";
      return there ? { path, kind: "directory", size: 0 } : undefined;
    }
    const { medium, inner } = disks.at(path);
    return medium.use(false, signal, async ({ tree }) => {
      const entry = await tree.stat(inner);
      if (entry === undefined) await medium.expectAlive();
      return entry === undefined ? undefined : { ...entry, ...timed(entry, -medium.aheadMs), path, medium: medium.id };
    });
  }

  async move(from: string, to: string, expect: Stamp | "directory", signal: AbortSignal, how: MoveHow = {}): Promise<void> {
    const { medium, inner } = this.disks.at(from, expect === "directory" ? undefined : expect.medium);
    if (this.disks.several && !to.startsWith(`${medium.id}/`))
      throw new Fault("rejected", `${to} is not on the disk of ${from}: to archive on a disk, name that by its "uuid" in place of "any"`);
    const target = this.disks.at(to).inner;
    await medium.use(true, signal, async ({ tree }) => {
      await tree.move(inner, target, expect === "directory" ? expect : { ...expect, ...timed(expect, medium.aheadMs) }, signal, how);
      await medium.expectAlive();
    });
  }

  remove(path: string, expect: Stamp, signal: AbortSignal): Promise<void> {
    const { medium, inner } = this.disks.at(path, expect.medium);
    return medium.use(true, signal, async ({ tree }) => {
      await tree.remove(inner, { ...expect, ...timed(expect, medium.aheadMs) });
      await medium.expectAlive();
    });
  }

  mkdir(path: string, signal: AbortSignal): Promise<void> {
    const { medium, inner } = this.disks.at(path);
    return medium.use(true, signal, ({ tree }) => tree.mkdir(inner));
  }

  rmdir(path: string, signal: AbortSignal): Promise<void> {
    const { medium, inner } = this.disks.at(path);
    return medium.use(true, signal, async ({ tree }) => {
      await tree.rmdir(inner);
      await medium.expectAlive();
    });
  }

  makeNew(path: string, signal: AbortSignal): Promise<boolean> {
    const { medium, inner } = this.disks.at(path);
    return medium.use(true, signal, async ({ tree }) => {
      const made = await tree.makeNew(inner);
      await medium.expectAlive();
      return made;
    });
  }

  sync(path: string, size: number, signal: AbortSignal): Promise<void> {
    const { medium, inner } = this.disks.at(path);
    return medium.use(false, signal, async ({ tree }, on) => {
      await tree.sync(inner, size, on);
      await medium.expectAlive();
    });
  }

  tryOut(dir: string, signal: AbortSignal): Promise<TreePromises> {
    const { medium, inner } = this.disks.at(dir);
    return medium.use(true, signal, async ({ tree }, on) => {
      const found = await tree.tryOut(inner, on);
      await medium.expectAlive();
      return found;
    });
  }
}
