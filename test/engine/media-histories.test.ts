/**
 * Media that are changed in one device, whose files have the same names, sizes and times, and targets that come back as they were before, drawn by a seed: what is on a medium arrives whole, whichever is in when, none takes the
 * place of another, and a file is deleted only on the medium whose file was delivered. SEED=7 ROUNDS=500 is another, longer one; what runs beside what is not the seed's alone.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Fault } from "../../core/errors.js";
import { Bench, crc32, FakeDevice } from "../fake-device.js";
import { emptied, holds, live, Scene, twice } from "./scene.js";

const seed = Number(process.env.SEED ?? 1);
const rounds = Number(process.env.ROUNDS ?? 3);

type Files = FakeDevice["files"];

class MediaHistory extends Scene {
  readonly reader: FakeDevice;
  readonly outs: readonly FakeDevice[];
  readonly afterDelivery: "keep" | "delete";
  readonly history: string[] = [];
  /** What is on the media that are not in. */
  readonly #shelf = new Map<string, Files>([
    ["A", new Map()],
    ["B", new Map()],
    ["C", new Map()],
  ]);
  /** By target: what it was to come back to. */
  readonly #images = new Map<FakeDevice, { readonly files: Files; readonly partials: FakeDevice["partials"] }>();
  /** What it had, and has not as it is as it was before. */
  readonly #undone = new Map<FakeDevice, Buffer[]>();

  constructor(
    readonly bench: Bench,
    seed: number,
  ) {
    super(seed);
    const { random } = this;
    this.afterDelivery = random.pick(["keep", "delete"]);
    this.reader = new FakeDevice("reader", {
      tree: true,
      chunk: random.pick([4096, 65536]),
      concurrency: random.between(1, 4),
      ...(random.below(3) === 0 ? { crc: crc32 } : {}),
      ...(random.below(2) === 0 ? { doubtedBytes: 8192 } : {}),
    });
    const target = (name: string) => {
      const made = new FakeDevice(name, {
        target: {
          resume: random.below(3) > 0,
          concurrency: random.between(1, 4),
          // What is proved by its size alone stays at its source.
          digests: this.afterDelivery === "delete" || random.below(2) === 0 ? (["sha256"] as const) : [],
          needs: random.pick(["stream", "sealed"] as const),
        },
      });
      made.looksFirst = random.below(2) === 0;
      this.#undone.set(made, []);
      return made;
    };
    this.outs = [target("out"), target("other")].slice(random.below(2));
    for (const device of this.devices) this.trouble(device);
    for (const out of this.outs) this.watch(out);
    const trouble = this.reader.before;
    this.reader.before = (call, signal) => {
      const done = (trouble(call, signal) ?? Promise.resolve()).then(() => {
        if (this.reader.medium === undefined) throw new Fault("offline", "nothing is in");
      });
      // Nobody waits for it once its signal has come.
      done.catch(() => undefined);
      return done;
    };
    const { files } = this.reader;
    const remove = files.delete.bind(files);
    files.delete = (path) => {
      const bytes = files.get(path)?.bytes;
      this.history.push(`${this.reader.medium ?? "none"}: ${path}: ${bytes?.length ?? 0} bytes are deleted`);
      if (bytes !== undefined && !this.outs.every((out) => this.#had(out, path, bytes)))
        this.wrong.push(`${path}: deleted, and not delivered`);
      return remove(path);
    };
    this.#insert("A");
  }

  get devices(): readonly FakeDevice[] {
    return [this.reader, ...this.outs];
  }

  get plan(): string {
    const { afterDelivery } = this;
    return JSON.stringify({ afterDelivery, devices: this.devices.map(({ name, features }) => ({ name, ...features })) });
  }

  /** It has it, or has it no more only as it came back as it was before. */
  #had(out: FakeDevice, path: string, bytes: Buffer): boolean {
    return holds(out, path, bytes) || this.#isUndone(out, bytes);
  }

  #isUndone(out: FakeDevice, bytes: Buffer): boolean {
    return this.#undone.get(out)?.some((it) => it.equals(bytes)) === true;
  }

  start(): Promise<unknown> {
    const { reader, outs, afterDelivery } = this;
    const routes = [{ from: "reader", to: outs.map(({ name }) => name), afterDelivery }];
    return this.bench.start({ sources: [reader], targets: outs }, routes);
  }

  #insert(medium: string | undefined): void {
    const { reader } = this;
    if (reader.medium !== undefined) this.#shelf.set(reader.medium, new Map(reader.files));
    const files = medium === undefined ? undefined : this.#shelf.get(medium);
    reader.insert(medium, new Map(files));
  }

  /** Something is written to a medium, here or in a camera: often it looks like what another has. */
  #write(medium: string): void {
    const { random, reader } = this;
    const path = `${random.below(4)}.JPG`;
    const isIn = reader.medium === medium;
    const files = isIn ? reader.files : this.#shelf.get(medium);
    if (files === undefined) return;
    const camera = {
      files,
      put: (at: string, bytes: Buffer | string, modifiedMs = 0) => void files.set(at, { bytes: Buffer.from(bytes), modifiedMs }),
    };
    const drawn = random.next();
    if (drawn < 0.5) this.grow(camera, path, random.pick([10, 3000, 30_000, 150_000]));
    else if (drawn < 0.7) this.put(camera, path, random.bytes(random.pick([10, 3000, 30_000])));
    else {
      const others = [...this.#shelf].filter(([name]) => name !== medium && name !== reader.medium);
      const like = random.pick(others)[1].get(path);
      if (like === undefined || files.has(path)) return;
      this.put(camera, path, random.bytes(like.bytes.length));
      const put = files.get(path);
      if (put !== undefined) put.modifiedMs = like.modifiedMs;
    }
    if (isIn) reader.changes$.next();
  }

  #format(medium: string): void {
    this.history.push(`${medium} is formatted`);
    if (this.reader.medium === medium) this.reader.files.clear();
    else this.#shelf.get(medium)?.clear();
  }

  /** A target comes back as it was before: a disk that had not written all, or another's copy of it. */
  #goesBack(out: FakeDevice): void {
    const image = this.#images.get(out);
    this.history.push(`${out.name} ${image === undefined ? "is remembered" : "is as it was before"}`);
    out.attach(false);
    if (image === undefined) this.#images.set(out, { files: new Map(out.files), partials: new Map(out.partials) });
    else {
      for (const [path, { bytes }] of out.files) if (image.files.get(path)?.bytes !== bytes) this.#undone.get(out)?.push(bytes);
      out.files.clear();
      out.partials.clear();
      for (const [path, file] of image.files) Map.prototype.set.call(out.files, path, file);
      if (this.random.below(2) === 0) for (const [path, bytes] of image.partials) out.partials.set(path, bytes);
      this.#images.delete(out);
    }
    out.attach(true);
  }

  async step(): Promise<void> {
    const { random, bench, reader } = this;
    const what = random.next();
    if (what < 0.35) this.#write(reader.medium !== undefined && random.below(4) > 0 ? reader.medium : random.pick(["A", "B", "C"]));
    else if (what < 0.5) {
      const medium = random.pick(["A", "B", "C", ""]);
      this.history.push(`${medium} is in`);
      this.#insert(medium === "" ? undefined : medium);
    } else if (what < 0.58) bench.daemon.engine.relist$.next("reader");
    else if (what < 0.7) this.goOn();
    else if (what < 0.8) random.pick(this.outs).attach(true);
    else if (what < 0.84) random.pick(this.outs).attach(false);
    else if (what < 0.91) {
      const out = random.pick(this.outs);
      // By its size alone another that has its name cannot be told from what was there.
      if (out.features.target?.digests?.length !== 0) this.#goesBack(out);
    } else if (what < 0.93) this.#format(random.pick(["A", "B", "C"]));
    else if (what < 0.96) {
      const how = random.pick(["stop", "kill", "kill"] as const);
      this.history.push(how);
      await bench[how]();
      await this.start();
    }
    await sleep(random.below(25));
  }

  #wasDelivered(out: FakeDevice, path: string, { length }: Buffer): boolean {
    return this.bench.events.some(
      ({ what, message }) =>
        what === "delivered" && message.startsWith(`reader:${path} → ${out.name}:`) && message.includes(` (${length} bytes, `),
    );
  }

  /** What has not come of what is on a medium. */
  #lacks(files: Files): string | undefined {
    for (const [path, { bytes }] of files)
      for (const out of this.outs) {
        const isUndone = this.#isUndone(out, bytes) && this.#wasDelivered(out, path, bytes);
        if (!isUndone && !holds(out, path, bytes)) return `${path}: ${bytes.length} bytes have not come to ${out.name}`;
      }
    return undefined;
  }

  #missing(): string | undefined {
    const { reader, bench } = this;
    for (const { name } of this.outs) {
      const waits = bench.daemon.engine.journal.all<{ path: string; state: string; reason: string | null }>(
        "SELECT path, state, reason FROM deliveries WHERE target = ? AND medium = ? AND state NOT IN ('done', 'dropped')",
        name,
        reader.medium ?? "",
      );
      const [first] = waits;
      if (first !== undefined) return `${first.path} to ${name} is ${first.state}: ${first.reason ?? ""}`;
    }
    if (this.afterDelivery === "delete" && reader.files.size > 0) return `stay at the source: ${[...reader.files.keys()].join(", ")}`;
    return this.#lacks(reader.files);
  }

  async end(): Promise<void> {
    this.calm();
    for (const medium of ["A", "B", "C"]) {
      this.#insert(medium);
      const end = performance.now() + 30_000;
      for (let n = 0; this.#missing() !== undefined; n++) {
        if (n % 40 === 0) for (const out of this.outs) out.attach(true);
        if (n % 40 === 0) this.bench.daemon.engine.relist$.next("reader");
        assert.ok(performance.now() < end, `${medium}: ${this.#missing() ?? ""}`);
        await sleep(20);
      }
    }
    for (const { name } of this.outs) {
      const open = this.bench.states(name).filter((state) => state !== "done" && state !== "dropped");
      assert.deepEqual(open, [], name);
    }
    for (const out of this.outs) this.wrong.push(...twice(out));
    await emptied(this.bench);
  }
}

test("media that are changed, and targets that come back as they were before", async (t) => {
  for (let round = 0; round < rounds; round++) await live(new MediaHistory(new Bench(t), seed * 1000 + round));
});
