import assert from "node:assert/strict";
import { test } from "node:test";
import type { Chunk, Clock, Reading } from "./plugin.js";
import { paced, pacedBytes, Throttle } from "./throttle.js";

const never = new AbortController().signal;
const chunkBytes = 512 * 1024;

/** Time goes on to the next who sleeps, once all that could be done by then is. */
class Ahead implements Clock {
  ms = 0;
  readonly #sleeping: { readonly atMs: number; readonly wake: () => void }[] = [];
  monotonicMs = () => this.ms;
  wallMs = () => this.ms;
  trusted = () => true;
  sleep = (ms: number) => new Promise<void>((wake) => void this.#sleeping.push({ atMs: this.ms + ms, wake }));

  async until(done: Promise<unknown>): Promise<void> {
    let over = false;
    const end = done.finally(() => (over = true));
    for (;;) {
      await new Promise((resolve) => setImmediate(resolve));
      if (over) break;
      this.#sleeping.sort((a, b) => a.atMs - b.atMs);
      const next = this.#sleeping.shift();
      assert.ok(next !== undefined, "nobody sleeps, and it is not done");
      this.ms = next.atMs;
      next.wake();
    }
    await end;
  }
}

interface Went {
  readonly atMs: number;
  readonly bytes: number;
}

/** So many chunks; `released` counts how often each was given back. */
function chunksOf(count: number, released: number[] = []): Reading {
  let n = 0;
  return {
    next: () => {
      if (n === count) return Promise.resolve(undefined);
      const at = n++;
      released[at] = 0;
      return Promise.resolve({ bytes: Buffer.alloc(chunkBytes, at), release: () => void (released[at] = (released[at] ?? 0) + 1) });
    },
    close: () => undefined,
  };
}

async function* bytesOf(reading: Reading): AsyncGenerator<Buffer> {
  for (let chunk = await reading.next(); chunk !== undefined; chunk = await reading.next()) yield chunk.bytes;
}

async function read(reading: Reading, clock: Clock, went: Went[]): Promise<void> {
  for await (const bytes of bytesOf(reading)) went.push({ atMs: clock.monotonicMs(), bytes: bytes.length });
}

/** No second with less than half of the rate, none with more than that and a piece; all of it within 2 % of the rate. */
function expectEven(went: readonly Went[], rate: number, of: string, piece = rate / 4): void {
  const seconds: number[] = [];
  let [sum, end] = [0, 0];
  for (const { atMs, bytes } of went) {
    const n = Math.floor(atMs / 1000);
    seconds[n] = (seconds[n] ?? 0) + bytes;
    sum += bytes;
    end = atMs;
  }
  const told = `${of} ${rate}: ${Array.from(seconds, (bytes) => bytes ?? 0)
    .slice(0, 40)
    .join(" ")}`;
  for (let n = 0; n < seconds.length - 1; n++) assert.ok((seconds[n] ?? 0) >= rate / 2 && (seconds[n] ?? 0) <= rate + piece, told);
  assert.ok(Math.abs(sum / (end / 1000) / rate - 1) <= 0.02, `${told}: ${sum} bytes in ${end} ms`);
}

test("what is slow goes evenly, also of long chunks, as a reading and as a stream", async () => {
  for (const rate of [1000, 10_000, 30_000, 100_000, 499_999]) {
    for (const stream of [false, true]) {
      const clock = new Ahead();
      const throttle = new Throttle(rate, clock);
      const went: Went[] = [];
      const reading = paced(chunksOf(2), [throttle], never);
      const bytes = async () => {
        for await (const piece of pacedBytes(bytesOf(chunksOf(2)), throttle, never)) went.push({ atMs: clock.ms, bytes: piece.length });
      };
      await clock.until(stream ? bytes() : read(reading, clock, went));
      expectEven(went, rate, stream ? "stream" : "reading");
    }
  }
});

test("rates one after the other, in one place and in two: the lowest counts, and each of them is kept", async () => {
  for (const [source, route, device] of [
    [undefined, 30_000, 30_000],
    [30_000, 30_000, 30_000],
    [40_000, 30_000, 1_000_000],
    [30_000, 100_000, undefined],
    [1_000_000, 1000, 1000],
  ] as const) {
    const clock = new Ahead();
    const of = (rate: number | undefined) => new Throttle(rate, clock);
    const went: Went[] = [];
    await clock.until(read(paced(paced(chunksOf(2), [of(source)], never), [of(route), of(device)], never), clock, went));
    expectEven(went, Math.min(source ?? Infinity, route, device ?? Infinity), [source, route, device].join(", "));
  }
});

test("several that share a rate take turns, each with its own rate before it", async () => {
  const clock = new Ahead();
  const device = new Throttle(30_000, clock);
  const each: Went[][] = [[], [], []];
  const transfers = each.map((went) => read(paced(chunksOf(1), [new Throttle(400_000, clock), device], never), clock, went));
  await clock.until(Promise.all(transfers));
  const all = each.flat().sort((a, b) => a.atMs - b.atMs);
  expectEven(all, 30_000, "all");
  for (const went of each) expectEven(went, 10_000, "one of three", device.pieceBytes);
});

test("what is fast, or has no rate, passes as it came", async () => {
  for (const rate of [undefined, 500_000, 4_000_000]) {
    const clock = new Ahead();
    const throttle = new Throttle(rate, clock);
    const went: Went[] = [];
    await clock.until(read(paced(chunksOf(3), [undefined, throttle], never), clock, went));
    const endMs = rate === undefined ? 0 : (3 * chunkBytes * 1000) / rate;
    assert.deepEqual([went.map(({ bytes }) => bytes), Math.round(clock.ms)], [[chunkBytes, chunkBytes, chunkBytes], Math.round(endMs)]);
  }
});

test("a chunk is given back once, when all of its pieces were, in whatever order; none is a copy", async () => {
  const clock = new Ahead();
  const released: number[] = [];
  const reading = paced(chunksOf(2, released), [new Throttle(100_000, clock)], never);
  const pieces: Chunk[] = [];
  const all = async () => {
    for (let piece = await reading.next(); piece !== undefined; piece = await reading.next()) pieces.push(piece);
  };
  await clock.until(all());
  const of = (n: number) => pieces.filter(({ bytes }) => bytes[0] === n);
  assert.equal(new Set(of(0).map(({ bytes }) => bytes.buffer)).size, 1);
  const [first, ...others] = of(0);
  for (const { release } of others.reverse()) release();
  assert.deepEqual(released, [0, 0]);
  first?.release();
  assert.deepEqual(released, [1, 0]);
  for (const { release } of of(1)) release();
  assert.deepEqual(released, [1, 1]);
});

test("what is stopped while it waits ends with why", async () => {
  const stop = new AbortController();
  const sleep = (_ms: number, signal?: AbortSignal) =>
    new Promise<void>((_, reject) => signal?.addEventListener("abort", () => reject(new Error("stopped"))));
  const throttle = new Throttle(30_000, Object.assign(new Ahead(), { sleep }));
  const piece = paced(chunksOf(1), [throttle, new Throttle(20_000, throttle.clock)], stop.signal).next();
  await new Promise((resolve) => setImmediate(resolve));
  stop.abort();
  await assert.rejects(piece, /^Error: stopped$/);
});
