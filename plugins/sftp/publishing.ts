/** Steps of giving a file its name, and what a failure on the way means. */
import { randomInt } from "node:crypto";
import { Fault } from "../../core/errors.js";
import { isAbsent, isRefusal, Status } from "./faults.js";
import { parentOf } from "../../core/wire-path.js";
import type { Attributes, Session } from "./session.js";

/** A disk with less than this has no room for a partial to go on. */
const roomBytes = 2 ** 20;

/** A refusal changes nothing; a connection that broke does. */
export function ifRefused(error: unknown): undefined {
  if (!isRefusal(error)) throw error;
  return undefined;
}

/** Another name may be in another directory than the partial's. */
export async function publish(session: Session, partial: Buffer, name: Buffer): Promise<boolean> {
  try {
    return await session.publish(partial, name);
  } catch (error) {
    if (!isAbsent(error)) throw await orFull(session, partial, error);
    await makeDirsDurable(session, parentOf(name));
    return session.publish(partial, name);
  }
}

/** New names are durable, where the server can sync. */
export async function makeDirsDurable(session: Session, dir: Buffer): Promise<void> {
  await Promise.all((await session.makeDirs(dir)).map((it) => session.syncs.dir(parentOf(it))));
}

/** A hard link whose answer was lost leaves one file under both names: it is known by its time. */
export async function isSameFile(
  session: Session,
  partial: Buffer,
  name: Buffer,
  there: Attributes,
  other: Attributes,
  modifiedMs: number | undefined,
): Promise<boolean> {
  if (other.kind !== "file" || other.size !== there.size) return false;
  const mark = randomInt(1, 2 ** 30) * 1000;
  await session.setTime(partial, mark).catch(ifRefused);
  const same = (await session.lstat(name))?.modifiedMs === mark;
  const before = modifiedMs ?? there.modifiedMs;
  if (before !== undefined) await session.setTime(partial, before).catch(ifRefused);
  return same;
}

export async function opened<T>(session: Session, path: Buffer, flags: number, work: (handle: Buffer) => Promise<T>): Promise<T> {
  const handle = await session.open(path, flags);
  try {
    return await work(handle);
  } finally {
    await session.close(handle).catch(() => undefined);
  }
}

/** Version 3 has no code for a full disk: the file system is asked. */
export async function orFull(session: Session, path: Buffer, error: unknown): Promise<unknown> {
  if (!isRefusal(error, Status.failure)) return error;
  const space = await session.space(path).catch(() => undefined);
  if (space === undefined) return error;
  if (space.freeBytes < roomBytes) return new Fault("full", "no space is left at the server", { cause: error });
  if (space.files > 0 && space.freeFiles === 0) return new Fault("full", "the server's disk can hold no more files", { cause: error });
  return error;
}
