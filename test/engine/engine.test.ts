/** The engine over devices in memory: states from which nothing would wake a file, and orders in which something would be lost. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { retry } from "../../core/amend.js";
import { Fault } from "../../core/errors.js";
import { partialPath, uploadId } from "../../core/route.js";
import { Bench, crc32, FakeDevice, until } from "../fake-device.js";

const day = 86_400_000;
const t0 = Date.UTC(2026, 4, 1);

test("a source read in place that leaves the configuration stops only its own deliveries", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { inPlace: true });
  const other = new FakeDevice("other");
  const out = new FakeDevice("out");
  card.put("a.bin", "a");
  out.attach(false);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "digested", () => bench.states("out")[0] === "ready");
  await bench.stop();
  out.attach(true);
  other.put("b.bin", "b");
  await bench.start({ sources: [other], targets: [out] }, [{ from: "other", to: ["out"] }]);
  await until(bench, "the other's file", () => out.files.has("b.bin"));
  await until(bench, "put back", () => bench.states("out")[0] === "wanting");
  assert.deepEqual(
    bench.events.filter(({ what }) => what === "journal-failed"),
    [],
  );
});

test("what a target hands on twice counts twice, and is no more of the file", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  out.handsOn = 2;
  const seen: number[] = [];
  out.before = (call) => {
    if (call.startsWith("commit")) seen.push(...bench.daemon.engine.transfers.running.map(({ offset }) => offset));
    return undefined;
  };
  card.put("a.bin", Buffer.alloc(5000));
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "done", () => bench.states("out")[0] === "done");
  assert.deepEqual(seen, [5000]);
  assert.equal(bench.daemon.engine.transfers.pushedBytes, 10_000);
});

test("a clock that goes back does not make a file that changed new at each listing", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  card.put("a.bin", "first");
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "first", () => bench.states("out")[0] === "done");
  bench.clock.offsetMs = -400 * day;
  card.put("a.bin", "second!", t0 + 5000);
  const { engine } = bench.daemon;
  const listed = () => card.calls.filter((call) => call === "list").length;
  engine.relist$.next("card");
  await until(bench, "second", () => bench.states("out").filter((state) => state === "done").length === 2);
  for (let n = 0; n < 3; n++) {
    const before = listed();
    engine.relist$.next("card");
    await until(bench, "listed", () => listed() > before);
  }
  await bench.stop();
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  assert.equal(bench.states("out").length, 2);
});

for (const [kind, what] of [
  ["missing", "lost"],
  ["changed", "changed"],
] as const)
  test(`a file that each listing shows, and that is ${kind} when it is asked for, is not found anew at each listing`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card");
    const out = new FakeDevice("out");
    card.put("a.bin", "content");
    card.before = (call) => (call.startsWith("stat") ? Promise.reject(new Fault(kind, "it is not there")) : undefined);
    await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
    const { engine } = bench.daemon;
    const told = (name: string) => bench.events.filter((event) => event.what === name).length;
    // That it is lost is said when its place in the spool is given back, which a listing need not wait for.
    await until(bench, "it is left", () => (told("unreadable") > 0 && told(what) > 1) || told(what) > 4);
    assert.equal(told(what), 2, "once, and once more when it was there again");
    for (let n = 0; n < 3; n++) {
      const before = engine.finders.get("card")?.listings ?? 0;
      engine.relist$.next("card");
      await until(bench, "listed", () => (engine.finders.get("card")?.listings ?? 0) > before);
    }
    assert.equal(told(what), 2);
    assert.equal(told("unreadable"), 1);
    assert.equal(bench.states("out").length, 2, "and the journal does not grow by it");
    card.attach(true);
    await until(bench, "attached anew, it is tried again", () => told(what) === 3);
    card.before = () => undefined;
    card.put("a.bin", "content", t0 + 5000);
    engine.relist$.next("card");
    await until(bench, "written again, it goes", () => out.files.has("a.bin"));
  });

test("a device that goes while it is listed is said to be away, once; a listing that fails while it is there is said too", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "the first listing", () => card.calls.includes("list"));
  const said = (what: string) => bench.events.filter((event) => event.what === what).map(({ level, message }) => `${level}: ${message}`);
  const { engine } = bench.daemon;
  card.before = (call) => {
    if (call !== "list") return undefined;
    card.presence$.next({ state: "detached", reason: "the vehicle is armed" });
    return Promise.reject(new Fault("offline", "the vehicle is armed"));
  };
  engine.relist$.next("card");
  await until(bench, "the failure", () => said("listing-failed").length === 1);
  assert.deepEqual(said("listing-failed"), ["debug: card: cannot list it: the vehicle is armed"]);
  assert.deepEqual(said("detached"), ["warn: card: the vehicle is armed"]);
  card.before = () => undefined;
  card.presence$.next({ state: "attached", epoch: "2" });
  const listed = card.calls.filter((call) => call === "list").length;
  await until(bench, "listed again", () => card.calls.filter((call) => call === "list").length > listed);
  card.before = (call) => (call === "list" ? Promise.reject(new Fault("transient", "no answer")) : undefined);
  engine.relist$.next("card");
  await until(bench, "the second failure", () => said("listing-failed").length === 2);
  assert.equal(said("listing-failed")[1], "warn: card: cannot list it: no answer");
});

test("a source that answers, and whose root may not be listed, stays away until that may be: it is said once", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  card.put("a.bin", "content", t0);
  let shut = true;
  card.before = (call) => (shut && call === "list" ? Promise.reject(new Fault("denied", "the root is not there")) : undefined);
  const looks: (() => void)[] = [];
  const real = bench.clock.sleep.bind(bench.clock);
  bench.clock.sleep = (ms, signal) =>
    ms === 60_000 ? Promise.race([real(ms, signal), new Promise<void>((go) => looks.push(go))]) : real(ms, signal);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  const said = () =>
    bench.events.filter(({ what, message }) => /^(at|de)tached$/.test(what) && message.startsWith("card")).map(({ what }) => what);
  for (let n = 1; n <= 3; n++) {
    await until(bench, "that it waits", () => looks.length === n);
    assert.deepEqual(said(), ["attached", "detached"]);
    shut = n < 3;
    looks.at(-1)?.();
  }
  await until(bench, "the file", () => out.files.has("a.bin"));
  assert.deepEqual(said(), ["attached", "detached", "attached"]);
});

test("a target that is added after the spool copy has expired gets the file", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  const late = new FakeDevice("late");
  card.put("a.bin", "content");
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "delivered", () => bench.states("out")[0] === "done");
  const { expire } = await import("../../core/space.js");
  await bench.pass(30);
  await expire(bench.daemon.engine, new AbortController().signal);
  assert.equal(bench.daemon.engine.spool.usedBytes, 0);
  await bench.stop();
  await bench.start({ sources: [card], targets: [out, late] }, [{ from: "card", to: ["out", "late"] }]);
  await until(bench, "late", () => bench.states("late")[0] === "done", 5000);
  assert.equal(late.files.get("a.bin")?.bytes.toString(), "content");
});

test("a spool copy that vanishes is pulled again", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  card.put("a.bin", "content");
  out.attach(false);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "spooled", () => bench.events.some(({ what }) => what === "pulled"));
  const { engine } = bench.daemon;
  const [version] = engine.journal.all<{ id: string }>("SELECT id FROM versions");
  rmSync(engine.spool.pathOf(version?.id ?? ""));
  out.attach(true);
  await until(bench, "delivered", () => bench.states("out")[0] === "done", 8000);
});

test("a source is read on while what was read becomes durable, up to five files; none counts as pulled before", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  const names = Array.from({ length: 7 }, (_, n) => `${n}.bin`);
  for (const name of names) card.put(name, name);
  card.attach(false);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], { device: { concurrency: 1 } });
  const { engine } = bench.daemon;
  let go = (): void => undefined;
  const slow = new Promise<void>((resolve) => (go = resolve));
  const write = engine.spool.writeSidecar.bind(engine.spool);
  engine.spool.writeSidecar = (sidecar) => slow.then(() => write(sidecar));
  const opened = () => card.calls.filter((call) => call.startsWith("open")).length;
  card.attach(true);
  await until(bench, "as many as may be", () => opened() === 5);
  await sleep(50);
  assert.equal(opened(), 5);
  assert.equal(card.openMost, 1);
  assert.deepEqual([...out.files.keys()], []);
  assert.deepEqual(
    bench.events.filter(({ what }) => what === "pulled"),
    [],
  );
  go();
  await until(bench, "all there", () => out.files.size === names.length);
  assert.equal(card.openMost, 1);
});

test("better work that finds no room in the spool does not keep a pull from going on", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { concurrency: 1 });
  const out = new FakeDevice("out");
  const big = randomBytes(6_000_000);
  card.put("big.bin", big, t0);
  // The target takes nothing, so the spool stays full.
  let open = (): void => undefined;
  const gate = new Promise<void>((resolve) => (open = resolve));
  out.before = (call) => (call.startsWith("write") ? gate : undefined);
  let go = (): void => undefined;
  const reading = new Promise<void>((resolve) => (go = resolve));
  let found = (): void => undefined;
  const more = new Promise<void>((resolve) => (found = resolve));
  card.before = async (call) => {
    if (call !== "read big.bin 65536") return;
    go();
    await more;
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], { maxSize: 7_000_000 });
  await reading;
  card.put("new.bin", randomBytes(2_000_000), t0 + 5000);
  bench.daemon.engine.relist$.next("card");
  await until(bench, "found", () => bench.states("out").length === 2);
  found();
  await until(bench, "big.bin is here", () => bench.events.some(({ what }) => what === "pulled"), 5000);
  assert.equal(card.calls.filter((call) => call.startsWith("open big.bin")).length, 1);
  open();
  await until(bench, "both", () => out.files.size === 2);
});

test("a target that is added is asked for before the source's copy is deleted", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  const out = new FakeDevice("out");
  const late = new FakeDevice("late");
  card.put("a.bin", "content");
  card.before = (call) => {
    if (call.startsWith("remove")) throw new Fault("transient", "not now");
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], afterDelivery: "delete" }]);
  await until(bench, "tried", () => card.calls.includes("remove a.bin"));
  await bench.stop();
  card.calls.length = 0;
  card.before = () => undefined;
  late.attach(false);
  await bench.start({ sources: [card], targets: [out, late] }, [{ from: "card", to: ["out", "late"], afterDelivery: "delete" }]);
  await until(bench, "queued", () => bench.states("late").length === 1);
  assert.ok(card.files.has("a.bin"));
  late.attach(true);
  await until(bench, "late", () => late.files.has("a.bin"));
  await until(bench, "deleted", () => !card.files.has("a.bin"));
});

test("another priority, or weight, counts for what waits already", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out", { target: { concurrency: 1 } });
  const devices = { sources: [card], targets: [out] };
  for (const [n, path] of ["old.bin", "new.bin", "old.txt", "new.txt"].entries()) card.put(path, path, Date.UTC(2026, 4, 1) + n);
  const rules = (bin: number, txt: number, priority: "newest" | "oldest") => [
    { from: "card", to: ["out"], include: ["*.bin"], weight: bin, priority },
    { from: "card", to: ["out"], include: ["*.txt"], weight: txt, priority },
  ];
  out.attach(false);
  await bench.start(devices, rules(2, 1, "newest"));
  await until(bench, "here", () => bench.states("out").join() === "ready,ready,ready,ready");
  await bench.reload(devices, rules(1, 2, "oldest"));
  await until(bench, "listed under these rules", () => bench.daemon.engine.finders.get("card")?.listings === 1);
  out.attach(true);
  await until(bench, "delivered", () => out.files.size === 4);
  assert.deepEqual([...out.files.keys()], ["old.txt", "new.txt", "old.bin", "new.bin"]);
});

for (const [how, crc] of [
  ["read once more", undefined],
  ["by the source's own digest", crc32],
] as const)
  test(`a source that tells no times: another file of the same name and size is not deleted, but delivered (${how})`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card", { tree: true, ...(crc === undefined ? {} : { crc }) });
    card.timeless = true;
    const out = new FakeDevice("out");
    out.attach(false);
    card.put("LOG1", Buffer.alloc(1000, 1));
    const routes = [{ from: "card", to: ["out"], afterDelivery: "delete" as const }];
    await bench.start({ sources: [card], targets: [out] }, routes);
    await until(bench, "it is here", () => bench.events.some(({ what }) => what === "pulled"));
    await bench.stop();
    // The card was erased, and its numbers begin again.
    card.put("LOG1", Buffer.alloc(1000, 2));
    await bench.start({ sources: [card], targets: [out] }, routes);
    out.attach(true);
    await until(bench, "kept", () => bench.events.some(({ message }) => message.includes("another content under that name and size")));
    assert.equal(card.calls.filter((call) => call === "open LOG1 0").length, crc === undefined ? 2 : 1);
    card.attach(true);
    await until(bench, "deleted", () => !card.files.has("LOG1"));
    assert.deepEqual([...out.files.values()].map(({ bytes }) => bytes[0]).sort(), [1, 2]);
  });

test("a source that tells no times: a target that is not required gets what was there before, though another file has its name", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  card.timeless = true;
  const [out, late] = [new FakeDevice("out"), new FakeDevice("late")];
  for (const target of [out, late]) target.attach(false);
  card.put("LOG1", Buffer.alloc(1000, 1));
  const to = ["out", { device: "late", required: false, requires: [] }];
  const held = (target: FakeDevice) => [...target.files.values()].map(({ bytes }) => bytes[0]).sort();
  await bench.start({ sources: [card], targets: [out, late] }, [{ from: "card", to, afterDelivery: "delete" }]);
  await until(bench, "it is here", () => bench.events.some(({ what }) => what === "pulled"));
  card.put("LOG1", Buffer.alloc(1000, 2));
  out.attach(true);
  await until(bench, "known", () =>
    bench.events.some(({ message }) => message.includes("gone from its source already: the source has another")),
  );
  card.attach(true);
  await until(bench, "the other does not wait for the one that is away", () => out.files.size === 2);
  late.attach(true);
  await until(bench, "both", () => late.files.size === 2 && out.files.size === 2 && !card.files.has("LOG1"));
  assert.deepEqual(
    [held(out), held(late)],
    [
      [1, 2],
      [1, 2],
    ],
  );
});

test("a pull that ends before it wrote a byte gives back the space that it was promised", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  card.put("a.bin", Buffer.alloc(1000));
  card.before = (call) => {
    if (call.startsWith("stat")) throw new Fault("changed", "it was written");
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "changed", () => bench.events.some(({ what }) => what === "changed"));
  card.files.clear();
  await until(bench, "idle", () => bench.daemon.engine.queue.pulling.size === 0);
  assert.equal(bench.daemon.engine.spool.usedBytes, 0);
});

test("a source that detaches leaves its files in peace until it is back", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { inPlace: true });
  const out = new FakeDevice("out", { target: { concurrency: 1 } });
  for (let n = 0; n < 20; n++) card.put(`${n}.bin`, randomBytes(100));
  out.attach(false);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "digested", () => bench.states("out").every((state) => state === "ready") && bench.states("out").length === 20);
  card.attach(false);
  card.before = () => {
    throw new Fault("offline", "unplugged");
  };
  out.attach(true);
  await until(bench, "all wait", () => bench.states("out").every((state) => state === "wanting"), 5000);
  const tried = out.calls.filter((call) => call.startsWith("offset")).length;
  assert.ok(tried <= 4, `${tried} tries`);
  card.before = () => undefined;
  card.attach(true);
  await until(bench, "all", () => out.files.size === 20);
});

test("a source whose digest never agrees is read again once, then set aside, also while a push follows", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { crc: () => "crc32-mavlink:00000000" });
  const out = new FakeDevice("out");
  card.put("a.bin", randomBytes(5_000_000));
  // The push follows before the pull is whole.
  let begun = (): void => undefined;
  const following = new Promise<void>((resolve) => (begun = resolve));
  out.before = (call) => {
    if (call.startsWith("write")) begun();
    return undefined;
  };
  card.before = (call) => (call.startsWith("digest") ? following : undefined);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "parked", () => bench.states("out")[0] === "parked", 8000);
  assert.equal(card.calls.filter((call) => call.startsWith("digest")).length, 2);
});

test("a target that asks to wait is left alone by every delivery", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out", { target: { concurrency: 1 } });
  for (let n = 0; n < 10; n++) card.put(`${n}.bin`, randomBytes(100));
  out.attach(false);
  out.before = (call) => {
    if (call.startsWith("write")) throw new Fault("throttled", "429", { retryAfterMs: 60_000 });
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "spooled", () => bench.events.filter(({ what }) => what === "pulled").length === 10);
  out.attach(true);
  await until(bench, "asked", () => bench.events.some(({ what }) => what === "again"));
  const { engine } = bench.daemon;
  await until(bench, "idle", () => engine.queue.pushing.size === 0);
  assert.equal(out.calls.filter((call) => call.startsWith("write")).length, 1);
  // Unless a person says that the wait is over.
  out.before = () => undefined;
  const { retried, due } = await retry(engine, undefined, new AbortController().signal);
  assert.deepEqual([retried, due], [[], 1]);
  await until(bench, "delivered", () => bench.states("out").every((state) => state === "done"));
});

test("what was published before a kill is recognised, not sent again", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  card.put("a.bin", "content");
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "delivered", () => bench.states("out")[0] === "done");
  // Killed between the rename there and the receipt here.
  const { engine } = bench.daemon;
  await engine.journal.commit(() => engine.journal.run("UPDATE deliveries SET state = 'active', receipt = NULL, done_ms = NULL"));
  await bench.stop();
  out.calls.length = 0;
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "delivered", () => bench.states("out")[0] === "done");
  assert.deepEqual(
    out.calls.filter((call) => call.startsWith("write")),
    [],
  );
});

test("a medium that refuses every write: the engine is built again, ever less often, and stops at once when asked", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  const reopened = () => bench.events.filter(({ what }) => what === "journal-reopened").length;
  // Held on to: the daemon's own work may meet the closed file first.
  const first = bench.daemon.engine.journal;
  await first.wal.close();
  await assert.rejects(first.commit(() => undefined));
  await until(bench, "reopened", () => reopened() === 1 && bench.daemon.ready);
  rmSync(join(bench.dir, "receipts.jsonl"));
  mkdirSync(join(bench.dir, "receipts.jsonl"));
  const second = bench.daemon.engine.journal;
  await second.wal.close();
  await assert.rejects(second.commit(() => undefined));
  await until(bench, "cannot be opened", () => bench.events.some(({ message }) => message.includes("cannot be opened")));
  assert.equal(bench.daemon.ready, false);
  assert.throws(() => bench.daemon.status(), /the journal in .* cannot be written: EISDIR.*; it is looked at again$/);
  const failures = () => bench.events.filter(({ message }) => message.includes("cannot be opened")).length;
  const n = failures();
  await until(bench, "tried again", () => failures() > n);
  // A wait for the medium ends with the daemon.
  await bench.stop();
});

test("--once ends when the target has no space: it says what is left", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out", { target: { concurrency: 1 } });
  card.put("a.bin", "a");
  out.before = (call) => {
    if (call.startsWith("write")) throw new Fault("full", "no space");
    return undefined;
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  assert.deepEqual(await bench.daemon.drained(AbortSignal.timeout(8000)), {
    waiting: 1,
    parked: 0,
    lost: 0,
    unreleased: 0,
    kept: [],
    unlisted: [],
    unread: 0,
    uneven: [],
  });
});

test("--once ends when the target wants to be asked later, once all that it waits for is here", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  for (const name of ["a.bin", "b.bin", "c.bin"]) card.put(name, name);
  out.before = (call) => {
    if (call.startsWith("write")) throw new Fault("throttled", "429", { retryAfterMs: 900_000 });
    return undefined;
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  const left = await bench.daemon.drained(AbortSignal.timeout(8000));
  assert.deepEqual([left.waiting, left.parked], [3, 0]);
  assert.equal(bench.events.filter(({ what }) => what === "pulled").length, 3);
});

test("--once does not end while a configuration is read anew, and gives what that brings the time to attach", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const later = new FakeDevice("later");
  const out = new FakeDevice("out");
  card.put("a.bin", "a");
  later.put("b.bin", "b");
  let atWork = (): void => undefined;
  const writing = new Promise<void>((resolve) => (atWork = resolve));
  out.before = (call) => {
    if (!call.startsWith("write")) return undefined;
    atWork();
    return new Promise(() => undefined);
  };
  // A device that takes its time to close.
  let close = (): void => undefined;
  const closed = new Promise<void>((resolve) => (close = resolve));
  const device = out.device.bind(out);
  out.device = (role) => ({ ...device(role), close: () => closed });
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await writing;
  const now = bench.clock.monotonicMs.bind(bench.clock);
  bench.clock.monotonicMs = () => now() + 60_000;
  const drained = bench.daemon.drained(AbortSignal.timeout(20_000));
  const looked = () => Promise.race([drained, new Promise((resolve) => setTimeout(() => resolve("not ended"), 500))]);
  later.attach(false);
  const routes = [
    { from: "card", to: ["out"] },
    { from: "later", to: ["out"] },
  ];
  const reloading = bench.reload({ sources: [card, later], targets: [out] }, routes, { device: { intervalMs: 60_000 } });
  assert.equal(await looked(), "not ended", "it ended in the middle of the reload");
  out.before = () => undefined;
  close();
  await reloading;
  assert.equal(await looked(), "not ended", "it ended before the new source attached");
  later.attach(true);
  assert.deepEqual(await drained, { waiting: 0, parked: 0, lost: 0, unreleased: 0, kept: [], unlisted: [], unread: 0, uneven: [] });
  assert.deepEqual([...out.files.keys()].sort(), ["a.bin", "b.bin"]);
});

test("--once says of each device that it ends without that it is away, also where it was just looked at for the first time", async (t) => {
  const bench = new Bench(t);
  const [card, out, idle] = [new FakeDevice("card"), new FakeDevice("out"), new FakeDevice("idle")];
  card.put("a.bin", "a");
  for (const { presence$ } of [out, idle]) presence$.next({ state: "detached", reason: "not looked at yet", unseen: true });
  await bench.start({ sources: [card], targets: [out, idle] }, [{ from: "card", to: ["out"] }]);
  const now = bench.clock.monotonicMs.bind(bench.clock);
  bench.clock.monotonicMs = () => now() + 60_000;
  const drained = bench.daemon.drained(AbortSignal.timeout(20_000));
  await until(bench, "that it is found", () => bench.events.some(({ what }) => what === "found"));
  // As on a busy machine, where the first look takes seconds.
  for (const { presence$ } of [out, idle]) presence$.next({ state: "detached", reason: "not mounted" });
  assert.equal((await drained).waiting, 1);
  const told = bench.events.filter(({ what }) => what === "detached").map(({ message }) => message);
  assert.deepEqual(told, ["out: not mounted"]);
});

test("--once ends only when what is due at a source is done; what failed there is not waited for", async (t) => {
  for (const fails of [false, true]) {
    const bench = new Bench(t);
    const card = new FakeDevice("card", { tree: true });
    const out = new FakeDevice("out");
    card.put("a.bin", "a");
    // Longer than any look at what is left.
    card.before = async (call) => {
      if (!call.startsWith("remove")) return;
      await new Promise((resolve) => setTimeout(resolve, 500));
      if (fails) throw new Fault("transient", "busy");
    };
    await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], afterDelivery: "delete" }]);
    assert.deepEqual(await bench.daemon.drained(AbortSignal.timeout(8000)), {
      waiting: 0,
      parked: 0,
      lost: 0,
      unreleased: fails ? 1 : 0,
      kept: [],
      unlisted: [],
      unread: 0,
      uneven: [],
    });
    assert.equal(card.files.size, fails ? 1 : 0);
    assert.equal(bench.events.filter(({ what }) => what === (fails ? "again" : "released")).length, 1);
    await bench.stop();
  }
});

test("--once ends when the spool has no room, and nothing that it holds can leave", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  const away = new FakeDevice("away");
  card.put("a.bin", Buffer.alloc(600), t0 + 1000);
  away.attach(false);
  await bench.start({ sources: [card], targets: [away] }, [{ from: "card", to: ["away"] }], { maxSize: 1000 });
  await until(bench, "spooled", () => bench.events.some(({ what }) => what === "pulled"));
  await bench.stop();
  // The only copy of a.bin is in the spool now.
  card.files.clear();
  card.put("b.bin", Buffer.alloc(600), t0);
  await bench.start(
    { sources: [card], targets: [out, away] },
    [
      { from: "card", to: ["out"] },
      { from: "card", to: ["away"] },
    ],
    {
      maxSize: 1000,
    },
  );
  assert.deepEqual(await bench.daemon.drained(AbortSignal.timeout(20_000)), {
    waiting: 3,
    parked: 0,
    lost: 0,
    unreleased: 0,
    kept: [],
    unlisted: [],
    unread: 0,
    uneven: [],
  });
});

test("a cloned card whose first start lost power after the new id was written drops what it inherited all the same", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  card.put("a.bin", "a");
  out.before = (call) => {
    if (call.startsWith("commit")) throw new Fault("transient", "cut");
    return undefined;
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "begun", () => out.calls.includes("commit a.bin"));
  await bench.stop();
  writeFileSync(join(bench.dir, "installation.json"), JSON.stringify({ id: "00c0ffee", machine: "test" }));
  out.attach(false);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  assert.deepEqual({ ...bench.daemon.engine.journal.get<object>("SELECT begun, memo FROM deliveries") }, { begun: 0, memo: null });
});

test("a vehicle that gets another name in the middle of an upload goes on with it", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  card.put("a.bin", "content");
  const start = (vehicle: string) =>
    bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], into: "{vehicle}" }], { vehicle });
  await bench.killedAt(out, "commit", () => start("v"));
  const begun = [...out.partials.keys()];
  out.calls.length = 0;
  await start("w");
  await until(bench, "delivered", () => bench.states("out").every((state) => state === "done"));
  assert.deepEqual([begun.length, ...out.partials.keys()], [1]);
  assert.deepEqual(
    out.calls.filter((call) => call.startsWith("write v/")),
    [],
  );
});

test("an upload that broke before its first byte, and somebody else brings the same file: its empty partial goes", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  card.put("a.bin", "content");
  let broken = false;
  out.before = (call) => {
    if (broken || !call.startsWith("write")) return undefined;
    broken = true;
    const { engine } = bench.daemon;
    const [row] = engine.journal.all<{ id: string; path: string }>("SELECT id, path FROM deliveries");
    const { id = "", path = "" } = row ?? {};
    out.partials.set(partialPath(path, engine.names.installation, uploadId(engine.uploads, id, 0)), Buffer.alloc(0));
    out.put("a.bin", "content");
    throw new Fault("transient", "451 Failure writing to local file.");
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "delivered", () => bench.states("out")[0] === "done");
  assert.ok(broken);
  assert.deepEqual([...out.partials.keys()], []);
});

test("a delivery that is superseded right before it begins sends nothing: nobody would take its partial away", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  card.put("a.bin", "content");
  out.attach(false);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "pulled", () => bench.events.some(({ what }) => what === "pulled"));
  const { queue, journal } = bench.daemon.engine;
  const claim = queue.claim.bind(queue);
  let dropped = false;
  queue.claim = async (...args) => {
    const delivery = await claim(...args);
    if (delivery === undefined || delivery === "full" || dropped) return delivery;
    dropped = true;
    await journal.commit(() => queue.drop(delivery.version, "superseded: the file grew"));
    return delivery;
  };
  let ended = false;
  queue.pushing.delete = (id) => {
    ended = true;
    return Map.prototype.delete.call(queue.pushing, id);
  };
  out.attach(true);
  await until(bench, "the push to end", () => ended);
  assert.ok(dropped);
  assert.deepEqual(bench.states("out"), ["dropped"]);
  assert.deepEqual([[...out.partials.keys()], [...out.files.keys()]], [[], []]);
});

for (const [name, years, expected] of [
  ["ahead", 10, ["new.bin"]],
  ["behind, and not set", -10, ["new.bin"]],
] as const)
  test(`since install, first run with a clock that is ${name}: what was there is left, what comes later goes, once the clock is right`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card");
    const out = new FakeDevice("out");
    bench.clock.offsetMs = years * 365 * 86_400_000;
    card.put("old.bin", "old", Date.now() - 1000);
    await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], since: "install" }]);
    await until(bench, "the first listing", () => (bench.daemon.engine.finders.get("card")?.listings ?? 0) > 0);
    bench.clock.offsetMs = 0;
    card.put("new.bin", "new", Date.now());
    bench.daemon.engine.relist$.next("card");
    await until(bench, "delivered", () => bench.states("out").includes("done"));
    assert.deepEqual([...out.files.keys()], expected);
    assert.equal(bench.events.filter(({ what }) => what === "clock").length, years > 0 ? 1 : 0);
  });

test("since install at a source that tells no times: what has not settled in the first listing was there before", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const [out, all] = [new FakeDevice("out"), new FakeDevice("all")];
  card.timeless = true;
  card.settles = false;
  for (const name of ["old.bin", "both/old.bin"]) card.put(name, "old");
  await bench.start(
    { sources: [card], targets: [out, all] },
    [
      { from: "card", to: ["out"], since: "install" },
      { from: "card", to: ["all"], include: ["both/*"] },
    ],
    { device: { settleMs: 20 } },
  );
  await until(bench, "the first listing", () => (bench.daemon.engine.finders.get("card")?.listings ?? 0) > 0);
  for (const name of ["new.bin", "both/new.bin"]) card.put(name, "new");
  bench.daemon.engine.relist$.next("card");
  await until(bench, "all is delivered", () => out.files.size >= 2 && all.files.size === 2 && !bench.states("out").includes("wanting"));
  assert.deepEqual([...out.files.keys()].sort(), ["both/new.bin", "new.bin"]);
  assert.deepEqual([...all.files.keys()].sort(), ["both/new.bin", "both/old.bin"]);
});

test("since install counts for each target from when that ran first, whatever targets come beside it", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const [first, second, later] = [new FakeDevice("first"), new FakeDevice("second"), new FakeDevice("later")];
  const listed = () => until(bench, "a listing", () => (bench.daemon.engine.finders.get("card")?.listings ?? 0) > 0);
  const routes = (...targets: string[]) => targets.map((to) => ({ from: "card", to: [to], since: "install" as const }));
  await bench.start({ sources: [card], targets: [first, second] }, routes("first", "second"));
  await listed();
  // As it was noted when a route's targets had one time together.
  const { journal } = bench.daemon.engine;
  await journal.commit(() => {
    journal.setMeta("since:card:first,second", journal.meta("since:card:first") ?? "");
    journal.run("DELETE FROM meta WHERE key IN ('since:card:first', 'since:card:second')");
  });
  await bench.stop();
  card.put("between.bin", "between", Date.now());
  await sleep(20);
  await bench.start({ sources: [card], targets: [first, second, later] }, routes("later", "second", "first"));
  await listed();
  await until(bench, "delivered", () => first.files.size === 1 && second.files.size === 1);
  assert.equal(later.files.size, 0);
});

test("since install: what has no time and was there before stays left when the route changes", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const [out, all] = [new FakeDevice("out"), new FakeDevice("all")];
  card.timeless = true;
  for (const name of ["old.bin", "both/old.bin"]) card.put(name, "old");
  const devices = { sources: [card], targets: [out, all] };
  const other = { from: "card", to: ["all"], include: ["both/*"] };
  await bench.start(devices, [{ from: "card", to: ["out"], since: "install" }, other]);
  await until(bench, "the first listing", () => all.files.size === 1);
  await bench.stop();
  card.put("new.bin", "new");
  await bench.start(devices, [{ from: "card", to: ["out"], since: "install", exclude: ["no/*"] }, other]);
  await until(bench, "the new one", () => out.files.size > 0 && !bench.states("out").includes("wanting"));
  assert.deepEqual([...out.files.keys()], ["new.bin"]);
});

test("what status asks, and what looks for files that have gone, goes through no delivery that was made", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { inPlace: true });
  const [out, away] = [new FakeDevice("out"), new FakeDevice("away")];
  away.attach(false);
  card.put("a.bin", "twelve bytes");
  await bench.start({ sources: [card], targets: [out, away] }, [{ from: "card", to: ["out", "away"] }]);
  await until(bench, "delivered", () => bench.states("out")[0] === "done");
  const { journal } = bench.daemon.engine;
  const asked: { sql: string; values: readonly unknown[] }[] = [];
  const own = { all: journal.all.bind(journal), get: journal.get.bind(journal) };
  for (const [name, ask] of Object.entries(own))
    Object.assign(journal, {
      [name]: (sql: string, ...values: []): unknown => {
        asked.push({ sql, values });
        return ask(sql, ...values);
      },
    });
  assert.deepEqual(
    bench.daemon.status().bytes,
    { onSource: 12, here: 0, delivered: 12 },
    "read in place, there is no copy here; what waits for two targets counts once",
  );
  card.put("b.bin", "b");
  bench.daemon.engine.relist$.next("card");
  await until(bench, "looked for what has gone", () => asked.some(({ sql }) => sql.includes("released LIKE 'kept%'")));
  Object.assign(journal, own);
  const scans = asked.flatMap(({ sql, values }) =>
    journal
      .all<{ detail: string }>(`EXPLAIN QUERY PLAN ${sql}`, ...(values as []))
      .filter(({ detail }) => /^SCAN deliveries(?! USING .*INDEX deliveries_(wanting|ready|else|due|delivered)\b)/.test(detail)),
  );
  assert.deepEqual(scans, []);
});

test("a run that is to end does not wait for a pull that only a target would get which has left the configuration", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const [out, old] = [new FakeDevice("out"), new FakeDevice("old")];
  old.attach(false);
  card.put("a", "content");
  card.before = (call) => (call.startsWith("open") ? new Promise(() => undefined) : undefined);
  await bench.start({ sources: [card], targets: [out, old] }, [{ from: "card", to: ["old"] }]);
  await until(bench, "found", () => bench.states("old").length === 1);
  await bench.stop();
  card.before = () => undefined;
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], include: ["b"] }]);
  assert.equal((await bench.daemon.drained(AbortSignal.timeout(15_000))).waiting, 1);
});
