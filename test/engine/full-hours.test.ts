/** A target without room, for hours: what is sent there again, what waits, and for how long. The clock goes as fast as the engine. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { Fault } from "../../core/errors.js";
import { FakeDevice, until } from "../fake-device.js";
import { Hours, minute, oneByOne, second, t0 } from "./hours.js";

test("what made way at a full target, and waits, takes no room from others before its time, nor is it tried", async (t) => {
  const hours = new Hours(t, oneByOne(), 5_000_000);
  await hours.start();
  await hours.arrives("l.bin", 8_000_000, 10);
  await hours.arrives("s.bin", 1_000_000, 5);
  assert.ok(await hours.passes(10 * minute, () => hours.out.files.has("s.bin")));
  assert.ok(hours.waitsMs("l.bin") > 9 * minute);
  await hours.arrives("m.bin", 4_500_000, 4);
  await hours.passes(5 * minute);
  assert.deepEqual([hours.held(), hours.gave.length], [["m 4000000"], 1], hours.gave.join("\n"));
  assert.ok(hours.waitsMs("l.bin") > 0, "it was tried");
});

test("two files that are larger than all a full target has: they are not sent again for each small one that goes there, also when each is taken away from there", async (t) => {
  const hours = new Hours(t, oneByOne(), 5_000_000);
  await hours.start();
  await hours.arrives("k.bin", 8_000_000, 20);
  await hours.arrives("l.bin", 7_000_000, 19);
  for (let n = 0; n < 12; n++) {
    await hours.arrives(`${n}.bin`, 200_000, n);
    await hours.passes(5 * minute);
    hours.out.files.delete(`${n}.bin`);
  }
  // In that hour each is due once, and after ten minutes, and forty.
  const large = (hours.sent.get("k.bin") ?? 0) + (hours.sent.get("l.bin") ?? 0);
  assert.ok(large <= 6 * 5_000_000, `${large} bytes of what never fits, ${hours.gave.length} times taken away`);
});

test("what made way at a full target waits, though its source attaches anew", async (t) => {
  const hours = new Hours(t, oneByOne(), 5_000_000);
  await hours.start();
  await hours.arrives("l.bin", 8_000_000, 10);
  await hours.arrives("s.bin", 1_000_000, 5);
  assert.ok(await hours.passes(10 * minute, () => hours.out.files.has("s.bin")));
  const before = hours.out.calls.length;
  hours.card.put("z.bin", "small", t0);
  hours.card.attach(true);
  await until(hours.bench, "it is listed", () => hours.engine.journal.get("SELECT 1 FROM deliveries WHERE path = 'z.bin'") !== undefined);
  await hours.passes(0);
  assert.deepEqual(
    hours.out.calls.slice(before).filter((call) => call.startsWith("write l.bin")),
    [],
  );
  assert.ok(hours.waitsMs("l.bin") > 0);
});

test("where somebody else took the room that a larger one gave, and it has gone since, the larger one makes way again", async (t) => {
  const hours = new Hours(t, oneByOne(), 5_000_000);
  await hours.start();
  await hours.arrives("l.bin", 8_000_000, 10);
  hours.out.before = (call) => {
    if (call === "discard l.bin") hours.out.room = 0;
    return undefined;
  };
  await hours.arrives("s.bin", 1_000_000, 5);
  assert.ok(await hours.passes(10 * minute, () => hours.gave.length === 1));
  hours.out.before = () => undefined;
  // The larger one is due first.
  await hours.passes(11 * minute);
  // The larger one comes first.
  const laterMs = hours.bench.clock.monotonicMs() + minute;
  await hours.engine.journal.apply(() =>
    hours.engine.journal.run("UPDATE deliveries SET not_before = CASE path WHEN 's.bin' THEN ? ELSE 0 END", laterMs),
  );
  hours.out.room = 5_000_000;
  assert.ok(await hours.passes(120 * minute, () => hours.out.files.has("s.bin")), `not within two hours; it holds ${hours.held().join()}`);
});

for (const afterS of [0, 5, 15])
  test(`what is taken away at a full target is free there ${afterS} s later: what got that is whole in the end`, async (t) => {
    const out = new FakeDevice("out", { target: { concurrency: 2 } });
    const hours = new Hours(t, out, 4_900_000);
    const { clock } = hours.bench;
    let freed: { readonly atMs: number; readonly bytes: number }[] = [];
    let go = (): void => undefined;
    const both = new Promise<void>((resolve) => (go = resolve));
    let writes = 0;
    out.before = (call) => {
      out.room += freed.filter(({ atMs }) => atMs <= clock.monotonicMs()).reduce((sum, { bytes }) => sum + bytes, 0);
      freed = freed.filter(({ atMs }) => atMs > clock.monotonicMs());
      const [what, path = ""] = call.split(" ");
      const bytes = what === "discard" ? ([...out.partials].find(([name]) => name.includes(path))?.[1].length ?? 0) : 0;
      if (bytes > 0 && afterS > 0) {
        out.room -= bytes;
        freed.push({ atMs: clock.monotonicMs() + afterS * second, bytes });
      }
      if (what !== "write" || ++writes > 2) return undefined;
      if (writes === 2) go();
      return both;
    };
    hours.card.put("a.bin", randomBytes(4_000_000), t0 + 2000);
    hours.card.put("b.bin", randomBytes(4_000_000), t0 + 1000);
    await hours.start();
    await until(hours.bench, "both have begun", () => writes >= 2);
    assert.ok(await hours.passes(60 * minute, () => out.files.size > 0), `not within an hour; held: ${hours.held().join(", ")}`);
  });

test("what is held by a condition, and holds all room of a full target, gives it to what may go", async (t) => {
  const hours = new Hours(t, oneByOne(), 5_000_000);
  await hours.start();
  await hours.arrives("l.bin", 8_000_000, 10);
  await hours.engine.journal.apply(() => {
    hours.engine.queue.putOff(hours.row("l.bin").id, 1e15, "at night only");
  });
  await hours.arrives("s.bin", 1_000_000, 5);
  assert.ok(await hours.passes(60 * minute, () => hours.out.files.has("s.bin")), `not within an hour; it holds ${hours.held().join()}`);
});

test("what never found its target full gives no room, also where others find none below another directory and now and then some", async (t) => {
  const hours = new Hours(t, oneByOne(), Infinity);
  let fits = 0;
  hours.out.before = (call) => {
    if (!call.startsWith("write full/") || fits-- > 0) return undefined;
    throw new Fault("full", "no space is left there");
  };
  // It stands still until something more urgent comes.
  let isSlow = true;
  hours.card.before = (call) =>
    isSlow && Number(/^read l\.bin (\d+)$/.exec(call)?.[1] ?? 0) > 6_000_000 ? new Promise(() => undefined) : undefined;
  await hours.start();
  hours.card.put("l.bin", randomBytes(12_000_000), t0);
  hours.card.changes$.next();
  await until(hours.bench, "a part", () => hours.held().join() === "l 6029312");
  for (let n = 0; n < 5; n++) await hours.arrives(`full/${n}.bin`, 1000, 10 + n);
  isSlow = false;
  hours.card.before = () => undefined;
  const before = hours.held();
  assert.deepEqual(before, ["l 6029312"]);
  await hours.passes(30 * minute, () => hours.out.files.has("l.bin"));
  assert.deepEqual(hours.gave, []);
});

test("a tiny file that is more urgent takes no large partial away, as a less urgent one does not", async (t) => {
  const hours = new Hours(t, oneByOne(), 8_000_000);
  await hours.start();
  await hours.arrives("l.bin", 8_200_000, 10);
  await hours.arrives("n.bin", 1000, 20);
  await hours.passes(10 * minute);
  assert.deepEqual(hours.gave, []);
});

test("what finds no room, and breaks off in between, gets that of a larger one all the same", async (t) => {
  const hours = new Hours(t, oneByOne(), 5_000_000);
  let tries = 0;
  hours.out.before = (call) => {
    if (call.startsWith("write s.bin") && ++tries % 2 === 0) throw new Fault("transient", "the link broke");
    return undefined;
  };
  await hours.start();
  await hours.arrives("l.bin", 8_000_000, 10);
  await hours.arrives("s.bin", 1_000_000, 5);
  assert.ok(await hours.passes(60 * minute, () => hours.out.files.has("s.bin")), `not within an hour, in ${tries} tries`);
});

test("what gave way to what is more urgent, and then holds the room that this needs, gives it", async (t) => {
  const hours = new Hours(t, oneByOne(), 11_000_000);
  hours.card.put("b.bin", randomBytes(10_000_000), t0);
  hours.card.before = (call) => (call === "read b.bin 3932160" ? new Promise(() => undefined) : undefined);
  await hours.start();
  await until(hours.bench, "a part", () => hours.held().join() === "b 3932160");
  hours.card.before = () => undefined;
  await hours.arrives("a.bin", 10_000_000, 1);
  assert.ok(await hours.passes(10 * minute, () => hours.out.files.has("a.bin")), `it holds ${hours.held().join()}`);
});
