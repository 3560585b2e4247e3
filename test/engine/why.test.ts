/** Every reason that can hold a file back, made with devices in memory; and hand commands beside what the daemon does. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { forget, retry } from "../../core/amend.js";
import { answerWith } from "../../core/commands.js";
import { exchangeFor } from "../../core/control.js";
import { Fault } from "../../core/errors.js";
import { why } from "../../core/why.js";
import { Bench, FakeDevice, until } from "../fake-device.js";

const t0 = Date.UTC(2026, 4, 1);
const never = () => new AbortController().signal;

async function reasonsOf(bench: Bench, what: string): Promise<string[]> {
  const files = await why(bench.daemon.engine, what, true, never());
  return files
    .flatMap(({ reasons }) => reasons.map(({ code, text }) => `${code}: ${text}`))
    .map((text) =>
      text
        .replace(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ/, "TIME")
        .replace(/[0-9a-f]{16}/g, "ID")
        .replace(/in (\d+ min )?\d+ s/, "in N s"),
    );
}

test("why: the source away, the target away, both", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  card.put("a.bin", "a");
  out.attach(false);
  card.before = (call) => (call.startsWith("open") ? new Promise(() => undefined) : undefined);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "pulling", () => bench.daemon.engine.queue.pulling.size === 1);
  assert.deepEqual(await reasonsOf(bench, "a.bin"), [
    "target-away: out is detached since TIME: unplugged",
    "pulling: is being read from card: 0 % of 1 B, 0 B/s",
  ]);
  card.attach(false);
  await until(
    bench,
    "card away",
    () => bench.daemon.engine.queue.pulling.size === 0 || bench.daemon.engine.lanes.get("card")?.attached === false,
  );
  card.before = () => undefined;
  const said = await reasonsOf(bench, "a.bin");
  assert.equal(said[0], "target-away: out is detached since TIME: unplugged");
});

test("why: of a file that one route brought, what another route leaves it by", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const [out, review, pages] = [new FakeDevice("out"), new FakeDevice("review"), new FakeDevice("pages")];
  card.put("old.ulg", "a", t0);
  await bench.start({ sources: [card], targets: [out, review, pages] }, [
    { from: "card", to: ["out"] },
    { from: "card", to: ["review"], since: "install" },
    { from: "card", to: ["pages"], include: ["*.html"] },
  ]);
  await until(bench, "delivered", () => bench.states("out").join() === "done");
  const [, ...left] = await reasonsOf(bench, "old.ulg");
  assert.deepEqual(
    left.map((text) => text.replace(/first: 2.*/, "first: TIME")),
    [
      'left: the route to review leaves it: its time, TIME, is before "since", when this route ran first: TIME',
      'left: the route to pages leaves it: no pattern of "include" takes it: "*.html"',
    ],
  );
});

test("why: what is in the directory of what was archived is found by no listing", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  card.put("archive/day/a.bin", "a");
  await bench.start({ sources: [card], targets: [new FakeDevice("out")] }, [{ from: "card", to: ["out"] }], {
    device: { archiveDir: "archive" },
  });
  assert.deepEqual(await reasonsOf(bench, "card:archive/day/a.bin"), [
    'left: the route to out leaves it: it is in the directory of what was archived ("archiveDir")',
  ]);
});

test("why: what is read in place waits for its source, too, while its target is held", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { inPlace: true });
  const out = new FakeDevice("out");
  card.put("a.bin", "a");
  out.before = (call) => {
    if (call.startsWith("write")) throw new Fault("full", "no space left");
    return undefined;
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "the target is full", () => (bench.daemon.engine.lanes.get("out")?.pausedMs ?? 0) > 0);
  card.attach(false);
  await until(bench, "card away", () => bench.daemon.engine.lanes.get("card")?.attached === false);
  assert.ok((await reasonsOf(bench, "a.bin")).includes("source-away: card is detached since TIME: unplugged"));
});

test("why: it failed and is tried again; a target that asked for a pause; set aside with its fault", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out", { target: { concurrency: 1 } });
  card.put("a.bin", "a", t0 + 1000);
  card.put("b.bin", "b", t0);
  let fault = new Fault("transient", "the server broke off");
  let endOfB: (fault: Fault) => void = () => undefined;
  out.before = (call) => {
    if (call.startsWith("write a.bin")) throw fault;
    return call.startsWith("write b.bin") ? new Promise((_, reject) => (endOfB = reject)) : undefined;
  };
  out.attach(false);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  // Both are here: the newer one goes first.
  await until(bench, "pulled", () => bench.events.filter(({ what }) => what === "pulled").length === 2);
  out.attach(true);
  await until(bench, "again", () => bench.events.some(({ what }) => what === "again"));
  assert.match(
    (await reasonsOf(bench, "a.bin"))[0] ?? "",
    /^again: failed \(transient\): the server broke off; tried again (in N s|as soon as it can be), after \d+ (try|tries)$/,
  );
  fault = new Fault("throttled", "too many", { retryAfterMs: 600_000 });
  out.before = (call) => {
    if (call.startsWith("write")) throw fault;
    return undefined;
  };
  out.attach(false);
  out.attach(true);
  // Where it has begun it keeps the one place.
  endOfB(fault);
  await until(bench, "paused", () => (bench.daemon.engine.lanes.get("out")?.pausedMs ?? 0) > 60_000);
  const paused = [...(await reasonsOf(bench, "a.bin")), ...(await reasonsOf(bench, "b.bin"))];
  assert.ok(
    paused.some((text) => /^target-paused: out asked for a pause, or has no space \(too many\): it is tried again in N s$/.test(text)),
    paused.join("\n"),
  );
  fault = new Fault("rejected", "no such files here");
  out.attach(false);
  out.attach(true);
  await until(bench, "parked", () => bench.states("out").every((state) => state === "parked"));
  assert.deepEqual(await reasonsOf(bench, "a.bin"), [
    "parked: set aside since TIME (rejected): no such files here; to try it now: filesync retry ID; to give it up: filesync forget ID",
  ]);
  out.before = () => undefined;
  const done = await retry(bench.daemon.engine, undefined, never());
  assert.equal(done.retried.length, 2);
  await until(bench, "delivered", () => bench.states("out").every((state) => state === "done"));
});

test("why: the spool is full; forgetting gives back what the spool held of a file that nobody gets", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { chunk: 300 });
  const out = new FakeDevice("out");
  card.put("a.bin", Buffer.alloc(600), t0 + 1000);
  card.put("b.bin", Buffer.alloc(800), t0);
  let breakOff: (fault: Fault) => void = () => undefined;
  card.before = (call) => (call === "read a.bin 300" ? new Promise((_, reject) => (breakOff = reject)) : undefined);
  out.attach(false);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], { maxSize: 1000 });
  await until(bench, "full", () => bench.events.some(({ what }) => what === "spool-full") && card.calls.includes("open a.bin 0"));
  const reasons = await reasonsOf(bench, "b.bin");
  assert.ok(
    reasons.some((text) => text.startsWith("spool-full: card:b.bin waits for space in the spool: ")),
    reasons.join("\n"),
  );
  const { engine } = bench.daemon;
  await engine.journal.commit(() =>
    engine.journal.run("UPDATE deliveries SET state = 'parked', fault = 'rejected', reason = 'no', parked_ms = 0 WHERE path = 'a.bin'"),
  );
  card.attach(false);
  breakOff(new Fault("offline", "unplugged"));
  await until(bench, "stopped", () => engine.queue.pulling.size === 0);
  assert.equal(engine.spool.usedBytes, 300);
  assert.deepEqual(
    (await forget(engine, "a.bin")).forgotten.map(({ file, to }) => [file, to]),
    [["card:a.bin", "out"]],
  );
  assert.equal(engine.spool.usedBytes, 0);
  assert.deepEqual((await reasonsOf(bench, "a.bin"))[0], "forgotten: given up by a person (to send it after all: filesync retry ID)");
});

test("a person's get goes before a pull on a device that gives one file at a time; the pull goes on afterwards", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { concurrency: 1, chunk: 1000 });
  const out = new FakeDevice("out");
  card.put("long.bin", Buffer.alloc(100_000, 1), t0 + 1000);
  card.put("short.txt", "short", t0);
  let release: () => void = () => undefined;
  card.before = (call) =>
    call.startsWith("chunk") || call === "open long.bin 0" ? new Promise<void>((resolve) => (release = resolve)) : undefined;
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], include: ["long.bin"] }]);
  await until(bench, "the pull runs", () => card.calls.includes("open long.bin 0"));
  const got: Buffer[] = [];
  const said: unknown[] = [];
  const asking = {
    given: (bytes: Buffer) => Promise.resolve(void got.push(bytes)),
    said: (fact: unknown) => {
      said.push(fact);
      return undefined;
    },
  };
  const entry = { path: "short.txt", kind: "file", size: 5, modifiedMs: t0 };
  await answerWith(bench.daemon.engine, true)({ command: "get", device: "card", entry, offset: 0 }, exchangeFor(asking));
  assert.equal(Buffer.concat(got).toString(), "short");
  assert.deepEqual(said, [{ waiting: "another transfer from card makes way" }]);
  assert.equal(card.openMost, 1);
  card.before = () => undefined;
  release();
  await until(bench, "delivered", () => out.files.has("long.bin"));
});

test("why: it is not deleted when the last target has it, where another proved its size alone", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  const [weak, away] = [new FakeDevice("weak"), new FakeDevice("away")];
  card.put("a.bin", "content");
  away.attach(false);
  const devices = { sources: [card], targets: [weak, away] };
  const route = { from: "card", to: ["weak", "away"], afterDelivery: "delete" as const };
  await bench.start(devices, [route]);
  await until(bench, "delivered", () => bench.states("weak")[0] === "done");
  assert.equal((await reasonsOf(bench, "a.bin")).at(-1), "release: at card: it is deleted when away has it");
  const { journal } = bench.daemon.engine;
  await journal.commit(() => journal.run("UPDATE deliveries SET receipt = json_set(receipt, '$.proof', 'size') WHERE target = 'weak'"));
  const held = (await reasonsOf(bench, "a.bin")).at(-1) ?? "";
  assert.ok(held.startsWith("withheld: at card: it is not deleted: weak could only prove its size (another"), held);
  away.attach(true);
  await until(bench, "kept", () => journal.get<{ released: string | null }>("SELECT released FROM versions")?.released != null);
  assert.ok(card.files.has("a.bin"));
  assert.match((await reasonsOf(bench, "a.bin")).at(-1) ?? "", /kept: weak could only prove its size/);
});

test("why: a source that lets nothing be deleted; of many files the first few are warnings, once; what is drained says how many are left", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { tree: true });
  const out = new FakeDevice("out");
  let aheadMs = 0;
  bench.clock.monotonicMs = () => performance.now() + aheadMs;
  const names = ["a", "b", "c", "d", "e", "f", "g"].map((name) => `${name}.bin`);
  for (const name of names) card.put(name, name);
  let refuses = true;
  card.before = (call) => {
    if (refuses && call.startsWith("remove")) throw new Fault("denied", "permission denied");
    return undefined;
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], afterDelivery: "delete" }]);
  const tried = () => card.calls.filter((call) => call.startsWith("remove")).length;
  const warned = () => bench.events.filter(({ what, level }) => what === "again" && level === "warn").map(({ message }) => message);
  await until(bench, "each was tried", () => tried() === 7 && bench.daemon.engine.queue.releasing.size === 0);
  assert.equal((await bench.daemon.drained(AbortSignal.timeout(8000))).unreleased, 7);
  assert.deepEqual((await reasonsOf(bench, "card:g.bin")).slice(1), [
    "release: at card: it could not be deleted: permission denied; tried again in N s",
  ]);
  assert.equal(warned().length, 4, warned().join("\n"));
  assert.match(warned()[3] ?? "", /^card: 3 files cannot be deleted or archived there: more of them are not told one by one/);
  aheadMs = 31_000;
  bench.daemon.engine.work$.next();
  await until(bench, "each was tried again", () => tried() === 14 && bench.daemon.engine.queue.releasing.size === 0);
  assert.equal(warned().length, 4);
  refuses = false;
  aheadMs = 92_000;
  bench.daemon.engine.work$.next();
  await until(bench, "all are deleted", () => card.files.size === 0);
});
