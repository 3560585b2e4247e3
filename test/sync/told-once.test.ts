/** A system tells once what its medium did not take, and says of that later that all is well: it stays known until the system is started anew, whatever becomes of the file, the link or the program. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { Fault } from "../../core/errors.js";
import { twoWay } from "../../core/reconcile.js";
import type { Gate } from "./model-tree.js";
import { files, mirroring, two } from "./two.js";

const modes = [
  ["a mirror", mirroring(true)],
  ["two-way", () => ({ actions: twoWay })],
] as const;

const well: Gate = () => Promise.resolve();

/** The first of each of these syncs fails. */
function once(pattern: RegExp, also: Gate = well): Gate {
  const told = new Set<string>();
  return async (when, call) => {
    if (when === "after" || !pattern.test(call) || told.has(call)) return also(when, call);
    told.add(call);
    // What is done beside it may be over before that.
    await setImmediate();
    throw new Fault("unreadable", "the disk fails");
  };
}

const noted: string[] = [];
/** What is done, as far as it begins so. */
const noting =
  (opens: string): Gate =>
  (when, call) => (when === "before" && call.startsWith(opens) && noted.push(call), Promise.resolve());

for (const [mode, table] of modes) {
  for (const kind of ["transient", "full", "denied", "offline"] as const)
    for (const breaks of ["look a", "publish a"])
      test(`${mode}: what could not be brought in that round (${kind} at "${breaks}")`, async () => {
        const { box, server, between, run, ...it } = two(table);
        files(box, "a", "k");
        await run();
        box.write("a", 4);
        let fails = true;
        between.gate = once(/^sync a$/, (when, call) =>
          fails && when === "before" && call === breaks ? Promise.reject(new Fault(kind, "not now")) : Promise.resolve(),
        );
        await it.once().catch(() => undefined);
        fails = false;
        await run();
        assert.equal(server.content("a"), 4);
        box.remove("a");
        await run();
        assert.equal(server.content("a"), 4);
      });

  test(`${mode}: what gets another name while it is sent, or after that`, async () => {
    for (const during of [true, false]) {
      const { box, server, between, run, ...it } = two(table);
      files(box, "k");
      await run();
      box.put("a.tmp", 4);
      let renamed = !during;
      between.gate = once(/^sync a.tmp$/, (when, call) => {
        if (when === "after" && call === "send a.tmp" && !renamed) {
          renamed = true;
          box.rename("a.tmp", "a");
        }
        return Promise.resolve();
      });
      await it.once();
      if (!during) {
        await run();
        box.rename("a.tmp", "a");
      }
      await run();
      assert.equal(server.content("a"), 4);
      box.remove("a");
      await run();
      assert.equal(server.content("a"), 4);
    }
  });

  test(`${mode}: what is appended to writes nothing again that was not taken`, async () => {
    const { box, server, between, run } = two(table);
    files(box, "k");
    await run();
    box.put("a", 3);
    between.gate = once(/^sync a$/);
    await run();
    noted.length = 0;
    between.gate = noting("sync a");
    box.write("a", 5);
    await run();
    assert.deepEqual([server.content("a"), noted], [5, ["sync a"]]);
    box.remove("a");
    await run();
    assert.equal(server.content("a"), 5);
  });

  test(`${mode}: a start of the program alone, also right after the answer, says nothing of the medium; one of the system does`, async () => {
    for (const killed of [false, true]) {
      const { box, server, between, run, startAnew, ...it } = two(table);
      files(box, "k");
      await run();
      box.put("a", 4);
      const fails = once(/^sync a$/);
      between.gate = (when, call) =>
        killed && when === "before" && call === "publish a" ? Promise.reject(new Error("killed")) : fails(when, call);
      await (killed ? assert.rejects(it.once(), /killed/) : run());
      startAnew();
      between.gate = fails;
      await run();
      assert.equal(server.content("a"), 4);
      box.remove("a");
      await run();
      assert.equal(server.content("a"), 4);
    }
    const { box, server, between, run } = two(table);
    files(box, "k", "a");
    between.gate = once(/^sync a$/);
    await run();
    between.boot = "the next";
    await run();
    box.remove("a");
    await run();
    assert.equal(server.content("a"), undefined);
  });

  test(`${mode}: a directory made anew is another: it is asked, and its deletion is one`, async () => {
    for (const leaves of ["renamed", "lost"]) {
      const { box, server, between, run, ...it } = two(table);
      files(box, "k", "d/b");
      between.gate = once(/^sync d$/);
      await run();
      if (leaves === "renamed") box.rename("d", "old");
      else box.remove("d");
      await run();
      if (leaves === "lost" && mode === "two-way") {
        // It came back.
        box.remove("d");
        await run();
      }
      noted.length = 0;
      between.gate = noting("sync d");
      files(box, "d/n");
      await run();
      const { unsynced } = await it.once();
      assert.deepEqual([unsynced.has("d"), noted.includes("sync d")], [false, true]);
      box.remove("d");
      await run();
      assert.equal(server.nodes.has("d/n"), false);
    }
  });

  test(`${mode}: what is moved out of a directory that is removed then is not lost, nor what has gone on both sides`, async () => {
    const { box, server, between, run, told } = two(table);
    files(box, "k", "d/b", "d/c", "e/c");
    between.gate = once(/^sync d$/);
    await run();
    noted.length = 0;
    between.gate = noting("send ");
    box.rename("d/b", "e/b");
    box.remove("d");
    server.remove("d/c");
    await run();
    assert.deepEqual(
      [told.get("d/b"), told.get("d/c"), server.content("d/b"), box.content("d/b"), server.content("e/b")],
      [undefined, undefined, undefined, undefined, 2],
    );
    if (mode === "a mirror") assert.deepEqual(noted, []);
  });

  test(`${mode}: what was lost is told, also where the link goes in that round`, async () => {
    const { box, server, between, run, told, ...it } = two(table);
    files(box, "k");
    await run();
    box.put("a", 4);
    between.gate = once(/^sync a$/);
    await run();
    box.remove("a");
    box.put("n", 5);
    between.gate = (when, call) =>
      when === "before" && call === "send n" ? Promise.reject(new Fault("offline", "the link is gone")) : Promise.resolve();
    await assert.rejects(it.once(), /link/);
    between.gate = well;
    await run();
    assert.equal(server.content("a"), 4);
    assert.match(told.get("a") ?? "", /has lost it since: it stays at nas$/);
  });

  test(`${mode}: what is shorter then is told as what becomes of it`, async () => {
    const { box, between, once: round, run, told } = two(table);
    between.gate = once(/^sync a$/);
    box.put("a", 5);
    await run();
    box.write("a", 3);
    await round();
    const kept = mode === "a mirror" ? "what nas has of it goes to the trash there" : "both are kept";
    assert.equal(told.get("a"), `box could not sync it, and has lost what was written last since: ${kept}`);
  });
}

test("two-way: a directory that could not be synced, and takes another's name, is known as that", async () => {
  const { box, server, between, run, store } = two(() => ({ actions: twoWay }));
  files(box, "d/a", "e/b");
  between.gate = once(/^sync e$/);
  await run();
  between.gate = well;
  box.rename("d", "f");
  box.rename("e", "d");
  await run();
  assert.equal(store.base.get("d")?.here.unsynced?.reason, "the disk fails");
  box.remove("d");
  await run();
  assert.equal(server.content("d/b"), 2);
});

test("a mirror: a rename that is refused once, and taken back", async () => {
  const { box, server, between, run, ...it } = two(mirroring(true));
  files(box, "k");
  await run();
  box.put("a", 4);
  const fails = once(/^sync a$/);
  between.gate = fails;
  await run();
  box.rename("a", "b");
  between.gate = (when, call) =>
    when === "before" && call === "link b" ? Promise.reject(new Fault("transient", "locked")) : fails(when, call);
  await it.once();
  box.rename("b", "a");
  between.gate = fails;
  await run();
  box.remove("a");
  await run();
  assert.equal(server.content("a"), 4);
});

test("a mirror: of two names of one thing (hard links) one is removed: that is not lost", async () => {
  for (const deletes of [true, false]) {
    const { box, server, between, run, told, ...it } = two(mirroring(deletes));
    files(box, "k", "x");
    await run();
    box.put("a", 4);
    const node = box.nodes.get("a");
    assert.ok(node !== undefined);
    box.nodes.set("b", node);
    between.gate = once(/^sync [ab]$/);
    await run();
    box.remove("b");
    between.gate = (when, call) =>
      when === "before" && call === "take b" ? Promise.reject(new Fault("denied", "locked")) : Promise.resolve();
    await it.once();
    between.gate = well;
    await run();
    assert.deepEqual([told.get("b"), server.content("b"), server.content("a")], [undefined, deletes ? undefined : 4, 4]);
  }
});
