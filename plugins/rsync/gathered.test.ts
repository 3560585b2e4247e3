import assert from "node:assert/strict";
import { test } from "node:test";
import { Gathered } from "./gathered.js";

test("what is asked meanwhile goes together, within number and weight, in order; what fails fails for its batch alone", async () => {
  const batches: number[][] = [];
  let free: () => void = () => undefined;
  const gate = new Promise<void>((resolve) => (free = resolve));
  const gathered = new Gathered<number, string>({ slots: 1, most: 3, weight: (n) => n, mostWeight: 100 }, async (asked) => {
    batches.push([...asked]);
    if (batches.length === 1) await gate;
    if (asked.includes(13)) throw new Error("unlucky");
    return asked.map(String);
  });
  const first = gathered.ask(1);
  await new Promise((resolve) => setImmediate(resolve));
  const rest = [2, 3, 4, 90, 20, 500, 13].map((n) => gathered.ask(n));
  free();
  assert.equal(await first, "1");
  const ended = await Promise.allSettled(rest);
  assert.deepEqual(batches, [[1], [2, 3, 4], [90], [20], [500], [13]]);
  assert.deepEqual(
    ended.map((it) => (it.status === "fulfilled" ? it.value : (it.reason as Error).message)),
    ["2", "3", "4", "90", "20", "500", "unlucky"],
  );
});
