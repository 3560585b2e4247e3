/** What status tells, asked of an engine. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { statusOf } from "../../core/status.js";
import { Bench, FakeDevice, until } from "../fake-device.js";

test("what is told of a transfer and of all is of one moment, however long it takes to put it together", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { inPlace: true });
  const out = new FakeDevice("out");
  const size = 8_000_000;
  card.put("a.bin", randomBytes(size));
  out.before = (call) => (call.startsWith("write") ? new Promise(() => undefined) : undefined);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  const { engine } = bench.daemon;
  await until(bench, "it is sent", () => engine.transfers.running.length === 1);
  const [transfer] = engine.transfers.running;
  assert.ok(transfer !== undefined);
  transfer.offset = size / 20;
  const begunMs = engine.clock.monotonicMs();
  let looks = 0;
  t.mock.method(engine.clock, "monotonicMs", () => begunMs + 1000 * ++looks);
  const { transfers, summary } = statusOf(engine, "test", true);
  t.mock.restoreAll();
  const left = transfers[0]?.secondsLeft ?? assert.fail();
  const [, told] = /about (\d+) s left/.exec(summary) ?? assert.fail(summary);
  assert.ok(Math.abs(Number(told) - left) <= 1, `${summary}; the transfer: ${left} s`);
});
