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

test("however many wait on one signal, nothing is said of a leak", async (t) => {
  const warned: string[] = [];
  const onWarning = ({ message }: Error) => void warned.push(message);
  process.on("warning", onWarning);
  t.after(() => process.removeListener("warning", onWarning));
  const turns = new Turns();
  const { signal } = new AbortController();
  await Promise.all(Array.from({ length: 30 }, () => turns.run(signal, () => new Promise((resolve) => setImmediate(resolve)))));
  assert.deepEqual(warned, []);
});

test("more than so many while there may be more, and all together are small: nobody is passed", async () => {
  let more: { uploads: number; bytes: number } | undefined = { uploads: 3, bytes: 100 };
  const turns = new Turns(1, () => more);
  const begun: string[] = [];
  const ends = new Map<string, () => void>();
  const ask = (name: string, size?: number) =>
    turns.run(
      undefined,
      () => {
        begun.push(name);
        return new Promise<void>((resolve) => ends.set(name, resolve));
      },
      size,
    );
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  const end = async (name: string) => {
    ends.get(name)?.();
    ends.delete(name);
    await turn();
  };
  const asked = [ask("large", 90), ask("small", 10), ask("full", 1)];
  await turn();
  assert.deepEqual(begun, ["large", "small"]);
  asked.push(ask("unknown"), ask("empty", 0));
  await end("large");
  assert.deepEqual(begun, ["large", "small", "full"]);
  await end("small");
  await end("full");
  assert.deepEqual(begun, ["large", "small", "full", "unknown", "empty"]);
  asked.push(ask("third", 1), ask("fourth", 1), ask("fifth", 1));
  await turn();
  assert.deepEqual(begun.slice(5), ["third"]);
  more = undefined;
  for (const name of ["unknown", "empty"]) await end(name);
  assert.deepEqual(begun.slice(5), ["third"]);
  more = { uploads: 9, bytes: 100 };
  await end("third");
  assert.deepEqual(begun.slice(5), ["third", "fourth", "fifth"]);
  for (const name of ["fourth", "fifth"]) await end(name);
  await Promise.all(asked);
  assert.equal(turns.wanted, false);
});
