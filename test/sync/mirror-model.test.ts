/** A mirror follows whatever is done, and loses nothing, whatever happens at any moment: `FILESYNC_TEST_SYNC_STEPS` for the long form. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { mirrorModel, mirrorVariants } from "./mirror-model.js";

const steps = Number(process.env["FILESYNC_TEST_SYNC_STEPS"] ?? 30_000);
const first = Number(process.env["FILESYNC_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const each = 1500;

const worlds = [
  ["nobody else writes there", { calm: true }],
  ["nobody else writes there, and names are locked between any two", { calm: true, locks: true }],
  ["kills, and nobody else writes there", { alone: true }],
  ["kills, other people and names that are locked between any two", { locks: true }],
  ["nobody else writes there, and a disk that fails", { calm: true, fails: true }],
  ["kills, and a disk that fails", { alone: true, locks: true, fails: true }],
] as const;

for (const deletes of [true, false])
  for (const [what, how] of worlds)
    test(`a mirror ${deletes ? "that deletes" : "that only adds"}, ${steps} calls, ${what}; seeds from ${first}`, async (t) => {
      let [made, kills, moves] = [0, 0, 0];
      for (let seed = first; made < steps; seed++) {
        const found = await mirrorModel({ seed, steps: each, deletes, ...how });
        assert.equal(found.wrong, undefined, found.wrong);
        made += found.steps;
        kills += found.kills;
        moves += found.moves;
      }
      t.diagnostic(`${made} calls, ${kills} kills and lost links, ${moves} moves`);
      assert.ok(("calm" in how || kills > 0) && moves > 0);
    });

for (const variant of mirrorVariants)
  test(`the model of a mirror finds what breaks: ${variant}`, async (t) => {
    for (let seed = 1; seed <= 400; seed++)
      for (const calm of [true, false]) {
        const fails = variant === "what was told once is asked again";
        const { wrong } = await mirrorModel({ seed, steps: each, deletes: true, calm, fails, variant });
        if (wrong === undefined) continue;
        t.diagnostic(`seed ${seed}: ${wrong.split("\n")[0] ?? ""}`);
        return;
      }
    assert.fail("400 worlds, and none of them went wrong");
  });
