/**
 * A single shot beside a target that goes on at the byte, each with a budget, drawn by a seed: requests break, answers are lost, the program is killed, days pass. Nothing is sent twice that nobody asked for, each
 * content arrives, and on no day come more bytes than the budget has. SEED=7 ROUNDS=500 is another, longer one; what runs beside what is not the seed's alone.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { retry } from "../../core/amend.js";
import type { DeliveryRow } from "../../core/rows.js";
import { Bench, FakeDevice } from "../fake-device.js";
import { PostBox } from "../post-box.js";
import { holds, live, Scene, twice } from "./scene.js";

const seed = Number(process.env.SEED ?? 1);
const rounds = Number(process.env.ROUNDS ?? 3);
const dayMs = 86_400_000;
const largest = 200_000;

class ShotHistory extends Scene {
  readonly card: FakeDevice;
  readonly box: PostBox;
  readonly out: FakeDevice;
  readonly budget: { readonly day: number; readonly month?: number } | undefined;
  /** "answers": it can be asked what it took; "cannot say", or nobody can be asked. */
  readonly asked: "answers" | "cannot say" | "never";
  readonly history: string[] = [];
  /** What the server took whole, and when. */
  readonly took: { readonly path: string; readonly bytes: Buffer; readonly atMs: number }[] = [];
  /** A person said that it is sent again. */
  readonly decided: { readonly path: string; readonly size: number }[] = [];
  #outCame = 0;
  #before = { box: 0, out: 0 };
  #monthBytes = new Map<string, number>();
  #files = 0;
  /** What it does after the moment in which it is killed nobody sees. */
  #killed = false;

  constructor(
    readonly bench: Bench,
    seed: number,
  ) {
    super(seed);
    const { random } = this;
    this.asked = random.pick(["answers", "answers", "cannot say", "never"]);
    const budget = random.pick([{ day: 400_000 }, { day: 250_000 }, { day: 300_000, month: 1_500_000 }]);
    this.budget = random.below(4) === 0 ? undefined : budget;
    const inPlace = random.below(3) === 0;
    this.card = new FakeDevice("card", { inPlace, chunk: random.pick([4096, 65536]), concurrency: random.between(1, 3) });
    this.box = new PostBox("box", random.pick(["ask", "again"]));
    this.out = new FakeDevice("out", {
      target: { resume: random.below(2) === 0, digests: random.below(2) === 0 ? ["sha256"] : [], concurrency: random.between(1, 3) },
    });
    for (const device of this.devices) this.trouble(device);
    this.watch(this.out);
    const { box, out } = this;
    const found = (path: string, size: number) => {
      const has = this.took.some((it) => it.path === path && it.bytes.length === size);
      return has ? box.receipt(path, size) : "absent";
    };
    if (this.asked !== "never") box.lookup = this.asked === "answers" ? found : () => "unknown";
    for (const device of this.devices) {
      const trouble = device.before;
      device.before = (call, signal) => {
        if (call.startsWith("took ")) this.#taken();
        return this.#killed ? new Promise(() => undefined) : trouble(call, signal);
      };
    }
    const give = out.partials.set.bind(out.partials);
    out.partials.set = (path, bytes) => {
      if (!this.#killed) this.#outCame += bytes.length - (out.partials.get(path)?.length ?? 0);
      return give(path, bytes);
    };
  }

  get devices(): readonly FakeDevice[] {
    return [this.card, this.box, this.out];
  }

  get plan(): string {
    const { asked, budget, card, out, box } = this;
    return JSON.stringify({ asked, budget, whenInDoubt: box.whenInDoubt, card: card.features, out: out.features });
  }

  #taken(): void {
    const post = this.box.posts.at(-1);
    if (post === undefined) return;
    const { path, bytes } = post;
    const before = this.took.filter((it) => it.bytes.equals(bytes));
    const atMs = this.bench.clock.wallMs();
    this.took.push({ path, bytes, atMs });
    this.history.push(`the server has ${path}, ${bytes.length} bytes`);
    // Of a file that grows all the time, as far as that can be seen, what another began with goes, too.
    if (!(this.held.get(path) ?? []).some((it) => it.subarray(0, bytes.length).equals(bytes)))
      this.wrong.push(`${path}: a mixture of ${bytes.length} bytes`);
    const decided = this.decided.filter((it) => it.path === path && it.size === bytes.length).length;
    const [last] = before.slice(-1);
    const mayAgain = this.box.whenInDoubt === "again" && this.asked !== "answers" && last !== undefined && atMs - last.atMs >= dayMs;
    if (before.length > decided + (mayAgain ? 1 : 0)) this.wrong.push(`${path}: ${bytes.length} bytes are sent ${before.length + 1} times`);
  }

  start(): Promise<unknown> {
    const { card, box, out, budget } = this;
    const routes = [{ from: "card", to: ["box", "out"] }];
    return this.bench.start(
      { sources: [card], targets: [box, out] },
      routes,
      budget === undefined ? {} : { device: { budget, intervalMs: 1000 } },
    );
  }

  /** What came since the day began, held against the budget. */
  #count(): void {
    const { budget } = this;
    const came = { box: this.box.came - this.#before.box, out: this.#outCame - this.#before.out };
    this.#before = { box: this.box.came, out: this.#outCame };
    const now = new Date(this.bench.clock.wallMs());
    for (const [name, bytes] of Object.entries(came)) {
      const month = `${name} ${now.getFullYear()}-${now.getMonth()}`;
      const inMonth = (this.#monthBytes.get(month) ?? 0) + bytes;
      this.#monthBytes.set(month, inMonth);
      if (bytes > (budget?.day ?? Infinity)) this.wrong.push(`${name}: ${bytes} bytes came on one day`);
      if (inMonth > (budget?.month ?? Infinity)) this.wrong.push(`${name}: ${inMonth} bytes came in one month`);
    }
  }

  async #nextDay(days: number): Promise<void> {
    this.history.push(`${days} days pass`);
    await this.bench.stop();
    this.#count();
    this.bench.clock.offsetMs += days * dayMs;
    await this.start();
  }

  async step(): Promise<void> {
    const { random, card, bench } = this;
    const path = `log${random.below(4)}.bin`;
    const now = card.files.get(path)?.bytes;
    const what = random.next();
    // No two contents are as long as each other.
    const length = 1 + random.pick([10, 3000, 30_000, 100_000]) + 7 * this.#files++;
    if (what < 0.35) {
      if ((now?.length ?? 0) + length <= largest) this.grow(card, path, length);
    } else if (what < 0.42) this.put(card, path, random.bytes(length));
    else if (what < 0.48 && now !== undefined) this.put(card, path, now);
    else if (what < 0.6) bench.daemon.engine.relist$.next("card");
    else if (what < 0.72) this.goOn();
    else if (what < 0.84) random.pick(this.devices).attach(true);
    else if (what < 0.88) random.pick(this.devices).attach(false);
    else if (what < 0.92) {
      this.history.push("killed");
      const { came } = this.box;
      this.#killed = true;
      await bench.kill();
      this.#killed = false;
      this.box.came = came;
      await this.start();
    } else if (what < 0.95) await this.#nextDay(random.pick([1, 1, 31]));
    await sleep(random.below(25));
  }

  #open(): DeliveryRow[] {
    return this.bench.daemon.engine.journal.all<DeliveryRow>("SELECT * FROM deliveries WHERE state NOT IN ('done', 'dropped')");
  }

  missing(): string | undefined {
    const open = this.#open();
    if (open.length > 0) return open.map(({ path, target, state, reason }) => `${path} to ${target} is ${state} (${reason})`).join("; ");
    for (const [path, { bytes }] of this.card.files) {
      if (!this.took.some((it) => it.bytes.equals(bytes))) return `${path}: ${bytes.length} bytes have not come to box`;
      if (!holds(this.out, path, bytes)) return `${path}: ${bytes.length} bytes have not come to out`;
    }
    return undefined;
  }

  async end(): Promise<void> {
    this.calm();
    const end = performance.now() + 40_000;
    for (let n = 0; this.missing() !== undefined; n++) {
      if (n % 25 === 0) for (const device of this.devices) device.attach(true);
      if (n % 25 === 0) this.bench.daemon.engine.relist$.next("card");
      if (n % 50 === 49) await this.#nextDay(n % 500 === 499 ? 31 : 1);
      for (const { id, path, size } of this.#open().filter(({ state, fault }) => state === "parked" && fault === "indoubt")) {
        this.decided.push({ path, size });
        await retry(this.bench.daemon.engine, id, new AbortController().signal);
      }
      assert.ok(performance.now() < end, this.missing());
      await sleep(20);
    }
    this.#count();
    this.wrong.push(...twice(this.out));
  }
}

test("a single shot, and budgets, under requests that break and answers that are lost, as days pass", async (t) => {
  for (let round = 0; round < rounds; round++) await live(new ShotHistory(new Bench(t), seed * 1000 + round));
});
