import assert from "node:assert/strict";
import { setImmediate as turn } from "node:timers/promises";
import { test, type TestContext } from "node:test";
import { Subject } from "./rxjs.js";
import { Looks } from "./looks.js";

/** Looks that end when the test says so. */
function bench(t: TestContext) {
  const begun: { end: () => void; fail: (error: Error) => void }[] = [];
  const state = { may: true };
  const looks = new Looks(
    () =>
      new Promise<void>((end, fail) => {
        begun.push({ end, fail });
      }),
    () => state.may,
  );
  const hints$ = new Subject<void>();
  const stopping = new AbortController();
  const run = looks.run(hints$, stopping.signal);
  let settled = false;
  run.then(
    () => (settled = true),
    () => (settled = true),
  );
  /** The nth look, once it has begun. */
  const nth = async (n: number) => {
    while (begun[n] === undefined) await turn();
    return begun[n];
  };
  t.after(() => {
    stopping.abort();
    for (const { end } of begun) end();
  });
  return { looks, begun, nth, hints$, stopping, run, state, settled: () => settled };
}

test("hints while a look runs lead to exactly one more", async (t) => {
  const { looks, begun, nth, hints$ } = bench(t);
  assert.equal(looks.busy, false);
  hints$.next();
  assert.equal(looks.busy, true);
  const first = await nth(0);
  for (let i = 0; i < 3; i++) hints$.next();
  looks.hint();
  await turn();
  assert.equal(begun.length, 1, "never two at once");
  first.end();
  (await nth(1)).end();
  await turn();
  assert.equal(begun.length, 2);
  assert.equal(looks.busy, false);
  looks.hint();
  await nth(2);
});

test("stop ends it once the look that runs has ended, and no other begins", async (t) => {
  const { begun, nth, hints$, stopping, run, settled } = bench(t);
  hints$.next();
  const { end } = await nth(0);
  hints$.next();
  stopping.abort();
  await turn();
  assert.equal(settled(), false);
  assert.equal(hints$.observed, false);
  end();
  await run;
  assert.equal(begun.length, 1);
});

test("stop ends it at once where nothing runs; where it was given before, nothing begins", async (t) => {
  const { begun, looks, stopping, run } = bench(t);
  await turn();
  stopping.abort();
  await run;
  looks.hint();
  await looks.run(new Subject(), AbortSignal.abort());
  assert.equal(begun.length, 0);
});

test("what a look throws, run rejects with; no other begins", async (t) => {
  const { begun, looks, nth, hints$, run } = bench(t);
  hints$.next();
  const { fail } = await nth(0);
  hints$.next();
  fail(new Error("the journal is gone"));
  await assert.rejects(run, /the journal is gone/);
  looks.hint();
  await turn();
  assert.equal(hints$.observed, false);
  assert.equal(begun.length, 1);
});

test("a hint for later takes the place of the one before, and goes with the end", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const { begun, looks, nth, stopping, run } = bench(t);
  looks.hintIn(1000);
  looks.hintIn(5000);
  t.mock.timers.tick(4999);
  assert.equal(looks.busy, false);
  t.mock.timers.tick(1);
  const { end } = await nth(0);
  looks.hintIn(1000);
  stopping.abort();
  // Asked for by the look that still runs.
  looks.hintIn(2000);
  end();
  await run;
  t.mock.timers.tick(10_000);
  assert.equal(looks.busy, false);
  assert.equal(begun.length, 1);
});

test("a hint while no look may begin is none; one that was due then waits for the next", async (t) => {
  const { begun, looks, nth, hints$, state } = bench(t);
  state.may = false;
  hints$.next();
  assert.equal(looks.busy, false);
  state.may = true;
  hints$.next();
  const { end } = await nth(0);
  hints$.next();
  state.may = false;
  end();
  await turn();
  assert.equal(begun.length, 1);
  assert.equal(looks.busy, true);
  state.may = true;
  hints$.next();
  await nth(1);
});
