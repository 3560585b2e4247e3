/** Clocks that jump in both directions never take away what has not been seen for long enough. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Ages, aged, lookEveryMs } from "./trash.js";

const day = 86_400_000;

/** After how many looks, at these days of the clock, it is old; -1: never. */
function looks(days: readonly number[], keep: number): number {
  let ages: Ages = {};
  for (const [n, at] of days.entries()) {
    const { old, ages: next } = aged(ages, ["x"], at * day, keep * day);
    if (old.length > 0) {
      assert.deepEqual(next, {});
      return n;
    }
    ages = next;
  }
  return -1;
}

test("each day counts once, a longer time by a week at most", () => {
  assert.equal(
    looks(
      Array.from({ length: 60 }, (_, n) => n),
      30,
    ),
    30,
  );
  assert.equal(looks([0, 7, 14, 21, 28, 35], 30), 5);
  assert.equal(looks([0, 100, 200, 300, 400, 500], 30), 5);
});

test("one clock that is wrong takes nothing away, however far", () => {
  assert.equal(looks([0, 3650, 1, 3651, 2], 30), -1);
  assert.equal(looks([0, 3650, 1, 8, 15, 22, 29], 30), 6);
  assert.equal(looks([-20_000, 0, 1, 2, 3], 30), -1);
  // Of one day no more than a quarter by each look.
  assert.equal(looks([0, 1000, 2000, 3000, 4000], 1), 4);
});

test("a clock that goes back at each start, and is put right then, counts nothing twice; after one that was far ahead each day and week counts", () => {
  const flaps = Array.from({ length: 40 }, (_, n) => (n % 2 === 0 ? 0 : 400 + n / 2));
  assert.equal(looks(flaps, 30), -1);
  const daily = Array.from({ length: 40 }, (_, n) => n + 1);
  assert.equal(looks([0, 3650, ...daily], 30), 2 + 30 - 7);
  const monthly = Array.from({ length: 12 }, (_, n) => 30 * n + 1);
  assert.equal(looks([0, 3650, ...monthly], 30), 2 + 4);
});

test("what came last in a day is kept as long as what came first: looks at every hour", () => {
  const name = "2026-05-01";
  const from = Date.parse(name);
  for (const keep of [1, 2, 30]) {
    let ages: Ages = {};
    for (let hour = 0.1; ; hour++) {
      const { old, ages: next } = aged(ages, [name], from + hour * 3_600_000, keep * day);
      ages = next;
      if (old.length === 0) continue;
      assert.ok(hour >= 24 * (1 + keep) && hour < 24 * (1 + keep) + 2, `${keep} days: ${hour} h after the day began`);
      break;
    }
  }
  // Of a clock that was ahead, or behind, when it was made.
  for (const begins of [-100, 100]) {
    let ages: Ages = {};
    for (let at = 0; at <= 30; at++) {
      const { old, ages: next } = aged(ages, [name], from + (begins + at) * day, 30 * day);
      assert.equal(old.length, at === 30 ? 1 : 0, String(at));
      ages = next;
    }
  }
});

test("looked at as often as it is, a day is kept as long as it is to be, and hardly longer", () => {
  const from = Date.parse("2026-05-01");
  for (const keep of [1, 2, 3, 4, 30]) {
    const every = lookEveryMs(keep * day);
    let [ages, at] = [{} as Ages, 23 / 24];
    for (let gone = false; !gone; at += every / day) {
      const next = aged(ages, ["2026-05-01"], from + at * day, keep * day);
      [ages, gone] = [next.ages, next.old.length > 0];
    }
    const days = at - every / day;
    assert.ok(days >= 1 + keep && days < 1 + keep + 1, `${keep} days: ${days} days after the day began`);
  }
});

test("what is not there any more is forgotten, and new when it comes again", () => {
  const { ages } = aged({ a: { forMs: 29 * day, atMs: 0 }, b: { forMs: 0, atMs: 0 } }, ["b"], day, 30 * day);
  assert.deepEqual(ages, { b: { forMs: day, atMs: day, counted: [[0, day]] } });
});
