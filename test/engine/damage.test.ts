/** Damage of the journal that several meet at once. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Bench, FakeDevice, until } from "../fake-device.js";

test("a question and a change that meet damage at once have the journal opened anew once, and work goes on", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card"), new FakeDevice("out")];
  card.put("a", "a");
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], { device: { intervalMs: 50 } });
  await until(bench, "the first is there", () => bench.states("out").join() === "done");
  const { journal } = bench.daemon.engine;
  const damage = Object.assign(new Error("database disk image is malformed"), { errcode: 11 });
  const broken = () => {
    throw damage;
  };
  Object.assign(journal.db, { prepare: () => ({ all: broken, get: broken, run: broken }) });
  assert.throws(() => journal.get("SELECT 'what nobody asked before'"), damage);
  await assert.rejects(
    journal.apply(() => undefined),
    damage,
  );
  await until(bench, "it is open again", () => bench.events.some(({ what }) => what === "journal-reopened"));
  card.put("b", "b");
  await until(bench, "the second is there", () => out.files.size === 2);
  assert.deepEqual(
    bench.events.flatMap(({ what }) => (what === "journal-failed" || what === "journal-reopened" ? [what] : [])),
    ["journal-failed", "journal-reopened"],
  );
});
