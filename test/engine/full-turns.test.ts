/** A full target, for hours: who gives though it is held back, or could not be asked, and what says that there is room. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { Fault } from "../../core/errors.js";
import { until } from "../fake-device.js";
import { Hours, minute, oneByOne, second, t0 } from "./hours.js";

test("what is held back, as large as what waits, gives its room", async (t) => {
  const hours = new Hours(t, oneByOne(), 5_500_000);
  hours.out.files.set("keep", { bytes: Buffer.alloc(1_000_000), modifiedMs: 0 });
  await hours.start();
  await hours.arrives("l.bin", 5_000_000, 10);
  await hours.holds("l.bin");
  hours.out.files.delete("keep");
  hours.out.room = 5_000_000;
  // A little is free in nobody's.
  await hours.arrives("s.bin", 5_000_000, 5);
  assert.ok(
    await hours.passes(6 * 60 * minute, () => hours.out.files.has("s.bin")),
    `six hours: held ${hours.held().join()}, ${JSON.stringify(hours.row("s.bin"))}`,
  );
});

test("several that are held back, each smaller than what waits, give theirs", async (t) => {
  const hours = new Hours(t, oneByOne(), 5_000_000);
  await hours.start();
  for (let n = 0; n < 4; n++) {
    hours.out.room = (n + 1) * 1_250_000;
    await hours.arrives(`${n}.bin`, 2_000_000, 10 + n);
    await hours.holds(`${n}.bin`);
    hours.lane.resumeTarget();
  }
  hours.out.room = 5_000_000;
  await hours.arrives("s.bin", 4_000_000, 5);
  assert.ok(
    await hours.passes(6 * 60 * minute, () => hours.out.files.has("s.bin")),
    `six hours: held ${hours.held().join()}, ${JSON.stringify(hours.row("s.bin"))}`,
  );
});

test("what got room, and whose source left, does not keep room of nobody's from ending the waits", async (t) => {
  const hours = new Hours(t, oneByOne(), 5_000_000);
  await hours.start();
  await hours.arrives("crash.bin", 8_000_000, 10);
  await hours.makesWay("crash.bin", 3);
  // This one gets the room, and its source breaks off and stays away.
  let gone = false;
  hours.other.before = (call) => {
    if (!call.startsWith("read x.bin") || hours.gave.length < 4) return undefined;
    gone = true;
    hours.other.attach(false);
    throw new Fault("offline", "the card was taken out");
  };
  await hours.arrives("x.bin", 1_000_000, -5, hours.other);
  await hours.passes(15 * minute, () => gone);
  assert.ok(gone, hours.gave.join("\n"));
  const waitMs = hours.waitsMs("crash.bin");
  hours.out.files.clear();
  hours.out.room = Infinity;
  await hours.arrives("photo.bin", 9_000_000, 20);
  assert.ok(hours.out.files.has("photo.bin"));
  assert.ok(
    await hours.passes(60 * minute, () => hours.out.files.has("crash.bin")),
    `the target is empty, and took 9 MB; the crash log waits for ${Math.round(waitMs / minute)} min, now ${Math.round(hours.waitsMs("crash.bin") / minute)}; x: ${hours.row("x.bin").state}`,
  );
});

for (const [where, slow] of [
  ["where each try takes its time", "write "],
  ["where it takes its time to ask what each holds", "offset "],
] as const)
  test(`one small log behind seventy photos that are too large has its turn, ${where}`, async (t) => {
    const hours = new Hours(t, oneByOne(), 20_000);
    hours.out.before = (call) => {
      if (call.startsWith(slow)) hours.skips(2 * second);
      return undefined;
    };
    for (let n = 0; n < 70; n++) hours.card.put(`${n}.bin`, randomBytes(30_000 + n), t0 + n * 1000);
    hours.card.put("log.bin", randomBytes(10_000), t0 - 1000);
    await hours.start();
    await until(hours.bench, "found", () => hours.engine.journal.get("SELECT 1 FROM deliveries WHERE path = ?", "log.bin") !== undefined);
    const isThere = await hours.passes(6.5 * 60 * minute, () => hours.out.files.has("log.bin"));
    const tries = hours.out.calls.filter((call) => call.startsWith("write "));
    const photos = new Set(tries.map((call) => call.split(" ")[1]));
    assert.ok(
      isThere,
      `in 6.5 hours it was tried ${tries.filter((call) => call.startsWith("write log.bin")).length} times, ${photos.size} others were; tries ${tries.length}; gave ${hours.gave.length}`,
    );
  });

for (const [when, call, bytes] of [
  ["while that is given", "discard k.bin", 1_000_000],
  ["while the other is sent", "read s.bin 131072", 4_900_000],
] as const)
  test(`what is more urgent, but too large, and due ${when}, does not take the room that another gets`, async (t) => {
    const hours = new Hours(t, oneByOne(), 5_000_000);
    await hours.start();
    await hours.arrives("k.bin", 8_000_000, 30);
    await hours.arrives("l.bin", 9_000_000, 20);
    let skips = 1;
    hours.out.before = hours.other.before = (made) => {
      if (made !== call || hours.gave.length + Number(made.startsWith("discard")) === 0 || skips-- <= 0) return undefined;
      hours.skips(5 * minute);
      // What is due is looked for meanwhile.
      return new Promise((resolve) => setTimeout(resolve, 50));
    };
    await hours.arrives("s.bin", bytes, 0, hours.other);
    assert.ok(await hours.passes(60 * minute, () => skips < 1));
    assert.ok(await hours.passes(second, () => hours.out.files.has("s.bin")), `held ${hours.held().join()}; ${hours.gave.join()}`);
  });

test("what is more urgent, and small, goes before what got room, though what is too large is due, too", async (t) => {
  const hours = new Hours(t, oneByOne(), 5_000_000);
  await hours.start();
  await hours.arrives("k.bin", 8_000_000, 30);
  await hours.arrives("l.bin", 9_000_000, 20);
  let isNew = false;
  hours.other.before = (made) => {
    if (made !== "read s.bin 131072" || hours.gave.length === 0 || isNew) return undefined;
    isNew = true;
    hours.skips(5 * minute);
    hours.card.put("c.bin", randomBytes(1000), t0);
    hours.card.changes$.next();
    const { journal } = hours.engine;
    return until(hours.bench, "c", () => journal.get("SELECT 1 FROM deliveries WHERE path = 'c.bin' AND state = 'done'") !== undefined);
  };
  await hours.arrives("s.bin", 4_900_000, 0, hours.other);
  assert.ok(await hours.passes(60 * minute, () => hours.out.files.has("s.bin")), `held ${hours.held().join()}`);
  const order = hours.out.calls.filter((call) => call.startsWith("commit "));
  assert.deepEqual(order, ["commit c.bin", "commit s.bin"]);
});

test("what is there already says nothing of room: what gave waits all the same", async (t) => {
  const hours = new Hours(t, oneByOne(), 5_000_000);
  await hours.start();
  await hours.arrives("l.bin", 8_000_000, 1000);
  const photo = randomBytes(9_000_000);
  for (let n = 0; n < 12; n++) {
    await hours.arrives(`s${n}.bin`, 200_000, 500 - n, hours.other);
    await hours.passes(5 * minute);
    hours.out.files.delete(`s${n}.bin`);
    // Somebody copied it by hand; it costs no room here.
    const room = hours.out.room;
    hours.out.files.set(`p${n}.bin`, { bytes: photo, modifiedMs: 0 });
    hours.out.room += photo.length;
    hours.card.put(`p${n}.bin`, photo, t0 - n * 1000);
    hours.card.changes$.next();
    await until(hours.bench, "found", () => hours.engine.journal.get("SELECT 1 FROM deliveries WHERE path = ?", `p${n}.bin`) !== undefined);
    // Until that was found the other waited for nobody's turn: it may have two.
    assert.ok(await hours.passes(minute, () => hours.row(`p${n}.bin`).state === "done"));
    hours.out.files.delete(`p${n}.bin`);
    hours.out.room = room;
  }
  assert.ok(
    (hours.sent.get("l.bin") ?? 0) <= 20_000_000,
    `${hours.sent.get("l.bin")} bytes of what never fits in an hour, gave ${hours.gave.length} times`,
  );
});

test("what is held, and filled its target, gives its room after a start, too", async (t) => {
  const hours = new Hours(t, oneByOne(), 5_000_000);
  await hours.start();
  await hours.arrives("l.bin", 8_000_000, 10);
  await hours.holds("l.bin");
  hours.card.before = (call) => (call === "list" ? new Promise(() => undefined) : undefined);
  await hours.bench.stop();
  // Held again before anything is sent, as `putOffHeld` does it before each claim.
  hours.out.attach(false);
  await hours.start();
  await hours.holds("l.bin");
  hours.card.before = () => undefined;
  hours.out.attach(true);
  await hours.holds("l.bin");
  await hours.arrives("s.bin", 1_000_000, 5, hours.other);
  assert.ok(
    await hours.passes(6 * 60 * minute, () => hours.out.files.has("s.bin")),
    `six hours: held ${hours.held().join()}; ${JSON.stringify(hours.row("l.bin"))}`,
  );
});

test("what finds no room below another directory does not make each other file wait, where one gave its room once", async (t) => {
  const hours = new Hours(t, oneByOne(), 5_000_000);
  await hours.start();
  await hours.arrives("l.bin", 80_000_000, 1);
  await hours.arrives("s.bin", 1_000_000, 0);
  await hours.passes(30 * minute, () => hours.out.files.has("s.bin"));
  assert.equal(hours.gave.length, 1);
  hours.out.files.clear();
  hours.out.room = Infinity;
  hours.out.before = (call) => {
    if (call.startsWith("write full/") || call.startsWith("write l.bin")) throw new Fault("full", "no space is left there");
    return undefined;
  };
  await hours.arrives("full/b.bin", 1000, 1000);
  await hours.passes(5 * minute);
  const beganMs = hours.bench.clock.monotonicMs();
  for (let n = 0; n < 60; n++) hours.card.put(`p${n}.bin`, randomBytes(2000), t0 + n * 1000);
  hours.card.attach(true);
  await until(hours.bench, "found", () => hours.engine.journal.all("SELECT 1 FROM deliveries WHERE path LIKE 'p%'").length === 60);
  await hours.passes(60 * minute, () => hours.out.files.size >= 60);
  const took = (hours.bench.clock.monotonicMs() - beganMs) / 1000;
  assert.ok(
    took < 120,
    `${took} s for ${hours.out.files.size} small files; b was tried ${hours.out.calls.filter((call) => call.startsWith("write full/b")).length} times`,
  );
});

for (const call of ["offset l.bin", "discard l.bin"])
  test(`what its target refused once to tell, or take away (${call}), and whose source is away, gives its room later`, async (t) => {
    const hours = new Hours(t, oneByOne(), 5_000_000);
    await hours.start();
    await hours.arrives("l.bin", 8_000_000, 10);
    hours.card.before = (made) => {
      if (/^(open|read) l/.test(made)) throw new Fault("offline", "away");
      return undefined;
    };
    hours.card.attach(false);
    await hours.passes(30 * minute, () => hours.row("l.bin").state === "wanting");
    assert.equal(hours.row("l.bin").state, "wanting");
    let refusals = 1;
    hours.out.before = (made) => {
      if (
        made === call &&
        hours.engine.queue.pushing.size > 0 &&
        [...hours.engine.queue.pushing.values()][0]?.delivery.path === "s.bin" &&
        refusals-- > 0
      )
        throw new Fault("denied", "in use");
      return undefined;
    };
    await hours.arrives("s.bin", 1_000_000, 5, hours.other);
    await hours.passes(20 * minute, () => refusals === 0);
    assert.equal(refusals, 0);
    assert.ok(
      await hours.passes(6 * 60 * minute, () => hours.out.files.has("s.bin")),
      `six hours: ${hours.row("l.bin").state}, held ${hours.held().join()}, refusals left ${refusals}, asked ${hours.out.calls.filter((made) => made === call).length}`,
    );
  });

test("one of which its target cannot tell how much it has without the source, which is away, keeps no other from giving its room", async (t) => {
  const hours = new Hours(t, oneByOne(), 6_000_000);
  hours.out.compares = true;
  await hours.start();
  await hours.arrives("l.bin", 8_000_000, 30);
  await hours.arrives("r.bin", 8_000_000, 10, hours.other);
  await hours.passes(5 * minute);
  hours.other.before = (made) => {
    if (/^(open|read) r/.test(made)) throw new Fault("offline", "away");
    return undefined;
  };
  hours.other.attach(false);
  assert.ok(await hours.passes(30 * minute, () => hours.row("r.bin").state === "wanting"));
  await hours.arrives("s.bin", 1_000_000, 50);
  assert.ok(await hours.passes(60 * minute, () => hours.out.files.has("s.bin")), `held ${hours.held().join()}`);
});

test("another disk while room is given on the one before: what gave it goes at once", async (t) => {
  const hours = new Hours(t, oneByOne(), 5_000_000);
  await hours.start();
  await hours.arrives("l.bin", 8_000_000, 10);
  let swaps = 1;
  hours.out.before = (made) => {
    if (made !== "discard l.bin" || swaps-- <= 0) return undefined;
    hours.out.attach(false);
    hours.out.files.clear();
    hours.out.partials.clear();
    hours.out.room = Infinity;
    hours.out.attach(true);
    throw new Fault("transient", "it is gone");
  };
  await hours.arrives("s.bin", 1_000_000, 5, hours.other);
  assert.ok(await hours.passes(20 * minute, () => swaps < 1));
  assert.ok(
    await hours.passes(minute, () => hours.out.files.size === 2),
    `${[...hours.out.files.keys()].join()}; l waits ${hours.waitsMs("l.bin") / 1000} s`,
  );
});
