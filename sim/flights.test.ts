import assert from "node:assert/strict";
import { test } from "node:test";
import { ULog } from "@foxglove/ulog";
import { makeFlight } from "./flights.js";

test("a made-up flight is a ULog that another program reads whole", async () => {
  const bytes = makeFlight(300_000, 3);
  assert.ok(Math.abs(bytes.length - 300_000) < 100);
  assert.deepEqual(bytes, makeFlight(300_000, 3));
  const log = new ULog({
    size: () => bytes.length,
    open: () => Promise.resolve(bytes.length),
    read: (at: number, length: number) => Promise.resolve(Uint8Array.from(bytes.subarray(at, at + length))),
  });
  await log.open();
  assert.deepEqual([...log.subscriptions.values()].map(({ name }) => name).sort(), ["vehicle_attitude", "vehicle_local_position"]);
  let samples = 0;
  for await (const message of log.readMessages()) if ("value" in message) samples += 1;
  assert.ok(samples > 6000, `${samples} samples`);
});
