/** Some of the cuts of each scene, about the same each time: how many syncs there are depends on the machine (SEED=n: others). All: npm run campaign -- --cuts */
import assert from "node:assert/strict";
import { test } from "node:test";
import { cuts, whyNoCuts } from "./cuts/disks.js";
import { scenes } from "./cuts/scenes.js";

const seed = Number(process.env.SEED ?? 7);
const skip = whyNoCuts();

for (const [name, scene] of Object.entries(scenes))
  test(`power is cut: ${name}: nothing is lost, and what is left is gone on with`, { skip: skip ?? scene.skip ?? false }, async (t) => {
    const { syncs, cuts: tried, findings, dir } = await cuts(scene, { seed, most: 3 });
    t.diagnostic(`SEED=${seed}: ${tried} cuts, at some of ${syncs} syncs`);
    assert.deepEqual(findings, [], `SEED=${seed}; the disks are in ${dir}`);
    assert.ok(syncs > 20 && tried === 3);
  });
