/** Files whose name is taken at their target: each is one file there under another name, also as it grows, and none takes the place of somebody else's. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Fault } from "../../core/errors.js";
import { otherName } from "../../core/names.js";
import type { Device } from "../../core/plugin.js";
import { Bench, FakeDevice, sha256, until } from "../fake-device.js";

const t0 = Date.UTC(2026, 4, 1);
const dones = (bench: Bench, target = "out") => bench.states(target).filter((state) => state === "done").length;
const receipts = (bench: Bench) =>
  bench.daemon.engine.journal
    .all<{ receipt: string }>("SELECT receipt FROM deliveries WHERE receipt IS NOT NULL ORDER BY size, done_ms")
    .map(({ receipt }) => JSON.parse(receipt) as { path: string; size: number; found?: true });

test("a file whose other name somebody took grows on under the one that it got then", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card"), new FakeDevice("out")];
  const bytes = randomBytes(40_000);
  const other = otherName("log.bin", sha256(bytes.subarray(0, 10_000)));
  out.put("log.bin", "of another");
  card.put("log.bin", bytes.subarray(0, 10_000), t0);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "first", () => dones(bench) === 1);
  out.put(other, "of a third");
  for (const [n, size] of [20_000, 30_000, 40_000].entries()) {
    card.put("log.bin", bytes.subarray(0, size), t0 + 1000 + n);
    bench.daemon.engine.relist$.next("card");
    await until(bench, `${size}`, () => dones(bench) === n + 2);
  }
  assert.deepEqual([...out.files.keys()], ["log.bin", other, otherName("log.bin", sha256(bytes.subarray(0, 20_000)))]);
});

for (const when of ["before it grew", "once it had"] as const)
  test(`a file under its other name grows under that, though the journal was lost ${when}`, async (t) => {
    const bench = new Bench(t);
    const [card, out] = [new FakeDevice("card"), new FakeDevice("out")];
    const bytes = randomBytes(20_000);
    const other = otherName("log.bin", sha256(bytes.subarray(0, 10_000)));
    const start = () => bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
    out.put("log.bin", "of another");
    card.put("log.bin", bytes.subarray(0, 10_000), t0);
    await start();
    await until(bench, "first", () => dones(bench) === 1);
    await bench.stop();
    for (const name of readdirSync(bench.dir)) if (name.startsWith("journal")) rmSync(join(bench.dir, name));
    if (when === "before it grew") {
      await start();
      await until(bench, "listed", () => card.calls.filter((call) => call === "list").length >= 2);
      card.put("log.bin", bytes, t0 + 1000);
      bench.daemon.engine.relist$.next("card");
    } else {
      card.put("log.bin", bytes, t0 + 1000);
      await start();
    }
    await until(bench, "second", () => [...out.files.values()].some((file) => file.bytes.equals(bytes)));
    assert.deepEqual([...out.files.keys()], ["log.bin", other]);
  });

test("what somebody put under a file's other name while an upload that was begun had nothing there is theirs, though it is that content, and stays as the file grows", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card"), new FakeDevice("out")];
  const bytes = randomBytes(20_000);
  const short = bytes.subarray(0, 10_000);
  const place = otherName("log.bin", sha256(short));
  out.put("log.bin", "of another");
  card.put("log.bin", short, t0);
  let cut = false;
  // Before the first byte.
  out.before = (call) => {
    if (!call.startsWith("write") || cut) return undefined;
    cut = true;
    out.put(place, short);
    out.attach(false);
    throw new Fault("offline", "cut");
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "cut", () => cut);
  out.attach(true);
  await until(bench, "first", () => dones(bench) === 1);
  card.put("log.bin", bytes, t0 + 1000);
  bench.daemon.engine.relist$.next("card");
  await until(bench, "second", () => dones(bench) === 2);
  assert.ok(out.files.get(place)?.bytes.equals(short));
  assert.equal(receipts(bench)[0]?.found, true);
});

test("a file that was touched once somebody had replaced it, and whose answer as it got its other name was lost, is ours there, and grows there", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card"), new FakeDevice("out")];
  const bytes = randomBytes(20_000);
  const short = bytes.subarray(0, 10_000);
  const other = otherName("log.bin", sha256(short));
  card.put("log.bin", short, t0);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "first", () => dones(bench) === 1);
  out.put("log.bin", "of another");
  let cut = false;
  out.after = (call) => {
    if (call !== "commit" || cut || !out.files.has(other)) return undefined;
    cut = true;
    out.attach(false);
    throw new Fault("offline", "cut");
  };
  card.put("log.bin", short, t0 + 1000);
  bench.daemon.engine.relist$.next("card");
  await until(bench, "cut", () => cut);
  out.attach(true);
  await until(bench, "touched", () => dones(bench) === 2);
  assert.deepEqual(
    receipts(bench).map(({ path, found }) => [path, found]),
    [
      ["log.bin", undefined],
      [other, undefined],
    ],
    out.calls.join(),
  );
  card.put("log.bin", bytes, t0 + 2000);
  bench.daemon.engine.relist$.next("card");
  await until(bench, "grown", () => dones(bench) === 3);
  assert.deepEqual([...out.files.keys()], ["log.bin", other]);
});

for (const digests of [["sha256"], []] as const)
  test(`a file that got its other name by a request whose answer was lost is there once, though its own is free by then (by ${digests.length === 0 ? "size" : "content"})`, async (t) => {
    const bench = new Bench(t);
    const [card, out] = [new FakeDevice("card"), new FakeDevice("out", { target: { digests } })];
    const short = randomBytes(10_000);
    const other = otherName("log.bin", sha256(short));
    out.put("log.bin", "of another");
    card.put("log.bin", short, t0);
    let cut = false;
    out.after = (call) => {
      if (call !== "commit" || cut || !out.files.has(other)) return undefined;
      cut = true;
      out.files.delete("log.bin");
      out.attach(false);
      throw new Fault("offline", "cut");
    };
    await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
    await until(bench, "cut", () => cut);
    out.attach(true);
    await until(bench, "first", () => dones(bench) === 1);
    assert.deepEqual([...out.files.keys()], [other]);
  });

for (const digests of [["sha256"], []] as const)
  test(`a file that got its longer other name by a request whose answer was lost is there once, though the shorter is free by then (by ${digests.length === 0 ? "size" : "content"})`, async (t) => {
    const bench = new Bench(t);
    const [card, out] = [new FakeDevice("card"), new FakeDevice("out", { target: { digests } })];
    const short = randomBytes(10_000);
    const [eight, sixteen] = [otherName("log.bin", sha256(short)), otherName("log.bin", sha256(short), 16)];
    out.put("log.bin", "of another");
    out.put(eight, "of a third");
    card.put("log.bin", short, t0);
    let cut = false;
    out.after = (call) => {
      if (call !== "commit" || cut || !out.files.has(sixteen)) return undefined;
      cut = true;
      out.files.delete(eight);
      out.attach(false);
      throw new Fault("offline", "cut");
    };
    await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
    await until(bench, "cut", () => cut);
    out.attach(true);
    await until(bench, "first", () => dones(bench) === 1);
    assert.deepEqual([...out.files.keys()], ["log.bin", sixteen]);
    assert.equal(receipts(bench)[0]?.found, undefined);
  });

test("what another source brought under the other name of an upload that was begun, and was deleted for it, is not replaced by that", async (t) => {
  const bench = new Bench(t);
  const [card, twin, out] = [new FakeDevice("card"), new FakeDevice("twin", { tree: true }), new FakeDevice("out")];
  const bytes = randomBytes(20_000);
  const short = bytes.subarray(0, 10_000);
  const other = otherName("log.bin", sha256(short));
  out.put("log.bin", "of another");
  card.put("log.bin", short, t0);
  let cut = false;
  out.before = (call) => {
    if (!call.startsWith("write") || cut) return undefined;
    cut = true;
    out.attach(false);
    throw new Fault("offline", "cut");
  };
  const routes = [
    { from: "card", to: ["out"] },
    { from: "twin", to: ["out"], afterDelivery: "delete" as const },
  ];
  await bench.start({ sources: [card, twin], targets: [out] }, routes);
  await until(bench, "cut", () => cut && bench.daemon.engine.queue.pushing.size === 0);
  // The card's waits; the twin's goes first.
  await bench.daemon.engine.journal.apply(() =>
    bench.daemon.engine.journal.run("UPDATE deliveries SET rank = rank - 1000, weight = weight"),
  );
  twin.put("log.bin", short, t0);
  bench.daemon.engine.relist$.next("twin");
  await until(bench, "twin found", () => bench.states("out").length === 2);
  out.before = (call) => {
    // The card's second try begins with a question for its offset: that is later than the twin's.
    if (call.startsWith("offset") && !out.files.has(other)) throw new Fault("transient", "busy");
    return undefined;
  };
  out.attach(true);
  await until(bench, "both", () => dones(bench) === 2);
  await until(bench, "deleted", () => twin.files.size === 0);
  const receipts = bench.daemon.engine.journal
    .all<{ source: string; receipt: string }>("SELECT source, receipt FROM deliveries")
    .map(({ source, receipt }) => [source, (JSON.parse(receipt) as { found?: true }).found]);
  card.put("log.bin", bytes, t0 + 1000);
  bench.daemon.engine.relist$.next("card");
  await until(bench, "grown", () => dones(bench) === 3);
  assert.ok(
    [...out.files.values()].some((file) => file.bytes.equals(short)),
    `the twin's has gone from its target: ${[...out.files].map(([path, file]) => `${path} ${file.bytes.length}`).join()}; ${JSON.stringify(receipts)}`,
  );
});

for (const taken of [false, true])
  test(`a file that grows is one file at a target that gives it a directory (its name is ${taken ? "taken" : "free"})`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card");
    const out = new FakeDevice("out");
    const device = out.device.bind(out);
    out.device = (role): Device => {
      const made = device(role);
      const target = made.target;
      if (target === undefined) return made;
      return {
        ...made,
        target: {
          ...target,
          commit: async (upload, signal) => {
            const answer = await target.commit(upload, signal);
            return "occupied" in answer ? answer : { ...answer, path: `slot/${answer.path}`, archive: "slot" };
          },
        },
      };
    };
    const bytes = randomBytes(30_000);
    if (taken) out.put("log.bin", "of another");
    for (const [n, size] of [10_000, 20_000, 30_000].entries()) {
      card.put("log.bin", bytes.subarray(0, size), t0 + n * 1000);
      if (n === 0) await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
      else bench.daemon.engine.relist$.next("card");
      await until(bench, `${size}`, () => dones(bench) === n + 1);
    }
    assert.deepEqual([...out.files.keys()], taken ? ["log.bin", otherName("log.bin", sha256(bytes.subarray(0, 10_000)))] : ["log.bin"]);
  });

test("a file whose name is taken grows where it is also on other days", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card"), new FakeDevice("out")];
  const bytes = randomBytes(40_000);
  const other = otherName("2026-05-01/log.bin", sha256(bytes.subarray(0, 10_000)));
  out.put("2026-05-01/log.bin", "of another");
  card.put("log.bin", bytes.subarray(0, 10_000), t0);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", into: "{date}", to: ["out"] }]);
  await until(bench, "first", () => dones(bench) === 1);
  for (const [n, size] of [20_000, 30_000, 40_000].entries()) {
    card.put("log.bin", bytes.subarray(0, size), t0 + 86_400_000 * (n + 1));
    bench.daemon.engine.relist$.next("card");
    await until(bench, `${size}`, () => dones(bench) === n + 2);
  }
  assert.deepEqual([...out.files.keys()], ["2026-05-01/log.bin", other]);
});

test("two files of one name that began the same each grow under their own", async (t) => {
  const bench = new Bench(t);
  const [card, twin, out] = [new FakeDevice("card"), new FakeDevice("twin"), new FakeDevice("out", { target: { digests: [] } })];
  const [short, a, b] = [randomBytes(10_000), randomBytes(10_000), randomBytes(11_000)];
  const digest = sha256(short);
  out.put("log.bin", "of another");
  card.put("log.bin", short, t0);
  await bench.start(
    { sources: [card, twin], targets: [out] },
    ["card", "twin"].map((from) => ({ from, to: ["out"] })),
  );
  await until(bench, "first", () => dones(bench) === 1);
  card.put("log.bin", Buffer.concat([short, a]), t0 + 1000);
  bench.daemon.engine.relist$.next("card");
  await until(bench, "grew", () => dones(bench) === 2);
  twin.put("log.bin", short, t0);
  bench.daemon.engine.relist$.next("twin");
  await until(bench, "twin", () => dones(bench) === 3);
  twin.put("log.bin", Buffer.concat([short, b]), t0 + 1000);
  bench.daemon.engine.relist$.next("twin");
  await until(bench, "twin grew", () => dones(bench) === 4);
  assert.deepEqual([...out.files.keys()], ["log.bin", otherName("log.bin", digest), otherName("log.bin", digest, 16)]);
  assert.ok(out.files.get(otherName("log.bin", digest))?.bytes.equals(Buffer.concat([short, a])));
  assert.ok(out.files.get(otherName("log.bin", digest, 16))?.bytes.equals(Buffer.concat([short, b])));
});

test("a file that got no name at all leaves nothing once it has grown, and gets one then", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card"), new FakeDevice("out")];
  const bytes = randomBytes(40_000);
  out.put("log.bin", "of another");
  const short = bytes.subarray(0, 10_000);
  out.put(otherName("log.bin", sha256(short)), "of a third");
  out.put(otherName("log.bin", sha256(short), 16), "of a fourth");
  card.put("log.bin", short, t0);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(
    bench,
    "parked",
    () => bench.states("out").join() === "parked" || bench.events.some(({ message }) => message.includes("both taken")),
  );
  card.put("log.bin", bytes, t0 + 1000);
  bench.daemon.engine.relist$.next("card");
  await until(bench, "grown", () => dones(bench) === 1);
  await until(bench, "nothing left", () => out.partials.size === 0);
  assert.equal(out.files.size, 4);
  assert.ok(out.files.get(otherName("log.bin", sha256(bytes)))?.bytes.equals(bytes));
});

test("what somebody put under the further name of a file that grew, and had begun, is theirs", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card"), new FakeDevice("out")];
  const bytes = randomBytes(40_000);
  const other = otherName("log.bin", sha256(bytes.subarray(0, 10_000)));
  const third = otherName("log.bin", sha256(bytes.subarray(0, 20_000)));
  out.put("log.bin", "of another");
  card.put("log.bin", bytes.subarray(0, 10_000), t0);
  const routes = [{ from: "card", to: ["out"] }];
  await bench.start({ sources: [card], targets: [out] }, routes);
  await until(bench, "first", () => dones(bench) === 1);
  // Its other name is taken away, and its own stays taken.
  out.files.delete(other);
  out.put(other, "of a fifth");
  const at = otherName(other, sha256(bytes.subarray(0, 20_000)));
  let cut = false;
  out.before = (call) => {
    if (!call.startsWith("write") || cut) return undefined;
    cut = true;
    out.put(at, bytes.subarray(0, 20_000));
    out.put(third, bytes.subarray(0, 20_000));
    out.attach(false);
    throw new Fault("offline", "cut");
  };
  card.put("log.bin", bytes.subarray(0, 20_000), t0 + 1000);
  bench.daemon.engine.relist$.next("card");
  await until(bench, "cut", () => cut);
  out.attach(true);
  await until(bench, "second", () => dones(bench) === 2);
  const receipt =
    bench.daemon.engine.journal.get<{ receipt: string }>("SELECT receipt FROM deliveries WHERE size = 20000")?.receipt ?? "{}";
  assert.equal((JSON.parse(receipt) as { found?: true }).found, true, receipt);
});

test("a file that was found once the journal had been lost grows under its other name", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card"), new FakeDevice("out")];
  const bytes = randomBytes(40_000);
  out.put("log.bin", "of another");
  const start = () => bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  // Some older receipt, so that the journal counts as rebuilt.
  card.put("old.bin", "old", t0);
  await start();
  await until(bench, "old", () => dones(bench) === 1);
  await bench.stop();
  for (const name of readdirSync(bench.dir)) if (name.startsWith("journal")) rmSync(join(bench.dir, name));
  await start();
  await until(bench, "listed", () => card.calls.filter((call) => call === "list").length >= 2);
  // Long after: files that were never known before.
  for (const [n, size] of [10_000, 20_000, 40_000].entries()) {
    card.put("log.bin", bytes.subarray(0, size), t0 + n * 1000);
    bench.daemon.engine.relist$.next("card");
    await until(bench, `${size}`, () => [...out.files.values()].some((file) => file.bytes.equals(bytes.subarray(0, size))));
  }
  assert.equal(out.files.size, 3, [...out.files.keys()].join());
});
