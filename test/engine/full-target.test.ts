/** A full target: of what was begun there as much as fits becomes whole, in the order in which it is to go; no room is given in vain again and again. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test, type TestContext } from "node:test";
import { Fault } from "../../core/errors.js";
import type { DeliveryRow, StoredReceipt } from "../../core/rows.js";
import { giveUp } from "../../core/space.js";
import { Bench, FakeDevice, until } from "../fake-device.js";

const t0 = Date.UTC(2026, 4, 1);
const saidOf = (bench: Bench, what: string) => bench.events.filter((event) => event.what === what).map(({ message }) => message);

test("a target that is full of what was begun at once: others give their room to the first, and what fits is whole", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out", { target: { concurrency: 3 } });
  out.room = 7_500_000;
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
      engine.queue.dueNow("out", { epoch: String(out.calls.length) });
    });
    lane?.resumeTarget();
  };
  await until(bench, "it is full", () => begun === 3 && isFull());
  /** All is due, as at another disk, again and again, until that is so. */
  const fills = async (room: number, isSo: () => boolean) => {
    for (let n = 0; n < 9 && !isSo(); n++) {
      const calls = out.calls.length;
      await again(room);
      const isDone = () => engine.queue.pushing.size === 0 && engine.queue.best("out") === undefined;
      await until(bench, "tried", () => out.calls.length > calls && (isFull() || isDone()));
    }
    assert.ok(isSo(), `there: ${[...out.files.keys()].join()}, held: ${held().join()}`);
  };
  await fills(7_500_000, () => out.files.has("a.bin"));
  await fills(10_500_000, () => out.files.size === 2 && held().length === 1);
  const [alone, writes] = [held(), begun];
  await fills(10_500_000, () => begun > writes);
  assert.deepEqual(held(), alone, "alone, it keeps what it has");
  await fills(15_000_000, () => out.files.size === 3);
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

test("what cannot be taken away at a full target: the one before it gives its room, and it is not told each time", async (t) => {
  const out = new FakeDevice("out", { target: { concurrency: 3 } });
  const { bench, tried, held } = await filled(t, ["a.bin", "b.bin", "c.bin"], 5_000_000, 7_500_000, out);
  out.before = (call) => {
    if (call === "discard c.bin") throw new Fault("denied", "nothing may be removed");
    return undefined;
  };
  const [, last] = held().find(([name]) => name === "c.bin") ?? [];
  for (let n = 0; n < 9 && !out.files.has("a.bin"); n++) await tried();
  assert.ok(out.files.has("a.bin"));
  assert.ok(Number(new Map(held()).get("c.bin")) >= Number(last));
  const told = bench.events.filter(({ message }) => message.includes("cannot be taken away"));
  assert.deepEqual([told.filter(({ level }) => level === "warn").length], [1], told.map(({ message }) => message).join("\n"));
});

test("a full target to which more is handed on than it takes: the first goes on with the room that the last gave, and the next keeps what it has", async (t) => {
  const out = new FakeDevice("out", { target: { concurrency: 3 } });
  out.handsAll = true;
  const { bench, again, held, isFull } = await filled(t, ["a.bin", "b.bin", "c.bin"], 5_000_000, 7_500_000, out);
  const before = new Map(held());
  // What was handed on seemed to be taken.
  for (let n = 0; n < 9 && !out.files.has("a.bin"); n++) {
    const calls = out.calls.length;
    await again();
    await until(bench, "tried", () => out.calls.length > calls && isFull());
  }
  assert.ok(out.files.has("a.bin"));
  assert.ok(Number(new Map(held()).get("b.bin")) >= Number(before.get("b.bin")));
});

test("what a full target refuses again with the room that others gave takes it no more for a while; what broke off there gives none", async (t) => {
  const out = new FakeDevice("out", { target: { concurrency: 4 } });
  const { bench, engine, tried, held } = await filled(t, ["a.bin", "b.bin", "c.bin", "d.bin"], 5_000_000, 8_000_000, out);
  await engine.journal.apply(() => engine.journal.run("UPDATE deliveries SET fault = 'transient' WHERE path = 'd.bin'"));
  out.before = (call) => {
    if (call.startsWith("write a.bin")) throw new Fault("full", "it is too large for the quota");
    return undefined;
  };
  assert.equal(held().length, 4);
  for (let n = 0; n < 4; n++) await tried();
  const gave = saidOf(bench, "again").filter((message) => message.includes("is taken away there"));
  assert.deepEqual(
    gave.map((message) => message.replace(/ → .*; /, ": ")),
    ["card:c.bin: again in 1 min", "card:b.bin: again in 1 min"],
  );
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

test("once somebody made room at a full target, what is no larger than what it took goes at once, and what is larger within ten minutes", async (t) => {
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
  const waitsMs = rowOf("d.bin").not_before - bench.clock.monotonicMs();
  assert.ok(rowOf("d.bin").state === "ready" && waitsMs > 540_000 && waitsMs <= 600_000, String(waitsMs));
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

for (const how of ["", ", without an answer"])
  test(`what was taken away at a full target${how} had no name there: what somebody else puts under that by then is theirs, and not replaced once the file grows`, async (t) => {
    const out = new FakeDevice("out");
    const { bench, card, isFull, again, rowOf } = await filled(t, ["a.bin", "b.bin"], 5_000_000, 6_000_000, out);
    const { bytes } = card.files.get("b.bin") ?? assert.fail();
    out.before = (call) => {
      if (call !== "discard b.bin") return undefined;
      out.before = () => undefined;
      out.put("b.bin", bytes);
      out.room = Infinity;
      if (how === "") return undefined;
      for (const name of out.partials.keys()) if (name.includes("b.bin")) out.partials.delete(name);
      throw new Fault("transient", "the connection broke");
    };
    await again();
    await until(bench, "it is taken away", () => out.files.has("b.bin") && (how === "" || isFull()));
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

test("a larger one that makes way in vain, as where the smaller goes to another file system, does not do so again soon", async (t) => {
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
