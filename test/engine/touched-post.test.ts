/** Single shots of a file that has another time and the same content, where more changed meanwhile. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { Fault } from "../../core/errors.js";
import { Bench, FakeDevice, until } from "../fake-device.js";
import { PostBox } from "../post-box.js";

const t0 = Date.UTC(2026, 4, 1);
const bytes = randomBytes(1_300_000);
const to = [{ device: "box", once: true as const }];
for (const inPlace of [false, true]) {
  const how = inPlace ? "read in place" : "pulled";
  test(`a file that is ${how}, posted, and is touched once "into" is another, is not posted once more`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card", { inPlace });
    const box = new PostBox("box", "ask");
    card.put("a.bin", bytes, t0);
    await bench.start({ sources: [card], targets: [box] }, [{ from: "card", to }], { device: { intervalMs: 50 } });
    await until(bench, "done", () => bench.states("box")[0] === "done");
    await bench.stop();
    await bench.start({ sources: [card], targets: [box] }, [{ from: "card", to, into: "x" }], { device: { intervalMs: 50 } });
    await new Promise((r) => setTimeout(r, 500));
    assert.equal(box.posts.length, 1);
    card.put("a.bin", bytes, t0 + 1000);
    await until(bench, "both done", () => bench.states("box").filter((s) => s === "done").length === 2);
    assert.equal(box.posts.length, 1);
  });
  test(`a file that is ${how}, whose post was in doubt and is found when it was touched, but may not be sent yet, is not posted once more`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card", { inPlace });
    const box = new PostBox("box", "ask");
    const ground = new FakeDevice("ground", { target: { digests: ["sha256"] } });
    box.lookup = () => "unknown";
    box.before = (call) => {
      if (call.startsWith("took")) throw new Fault("transient", "no answer");
    };
    card.put("a.bin", bytes, t0);
    const both = ["ground", { device: "box", requires: ["ground"] }];
    await bench.start({ sources: [card], targets: [ground, box] }, [{ from: "card", to: both }], { device: { intervalMs: 50 } });
    await until(bench, "it is in doubt", () => bench.states("box")[0] === "parked");
    box.lookup = (path) => box.receipt(path, bytes.length);
    let free = (): void => undefined;
    const freed = new Promise<void>((resolve) => (free = resolve));
    ground.before = (call) => (call.includes("a.bin") ? freed : undefined);
    card.put("a.bin", bytes, t0 + 1000);
    await until(bench, "the first is found", () => bench.states("box").includes("done"));
    assert.equal(bench.states("box").filter((state) => state === "done").length, 1);
    free();
    await until(bench, "both are done", () => bench.states("box").filter((state) => state === "done").length === 2);
    assert.equal(box.posts.length, 1);
  });
}
