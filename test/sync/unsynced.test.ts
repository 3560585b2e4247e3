/** What is read is synced before it is noted; what cannot be is brought all the same, and is not followed where its medium loses it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault, type FaultKind } from "../../core/errors.js";
import { twoWay } from "../../core/reconcile.js";
import { type Gate, sizeOf } from "./model-tree.js";
import { files, mirroring, two } from "./two.js";

const failing =
  (of: string, kind: FaultKind): Gate =>
  (when, call) =>
    when === "before" && call === of ? Promise.reject(new Fault(kind, "the disk fails")) : Promise.resolve();

const lost = "box: the disk fails; it is brought all the same, and should its medium lose it, that is not followed";
const failingAll =
  (kind: FaultKind): Gate =>
  (when, call) =>
    when === "before" && call.startsWith("sync ") ? Promise.reject(new Fault(kind, "the disk fails")) : Promise.resolve();

test("what is saved again as it was is on its medium before that is noted; where that fails it is told, not asked again before the system is started anew, and not followed when it is lost", async () => {
  const { box, server, between, once, run, store } = two(mirroring(true));
  files(box, "a", "b");
  await run();
  const here = (path: string) => store.base.get(path)?.here;
  for (const path of ["a", "b"]) box.put(path, box.content(path) ?? 0);
  between.gate = failing("sync a", "unreadable");
  const asked: string[] = [];
  for (let n = 0; n < 3; n++) {
    assert.deepEqual([...(await once()).unsynced], [["a", lost]]);
    between.gate = (_, call) => (call.startsWith("sync ") && asked.push(call), Promise.resolve());
  }
  assert.deepEqual(
    [here("a"), here("b"), asked],
    [{ ...box.entry("a"), unsynced: { reason: "the disk fails", boot: "the first" } }, box.entry("b"), []],
  );
  between.boot = "the next";
  assert.equal((await once()).unsynced.size, 0);
  assert.deepEqual([here("a"), asked], [box.entry("a"), ["sync a", "sync a"]]);
  box.put("a", 1);
  between.gate = failing("sync a", "denied");
  await once();
  box.remove("a");
  await run();
  assert.equal(server.text(), "a=1 b=2");
});

for (const kind of ["unreadable", "denied"] as const) {
  test(`a new name is on its medium before it is noted; where that fails (${kind}) what is lost with it stays there`, async () => {
    const { box, server, between, once, run } = two(mirroring(true));
    files(box, "a", "c", "d/e");
    await run();
    box.rename("a", "b");
    box.rename("d", "f");
    files(box, "f/g");
    between.gate = (when, call) =>
      when === "before" && /^sync [bf]$/.test(call) ? Promise.reject(new Fault(kind, "the disk fails")) : Promise.resolve();
    for (let n = 0; n < 3; n++)
      assert.deepEqual(
        [...(await once()).unsynced].sort(),
        ["b", "f"].map((path) => [path, lost]),
      );
    assert.equal(server.text(), "b=1 c=2 f/ f/e=3 f/g=1");
    box.remove("b");
    box.remove("f");
    await run();
    assert.equal(server.text(), "b=1 c=2 f/ f/e=3 f/g=1");
  });

  test(`what can be read and not synced (${kind}) is brought by a mirror, also what is written again, and what its disk loses then stays there`, async () => {
    const { box, server, between, once, run, store } = two(mirroring(true));
    files(box, "a", "k");
    await run();
    files(box, "d/b");
    between.gate = failingAll(kind);
    const read: string[] = [];
    for (const content of [4, 5]) {
      box.write("a", content);
      const { done, unsynced, failed, broke } = await once();
      assert.ok(
        done > 0 &&
          unsynced.get("a") === lost &&
          unsynced.get("d") === lost &&
          unsynced.get("d/b") === lost &&
          broke === undefined &&
          failed.size === 0,
      );
      between.gate = (when, call) => (call.startsWith("digest ") && read.push(call), failingAll(kind)(when, call));
    }
    assert.deepEqual([server.text(), read], ["a=5 d/ d/b=1 k=2", []]);
    assert.deepEqual([server.staged.size, store.staged.size, store.intents.size], [0, 0, 0]);
    box.rename("k", "l");
    await once();
    between.gate = () => Promise.resolve();
    for (const path of ["a", "d", "l"]) box.remove(path);
    await run();
    assert.equal(server.text(), "a=5 d/ d/b=1 l=2");
    // Somebody brings it back, and takes it away for good.
    files(box, "a");
    await run();
    box.remove("a");
    await run();
    assert.equal(server.text(), "d/ d/b=1 l=2");
  });

  test(`and by a two-way route: what is written again is no conflict, what is shorter then is one, and what has gone comes back (${kind})`, async () => {
    const { box, server, between, once, run } = two(() => ({ actions: twoWay }));
    files(box, "a", "b");
    await run();
    between.gate = failingAll(kind);
    for (const content of [4, 5]) {
      box.write("a", content);
      assert.deepEqual([...(await once()).unsynced], [["a", lost]]);
    }
    assert.equal(server.text(), "a=5 b=2");
    between.gate = () => Promise.resolve();
    assert.ok(sizeOf(3) < sizeOf(5));
    box.write("a", 3);
    await run();
    assert.equal(server.text(), box.text());
    assert.deepEqual(new Set(server.text().match(/=\d/g)), new Set(["=5", "=3", "=2"]));
    box.write("b", 5);
    between.gate = failingAll(kind);
    await once();
    between.gate = () => Promise.resolve();
    box.remove("b");
    await run();
    assert.deepEqual([box.content("b"), server.content("b")], [5, 5]);
    box.remove("b");
    await run();
    assert.deepEqual([box.content("b"), server.content("b")], [undefined, undefined]);
  });
}

for (const [mode, table, over] of [
  ["a mirror", mirroring(true), false],
  ["a mirror", mirroring(true), true],
  ["two-way", () => ({ actions: twoWay }), false],
] as const)
  test(`what is brought from a disk that fails, and is killed before that is noted, stays when it is lost: ${mode}, ${over ? "in the place of another" : "new"}`, async () => {
    const { box, server, between, once, run } = two(table);
    files(box, ...(over ? ["k", "a"] : ["k"]));
    await run();
    box.put("a", 4);
    between.gate = (when, call) => {
      if (when === "before" && call === "sync a") return Promise.reject(new Fault("denied", "the disk fails"));
      return when === "after" && call === "publish a" ? Promise.reject(new Error("no power")) : Promise.resolve();
    };
    await assert.rejects(once(), /no power/);
    between.gate = () => Promise.resolve();
    box.remove("a");
    await run();
    assert.equal(server.text(), "a=4 k=1");
  });

test("what is rotated, swapped or renamed after its sync failed is not lost by that; what a rename left short is", async () => {
  for (const table of [mirroring(true), () => ({ actions: twoWay })]) {
    const { box, server, between, run } = two(table);
    between.gate = failing("sync a", "unreadable");
    box.put("a", 5);
    await run();
    const sent: string[] = [];
    between.gate = (when, call) => (when === "before" && call.startsWith("send ") && sent.push(call), Promise.resolve());
    box.rename("a", "a.1");
    box.put("a", 3);
    await run();
    assert.deepEqual([server.text(), box.text(), sent.length], ["a.1=5 a=3", "a.1=5 a=3", 1]);
  }
  const { box, server, between, run } = two(mirroring(true));
  between.gate = failing("sync a", "unreadable");
  box.put("a", 5);
  await run();
  between.gate = () => Promise.resolve();
  box.rename("a", "b");
  box.write("b", 3);
  await run();
  assert.equal(server.text(), "a=5 b=3");
});

for (const [mode, table] of [
  ["a mirror", mirroring(true)],
  ["two-way", () => ({ actions: twoWay })],
] as const)
  test(`a directory that could not be synced, was lost, and is made anew: what was in it stays (${mode})`, async () => {
    const { box, server, between, once, run } = two(table);
    files(box, "k", "d/b");
    between.gate = failing("sync d", "unreadable");
    await run();
    between.gate = () => Promise.resolve();
    box.remove("d");
    files(box, "d/n");
    const { unsynced } = await once();
    assert.equal(unsynced.get("d/b"), "box could not sync it, and has lost it since: it stays at nas");
    await run();
    assert.equal(server.text(), "d/ d/b=2 d/n=1 k=1");
    // Its deletion is one again, where it is there again.
    if (mode === "two-way") {
      box.remove("d/b");
      await run();
      assert.equal(server.text(), "d/ d/n=1 k=1");
    }
  });

test("a sync that may go better the next time is tried again: nothing is noted for it, and nothing moved", async () => {
  const { box, server, between, once, run, store } = two(mirroring(true));
  files(box, "a", "b", "k");
  await run();
  box.put("k", 3);
  box.write("a", 4);
  between.gate = failingAll("transient");
  const { failed } = await once();
  assert.deepEqual([...failed.keys()].sort(), ["a", "k"]);
  box.rename("b", "c");
  await once();
  assert.equal(server.text(), "a=1 b=2 k=3");
  between.gate = () => Promise.resolve();
  await run();
  assert.equal(server.text(), "a=4 c=2 k=3");
  assert.ok([...store.base.values()].every(({ here }) => here.unsynced === undefined));
});
