/**
 * Work with one device by hand: list, get, put, remove, make a directory, move; through the same plugin, link and login as everything else,
 * and not recorded in the journal. A person who waits goes before what the daemon would do next.
 */
import { suggestion } from "./config-problems.js";
import { ControlError, type ControlRequest, type Exchange } from "./control.js";
import { Fault, isFault, withDevice } from "./errors.js";
import type { Lane } from "./lane.js";
import { destination, lastOf, notThere, NotThere, pathOf, plainFile, textOf, treeOf } from "./hand-names.js";
import { get } from "./hand-get.js";
import { put, type PutHands } from "./hand-put.js";
import type { DigestKind, FileEntry, Source } from "./plugin.js";
import { plausible } from "./route.js";
import { shellWord } from "./text.js";

export const handCommands = ["ls", "stat", "get", "put", "rm", "mkdir", "mv"];

/** So long somebody waits without a word. */
const quietMs = 2000;

/** What hand commands need of the program around them. */
export interface Hands extends PutHands {
  readonly lanes: ReadonlyMap<string, Lane>;
}

/** What `stat` says of one file. */
export interface Found {
  readonly entry: FileEntry;
  /** What the source computes by itself. */
  readonly digests: readonly DigestKind[];
}

/** Throws ControlError for a mistake, Fault for what the device says. */
export async function byHand(hands: Hands, request: ControlRequest, exchange: Exchange): Promise<unknown> {
  const name = textOf(request, "device");
  const lane = hands.lanes.get(name);
  if (lane === undefined) {
    const names = [...hands.lanes.keys()];
    throw new ControlError(`there is no device "${name}"${suggestion(name, names)}; there are: ${names.join(", ")}`);
  }
  const over = new AbortController();
  try {
    const telling = tellWait(hands, lane, exchange, over.signal);
    return await lane.host(exchange.signal, (signal) => work(hands, lane, request, { ...telling, signal }));
  } catch (error) {
    if (isFault(error)) throw withDevice(name, error);
    // As it stands on the device itself.
    if (error instanceof NotThere && String(request.path).startsWith("/"))
      throw error.near
        ? error.fromTop()
        : new ControlError(`${error.message}: a path begins below the root of ${name}; "filesync ls ${name}:" lists what is there`);
    throw error;
  } finally {
    over.abort();
  }
}

/** A device that says nothing for a while, beside a transfer: who waits is told, once, that it may be because of that. */
function tellWait(hands: Hands, lane: Lane, exchange: Exchange, over: AbortSignal): Exchange {
  let heard = false;
  // Before its own work begins, which is none of the daemon's.
  const running = lane.busy + hands.sending(lane.name);
  const wait = async () => {
    await lane.clock.sleep(quietMs, over);
    if (heard || running === 0) return;
    const which = running === 1 ? "a transfer of the daemon runs" : `${running} transfers of the daemon run`;
    exchange.say({ waiting: `${lane.name} does not answer yet: ${which} there, and it may let in no more connections` });
  };
  wait().catch((error: unknown) => {
    if (!isFault(error, "aborted")) throw error;
  });
  return {
    ...exchange,
    say: (fact) => {
      heard = true;
      exchange.say(fact);
    },
    give: (bytes) => {
      heard = true;
      return exchange.give(bytes);
    },
  };
}

async function work(hands: Hands, lane: Lane, request: ControlRequest, exchange: Exchange): Promise<unknown> {
  const { signal } = exchange;
  if (!lane.attached) await lane.lookNow(signal);
  const path = pathOf(request, "path");
  switch (request.command) {
    case "ls":
      return await list(lane, path, request.recursive === true, exchange);
    case "stat":
      return await found(lane, path, signal);
    case "get":
      return await get(lane, request.entry as FileEntry, Number(request.offset), exchange);
    case "put":
      return await put(hands, lane, request, exchange);
    case "rm": {
      const entry = await plainFile(treeOf(lane), lane, path, signal);
      await treeOf(lane).remove(path, entry, signal);
      return entry;
    }
    case "mkdir":
      await treeOf(lane).mkdir(path, signal);
      return undefined;
    case "mv": {
      const tree = treeOf(lane);
      const entry = await plainFile(tree, lane, path, signal);
      const into = await destination(request, "to", lastOf(path), tree, signal);
      await tree.move(path, into, entry, signal);
      return { path: into };
    }
    default:
      throw new ControlError(`this FileSync does not know "${request.command}": if a daemon of another version runs, restart it`);
  }
}

async function list(lane: Lane, path: string, recursive: boolean, { say, signal }: Exchange): Promise<{ count: number }> {
  let count = 0;
  for await (const entry of entriesIn(lane, path, recursive, signal)) {
    count += 1;
    say(entry);
  }
  return { count };
}

/** What is in a directory, or the file itself. */
async function* entriesIn(lane: Lane, path: string, recursive: boolean, signal: AbortSignal): AsyncGenerator<FileEntry> {
  const { tree, source } = lane.device;
  if (tree === undefined) {
    if (source === undefined) throw new ControlError(`${lane.name} can only be written to: it cannot be listed`);
    yield* withoutTree(lane, source, path, recursive, signal);
    return;
  }
  const there = path === "" ? undefined : await tree.stat(path, signal);
  if (there?.kind === "file") {
    yield there;
    return;
  }
  if (path !== "" && there === undefined) throw await notThere(lane, path, signal);
  const dirs = [path];
  for (let dir = dirs.pop(); dir !== undefined; dir = dirs.pop())
    try {
      for await (const entry of tree.list(dir, signal)) {
        yield entry;
        if (recursive && entry.kind === "directory") dirs.push(entry.path);
      }
    } catch (error) {
      // One directory that cannot be read costs only itself.
      if (dir === path || !isFault(error) || !["missing", "denied", "transient"].includes(error.kind)) throw error;
      yield { path: dir, kind: "unreadable", size: 0, reason: error.message };
    }
}

/** By the source's own listing: only the directories on the way are entered. */
async function* withoutTree(lane: Lane, source: Source, path: string, recursive: boolean, signal: AbortSignal): AsyncGenerator<FileEntry> {
  const below = path === "" ? "" : `${path}/`;
  const dirs = new Set<string>();
  let there = path === "";
  const enter = (dir: string) => {
    if (dir === path) there = true;
    if (dir.startsWith(below) && dir !== path) dirs.add(dir);
    return path === dir || path.startsWith(`${dir}/`) || (recursive && dir.startsWith(below));
  };
  const files: FileEntry[] = [];
  for await (const entry of source.list(signal, { enter })) if (entry.path.startsWith(below) || entry.path === path) files.push(entry);
  if (!there && files.length === 0) throw await notThere(lane, path, signal);
  for (const dir of dirs) if (recursive || !dir.slice(below.length).includes("/")) yield { path: dir, kind: "directory", size: 0 };
  yield* files;
}

/** A file to be read; "latest" is the newest log, or file where there are no logs. */
async function found(lane: Lane, path: string, signal: AbortSignal): Promise<Found> {
  const { source } = lane.device;
  if (source === undefined) throw new ControlError(`${lane.name} can only be written to: nothing can be read from it`);
  if (path === "")
    throw new ControlError(
      `${lane.name} alone names no file: ${lane.name}:PATH does, and ${lane.name}:latest is the newest log; "filesync ls ${lane.name}:" lists what is there`,
    );
  let entry = await source.stat(path, signal);
  if (entry === undefined && path === "latest") {
    const files: FileEntry[] = [];
    for await (const file of source.list(signal)) if (file.kind === "file") files.push(file);
    entry = newest(files);
    if (entry === undefined) throw new ControlError(`${lane.name} has no file`);
  }
  if (entry === undefined) throw await notThere(lane, path, signal);
  if (entry.kind === "directory")
    throw new ControlError(`${lane.name}:${path} is a directory; "filesync ls ${shellWord(`${lane.name}:${path}`)}" lists it`);
  if (entry.kind === "unreadable") throw new Fault("denied", `${path}: ${entry.reason ?? "it cannot be read"}`);
  return { entry, digests: source.features.digests };
}

const logs = /\.(ulg|bin|tlog|log)$/i;

/** By time where there are times, else by name, numbers as numbers. Logs go before other files. */
export function newest(files: readonly FileEntry[]): FileEntry | undefined {
  const logFiles = files.filter(({ path }) => logs.test(path));
  const candidates = logFiles.length > 0 ? logFiles : files;
  const timed = candidates.filter(({ modifiedMs }) => plausible(modifiedMs) !== undefined);
  const byName = new Intl.Collator("en", { numeric: true });
  return (timed.length > 0 ? timed : [...candidates]).sort(
    (a, b) => (timed.length > 0 ? (b.modifiedMs ?? 0) - (a.modifiedMs ?? 0) : 0) || byName.compare(b.path, a.path),
  )[0];
}
