/** The other side of a mirror is listed when that may show something, and else is not. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { mirror } from "../../core/reconcile-mirror.js";
import type { World } from "../../core/sync/carry.js";
import { Known } from "../../core/sync/known.js";
import { NoRoom } from "../../core/sync/no-room.js";
import { round, type Rules } from "../../core/sync/round.js";
import { Kept } from "./kept.js";
import { awayDir, Tree, TreeReplica, trashDir } from "./model-tree.js";

const rules: Rules = {
  ...{ maxDeletes: undefined, anew: ["there"], together: 1, noRoom: new NoRoom() },
  begunAnew: () => undefined,
  neverMarked: () => false,
  forgets: () => false,
  named: { here: "box", there: "nas" },
  before: () => Promise.resolve(),
};

test("a mirror is listed once, and again after something did not fit, was refused, or carried directories away", async () => {
  let [time, serial, listings] = [0, 0, 0];
  const tick = () => (time += 1);
  const [box, nas] = [new Tree(tick, true, "born"), new Tree(tick, false)];
  const fresh = () => String((serial += 1));
  let lost = false;
  const there = new TreeReplica(nas, (when, call) => {
    if (when === "before" && call === "scan") listings += 1;
    return lost ? Promise.reject(new Error("the link is gone")) : Promise.resolve();
  });
  const known = new Known();
  const world: World = {
    sides: {
      here: new TreeReplica(box, () => Promise.resolve()),
      there,
    },
    store: new Kept(),
    known,
    untaken: new Map(),
    boot: "this one",
    unsynced: new Map(),
    names: {
      trash: (_side, path, id) => `${trashDir}/${id}/${path}`,
      conflict: (path) => path,
      staging: (_side, path, { stamp }) => `${path} ${stamp.modifiedMs}`,
      intent: fresh,
    },
    table: { alone: true, actions: (tables) => mirror(tables, { deletes: true, away: awayDir, fresh }) },
  };
  const run = async (): Promise<number> => {
    listings = 0;
    for (let done = 1; done > 0;) ({ done } = await round(world, rules, new AbortController().signal));
    return listings;
  };
  box.put("a", 1);
  box.makeParents("d/x");
  box.put("d/b", 2);
  nas.put("theirs", 3);
  nas.put("d/theirs", 4);
  assert.equal(await run(), 1);
  assert.equal(await run(), 0);
  // Contents, directories and removals of files are known without it.
  box.write("a", 5);
  box.put("c", 6);
  box.makeParents("e/f/x");
  box.remove("d/b");
  assert.equal(await run(), 0);
  assert.equal(nas.text(), "a=5 c=6 d/ d/theirs=4 e/ e/f/ theirs=3");
  // So is what was there before, and is in the way, or keeps a directory.
  box.put("theirs", 7);
  box.remove("d");
  assert.equal(await run(), 0);
  assert.equal(nas.text(), "a=5 c=6 d/ d/theirs=4 e/ e/f/ theirs=7");
  // What came since shows when it does not fit.
  nas.put("g", 8);
  box.put("g", 9);
  await assert.doesNotReject(round(world, rules, new AbortController().signal));
  assert.equal(await run(), 1);
  assert.equal(nas.content("g"), 9);
  box.rename("e", "h");
  assert.equal(await run(), 1);
  box.put("i", 10);
  lost = true;
  await assert.rejects(run());
  lost = false;
  assert.equal(await run(), 1);
  assert.equal(nas.text(), "a=5 c=6 d/ d/theirs=4 g=9 h/ h/f/ i=10 theirs=7");
  // Nor is a directory known any more that was emptied into the one above it, and removed.
  box.makeParents("j/k/x");
  box.put("j/k/a", 12);
  await run();
  box.rename("j/k", "k");
  box.remove("j");
  box.rename("k", "j");
  await run();
  box.remove("j");
  await run();
  assert.equal(nas.text(), "a=5 c=6 d/ d/theirs=4 g=9 h/ h/f/ i=10 theirs=7");
  // No directory goes with what came into it since.
  nas.put("h/f/of others", 11);
  box.remove("h");
  assert.equal(await run(), 1);
  assert.equal(nas.text(), "a=5 c=6 d/ d/theirs=4 g=9 h/ h/f/ h/f/of others=11 i=10 theirs=7");
  // A name that waits for another spelling of it shows nothing.
  there.folding = "case";
  known.forget();
  box.remove("a");
  await run();
  box.put("A", 13);
  box.put("a", 14);
  await run();
  assert.equal(await run(), 0);
  assert.equal(nas.content("A"), 13);
  assert.equal(nas.content("a"), undefined);
  box.remove("A");
  await run();
  assert.equal(nas.content("a"), 14);
});

test("what both sides hold is noted together, and what goes is: a first round over 50,000 equal files does not wait 50,000 times for the medium", async () => {
  let [time, serial, waiting, most] = [0, 0, 0, 0];
  const tick = () => (time += 1);
  const [box, nas] = [new Tree(tick, true, "born"), new Tree(tick, false)];
  const fresh = () => String((serial += 1));
  const store = new Kept();
  const change = store.change.bind(store);
  store.change = async (it) => {
    most = Math.max(most, (waiting += 1));
    await new Promise(setImmediate);
    await change(it);
    waiting -= 1;
  };
  for (const [n, name] of ["a", "b", "c", "d"].entries()) for (const tree of [box, nas]) tree.put(name, n);
  const world: World = {
    sides: { here: new TreeReplica(box, () => Promise.resolve()), there: new TreeReplica(nas, () => Promise.resolve()) },
    store,
    untaken: new Map(),
    boot: "this one",
    unsynced: new Map(),
    names: {
      trash: (_side, path, id) => `${trashDir}/${id}/${path}`,
      conflict: (path) => path,
      staging: (_side, path) => path,
      intent: fresh,
    },
    table: { alone: true, actions: (tables) => mirror(tables, { deletes: true, away: awayDir, fresh }) },
  };
  const { done } = await round(world, { ...rules, together: 4 }, new AbortController().signal);
  assert.deepEqual([done, most], [4, 4]);
  for (const name of ["a", "b", "c", "d"]) box.remove(name);
  most = 0;
  const removed = await round(world, { ...rules, together: 4 }, new AbortController().signal);
  assert.deepEqual([removed.done, most, nas.content("a")], [4, 4, undefined]);
});
