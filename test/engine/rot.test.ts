/** What the medium of the state directory did to a copy in the spool after it was synced: bits that flipped, blocks that power took, files that cannot be looked at any more. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { Fault } from "../../core/errors.js";
import { Bench, FakeDevice, until } from "../fake-device.js";

const copyIn = (bench: Bench) =>
  join(bench.dir, "spool", readdirSync(join(bench.dir, "spool")).find((name) => /^[0-9a-f]{16}$/.test(name)) ?? "none");

function rot(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  writeFileSync(path, bytes);
}

for (const [how, target] of [
  ["proves no content", { digests: [] }],
  ["is a single shot", { digests: [], singleShot: true, resume: false }],
] as const)
  test(`a copy in the spool that is another by now is not delivered to a target that ${how}: it is pulled again`, async (t) => {
    const bench = new Bench(t);
    const [card, out] = [new FakeDevice("card"), new FakeDevice("out", { target })];
    const bytes = randomBytes(3_000_000);
    card.put("a.bin", bytes);
    out.attach(false);
    await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
    await until(bench, "it is whole here", () => bench.events.some(({ what }) => what === "pulled"));
    rot(copyIn(bench), 1_500_000);
    out.attach(true);
    await until(bench, "it is delivered", () => bench.states("out")[0] === "done");
    assert.ok(out.files.get("a.bin")?.bytes.equals(bytes));
  });

for (const [how, target, lostBy] of [
  ["sent, by its size", { digests: [] }, "while it runs"],
  ["sent, by its content", {}, "while it runs"],
  ["sent, and was cut off while nothing ran", {}, "while nothing ran"],
  ["sent whole, and the answer was lost", { digests: [], resume: false }, "while it runs"],
  ["sent, and its medium fails there", {}, "by its medium"],
] as const)
  test(`a copy of which a longer one is here, too, is damaged after it was begun to be ${how}: it is made anew from that, its source is not waited for`, async (t) => {
    const bench = new Bench(t);
    const [card, out] = [new FakeDevice("card"), new FakeDevice("out", { target })];
    const bytes = randomBytes(50_000);
    const devices = { sources: [card], targets: [out] };
    const routes = [{ from: "card", to: ["out"] }];
    card.put("log.bin", bytes.subarray(0, 20_000), Date.UTC(2026, 4, 1));
    out.before = (call) => {
      if (call !== "commit log.bin") return undefined;
      out.attach(false);
      throw new Fault("offline", "cut");
    };
    await bench.start(devices, routes);
    await until(bench, "it is sent", () => out.partials.size === 1 && bench.states("out")[0] === "ready");
    const copy = copyIn(bench);
    card.put("log.bin", bytes, Date.UTC(2026, 4, 2));
    bench.daemon.engine.relist$.next("card");
    await until(bench, "the longer one is here", () => bench.events.filter(({ what }) => what === "pulled").length === 2);
    card.attach(false);
    out.partials.clear();
    out.before = () => undefined;
    if (lostBy === "while nothing ran") {
      await bench.stop();
      truncateSync(copy, 10_000);
      await bench.start(devices, routes);
    } else if (lostBy === "while it runs") rot(copy, 1000);
    else {
      const { spool } = bench.daemon.engine;
      const { ino } = statSync(copy);
      const reader = spool.reader.bind(spool);
      const failed = Object.assign(new Error("EIO: i/o error, read"), { code: "EIO", syscall: "read" });
      spool.reader = async (version) => {
        const handle = await reader(version);
        return (await handle.stat()).ino === ino ? Object.assign(handle, { read: () => Promise.reject(failed) }) : handle;
      };
    }
    out.attach(true);
    await until(bench, "delivered", () => out.files.get("log.bin")?.bytes.equals(bytes) === true);
    assert.deepEqual([...out.files.keys()], ["log.bin"]);
    assert.ok(bench.events.some(({ what, message }) => what === "spool-damaged" && message.includes("made anew")));
    await until(bench, "nothing is left", () => bench.states("out").every((state) => state === "done" || state === "dropped"));
  });

test("a copy that a target is given by its path is not read whole before each try, nor for each try to give it its name", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card"), new FakeDevice("out", { target: { needs: "sealedPath", digests: [] } })];
  card.put("a.bin", randomBytes(3_000_000));
  out.attach(false);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "it is whole here", () => bench.events.some(({ what }) => what === "pulled"));
  const { spool } = bench.daemon.engine;
  const opened = spool.reader.bind(spool);
  let reads = 0;
  spool.reader = (id) => {
    reads += 1;
    return opened(id);
  };
  const fails = new Set(["write a.bin 0", "commit a.bin"]);
  out.before = (call) => (fails.delete(call) ? Promise.reject(new Fault("transient", "the link went")) : undefined);
  out.attach(true);
  await until(bench, "it is delivered", () => bench.states("out")[0] === "done", 20_000);
  assert.equal(fails.size, 0);
  // As it is sent.
  assert.equal(reads, 1);
});

for (const [what, spoil] of [
  ["is damaged", (bench: Bench) => rot(copyIn(bench), 1000)],
  ["is of a source that the configuration does not have", () => undefined],
] as const)
  test(`the journal is lost, and a whole copy in the spool ${what}: it is kept, for it may be all that there is`, async (t) => {
    const bench = new Bench(t);
    const [card, out] = [new FakeDevice("card"), new FakeDevice("out")];
    card.put("a.bin", randomBytes(300_000));
    out.attach(false);
    await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
    await until(bench, "it is whole here", () => bench.events.some(({ what }) => what === "pulled"));
    await bench.stop();
    spoil(bench);
    const bytes = readFileSync(copyIn(bench));
    for (const end of ["", "-wal"]) rmSync(join(bench.dir, `journal.db${end}`), { force: true });
    const other = new FakeDevice(what === "is damaged" ? "card" : "other");
    await bench.start({ sources: [other], targets: [out] }, [{ from: other.name, to: ["out"] }]);
    const dirs = ["spool", "damaged"].map((dir) => join(bench.dir, dir)).filter((dir) => existsSync(dir));
    const kept = dirs.flatMap((dir) => readdirSync(dir).map((name) => join(dir, name)));
    assert.ok(
      kept.some((path) => readFileSync(path).equals(bytes)),
      kept.join(" "),
    );
  });

test("a directory that has the name of a copy in the spool does not keep the daemon down", async (t) => {
  const bench = new Bench(t);
  mkdirSync(join(bench.dir, "spool", "0123456789abcdef"), { recursive: true });
  mkdirSync(join(bench.dir, "spool", "0123456789abcdee.json"), { recursive: true });
  await bench.start({ sources: [new FakeDevice("card")], targets: [new FakeDevice("out")] }, [{ from: "card", to: ["out"] }]);
});

test("what a source that is away has half here takes no more of the spool than it has", async (t) => {
  const bench = new Bench(t);
  const mb = 10 ** 6;
  const [gone, card, out] = [new FakeDevice("gone", { chunk: mb }), new FakeDevice("card"), new FakeDevice("out")];
  gone.put("long", randomBytes(9 * mb));
  let leave = (): void => undefined;
  const left = new Promise<void>((_, reject) => (leave = () => reject(new Fault("offline", "unplugged"))));
  gone.before = (call) => (call === `read long ${5 * mb}` ? left : undefined);
  const routes = [
    { from: "gone", to: ["out"] },
    { from: "card", to: ["out"] },
  ];
  await bench.start({ sources: [gone, card], targets: [out] }, routes, { maxSize: 10 * mb, device: { intervalMs: 50 } });
  await until(
    bench,
    "it is half here",
    () =>
      gone.calls.includes("open long 0") &&
      (bench.daemon.engine.journal.get<{ durable: number }>("SELECT durable FROM versions")?.durable ?? 0) >= 3 * mb,
  );
  gone.attach(false);
  leave();
  card.put("b", randomBytes(4 * mb));
  await until(bench, "the other arrives", () => out.files.has("b"), 5000);
  gone.before = () => undefined;
  gone.attach(true);
  await until(bench, "and the first", () => out.files.has("long"));
});

for (const [of, doubtedBytes] of [
  ["", undefined],
  [", of a source of which what came last is in doubt", 2 ** 20],
] as const)
  test(`what was half here${of}, and is another by now between its ends, is pulled anew: its digest would be that of the damage`, async (t) => {
    const bench = new Bench(t);
    const mb = 10 ** 6;
    const [card, out] = [
      new FakeDevice("card", { chunk: mb, tree: true, ...(doubtedBytes === undefined ? {} : { doubtedBytes }) }),
      new FakeDevice("out"),
    ];
    const bytes = randomBytes(9 * mb);
    card.put("long", bytes);
    out.attach(false);
    const start = () => bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], afterDelivery: "delete" }]);
    const durable = () => bench.daemon.engine.journal.get<{ durable: number }>("SELECT durable FROM versions")?.durable ?? 0;
    let met = (): void => undefined;
    const there = new Promise<void>((resolve) => (met = resolve));
    card.before = (call) => (call === `read long ${8 * mb}` ? (met(), new Promise(() => undefined)) : undefined);
    await start();
    await there;
    await until(bench, "some is durable", () => durable() >= 2 * mb);
    await bench.daemon.engine.journal.durable();
    const at = durable() - 10_000;
    await bench.kill();
    card.before = () => undefined;
    rot(copyIn(bench), at);
    out.attach(true);
    await start();
    await until(bench, "it is deleted at its source", () => !card.files.has("long"));
    assert.ok(out.files.get("long")?.bytes.equals(bytes));
    assert.ok(bench.events.some(({ what, message }) => what === "restarted" && message.includes("is not what it was")));
  });

test("what was half here of a file that grew, is another by now, and is pulled anew, is not sent before that was begun: its target proves no content", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card", { chunk: 100_000 }), new FakeDevice("out", { target: { digests: [] } })];
  const bytes = randomBytes(900_000);
  card.put("log", bytes.subarray(0, 600_000), Date.UTC(2026, 4, 1));
  out.attach(false);
  const start = () => bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  card.before = (call) => {
    if (call !== "read log 500000") return undefined;
    throw new Fault("offline", "the cable");
  };
  await start();
  const durable = () => bench.daemon.engine.journal.get<{ durable: number }>("SELECT durable FROM versions")?.durable ?? 0;
  await until(bench, "half of it is durable", () => durable() === 500_000);
  await bench.daemon.engine.journal.durable();
  await bench.kill();
  let go = (): void => undefined;
  const held = new Promise<void>((resolve) => (go = resolve));
  rot(copyIn(bench), 250_000);
  card.put("log", bytes, Date.UTC(2026, 4, 2));
  card.before = (call) => (call === "list" ? held : undefined);
  await start();
  const { live, spool } = bench.daemon.engine;
  const writer = spool.writer.bind(spool);
  spool.writer = async (version, offset) => {
    if (offset === 0) {
      out.attach(true);
      await until(bench, "somebody wants to send it", () => (live.get(version)?.followers ?? 0) > 0);
      // A file that is opened meanwhile is open by then.
      for (let n = 0; n < 100; n++) await readFile(spool.pathOf(version));
    }
    return writer(version, offset);
  };
  go();
  await until(bench, "it is delivered", () => bench.states("out")[0] === "done");
  assert.ok(out.files.get("log")?.bytes.equals(bytes));
});

test("what was half here of a file that grew, and is another by now between its ends, is no beginning of it, after a start neither", async (t) => {
  const bench = new Bench(t);
  const mb = 10 ** 6;
  const [card, out] = [new FakeDevice("card", { chunk: mb }), new FakeDevice("out")];
  const bytes = randomBytes(10 * mb);
  card.put("long", bytes.subarray(0, 9 * mb));
  const start = () => bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  out.attach(false);
  let met = (): void => undefined;
  const there = new Promise<void>((resolve) => (met = resolve));
  card.before = (call) => (call === `read long ${8 * mb}` ? (met(), new Promise(() => undefined)) : undefined);
  await start();
  await there;
  await bench.stop();
  card.put("long", bytes, Date.UTC(2026, 4, 2));
  // The longer one takes the place of what was half here, and nothing is read of it.
  await bench.killedAt(card, "stat long", start);
  rot(copyIn(bench), 1_500_000);
  out.attach(true);
  await start();
  await until(bench, "it is delivered", () => bench.states("out").includes("done"));
  assert.ok(out.files.get("long")?.bytes.equals(bytes));
});

test("a copy in the spool that is another by now is no beginning of the file that grew from it", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card"), new FakeDevice("out")];
  const bytes = randomBytes(3_000_000);
  card.put("a.bin", bytes.subarray(0, 2_000_000));
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], { device: { intervalMs: 50 } });
  await until(bench, "it is delivered", () => bench.states("out")[0] === "done");
  rot(copyIn(bench), 1_000_000);
  card.put("a.bin", bytes, Date.UTC(2026, 4, 2));
  await until(bench, "the longer one is", () => bench.states("out").length === 2 && bench.states("out").every((state) => state === "done"));
  assert.deepEqual([...out.files.keys()], ["a.bin"]);
  assert.ok(out.files.get("a.bin")?.bytes.equals(bytes));
});

test("the journal is lost: what was superseded before it was sent does not come again, nor what took its place", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card"), new FakeDevice("out", { target: { digests: [], singleShot: true, resume: false } })];
  const bytes = randomBytes(300_000);
  card.put("a.bin", bytes.subarray(0, 200_000));
  out.attach(false);
  const start = () => bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], { device: { intervalMs: 50 } });
  const pulled = (times: number) => () => bench.events.filter(({ what }) => what === "pulled").length === times;
  await start();
  await until(bench, "it is whole here", pulled(1));
  card.put("a.bin", bytes, Date.UTC(2026, 4, 2));
  await until(bench, "the longer one, too", pulled(2));
  out.attach(true);
  await until(bench, "that is sent", () => out.files.size === 1);
  await until(bench, "its receipt", () => bench.events.some(({ what }) => what === "delivered"));
  await bench.stop();
  for (const end of ["", "-wal"]) rmSync(join(bench.dir, `journal.db${end}`), { force: true });
  out.calls.length = 0;
  await start();
  const listed = bench.events.length;
  await until(bench, "it was listed a few times", () => bench.events.slice(listed).filter(({ what }) => what === "listed").length > 5);
  assert.deepEqual(
    out.calls.filter((call) => call.startsWith("write")),
    [],
  );
});

test("what the spool can never hold any more gives back what it had of it", async (t) => {
  const bench = new Bench(t);
  const mb = 10 ** 6;
  const [card, out] = [new FakeDevice("card", { chunk: mb }), new FakeDevice("out")];
  const bytes = randomBytes(9 * mb);
  card.put("long", bytes);
  const start = (maxSize: number) => bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], { maxSize });
  card.before = (call) => (call === `read long ${8 * mb}` ? new Promise(() => undefined) : undefined);
  await start(10 * mb);
  const spooled = () => bench.daemon.engine.journal.get<{ durable: number }>("SELECT durable FROM versions")?.durable ?? 0;
  await until(bench, "some is durable", () => spooled() >= 3 * mb);
  await bench.stop();
  card.before = () => undefined;
  await start(5 * mb);
  await until(bench, "it is delivered", () => bench.states("out")[0] === "done");
  assert.ok(out.files.get("long")?.bytes.equals(bytes));
  // It may be delivered sooner than the copy is removed.
  await until(bench, "nothing is left here", () => bench.daemon.engine.spool.usedBytes === 0);
  assert.deepEqual(readdirSync(join(bench.dir, "spool")), []);
});

test("what was removed from the spool and cannot be (a damaged inode, say) ends nothing", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card"), new FakeDevice("out")];
  card.put("a", randomBytes(1000));
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], { maxSize: 1500, device: { intervalMs: 50 } });
  await until(bench, "it is delivered", () => bench.states("out")[0] === "done");
  const at = copyIn(bench);
  rmSync(at);
  mkdirSync(at);
  card.put("b", randomBytes(1000));
  await until(bench, "the other, too", () => out.files.has("b"));
  assert.deepEqual(
    bench.events.filter(({ what }) => what === "journal-failed"),
    [],
  );
});

test("a copy in the spool that is damaged again, or still, is pulled again each time: what it is sent for is not set aside", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card"), new FakeDevice("out")];
  const bytes = randomBytes(300_000);
  card.put("a.bin", bytes);
  let left = 3;
  out.before = (call) => {
    if (call.startsWith("write") && left-- > 0) rot(copyIn(bench), 1000);
    return undefined;
  };
  out.attach(false);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "it is whole here", () => bench.events.some(({ what }) => what === "pulled"));
  out.attach(true);
  await until(bench, "it is delivered", () => bench.states("out")[0] === "done");
  assert.ok(out.files.get("a.bin")?.bytes.equals(bytes));
});
