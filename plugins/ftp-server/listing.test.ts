/** Lines of listings for files that are not as they should be. */
import assert from "node:assert/strict";
import { statSync } from "node:fs";
import { test } from "node:test";
import { factLine, listLine } from "./listing.js";

test("a time that the protocol cannot tell keeps no directory from being listed", () => {
  for (const mtimeMs of [9_999_999_999_999_000, -99_999_999_999_999_000, 300_000_000_000_000]) {
    const stats = Object.assign(statSync(import.meta.filename), { mtimeMs });
    assert.equal(factLine("x", stats, new Set(["modify"] as const), ""), "modify=19700101000000; x");
    assert.match(listLine(Buffer.from("x"), stats, Date.UTC(2026, 0, 1)), / Jan {2}1 {2}1970 x$/);
  }
});
