/** What cannot be taken in parts is begun only when it can be finished in the time that the target is usually up. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { RealClock } from "./clock.js";
import { Uptime, type Learned } from "./uptime.js";

test("a file in one piece waits for a link that stays long enough; until enough is known anything goes", async () => {
  let nowMs = 0;
  const clock = new (class extends RealClock {
    override monotonicMs = () => nowMs;
  })(false);
  let saved: Learned | undefined;
  const store = { load: () => saved, save: (learned: Learned) => Promise.resolve(void (saved = learned)) };
  let uptime = new Uptime(store, clock);
  const stay = async (ms: number) => {
    await uptime.is(true);
    nowMs += ms;
    await uptime.is(false);
    nowMs += 1000;
  };
  await uptime.moved(1_000_000, 10_000);
  await stay(60_000);
  await stay(600_000);
  await uptime.is(true);
  assert.equal(uptime.held(1e9), undefined, "two stays say little");
  await uptime.is(false);
  nowMs += 1;
  uptime = new Uptime(store, clock);
  await stay(30_000);
  await uptime.is(true);
  // 100 kB/s; stays of 0, 30, 60 and 600 s.
  assert.equal(uptime.held(5_000_000), undefined);
  const held = uptime.held(20_000_000);
  assert.equal(held?.reason, "its 20 MB take 3 min 20 s at the usual 100 kB/s, in one piece, and the target is usually up for 1 min 0 s");
  assert.equal(held.inMs, 200_000);
  nowMs += 200_000;
  assert.equal(uptime.held(20_000_000), undefined, "it is up for so long already");
  await uptime.moved(1000, 1);
  assert.equal(saved?.rate, 100_000, "what is small says nothing");
});
