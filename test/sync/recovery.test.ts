/** What a kill in the middle left, found by a start that meets something else first. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "../../core/errors.js";
import { twoWay } from "../../core/reconcile.js";
import type { World } from "../../core/sync/carry.js";
import { round, type Rules } from "../../core/sync/round.js";
import { Stopped } from "../../core/sync/stop.js";
import { Kept } from "./kept.js";
import { awayDir, type Gate, sizeOf, Tree, TreeReplica, trashDir } from "./model-tree.js";
import { files, mirroring, rules, two } from "./two.js";

const noPower =
  (at: "before" | "after", of: string): Gate =>
  (when, call) =>
    when === at && call.startsWith(of) ? Promise.reject(new Error("no power")) : Promise.resolve();

/** Two-way between two trees, whose calls the gate lets through. */
function worldOf(here: Tree, there: Tree, store: Kept, gate: Gate, intent: () => string): World {
  return {
    sides: { here: new TreeReplica(here, gate), there: new TreeReplica(there, gate) },
    store,
    table: { actions: twoWay },
    untaken: new Map(),
    boot: "this one",
    unsynced: new Map(),
    names: {
      trash: (_side, path, id) => `${trashDir}/${id}/${path}`,
      conflict: (path, n) => `${path}.conflict-${n}`,
      staging: (side, path) => `${side} ${path}`,
      intent,
    },
  };
}

/** Two trees of one world, whose calls all go through. */
function pair() {
  let [time, serial] = [1, 0];
  const tick = () => (time += 1);
  const [box, server] = [new Tree(tick, true), new Tree(tick, false)];
  const world = worldOf(
    box,
    server,
    new Kept(),
    () => Promise.resolve(),
    () => String((serial += 1)),
  );
  const once = () => round(world, rules, new AbortController().signal);
  return { box, server, world, once };
}

test("a disk that is not mounted when the power is back: what was taken aside on it has its name again once it is", async () => {
  let [time, serial] = [1, 0];
  const tick = () => (time += 1);
  const [disk, mountPoint, server] = [new Tree(tick, true), new Tree(tick, true), new Tree(tick, false)];
  const store = new Kept();
  let power: Gate = () => Promise.resolve();
  const gate: Gate = (when, call) => power(when, call);
  const world = (here: Tree) => worldOf(here, server, store, gate, () => String((serial += 1)));
  const run = async (here: Tree, more: Partial<Rules> = {}) => {
    for (let done = 1; done > 0;) ({ done } = await round(world(here), { ...rules, ...more }, new AbortController().signal));
  };
  disk.put("a", 1);
  await run(disk);
  disk.put("a", 2);
  server.put("a", 3);
  // The loser of the conflict is in the trash, and has no name yet.
  power = noPower("before", "link ");
  await assert.rejects(run(disk), /no power/);
  power = () => Promise.resolve();
  assert.equal(disk.content("a"), undefined);
  await assert.rejects(run(mountPoint), Stopped);
  await assert.rejects(run(mountPoint), /box is not the one that was agreed with/);
  assert.deepEqual([...mountPoint.nodes.keys()], []);
  await run(disk);
  assert.deepEqual([disk.text(), server.text()], ["a.conflict-1=2 a=3", "a.conflict-1=2 a=3"]);

  // It is another disk, says a person: then what was begun on the other is over.
  disk.put("a", 4);
  server.put("a", 5);
  power = noPower("before", "link ");
  await assert.rejects(run(disk), /no power/);
  power = () => Promise.resolve();
  await run(mountPoint, { anew: ["here"] });
  assert.deepEqual([mountPoint.text(), store.intents.size], [server.text(), 0]);
});

test("what a side has and does not list is not removed at the other, and all else is done", async () => {
  const { box, server, world, once } = pair();
  for (const [n, path] of ["a", "b", "c"].entries()) box.put(path, n + 1);
  await once();
  const { there } = world.sides;
  const scan = there.scan.bind(there);
  there.scan = async (signal) => {
    const found = await scan(signal);
    return { ...found, entries: new Map([...found.entries].filter(([path]) => path !== "a")) };
  };
  server.remove("b");
  assert.deepEqual([...(await once()).left], ["a"]);
  assert.deepEqual([box.text(), server.text()], ["a=1 c=3", "a=1 c=3"]);
});

test("where a part of a side takes spellings for one (a FAT that is mounted in it) a name in other capitals is no reason to keep the old one", async () => {
  const { box, server, world, once } = pair();
  for (const [n, path] of ["LOG", "other"].entries()) box.put(path, n + 1);
  await once();
  const { there } = world.sides;
  const stat = there.stat.bind(there);
  there.stat = async (path, signal) => (await stat(path, signal)) ?? (path === "LOG" ? stat("log", signal) : undefined);
  server.remove("LOG");
  server.put("log", 1);
  await once();
  assert.deepEqual([...(await once()).left], []);
  assert.deepEqual([box.text(), server.text()], ["log=1 other=2", "log=1 other=2"]);
});

test("a directory that became a file: of what is below a file nothing is asked, where a server has no right answer (ProFTPD's SFTP says that it failed)", async () => {
  const { box, server, world, once } = pair();
  files(box, "d/a", "d/e/b");
  await once();
  const { there } = world.sides;
  const stat = there.stat.bind(there);
  there.stat = (path, signal) => (path.startsWith("d/") ? Promise.reject(new Fault("transient", "failure")) : stat(path, signal));
  for (const path of ["d/e/b", "d/e", "d/a", "d"]) server.remove(path);
  server.put("d", 7);
  await once();
  assert.deepEqual([...(await once()).left], []);
  assert.deepEqual([box.text(), server.text()], ["d=7", "d=7"]);
});

test("what a person said may be removed is that, whatever a lost link left of it: more than that asks again, and so does a directory that is another one", async () => {
  let [time, serial] = [1, 0];
  const tick = () => (time += 1);
  const [box, mountPoint, server] = [new Tree(tick, true), new Tree(tick, true), new Tree(tick, false)];
  const store = new Kept();
  let link: Gate = () => Promise.resolve();
  const gate: Gate = (when, call) => link(when, call);
  const run = (here: Tree, approved?: Stopped) =>
    round(
      worldOf(here, server, store, gate, () => String((serial += 1))),
      { ...rules, maxDeletes: { share: 0, least: 1 }, approved: approved?.gone, anew: approved?.strange ?? [] },
      new AbortController().signal,
    );
  const stopped = async (here: Tree, approved?: Stopped): Promise<Stopped> => {
    const error: unknown = await run(here, approved).then(
      () => undefined,
      (it: unknown) => it,
    );
    assert.ok(error instanceof Stopped, String(error));
    return error;
  };
  for (const name of ["a", "b", "c", "d", "e", "f", "g"]) box.put(name, 1);
  await run(box);
  for (const name of ["a", "b", "c"]) box.remove(name);
  const three = await stopped(box);
  link = (when, call) => (when === "before" && call === "take b" ? Promise.reject(new Fault("offline", "no link")) : Promise.resolve());
  await assert.rejects(run(box, three), /no link/);
  link = () => Promise.resolve();
  assert.match((await stopped(mountPoint, three)).message, /box is not the one that was agreed with/);
  for (const name of ["d", "e"]) box.remove(name);
  const five = await stopped(box, three);
  assert.match(five.message, /of \d would be removed at nas/);
  // One more is no question.
  box.put("e", 1);
  await run(box, three);
  assert.equal(server.text(), "e=1 f=1 g=1");
});

for (const killed of [false, true])
  test(`what was staged is another content when it is to get its name${killed ? ", by a start after a kill" : ""}: the old one keeps or gets back its name, and nothing is stuck`, async () => {
    let [time, serial] = [1, 0];
    const tick = () => (time += 1);
    const [box, server] = [new Tree(tick, true), new Tree(tick, false)];
    const store = new Kept();
    let meddle: Gate = () => Promise.resolve();
    const gate: Gate = (when, call) => meddle(when, call);
    const world: World = {
      sides: { here: new TreeReplica(box, gate), there: new TreeReplica(server, gate) },
      store,
      table: { actions: twoWay },
      untaken: new Map(),
      boot: "this one",
      unsynced: new Map(),
      names: {
        trash: (_side, path, id) => `${trashDir}/${id}/${path}`,
        conflict: (path, n) => `${path}.conflict-${n}`,
        staging: (side, path, { stamp }) => `${side} ${path} ${stamp.modifiedMs}`,
        intent: () => String((serial += 1)),
      },
    };
    const once = () => round(world, rules, new AbortController().signal);
    box.put("a", 1);
    await once();
    box.put("a", 2);
    meddle = (when, call) => {
      if (when === "after" || !call.startsWith("publish ")) return Promise.resolve();
      // Of the same size.
      for (const id of server.staged.keys()) server.staged.set(id, 5);
      return killed ? Promise.reject(new Error("no power")) : Promise.resolve();
    };
    if (killed) await assert.rejects(once(), /no power/);
    else assert.deepEqual([...(await once()).failed.keys()], ["a"]);
    if (!killed) assert.deepEqual([server.text(), store.intents.size, store.base.has("a")], ["a=1", 0, true]);
    meddle = () => Promise.resolve();
    for (let done = 1; done > 0;) ({ done } = await once());
    // What was agreed has its name back: no conflict.
    assert.deepEqual([box.text(), server.text(), store.intents.size], ["a=2", "a=2", 0]);
  });

const mirrored = mirroring(false);

for (const answered of [true, false])
  test(`a rename that fails each time in a way that passes${answered ? "" : ", or was done and not answered,"} holds up nothing but what it is about`, async () => {
    const { box, server, between, once, run } = two(mirrored);
    for (const [n, path] of ["a", "d/b", "d/c", "e"].entries()) {
      box.makeParents(path);
      box.put(path, n + 1);
    }
    await run();
    const sent: string[] = [];
    let locked = true;
    between.gate = (when, call) => {
      if (call.startsWith("send ")) sent.push(call);
      const fails = locked && call === "link d/z" && when === (answered ? "before" : "after");
      return fails ? Promise.reject(new Fault("transient", "it is locked")) : Promise.resolve();
    };
    box.rename("a", "m");
    box.rename("d/b", "d/z");
    box.rename("e", "n");
    box.put("new", 6);
    for (let round = 0; round < (answered ? 2 : 1); round++) {
      const { broke, failed } = await once();
      assert.equal(broke?.message, "it is locked");
      assert.deepEqual([...failed], [["d/z", "nas: it is locked"]]);
      assert.equal(server.text(), answered ? "d/ d/b=2 d/c=3 m=1 n=4 new=6" : "d/ d/b=2 d/c=3 d/z=2 m=1 n=4 new=6");
    }
    locked = false;
    await run();
    assert.equal(server.text(), box.text());
    assert.deepEqual(new Set(sent), new Set(["send new"]));
  });

test("a rename that fails each time, of what comes along into a directory that is there already, does not keep a round from its end", async () => {
  const { box, server, between, once, run } = two(mirrored);
  box.makeParents("d/x");
  box.put("d/x", 1);
  await run();
  server.makeParents("e/others");
  server.put("e/others", 2);
  // It is not deleted there: it would come along.
  box.remove("d/x");
  box.rename("d", "e");
  box.put("new", 3);
  let tried = 0;
  between.gate = (when, call) => {
    if (when !== "before" || call !== "link e/x") return Promise.resolve();
    return Promise.reject((tried += 1) > 9 ? new Error("again and again") : new Fault("transient", "it is locked"));
  };
  assert.deepEqual([...(await once()).failed], [["e/x", "nas: it is locked"]]);
  assert.deepEqual([server.text(), tried], ["d/ d/x=1 e/ e/others=2 new=3", 1]);
});

test("what was put aside for a swap, without an answer, is neither taken away nor sent anew", async () => {
  const { box, server, between, once, run } = two(mirrored);
  box.put("a", 1);
  box.put("b", 2);
  await run();
  box.rename("a", "x");
  box.rename("b", "a");
  box.rename("x", "b");
  const sent: string[] = [];
  let answered = false;
  between.gate = (when, call) => {
    if (call.startsWith("send ")) sent.push(call);
    return when === "after" && call.startsWith("unlink ") && !answered
      ? Promise.reject(new Fault("transient", "no answer"))
      : Promise.resolve();
  };
  await once();
  answered = true;
  await run();
  assert.deepEqual([server.text(), sent], [`${awayDir}/ a=2 b=1`, []]);
  assert.deepEqual(server.below(trashDir), []);
});

test("a directory does not get its new name before what was begun in it is ended: it would be ended under the old name, too", async () => {
  const { box, server, between, once, run } = two(mirrored);
  box.makeParents("d/x");
  box.put("d/x", 1);
  box.put("d/y", 2);
  await run();
  box.put("d/x", 3);
  const sent: string[] = [];
  let locked = true;
  between.gate = (when, call) => {
    if (when === "before" && call.startsWith("send ")) sent.push(call);
    return when === "before" && call === "publish d/x" && locked
      ? Promise.reject(new Fault("transient", "it is locked"))
      : Promise.resolve();
  };
  await once();
  box.rename("d", "e");
  box.put("new", 4);
  assert.deepEqual([...(await once()).failed], [["d/x", "nas: it is locked"]]);
  assert.equal(server.text(), "d/ d/y=2 new=4");
  locked = false;
  await run();
  assert.deepEqual([server.text(), sent], ["e/ e/x=3 e/y=2 new=4", ["send new"]]);
});

test("what was begun and cannot be ended where it was (no right any more) holds up nothing else, and is ended once it can be", async () => {
  const { box, server, between, once, run, store } = two(() => ({ actions: twoWay }));
  for (const path of ["a", "d/b"]) {
    box.makeParents(path);
    box.put(path, 1);
  }
  await run();
  box.put("d/b", 2);
  server.put("d/b", 3);
  // The loser of the conflict is in the trash, and gets no name.
  between.gate = (when, call) =>
    when === "before" && call.startsWith("link ") ? Promise.reject(new Fault("denied", "no right")) : Promise.resolve();
  assert.deepEqual([...(await once()).failed], [["d/b", "box: no right"]]);
  assert.equal(store.intents.size, 1);
  for (const content of [4, 5]) {
    box.put("a", content);
    const { failed } = await once();
    assert.deepEqual([...failed], [["d/b", "box: no right"]]);
    assert.equal(server.content("a"), content);
  }
  between.gate = () => Promise.resolve();
  await run();
  assert.deepEqual([box.text(), store.intents.size], ["a=5 d/ d/b.conflict-1=2 d/b=3", 0]);
  assert.equal(server.text(), box.text());
});

test("what cannot be taken aside has one name in the trash, however often that is tried: each would leave directories there", async () => {
  const { box, server, between, once, run, store } = two(mirroring(true));
  box.put("a", 1);
  box.put("b", 1);
  await run();
  box.nodes.delete("a");
  box.put("b", 2);
  between.gate = (when, call) =>
    when === "before" && call.startsWith("take ") ? Promise.reject(new Fault("denied", "no right")) : Promise.resolve();
  const names = new Set<string>();
  for (let n = 0; n < 3; n++) {
    assert.deepEqual([...(await once()).failed.keys()].sort(), ["a", "b"]);
    for (const { old } of store.intents.values()) names.add(old?.trash ?? "");
  }
  assert.equal(names.size, 2);
  between.gate = () => Promise.resolve();
  await run();
  assert.deepEqual([server.text(), store.intents.size], ["b=2", 0]);
});

test("what got its name and could not be noted goes with its file, also where that was another content in between, which never came", async () => {
  const { box, server, between, run } = two(mirroring(true));
  box.put("a", 1);
  between.gate = noPower("after", "publish a");
  await assert.rejects(run(), /no power/);
  box.write("a", 2);
  between.gate = noPower("before", "send a");
  await assert.rejects(run(), /no power/);
  between.gate = () => Promise.resolve();
  assert.equal(server.text(), "a=1");
  box.remove("a");
  await run();
  assert.equal(server.text(), "");
});

for (const then of ["stays", "has a third name"])
  test(`a file that has both its names, as the power went while it was moved, and ${then}: one of them goes`, async () => {
    const { box, server, between, run } = two(mirroring(true));
    box.put("a", 1);
    await run();
    box.rename("a", "b");
    between.gate = noPower("before", "unlink a");
    await assert.rejects(run(), /no power/);
    assert.equal(server.text(), "a=1 b=1");
    if (then !== "stays") box.rename("b", "c");
    const sent: string[] = [];
    between.gate = (_when, call) => {
      if (call.startsWith("send ")) sent.push(call);
      return Promise.resolve();
    };
    await run();
    assert.deepEqual([server.text(), sent], [box.text(), []]);
  });

test("a file that has both its names, one of which may not be touched there, holds up nothing", async () => {
  const { box, server, between, once, run, store } = two(mirroring(true));
  box.put("a", 1);
  await run();
  box.rename("a", "b");
  between.gate = noPower("before", "unlink a");
  await assert.rejects(run(), /no power/);
  box.rename("b", "c");
  between.gate = (when, call) =>
    when === "before" && call === "take b" ? Promise.reject(new Fault("denied", "no right")) : Promise.resolve();
  assert.deepEqual([...(await once()).failed], []);
  assert.deepEqual([server.text(), store.intents.size], ["b=1 c=1", 0]);
});

for (const cut of [false, true])
  test(`what has its name back, as what was to replace it is another content, goes with its file${cut ? ", also where the power goes while it gets it" : ""}`, async () => {
    const { box, server, between, run } = two(mirroring(true));
    box.put("a", 1);
    await run();
    box.write("a", 2);
    between.gate = noPower("before", "publish a");
    await assert.rejects(run(), /no power/);
    // Of the same size.
    for (const id of server.staged.keys()) server.staged.set(id, 5);
    if (cut) {
      between.gate = noPower("after", "link a");
      await assert.rejects(run(), /no power/);
      assert.equal(server.text(), "a=1");
    }
    between.gate = () => Promise.resolve();
    box.remove("a");
    await run();
    assert.equal(server.text(), "");
  });

test("what others brought under a name, while a file of its size was to come there, is not taken for that file when it is back", async () => {
  const { box, server, between, run } = two(mirrored);
  assert.equal(sizeOf(1), sizeOf(4));
  box.put("a", 1);
  between.gate = (_when, call) => (call.startsWith("send a") ? Promise.reject(new Error("no power")) : Promise.resolve());
  await assert.rejects(run(), /no power/);
  between.gate = () => Promise.resolve();
  server.put("a", 4);
  box.rename("a", "b");
  await run();
  assert.equal(server.content("b"), 1);
  box.rename("b", "a");
  await run();
  assert.equal(server.content("a"), 1);
});

test("a name that was free for a moment, and that somebody had in it, is not missed for what was agreed before", async () => {
  const { box, server, between, once, run } = two(() => ({ actions: twoWay }));
  box.put("a", 1);
  await run();
  server.put("a", 2);
  between.gate = (when, call) => {
    if (call === "take a" && when === "after") box.makeParents("a/x");
    if (call === "publish a" && when === "after") {
      box.remove("a");
      // Nobody deleted that.
      server.put("a", 1);
    }
    return Promise.resolve();
  };
  await once();
  between.gate = () => Promise.resolve();
  await run();
  assert.deepEqual([box.text(), server.text()], ["a=1", "a=1"]);
});

test("a name that was made free for what nobody wants by now, and whose old content somebody threw out of the trash, is not missed", async () => {
  const { box, server, between, run } = two(() => ({ actions: twoWay }));
  box.put("a", 1);
  box.put("b", 1);
  await run();
  box.put("a", 2);
  between.gate = noPower("after", "take a");
  await assert.rejects(run(), /no power/);
  between.gate = () => Promise.resolve();
  server.remove(trashDir);
  // As it was agreed.
  box.put("a", 1);
  await run();
  assert.deepEqual([box.text(), server.text()], ["a=1 b=1", "a=1 b=1"]);
});

test("what was staged with its time, and shall not have it any more, does not get its name with it: others would take it for what was there", async () => {
  const { box, server, between, once, run } = two(() => ({ actions: twoWay }));
  const agreedMs = Date.UTC(2026, 0);
  assert.equal(sizeOf(1), sizeOf(4));
  box.put("a", 1, agreedMs);
  await run();
  assert.equal(server.entry("a")?.stamp.modifiedMs, agreedMs);
  box.put("a", 4, agreedMs + 1);
  server.remove("a");
  between.gate = noPower("after", "send a");
  await assert.rejects(once(), /no power/);
  between.gate = () => Promise.resolve();
  // It was only taken away for a moment.
  server.put("a", 1, agreedMs);
  await run();
  assert.equal(server.content("a"), 4);
  assert.notEqual(server.entry("a")?.stamp.modifiedMs, agreedMs + 1);
});

/** A mirror with deletes at whose other side one call goes wrong: `then` comes in between. */
async function wrongOnce(given: {
  readonly before: (box: Tree) => void;
  readonly edit: (box: Tree) => void;
  readonly when: "before" | "after";
  readonly call: string;
  readonly kind: "transient" | "denied";
  readonly then?: (box: Tree) => void;
}) {
  const { box, server, between, once, run } = two(mirroring(true));
  given.before(box);
  await run();
  given.edit(box);
  const sent: string[] = [];
  let left = 1;
  between.gate = (when, call) => {
    if (when === "before" && call.startsWith("send ")) sent.push(call);
    if (when !== given.when || call !== given.call || left-- <= 0) return Promise.resolve();
    given.then?.(box);
    return Promise.reject(new Fault(given.kind, "it went wrong"));
  };
  await once();
  assert.ok(left <= 0, `${given.call} was called`);
  return { box, server, between, run, sent };
}

test("a rename of a directory that is refused half-way leaves none under the new name", async () => {
  const { server } = await wrongOnce({
    before: (box) => files(box, "d/a"),
    edit: (box) => box.rename("d", "e"),
    ...{ when: "before", call: "rename d", kind: "denied" },
  });
  assert.equal(server.text(), "d/ d/a=1");
});

test("what was to come into a directory that was not moved waits: its parents would be nobody's", async () => {
  const { box, server, run, sent } = await wrongOnce({
    before: (box) => files(box, "c/a", "b"),
    edit: (box) => {
      box.rename("c", "d");
      box.rename("b", "d/b");
    },
    ...{ when: "before", call: "rename c", kind: "denied" },
  });
  assert.equal(server.text(), "b=2 c/ c/a=1");
  await run();
  assert.deepEqual([server.text(), sent], [box.text(), []]);
});

test("a directory whose making was not answered, and that has gone here since, goes there too", async () => {
  const { box, server, run } = await wrongOnce({
    before: () => undefined,
    edit: (box) => box.makeParents("d/e/x"),
    ...{ when: "after", call: "mkdir d/e", kind: "transient" },
  });
  assert.equal(server.text(), "d/ d/e/");
  box.remove("d");
  await run();
  assert.equal(server.text(), "");
});

test("what comes to a name of which nobody knows whether it was made free is not forgotten for that", async () => {
  const { box, server, run, sent } = await wrongOnce({
    before: (box) => files(box, "a", "c"),
    edit: (box) => {
      box.remove("c");
      box.rename("a", "c");
    },
    ...{ when: "after", call: "take c", kind: "denied" },
  });
  box.remove("c");
  await run();
  assert.deepEqual([server.text(), sent], ["", []]);
});

for (const [name, edit, then] of [
  ["what was moved without an answer", (box: Tree) => box.rename("a", "b"), (box: Tree) => box.rename("b", "d")],
  ["what got the old name of such a thing", (box: Tree) => box.rename("a", "b"), (box: Tree) => box.rename("c", "a")],
] as const)
  test(`${name}, and got another name here before that is known, is not sent anew`, async () => {
    const { box, server, run, sent } = await wrongOnce({
      before: (box) => files(box, "a", "c"),
      ...{ edit, then, when: "after", call: "unlink a", kind: "transient" },
    });
    await run();
    assert.deepEqual([server.text(), sent], [box.text(), []]);
  });

test("what got its name without an answer, and is renamed here while it is compared, does not stay there under the old one", async () => {
  const { box, server, between, run } = await wrongOnce({
    before: () => undefined,
    edit: (box) => box.put("a", 1),
    ...{ when: "after", call: "publish a", kind: "transient" },
  });
  between.gate = (when, call) => {
    if (when === "before" && call === "digest a" && box.nodes.has("a")) box.rename("a", "b");
    return Promise.resolve();
  };
  await run();
  await run();
  assert.deepEqual([server.text(), server.staged.size], ["b=1", 0]);
});

test("what got its name without an answer, and goes here before that is known, does not stay there because something else got another name", async () => {
  const { box, server, between, run } = await wrongOnce({
    before: (box) => files(box, "b"),
    edit: (box) => box.put("a", 1),
    ...{ when: "after", call: "publish a", kind: "denied" },
  });
  box.rename("b", "c");
  between.gate = (when, call) => {
    if (when === "after" && call === "unlink b") box.remove("a");
    return Promise.resolve();
  };
  await run();
  assert.deepEqual([server.text(), server.staged.size], [box.text(), 0]);
});

test("what may have got its name, has gone here, and is changed by others before it goes there, stays; it is not read for that", async () => {
  const { box, server, between, run } = await wrongOnce({
    before: (box) => files(box, "b"),
    edit: (box) => box.put("a", 1),
    ...{ when: "after", call: "publish a", kind: "denied" },
  });
  box.remove("a");
  box.put("c", 3);
  const read: string[] = [];
  let left = 1;
  between.gate = (when, call) => {
    if (when === "before" && call === "digest a") read.push(call);
    if (when === "before" && call === "look a" && left-- > 0) server.put("a", 5);
    return Promise.resolve();
  };
  await run();
  assert.ok(left <= 0);
  await run();
  assert.deepEqual([server.text(), server.staged.size, read], ["a=5 b=1 c=3", 0, []]);
});

test("what got its name and could not be noted, and is on a card that is away when the power is back, is there when that is back", async () => {
  const { box, server, between, run, once } = two(mirroring(true));
  box.makeParents("card/a");
  box.put("card/a", 1);
  box.put("b", 2);
  between.gate = noPower("after", "publish card/a");
  await assert.rejects(run(), /no power/);
  const changed: string[] = [];
  between.gate = (when, call) => {
    if (when === "before" && /^(send|take|splice) /.test(call)) changed.push(call);
    return Promise.resolve();
  };
  box.unseen.set("card", "it cannot be read");
  await once();
  box.unseen.clear();
  await run();
  assert.deepEqual([server.text(), server.staged.size, changed], ["b=2 card/ card/a=1", 0, []]);
});

test("what got its name and could not be noted is not forgotten where there is no room for something else", async () => {
  const { box, server, between, run, once } = two(mirroring(true));
  box.put("a", 1);
  between.gate = noPower("after", "unstage a");
  await assert.rejects(run(), /no power/);
  box.put("a", 2);
  box.makeParents("d/x");
  between.gate = (when, call) =>
    when === "before" && call === "mkdir d" ? Promise.reject(new Fault("full", "no room")) : Promise.resolve();
  await assert.rejects(once(), /no room/);
  box.remove("a");
  between.gate = () => Promise.resolve();
  await run();
  assert.equal(server.text(), "d/");
});

test("what is whole, and has not got its name, is not what others have there under it, of the same size", async () => {
  const { box, server, between, run, store } = two(mirroring(true));
  assert.equal(sizeOf(1), sizeOf(4));
  box.put("a", 1);
  between.gate = noPower("after", "send a");
  await assert.rejects(run(), /no power/);
  between.gate = () => Promise.resolve();
  server.put("a", 4);
  box.remove("a");
  await run();
  assert.deepEqual([server.text(), server.staged.size, store.staged.size], ["a=4", 0, 0]);
});

test("what was begun in the place of others' file, and got the name without that as they took theirs away, goes with its file", async () => {
  const { box, server, between, run } = two(mirroring(true));
  server.put("a", 1);
  box.put("a", 4);
  between.gate = noPower("after", "send a");
  await assert.rejects(run(), /no power/);
  server.remove("a");
  between.gate = noPower("after", "unstage a");
  await assert.rejects(run(), /no power/);
  between.gate = () => Promise.resolve();
  assert.equal(server.text(), "a=4");
  box.remove("a");
  await run();
  assert.equal(server.text(), "");
});

test("parts of what cannot take the place of others' file do not pile up there", async () => {
  const { box, server, between, once, store } = two(mirroring(true));
  server.put("a", 1);
  between.gate = (when, call) =>
    when === "before" && call === "take a" ? Promise.reject(new Fault("denied", "no right")) : Promise.resolve();
  for (const content of [4, 7, 10]) {
    assert.equal(sizeOf(content), sizeOf(1));
    box.put("a", content);
    await once();
    assert.deepEqual([server.staged.size, store.staged.size], [1, 1]);
  }
  box.remove("a");
  await once();
  assert.deepEqual([server.text(), server.staged.size], ["a=1", 0]);
});

/** A mirror that only adds: what is at the server, and what was sent, also in part. */
function adding() {
  const { box, server, between, once, run } = two(mirrored);
  const sent: string[] = [];
  const gate = (given: (call: string) => Fault | undefined): Gate => {
    return (when, call) => {
      if (when === "after") return Promise.resolve();
      if (/^(send|splice) /.test(call)) sent.push(call);
      const fault = given(call);
      return fault === undefined ? Promise.resolve() : Promise.reject(fault);
    };
  };
  const refuse = (call: string) => void (between.gate = gate((it) => (it === call ? new Fault("denied", "no right") : undefined)));
  between.gate = gate(() => undefined);
  return { box, server, between, once, run, sent, gate, refuse };
}

test("what was brought anew, as it could not be moved, is what is moved the next time: not what stays under the old name", async () => {
  const { box, server, once, run, sent, refuse } = adding();
  files(box, "a");
  await run();
  refuse("link b");
  box.rename("a", "b");
  await once();
  await run();
  box.write("b", 4);
  refuse("");
  await run();
  assert.deepEqual([server.text(), sent], ["a=1 b=4", ["send a", "send b", "splice b"]]);
  box.rename("b", "c");
  await run();
  assert.deepEqual([server.text(), sent.slice(3)], ["a=1 c=4", []]);
});

test("two names of one thing (hard links) both go to where they are here", async () => {
  const { box, server, run, sent } = adding();
  const link = (from: string, to: string) => {
    const node = box.nodes.get(from);
    assert.ok(node !== undefined);
    box.nodes.set(to, node);
  };
  files(box, "a");
  link("a", "b");
  await run();
  sent.splice(0);
  box.rename("a", "c");
  box.rename("b", "d");
  await run();
  assert.deepEqual([server.text(), sent], ["c=1 d=1", []]);
  // One of them is no name of it any more, and stays there: it is not moved for the other later.
  box.remove("c");
  box.write("d", 4);
  await run();
  box.rename("d", "e");
  sent.splice(0);
  await run();
  assert.deepEqual([server.text(), sent], ["c=1 e=4", []]);
});

test("what could not be moved, and was agreed anew under the same name, may be moved", async () => {
  const { box, server, once, run, sent, refuse } = adding();
  files(box, "c");
  await run();
  refuse("link b");
  box.rename("c", "b");
  await once();
  refuse("send b");
  box.put("c", 2);
  await once();
  box.remove("c");
  box.rename("b", "c");
  await run();
  assert.equal(server.text(), "c=1");
  sent.splice(0);
  box.rename("c", "d");
  await run();
  assert.deepEqual([server.text(), sent], ["d=1", []]);
});

test("what has the other's name, and whose name has gone while that was read, is not sent anew", async () => {
  const { box, server, between, run, sent, gate } = adding();
  box.put("a", 1);
  box.put("b", 4);
  await run();
  sent.splice(0);
  box.rename("a", "x");
  box.rename("b", "a");
  box.rename("x", "b");
  // Of the same size.
  box.write("a", 7);
  between.gate = gate((call) => {
    if (call === "digest a") box.remove("a");
    return undefined;
  });
  await run();
  await run();
  assert.deepEqual([server.text(), sent], ["b=1", []]);
});
