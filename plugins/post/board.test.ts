import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { isFault } from "../../core/errors.js";
import { Board } from "./board.js";

test("what was posted is a line and a row, once; where it cannot be kept it is told which file refuses", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "filesync-board-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const posted = { at: "2026-05-01T00:00:00.000Z", path: "a.ulg", size: 1000, url: "https://review/1" };
  const warned: string[] = [];
  const board = new Board("logs", dir, (text) => warned.push(text));
  await board.add(posted);
  await board.add(posted);
  assert.equal(readFileSync(join(dir, "posted.jsonl"), "utf8"), `${JSON.stringify(posted)}\n`);
  assert.equal(readFileSync(join(dir, "index.html"), "utf8").split("a.ulg").length, 2);
  const other = new Board("logs", join(dir, "other"), (text) => warned.push(text));
  const lines = join(dir, "other/posted.jsonl");
  mkdirSync(lines, { recursive: true });
  await assert.rejects(
    other.add(posted),
    (error: Error) => isFault(error, "transient") && error.message.startsWith(`${lines} cannot keep what was posted: `),
  );
  assert.deepEqual(warned, []);
});
