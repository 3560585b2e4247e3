/** A bench whose clock goes as fast as the engine: what becomes of a target in hours. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import type { TestContext } from "node:test";
import type { DeliveryRow } from "../../core/rows.js";
import { Bench, FakeDevice, until } from "../fake-device.js";

export const t0 = Date.UTC(2026, 4, 1);
export const second = 1000;
export const minute = 60 * second;

export const oneByOne = () => new FakeDevice("out", { target: { concurrency: 1 } });

/** Two sources, one target. The later a file, the sooner it goes. */
export class Hours {
  readonly bench: Bench;
  /** Its files have weight 10. */
  readonly card = new FakeDevice("card", { inPlace: true });
  /** Its files have weight 1. */
  readonly other = new FakeDevice("other", { inPlace: true });
  /** Bytes that were sent, by the path. */
  readonly sent = new Map<string, number>();
  #skippedMs = 0;

  constructor(
    t: TestContext,
    readonly out: FakeDevice,
    room: number,
  ) {
    this.bench = new Bench(t);
    this.bench.clock.monotonicMs = () => performance.now() + this.#skippedMs;
    out.room = room;
    const set = out.partials.set.bind(out.partials);
    out.partials.set = (name, bytes) => {
      const more = bytes.length - (out.partials.get(name)?.length ?? 0);
      const path = name.slice(1, name.indexOf(".bin") + 4);
      this.sent.set(path, (this.sent.get(path) ?? 0) + more);
      return set(name, bytes);
    };
  }

  async start(): Promise<void> {
    await this.bench.start({ sources: [this.card, this.other], targets: [this.out] }, [
      { from: "card", to: ["out"], weight: 10 },
      { from: "other", to: ["out"], weight: 1 },
    ]);
  }

  get engine() {
    return this.bench.daemon.engine;
  }

  get lane() {
    return this.engine.lanes.get("out") ?? assert.fail();
  }

  row(path: string): DeliveryRow {
    return this.engine.journal.get<DeliveryRow>("SELECT * FROM deliveries WHERE path = ?", path) ?? assert.fail(`no ${path}`);
  }

  /** So long until it is due. */
  waitsMs(path: string): number {
    return this.row(path).not_before - this.bench.clock.monotonicMs();
  }

  held(): string[] {
    return [...this.out.partials].filter(([, { length }]) => length > 0).map(([name, { length }]) => `${name.slice(1, 2)} ${length}`);
  }

  get gave(): string[] {
    return this.bench.events.map(({ message }) => message).filter((message) => message.includes("is taken away there"));
  }

  async arrives(path: string, bytes: number, second: number, from = this.card): Promise<void> {
    from.put(path, randomBytes(bytes), t0 + second * 1000);
    this.engine.relist$.next(from.name);
    await until(this.bench, "found", () => this.engine.journal.get("SELECT 1 FROM deliveries WHERE path = ?", path) !== undefined);
    await this.#rests();
  }

  /** Nothing is sent, nor could be now. */
  async #rests(): Promise<void> {
    const { engine, lane } = this;
    await until(this.bench, "rest", () => {
      const isActive = engine.journal.get("SELECT 1 FROM deliveries WHERE state = 'active'") !== undefined;
      const isIdle = engine.queue.pushing.size === 0 && !isActive;
      return isIdle && (lane.pausedMs > 0 || engine.queue.best("out") === undefined);
    });
  }

  /** So often a small file comes that this makes way for: it waits for longer each time. */
  async makesWay(path: string, times: number): Promise<void> {
    for (let n = 0; n < times; n++) {
      await this.arrives(`s${n}.bin`, 1_000_000, 5 - n, this.other);
      await this.passes(15 * minute, () => this.out.files.has(`s${n}.bin`));
      await this.passes(Math.max(0, this.waitsMs(path)) + 5 * minute);
    }
  }

  /** A condition holds it back. */
  async holds(path: string): Promise<void> {
    await this.engine.journal.apply(() => this.engine.queue.putOff(this.row(path).id, 1e15, "at night only"));
  }

  /** So much later. */
  skips(ms: number): void {
    this.#skippedMs += ms;
    this.lane.wake$.next();
    this.engine.work$.next();
  }

  /** Time passes, until it is so or that long. False where it is not so then. */
  async passes(ms: number, isSo: () => boolean = () => false): Promise<boolean> {
    const { clock } = this.bench;
    const endMs = clock.monotonicMs() + ms;
    for (;;) {
      await this.#rests();
      const now = clock.monotonicMs();
      if (isSo()) return true;
      if (now >= endMs) return false;
      const due = this.engine.journal.get<{ at: number | null }>(
        "SELECT MIN(not_before) AS at FROM deliveries WHERE target = 'out' AND state IN ('ready', 'discard')",
      );
      const next = Math.max(now + this.lane.pausedMs, due?.at ?? endMs) + 1;
      this.skips(Math.max(1, Math.min(next, endMs) - now));
    }
  }
}
