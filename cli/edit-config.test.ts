/** Members are added to a text that people wrote, without a comment, an order or a layout being touched. */
import assert from "node:assert/strict";
import { parse } from "jsonc-parser";
import { test } from "node:test";
import { memberText, valueText, withItems, withMember } from "./edit-config.js";

const password = { password: { credential: "n" } };

function added(text: string, path: readonly string[] = ["users"], key = "n", value: unknown = password): string {
  const now = withMember(text, path, key, value);
  // All that was there is there, in its order; and what is there is what was asked for.
  let at = 0;
  for (const word of text
    .replaceAll("{}", "{ }")
    .split(/[\s,]+/)
    .filter((one) => one !== "")) {
    const found = now.indexOf(word, at);
    assert.notEqual(found, -1, `"${word}" is missing, or in another place:\n${now}`);
    at = found + word.length;
  }
  const errors: never[] = [];
  let inner: unknown = parse(now, errors, { allowTrailingComma: true });
  assert.deepEqual(errors, []);
  for (const step of [...path, key]) inner = (inner as Record<string, unknown>)[step];
  assert.deepEqual(inner, value);
  return now;
}

test("a comment behind the last member stays that member's, those that follow stay last", () => {
  assert.equal(
    added(
      '{\n  "users": {\n    // the first\n    "a": { "b": 1 }, // of old\n    "c": { "d": 1 } // her own\n    // no more than these\n  }\n}\n',
    ),
    '{\n  "users": {\n    // the first\n    "a": { "b": 1 }, // of old\n    "c": { "d": 1 }, // her own\n' +
      '    "n": { "password": { "credential": "n" } }\n    // no more than these\n  }\n}\n',
  );
});

test("a comma at the end stays the way of this text", () => {
  assert.equal(
    added('{\n\t"users": {\n\t\t"a": 1, // x\n\t},\n}\n'),
    '{\n\t"users": {\n\t\t"a": 1, // x\n\t\t"n": { "password": { "credential": "n" } },\n\t},\n}\n',
  );
});

test("objects of one line, empty ones, ones with nothing but a comment, and those that are missing", () => {
  assert.equal(added('{ "users": { "a": 1 } }'), '{ "users": { "a": 1, "n": { "password": { "credential": "n" } } } }');
  assert.equal(added('{ "users": { "a": 1, } }'), '{ "users": { "a": 1, "n": { "password": { "credential": "n" } } } }');
  assert.equal(added('{ "users": { "a": 1 /* one */ } }'), '{ "users": { "a": 1, "n": { "password": { "credential": "n" } } /* one */ } }');
  assert.equal(added('{\n  "users": {}\n}'), '{\n  "users": {\n    "n": { "password": { "credential": "n" } }\n  }\n}');
  assert.equal(
    added('{\n  "users": {\n    // nobody yet\n  }\n}'),
    '{\n  "users": {\n    // nobody yet\n    "n": { "password": { "credential": "n" } }\n  }\n}',
  );
  assert.equal(
    added('{\n  "x": 1\n}\n', ["services", "ftp", "users"]),
    '{\n  "x": 1,\n  "services": {\n    "ftp": {\n      "users": {\n        "n": { "password": { "credential": "n" } }\n      }\n    }\n  }\n}\n',
  );
});

test("line ends of Windows stay", () => {
  assert.equal(added('{\r\n  "users": {\r\n    "a": 1\r\n  }\r\n}\r\n').replaceAll("\r\n", "").includes("\n"), false);
});

test("what is there already, or is no object, is refused", () => {
  assert.throws(() => withMember('{ "users": { "n": 1 } }', ["users"], "n", 2), /users\.n is in the configuration already/);
  assert.throws(() => withMember('{ "users": [] }', ["users"], "n", 2), /no object at users/);
});

test("a value is one line where it is short, else one member a line", () => {
  assert.equal(valueText({ a: [1, "x"], b: {} }), '{ "a": [1, "x"], "b": {} }');
  const long = "x".repeat(70);
  assert.equal(memberText("k", { a: long, b: long }, "  "), `"k": {\n    "a": "${long}",\n    "b": "${long}"\n  }`);
});

test("items are added to a list in the same way; one that is missing is made", () => {
  const route = { from: "a", to: ["b"] };
  assert.equal(withItems("{}", ["routes"], [route]), '{\n  "routes": [\n    { "from": "a", "to": ["b"] }\n  ]\n}');
  assert.equal(withItems('{ "routes": [] }', ["routes"], [route]), '{ "routes": [\n  { "from": "a", "to": ["b"] }\n] }');
  assert.equal(
    withItems('{\n  "routes": [\n    { "from": "x" } // hers\n    // no more\n  ]\n}\n', ["routes"], [route, route]),
    '{\n  "routes": [\n    { "from": "x" }, // hers\n    { "from": "a", "to": ["b"] },\n    { "from": "a", "to": ["b"] }\n    // no more\n  ]\n}\n',
  );
  assert.equal(
    withItems('{ "routes": [{ "from": "x" }] }', ["routes"], [route]),
    '{ "routes": [{ "from": "x" }, { "from": "a", "to": ["b"] }] }',
  );
  assert.throws(() => withItems('{ "routes": {} }', ["routes"], [route]), /no list at routes/);
});
