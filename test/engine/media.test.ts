/** Media that are changed in one device, and bytes that cannot be read: what core makes of it. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Fault } from "../../core/errors.js";
import { why } from "../../core/why.js";
import { Bench, FakeDevice, until } from "../fake-device.js";

const t0 = Date.UTC(2026, 4, 1);
const cardOf = (...files: readonly (readonly [path: string, bytes: Buffer, modifiedMs?: number])[]) =>
  new Map(files.map(([path, bytes, modifiedMs = t0]) => [path, { bytes, modifiedMs }]));

test("another medium is in: files of the first wait for it, none is lost, and reading goes on where it was", async (t) => {
  const bench = new Bench(t);
  const reader = new FakeDevice("reader", { chunk: 500_000 });
  const out = new FakeDevice("out");
  const [bytesA, bytesB] = [randomBytes(8_000_000), randomBytes(1000)];
  const a = cardOf(["1.JPG", bytesA]);
  const b = cardOf(["1.JPG", bytesB]);
  let pulled = false;
  reader.before = (call) => {
    if (call !== "read 1.JPG 6000000" || pulled) return;
    pulled = true;
    reader.insert("B", b);
    throw new Fault("offline", "it was pulled");
  };
  reader.insert("A", a);
  await bench.start({ sources: [reader], targets: [out] }, [{ from: "reader", to: ["out"] }]);
  await until(bench, "the second card's file", () => bench.states("out").join() === "done,wanting");
  assert.ok(out.files.get("1.JPG")?.bytes.equals(bytesB));
  assert.equal(bench.daemon.status().lost.length, 0);
  const waiting = bench.daemon.engine.journal.get<{ id: string }>("SELECT id FROM versions WHERE medium = 'A'");
  const reasons = await why(bench.daemon.engine, waiting?.id ?? "", true, new AbortController().signal);
  assert.match(reasons[0]?.reasons.find(({ code }) => code === "medium-away")?.text ?? "", /it is on A, which is not in reader now/);
  reader.insert("A", a);
  await until(bench, "the first card's file", () => bench.states("out").every((state) => state === "done"));
  const [other] = [...out.files.keys()].filter((path) => path !== "1.JPG");
  assert.match(other ?? "", /^1~[0-9a-f]{8}\.JPG$/);
  assert.ok(out.files.get(other ?? "")?.bytes.equals(bytesA));
  const opened = reader.calls.filter((call) => call.startsWith("open 1.JPG ")).map((call) => Number(call.split(" ")[2]));
  assert.ok(Math.max(...opened) >= 3 * 2 ** 20, `opened at ${opened.join(", ")}`);
});

test("a file is deleted on its own medium only, though another holds one of that name, size and time", async (t) => {
  const bench = new Bench(t);
  const reader = new FakeDevice("reader", { tree: true });
  const out = new FakeDevice("out");
  const [a, b] = [cardOf(["1.JPG", Buffer.alloc(1000, 1)]), cardOf(["1.JPG", Buffer.alloc(1000, 2)])];
  reader.insert("A", a);
  out.attach(false);
  await bench.start({ sources: [reader], targets: [out] }, [{ from: "reader", to: ["out"], afterDelivery: "delete" }]);
  await until(bench, "it is here", () => bench.states("out")[0] === "ready");
  reader.insert("B", b);
  await until(bench, "the second is here", () => bench.states("out").join() === "ready,ready");
  reader.insert(undefined);
  out.attach(true);
  await until(bench, "both are there", () => bench.states("out").join() === "done,done");
  assert.deepEqual([...out.files.values()].map(({ bytes }) => bytes[0]).sort(), [1, 2]);
  reader.insert("A", a);
  await until(bench, "it is deleted", () => reader.calls.includes("remove 1.JPG"));
  assert.equal(reader.files.size, 0);
  await bench.daemon.drained(AbortSignal.timeout(30_000));
  assert.equal(reader.calls.filter((call) => call.startsWith("remove")).length, 1);
});

test("a medium that was away while a route got another target is looked through for it, before anything is deleted there", async (t) => {
  const bench = new Bench(t);
  const reader = new FakeDevice("reader", { tree: true });
  const [out, later] = [new FakeDevice("out"), new FakeDevice("later")];
  const [a, b] = [cardOf(["a.JPG", randomBytes(1000)]), cardOf(["b.JPG", randomBytes(1000)])];
  const devices = { sources: [reader], targets: [out, later] };
  reader.insert("A", a);
  out.attach(false);
  later.attach(false);
  await bench.start(devices, [{ from: "reader", to: ["out"], afterDelivery: "delete" }]);
  await until(bench, "it is here", () => bench.states("out").join() === "ready");
  reader.insert("B", b);
  await bench.reload(devices, [{ from: "reader", to: ["out", "later"], afterDelivery: "delete" }]);
  await until(bench, "the second is here", () => bench.states("later").join() === "ready");
  out.attach(true);
  await until(bench, "both are at the first target", () => bench.states("out").join() === "done,done");
  reader.insert("A", a);
  await until(bench, "the first is for the new target, too", () => bench.states("later").length === 2);
  assert.deepEqual([...reader.files.keys()], ["a.JPG"]);
  later.attach(true);
  await until(bench, "it is deleted", () => reader.files.size === 0);
  assert.deepEqual([...later.files.keys()].sort(), ["a.JPG", "b.JPG"]);
});

test("what is in a directory that cannot be read while a route gets another target goes there once it can, before anything is deleted", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  const [out, later] = [new FakeDevice("out"), new FakeDevice("later")];
  const devices = { sources: [card], targets: [out, later] };
  const listed = async () => {
    const { engine } = bench.daemon;
    const before = engine.finders.get("card")?.listings ?? 0;
    engine.relist$.next("card");
    await until(bench, "listed", () => (engine.finders.get("card")?.listings ?? 0) > before);
  };
  card.put("d/a.bin", "a");
  card.put("b.bin", "b");
  out.attach(false);
  await bench.start(devices, [{ from: "card", to: ["out"], afterDelivery: "delete" }]);
  await until(bench, "they are here", () => bench.states("out").join() === "ready,ready");
  const hidden = card.files.get("d/a.bin");
  const closed = { path: "d", kind: "unreadable" as const, size: 0, reason: "permission denied" };
  const hide = () => {
    card.files.delete("d/a.bin");
    card.besides = [closed, { ...closed, path: "lost+found" }];
  };
  hide();
  await bench.reload(devices, [{ from: "card", to: ["out", "later"], afterDelivery: "delete" }]);
  await until(bench, "what can be read is for the new target", () => bench.states("later").length === 1);
  later.attach(false);
  out.attach(true);
  await until(bench, "all at the first", () => bench.states("out").join() === "done,done");
  await listed();
  later.attach(true);
  await until(bench, "what could be read is deleted", () => !card.files.has("b.bin"));
  // The daemon is started anew meanwhile.
  await bench.stop();
  await bench.start(devices, [{ from: "card", to: ["out", "later"], afterDelivery: "delete" }]);
  await listed();
  later.attach(false);
  if (hidden !== undefined) card.files.set("d/a.bin", hidden);
  card.besides = [{ ...closed, path: "lost+found" }];
  await listed();
  await until(bench, "the other is for the new target, too", () => bench.states("later").length === 2);
  assert.ok(card.files.has("d/a.bin"));
  later.attach(true);
  await until(bench, "it is deleted", () => card.files.size === 0);
  assert.deepEqual([...later.files.keys()].sort(), ["b.bin", "d/a.bin"]);
});

test("a journal that was lost knows from the receipts on which medium a file was", async (t) => {
  const bench = new Bench(t);
  const reader = new FakeDevice("reader");
  const out = new FakeDevice("out");
  const same = [1000, t0] as const;
  const [a, b] = [cardOf(["1.JPG", Buffer.alloc(same[0], 1)]), cardOf(["1.JPG", Buffer.alloc(same[0], 2)])];
  const start = () => bench.start({ sources: [reader], targets: [out] }, [{ from: "reader", to: ["out"] }]);
  reader.insert("A", a);
  await start();
  // Said once the receipt is durable.
  await until(bench, "delivery", () => bench.events.some(({ what }) => what === "delivered"));
  await bench.kill();
  rmSync(join(bench.dir, "journal.db"));
  rmSync(join(bench.dir, "journal.db-wal"), { force: true });
  const before = out.calls.filter((call) => call.startsWith("write")).length;
  await start();
  const listed = () => bench.daemon.engine.finders.get("reader")?.listings ?? 0;
  await until(bench, "a listing", () => listed() > 0);
  assert.deepEqual(bench.states("out"), ["done"]);
  assert.equal(out.calls.filter((call) => call.startsWith("write")).length, before);
  reader.insert("B", b);
  await until(bench, "the other card's file", () => bench.states("out").join() === "done,done");
  assert.equal(out.files.size, 2);
});

test("what waits for a medium that is not in does not hold up a drain", async (t) => {
  const bench = new Bench(t);
  const reader = new FakeDevice("reader");
  const out = new FakeDevice("out");
  reader.insert("A", cardOf(["1.JPG", Buffer.alloc(1000, 1)]));
  reader.before = (call) => {
    if (!call.startsWith("open")) return;
    reader.insert("B", cardOf(["2.JPG", Buffer.alloc(10)]));
    reader.before = () => undefined;
    throw new Fault("offline", "it was pulled");
  };
  await bench.start({ sources: [reader], targets: [out] }, [{ from: "reader", to: ["out"] }]);
  await until(bench, "the second card's file", () => bench.states("out").includes("done"));
  assert.deepEqual(await bench.daemon.drained(AbortSignal.timeout(30_000)), {
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

test("bytes that cannot be read set aside one file; another attachment tries it again, from where it was", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { chunk: 500_000 });
  const out = new FakeDevice("out");
  card.put("bad.bin", randomBytes(8_000_000), t0);
  card.put("good.bin", randomBytes(1000), t0);
  card.before = (call) => {
    if (call === "read bad.bin 5000000") throw new Fault("unreadable", "it cannot be read at byte 5000000 of 8000000");
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "both", () => bench.states("out").join() === "parked,done" && bench.events.some(({ what }) => what === "parked"));
  assert.match(
    bench.events.find(({ what }) => what === "parked")?.message ?? "",
    /card:bad\.bin: set aside: it cannot be read at byte 5000000/,
  );
  card.before = () => undefined;
  card.attach(true);
  await until(bench, "it arrives", () => bench.states("out").join() === "done,done");
  const opened = card.calls.filter((call) => call.startsWith("open bad.bin")).at(-1);
  assert.ok(Number(opened?.split(" ")[2]) >= 5_000_000, opened);
});

test("what came of a file before it went is kept until that file is whole here, though it is found anew; not where it was another", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { chunk: 500_000 });
  const out = new FakeDevice("out");
  const [same, other] = [randomBytes(8_000_000), randomBytes(8_000_000)];
  const put = (rest: Buffer) => [same, rest].forEach((bytes, n) => card.put(`${n}.bin`, bytes, t0));
  put(other);
  const gone = new Set(["0.bin", "1.bin"]);
  card.before = (call) => {
    const [, name = ""] = /^read (.*) 6000000$/.exec(call) ?? [];
    if (!gone.delete(name)) return;
    card.files.delete(name);
    throw new Fault("missing", `${name} is not there`);
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "both are lost", () => bench.events.filter(({ what }) => what === "lost").length === 2);
  const aside = () => readdirSync(join(bench.dir, "damaged"));
  assert.equal(aside().length, 2);
  put(randomBytes(8_000_000));
  card.attach(true);
  await until(bench, "both are there, and one of what was kept has gone", () => out.files.size === 2 && aside().length < 2);
  const [left = ""] = aside();
  assert.ok(other.subarray(0, 6_000_000).includes(readFileSync(join(bench.dir, "damaged", left)).subarray(0, 1000)));
});

test("a device hears that nothing more is wanted of it: not before all is here, and not while it is sent to", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { concurrency: 1 });
  const out = new FakeDevice("out");
  let go: () => void = () => undefined;
  const held = new Promise<void>((resolve) => (go = resolve));
  card.before = (call) => (call.startsWith("read 1.bin") ? held : undefined);
  card.put("1.bin", randomBytes(1000), t0);
  card.put("2.bin", randomBytes(1000), t0 + 1000);
  out.attach(false);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "the first is here", () => bench.states("out").includes("ready"));
  await until(bench, "the other is read", () => card.calls.includes("open 1.bin 0"));
  // Longer than it takes to be told.
  await new Promise((resolve) => setTimeout(resolve, 500));
  assert.equal(card.rests, 0);
  go();
  await until(bench, "rest", () => card.rests > 0);
  assert.deepEqual(bench.states("out"), ["ready", "ready"]);
  const before = out.rests;
  let done: () => void = () => undefined;
  const writing = new Promise<void>((resolve) => (done = resolve));
  out.before = (call) => (call.startsWith("write") ? writing : undefined);
  out.attach(true);
  await until(bench, "a write", () => out.calls.some((call) => call.startsWith("write")));
  await new Promise((resolve) => setTimeout(resolve, 500));
  assert.equal(out.rests, before);
  done();
  await until(bench, "rest", () => out.rests > before);
});

test("a device of which a file is read to its end, and sent already, hears nothing before that is durable here", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  card.put("a.bin", randomBytes(5_000_000));
  card.attach(false);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  const { spool } = bench.daemon.engine;
  let go = (): void => undefined;
  const slow = new Promise<void>((resolve) => (go = resolve));
  const write = spool.writeSidecar.bind(spool);
  spool.writeSidecar = (sidecar) => slow.then(() => write(sidecar));
  card.attach(true);
  await until(bench, "it is sent", () => bench.states("out")[0] === "active");
  await new Promise((resolve) => setTimeout(resolve, 500));
  assert.equal(card.rests, 0);
  go();
  await until(bench, "rest", () => card.rests > 0);
});

test("bytes that came right before a break are read again where they are in doubt, and nothing begins from the first", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { chunk: 500_000, doubtedBytes: 2 ** 20 });
  const out = new FakeDevice("out");
  const good = randomBytes(8_000_000);
  const torn = Buffer.from(good);
  torn.fill(0, 5_700_000, 6_000_000);
  card.put("a.bin", torn, t0);
  card.before = (call) => {
    if (call !== "read a.bin 6000000") return;
    card.before = () => undefined;
    card.put("a.bin", good, t0);
    throw new Fault("offline", "it was pulled");
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "it arrives", () => bench.states("out")[0] === "done");
  assert.ok(out.files.get("a.bin")?.bytes.equals(good));
  assert.equal(bench.events.filter(({ what }) => what === "restarted").length, 0);
  const at = Number(/goes on at byte (\d+)/.exec(bench.events.find(({ what }) => what === "resumed")?.message ?? "")?.[1]);
  assert.ok(at > 2_000_000 && at <= 5_700_000, `it went on at ${at}`);
});

test("a card comes back with another content of the same size and time: it is fetched once that is seen, and before it may be pulled", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  const out = new FakeDevice("out");
  out.attach(false);
  card.insert("card-1", new Map([["a.bin", { bytes: Buffer.from("before"), modifiedMs: t0 }]]));
  const routes = [{ from: "card", to: ["out"], afterDelivery: "delete" }] as const;
  // It is listed when it is plugged in, and not again by itself.
  await bench.start({ sources: [card], targets: [out] }, routes, { device: { intervalMs: Infinity } });
  await until(bench, "it is here, and it may be pulled", () => bench.states("out")[0] === "ready" && card.rests > 0);
  card.insert(undefined);
  await until(bench, "it is out", () => bench.events.some(({ what }) => what === "detached"));
  card.insert("card-1", new Map([["a.bin", { bytes: Buffer.from("behind"), modifiedMs: t0 }]]));
  let arrived: readonly string[] | undefined;
  const seen = () => [...out.files.values()].map(({ bytes }) => bytes.toString()).sort();
  await until(bench, "it may be pulled", () => card.rests > 1);
  out.attach(true);
  await until(bench, "it is seen to be another", () => bench.events.some(({ message }) => message.includes("another content")));
  const before = card.rests;
  await until(bench, "it may be pulled", () => {
    if (card.rests > before) arrived ??= seen();
    return arrived !== undefined;
  });
  await until(bench, "it is deleted", () => card.files.size === 0);
  assert.deepEqual(seen(), ["before", "behind"]);
});

test("an archive that its server hides is no archive in another case", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  const files = new Map([["a.bin", { bytes: Buffer.from("a"), modifiedMs: t0 }]]);
  card.insert("card-1", files);
  card.files.get = (path) => (path === "archive" ? { bytes: Buffer.alloc(0), modifiedMs: t0 } : files.get(path));
  const routes = [{ from: "card", to: ["out"], afterDelivery: "archive" }] as const;
  await bench.start({ sources: [card], targets: [new FakeDevice("out")] }, routes, { device: { archiveDir: "archive" } });
  await until(bench, "it is archived", () => card.calls.includes("move a.bin archive/a.bin"));
});

for (const [archiveDir, there] of [
  ["Größe", "Größe".normalize("NFD")],
  ["done.", "done"],
] as const)
  test(`an archive that is there in another form of its name (${JSON.stringify(there)}) is told, too: what is in it would be found as new`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card", { tree: true });
    const files = new Map([["a.bin", { bytes: Buffer.from("a"), modifiedMs: t0 }]]);
    card.insert("card-1", files);
    card.besides = [{ path: there, kind: "directory", size: 0, medium: "card-1" }];
    card.files.get = (path) => (path === archiveDir ? { bytes: Buffer.alloc(0), modifiedMs: t0 } : files.get(path));
    const routes = [{ from: "card", to: ["out"], afterDelivery: "archive" }] as const;
    await bench.start({ sources: [card], targets: [new FakeDevice("out")] }, routes, { device: { archiveDir } });
    const failed = () => [...bench.daemon.engine.queue.releasable.values()].flatMap((it) => it.failed ?? []);
    await until(bench, "it was tried", () => failed().length === 1);
    assert.match(failed()[0] ?? "", /is there as/);
  });

test("a card that lets nothing be deleted (its lock) is compared once while it is in, not read anew at each try", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  card.insert("card-1", new Map([["a.bin", { bytes: Buffer.from("a"), modifiedMs: t0 }]]));
  card.before = (call) => {
    if (call.startsWith("remove")) throw new Fault("denied", "read-only file system");
    return undefined;
  };
  const routes = [{ from: "card", to: ["out"], afterDelivery: "delete" }] as const;
  await bench.start({ sources: [card], targets: [new FakeDevice("out")] }, routes);
  const { engine } = bench.daemon;
  const begun = (what: string) => card.calls.filter((call) => call.startsWith(what)).length;
  const tried = async (times: number) => {
    await until(bench, `try ${times}`, () => begun("remove") === times && engine.queue.releasing.size === 0);
    engine.queue.releaseNow("card");
    engine.work$.next();
  };
  for (let times = 1; times <= 3; times++) await tried(times);
  assert.equal(begun("open"), 2, "once to fetch it, once to compare it");
  // Another card may have its name.
  card.insert("card-1", new Map([["a.bin", { bytes: Buffer.from("b"), modifiedMs: t0 }]]));
  await until(bench, "it is another", () => bench.events.some(({ message }) => message.includes("the source has another content")));
});

test("an archive that is there in another case is looked at once for all files, and none is read for that", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  const out = new FakeDevice("out");
  const names = Array.from({ length: 20 }, (_, n) => `${n}.bin`);
  const files = new Map(names.map((name) => [name, { bytes: Buffer.from(name), modifiedMs: t0 }]));
  card.insert("card-1", files);
  card.besides = [{ path: "Archive", kind: "directory", size: 0, medium: "card-1" }];
  card.files.get = (path) => (path === "archive" ? { bytes: Buffer.alloc(0), modifiedMs: t0 } : files.get(path));
  const routes = [{ from: "card", to: ["out"], afterDelivery: "archive" }] as const;
  await bench.start({ sources: [card], targets: [out] }, routes, { device: { archiveDir: "archive", intervalMs: Infinity } });
  const failed = () => [...bench.daemon.engine.queue.releasable.values()].flatMap((it) => it.failed ?? []);
  await until(bench, "each is refused", () => failed().length === names.length);
  assert.match(failed()[0] ?? "", /its archive archive is there as Archive/);
  assert.equal(card.calls.filter((call) => call.startsWith("open")).length, names.length);
  const listed = card.calls.filter((call) => call === "list").length;
  assert.ok(listed <= 4, `it was listed ${listed} times`);
});

for (const size of [1000, 2000])
  test(`another medium that comes in while what was delivered is compared, with a file of ${size} bytes of that name: it says nothing of the first`, async (t) => {
    const bench = new Bench(t);
    const [card, out] = [new FakeDevice("card", { tree: true }), new FakeDevice("out")];
    const file = (bytes: number) => new Map([["a.bin", { bytes: randomBytes(bytes), modifiedMs: Date.UTC(2026, 4, 1) }]]);
    const first = file(1000);
    card.insert("A", first);
    let isOther = false;
    card.before = (call) => {
      if (call !== "stat a.bin" || out.files.size === 0 || isOther) return undefined;
      isOther = true;
      card.insert("B", file(size));
      return undefined;
    };
    await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], afterDelivery: "delete" }]);
    await until(bench, "the other is taken away", () => isOther && card.medium === "B" && card.files.size === 0);
    card.insert("A", first);
    await until(bench, "the first is taken away", () => card.files.size === 0);
    assert.equal(out.files.size, 2);
  });
