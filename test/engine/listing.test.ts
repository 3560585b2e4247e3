/** When a source is listed: what asks for it, and how long it is left alone. */
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Fault } from "../../core/errors.js";
import { giveUp } from "../../core/space.js";
import { why } from "../../core/why.js";
import type { Value } from "../../core/sqlite.js";
import { Bench, FakeDevice, sha256, until } from "../fake-device.js";
import { PostBox } from "../post-box.js";

test("a source is listed once when it attaches, and left alone afterwards for as long as that took", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  let aheadMs = 0;
  bench.clock.monotonicMs = () => performance.now() + aheadMs;
  card.before = async (call) => {
    if (call !== "list") return;
    // Timers of no time at all have ended by then.
    await sleep(10);
    aheadMs += 3600_000;
  };
  await bench.start({ sources: [card], targets: [new FakeDevice("out")] }, [{ from: "card", to: ["out"] }], { device: { intervalMs: 1 } });
  const finder = bench.daemon.engine.finders.get("card");
  const lists = () => card.calls.filter((call) => call === "list").length;
  await until(bench, "the first listing", () => finder?.listings === 1);
  await sleep(10);
  assert.deepEqual([lists(), finder?.busy], [1, false]);
  bench.daemon.engine.relist$.next("card");
  await until(bench, "what asks for it is listed at once", () => finder?.listings === 2);
});

test("what only a route is new for is told as known, not as new files", async (t) => {
  const bench = new Bench(t);
  const [card, out, second] = [new FakeDevice("card"), new FakeDevice("out"), new FakeDevice("second")];
  const settled = { device: { intervalMs: Infinity, settleMs: 0 } };
  const told = () =>
    bench.events.flatMap(({ what, level, message, facts }) =>
      (what === "found" || what === "listed") && level === "info" ? [`${what}: ${message} (${String(facts?.["count"])})`] : [],
    );
  for (const name of ["a", "b"]) card.put(name, name, Date.UTC(2026, 4, 1));
  await bench.start({ sources: [card], targets: [out, second] }, [{ from: "card", to: ["out"] }], settled);
  await until(bench, "both are there", () => bench.states("out").join() === "done,done");
  assert.deepEqual(told(), ["found: card: 2 new files (2)"]);
  card.put("c", "c", Date.UTC(2026, 4, 2));
  await bench.reload({ sources: [card], targets: [out, second] }, [{ from: "card", to: ["out", "second"] }], settled);
  await until(bench, "all are there", () => bench.states("second").join() === "done,done,done");
  assert.deepEqual(told().slice(1), ["found: card: 1 new file (1)", "listed: card: 2 known files go to more targets (2)"]);
});

test("what hints that a source has changed is listed at once, or, where that took long a moment ago, once it was left alone", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  let [aheadMs, tookMs] = [0, 0];
  bench.clock.monotonicMs = () => performance.now() + aheadMs;
  card.before = (call) => {
    if (call === "list") aheadMs += tookMs;
    return Promise.resolve();
  };
  await bench.start({ sources: [card], targets: [new FakeDevice("out")] }, [{ from: "card", to: ["out"] }], {
    device: { intervalMs: Infinity },
  });
  const finder = bench.daemon.engine.finders.get("card");
  await until(bench, "the first listing", () => finder?.listings === 1);
  card.changes$.next();
  await until(bench, "a hint", () => finder?.listings === 2);
  tookMs = 3600_000;
  bench.daemon.engine.relist$.next("card");
  await until(bench, "one that takes an hour", () => finder?.listings === 3 && !finder.busy);
  for (let i = 0; i < 10; i++) {
    card.changes$.next();
    await sleep(2);
  }
  assert.deepEqual([finder?.listings, finder?.busy], [3, false]);
});

for (const timeless of [true, false])
  for (const inPlace of [false, true])
    test(`what was taken away at its source and is there again is another file (${timeless ? "no" : "the same"} time, ${inPlace ? "read in place" : "by the spool"})`, async (t) => {
      const bench = new Bench(t);
      const card = new FakeDevice("card", { tree: true, inPlace });
      card.timeless = timeless;
      const out = new FakeDevice("out");
      card.put("00000001.BIN", "the first");
      await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], afterDelivery: "delete" }]);
      const contents = () => [...out.files.values()].map(({ bytes }) => bytes.toString()).sort();
      const taken = (n: number) => until(bench, `taken away: ${n}`, () => card.files.size === 0 && contents().length === n);
      await taken(1);
      for (const [n, content] of ["the other", "one more."].entries()) {
        card.put("00000001.BIN", content);
        bench.daemon.engine.relist$.next("card");
        await taken(n + 2);
      }
      assert.deepEqual(contents(), ["one more.", "the first", "the other"]);
      assert.equal(out.files.get("00000001.BIN")?.bytes.toString(), "the first");
    });

for (const after of ["keep", "delete"] as const)
  test(`another file that looks the same, of which a new target asks first, is no more of the one before: ${after}`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card", { tree: true });
    card.timeless = true;
    const [out, box] = [new FakeDevice("out"), new PostBox("box")];
    card.put("00000001.BIN", "the first");
    await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], afterDelivery: after }]);
    await until(bench, "delivered", () => out.files.size === 1 && card.files.size === (after === "keep" ? 1 : 0));
    const { engine } = bench.daemon;
    for (const { id } of engine.journal.all<{ id: string }>("SELECT id FROM versions")) {
      const version = engine.queue.version(id);
      assert.ok(version !== undefined && (await giveUp(engine, version, "delivered")));
    }
    await bench.stop();
    card.put("00000001.BIN", "the other");
    // Whoever only compares is slower than the pull.
    const compares = after === "delete";
    const before = bench.events.length;
    const pullEnds = () => bench.events.slice(before).some(({ what }) => what === "pulled" || what === "changed");
    let opened = 0;
    card.before = (call) => (compares && call.startsWith("open ") && opened++ === 0 ? until(bench, "the pull ends", pullEnds) : undefined);
    await bench.start({ sources: [card], targets: [out, box] }, [{ from: "card", to: ["out", "box"], afterDelivery: after }]);
    const contents = () => [...out.files.values()].map(({ bytes }) => bytes.toString()).sort();
    await until(bench, "the other is there, too", () => contents().length === 2);
    await until(bench, "posted", () => !/ready|wanting|active/.test(bench.states("box").join()));
    assert.deepEqual(contents(), ["the first", "the other"]);
    assert.deepEqual(
      box.posts.map(({ bytes }) => bytes.toString()),
      ["the other"],
    );
  });

/** A card whose a.bin was delivered, and deleted (or archived) there, by a run that has ended; `start` begins another. */
async function takenAway(
  t: TestContext,
  content: string,
  {
    intervalMs = 600_000,
    timeless = false,
    after = "delete",
    ...given
  }: ConstructorParameters<typeof FakeDevice>[1] & { intervalMs?: number; timeless?: boolean; after?: "delete" | "archive" } = {},
) {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true, ...given });
  card.timeless = timeless;
  const out = new FakeDevice("out");
  card.put("a.bin", content);
  const start = (device: { settleMs?: number } = {}) =>
    bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], afterDelivery: after }], {
      device: { intervalMs, archiveDir: "archive", ...device },
    });
  await start();
  await until(bench, "taken away", () => !card.files.has("a.bin"));
  await bench.stop();
  bench.events.length = 0;
  const released = () => bench.daemon.engine.journal.get<{ released: string | null }>("SELECT released FROM versions")?.released ?? null;
  const list = async (settling = false) => {
    const finder = bench.daemon.engine.finders.get("card");
    const { listings = 0 } = finder ?? {};
    bench.daemon.engine.relist$.next("card");
    await until(bench, "listed", () => (finder?.listings ?? 0) > listings && (settling || !finder?.busy));
  };
  return { bench, card, out, start, released, list };
}

/** Of a target: how often something was written or given its name. */
const sendings = ({ calls }: FakeDevice) => calls.filter((call) => /^(write|commit)/.test(call)).length;

for (const inPlace of [false, true])
  test(`what is back as it was, and its target has lost, is sent to nobody again, and stays (${inPlace ? "read in place" : "by the spool"})`, async (t) => {
    const { bench, card, out, start, released, list } = await takenAway(t, "a", { inPlace });
    const asked = sendings(out);
    // Its medium forgot that, and nobody was there to see it.
    card.put("a.bin", "a");
    out.files.clear();
    await start();
    await until(bench, "kept", () => released() === "kept: it was taken away there, and is there again as it was");
    assert.equal(bench.daemon.status().unreleased, 1);
    const reads = () => card.calls.filter((call) => call.startsWith("open a.bin")).length;
    const before = reads();
    await list();
    assert.equal(reads(), before, "what is known is not read again");
    assert.equal(sendings(out), asked);
    assert.deepEqual([card.files.size, bench.daemon.engine.journal.all("SELECT id FROM versions").length], [1, 1]);
    // A person took it away, and its name is used again.
    card.files.clear();
    await list();
    card.put("a.bin", "b");
    await list();
    await until(bench, "the other has been sent, and taken away", () => out.files.size === 1 && card.files.size === 0);
  });

for (const { timeless, inPlace, after } of [
  { timeless: false, inPlace: true, after: "delete" },
  { timeless: true, inPlace: false, after: "delete" },
  { timeless: false, inPlace: false, after: "archive" },
] as const)
  test(`what is back as it was is sent to nobody again, and goes as before while its target holds it (${after}, ${timeless ? "no time, " : ""}${inPlace ? "read in place" : "by the spool"})`, async (t) => {
    const { bench, card, out, start, released } = await takenAway(t, "a", { inPlace, timeless, after });
    const asked = sendings(out);
    card.put("a.bin", "a");
    await start();
    await until(bench, "taken away again", () => !card.files.has("a.bin") && released() !== null);
    assert.match(released() ?? "", after === "delete" ? /^deleted at/ : /^moved to archive\/a~/);
    assert.equal(sendings(out), asked);
    assert.equal(bench.daemon.status().unreleased, 0);
    assert.equal(bench.events.filter(({ level }) => level === "warn").length, 0);
  });

test("what is back as it was goes as before once its target, which was away, says that it holds it", async (t) => {
  const { bench, card, out, start, released, list } = await takenAway(t, "a");
  let aheadMs = 0;
  bench.clock.monotonicMs = () => performance.now() + aheadMs;
  const asked = sendings(out);
  card.put("a.bin", "a");
  out.before = (call) => (call.startsWith("look ") ? Promise.reject(new Fault("offline", "no answer")) : undefined);
  await start();
  await until(bench, "kept", () => bench.events.some(({ message }) => message.endsWith("is there again as it was")));
  out.before = () => undefined;
  await list();
  assert.equal(card.files.size, 1, "it is not asked all the time");
  aheadMs += 600_000;
  await list();
  await until(bench, "taken away again", () => card.files.size === 0 && released() === "deleted at its source");
  assert.equal(sendings(out), asked);
});

for (const what of ["no target is required any more", "another content was delivered to one that is required"])
  test(`what is back as it was stays where ${what}`, async (t) => {
    const { bench, card, out, start, released } = await takenAway(t, "a");
    card.put("a.bin", "a");
    out.put("b.bin", "b");
    let go: () => void = () => undefined;
    const held = new Promise<void>((resolve) => (go = resolve));
    card.before = (call) => (call.startsWith("open ") ? held : undefined);
    await start();
    const { journal } = bench.daemon.engine;
    const [row] = journal.all<Record<string, Value> & { receipt: string }>("SELECT * FROM deliveries");
    await journal.commit(() => {
      if (row === undefined || what.startsWith("no ")) return void journal.run("UPDATE deliveries SET required = 0");
      const receipt = JSON.stringify({ ...(JSON.parse(row.receipt) as object), path: "b.bin", digest: sha256(Buffer.from("b")) });
      const other = { ...row, id: "other", path: "b.bin", receipt };
      const columns = Object.keys(other);
      journal.run(`INSERT INTO deliveries (${columns.join(", ")}) VALUES (${columns.map(() => "?").join(", ")})`, ...Object.values(other));
    });
    go();
    await until(bench, "told", () => bench.events.some(({ what }) => what === "released"));
    assert.equal(released(), "kept: it was taken away there, and is there again as it was");
    assert.equal(card.files.size, 1);
  });

test("what is back as it was goes as before also where the run ended before its target was asked", async (t) => {
  const { bench, card, out, start, released, list } = await takenAway(t, "a");
  const asked = sendings(out);
  card.put("a.bin", "a");
  let looks = 0;
  out.before = (call) => (call.startsWith("look ") && looks++ === 0 ? new Promise(() => undefined) : undefined);
  await start();
  await until(bench, "asked", () => looks === 1);
  await bench.kill();
  await start();
  await list();
  await until(bench, "taken away again", () => card.files.size === 0 && released() === "deleted at its source");
  assert.equal(sendings(out), asked);
});

test("what is back as it was, and another by the time its target was asked, is compared before it goes", async (t) => {
  const { bench, card, out, start, list } = await takenAway(t, "a", { timeless: true });
  card.put("a.bin", "a");
  out.before = (call) => {
    if (call.startsWith("look ")) card.put("a.bin", "b");
    return undefined;
  };
  await start();
  await until(bench, "kept", () => bench.events.some(({ message }) => message.includes("another content")));
  await list();
  await until(bench, "the other is there", () => [...out.files.values()].some(({ bytes }) => bytes.toString() === "b"));
  await until(bench, "taken away", () => card.files.size === 0);
  assert.equal(out.files.size, 2);
});

test("while a target does not answer whether it holds what is back, another file that is back under its name is found all the same", async (t) => {
  const { bench, card, out, start } = await takenAway(t, "a");
  card.put("b.bin", "b");
  await start();
  await until(bench, "taken away", () => card.files.size === 0);
  await bench.stop();
  card.put("a.bin", "a");
  out.before = (call) => (call === "look a.bin" ? new Promise(() => undefined) : undefined);
  await start();
  await until(bench, "asked", () => out.calls.at(-1) === "look a.bin");
  card.put("b.bin", "c");
  bench.daemon.engine.relist$.next("card");
  await until(bench, "the other arrives", () => [...out.files.values()].some(({ bytes }) => bytes.toString() === "c"));
  const [version] = bench.daemon.engine.journal.all<{ id: string }>("SELECT id FROM versions WHERE path = 'a.bin'");
  assert.match(
    JSON.stringify(await why(bench.daemon.engine, version?.id ?? "", true, AbortSignal.timeout(5000))),
    /its targets are asked whether they hold it/,
  );
  assert.deepEqual([bench.daemon.status().rereading, bench.daemon.engine.finders.get("card")?.busy], [0, true]);
  assert.equal(card.files.has("a.bin"), true);
});

test("a target that breaks when it is asked whether it holds what is back is no fault of the source, nor of the file, and is asked again later", async (t) => {
  const { bench, card, out, start, list } = await takenAway(t, "a");
  let aheadMs = 0;
  bench.clock.monotonicMs = () => performance.now() + aheadMs;
  card.put("a.bin", "a");
  out.before = (call) => (call.startsWith("look ") ? Promise.reject(new TypeError("a defect")) : undefined);
  await start();
  await until(bench, "kept", () => bench.events.some(({ message }) => message.endsWith("is there again as it was")));
  await list();
  assert.deepEqual(
    bench.events.filter(({ level, what }) => level === "warn" && what !== "released").map(({ message }) => message),
    [],
  );
  out.before = () => undefined;
  aheadMs += 600_000;
  await list();
  await until(bench, "taken away again", () => card.files.size === 0);
});

test("what is back each time that it was taken away goes at once some times, and then now and then: its targets are not asked all the time", async (t) => {
  const { bench, card, out, start, released, list } = await takenAway(t, "a");
  let aheadMs = 0;
  bench.clock.monotonicMs = () => performance.now() + aheadMs;
  const looks = () => out.calls.filter((call) => call.startsWith("look ")).length;
  const before = looks();
  const comesBack = async () => {
    await until(bench, "its record is made", () => released() === null || released()?.startsWith("deleted") === true);
    card.put("a.bin", "a");
    await list();
  };
  card.put("a.bin", "a");
  await start();
  for (const times of [1, 2, 3]) {
    await until(bench, "taken away again", () => !card.files.has("a.bin") && released()?.startsWith("deleted") === true);
    assert.equal(looks() - before, times);
    await comesBack();
  }
  await until(bench, "kept", () => released()?.startsWith("kept") === true);
  await list();
  assert.deepEqual([looks() - before, card.files.size], [3, 1]);
  aheadMs += 600_000;
  await list();
  await until(bench, "taken away again", () => card.files.size === 0);
  assert.equal(looks() - before, 4);
});

test("another file in the place of what is back, and stayed, is not told to be deleted again while it has not settled", async (t) => {
  const { bench, card, out, start, list } = await takenAway(t, "a");
  card.put("a.bin", "a");
  out.before = (call) => (call.startsWith("look ") ? Promise.reject(new Fault("offline", "no answer")) : undefined);
  await start();
  await until(bench, "kept", () => bench.events.some(({ message }) => message.endsWith("is there again as it was")));
  await bench.stop();
  out.before = () => undefined;
  bench.events.length = 0;
  card.settles = false;
  card.put("a.bin", "another");
  await start({ settleMs: 600_000 });
  await list(true);
  await list(true);
  assert.deepEqual(
    bench.events.filter(({ what }) => what === "released").map(({ message }) => message),
    [],
  );
});

for (const kind of ["unreadable", "denied"] as const)
  test(`what is back and cannot be read (${kind}) is told, and keeps nothing else waiting`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card", { tree: true });
    const out = new FakeDevice("out");
    card.put("a.bin", "the first");
    const start = () =>
      bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], afterDelivery: "delete" }], {
        device: { intervalMs: 50 },
      });
    await start();
    const isReleased = () => bench.events.some(({ what }) => what === "released");
    await until(bench, "taken away", isReleased);
    await bench.stop();
    card.put("a.bin", "the other");
    card.before = (call) => (call.startsWith("open a.bin") ? Promise.reject(new Fault(kind, "no way to read it")) : undefined);
    await start();
    await until(bench, "told", () => bench.daemon.status().summary.endsWith("; 1 path is left out at the source"));
    const [file] = await why(bench.daemon.engine, "a.bin", true, AbortSignal.timeout(5000));
    assert.match(file?.reasons.at(-1)?.text ?? "", /deleted at its source; it is there again .* cannot be read: no way to read it/);
    card.put("b.bin", "more");
    await until(bench, "what else is there arrives", () => out.files.has("b.bin"));
  });

test("what is back at its source is read while nothing else is to be fetched there, and gone on with after that, and after a break", async (t) => {
  const content = "0123456789".repeat(10);
  const { bench, card, out, start } = await takenAway(t, content, { intervalMs: 50, concurrency: 1, chunk: 10 });
  card.put("a.bin", content);
  card.calls.length = 0;
  let isBroken = false;
  card.before = async (call) => {
    if (call === "read a.bin 30") {
      card.put("b.bin", "a crash log");
      bench.daemon.engine.relist$.next("card");
      await until(bench, "seen", () => bench.events.some(({ message }) => message.includes("1 new file")));
    }
    // Until it was looked whether something waits for the place.
    if (/^read a.bin [3-6]0$/.test(call) && !out.files.has("b.bin")) await sleep(100);
    if (call === "read a.bin 80" && !isBroken) {
      isBroken = true;
      throw new Fault("transient", "the link is lost");
    }
  };
  bench.events.length = 0;
  await start();
  await until(bench, "it is read", () => card.calls.some((call) => call.startsWith("open a.bin")));
  assert.equal(bench.daemon.status().rereading, 1);
  assert.match(bench.daemon.status().summary, /; 1 file is there again at the source, and read to see whether it is another$/);
  await until(bench, "taken away", () => card.files.size === 0);
  assert.equal(out.files.get("b.bin")?.bytes.toString(), "a crash log");
  const opened = card.calls.filter((call) => call.startsWith("open ")).map((call) => call.split(" ").slice(1).join(" "));
  const [first, other, again, last] = opened;
  assert.deepEqual([first, other, last, opened.length], ["a.bin 0", "b.bin 0", "a.bin 80", 4], opened.join(", "));
  assert.match(again ?? "", /^a.bin [4-7]0$/);
  assert.equal(bench.daemon.status().rereading, 0);
});

test("another that takes the place of what is back while reading it has a break is found as another, and what is as it was is not", async (t) => {
  for (const [before, after, contents] of [
    ["0123456789", "abcdefghij", 2],
    ["abcdefghij", "0123456789", 1],
  ] as const) {
    const { bench, card, out, start } = await takenAway(t, "0123456789".repeat(10), { intervalMs: 50, chunk: 10 });
    card.put("a.bin", before.repeat(10));
    let isBroken = false;
    card.before = (call) => {
      if (call !== "read a.bin 50" || isBroken) return undefined;
      isBroken = true;
      card.put("a.bin", after.repeat(10));
      return Promise.reject(new Fault("transient", "the link is lost"));
    };
    await start();
    await until(bench, "taken away", () => card.files.size === 0);
    assert.equal(out.files.size, contents);
  }
});

for (const [what, digests] of [
  ["digests", ["sha256"]],
  ["tells sizes", []],
  ["is a post", undefined],
] as const)
  test(`read in place, another file that looks the same, of which a new target asks, is found as another: the target ${what}`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card", { tree: true, inPlace: true });
    const out = new FakeDevice("out");
    const [second, box] = [new FakeDevice("second", { target: { digests: [...(digests ?? [])] } }), new PostBox("box")];
    card.put("00000001.BIN", "the first");
    await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
    await until(bench, "delivered", () => out.files.size === 1);
    await bench.stop();
    card.put("00000001.BIN", "the other");
    const target = digests === undefined ? box : second;
    await bench.start({ sources: [card], targets: [out, target] }, [{ from: "card", to: ["out", target.name] }]);
    const contents = ({ files }: FakeDevice) => [...files.values()].map(({ bytes }) => bytes.toString()).sort();
    await until(bench, "the other is there, too", () => out.files.size === 2);
    await until(bench, "sent", () => !/ready|wanting|active/.test(bench.states(target.name).join()));
    assert.deepEqual(contents(out), ["the first", "the other"]);
    const sent = digests === undefined ? box.posts.map(({ bytes }) => bytes.toString()) : contents(second);
    assert.deepEqual(sent, ["the other"]);
    assert.equal(bench.daemon.status().queue.parked, 0);
    assert.equal(second.partials.size, 0);
  });

for (const kind of ["transient", "offline"] as const)
  test(`a run that ends once nothing is left to do waits for what is back at its source also after a break (${kind})`, async (t) => {
    const { bench, card, out, start } = await takenAway(t, "0123456789".repeat(10), { chunk: 10 });
    card.put("a.bin", "abcdefghij".repeat(10));
    let isBroken = false;
    card.before = (call) => {
      if (call !== "read a.bin 50" || isBroken) return undefined;
      isBroken = true;
      return Promise.reject(new Fault(kind, "the link is lost"));
    };
    await start();
    await bench.daemon.drained(AbortSignal.timeout(20_000));
    assert.deepEqual([out.files.size, card.files.size], [2, 0]);
  });

test("what comes while something waits for space, and has room, does not wait for what is read behind all", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true, concurrency: 1, chunk: 1 });
  const [out, away] = [new FakeDevice("out"), new FakeDevice("away")];
  away.attach(false);
  const content = "0123456789".repeat(60);
  const routes = [
    { from: "card", to: ["out"], include: ["a.bin", "crash.log"], afterDelivery: "delete" as const },
    { from: "card", to: ["away"], include: ["b*"] },
  ];
  card.put("a.bin", content);
  await bench.start({ sources: [card], targets: [out, away] }, routes, { maxSize: 10_000, device: { intervalMs: 50 } });
  await until(bench, "taken away", () => card.files.size === 0);
  card.put("b1", Buffer.alloc(8000, 1));
  await until(bench, "it is here", () => bench.events.some(({ what, message }) => what === "pulled" && message.includes("b1")));
  card.files.delete("b1");
  card.put("b2", Buffer.alloc(8000, 2), Date.UTC(2026, 4, 2));
  await until(bench, "it waits for space", () => bench.events.some(({ what }) => what === "spool-full"));
  let reads = 0;
  card.before = async (call) => {
    if (!call.startsWith("read a.bin")) return;
    reads += 1;
    if (call === "read a.bin 50") {
      card.put("crash.log", "a crash log", Date.UTC(2026, 4, 3));
      bench.daemon.engine.relist$.next("card");
    }
    if (!out.files.has("crash.log")) await sleep(100);
  };
  card.put("a.bin", content);
  await until(bench, "it arrives", () => out.files.has("crash.log"));
  assert.ok(reads < 600, `${reads} of 600 chunks were read before`);
});

test("what is back at a source that lists, and is offline whenever it is read, is not asked for without end", async (t) => {
  const { bench, card, start } = await takenAway(t, "content");
  card.put("a.bin", "content");
  let opened = 0;
  card.before = (call) => {
    if (!call.startsWith("open a.bin")) return undefined;
    opened += 1;
    return Promise.reject(new Fault("offline", "no answer"));
  };
  await start();
  await until(bench, "it is read", () => opened > 0);
  await sleep(500);
  assert.equal(opened, 1);
});

test("another file that is back at a source whose link breaks at each reading is found as another", async (t) => {
  const { bench, card, out, start } = await takenAway(t, "0123456789".repeat(10), { intervalMs: 50, chunk: 10 });
  let aheadMs = 0;
  bench.clock.monotonicMs = () => performance.now() + aheadMs;
  card.put("a.bin", "abcdefghij".repeat(10));
  bench.events.length = 0;
  let read = 0;
  card.before = (call) => {
    if (call.startsWith("open a.bin")) read = 0;
    if (!call.startsWith("read a.bin") || (read += 1) <= 6) return undefined;
    return Promise.reject(new Fault("transient", "the link is lost"));
  };
  await start();
  await until(bench, "it is found", () => {
    aheadMs += 10_000;
    return bench.events.some(({ what }) => what === "found");
  });
  card.before = () => undefined;
  await until(bench, "both are there", () => {
    aheadMs += 10_000;
    return out.files.size === 2;
  });
});

test("what is back at its source, where that does not answer once when it is read, is told as left by a run that ends", async (t) => {
  const { bench, card, out, start } = await takenAway(t, "the first");
  let aheadMs = 0;
  bench.clock.monotonicMs = () => performance.now() + aheadMs;
  card.put("a.bin", "the other");
  let isBroken = false;
  card.before = (call) => {
    if (isBroken || !call.startsWith("open a.bin")) return undefined;
    isBroken = true;
    return Promise.reject(new Fault("offline", "no answer"));
  };
  await start();
  assert.equal((await bench.daemon.drained(AbortSignal.timeout(20_000))).unread, 1);
  // Not by its interval: the run may look for its end later than that.
  aheadMs = 2000;
  bench.daemon.engine.relist$.next("card");
  await until(bench, "it is delivered after the next listing", () => out.files.size === 2);
});
