import assert from "node:assert/strict";
import { test } from "node:test";
import { type Copy, NoRoom } from "./no-room.js";

const copy = (id: string, size: number, on: Copy["on"] = "there"): Copy => ({ on, id, size });
const [small, middle, large] = [copy("small", 1), copy("middle", 2), copy("large", 3)];
const all = new Set(["small", "middle", "large"]);

test("of all that had no room the smallest keeps its part; nothing that is no smaller is begun before it is through", () => {
  const noRoom = new NoRoom();
  noRoom.begin(all);
  assert.deepEqual(noRoom.refused(middle, false), []);
  assert.deepEqual(noRoom.refused(large, false), ["large"]);
  assert.deepEqual(
    [small, middle, large].map((it) => noRoom.takes(it)),
    [true, true, false],
  );
  assert.deepEqual(noRoom.refused(small, false), ["middle"]);
  noRoom.begin(all);
  assert.deepEqual(
    [small, middle, large].map((it) => noRoom.takes(it)),
    [true, false, false],
  );
  noRoom.through(small);
  assert.deepEqual(
    [small, middle, large].map((it) => noRoom.takes(it)),
    [true, true, true],
  );
});

test("what may still be under way keeps its part: that goes when it is refused itself", () => {
  const noRoom = new NoRoom();
  noRoom.begin(all);
  noRoom.refused(large, false);
  noRoom.begin(all);
  assert.deepEqual(noRoom.refused(small, false), [], "the large one may be sent just now");
  assert.deepEqual(noRoom.refused(large, false), ["large"]);
});

test("a part makes room for what is smaller and waits", () => {
  const noRoom = new NoRoom();
  noRoom.begin(all);
  assert.deepEqual(noRoom.refused(large, true), ["large"]);
  assert.equal(noRoom.takes(small), true);
});

test("one that is not wanted any more holds up nothing; and none that goes to the other side", () => {
  const noRoom = new NoRoom();
  noRoom.begin(all);
  noRoom.refused(small, false);
  assert.equal(noRoom.takes(copy("other", 9, "here")), true);
  noRoom.begin(new Set(["large"]));
  assert.equal(noRoom.takes(large), true);
});
