import assert from "node:assert/strict";
import { test } from "node:test";
import { lastValueFrom, Subject } from "./rxjs.js";
import { workers } from "./workers.js";

/** Pieces that run until they are let go, or aborted. */
function pieces(names: string[]) {
  const left = [...names];
  const running = new Map<string, () => void>();
  const log: string[] = [];
  return {
    left,
    running,
    log,
    claim: () => Promise.resolve(left.shift()),
    run: async (name: string, signal: AbortSignal) => {
      log.push(`begin ${name}`);
      await new Promise<void>((resolve) => {
        running.set(name, resolve);
        signal.addEventListener("abort", () => {
          log.push(`abort ${name}`);
          // Ends a little later, as a plugin that closes its connection does.
          setImmediate(resolve);
        });
      });
      running.delete(name);
      log.push(`end ${name}`);
    },
  };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

test("as many as there are slots; a hint and an end bring the next; stop waits for what runs", async () => {
  const stop = new AbortController();
  const wake$ = new Subject<void>();
  const work = pieces(["a", "b", "c"]);
  const done = lastValueFrom(workers(wake$, stop.signal, { slots: () => 2, ...work }), { defaultValue: undefined });
  await turn();
  assert.deepEqual([...work.running.keys()], ["a", "b"]);
  work.running.get("a")?.();
  await turn();
  assert.deepEqual([...work.running.keys()], ["b", "c"]);
  work.running.get("b")?.();
  await turn();
  work.left.push("d");
  wake$.next();
  while (!work.running.has("d")) await turn();
  assert.deepEqual([...work.running.keys()], ["c", "d"]);
  stop.abort();
  await done;
  assert.deepEqual(work.log.slice(-4).sort(), ["abort c", "abort d", "end c", "end d"]);
});

test("an error that nothing dealt with is told only once the rest has ended, and nothing new begins", async () => {
  const wake$ = new Subject<void>();
  const work = pieces(["a", "b", "c"]);
  const done = lastValueFrom(
    workers(wake$, new AbortController().signal, {
      slots: () => 2,
      claim: work.claim,
      run: async (name, signal) => {
        if (name === "b") throw new Error("the medium");
        await work.run(name, signal);
      },
    }),
  );
  await assert.rejects(done, /the medium/);
  assert.deepEqual(work.log, ["begin a", "abort a", "end a"]);
  wake$.next();
  await turn();
  assert.deepEqual(work.left, ["c"]);
});

test("what runs is not stopped for better work while nothing may begin", async () => {
  const stop = new AbortController();
  const wake$ = new Subject<void>();
  const work = pieces(["a"]);
  let slots = 1;
  const givesWay = ([first]: readonly string[]) => Promise.resolve(slots === 0 ? first : undefined);
  const done = lastValueFrom(workers(wake$, stop.signal, { slots: () => slots, ...work, givesWay }), { defaultValue: undefined });
  await turn();
  slots = 0;
  wake$.next();
  await turn();
  assert.deepEqual(work.log, ["begin a"]);
  stop.abort();
  await done;
});
