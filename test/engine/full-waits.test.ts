/** What gives its room at a full target, to what, and for how long it waits then: nothing urgent is lost to what is not, and nothing is sent again without end. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { Fault } from "../../core/errors.js";
import { FakeDevice, until } from "../fake-device.js";
import { Hours, minute, oneByOne, second, t0 } from "./hours.js";

/** Its source breaks off there, once it is away. */
function breaksAt(card: FakeDevice, at: number): () => void {
  let away = (): void => undefined;
  const gone = new Promise<never>((_, reject) => (away = () => reject(new Fault("offline", "out of reach"))));
  gone.catch(() => undefined);
  card.before = (call) => (Number(/^read .* (\d+)$/.exec(call)?.[1] ?? 0) >= at ? gone : undefined);
  return () => {
    card.before = () => undefined;
    card.attach(false);
    away();
  };
}

/** A little is free whenever one of `0.bin` to `99.bin` is tried first. → Who was. */
function aLittleEach(out: FakeDevice): ReadonlySet<string> {
  const took = new Set<string>();
  out.before = (call) => {
    const path = /^write (\d+\.bin)/.exec(call)?.[1];
    if (path === undefined || took.has(path)) return undefined;
    out.room += 10_000;
    took.add(path);
    return undefined;
  };
  return took;
}

const order = (out: FakeDevice) => out.calls.filter((call) => call.startsWith("commit ")).map((call) => call.slice(7));

test("a crash log whose source is away for a moment keeps its partial from photos, and goes on when its source is back", async (t) => {
  const hours = new Hours(t, oneByOne(), 6_000_000);
  hours.card.put("crash.bin", randomBytes(5_000_000), t0);
  const leaves = breaksAt(hours.card, 3_932_160);
  await hours.start();
  await until(hours.bench, "a part", () => hours.held().join() === "c 3932160");
  leaves();
  await until(hours.bench, "away", () => hours.row("crash.bin").state === "wanting");
  await hours.arrives("photo.bin", 3_000_000, 5, hours.other);
  await hours.passes(2 * minute);
  // The ground made room, and the drone is in reach again: for five minutes.
  hours.out.files.clear();
  hours.out.room = Infinity;
  hours.card.attach(true);
  const isThere = await hours.passes(5 * minute, () => hours.out.files.has("crash.bin"));
  assert.ok(
    isThere,
    `not within 5 min: waits ${Math.round(hours.waitsMs("crash.bin") / minute)} min, ${JSON.stringify(hours.row("crash.bin"))}; ${hours.gave.join("; ")}`,
  );
});

test("a copy to the spool is made of what gave its room while its source was away", async (t) => {
  const hours = new Hours(t, oneByOne(), 6_000_000);
  const spooled = new FakeDevice("card");
  Object.assign(hours, { card: spooled });
  spooled.put("crash.bin", randomBytes(5_000_000), t0);
  const leaves = breaksAt(spooled, 3_932_160);
  await hours.start();
  await until(hours.bench, "a part", () => /^c \d{7}$/.test(hours.held().join())).catch(() => assert.fail(hours.held().join()));
  leaves();
  await until(hours.bench, "away", () => hours.row("crash.bin").state === "wanting");
  await hours.arrives("photo.bin", 3_000_000, 5, hours.other);
  await hours.passes(2 * minute, () => hours.gave.length > 0);
  const before = spooled.calls.length;
  spooled.attach(true);
  await hours.passes(5 * minute);
  assert.ok(
    spooled.calls.slice(before).some((call) => call.startsWith("open crash.bin")),
    `not pulled: ${JSON.stringify(hours.row("crash.bin"))}; ${hours.gave.join("; ")}; ${spooled.calls.slice(before).join()}`,
  );
});

test("a crash log that once gave its room goes before photos once the target has room again", async (t) => {
  const hours = new Hours(t, oneByOne(), 5_000_000);
  await hours.start();
  await hours.arrives("crash.bin", 8_000_000, 10);
  await hours.arrives("small.bin", 1_000_000, 5, hours.other);
  assert.ok(await hours.passes(10 * minute, () => hours.out.files.has("small.bin")));
  hours.out.files.clear();
  hours.out.room = Infinity;
  // Each ten seconds one photo, of ten seconds.
  let n = 0;
  const { clock } = hours.bench;
  const untilMs = clock.monotonicMs() + 120 * minute;
  hours.out.before = (call) => {
    if (call.startsWith("commit p") && clock.monotonicMs() < untilMs) {
      hours.other.put(`p${++n}.bin`, randomBytes(1000), t0 + n * 1000);
      hours.other.put(`p${++n}.bin`, randomBytes(1000), t0 + n * 1000);
      hours.other.changes$.next();
      hours.skips(minute);
      const { journal } = hours.engine;
      const last = `p${n}.bin`;
      return until(hours.bench, "found", () => journal.get("SELECT 1 FROM deliveries WHERE path = ?", last) !== undefined);
    }
    return undefined;
  };
  hours.other.put(`p0.bin`, randomBytes(1000), t0);
  hours.other.changes$.next();
  await until(hours.bench, "two hours", () => clock.monotonicMs() >= untilMs || hours.out.files.has("crash.bin"));
  const at = order(hours.out).indexOf("crash.bin");
  assert.ok(
    at >= 0,
    `two hours and ${order(hours.out).length} files later it waits; due since ${Math.round(-hours.waitsMs("crash.bin") / minute)} min`,
  );
});

test("what gave its room goes first on another disk", async (t) => {
  const hours = new Hours(t, oneByOne(), 5_000_000);
  await hours.start();
  await hours.arrives("crash.bin", 8_000_000, 10);
  await hours.arrives("small.bin", 1_000_000, 5, hours.other);
  assert.ok(await hours.passes(10 * minute, () => hours.out.files.has("small.bin")));
  hours.out.attach(false);
  for (let n = 0; n < 5; n++) hours.other.put(`p${n}.bin`, randomBytes(1000), t0 + n * 1000);
  hours.other.changes$.next();
  await until(hours.bench, "found", () => hours.engine.journal.get("SELECT 1 FROM deliveries WHERE path = 'p4.bin'") !== undefined);
  hours.out.files.clear();
  hours.out.partials.clear();
  hours.out.calls.splice(0);
  hours.out.room = Infinity;
  hours.out.attach(true);
  await until(hours.bench, "all", () => hours.out.files.size === 6);
  assert.equal(order(hours.out)[0], "crash.bin", order(hours.out).join());
});

test("what was begun on a healthy file system keeps that where another is full, though the spool had no room for its end", async (t) => {
  const hours = new Hours(t, new FakeDevice("out", { target: { concurrency: 2 } }), Infinity);
  const spooled = new FakeDevice("card");
  Object.assign(hours, { card: spooled });
  hours.out.before = (call) => {
    if (!call.startsWith("write full/")) return undefined;
    throw new Fault("full", "no space is left there");
  };
  spooled.put("crash.bin", randomBytes(5_000_000), t0);
  spooled.before = (call) => {
    if (Number(/^read .* (\d+)$/.exec(call)?.[1] ?? 0) < 3_932_160) return undefined;
    return until(hours.bench, "a part", () => /^c \d{7}$/.test(hours.held().join())).then(() => {
      throw new Fault("full", "the spool has no space");
    });
  };
  await hours.start();
  const isSo = () => hours.engine.journal.get("SELECT 1 FROM deliveries WHERE path = 'crash.bin' AND fault = 'full' AND state = 'wanting'");
  await until(hours.bench, "the spool is full", () => isSo() !== undefined && hours.engine.queue.pushing.size === 0);
  for (let n = 0; n < 3; n++) await hours.arrives(`full/${n}.bin`, 300_000, n, hours.other);
  await hours.passes(30 * minute);
  assert.deepEqual(hours.gave, [], JSON.stringify(hours.row("crash.bin")));
});

test("what was begun on a healthy file system, and whose source is away, keeps that where another is full", async (t) => {
  const hours = new Hours(t, new FakeDevice("out", { target: { concurrency: 2 } }), Infinity);
  hours.out.before = (call) => {
    if (!call.startsWith("write full/")) return undefined;
    throw new Fault("full", "no space is left there");
  };
  for (const name of ["a", "b"]) hours.card.put(`${name}.bin`, randomBytes(4_000_000), t0);
  const leaves = breaksAt(hours.card, 3_932_160);
  await hours.start();
  await until(hours.bench, "a part", () => hours.held().join() === "b 3932160,a 3932160" || hours.held().join() === "a 3932160,b 3932160");
  leaves();
  await until(hours.bench, "away", () => hours.row("a.bin").state === "wanting" && hours.engine.queue.pushing.size === 0);
  for (let n = 0; n < 3; n++) await hours.arrives(`full/${n}.bin`, 300_000, n, hours.other);
  await hours.passes(60 * minute);
  assert.deepEqual(hours.gave, [], hours.held().join());
});

test("where the answer to a removal is lost each time, what was taken away is not sent again without end", async (t) => {
  const hours = new Hours(t, oneByOne(), 5_000_000);
  await hours.start();
  await hours.arrives("l.bin", 8_000_000, 10);
  hours.out.before = (call) => {
    if (call !== "discard l.bin") return undefined;
    // A large file takes longer than its server lets a connection rest.
    const name = [...hours.out.partials].find(([name, { length }]) => name.startsWith(".l.bin") && length > 0)?.[0];
    if (name === undefined) return undefined;
    hours.out.partials.delete(name);
    throw new Fault("transient", "no answer in time");
  };
  await hours.arrives("s.bin", 1_000_000, 5);
  await hours.passes(60 * minute);
  assert.ok(
    (hours.sent.get("l.bin") ?? 0) <= 20_000_000,
    `${hours.sent.get("l.bin")} bytes of what never fits in one hour, ${hours.out.calls.filter((c) => c === "discard l.bin").length} times; s: ${hours.out.files.has("s.bin")}`,
  );
});

test("where the link breaks while a partial is to be taken away, and it is not, that is not sent again", async (t) => {
  const hours = new Hours(t, oneByOne(), 5_000_000);
  await hours.start();
  await hours.arrives("l.bin", 8_000_000, 10);
  let breaks = 1;
  hours.out.before = (call) => {
    if (call !== "discard l.bin" || breaks-- <= 0) return undefined;
    throw new Fault("offline", "the link broke before it was asked");
  };
  await hours.arrives("s.bin", 1_000_000, 5);
  await hours.passes(5 * minute, () => hours.out.files.has("s.bin"));
  assert.ok(
    (hours.sent.get("l.bin") ?? 0) <= 5_100_000,
    `${hours.sent.get("l.bin")} bytes; gave ${hours.gave.length}; s: ${hours.out.files.has("s.bin")}`,
  );
});

for (const many of [10, 70])
  test(`${many} that hold next to nothing do not hide the one that holds all`, async (t) => {
    const hours = new Hours(t, oneByOne(), 5_000_000);
    hours.card.put("large.bin", randomBytes(8_000_000), t0 + 100_000);
    for (let n = 0; n < many; n++) hours.card.put(`${n}.bin`, randomBytes(9_000_000), t0 + n * 100);
    const took = aLittleEach(hours.out);
    await hours.start();
    await until(hours.bench, "large", () => hours.held().join().includes("l 5000000"));
    assert.ok(await hours.passes(6 * 60 * minute, () => took.size === many));
    await hours.arrives("s.bin", 2_000_000, 50);
    const isThere = await hours.passes(6 * 60 * minute, () => hours.out.files.size > 0);
    assert.ok(isThere, `in six hours nothing arrived: held ${hours.held().join(", ")}; ${hours.gave.join("; ")}`);
  });

test("what waits for a full target is due when it takes one that was in vain, also where that broke off in between", async (t) => {
  const hours = new Hours(t, oneByOne(), 1_000_000);
  await hours.start();
  await hours.arrives("a.bin", 2_000_000, 10);
  await hours.arrives("b.bin", 2_000_000, 5);
  await hours.passes(60 * minute);
  let breaks = 1;
  hours.out.before = (call) => {
    if (!call.startsWith("write ") || breaks-- <= 0) return undefined;
    hours.out.room = Infinity;
    throw new Fault("transient", "the link broke");
  };
  await hours.passes(20 * minute, () => hours.out.files.size === 1);
  assert.ok(
    await hours.passes(5 * second, () => hours.out.files.size === 2),
    `waits ${hours.waitsMs([...hours.out.files.keys()][0] === "a.bin" ? "b.bin" : "a.bin") / 1000} s`,
  );
});

test("one file that many small ones make way for: no more give than it takes", async (t) => {
  const hours = new Hours(t, oneByOne(), 5_000_000);
  hours.card.put("large.bin", randomBytes(8_000_000), t0 + 100_000);
  hours.card.put("s.bin", randomBytes(2_000_000), t0 + 50_000);
  for (let n = 0; n < 5; n++) hours.card.put(`${n}.bin`, randomBytes(2_500_000), t0 + n * 1000);
  aLittleEach(hours.out);
  await hours.start();
  await until(hours.bench, "large", () => hours.held().join().includes("l 5000000"));
  await hours.passes(60 * minute, () => hours.out.files.size > 0);
  assert.ok(hours.gave.length <= 1, hours.gave.join("\n"));
});

test("what gave its room is tried soon after the target was emptied, when it takes what never found it full", async (t) => {
  const hours = new Hours(t, oneByOne(), 5_000_000);
  await hours.start();
  await hours.arrives("crash.bin", 8_000_000, 10);
  await hours.makesWay("crash.bin", 4);
  await hours.arrives("last.bin", 1_000_000, 0, hours.other);
  await hours.passes(15 * minute, () => hours.out.files.has("last.bin"));
  const waitMs = hours.waitsMs("crash.bin");
  hours.out.files.clear();
  hours.out.room = Infinity;
  await hours.arrives("photo.bin", 9_000_000, 20, hours.other);
  assert.ok(hours.out.files.has("photo.bin"));
  const isThere = await hours.passes(30 * minute, () => hours.out.files.has("crash.bin"));
  assert.ok(
    isThere,
    `the target is empty, and took 9 MB; the crash log waits for ${Math.round(waitMs / minute)} min:\n${hours.gave.join("\n")}`,
  );
});

test("what it gave on one disk does not lengthen its wait on another", async (t) => {
  const hours = new Hours(t, oneByOne(), 5_000_000);
  await hours.start();
  await hours.arrives("crash.bin", 8_000_000, 10);
  for (let n = 0; n < 3; n++) {
    hours.out.files.clear();
    hours.out.partials.clear();
    hours.out.attach(false);
    hours.out.attach(true);
    await hours.passes(minute);
    await hours.arrives(`s${n}.bin`, 1_000_000, 5 - n, hours.other);
    await hours.passes(15 * minute, () => hours.out.files.has(`s${n}.bin`));
  }
  assert.ok(hours.waitsMs("crash.bin") <= 10 * minute, hours.gave.join("\n"));
});

test("two file systems below one root, both full: nothing is taken away on one for the other again and again", async (t) => {
  const out = oneByOne();
  const hours = new Hours(t, out, 0);
  // 3 MB are free on each, what goes to either has 5.
  out.before = (call) => {
    const dir = /^write (.)\//.exec(call)?.[1];
    if (dir === undefined) return undefined;
    const sizes = [...out.partials].map(([name, { length }]) => ({ dir: name.slice(0, 1), length }));
    const used = sizes.filter((it) => it.dir === dir).reduce((sum, { length }) => sum + length, 0);
    out.room = sizes.reduce((sum, { length }) => sum + length, 0) + 3_000_000 - used;
    return undefined;
  };
  for (let n = 0; n < 5; n++)
    for (const dir of ["a", "b"]) hours.card.put(`${dir}/${n}.bin`, randomBytes(5_000_000 + ((n * 7919) % 97) * 100), t0 + n * 1000);
  await hours.start();
  await until(hours.bench, "begun", () => out.partials.size > 0);
  await hours.passes(120 * minute);
  const sent = hours.engine.transfers.pushedBytes;
  assert.ok(
    sent <= 30_000_000,
    `${sent / 1e6} MB were sent in two hours, ${out.files.size} are there, ${hours.gave.length} times taken away; ${[...out.partials.keys()].join()}`,
  );
});

test("an urgent file that never found its target full, and is held for a moment, keeps its partial from a photo", async (t) => {
  const hours = new Hours(t, oneByOne(), 10_000_000);
  hours.out.files.set("keep", { bytes: Buffer.alloc(1_000_000), modifiedMs: 0 });
  hours.card.put("crash.bin", randomBytes(9_000_000), t0);
  const leaves = breaksAt(hours.card, 8_000_000);
  await hours.start();
  await until(hours.bench, "a part", () => (Number(hours.held()[0]?.slice(2)) || 0) > 7_900_000);
  leaves();
  await until(hours.bench, "away", () => hours.row("crash.bin").state === "wanting");
  const { reason, fault } = hours.row("crash.bin");
  await hours.arrives("photo.bin", 3_000_000, 5, hours.other);
  await hours.passes(minute);
  assert.deepEqual(hours.gave, [], `${fault} ${reason}`);
});

// It is asked how much it has, and again before that is taken away.
for (const [when, at] of [
  ["before anything was taken away", 2],
  ["while it was to be taken away, and it was not", 3],
] as const)
  test(`what is to give its room, and the link broke ${when}, gives it the next time`, async (t) => {
    const hours = new Hours(t, oneByOne(), 5_000_000);
    await hours.start();
    await hours.arrives("l.bin", 8_000_000, 10);
    const calls: string[] = [];
    hours.out.before = (call) => {
      const isOwn = [...hours.engine.queue.pushing.values()].some(({ delivery }) => delivery.path === "l.bin");
      if (isOwn || !call.endsWith(" l.bin")) return undefined;
      calls.push(call);
      if (calls.length !== at) return undefined;
      throw new Fault("transient", "the link broke");
    };
    await hours.arrives("s.bin", 1_000_000, 0);
    assert.ok(await hours.passes(10 * minute, () => hours.out.files.has("s.bin")), `held: ${hours.held().join()}`);
    // Only what was perhaps taken away counts.
    assert.equal(Math.ceil(hours.waitsMs("l.bin") / minute), at === 2 ? 10 : 40, calls.join());
  });
