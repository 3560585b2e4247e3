import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "./errors.js";
import type { Clock } from "./plugin.js";
import { doubt, isRefusal, isUndated, recordOf } from "./single-shot.js";

const day = 86_400_000;
const now = Date.UTC(2026, 4, 2);
const clockOf = (wallMs: number, trusted = true): Clock => ({
  monotonicMs: () => 0,
  wallMs: () => wallMs,
  trusted: () => trusted,
  sleep: () => Promise.resolve(),
});
const sent = { atMs: now, trusted: true, times: 1 };

test("each record counts", () => {
  const first = recordOf(undefined, clockOf(now));
  assert.deepEqual(first, sent);
  assert.deepEqual(recordOf(first, clockOf(now + 5, false)), { atMs: now + 5, trusted: false, times: 2 });
});

test("absent, or a person's word: it is sent again", () => {
  assert.equal(doubt(sent, "absent", "ask", clockOf(now)), undefined);
  assert.equal(doubt({ ...sent, decided: true }, "unknown", "ask", clockOf(now)), undefined);
});

test("unknown: ask sets aside, and is the default; again waits for its day, once", () => {
  for (const when of [undefined, "ask"] as const) {
    const fault = doubt(sent, "unknown", when, clockOf(now + 10 * day));
    assert.equal(fault?.kind, "indoubt");
    assert.equal(fault.retryAfterMs, undefined);
  }
  assert.equal(doubt(sent, "unknown", "again", clockOf(now))?.retryAfterMs, 3_600_000);
  assert.equal(doubt(sent, "unknown", "again", clockOf(now + day - 1000))?.retryAfterMs, 1000);
  assert.equal(doubt(sent, "unknown", "again", clockOf(now + day)), undefined);
  assert.equal(doubt({ ...sent, times: 2 }, "unknown", "again", clockOf(now + day))?.retryAfterMs, undefined);
});

test("a day by a clock that was not set, then or now, is no day", () => {
  assert.equal(doubt(sent, "unknown", "again", clockOf(now + 2 * day, false))?.retryAfterMs, 3_600_000);
  assert.equal(doubt({ ...sent, trusted: false }, "unknown", "again", clockOf(now + 2 * day))?.retryAfterMs, 3_600_000);
  assert.equal(isUndated({ ...sent, trusted: false }, clockOf(now)), true);
  assert.equal(isUndated({ ...sent, trusted: false }, clockOf(now, false)), false);
  assert.equal(isUndated(sent, clockOf(now - 1)), true);
  assert.equal(isUndated(sent, clockOf(now)), false);
});

test("only what a peer must have said is a refusal", () => {
  for (const kind of ["throttled", "full", "denied", "rejected", "conflict", "mismatch"] as const)
    assert.equal(isRefusal(new Fault(kind, "x")), true, kind);
  for (const kind of ["offline", "transient", "indoubt", "aborted", "changed", "missing", "config"] as const)
    assert.equal(isRefusal(new Fault(kind, "x")), false, kind);
  assert.equal(isRefusal(new Error("x")), false);
});
