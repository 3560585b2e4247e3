/** What would be given a name that a side has in another spelling. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { folded, takenOtherwise } from "./folded.js";
import type { Action, Content, Contents } from "./reconcile.js";

/** Directories end with "/". */
const contents = (...paths: string[]): Contents =>
  new Map(
    paths.map((path): [string, Content] =>
      path.endsWith("/") ? [path.slice(0, -1), { kind: "directory" }] : [path, { kind: "file", size: 1 }],
    ),
  );
const copy = (path: string): Action => ({ do: "copy", path, on: "there", over: false });
const mkdir = (path: string): Action => ({ do: "mkdir", path, on: "there" });
const remove = (path: string): Action => ({ do: "remove", path, on: "there" });
const move = (from: string, path: string): Action => ({ do: "move", from, path, on: "there" });

function taken(there: Contents, ...actions: Action[]): string[] {
  return [...takenOtherwise(actions, { there: { contents: there, folding: "case" } })].map(
    ([action, { by, at, goes }]) =>
      `${action.path}${at === action.path ? "" : ` (${at})`} by ${by ?? "nothing"}${goes ? ", which goes" : ""}`,
  );
}

test("what is there in another spelling, or comes before it, has the name; so has a directory above it", () => {
  assert.deepEqual(taken(contents("A", "d/", "d/x"), copy("a"), copy("b"), copy("D/y"), copy("d/X"), copy("d/y")), [
    "a by A",
    "D/y (D) by d",
    "d/X by d/x",
  ]);
  assert.deepEqual(taken(contents(), mkdir("Dd"), copy("Dd/x"), mkdir("dd"), copy("dd/x"), copy("n"), copy("N")), [
    "dd by Dd",
    "dd/x (dd) by Dd",
    "N by n",
  ]);
  assert.deepEqual(taken(contents("a"), { do: "copy", path: "a", on: "there", over: true }), []);
});

test("what goes before leaves its name free; what goes after it leaves it soon", () => {
  assert.deepEqual(taken(contents("A"), remove("A"), copy("a")), []);
  assert.deepEqual(taken(contents("A"), copy("a"), remove("A")), ["a by A, which goes"]);
  assert.deepEqual(taken(contents("D/", "D/x"), remove("D"), mkdir("d"), copy("d/x")), []);
  assert.deepEqual(taken(contents("D/"), { do: "rmdir", path: "D", on: "there" }, copy("d")), []);
  assert.deepEqual(taken(contents("D/", "D/x"), move("D", "away/1"), move("away/1", "d"), copy("d/y"), copy("D/z")), ["D/z (D) by d"]);
});

test("where dots at the end are taken away no name that has some is given, whether something has it without them or not", () => {
  const actions = [copy("trail."), mkdir("sub.."), copy("sub../x"), copy("a.b"), copy("A"), copy("a.")];
  assert.deepEqual(
    [...takenOtherwise(actions, { there: { contents: contents("sub/"), folding: "case and end" } })].map(([{ path }, it]) => ({
      path,
      ...it,
    })),
    [
      { path: "trail.", by: undefined, at: "trail.", goes: false },
      { path: "sub..", by: "sub", at: "sub..", goes: false },
      { path: "sub../x", by: "sub", at: "sub..", goes: false },
      { path: "a.", by: "A", at: "a.", goes: false },
    ],
  );
  assert.equal(folded("Sub../a.B.", "case and end"), "sub/a.b");
});

test("of the other side, and of a side that tells spellings apart, nothing is taken", () => {
  assert.deepEqual(
    [...takenOtherwise([{ do: "copy", path: "a", on: "here", over: false }], { there: { contents: contents("A"), folding: "case" } })],
    [],
  );
  assert.deepEqual([...takenOtherwise([copy("a")], {})], []);
});

test("a letter with its accent is the letter and the accent only where that makes no difference; what is listed as it is written is never taken", () => {
  const [one, two] = ["Caf\u00c9/x", "cafe\u0301/X"];
  assert.notEqual(folded(one, "case"), folded(two, "case"));
  assert.equal(folded(one, "case and form"), folded(two, "case and form"));
  const forms = contents("\u00e9", "e\u0301");
  const over = [...forms.keys()].map((path): Action => ({ do: "copy", path, on: "there", over: true }));
  for (const folding of ["case", "case and form"] as const)
    assert.deepEqual([...takenOtherwise(over, { there: { contents: forms, folding } })], []);
});
