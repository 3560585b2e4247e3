import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault, type FaultKind } from "./errors.js";
import { actionFor, backoffMs, countsAsTry, fullMsAfter, madeWayMsAfter, refusedMsAfter, costlyRefusedMsAfter } from "./retry.js";

const fresh = { tries: 0, restarts: 0, upMs: 0 };

const table: readonly [FaultKind, ReturnType<typeof actionFor>["do"], boolean][] = [
  ["offline", "wait", false],
  ["transient", "again", true],
  ["throttled", "again", false],
  ["full", "again", false],
  ["denied", "wait", false],
  ["conflict", "restart", true],
  ["mismatch", "restart", true],
  ["changed", "relist", false],
  ["missing", "relist", false],
  ["rejected", "park", false],
  ["indoubt", "park", false],
  ["config", "wait", false],
  ["aborted", "nothing", false],
];
for (const [kind, action, counted] of table)
  test(`${kind}: ${action}, ${counted ? "counted" : "not counted"} as a try`, () => {
    assert.equal(actionFor(new Fault(kind, "x"), fresh, 0.5).do, action);
    assert.equal(countsAsTry(new Fault(kind, "x")), counted);
  });

test("a restart is done once, then it is parked", () => {
  for (const kind of ["conflict", "mismatch"] as const)
    assert.deepEqual(actionFor(new Fault(kind, "x"), { ...fresh, restarts: 1 }, 0), { do: "park", fault: kind });
});

test("a mismatch reads the source in its safest mode", () => {
  assert.deepEqual(actionFor(new Fault("mismatch", "x"), fresh, 0), { do: "restart", safest: true });
});

test("throttled waits as it was told", () => {
  for (const kind of ["throttled", "transient"] as const)
    assert.deepEqual(actionFor(new Fault(kind, "x", { retryAfterMs: 7000 }), fresh, 0), { do: "again", afterMs: 7000 });
});

test("what is in doubt is looked for when it is said when, else set aside", () => {
  assert.deepEqual(actionFor(new Fault("indoubt", "x", { retryAfterMs: 1000 }), fresh, 0), { do: "again", afterMs: 1000 });
});

test("transient is never given up; what no rule names is parked after 20 tries without a byte", () => {
  assert.equal(actionFor(new Fault("transient", "x"), { ...fresh, tries: 10_000 }, 0).do, "again");
  assert.equal(actionFor(new Error("?"), { ...fresh, tries: 18 }, 0).do, "again");
  assert.deepEqual(actionFor(new Error("?"), { ...fresh, tries: 19 }, 0), { do: "park", fault: "unknown" });
});

test("backoff doubles from a second, jittered, to 30 s while power may last a minute, and to 5 min later", () => {
  for (let tries = 0; tries < 30; tries++)
    for (const random of [0, 0.5, 0.999]) {
      const early = backoffMs(tries, 0, random);
      const late = backoffMs(tries, 3_600_000, random);
      assert.ok(early >= Math.min(30_000, 1000 * 2 ** tries) / 2 && early <= 30_000);
      assert.ok(late >= Math.min(300_000, 1000 * 2 ** tries) / 2 && late <= 300_000);
    }
});

test("one file that a target refused by itself is tried again after a minute, two, and so on up to ten", () => {
  assert.deepEqual([0, 1, 2, 3, 4, 10_000].map(refusedMsAfter), [60_000, 120_000, 240_000, 480_000, 600_000, 600_000]);
});

test("what costs the whole file each time is tried again after more than the minute for which that is left alone, up to an hour", () => {
  assert.deepEqual(
    [0, 1, 2, 3, 4, 5, 10_000].map((tries) => costlyRefusedMsAfter(tries) / 60_000),
    [2, 4, 8, 16, 32, 60, 60],
  );
});

test("a file for which a full target has no room again and again waits for the turns of others, up to an hour; alone it does not", () => {
  const seconds = (waiting: number) => [0, 1, 2, 5, 10_000].map((tries) => fullMsAfter(tries, waiting, 0) / 1000);
  assert.deepEqual([1, 3, 61, 1000].map(seconds), [
    [10, 10, 10, 10, 10],
    [20, 30, 30, 30, 30],
    [20, 40, 80, 610, 610],
    [20, 40, 80, 640, 3600],
  ]);
  assert.deepEqual(
    [1, 70].map((waiting) => fullMsAfter(10, waiting, 2000)),
    [10_000, 70 * 12_000],
    "a turn is as long as its try, too",
  );
});

test("what made way at a full target is due after a minute, the second time after ten, and so on up to six hours", () => {
  assert.deepEqual(
    [0, 1, 2, 3, 4, 10_000].map((times) => madeWayMsAfter(times) / 60_000),
    [1, 10, 40, 160, 360, 360],
  );
});
