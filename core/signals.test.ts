import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";
import { abortedFault, isFault } from "./errors.js";
import { joinSignals, withinMs, withSignals } from "./signals.js";

test("given with the first of its sources, with that one's reason, also where it is given already", () => {
  const [one, two] = [new AbortController(), new AbortController()];
  const joined = joinSignals(one.signal, two.signal);
  assert.equal(joined.signal.aborted, false);
  two.abort(new Error("two"));
  one.abort(new Error("one"));
  assert.equal((joined.signal.reason as Error).message, "two");
  assert.equal((joinSignals(one.signal).signal.reason as Error).message, "one");
});

test("nothing of it stays at a source, whether the work went well or not, and a thousand at once are no leak", async () => {
  const warnings: string[] = [];
  const warn = (warning: Error) => warnings.push(warning.message);
  process.on("warning", warn);
  const long = new AbortController();
  const works = Array.from({ length: 1000 }, (_, n) =>
    withSignals([long.signal], async (signal) => {
      await new Promise((resolve) => setImmediate(resolve));
      assert.equal(signal.aborted, false);
      if (n % 2 === 0) throw new Error("failed");
      return n;
    }),
  );
  assert.equal(getEventListeners(long.signal, "abort").length, 1000);
  const ended = await Promise.allSettled(works);
  assert.equal(ended.filter(({ status }) => status === "rejected").length, 500);
  assert.equal(getEventListeners(long.signal, "abort").length, 0);
  await new Promise((resolve) => setImmediate(resolve));
  process.off("warning", warn);
  assert.deepEqual(warnings, []);
});

test("what is not done in time does not look as if somebody had stopped it", async () => {
  const never = (signal: AbortSignal) =>
    new Promise((_, reject) => signal.addEventListener("abort", () => reject(abortedFault(signal)), { once: true }));
  await assert.rejects(
    withinMs(20, [], never),
    (error) => isFault(error, "offline") && error.message === "it does not answer within 0.02 s",
  );
  const stop = new AbortController();
  const stopped = withinMs(60_000, [stop.signal], never);
  stop.abort();
  await assert.rejects(stopped, (error) => isFault(error, "aborted"));
  assert.equal(await withinMs(60_000, [], () => Promise.resolve(1)), 1);
});
