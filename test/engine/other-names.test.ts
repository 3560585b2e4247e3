/** Files whose name is taken at their target: each is one file there under another name, also as it grows, and none takes the place of somebody else's. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { retry } from "../../core/amend.js";
import { Fault } from "../../core/errors.js";
import { otherName } from "../../core/names.js";
import type { Device, Upload } from "../../core/plugin.js";
import { giveUp } from "../../core/space.js";
import { Bench, FakeDevice, sha256, until } from "../fake-device.js";

const t0 = Date.UTC(2026, 4, 1);

/** A card with "log.bin", whose name is taken at its target, and goes there. `digests`: what the target proves. */
function taken(
  t: TestContext,
  { size = 40_000, digests = ["sha256"] }: { readonly size?: number; readonly digests?: readonly "sha256"[] } = {},
) {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card"), new FakeDevice("out", { target: { digests } })];
  const bytes = randomBytes(size);
  const short = bytes.subarray(0, 10_000);
  out.put("log.bin", "of another");
  card.put("log.bin", short, t0);
  const start = () => bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  /** It is so long by then, and found. */
  const grow = (length: number, afterMs = 1000) => {
    card.put("log.bin", bytes.subarray(0, length), t0 + afterMs);
    bench.daemon.engine.relist$.next("card");
  };
  const delivered = (n: number) => until(bench, `${n} delivered`, () => dones(bench) === n);
  return { bench, card, out, bytes, short, other: otherName("log.bin", sha256(short)), start, grow, delivered };
}

/** The first answer once the target has that name is lost. Resolves when it was. */
function losesAnswer(bench: Bench, out: FakeDevice, name: string, meanwhile = (): void => undefined): () => Promise<unknown> {
  let cut = false;
  out.after = (call) => {
    if (call !== "commit" || cut || !out.files.has(name)) return undefined;
    cut = true;
    meanwhile();
    out.attach(false);
    throw new Fault("offline", "cut");
  };
  return () => until(bench, "the answer is lost", () => cut);
}

/** The first upload is cut before its first byte. Resolves when it was, and nothing is under way. */
function cutsUpload(bench: Bench, out: FakeDevice, meanwhile = (): void => undefined): () => Promise<unknown> {
  let cut = false;
  out.before = (call) => {
    if (!call.startsWith("write") || cut) return undefined;
    cut = true;
    meanwhile();
    out.attach(false);
    throw new Fault("offline", "cut");
  };
  return () => until(bench, "the upload is cut", () => cut && bench.daemon.engine.queue.pushing.size === 0);
}

/** A target that gives what it takes a directory, the one that is open then, and that nobody can look at. */
function givesSlots(out: FakeDevice, open: () => string): void {
  const device = out.device.bind(out);
  out.blind = true;
  out.device = (role): Device => {
    const made = device(role);
    const { target } = made;
    if (target === undefined) return made;
    return {
      ...made,
      target: {
        ...target,
        commit: async (upload, signal) => {
          const archive = open();
          const { expect } = upload;
          const isThere = expect.kind === "replaces" && expect.archive === archive;
          const inSlot: Upload = { ...upload, path: `${archive}/${upload.path}`, expect: isThere ? expect : { kind: "absent" } };
          const answer = await target.commit(inSlot, signal);
          return "occupied" in answer ? answer : { ...answer, archive };
        },
      },
    };
  };
}

function loseJournal({ dir }: Bench): void {
  for (const name of readdirSync(dir)) if (name.startsWith("journal")) rmSync(join(dir, name));
}

const dones = (bench: Bench, target = "out") => bench.states(target).filter((state) => state === "done").length;
const receipts = (bench: Bench) =>
  bench.daemon.engine.journal
    .all<{ receipt: string }>("SELECT receipt FROM deliveries WHERE receipt IS NOT NULL ORDER BY size, done_ms")
    .map(({ receipt }) => JSON.parse(receipt) as { path: string; size: number; found?: true });

for (const inPlace of [false, true])
  for (const [how, digests] of [
    ["content", ["sha256"]],
    ["size", []],
  ] as const)
    test(`a file whose name is taken grows under its other name, over a start and a touch, too (${inPlace ? "in place" : "by the spool"}, proved by ${how})`, async (t) => {
      const bench = new Bench(t);
      const card = new FakeDevice("card", { inPlace });
      const out = new FakeDevice("out", { target: { digests } });
      const [bytes, foreign] = [randomBytes(50_000), randomBytes(10)];
      const other = otherName("log.bin", sha256(bytes.subarray(0, 10_000)));
      out.put("log.bin", foreign);
      const start = () => bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
      await start();
      for (const [n, size] of [10_000, 20_000, 20_000, 50_000].entries()) {
        card.put("log.bin", bytes.subarray(0, size), t0 + n * 1000);
        if (n === 2) {
          await bench.stop();
          await start();
        } else bench.daemon.engine.relist$.next("card");
        await until(bench, `${size} bytes`, () => bench.states("out").filter((state) => state === "done").length === n + 1);
        assert.deepEqual([...out.files.keys()], ["log.bin", other]);
        assert.ok(out.files.get(other)?.bytes.equals(bytes.subarray(0, size)));
        assert.ok(out.files.get("log.bin")?.bytes.equals(foreign));
      }
      assert.equal(out.calls.filter((call) => call.startsWith("write")).length, 3, out.calls.join());
    });

test("a file whose other name somebody took, which stays as it is, grows on under the one that it got then", async (t) => {
  const { bench, out, bytes, other, start, grow, delivered } = taken(t);
  await start();
  await delivered(1);
  out.put(other, "of a third");
  const further = otherName("log.bin", sha256(bytes.subarray(0, 20_000)));
  for (const [n, size] of [20_000, 30_000, 40_000].entries()) {
    grow(size, 1000 + n);
    await delivered(n + 2);
    assert.deepEqual([...out.files.keys()], ["log.bin", other, further]);
    assert.equal(String(out.files.get(other)?.bytes), "of a third");
  }
  assert.deepEqual(bench.states("out"), ["done", "done", "done", "done"]);
});

for (const when of ["before it grew", "once it had"] as const)
  test(`a file under its other name grows under that, though the journal was lost ${when}`, async (t) => {
    const { bench, card, out, bytes, other, start, grow, delivered } = taken(t, { size: 20_000 });
    await start();
    await delivered(1);
    await bench.stop();
    loseJournal(bench);
    if (when === "before it grew") {
      await start();
      await until(bench, "listed", () => card.calls.filter((call) => call === "list").length >= 2);
      grow(bytes.length);
    } else {
      card.put("log.bin", bytes, t0 + 1000);
      await start();
    }
    await until(bench, "second", () => [...out.files.values()].some((file) => file.bytes.equals(bytes)));
    assert.deepEqual([...out.files.keys()], ["log.bin", other]);
  });

test("what somebody put under a file's other name while an upload that was begun had nothing there is theirs, though it is that content, and stays as the file grows", async (t) => {
  const { bench, out, bytes, short, other, start, grow, delivered } = taken(t, { size: 20_000 });
  const cut = cutsUpload(bench, out, () => {
    out.put(other, short);
  });
  await start();
  await cut();
  out.attach(true);
  await delivered(1);
  grow(bytes.length);
  await delivered(2);
  assert.ok(out.files.get(other)?.bytes.equals(short));
  assert.equal(receipts(bench)[0]?.found, true);
});

test("a file that was touched once somebody had replaced it, and whose answer as it got its other name was lost, is ours there, and grows there", async (t) => {
  const { bench, out, bytes, short, other, start, grow, delivered } = taken(t, { size: 20_000 });
  out.files.delete("log.bin");
  await start();
  await delivered(1);
  out.put("log.bin", "of another");
  const lost = losesAnswer(bench, out, other);
  grow(short.length);
  await lost();
  out.attach(true);
  await delivered(2);
  assert.deepEqual(
    receipts(bench).map(({ path, found }) => [path, found]),
    [
      ["log.bin", undefined],
      [other, undefined],
    ],
    out.calls.join(),
  );
  grow(bytes.length, 2000);
  await delivered(3);
  assert.deepEqual([...out.files.keys()], ["log.bin", other]);
});

for (const digests of [["sha256"], []] as const)
  for (const [which, digits] of [
    ["other", 8],
    ["longer other", 16],
  ] as const)
    test(`a file that got its ${which} name by a request whose answer was lost is there once, though the name before is free by then (by ${digests.length === 0 ? "size" : "content"})`, async (t) => {
      const { bench, out, short, other, start, delivered } = taken(t, { digests });
      const given = otherName("log.bin", sha256(short), digits);
      if (digits === 16) out.put(other, "of a third");
      const lost = losesAnswer(bench, out, given, () => out.files.delete(digits === 16 ? other : "log.bin"));
      await start();
      await lost();
      out.attach(true);
      await delivered(1);
      assert.deepEqual([...out.files.keys()], digits === 16 ? ["log.bin", given] : [given]);
      assert.equal(receipts(bench)[0]?.found, undefined);
    });

test("what another source brought under the other name of an upload that was begun, and was deleted for it, is not replaced by that", async (t) => {
  const { bench, card, out, bytes, short, other, grow, delivered } = taken(t, { size: 20_000 });
  const twin = new FakeDevice("twin", { tree: true });
  const cut = cutsUpload(bench, out);
  const routes = [
    { from: "card", to: ["out"] },
    { from: "twin", to: ["out"], afterDelivery: "delete" as const },
  ];
  await bench.start({ sources: [card, twin], targets: [out] }, routes);
  await cut();
  const { journal, relist$ } = bench.daemon.engine;
  // The twin's goes first.
  await journal.apply(() => journal.run("UPDATE deliveries SET rank = rank - 1000"));
  twin.put("log.bin", short, t0);
  relist$.next("twin");
  await until(bench, "twin found", () => bench.states("out").length === 2);
  out.before = (call) => {
    // The card's second try begins with a question for its offset: that is later than the twin's.
    if (call.startsWith("offset") && !out.files.has(other)) throw new Fault("transient", "busy");
    return undefined;
  };
  out.attach(true);
  await delivered(2);
  await until(bench, "deleted", () => twin.files.size === 0);
  grow(bytes.length);
  await delivered(3);
  assert.ok(
    [...out.files.values()].some((file) => file.bytes.equals(short)),
    `the twin's has gone from its target: ${[...out.files].map(([path, file]) => `${path} ${file.bytes.length}`).join()}; ${JSON.stringify(receipts(bench))}`,
  );
});

for (const isTaken of [false, true])
  for (const isLost of [false, true])
    test(`a file that grows is one file at a target that gives it a directory (its name is ${isTaken ? "taken" : "free"}${isLost ? ", the journal lost" : ""})`, async (t) => {
      const { bench, card, out, other, start, grow, delivered } = taken(t, { size: 30_000 });
      out.files.clear();
      if (isTaken) out.put("slot/log.bin", "of another");
      givesSlots(out, () => "slot");
      await start();
      await delivered(1);
      if (isLost) {
        await bench.stop();
        loseJournal(bench);
        await start();
        await until(bench, "listed anew", () => card.calls.filter((call) => call === "list").length > 1);
      }
      for (const [n, size] of [20_000, 30_000].entries()) {
        grow(size, (n + 1) * 1000);
        await delivered(n + 2);
      }
      assert.deepEqual([...out.files.keys()], isTaken ? ["slot/log.bin", `slot/${other}`] : ["slot/log.bin"]);
    });

test("what another source brought into the slot that is open by then, and was deleted for it, is not replaced by what grew in one before", async (t) => {
  const { bench, card, out, bytes, short, grow, delivered } = taken(t);
  const twin = new FakeDevice("twin", { tree: true });
  out.files.clear();
  let open = "one";
  givesSlots(out, () => open);
  await bench.start({ sources: [card, twin], targets: [out] }, [
    { from: "card", to: ["out"] },
    { from: "twin", to: ["out"], afterDelivery: "delete" },
  ]);
  await delivered(1);
  open = "two";
  twin.put("log.bin", short, t0);
  bench.daemon.engine.relist$.next("twin");
  await until(bench, "the twin's is deleted", () => dones(bench) === 2 && twin.files.size === 0);
  grow(bytes.length);
  await delivered(3);
  assert.ok(out.files.get("two/log.bin")?.bytes.equals(short), [...out.files.keys()].join());
  assert.ok(out.files.get(`two/${otherName("log.bin", sha256(bytes))}`)?.bytes.equals(bytes), [...out.files.keys()].join());
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

for (const digests of [["sha256"], []] as const)
  test(`two files of one name that began the same each grow under their own, and a touch brings nothing (by ${digests.length === 0 ? "size" : "content"})`, async (t) => {
    const { bench, card, out, short, other, delivered } = taken(t, { digests });
    const twin = new FakeDevice("twin");
    const [a, b] = [randomBytes(10_000), randomBytes(11_000)];
    const puts = async (device: FakeDevice, content: Buffer, n: number) => {
      device.put("log.bin", content, t0 + n * 1000);
      bench.daemon.engine.relist$.next(device.name);
      await delivered(n);
    };
    await bench.start(
      { sources: [card, twin], targets: [out] },
      ["card", "twin"].map((from) => ({ from, to: ["out"] })),
    );
    await delivered(1);
    await puts(card, Buffer.concat([short, a]), 2);
    await puts(twin, short, 3);
    const longer = otherName("log.bin", sha256(short), 16);
    assert.deepEqual([...out.files.keys()], ["log.bin", other, longer]);
    await puts(twin, short, 4);
    assert.deepEqual([...out.files.keys()], ["log.bin", other, longer]);
    await puts(twin, Buffer.concat([short, b]), 5);
    assert.deepEqual([...out.files.keys()], ["log.bin", other, longer]);
    assert.ok(out.files.get(other)?.bytes.equals(Buffer.concat([short, a])));
    assert.ok(out.files.get(longer)?.bytes.equals(Buffer.concat([short, b])));
  });

test("a file that got no name at all leaves nothing once it has grown, and gets one then", async (t) => {
  const { bench, out, bytes, short, other, start, grow, delivered } = taken(t);
  out.put(other, "of a third");
  out.put(otherName("log.bin", sha256(short), 16), "of a fourth");
  await start();
  await until(
    bench,
    "parked",
    () => bench.states("out").join() === "parked" || bench.events.some(({ message }) => message.includes("all taken")),
  );
  grow(bytes.length);
  await delivered(1);
  await until(bench, "nothing left", () => out.partials.size === 0);
  assert.equal(out.files.size, 4);
  assert.ok(out.files.get(otherName("log.bin", sha256(bytes)))?.bytes.equals(bytes));
});

for (const [how, digests] of [
  ["content", ["sha256"]],
  ["size", []],
] as const)
  for (const nth of [0, 1, 2])
    test(`a file that got no name at all gets what a person makes free, once it is tried again (name ${nth + 1}, by ${how})`, async (t) => {
      const { bench, out, short, other, start, delivered } = taken(t, { digests });
      const names = ["log.bin", other, otherName("log.bin", sha256(short), 16)];
      for (const name of names) out.put(name, "of another");
      await start();
      await until(bench, "parked", () => bench.states("out").join() === "parked");
      const { engine } = bench.daemon;
      const reason = engine.journal.get<{ reason: string }>("SELECT reason FROM deliveries")?.reason;
      assert.equal(reason, `${names.join(", ")} are all taken by other files at out`);
      const free = names[nth] ?? "";
      out.files.delete(free);
      await retry(engine, "log.bin", AbortSignal.timeout(5000));
      await delivered(1);
      assert.ok(out.files.get(free)?.bytes.equals(short));
      assert.equal(out.calls.filter((call) => call.startsWith("write")).length, 1);
    });

for (const isTaken of [false, true])
  for (const kept of [false, true])
    test(`what a person has sent again is at its target what was brought before, and grows there (its name is ${isTaken ? "taken" : "free"}, ${kept ? "a" : "no"} copy is here)`, async (t) => {
      const { bench, out, bytes, start, grow, delivered } = taken(t);
      if (!isTaken) out.files.clear();
      await start();
      await delivered(1);
      const { engine } = bench.daemon;
      const [id] = engine.journal.all<{ id: string; version: string }>("SELECT id, version FROM deliveries");
      const version = engine.queue.version(id?.version ?? "");
      assert.ok(id !== undefined && version !== undefined);
      if (!kept) assert.ok(await giveUp(engine, version, "delivered"));
      await retry(engine, id.id, AbortSignal.timeout(5000));
      await delivered(1);
      assert.equal(receipts(bench)[0]?.found, undefined);
      grow(bytes.length);
      await delivered(2);
      assert.equal(out.files.size, isTaken ? 2 : 1);
    });

for (const blind of [false, true])
  for (const [how, digests] of [
    ["content", ["sha256"]],
    ["size", []],
  ] as const) {
    test(`what a person put in the place of a file, as long as that, is not replaced as it is sent again (${blind ? "nobody can look" : "looked at"}, by ${how})`, async (t) => {
      const { bench, out, short, start, delivered } = taken(t, { digests });
      out.files.clear();
      out.blind = blind;
      await start();
      await delivered(1);
      const theirs = randomBytes(short.length);
      out.put("log.bin", theirs);
      const { engine } = bench.daemon;
      const id = engine.journal.get<{ id: string }>("SELECT id FROM deliveries")?.id;
      await retry(engine, id, AbortSignal.timeout(5000));
      await delivered(1);
      assert.ok(out.files.get("log.bin")?.bytes.equals(theirs));
      assert.ok(out.files.get(otherName("log.bin", sha256(short)))?.bytes.equals(short));
    });

    for (const held of [0, 5000])
      test(`an upload that was about to get its name, and of which a power cut left ${held} bytes, is sent (${blind ? "nobody can look" : "looked at"}, by ${how})`, async (t) => {
        const { bench, out, short, start, delivered } = taken(t, { digests });
        out.files.clear();
        out.blind = blind;
        let cut = false;
        out.before = (call) => {
          if (!call.startsWith("commit") || cut) return undefined;
          cut = true;
          for (const [path, bytes] of out.partials) out.partials.set(path, bytes.subarray(0, held));
          out.attach(false);
          throw new Fault("offline", "cut");
        };
        await start();
        await until(bench, "cut", () => cut && bench.daemon.engine.queue.pushing.size === 0);
        out.attach(true);
        await delivered(1);
        assert.ok(out.files.get("log.bin")?.bytes.equals(short));
      });
  }

for (const isTaken of [false, true])
  for (const [how, digests] of [
    ["content", ["sha256"]],
    ["size", []],
  ] as const)
    test(`a file that goes straight through, and got its name by a request whose answer was lost, is not sent twice (its name is ${isTaken ? "taken" : "free"}, by ${how})`, async (t) => {
      const { bench, card, out, other, delivered } = taken(t, { digests });
      if (!isTaken) out.files.clear();
      const start = () => bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], { maxSize: 5000 });
      const lost = losesAnswer(bench, out, isTaken ? other : "log.bin");
      await start();
      await lost();
      await bench.stop();
      out.attach(true);
      await start();
      await delivered(1);
      assert.equal(receipts(bench)[0]?.found, undefined);
      assert.equal(out.files.size, isTaken ? 2 : 1);
      assert.equal(out.calls.filter((call) => call.startsWith("write")).length, 1);
    });

for (const blind of [false, true])
  for (const [how, digests] of [
    ["content", ["sha256"]],
    ["size", []],
  ] as const)
    test(`a file that got its name at a second request, whose answer was lost, is not sent twice, and grows there (${blind ? "nobody can look" : "looked at"}, by ${how})`, async (t) => {
      const { bench, out, bytes, start, grow, delivered } = taken(t, { digests });
      out.files.clear();
      out.blind = blind;
      let asked = 0;
      out.before = (call) => {
        if (call.startsWith("commit") && ++asked === 1) throw new Fault("transient", "busy");
        return undefined;
      };
      out.after = (call) => {
        if (call === "commit" && asked === 2) throw new Fault("transient", "no answer came");
        return undefined;
      };
      await start();
      await delivered(1);
      assert.equal(receipts(bench)[0]?.found, undefined);
      assert.equal(out.calls.filter((call) => call.startsWith("write")).length, 1);
      grow(bytes.length);
      await delivered(2);
      assert.deepEqual([...out.files.keys()], ["log.bin"]);
    });

test("what somebody put under the further name of a file that grew, and had begun, is theirs", async (t) => {
  const { bench, out, bytes, other, start, grow, delivered } = taken(t);
  const longer = bytes.subarray(0, 20_000);
  await start();
  await delivered(1);
  out.put(other, "of a fifth");
  const cut = cutsUpload(bench, out, () => {
    out.put(otherName("log.bin", sha256(longer)), longer);
  });
  grow(longer.length);
  await cut();
  out.attach(true);
  await delivered(2);
  assert.equal(receipts(bench)[1]?.found, true, JSON.stringify(receipts(bench)));
});

test("a file that was found once the journal had been lost grows under its other name", async (t) => {
  const { bench, card, out, bytes, start, grow, delivered } = taken(t);
  card.files.delete("log.bin");
  // Some older receipt, so that the journal counts as rebuilt.
  card.put("old.bin", "old", t0);
  await start();
  await delivered(1);
  await bench.stop();
  loseJournal(bench);
  await start();
  await until(bench, "listed", () => card.calls.filter((call) => call === "list").length >= 2);
  for (const [n, size] of [10_000, 20_000, 40_000].entries()) {
    grow(size, n * 1000);
    await until(bench, `${size}`, () => [...out.files.values()].some((file) => file.bytes.equals(bytes.subarray(0, size))));
  }
  assert.equal(out.files.size, 3, [...out.files.keys()].join());
});
