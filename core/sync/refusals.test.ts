/** When what a side refused is tried again. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "../errors.js";
import { Refusals } from "./refusals.js";

test("what was refused is refused with the same words until its time has come, ever later, a day at most; what is forgotten is not", () => {
  let ms = 5000;
  const refusals = new Refusals({ monotonicMs: () => ms }, () => undefined);
  refusals.expectNone("a");
  const waits: number[] = [];
  for (let n = 0; n < 10; n++) {
    const told = refusals.note("a", new Fault("rejected", "it is too large"));
    assert.match(told.message, /^it is too large; it is tried again now and then/);
    const began = ms;
    const isRefused = () => {
      try {
        refusals.expectNone("a");
        return false;
      } catch (error) {
        assert.equal(error, told);
        return true;
      }
    };
    while (isRefused()) ms += 60_000;
    waits.push((ms - began) / 60_000);
  }
  assert.deepEqual(waits, [10, 20, 40, 80, 160, 320, 640, 1280, 1440, 1440]);
  refusals.note("a", new Fault("rejected", "it is too large"));
  refusals.forget("a");
  refusals.expectNone("a");
});

test("what was refused is tried at once on another medium, or when a person says so", () => {
  let epoch = "a FAT card";
  const refusals = new Refusals({ monotonicMs: () => 5000 }, () => epoch);
  refusals.note("a", new Fault("rejected", "it is too large"));
  assert.throws(() => refusals.expectNone("a"), /it is too large/);
  epoch = "another card";
  refusals.expectNone("a");
  refusals.note("a", new Fault("rejected", "it is too large"));
  assert.throws(() => refusals.expectNone("a"), /it is too large/);
  refusals.forgetAll();
  refusals.expectNone("a");
});
