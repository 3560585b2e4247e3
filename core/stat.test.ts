/** What a file system says that nobody can mean. */
import assert from "node:assert/strict";
import type { BigIntStats } from "node:fs";
import { test } from "node:test";
import { entryOf } from "./stat.js";

const told = (mtimeNs: bigint) => ({
  ...{ isFile: () => true, isDirectory: () => false, isSymbolicLink: () => false },
  ...{ size: 1n, ino: 7n, dev: 1n, birthtimeNs: 0n, mtimeNs },
});

test("a time that no calendar can tell is none: the file is one like others", () => {
  const timeOf = (ns: bigint) => entryOf("x", told(ns) as unknown as BigIntStats).modifiedMs;
  assert.equal(timeOf(1_795_455_264_123_456_789n), 1_795_455_264_123.456);
  for (const seconds of [9_999_999_999_999n, -99_999_999_999_999n, 253_402_300_800n, -62_167_219_201n])
    assert.equal(timeOf(seconds * 1_000_000_000n), undefined, String(seconds));
});
