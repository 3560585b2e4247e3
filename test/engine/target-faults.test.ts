/** What a target does wrong costs that target's delivery, never the file, never the engine. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { Fault } from "../../core/errors.js";
import { Journal } from "../../core/journal.js";
import type { DeliveryRow, StoredReceipt } from "../../core/rows.js";
import { giveUp } from "../../core/space.js";
import { Bench, FakeDevice, until } from "../fake-device.js";
import { PostBox } from "../post-box.js";

const t0 = Date.UTC(2026, 4, 1);
const saidOf = (bench: Bench, what: string) => bench.events.filter((event) => event.what === what).map(({ message }) => message);

test("a partial that is not ours, on a target that goes away before it can be discarded, is discarded when it is back", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  card.put("a.bin", "content");
  let commits = 0;
  let discards = 0;
  out.before = (call) => {
    if (call.startsWith("commit") && ++commits === 1) throw new Fault("conflict", "not ours");
    if (call.startsWith("discard") && ++discards === 1) throw new Fault("offline", "unplugged");
    return undefined;
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "delivered", () => bench.states("out")[0] === "done");
  assert.deepEqual(saidOf(bench, "journal-failed"), []);
  assert.deepEqual(
    out.calls.filter((call) => /^(write|discard|commit)/.test(call)),
    ["write a.bin 0", "commit a.bin", "discard a.bin", "discard a.bin", "write a.bin 0", "commit a.bin"],
  );
});

for (const kind of ["missing", "changed"] as const)
  test(`a target that says "${kind}" of its own does not make core believe it of the source`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card", { inPlace: true });
    const out = new FakeDevice("out");
    card.put("a.bin", "content");
    let writes = 0;
    out.before = (call) => {
      if (call.startsWith("write") && ++writes === 1) throw new Fault(kind, "a directory of mine is gone");
      return undefined;
    };
    await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
    await until(bench, "delivered", () => bench.states("out").includes("done"));
    assert.deepEqual(saidOf(bench, "lost"), []);
    assert.deepEqual(bench.states("out"), ["done"]);
  });

test("a target that has no space, or asks for a pause, says so once until it takes a file, not for each file each time", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out", { target: { concurrency: 2 } });
  for (const name of ["a", "b", "c"]) card.put(`${name}.bin`, name);
  let kind: "throttled" | "full" | undefined = "throttled";
  let writes = 0;
  out.before = (call) => {
    if (!call.startsWith("write") || kind === undefined) return undefined;
    writes += 1;
    throw new Fault(kind, "no more now", { retryAfterMs: 100 });
  };
  const warned = () => bench.events.filter(({ what, level }) => what === "again" && level === "warn").length;
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "tried often", () => writes >= 10);
  assert.equal(warned(), 1);
  kind = "full";
  await until(bench, "it says something else", () => warned() > 1);
  kind = undefined;
  bench.daemon.engine.lanes.get("out")?.resumeTarget();
  await until(bench, "delivered", () => bench.states("out").every((state) => state === "done"));
  kind = "throttled";
  card.put("d.bin", "d");
  card.attach(false);
  card.attach(true);
  const before = warned();
  await until(bench, "said anew", () => warned() === before + 1);
});

test("what a target takes away for want of room goes there ever later, as each time costs all of it; a smaller file goes meanwhile", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out", { target: { concurrency: 1, resume: false } });
  card.put("big.bin", randomBytes(2_000_000), t0 + 1000);
  card.put("small.bin", "small", t0);
  let full = true;
  out.before = (call) => {
    if (!full || call !== "commit big.bin") return undefined;
    out.partials.clear();
    throw new Fault("full", "the quota is used up: it was not saved");
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  const { engine } = bench.daemon;
  const lane = engine.lanes.get("out");
  const waits = (minutes: number) => () => {
    const [row] = engine.journal.all<{ atMs: number }>(
      "SELECT not_before AS atMs FROM deliveries WHERE path LIKE '%big.bin' AND fault = 'full'",
    );
    return row !== undefined && row.atMs - engine.clock.monotonicMs() > minutes * 60_000;
  };
  await until(bench, "a wait of two minutes", waits(1));
  assert.ok((lane?.pausedMs ?? 0) <= 10_000);
  lane?.resumeTarget();
  await until(bench, "the smaller one", () => out.files.has("small.bin"));
  out.attach(true);
  await until(bench, "a wait of four", waits(3));
  full = false;
  out.attach(true);
  await until(bench, "delivered", () => bench.states("out").every((state) => state === "done"));
});

test("a target that is full of what was begun at once: the last gives its room to the first, one after the other, and what fits is whole", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out", { target: { concurrency: 3 } });
  out.room = 4_900_000;
  for (const [n, name] of ["c", "b", "a"].entries()) card.put(`${name}.bin`, randomBytes(5_000_000), t0 + n * 1000);
  let [begun, go] = [0, (): void => undefined];
  const all = new Promise<void>((resolve) => (go = resolve));
  out.before = (call) => {
    if (!call.startsWith("write") || (begun += 1) > 3) return undefined;
    if (begun === 3) go();
    return all;
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  const { engine } = bench.daemon;
  const lane = engine.lanes.get("out");
  const isFull = () => (lane?.pausedMs ?? 0) > 0 && engine.queue.pushing.size === 0;
  const held = () => [...out.partials.values()].map(({ length }) => length).filter((length) => length > 0);
  const again = async (room: number) => {
    out.room = room;
    await engine.journal.apply(() => {
      engine.queue.dueNow("out");
    });
    lane?.resumeTarget();
  };
  await until(bench, "it is full", () => begun === 3 && isFull());
  await again(4_900_000);
  await until(bench, "the last gave way", () => isFull() && held().length === 2);
  await again(4_900_000);
  await until(bench, "the first has all of it", () => isFull() && held().join() === "4900000");
  await again(10_500_000);
  await until(bench, "what fits is there", () => isFull() && out.files.size === 2);
  assert.deepEqual([...out.files.keys()], ["a.bin", "b.bin"]);
  assert.deepEqual(held(), [500_000], "alone, it keeps what it has");
  const writes = begun;
  await again(10_500_000);
  await until(bench, "it was tried again", () => begun > writes && isFull());
  assert.deepEqual(held(), [500_000]);
  await again(15_000_000);
  await until(bench, "all", () => out.files.size === 3);
});

/** A target that got full while files of these names were sent to it at once; the first of them goes first. */
async function filled(t: TestContext, names: readonly string[], bytes: number, room: number, out: FakeDevice, inPlace = true) {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { inPlace });
  out.room = room;
  for (const [n, name] of names.entries()) card.put(name, randomBytes(bytes), t0 - n * 1000);
  let go = (): void => undefined;
  const all = new Promise<void>((resolve) => (go = resolve));
  const writes = () => out.calls.filter((call) => call.startsWith("write")).length;
  out.before = (call) => {
    if (!call.startsWith("write") || writes() > names.length) return undefined;
    if (writes() === names.length) go();
    return all;
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  const { engine } = bench.daemon;
  const lane = engine.lanes.get("out") ?? assert.fail();
  const isFull = () => lane.pausedMs > 0 && engine.queue.pushing.size === 0;
  await until(bench, "it is full", () => writes() >= names.length && isFull());
  const rowOf = (path: string) =>
    engine.journal.get<DeliveryRow>("SELECT * FROM deliveries WHERE path = ?", path) ?? assert.fail(`no ${path}`);
  /** As when it is back: all is due, but for what is too large; and its pause is over. */
  const again = async () => {
    await engine.journal.apply(() => {
      engine.queue.dueNow("out", { epoch: lane.state.epoch });
    });
    lane.resumeTarget();
  };
  /** Once more, until what goes is there or the target is full. */
  const tried = async () => {
    const before = writes();
    await again();
    await until(bench, "tried", () => writes() > before && isFull());
  };
  /** It alone is due, until it is there or the target is full. */
  const turnOf = async (path: string) => {
    const calls = out.calls.length;
    const sql = "UPDATE deliveries SET not_before = CASE path WHEN ? THEN 0 ELSE MAX(not_before, ?) END";
    await engine.journal.apply(() => engine.journal.run(sql, path, engine.clock.monotonicMs() + 60_000));
    lane.resumeTarget();
    await until(bench, `tried: ${path}`, () => out.files.has(path) || (out.calls.length > calls && isFull()));
  };
  /** Its partials, without what core adds to their names. */
  const held = () => [...out.partials].map(([name, { length }]) => [name.slice(1, 6), length] as const).filter(([, length]) => length > 0);
  return { bench, card, lane, engine, isFull, rowOf, again, tried, turnOf, held };
}

test("what is given up at a target that is full is taken away there before anything is tried: it holds the room", async (t) => {
  const out = new FakeDevice("out");
  const { bench, card, again } = await filled(t, ["a.bin", "b.bin"], 5_000_000, 6_000_000, out);
  card.files.delete("b.bin");
  card.changes$.next();
  await until(bench, "lost", () => bench.states("out").includes("discard"));
  await again();
  await until(bench, "the other", () => out.files.has("a.bin"));
});

test("what a full target has no room for a second time waits longer than the target: others have a turn, and go; alone it does not", async (t) => {
  const out = new FakeDevice("out", { target: { concurrency: 1 } });
  const { bench, card, lane, engine, rowOf, tried } = await filled(t, ["a.bin"], 1_000_000, 0, out);
  const waits = () => rowOf("a.bin").not_before - engine.clock.monotonicMs() - lane.pausedMs;
  await tried();
  assert.ok(waits() <= 0, "alone");
  card.put("b.bin", "small", t0 - 5000);
  card.changes$.next();
  await until(bench, "found", () => bench.states("out").includes("ready") && bench.states("out").length === 2);
  await tried();
  assert.ok(waits() > 0, "with another");
  out.room = 1000;
  lane.resumeTarget();
  await until(bench, "the other", () => out.files.has("b.bin"));
});

test("what gave way to what is more urgent, and then holds the room that this needs, gives it", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { inPlace: true });
  const out = new FakeDevice("out", { target: { concurrency: 1 } });
  out.room = 11_000_000;
  card.put("b.bin", randomBytes(10_000_000), t0);
  card.before = (call) => (call === "read b.bin 3932160" ? new Promise(() => undefined) : undefined);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "a part", () => [...out.partials.values()].some(({ length }) => length === 3_932_160));
  card.before = () => undefined;
  card.put("a.bin", randomBytes(10_000_000), t0 + 1000);
  card.changes$.next();
  const { engine } = bench.daemon;
  const lane = engine.lanes.get("out");
  await until(bench, "it is full", () => (lane?.pausedMs ?? 0) > 0 && engine.queue.pushing.size === 0);
  await engine.journal.apply(() => {
    engine.queue.dueNow("out");
  });
  lane?.resumeTarget();
  await until(bench, "it is there", () => out.files.has("a.bin"));
});

test("what cannot be taken away at a full target: the one before it gives its room, and it is not told each time", async (t) => {
  const out = new FakeDevice("out", { target: { concurrency: 3 } });
  const { bench, tried, held, again } = await filled(t, ["a.bin", "b.bin", "c.bin"], 5_000_000, 4_900_000, out);
  out.before = (call) => {
    if (call === "discard c.bin") throw new Fault("denied", "nothing may be removed");
    return undefined;
  };
  const names = () => held().map(([name]) => name);
  await again();
  await until(bench, "the one before gave", () => names().join() === "a.bin,c.bin");
  const told = (level: string) => bench.events.filter((it) => it.level === level && it.message.includes("cannot be taken away")).length;
  await tried();
  const before = told("warn");
  while (told("debug") === 0) await tried();
  assert.deepEqual([names(), told("warn")], [["a.bin", "c.bin"], before]);
});

test("a full target to which more is handed on than it takes: the first goes on with the room that the last gave, and the next keeps what it has", async (t) => {
  const out = new FakeDevice("out", { target: { concurrency: 3 } });
  out.handsAll = true;
  const { bench, tried, held, isFull } = await filled(t, ["a.bin", "b.bin", "c.bin"], 5_000_000, 4_900_000, out);
  const before = new Map(held());
  // What was handed on seemed to be taken.
  while (held().length === 3) await tried();
  await until(bench, "the first has its room", () => isFull() && new Map(held()).get("a.bin") !== before.get("a.bin"));
  assert.equal(new Map(held()).get("b.bin"), before.get("b.bin"));
});

test("what a full target refuses again with the room that the last gave takes no more from others; what broke off there gives none", async (t) => {
  const out = new FakeDevice("out", { target: { concurrency: 4 } });
  const { bench, engine, tried, held } = await filled(t, ["a.bin", "b.bin", "c.bin", "d.bin"], 5_000_000, 4_900_000, out);
  await engine.journal.apply(() => engine.journal.run("UPDATE deliveries SET fault = 'transient' WHERE path = 'd.bin'"));
  out.before = (call) => {
    if (call.startsWith("write a.bin")) throw new Fault("full", "it is too large for the quota");
    return undefined;
  };
  const before = held();
  assert.equal(before.length, 4);
  for (let n = 0; n < 4; n++) await tried();
  const gave = saidOf(bench, "again").filter((message) => message.includes("is taken away there"));
  assert.deepEqual(
    before.filter(([name, bytes]) => new Map(held()).get(name) !== bytes).map(([name]) => name),
    ["c.bin"],
  );
  assert.equal(gave.length, 1, gave.join("\n"));
});

test("where the first at a full target makes nothing of the room that it is given, the next gets it, and is whole", async (t) => {
  const out = new FakeDevice("out", { target: { concurrency: 4 } });
  const { bench, lane, engine, isFull, again } = await filled(t, ["a.bin", "b.bin", "c.bin", "d.bin"], 5_000_000, 8_000_000, out);
  out.before = (call) => {
    if (call.startsWith("write a.bin")) throw new Fault("full", "it is too large for the quota");
    return undefined;
  };
  // The first has its turn, then the others.
  const due = (which: string) =>
    engine.journal.apply(() =>
      engine.journal.run(`UPDATE deliveries SET not_before = CASE WHEN ${which} THEN 0 ELSE 1e15 END WHERE state = 'ready'`),
    );
  for (let n = 0; n < 12 && !out.files.has("b.bin"); n++) {
    await due(n % 3 === 0 ? "path = 'a.bin'" : "path <> 'a.bin'");
    const writes = out.calls.length;
    lane.resumeTarget();
    await until(bench, "tried", () => out.files.has("b.bin") || (out.calls.length > writes && isFull()));
  }
  assert.ok(out.files.has("b.bin"));
  out.before = () => undefined;
  out.room = Infinity;
  await again();
  await until(bench, "all", () => bench.states("out").every((state) => state === "done"));
});

test("what is larger than what a full target has keeps no smaller one from going: it makes way, and is tried ever more seldom", async (t) => {
  const out = new FakeDevice("out");
  const { bench, card, lane, engine, rowOf, again, turnOf, held } = await filled(t, ["a.bin"], 8_000_000, 5_000_000, out);
  const waitsMin = () => (rowOf("a.bin").not_before - engine.clock.monotonicMs()) / 60_000;
  const arrives = async (name: string, bytes: number) => {
    card.put(name, randomBytes(bytes), t0 - 5000);
    card.changes$.next();
    await until(bench, "found", () => engine.journal.get("SELECT 1 FROM deliveries WHERE path = ?", name) !== undefined);
    for (let n = 0; n < 9 && !out.files.has(name); n++) await turnOf(name);
    assert.ok(out.files.has(name));
  };
  await arrives("b.bin", 1_000_000);
  assert.deepEqual(held(), []);
  assert.ok(waitsMin() > 9 && waitsMin() <= 10, `${waitsMin()}`);
  await again();
  assert.ok(waitsMin() > 9, "it is due as the target is back");
  await turnOf("a.bin");
  assert.deepEqual(held(), [["a.bin", 4_000_000]]);
  await arrives("c.bin", 1_000_000);
  assert.ok(waitsMin() > 39 && waitsMin() <= 40, `${waitsMin()}`);
  // Another disk.
  out.room = Infinity;
  await engine.journal.apply(() => {
    engine.queue.dueNow("out", { epoch: "2" });
  });
  lane.resumeTarget();
  await until(bench, "all", () => bench.states("out").every((state) => state === "done"));
});

test("once somebody made room at a full target, what is no larger than what it took goes at once", async (t) => {
  const out = new FakeDevice("out", { target: { concurrency: 1 } });
  const { bench, card, engine, lane, rowOf, turnOf } = await filled(t, ["a.bin"], 2_000_000, 0, out);
  const others = { "b.bin": 2_000_000, "c.bin": 1_000_000, "d.bin": 3_000_000 };
  for (const [name, size] of Object.entries(others)) card.put(name, randomBytes(size), t0 - 5000);
  card.changes$.next();
  await until(bench, "found", () => bench.states("out").filter((state) => state === "ready").length === 4);
  for (const name of Object.keys(others)) await turnOf(name);
  await engine.journal.apply(() => engine.journal.run("UPDATE deliveries SET not_before = CASE path WHEN 'b.bin' THEN 0 ELSE 1e15 END"));
  // What never was refused says nothing of the room.
  card.put("e.bin", "small", t0 + 5000);
  card.changes$.next();
  out.room = Infinity;
  await until(bench, "another", () => bench.states("out").length === 5);
  lane.resumeTarget();
  await until(
    bench,
    "what fits",
    () => ["a.bin", "b.bin", "c.bin"].every((name) => out.files.has(name)) && engine.queue.pushing.size === 0,
  );
  assert.deepEqual([rowOf("d.bin").state, rowOf("d.bin").not_before], ["ready", 1e15]);
});

test("what makes room for itself at a full target is not sent beside that, though the target attaches anew meanwhile and it is due: others go", async (t) => {
  const out = new FakeDevice("out");
  const { bench, card, again } = await filled(t, ["a.bin", "b.bin"], 5_000_000, 6_000_000, out);
  let go = (): void => undefined;
  const gate = new Promise<void>((resolve) => (go = resolve));
  const met = new Promise<void>((resolve) => {
    out.before = (call) => {
      if (call !== "discard b.bin") return undefined;
      resolve();
      return gate;
    };
  });
  await again();
  await met;
  out.room = Infinity;
  const before = out.calls.length;
  out.attach(true);
  card.put("c.bin", "small", t0 - 5000);
  card.changes$.next();
  await until(bench, "another", () => out.files.has("c.bin"));
  assert.deepEqual(
    out.calls.slice(before).filter((call) => /^\w+ a\.bin/.test(call)),
    [],
  );
  go();
  await until(bench, "all", () => bench.states("out").every((state) => state === "done"));
});

test("what gave its room at a full target had no name there: what somebody else puts under that by then is theirs, and not replaced once the file grows", async (t) => {
  const out = new FakeDevice("out");
  const { bench, card, again, rowOf } = await filled(t, ["a.bin", "b.bin"], 5_000_000, 6_000_000, out);
  const { bytes } = card.files.get("b.bin") ?? assert.fail();
  out.before = (call) => {
    if (call !== "discard b.bin") return undefined;
    out.before = () => undefined;
    out.put("b.bin", bytes);
    out.room = Infinity;
    return undefined;
  };
  await again();
  await until(bench, "both", () => bench.states("out").every((state) => state === "done"));
  assert.equal((JSON.parse(rowOf("b.bin").receipt ?? "{}") as StoredReceipt).found, true);
  card.put("b.bin", Buffer.concat([bytes, randomBytes(1000)]), t0 + 1000);
  card.changes$.next();
  await until(bench, "the longer one", () => bench.states("out").join() === "done,done,done");
  assert.ok(out.files.get("b.bin")?.bytes.equals(bytes));
});

test("what gave its room at a full target that takes only what is whole here, and is being pulled anew, takes no turn there until it is", async (t) => {
  const out = new FakeDevice("out", { target: { needs: "sealed" } });
  const { bench, card, lane, engine, rowOf, again } = await filled(t, ["a.bin", "b.bin"], 5_000_000, 6_000_000, out, false);
  lane.pauseTarget(600_000);
  let go = (): void => undefined;
  const gate = new Promise<void>((resolve) => (go = resolve));
  card.before = (call) => (call === "read b.bin 65536" ? gate : undefined);
  const { version } = rowOf("b.bin");
  assert.ok(await giveUp(engine, engine.queue.version(version) ?? assert.fail(), "waits"));
  await engine.journal.apply(() => {
    engine.queue.dueNow("out");
  });
  engine.work$.next();
  await until(bench, "it is pulled anew", () => engine.queue.pulling.has(version));
  card.put("c.bin", "small", t0 - 5000);
  card.changes$.next();
  await again();
  await until(bench, "the others", () => out.files.size === 2);
  assert.equal(out.calls.filter((call) => call === "discard b.bin").length, 1, "when it gave its room");
  out.room = Infinity;
  go();
  await until(bench, "all", () => bench.states("out").every((state) => state === "done"));
});

test("what gave its room in vain, as where another file system than its own is full, gives it to no other either, also when the target took files since", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { inPlace: true });
  const out = new FakeDevice("out", { target: { concurrency: 1 } });
  card.put("large.bin", randomBytes(9_000_000), t0);
  for (const name of ["a", "b", "c"]) card.put(`full/${name}.bin`, "content", t0 + 1000);
  out.before = (call) => {
    if (call.startsWith("write full/")) throw new Fault("full", "no space is left there");
    return undefined;
  };
  // Part of it goes before it stands still.
  card.before = (call) => (Number(/^read large\.bin (\d+)$/.exec(call)?.[1] ?? 0) < 1_000_000 ? undefined : new Promise(() => undefined));
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  const { engine } = bench.daemon;
  const lane = engine.lanes.get("out") ?? assert.fail();
  const isSent = () => {
    lane.resumeTarget();
    const held = [...out.partials.values()].some(({ length }) => length > 1_000_000);
    return held && [...engine.queue.pushing.values()].some(({ delivery }) => delivery.path === "large.bin");
  };
  for (let n = 0; n < 3; n++) {
    await until(bench, "a part", isSent);
    card.put(`${n}.bin`, "small", t0 + 2000 + n);
    card.changes$.next();
    await until(bench, "a file more", () => out.files.has(`${n}.bin`) && isSent());
    await engine.journal.apply(() => engine.journal.run("UPDATE deliveries SET not_before = 0 WHERE state = 'ready'"));
    engine.work$.next();
    await until(bench, "it is full", () => lane.pausedMs > 0 && engine.queue.pushing.size === 0);
  }
  assert.equal(saidOf(bench, "again").filter((message) => message.includes("is taken away there")).length, 1);
  card.before = () => undefined;
  await until(bench, "the large one", () => {
    lane.resumeTarget();
    return out.files.has("large.bin");
  });
});

test("what finds no room where others do, as on another file system below the same root, is not tried anew after each of them", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { inPlace: true });
  const out = new FakeDevice("out", { target: { concurrency: 1 } });
  card.put("full/b.bin", "content", t0 + 5000);
  for (let n = 0; n < 20; n++) card.put(`${n}.bin`, "content", t0 - n);
  out.before = (call) => {
    if (call.startsWith("write full/")) throw new Fault("full", "no space is left there");
    return undefined;
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  const { engine } = bench.daemon;
  const lane = engine.lanes.get("out") ?? assert.fail();
  for (let tries = 1; tries <= 3; tries++) {
    await until(bench, "it is full", () => lane.pausedMs > 0 && engine.queue.pushing.size === 0);
    if (tries < 3) await engine.journal.apply(() => engine.journal.run("UPDATE deliveries SET not_before = 0 WHERE path LIKE 'full%'"));
    lane.resumeTarget();
  }
  await until(bench, "the others", () => out.files.size === 20);
});

test("a larger one that made way in vain, as where the smaller goes to another file system, does not do so again", async (t) => {
  const out = new FakeDevice("out");
  const { bench, card, engine, turnOf, rowOf } = await filled(t, ["a.bin"], 8_000_000, 5_000_000, out);
  out.before = (call) => {
    if (call.startsWith("write full/")) throw new Fault("full", "no space is left there");
    return undefined;
  };
  card.put("full/b.bin", randomBytes(1_000_000), t0 - 5000);
  card.changes$.next();
  await until(bench, "found", () => engine.journal.get("SELECT 1 FROM deliveries WHERE path = 'full/b.bin'") !== undefined);
  const gave = () => saidOf(bench, "again").filter((message) => message.includes("is taken away there")).length;
  for (let n = 0; n < 9 && gave() === 0; n++) await turnOf("full/b.bin");
  assert.deepEqual([gave(), rowOf("a.bin").reason], [1, "it made way there for full/b.bin"]);
  await turnOf("a.bin");
  for (let n = 0; n < 6; n++) await turnOf("full/b.bin");
  assert.equal(gave(), 1);
});

test("a larger one makes no way for less than a hundredth of what it holds, nor where nobody can tell what that is", async (t) => {
  const out = new FakeDevice("out");
  const { bench, card, engine, turnOf, held } = await filled(t, ["a.bin"], 8_000_000, 5_000_000, out);
  const arrives = async (name: string) => {
    card.put(name, randomBytes(40_000), t0 - 5000);
    card.changes$.next();
    await until(bench, "found", () => engine.journal.get("SELECT 1 FROM deliveries WHERE path = ?", name) !== undefined);
    for (let n = 0; n < 7; n++) await turnOf(name);
  };
  await arrives("b.bin");
  out.before = (call) => {
    if (call === "offset a.bin") throw new Fault("denied", "nobody may look there");
    return undefined;
  };
  await arrives("c.bin");
  out.before = () => undefined;
  assert.deepEqual(held(), [["a.bin", 5_000_000]]);
  await turnOf("a.bin");
  await turnOf("c.bin");
  await until(bench, "both", () => out.files.has("b.bin") && out.files.has("c.bin"));
});

test("a larger one makes way again where what got the room broke off, and the larger one took it back; many small ones count together, tried or not", async (t) => {
  const out = new FakeDevice("out");
  const { bench, card, turnOf } = await filled(t, ["a.bin"], 8_000_000, 5_000_000, out);
  const gave = () => saidOf(bench, "again").filter((message) => message.includes("is taken away there")).length;
  for (let n = 0; n < 60; n++) card.put(`${n}.bin`, randomBytes(1000), t0 - 5000 - n);
  card.changes$.next();
  await until(bench, "found", () => bench.states("out").filter((state) => state === "ready").length === 61);
  let broken = false;
  out.before = (call) => {
    if (broken || gave() === 0 || !call.startsWith("write 0.bin")) return undefined;
    broken = true;
    out.room = 0;
    throw new Fault("transient", "the link broke");
  };
  for (let n = 0; n < 9 && !broken; n++) await turnOf("0.bin");
  assert.ok(broken);
  out.room = 5_000_000;
  await turnOf("a.bin");
  for (let n = 0; n < 9 && !out.files.has("0.bin"); n++) await turnOf("0.bin");
  assert.deepEqual([out.files.has("0.bin"), gave()], [true, 2]);
});

test("what has its name at a full target already, without an answer, gives no room, and stays known as what was sent", async (t) => {
  const out = new FakeDevice("out");
  const { bench, card, tried, again, held } = await filled(t, ["a.bin", "b.bin"], 5_000_000, 6_000_000, out);
  const { bytes, modifiedMs } = card.files.get("b.bin") ?? assert.fail();
  out.partials.delete([...out.partials.keys()].find((name) => name.startsWith(".b.bin")) ?? "");
  out.put("b.bin", bytes, modifiedMs);
  await tried();
  assert.deepEqual(
    held().map(([name]) => name),
    ["a.bin"],
  );
  assert.deepEqual(
    saidOf(bench, "again").filter((message) => message.includes("taken away")),
    [],
  );
  out.room = Infinity;
  await again();
  await until(bench, "delivered", () => bench.states("out").every((state) => state === "done"));
  const receipts = bench.daemon.engine.journal.all<{ receipt: string }>("SELECT receipt FROM deliveries");
  assert.deepEqual(
    receipts.map(({ receipt }) => (JSON.parse(receipt) as StoredReceipt).found),
    [undefined, undefined],
  );
});

test("what cannot be resumed is not broken off for what is more urgent", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out", { target: { concurrency: 1, resume: false } });
  card.put("big.bin", randomBytes(9_000_000), t0);
  let begun = (): void => undefined;
  const writing = new Promise<void>((resolve) => (begun = resolve));
  let go = (): void => undefined;
  const gate = new Promise<void>((resolve) => (go = resolve));
  out.before = (call) => {
    if (call !== "write big.bin 0") return undefined;
    begun();
    return gate;
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await writing;
  card.put("new.bin", "urgent", t0 + 1000);
  bench.daemon.engine.relist$.next("card");
  await until(bench, "the urgent one waits", () => bench.states("out")[1] === "ready");
  // Whoever gives way does so at this hint; the next one comes after it was dealt with.
  for (let n = 0; n < 2; n++) {
    bench.daemon.engine.work$.next();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  go();
  await until(bench, "both", () => bench.states("out").filter((state) => state === "done").length === 2);
  assert.equal(out.calls.filter((call) => call.startsWith("write big.bin")).length, 1);
});

test("what cannot be resumed is sent once it is whole here, not behind a pull that may break off", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out", { target: { resume: false } });
  const behind = new FakeDevice("behind");
  card.put("a.bin", randomBytes(9_000_000));
  let go = (): void => undefined;
  const gate = new Promise<void>((resolve) => (go = resolve));
  // The pull stands still near its end; the one that can resume follows it.
  card.before = (call) => (/^read a\.bin 8\d{6}$/.test(call) ? gate : undefined);
  await bench.start({ sources: [card], targets: [out, behind] }, [{ from: "card", to: ["out", "behind"] }]);
  await until(bench, "the other follows", () => behind.partials.size > 0);
  assert.deepEqual(
    out.calls.filter((call) => call.startsWith("write")),
    [],
  );
  go();
  await until(bench, "both", () => [...bench.states("out"), ...bench.states("behind")].filter((state) => state === "done").length === 2);
});

test("what cannot be resumed and arrived whole while nobody listened is not sent again; half of it is", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out", { target: { resume: false } });
  card.put("a.bin", randomBytes(300_000));
  let commits = 0;
  out.before = (call) => {
    if (!call.startsWith("commit") || ++commits > 2) return undefined;
    if (commits === 2) for (const [path, partial] of out.partials) out.partials.set(path, partial.subarray(0, 1000));
    throw new Fault("transient", "no answer came");
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "delivered", () => bench.states("out")[0] === "done");
  assert.deepEqual(
    out.calls.filter((call) => /^(write|discard|commit)/.test(call)),
    ["write a.bin 0", "commit a.bin", "commit a.bin", "discard a.bin", "write a.bin 0", "commit a.bin"],
  );
});

/** A file for a target that digests nothing. */
function undigested(t: TestContext) {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out", { target: { digests: [] } });
  const content = randomBytes(300_000);
  card.put("a.bin", content);
  const start = () => bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  const delivered = async (): Promise<void> => {
    await start();
    await until(bench, "delivered", () => bench.states("out")[0] === "done");
  };
  return { bench, card, out, content, start, delivered };
}

for (const left of [0, 1000])
  test(`what is only ${left} bytes long once it is to get its name, at a target that digests nothing, is sent from there`, async (t) => {
    const { out, content, delivered } = undigested(t);
    let commits = 0;
    out.before = (call) => {
      if (call.startsWith("commit") && ++commits === 1)
        for (const [path, partial] of out.partials) out.partials.set(path, partial.subarray(0, left));
      return undefined;
    };
    await delivered();
    assert.ok(out.files.get("a.bin")?.bytes.equals(content));
    assert.deepEqual(
      out.calls.filter((call) => /^(write|discard|commit)/.test(call)),
      ["write a.bin 0", "commit a.bin", "commit a.bin", `write a.bin ${left}`, "commit a.bin"],
    );
  });

test("what was given its name without an answer, at a target that digests nothing, is not sent again because the name cannot be asked for a while", async (t) => {
  const { out, delivered } = undigested(t);
  let commits = 0;
  out.before = (call) => {
    if (!call.startsWith("commit") || ++commits > 2) return undefined;
    for (const [path, bytes] of out.partials) {
      out.files.set("a.bin", { bytes, modifiedMs: 0 });
      out.partials.delete(path);
    }
    throw new Fault("transient", "the connection was reset");
  };
  await delivered();
  assert.deepEqual([...out.files.keys()], ["a.bin"]);
  assert.deepEqual(
    out.calls.filter((call) => /^(write|discard|commit)/.test(call)),
    ["write a.bin 0", "commit a.bin", "commit a.bin", "commit a.bin"],
  );
});

for (const [what, isNamed, content] of [
  ["has its name already", true, "the same"],
  ["has not its name yet", false, "the same"],
  ["has its name already, but is of another content", true, "another"],
] as const)
  test(`given up by the spool while nobody knew whether it was given its name, at a target that digests nothing: what ${what}`, async (t) => {
    const { bench, card, out, content: first, delivered } = undigested(t);
    out.before = (call) => {
      if (!call.startsWith("commit")) return undefined;
      for (const [path, bytes] of isNamed ? out.partials : []) {
        out.files.set("a.bin", { bytes, modifiedMs: 0 });
        out.partials.delete(path);
      }
      out.attach(false);
      throw new Fault("offline", "the ground is away");
    };
    await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
    await until(bench, "cut off", () => out.presence$.value.state === "detached" && bench.states("out")[0] === "ready");
    await bench.stop();
    rmSync(join(bench.dir, "spool"), { recursive: true });
    out.before = () => undefined;
    if (content === "another") card.put("a.bin", Buffer.alloc(first.length));
    out.attach(true);
    await delivered();
    assert.ok(out.files.get("a.bin")?.bytes.equals(first));
    assert.equal(out.files.size, content === "another" ? 2 : 1);
    assert.equal(out.partials.size, 0);
    assert.equal(out.calls.filter((call) => call.startsWith("write")).length, content === "another" ? 2 : 1);
  });

test("what cannot be resumed and breaks off each time is waited with for longer each time: what went is lost, and no progress", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out", { target: { resume: false } });
  card.put("a.bin", randomBytes(300_000));
  out.before = (call) => {
    if (!call.startsWith("commit")) return undefined;
    out.partials.clear();
    throw new Fault("transient", "the connection was reset");
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  const tries = () => bench.daemon.engine.journal.get<{ tries: number }>("SELECT tries FROM deliveries")?.tries;
  await until(
    bench,
    "sent twice",
    () => out.calls.filter((call) => call.startsWith("write")).length === 2 && bench.states("out")[0] === "ready",
  );
  assert.equal(tries(), 2);
});

test("what can be resumed, and of which the target keeps nothing each time, is waited with for longer too, until something is kept", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  card.put("a.bin", randomBytes(300_000));
  let keeps = false;
  out.before = (call) => {
    if (!call.startsWith("commit")) return undefined;
    for (const [path, partial] of out.partials) {
      if (keeps) out.partials.set(path, partial.subarray(0, 100_000));
      else out.partials.delete(path);
    }
    throw new Fault("transient", "the connection was reset");
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  const tries = () => bench.daemon.engine.journal.get<{ tries: number }>("SELECT tries FROM deliveries")?.tries;
  const sent = (times: number) =>
    until(
      bench,
      `sent ${times} times`,
      () => out.calls.filter((call) => call.startsWith("commit")).length === times && bench.states("out")[0] === "ready",
    );
  await sent(3);
  assert.equal(tries(), 3);
  keeps = true;
  await sent(4);
  assert.equal(tries(), 4, "nobody knows yet that it keeps it");
  await sent(5);
  assert.equal(tries(), 1);
});

test("a disk that was pulled after the last byte, and is back with less of it, is asked anew and goes on from there", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const disk = new FakeDevice("disk");
  const bytes = randomBytes(300_000);
  card.put("a.bin", bytes);
  let pulled = false;
  disk.before = (call) => {
    if (!call.startsWith("commit") || pulled) return undefined;
    pulled = true;
    // The cache held the end of it, and the medium did not. It is back before the next call.
    for (const [path, partial] of disk.partials) disk.partials.set(path, partial.subarray(0, 131_072));
    disk.attach(false);
    disk.attach(true);
    return undefined;
  };
  await bench.start({ sources: [card], targets: [disk] }, [{ from: "card", to: ["disk"] }]);
  await until(bench, "delivered", () => bench.states("disk")[0] === "done");
  assert.deepEqual(
    disk.calls.filter((call) => /^(write|discard)/.test(call)),
    ["write a.bin 0", "write a.bin 131072"],
  );
  assert.ok(disk.files.get("a.bin")?.bytes.equals(bytes));
});

test("killed after the name was given, before the partial's name was taken away: the partial does not stay", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  card.put("a.bin", "content");
  const start = () => bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await bench.killedAt(out, "commit", start, () => {
    out.put("a.bin", "content");
    // None of its bytes was synced: what is there under the partial's name is not believed.
    for (const path of out.partials.keys()) out.partials.set(path, Buffer.alloc(0));
  });
  await start();
  await until(bench, "delivered", () => bench.states("out")[0] === "done");
  assert.deepEqual([...out.partials.keys()], []);
  assert.equal(out.calls.filter((call) => call.startsWith("write")).length, 1);
});

test("a card that is pulled in the middle and comes back is read on from what is durable", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  const bytes = randomBytes(9_000_000);
  card.put("a.bin", bytes);
  let pulled = false;
  card.before = (call) => {
    if (pulled || !/^read a\.bin 6\d{6}$/.test(call)) return undefined;
    pulled = true;
    card.attach(false);
    throw new Fault("offline", "unplugged");
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "pulled", () => pulled && bench.daemon.engine.queue.pulling.size === 0);
  card.attach(true);
  await until(bench, "delivered", () => bench.states("out")[0] === "done");
  const opens = card.calls.filter((call) => call.startsWith("open a.bin")).map((call) => Number(call.split(" ")[2]));
  assert.ok((opens.at(-1) ?? 0) >= 4 * 2 ** 20, `opened at ${opens.join(", ")}`);
  assert.ok(out.files.get("a.bin")?.bytes.equals(bytes));
});

test("what becomes due a moment after the engine was woken for something else goes then, not a minute later", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  card.put("a.bin", "content");
  let writes = 0;
  out.before = (call) => {
    if (!call.startsWith("write")) return undefined;
    writes += 1;
    throw new Fault("transient", "a busy server");
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  const { engine } = bench.daemon;
  for (let round = 1; round <= 5; round++) {
    await until(bench, `try ${round}`, () => writes >= round && bench.states("out")[0] === "ready");
    await engine.journal.apply(() => engine.journal.run("UPDATE deliveries SET not_before = ?", engine.clock.monotonicMs() + 40));
    engine.work$.next();
  }
  await until(bench, "one more try", () => writes > 5);
});

for (const [what, resume] of [
  ["a target", true],
  ["a target that begins each file anew", false],
] as const)
  test(`a file that may not be written, at ${what} where others may, does not take the target away from those; it is tried again later, and less often`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card");
    const out = new FakeDevice("out", { target: { resume } });
    for (const name of ["a", "b", "c"]) card.put(`open/${name}.bin`, name, t0);
    for (const name of ["d", "e"]) card.put(`shut/${name}.bin`, name, t0 + 1000);
    let shut = true;
    out.before = (call) => {
      if (shut && call.startsWith("write shut/")) throw new Fault("denied", "permission denied");
      return undefined;
    };
    await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
    await until(bench, "the others", () => bench.states("out").filter((state) => state === "done").length === 3);
    assert.deepEqual(saidOf(bench, "detached"), []);
    const { engine } = bench.daemon;
    const waits = () =>
      engine.journal.all<{ fault: string; tries: number; ms: number }>(
        "SELECT fault, tries, not_before - ? AS ms FROM deliveries WHERE state = 'ready'",
        engine.clock.monotonicMs(),
      );
    await until(bench, "both were tried", () => waits().length === 2 && waits().every(({ tries }) => tries === 1));
    assert.ok(waits().every(({ fault, ms }) => fault === "denied" && ms > 50_000 && ms <= 60_000));
    const again = async () => {
      await engine.journal.apply(() => engine.journal.run("UPDATE deliveries SET not_before = 0"));
      engine.work$.next();
    };
    await again();
    await until(bench, "both were tried again", () => waits().length === 2 && waits().every(({ tries }) => tries === 2));
    assert.ok(waits().every(({ ms }) => ms > 110_000 && ms <= 120_000));
    shut = false;
    await again();
    await until(bench, "all", () => bench.states("out").every((state) => state === "done"));
  });

test("files that a single shot's server denies: nobody can tell whether it is the file or the key, so another goes first when the server is asked again, and they are tried less and less often", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const box = new PostBox("box");
  for (const name of ["a", "b"]) card.put(`denied ${name}`, name, t0 + 1000);
  for (const name of ["c", "d"]) card.put(`good ${name}`, name, t0);
  let opens = false;
  box.before = (call) => {
    if (!opens && call.startsWith("took denied")) throw new Fault("denied", "403");
    return undefined;
  };
  // Which goes first is decided among all of them.
  box.attach(false);
  await bench.start({ sources: [card], targets: [box] }, [{ from: "card", to: ["box"] }]);
  await until(bench, "all are whole here", () => bench.states("box").filter((state) => state === "ready").length === 4);
  box.attach(true);
  const { engine } = bench.daemon;
  const denials = () => box.calls.filter((call) => call.startsWith("took denied")).length;
  const waits = () =>
    engine.journal
      .all<{ tries: number; ms: number }>(
        "SELECT tries, not_before - ? AS ms FROM deliveries WHERE state = 'ready' AND fault = 'denied' ORDER BY tries",
        engine.clock.monotonicMs(),
      )
      .map(({ tries, ms }) => [tries, Math.ceil(ms / 60_000)]);
  const isAway = () => engine.lanes.get("box")?.attached === false;
  const denied = (times: number) =>
    until(bench, `denied ${times} times`, () => denials() === times && isAway() && waits().length === Math.min(times, 2));
  const back = () => engine.lanes.get("box")?.lookNow(new AbortController().signal);
  // As where so many were denied that the first are due again before the last was tried.
  const allDue = () => engine.journal.apply(() => engine.journal.run("UPDATE deliveries SET not_before = 0 WHERE fault = 'denied'"));
  await denied(1);
  await allDue();
  await back();
  await denied(2);
  await allDue();
  await back();
  await until(bench, "the others", () => bench.states("box").filter((state) => state === "done").length === 2);
  await denied(3);
  assert.deepEqual(
    box.posts.map(({ path }) => path),
    ["denied b", "denied a", "good d", "good c", "denied b"],
  );
  assert.deepEqual(waits().at(-1), [2, 4]);
  // That it is back says nothing of them.
  await back();
  await engine.journal.apply(() => undefined);
  assert.deepEqual(waits().at(-1), [2, 4]);
  await bench.stop();
  opens = true;
  await bench.start({ sources: [card], targets: [box] }, [{ from: "card", to: ["box"] }]);
  await until(bench, "all, at once after a start", () => bench.states("box").every((state) => state === "done"));
});

for (const kind of ["denied", "transient"] as const)
  test(`a target at which file after file fails (${kind}) says so of the first few and then once for all; status counts them; what fails after it took one is told again`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card");
    const out = new FakeDevice("out");
    for (let n = 0; n < 20; n++) card.put(`${n}.bin`, `${n}`, t0);
    let shut = true;
    out.before = (call) => {
      if (shut && call.startsWith("write")) throw new Fault(kind, `cannot write ${call.split(" ")[1] ?? ""}: permission denied`);
      return undefined;
    };
    await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
    const failing = () => bench.daemon.status().failing;
    await until(bench, "all were tried", () => failing()[0]?.deliveries === 20);
    const warned = () => bench.events.filter(({ what, level }) => what === "again" && level === "warn").map(({ message }) => message);
    assert.equal(warned().length, 4, warned().join("\n"));
    assert.equal(
      warned().filter((message) => /^card:\d+\.bin → out: cannot write \d+\.bin: permission denied; again in \d+ s$/.test(message)).length,
      3,
    );
    assert.match(warned()[3] ?? "", /^out: 3 files in a row failed there: .*"status" counts them$/);
    assert.match(failing()[0]?.reason ?? "", /permission denied$/);
    shut = false;
    card.put("new.bin", "new", t0);
    card.attach(false);
    card.attach(true);
    await until(bench, "one is taken", () => bench.states("out").includes("done"));
    shut = true;
    card.put("newer.bin", "newer", t0 + 1000);
    card.attach(false);
    card.attach(true);
    await until(bench, "told by itself", () => warned().some((message) => message.startsWith("card:newer.bin")));
  });

for (const killed of [false, true])
  test(`what was given its other name ${killed ? "when power went" : "without an answer"}, at a target that digests nothing, is not taken for what has its own: a file as long`, async (t) => {
    const { bench, out, content, start, delivered } = undigested(t);
    const foreign = randomBytes(content.length);
    out.files.set("a.bin", { bytes: foreign, modifiedMs: 0 });
    let isNamed = false;
    out.before = (call) => {
      if (!call.startsWith("commit a~")) return undefined;
      for (const [path, bytes] of out.partials) {
        out.files.set(call.slice("commit ".length), { bytes, modifiedMs: 0 });
        out.partials.delete(path);
      }
      out.before = () => undefined;
      isNamed = true;
      return killed ? new Promise(() => undefined) : Promise.reject(new Fault("transient", "the connection was reset"));
    };
    if (killed) {
      await start();
      await until(bench, "it has its name", () => isNamed);
      await bench.kill();
    }
    await delivered();
    await until(bench, "told", () => saidOf(bench, "delivered").length > 0);
    const name = `a~${createHash("sha256").update(content).digest("hex").slice(0, 8)}.bin`;
    assert.deepEqual(
      [...out.files].map(([path, { bytes }]) => [path, bytes.equals(path === "a.bin" ? foreign : content)]),
      [
        ["a.bin", true],
        [name, true],
      ],
    );
    assert.equal(out.calls.filter((call) => call.startsWith("write")).length, 1);
    assert.deepEqual(saidOf(bench, "delivered"), [`card:a.bin → out:${name} (300000 bytes, proved by size)`]);
  });

/** All that was sent is lost, and somebody else puts a file as long under the name. */
function losesAll({ out, content }: ReturnType<typeof undigested>): Buffer {
  const foreign = randomBytes(content.length);
  out.partials.clear();
  out.files.set("a.bin", { bytes: foreign, modifiedMs: 0 });
  return foreign;
}

function assertBoth({ out, content }: ReturnType<typeof undigested>, foreign: Buffer | undefined): void {
  const name = `a~${createHash("sha256").update(content).digest("hex").slice(0, 8)}.bin`;
  assert.deepEqual(
    [...out.files].map(([path, { bytes }]) => [path, bytes.equals(path === "a.bin" ? (foreign ?? content) : content)]),
    [
      ["a.bin", true],
      [name, true],
    ],
  );
}

for (const [how, breaksFirst, lostAt] of [
  ["at once", false, 1],
  ["when the connection broke before that", true, 2],
  ["when the connection broke before that, and power went", true, 2],
  ["once it was sent anew", false, 3],
] as const)
  test(`what was lost before its name was ever asked for, at a target that digests nothing, is not what another put there, a file as long: ${how}`, async (t) => {
    const it = undigested(t);
    const { bench, out, start, delivered } = it;
    out.looksFirst = breaksFirst;
    let [foreign, commits]: [Buffer | undefined, number] = [undefined, 0];
    const commit = (): undefined => {
      if (++commits === lostAt) foreign = losesAll(it);
      if (commits > 1 || lostAt === 1) return undefined;
      if (!breaksFirst) for (const path of out.partials.keys()) out.partials.set(path, Buffer.alloc(0));
      throw new Fault("transient", "the connection was reset");
    };
    out.before = (call) => (call.startsWith("commit") ? commit() : undefined);
    if (how.endsWith("power went")) {
      let again = (): void => undefined;
      const asked = new Promise<void>((resolve) => (again = resolve));
      out.before = (call) => {
        if (call.startsWith("commit")) commit();
        if (!call.startsWith("offset") || commits === 0) return undefined;
        again();
        return new Promise(() => undefined);
      };
      await start();
      await asked;
      await bench.kill();
      out.before = (call) => (call.startsWith("commit") ? commit() : undefined);
    }
    await delivered();
    assertBoth(it, foreign);
  });

test("what an earlier program gave its other name when power went, of which it noted no more than of its own, is not taken for what has that; nor is that replaced once it grows", async (t) => {
  const it = undigested(t);
  const { bench, card, out, content, start, delivered } = it;
  const foreign = randomBytes(content.length);
  out.files.set("a.bin", { bytes: foreign, modifiedMs: 0 });
  await bench.killedAt(out, "commit a~", start, () => {
    for (const bytes of out.partials.values()) out.files.set(out.calls.at(-1)?.slice("commit ".length) ?? "", { bytes, modifiedMs: 0 });
    out.partials.clear();
  });
  const journal = await Journal.open(bench.dir);
  await journal.commit(() => journal.run("UPDATE deliveries SET marks = json_remove(marks, '$.elsewhere')"));
  await journal.close();
  await delivered();
  assertBoth(it, foreign);
  card.put("a.bin", Buffer.concat([content, randomBytes(1000)]), t0 + 1000);
  bench.daemon.engine.relist$.next("card");
  await until(bench, "the longer one", () => bench.states("out").join() === "done,done");
  assert.ok(out.files.get("a.bin")?.bytes.equals(foreign));
  assert.equal(out.files.size, 3);
});
