/** The short form of the campaign, the same schedule each time (SEED=n: another). The long one: npm run campaign -- --seed S --minutes M */
import assert from "node:assert/strict";
import { test } from "node:test";
import { missingHere } from "./campaign/abilities.js";
import { campaign } from "./campaign/run.js";

test("a short campaign: nothing lost, wrong, overwritten or stuck, and little moved again", async (t) => {
  const seed = Number(process.env.SEED ?? 7);
  const without = missingHere();
  t.diagnostic(`SEED=${seed}`);
  if (without.size > 0) t.diagnostic(`cannot be done here: ${[...without].join(", ")}`);
  const report = await campaign({ seed, rounds: 1, livesPerRound: 5, lifeMs: 4000, stopMs: 2000, without, restMs: 120_000 });
  t.diagnostic(JSON.stringify(report));
  assert.deepEqual(report.findings, [], `npm test -- campaign.test with SEED=${seed}; the world is in ${report.dirs.join(", ")}`);
  assert.ok(report.faults > 0);
});
