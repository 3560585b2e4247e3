/** Words of a command line that are no UTF-8. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { typedWords } from "./typed.js";

test("a word that is no UTF-8 has its bytes, whatever stands before; one that holds U+FFFD itself, or whose bytes nobody tells, stays", () => {
  const line = (...words: (string | Buffer)[]) => Buffer.concat(words.flatMap((word) => [Buffer.from(word as string), Buffer.alloc(1)]));
  const bad = Buffer.from("sf:b\xff\u201b.txt", "latin1");
  const broken = Buffer.concat([bad.subarray(0, 5), Buffer.from("\u201bé.txt")]);
  const argv = ["/usr/bin/node", "main.js", "put", "\ufffd", broken.toString(), "last"];
  const raw = () => line("/usr/bin/node", "--no-warnings", ...argv.slice(1, 4), broken, "last");
  assert.deepEqual(typedWords(argv, raw), [...argv.slice(0, 4), "sf:b\u201bFF\u201b\u201bé.txt", "last"]);
  // Another program's line, a part of it, none.
  for (const other of [() => line("a", "b"), () => raw().subarray(0, 30), () => assert.fail("no /proc")])
    assert.deepEqual(typedWords(argv, other), argv);
});
