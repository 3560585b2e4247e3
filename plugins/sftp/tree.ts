/** An SFTP server as a tree: what is looked at, moved and removed by hand, by archive, mirror and two-way. Each change looks right before it acts. */
import { Fault } from "../../core/errors.js";
import type { FileEntry, MoveHow, Stamp, Tree, TreePromises } from "../../core/plugin.js";
import { dirGone, expectBelow, expectMeant, expectMovable, expectSame, RemoteTree } from "../../core/remote.js";
import { publishTo, tryOut } from "../../core/try-out.js";
import { parentOf, wirePath } from "../../core/wire-path.js";
import { isAbsent, Refusal } from "./faults.js";
import type { Pool } from "./pool.js";
import { makeDirsDurable } from "./publishing.js";
import type { Session } from "./session.js";
import { entryOf, lookAt, type SftpSource } from "./source.js";
import { isOfMedium } from "./syncs.js";
import type { SftpTarget } from "./target.js";

export class SftpTree extends RemoteTree implements Tree {
  readonly #pool: Pool;
  readonly #source: SftpSource;
  readonly #target: SftpTarget;

  constructor(pool: Pool, source: SftpSource, target: SftpTarget) {
    super(source);
    this.#pool = pool;
    this.#source = source;
    this.#target = target;
  }

  async move(from: string, to: string, expect: Stamp | "directory", signal: AbortSignal, how: MoveHow = {}): Promise<void> {
    expectMovable(from, to);
    return this.#pool.with(signal, `cannot move ${from} to ${to}`, async ({ session }) => {
      const [source, target] = [wirePath(session.root, from), wirePath(session.root, to)];
      let bytes = 0;
      const act = async (): Promise<boolean> => {
        // Both answers come in one round trip, and the change goes out right after them.
        const [found, there] = await Promise.all([lookAt(session, from), session.lstat(target)]);
        if (found === undefined) {
          // Perhaps moved by a try whose connection was lost before it was synced.
          await session.syncs.dir(parentOf(target));
          await session.syncs.dir(parentOf(source));
          throw new Fault("missing", `${from} is not there any more`);
        }
        bytes = found.size;
        expectMeant(found, expect);
        if (there !== undefined) return false;
        if (expect === "directory") return session.publishDir(source, target);
        return how.ours === true ? session.rename(source, target) : session.publish(source, target);
      };
      const moved = await act().catch(async (error: unknown) => {
        if (!isAbsent(error)) throw error;
        if (how.made === true) throw dirGone(to);
        await makeDirsDurable(session, parentOf(target));
        return act();
      });
      if (!moved) throw new Fault("conflict", `${to} exists already`);
      // Never without both names.
      await session.syncs.name(target, bytes);
      if (!parentOf(source).equals(parentOf(target))) await session.syncs.dir(parentOf(source));
    });
  }

  remove(path: string, expect: Stamp, signal: AbortSignal): Promise<void> {
    return this.#pool.with(signal, `cannot remove ${path}`, async ({ session }) => {
      const [wire, found] = [wirePath(session.root, path), await lookAt(session, path)];
      if (found !== undefined) {
        expectSame(found, expect);
        await session.removeDurable(wire);
      } else {
        // Perhaps by a run that was killed before it was synced.
        await session.syncs.dir(parentOf(wire));
      }
    });
  }

  async rmdir(path: string, signal: AbortSignal): Promise<void> {
    expectBelow(path);
    return this.#pool.with(signal, `cannot remove the directory ${path}`, async ({ session }) => {
      const wire = wirePath(session.root, path);
      // rclone takes a directory with all that is in it.
      if (await isEmpty(session, path, wire))
        try {
          await session.removeDir(wire);
        } catch (error) {
          // OpenSSH says of one that is not empty only that it failed.
          if (!(error instanceof Refusal) || (await isEmpty(session, path, wire))) throw error;
        }
      await session.syncs.dir(parentOf(wire));
    });
  }

  /** Not synced, as each would cost a round trip more: what gets a name in it is. */
  mkdir(path: string, signal: AbortSignal): Promise<void> {
    return this.#pool.with(signal, `cannot make the directory ${path}`, async ({ session }) => {
      await session.makeDirs(wirePath(session.root, path));
    });
  }

  async makeNew(path: string, signal: AbortSignal): Promise<boolean> {
    expectBelow(path);
    return this.#pool.with(signal, `cannot make the directory ${path}`, async ({ session }) => {
      const wire = wirePath(session.root, path);
      return session.makeDir(wire).catch(async (error: unknown) => {
        if (!isAbsent(error)) throw error;
        await session.makeDirs(parentOf(wire));
        return session.makeDir(wire);
      });
    });
  }

  sync(path: string, size: number, signal: AbortSignal): Promise<void> {
    return this.#pool.with(signal, `cannot sync ${path}`, async ({ session }) => {
      try {
        await session.syncs.found(wirePath(session.root, path), size);
      } catch (error) {
        if (!isOfMedium(error)) throw error;
        throw new Fault("unreadable", `cannot sync ${path}: the server's medium did not take it ("${error.text}")`, { cause: error });
      }
    });
  }

  tryOut(dir: string, signal: AbortSignal): Promise<TreePromises> {
    const refused = async (work: (session: Session) => Promise<boolean>, on: AbortSignal): Promise<boolean> =>
      this.#pool.with(on, `cannot try out ${dir === "" ? "the root" : dir}`, async ({ session }) => {
        try {
          return await work(session);
        } catch (error) {
          if (error instanceof Refusal) return false;
          throw error;
        }
      });
    const tried = {
      tree: this,
      source: this.#source,
      publish: publishTo(this.#target),
      // By a link, or nobody knows whether the server looks and acts in one step.
      rename: (from: string, to: string, on: AbortSignal) =>
        refused(async (session) => (await session.link(wirePath(session.root, from), wirePath(session.root, to))) !== undefined, on),
      rmdir: (path: string, on: AbortSignal) => refused((session) => session.removeDir(wirePath(session.root, path)).then(() => true), on),
    };
    return tryOut(tried, dir, signal);
  }
}

/** False when nothing is there. Throws "conflict" and "changed". */
async function isEmpty(session: Session, path: string, wire: Buffer): Promise<boolean> {
  // Listed beside the look: what is no directory is refused.
  const listing = session.list(wire);
  listing.catch(() => undefined);
  const there = await session.lstat(wire);
  if (there === undefined) return false;
  const found: FileEntry = entryOf(path, there);
  expectMeant(found, "directory");
  const names = (await listing).map(({ name }) => name.toString("latin1"));
  if (names.some((name) => name !== "." && name !== "..")) throw new Fault("conflict", `${path} is not empty`);
  return true;
}
