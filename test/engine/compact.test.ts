/** What the journal forgets, and each reason why it does not. */
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { forget } from "../../core/amend.js";
import type { Exchange } from "../../core/control.js";
import { Fault } from "../../core/errors.js";
import type { Route } from "../../core/route.js";
import { expire } from "../../core/space.js";
import { verify } from "../../core/verify.js";
import { why } from "../../core/why.js";
import { Bench, FakeDevice, until } from "../fake-device.js";

const day = 86_400_000;
const t0 = Date.UTC(2026, 4, 1);
const never = () => new AbortController().signal;
const exchange = { say: () => undefined, signal: never() } as unknown as Exchange;
type Rules = Partial<Omit<Route, "to" | "from">>;

const versions = (bench: Bench) =>
  bench.daemon.engine.journal
    .all<{ path: string; size: number }>("SELECT path, size FROM versions ORDER BY path, size")
    .map(({ path, size }) => `${path} ${size}`);
const idOf = (bench: Bench, path: string) =>
  bench.daemon.engine.journal.get<{ id: string }>("SELECT id FROM versions WHERE path = ? ORDER BY found_ms", path)?.id ?? "";
const set = (bench: Bench, sql: string) => bench.daemon.engine.journal.commit(() => void bench.daemon.engine.journal.run(sql));

/** So many days later the source is listed, and what is due after that is done. */
async function later(bench: Bench, days: number): Promise<void> {
  await bench.pass(days, 7 * day);
  const finder = bench.daemon.engine.finders.get("card");
  assert.ok(finder);
  await until(bench, "no listing runs", () => !finder.busy);
  const before = finder.listings + finder.failures;
  bench.daemon.engine.relist$.next("card");
  await until(bench, "listed", () => finder.listings + finder.failures > before && !finder.busy);
}

/** a.bin (100 bytes) was delivered; nothing else is in the journal. */
async function delivered(t: TestContext, card = new FakeDevice("card", { inPlace: true }), rules: Rules = {}) {
  const bench = new Bench(t);
  const out = new FakeDevice("out");
  if (card.files.size === 0) card.put("a.bin", Buffer.alloc(100, 1));
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], ...rules }]);
  await until(bench, "delivered", () => bench.states("out").join() === "done" && bench.daemon.engine.queue.releasing.size === 0);
  return { bench, card, out };
}

/** The same, and since more than a year it is not at its source. */
async function away(t: TestContext, card?: FakeDevice, rules?: Rules) {
  const made = await delivered(t, card, rules);
  made.card.files.delete("a.bin");
  await later(made.bench, 1);
  await made.bench.pass(365, 7 * day);
  return made;
}

test("what was delivered and left its source is forgotten after journal.keep; the counts stay, and its return sends nothing", async (t) => {
  const { bench, card, out } = await delivered(t);
  await later(bench, 400);
  card.files.delete("a.bin");
  await set(bench, "INSERT INTO meta SELECT 'marks:' || id, '{}' FROM deliveries");
  await later(bench, 1);
  await later(bench, 364);
  assert.deepEqual(versions(bench), ["a.bin 100"], "not a year yet since it was seen to be away");
  await later(bench, 2);
  assert.deepEqual(versions(bench), []);
  const { journal } = bench.daemon.engine;
  for (const rows of ["deliveries", "absent", "meta WHERE key LIKE 'marks:%'"])
    assert.deepEqual(journal.all(`SELECT * FROM ${rows}`), [], rows);
  const { queue, bytes, summary } = bench.daemon.status();
  assert.equal(queue.delivered, 1);
  assert.equal(bytes.delivered, 100);
  assert.match(summary, /everything that was found is delivered \(100 /);
  await assert.rejects(
    why(bench.daemon.engine, "a.bin", true, never()),
    /nothing of the name "a.bin" is known; what left its source longer ago/,
  );
  assert.deepEqual(await verify(bench.daemon.engine, undefined, exchange), { deliveries: 0, proved: 0, wrong: 0, unreachable: 0 });
  card.put("a.bin", Buffer.alloc(100, 1));
  await later(bench, 0);
  await until(bench, "known again", () => bench.states("out").join() === "done");
  assert.equal(out.calls.filter((call) => call.startsWith("commit")).length, 1, "what is there is its receipt");
  assert.equal(bench.daemon.status().queue.delivered, 2);
});

test("what is listed stays known, whatever its age; what comes back counts its days anew", async (t) => {
  const { bench, card, out } = await delivered(t);
  for (let n = 0; n < 12; n++) await later(bench, 365);
  card.files.delete("a.bin");
  await later(bench, 1);
  card.put("a.bin", Buffer.alloc(100, 1));
  await later(bench, 300);
  card.files.delete("a.bin");
  await later(bench, 1);
  await later(bench, 300);
  assert.deepEqual(versions(bench), ["a.bin 100"]);
  assert.equal(out.calls.filter((call) => call.startsWith("write")).length, 1);
  await later(bench, 66);
  assert.deepEqual(versions(bench), []);
});

test("a clock that is years ahead for a while has nothing forgotten before its time, and keeps nothing for years", async (t) => {
  const { bench, card } = await delivered(t);
  const listed = async (clock: number) => {
    bench.clock.offsetMs = clock;
    await later(bench, 0);
  };
  card.files.delete("a.bin");
  await later(bench, 1);
  await later(bench, 30);
  const right = bench.clock.offsetMs;
  card.put("b.bin", Buffer.alloc(50, 2), t0 + 1000);
  await later(bench, 0);
  await until(bench, "the second", () => bench.states("out").join() === "done,done");
  await listed(right + 3650 * day);
  assert.deepEqual(versions(bench), ["a.bin 100", "b.bin 50"]);
  card.files.delete("b.bin");
  card.put("c.bin", Buffer.alloc(20, 3), t0 + 2000);
  await listed(right + 3652 * day);
  await until(bench, "the third", () => bench.states("out").join() === "done,done,done");
  card.files.delete("c.bin");
  await listed(right);
  await later(bench, 1);
  assert.deepEqual(versions(bench), ["a.bin 100", "b.bin 50", "c.bin 20"]);
  await later(bench, 366);
  await later(bench, 1);
  assert.deepEqual(versions(bench), []);
});

test("older states of a path that is listed are forgotten; the newest stays", async (t) => {
  const { bench, card } = await delivered(t);
  card.put("a.bin", Buffer.alloc(50, 2), t0 + 1000);
  await later(bench, 0);
  await until(bench, "the second", () => bench.states("out").join() === "done,done");
  await later(bench, 1);
  await later(bench, 366);
  assert.deepEqual(versions(bench), ["a.bin 50"]);
  await later(bench, 4000);
  assert.deepEqual(versions(bench), ["a.bin 50"]);
});

test("the newest that is not gone stays: it is what is there", async (t) => {
  const { bench, card } = await delivered(t);
  const first = card.files.get("a.bin");
  card.put("a.bin", Buffer.alloc(50, 2), t0 + 1000);
  await later(bench, 0);
  await until(bench, "the second", () => bench.states("out").join() === "done,done");
  await set(bench, "UPDATE versions SET state = 'gone' WHERE size = 50");
  if (first !== undefined) card.files.set("a.bin", first);
  await later(bench, 1);
  await later(bench, 366);
  assert.deepEqual(versions(bench), ["a.bin 100"]);
});

test("what was left out by `newest` is forgotten too", async (t) => {
  const card = new FakeDevice("card", { inPlace: true });
  card.put("a.bin", Buffer.alloc(100, 1), t0 + 1000);
  card.put("b.bin", Buffer.alloc(100, 2), t0);
  const { bench } = await delivered(t, card, { newest: 1 });
  card.files.delete("b.bin");
  await later(bench, 1);
  await later(bench, 366);
  assert.deepEqual(versions(bench), ["a.bin 100"]);
});

// Each of these alone holds it; without it, it goes.
for (const [rule, hold, free] of [
  ["the spool has a copy of it", "UPDATE versions SET spooled = 100", "UPDATE versions SET spooled = 0"],
  ["it is set aside", "UPDATE deliveries SET state = 'parked'", "UPDATE deliveries SET state = 'done'"],
  [
    "something of it is to be taken away",
    "UPDATE deliveries SET state = 'discard', not_before = 1e15",
    "UPDATE deliveries SET state = 'dropped'",
  ],
  ["it was delivered lately", "UPDATE deliveries SET done_ms = 1e15", "UPDATE deliveries SET done_ms = 0"],
  ["it is to be released", "UPDATE versions SET after = 'delete'", "UPDATE versions SET released = 'deleted'"],
  ["it was lost", "UPDATE deliveries SET state = 'dropped', fault = 'missing'", "UPDATE deliveries SET fault = NULL"],
] as const)
  test(`it stays while ${rule}`, async (t) => {
    const { bench } = await away(t);
    await set(bench, hold);
    await later(bench, 1);
    assert.deepEqual(versions(bench), ["a.bin 100"]);
    await set(bench, free);
    await later(bench, 1);
    assert.deepEqual(versions(bench), []);
  });

for (const what of ["pulling", "releasing"] as const)
  test(`it stays while ${what} has it`, async (t) => {
    const { bench } = await away(t);
    const { queue } = bench.daemon.engine;
    const id = idOf(bench, "a.bin");
    if (what === "pulling") queue.pulling.set(id, { weight: 0, rank: 0, path: "a.bin" });
    else queue.releasing.add(id);
    await later(bench, 1);
    assert.deepEqual(versions(bench), ["a.bin 100"]);
    queue[what].delete(id);
    await later(bench, 1);
    assert.deepEqual(versions(bench), []);
  });

test("what was lost stays until a person says so, and is not told again once it was found again", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { inPlace: true });
  const out = new FakeDevice("out");
  card.put("a.bin", Buffer.alloc(100, 1));
  card.put("b.bin", Buffer.alloc(100, 1));
  card.before = (call) => {
    if (!call.startsWith("open")) return undefined;
    card.files.clear();
    throw new Fault("missing", "it is no longer there");
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "both are lost", () => bench.daemon.status().lost.length === 2);
  card.before = () => undefined;
  card.put("b.bin", Buffer.alloc(100, 1));
  await later(bench, 1);
  await until(bench, "b.bin after all", () => bench.states("out").includes("done"));
  card.files.clear();
  const told = () => bench.daemon.status().lost.map(({ path }) => path);
  assert.deepEqual(told(), ["a.bin"]);
  // The one that was lost is away longer than the one that says so no more.
  await later(bench, 1);
  await set(
    bench,
    "UPDATE absent SET since_ms = since_ms + 1e9 WHERE version IN (SELECT id FROM versions WHERE path = 'b.bin' AND state = 'gone')",
  );
  for (const days of [366, 1, 13, 1, 1]) {
    await later(bench, days);
    assert.deepEqual(told(), ["a.bin"]);
  }
  assert.deepEqual(versions(bench), ["a.bin 100"]);
  await forget(bench.daemon.engine, "a.bin");
  await later(bench, 1);
  assert.deepEqual(versions(bench), []);
});

test("the beginning of what stays is kept; not the beginning of that", async (t) => {
  const { bench, card } = await delivered(t);
  const grown = Buffer.alloc(400, 1);
  for (const [n, size] of [200, 300].entries()) {
    card.put("a.bin", grown.subarray(0, size), t0 + 1000 * size);
    await later(bench, 0);
    await until(bench, `${size} bytes`, () => bench.states("out").filter((state) => state === "done").length === n + 2);
  }
  await later(bench, 1);
  // Nobody knows yet whether it is the beginning of that.
  await set(bench, "UPDATE versions SET digest = NULL WHERE size = 200");
  await later(bench, 366);
  assert.deepEqual(versions(bench), ["a.bin 100", "a.bin 200", "a.bin 300"]);
  await set(bench, "UPDATE versions SET digest = 'sha256:0' WHERE size = 200");
  await later(bench, 1);
  assert.deepEqual(versions(bench), ["a.bin 200", "a.bin 300"]);
  assert.equal((await verify(bench.daemon.engine, undefined, exchange)).wrong, 0);
});

test("what the rules of now leave, or what stands where the archive is, was not listed", async (t) => {
  const { bench, card, out } = await away(t);
  const devices = { sources: [card], targets: [out] };
  for (const [rules, options] of [
    [{ exclude: ["a*"] }, {}],
    [{ include: ["*.JPG"] }, {}],
    [{ minSize: 101 }, {}],
  ] as const) {
    await bench.reload(devices, [{ from: "card", to: ["out"], ...rules }], options);
    await later(bench, 1);
    assert.deepEqual(versions(bench), ["a.bin 100"], JSON.stringify(rules));
  }
  await bench.reload(devices, [{ from: "card", to: ["out"] }]);
  await later(bench, 1);
  assert.deepEqual(versions(bench), []);
});

test("below its archive a source is not listed", async (t) => {
  const card = new FakeDevice("card", { inPlace: true });
  card.put("sent/a.bin", Buffer.alloc(100, 1));
  const { bench, out } = await delivered(t, card);
  const devices = { sources: [card], targets: [out] };
  await bench.reload(devices, [{ from: "card", to: ["out"] }], { device: { archiveDir: "sent" } });
  card.files.clear();
  await later(bench, 1);
  await later(bench, 366);
  assert.deepEqual(versions(bench), ["sent/a.bin 100"]);
});

test("where something cannot be read, nobody knows what else is in that directory, and below it", async (t) => {
  const card = new FakeDevice("card", { inPlace: true });
  for (const path of ["x/y/a.bin", "x/b.bin", "c.bin"]) card.put(path, Buffer.alloc(100, 1));
  const bench = new Bench(t);
  await bench.start({ sources: [card], targets: [new FakeDevice("out")] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "delivered", () => bench.states("out").join() === "done,done,done");
  card.files.clear();
  card.besides = [{ path: "x/z", kind: "unreadable", size: 0 }];
  await later(bench, 1);
  await later(bench, 366);
  assert.deepEqual(versions(bench), ["x/b.bin 100", "x/y/a.bin 100"]);
  card.besides = [{ path: "", kind: "unreadable", size: 0 }];
  await later(bench, 1);
  card.besides = [];
  await later(bench, 1);
  await later(bench, 364);
  assert.deepEqual(versions(bench), ["x/b.bin 100", "x/y/a.bin 100"]);
  await later(bench, 2);
  assert.deepEqual(versions(bench), []);
});

test("a listing that breaks off, and one by a clock that nobody trusts, says nothing", async (t) => {
  const { bench, card } = await away(t);
  card.besides = new Proxy([], {
    get: () => {
      throw new Fault("transient", "the link was lost");
    },
  });
  await later(bench, 1);
  card.besides = [];
  const trusted = t.mock.method(bench.clock, "trusted", () => false);
  await later(bench, 1);
  assert.deepEqual(versions(bench), ["a.bin 100"]);
  trusted.mock.restore();
  await later(bench, 1);
  assert.deepEqual(versions(bench), []);
});

test("once a day", async (t) => {
  const { bench, card } = await delivered(t);
  card.files.delete("a.bin");
  await later(bench, 0.9);
  assert.deepEqual(bench.daemon.engine.journal.all("SELECT * FROM absent"), []);
  await later(bench, 0.2);
  assert.equal(bench.daemon.engine.journal.all("SELECT * FROM absent").length, 1);
});

test("files of a medium that is not in are known as long as it takes", async (t) => {
  const bench = new Bench(t);
  const reader = new FakeDevice("card", { inPlace: true });
  const out = new FakeDevice("out");
  const file = (n: number) => new Map([[`${n}.JPG`, { bytes: Buffer.alloc(100, n), modifiedMs: t0 }]]);
  reader.insert("A", file(1));
  await bench.start({ sources: [reader], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "the first card", () => bench.states("out").join() === "done");
  reader.insert("B", file(2));
  await until(bench, "the second card", () => bench.states("out").join() === "done,done");
  await later(bench, 1);
  await later(bench, 3660);
  assert.deepEqual(versions(bench), ["1.JPG 100", "2.JPG 100"]);
  // Formatted: B as well, each on a day of its own.
  reader.insert("A");
  await later(bench, 1);
  reader.insert("B");
  await later(bench, 366);
  assert.deepEqual(versions(bench), ["1.JPG 100", "2.JPG 100"]);
  await later(bench, 1);
  reader.insert("A");
  await later(bench, 0);
  assert.deepEqual(versions(bench), ["2.JPG 100"]);
  reader.insert("B");
  await later(bench, 366);
  assert.deepEqual(versions(bench), []);
});

test("a copy in the spool leaves first, by its own retention", async (t) => {
  const { bench } = await away(t, new FakeDevice("card"));
  await later(bench, 1);
  assert.deepEqual(versions(bench), ["a.bin 100"]);
  await expire(bench.daemon.engine, never());
  await later(bench, 1);
  assert.deepEqual(versions(bench), []);
});

test("a listing without anything new asks the medium for nothing", async (t) => {
  const { bench } = await delivered(t);
  await later(bench, 1);
  const { journal } = bench.daemon.engine;
  await journal.durable();
  const { syncs } = journal;
  for (let n = 0; n < 3; n++) await later(bench, 0);
  await journal.durable();
  assert.equal(journal.syncs, syncs);
});
