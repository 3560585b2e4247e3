/** What is kept, and for how long: the source's file, and the copy in the spool. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { forget, retry } from "../../core/amend.js";
import { Fault } from "../../core/errors.js";
import { expire } from "../../core/space.js";
import { why } from "../../core/why.js";
import { Bench, FakeDevice, until } from "../fake-device.js";

const day = 86_400_000;
const t0 = Date.UTC(2026, 4, 1);
const often = { device: { intervalMs: 50 } };
const never = () => new AbortController().signal;
const codesOf = async (bench: Bench, what: string) =>
  (await why(bench.daemon.engine, what, true, never())).flatMap(({ reasons }) => reasons.map(({ code }) => code));
const spoolFiles = (bench: Bench) =>
  bench.daemon.engine.journal
    .all<{ id: string; path: string }>("SELECT id, path FROM versions ORDER BY path, size")
    .filter(({ id }) => existsSync(bench.daemon.engine.spool.pathOf(id)))
    .map(({ path }) => path);

/** The first deletion of "a" is done there, another that looks the same comes in its place, and the answer is lost. */
function deletedUnanswered(card: FakeDevice): void {
  let isDone = false;
  card.before = (call) => {
    if (isDone || call !== "remove a") return undefined;
    isDone = true;
    card.put("a", "the other");
    return Promise.reject(new Fault("transient", "the answer was lost"));
  };
}

/** A listing that runs while the clock is set ahead seems to take that long, and the next is as late. */
const betweenListings = (bench: Bench) => until(bench, "no listing runs", () => bench.daemon.engine.finders.get("card")?.busy === false);

const contentsOf = ({ files }: FakeDevice) => [...files.values()].map(({ bytes }) => bytes.toString()).sort();

/** a.bin is here, its delivery rejected and then forgotten. */
async function forgotten(bench: Bench, card: FakeDevice, out: FakeDevice): Promise<void> {
  card.put("a.bin", Buffer.alloc(600, 1));
  out.before = (call) => {
    if (call.startsWith("write a.bin")) throw new Fault("rejected", "no such files here");
    return undefined;
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], { maxSize: 1000 });
  await until(bench, "parked", () => bench.states("out")[0] === "parked");
  await forget(bench.daemon.engine, "a.bin");
  // The pull may end behind all that: only then the copy is nobody's.
  await until(bench, "dropped", () => bench.states("out")[0] === "dropped" && bench.daemon.engine.queue.pulling.size === 0);
}

test("the only copy of a file that a person forgot leaves neither by retention nor for room", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  await forgotten(bench, card, out);
  card.files.clear();
  await bench.pass(30);
  await expire(bench.daemon.engine, new AbortController().signal);
  assert.deepEqual(spoolFiles(bench), ["a.bin"]);
  card.put("b.bin", Buffer.alloc(600, 2), t0 + 1000);
  bench.daemon.engine.relist$.next("card");
  await until(bench, "no room", () => bench.events.some(({ what }) => what === "spool-full"));
  assert.deepEqual(spoolFiles(bench), ["a.bin"]);
  assert.ok((await codesOf(bench, "a.bin")).includes("only-copy"));
  // A person who says so again means the copy too; then b.bin has room.
  const again = await forget(bench.daemon.engine, "a.bin");
  assert.deepEqual(again.removed, ["card:a.bin"]);
  await until(bench, "b.bin", () => out.files.has("b.bin"));
});

test("what is read again as its copy here was damaged, and its target turns out to have, leaves by retention though it never came whole", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { chunk: 10 ** 6 });
  const out = new FakeDevice("out", { target: { digests: [] } });
  const start = () => bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  const hangs = (when: string) => (call: string) => (call === when ? new Promise<void>(() => undefined) : undefined);
  card.put("a.bin", randomBytes(5 * 10 ** 6));
  out.after = hangs("commit");
  await start();
  await until(bench, "it has its name", () => out.files.has("a.bin"));
  await bench.kill();
  for (const name of readdirSync(join(bench.dir, "spool"))) if (!name.includes(".")) rmSync(join(bench.dir, "spool", name));
  const delivered = () => bench.events.filter(({ what }) => what === "delivered").length;
  const before = delivered();
  // Most of it is here again.
  card.before = hangs("read a.bin 4000000");
  out.after = () => undefined;
  await start();
  const durable = () => bench.daemon.engine.journal.get<{ durable: number }>("SELECT durable FROM versions")?.durable;
  await until(bench, "it is known to be there", () => delivered() > before && durable() === 4 * 10 ** 6);
  await bench.kill();
  card.before = () => undefined;
  await start();
  await bench.pass(30);
  await expire(bench.daemon.engine, never());
  assert.deepEqual(readdirSync(join(bench.dir, "spool")), []);
  assert.equal(bench.daemon.engine.spool.usedBytes, 0);
  // Nor does the journal say that some of it is here.
  assert.equal(durable(), 0);
});

test("forgetting says that the copy stays; what can be had from its source again leaves by retention", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  await forgotten(bench, card, out);
  card.attach(false);
  await bench.pass(30);
  await expire(bench.daemon.engine, new AbortController().signal);
  assert.deepEqual(spoolFiles(bench), ["a.bin"], "a source that is away does not hold it, as far as is known");
  card.attach(true);
  await expire(bench.daemon.engine, new AbortController().signal);
  assert.deepEqual(spoolFiles(bench), []);
  out.before = () => undefined;
  const [row] = bench.daemon.engine.journal.all<{ id: string }>("SELECT id FROM deliveries");
  await retry(bench.daemon.engine, row?.id ?? "", never());
  await until(bench, "sent after all", () => out.files.has("a.bin"));
});

test("a version that a longer one took over does not stay for ever for a target that is away with a part of it", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  const bytes = Buffer.alloc(100_000, 7);
  card.put("log.bin", bytes.subarray(0, 50_000));
  out.before = (call) => {
    if (call.startsWith("commit")) throw new Fault("offline", "gone");
    return undefined;
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "begun", () => out.calls.includes("commit log.bin"));
  out.attach(false);
  await until(bench, "idle", () => bench.daemon.engine.queue.pushing.size === 0);
  card.put("log.bin", bytes, t0 + 1000);
  bench.daemon.engine.relist$.next("card");
  const pulled = () => bench.events.filter(({ what }) => what === "pulled").length;
  await until(bench, "the longer one is here", () => pulled() === 2);
  assert.equal(spoolFiles(bench).length, 2, "what was begun would go to its end");
  await bench.pass(30);
  await expire(bench.daemon.engine, new AbortController().signal);
  assert.deepEqual(spoolFiles(bench), ["log.bin"]);
  assert.equal(bench.daemon.engine.spool.usedBytes, 100_000);
});

test("a rule that is made to delete while a file is sent is followed when it has arrived", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  const out = new FakeDevice("out");
  card.put("a.bin", "content");
  let go = (): void => undefined;
  const gate = new Promise<void>((resolve) => (go = resolve));
  out.before = (call) => (call.startsWith("commit") ? gate : undefined);
  const devices = { sources: [card], targets: [out] };
  await bench.start(devices, [{ from: "card", to: ["out"] }]);
  await until(bench, "sent", () => out.calls.includes("commit a.bin"));
  await bench.reload(devices, [{ from: "card", to: ["out"], afterDelivery: "delete" }]);
  const after = () => bench.daemon.engine.journal.get<{ after: string }>("SELECT after FROM versions")?.after;
  await until(bench, "the new rule is known", () => after() === "delete" && bench.daemon.engine.queue.releasable.size === 0);
  go();
  await until(bench, "deleted", () => !card.files.has("a.bin"));
});

for (const [proof, words] of [
  ["size", "prove its size"],
  ["answer", "say that it took it"],
] as const)
  test(`what was kept for want of a proof (${proof}) is deleted once the route trusts the size`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card", { tree: true });
    const out = new FakeDevice("out");
    card.put("a.bin", "content");
    const devices = { sources: [card], targets: [out] };
    await bench.start(devices, [{ from: "card", to: ["out"] }]);
    await until(bench, "delivered", () => bench.states("out")[0] === "done");
    const { journal } = bench.daemon.engine;
    await journal.commit(() => journal.run("UPDATE deliveries SET receipt = json_set(receipt, '$.proof', ?)", proof));
    await bench.reload(devices, [{ from: "card", to: ["out"], afterDelivery: "delete" }]);
    const released = () => journal.get<{ released: string | null }>("SELECT released FROM versions")?.released ?? "";
    await until(bench, "kept", () => released().startsWith(`kept: out could only ${words}`));
    await bench.reload(devices, [{ from: "card", to: ["out"], afterDelivery: "delete", trustSize: true }]);
    await until(bench, "deleted", () => !card.files.has("a.bin"));
  });

for (const [what, change] of [
  ["was taken away", { include: ["*.other"] }],
  ["takes only what is younger by now", { since: t0 + 1000 }],
  ["takes only what came after it ran first by now", { since: "install" }],
] as const)
  test(`a file of a route that ${what} is not deleted any more, and is once the route is as before`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card", { tree: true });
    const out = new FakeDevice("out");
    card.put("a.bin", "content");
    out.attach(false);
    const devices = { sources: [card], targets: [out] };
    const rule = { from: "card", to: ["out"], afterDelivery: "delete" as const };
    await bench.start(devices, [rule]);
    await until(bench, "here", () => bench.states("out")[0] === "ready");
    await bench.reload(devices, [{ ...rule, ...change }]);
    out.attach(true);
    await until(bench, "delivered", () => bench.states("out")[0] === "done");
    await until(bench, "kept", () =>
      bench.events.some(({ what, message }) => what === "released" && message.includes("no route asks for it")),
    );
    assert.ok(card.files.has("a.bin"));
    await bench.reload(devices, [rule]);
    await until(bench, "deleted", () => !card.files.has("a.bin"));
  });

test("release waits for a target that is made required while it has not got a file, and no more for one that need not have it", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  const out = new FakeDevice("out");
  const late = new FakeDevice("late");
  const devices = { sources: [card], targets: [out, late] };
  const rule = (required: boolean) => [{ from: "card", to: ["out", { device: "late", required }], afterDelivery: "delete" as const }];
  card.put("a.bin", "content");
  late.attach(false);
  let go = (): void => undefined;
  const gate = new Promise<void>((resolve) => (go = resolve));
  out.before = (call) => (call.startsWith("commit") ? gate : undefined);
  await bench.start(devices, rule(false));
  await until(bench, "sent", () => out.calls.includes("commit a.bin"));
  await bench.reload(devices, rule(true));
  await until(bench, "listed under these rules", () => bench.daemon.engine.finders.get("card")?.listings === 1);
  go();
  await until(bench, "looked at", () => bench.states("out")[0] === "done" && bench.daemon.engine.queue.releasable.size === 0);
  assert.deepEqual([...card.files.keys()], ["a.bin"]);
  await bench.reload(devices, rule(false));
  await until(bench, "deleted", () => card.files.size === 0);
  late.attach(true);
  await until(bench, "late, too", () => late.files.has("a.bin"));
});

test("of two routes that bring a file to the same place, one that requires that is enough for its source to wait for it", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  const out = new FakeDevice("out");
  card.put("a.bin", "content");
  await bench.start({ sources: [card], targets: [out] }, [
    { from: "card", to: [{ device: "out", required: false }] },
    { from: "card", to: ["out"], afterDelivery: "delete" },
  ]);
  await until(bench, "deleted", () => card.files.size === 0);
  assert.ok(out.files.has("a.bin"));
});

test("a source that is made anew by a reload while it is read in place: the push goes on, and nothing is lost", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { inPlace: true, chunk: 100_000 });
  const out = new FakeDevice("out");
  const bytes = Buffer.alloc(1_000_000, 5);
  card.put("a.bin", bytes);
  let met = (): void => undefined;
  const reading = new Promise<void>((resolve) => (met = resolve));
  let cut: (fault: Fault) => void = () => undefined;
  card.before = (call) => {
    if (call !== "read a.bin 500000") return undefined;
    met();
    return new Promise((_, reject) => (cut = reject));
  };
  const devices = { sources: [card], targets: [out] };
  const routes = [{ from: "card", to: ["out"] }];
  await bench.start(devices, routes);
  await reading;
  // Another option of the source: it is closed, as its open streams are, and made anew.
  const reloading = bench.reload(devices, routes, { device: { intervalMs: 60_000 } });
  card.before = () => undefined;
  cut(new Fault("offline", "closed"));
  await reloading;
  await until(bench, "delivered", () => bench.states("out")[0] === "done");
  assert.ok(out.files.get("a.bin")?.bytes.equals(bytes));
  assert.deepEqual(
    out.calls.filter((call) => call.startsWith("write")),
    ["write a.bin 0", "write a.bin 500000"],
  );
  assert.equal(bench.events.filter(({ what }) => what === "lost" || what === "journal-failed").length, 0);
});

test("what a person sends again is not deleted at its source at the same moment", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  const out = new FakeDevice("out");
  card.put("a.bin", "content");
  let go = (): void => undefined;
  const gate = new Promise<void>((resolve) => (go = resolve));
  let met = (): void => undefined;
  const removing = new Promise<void>((resolve) => (met = resolve));
  card.before = (call) => {
    if (!call.startsWith("remove")) return undefined;
    met();
    return gate;
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], afterDelivery: "delete" }]);
  await removing;
  const [row] = bench.daemon.engine.journal.all<{ id: string }>("SELECT id FROM deliveries");
  await assert.rejects(retry(bench.daemon.engine, row?.id ?? "", never()), /card:a\.bin is being taken from its source/);
  assert.deepEqual(bench.states("out"), ["done"]);
  go();
  await until(bench, "deleted", () => !card.files.has("a.bin"));
});

test("power goes after a file was deleted at its source, before that is noted: another that took its place, and looks the same, is delivered before it is deleted", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  const out = new FakeDevice("out");
  card.put("a", "the first");
  const start = () =>
    bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], afterDelivery: "delete" }], {
      device: { intervalMs: 50 },
    });
  await bench.killedAt(card, "remove a", start, () => card.put("a", "the other"));
  await start();
  await until(bench, "deleted", () => card.files.size === 0);
  assert.deepEqual(contentsOf(out), ["the first", "the other"]);
});

for (const timeless of [true, false])
  test(`what may not be deleted, and is ${timeless ? "read" : "noted on the medium"} before each try, is tried less and less`, async (t) => {
    const bench = new Bench(t);
    let aheadMs = 0;
    bench.clock.monotonicMs = () => performance.now() + aheadMs;
    const card = new FakeDevice("card", { tree: true });
    card.timeless = timeless;
    card.put("a", "content");
    card.before = (call) => (call.startsWith("remove ") ? Promise.reject(new Fault("denied", "nothing may be deleted")) : undefined);
    await bench.start({ sources: [card], targets: [new FakeDevice("out")] }, [{ from: "card", to: ["out"], afterDelivery: "delete" }]);
    const tries = () => card.calls.filter((call) => call.startsWith("remove ")).length;
    const { queue, work$ } = bench.daemon.engine;
    const waits: number[] = [];
    for (let n = 1; n <= 4; n++) {
      await until(bench, `tried: ${n}`, () => tries() === n && queue.releasing.size === 0);
      const [due] = queue.releasable.values();
      waits.push(Math.round(((due?.notBeforeMs ?? 0) - bench.clock.monotonicMs()) / 30_000));
      aheadMs += 30_000 * 2 ** (n - 1) + 1000;
      work$.next();
    }
    assert.deepEqual(waits, [1, 2, 4, 8]);
  });

test("the link breaks after a file was deleted at its source: another that took its place, and looks the same, is delivered before it is deleted", async (t) => {
  const bench = new Bench(t);
  let aheadMs = 0;
  bench.clock.monotonicMs = () => performance.now() + aheadMs;
  const card = new FakeDevice("card", { tree: true });
  const out = new FakeDevice("out");
  card.put("a", "the first");
  deletedUnanswered(card);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], afterDelivery: "delete" }], {
    device: { intervalMs: 50 },
  });
  const { queue, work$ } = bench.daemon.engine;
  await until(bench, "it failed", () => queue.unreleased === 1 && queue.releasing.size === 0);
  await betweenListings(bench);
  aheadMs = 31_000;
  work$.next();
  await until(bench, "deleted", () => card.files.size === 0);
  assert.deepEqual(contentsOf(out), ["the first", "the other"]);
});

test("nothing is deleted at its source before its receipt is on the medium", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  card.put("a", "content");
  const out = new FakeDevice("out");
  let go = (): void => undefined;
  let synced = Promise.resolve();
  out.before = (call) => {
    if (call !== "commit a") return undefined;
    synced = new Promise((resolve) => (go = resolve));
    return undefined;
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], afterDelivery: "delete" }]);
  const { journal, finders, relist$, work$ } = bench.daemon.engine;
  t.mock.method(journal.receipts, "datasync", () => synced);
  await until(bench, "applied", () => bench.states("out").join() === "done");
  const finder = finders.get("card");
  const { listings = 0 } = finder ?? {};
  work$.next();
  relist$.next("card");
  await until(bench, "listed", () => (finder?.listings ?? 0) > listings);
  assert.equal(card.files.size, 1);
  go();
  await until(bench, "deleted", () => card.files.size === 0);
});

test("what could not be deleted at its source, and waits for its time, is tried at once where a person says retry", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  card.put("a", "content");
  card.before = (call) => (call.startsWith("remove ") ? Promise.reject(new Fault("denied", "nothing may be deleted")) : undefined);
  await bench.start({ sources: [card], targets: [new FakeDevice("out")] }, [{ from: "card", to: ["out"], afterDelivery: "delete" }]);
  const { engine } = bench.daemon;
  await until(bench, "it failed", () => engine.queue.unreleased === 1);
  card.before = () => undefined;
  assert.deepEqual((await retry(engine, "card", AbortSignal.timeout(5000))).releases, ["card:a"]);
  await until(bench, "deleted", () => card.files.size === 0);
});

test("a reload ends a deletion at its source whose answer has not come: another that took its place, and looks the same, is delivered before it is deleted", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  const out = new FakeDevice("out");
  card.put("a", "the first");
  let met = false;
  card.before = (call) => {
    if (met || call !== "remove a") return undefined;
    met = true;
    card.put("a", "the other");
    return new Promise(() => undefined);
  };
  const devices = { sources: [card], targets: [out] };
  const route = { from: "card", to: ["out"], afterDelivery: "delete" as const };
  await bench.start(devices, [route], { device: { intervalMs: 50 } });
  await until(bench, "it is asked for", () => met);
  await bench.reload(devices, [{ ...route, weight: 2 }], { device: { intervalMs: 50 } });
  await until(bench, "deleted", () => card.files.size === 0);
  assert.deepEqual(contentsOf(out), ["the first", "the other"]);
});

test("another that took the place of what was deleted does not wait for a target that need not have the first, which gets it from its copy here", async (t) => {
  const bench = new Bench(t);
  let aheadMs = 0;
  bench.clock.monotonicMs = () => performance.now() + aheadMs;
  const [card, ground, review] = [new FakeDevice("card", { tree: true }), new FakeDevice("ground"), new FakeDevice("review")];
  review.attach(false);
  card.put("a", "the first");
  deletedUnanswered(card);
  await bench.start(
    { sources: [card], targets: [ground, review] },
    [{ from: "card", to: ["ground", { device: "review", required: false }], afterDelivery: "delete" }],
    { device: { intervalMs: 50 } },
  );
  const { queue, work$ } = bench.daemon.engine;
  await until(bench, "it failed", () => queue.unreleased === 1 && queue.releasing.size === 0);
  await betweenListings(bench);
  aheadMs = 31_000;
  work$.next();
  await until(bench, "both are there", () => ground.files.size === 2 && card.files.size === 0);
  review.attach(true);
  await until(bench, "there, too", () => review.files.size === 2);
  assert.deepEqual([contentsOf(ground), contentsOf(review)], [contentsOf(ground), contentsOf(ground)]);
  assert.deepEqual(contentsOf(ground), ["the first", "the other"]);
});

for (const notTaken of [true, false])
  test(`what ${notTaken ? "the source says that it did not delete is not read" : "was perhaps deleted is read"} before the next try`, async (t) => {
    const bench = new Bench(t);
    let aheadMs = 0;
    bench.clock.monotonicMs = () => performance.now() + aheadMs;
    const card = new FakeDevice("card", { tree: true });
    card.put("a", "content");
    card.before = (call) => (call === "remove a" ? Promise.reject(new Fault("transient", "busy", { notTaken })) : undefined);
    await bench.start({ sources: [card], targets: [new FakeDevice("out")] }, [{ from: "card", to: ["out"], afterDelivery: "delete" }]);
    const count = (begin: string) => card.calls.filter((call) => call.startsWith(begin)).length;
    const { queue, work$ } = bench.daemon.engine;
    for (let n = 1; n <= 4; n++) {
      await until(bench, `tried: ${n}`, () => count("remove ") === n && queue.releasing.size === 0);
      aheadMs += 3_600_000;
      work$.next();
    }
    await until(bench, "tried once more", () => count("remove ") === 5 && queue.releasing.size === 0);
    assert.equal(count("open "), notTaken ? 1 : 5);
  });

test("what could not be deleted at its source is tried as soon as that attaches anew", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  card.put("a", "content");
  let isLocked = true;
  card.before = (call) => (isLocked && call === "remove a" ? Promise.reject(new Fault("denied", "write-protected")) : undefined);
  await bench.start({ sources: [card], targets: [new FakeDevice("out")] }, [{ from: "card", to: ["out"], afterDelivery: "delete" }]);
  const { queue } = bench.daemon.engine;
  await until(bench, "it failed", () => queue.unreleased === 1 && queue.releasing.size === 0);
  isLocked = false;
  card.attach(false);
  card.attach(true);
  await until(bench, "deleted", () => card.files.size === 0);
});

for (const killed of [false, true])
  test(`what was perhaps deleted is compared also where no rule asked for it meanwhile${killed ? ", and power went" : ""}`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card", { tree: true });
    const out = new FakeDevice("out");
    card.put("a", "the first");
    deletedUnanswered(card);
    const devices = { sources: [card], targets: [out] };
    const route = (...include: string[]) => [{ from: "card", to: ["out"], include, afterDelivery: "delete" as const }];
    await bench.start(devices, route("a"), often);
    const { queue } = bench.daemon.engine;
    await until(bench, "it failed", () => queue.unreleased === 1 && queue.releasing.size === 0);
    await bench.reload(devices, route("b"), often);
    card.attach(false);
    card.attach(true);
    await until(bench, "it is kept", () => bench.events.some(({ message }) => message.includes("no route asks for it")));
    if (killed) {
      await bench.daemon.engine.journal.durable();
      await bench.kill();
      await bench.start(devices, route("a"), often);
    } else await bench.reload(devices, route("a"), often);
    await until(bench, "deleted", () => card.files.size === 0);
    assert.deepEqual(contentsOf(out), ["the first", "the other"]);
  });

for (const [what, after, targets] of [
  ["that is to stay there now", "keep", ["out"]],
  ["a target that is new, and away, is to have that first", "delete", ["out", "two"]],
] as const)
  test(`another in the place of what was perhaps deleted arrives also where ${what}`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card", { tree: true });
    const [out, two] = [new FakeDevice("out"), new FakeDevice("two")];
    two.attach(false);
    card.put("a", "the first");
    deletedUnanswered(card);
    const devices = { sources: [card], targets: [out, two] };
    await bench.start(devices, [{ from: "card", to: ["out"], afterDelivery: "delete" }], often);
    const { queue } = bench.daemon.engine;
    await until(bench, "it failed", () => queue.unreleased === 1 && queue.releasing.size === 0);
    await bench.reload(devices, [{ from: "card", to: targets, afterDelivery: after }], often);
    card.attach(false);
    card.attach(true);
    await until(bench, "it arrives", () => out.files.size === 2);
    assert.deepEqual(contentsOf(out), ["the first", "the other"]);
    if (after === "keep") return;
    two.attach(true);
    await until(bench, "deleted", () => card.files.size === 0);
    assert.deepEqual(contentsOf(two), ["the first", "the other"]);
  });

for (const killed of [false, true])
  test(`what was perhaps deleted is compared also where another target is to have it first${killed ? ", and power goes meanwhile" : ""}`, async (t) => {
    const bench = new Bench(t);
    let aheadMs = 0;
    bench.clock.monotonicMs = () => performance.now() + aheadMs;
    const card = new FakeDevice("card", { tree: true });
    const [out, two] = [new FakeDevice("out"), new FakeDevice("two")];
    two.attach(false);
    card.put("a", "the first");
    deletedUnanswered(card);
    const devices = { sources: [card], targets: [out, two] };
    const route = (...to: string[]) => [{ from: "card", to, afterDelivery: "delete" as const }];
    await bench.start(devices, route("out"), often);
    const { queue } = bench.daemon.engine;
    await until(bench, "it failed", () => queue.unreleased === 1 && queue.releasing.size === 0);
    await bench.reload(devices, route("out", "two"), often);
    await until(bench, "the new target is to have it", () => bench.states("two").length === 1);
    await betweenListings(bench);
    aheadMs = 31_000;
    bench.daemon.engine.work$.next();
    await until(bench, "it was looked at", () => bench.daemon.engine.queue.releasable.size === 0);
    if (killed) {
      await bench.kill();
      await bench.start(devices, route("out", "two"), often);
    }
    two.attach(true);
    await until(bench, "deleted", () => card.files.size === 0);
    assert.deepEqual(contentsOf(out), ["the first", "the other"]);
  });

test("what an optional target finds to be another by now, read in place, is not deleted as what the required one has", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true, inPlace: true });
  const [out, two] = [new FakeDevice("out"), new FakeDevice("two")];
  card.put("a", "the first");
  two.before = async (call) => {
    if (call !== "write a 0") return;
    await until(bench, "the required one has it", () => bench.states("out")[0] === "done");
    card.put("a", "the other");
    two.before = () => undefined;
  };
  const to = ["out", { device: "two", required: false }];
  await bench.start({ sources: [card], targets: [out, two] }, [{ from: "card", to, afterDelivery: "delete" }], often);
  await until(bench, "deleted", () => card.files.size === 0);
  assert.deepEqual(contentsOf(out), ["the first", "the other"]);
});

test("what is another by now, as fetching it once more for an optional target tells, is not deleted as what the required one has", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  const [out, two] = [new FakeDevice("out"), new FakeDevice("two")];
  card.put("a", "the first");
  card.before = (call) => (call === "remove a" ? Promise.reject(new Fault("denied", "locked")) : undefined);
  const devices = { sources: [card], targets: [out, two] };
  const route = (...to: { device: string; required: boolean }[]) => [
    { from: "card", to: ["out", ...to], afterDelivery: "delete" as const },
  ];
  await bench.start(devices, route(), often);
  const { queue } = bench.daemon.engine;
  await until(bench, "it failed", () => queue.unreleased === 1 && queue.releasing.size === 0);
  await bench.pass(30);
  await expire(bench.daemon.engine, never());
  card.put("a", "the other");
  await bench.reload(devices, route({ device: "two", required: false }), often);
  await until(bench, "it is seen", () => bench.events.some(({ what }) => what === "changed"));
  card.before = () => undefined;
  card.attach(false);
  card.attach(true);
  await until(bench, "deleted", () => card.files.size === 0);
  assert.deepEqual(contentsOf(out), ["the first", "the other"]);
});

/** A card whose file "a" was delivered and cannot be deleted there. */
async function locked(t: TestContext) {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  const out = new FakeDevice("out");
  card.before = (call) => (call === "remove a" ? Promise.reject(new Fault("denied", "locked")) : undefined);
  card.put("a", "the first", t0);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], afterDelivery: "delete" }], often);
  const { queue } = bench.daemon.engine;
  await until(bench, "it failed", () => queue.unreleased === 1 && queue.releasing.size === 0);
  return { bench, card, out };
}

test("only the newest of the files that had a name is deleted at its source: an older one may look as one that came later", async (t) => {
  const { bench, card, out } = await locked(t);
  card.put("a", "the second", t0 + 1000);
  await until(bench, "the second is there", () => out.files.size === 2);
  out.attach(false);
  card.put("a", "the third", t0);
  await until(bench, "the third is found", () => bench.states("out").length === 3);
  card.before = () => undefined;
  card.attach(false);
  card.attach(true);
  await until(bench, "the others are looked at", () => bench.events.filter(({ what }) => what === "released").length === 2);
  out.attach(true);
  await until(bench, "deleted", () => card.files.size === 0);
  assert.deepEqual(contentsOf(out), ["the first", "the second", "the third"]);
});

test("a log that grew before it could be deleted goes on by its tail also after a restart", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  const out = new FakeDevice("out");
  const bytes = randomBytes(40_960);
  card.put("a", bytes.subarray(0, 20_000), t0);
  card.before = (call) => {
    if (call === "remove a") {
      card.put("a", bytes, t0 + 1000);
      card.before = (then) => (then.startsWith("list") ? Promise.reject(new Fault("transient", "x")) : undefined);
    }
    return undefined;
  };
  const start = () => bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], afterDelivery: "delete" }], often);
  await start();
  await until(bench, "kept", () => bench.events.some(({ message }) => message.includes("another file under that name")));
  await bench.stop();
  card.before = () => undefined;
  card.calls.length = 0;
  await start();
  await until(bench, "delivered", () => card.files.size === 0);
  assert.deepEqual(out.files.get("a")?.bytes.equals(bytes), true);
  assert.ok(card.calls.includes("open a 20000"), card.calls.join());
});

test("a log that is being written goes on by its tail after a restart, also where another file was deleted beside it", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  const device = card.device.bind(card);
  card.device = (role) => {
    const made = device(role);
    if (made.source !== undefined) Object.assign(made.source, { mayGrow: (path: string) => path === "log" });
    return made;
  };
  const out = new FakeDevice("out");
  const bytes = randomBytes(40_960);
  card.put("log", bytes.subarray(0, 20_000), t0);
  const start = () => bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], afterDelivery: "delete" }], often);
  await start();
  await until(bench, "the log is there", () => out.files.size === 1);
  card.put("b", "another", t0 - 1000);
  await until(bench, "it is deleted", () => out.files.size === 2 && card.files.size === 1);
  await bench.stop();
  card.calls.length = 0;
  card.put("log", bytes, t0 + 1000);
  await start();
  await until(bench, "delivered", () => out.files.get("log")?.bytes.equals(bytes) === true);
  assert.ok(card.calls.includes("open log 20000"), card.calls.join());
});

test("what is refused for good is not read at each start", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  const out = new FakeDevice("out");
  card.put("a", "content", t0);
  card.before = (call) => (call === "remove a" ? Promise.reject(new Fault("rejected", "no")) : undefined);
  const start = () => bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], afterDelivery: "delete" }], often);
  await start();
  await until(bench, "kept", () => bench.events.some(({ message }) => message.includes("kept: no")));
  for (let n = 0; n < 2; n++) {
    await bench.stop();
    card.calls.length = 0;
    await start();
    await until(bench, "listed", () => card.calls.filter((call) => call === "list").length > 4);
    assert.deepEqual(
      card.calls.filter((call) => call.startsWith("open")),
      [],
    );
  }
});

test("what was perhaps deleted and turned out not to be, and is to stay, is not read at each start", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  const out = new FakeDevice("out");
  card.put("a", "content", t0);
  card.before = (call) => (call === "remove a" ? Promise.reject(new Fault("transient", "the answer was lost")) : undefined);
  const devices = { sources: [card], targets: [out] };
  const route = (afterDelivery: "keep" | "delete") => [{ from: "card", to: ["out"], afterDelivery }];
  await bench.start(devices, route("delete"), often);
  const { queue } = bench.daemon.engine;
  await until(bench, "it failed", () => queue.unreleased === 1 && queue.releasing.size === 0);
  for (let n = 0; n < 3; n++) {
    await bench.stop();
    card.calls.length = 0;
    await bench.start(devices, route("keep"), often);
    await until(bench, "listed", () => card.calls.filter((call) => call === "list").length > 4);
    if (n > 0)
      assert.deepEqual(
        card.calls.filter((call) => call.startsWith("open")),
        [],
        String(n),
      );
  }
});

for (const second of ["the second", "second", "the second one"])
  test(`one that looks as an older one, after another ("${second}") that was given up before it was fetched, is not deleted unread`, async (t) => {
    const isReplaced = second !== "the second";
    const { bench, card, out } = await locked(t);
    card.before = (call) => {
      if (call === "remove a") return Promise.reject(new Fault("denied", "locked"));
      if (call === "stat a") {
        card.files.clear();
        if (isReplaced) card.put("a", "the third", t0);
        card.before = () => undefined;
      }
      return undefined;
    };
    card.put("a", second, t0 + 1000);
    await until(bench, "lost", () => bench.events.some(({ what }) => what === (isReplaced ? "changed" : "lost")));
    card.put("a", "the third", t0);
    card.attach(false);
    card.attach(true);
    await until(bench, "deleted", () => card.files.size === 0);
    assert.deepEqual(contentsOf(out), ["the first", "the third"]);
  });

/** "the first" is there at `out`, and was never to be had away from the card. */
async function keptFirst(bench: Bench, card: FakeDevice, out: FakeDevice): Promise<void> {
  card.before = (call) => (call === "remove a" ? Promise.reject(new Fault("rejected", "not this one")) : undefined);
  card.put("a", "the first", t0);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], afterDelivery: "delete" }], often);
  const { queue } = bench.daemon.engine;
  await until(bench, "kept", () => queue.kept.size === 1 && queue.releasing.size === 0);
  card.before = () => undefined;
}

test("one that looks as an older one that was kept, after another that had gone before it was sent in place, arrives", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true, inPlace: true });
  const out = new FakeDevice("out");
  await keptFirst(bench, card, out);
  out.attach(false);
  card.put("a", "second", t0 + 1000);
  card.put("b", "of the same disk", t0);
  await until(bench, "found", () => bench.daemon.engine.queue.hasOpen("out"));
  card.files.delete("a");
  await until(bench, "lost", () => bench.events.some(({ what }) => what === "lost"));
  card.put("a", "the third", t0);
  out.attach(true);
  await until(bench, "deleted", () => card.files.size === 0);
  assert.deepEqual(contentsOf(out), ["of the same disk", "the first", "the third"]);
});

test("one that looks as an older one that was kept, after another in whose place there was a further one, arrives", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  const out = new FakeDevice("out");
  await keptFirst(bench, card, out);
  const { queue, journal } = bench.daemon.engine;
  let isDone = false;
  // "the other" was never listed when the next takes its place: until then it looks as what was deleted.
  card.before = (call) => {
    if (call === "remove a" && !isDone) {
      isDone = true;
      card.put("a", "the other", t0 + 1000);
      return Promise.reject(new Fault("transient", "the answer was lost"));
    }
    if (call.startsWith("list") && isDone && journal.get("SELECT 1 FROM versions WHERE state = 'gone'") !== undefined) {
      card.put("a", "the third", t0);
      card.before = () => undefined;
    }
    return undefined;
  };
  card.put("a", "2nd alike", t0 + 1000);
  await until(bench, "it failed", () => queue.unreleased === 1 && queue.releasing.size === 0);
  queue.releaseNow("card");
  bench.daemon.engine.work$.next();
  await until(bench, "deleted", () => card.files.size === 0);
  assert.deepEqual(contentsOf(out), ["2nd alike", "the first", "the third"]);
});

test("what was delivered before the clock was set, years later by that, is kept as long as what came after it", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card"), new FakeDevice("out")];
  card.put("a", "content");
  bench.clock.offsetMs = -Date.now();
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "delivered", () => bench.states("out")[0] === "done");
  const isHere = async () => {
    await expire(bench.daemon.engine, never());
    return spoolFiles(bench).length > 0;
  };
  for (let days = 0; days <= 6; days++) {
    bench.clock.offsetMs = days * day;
    assert.ok(await isHere());
  }
  bench.clock.offsetMs = 7.5 * day;
  assert.ok(!(await isHere()));
});

test("a clock that is years ahead for a while takes no copy before its time, and keeps none for years", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card"), new FakeDevice("out")];
  const here = async (days: number) => {
    bench.clock.offsetMs = days * day;
    await expire(bench.daemon.engine, never());
    return spoolFiles(bench);
  };
  const delivered = async (name: string) => {
    card.put(name, name);
    bench.daemon.engine.relist$.next("card");
    await until(bench, name, () => out.files.has(name) && !bench.daemon.engine.queue.hasOpen("out"));
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await delivered("a");
  for (let days = 0; days < 3; days++) assert.deepEqual(await here(days), ["a"]);
  assert.deepEqual(await here(3652), ["a"]);
  await delivered("b");
  assert.deepEqual(await here(3653), ["a", "b"]);
  assert.deepEqual(await here(3), ["a", "b"]);
  for (let days = 4; days < 6; days++) assert.deepEqual(await here(days), ["a", "b"]);
  for (let days = 6; days < 15; days++) await here(days);
  assert.deepEqual(spoolFiles(bench), []);
});

test("a clock that is years ahead when a journal of an older version is opened takes no copy before its time", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card"), new FakeDevice("out")];
  card.put("a", "content");
  const start = () => bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await start();
  await until(bench, "delivered", () => bench.states("out")[0] === "done");
  const { journal } = bench.daemon.engine;
  await journal.commit(() => journal.setMeta("passed", undefined));
  await bench.stop();
  bench.clock.offsetMs = 3652 * day;
  await start();
  for (let days = 3652; days < 3655; days++) {
    bench.clock.offsetMs = days * day;
    await expire(bench.daemon.engine, never());
    assert.equal(spoolFiles(bench).length, 1);
  }
});

test("a look at the clock is noted also where something was delivered a moment ago", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card"), new FakeDevice("out")];
  card.put("a", "content");
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "delivered", () => bench.states("out")[0] === "done");
  const { journal } = bench.daemon.engine;
  await journal.commit(() => journal.setMeta("passed", undefined));
  await expire(bench.daemon.engine, never());
  assert.ok(Math.abs(Number(journal.meta("passed")) - Date.now()) < day);
});

for (const how of ["newest", "age"] as const)
  test(`a target that the route requires by which a file was found is required also once that route would not find it any more (${how})`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card", { tree: true });
    const [a, b] = [new FakeDevice("a"), new FakeDevice("b")];
    for (const target of [a, b]) target.attach(false);
    const now = Date.now();
    const routes = (more: object) => [
      { from: "card", to: ["b"], afterDelivery: "delete" as const, ...(how === "newest" ? { newest: 1 } : { since: { ageMs: day } }) },
      { from: "card", to: ["a", { device: "b", required: false }], afterDelivery: "delete" as const, ...more },
    ];
    card.put("one.bin", "one", now - 1000);
    await bench.start({ sources: [card], targets: [a, b] }, routes({}));
    const required = () =>
      bench.daemon.engine.journal
        .all<{ required: number }>(
          "SELECT d.required FROM deliveries d JOIN versions v ON v.id = d.version WHERE target = 'b' AND v.path = 'one.bin'",
        )
        .map((row) => row.required);
    await until(bench, "found", () => required().length === 1);
    assert.deepEqual(required(), [1]);
    if (how === "newest") {
      card.put("two.bin", "two", now);
      bench.daemon.engine.relist$.next("card");
      await until(bench, "the newer one", () => bench.states("b").length === 2);
    } else bench.clock.offsetMs = 2 * day;
    const finder = bench.daemon.engine.finders.get("card");
    await bench.reload({ sources: [card], targets: [a, b] }, routes({ maxRate: 10_000_000 }));
    a.attach(true);
    await until(bench, "one has it", () => a.files.has("one.bin"));
    const listings = () => bench.daemon.engine.finders.get("card")?.listings ?? 0;
    assert.notEqual(bench.daemon.engine.finders.get("card"), finder);
    const before = listings();
    bench.daemon.engine.relist$.next("card");
    await until(bench, "listed under the new rules", () => listings() > before);
    assert.deepEqual([required(), card.files.has("one.bin")], [[1], true]);
    b.attach(true);
    await until(bench, "deleted", () => !card.files.has("one.bin"));
    assert.ok(b.files.has("one.bin"));
  });

test("of two places at one target only that which is required keeps a file", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  const out = new FakeDevice("out");
  card.put("log.bin", "x", t0);
  out.before = (call) => {
    if (call.startsWith("write also/")) throw new Fault("rejected", "not there");
    return undefined;
  };
  await bench.start({ sources: [card], targets: [out] }, [
    { from: "card", to: ["out"], into: "main", afterDelivery: "delete" },
    { from: "card", to: [{ device: "out", required: false }], into: "also", afterDelivery: "delete" },
  ]);
  await until(bench, "deleted", () => !card.files.has("log.bin"));
  assert.ok(out.files.has("main/log.bin"));
});

for (const change of ["another path", "another rate"])
  test(`what waits for a target that the route does not require any more goes from its source (${change})`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card", { tree: true });
    const [a, b] = [new FakeDevice("a"), new FakeDevice("b")];
    b.attach(false);
    card.put("log.bin", "one", t0);
    const routes = (required: boolean, more: object) => [
      { from: "card", to: ["a", { device: "b", required }], into: "x", afterDelivery: "delete" as const, ...more },
    ];
    await bench.start({ sources: [card], targets: [a, b] }, routes(true, {}));
    await until(bench, "one has it", () => bench.states("a").includes("done"));
    assert.equal(card.files.size, 1);
    await bench.reload(
      { sources: [card], targets: [a, b] },
      routes(false, change === "another path" ? { into: "y" } : { maxRate: 10_000_000 }),
    );
    await until(bench, "deleted", () => card.files.size === 0);
  });

test("what is half here of a version that a longer one took over leaves by retention", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card"), new FakeDevice("out")];
  card.put("a.bin", randomBytes(1000), t0);
  out.attach(false);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "it is here", () => bench.events.some(({ what }) => what === "pulled"));
  const { engine } = bench.daemon;
  const id = engine.queue.latest("card", { path: "a.bin" })?.id ?? "";
  // As where its copy was given up, and it was being pulled once more when the longer one became whole.
  await engine.journal.apply(() => {
    engine.journal.run("UPDATE versions SET state = 'found', durable = 500, released = 'superseded' WHERE id = ?", id);
    engine.queue.drop(id, "superseded: the file grew");
  });
  await bench.pass(30);
  await expire(engine, new AbortController().signal);
  assert.equal(engine.spool.usedBytes, 0);
});

test("what its source has no more waits for the place where its route led when it was found", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card", { tree: true }), new FakeDevice("out")];
  card.put("a.bin", "one", t0);
  out.attach(false);
  const routes = (into: string) => [{ from: "card", to: ["out"], into }];
  const devices = { sources: [card], targets: [out] };
  await bench.start(devices, routes("before"));
  await until(bench, "it is here", () => bench.events.some(({ what }) => what === "pulled"));
  card.files.clear();
  await bench.reload(devices, routes("now"));
  out.attach(true);
  await until(bench, "it arrives", () => out.files.has("before/a.bin"));
});

test("a route that would take a file but for what is newer, and never found it, requires nothing of it after a change of rules", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  const [a, b] = [new FakeDevice("a"), new FakeDevice("b")];
  for (const target of [a, b]) target.attach(false);
  card.put("new.bin", "two", t0 + 1000);
  card.put("old.bin", "one", t0);
  const routes = (more: object) => [
    { from: "card", to: ["a", { device: "b", required: false }], afterDelivery: "delete" as const, ...more },
    { from: "card", to: ["b"], newest: 1, afterDelivery: "delete" as const },
  ];
  await bench.start({ sources: [card], targets: [a, b] }, routes({}));
  await until(bench, "found", () => bench.states("b").length === 2);
  await bench.reload({ sources: [card], targets: [a, b] }, routes({ maxRate: 10_000_000 }));
  const listings = () => bench.daemon.engine.finders.get("card")?.listings ?? 0;
  await until(bench, "listed under the new rules", () => listings() > 0);
  a.attach(true);
  await until(bench, "deleted", () => !card.files.has("old.bin"));
  assert.ok(card.files.has("new.bin"));
});

for (const how of ["archive", "trustSize"] as const)
  test(`what "newest" leaves by now is acted on by the rules of now (${how})`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card", { tree: true });
    const out = new FakeDevice("out", { target: how === "archive" ? {} : { digests: [] } });
    const devices = { sources: [card], targets: [out] };
    const rarely = { device: { intervalMs: 3_600_000 } };
    card.before = (call) => (call.startsWith("remove") ? Promise.reject(new Fault("denied", "write-protected")) : undefined);
    const route = { from: "card", to: ["out"], newest: 1, trustSize: true };
    for (const [n, path] of ["old", "new"].entries()) {
      card.put(path, randomBytes(1000), t0 + n * day);
      if (n === 0) await bench.start(devices, [{ ...route, afterDelivery: "delete" }], rarely);
      else bench.daemon.engine.relist$.next("card");
      await until(bench, "it cannot be deleted", () => card.calls.includes(`remove ${path}`));
    }
    card.before = () => undefined;
    const now = how === "archive" ? ({ afterDelivery: "archive" } as const) : ({ trustSize: false, afterDelivery: "delete" } as const);
    await bench.reload(devices, [{ ...route, ...now }], rarely);
    card.attach(false);
    card.attach(true);
    await until(bench, "both are acted on", () => bench.events.filter(({ what }) => what === "released").length === 2);
    assert.deepEqual([...card.files.keys()].sort(), how === "archive" ? ["archive/new", "archive/old"] : ["new", "old"]);
  });

test("of a file that a source without times had, and that another of its size replaced, a time that is learned is not its own: the other is not deleted", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card", { tree: true }), new FakeDevice("out")];
  card.timeless = true;
  const barred = new Fault("denied", "write-protected");
  let isBarred = true;
  card.before = (call) => {
    const reads = call.startsWith("open") && out.files.size > 0;
    return isBarred && (call.startsWith("remove") || reads) ? Promise.reject(barred) : undefined;
  };
  card.put("a", "first");
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], afterDelivery: "delete" }], {
    device: { intervalMs: 3_600_000 },
  });
  await until(bench, "it cannot be deleted", () => bench.events.some(({ what }) => what === "again"));
  card.put("a", "other", t0);
  card.timeless = false;
  bench.daemon.engine.relist$.next("card");
  const { journal } = bench.daemon.engine;
  await until(bench, "its time is learned", () => journal.get<{ ms: number | null }>("SELECT modified_ms AS ms FROM versions")?.ms === t0);
  isBarred = false;
  card.attach(false);
  card.attach(true);
  await until(bench, "it is kept", () => bench.events.some(({ what }) => what === "released"));
  bench.daemon.engine.relist$.next("card");
  await until(bench, "the other one arrives", () => [...out.files.values()].some(({ bytes }) => bytes.toString() === "other"));
});

test("a route that leaves a file, as others are newer, has no say in what proof is enough for it", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  const [review, cloud] = [new FakeDevice("review"), new FakeDevice("cloud", { target: { digests: [] } })];
  for (const [n, path] of ["old", "new"].entries()) card.put(path, randomBytes(1000), t0 + n * day);
  const routes = [
    { from: "card", to: ["review"], newest: 1 },
    { from: "card", to: ["cloud"], afterDelivery: "delete" as const, trustSize: true },
  ];
  await bench.start({ sources: [card], targets: [review, cloud] }, routes, often);
  await until(bench, "both are decided", () => bench.events.filter(({ what }) => what === "released").length === 2);
  assert.deepEqual([...card.files.keys()], ["new"]);
});
