/** Single shots: never lost, never blindly twice, wherever a kill or a lost answer falls. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { test, type TestContext } from "node:test";
import { forget, retry } from "../../core/amend.js";
import { exchangeFor } from "../../core/control.js";
import { Fault } from "../../core/errors.js";
import type { StoredReceipt } from "../../core/rows.js";
import { verify } from "../../core/verify.js";
import { why } from "../../core/why.js";
import { Bench, FakeDevice, until } from "../fake-device.js";
import { PostBox } from "../post-box.js";

const day = 86_400_000;
const bytes = randomBytes(1_300_000);
const never = () => new AbortController().signal;

interface World {
  readonly bench: Bench;
  readonly card: FakeDevice;
  readonly box: PostBox;
  start(): Promise<unknown>;
  /** How often a call that begins so came. */
  count(call: string): number;
  receipt(): StoredReceipt;
}

function world(t: TestContext, box: PostBox, card = new FakeDevice("card")): World {
  const bench = new Bench(t);
  card.put("a.bin", bytes);
  return {
    bench,
    card,
    box,
    start: () => bench.start({ sources: [card], targets: [box] }, [{ from: "card", to: ["box"] }]),
    count: (call) => box.calls.filter((made) => made.startsWith(call)).length,
    receipt: () => bench.daemon.status().recent[0] as StoredReceipt,
  };
}

/** Killed at a call of the server's; what it did until then stays done there. */
async function killedAt(it: World, call: string): Promise<void> {
  await it.bench.killedAt(it.box, call, () => it.start());
  it.box.calls.length = 0;
}

const isDone = ({ bench }: World) => bench.states("box").every((state) => state === "done") && bench.states("box").length > 0;

for (const [what, card] of [
  ["pulled", () => new FakeDevice("card")],
  ["read in place", () => new FakeDevice("card", { inPlace: true })],
] as const)
  test(`a file that is ${what} is sent once; the receipt is the server's answer`, async (t) => {
    const it = world(t, new PostBox("box"), card());
    it.card.put("empty.bin", "");
    await it.start();
    await until(it.bench, "both", () => it.bench.states("box").filter((state) => state === "done").length === 2);
    const sent = new Map(it.box.posts.map((post) => [post.path, post.bytes]));
    assert.equal(it.box.posts.length, 2);
    assert.ok(sent.get("a.bin")?.equals(bytes));
    assert.equal(sent.get("empty.bin")?.length, 0);
    const receipt = it.bench.daemon.status().recent.find(({ source }) => source === "a.bin");
    assert.equal(receipt?.proof, "answer");
    assert.equal(receipt.url, "https://box/a.bin");
    assert.equal(receipt.sentBefore, undefined);
  });

for (const [what, breaks, size] of [
  ["of the first chunk, and the reading is closed", "closed", bytes.length],
  ["of the last chunk, and the reading is closed", "closed", 1000],
  ["of the last chunk, and nobody closes the reading", "left", 1000],
] as const)
  test(`broken off on the way ${what}: it was not sent whole, and goes again without a question`, async (t) => {
    const box = new PostBox("box");
    box.lookup = () => "unknown";
    box.breaks.push(breaks);
    const it = world(t, box);
    it.card.put("a.bin", bytes.subarray(0, size));
    await it.start();
    await until(it.bench, "done or in doubt", () => ["done", "parked"].includes(it.bench.states("box")[0] ?? ""));
    assert.ok(isDone(it));
    assert.equal(it.count("lookup"), 0);
    assert.equal(box.posts.length, 1);
    assert.equal(it.receipt().sentBefore, undefined);
  });

test("killed before the last chunk: nothing arrived, it is sent again without a question", async (t) => {
  const box = new PostBox("box");
  box.lookup = () => "unknown";
  const it = world(t, box);
  await killedAt(it, "chunk a.bin 524288");
  await it.start();
  await until(it.bench, "done", () => isDone(it));
  assert.equal(it.count("lookup"), 0);
  assert.equal(box.posts.length, 1);
  assert.ok(box.posts[0]?.bytes.equals(bytes));
});

test("killed with the last chunk on its way: the record is durable already", async (t) => {
  const box = new PostBox("box");
  box.lookup = () => "absent";
  const it = world(t, box);
  await killedAt(it, "chunk a.bin 1048576");
  await it.start();
  await until(it.bench, "done", () => isDone(it));
  assert.equal(it.count("lookup"), 1);
  assert.equal(box.posts.length, 1);
});

test("killed before the answer: it is looked for, and what is found is the receipt", async (t) => {
  const box = new PostBox("box");
  box.lookup = (path) => box.receipt(path, bytes.length);
  const it = world(t, box);
  await killedAt(it, "took a.bin");
  await it.start();
  await until(it.bench, "done", () => isDone(it));
  assert.equal(box.posts.length, 1);
  assert.equal(it.count("lookup"), 1);
  assert.equal(it.receipt().url, "https://box/a.bin");
});

test("killed after the answer was kept: lookup has it from the memo", async (t) => {
  const box = new PostBox("box");
  box.lookup = () => "unknown";
  const it = world(t, box);
  await killedAt(it, "commit a.bin");
  await it.start();
  await until(it.bench, "done", () => isDone(it));
  assert.equal(box.posts.length, 1);
});

test("what surely did not arrive is sent again at once, and nothing is noted", async (t) => {
  const box = new PostBox("box");
  box.lookup = () => "absent";
  const it = world(t, box);
  await killedAt(it, "took a.bin");
  await it.start();
  await until(it.bench, "done", () => isDone(it));
  assert.equal(box.posts.length, 2);
  assert.equal(it.receipt().sentBefore, undefined);
});

for (const lookup of [undefined, () => "unknown" as const])
  test(`nobody knows (${lookup === undefined ? "no lookup" : "unknown"}), "ask": set aside until a person names it`, async (t) => {
    const box = new PostBox("box");
    box.lookup = lookup;
    const it = world(t, box);
    await killedAt(it, "took a.bin");
    await it.start();
    const { bench } = it;
    await until(bench, "parked", () => bench.states("box")[0] === "parked");
    const [file] = await why(bench.daemon.engine, "a.bin", true, never());
    assert.match(
      file?.reasons[0]?.text ?? "",
      /^set aside since .* \(indoubt\): sent whole at .*, and the answer was lost; whether it arrived/,
    );
    // All that was set aside is no answer to the question.
    await retry(bench.daemon.engine, undefined, never());
    await until(bench, "parked again", () => bench.events.filter(({ what }) => what === "parked").length === 2);
    assert.equal(box.posts.length, 1);
    await retry(bench.daemon.engine, "a.bin", never());
    await until(bench, "done", () => isDone(it));
    assert.equal(box.posts.length, 2);
    assert.match(it.receipt().sentBefore ?? "", /^\d{4}-/);
  });

/** What was posted, and of which nobody knows: it is to be sent once more, in a day. `waits`: how often that was said. */
async function waitingItsDay(t: TestContext) {
  const box = new PostBox("box", "again");
  box.lookup = () => "unknown";
  const it = world(t, box);
  await killedAt(it, "took a.bin");
  await it.start();
  const { bench } = it;
  const waits = () => bench.events.filter(({ message }) => message.includes("sent once more 24 h after that")).length;
  await until(bench, "waits", () => waits() === 1);
  return { box, it, bench, waits };
}

test('nobody knows, "again": once more after 24 h, noted in the receipt; after a second loss a person is asked', async (t) => {
  const { box, it, bench, waits } = await waitingItsDay(t);
  const [file] = await why(bench.daemon.engine, "a.bin", true, never());
  assert.equal(file?.reasons[0]?.code, "in-doubt");
  // A start, and a presence edge, are no reason to send it.
  await bench.stop();
  await it.start();
  await until(bench, "waits again", () => waits() === 2);
  bench.clock.offsetMs = day - 60_000;
  box.attach(true);
  await until(bench, "waits still", () => waits() === 3);
  assert.equal(box.posts.length, 1);
  bench.clock.offsetMs = day + 60_000;
  let lose = true;
  box.before = (call) => {
    if (call === "took a.bin" && lose) throw new Fault("transient", "reset by peer");
    return undefined;
  };
  box.attach(true);
  await until(bench, "parked", () => bench.states("box")[0] === "parked");
  assert.equal(box.posts.length, 2);
  lose = false;
  await retry(bench.daemon.engine, "a.bin", never());
  await until(bench, "done", () => isDone(it));
  assert.equal(box.posts.length, 3);
  assert.notEqual(it.receipt().sentBefore, undefined);
});

test('nobody knows, "again": who names the file sends it now, and no other retry does', async (t) => {
  const { box, it, bench, waits } = await waitingItsDay(t);
  await retry(bench.daemon.engine, "box", never());
  await until(bench, "waits again", () => waits() === 2);
  assert.equal(box.posts.length, 1);
  const [file] = await why(bench.daemon.engine, "a.bin", true, never());
  const id = file?.reasons[0]?.id ?? "";
  assert.match(file?.reasons[0]?.text ?? "", new RegExp(`; to send it again now, .*: filesync retry ${id}$`));
  box.attach(false);
  await until(bench, "away", () => bench.daemon.engine.lanes.get("box")?.attached === false);
  await retry(bench.daemon.engine, id, never());
  const [then] = await why(bench.daemon.engine, "a.bin", true, never());
  assert.deepEqual(
    then?.reasons.filter(({ text }) => text.includes("retry")),
    [],
    "it was said already",
  );
  box.attach(true);
  await until(bench, "sent", () => isDone(it));
  assert.equal(box.posts.length, 2);
  assert.notEqual(it.receipt().sentBefore, undefined);
});

for (const [what, fault] of [
  ["a reset", new Fault("transient", "reset by peer")],
  ["a link that is gone", new Fault("offline", "no route")],
  ["an error of the plugin", new Error("oops")],
] as const)
  test(`${what} instead of the answer: it is looked for before it is sent again`, async (t) => {
    const box = new PostBox("box");
    box.lookup = (path) => box.receipt(path, bytes.length);
    const it = world(t, box);
    box.before = (call) => {
      if (call === "took a.bin") throw fault;
      return undefined;
    };
    await it.start();
    await until(it.bench, "done", () => isDone(it));
    assert.equal(box.posts.length, 1);
    assert.equal(it.count("lookup"), 1);
  });

test("stopped while it waits for the answer: the next start looks for it", async (t) => {
  const box = new PostBox("box");
  box.lookup = (path) => box.receipt(path, bytes.length);
  const it = world(t, box);
  let met = (): void => undefined;
  const there = new Promise<void>((resolve) => (met = resolve));
  box.before = (call) => {
    if (call !== "took a.bin") return undefined;
    met();
    return new Promise(() => undefined);
  };
  await it.start();
  await there;
  await it.bench.stop();
  await it.start();
  await until(it.bench, "done", () => isDone(it));
  assert.equal(box.posts.length, 1);
});

test("a refusal is an answer: what asked to wait is sent again without a question, what was rejected is set aside", async (t) => {
  const box = new PostBox("box");
  box.lookup = () => "unknown";
  const it = world(t, box);
  let refusals = 0;
  box.before = (call) => {
    if (call === "took a.bin" && ++refusals === 1) throw new Fault("throttled", "503", { retryAfterMs: 1 });
    if (call === "took a.bin") throw new Fault("rejected", "Invalid File");
    return undefined;
  };
  await it.start();
  await until(it.bench, "parked", () => it.bench.states("box")[0] === "parked");
  assert.equal(it.count("lookup"), 0);
  assert.equal(it.bench.daemon.status().parked[0]?.fault, "rejected");
  box.before = () => undefined;
  await retry(it.bench.daemon.engine, undefined, never());
  await until(it.bench, "done", () => isDone(it));
  assert.equal(it.count("lookup"), 0);
});

test("a file that changes at its source while it is sent in place never gets its last chunk", async (t) => {
  const card = new FakeDevice("card", { inPlace: true });
  const box = new PostBox("box");
  const it = world(t, box, card);
  const changed = randomBytes(1_300_000);
  box.before = (call) => {
    if (call === "chunk a.bin 0") card.put("a.bin", changed, Date.UTC(2026, 5, 1));
    return undefined;
  };
  await it.start();
  await until(it.bench, "the new one", () => it.bench.states("box").includes("done"));
  assert.equal(box.posts.length, 1);
  assert.ok(box.posts[0]?.bytes.equals(changed));
});

test("in doubt, and the spool has lost its copy: it is looked for before it is pulled and sent again", async (t) => {
  const box = new PostBox("box");
  box.lookup = () => "unknown";
  const it = world(t, box);
  await killedAt(it, "took a.bin");
  rmSync(`${it.bench.dir}/spool`, { recursive: true });
  await it.start();
  await until(it.bench, "parked", () => it.bench.states("box")[0] === "parked");
  assert.equal(box.posts.length, 1);
  assert.equal(it.count("lookup"), 1);
});

test("in doubt, and the journal is lost: receipts.jsonl knows of it", async (t) => {
  const box = new PostBox("box");
  const it = world(t, box);
  it.card.put("b.bin", "b", 1);
  // b.bin is refused, a.bin is in doubt.
  box.before = (call) => {
    if (call === "took b.bin") throw new Fault("rejected", "not that one");
    return undefined;
  };
  it.card.files.delete("a.bin");
  await it.start();
  await until(it.bench, "refused", () => it.bench.states("box")[0] === "parked");
  await it.bench.stop();
  it.card.put("a.bin", bytes);
  await killedAt(it, "took a.bin");
  for (const end of ["", "-wal"]) rmSync(`${it.bench.dir}/journal.db${end}`, { force: true });
  await it.start();
  await until(it.bench, "a.bin is set aside", () => it.bench.states("box")[0] === "parked");
  await until(it.bench, "b.bin is sent", () => it.bench.states("box")[1] === "done");
  assert.equal(box.posts.filter(({ path }) => path === "a.bin").length, 1);
  assert.equal(it.bench.daemon.status().parked[0]?.fault, "indoubt");
});

test("in doubt, and neither source nor spool has it any more: what arrived is a receipt all the same", async (t) => {
  const box = new PostBox("box");
  box.lookup = (path) => box.receipt(path, bytes.length);
  const it = world(t, box);
  await killedAt(it, "took a.bin");
  rmSync(`${it.bench.dir}/spool`, { recursive: true });
  it.card.files.clear();
  await it.start();
  await until(it.bench, "done", () => isDone(it));
  assert.equal(box.posts.length, 1);
});

test("verify does not claim to have seen what nobody can look at", async (t) => {
  const it = world(t, new PostBox("box"));
  await it.start();
  await until(it.bench, "done", () => isDone(it));
  const said: unknown[] = [];
  const exchange = exchangeFor({ said: (fact) => void said.push(fact) });
  const sum = await verify(it.bench.daemon.engine, undefined, exchange);
  assert.equal(sum.proved, 0);
  assert.match((said[0] as { text: string }).text, /nobody can look at what box holds/);
});

test("verify asks a source that answers, also where nobody has heard of it yet", async (t) => {
  const it = world(t, new PostBox("box"));
  await it.start();
  await until(it.bench, "done", () => isDone(it));
  it.card.presence$.next({ state: "detached", reason: "not looked at yet" });
  const said: unknown[] = [];
  await verify(it.bench.daemon.engine, undefined, exchangeFor({ said: (fact) => void said.push(fact) }));
  const { at, verdict } = said.at(-1) as { at: string; verdict: string };
  assert.deepEqual([at, verdict], ["card", "size"]);
});

test("in doubt, and given up by a person: nothing is sent", async (t) => {
  const box = new PostBox("box");
  const it = world(t, box);
  await killedAt(it, "took a.bin");
  await it.start();
  await until(it.bench, "parked", () => it.bench.states("box")[0] === "parked");
  await forget(it.bench.daemon.engine, "a.bin");
  await until(it.bench, "dropped", () => it.bench.states("box")[0] === "dropped");
  assert.equal(box.posts.length, 1);
});
