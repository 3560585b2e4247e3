import assert from "node:assert/strict";
import { test } from "node:test";
import { Rooms } from "./rooms.js";
import type { DeliveryRow } from "./rows.js";

const row = (id: string, size = 5) => ({ id, size, target: "out", fault: "full", marks: '{"full":true}' }) as DeliveryRow;
const minute = 60_000;

test("room that is given in vain costs the target a minute without gifts, then ten, until one is whole in room of nobody's, or it is another", () => {
  for (const ends of [
    (rooms: Rooms) => void rooms.took(row("other"), () => true),
    (rooms: Rooms) => void rooms.met("out", "2"),
    (rooms: Rooms) => rooms.asked(row("other")),
  ]) {
    const rooms = new Rooms();
    rooms.met("out", "1");
    rooms.got(row("a"));
    rooms.refused(row("a"), { progress: true, wasted: false }, 0);
    assert.deepEqual([rooms.mayBeGiven("out", minute - 1), rooms.mayBeGiven("out", minute)], [false, true]);
    rooms.got(row("a"));
    rooms.refused(row("a"), { progress: true, wasted: false }, 0);
    assert.deepEqual([rooms.mayBeGiven("out", minute), rooms.mayBeGiven("out", 10 * minute)], [false, true]);
    assert.ok(rooms.mayBeGiven("elsewhere", 0));
    ends(rooms);
    assert.ok(rooms.mayBeGiven("out", 0));
  }
});

test("what broke off, or came after another that took the room, found none for no fault of who gave it", () => {
  for (const between of [(rooms: Rooms) => rooms.brokeOff("a"), (rooms: Rooms) => void rooms.took(row("other"), () => true)]) {
    const rooms = new Rooms();
    rooms.got(row("a"));
    between(rooms);
    rooms.refused(row("a"), { progress: false, wasted: false }, 0);
    assert.ok(rooms.mayBeGiven("out", 0));
  }
});

test("only what is whole in room of nobody's makes who gave any as if it never had", () => {
  const rooms = new Rooms();
  assert.deepEqual([rooms.gave(row("l")), rooms.gave(row("l"))], [0, 1]);
  rooms.got(row("a"));
  rooms.brokeOff("a");
  assert.deepEqual(
    rooms.took(row("a"), () => true),
    { found: true, but: ["l"], costly: ["l"] },
    "it was given to it",
  );
  rooms.got(row("b"));
  assert.deepEqual(
    rooms.took(row("c"), () => true),
    { found: true, but: ["l"], costly: ["l"] },
    "it was given to another",
  );
  rooms.refused(row("b"), { progress: true, wasted: false }, 0);
  rooms.took({ ...row("small", 4), marks: null }, () => true);
  assert.equal(rooms.gave(row("l")), 2);
  assert.deepEqual(
    rooms.took({ ...row("d"), marks: null }, () => true),
    { found: true, but: [], costly: [] },
  );
  assert.equal(rooms.gave(row("l")), 0);
});

test("that a device is there makes nothing due that gave its room, but where that was, if that is another now", () => {
  const rooms = new Rooms();
  rooms.met("out", "1");
  rooms.gave(row("l"));
  assert.deepEqual([rooms.met("card", "9"), rooms.met("out", "1"), rooms.met("out", "2")], [["l"], ["l"], []]);
});

test("what ended is forgotten", () => {
  const rooms = new Rooms();
  rooms.gave(row("l"));
  rooms.forgetEnded(() => false);
  assert.deepEqual(rooms.met("card", "1"), []);
});
