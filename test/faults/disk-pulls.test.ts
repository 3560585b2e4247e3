/** A disk pulled again and again, the same schedule each time (SEED=n: another). The long form: npm run campaign -- --disk source|target --seed S --pulls 100 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { diskCampaign } from "./campaign/disk.js";

const seed = Number(process.env["SEED"] ?? 7);

for (const [role, fs] of [
  ["source", "ext4"],
  ["source", "exfat"],
  ["target", "ext4"],
  ["target", "exfat"],
] as const)
  test(`a disk of ${fs} as ${role}, pulled six times: nothing lost, wrong or from the first byte`, async (t) => {
    const report = await diskCampaign({ seed, role, fs, pulls: 6, megabytes: 80, rate: 20 * 2 ** 20, restMs: 120_000 });
    if (typeof report === "string") {
      t.skip(report);
      return;
    }
    t.diagnostic(JSON.stringify(report));
    assert.deepEqual(report.findings, [], `SEED=${seed}; the world is in ${report.dir}`);
    assert.ok(report.hits > 0, "no pull hit a transfer");
  });
