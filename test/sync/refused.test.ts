/** Names that a side does not take: what was to get one waits alone, and is over once nobody wants it any more, whatever became of the try. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault, type FaultKind } from "../../core/errors.js";
import { twoWay } from "../../core/reconcile.js";
import { files, two } from "./two.js";

const both = () => two(() => ({ actions: twoWay }));
type Two = ReturnType<typeof both>;

/** As Apache does: it is not even looked for. */
const unseen = ({ server }: Two) => {
  server.refuses = (path) => path.endsWith(".ht");
};
/** What gets that name is refused. */
const refusing =
  (kind: FaultKind, path: string) =>
  ({ between }: Two) => {
    between.gate = (when, call) =>
      when === "before" && call === `publish ${path}` ? Promise.reject(new Fault(kind, "no")) : Promise.resolve();
  };
/** The program is killed before the name is asked for. */
const killed = async (it: Two) => {
  const { between, once } = it;
  between.gate = (_when, call) => (call.startsWith("publish ") ? Promise.reject(new Error("no power")) : Promise.resolve());
  await assert.rejects(once(), /no power/);
  between.gate = () => Promise.resolve();
  unseen(it);
};

const ways: readonly (readonly [string, (it: Two) => void | Promise<void>])[] = [
  ["and is not even looked for", unseen],
  ["denied", refusing("denied", "dir/x.ht")],
  ["rejected", refusing("rejected", "dir/x.ht")],
  ["as if it would pass", refusing("transient", "dir/x.ht")],
  ["after a kill", killed],
];

for (const [name, refuse] of ways)
  test(`a name that the server does not take (${name}) is left alone, and is over with its file`, async () => {
    const it = both();
    const { box, server, once, run, store } = it;
    files(box, "keep", "dir/x.ht");
    await refuse(it);
    const { failed } = await once();
    assert.deepEqual([...failed.keys()], ["dir/x.ht"]);
    // Beside it all goes on.
    box.put("dir/y", 7);
    await once();
    assert.equal(server.text(), "dir/ dir/y=7 keep=1");
    box.remove("dir");
    await run();
    assert.deepEqual([(await once()).failed.size, store.intents.size, store.staged.size, server.staged.size], [0, 0, 0, 0]);
    assert.deepEqual([box.text(), server.text()], ["keep=1", "keep=1"]);
    // The name is free for something else.
    box.put("dir", 9);
    await run();
    assert.equal(server.text(), "dir=9 keep=1");
  });

test("a name that the server takes later is brought then, and was sent once", async () => {
  const it = both();
  const { box, server, between, once, run } = it;
  files(box, "a.ht");
  let sent = 0;
  between.gate = (when, call) => {
    if (when === "after" && call.startsWith("send ")) sent += 1;
    return Promise.resolve();
  };
  unseen(it);
  for (let n = 0; n < 3; n++) await once();
  server.refuses = () => false;
  await run();
  assert.deepEqual([server.text(), sent, server.staged.size], ["a.ht=1", 1, 0]);
});

test("what was taken aside for a content that is denied its name has that again at once, and follows its side", async () => {
  const it = both();
  const { box, server, once, run, store } = it;
  files(box, "a", "keep");
  await run();
  box.write("a", 5);
  refusing("denied", "a")(it);
  assert.deepEqual([...(await once()).failed.keys()], ["a"]);
  assert.deepEqual([server.text(), store.intents.size], ["a=1 keep=2", 0]);
  box.remove("a");
  await run();
  assert.deepEqual([box.text(), server.text(), store.staged.size], ["keep=2", "keep=2", 0]);
});

test("killed after something was taken aside for a content that nobody wants by now: it has its name again, and the newer one comes", async () => {
  const { box, server, between, once, run, store } = both();
  files(box, "a", "keep");
  await run();
  box.write("a", 5);
  between.gate = (_when, call) => (call.startsWith("publish ") ? Promise.reject(new Error("no power")) : Promise.resolve());
  await assert.rejects(once(), /no power/);
  assert.equal(server.content("a"), undefined);
  const given: number[] = [];
  between.gate = (when, call) => {
    if (when === "after" && call === "publish a") given.push(server.content("a") ?? 0);
    return Promise.resolve();
  };
  box.write("a", 6);
  await run();
  assert.deepEqual([box.text(), server.text(), given, store.intents.size], ["a=6 keep=2", "a=6 keep=2", [6], 0]);
});

for (const isKilled of [true, false])
  test(`what could not be synced where it was read, and is lost there before it has its name, gets that (${isKilled ? "a kill" : "a lost link"})`, async () => {
    const it = both();
    const { box, server, between, once, run } = it;
    files(box, "a", "keep");
    await run();
    box.write("a", 5);
    between.gate = (when, call) => {
      if (when === "before" && call.startsWith("sync ")) return Promise.reject(new Fault("unreadable", "the disk fails"));
      if (!call.startsWith("publish ")) return Promise.resolve();
      return Promise.reject(isKilled ? new Error("no power") : new Fault("transient", "the link is lost"));
    };
    await once().catch(() => undefined);
    if (isKilled) between.boot = "the next";
    it.startAnew();
    between.gate = () => Promise.resolve();
    box.remove("a");
    await run();
    assert.deepEqual([box.text(), server.text(), server.staged.size], ["a=5 keep=2", "a=5 keep=2", 0]);
    assert.match(it.told.get("a") ?? "", /has lost it since: it stays/);
  });

for (const edit of ["removed", "written"] as const)
  test(`killed after the name was given, and then a refused login in the look at it: that is waited for, and what is ${edit} then follows`, async () => {
    const it = both();
    const { box, server, between, once, run, store } = it;
    files(box, "a", "keep");
    await run();
    box.write("a", 5);
    between.gate = (when, call) =>
      when === "after" && call.startsWith("publish ") ? Promise.reject(new Error("no power")) : Promise.resolve();
    await assert.rejects(once(), /no power/);
    it.startAnew();
    between.gate = (when, call) =>
      when === "before" && call === "digest a" ? Promise.reject(new Fault("denied", "the login is refused")) : Promise.resolve();
    await once();
    assert.equal(store.intents.size, 1);
    between.gate = () => Promise.resolve();
    if (edit === "removed") box.remove("a");
    else box.write("a", 6);
    await run();
    const now = edit === "removed" ? "keep=2" : "a=6 keep=2";
    assert.deepEqual([box.text(), server.text()], [now, now]);
  });

for (const lost of [false, true])
  for (const edit of ["removed", "written"] as const)
    test(`what has its name though that was answered as denied${lost ? ", after the link was lost while it was made free" : ""}, and is ${edit} then, leaves nothing`, async () => {
      const { box, server, between, once, run, store } = both();
      files(box, "a", "keep");
      await run();
      box.write("a", 5);
      let isLost = lost;
      between.gate = (when, call) => {
        if (when === "before") return Promise.resolve();
        if (isLost && call === "take a") {
          isLost = false;
          return Promise.reject(new Fault("transient", "the link is lost"));
        }
        return call === "publish a" ? Promise.reject(new Fault("denied", "no")) : Promise.resolve();
      };
      const first = await once().catch(() => undefined);
      const { failed } = lost ? await once() : (first ?? { failed: undefined });
      assert.deepEqual([server.text(), store.intents.size, failed?.size], ["a=5 keep=2", 0, 0]);
      if (edit === "removed") box.remove("a");
      else box.write("a", 6);
      between.gate = () => Promise.resolve();
      await run();
      const now = edit === "removed" ? "keep=2" : "a=6 keep=2";
      assert.deepEqual([box.text(), server.text(), server.staged.size], [now, now, 0]);
    });
