/** A side of a mirror or two-way route over a device: its source to look and read, its target to bring contents, its tree for the rest. */
import { emptyDir } from "../empty-dir.js";
import type { Engine } from "../engine.js";
import { Fault, throwIfAborted } from "../errors.js";
import { goesOnAt } from "../go-on.js";
import type { Lane } from "../lane.js";
import type { Digest, DigestedReading, FileEntry, Memo, Reading, Source, Target, Tree, TreePromises, Upload } from "../plugin.js";
import { passing, readableOf, StreamReading } from "../reading.js";
import { parentOf } from "../reconcile.js";
import { isPartial, partialPath, type Rules } from "../route.js";
import type { Throttle } from "../throttle.js";
import type { Turns } from "../turns.js";
import type { Entry, Replica, Scan, Staging } from "./replica.js";

/** Below the route's directory on each side: marks and trash. Not listed, never sent. */
export const ownDir = ".filesync";
/** In it, by day. */
export const trashDir = "trash";
/** In it, by route: what a mirror has no place for yet. */
export const awayDir = "away";
/** What was written so short a time ago may be written again without a difference that shows: most servers tell times by the second. */
const recentMs = 2000;
/** So often a long listing lets others go on. */
const breathEvery = 1000;

export interface ReplicaGiven {
  readonly engine: Engine;
  readonly lane: Lane;
  /** Below the device's root; "" is the root itself. */
  readonly dir: string;
  readonly rules: Rules;
  /** The route's. */
  readonly throttle: Throttle;
  /** Files that its devices are given at once; what waits for the journal does not count. */
  readonly turns: () => Turns;
  /** Names the route, for its mark. */
  readonly route: string;
  /** As `status` names the route. */
  readonly title: string;
  /** Durable, by upload. */
  readonly memo: (upload: string) => Memo;
  /** false: it is only read, and any directory will do. */
  readonly marked: boolean;
  /** Listed too; below `dir`. Then nobody else writes what this route wrote. */
  readonly away?: string;
}

export class DeviceReplica implements Replica {
  readonly #source: Source;

  /** Throws Fault "config" where the device cannot be such a side. */
  constructor(readonly given: ReplicaGiven) {
    const { source, target, tree } = given.lane.device;
    if (source === undefined || (given.marked && (target === undefined || tree === undefined)))
      throw new Fault("config", `${given.lane.name} cannot be kept the same as another: its files can not be listed, written and moved`);
    this.#source = source;
  }

  get #target(): Target {
    const { target } = this.given.lane.device;
    if (target === undefined) throw new Error("it is only read");
    return target;
  }

  get #tree(): Tree {
    const { tree } = this.given.lane.device;
    if (tree === undefined) throw new Error("it is only read");
    return tree;
  }

  async scan(signal: AbortSignal): Promise<Scan> {
    const { dir, rules, engine, away } = this.given;
    const entries = new Map<string, Entry>();
    const unseen = new Map<string, string>();
    const settling = new Set<string>();
    // Of a directory that is not there yet nothing is seen, and it has no mark.
    if (dir !== "" && (await this.#tree.stat(dir, signal)) === undefined) return { entries, unseen, marked: false, settling: new Set() };
    const marked = await this.isMarked(signal);
    const nowMs = this.#source.now?.() ?? engine.clock.wallMs();
    const enter = (path: string) => {
      // On the way to the directory, or in it.
      if (dir !== "" && `${dir}/`.startsWith(`${path}/`)) return true;
      const below = this.#below(path);
      if (below === undefined) return false;
      if (below === ownDir || below.startsWith(`${ownDir}/`))
        return away !== undefined && `${away}/`.startsWith(`${below}/`) !== isBelow(below, away);
      return rules.enters(below);
    };
    let count = 0;
    for await (const found of this.#source.list(signal, { enter, directories: true })) {
      throwIfAborted(signal);
      if (++count % breathEvery === 0) await new Promise<void>((resolve) => setImmediate(resolve));
      const path = this.#below(found.path);
      if (path === undefined || path === "") {
        if (found.kind === "unreadable" && `${dir}/`.startsWith(`${found.path}/`)) unseen.set("", found.reason ?? "cannot be read");
        continue;
      }
      // Directories on the way to what was put away.
      if (path === ownDir || (path.startsWith(`${ownDir}/`) && !isBelow(path, away))) continue;
      if (found.kind === "unreadable") unseen.set(path, found.reason ?? "cannot be read");
      else this.#note({ entries, settling }, path, found, nowMs);
    }
    // Not every source gives its directories.
    for (const path of [...entries.keys(), ...settling])
      for (let at = parentOf(path); at !== "" && !entries.has(at); at = parentOf(at))
        if (!isBelow(at, ownDir)) entries.set(at, { kind: "directory", stamp: { size: 0 } });
    return { entries, unseen, settling, marked };
  }

  #note(to: { readonly entries: Map<string, Entry>; readonly settling: Set<string> }, path: string, found: FileEntry, nowMs: number): void {
    const { rules, lane, away } = this.given;
    const entry = this.#entryOf(found, nowMs);
    if (isBelow(path, away)) {
      to.entries.set(path, entry);
      return;
    }
    if (found.kind === "file" && (isPartial(path) || !rules.wants({ path, size: found.size }))) return;
    const ageMs = found.modifiedMs === undefined ? Infinity : nowMs - found.modifiedMs;
    // A time that is to come says nothing of that, and what this route wrote alone is whole.
    const isYoung = away === undefined && ageMs >= 0 && ageMs < lane.config.settleMs;
    if (found.kind === "file" && (found.settled === false || (found.settled === undefined && isYoung))) to.settling.add(path);
    else to.entries.set(path, entry);
  }

  async isMarked(signal: AbortSignal): Promise<boolean> {
    return !this.given.marked || (await this.#tree.stat(this.#mark, signal))?.kind === "directory";
  }

  mark(signal: AbortSignal): Promise<void> {
    return this.#tree.mkdir(this.#mark, signal);
  }

  get #mark(): string {
    return this.#at(`${ownDir}/${this.given.route}`);
  }

  /** What the device promises here, by trying. In the directory of this route's mark: what a kill left there is this route's, and taken away. */
  async tryOut(signal: AbortSignal): Promise<TreePromises> {
    if (await this.isMarked(signal)) await emptyDir(this.#tree, this.#mark, signal);
    return this.#tree.tryOut(this.#mark, signal);
  }

  /** Takes away what came to the trash before that day ("2026-05-01"); how many days' worth. */
  async expire(before: string, signal: AbortSignal): Promise<number> {
    const trash = this.#at(`${ownDir}/${trashDir}`);
    if ((await this.#tree.stat(trash, signal)) === undefined) return 0;
    let days = 0;
    for await (const { path, kind } of this.#tree.list(trash, signal)) {
      const day = path.slice(trash.length + 1);
      if (kind !== "directory" || !/^\d{4}-\d\d-\d\d$/.test(day) || day >= before) continue;
      await emptyDir(this.#tree, path, signal);
      await this.#tree.rmdir(path, signal);
      days += 1;
    }
    return days;
  }

  async stat(path: string, signal: AbortSignal): Promise<Entry | undefined> {
    const found = await this.#tree.stat(this.#at(path), signal);
    if (found === undefined) return undefined;
    if (found.kind === "unreadable") throw new Fault("rejected", `${path} is ${found.reason ?? "no plain file"}`);
    return this.#entryOf(found, this.#source.now?.() ?? this.given.engine.clock.wallMs());
  }

  async digest(path: string, { stamp }: Entry, signal: AbortSignal): Promise<Digest> {
    const reading = this.#read({ path: this.#at(path), kind: "file", ...stamp }, stamp.size, signal);
    try {
      for (let chunk = await reading.next(); chunk !== undefined; chunk = await reading.next()) chunk.release();
    } finally {
      reading.close();
    }
    return digestOf(reading);
  }

  mkdir(path: string, signal: AbortSignal): Promise<void> {
    return this.#tree.mkdir(this.#at(path), signal);
  }

  rmdir(path: string, signal: AbortSignal): Promise<void> {
    return this.#tree.rmdir(this.#at(path), signal);
  }

  take(path: string, to: string, entry: Entry, signal: AbortSignal): Promise<void> {
    return this.#tree.move(this.#at(path), this.#at(to), movable(entry), signal, { ours: true });
  }

  give(from: string, to: string, entry: Entry, signal: AbortSignal): Promise<void> {
    return this.#tree.move(this.#at(from), this.#at(to), movable(entry), signal);
  }

  async stage(staging: Staging, from: Replica, entry: Entry, signal: AbortSignal): Promise<Digest> {
    if (!(from instanceof DeviceReplica)) throw new TypeError("both sides are devices");
    return this.given.turns().run(signal, () => this.#stage(staging, from, entry, signal));
  }

  async #stage(staging: Staging, from: DeviceReplica, { stamp }: Entry, signal: AbortSignal): Promise<Digest> {
    const { engine, lane, throttle, title } = this.given;
    const other = from.given.lane;
    const entry: FileEntry = { path: from.#at(staging.path), kind: "file", ...stamp };
    const { features } = this.#target;
    const leave = await other.borrow(signal);
    const transfer = engine.transfers.begin(
      { id: staging.id, kind: "push", route: title, from: other.name, to: lane.name, path: staging.path, size: staging.size },
      0,
    );
    try {
      // What is sent only whole is known before.
      const known = features.needs === "stream" ? undefined : await from.digest(staging.path, { kind: "file", stamp }, signal);
      let last: DigestedReading | undefined;
      const chunks = (offset: number, reader: AbortSignal): Reading => {
        last = from.#read(entry, offset, reader);
        return passing(last, async ({ bytes }) => {
          await Promise.all([throttle.take(bytes.length, reader), lane.throttle.take(bytes.length, reader)]);
        });
      };
      const upload = this.#upload(staging, { sealed: known !== undefined, ...(known === undefined ? {} : { digest: known }) }, chunks);
      const offset = await goesOnAt(this.#target, upload, signal);
      if (offset < staging.size || staging.size === 0) {
        transfer.offset = offset;
        await this.#target.write(upload, offset, signal, (bytes) => {
          transfer.offset += bytes;
          engine.transfers.pushedBytes += bytes;
        });
      }
      // Where nothing was left to send, or the end was not read, nobody knows the whole.
      return known ?? last?.digest ?? (await from.digest(staging.path, { kind: "file", stamp }, signal));
    } finally {
      engine.transfers.end(transfer);
      leave();
    }
  }

  publish(staging: Staging, digest: Digest, signal: AbortSignal): Promise<Entry | undefined> {
    return this.given.turns().run(signal, () => this.#publish(staging, digest, signal));
  }

  async #publish(staging: Staging, digest: Digest, signal: AbortSignal): Promise<Entry | undefined> {
    const upload = this.#upload(staging, { sealed: true, digest }, () => {
      throw new Fault("conflict", "nothing is sent any more");
    });
    const done = await this.#target.commit(upload, signal);
    const shown = await this.stat(staging.path, signal);
    if (!("occupied" in done)) {
      if (shown?.kind !== "file") return undefined;
      // Somebody may have written it since: only what cannot be that is sure.
      const ours = shown.stamp.size === staging.size && !("recent" in shown);
      return ours || (await this.digest(staging.path, shown, signal)) === digest ? shown : undefined;
    }
    if (shown?.kind !== "file" || shown.stamp.size !== staging.size) return undefined;
    if ((done.digest ?? (await this.digest(staging.path, shown, signal))) !== digest) return undefined;
    await this.#target.discard(upload, signal);
    return shown;
  }

  async drop(staging: Staging, signal: AbortSignal): Promise<void> {
    const upload = this.#upload(staging, {}, () => {
      throw new Fault("conflict", "nothing is sent any more");
    });
    await this.#target.discard(upload, signal);
  }

  #upload(
    { id, path, size, modifiedMs }: Staging,
    more: Partial<Upload>,
    chunks: (offset: number, signal: AbortSignal) => Reading,
  ): Upload {
    const { engine, lane, memo } = this.given;
    const at = this.#at(path);
    return {
      ...{ id, path: at, size, sealed: false, expect: { kind: "absent" } },
      partialPath: partialPath(at, engine.names.installation, id),
      ...(modifiedMs === undefined ? {} : { modifiedMs }),
      ...(lane.throttle.rate === undefined ? {} : { maxRate: lane.throttle.rate }),
      memo: memo(id),
      read: (offset, signal) => readableOf(chunks(offset, signal)),
      chunks,
      ...more,
    };
  }

  #read(entry: FileEntry, offset: number, signal: AbortSignal): DigestedReading {
    const how = { digest: true, exact: true };
    const source = this.#source;
    return source.readInPlace?.(entry, offset, signal, how) ?? new StreamReading(source, entry, offset, signal, how);
  }

  #entryOf({ kind, size, modifiedMs, inode, identity }: FileEntry, nowMs: number): Entry {
    const named = identity === undefined ? {} : { identity };
    if (kind === "directory") return { kind, stamp: { size: 0 }, ...named };
    const recent = this.given.away === undefined && (modifiedMs === undefined || Math.abs(nowMs - modifiedMs) < recentMs);
    return {
      ...{ kind: "file", ...named },
      stamp: { size, ...(modifiedMs === undefined ? {} : { modifiedMs }), ...(inode === undefined ? {} : { inode }) },
      ...(recent ? { recent: true as const } : {}),
    };
  }

  #at(path: string): string {
    const { dir } = this.given;
    return dir === "" ? path : `${dir}/${path}`;
  }

  /** undefined: it is not below the route's directory. */
  #below(path: string): string | undefined {
    const { dir } = this.given;
    if (dir === "") return path;
    return path === dir ? "" : path.startsWith(`${dir}/`) ? path.slice(dir.length + 1) : undefined;
  }
}

const isBelow = (path: string, dir: string | undefined) => dir !== undefined && path.startsWith(`${dir}/`);
const movable = ({ kind, stamp }: Entry) => (kind === "directory" ? kind : stamp);

function digestOf({ digest }: DigestedReading): Digest {
  if (digest === undefined) throw new Fault("transient", "it ended before all of it was read");
  return digest;
}
