/** The short form of the campaign of autopilots (SEED=n: another schedule). The long one: npm run campaign -- --mavftp --seed S --files 500 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fleetCampaign } from "./campaign/fleet.js";

test("a dozen logs from each of six autopilots, in bad weather, with kills: byte for byte, sessions ended, nothing from zero", async (t) => {
  const seed = Number(process.env.SEED ?? 5);
  t.diagnostic(`SEED=${seed}`);
  const short = { rounds: 1, files: 72, lives: 3, lifeMs: 8000, usualBytes: 60_000, loss: 0.1, brief: true, restMs: 180_000 };
  const report = await fleetCampaign({ seed, ...short });
  t.diagnostic(JSON.stringify(report));
  assert.deepEqual(report.findings, [], `npm test -- mavftp-campaign with SEED=${seed}; the world is in ${report.dir ?? ""}`);
  assert.equal(report.files, 72);
  assert.equal(report.receipts, 144);
  assert.ok(report.faults > 0 && report.kills > 0);
});
