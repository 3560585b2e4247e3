/** Each row of the two-way table; directories, what could not be seen, and what has to be read first. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Action, type Content, type Contents, rowOf, twoWay } from "./reconcile.js";

const file = (content: string): Content => ({ kind: "file", size: content.length, digest: `sha256:${content}` });
const unread = (size: number): Content => ({ kind: "file", size });
const dir: Content = { kind: "directory" };
const contents = (given: Readonly<Record<string, Content>>): Contents => new Map(Object.entries(given));
const [b, x, y] = [file("b"), file("x"), file("y")];

function plan(
  base: Readonly<Record<string, Content>>,
  here: Readonly<Record<string, Content>>,
  there: Readonly<Record<string, Content>>,
): string[] {
  return twoWay({ base: contents(base), here: contents(here), there: contents(there) }).map(textOf);
}

function textOf(action: Action): string {
  switch (action.do) {
    case "conflict":
      return `${action.path}: the one ${action.loser} gets another name`;
    case "learn":
      return `${action.path}: read it ${action.sides.join(" and ")}`;
    case "adopt":
    case "forget":
      return `${action.do} ${action.path}`;
    case "copy":
      return `copy ${action.path} ${action.on}${action.over ? ", the old to the trash" : ""}`;
    default:
      return `${action.do} ${action.path} ${action.on}`;
  }
}

/** base, here, there; what is done; the names that PiSync has for it. */
const rows: readonly (readonly [Content | undefined, Content | undefined, Content | undefined, readonly string[], string])[] = [
  [undefined, undefined, undefined, [], "s14 s16"],
  [undefined, undefined, x, ["copy a here"], "s13 s15"],
  [undefined, x, undefined, ["copy a there"], "s4 s10 s12"],
  [undefined, x, x, ["adopt a"], "s3 s9, s11 with equal contents"],
  [undefined, x, y, ["a: the one here gets another name"], "s11"],
  [b, undefined, undefined, ["forget a"], "s6 s8"],
  [b, undefined, b, ["remove a there"], "s5 s7"],
  [b, undefined, x, ["copy a here"], "s5 s7 with a change"],
  [b, b, undefined, ["remove a here"], "s2"],
  [b, b, b, [], "s1 s3 s9"],
  [b, b, x, ["copy a here, the old to the trash"], "s1 with a change there"],
  [b, x, undefined, ["copy a there"], "s2 with a change"],
  [b, x, b, ["copy a there, the old to the trash"], "s1 with a change here"],
  [b, x, x, ["adopt a"], "s1 with the same change on both sides"],
  [b, x, y, ["a: the one here gets another name"], "s1, both changed"],
];
rows.forEach(([base, here, there, expected, pisync], n) => {
  const show = (content: Content | undefined) => (content?.kind === "file" ? (content.digest?.slice(-1) ?? "?") : "-");
  test(`row ${n + 1}: ${show(base)} ${show(here)} ${show(there)} (PiSync: ${pisync})`, () => {
    assert.equal(rowOf(base, here, there), n + 1);
    const given = (content: Content | undefined): Record<string, Content> => (content === undefined ? {} : { a: content });
    assert.deepEqual(plan(given(base), given(here), given(there)), expected);
  });
});

test("of one size and not read, a content is read only where that decides", () => {
  assert.deepEqual(rowOf(undefined, unread(1), unread(1)), ["here", "there"]);
  assert.equal(rowOf(undefined, unread(1), unread(2)), 5);
  assert.equal(rowOf(undefined, unread(1), undefined), 3);
  assert.deepEqual(rowOf(undefined, x, unread(1)), ["there"]);
  assert.deepEqual(rowOf(b, undefined, unread(1)), ["there"]);
  assert.equal(rowOf(b, undefined, unread(2)), 8);
  assert.deepEqual(rowOf(b, unread(1), undefined), ["here"]);
  assert.deepEqual(rowOf(b, b, unread(1)), ["there"]);
  assert.equal(rowOf(b, b, unread(2)), 11);
  assert.equal(rowOf(b, unread(2), unread(3)), 15);
  assert.deepEqual(rowOf(b, unread(2), unread(2)), ["here", "there"]);
  assert.deepEqual(plan({ a: b }, { a: unread(1) }, { a: b }), ["a: read it here"]);
});

test("directories come from the top, and go from the bottom, after what is in them", () => {
  const tree = { d: dir, "d/e": dir, "d/e/a": x, "d/f": dir };
  assert.deepEqual(plan({}, tree, {}), ["mkdir d there", "mkdir d/e there", "mkdir d/f there", "copy d/e/a there"]);
  assert.deepEqual(plan(tree, {}, tree), ["remove d/e/a there", "rmdir d/e there", "rmdir d/f there", "rmdir d there"]);
  assert.deepEqual(plan(tree, {}, {}), ["forget d", "forget d/e", "forget d/f", "forget d/e/a"]);
  assert.deepEqual(plan({}, tree, tree), ["adopt d", "adopt d/e", "adopt d/f", "adopt d/e/a"]);
});

test("a change below a directory that was removed on the other side beats that", () => {
  const base = { d: dir, "d/a": b, "d/b": b };
  assert.deepEqual(plan(base, { d: dir, "d/a": x, "d/b": b }, {}), ["mkdir d there", "copy d/a there", "remove d/b here"]);
  assert.deepEqual(plan(base, {}, { d: dir, "d/a": b, "d/b": b, "d/c": x }), [
    ...["mkdir d here", "copy d/c here", "remove d/a there", "remove d/b there"],
  ]);
});

test("a file where a directory was, and a directory where a file was", () => {
  const base = { d: dir, "d/a": b };
  assert.deepEqual(plan(base, { d: x }, base), ["remove d/a there", "rmdir d there", "copy d there"]);
  assert.deepEqual(plan({ a: b }, { a: b }, { a: dir, "a/x": x }), ["remove a here", "mkdir a here", "copy a/x here"]);
  // What changed in it keeps the directory: the file gets another name, and comes to the other side by that.
  const changed = { d: dir, "d/a": y };
  assert.deepEqual(plan(base, { d: x }, changed), ["d: the one here gets another name", "copy d/a here"]);
  assert.deepEqual(plan({ a: b }, { a: x }, { a: dir }), ["a: the one here gets another name"]);
  assert.deepEqual(plan({ a: b }, { a: dir }, { a: x }), ["a: the one there gets another name"]);
});

test("what could not be seen is left as it is, with all below and above it", () => {
  const base = { d: dir, "d/e": dir, "d/e/a": b, "d/f": b };
  const unseen = (side: string, path: string) => side === "there" && `${path}/`.startsWith("d/e/");
  const tables = { base: contents(base), here: contents(base), there: contents({}), unseen };
  // "d" itself is gone there, as far as can be seen: something below it may not be.
  assert.deepEqual(twoWay(tables).map(textOf), ["mkdir d there", "remove d/f here"]);
  assert.deepEqual(twoWay({ ...tables, unseen: () => true }), []);
});
