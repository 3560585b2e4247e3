/**
 * Files that grow, are replaced, go and come while calls to both devices hang, fail and are late, answers are lost, and the program is killed, drawn by a seed: nothing arrives that is not a content, or what one began with, none takes the place of
 * another, and of a file that only grows there is one in the end. SEED=7 ROUNDS=500 is another, longer one; what runs beside what is not the seed's alone.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Bench, crc32, FakeDevice } from "../fake-device.js";
import { holds, live, ownName, Scene } from "./scene.js";

const seed = Number(process.env.SEED ?? 1);
const rounds = Number(process.env.ROUNDS ?? 8);

class History extends Scene {
  readonly card: FakeDevice;
  readonly outs: readonly FakeDevice[];
  readonly maxSize: number;
  readonly afterDelivery: "keep" | "delete";
  readonly paths: readonly string[];
  /** What somebody else had put at each target. */
  readonly #taken = new Map<FakeDevice, ReadonlyMap<string, Buffer>>();

  constructor(
    readonly bench: Bench,
    seed: number,
    readonly onlyGrows: boolean,
  ) {
    super(seed);
    const { random } = this;
    this.afterDelivery = random.pick(["keep", "delete"]);
    this.paths = Array.from({ length: random.between(1, 4) }, (_, n) => `log${n}.bin`);
    const target = () => ({
      resume: random.below(3) > 0,
      concurrency: random.between(1, 4),
      // What is proved by its size alone stays at its source.
      digests: this.afterDelivery === "delete" || random.below(2) === 0 ? (["sha256"] as const) : [],
      needs: random.pick(["stream", "sealed"] as const),
    });
    this.card = new FakeDevice("card", {
      tree: true,
      inPlace: random.below(3) === 0,
      chunk: random.pick([4096, 65536]),
      concurrency: random.between(1, 4),
      ...(random.below(3) === 0 ? { crc: crc32 } : {}),
    });
    this.card.timeless = onlyGrows && this.afterDelivery === "keep" && random.below(3) === 0;
    this.outs = ["out", "other"].slice(0, random.between(1, 3)).map((name) => new FakeDevice(name, { target: target() }));
    const streams = this.outs.every(({ features }) => features.target?.needs === "stream");
    // What goes straight through, as the spool cannot hold it, is not proved to be the longer one, so sent beside it.
    this.maxSize = streams && !onlyGrows ? random.pick([2 ** 30, 400_000]) : 2 ** 30;
    for (const out of this.outs) out.looksFirst = random.below(2) === 0;
    for (const device of this.devices) this.trouble(device);
    const { files } = this.card;
    const remove = files.delete.bind(files);
    files.delete = (path) => {
      const bytes = files.get(path)?.bytes;
      if (bytes !== undefined && !this.isAtAll(path, bytes)) this.wrong.push(`${path}: deleted, and not delivered`);
      return remove(path);
    };
    for (const out of this.outs) {
      for (const path of this.paths) if (random.below(3) === 0) out.put(path, random.bytes(random.pick([5, 3000, 30_000])));
      this.#taken.set(out, new Map([...out.files].map(([path, { bytes }]) => [path, bytes])));
      this.watch(out);
    }
  }

  get devices(): readonly FakeDevice[] {
    return [this.card, ...this.outs];
  }

  get plan(): string {
    const { afterDelivery, maxSize, paths } = this;
    const devices = this.devices.map(({ features, looksFirst, timeless }) => ({
      ...features,
      ...{ crc: features.crc !== undefined, looksFirst, timeless },
    }));
    return JSON.stringify({ afterDelivery, maxSize, paths: paths.length, devices });
  }

  isAtAll(path: string, content: Buffer): boolean {
    return this.outs.every((out) => holds(out, path, content));
  }

  start(): Promise<unknown> {
    const { card, outs, afterDelivery, maxSize } = this;
    const route = { from: card.name, to: outs.map(({ name }) => name), afterDelivery };
    return this.bench.start({ sources: [card], targets: outs }, [route], { maxSize });
  }

  async step(): Promise<void> {
    const { random, card, bench } = this;
    const path = random.pick(this.paths);
    const now = card.files.get(path)?.bytes;
    const length = random.pick([10, 3000, 30_000, 150_000]);
    const what = random.next();
    if (what < 0.45) this.grow(card, path, length);
    else if (what < 0.55 && !this.onlyGrows) this.put(card, path, random.bytes(random.below(3) === 0 ? (now?.length ?? length) : length));
    else if (what < 0.58 && !this.onlyGrows) Map.prototype.delete.call(card.files, path);
    else if (what < 0.7) bench.daemon.engine.relist$.next("card");
    else if (what < 0.8) this.goOn();
    else if (what < 0.92) random.pick(this.devices).attach(true);
    else if (what < 0.95) {
      await bench.kill();
      await this.start();
    } else random.pick(this.devices).attach(false);
    await sleep(random.below(25));
  }

  /** Undefined where all is as it should be in the end. */
  missing(): string | undefined {
    const { card, outs, bench } = this;
    for (const { name, partials } of outs) {
      const open = bench.states(name).filter((state) => state !== "done" && state !== "dropped");
      if (open.length > 0) return `some to ${name} are ${[...new Set(open)].join(", ")}`;
      if (partials.size > 0) return `partials stay at ${name}: ${[...partials.keys()].join(", ")}`;
    }
    if (this.afterDelivery === "delete" && card.files.size > 0) return `stay at the source: ${[...card.files.keys()].join(", ")}`;
    for (const [path, { bytes }] of card.files) if (!this.isAtAll(path, bytes)) return `${path}: ${bytes.length} bytes have not come`;
    return undefined;
  }

  async end(): Promise<void> {
    this.calm();
    const end = performance.now() + 30_000;
    for (let n = 0; this.missing() !== undefined; n++) {
      if (n % 40 === 0) {
        for (const device of this.devices) device.attach(true);
        this.bench.daemon.engine.relist$.next("card");
      }
      assert.ok(performance.now() < end, this.missing());
      await sleep(20);
    }
    for (const [out, taken] of this.#taken) {
      const { name, files } = out;
      for (const [path, bytes] of taken) assert.ok(files.get(path)?.bytes.equals(bytes), `${name}: ${path} of somebody else`);
      const ours = [...files.keys()].filter((path) => !taken.has(path)).map(ownName);
      if (this.onlyGrows && this.afterDelivery === "keep") assert.deepEqual(ours.sort(), [...this.card.files.keys()].sort(), name);
    }
  }
}

for (const onlyGrows of [true, false])
  test(`${onlyGrows ? "files that only grow" : "files that grow, are replaced and go"}, under calls that hang, fail and are late`, async (t) => {
    for (let round = 0; round < rounds; round++) await live(new History(new Bench(t), seed * 1000 + round, onlyGrows));
  });
