/** Room on the spool's disk, as it is promised, given up and taken back. The disk is simulated: it holds so much, and nothing else. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Fault } from "../../core/errors.js";
import { Bench, crc32, FakeDevice, until } from "../fake-device.js";

const mb = 10 ** 6;
const often = { device: { intervalMs: 50 } };

function disk(t: TestContext, bench: Bench, bytes: number): void {
  const dir = join(bench.dir, "spool");
  const sizeOf = (name: string) => statSync(join(dir, name), { throwIfNoEntry: false })?.size ?? 0;
  const free = () => bytes - readdirSync(dir).reduce((sum, name) => sum + sizeOf(name), 0);
  t.mock.method(bench.daemon.engine.spool, "freeBytes", () => Promise.resolve(free()));
}

test("what waits for a target that is away is not given up where that makes too little room: it would be pulled again at once, and again", async (t) => {
  const bench = new Bench(t);
  const [card, cam] = [new FakeDevice("card"), new FakeDevice("cam", { chunk: mb })];
  const [out, away] = [new FakeDevice("out"), new FakeDevice("away")];
  away.attach(false);
  let go = (): void => undefined;
  const held = new Promise<void>((resolve) => (go = resolve));
  cam.before = (call) => (call.startsWith("read long ") && !call.endsWith(" 0") ? held : undefined);
  const routes = [
    { from: "card", to: ["away"], include: ["small"] },
    { from: "card", to: ["out"], include: ["next"] },
    { from: "cam", to: ["out"] },
  ];
  await bench.start({ sources: [card, cam], targets: [out, away] }, routes, often);
  disk(t, bench, 10 * mb);
  card.put("small", Buffer.alloc(mb));
  await until(bench, "it is here", () => bench.events.some(({ what }) => what === "pulled"));
  cam.put("long", Buffer.alloc(6 * mb));
  await until(bench, "the long one is being fetched", () => cam.calls.includes("open long 0"));
  card.put("next", Buffer.alloc(5 * mb));
  await until(bench, "the next one waits", () => bench.events.some(({ what }) => what === "spool-full"));
  await sleep(300);
  go();
  await until(bench, "both arrive", () => out.files.size === 2);
  assert.equal(card.calls.filter((call) => call === "open small 0").length, 1);
});

test("room that is made for one is not taken back meanwhile by what was given up for it", async (t) => {
  const bench = new Bench(t);
  const [card, cam] = [new FakeDevice("card", { concurrency: 8 }), new FakeDevice("cam")];
  const [out, away] = [new FakeDevice("out"), new FakeDevice("away")];
  away.attach(false);
  const routes = [
    { from: "card", to: ["away"] },
    { from: "cam", to: ["out"] },
  ];
  await bench.start({ sources: [card, cam], targets: [out, away] }, routes, often);
  disk(t, bench, 10 * mb);
  for (let n = 0; n < 8; n++) card.put(`small${n}`, Buffer.alloc(mb));
  await until(bench, "all are here", () => bench.events.filter(({ what }) => what === "pulled").length === 8);
  const opened = () => card.calls.filter((call) => call.startsWith("open small")).length;
  let before = 0;
  cam.before = (call) => {
    if (call === "open big 0") before = opened();
    return undefined;
  };
  cam.put("big", Buffer.alloc(6 * mb));
  await until(bench, "it arrives", () => out.files.has("big"));
  assert.equal(before, 8);
});

test("what has to be read once more has the room of what was read of it", async (t) => {
  const bench = new Bench(t);
  const said: string[] = [];
  const crc = (bytes: Buffer) => {
    said.push(crc32(bytes));
    return said.length === 1 ? ("crc32-mavlink:00000000" as const) : crc32(bytes);
  };
  const [card, out] = [new FakeDevice("card", { crc }), new FakeDevice("out")];
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], often);
  disk(t, bench, 10 * mb);
  card.put("a", Buffer.alloc(6 * mb, "a"));
  await until(bench, "it arrives", () => out.files.size === 1);
});

test("what is another file by the time that it has room gives that back", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card"), new FakeDevice("out")];
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], often);
  const { spool, journal } = bench.daemon.engine;
  let go = (): void => undefined;
  const looked = new Promise<number>((resolve) => (go = () => resolve(2 ** 40)));
  const asks = t.mock.method(spool, "freeBytes", () => looked);
  card.put("a", "the first");
  await until(bench, "it is asked for room", () => asks.mock.callCount() > 0);
  card.put("a", "another", Date.UTC(2026, 4, 2));
  await until(bench, "the other is found", () => journal.all("SELECT id FROM versions").length === 2);
  go();
  await until(bench, "the other arrives", () => out.files.size === 1);
  assert.equal(spool.usedBytes, "another".length);
});

test("what waits for space has it as soon as another was deleted at its source, whose copy may be given up then", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card", { tree: true }), new FakeDevice("out")];
  let go = (): void => undefined;
  const held = new Promise<void>((resolve) => (go = resolve));
  card.before = (call) => (call.startsWith("remove a") ? held : undefined);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], afterDelivery: "delete" }], often);
  disk(t, bench, 10 * mb);
  card.put("a", Buffer.alloc(6 * mb, "a"));
  await until(bench, "a is about to be deleted", () => card.calls.includes("remove a"));
  card.put("b", Buffer.alloc(6 * mb, "b"));
  await until(bench, "b waits", () => bench.events.some(({ what }) => what === "spool-full"));
  go();
  await until(bench, "b arrives", () => out.files.size === 2);
});

test("what is deleted at its source while room is looked for is not given up for a target that is away: its copy here is the only one", async (t) => {
  const bench = new Bench(t);
  const [card, ground, review] = [new FakeDevice("card", { tree: true }), new FakeDevice("ground"), new FakeDevice("review")];
  review.attach(false);
  let go = (): void => undefined;
  const held = new Promise<void>((resolve) => (go = resolve));
  const released = () =>
    bench.daemon.engine.journal.get<{ released: string | null }>("SELECT released FROM versions WHERE path = 'x1'")?.released;
  card.before = async (call) => {
    if (call.startsWith("remove x")) await held;
    // Of the two that may go, the first was looked at.
    if (call !== "stat x2" || !card.files.has("next")) return;
    go();
    await until(bench, "the first is deleted", () => released() === "deleted at its source");
  };
  await bench.start(
    { sources: [card], targets: [ground, review] },
    [{ from: "card", to: ["ground", { device: "review", required: false }], afterDelivery: "delete" }],
    often,
  );
  disk(t, bench, 10 * mb);
  card.put("x1", Buffer.alloc(3 * mb, "1"));
  await until(bench, "it is to be deleted", () => card.calls.includes("remove x1"));
  card.put("x2", Buffer.alloc(3 * mb, "2"));
  await until(bench, "delivered", () => ground.files.size === 2);
  card.put("next", Buffer.alloc(8 * mb, "n"));
  await until(bench, "looked for", () => card.calls.includes("stat next") || bench.events.some(({ what }) => what === "spool-full"));
  review.attach(true);
  await until(bench, "all arrive", () => review.files.size === 3 && ground.files.size === 3 && card.files.size === 0);
  assert.ok(!bench.events.some(({ what }) => what === "lost"));
});

test("what was delivered while room is looked for is given up as that: it is not to be pulled again", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card"), new FakeDevice("out")];
  let go = (): void => undefined;
  const held = new Promise<void>((resolve) => (go = resolve));
  out.before = (call) => (call === "commit a" ? held : undefined);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], often);
  disk(t, bench, 10 * mb);
  const { spool, journal } = bench.daemon.engine;
  card.put("a", Buffer.alloc(6 * mb, "a"));
  await until(bench, "it gets its name", () => out.calls.includes("commit a"));
  const lacks = spool.lacks.bind(spool);
  let asked = 0;
  t.mock.method(spool, "lacks", async (id: string, size: number) => {
    // First whether it has room at all.
    if ((asked += 1) === 2) {
      go();
      await until(bench, "done", () => bench.states("out")[0] === "done");
    }
    return lacks(id, size);
  });
  card.put("b", Buffer.alloc(6 * mb, "b"));
  await until(bench, "the next arrives", () => out.files.has("b"));
  assert.ok(!bench.events.some(({ what }) => what === "given-up"));
  assert.equal(journal.get<{ state: string }>("SELECT state FROM versions WHERE path = 'a'")?.state, "sealed");
});

test("a deletion wakes those that wait for space only where it leaves a copy that may go", async (t) => {
  const bench = new Bench(t);
  const [card, cam] = [new FakeDevice("card", { tree: true, inPlace: true }), new FakeDevice("cam")];
  const [gone, out, away] = [new FakeDevice("gone"), new FakeDevice("out"), new FakeDevice("away")];
  away.attach(false);
  const routes = [
    { from: "card", to: ["out"], afterDelivery: "delete" as const },
    { from: "cam", to: ["away"], include: ["small"] },
    { from: "cam", to: ["out"], include: ["huge"] },
    { from: "gone", to: ["away"] },
  ];
  await bench.start({ sources: [card, cam, gone], targets: [out, away] }, routes, { device: { intervalMs: 600_000 } });
  disk(t, bench, 10 * mb);
  const relist = (name: string) => bench.daemon.engine.relist$.next(name);
  const pulled = (n: number) => until(bench, `pulled: ${n}`, () => bench.events.filter(({ what }) => what === "pulled").length === n);
  gone.put("only", Buffer.alloc(3 * mb));
  relist("gone");
  await pulled(1);
  gone.attach(false);
  cam.put("small", Buffer.alloc(mb));
  relist("cam");
  await pulled(2);
  cam.put("huge", Buffer.alloc(9 * mb));
  relist("cam");
  await until(bench, "it waits", () => bench.events.some(({ what }) => what === "spool-full"));
  const looks = () => cam.calls.filter((call) => call === "stat small").length;
  for (let n = 0; n < 40; n++) card.put(`f${n}`, "x");
  // What wakes within some ms is looked at once.
  card.before = async (call) => {
    if (!call.startsWith("remove ")) return;
    await until(bench, "delivered", () => out.files.size === 40);
    await sleep(20);
  };
  relist("card");
  await until(bench, "delivered", () => out.files.size === 40);
  await sleep(50);
  const before = looks();
  await until(bench, "all deleted", () => card.files.size === 0);
  assert.ok(looks() - before < 10, `${looks() - before} looks`);
});

for (const answered of [true, false])
  test(`of what was ${answered ? "" : "perhaps "}deleted at its source the copy here is the only one, whatever has its place and looks the same`, async (t) => {
    const bench = new Bench(t);
    const [card, cam] = [new FakeDevice("card", { tree: true }), new FakeDevice("cam")];
    const [ground, review] = [new FakeDevice("ground"), new FakeDevice("review")];
    review.attach(false);
    const routes = [
      { from: "card", to: ["ground", { device: "review", required: false }], afterDelivery: "delete" as const },
      { from: "cam", to: ["ground"] },
    ];
    const other = () => card.put("x", Buffer.alloc(4 * mb, "2"));
    let asked = 0;
    card.before = (call) => {
      if (call !== "remove x" || answered || (asked += 1) > 1) return undefined;
      other();
      return Promise.reject(new Fault("transient", "the answer was lost"));
    };
    await bench.start({ sources: [card, cam], targets: [ground, review] }, routes, { device: { intervalMs: 600_000 } });
    disk(t, bench, 10 * mb);
    card.put("x", Buffer.alloc(4 * mb, "1"));
    bench.daemon.engine.relist$.next("card");
    const { queue } = bench.daemon.engine;
    if (answered) {
      await until(bench, "deleted", () => bench.events.some(({ what }) => what === "released"));
      other();
    } else await until(bench, "it failed", () => queue.unreleased === 1 && queue.releasing.size === 0);
    cam.put("next", Buffer.alloc(8 * mb, "n"));
    bench.daemon.engine.relist$.next("cam");
    await until(bench, "room was looked for", () => bench.events.some(({ what }) => what === "spool-full" || what === "given-up"));
    review.attach(true);
    await until(bench, "it has the first, and there is room", () => review.files.has("x") && ground.files.has("next"));
    assert.equal(review.files.get("x")?.bytes[0], "1".charCodeAt(0));
  });

test("what is perhaps deleted at its source between the look at that and the act is not given up", async (t) => {
  const bench = new Bench(t);
  const [card, cam, slow] = [new FakeDevice("card", { tree: true }), new FakeDevice("cam"), new FakeDevice("slow")];
  const [ground, review] = [new FakeDevice("ground"), new FakeDevice("review")];
  review.attach(false);
  const routes = [
    { from: "card", to: ["ground", { device: "review", required: false }], afterDelivery: "delete" as const },
    { from: "slow", to: ["review"] },
    { from: "cam", to: ["ground"] },
  ];
  await bench.start({ sources: [card, cam, slow], targets: [ground, review] }, routes, { device: { intervalMs: 600_000 } });
  disk(t, bench, 10 * mb);
  const { queue } = bench.daemon.engine;
  let tries = 0;
  card.before = (call) => {
    if (call !== "remove x" || (tries += 1) > 2) return undefined;
    if (tries === 1) return Promise.reject(new Fault("denied", "busy"));
    card.files.delete("x");
    return Promise.reject(new Fault("transient", "the answer was lost"));
  };
  card.put("x", Buffer.alloc(3 * mb, "1"));
  bench.daemon.engine.relist$.next("card");
  await until(bench, "it failed", () => queue.unreleased === 1 && queue.releasing.size === 0);
  slow.put("s", Buffer.alloc(3 * mb, "s"));
  bench.daemon.engine.relist$.next("slow");
  await until(bench, "it is here", () => bench.events.filter(({ what }) => what === "pulled").length === 2);
  let go = (): void => undefined;
  const held = new Promise<void>((resolve) => (go = resolve));
  let looked = false;
  slow.before = (call) => {
    looked ||= call === "stat s";
    return call === "stat s" ? held : undefined;
  };
  cam.put("next", Buffer.alloc(9 * mb, "n"));
  bench.daemon.engine.relist$.next("cam");
  await until(bench, "the second is looked at", () => looked);
  card.attach(false);
  card.attach(true);
  await until(bench, "deleted, and the answer lost", () => tries === 2 && queue.releasing.size === 0);
  go();
  await until(bench, "room was looked for", () => bench.events.some(({ what }) => what === "spool-full" || what === "given-up"));
  review.attach(true);
  await until(bench, "all arrive", () => review.files.size === 2 && ground.files.size === 2);
  assert.ok(!bench.events.some(({ what }) => what === "lost"));
});

test("what a longer one was found of while room was sought for another is not pulled any more", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card"), new FakeDevice("out")];
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  const { spool, queue, journal } = bench.daemon.engine;
  const reserve = spool.reserve.bind(spool);
  const idOf = (path: string) => queue.latest("card", { path })?.id;
  spool.reserve = async (id, bytes) => {
    const [first, second] = [idOf("b.bin"), idOf("a.bin")];
    if (id !== first) return reserve(id, bytes);
    if (second !== undefined) await journal.apply(() => queue.makeWay(second));
    return false;
  };
  card.put("a.bin", randomBytes(10_000));
  card.put("b.bin", randomBytes(10_000));
  bench.daemon.engine.relist$.next("card");
  await until(bench, "the first waits", () => bench.events.some(({ what }) => what === "spool-full"));
  spool.reserve = reserve;
  bench.daemon.engine.work$.next();
  await until(bench, "it arrives", () => out.files.has("b.bin"));
  const pulled = bench.events.filter(({ what }) => what === "pulled").map(({ message }) => message.replace(/: .*/, ""));
  assert.deepEqual(pulled, ["card:b.bin"]);
});
