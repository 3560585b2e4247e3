/** When a source is listed: what asks for it, and how long it is left alone. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Bench, FakeDevice, until } from "../fake-device.js";

test("a source is listed once when it attaches, and left alone afterwards for as long as that took", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  let aheadMs = 0;
  bench.clock.monotonicMs = () => performance.now() + aheadMs;
  card.before = async (call) => {
    if (call !== "list") return;
    // Timers of no time at all have ended by then.
    await sleep(10);
    aheadMs += 3600_000;
  };
  await bench.start({ sources: [card], targets: [new FakeDevice("out")] }, [{ from: "card", to: ["out"] }], { device: { intervalMs: 1 } });
  const finder = bench.daemon.engine.finders.get("card");
  const lists = () => card.calls.filter((call) => call === "list").length;
  await until(bench, "the first listing", () => finder?.listings === 1);
  await sleep(10);
  assert.deepEqual([lists(), finder?.busy], [1, false]);
  bench.daemon.engine.relist$.next("card");
  await until(bench, "what asks for it is listed at once", () => finder?.listings === 2);
});

test("what hints that a source has changed is listed at once, or, where that took long a moment ago, once it was left alone", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  let [aheadMs, tookMs] = [0, 0];
  bench.clock.monotonicMs = () => performance.now() + aheadMs;
  card.before = (call) => {
    if (call === "list") aheadMs += tookMs;
    return Promise.resolve();
  };
  await bench.start({ sources: [card], targets: [new FakeDevice("out")] }, [{ from: "card", to: ["out"] }], {
    device: { intervalMs: Infinity },
  });
  const finder = bench.daemon.engine.finders.get("card");
  await until(bench, "the first listing", () => finder?.listings === 1);
  card.changes$.next();
  await until(bench, "a hint", () => finder?.listings === 2);
  tookMs = 3600_000;
  bench.daemon.engine.relist$.next("card");
  await until(bench, "one that takes an hour", () => finder?.listings === 3 && !finder.busy);
  for (let i = 0; i < 10; i++) {
    card.changes$.next();
    await sleep(2);
  }
  assert.deepEqual([finder?.listings, finder?.busy], [3, false]);
});
