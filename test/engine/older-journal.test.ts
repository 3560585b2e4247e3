/** A journal that is older than its receipts: the medium took back what had been synced of it. What receipts.jsonl says is believed; nothing else of it is harmed. */
import assert from "node:assert/strict";
import { appendFileSync, cpSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { test, type TestContext } from "node:test";
import { retry } from "../../core/amend.js";
import { Fault } from "../../core/errors.js";
import { Journal } from "../../core/journal.js";
import { Bench, FakeDevice, until } from "../fake-device.js";
import { PostBox } from "../post-box.js";

interface World {
  readonly bench: Bench;
  readonly card: FakeDevice;
  readonly ground: FakeDevice;
  readonly receipts: string;
  start(): Promise<unknown>;
  /** Until each file of the source has arrived; the deliveries that are known then. */
  done(count: number): Promise<void>;
  /** The journal as it is now. */
  keep(): Promise<void>;
  /** Killed, and the journal is what was kept. */
  goBack(): Promise<void>;
  sent(): string[];
  older(): string[];
}

type Given = { readonly ground?: FakeDevice; readonly card?: FakeDevice; readonly after?: "keep" | "delete" };

function world(
  t: TestContext,
  { ground = new FakeDevice("ground"), card = new FakeDevice("card", { tree: true }), after }: Given = {},
): World {
  const bench = new Bench(t);
  const ends = ["", "-wal"];
  return {
    bench,
    card,
    ground,
    receipts: `${bench.dir}/receipts.jsonl`,
    start: () =>
      bench.start({ sources: [card], targets: [ground] }, [{ from: "card", to: [ground.name], afterDelivery: after ?? "keep" }], {
        device: { intervalMs: 50 },
      }),
    done: (count) => {
      const isDone = () => bench.states(ground.name).filter((state) => state === "done").length === count;
      return until(bench, `${count} are done`, () => isDone() && bench.states(ground.name).length === count);
    },
    keep: async () => {
      await bench.daemon.engine.journal.durable();
      for (const end of ends) cpSync(`${bench.dir}/journal.db${end}`, `${bench.dir}/kept.db${end}`);
    },
    goBack: async () => {
      await bench.daemon.engine.journal.durable();
      await bench.kill();
      for (const end of ends) cpSync(`${bench.dir}/kept.db${end}`, `${bench.dir}/journal.db${end}`);
      ground.calls.length = 0;
      bench.events.length = 0;
    },
    sent: () => ground.calls.filter((call) => /^(write|took) /.test(call)),
    older: () => bench.events.filter(({ what }) => what === "journal-older").map(({ level, facts }) => `${level} ${String(facts?.lines)}`),
  };
}

/** The journal that is kept knows of one file, and that it is delivered. */
async function begun(it: World): Promise<void> {
  it.card.put("a", "before");
  await it.start();
  await it.done(1);
  await it.keep();
}

/** A few listings of the source. */
async function listed({ bench, card }: World): Promise<void> {
  const count = () => card.calls.filter((call) => call === "list").length;
  const before = count();
  await until(bench, "listed", () => count() > before + 2);
}

for (const [what, features] of [
  ["pulled", { tree: true }],
  ["read in place", { tree: true, inPlace: true }],
] as const)
  for (const after of ["keep", "delete"] as const)
    test(`${what}, ${after}: what it knew as waiting, or did not know, is delivered, and is sent and told no more`, async (t) => {
      const it = world(t, { card: new FakeDevice("card", features), after });
      it.card.put("a", "delivered before");
      await it.start();
      await it.done(1);
      it.ground.attach(false);
      it.card.put("b", "waits");
      await until(it.bench, "b waits", () => it.bench.states("ground").length === 2);
      await it.keep();
      it.card.put("c", "unknown");
      it.ground.attach(true);
      await it.done(3);
      if (after === "delete") await until(it.bench, "deleted", () => it.card.files.size === 0);
      await it.goBack();
      await it.start();
      await listed(it);
      assert.deepEqual(it.bench.states("ground"), ["done", "done", "done"]);
      assert.deepEqual(it.older(), ["warn 2"]);
      assert.deepEqual(it.sent(), []);
      assert.deepEqual(
        it.bench.events.filter(({ what }) => ["lost", "found", "delivered", "spool-damaged"].includes(what)),
        [],
      );
      assert.equal(readFileSync(it.receipts, "utf8").trim().split("\n").length, 3);
      assert.equal(it.card.files.size, after === "keep" ? 3 : 0);
      await it.bench.kill();
      it.bench.events.length = 0;
      await it.start();
      assert.deepEqual(it.older(), [], "said once");
    });

test("what was delivered and not deleted yet is deleted, also where the journal did not know it at all", async (t) => {
  const it = world(t, { after: "delete" });
  it.card.put("a", "before");
  await it.start();
  await until(it.bench, "a is deleted", () => it.card.files.size === 0);
  await it.keep();
  it.card.before = (call) => (call.startsWith("remove") ? new Promise(() => undefined) : undefined);
  it.card.put("b", "content");
  await it.done(2);
  await it.goBack();
  it.card.before = () => undefined;
  await it.start();
  await until(it.bench, "b is deleted", () => it.card.files.size === 0);
  assert.deepEqual(it.older(), ["warn 1"]);
  assert.deepEqual(it.sent(), []);
});

test("power goes while what was lost is taken from the receipts: another content in the place of what was deleted is sent before it is deleted", async (t) => {
  const it = world(t, { after: "delete" });
  await begun(it);
  await until(it.bench, "a is deleted", () => it.card.files.size === 0);
  await it.keep();
  it.card.put("b", "the first");
  await it.done(2);
  await until(it.bench, "b is deleted", () => it.card.files.size === 0);
  await it.goBack();
  it.card.put("b", "the other");
  // The lines are durable in the journal, and nothing that comes after them.
  const power = t.mock.method(Journal.prototype, "noteReceipts", () => {
    throw new Error("no power");
  });
  await assert.rejects(it.start(), /no power/);
  power.mock.restore();
  await it.start();
  await until(it.bench, "b is deleted again", () => it.card.files.size === 0);
  const contents = [...it.ground.files.values()].map(({ bytes }) => bytes.toString()).sort();
  assert.deepEqual(contents, ["before", "the first", "the other"]);
});

test("what is known by a receipt of one target only still goes to the other", async (t) => {
  const it = world(t, { card: new FakeDevice("card", { inPlace: true }) });
  const other = new FakeDevice("other");
  other.attach(false);
  const start = () =>
    it.bench.start({ sources: [it.card], targets: [it.ground, other] }, [{ from: "card", to: ["ground", "other"] }], {
      device: { intervalMs: 50 },
    });
  it.card.put("a", "before");
  await start();
  await it.done(1);
  await it.keep();
  it.card.put("b", "later");
  await it.done(2);
  await it.goBack();
  other.attach(true);
  await start();
  await until(it.bench, "all is there", () => it.bench.states("other").join() === "done,done");
  assert.deepEqual([it.older(), it.sent()], [["warn 1"], []]);
});

test("a single shot is posted once, and one that was on its way is in doubt", async (t) => {
  const box = new PostBox("box");
  const it = world(t, { ground: box });
  await begun(it);
  it.card.put("b", "posted");
  await it.done(2);
  box.before = (call) => (call === "took c" ? new Promise(() => undefined) : undefined);
  it.card.put("c", "its answer is lost");
  await until(it.bench, "c is there", () => box.posts.length === 3);
  await it.goBack();
  box.before = () => undefined;
  await it.start();
  await until(it.bench, "c is set aside", () => it.bench.states("box").join() === "done,done,parked");
  assert.equal(it.bench.daemon.status().parked[0]?.fault, "indoubt");
  await listed(it);
  assert.deepEqual(it.sent(), []);
  // b and c were noted before they went.
  assert.deepEqual(it.older(), ["warn 3"]);
});

test("the last line of a single shot counts: what was refused goes again, without a question", async (t) => {
  const box = new PostBox("box");
  const it = world(t, { ground: box });
  await begun(it);
  const [id] = it.bench.daemon.engine.journal.all<{ id: string }>("SELECT id FROM deliveries");
  await it.goBack();
  const sending = (record: object | null) => `${JSON.stringify({ sending: "of b", record })}\n`;
  appendFileSync(
    it.receipts,
    sending({ atMs: 1, trusted: true, times: 1 }) + sending(null) + `{"sending":"${id?.id ?? ""}","record":{"times":1}}\n`,
  );
  await it.start();
  const marks = it.bench.daemon.engine.journal.all("SELECT * FROM meta WHERE key LIKE 'marks:%'");
  assert.deepEqual(marks, []);
  assert.deepEqual(it.bench.states("box"), ["done"], "that it was sent once more got lost: it is delivered");
});

test("a journal that is as old as its receipts takes nothing from there: neither what is to be sent again nor what was forgotten", async (t) => {
  const it = world(t, { card: new FakeDevice("card", { inPlace: true }) });
  it.card.put("a", "sent again");
  it.card.put("b", "forgotten");
  await it.start();
  await it.done(2);
  it.ground.attach(false);
  const { journal } = it.bench.daemon.engine;
  const [a] = journal.all<{ id: string }>("SELECT id FROM deliveries WHERE path = 'a'");
  await retry(it.bench.daemon.engine, a?.id ?? "", AbortSignal.timeout(5000));
  it.card.files.delete("b");
  await journal.commit(() => {
    journal.run("DELETE FROM versions WHERE path = 'b'");
    journal.run("DELETE FROM deliveries WHERE path = 'b'");
  });
  await it.bench.kill();
  await it.start();
  assert.equal(it.bench.states("ground").length, 1);
  assert.ok(!it.bench.states("ground").includes("done"));
  assert.deepEqual(it.older(), []);
});

for (const [what, spoil] of [
  ["cut short", (path: string) => truncateSync(path, 100)],
  ["removed", (path: string) => rmSync(path)],
  [
    "of another, and longer",
    (path: string) => writeFileSync(path, readFileSync(path, "utf8").replaceAll('"ground"', '"elsewhere"').repeat(3)),
  ],
  ["torn at its end", (path: string) => appendFileSync(path, '{"delivery":"x","version":')],
  ["zeros at its end", (path: string) => appendFileSync(path, Buffer.alloc(5000))],
] as const)
  test(`receipts.jsonl is ${what}: nothing is taken from there, and what comes then is`, async (t) => {
    const it = world(t);
    it.card.put("a", "before");
    await it.start();
    await it.done(1);
    await it.keep();
    await it.goBack();
    spoil(it.receipts);
    await it.start();
    await listed(it);
    assert.deepEqual(it.older(), []);
    assert.deepEqual(it.bench.states("ground"), ["done"]);
    await it.keep();
    it.card.put("b", "later");
    await it.done(2);
    await it.goBack();
    await it.start();
    await listed(it);
    assert.deepEqual([it.bench.states("ground"), it.older(), it.sent()], [["done", "done"], ["warn 1"], []]);
  });

test("power goes before the transaction: its line is believed, which is nothing to be warned of", async (t) => {
  const it = world(t);
  it.ground.before = (call) => (call.startsWith("commit") ? it.keep() : undefined);
  it.card.put("a", "content");
  await it.start();
  await it.done(1);
  await it.goBack();
  it.ground.before = () => undefined;
  await it.start();
  await it.done(1);
  assert.deepEqual([it.older(), it.sent()], [["info 1"], []]);
});

test("power goes before the transaction: what its route keeps at its source is not read there once more", async (t) => {
  const it = world(t);
  it.card.put("a", "content");
  it.ground.before = async (call) => {
    if (call.startsWith("commit ")) await it.keep();
  };
  await it.start();
  await it.done(1);
  await it.goBack();
  it.card.calls.length = 0;
  await it.start();
  await it.done(1);
  await listed(it);
  assert.deepEqual(it.older(), ["info 1"]);
  assert.deepEqual(
    it.card.calls.filter((call) => call.startsWith("open ")),
    [],
  );
});

test("the only copy, whole in the spool of which the journal knows nothing any more, still arrives", async (t) => {
  const it = world(t);
  it.card.put("a", "before");
  await it.start();
  await it.done(1);
  it.ground.attach(false);
  // As found, and not pulled yet.
  it.card.before = (call) => (call.startsWith("open") ? new Promise(() => undefined) : undefined);
  it.card.put("b", "the only copy");
  await until(it.bench, "b waits", () => it.bench.states("ground").length === 2);
  await it.keep();
  await it.bench.kill();
  it.card.before = () => undefined;
  await it.start();
  const isWhole = () => it.bench.daemon.engine.journal.all("SELECT 1 FROM versions WHERE path = 'b' AND state = 'sealed'").length === 1;
  await until(it.bench, "whole here", isWhole);
  it.card.files.delete("b");
  await it.goBack();
  it.ground.attach(true);
  await it.start();
  await it.done(2);
  assert.equal(it.ground.files.get("b")?.bytes.toString(), "the only copy");
});

test("a journal that is lost: what is at the source still is deleted, and another content in the place of what was deleted is sent first", async (t) => {
  const it = world(t, { after: "delete" });
  it.card.put("a", "the first");
  await it.start();
  await until(it.bench, "a is deleted", () => it.card.files.size === 0);
  it.card.before = (call) => (call.startsWith("remove") ? new Promise(() => undefined) : undefined);
  it.card.put("b", "not deleted yet");
  await it.done(2);
  await it.bench.kill();
  for (const end of ["", "-wal"]) rmSync(`${it.bench.dir}/journal.db${end}`, { force: true });
  it.card.before = () => undefined;
  it.card.put("a", "the other");
  await it.start();
  await until(it.bench, "both are deleted", () => it.card.files.size === 0);
  const contents = [...it.ground.files.values()].map(({ bytes }) => bytes.toString()).sort();
  assert.deepEqual(contents, ["not deleted yet", "the first", "the other"]);
});

test("a journal that is lost, and receipts of two files that look the same: a third in their place arrives", async (t) => {
  const it = world(t, { after: "delete" });
  for (const [n, content] of ["the first", "the next."].entries()) {
    it.card.put("a", content);
    await (n === 0 ? it.start() : it.done(2));
    await until(it.bench, `${content} is deleted`, () => it.card.files.size === 0);
  }
  await it.bench.kill();
  for (const end of ["", "-wal"]) rmSync(`${it.bench.dir}/journal.db${end}`, { force: true });
  it.card.put("a", "the third");
  await it.start();
  await until(it.bench, "it is deleted", () => it.card.files.size === 0);
  const contents = [...it.ground.files.values()].map(({ bytes }) => bytes.toString()).sort();
  assert.deepEqual(contents, ["the first", "the next.", "the third"]);
});

for (const grew of [false, true])
  test(`what it knew as found is whole here, and its card was formatted since: it is not removed${grew ? ", also where it had grown" : ""}`, async (t) => {
    const it = world(t);
    const { bench, card, ground } = it;
    card.put(grew ? "log" : "other", "the beginning");
    await it.start();
    await it.done(1);
    ground.attach(false);
    // Nothing of it comes yet.
    card.before = (call) => (call === "stat log" ? Promise.reject(new Fault("transient", "no answer")) : undefined);
    card.put("log", "the beginning, and the end", Date.UTC(2026, 4, 2));
    await until(bench, "it is found", () => bench.states("ground").length === 2);
    await it.keep();
    card.before = () => undefined;
    await retry(bench.daemon.engine, "card:log", new AbortController().signal);
    const whole = () => bench.daemon.engine.journal.get("SELECT 1 FROM versions WHERE state = 'sealed' AND size = 26") !== undefined;
    await until(bench, "it is whole here", whole);
    await it.goBack();
    card.files.clear();
    await it.start();
    ground.attach(true);
    await until(bench, "it arrives", () => ground.files.get("log")?.bytes.toString() === "the beginning, and the end");
  });
