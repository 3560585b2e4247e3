import assert from "node:assert/strict";
import { test } from "node:test";
import type { Clock } from "../plugin.js";
import { SideClock } from "./side-clock.js";

const hourMs = 3_600_000;
const dayMs = Date.UTC(2026, 4, 28);

/** A side whose clock was so far ahead of a machine that has run for `upMs`. */
function scene() {
  let upMs = 1000;
  let aheadMs = dayMs;
  const machine = { monotonicMs: () => upMs, wallMs: () => 0 } as Clock;
  const clock = new SideClock({}, machine);
  return {
    clock,
    pass: (ms: number) => (upMs += ms),
    set: (ms: number) => (aheadMs += ms),
    shows: () => aheadMs + upMs,
    read: () => clock.read(() => Promise.resolve(aheadMs + upMs)),
  };
}

test("a time to come is doubted once the clock was not just read, and believed where it is still to come behind another reading", async () => {
  const { clock, pass, shows, read } = scene();
  await read();
  clock.begins();
  assert.equal(clock.doubts("a", shows() + hourMs), false, "it was just read");
  assert.equal(clock.doubts("now", shows()), false);
  clock.begins();
  assert.equal(clock.isOld, false);
  pass(5000);
  const to = shows() - 5000 + hourMs;
  assert.equal(clock.doubts("a", to), false, "it was to come before");
  assert.equal(clock.doubts("b", to), true);
  assert.equal(clock.doubts("now", shows()), false);
  assert.equal(clock.isOld, true);
  await read();
  clock.begins();
  assert.equal(clock.isOld, false);
  assert.equal(clock.doubts("b", to), false);
});

test("a clock that was set forward is noticed by what is written then, and read once more", async () => {
  const { clock, pass, set, shows, read } = scene();
  await read();
  clock.begins();
  set(hourMs);
  pass(1000);
  clock.begins();
  assert.equal(clock.doubts("log", shows()), true);
  assert.equal(clock.isOld, true);
  await read();
  assert.ok(clock.now().leastMs <= shows() && shows() <= clock.now().mostMs);
  assert.equal(clock.doubts("log", shows()), false, "it is no time to come any more");
});

test("a reading that was long before a listing is none of its", async () => {
  const { clock, pass, shows, read } = scene();
  await read();
  pass(60_000);
  clock.begins();
  assert.equal(clock.doubts("a", shows() + hourMs), true);
  assert.equal(clock.isOld, true);
});

test("a clock is read each hour, also where it could not be read; one that was never read is not doubted", async () => {
  const { clock, pass, shows, read } = scene();
  assert.equal(clock.isOld, false);
  assert.equal(clock.doubts("a", shows() + hourMs), false);
  await read();
  const { leastMs } = clock.now();
  clock.begins();
  pass(hourMs);
  assert.equal(clock.isOld, true);
  await assert.rejects(clock.read(() => Promise.reject(new Error("no room"))));
  assert.equal(clock.isOld, false);
  assert.equal(clock.now().leastMs, leastMs + hourMs, "what was read before counts");
});
