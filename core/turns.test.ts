/** Whose turn it is. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { isFault } from "./errors.js";
import { Turns } from "./turns.js";

test("so many turns at once, in the order of asking; who is withdrawn leaves the place to the next, and a failure ends a turn", async () => {
  for (const atOnce of [1, 2]) {
    const turns = new Turns(atOnce);
    const begun: number[] = [];
    const ends: ((error?: Error) => void)[] = [];
    const stop = new AbortController();
    const asked = [1, 2, 3, 4, 5].map((n) =>
      turns.run(n === 4 ? stop.signal : undefined, () => {
        begun.push(n);
        return new Promise<number>((resolve, reject) => (ends[n] = (error) => (error === undefined ? resolve(n) : reject(error))));
      }),
    );
    const outcomes = Promise.allSettled(asked);
    const turn = () => new Promise((resolve) => setImmediate(resolve));
    await turn();
    assert.deepEqual(begun, [1, 2].slice(0, atOnce));
    assert.equal(turns.wanted, true);
    stop.abort();
    for (const n of [1, 2, 3, 5]) {
      ends[n]?.(n === 2 ? new Error("it failed") : undefined);
      await turn();
      assert.deepEqual(begun, [1, 2, 3, 5].slice(0, [1, 2, 3, 5].indexOf(n) + 1 + atOnce));
    }
    assert.equal(turns.wanted, false);
    const told = (await outcomes).map((it) =>
      it.status === "fulfilled" ? it.value : isFault(it.reason) ? it.reason.kind : String(it.reason),
    );
    assert.deepEqual(told, [1, "Error: it failed", 3, "aborted", 5]);
    assert.equal(await turns.run(undefined, () => Promise.resolve("free again")), "free again");
  }
});
