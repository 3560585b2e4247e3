/**
 * A spool that is short, and that its medium damages, drawn by a seed: not all that waits has room, targets are away for long, and copies are cut, changed or gone, while the program runs and between a kill and the
 * start. Who looks on knows what each file held and what was damaged, nothing else. SEED=7 ROUNDS=500 is another, longer one; what runs beside what is not the seed's alone.
 */
import assert from "node:assert/strict";
import { closeSync, openSync, readdirSync, readFileSync, readSync, rmSync, statSync, truncateSync, writeSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { EventName } from "../../core/events.js";
import { Spool } from "../../core/spool.js";
import { Bench, crc32, FakeDevice } from "../fake-device.js";
import { emptied, holds, live, ownName, Scene, twice } from "./scene.js";

const seed = Number(process.env.SEED ?? 1);
const rounds = Number(process.env.ROUNDS ?? 3);

interface Content {
  readonly path: string;
  readonly bytes: Buffer;
}

interface Shape {
  readonly damages: boolean;
  readonly onlyGrows: boolean;
}

class SpoolHistory extends Scene {
  readonly card: FakeDevice;
  /** Read where its files lie. */
  readonly disk: FakeDevice;
  readonly outs: readonly FakeDevice[];
  /** So many bytes it may take, by its limit or as its disk has no more. */
  readonly room: number;
  readonly byDisk: boolean;
  /** What is larger than that goes straight through. */
  readonly largest: number;
  readonly afterDelivery: "keep" | "delete";
  readonly history: string[] = [];
  /** Paths of which a copy here was damaged. */
  readonly damaged = new Set<string>();
  /** The same by copy: what it is of cannot be seen any more. */
  readonly #spoilt = new Map<string, string>();
  /** What was deleted at its source as it was delivered. */
  readonly released: Content[] = [];
  /** What others wrote over or took away at its source. */
  readonly overwritten: Content[] = [];
  /** What a target had at any moment. */
  readonly arrived: Content[] = [];

  constructor(
    readonly bench: Bench,
    seed: number,
    readonly shape: Shape,
  ) {
    super(seed);
    const { random } = this;
    this.afterDelivery = random.pick(["keep", "delete"]);
    this.room = random.pick([2 ** 30, 700_000, 400_000]);
    this.byDisk = random.below(3) === 0;
    const made = (name: string, inPlace: boolean) => {
      const device = new FakeDevice(name, {
        tree: true,
        inPlace,
        chunk: random.pick([4096, 65536]),
        concurrency: random.between(1, 4),
        ...(random.below(3) === 0 ? { crc: crc32 } : {}),
      });
      const remove = device.files.delete.bind(device.files);
      device.files.delete = (path) => {
        const bytes = device.files.get(path)?.bytes;
        if (bytes !== undefined) this.#deleted(path, bytes);
        return remove(path);
      };
      return device;
    };
    this.card = made("card", false);
    this.disk = made("disk", true);
    const target = (name: string) => {
      const made = new FakeDevice(name, {
        target: {
          resume: random.below(3) > 0,
          concurrency: random.between(1, 4),
          // What is proved by its size alone stays at its source.
          digests: this.afterDelivery === "delete" || random.below(2) === 0 ? (["sha256"] as const) : [],
          needs: random.pick(["stream", "stream", "sealed", "sealedPath"] as const),
        },
      });
      made.looksFirst = random.below(2) === 0;
      this.watch(made);
      const give = made.files.set.bind(made.files);
      made.files.set = (path, file) => {
        this.arrived.push({ path: ownName(path), bytes: file.bytes });
        return give(path, file);
      };
      return made;
    };
    this.outs = [target("out"), target("other")];
    const streams = this.outs.every(({ features }) => features.target?.needs === "stream");
    // A disk that holds so little is not known to the program as one that can never hold more.
    this.largest = streams && !shape.onlyGrows && !this.byDisk && random.below(2) === 0 ? Infinity : this.room / 2;
    for (const out of this.outs) if (random.below(3) === 0) out.attach(false);
    for (const device of this.devices) this.trouble(device);
  }

  get sources(): readonly FakeDevice[] {
    return [this.card, this.disk];
  }

  get devices(): readonly FakeDevice[] {
    return [...this.sources, ...this.outs];
  }

  get plan(): string {
    const { afterDelivery, room, byDisk, largest } = this;
    const devices = this.devices.map(({ name, features, looksFirst }) => ({
      ...{ name, ...features, crc: features.crc !== undefined, looksFirst },
    }));
    return JSON.stringify({ afterDelivery, room, byDisk, largest, devices });
  }

  #deleted(path: string, bytes: Buffer): void {
    this.history.push(`${path}: ${bytes.length} bytes are deleted at their source`);
    const [out, other] = this.outs;
    if (out !== undefined && !holds(out, path, bytes)) this.wrong.push(`${path}: ${bytes.length} bytes are deleted, and not delivered`);
    if (other !== undefined && !holds(other, path, bytes)) this.released.push({ path, bytes });
  }

  start(): Promise<unknown> {
    const { sources, outs, afterDelivery, room, byDisk } = this;
    const to = outs.map(({ name }) => ({ device: name, required: name === "out" }));
    const routes = sources.map(({ name }) => ({ from: name, to, afterDelivery }));
    return this.bench.start({ sources, targets: outs }, routes, byDisk ? {} : { maxSize: room });
  }

  get #dir(): string {
    return join(this.bench.dir, "spool");
  }

  get #copies(): string[] {
    return readdirSync(this.#dir).flatMap((name) => (/^[0-9a-f]{16}$/.test(name) ? [join(this.#dir, name)] : []));
  }

  /** By all copies. */
  get taken(): number {
    return this.#copies.reduce((sum, path) => sum + (statSync(path, { throwIfNoEntry: false })?.size ?? 0), 0);
  }

  #pathOf(copy: string): string | undefined {
    const bytes = readFileSync(copy);
    const known = [...this.held].find(([, all]) => bytes.length > 0 && all.some((it) => it.subarray(0, bytes.length).equals(bytes)));
    return known?.[0] ?? this.#spoilt.get(copy);
  }

  damage(): void {
    const { random } = this;
    const copies = this.#copies;
    if (copies.length === 0) return;
    const copy = random.pick(copies);
    const how = random.pick(["cut", "changed", "changed", "gone"]);
    const [at, flip] = [random.next(), 2 ** random.below(8)];
    try {
      const path = this.#pathOf(copy);
      const { size } = statSync(copy);
      if (path !== undefined) {
        this.damaged.add(path);
        this.#spoilt.set(copy, path);
      }
      this.history.push(`${copy.slice(-16)} of ${path ?? "nobody knows what"}, ${size} bytes: ${how} at ${Math.floor(at * size)}`);
      if (how === "gone") rmSync(copy);
      else if (how === "cut") truncateSync(copy, Math.floor(at * size));
      else if (size > 0) change(copy, Math.floor(at * size), flip);
    } catch {
      // It was given up meanwhile.
    }
  }

  async step(): Promise<void> {
    const { random, bench, shape } = this;
    const source = random.below(3) > 0 ? this.card : this.disk;
    const path = `${source.name}${random.below(source === this.card ? 4 : 2)}.bin`;
    const now = source.files.get(path)?.bytes;
    const length = random.pick([10, 3000, 30_000, 150_000]);
    const what = random.next();
    if (what < 0.45) {
      if ((now?.length ?? 0) + length <= this.largest) this.grow(source, path, length);
    } else if (what < 0.55 && !shape.onlyGrows) {
      if (now !== undefined) this.overwritten.push({ path, bytes: now });
      if (what < 0.53) this.put(source, path, random.bytes(random.below(3) === 0 ? (now?.length ?? length) : length));
      else Map.prototype.delete.call(source.files, path);
    } else if (what < 0.67) bench.daemon.engine.relist$.next(source.name);
    else if (what < 0.75) this.goOn();
    else if (what < 0.85) random.pick(this.devices).attach(true);
    else if (what < 0.9) random.pick(this.devices).attach(false);
    else if (what < 0.95 && shape.damages) this.damage();
    else if (what >= 0.97) {
      const how = random.pick(["stop", "kill"] as const);
      this.history.push(how);
      await bench[how]();
      if (shape.damages && random.below(3) > 0) this.damage();
      await this.start();
    }
    await sleep(random.below(25));
    const { taken, room } = this;
    if (taken > room) this.wrong.push(`the spool has ${taken} bytes, and may have ${room}`);
  }

  #said(path: string, ...kinds: readonly EventName[]): boolean {
    return this.bench.events.some(({ what, message }) => kinds.includes(what) && message.includes(path));
  }

  /** Others wrote over it, or took it away, before it was whole here, or where it is read in place. */
  #mayBeGone({ path, bytes }: Content): boolean {
    if (!this.overwritten.some((it) => it.path === path && it.bytes.subarray(0, bytes.length).equals(bytes))) return false;
    const wasHere = this.bench.events.some(
      ({ what, message }) => what === "pulled" && message.includes(`${path}: whole here (${bytes.length} bytes)`),
    );
    return !wasHere || path.startsWith(this.disk.name);
  }

  /** Undefined where all is as it should be in the end, but for what waits for one that is `away`. */
  missing(away?: FakeDevice): string | undefined {
    const outs = this.outs.filter((out) => out !== away);
    if (away === undefined)
      for (const { name, partials } of outs) {
        const open = this.bench.states(name).filter((state) => state !== "done" && state !== "dropped");
        if (open.length > 0) return `some to ${name} are ${[...new Set(open)].join(", ")}`;
        if (partials.size > 0) return `partials stay at ${name}: ${[...partials.keys()].join(", ")}`;
      }
    for (const source of this.sources) {
      if (this.afterDelivery === "delete" && away === undefined && source.files.size > 0)
        return `stay at the source: ${[...source.files.keys()].join(", ")}`;
      for (const [path, { bytes }] of source.files)
        for (const out of outs)
          if (!holds(out, path, bytes) && !(away !== undefined && this.#hasNoRoom(source, bytes)))
            return `${path}: ${bytes.length} bytes have not come to ${out.name}`;
    }
    return undefined;
  }

  /** It says so, and what is the only copy of what a file was before it grew, which one that is away waits for, leaves none. */
  #hasNoRoom(source: FakeDevice, bytes: Buffer): boolean {
    if (!this.bench.daemon.engine.transfers.waitForSpace.has(source.name)) return false;
    const isThere = (copy: Buffer) => this.sources.some(({ files }) => [...files.values()].some((file) => file.bytes.equals(copy)));
    try {
      const alone = this.#copies.map((path) => readFileSync(path)).filter((copy) => !isThere(copy));
      return alone.reduce((sum, { length }) => sum + length, bytes.length) > this.room;
    } catch {
      // One was given up meanwhile.
      return false;
    }
  }

  async #until(away?: FakeDevice): Promise<void> {
    const end = performance.now() + 30_000;
    for (let n = 0; this.missing(away) !== undefined; n++) {
      if (n % 40 === 0) {
        for (const device of this.devices) device.attach(device !== away);
        for (const { name } of this.sources) this.bench.daemon.engine.relist$.next(name);
      }
      assert.ok(performance.now() < end, `${away === undefined ? "" : `${away.name} away: `}${this.missing(away) ?? ""}`);
      await sleep(20);
    }
  }

  async end(): Promise<void> {
    this.calm();
    const other = this.outs[1];
    // A target that is away cannot fill the spool with what its source still has; what is the only copy stays.
    if (this.shape.onlyGrows && this.afterDelivery === "keep") await this.#until(other);
    await this.#until();
    for (const content of [...this.released, ...this.arrived]) this.#expectAll(content);
    this.#expectOnce();
    await emptied(this.bench);
  }

  /** What came to one target comes to all, or is in what grew from it; else its loss is said. */
  #expectAll(content: Content): void {
    const { path, bytes } = content;
    const has = ({ files }: FakeDevice) =>
      [...files].some(([name, file]) => ownName(name) === path && file.bytes.subarray(0, bytes.length).equals(bytes));
    for (const out of this.outs.filter((out) => !has(out))) {
      const isOurs = this.released.some((it) => it.bytes === bytes);
      if (isOurs && !this.damaged.has(path))
        this.wrong.push(`${path}: ${bytes.length} bytes were deleted at their source, and never came to ${out.name}`);
      if ((isOurs || !this.#mayBeGone(content)) && !this.#said(path, "lost", "changed", "spool-damaged"))
        this.wrong.push(`${path}: ${bytes.length} bytes never came to ${out.name}, and nobody says so`);
    }
  }

  #expectOnce(): void {
    for (const out of this.outs) {
      this.wrong.push(...twice(out));
      // Not known to be ours, so never replaced: what had its name without an answer when its copy here was given up, or damaged; what was read in place, where one of two targets had the shorter one.
      const isKnown = (path: string) => this.room === 2 ** 30 && !this.damaged.has(path) && path.startsWith(this.card.name);
      if (!this.shape.onlyGrows || this.afterDelivery !== "keep") continue;
      const besides = [...out.files.keys()].filter((path) => path !== ownName(path) && isKnown(ownName(path)));
      this.wrong.push(...besides.map((path) => `${out.name}: ${path} is there beside what it grew from`));
    }
  }
}

function change(path: string, at: number, flip: number): void {
  const file = openSync(path, "r+");
  const byte = Buffer.alloc(1);
  readSync(file, byte, 0, 1, at);
  byte[0] = (byte[0] ?? 0) ^ flip;
  writeSync(file, byte, 0, 1, at);
  closeSync(file);
}

async function run(t: TestContext, seed: number, shape: Shape): Promise<void> {
  const history = new SpoolHistory(new Bench(t), seed, shape);
  const free = history.byDisk
    ? t.mock.method(Spool.prototype, "freeBytes", () => Promise.resolve(Math.max(0, history.room - history.taken)))
    : undefined;
  await live(history).finally(() => free?.mock.restore());
}

for (const damages of [false, true])
  for (const onlyGrows of [true, false])
    test(`${onlyGrows ? "files that only grow" : "files that grow, are replaced and go"}, and a short spool${damages ? ", whose copies are damaged" : ""}`, async (t) => {
      for (let round = 0; round < rounds; round++) await run(t, seed * 1000 + round, { damages, onlyGrows });
    });
