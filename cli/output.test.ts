/** What is cut to the width of a terminal. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { cutTo } from "./output.js";

test("a text is cut to the columns there are, and never in the middle of a character", () => {
  assert.equal(cutTo("abcd", 4), "abcd");
  assert.equal(cutTo("abcde", 4), "abc…");
  const text = "a😀b😀c";
  const cuts = Array.from({ length: text.length }, (_, i) => cutTo(text, i + 1));
  assert.deepEqual(cuts, ["…", "a…", "a…", "a😀…", "a😀b…", "a😀b…", text]);
});
