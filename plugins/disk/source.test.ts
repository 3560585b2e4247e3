/** What the engine is told of reading from what may be pulled; how it is obeyed: test/engine/media.test.ts. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { EMPTY } from "../../core/rxjs.js";
import type { Disks } from "./device.js";
import { DiskSource } from "./source.js";

test("what came right before a pull is doubted: below FUSE it may be zeros, as much as was read ahead and one piece", () => {
  const readAhead = 128 * 1024;
  const piece = 512 * 1024;
  const { doubtedBytes = 0 } = new DiskSource({} as Disks, EMPTY, false).features;
  assert.ok(doubtedBytes >= readAhead + piece);
});
