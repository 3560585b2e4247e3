/**
 * Slots: one open directory per vehicle, which goes on after any break until nothing came for `slotIdle`. An unused one goes away then; a begun one stays, closed, and can be asked for again by
 * its id as long as something in it waits to be finished.
 *
 * A legacy vehicle announces nothing and commits nothing: what its rsync has finished stands in `.incoming` under its own name, and is published whenever no session runs. It may send for as
 * long as there is room; what waits to be finished goes over into its next slot.
 */
import { randomBytes } from "node:crypto";
import { promises as fs, type BigIntStats } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { otherName } from "../../core/names.js";
import type { Clock } from "../../core/plugin.js";
import { sizeText } from "../../core/text.js";
import { Turns } from "../../core/turns.js";
import type { Catalogue, SlotRow, Vehicle } from "./catalogue.js";
import { Refused } from "./refused.js";
import { type Digested, incomingName, type Load, SlotDir, type There } from "./slot-dir.js";
import type { AskSlot, Commit, Committed, Held } from "./wire.js";

/** So long a commit is worked at before it is told "working". */
const patienceMs = 8000;
/** So many files are read at once for their digests, of all vehicles. */
const readingAtOnce = 4;
/** So long a commit waits for a session to let go of the file. */
const lettingGoMs = 500;
/** Slots are looked at again after so long: somebody may have removed what is, or waits, in one. */
const leftMs = 60_000;
/** Looking through all of them, where very much is kept, takes one part in so many of the time. */
const countPart = 20;
const lookMs = 50;
/** A vehicle that sends more than it announced is stopped beyond that: empty files and directories take room too. */
const overBytes = 2 ** 20;
const overEntries = 1000;

/** What of the door slots need. */
export interface DoorOfSlots {
  open(vehicle: string, dir: string): Promise<void>;
  shut(vehicle: string): Promise<void>;
  isBusy(vehicle: string): boolean;
  holds(vehicle: string, file: Pick<BigIntStats, "dev" | "ino">): boolean;
}

export interface SlotsOptions {
  readonly root: string;
  /** Bytes that are free there. Throws Refused. */
  readonly free: () => Promise<number>;
  readonly idleMs: number;
  readonly keepFreeBytes: number;
  readonly vehicleBytes: number | undefined;
  readonly ownerBytes: number | undefined;
  /** Legacy vehicles are let in. */
  readonly legacy: boolean;
}

interface Open {
  readonly slot: SlotRow;
  /** As it was when it asked last. */
  vehicle: Vehicle;
  readonly dir: SlotDir;
  usedAtMs: number;
  /** What was in it when it was opened: announced before. */
  readonly held: Load;
  /** What was announced, by partial. */
  readonly announced: Map<string, number>;
  /** Troubles with it that were told. */
  readonly told: Set<string>;
  /** Of a legacy vehicle: what is whole gets its name. */
  publishing?: Promise<void> | undefined;
  /** What cannot be published, as it was said once. */
  readonly unpublished: Set<string>;
}

interface Announced {
  readonly open: Open;
  readonly partial: string;
  readonly held: number;
}

type FileToCommit = Commit["files"][number];
type Answer = Committed["files"][number];

export class Slots {
  readonly #open = new Map<string, Open>();
  readonly #turns = new Map<string, Turns>();
  readonly #reading = new Turns(readingAtOnce);
  /** Commits under way, by slot and partial. */
  readonly #working = new Map<string, Promise<Answer>>();
  readonly #stopping = new AbortController();
  /** What waits to be finished in closed slots, by vehicle. */
  readonly #left = new Map<string, { readonly bytes: Promise<number>; readonly atMs: number }>();
  #counting: Promise<void> | undefined;
  #countDueMs = -Infinity;
  #countTrouble = "";

  constructor(
    readonly options: SlotsOptions,
    readonly catalogue: Catalogue,
    readonly door: DoorOfSlots,
    readonly clock: Clock,
    readonly say: (level: "info" | "warn", message: string) => void,
  ) {}

  /** Those that were open go on. */
  async start(): Promise<void> {
    for (const slot of await this.catalogue.openSlots()) {
      const vehicle = await this.catalogue.vehicle(slot.vehicle);
      if (vehicle !== undefined && !(await this.#isKept(vehicle, slot))) {
        // Or the power went before it was made.
        this.#sayGone(slot);
        await this.catalogue.setSlot(slot.id, "closed");
        await this.catalogue.dropUnused(slot.id);
        continue;
      }
      const mayGoOn = vehicle?.state === "active" && (!vehicle.legacy || this.options.legacy);
      if (vehicle !== undefined && (mayGoOn || vehicle.legacy)) {
        await this.#opened(slot, vehicle);
        // What of it is whole is published all the same: its vehicle has put it away.
        if (!mayGoOn) await this.end(vehicle.id);
      } else await this.catalogue.setSlot(slot.id, "closed");
    }
  }

  /** `wanted`: one that was given before. `fresh`: another than the open one. Throws Refused. */
  ask(vehicle: Vehicle, { slot: wanted, fresh = false }: AskSlot): Promise<SlotRow> {
    return this.#inTurn(vehicle.id, async () => {
      const before = this.#open.get(vehicle.id);
      const open = before !== undefined && (await this.#endIfGone(before)) ? undefined : before;
      const again = wanted === undefined ? undefined : await this.catalogue.slot(wanted);
      // One that went away unused, or with its owner: whoever asks for it has lost nothing. Nor shall one that the operator has moved away begin anew under its name.
      const isKnown = again?.vehicle === vehicle.id && (again.id === open?.slot.id || (await this.#isKept(vehicle, again)));
      const known = isKnown ? again : undefined;
      if (open !== undefined && (known === undefined ? !fresh : known.id === open.slot.id)) {
        open.usedAtMs = this.clock.monotonicMs();
        open.vehicle = vehicle;
        return open.slot;
      }
      if (open !== undefined) {
        // What waits in it to be finished is asked for by its id.
        if (this.door.isBusy(vehicle.id))
          throw new Refused("slot-busy", `the slot ${open.slot.name} of this vehicle is in use: it goes on when that one has ended`, 3000);
        await this.#close(open);
      }
      await this.options.free();
      if (known !== undefined) {
        await this.catalogue.setSlot(known.id, "open");
        return this.#opened({ ...known, state: "open" }, vehicle);
      }
      return this.#make(vehicle);
    });
  }

  /** Of a legacy vehicle, which announces nothing: refused where there is no room for anything. Throws Refused. */
  async askLegacy(vehicle: Vehicle): Promise<SlotRow> {
    const open = this.#open.get(vehicle.id);
    if (open !== undefined) this.#publishSoon(open);
    await this.#expectRoom(vehicle, 1, 0);
    return this.ask(vehicle, {});
  }

  /** Throws Refused where that is not the vehicle's open slot. */
  async announce(vehicle: Vehicle, id: string, { partial, path, size }: { partial: string; path: string; size: number }): Promise<Held> {
    const open = await this.#expectOpen(vehicle, id);
    const at = open.dir.partialAt(partial);
    await open.dir.finish(at, open.dir.at(path));
    const there = await open.dir.look(at);
    const held = there?.kind === "file" ? there.size : 0;
    await this.#expectRoom(vehicle, size, held, { open, partial, held });
    open.announced.set(partial, Math.max(size, open.announced.get(partial) ?? 0));
    return heldOf(there);
  }

  /** Bytes that a vehicle may still send: the least of its quota, its owner's and the disk's. */
  async room(vehicle: Vehicle): Promise<number> {
    const { vehicleBytes, ownerBytes, free } = await this.#usage(vehicle);
    const left = (used: number, quota: number | undefined) => (quota === undefined ? Infinity : quota - used);
    const { options } = this;
    const rooms = [
      left(vehicleBytes, vehicle.quotaBytes ?? options.vehicleBytes),
      left(ownerBytes, vehicle.owner.quotaBytes ?? options.ownerBytes),
      free - options.keepFreeBytes,
    ];
    return Math.max(0, Math.min(...rooms));
  }

  async discard(vehicle: Vehicle, id: string, partial: string): Promise<void> {
    const open = await this.#expectOpen(vehicle, id);
    await open.dir.remove(open.dir.partialAt(partial));
    open.announced.delete(partial);
  }

  async commit(vehicle: Vehicle, id: string, { files }: Commit): Promise<Committed> {
    const open = await this.#expectOpen(vehicle, id);
    const answers: Answer[] = [];
    const endMs = this.clock.monotonicMs() + patienceMs;
    for (const file of files) {
      const key = `${id}/${file.partial}`;
      let work = this.#working.get(key);
      if (work === undefined) {
        work = this.#reading.run(undefined, () => this.#commit(open, file)).finally(() => this.#working.delete(key));
        // Also when nobody waits for it any more.
        work.catch(() => undefined);
        this.#working.set(key, work);
      }
      answers.push(await this.#orWorking(work, file, endMs));
    }
    return { files: answers };
  }

  /** Of a vehicle that may send no more. */
  async end(vehicle: string): Promise<void> {
    await this.#inTurn(vehicle, async () => {
      const open = this.#open.get(vehicle);
      if (open !== undefined) await this.#close(open);
    });
  }

  /** What is being read for its name is left for the next start. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#counting;
    for (const { publishing } of this.#open.values()) await publishing;
  }

  /** Every moment: what came is brought to the medium. */
  async sync(): Promise<void> {
    for (const open of [...this.#open.values()]) await this.#orSaid(open, this.#syncOf(open));
  }

  async #syncOf(open: Open): Promise<void> {
    if (!(await this.#hasGone(open))) await open.dir.sync();
  }

  /** Now and then: closes what is idle, and stops who sends what was never announced. What goes wrong with one slot concerns no other. What is still there is counted, for which nobody waits. */
  async tick(): Promise<void> {
    this.#counting ??= this.#count().finally(() => (this.#counting = undefined));
    for (const open of [...this.#open.values()])
      await this.#orSaid(
        open,
        this.#inTurn(open.slot.vehicle, () => this.#look(open)),
      );
  }

  /** What was committed, and a route or somebody took away since, counts no more; what is back counts again. Never rejects. */
  async #count(): Promise<void> {
    const begunMs = this.clock.monotonicMs();
    if (begunMs < this.#countDueMs) return;
    const began = performance.now();
    let trouble = "";
    const noted = (error: unknown) => void (trouble ||= error instanceof Error ? error.message : String(error));
    try {
      for (const vehicle of await this.catalogue.vehicles())
        for (const slot of await this.catalogue.slotsOf(vehicle.id)) {
          if (this.#stopping.signal.aborted) return;
          await this.#countIn(vehicle, slot).catch(noted);
        }
    } catch (error) {
      noted(error);
    }
    this.#countDueMs = Math.max(begunMs + leftMs, this.clock.monotonicMs() + (performance.now() - began) * countPart);
    if (trouble !== "" && trouble !== this.#countTrouble) this.say("warn", `it cannot be looked at what is still kept: ${trouble}`);
    this.#countTrouble = trouble;
  }

  /** Whether the slot is emptied now, where it `was` that. */
  async #countIn(vehicle: Vehicle, slot: SlotRow, was: SlotRow["state"] = "closed"): Promise<boolean> {
    if (await this.#isAway()) return false;
    const files = await this.catalogue.filesIn(slot.id);
    const found = await this.#dirOfSlot(vehicle, slot).thereOf(files.map(({ path }) => path));
    // It may have been taken away, or come back, meanwhile.
    if (await this.#isAway()) return false;
    if (found === undefined) {
      await this.catalogue.setAllGone(slot.id);
      return false;
    }
    const { there, others } = found;
    for (const file of files) if (!there.has(file.path)) await this.catalogue.setGone(file, true);
    let isBack = false;
    for (const path of others) {
      const file = await this.catalogue.file(slot.id, path);
      if (file?.gone === true) await this.catalogue.setGone(file, false);
      isBack ||= file !== undefined;
    }
    if (there.size === 0 && !isBack) return this.catalogue.setEmptied(slot.id, was);
    await this.catalogue.setSlot(slot.id, "closed", "emptied");
    return false;
  }

  /** Once for each trouble. */
  async #orSaid({ slot, told }: Open, work: Promise<void>): Promise<void> {
    await work.catch((error: unknown) => {
      if (!told.has(String(error))) this.#sayOf(slot, "it cannot be looked at", error);
      told.add(String(error));
    });
  }

  async #look(open: Open): Promise<void> {
    if (this.#open.get(open.slot.vehicle) !== open) return;
    const nowMs = this.clock.monotonicMs();
    if (open.vehicle.legacy) return this.#lookAtLegacy(open, nowMs);
    const over = await this.#excess(open);
    if (over !== undefined) await this.#close(open, over);
    else if (this.door.isBusy(open.slot.vehicle)) open.usedAtMs = nowMs;
    else if (nowMs - open.usedAtMs > this.options.idleMs) await this.#close(open);
  }

  /** What it holds more than was announced, in words. */
  async #excess({ dir, announced: files, held }: Open): Promise<string | undefined> {
    const { bytes, entries } = await dir.load();
    const announced = [...files.values()].reduce((sum, size) => sum + size, held.bytes);
    const count = files.size + (Number.isFinite(held.entries) ? held.entries : 0);
    if (bytes > announced + overBytes) return `${sizeText(bytes)}, not ${sizeText(announced)}`;
    if (entries <= count + overEntries) return undefined;
    return Number.isFinite(entries) ? `${entries} files and directories, not ${count}` : "directories too deep to be looked at";
  }

  async #lookAtLegacy(open: Open, nowMs: number): Promise<void> {
    const { vehicle, slot } = open;
    if (!this.door.isBusy(vehicle.id)) {
      if (nowMs - open.usedAtMs > this.options.idleMs) await this.#close(open);
      else this.#publishSoon(open);
    } else if (Number.isFinite((await open.dir.load()).entries) && (await this.room(vehicle)) > 0) open.usedAtMs = nowMs;
    else {
      // What it cut stays, and counts: so it is refused before it sends that again.
      this.say("warn", `${vehicle.id} sends more than there is room for: what it sends to ${slot.name} is stopped`);
      await this.#close(open);
    }
  }

  dirOf(vehicle: Vehicle): string {
    return join(this.options.root, vehicle.owner.id, vehicle.id);
  }

  async #expectOpen(vehicle: Vehicle, id: string): Promise<Open> {
    const open = this.#open.get(vehicle.id);
    if (open?.slot.id !== id || (await this.#hasGone(open))) throw new Refused("slot-closed", "that slot is not open: ask for it again");
    open.usedAtMs = this.clock.monotonicMs();
    open.vehicle = vehicle;
    return open;
  }

  /** Its directory was moved or removed here: then it is closed, and the vehicle gets another. */
  async #hasGone(open: Open): Promise<boolean> {
    return !(await open.dir.isReady()) && this.#inTurn(open.slot.vehicle, () => this.#endIfGone(open));
  }

  /** In its vehicle's turn. */
  async #endIfGone(open: Open): Promise<boolean> {
    if (this.#open.get(open.slot.vehicle) !== open) return true;
    if ((await open.dir.isWhole()) || (await this.#isAway())) return false;
    this.#sayGone(open.slot);
    await this.#close(open);
    return true;
  }

  async #isKept(vehicle: Vehicle, slot: SlotRow): Promise<boolean> {
    // A vehicle may send again what was passed on from there: it had no answer, and it shall not come a second time from another slot.
    return slot.state === "emptied" || (await this.#dirOfSlot(vehicle, slot).isThere()) || this.#isAway();
  }

  /** On a disk that is not mounted nothing has gone. */
  #isAway(): Promise<boolean> {
    return this.options.free().then(
      () => false,
      () => true,
    );
  }

  #sayGone({ name, vehicle }: SlotRow): void {
    this.say("warn", `the slot ${name} is not there any more, its directory was moved or removed: ${vehicle} gets another`);
  }

  #dirOfSlot(vehicle: Vehicle, { name }: SlotRow): SlotDir {
    return new SlotDir(join(this.dirOf(vehicle), name));
  }

  async #make(vehicle: Vehicle): Promise<SlotRow> {
    const atMs = this.clock.wallMs();
    const stamp = new Date(atMs).toISOString().replace(/[-:]|\.\d+/g, "");
    const id = randomBytes(8).toString("hex");
    for (let n = 1; ; n++) {
      const name = `${stamp}-${vehicle.id}${n === 1 ? "" : `-${n}`}`;
      const dir = new SlotDir(join(this.dirOf(vehicle), name));
      // A clock that went back gives a name twice.
      if ((await dir.look(Buffer.from(dir.dir))) !== undefined) continue;
      const slot: SlotRow = { id, vehicle: vehicle.id, name, state: "open", openedMs: atMs };
      // Its directory was moved away.
      if (!(await this.catalogue.addSlot(slot))) continue;
      return this.#opened(slot, vehicle);
    }
  }

  async #opened(slot: SlotRow, vehicle: Vehicle): Promise<SlotRow> {
    const dir = this.#dirOfSlot(vehicle, slot);
    await dir.make();
    if (vehicle.legacy)
      await this.#takeOver(slot, vehicle, dir).catch((error: unknown) => this.#sayOf(slot, "what was cut before cannot go on", error));
    await this.door.open(vehicle.id, dir.incoming);
    const open: Open = {
      slot,
      vehicle,
      dir,
      usedAtMs: this.clock.monotonicMs(),
      held: await dir.load(),
      announced: new Map(),
      told: new Set(),
      unpublished: new Set(),
    };
    this.#open.set(vehicle.id, open);
    this.#left.delete(vehicle.id);
    // Of before a kill.
    if (vehicle.legacy) this.#publishSoon(open);
    return slot;
  }

  async #close(open: Open, over?: string): Promise<void> {
    this.#open.delete(open.slot.vehicle);
    await this.door.shut(open.slot.vehicle);
    if (open.vehicle.legacy) await this.#endLegacy(open);
    else await this.#removeExcess(open, over);
    const { slot, vehicle, dir } = open;
    // While its directory is there: whether all was taken out of it.
    const isEmptied = await this.#countIn(vehicle, slot, "open");
    const hasGone = (await dir.tidy()) && !(await this.#isAway());
    if (hasGone) await this.catalogue.dropUnused(slot.id);
    if (!isEmptied) await this.catalogue.setSlot(slot.id, "closed");
    this.#left.delete(slot.vehicle);
  }

  /** Once it is closed nobody looks at it any more. */
  async #removeExcess(open: Open, known?: string): Promise<void> {
    const over = known ?? (await this.#excess(open).catch(() => undefined));
    if (over === undefined) return;
    this.say("warn", `${open.vehicle.id} sent more than it announced (${over}): what it did not announce is removed`);
    await open.dir.keepOnly(new Set(open.announced.keys()));
  }

  /** What waits to go on in the slot before goes on in this one. */
  async #takeOver(slot: SlotRow, vehicle: Vehicle, dir: SlotDir): Promise<void> {
    const before = await this.catalogue.slotBefore(slot);
    if (before === undefined) return;
    const from = new SlotDir(join(this.dirOf(vehicle), before.name));
    if ((await dir.takeOver(from)) && (await from.tidy()) && before.state === "closed") await this.catalogue.dropSlot(before.id);
  }

  async #endLegacy(open: Open): Promise<void> {
    await open.publishing;
    // Where that is stopped the slot stays open, and goes on at the next start.
    await this.#publishArrived(open);
    await open.dir.keepFiles();
  }

  #publishSoon(open: Open): void {
    open.publishing ??= this.#publishArrived(open)
      .catch((error: unknown) => this.#sayOf(open.slot, "what arrived cannot be published now", error))
      .finally(() => (open.publishing = undefined));
  }

  #sayOf({ name }: SlotRow, what: string, error: unknown): void {
    if (!this.#stopping.signal.aborted)
      this.say("warn", `${what} (slot ${name}): ${error instanceof Error ? error.message : String(error)}`);
  }

  /** What is listed was there before it is known that no session runs: none of it changes. */
  async #publishArrived(open: Open): Promise<void> {
    const { whole, underWay } = await open.dir.arrived();
    if (this.door.isBusy(open.slot.vehicle)) return;
    await open.dir.keepCut(underWay);
    for (const name of whole)
      try {
        await this.#publish(open, name);
      } catch (error) {
        this.#stopping.signal.throwIfAborted();
        if (!open.unpublished.has(name)) this.#sayOf(open.slot, `${name} arrived and cannot be published now; it is tried again`, error);
        open.unpublished.add(name);
      }
  }

  async #publish(open: Open, arrived: string): Promise<void> {
    const { slot, dir } = open;
    const partial = dir.partialAt(arrived);
    const { signal } = this.#stopping;
    const read = await this.#reading.run(signal, () => dir.digest(partial, signal));
    if (read === undefined) return;
    const { digest } = read;
    const size = Number(read.stat.size);
    for (const path of [arrived, otherName(arrived, digest)].filter((it) => it !== incomingName)) {
      const name = dir.at(path);
      const known = await this.#contentAt(open, path, name);
      const isSame = known?.size === size && known.digest === digest;
      if (known !== undefined && !isSame) continue;
      // Before it has its name: where the power goes between the two, the next start finds it here and does the same again.
      await this.catalogue.addFile({ slot: slot.id, path, size, digest, committedMs: this.clock.wallMs() });
      if (isSame) await dir.remove(partial);
      else await dir.publish(partial, name, read.stat, undefined, false);
      if (path !== arrived)
        this.say("info", `${open.vehicle.id} sent another file named ${arrived} into ${slot.name}: it is ${path} there`);
      return;
    }
    throw new Error(`${arrived} and its other name are taken by other files`);
  }

  /** What is used, and what others announced and did not send yet. Of `but` nothing is counted. */
  async #usage(vehicle: Vehicle, but?: Announced) {
    const used = await this.catalogue.used(vehicle.id);
    const { mine: left, owner: ofOwner } = await this.#leftOf(vehicle);
    const sum = { vehicleBytes: used.vehicle + left, ownerBytes: used.owner + ofOwner, free: await this.options.free(), left, ofOwner };
    for (const other of this.#open.values()) {
      const mine = other === but?.open;
      // What one vehicle did to its slot keeps no other out.
      const waiting = (await other.dir.waiting().catch(() => 0)) - (mine ? but.held : 0);
      const announced = [...other.announced].reduce((total, [name, size]) => total + (mine && name === but.partial ? 0 : size), 0);
      const taken = Math.max(waiting, announced);
      sum.free -= Math.max(0, announced - waiting);
      if (other.vehicle.owner.id === vehicle.owner.id) sum.ownerBytes += taken;
      if (other.vehicle.id === vehicle.id) sum.vehicleBytes += taken;
    }
    return sum;
  }

  /** Bytes that wait in closed slots, of a vehicle and of all its owner's; nothing where there is no quota. */
  async #leftOf(vehicle: Vehicle): Promise<{ readonly mine: number; readonly owner: number }> {
    const { options } = this;
    const quotas = [vehicle.quotaBytes, vehicle.owner.quotaBytes, options.vehicleBytes, options.ownerBytes];
    if (quotas.every((it) => it === undefined)) return { mine: 0, owner: 0 };
    const theirs = (await this.catalogue.vehicles()).filter((it) => it.owner.id === vehicle.owner.id);
    const left = await Promise.all(theirs.map(async (it) => ({ id: it.id, bytes: await this.#leftIn(it) })));
    const sum = (of: typeof left) => of.reduce((total, { bytes }) => total + bytes, 0);
    return { mine: sum(left.filter(({ id }) => id === vehicle.id)), owner: sum(left) };
  }

  #leftIn(vehicle: Vehicle): Promise<number> {
    const known = this.#left.get(vehicle.id);
    if (known !== undefined && this.clock.monotonicMs() - known.atMs < leftMs) return known.bytes;
    const bytes = this.#lookForLeft(vehicle);
    // Before it is known: what is opened or closed meanwhile has it looked for anew.
    this.#left.set(vehicle.id, { bytes, atMs: this.clock.monotonicMs() });
    return bytes;
  }

  async #lookForLeft(vehicle: Vehicle): Promise<number> {
    const open = this.#open.get(vehicle.id)?.slot.name;
    let bytes = 0;
    for (const name of await fs.readdir(this.dirOf(vehicle)).catch(() => []))
      if (name !== open) bytes += await new SlotDir(join(this.dirOf(vehicle), name)).waiting().catch(() => 0);
    return bytes;
  }

  /** Throws Refused "quota" or "full". */
  async #expectRoom(vehicle: Vehicle, size: number, held: number, but?: Announced): Promise<void> {
    const { options } = this;
    const { vehicleBytes, ownerBytes, free, left, ofOwner } = await this.#usage(vehicle, but);
    const over = (what: string, used: number, waits: number, quota: number | undefined) => {
      if (quota === undefined || used + size <= quota) return;
      const unfinished = waits === 0 ? "" : ` (${sizeText(waits)} of it wait in closed slots to be finished)`;
      throw new Refused("quota", `${what} has ${sizeText(used)} of ${sizeText(quota)} here${unfinished}: ${sizeText(size)} do not fit`);
    };
    over("this vehicle", vehicleBytes, left, vehicle.quotaBytes ?? options.vehicleBytes);
    over("its owner", ownerBytes, ofOwner, vehicle.owner.quotaBytes ?? options.ownerBytes);
    if (free - (size - held) < options.keepFreeBytes)
      throw new Refused("full", `the station has ${sizeText(Math.max(0, free))} free: ${sizeText(size - held)} do not fit`);
  }

  async #orWorking(work: Promise<Answer>, { path }: FileToCommit, endMs: number): Promise<Answer> {
    const stop = new AbortController();
    try {
      const late = this.clock.sleep(Math.max(0, endMs - this.clock.monotonicMs()), stop.signal).then(
        (): Answer => ({ path, state: "working" }),
        (): Answer => ({ path, state: "working" }),
      );
      return await Promise.race([work, late]);
    } finally {
      stop.abort();
    }
  }

  async #commit(open: Open, file: FileToCommit): Promise<Answer> {
    const { slot, dir } = open;
    const { path, size, digest, modifiedMs, replaces } = file;
    const [partial, name] = [dir.partialAt(file.partial), dir.at(path)];
    const published = async (): Promise<Answer> => {
      await this.catalogue.addFile({ slot: slot.id, path, size, digest, committedMs: this.clock.wallMs() });
      open.announced.delete(file.partial);
      return { path, state: "published", size, digest };
    };
    const found = async (): Promise<Answer> => {
      await dir.keep(name);
      return published();
    };
    await dir.finish(partial, name);
    const there = await dir.look(partial);
    if (there?.kind !== "file") {
      // Committed before; or it got its name, and the power went before that was noted.
      const known = await this.#contentAt(open, path, name);
      if (known?.size === size && known.digest === digest) return found();
      // Committed, and passed on since: only the answer was lost, for which nobody sends it once more.
      const row = known === undefined ? await this.catalogue.file(slot.id, path) : undefined;
      const isPassedOn = row?.size === size && row.digest === digest;
      return isPassedOn ? { path, state: "published", size, digest } : { path, state: "absent" };
    }
    if (there.size !== size) return { path, state: there.size < size ? "short" : "long", size: there.size };
    const read = await dir.digest(partial);
    if (read === undefined) return { path, state: "absent" };
    if (read.digest !== digest) return { path, state: "mismatch", size, digest: read.digest };
    const known = await this.#contentAt(open, path, name);
    if (known?.size === size && known.digest === digest) {
      await dir.remove(partial);
      return found();
    }
    const ours =
      replaces !== undefined && known?.size === replaces.size && (replaces.digest === undefined || replaces.digest === known.digest);
    if (known !== undefined && !ours) return { path, state: "occupied", ...known };
    if ((await this.catalogue.vehicle(slot.vehicle))?.state !== "active")
      throw new Refused("revoked", "this vehicle's key was revoked meanwhile");
    // What has the file open could write to it for as long as it likes.
    const endMs = performance.now() + lettingGoMs;
    while (this.door.holds(slot.vehicle, read.stat)) {
      if (performance.now() > endMs) return { path, state: "working" };
      await delay(lookMs);
    }
    const done = await dir.publish(partial, name, read.stat, modifiedMs, known !== undefined);
    if (done === "published" && !(await this.#isLeftAlone(open, name, read))) return { path, state: "mismatch", size };
    if (done === "published") return published();
    // Something changed in this moment: the vehicle asks again, and it is looked at anew.
    return done === "occupied" ? { path, state: "working" } : { path, state: "mismatch", size };
  }

  /** Of what has just got its name: false where a session had got hold of it meanwhile, and changed it. Then it is gone. */
  async #isLeftAlone({ slot, dir }: Open, name: Buffer, { stat, digest }: Digested): Promise<boolean> {
    if (!this.door.holds(slot.vehicle, stat)) return true;
    await this.#inTurn(slot.vehicle, async () => {
      await this.door.shut(slot.vehicle);
      // It may have been closed meanwhile, and another be open.
      const open = this.#open.get(slot.vehicle);
      if (open !== undefined) await this.door.open(slot.vehicle, open.dir.incoming);
    });
    if ((await dir.digest(name))?.digest === digest) return true;
    await dir.remove(name);
    return false;
  }

  /** What is there, read where nobody noted it. */
  async #contentAt({ slot, dir }: Open, path: string, name: Buffer): Promise<{ size: number; digest?: string } | undefined> {
    const there = await dir.look(name);
    if (there === undefined) return undefined;
    if (there.kind !== "file") return { size: there.size };
    const row = await this.catalogue.file(slot.id, path);
    if (row?.size === there.size && !row.gone) return { size: row.size, digest: row.digest };
    const read = await dir.digest(name);
    return { size: there.size, ...(read === undefined ? {} : { digest: read.digest }) };
  }

  #inTurn<T>(vehicle: string, work: () => Promise<T>): Promise<T> {
    let turns = this.#turns.get(vehicle);
    if (turns === undefined) this.#turns.set(vehicle, (turns = new Turns()));
    return turns.run(undefined, work);
  }
}

const heldOf = (there: There | undefined): Held => (there === undefined ? {} : there);
