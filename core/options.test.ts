import assert from "node:assert/strict";
import { test } from "node:test";
import { parseIn, serverRoot } from "./options.js";

test('a directory of a server below "~" is one below the login directory', () => {
  const read = (root: string) => {
    const parsed = parseIn({ baseDir: "/", env: {} }, serverRoot(), root);
    return parsed.success ? parsed.output : undefined;
  };
  assert.deepEqual(["~/logs", "~", "~/", "logs", "/srv/~/x", "~old"].map(read), ["logs", ".", ".", "logs", "/srv/~/x", "~old"]);
  assert.equal(read(""), undefined);
});
