/** Files that grow, change or are there already: what takes the place of what, and what never does. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { test, type TestContext } from "node:test";
import { Fault } from "../../core/errors.js";
import { otherName } from "../../core/names.js";
import { Bench, crc32, FakeDevice, sha256, until } from "../fake-device.js";

const t0 = Date.UTC(2026, 4, 1);
const middle = 12_000;

/** 24 KiB that differ in one byte. */
function likeOthers(byte: number): Buffer {
  const bytes = Buffer.alloc(24_576);
  bytes[middle] = byte;
  return bytes;
}

test("a file that grew twice before it was pulled still takes the place of the version that was delivered", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  const bytes = randomBytes(300_000);
  card.put("log.bin", bytes.subarray(0, 100_000), t0);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "first", () => bench.states("out")[0] === "done");
  card.before = (call) => {
    if (call.startsWith("stat")) throw new Fault("transient", "no answer");
  };
  card.put("log.bin", bytes.subarray(0, 200_000), t0 + 1000);
  bench.daemon.engine.relist$.next("card");
  await until(bench, "second is found", () => bench.states("out").length === 2);
  card.put("log.bin", bytes, t0 + 2000);
  bench.daemon.engine.relist$.next("card");
  await until(bench, "third is found", () => bench.states("out").length === 3);
  card.before = () => undefined;
  card.attach(true);
  await until(bench, "third", () => bench.states("out").filter((state) => state === "done").length === 2);
  assert.deepEqual([...out.files.keys()], ["log.bin"]);
  assert.ok(out.files.get("log.bin")?.bytes.equals(bytes));
});

for (const [how, grows] of [
  ["once more while it was pulled, and could not be read then", [300_000]],
  ["twice more while it was pulled", [250_000, 300_000]],
] as const)
  test(`a file that grew ${how}: as it is now it takes the place of the version that was delivered`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card");
    const out = new FakeDevice("out");
    const bytes = randomBytes(300_000);
    card.put("log.bin", bytes.subarray(0, 100_000), t0);
    await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
    await until(bench, "first", () => bench.states("out")[0] === "done");
    const asked = held();
    card.before = (call) => (call.startsWith("stat") ? asked.by() : undefined);
    card.put("log.bin", bytes.subarray(0, 200_000), t0 + 1000);
    bench.daemon.engine.relist$.next("card");
    await until(bench, "second is asked for", () => asked.calls > 0);
    for (const [n, size] of grows.entries()) {
      card.put("log.bin", bytes.subarray(0, size), t0 + 2000 + n);
      bench.daemon.engine.relist$.next("card");
      await until(bench, `${size} bytes are found`, () => bench.states("out").length === 3 + n);
    }
    // Only the last is so long: had it begun beside the second, that would be delivered first.
    const last = held();
    card.before = (call) => (call.startsWith("read log.bin 2") ? last.by() : undefined);
    if (grows.length === 1) {
      asked.fail();
      card.attach(true);
    } else asked.goOn();
    await until(bench, "the last is read", () => card.calls.some((call) => call.startsWith("open log.bin")) && isOver(bench, 200_000));
    last.goOn();
    await until(bench, "the last", () => isOver(bench, 300_000));
    assert.deepEqual([...out.files.keys()], ["log.bin"]);
    assert.ok(out.files.get("log.bin")?.bytes.equals(bytes));
  });

for (const size of [5_000_000, 1000])
  test(`a file of which all ${size} bytes are here, that grew before that was proved, and is gone by then: what is here arrives`, async (t) => {
    const { bench, out, bytes } = await goneAsItGrew(
      t,
      size,
      (call, card) => call.startsWith("stat") && card.calls.includes("open a.bin 0"),
    );
    await until(bench, "both to be over", () => isOver(bench, size) && isOver(bench, size + 500));
    assert.deepEqual([...out.files.keys()], ["a.bin"]);
    assert.ok(out.files.get("a.bin")?.bytes.equals(bytes.subarray(0, size)));
  });

test("a file of which a part is here, that grew meanwhile, and is gone by then: it is told as lost, with where that part is kept", async (t) => {
  const { bench, bytes } = await goneAsItGrew(t, 7_000_000, (call) => /^read a.bin 6\d{6}$/.test(call));
  await until(bench, "it is told", () => bench.events.some(({ what }) => what === "lost"));
  const kept = bench.events.flatMap(({ message }) => /what came of it is kept as (\S+)/.exec(message)?.[1] ?? []);
  assert.equal(kept.length, 1);
  const part = readFileSync(kept[0] ?? "");
  assert.ok(part.length > 3_000_000 && part.equals(bytes.subarray(0, part.length)), `${part.length} bytes`);
});

/** A file of `size` bytes that is found 500 longer while a call `hangs`, and is gone by the time that its source fails that and is back. */
async function goneAsItGrew(t: TestContext, size: number, hangs: (call: string, card: FakeDevice) => boolean) {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card"), new FakeDevice("out")];
  const bytes = randomBytes(size + 500);
  const asked = held();
  card.put("a.bin", bytes.subarray(0, size), t0);
  card.before = (call) => (hangs(call, card) ? asked.by() : undefined);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "it hangs", () => asked.calls > 0);
  card.put("a.bin", bytes, t0 + 1000);
  bench.daemon.engine.relist$.next("card");
  await until(bench, "the longer one is found", () => bench.states("out").length === 2);
  card.files.delete("a.bin");
  card.before = () => undefined;
  asked.fail();
  card.attach(true);
  return { bench, out, bytes };
}

/** Calls that hang until they go on, or fail as where the source was pulled. */
function held() {
  let [goOn, fail] = [(): void => undefined, (): void => undefined];
  const ended = new Promise<void>((resolve, reject) => {
    goOn = resolve;
    fail = () => reject(new Fault("offline", "pulled"));
  });
  return {
    calls: 0,
    goOn,
    fail,
    by(): Promise<void> {
      this.calls += 1;
      return ended;
    },
  };
}

/** The version of that size is delivered, or nothing is to come of it. */
function isOver(bench: Bench, size: number): boolean {
  const found = bench.daemon.engine.journal.all<{ state: string }>("SELECT state FROM deliveries WHERE size = ?", size);
  return found.length > 0 && found.every(({ state }) => state === "done" || state === "dropped");
}

test("a whole copy is not given up for a longer one that never gets whole", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { chunk: 4096 });
  const out = new FakeDevice("out");
  const bytes = randomBytes(300_000);
  card.put("log.bin", bytes.subarray(0, 100_000), t0);
  out.attach(false);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "first is here", () => bench.states("out")[0] === "ready");
  // The vehicle is lost in the middle of the longer one.
  card.before = (call) => {
    if (call.startsWith("read log.bin 2")) {
      card.files.clear();
      throw new Fault("missing", "it is no longer there");
    }
  };
  card.put("log.bin", bytes, t0 + 1000);
  bench.daemon.engine.relist$.next("card");
  await until(bench, "lost", () => bench.events.some(({ what }) => what === "lost"));
  out.attach(true);
  await until(bench, "first", () => out.files.has("log.bin"), 5000);
  assert.ok(out.files.get("log.bin")?.bytes.equals(bytes.subarray(0, 100_000)));
  const lost = () => bench.daemon.status().lost.map(({ from, path, size }) => `${from}:${path} ${size}`);
  assert.deepEqual(lost(), ["card:log.bin 300000"]);
  assert.match(bench.daemon.status().summary, /; 1 file was lost at the source$/);
  card.before = () => undefined;
  card.put("log.bin", bytes, t0 + 1000);
  bench.daemon.engine.relist$.next("card");
  await until(bench, "it is found again", () => out.files.get("log.bin")?.bytes.length === 300_000, 5000);
  assert.deepEqual(lost(), []);
});

test("a file that has gone once all of it was read, and before its source could be asked about it again, is whole here", async (t) => {
  // One that was noted on its way, and one that is not before its end.
  for (const size of [5_000_000, 1000]) {
    const bench = new Bench(t);
    const card = new FakeDevice("card");
    const out = new FakeDevice("out");
    const bytes = randomBytes(size);
    let read = false;
    card.before = (call) => {
      if (call.startsWith("open a.bin")) read = true;
      if (!read || call !== "stat a.bin") return;
      if (!card.files.delete("a.bin")) return;
      throw new Fault("transient", "no answer");
    };
    card.put("a.bin", bytes, t0);
    await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
    await until(bench, "what becomes of it", () => bench.states("out").some((state) => state === "done" || state === "dropped"));
    assert.deepEqual(bench.daemon.status().lost, []);
    assert.ok(out.files.get("a.bin")?.bytes.equals(bytes));
  }
});

/** Puts `then` in the place of a file when it is looked at for its pull, or opened; what arrived, in order. */
async function changedBeforeItsPull(
  t: TestContext,
  settleMs: number,
  first: Buffer,
  then: readonly Buffer[],
  before?: Buffer,
  store: "spool" | "place" | "through" = "spool",
  at: "stat" | "open" = store === "place" ? "open" : "stat",
): Promise<Buffer[]> {
  const bench = new Bench(t);
  const inPlace = store === "place";
  const card = new FakeDevice("card", { inPlace });
  const out = new FakeDevice("out");
  const arrived: Buffer[] = [];
  let done = 0;
  const options = { device: { settleMs }, ...(store === "through" ? { maxSize: 100 } : {}) };
  const rest = [...then];
  let n = 0;
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], options);
  bench.daemon.engine.events.all$.subscribe(({ what }) => {
    if (what !== "delivered") return;
    done += 1;
    // The one that is new there, by whatever name.
    const fresh = [...out.files.values()].find(({ bytes }) => !arrived.some((known) => known.equals(bytes)));
    if (fresh !== undefined) arrived.push(Buffer.from(fresh.bytes));
    bench.daemon.engine.relist$.next("card");
  });
  if (before !== undefined) {
    card.put("a.bin", before, t0);
    bench.daemon.engine.relist$.next("card");
    await until(bench, "the version before", () => done === 1);
  }
  card.before = (call) => {
    const next = call.startsWith(`${at} a.bin`) ? rest.shift() : undefined;
    if (next === undefined) return undefined;
    card.put("a.bin", next, t0 + 2000 + n++);
    // Between the look and the first byte nobody else notices before it is sent.
    if (at === "stat") bench.daemon.engine.relist$.next("card");
    return undefined;
  };
  card.put("a.bin", first, t0 + 1000);
  bench.daemon.engine.relist$.next("card");
  const last = then.at(-1);
  await until(bench, "the last", () => arrived.at(-1)?.equals(last ?? first) === true);
  return arrived;
}

test("a file that is replaced by a longer one before its first byte was read: no beginning of the new one goes out under its name", async (t) => {
  const [old, other, longest] = [randomBytes(1000), randomBytes(3000), randomBytes(5000)];
  for (const settleMs of [0, 10])
    for (const store of ["spool", "place", "through"] as const)
      for (const at of store === "place" ? (["open"] as const) : (["stat", "open"] as const)) {
        const arrived = await changedBeforeItsPull(t, settleMs, old, [other], undefined, store, at);
        assert.deepEqual(arrived, [other], `${store}, at ${at}, settle ${settleMs}`);
      }
  // The same with a version before it, which neither continues.
  const before = randomBytes(500);
  for (const store of ["spool", "place"] as const)
    assert.deepEqual(await changedBeforeItsPull(t, 10, old, [longest], before, store), [before, longest], store);
});

for (const store of ["spool", "through"] as const)
  test(`a file that a longer one is written over while it is read: no mixture of both arrives (${store})`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card");
    const out = new FakeDevice("out");
    const [old, other] = [randomBytes(200_000), randomBytes(300_000)];
    card.put("a.bin", old, t0);
    card.before = (call) => {
      if (call !== "read a.bin 131072" || card.files.get("a.bin")?.bytes.length !== old.length) return undefined;
      // What is open is the same file.
      other.copy(card.files.get("a.bin")?.bytes ?? old, 131_072, 131_072);
      card.put("a.bin", other, t0 + 1000);
      return undefined;
    };
    const options = { device: { settleMs: 10 }, ...(store === "through" ? { maxSize: 100 } : {}) };
    await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], options);
    const { events, relist$ } = bench.daemon.engine;
    events.all$.subscribe(({ what }) => {
      if (what === "delivered") relist$.next("card");
    });
    await until(bench, "the other", () => [...out.files.values()].some(({ bytes }) => bytes.equals(other)));
    assert.equal(out.files.size, 1);
  });

for (const how of ["spool", "through", "in place"] as const)
  test(`a file that has grown, and that a longer one is written over while its new end is read: no mixture of both arrives (${how})`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card", { inPlace: how === "in place" });
    const out = new FakeDevice("out");
    const [old, other] = [randomBytes(200_000), randomBytes(300_000)];
    card.put("a.bin", old.subarray(0, 100_000), t0);
    const options = { device: { settleMs: 10 }, ...(how === "through" ? { maxSize: 100 } : {}) };
    await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], options);
    await until(bench, "its beginning", () => bench.states("out")[0] === "done");
    card.put("a.bin", old, t0 + 1000);
    let read = false;
    card.before = (call) => {
      if (!/^read a\.bin (100000|131072)$/.test(call) || read) return undefined;
      read = true;
      // What is open is the same file.
      other.copy(card.files.get("a.bin")?.bytes ?? old, 100_000, 100_000);
      card.put("a.bin", other, t0 + 2000);
      return undefined;
    };
    const { events, relist$ } = bench.daemon.engine;
    events.all$.subscribe(({ what }) => {
      if (what === "delivered") relist$.next("card");
    });
    relist$.next("card");
    await until(bench, "the other", () => [...out.files.values()].some(({ bytes }) => bytes.equals(other)));
    await until(bench, "all to be over", () => bench.states("out").every((state) => state === "done" || state === "dropped"));
    const told = [old.subarray(0, 100_000), old, other];
    for (const [name, { bytes }] of out.files)
      assert.ok(
        told.some((it) => it.equals(bytes)),
        `${name}: ${bytes.length} bytes`,
      );
  });

test("a long file that grew while it was pulled is not read twice: it goes out as it was, and then the rest", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  const bytes = randomBytes(6_000_000);
  card.put("a.bin", bytes.subarray(0, 5_000_000), t0);
  card.before = (call) => {
    if (call.startsWith("read a.bin 4") && card.files.get("a.bin")?.bytes.length === 5_000_000) card.put("a.bin", bytes, t0 + 1000);
    return undefined;
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], { device: { settleMs: 10 } });
  await until(bench, "as it was", () => bench.states("out").includes("done"));
  bench.daemon.engine.relist$.next("card");
  await until(bench, "all of it", () => out.files.get("a.bin")?.bytes.equals(bytes) === true);
  assert.ok(card.calls.includes("open a.bin 5000000"));
});

test("a file that grew before its first byte was read goes out as it is then; one that grows all the time goes out all the same", async (t) => {
  const log = randomBytes(9000);
  const upTo = (size: number) => log.subarray(0, size);
  assert.deepEqual(await changedBeforeItsPull(t, 10, upTo(1000), [upTo(3000)]), [upTo(3000)]);
  // The version before vouches for it.
  const continued = await changedBeforeItsPull(t, 10, upTo(1000), [upTo(3000)], upTo(500));
  for (const bytes of continued) assert.ok(bytes.equals(upTo(bytes.length)));
  // Files count as complete at once: each look finds it longer, and something goes out before it stops.
  const growing = [2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000].map(upTo);
  for (const store of ["spool", "place"] as const) {
    const arrived = await changedBeforeItsPull(t, 0, upTo(1000), growing, undefined, store);
    assert.ok(arrived.length > 1, `${store}: ${arrived.length} versions arrived`);
    for (const bytes of arrived) assert.ok(bytes.equals(upTo(bytes.length)));
  }
});

test("a file that its source takes for complete, and that is longer each time, is found anew once; then it waits until it stays the same", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  card.settles = true;
  let bytes = randomBytes(1000);
  card.before = (call) => {
    if (/^(list|stat)/.test(call)) card.put("log.bin", (bytes = Buffer.concat([bytes, randomBytes(10)])), t0);
    return undefined;
  };
  card.put("log.bin", bytes, t0);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], { device: { settleMs: 200 } });
  await until(bench, "some listings", () => card.calls.filter((call) => call.startsWith("list")).length > 8);
  const looks = card.calls.filter((call) => call.startsWith("stat")).length;
  assert.ok(looks <= 2, `it was asked for ${looks} times`);
  assert.ok(bench.states("out").length <= 2, `it was found ${bench.states("out").length} times`);
  card.before = () => undefined;
  bench.daemon.engine.relist$.next("card");
  await until(bench, "it arrives", () => out.files.get("log.bin")?.bytes.equals(bytes) === true);
});

test("a version that was whole here but not delivered hands on what it would have replaced", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  const bytes = randomBytes(300_000);
  card.put("log.bin", bytes.subarray(0, 100_000), t0);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "first", () => bench.states("out")[0] === "done");
  out.attach(false);
  for (const [n, size] of [200_000, 300_000].entries()) {
    card.put("log.bin", bytes.subarray(0, size), t0 + 1000 + n);
    bench.daemon.engine.relist$.next("card");
    await until(bench, "pulled", () => bench.events.filter(({ what }) => what === "pulled").length === n + 2);
  }
  out.attach(true);
  await until(bench, "third", () => bench.states("out").filter((state) => state === "done").length === 2);
  assert.deepEqual([...out.files.keys()], ["log.bin"]);
  assert.ok(out.files.get("log.bin")?.bytes.equals(bytes));
});

for (const what of ["arrives", "is set aside", "arrives after a restart"] as const)
  test(`a file that grows faster than it is sent: what is begun ${what}, then what it is by then`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card");
    const out = new FakeDevice("out");
    const bytes = randomBytes(300_000);
    let go = (): void => undefined;
    const gate = new Promise<void>((resolve) => (go = resolve));
    out.before = async (call) => {
      if (!call.startsWith("commit") || out.files.size > 0) return;
      await gate;
      if (what === "is set aside" && out.partials.size > 0 && [...out.partials.values()].every((partial) => partial.length === 100_000))
        throw new Fault("rejected", "not this one");
    };
    card.put("log.bin", bytes.subarray(0, 100_000), t0);
    const start = () => bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
    await start();
    await until(bench, "begun", () => out.calls.includes("commit log.bin"));
    for (const [n, size] of [200_000, 300_000].entries()) {
      card.put("log.bin", bytes.subarray(0, size), t0 + 1000 + n);
      bench.daemon.engine.relist$.next("card");
      await until(bench, "pulled", () => bench.events.filter(({ what }) => what === "pulled").length === n + 2);
    }
    // Also where a device that comes back makes all due at once.
    await bench.daemon.engine.journal.apply(() => bench.daemon.engine.queue.dueNow("out"));
    bench.daemon.engine.work$.next();
    const last = bench.daemon.engine.queue.latest("card", { path: "log.bin" });
    await until(bench, "it is told what it waits for", () =>
      bench.daemon.engine.queue
        .deliveriesOf(last?.id ?? "")
        .some(({ reason }) => /^the version before it \(\S+ kB\) is on its way/.test(reason ?? "")),
    );
    assert.deepEqual(bench.states("out").sort(), ["active", "dropped", "ready"]);
    if (what === "arrives after a restart") {
      await bench.stop();
      await start();
    }
    go();
    await until(bench, "the last", () => out.files.get("log.bin")?.bytes.equals(bytes) === true);
    await until(bench, "quiet", () => bench.states("out").every((state) => state === "done" || state === "dropped"));
    assert.deepEqual(bench.states("out").sort(), ["done", what === "is set aside" ? "dropped" : "done", "dropped"]);
    assert.deepEqual([[...out.files.keys()], out.partials.size], [["log.bin"], 0]);
  });

test("a file that is replaced by a longer one while it is pulled never arrives as a piece of that", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { chunk: 64 * 1024 });
  const out = new FakeDevice("out");
  const before = randomBytes(1_000_000);
  const after = randomBytes(2_000_000);
  card.put("a.bin", before, t0);
  let opens = 0;
  card.before = (call) => {
    if (call.startsWith("open")) opens += 1;
    // The first pull is broken off after the spool has some of it.
    if (opens === 1 && call === "read a.bin 655360") {
      card.put("a.bin", after, t0 + 5000);
      throw new Fault("transient", "the link is lost");
    }
    return undefined;
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "arrived", () => out.files.get("a.bin")?.bytes.equals(after) === true);
  await until(bench, "quiet", () => bench.states("out").every((state) => ["done", "dropped"].includes(state)));
  assert.deepEqual([...out.files.keys()], ["a.bin"]);
});

test("a file of the same content that somebody else put there is theirs: the longer one does not take its place", async (t) => {
  for (const whole of [false, true]) {
    const bench = new Bench(t);
    const card = new FakeDevice("card");
    const out = new FakeDevice("out");
    const bytes = randomBytes(50_000);
    card.put("log.bin", bytes.subarray(0, 20_000), t0);
    // Before anything of it is sent, or under the name when all of it is there but for its name.
    const there = () => out.put("log.bin", bytes.subarray(0, 20_000));
    out.before = (call) => {
      if (whole && call.startsWith("commit") && !out.files.has("log.bin")) there();
      return undefined;
    };
    if (!whole) there();
    await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
    await until(bench, "first", () => bench.states("out")[0] === "done");
    assert.deepEqual([...out.partials.keys()], []);
    card.put("log.bin", bytes, t0 + 1000);
    bench.daemon.engine.relist$.next("card");
    await until(bench, "second", () => bench.states("out").filter((state) => state === "done").length === 2);
    assert.equal(out.files.get("log.bin")?.bytes.length, 20_000);
    assert.equal(out.files.size, 2);
    assert.ok([...out.files.values()].some((file) => file.bytes.equals(bytes)));
    await bench.stop();
  }
});

test("a source that learns to tell times, or forgets them, makes no file new; one whose time changes then is", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  const listings = () => bench.daemon.engine.finders.get("card")?.listings ?? 0;
  const listed = async () => {
    const before = listings();
    bench.daemon.engine.relist$.next("card");
    await until(bench, "listed", () => listings() > before);
  };
  card.put("log.bin", "content", t0);
  card.timeless = true;
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "first", () => bench.states("out")[0] === "done");
  for (const timeless of [false, true, false]) {
    card.timeless = timeless;
    await listed();
    assert.deepEqual(bench.states("out"), ["done"]);
  }
  card.put("log.bin", "another", t0 + 5000);
  await listed();
  await until(bench, "second", () => bench.states("out").filter((state) => state === "done").length === 2);
});

for (const [what, after, longer, timeMs] of [
  ["is of the same size", "keep", 0, 1000],
  ["is of the same size and time, after that was deleted", "delete", 0, 0],
  ["is longer, after that was deleted", "delete", 100, 1000],
] as const)
  test(`another that begins and ends as the version before, and ${what}, is read whole: its copy here is not taken for it`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card", { tree: true });
    const out = new FakeDevice("out");
    card.put("a", likeOthers(1), t0);
    await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], afterDelivery: after }], {
      device: { intervalMs: 50 },
    });
    await until(bench, "it is there", () => bench.states("out").join() === "done" && (after === "keep" || card.files.size === 0));
    card.put("a", Buffer.concat([likeOthers(2), Buffer.alloc(longer)]), t0 + timeMs);
    await until(bench, "both are done", () => bench.states("out").join() === "done,done");
    assert.deepEqual([...out.files.values()].map(({ bytes }) => bytes[middle]).sort(), [1, 2]);
  });

test("what was fetched of a file is not taken for the beginning of another of its size", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { chunk: 4096 });
  const out = new FakeDevice("out");
  card.put("a", likeOthers(1), t0);
  card.before = (call) => (call === "read a 20480" ? Promise.reject(new Fault("offline", "pulled out")) : undefined);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], { device: { intervalMs: 50 } });
  await until(bench, "some of it is here", () => {
    const version = bench.daemon.engine.journal.get<{ durable: number }>("SELECT durable FROM versions");
    return version?.durable === 20480;
  });
  card.attach(false);
  card.before = () => undefined;
  card.put("a", likeOthers(2), t0 + 1000);
  card.attach(true);
  await until(bench, "the other is there", () => bench.states("out").includes("done"));
  assert.deepEqual(out.files.get("a")?.bytes, likeOthers(2));
});

test("what is here of a file that grows is gone on with also where an older one of its name was deleted", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true, chunk: 4096 });
  const out = new FakeDevice("out");
  const bytes = randomBytes(40_960);
  card.put("a", randomBytes(4096), t0);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], afterDelivery: "delete" }], {
    device: { intervalMs: 50 },
  });
  await until(bench, "deleted", () => card.files.size === 0 && bench.states("out").join() === "done");
  card.before = (call) => (call === "read a 20480" ? Promise.reject(new Fault("offline", "pulled out")) : undefined);
  card.put("a", bytes.subarray(0, 30_000), t0 + 1000);
  await until(bench, "some of it is here", () => {
    const version = bench.daemon.engine.journal.get<{ durable: number }>("SELECT durable FROM versions ORDER BY found_ms DESC LIMIT 1");
    return version?.durable === 20480;
  });
  card.attach(false);
  card.before = () => undefined;
  card.calls.length = 0;
  card.put("a", bytes, t0 + 2000);
  card.attach(true);
  await until(bench, "delivered", () => [...out.files.values()].some((file) => file.bytes.equals(bytes)));
  assert.ok(card.calls.includes("open a 20480"), card.calls.join());
});

for (const restarted of [false, true])
  test(`what is here of a file that grows is gone on with also where a longer one was given up in between${restarted ? ", and power went" : ""}`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card", { tree: true, chunk: 4096 });
    const out = new FakeDevice("out");
    const bytes = randomBytes(40_960);
    const routes = [{ from: "card", to: ["out"] }];
    const often = { device: { intervalMs: 50 } };
    card.put("a", bytes.subarray(0, 20_480), t0);
    await bench.start({ sources: [card], targets: [out] }, routes, often);
    await until(bench, "delivered", () => bench.states("out").join() === "done");
    card.before = (call) => {
      if (call.startsWith("stat a")) {
        card.put("a", bytes, t0 + 2000);
        card.before = (next) =>
          next.startsWith("stat a") || next.startsWith("list") ? Promise.reject(new Fault("offline", "out")) : undefined;
      }
      return undefined;
    };
    card.put("a", bytes, t0 + 1000);
    await until(bench, "given up", () => bench.events.some(({ what }) => what === "changed"));
    card.attach(false);
    if (restarted) await bench.kill();
    if (restarted) await bench.start({ sources: [card], targets: [out] }, routes, often);
    card.before = () => undefined;
    card.calls.length = 0;
    card.attach(true);
    await until(bench, "delivered", () => [...out.files.values()].some((file) => file.bytes.equals(bytes)));
    assert.ok(card.calls.includes("open a 20480"), card.calls.join());
  });

test("what is here of a file that grows is gone on with after a power cut, also where an older one was to be deleted once a longer one was given up", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true, chunk: 4096 });
  const out = new FakeDevice("out");
  const bytes = randomBytes(40_960);
  const routes = [{ from: "card", to: ["out"], afterDelivery: "delete" as const }];
  const often = { device: { intervalMs: 50 } };
  let goOn = (): void => undefined;
  const held = new Promise<void>((_, reject) => (goOn = () => reject(new Fault("offline", "out"))));
  held.catch(() => undefined);
  card.before = (call) => (call === "remove a" ? Promise.reject(new Fault("denied", "locked")) : undefined);
  card.put("a", bytes.subarray(0, 20_480), t0);
  await bench.start({ sources: [card], targets: [out] }, routes, often);
  const { queue, journal, work$ } = bench.daemon.engine;
  await until(bench, "it failed", () => queue.unreleased === 1 && queue.releasing.size === 0);
  card.before = (call) => {
    if (call.startsWith("stat a")) {
      card.put("a", bytes, t0 + 2000);
      card.before = (next) => (next.startsWith("list") ? held : undefined);
    }
    return undefined;
  };
  card.put("a", bytes, t0 + 1000);
  await until(bench, "given up", () => bench.events.some(({ what }) => what === "changed"));
  queue.releaseNow("card");
  work$.next();
  await until(bench, "it is another", () => queue.unreleased === 0 && queue.releasing.size === 0);
  card.attach(false);
  await journal.commit(() => undefined);
  goOn();
  await bench.kill();
  await bench.start({ sources: [card], targets: [out] }, routes, often);
  card.before = () => undefined;
  card.calls.length = 0;
  card.attach(true);
  await until(bench, "delivered", () => [...out.files.values()].some((file) => file.bytes.equals(bytes)));
  assert.ok(card.calls.includes("open a 20480"), card.calls.join());
});

for (const inPlace of [false, true])
  for (const resume of [false, true])
    for (const proof of ["by size", "by content", "by content that cannot be looked at"])
      for (const name of ["its name", "its other name"])
        test(`a file that grew, and got ${name} by a request whose answer was lost, has it alone in the end (${inPlace ? "in place" : "by the spool"}, ${resume ? "resumed" : "only whole"}, proved ${proof})`, async (t) => {
          const bench = new Bench(t);
          const card = new FakeDevice("card", { inPlace });
          const out = new FakeDevice("out", { target: { resume, digests: proof === "by size" ? [] : ["sha256"] } });
          out.blind = proof === "by content that cannot be looked at";
          const [bytes, foreign] = [randomBytes(50_000), randomBytes(10)];
          if (name === "its other name") out.put("log.bin", foreign);
          const ours = () => [...out.files].filter(([, file]) => !file.bytes.equals(foreign));
          out.after = (call) => {
            if (call !== "commit" || ours().length === 0) return undefined;
            out.attach(false);
            throw new Fault("offline", "cut");
          };
          card.put("log.bin", bytes.subarray(0, 20_000), t0);
          await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
          await until(bench, name, () => ours().length > 0 && bench.states("out")[0] === "ready");
          card.put("log.bin", bytes, t0 + 1000);
          bench.daemon.engine.relist$.next("card");
          const whole = () =>
            bench.daemon.engine.journal.get<{ n: number }>("SELECT count(*) AS n FROM versions WHERE state = 'sealed' AND size = 50000")?.n;
          await until(bench, "the longer one is here", () => whole() === 1);
          out.after = () => undefined;
          out.attach(true);
          await until(bench, "delivered", () => [...out.files.values()].some((file) => file.bytes.equals(bytes)));
          const other = otherName("log.bin", sha256(bytes.subarray(0, 20_000)));
          assert.deepEqual(
            ours().map(([path]) => path),
            [name === "its name" ? "log.bin" : other],
          );
          if (name === "its other name") assert.ok(out.files.get("log.bin")?.bytes.equals(foreign));
          await until(bench, "nothing is left", () => bench.states("out").every((state) => state === "done" || state === "dropped"));
          assert.equal(out.partials.size, 0);
          assert.equal(out.calls.filter((call) => call.startsWith("write")).length, 2, out.calls.join());
        });

for (const needs of ["stream", "sealed", "sealedPath"] as const)
  test(`a file that is read in place, and grew when one of two targets had it, takes the place of that there (${needs})`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card", { inPlace: true, localPath: () => "/dev/null" });
    const [out, other] = [new FakeDevice("out"), new FakeDevice("other", { target: { needs } })];
    const bytes = randomBytes(50_000);
    card.put("log.bin", bytes.subarray(0, 20_000), t0);
    const call = held();
    other.before = (what) => (/^(write|commit)/.test(what) ? call.by() : undefined);
    await bench.start({ sources: [card], targets: [out, other] }, [{ from: "card", to: ["out", "other"] }]);
    await until(bench, "one has it", () => bench.states("out").join() === "done" && call.calls > 0);
    card.put("log.bin", bytes, t0 + 1000);
    other.before = () => undefined;
    if (needs === "sealedPath") call.fail();
    else call.goOn();
    // As it is listed at once where it was found to be another.
    await until(bench, "what it was is over", () => bench.states("other").every((state) => state === "done" || state === "dropped"));
    bench.daemon.engine.relist$.next("card");
    for (const device of [out, other])
      await until(bench, device.name, () => [...device.files.values()].some((file) => file.bytes.equals(bytes)));
    assert.deepEqual([[...out.files.keys()], [...other.files.keys()]], [["log.bin"], ["log.bin"]]);
  });

test("another file, longer, in the place of one that was read there, and that one of two targets had, leaves that as it is", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { inPlace: true });
  const [out, other] = [new FakeDevice("out"), new FakeDevice("other")];
  const [first, second] = [randomBytes(20_000), randomBytes(50_000)];
  card.put("log.bin", first, t0);
  other.attach(false);
  await bench.start({ sources: [card], targets: [out, other] }, [{ from: "card", to: ["out", "other"] }]);
  await until(bench, "one has it", () => bench.states("out").join() === "done");
  card.put("log.bin", second, t0 + 1000);
  other.attach(true);
  for (const device of [out, other])
    await until(bench, device.name, () => [...device.files.values()].some((file) => file.bytes.equals(second)));
  assert.ok(out.files.get("log.bin")?.bytes.equals(first));
});

test("a file that grew while it was sent by its size, and whose copy made room: another of its size, which somebody put there meanwhile, stays", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const [out, other] = [new FakeDevice("out", { target: { digests: [] } }), new FakeDevice("other")];
  const bytes = randomBytes(50_000);
  out.after = (call) => {
    if (!call.startsWith("write")) return undefined;
    out.attach(false);
    throw new Fault("offline", "cut");
  };
  card.put("log.bin", bytes.subarray(0, 20_000), t0);
  const routes = [
    { from: "card", to: ["out"], exclude: ["*.jpg"] },
    { from: "card", to: ["other"], include: ["*.jpg"] },
  ];
  await bench.start({ sources: [card], targets: [out, other] }, routes, { maxSize: 100_000 });
  await until(bench, "it is sent", () => out.partials.size === 1 && bench.states("out")[0] === "ready");
  card.put("log.bin", bytes, t0 + 1000);
  bench.daemon.engine.relist$.next("card");
  await until(bench, "the longer one is here", () => bench.events.filter(({ what }) => what === "pulled").length === 2);
  card.put("photo.jpg", randomBytes(40_000), t0 + 2000);
  bench.daemon.engine.relist$.next("card");
  await until(bench, "the other is there", () => other.files.has("photo.jpg"));
  const theirs = randomBytes(20_000);
  out.put("log.bin", theirs, t0);
  out.after = () => undefined;
  out.attach(true);
  await until(bench, "delivered", () => [...out.files.values()].some((file) => file.bytes.equals(bytes)));
  assert.ok(out.files.get("log.bin")?.bytes.equals(theirs));
});

test("a source whose clock is set while a file is written: that is not complete because its time is long ago by then", async (t) => {
  const bench = new Bench(t);
  const box = new FakeDevice("box", { inPlace: true, tree: true });
  const out = new FakeDevice("out");
  // A Pi without a clock battery, before NTP has answered.
  let aheadMs = 0;
  box.settles = false;
  box.clock = () => t0 + performance.now() + aheadMs;
  box.put("old.bin", "of the flight before", t0 - 86_400_000);
  const settleMs = 500;
  let [writtenMs, leftMs] = [0, Infinity];
  const write = (text: string) => {
    [writtenMs, leftMs] = [performance.now(), Infinity];
    box.put("log.bin", text, box.clock?.());
  };
  write("begun");
  const waited: number[] = [];
  box.files.delete = (path) => {
    if (path === "log.bin") waited.push((leftMs = performance.now()) - writtenMs);
    return Map.prototype.delete.call(box.files, path);
  };
  const routes = [{ from: "box", to: ["out"], afterDelivery: "delete" }] as const;
  await bench.start({ sources: [box], targets: [out] }, routes, { device: { settleMs } });
  await until(bench, "what is old needs not to settle", () => out.files.has("old.bin"));
  for (const text of ["begun, and more", "begun, and more, and yet more"]) {
    write(text);
    aheadMs += 3_600_000;
    box.changes$.next();
    await new Promise((resolve) => setTimeout(resolve, settleMs / 4));
  }
  await until(bench, "it is delivered, and deleted", () => leftMs < Infinity);
  assert.ok(Math.min(...waited) >= settleMs, `taken away so many ms after it was written: ${waited.map(Math.round).join(", ")}`);
});

test("a clock that was set right before the start, on a machine that was just switched on: what was written before that has to settle", async (t) => {
  const bench = new Bench(t);
  const box = new FakeDevice("box", { inPlace: true, tree: true });
  const out = new FakeDevice("out");
  const settleMs = 1000;
  bench.clock.upMs = 60_000;
  box.settles = false;
  box.clock = () => t0 + performance.now() + 3_600_000;
  box.put("log.bin", "begun", t0 + performance.now());
  const writtenMs = performance.now();
  let leftMs = Infinity;
  box.files.delete = (path) => {
    leftMs = performance.now();
    return Map.prototype.delete.call(box.files, path);
  };
  const routes = [{ from: "box", to: ["out"], afterDelivery: "delete" }] as const;
  await bench.start({ sources: [box], targets: [out] }, routes, { device: { settleMs } });
  await until(bench, "it is deleted", () => leftMs < Infinity);
  assert.ok(leftMs - writtenMs >= settleMs, `taken away so many ms after it was written: ${leftMs - writtenMs}`);
});

for (const medium of [undefined, "card-1"])
  test(`a file that grew, and of which another byte is another too, is not deleted for the receipt of what was put together of both (${medium ?? "no medium"})`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card", { tree: true });
    const out = new FakeDevice("out");
    if (medium !== undefined) card.insert(medium);
    card.put("a.bin", likeOthers(1), t0);
    out.attach(false);
    const routes = [{ from: "card", to: ["out"], afterDelivery: "delete" }] as const;
    // As a card: it is listed when it is plugged in, and not again by itself.
    await bench.start({ sources: [card], targets: [out] }, routes, { device: { intervalMs: Infinity } });
    await until(bench, "the first is here", () => bench.states("out")[0] === "ready");
    const last = Buffer.concat([likeOthers(2), randomBytes(1000)]);
    card.put("a.bin", last, t0 + 60_000);
    bench.daemon.engine.relist$.next("card");
    await until(bench, "the longer is here", () => bench.events.filter(({ what }) => what === "pulled").length === 2);
    out.attach(true);
    await until(bench, "deleted", () => !card.files.has("a.bin"));
    assert.ok(
      [...out.files.values()].some(({ bytes }) => bytes.equals(last)),
      "what was deleted has arrived",
    );
  });

test("a file that is written all the time goes as often as its source is listed, not again and again because each time it is another once it is to be deleted", async (t) => {
  const bench = new Bench(t);
  const box = new FakeDevice("box", { inPlace: true, tree: true });
  const out = new FakeDevice("out");
  let lines = 0;
  const grow = () => box.put("log.bin", "x".repeat(++lines), t0 + lines * 1000);
  grow();
  box.before = (call) => {
    if (call === "remove log.bin") grow();
    return undefined;
  };
  await bench.start({ sources: [box], targets: [out] }, [{ from: "box", to: ["out"], afterDelivery: "delete" }]);
  await until(bench, "it is another", () => bench.events.some(({ message }) => message.includes("another file under that name")));
  await new Promise((resolve) => setTimeout(resolve, 500));
  const listed = box.calls.filter((call) => call === "list").length;
  assert.ok(listed <= 2, `it was listed ${listed} times`);
});

test("a file that grew, and that its source does not let be deleted, is compared once, not at each try", async (t) => {
  const bench = new Bench(t);
  const box = new FakeDevice("box", { tree: true });
  const out = new FakeDevice("out");
  const bytes = randomBytes(20_000);
  box.put("a.bin", bytes.subarray(0, 10_000), t0);
  box.before = (call) => {
    if (call.startsWith("remove")) throw new Fault("denied", "this account may only read");
  };
  out.attach(false);
  await bench.start({ sources: [box], targets: [out] }, [{ from: "box", to: ["out"], afterDelivery: "delete" }]);
  await until(bench, "the first is here", () => bench.states("out")[0] === "ready");
  box.put("a.bin", bytes, t0 + 60_000);
  const { engine } = bench.daemon;
  engine.relist$.next("box");
  await until(bench, "the longer is here", () => bench.events.filter(({ what }) => what === "pulled").length === 2);
  box.calls.length = 0;
  out.attach(true);
  const begun = (what: string) => box.calls.filter((call) => call.startsWith(what)).length;
  for (let tries = 1; tries <= 3; tries++) {
    await until(bench, `try ${tries}`, () => begun("remove") === tries && engine.queue.releasing.size === 0);
    engine.queue.releaseNow("box");
    engine.work$.next();
  }
  assert.equal(begun("open"), 1);
});

test("a file that grew does not wait for a shorter version that is all here, is not proved yet, and was for a target that has left the configuration", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { crc: crc32 });
  const [old, fresh] = [new FakeDevice("old"), new FakeDevice("fresh")];
  const rarely = { device: { intervalMs: 3_600_000 } };
  const bytes = randomBytes(30_000);
  card.put("log.bin", bytes.subarray(0, 20_000), t0);
  card.before = (call) => {
    if (!call.startsWith("digest")) return undefined;
    card.attach(false);
    throw new Fault("offline", "switched off");
  };
  old.attach(false);
  await bench.start({ sources: [card], targets: [old] }, [{ from: "card", to: ["old"] }], rarely);
  const { journal } = bench.daemon.engine;
  const durable = () => journal.get<{ durable: number }>("SELECT durable FROM versions WHERE state = 'found'")?.durable;
  await until(bench, "all is here", () => durable() === 20_000);
  card.before = () => undefined;
  await bench.reload({ sources: [card], targets: [fresh] }, [{ from: "card", to: ["fresh"] }], rarely);
  card.put("log.bin", bytes, t0 + 60_000);
  card.attach(true);
  await until(bench, "the longer one arrives", () => fresh.files.get("log.bin")?.bytes.equals(bytes) === true);
});
