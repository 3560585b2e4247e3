/**
 * Work with one device by hand: list, get, put, remove, make a directory, move; through the same plugin, link and login as everything else,
 * and not recorded in the journal. A person who waits goes before what the daemon would do next.
 */
import { createHash } from "node:crypto";
import { firstValueFrom, fromEvent, type Observable, race, take } from "rxjs";
import { suggestion } from "./config-problems.js";
import { ControlError, type ControlRequest, type Exchange } from "./control.js";
import { Fault, isFault, throwIfAborted } from "./errors.js";
import type { Lane } from "./lane.js";
import { isSafePath } from "./names.js";
import type { Device, Digest, DigestKind, FileEntry, Occupant, Reading, Receipt, Source, Tree, Upload } from "./plugin.js";
import { readableOf, readingOf } from "./reading.js";
import { reasonOf } from "./retry.js";
import { partialPath, plausible } from "./route.js";

export const handCommands = ["ls", "stat", "get", "put", "rm", "mkdir", "mv"];

/** So long somebody waits without a word. */
const quietMs = 2000;

/** What hand commands need of the program around them. */
export interface Hands {
  readonly lanes: ReadonlyMap<string, Lane>;
  readonly installation: string;
  /** Deliveries that are on their way to a device now. */
  sending(device: string): number;
  /** Emits when one of them has ended. */
  readonly work$: Observable<unknown>;
}

/** What `stat` says of one file. */
export interface Found {
  readonly entry: FileEntry;
  /** What the source computes by itself. */
  readonly digests: readonly DigestKind[];
}

export interface Put {
  readonly receipt: Receipt;
  readonly replaced: boolean;
}

/** Nothing is at the path. */
class NotThere extends ControlError {
  readonly near: boolean;

  /** `names` of what is around it. */
  constructor(
    readonly device: string,
    readonly path: string,
    readonly names: readonly string[] = [],
  ) {
    const near = suggestion(path, names);
    super(`there is no ${device}:${path}${near}`);
    this.near = near !== "";
  }

  /** As it was written, from the top. */
  fromTop(): NotThere {
    const top = (path: string) => `/${path}`;
    return new NotThere(this.device, top(this.path), this.names.map(top));
  }
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
    if (isFault(error)) throw new Fault(error.kind, `${name}: ${error.message}`, { cause: error });
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
      return await put(hands, lane, path, request, exchange);
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
      const wanted = pathOf(request, "to");
      const into = wanted !== "" && (await tree.stat(wanted, signal))?.kind !== "directory" ? wanted : joined(wanted, lastOf(path));
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
    throw new ControlError(`${lane.name}:${path} is a directory; "filesync ls ${lane.name}:${path}" lists it`);
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

/** The bytes from `offset`; answers the source's digest, where it has one. */
async function get(lane: Lane, entry: FileEntry, offset: number, exchange: Exchange): Promise<{ digest?: Digest }> {
  const { signal } = exchange;
  const { source } = lane.device;
  if (source === undefined) throw new ControlError(`${lane.name} can only be written to: nothing can be read from it`);
  if (!isSafePath(entry.path)) throw new ControlError(`"${entry.path}" leads out of the device's root`);
  if (!lane.free) exchange.say({ waiting: `another transfer from ${lane.name} makes way` });
  const leave = await lane.borrow(signal, true);
  let told: string | undefined;
  const tellWay = () => {
    const way = source.wayOfReading;
    if (way === undefined || `${way.name}: ${way.why}` === told) return;
    told = `${way.name}: ${way.why}`;
    exchange.say({ way });
  };
  try {
    for await (const chunk of await source.open(entry, offset, signal)) {
      throwIfAborted(signal);
      tellWay();
      await lane.throttle.take((chunk as Buffer).length, signal);
      await exchange.give(chunk as Buffer);
    }
    if (offset < entry.size) tellWay();
    const now = await source.stat(entry.path, signal);
    if (now === undefined) throw new Fault("missing", `${entry.path} has gone while it was read`);
    if (now.size < entry.size || (now.size === entry.size && now.modifiedMs !== entry.modifiedMs))
      throw new Fault("changed", `${entry.path} was changed while it was read`);
    const kind = source.features.digests[0];
    const digest = kind === undefined ? undefined : await source.digest?.(entry, kind, signal);
    return digest === undefined ? {} : { digest };
  } finally {
    leave();
  }
}

/** As a delivery goes: a partial name, verified, published, never over another file unless `force`. */
async function put(hands: Hands, lane: Lane, path: string, request: ControlRequest, exchange: Exchange): Promise<Put> {
  const { signal } = exchange;
  const { target, tree } = lane.device;
  if (target === undefined || target.features.singleShot || target.features.needs === "sealedPath")
    throw new ControlError(`nothing can be put on ${lane.name} by hand${withheldText(lane) ?? ` (${lane.config.type})`}`);
  const dir = path === "" || String(request.path).endsWith("/") || (await tree?.stat(path, signal))?.kind === "directory";
  const at = dir ? joined(path, textOf(request, "name")) : path;
  if (!isSafePath(at)) throw new ControlError(`"${at}" leads out of the device's root`);
  const size = Number(request.size);
  const digest = textOf(request, "digest") as Digest;
  const id = createHash("sha256").update(`hand\0${lane.name}\0${at}\0${digest}`).digest("hex").slice(0, 16);
  const memo = new Map<string, unknown>();
  const chunks = (offset: number): Reading => {
    exchange.say({ offset });
    return readingOf(throttled(lane, exchange));
  };
  const upload: Upload = {
    id,
    path: at,
    partialPath: partialPath(at, hands.installation, id),
    size,
    ...(typeof request.modifiedMs === "number" ? { modifiedMs: request.modifiedMs } : {}),
    expect: { kind: "absent" },
    sealed: true,
    digest,
    memo: { get: (key) => memo.get(key), set: (key, value) => Promise.resolve(void memo.set(key, value)) },
    read: (offset) => readableOf(chunks(offset)),
    chunks,
  };
  const taken = (there: Occupant) => {
    const how =
      there.size === size && there.digest === undefined
        ? `with the same size (${lane.name} cannot tell its content)`
        : "with another content";
    return new ControlError(`${lane.name}:${at} is there already, ${how}; --force replaces it`);
  };
  const leave = await placeAt(hands, lane, exchange);
  try {
    const there = await target.look?.(upload, signal);
    if (there !== undefined && there.digest === digest && there.size === size) return { receipt: receiptOf(at, there), replaced: false };
    if (there !== undefined && request.force !== true) throw taken(there);
    let offset = await target.offset(upload, signal);
    if (offset > size || (offset > 0 && offset < size && !target.features.resume)) {
      await target.discard(upload, signal);
      offset = 0;
    }
    if (offset < size || size === 0) await target.write(upload, offset, signal, () => undefined);
    throwIfAborted(signal);
    let done = await target.commit(upload, signal);
    let replaced = false;
    if ("occupied" in done) {
      if (done.digest === digest && done.size === size) {
        await target.discard(upload, signal);
        return { receipt: receiptOf(at, done), replaced };
      }
      if (request.force !== true) throw taken(done);
      const old = await plainFile(treeOf(lane), lane, at, signal);
      await treeOf(lane).remove(at, old, signal);
      replaced = true;
      done = await target.commit(upload, signal);
    }
    if ("occupied" in done) throw taken(done);
    return { receipt: done, replaced };
  } catch (error) {
    // It will never be taken under this name: nothing is left there for a next try. Why not is told, rather than that something could not be taken away.
    if (isFault(error, "rejected")) await target.discard(upload, signal).catch(() => undefined);
    throw error;
  } finally {
    leave();
  }
}

async function* throttled(lane: Lane, { take: bytes, signal }: Exchange): AsyncGenerator<Buffer> {
  for await (const chunk of bytes()) {
    await lane.throttle.take(chunk.length, signal);
    yield chunk;
  }
}

function receiptOf(path: string, there: Occupant): Receipt {
  return {
    path,
    size: there.size,
    proof: there.proof ?? "size",
    answer: "was there already",
    ...(there.digest === undefined ? {} : { digest: there.digest }),
  };
}

/** A place among the uploads; what gives it back. */
async function placeAt(hands: Hands, lane: Lane, { say, signal }: Exchange): Promise<() => void> {
  const leave = lane.invite();
  try {
    if (hands.sending(lane.name) > lane.slots("target")) say({ waiting: `another transfer to ${lane.name} ends first` });
    while (hands.sending(lane.name) > lane.slots("target"))
      await firstValueFrom(race(hands.work$, fromEvent(signal, "abort")).pipe(take(1)));
    throwIfAborted(signal);
    return leave;
  } catch (error) {
    leave();
    throw error;
  }
}

async function plainFile(tree: Tree, lane: Lane, path: string, signal: AbortSignal): Promise<FileEntry> {
  if (path === "") throw new ControlError(`${lane.name} alone names no file: ${lane.name}:PATH does`);
  const entry = await tree.stat(path, signal);
  if (entry === undefined) throw await notThere(lane, path, signal);
  if (entry.kind !== "file")
    throw new ControlError(
      `${lane.name}:${path} is ${entry.kind === "directory" ? "a directory" : "no plain file"}: only files are moved and removed`,
    );
  return entry;
}

function treeOf(lane: Lane): Tree {
  const { tree } = lane.device;
  if (tree === undefined)
    throw new ControlError(
      `${lane.name} cannot be changed by hand${withheldText(lane) ?? `: a device of type "${lane.config.type}" is only ${onlyText(lane.device)}`}`,
    );
  return tree;
}

/** Why it is no target as it is configured, though it could be. */
function withheldText({ config }: Lane): string | undefined {
  const why = config.plugin.withheld?.(config.options).target;
  return why === undefined ? undefined : `: ${why}`;
}

function onlyText(device: Device): string {
  return device.target === undefined ? "read" : device.source === undefined ? "written to" : "read and written to";
}

/** With the nearest name beside it. */
async function notThere(lane: Lane, path: string, signal: AbortSignal): Promise<ControlError> {
  const dir = path.slice(0, Math.max(0, path.lastIndexOf("/")));
  const names: string[] = [];
  const { tree, source } = lane.device;
  const enter = (other: string) => {
    names.push(other);
    return dir === other || dir.startsWith(`${other}/`);
  };
  try {
    for await (const entry of tree?.list(dir, signal) ?? source?.list(signal, { enter }) ?? []) names.push(entry.path);
  } catch (error) {
    if (isFault(error, "missing")) return new NotThere(lane.name, path);
    return new ControlError(`there is no ${lane.name}:${path} (${reasonOf(error)})`);
  }
  return new NotThere(lane.name, path, names);
}

function textOf(request: ControlRequest, key: string): string {
  const value = request[key];
  if (typeof value !== "string") throw new ControlError(`"${key}" is missing`);
  return value;
}

/** Below the device's root; "" is the root, and so is ".". */
function pathOf(request: ControlRequest, key: string): string {
  const given = typeof request[key] === "string" ? request[key] : "";
  const parts = given.split("/").filter((part) => part !== "" && part !== ".");
  const path = parts.join("/");
  if (path !== "" && !isSafePath(path)) throw new ControlError(`"${given}" leads out of the device's root`);
  return path;
}

function joined(dir: string, name: string): string {
  return dir === "" ? name : `${dir}/${name}`;
}

function lastOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
