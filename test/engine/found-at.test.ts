/** When files are said to be found, on a machine that does not know the time at its start. */
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { bootKey } from "../../core/found-at.js";
import { Bench, FakeDevice, until } from "../fake-device.js";

const hour = 3_600_000;
/** At each start of a machine without a clock of its own. */
const wakesUpMs = Date.UTC(2025, 5, 1);
const now = Date.UTC(2026, 4, 1);

const foundMs = (bench: Bench, path: string) =>
  bench.daemon.engine.journal.get<{ ms: number }>("SELECT found_ms AS ms FROM versions WHERE path = ?", path)?.ms ?? NaN;

/** A daemon that has found nothing yet, at that time. */
async function begun(t: TestContext, wallMs: number): Promise<{ bench: Bench; card: FakeDevice }> {
  const [bench, card] = [new Bench(t), new FakeDevice("card")];
  bench.clock.offsetMs = wallMs - Date.now();
  await bench.start({ sources: [card], targets: [] }, []);
  return { bench, card };
}

/** What the source has is found by a daemon that starts at that time, after another start of the machine or the same one. */
async function found(bench: Bench, card: FakeDevice, path: string, wallMs: number, restarted: boolean): Promise<number> {
  if (restarted) await bench.daemon.engine.journal.commit(() => bench.daemon.engine.journal.setMeta(bootKey, "the machine's start before"));
  await bench.stop();
  bench.clock.offsetMs = wallMs - Date.now();
  card.put(path, Buffer.from(path));
  const out = new FakeDevice("out");
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, path, () => out.files.has(path));
  return foundMs(bench, path);
}

test("a machine that wakes up at the same time each day finds what is of another day later, and apart; what is of the same start is together", async (t) => {
  const { bench, card } = await begun(t, wakesUpMs);
  const first = await found(bench, card, "a.bin", wakesUpMs, true);
  assert.ok(first >= wakesUpMs && first < wakesUpMs + hour);
  const second = await found(bench, card, "b.bin", wakesUpMs, true);
  assert.ok(second >= first + hour && second < first + 2 * hour, `${second - first} ms later`);
  // The daemon alone was started anew.
  const third = await found(bench, card, "c.bin", wakesUpMs, false);
  assert.ok(third >= second && third < second + hour / 60, `${third - second} ms later`);
  // A clock that goes on where it stopped is no better.
  const fourth = await found(bench, card, "d.bin", third + 60_000, true);
  assert.ok(fourth >= third + hour, `${fourth - third} ms later`);
});

test("once the time is known it is the time", async (t) => {
  const { bench, card } = await begun(t, now);
  const before = await found(bench, card, "a.bin", now, true);
  const after = await found(bench, card, "b.bin", now + 60_000, true);
  assert.ok(Math.abs(after - before - 60_000) < 30_000, `${after - before} ms later`);
  // Found by a clock that was set back; it is set right while the daemon runs.
  const early = await found(bench, card, "c.bin", wakesUpMs, true);
  assert.ok(early >= after + hour, `${early - after} ms later`);
  bench.clock.offsetMs = now + 24 * hour - Date.now();
  card.put("d.bin", Buffer.from("d"));
  bench.daemon.engine.relist$.next("card");
  await until(bench, "d.bin", () => Number.isFinite(foundMs(bench, "d.bin")));
  assert.ok(Math.abs(foundMs(bench, "d.bin") - (now + 24 * hour)) < hour / 60);
});

test("what is found under the name of one that has gone is found later than that, also where that was dated ahead of the time", async (t) => {
  const { bench, card } = await begun(t, now);
  await found(bench, card, "a.bin", now, true);
  const ahead = await found(bench, card, "b.bin", wakesUpMs, true);
  const { journal } = bench.daemon.engine;
  await journal.commit(() => journal.run("UPDATE versions SET state = 'gone' WHERE path = 'b.bin'"));
  bench.clock.offsetMs = now + 600_000 - Date.now();
  card.put("b.bin", "another, and longer");
  bench.daemon.engine.relist$.next("card");
  const later = () => journal.get<{ ms: number }>("SELECT found_ms AS ms FROM versions WHERE path = 'b.bin' AND state <> 'gone'")?.ms;
  await until(bench, "the other", () => later() !== undefined);
  assert.ok((later() ?? 0) > ahead, `${(later() ?? 0) - ahead} ms later`);
});
