/** The short forms of the campaigns to other targets, the same schedule each time (SEED=n: another). The long ones: npm run campaign -- --target T --seed S --minutes M */
import assert from "node:assert/strict";
import { test } from "node:test";
import { missingHere } from "./campaign/abilities.js";
import { places, whyNoPlace } from "./campaign/place.js";
import { postCampaign } from "./campaign/post.js";
import { campaign } from "./campaign/run.js";

const seed = Number(process.env.SEED ?? 7);

for (const target of places.filter((it) => it !== "ftp"))
  test(`a short campaign to ${target}: nothing lost, wrong, overwritten or stuck`, { skip: whyNoPlace(target) ?? false }, async (t) => {
    const without = missingHere(target);
    if (without.size > 0) t.diagnostic(`cannot be done here: ${[...without].join(", ")}`);
    const report = await campaign({ seed, target, rounds: 1, livesPerRound: 3, lifeMs: 3000, stopMs: 1000, without, restMs: 120_000 });
    t.diagnostic(JSON.stringify(report));
    assert.deepEqual(report.findings, [], `SEED=${seed}; the world is in ${report.dirs.join(", ")}`);
    assert.ok(report.faults > 0);
  });

test("a short campaign of single shots: nothing lost, nothing posted twice", async (t) => {
  const report = await postCampaign({ seed, rounds: 1, livesPerRound: 4, lifeMs: 2500 });
  t.diagnostic(JSON.stringify(report));
  assert.deepEqual(report.findings, [], `SEED=${seed}; the world is in ${report.dir ?? ""}`);
  assert.ok(report.posted > 0);
});
