/** Several puts by hand at once. */
import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { test, type TestContext } from "node:test";
import { answerWith } from "../../core/commands.js";
import type { Exchange } from "../../core/control.js";
import { Bench, FakeDevice, sha256, until } from "../fake-device.js";

async function scene(t: TestContext, sends: boolean) {
  const bench = new Bench(t);
  const [box, out] = [new FakeDevice("box"), new FakeDevice("out", { target: { concurrency: 1 } })];
  let go: () => void = () => undefined;
  const held = new Promise<void>((resolve) => (go = resolve));
  out.before = (call) => (call.startsWith(sends ? "write first" : "write put-0") ? held : undefined);
  await bench.start({ sources: [box], targets: [out] }, [{ from: "box", to: ["out"] }]);
  const asked: AbortController[] = [];
  // What waits for ever would hold up the stop.
  t.after(() => asked.forEach((over) => over.abort()));
  const put = (name: string) => {
    const bytes = Buffer.from(name);
    const over = new AbortController();
    asked.push(over);
    const exchange: Exchange = {
      signal: over.signal,
      say: () => undefined,
      give: () => Promise.resolve(),
      take: () => Readable.from([bytes]),
    };
    const request = { command: "put", device: "out", path: name, name, size: bytes.length, digest: sha256(bytes), force: false };
    const done = Promise.resolve(answerWith(bench.daemon.engine, true)(request, exchange));
    done.catch(() => undefined);
    return done;
  };
  if (sends) {
    box.put("first", "first");
    box.changes$.next();
    await until(bench, "the delivery is under way", () => out.calls.some((call) => call.startsWith("write first")));
  }
  return { bench, box, out, go, put, asked };
}

for (const sends of [false, true])
  for (const puts of [2, 3])
    test(`${puts} puts at once on a device that takes one file at a time, ${sends ? "while the daemon sends" : "while nothing is sent"}: all of them end, and so does what is delivered`, async (t) => {
      const { bench, box, out, go, put } = await scene(t, sends);
      const all = Promise.all(Array.from({ length: puts }, (_, n) => put(`put-${n}`)));
      all.catch(() => undefined);
      go();
      box.put("second", "second");
      box.changes$.next();
      await until(bench, "the next delivery", () => out.files.has("second"));
      await all;
      assert.deepEqual(
        [...out.files.keys()].filter((name) => name.startsWith("put-")).sort(),
        Array.from({ length: puts }, (_, n) => `put-${n}`),
      );
    });

test("a put that waits ends with who asked for it; the others, and the stop, go on", async (t) => {
  const { put, asked, go } = await scene(t, true);
  const ended = Promise.allSettled([put("put-0"), put("put-1")]);
  for (const over of asked) over.abort();
  assert.deepEqual(
    (await ended).map(({ status }) => status),
    ["rejected", "rejected"],
  );
  go();
});
