/** When a device hears that all of its files are safe. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Engine } from "./engine.js";
import { Events } from "./events.js";
import type { Lane } from "./lane.js";
import { watchNews } from "./news.js";
import { Subject } from "./rxjs.js";

test("a file that is done and of which nobody has heard yet is no safe one: all are told once, after the last", async (t) => {
  const stop = new AbortController();
  t.after(() => stop.abort());
  const [work$, events] = [new Subject<void>(), new Events()];
  const delivery = { source: "fc", required: 1, state: "active" };
  const pushing = new Map([["b", { delivery }]]);
  const told: string[] = [];
  let looked = (): void => undefined;
  // Nothing is open or set aside, as the journal has it.
  const journal = { all: () => (looked(), []), get: () => undefined };
  const finders = new Map([["fc", { listings: 1, unsettled: 0, busy: false }]]);
  const engine = { journal, events, work$, finders, queue: { pushing } } as unknown as Engine;
  const lane = { name: "fc", device: { news: ({ what }: { what: string }) => void told.push(what) } } as unknown as Lane;
  watchNews(engine, lane, stop.signal);
  const look = () => new Promise<void>((resolve) => (looked = () => setImmediate(resolve)));
  const said = (path: string) => events.say("info", "delivered", path, { from: "fc" });
  let next = look();
  said("a");
  await next;
  assert.deepEqual(told, []);
  next = look();
  said("b");
  pushing.clear();
  work$.next();
  await next;
  assert.deepEqual(told, ["safe"]);
  next = look();
  work$.next();
  await next;
  assert.deepEqual(told, ["safe"]);
});
