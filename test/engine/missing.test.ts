/** A file that is read in place and goes while its target is away: told after the next listing, and never of what only cannot be seen. */
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { forget } from "../../core/amend.js";
import { Fault } from "../../core/errors.js";
import { why } from "../../core/why.js";
import { Bench, FakeDevice, until } from "../fake-device.js";

const away = { state: "detached", reason: "the ground is away" } as const;

/** d/a.bin and d/b.bin wait for a target that is away. */
async function waiting(t: TestContext) {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { inPlace: true });
  const out = new FakeDevice("out");
  out.presence$.next(away);
  for (const name of ["a", "b"]) card.put(`d/${name}.bin`, name.repeat(100));
  const start = () => bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await start();
  await until(bench, "found", () => bench.states("out").join() === "ready,ready");
  return { bench, card, out, start };
}

/** So many more listings, to their end. */
async function listed(bench: Bench, times = 1): Promise<void> {
  for (let n = 0; n < times; n++) {
    const finder = bench.daemon.engine.finders.get("card");
    assert.ok(finder);
    await until(bench, "no listing runs", () => !finder.busy);
    const before = finder.listings;
    bench.daemon.engine.relist$.next("card");
    await until(bench, "listed", () => finder.listings > before && !finder.busy);
  }
}

const told = (bench: Bench) => bench.events.filter(({ what }) => what === "lost").map(({ message }) => message);
const lost = (bench: Bench) => bench.daemon.status().lost.map(({ path }) => path);

test("what is missing from a whole listing is lost: told once, in status and why, until it is found again", async (t) => {
  const { bench, card, out } = await waiting(t);
  await listed(bench);
  assert.deepEqual(told(bench), []);
  const a = card.files.get("d/a.bin");
  card.files.delete("d/a.bin");
  await listed(bench, 3);
  assert.deepEqual(told(bench), ["card:d/a.bin: has gone from card before out had it"]);
  assert.deepEqual(lost(bench), ["d/a.bin"]);
  assert.equal(bench.states("out").join(), "dropped,ready");
  const [file] = await why(bench.daemon.engine, "d/a.bin", true, new AbortController().signal);
  assert.match(file?.reasons.map(({ text }) => text).join() ?? "", /it has gone from its source before every target had it/);
  assert.ok(a);
  card.files.set("d/a.bin", a);
  await listed(bench);
  assert.deepEqual(lost(bench), []);
  out.attach(true);
  await until(bench, "both arrive", () => [...out.files.keys()].sort().join() === "d/a.bin,d/b.bin");
});

test("what was lost at a source is told no more once a person forgets it, by the name of the device: nothing else is touched", async (t) => {
  const { bench, card, out } = await waiting(t);
  await listed(bench);
  card.put("d/c.bin", "c");
  await listed(bench);
  for (const name of ["a", "c"]) card.files.delete(`d/${name}.bin`);
  await listed(bench, 3);
  assert.deepEqual(lost(bench).sort(), ["d/a.bin", "d/c.bin"]);
  const done = await forget(bench.daemon.engine, "card");
  assert.deepEqual(done.lost.map(({ file }) => file).sort(), ["card:d/a.bin", "card:d/c.bin"]);
  assert.deepEqual([lost(bench), bench.states("out").sort()], [[], ["dropped", "dropped", "ready"]]);
  await assert.rejects(forget(bench.daemon.engine, "card"), /nothing is told as lost there/);
  out.attach(true);
  await until(bench, "the third arrives", () => out.files.has("d/b.bin"));
});

test("what was sent, or found missing by its push, while it was asked for is not told once more", async (t) => {
  const { bench, card, out } = await waiting(t);
  await listed(bench);
  let asked = false;
  let answer: (() => void) | undefined;
  const held = new Promise<void>((resolve) => (answer = resolve));
  card.before = (call) => {
    if (call !== "stat d/a.bin" || asked) return undefined;
    asked = true;
    return held;
  };
  card.files.delete("d/a.bin");
  bench.daemon.engine.relist$.next("card");
  await until(bench, "a is asked for", () => asked);
  out.attach(true);
  await until(bench, "its push tells that it has gone", () => told(bench).length > 0);
  answer?.();
  await listed(bench, 2);
  assert.deepEqual(told(bench), ["card:d/a.bin → out: it ended after 0 bytes; this version cannot be sent any more"]);
});

test("a file system that is not there proves nothing: neither while it is away, nor where it comes back as another", async (t) => {
  const { bench, card } = await waiting(t);
  await listed(bench);
  const files = new Map(card.files);
  const unmount = () => {
    card.files.clear();
    card.volume = "what is below";
  };
  unmount();
  await listed(bench, 3);
  assert.deepEqual(told(bench), []);
  for (const [path, file] of files) card.files.set(path, file);
  card.volume = "its disk, as another number";
  await listed(bench, 2);
  assert.deepEqual(told(bench), []);
  card.files.delete("d/b.bin");
  await listed(bench, 2);
  assert.deepEqual(told(bench), ["card:d/b.bin: has gone from card before out had it"]);
  unmount();
  await listed(bench, 2);
  assert.deepEqual(lost(bench), ["d/b.bin"]);
  assert.equal(bench.states("out").join(), "ready,dropped");
});

test("what went while no daemon ran is told by the next one; what it cannot ask for waits, and so does what only the listing left out", async (t) => {
  const { bench, card, start } = await waiting(t);
  await listed(bench);
  await bench.stop();
  const b = card.files.get("d/b.bin");
  assert.ok(b);
  card.files.delete("d/a.bin");
  card.files.delete("d/b.bin");
  card.before = (call) => {
    // It is there, and the listing did not show it.
    if (call === "stat d/b.bin") card.files.set("d/b.bin", b);
    return call === "stat d/a.bin" ? Promise.reject(new Fault("denied", "the directory may not be read")) : undefined;
  };
  await start();
  await listed(bench, 2);
  assert.ok(card.calls.includes("stat d/a.bin"), "it was asked for");
  assert.deepEqual(told(bench), []);
  card.before = () => undefined;
  await listed(bench);
  assert.deepEqual(told(bench), ["card:d/a.bin: has gone from card before out had it"]);
  assert.equal(bench.states("out").join(), "dropped,ready");
});

test("what a target that is away holds whole is not told as lost, and published once it is back", async (t) => {
  const { bench, card, out } = await waiting(t);
  await listed(bench);
  out.before = (call) => {
    if (call !== "commit d/a.bin") return undefined;
    out.presence$.next(away);
    return Promise.reject(new Fault("offline", "the ground is away"));
  };
  out.attach(true);
  await until(bench, "the first is whole there", () => out.calls.includes("commit d/a.bin") && bench.states("out")[0] === "ready");
  out.before = () => undefined;
  card.files.delete("d/a.bin");
  await listed(bench, 3);
  assert.deepEqual(told(bench), []);
  out.attach(true);
  await until(bench, "both arrive", () => bench.states("out").join() === "done,done");
});

test("a listing with nothing new asks for no file; what was delivered may go", async (t) => {
  const { bench, card, out } = await waiting(t);
  await listed(bench, 2);
  const calls = () => card.calls.filter((call) => /^(stat|volume) /.test(call)).length;
  const before = calls();
  await listed(bench, 3);
  assert.equal(calls(), before);
  out.attach(true);
  await until(bench, "delivered", () => bench.states("out").join() === "done,done");
  card.files.clear();
  await listed(bench, 2);
  assert.deepEqual(told(bench), []);
});

test("what a route deletes by itself, before a target that need not have it is there, is not told as a loss", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { inPlace: true, tree: true });
  const [out, beside] = [new FakeDevice("out"), new FakeDevice("beside")];
  beside.presence$.next(away);
  card.put("a.bin", "a");
  const to = ["out", { device: "beside", required: false }];
  await bench.start({ sources: [card], targets: [out, beside] }, [{ from: "card", to, afterDelivery: "delete" }]);
  await until(bench, "deleted", () => bench.events.some(({ what }) => what === "released"));
  assert.equal(card.files.size, 0);
  await listed(bench, 3);
  assert.deepEqual(told(bench), []);
});

test("a name that is listed twice, once as another file than is there (a line end in a name, to FTP): that is there arrives, the other is left, and no listing finds it again", async (t) => {
  for (const first of [true, false]) {
    const bench = new Bench(t);
    const card = new FakeDevice("card");
    const out = new FakeDevice("out");
    card.put("a.bin", "what is there");
    const other = { path: "a.bin", kind: "file", size: 99, modifiedMs: Date.UTC(2026, 4, 1), settled: true } as const;
    card.besides = [other];
    card.besidesFirst = first;
    await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], into: "" }]);
    await until(bench, "what is there arrives", () => out.files.get("a.bin")?.bytes.toString() === "what is there");
    await until(bench, "the other is left", () => bench.daemon.status().devices[0]?.leftOut?.path === "a.bin");
    await listed(bench);
    const found = () => bench.events.filter(({ what }) => what === "found").length;
    const before = found();
    await listed(bench, 3);
    assert.equal(found(), before, "nothing is found any more");
    await bench.stop();
  }
});
