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
