/** The list of events is the one that the code says: none is missing, none is said no more. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { eventNames } from "./events.js";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** The names that stand in calls such as `events.say("info", "found", …)`, with where. */
function saidIn(path: string): [string, string][] {
  const file = ts.createSourceFile(path, readFileSync(join(root, path), "utf8"), ts.ScriptTarget.Latest, true);
  const said: [string, string][] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isCallExpression(node)) {
      const callee = node.expression.getText(file);
      const name = /\bevents\.say$/.test(callee) ? node.arguments[1] : callee.endsWith(".#say") ? node.arguments[0] : undefined;
      const at = `${path}:${file.getLineAndCharacterOfPosition(node.pos).line + 1}`;
      if (name !== undefined && ts.isStringLiteral(name)) said.push([name.text, at]);
      else if (name !== undefined && callee.endsWith("events.say") && name.getText(file) !== "what") said.push(["(no literal)", at]);
    }
    ts.forEachChild(node, visit);
  };
  visit(file);
  return said;
}

test("each event that the code says is in the list, and each of the list is said", () => {
  const said = ["core", "cli"].flatMap((room) =>
    readdirSync(join(root, room), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".ts") && !name.endsWith(".test.ts"))
      .flatMap((name) => saidIn(`${room}/${name}`)),
  );
  const known = new Set<string>(eventNames);
  assert.deepEqual(
    said.filter(([name]) => !known.has(name)),
    [],
    "said, and not in the list",
  );
  assert.deepEqual(
    eventNames.filter((name) => !said.some(([one]) => one === name)),
    [],
    "in the list, and never said",
  );
  assert.deepEqual([...eventNames], [...known].sort(), "by the alphabet, each once");
});

test("the list of docs/signals.md is the same", () => {
  const [, table = ""] = /<!-- events -->(.*)<!-- \/events -->/s.exec(readFileSync(join(root, "docs/signals.md"), "utf8")) ?? [];
  assert.deepEqual(
    [...table.matchAll(/^\| `([a-z-]+)`/gm)].map(([, name]) => name),
    [...eventNames],
  );
});
