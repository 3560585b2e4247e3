/** The judges of `npm run vm`: each is red at a planted defect. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Seen } from "./daemon.js";
import { compare, hintsOf, movedAgain } from "./evidence.js";

test("what is missing is lost, what differs or is too much is wrong", () => {
  const expected = new Map([
    ["a", "1 x"],
    ["b", "2 y"],
  ]);
  assert.deepEqual(compare(new Map(expected), expected), { lost: [], wrong: [] });
  assert.deepEqual(compare(new Map([["a", "1 x"]]), expected).lost, ["b (2 y)"]);
  assert.equal(compare(new Map([...expected, ["b", "2 z"]]), expected).wrong.length, 1);
  assert.equal(compare(new Map([...expected, ["c", "2 y"]]), expected).wrong.length, 1);
});

test("what a transfer moves again is what it had come further before; hops are told apart", () => {
  const at = (offset: number, to = "spool"): Seen => ({
    ...{ t: 0, seen: "moved", pulled: 0, pushed: 0, queue: { waiting: 0, active: 0, parked: 0, delivered: 0 } },
    transfers: [{ from: "cam", to, path: "a", offset, size: 100 }],
  });
  const spool = (_: string, to: string) => to === "spool";
  assert.deepEqual(movedAgain([at(10), at(50), at(60, "out"), at(5, "out"), at(50), at(80)], spool), []);
  assert.deepEqual(movedAgain([at(10), at(50), at(0), at(60), at(55)], spool), [
    { path: "cam spool a", bytes: 50, at: 0 },
    { path: "cam spool a", bytes: 5, at: 55 },
  ]);
});

test("a plug and a pull are hinted by what comes after them and shows them; a stick that stayed for a blink does not count", () => {
  const block = (t: number, action: string, uuid = "A"): Seen => ({ t, seen: "block", by: "udev", action, node: "/dev/sda", uuid });
  const hint = (t: number, ...uuids: string[]): Seen => ({ t, seen: "hint", uuids });
  const count = (...seen: Seen[]) => {
    const { plugs, hinted, removes, removesHinted } = hintsOf(seen, ["A"]);
    return [plugs, hinted, removes, removesHinted];
  };
  assert.deepEqual(count(block(1000, "add"), hint(1050, "A"), block(9000, "remove"), hint(9050)), [1, 1, 1, 1]);
  // Nothing came; it came without the stick; it came after the pull; it came too late.
  assert.deepEqual(count(block(1000, "add"), block(9000, "remove")), [1, 0, 1, 0]);
  assert.deepEqual(count(block(1000, "add"), hint(1050, "B")), [1, 0, 0, 0]);
  assert.deepEqual(count(block(1000, "add"), block(2000, "remove"), hint(2050, "A")), [1, 0, 1, 0]);
  assert.deepEqual(count(block(1000, "add"), hint(6500, "A")), [1, 0, 0, 0]);
  assert.deepEqual(count(block(1000, "add"), block(1100, "remove"), hint(1150)), [0, 0, 1, 1]);
  assert.deepEqual(count(block(100, "add"), hint(150, "A"), block(800, "remove"), hint(820), block(1000, "add")), [2, 1, 1, 1]);
  assert.deepEqual(count(block(1000, "add", "C"), hint(1050, "C")), [0, 0, 0, 0]);
});
