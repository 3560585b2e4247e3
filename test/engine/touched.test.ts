/** A file that has another time and the same content (a copy, `touch`, a card's zone): the same version, so it arrived already. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { retry } from "../../core/amend.js";
import { Fault } from "../../core/errors.js";
import type { StoredReceipt } from "../../core/rows.js";
import { Bench, FakeDevice, until } from "../fake-device.js";
import { PostBox } from "../post-box.js";

const t0 = Date.UTC(2026, 4, 1);
const bytes = randomBytes(1_300_000);
const never = () => new AbortController().signal;

for (const inPlace of [false, true]) {
  const how = inPlace ? "read in place" : "pulled";

  test(`a file that is ${how} and touched is not posted once more, but where a person says so, or it has another content`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card", { inPlace });
    const box = new PostBox("box");
    const done = (count: number) =>
      until(bench, `${count} done`, () => bench.states("box").filter((state) => state === "done").length === count);
    card.put("a.bin", bytes, t0);
    await bench.start({ sources: [card], targets: [box] }, [{ from: "card", to: ["box"] }], { device: { intervalMs: 50 } });
    await done(1);
    card.put("a.bin", bytes, t0 + 1000);
    await done(2);
    card.put("a.bin", bytes, t0 + 2000);
    await done(3);
    assert.equal(box.posts.length, 1);
    const receipt = bench.daemon.status().recent.find(({ modifiedMs }) => modifiedMs === t0 + 2000);
    assert.equal(receipt?.url, "https://box/a.bin");
    const receipts = bench.daemon.engine.journal.all<{ receipt: string }>("SELECT receipt FROM deliveries");
    assert.equal(new Set(receipts.map(({ receipt }) => (JSON.parse(receipt) as StoredReceipt).at)).size, 1);
    // It fails once: the person's word stays.
    let fails = true;
    box.before = (call) => {
      if (!fails || call !== "chunk a.bin 0") return;
      fails = false;
      throw new Fault("transient", "no answer");
    };
    await retry(bench.daemon.engine, receipt.delivery, never());
    await until(bench, "it is sent", () => box.posts.length === 2);
    await done(3);
    const other = Buffer.from(bytes);
    other[150_000] = (other[150_000] ?? 0) ^ 1;
    card.put("a.bin", other, t0 + 3000);
    await done(4);
    assert.ok(box.posts[2]?.bytes.equals(other));
  });

  for (const whenInDoubt of ["ask", "again"] as const)
    test(`a file that is ${how}, whose post was not answered (${whenInDoubt}), and that is touched then, is in doubt`, async (t) => {
      const bench = new Bench(t);
      const card = new FakeDevice("card", { inPlace });
      const box = new PostBox("box", whenInDoubt);
      box.lookup = () => "unknown";
      box.before = (call) => {
        if (call.startsWith("took")) throw new Fault("transient", "no answer");
      };
      const deliveries = () =>
        bench.daemon.engine.journal.all<{ state: string; fault: string | null }>("SELECT state, fault FROM deliveries");
      card.put("a.bin", bytes, t0);
      await bench.start({ sources: [card], targets: [box] }, [{ from: "card", to: ["box"] }], { device: { intervalMs: 50 } });
      const looked = (count: number) =>
        until(bench, "it is looked for", () => box.calls.filter((it) => it.startsWith("lookup")).length >= count);
      await looked(1);
      card.put("a.bin", bytes, t0 + 1000);
      await until(bench, "it is in doubt", () => {
        const [first, second] = deliveries();
        return first?.state === "dropped" && second?.fault === "indoubt";
      });
      assert.equal(deliveries()[1]?.state, whenInDoubt === "ask" ? "parked" : "ready");
      assert.equal(box.posts.length, 1);
    });

  for (const digests of [[], ["sha256"]] as const)
    test(`a file that is ${how} and touched is not sent once more to a target that ${digests.length > 0 ? "digests" : "does not digest"}; it grows there all the same`, async (t) => {
      const bench = new Bench(t);
      const card = new FakeDevice("card", { inPlace });
      const out = new FakeDevice("out", { target: { digests } });
      const done = (count: number) =>
        until(bench, `${count} done`, () => bench.states("out").filter((state) => state === "done").length === count);
      card.put("a.bin", bytes.subarray(0, 1_200_000), t0);
      await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], { device: { intervalMs: 50 } });
      await done(1);
      card.put("a.bin", bytes.subarray(0, 1_200_000), t0 + 1000);
      await done(2);
      assert.equal(out.calls.filter((call) => call.startsWith("write")).length, 1);
      card.put("a.bin", bytes, t0 + 2000);
      await done(3);
      assert.deepEqual([...out.files.keys()], ["a.bin"]);
      assert.ok(out.files.get("a.bin")?.bytes.equals(bytes));
    });
}

test("a file that grows, or is touched, on another day stays where the day in its path had it first", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  const done = (count: number) =>
    until(bench, `${count} done`, () => bench.states("out").filter((state) => state === "done").length === count);
  const at = (day: number) => t0 + day * 86_400_000;
  card.put("a.bin", bytes.subarray(0, 200_000), at(0));
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"], into: "{date}" }], { device: { intervalMs: 50 } });
  await done(1);
  card.put("a.bin", bytes.subarray(0, 200_000), at(1));
  await done(2);
  card.put("a.bin", bytes.subarray(0, 1_200_000), at(2));
  await done(3);
  card.put("a.bin", bytes, at(3));
  await done(4);
  assert.deepEqual([...out.files.keys()], ["2026-05-01/a.bin"]);
  assert.ok(out.files.get("2026-05-01/a.bin")?.bytes.equals(bytes));
  // Another file of its name is of its own day.
  card.put("a.bin", randomBytes(1_400_000), at(4));
  await done(5);
  assert.deepEqual([...out.files.keys()], ["2026-05-01/a.bin", "2026-05-05/a.bin"]);
});

test("a source that tells its times from some day on, or does not any more, has nothing sent again under the day", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const [out, more] = [new FakeDevice("out"), new FakeDevice("more")];
  const done = (target: string, count: number) =>
    until(bench, `${count} done`, () => bench.states(target).filter((state) => state === "done").length === count);
  const to = (...targets: string[]) => [{ from: "card", to: targets, into: "{date}" }];
  card.timeless = true;
  card.put("a.bin", bytes, t0);
  await bench.start({ sources: [card], targets: [out, more] }, to("out"), { device: { intervalMs: 50 } });
  await done("out", 1);
  card.timeless = false;
  card.put("b.bin", bytes, t0);
  await done("out", 2);
  await bench.stop();
  card.timeless = true;
  await bench.start({ sources: [card], targets: [out, more] }, to("out", "more"), { device: { intervalMs: 50 } });
  await done("more", 2);
  assert.deepEqual([...out.files.keys()].sort(), ["2026-05-01/b.bin", "undated/a.bin"]);
  assert.deepEqual([...more.files.keys()].sort(), ["2026-05-01/b.bin", "undated/a.bin"]);
});
