import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { Digest } from "../plugin.js";
import { ChunkIndex } from "./chunk-index.js";
import { hashOf } from "./chunks.js";

test("what a content is made of is kept until it is not agreed any more; damaged it is none", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "filesync-chunks-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const index = new ChunkIndex(join(dir, "below", "it"));
  const [one, two] = ["1", "2"].map((digit): Digest => `sha256:${digit.repeat(64)}`) as [Digest, Digest];
  const chunks = [
    { length: 5, hash: hashOf(Buffer.from("a")) },
    { length: 7, hash: hashOf(Buffer.from("b")) },
  ];
  // There is nothing yet.
  await index.keep(new Set());
  assert.equal(await index.load(one, 12), undefined);
  await index.save(one, chunks);
  await index.save(two, chunks);
  assert.deepEqual(await index.load(one, 12), chunks);
  assert.equal(await index.load(one, 13), undefined);
  await index.keep(new Set([one]));
  assert.deepEqual(readdirSync(index.dir), ["1".repeat(64)]);
  const at = join(index.dir, "1".repeat(64));
  writeFileSync(at, readFileSync(at).subarray(1));
  assert.equal(await index.load(one, 12), undefined);
  assert.deepEqual(
    [2 ** 20, 4 * 2 ** 20, 8 * 2 ** 30, 8 * 2 ** 30 + 1].map((size) => index.has(size)),
    [false, true, true, false],
  );
});
