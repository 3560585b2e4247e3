/** A side of a mirror or two-way route over a device: its source to look and read, its target to bring contents, its tree for the rest. */
import { isDeepStrictEqual } from "node:util";
import { within } from "../budget.js";
import type { Engine } from "../engine.js";
import { Fault, isFault, orAborted, throwIfAborted, withDevice } from "../errors.js";
import { isShort, leastSpliced } from "../go-on.js";
import type { Folding } from "../folded.js";
import type { Lane } from "../lane.js";
import { overBudget } from "../limits.js";
import { isAsWritten } from "../names.js";
import { isRunning, parentOf } from "../paths.js";
import type {
  Digest,
  DigestedReading,
  FileEntry,
  Level,
  LookOptions,
  Memo,
  Reading,
  Source,
  Target,
  Tree,
  TreePromises,
  Upload,
} from "../plugin.js";
import { readableOf, StreamReading } from "../reading.js";
import { reasonOf } from "../retry.js";
import { isPartial, ownDir, partialPath, type Rules } from "../route.js";
import { sizeText } from "../text.js";
import { paced, type Throttle } from "../throttle.js";
import type { Turns } from "../turns.js";
import { looksAs, type Names } from "./carry.js";
import type { ChunkIndex } from "./chunk-index.js";
import { valueAbove } from "./held.js";
import { HeldMoves } from "./held-moves.js";
import { Lock } from "./lock.js";
import { OwnDir, type OwnDirGiven, trashDir } from "./own-dir.js";
import { Refusals } from "./refusals.js";
import { type Begun, type Earlier, type Entry, type Held, notRead, type Replica, type Scan, type Staging } from "./replica.js";
import { discardWrong, type Old, Sending, withSplicing } from "./sending.js";
import { SideClock, type Span } from "./side-clock.js";

/** What was written so short a time ago may be written again without a difference that shows: most servers tell times by the second. */
const recentMs = 2000;
/** Whether less than that has room is seen by sending it. */
const largeBytes = 2 ** 20;
/** In the memo of an upload: what is ready. */
const readyKey = "ready";
const notAsWritten = "in its name the sign ‛ (U+201B) stands otherwise than this program writes it: on a disk it would be another name";
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
  /** As it was agreed. */
  readonly agreed: (path: string) => Entry | undefined;
  /** Files that come to it at once; what waits for the journal does not count. */
  readonly turns: () => Turns;
  /** Names the route, for what is its own at the device. */
  readonly route: string;
  /** As `status` names the route. */
  readonly title: string;
  readonly mark: OwnDirGiven["mark"];
  /** Durable, by upload. */
  readonly memo: (upload: string) => Memo;
  /** Of what is brought there; absent: what is brought is not compared with what was there. */
  readonly chunks?: ChunkIndex;
  /** false: it is only read, and any directory will do. */
  readonly marked: boolean;
  /** Where others write too. */
  readonly names?: Pick<Names, "conflict" | "intent">;
  /** Listed too; below `dir`. Then nobody else writes what this route wrote. */
  readonly away?: string;
}

export class DeviceReplica implements Replica {
  readonly own: OwnDir;
  readonly #source: Source;
  readonly #clock: SideClock;
  readonly #held: HeldMoves | undefined;
  /** Bytes that are on their way to it. */
  #underWay = 0;
  /** Of those what its budget is kept for: they are being sent. */
  #promised = 0;
  /** Where other file systems begin in it, by directory, as it was listed last. */
  #volumes: ReadonlyMap<string, string> = new Map();
  /** By staging, what was read of the other side and got no name yet: however often that is refused, it is read once. */
  readonly #wholes = new Map<string, { readonly of: Entry; readonly digest: Digest }>();
  readonly #refusals: Refusals;
  /** Without turns clients would take one another's files away there, as it was tried out. */
  takesTurns = false;
  readonly #named = (error: unknown): never => {
    throw withDevice(this.given.lane.name, error);
  };

  /** Throws Fault "config" where the device cannot be such a side. */
  constructor(readonly given: ReplicaGiven) {
    const { source, target, tree } = given.lane.device;
    if (source === undefined || (given.marked && (target === undefined || tree === undefined)))
      throw new Fault("config", `${given.lane.name} cannot be kept the same as another: its files can not be listed, written and moved`);
    this.#source = source;
    this.#clock = new SideClock(source, given.engine.clock);
    this.#refusals = new Refusals(given.engine.clock, () => given.lane.state.epoch);
    this.own = new OwnDir({
      device: given.lane.name,
      tree: () => this.#tree,
      target: () => this.#target,
      at: (path) => this.#at(path),
      route: given.route,
      mark: given.mark,
    });
    if (tree !== undefined && given.names !== undefined) this.#held = heldMoves(given, given.names, tree, this.own);
  }

  /** What it promises, by trying, and its clock. No path that a person knows tells where that fails: the device does, as of `mark`. */
  async tryOut(signal: AbortSignal): Promise<TreePromises> {
    const promises = await this.own.tryOut(signal).catch(this.#named);
    await this.#readClock(signal);
    return promises;
  }

  /** Before a round: reads its clock once more, where that may have been set since. */
  async lookAtClock(signal: AbortSignal): Promise<void> {
    if (!this.#clock.isOld) return;
    await this.#readClock(signal).catch((error: unknown) => {
      // It was read before: without room there, or where nothing may be made now, that counts.
      if (!isFault(error, "full", "denied", "rejected")) throw error;
    });
  }

  #readClock(signal: AbortSignal): Promise<void> {
    return this.#clock.read(() => this.own.shownMs(signal)).catch(this.#named);
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
    const { dir, rules, away } = this.given;
    this.#clock.begins();
    const entries = new Map<string, Entry>();
    const unseen = new Map<string, string>();
    const settling = new Set<string>();
    const others = new Set<string>();
    const volumes = new Map<string, string>();
    // Of a directory that is not there yet nothing is seen, and it has no mark.
    if (dir !== "" && (await this.#tree.stat(dir, signal)) === undefined) return { entries, unseen, marked: false, settling: new Set() };
    const marked = await this.isMarked(signal);
    const folds = marked ? await this.folds(signal) : undefined;
    const now = this.#clock.now();
    const enter = (path: string) => {
      // On the way to the directory, or in it.
      if (dir !== "" && `${dir}/`.startsWith(`${path}/`)) return true;
      const below = this.#below(path);
      if (below === undefined) return false;
      if (below === ownDir || below.startsWith(`${ownDir}/`))
        return away !== undefined && `${away}/`.startsWith(`${below}/`) !== isBelow(below, away);
      const enters = rules.enters(below);
      if (!enters) others.add(parentOf(below));
      return enters;
    };
    let count = 0;
    for await (const found of this.#source.list(signal, { enter, directories: true, ...this.#looks })) {
      throwIfAborted(signal);
      if (++count % breathEvery === 0) await new Promise<void>((resolve) => setImmediate(resolve));
      const path = this.#below(found.path);
      if (path === undefined || path === "") {
        if (found.kind === "unreadable" && `${dir}/`.startsWith(`${found.path}/`)) unseen.set("", found.reason ?? "cannot be read");
        continue;
      }
      // Directories on the way to what was put away.
      if (path === ownDir || (path.startsWith(`${ownDir}/`) && !isBelow(path, away))) continue;
      if (!isAsWritten(path)) {
        others.add(parentOf(path));
        if (rules.enters(path) && isAsWritten(parentOf(path))) unseen.set(path, notAsWritten);
      } else if (found.kind === "unreadable") {
        // Left out on both sides, whatever it is.
        if (rules.enters(path)) unseen.set(path, found.reason ?? "cannot be read");
        else others.add(parentOf(path));
      } else {
        if (found.volume !== undefined) volumes.set(path, found.volume);
        this.#note({ entries, settling, others, volumes }, path, found, now);
      }
    }
    this.#volumes = volumes;
    // Not every source gives its directories.
    for (const path of [...entries.keys(), ...settling])
      for (let at = parentOf(path); at !== "" && !entries.has(at); at = parentOf(at))
        if (!isBelow(at, ownDir)) entries.set(at, { kind: "directory", stamp: { size: 0 } });
    return { entries, unseen, settling, others, marked, folds };
  }

  #note(
    to: {
      readonly entries: Map<string, Entry>;
      readonly settling: Set<string>;
      readonly others: Set<string>;
      readonly volumes: ReadonlyMap<string, string>;
    },
    path: string,
    found: FileEntry,
    now: Span,
  ): void {
    const { rules, lane, away } = this.given;
    // A listing may take long.
    const { leastMs } = now;
    const { mostMs } = this.#clock.now();
    const entry = this.#entryOf(path, found, { leastMs, mostMs }, to.volumes);
    if (isBelow(path, away)) {
      to.entries.set(path, entry);
      return;
    }
    if (found.kind === "file" && isPartial(path)) return;
    // A side that lists none (`local`) would have lost what came from one that does.
    if (found.kind === "file" && (isRunning(path) || !rules.wants({ path, size: found.size }))) {
      to.others.add(parentOf(path));
      return;
    }
    const { modifiedMs = -Infinity } = found;
    const isFresh = modifiedMs <= mostMs && modifiedMs > leastMs - lane.config.settleMs;
    // A time that is to come says nothing of that, if it is; what this route brought is whole, and so is all of what it wrote alone.
    const agreed = this.given.agreed(path);
    const isOurs = away !== undefined || (agreed !== undefined && looksAs(entry, agreed));
    const isYoung = !isOurs && (isFresh || this.#clock.doubts(path, modifiedMs));
    if (found.kind === "file" && (found.settled === false || (found.settled === undefined && isYoung))) to.settling.add(path);
    else to.entries.set(path, entry);
  }

  usable(signal: AbortSignal): Promise<boolean> {
    return this.given.lane.usable(signal);
  }

  async isMarked(signal: AbortSignal): Promise<boolean> {
    return !this.given.marked || (await this.own.isMarked(signal));
  }

  async isStill(signal: AbortSignal): Promise<boolean> {
    return !this.given.marked || (await this.own.isStill(signal));
  }

  /** As `OwnDir.marks`. What is only read may have none that can be seen. */
  async marks(signal: AbortSignal): Promise<ReadonlySet<string>> {
    if (this.given.marked) return this.own.marks(signal);
    if (this.given.lane.device.tree === undefined) return new Set();
    return this.own.marks(signal).catch((error: unknown) => {
      if (!isFault(error, "denied", "rejected", "unreadable")) throw error;
      return new Set<string>();
    });
  }

  mark(signal: AbortSignal): Promise<void> {
    return this.own.mark(signal).catch(this.#named);
  }

  /** What is only read may be as it likes. */
  async folds(signal: AbortSignal): Promise<Folding | undefined> {
    return this.given.marked ? this.own.folds(signal) : undefined;
  }

  async stat(path: string, signal: AbortSignal, how?: Pick<LookOptions, "file">): Promise<Entry | undefined> {
    const found = await this.#tree.stat(this.#at(path), signal, { ...this.#looks, ...how });
    if (found === undefined) return undefined;
    if (found.kind === "unreadable") throw new Fault("rejected", `${path} is ${found.reason ?? "no plain file"}`);
    return this.#entryOf(path, found, this.#clock.now());
  }

  digest(path: string, { stamp }: Entry, signal: AbortSignal): Promise<Digest> {
    return this.#digestOf({ path: this.#at(path), kind: "file", ...stamp }, signal);
  }

  async #digestOf(entry: FileEntry, signal: AbortSignal): Promise<Digest> {
    const reading = this.#read(entry, entry.size, signal);
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
    return (this.#inTurn ?? this.#tree).rmdir(this.#at(path), signal);
  }

  take(path: string, to: string, entry: Entry, signal: AbortSignal): Promise<void> {
    const [from, trash, expect] = [this.#at(path), this.#at(to), movable(entry)];
    return this.#inTurn?.take(from, trash, expect, signal) ?? this.#tree.move(from, trash, expect, signal, { ours: true });
  }

  give(from: string, to: string, entry: Entry, signal: AbortSignal): Promise<void> {
    const [old, name, expect] = [this.#at(from), this.#at(to), movable(entry)];
    return this.#inTurn?.give(old, name, expect, signal) ?? this.#tree.move(old, name, expect, signal);
  }

  get #inTurn(): HeldMoves | undefined {
    return this.takesTurns ? this.#held : undefined;
  }

  get untidy(): boolean {
    return this.#held?.untidy === true;
  }

  /** As `Lock.waitsSinceMs`. */
  get waitsSinceMs(): number | undefined {
    return this.#held?.waitsSinceMs;
  }

  async tidy({ trash, staged, dirs }: Begun, signal: AbortSignal): Promise<ReadonlyMap<string, Fault>> {
    const own = new Map([
      ...[...trash, ...dirs].map((path) => [this.#at(path), path] as const),
      ...staged.map(({ id, path }) => [this.own.staged(id), path] as const),
    ]);
    const stuck = (await this.#held?.tidy(own.keys(), signal)) ?? new Map<string, Fault>();
    return new Map([...stuck].map(([at, error]) => [own.get(at) ?? this.#below(at) ?? at, error]));
  }

  /** A person says that what was refused may be taken by now. */
  retry(): void {
    this.#refusals.forgetAll();
  }

  /** Others get their turn. */
  rest(signal: AbortSignal): Promise<void> {
    return this.#held?.rest(signal) ?? Promise.resolve();
  }

  async sync(path: string, size: number, signal: AbortSignal): Promise<void> {
    const synced = this.given.lane.device.tree?.sync?.(this.#at(path), size, signal);
    // A slow medium may take minutes for what it was begun with.
    if (synced !== undefined) await orAborted(synced, signal);
  }

  async stage(staging: Staging, from: Replica, entry: Entry, held: Held, signal: AbortSignal): Promise<Digest> {
    const digest = await this.given.turns().run(signal, () => this.#stage(staging, expectDevice(from), entry, held, signal), staging.size);
    this.given.lane.noteSuccess();
    return digest;
  }

  async #stage(staging: Staging, from: DeviceReplica, listed: Entry, { begun, old, reads }: Held, signal: AbortSignal): Promise<Digest> {
    const { stamp } = listed;
    const { engine, lane, throttle, title, chunks: index } = this.given;
    const { path, size, id } = staging;
    const other = from.given.lane;
    const entry: FileEntry = { path: from.#at(path), kind: "file", ...stamp };
    const target = this.#target;
    const { needs, splices } = target.features;
    this.#refusals.expectNone(id);
    if (!begun) this.#expectBudget(size);
    const leave = await other.borrow(signal);
    reads();
    const transfer = engine.transfers.begin({ id, kind: "push", route: title, from: other.name, to: lane.name, path, size }, 0);
    const bytes = { sent: 0, spliced: 0 };
    let toCome = 0;
    const comes = (count: number) => {
      this.#underWay += count - toCome;
      toCome = count;
    };
    /** Of the budget, not of the side. */
    let over: unknown;
    let promised = 0;
    const promises = (count: number) => {
      this.#promised += count - promised;
      promised = count;
    };
    try {
      const before = this.#wholes.get(id);
      const digest = async () =>
        before !== undefined && isDeepStrictEqual(before.of, listed)
          ? before.digest
          : from.digest(path, { kind: "file", stamp }, signal).catch(notRead);
      const noteWhole = (whole: Digest) => {
        // What was written a moment ago may be written again without a difference that shows.
        if (listed.recent !== true) this.#wholes.set(id, { of: listed, digest: whole });
      };
      const ready = begun ? await this.#readyAs(staging, signal) : undefined;
      if (ready !== undefined && ready === (await digest())) {
        noteWhole(ready);
        return ready;
      }
      // What is sent only whole is known before.
      const known = needs === "stream" ? undefined : await digest();
      const earlier = known === undefined && old !== undefined ? await this.#earlier(path, old, signal) : undefined;
      const sending = new Sending({
        target,
        upload: { ...this.#bare(staging), ...(known === undefined ? {} : { sealed: true, digest: known }) },
        read: (offset, digest, reader) => new OthersReading(from.#read(entry, offset, reader, digest)),
        readable: readableOf,
        room: async (count) => {
          await this.#expectRoom(count, signal);
          this.#expectBudget(count);
          comes(count);
        },
        outgoing: (reading, reader) => {
          // A target that had to find out whether it takes parts knows it now.
          promises(0);
          try {
            this.#expectBudget(toCome);
          } catch (error) {
            throw (over = error);
          }
          promises(toCome);
          const outgoing = paced(reading, [throttle, lane.throttle], reader);
          return lane.budget === undefined ? outgoing : within(lane.budget, outgoing, (spent) => lane.gate?.set(spent, false));
        },
        ...(earlier === undefined ? {} : { old: earlier }),
        begun,
        chunked: splices === "ranges" && known === undefined && index?.has(size) === true,
        went: (at, how, count) => {
          transfer.offset = at;
          bytes[how] += count;
          comes(Math.max(0, toCome - count));
          promises(Math.max(0, promised - count));
          if (how === "sent") engine.transfers.pushedBytes += count;
        },
        whole: (level, why) => this.#tell(level, path, `is sent whole: ${why}`),
      });
      const brought = async () => {
        const sent = await sending.run(signal);
        // Where nothing was left to send, or the end was not read, nobody knows the whole.
        const whole = known ?? sent.digest ?? (await digest());
        return { ...sent, whole, right: await sending.prove(whole, signal) };
      };
      const sent = await this.#orAnew(
        () => this.#unsent(staging),
        brought().then((it) => (it.right ? it : brought())),
        signal,
      );
      const { whole } = sent;
      noteWhole(whole);
      if (bytes.spliced > 0) this.#tell("debug", path, `${bytes.sent} of ${size} bytes were sent; the rest was there`, bytes);
      if (sent.chunks !== undefined) await this.#keep(path, whole, () => index?.save(whole, sent.chunks ?? []));
      return whole;
    } catch (error) {
      throw isFault(error, "rejected") && error !== over && bytes.sent > 0 ? this.#refusals.note(id, error) : error;
    } finally {
      comes(0);
      promises(0);
      engine.transfers.end(transfer);
      leave();
    }
  }

  /** What it is made of there, where the side can use that, and it still looks as it did. */
  async #earlier(path: string, { entry, digest }: Earlier, signal: AbortSignal): Promise<Old | undefined> {
    const { chunks: index } = this.given;
    const { size } = entry.stamp;
    if (index === undefined || this.#target.features.splices === undefined || size < leastSpliced) return undefined;
    const now = await this.stat(path, signal);
    if (now === undefined || !looksAs(now, entry)) return undefined;
    return {
      ...{ path: this.#at(path), size, digest },
      chunks: async () => (index.has(size) ? this.#keep(path, digest, () => index.load(digest, size)) : undefined),
    };
  }

  /** Of the state directory; without it a file is only sent whole. */
  async #keep<T>(path: string, digest: Digest, work: () => Promise<T> | undefined): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      this.#tell("debug", path, `what it is made of (${digest}) cannot be kept: ${reasonOf(error)}`);
      return undefined;
    }
  }

  #tell(level: Level, path: string, what: string, facts: Readonly<Record<string, unknown>> = {}): void {
    this.given.engine.events.say(level, "spliced", `${this.given.title}: ${path}: ${what}`, { path, ...facts });
  }

  /** Throws "rejected" where the budget would cut what is sent whole or not at all. */
  #expectBudget(bytes: number): void {
    const over = overBudget(this.given.lane, bytes, () => this.#promised);
    if (over !== undefined) throw new Fault("rejected", over.reason);
  }

  /** Not sent until nothing has room any more. Throws "full". */
  async #expectRoom(bytes: number, signal: AbortSignal): Promise<void> {
    const { device, name } = this.given.lane;
    const free = bytes < largeBytes ? undefined : await device.room?.(signal);
    if (free !== undefined && free - this.#underWay < bytes) {
      const others = this.#underWay === 0 ? "" : `, beside ${sizeText(this.#underWay)} that are on their way`;
      throw new Fault("full", `${name} has ${sizeText(free)} free${others}, and this needs ${sizeText(bytes)}`);
    }
  }

  async publish(staging: Staging, digest: Digest, from: Replica, entry: Entry, signal: AbortSignal): Promise<Entry | undefined> {
    const published = await this.given
      .turns()
      .run(signal, () => this.#publish(staging, digest, expectDevice(from), entry, signal), staging.size);
    this.#wholes.delete(staging.id);
    this.#refusals.forget(staging.id);
    return published;
  }

  async #publish(staging: Staging, digest: Digest, from: DeviceReplica, { stamp }: Entry, signal: AbortSignal): Promise<Entry | undefined> {
    const entry: FileEntry = { path: from.#at(staging.path), kind: "file", ...stamp };
    // Of what was continued some servers are asked whether they still have the beginning.
    const upload = this.#upload(
      staging,
      { sealed: true, digest },
      (offset, reader) => new OthersReading(from.#read(entry, offset, reader, false)),
    );
    const held = this.#inTurn;
    if (held !== undefined) {
      if ((await this.#readyAs(staging, signal)) !== digest) await this.#makeReady(staging, upload, digest, signal);
      return this.#giveReady(held, staging, digest, signal);
    }
    const done = await this.#commit(staging, upload, signal);
    const shown =
      "shown" in done && done.shown !== undefined
        ? this.#entryOf(staging.path, { kind: "file", ...done.shown }, this.#clock.now())
        : await this.stat(staging.path, signal);
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

  /** What is whole, proved, and could not get its name yet. */
  async #readyAs({ id, size }: Staging, signal: AbortSignal): Promise<Digest | undefined> {
    const digest = this.#inTurn === undefined ? undefined : this.given.memo(id).get(readyKey);
    if (digest === undefined) return undefined;
    const there = await this.#tree.stat(this.own.staged(id), signal);
    return there?.kind === "file" && there.size === size ? (digest as Digest) : undefined;
  }

  /** What is whole, and proved, waits under a name of this client's own. */
  async #makeReady(staging: Staging, upload: Upload, digest: Digest, signal: AbortSignal): Promise<void> {
    const done = await this.#commit(staging, upload, signal);
    if (!("occupied" in done)) return;
    const there = await this.#tree.stat(upload.path, signal);
    if (there?.kind === "file" && there.size === upload.size && (await this.#digestOf(there, signal)) === digest)
      return this.#target.discard(upload, signal);
    // What was noted of it is not true of the next one.
    await upload.memo.set(readyKey, undefined);
    if (there !== undefined) await this.#tree.remove(upload.path, there, signal);
    throw new Fault("conflict", `${upload.path} was another content`);
  }

  async #giveReady(held: HeldMoves, { id, path, size }: Staging, digest: Digest, signal: AbortSignal): Promise<Entry | undefined> {
    const ready = this.own.staged(id);
    const entry = await this.#tree.stat(ready, signal, this.#looks);
    if (entry?.kind !== "file") throw new Fault("conflict", `${ready} has gone`);
    try {
      await held.give(ready, this.#at(path), entry, signal);
    } catch (error) {
      await this.given.memo(id).set(readyKey, digest);
      if (!isFault(error, "conflict")) throw error;
      const there = await this.stat(path, signal);
      if (there?.kind !== "file" || there.stamp.size !== size || (await this.digest(path, there, signal)) !== digest) return undefined;
      // Perhaps others', who did not sync it.
      await this.sync(path, size, signal);
      await this.#tree.remove(ready, entry, signal);
      return there;
    }
    const shown = await this.stat(path, signal);
    return shown?.kind === "file" && shown.stamp.size === size && shown.stamp.modifiedMs === entry.modifiedMs ? shown : undefined;
  }

  /** Throws "conflict" where a power cut, of this machine or of that one, has taken its end: as often as it is tried, it would not get its name. It goes on from there the next time. */
  async #commit(staging: Staging, upload: Upload, signal: AbortSignal): ReturnType<Target["commit"]> {
    try {
      return await this.#orAnew(() => upload, this.#target.commit(upload, signal), signal);
    } catch (error) {
      if (!isFault(error, "transient") || !(await this.#isShort(staging, upload, signal))) throw error;
      this.#wholes.delete(staging.id);
      throw new Fault("conflict", error.message, { cause: error });
    }
  }

  async #isShort(staging: Staging, { path, size }: Upload, signal: AbortSignal): Promise<boolean> {
    const { bytes } = await this.staged(staging, signal);
    return isShort(size, bytes, async () => (await this.#tree.stat(path, signal))?.size);
  }

  /** What is there, and is not what it should be, is begun from the beginning the next time. */
  async #orAnew<T>(upload: () => Upload, work: Promise<T>, signal: AbortSignal): Promise<T> {
    try {
      return await work;
    } catch (error) {
      if (isFault(error, "mismatch", "conflict")) this.#wholes.delete(upload().id);
      if (isFault(error, "mismatch")) await discardWrong(this.#target, upload(), signal);
      else if (isFault(error, "conflict")) await this.#target.discard(upload(), signal);
      throw error;
    }
  }

  async staged(staging: Staging, signal: AbortSignal): Promise<{ readonly bytes: number; readonly entry?: Entry }> {
    const { partialPath } = this.#bare(staging);
    const part = await this.#tree.stat(partialPath, signal);
    // Some targets keep it otherwise.
    if (part?.kind !== "file") return { bytes: await this.#target.offset(this.#unsent(staging), signal) };
    // What goes on from there is less: not all that is written is on the medium.
    return { bytes: part.size, entry: this.#entryOf(partialPath, part, this.#clock.now()) };
  }

  #unsent(staging: Staging): Upload {
    return this.#upload(staging, {}, () => {
      throw new Fault("conflict", "nothing is sent any more");
    });
  }

  async drop(staging: Staging, signal: AbortSignal): Promise<void> {
    this.#wholes.delete(staging.id);
    this.#refusals.forget(staging.id);
    await this.#target.discard(this.#unsent(staging), signal);
    const ready = this.#inTurn === undefined ? undefined : await this.#tree.stat(this.own.staged(staging.id), signal);
    if (ready !== undefined) await this.#tree.remove(ready.path, ready, signal);
  }

  #upload(staging: Staging, more: Partial<Upload>, chunks: (offset: number, signal: AbortSignal) => Reading): Upload {
    const read = (offset: number, signal: AbortSignal) => readableOf(chunks(offset, signal));
    return { ...withSplicing(this.#bare(staging)), read, chunks, ...more };
  }

  #bare({ id, path, size, modifiedMs }: Staging): Omit<Upload, "read" | "chunks" | "spliced"> {
    const { engine, lane, memo } = this.given;
    const staged = this.own.staged(id);
    return {
      ...{ id, path: this.#inTurn === undefined ? this.#at(path) : staged, size, sealed: false, expect: { kind: "absent" } },
      partialPath: partialPath(staged, engine.names.installation, id),
      ...(modifiedMs === undefined ? {} : { modifiedMs }),
      ...(lane.throttle.rate === undefined ? {} : { maxRate: lane.throttle.rate }),
      memo: memo(id),
    };
  }

  #read(entry: FileEntry, offset: number, signal: AbortSignal, digest = true): DigestedReading {
    // As if it had been read before it grew: the rest is another change.
    const how = { digest, exact: true, mayGrow: digest };
    const source = this.#source;
    return source.readInPlace?.(entry, offset, signal, how) ?? new StreamReading(source, entry, offset, signal, how);
  }

  /** Where others write too, a file without a time would be read at each look. */
  get #looks(): LookOptions {
    return this.given.away === undefined ? { times: true } : {};
  }

  #entryOf(path: string, found: Omit<FileEntry, "path">, now: Span, volumes = this.#volumes): Entry {
    const { kind, size, modifiedMs, inode, identity } = found;
    const volume = valueAbove(volumes, path);
    const named = { ...(identity === undefined ? {} : { identity }), ...(volume === undefined ? {} : { volume }) };
    if (kind === "directory") return { kind, stamp: { size: 0 }, ...named };
    const isRecent = modifiedMs === undefined || (modifiedMs > now.leastMs - recentMs && modifiedMs < now.mostMs + recentMs);
    const recent = this.given.away === undefined && isRecent;
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

function heldMoves({ engine, route }: ReplicaGiven, names: Pick<Names, "conflict" | "intent">, tree: Tree, own: OwnDir): HeldMoves {
  const { lock: dir, ended } = own;
  const lock = new Lock({ ...{ tree, dir, ended, own: route }, ...{ clock: engine.clock, random: () => engine.random() } });
  return new HeldMoves({
    ...{ lock, tree },
    beside: (path, n) => names.conflict(path, n),
    lost: (name) => own.at(`${trashDir}/undated/${names.intent()}/${name}`),
  });
}

/** Of the other side: what it ends with says so. */
class OthersReading implements DigestedReading {
  constructor(readonly reading: DigestedReading) {}

  get digest(): Digest | undefined {
    return this.reading.digest;
  }

  next(): ReturnType<Reading["next"]> {
    return this.reading.next().catch(notRead);
  }

  close(): void {
    this.reading.close();
  }
}

function expectDevice(replica: Replica): DeviceReplica {
  if (replica instanceof DeviceReplica) return replica;
  throw new TypeError("both sides are devices");
}

const isBelow = (path: string, dir: string | undefined) => dir !== undefined && path.startsWith(`${dir}/`);
const movable = ({ kind, stamp }: Entry) => (kind === "directory" ? kind : stamp);

function digestOf({ digest }: DigestedReading): Digest {
  if (digest === undefined) throw new Fault("transient", "it ended before all of it was read");
  return digest;
}
