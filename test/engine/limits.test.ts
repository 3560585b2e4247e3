/** Conditions, budgets and `requires`, with devices in memory: what is held back goes when it may, from where it was, and `why` says what it waits for. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { test } from "node:test";
import { forget } from "../../core/amend.js";
import { Fault } from "../../core/errors.js";
import type { Device, Upload } from "../../core/plugin.js";
import { Throttle } from "../../core/throttle.js";
import { why } from "../../core/why.js";
import { Bench, FakeDevice, until } from "../fake-device.js";
import { PostBox } from "../post-box.js";

const never = new AbortController().signal;

/** Local time of this day. */
function today(hours: number): number {
  return new Date().setHours(hours, 0, 0, 0);
}

const open = (at: number) => ({
  time: [{ text: "22:00-06:00", from: 22 * 60, to: 6 * 60 }],
  whenClockUnknown: "wait" as const,
  atMs: at,
});

async function reasons(bench: Bench, what: string): Promise<string[]> {
  const files = await why(bench.daemon.engine, what, true, never);
  return files.flatMap((file) => file.reasons.map(({ code, text }) => `${code}: ${text}`));
}

test("a window that ends in the middle of a file breaks it off; the next one goes on where it was", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { chunk: 10_000 });
  const out = new FakeDevice("out");
  const bytes = randomBytes(100_000);
  card.put("a.bin", bytes);
  bench.clock.offsetMs = today(23) - Date.now();
  let half: () => void = () => undefined;
  const held = new Promise<void>((resolve) => (half = resolve));
  card.before = async (call) => {
    if (call !== "read a.bin 50000" || half === undefined) return;
    bench.clock.offsetMs = today(12) - Date.now();
    await held;
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], { device: { when: open(0) } });
  await until(bench, "held", () =>
    bench.events.some(({ what, message }) => what === "held" && message.startsWith("out: nothing is sent: only at 22:00-06:00")),
  );
  half();
  await until(bench, "pulled", () => bench.events.some(({ what }) => what === "pulled"));
  assert.deepEqual(out.files.size, 0);
  assert.match(
    (await reasons(bench, "card:a.bin")).join("\n"),
    /^held: nothing is sent to out now: only at 22:00-06:00 \("time"\), which begins in (10 h 0|9 h 59) min$/m,
  );
  assert.match(bench.daemon.status().devices.find(({ name }) => name === "out")?.held ?? "", /only at 22:00/);
  bench.clock.offsetMs = today(2) - Date.now();
  await until(bench, "delivered", () => bench.states("out")[0] === "done");
  assert.ok(out.files.get("a.bin")?.bytes.equals(bytes));
  const writes = out.calls.filter((call) => call.startsWith("write"));
  assert.ok(writes.length <= 2 && (writes.length === 1 || writes[1] !== "write a.bin 0"), writes.join(", "));
});

test("why and status: what holds a route's file back is what does so now, and not what did when it was put off", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  card.put("a.bin", "a");
  bench.clock.offsetMs = today(12) - Date.now();
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], when: open(0) }]);
  await until(bench, "put off", () => bench.daemon.status().failing.some(({ fault }) => fault === "held"));
  const gate = bench.daemon.engine.routes.get("card")?.[0]?.gate;
  await until(bench, "looked at", () => gate?.looked === true);
  gate?.set({ reason: "nobody can say when" });
  const [failing] = bench.daemon.status().failing;
  assert.deepEqual(failing, { from: "card", to: "out", fault: "held", deliveries: 1, reason: "nobody can say when" });
  gate?.set({ reason: "only later", inMs: 60_000 });
  assert.equal(bench.daemon.status().failing[0]?.seconds, 60);
  gate?.set({ reason: "nobody can say when" });
  assert.deepEqual(await reasons(bench, "a.bin"), ["held: is held back: nobody can say when"]);
});

test("why: the condition of a target is told beside what else its file waits for: that it is away, that it is still read", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  card.put("a.bin", "a");
  let go: () => void = () => undefined;
  const opened = new Promise<void>((resolve) => (go = resolve));
  card.before = (call) => (call.startsWith("open") ? opened : undefined);
  out.attach(false);
  bench.clock.offsetMs = today(12) - Date.now();
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], { device: { when: open(0) } });
  await until(bench, "pulling", () => bench.daemon.engine.queue.pulling.size === 1);
  const codes = async () => (await reasons(bench, "a.bin")).map((text) => text.split(":")[0]);
  assert.deepEqual(await codes(), ["target-away", "pulling", "held"]);
  go();
  await until(bench, "pulled", () => bench.states("out")[0] === "ready");
  assert.deepEqual(await codes(), ["target-away", "held"]);
});

test("a route with a condition waits; another route to the same target goes on", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  for (let n = 0; n < 100; n++) card.put(`slow/${n}.bin`, `slow ${n}`);
  card.put("fast/1.bin", "fast");
  bench.clock.offsetMs = today(12) - Date.now();
  await bench.start({ sources: [card], targets: [out] }, [
    { from: "card", to: ["out"], include: ["slow/**"], weight: 5, when: open(0) },
    { from: "card", to: ["out"], include: ["fast/**"] },
  ]);
  await until(bench, "fast", () => out.files.has("fast/1.bin"));
  assert.equal(out.files.size, 1);
  await until(bench, "all put off", () => !bench.states("out").includes("wanting"));
  assert.match((await reasons(bench, "card:slow/7.bin")).join("\n"), /^held: is held back: only at 22:00-06:00/m);
  card.put("fast/2.bin", "fast too");
  bench.daemon.engine.relist$.next("card");
  await until(bench, "also later", () => out.files.has("fast/2.bin"));
  bench.clock.offsetMs = today(22) - Date.now();
  await until(bench, "slow", () => out.files.size === 102);
});

test("a file goes to one target only when another has it", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const ground = new FakeDevice("ground");
  const review = new FakeDevice("review");
  ground.attach(false);
  for (let n = 0; n < 5; n++) card.put(`${n}.bin`, `content ${n}`);
  await bench.start({ sources: [card], targets: [ground, review] }, [
    { from: "card", to: ["ground", { device: "review", required: false, requires: ["ground"] }] },
  ]);
  await until(bench, "pulled", () => bench.events.filter(({ what }) => what === "pulled").length === 5);
  await until(bench, "held", () => bench.daemon.engine.journal.all("SELECT 1 FROM deliveries WHERE fault = 'held'").length === 5);
  assert.equal(review.files.size, 0);
  assert.match((await reasons(bench, "card:3.bin")).join("\n"), /^held: is held back: it goes only when ground has it \("requires"\)$/m);
  await bench.stop();
  await bench.start({ sources: [card], targets: [ground, review] }, [
    { from: "card", to: ["ground", { device: "review", required: false, requires: ["ground"] }] },
  ]);
  const order: string[] = [];
  ground.before = (call) => (call.startsWith("commit") && order.push(`ground ${call}`), undefined);
  review.before = (call) => (call.startsWith("write") && order.push(`review ${call}`), undefined);
  ground.attach(true);
  await until(bench, "both", () => ground.files.size === 5 && review.files.size === 5);
  for (const [n, call] of order.entries())
    if (call.startsWith("review")) assert.ok(order.slice(0, n).includes(`ground commit ${call.split(" ")[2] ?? ""}`), order.join("\n"));
});

test("what requires a target for which a file is nothing says that it never goes, and can be given up", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const ground = new FakeDevice("ground");
  const review = new FakeDevice("review");
  card.put("a.bin", "no log");
  let known = (): void => undefined;
  const asked = new Promise<void>((resolve) => (known = resolve));
  review.before = (call) =>
    call.startsWith("write") ? asked.then(() => Promise.reject(new Fault("unwanted", "it is no ULog"))) : undefined;
  await bench.start({ sources: [card], targets: [ground, review] }, [
    { from: "card", to: ["review", { device: "ground", requires: ["review"] }] },
  ]);
  const kept = () =>
    bench.daemon.engine.journal.get<{ reason: string | null }>("SELECT reason FROM deliveries WHERE fault = 'held'")?.reason;
  await until(bench, "held", () => /it goes only when review has it \("requires"\)$/.test(kept() ?? ""));
  assert.equal((await forget(bench.daemon.engine, "a.bin")).forgotten.length, 0);
  known();
  await until(bench, "never", () => /and that will never be: to review it does not go \(it is no ULog\)/.test(kept() ?? ""));
  assert.match((await reasons(bench, "card:a.bin")).join("\n"), /^held: .*never be.*"filesync forget" gives it up/m);
  assert.deepEqual(
    (await forget(bench.daemon.engine, "a.bin")).forgotten.map(({ to }) => to),
    ["ground"],
  );
  assert.deepEqual(bench.states("ground"), ["dropped"]);
  assert.equal(ground.files.size, 0);
});

test("what requires a target that came later, and begins later, says that it never goes, and can be given up", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const ground = new FakeDevice("ground");
  const review = new FakeDevice("review");
  ground.attach(false);
  const devices = { sources: [card], targets: [ground, review] };
  const since = "install";
  await bench.start(devices, [{ from: "card", to: ["ground"], since }]);
  await until(bench, "a listing", () => (bench.daemon.engine.finders.get("card")?.listings ?? 0) > 0);
  card.put("a.bin", "a", Date.now());
  bench.daemon.engine.relist$.next("card");
  await until(bench, "pulled", () => bench.events.some(({ what }) => what === "pulled"));
  // As the configuration makes them of one.
  await bench.reload(devices, [
    { from: "card", to: ["review"], since },
    { from: "card", to: [{ device: "ground", requires: ["review"] }], since },
  ]);
  ground.attach(true);
  const kept = () =>
    bench.daemon.engine.journal.get<{ reason: string | null }>("SELECT reason FROM deliveries WHERE fault = 'held'")?.reason;
  await until(bench, "never", () => /and that will never be: to review it does not go \(no route took it there\)/.test(kept() ?? ""));
  assert.deepEqual(
    (await forget(bench.daemon.engine, "a.bin")).forgotten.map(({ to }) => to),
    ["ground"],
  );
  card.put("b.bin", "b", Date.now());
  bench.daemon.engine.relist$.next("card");
  await until(bench, "both", () => review.files.has("b.bin") && ground.files.has("b.bin"));
  assert.equal(review.files.has("a.bin"), false);
});

test("what a route held back goes when a reload takes its condition away, or what it requires", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const ground = new FakeDevice("ground");
  const review = new FakeDevice("review");
  ground.attach(false);
  card.put("a.bin", "a");
  bench.clock.offsetMs = today(12) - Date.now();
  const review1 = { device: "review", required: false, requires: ["ground"] };
  const held = (n: number) => bench.daemon.engine.journal.all("SELECT 1 FROM deliveries WHERE fault = 'held'").length === n;
  const devices = { sources: [card], targets: [ground, review] };
  await bench.start(devices, [{ from: "card", to: ["ground", review1], when: open(0) }]);
  await until(bench, "held", () => held(1));
  await bench.reload(devices, [{ from: "card", to: ["ground", review1] }]);
  await until(bench, "held by what it requires", () => held(1));
  assert.doesNotMatch((await reasons(bench, "card:a.bin")).join("\n"), /only at/);
  await bench.reload({ sources: [card], targets: [review] }, [{ from: "card", to: ["review"] }]);
  await until(bench, "delivered", () => review.files.has("a.bin"));
});

test("a reload that gives a route another rate, or conditions, counts for what is being sent along it; it goes on where it was", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { chunk: 100_000 });
  const out = new FakeDevice("out");
  const devices = { sources: [card], targets: [out] };
  const bytes = randomBytes(6_000_000);
  card.put("a.bin", bytes);
  bench.clock.offsetMs = today(12) - Date.now();
  const moved = () => bench.daemon.status().transfers.find(({ to }) => to === "out")?.offset;
  const reload = async (rules: object) => {
    await bench.reload(devices, [{ from: "card", to: ["out"], ...rules }]);
  };
  await bench.start(devices, [{ from: "card", to: ["out"], maxRate: 1_000_000 }]);
  await until(bench, "it is sent slowly", () => (moved() ?? 0) > 0);
  await reload({ maxRate: 1_000_000, when: open(0) });
  await until(bench, "it stops", () => moved() === undefined);
  assert.match((await reasons(bench, "card:a.bin")).join("\n"), /^held: /m);
  await reload({ maxRate: 100_000 });
  await until(bench, "it is sent slowly again", () => moved() !== undefined);
  await reload({});
  // By the rate of before it would take a minute.
  await until(bench, "it goes as fast as it can", () => bench.states("out")[0] === "done");
  assert.ok(out.files.get("a.bin")?.bytes.equals(bytes));
  const writes = out.calls.filter((call) => call.startsWith("write a.bin"));
  assert.ok(writes.length === 3 && !writes.slice(1).includes("write a.bin 0"), writes.join(", "));
});

test("the rate of a route is that of each of its targets, not of all together", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { chunk: 100_000 });
  const targets = ["a", "b", "c", "d"].map((name) => new FakeDevice(name));
  card.put("a.bin", randomBytes(1_000_000));
  // Time stands still, so the last pause of each is as long as all that was sent by its rate takes.
  bench.clock.monotonicMs = () => 0;
  const waits: number[] = [];
  const real = bench.clock.sleep.bind(bench.clock);
  bench.clock.sleep = (ms, signal) => (ms < 10_000 ? Promise.resolve(void waits.push(ms)) : real(ms, signal));
  await bench.start({ sources: [card], targets }, [{ from: "card", to: targets.map(({ name }) => name), maxRate: 1_000_000 }]);
  await until(bench, "all have it", () => targets.every(({ files }) => files.has("a.bin")));
  assert.deepEqual([Math.max(...waits), waits.filter((ms) => ms === 1000).length], [1000, 4], waits.join(", "));
});

test("what goes slowly goes in small pieces: a stop keeps what came until then, of a pull, of a push, and of what is read in place", async (t) => {
  const bytes = randomBytes(2 ** 20);
  for (const way of ["pull", "push", "in place"] as const) {
    const bench = new Bench(t);
    const card = new FakeDevice("card", { chunk: 512 * 1024, inPlace: way === "in place" });
    const out = new FakeDevice("out");
    card.put("a.bin", bytes);
    let [passed, held] = [0, false];
    const mock = t.mock.method(Throttle.prototype, "take", async function (this: Throttle, count: number, signal: AbortSignal) {
      if (this.rate === undefined) return;
      passed += count;
      if (passed <= 200_000) return;
      held = true;
      await bench.clock.sleep(86_400_000, signal);
    });
    const route = { from: "card", to: ["out"], ...(way === "push" ? { maxRate: 30_000 } : {}) };
    await bench.start({ sources: [card], targets: [out] }, [route], way === "push" ? {} : { device: { maxRate: 30_000 } });
    await until(bench, `${way} waits`, () => held);
    const told = bench.daemon.status().transfers.find(({ to }) => way === "pull" || to === "out");
    assert.ok((told?.offset ?? 0) > 90_000, `${way}: ${told?.offset}`);
    await bench.stop();
    mock.mock.restore();
    await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
    await until(bench, `${way} goes on`, () => bench.states("out")[0] === "done");
    assert.ok(out.files.get("a.bin")?.bytes.equals(bytes));
    const begun = (way === "pull" ? card : out).calls.filter((call) => call.startsWith(way === "pull" ? "open" : "write"));
    assert.ok(Number(begun.at(-1)?.split(" ")[2]) > 90_000, `${way}: ${begun.join(", ")}`);
  }
});

test("what a flight controller said that a reload took out counts no more, armed or disarmed", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const [old, next] = [new FakeDevice("old"), new FakeDevice("next")];
  const out = new FakeDevice("out");
  card.put("a.bin", "a");
  const routes = [{ from: "card", to: ["out"], when: { disarmed: true as const, whenClockUnknown: "wait" as const } }];
  await bench.start({ sources: [card, old], targets: [out] }, routes);
  const { limits, routes: lanes } = bench.daemon.engine;
  const held = (by: string) => lanes.get("card")?.[0]?.gate?.held?.reason.startsWith(by) === true;
  limits.tell("old", true);
  await until(bench, "held", () => held("old says"));
  await bench.reload({ sources: [card, next], targets: [out] }, routes);
  limits.tell("next", false);
  await until(bench, "delivered", () => out.files.has("a.bin"));
  await bench.reload({ sources: [card], targets: [out] }, routes);
  card.put("b.bin", "b");
  bench.daemon.engine.relist$.next("card");
  await until(bench, "held again", () =>
    bench.events.some(({ message }) => message.includes("no device says whether the vehicle is armed")),
  );
  assert.equal(out.files.has("b.bin"), false);
});

test("what is found after a condition ended, while nothing waited, is not sent by what was so then", async (t) => {
  for (const of of ["target", "route"] as const) {
    const bench = new Bench(t);
    const card = new FakeDevice("card");
    const out = new FakeDevice("out");
    card.put("a.bin", "a");
    const when = { disarmed: true as const, whenClockUnknown: "wait" as const };
    const devices = { sources: [card], targets: [out] };
    await bench.start(
      devices,
      [{ from: "card", to: ["out"], ...(of === "route" ? { when } : {}) }],
      of === "target" ? { device: { when } } : {},
    );
    const { limits, relist$ } = bench.daemon.engine;
    limits.tell("fc", false);
    await until(bench, "delivered", () => out.files.has("a.bin"));
    limits.tell("fc", true);
    card.put("b.bin", "b");
    relist$.next("card");
    await until(bench, "found", () => bench.states("out").length === 2);
    await new Promise((resolve) => setTimeout(resolve, 3000));
    assert.deepEqual([...out.files.keys()], ["a.bin"], of);
    limits.tell("fc", false);
    await until(bench, "delivered", () => out.files.has("b.bin"));
    await bench.stop();
  }
});

test("why: all that holds a file back, not the first of it", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const ground = new FakeDevice("ground");
  const review = new FakeDevice("review", { target: { resume: false } });
  ground.attach(false);
  card.put("a.bin", Buffer.alloc(5000));
  bench.clock.offsetMs = today(12) - Date.now();
  const to = ["ground", { device: "review", required: false, requires: ["ground"] }];
  await bench.start({ sources: [card], targets: [ground, review] }, [{ from: "card", to, when: open(0) }], {
    device: { budget: { day: 1000 } },
  });
  await until(
    bench,
    "held",
    () => bench.daemon.engine.journal.all("SELECT 1 FROM deliveries WHERE target = 'review' AND fault = 'held'").length === 1,
  );
  assert.match(
    (await reasons(bench, "card:a.bin")).join("\n"),
    /^held: is held back: only at 22:00-06:00.*; it goes only when ground has it \("requires"\); it has 5\.0 kB, more than the budget of review ever allows/m,
  );
});

test("a budget is kept to the byte; the next day goes on where it stopped, and what is sent again counts", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out", { target: { concurrency: 1 } });
  const bytes = randomBytes(250_000);
  card.put("a.bin", bytes);
  const start = today(12) - Date.now();
  bench.clock.offsetMs = start;
  const devices = { sources: [card], targets: [out] };
  const options = { device: { budget: { day: 100_000 } } };
  const there = () => [...out.partials.values()][0]?.length ?? 0;
  await bench.start(devices, [{ from: "card", to: ["out"] }], options);
  await until(bench, "first day", () => bench.events.some(({ what }) => what === "held"));
  assert.equal(there(), 100_000);
  assert.match(
    (await reasons(bench, "card:a.bin")).join("\n"),
    /^held: nothing is sent to out now: its budget of 100 kB a day is used up; the next begins in .+$/m,
  );
  await bench.kill();
  await bench.start(devices, [{ from: "card", to: ["out"] }], options);
  await until(bench, "held again", () => bench.events.filter(({ what }) => what === "held").length === 2);
  assert.equal(there(), 100_000);
  // What the target lost is sent again, and counts again.
  const key = [...out.partials.keys()][0] ?? "";
  out.partials.set(key, Buffer.from(bytes.subarray(0, 40_000)));
  bench.clock.offsetMs = start + 86_400_000;
  await until(bench, "second day", () => there() === 140_000);
  bench.clock.offsetMs = start + 2 * 86_400_000;
  await until(bench, "third day", () => there() === 240_000);
  assert.equal(out.files.size, 0);
  bench.clock.offsetMs = start + 3 * 86_400_000;
  await until(bench, "whole", () => out.files.get("a.bin")?.bytes.equals(bytes) === true);
});

test("what a budget allowed goes out, though another file has used up the rest of it, and the limits are looked at meanwhile", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  const bytes = randomBytes(60_000);
  card.put("a.bin", bytes);
  card.put("b.bin", randomBytes(90_000));
  bench.clock.offsetMs = today(12) - Date.now();
  const went = (call: string) => out.calls.includes(call);
  out.before = async (call) => {
    if (call.startsWith("write b.bin")) await until(bench, "all of a.bin", () => went("commit a.bin"));
    if (call !== "commit a.bin") return;
    await until(bench, "held", () => bench.events.some(({ what }) => what === "held"));
    bench.daemon.engine.limits.tell("fc", true);
    await new Promise((resolve) => setImmediate(resolve));
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], { device: { budget: { day: 100_000 } } });
  await until(bench, "whole", () => out.files.get("a.bin")?.bytes.equals(bytes) === true);
  assert.equal(out.calls.filter((call) => call === "commit a.bin").length, 1);
  assert.equal([...out.partials.values()][0]?.length, 40_000);
});

/** A target that compares a file with what it holds before it says how much that is. */
class Comparing extends FakeDevice {
  compared = 0;

  override device(role: "source" | "target"): Device {
    const device = super.device(role);
    const { target } = device;
    if (target === undefined) return device;
    const offset = async (upload: Upload, signal: AbortSignal) => {
      for await (const chunk of upload.read(0, signal)) this.compared += (chunk as Buffer).length;
      return target.offset(upload, signal);
    };
    return { ...device, target: { ...target, offset } };
  }
}

test("what a target reads to compare it with what it holds is not sent: no budget counts it", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new Comparing("out");
  const bytes = randomBytes(150_000);
  card.put("a.bin", bytes);
  const start = today(12) - Date.now();
  bench.clock.offsetMs = start;
  const again = () =>
    bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], { device: { budget: { day: 100_000 } } });
  await again();
  await until(bench, "first day", () => bench.events.some(({ what }) => what === "held"));
  await bench.kill();
  bench.clock.offsetMs = start + 86_400_000;
  await again();
  await until(bench, "whole", () => out.files.get("a.bin")?.bytes.equals(bytes) === true);
  assert.ok(out.compared >= bytes.length, `${out.compared}`);
});

test("what cannot be taken in parts is not begun where the budget does not hold it", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out", { target: { resume: false, concurrency: 1 } });
  card.put("small.bin", randomBytes(30_000));
  card.put("middle.bin", randomBytes(80_000), Date.UTC(2026, 4, 2));
  card.put("large.bin", randomBytes(200_000), Date.UTC(2026, 4, 3));
  const start = today(12) - Date.now();
  bench.clock.offsetMs = start;
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], { device: { budget: { day: 100_000 } } });
  await until(bench, "the newest that fits", () => out.files.has("middle.bin"));
  await until(bench, "put off", () => bench.daemon.engine.journal.all("SELECT 1 FROM deliveries WHERE fault = 'held'").length === 2);
  assert.match(
    (await reasons(bench, "card:large.bin")).join("\n"),
    /more than the budget of out ever allows, and out cannot take it in parts/,
  );
  assert.match((await reasons(bench, "card:small.bin")).join("\n"), /30 kB, more than the budget of out still allows/);
  bench.clock.offsetMs = start + 86_400_000;
  await until(bench, "the next day", () => out.files.has("small.bin"));
  assert.equal(out.files.has("large.bin"), false);
  assert.ok(!out.calls.includes("write large.bin 0"));
});

test("several that cannot be taken in parts share a budget: what does not fit beside the others is not begun", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out", { target: { resume: false, concurrency: 3 } });
  for (const name of ["a.bin", "b.bin", "c.bin"]) card.put(name, randomBytes(60_000));
  const start = today(12) - Date.now();
  bench.clock.offsetMs = start;
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], { device: { budget: { day: 100_000 } } });
  const { queue, journal } = bench.daemon.engine;
  const held = () => journal.all("SELECT 1 FROM deliveries WHERE fault = 'held' AND state = 'ready'").length;
  for (const day of [1, 2, 3]) {
    await until(bench, `day ${day}`, () => queue.pushing.size === 0 && out.files.size === day && held() === 3 - day);
    assert.equal(out.calls.filter((call) => call.startsWith("write")).length, day, out.calls.join("\n"));
    bench.clock.offsetMs = start + day * 86_400_000;
  }
});

test("while the vehicle is armed nothing is sent; armed in the middle of a file, it stops; unknown counts as armed", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { chunk: 1000 });
  const out = new FakeDevice("out");
  const bytes = randomBytes(50_000);
  card.put("a.bin", bytes);
  const armed = (state: boolean | undefined) => bench.daemon.engine.limits.tell("fc", state);
  card.before = (call) => {
    if (call === "read a.bin 20000" && armings++ === 0) armed(true);
    return undefined;
  };
  let armings = 0;
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], {
    device: { when: { disarmed: true, whenClockUnknown: "wait" } },
  });
  await until(bench, "pulled", () => bench.events.some(({ what }) => what === "pulled"));
  assert.equal(out.files.size, 0);
  armed(undefined);
  await until(bench, "unknown", () => bench.daemon.engine.lanes.get("out")?.held?.reason.includes("does not say") === true);
  assert.equal(out.files.size, 0);
  armed(false);
  await until(bench, "disarmed", () => out.files.get("a.bin")?.bytes.equals(bytes) === true);
});

test("armed while a server is asked that does not answer: what depends on that is held at once, and other targets wait for no answer", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { chunk: 1000 });
  const [out, other] = [new FakeDevice("out"), new FakeDevice("other")];
  const silent = createServer().listen(0, "127.0.0.1");
  t.after(() => silent.close());
  let given = 0;
  const asked = once(silent, "connection").then(([socket]) => (socket as Socket).resume().once("close", () => (given += 1)));
  await once(silent, "listening");
  const reach = { url: `http://127.0.0.1:${(silent.address() as AddressInfo).port}/`, status: 200, contains: "it" };
  card.put("a.bin", randomBytes(50_000));
  let half: () => void = () => undefined;
  const held = new Promise<void>((resolve) => (half = resolve));
  card.before = async (call) => {
    if (call === "read a.bin 20000") await held;
  };
  const when = { disarmed: true as const, whenClockUnknown: "wait" as const };
  await bench.start({ sources: [card], targets: [out, other] }, [
    { from: "card", to: ["other"], when: { whenClockUnknown: "wait", reach } },
    { from: "card", to: ["out"], when },
  ]);
  const { limits, routes } = bench.daemon.engine;
  await asked;
  limits.tell("fc", false);
  const gate = routes.get("card")?.[1]?.gate;
  await until(bench, "open", () => gate?.looked === true && gate.held === undefined);
  limits.tell("fc", true);
  await until(bench, "held", () => gate?.held !== undefined);
  assert.equal(given, 0, "the server was given up meanwhile");
  half();
  const stopped = bench.stop();
  await asked.then((socket) => once(socket, "close"));
  await stopped;
  assert.deepEqual(
    bench.events.filter(({ message }) => message.includes("cannot be reached")),
    [],
    "a stop waits for no answer",
  );
});

test("--once ends when only conditions hold back what is left, and says so", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  const other = new FakeDevice("other");
  card.put("a.bin", "content");
  bench.clock.offsetMs = today(12) - Date.now();
  await bench.start({ sources: [card], targets: [out, other] }, [
    { from: "card", to: ["out"], when: open(0) },
    { from: "card", to: ["other"] },
  ]);
  const left = await bench.daemon.drained(never);
  assert.deepEqual({ ...left }, { waiting: 1, parked: 0, lost: 0, unreleased: 0, kept: [], unlisted: [], unread: 0, uneven: [] });
  assert.ok(other.files.has("a.bin"));
});

test("what a single shot's server denied before, and comes behind others, does not let one of those go that is held back", async (t) => {
  const bench = new Bench(t);
  const [card, other] = [new FakeDevice("card"), new FakeDevice("other")];
  const [box, ground] = [new PostBox("box"), new FakeDevice("ground")];
  card.put("denied.bin", "content", Date.UTC(2026, 4, 2));
  box.before = (call) => {
    if (call.startsWith("took denied")) throw new Fault("denied", "403");
    return undefined;
  };
  ground.attach(false);
  await bench.start({ sources: [card, other], targets: [box, ground] }, [
    { from: "card", to: ["box"] },
    { from: "other", to: ["ground", { device: "box", required: false, requires: ["ground"] }] },
  ]);
  const { engine } = bench.daemon;
  const lane = engine.lanes.get("box") ?? assert.fail();
  const denials = () => box.calls.filter((call) => call.startsWith("took denied")).length;
  await until(bench, "denied", () => denials() === 1 && !lane.attached && engine.queue.pushing.size === 0);
  other.put("held.bin", "content", Date.UTC(2026, 4, 1));
  other.changes$.next();
  await until(bench, "whole here", () => bench.states("box").filter((state) => state === "ready").length === 2);
  await engine.journal.apply(() => engine.journal.run("UPDATE deliveries SET not_before = 0 WHERE target = 'box'"));
  await lane.lookNow(new AbortController().signal);
  await until(bench, "it was tried again", () => denials() === 2 || box.posts.length > 1);
  assert.deepEqual(
    box.posts.map(({ path }) => path),
    ["denied.bin", "denied.bin"],
  );
  ground.attach(true);
  await until(bench, "there", () => bench.states("ground").join() === "done");
});
