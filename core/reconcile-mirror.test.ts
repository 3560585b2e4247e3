/** Each row of a mirror's table; what is moved, and what makes room for it. The model (test/sync/mirror-model) drives it at random. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Content, type Contents, isMove, type Tables } from "./reconcile.js";
import { mirror, type MirrorRules } from "./reconcile-mirror.js";

const file = (content: string, identity?: string): Content => ({
  ...{ kind: "file", size: content.length, digest: `sha256:${content}` },
  ...(identity === undefined ? {} : { identity }),
});
const dir = (identity?: string): Content => ({ kind: "directory", ...(identity === undefined ? {} : { identity }) });
const contents = (given: Readonly<Record<string, Content>>): Contents => new Map(Object.entries(given));
type Side = Readonly<Record<string, Content>>;

function plan(
  base: Side,
  here: Side,
  there: Side,
  more: Partial<MirrorRules> & Pick<Tables, "unseen" | "folding" | "others"> = {},
): string[] {
  let serial = 0;
  const { unseen, folding, others, ...rules } = more;
  const seen = {
    ...(unseen === undefined ? {} : { unseen }),
    ...(folding === undefined ? {} : { folding }),
    ...(others === undefined ? {} : { others }),
  };
  const tables = { base: contents(base), here: contents(here), there: contents(there), ...seen };
  return mirror(tables, { deletes: false, away: ".away", fresh: () => String((serial += 1)), ...rules }).map((action) => {
    if (isMove(action)) return `move ${action.from} to ${action.path}`;
    if (action.do === "learn") return `read ${action.path} ${action.sides.join(" and ")}`;
    if ("on" in action) assert.equal(action.on, "there");
    return `${action.do} ${action.path}${action.do === "copy" && action.over ? ", the old to the trash" : ""}`;
  });
}

const [b, x, y] = [file("b"), file("x"), file("y")];
/** What was brought, what is here, what is there; what is done without deletes, and with them where that differs. */
const rows: readonly (readonly [Content | undefined, Content | undefined, Content | undefined, string[], string[]?])[] = [
  [undefined, undefined, y, []],
  [undefined, x, undefined, ["copy a"]],
  [undefined, x, x, ["adopt a"]],
  [undefined, x, y, ["copy a, the old to the trash"]],
  [b, undefined, undefined, ["forget a"]],
  [b, undefined, b, [], ["remove a"]],
  [b, undefined, y, ["forget a"]],
  [b, b, undefined, ["copy a"]],
  [b, b, b, []],
  [b, b, y, ["copy a, the old to the trash"]],
  [b, x, undefined, ["copy a"]],
  [b, x, b, ["copy a, the old to the trash"]],
  [b, x, x, ["adopt a"]],
  [b, x, y, ["copy a, the old to the trash"]],
  [undefined, dir(), undefined, ["mkdir a"]],
  [undefined, dir(), dir(), ["adopt a"]],
  [dir(), dir(), dir(), []],
  [b, dir(), b, ["remove a", "mkdir a"]],
  [undefined, dir(), y, ["remove a", "mkdir a"]],
  [dir(), x, dir(), ["remove a", "copy a"]],
  [undefined, x, dir(), ["remove a", "copy a"]],
  [dir(), undefined, dir(), [], ["remove a"]],
  [dir(), undefined, y, ["forget a"]],
  [undefined, undefined, dir(), []],
];
for (const [base, here, there, adds, deletes = adds] of rows) {
  const show = (content: Content | undefined) =>
    content === undefined ? "-" : content.kind === "file" ? (content.digest?.slice(-1) ?? "") : "/";
  test(`${show(base)} ${show(here)} ${show(there)}`, () => {
    const given = (content: Content | undefined): Side => (content === undefined ? {} : { a: content });
    assert.deepEqual(plan(given(base), given(here), given(there)), adds);
    assert.deepEqual(plan(given(base), given(here), given(there), { deletes: true }), deletes);
  });
}

test("a directory goes with all that is in it, and what others put there keeps it", () => {
  const base = { d: dir(), "d/a": b, "d/e": dir() };
  assert.deepEqual(plan(base, {}, base, { deletes: true }), ["remove d"]);
  assert.deepEqual(plan(base, {}, { ...base, "d/e/theirs": y }, { deletes: true }), ["forget d", "forget d/e", "remove d/a"]);
  // Also what the route leaves out.
  assert.deepEqual(plan(base, {}, base, { deletes: true, others: new Set(["d/e"]) }), ["forget d", "forget d/e", "remove d/a"]);
});

test("a file takes the place of a directory at once, with all that is in it", () => {
  assert.deepEqual(plan({ d: dir(), "d/a": b }, { d: x }, { d: dir(), "d/a": b, "d/theirs": y }, { deletes: true }), [
    "remove d",
    "copy d",
  ]);
});

test("what cannot be seen on a side is left as it is, and what is above it waits, and is not forgotten", () => {
  const unseen = (side: string, path: string) => side === "there" && path.startsWith("e/d/secret");
  const base = { e: dir(), "e/a": b, "e/d": dir(), "e/d/secret": dir(), "e/d/secret/a": b };
  assert.deepEqual(plan(base, {}, base, { deletes: true, unseen }), ["remove e/a"]);
  assert.deepEqual(plan(base, {}, base, { deletes: true }), ["remove e"]);
});

test("contents of one size of which one was not read are read first", () => {
  const unread: Content = { kind: "file", size: 1 };
  assert.deepEqual(plan({}, { a: unread }, { a: unread }), ["read a here and there"]);
  assert.deepEqual(plan({ a: b }, { a: unread }, { a: b }), ["read a here"]);
  assert.deepEqual(plan({ a: b }, {}, { a: unread }, { deletes: true }), ["read a there"]);
});

test("a thing with another name is moved, a directory with all that is in it", () => {
  const base = { d: dir("1"), "d/a": file("a", "2"), f: file("f", "3") };
  const here = { e: dir("1"), "e/a": file("a", "2"), g: file("f", "3") };
  assert.deepEqual(plan(base, here, base), ["move d to e", "move f to g"]);
  // Not where others changed it, nor where the server did not want it.
  assert.deepEqual(plan(base, here, { ...base, f: y }), ["move d to e", "forget f", "copy g"]);
  const fixed = (path: string) => path === "d" || path === "f";
  assert.deepEqual(plan(base, here, base, { fixed }), ["mkdir e", "move d/a to e/a", "copy g"]);
});

test("what is in the way goes first: a chain from its end, a circle by another name", () => {
  const chain = { log: file("0", "0"), "log.1": file("1", "1"), "log.2": file("2", "2") };
  assert.deepEqual(plan(chain, { log: file("n", "n"), "log.1": file("0", "0"), "log.2": file("1", "1") }, chain), [
    ...["remove log.2", "move log.1 to log.2", "move log to log.1", "copy log"],
  ]);
  const two = { a: file("a", "1"), b: file("b", "2") };
  assert.deepEqual(plan(two, { a: file("b", "2"), b: file("a", "1") }, two), ["move b to .away/1", "move a to b", "move .away/1 to a"]);
});

test("a directory that comes into a new one of its name, and one that takes its parent's", () => {
  const base = { d: dir("1"), "d/a": file("a", "2") };
  assert.deepEqual(plan(base, { d: dir("3"), "d/d": dir("1"), "d/d/a": file("a", "2") }, base), [
    ...["move d to .away/1", "mkdir d", "move .away/1 to d/d"],
  ]);
  const deep = { d: dir("1"), "d/s": dir("2"), "d/s/a": file("a", "3"), "d/b": file("b", "4") };
  assert.deepEqual(plan(deep, { d: dir("2"), "d/a": file("a", "3") }, deep), [...["move d/s/a to d/a", "rmdir d/s"]]);
  const deeper = { d: dir("1"), "d/s": dir("2"), "d/s/s": dir("3"), "d/s/s/a": file("a", "4"), "d/theirs": y };
  assert.deepEqual(plan({ ...deeper }, { d: dir("2"), "d/s": dir("3"), "d/s/a": file("a", "4") }, deeper), [
    "move d/s/s/a to d/s/a",
    "rmdir d/s/s",
  ]);
});

test("a directory that comes to the name of one that has others' files, or what stays there, is put together with that", () => {
  const kept = { "100": dir("1"), "100/1.jpg": file("k", "2") };
  const base = { ...kept, tmp: dir("3"), "tmp/a": file("a", "4"), "tmp/d": dir("5"), "tmp/d/b": file("b", "6") };
  const here = { "100": dir("3"), "100/a": file("a", "4"), "100/d": dir("5"), "100/d/b": file("b", "6") };
  assert.deepEqual(plan(base, here, base), ["move tmp/a to 100/a", "move tmp/d to 100/d", "rmdir tmp"]);
  const there = { ...base, "100/d": dir(), "100/d/theirs": y, "tmp/of them": y };
  assert.deepEqual(plan(base, here, there), [
    ...["move tmp/a to 100/a", "move tmp/d/b to 100/d/b", "rmdir tmp/d", "move tmp/of them to 100/of them", "rmdir tmp"],
    ...["adopt 100/d"],
  ]);
  // Nothing is in it: it was only made.
  assert.deepEqual(
    plan({ tmp: dir("3"), "tmp/a": file("a", "4") }, { e: dir("3"), "e/a": file("a", "4") }, { tmp: dir(), "tmp/a": file("a"), e: dir() }),
    [...["remove e", "move tmp to e"]],
  );
});

test("what was agreed and is not there any more is not moved, and is in nobody's way", () => {
  const was = { f: dir("1"), "f/b": dir("2"), "f/b/g": dir("3"), "f/b/g/a": file("a", "4") };
  const now = { f: dir("2"), "f/g": dir("3"), "f/g/a": file("a", "4") };
  assert.deepEqual(plan(was, now, { f: dir(), "f/b": dir() }), ["rmdir f/b", "mkdir f/g", "copy f/g/a"]);
  assert.deepEqual(plan({ ".away/1": file("a", "1") }, {}, {}), ["forget .away/1"]);
});

test("what a kill left aside finds its place, or goes to the trash", () => {
  const there = { a: file("a"), ".away/7": file("b"), ".away/8": file("c") };
  const base = { a: file("a", "1"), ".away/7": file("b", "2") };
  assert.deepEqual(plan(base, { a: file("a", "1"), n: file("b", "2") }, there), ["move .away/7 to n", "remove .away/8"]);
});

test("of several names of one thing those that were brought keep theirs", () => {
  const base = { a: file("a", "1"), b: file("a", "1") };
  assert.deepEqual(plan(base, { a: file("a", "1"), b: file("a", "1"), c: file("a", "1") }, base), ["copy c"]);
  assert.deepEqual(plan(base, { a: file("a", "1"), c: file("a", "1") }, base), ["move b to c"]);
});

test("where spellings of a name are one, another spelling comes by way of a third name", () => {
  const base = { Dd: dir("1"), "Dd/f": file("b", "2"), A: file("b", "3") };
  const here = { dd: dir("1"), "dd/f": file("b", "2"), a: file("b", "3") };
  const [dirMoved, fileMoved] = [["move Dd to dd"], ["move A to a"]];
  assert.deepEqual(plan(base, here, base).sort(), [...dirMoved, ...fileMoved].sort());
  assert.deepEqual(plan(base, here, base, { folding: new Map([["there", "case"]]) }), [
    ...["move A to .away/1", "move .away/1 to a"],
    ...["move Dd to .away/2", "move .away/2 to dd"],
  ]);
});
